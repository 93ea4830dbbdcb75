"""Sums that the Gaussian likelihood of the linear effect model needs: their size does not grow with the units.

Villages that were treated as a whole are pooled by arm and size. The effect of such a village is one normal variable
of variance ``lambda = sigma_u^2 + t_arm^2 sigma_s^2``, and integrating it out takes ``c s s'`` from the coefficients'
precision, with s the village's sum of design rows and c a function of arm and size alone. So villages of the same arm
and size share one sum of ``s s'``, and a cluster-randomised trial costs a few dozen matrices however many villages it
has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.estimators.linear.data import LinearDesign

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MIN_VILLAGES_A_KIND = 3  # on average, from which pooling saves work


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
    if len(kinds) * MIN_VILLAGES_A_KIND > len(arm):
        return None
    m, q = len(kinds), sums.shape[1]
    ss, sy, yy = np.zeros((m, q, q)), np.zeros((m, q)), np.zeros(m)
    t_of_kind = np.zeros(m)
    for k in range(m):
        own = member == k
        ss[k], sy[k] = sums[own].T @ sums[own], sums[own].T @ outcome[own]
        yy[k], t_of_kind[k] = outcome[own] @ outcome[own], t[own][0]
    count = np.bincount(member, minlength=m).astype(float)
    return PooledVillages(kinds[:, 0].astype(np.int64), t_of_kind, kinds[:, 1], count, ss, sy, yy)


def no_villages(q: int) -> PooledVillages:
    """Nothing pooled."""
    none = np.zeros(0)
    return PooledVillages(none.astype(np.int64), none, none, none, np.zeros((0, q, q)), np.zeros((0, q)), none)


# ---------------------------------------------------------------------- statistics
@dataclass(frozen=True)
class Statistics:
    """All that the Gaussian likelihood needs to know of the data; its size does not grow with the units.

    A cell is a village-by-arm combination that has units. Villages in one arm of a binary treatment are pooled by
    size where that saves work; the cells are those of the other villages, sorted by village.

    Attributes
    ----------
    dd : ndarray of shape (arm, q, q)
        Weighted sums of outer products of design rows.
    dy : ndarray of shape (arm, q)
        Weighted sums of design rows times outcome.
    yy, total : ndarray of shape (arm,)
        Weighted sums of squared outcomes; sums of weights.
    rr : ndarray of shape (cell, k, k)
        Weighted sums of outer products of random-effect rows.
    rd : ndarray of shape (cell, k, q)
        Weighted sums of random-effect rows times design rows.
    ry : ndarray of shape (cell, k)
        Weighted sums of random-effect rows times outcome.
    cell_arm, cell_group : ndarray of int of shape (cell,)
        Arm and village of each cell.
    n_groups : int
        Number of villages in cells.
    pooled : PooledVillages
        The villages that are not in cells.
    """

    dd: FloatArray
    dy: FloatArray
    yy: FloatArray
    total: FloatArray
    rr: FloatArray
    rd: FloatArray
    ry: FloatArray
    cell_arm: IntArray
    cell_group: IntArray
    n_groups: int
    pooled: PooledVillages


def sufficient_statistics(design: LinearDesign) -> Statistics:
    """Sums over arms and over village-by-arm cells."""
    rows, y, w, arm = design.rows, design.y, design.weight, design.arm
    q = rows.shape[1]
    n_arms = design.n_arms
    dd, dy = np.zeros((n_arms, q, q)), np.zeros((n_arms, q))
    yy, total = np.zeros(n_arms), np.zeros(n_arms)
    for a in range(n_arms):
        own = arm == a
        weighted = rows[own] * w[own, None]
        dd[a], dy[a] = weighted.T @ rows[own], weighted.T @ y[own]
        yy[a], total[a] = (w[own] * y[own]) @ y[own], w[own].sum()
    cells, pooled = _village_statistics(design, rows)
    rr, rd, ry, cell_arm, cell_group, n_groups = cells
    return Statistics(dd, dy, yy, total, rr, rd, ry, cell_arm, cell_group, n_groups, pooled)


def _village_statistics(design: LinearDesign, rows: FloatArray) -> tuple[tuple[Any, ...], PooledVillages]:
    """Sums by cell (rr, rd, ry, arm, village, number of villages), and the pooled villages."""
    q, k, y, w = rows.shape[1], design.n_random, design.y, design.weight
    none = np.zeros(0, dtype=np.int64)
    if design.n_groups == 0:
        empty = (np.zeros((0, 1, 1)), np.zeros((0, 1, q)), np.zeros((0, 1)), none, none, 0)
        return empty, no_villages(q)
    assert design.group is not None
    codes, cell_of = np.unique(design.group * design.n_arms + design.arm, return_inverse=True)
    arm, village = codes % design.n_arms, codes // design.n_arms
    random = np.column_stack([np.ones(len(y)), design.t])[:, :k]
    order = np.argsort(cell_of, kind="stable")
    starts = np.searchsorted(cell_of[order], np.arange(len(codes)))

    def by_cell(values: FloatArray) -> FloatArray:
        return np.asarray(np.add.reduceat(values[order], starts, axis=0))

    rr, rd, ry = np.empty((len(codes), k, k)), np.empty((len(codes), k, q)), np.empty((len(codes), k))
    for j in range(k):
        scaled = w * random[:, j]
        rr[:, j] = by_cell(scaled[:, None] * random)
        rd[:, j] = by_cell(scaled[:, None] * rows)
        ry[:, j] = by_cell(scaled * y)
    t = design.t[order][starts]
    alone = (np.bincount(village)[village] == 1) & (design.n_arms > 1)
    pooled = pool_villages(arm[alone], t[alone], rr[alone, 0, 0], rd[alone, 0], ry[alone, 0]) if alone.any() else None
    keep = np.ones(len(codes), dtype=bool) if pooled is None else ~alone
    in_cells, renumbered = np.unique(village[keep], return_inverse=True)
    cells = (rr[keep], rd[keep], ry[keep], arm[keep], renumbered.astype(np.int64), len(in_cells))
    return cells, no_villages(q) if pooled is None else pooled


# ---------------------------------------------------------------------- compiled
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
