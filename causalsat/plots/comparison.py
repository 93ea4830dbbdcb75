"""Comparison of data sources and models by a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_comparison"]

WORDS = {
    "autoc": "AUTOC",
    "qini": "QINI",
    "rate_ratio": "RATE ratio (AUTOC / its standard error)",
    "qini_ratio": "RATE ratio (QINI / its standard error)",
    "blp_slope": "calibration slope",
    "gates_difference": "effect of the highest less the lowest fifth",
    "sqrt_pehe": "square root of PEHE",
    "correlation": "correlation with the true effect",
}


def plot_comparison(table: Any, *, level: float = 0.95, title: str = "", units: str = "", ax: Any = None) -> Axes:
    """Dots with intervals: one row a data source, one colour a model.

    Parameters
    ----------
    table : DataFrame
        One metric's rows of ``Comparison.to_dataframe``: ``source, model, metric, value, se``, and ``error`` where
        something failed, which is shown in the place of a dot.
    level : float
        Level of the normal intervals.
    title, units : str
        Title; units of the outcome.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    from scipy.stats import norm

    metrics = list(table["metric"].unique())
    if len(metrics) != 1:
        raise DataError(f"rows of {len(metrics)} metrics", expected="one", todo="to_dataframe(metric)")
    sources, models = list(table["source"].unique()), list(table["model"].unique())
    ax = style.new_axes(ax, (7.2, 1.6 + 0.34 * len(sources) * max(len(models), 2) ** 0.75))
    z = float(norm.ppf(0.5 + level / 2))
    spread = 0.62 / max(len(models), 1)
    for number, model in enumerate(models):
        rows = table[table["model"] == model].set_index("source").reindex(sources)
        at = np.arange(len(sources)) + (number - (len(models) - 1) / 2) * spread
        value, half = rows["value"].to_numpy(float), z * np.nan_to_num(rows["se"].to_numpy(float))
        colour = style.COLOURS[number % len(style.COLOURS)]
        ax.hlines(at, value - half, value + half, color=colour, linewidth=2.2, alpha=0.7)
        ax.plot(value, at, "o", color=colour, markersize=7, markeredgecolor="white", label=model)
        if "error" in rows:
            left = ax.get_yaxis_transform()  # shares of the width, rows as they are
            for row in at[rows["error"].fillna("").to_numpy() != ""]:
                ax.text(0.01, row, "failed", transform=left, color=colour, fontsize=9, va="center")
    if metrics[0] not in ("sqrt_pehe",):
        ax.axvline(0, color=style.INK, linewidth=0.9)
    if metrics[0] == "blp_slope":
        ax.axvline(1, color=style.GREY, linewidth=0.9, linestyle=(0, (3, 3)))
    for k in range(1, len(sources)):
        ax.axhline(k - 0.5, color=style.PALE, linewidth=0.8)
    ax.set_yticks(range(len(sources)), sources)
    ax.set_ylim(len(sources) - 0.45, -0.55)
    ax.legend(frameon=False, fontsize=10, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(len(models), 3))
    name = WORDS.get(metrics[0], metrics[0])
    style.tidy(ax, x=style.with_units(name, units), grid="x")
    if title:
        ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=style.INK, pad=30)  # above the legend
    return ax
