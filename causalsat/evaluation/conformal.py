"""Conformal intervals of outcomes and individual effects, valid for a unit of a new cluster.

Split conformal prediction needs exchangeable scores; units of a village are not. Here whole clusters are split and
calibrated (Lee, Barber and Willett 2023; Dunn, Wasserman and Ramdas 2023), and the scores are weighted where
treatment depends on features (Tibshirani et al. 2019; Lei and Candes 2021).

No method here gives intervals for a *conditional average* effect: nothing that can be observed is distributed about
it with a known spread. Doubly robust scores are about it on average only, and intervals calibrated on them would
cover scores, whose noise swamps the effects' differences. For how far a posterior of conditional effects is
over- or underconfident see :func:`causalsat.evaluation.posterior_scale`, which is a diagnostic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import aligned
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.evaluation.weighted_quantiles import (
    CLUSTER_METHODS,
    Calibration,
    calibrate,
    fit_quantiles,
    predict_quantiles,
    warn_infinite,
)
from causalsat.exceptions import ColumnError, DataError, ParameterError
from causalsat.inference.folds import assign_folds
from causalsat.posterior import EffectPosterior

__all__ = [
    "ConformalCalibration",
    "ConformalIntervals",
    "ConformalOutcomes",
    "TrialData",
    "arm_interval",
    "check_method",
    "checked_trial",
    "conformal_calibrate",
    "conformal_individual_effects",
    "conformal_outcome_intervals",
    "likelihood_ratio",
    "widen",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrialData:
    """Checked inputs: features, outcome, 0/1 treatment, clusters, propensities, weights, new units."""

    X: FloatArray
    y: FloatArray
    t: FloatArray
    cluster: IntArray
    e: FloatArray | None
    w: FloatArray
    weighted: bool
    new: FloatArray
    e_new: FloatArray | None
    index: NDArray[Any]

    def ratio(self, rows: IntArray, arm: int, target: int | None) -> FloatArray:
        """Likelihood ratio of the target (None: all; 0, 1: an arm) to an arm's units, with survey weights."""
        return self.w[rows] * (1.0 if self.e is None else likelihood_ratio(self.e[rows], arm, target))

    def new_ratio(self, e: FloatArray | None, arm: int, target: int | None) -> FloatArray | None:
        """The same of new units; None where it is not known."""
        if self.weighted or (self.e is not None and e is None):
            return None
        return None if self.e is None or e is None else likelihood_ratio(e, arm, target)


def likelihood_ratio(e: FloatArray, arm: int, target: int | None) -> FloatArray:
    """Ratio of the features' density in the target population (None: all; 0, 1: an arm) to that of an arm's units."""
    p = e if arm == 1 else 1 - e
    return 1 / p if target is None else (np.ones_like(p) if target == arm else (1 - p) / p)


def arm_interval(
    data: TrialData,
    train: IntArray,
    held: IntArray,
    arm: int,
    target: int | None,
    X: FloatArray,
    e: FloatArray | None,
    level: float,
    model: Any,
    method: str,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, int]:
    """Interval of an arm's outcome for units of a target population: lower, upper, calibration clusters."""
    own = train[data.t[train] == arm]
    tail = (1 - level) / 2
    weight = data.ratio(own, arm, target) if data.weighted or data.e is not None else None
    models = fit_quantiles(model, data.X[own], (data.y[own],) * 2, (tail, 1 - tail), weight)
    low, high = predict_quantiles(models, data.X[held])
    scores = np.maximum(low - data.y[held], data.y[held] - high)
    ratio = data.ratio(held, arm, target)
    found: Calibration = calibrate(scores, data.cluster[held], data.t[held] == arm, ratio, check_method(method), rng)
    offset = found.quantile(data.new_ratio(e, arm, target), len(X), level)
    a, b = predict_quantiles(models, X)
    return widen(a, b, offset), widen(a, b, offset, upper=True), found.n_clusters


def widen(low: FloatArray, high: FloatArray, offset: FloatArray, *, upper: bool = False) -> FloatArray:
    """A bound moved out by the offset; where a negative one turns the interval over, its middle."""
    moved = high + offset if upper else low - offset
    return np.where(high - low + 2 * offset < 0, (low + high) / 2, moved)


def check_method(method: str) -> str:
    """Refuse an unknown way of calibrating on clusters."""
    if not isinstance(method, str) or method not in CLUSTER_METHODS:
        raise ParameterError(f"method={method!r}", expected="'hierarchical' or 'subsample'")
    return method


