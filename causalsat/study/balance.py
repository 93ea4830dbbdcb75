"""Whether the arms were alike before treatment: differences of means, with cluster-robust tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler
from causalsat.core.names import list_names
from causalsat.study.report import Finding

__all__ = ["balance", "standardised_differences"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LARGE_DIFFERENCE = 0.25  # standard deviations; Imbens and Rubin (2015), section 14.2


def standardised_differences(X: pd.DataFrame, t: FloatArray, groups: Any = None, blocks: Any = None) -> pd.DataFrame:
    """Differences of the arms in each covariate, with cluster-robust tests.

    The standardised difference is that of Imbens and Rubin (2015), equation 14.1: the difference in means over the
    square root of the mean of the two arms' variances. The p-value is that of the treatment in a regression of the
    covariate on it, with standard errors clustered on ``groups`` (CR1, as statsmodels computes it) and t with one
    degree of freedom fewer than clusters. Within ``blocks`` the difference is that of the regression with fixed
    effects.

    Parameters
    ----------
    X : DataFrame of shape (n, p)
        Numeric covariates; missing values are left out column by column.
    t : ndarray of shape (n,)
        Treatment, 0 or 1.
    groups : array of shape (n,), optional
        Clusters.
    blocks : array of shape (n,), optional
        Strata, or whatever treatment was assigned within.

    Returns
    -------
    DataFrame
        Index is the covariate; ``treated``, ``control`` (means), ``difference`` (standardised), ``p_value``.

    Examples
    --------
    >>> X = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0]})
    >>> standardised_differences(X, np.array([0.0, 0.0, 1.0, 1.0])).round(3)
         treated  control  difference  p_value
    age     45.0     25.0       2.828    0.066
    """
    codes = None if groups is None else _codes(groups)
    strata = None if blocks is None else _codes(blocks)
    rows = {}
    for name in X.columns:
        x = X[name].to_numpy(dtype=float, na_value=np.nan)
        ok = np.isfinite(x) & np.isfinite(t)
        one, zero = x[ok & (t == 1)], x[ok & (t == 0)]
        if len(one) < 2 or len(zero) < 2:
            continue
        scale = np.sqrt(sum(v.var(ddof=1) for v in (one, zero) if learn_scaler(v).varies) / 2)
        if not scale > 0:
            rows[name] = (one.mean(), zero.mean(), np.nan, np.nan)
            continue
        gap, p = _slope(x[ok], t[ok], None if codes is None else codes[ok], None if strata is None else strata[ok])
        rows[name] = (one.mean(), zero.mean(), gap / scale, p)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["treated", "control", "difference", "p_value"])


def _codes(labels: Any) -> IntArray:
    return np.asarray(pd.factorize(pd.Series(np.asarray(labels)))[0], dtype=np.int64)


def _slope(x: FloatArray, t: FloatArray, clusters: IntArray | None, strata: IntArray | None) -> tuple[float, float]:
    """Slope of x on t within strata, and the p-value of its cluster-robust test, in closed form."""
    n = len(x)
    if strata is None:
        x, t, n_levels = x - x.mean(), t - t.mean(), 1
    else:
        size = np.maximum(np.bincount(strata), 1)
        x, t = x - x.mean(), t - (np.bincount(strata, t) / size)[strata]
        x, n_levels = x - (np.bincount(strata, x) / size)[strata], int((np.bincount(strata) > 0).sum())
    total = float(t @ t)
    if total <= 1e-12 * n:
        return float("nan"), float("nan")
    slope = float(t @ x) / total
    scores: FloatArray = t * (x - slope * t)
    if clusters is not None:
        scores = np.bincount(clusters, weights=scores)[np.bincount(clusters) > 0].astype(float)
    g, k = len(scores), 1 + n_levels
    if g <= 2 or n <= k:
        return slope, float("nan")
    variance = float(scores @ scores) / total**2 * g / (g - 1) * (n - 1) / (n - k)
    from scipy.special import stdtr

    return slope, float(2 * stdtr(g - 1, -abs(slope) / np.sqrt(variance))) if variance > 0 else float("nan")


def balance(study: Any, a: Any) -> Iterator[Finding]:
    """Covariates whose means differ between the arms."""
    X = a.honest
    if not a.is_binary or not X.shape[1]:
        return
    table = standardised_differences(X, a.t, a.clusters, a.blocks if study.randomised else None)
    size = table["difference"].abs()
    notable = table[(size > LARGE_DIFFERENCE) | ((size > 0.1) & (table["p_value"] < 0.05))]
    if not len(notable):
        return
    notable = notable.reindex(notable["difference"].abs().sort_values(ascending=False).index)
    listed = (f"{c} {r.difference:+.2f} sd (p {r.p_value:.2g})" for c, r in notable.iterrows())
    large = bool(((size > LARGE_DIFFERENCE) & ~(table["p_value"] > 0.05)).any())
    chance = not large and study.randomised
    yield Finding(
        "warning" if large else "note",
        "balance",
        f"{len(notable)} of {len(table)} covariates differ between the arms: {list_names(listed, 5)}",
        f"ask first whether {'each' if len(notable) > 1 else 'it'} was measured before treatment: what treatment may "
        "have moved (an endline value) must be left out of covariates. If it was, adjust for it: every estimator "
        "here adjusts for covariates"
        + ("; check the assignment and the attrition" if large and study.randomised else "")
        + ("; the difference is no larger than chance makes it with these clusters" if chance else ""),
        table,
    )
