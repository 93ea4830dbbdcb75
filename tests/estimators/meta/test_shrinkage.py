"""What a ridge penalty takes: the rest of the posterior's covariance, and intervals that cover because of it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Lasso, Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from causalsat import TLearnerEffect
from causalsat.estimators.meta.shrinkage import shrinkage_draws


def line(rng, n=200, p=3, sd=0.7):
    X = rng.standard_normal((n, p)) @ np.diag([1.0, 2.0, 0.3][:p])
    return X, X @ np.array([1.0, -0.5, 0.2][:p]) + sd * rng.standard_normal(n), rng.exponential(size=n)


def test_with_the_estimates_own_noise_it_is_the_posterior():
    rng = np.random.default_rng(0)
    X, y, weight = line(rng)
    penalty, n_draws = 30.0, 40_000
    fitted = Ridge(alpha=penalty).fit(X, y, sample_weight=weight)
    found = np.cov(shrinkage_draws(fitted, X, y, weight, n_draws, rng).T)
    centred = X - np.average(X, axis=0, weights=weight)
    gram = centred.T @ (weight[:, None] * centred)
    inverse = np.linalg.inv(gram + penalty * np.eye(3))
    used = np.trace(inverse @ gram) + 1
    noise = weight @ (y - fitted.predict(X)) ** 2 / (len(y) - used)
    np.testing.assert_allclose(found, noise * (inverse - inverse @ gram @ inverse), rtol=0.06, atol=1e-5)


def test_coefficients_are_those_of_the_features_as_given():
    rng = np.random.default_rng(1)
    X, y, _ = line(rng)
    scaled = shrinkage_draws(
        make_pipeline(StandardScaler(), RidgeCV([30.0])).fit(X, y), X, y, np.ones(200), 20_000, rng
    ).std(axis=0)
    plain = make_pipeline(StandardScaler(), RidgeCV([30.0])).fit(X / 10, y)
    np.testing.assert_allclose(
        shrinkage_draws(plain, X / 10, y, np.ones(200), 20_000, rng).std(axis=0), 10 * scaled, rtol=0.03
    )


@pytest.mark.parametrize(
    "learner",
    [
        Lasso(),
        RandomForestRegressor(5),
        make_pipeline(PolynomialFeatures(2), Ridge()),
        Ridge(alpha=0.0),
        make_pipeline(PolynomialFeatures(2), StandardScaler(), Ridge()),
    ],
    ids=["lasso", "forest", "polynomial", "no penalty", "three steps"],
)
def test_nothing_is_said_of_other_learners(learner):
    rng = np.random.default_rng(2)
    X, y, weight = line(rng)
    assert not shrinkage_draws(learner.fit(X, y), X, y, weight, 10, rng).any()


def test_predictions_and_the_average_effect_stay(monkeypatch):
    rng = np.random.default_rng(3)
    X, _, _ = line(rng)
    t = np.arange(200) % 2
    y = t * (1 + X[:, 0]) + rng.standard_normal(200)
    wide = TLearnerEffect(n_bootstrap=40).fit(X, y, treatment=t)
    monkeypatch.setattr("causalsat.estimators.meta.base.shrinkage_draws", lambda *given: np.zeros((given[4], 3)))
    narrow = TLearnerEffect(n_bootstrap=40).fit(X, y, treatment=t)
    np.testing.assert_allclose(wide.predict(X), narrow.predict(X), atol=1e-10)
    average = [est.effect(X).draws.mean(axis=1) for est in (wide, narrow)]
    np.testing.assert_allclose(*average, atol=1e-10)
    assert (wide.effect(X).sd() ** 2).mean() > (narrow.effect(X).sd() ** 2).mean()


@pytest.mark.slow
@pytest.mark.statistical
def test_intervals_of_a_penalised_learner_cover_effects_of_its_prior(monkeypatch):
    """Slopes of both arms from the prior of the penalty: 90 % intervals cover 90 %, and too few without."""
    rng = np.random.default_rng(4)
    n, p, penalty, trials = 160, 6, 160.0, 24
    model = Ridge(alpha=penalty)
    covered: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(trials):
        X, t = rng.standard_normal((n, p)), rng.permutation(n) % 2
        slopes = rng.standard_normal((2, p)) / np.sqrt(penalty)  # noise 1
        y = np.where(t == 1, 1 + X @ slopes[1], X @ slopes[0]) + rng.standard_normal(n)
        places = rng.standard_normal((200, p))
        truth = 1 + places @ (slopes[1] - slopes[0])
        for whole in (True, False):
            with monkeypatch.context() as patch:
                if not whole:
                    patch.setattr(
                        "causalsat.estimators.meta.base.shrinkage_draws", lambda *given: np.zeros((given[4], p))
                    )
                est = TLearnerEffect(model, n_bootstrap=100, lack_of_fit=1e-6).fit(X, y, treatment=t)
            lower, upper = est.effect(places).interval(0.9).T
            covered[whole].append(float(((lower < truth) & (truth < upper)).mean()))
    assert 0.85 < np.mean(covered[True]) < 0.96
    assert np.mean(covered[False]) < np.mean(covered[True]) - 0.04
