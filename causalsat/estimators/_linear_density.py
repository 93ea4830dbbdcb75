r"""Log density of the Gaussian linear effect model with coefficients and village effects integrated out.

The model, on standardised data (see :mod:`causalsat.estimators._linear_data`)::

    y = alpha + z'gamma + t (tau + m'beta) + u_g + t s_g + e,      e ~ N(0, sigma_arm^2 / weight)
    alpha ~ N(0, 2.5^2),  tau ~ N(0, 2.5^2),  gamma_j ~ N(0, kappa^2)
    u_g ~ N(0, sigma_u^2),  s_g ~ N(0, sigma_s^2)
    sigma_arm, sigma_u, sigma_s, kappa ~ half-t(3, 1)
    normal prior:     beta_j ~ N(0, lambda^2 / J),  lambda ~ half-t(3, HETEROGENEITY_SCALE)
    horseshoe prior:  beta_j ~ N(0, v_j),  v_j = l_j^2 h^2 c^2 / (c^2 + l_j^2 h^2)
                      l_j ~ half-Cauchy(1), h ~ half-Cauchy(h_0), c^2 ~ inverse-gamma(2, 2 SLAB_SCALE^2)

The horseshoe is the regularised one of Piironen and Vehtari (2017), equations 2.8 and 3.12 for h_0, with villages
in place of units where there are villages, as modifiers from images vary between villages only.

Given the scales everything is jointly normal, so coefficients and village effects are integrated out exactly
(Woodbury over villages) and only the scales, a dozen numbers, are left to sample. A village's effect is
marginalised through its sums, so the cost of a density does not depend on the number of units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.estimators._linear_data import LinearDesign, Statistics
from causalsat.estimators._linear_pooled import pooled_gradient, subtract_pooled

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NOISE_FLOOR = 1e-6  # variance; noise is at least 0.1 % of the outcome's standard deviation
COEFFICIENT_SCALE = 2.5
HETEROGENEITY_SCALE = 0.5
SLAB_SCALE = 0.5
EXPECTED_SHARE = 0.5  # of modifiers expected to matter a priori
NORMAL, HORSESHOE = 0, 1


@dataclass(frozen=True)
class Layout:
    """Which entry of the vector of log scales is what, and the constants of the priors.

    Attributes
    ----------
    n_arms, n_random, n_main, n_interactions : int
        Numbers of noise scales (0 for a binary outcome), random effects a village, main effects, interactions.
    prior : int
        NORMAL or HORSESHOE.
    global_scale : float
        Scale of lambda / sqrt(J) (normal) or of h (horseshoe).
    unit : float
        Scale of the latent outcome: 1 for a standardised outcome, pi / sqrt(3) for a logit.
    """

    n_arms: int
    n_random: int
    n_main: int
    n_interactions: int
    prior: int
    global_scale: float
    unit: float = 1.0

    @property
    def n_scales(self) -> int:
        """Length of the vector of log scales."""
        shrinkage = 0
        if self.n_interactions:
            shrinkage = 1 if self.prior == NORMAL else 2 + self.n_interactions
        return self.n_arms + self.n_random + 1 + shrinkage

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients: intercept, main effects, treatment, interactions."""
        return 2 + self.n_main + self.n_interactions

    @property
    def names(self) -> list[str]:
        """Name of each log scale."""
        out = [f"noise[{a}]" for a in range(self.n_arms)]
        out += [*["group_sd", "slope_sd"][: self.n_random], "main_scale"]
        if self.n_interactions:
            out += ["interaction_scale"]
            if self.prior == HORSESHOE:
                out += ["slab"] + [f"local[{j}]" for j in range(self.n_interactions)]
        return out

    def as_tuple(self) -> tuple[Any, ...]:
        """Plain numbers for the compiled functions."""
        return (
            self.n_arms,
            self.n_random,
            self.n_main,
            self.n_interactions,
            self.prior,
            self.global_scale,
            self.unit,
        )


