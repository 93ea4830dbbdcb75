"""BayesianLinearEffect for counts and positive amounts, against generalised linear models; single outcomes."""

from __future__ import annotations

import numpy as np
import pytest

import causalsat
from causalsat import BayesianLinearEffect
from causalsat.exceptions import DataError, ParameterError

QUICK = {"n_draws": 250, "n_tune": 150, "n_chains": 2, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")


def log_linear(n=2500, *, dispersion=(0.5, 0.8), amounts=False, seed=0):
    """Outcome of mean exp(0.5 + 0.4 x1 + t (0.4 + 0.3 x0)), dispersion by arm."""
    rng = np.random.default_rng(seed)
    X, t = rng.standard_normal((n, 2)), rng.integers(0, 2, n).astype(float)
    mu = np.exp(0.5 + 0.4 * X[:, 1] + t * (0.4 + 0.3 * X[:, 0]))
    shape = 1 / np.asarray(dispersion)[t.astype(int)] ** 2
    multiplier = rng.gamma(shape) / shape
    y = mu * multiplier if amounts else rng.poisson(mu * multiplier).astype(float)
    zero, one = np.exp(0.5 + 0.4 * X[:, 1]), np.exp(0.9 + 0.4 * X[:, 1] + 0.3 * X[:, 0])
    return X, y, t, one - zero


def rows(X, t):
    return np.column_stack([np.ones(len(X)), X, t, t * X[:, 0]])


@pytest.mark.parametrize("family", ["negative_binomial", "gamma"])
def test_strong_data_agree_with_a_generalised_linear_model(family):
    sm = pytest.importorskip("statsmodels.api")
    amounts = family == "gamma"
    X, y, t, effect = log_linear(amounts=amounts, dispersion=(0.6, 0.6))
    est = BayesianLinearEffect(family=family, modifiers=[0], prior="normal", **QUICK).fit(X, y, treatment=t)
    kind = sm.families.Gamma(sm.families.links.Log()) if amounts else sm.families.NegativeBinomial(alpha=0.36)
    glm = sm.GLM(y, rows(X, t), family=kind).fit()
    s, centre = est.scaling_, t.mean()
    main = est.draws_["main"].mean(axis=0)
    interaction, treatment = est.draws_["interaction"].mean(axis=0)[0], est.draws_["treatment"].mean()
    ours = np.r_[main[1], interaction] * s.x_factor[[1, 0]]
    # means of 500 draws, weak shrinkage: a third of a standard error
    np.testing.assert_allclose(ours, glm.params[[2, 4]], atol=0.35 * glm.bse[[2, 4]].max())
    assert abs(treatment - interaction * s.x_factor[0] * s.x_mean[0] - glm.params[3]) < 0.35 * glm.bse[3]
    assert est.draws_["interaction"][:, 0].std() * s.x_factor[0] == pytest.approx(glm.bse[4], rel=0.2)
    difference = glm.predict(rows(X, np.ones(len(t)))) - glm.predict(rows(X, np.zeros(len(t))))
    assert abs(est.draws_["ate"].mean() - difference.mean()) < 0.4 * est.draws_["ate"].std()
    assert np.corrcoef(est.predict(X), effect)[0, 1] > 0.99
    assert abs(est.draws_["ate"].mean() - effect.mean()) < 3 * est.draws_["ate"].std()
    assert 0.4 < centre < 0.6


@pytest.mark.parametrize("family", ["negative_binomial", "gamma"])
def test_dispersion_of_each_arm_is_found(family):
    X, y, t, _ = log_linear(amounts=family == "gamma", dispersion=(0.4, 0.9))
    est = BayesianLinearEffect(family=family, modifiers=[0], prior="normal", **QUICK).fit(X, y, treatment=t)
    noise = est.draws_["noise"]
    assert (np.abs(noise.mean(axis=0) - [0.4, 0.9]) < 3 * noise.std(axis=0)).all()
    assert noise.std(axis=0).max() < 0.1
    assert "dispersion, treated" in est.summary().table.index


def test_poisson_counts_have_almost_no_overdispersion_and_poisson_intervals():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(3)
    X, t = rng.standard_normal((1500, 2)), np.arange(1500) % 2.0
    y = rng.poisson(np.exp(0.3 + 0.4 * X[:, 1] + 0.5 * t)).astype(float)
    est = BayesianLinearEffect(family="negative_binomial", modifiers=[0], **QUICK).fit(X, y, treatment=t)
    assert est.draws_["noise"].mean() < 0.2
    glm = sm.GLM(y, rows(X, t), family=sm.families.Poisson()).fit()
    assert est.draws_["treatment"].std() == pytest.approx(glm.bse[3], rel=0.2)
    assert abs(est.draws_["treatment"].mean() - glm.params[3]) < glm.bse[3]


def test_effects_are_averaged_over_villages_of_a_logarithm():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(100), 12)
    t = rng.integers(0, 2, len(groups)).astype(float)
    y = rng.poisson(np.exp(0.5 + 0.5 * t + 0.8 * rng.standard_normal(100)[groups])).astype(float)
    X = rng.standard_normal((len(t), 1))
    est = BayesianLinearEffect(family="negative_binomial", group_slopes=False, modifiers=[], **QUICK)
    est.fit(X, y, treatment=t, groups=groups)
    truth = (np.exp(1.0) - np.exp(0.5)) * np.exp(0.32)  # 1.47; a village at zero has 1.07
    assert abs(est.draws_["ate"].mean() - truth) < 3 * est.draws_["ate"].std()
    assert est.draws_["ate"].mean() > 1.2
    assert est.draws_["group_sd"].mean() == pytest.approx(0.8, abs=0.2)
    one, zero = (est.predict_outcome(X, treatment=a) for a in (1, 0))
    np.testing.assert_allclose((one - zero).draws, est.effect(X).draws)


