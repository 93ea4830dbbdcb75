"""Features imputed in the model: the draws against closed forms, and coverage where a modifier is missing."""

from __future__ import annotations

import numpy as np
import pytest

import causalsat
from causalsat import BayesianLinearEffect
from causalsat.inference import imputation
from causalsat.inference.imputation import FeatureModel, Outcome

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
QUICK = {"n_draws": 80, "n_tune": 80, "n_chains": 2, "n_imputations": 5, "random_state": 0}
MODEL = {**QUICK, "impute": "model", "prior": "normal", "modifiers": [0, 1]}


def trial(n=400, *, seed=0, rho=0.7, slope=0.8):
    """Effect 1 + slope x0; x0, correlated with x1, is missing more often where x1 is high."""
    rng = np.random.default_rng(seed)
    X = rng.multivariate_normal(np.zeros(2), [[1, rho], [rho, 1]], n)
    t = rng.integers(0, 2, n).astype(float)
    tau = 1.0 + slope * X[:, 0]
    y = 0.5 * X[:, 0] + t * tau + 0.7 * rng.standard_normal(n)
    seen = X.copy()
    seen[rng.random(n) < 1 / (1 + np.exp(0.5 - X[:, 1])), 0] = np.nan
    return seen, y, t, tau


def test_draws_of_missing_values_are_the_conditional_normal():
    covariance = np.array([[1.0, 0.6, 0.2], [0.6, 1.0, 0.3], [0.2, 0.3, 2.0]])
    mean = np.array([0.5, -0.5, 1.0])
    model = FeatureModel(np.stack([mean, mean]), np.stack([covariance, covariance]))
    missing = np.array([True, False, False])
    rows = np.array([[np.nan, 1.0, 2.0], [np.nan, 0.0, 0.0]])
    draws = model.draws(rows, missing, np.arange(20_000) % 2, seed=1)[:, :, 0]
    inverse = np.linalg.inv(covariance[1:, 1:])
    expected = 0.5 + (rows[:, 1:] - mean[1:]) @ inverse @ covariance[1:, 0]
    variance = 1.0 - covariance[0, 1:] @ inverse @ covariance[1:, 0]
    np.testing.assert_allclose(draws.mean(axis=0), expected, atol=4 * np.sqrt(variance / 20_000))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.04)
    one = model.draws(rows[1:], missing, np.arange(20_000) % 2, seed=1)[:, :, 0]
    np.testing.assert_array_equal(one[:, 0], draws[:, 1])  # whatever stands beside it


def test_imputations_recover_the_features_and_use_the_outcome():
    """With y known, the missing value's posterior is narrower than given the other features alone."""
    rng = np.random.default_rng(3)
    n = 1500
    X = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], n)
    t = rng.integers(0, 2, n) - 0.5
    y = X[:, 0] + 0.5 * t * X[:, 0] + 0.5 * rng.standard_normal(n)
    missing = np.zeros((n, 2), dtype=bool)
    missing[:600, 0] = True
    outcome = Outcome(y, t, np.ones(n), np.zeros((n, 0)), np.array([0]), (t > 0).astype(int), None)
    given = np.where(missing, 0.0, X)
    tables, model = imputation.impute(given, missing, outcome, 20, np.random.default_rng(0))
    np.testing.assert_allclose(model.covariance.mean(axis=0), [[1, 0.5], [0.5, 1]], atol=0.12)
    for table in tables[:2]:
        np.testing.assert_array_equal(table[600:], X[600:])
    draws = np.array([table[:600, 0] for table in tables])
    # closed form of var(x0 | x1, y, t): prior variance 0.75, likelihood y = (1 + t / 2) x0 + e, sd 0.5
    slope = 1 + 0.5 * t[:600]
    variance = 1 / (1 / 0.75 + slope**2 / 0.25)
    assert draws.var(axis=0, ddof=1).mean() == pytest.approx(variance.mean(), rel=0.12)
    expected = variance * (0.5 * X[:600, 1] / 0.75 + slope * y[:600] / 0.25)
    assert np.corrcoef(draws.mean(axis=0), expected)[0, 1] > 0.98


