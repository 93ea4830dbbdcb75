"""Multiple imputation: coverage of units that miss a modifier, confounders with missing values, order of rows."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import DoublyRobustEffect, MultipleImputationEffect
from causalsat.exceptions import ParameterError


def world(seed, n=500, confounded=False):
    """Three correlated features; the first moves outcome and effect, and is missing by the second."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)) @ np.array([[1.0, 0.0, 0.0], [0.5, 0.87, 0.0], [0.0, 0.3, 0.95]]).T
    e = 1 / (1 + np.exp(-X[:, 0])) if confounded else np.full(n, 0.5)
    t = (rng.random(n) < e).astype(float)
    tau = np.ones(n) if confounded else 1 + X[:, 0]
    y = X[:, 0] + X[:, 1] + t * tau + rng.standard_normal(n)
    missing = rng.random(n) < 1 / (1 + np.exp(1 - X[:, 1]))
    X[missing, 0] = np.nan
    return X, y, t, tau, missing


@pytest.mark.statistical
def test_intervals_of_units_that_miss_a_modifier_hold_their_effect():
    covered = {"mean": [], "imputed": []}
    for seed in range(6):
        X, y, t, tau, missing = world(seed)
        for name, est in (
            ("mean", DoublyRobustEffect(random_state=0)),
            ("imputed", MultipleImputationEffect(DoublyRobustEffect(random_state=0), n_imputations=5)),
        ):
            low, high = est.fit(X, y, treatment=t).effect(X).interval(0.9).T
            covered[name].append(((low <= tau) & (tau <= high))[missing].mean())
    assert np.mean(covered["mean"]) < 0.6
    assert np.mean(covered["imputed"]) == pytest.approx(0.9, abs=0.05)


@pytest.mark.statistical
def test_a_confounder_with_missing_values_is_adjusted_for():
    base = DoublyRobustEffect(propensity_model="logistic", random_state=0)
    errors = {"mean": [], "imputed": []}
    for seed in range(10):
        X, y, t, _, _ = world(seed, confounded=True)
        for name, est in (("mean", base), ("imputed", MultipleImputationEffect(base, n_imputations=3))):
            errors[name].append(est.fit(X, y, treatment=t).average_effect(X).mean()[0] - 1)
    assert np.mean(errors["mean"]) > 0.1
    assert abs(np.mean(errors["imputed"])) < 0.5 * np.mean(errors["mean"])


def test_without_missing_values_it_is_the_estimator():
    X, y, t, _, _ = world(0)
    X[np.isnan(X)] = 0.0
    base = DoublyRobustEffect(random_state=0)
    both = MultipleImputationEffect(base).fit(X, y, treatment=t), base.fit(X, y, treatment=t)
    np.testing.assert_array_equal(both[0].effect(X).draws, both[1].effect(X).draws)
    assert both[0].fraction_missing_ == 0


def test_neither_rows_nor_labels_of_clusters_move_the_imputations():
    X, y, t, _, _ = world(3, n=200)
    village = np.repeat(np.arange(40), 5)
    order = np.random.default_rng(0).permutation(200)
    est = MultipleImputationEffect(n_imputations=3, random_state=0)
    first = est.fit(X, y, treatment=t, groups=village).predict(X)
    second = est.fit(X[order], y[order], treatment=t[order], groups=np.array([f"v{97 - v}" for v in village])[order])
    np.testing.assert_allclose(second.predict(X), first, rtol=1e-7, atol=1e-9)


def test_scales_of_features_and_outcome_do_not_matter():
    X, y, t, _, _ = world(4, n=200)
    est = MultipleImputationEffect(n_imputations=3, random_state=0)
    first = est.fit(X, y, treatment=t).effect(X)
    scaled = X * np.array([1e-6, 1e6, 1.0]) + np.array([0.0, 0.0, 1e3])
    second = est.fit(scaled, 1e4 * y, treatment=t).effect(scaled)
    np.testing.assert_allclose(second.mean() / 1e4, first.mean(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(second.sd() / 1e4, first.sd(), rtol=1e-3, atol=1e-4)


def test_the_pooled_variance_is_rubins():
    X, y, t, _, _ = world(5, n=200)
    est = MultipleImputationEffect(n_imputations=5, random_state=0).fit(X, y, treatment=t)
    means, sds = est.ate_[:-1].T
    total = (sds**2).mean() + 1.2 * means.var(ddof=1)
    assert est.ate_[-1, 1] == pytest.approx(np.sqrt(total), rel=1e-12)
    assert est.fraction_missing_ == pytest.approx(1.2 * means.var(ddof=1) / total, rel=1e-12)
    assert 0 < est.fraction_missing_ < 0.6


def test_what_is_no_estimator_or_takes_no_doses_is_refused():
    X, y, t, _, _ = world(6, n=60)
    with pytest.raises(ParameterError, match="DoublyRobustEffect"):
        MultipleImputationEffect(DoublyRobustEffect).fit(X, y, treatment=t)
    with pytest.raises(ParameterError, match="binary"):
        MultipleImputationEffect(DoublyRobustEffect()).fit(X, y, treatment=t * np.arange(60))
