"""The units of a study on the ground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import geography, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_study"]


def plot_study(study: Any, *, backdrop: bool = True, title: str = "", ax: Any = None) -> Axes:
    """Places of the study by treatment arm, over its imagery where it has one.

    Several units at one place make one point, whose colour is the share that was treated.

    Parameters
    ----------
    study : Study
        Gives ``X`` (GeoDataFrame), ``treatment`` and ``imagery``.
    backdrop : bool
        Draw the imagery (decimated, grey) beneath.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    units, treatment = study.units, np.asarray(study.treatment, dtype=float)
    if not len(units):
        raise DataError("a study without units")
    imagery = getattr(study, "imagery", None)
    if imagery is not None and hasattr(imagery, "crs"):
        units = units.to_crs(imagery.crs)
    ax = style.new_axes(ax, (6.6, 6.0))
    points = np.column_stack([units.geometry.x, units.geometry.y])
    place, member = np.unique(points, axis=0, return_inverse=True)
    share = np.bincount(member.ravel(), treatment) / np.bincount(member.ravel())
    frame = geography.padded(place, 0.06)
    if backdrop and imagery is not None and hasattr(imagery, "read_window"):
        picture, extent = geography.backdrop(imagery, frame)
        ax.imshow(picture, extent=extent, interpolation="bilinear", alpha=0.85, zorder=0)
    arms = (
        (share == 0, style.ORANGE, "control"),
        (share == 1, style.BLUE, "treated"),
        ((share > 0) & (share < 1), style.PURPLE, "both arms"),
    )
    for mask, colour, name in arms:
        if mask.any():
            ax.scatter(
                *place[mask].T,
                s=26,
                color=colour,
                edgecolor="white",
                linewidth=0.7,
                label=f"{name} ({mask.sum():,} places)",
            )
    geography.frame_axes(ax, frame, units.crs)
    ax.legend(fontsize=9.5, loc="upper left", bbox_to_anchor=(0, -0.05), ncols=3, frameon=False, borderaxespad=0.2)
    title = title or f"{len(units):,} units at {len(place):,} places"
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold", color=style.INK)
    return ax
