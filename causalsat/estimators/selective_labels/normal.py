r"""Log posterior density of the selective-labels model with normal unobservables, and its gradient.

The model (Balachandar, Garg and Pierson 2024, appendix B)::

    Y ~ Bernoulli(s(x'beta_Y + Z)),  T ~ Bernoulli(s(alpha (x'beta_Y + Z) + x'beta_Delta)),  Z ~ N(0, sigma^2)

in which sigma and alpha cannot both be learned: one of them is given and the other has a prior, by default sigma
half-normal(3), alpha N(0, 3^2). The rest of the priors and the constraints are those of
:mod:`causalsat.estimators.selective_labels.density`. Z is integrated out by Gauss-Hermite quadrature. The sampled
coordinates are ``(gamma, tau, v)`` with

    k_Y = sqrt(1 + 0.346 sigma^2),  k_T = sqrt(1 + 0.346 alpha^2 sigma^2),
    beta_Y = k_Y gamma,  alpha beta_Y + beta_Delta = k_T tau where beta_Delta is free,

and ``sigma = log(1 + exp(v))`` or ``alpha = v``: gamma and tau are close to the marginal logits of Y and of T on x.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.estimators.selective_labels.cells import logistic
from causalsat.estimators.selective_labels.density import Coefficients, log_prior, pull_to_prevalence

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CURVATURE = 0.346  # (16 sqrt(3) / (15 pi))^2: how much a normal of unit variance flattens a logistic curve
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
NODES, WEIGHTS = _NODES.copy(), _WEIGHTS / _WEIGHTS.sum()


def unknown_scale(coordinate: FloatArray, known_alpha: float, known_sigma: float) -> tuple[FloatArray, FloatArray]:
    """Draws of (alpha, sigma) from draws of v; the known one is repeated, NaN marks the unknown one."""
    if np.isnan(known_sigma):
        return np.full(len(coordinate), known_alpha), np.logaddexp(0.0, coordinate)
    return np.asarray(coordinate, dtype=float), np.full(len(coordinate), known_sigma)


def coefficients(
    coordinates: FloatArray, n_columns: int, free: IntArray, known_alpha: float, known_sigma: float
) -> Coefficients:
    """Parameters beta_Y, beta_Delta, sigma and alpha from coordinates of shape (draw, coordinate)."""
    alpha, sigma = unknown_scale(coordinates[:, -1], known_alpha, known_sigma)
    k_y = np.sqrt(1.0 + CURVATURE * sigma**2)[:, None]
    k_t = np.sqrt(1.0 + CURVATURE * (alpha * sigma) ** 2)[:, None]
    risk = k_y * coordinates[:, :n_columns]
    decision = np.zeros_like(risk)
    decision[:, free] = k_t * coordinates[:, n_columns:-1] - alpha[:, None] * risk[:, free]
    return Coefficients(risk, decision, sigma, alpha)


@njit(cache=True, error_model="numpy")
def _cell(a, e, alpha, sigma, cell):  # type: ignore[no-untyped-def]
    """Log probability of what was seen of a unit, and its derivatives in a, e, sigma, alpha."""
    total, by_a, by_e, by_sigma, by_alpha = 0.0, 0.0, 0.0, 0.0, 0.0
    for m in range(NODES.shape[0]):
        r = a + sigma * NODES[m]
        t = alpha * r + e
        tested, risk = logistic(t), logistic(r)
        if cell == 0:
            p, from_t, from_r = 1.0 - tested, -tested, 0.0
        elif cell == 1:
            p, from_t, from_r = tested * (1.0 - risk), 1.0 - tested, -risk
        else:
            p, from_t, from_r = tested * risk, 1.0 - tested, 1.0 - risk
        p *= WEIGHTS[m]
        total += p
        slope = p * (alpha * from_t + from_r)
        by_a += slope
        by_sigma += slope * NODES[m]
        by_e += p * from_t
        by_alpha += p * from_t * r
    return np.log(total), by_a / total, by_e / total, by_sigma / total, by_alpha / total


@njit(cache=True, error_model="numpy")
def _positive(a, sigma):  # type: ignore[no-untyped-def]
    """P(Y = 1) and its derivatives in a and sigma."""
    total, by_a, by_sigma = 0.0, 0.0, 0.0
    for m in range(NODES.shape[0]):
        p = logistic(a + sigma * NODES[m])
        slope = WEIGHTS[m] * p * (1.0 - p)
        total += WEIGHTS[m] * p
        by_a += slope
        by_sigma += slope * NODES[m]
    return total, by_a, by_sigma


@njit(cache=True, error_model="numpy")
def log_density(  # type: ignore[no-untyped-def]
    x, X, cell, weight, free, codes, known, normal, scales, known_alpha, known_sigma
):
    """Log posterior density at coordinates x, shape (p + free + 1,), and its gradient.

    ``scales``: scale of sigma, mean and sd of alpha.
    """
    n, p = X.shape
    f = free.shape[0]
    v = x[p + f]
    seek_sigma = np.isnan(known_sigma)
    alpha = known_alpha if seek_sigma else v
    sigma = np.log1p(np.exp(-abs(v))) + max(v, 0.0) if seek_sigma else known_sigma
    k_y, k_t = np.sqrt(1.0 + CURVATURE * sigma**2), np.sqrt(1.0 + CURVATURE * (alpha * sigma) ** 2)
    beta, delta = k_y * x[:p], np.zeros(p)
    for j in range(f):
        delta[free[j]] = k_t * x[p + j] - alpha * beta[free[j]]
    risk, shift = X @ beta, X @ delta
    by_risk, by_shift = np.empty(n), np.empty(n)
    by_sigma, by_alpha, logp = 0.0, 0.0, 0.0
    constrained = len(known) > 0
    size = n if constrained else 0
    share, share_by_risk, share_by_sigma = np.empty(size), np.empty(size), np.empty(size)
    for i in range(n):
        w = weight[i]
        value, one, two, three, four = _cell(risk[i], shift[i], alpha, sigma, cell[i])
        logp += w * value
        by_risk[i], by_shift[i] = w * one, w * two
        by_sigma += w * three
        by_alpha += w * four
        if constrained:
            share[i], share_by_risk[i], share_by_sigma[i] = _positive(risk[i], sigma)
    if constrained:
        pulled, by_share, slope = pull_to_prevalence(codes, known, weight, share, share_by_risk, share_by_sigma)
        logp += pulled
        by_risk += by_share
        by_sigma += slope
    prior, prior_by_beta, prior_by_delta = log_prior(beta, delta, free, normal)
    g_beta, g_delta = by_risk @ X + prior_by_beta, by_shift @ X + prior_by_delta
    logp += prior + p * np.log(k_y) + f * np.log(k_t)
    grad = np.empty(p + f + 1)
    grad[:p] = k_y * g_beta
    k_y_sigma, k_t_sigma = CURVATURE * sigma / k_y, CURVATURE * alpha**2 * sigma / k_t
    k_t_alpha = CURVATURE * alpha * sigma**2 / k_t
    by_sigma += k_y_sigma * np.dot(g_beta, x[:p]) + p * k_y_sigma / k_y + f * k_t_sigma / k_t
    by_alpha += f * k_t_alpha / k_t
    for j in range(f):
        c = free[j]
        grad[c] -= alpha * k_y * g_delta[c]
        grad[p + j] = k_t * g_delta[c]
        by_sigma += g_delta[c] * (k_t_sigma * x[p + j] - alpha * k_y_sigma * x[c])
        by_alpha += g_delta[c] * (k_t_alpha * x[p + j] - beta[c])
    if seek_sigma:
        logp += -0.5 * (sigma / scales[0]) ** 2 + np.log(-np.expm1(-sigma))
        grad[p + f] = (by_sigma - sigma / scales[0] ** 2) * -np.expm1(-sigma) + logistic(-v)
    else:
        logp -= 0.5 * ((alpha - scales[1]) / scales[2]) ** 2
        grad[p + f] = by_alpha - (alpha - scales[1]) / scales[2] ** 2
    return logp, grad


@njit(cache=True, error_model="numpy")
def positive_probability(logit, slope, sigma):  # type: ignore[no-untyped-def]
    """Mean of s(logit + slope Z), shape (draw, unit); slope 1 for the risk, alpha for the decision."""
    out = np.zeros(logit.shape)
    for s in range(logit.shape[0]):
        for i in range(logit.shape[1]):
            for m in range(NODES.shape[0]):
                out[s, i] += WEIGHTS[m] * logistic(logit[s, i] + slope[s] * sigma[s] * NODES[m])
    return out


@njit(cache=True, error_model="numpy")
def both_probability(risk, decision, alpha, sigma):  # type: ignore[no-untyped-def]
    """P(T = 1, Y = 1), shape (draw, unit); logits of risk and of the decision at Z = 0, alpha and sigma (draw,)."""
    out = np.zeros(risk.shape)
    for s in range(risk.shape[0]):
        for i in range(risk.shape[1]):
            for m in range(NODES.shape[0]):
                z = sigma[s] * NODES[m]
                out[s, i] += WEIGHTS[m] * logistic(risk[s, i] + z) * logistic(decision[s, i] + alpha[s] * z)
    return out
