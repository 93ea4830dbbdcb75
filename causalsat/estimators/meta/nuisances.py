"""Cross-fitted means of outcome and treatment, by an estimator's own learners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData, FloatArray
from causalsat.design import make_design
from causalsat.estimators.levels import is_binary
from causalsat.exceptions import ParameterError
from causalsat.inference import nuisances
from causalsat.inference.bootstrap import default_regressor
from causalsat.inference.folds import assign_folds
from causalsat.inference.nuisances import Nuisances

__all__ = ["Expectations", "Models", "away_from_zero", "check_learner", "crossfit", "expectations", "or_default"]


@dataclass(frozen=True)
class Models:
    """Learners of outcome and treatment, and how they are cross-fitted.

    Attributes
    ----------
    outcome, propensity : scikit-learn estimators, or what the estimator's parameters may be instead
    min_propensity : float
        Propensities are clipped to [min_propensity, 1 - min_propensity].
    n_splits : int
        Folds.
    random_state : int, Generator or None
        Seed of the folds.
    """

    outcome: Any
    propensity: Any
    min_propensity: float
    n_splits: int
    random_state: Any


@dataclass(frozen=True, eq=False)
class Expectations:
    """Out-of-fold E[Y | X] and E[T | X] of each unit, shape (n,), and the fold in which it was held out."""

    outcome: FloatArray
    treatment: FloatArray
    fold: NDArray[np.int64]


def or_default(model: Any) -> Any:
    """The learner that was given, or ridge regression."""
    return default_regressor() if model is None else model


def check_learner(learner: Any, name: str, given: Any) -> None:
    """Refuse what cannot be fitted."""
    if not hasattr(learner, "fit"):
        raise ParameterError(
            f"{name}={given!r}",
            expected="None, 'constant', 'logistic' (binary treatment) or a scikit-learn estimator",
        )


def away_from_zero(residual: FloatArray) -> FloatArray:
    """Residuals of a treatment to divide by; one of 0 gets next to no weight, whatever its target.

    Examples
    --------
    >>> away_from_zero(np.array([-1.0, 0.0, 1.0])).round(3) + 0.0
    array([-1.,  0.,  1.])
    """
    tiny = 1e-6 * max(float(np.std(residual)), 1e-300)
    return np.where(np.abs(residual) > tiny, residual, tiny)


def crossfit(data: FitData, models: Models) -> Nuisances:
    """Cross-fitted nuisances of a binary treatment."""
    return nuisances.nuisances_of(
        data,
        outcome_model=models.outcome,
        propensity_model=models.propensity,
        n_splits=models.n_splits,
        random_state=models.random_state,
        min_propensity=models.min_propensity,
    )


def expectations(data: FitData, models: Models) -> Expectations:
    """Cross-fitted means of outcome and treatment, binary or a dose, for residuals on residuals (Robinson 1988)."""
    if not 0 < models.min_propensity < 0.5:
        raise ParameterError(f"min_propensity={models.min_propensity!r}", expected="a number between 0 and 0.5")
    rng = np.random.default_rng(models.random_state)
    keys = (data.y, data.treatment, *data.X.T)
    binary = is_binary(data.treatment)
    arms = data.treatment if binary else None
    fold = assign_folds(models.n_splits, rng, n=len(data.y), groups=data.groups, treatment=arms, keys=keys)
    weight = data.sample_weight if data.weighted else None
    level = None
    if binary and data.strata is not None:
        design = make_design(data.treatment, groups=data.groups, strata=data.strata, sample_weight=weight)
        level = nuisances.out_of_fold_levels(design, data.y, fold)
    outcome = nuisances.crossfit_predictions(or_default(models.outcome), data.X, data.y, fold, weight, level=level)
    expected = _expected_treatment if binary else _expected_dose
    return Expectations(outcome, expected(data, models, fold, weight), fold)


def _expected_dose(data: FitData, models: Models, fold: NDArray[np.int64], weight: FloatArray | None) -> FloatArray:
    model = models.propensity
    if data.propensity is not None:
        raise ParameterError(
            "a propensity for a treatment that is not 0/1",
            expected="none: the expected dose is learned by propensity_model",
        )
    if isinstance(model, str) and model == "constant":
        return np.full(len(fold), np.average(data.treatment, weights=weight))
    learner = or_default(model)
    check_learner(learner, "propensity_model", model)
    return nuisances.crossfit_predictions(learner, data.X, data.treatment, fold, weight)


def _expected_treatment(
    data: FitData, models: Models, fold: NDArray[np.int64], weight: FloatArray | None
) -> FloatArray:
    raw = data.propensity
    if raw is None:
        raw = nuisances.crossfit_propensity(models.propensity, data.X, data.treatment, data.groups, fold, weight)
    e = np.clip(raw, models.min_propensity, 1 - models.min_propensity)
    nuisances.warn_clipped(e != raw, data.treatment, models.min_propensity)
    return np.asarray(e)
