"""Nuisance functions of images and covariates, cross-fitted: two forms of the outcome model, the better one kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from causalsat.core.features import SINGLE_RESOLUTION, learn_scaler, observed_means
from causalsat.estimators.probabilities.calibrated import CalibratedProbability
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference import nuisances as _nuisances
from causalsat.inference.folds import assign_folds
from causalsat.inference.nuisances import Nuisances

__all__ = [
    "HeldOut",
    "HeldOutLogit",
    "HeldOutRidge",
    "confounding_folds",
    "confounding_nuisances",
    "fit_all",
    "held_out",
    "propensity_learner",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


_RIDGE_PENALTIES = np.logspace(-4, 4, 17)  # times the number of rows: features have variance 1
_LOGIT_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C, smaller is stronger


class _Standardised(BaseEstimator):
    """Linear model on standardised features; a missing feature counts as its training mean."""

    coef_: FloatArray
    intercept_: float

    def _standardise(self, X: Any, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Design with columns of mean 0 and variance 1 (0 where a column does not vary), and the columns' scale."""
        raw = np.asarray(X, dtype=float)
        filled = np.where(np.isfinite(raw), raw, observed_means(raw, weight))
        # networks and filters compute in single precision: the contrast of flat images is its rounding
        scaler = learn_scaler(filled, weight, resolution=SINGLE_RESOLUTION)
        self.mean_ = scaler.mean
        return scaler.transform(filled), scaler.scale

    def _keep(self, coef: FloatArray, intercept: float, scale: FloatArray) -> None:
        self.coef_ = coef / scale
        self.intercept_ = float(intercept - self.mean_ @ self.coef_)

    def _index(self, X: Any) -> FloatArray:
        raw = np.asarray(X, dtype=float)
        return np.asarray(self.intercept_ + np.where(np.isfinite(raw), raw, self.mean_) @ self.coef_)


def _folds(n_splits: int, n: int, groups: ArrayLike | None) -> Iterator[NDArray[np.bool_]]:
    """Held-out rows of each fold: every n_splits-th cluster in the order of their first rows."""
    codes = np.arange(n)
    if groups is not None:
        _, first, inverse = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
        codes = np.argsort(np.argsort(first))[inverse.ravel()]
    for k in range(n_splits):
        yield codes % n_splits == k


class HeldOutRidge(RegressorMixin, _Standardised):
    """Ridge regression on standardised features, its penalty chosen by the squared error of held-out clusters.

    Parameters
    ----------
    n_splits : int, default 5
        Folds among which the penalty is chosen.

    Attributes
    ----------
    coef_, intercept_ : ndarray of shape (p,), float
        In the features' own units.
    mean_ : ndarray of shape (p,)
        Training means.
    penalty_ : float
        Chosen penalty, times the number of rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 3))
    >>> HeldOutRidge().fit(X, 1 + X[:, 0]).predict(X[:1] * 0 + 1).round(2)
    array([2.])
    """

    def __init__(self, n_splits: int = 5) -> None:
        self.n_splits = n_splits

    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> HeldOutRidge:
        """Choose the penalty and fit; X of shape (n, p), y and groups of shape (n,)."""
        target = np.asarray(y, dtype=float)
        weight = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        weight = weight / weight.mean()
        design, scale = self._standardise(X, weight)
        loss = np.zeros(len(_RIDGE_PENALTIES))
        for held in _folds(int(self.n_splits), len(target), groups):
            if weight[~held].sum() <= 0 or not held.any():
                continue
            coefs, intercepts = _ridge_path(design[~held], target[~held], weight[~held])
            loss += weight[held] @ (target[held, None] - intercepts - design[held] @ coefs) ** 2
        best = int(np.flatnonzero(loss <= loss.min() * (1 + 1e-12))[-1])
        self.penalty_ = float(_RIDGE_PENALTIES[best])
        coefs, intercepts = _ridge_path(design, target, weight)
        self._keep(coefs[:, best], intercepts[best], scale)
        return self

    def predict(self, X: Any) -> FloatArray:
        """Predictions, shape (n,)."""
        return self._index(X)


