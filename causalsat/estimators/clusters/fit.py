"""From checked data to a fitted cluster model: outcome, folds, features, number of types, posterior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.core.warn import warn
from causalsat.encoders.networks.training import TrainSettings
from causalsat.encoders.random_conv.features import RandomConvFeatures
from causalsat.estimators.clusters.data import (
    Outcome,
    image_folds,
    make_cells,
    prepare_outcome,
    site_codes,
    treatment_redraws,
)
from causalsat.estimators.clusters.density import Cells, Prior, site_log_likelihood
from causalsat.estimators.clusters.features import FrozenFeatures
from causalsat.estimators.clusters.network import NetworkScores
from causalsat.estimators.clusters.posterior import Posterior, find_mode, sample
from causalsat.estimators.clusters.selection import Selection, select
from causalsat.estimators.image_base import ImageFitData, blocks_of
from causalsat.exceptions import ConvergenceError, DataError, DataWarning
from causalsat.inference.chains import (
    ChainPolicy,
    Settings,
    chain_summary,
    convergence_problems,
    seed_of,
    warn_of_chains,
)

__all__ = ["Fitted", "Options", "fit_model"]

IntArray = NDArray[np.int64]

TRUNK_CLUSTERS = 2  # clusters of the likelihood that networks are trained on while their number is open
POLICY = ChainPolicy(r_hat=1.03, ess_per_chain=50.0, divergence_share=0.02)
FAILURE = ChainPolicy(r_hat=1.1, ess_per_chain=0.0, divergence_share=0.1)  # no answer
CAREFUL = 0.95  # accepted share of steps, of a second run
MISFIT = 3.0  # standard errors of the difference from a regression
NOTABLE = 0.5  # standard errors of the regression: a smaller difference matters to nobody
MAX_DRAWS = 1000
MIN_DRAWS = 150  # of a chain of a number of types beside the chosen one


@dataclass(frozen=True)
class Options:
    """What :class:`causalsat.ImageEffectClusters` is asked to fit; its parameters of the same names."""

    n_clusters: int | str
    max_clusters: int
    backbone: Any
    n_components: int
    assignment: str
    noise: str
    image_px: int
    augment: bool
    max_epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    n_networks: int
    n_folds: int
    n_restarts: int
    margin: float
    n_permutations: int
    n_draws: int
    n_tune: int
    n_chains: int
    checkpoint: str | None
    device: str
    random_state: Any
    progress: bool


@dataclass(frozen=True, eq=False)
class Problem:
    """What the density of the last layer is of.

    Attributes
    ----------
    cells : Cells
        Outcomes.
    scores : ndarray of shape (m, d)
        Features of the images.
    prior : Prior
        Scales.
    n_clusters : int
        K.
    """

    cells: Cells
    scores: FloatArray
    prior: Prior
    n_clusters: int


@dataclass(frozen=True)
class Fitted:
    """A fitted cluster model.

    Attributes
    ----------
    encoder : transformer of chips
        Gives the features of the last layer.
    scores : ndarray of shape (m, d)
        Features of the training images.
    selection : Selection or None
        How K was chosen.
    draws : dict of str to ndarray
        Posterior draws in units of the outcome, as :meth:`Layout.unpack` names them, and ``ate``.
    diagnostics : dict
        What the chains say of themselves.
    reference : dict of str to (float, float)
        Average effect by regressions: estimate, standard error.
    problem : Problem
        What was sampled, with K and the data.
    components : list of dict of str to ndarray
        The average over numbers of types: draws of ``tau`` and ``logit`` with each, as many as its weight says.
    """

    encoder: Any
    scores: FloatArray
    selection: Selection | None
    draws: dict[str, FloatArray]
    diagnostics: dict[str, Any]
    reference: dict[str, tuple[float, float]]
    problem: Problem
    components: list[dict[str, FloatArray]]


def fit_model(data: ImageFitData, options: Options) -> Fitted:
    """Fit the model that the options describe."""
    from threadpoolctl import threadpool_limits

    seed = seed_of(options.random_state)
    shares, together = options.assignment == "share", options.assignment != "unit"
    outcome = prepare_outcome(data, tied_noise=options.noise == "arm" or shares, shares=shares)
    arm, image = data.treatment.astype(np.int64), data.images.unit_image
    cells, unit_site = make_cells(image, site_codes(data), arm, outcome.y, data.sample_weight, share=together)
    block = blocks_of(image, data.groups, len(data.images))
    fold = image_folds(block, image, arm, options.n_folds, seed)
    encoder, scores = fit_features(options, data, outcome, block, fold, seed)
    with threadpool_limits(limits=1, user_api="blas"):  # products of tiny matrices
        selection = None
        if options.n_clusters == "auto":
            selection = select(
                cells,
                scores,
                outcome.prior,
                fold,
                treatment_redraws(data, outcome, share=together),
                max_clusters=options.max_clusters,
                margin=options.margin,
                n_permutations=options.n_permutations,
                n_restarts=options.n_restarts,
                seed=seed,
            )
        n_clusters = int(options.n_clusters) if selection is None else selection.chosen
        problem = Problem(cells, scores, outcome.prior, n_clusters)
        posterior = sample_posterior(problem, options, seed)
        draws = in_units(posterior.layout.unpack(posterior.draws), outcome.scale)
        diagnostics = diagnose(posterior, draws, options)
        share = np.bincount(image, data.sample_weight / data.sample_weight.sum(), minlength=len(scores)).astype(float)
        own = average_effects(draws, scores, share)
        apart = difference_se(problem, posterior, own, np.bincount(unit_site, outcome.influence).astype(float))
        components, used = average_over_numbers(problem, draws, selection, options, seed, outcome.scale)
        draws["ate"] = np.concatenate([average_effects(part, scores, share) for part in components])
    warn_of_misfit(own, outcome.reference["regression with covariates"], apart, options)
    selection = None if selection is None else replace(selection, weights=used)
    return Fitted(encoder, scores, selection, draws, diagnostics, outcome.reference, problem, components)


def average_over_numbers(
    problem: Problem,
    draws: dict[str, FloatArray],
    selection: Selection | None,
    options: Options,
    seed: int,
    scale: float,
) -> tuple[list[dict[str, FloatArray]], dict[int, float]]:
    """Draws of effects and logits with each number of types that has a weight, in that proportion; the weights used.

    A number whose chains fail is left out, and its weight goes to the others; the chosen number is always there.

    Parameters
    ----------
    problem : Problem
        The model with the chosen number.
    draws : dict of str to ndarray
        Its draws, in units of the outcome.
    selection : Selection or None
        The weights; without, the chosen number alone.
    options, seed : Options, int
        How to sample.
    scale : float
        Standard deviation of the outcome.
    """
    weights = {problem.n_clusters: 1.0} if selection is None else selection.weights
    found = {}
    for k in weights:
        if k == problem.n_clusters:
            found[k] = draws
            continue
        fewer = replace(options, n_draws=max(MIN_DRAWS, int(np.ceil(weights[k] * options.n_draws))))
        posterior = sample_posterior(replace(problem, n_clusters=k), fewer, seed, again=False)
        unpacked = posterior.layout.unpack(posterior.draws)
        if not fails(summarise(posterior, unpacked)):
            found[k] = in_units(unpacked, scale)
    total = sum(weights[k] for k in found)
    used = {k: weights[k] / total for k in found}
    edges = np.rint(len(draws["tau"]) * np.cumsum([0.0, *used.values()])).astype(int)
    components = []
    for part, n in zip(found.values(), np.diff(edges), strict=True):
        rows = np.linspace(0, len(part["tau"]) - 1, n).round().astype(int)
        components.append({name: part[name][rows] for name in ("tau", "logit")})
    return components, used


def average_effects(draws: dict[str, FloatArray], scores: FloatArray, share: FloatArray) -> FloatArray:
    """Draws (draw,) of the effect averaged over images with these shares of the units, shape (m,)."""
    effect = np.einsum("skm,sk->sm", type_probabilities(draws["logit"], scores), draws["tau"])
    return np.asarray(effect @ share)


def type_probabilities(logit: FloatArray, features: FloatArray) -> FloatArray:
    """Draws (draw, K, image) of the types' probabilities, from logits (draw, K, 1 + d) and features (image, d).

    Examples
    --------
    >>> type_probabilities(np.array([[[0.0, 0.0], [0.0, 1.0]]]), np.array([[0.0], [np.log(3.0)]]))
    array([[[0.5 , 0.25],
            [0.5 , 0.75]]])
    """
    logits = logit[:, :, :1] + logit[:, :, 1:] @ features.T
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))


# ---------------------------------------------------------------------- features
def fit_features(
    options: Options, data: ImageFitData, outcome: Outcome, block: IntArray, fold: IntArray, seed: int
) -> tuple[Any, FloatArray]:
    """Fitted encoder and the features (m, d) of the training images for the last layer."""
    if len(data.images) < 4:
        raise DataError(
            f"{len(data.images)} distinct images", expected="at least 4", todo="units at more places, or larger chips"
        )
    backbone = options.backbone
    if backbone == "random_conv":
        size = min(int(k) for k in data.images.chips.shape[-2:])
        backbone = RandomConvFeatures(patch_px=min(4, size), random_state=seed % 2**31, device=options.device)
    if isinstance(backbone, str):
        return _train_networks(backbone, options, data, outcome, block, fold, seed)
    encoder = FrozenFeatures(backbone, options.n_components)
    if getattr(backbone, "requests_roles", False):
        image = data.images.unit_image
        roles = {"treatment": data.treatment, "groups": block[image], "unit_place": image}
        return encoder, encoder.fit_trained(data.images.chips, outcome.y, **roles)
    return encoder.fit(data.images.chips), encoder.transform(data.images.chips)


def _train_networks(
    backbone: str, options: Options, data: ImageFitData, outcome: Outcome, block: IntArray, fold: IntArray, seed: int
) -> tuple[Any, FloatArray]:
    """Networks trained on the model's likelihood, and their cross-fitted scores (m, d) of the training images."""
    if len(np.unique(fold)) < 2:
        raise DataError(
            f"too few sites to train backbone={backbone!r} without those that it scores",
            expected="at least two sites in each arm",
            todo="use backbone='random_conv'",
        )
    settings = TrainSettings(
        max_epochs=options.max_epochs,
        patience=options.patience,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        augment=options.augment,
        device=options.device,
        seed=seed % 10**6,
        checkpoint=options.checkpoint,
        progress=options.progress,
    )
    k = TRUNK_CLUSTERS if options.n_clusters == "auto" else int(options.n_clusters)
    encoder = NetworkScores(backbone, k, options.image_px, options.n_networks, settings, options.n_components)
    arm, image = data.treatment.astype(np.int64), data.images.unit_image
    cells, _ = make_cells(image, None, arm, outcome.y, data.sample_weight, share=True)
    statistics = np.column_stack([cells.count, cells.mean, cells.spread])
    return encoder, encoder.fit_scores(data.images.chips, statistics, outcome.prior, fold, block)


