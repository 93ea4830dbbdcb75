"""Effects of units and of the whole trial, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from causalsat.posterior import EffectPosterior

__all__ = ["plot_ate", "plot_effects"]

MAX_LABELLED = 40


def plot_effects(
    posterior: EffectPosterior, *, level: float = 0.9, units: str = "", title: str = "", ax: Any = None
) -> Axes:
    """Sorted effects with their credible intervals.

    Up to 40 units make a forest plot with the units' labels; more make a curve with a band.

    Parameters
    ----------
    posterior : EffectPosterior
        Effects of n units.
    level : float
        Level of the intervals.
    units : str
        Units of the effect.
    title : str
        Title; by default one that states what is shown.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import numpy as np
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from causalsat import EffectPosterior
    >>> draws = np.linspace(0, 1, 100) + 0.1 * np.random.default_rng(0).standard_normal((500, 100))
    >>> plot_effects(EffectPosterior(draws), units="sd").get_ylabel()
    'effect (sd)'
    """
    if not len(posterior):
        raise DataError("a posterior of no units", expected="at least one unit to draw")
    mean, interval = posterior.mean(), posterior.interval(level)
    order = np.argsort(mean, kind="stable")
    few = len(order) <= MAX_LABELLED
    ax = style.new_axes(ax, (6.4, max(2.2, 0.8 + 0.26 * len(order))) if few else (6.8, 4.2))
    of_places = " of the place itself" if posterior.scope == "place" else ""
    title = title or f"Effects, sorted, with {level:.0%} intervals{of_places}"
    label = style.with_units("effect", units)
    if few:
        labels = [str(v) for v in np.asarray(posterior.index)[order]]
        _forest(ax, labels, mean[order], interval[order, 0], interval[order, 1])
        return style.tidy(ax, title=title, x=label, grid="x")
    rank = (np.arange(len(order)) + 0.5) / len(order)
    ax.fill_between(rank, interval[order, 0], interval[order, 1], color=style.BLUE, alpha=0.22, linewidth=0)
    ax.plot(rank, mean[order], color=style.BLUE, linewidth=2)
    average = float(posterior.ate())
    ax.axhline(0, color=style.INK, linewidth=0.9)
    ax.axhline(average, color=style.VERMILION, linewidth=1.2, linestyle=(0, (5, 3)))
    ax.annotate(
        f"average {average:.3g}",
        (0.01, average),
        xytext=(0, 4),
        textcoords="offset points",
        color=style.VERMILION,
        fontsize=10,
    )
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter("{x:.0%}")
    return style.tidy(ax, title=title, x=f"share of the {len(order):,} units", y=label)


def plot_ate(
    table: Any, *, level: float = 0.95, units: str = "", title: str = "Average effect", ax: Any = None
) -> Axes:
    """Average effects by several methods, side by side, with intervals.

    Parameters
    ----------
    table : DataFrame
        One row a method: the index (or a column ``method`` or ``estimator``) names it, ``estimate`` and either
        ``lower`` and ``upper`` or ``se`` give the interval.
    level : float
        Level of the intervals made from ``se``.
    units, title : str
        Units of the effect; title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    DataError
        If the table has no column of estimates.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import pandas as pd
    >>> table = pd.DataFrame({"estimate": [0.74, 0.75], "se": [0.08, 0.07]}, index=["OLS", "doubly robust"])
    >>> [t.get_text() for t in plot_ate(table).get_yticklabels()]
    ['OLS', 'doubly robust']
    """
    estimate = style.column(table, "estimate", "ate", "mean", "coef")
    if estimate is None or not len(estimate):
        raise DataError(
            f"a table with the columns {', '.join(map(str, table.columns))}", expected="a column named estimate"
        )
    names = next((table[c] for c in ("method", "estimator") if c in table.columns), table.index)
    lower, upper = style.bounds(table, estimate, level)
    ax = style.new_axes(ax, (6.4, 1.1 + 0.42 * len(estimate)))
    _forest(ax, [str(n) for n in names], estimate, lower, upper, values=True)
    ax.invert_yaxis()
    return style.tidy(ax, title=title, x=style.with_units("effect", units), grid="x")


def _forest(ax: Any, labels: list[str], estimate: Any, lower: Any, upper: Any, *, values: bool = False) -> None:
    at = np.arange(len(labels))
    ax.hlines(at, lower, upper, color=style.BLUE, linewidth=2.2, alpha=0.75)
    ax.plot(estimate, at, "o", color=style.BLUE, markersize=6, markeredgecolor="white")
    ax.axvline(0, color=style.INK, linewidth=0.9)
    ax.set_yticks(at, labels)
    ax.set_ylim(-0.7, len(labels) - 0.3)
    for row, value in enumerate(estimate) if values else ():
        ax.annotate(
            f"{value:.3f}", (value, row), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=9.5
        )
