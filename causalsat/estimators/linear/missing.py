"""Missing features of the linear model: completed tables for its fits, and what drawn values add to predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.linear.data import LinearDesign
from causalsat.inference.imputation import FeatureModel, Outcome, impute, patterns

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
    """Completed tables of the standardised features, and the features' distribution in each imputation.

    Parameters
    ----------
    design : LinearDesign
        The design with missing features filled.
    Z : ndarray of shape (n, p)
        Its standardised features.
    missing : ndarray of bool of shape (n, p)
        Which of them were missing.
    features : ndarray of bool of shape (p,)
        Which columns are features and not indicators.
    modifiers : ndarray of int
        Positions of the columns that interact with the treatment.
    family : str
        Distribution of the outcome.
    n_imputations, seed : int
        How many tables, and the seed.

    Returns
    -------
    tables : list of ndarray of shape (n, p)
        Completed features.
    model : FeatureModel
        What predictions need of them.
    """
    numbers = np.cumsum(features) - 1
    of_flags = modifiers[~features[modifiers]]
    flags = [Z[:, ~features], design.t[:, None] * Z[:, of_flags]]
    if design.stratum is not None:
        flags.append(np.eye(design.n_strata)[design.stratum])
    outcome = Outcome(
        y=working_outcome(design, family),
        t=design.t,
        weight=design.weight,
        flags=np.column_stack(flags),
        modifiers=numbers[modifiers[features[modifiers]]],
        arm=design.arm,
        group=design.group,
    )
    rng = np.random.default_rng([seed, 5])
    completed, model = impute(Z[:, features], missing[:, features], outcome, n_imputations, rng)
    tables = []
    for values in completed:
        table = Z.copy()
        table[:, features] = values
        tables.append(table)
    return tables, model


def missing_contribution(
    draws: dict[str, FloatArray],
    Z: FloatArray,
    missing: BoolArray,
    modifiers: IntArray,
    imputed: Imputed,
    seed: int,
) -> tuple[FloatArray, FloatArray]:
    """What drawn values add to predictor and slope where means stand for missing ones, each of shape (draw, unit)."""
    n_draws = len(draws["treatment"])
    base, slope = np.zeros((n_draws, len(Z))), np.zeros((n_draws, len(Z)))
    known = imputed.features
    beta = np.zeros((n_draws, Z.shape[1]))
    beta[:, modifiers] = draws["interaction"]
    for pattern, units in patterns(missing[:, known]):
        places = np.flatnonzero(known)[pattern]
        values = imputed.model.draws(Z[np.ix_(units, known)], pattern, imputed.which, seed)
        change = values - Z[np.ix_(units, places)]
        base[:, units] = np.einsum("dim,dm->di", change, draws["main"][:, places])
        slope[:, units] = np.einsum("dim,dm->di", change, beta[:, places])
    return base, slope
