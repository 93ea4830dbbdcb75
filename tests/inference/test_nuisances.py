"""Nuisances, folds and column selection against known truths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor

from causalsat.exceptions import ColumnError, DataError, DataWarning, OverlapWarning, ParameterError
from causalsat.inference.folds import assign_folds, cluster_arms
from causalsat.inference.nuisances import crossfit_nuisances, dr_scores


def confounded(n=6000, seed=0):
    """Treatment and outcome depend on x0; the average effect is 1, the difference in means is near 2."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2))
    e = 1 / (1 + np.exp(-X[:, 0]))
    t = (rng.random(n) < e).astype(float)
    y = 1.2 * X[:, 0] + t * (1 + 0.5 * X[:, 1]) + 0.5 * rng.standard_normal(n)
    return X, y, t, e


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
@pytest.mark.parametrize(
    ("outcome", "propensity", "unbiased"),
    [
        (LinearRegression(), LogisticRegression(), True),
        (LinearRegression(), DummyClassifier(), True),  # wrong propensity, right outcome
        (DummyRegressor(), LogisticRegression(), True),  # wrong outcome, right propensity
        (DummyRegressor(), DummyClassifier(), False),  # both wrong: the confounding stays
    ],
)
def test_scores_are_doubly_robust(outcome, propensity, unbiased):
    X, y, t, _ = confounded()
    nuisances = crossfit_nuisances(X, y, t, outcome_model=outcome, propensity_model=propensity)
    scores = dr_scores(y, t, nuisances)
    se = scores.std() / np.sqrt(len(y))
    if unbiased:
        assert abs(scores.mean() - 1) < 3 * se
    else:
        assert scores.mean() - 1 > 20 * se


@pytest.mark.parametrize("labelled", ["X", "y"])
def test_scores_go_by_the_labels_of_the_nuisances(labelled):
    """Outcome and treatment shuffled together are put back by their labels; arrays in another order cannot be."""
    X, y, t, e = confounded(300)
    labels = [f"v{i}" for i in range(len(y))]
    outcome, treated = pd.Series(y, labels), pd.Series(t, labels)
    table = pd.DataFrame(X, labels) if labelled == "X" else X
    nuisances = crossfit_nuisances(table, outcome, treated, propensity=e)
    expected = dr_scores(y, t, nuisances)
    order = np.random.default_rng(0).permutation(len(y))
    np.testing.assert_array_equal(dr_scores(outcome.iloc[order], treated.iloc[order], nuisances), expected)
    np.testing.assert_array_equal(dr_scores(outcome.iloc[order], treated, nuisances), expected)
    with pytest.raises(DataError, match="y has other labels than X"):
        dr_scores(outcome.reset_index(drop=True), treated, nuisances)
    with pytest.raises(DataError, match="y of shape"):
        dr_scores(y[1:], t[1:], nuisances)


def test_scores_regress_on_the_modifier_of_the_effect():
    X, y, t, e = confounded()
    nuisances = crossfit_nuisances(X, y, t, propensity=e)
    slope = np.polyfit(X[:, 1], dr_scores(y, t, nuisances), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.06)
    np.testing.assert_allclose(nuisances.m, e * nuisances.mu1 + (1 - e) * nuisances.mu0, rtol=0.2, atol=0.05)


