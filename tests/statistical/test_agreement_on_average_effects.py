"""Weighted average effects agree with weighted least squares of statsmodels and with EconML's linear DR learner."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from causalsat import BayesianLinearEffect, DoublyRobustEffect

sm = pytest.importorskip("statsmodels.api")

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def weighted_trial(n_groups=120, size=6, village=0.5):
    """Effect 1 + x0, and units with large x0 weigh more: the weighted average effect is about 1.3."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_groups), size)
    X = rng.standard_normal((n_groups * size, 2))
    t = (rng.permutation(n_groups) % 2)[groups].astype(float)
    weight = np.exp(0.3 * X[:, 0]) * rng.uniform(0.7, 1.3, len(t))
    noise = village * rng.standard_normal(n_groups)[groups] + rng.standard_normal(len(t))
    return X, X[:, 1] + t * (1 + X[:, 0]) + noise, t, groups, weight


def weighted_least_squares(X, y, t, groups, weight):
    """Lin's (2013) regression with cluster-robust covariance: the average effect and its standard error."""
    centred = X - np.average(X, axis=0, weights=weight)
    design = np.column_stack([np.ones(len(y)), t, centred, centred * t[:, None]])
    found = sm.WLS(y, design, weights=weight).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return found.params[1], found.bse[1]


def test_doubly_robust_effect_is_weighted_least_squares():
    X, y, t, groups, weight = weighted_trial()
    estimate, error = weighted_least_squares(X, y, t, groups, weight)
    plain, _ = weighted_least_squares(X, y, t, groups, np.ones(len(y)))
    assert estimate - plain > 2 * error  # the weights matter
    est = DoublyRobustEffect(outcome_model=LinearRegression())
    est.fit(X, y, treatment=t, groups=groups, sample_weight=weight)
    assert abs(est.ate_.estimate - estimate) < 0.25 * error  # they differ by cross-fitting
    assert est.ate_.se == pytest.approx(error, rel=0.15)


def test_bayesian_linear_effect_is_weighted_least_squares():
    X, y, t, groups, weight = weighted_trial(n_groups=360, size=2, village=0.0)
    estimate, error = weighted_least_squares(X, y, t, groups, weight)
    est = BayesianLinearEffect(n_draws=200, n_tune=150, n_chains=2, random_state=0)
    est.fit(X, y, treatment=t, sample_weight=weight)
    # priors are weak beside 720 units; the model also weighs arms by their noise
    assert abs(est.draws_["ate"].mean() - estimate) < 0.3 * error


def test_weighted_effects_agree_with_econml():
    dr = pytest.importorskip("econml.dr")
    from sklearn.dummy import DummyClassifier

    X, y, t, _, weight = weighted_trial(n_groups=720, size=1, village=0.0)
    ours = DoublyRobustEffect(outcome_model=LinearRegression(), regularisation=None)
    ours.fit(X, y, treatment=t, sample_weight=weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = dr.LinearDRLearner(
            model_regression=LinearRegression(), model_propensity=DummyClassifier(), cv=5, random_state=0
        ).fit(y, t, X=X, sample_weight=weight)
        error = peer.effect_inference(X[:1]).stderr[0]
    np.testing.assert_allclose(ours.predict(X), peer.effect(X), atol=0.6 * error)
