"""Standardised distinct rows of a trial, as the Gaussian-process effect model sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.core.scaling import learn_scaler

__all__ = ["Observations", "Scaling", "collapse", "inducing_rows", "learn_scaling", "observe", "random_rows"]

DECIMALS = 9  # of standardised numbers: what differs by rounding alone is the same


@dataclass(frozen=True)
class Scaling:
    """Centres and scales of features, outcome and treatment.

    Standardised numbers are rounded to nine decimals: rows that differ by rounding alone are the same place, and
    neither the unit in which something was measured nor the order in which a mean was summed sends the sampler
    another way.

    Attributes
    ----------
    x_mean, x_sd : ndarray of shape (p,)
        The standard deviation of a feature that does not vary is infinite.
    y_mean, y_sd, t_mean, t_sd : float
        Those of a binary treatment are 0 and 1.
    """

    x_mean: FloatArray
    x_sd: FloatArray
    y_mean: float
    y_sd: float
    t_mean: float
    t_sd: float

    def features(self, X: FloatArray) -> FloatArray:
        """Standardised features; those that did not vary are 0."""
        return np.asarray(np.round((X - self.x_mean) / self.x_sd, DECIMALS))

    def treatment(self, t: FloatArray) -> FloatArray:
        """Treatment as the kernels take it."""
        return np.asarray(np.round((t - self.t_mean) / self.t_sd, DECIMALS))

    def outcome(self, y: FloatArray) -> FloatArray:
        """Standardised outcome."""
        return np.asarray(np.round((y - self.y_mean) / self.y_sd, DECIMALS))


def learn_scaling(X: FloatArray, y: FloatArray, t: FloatArray, weight: FloatArray, *, binary: bool) -> Scaling:
    """Weighted means and standard deviations.

    Examples
    --------
    >>> X, one = np.array([[0.0, 5.0], [2.0, 5.0]]), np.ones(2)
    >>> s = learn_scaling(X, np.array([1.0, 3.0]), np.array([0.0, 1.0]), one, binary=True)
    >>> s.features(np.array([[2.0, 7.0]])), s.y_mean, s.y_sd
    (array([[1., 0.]]), 2.0, 1.0)
    """
    features, outcome, dose = (learn_scaler(v, weight) for v in (X, y, t))
    t_mean, t_sd = (0.0, 1.0) if binary else (float(dose.mean), float(dose.scale_or_one))
    return Scaling(features.mean, features.scale, float(outcome.mean), float(outcome.scale_or_one), t_mean, t_sd)


@dataclass(frozen=True)
class Observations:
    """Distinct rows of a trial, standardised: rows with equal features, treatment and village are one.

    Rows are sorted by arm.

    Attributes
    ----------
    Z : ndarray of shape (m, p)
        Features.
    t : ndarray of shape (m,)
        Treatment: 0 and 1, or standardised.
    y : ndarray of shape (m,)
        Weighted mean outcome of the row's units.
    weight : ndarray of shape (m,)
        Sum of their weights: the precision of y in units of one unit's.
    arm : ndarray of int of shape (m,)
        Which noise applies.
    group : ndarray of int of shape (m,) or None
        Village.
    extra : ndarray of shape (arm, 2)
        For each arm the units beyond the distinct rows, and their squared deviations from the rows' means.
    """

    Z: FloatArray
    t: FloatArray
    y: FloatArray
    weight: FloatArray
    arm: NDArray[np.int64]
    group: NDArray[np.int64] | None
    extra: FloatArray

    def take(self, rows: NDArray[np.int64]) -> Observations:
        """Some of the rows, with the extra squares in proportion."""
        rows = np.sort(rows)
        group = None if self.group is None else np.unique(self.group[rows], return_inverse=True)[1].astype(np.int64)
        share = len(rows) / len(self.y)
        return Observations(
            self.Z[rows], self.t[rows], self.y[rows], self.weight[rows], self.arm[rows], group, self.extra * share
        )


def observe(
    scaling: Scaling,
    X: FloatArray,
    y: FloatArray,
    t: FloatArray,
    weight: FloatArray,
    group: NDArray[np.int64] | None,
    *,
    binary: bool,
) -> Observations:
    """Distinct standardised rows of the units with a weight; noise is by arm where the treatment is binary."""
    live = weight > 0
    arm = t.astype(np.int64) if binary else np.zeros(len(y), dtype=np.int64)
    return collapse(
        scaling.features(X)[live],
        scaling.treatment(t)[live],
        scaling.outcome(y)[live],
        weight[live],
        arm[live],
        None if group is None else group[live],
    )


def collapse(
    Z: FloatArray,
    t: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    arm: NDArray[np.int64],
    group: NDArray[np.int64] | None,
) -> Observations:
    """Merge units that share features, treatment and village; the likelihood stays exact.

    Weighted means and sums of squares are sufficient: rows keep the order of their first units within an arm.

    Examples
    --------
    >>> one = np.ones(4)
    >>> data = collapse(np.array([[0.0], [0.0], [1.0], [1.0]]), one, np.arange(4.0), one, np.zeros(4, int), None)
    >>> data.y, data.weight, data.extra
    (array([0.5, 2.5]), array([2., 2.]), array([[2., 1.]]))
    """
    keys = np.column_stack([Z, t, arm, np.zeros(len(t)) if group is None else group])
    _, first, label = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.lexsort((first, arm[first]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    label, first = rank[np.ravel(label)], np.asarray(first[order])
    total = np.asarray(np.bincount(label, weight), dtype=float)
    mean = np.asarray(np.bincount(label, weight * y) / total)
    n_arms = int(arm.max()) + 1
    units = np.bincount(arm, minlength=n_arms) - np.bincount(arm[first], minlength=n_arms)
    squares = np.bincount(arm, weight * (y - mean[label]) ** 2, minlength=n_arms)
    extra = np.column_stack([units, squares]).astype(float)
    return Observations(Z[first], t[first], mean, total, arm[first], None if group is None else group[first], extra)


# ---------------------------------------------------------------------- choices of rows
def random_rows(data: Observations, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """About n random rows: whole villages, and both arms in proportion."""
    if data.group is None:
        shuffled = rng.permutation(len(data.y))
        order = shuffled[np.argsort(data.arm[shuffled], kind="stable")]
        return np.sort(order[np.linspace(0, len(order) - 1, n).astype(int)])
    rank = rng.permutation(int(data.group.max()) + 1)[data.group]
    order = np.argsort(rank, kind="stable")
    last = rank[order[min(n, len(order)) - 1]]
    return np.flatnonzero(rank <= last)


def inducing_rows(data: Observations, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random rows, both arms alike: where inducing points lie."""
    chosen = []
    for arm in range(int(data.arm.max()) + 1):
        rows = np.flatnonzero(data.arm == arm)
        share = min(len(rows), max(1, n // (int(data.arm.max()) + 1)))
        chosen.append(rng.choice(rows, share, replace=False))
    return np.sort(np.concatenate(chosen))
