r"""Effects on an outcome that a model predicted: corrected by a measured subset, or by a calibration.

Predictions of a model that minimises squared error shrink towards their mean, and so do differences between arms.
With the outcome y measured for a random subset (L = 1, with probability ``pi``), the outcome

``y* = lambda f + r + (L / pi) (y - lambda f - r)``,   r the measured mean of ``y - lambda f`` of the unit's arm,

has in each arm the expectation of y, whatever the prediction f is worth. Its difference in means is the
prediction-powered estimate (PPI++); lambda, of each arm, makes its variance smallest, so that useless predictions
(lambda = 0) cost nothing. As an outcome, ``y*`` may be handed to whatever takes outcomes: models of conditional
effects, GATES, doubly robust scores.

References
----------
Angelopoulos, Bates, Fannjiang, Jordan and Zrnic (2023), "Prediction-powered inference", Science 382.
Angelopoulos, Duchi and Zrnic (2023), "PPI++: efficient prediction-powered inference", arXiv 2311.01453.
"Debiasing machine learning predictions for causal inference without additional ground truth data" (2025), arXiv
2508.01341.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import aligned
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.average_effects import EffectEstimate, blocked_difference
from causalsat.inference.predicted import corrected_outcome, label_probabilities
from causalsat.inference.robust import least_squares, t_interval

__all__ = ["LinearCalibration", "PredictionPowered", "linear_calibration", "prediction_powered"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MIN_LABELLED = 3  # clusters (units) of an arm: one for the mean, one for lambda, one for the variance


# ---------------------------------------------------------------------- results
@dataclass(frozen=True, eq=False)
class PredictionPowered(Tabular):
    """An average effect on an outcome that a model predicted.

    Attributes
    ----------
    estimate, se, lower, upper, df : float
        Corrected effect, its standard error, interval and degrees of freedom.
    level : float
        Level of the intervals.
    uncorrected, labelled_only : EffectEstimate or None
        Differences in means of the predictions, and of the measured outcomes alone.
    lam : tuple of float
        lambda of control and of treated units; 1 and 1 under a calibration.
    n, n_labelled : int
        Units, and those with a measured outcome.
    outcome : ndarray of shape (n,)
        ``y*``, or the calibrated prediction.
    method : str
        ``"prediction-powered"`` or ``"linear calibration"``.
    """

    estimate: float
    se: float
    lower: float
    upper: float
    df: float
    level: float
    uncorrected: EffectEstimate
    labelled_only: EffectEstimate | None
    lam: tuple[float, float]
    n: int
    n_labelled: int
    outcome: FloatArray
    method: str

    def to_dataframe(self) -> pd.DataFrame:
        """Rows of the corrected estimate, the predictions as they are, and the measured units only."""
        rows = {f"corrected ({self.method})": [self.estimate, self.se, self.lower, self.upper]}
        others = {"predictions, uncorrected": self.uncorrected, "measured units only": self.labelled_only}
        for name, fit in others.items():
            if fit is not None:
                rows[name] = [fit.estimate, fit.se, *fit.interval(self.level)]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "se", "lower", "upper"])
        table.index.name = "method"
        return table


@dataclass(frozen=True)
class LinearCalibration:
    """Line of predictions on the truth, ``E[f | y] = intercept + slope y``.

    Attributes
    ----------
    intercept, slope : float
        Of the line; a slope below 1 is shrinkage.
    slope_se : float
        Standard error of the slope.
    n : int
        Units of the calibration.
    """

    intercept: float
    slope: float
    slope_se: float
    n: int


def linear_calibration(
    predicted: ArrayLike, truth: ArrayLike, *, groups: ArrayLike | None = None
) -> LinearCalibration:
    """Line of held-out predictions on the truth, from data on which the model that predicts was not trained.

    Parameters
    ----------
    predicted, truth : array of shape (n,)
        Predictions, and what they predict.
    groups : array of shape (n,), optional
        Clusters of the standard error.

    Examples
    --------
    >>> truth = np.arange(8.0)
    >>> found = linear_calibration(1 + 0.5 * truth + [0.1, -0.1, -0.1, 0.1, 0.1, -0.1, -0.1, 0.1], truth)
    >>> round(found.slope, 3), found.n
    (0.5, 8)
    """
    f, y = checks.numbers(predicted, "predictions"), checks.numbers(truth, "true outcomes", np.size(predicted))
    if len(y) < 4 or np.ptp(y) == 0:
        raise DataError(f"a calibration on {len(y)} units", expected="four or more, whose true outcomes differ")
    codes = inputs.check_groups(groups, len(y))
    fit = least_squares(f, np.column_stack([np.ones(len(y)), y]), clusters=codes, icc=None)
    return LinearCalibration(float(fit.estimate[0]), float(fit.estimate[1]), float(fit.se[1]), len(y))


# ---------------------------------------------------------------------- the estimate
@aligned("predicted", "labelled", "treatment", "groups", "strata", "weights", "probability")
def prediction_powered(
    predicted: ArrayLike,
    labelled: ArrayLike | None = None,
    treatment: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    *,
    strata: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    probability: ArrayLike | float | None = None,
    calibration: LinearCalibration | None = None,
    lam: float | None = None,
    level: float = 0.95,
) -> PredictionPowered:
    """Average effect on an outcome that a model predicted, corrected by a measured subset or a calibration.

    Parameters
    ----------
    predicted : array of shape (n,)
        Predicted outcome of every unit, from a model that was not trained on these units' measured outcomes.
    labelled : array of shape (n,), optional
        Measured outcome, NaN where not measured. Units to be measured were drawn at random, within arms or overall.
    treatment : array of shape (n,)
        0/1 treatment.
    groups, strata, weights : array of shape (n,), optional
        Clusters, strata of the randomisation, survey weights.
    probability : float or array of shape (n,), optional
        Probability with which each unit was drawn to be measured, where it differs between units; default: the
        measured share of each arm.
    calibration : LinearCalibration, optional
        In the place of measured outcomes: the effect on predictions is divided by the slope, whose standard error is
        carried on. It holds if predictions depend on the arm only through the outcome.
    lam : float, optional
        Weight of the predictions; by default, in each arm, the one with the smallest variance.
    level : float
        Level of the interval.

    Returns
    -------
    PredictionPowered

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If an input cannot be used, or there are neither measured outcomes nor a calibration.

    Examples
    --------
    Predictions that halve every difference, and every fifth outcome measured:

    >>> rng = np.random.default_rng(0)
    >>> t = np.arange(4000) % 2
    >>> y = t + rng.standard_normal(4000)
    >>> f = 0.5 * y + 0.1 * rng.standard_normal(4000)
    >>> found = prediction_powered(f, np.where(rng.random(4000) < 0.2, y, np.nan), t)
    >>> round(found.uncorrected.estimate, 1), round(found.estimate, 1), bool(found.labelled_only.se > 1.5 * found.se)
    (0.5, 1.0, True)
    """
    level = checks.level(level)
    f = checks.numbers(predicted, "predictions")
    n = len(f)
    if treatment is None:
        raise ParameterError("no treatment", expected="treatment= of shape (n,)")
    if (labelled is None) == (calibration is None):
        raise ParameterError(
            "neither labelled= nor calibration=" if labelled is None else "labelled= and calibration=",
            expected="one of them",
            todo="measure the outcome of a random subset, or calibrate: linear_calibration(predicted, truth)",
        )
    t = inputs.check_treatment(np.asarray(treatment), n, binary=True)
    roles: dict[str, Any] = {"strata": strata, "clusters": inputs.check_groups(groups, n)}
    roles["weights"] = None if weights is None else inputs.check_weights(weights, n)
    uncorrected = blocked_difference(f, t, **roles)
    if calibration is not None:
        return _calibrated(f, calibration, uncorrected, level)
    y = inputs.outcome_column(labelled, n).astype(float)
    inputs.check_magnitude(y, "labelled")
    seen = np.isfinite(y)
    w = np.ones(n) if weights is None else roles["weights"]
    cluster = np.arange(n) if groups is None else roles["clusters"]
    pi = label_probabilities(probability, seen, t, w)
    _check_labelled(seen & (w > 0), t, cluster)
    star, used = corrected_outcome(f, y, t, pi, w, cluster, lam)
    fit = _few_labels(blocked_difference(star, t, **roles), star, f, t, seen & (w > 0), cluster, lam is None)
    lower, upper = fit.interval(level)
    own = seen & (w > 0)
    roles = {k: None if v is None else np.asarray(v)[own] for k, v in roles.items()}
    roles["weights"] = (w / pi)[own]
    only = blocked_difference(y[own], t[own], **{**roles, "strata": None})
    return PredictionPowered(
        estimate=fit.estimate,
        se=fit.se,
        lower=lower,
        upper=upper,
        df=fit.df,
        level=level,
        uncorrected=uncorrected,
        labelled_only=only,
        lam=used,
        n=n,
        n_labelled=int(own.sum()),
        outcome=star,
        method="prediction-powered",
    )


def _check_labelled(seen: Any, t: FloatArray, cluster: IntArray) -> None:
    count = [len(np.unique(cluster[seen & (t == arm)])) for arm in (0, 1)]
    if min(count) < MIN_LABELLED:
        raise DataError(
            f"measured outcomes in {count[1]} treated and {count[0]} control clusters (or units)",
            expected=f"at least {MIN_LABELLED} in each arm",
            todo="measure more, or use a calibration=",
        )


def _few_labels(
    fit: EffectEstimate,
    star: FloatArray,
    f: FloatArray,
    t: FloatArray,
    seen: Any,
    cluster: IntArray,
    tuned: bool,
) -> EffectEstimate:
    """Standard error and degrees of freedom that allow for a mean and a lambda estimated on few measured clusters."""
    lost = 2 if tuned else 1
    count = np.array([len(np.unique(cluster[seen & (t == arm)])) for arm in (0, 1)], dtype=float)
    total = np.array([len(np.unique(cluster[t == arm])) for arm in (0, 1)], dtype=float)
    wider = float(np.max((count / np.maximum(count - lost, 1)) * (total - 1) / total))
    df = min(fit.df, float((count - lost).sum())) if np.isfinite(fit.df) else fit.df
    return replace(fit, se=fit.se * np.sqrt(max(wider, 1.0)), df=df)


def _calibrated(f: FloatArray, line: LinearCalibration, fit: EffectEstimate, level: float) -> PredictionPowered:
    """Effect on predictions over the slope; delta method."""
    if not abs(line.slope) > 2 * line.slope_se:
        raise DataError(
            f"a calibration of slope {line.slope:.3g} with standard error {line.slope_se:.3g}",
            expected="a slope that differs from zero by more than two standard errors",
            todo="calibrate on more units: predictions that hardly follow the outcome cannot be corrected",
        )
    estimate = fit.estimate / line.slope
    se = float(np.hypot(fit.se / line.slope, estimate * line.slope_se / line.slope))
    lower, upper = t_interval(estimate, se, fit.df, level)
    return PredictionPowered(
        estimate=estimate,
        se=se,
        lower=float(lower),
        upper=float(upper),
        df=fit.df,
        level=level,
        uncorrected=fit,
        labelled_only=None,
        lam=(1.0, 1.0),
        n=len(f),
        n_labelled=0,
        outcome=(f - line.intercept) / line.slope,
        method="linear calibration",
    )
