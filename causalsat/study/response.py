"""Outcomes that are missing or predicted: respondents with their weights, and corrected outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import learn_imputation
from causalsat.core.warn import warn
from causalsat.exceptions import DataWarning
from causalsat.inference.response import Response, response_probabilities, treated_probability
from causalsat.study.predicted import corrected_study, is_corrected

__all__ = ["features_of_response", "outcome_and_weights", "respondents", "response_of"]

FloatArray = NDArray[np.float64]

WEIGHT, PROBABILITY = "response weight", "probability of treatment"


def response_of(study: Any, features: FloatArray, random_state: int = 0, n_splits: int = 5) -> Response:
    """Cross-fitted probabilities of response of a study's units, given their arm and features."""
    return response_probabilities(
        features, ~np.isnan(study.y), study.design, n_splits=n_splits, random_state=random_state
    )


def respondents(study: Any, features: FloatArray, response: Response | None = None) -> Any:
    """The study of the units with an outcome, their weights divided by their probability of response.

    Parameters
    ----------
    study : Study
        With ``missing_outcome="weight"``.
    features : ndarray of shape (n, p)
        On which response may depend in each arm.
    response : Response, optional
        If it is known already.

    Returns
    -------
    Study
        Its weights average 1 over the respondents; its probabilities of treatment are those of all units.
    """
    response = response_of(study, features) if response is None else response
    design, seen = study.design, response.observed
    weight = response.weights(design.treatment) * (1.0 if design.weights is None else design.weights)
    columns = {_unused(study, WEIGHT): weight / weight[seen].mean()}
    roles: dict[str, Any] = {"weights": next(iter(columns)), "missing_outcome": None}
    if design.randomised:
        name = _unused(study, PROBABILITY)
        columns[name] = treated_probability(design)
        roles["propensity"] = name
    return study.replace(units=study.units.assign(**columns)[seen], **roles)


def outcome_and_weights(study: Any) -> tuple[FloatArray, FloatArray]:
    """Outcome (n,), corrected where a model predicted it, and weights (n,), 0 where it is missing.

    With ``missing_outcome="weight"`` respondents are weighted by the inverse of their probability of response, given
    arm and covariates; otherwise they are taken as they are, with a warning.
    """
    if is_corrected(study):
        study = corrected_study(study)
    design, y = study.design, np.asarray(study.y, dtype=float)
    weights = np.ones(len(y)) if design.weights is None else np.asarray(design.weights, dtype=float)
    gone = np.isnan(y)
    if not gone.any():
        return y, weights
    if study.missing_outcome == "weight":
        response = response_of(study, features_of_response(None, study.X))
        return y, weights * response.weights(design.treatment)
    warn(
        f"outcome {study.roles['outcome']!r} is missing for {int(gone.sum()):,} of {len(y):,} units, which are left "
        "out: right if treatment does not decide who responds; Study(missing_outcome='weight') weights by response",
        DataWarning,
    )
    return y, np.where(gone, 0.0, weights)


def features_of_response(model: Any, X: Any) -> FloatArray:
    """What response may depend on: the features that a Pipeline makes before its estimator, or the columns of X.

    Steps that are trained on outcomes or treatment are not used: the numeric columns of X are taken instead.
    """
    from sklearn.base import clone

    steps = getattr(model, "steps", None) or []
    if steps[:-1] and not any(getattr(step, "requests_roles", False) for _, step in steps[:-1]):
        table = X
        for _, step in steps[:-1]:
            table = clone(step).fit_transform(table)
        return np.asarray(table, dtype=float)
    if hasattr(X, "select_dtypes"):
        numbers = X.drop(columns="geometry", errors="ignore").select_dtypes(["number", "bool"])
        raw = numbers.to_numpy(dtype=float)
        names = tuple(str(c) for c in numbers.columns)
        return np.asarray(learn_imputation(raw, names).apply(raw, names)) if names else np.empty((len(X), 0))
    return np.asarray(X, dtype=float)


def _unused(study: Any, name: str) -> str:
    while name in study.units.columns:
        name += " "
    return name
