"""Balance of covariates: closed forms against statsmodels, within strata, and its advice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from study_worlds import check, clean, only

from causalsat.study.balance import standardised_differences


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_p_values_are_those_of_statsmodels(clustered, blocked, offset):
    rng = np.random.default_rng(0)
    village, block = np.repeat(np.arange(40), 6), np.repeat(np.arange(4), 60)
    t = (rng.random(40) < np.repeat([0.3, 0.5, 0.6, 0.4], 10))[village].astype(float)
    x = pd.DataFrame({"a": rng.normal(size=40)[village] + rng.normal(size=240) + block, "b": rng.normal(size=240)})
    x.loc[:9, "b"] = np.nan
    table = standardised_differences(x + offset, t, village if clustered else None, block if blocked else None)
    for name in x.columns:
        ok = x[name].notna().to_numpy()
        levels = (
            pd.get_dummies(block[ok], drop_first=True, dtype=float).to_numpy() if blocked else np.empty((ok.sum(), 0))
        )
        codes = village[ok] if clustered else np.arange(ok.sum())
        fit = sm.OLS(x[name][ok].to_numpy(), np.column_stack([t[ok], np.ones(ok.sum()), levels])).fit(
            cov_type="cluster", cov_kwds={"groups": codes}, use_t=True
        )
        one, zero = x[name][ok & (t == 1)], x[name][ok & (t == 0)]
        scale = np.sqrt((one.var() + zero.var()) / 2)
        assert table.loc[name, "p_value"] == pytest.approx(fit.pvalues[0], rel=1e-6)
        assert table.loc[name, "difference"] == pytest.approx(fit.params[0] / scale, rel=1e-6)


def test_advice_asks_first_whether_it_was_measured_before_treatment():
    frame = clean()
    report = check(frame.assign(age=frame["age"] + 8 * frame["d"]))
    assert only(report, "balance").todo.startswith("ask first whether it was measured before treatment")


def stratified(seed: int, n_villages: int = 160) -> pd.DataFrame:
    """Two strata with treated shares of .25 and .75, in which covariates differ, and no imbalance within them."""
    frame = clean(seed, n_villages)
    rng = np.random.default_rng(seed)
    stratum = np.arange(n_villages) % 2
    d = np.zeros(n_villages, dtype=int)
    for s, treated in ((0, n_villages // 8), (1, 3 * n_villages // 8)):
        d[rng.choice(np.flatnonzero(stratum == s), treated, replace=False)] = 1
    frame = frame.assign(d=d[frame["village"]], s=np.array(["low", "high"])[stratum[frame["village"]]])
    return frame.assign(age=frame["age"] + 15 * (frame["s"] == "high"))


def test_strata_with_unequal_shares_explain_what_differs_between_them():
    frame = stratified(0)
    without = check(frame)
    assert without.about("balance")[0].level == "warning"
    assert without.about("propensity")[0].level == "warning"
    assert not check(frame, strata="s").warnings, str(check(frame, strata="s"))
    stated = frame.assign(e=np.where(frame["s"] == "high", 0.75, 0.25))
    assert not check(stated, propensity="e").warnings


@pytest.mark.statistical
def test_balanced_strata_are_rarely_called_unbalanced():
    flagged = [bool(check(stratified(seed), strata="s").warnings) for seed in range(20)]
    assert sum(flagged) <= 1
