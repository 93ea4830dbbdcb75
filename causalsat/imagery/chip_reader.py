"""Chips: the pixels around places, as an xarray DataArray."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from causalsat.core.progress import bar as progress_bar
from causalsat.core.warn import warn
from causalsat.exceptions import ImageryError, ImageryWarning, ParameterError
from causalsat.imagery import cache as disk
from causalsat.imagery.grid import Grid, IntArray, check_ground_size, lonlat

__all__ = ["ChipSource", "chips"]

Chips = NDArray[np.float32]
LOG = logging.getLogger(__name__)
ON_INVALID = ("raise", "mask", "drop")


@runtime_checkable
class ChipSource(Protocol):
    """What chips are read from: an :class:`causalsat.imagery.Imagery`."""

    @property
    def grid(self) -> Grid:
        """CRS, transform and shape."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""

    @property
    def days(self) -> tuple[str, ...]:
        """ISO days of the images."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def has_time(self) -> bool:
        """Whether arrays have a time dimension."""

    @property
    def leading(self) -> tuple[int, ...]:
        """Shape of the dimensions before y and x."""

    @property
    def resolution_m(self) -> float:
        """Metres per pixel."""

    def size_px(self, size_m: float) -> int:
        """Pixels in a side of so many metres."""

    def windows(self, geometry: Any, size_px: int) -> tuple[IntArray, IntArray]:
        """Upper-left pixels of windows."""

    def layers(self) -> list[Any]:
        """Sources of blocks."""

    def fingerprint(self) -> dict[str, Any]:
        """What decides the pixels."""

    def unstamped(self) -> tuple[str, ...]:
        """What decides the pixels and cannot be looked at."""

    def fill_windows(
        self, out: Chips, row0: IntArray, col0: IntArray, *, threads: int = 1, progress: Any = None
    ) -> NDArray[np.float64]:
        """Write windows into an array."""

    def iter_windows(
        self, row0: IntArray, col0: IntArray, size_px: int, batch_size: int = 256, *, threads: int = 1
    ) -> Any:
        """Windows in batches."""


def chips(
    imagery: ChipSource | Mapping[str, ChipSource],
    geometry: Any,
    *,
    size_m: float | Sequence[float] | None = None,
    size_px: int | Sequence[int] | None = None,
    on_invalid: str = "raise",
    min_valid: float = 0.5,
    lazy: bool = False,
    cache: str | os.PathLike[str] | None = None,
    threads: int = 1,
    progress: bool | None = None,
) -> xarray.DataArray | dict[str, xarray.DataArray]:
    """Read the pixels around places, each block of the file decoded once, places that occur often read once.

    Parameters
    ----------
    imagery : Imagery or mapping of names to Imagery
        One source or several.
    geometry : GeoSeries or GeoDataFrame of length n, with a CRS
        Points, or polygons by their representative point. Its index becomes the coordinate ``unit``.
    size_m, size_px : number or sequence of numbers
        Side of the chips in metres (rounded to whole pixels) or in pixels; exactly one of the two. Several sizes make
        several scales. Metres are those on the ground: places at which a pixel is more than a tenth larger or smaller
        than in the middle of the raster, as in degrees far from the equator or in Web Mercator, are refused. Rounding
        that misses the side by more than a tenth, as in a source of coarser pixels, is warned of.
    on_invalid : {"raise", "mask", "drop"}, default "raise"
        What to do with units of which less than ``min_valid`` is valid: raise an error that names them, keep them
        with NaN, or leave them out, with their labels in ``attrs["dropped"]`` and a warning.
    min_valid : float, default 0.5
        Share of a chip's values (over all bands and dates) that must be there.
    lazy : bool, default False
        Read pixels only when they are used. Validity is still computed, in one pass that holds little in memory.
    cache : path, optional
        Folder that keeps the chips under a key of the source (paths, times and sizes of every file that is read), its
        settings, the windows and their size; safe with several processes. With ``lazy`` the file is memory-mapped. A
        source whose files cannot be looked at, such as one on the net, is not kept, which is warned of.
    threads : int, default 1
        Threads that decode blocks ahead.
    progress : bool, optional
        Whether to show a bar; default: on a terminal, after two seconds.

    Returns
    -------
    xarray.DataArray or dict of str to xarray.DataArray
        Dimensions (unit, [time,] band, y, x), float32, NaN where nodata, masked or outside. Coordinates: ``unit``,
        ``band``, ``time``, ``y`` and ``x`` (metres from the centre of the pixel that holds the place),
        ``valid_fraction``, ``lon``, ``lat``. For several sources a dict by name, for several sizes by ``"500m"`` or
        ``"64px"``, for both by ``"name@500m"``; with ``on_invalid="drop"`` all hold the same units.

    Raises
    ------
    ImageryError
        Units with too few valid pixels, or a file that cannot be read.
    DataError
        Missing, empty or not projectable geometries.
    ParameterError
        A parameter outside its domain.

    Examples
    --------
    >>> import geopandas, numpy as np, rioxarray, xarray
    >>> from causalsat import chips, open_imagery
    >>> array = xarray.DataArray(
    ...     np.arange(2000.0).reshape(1, 40, 50),
    ...     dims=("band", "y", "x"),
    ...     coords={"band": ["red"], "y": 1e5 - 10 * np.arange(40), "x": 5e5 + 10 * np.arange(50)},
    ... ).rio.write_crs("EPSG:32636")
    >>> places = geopandas.GeoSeries.from_xy([500100], [99900], index=["a"], crs="EPSG:32636")
    >>> chip = chips(open_imagery(array), places, size_m=30)
    >>> chip.dims, chip.values[0, 0].tolist()
    (('unit', 'band', 'y', 'x'), [[459.0, 460.0, 461.0], [509.0, 510.0, 511.0], [559.0, 560.0, 561.0]])
    """
    _check_parameters(on_invalid, min_valid, size_m, size_px)
    requests = _requests(imagery, size_m, size_px)
    _check_sizes(requests, geometry, size_m)
    folder = None if cache is None else Path(cache)
    reads: dict[str, _Reading] = {}
    for key in sorted(requests, key=lambda key: -requests[key][1]):  # the largest first: smaller ones are cut from it
        source, px = requests[key]
        wider = next((done for done in reads if requests[done][0] is source), None)
        if wider is not None and folder is None and not lazy:
            reads[key] = _cut(reads[wider], px)
        else:
            reads[key] = _read(source, geometry, px, lazy, folder, threads, progress)
    keep = _decide(reads, requests, geometry, on_invalid, min_valid)
    lon, lat = lonlat(geometry)
    results = {}
    for key, (source, px) in requests.items():
        array = _assemble(source, px, reads[key], keep, geometry, (lon, lat))
        array.attrs.update(min_valid=float(min_valid))
        if on_invalid == "drop":
            array.attrs["dropped"] = [] if keep is None else _index(geometry)[~keep].tolist()
        results[key] = array
    return results[""] if list(results) == [""] else results


@dataclass(frozen=True)
class _Reading:
    """Chips of the distinct windows (u of them), which of those each unit has, and their valid fractions."""

    data: Any
    which: IntArray
    valid: NDArray[np.float64]
    sums: Any = None


def _check_parameters(on_invalid: str, min_valid: float, size_m: Any, size_px: Any) -> None:
    if on_invalid not in ON_INVALID:
        raise ParameterError(f"on_invalid={on_invalid!r}", expected=f"one of {ON_INVALID}")
    if not 0 <= min_valid <= 1:
        raise ParameterError(f"min_valid={min_valid!r}", expected="a share between 0 and 1")
    if (size_m is None) == (size_px is None):
        raise ParameterError(
            "neither size_m nor size_px was given" if size_m is None else "both size_m and size_px were given",
            expected="one of them",
            todo="pass size_m=, the side of the chips in metres",
        )


def _check_sizes(requests: dict[str, tuple[ChipSource, int]], geometry: Any, size_m: Any) -> None:
    """Refuse metres that are not so many on the ground at the places."""
    if size_m is None:
        return
    for source in {id(source): source for source, _ in requests.values()}.values():
        check_ground_size(source.grid, geometry, float(np.max(size_m)), source.name)


def _requests(imagery: Any, size_m: Any, size_px: Any) -> dict[str, tuple[ChipSource, int]]:
    """Source and size in pixels of each result, by its key."""
    several = isinstance(imagery, Mapping)
    sources = dict(imagery) if several else {"": imagery}
    if not sources:
        raise ImageryError("an empty mapping of imagery", expected="at least one source")
    for name, source in sources.items():
        if not isinstance(source, ChipSource):
            raise ImageryError(
                f"imagery {name!r} is a {type(source).__name__}"
                if several
                else f"imagery is a {type(source).__name__}",
                expected="an Imagery",
                todo="open it first: causalsat.open_imagery(source)",
            )
    sizes, unit = (size_m, "m") if size_m is not None else (size_px, "px")
    scalar = np.ndim(sizes) == 0
    requests = {}
    for name, source in sources.items():
        for size in [sizes] if scalar else list(sizes):
            label = "" if scalar else f"{size:g}{unit}"
            px = source.size_px(size) if unit == "m" else int(size)
            if unit == "px" and (px != size or px < 1):
                raise ParameterError(f"size_px={size!r}", expected="a whole number of pixels, at least 1")
            requests["@".join(text for text in (str(name), label) if text)] = (source, px)
    return requests


def _read(
    source: ChipSource, geometry: Any, px: int, lazy: bool, folder: Path | None, threads: int, progress: bool | None
) -> _Reading:
    row0, col0 = source.windows(geometry, px)
    row, col, which = _distinct(row0, col0)
    shape = (len(row), *source.leading, px, px)
    bar: dict[str, Any] = {"show": progress is not False, "unit": "chip", "desc": source.name}

    def fill(out: Chips) -> NDArray[np.float64]:
        with progress_bar(total=len(row) * len(source.layers()), **bar) as ticker:
            return source.fill_windows(out, row, col, threads=threads, progress=ticker)

    if folder is not None and (unknown := source.unstamped()):
        warn(
            f"the chips of {source.name} are not kept in {folder}, because it cannot be seen whether "
            f"{', '.join(unknown[:3])} changes",
            ImageryWarning,
        )
        folder = None
    if folder is not None:
        key = disk.content_key(source.fingerprint(), row, col, px)
        kept = disk.load(folder, key, shape, lazy)
        LOG.info("%s chips of %s: %s", len(row), source.name, "read" if kept is None else f"kept in {folder}")
        if kept is None:
            disk.store(folder, key, shape, fill)
            kept = disk.load(folder, key, shape, lazy)
        if kept is not None:
            return _Reading(kept[0], which, *kept[1:])
    if lazy:
        valid = np.empty(len(row))
        for positions, batch in source.iter_windows(row, col, px, threads=threads):
            valid[positions] = valid_fraction(batch)
        return _Reading(_LazyChips(source, row, col, px), which, valid)
    out = np.empty(shape, dtype=np.float32)
    return _Reading(out, which, fill(out))


def _cut(reading: _Reading, px: int) -> _Reading:
    """The chips of a smaller size with the same centres."""
    start = reading.data.shape[-1] // 2 - px // 2
    data = reading.data[..., start : start + px, start : start + px].copy()
    return _Reading(data, reading.which, valid_fraction(data))


def _distinct(row0: IntArray, col0: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Distinct windows in order of their first occurrence, and which of them each unit has."""
    _, first, inverse = np.unique(np.stack([row0, col0]), axis=1, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    order = np.argsort(first)
    rank[order] = np.arange(len(first))
    return row0[first[order]], col0[first[order]], rank[inverse.ravel()]


def valid_fraction(chips: NDArray[Any], batch: int = 128) -> NDArray[np.float64]:
    """Share of each chip's values that are not NaN; (n, ...) to (n,)."""
    out = np.empty(len(chips))
    for start in range(0, len(chips), batch):
        missing = np.isnan(chips[start : start + batch]).reshape(len(chips[start : start + batch]), -1)
        out[start : start + batch] = 1 - np.count_nonzero(missing, axis=1) / missing.shape[1]
    return out


def _index(geometry: Any) -> Any:
    return getattr(geometry, "geometry", geometry).index


def _decide(
    reads: dict[str, _Reading],
    requests: dict[str, tuple[ChipSource, int]],
    geometry: Any,
    on_invalid: str,
    min_valid: float,
) -> NDArray[np.bool_] | None:
    """Which units to keep; None for all of them."""
    index = _index(geometry)
    keep = np.ones(len(index), dtype=bool)
    for key, reading in reads.items():
        low = reading.valid[reading.which] < min_valid
        keep &= ~low
        if not low.any() or on_invalid == "drop":
            continue
        source = requests[key][0]
        labels = ", ".join(str(label) for label in index[low][:5]) + (", ..." if low.sum() > 5 else "")
        what = (
            f"{low.sum()} of {len(index)} units have less than {min_valid:.0%} valid pixels in {source.name}: "
            f"{labels} (outside the raster, on nodata or masked)"
        )
        if on_invalid == "raise":
            raise ImageryError(
                what,
                todo='leave them out with on_invalid="drop", keep them with NaN with on_invalid="mask", lower '
                "min_valid, or check that the coordinates and the raster cover the same area",
            )
        none = int((reading.valid[reading.which] == 0).sum())
        warn(f"{what}; kept with NaN, {none} of them without a valid pixel", ImageryWarning)
    if keep.all():
        return None
    if on_invalid == "drop":
        if not keep.any():
            raise ImageryError(
                f"no unit has {min_valid:.0%} valid pixels",
                todo="check that the coordinates and the raster cover the same area and the nodata value",
            )
        labels = ", ".join(str(label) for label in index[~keep][:5]) + (", ..." if (~keep).sum() > 5 else "")
        warn(
            f"dropped {(~keep).sum()} of {len(index)} units with less than {min_valid:.0%} valid pixels: {labels}; "
            'their labels are in attrs["dropped"]',
            ImageryWarning,
        )
        return keep
    return None


def _assemble(
    source: ChipSource,
    px: int,
    reading: _Reading,
    keep: NDArray[np.bool_] | None,
    geometry: Any,
    where: tuple[NDArray[Any], NDArray[Any]],
) -> xarray.DataArray:
    kept = np.arange(len(reading.which)) if keep is None else np.flatnonzero(keep)
    which = reading.which[kept]
    dims = ("unit", "time", "band", "y", "x") if source.has_time else ("unit", "band", "y", "x")
    variable = xarray.Variable(dims, _units(reading.data, which, reading.sums))
    height, width = source.grid.pixel_size_m
    offsets = np.arange(px) - px // 2
    coords: dict[str, Any] = {
        "unit": ("unit", _index(geometry).to_flat_index()[kept].to_numpy()),
        "band": list(source.bands),
        "y": -offsets * height,
        "x": offsets * width,
        "valid_fraction": ("unit", reading.valid[which]),
        "lon": ("unit", where[0][kept]),
        "lat": ("unit", where[1][kept]),
    }
    if source.has_time:
        coords["time"] = np.array(source.days, dtype="datetime64[ns]")
    attrs = {
        "crs": f"EPSG:{code}" if (code := source.grid.crs.to_epsg()) else source.grid.crs_wkt,
        "size_m": px * source.resolution_m,
        "size_px": px,
        "resolution_m": source.resolution_m,
        "source": source.name,
    }
    if source.days and not source.has_time:
        attrs["date"] = source.days[0]
    return xarray.DataArray(variable, coords=coords, attrs=attrs, name="chips")


def _units(data: Any, which: IntArray, sums: Any = None) -> Any:
    """The chips of the units: as they are, indexed, or lazily."""
    if isinstance(data, _LazyChips):
        return indexing.LazilyIndexedArray(_LazyChips(data.imagery, data.row0[which], data.col0[which], data.size_px))
    if isinstance(data, np.memmap):
        return indexing.LazilyIndexedArray(_MappedChips(data, which, sums))
    return data if _identity(which, data) else data[which]


def _identity(which: IntArray, data: Any) -> bool:
    return len(which) == len(data) and bool((which == np.arange(len(which))).all())


class _LazyChips(BackendArray):
    """Chips that are read when they are indexed."""

    def __init__(self, imagery: ChipSource, row0: IntArray, col0: IntArray, size_px: int) -> None:
        self.imagery, self.row0, self.col0, self.size_px = imagery, row0, col0, size_px
        self.shape = (len(row0), *imagery.leading, size_px, size_px)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        units = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        row, col, which = _distinct(self.row0[units], self.col0[units])
        out = np.empty((len(row), *self.shape[1:]), dtype=np.float32)
        self.imagery.fill_windows(out, row, col)
        pixels = _outer(out if _identity(which, out) else out[which], key[1:], 1)
        return pixels[0] if np.ndim(key[0]) == 0 and not isinstance(key[0], slice) else pixels


class _MappedChips(BackendArray):
    """Chips in a memory-mapped file, which xarray would otherwise read at once."""

    def __init__(self, data: Any, which: IntArray, sums: Any) -> None:
        self._data, self._which, self._sums = data, which, sums
        self.shape, self.dtype = (len(which), *data.shape[1:]), data.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        units = self._which[key[0]]
        pixels = self._data[units]
        disk.check(pixels if np.ndim(units) else pixels[None], np.atleast_1d(self._sums[units]), self._data.filename)
        return np.array(_outer(pixels, key[1:], pixels.ndim - len(key) + 1))


def _outer(array: Any, key: tuple[Any, ...], first: int) -> Any:
    """Index the axes from ``first`` on, each for itself."""
    for axis, item in reversed(list(enumerate(key, first))):
        array = array[(*[slice(None)] * axis, item)]
    return array