def make_layout(design: LinearDesign, prior: str, *, binary_outcome: bool = False, rank: int | None = None) -> Layout:
    """Layout of a design's scales; ``rank`` is the number of modifiers before any reduction to principal axes."""
    j = design.interaction.shape[1]
    full = j if rank is None else rank
    unit = float(np.pi / np.sqrt(3.0)) if binary_outcome else 1.0
    if prior == "normal":
        kind, scale = NORMAL, HETEROGENEITY_SCALE * unit / np.sqrt(max(full, 1))
    else:
        clustering = design.n_groups / len(design.y) if design.n_groups else 1.0  # modifiers are of the village
        information = clustering * float(np.sum(design.weight * design.t**2))
        odds = EXPECTED_SHARE / (1 - EXPECTED_SHARE)
        kind, scale = HORSESHOE, odds * unit / np.sqrt(max(information, 1.0))
    n_arms = 0 if binary_outcome else design.n_arms
    n_random = design.n_random if design.n_groups else 0
    return Layout(n_arms, n_random, design.main.shape[1], j, kind, float(scale), unit)


@njit(cache=True, error_model="numpy")
def prior_scales(phi: FloatArray, layout: tuple) -> tuple:  # type: ignore[type-arg]
    """Coefficient variances, their derivatives in the log scales, log prior density of phi and its gradient.

    Returns (variance (q,), global_slope (q,), local_slope (q,), slab_slope (q,), log prior, gradient).
    """
    n_arms, n_random, n_main, n_int, prior, global_scale, unit = layout
    q = 2 + n_main + n_int
    variance, d_global = np.empty(q), np.zeros(q)
    d_slab = np.zeros(q)
    grad = np.zeros(phi.shape[0])
    logp = 0.0
    n_half_t = n_arms + n_random + 1
    for i in range(n_half_t):  # half-t(3, unit), in log coordinates
        ratio = np.exp(2.0 * phi[i]) / (3.0 * unit * unit)
        logp += phi[i] - 2.0 * np.log1p(ratio)
        grad[i] += 1.0 - 4.0 * ratio / (1.0 + ratio)
    variance[0] = variance[1 + n_main] = (COEFFICIENT_SCALE * unit) ** 2
    kappa2 = np.exp(2.0 * phi[n_half_t - 1])
    for j in range(n_main):
        variance[1 + j] = kappa2
    if n_int == 0:
        return variance, d_global, d_slab, logp, grad
    g = n_half_t
    first = 2 + n_main
    if prior == 0:
        ratio = np.exp(2.0 * phi[g]) / (3.0 * global_scale * global_scale)
        logp += phi[g] - 2.0 * np.log1p(ratio)
        grad[g] += 1.0 - 4.0 * ratio / (1.0 + ratio)
        for j in range(n_int):
            variance[first + j] = np.exp(2.0 * phi[g])
            d_global[first + j] = 2.0
        return variance, d_global, d_slab, logp, grad
    ratio = np.exp(2.0 * phi[g]) / (global_scale * global_scale)
    logp += phi[g] - np.log1p(ratio)
    grad[g] += 1.0 - 2.0 * ratio / (1.0 + ratio)
    slab = np.exp(phi[g + 1])
    rate = 2.0 * (SLAB_SCALE * unit) ** 2
    logp += -2.0 * phi[g + 1] - rate / slab
    grad[g + 1] += -2.0 + rate / slab
    for j in range(n_int):
        local = phi[g + 2 + j]
        ratio = np.exp(2.0 * local)
        logp += local - np.log1p(ratio)
        grad[g + 2 + j] += 1.0 - 2.0 * ratio / (1.0 + ratio)
        wide = np.exp(2.0 * (phi[g] + local))
        inside = wide / (slab + wide)
        variance[first + j] = slab * inside
        d_global[first + j] = 2.0 * (1.0 - inside)
        d_slab[first + j] = inside
    return variance, d_global, d_slab, logp, grad


@njit(cache=True, error_model="numpy")
def _noise(phi: FloatArray, n_arms: int) -> FloatArray:
    return NOISE_FLOOR + np.exp(2.0 * phi[:n_arms])