def test_effects_of_units_with_missing_modifiers_widen_and_others_stay():
    seen, y, t, _ = trial(800)
    est = BayesianLinearEffect(**MODEL).fit(seen, y, treatment=t)
    by_mean = BayesianLinearEffect(**{**MODEL, "impute": "mean"}).fit(seen, y, treatment=t)
    complete, gone = np.array([[0.5, 1.0]]), np.array([[np.nan, 1.0]])
    assert est.effect(gone).sd()[0] > 4 * est.effect(complete).sd()[0]
    assert by_mean.effect(gone).sd()[0] < 2 * by_mean.effect(complete).sd()[0]
    assert est.effect(gone).mean()[0] == pytest.approx(1 + 0.8 * 0.7, abs=0.2)  # E x0 = 0.7 x1
    # the modifier's own sd given x1 is sqrt(1 - 0.49): 0.8 of that is the effect's
    assert est.effect(gone).sd()[0] == pytest.approx(0.8 * np.sqrt(0.51), rel=0.2)
    assert est.draws_["treatment"].shape == (160,)
    assert est.diagnostics_["imputations"] == 5
    assert abs(est.draws_["ate"].mean() - 1.0) < 4 * est.draws_["ate"].std()
    together = est.effect(np.vstack([complete, gone, gone]))
    np.testing.assert_allclose(together.draws[:, 1], est.effect(gone).draws[:, 0], rtol=1e-12)


def test_complete_features_need_no_imputation_and_files_keep_it(tmp_path):
    seen, y, t, _ = trial(200)
    whole = np.nan_to_num(seen)
    a, b = (BayesianLinearEffect(**{**MODEL, "impute": how}).fit(whole, y, treatment=t) for how in ("model", "mean"))
    np.testing.assert_array_equal(a.effect(whole).draws, b.effect(whole).draws)
    est = BayesianLinearEffect(**{**MODEL, "n_imputations": 2}).fit(seen, y, treatment=t)
    est.save(tmp_path / "imputed.safetensors")
    loaded = causalsat.load(tmp_path / "imputed.safetensors")
    np.testing.assert_array_equal(loaded.effect(seen).draws, est.effect(seen).draws)


@pytest.mark.parametrize("family", ["bernoulli", "negative_binomial", "gamma"])
def test_imputation_goes_with_other_families_strata_and_villages(family):
    seen, y, t, _ = trial(300, seed=4)
    rng = np.random.default_rng(1)
    y = {"bernoulli": (y > 0.5) * 1.0, "negative_binomial": rng.poisson(np.exp(y / 2)) * 1.0, "gamma": np.exp(y / 2)}[
        family
    ]
    X = np.column_stack([seen, np.arange(300) % 3])
    options = {**MODEL, "n_draws": 40, "n_tune": 60, "n_imputations": 2, "strata": 2, "family": family}
    est = BayesianLinearEffect(**options).fit(X, y, treatment=t, groups=np.arange(300) // 10)
    missing = np.isnan(X[:, 0])
    # narrower in the tails of a probability, but with the modifier unknown effects are less certain
    assert est.effect(X[missing]).sd().mean() > 1.2 * est.effect(X[~missing]).sd().mean()


@pytest.mark.statistical
def test_intervals_of_units_with_missing_modifiers_cover_where_mean_imputation_does_not():
    shares = {"model": [], "mean": []}
    for seed in range(14):
        seen, y, t, tau = trial(300, seed=50 + seed)
        missing = np.isnan(seen[:, 0])
        for how, found in shares.items():
            options = {**MODEL, "impute": how, "n_tune": 60, "n_draws": 60, "n_imputations": 4}
            post = BayesianLinearEffect(**options).fit(seen, y, treatment=t).effect(seen)
            inside = (post.interval(0.9)[:, 0] < tau) & (tau < post.interval(0.9)[:, 1])
            found.append([inside[missing].mean(), inside[~missing].mean()])
    model, mean = (np.array(shares[how]) for how in ("model", "mean"))
    error = model[:, 0].std(ddof=1) / np.sqrt(len(model))
    assert abs(model[:, 0].mean() - 0.9) < 3 * error + 0.02
    assert mean[:, 0].mean() < 0.6
    assert model[:, 1].mean() > 0.75  # units with all modifiers share a few parameters, so this scatters by trial
