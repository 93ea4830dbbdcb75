"""From checked data to a fitted cluster model: outcome, folds, features, number of clusters, posterior."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.estimators.clusters import fit as clusters_fit
from causalsat.estimators.clusters.cells import Cells, make_cells
from causalsat.estimators.clusters.density import Prior
from causalsat.estimators.clusters.features import FrozenFeatures
from causalsat.estimators.clusters.fit import Posterior, Selection
from causalsat.estimators.image_base import ImageFitData
from causalsat.exceptions import DataError, DataWarning
from causalsat.inference.chains import ChainPolicy, Settings, chain_summary, warn_of_chains
from causalsat.inference.folds import assign_folds

IntArray = NDArray[np.int64]

EFFECT_SD = 1.0  # prior spread of effects between clusters, in standard deviations of the outcome
TRUNK_CLUSTERS = 2  # clusters of the likelihood that networks are trained on while their number is open
POLICY = ChainPolicy(r_hat=1.03, ess_per_chain=50.0, divergence_share=0.02)
MISFIT = 2.5  # standard errors


@dataclass(frozen=True)
class Fitted:
    """What the estimator keeps; see its attributes."""

    encoder: Any
    scores: FloatArray
    n_clusters: int
    selection: Selection | None
    draws: dict[str, FloatArray]
    diagnostics: dict[str, Any]
    reference: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Outcome for the model: residualised on covariates, of mean 0 and standard deviation 1.

    Attributes
    ----------
    y : ndarray of shape (n,)
        Standardised.
    scale : float
        Standard deviation in the outcome's units; 0 for a constant outcome.
    prior : Prior
        Scales of the priors.
    reference : dict
        Average effect by difference in means and by regression: (estimate, standard error), in the outcome's units.
    """

    y: FloatArray
    scale: float
    prior: Prior
    reference: dict[str, tuple[float, float]]


def fit_model(est: Any, data: ImageFitData) -> Fitted:
    """Fit the model that an :class:`ImageEffectClusters` describes."""
    from threadpoolctl import threadpool_limits

    seed = int(_generator(est.random_state).integers(2**31 - 1))
    shares = est.assignment == "share"
    outcome = prepare_outcome(data, tied_noise=est.noise == "arm" or shares, shares=shares)
    site = data.groups if data.groups is not None and data.n_groups < len(data.y) else None
    arm, image = data.treatment.astype(np.int64), data.images.unit_image
    cells, _ = make_cells(image, site, arm, outcome.y, data.sample_weight, share=est.assignment != "unit")
    block = blocks_of(image, data.groups, len(data.images))
    fold = image_folds(block, image, arm, est.n_folds, seed)
    encoder, scores = fit_features(est, data, outcome, block, fold, seed)
    with threadpool_limits(limits=1, user_api="blas"):  # products of tiny matrices
        selection, n_clusters, posterior = fit_last_layer(est, cells, scores, outcome.prior, fold, seed)
    draws = in_units(posterior.layout.unpack(posterior.draws), outcome.scale)
    return Fitted(encoder, scores, n_clusters, selection, draws, diagnose(posterior, draws), outcome.reference)


def fit_last_layer(
    est: Any, cells: Cells, scores: FloatArray, prior: Prior, fold: IntArray, seed: int
) -> tuple[Selection | None, int, Posterior]:
    """Choose the number of clusters and sample the posterior, given the images' features."""
    selection = select(est, cells, scores, prior, fold, seed) if est.n_clusters == "auto" else None
    n_clusters = int(est.n_clusters) if selection is None else selection.chosen
    rng = np.random.default_rng([seed, 7])
    mode, _ = clusters_fit.find_mode(cells, scores, prior, n_clusters, rng, est.n_restarts)
    settings = Settings(est.n_draws, est.n_tune, est.n_chains, seed, est.progress)
    posterior = clusters_fit.sample(mode, cells, scores, prior, n_clusters, settings)
    return selection, n_clusters, posterior


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(int(random_state.randint(2**31 - 1)))
    return np.random.default_rng(random_state)


