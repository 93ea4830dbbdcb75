"""Judging heterogeneity: targeting curves, group averages, overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_gain_curve", "plot_gates", "plot_overlap", "plot_toc"]


def plot_toc(
    result: Any, *, level: float = 0.95, units: str = "", title: str = "Targeting by predicted effect", ax: Any = None
) -> Axes:
    """TOC: how much larger the effect is among the units ranked first than among all.

    Parameters
    ----------
    result : RateResult, TocCurve, or mapping of str to either
        A mapping draws one curve a name, to compare priorities.
    level : float
        Level of the pointwise band.
    units, title : str
        Units of the effect; title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    curves = result if isinstance(result, Mapping) else {"": result}
    if not curves:
        raise DataError("no curve", expected="at least one RateResult or TocCurve")
    ax = style.new_axes(ax)
    for number, (name, item) in enumerate(curves.items()):
        colour = style.COLOURS[number % len(style.COLOURS)]
        table = getattr(item, "toc", item).to_dataframe(level)
        if np.isfinite(table["lower"]).all():
            ax.fill_between(table["q"], table["lower"], table["upper"], color=colour, alpha=0.18, linewidth=0)
        ax.plot(
            table["q"],
            table["toc"],
            color=colour,
            linewidth=2,
            marker="o",
            markersize=4,
            label=_rate_words(name, item),
        )
    ax.axhline(0, color=style.INK, linewidth=0.9)
    ax.set_xlim(0, 1.01)
    ax.xaxis.set_major_formatter("{x:.0%}")
    if any(handle_label for handle_label in ax.get_legend_handles_labels()[1]):
        ax.legend(frameon=False, fontsize=10, loc="upper right")
    return style.tidy(
        ax,
        title=title,
        x="share of units treated first",
        y=style.with_units("effect above the average", units),
    )


def plot_gain_curve(
    result: Any,
    *,
    level: float = 0.95,
    budget: float | None = None,
    units: str = "",
    currency: str = "",
    title: str = "What a budget brings",
    ax: Any = None,
) -> Axes:
    """Gain a head by budget a head: pointwise and uniform bands, and the same budget spent at random.

    Parameters
    ----------
    result : GainCurve
        Of :func:`causalsat.evaluation.gain_curve`.
    level : float
        Level of the bands.
    budget : float, optional
        Budget a head to be marked.
    units, currency, title : str
        Units of the outcome and of the costs; title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    table = result.to_dataframe(level)
    ax = style.new_axes(ax)
    if np.isfinite(table["band_lower"]).all():
        for low, high, alpha, label in (
            ("band_lower", "band_upper", 0.12, f"{level:.0%} band, all budgets at once"),
            ("lower", "upper", 0.22, f"{level:.0%} interval of one budget"),
        ):
            ax.fill_between(table["spend"], table[low], table[high], color=style.BLUE, alpha=alpha, lw=0, label=label)
    ax.plot(table["spend"], table["gain"], color=style.BLUE, linewidth=2, label="largest predicted effects first")
    ax.plot(table["spend"], table["random"], color=style.GREY, linewidth=1.5, linestyle="--", label="at random")
    ax.axhline(0, color=style.INK, linewidth=0.9)
    if budget is not None:
        ax.axvline(budget, color=style.ORANGE, linewidth=1.4, label=f"budget of {budget:,.4g} a head")
    ax.set_xlim(0, float(table["spend"].max()) or 1.0)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    across, up = style.with_units("budget a head", currency), style.with_units("gain a head", units)
    return style.tidy(ax, title=title, x=across, y=up)  # type: ignore[no-any-return]


def _rate_words(name: str, item: Any) -> str | None:
    if not hasattr(item, "ratio"):
        return name or None
    label = f"{item.method.upper()} {item.estimate:.3f} (se {item.se:.3f}, ratio {item.ratio:.2f})"
    return f"{name}: {label}" if name else label


def plot_gates(
    result: Any, *, level: float = 0.95, units: str = "", title: str = "Effect by predicted effect", ax: Any = None
) -> Axes:
    """Group average effects from the lowest to the highest predicted effect, with intervals.

    Parameters
    ----------
    result : GatesResult or DataFrame
        A table has one row a group, with ``estimate`` and either ``lower`` and ``upper`` or ``se``.
    level : float
        Level of the intervals.
    units, title : str
        Units of the effect; title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    table = result if hasattr(result, "columns") else result.to_dataframe(level)
    if hasattr(result, "difference"):
        table = table.iloc[: len(result.estimate)]  # without the row of the difference
    estimate = style.column(table, "estimate", "gate", "mean")
    if estimate is None or not len(estimate):
        raise DataError(f"a table with the columns {', '.join(map(str, table.columns))}", expected="estimate")
    lower, upper = style.bounds(table, estimate, level)
    ax = style.new_axes(ax)
    at = np.arange(1, len(estimate) + 1)
    ax.axhline(0, color=style.INK, linewidth=0.9)
    predicted = style.column(table, "predicted")
    if predicted is not None:
        ax.plot(
            at + 0.13, predicted, "D", color=style.ORANGE, markersize=5.5, markeredgecolor="white", label="predicted"
        )
    ax.vlines(at, lower, upper, color=style.BLUE, linewidth=2.4, alpha=0.75)
    ax.plot(at, estimate, "o", color=style.BLUE, markersize=7.5, markeredgecolor="white", label="estimated")
    if predicted is not None:
        ax.legend(frameon=False, fontsize=10, loc="upper left")
    names = [str(v) for v in at]
    names[0], names[-1] = f"{names[0]}\nlowest", f"{names[-1]}\nhighest"
    ax.set_xticks(at, names)
    ax.set_xlim(0.5, len(at) + 0.5)
    return style.tidy(ax, title=title, x="group by predicted effect", y=style.with_units("average effect", units))


