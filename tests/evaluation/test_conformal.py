"""Conformal intervals: exact quantiles by hand, coverage of new clusters where naive intervals fail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import QuantileRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalsat import EffectPosterior
from causalsat.evaluation import conformal_calibrate, conformal_individual_effects, conformal_outcome_intervals
from causalsat.evaluation.conformal import likelihood_ratio
from causalsat.evaluation.weighted_quantiles import calibrate, conformal_quantile
from causalsat.exceptions import ColumnError, DataError, DataWarning, ParameterError

LINEAR = QuantileRegressor(alpha=0.0)


class Zero:
    """A quantile model that predicts zero: the intervals are then made by the conformal step alone."""

    def __init__(self, quantile=0.5):
        self.quantile = quantile

    def get_params(self, deep=True):
        return {"quantile": self.quantile}

    def set_params(self, quantile):
        self.quantile = quantile
        return self

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(len(X))


def trial(rng, n_clusters, size, *, by_cluster=True, new=0):
    """Villages with large effects of their own; the new ones (the last) come with both potential outcomes."""
    total = n_clusters + new
    groups = np.repeat(np.arange(total), size)
    n = len(groups)
    x = rng.standard_normal(n)
    village = 1.5 * rng.standard_normal(total)[groups]
    tau = 1 + 0.5 * x + 0.5 * rng.standard_normal(n)  # individual effects vary beyond x
    y0 = x + village + (1 + 0.5 * np.abs(x)) * rng.standard_normal(n)
    t = (rng.permutation(total) % 2)[groups] if by_cluster else rng.permutation(n) % 2
    return x[:, None], y0, y0 + tau, t, groups


# ---------------------------------------------------------------------- the quantile
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.floats(0.05, 0.99), st.integers(0, 9999))
def test_without_clusters_or_weights_it_is_the_split_conformal_quantile(n, level, seed):
    scores = np.random.default_rng(seed).standard_normal(n)
    rank = int(np.ceil(level * (n + 1) - 1e-9))
    by_hand = np.sort(scores)[rank - 1] if rank <= n else np.inf
    assert conformal_quantile(scores, np.ones(n), np.ones(1), level)[0] == by_hand


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.floats(0.3, 0.95), st.integers(0, 9999))
def test_weighted_quantile_equals_a_search_over_all_scores(n, level, seed):
    rng = np.random.default_rng(seed)
    scores, mass, new = rng.standard_normal(n), rng.uniform(0.1, 3, n), rng.uniform(0.1, 3)
    enough = [s for s in scores if mass[scores <= s].sum() >= level * (mass.sum() + new)]
    assert conformal_quantile(scores, mass, np.array([new]), level)[0] == (min(enough) if enough else np.inf)


def test_hierarchical_masses_by_hand():
    scores, cluster = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0, 0, 0, 0, 1])
    found = calibrate(scores, cluster, np.ones(5, bool), np.ones(5), "hierarchical", np.random.default_rng(0))
    np.testing.assert_allclose(found.mass, [0.25, 0.25, 0.25, 0.25, 1])  # each cluster 1, the new one 1 at infinity
    assert found.quantile(None, 1, 1 / 3)[0] == 4.0
    assert found.quantile(None, 1, 0.34)[0] == 5.0
    assert found.quantile(None, 1, 0.7)[0] == np.inf


def test_likelihood_ratios_are_those_of_lei_and_candes():
    e = np.array([0.2, 0.8])
    np.testing.assert_allclose(likelihood_ratio(e, 1, None), [5, 1.25])
    np.testing.assert_allclose(likelihood_ratio(e, 0, None), [1.25, 5])
    np.testing.assert_allclose(likelihood_ratio(e, 1, 0), [4, 0.25])
    np.testing.assert_allclose(likelihood_ratio(e, 0, 1), [0.25, 4])
    np.testing.assert_allclose(likelihood_ratio(e, 1, 1), 1)


# ---------------------------------------------------------------------- coverage
def covered(n_clusters, size, level, *, groups, method="hierarchical", repeats=1500, seed=0, weights=None):
    """Share of new clusters' units inside [-q, q], from calibration on scores with a large cluster effect."""
    rng = np.random.default_rng(seed)
    hits = []
    for _ in range(repeats):
        village = rng.standard_normal(n_clusters + 1)
        y = village[:-1].repeat(size) + 0.3 * rng.standard_normal(n_clusters * size)
        zero, labels = np.zeros(len(y)), np.arange(n_clusters).repeat(size) if groups else None
        found = conformal_calibrate(zero, zero, y, groups=labels, level=level, method=method, random_state=rng)
        new = village[-1] + 0.3 * rng.standard_normal(200)
        hits.append(np.mean(np.abs(new) <= found.offset))
    return np.mean(hits), np.std(hits) / np.sqrt(repeats)


@pytest.mark.statistical
@pytest.mark.parametrize("method", ["hierarchical", "subsample"])
def test_new_clusters_are_covered(method):
    coverage, se = covered(19, 15, 0.8, groups=True, method=method)
    assert coverage > 0.8 - 3 * se
    assert coverage < 0.8 + 0.05 + 3 * se  # at most one cluster's mass too wide


