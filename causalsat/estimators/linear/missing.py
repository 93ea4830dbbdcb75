"""Missing features in the linear effect model: which they are, a fit for each imputation, effects of such units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import Imputation
from causalsat.estimators.linear import impute as linear_impute
from causalsat.estimators.linear.data import LinearDesign
from causalsat.estimators.linear.fit import LinearFit
from causalsat.estimators.linear.impute import FeatureModel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Imputed:
    """What predictions need of the imputations.

    Attributes
    ----------
    features : ndarray of bool of shape (p,)
        Which columns with main effects are features, not indicators.
    model : FeatureModel
        Distribution of the features in each imputation.
    which : ndarray of int of shape (draw,)
        Imputation of each posterior draw.
    """

    features: BoolArray
    model: FeatureModel
    which: IntArray


def feature_columns(imputation: Imputation, columns: IntArray, n_main: int) -> BoolArray:
    """Which columns with main effects are features and not indicators; a propensity counts as a feature."""
    out = np.ones(n_main, dtype=bool)
    out[: len(columns)] = columns < len(imputation.means)
    return out


def missing_features(X: FloatArray, imputation: Imputation, columns: IntArray, n_main: int) -> BoolArray:
    """Which values of the columns with main effects were missing, by their indicators; shape (n, n_main)."""
    n_features = len(imputation.means)
    missing = np.zeros((len(X), X.shape[1]), dtype=bool)
    missing[:, imputation.indicators] = X[:, n_features:] > 0.5
    out = np.zeros((len(X), n_main), dtype=bool)
    out[:, : len(columns)] = missing[:, columns]
    return out


def working_outcome(design: LinearDesign, family: str) -> FloatArray:
    """The outcome as the imputation takes it: Gaussian, with weighted mean 0 and variance 1."""
    y = design.y
    if family == "negative_binomial":
        y = np.log1p(y)
    elif family == "gamma":
        y = np.log(y)
    centred = y - np.average(y, weights=design.weight)
    sd = np.sqrt(np.average(centred**2, weights=design.weight))
    return np.asarray(centred / sd if sd > 0 else centred)


def imputations(
    design: LinearDesign,
    Z: FloatArray,
    missing: BoolArray,
    features: BoolArray,
    modifiers: IntArray,
    family: str,
    n_imputations: int,
    seed: int,
) -> tuple[list[FloatArray], FeatureModel]:
    """Completed tables of the standardised columns with main effects, shape (n, p) each."""
    numbers = np.cumsum(features) - 1
    of_flags = modifiers[~features[modifiers]]
    flags = [Z[:, ~features], design.t[:, None] * Z[:, of_flags]]
    if design.stratum is not None:
        flags.append(np.eye(design.n_strata)[design.stratum])
    outcome = linear_impute.Outcome(
        y=working_outcome(design, family),
        t=design.t,
        weight=design.weight,
        flags=np.column_stack(flags),
        modifiers=numbers[modifiers[features[modifiers]]],
        arm=design.arm,
        group=design.group,
    )
    rng = np.random.default_rng([seed, 5])
    completed, model = linear_impute.impute(Z[:, features], missing[:, features], outcome, n_imputations, rng)
    tables = []
    for values in completed:
        table = Z.copy()
        table[:, features] = values
        tables.append(table)
    return tables, model


def with_features(design: LinearDesign, main: FloatArray, modifiers: IntArray) -> LinearDesign:
    """The design with other features."""
    return replace(design, main=main, interaction=design.t[:, None] * main[:, modifiers])


def pool(fits: Sequence[LinearFit]) -> LinearFit:
    """The draws of several fits, one fit after the other; divergences are summed."""
    names = [f.name for f in fields(LinearFit) if f.name not in ("divergences", "pareto_k")]
    parts: dict[str, Any] = {name: np.concatenate([getattr(fit, name) for fit in fits]) for name in names}
    return LinearFit(**parts, divergences=sum(f.divergences for f in fits), pareto_k=max(f.pareto_k for f in fits))


def missing_contribution(
    draws: dict[str, FloatArray],
    Z: FloatArray,
    missing: BoolArray,
    modifiers: IntArray,
    imputed: Imputed,
    seed: int,
) -> tuple[FloatArray, FloatArray]:
    """What drawn instead of mean values add to predictor and slope, each of shape (draw, unit)."""
    n_draws = len(draws["treatment"])
    base, slope = np.zeros((n_draws, len(Z))), np.zeros((n_draws, len(Z)))
    known = imputed.features
    beta = np.zeros((n_draws, Z.shape[1]))
    beta[:, modifiers] = draws["interaction"]
    for pattern, units in linear_impute.patterns(missing[:, known]):
        places = np.flatnonzero(known)[pattern]
        values = imputed.model.draws(Z[np.ix_(units, known)], pattern, imputed.which, seed)
        change = values - Z[np.ix_(units, places)]
        base[:, units] = np.einsum("dim,dm->di", change, draws["main"][:, places])
        slope[:, units] = np.einsum("dim,dm->di", change, beta[:, places])
    return base, slope
