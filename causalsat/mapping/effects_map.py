"""From a fitted model and imagery to a map of effects: the conductor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat import base
from causalsat.core.ahead import ahead
from causalsat.core.files import refuse_link, writing
from causalsat.core.fingerprint import fingerprint
from causalsat.core.ownership import refuse_strangers
from causalsat.core.progress import bar as progress_bar
from causalsat.core.progress import tell
from causalsat.exceptions import MapWarning, ParameterError
from causalsat.imagery.held import promised
from causalsat.inference.place_effects import check_scope
from causalsat.mapping.cluster import check_client, on_cluster
from causalsat.mapping.cog import write_cog
from causalsat.mapping.compute import BANDS, MapJob, check_unchanged, map_tile, read_ahead
from causalsat.mapping.grid import region_of
from causalsat.mapping.job import check_imagery, job_parts, make_job, tile_side, tiles_of
from causalsat.mapping.layers import check_layers
from causalsat.mapping.outputs import blocks_of, count_mapped, finished_tags, map_notes, model_words
from causalsat.mapping.plan import plan_of
from causalsat.mapping.result import MapResult, draw, page_wanted
from causalsat.mapping.tiles import Tile, open_job, read_tile, remove_job, tile_path, vanished
from causalsat.version import __version__

__all__ = ["BANDS", "MapResult", "make_map", "map_effects"]


def map_effects(
    model: Any,
    imagery: Any,
    region: Any = None,
    resolution: float | None = None,
    out: str | os.PathLike[str] = "effects.tif",
    *,
    region_crs: Any = None,
    covariates: Mapping[str, float] | None = None,
    size_m: float | None = None,
    level: float = 0.9,
    min_valid: float | None = None,
    tile_px: int = 128,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    png: bool | str | os.PathLike[str] = True,
    html: bool | str | os.PathLike[str] = "auto",
    sites: Any = None,
    units: str = "",
    title: str = "",
    note: str = "",
    citation: str = "",
    heterogeneity_p: float | None = None,
    others: Sequence[Any] = (),
    learned_error: Any = None,
    scope: str = "mean",
    treatment: Any = None,
    baseline: Any = None,
    what: str | None = None,
) -> MapResult:
    """Map the posterior effect of treatment for every cell of a region.

    Parameters
    ----------
    model : EffectEstimator or Pipeline
        Fitted on a GeoDataFrame (a Pipeline with an ImageEncoder), or on chips (then pass ``size_m``).
    imagery : Imagery
        Defines the grid of the map. A model whose ImageEncoder reads another raster with the same bands is
        mapped on this one.
    region : GeoDataFrame, GeoSeries, shapely polygon, (west, south, east, north), path or None
        What to map, in any coordinate system; None for all of the imagery.
    resolution : float, optional
        Side of a cell in metres, rounded to whole pixels of the imagery; by default such that the map has
        about 250,000 cells.
    out : path-like
        The GeoTIFF to write.
    region_crs : optional
        Coordinate system of bounds or of a bare geometry; by default the imagery's.
    covariates : mapping of str to float, optional
        Values of the covariates at which to map the effect; only needed where the effect depends on them.
    size_m : float, optional
        Side of the chips, for a model that was fitted on chips.
    level : float
        Level of the intervals.
    min_valid : float, optional
        A cell whose chip has a smaller share of valid pixels is nodata; by default as in the model's
        ImageEncoder, else 0.5.
    tile_px : int
        Side of a tile in cells, at most; tiles are smaller where their imagery would exceed 64 MB.
    client : distributed.Client, optional
        Computes the tiles on a dask cluster, whose workers see the folder of ``out``.
    progress : bool
        Say what the map takes (:func:`plan_map` also measures it), and show a progress bar.
    overwrite : bool
        Compute anew what exists, discard the tiles of an interrupted job with other inputs, and replace files under
        the names of the outputs that are not of causalsat.
    png, html : bool or path-like
        Also draw a picture and an interactive page, beside ``out`` unless a path is given. ``html="auto"``
        draws the page where bokeh is installed and otherwise warns.
    sites : GeoDataFrame, optional
        Places of the trial, drawn on picture and page.
    units, title, note, citation : str
        Words for legends and metadata.
    heterogeneity_p : float, optional
        P-value of a test of no heterogeneity; above 0.05 the map says so.
    others : sequence of fitted models, optional
        Adds the band ``disagreement``: the standard deviation of the posterior mean effect across ``model`` and
        these. Places are encoded once for models that share their encoder.
    learned_error : DirectUncertainty, optional
        Adds the band ``learned_error``: the excess loss to be expected at a cell, learned from held-out regions. Fit
        it on ``model[:-1].transform(units)`` (with the posterior sd or without) and on the losses of models that had
        not seen the unit's region.
    scope : {"mean", "place"}
        What sd, interval and ``prob_positive`` are about: the mean effect of places that look alike, or the effect
        at the place itself, a cell (see :meth:`causalsat.base.EffectEstimator.effect`). The file's tag ``scope``
        says which, and the map's note does for "place". ``cate`` is the same.
    treatment, baseline : label or number, optional
        Which arm, or dose, against which; by default treatment 1 against 0. Of three arms or more the treatment must
        be named; the baseline is the control.
    what : {"itt", "compliance", "complier"}, optional
        Of a :class:`causalsat.ComplierEffect`: which effect is mapped, by default that on compliers.

    Returns
    -------
    MapResult
        Paths, and what was mapped.

    Raises
    ------
    ResumeError
        If tiles of an interrupted job with other inputs are in the way.
    ColumnError
        If the effect depends on columns that ``covariates`` does not give.
    ParameterError, DataError, ImageryError
        If a setting, the region or the imagery cannot be used, also because its pixels cannot be in the units of the
        model's images; within :func:`causalsat.encoders.allow_other_scale` that is a warning.

    Warns
    -----
    MapWarning
        If the pixels are distributed in another way than those of the fit, or hold what looks like fill. The support
        of cells with few valid pixels within the range of the fit is lowered.

    Notes
    -----
    Tiles are written one by one to ``<out>.tiles`` under a job hash: a killed run continues where it stopped,
    and its pixels are those of an uninterrupted one (with networks, on the same number of torch threads; workers of a
    cluster have one). Memory is bounded by a tile and not by the raster.
    """
    check_scope(scope)
    _, estimator = base.final_estimator(model)
    if not hasattr(estimator, "effect"):
        raise ParameterError(
            f"a model that ends in {type(estimator).__name__}, which has no effect()",
            expected="an effect estimator, or a Pipeline that ends in one",
            todo="map a risk model with map_risk",
        )
    if scope == "place":
        estimator._deviation()  # before any work
    contrast = contrast_of(estimator, treatment, baseline, what)
    return make_map(
        "effect", None, model, imagery, region, resolution, out, region_crs=region_crs, covariates=covariates,
        size_m=size_m, level=level, min_valid=min_valid, tile_px=tile_px, client=client, progress=progress,
        overwrite=overwrite, png=png, html=html, sites=sites, units=units, title=title, note=note, citation=citation,
        heterogeneity_p=heterogeneity_p, others=check_layers(model, others, learned_error),
        learned_error=learned_error, scope=scope, contrast=contrast,
    )  # fmt: skip


def contrast_of(estimator: Any, treatment: Any, baseline: Any, what: str | None) -> dict[str, Any]:
    """Arguments of the estimator's ``effect`` for a map, checked before it begins."""
    if what is not None:
        known = getattr(estimator, "quantities", ())
        if what not in known:
            raise ParameterError(
                f"what={what!r} of a {type(estimator).__name__}",
                expected=f"one of {', '.join(known)}" if known else "no what=",
                todo="" if known else "fit a ComplierEffect for maps of take-up",
            )
        return {"what": what}
    given = {"treatment": treatment, "baseline": baseline}
    contrast = {name: value for name, value in given.items() if value is not None}
    if hasattr(estimator, "arm_code"):
        estimator.arm_code(contrast.get("treatment", 1.0), "treatment")
        estimator.arm_code(contrast.get("baseline", 0.0), "baseline")
    return contrast