@pytest.mark.statistical
def test_units_taken_as_independent_undercover():
    """The guard fails when the clusters are not told: the reason for this module."""
    coverage, se = covered(6, 15, 0.9, groups=False)
    assert coverage < 0.9 - 3 * se


@pytest.mark.statistical
@pytest.mark.parametrize("by_cluster", [True, False])
def test_outcomes_of_both_arms_are_covered_in_new_clusters(by_cluster):
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(80):
        X, y0, y1, t, groups = trial(rng, 60, 6, by_cluster=by_cluster, new=30)
        old = groups < 60
        y = np.where(t, y1, y0)
        found = conformal_outcome_intervals(
            X[old], y[old], t[old], X[~old], groups=groups[old], level=0.8, quantile_model=LINEAR, random_state=rng
        )
        hits.append([found.control.covers(y0[~old]).mean(), found.treated.covers(y1[~old]).mean()])
    coverage, se = np.mean(hits, axis=0), np.std(hits, axis=0) / np.sqrt(len(hits))
    assert (coverage > 0.8 - 3 * se).all()
    assert (coverage < 0.93).all()


@pytest.mark.statistical
def test_propensities_that_depend_on_features_are_corrected_by_weights():
    """Treated units are those with small x, whose outcomes vary less: without weights the others are missed."""
    rng = np.random.default_rng(2)
    hits = {True: [], False: []}
    for _ in range(150):
        n = 500
        x = rng.uniform(-1, 1, n + 300)
        e = 1 / (1 + np.exp(3 * x))
        t = (rng.uniform(size=n + 300) < e).astype(int)
        y1 = np.exp(1.5 * x) * rng.standard_normal(n + 300)
        y = np.where(t, y1, 0.0)
        for weighted in hits:
            found = conformal_outcome_intervals(
                x[:n, None],
                y[:n],
                t[:n],
                x[n:, None],
                propensity=e[:n] if weighted else None,
                propensity_new=e[n:] if weighted else None,
                level=0.8,
                quantile_model=Zero(),
                random_state=rng,
            )
            hits[weighted].append(found.treated.covers(y1[n:]).mean())
    se = np.std(hits[True]) / np.sqrt(150)
    assert np.mean(hits[True]) > 0.8 - 3 * se
    assert np.mean(hits[True]) < 0.86
    assert np.mean(hits[False]) < 0.75


@pytest.mark.statistical
def test_weights_within_clusters_keep_the_coverage():
    """Units of a village are treated with probabilities that depend on x; masses are weight / cluster size."""
    rng = np.random.default_rng(3)
    hits = []
    for _ in range(200):
        groups = np.repeat(np.arange(140), 5)
        x = rng.uniform(-1, 1, 700)
        e = 1 / (1 + np.exp(x))
        t = (rng.uniform(size=700) < e).astype(int)
        y1 = np.exp(1.5 * x) * rng.standard_normal(700) + rng.standard_normal(140)[groups]
        old = groups < 120
        found = conformal_outcome_intervals(
            x[old, None],
            np.where(t, y1, 0.0)[old],
            t[old],
            x[~old, None],
            groups=groups[old],
            propensity=e[old],
            propensity_new=e[~old],
            level=0.8,
            quantile_model=Zero(),
            random_state=rng,
        )
        hits.append(found.treated.covers(y1[~old]).mean())
    assert np.mean(hits) > 0.8 - 3 * np.std(hits) / np.sqrt(200)
    assert np.mean(hits) < 0.95


@pytest.mark.statistical
@pytest.mark.parametrize("approach", ["nested", "bonferroni"])
def test_individual_effects_are_covered_in_new_clusters(approach):
    rng = np.random.default_rng(4)
    hits = []
    for _ in range(50):
        X, y0, y1, t, groups = trial(rng, 120, 4, new=30)
        old = groups < 120
        found = conformal_individual_effects(
            X[old],
            np.where(t, y1, y0)[old],
            t[old],
            X[~old],
            groups=groups[old],
            level=0.8,
            quantile_model=LINEAR,
            approach=approach,
            random_state=rng,
        )
        assert found.of == "individual effect"
        hits.append(found.covers((y1 - y0)[~old]).mean())
    assert np.mean(hits) > 0.8 - 3 * np.std(hits) / np.sqrt(50)


def test_nested_intervals_are_those_of_one_arm_where_the_other_is_known():
    """Y(0) = 0 for all: the counterfactual intervals are points, and the effect's are those of Y(1)."""
    rng = np.random.default_rng(5)
    X, t = rng.standard_normal((4000, 1)), np.arange(4000) % 2
    y1 = rng.standard_normal(4000)
    found = conformal_individual_effects(X, t * y1, t, X[:10], level=0.8, quantile_model=LINEAR)
    from scipy.stats import norm

    # treated units' effects are known, control units' are intervals of level 0.9: at 0.9 the hull is at most that
    assert np.abs(found.upper).max() < norm.ppf(0.97)
    assert np.abs(found.upper).min() > norm.ppf(0.9)


