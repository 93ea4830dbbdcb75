"""Villages that were treated as a whole, pooled by arm and size: their likelihood depends on sums only.

The effect of a village with all units in one arm is one normal variable of variance ``lambda = sigma_u^2 + t_arm^2
sigma_s^2``, and integrating it out takes ``c s s'`` from the coefficients' precision, with s the village's sum of
design rows and c a function of arm and size alone. So villages of the same arm and size share one sum of ``s s'``,
and a cluster-randomised trial costs a few dozen matrices however many villages it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEAST_SAVING = 3  # pool where there are at least so many villages a kind


@dataclass(frozen=True)
class PooledVillages:
    """Sums over villages of the same arm and size.

    Attributes
    ----------
    arm : ndarray of int of shape (kind,)
        Arm.
    t, weight, count : ndarray of shape (kind,)
        Centred treatment, sum of weights of a village, number of villages.
    ss : ndarray of shape (kind, q, q)
        Sums of outer products of the villages' summed design rows.
    sy : ndarray of shape (kind, q)
        Sums of the villages' summed rows times summed outcomes.
    yy : ndarray of shape (kind,)
        Sums of squared summed outcomes.
    """

    arm: IntArray
    t: FloatArray
    weight: FloatArray
    count: FloatArray
    ss: FloatArray
    sy: FloatArray
    yy: FloatArray

    def as_tuple(self) -> tuple[Any, ...]:
        """Arrays for the compiled functions."""
        arrays = (self.arm, self.t, self.weight, self.count, self.ss, self.sy, self.yy)
        return tuple(np.ascontiguousarray(a) for a in arrays)


def pool_villages(
    arm: IntArray, t: FloatArray, weight: FloatArray, sums: FloatArray, outcome: FloatArray
) -> PooledVillages | None:
    """Pool villages that are each in one arm; None where too few have the same size to save work.

    Parameters
    ----------
    arm : ndarray of int of shape (village,)
        Arm of each village.
    t, weight : ndarray of shape (village,)
        Centred treatment and sum of weights.
    sums : ndarray of shape (village, q)
        Weighted sums of design rows.
    outcome : ndarray of shape (village,)
        Weighted sums of outcomes.
    """
    key = np.column_stack([arm, np.round(weight, 9)])
    kinds, member = np.unique(key, axis=0, return_inverse=True)
    member = np.asarray(member).ravel()
    if len(kinds) * LEAST_SAVING > len(arm):
        return None
    m, q = len(kinds), sums.shape[1]
    ss, sy, yy = np.zeros((m, q, q)), np.zeros((m, q)), np.zeros(m)
    of_kind = np.zeros(m)
    for k in range(m):
        mine = member == k
        ss[k], sy[k] = sums[mine].T @ sums[mine], sums[mine].T @ outcome[mine]
        yy[k], of_kind[k] = outcome[mine] @ outcome[mine], t[mine][0]
    count = np.bincount(member, minlength=m).astype(float)
    return PooledVillages(kinds[:, 0].astype(np.int64), of_kind, kinds[:, 1], count, ss, sy, yy)


def no_villages(q: int) -> PooledVillages:
    """Nothing pooled."""
    none = np.zeros(0)
    return PooledVillages(none.astype(np.int64), none, none, none, np.zeros((0, q, q)), np.zeros((0, q)), none)


@njit(cache=True, error_model="numpy")
def _kind(i, variances, noise, pooled):  # type: ignore[no-untyped-def]
    """Variance of a village effect, precision of a unit, and 1 + lambda W / noise, of one kind of village."""
    t = pooled[1][i]
    lam = variances[0]
    if variances.shape[0] > 1:
        lam += t * t * variances[1]
    precision = 1.0 / noise[pooled[0][i]]
    return lam, precision, 1.0 + lam * pooled[2][i] * precision


@njit(cache=True, error_model="numpy")
def subtract_pooled(A, b, variances, noise, pooled):  # type: ignore[no-untyped-def]
    """Take pooled villages from precision A and linear term b in place; their part of (constant, log det)."""
    const, log_det = 0.0, 0.0
    for i in range(pooled[0].shape[0]):
        lam, precision, det = _kind(i, variances, noise, pooled)
        c = lam * precision * precision / det
        A -= c * pooled[4][i]
        b -= c * pooled[5][i]
        const += c * pooled[6][i]
        log_det += pooled[3][i] * np.log(det)
    return const, log_det


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def pooled_gradient(grad, d_noise, signed, n_arms, variances, noise, H, mean, pooled):  # type: ignore[no-untyped-def]
    """Add the pooled villages' part of the gradient in place.

    H is the second moment of the coefficients; ``signed`` begins with the signed village standard deviations.
    """
    q = mean.shape[0]
    for i in range(pooled[0].shape[0]):
        lam, precision, det = _kind(i, variances, noise, pooled)
        omega = pooled[6][i]
        for r in range(q):
            omega -= 2.0 * mean[r] * pooled[5][i, r]
            for s in range(q):
                omega += H[r, s] * pooled[4][i, r, s]
        size = pooled[3][i] * pooled[2][i] * precision / det
        ratio = precision * precision / (det * det)
        by_lambda = 0.5 * omega * ratio - 0.5 * size
        grad[n_arms] += 2.0 * by_lambda * signed[0]
        if variances.shape[0] > 1:
            grad[n_arms + 1] += 2.0 * by_lambda * signed[1] * pooled[1][i] ** 2
        if n_arms > 0:
            d_noise[pooled[0][i]] += 0.5 * lam * (size - omega * ratio * (det + 1.0))
