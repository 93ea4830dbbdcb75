"""Imagery held in memory, or in a Zarr store, as an xarray DataArray."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from causalsat.exceptions import ImageryError, ImageryNotFoundError
from causalsat.imagery.blocks import Block
from causalsat.imagery.dates import as_day
from causalsat.imagery.grid import Grid, make_grid
from causalsat.imagery.layers import LayerImagery, per_band, tell_of_own_scale
from causalsat.imagery.masks import MaskRule, mask_rule
from causalsat.imagery.raster import Bands, choose_bands

if TYPE_CHECKING:
    import xarray

__all__ = ["ArrayImagery", "GriddedImagery", "ZarrImagery", "canonical", "describe", "open_array", "open_zarr"]

_Y, _X = ("y", "latitude", "lat"), ("x", "longitude", "lon")
_OPENED: dict[Any, Any] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GriddedImagery(LayerImagery):
    """What sources that are arrays of dimensions ([time,] band, y, x) share.

    Attributes
    ----------
    timed : bool
        Whether the array has a time dimension.
    band_positions, day_positions : tuple of int
        Which of the array's bands and times are used.
    mask : MaskRule or None
        Rule on a quality band.
    mask_position : int
        Its position among the array's bands.
    block_shape : tuple of int
        Rows and columns of the array's chunks; the whole array where it is in memory.
    """

    timed: bool = False
    band_positions: tuple[int, ...] = ()
    day_positions: tuple[int, ...] = ()
    mask: MaskRule | None = None
    mask_position: int = -1
    block_shape: tuple[int, int] = (256, 256)

    def array(self) -> xarray.DataArray:
        """The whole array, of dimensions ([time,] band, y, x), not yet selected."""
        raise NotImplementedError

    @property
    def has_time(self) -> bool:
        """Whether the array has a time dimension."""
        return self.timed

    @property
    def unit(self) -> tuple[int, int]:
        """The array's chunks."""
        return self.block_shape

    def load(self, r0: int, r1: int, c0: int, c1: int) -> Block:
        """Read rows r0..r1 and columns c0..c1; without copying where the array is in memory."""
        part = self.array()[..., r0:r1, c0:c1]
        if self.timed and self.day_positions != tuple(range(part.sizes["time"])):
            part = part[list(self.day_positions)]
        invalid = None
        if self.mask is not None:
            invalid = self.mask.flags(np.asarray(part[..., self.mask_position, :, :].data))[..., None, :, :]
        if self.band_positions != tuple(range(part.sizes["band"])):
            part = part[..., list(self.band_positions), :, :]
        return Block(np.asarray(part.data), invalid)

    def _select_days(self, positions: list[int]) -> Self:
        if not self.timed:
            return self
        return replace(
            self,
            days=tuple(self.days[i] for i in positions),
            day_positions=tuple(self.day_positions[i] for i in positions),
        )

    def _select_bands(self, positions: list[int]) -> Self:
        chosen: dict[str, Any] = {
            "bands": tuple(self.bands[i] for i in positions),
            "band_positions": tuple(self.band_positions[i] for i in positions),
        }
        return replace(self, **chosen, **self._select_gain(positions))

    def _settings(self) -> dict[str, Any]:
        return {
            "kind": type(self).__name__,
            "grid": [self.grid.crs_wkt, self.grid.affine, self.grid.shape],
            "days": self.days,
            "bands": self.bands,
            "positions": [self.band_positions, self.day_positions, self.mask_position],
            "values": [str(self.nodata), self.scale, self.offset, repr(self.mask)],
        }


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ArrayImagery(GriddedImagery):
    """An array in memory (or a lazy dask array). Use :func:`causalsat.open_imagery` to make one.

    Attributes
    ----------
    data : xarray.DataArray
        Of dimensions ([time,] band, y, x), north up.
    """

    data: Any = None

    def array(self) -> xarray.DataArray:
        """The array."""
        return self.data  # type: ignore[no-any-return]

    def fingerprint(self) -> dict[str, Any]:
        """Settings and a hash of the pixels."""
        if hasattr(self.data.data, "dask"):
            from dask.base import tokenize

            return {**self._settings(), "data": tokenize(self.data.data)}
        return {**self._settings(), "data": hashlib.sha256(np.ascontiguousarray(self.data.data).data).hexdigest()}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ZarrImagery(GriddedImagery):
    """A Zarr store (extra ``zarr``). Use :func:`causalsat.open_imagery` to make one.

    Attributes
    ----------
    path : str
        The store.
    variable : str or None
        The array's name; None: the only one, or all variables as bands, sorted by name.
    given_crs : str or None
        CRS given where the store has none.
    """

    path: str = ""
    variable: str | None = None
    given_crs: str | None = None

    def array(self) -> xarray.DataArray:
        """The array, opened once in each process."""
        key = (os.getpid(), self.path, self.variable, self.given_crs, _newest(self.path))
        with _LOCK:
            if key not in _OPENED:
                _OPENED[key] = _read_zarr(self.path, self.variable, self.given_crs)
            return _OPENED[key]  # type: ignore[no-any-return]

    def stamps(self) -> tuple[Any, ...]:
        """Path and newest modification time."""
        return ((self.path, _newest(self.path)),)

    def fingerprint(self) -> dict[str, Any]:
        """Settings, path and newest modification time."""
        where = os.path.abspath(self.path) if "://" not in self.path else self.path
        return {**self._settings(), "store": [where, self.variable, _newest(self.path)]}


