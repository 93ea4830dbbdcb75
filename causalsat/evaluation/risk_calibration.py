"""Whether predicted risks come true: Brier score and calibration by bins, wherever outcomes are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat._tables import Tabular
from causalsat.evaluation import _checks
from causalsat.exceptions import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RiskCalibration", "risk_calibration"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RiskCalibration(Tabular):
    """Predicted against observed shares in bins of about equal counts.

    Attributes
    ----------
    brier : float
        Mean squared difference of probability and outcome; lower is better.
    log_loss : float
        Mean negative log likelihood.
    calibration_error : float
        Mean absolute gap between predicted and observed share, weighted by the bins' weights.
    slope : float
        Coefficient of the outcome's logit on the predicted logit: 1 is calibrated, below 1 is overconfident (Cox
        1958).
    predicted, observed, se, share : ndarray of shape (bins,)
        Mean probability, share of events, its binomial standard error, and share of the units in each bin.
    n_units : int
        Units.
    """

    brier: float
    log_loss: float
    calibration_error: float
    slope: float
    predicted: FloatArray
    observed: FloatArray
    se: FloatArray
    share: FloatArray
    n_units: int

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row a bin: predicted, observed, se, share."""
        import pandas as pd

        return pd.DataFrame({name: getattr(self, name) for name in ("predicted", "observed", "se", "share")})


def risk_calibration(
    probability: ArrayLike, outcome: ArrayLike, *, weights: ArrayLike | None = None, bins: int = 10
) -> RiskCalibration:
    """Compare predicted probabilities with what happened.

    Under selective labels pass the tested units with ``model.risk(X, given="tested")``, and, where outcomes of
    untested units were learnt later (an audit, a follow-up survey), those with ``given="untested"``. Ranking measures
    such as the AUC do not notice risks that are too high or too low everywhere; this does.

    Parameters
    ----------
    probability : array of shape (n,)
        Predicted probabilities of the event, strictly between 0 and 1 for a finite log loss.
    outcome : array of shape (n,)
        0 or 1.
    weights : array of shape (n,), optional
        Positive survey weights.
    bins : int
        Bins of equal counts; equal probabilities stay together, so there may be fewer.

    Returns
    -------
    RiskCalibration
        Scores and the table of the reliability curve.

    Raises
    ------
    DataError
        If a probability is outside [0, 1], or an outcome is neither 0 nor 1.

    References
    ----------
    Cox, D. R. (1958). Two further applications of a model for binary regression. Biometrika 45. Murphy, A. H. and
    Winkler, R. L. (1977). Reliability of subjective probability forecasts. Applied Statistics 26.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(0.05, 0.95, 5000)
    >>> found = risk_calibration(p, rng.random(5000) < p)
    >>> found.calibration_error < 0.03, abs(found.slope - 1) < 0.1
    (True, True)
    """
    p = _checks.numbers(probability, "probability")
    y = _checks.numbers(outcome, "outcome", len(p))
    given = _checks.weights(weights, len(p))
    w = np.ones(len(p)) if given is None else given
    if (p < 0).any() or (p > 1).any():
        raise DataError(f"probabilities from {p.min():g} to {p.max():g}", expected="probabilities between 0 and 1")
    if not np.isin(y, (0.0, 1.0)).all():
        raise DataError(f"outcomes from {y.min():g} to {y.max():g}", expected="0 and 1")
    n_bins = _checks.count(bins, "bins", 1)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, n_bins + 1)[1:-1]))
    place = np.searchsorted(edges, p, side="left")
    mass = np.bincount(place, w)
    keep = mass > 0
    predicted, observed = (np.bincount(place, w * v)[keep] / mass[keep] for v in (p, y))
    effective = mass[keep] ** 2 / np.bincount(place, w**2)[keep]
    inside = np.clip(p, np.finfo(float).eps, 1 - np.finfo(float).eps)
    return RiskCalibration(
        brier=float(np.average((p - y) ** 2, weights=w)),
        log_loss=float(-np.average(y * np.log(inside) + (1 - y) * np.log1p(-inside), weights=w)),
        calibration_error=float(np.average(np.abs(predicted - observed), weights=mass[keep])),
        slope=_slope(inside, y, w),
        predicted=predicted,
        observed=observed,
        se=np.sqrt(observed * (1 - observed) / effective),
        share=mass[keep] / w.sum(),
        n_units=len(p),
    )


def _slope(p: FloatArray, y: FloatArray, weight: FloatArray) -> float:
    """Coefficient of a logistic regression of the outcome on the predicted logit; NaN where there is none."""
    import statsmodels.api as sm

    logit = np.log(p) - np.log1p(-p)
    if np.ptp(logit) == 0 or np.ptp(y) == 0:
        return float("nan")
    fit: Any = sm.GLM(y, sm.add_constant(logit), family=sm.families.Binomial(), freq_weights=weight).fit()
    return float(fit.params[1])
