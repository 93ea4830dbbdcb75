"""Nuisance functions of images and covariates, cross-fitted: two forms of the outcome model, the better one kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators import _nuisances
from causalsat.estimators._confounding_models import HeldOutLogit
from causalsat.estimators._nuisances import Nuisances, crossfit_nuisances
from causalsat.exceptions import ParameterError

__all__ = ["HeldOut", "confounding_nuisances", "held_out", "propensity_learner"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """How well the nuisance functions predict units of clusters that they have not seen.

    Attributes
    ----------
    outcome_r2 : float
        R2 of the outcome in the unit's own arm, against the mean of the arm.
    log_loss, log_loss_share : float
        Log loss of the treatment, of the propensity and of the treated share alone.
    outcome_form : str
        "per arm" or "both arms", the form of the outcome model that was kept.
    """

    outcome_r2: float
    log_loss: float
    log_loss_share: float
    outcome_form: str


def propensity_learner(model: Any) -> Any:
    """The classifier that ``propensity_model`` means."""
    if isinstance(model, str):
        if model != "logistic":
            raise ParameterError(f"propensity_model={model!r}", expected="'logistic' or a scikit-learn classifier")
        return HeldOutLogit()
    if not hasattr(model, "predict_proba"):
        raise ParameterError(
            f"propensity_model={model!r}", expected="'logistic' or a scikit-learn classifier with predict_proba"
        )
    return model


def confounding_nuisances(
    X: FloatArray,
    y: FloatArray,
    treatment: FloatArray,
    *,
    clusters: IntArray | None = None,
    weight: FloatArray | None = None,
    propensity: FloatArray | None = None,
    outcome_model: Any = None,
    propensity_model: Any = "logistic",
    n_splits: int = 5,
    min_propensity: float = 0.01,
    random_state: Any = 0,
) -> tuple[Nuisances, HeldOut]:
    """Cross-fitted outcome and treatment predictions; see :func:`causalsat.evaluation.crossfit_nuisances`.

    The outcome is modelled in each arm alone, and in both arms together with the treatment as a feature (and each
    arm's mean residual added). The form that predicts held-out outcomes better is kept: with many features and few
    units the second has twice the data, with strong heterogeneity the first is right.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Image features and covariates.
    y, treatment : ndarrays of shape (n,)
        Outcome and 0/1 treatment.
    clusters : ndarray of int of shape (n,), optional
        What folds keep whole.
    weight, propensity : ndarrays of shape (n,), optional
        Survey weights; known probability of treatment.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((600, 3))
    >>> t = (rng.random(600) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
    >>> y = 2 * X[:, 0] + t + 0.1 * rng.standard_normal(600)
    >>> nuisances, quality = confounding_nuisances(X, y, t)
    >>> round(float((nuisances.mu1 - nuisances.mu0).mean()), 1), bool(quality.outcome_r2 > 0.99)
    (1.0, True)
    """
    found = crossfit_nuisances(
        X,
        y,
        treatment,
        groups=clusters,
        outcome_model=outcome_model,
        propensity_model=propensity_learner(propensity_model),
        propensity=propensity,
        n_splits=n_splits,
        random_state=random_state,
        sample_weight=weight,
        min_propensity=min_propensity,
    )
    model = _nuisances.default_outcome_model() if outcome_model is None else outcome_model
    mu0, mu1 = _both_arms(model, X, y, treatment, found.fold, weight)
    e = found.propensity
    joint = replace(found, mu0=mu0, mu1=mu1, m=e * mu1 + (1 - e) * mu0)
    options = {
        form: held_out(nuisances, y, treatment, weight, form)
        for form, nuisances in (("per arm", found), ("both arms", joint))
    }
    best = max(options.values(), key=lambda quality: quality.outcome_r2)
    return (found if best.outcome_form == "per arm" else joint), best


def _both_arms(
    model: Any, X: FloatArray, y: FloatArray, t: FloatArray, fold: IntArray, weight: FloatArray | None
) -> FloatArray:
    """Held-out predictions (2, n) of both potential outcomes by one model of both arms."""
    from sklearn import config_context
    from sklearn.base import clone, is_classifier

    out = np.empty((2, len(y)))
    w = np.ones(len(y)) if weight is None else weight
    for k in np.unique(fold):
        train, held = fold != k, fold == k
        learner, design = clone(model), np.column_stack([X, t])
        if len(np.unique(y[train])) == 1:
            out[:, held] = y[train][0]
            continue
        with config_context(enable_metadata_routing=False):
            learner.fit(design[train], y[train], **_nuisances._weight_option(learner, weight, train))
        residual = y - _nuisances._predict(learner, design)
        for arm in (0, 1):
            rows = train & (t == arm)
            shift = 0.0 if is_classifier(model) or not w[rows].sum() else np.average(residual[rows], weights=w[rows])
            at = np.column_stack([X[held], np.full(int(held.sum()), float(arm))])
            out[arm, held] = _nuisances._predict(learner, at) + shift
    return out


def held_out(
    nuisances: Nuisances, y: FloatArray, treatment: FloatArray, weight: FloatArray | None, form: str
) -> HeldOut:
    """Losses of cross-fitted nuisances on the units that they predict."""
    w = np.ones(len(y)) if weight is None else weight
    own = np.where(treatment > 0, nuisances.mu1, nuisances.mu0)
    mean = [np.average(y[treatment == arm], weights=w[treatment == arm]) for arm in (0, 1)]
    total = float(np.average((y - np.where(treatment > 0, mean[1], mean[0])) ** 2, weights=w))
    left = float(np.average((y - own) ** 2, weights=w))
    share = float(np.average(treatment, weights=w))
    chance = np.where(treatment > 0, nuisances.propensity, 1 - nuisances.propensity)
    return HeldOut(
        outcome_r2=1 - left / total if total > 0 else 0.0,
        log_loss=float(-np.average(np.log(chance), weights=w)),
        log_loss_share=float(-(share * np.log(share) + (1 - share) * np.log(1 - share))),
        outcome_form=form,
    )
