"""Calibration of predicted effects: best linear predictor and group average effects.

Chernozhukov, Demirer, Duflo and Fernandez-Val (2025), "Fisher-Schultz lecture: Generic machine learning inference
on heterogeneous treatment effects in randomized experiments", Econometrica 93(4): BLP (their section 2.1) and
GATES (section 2.2), here with doubly robust scores in the place of Horvitz-Thompson transformed outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import aligned
from causalsat.core.svg import intervals_svg
from causalsat.core.tables import Tabular
from causalsat.design import Design
from causalsat.design.design import roles_of
from causalsat.evaluation import checks
from causalsat.exceptions import DataError
from causalsat.inference.average_effects import score_projection
from causalsat.inference.robust import RobustFit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BlpResult", "GatesResult", "blp", "gates"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class BlpResult(Tabular):
    """Best linear predictor of the effect by the predicted effect.

    Attributes
    ----------
    ate, ate_se : float
        Average effect with its cluster-robust standard error.
    slope, slope_se : float
        Heterogeneity loading: 1 where the predicted differences are right on average, 0 where they are noise. The
        standard error allows for predictions that were cross-fitted, where ``folds`` says so.
    p_value : float
        One-sided test of slope <= 0: a small value says that there is heterogeneity and it was found.
    p_value_calibrated : float
        Two-sided test of slope = 1.
    df : float
        Degrees of freedom of the t reference.
    n_units, n_groups : int
        Units and clusters.
    """

    ate: float
    ate_se: float
    slope: float
    slope_se: float
    p_value: float
    p_value_calibrated: float
    df: float
    n_units: int
    n_groups: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the slope: lower, upper."""
        half = _t_quantile(level, self.df) * self.slope_se
        return self.slope - half, self.slope + half

    def to_dataframe(self, level: float = 0.95) -> pd.DataFrame:
        """Table with rows "ATE" and "heterogeneity loading": estimate, se, lower, upper, p_value."""
        import pandas as pd
        from scipy.stats import t

        estimate, se = np.array([self.ate, self.slope]), np.array([self.ate_se, self.slope_se])
        half = _t_quantile(level, self.df) * se
        p_ate = 2 * t.sf(abs(self.ate) / self.ate_se, self.df) if self.ate_se > 0 else np.nan
        columns = {
            "estimate": estimate,
            "se": se,
            "lower": estimate - half,
            "upper": estimate + half,
            "p_value": [p_ate, self.p_value],
        }
        return pd.DataFrame(columns, index=["ATE", "heterogeneity loading"])


@dataclass(frozen=True, eq=False)
class GatesResult(Tabular):
    """Average effects of the units with the lowest to the highest predicted effects.

    Attributes
    ----------
    estimate, se : ndarray of shape (k,)
        Average effect of each group, in increasing order of the predicted effect, cluster-robust.
    predicted : ndarray of shape (k,)
        Mean predicted effect of each group.
    count : ndarray of int of shape (k,)
        Units.
    cov : ndarray of shape (k, k)
        Covariance of the estimates.
    difference, difference_se, difference_p_value : float
        Highest group less lowest; two-sided p-value.
    monotone : bool
        Whether the estimates never decrease.
    trend_p_value : float
        One-sided test that the estimates' linear trend over the groups is not positive.
    df : ndarray of shape (k,)
        Degrees of freedom of the t reference of each group.
    difference_df : float
        Those of the difference.
    group : ndarray of int of shape (n,)
        The group of each unit, 0 the lowest.
    """

    estimate: FloatArray
    se: FloatArray
    predicted: FloatArray
    count: NDArray[np.int64]
    cov: FloatArray
    difference: float
    difference_se: float
    difference_p_value: float
    monotone: bool
    trend_p_value: float
    df: FloatArray
    difference_df: float
    group: NDArray[np.int64]

    def to_dataframe(self, level: float = 0.95) -> pd.DataFrame:
        """Table with one row a group and one for the difference: estimate, se, lower, upper, predicted, n."""
        import pandas as pd

        half = _t_quantile(level, np.append(self.df, self.difference_df))
        estimate = np.append(self.estimate, self.difference)
        se = np.append(self.se, self.difference_se)
        columns = {
            "estimate": estimate,
            "se": se,
            "lower": estimate - half * se,
            "upper": estimate + half * se,
            "predicted": np.append(self.predicted, self.predicted[-1] - self.predicted[0]),
            "n": np.append(self.count, self.count[0] + self.count[-1]),
        }
        labels = [f"G{i + 1}" for i in range(len(self.estimate))] + [f"G{len(self.estimate)} - G1"]
        return pd.DataFrame(columns, index=pd.Index(labels, name="group"))

    def _picture(self) -> str:
        table = self.to_dataframe()
        title = "Average effect of each group with its 95 % interval; hollow dots are the predicted effects"
        drawn = (list(table.index), table["estimate"], table["lower"], table["upper"])
        return intervals_svg(*drawn, title=title, axis="average effect", before=table["predicted"])


