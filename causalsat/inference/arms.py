r"""Several arms at once: cross-fitted scores of each arm's mean outcome, and one covariance of them all.

The score of arm k is ``mu_k(x) + 1{T = k} (y - mu_k(x)) / e_k`` (Robins, Rotnitzky and Zhao 1994, for each arm);
contrasts are differences of the arms' means, so that they add up: ``(a, b) + (b, c) = (a, c)``. Units of control
enter every contrast with control, and the covariance says so.

With ``s_g`` the influence of cluster g on the means, the covariance is the sum over cells c of
``G_c / (G_c - 1) sum_g (s_g - mean_c)(s_g - mean_c)'``: cells are the arms of strata, whose numbers of clusters the
design fixed (Neyman 1923). Strata in which an arm holds a single cluster are clusters as a whole, and together a
cell. Without covariates and clusters this is the covariance HC2 of a regression on indicators of the arms. Degrees of
freedom of a contrast are Welch and Satterthwaite's over cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import TreatmentError
from causalsat.inference.folds import assign_folds
from causalsat.inference.nuisances import crossfit_predictions, default_outcome_model, default_propensity_model

__all__ = ["ArmMeans", "ArmScores", "arm_means", "arm_scores", "arm_shares", "cells_of_arms"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ArmScores:
    """Doubly robust scores of the arms' mean outcomes.

    Attributes
    ----------
    scores : ndarray of shape (n, K)
        One column an arm.
    propensity : ndarray of shape (n, K)
        Probability of each arm.
    fold : ndarray of int of shape (n,)
        The fold in which the unit was held out.
    """

    scores: FloatArray
    propensity: FloatArray
    fold: IntArray


@dataclass(frozen=True, eq=False)
class ArmMeans:
    """Mean outcomes under each arm, and their joint covariance.

    Attributes
    ----------
    mean : ndarray of shape (K,)
    parts : ndarray of shape (C, K, K)
        Covariance that each cell of the design contributes.
    part_df : ndarray of shape (C,)
        Degrees of freedom of the cells: clusters less one.
    """

    mean: FloatArray
    parts: FloatArray
    part_df: FloatArray

    @property
    def cov(self) -> FloatArray:
        """Covariance of the means, shape (K, K)."""
        return np.asarray(self.parts.sum(axis=0))

    def contrast(self, a: int, b: int) -> tuple[float, float, float]:
        """Estimate, standard error and degrees of freedom of arm a against arm b."""
        direction = np.zeros(len(self.mean))
        direction[a], direction[b] = 1.0, -1.0
        parts = np.einsum("i,cij,j->c", direction, self.parts, direction)
        total = float(parts.sum())
        squares = float((parts**2 / self.part_df).sum())
        df = total**2 / squares if squares > 0 else float(self.part_df.sum())
        return float(self.mean[a] - self.mean[b]), float(np.sqrt(max(total, 0.0))), float(df)


def arm_shares(arm: IntArray, n_arms: int, strata: IntArray | None, clusters: IntArray, weight: Any) -> FloatArray:
    """Probability of each arm, shape (n, K): shares of units, or of the stratum's clusters.

    Raises
    ------
    TreatmentError
        If a stratum lacks an arm.

    Examples
    --------
    >>> arm_shares(np.array([0, 1, 2, 2]), 3, None, np.arange(4), np.ones(4))[0]
    array([0.25, 0.25, 0.5 ])
    """
    indicator = np.eye(n_arms)[arm]
    if strata is None:
        return np.tile(np.average(indicator, axis=0, weights=weight), (len(arm), 1))
    size = np.bincount(clusters).astype(float)
    own = np.stack([np.bincount(clusters, indicator[:, k]) / size for k in range(n_arms)], axis=1)
    home = np.zeros(len(size), dtype=np.int64)
    home[clusters] = strata
    mass = size if ((own > 0) & (own < 1)).any() else np.ones(len(size))
    total = np.stack([np.bincount(home, mass * own[:, k]) for k in range(n_arms)], axis=1)
    share = total / total.sum(axis=1, keepdims=True)
    lacking = int((share <= 0).any(axis=1).sum())
    if lacking:
        raise TreatmentError(
            f"{lacking} of {len(share)} strata lack an arm",
            expected="every arm in each stratum",
            todo="join strata that were randomised together, or leave the strata or the arm out and say so",
        )
    return np.asarray(share[strata])


def arm_folds(arm: IntArray, clusters: IntArray | None, n_splits: int, rng: Any, keys: Any) -> IntArray:
    """Folds over clusters in which each arm has its share; fewer folds where an arm has few clusters."""
    code = np.arange(len(arm)) if clusters is None else clusters
    low, high = np.full(int(code.max()) + 1, np.inf), np.full(int(code.max()) + 1, -np.inf)
    np.minimum.at(low, code, arm)
    np.maximum.at(high, code, arm)
    if (low < high).any():
        return assign_folds(min(n_splits, len(low)), rng, n=len(arm), groups=clusters, keys=keys)
    counts = np.bincount(low.astype(np.int64))
    if counts.min() < 2:
        raise TreatmentError(
            "an arm with one unit" if clusters is None else "an arm with one cluster",
            expected="two or more of each arm",
            todo="leave the arm out",
        )
    splits = int(min(n_splits, counts.min()))
    fold = np.empty(len(arm), dtype=np.int64)
    for k in range(len(counts)):
        rows = arm == k
        groups = None if clusters is None else np.unique(clusters[rows], return_inverse=True)[1].astype(np.int64)
        own = tuple(np.asarray(key)[rows] for key in keys)
        fold[rows] = assign_folds(splits, rng, n=int(rows.sum()), groups=groups, keys=own)
    return fold


def arm_scores(
    X: FloatArray,
    y: FloatArray,
    arm: IntArray,
    n_arms: int,
    *,
    strata: IntArray | None = None,
    clusters: IntArray | None = None,
    weight: FloatArray | None = None,
    propensity: FloatArray | None = None,
    randomised: bool = True,
    outcome_model: Any = None,
    n_splits: int = 5,
    min_propensity: float = 0.01,
    random_state: Any = 0,
) -> ArmScores:
    """Cross-fitted scores of each arm's mean.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Features; p may be 0.
    y : ndarray of shape (n,)
        Outcome.
    arm : ndarray of int of shape (n,)
        Codes 0 .. K - 1.
    n_arms : int
        K.
    strata, clusters : ndarrays of int of shape (n,), optional
        Within, and to, which arms were assigned.
    weight : ndarray of shape (n,), optional
        Survey weights.
    propensity : ndarray of shape (n, K), optional
        Probabilities of the arms; by default their shares, or a multinomial logistic regression on X where the
        study was not randomised.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arm, x = np.arange(600) % 3, rng.standard_normal((600, 1))
    >>> y = np.array([0.0, 1.0, 3.0])[arm] + x[:, 0] + 0.1 * rng.standard_normal(600)
    >>> arm_scores(x, y, arm, 3).scores.mean(axis=0).round(1) + 0.0
    array([0., 1., 3.])
    """
    rng = np.random.default_rng(random_state)
    fold = arm_folds(arm, clusters, n_splits, rng, (y, arm, *np.nan_to_num(X).T))
    w = np.ones(len(y)) if weight is None else weight
    if propensity is not None:
        e = propensity
    elif randomised:
        e = arm_shares(arm, n_arms, strata, np.arange(len(y)) if clusters is None else clusters, w)
    else:
        e = _multinomial(X, arm, n_arms, fold, weight)
    e = np.clip(e, min_propensity, 1.0)
    model = default_outcome_model() if outcome_model is None else outcome_model
    indicator = np.eye(n_arms)[arm]
    mu = np.empty((len(y), n_arms))
    for k in range(n_arms):
        if X.shape[1]:
            mu[:, k] = crossfit_predictions(model, X, y, fold, weight, fitted_on=arm == k)
        else:
            inverse = w * indicator[:, k] / e[:, k]
            mu[:, k] = np.average(y, weights=inverse)
    scores = mu + indicator * (y[:, None] - mu) / e
    return ArmScores(scores, e, fold)


def _multinomial(X: FloatArray, arm: IntArray, n_arms: int, fold: IntArray, weight: FloatArray | None) -> FloatArray:
    """Out-of-fold probabilities of the arms by a penalised logistic regression, shape (n, K)."""
    from sklearn import config_context

    out = np.zeros((len(arm), n_arms))
    for k in np.unique(fold):
        held = fold == k
        learner = default_propensity_model()
        given = {} if weight is None else {f"{learner.steps[-1][0]}__sample_weight": weight[~held]}
        with config_context(enable_metadata_routing=False):
            learner.fit(X[~held], arm[~held], **given)
        out[np.ix_(held, learner.classes_)] = learner.predict_proba(X[held])
    return out


def cells_of_arms(arm: IntArray, strata: IntArray | None, clusters: IntArray | None) -> tuple[IntArray, IntArray]:
    """Cell of each unit and cluster of its variance, each (n,).

    Clusters of several arms are a kind of their own. Strata in which a cell holds one cluster are clusters as a
    whole, and together one cell.

    Examples
    --------
    >>> cells_of_arms(np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 1]), None)  # two triples
    (array([0, 0, 0, 0, 0, 0]), array([0, 0, 0, 1, 1, 1]))
    """
    n_arms = int(arm.max()) + 1
    code = np.arange(len(arm)) if clusters is None else clusters
    low, high = np.full(int(code.max()) + 1, n_arms + 1), np.full(int(code.max()) + 1, -1)
    np.minimum.at(low, code, arm)
    np.maximum.at(high, code, arm)
    kind = np.where(low < high, n_arms, low)[code]
    block = np.zeros(len(arm), dtype=np.int64) if strata is None else strata
    cell = block * (n_arms + 1) + kind
    pairs = np.unique(np.stack([cell, code]), axis=1)
    sizes = np.bincount(pairs[0], minlength=int(cell.max()) + 1)
    alone = np.zeros(int(block.max()) + 1, dtype=bool)
    np.logical_or.at(alone, block, sizes[cell] == 1)
    fine = alone[block]
    if strata is None or alone.sum() < 2:
        return np.unique(cell, return_inverse=True)[1].astype(np.int64), np.asarray(code, dtype=np.int64)
    cell = np.where(fine, -1, cell)
    code = np.where(fine, int(code.max()) + 1 + block, code)
    found = [np.unique(values, return_inverse=True)[1].astype(np.int64) for values in (cell, code)]
    return found[0], found[1]


def arm_means(scores: FloatArray, weight: FloatArray, cell: IntArray, cluster: IntArray) -> ArmMeans:
    """Weighted means of the arms' scores with the covariance of the module's text.

    Parameters
    ----------
    scores : ndarray of shape (n, K)
    weight : ndarray of shape (n,)
    cell, cluster : ndarrays of int of shape (n,)
        From :func:`cells_of_arms`; one cell for a random sample of clusters.
    """
    share = weight / weight.sum()
    mean = share @ scores
    influence = share[:, None] * (scores - mean)
    n_clusters = int(cluster.max()) + 1
    sums = np.stack([np.bincount(cluster, column, minlength=n_clusters) for column in influence.T], axis=1)
    home = np.zeros(n_clusters, dtype=np.int64)
    home[cluster] = cell
    parts, dfs = [], []
    for c in np.unique(home):
        own = sums[home == c]
        left = own - own.mean(axis=0)
        df = max(len(own) - 1, 1)
        parts.append(left.T @ left * len(own) / df)
        dfs.append(float(df))
    return ArmMeans(np.asarray(mean), np.stack(parts), np.array(dfs))
