"""Learners under a bootstrap of clusters: defaults, weights, fits, and how much wider few clusters make it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError
from causalsat.inference.folds import MIXED, cluster_arms
from causalsat.inference.ridge import ridge_pipeline

__all__ = [
    "MIN_CLUSTERS",
    "check_clusters",
    "clusters_by_arm",
    "default_classifier",
    "default_regressor",
    "draw_weights",
    "fit_learner",
    "small_sample_factor",
    "takes_weights",
]

FloatArray = NDArray[np.float64]

MIN_CLUSTERS = 2  # of each arm: of one alone, nothing says how clusters differ


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

    if not counts:
        used = weight > 0
        whole = bool(used.all())
        ridge = ridge_pipeline(model, *((X, target, weight) if whole else (X[used], target[used], weight[used])))
        if ridge is not None:
            return ridge
    learner = clone(model)
    if counts:
        rows = np.repeat(np.arange(len(target)), weight.astype(np.int64))
        return learner.fit(X[rows], target[rows])
    if not takes_weights(learner):
        return learner.fit(X, target)
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


def small_sample_factor(n_clusters: tuple[float, float], n_features: int) -> float:
    """How much wider than a bootstrap of clusters an interval must be where clusters are few, or a few hold most.

    The bootstrap's variance, as the sandwich without correction, misses the degrees of freedom that the learners
    use (MacKinnon and White 1985). An arm of n clusters has df = n - (p + 1), at least n / 2, and its variance is
    multiplied by n / df, by 3 for two clusters, of which the Bayesian bootstrap shows a third. The arms' variances
    are as one over their clusters; those of their sum's degrees of freedom are Satterthwaite's (1946). The factor is
    the root of the sum's correction times the ratio of 95 % quantiles of Student's t and of the normal.

    Parameters
    ----------
    n_clusters : tuple of two floats
        Effective clusters of each arm, as of ``clusters_by_arm``.
    n_features : int
        p, the features.

    Examples
    --------
    >>> [round(small_sample_factor(n, 4), 2) for n in ((20, 20), (1000, 1000), (37, 3))]
    [1.19, 1.0, 2.88]
    """
    from scipy.stats import norm, t

    n = np.asarray(n_clusters, dtype=float)
    df = np.maximum(np.maximum(n - (n_features + 1), n / 2), 0.5)
    seen = 1 / n
    right = seen * np.maximum(n / df, np.where(n <= MIN_CLUSTERS, 3.0, 1.0))
    joint = right.sum() ** 2 / (right**2 / df).sum()
    return float(np.sqrt(right.sum() / seen.sum()) * t.ppf(0.95, joint) / norm.ppf(0.95))


def clusters_by_arm(
    treatment: FloatArray, groups: NDArray[np.int64] | None, weight: FloatArray | None = None
) -> tuple[float, float]:
    """Effective clusters of the control and of the treated arm; half of all each where the treatment is a dose.

    ``(sum W)^2 / sum W^2`` over the arm's clusters, W the sum of their units' weights: so many of equal weight would
    carry as much. A cluster of both arms counts as half a cluster of each.

    Examples
    --------
    >>> village, t = np.array([0, 0, 0, 1, 2, 3]), np.array([0, 0, 0, 0, 1, 1])
    >>> clusters_by_arm(t, village)
    (1.6, 2.0)
    """
    codes = np.arange(len(treatment)) if groups is None else groups
    w = np.ones(len(codes)) if weight is None else weight
    if not np.isin(treatment, (0.0, 1.0)).all():
        half = _effective(np.bincount(codes, w), 1.0) / 2
        return half, half
    parts = np.where(cluster_arms(codes, treatment) == MIXED, 2.0, 1.0)
    masses = (np.bincount(codes, w * (treatment == arm), minlength=len(parts)) for arm in (0, 1))
    control, treated = (_effective(mass, parts) for mass in masses)
    return control, treated


def _effective(mass: NDArray[Any], parts: float | FloatArray) -> float:
    return float(mass.sum() ** 2 / (parts * mass**2).sum())


def check_clusters(treatment: FloatArray, groups: NDArray[np.int64] | None) -> None:
    """Refuse an arm, or a dose, that is seen in one cluster only.

    Raises
    ------
    DataError
        If an arm, or all units of a dose, are in fewer than ``MIN_CLUSTERS`` clusters.
    """
    if groups is None:
        return
    binary = bool(np.isin(treatment, (0.0, 1.0)).all())
    arms = [("treated", 1.0), ("control", 0.0)] if binary else [("all", None)]
    for name, value in arms:
        rows = slice(None) if value is None else treatment == value
        n = len(np.unique(groups[rows]))
        if n < MIN_CLUSTERS:
            raise DataError(
                f"{name} units in {n} cluster",
                expected=f"units of each arm in at least {MIN_CLUSTERS} clusters: one alone does not show how much "
                "clusters differ",
                todo="use data with more clusters; groups are the units of assignment, such as villages",
            )
