"""Open raster files, kept for each thread of each process and never in an object's state."""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from causalsat.exceptions import ImageryError, ImageryNotFoundError
from causalsat.imagery.files import Stamp, container, file_stamp, gdal_path, local_file
from causalsat.imagery.network import PLAIN_DRIVERS, check_text, drivers, offline, sources_of_vrt

__all__ = [
    "CACHE_BYTES",
    "OpenFile",
    "close_all",
    "local_raster",
    "dataset",
    "cache_bound",
    "gdal_env",
    "new_operation",
    "opened",
    "operation",
    "readable",
    "smaller_cache",
    "stamps_of",
    "unstamped_of",
]

CACHE_BYTES = 512 << 20  # bytes: rasterio takes GDAL_CACHEMAX=512 for 512 bytes
_MAX_OPEN = 256
_SIDECARS = (".msk", ".aux.xml")  # what decides pixels and may appear beside a file
_LOCAL = threading.local()
_COUNTER = itertools.count(1)
_OPERATION = [0]


def gdal_env() -> Any:
    """The settings under which blocks are read."""
    return rasterio.Env(GDAL_CACHEMAX=getattr(_LOCAL, "most", CACHE_BYTES))


@contextmanager
def smaller_cache(most: int) -> Iterator[None]:
    """Within it, this thread reads with at most so many bytes of blocks kept: for work that goes through a raster."""
    before = getattr(_LOCAL, "most", CACHE_BYTES)
    _LOCAL.most = min(before, most)
    try:
        yield
    finally:
        _LOCAL.most = before


def cache_bound() -> int:
    """Bytes of blocks that this thread keeps at most."""
    return int(getattr(_LOCAL, "most", CACHE_BYTES))


def new_operation() -> None:
    """Begin something that reads: files that changed since are opened anew, and are looked at once for all of it."""
    _OPERATION[0] = next(_COUNTER)


def operation() -> int:
    """Number of the last operation that began, in any thread."""
    return _OPERATION[0]


@dataclass
class OpenFile:
    """A raster file that is open in this thread.

    Attributes
    ----------
    handle : rasterio.DatasetReader
    files : tuple of str
        Local files that decide its pixels: those that GDAL reads, with the sources of VRTs, archives and masks.
    unstamped : tuple of str
        What decides its pixels and cannot be looked at: addresses on the net, files in memory.
    stamps : tuple
        State of the files when it was opened.
    network : bool
        Whether GDAL may ask the network.
    seen : int
        The operation in which the stamps were last compared.
    """

    handle: Any
    files: tuple[str, ...]
    unstamped: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    network: bool
    seen: int

    @cached_property
    def flags(self) -> tuple[frozenset[MaskFlags], ...]:
        """GDAL's mask flags of each band; empty for a mask of the band's own."""
        return tuple(frozenset(flags) for flags in self.handle.mask_flag_enums)

    @cached_property
    def nodata(self) -> tuple[float | None, ...]:
        """The nodata value of each band."""
        return tuple(self.handle.nodatavals)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The data type of each band."""
        return tuple(self.handle.dtypes)

    @cached_property
    def validity(self) -> tuple[str, ...]:
        """What says of each band which of its pixels are invalid: mask flags and nodata value, as a text."""
        pairs = zip(self.handle.mask_flag_enums, self.handle.nodatavals, strict=True)
        return tuple(f"{'+'.join(flag.name for flag in flags)} {nodata}" for flags, nodata in pairs)

    @cached_property
    def affine(self) -> tuple[float, ...]:
        """The six coefficients of the transform."""
        return tuple(float(v) for v in tuple(self.handle.transform)[:6])

    def reading(self) -> AbstractContextManager[None]:
        """Within it, pixels are read; GDAL opens the sources of a VRT only then."""
        return nullcontext() if self.network or self.handle.driver in PLAIN_DRIVERS else offline()


def opened(path: str, network: bool = False) -> OpenFile:
    """A raster file, open in this thread; opened anew when a file that decides its pixels has changed.

    Raises
    ------
    ImageryNotFoundError
        There is no such file.
    ImageryError
        The file is not a raster that GDAL can read, or it asks for the network, which it may not.
    """
    pid = os.getpid()
    if getattr(_LOCAL, "pid", None) != pid:  # after a fork, the parent's handles share its file positions
        _LOCAL.pid, _LOCAL.open = pid, OrderedDict()
    kept: OrderedDict[tuple[str, bool], OpenFile] = _LOCAL.open
    key = (path, network)
    entry = kept.get(key)
    if entry is not None and entry.seen != _OPERATION[0]:
        if tuple(map(file_stamp, entry.files)) == entry.stamps:
            entry.seen = _OPERATION[0]
        else:
            kept.pop(key).handle.close()
            entry = None
    if entry is None:
        entry = kept[key] = _open(path, network)
    kept.move_to_end(key)
    while len(kept) > _MAX_OPEN:
        kept.popitem(last=False)[1].handle.close()
    return entry


def dataset(path: str, network: bool = False) -> Any:
    """The ``rasterio`` dataset of :func:`opened`."""
    return opened(path, network).handle


def close_all() -> None:
    """Close this thread's files, and with them let go of the blocks that GDAL holds for them."""
    kept = getattr(_LOCAL, "open", {})
    if getattr(_LOCAL, "pid", None) == os.getpid():
        for entry in kept.values():
            entry.handle.close()
    _LOCAL.open = OrderedDict()


