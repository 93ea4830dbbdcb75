"""The linear effect model: its coordinates and priors, and the log density of the Gaussian one.

**Density.** The Gaussian model is the one below, with ``y = predictor + e`` and
``e ~ N(0, sigma_arm^2 / weight)``. Given the scales everything is jointly normal, so coefficients (stratum effects
among them) and village effects are integrated out exactly (Woodbury over villages) and only the scales, a dozen
numbers, are left to sample. A village's effect is marginalised through its sums, so the cost of a density does not
depend on the number of units. A layout without noise scales has noise of variance one: the working model of a
generalised linear one, whose weights hold the information.

**Coordinates and priors**, the same for every family of outcomes. The model, on standardised data (see
:mod:`causalsat.estimators.linear.data`)::

    predictor = alpha + z'gamma + t (tau + m'beta) + u_g + t s_g + a_h + t b_h
    alpha ~ N(0, 2.5^2),  tau ~ N(0, 2.5^2),  gamma_j ~ N(0, kappa^2)
    village effects  u_g ~ N(0, sigma_u^2),  s_g ~ N(0, sigma_s^2)
    stratum effects  a_h ~ N(0, omega_a^2),  b_h ~ N(0, omega_b^2)
    noise, sigma_u, sigma_s, kappa, omega_a ~ half-t(3, 1),  omega_b ~ half-t(3, HETEROGENEITY_SCALE)
    normal prior:     beta_j ~ N(0, lambda^2 / J),  lambda ~ half-t(3, HETEROGENEITY_SCALE)
    horseshoe prior:  beta_j ~ N(0, v_j),  v_j = l_j^2 h^2 c^2 / (c^2 + l_j^2 h^2)
                      l_j ~ half-Cauchy(1), h ~ half-Cauchy(h_0), c^2 ~ inverse-gamma(2, 2 SLAB_SCALE^2)
    R2D2 prior:       beta_j ~ N(0, psi_j phi_j W / 2),  psi_j ~ Exp(1/2),  phi ~ Dirichlet(1/2, ..., 1/2)
                      W = HETEROGENEITY_SCALE^2 R^2 / (1 - R^2),  R^2 ~ Beta(1/2, 1/2)

The horseshoe is the regularised one of Piironen and Vehtari (2017), equations 2.8 and 3.12 for h_0, with villages
in place of units where there are villages, as modifiers from images vary between villages only. R2D2 is the
hierarchy of Zhang, Naughton, Bondell and Reich (2022), section 2: a Beta prior on R^2, whose odds, the total prior
variance, are divided among the coefficients by a Dirichlet distribution, each then double exponential as a scale
mixture of normals. Its R^2 is that of the conditional effect against a spread of HETEROGENEITY_SCALE (theirs:
against the noise), so that sqrt(W) is half-Cauchy of that scale and the three priors are about the same size.

The coordinates ``phi`` hold the logarithm of scales that lie away from zero, and a signed number u of which the
scale is the absolute value for those that may be zero (village and stratum scales, kappa, lambda, sqrt(W), the
overdispersion of counts): the density is smooth and bounded there, where that of the logarithm has an endless tail.
Horseshoe and R2D2 scales of single coefficients are logarithms (of psi_j and of Gamma(1/2) variables that are
proportional to phi_j). The sampler moves in v with u = step sinh(v): linear near zero, a logarithm beyond the step,
so that it feels neither a tail at zero nor a narrow valley between large positive and large negative values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.estimators.linear.data import LinearDesign, Statistics, pooled_gradient, subtract_pooled

FloatArray = NDArray[np.float64]

COEFFICIENT_SCALE = 2.5
HETEROGENEITY_SCALE = 0.5
SLAB_SCALE = 0.5
EXPECTED_SHARE = 0.5  # of modifiers expected to matter a priori
CONCENTRATION = 0.5  # of the Dirichlet distribution that divides the R2D2 prior's variance
STEP = 0.3  # of sinh, in units of the prior's scale
LEAST_VARIANCE = 1e-200  # keeps quotients defined where a signed scale is exactly zero
PRIORS = ("normal", "horseshoe", "r2d2")
NORMAL, HORSESHOE, R2D2 = range(3)
FAMILIES = ("gaussian", "bernoulli", "negative_binomial", "gamma")
GAUSSIAN, BERNOULLI, NEGATIVE_BINOMIAL, GAMMA = range(4)


@dataclass(frozen=True)
class Layout:
    """Which entry of the vector of coordinates is what, and the constants of the priors.

    Attributes
    ----------
    n_arms, n_random, n_main, n_interactions : int
        Numbers of noise scales (0 for a binary outcome), random effects a village, main effects, interactions.
    n_strata, n_stratum_effects : int
        Strata, and effects of each: 0, or 2 (intercept and treatment).
    prior, family : int
        Positions in PRIORS and FAMILIES.
    global_scale : float
        Scale of lambda / sqrt(J) (normal), of h (horseshoe) or of sqrt(W) (R2D2).
    unit : float
        Scale of the predictor: 1 for a standardised outcome and for logarithms, pi / sqrt(3) for a logit.
    """

    n_arms: int
    n_random: int
    n_main: int
    n_interactions: int
    n_strata: int
    n_stratum_effects: int
    prior: int
    family: int
    global_scale: float
    unit: float = 1.0

    @property
    def n_common(self) -> int:
        """Number of coordinates before those of the interactions' prior."""
        return self.n_arms + self.n_random + 1 + self.n_stratum_effects

    @property
    def n_scales(self) -> int:
        """Length of the vector of coordinates."""
        j = self.n_interactions
        return self.n_common + ((1, 2 + j, 1 + 2 * j)[self.prior] if j else 0)

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients: intercept, main effects, treatment, interactions, stratum effects."""
        return 2 + self.n_main + self.n_interactions + self.n_strata * self.n_stratum_effects

    def noise(self, phi: FloatArray) -> FloatArray:
        """Noise scales of draws of the coordinates, shape (draw, arm): standard deviation, dispersion."""
        values = phi[:, : self.n_arms]
        return np.abs(values) if self.family == NEGATIVE_BINOMIAL else np.exp(values)

    def random_sd(self, phi: FloatArray) -> FloatArray:
        """Village standard deviations of draws of the coordinates, shape (draw, k)."""
        return np.asarray(np.abs(phi[:, self.n_arms : self.n_arms + self.n_random]))

    def main_scale(self, phi: FloatArray) -> FloatArray:
        """Standard deviation of the main effects, shape (draw,)."""
        return np.asarray(np.abs(phi[:, self.n_arms + self.n_random]))

    def stratum_sd(self, phi: FloatArray) -> FloatArray:
        """Standard deviations of the stratum effects, shape (draw, 0 or 2)."""
        return np.asarray(np.abs(phi[:, self.n_common - self.n_stratum_effects : self.n_common]))

    def steps(self) -> FloatArray:
        """Step of sinh of each signed coordinate; 0 for logarithms; shape (d,)."""
        out = np.zeros(self.n_scales)
        out[: self.n_arms] = self.family == NEGATIVE_BINOMIAL
        out[self.n_arms : self.n_common] = self.unit
        out[self.n_arms + self.n_random + 2 : self.n_common] *= HETEROGENEITY_SCALE
        if self.n_interactions and self.prior != HORSESHOE:
            out[self.n_common] = self.global_scale
        return STEP * out

    def as_tuple(self) -> tuple[Any, ...]:
        """Plain numbers for the compiled functions."""
        counts = (self.n_arms, self.n_random, self.n_main, self.n_interactions, self.n_strata, self.n_stratum_effects)
        return (*counts, self.prior, self.family, float(self.global_scale), float(self.unit))


def make_layout(design: LinearDesign, prior: str, *, family: str = "gaussian", rank: int | None = None) -> Layout:
    """Layout of a design's scales; ``rank`` is the number of modifiers before any reduction to principal axes."""
    j = design.interaction.shape[1]
    full = j if rank is None else rank
    unit = float(np.pi / np.sqrt(3.0)) if family == "bernoulli" else 1.0
    scale = HETEROGENEITY_SCALE * unit
    if prior == "normal":
        scale /= float(np.sqrt(max(full, 1)))
    elif prior == "horseshoe":
        clustering = design.n_groups / len(design.y) if design.n_groups else 1.0  # modifiers are of the village
        information = clustering * float(np.sum(design.weight * design.t**2))
        scale = EXPECTED_SHARE / (1 - EXPECTED_SHARE) * unit / float(np.sqrt(max(information, 1.0)))
    return Layout(
        n_arms=0 if family == "bernoulli" else design.n_arms,
        n_random=design.n_random if design.n_groups else 0,
        n_main=design.main.shape[1],
        n_interactions=j,
        n_strata=design.n_strata,
        n_stratum_effects=2 if design.n_strata else 0,
        prior=PRIORS.index(prior),
        family=FAMILIES.index(family),
        global_scale=scale,
        unit=unit,
    )


