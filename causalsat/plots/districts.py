"""Districts coloured by their mean effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_districts"]


def plot_districts(table: Any, *, level: float = 0.9, title: str = "", units: str = "", ax: Any = None) -> Axes:
    """Polygons coloured by their mean effect, hatched where the interval includes zero, grey without a value.

    Parameters
    ----------
    table : GeoDataFrame
        Columns ``mean, lower, upper``.
    level : float
        Level of the intervals, for the words.
    title, units : str
        Title; units of the effect.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    missing = {"mean", "lower", "upper"} - set(table.columns)
    if missing:
        raise DataError(f"a table without {', '.join(sorted(missing))}", expected="what district_effects gives")
    ax = style.new_axes(ax, (6.2, 5.2))
    most = float(np.nanmax(np.abs(table["mean"]))) or 1.0
    table.plot(
        column="mean", ax=ax, cmap="BrBG", vmin=-most, vmax=most, edgecolor=style.INK, linewidth=0.7, legend=True,
        legend_kwds={"label": style.with_units("mean effect", units), "shrink": 0.75},
        missing_kwds={"color": style.PALE, "edgecolor": style.INK, "linewidth": 0.7},
    )  # fmt: skip
    unsure = table[(table["lower"] < 0) & (table["upper"] > 0)]
    if len(unsure):
        unsure.plot(ax=ax, facecolor="none", edgecolor=style.GREY, hatch="////", linewidth=0.0)
        ax.text(0, -0.03, f"hatched: the {level:.0%} interval includes zero", transform=ax.transAxes, fontsize=9.5)
    ax.set_axis_off()
    ax.set_aspect("equal")
    if title:
        ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=style.INK)
    return ax
