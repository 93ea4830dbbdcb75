"""From checked data to a fitted cluster model: outcome, folds, features, number of types, posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.core.warn import warn
from causalsat.estimators.clusters.data import Outcome, image_folds, make_cells, prepare_outcome
from causalsat.estimators.clusters.density import Cells, Prior
from causalsat.estimators.clusters.features import FrozenFeatures
from causalsat.estimators.clusters.posterior import Posterior, find_mode, sample
from causalsat.estimators.clusters.selection import Selection, select
from causalsat.estimators.image_base import ImageFitData, blocks_of
from causalsat.exceptions import DataError, DataWarning
from causalsat.inference.chains import ChainPolicy, Settings, chain_summary, warn_of_chains

__all__ = ["Fitted", "Options", "fit_model"]

IntArray = NDArray[np.int64]

TRUNK_CLUSTERS = 2  # clusters of the likelihood that networks are trained on while their number is open
POLICY = ChainPolicy(r_hat=1.03, ess_per_chain=50.0, divergence_share=0.02)
MISFIT = 2.5  # standard errors


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
    n_draws: int
    n_tune: int
    n_chains: int
    checkpoint: str | None
    device: str
    random_state: Any
    progress: bool


@dataclass(frozen=True)
class Fitted:
    """A fitted cluster model.

    Attributes
    ----------
    encoder : transformer of chips
        Gives the features of the last layer.
    scores : ndarray of shape (m, d)
        Features of the training images.
    n_clusters : int
        K.
    selection : Selection or None
        How K was chosen.
    draws : dict of str to ndarray
        Posterior draws in units of the outcome, as :meth:`Layout.unpack` names them, and ``ate``.
    diagnostics : dict
        What the chains say of themselves.
    reference : dict of str to (float, float)
        Average effect by regressions: estimate, standard error.
    """

    encoder: Any
    scores: FloatArray
    n_clusters: int
    selection: Selection | None
    draws: dict[str, FloatArray]
    diagnostics: dict[str, Any]
    reference: dict[str, tuple[float, float]]


def fit_model(data: ImageFitData, options: Options) -> Fitted:
    """Fit the model that the options describe."""
    from threadpoolctl import threadpool_limits

    seed = int(_generator(options.random_state).integers(2**31 - 1))
    shares = options.assignment == "share"
    outcome = prepare_outcome(data, tied_noise=options.noise == "arm" or shares, shares=shares)
    site = data.groups if data.groups is not None and data.n_groups < len(data.y) else None
    arm, image = data.treatment.astype(np.int64), data.images.unit_image
    cells, _ = make_cells(image, site, arm, outcome.y, data.sample_weight, share=options.assignment != "unit")
    block = blocks_of(image, data.groups, len(data.images))
    fold = image_folds(block, image, arm, options.n_folds, seed)
    encoder, scores = fit_features(options, data, outcome, block, fold, seed)
    with threadpool_limits(limits=1, user_api="blas"):  # products of tiny matrices
        selection, n_clusters, posterior = fit_last_layer(options, cells, scores, outcome.prior, fold, seed)
    draws = in_units(posterior.layout.unpack(posterior.draws), outcome.scale)
    effect = np.einsum("skm,sk->sm", type_probabilities(draws["logit"], scores), draws["tau"])
    share = np.bincount(image, data.sample_weight, minlength=len(scores))
    draws["ate"] = effect @ (share / share.sum())
    diagnostics = diagnose(posterior, draws)
    warn_of_misfit(draws["ate"], outcome.reference)
    return Fitted(encoder, scores, n_clusters, selection, draws, diagnostics, outcome.reference)


def fit_last_layer(
    options: Options, cells: Cells, scores: FloatArray, prior: Prior, fold: IntArray, seed: int
) -> tuple[Selection | None, int, Posterior]:
    """Choose the number of clusters and sample the posterior, given the images' features."""
    selection = None
    if options.n_clusters == "auto":
        selection = select(
            cells,
            scores,
            prior,
            fold,
            max_clusters=options.max_clusters,
            margin=options.margin,
            n_restarts=options.n_restarts,
            seed=seed,
        )
    n_clusters = int(options.n_clusters) if selection is None else selection.chosen
    rng = np.random.default_rng([seed, 7])
    mode, _ = find_mode(cells, scores, prior, n_clusters, rng, options.n_restarts)
    settings = Settings(options.n_draws, options.n_tune, options.n_chains, seed, options.progress)
    posterior = sample(mode, cells, scores, prior, n_clusters, settings)
    return selection, n_clusters, posterior


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


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(int(random_state.randint(2**31 - 1)))
    return np.random.default_rng(random_state)


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
        from causalsat.encoders.random_conv.features import RandomConvFeatures

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
    from causalsat.encoders.networks.training import TrainSettings
    from causalsat.estimators.clusters.network import NetworkScores

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
def warn_of_misfit(ate: FloatArray, reference: dict[str, tuple[float, float]]) -> None:
    """Warn where the model's average effect is far from that of a regression: its types are then not of effects."""
    estimate, se = reference["regression with covariates"]
    apart = abs(float(ate.mean()) - estimate)
    if np.isfinite(se) and apart > MISFIT * np.hypot(se, ate.std()):
        warn(
            f"the average effect of the clusters, {ate.mean():.3g}, is far from the regression's, {estimate:.3g} (se "
            f"{se:.2g}): types are told apart by the shape of the outcome and not by effects. "
            "What to do: noise='arm', or an outcome that is closer to normal (a logarithm, ranks).",
            DataWarning,
        )


def in_units(draws: dict[str, FloatArray], scale: float) -> dict[str, FloatArray]:
    """Draws in the outcome's units; the logits have none."""
    return {name: values if name == "logit" else scale * values for name, values in draws.items()}


def diagnose(posterior: Posterior, draws: dict[str, FloatArray]) -> dict[str, Any]:
    """R-hat and effective sample size of effects and noise, divergences; warns where they are not good."""
    chains = {name: draws[name].reshape(posterior.n_chains, -1, draws[name][0].size) for name in ("tau", "sigma")}
    summary = chain_summary(chains, posterior.divergences, methods=lambda _: ("bulk",))
    summary["source"] = "NUTS on the marginal likelihood, features fixed"
    warn_of_chains(summary, advice="raise n_tune and n_draws", policy=POLICY)
    return summary
