"""One tile of a map: cell centres, their features, their posterior, six numbers a cell, one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat import base
from causalsat.core.fingerprint import fingerprint
from causalsat.core.needed import modifier_columns, modifies, required_columns
from causalsat.encoders.dense.boxes import true_shares, valid_shares
from causalsat.encoders.places import looks_beyond
from causalsat.encoders.scale import BandScale, familiar_pixels, scale_checked, support_factor
from causalsat.exceptions import ColumnError, DataError, ResumeError
from causalsat.imagery.handles import smaller_cache
from causalsat.imagery.held import Held, held_window, read_held
from causalsat.mapping.grid import MapGrid
from causalsat.mapping.layers import DISAGREEMENT, LEARNED_ERROR, learned_error, own_layers, posterior_bands, spread
from causalsat.mapping.tiles import Tile, read_tile, tile_path, write_tile

__all__ = [
    "BANDS",
    "BANDS_OF",
    "RISK_BANDS",
    "MapJob",
    "cell_points",
    "check_unchanged",
    "constant_columns",
    "fitted_encoders",
    "image_encoders",
    "imagery_digest",
    "largest_chip_px",
    "map_tile",
    "read_ahead",
    "surroundings",
]

BANDS = ("cate", "sd", "lower", "upper", "prob_positive", "support")
RISK_BANDS = ("risk", "sd", "lower", "upper", "decision", "support")
BANDS_OF = {"effect": BANDS, "risk": RISK_BANDS}
SUPPORT = BANDS.index("support")  # as in RISK_BANDS

# A hundredth of a pixel: moves a cell centre off the tie between two pixels, so that every chip of a map
# rounds to the same side whatever the parity of cell and chip.
OFF_TIE = 0.01
CACHE_BYTES = 128 << 20  # of the raster's blocks: about a row of tiles


@dataclass(frozen=True)
class MapJob:
    """All that a tile needs besides its own position.

    Attributes
    ----------
    model : EffectEstimator or Pipeline
        Fitted model.
    imagery : Imagery
        Defines the grid, and which cells are on valid pixels.
    grid : MapGrid
        Cells of the map.
    region : bytes or None
        Region in the imagery's coordinate system, as WKB.
    columns : mapping of str to float
        Constant columns of every cell.
    level : float
        Level of the intervals.
    size_m : float or None
        Chip size of a model that was fitted on chips; None where the model has an ImageEncoder.
    chip_px : int
        Side of the largest chip that the model sees; 0 where it sees none.
    min_valid : float
        Cells whose chip has a smaller share of valid pixels are nodata.
    folder : Path
        Where tile files are written.
    chunk : int
        Cells whose draws are held at once.
    threads : int or None
        Torch threads of the worker; None leaves them.
    quantity : {"effect", "risk"}
        What is mapped.
    given : str or None
        Of a risk: what is known of the decision.
    contrast : mapping
        Arguments of the estimator's ``effect``: which arms are compared, or which effect it is.
    others : tuple of (model, bool)
        Models whose disagreement with this one is mapped, and whether their features are this one's.
    learned_error : DirectUncertainty or None
        Its expected excess loss is mapped.
    scale : BandScale or None
        Pixels of the imagery that the model was fitted on; the support of cells with others is lowered.
    scope : {"mean", "place"}
        Whether effects are means of places that look alike, or those at the place itself.
    """

    model: Any
    imagery: Any
    grid: MapGrid
    region: bytes | None
    columns: Mapping[str, float]
    level: float
    size_m: float | None
    chip_px: int
    min_valid: float
    folder: Path
    chunk: int = 2048
    threads: int | None = None
    quantity: str = "effect"
    given: str | None = None
    contrast: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[tuple[Any, bool], ...] = ()
    learned_error: Any = None
    scale: BandScale | None = None
    scope: str = "mean"

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the map's bands."""
        extra = (LEARNED_ERROR,) if self.learned_error is not None else ()
        own = own_layers(base.final_estimator(self.model)[1]) if self.quantity == "effect" else ()
        return BANDS_OF[self.quantity] + extra + own + ((DISAGREEMENT,) if self.others else ())


