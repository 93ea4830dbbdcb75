"""From many features to a few components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ParameterError

__all__ = ["Reduction", "count_varying", "feature_rank", "learn_reduction"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Reduction:
    """Standardise features, then project them on components scaled to unit variance in training.

    Attributes
    ----------
    mean, scale : ndarray of shape (features,)
        Training mean and standard deviation; a scale of infinity silences a feature that does not vary.
    components : ndarray of shape (components, features) or None
        Principal directions divided by the standard deviations of their scores; None keeps all features.
    explained : ndarray of shape (components,)
        Share of the standardised features' variance that each component holds; empty without components.
    """

    mean: FloatArray
    scale: FloatArray
    components: FloatArray | None
    explained: FloatArray

    @property
    def n_out(self) -> int:
        """Number of columns that come out."""
        return len(self.mean) if self.components is None else len(self.components)

    def apply(self, features: FloatArray) -> FloatArray:
        """Components of features (n, features); a missing feature counts as the training mean."""
        z = (features - self.mean) / self.scale
        z[~np.isfinite(z)] = 0.0
        return z if self.components is None else z @ self.components.T

    def apply_known(self, features: FloatArray) -> FloatArray:
        """The same, but NaN where all features of a row are missing."""
        scores = self.apply(features)
        scores[~np.isfinite(features).any(axis=1)] = np.nan
        return scores

    @property
    def weight(self) -> FloatArray:
        """What centred features are multiplied by, shape (features, components); there must be components."""
        assert self.components is not None
        return np.asarray(self.components.T / self.scale[:, None])


def learn_reduction(features: FloatArray, n_components: int | float | None) -> Reduction:
    """Learn the standardisation and the principal components from the features of distinct places.

    Parameters
    ----------
    features : ndarray of shape (places, features)
        NaN where a date of a sequence has no valid pixel.
    n_components : int, float in (0, 1) or None
        Number of components, or the share of variance that they hold, or None for all features as they are.
    """
    n = len(features)
    if n < 2:
        raise DataError(
            f"{n} distinct place with valid imagery", expected="at least two", todo="add units or imagery"
        )
    base = _standardisation(features)
    dead = np.isinf(base.scale)
    if n_components is None:
        return base
    if dead.all():
        raise DataError(
            f"image features are the same at all {n} training places",
            expected="imagery that differs between places",
            todo="check the imagery's bands, nodata value and scale",
        )
    z = base.apply(features)
    most = min(n - 1, int((~dead).sum()))
    if n_components >= 1 and n_components > most:
        raise ParameterError(
            f"n_components={n_components} with {n} distinct training places, {int((~dead).sum())} varying features",
            expected=f"at most {most}",
            todo="ask for fewer components; cross-validation leaves fewer places a fold",
        )
    from sklearn.decomposition import PCA

    pca = PCA(n_components=n_components, svd_solver="full").fit(z)
    sd_scores = np.sqrt(np.maximum(pca.explained_variance_, np.finfo(float).tiny))
    return Reduction(base.mean, base.scale, pca.components_ / sd_scores[:, None], pca.explained_variance_ratio_)


def _standardisation(features: FloatArray) -> Reduction:
    """Means and standard deviations of features, infinite for those that vary by no more than rounding."""
    seen = np.isfinite(features)
    filled = np.where(seen, features, 0.0)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = filled.sum(axis=0) / count
    sd = np.sqrt((np.where(seen, features - mean, 0.0) ** 2).sum(axis=0) / count)
    dead = sd <= 1e-7 * np.maximum(np.abs(mean), np.median(sd))
    return Reduction(mean, np.where(dead, np.inf, sd), None, np.empty(0))


def count_varying(features: FloatArray) -> int:
    """How many features vary among places (places, features) by more than rounding.

    Examples
    --------
    >>> count_varying(np.column_stack([np.arange(100.0), np.full(100, 0.1)]))
    1
    """
    return int(np.isfinite(_standardisation(features).scale).sum())


def feature_rank(features: FloatArray) -> int:
    """How many directions complete features (places, features) vary in, by more than single precision's rounding.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    >>> feature_rank(np.column_stack([x, x[:, 0] + x[:, 1], np.full(50, 0.1)]).astype(float))
    2
    """
    size = np.linalg.svd(_standardisation(features).apply(features), compute_uv=False)
    return int((size > 1e-6 * size.max(initial=0.0)).sum())