# ---------------------------------------------------------------------- posterior
def sample_posterior(problem: Problem, options: Options, seed: int, *, again: bool = True) -> Posterior:
    """Draws from the posterior; ``again`` for a second, longer run where the first diverges or does not mix."""
    cells, scores, prior, k = problem.cells, problem.scores, problem.prior, problem.n_clusters
    mode, _ = find_mode(cells, scores, prior, k, np.random.default_rng([seed, 7]), options.n_restarts)
    settings = Settings(options.n_draws, options.n_tune, options.n_chains, seed, options.progress)
    posterior = sample(mode, cells, scores, prior, k, settings)
    if not again or not fails(summarise(posterior, posterior.layout.unpack(posterior.draws))):
        return posterior
    careful = replace(settings, n_tune=3 * options.n_tune, target_accept=CAREFUL)
    return sample(mode, cells, scores, prior, k, careful)


def in_units(draws: dict[str, FloatArray], scale: float) -> dict[str, FloatArray]:
    """Draws in the outcome's units; logits and pivot have none."""
    return {name: values if name in ("logit", "pivot") else scale * values for name, values in draws.items()}


def summarise(posterior: Posterior, draws: dict[str, FloatArray]) -> dict[str, Any]:
    """R-hat and effective sample size of effects and noise, and divergences."""
    chains = {name: draws[name].reshape(posterior.n_chains, -1, draws[name][0].size) for name in ("tau", "sigma")}
    return chain_summary(chains, posterior.divergences, methods=lambda _: ("bulk",))


