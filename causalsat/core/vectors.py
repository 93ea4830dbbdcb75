"""Vector files read without asking the network, which GDAL does where a file names an address."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from causalsat.exceptions import DataError

__all__ = ["offline", "read_vector"]

_NOWHERE = "127.0.0.1:9"  # the port of the discard protocol, where nothing listens
_SETTINGS = {
    "GDAL_HTTP_PROXY": _NOWHERE, "GDAL_HTTPS_PROXY": _NOWHERE, "GDAL_HTTP_MAX_RETRY": "0", "GDAL_HTTP_TIMEOUT": "5"
}  # fmt: skip


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within it, the GDAL of vector files asks nothing of the network."""
    import pyogrio

    before = {key: pyogrio.get_gdal_config_option(key) for key in _SETTINGS}
    pyogrio.set_gdal_config_options(_SETTINGS)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)


def read_vector(path: str | os.PathLike[str], **options: Any) -> Any:
    """GeoDataFrame of a local vector file, by ``geopandas.read_file``; nothing that it names is fetched.

    Raises
    ------
    DataError
        A virtual file, which names others.
    """
    import geopandas as gpd

    if os.path.isfile(path):
        with open(path, "rb") as opened:
            virtual = b"<OGRVRTDataSource" in opened.read(1024)
        if virtual:
            raise DataError(
                f"{os.fspath(path)} is a virtual file (OGR VRT), which names other files or addresses",
                expected="a vector file",
                todo="write it as one: ogr2ogr units.gpkg virtual.vrt",
            )
    with offline():
        return gpd.read_file(path, **options)
