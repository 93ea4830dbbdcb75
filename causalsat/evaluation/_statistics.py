"""Statistics of heterogeneity in closed form: RATE ratios as linear rank statistics, and a score statistic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["contributions", "rank_ratio", "rank_weights", "score_statistic"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def rank_ratio(
    priority: FloatArray, scores: FloatArray, cluster: IntArray, weight: FloatArray, statistic: str
) -> float:
    """RATE over its cluster-robust standard error, for given priorities and no heterogeneity, in closed form."""
    part = contributions(priority, scores, cluster, weight, statistic)
    scale = float(np.sqrt((part**2).sum()))
    return float(part.sum() / scale) if scale > 0 else 0.0


def score_statistic(latents: FloatArray, scores: FloatArray, cluster: IntArray, weight: FloatArray) -> float:
    """Ridged quadratic form of the latents' covariances with the scores, cluster-robust.

    Examples
    --------
    >>> z = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    >>> round(score_statistic(z, np.array([2.0, 0.0, 2.0, 0.0]), np.arange(4), np.ones(4)), 3)
    2.667
    """
    centred = weight * (scores - np.average(scores, weights=weight))
    z = latents - np.average(latents, axis=0, weights=weight)
    parts = np.stack([np.bincount(cluster, centred * z[:, j]) for j in range(z.shape[1])], axis=1)
    total, variance = parts.sum(axis=0), parts.T @ parts
    ridge = 0.5 * float(np.trace(variance)) / len(total)
    if ridge <= 0:
        return 0.0
    return float(total @ np.linalg.solve(variance + ridge * np.eye(len(total)), total))


def rank_weights(priority: FloatArray, weight: FloatArray, statistic: str) -> FloatArray:
    """Weights a, shape (n,), such that the RATE is sum(w a score) / sum(w); tied priorities share theirs.

    AUTOC: ``a_i = sum over j ranked at or after i of w_j / (w_1 + ... + w_j), less 1``; QINI: the share of the
    weight ranked at or after i, less its mean.

    Examples
    --------
    >>> rank_weights(np.array([2.0, 1.0]), np.ones(2), "autoc")
    array([ 0.5, -0.5])
    """
    order = np.lexsort((weight, -priority))
    w = weight[order]
    mass = np.cumsum(w)
    step = w / mass if statistic == "autoc" else w / mass[-1]
    after = np.cumsum(step[::-1])[::-1]
    new = np.concatenate([[True], np.diff(priority[order]) != 0])
    tie = np.cumsum(new) - 1
    after = (np.bincount(tie, w * after) / np.bincount(tie, w))[tie]
    out = np.empty(len(w))
    out[order] = after - np.average(after, weights=w)
    return out


def contributions(
    priority: FloatArray, scores: FloatArray, cluster: IntArray, weight: FloatArray, statistic: str
) -> FloatArray:
    """Contribution of each cluster to the RATE."""
    a = rank_weights(priority, weight, statistic)
    centred = scores - np.average(scores, weights=weight)
    return np.bincount(cluster, weight * a * centred).astype(np.float64)
