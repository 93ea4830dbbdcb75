"""From checked data to sampled functions: the search for the hyperparameters, their draws, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler, warn_of_unresolved
from causalsat.core.inputs import FitData, FloatArray
from causalsat.estimators.gaussian_process import model as gp_model
from causalsat.estimators.gaussian_process import paths as gp_paths
from causalsat.estimators.gaussian_process import sampler as gp_sampler
from causalsat.estimators.gaussian_process.likelihood import MarginalPosterior
from causalsat.estimators.gaussian_process.model import (
    Model,
    Observations,
    Scaling,
    inducing_rows,
    learn_scaling,
    observe,
    random_rows,
)
from causalsat.estimators.gaussian_process.paths import FunctionDraws
from causalsat.estimators.gaussian_process.sampler import LearnedScales
from causalsat.estimators.levels import is_binary, n_village_effects
from causalsat.inference.chains import effective_size_of_means

__all__ = ["FitOptions", "Fitted", "Surfaces", "fit"]

IntArray = NDArray[np.int64]

MIN_HALVED = 300  # distinct rows from which the search starts on half of them
MAX_LAST_ITER = 20  # iterations of the search after that, on all rows and with learned scales
N_THIN = 450  # distinct rows below which more transitions lie between draws of the hyperparameters
MAX_THIN = 4  # as they cost little
N_FEATURES = 512  # random features of a term's prior draws


@dataclass(frozen=True)
class FitOptions:
    """What the parameters of :class:`~causalsat.GaussianProcessEffect` say of the fit; see there."""

    index: bool
    group_effects: bool
    group_slopes: bool | str
    n_draws: int
    n_hyper: int
    n_chains: int
    n_burn: int
    n_starts: int
    max_iter: int
    n_max_hyper: int
    n_max_exact: int
    n_inducing: int


@dataclass(frozen=True)
class Surfaces:
    """Sampled functions and what it takes to evaluate them.

    Attributes
    ----------
    functions : list of FunctionDraws
        One for each draw of the hyperparameters.
    terms : list of Term
        The covariance.
    rows_Z, rows_t : ndarray of shape (m, p) and (m,)
        Features and treatments on which the functions were conditioned.
    scaling : Scaling
        Of features, outcome and treatment.
    n_draws : int
        Draws that are given out.
    """

    functions: list[FunctionDraws]
    terms: list[Any]
    rows_Z: FloatArray
    rows_t: FloatArray
    scaling: Scaling
    n_draws: int

    def contrast(self, Z: FloatArray, level: FloatArray, baseline: FloatArray | None) -> FloatArray:
        """Draws (draw, unit) of f(Z, level) - f(Z, baseline), or of f(Z, level), in the outcome's units.

        Features and levels are standardised.
        """
        draws = gp_paths.contrast_draws(self.functions, self.terms, self.rows_Z, self.rows_t, Z, level, baseline)
        return np.asarray(self.scaling.y_sd * draws[: self.n_draws])


@dataclass(frozen=True)
class Fitted:
    """What a fit gives.

    Attributes
    ----------
    model : Model
        Terms and priors.
    surfaces : Surfaces
        Sampled functions.
    binary, has_propensity, inducing : bool
        Whether the treatment is 0 and 1; a known propensity is the last feature; the functions were conditioned
        through inducing rows.
    hyperparameters : dict of str to float
        Amplitudes, noise and village standard deviations, means of the draws, in the outcome's units.
    relevance : ndarray of shape (p,)
        Share of each feature in the kernels' weights.
    ate_draws, effect_sd_draws : ndarray of shape (draw,)
        Average effect over the training units, and the effects' standard deviation over their distinct rows.
    n_distinct, evaluations : int
        Distinct rows; evaluations of the likelihood.
    log_posterior, acceptance : float
        Of the last draws of the hyperparameters; mean acceptance probability of the kept transitions.
    ess : float
        Effective sample size of the effects' posterior means.
    """

    model: Model
    surfaces: Surfaces
    binary: bool
    has_propensity: bool
    inducing: bool
    hyperparameters: dict[str, float]
    relevance: FloatArray
    ate_draws: FloatArray
    effect_sd_draws: FloatArray
    n_distinct: int
    evaluations: int
    log_posterior: float
    acceptance: float
    ess: float


def fit(data: FitData, modifiers: IntArray, options: FitOptions, rng: np.random.Generator) -> Fitted:
    """Fit the model to checked data.

    Parameters
    ----------
    data : FitData
        Checked training data.
    modifiers : ndarray of int
        Columns on which the effect may depend.
    options : FitOptions
        How to fit.
    rng : Generator
        Source of randomness.
    """
    e, binary = data.propensity, is_binary(data.treatment)
    has_propensity = e is not None and bool(np.ptp(e) > 1e-9)
    X = np.column_stack([data.X, e]) if e is not None and has_propensity else data.X
    warn_of_unresolved(learn_scaler(X, data.sample_weight), [*data.feature_names, "propensity"])
    scaling = learn_scaling(X, data.y, data.treatment, data.sample_weight, binary=binary)
    n_random = n_village_effects(data, group_effects=options.group_effects, group_slopes=options.group_slopes)
    groups = data.groups if n_random else None
    observed = observe(scaling, X, data.y, data.treatment, data.sample_weight, groups, binary=binary)
    if binary:
        model = gp_model.binary_model(X.shape[1], modifiers, n_random, ridge=options.index)
    else:
        t = scaling.treatment(data.treatment)
        model = gp_model.continuous_model(X.shape[1], modifiers, n_random, (float(t.min()), float(t.max())))
    chains = [sample_hyperparameters(model, observed, options, rng, binary=binary) for _ in range(options.n_chains)]
    thetas = np.concatenate([chain.thetas for chain in chains])
    inducing = None
    if len(observed.y) > options.n_max_exact:
        inducing = observed.take(inducing_rows(observed, options.n_inducing, rng))
    functions = sample_functions(model, observed, thetas, options.n_draws, rng, inducing)
    rows = observed if inducing is None else inducing
    surfaces = Surfaces(functions, model.terms, rows.Z, rows.t, scaling, options.n_draws)
    one, zero = (np.full(len(observed.y), float(scaling.treatment(np.array(level)))) for level in (1.0, 0.0))
    effects = surfaces.contrast(observed.Z, one, zero)
    return Fitted(
        model=model,
        surfaces=surfaces,
        binary=binary,
        has_propensity=has_propensity,
        inducing=inducing is not None,
        hyperparameters=describe_hyperparameters(model, thetas, scaling.y_sd, binary=binary),
        relevance=np.mean([gp_model.relevance(model, theta, X.shape[1]) for theta in thetas], axis=0),
        ate_draws=effects @ (observed.weight / observed.weight.sum()),
        effect_sd_draws=effects.std(axis=1),
        n_distinct=len(observed.y),
        evaluations=sum(chain.evaluations for chain in chains),
        log_posterior=float(np.mean([chain.log_posterior for chain in chains])),
        acceptance=float(np.mean([chain.acceptance for chain in chains])),
        ess=effective_size(effects, functions, options.n_chains),
    )


# ---------------------------------------------------------------------- hyperparameters
@dataclass(frozen=True)
class Search:
    """Draws of the hyperparameters, shape (n, k), or their mode; what the sampler says; evaluations it took."""

    thetas: FloatArray
    log_posterior: float
    acceptance: float
    evaluations: int


def sample_hyperparameters(
    model: Model, data: Observations, options: FitOptions, rng: np.random.Generator, *, binary: bool
) -> Search:
    """Draws of the hyperparameters (or their mode), from all rows or a subset of whole villages.

    The search begins with half of the rows, where there are many: each step there costs a fifth. The sampler then
    starts from the mode given all rows, for doses from a draw given that half: in simulations the one was more
    accurate for arms (of which a draw given half of the rows lies far out), the other for doses. For arms the
    scales of the weights are then learned; learned from the beginning of the search they led to worse modes.
    """
    used = data.take(random_rows(data, options.n_max_hyper, rng)) if len(data.y) > options.n_max_hyper else data
    posterior = MarginalPosterior(model, used)
    starts = gp_model.starting_points(model, used.Z, used.t, used.y, options.n_starts, rng)
    sampled, halved, count = options.n_hyper > 1, len(used.y) >= MIN_HALVED, 0
    if halved:
        half = MarginalPosterior(model, used.take(random_rows(used, len(used.y) // 2, rng)))
        theta, _ = gp_sampler.find_mode(half, starts, options.max_iter)
        if sampled and not binary:
            theta = gp_sampler.sample(half, theta, 1, 2 * options.n_burn, rng).thetas[0]
        starts, count = [theta], half.count
    scales = LearnedScales(model) if sampled and binary else None
    learned = scales is not None and bool(scales.parts)
    last = min(options.max_iter, MAX_LAST_ITER)
    value, acceptance = float("nan"), 1.0
    if not (halved and sampled) or (binary and not learned):
        theta, value = gp_sampler.find_mode(posterior, starts, last if halved and sampled else options.max_iter)
    thetas = theta[None]
    if sampled:
        n = max(1, min(options.n_hyper, options.n_draws // 2) // options.n_chains)
        thin = int(np.clip((N_THIN / len(used.y)) ** 2, 1, MAX_THIN))
        burn = thin * options.n_burn
        if scales is not None and learned:
            draws = gp_sampler.sample_scaled(scales, posterior, theta, last, n, burn, rng, thin)
        else:
            draws = gp_sampler.sample(posterior, theta, n, burn, rng, thin)
        thetas, acceptance, value = draws.thetas, draws.acceptance, draws.value
    return Search(thetas, value, acceptance, posterior.count + count)


def sample_functions(
    model: Model,
    data: Observations,
    thetas: FloatArray,
    n_draws: int,
    rng: np.random.Generator,
    inducing: Observations | None,
) -> list[FunctionDraws]:
    """Functions for every draw of the hyperparameters, conditioned on all rows or through inducing ones."""
    pairs = np.diff(np.linspace(0, (n_draws + 1) // 2, len(thetas) + 1).astype(int))
    work = MarginalPosterior(model, data) if inducing is None else None
    return [
        gp_paths.function_draws(theta, model, data, int(s), N_FEATURES, rng, inducing, work)
        for theta, s in zip(thetas, pairs, strict=True)
    ]


def effective_size(effects: FloatArray, functions: list[FunctionDraws], n_chains: int) -> float:
    """Effective sample size of the means of effects (draw, unit); NaN where the hyperparameters were not sampled.

    The draws are antithetic pairs, those of each function together.
    """
    first = np.cumsum([0, *(2 * f.deviation.shape[1] for f in functions[:-1])])
    if len(first) < 2 or first[-1] + 1 >= len(effects):
        return float("nan")
    means = 0.5 * (effects[first] + effects[first + 1])
    return effective_size_of_means(means.reshape(n_chains, -1, effects.shape[1]), effects.std(axis=0, ddof=1))


def describe_hyperparameters(model: Model, thetas: FloatArray, y_sd: float, *, binary: bool) -> dict[str, float]:
    """Amplitudes, noise and village standard deviations by name: means of the draws, in the outcome's units."""
    sds = y_sd * np.exp(thetas).mean(axis=0)
    noise = ["noise sd, control", "noise sd, treated"] if binary else ["noise sd"]
    names = [*noise, *["sd of villages", "sd of village effects on treatment"][: model.n_random]]
    values = {f"amplitude, {term.name}": float(sds[term.start]) for term in model.terms}
    return values | {name: float(v) for name, v in zip(names, sds[model.noise_at :], strict=True)}
