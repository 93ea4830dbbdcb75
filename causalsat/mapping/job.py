"""What a map job consists of: the model made ready, the grid, the tiles, and all that the pixels depend on."""

from __future__ import annotations

import logging
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from causalsat import base
from causalsat.core.fingerprint import fingerprint
from causalsat.core.needed import required_columns
from causalsat.core.warn import warn
from causalsat.encoders.scale import BandScale, check_scale, known_scale
from causalsat.exceptions import MapWarning, ParameterError
from causalsat.mapping.compute import (
    MapJob,
    cell_points,
    constant_columns,
    image_encoders,
    imagery_digest,
    largest_chip_px,
)
from causalsat.mapping.grid import MapGrid, grid_over, to_coordinates
from causalsat.mapping.tiles import Tile, plan_tiles
from causalsat.version import __version__

__all__ = [
    "check_imagery",
    "imagery_as_fitted",
    "job_parts",
    "make_job",
    "model_digest",
    "ready_for_map",
    "same_features",
    "scale_of",
    "smallest_share",
    "tile_side",
    "tiles_of",
]

LOG = logging.getLogger(__name__)
WINDOW_BYTES = 64 << 20
LOOKED_AT = 25  # places whose pixels are compared with those of the fit


def make_job(
    model: Any,
    imagery: Any,
    geometry: Any,
    resolution: float | None,
    covariates: Mapping[str, float] | None,
    *,
    size_m: float | None,
    min_valid: float | None,
    others: tuple[Any, ...] = (),
    **more: Any,
) -> MapJob:
    """What every tile of the map needs: the model ready for this imagery, the grid, the constant columns."""
    imagery = imagery_as_fitted(model, imagery)
    model, *ready = (ready_for_map(m, imagery, min_valid) for m in (model, *others))
    columns = constant_columns(model, covariates)
    for other in ready:
        needed = required_columns(other)
        given = {k: v for k, v in columns.items() if k in needed and np.isfinite(v)}
        columns = {**constant_columns(other, given), **columns}
    if not image_encoders(model) and size_m is None and not columns:
        raise ParameterError(
            f"a model ({type(model).__name__}) without an ImageEncoder and without columns",
            expected="a Pipeline with an ImageEncoder, or size_m= for a model that was fitted on chips",
        )
    grid = grid_over(imagery, geometry, resolution)
    _check_chips(model, imagery, grid, geometry, size_m)
    scale = scale_of(model, imagery)
    _, estimator = base.final_estimator(model)
    return MapJob(
        model=model,
        imagery=imagery,
        scale=None if known_scale(getattr(estimator, "encoder_", None)) is not None else scale,
        grid=grid,
        region=None if geometry is None else bytes(geometry.wkb),
        columns=columns,
        size_m=size_m,
        chip_px=largest_chip_px(model, imagery) if size_m is None else int(imagery.size_px(float(size_m))),
        min_valid=smallest_share(model) if min_valid is None else min_valid,
        others=tuple((other, same_features(model, other)) for other in ready),
        **more,
    )


def _check_chips(model: Any, imagery: Any, grid: MapGrid, geometry: Any, size_m: float | None) -> None:
    """Refuse a region where the model's chips have other metres on the ground, before any work."""
    import geopandas as gpd

    cols, rows = np.meshgrid(*(np.linspace(0.5, n - 0.5, 12) for n in (grid.width, grid.height)))
    x, y = to_coordinates(grid.transform, cols.ravel(), rows.ravel())
    places = gpd.GeoSeries(gpd.points_from_xy(x, y), index=[f"{a:.6g}, {b:.6g}" for a, b in zip(x, y, strict=True)])
    places = places.set_crs(grid.crs)
    inside = np.ones(len(places), dtype=bool) if geometry is None else places.within(geometry).to_numpy()
    if not inside.any():
        return
    encoders = [e for e in image_encoders(model) if e.imagery is imagery]
    for size in {size_m or 0.0, *(float(np.max(e.size_m)) for e in encoders)} - {0.0}:
        imagery.size_px(size, places[inside])


def scale_of(model: Any, imagery: Any) -> BandScale | None:
    """Pixels that the model's encoder of this imagery was fitted on; None where nothing remembers them."""
    for images in image_encoders(model):
        if hasattr(images, "fitted_sources"):
            for own, encoder in images.fitted_sources():
                if own is imagery and known_scale(encoder) is not None:
                    return known_scale(encoder)
    transformers, estimator = base.final_estimator(model)
    steps = [] if transformers is None else [step for _, step in transformers.steps]
    if image_encoders(model) and not hasattr(estimator, "encoder_"):
        return None
    return next((scale for part in (*steps, estimator) if (scale := known_scale(part)) is not None), None)


