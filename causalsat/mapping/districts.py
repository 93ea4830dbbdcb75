"""Mean effects of districts: joint posterior draws over the cells of a map, averaged within polygons."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat import base
from causalsat.core.files import writing
from causalsat.core.ownership import refuse_strangers
from causalsat.core.progress import bar as progress_bar
from causalsat.core.tables import Tabular, write_csv
from causalsat.exceptions import DataError, DataWarning, ParameterError
from causalsat.inference.place_effects import check_scope
from causalsat.mapping import compute
from causalsat.mapping import job as _job
from causalsat.mapping.compute import MapJob, valid_share
from causalsat.mapping.grid import read_polygons, region_geometry, turned_region
from causalsat.mapping.tiles import Tile
from causalsat.mapping.weights import cell_areas, check_weights, weights_of_tile
from causalsat.plots.districts import plot_districts
from causalsat.posterior import EffectPosterior
from causalsat.study.building import require_column
from causalsat.study.labels import check_distinct

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["DistrictEffects", "district_effects"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_DRIVERS = {
    ".gpkg": "GPKG", ".geojson": "GeoJSON", ".json": "GeoJSON", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"
}  # fmt: skip
_FEW_CELLS = 4
_PROBE = 3
_COVERED = 0.99  # share of a district that its weights cover, below which it is told


@dataclass(frozen=True, eq=False)
class DistrictEffects(Tabular):
    """Mean effects of districts; what :func:`district_effects` gives.

    Attributes
    ----------
    posterior : EffectPosterior
        Joint draws (draw, district) of the district means, for those districts that have valid cells: differences
        between districts and averages over them keep their correlation.
    table : geopandas.GeoDataFrame
        One row a district, in the order given: ``n_cells``, ``valid`` (share of its cells on valid imagery), ``mean,
        sd, lower, upper, prob_positive``, ``sd_independent`` (what the cells' own standard deviations would give if
        their errors were independent; for comparison, not for use), ``support`` (mean over the cells), geometry. NaN
        without a valid cell.
    level : float
        Level of the intervals.
    resolution_m : float
        Side of the cells.
    """

    posterior: EffectPosterior
    table: gpd.GeoDataFrame
    level: float
    resolution_m: float

    def __len__(self) -> int:
        """Return the number of districts."""
        return len(self.table)

    def __repr__(self) -> str:
        """Say how many districts and cells."""
        mean = self.table["mean"].dropna()
        means = f", means {mean.min():.4g} to {mean.max():.4g}" if len(mean) else ""
        return f"DistrictEffects({len(self)} districts, {int(self.table['n_cells'].sum()):,} cells{means})"

    def to_dataframe(self) -> Any:
        """The table without geometry."""
        return pd.DataFrame(self.table.drop(columns=self.table.geometry.name))

    def write(self, path: str | Path) -> Path:
        """Write the table with its polygons, or without as ``.csv``.

        Parameters
        ----------
        path : path-like
            The ending decides: ``.gpkg``, ``.geojson``, ``.json``, ``.fgb``, ``.shp`` or ``.parquet``.

        Raises
        ------
        ParameterError
            For another ending.
        """
        path = Path(path)
        ending = path.suffix.lower()
        if ending not in (".csv", ".parquet", *_DRIVERS):
            raise ParameterError(
                f"path={str(path)!r}", expected=f"an ending of .csv, .parquet, {', '.join(_DRIVERS)}"
            )
        if ending == ".csv":
            write_csv(self.to_dataframe(), path, index_label="district")
            return path
        table = self.table.reset_index(names="district")
        options = {}
        if _DRIVERS.get(ending) == "GeoJSON":  # RFC 7946: longitude and latitude, in two parts at 180 degrees
            table, options = table.to_crs("EPSG:4326"), {"RFC7946": "YES"}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=path.parent, prefix=f"{path.name[:48]}.") as work:  # a shapefile is several
                if ending == ".parquet":
                    table.to_parquet(Path(work, path.name))
                else:
                    table.to_file(Path(work, path.name), driver=_DRIVERS[ending], **options)
                made_here = sorted(Path(work).iterdir())
                beside = [path.with_name(made.name) for made in made_here if made.name != path.name]
                if not path.exists():  # the other files of a shapefile are somebody else's
                    refuse_strangers(beside, "choose another name, or another ending: .gpkg is one file")
                for made in made_here:
                    os.replace(made, path.with_name(made.name))
        return path

    def plot(self, *, title: str = "", units: str = "", ax: Any = None) -> Any:
        """Districts coloured by their mean effect; hatched where the interval includes zero. Returns the axes."""
        return plot_districts(self.table, level=self.level, title=title, units=units, ax=ax)


def district_effects(
    model: Any,
    imagery: Any,
    districts: Any,
    resolution: float | None = None,
    *,
    name: str | None = None,
    weights: Any = None,
    weights_per: str = "pixel",
    covariates: Mapping[str, float] | None = None,
    size_m: float | None = None,
    level: float = 0.9,
    min_valid: float | None = None,
    tile_px: int = 128,
    progress: bool = True,
    scope: str = "mean",
) -> DistrictEffects:
    """Posterior of the mean effect of each district.

    Cells are laid over the imagery as :func:`causalsat.map_effects` lays them. The errors of neighbouring cells are
    not independent: what is uncertain is the model, and all cells share it. So each posterior draw of the model is
    carried over all cells and averaged within the polygons; the interval of a district is that of these averages.
    The standard deviations of single cells, combined as if independent, would give intervals many times too narrow.

    The mean is over a district's land, cells by their area on the ground, unless ``weights`` says otherwise. Where a
    trial's units live in settlements, the land between them is another kind of place, and what holds in settlements
    is carried over: intervals of means over people, who live where the trial was, are the more reliable ones.

    Parameters
    ----------
    model : EffectEstimator or Pipeline
        As for :func:`causalsat.map_effects`. Its draws must be joint over calls (draw k is the same model in each
        call), which is checked.
    imagery : Imagery
        Defines the grid.
    districts : GeoDataFrame, GeoSeries or path
        Polygons with a coordinate system.
    resolution : float, optional
        Side of a cell in metres; by default such that there are about 250,000 cells.
    name : str, optional
        Column with the districts' names; default the index.
    weights : Imagery, optional
        One band of weights, such as people: the mean over people instead of over area. In any coordinate system and
        resolution; its pixels count by the share that lies in a cell, and invalid ones, where nobody lives, nothing.
    weights_per : {"pixel", "km2"}
        Whether the weights are counts, such as people in a pixel, or densities, such as people a km2. In degrees and
        other systems whose pixels are not of one size the two differ.
    covariates, size_m, level, min_valid, tile_px
        As for :func:`causalsat.map_effects`.
    progress : bool
        Show a bar over tiles.
    scope : {"mean", "place"}
        Whether cells have the mean effect of places that look alike, or each a deviation of its own, which averages
        out over the cells of a district (see :meth:`causalsat.base.EffectEstimator.effect`).

    Returns
    -------
    DistrictEffects

    Raises
    ------
    DataError
        If districts have no polygons or no coordinate system, or names that are missing, repeated or told apart only
        by spaces or type, or the model's draws are not joint.
    ColumnError, ParameterError, ImageryError
        As :func:`causalsat.map_effects`.

    Warns
    -----
    DataWarning
        For districts of fewer than four cells, without a valid cell, or that the weights do not cover, and for names
        that differ only by case or accents.
    """
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r}", expected="a number between 0 and 1, such as 0.9")
    check_weights(weights, weights_per)
    check_scope(scope)
    polygons, shapes = _polygons(districts, imagery, name)
    job = _job.make_job(
        model, imagery, shapes.union_all(), resolution, covariates,
        size_m=size_m, level=level, min_valid=min_valid, folder=Path(), scope=scope,
    )  # fmt: skip
    side = _job.tile_side(tile_px, job.grid.cell_px, job.chip_px, imagery)
    sums, areas = _Sums(len(polygons)), cell_areas(job.grid)
    for tile, points, cell, district in _tiles(job, shapes, side, progress):
        if weights is None:
            mass, covered = areas(points.geometry.x.to_numpy(), points.geometry.y.to_numpy()), np.ones(len(cell))
        else:
            mass, covered = (v[cell] for v in weights_of_tile(weights, job.grid, tile, weights_per))
        sums.lay(district, covered)
        keep = valid_share(imagery, points, job.chip_px) >= job.min_valid
        if keep.any():
            _add(job, points[keep], district[keep], mass[keep], sums)
    return _result(sums, polygons, level, job.grid.resolution_m, scope)


# ---------------------------------------------------------------------- set-up
def _polygons(districts: Any, imagery: Any, name: str | None) -> tuple[gpd.GeoDataFrame, gpd.GeoSeries]:
    """Districts in the imagery's system, indexed by unique names, and the same at the imagery's longitudes."""
    import geopandas as gpd

    if isinstance(districts, str | Path):
        districts = read_polygons(districts)
    if not isinstance(districts, gpd.GeoDataFrame | gpd.GeoSeries) or not len(districts):
        raise DataError(
            f"districts of type {type(districts).__name__}" if not hasattr(districts, "__len__") else "no districts",
            expected="a GeoDataFrame of polygons, at least one",
        )
    labels = districts.index if name is None else districts[require_column(districts, name, "name", "districts")]
    what = "the index of districts" if name is None else f"column {name!r} of the districts"
    check_distinct(pd.Series(list(labels), dtype=object), what)
    shapes = [
        region_geometry(districts.geometry.iloc[[k]], imagery.crs, near=imagery.bounds) for k in range(len(districts))
    ]
    frame = gpd.GeoDataFrame(geometry=shapes, index=list(labels), crs=imagery.crs)
    return frame, gpd.GeoSeries([turned_region(shape, imagery) for shape in shapes], crs=imagery.crs)


def _tiles(job: MapJob, shapes: Any, side: int, progress: bool) -> Iterator[tuple[Tile, Any, IntArray, IntArray]]:
    """Each tile with its cell centres that lie in a district, which of its cells these are, and whose."""
    tree = shapes.sindex
    for tile in progress_bar(_job.tiles_of(job, side), desc="districts", unit="tile", show=progress):
        x, y = job.grid.centres(tile.row, tile.col, tile.height, tile.width)
        points = compute.cell_points(job, x, y)
        cell, district = tree.query(points.geometry, predicate="within")
        if len(cell):  # districts that overlap each have all of their cells
            yield tile, points.iloc[cell].reset_index(drop=True), cell, district.astype(np.int64)


# ---------------------------------------------------------------------- sums
class _Sums:
    """Weighted sums of draws by district, filled tile by tile."""

    def __init__(self, n: int) -> None:
        self.cells, self.valid = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.mass, self.support, self.lone = np.zeros(n), np.zeros(n), np.zeros(n)
        self.covered = np.zeros(n)
        self.draws: FloatArray | None = None
        self.probe: tuple[Any, FloatArray] | None = None

    def lay(self, district: IntArray, covered: FloatArray) -> None:
        """Count the cells of a tile, and how much of them the weights cover."""
        self.cells += np.bincount(district, minlength=len(self.cells))
        self.covered += np.bincount(district, covered, len(self.cells))

    def add(self, draws: FloatArray, support: FloatArray, district: IntArray, mass: FloatArray) -> None:
        """Add draws (draw, cell) of some cells."""
        n = len(self.cells)
        here, code = np.unique(district, return_inverse=True)
        member = np.zeros((len(district), len(here)))
        member[np.arange(len(district)), code.ravel()] = mass
        if self.draws is None:
            self.draws = np.zeros((len(draws), n))
        self.draws[:, here] += np.asarray(draws, dtype=float) @ member
        self.mass += np.bincount(district, mass, n)
        self.support += np.bincount(district, mass * support, n)
        self.lone += np.bincount(district, mass**2 * np.asarray(draws).var(axis=0), n)
        self.valid += np.bincount(district, minlength=n)


def _add(job: MapJob, points: Any, district: IntArray, mass: FloatArray, sums: _Sums) -> None:
    """Encode cells and add their draws, a chunk at a time."""
    transformers, estimator = base.final_estimator(job.model)
    for start, features in compute._features(job, transformers, points.reset_index(drop=True)):
        features, keep = compute._complete(estimator, features)
        for low in range(0, len(keep), job.chunk):
            chunk = _rows(features, slice(low, low + job.chunk))
            cells = start + keep[low : low + job.chunk]
            options = {} if job.scope == "mean" else {"scope": job.scope}
            draws = np.asarray(estimator.effect(chunk, **options).draws)
            _check_joint(estimator, chunk, draws, sums, options)
            sums.add(draws, estimator.support(chunk), district[cells], mass[cells])


def _rows(features: Any, rows: slice) -> Any:
    return features.iloc[rows] if hasattr(features, "iloc") else features[rows]


def _check_joint(estimator: Any, chunk: Any, draws: FloatArray, sums: _Sums, options: Mapping[str, str]) -> None:
    """Once: the draws of a few cells must be the same when they are asked for alone."""
    if sums.probe is not None:
        return
    few = _rows(chunk, slice(0, _PROBE))
    alone = np.asarray(estimator.effect(few, **options).draws)
    sums.probe = (few, alone)
    spread = float(draws.std()) + 1e-12
    if alone.shape[0] != draws.shape[0] or np.abs(alone - draws[:, : alone.shape[1]]).max() > 1e-3 * spread:
        raise DataError(
            f"the draws of {type(estimator).__name__} depend on which cells are asked for together",
            expected="draws that are joint over calls: draw k is the same model in each",
            todo="use an estimator whose draws are of its parameters, such as BayesianLinearEffect",
        )


def _result(sums: _Sums, polygons: Any, level: float, resolution_m: float, scope: str) -> DistrictEffects:
    few = (sums.cells < _FEW_CELLS) & (sums.valid > 0)
    bare = (sums.mass <= 0) | (sums.valid == 0)
    if sums.valid.any() and not sums.mass.any():
        raise DataError(
            "the weights are zero or missing in all districts",
            expected="weights that cover the districts",
            todo="compare the bounds and systems of weights and districts, and the weights' nodata value",
        )
    if sums.draws is None or bare.all():
        raise DataError(
            "no district has a cell on valid imagery",
            expected="districts on the imagery",
            todo="check the coordinate systems, or take a finer resolution",
        )
    _tell_of_coverage(sums, bare, polygons.index)
    for mask, reason in ((few, f"fewer than {_FEW_CELLS} cells"), (bare, "no cell with valid imagery and weight")):
        if mask.any():
            shown = ", ".join(map(str, polygons.index[mask][:5]))
            warnings.warn(
                f"{int(mask.sum())} districts have {reason}: {shown}; a finer resolution may help",
                DataWarning,
                stacklevel=3,
            )
    some = np.flatnonzero(~bare)
    draws, labels = sums.draws[:, some] / sums.mass[some], np.asarray(polygons.index)[some]
    posterior = EffectPosterior(draws, index=labels, scope=scope)
    table = polygons.copy()
    table["n_cells"] = sums.cells
    table["valid"] = np.where(sums.cells > 0, sums.valid / np.maximum(sums.cells, 1), 0.0)
    for column, values in posterior.to_dataframe(level).items():
        table[column] = np.nan
        table.iloc[some, table.columns.get_loc(column)] = values.to_numpy()
    table["sd_independent"] = np.where(bare, np.nan, np.sqrt(sums.lone) / np.where(sums.mass > 0, sums.mass, 1))
    table["support"] = np.where(bare, np.nan, sums.support / np.where(sums.mass > 0, sums.mass, 1))
    return DistrictEffects(posterior, table, level, resolution_m)


def _tell_of_coverage(sums: _Sums, bare: Any, names: Any) -> None:
    """Warn of districts that the weights raster covers in part: their means are of that part."""
    share = sums.covered / np.maximum(sums.cells, 1)
    part = (share < _COVERED) & ~bare & (sums.cells > 0)
    if part.any():
        shown = ", ".join(f"{name} ({s:.0%})" for name, s in zip(names[part][:5], share[part][:5], strict=True))
        warnings.warn(
            f"the weights cover {int(part.sum())} districts in part: {shown}; their means are over the part that is "
            "covered",
            DataWarning,
            stacklevel=4,
        )
