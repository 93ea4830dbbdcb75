"""One raster file: GeoTIFF, COG, VRT or whatever else GDAL reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ImageryError
from causalsat.imagery.blocks import Block, read_unit
from causalsat.imagery.dates import as_day
from causalsat.imagery.grid import make_grid
from causalsat.imagery.handles import dataset, file_stamp, not_readable, sibling
from causalsat.imagery.layers import LayerImagery, check_unique, per_band, tell_of_own_scale
from causalsat.imagery.masks import MaskRule, mask_rule

__all__ = ["Bands", "RasterImagery", "choose_bands", "open_raster"]

MOST_DECODED = 1 << 30  # bytes that have to be decoded at a time, at most: guards memory against damaged headers

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
    file_mask : bool
        Whether the file has a mask band or an alpha band that is heeded.
    mask : MaskRule or None
        Rule on a quality band.
    mask_path : str
        File of the quality band.
    mask_index : int
        Its number in that file; 0 without a rule.
    """

    path: str = ""
    indexes: tuple[int, ...] = ()
    block_shape: tuple[int, int] = (256, 256)
    dtype: str = "uint8"
    band_nodata: tuple[float | None, ...] | None = None
    file_mask: bool = False
    mask: MaskRule | None = None
    mask_path: str = ""
    mask_index: int = 0

    def load(self, r0: int, r1: int, c0: int, c1: int) -> Block:
        """Decode rows r0..r1 and columns c0..c1."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        window = Window(c0, r0, c1 - c0, r1 - r0)
        source = dataset(self.path)
        if source.shape != self.shape or source.count < max(self.indexes):
            raise ImageryError(
                f"{self.path} is another raster than when it was opened: {source.count} bands of {source.shape}",
                expected=f"the bands {list(self.indexes)} of {self.shape}",
                todo="open it again",
            )
        try:
            values = _read(source, self.indexes, window, self.dtype)
            invalid = source.dataset_mask(window=window)[None] == 0 if self.file_mask else None
        except RasterioError as error:
            raise not_readable(self.path, error) from error
        if self.band_nodata is not None:
            columns = np.array([np.nan if v is None else v for v in self.band_nodata])[:, None, None]
            if values.dtype.kind == "f":
                columns = columns.astype(values.dtype)  # -9999.9 of single precision is another number in double
            invalid = _either(invalid, values == columns)
        if self.mask is not None:
            invalid = _either(invalid, self.mask.flags(self._quality(window))[None])
        return Block(values, invalid)

    def stamps(self) -> tuple[Any, ...]:
        """Path, modification time and size of the image and of its mask's file."""
        return tuple((path, *file_stamp(path)) for path in (self.path, self.mask_path) if path)

    def _quality(self, window: Any) -> NDArray[Any]:
        from rasterio.errors import RasterioError

        try:
            return dataset(self.mask_path).read(self.mask_index, window=window)  # type: ignore[no-any-return]
        except RasterioError as error:
            raise not_readable(self.mask_path, error) from error

    def fingerprint(self) -> dict[str, Any]:
        """Settings, and modification time and size of the file."""
        files = sorted({os.path.abspath(path) for path in (self.path, self.mask_path) if path})
        settings = asdict(self)
        for where_not_what in ("path", "mask_path", "name"):
            settings.pop(where_not_what)
        return {"kind": type(self).__name__, **settings, "files": [(path, *file_stamp(path)) for path in files]}

    def _select_bands(self, positions: list[int]) -> Self:
        chosen: dict[str, Any] = {
            "bands": tuple(self.bands[i] for i in positions),
            "indexes": tuple(self.indexes[i] for i in positions),
            "band_nodata": None if self.band_nodata is None else tuple(self.band_nodata[i] for i in positions),
        }
        return replace(self, **chosen, **self._select_gain(positions))


def _read(source: Any, indexes: tuple[int, ...], window: Any, dtype: str) -> NDArray[Any]:
    """Bands of a window; one by one where their data types differ, which GDAL does not read together."""
    if len({source.dtypes[i - 1] for i in indexes}) == 1:
        return source.read(list(indexes), window=window)  # type: ignore[no-any-return]
    return np.stack([source.read(i, window=window).astype(dtype) for i in indexes])


