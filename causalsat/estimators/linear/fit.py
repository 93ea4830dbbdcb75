"""From checked data to posterior draws of the linear effect model, by the chosen sampler.

Densities are sampled by nutpie's NUTS. Large data take two faster paths.

**Blocks.** With thousands of villages a density costs a product of all their sums. But given noise and village scales
(two to four numbers, which that many data determine sharply) precision and linear term of the coefficients are
constants, and the shrinkage scales can be sampled at a cost that knows no villages. So noise and village scales are
proposed from a t distribution with 7 degrees of freedom around their conditional mode, the shrinkage scales from NUTS
at that mode, and each pair is weighted by the full density over that of the proposal: importance sampling with Pareto
smoothed weights (Vehtari, Simpson, Gelman, Yao and Gabry 2024), exact as far as its diagnostic k says.

**Working likelihood.** Of many units with an outcome that is not Gaussian the likelihood is close to a normal one in
the coefficients: that of Fisher scoring's working outcome and weights at the mode (a Laplace approximation; with
villages, penalised quasi-likelihood, Breslow and Clayton 1993, whose village scales come out a little small where
villages hold few units). The Gaussian machinery takes it from there. Without villages the draws are weighted by the
exact likelihood in the same way. Dispersions are normal around their conditional mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData, Imputation
from causalsat.estimators.linear import data as linear_data
from causalsat.estimators.linear import density as linear_density
from causalsat.estimators.linear import draws as linear_draws
from causalsat.estimators.linear import families as linear_families
from causalsat.estimators.linear import glm as linear_glm
from causalsat.estimators.linear import missing as linear_missing
from causalsat.estimators.linear import model as linear_model
from causalsat.estimators.linear.data import LinearDesign, Statistics, no_villages, sufficient_statistics
from causalsat.estimators.linear.density import (
    GAUSSIAN,
    NEGATIVE_BINOMIAL,
    NORMAL,
    Layout,
    make_layout,
    prior_scales,
    start_scales,
    stretch,
    unstretch,
)
from causalsat.estimators.linear.design import Basis, ModelOptions, make_design
from causalsat.estimators.linear.draws import LinearFit, Posterior
from causalsat.estimators.linear.missing import Imputed
from causalsat.inference.chains import Settings, chain_summary, sample_nuts, worst_summary

FloatArray = NDArray[np.float64]


def sample_density(
    density: Callable[..., Any],
    arguments: tuple[Any, ...],
    start: FloatArray,
    steps: FloatArray,
    settings: Settings,
) -> tuple[FloatArray, int]:
    """Sample ``density(x, *arguments)``, log density and gradient, by NUTS.

    Parameters
    ----------
    density : callable
        Gives the log density at x, shape (d,), and its gradient.
    arguments : tuple
        What follows x.
    start : ndarray of shape (d,)
        Centre of the chains' starting points.
    steps : ndarray of shape (k,)
        Of the first k coordinates, those with a positive step are sampled as u = step sinh(v).
    settings : Settings
        Lengths of the chains, their number and seed.

    Returns
    -------
    draws : ndarray of shape (chain, draw, d)
        Draws.
    divergences : int
        Divergent transitions after tuning.
    """
    k, signed = len(steps), np.flatnonzero(steps > 0)
    centre = start.copy()
    centre[signed] = np.arcsinh(start[signed] / steps[signed])

    slope = np.ones(k)

    def stretched(v: FloatArray) -> tuple[float, FloatArray]:
        inside, log_jacobian = stretch(v, steps, slope)
        value, gradient = density(inside, *arguments)
        unstretch(gradient, v, steps, slope)
        return value + log_jacobian, gradient

    draws, divergences = sample_nuts(stretched, centre, settings)
    draws[..., signed] = steps[signed] * np.sinh(draws[..., signed])
    return draws, divergences


MANY_UNITS = 20_000  # from here on other families take the working likelihood
COSTLY = 500_000  # products a density from which villages, where they are many, are a block apart
MANY_VILLAGES = 1000
DEGREES = 7  # of freedom of the proposal
BLOCK = 32  # draws whose predictors are held at once
PASSES = 4  # of the working likelihood and the village scales in turn


@dataclass(frozen=True)
class Weighted:
    """Draws after importance resampling.

    Attributes
    ----------
    scales : ndarray of shape (draw, d)
        Coordinates.
    coefficients : ndarray of shape (draw, q)
        Coefficients.
    divergences : int
        Divergent transitions.
    pareto_k : float
        Diagnostic of the weights: below 0.7 they can be trusted; NaN where there were none.
    """

    scales: FloatArray
    coefficients: FloatArray
    divergences: int
    pareto_k: float


def is_costly(stats: Statistics) -> bool:
    """Whether villages make a density expensive."""
    q, n_villages = stats.dd.shape[1], stats.n_groups + stats.pooled.count.sum()
    if n_villages < MANY_VILLAGES:
        return False
    return bool((stats.rd.shape[0] + len(stats.pooled.arm)) * stats.rd.shape[1] * q * q > COSTLY)


# ---------------------------------------------------------------------- Gaussian outcomes
def sample_gaussian(layout: Layout, stats: Statistics, settings: Settings) -> Weighted:
    """Posterior draws of a Gaussian model, in blocks where villages are costly."""
    args = linear_density.arguments(layout, stats)
    rng = np.random.default_rng([settings.seed, 1])
    if layout.n_random and is_costly(stats):
        scales, divergences, pareto_k = _in_blocks(layout, args, settings, rng)
    else:
        chains, divergences = sample_density(
            linear_density.marginal_log_density, args, start_scales(layout), layout.steps(), settings
        )
        scales, pareto_k = np.ascontiguousarray(chains.reshape(-1, layout.n_scales)), float("nan")
    normals = rng.standard_normal((len(scales), layout.n_coefficients))
    return Weighted(scales, linear_density.draw_coefficients(scales, normals, args), divergences, pareto_k)


def _in_blocks(
    layout: Layout, args: tuple[Any, ...], settings: Settings, rng: np.random.Generator
) -> tuple[FloatArray, int, float]:
    """Draws of all coordinates: noise and village scales from a t distribution, the others from NUTS."""
    m = layout.n_arms + layout.n_random
    block = _Block(layout, args, m)
    start = start_scales(layout)
    mode, _ = block.mode(block.outward(start)[:m], start[m:])
    inner = replace(layout, n_arms=0, n_random=0)
    fixed = block.without_villages(mode, inner)
    chains, divergences = sample_density(
        linear_density.marginal_log_density, fixed, start[m:], inner.steps(), settings
    )
    others = chains.reshape(-1, inner.n_scales)
    others = np.where(inner.steps() > 0, np.abs(others), others)  # one sign, for the median
    mode, spread = block.mode(mode, np.median(others, axis=0))
    root = np.asarray(np.linalg.cholesky(spread), dtype=np.float64)
    z = rng.standard_normal((len(others), m))
    z /= np.sqrt(rng.chisquare(DEGREES, len(others)) / DEGREES)[:, None]
    proposed = mode + z @ root.T
    log_q = _folded_density(proposed, mode, root, layout.steps()[:m] > 0)
    log_weights = np.empty(len(others))
    scales = np.empty((len(others), layout.n_scales))
    for d, (v, rest) in enumerate(zip(proposed, others, strict=True)):
        value, scales[d] = block.value(v, rest)
        log_weights[d] = value - log_q[d] - linear_density.marginal_log_density(rest, *fixed)[0]
    chosen, pareto_k = resample(log_weights, chains.shape[0], rng)
    return scales[chosen], divergences, pareto_k


def _folded_density(v: FloatArray, mode: FloatArray, root: FloatArray, signed: NDArray[np.bool_]) -> FloatArray:
    """Log density of the proposal with either sign of the signed coordinates, as the target has; shape (draw,)."""
    from itertools import product

    from scipy.special import logsumexp

    each = []
    for signs in product((1.0, -1.0), repeat=int(signed.sum())):
        flip = np.ones(len(mode))
        flip[signed] = signs
        z = np.linalg.solve(root, (flip * v - mode).T)
        each.append(-0.5 * (DEGREES + len(mode)) * np.log1p((z**2).sum(axis=0) / DEGREES))
    return np.asarray(logsumexp(each, axis=0))


class _Block:
    """The density as a function of the first m coordinates in the sampler's form, the others given."""

    def __init__(self, layout: Layout, args: tuple[Any, ...], m: int) -> None:
        self.layout, self.args, self.m, self.steps = layout, args, m, layout.steps()[:m]

    def outward(self, phi: FloatArray) -> FloatArray:
        """The sampler's form of coordinates."""
        steps = self.layout.steps()
        signed = steps > 0
        return np.where(signed, np.arcsinh(phi / np.where(signed, steps, 1.0)), phi)

    def value_and_slope(self, v: FloatArray, rest: FloatArray) -> tuple[float, FloatArray]:
        """Log density of v and its gradient."""
        slope = np.ones(self.m)
        inside, log_jacobian = stretch(v, self.steps, slope)
        value, gradient = linear_density.marginal_log_density(np.concatenate([inside, rest]), *self.args)
        return value + log_jacobian, gradient[: self.m] * slope + np.tanh(v) * (self.steps > 0)

    def value(self, v: FloatArray, rest: FloatArray) -> tuple[float, FloatArray]:
        """Log density of v and all coordinates."""
        inside, log_jacobian = stretch(v, self.steps, np.ones(self.m))
        phi = np.concatenate([inside, rest])
        return linear_density.marginal_log_density(phi, *self.args)[0] + log_jacobian, phi

    def mode(self, start: FloatArray, rest: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mode given the others, and the inverse of the negative Hessian there."""
        from scipy.optimize import minimize

        def downhill(v: FloatArray) -> tuple[float, FloatArray]:
            value, slope = self.value_and_slope(v, rest)
            return -value, -slope

        result = minimize(downhill, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x
        step = 1e-3
        columns = [(downhill(result + h)[1] - downhill(result - h)[1]) / (2 * step) for h in step * np.eye(self.m)]
        hessian = 0.5 * (np.array(columns) + np.array(columns).T)
        eigen, vectors = np.linalg.eigh(hessian)
        return result, (vectors / np.maximum(eigen, 1.0)) @ vectors.T  # flat directions: sd at most 1

    def without_villages(self, v: FloatArray, inner: Layout) -> tuple[Any, ...]:
        """Arguments of the density of the other coordinates at fixed noise and village scales."""
        inside, _ = stretch(v, self.steps, np.ones(self.m))
        phi = np.concatenate([inside, start_scales(inner)])
        _, dd, dy, yy, _, *villages = self.args
        _, A, b, const = linear_density.collapse(phi, self.args[0], dd, dy, yy, *villages)[:4]
        return gaussian_arguments(inner, A, b, const)


def gaussian_arguments(layout: Layout, A: FloatArray, b: FloatArray, const: float) -> tuple[Any, ...]:
    """Arguments of the density for a likelihood exp(-(const - 2 b'c + c'Ac) / 2) of coefficients c."""
    q, none = len(b), np.zeros(0, dtype=np.int64)
    empty = (np.zeros((0, 1, 1)), np.zeros((0, 1, q)), np.zeros((0, 1)), none, none, 0)
    stats = Statistics(A[None], b[None], np.array([const]), np.zeros(1), *empty, no_villages(q))
    return linear_density.arguments(layout, stats)


def resample(log_weights: FloatArray, n_chains: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], float]:
    """Systematic resampling by Pareto smoothed weights, chain by chain and in order; and the weights' k.

    Draws that are taken twice stand beside each other, so effective sample sizes count them once.
    """
    from arviz import psislw

    usable = np.where(np.isfinite(log_weights), log_weights, -1e300)
    smoothed, pareto_k = psislw(usable[None])
    weights = np.exp(np.ravel(smoothed)).reshape(n_chains, -1)
    n = weights.shape[1]
    chosen = []
    for c, chain in enumerate(weights):
        share = np.cumsum(chain / chain.sum()) if chain.sum() > 0 else np.arange(1, n + 1) / n
        chosen.append(c * n + np.searchsorted(share, (np.arange(n) + rng.random()) / n).clip(0, n - 1))
    return np.concatenate(chosen), float(np.ravel(pareto_k)[0])


# ---------------------------------------------------------------------- other outcomes
def sample_working(design: LinearDesign, layout: Layout, settings: Settings) -> Weighted:
    """Posterior draws of another family from its working Gaussian likelihood."""
    rng = np.random.default_rng([settings.seed, 6])
    rows = np.ascontiguousarray(design.rows)
    theta, _ = linear_glm.ridge_mode(rows, design, layout)
    inner = replace(layout, n_arms=0)
    village: FloatArray | float = 0.0
    for last in range(PASSES if layout.n_random else 1):
        eta = design.offset + rows @ theta + village
        dispersion, spread = dispersion_mode(design, layout, eta)
        stats = sufficient_statistics(working_design(design, layout, eta, dispersion))
        if layout.n_random and last < PASSES - 1:
            args = linear_density.arguments(inner, stats)
            block, start = _Block(inner, args, layout.n_random), start_scales(inner)
            v, _ = block.mode(block.outward(start)[: layout.n_random], start[layout.n_random :])
            phi = block.value(v, start[layout.n_random :])[1]
            theta, village = _modes(phi, args, design, layout.n_random)
    result = sample_gaussian(inner, stats, settings)
    phi = dispersion + spread * rng.standard_normal((len(result.scales), layout.n_arms))
    scales = np.column_stack([phi, result.scales])
    if layout.n_random:
        return replace(result, scales=scales)
    log_weights = exact_log_likelihood(result.coefficients, phi, rows, design, layout)
    A, b = stats.dd[0], stats.dy[0]
    log_weights += (
        0.5 * np.einsum("di,ij,dj->d", result.coefficients, A, result.coefficients) - result.coefficients @ b
    )
    if layout.n_arms:
        log_weights += dispersion_prior(phi, layout)
        log_weights += 0.5 * (((phi - dispersion) / spread) ** 2).sum(axis=1)
    chosen, pareto_k = resample(log_weights, settings.n_chains, rng)
    return Weighted(scales[chosen], result.coefficients[chosen], result.divergences, pareto_k)


def working_design(design: LinearDesign, layout: Layout, eta: FloatArray, dispersion: FloatArray) -> LinearDesign:
    """Gaussian design with Fisher scoring's working outcome and weights, and noise of variance one."""
    scale = np.abs(dispersion) if layout.family == NEGATIVE_BINOMIAL else np.exp(dispersion)
    each = scale[design.arm] if layout.n_arms else 1.0
    score, curvature = linear_families.score_and_information(eta, design.y, each, layout.family)
    return replace(
        design,
        y=eta - design.offset + score / curvature,
        weight=design.weight * curvature,
        arm=np.zeros(len(eta), dtype=np.int64),
    )


def dispersion_mode(design: LinearDesign, layout: Layout, eta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mode and standard deviation of each dispersion's coordinate given the predictors, shape (arm,)."""
    from scipy.optimize import minimize_scalar

    centre, spread = np.zeros(layout.n_arms), np.ones(layout.n_arms)
    bounds = (0.0, 5.0) if layout.family == NEGATIVE_BINOMIAL else (-6.0, 3.0)
    for a in range(layout.n_arms):
        own = design.arm == a
        part = replace(design, y=design.y[own], weight=design.weight[own], arm=design.arm[own] * 0)
        held = linear_families.constants(part, layout.family)
        given = (eta[own], part.y, part.weight, part.arm)
        room = np.empty(len(part.y))

        def value(phi: float, given: Any = given, held: FloatArray = held, room: FloatArray = room) -> float:
            at = np.array([phi])
            out = linear_families.log_likelihood(*given, at, held, layout.family, room, np.zeros(1))
            return float(out + dispersion_prior(at, layout))

        result = float(minimize_scalar(lambda phi: -value(phi), bounds=bounds, method="bounded").x)
        step = 0.02
        curvature = -(value(result + step) - 2 * value(result) + value(result - step)) / step**2
        centre[a], spread[a] = result, 1.0 / np.sqrt(max(curvature, 25.0))
    return centre, spread


def dispersion_prior(phi: FloatArray, layout: Layout) -> FloatArray:
    """Log prior density of dispersions' coordinates, summed over the last axis."""
    if layout.family == NEGATIVE_BINOMIAL:
        return np.asarray((-2.0 * np.log1p(phi**2 / 3.0)).sum(axis=-1))
    return np.asarray((phi - 2.0 * np.log1p(np.exp(2.0 * phi) / 3.0)).sum(axis=-1))


def _modes(phi: FloatArray, args: tuple[Any, ...], design: LinearDesign, k: int) -> tuple[FloatArray, FloatArray]:
    """Posterior mean of the coefficients at coordinates phi, and each unit's village part of the predictor."""
    layout, dd, dy, yy, _, *villages = args
    _, A, b, _, _, S, v, lam, B, _ = linear_density.collapse(phi, layout, dd, dy, yy, *villages)
    theta = np.linalg.solve(A + np.diag(1.0 / prior_scales(phi, layout)[0]), b)
    effects = lam[:, None] * np.einsum("gij,gj->ig", B, v - S @ theta)
    random = np.column_stack([np.ones(len(design.y)), design.t])[:, :k]
    assert design.group is not None
    return theta, (random * effects.T[design.group]).sum(axis=1)


def exact_log_likelihood(
    coefficients: FloatArray, phi: FloatArray, rows: FloatArray, design: LinearDesign, layout: Layout
) -> FloatArray:
    """Log likelihood of each draw of coefficients and dispersions, shape (draw,)."""
    held = linear_families.constants(design, layout.family)
    room, out = np.empty(len(rows)), np.empty(len(coefficients))
    for first in range(0, len(out), BLOCK):
        etas = coefficients[first : first + BLOCK] @ rows.T + design.offset
        for d, eta in enumerate(etas, start=first):
            out[d] = linear_families.log_likelihood(
                eta, design.y, design.weight, design.arm, phi[d], held, layout.family, room, np.zeros(layout.n_arms)
            )
    return out


@dataclass(frozen=True)
class Fitted:
    """What a fit gives.

    Attributes
    ----------
    posterior : Posterior
        Draws in units of the outcome and how to apply them to units.
    layout : Layout
        Coordinates and constants of the priors, for draws from the prior.
    n_random : int
        Effects of each village: 0, 1 or 2.
    diagnostics : dict
        What the chains say of themselves.
    """

    posterior: Posterior
    layout: Layout
    n_random: int
    diagnostics: dict[str, Any]


def fit(
    data: FitData,
    imputation: Imputation,
    options: ModelOptions,
    settings: Settings,
    *,
    sampler: str = "auto",
    n_imputations: int | None = None,
) -> Fitted:
    """Fit the model to checked data, or to imputations of it.

    Parameters
    ----------
    data : FitData
        Checked training data.
    imputation : Imputation
        How its missing values were filled.
    options : ModelOptions
        The model.
    settings : Settings
        Lengths of the chains, their number and seed.
    sampler : {"auto", "laplace", "pymc"}
        How it is sampled.
    n_imputations : int or None
        Imputations drawn in the model; None where missing features are filled by their means.
    """
    basis, Z, design = make_design(data, imputation, options)
    layout = make_layout(design, options.prior, family=options.family)
    tables, model, missing = [Z], None, basis.missing(data.X)
    if n_imputations is not None and missing.any():
        tables, model = linear_missing.imputations(
            design, Z, missing, basis.may_be_missing, basis.places, options.family, n_imputations, settings.seed
        )
    fits = [
        fit_model(
            design if model is None else _with_features(design, table * basis.prior_scale, basis),
            prior=options.prior,
            family=options.family,
            sampler=sampler,
            settings=replace(settings, seed=settings.seed + m),
        )
        for m, table in enumerate(tables)
    ]
    pooled = linear_draws.pool(fits)
    draws = linear_draws.in_outcome_units(pooled, basis)
    draws |= linear_draws.averages(draws, tables, basis.places, data.sample_weight, design.stratum)
    diagnostics = diagnose(draws, settings, divergences=pooled.divergences, pareto_k=pooled.pareto_k, sampler=sampler)
    kept = {name: values[:: len(fits)] for name, values in draws.items()}  # as many as of one fit
    imputed = None
    if model is not None:
        which = np.repeat(np.arange(len(fits)), settings.n_chains * settings.n_draws)[:: len(fits)]
        imputed = Imputed(basis.may_be_missing, model, which)
    posterior = Posterior(kept, basis, layout.family, settings.seed, imputed)
    if layout.family != GAUSSIAN:
        kept["ate"], kept["outcome_effect_sd"] = linear_draws.average_effects(posterior, data.X, data.sample_weight)
    return Fitted(posterior, layout, design.n_random, diagnostics)


def _with_features(design: LinearDesign, main: FloatArray, basis: Basis) -> LinearDesign:
    """The design with other features."""
    return replace(design, main=main, interaction=design.t[:, None] * main[:, basis.places])


def diagnose(
    draws: Mapping[str, FloatArray],
    settings: Settings,
    *,
    divergences: int = 0,
    pareto_k: float = float("nan"),
    sampler: str = "auto",
) -> dict[str, Any]:
    """The worst R-hat and effective sample size of what is reported, over the fits whose draws these are.

    Effective sample sizes are those of bulk and tails for effects, of the bulk for scales.

    Parameters
    ----------
    draws : mapping of str to ndarray of shape (draw,) or (draw, k)
        Draws of one fit or of several, one fit after the other.
    settings : Settings
        Lengths of the chains of each fit.
    divergences, pareto_k, sampler
        What else is known of them.
    """

    def methods(name: str) -> tuple[str, ...]:
        return ("bulk",) if name.endswith("sd") or name == "noise" else ("bulk", "tail")

    n_fits = len(next(iter(draws.values()))) // (settings.n_chains * settings.n_draws)
    chains = {name: v.reshape(n_fits, settings.n_chains, settings.n_draws, v[0].size) for name, v in draws.items()}
    each = [chain_summary({name: v[m] for name, v in chains.items()}, 0, methods=methods) for m in range(n_fits)]
    diagnostics = worst_summary(each) | {"divergences": divergences, "sampler": sampler}
    if n_fits > 1:
        diagnostics["imputations"] = n_fits
    if np.isfinite(pareto_k):
        diagnostics["pareto_k"] = pareto_k
    return diagnostics


def fit_model(design: LinearDesign, *, prior: str, family: str, sampler: str, settings: Settings) -> LinearFit:
    """Sample the model of a design.

    Wide designs are reduced to principal axes where that is exact: main effects always, interactions under the
    normal prior.
    """
    main_axes = linear_data.principal_axes(design.main)
    interaction_axes = linear_data.principal_axes(design.interaction) if prior == "normal" else None
    full = design.interaction.shape[1]
    if main_axes is not None:
        design = replace(design, main=design.main @ main_axes)
    if interaction_axes is not None:
        design = replace(design, interaction=design.interaction @ interaction_axes)
    layout, pareto_k = make_layout(design, prior, family=family, rank=full), float("nan")
    if sampler == "pymc":
        scales, coefficients, divergences = linear_model.sample(design, layout, settings)
    elif family == "gaussian" or sampler == "laplace" or len(design.y) >= MANY_UNITS:
        weighted = _sample_large(design, layout, settings)
        scales, coefficients = weighted.scales, weighted.coefficients
        divergences, pareto_k = weighted.divergences, weighted.pareto_k
    else:
        scales, coefficients, divergences = _sample_glm(design, layout, settings)
    rng = np.random.default_rng([settings.seed, 2])
    p, j = layout.n_main, layout.n_interactions
    kappa = layout.main_scale(scales)
    lam = np.abs(scales[:, layout.n_common]) if j and layout.prior == NORMAL else kappa
    expanded = [
        coefficients[:, :1],
        linear_data.expand_axes(coefficients[:, 1 : 1 + p], main_axes, kappa, rng),
        coefficients[:, 1 + p : 2 + p],
        linear_data.expand_axes(coefficients[:, 2 + p : 2 + p + j], interaction_axes, lam, rng),
    ]
    noise = layout.noise(scales)
    return LinearFit(
        np.column_stack(expanded),
        coefficients[:, 2 + p + j :].reshape(len(scales), -1, max(layout.n_strata, 1)),
        np.sqrt(linear_density.NOISE_FLOOR + noise**2) if family == "gaussian" else noise,
        layout.random_sd(scales),
        layout.stratum_sd(scales),
        divergences,
        pareto_k,
    )


def _sample_large(design: LinearDesign, layout: Layout, settings: Settings) -> Weighted:
    if layout.family != GAUSSIAN:
        return sample_working(design, layout, settings)
    return sample_gaussian(layout, sufficient_statistics(design), settings)


def _sample_glm(design: LinearDesign, layout: Layout, settings: Settings) -> tuple[FloatArray, FloatArray, int]:
    args = linear_glm.arguments(layout, design)
    n_raw = layout.n_coefficients + design.n_groups * layout.n_random
    start = np.concatenate([start_scales(layout), np.zeros(n_raw)])
    chains, divergences = sample_density(linear_glm.glm_log_density, args, start, layout.steps(), settings)
    draws = np.ascontiguousarray(chains.reshape(-1, len(start)))
    scales = draws[:, : layout.n_scales]
    return scales, linear_glm.coefficients(draws, layout, *args[-2:]), divergences
