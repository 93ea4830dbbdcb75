"""Sensitivity to an omitted confounder: the published Darfur figures, and a confounder that is then shown."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.sensitivity import Sensitivity, partial_r2, robustness_value, sensitivity

# Cinelli and Hazlett (2020), section 5: the effect of direct harm on peace attitudes in Darfur, benchmark "female"
ESTIMATE, SE, DF = 0.09731582, 0.02325654, 783


def darfur():
    treatment = 0.00916428667504862 / 1.00916428667504862  # partial R2 of female with the treatment
    ratio = 0.12464092303637  # bound of one times female, from which her partial R2 with the outcome follows
    root = treatment / (1 - treatment)
    odds = ratio * (1 - root**2) / (1 + root) ** 2
    return Sensitivity(ESTIMATE, SE, DF, SE * np.sqrt(DF), {"female": (treatment, odds / (1 + odds))})


def test_published_robustness_values():
    t = ESTIMATE / SE
    assert t == pytest.approx(4.18445, abs=1e-5)
    assert partial_r2(t, DF) == pytest.approx(0.02187309, abs=1e-7)
    assert robustness_value(t, DF) == pytest.approx(0.138776, abs=1e-6)
    assert robustness_value(t, DF, alpha=0.05) == pytest.approx(0.07625797, abs=1e-6)
    found = darfur()
    assert found.partial_r2 == pytest.approx(0.02187309, abs=1e-7)
    assert found.robustness_value() == pytest.approx(0.138776, abs=1e-6)
    assert found.robustness_value(alpha=0.05) == pytest.approx(0.07625797, abs=1e-6)


def test_published_bounds_of_a_confounder_like_female():
    table = darfur().to_dataframe()
    np.testing.assert_allclose(table["r2_treatment"], [0.00916428, 0.01832857, 0.02749286], atol=1e-7)
    np.testing.assert_allclose(table["r2_outcome"], [0.12464092, 0.24932406, 0.37405047], atol=1e-6)
    np.testing.assert_allclose(table["estimate"], [0.07522027, 0.05291517, 0.03039602], atol=1e-6)
    np.testing.assert_allclose(table["se"], [0.02187333, 0.02035006, 0.01867006], atol=1e-6)
    np.testing.assert_allclose(table["lower"], [0.03228297, 0.01296804, -0.00625328], atol=1e-6)


@given(st.floats(0.01, 40), st.floats(5, 1e5), st.floats(0.05, 2))
def test_robustness_value_is_what_its_definition_says(t, df, q):
    value = robustness_value(t, df, q=q)
    found = Sensitivity(t, 1.0, df, np.sqrt(df))
    assert 0 < value < 1
    assert found.adjusted(value, value) == pytest.approx((1 - q) * t, rel=1e-6, abs=1e-9)
    extreme = found.adjusted(found.partial_r2, 1.0)  # all of the outcome's variance explained
    assert extreme == pytest.approx(0, abs=1e-6 * t)


def confounded(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    x, hidden = rng.standard_normal((2, n))
    d = 0.5 * x + 0.4 * hidden + rng.standard_normal(n)
    y = x + d - 0.6 * hidden + rng.standard_normal(n)
    return x, hidden, d, y


def test_showing_the_confounder_gives_the_adjusted_estimate_and_error():
    x, hidden, d, y = confounded()
    found = sensitivity(y, d, x[:, None])
    full = sm.OLS(y, sm.add_constant(np.column_stack([d, x, hidden]))).fit()
    treatment = sm.OLS(d, sm.add_constant(np.column_stack([x, hidden]))).fit()
    r2_y = partial_r2(full.tvalues[3], full.df_resid)
    r2_d = partial_r2(treatment.tvalues[2], treatment.df_resid)
    short = sm.OLS(y, sm.add_constant(np.column_stack([d, x]))).fit()
    assert found.estimate == pytest.approx(short.params[1])
    assert found.se == pytest.approx(short.bse[1])
    assert found.df == short.df_resid
    assert found.bias(r2_d, r2_y) == pytest.approx(abs(full.params[1] - short.params[1]), rel=1e-9)
    assert found.adjusted_se(r2_d, r2_y) == pytest.approx(full.bse[1], rel=1e-9)


def test_benchmarks_are_partial_r2_and_bound_a_confounder_as_strong():
    rng = np.random.default_rng(1)
    x, hidden = rng.standard_normal((2, 200_000))  # the hidden one relates as x does
    d = 0.5 * x + 0.5 * hidden + rng.standard_normal(200_000)
    y = x + d + hidden + rng.standard_normal(200_000)
    found = sensitivity(y, d, pd.DataFrame({"x": x}))
    outcome = sm.OLS(y, sm.add_constant(np.column_stack([d, x]))).fit()
    assert found.benchmarks["x"][1] == pytest.approx(partial_r2(outcome.tvalues[2], outcome.df_resid), rel=1e-6)
    bound = found.bound("x")
    # R2 of the hidden confounder with the treatment given x is 0.25 / 1.25
    assert bound[0] == pytest.approx(0.2, abs=0.01)
    assert found.adjusted(*bound) == pytest.approx(1, abs=0.05)


def test_clusters_widen_the_interval_but_not_the_bias():
    x, _, d, y = confounded(600)
    groups = np.repeat(np.arange(30), 20)
    y = y + 3 * np.random.default_rng(1).standard_normal(30)[groups]
    d = d + np.random.default_rng(2).standard_normal(30)[groups]
    alone, clustered = sensitivity(y, d, x[:, None]), sensitivity(y, d, x[:, None], groups=groups)
    assert clustered.se > 1.5 * alone.se
    assert clustered.bias(0.1, 0.1) == pytest.approx(alone.bias(0.1, 0.1))
    assert clustered.robustness_value(alpha=0.05) < alone.robustness_value(alpha=0.05)


def test_bad_input_says_what_to_do():
    with pytest.raises(DataError, match="equal n"):
        sensitivity(np.zeros(3), np.zeros(4), np.zeros((3, 1)))
    with pytest.raises(DataError, match="missing"):
        sensitivity([1, 2, np.nan], [0, 1, 0], np.zeros((3, 1)))
    with pytest.raises(ParameterError, match="partial R2"):
        darfur().bias(1.0, 0.5)
    with pytest.raises(ParameterError, match="one of female"):
        darfur().bound("male")
    with pytest.raises(ParameterError, match="more than all"):
        darfur().bound("female", 200)
    assert darfur().to_dataframe((200.0,)).isna().to_numpy()[0, 2:].all()
    assert Sensitivity(0.0, 0.0, 10, 0.0).robustness_value() == 0.0


def test_what_covariates_decide_up_to_rounding_is_explained():
    rng = np.random.default_rng(0)
    x, d = rng.standard_normal((60, 1)), rng.integers(0, 2, 60).astype(float)
    for y in (np.full(60, 0.1), 3 * x[:, 0] + 0.1):
        found = sensitivity(y, d, x)
        assert (found.estimate, found.partial_r2, found.robustness_value()) == (0.0, 0.0, 0.0)
    exact = sensitivity(2 * d + x[:, 0], d, x)
    assert (exact.partial_r2, exact.robustness_value()) == (1.0, 1.0)
    with pytest.raises(DataError, match="covariates decide"):
        sensitivity(rng.standard_normal(60), 3 * x[:, 0] + 0.1, x)