# ---------------------------------------------------------------------- outcome
def prepare_outcome(data: ImageFitData, *, tied_noise: bool = False, shares: bool = False) -> Outcome:
    """Residualise the outcome on covariates and standardise it; the average effect as a regression finds it."""
    t, w = data.treatment, data.sample_weight
    covariates = data.X
    if data.propensity is not None and np.ptp(data.propensity) > 1e-9:
        covariates = np.column_stack([covariates, data.propensity])
    covariates = covariates - np.average(covariates, axis=0, weights=w)
    covariates = covariates[:, covariates.std(axis=0) > 0]
    plain = _regress(data.y, t, covariates[:, :0], w, data.groups)
    full = _regress(data.y, t, covariates, w, data.groups) if covariates.shape[1] else plain
    y = data.y - covariates @ full[2]
    reference = {"difference in means": plain[:2], "regression with covariates": full[:2]}
    middle = np.average(y, weights=w)
    scale = float(np.sqrt(np.average((y - middle) ** 2, weights=w)))
    if scale <= 1e-10 * max(1.0, float(np.abs(data.y).max())):
        scale = 0.0
    unit = scale if scale > 0 else 1.0
    y = (y - middle) / unit if scale > 0 else np.zeros(len(y))
    arm_sd = tuple(float(np.clip(_sd(y[t == a], w[t == a]), 0.05, 20.0)) for a in (0, 1))
    prior = Prior(
        effect=full[0] / unit if scale > 0 else 0.0,
        effect_sd=float(np.hypot(EFFECT_SD, full[1] / unit if scale > 0 and np.isfinite(full[1]) else 0.0)),
        arm_sd=(arm_sd[0], arm_sd[1]),
        tied_noise=tied_noise,
        shares=shares,
    )
    return Outcome(y, scale, prior, reference)


def _sd(y: FloatArray, w: FloatArray) -> float:
    return float(np.sqrt(np.average((y - np.average(y, weights=w)) ** 2, weights=w))) if w.sum() > 0 else 1.0


