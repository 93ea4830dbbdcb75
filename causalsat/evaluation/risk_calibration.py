"""Calibration of predicted risks: Brier score and calibration by bins, wherever outcomes are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import aligned
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.exceptions import DataError
from causalsat.risk_base import risk

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RiskCalibration", "follow_up_calibration", "risk_calibration"]

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


@aligned("probability", "outcome", "weights")
def risk_calibration(
    probability: ArrayLike, outcome: ArrayLike, *, weights: ArrayLike | None = None, bins: int = 10
) -> RiskCalibration:
    """Compare predicted probabilities with what happened.

    Under selective labels pass the tested units with ``model.risk(X, given="tested")``, and, where outcomes of
    untested units were learned later (an audit, a follow-up survey), those with ``given="untested"``. Measures of
    ranking such as the AUC do not notice risks that are too high or too low everywhere; this does.

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
    p = checks.numbers(probability, "probability")
    y = checks.numbers(outcome, "outcome", len(p))
    given = checks.weights(weights, len(p))
    w = np.ones(len(p)) if given is None else given
    if (p < 0).any() or (p > 1).any():
        raise DataError(f"probabilities from {p.min():g} to {p.max():g}", expected="probabilities between 0 and 1")
    if not np.isin(y, (0.0, 1.0)).all():
        raise DataError(f"outcomes from {y.min():g} to {y.max():g}", expected="0 and 1")
    n_bins = checks.count(bins, "bins", 1)
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


@aligned("X", "treatment", "later", "weights")
def follow_up_calibration(
    model: Any,
    X: Any,
    treatment: ArrayLike,
    later: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    bins: int = 10,
) -> dict[str, RiskCalibration]:
    """Compare a risk model with outcomes that were learned later, separately for the tested and the untested.

    The only direct check of the risks of the untested: a second survey, an audit of uninspected units, or what
    happened in the years after. Given the features, those followed up must be a random sample of their group; weights
    can make them one. A later outcome that is only correlated with the one modelled (harvests of the next year) shows
    whether it rises with the risk, by ``observed`` against ``predicted``, but not whether the level is right.

    Parameters
    ----------
    model : RiskEstimator or Pipeline
        Fitted model.
    X : array, DataFrame, GeoDataFrame or DataArray of n units
        Units, in the form that the model was fitted on.
    treatment : array of shape (n,)
        Who was tested: 1 or 0.
    later : array of shape (n,)
        Outcome at the follow-up, 0 or 1; NaN where there was none.
    weights : array of shape (n,), optional
        Positive survey weights.
    bins : int
        Bins of equal counts.

    Returns
    -------
    dict of str to RiskCalibration
        "tested" and "untested", those that were followed up; :func:`causalsat.plots.plot_risk_calibration` draws it.

    Raises
    ------
    DataError
        If no unit was followed up, or an outcome is neither 0 nor 1.

    References
    ----------
    Balachandar, S., Garg, N. and Pierson, E. (2024). Domain constraints improve risk prediction when outcome data is
    missing. ICLR, section 6.2. arXiv 2312.03878.

    Examples
    --------
    >>> from causalsat import TestedOnlyRisk
    >>> rng = np.random.default_rng(0)
    >>> X, tested = rng.standard_normal((2000, 1)), rng.integers(0, 2, 2000)
    >>> happens = rng.random(2000) < 1 / (1 + np.exp(1 - X[:, 0]))
    >>> model = TestedOnlyRisk(random_state=0).fit(X, np.where(tested, happens, np.nan), treatment=tested)
    >>> audited = rng.random(2000) < 0.5
    >>> found = follow_up_calibration(model, X, tested, np.where(audited, happens, np.nan))
    >>> sorted(found), abs(found["untested"].slope - 1) < 0.3
    (['tested', 'untested'], True)
    """
    outcome = np.asarray(later, dtype=float)
    t = checks.numbers(treatment, "treatment", len(outcome))
    given = checks.weights(weights, len(outcome))
    seen = ~np.isnan(outcome)
    if not seen.any():
        raise DataError("no outcome at the follow-up", expected="0 or 1 for those who were followed up, NaN else")
    found = {}
    for name, group in (("tested", seen & (t == 1)), ("untested", seen & (t == 0))):
        if group.any():
            p = np.asarray(risk(model, X, given=name).mean())[group]
            w = None if given is None else given[group]
            found[name] = risk_calibration(p, outcome[group], weights=w, bins=bins)
    return found


def _slope(p: FloatArray, y: FloatArray, weight: FloatArray) -> float:
    """Coefficient of a logistic regression of the outcome on the predicted logit; NaN where there is none."""
    import statsmodels.api as sm

    logit = np.log(p) - np.log1p(-p)
    if np.ptp(logit) == 0 or np.ptp(y) == 0:
        return float("nan")
    fit: Any = sm.GLM(y, sm.add_constant(logit), family=sm.families.Binomial(), freq_weights=weight).fit()
    return float(fit.params[1])
