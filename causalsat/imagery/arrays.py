"""Imagery held in memory, or in a Zarr store, as xarray arrays."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from causalsat.core.names import list_names
from causalsat.core.warn import warn
from causalsat.exceptions import ImageryError, ImageryWarning
from causalsat.imagery.blocks import Block
from causalsat.imagery.dates import as_day, check_order
from causalsat.imagery.encoded import NOTHING, Stated, stated, stated_by_band, unsigned
from causalsat.imagery.files import is_remote
from causalsat.imagery.grid import Grid, make_grid
from causalsat.imagery.handles import new_operation, operation
from causalsat.imagery.layers import LayerImagery, by_day, per_band, resolve_gain, tell_of_classes
from causalsat.imagery.masks import MaskRule, mask_rule
from causalsat.imagery.raster import Bands, choose_bands, same_crs
from causalsat.imagery.zarr_store import open_store, store_stamp

if TYPE_CHECKING:
    import xarray

__all__ = ["ArrayImagery", "GriddedImagery", "ZarrImagery", "open_array", "open_zarr"]

_Y, _X = ("y", "latitude", "lat"), ("x", "longitude", "lon")
_OFF_PX = 0.1  # how far a coordinate may be off an even grid, in pixels: single precision leaves some hundredths
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
    mask_stated : Stated
        What the quality band states of its numbers.
    block_shape : tuple of int
        Rows and columns of the array's chunks; the whole array where it is in memory.
    band_stated : tuple of Stated, or None
        What each band states of its numbers, where ``nodata`` does not say what is invalid in all of them.
    """

    timed: bool = False
    band_positions: tuple[int, ...] = ()
    day_positions: tuple[int, ...] = ()
    mask: MaskRule | None = None
    mask_position: int = -1
    mask_stated: Stated = NOTHING
    block_shape: tuple[int, int] = (256, 256)
    band_stated: tuple[Stated, ...] | None = None

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
        chunk = self.array()[..., r0:r1, c0:c1]
        if self.timed and self.day_positions != tuple(range(chunk.sizes["time"])):
            chunk = chunk[list(self.day_positions)]
        invalid = None
        if self.mask is not None:
            quality = _values(chunk[..., self.mask_position, :, :], self.name)
            invalid = self.mask.flags(quality, self.mask_stated.invalid(quality))[..., None, :, :]
        if self.band_positions != tuple(range(chunk.sizes["band"])):
            chunk = chunk[..., list(self.band_positions), :, :]
        values = _values(chunk, self.name)
        if self.band_stated is not None:
            own = np.stack([s.invalid(values[..., k, :, :]) for k, s in enumerate(self.band_stated)], axis=-3)
            invalid = own if invalid is None else own | invalid
        return Block(values, invalid)

    def _select_days(self, positions: list[int]) -> Self:
        if not self.timed:
            return self
        return replace(
            self,
            days=tuple(self.days[i] for i in positions),
            day_positions=tuple(self.day_positions[i] for i in positions),
            **self._select_gain_days(positions),
        )

    def _select_bands(self, positions: list[int]) -> Self:
        chosen: dict[str, Any] = {
            "bands": tuple(self.bands[i] for i in positions),
            "band_positions": tuple(self.band_positions[i] for i in positions),
            "band_stated": None if self.band_stated is None else tuple(self.band_stated[i] for i in positions),
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
            "stated": [repr(self.band_stated), repr(self.mask_stated)],
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
    token: str = field(default="", compare=False)

    def array(self) -> xarray.DataArray:
        """The array."""
        return self.data  # type: ignore[no-any-return]

    def unstamped(self) -> tuple[str, ...]:
        """A lazy array: what it is computed from may change."""
        return (f"the lazy array {self.name}",) if self._is_lazy else ()

    @property
    def _is_lazy(self) -> bool:
        return hasattr(self.data.data, "dask")

    def fingerprint(self) -> dict[str, Any]:
        """Settings and a hash of the pixels; of a lazy array what tells it from those opened at another time."""
        if self._is_lazy:
            return {**self._settings(), "unknown": self.token}
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
    network : bool
        Whether the store may be read over the net.
    token : str
        Tells a store on the net from what was opened at another time.
    """

    path: str = ""
    variable: str | None = None
    given_crs: str | None = None
    network: bool = False
    token: str = field(default="", compare=False)

    def array(self) -> xarray.DataArray:
        """The array, opened once in each process, and again when a file of the store has changed."""
        key = (os.getpid(), self.path, self.variable, self.given_crs, self.network)
        with _LOCK:
            kept = _OPENED.get(key)
            if kept is not None and kept[0] != operation():
                kept = (operation(), *kept[1:]) if kept[1] == self.stamps() else None
            if kept is None:
                stamps = self.stamps()
                array, _, _ = _read_zarr(self.path, self.variable, self.given_crs, self.network)
                kept = (operation(), stamps, array)
            _OPENED[key] = kept
            return kept[2]  # type: ignore[no-any-return]

    def stamps(self) -> tuple[Any, ...]:
        """Path, and a digest of the modification times and sizes of all files of the store."""
        return () if is_remote(self.path) else ((self.path, *store_stamp(self.path)),)

    def unstamped(self) -> tuple[str, ...]:
        """The store, where it lies on the net."""
        return (self.path,) if is_remote(self.path) else ()

    def fingerprint(self) -> dict[str, Any]:
        """Settings, path, and what tells whether files of the store have changed."""
        new_operation()
        where = self.path if is_remote(self.path) else os.path.abspath(self.path)
        return {**self._settings(), "store": [where, self.variable, self.token, *self.stamps()]}


def open_array(
    source: Any,
    *,
    bands: Bands = None,
    dates: Any = None,
    crs: Any = None,
    nodata: float | None = None,
    scale: Any = None,
    offset: Any = None,
    mask: Any = None,
    name: str | None = None,
) -> ArrayImagery:
    """An :class:`ArrayImagery`; the parameters are those of :func:`causalsat.open_imagery`."""
    own_name = getattr(source, "name", None)
    label = name or (str(own_name) if own_name else "array")
    if hasattr(source, "data_vars"):
        names = _raster_variables(source)
        data, says, own_crs = _joined(source, names, label)
        _tell_of_others(source, names, label)
        if len(names) == 1 and "band" not in source[names[0]].dims:
            data = data.assign_coords(band=names)
    else:
        data, says, own_crs = canonical(unsigned(source), label), stated_by_band(source, label), _own_crs(source)
    described = describe(
        data, label, says, own_crs, bands=bands, dates=dates, crs=crs, nodata=nodata, scale=scale, offset=offset,
        mask=mask,
    )  # fmt: skip
    token = uuid.uuid4().hex if hasattr(data.data, "dask") else ""
    return ArrayImagery(name=label, data=data, token=token, **described)


def open_zarr(
    path: str | os.PathLike[str],
    *,
    variable: str | None = None,
    crs: Any = None,
    name: str | None = None,
    network: bool = False,
    bands: Bands = None,
    dates: Any = None,
    nodata: float | None = None,
    scale: Any = None,
    offset: Any = None,
    mask: Any = None,
) -> ZarrImagery:
    """A :class:`ZarrImagery`; the parameters are those of :func:`causalsat.open_imagery`."""
    new_operation()
    text = os.fspath(path)
    given = None if crs is None else str(crs)
    data, says, own_crs = _read_zarr(text, variable, given, network, tell=variable is None)
    described = describe(
        data, text, says, own_crs, bands=bands, dates=dates, crs=crs, nodata=nodata, scale=scale, offset=offset,
        mask=mask,
    )  # fmt: skip
    return ZarrImagery(
        name=name or Path(text).stem,
        path=text,
        variable=variable,
        given_crs=given,
        network=network,
        token=uuid.uuid4().hex if is_remote(text) else "",
        **described,
    )


def canonical(source: xarray.DataArray, label: str) -> xarray.DataArray:
    """The array with dimensions ([time,] band, y, x), north up.

    Raises
    ------
    ImageryError
        Dimensions that are not understood.
    """
    renames = {}
    for target, candidates in (("y", _Y), ("x", _X)):
        matching = [dim for dim in source.dims if str(dim).lower() in candidates]
        if len(matching) != 1:
            raise ImageryError(
                f"{label} has the dimensions {source.dims}",
                expected=f"one of {candidates} and others of time, band",
                todo='rename them: array.rename(rows="y", columns="x")',
            )
        if matching[0] != target:
            renames[matching[0]] = target
    data = source.drop_vars([new for new in renames.values() if new in source.coords]).rename(renames)
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
    if data.dtype.kind not in "biuf":
        raise ImageryError(f"{label} holds {data.dtype} pixels", expected="real numbers")
    data = data.transpose(*order)
    if "y" in data.coords and data.sizes["y"] > 1 and float(data.y[1] - data.y[0]) > 0:
        data = data.isel(y=slice(None, None, -1))
    return data


def describe(
    data: xarray.DataArray,
    label: str,
    says: Stated | Sequence[Stated],
    own_crs: Any,
    *,
    bands: Bands,
    dates: Any,
    crs: Any,
    nodata: float | None,
    scale: Any,
    offset: Any,
    mask: Any,
) -> dict[str, Any]:
    """The fields of :class:`GriddedImagery` for a canonical array.

    Parameters
    ----------
    data : xarray.DataArray
        Of dimensions ([time,] band, y, x).
    label : str
        What messages call it.
    says : Stated or sequence of Stated
        What it states of its numbers: of all of them, or of each band.
    own_crs : object or None
        Its own CRS.
    bands, dates, crs, nodata, scale, offset, mask
        As in :func:`causalsat.open_imagery`.
    """
    rule = mask_rule(mask)
    own = _band_names(data)
    mask_number = 0
    if rule is not None:
        if rule.replace is not None:
            raise ImageryError(f"{label}: mask replace= is for files", todo="put the quality band into the array")
        _, (mask_number,) = choose_bands(own, [rule.band], f"{label} (mask)")  # type: ignore[list-item]
    names, numbers = choose_bands(own, bands, label, hidden=[mask_number])
    each = [says] * len(own) if isinstance(says, Stated) else list(says)
    chosen = [each[i - 1] for i in numbers]
    tell_of_classes([name for name, one in zip(names, chosen, strict=True) if one.classes], label)
    if nodata is not None:
        chosen = [replace(one, nodata=(nodata,)) for one in chosen]
    days, order = _days(data, dates, label)
    times = len(days) if "time" in data.dims else None
    scale, offset = _by_time(scale, days, order, "scale"), _by_time(offset, days, order, "offset")
    gain = ([one.scale for one in chosen], [one.offset for one in chosen])
    scale, offset = resolve_gain(gain, scale, offset, label)
    same = len({(one.nodata, one.low, one.high) for one in chosen}) == 1 and chosen[0].simple
    return {
        "grid": _grid(data, label, own_crs, crs),
        "bands": names,
        "days": days,
        "timed": "time" in data.dims,
        "nodata": chosen[0].nodata[0] if same and chosen[0].nodata else None,
        "band_stated": None if same else tuple(chosen),
        "scale": per_band(scale, len(names), "scale", times),
        "offset": per_band(offset, len(names), "offset", times),
        "mask": rule,
        "mask_position": mask_number - 1,
        "mask_stated": each[mask_number - 1] if rule is not None else NOTHING,
        "band_positions": tuple(i - 1 for i in numbers),
        "day_positions": order if "time" in data.dims else (),
        "block_shape": _chunks(data),
    }


def _values(array: xarray.DataArray, label: str) -> Any:
    """The pixels, computed where they are lazy."""
    try:
        return np.asarray(array.data)
    except ImageryError:
        raise
    except Exception as error:  # of zarr, its codecs, fsspec, dask: each has its own errors
        raise ImageryError(
            f"{label}: its pixels cannot be read ({type(error).__name__}: {error})",
            expected="a complete store",
            todo="the store is probably damaged or being written: check it with xarray.open_zarr(path).load()",
        ) from error


def _by_time(value: Any, days: Sequence[str], order: Sequence[int], what: str) -> Any:
    """A scale or offset with its rows in the order of the days: rows are given in that of the array's times."""
    if isinstance(value, Mapping):
        return by_day(value, days, what)
    if isinstance(value, str) or np.ndim(value) != 2 or len(value) != len(order):
        return value
    return [value[i] for i in order]


def _rio(data: xarray.DataArray) -> Any:
    import rioxarray  # noqa: F401  (registers the accessor)

    return data.rio


def _own_crs(data: Any) -> Any:
    """The CRS that an array states, as a grid mapping or an attribute; None where it states none."""
    own = _rio(data).crs
    return own if own is not None else _attribute_crs(data)


def _grid(data: xarray.DataArray, label: str, own_crs: Any, crs: Any) -> Grid:
    if own_crs is not None and crs is not None:
        same_crs(own_crs, crs, label)
    for dim in ("y", "x"):
        if dim in data.coords and data.sizes[dim] > 1:
            values = np.asarray(data[dim], dtype=float)
            even = np.linspace(values[0], values[-1], len(values))
            step = abs(values[-1] - values[0]) / (len(values) - 1)
            if not np.abs(values - even).max() <= _OFF_PX * step:
                raise ImageryError(
                    f"{label}: the coordinate {dim} is not evenly spaced", todo="resample to a grid first"
                )
    has_coords = "y" in data.coords and "x" in data.coords
    if not has_coords and any(coord.ndim > 1 for coord in data.coords.values()):
        raise ImageryError(
            f"{label} has coordinates of two dimensions, such as those of a swath or of a model's own grid",
            expected="one coordinate for the rows and one for the columns",
            todo="resample to a grid first, for example with gdalwarp -geoloc or xarray.interp",
        )
    transform = _rio(data).transform(recalc=has_coords and min(data.sizes["y"], data.sizes["x"]) > 1)
    return make_grid(own_crs if own_crs is not None else crs, transform, (data.sizes["y"], data.sizes["x"]), label)


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


def _days(data: xarray.DataArray, dates: Any, label: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The days in their order, and the positions of their images in the array."""
    if "time" not in data.dims:
        if dates is None and "time" in data.coords and data["time"].dtype.kind in "MO":
            dates = data["time"].values[()]
        return (() if dates is None else (as_day(dates),)), ()
    if dates is None:
        if "time" not in data.coords:
            raise ImageryError(f"{label} has a time dimension without dates", todo="pass dates=, one for each time")
        units = str(data["time"].attrs.get("units", ""))
        if " since " in units and data["time"].dtype.kind in "iuf":
            raise ImageryError(
                f"{label}: the coordinate time counts {units} and is not decoded",
                expected="dates",
                todo="decode it, xarray.decode_cf(dataset), or pass dates=, one for each time",
            )
        dates = data["time"].values
    given = [as_day(value) for value in np.atleast_1d(np.asarray(dates))]
    if len(given) != data.sizes["time"]:
        raise ImageryError(
            f"{label}: {len(given)} dates for {data.sizes['time']} times", expected="one for each time"
        )
    order = tuple(sorted(range(len(given)), key=given.__getitem__))
    days = tuple(given[i] for i in order)
    check_order(days, label)
    return days, order


def _chunks(data: xarray.DataArray) -> tuple[int, int]:
    if data.chunks is not None:
        return (int(data.chunks[-2][0]), int(data.chunks[-1][0]))
    preferred = data.encoding.get("preferred_chunks") or {}
    if preferred:
        return (int(preferred.get("y", data.sizes["y"])), int(preferred.get("x", data.sizes["x"])))
    return (data.sizes["y"], data.sizes["x"])


def _read_zarr(
    path: str, variable: str | None, crs: Any, network: bool, *, tell: bool = False
) -> tuple[xarray.DataArray, Stated | tuple[Stated, ...], Any]:
    """The array of a store, canonical; what its bands state; its own CRS. Lazy where dask is installed."""
    store = open_store(path, network, variable)
    usable = sorted(_raster_variables(store))
    if variable is not None and variable not in usable:
        raise ImageryError(f"{path} has no variable {variable!r}", expected=f"one of {usable}")
    if not usable:
        raise ImageryError(
            f"{path} holds no array with rows and columns, but {sorted(map(str, store.data_vars))}",
            expected=f"a raster variable, with a dimension of {_Y} and one of {_X}",
        )
    if tell:
        _tell_of_others(store, usable, path)
    return _joined(store, [variable] if variable else usable, path)


def _raster_variables(store: Any) -> list[str]:
    """Names of a Dataset's variables that have rows and columns."""
    return [
        str(key)
        for key, item in store.data_vars.items()
        if all(any(str(dim).lower() in names for dim in item.dims) for names in (_Y, _X))
    ]


def _tell_of_others(store: Any, names: Sequence[str], label: str) -> None:
    """Warn of a Dataset's variables that are no bands, because they lack rows or columns.

    Nothing is said of what describes the others: grid mappings and bounds of coordinates.
    """
    bounds = {str({**item.attrs, **item.encoding}.get("bounds", "")) for item in store.variables.values()}
    described = ("grid_mapping_name", "crs_wkt", "spatial_ref")
    others = [
        f"{key} {item.dims}" if item.dims else str(key)
        for key, item in store.data_vars.items()
        if key not in names
        and str(key) not in bounds
        and not (item.ndim == 0 and any(name in item.attrs for name in described))
    ]
    if names and others:
        warn(
            f"{label}: variables without rows and columns are left out of the bands: {list_names(others, 6)}. Rows "
            f"have one of the names {', '.join(_Y)} and columns of {', '.join(_X)}: rename dimensions, or take what "
            "is meant, dataset[[...]]",
            ImageryWarning,
        )


def _joined(
    store: xarray.Dataset, names: Sequence[str], label: str
) -> tuple[xarray.DataArray, Stated | tuple[Stated, ...], Any]:
    """A Dataset's variables as the bands of one canonical array, with what each states of its numbers, and the CRS.

    Raises
    ------
    ImageryError
        Variables that are no bands of one image.
    """
    if not names:
        raise ImageryError(
            f"{label} holds no array with rows and columns, but {sorted(map(str, store.data_vars))}",
            expected=f"a raster variable, with a dimension of {_Y} and one of {_X}",
        )
    if len(names) > 1 and any("band" in store[key].dims for key in names):
        raise ImageryError(
            f"{label} has several variables: {list(names)}", todo="pass variable= with one of them (dataset[name])"
        )
    if len({frozenset(store[key].dims) for key in names}) > 1:
        shown = ", ".join(f"{key} {store[key].dims}" for key in names)
        raise ImageryError(
            f"{label} has variables of different dimensions: {shown}",
            expected="variables that are the bands of one image",
            todo="pass variable= with one of them, or a Dataset of those that belong together (dataset[[...]])",
        )
    found = {str(_own_crs(store[key])): _own_crs(store[key]) for key in names}
    found.pop("None", None)
    if len(found) > 1:
        raise ImageryError(f"{label} has variables of different CRSs: {sorted(found)}"[:400], todo="pass variable=")
    crs = next(iter(found.values()), None) or _store_crs(store)
    says = tuple(stated(store[key]) for key in names)
    single = [unsigned(store[key]) for key in names]
    if len(names) == 1:
        array, whole = single[0], stated_by_band(store[names[0]], label) if "band" in single[0].dims else says
    else:
        array, whole = store[list(names)].assign(dict(zip(names, single, strict=True))).to_dataarray("band"), says
    data = canonical(array, label)
    return (data if crs is None else data.rio.write_crs(crs)), whole, crs


def _store_crs(store: Any) -> Any:
    """The CRS of a store's grid mapping variable, wherever it is, or of its attributes."""
    for item in store.variables.values():
        for key in ("crs_wkt", "spatial_ref"):
            if item.ndim == 0 and item.attrs.get(key):
                return item.attrs[key]
    return _attribute_crs(store)
