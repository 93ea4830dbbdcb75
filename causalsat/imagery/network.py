"""What would have the network asked, and the settings under which GDAL asks nothing of it.

GDAL follows addresses wherever it meets them: in the path, in a VRT or in a file that a VRT names, written plainly or
with XML entities. Two guards stand between a local file and the net. What a file names is looked up before GDAL opens
it; and GDAL runs behind a proxy that is not there, so that what was overlooked asks nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import tarfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import rasterio

from causalsat.exceptions import ImageryError
from causalsat.imagery.files import is_remote, split_archive

__all__ = ["PLAIN_DRIVERS", "check_text", "drivers", "offline", "sources_of_vrt"]

_FILENAMES = re.compile(r"(?:\w*Source(?:Filename|Dataset|Path)?|SrcDataSource|\w*Filename|DataFile|IndexFile)$")
_SERVICES = {
    "Capabilities", "GDALTileIndexDataset", "GDAL_OGCAPI", "GDAL_WMS", "GDAL_WMTS", "MRF_META", "WCS_GDAL",
    "WMS_Capabilities", "WMS_Tile_Service", "WMT_MS_Capabilities",
}  # fmt: skip
_SIDE_FILES = (".ovr", ".msk", ".aux.xml", ".msk.ovr", ".ovr.msk", ".ovr.ovr")
_TEXT_BYTES = 64 << 20
_NOWHERE = "127.0.0.1:9"  # the port of the discard protocol, where nothing listens

#: Drivers that read the file that they are given, and those beside it, and nothing that it names.
PLAIN_DRIVERS = frozenset({
    "AAIGrid", "BMP", "EHdr", "ENVI", "ERS", "GIF", "GPKG", "GRIB", "GTiff", "HDF4", "HDF4Image", "HDF5", "HDF5Image",
    "HFA", "JP2OpenJPEG", "JPEG", "MBTiles", "MEM", "NITF", "PCIDSK", "PNG", "PNM", "RST", "SAGA", "SRTMHGT", "WEBP",
    "XYZ", "netCDF",
})  # fmt: skip
#: Drivers that fetch, or that open what a table or a text names.
NETWORK_DRIVERS = frozenset({
    "DODS", "EEDA", "EEDAI", "GTI", "HTTP", "MRF", "NGW", "OGCAPI", "PLMOSAIC", "PLSCENES", "STACIT", "STACTA", "WCS",
    "WMS", "WMTS",
})  # fmt: skip


def check_text(path: str, network: bool) -> None:
    """Refuse an address where the network is not to be asked.

    Raises
    ------
    ImageryError
    """
    if not network and is_remote(path):
        raise ImageryError(
            f"{path} lies on the net",
            expected="a local file: nothing is fetched unless it is asked for",
            todo="pass network=True to read it from there, or download it first",
        )


@lru_cache(maxsize=2)
def drivers(network: bool) -> list[str] | None:
    """Names of the drivers that may open a file; None for all."""
    if network:
        return None
    with rasterio.Env() as env:
        return sorted(set(env.drivers()) - NETWORK_DRIVERS)


@contextlib.contextmanager
def offline(network: bool = False) -> Iterator[None]:
    """Within it, GDAL asks nothing of the network, unless it may."""
    if network:
        yield
        return
    closed = {"GDAL_HTTP_PROXY": _NOWHERE, "GDAL_HTTPS_PROXY": _NOWHERE, "GDAL_HTTP_MAX_RETRY": "0"}
    # where NO_PROXY lets an address past the proxy, no name of a file ends in this
    with rasterio.Env(**closed, CPL_VSIL_CURL_ALLOWED_EXTENSIONS=".nothing"):
        yield


def sources_of_vrt(path: str, network: bool) -> tuple[str, ...]:
    """Every file that a VRT reads, also by way of other VRTs; empty where the path is no VRT.

    Parameters
    ----------
    path : str
        A local file, or a member of a local archive.
    network : bool
        Whether files on the net and web services may be among them; they are not looked into.

    Raises
    ------
    ImageryError
        A web service, or a VRT that names an address, and the network is not to be asked.
    """
    found: dict[str, None] = {}
    _walk(path, path, network, found)
    found.pop(path, None)
    return tuple(found)


def _walk(path: str, origin: str, network: bool, found: dict[str, None]) -> None:
    if path in found or is_remote(path):
        found[path] = None
        return
    found[path] = None
    if path != origin and not network and _names_files(path):
        raise ImageryError(
            f"{origin} is a VRT of {path}, which names other files",
            todo="pass network=True where they lie on the net",
        )
    if not network:
        for ending in _SIDE_FILES:
            _walk_side_file(path + ending, origin, found)
    root = _xml(path)
    if root is None:
        return
    tag = root.tag.rsplit("}", 1)[-1]
    if tag != "VRTDataset":
        if tag in _SERVICES and not network:
            raise ImageryError(
                f"{path} describes a web service or other files ({tag})"
                + ("" if path == origin else f", and {origin} reads it"),
                expected="a raster",
                todo="download the part that you need (gdal_translate), or pass network=True to read it from there",
            )
        return
    for name in _names(root, path):
        if is_remote(name) and not network:
            raise ImageryError(
                f"{origin} is a VRT of files on the net ({name[:200]})",
                expected="local files: nothing is fetched unless it is asked for",
                todo="pass network=True to read them from there, or download them first",
            )
        _walk(name, origin, network, found)


def _walk_side_file(side: str, origin: str, found: dict[str, None]) -> None:
    """Look into a file that GDAL opens beside another: overviews and masks may be VRTs, statistics may name one."""
    root = _xml(side)
    if root is None:
        return
    if root.tag.rsplit("}", 1)[-1] != "PAMDataset":
        _walk(side, origin, False, found)
        return
    for item in root.iter("MDI"):
        name = (item.text or "").strip()
        if (item.get("key") or "").upper() != "OVERVIEW_FILE":
            continue
        if is_remote(name):
            raise ImageryError(
                f"{side} names overviews on the net ({name[:200]})",
                expected="local files: nothing is fetched unless it is asked for",
                todo="pass network=True to read them from there, or remove that file",
            )
        _walk(os.path.join(os.path.dirname(side), name.removeprefix(":::BASE:::")), origin, False, found)


def _names(root: ET.Element, path: str) -> Iterator[str]:
    """Texts of a VRT that GDAL opens, relative ones joined to its folder."""
    for element in root.iter():
        text = (element.text or "").strip()
        if not text or not _FILENAMES.match(element.tag.rsplit("}", 1)[-1]):
            continue
        if text.lstrip().startswith("<"):  # a VRT inside a VRT
            inner = _parsed(text.encode())
            if inner is not None:
                yield from _names(inner, path)
            continue
        relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
        yield os.path.join(os.path.dirname(path), text) if relative else text


def _names_files(path: str) -> bool:
    """Whether a file is a table of tiles or a text such as a STAC catalogue, from which GDAL opens others."""
    if re.search(r"\.gti\.\w+$", path, re.IGNORECASE):
        return True
    try:
        with open(path, "rb") as opened:
            return opened.read(64).lstrip().startswith(b"{")
    except OSError:
        return False


def _xml(path: str) -> ET.Element | None:
    """The file's XML; None where it is no XML, or is no file that can be looked into."""
    content = _content(path)
    return None if content is None else _parsed(content)


