"""Paths as GDAL writes them, and the local files that they rest on."""

from __future__ import annotations

import os
import re

__all__ = ["container", "file_stamp", "gdal_path", "is_remote", "local_file", "sibling", "split_archive"]

Stamp = tuple[int, int, int]

_SCHEMES = {"file": "", "zip": "/vsizip/", "tar": "/vsitar/", "gzip": "/vsigzip/"}
_SUBDATASET = re.compile(r"[A-Za-z][A-Za-z0-9_]+:")
_LOCAL_SCHEMES = {"file", "gzip", "tar", "zip"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_VIRTUAL = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)", re.IGNORECASE)
_SERVICE = re.compile(
    r"(?:WMS|WCS|WMTS|OGCAPI|NGW|PG|PGB?EO|MYSQL|MONGODBV3|EEDAI?|PLMOSAIC|PLSCENES|STACIT|STACTA|GTI|HTTP|DODS|"
    r"RASDAMAN|GEORASTER|CARTO|ELASTIC|ES|AMIGOCLOUD|WFS|WFS3|OAPIF|CSW|GMLAS|PGEO):",
    re.IGNORECASE,
)  # fmt: skip
_ARCHIVES = re.compile(r"/vsi(?:zip|tar|gzip|rar|7z)/")


def gdal_path(path: str | os.PathLike[str]) -> str:
    """The path as GDAL writes it, of a path or of an address of a local file.

    Examples
    --------
    >>> gdal_path("zip:///data/a.zip!b.tif"), gdal_path("file:///data/b.tif"), gdal_path("b.tif")
    ('/vsizip//data/a.zip/b.tif', '/data/b.tif', 'b.tif')
    """
    text = os.fspath(path)
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower() in _SCHEMES:
        return _SCHEMES[scheme.lower()] + rest.replace("!", "/")
    return text


def file_stamp(path: str) -> Stamp:
    """Modification time (ns), size and inode of a local file; zeros where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def local_file(path: str) -> str | None:
    """The local file that holds what a path names: itself, an archive, or the file of a subdataset; None if unknown.

    Examples
    --------
    >>> local_file("/data/none.tif"), local_file("/vsicurl/http://host/a.tif"), local_file("/vsimem/a.tif")
    ('/data/none.tif', None, None)
    """
    held = container(path)
    if held is not None:
        return local_file(held)
    if _ARCHIVES.match(path):
        archive, _ = split_archive(path)
        return archive or None
    if "://" in path or path.startswith("/vsi"):
        return None
    return os.path.abspath(path)


def container(path: str) -> str | None:
    """The existing file of a subdataset such as ``NETCDF:"a.nc":rain`` or ``HDF5:a.h5://grid/rain``; else None."""
    if not _SUBDATASET.match(path) or os.path.exists(path):
        return None
    quoted = re.search(r'"([^"]+)"', path)
    if quoted:
        return quoted.group(1) if _exists(quoted.group(1)) else None
    pieces = path.split(":")
    for first in range(1, len(pieces)):
        for stop in range(len(pieces), first, -1):
            name = ":".join(pieces[first:stop])
            if name and _exists(name):
                return name
    return None


def _exists(path: str) -> bool:
    if _ARCHIVES.match(path):
        return bool(split_archive(path)[0])
    return os.path.isfile(path)


def split_archive(path: str) -> tuple[str, str]:
    """Archive and member of a path such as ``/vsizip//data/a.zip/b.tif``; two empty texts without an archive."""
    rest = path
    while found := _ARCHIVES.match(rest):
        rest = rest[found.end() :]
    pieces = rest.replace("{", "").replace("}", "").split("/")
    for k in range(1, len(pieces) + 1):
        archive = "/".join(pieces[:k])
        if os.path.isfile(archive):
            return archive, "/".join(pieces[k:])
    return "", ""


def is_remote(path: str) -> bool:
    """Whether a path is an address on the net or the name of a service.

    Examples
    --------
    >>> is_remote("https://host/a.tif"), is_remote("zip+s3://bucket/a.zip!b.tif"), is_remote('NETCDF:"http://h/a":v')
    (True, True, True)
    >>> is_remote("/data/a.tif"), is_remote("zip:///data/a.zip!b.tif"), is_remote('NETCDF:"/data/a.nc":v')
    (False, False, False)
    """
    if container(path) is not None:
        return False
    schemes = {part for found in _SCHEME.findall(path) for part in found.lower().split("+")}
    return bool(schemes - _LOCAL_SCHEMES or _VIRTUAL.search(path) or _SERVICE.match(path.lstrip()))


def sibling(path: str, texts: tuple[str, str]) -> str:
    """The file whose name has the first text replaced by the second; if there is none, replaced in the whole path."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, name.replace(*texts))
    return beside if beside != path and os.path.exists(beside) else path.replace(*texts)
