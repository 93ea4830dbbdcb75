"""One raster file: GeoTIFF, COG, VRT or whatever else GDAL reads."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from causalsat.core.warn import warn
from causalsat.exceptions import ImageryError, ImageryWarning, ParameterError
from causalsat.imagery.blocks import Block, is_nodata, nodata_bounds, read_unit
from causalsat.imagery.dates import as_day
from causalsat.imagery.encoded import FLAGS
from causalsat.imagery.files import sibling
from causalsat.imagery.grid import Grid, make_grid, same_affine
from causalsat.imagery.handles import OpenFile, dataset, new_operation, opened, readable, stamps_of, unstamped_of
from causalsat.imagery.layers import LayerImagery, check_unique, per_band, resolve_gain, tell_of_classes
from causalsat.imagery.masks import MaskRule, mask_rule

__all__ = ["Bands", "RasterImagery", "check_companion", "choose_bands", "hidden_bands", "open_raster", "same_crs"]

MAX_DECODED = 1 << 30  # bytes decoded at a time, at most: guards memory against damaged headers

# nodata values for which GDAL's comparison overflows for some pixels that are not near it, by bytes of a float
_ODD_FLOATS = {2: (0.0, 0.0), 4: (1e31, 1.8e38), 8: (1e291, 9e307)}

Bands = Sequence[str | int] | Mapping[str, str | int] | str | None


@dataclass(frozen=True, kw_only=True, repr=False)
class RasterImagery(LayerImagery):
    """A raster file. Use :func:`causalsat.open_imagery` to make one.

    Attributes
    ----------
    path : str
        The file.
    indexes : tuple of int
        Number (from 1) of each band in the file.
    block_shape : tuple of int
        Rows and columns of the file's blocks.
    dtype : str
        Data type in the file; where bands differ, the smallest that holds all of them.
    band_nodata : tuple of (float or None), or None
        Nodata value of each band, where they differ.
    gdal_masks : tuple of bool, or None
        Whether GDAL's mask of each band is read; None: as the file's flags say when it is read.
    validity : tuple of str, or None
        Mask flags and nodata value of each band when the file was opened; None: not looked at.
    mask : MaskRule or None
        Rule on a quality band.
    mask_path : str
        File of the quality band.
    mask_index : int
        Its number in that file; 0 without a rule.
    network : bool
        Whether the file, or one that it names, may be fetched over the net.
    token : str
        Tells what cannot be looked at apart from what was opened at another time.
    """

    path: str = ""
    indexes: tuple[int, ...] = ()
    block_shape: tuple[int, int] = (256, 256)
    dtype: str = "uint8"
    band_nodata: tuple[float | None, ...] | None = None
    gdal_masks: tuple[bool, ...] | None = None
    validity: tuple[str, ...] | None = None
    mask: MaskRule | None = None
    mask_path: str = ""
    mask_index: int = 0
    network: bool = False
    token: str = field(default="", compare=False)

    def load(self, r0: int, r1: int, c0: int, c1: int) -> Block:
        """Decode rows r0..r1 and columns c0..c1."""
        window = Window(c0, r0, c1 - c0, r1 - r0)
        file = opened(self.path, self.network)
        source = file.handle
        if (
            source.shape != self.shape
            or source.count < max(self.indexes)
            or not same_affine(self.grid.affine, file.affine, self.shape)
        ):
            raise ImageryError(
                f"{self.path} is another raster than when it was opened: {source.count} bands of {source.shape}, "
                f"transform {file.affine}",
                expected=f"the bands {list(self.indexes)} of {self.shape}, transform {self.grid.affine}",
                todo="open it again",
            )
        if self.validity is not None and self.validity != tuple(file.validity[i - 1] for i in self.indexes):
            raise ImageryError(
                f"the masks or nodata values of {self.path} are others than when it was opened", todo="open it again"
            )
        with file.reading(), readable(self.path):
            values = _read(source, self.indexes, window, self.dtype)
            invalid = self._mask(file, window)
        if self.band_nodata is not None:
            for k, nodata in enumerate(self.band_nodata):
                bounds = None if nodata is None else nodata_bounds(nodata, values.dtype)
                if bounds is not None:
                    invalid = np.zeros(values.shape, dtype=bool) if invalid is None else _whole(invalid, values)
                    invalid[k] |= is_nodata(values[k], bounds)
        if self.mask is not None:
            invalid = _either(invalid, self._quality(window)[None])
        return Block(values, invalid)

    def _mask(self, file: OpenFile, window: Any) -> NDArray[np.bool_] | None:
        """What GDAL's masks rule out, broadcasting to (band, rows, columns); None where none is read."""
        masked = self.gdal_masks or tuple(needs_mask(file, i) for i in self.indexes)
        numbers = [i for i, read in zip(self.indexes, masked, strict=True) if read]
        if not numbers:
            return None
        if all(MaskFlags.per_dataset in file.flags[i - 1] for i in numbers):  # one mask for all of them
            one = file.handle.read_masks(numbers[0], window=window)[None] == 0
            return one if all(masked) else one & np.array(masked)[:, None, None]
        read = file.handle.read_masks(numbers, window=window) == 0
        if all(masked):
            return read  # type: ignore[no-any-return]
        invalid = np.zeros((len(masked), *read.shape[1:]), dtype=bool)
        invalid[list(masked)] = read
        return invalid

    def _quality(self, window: Any) -> NDArray[np.bool_]:
        """What the quality band rules out, and where it is invalid itself."""
        assert self.mask is not None
        file = opened(self.mask_path, self.network)
        with file.reading(), readable(self.mask_path):
            quality = file.handle.read(self.mask_index, window=window)
            unknown = file.handle.read_masks(self.mask_index, window=window) == 0
        return self.mask.flags(quality, unknown)

    def stamps(self) -> tuple[Any, ...]:
        """State of every file that decides the pixels: the image's, its sources', masks' and archives'."""
        return tuple((file, *stamp) for path in self._paths() for file, stamp in stamps_of(path, self.network))

    def unstamped(self) -> tuple[str, ...]:
        """What decides the pixels and cannot be looked at, such as files on the net."""
        return tuple(name for path in self._paths() for name in unstamped_of(path, self.network))

    def fingerprint(self) -> dict[str, Any]:
        """Settings, and modification time, size and inode of every file that decides the pixels."""
        new_operation()
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        for not_what in ("path", "mask_path", "name", "network", "token"):
            settings.pop(not_what)
        settings |= {"grid": asdict(self.grid), "mask": repr(self.mask)}
        unknown = [[*self.unstamped(), self.token]] if self.token else []
        return {"kind": type(self).__name__, **settings, "files": sorted(set(self.stamps())), "unknown": unknown}

    def _paths(self) -> list[str]:
        return sorted({path for path in (self.path, self.mask_path) if path})

    def _select_bands(self, positions: list[int]) -> Self:
        chosen: dict[str, Any] = {
            "bands": tuple(self.bands[i] for i in positions),
            "indexes": tuple(self.indexes[i] for i in positions),
            "band_nodata": None if self.band_nodata is None else tuple(self.band_nodata[i] for i in positions),
            "gdal_masks": None if self.gdal_masks is None else tuple(self.gdal_masks[i] for i in positions),
            "validity": None if self.validity is None else tuple(self.validity[i] for i in positions),
        }
        return replace(self, **chosen, **self._select_gain(positions))