def _ridge_path(design: FloatArray, target: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients (p, penalties) and intercepts (penalties,) of weighted ridge regressions."""
    centre, level = np.average(design, axis=0, weights=weight), np.average(target, weights=weight)
    centred = (design - centre) * np.sqrt(weight)[:, None]
    reduced = (target - level) * np.sqrt(weight)
    eigen, vectors = np.linalg.eigh(centred.T @ centred)
    moment = vectors.T @ (centred.T @ reduced)
    shrunk = moment[:, None] / (np.maximum(eigen, 0.0)[:, None] + _RIDGE_PENALTIES * weight.sum())
    coefs = vectors @ shrunk
    return coefs, level - centre @ coefs


class HeldOutLogit(ClassifierMixin, _Standardised):
    """Ridge-penalised logistic regression on standardised features; penalty by the log loss of held-out clusters.

    Parameters
    ----------
    n_splits : int, default 3
        Folds among which the penalty is chosen.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The two labels.
    coef_, intercept_ : ndarray of shape (p,), float
        Log-odds of the second label are ``intercept_ + X @ coef_``.
    mean_ : ndarray of shape (p,)
        Training means.
    C_ : float
        The chosen penalty; larger is weaker.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((2000, 2))
    >>> t = rng.random(2000) < 1 / (1 + np.exp(-X[:, 0]))
    >>> bool(np.abs(HeldOutLogit().fit(X, t).coef_ - [1, 0]).max() < 0.15)
    True
    """

    def __init__(self, n_splits: int = 3) -> None:
        self.n_splits = n_splits

    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> HeldOutLogit:
        """Choose the penalty and fit; X of shape (n, p), y of two labels, groups of shape (n,)."""
        self.classes_, label = np.unique(np.asarray(y), return_inverse=True)
        weight = np.ones(len(label)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        weight = weight / weight.mean()
        design, scale = self._standardise(X, weight)
        losses = np.zeros(len(_LOGIT_PENALTIES))
        for held in _folds(int(self.n_splits), len(label), groups):
            if held.any() and len(np.unique(label[~held])) == 2:
                losses += [_held_out_loss(design, label, weight, held, penalty) for penalty in _LOGIT_PENALTIES]
        self.C_ = _LOGIT_PENALTIES[int(np.argmin(losses))]
        coef, intercept = _logit(design, label, weight, self.C_)
        self._keep(coef, intercept, scale)
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of both labels, shape (n, 2)."""
        chance = 0.5 * (1 + np.tanh(0.5 * self._index(X)))
        return np.column_stack([1 - chance, chance])

    def predict(self, X: Any) -> NDArray[Any]:
        """The likelier label, shape (n,)."""
        return np.asarray(self.classes_[(self._index(X) > 0).astype(int)])


def _held_out_loss(
    design: FloatArray, label: NDArray[np.int64], weight: FloatArray, held: NDArray[np.bool_], penalty: float
) -> float:
    coef, intercept = _logit(design[~held], label[~held], weight[~held], penalty)
    signed = (2 * label[held] - 1) * (intercept + design[held] @ coef)
    return float(weight[held] @ np.logaddexp(0.0, -signed))


def _logit(
    design: FloatArray, label: NDArray[np.int64], weight: FloatArray, penalty: float
) -> tuple[FloatArray, float]:
    from sklearn.linear_model import LogisticRegression

    solver = "newton-cholesky" if design.shape[1] < len(design) else "lbfgs"
    model = LogisticRegression(C=penalty, solver=solver, max_iter=500, tol=1e-5)
    model.fit(design, label, sample_weight=weight)
    return np.asarray(model.coef_[0]), float(model.intercept_[0])


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
    _nuisances.warn_clipped(e != raw, t, min_propensity)
    forms = {"per arm": crossfit.per_arm(model, y, t), "both arms": crossfit.both_arms(model, y, t)}
    options = []
    for form, (mu0, mu1) in forms.items():
        both = Nuisances(mu0=mu0, mu1=mu1, propensity=e, m=e * mu1 + (1 - e) * mu0, fold=fold, clipped=e != raw)
        options.append((both, held_out(both, y, t, weight_or_one, form)))
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
        options: dict[str, Any] = dict(_nuisances.weight_option(learner, self.weight, rows))
        if self.clusters is not None and has_fit_parameter(learner, "groups"):
            options["groups"] = self.clusters[rows]
        with config_context(enable_metadata_routing=False):
            return learner.fit(X[rows], target[rows], **options)

    def propensity(self, model: Any, t: FloatArray) -> FloatArray:
        """Probability of treatment, (n,)."""
        out = np.empty(len(t))
        for k in np.unique(self.fold):
            held = self.fold == k
            out[held] = _nuisances.predict_mean(self._fit(model, self.designs[k], t, ~held), self.designs[k][held])
        return _finite(out, model)

    def per_arm(self, model: Any, y: FloatArray, t: FloatArray) -> FloatArray:
        """Both potential outcomes, (2, n), each by a learner of its arm."""
        out = np.empty((2, len(y)))
        for k in np.unique(self.fold):
            held = self.fold == k
            for arm in (0, 1):
                learner = self._fit(model, self.designs[k], y, ~held & (t == arm))
                out[arm, held] = _nuisances.predict_mean(learner, self.designs[k][held])
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
            residual = y - _nuisances.predict_mean(learner, design)
            for arm in (0, 1):
                rows = ~held & (t == arm)
                shift = 0.0
                if not is_classifier(model) and w[rows].sum() > 0:
                    shift = float(np.average(residual[rows], weights=w[rows]))
                at = np.column_stack([self.designs[k][held], np.full(int(held.sum()), float(arm))])
                out[arm, held] = _nuisances.predict_mean(learner, at) + shift
        return _finite(out, model)


def fit_all(
    model: Any, X: FloatArray, target: FloatArray, weight: FloatArray | None, clusters: IntArray | None
) -> Any:
    """A clone of a learner fitted to all units."""
    all_units = np.ones(len(target), dtype=bool)
    return _Crossfit([X], np.zeros(len(target), dtype=np.int64), weight, clusters)._fit(model, X, target, all_units)


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
    residual = float(np.average((y - own) ** 2, weights=w))
    share = float(np.average(treatment, weights=w))
    chance = np.where(treatment > 0, nuisances.propensity, 1 - nuisances.propensity)
    return HeldOut(
        outcome_r2=1 - residual / total if total > 0 else 0.0,
        log_loss=float(-np.average(np.log(chance), weights=w)),
        log_loss_share=float(-(share * np.log(share) + (1 - share) * np.log(1 - share))),
        outcome_form=form,
    )
