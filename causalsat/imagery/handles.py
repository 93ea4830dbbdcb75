"""Open raster files, kept for each thread of each process and never in an object's state."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from causalsat.exceptions import ImageryError, ImageryNotFoundError, ImageryWarning

__all__ = [
    "CACHE_BYTES",
    "close_all",
    "dataset",
    "file_stamp",
    "gdal_env",
    "not_readable",
    "sibling",
    "smaller_cache",
]

CACHE_BYTES = 512 << 20  # bytes: rasterio takes GDAL_CACHEMAX=512 for 512 bytes
_MAX_OPEN = 256
_LOCAL = threading.local()
_TEXT_BYTES = 16 << 20
_SERVICES = (b"GDAL_WMS", b"GDAL_WMTS", b"WCS_GDAL", b"WMTS_Capabilities", b"WMT_MS_Capabilities", b"GDAL_OGCAPI")
_REMOTE = re.compile(rb"/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)|https?://")


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


def file_stamp(path: str) -> tuple[int, int]:
    """Modification time (ns) and size of a local file; zeros where there is no such thing (remote files)."""
    try:
        stat = os.stat(path)
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)


def dataset(path: str) -> Any:
    """An open ``rasterio`` dataset of this thread; opened anew when the file has changed.

    Raises
    ------
    ImageryNotFoundError
        There is no such file.
    ImageryError
        The file is not a raster that GDAL can read.
    """
    pid = os.getpid()
    if getattr(_LOCAL, "pid", None) != pid:  # after a fork, the parent's handles share its file positions
        _LOCAL.pid, _LOCAL.open = pid, OrderedDict()
    opened: OrderedDict[tuple[str, tuple[int, int]], Any] = _LOCAL.open
    key = (path, file_stamp(path))
    if key in opened:
        opened.move_to_end(key)
        return opened[key]
    opened[key] = _open(path)
    while len(opened) > _MAX_OPEN:
        opened.popitem(last=False)[1].close()
    return opened[key]


def close_all() -> None:
    """Close this thread's files, and with them let go of the blocks that GDAL holds for them."""
    opened = getattr(_LOCAL, "open", {})
    if getattr(_LOCAL, "pid", None) == os.getpid():
        for handle in opened.values():
            handle.close()
    _LOCAL.open = OrderedDict()


def _open(path: str) -> Any:
    local = "://" not in path and not path.startswith("/vsi")
    if local and not os.path.exists(path):
        raise ImageryNotFoundError(
            f"no such raster: {path}", todo="check the path, and the working directory it is relative to"
        )
    if local:
        _look_into(path)
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise ImageryError(
            f"{path} cannot be opened as a raster ({error})",
            expected="GeoTIFF, COG, VRT or another format that GDAL reads",
            todo="check with gdalinfo that it is a raster and that it was downloaded completely",
        ) from error


def _look_into(path: str) -> None:
    """Tell of a local file that would have GDAL ask the network: refuse a web service, warn of a VRT."""
    try:
        with open(path, "rb") as file:
            head = file.read(_TEXT_BYTES if file.read(1) == b"<" else 0)
    except OSError:  # a folder, or no permission: GDAL says it better
        return
    if any(tag in head[:4096] for tag in _SERVICES):
        raise ImageryError(
            f"{path} describes a web service",
            expected="a raster",
            todo="download the part that you need (gdal_translate), or name the service in a VRT",
        )
    if b"VRTDataset" in head[:4096] and _REMOTE.search(head):
        warnings.warn(f"{path} is a VRT of files on the net, which are read from there", ImageryWarning, stacklevel=4)


def sibling(path: str, texts: tuple[str, str]) -> str:
    """The file whose name has the first text replaced by the second; if there is none, replaced in the whole path."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, name.replace(*texts))
    return beside if beside != path and os.path.exists(beside) else path.replace(*texts)


def not_readable(path: str, error: Exception) -> ImageryError:
    """The error for a file that opens but whose pixels cannot be decoded."""
    cause = error.__cause__ or error
    return ImageryError(
        f"{path}: its pixels cannot be read ({cause})",
        expected="a complete file",
        todo="the file is probably truncated or damaged: download or copy it again and check with gdalinfo -checksum",
    )