@aligned("tau", "scores", "groups", "weights", "folds")
def blp(
    tau: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    design: Design | None = None,
) -> BlpResult:
    """Regress doubly robust scores on a constant and the centred predicted effect, cluster-robust (CR2).

    Parameters
    ----------
    tau : array of shape (n,)
        Predicted effects from other folds.
    scores : array of shape (n,)
        Doubly robust scores.
    groups : array of shape (n,), optional
        Clusters.
    folds : array of shape (n,), optional
        The fold in which each unit was held out: predictions are centred in their fold, so that the slope is
        about differences that one and the same model predicts.
    weights : array of shape (n,), optional
        Positive survey weights.
    design : Design, optional
        Clusters (pairs as a whole) and weights in one object, such as ``study.design``.

    Returns
    -------
    BlpResult
        Average effect, slope and tests.

    Raises
    ------
    DataError
        If an input cannot be used, or the predictions are constant (there is no slope).

    Notes
    -----
    Without ``folds`` the inference takes the predictions as given: from other data. With ``folds`` they are
    cross-fitted on the units that are scored, and each pair of units from two folds enters the slope twice: by its
    prediction and by its score. Without heterogeneity the slope's variance is then twice that of given predictions
    (of a learner that weighs a pair alike both ways, as regressions do), and the standard error is multiplied by the
    square root of 2. Where predictions are mostly right it is conservative. Coverage: ``benchmarks/RESULTS.md``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tau = rng.standard_normal(5000)
    >>> result = blp(2 * tau, 1 + tau + rng.standard_normal(5000))
    >>> round(result.slope, 1), round(result.ate, 1)
    (0.5, 1.0)
    """
    given = roles_of(design, {"groups": groups, "weights": weights})
    prediction, gamma, cluster, fold, w = _inputs_of(tau, scores, given["groups"], folds, given["weights"])
    n_groups = checks.several(cluster)
    mass = np.bincount(fold, w)
    centred = prediction - (np.bincount(fold, w * prediction) / np.where(mass > 0, mass, 1))[fold]
    spread = float(np.sqrt(np.average(centred**2, weights=w)))
    if spread <= 1e-10 * max(float(np.abs(prediction).max()), 1e-300):
        raise DataError(
            "predicted effects that do not differ within folds",
            expected="predictions that vary",
            todo="report that the model found no heterogeneity: there is nothing to calibrate",
        )
    regressors = np.column_stack([np.ones(len(gamma)), centred / spread])
    found = _projected(gamma, regressors, w, None if given["groups"] is None else cluster, design)
    df = float(found.df[1])
    widening = 1.0 if folds is None else checks.CROSSFIT_WIDENING
    slope, slope_se = found.estimate[1] / spread, widening * found.se[1] / spread
    return BlpResult(
        ate=float(found.estimate[0]),
        ate_se=float(found.se[0]),
        slope=float(slope),
        slope_se=float(slope_se),
        p_value=_upper_tail(float(slope), float(slope_se), df),
        p_value_calibrated=_two_sided(float(slope) - 1, float(slope_se), df),
        df=df,
        n_units=len(gamma),
        n_groups=n_groups,
    )


