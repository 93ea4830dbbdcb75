"""Marginal likelihood of the Gaussian-process effect model, its priors, its mode and the spread around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators import _gp_kernels
from causalsat.estimators._gp_kernels import FloatArray, Term

__all__ = [
    "Model",
    "Observations",
    "collapse",
    "find_mode",
    "hyperparameter_draws",
    "laplace_factor",
    "log_posterior",
]

JITTER = 1e-8


@dataclass(frozen=True)
class Observations:
    """Distinct rows of a trial, standardised: rows with equal features, treatment and village are one.

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
        return np.asarray(np.exp(2 * theta[self.noise_at : self.noise_at + self.n_arms])[data.arm] / data.weight)

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

    Examples
    --------
    >>> one = np.ones(4)
    >>> data = collapse(np.array([[0.0], [0.0], [1.0], [1.0]]), one, np.arange(4.0), one, np.zeros(4, int), None)
    >>> data.y, data.weight, data.extra
    (array([0.5, 2.5]), array([2., 2.]), array([[2., 1.]]))
    """
    keys = np.column_stack([Z, t, arm, np.zeros(len(t)) if group is None else group])
    _, first, label = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # rows stay in the order of the units
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


def random_covariance(model: Model, theta: FloatArray, data: Observations) -> list[FloatArray]:
    """Covariances (m, m) of village intercepts and slopes, one for each random effect."""
    if not model.n_random or data.group is None:
        return []
    same = (data.group[:, None] == data.group[None]).astype(float)
    bases = [same] if model.n_random == 1 else [same, same * np.multiply.outer(data.t, data.t)]
    return [v * base for v, base in zip(model.random_variance(theta), bases, strict=True)]


def log_posterior(
    theta: FloatArray, model: Model, data: Observations, *, gradient: bool = True
) -> tuple[float, FloatArray]:
    """Log marginal likelihood plus log prior (up to a constant) and its gradient (zeros where not asked for).

    Rasmussen and Williams (2006), equations 5.8 and 5.9. Minus infinity where the covariance is not positive
    definite.
    """
    from scipy.linalg import lapack

    n, at = len(data.y), model.noise_at
    K, parts = _gp_kernels.covariance_and_parts(model.terms, theta, data.Z, data.t)
    villages = random_covariance(model, theta, data)
    for block in villages:
        K += block
    noise = model.noise_variance(theta, data)
    K[np.diag_indices(n)] += noise + JITTER
    L, failed = lapack.dpotrf(K.T, lower=1, clean=1, overwrite_a=1)  # K.T: Fortran order, no copy
    if failed or not np.isfinite(L[-1, -1]):
        return -np.inf, np.zeros_like(theta)
    alpha, _ = lapack.dpotrs(L, data.y, lower=1)
    log_sd = theta[at : at + model.n_arms]
    rest = -(data.extra[:, 0] * log_sd) - 0.5 * data.extra[:, 1] * np.exp(-2 * log_sd)
    value = -0.5 * data.y @ alpha - np.log(np.diag(L)).sum() - 0.5 * n * np.log(2 * np.pi) + rest.sum()
    z = (theta - model.prior_mean) / model.prior_sd
    value = float(value - 0.5 * z @ z)
    if not gradient:
        return value, np.zeros_like(theta)
    half, _ = lapack.dpotri(L, lower=1, overwrite_c=1)  # lower half of the inverse
    half[np.diag_indices(n)] *= 0.5
    G = np.multiply.outer(alpha, alpha)
    G -= half
    G -= half.T
    G *= 0.5
    slope = np.zeros_like(theta)
    slope[:at] = _gp_kernels.covariance_gradient(model.terms, theta, data.Z, data.t, parts, G)
    slope[at : at + model.n_arms] = np.bincount(data.arm, 2 * np.diag(G) * noise, minlength=model.n_arms)
    slope[at : at + model.n_arms] += -data.extra[:, 0] + data.extra[:, 1] * np.exp(-2 * log_sd)
    for k, block in enumerate(villages):
        slope[at + model.n_arms + k] = 2 * np.einsum("ij,ij->", G, block)
    return value, slope - z / model.prior_sd


def find_mode(
    model: Model, data: Observations, starts: Sequence[FloatArray], max_iter: int, short_iter: int = 25
) -> tuple[FloatArray, float, int]:
    """Mode of the posterior: a short L-BFGS run from every start, then the best one to the end.

    Returns
    -------
    theta : ndarray of shape (k,)
    value : float
        Log posterior there.
    evaluations : int
        Number of likelihood evaluations.
    """
    from scipy.optimize import minimize

    scale, count = model.prior_sd, 0

    def objective(z: FloatArray) -> tuple[float, FloatArray]:
        nonlocal count
        count += 1
        value, gradient = log_posterior(model.prior_mean + scale * z, model, data)
        return (-value, -gradient * scale) if np.isfinite(value) else (1e25, np.zeros_like(z))

    def run(z: FloatArray, most: int) -> tuple[float, FloatArray]:
        options = {"maxiter": most, "maxcor": 20, "ftol": 1e-8, "gtol": 1e-3}
        found = minimize(objective, z, jac=True, method="L-BFGS-B", options=options)
        return float(found.fun), np.asarray(found.x)

    z0 = [(start - model.prior_mean) / scale for start in starts]
    best = z0[0]
    if len(z0) > 1:
        best = min((run(z, short_iter) for z in z0), key=lambda found: found[0])[1]
    value, best = run(best, max_iter)
    return model.prior_mean + scale * best, -value, count


def laplace_factor(theta: FloatArray, model: Model, data: Observations) -> FloatArray:
    """Factor F (k, k) of the Laplace approximation's covariance F F' at the mode.

    The curvature is the average information (Gilmour, Thompson and Cullis 1995): the mean of observed and expected
    information of variance parameters, positive semi-definite and as cheap as one vector; the prior adds its own.
    """
    from scipy.linalg import cho_factor, cho_solve

    at = model.noise_at
    K, parts = _gp_kernels.covariance_and_parts(model.terms, theta, data.Z, data.t)
    villages = random_covariance(model, theta, data)
    noise = model.noise_variance(theta, data)
    K[np.diag_indices(len(noise))] += noise + JITTER
    factor = cho_factor(K + sum(villages), lower=True, overwrite_a=True)
    alpha = cho_solve(factor, data.y)
    moved = np.zeros((len(noise), len(theta)))
    moved[:, :at] = _gp_kernels.covariance_tangents(model.terms, theta, data.Z, data.t, parts, alpha)
    for arm in range(model.n_arms):
        moved[:, at + arm] = 2 * np.where(data.arm == arm, noise, 0.0) * alpha
    for k, block in enumerate(villages):
        moved[:, at + model.n_arms + k] = 2 * block @ alpha
    information = 0.5 * moved.T @ cho_solve(factor, moved)
    arms = slice(at, at + model.n_arms)
    information[arms, arms] += np.diag(2 * data.extra[:, 1] * np.exp(-2 * theta[arms]))
    s = model.prior_sd
    values, vectors = np.linalg.eigh(s[:, None] * information * s + np.eye(len(theta)))
    return np.asarray(s[:, None] * vectors / np.sqrt(values))


def hyperparameter_draws(
    theta: FloatArray, model: Model, data: Observations, n: int, rng: np.random.Generator, n_check: int = 6
) -> tuple[FloatArray, float]:
    """Draws (n, k) about the mode, and the factor by which the Laplace approximation was rescaled.

    A normal approximation loses half a squared length of log density on the way to a draw. What the log posterior
    really loses, at ``n_check`` draws, gives the factor (between 0.5 and 1.25): the average information tends to
    understate the curvature.
    """
    factor = laplace_factor(theta, model, data)
    top = log_posterior(theta, model, data, gradient=False)[0]
    steps = rng.standard_normal((n_check, len(theta)))
    lost = [top - log_posterior(theta + 0.5 * factor @ e, model, data, gradient=False)[0] for e in steps]
    ratio = float(np.median(np.array(lost) / (0.125 * (steps**2).sum(axis=1))))
    scale = float(np.clip(1 / np.sqrt(max(ratio, 1e-3)), 0.5, 1.25))
    return theta + scale * rng.standard_normal((n, len(theta))) @ factor.T, scale
