r"""EconML's estimators under the contract of this package, with their own inference or a bootstrap of clusters.

An effect that EconML reports is a mean and a standard error for each unit. A posterior needs draws of all units at
once, since the error of an average depends on how their errors go together:

* Where the effect is linear in the features, :math:`\tau(x) = d(x)'\beta`, its value at a few points gives
  :math:`\beta`, and its standard error at a few more gives the covariance (a quadratic form is known from its values
  at sums of unit vectors). Draws of :math:`\beta` have EconML's standard error at every unit.
* Of other effects (forests) only the standard errors are known. One normal number then moves all units together, as
  EconML's own summary of a population does: the error of an average is the average of its units' errors.
* A bootstrap refits the estimator to reweighted clusters; each refit is a draw of the whole curve.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.preprocessing import StandardScaler

from causalsat.base import Summary
from causalsat.core.features import learn_scaler
from causalsat.core.inputs import FitData, FloatArray, check_whole_numbers, select_columns
from causalsat.core.optional import require
from causalsat.core.warn import warn
from causalsat.estimators.levels import FittedLevels, check_coding, is_binary
from causalsat.exceptions import DataError, DataWarning, ParameterError, TreatmentError
from causalsat.inference.bootstrap import (
    check_clusters,
    clusters_by_arm,
    default_classifier,
    default_regressor,
    draw_weights,
    small_sample_factor,
)
from causalsat.inference.chains import seed_of
from causalsat.posterior import draw_quantiles

__all__ = ["EconMLEffect", "LinearCurve", "linear_coefficients", "linear_covariance"]

Effects = Callable[[FloatArray], FloatArray]  # features (n, p) to a number a unit (n,)

INFERENCES = ("auto", "own", "bootstrap")
FOLDS = 5  # of the default estimator
MIN_PROPENSITY = 0.01
LINEAR = 1e-7  # of the largest value, up to which an effect or its variance is a linear or quadratic function
MAX_LINEAR = 200  # features, beyond which a covariance is not asked for pair by pair
N_CHECKED = 500  # units of the fit at which it is checked
CHUNK = 4096
CONTROLS = "controls: all columns are to be modifiers"
WEIGHTS = "weights: those of a survey, or of a known probability of treatment that differs between units"
MAX_MESSAGE = 300  # characters of EconML's, which may print whole arrays


class EconMLEffect(FittedLevels):
    """Any effect estimator of EconML: its estimates, and draws by its own inference or a bootstrap of clusters.

    ``predict`` is what EconML's ``effect`` returns after a fit to the same data. The estimator can be a member of
    :class:`~causalsat.StackedEffect`, the base of :class:`~causalsat.VLUCI`, mapped and compared as any other.

    Parameters
    ----------
    estimator : estimator of EconML, optional
        One for a treatment of one column, without instruments: of ``econml.dml``, ``econml.dr`` or
        ``econml.metalearners``. It is copied. By default ``LinearDRLearner`` for a binary treatment and ``LinearDML``
        for a dose, with ridge and logistic regressions on standardised features and five folds.
    modifiers : None, str, int or list
        Columns on which the effect may depend (EconML's X; None: all); the others are controls (its W).
    inference : {"auto", "own", "bootstrap"}
        "own": EconML's standard errors, which take units as independent. "bootstrap": refits to clusters (units
        where there are none) with exponential weights, or drawn with replacement where ``fit`` takes no weights; as
        wide again as few clusters demand. "auto": its own where there are no clusters and it has one.
    n_bootstrap : int
        Refits.
    n_draws : int
        Draws by its own inference.
    random_state : int, RandomState or None
        Seed of the draws, and of the estimator and its learners where they have none of their own.

    Attributes
    ----------
    inference_ : str
        ``"own"`` or ``"bootstrap"``.
    curve_ : LinearCurve or None
        Draws of the coefficients, where the effect is linear in the modifiers.
    models_ : list of estimator
        EconML's fit to the data, and after it the refits; empty where ``curve_`` says all.
    modifiers_ : ndarray of int
        Positions of the modifiers.

    Notes
    -----
    Where the effect is linear in the modifiers, a saved model needs no EconML; other fitted estimators of EconML
    cannot be saved without pickle, and are refused. The parameter ``estimator`` is in no file.
    Learners inside of the estimator must take ``sample_weight`` where weights are given or clusters bootstrapped; a
    scikit-learn Pipeline does not.
    A known probability of treatment that differs between units enters as weights, under which half is treated.
    Folds come from the estimator, which keeps clusters whole; of rows in another order it makes other folds.

    Examples
    --------
    >>> from econml.dml import LinearDML
    >>> from sklearn.linear_model import LinearRegression, LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((500, 2)), rng.permutation(500) % 2
    >>> y = X[:, 1] + t * (1 + X[:, 0]) + 0.1 * rng.standard_normal(500)
    >>> dml = LinearDML(model_y=LinearRegression(), model_t=LogisticRegression(), discrete_treatment=True)
    >>> post = EconMLEffect(dml, random_state=0).fit(X, y, treatment=t).effect([[0.0, 0.0], [1.0, 0.0]])
    >>> bool(np.abs(post.mean() - [1, 2]).max() < 0.2)
    True
    """

    _contract_parameters: ClassVar[dict[str, Any]] = {"n_bootstrap": 20, "n_draws": 200, "random_state": 0}
    _learns_places: ClassVar[bool] = True
    _transient: ClassVar[tuple[str, ...]] = ("estimator",)
    estimator: Any = None  # for a loaded model

    def __init__(
        self,
        estimator: Any = None,
        *,
        modifiers: Any = None,
        inference: str = "auto",
        n_bootstrap: int = 100,
        n_draws: int = 1000,
        random_state: Any = 0,
    ) -> None:
        self.estimator = estimator
        self.modifiers = modifiers
        self.inference = inference
        self.n_bootstrap = n_bootstrap
        self.n_draws = n_draws
        self.random_state = random_state

    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_bootstrap": 2, "n_draws": 2})
        if self.inference not in INFERENCES:
            raise ParameterError(f"inference={self.inference!r}", expected=f"one of {INFERENCES}")
        require("econml", "econml", "EconMLEffect")
        _check_estimator(self.estimator)

    def _support_columns(self) -> Any:
        return self.modifiers_ if len(self.modifiers_) else slice(None)

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        check_coding(data.treatment)
        self.binary_ = is_binary(data.treatment)
        self.modifiers_ = select_columns(data.feature_names, self.modifiers, n_features=self.n_features_in_)
        if self.modifiers is None:
            self.modifiers_ = np.arange(data.X.shape[1])
        seed = seed_of(self.random_state)
        template = _default(binary=self.binary_) if self.estimator is None else self.estimator
        _check_treatment(template, binary=self.binary_)
        self.linear_in_treatment_ = self.binary_ or getattr(template, "treatment_featurizer", None) is None
        controls = np.setdiff1d(np.arange(data.X.shape[1]), self.modifiers_)
        units = Units(
            data.X[:, self.modifiers_] if len(self.modifiers_) else None,
            data.X[:, controls] if len(controls) else None,
            data.y,
            data.treatment,
            data.groups if data.groups is not None and data.n_groups < len(data.y) else None,
            data.sample_weight if data.weighted else None,
        )
        model = fit_model(template, units, seed)
        self.inference_ = self._choose_inference(model, units)
        self.estimator_name_ = type(model).__name__
        rng = np.random.default_rng([seed, 1])
        if self.inference_ == "own":
            self.models_, self.widening_, z = [model], 1.0, rng.standard_normal(int(self.n_draws))
            self.z_ = (z - z.mean()) / z.std(ddof=1)
        else:
            check_clusters(data.treatment, units.groups)
            self.models_ = [model, *refits(template, units, int(self.n_bootstrap), rng)]
            effective = clusters_by_arm(data.treatment, units.groups, data.sample_weight)
            self.widening_ = small_sample_factor(effective, len(self.modifiers_))
            self.z_ = np.empty(0)
        self.curve_ = self._linear_curve(units, rng) if self.linear_in_treatment_ else None
        if self.curve_ is not None:
            self.models_ = []
        self._average(data)

    def _choose_inference(self, model: Any, units: Units) -> str:
        clustered = units.groups is not None
        if self.inference == "bootstrap" or (self.inference == "auto" and clustered):
            return "bootstrap"
        own = _has_inference(model, units.X)
        if self.inference == "own":
            if not own:
                raise ParameterError(
                    f"inference='own' of a {type(model).__name__}, which has none",
                    expected="'bootstrap'",
                )
            if clustered:
                warn(
                    "EconML's own inference takes the units of a cluster as independent: intervals are too short "
                    "where they are alike. What to do: inference='bootstrap'.",
                    DataWarning,
                )
        return "own" if own else "bootstrap"

    def _linear_curve(self, units: Units, rng: np.random.Generator) -> LinearCurve | None:
        """Draws of the coefficients of effects that are linear in the modifiers; None if they are not."""
        X = np.empty((len(units.y), 0)) if units.X is None else units.X
        scaler = learn_scaler(X, units.weight)
        centre, scale = np.atleast_1d(scaler.mean), np.atleast_1d(scaler.scale_or_one)
        means = [linear_coefficients(partial(point_effects, m), X, centre, scale) for m in self.models_]
        if any(mean is None for mean in means):
            return None
        beta = np.array(means)
        if self.inference_ == "bootstrap":
            return LinearCurve(centre, scale, beta[0] + self.widening_ * (beta[1:] - beta[1:].mean(axis=0)))
        covariance = linear_covariance(partial(standard_errors, self.models_[0]), X, centre, scale)
        if covariance is None:
            return None
        return LinearCurve(centre, scale, beta[0] + normal_draws(covariance, int(self.n_draws), rng))

    def _average(self, data: FitData) -> None:
        """Draws of the average effect on the units of the fit, of a treatment of 1 against 0."""
        share, total = data.sample_weight / data.sample_weight.sum(), 0.0
        for start in range(0, len(data.y), CHUNK):
            rows = slice(start, start + CHUNK)
            n = len(data.y[rows])
            total = total + self._effect_draws(data.X[rows], np.ones(n), np.zeros(n)) @ share[rows]
        self.ate_draws_ = np.asarray(total)

    # ------------------------------------------------------------------ effects and reports
    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        chosen = X[:, self.modifiers_]
        if self.curve_ is not None:
            return self.curve_.effects(chosen) * (treatment - baseline)
        if self.linear_in_treatment_:
            return self._unit_draws(chosen, None) * (treatment - baseline)
        return self._unit_draws(chosen, (baseline, treatment))

    def _unit_draws(self, X: FloatArray, levels: tuple[FloatArray, FloatArray] | None) -> FloatArray:
        """Draws of effects that are no linear function of the features."""
        centre = point_effects(self.models_[0], X, levels)
        if self.inference_ == "own":
            sign = 1.0 if levels is None else np.sign(levels[1] - levels[0])
            return np.asarray(centre + self.z_[:, None] * (sign * standard_errors(self.models_[0], X, levels)))
        draws = np.array([point_effects(model, X, levels) for model in self.models_[1:]])
        return np.asarray(centre + self.widening_ * (draws - draws.mean(axis=0)))

    def _diagnostics(self) -> dict[str, Any]:
        n_refits = len(self.ate_draws_)
        own = "its own standard errors"
        if self.curve_ is None:
            own += ", all units moved together"
        source = own if self.inference_ == "own" else f"bootstrap of clusters, {n_refits} refits"
        return {"source": f"EconML's {self.estimator_name_}, {source}"}

    def _summary(self) -> Summary:
        import pandas as pd

        low, high = draw_quantiles(self.ate_draws_, [0.025, 0.975])
        row = {"estimate": self.ate_draws_.mean(), "std err": self.ate_draws_.std(ddof=1)}
        table = pd.DataFrame([{**row, "[0.025": float(low), "0.975]": float(high)}], index=["ATE"])
        info = {
            "units": self.n_units_,
            "clusters": self.n_groups_,
            "treated share or mean dose": self.treated_share_,
            **self._diagnostics(),
        }
        note = "The ATE is the mean of the units' effects."
        if self.inference_ == "own" and self.curve_ is None:
            note += (
                " Its standard error is the mean of theirs: no smaller one is known of effects that are not linear."
            )
        return Summary(f"{self.estimator_name_} of EconML", table, info, (note,))

    def __getstate__(self) -> dict[str, Any]:
        """Pickles and copies keep the estimator, files do not."""
        return {**super().__getstate__(), "estimator": self.estimator}


# ---------------------------------------------------------------------- EconML's estimators
@dataclass(frozen=True, eq=False)
class Units:
    """What EconML's fit takes: modifiers (n, p) or None, controls or None, outcome, treatment, clusters, weights."""

    X: FloatArray | None
    W: FloatArray | None
    y: FloatArray
    treatment: FloatArray
    groups: NDArray[np.int64] | None
    weight: FloatArray | None

    def take(self, rows: NDArray[np.int64]) -> Units:
        """Some of the units, or copies of them; copies of a unit are one cluster, so that they stay in one fold."""
        arrays = (self.X, self.W, self.y, self.treatment)
        X, W, y, t = (None if v is None else v[rows] for v in arrays)
        groups = rows if self.groups is None else self.groups[rows]
        assert y is not None
        assert t is not None
        return Units(X, W, y, t, np.unique(groups, return_inverse=True)[1], None)