@njit(cache=True, error_model="numpy")
def _half_t(phi, i, scale, signed, grad):  # type: ignore[no-untyped-def]
    """Log density of half-t(3, scale) in the log or the signed coordinate i; its slope is added to grad."""
    if signed:
        ratio = phi[i] * phi[i] / (3.0 * scale * scale)
        grad[i] -= 4.0 * phi[i] / (3.0 * scale * scale) / (1.0 + ratio)
        return -2.0 * np.log1p(ratio)
    ratio = np.exp(2.0 * phi[i]) / (3.0 * scale * scale)
    grad[i] += 1.0 - 4.0 * ratio / (1.0 + ratio)
    return phi[i] - 2.0 * np.log1p(ratio)


@njit(cache=True, error_model="numpy")
def prior_scales(phi: FloatArray, layout: tuple) -> tuple:  # type: ignore[type-arg]
    """Prior variances of the coefficients, log prior density of phi and its gradient: (q,), float, (d,)."""
    n_arms, n_random, n_main, n_int, n_strata, k_strata, prior, family, global_scale, unit = layout
    variance = np.empty(2 + n_main + n_int + n_strata * k_strata)
    grad = np.zeros(phi.shape[0])
    logp = 0.0
    kappa = n_arms + n_random
    g = kappa + 1 + k_strata
    for i in range(g):
        scale = unit * (HETEROGENEITY_SCALE if i == kappa + 2 else 1.0)
        logp += _half_t(phi, i, scale, i >= n_arms or family == NEGATIVE_BINOMIAL, grad)
    variance[0] = variance[1 + n_main] = (COEFFICIENT_SCALE * unit) ** 2
    variance[1 : 1 + n_main] = max(phi[kappa] ** 2, LEAST_VARIANCE)
    first, after = 2 + n_main, 2 + n_main + n_int
    for s in range(k_strata):
        variance[after + s * n_strata : after + (s + 1) * n_strata] = max(phi[kappa + 1 + s] ** 2, LEAST_VARIANCE)
    if n_int == 0:
        return variance, logp, grad
    if prior == NORMAL:
        logp += _half_t(phi, g, global_scale, True, grad)
        variance[first:after] = max(phi[g] ** 2, LEAST_VARIANCE)
    elif prior == HORSESHOE:
        ratio = np.exp(2.0 * phi[g]) / (global_scale * global_scale)
        slab, rate = np.exp(phi[g + 1]), 2.0 * (SLAB_SCALE * unit) ** 2
        logp += phi[g] - np.log1p(ratio) - 2.0 * phi[g + 1] - rate / slab
        grad[g] += 1.0 - 2.0 * ratio / (1.0 + ratio)
        grad[g + 1] += -2.0 + rate / slab
        for j in range(n_int):
            local = phi[g + 2 + j]
            ratio = np.exp(2.0 * local)
            logp += local - np.log1p(ratio)
            grad[g + 2 + j] += 1.0 - 2.0 * ratio / (1.0 + ratio)
            wide = np.exp(2.0 * (phi[g] + local))
            variance[first + j] = slab * wide / (slab + wide)
    else:
        ratio = phi[g] * phi[g] / (global_scale * global_scale)
        logp -= np.log1p(ratio)
        grad[g] -= 2.0 * phi[g] / (global_scale * global_scale) / (1.0 + ratio)
        total = 0.0
        for j in range(n_int):
            part, mixing = np.exp(phi[g + 1 + j]), np.exp(phi[g + 1 + n_int + j])
            total += part
            logp += CONCENTRATION * phi[g + 1 + j] - part + phi[g + 1 + n_int + j] - 0.5 * mixing
            grad[g + 1 + j] += CONCENTRATION - part
            grad[g + 1 + n_int + j] += 1.0 - 0.5 * mixing
        for j in range(n_int):
            share = np.exp(phi[g + 1 + j]) / total
            mixing = 0.5 * np.exp(phi[g + 1 + n_int + j])
            variance[first + j] = max(share * mixing * phi[g] ** 2, LEAST_VARIANCE)
    return variance, logp, grad


