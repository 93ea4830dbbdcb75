"""BLP, GATES and overlap against known truths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import t as student

from causalsat.evaluation import blp, effective_sample_size, gates, overlap, rate
from causalsat.exceptions import DataError, ParameterError, TreatmentError


def scored(seed=0, n_groups=300, noise=1.0, village=1.0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 8)
    tau = rng.standard_normal(n_groups)[groups]
    scores = 1 + tau + village * rng.standard_normal(n_groups)[groups] + noise * rng.standard_normal(len(groups))
    return tau, scores, groups


@pytest.mark.parametrize(("factor", "slope"), [(1.0, 1.0), (2.0, 0.5), (-1.0, -1.0)])
def test_slope_is_one_for_calibrated_and_less_for_exaggerated_effects(factor, slope):
    tau, scores, groups = scored()
    result = blp(factor * tau, scores, groups=groups)
    assert abs(result.slope - slope) < 3 * result.slope_se
    assert abs(result.ate - 1) < 3 * result.ate_se
    assert result.slope_se < 0.1
    assert (result.p_value < 1e-6) == (slope > 0)
    assert (result.p_value_calibrated < 1e-6) == (slope != 1)


def test_slope_is_zero_for_noise():
    _, scores, groups = scored()
    result = blp(np.random.default_rng(9).permutation(300)[groups] / 100, scores, groups=groups)
    assert abs(result.slope) < 3 * result.slope_se
    assert result.p_value > 0.01


@pytest.mark.statistical
def test_slope_intervals_cover_with_clusters():
    hits, naive = [], []
    for seed in range(200):
        tau, scores, groups = scored(seed, n_groups=60)
        lower, upper = blp(tau, scores, groups=groups).interval(0.9)
        hits.append(lower <= 1 <= upper)
        lower, upper = blp(tau, scores).interval(0.9)
        naive.append(lower <= 1 <= upper)
    assert 0.83 <= np.mean(hits) <= 0.96
    assert np.mean(naive) < 0.75


def test_is_statsmodels_regression_with_errors_a_little_wider():
    """CR2 lies between the plain sandwich and its usual small-sample factor times some percent."""
    tau, scores, groups = scored(n_groups=100)
    design = sm.add_constant(tau - tau.mean())
    ols = sm.OLS(scores, design).fit(cov_type="cluster", cov_kwds={"groups": groups})
    result = blp(tau, scores, groups=groups)
    assert result.slope == pytest.approx(ols.params[1])
    assert 0.99 < result.slope_se / ols.bse[1] < 1.05
    assert result.to_dataframe().loc["ATE", "estimate"] == pytest.approx(ols.params[0])


def test_predictions_are_centred_in_their_fold():
    tau, scores, groups = scored()
    fold = groups % 5
    moved = tau + np.array([0.0, 50.0, -20.0, 7.0, 3.0])[fold]
    assert blp(moved, scores, groups=groups, folds=fold).slope == pytest.approx(1, abs=0.25)
    assert abs(blp(moved, scores, groups=groups).slope) < 0.1
    line, held = blp(tau, scores, groups=groups), blp(tau, scores, groups=groups, folds=np.zeros(len(tau)))
    assert held.slope_se / line.slope_se == pytest.approx(np.sqrt(2))
    assert (held.slope, held.ate_se) == pytest.approx((line.slope, line.ate_se))
    np.testing.assert_array_equal(
        gates(moved, scores, groups=groups, folds=fold).group, gates(tau, scores, groups=groups, folds=fold).group
    )


def test_cross_fitted_predictions_of_noise_reject_at_the_nominal_rate():
    """Regressions on the other folds' scores, and no heterogeneity: each pair of units enters twice.

    400 trials: shares within 3 Monte Carlo standard errors (.033) of .05 with ``folds``; about .15 without.
    """
    rng = np.random.default_rng(5)
    n, trials, fold = 100, 400, np.arange(100) % 5
    p_values = np.empty((trials, 5))
    for k in range(trials):
        X, scores = rng.standard_normal((n, 3)), 1 + rng.standard_normal(n)
        design = np.column_stack([np.ones(n), X])
        tau = np.empty(n)
        for held in range(5):
            train = fold != held
            tau[~train] = design[~train] @ np.linalg.lstsq(design[train], scores[train], rcond=None)[0]
        line, given = blp(tau, scores, folds=fold), blp(tau, scores)
        fifths = gates(tau, scores, folds=fold, n_groups=3)
        autoc = rate(tau, scores, folds=fold, n_bootstrap=60, random_state=k)
        p_values[k] = (
            student.sf(abs(line.slope) / line.slope_se, line.df) * 2,
            fifths.difference_p_value,
            autoc.p_value,
            line.p_value * 2 if line.slope > 0 else 1,
            student.sf(abs(given.slope) / given.slope_se, given.df) * 2,
        )
    found = (p_values <= 0.05).mean(axis=0)
    assert (np.abs(found[:3] - 0.05) <= 0.033).all(), found
    assert found[3] <= 0.05 / 2 + 0.033
    assert found[4] > 0.10


def test_constant_predictions_have_no_slope():
    with pytest.raises(DataError, match="do not differ"):
        blp(np.ones(50), np.arange(50.0))
    with pytest.raises(DataError, match="do not differ"):
        blp(np.arange(50) % 5, np.arange(50.0), folds=np.arange(50) % 5)


def test_gates_are_the_means_of_quintiles():
    tau = np.random.default_rng(0).permutation(1000) / 1000
    result = gates(tau, 2 * tau)
    np.testing.assert_allclose(result.estimate, 2 * (np.array([0.1, 0.3, 0.5, 0.7, 0.9]) - 0.0005))
    np.testing.assert_allclose(result.predicted, result.estimate / 2)
    assert result.count.tolist() == [200] * 5
    assert result.difference == pytest.approx(1.6)
    assert result.monotone
    assert result.trend_p_value < 1e-6
    table = result.to_dataframe()
    assert list(table.index) == ["G1", "G2", "G3", "G4", "G5", "G5 - G1"]
    assert table.loc["G5 - G1", "estimate"] == pytest.approx(1.6)


def test_gates_of_a_reversed_ranking():
    tau, scores, groups = scored()
    result = gates(-tau, scores, groups=groups)
    assert not result.monotone
    assert result.difference < -5 * result.difference_se
    assert result.trend_p_value > 0.99


def test_difference_has_the_standard_error_of_its_replications():
    runs = [gates(*scored(s, n_groups=60)[:2], groups=scored(s, n_groups=60)[2]) for s in range(120)]
    sd = np.std([r.difference - 0 for r in runs], ddof=1)
    assert np.mean([r.difference_se for r in runs]) == pytest.approx(sd, rel=0.2)


def test_ties_stay_together_and_empty_groups_are_refused():
    tau = np.repeat(np.arange(10), 10).astype(float)
    group = gates(tau, tau, n_groups=3).group
    assert all(len(set(group[tau == v])) == 1 for v in range(10))
    with pytest.raises(DataError, match="empty"):
        gates(np.repeat([0.0, 1.0], 50), np.arange(100.0))
    with pytest.raises(ParameterError, match="n_groups"):
        gates(tau, tau, n_groups=1)


def test_weights_move_the_group_means():
    tau = np.arange(100.0)
    scores, w = np.tile([0.0, 1.0], 50), np.tile([1.0, 3.0], 50)
    np.testing.assert_allclose(gates(tau, scores, n_groups=2, weights=w).estimate, 0.75, atol=0.02)


# ---------------------------------------------------------------------------- overlap
def test_inverse_propensity_weights_balance_what_confounds():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.standard_normal((20_000, 2)), columns=["slope", "soil"])
    e = 1 / (1 + np.exp(-X["slope"].to_numpy()))
    t = (rng.random(20_000) < e).astype(int)
    result = overlap(e, t, X)
    balance = result.balance()
    assert balance.loc["slope", "raw"] > 0.7
    assert abs(balance.loc["slope", "weighted"]) < 0.05
    assert abs(balance.loc["soil", "raw"]) < 0.05
    assert (result.ess < 0.9 * result.n).all()
    assert result.share_extreme == pytest.approx(np.mean((e < 0.05) | (e > 0.95)))
    assert list(result.to_dataframe().columns) == ["n", "ess", "min", "q05", "median", "q95", "max"]


def test_a_randomised_trial_loses_no_sample():
    result = overlap(0.5, np.arange(100) % 2)
    np.testing.assert_allclose(result.ess, 50)
    assert result.names == ()


def test_overlap_leaves_missing_values_out_feature_by_feature():
    X = np.array([[0.0, np.nan], [1.0, 1.0], [0.0, 3.0], [1.0, 1.0]])
    result = overlap(0.5, [0, 1, 0, 1], X)
    assert np.isnan(result.smd_raw[0])  # the feature is the treatment: no variance in an arm
    assert overlap(0.5, [0, 1, 0, 1], [[0.0], [1.0], [1.0], [np.nan]]).smd_raw[0] == pytest.approx(
        0.5 / np.sqrt(0.125)
    )


def test_effective_sample_size():
    assert effective_sample_size([2, 2, 2]) == pytest.approx(3)
    assert effective_sample_size([1, 1, 0, 0]) == pytest.approx(2)
    with pytest.raises(DataError):
        effective_sample_size([0, 0])


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((1.0, [0, 1]), {}, DataError),
        ((0.5, [1, 1]), {}, TreatmentError),
        ((0.5, [0, 1], [[1.0]]), {}, DataError),
        ((0.5, [0, 1], [[1.0], [2.0]]), {"names": ["a", "b"]}, ParameterError),
        ((0.5, [0, 1]), {"bound": 0.7}, ParameterError),
    ],
)
def test_bad_overlap(arguments, options, error):
    with pytest.raises(error):
        overlap(*arguments, **options)


def test_rounding_is_no_standard_error():
    """One cluster a group has no error that could be told, constant scores have none: no p-value follows."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), 12)
    found = gates(groups.astype(float), rng.standard_normal(60), n_groups=5, groups=groups)
    assert np.isnan(found.se).all()
    assert np.isnan([found.difference_p_value, found.trend_p_value]).all()
    flat = blp(rng.standard_normal(60), np.full(60, 0.1), groups=groups)
    assert (flat.ate_se, flat.slope_se) == (0, 0)
    assert np.isnan([flat.p_value, flat.p_value_calibrated]).all()
