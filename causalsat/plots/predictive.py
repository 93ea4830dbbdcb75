"""Prior and posterior predictive checks: the outcomes that a model expects, with the observed ones over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.exceptions import DataError, ParameterError
from causalsat.plots import style
from causalsat.posterior import draw_quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from causalsat.posterior import EffectPosterior

__all__ = ["plot_predictive"]

FloatArray = NDArray[np.float64]

MAX_DRAWS = 200
MAX_VALUES = 40  # of a whole-number outcome, for a bin of each value
N_BINS = 36


def plot_predictive(
    predictive: EffectPosterior,
    y: ArrayLike | None = None,
    *,
    treatment: ArrayLike | None = None,
    level: float = 0.9,
    log: bool = False,
    units: str = "",
    title: str = "",
    ax: Any = None,
) -> Axes:
    """Distribution of single outcomes under the model, by arm, with the observed outcomes over it.

    Parameters
    ----------
    predictive : EffectPosterior
        Draws (draw, n) of single outcomes, such as :meth:`causalsat.BayesianLinearEffect.posterior_predictive` or
        ``prior_predictive``.
    y : array of shape (n,), optional
        Observed outcomes of the same units.
    treatment : array of shape (n,), optional
        Treatment of the units, of a few levels: a distribution for each.
    level : float
        Share of draws inside the bands.
    log : bool
        Logarithmic axis of outcomes, for positive ones.
    units, title : str
        Units of the outcome; title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    DataError
        If ``y`` or ``treatment`` are of other units, or not positive on a logarithmic axis.
    ParameterError
        If the treatment has more than six levels or the level lies outside (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from causalsat import EffectPosterior
    >>> rng = np.random.default_rng(0)
    >>> draws = EffectPosterior(rng.standard_normal((200, 300)), kind="outcome")
    >>> ax = plot_predictive(draws, rng.standard_normal(300), treatment=np.arange(300) % 2)
    >>> ax.get_xlabel(), [t.get_text() for t in ax.get_legend().get_texts()][:2]
    ('outcome', ['control, model', 'control, data'])
    """
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r}", expected="a number between 0 and 1, such as 0.9")
    draws = np.asarray(predictive.draws, dtype=np.float64)[:: max(1, predictive.n_draws // MAX_DRAWS)]
    observed = None if y is None else _of_units(y, draws.shape[1], "y")
    if log and (draws.min() <= 0 or (observed is not None and observed.min() <= 0)):
        raise DataError("outcomes that are not positive on a logarithmic axis", todo="use log=False")
    arms = _arms(treatment, draws.shape[1])
    edges, counted = _edges(draws, observed, log=log)
    ax = style.new_axes(ax, (6.8, 4.2))
    width = 1.0 if counted else np.diff(np.log10(edges) if log else edges)
    for (name, units_of), colour in zip(arms, style.COLOURS, strict=False):
        each = _shares(draws[:, units_of], edges) / width
        lower, middle, upper = draw_quantiles(each, [(1 - level) / 2, 0.5, (1 + level) / 2])
        label = f"{name}, model" if name else "model"
        ax.stairs(upper, edges, baseline=lower, fill=True, color=colour, alpha=0.25, linewidth=0)
        ax.stairs(middle, edges, color=colour, linewidth=1.6, label=label)
        if observed is not None:
            centre = np.sqrt(edges[1:] * edges[:-1]) if log else 0.5 * (edges[1:] + edges[:-1])
            share = (_shares(observed[None, units_of], edges) / width)[0]
            ax.plot(centre, share, "o", color=colour, markersize=4.2, markeredgecolor=style.INK, markeredgewidth=0.5)
            ax.lines[-1].set_label(f"{name}, data" if name else "data")
    if log:
        ax.set_xscale("log")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=10)
    title = title or f"Outcomes of single units: {level:.0%} of draws in the bands"
    return style.tidy(ax, title=title, x=style.with_units("outcome", units), y="share" if counted else "density")


def _of_units(values: Any, n: int, name: str) -> NDArray[Any]:
    out = np.asarray(values, dtype=float)
    if out.shape != (n,):
        raise DataError(f"{name} of shape {out.shape}", expected=f"one value for each of {n} units")
    return out


def _arms(treatment: Any, n: int) -> list[tuple[str, NDArray[np.bool_]]]:
    """Name of each arm and its units; one without a name where no treatment is given."""
    if treatment is None:
        return [("", np.ones(n, dtype=bool))]
    t = _of_units(treatment, n, "treatment")
    levels = np.unique(t)
    if len(levels) > len(style.COLOURS):
        raise ParameterError(
            f"treatment with {len(levels)} levels", expected="a few", todo="cut a dose into classes first"
        )
    names = {0.0: "control", 1.0: "treated"} if np.isin(levels, (0.0, 1.0)).all() else {}
    return [(names.get(float(v), f"treatment {v:g}"), t == v) for v in levels]


def _edges(draws: FloatArray, observed: FloatArray | None, *, log: bool) -> tuple[FloatArray, bool]:
    """Edges of the bins, and whether each bin is one whole number.

    They hold all of the data and 98 % of the draws, but of a wide prior no more than twice the data's range beyond.
    """
    low, high = np.quantile(draws, [0.01, 0.99])
    if observed is not None:
        least, most = float(observed.min()), float(observed.max())
        if log:
            room = (most / least) ** 2
            low, high = min(max(low, least / room), least), max(min(high, most * room), most)
        else:
            room = 2.0 * (most - least)
            low, high = min(max(low, least - room), least), max(min(high, most + room), most)
    whole = bool((draws == np.round(draws)).all())
    if whole and high - low < MAX_VALUES and not log:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5, True
    if high <= low:
        low, high = low - 0.5, high + 0.5
    if log:
        return np.geomspace(low, high, N_BINS + 1), False
    return np.linspace(low, high, N_BINS + 1), False


def _shares(draws: FloatArray, edges: FloatArray) -> FloatArray:
    """Share of each row's values in each bin, shape (draw, bin)."""
    place = np.searchsorted(edges, draws, side="right") - 1
    place[draws == edges[-1]] = len(edges) - 2
    n_bins = len(edges) - 1
    inside = (place >= 0) & (place < n_bins)
    rows = np.broadcast_to(np.arange(len(draws))[:, None], draws.shape)
    counts = np.bincount((rows * n_bins + place)[inside], minlength=len(draws) * n_bins)
    return counts.reshape(len(draws), n_bins) / max(draws.shape[1], 1)