def checked_trial(
    X: Any,
    y: Any,
    treatment: Any,
    X_new: Any,
    groups: Any,
    propensity: Any,
    propensity_new: Any,
    sample_weight: Any,
) -> TrialData:
    """Check what the conformal functions are given, once."""
    names = {v for v in (treatment, groups, sample_weight) if isinstance(v, str)}
    table = np.asarray(inputs.features_only(X, names), dtype=float)
    fresh = X_new
    if inputs.is_dataframe(X) and inputs.is_dataframe(X_new):
        columns = list(inputs.features_only(X, names).columns)
        absent = [name for name in columns if name not in X_new.columns]
        if absent:
            raise ColumnError(f"X_new without the column {absent[0]!r}", expected="the feature columns of X")
        fresh = inputs.features_only(X_new[columns], set())
    new = np.asarray(fresh, dtype=float)
    if table.ndim != 2 or new.ndim != 2 or new.shape[1] != table.shape[1]:
        raise DataError(f"X of shape {table.shape} and X_new of shape {new.shape}", expected="tables (unit, feature)")
    n = len(table)
    t = inputs.check_treatment(inputs.column_or_array(X, treatment, "treatment")[0], n, binary=True)
    values = inputs.column_or_array(X, sample_weight, "sample_weight")[0]
    w = checks.weights(values, n)
    e = inputs.check_propensity(propensity, n)
    if e is not None and np.ptp(e) == 0:
        e = None  # the same weight for all
    return TrialData(
        X=table,
        y=inputs.check_outcome(y, n),
        t=t,
        cluster=checks.codes(inputs.column_or_array(X, groups, "groups")[0], n),
        e=e,
        w=np.ones(n) if w is None else w,
        weighted=w is not None,
        new=new,
        e_new=inputs.check_propensity(propensity_new, len(new)),
        index=inputs.unit_index(X_new),
    )


