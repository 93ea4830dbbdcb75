"""Units and origins of features, outcome and dose do not matter to GaussianProcessEffect."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import GaussianProcessEffect
from causalsat.exceptions import ConvergenceWarning, DataWarning, ParameterError
from causalsat.inference.chains import convergence_problems

SMALL = {"n_draws": 80, "n_hyper": 5, "n_burn": 4, "max_iter": 20, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")


def trial(n=120, p=3, dose=False):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    t = rng.uniform(0, 2, n) if dose else rng.integers(0, 2, n).astype(float)
    return X, X[:, 0] + t * (1.0 + np.sin(2 * X[:, 1])) + 0.5 * rng.standard_normal(n), t


@pytest.mark.parametrize("dose", [False, True])
@pytest.mark.parametrize(
    ("features", "outcome"),
    [
        (lambda X: X * 1e-12, lambda y: y),
        (lambda X: X * 1e12 / 7, lambda y: y),
        (lambda X: X * np.array([1e6, 1 / 3, 1e-5]) + np.array([0.0, 10.0, 0.0]), lambda y: y),
        (lambda X: X, lambda y: 1e-14 * y),
        (lambda X: X, lambda y: 1e6 / 3 * y - 7.0),
    ],
)
def test_another_unit_and_origin_give_the_same_draws(features, outcome, dose):
    X, y, t = trial(dose=dose)
    scale = 1 / 3 if dose else 1.0
    est = GaussianProcessEffect(**SMALL).fit(X, y, treatment=t)
    other = GaussianProcessEffect(**SMALL).fit(features(X), outcome(y), treatment=scale * t)
    unit = np.ptp(outcome(y)) / np.ptp(y)
    draws = other.effect(features(X), treatment=scale).draws / unit
    # standardised numbers are rounded to nine decimals; the scale itself is good to the sixteenth digit
    np.testing.assert_allclose(draws, est.effect(X).draws, rtol=1e-6, atol=1e-6)


def test_features_far_from_zero_are_kept():
    X, y, t = trial(n=200)
    options = {**SMALL, "n_hyper": 10}
    est = GaussianProcessEffect(**options).fit(X, y, treatment=t).effect(X)
    other = GaussianProcessEffect(**options).fit(X + 1e10, y, treatment=t).effect(X + 1e10)
    # values are rounded in the sixth digit of their spread, which sends the sampler another way
    assert (np.abs(other.mean() - est.mean()) < 0.6 * est.sd()).all()
    assert 0.7 < np.median(other.sd() / est.sd()) < 1.4


def test_a_feature_that_did_not_vary_has_no_part_where_it_does():
    X, y, t = trial()
    X[:, 2] = 4.0
    est = GaussianProcessEffect(**SMALL).fit(X, y, treatment=t)
    moved = X.copy()
    moved[:, 2] = 1000.0
    np.testing.assert_array_equal(est.effect(moved).draws, est.effect(X).draws)
    X[:, 2] = 1.0 + 1e-15 * np.arange(len(X)) % 3
    with pytest.warns(DataWarning, match=r"no more than rounding count as constant: x2\."):
        GaussianProcessEffect(**SMALL).fit(X, y, treatment=t)


# ---------------------------------------------------------------------- the sampler's own error
def test_the_effective_sample_size_says_how_far_another_seed_is():
    X, y, t = trial(n=150)
    fits = [GaussianProcessEffect(n_chains=2, random_state=s).fit(X, y, treatment=t) for s in range(5)]
    effects = [est.effect(X) for est in fits]
    sd = np.mean([e.sd() for e in effects], axis=0)
    between = np.sqrt(np.mean((np.std([e.mean() for e in effects], axis=0, ddof=1) / sd) ** 2))
    said = np.sqrt(np.mean([1 / est.ess_ for est in fits]))
    assert 0.5 < said / between < 2.0  # five seeds, two chains
    assert fits[0].effect(X).diagnostics["ess"] == fits[0].ess_


def test_few_draws_of_the_hyperparameters_are_reported():
    X, y, t = trial(n=60)
    with pytest.warns(ConvergenceWarning, match=r"effective sample size \d+ \(below 16\).*n_chains") as caught:
        GaussianProcessEffect(n_draws=20, n_hyper=2, n_burn=0, random_state=0).fit(X, y, treatment=t)
    assert caught[0].filename == __file__
    one = GaussianProcessEffect(n_draws=20, n_hyper=1, random_state=0).fit(X, y, treatment=t)
    assert np.isnan(one.ess_)
    assert convergence_problems({"ess": one.ess_}) == []


def test_chains_share_the_draws():
    X, y, t = trial(n=60)
    est = GaussianProcessEffect(n_draws=40, n_hyper=8, n_chains=4, n_burn=2, random_state=0).fit(X, y, treatment=t)
    assert len(est.functions_) == 8
    assert est.effect(X).draws.shape == (40, 60)
    with pytest.raises(ParameterError, match="n_chains=30"):
        GaussianProcessEffect(n_draws=40, n_chains=30).fit(X, y, treatment=t)