@pytest.mark.parametrize(
    ("family", "y", "words"),
    [
        ("gamma", [0.0, 1.0, 2.0, 0.5], r"1 of 4 outcomes that are zero .*negative_binomial.*gaussian"),
        ("gamma", [-1.0, 1.0, 2.0, 0.5], r"values from -1 .*Expected"),
        ("negative_binomial", [0.0, 1.5, 2.0, 3.0], r"counts.*gamma"),
        ("negative_binomial", [0.0, -1.0, 2.0, 3.0], "counts"),
        ("negative_binomial", [0.0, 0.0, 0.0, 0.0], "all zero"),
    ],
)
def test_outcomes_that_a_family_cannot_have(family, y, words):
    import re

    with pytest.raises(DataError) as error:
        BayesianLinearEffect(family=family, **QUICK).fit(np.eye(4), np.array(y), treatment=np.array([0, 1, 0, 1]))
    assert re.search(words, str(error.value), re.S)


def test_levels_between_the_arms_are_refused_for_a_binary_treatment():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((60, 1)), np.arange(60) % 2.0
    est = BayesianLinearEffect(n_draws=20, n_tune=50, n_chains=1, random_state=0).fit(X, X[:, 0] + t, treatment=t)
    for call in (
        lambda: est.effect(X, treatment=0.5),
        lambda: est.effect(X, baseline=2),
        lambda: est.predict_outcome(X, treatment=0.5),
        lambda: est.posterior_predictive(X, treatment=0.5),
    ):
        with pytest.raises(ParameterError, match="0 or 1: the fitted treatment was binary"):
            call()
    dose = BayesianLinearEffect(n_draws=20, n_tune=50, n_chains=1, random_state=0).fit(X, X[:, 0], treatment=X[:, 0])
    assert dose.effect(X, treatment=0.5).draws.shape == (20, 60)


# ---------------------------------------------------------------------- single outcomes
@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "negative_binomial", "gamma"])
def test_posterior_predictive_outcomes_are_like_the_data(family):
    X, y, t, _ = log_linear(n=800, amounts=family == "gamma")
    if family == "bernoulli":
        y = (y > 1).astype(float)
    elif family == "gaussian":
        y = 3.0 + X[:, 0] + t + np.where(t == 1, 2.0, 0.7) * np.random.default_rng(1).standard_normal(len(t))
    est = BayesianLinearEffect(family=family, modifiers=[0], **{**QUICK, "n_tune": 100}).fit(X, y, treatment=t)
    new = est.posterior_predictive(X, treatment=t)
    for a in (0, 1):
        assert new.draws[:, t == a].mean() == pytest.approx(y[t == a].mean(), rel=0.1)
        assert new.draws[:, t == a].std() == pytest.approx(y[t == a].std(), rel=0.2)
    inside = (new.interval(0.9)[:, 0] <= y) & (y <= new.interval(0.9)[:, 1])
    assert inside.mean() > 0.87
    if family in ("gaussian", "gamma"):  # continuous, so not more than that either
        assert inside.mean() < 0.93
    np.testing.assert_array_equal(new.draws, est.posterior_predictive(X, treatment=t).draws)
    before = est.prior_predictive(X, treatment=t, n_draws=300)
    assert before.draws.shape == (300, len(y))
    spread = np.subtract(*np.quantile(before.draws, [0.9, 0.1]))
    assert spread >= np.subtract(*np.quantile(y, [0.9, 0.1]))  # the prior is wider than the data
    if family == "bernoulli":
        assert 0.4 < before.draws.mean() < 0.6


def test_units_of_a_village_share_its_effect_in_predictive_draws():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), 8)
    X, t = rng.standard_normal((480, 1)), rng.integers(0, 2, 480).astype(float)
    y = 2.0 * rng.standard_normal(60)[groups] + t + 0.5 * rng.standard_normal(480)
    est = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t, groups=groups)
    together = est.posterior_predictive(X, treatment=t, groups=groups).draws
    apart = est.posterior_predictive(X, treatment=t).draws
    assert np.corrcoef(together[:, 0], together[:, 1])[0, 1] > 0.7  # 4 / 4.25 of the variance is the village's
    assert abs(np.corrcoef(apart[:, 0], apart[:, 1])[0, 1]) < 0.25
    with pytest.raises(ParameterError, match="n_draws"):
        est.prior_predictive(X, treatment=t, n_draws=0)


def test_other_families_survive_a_file(tmp_path):
    X, y, t, _ = log_linear(n=300)
    options = {"n_draws": 30, "n_tune": 60, "n_chains": 1, "random_state": 0}
    est = BayesianLinearEffect(family="negative_binomial", prior="r2d2", **options).fit(X, y, treatment=t)
    est.save(tmp_path / "model.safetensors")
    loaded = causalsat.load(tmp_path / "model.safetensors")
    for name in ("effect", "predict_outcome"):
        np.testing.assert_array_equal(getattr(loaded, name)(X).draws, getattr(est, name)(X).draws)
    draws = [m.posterior_predictive(X, treatment=t).draws for m in (loaded, est)]
    np.testing.assert_array_equal(*draws)
