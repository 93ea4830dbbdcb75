"""Square image patches at known places, put together into one sparse Cloud-Optimised GeoTIFF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.progress import bar as progress_bar


@dataclass(frozen=True)
class PatchLayout:
    """Geometry of the patches.

    Attributes
    ----------
    source_px : int
        Side of a patch in source pixels.
    source_m : float
        Side of a source pixel in metres.
    average : int
        Source pixels averaged to one, along each side.
    crs : str
        Projected CRS of the patches' rows and columns.
    bands : tuple of str
        Band names, in the order of the files.
    """

    source_px: int = 351
    source_m: float = 14.25
    average: int = 3
    crs: str = "EPSG:32636"
    bands: tuple[str, ...] = ("swir2", "nir", "green")

    @property
    def pixel_m(self) -> float:
        """Side of an averaged pixel in metres."""
        return self.source_m * self.average

    @property
    def px(self) -> int:
        """Side of an averaged patch in pixels."""
        return self.source_px // self.average


def average_blocks(patch: NDArray[Any], by: int) -> NDArray[np.uint8]:
    """Means of ``by`` x ``by`` pixels, rounded, (band, row, col) uint8.

    Examples
    --------
    >>> average_blocks(np.array([[[1.0, 3.0], [5.0, 7.0]]]), 2)
    array([[[4]]], dtype=uint8)
    """
    bands, rows, cols = patch.shape
    rows, cols = rows // by, cols // by
    blocks = patch[:, : rows * by, : cols * by].reshape(bands, rows, by, cols, by)
    return np.clip(np.rint(blocks.mean(axis=(2, 4))), 0, 255).astype(np.uint8)


def write_mosaic(path: Path, sites: Any, read_patch: Callable[[int], Any], layout: PatchLayout) -> int:
    """Write the patches of all sites into one raster; where two overlap the first wins.

    Parameters
    ----------
    path : Path
        Cloud-Optimised GeoTIFF to write: uint8, nodata 0, pixel edges at multiples of the pixel's side.
    sites : DataFrame
        Columns ``site``, ``lon``, ``lat`` (EPSG:4326): the centre of each patch.
    read_patch : callable
        Gives the patch (band, row, col) of a site, or None.
    layout : PatchLayout
        Geometry of the patches.

    Returns
    -------
    int
        Number of patches placed.
    """
    import rasterio
    from rasterio.shutil import copy as raster_copy
    from rasterio.transform import from_origin
    from rasterio.warp import transform
    from rasterio.windows import Window

    x, y = (np.asarray(v) for v in transform("EPSG:4326", layout.crs, sites["lon"], sites["lat"]))
    side, n = layout.pixel_m, layout.px
    cols, rows = np.rint(x / side - n / 2).astype(int), np.rint(-y / side - n / 2).astype(int)
    col0, row0 = cols.min(), rows.min()
    plain = path.with_suffix(".part.tif")
    profile = {
        "driver": "GTiff", "dtype": "uint8", "nodata": 0, "count": len(layout.bands), "crs": layout.crs,
        "width": int(cols.max() - col0 + n), "height": int(rows.max() - row0 + n), "tiled": True,
        "transform": from_origin(col0 * side, -row0 * side, side, side), "blockxsize": 256, "blockysize": 256,
        "compress": "deflate", "sparse_ok": True, "bigtiff": "if_safer",
    }  # fmt: skip
    placed = 0
    with rasterio.open(plain, "w+", **profile) as target:
        for site, col, row in zip(progress_bar(sites["site"], desc="patches", unit="site"), cols, rows, strict=True):
            patch = read_patch(int(site))
            if patch is None:
                continue
            window = Window(col - col0, row - row0, n, n)
            before = target.read(window=window)
            target.write(
                np.where((before == 0).all(axis=0), average_blocks(patch, layout.average), before), window=window
            )
            placed += 1
        target.descriptions = layout.bands
    raster_copy(plain, path, driver="COG", compress="deflate", blocksize=256, sparse_ok=True, overviews="none")
    plain.unlink()
    return placed
