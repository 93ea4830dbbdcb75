"""Standardised data and design of the Bayesian linear effect model, and the sums that its likelihood needs.

Functions on arrays; nothing here samples. Notation: a unit i in village g and arm a has outcome ``y``, features
``z`` (standardised), centred treatment ``t`` and modifiers ``m`` (a subset of z). Its design row is
``d = (1, z, t, t m)``, followed by indicators of its stratum and t times those where there are strata, and its
random-effect row is ``r = (1)`` or ``(1, t)``.

The size of the sums of the Gaussian likelihood does not grow with the units. Villages that were treated as a whole
are pooled by arm and size. The effect of such a village is one normal variable of variance ``lambda = sigma_u^2 +
t_arm^2 sigma_s^2``, and integrating it out takes ``c s s'`` from the coefficients' precision, with s the village's
sum of design rows and c a function of arm and size alone. So villages of the same arm and size share one sum of ``s
s'``, and a cluster-randomised trial costs a few dozen matrices however many villages it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RANK_TOLERANCE = 1e-10  # eigenvalues of the Gram matrix below this share of the largest count as zero


@dataclass(frozen=True)
class Scaling:
    """Location and scale of features, outcome and treatment in the training data.

    Attributes
    ----------
    x_mean : ndarray of shape (p,)
        Weighted means of the features.
    x_factor : ndarray of shape (p,)
        One over their weighted standard deviations; 0 for a constant feature, which then has no part.
    y_mean, y_scale : float
        Weighted mean and standard deviation of the outcome; 0 and 1 where it is not rescaled.
    t_centre, t_scale : float
        Weighted mean of the treatment; 1 where it is binary, else two standard deviations, so that one scaled
        unit of a dose is comparable with the step from control to treated.
    """

    x_mean: FloatArray
    x_factor: FloatArray
    y_mean: float
    y_scale: float
    t_centre: float
    t_scale: float

    def features(self, X: FloatArray) -> FloatArray:
        """Standardised features, shape (n, p)."""
        return (X - self.x_mean) * self.x_factor

    def treatment(self, t: FloatArray) -> FloatArray:
        """Centred and scaled treatment, shape (n,)."""
        return (t - self.t_centre) / self.t_scale

    def outcome(self, y: FloatArray) -> FloatArray:
        """Standardised outcome, shape (n,)."""
        return (y - self.y_mean) / self.y_scale


def learn_scaling(X: FloatArray, y: FloatArray, t: FloatArray, weight: FloatArray, *, rescale_y: bool) -> Scaling:
    """Learn the scaling from training data.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Features.
    y, t, weight : ndarray of shape (n,)
        Outcome, treatment, weights with mean 1.
    rescale_y : bool
        Whether the outcome is standardised (a binary one is not).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 5.0], [2.0, 5.0]])
    >>> s = learn_scaling(X, np.array([1.0, 3.0]), np.array([0.0, 1.0]), np.ones(2), rescale_y=True)
    >>> s.features(X)
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    features, dose = learn_scaler(X, weight), learn_scaler(t, weight)
    y_mean, y_scale = 0.0, 1.0
    if rescale_y:
        outcome = learn_scaler(y, weight)
        y_mean, y_scale = float(outcome.mean), float(outcome.scale_or_one)
    binary = bool(np.isin(t, (0.0, 1.0)).all())
    t_scale = 1.0 if binary else 2.0 * float(dose.scale_or_one)
    return Scaling(features.mean, features.factor, y_mean, y_scale, float(dose.mean), t_scale)