def map_tile(job: MapJob, tile: Tile) -> int:
    """Compute a tile and write its file, unless it exists; returns the number of cells with an effect.

    A plain function of a job and a position, so that it runs in a loop, in a thread or on a dask worker.
    """
    path = tile_path(job.folder, tile)
    done = read_tile(path, (len(job.bands), tile.height, tile.width))
    if done is None:
        if job.threads is not None:
            _limit_torch(job)
        with smaller_cache(CACHE_BYTES):
            done = tile_values(job, tile)
        write_tile(path, done)
    return int(np.isfinite(done[0]).sum())


def read_ahead(job: MapJob, tile: Tile) -> Held | None:
    """Pixels that a tile looks at first, read by a thread while another tile is computed; None where nothing is."""
    if read_tile(tile_path(job.folder, tile), (len(job.bands), tile.height, tile.width)) is not None:
        return None
    x, y = job.grid.centres(tile.row, tile.col, tile.height, tile.width)
    cells = np.flatnonzero(_in_region(job.region, x, y))
    if not len(cells):
        return None
    with smaller_cache(CACHE_BYTES):
        window = _window(job.imagery, cell_points(job, x[cells], y[cells]), max(job.chip_px, 1))[2]
        return read_held(job.imagery, *window, surroundings(job))


def tile_values(job: MapJob, tile: Tile) -> NDArray[np.float32]:
    """Bands of a tile, shape (band, height, width); NaN outside the region and on invalid imagery."""
    values = np.full((len(job.bands), tile.height * tile.width), np.nan, dtype=np.float32)
    x, y = job.grid.centres(tile.row, tile.col, tile.height, tile.width)
    cells = np.flatnonzero(_in_region(job.region, x, y))
    if len(cells):
        points = cell_points(job, x[cells], y[cells])
        with held_window(job.imagery, surroundings(job)), scale_checked():
            valid, familiar = pixel_shares(job.imagery, points, job.chip_px, job.scale)
            keep = valid >= job.min_valid
            cells, points = cells[keep], points[keep]
            if len(cells):
                _fill(values, job, cells, points)
                if job.scale is not None:
                    values[SUPPORT, cells] *= support_factor(job.scale, familiar[keep]).astype(np.float32)
    return values.reshape(len(job.bands), tile.height, tile.width)


def surroundings(job: MapJob) -> int:
    """Pixels around its chips that a model looks at, to whole squares of its lattice."""
    return max((e.halo_px + e.lattice_px for e in fitted_encoders(job) if looks_beyond(e)), default=0)


def _fill(values: NDArray[np.float32], job: MapJob, cells: NDArray[np.int64], points: Any) -> None:
    """Write the bands (band, cell) of these cells."""
    own, means = len(job.bands) - bool(job.others), [np.full(len(cells), np.nan) for _ in range(1 + len(job.others))]
    for model, position, found in _bands(job, points):
        means[model][position] = found[0]
        if model == 0:
            values[:own, cells[position]] = found
    if job.others:
        values[own, cells] = spread(means)