def make_map(
    quantity: str,
    given: str | None,
    model: Any,
    imagery: Any,
    region: Any,
    resolution: float | None,
    out: Any,
    *,
    region_crs: Any,
    covariates: Mapping[str, float] | None,
    size_m: float | None,
    level: float,
    min_valid: float | None,
    tile_px: int,
    client: Any,
    progress: bool,
    overwrite: bool,
    png: Any,
    html: Any,
    sites: Any,
    units: str = "",
    title: str = "",
    note: str = "",
    citation: str = "",
    heterogeneity_p: float | None = None,
    others: tuple[Any, ...] = (),
    learned_error: Any = None,
    scope: str = "mean",
    contrast: Mapping[str, Any] | None = None,
) -> MapResult:
    """Map a quantity of a model, "effect" or "risk" (``given`` what is known of the decision): the conductor."""
    path = _check_settings(out, level, min_valid, tile_px, heterogeneity_p)
    html = page_wanted(html)
    if client is not None:
        check_client(client)
    _refuse_same_file(path, png, html, imagery)
    if not overwrite:
        targets = _targets(path, png, html)
        refuse_strangers(targets, "choose another name, move them, or pass overwrite=True (--overwrite)")
    folder = path.with_name(path.name + ".tiles")
    refuse_link(folder, "the tiles of a map")
    job = make_job(
        model, imagery, region_of(region, imagery, region_crs), resolution, covariates,
        size_m=size_m, level=level, min_valid=min_valid, folder=folder.absolute(), quantity=quantity, given=given,
        others=others, learned_error=learned_error, scope=scope, contrast=dict(contrast or {}),
    )  # fmt: skip
    side = tile_side(tile_px, job.grid.cell_px, job.chip_px, imagery)
    parts = {**job_parts(job), "tile": side}
    job_hash, notes = fingerprint(parts), map_notes(note, heterogeneity_p, scope)
    tags = _tags(job, job_hash, units, title, notes, citation, heterogeneity_p)
    bands = job.bands
    finished = {} if overwrite else finished_tags(path, job_hash, bands)
    if finished == tags:
        remove_job(folder, job_hash)  # what a job left that was killed after its map was in place
    else:
        tiles = [] if finished else tiles_of(job, side)
        check_imagery(job, tiles)
        open_job(folder, parts, overwrite=overwrite)
        if progress and len(tiles) > 1:
            _tell(job, tiles, side)
        _run(job, tiles, client, progress)
        check_unchanged(job.imagery, parts["imagery"])
        blocks = blocks_of(path) if finished else _blocks(job, tiles)
        write_cog(path, blocks, grid=job.grid, bands=bands, tags=tags, work=folder)
        remove_job(folder)
    shape, n_mapped = (job.grid.height, job.grid.width), count_mapped(path)
    result = MapResult(path, None, None, job.grid.resolution_m, shape, n_mapped, level, notes, job_hash, bands)
    if not n_mapped:
        warnings.warn(
            f"no cell of the map has {'an effect' if quantity == 'effect' else 'a risk'}: all lie outside the "
            f"region, which may be smaller than a cell ({job.grid.resolution_m:g} m), or on invalid imagery "
            f"(min_valid={job.min_valid:g})",
            MapWarning,
            stacklevel=3,
        )
        return result
    return draw(result, imagery, png=png, html=html, sites=sites, units=units, title=title)


