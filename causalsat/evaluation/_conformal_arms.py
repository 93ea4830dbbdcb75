"""Conformal intervals of one arm's outcome: checked data, likelihood ratios, conformalised quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat import _inputs
from causalsat.evaluation import _checks
from causalsat.evaluation._conformal import (
    CLUSTER_METHODS,
    Calibration,
    calibrate,
    fit_quantiles,
    predict_quantiles,
)
from causalsat.exceptions import ColumnError, DataError, ParameterError

__all__ = ["TrialData", "arm_interval", "check_method", "checked_trial", "likelihood_ratio", "widen"]

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
    table = np.asarray(_inputs.features_only(X, names), dtype=float)
    fresh = X_new
    if _inputs.is_dataframe(X) and _inputs.is_dataframe(X_new):
        columns = list(_inputs.features_only(X, names).columns)
        absent = [name for name in columns if name not in X_new.columns]
        if absent:
            raise ColumnError(f"X_new without the column {absent[0]!r}", expected="the feature columns of X")
        fresh = _inputs.features_only(X_new[columns], set())
    new = np.asarray(fresh, dtype=float)
    if table.ndim != 2 or new.ndim != 2 or new.shape[1] != table.shape[1]:
        raise DataError(f"X of shape {table.shape} and X_new of shape {new.shape}", expected="tables (unit, feature)")
    n = len(table)
    t = _inputs.check_treatment(_inputs.column_or_array(X, treatment, "treatment")[0], n, binary=True)
    values = _inputs.column_or_array(X, sample_weight, "sample_weight")[0]
    w = _checks.weights(values, n)
    e = _inputs.check_propensity(propensity, n)
    if e is not None and np.ptp(e) == 0:
        e = None  # the same weight for all
    return TrialData(
        X=table,
        y=_inputs.check_outcome(y, n),
        t=t,
        cluster=_checks.codes(_inputs.column_or_array(X, groups, "groups")[0], n),
        e=e,
        w=np.ones(n) if w is None else w,
        weighted=w is not None,
        new=new,
        e_new=_inputs.check_propensity(propensity_new, len(new)),
        index=_inputs.unit_index(X_new),
    )
