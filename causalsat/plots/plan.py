"""A targeting plan on the ground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import geography, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_plan"]


def plot_plan(plan: Any, *, title: str = "", ax: Any = None) -> Axes:
    """Places of a plan: whom it treats, and how probable it is that a place is worth its cost.

    Parameters
    ----------
    plan : TargetingPlan
        Of :func:`causalsat.target`, with places.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    if plan.geometry is None:
        raise DataError("a plan without places", expected="a GeoDataFrame of places")
    points = plan.geometry.representative_point()
    table = plan.table.loc[points.index]
    xy = np.column_stack([points.x, points.y])
    treated = table["treat"].to_numpy() > 0
    ax = style.new_axes(ax, (6.6, 6.0))
    size = 24 if len(table) <= 300 else 12
    drawn = ax.scatter(*xy.T, c=table["prob_worth"], cmap="PuOr", vmin=0, vmax=1, s=size, linewidths=0, zorder=2)
    name = f"treated ({treated.sum():,} of {len(table):,})"
    ring = {"s": 2.8 * size, "facecolor": "none", "edgecolor": style.INK, "linewidth": 1.1 if size > 12 else 0.7}
    ax.scatter(*xy[treated].T, **ring, zorder=3, label=name)
    ax.figure.colorbar(drawn, ax=ax, shrink=0.7, label="probability that the place is worth it")
    geography.frame_axes(ax, geography.padded(xy, 0.06), plan.geometry.crs)
    ax.legend(fontsize=9.5, loc="upper left", bbox_to_anchor=(0, -0.05), frameon=False)
    ax.set_title(title or "Whom to treat", loc="left", fontsize=12, fontweight="bold", color=style.INK)
    return ax  # type: ignore[no-any-return]
