"""Average effects against hand-computed and independently computed regressions."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from causalsat.design import make_design
from causalsat.evaluation.average_effects import average_effects, clustered_mean
from causalsat.exceptions import DataError


@pytest.fixture
def trial():
    rng = np.random.default_rng(0)
    village = np.repeat(np.arange(60), 10)
    t = (rng.permutation(60) % 2)[village]
    frame = pd.DataFrame({"age": rng.normal(40, 10, 600), "t": t, "village": village, "district": village // 12})
    frame["y"] = 0.7 * t + 0.02 * frame.age + rng.standard_normal(60)[village] + rng.standard_normal(600)
    return frame


def test_difference_in_means_is_one_with_the_cluster_robust_error(trial):
    """Villages of one size: CR2 is the variance of the arms' village means, Neyman's."""
    row = average_effects(trial.y, trial.t, groups=trial.village).loc["difference in means"]
    arms = trial.groupby("t").y.mean()
    assert row.estimate == pytest.approx(arms[1] - arms[0])
    means = trial.groupby(["t", "village"]).y.mean()
    variance = (means.groupby("t").var(ddof=1) / 30).sum()
    assert row.se == pytest.approx(np.sqrt(variance), rel=1e-6)
    assert (row.n, row.clusters, row.estimand) == (600, 60, "average effect")
    assert row.df == pytest.approx(58)


def test_rows_name_what_they_estimate():
    """Effects of 1 and 3, treated shares of .5 and .2: 2 on average, 1.78 weighted by N e (1 - e)."""
    stratum, t = np.repeat(["a", "b"], 100), np.r_[np.tile([0, 1], 50), np.tile([0, 0, 0, 0, 1], 20)]
    y = np.where(stratum == "a", 1.0, 3.0) * t + 5 * (stratum == "b")
    table = average_effects(y, t, strata=stratum, stratum_fixed_effects=True)
    assert table.loc["difference in means", "estimate"] == pytest.approx(2)
    assert table.loc["difference in means", "estimand"] == "average effect"
    assert table.loc["stratum fixed effects", "estimate"] == pytest.approx((0.25 + 3 * 0.16) / 0.41)
    assert "N e (1 - e)" in table.loc["stratum fixed effects", "estimand"]
    seen = average_effects(y, design=make_design(t, strata=stratum, randomised=False))
    assert "association" in seen.loc["difference in means", "estimand"]


def test_a_propensity_that_differs_weights_the_arms():
    rng = np.random.default_rng(0)
    e = np.repeat([0.2, 0.8], 4000)
    t = (rng.uniform(size=8000) < e).astype(float)
    y = 10 * (e > 0.5) + t + rng.standard_normal(8000)
    found = average_effects(y, t, propensity=e).loc["difference in means"]
    assert abs(found.estimate - 1) < 4 * found.se
    assert average_effects(y, t).loc["difference in means", "estimate"] > 6


def test_the_types_of_the_columns_change_nothing(trial):
    trial.loc[::9, "age"] = np.nan
    covariates = trial[["age"]].assign(old=(trial.age > 40).astype(int))
    expected = average_effects(trial.y, trial.t, covariates=covariates, groups=trial.village)
    others = covariates.convert_dtypes().assign(old=covariates.old.astype("category"))
    assert others.age.isna().any()
    got = average_effects(trial.y, trial.t, covariates=others.sample(frac=1.0, random_state=0), groups=trial.village)
    pd.testing.assert_frame_equal(got, expected)
    with pytest.raises(DataError, match="covariates has other labels than y"):
        average_effects(trial.y, trial.t, covariates=others.set_index(trial.index + 5), groups=trial.village)


def test_regression_with_strata_and_missing_covariates_is_the_formulas(trial):
    trial.loc[::9, "age"] = np.nan
    got = average_effects(
        trial.y,
        trial.t,
        covariates=trial[["age"]],
        groups=trial.village,
        strata=trial.district,
        stratum_fixed_effects=True,
    )
    filled, flag = trial.age.fillna(trial.age.mean()), trial.age.isna().astype(float)
    trial["filled"], trial["flag"] = filled - filled.mean(), flag - flag.mean()
    fixed = smf.ols("y ~ t + filled + flag + C(district)", trial).fit()
    assert got.loc["stratum fixed effects", "estimate"] == pytest.approx(fixed.params["t"])
    whole = smf.ols("y ~ 0 + C(district):C(t) + C(t):filled + C(t):flag", trial).fit().params
    by_stratum = [whole[f"C(district)[{k}]:C(t)[1]"] - whole[f"C(district)[{k}]:C(t)[0]"] for k in range(5)]
    assert got.loc["OLS with covariates", "estimate"] == pytest.approx(np.mean(by_stratum))


def test_weights_and_robust_errors_without_clusters(trial):
    w = np.where(trial.age > 40, 2.0, 1.0)
    row = average_effects(trial.y, trial.t, sample_weight=w).loc["difference in means"]
    arms = trial.assign(wy=w * trial.y, w=w).groupby("t")[["wy", "w"]].sum()
    assert row.estimate == pytest.approx(arms.wy[1] / arms.w[1] - arms.wy[0] / arms.w[0])
    plain = average_effects(trial.y, trial.t).loc["difference in means"]
    variances = trial.groupby("t").y.var(ddof=1) / trial.groupby("t").size()  # HC2
    assert plain.se == pytest.approx(np.sqrt(variances.sum()))


def test_mean_of_scores_has_the_error_of_cluster_means():
    rng = np.random.default_rng(1)
    means = rng.standard_normal(40)
    found = clustered_mean(np.repeat(means, 5), groups=np.repeat(np.arange(40), 5))
    assert found["estimate"] == pytest.approx(means.mean())
    assert found["se"] == pytest.approx(means.std(ddof=1) / np.sqrt(40), rel=1e-6)
