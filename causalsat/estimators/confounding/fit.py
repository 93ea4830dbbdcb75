"""From checked data to an adjusted average effect: encoder, nuisances, estimates, balance, sensitivity, salience."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.reduce import Reduction, learn_reduction
from causalsat.estimators.confounding import estimates
from causalsat.estimators.confounding.encoder import fit_encoder
from causalsat.estimators.confounding.nuisances import (
    HeldOut,
    confounding_folds,
    confounding_nuisances,
    fit_all,
    propensity_learner,
)
from causalsat.estimators.confounding.salience import tabular_salience
from causalsat.estimators.doubly_robust import AverageEffect, average_effect, overlap_diagnostics
from causalsat.estimators.image_base import ImageFitData
from causalsat.inference.balance import Balance, balance
from causalsat.inference.folds import CONTROL, MIXED, TREATED, cluster_arms
from causalsat.inference.nuisances import Nuisances, dr_scores
from causalsat.inference.sensitivity import Sensitivity, partially_linear

__all__ = ["Fitted", "Options", "fit_confounding", "take_units"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """What :class:`causalsat.ImageConfounding` is asked to fit; its parameters of the same names."""

    encoder: Any
    outcome_model: Any
    propensity_model: Any
    n_splits: int
    n_latents: int
    min_propensity: float
    random_state: Any


@dataclass(frozen=True, eq=False)
class Fitted:
    """An adjusted average effect and what it rests on.

    Attributes
    ----------
    encoder, features : transformer of chips, ndarray of shape (m, d)
        Fitted encoder, and its features of the distinct images.
    reduction : Reduction
        Principal components of the features, the latents.
    table, table_names : ndarray of shape (n, k + q), tuple of str
        Latents and covariates of the units.
    nuisances, held_out : Nuisances, HeldOut
        Held-out predictions, and how well they predict.
    scores : ndarray of shape (n,)
        Doubly robust scores.
    ate, att, hajek, naive : AverageEffect
        Estimates.
    overlap : dict
        What the propensities say.
    clipped_share : float
        Share of the weight whose propensity was clipped.
    balance, sensitivity : Balance, Sensitivity
        Of latents and covariates.
    propensity_model : classifier
        Of the treatment, fitted to all units.
    salience_names, salience_values : tuple of str, ndarray of shape (q + 1, 2)
        How the propensity depends on each covariate and on the image.
    band_fill : ndarray of shape (band,)
        Mean of each band.
    """

    encoder: Any
    features: FloatArray
    reduction: Reduction
    table: FloatArray
    table_names: tuple[str, ...]
    nuisances: Nuisances
    held_out: HeldOut
    scores: FloatArray
    ate: AverageEffect
    att: AverageEffect
    hajek: AverageEffect
    naive: AverageEffect
    overlap: dict[str, Any]
    clipped_share: float
    balance: Balance
    sensitivity: Sensitivity
    propensity_model: Any
    salience_names: tuple[str, ...]
    salience_values: FloatArray
    band_fill: FloatArray


def fit_confounding(data: ImageFitData, options: Options) -> Fitted:
    """Adjust for the images and covariates of checked data."""
    clusters = _fold_clusters(data, options.n_splits)
    encoder, image_features, by_fold = _encoder(data, options, clusters)
    features = image_features[data.images.unit_image]
    reduction = learn_reduction(image_features, _n_latents(image_features, int(options.n_latents)))
    y, t, weight, groups = data.y, data.treatment, data.sample_weight, data.groups
    nuisances, held_out = confounding_nuisances(
        np.hstack([features, data.X]) if by_fold is None else [np.hstack([f, data.X]) for f in by_fold],
        y,
        t,
        clusters=clusters,
        weight=weight if data.weighted else None,
        propensity=data.propensity,
        outcome_model=options.outcome_model,
        propensity_model=options.propensity_model,
        n_splits=options.n_splits,
        min_propensity=options.min_propensity,
        random_state=options.random_state,
    )
    scores = dr_scores(y, t, nuisances)
    table = np.hstack([reduction.apply(features), data.X])
    names = (*(f"latent{j}" for j in range(reduction.n_out)), *data.feature_names)
    model, salience = _propensity_of_all(data, options, features, clusters)
    return Fitted(
        encoder=encoder,
        features=image_features,
        reduction=reduction,
        table=table,
        table_names=names,
        nuisances=nuisances,
        held_out=held_out,
        scores=scores,
        ate=average_effect(scores, weight, groups),
        att=estimates.att(y, t, nuisances, weight, groups),
        hajek=estimates.hajek(y, t, nuisances.propensity, weight, groups),
        naive=estimates.naive_difference(y, t, weight, groups),
        overlap=overlap_diagnostics(nuisances, t, weight),
        clipped_share=float(np.average(nuisances.clipped, weights=weight)),
        balance=balance(table, t, nuisances.propensity, weights=weight, names=names),
        sensitivity=_sensitivity(data, nuisances, table, reduction.n_out),
        propensity_model=model,
        salience_names=tuple(map(str, salience.index)),
        salience_values=salience.to_numpy(),
        band_fill=np.nanmean(np.asarray(data.images.chips), axis=_but_bands(data.images.chips.ndim)),
    )


def _fold_clusters(data: ImageFitData, n_splits: int) -> IntArray:
    """What folds keep whole, shape (n,): blocks of clusters and images, or the clusters where blocks are too few."""
    if data.groups is None:
        return data.images.unit_image
    blocks = data.blocks
    arms = cluster_arms(blocks, data.treatment)
    enough = all(int(np.isin(arms, (arm, MIXED)).sum()) >= n_splits for arm in (CONTROL, TREATED))
    return blocks if enough else data.groups


def take_units(nuisances: Nuisances, rows: IntArray) -> Nuisances:
    """Nuisances of some units, by position."""
    values: dict[str, Any] = {field.name: getattr(nuisances, field.name) for field in fields(Nuisances)}
    taken: dict[str, Any] = {name: None if own is None else own[rows] for name, own in values.items()}
    return Nuisances(**taken)


def _encoder(
    data: ImageFitData, options: Options, clusters: IntArray
) -> tuple[Any, FloatArray, list[FloatArray] | None]:
    fold = confounding_folds(options.n_splits, data.y, data.treatment, clusters, options.random_state)
    seed = int(options.random_state) if isinstance(options.random_state, int | np.integer) else 0
    return fit_encoder(options.encoder, data, clusters, fold, seed)


def _n_latents(features: FloatArray, wanted: int) -> int:
    """Principal components that features (m, d) can have, at most as many as wanted."""
    varying = int((np.nanstd(features, axis=0) > 1e-7).sum())
    return min(wanted, len(features) - 1, max(varying, 1))


def _sensitivity(data: ImageFitData, nuisances: Nuisances, table: FloatArray, n_latents: int) -> Sensitivity:
    """Of the partially linear estimate, with each covariate and the image as benchmarks."""
    benchmarks = {name: [n_latents + j] for j, name in enumerate(data.feature_names)}
    return partially_linear(
        data.y - nuisances.m,
        data.treatment - nuisances.propensity,
        table,
        weight=data.sample_weight,
        groups=data.groups,
        y=data.y,
        treatment=data.treatment,
        benchmarks={**benchmarks, "image": list(range(n_latents))},
    )


def _propensity_of_all(
    data: ImageFitData, options: Options, features: FloatArray, clusters: IntArray
) -> tuple[Any, Any]:
    """Model of the treatment on all units, and a table of how it depends on covariates and image."""
    weight = data.sample_weight if data.weighted else None
    design = np.hstack([features, data.X])
    model = fit_all(propensity_learner(options.propensity_model), design, data.treatment, weight, clusters)
    return model, tabular_salience(model, features, data.X, data.feature_names, data.sample_weight)


def _but_bands(n_dims: int) -> tuple[int, ...]:
    """All axes of chips but the bands'."""
    return tuple(axis for axis in range(n_dims) if axis != n_dims - 3)