def fails(summary: dict[str, Any]) -> bool:
    """Whether chains are so bad that their draws are no answer."""
    return bool(convergence_problems(summary, FAILURE))


def diagnose(posterior: Posterior, draws: dict[str, FloatArray], options: Options) -> dict[str, Any]:
    """What the chains say of themselves; warns where it is not good, and refuses where it is bad.

    Raises
    ------
    ConvergenceError
        If more than a tenth of the draws diverged, or R-hat is above 1.1.
    """
    summary = summarise(posterior, draws)
    if fails(summary):
        raise ConvergenceError(
            f"the sampler failed twice: {', '.join(convergence_problems(summary, FAILURE))}",
            expected="chains that agree",
            todo=_remedy(options),
        )
    warn_of_chains(summary, advice=_remedy(options), policy=POLICY)
    return {**summary, "source": "NUTS on the marginal likelihood, features fixed"}


def _remedy(options: Options) -> str:
    """What can be done about chains that do not mix, as the estimator is set."""
    longer = f"raise n_tune and n_draws (now {options.n_tune} and {options.n_draws})"
    shares = "assignment='share'" if options.assignment != "share" else ""
    tied = "noise='arm'" if options.noise == "cluster" and shares else ""
    fewer = "fewer types (n_clusters)" if options.n_clusters not in (1, "auto") else ""
    fewer = "fewer types (max_clusters)" if options.n_clusters == "auto" and options.max_clusters > 2 else fewer
    return ", or ".join(part for part in (longer, shares, tied, fewer) if part)


