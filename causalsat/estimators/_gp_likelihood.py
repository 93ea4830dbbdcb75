"""Marginal posterior of the hyperparameters of the Gaussian-process effect model, given a trial's distinct rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators import _gp_kernels
from causalsat.estimators._gp_kernels import FloatArray, Term
from causalsat.estimators._gp_square import SquareCovariance

__all__ = ["MarginalPosterior", "Model", "Observations", "collapse"]

LEAST_NOISE = 1e-8  # variance that is added to each unit's noise, in variances of the outcome


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


@dataclass(frozen=True)
class Model:
    """Terms of the covariance, random effects, and normal priors of all (mostly logarithmic) parameters.

    Attributes
    ----------
    terms : list of Term
    n_arms : int
        Number of noise levels; their log standard deviations follow the terms' parameters.
    n_random : int
        0: no village effects; 1: intercepts; 2: also slopes in the treatment (log sds, last).
    prior_mean, prior_sd : ndarray of shape (k,)
        Normal priors.
    """

    terms: list[Term]
    n_arms: int
    n_random: int
    prior_mean: FloatArray
    prior_sd: FloatArray

    @property
    def noise_at(self) -> int:
        """Position of the first noise parameter."""
        return _gp_kernels.n_parameters(self.terms)

    def noise_variance(self, theta: FloatArray, data: Observations) -> FloatArray:
        """Variance of each row's mean outcome."""
        return np.asarray(self.unit_noise(theta)[data.arm] / data.weight)

    def unit_noise(self, theta: FloatArray) -> FloatArray:
        """Variance of a unit of weight 1, for each arm."""
        return np.asarray(np.exp(2 * theta[self.noise_at : self.noise_at + self.n_arms]) + LEAST_NOISE)

    def random_variance(self, theta: FloatArray) -> FloatArray:
        """Variances of village effects, shape (n_random,)."""
        return np.asarray(np.exp(2 * theta[self.noise_at + self.n_arms :]))


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


