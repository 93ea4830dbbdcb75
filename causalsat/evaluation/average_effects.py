"""The average effect as an economist would first report it: difference in means and regression, as designed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import aligned, check_feature_magnitudes, check_magnitude
from causalsat.core.warn import warn
from causalsat.design import Design, balancing_weights, make_design
from causalsat.design.design import roles_of
from causalsat.exceptions import DataError, DataWarning
from causalsat.inference.average_effects import (
    COMMON_SLOPES,
    NO_SLOPES,
    SLOPES_BY_ARM,
    EffectEstimate,
    blocked_difference,
    fixed_effects,
    interacted_adjustment,
    lay_out,
    score_mean,
)
from causalsat.inference.conley import conley_covariance, lon_lat

__all__ = ["average_effects", "clustered_mean", "score_average"]

FloatArray = NDArray[np.float64]

UNADJUSTED = "association: arms differ by more than the treatment"
ADJUSTED = "average effect, if the covariates hold every confounder"


@aligned("y", "treatment", "covariates", "groups", "strata", "sample_weight")
def average_effects(
    y: ArrayLike,
    treatment: ArrayLike | None = None,
    *,
    covariates: Any = None,
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    propensity: ArrayLike | float | None = None,
    design: Design | None = None,
    stratum_fixed_effects: bool = False,
    conley_km: float | Sequence[float] | None = None,
    places: Any = None,
    conley_kernel: str = "bartlett",
    level: float = 0.95,
) -> pd.DataFrame:
    """Difference in means and regression, with the standard errors of the design; every row names its estimand.

    With strata the difference is taken within them and averaged by their size, and the regression has the strata and
    covariates interacted with the treatment (Lin 2013), so that both estimate the average effect. Standard errors
    are bias-reduced (CR2; HC2 without clusters) with Satterthwaite degrees of freedom, and clustered on the stratum
    where strata hold one cluster an arm (:mod:`causalsat.inference.average_effects`).

    Parameters
    ----------
    y, treatment : array of shape (n,)
        Outcome and 0/1 treatment.
    covariates : DataFrame of n rows, optional
        Adjusted for; missing values are replaced by the mean and flagged by an indicator.
    groups, strata, sample_weight : array of shape (n,), optional
        Clusters, strata and survey weights.
    propensity : array of shape (n,) or float, optional
        The design's probability of treatment; where it differs and there are no strata, arms are weighted by its
        inverse.
    design : Design, optional
        All of these roles in one object, such as ``study.design``.
    stratum_fixed_effects : bool
        Add the regression with stratum fixed effects, which weights strata by N e (1 - e).
    conley_km : float or sequence of float, optional
        Add rows with Conley (1999) standard errors, one for each cutoff distance in kilometres: the same estimates,
        whose errors may be correlated between places that are nearer than that. Clusters count as at one place, the
        mean of their units'. Several distances show how much the standard error depends on the choice. There is no
        small-sample correction, and the reference is the normal distribution.
    places : GeoDataFrame, GeoSeries or array of shape (n, 2), optional
        Places of the units, such as ``study.units``, or longitude and latitude in degrees; in the order of y.
    conley_kernel : {"bartlett", "uniform"}
        Weight of a pair at distance d: ``1 - d / conley_km``, or 1.
    level : float
        Level of the confidence intervals.

    Returns
    -------
    DataFrame
        Rows ``difference in means``, ``OLS with covariates`` (where there are any), ``stratum fixed effects`` (where
        asked for), and the first two again with ``, Conley 50 km`` after their name, each with
        ``estimate, se, lower, upper, p_value, df, n, clusters, estimand``.

    Examples
    --------
    >>> table = average_effects([0.0, 1.0, 2.0, 3.0, 4.0, 6.0], [0, 0, 0, 1, 1, 1])
    >>> round(float(table.loc["difference in means", "estimate"]), 3)
    3.333
    """
    whole = _design(design, treatment, groups, strata, sample_weight, propensity)
    outcome = np.asarray(y, dtype=float)
    check_magnitude(outcome, "the outcome y")
    blocks = whole.strata if whole.randomised else None
    if blocks is None and whole.randomised:
        weights: Any = balancing_weights(whole) * (1.0 if whole.weights is None else whole.weights)
    else:
        weights = whole.weights
    roles: dict[str, Any] = {"strata": blocks, "clusters": whole.clusters, "weights": weights}
    t = whole.treatment
    difference = blocked_difference(outcome, t, **roles)
    rows = {"difference in means": _row(difference, level)}
    table = None
    if covariates is not None and np.shape(covariates)[1]:
        columns = _complete(pd.DataFrame(covariates).astype(float))
        table = columns.to_numpy()
        check_feature_magnitudes(table, columns.columns)
        adjust = fixed_effects if blocks is None else interacted_adjustment
        adjusted = adjust(outcome, t, table, **roles)
        rows["OLS with covariates"] = _row(adjusted, level)
    if stratum_fixed_effects and blocks is not None:
        rows["stratum fixed effects"] = _row(fixed_effects(outcome, t, table, **roles), level)
    if conley_km is not None:
        fits: dict[str, tuple[EffectEstimate, Any]] = {"difference in means": (difference, None)}
        if table is not None:
            fits["OLS with covariates"] = (adjusted, table)
        where = lon_lat(places, len(outcome)) if places is not None else _no_places()
        for km in np.atleast_1d(np.asarray(conley_km, dtype=float)):
            for name, (fit, x) in fits.items():
                psi = _influence(outcome, t, x, fit, roles)
                if psi is not None:
                    cov = conley_covariance(
                        psi[:, None], where, float(km), kernel=conley_kernel, clusters=whole.clusters
                    )
                    rows[f"{name}, Conley {km:g} km"] = _row(_with_variance(fit, float(cov[0, 0]), km), level)
    found = pd.DataFrame(rows).T
    if not whole.randomised:
        found["estimand"] = [UNADJUSTED if name == "difference in means" else ADJUSTED for name in found.index]
    return found


def _no_places() -> Any:
    raise DataError(
        "conley_km without places",
        expected="places=: the units' geometry, or longitude and latitude of shape (n, 2)",
        todo="average_effects(study.y, design=study.design, places=study.units, conley_km=50)",
    )


def _influence(
    y: FloatArray, t: FloatArray, x: FloatArray | None, fit: EffectEstimate, roles: dict[str, Any]
) -> FloatArray | None:
    """Influence of each unit on the estimate, (n,), by the regression that it is; None where it is several."""
    layout = lay_out(t, **roles)
    cell = np.unique(2 * layout.stratum + layout.arm, return_inverse=True)[1]
    used, arm, weight = layout.used, layout.arm.astype(float), layout.weight
    indicators = (cell[:, None] == np.arange(cell.max() + 1)).astype(float)
    share = np.bincount(layout.stratum, weight) / weight.sum()
    columns, contrast = [indicators], np.stack([-share, share], axis=1).ravel()
    if x is not None and fit.slopes in (COMMON_SLOPES, SLOPES_BY_ARM) and not layout.fine.any():
        centred = x[used] - np.average(x[used], axis=0, weights=weight)
        columns += (
            [centred] if fit.slopes == COMMON_SLOPES else [centred * (1 - arm[:, None]), centred * arm[:, None]]
        )
    elif x is not None and fit.slopes != NO_SLOPES:
        return None
    X = np.hstack(columns)
    gram = (weight[:, None] * X).T @ X
    b = np.linalg.pinv(gram, hermitian=True)[:, : len(contrast)] @ contrast
    own = weight * (X @ b)
    if abs(own @ y[used] - fit.estimate) > 1e-6 * (abs(fit.estimate) + y[used].std() + 1e-300):
        return None
    coef = np.linalg.lstsq(np.sqrt(weight)[:, None] * X, np.sqrt(weight) * y[used], rcond=None)[0]
    out = np.zeros(len(y))
    out[used] = own * (y[used] - X @ coef)
    return out


def _with_variance(fit: EffectEstimate, variance: float, km: float) -> EffectEstimate:
    if variance <= 0:
        warn(
            f"the Conley variance at {km:g} km is not positive: its standard error is NaN; take another distance",
            DataWarning,
        )
    return replace(fit, se=float(np.sqrt(variance)) if variance > 0 else float("nan"), df=float("inf"))


def clustered_mean(
    values: ArrayLike, *, groups: ArrayLike | None = None, sample_weight: ArrayLike | None = None, level: float = 0.95
) -> dict[str, Any]:
    """Mean with a cluster-robust standard error.

    Parameters
    ----------
    values : array of shape (n,)
        One value a unit.
    groups, sample_weight, level
        As in :func:`average_effects`.

    Returns
    -------
    dict
        ``estimate, se, lower, upper, p_value, df, n, clusters, estimand``.

    Examples
    --------
    >>> round(clustered_mean([1.0, 2.0, 3.0])["estimate"], 6)
    2.0
    """
    return _row(score_mean(values, clusters=groups, weights=sample_weight), level)


def score_average(scores: ArrayLike, design: Design, level: float = 0.95) -> dict[str, Any]:
    """Mean of doubly robust scores with the standard error of the design: as :func:`clustered_mean`.

    Parameters
    ----------
    scores : array of shape (n,)
        Doubly robust scores.
    design : Design
        What was assigned to whom.
    level : float
        Level of the confidence interval.

    Examples
    --------
    >>> row = score_average([1.0, 2.0, 3.0, 2.0], make_design([0, 1, 0, 1]))
    >>> row["estimate"], row["estimand"]
    (2.0, 'average effect')
    """
    return _row(score_estimate(scores, design), level)


def score_estimate(scores: ArrayLike, design: Design) -> EffectEstimate:
    """Mean of doubly robust scores: centred within arms (of strata) where their numbers were fixed by the design."""
    fixed = design.arms_were_fixed
    roles = {"treatment": design.treatment, "strata": design.strata} if fixed else {}
    return score_mean(scores, clusters=design.clusters, weights=design.weights, **roles)


def _design(
    design: Design | None, treatment: Any, groups: Any, strata: Any, sample_weight: Any, propensity: Any
) -> Design:
    given = {"treatment": treatment, "groups": groups, "strata": strata}
    given = roles_of(design, {**given, "sample_weight": sample_weight, "propensity": propensity})
    return make_design(given.pop("treatment"), **given) if design is None else design


def _row(found: EffectEstimate, level: float) -> dict[str, Any]:
    lower, upper = found.interval(level)
    return {
        "estimate": found.estimate,
        "se": found.se,
        "lower": lower,
        "upper": upper,
        "p_value": found.p_value,
        "df": found.df,
        "n": found.n,
        "clusters": found.clusters,
        "estimand": found.estimand,
    }


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    missing = table.isna()
    flags = missing.loc[:, missing.any()].astype(float).add_suffix(" missing").T.drop_duplicates().T
    return pd.concat([table.fillna(table.mean()), flags], axis=1)
