r"""Log density of the linear effect model with a binary outcome (logit).

::

    P(y = 1) = logistic(alpha + z'gamma + t (tau + m'beta) + u_g + t s_g)

with the priors of :mod:`causalsat.estimators._linear_density`, their scales multiplied by pi / sqrt(3), the
standard deviation of the logistic distribution. The sampler's coordinates are ``x = (phi, coefficients, village
effects)`` with the latter two standardised by a rough conditional posterior given their prior variance v: a
coefficient of which the data give information a and estimate b is ``a b v / (1 + a v) + sqrt(v / (1 + a v)) x``,
centred where the data are strong and non-centred where the prior is (Papaspiliopoulos, Roberts and Skoeld 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.estimators._linear_data import LinearDesign
from causalsat.estimators._linear_density import Layout, prior_scales

FloatArray = NDArray[np.float64]

NODES = 7  # Gauss-Hermite nodes for averages over villages


@njit(cache=True, error_model="numpy")
def _spread(variance, information, estimate):  # type: ignore[no-untyped-def]
    """Centre, scale and prior share of a coefficient given its prior variance and what the data say of it."""
    share = 1.0 / (1.0 + information * variance)  # 1: all prior, 0: all data
    return (1.0 - share) * estimate, np.sqrt(variance * share), share


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def logit_log_density(  # type: ignore[no-untyped-def]
    x, layout, rows, y, weight, random, group, n_groups, information, estimate
):
    """Log posterior density of x = (phi, standardised coefficients and village effects) and its gradient."""
    n_arms, k, n_main, _, prior, _, _ = layout
    n, q = rows.shape
    d = q + n_groups * k
    n_phi = x.shape[0] - d
    phi = x[:n_phi]
    prior_variance, d_global, d_slab, logp, d_phi = prior_scales(phi, layout)
    variance, theta, scale, share = np.empty(d), np.empty(d), np.empty(d), np.empty(d)
    variance[:q] = prior_variance
    for j in range(q, d):
        variance[j] = np.exp(2.0 * phi[n_arms + (j - q) % k])
    for j in range(d):
        centre, scale[j], share[j] = _spread(variance[j], information[j], estimate[j])
        theta[j] = centre + scale[j] * x[n_phi + j]
        logp += 0.5 * np.log(share[j]) - 0.5 * theta[j] ** 2 / variance[j]
    eta = rows @ theta[:q]
    residual = np.empty(n)
    for i in range(n):
        for j in range(k):
            eta[i] += random[i, j] * theta[q + group[i] * k + j]
        tail = np.exp(-np.abs(eta[i]))
        logp += weight[i] * (y[i] * eta[i] - max(eta[i], 0.0) - np.log1p(tail))
        p = 1.0 / (1.0 + tail) if eta[i] >= 0 else tail / (1.0 + tail)
        residual[i] = weight[i] * (y[i] - p)
    slope = np.zeros(d)
    slope[:q] = residual @ rows
    for i in range(n):
        for j in range(k):
            slope[q + group[i] * k + j] += random[i, j] * residual[i]
    grad = np.empty(x.shape[0])
    for j in range(d):
        slope[j] -= theta[j] / variance[j]
        grad[n_phi + j] = scale[j] * slope[j]
        moved = share[j] * ((1.0 - share[j]) * estimate[j] + 0.5 * scale[j] * x[n_phi + j])
        by_log_variance = slope[j] * moved + 0.5 * theta[j] ** 2 / variance[j] - 0.5 * (1.0 - share[j])
        if j >= q:
            d_phi[n_arms + (j - q) % k] += 2.0 * by_log_variance
        elif 1 <= j <= n_main:
            d_phi[n_arms + k] += 2.0 * by_log_variance
        elif j >= 2 + n_main:
            d_phi[n_arms + k + 1] += by_log_variance * d_global[j]
            if prior == 1:
                d_phi[n_arms + k + 2] += by_log_variance * d_slab[j]
                d_phi[n_arms + k + 1 + j - n_main] += by_log_variance * d_global[j]
    grad[:n_phi] = d_phi
    return logp, grad


def pilot(rows: FloatArray, design: LinearDesign, random: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What the data say of each coefficient and village effect: information and estimate, each of shape (d,).

    Coefficients by a ridge logit (Newton steps) that ignores villages, village effects by one step from there.
    They only choose the sampler's coordinates: no value of them changes the posterior.
    """
    y, w = design.y, design.weight
    q = rows.shape[1]
    theta, ridge = np.zeros(q), np.eye(q)
    for _ in range(8):
        p = np.clip(1.0 / (1.0 + np.exp(-np.clip(rows @ theta, -30, 30))), 1e-3, 1 - 1e-3)
        hessian = (rows * (w * p * (1 - p))[:, None]).T @ rows + ridge
        theta = theta + np.clip(np.linalg.solve(hessian, rows.T @ (w * (y - p)) - theta), -1, 1)
    information = 1.0 / np.diag(np.linalg.inv(hessian))
    k = design.n_random if design.n_groups else 0
    if k == 0:
        return information, theta
    assert design.group is not None
    size = design.n_groups
    seen, step = np.zeros((size, k)), np.zeros((size, k))
    for j in range(k):
        seen[:, j] = np.bincount(design.group, w * p * (1 - p) * random[:, j] ** 2, size)
        step[:, j] = np.bincount(design.group, w * (y - p) * random[:, j], size)
    guess = np.clip(step / np.maximum(seen, 1e-6), -3, 3)
    return np.concatenate([information, seen.ravel()]), np.concatenate([theta, guess.ravel()])


def arguments(layout: Layout, design: LinearDesign) -> tuple[Any, ...]:
    """Arguments that follow x in :func:`logit_log_density`, in order."""
    k = layout.n_random
    random = np.column_stack([np.ones(len(design.y)), design.t])[:, :k]
    group = np.zeros(len(design.y), dtype=np.int64) if design.group is None else design.group
    rows = np.ascontiguousarray(design.rows)
    return (
        layout.as_tuple(),
        rows,
        design.y,
        design.weight,
        np.ascontiguousarray(random),
        group,
        design.n_groups,
        *pilot(rows, design, random),
    )


def coefficients(draws: FloatArray, layout: Layout, information: FloatArray, estimate: FloatArray) -> FloatArray:
    """Coefficients, shape (draw, q), from draws of x."""
    n_phi, q = layout.n_scales, layout.n_coefficients
    variance = np.array([prior_scales(phi, layout.as_tuple())[0] for phi in draws[:, :n_phi].copy()])
    share = 1.0 / (1.0 + information[:q] * variance)
    return np.asarray((1 - share) * estimate[:q] + np.sqrt(variance * share) * draws[:, n_phi : n_phi + q])


def hermite() -> tuple[FloatArray, FloatArray]:
    """Nodes and weights of the average over a standard normal variable."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return nodes, weights / weights.sum()


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def average_probability(eta, spread, nodes, weights):  # type: ignore[no-untyped-def]
    """Mean over villages of logistic(eta + spread z), z standard normal; eta and spread of shape (draw, unit)."""
    out = np.zeros_like(eta)
    for d in range(eta.shape[0]):
        for i in range(eta.shape[1]):
            total = 0.0
            if spread[d, i] < 1e-3:
                total = 1.0 / (1.0 + np.exp(-eta[d, i]))
            else:
                for m in range(nodes.shape[0]):
                    total += weights[m] / (1.0 + np.exp(-eta[d, i] - spread[d, i] * nodes[m]))
            out[d, i] = total
    return out