def _parsed(content: bytes) -> ET.Element | None:
    if len(content) > _TEXT_BYTES:
        raise ImageryError(f"an XML file of more than {_TEXT_BYTES >> 20} MiB", todo="check that it is a VRT")
    try:
        return ET.fromstring(content)
    except ET.ParseError:  # GDAL's own parser is more lenient: what it would make of it is not known
        if re.search(rb"<\s*VRTDataset|<\s*GDAL_W", content):
            raise ImageryError(
                "XML that is not well formed", expected="a VRT as GDAL writes it", todo="write it with gdalbuildvrt"
            ) from None
        return None


def _content(path: str) -> bytes | None:
    """Content of a file that may be XML, also inside an archive; None where it is none or is not there."""
    opened: Any
    try:
        if path.startswith("/vsizip/"):
            archive, member = split_archive(path)
            with zipfile.ZipFile(archive) as container, container.open(member) as opened:
                return _limited(opened)
        if path.startswith("/vsitar/"):
            archive, member = split_archive(path)
            with tarfile.open(archive) as tape:
                opened = tape.extractfile(member)
                return None if opened is None else _limited(opened)
        if path.startswith("/vsigzip/"):
            with gzip.open(path[len("/vsigzip/") :]) as opened:
                return _limited(opened)
        with open(path, "rb") as opened:
            return _limited(opened)
    except (OSError, KeyError, ValueError, tarfile.TarError, zipfile.BadZipFile):  # GDAL says it better
        return None


def _limited(opened: Any) -> bytes | None:
    head = opened.read(1024)
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<VRTDataset" not in head:
        return None
    return bytes(head + opened.read(_TEXT_BYTES + 1))