# ---------------------------------------------------------------------- what is returned, and refused
def test_calibration_narrows_what_is_too_wide_and_never_turns_over():
    y = np.random.default_rng(0).standard_normal(2000)
    found = conformal_calibrate(np.full(2000, -5.0), np.full(2000, 5.0), y, level=0.9)
    assert found.offset < -3
    assert found.coverage == 1
    low, high = found.apply(np.array([-5.0, -1.0]), np.array([5.0, 1.0]))
    assert high[0] == pytest.approx(1.645, abs=0.15)
    assert low[1] == high[1] == pytest.approx(0)
    assert found.to_dataframe().loc[0, "n_units"] == 2000


def test_too_few_clusters_give_infinite_intervals_and_say_so():
    y, groups = np.random.default_rng(0).standard_normal(80), np.repeat(np.arange(8), 10)
    with pytest.warns(DataWarning, match="8 calibration clusters"):
        found = conformal_calibrate(0 * y, 0 * y, y, groups=groups, level=0.9)
    assert found.offset == np.inf
    low, high = found.apply([0.0], [1.0])
    assert (low[0], high[0]) == (-np.inf, np.inf)
    X, y0, y1, t, groups = trial(np.random.default_rng(0), 12, 5)
    with pytest.warns(DataWarning, match="infinite"):
        effects = conformal_individual_effects(X, np.where(t, y1, y0), t, X, groups=groups, quantile_model=LINEAR)
    assert np.isinf(effects.width).all()


def test_results_do_not_depend_on_the_coding_of_clusters_and_follow_the_frames():
    X, y0, y1, t, groups = trial(np.random.default_rng(0), 60, 5)
    frame = pd.DataFrame({"x": X[:, 0], "arm": t, "village": [f"v{g:03d}" for g in groups]})
    new = pd.DataFrame({"x": [0.0, 1.0]}, index=["here", "there"])
    y = np.where(t, y1, y0)
    pipeline = make_pipeline(StandardScaler(), LINEAR)
    named = conformal_outcome_intervals(frame, y, "arm", new, groups="village", level=0.7, quantile_model=pipeline)
    plain = conformal_outcome_intervals(X, y, t, new.to_numpy(), groups=groups, level=0.7, quantile_model=pipeline)
    np.testing.assert_allclose(named.treated.lower, plain.treated.lower)
    table = named.to_dataframe()
    assert list(table.columns) == ["control_lower", "control_upper", "treated_lower", "treated_upper"]
    assert list(table.index) == ["here", "there"]
    posterior = EffectPosterior(np.random.default_rng(0).standard_normal((500, 2)))
    beside = named.treated.to_dataframe(posterior)
    assert (beside["posterior_lower"] < beside["posterior_mean"]).all()
    np.testing.assert_allclose(beside["width"], named.treated.width)


def test_default_trees_take_missing_values_and_weights():
    rng = np.random.default_rng(0)
    X, y0, y1, t, groups = trial(rng, 100, 5)
    X[::7] = np.nan
    found = conformal_outcome_intervals(
        X, np.where(t, y1, y0), t, X[:5], groups=groups, level=0.7, sample_weight=rng.uniform(0.5, 2, 500)
    )
    assert np.isfinite(found.control.width).all()


def test_unknown_propensities_of_new_units_are_conservative():
    rng = np.random.default_rng(0)
    X, e = rng.standard_normal((800, 1)), rng.uniform(0.2, 0.8, 800)
    t, y = (rng.uniform(size=800) < e).astype(int), rng.standard_normal(800)
    known, unknown = (
        conformal_outcome_intervals(X, y, t, X[:50], propensity=e, propensity_new=new, quantile_model=LINEAR)
        for new in (0.7, None)
    )
    assert (unknown.treated.width >= known.treated.width - 1e-12).all()
    assert unknown.treated.width.max() > known.treated.width.max()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"level": 1.2}, ParameterError, "level"),
        ({"method": "naive"}, ParameterError, "method"),
        ({"quantile_model": Ridge()}, ParameterError, "quantile"),
        ({"approach": "exact"}, ParameterError, "approach"),
        ({"propensity": 1.0}, DataError, "between 0 and 1"),
        ({"X_new": np.zeros((2, 4))}, DataError, "X_new of shape"),
        ({"y": np.full(100, np.nan)}, DataError, "missing"),
    ],
)
def test_bad_input_gets_a_clear_error(options, error, says):
    X, y0, y1, t, groups = trial(np.random.default_rng(0), 20, 5)
    given = {"X": X, "y": np.where(t, y1, y0), "treatment": t, "X_new": X, "groups": groups, **options}
    with pytest.raises(error, match=says):
        conformal_individual_effects(**given)


def test_crossed_bounds_are_refused():
    with pytest.raises(DataError, match="above their upper"):
        conformal_calibrate([1.0, 1.0], [0.0, 2.0], [0.0, 0.0])


def test_a_column_that_new_units_lack_is_named():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.standard_normal((40, 2)), columns=["a", "b"])
    with pytest.raises(ColumnError, match="without the column 'b'"):
        conformal_outcome_intervals(table, rng.standard_normal(40), np.arange(40) % 2, table[["a"]])
