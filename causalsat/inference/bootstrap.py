"""Scikit-learn learners under a bootstrap of clusters: defaults, weights, fits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.inference.folds import cluster_arms

__all__ = ["default_classifier", "default_regressor", "draw_weights", "fit_learner", "takes_weights"]

FloatArray = NDArray[np.float64]


def default_regressor() -> Any:
    """Ridge regression on standardised features; the penalty is chosen by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))


def default_classifier() -> Any:
    """Ridge-penalised logistic regression (C = 1) on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def takes_weights(learner: Any) -> bool:
    """Whether a learner, or a Pipeline's last step, can be fitted with ``sample_weight``.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> takes_weights(Ridge()), takes_weights(KNeighborsRegressor())
    (True, False)
    """
    from sklearn.utils.validation import has_fit_parameter

    steps = getattr(learner, "steps", None)
    return bool(has_fit_parameter(learner if steps is None else steps[-1][1], "sample_weight"))


def fit_learner(model: Any, X: FloatArray, target: FloatArray, weight: FloatArray, *, counts: bool) -> Any:
    """Fit a clone of a learner to weighted units, or to each unit ``weight`` times where ``counts``."""
    from sklearn.base import clone

    learner = clone(model)
    if counts:
        rows = np.repeat(np.arange(len(target)), weight.astype(np.int64))
        return learner.fit(X[rows], target[rows])
    if not takes_weights(learner):
        return learner.fit(X, target)
    used = weight > 0
    steps = getattr(learner, "steps", None)
    name = "sample_weight" if steps is None else f"{steps[-1][0]}__sample_weight"
    return learner.fit(X[used], target[used], **{name: weight[used]})


def draw_weights(
    rng: np.random.Generator, groups: NDArray[np.int64] | None, treatment: FloatArray, *, counts: bool
) -> FloatArray:
    """One bootstrap weight a cluster, given to each of its units, shape (n,).

    Exponential weights with mean 1 (the Bayesian bootstrap, Rubin 1981), or, for ``counts``, how often a cluster
    comes when clusters are drawn with replacement within "all control", "all treated" and "both".

    Examples
    --------
    >>> draw_weights(np.random.default_rng(0), np.array([0, 0, 1]), np.array([0.0, 0, 1]), counts=True)
    array([1., 1., 1.])
    """
    binary = bool(np.isin(treatment, (0.0, 1.0)).all())
    codes = np.arange(len(treatment)) if groups is None else groups
    n_clusters = int(codes.max()) + 1
    if not counts:
        weight = rng.exponential(size=n_clusters)
        return np.asarray((weight / weight.mean())[codes])
    strata = cluster_arms(codes, treatment) if binary else np.zeros(n_clusters, dtype=np.int64)
    times = np.zeros(n_clusters)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        np.add.at(times, rng.choice(members, size=len(members)), 1.0)
    return times[codes]