@njit(cache=True, error_model="numpy")
def _villages(phi, layout, noise, rr, rd, ry, cell_arm, cell_group, n_groups):  # type: ignore[no-untyped-def]
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
    lam = np.exp(2.0 * phi[n_arms : n_arms + k])
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
def _collapse(phi, layout, dd, dy, yy, rr, rd, ry, cell_arm, cell_group, n_groups, pooled):  # type: ignore[no-untyped-def]
    """Precision A, linear term b and constant of the coefficients' Gaussian, villages integrated out."""
    n_arms, k, q = layout[0], layout[1], dd.shape[1]
    noise = _noise(phi, n_arms)
    A, b, const = np.zeros((q, q)), np.zeros(q), 0.0
    for a in range(n_arms):
        A += dd[a] / noise[a]
        b += dy[a] / noise[a]
        const += yy[a] / noise[a]
    R, S, v, lam, B, log_det = _villages(phi, layout, noise, rr, rd, ry, cell_arm, cell_group, n_groups)
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
def _posterior(A, b, variance):  # type: ignore[no-untyped-def]
    """Factor L of I + D A D with D = sqrt(prior variance), inverse of L, posterior covariance and mean."""
    q = b.shape[0]
    D = np.sqrt(variance)
    C = np.empty((q, q))
    for i in range(q):
        for j in range(q):
            C[i, j] = D[i] * A[i, j] * D[j]
        C[i, i] += 1.0
    L = np.linalg.cholesky(C)
    inverse = np.linalg.inv(L)
    V = inverse.T @ inverse
    for i in range(q):
        for j in range(q):
            V[i, j] *= D[i] * D[j]
    return D, L, inverse, V, V @ b


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def marginal_log_density(  # type: ignore[no-untyped-def]
    phi, layout, dd, dy, yy, total, rr, rd, ry, cell_arm, cell_group, n_groups, pooled
):
    """Log posterior density of the log scales (up to a constant) and its gradient.

    The gradient is matrix calculus on ``A, b``: with V the coefficients' posterior covariance and mu their mean,
    d/dA = -(V + mu mu')/2, d/db = mu; a village's sums enter through K = (Lambda^-1 + R)^-1.
    """
    n_arms, k, n_main, n_int = layout[0], layout[1], layout[2], layout[3]
    variance, d_global, d_slab, log_prior, grad = prior_scales(phi, layout)
    noise, A, b, const, R, S, v, lam, B, log_det = _collapse(
        phi, layout, dd, dy, yy, rr, rd, ry, cell_arm, cell_group, n_groups, pooled
    )
    _, L, _, V, mean = _posterior(A, b, variance)
    logp = log_prior - 0.5 * log_det - 0.5 * (const - b @ mean)
    for a in range(n_arms):
        logp -= 0.5 * total[a] * np.log(noise[a])
    q = mean.shape[0]
    H = np.empty((q, q))  # second moment of the coefficients
    for i in range(q):
        logp -= np.log(L[i, i])
        for j in range(q):
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
            grad, d_noise, n_arms, k, noise, V, mean, R, S, v, lam, B, rr, rd, ry, cell_arm, cell_group, n_groups
        )
    if k > 0:
        pooled_gradient(grad, d_noise, n_arms, lam, noise, H, mean, pooled)
    for a in range(n_arms):
        grad[a] += d_noise[a] * 2.0 * (noise[a] - NOISE_FLOOR) / noise[a]
    kappa = n_arms + k
    for j in range(n_main):
        i = 1 + j
        grad[kappa] += H[i, i] / variance[i] - 1.0
    for j in range(n_int):
        i = 2 + n_main + j
        slope = 0.5 * (H[i, i] / variance[i] - 1.0)
        grad[kappa + 1] += slope * d_global[i]
        if layout[4] == 1:
            grad[kappa + 2] += slope * d_slab[i]
            grad[kappa + 3 + j] += slope * d_global[i]
    return logp, grad


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _village_gradient(  # type: ignore[no-untyped-def]
    grad, d_noise, n_arms, k, noise, V, mean, R, S, v, lam, B, rr, rd, ry, cell_arm, cell_group, n_groups
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
                grad[n_arms + i] += lam[i] * (BO[i, m] * B[g, i, m] - B[g, i, m] * R[g, m, i])
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
        A, b = _collapse(phi, layout, dd, dy, yy, *villages)[1:3]
        D, _, inverse, _, mean = _posterior(A, b, variance)
        out[d] = mean + D * (inverse.T @ normals[d])
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