def test_a_unit_is_predicted_without_its_cluster():
    """A nearest neighbour would find the cluster's own outcome if it were in the training fold."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    X = rng.standard_normal((60, 2))[groups] + 1e-3 * rng.standard_normal((300, 2))
    y = 5 * rng.standard_normal(60)[groups]
    t = (np.arange(300) % 2).astype(float)
    near = KNeighborsRegressor(1)
    honest = crossfit_nuisances(X, y, t, groups=groups, outcome_model=near)
    leaky = crossfit_nuisances(X, y, t, outcome_model=near)
    assert abs(np.corrcoef(honest.mu0, y)[0, 1]) < 0.3
    assert np.corrcoef(leaky.mu0, y)[0, 1] > 0.7
    assert all(len(np.unique(honest.fold[groups == g])) == 1 for g in range(60))


def test_row_order_and_cluster_labels_do_not_matter():
    X, y, t, _ = confounded(400)
    groups = np.repeat(np.arange(80), 5)
    first = crossfit_nuisances(X, y, t, groups=groups, random_state=4, propensity_model="logistic")
    order = np.random.default_rng(1).permutation(400)
    labels = np.array([f"v{(7 * g) % 80}" for g in groups])
    second = crossfit_nuisances(
        X[order], y[order], t[order], groups=labels[order], random_state=4, propensity_model="logistic"
    )
    np.testing.assert_array_equal(first.fold[order], second.fold)
    np.testing.assert_allclose(first.mu1[order], second.mu1)
    np.testing.assert_allclose(first.propensity[order], second.propensity, rtol=1e-4)
    other = crossfit_nuisances(X, y, t, groups=groups, random_state=5, propensity=0.5)
    assert (other.fold != first.fold).any()


def test_binary_outcomes_through_a_classifier():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((10_000, 1)), rng.permutation(10_000) % 2
    p = 1 / (1 + np.exp(-(X[:, 0] + t)))
    y = (rng.random(10_000) < p).astype(float)
    nuisances = crossfit_nuisances(X, y, t, outcome_model=LogisticRegression(C=1e3))
    np.testing.assert_allclose(nuisances.mu1, 1 / (1 + np.exp(-(X[:, 0] + 1))), atol=0.06)
    truth = (1 / (1 + np.exp(-(X[:, 0] + 1))) - 1 / (1 + np.exp(-X[:, 0]))).mean()
    assert dr_scores(y, t, nuisances).mean() == pytest.approx(truth, abs=0.05)


def test_missing_values_reach_learners_that_take_them_and_are_imputed_for_the_others():
    X, y, t, e = confounded(1000)
    X[::5, 1] = np.nan
    for model in (None, HistGradientBoostingRegressor(max_iter=20)):
        scores = dr_scores(y, t, crossfit_nuisances(X, y, t, outcome_model=model, propensity=e))
        assert abs(scores.mean() - 1) < 4 * scores.std() / np.sqrt(1000)


def test_weights_reach_the_learners_and_a_learner_without_is_reported():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((400, 1)), rng.permutation(400) % 2
    half = np.arange(400) < 200
    y, w = np.where(half, 3.0, 0.0), np.where(half, 1.0, 1e-6)
    nuisances = crossfit_nuisances(X, y, t, sample_weight=w)
    np.testing.assert_allclose(nuisances.mu0, 3, atol=0.01)
    with pytest.warns(DataWarning, match="takes no sample_weight"):
        crossfit_nuisances(X, y, t, sample_weight=w, outcome_model=KNeighborsRegressor())


def test_clipping_is_counted_by_arm():
    X, y, t, _ = confounded(200)
    e = np.where(np.arange(200) < 5, 0.001, 0.5)
    t[:5] = [1, 0, 0, 0, 0]
    with pytest.warns(OverlapWarning, match=r"5 of 200 .*\(1 treated, 4 control\)"):
        nuisances = crossfit_nuisances(X, y, t, propensity=e)
    assert nuisances.clipped.sum() == 5
    assert nuisances.propensity.min() == 0.01


def test_a_constant_propensity_is_questioned_where_features_predict_the_treatment():
    X, y, t, _ = confounded(1000)
    with pytest.warns(DataWarning, match="features predict the treatment"):
        crossfit_nuisances(X, y, t)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n_splits": 1}, ParameterError, "n_splits"),
        ({"n_splits": 60}, DataError, "folds"),
        ({"min_propensity": 0.6}, ParameterError, "min_propensity"),
        ({"propensity_model": "forest"}, ParameterError, "logistic"),
        ({"propensity": 1.5}, DataError, "between 0 and 1"),
        ({"groups": "village"}, ColumnError, "names a column"),
        ({"outcome_model": LogisticRegression()}, (ParameterError, ValueError), None),
    ],
)
def test_bad_nuisance_options(options, error, says):
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((100, 2)), np.arange(100) % 2
    y = np.arange(100) % 3 if "outcome_model" in options else rng.standard_normal(100)
    with pytest.raises(error, match=says):
        crossfit_nuisances(X, y, t, **options)


# ---------------------------------------------------------------------------- folds
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.lists(st.integers(1, 9), min_size=14, max_size=40), st.integers(0, 99))
def test_folds_keep_clusters_whole_and_both_arms_everywhere(n_splits, sizes, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    t = (np.arange(len(sizes)) % 2)[groups].astype(float)
    fold = assign_folds(n_splits, np.random.default_rng(seed), groups=groups, treatment=t)
    assert set(fold) == set(range(n_splits))
    assert all(len(set(fold[groups == g])) == 1 for g in range(len(sizes)))
    for k in range(n_splits):
        assert set(t[fold == k]) == {0.0, 1.0}
    units = np.bincount(fold)
    assert units.max() - units.min() <= 3 * max(sizes)


def test_folds_of_single_units_are_even_and_random():
    fold = assign_folds(5, np.random.default_rng(0), n=103)
    assert sorted(np.bincount(fold)) == [20, 20, 21, 21, 21]
    assert (fold != assign_folds(5, np.random.default_rng(1), n=103)).any()
    with pytest.raises(ParameterError, match="no groups"):
        assign_folds(2, np.random.default_rng(0))


def test_arms_of_clusters():
    assert cluster_arms(np.array([0, 1, 1, 2]), np.array([1.0, 0, 1, 0])).tolist() == [1, 2, 0]


def test_treatment_by_name_is_not_a_feature():
    X, y, t, _ = confounded(300)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(arm=t)
    by_name = crossfit_nuisances(frame, y, "arm", propensity=0.5)
    by_value = crossfit_nuisances(X, y, t, propensity=0.5)
    np.testing.assert_allclose(by_name.mu0, by_value.mu0)


def test_weights_reach_the_learners_with_metadata_routing_on_or_off():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((120, 2)), np.arange(120) % 2
    y, weight = X[:, 0] + t, rng.uniform(0.5, 2.0, 120)
    found = []
    for routing in (False, True):
        with sklearn.config_context(enable_metadata_routing=routing):
            found.append(crossfit_nuisances(X, y, t, sample_weight=weight))
    np.testing.assert_array_equal(found[0].mu1, found[1].mu1)
