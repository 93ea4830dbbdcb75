"""GaussianProcessEffect: surfaces found, averages, doses, villages, weights, and what does not change an answer."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import GaussianProcessEffect
from causalsat.estimators.gaussian_process import paths as gp_paths
from causalsat.exceptions import CausalsatError, ColumnError, ParameterError, TreatmentError

SMALL = {"n_draws": 80, "n_hyper": 4, "n_burn": 4, "max_iter": 25, "random_state": 0}


def trial(n=200, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    t = rng.integers(0, 2, n).astype(float)
    tau = 1 + np.sin(1.5 * X[:, 0])
    return X, X[:, 1] + t * tau + noise * rng.standard_normal(n), t, tau


@pytest.fixture(scope="module")
def fitted():
    X, y, t, _ = trial()
    return GaussianProcessEffect(**SMALL).fit(X, y, treatment=t)


def test_finds_a_curved_effect_where_it_is(fitted):
    X, _, _, tau = trial(seed=1)
    assert np.sqrt(np.mean((fitted.predict(X) - tau) ** 2)) < 0.3 * tau.std()
    assert np.argmax(fitted.relevance_) in (0, 1)
    assert fitted.relevance_.sum() == pytest.approx(1)
    assert fitted.relevance_[2] < 0.2


def test_effect_is_the_difference_of_outcomes_draw_by_draw(fitted):
    X, *_ = trial(seed=1)
    outcomes = [fitted.predict_outcome(X, treatment=a).draws for a in (1.0, 0.0)]
    np.testing.assert_allclose(fitted.effect(X).draws, outcomes[0] - outcomes[1], atol=1e-8)


def test_mean_is_exact_and_does_not_depend_on_the_number_of_draws():
    X, y, t, _ = trial(120)
    means = [
        GaussianProcessEffect(**{**SMALL, "n_hyper": 1, "n_draws": n}).fit(X, y, treatment=t).predict(X)
        for n in (2, 60)
    ]
    np.testing.assert_allclose(*means, atol=1e-7)


def test_draws_of_a_place_do_not_depend_on_the_others(fitted, monkeypatch):
    X, *_ = trial(seed=2)
    whole = fitted.effect(X).draws
    monkeypatch.setattr(gp_paths, "CHUNK", 5_000)  # chunks of a few rows
    np.testing.assert_allclose(fitted.effect(X).draws, whole, atol=1e-9)
    np.testing.assert_allclose(fitted.effect(X[50:52]).draws, whole[:, 50:52], atol=1e-9)


def test_features_that_are_no_modifiers_do_not_move_the_effect():
    X, y, t, _ = trial(150)
    est = GaussianProcessEffect(modifiers=[0], **SMALL).fit(X, y, treatment=t)
    other = np.column_stack([X[:, 0], X[::-1, 1:]])
    np.testing.assert_allclose(est.effect(other).draws, est.effect(X).draws, atol=1e-9)
    assert not np.allclose(est.predict_outcome(other).mean(), est.predict_outcome(X).mean())
    with pytest.raises(ColumnError, match="matches no column"):
        GaussianProcessEffect(modifiers="img*").fit(X, y, treatment=t)


def test_dose_response_curve_is_found():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((250, 2)), rng.uniform(0, 2, 250)
    y = X[:, 0] + np.sin(2 * t) * (1 + 0.5 * X[:, 1]) + 0.2 * rng.standard_normal(250)
    est = GaussianProcessEffect(**SMALL).fit(X, y, treatment=t)
    for dose in (0.3, 1.0, 1.7):
        truth = (np.sin(2 * dose) - np.sin(1.0)) * (1 + 0.5 * X[:, 1])
        effect = est.effect(X, treatment=dose, baseline=0.5).mean()
        assert np.sqrt(np.mean((effect - truth) ** 2)) < 0.2
    curve = [float(est.predict_outcome(X, treatment=d).mean().mean()) for d in (0.2, 0.8, 1.6)]
    truth = [np.mean(X[:, 0] + np.sin(2 * d) * (1 + 0.5 * X[:, 1])) for d in (0.2, 0.8, 1.6)]
    np.testing.assert_allclose(curve, truth, atol=0.12)
    assert "noise sd" in str(est.summary())


def test_dose_responses_that_differ_in_size_alone_are_found_with_few_units():
    """One shape, sizes that depend on two of six features: without the learnt curve the error was 0.26 to 0.33."""
    rng = np.random.default_rng(3)
    X, t = rng.random((150, 6)), rng.random(150)

    def mean(X, dose):
        return np.sin(3 * np.pi * dose) / (1.2 - dose) * (0.5 + 3 * X[:, 0] * X[:, 1])

    y = mean(X, t) + 0.4 * rng.standard_normal(150)
    est = GaussianProcessEffect(n_draws=100, random_state=0).fit(X, y, treatment=t)
    new, doses = rng.random((200, 6)), rng.random(200)
    posterior = est.predict_outcome(new, treatment=doses)
    assert np.sqrt(np.mean((posterior.mean() - mean(new, doses)) ** 2)) < 0.23
    lower, upper = posterior.interval(0.9).T
    assert np.mean((lower < mean(new, doses)) & (mean(new, doses) < upper)) > 0.8


def test_noise_of_each_arm_is_found():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((400, 2)), np.arange(400) % 2
    y = X[:, 0] + t + np.where(t, 1.5, 0.5) * rng.standard_normal(400)
    found = GaussianProcessEffect(**SMALL).fit(X, y, treatment=t).hyperparameters_
    assert found["noise sd, control"] == pytest.approx(0.5, rel=0.15)
    assert found["noise sd, treated"] == pytest.approx(1.5, rel=0.15)


def test_village_sd_is_found_and_widens_the_average():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    t = (np.arange(40) % 2)[groups]
    X = rng.standard_normal((240, 2))
    y = X[:, 0] + t + rng.standard_normal(40)[groups] + 0.5 * rng.standard_normal(240)
    naive, honest = (
        GaussianProcessEffect(group_effects=use, **SMALL).fit(X, y, treatment=t, groups=groups)
        for use in (False, True)
    )
    assert honest.hyperparameters_["sd of villages"] == pytest.approx(1.0, rel=0.35)
    sd = honest.effect(X).ate().sd()[0]
    assert sd > 1.5 * naive.effect(X).ate().sd()[0]
    assert sd == pytest.approx(2 / np.sqrt(40), rel=0.4)  # that of a comparison of 20 with 20 village means


def test_no_heterogeneity_is_not_invented():
    rng = np.random.default_rng(3)
    X, t = rng.standard_normal((300, 5)), np.arange(300) % 2
    y = np.sin(X[:, 0]) + X[:, 1] + t + rng.standard_normal(300)
    several = {**SMALL, "n_hyper": 12, "n_chains": 3}  # one chain of four draws has an error of a quarter sd
    post = GaussianProcessEffect(**several).fit(X, y, treatment=t).effect(X)
    assert post.mean().std() < 0.3
    lower, upper = post.interval(0.95).T
    assert np.mean((lower < 1) & (upper > 1)) > 0.9


@pytest.mark.parametrize("columns", [1, 12])
def test_effects_of_one_feature_and_of_all_twelve_are_found(columns):
    """Of equal spread: how many features matter is learnt."""
    rng = np.random.default_rng(5)
    X, t = rng.standard_normal((250, 12)), np.arange(250) % 2
    score = X[:, :columns].sum(axis=1) / np.sqrt(columns)
    y = score + t * (1 + score) + 0.5 * rng.standard_normal(250)
    post = GaussianProcessEffect(**SMALL).fit(X[:200], y[:200], treatment=t[:200]).effect(X)
    lower, upper = post.interval(0.9).T
    assert np.sqrt(np.mean((post.mean() - 1 - score) ** 2)) < 0.25
    assert np.mean((lower < 1 + score) & (1 + score < upper)) > 0.85
    assert np.mean(upper - lower) < 1.0


def test_a_known_propensity_is_a_prognostic_feature():
    X, y, t, tau = trial(150)
    e = np.clip(0.5 + 0.1 * X[:, 2], 0.1, 0.9)
    est = GaussianProcessEffect(**SMALL).fit(X, y, treatment=t, propensity=e)
    assert est.has_propensity_
    assert np.corrcoef(est.predict(X), tau)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"n_draws": 1}, "n_draws=1"),
        ({"n_hyper": 0}, "n_hyper=0"),
        ({"n_burn": -1}, "n_burn=-1"),
        ({"n_max_hyper": 5}, "n_max_hyper=5"),
        ({"max_iter": 2.5}, "max_iter=2.5"),
        ({"index": "yes"}, "index='yes'"),
        ({"group_slopes": "maybe"}, "group_slopes='maybe'"),
    ],
)
def test_parameters_outside_their_domain_are_refused(bad, says):
    X, y, t, _ = trial(40)
    with pytest.raises(ParameterError, match=says):
        GaussianProcessEffect(**bad).fit(X, y, treatment=t)


def test_levels_that_were_not_fitted_are_refused(fitted):
    X, y, t, _ = trial(40)
    with pytest.raises(ParameterError, match="fitted treatment was binary"):
        fitted.effect(X, treatment=0.5)
    with pytest.raises(TreatmentError, match="recode it"):
        GaussianProcessEffect().fit(X, y, treatment=t + 1)
    with pytest.raises(CausalsatError):
        GaussianProcessEffect().fit(X, y)