def _either(first: NDArray[np.bool_] | None, second: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return second if first is None else first | second


def open_raster(
    path: str | os.PathLike[str],
    *,
    bands: Bands = None,
    date: Any = None,
    crs: Any = None,
    nodata: float | None = None,
    scale: Any = 1.0,
    offset: Any = 0.0,
    mask: Any = None,
    name: str | None = None,
) -> RasterImagery:
    """A :class:`RasterImagery`; the parameters are those of :func:`causalsat.open_imagery`."""
    file = os.fspath(path)
    label = name or Path(file).stem
    source = dataset(file)
    _check_raster(source, file)
    if crs is not None and source.crs is not None:
        _same_crs(source.crs, crs, file)
    rule = mask_rule(mask)
    mask_path, mask_index = _find_mask(rule, source, file)
    names, indexes = choose_bands(
        source.descriptions, bands, file, hidden=_hidden_bands(source, mask_index if mask_path == file else 0)
    )
    _check_unit(source, indexes, file)
    own = tuple([values[i - 1] for i in indexes] for values in (source.scales, source.offsets))
    tell_of_own_scale(own, scale, offset)  # type: ignore[arg-type]
    file_nodata = [source.nodatavals[i - 1] for i in indexes]
    same = len({str(v) for v in file_nodata}) == 1
    return RasterImagery(
        grid=make_grid(source.crs or crs, source.transform, source.shape, file),
        bands=names,
        days=() if date is None else (as_day(date),),
        name=label,
        nodata=float(nodata) if nodata is not None else (file_nodata[0] if same else None),
        scale=per_band(scale, len(names), "scale"),
        offset=per_band(offset, len(names), "offset"),
        path=file,
        indexes=indexes,
        block_shape=tuple(source.block_shapes[0]),
        dtype=str(np.result_type(*(source.dtypes[i - 1] for i in indexes))),
        band_nodata=None if same or nodata is not None else tuple(file_nodata),
        file_mask=_has_mask(source),
        mask=rule,
        mask_path=mask_path,
        mask_index=mask_index,
    )


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
        inside = ", ".join(source.subdatasets[:4]) or "none"
        raise ImageryError(
            f"{file} holds no band of its own; subdatasets: {inside}", todo="open one of the subdatasets by its name"
        )
    kinds = sorted(set(source.dtypes))
    if any(kind.startswith("complex") for kind in kinds):
        raise ImageryError(
            f"{file} holds {kinds[0]} pixels", expected="real numbers", todo="write amplitudes instead"
        )


def _check_unit(source: Any, indexes: Sequence[int], file: str) -> None:
    """Refuse blocks that do not fit in memory."""
    rows, cols = read_unit(source.block_shapes[0], source.shape)
    size = max(np.dtype(source.dtypes[i - 1]).itemsize for i in indexes)
    together = source.count if str(source.interleaving).lower().endswith("pixel") else 1
    most = max(rows * cols * len(indexes), np.prod(source.block_shapes[0], dtype=float) * together) * size
    if most > MOST_DECODED:
        raise ImageryError(
            f"{file} has blocks of {source.block_shapes[0]} pixels: {most / 2**30:.1f} GiB are decoded at a time",
            expected=f"at most {MOST_DECODED >> 30} GiB",
            todo="if it is not damaged, rewrite it (gdal_translate -of COG in.tif out.tif) or read fewer bands=",
        )


def _same_crs(own: Any, given: Any, file: str) -> None:
    from pyproj import CRS

    if CRS.from_wkt(own.to_wkt()) != CRS.from_user_input(given):
        raise ImageryError(
            f"{file} says that its CRS is {own.to_string()}, but crs={given!r} was given",
            todo="leave crs= out, or correct the file with gdal_edit -a_srs",
        )


def _has_mask(source: Any) -> bool:
    from rasterio.enums import MaskFlags

    return any(MaskFlags.per_dataset in flags for flags in source.mask_flag_enums)


def _hidden_bands(source: Any, mask_index: int) -> list[int]:
    from rasterio.enums import ColorInterp

    alpha = [i for i, kind in enumerate(source.colorinterp, 1) if kind == ColorInterp.alpha]
    return [*alpha, mask_index]


def _find_mask(rule: MaskRule | None, source: Any, file: str) -> tuple[str, int]:
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
        holder = dataset(path)
        if holder.shape != source.shape:
            raise ImageryError(
                f"the mask file {path} has shape {holder.shape} and the image {source.shape}",
                todo="resample the mask to the image's grid first (gdalwarp -r near)",
            )
    own = [text or f"band_{i}" for i, text in enumerate(holder.descriptions, 1)]
    return path, 1 if rule.band is None else _number(rule.band, own, f"the mask's file {path}")
