"""Nuisance functions of images and covariates, cross-fitted: two forms of the outcome model, the better one kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators import _nuisances
from causalsat.estimators._confounding_models import HeldOutLogit, HeldOutRidge
from causalsat.estimators._folds import assign_folds
from causalsat.estimators._nuisances import Nuisances
from causalsat.exceptions import DataError, ParameterError

__all__ = ["HeldOut", "confounding_folds", "confounding_nuisances", "fit_all", "held_out", "propensity_learner"]

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
        if model == "calibrated":
            from causalsat.estimators.calibrated_probability import CalibratedProbability

            return CalibratedProbability(random_state=0)
        if model != "logistic":
            raise ParameterError(
                f"propensity_model={model!r}", expected="'logistic', 'calibrated' or a scikit-learn classifier"
            )
        return HeldOutLogit()
    if not hasattr(model, "predict_proba"):
        raise ParameterError(
            f"propensity_model={model!r}", expected="'logistic' or a scikit-learn classifier with predict_proba"
        )
    return model


def confounding_folds(
    n_splits: int, y: FloatArray, treatment: FloatArray, clusters: IntArray | None, random_state: Any
) -> IntArray:
    """Fold of each unit, shape (n,); clusters stay whole."""
    rng = np.random.default_rng(random_state)
    return assign_folds(n_splits, rng, groups=clusters, treatment=treatment, keys=(y, treatment))


def confounding_nuisances(
    X: FloatArray | Sequence[FloatArray],
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
    """Predict outcomes and treatment of each unit from the clusters of the other folds.

    The outcome is modelled in each arm alone, and in both arms together with the treatment as a feature (and each
    arm's mean residual added). The form that predicts held-out outcomes better is kept: with many features and few
    units the second has twice the data, with strong heterogeneity the first is right.

    Parameters
    ----------
    X : ndarray of shape (n, p), or a list of them, one a fold
        Image features and covariates; of a list, the k-th is what predicts fold k of :func:`confounding_folds`.
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
    if not 0 < min_propensity < 0.5:
        raise ParameterError(f"min_propensity={min_propensity!r}", expected="a number between 0 and 0.5")
    t, weight_or_one = treatment, np.ones(len(y)) if weight is None else weight
    fold = confounding_folds(n_splits, y, t, clusters, random_state)
    designs = [X] * (int(fold.max()) + 1) if isinstance(X, np.ndarray) else list(X)
    crossfit = _Crossfit(designs, fold, weight, clusters)
    model = HeldOutRidge() if outcome_model is None else outcome_model
    raw = crossfit.propensity(propensity_learner(propensity_model), t) if propensity is None else propensity
    e = np.clip(raw, min_propensity, 1 - min_propensity)
    _nuisances._warn_clipped(e != raw, t, min_propensity)
    forms = {"per arm": crossfit.per_arm(model, y, t), "both arms": crossfit.both_arms(model, y, t)}
    options = []
    for form, (mu0, mu1) in forms.items():
        found = Nuisances(mu0=mu0, mu1=mu1, propensity=e, m=e * mu1 + (1 - e) * mu0, fold=fold, clipped=e != raw)
        options.append((found, held_out(found, y, t, weight_or_one, form)))
    return max(options, key=lambda option: option[1].outcome_r2)


@dataclass(frozen=True, eq=False)
class _Crossfit:
    """Held-out predictions by clones of a learner; one that takes ``groups`` is given the clusters."""

    designs: list[FloatArray]  # of each fold
    fold: IntArray
    weight: FloatArray | None
    clusters: IntArray | None

    def _fit(self, model: Any, X: FloatArray, target: FloatArray, rows: NDArray[np.bool_]) -> Any:
        from sklearn import config_context
        from sklearn.base import clone
        from sklearn.dummy import DummyRegressor
        from sklearn.utils.validation import has_fit_parameter

        learner = clone(model)
        if len(np.unique(target[rows])) == 1:
            return DummyRegressor().fit(X[rows], target[rows])
        options: dict[str, Any] = dict(_nuisances._weight_option(learner, self.weight, rows))
        if self.clusters is not None and has_fit_parameter(learner, "groups"):
            options["groups"] = self.clusters[rows]
        with config_context(enable_metadata_routing=False):
            return learner.fit(X[rows], target[rows], **options)

    def propensity(self, model: Any, t: FloatArray) -> FloatArray:
        """Probability of treatment, (n,)."""
        out = np.empty(len(t))
        for k in np.unique(self.fold):
            held = self.fold == k
            out[held] = _nuisances._predict(self._fit(model, self.designs[k], t, ~held), self.designs[k][held])
        return _finite(out, model)

    def per_arm(self, model: Any, y: FloatArray, t: FloatArray) -> FloatArray:
        """Both potential outcomes, (2, n), each by a learner of its arm."""
        out = np.empty((2, len(y)))
        for k in np.unique(self.fold):
            held = self.fold == k
            for arm in (0, 1):
                learner = self._fit(model, self.designs[k], y, ~held & (t == arm))
                out[arm, held] = _nuisances._predict(learner, self.designs[k][held])
        return _finite(out, model)

    def both_arms(self, model: Any, y: FloatArray, t: FloatArray) -> FloatArray:
        """Both potential outcomes, (2, n), by one learner with the treatment as a feature.

        Each arm's mean training residual is added (but to a classifier's), so that shrinking the treatment's
        coefficient does no harm.
        """
        from sklearn.base import is_classifier

        out = np.empty((2, len(y)))
        w = np.ones(len(y)) if self.weight is None else self.weight
        for k in np.unique(self.fold):
            held, design = self.fold == k, np.column_stack([self.designs[k], t])
            learner = self._fit(model, design, y, ~held)
            residual = y - _nuisances._predict(learner, design)
            for arm in (0, 1):
                rows = ~held & (t == arm)
                shift = 0.0
                if not is_classifier(model) and w[rows].sum() > 0:
                    shift = float(np.average(residual[rows], weights=w[rows]))
                at = np.column_stack([self.designs[k][held], np.full(int(held.sum()), float(arm))])
                out[arm, held] = _nuisances._predict(learner, at) + shift
        return _finite(out, model)


def fit_all(
    model: Any, X: FloatArray, target: FloatArray, weight: FloatArray | None, clusters: IntArray | None
) -> Any:
    """A clone of a learner fitted to all units."""
    everyone = np.ones(len(target), dtype=bool)
    return _Crossfit([X], np.zeros(len(target), dtype=np.int64), weight, clusters)._fit(model, X, target, everyone)


def _finite(values: FloatArray, model: Any) -> FloatArray:
    if not np.isfinite(values).all():
        raise DataError(f"{type(model).__name__} predicts missing or infinite values", expected="finite predictions")
    return values


def held_out(nuisances: Nuisances, y: FloatArray, treatment: FloatArray, weight: FloatArray, form: str) -> HeldOut:
    """Losses of cross-fitted nuisances on the units that they predict."""
    w = weight
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