# ---------------------------------------------------------------------- misfit
def difference_se(problem: Problem, posterior: Posterior, ate: FloatArray, influence: FloatArray) -> float:
    """Standard error of the model's average effect less the regression's, of the same data.

    What a site adds to a posterior mean is its posterior covariance with the site's log likelihood (Giordano and
    Broderick 2023, "The Bayesian infinitesimal jackknife for variance"). The variance is that of the differences from
    what it adds to the regression.

    Parameters
    ----------
    problem : Problem
        The model.
    posterior : Posterior
        Draws of the parameters.
    ate : ndarray of shape (draw,)
        Draws of the average effect.
    influence : ndarray of shape (g,)
        What each site adds to the regression's estimate.
    """
    rows = np.linspace(0, len(ate) - 1, min(len(ate), MAX_DRAWS)).astype(int)
    cells, scores, centre = problem.cells, problem.scores, problem.prior.effect
    table = [site_log_likelihood(x, posterior.layout, cells, scores, centre) for x in posterior.draws[rows]]
    own = np.array(table) - np.mean(table, axis=0)
    added = (ate[rows] - ate[rows].mean()) @ own / max(len(rows) - 1, 1)
    g = len(influence)
    return float(np.sqrt(((added - influence) ** 2).sum() * g / max(g - 1, 1)))


def warn_of_misfit(ate: FloatArray, reference: tuple[float, float], apart_se: float, options: Options) -> None:
    """Warn where the model's average effect is far from that of a regression: its types are then not of effects.

    Parameters
    ----------
    ate : ndarray of shape (draw,)
        Draws of the average effect.
    reference : (float, float)
        The regression's estimate and standard error.
    apart_se : float
        Standard error of their difference.
    options : Options
        How the estimator is set, for the advice.
    """
    estimate, se = reference
    apart = abs(float(ate.mean()) - estimate)
    if not np.isfinite(se) or apart <= max(MISFIT * apart_se, NOTABLE * se):
        return
    if options.assignment == "share":
        cause, robust = "the priors pull on it", ""
    else:
        cause = "types are told apart by the shape of the outcome and not by effects"
        robust = "assignment='share', which leaves the average as it is; or "
    warn(
        f"the average effect of the clusters, {ate.mean():.3g}, differs from the regression's, {estimate:.3g} (se "
        f"{se:.2g}), by {apart / max(apart_se, 1e-300):.1f} standard errors of a difference on the same data: {cause}"
        f". What to do: {robust}report the regression's average; or transform an outcome that is far from normal (a "
        "logarithm, ranks).",
        DataWarning,
    )
