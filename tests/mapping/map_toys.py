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