# ---------------------------------------------------------------------- checks and set-up
def _check_settings(out: Any, level: float, min_valid: float | None, tile_px: int, p_value: float | None) -> Path:
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r}", expected="a number between 0 and 1, such as 0.9")
    if min_valid is not None and not 0 <= min_valid <= 1:
        raise ParameterError(f"min_valid={min_valid!r}", expected="a share between 0 and 1")
    if int(tile_px) != tile_px or tile_px < 1:
        raise ParameterError(f"tile_px={tile_px!r}", expected="a whole number of cells, at least 1")
    if p_value is not None and not 0 <= p_value <= 1:
        raise ParameterError(f"heterogeneity_p={p_value!r}", expected="a p-value between 0 and 1")
    path = Path(out)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ParameterError(f"out={str(out)!r}", expected="a file name that ends in .tif")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _targets(path: Path, png: Any, html: Any) -> list[Path]:
    """The map, and the picture and page that are asked for."""
    asked = [(v, end) for v, end in ((png, ".png"), (html, ".html")) if v is not None and v is not False]
    return [path, *(path.with_suffix(end) if v is True or v == "auto" else Path(v) for v, end in asked)]


def _refuse_same_file(path: Path, png: Any, html: Any, imagery: Any) -> None:
    """Refuse outputs that are one file, or a file that the imagery is read from."""
    named = [("png", png), ("html", html)]
    asked = [(name, v) for name, v in named if v is not None and not isinstance(v, bool) and v != "auto"]
    read = {os.path.realpath(stamp[0]) for stamp in getattr(imagery, "stamps", tuple)() if isinstance(stamp[0], str)}
    taken: dict[str, str] = {}
    for name, target in [("out", path), *asked]:
        place = os.path.realpath(target)
        if place in read:
            raise ParameterError(
                f"{name}={str(target)!r}, which the imagery is read from",
                expected="another file",
                todo="name a file that does not exist yet",
            )
        if place in taken:
            raise ParameterError(f"{name}={str(target)!r}, the file of {taken[place]}=", expected="a file for each")
        taken[place] = name


