"""Features of images from an encoder that is not trained on outcomes: encoded, then a few principal components."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.metaestimators import available_if

from causalsat.encoders.base import feature_array
from causalsat.encoders.networks.module_encoder import as_transformer
from causalsat.encoders.reduce import Reduction, feature_rank, learn_reduction

__all__ = ["FrozenFeatures"]

FloatArray = NDArray[np.float64]


def in_proportion(reduction: Reduction) -> Reduction:
    """Components with the spread that they have among the features, their mean square 1.

    Weights with one normal prior are then shrunk as if they were those of the features themselves: the last
    components, which hold little, move the prediction little, and how many there are hardly matters.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> features = np.repeat(rng.normal(size=(100, 2)), [4, 1], axis=1)
    >>> scores = in_proportion(learn_reduction(features, 2)).apply(features)
    >>> np.round(scores.var(axis=0) / scores.var(axis=0).sum(), 1).tolist()
    [0.8, 0.2]
    """
    if reduction.components is None:
        return reduction
    spread = np.sqrt(reduction.explained / reduction.explained.mean())
    return replace(reduction, components=reduction.components * spread[:, None])


def _has_dense(self: Any) -> bool:
    return hasattr(self.encoder_, "dense")


class FrozenFeatures(TransformerMixin, BaseEstimator):
    """Principal components of an encoder's features, with unit variance over the distinct training images.

    Parameters
    ----------
    encoder : transformer of chips
        Such as :class:`causalsat.RandomConvFeatures`; cloned.
    n_components : int
        Most components.
    """

    def __init__(self, encoder: Any, n_components: int) -> None:
        self.encoder = encoder
        self.n_components = n_components

    def fit(self, X: Any, y: ArrayLike | None = None) -> FrozenFeatures:
        """Fit the encoder and the components on chips."""
        self.encoder_ = as_transformer(self.encoder).fit(X)
        features = feature_array(self.encoder_.transform(X))
        rank = min(len(features) - 1, feature_rank(features))
        self.reduction_: Reduction = in_proportion(
            learn_reduction(features, max(1, min(self.n_components, int(rank))))
        )
        return self

    def fit_trained(self, X: Any, y: FloatArray, **roles: Any) -> FloatArray:
        """Train the encoder on outcome and roles; components (m, d) of its cross-fitted features of the chips."""
        self.encoder_ = as_transformer(self.encoder)
        features = np.array(self.encoder_.fit_transform(X, y, **roles), dtype=np.float64)
        known = np.where(np.isfinite(features), features, 0.0)
        rank = feature_rank(known)
        if rank == 0:  # nothing was found: no image differs from another
            self.reduction_ = Reduction(known.mean(axis=0), np.full(known.shape[1], np.inf), None, np.empty(0))
        else:
            self.reduction_ = in_proportion(
                learn_reduction(features, min(self.n_components, rank, len(features) - 1))
            )
        return self.reduction_.apply(features)

    def transform(self, X: Any) -> FloatArray:
        """Components of chips, shape (m, components)."""
        return self.reduction_.apply(feature_array(self.encoder_.transform(X)))

    @available_if(_has_dense)
    def dense(self, window: Any, rows: ArrayLike, cols: ArrayLike, size_px: int) -> FloatArray:
        """Components of overlapping chips of one window; see :meth:`causalsat.RandomConvFeatures.dense`."""
        return self.reduction_.apply(np.array(self.encoder_.dense(window, rows, cols, size_px), dtype=np.float64))