def plot_overlap(propensity: Any, treatment: Any, *, title: str = "Overlap", ax: Any = None) -> Axes:
    """Propensities of the treated (upwards) and of the controls (downwards).

    Parameters
    ----------
    propensity : array of shape (n,)
        Probability of treatment.
    treatment : array of shape (n,)
        0 or 1.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> plot_overlap([0.4, 0.5, 0.6], [0, 1, 1]).get_xlabel()
    'propensity: probability of treatment'
    """
    e, t = np.asarray(propensity, dtype=float), np.asarray(treatment, dtype=float)
    if e.ndim != 1 or e.shape != t.shape or not ((e >= 0) & (e <= 1)).all():
        raise DataError(
            f"propensities of shape {e.shape} and treatments of shape {t.shape}",
            expected="one probability and one treatment a unit",
        )
    ax = style.new_axes(ax)
    edges = np.linspace(0, 1, 41)
    width, centre = edges[1] - edges[0], (edges[1:] + edges[:-1]) / 2
    for arm, sign, colour, name in ((1, 1, style.BLUE, "treated"), (0, -1, style.ORANGE, "control")):
        member = e[t == arm]
        share = np.histogram(member, edges)[0] / max(len(member), 1)
        ax.bar(centre, sign * share, width * 0.94, color=colour, label=f"{name} ({len(member):,})")
    ax.axhline(0, color=style.INK, linewidth=0.9)
    for edge in (0.1, 0.9):
        ax.axvline(edge, color=style.GREY, linestyle=(0, (2, 3)), linewidth=1.2)
    ax.set_xlim(0, 1)
    most = 1.15 * max(abs(v) for v in ax.get_ylim())
    ax.set_ylim(-most, most)
    ax.yaxis.set_major_formatter(lambda v, _: f"{abs(v):.0%}")
    ax.legend(frameon=False, fontsize=10, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)  # beside the title
    return style.tidy(ax, title=title, x="propensity: probability of treatment", y="share of the arm")