# ---------------------------------------------------------------------- work
def _run(job: MapJob, tiles: list[Tile], client: Any, progress: bool) -> None:
    with progress_bar(total=len(tiles), desc="mapping", unit="tile", show=progress) as bar:
        for _ in on_cluster(job, tiles, client) if client is not None else _in_a_loop(job, tiles):
            bar.update()


def _tell(job: MapJob, tiles: list[Tile], side: int) -> None:
    """Say, where the progress bar will be, what the map takes."""
    tell(str(plan_of(job, tiles, side)))


def _in_a_loop(job: MapJob, tiles: list[Tile]) -> Iterator[int]:
    for tile, ready in ahead((tile, read_ahead(job, tile)) for tile in tiles):
        with promised(ready):
            done = map_tile(job, tile)
        yield done


def _blocks(job: MapJob, tiles: list[Tile]) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    for tile in tiles:
        values = read_tile(tile_path(job.folder, tile), (len(job.bands), tile.height, tile.width))
        if values is None:
            raise vanished(job.folder, tile)
        if np.isfinite(values).any():
            yield tile.row, tile.col, values


# ---------------------------------------------------------------------- words, counts and pictures
def _tags(
    job: MapJob, job_hash: str, units: str, title: str, note: str, citation: str, p_value: float | None
) -> dict[str, str]:
    tags = {
        "software": f"causalsat {__version__}",
        "job": job_hash,
        "level": f"{job.level:g}",
        "scope": job.scope if job.quantity == "effect" else "",
        "contrast": ", ".join(f"{name}={value}" for name, value in job.contrast.items()),
        "resolution_m": f"{job.grid.resolution_m:g}",
        "imagery": str(getattr(job.imagery, "name", "")),
        "model": model_words(job.model),
        "columns": ", ".join(f"{k}={v:g}" for k, v in job.columns.items() if np.isfinite(v)),
        "overviews": "averages of cells",
        "units": units,
        "title": title,
        "note": note,
        "citation": citation,
        "heterogeneity_p": "" if p_value is None else f"{p_value:.6g}",
    }
    return {key: value for key, value in tags.items() if value}
