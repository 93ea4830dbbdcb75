"""Whether the arms were alike before treatment: differences of means, and treatment predicted from covariates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.scaling import learn_scaler
from causalsat.study.columns import list_names
from causalsat.study.report import Finding
from causalsat.study.values import v_binary

FloatArray = NDArray[np.float64]
LARGE_DIFFERENCE = 0.25  # standard deviations; Imbens and Rubin (2015), section 14.2
PREDICTABLE_AUC = 0.6


def standardised_differences(X: pd.DataFrame, t: FloatArray, groups: Any = None) -> pd.DataFrame:
    """Differences of the arms in each covariate, with cluster-robust tests.

    The standardised difference is that of Imbens and Rubin (2015), equation 14.1: the difference in means
    over the square root of the mean of the two arms' variances. The p-value is of a regression of the
    covariate on treatment with standard errors clustered on ``groups``.

    Parameters
    ----------
    X : DataFrame of shape (n, p)
        Numeric covariates; missing values are left out column by column.
    t : ndarray of shape (n,)
        Treatment, 0 or 1.
    groups : array of shape (n,), optional
        Clusters.

    Returns
    -------
    DataFrame
        Index is the covariate; ``treated``, ``control`` (means), ``difference`` (standardised), ``p_value``.
    """
    rows = {}
    for name in X.columns:
        x = X[name].to_numpy(dtype=float, na_value=np.nan)
        ok = np.isfinite(x) & np.isfinite(t)
        one, zero = x[ok & (t == 1)], x[ok & (t == 0)]
        if len(one) < 2 or len(zero) < 2:
            continue
        scale = np.sqrt(sum(v.var(ddof=1) for v in (one, zero) if learn_scaler(v).varies) / 2)
        gap = one.mean() - zero.mean()
        p = _robust_p(x[ok], t[ok, None], None if groups is None else np.asarray(groups)[ok]) if scale > 0 else np.nan
        rows[name] = (one.mean(), zero.mean(), gap / scale if scale > 0 else np.nan, p)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["treated", "control", "difference", "p_value"])


def _robust_p(y: FloatArray, X: FloatArray, groups: Any) -> float:
    """P-value of the joint Wald test that all slopes are zero."""
    import statsmodels.api as sm

    codes = np.arange(len(y)) if groups is None else pd.factorize(np.asarray(groups))[0]
    if len(np.unique(codes)) <= X.shape[1] + 1:
        return float("nan")
    fit = sm.OLS(y, sm.add_constant(X, has_constant="add")).fit(cov_type="cluster", cov_kwds={"groups": codes})
    restriction = np.eye(X.shape[1] + 1)[1:]
    return float(fit.wald_test(restriction, use_f=True, scalar=True).pvalue)


def predicted_treatment(X: FloatArray, t: FloatArray, groups: Any = None, seed: int = 0) -> FloatArray:
    """Probability of treatment from a logistic regression, cross-fitted over clusters, shape (n,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    codes = np.arange(len(t)) if groups is None else pd.factorize(np.asarray(groups))[0]
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
    return np.asarray(
        cross_val_predict(model, X, t.astype(int), groups=codes, cv=folds, method="predict_proba")[:, 1]
    )


def leaks(study: Any, v: Any) -> Iterator[Finding]:
    """Covariates made from the treatment: copies of it, products with it, or constant in one arm only."""
    X = _numeric_covariates(study)
    if not v_binary(v.t):
        return
    found = {str(c): why for c in X.columns if (why := _made_from_treatment(X, str(c), v.t))}
    if found:
        yield Finding(
            "error",
            "treatment leak",
            f"{len(found)} of {len(study.covariates)} covariates are made from the treatment: "
            + "; ".join(f"{c} {why}" for c, why in list(found.items())[:6]),
            f"leave them out of covariates: {', '.join(found)}. They were not measured before treatment, and any "
            "model that adjusts for them, or predicts with them, is wrong",
            found,
        )


def _made_from_treatment(X: pd.DataFrame, name: str, t: FloatArray) -> str:
    x = X[name].to_numpy(dtype=float)
    ok = np.isfinite(x) & np.isfinite(t)
    if np.array_equal(x[ok], t[ok]) or np.array_equal(x[ok], 1 - t[ok]):
        return "is the treatment itself"
    for arm, where in ((0, "control"), (1, "treated")):
        inside, other = x[ok & (t == arm)], x[ok & (t != arm)]
        if len(inside) < 30 or len(other) < 30 or np.ptp(inside) > 0:
            continue
        share = float((other == inside[0]).mean())
        if share ** len(inside) > 1e-9:  # by chance: the value is common in the other arm too
            continue
        for source in X.columns.drop(name):
            product = X[source].to_numpy(dtype=float) * (t != arm)
            if np.allclose(product[ok], x[ok], rtol=1e-6, atol=1e-12):  # equal in single precision
                return f"= {source} x {'treatment' if arm == 0 else '(1 - treatment)'}"
        return f"is {inside[0] + 0.0:g} for all {len(inside):,} {where} units and varies in the other arm"
    return ""


def balance(study: Any, v: Any) -> Iterator[Finding]:
    """Covariates whose means differ between the arms."""
    X = _honest_covariates(study, v)
    if not v_binary(v.t) or not X.shape[1]:
        return
    table = standardised_differences(X, v.t, _labels(v.groups))
    size = table["difference"].abs()
    notable = table[(size > LARGE_DIFFERENCE) | ((size > 0.1) & (table["p_value"] < 0.05))]
    if not len(notable):
        return
    notable = notable.reindex(notable["difference"].abs().sort_values(ascending=False).index)
    shown = (f"{c} {r.difference:+.2f} sd (p {r.p_value:.2g})" for c, r in notable.iterrows())
    large = bool(((size > LARGE_DIFFERENCE) & ~(table["p_value"] > 0.05)).any())
    yield Finding(
        "warning" if large else "note",
        "balance",
        f"{len(notable)} of {len(table)} covariates differ between the arms: {list_names(shown, 5)}",
        "adjust for them: they are among the covariates, so every estimator here does"
        + ("; check the assignment and the attrition" if large and study.randomised else "")
        + ("; no larger than chance makes it with these clusters" if not large and study.randomised else ""),
        table,
    )


def propensity(study: Any, v: Any) -> Iterator[Finding]:
    """A declared propensity that cannot be right, and a treatment that the covariates predict."""
    if "propensity" in v.problems:
        yield Finding("error", "propensity", *v.problems["propensity"])
    yield from _declared(v)
    X = _honest_covariates(study, v)
    if not v_binary(v.t) or not X.shape[1]:
        return
    known = np.isfinite(v.t)
    t, groups = v.t[known], None if v.groups is None else np.asarray(_labels(v.groups))[known]
    filled = X.to_numpy(dtype=float, na_value=np.nan)[known]
    filled = np.where(np.isfinite(filled), filled, np.nan)
    gone = np.isnan(filled)
    keep = ~gone.all(axis=0)
    filled = np.where(gone, np.nanmean(np.where(keep, filled, 0.0), axis=0), filled)
    often = gone.mean(axis=0) > 0.02  # a rarer indicator only separates a few units
    design = np.column_stack([filled[:, keep], gone[:, often & keep]])
    n_groups = len(t) if groups is None else len(pd.unique(groups))
    if min(int(t.sum()), int((1 - t).sum()), n_groups) < 10:
        return
    yield from _predictable(study, design, t, groups)


def _declared(v: Any) -> Iterator[Finding]:
    e = v.propensity
    if e is None:
        return
    e, t = e[np.isfinite(e)], v.t
    if ((e <= 0) | (e >= 1)).any():
        yield Finding(
            "error",
            "propensity",
            f"the propensity runs from {e.min():g} to {e.max():g}",
            "probabilities lie strictly between 0 and 1: leave out units that could only be in one arm",
        )
    elif v_binary(t) and abs(e.mean() - np.nanmean(t)) > 0.1:
        yield Finding(
            "warning",
            "propensity",
            f"the propensity's mean is {e.mean():.3f}, but {np.nanmean(t):.3f} of the units are treated",
            "check that it is the probability of treatment and not of control, and that no units are lost",
        )


def _predictable(study: Any, X: FloatArray, t: FloatArray, groups: Any) -> Iterator[Finding]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import roc_auc_score
    from sklearn.utils._testing import ignore_warnings

    with ignore_warnings(category=ConvergenceWarning):
        e = predicted_treatment(X, t, groups)
    auc = float(roc_auc_score(t, e))
    outside = float(((e < 0.1) | (e > 0.9)).mean())
    data = {"auc": auc, "lowest": float(e.min()), "highest": float(e.max()), "propensity": e}
    if auc < PREDICTABLE_AUC and outside < 0.05:
        return
    what = (
        f"the covariates predict the treatment: AUC {auc:.2f} on held-out clusters, probabilities from "
        f"{e.min():.2f} to {e.max():.2f}" + (f", {outside:.1%} beyond 0.1 or 0.9" if outside else "")
    )
    if study.randomised:
        todo = (
            "in a randomised study nothing but strata predicts it: give propensity= or strata=, check the merge, "
            "or say randomised=False"
        )
    else:
        todo = "adjust for them, look at evaluation.overlap, and leave out units without counterparts"
    serious = auc >= PREDICTABLE_AUC and (study.randomised or outside > 0.05)
    yield Finding("warning" if serious else "note", "propensity", what, todo, data)


def _labels(groups: Any) -> Any:
    return None if groups is None else pd.factorize(pd.Series(groups), use_na_sentinel=True)[0]


def _honest_covariates(study: Any, v: Any) -> pd.DataFrame:
    """Numeric covariates without those that :func:`leaks` reports."""
    X = _numeric_covariates(study)
    return X[[c for c in X.columns if not v_binary(v.t) or not _made_from_treatment(X, c, v.t)]]


def _numeric_covariates(study: Any) -> pd.DataFrame:
    frame = pd.DataFrame(study.units[list(study.covariates)])
    columns = {}
    for name in frame.columns:
        with contextlib.suppress(TypeError, ValueError):  # text and dates
            columns[name] = frame[name].astype(float)  # objects and categories of numbers too, as estimators do
    numeric = pd.DataFrame(columns, index=frame.index)
    return numeric.loc[:, numeric.replace([np.inf, -np.inf], np.nan).nunique() > 1].replace([np.inf, -np.inf], np.nan)
