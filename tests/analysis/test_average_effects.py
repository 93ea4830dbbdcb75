"""Average effects against hand-computed and independently computed regressions."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from causalsat.analysis.average_effects import average_effects, clustered_mean


@pytest.fixture
def trial():
    rng = np.random.default_rng(0)
    village = np.repeat(np.arange(60), 10)
    t = (rng.permutation(60) % 2)[village]
    frame = pd.DataFrame({"age": rng.normal(40, 10, 600), "t": t, "village": village, "district": village // 12})
    frame["y"] = 0.7 * t + 0.02 * frame.age + rng.standard_normal(60)[village] + rng.standard_normal(600)
    return frame


def test_difference_in_means_is_one_with_the_cluster_robust_error(trial):
    row = average_effects(trial.y, trial.t, groups=trial.village).loc["difference in means"]
    arms = trial.groupby("t").y.mean()
    assert row.estimate == pytest.approx(arms[1] - arms[0])
    G, n = 60, 600  # sandwich by hand, with the usual small-sample factor
    x = np.column_stack([trial.t, np.ones(n)])
    bread = np.linalg.inv(x.T @ x)
    residual = trial.y - x @ bread @ x.T @ trial.y
    meat = sum(np.outer(s, s) for s in (x[g].T @ residual[g] for g in trial.groupby("village").indices.values()))
    variance = (G / (G - 1)) * ((n - 1) / (n - 2)) * bread @ meat @ bread
    assert row.se == pytest.approx(np.sqrt(variance[0, 0]))
    assert (row.n, row.clusters) == (600, 60)


def test_the_types_of_the_columns_change_nothing(trial):
    trial.loc[::9, "age"] = np.nan
    covariates = trial[["age"]].assign(old=(trial.age > 40).astype(int))
    expected = average_effects(trial.y, trial.t, covariates=covariates, groups=trial.village)
    others = covariates.convert_dtypes().assign(old=covariates.old.astype("category"))
    assert others.age.isna().any()
    got = average_effects(trial.y, trial.t, covariates=others.set_index(trial.index + 5), groups=trial.village)
    pd.testing.assert_frame_equal(got, expected)


def test_regression_with_strata_and_missing_covariates_is_the_formulas(trial):
    trial.loc[::9, "age"] = np.nan
    got = average_effects(
        trial.y, trial.t, covariates=trial[["age"]], groups=trial.village, strata=trial.district
    ).loc["OLS with covariates"]
    trial["filled"], trial["flag"] = trial.age.fillna(trial.age.mean()), trial.age.isna().astype(float)
    other = smf.ols("y ~ t + filled + flag + C(district)", trial).fit(
        cov_type="cluster", cov_kwds={"groups": trial.village}, use_t=True
    )
    assert got.estimate == pytest.approx(other.params["t"])
    assert got.se == pytest.approx(other.bse["t"])


def test_weights_and_robust_errors_without_clusters(trial):
    w = np.where(trial.age > 40, 2.0, 1.0)
    row = average_effects(trial.y, trial.t, sample_weight=w).loc["difference in means"]
    arms = trial.assign(wy=w * trial.y, w=w).groupby("t")[["wy", "w"]].sum()
    assert row.estimate == pytest.approx(arms.wy[1] / arms.w[1] - arms.wy[0] / arms.w[0])
    plain = average_effects(trial.y, trial.t).loc["difference in means"]
    variances = trial.groupby("t").y.var(ddof=0) / trial.groupby("t").size()
    assert plain.se == pytest.approx(np.sqrt(variances.sum() * 600 / 598))


def test_mean_of_scores_has_the_error_of_cluster_means():
    rng = np.random.default_rng(1)
    means = rng.standard_normal(40)
    found = clustered_mean(np.repeat(means, 5), groups=np.repeat(np.arange(40), 5))
    assert found["estimate"] == pytest.approx(means.mean())
    assert found["se"] == pytest.approx(means.std(ddof=1) / np.sqrt(40), rel=1e-6)