def _in_region(region: bytes | None, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    if region is None:
        return np.ones(len(x), dtype=bool)
    import shapely

    geometry = shapely.from_wkb(region)
    shapely.prepare(geometry)
    return np.asarray(shapely.contains_xy(geometry, x, y))


def cell_points(job: MapJob, x: NDArray[Any], y: NDArray[Any]) -> Any:
    """Cell centres with the constant columns, as a GeoDataFrame, off the tie between two pixels."""
    import geopandas as gpd

    a, b, _, d, e, _ = job.grid.imagery_transform
    shift_x, shift_y = OFF_TIE * (a + b), OFF_TIE * (d + e)
    points = gpd.points_from_xy(x + shift_x, y + shift_y)
    constants = {name: np.full(len(x), value) for name, value in job.columns.items()}
    return gpd.GeoDataFrame(constants, geometry=points, crs=job.grid.crs)


def valid_share(imagery: Any, points: Any, chip_px: int) -> NDArray[np.float64]:
    """Share of valid pixels in the chip centred at each point, shape (n,), see ``pixel_shares``."""
    return pixel_shares(imagery, points, chip_px)[0]


def pixel_shares(
    imagery: Any, points: Any, chip_px: int, scale: BandScale | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of valid, and of familiar, pixels in the chip centred at each point, shape (n,).

    All bands of a pixel must be valid. With dates, the share of (date, pixel) pairs. For ``chip_px`` 0, the pixel
    under the point counts. Without a scale, what is valid is familiar.
    """
    size = max(chip_px, 1)
    row, col, (top, left, height, width) = _window(imagery, points, size)
    pixels = np.asarray(imagery.read_window(top, left, height, width))
    valid = valid_shares(pixels, row - top, col - left, size)
    if scale is None:
        return valid, valid
    return valid, true_shares(familiar_pixels(scale, pixels), row - top, col - left, size)


def _window(imagery: Any, points: Any, size: int) -> tuple[NDArray[Any], NDArray[Any], tuple[int, int, int, int]]:
    """Upper-left pixels of the chips at points, and the window that holds them all: row, column, height, width."""
    row, col = (np.asarray(v) for v in imagery.windows(points, size))
    top, left = int(row.min()), int(col.min())
    return row, col, (top, left, int(row.max()) + size - top, int(col.max()) + size - left)


def _bands(job: MapJob, points: Any) -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any]]]:
    """Which model, positions and values of the points: features for the whole tile, draws for a chunk.

    The job's own model is number 0 and has all its bands; of the others there is the mean effect.
    """
    transformers, estimator = base.final_estimator(job.model)
    alike = [(k, base.final_estimator(other)[1]) for k, (other, same) in enumerate(job.others, start=1) if same]
    for start, features in _features(job, transformers, points):
        features, keep = _complete(estimator, features)
        support = estimator.support(features) if len(keep) else np.empty(0)  # once for all: cheaper than in chunks
        for part, position, chunk in _parts(job, start, features, keep):
            yield 0, position, _own_bands(job, estimator, chunk, support[part])
        for k, other in alike:
            for position, chunk in _chunks(job, other, start, features):
                yield k, position, other.effect(chunk, **job.contrast).mean()[None]
    for k, (model, same) in enumerate(job.others, start=1):
        if not same:
            transformers, other = base.final_estimator(model)
            for start, features in _features(job, transformers, points):
                for position, chunk in _chunks(job, other, start, features):
                    yield k, position, other.effect(chunk, **job.contrast).mean()[None]


def _chunks(job: MapJob, estimator: Any, start: int, features: Any) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """Positions and features of the points that have features, ``job.chunk`` at a time."""
    for _, position, chunk in _parts(job, start, *_complete(estimator, features)):
        yield position, chunk


def _parts(
    job: MapJob, start: int, features: Any, keep: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.int64], Any]]:
    for low in range(0, len(keep), job.chunk):
        part = slice(low, low + job.chunk)
        yield part, start + keep[part], features.iloc[part] if hasattr(features, "iloc") else features[part]


def _own_bands(job: MapJob, estimator: Any, features: Any, support: NDArray[Any]) -> NDArray[np.float32]:
    contrast = job.contrast if job.scope == "mean" else {**job.contrast, "scope": job.scope}
    bands = posterior_bands(estimator, features, support, job.level, job.quantity, job.given, contrast)
    if job.learned_error is not None:
        error = learned_error(job.learned_error, estimator, features, bands[1].astype(float))
        bands = np.vstack([bands, error[None].astype(np.float32)])
    if job.quantity == "effect" and own_layers(estimator):
        bands = np.vstack([bands, np.asarray(estimator.map_layers(features), dtype=np.float32).T])
    return bands


def _features(job: MapJob, transformers: Any, points: Any) -> Iterator[tuple[int, Any]]:
    if job.size_m is None:
        yield 0, points if transformers is None else transformers.transform(points)
        return
    for start in range(0, len(points), 256):
        chips = job.imagery.chips(
            points.iloc[start : start + 256], size_m=job.size_m, on_invalid="mask", min_valid=0.0
        )
        yield start, chips if transformers is None else transformers.transform(chips)


def _complete(estimator: Any, features: Any) -> tuple[Any, NDArray[np.int64]]:
    """Leave out rows that the encoder could not encode; fill columns on which the effect does not depend."""
    means = getattr(getattr(estimator, "imputation_", None), "means", None)
    columns = modifier_columns(estimator)
    names = getattr(estimator, "feature_names_in_", None)
    frame = hasattr(features, "iloc")
    if frame and names is not None:
        table = features[list(names)].to_numpy(dtype=float, copy=True)
    elif frame and hasattr(features, "geometry"):
        table = features.drop(columns=features.geometry.name).to_numpy(dtype=float, copy=True)
    else:
        table = np.array(features, dtype=float)
    if means is None or columns is None or table.ndim != 2 or table.shape[1] != len(means):
        bad = np.isnan(table).reshape(len(table), -1).any(axis=1)
        keep = np.flatnonzero(~bad)
        return (features.iloc[keep] if frame else features[keep]), keep
    bad = np.isnan(table[:, columns]).any(axis=1)
    table[:, ~columns] = np.where(np.isnan(table[:, ~columns]), means[~columns], table[:, ~columns])
    keep = np.flatnonzero(~bad)
    if not frame:
        return table[keep], keep
    import pandas as pd

    return pd.DataFrame(table[keep], columns=list(names) if names is not None else None), keep


def _limit_torch(job: MapJob) -> None:
    """Set a worker's torch threads, before the model uses any."""
    import sys

    if "torch" in sys.modules or image_encoders(job.model):
        import torch

        torch.set_num_threads(int(job.threads or 1))


def image_encoders(model: Any) -> list[Any]:
    """Image encoders within a model: steps that hold an ``imagery`` and a ``size_m``."""
    if getattr(model, "imagery", None) is not None and hasattr(model, "size_m"):
        return [model]
    steps = getattr(model, "steps", None) or getattr(model, "transformers_", None)
    steps = steps or getattr(model, "transformer_list", None) or ()
    return [encoder for step in steps for encoder in image_encoders(step[1])]


def fitted_encoders(job: MapJob) -> Iterator[Any]:
    """Encoders of chips inside the model's image encoders, and of the other models that encode by themselves."""
    for model in (job.model, *(other for other, same in job.others if not same)):
        for image in image_encoders(model):
            yield from getattr(image, "encoders_", ())


def largest_chip_px(model: Any, imagery: Any) -> int:
    """Side, in pixels of this imagery, of the largest chip that the model's encoders read from it; else 0."""
    same = imagery_digest(imagery)
    sizes = [0]
    for encoder in image_encoders(model):
        sources = encoder.imagery.values() if isinstance(encoder.imagery, Mapping) else [encoder.imagery]
        if any(source is imagery or imagery_digest(source) == same for source in sources):
            sizes += [int(imagery.size_px(float(size))) for size in np.atleast_1d(encoder.size_m)]
    return max(sizes)


def imagery_digest(imagery: Any) -> str:
    """What decides the pixels of the imagery, in one word."""
    return fingerprint(imagery.fingerprint() if hasattr(imagery, "fingerprint") else imagery)


def check_unchanged(imagery: Any, before: str) -> None:
    """Refuse a map whose tiles may be of two images: the imagery's digest is another than before."""
    if imagery_digest(imagery) != before:
        raise ResumeError(
            f"the imagery {getattr(imagery, 'name', '')!r} changed while it was mapped",
            expected="files that no other process writes",
            todo="open the imagery again and map with overwrite=True",
        )


def constant_columns(model: Any, covariates: Mapping[str, float] | None) -> dict[str, float]:
    """Constant columns for every cell: the given ones, and NaN for those on which the effect does not depend.

    Raises
    ------
    ColumnError
        If the effect depends on a column that is not given.
    DataError
        If a given value is not a finite number.
    """
    given: dict[str, float] = {}
    for name, value in (covariates or {}).items():
        if isinstance(value, str | bytes) or np.ndim(value) != 0 or not np.isfinite(float(value)):
            raise DataError(f"covariates[{name!r}] = {value!r}", expected="one finite number for the whole map")
        given[str(name)] = float(value)
    needed = required_columns(model)
    unknown = sorted(set(given) - set(needed))
    if unknown:
        raise ColumnError(
            f"covariates {', '.join(map(repr, unknown))}, which the model does not use",
            expected=f"columns among {', '.join(needed) or 'none'}",
            todo="check the spelling",
        )
    _, estimator = base.final_estimator(model)
    missing = [name for name in needed if name not in given and modifies(estimator, name)]
    if missing:
        raise ColumnError(
            f"the effects of this model depend on {', '.join(map(repr, missing))}, which cells of a map do not have",
            expected="a value for each such column",
            todo=f"pass covariates={{{missing[0]!r}: value, ...}} to map the effect at those values, or fit with "
            "modifiers='img*' so that the effect depends on the imagery alone",
        )
    return {name: given.get(name, float("nan")) for name in needed}