def open_array(
    source: xarray.DataArray,
    *,
    bands: Bands = None,
    dates: Any = None,
    crs: Any = None,
    nodata: float | None = None,
    scale: Any = 1.0,
    offset: Any = 0.0,
    mask: Any = None,
    name: str | None = None,
) -> ArrayImagery:
    """An :class:`ArrayImagery`; the parameters are those of :func:`causalsat.open_imagery`."""
    label = name or (str(source.name) if source.name else "array")
    data = canonical(source, label)
    described = describe(data, label, bands, dates, crs, nodata, scale, offset, mask)
    return ArrayImagery(name=label, data=data, **described)


def open_zarr(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    crs: Any = None,
    name: str | None = None,
    **options: Any,
) -> ZarrImagery:
    """A :class:`ZarrImagery`; the parameters are those of :func:`causalsat.open_imagery`."""
    text = os.fspath(path)
    label = name or Path(text).stem
    data = _read_zarr(text, variable, crs)
    keys = ("bands", "dates", "nodata", "scale", "offset", "mask")
    settings = {"scale": 1.0, "offset": 0.0, **{key: options[key] for key in keys if key in options}}
    described = describe(
        data, text, settings.get("bands"), settings.get("dates"), crs, settings.get("nodata"),
        settings["scale"], settings["offset"], settings.get("mask"),
    )  # fmt: skip
    given = None if crs is None else str(crs)
    return ZarrImagery(name=label, path=text, variable=variable, given_crs=given, **described)


def canonical(source: xarray.DataArray, label: str) -> xarray.DataArray:
    """The array with dimensions ([time,] band, y, x), north up.

    Raises
    ------
    ImageryError
        Dimensions that are not understood, or irregular coordinates.
    """
    renames = {}
    for target, candidates in (("y", _Y), ("x", _X)):
        found = [dim for dim in source.dims if str(dim).lower() in candidates]
        if len(found) != 1:
            raise ImageryError(
                f"{label} has the dimensions {source.dims}",
                expected=f"one of {candidates} and others of time, band",
                todo='rename them: array.rename(rows="y", columns="x")',
            )
        if found[0] != target:
            renames[found[0]] = target
    data = source.rename(renames)
    if "band" not in data.dims:
        data = data.drop_vars("band", errors="ignore").expand_dims("band")
    order = [dim for dim in ("time", "band", "y", "x") if dim in data.dims]
    unknown = [str(dim) for dim in data.dims if dim not in order]
    if unknown:
        raise ImageryError(
            f"{label} has the dimension {unknown[0]!r}",
            expected="no dimensions but time, band, y and x",
            todo=f"select from it: array.isel({unknown[0]}=0)",
        )
    data = data.transpose(*order)
    if "y" in data.coords and data.sizes["y"] > 1 and float(data.y[1] - data.y[0]) > 0:
        data = data.isel(y=slice(None, None, -1))
    return data


def describe(
    data: xarray.DataArray,
    label: str,
    bands: Bands,
    dates: Any,
    crs: Any,
    nodata: Any,
    scale: Any,
    offset: Any,
    mask: Any,
) -> dict[str, Any]:
    """The fields of :class:`GriddedImagery` for a canonical array."""
    rule = mask_rule(mask)
    own = _band_names(data)
    mask_number = 0
    if rule is not None:
        if rule.replace is not None:
            raise ImageryError(f"{label}: mask replace= is for files", todo="put the quality band into the array")
        _, (mask_number,) = choose_bands(own, [rule.band], f"{label} (mask)")  # type: ignore[list-item]
    names, numbers = choose_bands(own, bands, label, hidden=[mask_number])
    days = _days(data, dates, label)
    factors = (np.atleast_1d(data.attrs.get(key, none)) for key, none in (("scale_factor", 1.0), ("add_offset", 0.0)))
    tell_of_own_scale(tuple(np.broadcast_arrays(*factors)), scale, offset)  # type: ignore[arg-type]
    if nodata is None:
        nodata = data.rio.nodata if _rio(data).nodata is not None else data.rio.encoded_nodata
    return {
        "grid": _grid(data, label, crs),
        "bands": names,
        "days": days,
        "timed": "time" in data.dims,
        "nodata": None if nodata is None else float(nodata),
        "scale": per_band(scale, len(names), "scale"),
        "offset": per_band(offset, len(names), "offset"),
        "mask": rule,
        "mask_position": mask_number - 1,
        "band_positions": tuple(i - 1 for i in numbers),
        "day_positions": tuple(range(len(days))) if "time" in data.dims else (),
        "block_shape": _chunks(data),
    }