class StandardisedRegressor(RegressorMixin, BaseEstimator):
    """A regressor on standardised features that takes ``sample_weight``: EconML passes none to a Pipeline."""

    def __init__(self, model: Any = None) -> None:
        self.model = model

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn the features' scales, and fit the model to weighted units."""
        self.scaler_ = StandardScaler().fit(X, sample_weight=sample_weight)
        self.model_ = clone(self.model).fit(self.scaler_.transform(X), y, sample_weight=sample_weight)
        return self

    def predict(self, X: Any) -> Any:
        """What the model predicts."""
        return self.model_.predict(self.scaler_.transform(X))


class StandardisedClassifier(ClassifierMixin, BaseEstimator):
    """A classifier on standardised features that takes ``sample_weight``."""

    def __init__(self, model: Any = None) -> None:
        self.model = model

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn the features' scales, and fit the model to weighted units."""
        self.scaler_ = StandardScaler().fit(X, sample_weight=sample_weight)
        self.model_ = clone(self.model).fit(self.scaler_.transform(X), y, sample_weight=sample_weight)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X: Any) -> Any:
        """Classes."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes."""
        return self.model_.predict_proba(self.scaler_.transform(X))


def _default(*, binary: bool) -> Any:
    """The estimator where none is given."""
    regressor = StandardisedRegressor(default_regressor()[-1])
    if binary:
        from econml.dr import LinearDRLearner

        classifier = StandardisedClassifier(default_classifier()[-1])
        return LinearDRLearner(
            model_propensity=classifier, model_regression=regressor, min_propensity=MIN_PROPENSITY, cv=FOLDS
        )
    from econml.dml import LinearDML

    return LinearDML(model_y=regressor, model_t=copy.deepcopy(regressor), cv=FOLDS)


