"""A map of whom to treat: the cells of a map of effects, ranked by effect for cost, until the budget is spent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.files import whole_file, writing
from causalsat.decisions.prices import check_cost_per
from causalsat.decisions.ranking import plan_of, worth_it
from causalsat.exceptions import DataError, OutputError, ParameterError

__all__ = ["PolicyMap", "map_policy"]

FloatArray = NDArray[np.float64]

BANDS = ("treat", "net_gain", "prob_positive")


@dataclass(frozen=True)
class PolicyMap:
    """Where a map of whom to treat is, and what it holds.

    Attributes
    ----------
    path : Path
        Cloud-Optimised GeoTIFF with the bands ``treat`` (1, 0, or the part of the last cell), ``net_gain`` (expected
        effect, less the cost where the outcome has a worth) and ``prob_positive``; NaN where nothing is known.
    n_cells, n_treated : int
        Cells with an effect and a cost, and those of which at least a part is treated.
    spent, gain : float
        Cost of the treated cells, and their expected gain (mean of the posterior), by their people.
    resolution_m : float
        Side of a cell in units of the coordinate system.
    """

    path: Path
    n_cells: int
    n_treated: int
    spent: float
    gain: float
    resolution_m: float = float("nan")


def map_policy(
    effects: Any,
    out: str | os.PathLike[str] = "policy.tif",
    *,
    budget: float | None = None,
    cost: Any = 1.0,
    people: Any = None,
    cost_per: str = "place",
    cutoff: float | None = None,
    worth: float | None = None,
    min_support: float = 0.0,
    overwrite: bool = False,
) -> PolicyMap:
    """Map whom to treat with a budget, from a map of effects.

    Parameters
    ----------
    effects : MapResult or path
        What :func:`causalsat.map_effects` returned, or its GeoTIFF.
    out : path-like
        GeoTIFF to write.
    budget : float, optional
        What all treated cells may cost together; all who gain are treated without one.
    cost : float, array of shape (rows, columns) or path
        Cost of treating a cell: a number, one number a cell, or a raster in any coordinate system, which is
        interpolated to the cells (such as travel times).
    people : float, array of shape (rows, columns) or path, optional
        People of each cell; of a raster of counts all are shared among the cells that they lie in. Cells without
        people are not treated. By default every cell counts as one.
    cost_per : {"place", "person"}
        Whether ``cost`` is for the whole cell or for each of its people.
    cutoff : float, optional
        Instead of a budget: cells are treated down to this effect for its cost a head.
    worth : float, optional
        What one unit of the outcome is worth in units of the costs; then only cells worth their cost are treated.
    min_support : float
        Cells with a lower support by the trial are not treated; 0.05 leaves extrapolation out.
    overwrite : bool
        Replace ``out``.

    Returns
    -------
    PolicyMap

    Raises
    ------
    DataError
        If the file is no map of effects, or a cell with an effect has no positive cost.
    OutputError
        If ``out`` exists.
    """
    from causalsat.imagery.handles import local_raster

    check_cost_per(cost_per)
    if budget is not None and (not np.isfinite(budget) or budget <= 0):
        raise ParameterError(f"budget={budget!r}", expected="a positive number, in units of the costs")
    if budget is not None and cutoff is not None:
        raise ParameterError(f"budget={budget!r} and cutoff={cutoff!r}", expected="one of the two")
    source, path = Path(getattr(effects, "path", effects)), Path(out)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists", expected="a new file", todo="name another, or pass overwrite=True")
    with local_raster(source) as raster:
        names = list(raster.descriptions)
        if not {"cate", "prob_positive", "support"} <= set(names):
            raise DataError(
                f"a raster with the bands {', '.join(map(str, names))}",
                expected="a map of effects",
                todo="write it with causalsat.map_effects",
            )
        mean, positive, support = (
            raster.read(names.index(name) + 1, masked=True).filled(np.nan).astype(float)
            for name in ("cate", "prob_positive", "support")
        )
        profile = {"crs": raster.crs, "transform": raster.transform, "shape": mean.shape}
    known = np.isfinite(mean)
    heads = np.where(known, 1.0, np.nan) if people is None else _of_cells(people, profile, "people")
    lived = known & (heads > 0)
    price = _of_cells(cost, profile, "cost")
    bad = lived & ~(np.isfinite(price) & (price > 0))
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {int(lived.sum())} cells with an effect have no positive cost",
            expected="a cost for each cell",
            todo="give their cost, or leave them out of the map of effects",
        )
    a_head = price[lived] if cost_per == "person" else price[lived] / heads[lived]
    wanted = worth_it(mean[lived], a_head, worth) & (support[lived] >= min_support)
    if cutoff is not None:
        wanted &= mean[lived] / a_head >= cutoff
    money = float("inf") if budget is None else float(budget)
    share = plan_of(mean[lived], a_head, money, wanted, weights=heads[lived])
    values = np.full((len(BANDS), *mean.shape), np.nan, dtype=np.float32)
    values[0][known & ~np.isnan(heads)] = 0.0
    values[0][lived] = share
    values[1][lived] = mean[lived] if worth is None else mean[lived] - a_head / worth
    values[2] = positive
    words = {"budget": "" if budget is None else f"{budget:g}", "cutoff": "" if cutoff is None else f"{cutoff:.9g}"}
    _write(path, values, profile, {**words, "effects": source.name, "resolution_m": f"{profile['transform'].a:g}"})
    spent, gain = (float((share * heads[lived] * v).sum()) for v in (a_head, mean[lived]))
    return PolicyMap(path, int(lived.sum()), int((share > 0).sum()), spent, gain, float(profile["transform"].a))


def _of_cells(given: Any, profile: dict[str, Any], name: str) -> FloatArray:
    """Cost or people of each cell; of a raster of people the sum, of one of costs the value."""
    shape = profile["shape"]
    if isinstance(given, str | os.PathLike):
        from rasterio.warp import Resampling, reproject

        from causalsat.imagery.handles import local_raster

        out = np.full(shape, np.nan)
        with local_raster(given) as raster:
            if raster.crs is None:
                raise DataError(f"{given} without a coordinate system", expected="one, so that cells are known in it")
            values = raster.read(1, masked=True).astype(float).filled(np.nan)
            reproject(
                values, out, src_transform=raster.transform, src_crs=raster.crs, src_nodata=np.nan,
                dst_transform=profile["transform"], dst_crs=profile["crs"], dst_nodata=np.nan,
                resampling=Resampling.sum if name == "people" else Resampling.bilinear,
            )  # fmt: skip
        return out
    try:
        return np.broadcast_to(np.asarray(given, dtype=float), shape)
    except (TypeError, ValueError):
        raise DataError(
            f"{name} of shape {np.shape(given)} for {shape[0]} x {shape[1]} cells",
            expected="a number, one number a cell, or the path of a raster",
        ) from None


def _write(path: Path, values: NDArray[np.float32], profile: dict[str, Any], tags: dict[str, str]) -> None:
    import rasterio
    from rasterio.io import MemoryFile
    from rasterio.shutil import copy

    height, width = profile["shape"]
    options: dict[str, Any] = {
        "driver": "GTiff", "dtype": "float32", "count": len(BANDS), "height": height, "width": width,
        "crs": profile["crs"], "transform": profile["transform"], "nodata": float("nan"),
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**options) as raster:
            raster.write(values)
            raster.descriptions = BANDS
            raster.update_tags(**tags)
        with writing(path), whole_file(path) as temporary, rasterio.open(memory.name) as raster:
            copy(raster, str(temporary), driver="COG", compress="deflate", overview_resampling="average")