def _rio(data: xarray.DataArray) -> Any:
    import rioxarray  # noqa: F401  (registers the accessor)

    return data.rio


def _grid(data: xarray.DataArray, label: str, crs: Any) -> Grid:
    rio = _rio(data)
    own = rio.crs if rio.crs is not None else _attribute_crs(data)
    for dim in ("y", "x"):
        if dim in data.coords and data.sizes[dim] > 1:
            steps = np.diff(np.asarray(data[dim], dtype=float))
            if not np.allclose(steps, steps[0], rtol=1e-3):
                raise ImageryError(
                    f"{label}: the coordinate {dim} is not evenly spaced", todo="resample to a grid first"
                )
    has_coords = "y" in data.coords and "x" in data.coords
    transform = rio.transform(recalc=has_coords and min(data.sizes["y"], data.sizes["x"]) > 1)
    return make_grid(own if own is not None else crs, transform, (data.sizes["y"], data.sizes["x"]), label)


def _attribute_crs(data: Any) -> Any:
    for key in ("crs", "crs_wkt", "proj:code", "proj:epsg"):
        if data.attrs.get(key):
            return f"EPSG:{data.attrs[key]}" if key == "proj:epsg" else data.attrs[key]
    return None


def _band_names(data: xarray.DataArray) -> list[str | None]:
    if "band" in data.coords and data["band"].dtype.kind in "UOT":
        return [str(value) for value in data["band"].values]
    long_name = data.attrs.get("long_name")
    if isinstance(long_name, tuple | list) and len(long_name) == data.sizes["band"]:
        return [str(value) for value in long_name]
    if isinstance(long_name, str) and data.sizes["band"] == 1:
        return [long_name]
    return [None] * data.sizes["band"]


def _days(data: xarray.DataArray, dates: Any, label: str) -> tuple[str, ...]:
    if "time" not in data.dims:
        if dates is None and "time" in data.coords and data["time"].dtype.kind == "M":
            dates = data["time"].values
        return () if dates is None else (as_day(dates),)
    if dates is None:
        if "time" not in data.coords:
            raise ImageryError(f"{label} has a time dimension without dates", todo="pass dates=, one for each time")
        dates = data["time"].values
    given = tuple(as_day(value) for value in np.atleast_1d(np.asarray(dates)))
    if len(given) != data.sizes["time"]:
        raise ImageryError(
            f"{label}: {len(given)} dates for {data.sizes['time']} times", expected="one for each time"
        )
    return given


def _chunks(data: xarray.DataArray) -> tuple[int, int]:
    if data.chunks is not None:
        return (int(data.chunks[-2][0]), int(data.chunks[-1][0]))
    preferred = data.encoding.get("preferred_chunks") or {}
    if preferred:
        return (int(preferred.get("y", data.sizes["y"])), int(preferred.get("x", data.sizes["x"])))
    return (data.sizes["y"], data.sizes["x"])


def _newest(path: str) -> int:
    return max((file.stat().st_mtime_ns for file in Path(path).rglob("zarr.json")), default=0)


def _read_zarr(path: str, variable: str | None, crs: Any) -> xarray.DataArray:
    """The array of a store, canonical; lazy where dask is installed, otherwise perhaps read at once."""
    import xarray

    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise ImageryError(
            f"{path} is a Zarr store and zarr is not installed", todo="pip install causalsat[zarr]"
        ) from error
    if "://" not in path and not os.path.exists(path):
        raise ImageryNotFoundError(f"no such Zarr store: {path}", todo="check the path")
    try:
        store = xarray.open_zarr(
            path, chunks={} if find_spec("dask") else None, decode_coords="all", mask_and_scale=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ImageryError(f"{path} cannot be read as a Zarr store ({error})", todo="check the store") from error
    usable = sorted(str(key) for key, item in store.data_vars.items() if item.ndim >= 2)
    if variable is not None and variable not in usable:
        raise ImageryError(f"{path} has no variable {variable!r}", expected=f"one of {usable}")
    if not usable:
        raise ImageryError(f"{path} holds no array of two or more dimensions", expected="a raster variable")
    if variable is None and len(usable) > 1 and any("band" in store[key].dims for key in usable):
        raise ImageryError(f"{path} has several variables: {usable}", todo="pass variable= with one of them")
    chosen = variable or (usable[0] if len(usable) == 1 else None)
    array = store[chosen] if chosen else store[usable].to_dataarray("band")
    found = _rio(array).crs or _store_crs(store) or crs
    return canonical(array if found is None else array.rio.write_crs(found), path)


def _store_crs(store: Any) -> Any:
    """The CRS of a store's grid mapping variable, wherever it is, or of its attributes."""
    for item in store.variables.values():
        for key in ("crs_wkt", "spatial_ref"):
            if item.ndim == 0 and item.attrs.get(key):
                return item.attrs[key]
    return _attribute_crs(store)
