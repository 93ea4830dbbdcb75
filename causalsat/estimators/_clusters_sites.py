"""Likelihood of the sites of the image effect cluster model: types summed over, site effects integrated out.

In closed form where a site has one cell, by adaptive Gauss-Hermite quadrature where it has several. Compiled.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

__all__ = ["log_sum", "nodes_and_log_weights", "site_terms"]

N_NODES = 7
LOG_2PI = float(np.log(2 * np.pi))


def nodes_and_log_weights() -> tuple[FloatArray, FloatArray]:
    """Nodes of the quadrature under a standard normal, and the logarithms of their weights."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    return nodes, np.log(weights / weights.sum())


@njit(cache=True, error_model="numpy")
def log_sum(values: FloatArray) -> float:
    top = values[0]
    for value in values:
        top = max(top, value)
    total = 0.0
    for value in values:
        total += np.exp(value - top)
    return top + np.log(total)  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy")
def _quadratic(n0, n1, e0, e1, v0, v1, p0, p1, log_p0, log_p1):  # type: ignore[no-untyped-def]
    """Log likelihood of a cell in a cluster as a function of the site effect u: c - A (u - M)^2 / 2.

    By arm: n sum of weights, e mean residual, v sum of squares about it, p precision.
    """
    a0, a1 = n0 * p0, n1 * p1
    A = a0 + a1
    M = (a0 * e0 + a1 * e1) / A if A > 0.0 else 0.0
    apart = a0 * a1 / A * (e0 - e1) ** 2 if A > 0.0 else 0.0
    c = 0.5 * (n0 * log_p0 + n1 * log_p1 - (n0 + n1) * LOG_2PI - v0 * p0 - v1 * p1 - apart)
    return A, M, c


@njit(cache=True, error_model="numpy")
def _shares(lp, A, M, u, share):  # type: ignore[no-untyped-def]
    """Log likelihood of a cell at a site effect; fills ``share`` with its clusters' probabilities."""
    K = len(lp)
    top = -np.inf
    for k in range(K):
        share[k] = lp[k] - 0.5 * A[k] * (u - M[k]) ** 2
        top = max(top, share[k])
    total = 0.0
    for k in range(K):
        share[k] = np.exp(share[k] - top)
        total += share[k]
    for k in range(K):
        share[k] /= total
    return top + np.log(total)


@njit(cache=True, error_model="numpy")
def _centre(A, M, lp, omega2):  # type: ignore[no-untyped-def]
    """Mode and width of a site effect given its cells, by Newton steps, for the quadrature."""
    n_cells, K = A.shape
    u, width = 0.0, 1.0
    share = np.empty(K)
    for _ in range(8):
        slope, curve, flat = -u / omega2, -1.0 / omega2, -1.0 / omega2
        for i in range(n_cells):
            _shares(lp[i], A[i], M[i], u, share)
            m1, m2, a = 0.0, 0.0, 0.0
            for k in range(K):
                d = A[i, k] * (M[i, k] - u)
                m1 += share[k] * d
                m2 += share[k] * d * d
                a += share[k] * A[i, k]
            slope += m1
            curve += m2 - m1 * m1 - a
            flat -= a
        if curve >= 0.5 * flat:  # nearly flat or convex: several modes
            curve = flat
        step = -slope / curve
        u += step
        width = 1.0 / np.sqrt(-curve)
        if abs(step) < 0.1 * width:
            break
    return u, width


@njit(cache=True, error_model="numpy")
def site_terms(  # type: ignore[no-untyped-def]
    tau, sigma, log_pi, level, omega, image, start, count, mean, spread, has_sites, nodes, log_weights
):
    """Log likelihood of each site, and the cells' moments for its gradient.

    ``level`` is the prognosis of each image, ``log_pi`` (image, K) its log probabilities. Returns the log likelihood
    (site,), and for each cell and cluster the expectations of [Z = k], u [Z = k] and u^2 [Z = k], with the sites'
    expectation of u^2.
    """
    n_cells, K, n_sites = len(image), len(tau), len(start) - 1
    precision, log_precision = sigma**-2.0, -2.0 * np.log(sigma)
    R, Q1, Q2 = np.zeros((n_cells, K)), np.zeros((n_cells, K)), np.zeros((n_cells, K))
    A, M, lp = np.empty((n_cells, K)), np.empty((n_cells, K)), np.empty((n_cells, K))
    for i in range(n_cells):
        g = level[image[i]]
        for k in range(K):
            A[i, k], M[i, k], c = _quadratic(
                count[i, 0], count[i, 1], mean[i, 0] - g, mean[i, 1] - g - tau[k], spread[i, 0], spread[i, 1],
                precision[0, k], precision[1, k], log_precision[0, k], log_precision[1, k],
            )  # fmt: skip
            lp[i, k] = log_pi[image[i], k] + c
    out, square = np.empty(n_sites), np.zeros(n_sites)
    omega2 = omega * omega
    t = np.empty(K)
    q = len(nodes)
    for g in range(n_sites):
        low, high = start[g], start[g + 1]
        if not has_sites:
            for k in range(K):
                t[k] = lp[low, k] - 0.5 * A[low, k] * M[low, k] ** 2
            out[g] = log_sum(t)
            for k in range(K):
                R[low, k] = np.exp(t[k] - out[g])
        elif high - low == 1:
            for k in range(K):
                ratio = 1.0 + omega2 * A[low, k]
                t[k] = lp[low, k] - 0.5 * (A[low, k] * M[low, k] ** 2 / ratio + np.log(ratio))
            out[g] = log_sum(t)
            for k in range(K):
                v = omega2 / (1.0 + omega2 * A[low, k])
                m, r = v * A[low, k] * M[low, k], np.exp(t[k] - out[g])
                R[low, k], Q1[low, k], Q2[low, k] = r, r * m, r * (v + m * m)
                square[g] += Q2[low, k]
        else:
            centre, width = _centre(A[low:high], M[low:high], lp[low:high], omega2)
            terms, share = np.empty(q), np.empty((q, high - low, K))
            for j in range(q):
                u = centre + width * nodes[j]
                terms[j] = log_weights[j] + 0.5 * nodes[j] ** 2 + np.log(width / omega) - 0.5 * u * u / omega2
                for i in range(low, high):
                    terms[j] += _shares(lp[i], A[i], M[i], u, share[j, i - low])
            out[g] = log_sum(terms)
            for j in range(q):
                u, p = centre + width * nodes[j], np.exp(terms[j] - out[g])
                square[g] += p * u * u
                for i in range(low, high):
                    for k in range(K):
                        r = p * share[j, i - low, k]
                        R[i, k] += r
                        Q1[i, k] += r * u
                        Q2[i, k] += r * u * u
    return out, R, Q1, Q2, square