@njit(cache=True, error_model="numpy")
def _twice_inverse(u):  # type: ignore[no-untyped-def]
    """Slope of log u^2; 0 at u = 0, where the density is flat."""
    return 2.0 / u if abs(u) > 1e-100 else 0.0


@njit(cache=True, error_model="numpy")
def pull_back(grad, slope, phi, layout):  # type: ignore[no-untyped-def]
    """Add to grad what the coefficients' variances contribute; slope is d log density / d log variance, (q,)."""
    n_arms, n_random, n_main, n_int, n_strata, k_strata, prior = layout[:7]
    kappa = n_arms + n_random
    g = kappa + 1 + k_strata
    first, after = 2 + n_main, 2 + n_main + n_int
    grad[kappa] += _twice_inverse(phi[kappa]) * np.sum(slope[1 : 1 + n_main])
    for s in range(k_strata):
        block = np.sum(slope[after + s * n_strata : after + (s + 1) * n_strata])
        grad[kappa + 1 + s] += _twice_inverse(phi[kappa + 1 + s]) * block
    if n_int == 0:
        return
    whole = np.sum(slope[first:after])
    if prior != HORSESHOE:
        grad[g] += _twice_inverse(phi[g]) * whole
    if prior == HORSESHOE:
        slab = np.exp(phi[g + 1])
        for j in range(n_int):
            wide = np.exp(2.0 * (phi[g] + phi[g + 2 + j]))
            inside = wide / (slab + wide)
            grad[g] += 2.0 * (1.0 - inside) * slope[first + j]
            grad[g + 1] += inside * slope[first + j]
            grad[g + 2 + j] += 2.0 * (1.0 - inside) * slope[first + j]
    elif prior == R2D2:
        total = np.sum(np.exp(phi[g + 1 : g + 1 + n_int]))
        for j in range(n_int):
            grad[g + 1 + j] += slope[first + j] - np.exp(phi[g + 1 + j]) / total * whole
            grad[g + 1 + n_int + j] += slope[first + j]


