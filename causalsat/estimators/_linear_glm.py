r"""Log density of the linear effect model with a binary outcome (logit).

::

    P(y = 1) = logistic(alpha + z'gamma + t (tau + m'beta) + u_g + t s_g)

with the priors of :mod:`causalsat.estimators._linear_density`, their scales multiplied by pi / sqrt(3), the
standard deviation of the logistic distribution. Coefficients and village effects are sampled in units of their
prior standard deviations (non-centred), after the log scales: ``x = (phi, coefficients, village effects)``.
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


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def logit_log_density(x, layout, rows, y, weight, random, group, n_groups):  # type: ignore[no-untyped-def]
    """Log posterior density of (phi, raw coefficients, raw village effects) and its gradient."""
    n_arms, k, n_main, n_int, prior, _, _ = layout
    n, q = rows.shape
    n_phi = x.shape[0] - q - n_groups * k
    phi, z, raw = x[:n_phi], x[n_phi : n_phi + q], x[n_phi + q :]
    variance, d_global, d_slab, logp, d_phi = prior_scales(phi, layout)
    D = np.sqrt(variance)
    sd = np.exp(phi[n_arms : n_arms + k])
    eta = rows @ (D * z)
    logp -= 0.5 * (z @ z) + 0.5 * (raw @ raw)
    residual = np.empty(n)
    for i in range(n):
        for j in range(k):
            eta[i] += random[i, j] * sd[j] * raw[group[i] * k + j]
        tail = np.exp(-np.abs(eta[i]))
        logp += weight[i] * (y[i] * eta[i] - max(eta[i], 0.0) - np.log1p(tail))
        p = 1.0 / (1.0 + tail) if eta[i] >= 0 else tail / (1.0 + tail)
        residual[i] = weight[i] * (y[i] - p)
    grad = np.empty(x.shape[0])
    slope = D * (residual @ rows)
    grad[n_phi : n_phi + q] = slope - z
    grad[n_phi + q :] = -raw
    for i in range(n):
        for j in range(k):
            part = random[i, j] * sd[j] * residual[i]
            grad[n_phi + q + group[i] * k + j] += part
            d_phi[n_arms + j] += part * raw[group[i] * k + j]
    kappa = n_arms + k
    for j in range(n_main):
        d_phi[kappa] += slope[1 + j] * z[1 + j]
    for j in range(n_int):
        i = 2 + n_main + j
        part = 0.5 * slope[i] * z[i]
        d_phi[kappa + 1] += part * d_global[i]
        if prior == 1:
            d_phi[kappa + 2] += part * d_slab[i]
            d_phi[kappa + 3 + j] += part * d_global[i]
    grad[:n_phi] = d_phi
    return logp, grad


def arguments(layout: Layout, design: LinearDesign) -> tuple[Any, ...]:
    """Arguments that follow x in :func:`logit_log_density`, in order."""
    k = layout.n_random
    random = np.column_stack([np.ones(len(design.y)), design.t])[:, :k]
    group = np.zeros(len(design.y), dtype=np.int64) if design.group is None else design.group
    return (
        layout.as_tuple(),
        np.ascontiguousarray(design.rows),
        design.y,
        design.weight,
        np.ascontiguousarray(random),
        group,
        design.n_groups,
    )


@njit(cache=True, error_model="numpy")
def raw_coefficients(draws: FloatArray, n_phi: int, layout: tuple) -> FloatArray:  # type: ignore[type-arg]
    """Coefficients, shape (draw, q), from draws of x."""
    q = 2 + layout[2] + layout[3]
    out = np.empty((draws.shape[0], q))
    for d in range(draws.shape[0]):
        variance = prior_scales(draws[d, :n_phi], layout)[0]
        out[d] = np.sqrt(variance) * draws[d, n_phi : n_phi + q]
    return out


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