def _regress(
    y: FloatArray, t: FloatArray, covariates: FloatArray, weight: FloatArray, groups: IntArray | None
) -> tuple[float, float, FloatArray]:
    """Effect, cluster-robust standard error and covariates' coefficients of a weighted regression."""
    import statsmodels.api as sm

    model = sm.WLS(y, np.column_stack([np.ones(len(y)), t, covariates]), weights=weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if groups is None or groups.max() < 1:
            found = model.fit(cov_type="HC1")
        else:
            found = model.fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        return float(found.params[1]), float(found.bse[1]), np.asarray(found.params[2:])


# ---------------------------------------------------------------------- folds
def blocks_of(image: IntArray, groups: IntArray | None, n_images: int) -> IntArray:
    """Block of each image, shape (m,): images of one site, and sites of one image, are never split.

    Examples
    --------
    >>> blocks_of(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2]), 3)
    array([0, 0, 1], dtype=int32)
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if groups is None:
        return np.arange(n_images)
    size = n_images + int(groups.max()) + 1
    links = coo_matrix((np.ones(len(image)), (image, n_images + groups)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1][:n_images])


def image_folds(block: IntArray, image: IntArray, arm: IntArray, n_folds: int, seed: int) -> IntArray:
    """Fold of each image; blocks stay whole. Fewer folds where an arm has fewer blocks; one where it has one."""
    unit_block = block[image]
    n = min(n_folds, *(len(np.unique(unit_block[arm == a])) for a in (0, 1)))
    if n < 2:
        return np.zeros(len(block), dtype=np.int64)
    codes = np.unique(unit_block, return_inverse=True)[1].ravel()
    unit_fold = assign_folds(n, np.random.default_rng(seed), groups=codes, treatment=arm.astype(float))
    fold = np.zeros(len(block), dtype=np.int64)
    fold[image] = unit_fold
    return fold


# ---------------------------------------------------------------------- features
def fit_features(
    est: Any, data: ImageFitData, outcome: Outcome, block: IntArray, fold: IntArray, seed: int
) -> tuple[Any, FloatArray]:
    """Fitted encoder and the features (m, d) of the training images for the last layer."""
    if len(data.images) < 4:
        raise DataError(
            f"{len(data.images)} distinct images", expected="at least 4", todo="units at more places, or larger chips"
        )
    backbone = est.backbone
    if backbone == "random_conv":
        from causalsat.encoders.random_conv.features import RandomConvFeatures

        size = min(int(k) for k in data.images.chips.shape[-2:])
        backbone = RandomConvFeatures(patch_px=min(4, size), random_state=seed % 2**31, device=est.device)
    if not isinstance(backbone, str):
        if getattr(backbone, "requests_roles", False):
            trained, image = FrozenFeatures(backbone, est.n_components), data.images.unit_image
            roles = {"treatment": data.treatment, "groups": block[image], "unit_place": image}
            return trained, trained.fit_trained(data.images.chips, outcome.y, **roles)
        encoder = FrozenFeatures(backbone, est.n_components).fit(data.images.chips)
        return encoder, encoder.transform(data.images.chips)
    from causalsat.encoders.networks.training import TrainSettings
    from causalsat.estimators.clusters.network import NetworkScores

    if len(np.unique(fold)) < 2:
        raise DataError(
            f"too few sites to train backbone={backbone!r} without those that it scores",
            expected="at least two sites in each arm",
            todo="use backbone='random_conv'",
        )
    settings = TrainSettings(
        max_epochs=est.max_epochs,
        patience=est.patience,
        batch_size=est.batch_size,
        learning_rate=est.learning_rate,
        augment=est.augment,
        device=est.device,
        seed=seed % 10**6,
        checkpoint=est.checkpoint,
        progress=est.progress,
    )
    k = TRUNK_CLUSTERS if est.n_clusters == "auto" else int(est.n_clusters)
    encoder = NetworkScores(backbone, k, est.image_px, est.n_networks, settings, est.n_components)
    image = data.images.unit_image
    cells, _ = make_cells(image, None, data.treatment.astype(np.int64), outcome.y, data.sample_weight, share=True)
    statistics = np.column_stack([cells.count, cells.mean, cells.spread])
    return encoder, encoder.fit_scores(data.images.chips, statistics, outcome.prior, fold, block)


# ---------------------------------------------------------------------- number of clusters
def select(est: Any, cells: Cells, scores: FloatArray, prior: Prior, fold: IntArray, seed: int) -> Selection:
    """Held-out log predictive density of 1, 2, ... clusters, until two in a row are no better; and the choice."""
    if len(np.unique(fold)) < 2:
        warnings.warn(
            "too few sites to hold any out: one cluster, no heterogeneity, is assumed", DataWarning, stacklevel=5
        )
        return Selection((1,), np.zeros(1), np.zeros(1), 1)
    site_fold = fold[cells.image[cells.start[:-1]]]
    found: list[FloatArray] = []
    for k in range(1, est.max_clusters + 1):
        found.append(
            clusters_fit.held_out_density(cells, scores, prior, k, site_fold, n_restarts=est.n_restarts, seed=seed)
        )
        totals = [float(values.sum()) for values in found]
        if k - 1 - int(np.argmax(totals)) >= 2:
            break
    return clusters_fit.choose(range(1, len(found) + 1), found, margin=est.margin)


# ---------------------------------------------------------------------- posterior
def warn_of_misfit(ate: FloatArray, reference: dict[str, tuple[float, float]]) -> None:
    """Warn where the model's average effect is far from that of a regression: its types are then not of effects."""
    estimate, se = reference["regression with covariates"]
    apart = abs(float(ate.mean()) - estimate)
    if np.isfinite(se) and apart > MISFIT * np.hypot(se, ate.std()):
        warnings.warn(
            f"the average effect of the clusters, {ate.mean():.3g}, is far from the regression's, {estimate:.3g} (se "
            f"{se:.2g}): types are told apart by the shape of the outcome and not by effects. "
            "What to do: noise='arm', or an outcome that is closer to normal (a logarithm, ranks).",
            DataWarning,
            stacklevel=5,
        )


def in_units(draws: dict[str, FloatArray], scale: float) -> dict[str, FloatArray]:
    """Draws in the outcome's units; the logits have none."""
    return {name: values if name == "logit" else scale * values for name, values in draws.items()}


def diagnose(posterior: Any, draws: dict[str, FloatArray]) -> dict[str, Any]:
    """R-hat and effective sample size of effects and noise, divergences; warns where they are not good."""
    chains = {name: draws[name].reshape(posterior.n_chains, -1, draws[name][0].size) for name in ("tau", "sigma")}
    found = chain_summary(chains, posterior.divergences, methods=lambda _: ("bulk",))
    found["source"] = "NUTS on the marginal likelihood, features fixed"
    warn_of_chains(found, advice="raise n_tune and n_draws", policy=POLICY)
    return found
