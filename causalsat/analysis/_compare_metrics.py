"""Metrics of out-of-fold effects: each a function of a judged set of effects that gives a value and its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.evaluation import blp, gates, rate
from causalsat.exceptions import ParameterError

__all__ = ["DEFAULT_METRICS", "METRICS", "Judged", "resolve_metrics"]

FloatArray = NDArray[np.float64]
Metric = Callable[["Judged"], Any]

DEFAULT_METRICS = ("autoc", "rate_ratio", "qini", "blp_slope", "gates_difference")
TRUTH_METRICS = ("sqrt_pehe", "correlation")


@dataclass(frozen=True)
class Judged:
    """Out-of-fold effects with what they are judged by; what a metric is handed.

    Attributes
    ----------
    tau, sd : ndarray of shape (n,)
        Posterior means and standard deviations by models that did not see the unit's fold.
    fold : ndarray of int of shape (n,)
        Fold of each unit.
    scores : ndarray of shape (n,)
        Doubly robust scores, the same for all sources and models.
    groups, weights : ndarray of shape (n,) or None
        Sites and survey weights.
    truth : ndarray of shape (n,) or None
        True effects, in simulations.
    n_bootstrap, random_state : int
        Half-samples of the RATE and their seed.
    """

    tau: FloatArray
    sd: FloatArray
    fold: NDArray[np.int64]
    scores: FloatArray
    groups: Any = None
    weights: Any = None
    truth: FloatArray | None = None
    n_bootstrap: int = 200
    random_state: int = 0

    def rate(self, method: str) -> Any:
        """RATE of the effects' ranks within folds."""
        return rate(
            self.tau,
            self.scores,
            groups=self.groups,
            weights=self.weights,
            folds=self.fold,
            method=method,
            n_bootstrap=self.n_bootstrap,
            random_state=self.random_state,
        )


def _of_rate(method: str, *, ratio: bool) -> Metric:
    def metric(judged: Judged) -> tuple[float, float]:
        found = judged.rate(method)
        return (found.ratio, 1.0) if ratio else (found.estimate, found.se)

    return metric


def _blp_slope(judged: Judged) -> tuple[float, float]:
    found = blp(judged.tau, judged.scores, groups=judged.groups, weights=judged.weights, folds=judged.fold)
    return found.slope, found.slope_se


def _gates_difference(judged: Judged) -> tuple[float, float]:
    found = gates(judged.tau, judged.scores, groups=judged.groups, weights=judged.weights, folds=judged.fold)
    return found.difference, found.difference_se


def _truth(judged: Judged) -> FloatArray:
    if judged.truth is None:
        raise ParameterError("a metric of the truth without truth=", todo="pass truth=, or leave the metric out")
    return judged.truth


def _sqrt_pehe(judged: Judged) -> float:
    return float(np.sqrt(np.average((judged.tau - _truth(judged)) ** 2, weights=judged.weights)))


def _correlation(judged: Judged) -> float:
    truth = _truth(judged)
    varies = judged.tau.std() > 0 and truth.std() > 0
    return float(np.corrcoef(judged.tau, truth)[0, 1]) if varies else 0.0


METRICS: dict[str, Metric] = {
    "autoc": _of_rate("autoc", ratio=False),
    "qini": _of_rate("qini", ratio=False),
    "rate_ratio": _of_rate("autoc", ratio=True),
    "qini_ratio": _of_rate("qini", ratio=True),
    "blp_slope": _blp_slope,
    "gates_difference": _gates_difference,
    "sqrt_pehe": _sqrt_pehe,
    "correlation": _correlation,
}


def resolve_metrics(metrics: Any, *, truth: bool) -> dict[str, Metric]:
    """Named functions for words, functions or a mapping; the default ones, with those of the truth where known."""
    if metrics is None:
        metrics = (*DEFAULT_METRICS, *(TRUTH_METRICS if truth else ()))
    if isinstance(metrics, Mapping):
        chosen = {str(name): metric for name, metric in metrics.items()}
    else:
        given = [metrics] if isinstance(metrics, str) or callable(metrics) else list(metrics)
        chosen = {m if isinstance(m, str) else getattr(m, "__name__", "metric"): m for m in given}
    found = {}
    for name, metric in chosen.items():
        if isinstance(metric, str):
            if metric not in METRICS:
                raise ParameterError(f"metric {metric!r}", expected=f"one of {', '.join(METRICS)}, or a function")
            metric = METRICS[metric]
        if not callable(metric):
            raise ParameterError(f"metric {name!r} of type {type(metric).__name__}", expected="a function")
        if not truth and metric in (_sqrt_pehe, _correlation):
            raise ParameterError(f"metric {name!r} without truth=", todo="pass truth=, or leave the metric out")
        found[name] = metric
    if not found:
        raise ParameterError("no metric", expected="at least one")
    return found
