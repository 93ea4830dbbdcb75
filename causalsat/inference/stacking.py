"""Weights of a stack: non-negative, summing to one, from out-of-fold effects or out-of-fold densities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "StackWeights",
    "log_score_weights",
    "mixture_counts",
    "predictive_log_density",
    "r_loss_weights",
    "simplex_quadratic",
    "thin",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RIDGE = 1e-9  # relative: splits the weight evenly between members that cannot be told apart


@dataclass(frozen=True, eq=False)
class StackWeights:
    """Weights of the members and their uncertainty.

    Attributes
    ----------
    weights : ndarray of shape (k,)
        Mean of the optimal weights over Bayesian-bootstrap replicates of the clusters (the optimum itself without
        replicates).
    sd : ndarray of shape (k,)
        Standard deviation of the weights over the replicates; 0 without replicates.
    optimum : ndarray of shape (k,)
        Weights that are optimal for the sample as it is.
    """

    weights: FloatArray
    sd: FloatArray
    optimum: FloatArray


def simplex_quadratic(M: FloatArray) -> FloatArray:
    """Minimise a'Ma over non-negative a that sum to one, shape (k,); exact, by non-negative least squares.

    With z the minimiser of ``z'Mz - 2 sum(z)`` over non-negative z, ``z / sum(z)`` satisfies the conditions of
    Karush, Kuhn and Tucker of the problem on the simplex.

    Parameters
    ----------
    M : ndarray of shape (k, k)
        Positive semidefinite. Where all its entries vanish, the weights are equal.

    Examples
    --------
    >>> simplex_quadratic(np.diag([1.0, 3.0]))
    array([0.75, 0.25])
    >>> simplex_quadratic(np.array([[1.0, 2.0], [2.0, 5.0]]))
    array([1., 0.])
    """
    from scipy.optimize import nnls

    k = len(M)
    scale = float(np.trace(M)) / k
    if not np.isfinite(scale) or scale <= 0:
        return np.full(k, 1 / k)
    root = np.linalg.cholesky(M / scale + RIDGE * np.eye(k)).T
    z, _ = nnls(root, np.linalg.solve(root.T, np.ones(k)))
    z[z < 1e-12 * z.max()] = 0.0
    return np.asarray(z / z.sum())


def r_loss_weights(
    tau: FloatArray,
    y_residual: FloatArray,
    t_residual: FloatArray,
    weight: FloatArray,
    cluster: IntArray,
    *,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> StackWeights:
    r"""Weights a that minimise the R-loss ``sum w (y~ - t~ sum_k a_k tau_k)^2`` of the combination.

    As the weights sum to one, the loss is a'Ma with ``M_jk = sum w (y~ - t~ tau_j)(y~ - t~ tau_k)``.

    Parameters
    ----------
    tau : ndarray of shape (n, k)
        Out-of-fold effects of each member.
    y_residual, t_residual : ndarray of shape (n,)
        Outcome and treatment less their out-of-fold conditional means.
    weight : ndarray of shape (n,)
        Survey weights.
    cluster : ndarray of int of shape (n,)
        Clusters, which the Bayesian bootstrap weighs as a whole.
    n_bootstrap : int
        Replicates over which the weights are averaged; 0 for the optimum only.
    rng : numpy.random.Generator
        Source of the replicates.

    References
    ----------
    Nie and Wager (2021), "Quasi-oracle estimation of heterogeneous treatment effects", section 3 (stacking by the
    R-loss); Rubin (1981), "The Bayesian bootstrap".

    Examples
    --------
    >>> t, tau = np.array([-0.5, 0.5, -0.5, 0.5]), np.array([0.0, 0.0, 2.0, 2.0])
    >>> members = np.column_stack([tau, -tau])
    >>> rng = np.random.default_rng(0)
    >>> r_loss_weights(members, t * tau, t, np.ones(4), np.arange(4), n_bootstrap=0, rng=rng).weights.round(6)
    array([1., 0.])
    """
    error = np.sqrt(weight)[:, None] * (y_residual[:, None] - t_residual[:, None] * tau)
    k = tau.shape[1]
    by_cluster = np.zeros((int(cluster.max()) + 1, k, k))
    for j in range(k):
        for m in range(j + 1):
            by_cluster[:, j, m] = by_cluster[:, m, j] = np.bincount(cluster, error[:, j] * error[:, m])

    def solve(mass: FloatArray) -> FloatArray:
        return simplex_quadratic(np.tensordot(mass, by_cluster, axes=1))

    return _bootstrap(solve, len(by_cluster), n_bootstrap, rng)


def log_score_weights(
    log_density: FloatArray,
    weight: FloatArray,
    cluster: IntArray,
    *,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> StackWeights:
    r"""Weights a that maximise ``sum w log sum_k a_k p_k(y)`` (Yao et al. 2018, equation 4).

    Parameters
    ----------
    log_density : ndarray of shape (n, k)
        Logarithm of each member's predictive density at the outcome, by the model that did not see the unit.
    weight, cluster, n_bootstrap, rng :
        As in :func:`r_loss_weights`.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), "Using stacking to average Bayesian predictive distributions",
    Bayesian Analysis 13(3).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> log_p = np.log([[0.5, 0.1], [0.5, 0.1], [0.1, 0.5], [0.5, 0.1]])
    >>> log_score_weights(log_p, np.ones(4), np.arange(4), n_bootstrap=0, rng=rng).weights.round(3)
    array([0.875, 0.125])
    """
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    n_clusters = int(cluster.max()) + 1

    def solve(mass: FloatArray) -> FloatArray:
        return _maximise_log_score(density, weight * mass[cluster])

    return _bootstrap(solve, n_clusters, n_bootstrap, rng)


def _maximise_log_score(density: FloatArray, weight: FloatArray) -> FloatArray:
    from scipy.optimize import minimize

    k = density.shape[1]
    share = weight / weight.sum()

    def loss(a: FloatArray) -> tuple[float, FloatArray]:
        mixed = np.maximum(density @ a, 1e-300)
        return -float(share @ np.log(mixed)), -(density.T @ (share / mixed))

    result = minimize(
        loss,
        np.full(k, 1 / k),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * k,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(k)},
        options={"ftol": 1e-10, "maxiter": 200},
    )
    a = np.clip(result.x, 0.0, None)
    for _ in range(5):  # steps of expectation-maximisation never lower the score: they finish what SLSQP began
        a = a * (density.T @ (share / np.maximum(density @ a, 1e-300)))
    return np.asarray(a / a.sum())


def _bootstrap(
    solve: Callable[[FloatArray], FloatArray], n_clusters: int, n_bootstrap: int, rng: np.random.Generator
) -> StackWeights:
    """Average the optimum over Dirichlet(1, ..., 1) masses of the clusters."""
    optimum = solve(np.ones(n_clusters))
    if n_bootstrap == 0:
        return StackWeights(optimum, np.zeros_like(optimum), optimum)
    replicates = np.stack([solve(rng.exponential(size=n_clusters)) for _ in range(n_bootstrap)])
    sd = replicates.std(axis=0, ddof=1) if n_bootstrap > 1 else np.zeros_like(optimum)
    return StackWeights(replicates.mean(axis=0), np.asarray(sd), optimum)


def predictive_log_density(
    y: FloatArray, mean: FloatArray, variance: FloatArray, arm: IntArray, weight: FloatArray, *, binary: bool
) -> FloatArray:
    """Log predictive density of each outcome, shape (n,), from a posterior of its conditional mean.

    Normal with the posterior's variance plus a noise variance for each arm, which maximises the likelihood of the
    out-of-fold residuals; Bernoulli where ``binary``.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Outcomes.
    mean, variance : ndarray of shape (n,)
        Posterior mean and variance of the conditional mean of y.
    arm : ndarray of int of shape (n,)
        Arm of each unit, 0, 1, ...
    weight : ndarray of shape (n,)
        Weights.
    binary : bool
        Whether the outcome is 0/1 and the means are probabilities.

    Examples
    --------
    >>> y, one, arm = np.array([1.0, -1.0]), np.ones(2), np.zeros(2, dtype=int)
    >>> predictive_log_density(y, np.zeros(2), 0 * one, arm, one, binary=False).round(3)  # log of N(1 | 0, 1)
    array([-1.419, -1.419])
    """
    if binary:
        p = np.clip(mean, 1e-6, 1 - 1e-6)
        return np.asarray(np.where(y > 0.5, np.log(p), np.log1p(-p)))
    from scipy.optimize import minimize_scalar

    out = np.empty(len(y))
    for a in np.unique(arm):
        units = arm == a
        square, v, w = (y[units] - mean[units]) ** 2, variance[units], weight[units]
        largest = max(float(np.average(square, weights=w)), float(np.average(v, weights=w)), 1e-300)

        def loss(log_noise: float, s: FloatArray = square, v: FloatArray = v, w: FloatArray = w) -> float:
            total = v + np.exp(log_noise)
            return float(w @ (np.log(total) + s / total))

        top = np.log(largest)
        best = minimize_scalar(loss, bounds=(top - 20, top + 1), method="bounded", options={"xatol": 1e-6})
        total = v + np.exp(best.x)
        out[units] = -0.5 * (np.log(2 * np.pi * total) + square / total)
    return out


def mixture_counts(weights: FloatArray, n_draws: int) -> IntArray:
    """Draws of each member, shape (k,), in proportion to the weights by largest remainders.

    Examples
    --------
    >>> mixture_counts(np.array([0.5, 0.26, 0.24]), 10)
    array([5, 3, 2])
    """
    exact = weights * n_draws
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.lexsort((np.arange(len(weights)), -(exact - counts).round(9)))
    counts[order[: n_draws - int(counts.sum())]] += 1
    return counts


def thin(n_available: int, n_wanted: int) -> IntArray:
    """Evenly spaced positions of ``n_wanted`` draws among ``n_available``, repeated where there are too few.

    Examples
    --------
    >>> thin(6, 3), thin(2, 4)
    (array([1, 3, 5]), array([0, 0, 1, 1]))
    """
    return ((np.arange(n_wanted) + 0.5) * n_available / max(n_wanted, 1)).astype(np.int64)