def check_imagery(job: MapJob, tiles: Sequence[Tile]) -> None:
    """Compare the pixels that will be mapped with those of the fit, in up to 25 places, before the first tile.

    Raises
    ------
    ImageryError
        If they cannot be on the same scale, outside of ``causalsat.encoders.allow_other_scale()``.

    Warns
    -----
    MapWarning
        If they are distributed in another way, or hold what looks like fill.
    """
    scale = scale_of(job.model, job.imagery)
    if scale is None or not tiles:
        return
    chosen = [tiles[k] for k in np.unique(np.linspace(0, len(tiles) - 1, LOOKED_AT).astype(int))]
    size, chips = int(np.clip(job.chip_px, 16, 128)), []
    for tile in chosen:
        x, y = job.grid.centres(tile.row, tile.col, tile.height, tile.width)
        count = -(-LOOKED_AT // len(chosen))
        cells = np.unique(((np.arange(count) + 0.5) / count * len(x)).astype(int))
        corners = zip(*job.imagery.windows(cell_points(job, x[cells], y[cells]), size), strict=True)
        chips += [np.asarray(job.imagery.read_window(int(row), int(col), size, size)) for row, col in corners]
    what = f"imagery {getattr(job.imagery, 'name', '')!r}"
    insisted, notes = check_scale(scale, np.stack(chips).astype(np.float32), names=job.imagery.bands, what=what)
    for note in insisted + notes:
        warn(note, MapWarning)


def ready_for_map(model: Any, imagery: Any, min_valid: float | None) -> Any:
    """A copy of the model whose encoders read the given imagery, where it is theirs or has its bands, and mask.

    Warns
    -----
    MapWarning
        Where no encoder reads the given imagery, or the model's images are scaled in another way.
    """
    if not image_encoders(model):
        return model
    from copy import deepcopy

    model = deepcopy(model)
    for encoder in image_encoders(model):
        if isinstance(encoder.imagery, Mapping):
            encoder.imagery = {k: imagery if _same(own, imagery) else own for k, own in encoder.imagery.items()}
        elif _same(encoder.imagery, imagery) or _alike(encoder.imagery, imagery):
            _tell_of_scales(encoder.imagery, imagery)
            encoder.imagery = imagery  # this very object, so that a tile's window is read once for all
        settings = {"on_invalid": "mask", "progress": False, "min_valid": min_valid}
        for name, value in settings.items():
            if hasattr(encoder, name) and value is not None:
                setattr(encoder, name, value)
    read = list(_sources(model))
    if not any(own is imagery for own in read):
        warnings.warn(
            f"the model goes on reading its own images, {'; '.join(map(_words, read))}, since those given have other "
            f"bands or another number of dates: {_words(imagery)} only lays the grid of the map. To map it, open it "
            "with the same bands= and dates",
            MapWarning,
            stacklevel=5,
        )
    return model


def imagery_as_fitted(model: Any, imagery: Any) -> Any:
    """The imagery itself, or the model's own of the same file where that is opened with other settings.

    Warns
    -----
    MapWarning
        Where the settings decide pixels.
    """
    own = list(_sources(model))
    if any(_same(source, imagery) for source in own):
        return imagery
    fitted = next((source for source in own if _files(source) and _files(source) == _files(imagery)), None)
    if fitted is None:
        return imagery
    before, now = _settings(fitted), _settings(imagery)
    keys = sorted({*before, *now})
    others = [f"{key}={before.get(key)}" for key in keys if repr(before.get(key)) != repr(now.get(key))]  # NaN is NaN
    if others:
        warnings.warn(
            f"the model was fitted on {_words(fitted)} opened with other settings ({', '.join(others)}): they are "
            "used for the map",
            MapWarning,
            stacklevel=4,
        )
    return fitted


def _sources(model: Any) -> Iterator[Any]:
    """Every imagery that the model's encoders read."""
    for encoder in image_encoders(model):
        yield from encoder.imagery.values() if isinstance(encoder.imagery, Mapping) else [encoder.imagery]


def _files(imagery: Any) -> list[Any]:
    """What of which files the imagery is; empty where it is of none, such as an array."""
    paths = [getattr(scene, "path", "") for scene in getattr(imagery, "scenes", (imagery,))]
    return [getattr(imagery, "variable", None), *map(os.path.abspath, paths)] if all(paths) else []


def _settings(imagery: Any) -> dict[str, Any]:
    """How the stored numbers become pixels, of a sequence by its first scene."""
    first = getattr(imagery, "scenes", (imagery,))[0]
    names = ("bands", "indexes", "band_positions", "nodata", "scale", "offset", "mask", "formula")
    return {name: getattr(first, name) for name in names if hasattr(first, name)}


def _tell_of_scales(own: Any, imagery: Any) -> None:
    """Warn where another file of one data type is scaled in another way than the model's own."""
    kinds = [getattr(getattr(i, "scenes", (i,))[0], "dtype", None) for i in (own, imagery)]
    before, now = ({k: v for k, v in _settings(i).items() if k in ("scale", "offset")} for i in (own, imagery))
    if before != now and kinds[0] is not None and kinds[0] == kinds[1]:
        shown = ["scale={scale}, offset={offset}".format(**settings) for settings in (now, before)]
        warnings.warn(
            f"{_words(imagery)} is opened with {shown[0]} and the model's own images, also {kinds[0]}, with "
            f"{shown[1]}: if the numbers are stored alike, open it with the model's",
            MapWarning,
            stacklevel=6,
        )


def _words(imagery: Any) -> str:
    dates = len(imagery.dates)
    bands = ", ".join(map(str, imagery.bands))
    return f"{getattr(imagery, 'name', 'imagery')} (bands {bands}{f', {dates} dates' if dates > 1 else ''})"


def smallest_share(model: Any) -> float:
    """Least share of valid pixels that the model's encoders accept."""
    return min((float(getattr(e, "min_valid", 0.5)) for e in image_encoders(model)), default=0.5)


def _same(own: Any, imagery: Any) -> bool:
    return own is imagery or imagery_digest(own) == imagery_digest(imagery)


def _alike(own: Any, imagery: Any) -> bool:
    """Whether arrays of the two have the same leading dimensions: the same bands, and as many times."""
    return tuple(own.bands) == tuple(imagery.bands) and own.leading == imagery.leading


def tile_side(tile_px: int, cell_px: int, chip_px: int, imagery: Any) -> int:
    """Cells along the side of a tile, so that the window it reads stays within ``WINDOW_BYTES``."""
    layers = max(len(imagery.bands), 1) * max(len(imagery.dates), 1)
    side_px = int((WINDOW_BYTES / (4 * layers)) ** 0.5)
    return max(1, min(int(tile_px), (side_px - chip_px) // cell_px))


def tiles_of(job: MapJob, side: int) -> list[Tile]:
    """Tiles that touch the region."""
    tiles = plan_tiles(job.grid.height, job.grid.width, side)
    if job.region is None:
        return tiles
    import shapely

    region = shapely.from_wkb(job.region)
    shapely.prepare(region)
    edges = np.array([(t.col, t.row, t.col + t.width, t.row + t.height) for t in tiles])
    corners = to_coordinates(job.grid.transform, edges[:, [0, 2, 2, 0]], edges[:, [1, 1, 3, 3]])
    touching = shapely.intersects(region, shapely.polygons(np.stack(corners, axis=-1)))
    return [tile for tile, hit in zip(tiles, touching, strict=True) if hit]


def job_parts(job: MapJob) -> dict[str, Any]:
    """What the pixels of the map depend on, as strings and numbers."""
    grid = job.grid
    return {
        "model": model_digest(job.model),
        "imagery": imagery_digest(job.imagery),
        "grid": fingerprint([grid.crs, grid.imagery_transform]),
        "cells": [grid.cell_px, grid.row0, grid.col0, grid.height, grid.width],
        "region": "all" if job.region is None else fingerprint(job.region),
        "columns": {name: repr(value) for name, value in sorted(job.columns.items())},
        "level": job.level,
        "size_m": job.size_m,
        "min_valid": job.min_valid,
        "chunk": job.chunk,
        "version": __version__,
        **({} if job.scope == "mean" else {"scope": job.scope}),
        **({} if job.quantity == "effect" else {"quantity": job.quantity, "given": str(job.given)}),
        **({"contrast": {k: str(v) for k, v in job.contrast.items()}} if job.contrast else {}),
        **({"others": [model_digest(other) for other, _ in job.others]} if job.others else {}),
        **({} if job.learned_error is None else {"learned_error": model_digest(job.learned_error)}),
    }


def model_digest(model: Any) -> str:
    """Digest of a fitted model: maps of equal models continue each other; of no other map where it has none."""
    try:
        return fingerprint(model)
    except ParameterError as error:
        LOG.info("no other map goes on with this one's tiles: %s", error.what)
        return f"unknown {uuid.uuid4().hex}"


def same_features(first: Any, second: Any) -> bool:
    """Whether two models' steps before the last give the same features."""
    before, after = base.final_estimator(first)[0], base.final_estimator(second)[0]
    if before is None or after is None:
        return before is after
    steps, others = ([step for _, step in part.steps] for part in (before, after))
    return [model_digest(step) for step in steps] == [model_digest(step) for step in others]
