r"""Log density of the Gaussian linear effect model with coefficients and village effects integrated out.

The model is that of :mod:`causalsat.estimators.linear.layout`, with ``y = predictor + e`` and
``e ~ N(0, sigma_arm^2 / weight)``. Given the scales everything is jointly normal, so coefficients (stratum effects
among them) and village effects are integrated out exactly (Woodbury over villages) and only the scales, a dozen
numbers, are left to sample. A village's effect is marginalised through its sums, so the cost of a density does not
depend on the number of units. A layout without noise scales has noise of variance one: the working model of a
generalised linear one, whose weights hold the information.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.estimators.linear.layout import Layout, prior_scales, pull_back
from causalsat.estimators.linear.statistics import Statistics, pooled_gradient, subtract_pooled

FloatArray = NDArray[np.float64]

NOISE_FLOOR = 1e-6  # variance; noise is at least 0.1 % of the outcome's standard deviation


@njit(cache=True, error_model="numpy")
def _noise(phi: FloatArray, n_arms: int) -> FloatArray:
    return NOISE_FLOOR + np.exp(2.0 * phi[:n_arms]) if n_arms else np.ones(1)


@njit(cache=True, error_model="numpy")
def village_sums(phi, layout, noise, rr, rd, ry, cell_arm, cell_group, n_groups):  # type: ignore[no-untyped-def]
    """Per village: sums over its cells divided by noise, K = Lambda B and B = (I + R Lambda)^-1, log det."""
    n_arms, k, q = layout[0], layout[1], rd.shape[2]
    R, S, v = np.zeros((n_groups, k, k)), np.zeros((n_groups, k, q)), np.zeros((n_groups, k))
    for c in range(cell_arm.shape[0]):
        g, precision = cell_group[c], 1.0 / noise[cell_arm[c]]
        for i in range(k):
            v[g, i] += ry[c, i] * precision
            for j in range(k):
                R[g, i, j] += rr[c, i, j] * precision
            for j in range(q):
                S[g, i, j] += rd[c, i, j] * precision
    lam = phi[n_arms : n_arms + k] ** 2
    B = np.zeros((n_groups, k, k))
    log_det = 0.0
    for g in range(n_groups):
        if k == 1:
            det = 1.0 + R[g, 0, 0] * lam[0]
            B[g, 0, 0] = 1.0 / det
        else:
            a, b = 1.0 + R[g, 0, 0] * lam[0], R[g, 0, 1] * lam[1]
            c2, d = R[g, 1, 0] * lam[0], 1.0 + R[g, 1, 1] * lam[1]
            det = a * d - b * c2
            B[g, 0, 0], B[g, 0, 1], B[g, 1, 0], B[g, 1, 1] = d / det, -b / det, -c2 / det, a / det
        log_det += np.log(det)
    return R, S, v, lam, B, log_det


@njit(cache=True, error_model="numpy")
def collapse(phi, layout, dd, dy, yy, rr, rd, ry, cell_arm, cell_group, n_groups, pooled):  # type: ignore[no-untyped-def]
    """Precision A, linear term b and constant of the coefficients' Gaussian, villages integrated out."""
    n_arms, k, q = layout[0], layout[1], dd.shape[1]
    noise = _noise(phi, n_arms)
    A, b, const = np.zeros((q, q)), np.zeros(q), 0.0
    for a in range(dd.shape[0]):
        A += dd[a] / noise[a]
        b += dy[a] / noise[a]
        const += yy[a] / noise[a]
    R, S, v, lam, B, log_det = village_sums(phi, layout, noise, rr, rd, ry, cell_arm, cell_group, n_groups)
    KS, Kv = np.zeros_like(S), np.zeros_like(v)
    for g in range(n_groups):
        for i in range(k):
            for j in range(k):
                K = lam[i] * B[g, i, j]
                Kv[g, i] += K * v[g, j]
                for m in range(q):
                    KS[g, i, m] += K * S[g, j, m]
    if n_groups > 0:
        flat, flat_K = S.reshape(n_groups * k, q), KS.reshape(n_groups * k, q)
        A -= flat.T @ flat_K
        b -= flat_K.T @ v.reshape(n_groups * k)
        const -= np.sum(v * Kv)
    if k > 0:
        pooled_const, pooled_det = subtract_pooled(A, b, lam, noise, pooled)
        const -= pooled_const
        log_det += pooled_det
    return noise, A, b, const, R, S, v, lam, B, log_det


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _inverse_of_lower(L):  # type: ignore[no-untyped-def]
    """Inverse of a lower triangular matrix, a sixth of the work of a general inverse and along rows."""
    q = L.shape[0]
    X = np.zeros((q, q))
    for i in range(q):
        for j in range(i):
            factor = L[i, j]
            for m in range(j + 1):
                X[i, m] -= factor * X[j, m]
        scale = 1.0 / L[i, i]
        for m in range(i):
            X[i, m] *= scale
        X[i, i] = scale
    return X


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _gram_of_lower(X):  # type: ignore[no-untyped-def]
    """X'X of a lower triangular matrix."""
    q = X.shape[0]
    V = np.zeros((q, q))
    for i in range(q):
        for r in range(i + 1):
            factor = X[i, r]
            for s in range(r + 1):
                V[r, s] += factor * X[i, s]
    for r in range(q):
        for s in range(r):
            V[s, r] = V[r, s]
    return V


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _posterior(A, b, variance):  # type: ignore[no-untyped-def]
    """D = sqrt(prior variance), factor L of I + D A D, its inverse, and covariance and mean in units of D."""
    q = b.shape[0]
    D = np.sqrt(variance)
    C = np.empty((q, q))
    for i in range(q):
        for j in range(q):
            C[i, j] = D[i] * A[i, j] * D[j]
        C[i, i] += 1.0
    L = np.linalg.cholesky(C)
    inverse = _inverse_of_lower(L)
    V = _gram_of_lower(inverse)
    return D, L, inverse, V, V @ (D * b)


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def marginal_log_density(  # type: ignore[no-untyped-def]
    phi, layout, dd, dy, yy, total, rr, rd, ry, cell_arm, cell_group, n_groups, pooled
):
    """Log posterior density of the log scales (up to a constant) and its gradient.

    The gradient is matrix calculus on ``A, b``: with V the coefficients' posterior covariance and mu their mean,
    d/dA = -(V + mu mu')/2, d/db = mu; a village's sums enter through K = (Lambda^-1 + R)^-1.
    """
    n_arms, k = layout[0], layout[1]
    variance, log_prior, grad = prior_scales(phi, layout)
    noise, A, b, const, R, S, v, lam, B, log_det = collapse(
        phi, layout, dd, dy, yy, rr, rd, ry, cell_arm, cell_group, n_groups, pooled
    )
    D, L, _, V, scaled_mean = _posterior(A, b, variance)
    mean = D * scaled_mean
    logp = log_prior - 0.5 * log_det - 0.5 * (const - b @ mean)
    for a in range(n_arms):
        logp -= 0.5 * total[a] * np.log(noise[a])
    q = mean.shape[0]
    H = np.empty((q, q))  # second moment of the coefficients
    slope = np.empty(q)  # derivative in the coefficients' log variances
    for i in range(q):
        logp -= np.log(L[i, i])
        slope[i] = 0.5 * (V[i, i] - 1.0 + scaled_mean[i] ** 2)
        for j in range(q):
            V[i, j] *= D[i] * D[j]
            H[i, j] = V[i, j] + mean[i] * mean[j]
    d_noise = np.zeros(n_arms)  # derivative in the log noise variance
    for a in range(n_arms):
        squares = yy[a]  # expected weighted sum of squared residuals, villages apart
        for i in range(q):
            squares -= 2.0 * mean[i] * dy[a, i]
            for j in range(q):
                squares += H[i, j] * dd[a, i, j]
        d_noise[a] = 0.5 * squares / noise[a] - 0.5 * total[a]
    if n_groups > 0:
        _village_gradient(
            grad, d_noise, phi[n_arms:], n_arms, k, noise, V, mean, R, S, v, lam, B, rr, rd, ry, cell_arm, cell_group,
            n_groups,
        )  # fmt: skip
    if k > 0:
        pooled_gradient(grad, d_noise, phi[n_arms:], n_arms, lam, noise, H, mean, pooled)
    for a in range(n_arms):
        grad[a] += d_noise[a] * 2.0 * (noise[a] - NOISE_FLOOR) / noise[a]
    pull_back(grad, slope, phi, layout)
    return logp, grad


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _village_gradient(  # type: ignore[no-untyped-def]
    grad, d_noise, signed, n_arms, k, noise, V, mean, R, S, v, lam, B, rr, rd, ry, cell_arm, cell_group, n_groups
):
    """Add the villages' part of the gradient: in their standard deviations and in the noise, in place."""
    q = V.shape[0]
    SV = (S.reshape(n_groups * k, q) @ V).reshape(n_groups, k, q)
    e = v - (S.reshape(n_groups * k, q) @ mean).reshape(n_groups, k)
    fitted = (rd.reshape(rd.shape[0] * k, q) @ mean).reshape(rd.shape[0], k)
    omega, K, BO, KO = np.empty((k, k)), np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
    G_R, G_v = np.empty((n_groups, k, k)), np.zeros((n_groups, k))
    for g in range(n_groups):
        for i in range(k):
            for j in range(k):
                total = e[g, i] * e[g, j]
                for m in range(q):
                    total += SV[g, i, m] * S[g, j, m]
                omega[i, j] = total
                K[i, j] = lam[i] * B[g, i, j]
                G_v[g, i] += K[i, j] * e[g, j]
        for i in range(k):
            for j in range(k):
                BO[i, j] = KO[i, j] = 0.0
                for m in range(k):
                    BO[i, j] += B[g, i, m] * omega[m, j]
                    KO[i, j] += K[i, m] * omega[m, j]
        for i in range(k):
            for m in range(k):
                grad[n_arms + i] += signed[i] * (BO[i, m] * B[g, i, m] - B[g, i, m] * R[g, m, i])
            for j in range(k):
                G_R[g, i, j] = -0.5 * K[i, j]
                for m in range(k):
                    G_R[g, i, j] -= 0.5 * KO[i, m] * K[m, j]
    for c in range(cell_arm.shape[0]):
        g, a = cell_group[c], cell_arm[c]
        part = 0.0
        for i in range(k):
            part += G_v[g, i] * (ry[c, i] - fitted[c, i])
            for j in range(k):
                part += G_R[g, i, j] * rr[c, i, j]
                dot = 0.0
                for m in range(q):
                    dot += rd[c, i, m] * SV[g, j, m]
                part += lam[i] * B[g, i, j] * dot
        if n_arms > 0:
            d_noise[a] -= part / noise[a]


