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
        chips = [self.imagery.read_window(int(r), int(c), size, size) for r, c in zip(rows, cols, strict=True)]
        means = np.array([np.nanmean(chip, axis=(-2, -1)).ravel() for chip in chips])
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


class ToyImagery:
    """Imagery of the interface that mapping needs, over an array (band, y, x) in memory."""

    def __init__(self, pixels, transform, crs, resolution_m, name="toy"):
        from pyproj import CRS

        self.pixels, self.transform, self.crs = np.asarray(pixels, np.float32), transform, CRS(crs)
        self.resolution_m, self.name = resolution_m, name
        self.shape = self.pixels.shape[-2:]
        self.bands = tuple(f"b{j}" for j in range(len(self.pixels)))
        self.dates = ()
        x0, y0 = transform * (0, self.shape[0])
        x1, y1 = transform * (self.shape[1], 0)
        self.bounds = (x0, y0, x1, y1)

    def size_px(self, size_m):
        return max(1, round(size_m / self.resolution_m))

    def windows(self, geometry, size_px):
        points = getattr(geometry, "geometry", geometry).to_crs(self.crs)
        col, row = ~self.transform * (points.x.to_numpy(), points.y.to_numpy())
        return (np.floor(row - size_px / 2 + 0.5).astype(int), np.floor(col - size_px / 2 + 0.5).astype(int))

    def read_window(self, row0, col0, height, width):
        out = np.full((len(self.pixels), height, width), np.nan, np.float32)
        r0, r1 = max(row0, 0), min(row0 + height, self.shape[0])
        c0, c1 = max(col0, 0), min(col0 + width, self.shape[1])
        if r1 > r0 and c1 > c0:
            out[:, r0 - row0 : r1 - row0, c0 - col0 : c1 - col0] = self.pixels[:, r0:r1, c0:c1]
        return out
