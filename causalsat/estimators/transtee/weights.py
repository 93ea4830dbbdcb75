"""Inverse-propensity weights for binary treatments, levels and doses, cross-fitted."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalsat.core.inputs import FloatArray
from causalsat.estimators.transtee.treatments import TreatmentCoding
from causalsat.inference import scores as scoring

__all__ = ["inverse_propensity"]

EXTREME = 0.01  # share of the units at either end whose weights are cut off
FOLDS = 5


def inverse_propensity(
    X: FloatArray,
    level: FloatArray,
    dosage: FloatArray | None,
    coding: TreatmentCoding,
    groups: Any,
    weight: FloatArray,
    known: FloatArray | None,
) -> FloatArray:
    """Stabilised weights p(t) / p(t | x) with mean 1, shape (n,).

    Levels have probabilities from a logistic regression on the covariates, doses a normal density round a ridge
    regression, both cross-fitted; a known probability of a binary treatment is used as it is.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Standardised covariates.
    level, dosage : ndarrays of shape (n,)
        Treatment, and dosage where there is one.
    coding : TreatmentCoding
        What the treatment is.
    groups : ndarray of int of shape (n,) or None
        Villages, which stay whole in cross-fitting.
    weight : ndarray of shape (n,)
        Survey weights.
    known : ndarray of shape (n,) or None
        Known probability of treatment 1.
    """
    ratio = np.ones(len(level))
    if coding.levels:
        ratio = _level_ratio(X, level, coding, groups, weight, known)
    dose = level if coding.kind == "dose" else dosage
    if dose is not None:
        ratio = ratio * _dose_ratio(X, dose, groups, weight)
    low, high = np.quantile(ratio, [EXTREME, 1 - EXTREME])
    ratio = np.clip(ratio, low, high)
    return np.asarray(ratio / np.average(ratio, weights=weight))


def _level_ratio(X: Any, level: Any, coding: Any, groups: Any, weight: Any, known: Any) -> FloatArray:
    codes = coding.codes(level)
    share = np.bincount(codes, weight, minlength=len(coding.levels)) / weight.sum()
    if known is not None and coding.kind == "binary":
        return np.asarray(share[codes] / np.where(codes == 1, known, 1 - known))
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, KFold

    folds = KFold(FOLDS) if groups is None else GroupKFold(FOLDS)
    chance = np.tile(share, (len(level), 1))
    n_clusters = len(level) if groups is None else int(groups.max()) + 1
    for train, test in folds.split(X, codes, groups) if n_clusters >= FOLDS else ():
        if len(np.unique(codes[train])) > 1:
            model = LogisticRegression(max_iter=300).fit(X[train], codes[train], sample_weight=weight[train])
            chance[np.ix_(test, model.classes_)] = model.predict_proba(X[test])
    return np.asarray(share[codes] / np.maximum(chance[np.arange(len(codes)), codes], 1e-3))


def _dose_ratio(X: FloatArray, dose: FloatArray, groups: Any, weight: FloatArray) -> FloatArray:
    mean = np.average(dose, weights=weight)
    rest = dose - scoring.crossfit_ridge(X, dose, weight, groups)
    wide, narrow = (np.sqrt(np.average(r**2, weights=weight)) for r in (dose - mean, rest))
    log_ratio = -0.5 * ((dose - mean) / wide) ** 2 - np.log(wide) + 0.5 * (rest / narrow) ** 2 + np.log(narrow)
    return np.asarray(np.exp(log_ratio - log_ratio.max()))
