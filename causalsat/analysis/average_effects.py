"""The average effect as an economist would first report it: difference in means and regression, as designed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import aligned
from causalsat.design import Design, balancing_weights, make_design
from causalsat.design.design import roles_of
from causalsat.inference.average_effects import (
    EffectEstimate,
    blocked_difference,
    fixed_effects,
    interacted_adjustment,
    score_mean,
)

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
    level : float
        Level of the confidence intervals.

    Returns
    -------
    DataFrame
        Rows ``difference in means``, ``OLS with covariates`` (where there are any), ``stratum fixed effects`` (where
        asked for), each with ``estimate, se, lower, upper, p_value, df, n, clusters, estimand``.

    Examples
    --------
    >>> table = average_effects([0.0, 1.0, 2.0, 3.0, 4.0, 6.0], [0, 0, 0, 1, 1, 1])
    >>> round(float(table.loc["difference in means", "estimate"]), 3)
    3.333
    """
    whole = _design(design, treatment, groups, strata, sample_weight, propensity)
    outcome = np.asarray(y, dtype=float)
    blocks = whole.strata if whole.randomised else None
    if blocks is None and whole.randomised:
        weights: Any = balancing_weights(whole) * (1.0 if whole.weights is None else whole.weights)
    else:
        weights = whole.weights
    roles: dict[str, Any] = {"strata": blocks, "clusters": whole.clusters, "weights": weights}
    t = whole.treatment
    rows = {"difference in means": _row(blocked_difference(outcome, t, **roles), level)}
    table = None
    if covariates is not None and np.shape(covariates)[1]:
        table = _complete(pd.DataFrame(covariates).astype(float)).to_numpy()
        adjust = fixed_effects if blocks is None else interacted_adjustment
        rows["OLS with covariates"] = _row(adjust(outcome, t, table, **roles), level)
    if stratum_fixed_effects and blocks is not None:
        rows["stratum fixed effects"] = _row(fixed_effects(outcome, t, table, **roles), level)
    found = pd.DataFrame(rows).T
    if not whole.randomised:
        found["estimand"] = [UNADJUSTED if name == "difference in means" else ADJUSTED for name in found.index]
    return found


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