def draw_coefficients(phis: FloatArray, normals: FloatArray, arguments: tuple[Any, ...]) -> FloatArray:
    """One exact draw of the coefficients, shape (draw, q), for each draw of the log scales.

    Parameters
    ----------
    phis : ndarray of shape (draw, d)
        Draws of the log scales.
    normals : ndarray of shape (draw, q)
        Independent standard normal numbers.
    arguments : tuple
        As :func:`arguments` makes them.
    """
    layout, dd, dy, yy, _, *villages = arguments
    out = np.empty_like(normals)
    for d, phi in enumerate(phis):
        variance = prior_scales(phi, layout)[0]
        A, b = collapse(phi, layout, dd, dy, yy, *villages)[1:3]
        D, _, inverse, _, scaled_mean = _posterior(A, b, variance)
        out[d] = D * (scaled_mean + inverse.T @ normals[d])
    return out


def arguments(layout: Layout, stats: Statistics) -> tuple[Any, ...]:
    """Arguments that follow phi in the compiled functions, in order."""
    return (
        layout.as_tuple(),
        *(np.ascontiguousarray(a) for a in (stats.dd, stats.dy, stats.yy, stats.total)),
        *(np.ascontiguousarray(a) for a in (stats.rr, stats.rd, stats.ry, stats.cell_arm, stats.cell_group)),
        stats.n_groups,
        stats.pooled.as_tuple(),
    )
