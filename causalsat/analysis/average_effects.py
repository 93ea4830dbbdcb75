"""The average effect as an economist would first report it: difference in means and regression, clustered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

__all__ = ["average_effects", "clustered_mean"]

FloatArray = NDArray[np.float64]


def average_effects(
    y: ArrayLike,
    treatment: ArrayLike,
    *,
    covariates: Any = None,
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Difference in means and ordinary least squares with cluster-robust standard errors (statsmodels).

    Parameters
    ----------
    y, treatment : array of shape (n,)
        Outcome and treatment.
    covariates : DataFrame of n rows, optional
        Adjusted for; missing values are replaced by the mean and flagged by an indicator.
    groups : array of shape (n,), optional
        Clusters; heteroscedasticity-robust (HC1) errors without them.
    strata : array of shape (n,), optional
        Fixed effects of the regressions.
    sample_weight : array of shape (n,), optional
        Survey weights.
    level : float
        Level of the confidence intervals.

    Returns
    -------
    DataFrame
        Rows ``difference in means``, ``OLS with covariates`` (where there are any), each with ``estimate, se,
        lower, upper, p_value, n, clusters``.

    Examples
    --------
    >>> table = average_effects([0.0, 1.0, 2.0, 3.0, 4.0, 6.0], [0, 0, 0, 1, 1, 1])
    >>> float(table.loc["difference in means", "estimate"].round(3))
    3.333
    """
    outcome, t = np.asarray(y, dtype=float), np.asarray(treatment, dtype=float)
    base = pd.DataFrame({"treatment": t})
    if strata is not None:
        base = base.join(pd.get_dummies(pd.Series(np.asarray(strata), name="stratum"), drop_first=True, dtype=float))
        base.columns = base.columns.astype(str)
    rows = {"difference in means": _fit(outcome, _with_constant(base), "treatment", groups, sample_weight, level)}
    if covariates is not None and covariates.shape[1]:
        adjusted = base.join(_complete(pd.DataFrame(covariates).astype(float).reset_index(drop=True)))
        rows["OLS with covariates"] = _fit(
            outcome, _with_constant(adjusted), "treatment", groups, sample_weight, level
        )
    return pd.DataFrame(rows).T


def clustered_mean(
    values: ArrayLike, *, groups: ArrayLike | None = None, sample_weight: ArrayLike | None = None, level: float = 0.95
) -> dict[str, float]:
    """Mean with a cluster-robust standard error, such as the mean of doubly robust scores.

    Parameters
    ----------
    values : array of shape (n,)
        One value a unit.
    groups, sample_weight, level
        As in :func:`average_effects`.

    Returns
    -------
    dict
        ``estimate, se, lower, upper, p_value, n, clusters``.

    Examples
    --------
    >>> clustered_mean([1.0, 2.0, 3.0])["estimate"]
    2.0
    """
    numbers = np.asarray(values, dtype=float)
    constant = pd.DataFrame({"mean": np.ones(len(numbers))})
    return _fit(numbers, constant, "mean", groups, sample_weight, level)


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    table.columns = [f"covariate {name}" for name in table.columns]
    missing = table.isna()
    flags = missing.loc[:, missing.any()].astype(float).add_suffix(" missing").T.drop_duplicates().T
    return pd.concat([table.fillna(table.mean()), flags], axis=1)


def _with_constant(X: pd.DataFrame) -> pd.DataFrame:
    return X.assign(constant=1.0)


def _fit(
    y: FloatArray, design: pd.DataFrame, wanted: str, groups: Any, weight: Any, level: float
) -> dict[str, float]:
    import statsmodels.api as sm

    model = sm.OLS(y, design) if weight is None else sm.WLS(y, design, weights=np.asarray(weight, dtype=float))
    if groups is None:
        fit, clusters = model.fit(cov_type="HC1"), len(y)
    else:
        codes, labels = pd.factorize(np.asarray(groups))
        clusters = len(labels)
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    lower, upper = fit.conf_int(1 - level).loc[wanted]
    return {
        "estimate": float(fit.params[wanted]),
        "se": float(fit.bse[wanted]),
        "lower": float(lower),
        "upper": float(upper),
        "p_value": float(fit.pvalues[wanted]),
        "n": len(y),
        "clusters": clusters,
    }