def village_pairs(group: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of all entries of the covariance that two rows of one village meet in.

    Examples
    --------
    >>> village_pairs(np.array([0, 1, 0]))
    (array([0, 0, 2, 2, 1]), array([0, 2, 0, 2, 1]))
    """
    order = np.argsort(group, kind="stable")
    size = np.bincount(group)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    mates = size[group[order]]  # of each row, taken village by village
    first = np.repeat(order, mates)
    position = np.arange(mates.sum()) - np.repeat(np.cumsum(mates) - mates, mates)
    return first, order[np.repeat(start[group[order]], mates) + position]


class MarginalPosterior:
    """Log posterior of the hyperparameters, with gradient and information, in memory that is used again.

    Parameters
    ----------
    model : Model
    data : Observations

    Attributes
    ----------
    count : int
        Evaluations so far.
    """

    def __init__(self, model: Model, data: Observations) -> None:
        self.model, self.data, self.count = model, data, 0
        self.square = SquareCovariance(model.terms, data.Z, data.t)
        self.pairs: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        if model.n_random and data.group is not None:
            rows, columns = village_pairs(data.group)
            self.pairs = rows, columns
            self.random = [np.ones(len(rows)), data.t[rows] * data.t[columns]][: model.n_random]

    def covariance(self, theta: FloatArray) -> FloatArray:
        """Covariance (m, m) of the rows' mean outcomes: surfaces, village effects and noise; overwritten later."""
        K = self.square.build(theta)
        if self.pairs is not None:
            for variance, base in zip(self.model.random_variance(theta), self.random, strict=True):
                K[self.pairs] += variance * base
        K[np.diag_indices(len(K))] += self.model.noise_variance(theta, self.data)
        return K

    def value(self, theta: FloatArray) -> float:
        """Log marginal likelihood plus log prior, up to a constant that depends on the units' weights alone."""
        return self._evaluate(theta, gradient=False)[0]

    def value_and_gradient(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Also the gradient; minus infinity where the covariance is not positive definite."""
        return self._evaluate(theta, gradient=True)

    def _evaluate(self, theta: FloatArray, *, gradient: bool) -> tuple[float, FloatArray]:
        """Rasmussen and Williams (2006), equations 5.8 and 5.9, plus what lies within the distinct rows."""
        from scipy.linalg import blas, lapack

        model, data, at = self.model, self.data, self.model.noise_at
        self.count += 1
        arms = slice(at, at + model.n_arms)
        noise = model.unit_noise(theta)
        K = self.covariance(theta)
        L, failed = lapack.dpotrf(K.T, lower=1, clean=1, overwrite_a=1)  # K.T: Fortran order, no copy
        diagonal = np.diag(L)
        if failed or not np.isfinite(diagonal).all():
            return -np.inf, np.zeros_like(theta)
        alpha, _ = lapack.dpotrs(L, data.y, lower=1)
        rest = -0.5 * (data.extra[:, 0] * np.log(2 * np.pi * noise) + data.extra[:, 1] / noise)
        value = -0.5 * data.y @ alpha - np.log(diagonal).sum() - 0.5 * len(alpha) * np.log(2 * np.pi) + rest.sum()
        z = (theta - model.prior_mean) / model.prior_sd
        value = float(value - 0.5 * z @ z)
        if not gradient:
            return value, np.zeros_like(theta)
        half, _ = lapack.dpotri(L, lower=1, overwrite_c=1)  # lower half of the inverse
        half = blas.dsyr(-1.0, alpha, a=half, lower=1, overwrite_a=1)
        half[np.diag_indices(len(alpha))] *= 0.5
        W = self._symmetric(half)  # inverse - alpha alpha'
        slope = np.zeros_like(theta)
        slope[:at] = self.square.gradient(theta, W)
        inner = np.bincount(data.arm, np.diag(W) / data.weight, minlength=model.n_arms)
        within = inner + data.extra[:, 0] / noise - data.extra[:, 1] / noise**2
        slope[arms] = within * 2 * np.exp(2 * theta[arms])
        if self.pairs is not None:
            own = [W[self.pairs] @ base for base in self.random]
            slope[at + model.n_arms :] = 2 * model.random_variance(theta) * own
        return value, -0.5 * slope - z / model.prior_sd

    def _symmetric(self, half: FloatArray) -> FloatArray:
        if not hasattr(self, "_room"):
            self._room = np.empty_like(self.square.total)
        return np.asarray(np.add(half, half.T, out=self._room))

    def information(self, theta: FloatArray) -> FloatArray:
        """Average information (Gilmour, Thompson and Cullis 1995) plus that of the prior, shape (k, k).

        The mean of observed and expected information of variance parameters: positive definite, and as cheap as
        one vector.
        """
        from scipy.linalg import cho_factor, cho_solve

        model, data, at = self.model, self.data, self.model.noise_at
        factor = cho_factor(self.covariance(theta), lower=True)
        alpha = cho_solve(factor, data.y)
        moved = np.zeros((len(alpha), len(theta)))
        moved[:, :at] = self.square.tangents(theta, alpha)
        arms = np.arange(at, at + model.n_arms)
        share = np.exp(2 * theta[arms])
        for arm in range(model.n_arms):
            moved[:, at + arm] = 2 * np.where(data.arm == arm, share[arm] / data.weight, 0.0) * alpha
        if self.pairs is not None:
            rows, columns = self.pairs
            for k, (v, base) in enumerate(zip(model.random_variance(theta), self.random, strict=True)):
                moved[:, at + model.n_arms + k] = 2 * v * np.bincount(rows, base * alpha[columns], len(alpha))
        information = 0.5 * moved.T @ cho_solve(factor, moved)
        noise = model.unit_noise(theta)
        information[arms, arms] += 2 * data.extra[:, 1] * share**2 / noise**3
        return np.asarray(information + np.diag(model.prior_sd**-2.0))
