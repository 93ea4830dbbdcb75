"""Tests of no heterogeneity: nominal level with clusters, power, and the designs that they randomise anew."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from causalsat.evaluation import crossfit_nuisances, dr_scores, permutation_test, priority_test, rate
from causalsat.evaluation.permutation import fold_ridge, rank_ratio
from causalsat.exceptions import DataError, ParameterError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def trial(seed, heterogeneity=0.0, n_clusters=60, k=4):
    """Cluster-randomised, 60 % treated, villages of 2 to 8 units; latents of the village predict the outcome."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_clusters), rng.integers(2, 9, n_clusters))
    Z = rng.standard_normal((n_clusters, k))[groups]
    t = (rng.permutation(n_clusters) < 0.6 * n_clusters)[groups].astype(float)
    noise = 0.7 * rng.standard_normal(n_clusters)[groups] + rng.standard_normal(len(groups))
    return Z, Z[:, 0] + noise + t * (1 + heterogeneity * Z[:, 1]), t, groups


@pytest.mark.statistical
@pytest.mark.parametrize(("statistic", "n_trials", "draws"), [("score", 300, 39), ("autoc", 120, 19)])
def test_rejects_at_its_level_without_heterogeneity(statistic, n_trials, draws):
    """5 %: 39 draws reject at p = 1/40 and 2/40, 19 at 1/20. Bounds are three binomial standard errors."""
    rejected = []
    for seed in range(n_trials):
        Z, y, t, groups = trial(seed)
        result = permutation_test(
            Z, y, t, groups=groups, statistic=statistic, n_permutations=draws, random_state=seed
        )
        rejected.append(result.rejects(0.05))
    assert abs(np.mean(rejected) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / n_trials)


@pytest.mark.statistical
def test_ratio_of_cross_fitted_ranks_does_not_keep_its_level():
    """Why the permutation test exists: sd near the square root of 2, more than 5 % beyond 1.645."""
    ratios = []
    for seed in range(150):
        Z, y, t, groups = trial(seed, n_clusters=120, k=8)
        linear = {"outcome_model": LinearRegression(), "propensity": 0.6}
        nuisances = crossfit_nuisances(Z, y, t, groups=groups, random_state=seed, **linear)
        learner = fold_ridge(Z, nuisances.fold, np.ones(len(y)))
        tau = learner.priorities(y - nuisances.m, t - nuisances.propensity)
        scores = dr_scores(y, t, nuisances)
        ratios.append(rate(tau, scores, groups=groups, folds=nuisances.fold, n_bootstrap=40).ratio)
    assert 1.2 < np.std(ratios) < 1.7
    assert np.mean(np.array(ratios) > 1.645) > 0.07


@pytest.mark.parametrize("statistic", ["score", "autoc", "qini"])
def test_finds_heterogeneity(statistic):
    Z, y, t, groups = trial(0, heterogeneity=1.0, n_clusters=250)
    result = permutation_test(Z, y, t, groups=groups, statistic=statistic, n_permutations=99)
    assert result.p_value == 0.01
    assert result.rejects()
    assert result.method == "treatment of clusters"
    row = result.to_dataframe().iloc[0]
    assert row["statistic"] > row["null_q95"]


def test_a_main_effect_of_the_latents_is_not_heterogeneity():
    rejected = []
    for seed in range(40):
        Z, y, t, groups = trial(seed)
        rejected.append(permutation_test(Z, y + 5 * Z[:, 1], t, groups=groups, n_permutations=19).rejects())
    assert np.mean(rejected) < 0.2


def test_refit_is_called_with_outcomes_of_the_new_assignment():
    Z, y, t, groups = trial(1, heterogeneity=0.0)
    fold = groups % 3
    calls = []

    def refit(outcome, assigned):
        calls.append((outcome, assigned))
        return Z[:, 1]

    result = permutation_test(
        Z,
        y,
        t,
        groups=groups,
        folds=fold,
        covariates=np.random.default_rng(0).standard_normal((len(y), 2)),
        refit=refit,
        n_permutations=5,
    )
    assert len(calls) == 6
    np.testing.assert_allclose(calls[0][0], y)
    np.testing.assert_array_equal(calls[0][1], t)
    constant = (calls[1][0] - y)[calls[1][1] != t] / (calls[1][1] - t)[calls[1][1] != t]
    np.testing.assert_allclose(constant, constant[0])
    assert constant[0] == pytest.approx(1, abs=0.5)
    assert len(result.null) == 5


def test_same_seed_same_answer_and_rows_in_any_order():
    Z, y, t, groups = trial(2)
    first, again = (permutation_test(Z, y, t, groups=groups, n_permutations=19, random_state=5) for _ in range(2))
    np.testing.assert_array_equal(first.null, again.null)
    order = np.random.default_rng(0).permutation(len(y))
    moved = permutation_test(Z[order], y[order], t[order], groups=groups[order], n_permutations=19, random_state=5)
    np.testing.assert_allclose(moved.null, first.null)


