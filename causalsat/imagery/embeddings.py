"""Precomputed embedding rasters: foundation models without running one.

AlphaEarth (Google Satellite Embedding) keeps 64 unit-length numbers as int8 with nodata -128; sources disagree on how
to undo it, as sign(v) (|v| / 127.5)^2 or as v / 127. The embeddings have length 1, which decides. TESSERA keeps int8
with a separate raster of scales, or floats.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from causalsat.core.warn import warn
from causalsat.exceptions import ImageryError, ImageryWarning, ParameterError
from causalsat.imagery.base import Imagery
from causalsat.imagery.blocks import Block, is_nodata, nodata_bounds
from causalsat.imagery.dates import day_in_name
from causalsat.imagery.files import sibling
from causalsat.imagery.handles import opened, readable
from causalsat.imagery.layers import OWN_SCALE
from causalsat.imagery.raster import RasterImagery, check_companion, open_raster
from causalsat.imagery.sequence import open_sequence
from causalsat.imagery.sources import kind_of, single_date

__all__ = ["FORMULAS", "EmbeddingImagery", "choose_formula", "open_embeddings"]

FloatArray = NDArray[np.float32]

#: Published ways from int8 to the embedding.
FORMULAS: dict[str, Any] = {
    "square": lambda v: np.sign(v) * (v / np.float32(127.5)) ** 2,
    "linear": lambda v: v / np.float32(127),
}
_TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True, repr=False)
class EmbeddingImagery(RasterImagery):
    """An embedding raster, dequantised when read. Use :func:`open_embeddings` to make one.

    Attributes
    ----------
    formula : {"square", "linear", "scales", "none"}
        How stored values become numbers.
    scales_path : str
        Raster of scales, where the formula is "scales".
    """

    formula: str = "none"
    scales_path: str = ""

    @property
    def fill(self) -> float | None:
        """None: nodata is already NaN in the blocks."""
        return None

    def load(self, r0: int, r1: int, c0: int, c1: int) -> Block:
        """Decode and dequantise rows r0..r1 and columns c0..c1; invalid where any band is nodata."""
        block = super().load(r0, r1, c0, c1)
        values = block.values.astype(np.float32)
        gone = np.zeros(values.shape[1:], dtype=bool)
        bounds = None if self.nodata is None else nodata_bounds(self.nodata, block.values.dtype)
        if bounds is not None:
            gone |= is_nodata(block.values, bounds).any(axis=0)
        if block.invalid is not None:
            gone |= np.broadcast_to(block.invalid, values.shape).any(axis=0)
        infinite = int(np.count_nonzero(np.isinf(values) & ~gone)) if block.values.dtype.kind == "f" else 0
        gone |= ~np.isfinite(values).all(axis=0)
        if self.formula in FORMULAS:
            values = FORMULAS[self.formula](values)
        elif self.formula == "scales":
            scales = self._scales(r0, r1, c0, c1)
            gone |= ~(np.isfinite(scales) & (scales > 0)).all(axis=0)
            values = values * scales
        values[:, gone] = np.nan
        return Block(values.astype(np.float32, copy=False), infinite=infinite)

    def _paths(self) -> list[str]:
        return sorted({*super()._paths(), *([self.scales_path] if self.scales_path else [])})

    def _scales(self, r0: int, r1: int, c0: int, c1: int) -> FloatArray:
        """Scales of the pixels, (band or 1, rows, columns); NaN where they are invalid."""
        file = opened(self.scales_path, self.network)
        bands = [1] if file.handle.count == 1 else list(self.indexes)
        window = Window(c0, r0, c1 - c0, r1 - r0)
        with file.reading(), readable(self.scales_path):
            scales = file.handle.read(bands, window=window).astype(np.float32)
            valid = file.handle.read_masks(bands, window=window) != 0
        return np.where(valid, scales, np.float32(np.nan))


def choose_formula(values: NDArray[Any]) -> str:
    """The published formula that gives the embeddings length 1.

    Parameters
    ----------
    values : ndarray of int8 of shape (band, n)
        All bands of some valid pixels.

    Returns
    -------
    str
        "square" or "linear".

    Raises
    ------
    ImageryError
        Neither gives a median length within 5 % of 1.

    Examples
    --------
    >>> unit = np.full((64, 1), 1 / 8)
    >>> choose_formula(np.rint(127.5 * np.sqrt(unit))), choose_formula(np.rint(127 * unit))
    ('square', 'linear')
    """
    numbers = np.asarray(values, dtype=np.float32)
    lengths = {
        key: float(np.median(np.sqrt((formula(numbers) ** 2).sum(axis=0)))) for key, formula in FORMULAS.items()
    }
    best = min(lengths, key=lambda key: abs(lengths[key] - 1))
    if abs(lengths[best] - 1) > _TOLERANCE:
        raise ImageryError(
            f"no published formula gives these embeddings length 1: median lengths {lengths}",
            expected="AlphaEarth's int8 with all 64 bands",
            todo='pass scales= (TESSERA keeps them in another file), or formula="square", "linear" or "none"',
        )
    return best


def open_embeddings(
    source: Any,
    *,
    formula: str | None = None,
    scales: str | os.PathLike[str] | tuple[str, str] | None = None,
    bands: Any = None,
    dates: Any = None,
    date_regex: str | None = None,
    crs: Any = None,
    nodata: float | None = None,
    name: str | None = None,
    network: bool = False,
) -> Imagery:
    """Open precomputed embeddings: one raster, or a folder of them by year.

    Parameters
    ----------
    source : path, glob or list of paths
        As in :func:`causalsat.open_imagery`.
    formula : {"square", "linear", "none"}, optional
        How int8 becomes numbers; default: the published formula that gives length 1, checked on a sample of pixels.
    scales : path or two texts, optional
        Raster of scales on the same grid, with one band or one for each; for several files, a text in the path and
        what replaces it: ``("embedding", "scales")``.
    bands, dates, date_regex, crs, nodata, name, network
        As in :func:`causalsat.open_imagery`; nodata defaults to -128 for int8. The date of an annual embedding is the
        last day of its year, so that ``images_before`` leaves out the year of treatment.

    Returns
    -------
    EmbeddingImagery or SequenceImagery

    Raises
    ------
    ImageryError
        The raster cannot be used, or no formula gives length 1.

    Warns
    -----
    ImageryWarning
        Undated: an annual embedding may hold images from after the treatment.
    """
    if formula is not None and formula not in (*FORMULAS, "none"):
        raise ParameterError(f"formula={formula!r}", expected=f"one of {[*FORMULAS, 'none']}")
    options = {"bands": bands, "crs": crs, "nodata": nodata, "name": name, "network": network}
    one = partial(_open_one, formula=formula, scales=scales)
    if kind_of(source) == "sequence":
        return open_sequence(source, dates=dates, date_regex=date_regex, open_scene=one, **options)
    if dates is None:
        dates = day_in_name(Path(os.fspath(source)).name, date_regex)
    imagery = one(source, date=single_date(dates), **options)
    if not imagery.days:
        warn(
            f"{imagery.name} is undated: an annual embedding may hold images from after the treatment; pass dates=",
            ImageryWarning,
        )
    return imagery


def _open_one(path: Any, *, formula: str | None, scales: Any, bands: Any, **options: Any) -> EmbeddingImagery:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*{OWN_SCALE}", ImageryWarning)  # the formula does it
        whole = open_raster(path, **options)
        chosen = whole if bands is None else open_raster(path, bands=bands, **options)
    if whole.dtype == "int8" and whole.nodata is None:
        whole = replace(whole, nodata=-128.0)
    scales_path = _scales_path(scales, whole)
    if scales_path:
        formula = "scales"
    elif formula is None:
        formula = choose_formula(_sample(whole)) if whole.dtype == "int8" else "none"
    fields = {key: getattr(whole, key) for key in whole.__dataclass_fields__}
    imagery = EmbeddingImagery(**fields, formula=formula, scales_path=scales_path)
    return replace(
        imagery,
        bands=chosen.bands,
        indexes=chosen.indexes,
        band_nodata=chosen.band_nodata,
        gdal_masks=chosen.gdal_masks,
        validity=chosen.validity,
    )


def _scales_path(scales: Any, raster: RasterImagery) -> str:
    if scales is None:
        return ""
    path = sibling(raster.path, scales) if isinstance(scales, tuple) else os.fspath(scales)
    if path == raster.path:
        raise ImageryError(f"the scales {path} are the embeddings", expected="another file on the same grid")
    holder = opened(path, raster.network).handle
    check_companion(path, holder, raster.grid, "the file of scales", "the embeddings")
    if holder.count not in (1, max(raster.indexes)):
        raise ImageryError(
            f"the scales {path} have {holder.count} bands and the embeddings {max(raster.indexes)}",
            expected="one band, or one for each",
        )
    return path


def _sample(raster: RasterImagery, side: int = 64, per_axis: int = 4) -> NDArray[Any]:
    """Valid pixels of windows spread over the raster, (band, n)."""
    rows, cols = raster.shape
    parts = []
    for r in np.linspace(0, max(rows - side, 0), per_axis).astype(int):
        for c in np.linspace(0, max(cols - side, 0), per_axis).astype(int):
            block = raster.load(int(r), min(int(r) + side, rows), int(c), min(int(c) + side, cols)).values
            good = (block != raster.nodata).all(axis=0) & (block != 0).any(axis=0)
            parts.append(block[:, good])
    sample = np.concatenate(parts, axis=1)
    if not sample.size:
        raise ImageryError(
            f"{raster.path}: no valid pixel in a sample, so the formula cannot be checked",
            todo='pass formula="square" or "linear"',
        )
    return sample