@aligned("tau", "scores", "groups", "weights", "folds")
def gates(
    tau: ArrayLike,
    scores: ArrayLike,
    *,
    n_groups: int = 5,
    groups: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    design: Design | None = None,
) -> GatesResult:
    """Average effects by quantile group of the predicted effect, cluster-robust.

    Groups are formed within folds by weighted mid-ranks, so that units of equal prediction stay together. With
    ``folds`` the standard errors of the difference and of the trend allow for cross-fitting, as :func:`blp` does.

    Parameters
    ----------
    tau, scores, groups, folds, weights, design :
        As in :func:`blp`.
    n_groups : int
        Number of groups, 5 for quintiles.

    Returns
    -------
    GatesResult
        Estimates, difference of the extreme groups, trend.

    Raises
    ------
    DataError, ParameterError
        If an input cannot be used, or ties leave a group empty.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tau = rng.uniform(size=5000)
    >>> result = gates(tau, tau + 0.1 * rng.standard_normal(5000))
    >>> result.estimate.round(1), result.monotone
    (array([0.1, 0.3, 0.5, 0.7, 0.9]), True)
    """
    given = roles_of(design, {"groups": groups, "weights": weights})
    prediction, gamma, cluster, fold, w = _inputs_of(tau, scores, given["groups"], folds, given["weights"])
    checks.several(cluster)
    k = checks.count(n_groups, "n_groups", 2)
    rank = checks.within_fold_rank(prediction, fold, w)
    group = np.minimum((rank * k).astype(np.int64), k - 1)
    count = np.bincount(group, minlength=k)
    if (count == 0).any():
        raise DataError(
            f"group {int(np.flatnonzero(count == 0)[0]) + 1} of {k} is empty: too many units of equal prediction",
            expected="predictions that differ between the groups",
            todo="take fewer groups (n_groups)",
        )
    membership = (group[:, None] == np.arange(k)).astype(float)
    gap = np.zeros(k)
    gap[[0, -1]] = -1.0, 1.0
    contrasts = np.column_stack([np.eye(k), gap, np.arange(k, dtype=float) - (k - 1) / 2])
    given_groups = None if given["groups"] is None else cluster
    found = _projected(gamma, membership, w, given_groups, design, contrasts)
    estimate, difference, trend = found.estimate[:k], float(found.estimate[k]), float(found.estimate[k + 1])
    widening = 1.0 if folds is None else checks.CROSSFIT_WIDENING
    difference_se, trend_se = (widening * float(found.se[j]) for j in (k, k + 1))
    return GatesResult(
        estimate=estimate,
        se=found.se[:k],
        predicted=np.bincount(group, w * prediction) / np.bincount(group, w),
        count=count,
        cov=found.cov[:k, :k],
        difference=difference,
        difference_se=difference_se,
        difference_p_value=_two_sided(difference, difference_se, float(found.df[k])),
        monotone=bool((np.diff(estimate) >= 0).all()),
        trend_p_value=_upper_tail(trend, trend_se, float(found.df[k + 1])),
        df=found.df[:k],
        difference_df=float(found.df[k]),
        group=group,
    )


def _inputs_of(
    tau: ArrayLike, scores: ArrayLike, groups: ArrayLike | None, folds: ArrayLike | None, weights: ArrayLike | None
) -> tuple[FloatArray, FloatArray, NDArray[np.int64], NDArray[np.int64], FloatArray]:
    prediction = checks.numbers(tau, "tau")
    n = len(prediction)
    gamma = checks.numbers(scores, "scores", n)
    fold = np.zeros(n, dtype=np.int64) if folds is None else checks.codes(folds, n, "folds")
    w = checks.weights(weights, n)
    return prediction, gamma, checks.codes(groups, n), fold, np.ones(n) if w is None else w


def _projected(
    scores: FloatArray,
    regressors: FloatArray,
    weight: FloatArray,
    clusters: NDArray[np.int64] | None,
    design: Design | None,
    contrast: FloatArray | None = None,
) -> RobustFit:
    """Scores on regressors with the variance of the design; standard errors of 0 where rounding made them."""
    fixed = design is not None and design.arms_were_fixed
    roles = {"treatment": design.treatment, "strata": design.strata} if design is not None and fixed else {}
    found = score_projection(scores, regressors, clusters=clusters, weights=weight, contrast=contrast, **roles)
    noise = np.sqrt(np.abs(np.diag(found.cov))) <= 1e-12 * float(np.abs(scores).max())
    return replace(found, cov=np.where(noise[:, None] | noise, 0.0, found.cov))


def _t_quantile(level: float, df: Any) -> Any:
    from scipy.stats import t

    return t.ppf(0.5 + checks.level(level) / 2, df)


def _upper_tail(estimate: float, se: float, df: float) -> float:
    from scipy.stats import t

    return float(t.sf(estimate / se, df)) if se > 0 else float("nan")


def _two_sided(estimate: float, se: float, df: float) -> float:
    from scipy.stats import t

    return float(2 * t.sf(abs(estimate) / se, df)) if se > 0 else float("nan")
