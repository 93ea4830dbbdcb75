"""From tile files to one Cloud-Optimised GeoTIFF: one writer, then a copy through GDAL's COG driver."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.files import checksum, temporary_file, writing
from causalsat.exceptions import OutputError
from causalsat.mapping.grid import MapGrid

__all__ = ["write_cog"]

CACHE_BYTES = 64 << 20
LOG = logging.getLogger(__name__)


def write_cog(
    path: Path,
    blocks: Iterable[tuple[int, int, NDArray[np.float32]]],
    *,
    grid: MapGrid,
    bands: Sequence[str],
    tags: Mapping[str, str],
    work: Path,
    blocksize: int = 256,
) -> None:
    """Write a float32 map with NaN as nodata as a Cloud-Optimised GeoTIFF; it is written atomically.

    Parameters
    ----------
    path : Path
        The file to write.
    blocks : iterable of (row, col, values of shape (band, height, width))
        Parts of the map, in cells; where none lies the map is nodata.
    grid : MapGrid
        Size and georeference of the map.
    bands : sequence of str
        Band names, written as descriptions.
    tags : mapping of str to str
        Metadata of the file.
    work : Path
        Folder for the intermediate files, on the same file system as ``path``.
    blocksize : int
        Side of the internal tiles.

    Raises
    ------
    OutputError
        If there is no room for it. The finished file is read back and compared before it takes its place.

    Notes
    -----
    Overviews average the cells; memory is bounded by GDAL's block cache (64 MB), not by the map.
    """
    import rasterio
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError
    from rasterio.shutil import copy
    from rasterio.windows import Window

    written: list[tuple[Any, int]] = []
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "nodata": float("nan"),
        "count": len(bands),
        "height": grid.height,
        "width": grid.width,
        "crs": grid.crs,
        "transform": grid.transform,
        "tiled": True,
        "blockxsize": blocksize,
        "blockysize": blocksize,
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
        "interleave": "band",
    }
    try:
        with (
            writing(path),
            temporary_file(work / "map") as plain,
            temporary_file(work / "cog") as partial,
            rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_NUM_THREADS="1"),
        ):
            mode = stat.S_IMODE(partial.stat().st_mode)
            with rasterio.open(plain, "w", **profile) as raster:
                raster.update_tags(**dict(tags))
                for number, name in enumerate(bands, start=1):
                    raster.set_band_description(number, name)
                for row, col, values in blocks:
                    window = Window(col, row, values.shape[2], values.shape[1])
                    raster.write(values, window=window)
                    written.append((window, _checksum(values)))
            copy(
                plain,
                partial,
                driver="COG",
                COMPRESS="DEFLATE",
                PREDICTOR="FLOATING_POINT",
                BLOCKSIZE=blocksize,
                OVERVIEW_RESAMPLING="AVERAGE",
                BIGTIFF="IF_SAFER",
            )
            with rasterio.open(partial) as raster:
                if any(_checksum(raster.read(window=window)) != mark for window, mark in written):
                    raise OSError("what was written reads back differently")
            partial.chmod(mode)
            os.replace(partial, path)
            LOG.info("wrote %s", path)
    except (RasterioError, CPLE_BaseError) as error:
        cause = error.__cause__ or error
        raise OutputError(
            f"{path} cannot be written ({cause})", todo="free space, and run it again: finished tiles are kept"
        ) from error


def _checksum(values: NDArray[np.float32]) -> int:
    """CRC-32 of float32 values, all NaN taken for one."""
    return checksum(np.where(np.isnan(values), np.float32(np.nan), values))