if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ConformalIntervals(Tabular):
    """Intervals with a marginal, finite-sample guarantee.

    Attributes
    ----------
    lower, upper : ndarray of shape (n,)
        Bounds, infinite where there are too few clusters for the level.
    level : float
        Coverage that is guaranteed for a random unit of a random new cluster.
    of : str
        What is covered: "outcome under control", "outcome under treatment" or "individual effect".
    method : str
        How.
    n_clusters : int
        Clusters that calibrated (the smallest number, where there were several calibrations).
    index : ndarray of shape (n,)
        Labels of the units.
    """

    lower: FloatArray
    upper: FloatArray
    level: float
    of: str
    method: str
    n_clusters: int
    index: NDArray[Any]

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.lower)

    @property
    def width(self) -> FloatArray:
        """Upper less lower bound, shape (n,)."""
        return self.upper - self.lower

    def covers(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Whether each interval covers its value, shape (n,)."""
        v = checks.numbers(values, "values", len(self))
        return np.asarray((self.lower <= v) & (v <= self.upper))

    def to_dataframe(self, posterior: EffectPosterior | None = None) -> pd.DataFrame:
        """Table with one row a unit: lower, upper, width; and beside them the posterior's mean and interval.

        Parameters
        ----------
        posterior : EffectPosterior, optional
            Of the same units. Its credible interval (of the same level) is about a conditional *mean*, effect or
            outcome; the conformal one is about one unit's own value and is wider by the units' noise.
        """
        import pandas as pd

        columns: dict[str, Any] = {"lower": self.lower, "upper": self.upper, "width": self.width}
        if posterior is not None:
            if len(posterior) != len(self):
                raise DataError(f"a posterior of {len(posterior)} units", expected=f"the same {len(self)} units")
            low, high = posterior.interval(self.level).T
            columns |= {"posterior_mean": posterior.mean(), "posterior_lower": low, "posterior_upper": high}
        return pd.DataFrame(columns, index=pd.Index(self.index, name="unit"))


@dataclass(frozen=True, eq=False)
class ConformalOutcomes(Tabular):
    """Conformal intervals of both potential outcomes.

    Attributes
    ----------
    control, treated : ConformalIntervals
        Of the outcome without and with treatment; each has the stated level by itself.
    """

    control: ConformalIntervals
    treated: ConformalIntervals

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row a unit: control_lower, control_upper, treated_lower, treated_upper."""
        import pandas as pd

        arms = {"control": self.control, "treated": self.treated}
        columns = {f"{k}_{b}": getattr(v, b) for k, v in arms.items() for b in ("lower", "upper")}
        return pd.DataFrame(columns, index=pd.Index(self.control.index, name="unit"))


@dataclass(frozen=True)
class ConformalCalibration(Tabular):
    """How much intervals have to be widened at both ends to reach their level.

    Attributes
    ----------
    offset : float
        To be taken off lower and added to upper bounds; negative where the intervals were too wide.
    level : float
        The level.
    coverage : float
        Coverage of the intervals as they were, on the calibration units (each cluster counts the same).
    n_units, n_clusters : int
        Calibration units and clusters.
    """

    offset: float
    level: float
    coverage: float
    n_units: int
    n_clusters: int

    def apply(self, lower: ArrayLike, upper: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Widened bounds; where a negative offset would turn an interval over, its middle twice."""
        low, high = np.asarray(lower, dtype=float) - self.offset, np.asarray(upper, dtype=float) + self.offset
        middle = (low + high) / 2 if np.isfinite(self.offset) else low
        turned = low > high
        return np.where(turned, middle, low), np.where(turned, middle, high)

    def to_dataframe(self) -> pd.DataFrame:
        """One row: offset, level, coverage before, units, clusters."""
        import pandas as pd

        return pd.DataFrame([vars(self)])


@aligned("lower", "upper", "y", "groups", "weights")
def conformal_calibrate(
    lower: ArrayLike,
    upper: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    level: float = 0.9,
    method: str = "hierarchical",
    random_state: Any = 0,
) -> ConformalCalibration:
    """Offset that makes any out-of-sample outcome intervals cover a unit of a new cluster.

    For example the posterior predictive intervals of a Bayesian model on clusters that it was not fitted to, or
    aggregated quantiles (:func:`causalsat.evaluation.aggregate_quantiles`).

    Parameters
    ----------
    lower, upper : array of shape (n,)
        Bounds from a model that did not see these clusters.
    y : array of shape (n,)
        What happened.
    groups : array of shape (n,), optional
        Clusters; without them each unit is its own.
    weights : array of shape (n,), optional
        Likelihood ratios of the population to be covered to these units, up to a factor (survey weights, inverse
        propensities). The new unit's is taken to be the largest of these.
    level : float
        Coverage.
    method : {"hierarchical", "subsample"}
        All units, with masses weight / cluster size, or one random unit a cluster.
    random_state : int or numpy.random.Generator
        Draws that unit.

    Returns
    -------
    ConformalCalibration
        The offset, infinite (with a warning) where there are too few clusters.

    Raises
    ------
    DataError, ParameterError
        If an input cannot be used.

    References
    ----------
    Romano, Patterson and Candes (2019), "Conformalized quantile regression", equations 6 to 8; Lee, Barber and
    Willett (2023), "Distribution-free inference with hierarchical data", section 3.1.

    Examples
    --------
    >>> y = np.arange(1.0, 100.0)
    >>> found = conformal_calibrate(np.zeros(99), np.zeros(99), y, level=0.9)
    >>> found.offset, found.apply([-5.0], [5.0])
    (90.0, (array([-95.]), array([95.])))
    """
    outcome = checks.numbers(y, "y")
    n = len(outcome)
    low, high = checks.numbers(lower, "lower", n), checks.numbers(upper, "upper", n)
    if (low > high).any():
        raise DataError(f"{int((low > high).sum())} lower bounds above their upper bounds", expected="lower <= upper")
    cluster = checks.codes(groups, n)
    given = checks.weights(weights, n)
    w = np.ones(n) if given is None else given
    rng = np.random.default_rng(random_state)
    scores = np.maximum(low - outcome, outcome - high)
    found = calibrate(scores, cluster, np.ones(n, dtype=bool), w, check_method(method), rng)
    offset = float(found.quantile(None, 1, checks.level(level))[0])
    warn_infinite(int(not np.isfinite(offset)), 1, found.n_clusters, level)
    mass = w / np.bincount(cluster)[cluster]
    coverage = float(np.average(scores <= 0, weights=mass))
    return ConformalCalibration(offset, float(level), coverage, n, found.n_clusters)


@aligned("X", "y", "treatment", "groups", "propensity", "sample_weight")
@aligned("X_new", "propensity_new")
def conformal_outcome_intervals(
    X: Any,
    y: ArrayLike,
    treatment: ArrayLike | str,
    X_new: Any,
    *,
    groups: ArrayLike | str | None = None,
    propensity: ArrayLike | float | None = None,
    propensity_new: ArrayLike | float | None = None,
    sample_weight: ArrayLike | str | None = None,
    level: float = 0.9,
    quantile_model: Any = None,
    method: str = "hierarchical",
    random_state: Any = 0,
) -> ConformalOutcomes:
    """Intervals of the outcomes that new units would have under control and under treatment.

    Conformalised quantile regression in each arm: half of the clusters fit the quantile models, half calibrate
    them, with inverse propensities as weights (Lei and Candes 2021, section 3).

    Parameters
    ----------
    X : array or DataFrame of shape (n, p)
        Features.
    y, treatment : array of shape (n,)
        Outcome and 0/1 treatment (or the name of X's column).
    X_new : array or DataFrame of shape (m, p)
        Units to predict, in clusters that are not among the groups.
    groups : array of shape (n,) or str, optional
        Clusters; without them each unit is its own.
    propensity : array of shape (n,) or float, optional
        Probability of treatment given the features. Without it the trial is taken to have treated each unit, or
        each cluster, with the same probability. Where it is estimated, the coverage is approximate.
    propensity_new : array of shape (m,) or float, optional
        The same for the new units; without it they count with the largest weight, which is conservative.
    sample_weight : array of shape (n,) or str, optional
        Survey weights of the population to be covered.
    level : float
        Coverage of each arm's interval.
    quantile_model : scikit-learn estimator with a parameter ``quantile``, optional
        By default gradient-boosted trees.
    method : {"hierarchical", "subsample"}
        Calibrate with all units, each with mass weight / cluster size, or with one random unit a cluster.
    random_state : int or numpy.random.Generator
        Seed of the split.

    Returns
    -------
    ConformalOutcomes
        Intervals of both arms.

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If an input cannot be used.

    Notes
    -----
    The guarantee is marginal: over draws of the trial and of one unit from a new cluster, each cluster as likely
    as another. With clusters of several units and weights that vary, the new cluster's total mass is bounded by the
    largest weight, which keeps the coverage at least at the level: of the exchangeable clusters' weighted
    exceedances, the new one's has the mean of all.

    References
    ----------
    Lei and Candes (2021), "Conformal inference of counterfactuals and individual treatment effects", JRSS B 83(5);
    Lee, Barber and Willett (2023), "Distribution-free inference with hierarchical data".

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, village = rng.standard_normal((2000, 1)), np.repeat(np.arange(200), 10)
    >>> t = (rng.permutation(200) % 2)[village]
    >>> y = X[:, 0] + t + rng.standard_normal(2000)
    >>> found = conformal_outcome_intervals(X[500:], y[500:], t[500:], X[:500], groups=village[500:], level=0.8)
    >>> bool(found.treated.covers(y[:500])[t[:500] == 1].mean() > 0.75)
    True
    """
    data = checked_trial(X, y, treatment, X_new, groups, propensity, propensity_new, sample_weight)
    rng = np.random.default_rng(random_state)
    part = assign_folds(2, rng, groups=data.cluster, treatment=data.t)
    train, held = np.flatnonzero(part == 0), np.flatnonzero(part == 1)
    arms = []
    for arm, name in ((0, "control"), (1, "treatment")):
        low, high, n_clusters = arm_interval(
            data, train, held, arm, None, data.new, data.e_new, checks.level(level), quantile_model, method, rng
        )
        warn_infinite(int((~np.isfinite(low)).sum()), len(low), n_clusters, level)
        text = f"conformalised quantiles, {method}"
        arms.append(ConformalIntervals(low, high, level, f"outcome under {name}", text, n_clusters, data.index))
    return ConformalOutcomes(*arms)


@aligned("X", "y", "treatment", "groups", "propensity", "sample_weight")
@aligned("X_new", "propensity_new")
def conformal_individual_effects(
    X: Any,
    y: ArrayLike,
    treatment: ArrayLike | str,
    X_new: Any,
    *,
    groups: ArrayLike | str | None = None,
    propensity: ArrayLike | float | None = None,
    propensity_new: ArrayLike | float | None = None,
    sample_weight: ArrayLike | str | None = None,
    level: float = 0.9,
    quantile_model: Any = None,
    approach: str = "nested",
    method: str = "hierarchical",
    random_state: Any = 0,
) -> ConformalIntervals:
    """Intervals of the individual effects Y(1) - Y(0) of new units: not of conditional average effects.

    ``approach="nested"`` (Lei and Candes 2021, section 4.2, exact): on one half of the clusters, intervals of each
    arm's outcome for units of the other arm; on the other half these turn each unit into an interval of its own
    effect, and conformal inference for interval outcomes carries them over to new units. ``"bonferroni"``:
    differences of both arms' intervals at level (1 + level) / 2. Both are conservative, as they allow for any
    dependence between the two potential outcomes: where noise is common to both arms they are far too wide.

    Parameters
    ----------
    X, y, treatment, X_new, groups, propensity, propensity_new, sample_weight, quantile_model, method, random_state :
        As in :func:`conformal_outcome_intervals`.
    level : float
        Coverage; half of the error goes to either step.
    approach : {"nested", "bonferroni"}
        How.

    Returns
    -------
    ConformalIntervals
        ``of="individual effect"``.

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If an input cannot be used; the nested approach needs four clusters in each arm.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, village = rng.standard_normal((3000, 1)), np.repeat(np.arange(300), 10)
    >>> t = (rng.permutation(300) % 2)[village]
    >>> y = X[:, 0] + 2 * t + 0.3 * rng.standard_normal(3000)
    >>> found = conformal_individual_effects(X, y, t, X[:50], groups=village, level=0.8)
    >>> bool(found.covers(np.full(50, 2.0)).mean() > 0.8)
    True
    """
    level = checks.level(level)
    data = checked_trial(X, y, treatment, X_new, groups, propensity, propensity_new, sample_weight)
    rng = np.random.default_rng(random_state)
    if approach not in ("nested", "bonferroni"):
        raise ParameterError(f"approach={approach!r}", expected="'nested' or 'bonferroni'")
    step = (1 + level) / 2
    run = _nested if approach == "nested" else _bonferroni
    low, high, n_clusters = run(data, step, quantile_model, check_method(method), rng)
    warn_infinite(int((~np.isfinite(high - low)).sum()), len(low), n_clusters, level)
    return ConformalIntervals(low, high, level, "individual effect", f"{approach}, {method}", n_clusters, data.index)


def _bonferroni(
    data: TrialData, step: float, model: Any, method: str, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, int]:
    part = assign_folds(2, rng, groups=data.cluster, treatment=data.t)
    train, held = np.flatnonzero(part == 0), np.flatnonzero(part == 1)
    (low0, high0, k0), (low1, high1, k1) = (
        arm_interval(data, train, held, arm, None, data.new, data.e_new, step, model, method, rng) for arm in (0, 1)
    )
    return low1 - high0, high1 - low0, min(k0, k1)


def _nested(
    data: TrialData, step: float, model: Any, method: str, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, int]:
    part = assign_folds(4, rng, groups=data.cluster, treatment=data.t)
    first, second, train, held = (np.flatnonzero(part == k) for k in range(4))
    low, high = np.empty(len(data.y)), np.empty(len(data.y))
    counts = []
    for arm in (0, 1):  # the outcome that units of the other arm would have had
        rows = np.flatnonzero((part >= 2) & (data.t == 1 - arm))
        e = None if data.e is None else data.e[rows]
        a, b, k = arm_interval(data, first, second, arm, 1 - arm, data.X[rows], e, step, model, method, rng)
        low[rows], high[rows] = (
            (data.y[rows] - b, data.y[rows] - a) if arm == 0 else (a - data.y[rows], b - data.y[rows])
        )
        counts.append(k)
    if not (np.isfinite(low[part >= 2]).all() and np.isfinite(high[part >= 2]).all()):
        infinite = np.full(len(data.new), np.inf)
        return -infinite, infinite, min(counts)
    tail = (1 - step) / 2
    weight = data.w[train] if data.weighted else None
    models = fit_quantiles(model, data.X[train], (low[train], high[train]), (tail, 1 - tail), weight)
    m_low, m_high = predict_quantiles(models, data.X[held])
    scores = np.maximum(m_low - low[held], high[held] - m_high)
    found = calibrate(scores, data.cluster[held], np.ones(len(held), dtype=bool), data.w[held], method, rng)
    offset = found.quantile(None, len(data.new), step)
    a, b = predict_quantiles(models, data.new)
    return widen(a, b, offset), widen(a, b, offset, upper=True), min(*counts, found.n_clusters)
