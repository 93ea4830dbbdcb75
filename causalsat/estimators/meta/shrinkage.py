"""What a ridge penalty takes from a fit: the part of the posterior that refits to resampled units do not show.

Ridge regression with the penalty a is the posterior mean under ``beta ~ N(0, (s^2 / a) I)``, s the noise (Hastie,
Tibshirani and Friedman 2009, section 3.4.1). Its posterior covariance is, with G the Gram matrix of the standardised
features and ``A = G + a I``,

``s^2 A^-1 = s^2 A^-1 G A^-1 + s^2 a A^-2``.

The first part is the noise of the estimate, which a bootstrap shows; the second is what the coefficients may have
lost to the penalty, which it does not: draws of it are ``s sqrt(a) A^-1 z`` with z standard normal, the same as if
each refit were shrunk to a centre of its own, drawn from the prior (Bardsley et al. 2014, "Randomize-then-optimize").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["shrinkage_draws"]

FloatArray = NDArray[np.float64]


def shrinkage_draws(
    learner: Any, X: FloatArray, target: FloatArray, weight: FloatArray, n_draws: int, rng: np.random.Generator
) -> FloatArray:
    """Draws (n_draws, p), with mean 0, of what ridge coefficients of X lack; zeros where the learner is no ridge.

    Parameters
    ----------
    learner : fitted scikit-learn regressor
        Ridge or RidgeCV, by itself or after a StandardScaler.
    X, target, weight : ndarray of shape (n, p), (n,) and (n,)
        What it was fitted to.
    n_draws : int
    rng : numpy.random.Generator

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> rng = np.random.default_rng(0)
    >>> X, weight = rng.standard_normal((50, 1)), np.ones(50)
    >>> y = X[:, 0] + rng.standard_normal(50)
    >>> for penalty in (1e-6, 50.0):
    ...     draws = shrinkage_draws(Ridge(alpha=penalty).fit(X, y), X, y, weight, 1000, rng)
    ...     print(draws.shape, round(float(draws.std()), 2))
    (1000, 1) 0.0
    (1000, 1) 0.09
    """
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.preprocessing import StandardScaler

    nothing = np.zeros((n_draws, X.shape[1]))
    steps = [step for _, step in getattr(learner, "steps", [("ridge", learner)])]
    ridge, scale = steps[-1], np.ones(X.shape[1])
    if len(steps) == 2 and isinstance(steps[0], StandardScaler) and steps[0].scale_ is not None:
        scale = steps[0].scale_
    elif len(steps) > 1:
        return nothing
    if not isinstance(ridge, Ridge | RidgeCV):
        return nothing
    penalty = float(np.ravel(ridge.alpha_ if isinstance(ridge, RidgeCV) else ridge.alpha)[0])  # of the one target
    table = (X - np.average(X, axis=0, weights=weight)) / scale
    eigen, vectors = np.linalg.eigh(table.T @ (weight[:, None] * table))
    eigen = np.maximum(eigen, 0.0)
    if penalty <= 0 or weight.sum() <= 0:
        return nothing
    used, n = float((eigen / (eigen + penalty)).sum()) + 1, len(target)
    noise = float(weight @ (target - learner.predict(X)) ** 2) / max(n - used, n / 10)
    z = rng.standard_normal((n_draws, len(eigen)))
    z -= z.mean(axis=0)
    return np.asarray((z * np.sqrt(noise * penalty) / (eigen + penalty)) @ vectors.T / scale)