@njit(cache=True, error_model="numpy")
def stretch(x, steps, slope):  # type: ignore[no-untyped-def]
    """Signed coordinates u = step sinh(v) of the sampler's x; fills du/dv; log Jacobian up to a constant."""
    out, log_jacobian = x.copy(), 0.0
    for i in range(steps.shape[0]):
        if steps[i] > 0.0:
            out[i] = steps[i] * np.sinh(x[i])
            slope[i] = steps[i] * np.cosh(x[i])
            log_jacobian += np.log(np.cosh(x[i]))
    return out, log_jacobian


@njit(cache=True, error_model="numpy")
def unstretch(gradient, x, steps, slope):  # type: ignore[no-untyped-def]
    """From the gradient in the signed coordinates to that in the sampler's, with the log Jacobian's; in place."""
    for i in range(steps.shape[0]):
        gradient[i] *= slope[i]
        if steps[i] > 0.0:
            gradient[i] += np.tanh(x[i])


def start_scales(layout: Layout) -> FloatArray:
    """Plausible coordinates from which the chains start."""
    start = np.full(layout.n_scales, 0.0)
    a, g = layout.n_arms, layout.n_common
    start[:a] = 0.5 if layout.family == NEGATIVE_BINOMIAL else np.log(0.8)
    start[a:g] = 0.3
    if layout.n_interactions:
        start[g] = np.log(layout.global_scale) if layout.prior == HORSESHOE else layout.global_scale
        if layout.prior == R2D2:
            start[g + 1 + layout.n_interactions :] = np.log(2.0)
    return start


def draw_prior(layout: Layout, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws of the coordinates from their prior, shape (draw, d)."""
    phi = np.empty((n_draws, layout.n_scales))
    a, g, j = layout.n_arms, layout.n_common, layout.n_interactions
    scale = np.full(g, layout.unit)
    scale[a + layout.n_random + 2 :] *= HETEROGENEITY_SCALE
    phi[:, :g] = rng.standard_t(3, (n_draws, g)) * scale
    if layout.family != NEGATIVE_BINOMIAL:
        phi[:, :a] = np.log(np.abs(phi[:, :a]))
    if j == 0:
        return phi
    if layout.prior == NORMAL:
        phi[:, g] = layout.global_scale * rng.standard_t(3, n_draws)
    elif layout.prior == HORSESHOE:
        phi[:, g] = np.log(layout.global_scale * np.abs(rng.standard_cauchy(n_draws)))
        rate = 2.0 * (SLAB_SCALE * layout.unit) ** 2
        phi[:, g + 1] = np.log(rate / rng.gamma(2.0, size=n_draws))
        phi[:, g + 2 :] = np.log(np.abs(rng.standard_cauchy((n_draws, j))))
    else:
        phi[:, g] = layout.global_scale * rng.standard_cauchy(n_draws)
        phi[:, g + 1 : g + 1 + j] = np.log(np.maximum(rng.gamma(CONCENTRATION, size=(n_draws, j)), 1e-300))
        phi[:, g + 1 + j :] = np.log(rng.exponential(2.0, (n_draws, j)))
    return phi


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
        for r in range(q):
            b[r] += dy[a, r] / noise[a]
            for s in range(q):  # in place: no temporary matrix
                A[r, s] += dd[a, r, s] / noise[a]
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
