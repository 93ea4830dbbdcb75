from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
mpl.use("Agg")

UTM = 32636
WEST, NORTH, PIXEL = 400_000.0, 300_000.0, 30.0


def write_raster(path, pixels, crs=UTM, transform=None, nodata=np.nan):
    import rasterio
    from affine import Affine

    transform = transform or Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH)
    profile = {"driver": "GTiff", "dtype": "float32", "crs": crs, "transform": transform, "nodata": nodata}
    with rasterio.open(
        path, "w", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], **profile
    ) as raster:
        raster.write(pixels.astype(np.float32))
    return path


def places(n, shape, seed=0, margin=12):
    """Points of a trial within the raster of write_raster's default georeference."""
    import geopandas as gpd

    rng = np.random.default_rng(seed)
    col, row = rng.uniform(margin, shape[1] - margin, n), rng.uniform(margin, shape[0] - margin, n)
    points = gpd.points_from_xy(WEST + PIXEL * col, NORTH - PIXEL * row)
    return gpd.GeoDataFrame({"age": rng.uniform(20, 60, n)}, geometry=points, crs=UTM)


def smooth_pixels(shape=(90, 120), bands=2, seed=0, hole=True):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    pixels = np.stack([gaussian_filter(rng.standard_normal(shape), 6) * 12 for _ in range(bands)])
    if hole:
        pixels[:, 20:40, 50:75] = np.nan
    return pixels.astype(np.float32)


@pytest.fixture(scope="session")
def raster(tmp_path_factory):
    """Path of a 90 x 120 raster of 30 m pixels in UTM, with a hole of nodata."""
    return write_raster(tmp_path_factory.mktemp("imagery") / "scene.tif", smooth_pixels())


@pytest.fixture(scope="session")
def imagery(raster):
    from causalsat.imagery import open_imagery

    return open_imagery(raster)


@pytest.fixture(scope="session")
def trial(imagery):
    """Places of a trial, away from the hole."""
    points = places(160, imagery.shape)
    rows, _ = imagery.windows(points, 1)
    return points[(rows < 15) | (rows > 48)].reset_index(drop=True)


@pytest.fixture(scope="session")
def model(imagery, trial):
    from map_toys import toy_model

    return toy_model(imagery, trial, 240.0)


def direct_means(pixels, grid_rows, grid_cols, cell, size):
    """Mean of band 0 in the chip round each cell's centre, NaN where less than half of it is valid."""
    out = np.full((grid_rows, grid_cols), np.nan)
    height, width = pixels.shape[1:]
    padded = np.full((height + 2 * size, width + 2 * size), np.nan)
    padded[size:-size, size:-size] = np.where(np.isfinite(pixels).all(axis=0), pixels[0], np.nan)
    for i in range(grid_rows):
        for j in range(grid_cols):
            top = int(np.floor(cell * (i + 0.5) + 0.01)) - size // 2 + size
            left = int(np.floor(cell * (j + 0.5) + 0.01)) - size // 2 + size
            chip = padded[top : top + size, left : left + size]
            if np.isfinite(chip).mean() >= 0.5:
                out[i, j] = np.nanmean(chip)
    return out