def stamps_of(path: str, network: bool = False) -> tuple[tuple[str, Stamp], ...]:
    """The present state of every file that decides the raster's pixels, as far as they can be looked at."""
    return tuple((file, file_stamp(file)) for file in _known(path, network)[0])


def unstamped_of(path: str, network: bool = False) -> tuple[str, ...]:
    """What decides the raster's pixels and cannot be looked at."""
    return _known(path, network)[1]


def _known(path: str, network: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        entry = opened(path, network)
    except ImageryError:  # gone, or not to be fetched: what is known of it is its path
        file = local_file(gdal_path(path))
        return ((), (path,)) if file is None else ((file,), ())
    return entry.files, entry.unstamped


def _open(path: str, network: bool) -> OpenFile:
    name = gdal_path(path)
    check_text(name, network)
    if "://" not in name and not name.startswith("/vsi") and container(name) is None and not os.path.exists(name):
        raise ImageryNotFoundError(
            f"no such raster: {path}", todo="check the path, and the working directory it is relative to"
        )
    sources = sources_of_vrt(name, network)
    began = _OPERATION[0]
    before = {file: file_stamp(file) for file in filter(None, map(local_file, (name, *sources)))}
    try:
        with offline(network):
            handle = DatasetReader(name, driver=drivers(network), sharing=False)
    except RasterioError as error:
        raise ImageryError(
            f"{path} cannot be opened as a raster ({error})",
            expected="GeoTIFF, COG, VRT or another format that GDAL reads",
            todo="check with gdalinfo that it is a raster and that it was downloaded completely",
        ) from error
    files, unstamped = _files(name, sources, handle)
    stamps = tuple(before.get(file) or file_stamp(file) for file in files)
    return OpenFile(handle, files, unstamped, stamps, network, began)


def _files(name: str, sources: tuple[str, ...], handle: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Local files that decide the pixels, and what cannot be looked at."""
    files: dict[str, None] = {}
    unstamped: dict[str, None] = {}
    for path in (name, *sources, *(file for file in handle.files if not file.lower().endswith(".ovr"))):
        file = local_file(path)
        if file is None:
            unstamped[path] = None
            continue
        files[file] = None
        files.update((file + ending, None) for ending in _SIDECARS if not file.endswith(_SIDECARS))
    return tuple(files), tuple(unstamped)


@contextmanager
def local_raster(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A raster of this machine, open while it is read; nothing that it names is fetched.

    Raises
    ------
    ImageryError
        If it is not there, lies on the net, names what does, or cannot be read.
    """
    handle = _open(os.fspath(path), False).handle
    try:
        with offline(), readable(os.fspath(path)):
            yield handle
    finally:
        handle.close()


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Within it, an error of GDAL is that of a file that opens but whose pixels cannot be decoded.

    Raises
    ------
    ImageryError
    """
    try:
        yield
    except RasterioError as error:
        raise ImageryError(
            f"{path}: its pixels cannot be read ({error.__cause__ or error})",
            expected="a complete file",
            todo="the file is probably truncated or damaged: download or copy it again and check with "
            "gdalinfo -checksum",
        ) from error