def _read(source: Any, indexes: tuple[int, ...], window: Any, dtype: str) -> NDArray[Any]:
    """Bands of a window; one by one where their data types differ, which GDAL does not read together."""
    kinds = source.dtypes  # asked once: a file's properties are made anew for all of its bands each time
    if len({kinds[i - 1] for i in indexes}) == 1:
        return source.read(list(indexes), window=window)  # type: ignore[no-any-return]
    return np.stack([source.read(i, window=window).astype(dtype) for i in indexes])


def _either(first: NDArray[np.bool_] | None, second: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return second if first is None else first | second


def _whole(invalid: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[np.bool_]:
    """The mask of the shape of the values, to be written to."""
    return invalid if invalid.shape == values.shape else np.broadcast_to(invalid, values.shape).copy()


def needs_mask(file: OpenFile, index: int, nodata_given: bool = False) -> bool:
    """Whether GDAL's mask of a band has to be read, because comparing with its nodata value would not give the same.

    Parameters
    ----------
    file : OpenFile
    index : int
        Number of the band, from 1.
    nodata_given : bool
        Whether the user gave a nodata value instead of the file's.
    """
    flags = file.flags[index - 1]
    if flags == {MaskFlags.all_valid}:
        return False
    if flags != {MaskFlags.nodata}:
        return True
    return not nodata_given and own_nodata(file, index) is None


def own_nodata(file: OpenFile, index: int) -> float | None:
    """Nodata value of a band where it alone decides what is invalid and can be compared with; else None."""
    if file.flags[index - 1] != {MaskFlags.nodata}:
        return None
    value, dtype = file.nodata[index - 1], np.dtype(file.kinds[index - 1])
    if value is None:
        return None
    if dtype.kind in "iu" and (dtype.itemsize > 4 or nodata_bounds(float(value), dtype) is None):
        return None  # of 64 bits: rasterio's value is a double
    if dtype.kind == "f" and _ODD_FLOATS[dtype.itemsize][0] < abs(value) < _ODD_FLOATS[dtype.itemsize][1]:
        return None
    return float(value)


def open_raster(
    path: str | os.PathLike[str],
    *,
    bands: Bands = None,
    date: Any = None,
    crs: Any = None,
    nodata: float | None = None,
    scale: Any = None,
    offset: Any = None,
    mask: Any = None,
    name: str | None = None,
    network: bool = False,
) -> RasterImagery:
    """A :class:`RasterImagery`; the parameters are those of :func:`causalsat.open_imagery`."""
    new_operation()
    text = os.fspath(path)
    label = name or Path(text).stem
    file = opened(text, network)
    source = file.handle
    _check_raster(source, text)
    _check_georeference(source, text)
    if crs is not None and source.crs is not None:
        same_crs(source.crs, crs, text)
    rule = mask_rule(mask)
    grid = make_grid(source.crs or crs, source.transform, source.shape, text)
    mask_path, mask_index = _find_mask(rule, grid, source, text, network)
    names, indexes = choose_bands(
        source.descriptions, bands, text, hidden=hidden_bands(source, mask_index if mask_path == text else 0)
    )
    if bands is None or len(indexes) > 1:
        _check_times(source, text)
    _check_nodata(nodata, [file.kinds[i - 1] for i in indexes], text)
    _check_unit(source, indexes, text)
    _check_sign(source, indexes, text)
    _tell_of_palette(source, indexes, names)
    scale, offset = resolve_gain(own_gain(source, indexes), scale, offset, text)
    stated = [own_nodata(file, i) for i in indexes] if nodata is None else [nodata] * len(indexes)
    same = len({str(v) for v in stated}) == 1
    unstamped = unstamped_of(text, network) + (unstamped_of(mask_path, network) if mask_path else ())
    return RasterImagery(
        grid=grid,
        bands=names,
        days=() if date is None else (as_day(date),),
        name=label,
        nodata=stated[0] if same else None,
        scale=per_band(scale, len(names), "scale"),
        offset=per_band(offset, len(names), "offset"),
        path=text,
        indexes=indexes,
        block_shape=tuple(source.block_shapes[0]),
        dtype=str(np.result_type(*{file.kinds[i - 1] for i in indexes})),
        band_nodata=None if same else tuple(stated),
        gdal_masks=tuple(needs_mask(file, i, nodata is not None) for i in indexes),
        validity=tuple(file.validity[i - 1] for i in indexes),
        mask=rule,
        mask_path=mask_path,
        mask_index=mask_index,
        network=network,
        token=uuid.uuid4().hex if unstamped else "",
    )


def own_gain(source: Any, indexes: Sequence[int]) -> tuple[list[float], list[float]]:
    """Scales and offsets that a file states for its bands."""
    scales, offsets = ([values[i - 1] for i in indexes] for values in (source.scales, source.offsets))
    return scales, offsets


def choose_bands(
    described: Sequence[str | None], bands: Bands, what: str, hidden: Sequence[int] = ()
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and numbers (from 1) of the wanted bands.

    Parameters
    ----------
    described : sequence of (str or None)
        Names in the source.
    bands : sequence, mapping, str or None
        Names or numbers to select; a mapping from new names to names or numbers; where the source names none of its
        bands and there is one for each, names to give them; None: all but the hidden ones.
    what : str
        The source in messages.
    hidden : sequence of int
        Numbers of bands left out by default (alpha and quality bands).

    Raises
    ------
    ImageryError
        A band that is not there, with those that are.

    Examples
    --------
    >>> choose_bands(["red", "nir", "SCL"], None, "x.tif", hidden=[3])
    (('red', 'nir'), (1, 2))
    >>> choose_bands([None, None], ["red", "nir"], "x.tif"), choose_bands([None] * 7, {"nir": 4}, "x.tif")
    ((('red', 'nir'), (1, 2)), (('nir',), (4,)))
    """
    own = [text or f"band_{i}" for i, text in enumerate(described, 1)]
    if bands is None:
        indexes = [i for i in range(1, len(own) + 1) if i not in hidden]
        names = [own[i - 1] for i in indexes]
    elif isinstance(bands, Mapping):
        names, indexes = [str(key) for key in bands], [_number(v, own, what) for v in bands.values()]
    else:
        wanted = [bands] if isinstance(bands, str) else list(bands)
        visible = [i for i in range(1, len(own) + 1) if i not in hidden]
        unnamed = not any(described) and all(isinstance(v, str) for v in wanted)
        if unnamed and len(wanted) == len(visible) and not set(wanted) & set(own):
            names, indexes = [str(v) for v in wanted], visible
        else:
            indexes = [_number(v, own, what) for v in wanted]
            names = [own[i - 1] for i in indexes]
    if not names:
        raise ImageryError(f"{what}: no band is left", expected=f"at least one of {own}")
    check_unique(names, what)
    return tuple(names), tuple(indexes)


def _number(value: Any, own: list[str], what: str) -> int:
    if isinstance(value, str):
        if own.count(value) > 1:
            numbers = [i for i, name in enumerate(own, 1) if name == value]
            raise ImageryError(
                f"{what} has {len(numbers)} bands named {value!r}",
                expected="a name that one band has",
                todo=f"choose by number: bands={{{value!r}: {numbers[0]}}}, one of {numbers}",
            )
        if value in own:
            return own.index(value) + 1
    elif 1 <= int(value) <= len(own):
        return int(value)
    raise ImageryError(
        f"{what} has no band {value!r}",
        expected=f"one of {own} or a number from 1 to {len(own)}",
        todo='to name bands, pass a mapping to their numbers: bands={"red": 1, "nir": 2}',
    )


def _check_raster(source: Any, file: str) -> None:
    if source.count == 0:
        inside = ", ".join(source.subdatasets[:8]) or "none"
        raise ImageryError(
            f"{file} holds no band of its own; subdatasets: {inside}",
            todo=f"open one of them by its name: open_imagery({source.subdatasets[0]!r})"
            if source.subdatasets
            else "check with gdalinfo what it holds",
        )
    kinds = sorted(set(source.dtypes))
    if any(kind.startswith("complex") for kind in kinds):
        raise ImageryError(
            f"{file} holds {kinds[0]} pixels", expected="real numbers", todo="write amplitudes instead"
        )


def _check_georeference(source: Any, file: str) -> None:
    """Refuse a raster that is placed by ground control points or a sensor's model only, which no grid is."""
    if not source.transform.is_identity:
        return
    points, _ = source.gcps
    placed = f"{len(points)} ground control points" if points else "a sensor's model (RPC)" if source.rpcs else ""
    if placed:
        method = "-tps " if len(points) > 6 else "" if points else "-rpc "
        raise ImageryError(
            f"{file} is placed by {placed} only and has no grid of its own",
            expected="a north-up grid",
            todo=f"warp it to one: gdalwarp {method}-t_srs EPSG:... in.tif out.tif, with the UTM zone of the place",
        )


def _check_times(source: Any, file: str) -> None:
    """Refuse a subdataset whose bands are images of several times, which GDAL does not date."""
    tags = source.tags()
    for dim in re.findall(r"[^{},]+", tags.get("NETCDF_DIM_EXTRA", "")):
        times = re.match(r"\{(\d+)", tags.get(f"NETCDF_DIM_{dim}_DEF", ""))
        dated = dim.lower() in ("time", "t") or " since " in tags.get(f"{dim}#units", "")
        if dated and times and int(times.group(1)) > 1:
            raise ImageryError(
                f"the bands of {file} are {times.group(1)} times of the dimension {dim!r}",
                expected="one image of one date",
                todo="open it with its dates, open_imagery(xarray.open_dataset(path)), or take one band: bands=[1]",
            )


def _check_nodata(nodata: float | None, kinds: Sequence[str], file: str) -> None:
    """Refuse a given nodata value that no pixel of any band can have."""
    types = [np.dtype(kind) for kind in kinds]
    if nodata is None or np.isnan(nodata) or any(dtype.kind not in "iu" for dtype in types):
        return
    if all(nodata_bounds(nodata, dtype) is None for dtype in types):
        raise ParameterError(
            f"nodata={nodata!r} for {file}",
            expected=f"a value that pixels of type {kinds[0]} can have",
            todo="check nodata=, or leave it out",
        )


def _check_unit(source: Any, indexes: Sequence[int], file: str) -> None:
    """Refuse blocks that do not fit in memory."""
    rows, cols = read_unit(source.block_shapes[0], source.shape)
    kinds = source.dtypes
    size = max(np.dtype(kinds[i - 1]).itemsize for i in indexes)
    together = source.count if str(source.interleaving).lower().endswith("pixel") else 1
    most = max(rows * cols * len(indexes), np.prod(source.block_shapes[0], dtype=float) * together) * size
    if most > MAX_DECODED:
        raise ImageryError(
            f"{file} has blocks of {source.block_shapes[0]} pixels: {most / 2**30:.1f} GiB are decoded at a time",
            expected=f"at most {MAX_DECODED >> 30} GiB",
            todo="if it is not damaged, rewrite it (gdal_translate -of COG in.tif out.tif) or read fewer bands=",
        )


def _check_sign(source: Any, indexes: Sequence[int], file: str) -> None:
    """Refuse bands whose attribute ``_Unsigned`` says that their bits are of another type than GDAL reads."""
    kinds = source.dtypes
    for i in indexes:
        says = source.tags(i).get("_Unsigned", "").lower()
        if (says, np.dtype(kinds[i - 1]).kind) in (("true", "i"), ("false", "u")):
            raise ImageryError(
                f'{file} states _Unsigned="{says}" for band {i}, which is read as {kinds[i - 1]}',
                expected="numbers of the type that they are read as",
                todo="open it with xarray, which turns them: open_imagery(xarray.open_dataset(path)[name])",
            )


def same_crs(own: Any, given: Any, name: str) -> None:
    """Refuse a CRS that is given beside another that the source states.

    Raises
    ------
    ImageryError
    """
    try:
        wanted = CRS.from_user_input(given)
    except CRSError:  # named where the grid is made
        return
    if CRS.from_user_input(own.to_wkt() if hasattr(own, "to_wkt") else own) != wanted:
        shown = own.to_string() if hasattr(own, "to_string") else str(own)
        raise ImageryError(
            f"{name} says that its CRS is {shown[:200]}, but crs={given!r} was given",
            todo="leave crs= out, or correct the file with gdal_edit -a_srs (an array with rio.write_crs)",
        )


def _tell_of_palette(source: Any, indexes: Sequence[int], names: Sequence[str]) -> None:
    """Warn of bands whose numbers are entries of a colour table: classes or colours, not amounts."""
    colours = source.colorinterp
    coloured = [name for i, name in zip(indexes, names, strict=True) if colours[i - 1] == ColorInterp.palette]
    if coloured:
        warn(
            f"the numbers of {', '.join(coloured)} are entries of a colour table: classes or colours and no amounts, "
            "whose means and differences say nothing. Expand colours with gdal_translate -expand rgb; take "
            "the shares of classes with describe_effects(land_cover=)",
            ImageryWarning,
        )
    coded = {name for i, name in zip(indexes, names, strict=True) if any(key in source.tags(i) for key in FLAGS)}
    tell_of_classes([name for name in names if name in coded.difference(coloured)], source.name)


def hidden_bands(source: Any, mask_index: int = 0) -> list[int]:
    """Numbers of the bands that are left out by default: alpha and the quality band."""
    alpha = [i for i, kind in enumerate(source.colorinterp, 1) if kind == ColorInterp.alpha]
    return [*alpha, mask_index]


def _find_mask(rule: MaskRule | None, grid: Grid, source: Any, file: str, network: bool) -> tuple[str, int]:
    """Path and band number of the quality band."""
    if rule is None:
        return "", 0
    path, holder = file, source
    if rule.replace is not None:
        path = sibling(file, rule.replace)
        if path == file:
            raise ImageryError(
                f"mask replace={rule.replace} changes nothing in {file}", todo="name a text that the path contains"
            )
        holder = dataset(path, network)
        check_companion(path, holder, grid, "the mask file", "the image")
    own = [text or f"band_{i}" for i, text in enumerate(holder.descriptions, 1)]
    return path, 1 if rule.band is None else _number(rule.band, own, f"the mask's file {path}")


def check_companion(path: str, holder: Any, grid: Grid, what: str, beside: str) -> None:
    """Refuse a file that is read pixel by pixel beside another and lies on another grid.

    Raises
    ------
    ImageryError
    """
    own = make_grid(holder.crs or grid.crs, holder.transform, holder.shape, path)
    difference = grid.same_as(own)
    if difference:
        raise ImageryError(
            f"{what} {path} has another grid than {beside}: {difference}",
            todo=f"resample it to the grid of {beside} first (gdalwarp -r near -te -tr)",
        )