# ---------------------------------------------------------------------------- designs
def test_a_given_unit_of_randomisation_has_one_treatment():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 4)
    with pytest.raises(DataError, match="unit of randomisation"):
        permutation_test(rng.normal(size=(80, 2)), rng.normal(size=80), np.tile([0.0, 1.0], 40), assignment=groups)


@pytest.mark.statistical
def test_strata_with_shares_of_their_own_within_clusters_keep_the_level():
    """Women were treated more often than men in each village: permuting over both rejected 40 % at 10 %."""
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        groups, sex = np.repeat(np.arange(30), 16), np.tile([0, 1], 240)
        order = rng.permuted(np.tile(np.arange(8), (60, 1)), axis=1).reshape(30, 2, 8).transpose(0, 2, 1).ravel()
        t = (order < np.where(sex, 6, 2)).astype(float)
        y = 3 * sex + t + rng.standard_normal(30)[groups] + rng.standard_normal(480)
        Z = np.column_stack([rng.standard_normal(480), sex])
        found = permutation_test(Z, y, t, groups=groups, strata=sex, n_permutations=99, random_state=seed)
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) <= 0.1) <= 0.225


def test_a_unit_of_randomisation_lies_in_one_stratum():
    rng = np.random.default_rng(0)
    groups, Z = np.repeat(np.arange(20), 4), rng.standard_normal((80, 2))
    t, y = (groups % 2).astype(float), rng.standard_normal(80)
    strata = np.where(np.arange(80) == 3, 1, groups // 10)
    with pytest.raises(DataError, match="1 units of randomisation"):
        permutation_test(Z, y, t, groups=groups, strata=strata, n_permutations=5)
    one = permutation_test(Z, y, t, groups=groups, strata=groups // 10, n_permutations=5)
    assert 0 < one.p_value <= 1


# ---------------------------------------------------------------------------- priorities from other data
@pytest.mark.statistical
def test_priority_test_keeps_its_level_and_has_power():
    rejected, found = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(50), rng.integers(1, 9, 50))
        priority = rng.standard_normal(50)[groups]
        noise = rng.standard_normal(50)[groups] * (1 + np.abs(priority)) + rng.standard_normal(len(groups))
        options = {"groups": groups, "n_permutations": 199, "random_state": seed}
        rejected.append(priority_test(priority, noise, **options).rejects())
        if seed < 50:
            found.append(priority_test(priority, noise + priority, **options).rejects())
    assert 0.02 <= np.mean(rejected) <= 0.09
    assert np.mean(found) > 0.7


def test_closed_form_ratio_is_close_to_the_bootstrap():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), 4)
    priority, scores = rng.standard_normal(300)[groups], rng.standard_normal(1200)
    closed = rank_ratio(priority, scores, groups, np.ones(1200), "autoc")
    assert closed == pytest.approx(rate(priority, scores, groups=groups).ratio, abs=0.25)


def test_equal_priorities_are_no_evidence():
    result = priority_test(np.ones(20), np.arange(20.0))
    assert (result.statistic, result.p_value) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"statistic": "auc"}, ParameterError, "autoc"),
        ({"statistic": "score", "refit": lambda y, t: y}, ParameterError, "without refit"),
        ({"n_permutations": 0}, ParameterError, "n_permutations"),
        ({"strata": np.arange(100)}, DataError, "one treatment only"),
        ({"refit": lambda y, t: y[:-1]}, DataError, "refit's priorities"),
        ({"propensity": 1.0}, DataError, "between 0 and 1"),
        ({"covariates": np.ones((3, 1))}, DataError, "covariates of shape"),
    ],
)
def test_bad_permutation_options(options, error, says):
    rng = np.random.default_rng(0)
    with pytest.raises(error, match=says):
        permutation_test(rng.standard_normal((100, 2)), rng.standard_normal(100), np.arange(100) % 2, **options)
    with pytest.raises(DataError, match="constant"):
        permutation_test(np.ones((100, 2)), rng.standard_normal(100), np.arange(100) % 2)


@pytest.mark.parametrize("unit", [1e-300, 1e-165, 1e150, 1e300])
def test_signs_do_not_depend_on_the_unit_of_the_scores(unit):
    rng = np.random.default_rng(0)
    tau = rng.standard_normal(300)
    scores = tau + rng.standard_normal(300)
    expected, result = (priority_test(tau, s, n_permutations=199) for s in (scores, unit * scores))
    assert result.p_value == expected.p_value == 1 / 200
    assert result.statistic == pytest.approx(expected.statistic)
