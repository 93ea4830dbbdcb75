"""Risk models: calibration of predicted risks; who is tested at the same risk; what the decision overlooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import style as _style
from causalsat.plots.layers import LayerStyle, palette, read_layers
from causalsat.plots.maps import draw_layer
from causalsat.posterior import draw_quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_GAP = 0.25  # of ranks, at the end of the colours: smaller gaps are to look small

__all__ = ["plot_decision_against_risk", "plot_risk_calibration", "plot_testing_policy"]


def plot_risk_calibration(
    result: Any, *, level: float = 0.9, title: str = "Do predicted risks come true?", ax: Any = None
) -> Axes:
    """Reliability curve: share of events against mean predicted probability, by bins of equal counts.

    Parameters
    ----------
    result : RiskCalibration, or mapping of str to it
        A mapping draws one curve a name, such as tested and untested, or several models.
    level : float
        Level of the pointwise binomial intervals.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    from scipy.stats import norm

    curves = result if isinstance(result, Mapping) else {"": result}
    if not curves:
        raise DataError("no curve", expected="at least one RiskCalibration")
    ax = _style.new_axes(ax)
    z = norm.ppf(0.5 + level / 2)
    top = 0.0
    for number, (name, item) in enumerate(curves.items()):
        colour = _style.COLOURS[number % len(_style.COLOURS)]
        below, above = np.minimum(z * item.se, item.observed), np.minimum(z * item.se, 1 - item.observed)
        prefix = f"{name}, " if name else ""
        ax.errorbar(
            item.predicted, item.observed, yerr=[below, above], color=colour, marker="o", markersize=5, linewidth=1.5,
            elinewidth=1, capsize=0, label=f"{prefix}Brier {item.brier:.3f}, slope {item.slope:.2f}",
        )  # fmt: skip
        top = max(top, item.predicted.max(), (item.observed + above).max())
    top = min(1.0, 1.05 * top)
    ax.plot([0, top], [0, top], color=_style.INK, linewidth=0.9, linestyle="--")
    ax.set_xlim(0, top)
    ax.set_ylim(0, top * (1 + 0.09 * len(curves)))  # room for the legend
    ax.legend(frameon=False, fontsize=10, loc="upper left")
    return _style.tidy(ax, title=title, x="mean predicted probability", y="share of events")


def plot_testing_policy(
    risk: Any,
    decision: Any,
    groups: Any = None,
    *,
    bins: int = 8,
    level: float = 0.9,
    title: str = "Who is tested at the same risk?",
    ax: Any = None,
) -> Axes:
    """The inferred testing policy: probability of being tested against risk, by group.

    Where testing follows risk alone, the curves of all groups lie on each other; a group whose curve lies lower is
    tested less at the same risk. The numbers of it, in logits, are ``model.departure(X).gate(groups)``.

    Parameters
    ----------
    risk, decision : EffectPosterior
        ``model.risk(X)`` and ``model.decision(X)`` of the same units.
    groups : array of shape (n,), optional
        Group of each unit, or None for one curve. Groups of a pandas Categorical keep their order.
    bins : int
        Bins of equal counts of each group's posterior mean risk.
    level : float
        Of the intervals, pointwise, from the posterior draws.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    import pandas as pd

    mean, draws = np.asarray(risk.mean(), dtype=float), np.asarray(decision.draws, dtype=float)
    group, names = pd.factorize(pd.Series(np.zeros(len(mean)) if groups is None else groups), sort=True)
    if draws.shape[1:] != mean.shape or group.shape != mean.shape:
        raise DataError(
            f"{len(mean)} risks, {draws.shape[1]} decisions, {len(group)} groups", expected="the same units in each"
        )
    if (group < 0).any():
        raise DataError(f"{int((group < 0).sum())} units without a group", expected="the group of each unit")
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise ParameterError(f"bins={bins!r}", expected="an integer of at least 1")
    ax = _style.new_axes(ax)
    for number, name in enumerate(names):
        units = np.flatnonzero(group == number)
        parts = np.array_split(units[np.argsort(mean[units], kind="stable")], min(int(bins), len(units)))
        x = np.array([mean[part].mean() for part in parts])
        tested = np.column_stack([draws[:, part].mean(axis=1) for part in parts])
        low, middle, high = draw_quantiles(tested, [(1 - level) / 2, 0.5, (1 + level) / 2])
        colour = _style.COLOURS[number % len(_style.COLOURS)]
        ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(x, middle, color=colour, marker="o", markersize=5, linewidth=1.5, label=str(name))
    if groups is not None:
        ax.legend(frameon=False, fontsize=10)
    return _style.tidy(
        ax, title=title, x="risk, posterior mean", y=f"probability of being tested, {level:.0%} interval"
    )


def plot_decision_against_risk(
    result: Any, *, sites: Any = None, title: str = "Risk beyond attention", ax: Any = None
) -> Axes:
    """Map of the decision against the risk: how much higher a cell ranks in risk than in being tested.

    The rank of its risk among all mapped cells minus that of its probability of being tested, from 1 (the riskiest
    cell, the seldomest tested) to -1 (the safest cell, the most often tested); 0 where testing follows risk. Cells
    unlike the units of the fit are hatched.

    Parameters
    ----------
    result : MapResult or path
        What :func:`causalsat.map_risk` returned, or its GeoTIFF.
    sites : GeoDataFrame, optional
        Units of the fit.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    from dataclasses import replace

    layers = read_layers(getattr(result, "path", result))
    if layers.main != "risk":
        raise DataError("a map of effects", expected="a map of risk", todo="write it with causalsat.map_risk")
    gap = _rank(layers.values["risk"]) - _rank(layers.values["decision"])
    layers = replace(layers, values={**layers.values, "neglect": gap})
    most = max(MIN_GAP, float(np.nanmax(np.abs(gap), initial=0.0)))
    label = "rank of the risk minus rank of P(tested)"
    style = LayerStyle(title, label, palette("PuOr_r"), -most, most, "neither")
    ax = _style.new_axes(ax, (6.4, 5.6))
    draw_layer(ax, layers, "neglect", style, sites, large=True)
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=_style.INK)
    return ax


def _rank(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ranks of the finite cells, equal ones sharing theirs, from 0 to 1; NaN elsewhere."""
    from scipy.stats import rankdata

    out = np.full(values.shape, np.nan, dtype=np.float32)
    known = np.isfinite(values)
    out[known] = (rankdata(values[known]) - 1) / max(known.sum() - 1, 1)
    return out
