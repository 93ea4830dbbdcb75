"""Small stand-ins with known answers: an encoder of chip means, and an estimator whose effect is a chip mean."""

from __future__ import annotations

import time

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

from causalsat.base import EffectEstimator


class ChipMeans(TransformerMixin, BaseEstimator):
    """Means of the bands over the chip at each point; keeps named columns."""

    def __init__(self, imagery, size_m, keep=(), pause=0.0):
        self.imagery, self.size_m, self.keep, self.pause = imagery, size_m, keep, pause

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        import pandas as pd

        time.sleep(self.pause)
        size = self.imagery.size_px(self.size_m)
        rows, cols = self.imagery.windows(X.geometry, size)
        top, left = rows.min(), cols.min()
        window = self.imagery.read_window(top, left, rows.max() + size - top, cols.max() + size - left)
        chips = np.lib.stride_tricks.sliding_window_view(window, (size, size), axis=(-2, -1))
        means = np.nanmean(chips[..., rows - top, cols - left, :, :], axis=(-2, -1)).reshape(-1, len(rows)).T
        table = pd.DataFrame(means, index=X.index, columns=[f"img{j}" for j in range(means.shape[1])])
        for name in self.keep:
            table[name] = X[name]
        return table


SHAPE_OF_DRAWS = np.linspace(-1.0, 1.0, 21)


class FirstFeature(EffectEstimator):
    """Effect: the first feature, with draws spread evenly over one unit to either side."""

    def __init__(self, modifiers="img*"):
        self.modifiers = modifiers

    def _fit(self, data):
        if self.modifiers == "img*":
            self.columns_ = np.array([j for j, n in enumerate(data.feature_names) if n.startswith("img")])
        else:
            self.columns_ = np.arange(len(data.feature_names))

    def _support_columns(self):
        return self.columns_

    def _effect_draws(self, X, treatment, baseline):
        return X[:, 0] + SHAPE_OF_DRAWS[:, None] * (treatment - baseline)


def toy_model(imagery, points, size_m, keep=(), modifiers="img*", pause=0.0):
    """Fitted pipeline: the effect of a place is the mean of the first band over its chip."""
    rng = np.random.default_rng(0)
    model = make_pipeline(ChipMeans(imagery, size_m, keep=keep), FirstFeature(modifiers))
    n = len(points)
    model.fit(points, rng.standard_normal(n), firstfeature__treatment=np.arange(n) % 2)
    model.set_params(chipmeans__pause=pause)
    return model


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