@dataclass(frozen=True)
class LinearDesign:
    """Standardised data of the linear model, what both the fast density and the PyMC model read.

    Attributes
    ----------
    main : ndarray of shape (n, p)
        Columns with main effects (standardised features, or their principal axes where those are fewer).
    interaction : ndarray of shape (n, J)
        Centred treatment times modifiers.
    t : ndarray of shape (n,)
        Centred, scaled treatment.
    y, weight : ndarray of shape (n,)
        Standardised outcome; weights with mean 1.
    arm : ndarray of int of shape (n,)
        Noise arm of each unit; all 0 where noise is common.
    group : ndarray of int of shape (n,) or None
        Village codes, None without village effects.
    n_random : int
        Random effects a village: 0 none, 1 intercept, 2 intercept and treatment slope.
    stratum : ndarray of int of shape (n,) or None
        Stratum codes, None without strata.
    offset : float
        Added to the predictor of a logarithm: the logarithm of the mean outcome.
    """

    main: FloatArray
    interaction: FloatArray
    t: FloatArray
    y: FloatArray
    weight: FloatArray
    arm: IntArray
    group: IntArray | None
    n_random: int
    stratum: IntArray | None = None
    offset: float = 0.0

    @property
    def rows(self) -> FloatArray:
        """Design rows (1, main, t, interaction, strata, t x strata), shape (n, 2 + p + J + 2 S)."""
        parts = [np.ones(len(self.y)), self.main, self.t, self.interaction]
        if self.stratum is not None:
            member = np.eye(self.n_strata)[self.stratum]
            parts += [member, self.t[:, None] * member]
        return np.column_stack(parts)

    @property
    def n_strata(self) -> int:
        """Number of strata with effects of their own."""
        return 0 if self.stratum is None else int(self.stratum.max()) + 1

    @property
    def n_arms(self) -> int:
        """Number of noise arms."""
        return int(self.arm.max()) + 1

    @property
    def n_groups(self) -> int:
        """Number of villages with an effect of their own."""
        return 0 if self.group is None or self.n_random == 0 else int(self.group.max()) + 1


def principal_axes(Z: FloatArray) -> FloatArray | None:
    """Orthonormal axes that span the rows of Z, shape (p, rank); None where Z has full column rank.

    Under a prior that is the same for all directions (independent normals of one scale) the model in the
    coordinates ``Z @ axes`` is exactly the model in Z: the likelihood says nothing of the other directions.

    Examples
    --------
    >>> import numpy as np
    >>> principal_axes(np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])).shape
    (2, 1)
    """
    n, p = Z.shape
    if p == 0:
        return None
    if p > n:
        _, s, vt = np.linalg.svd(Z, full_matrices=False)
        eigen, vectors = s**2, vt.T
    else:
        eigen, vectors = np.linalg.eigh(Z.T @ Z)
    keep = eigen > RANK_TOLERANCE * max(float(eigen.max()), 1e-300)
    return None if keep.sum() == p else np.ascontiguousarray(vectors[:, keep])


def expand_axes(
    reduced: FloatArray, axes: FloatArray | None, scale: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Coefficients in the original coordinates from those in principal axes.

    Directions on which the data say nothing get draws from the prior, so that the posterior is exact for
    places whose features leave the span of the training features.

    Parameters
    ----------
    reduced : ndarray of shape (draw, rank)
        Draws in the axes.
    axes : ndarray of shape (p, rank) or None
        Result of :func:`principal_axes`.
    scale : ndarray of shape (draw,)
        Prior standard deviation of each coefficient in each draw.
    """
    if axes is None:
        return reduced
    prior = rng.standard_normal((len(reduced), axes.shape[0])) * scale[:, None]
    return (reduced - prior @ axes) @ axes.T + prior


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
    const, log_det, q = 0.0, 0.0, b.shape[0]
    flat, squares = A.reshape(q * q), pooled[4].reshape(pooled[4].shape[0], q * q)
    for i in range(pooled[0].shape[0]):
        lam, precision, det = _kind(i, variances, noise, pooled)
        c = lam * precision * precision / det
        for r in range(q * q):  # in place: no temporary matrix
            flat[r] -= c * squares[i, r]
        for r in range(q):
            b[r] -= c * pooled[5][i, r]
        const += c * pooled[6][i]
        log_det += pooled[3][i] * np.log(det)
    return const, log_det


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def pooled_gradient(grad, d_noise, signed, n_arms, variances, noise, H, mean, pooled):  # type: ignore[no-untyped-def]
    """Add the pooled villages' part of the gradient in place.

    H is the second moment of the coefficients; ``signed`` begins with the signed village standard deviations.
    """
    q, kinds = mean.shape[0], pooled[0].shape[0]
    if kinds == 0:
        return
    omegas = pooled[6] - 2.0 * (pooled[5] @ mean) + pooled[4].reshape(kinds, q * q) @ H.reshape(q * q)
    for i in range(kinds):
        lam, precision, det = _kind(i, variances, noise, pooled)
        omega = omegas[i]
        size = pooled[3][i] * pooled[2][i] * precision / det
        ratio = precision * precision / (det * det)
        by_lambda = 0.5 * omega * ratio - 0.5 * size
        grad[n_arms] += 2.0 * by_lambda * signed[0]
        if variances.shape[0] > 1:
            grad[n_arms + 1] += 2.0 * by_lambda * signed[1] * pooled[1][i] ** 2
        if n_arms > 0:
            d_noise[pooled[0][i]] += 0.5 * lam * (size - omega * ratio * (det + 1.0))