def _parameters(estimator: Any) -> dict[str, Any]:
    return dict(inspect.signature(estimator.fit).parameters)


def _check_estimator(estimator: Any) -> None:
    """Refuse what is no estimator of EconML, or asks for more than outcome, treatment and features."""
    if estimator is None:
        return
    if isinstance(estimator, type) or not all(callable(getattr(estimator, k, None)) for k in ("fit", "effect")):
        raise ParameterError(
            f"estimator={estimator!r}", expected="an instance of an estimator of EconML, such as LinearDML()"
        )
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = {k: p for k, p in _parameters(estimator).items() if p.kind not in open_ended}
    needed = [k for k, p in parameters.items() if p.default is p.empty and k not in ("Y", "T", "X")]
    if needed:
        raise ParameterError(
            f"{type(estimator).__name__}, whose fit needs {', '.join(needed)}",
            expected="an estimator of outcome, treatment and features",
            todo="use EconML itself for instruments and panels",
        )


def _check_treatment(estimator: Any, *, binary: bool) -> None:
    """Refuse a dose for an estimator of arms."""
    if not binary and getattr(estimator, "discrete_treatment", True):
        raise TreatmentError(
            f"the treatment is a dose, and this {type(estimator).__name__} takes arms",
            expected="a treatment of 0 and 1",
            todo="pass discrete_treatment=False to it, or take an estimator of econml.dml",
        )


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """NumPy's global generator at a seed, for learners without one of their own; afterwards as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def fit_model(template: Any, units: Units, seed: int) -> Any:
    """A copy of the estimator, fitted.

    Raises
    ------
    DataError
        What EconML raises.
    """
    model = copy.deepcopy(template)
    if getattr(model, "random_state", seed) is None:
        model.random_state = seed
    taken, name = _parameters(model), type(model).__name__
    roles = {"W": units.W, "groups": units.groups, "sample_weight": units.weight}
    for role, what in (("W", CONTROLS), ("sample_weight", WEIGHTS)):
        if roles[role] is not None and role not in taken:
            raise ParameterError(f"{name}, which takes no {what}", expected=f"an estimator whose fit takes {role}")
    options = {role: value for role, value in roles.items() if value is not None and role in taken}
    try:
        with _numpy_seed(seed):
            model.fit(units.y, _treatment(model, units.treatment), X=units.X, **options)
    except (ValueError, TypeError, AttributeError, AssertionError, np.linalg.LinAlgError) as error:
        raise DataError(
            f"EconML's {name} could not be fitted: {str(error)[:MAX_MESSAGE]}",
            expected="units of each arm in every fold, and learners that take what they are passed",
            todo="pass more units or fewer folds (cv); learners that take sample_weight, where weights are given or "
            "clusters bootstrapped",
        ) from error
    return model


def refits(template: Any, units: Units, n_refits: int, rng: np.random.Generator) -> list[Any]:
    """Fits to reweighted clusters, or to copies of clusters where the estimator takes no weights."""
    counts = "sample_weight" not in _parameters(template)
    own = np.ones(len(units.y)) if units.weight is None else units.weight
    models = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # given of the fit to the data
        for _ in range(n_refits):
            weight = draw_weights(rng, units.groups, units.treatment, counts=counts)
            seed = int(rng.integers(2**31 - 1))
            if counts:
                rows = np.repeat(np.arange(len(units.y)), weight.astype(np.int64))
                models.append(fit_model(template, units.take(rows), seed))
            else:
                weighted = Units(units.X, units.W, units.y, units.treatment, units.groups, weight * own)
                models.append(fit_model(template, weighted, seed))
    return models


def _treatment(model: Any, treatment: FloatArray) -> FloatArray:
    """Treatment (n,) as the estimator takes it: a column where it makes features of it."""
    return treatment if getattr(model, "treatment_featurizer", None) is None else treatment[:, None]


def _levels(model: Any, levels: tuple[FloatArray, FloatArray] | None) -> dict[str, Any]:
    if levels is None:
        return {"T0": 0.0, "T1": 1.0}
    return {name: _treatment(model, level) for name, level in zip(("T0", "T1"), levels, strict=True)}


def point_effects(model: Any, X: FloatArray, levels: tuple[FloatArray, FloatArray] | None = None) -> FloatArray:
    """Effects (n,) by a fitted estimator, of 1 against 0 or between levels (n,) each; X may have no columns."""
    values = model.effect(X if X.shape[1] else None, **_levels(model, levels))
    return np.array(np.broadcast_to(np.ravel(values), len(X)), dtype=float)


def standard_errors(model: Any, X: FloatArray, levels: tuple[FloatArray, FloatArray] | None = None) -> FloatArray:
    """Their standard errors (n,) by its own inference.

    Raises
    ------
    DataError
        If one of them is not finite.
    """
    values = model.effect_inference(X if X.shape[1] else None, **_levels(model, levels)).stderr
    out = np.array(np.broadcast_to(np.ravel(values), len(X)), dtype=float)
    if not np.isfinite(out).all():
        raise DataError(
            f"standard errors of EconML's {type(model).__name__} that are not finite",
            expected="more units than coefficients",
            todo="pass fewer modifiers, or inference='bootstrap'",
        )
    return out


def _has_inference(model: Any, X: FloatArray | None) -> bool:
    """Whether the fitted estimator has standard errors of its own."""
    try:
        model.effect_inference(None if X is None else X[:1], T0=0.0, T1=1.0)
    except (AttributeError, NotImplementedError):
        return False
    return True


# ---------------------------------------------------------------------- effects that are linear in the features
@dataclass(frozen=True, eq=False)
class LinearCurve:
    """Draws of effects that are linear in the features.

    Attributes
    ----------
    centre, scale : ndarray of shape (p,)
        Of the features.
    coefficients : ndarray of shape (S, 1 + p)
        Draws of the constant and of the slopes in the standardised features.
    """

    centre: FloatArray
    scale: FloatArray
    coefficients: FloatArray

    def effects(self, X: FloatArray) -> FloatArray:
        """Draws (S, n) at features (n, p)."""
        return np.asarray(self.coefficients @ _design(X, self.centre, self.scale).T)


def _design(X: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    return np.column_stack([np.ones(len(X)), (X - centre) / scale])


def linear_coefficients(effects: Effects, X: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray | None:
    """Constant and slopes (1 + p,) of a linear function, from its values at 1 + p points; None if it is not linear.

    Parameters
    ----------
    effects : callable
        Features (n, p) to values (n,).
    X : ndarray of shape (n, p)
        Units of the fit, at which it is checked.
    centre, scale : ndarray of shape (p,)
        Of the features.

    Examples
    --------
    >>> X = np.random.default_rng(0).standard_normal((20, 2))
    >>> linear_coefficients(lambda x: 3 + x @ [1.0, 4.0], X, np.ones(2), np.array([1.0, 2.0]))
    array([8., 1., 8.])
    >>> linear_coefficients(lambda x: x[:, 0] ** 2, X, np.ones(2), np.ones(2)) is None
    True
    """
    steps = np.vstack([np.zeros(len(centre)), np.eye(len(centre))])
    values = effects(centre + steps * scale)
    beta = np.r_[values[0], values[1:] - values[0]]
    units = X[:N_CHECKED]
    seen = effects(units)
    far = np.abs(seen - _design(units, centre, scale) @ beta).max()
    return beta if far <= LINEAR * max(np.abs(seen).max(), 1e-12) else None


def linear_covariance(errors: Effects, X: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray | None:
    """Covariance (1 + p, 1 + p) of the coefficients of a linear function from its standard errors; None if not known.

    The variance at d is d'Vd: its values at plus and minus each axis and at the sums of two give V.

    Parameters
    ----------
    errors : callable
        Features (n, p) to standard errors (n,).
    X, centre, scale
        As in :func:`linear_coefficients`.

    Examples
    --------
    >>> V = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, -0.3], [0.1, -0.3, 0.7]])
    >>> def errors(x): return np.sqrt([d @ V @ d for d in np.c_[np.ones(len(x)), x]])
    >>> X = np.random.default_rng(0).standard_normal((20, 2))
    >>> linear_covariance(errors, X, np.zeros(2), np.ones(2)).round(6).tolist() == V.tolist()
    True
    """
    p = len(centre)
    if p > MAX_LINEAR:
        return None
    first, second = np.triu_indices(p, k=1)
    axes = np.eye(p)
    steps = np.vstack([np.zeros((1, p)), axes, -axes, axes[first] + axes[second]])
    variance = errors(centre + steps * scale) ** 2
    origin, plus, minus, pairs = np.split(variance, [1, 1 + p, 1 + 2 * p])
    V = np.empty((1 + p, 1 + p))
    V[0, 0] = origin[0]
    V[0, 1:] = V[1:, 0] = (plus - minus) / 4
    own = (plus + minus) / 2 - origin[0]
    V[1:, 1:] = np.diag(own)
    crossed = (pairs - origin[0] - own[first] - own[second]) / 2 - V[0, 1 + first] - V[0, 1 + second]
    V[1 + first, 1 + second] = V[1 + second, 1 + first] = crossed
    units = X[:N_CHECKED]
    D, seen = _design(units, centre, scale), errors(units) ** 2
    far = np.abs(seen - np.einsum("ni,ij,nj->n", D, V, D)).max()
    return V if far <= LINEAR * max(seen.max(), 1e-24) else None


def normal_draws(covariance: FloatArray, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws (S, k) of mean 0 whose own covariance is the one given, where there are more draws than columns.

    Examples
    --------
    >>> V = np.array([[2.0, 0.5], [0.5, 1.0]])
    >>> draws = normal_draws(V, 50, np.random.default_rng(0))
    >>> bool(np.allclose(np.cov(draws.T), V)), bool(np.allclose(draws.mean(axis=0), 0))
    (True, True)
    """
    z = rng.standard_normal((n_draws, len(covariance)))
    z -= z.mean(axis=0)
    if n_draws > 2 * len(covariance):
        z = np.linalg.qr(z)[0] * np.sqrt(n_draws - 1)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(z @ (vectors * np.sqrt(np.maximum(values, 0.0))).T)
