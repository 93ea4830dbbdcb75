"""A targeting plan on the ground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.exceptions import DataError
from causalsat.plots import geography, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_plan", "plot_policy"]

MAX_CELLS = 1000
PASSED, UNKNOWN = "#f3e9c9", "#d7d7d4"


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


def plot_policy(result: Any, *, sites: Any = None, title: str = "", ax: Any = None) -> Axes:
    """Where a rule treats: the cells of a map of whom to treat.

    Parameters
    ----------
    result : PolicyMap or path
        What :func:`causalsat.map_policy` returned, or its GeoTIFF.
    sites : GeoDataFrame, optional
        Places of the trial.
    title : str
        Title.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    import rasterio
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
    from rasterio.enums import Resampling

    with rasterio.open(getattr(result, "path", result)) as raster:
        if "treat" not in raster.descriptions:
            raise DataError(
                f"a raster with the bands {', '.join(map(str, raster.descriptions))}",
                expected="a map of whom to treat",
                todo="write it with causalsat.map_policy",
            )
        shrink = max(1, -(-max(raster.shape) // MAX_CELLS))
        shape = tuple(max(1, -(-side // shrink)) for side in raster.shape)
        band = raster.descriptions.index("treat") + 1
        treat = raster.read(band, out_shape=shape, masked=True, resampling=Resampling.average).filled(np.nan)
        west, south, east, north = raster.bounds
        crs = raster.crs
    ax = style.new_axes(ax, (6.6, 6.0))
    colours = ListedColormap([PASSED, style.BLUE])
    shown = np.where(np.isfinite(treat), (treat >= 0.5).astype(float), np.nan)
    ax.imshow(shown, extent=(west, east, south, north), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    ax.set_facecolor(UNKNOWN)
    known = np.isfinite(shown)
    share = float(shown[known].mean()) if known.any() else 0.0
    marks: list[Any] = [
        Patch(facecolor=style.BLUE, label=f"the rule treats ({share:.0%} of the cells)"),
        Patch(facecolor=PASSED, label="it does not"),
    ]
    if not known.all():
        marks.append(Patch(facecolor=UNKNOWN, label="not known"))
    if sites is not None and len(sites):
        points = getattr(sites, "geometry", sites).representative_point().to_crs(crs)
        dots = ax.scatter(points.x, points.y, s=12, facecolor="white", edgecolor=style.INK, linewidth=0.7, zorder=6)
        dots.set_label("place of the trial")
        marks.append(dots)
    geography.frame_axes(ax, (west, east, south, north), crs)
    ax.legend(handles=marks, fontsize=9.5, loc="upper left", bbox_to_anchor=(0, -0.05), frameon=False, ncols=2)
    ax.set_title(title or "Where the rule treats", loc="left", fontsize=12, fontweight="bold", color=style.INK)
    return ax  # type: ignore[no-any-return]
