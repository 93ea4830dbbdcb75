"""Outcomes that a model predicted, corrected by those that were measured: one value a unit with the outcome's mean.

``causalsat.evaluation.predicted_outcomes`` has the formula and its references.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ParameterError

__all__ = ["corrected_outcome", "label_probabilities"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def corrected_outcome(
    f: FloatArray,
    y: FloatArray,
    t: FloatArray,
    pi: FloatArray,
    w: FloatArray,
    cluster: IntArray,
    lam: float | None = None,
) -> tuple[FloatArray, tuple[float, float]]:
    """``y*`` of each unit, shape (n,), and lambda of both arms.

    Examples
    --------
    Predictions that are right but for a constant:

    >>> f, t, one = np.array([1.0, 2, 3, 4, 5, 7]), np.zeros(6), np.ones(6)
    >>> y = np.where(np.arange(6) % 2, f + 10, np.nan)
    >>> corrected_outcome(f, y, t, one / 2, one, np.arange(6), lam=1.0)[0]
    array([11., 12., 13., 14., 15., 17.])
    """
    seen = np.isfinite(y)
    truth = np.where(seen, y, 0.0)
    star, used = np.empty(len(f)), [1.0, 1.0]
    for arm in (0, 1):
        rows = t == arm
        if not rows.any():
            continue
        share = np.where(seen, w / pi, 0.0) * rows
        share = share / share.sum() * (w[rows].sum())  # so that measured units stand for the whole arm
        mass = np.where(rows, w, 0.0)
        middle_y, middle_f = share @ truth / share.sum(), share @ f / share.sum()
        a = share * (truth - middle_y)
        b = mass * (f - mass @ f / mass.sum()) - share * (f - middle_f)
        if lam is None:
            a_g, b_g = np.bincount(cluster, a), np.bincount(cluster, b)
            used[arm] = float(-(a_g @ b_g) / (b_g @ b_g)) if b_g @ b_g > 0 else 0.0
        else:
            used[arm] = float(lam)
        level = middle_y - used[arm] * middle_f
        inverse = np.divide(share, w, out=np.zeros(len(f)), where=w > 0)
        value = used[arm] * f + level + inverse * (truth - used[arm] * f - level)
        star[rows] = value[rows]
    return star, (used[0], used[1])


def label_probabilities(probability: Any, seen: Any, t: FloatArray, w: FloatArray) -> FloatArray:
    """Probability with which each unit was drawn to be measured, (n,): as stated, or the measured share of its arm.

    Examples
    --------
    >>> label_probabilities(None, np.array([True, False, True, True]), np.array([0.0, 0, 1, 1]), np.ones(4))
    array([0.5, 0.5, 1. , 1. ])
    """
    if probability is None:
        share = [w[t == arm] @ seen[t == arm] / max(w[t == arm].sum(), 1e-300) for arm in (0, 1)]
        return np.where(t > 0, share[1], share[0])
    pi = np.broadcast_to(np.asarray(probability, dtype=float), t.shape).astype(float)
    if not (np.isfinite(pi) & (pi > 0) & (pi <= 1)).all():
        raise ParameterError("probability= with values that are no probabilities", expected="above 0 and at most 1")
    return pi
