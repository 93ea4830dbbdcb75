"""Units and origins of features, outcome and dose do not matter to BayesianLinearEffect."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import BayesianLinearEffect
from causalsat.exceptions import DataWarning

QUICK = {"n_draws": 250, "n_tune": 250, "n_chains": 2, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")
EXACT = 2.0 ** np.array([-40, 40, -300, 300])  # powers of two: no digit changes
MONTE_CARLO = 0.25  # posterior sds: 500 draws of a mean, twice


def trial(n=300, dose=False):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 3))
    t = rng.uniform(0, 2, n) if dose else rng.integers(0, 2, n).astype(float)
    return X, X[:, 0] + t * (1.0 + 0.7 * X[:, 1]) + rng.standard_normal(n), t


@pytest.mark.parametrize("factor", EXACT)
def test_features_in_another_unit_give_the_same_draws(factor):
    X, y, t = trial()
    units = np.array([factor, 1.0, factor]) if abs(np.log2(factor)) < 45 else np.full(3, factor)
    est, other = (BayesianLinearEffect(**QUICK).fit(table, y, treatment=t) for table in (X, X * units))
    np.testing.assert_array_equal(other.effect(X * units).draws, est.effect(X).draws)
    np.testing.assert_allclose(other.support(X * units), est.support(X), atol=1e-9)
    np.testing.assert_array_equal(other.draws_["interaction"], est.draws_["interaction"])  # per standard deviation


@pytest.mark.parametrize("factor", [2.0**-47, 2.0**47, 2.0**-300])
def test_an_outcome_in_another_unit_gives_the_draws_in_it(factor):
    X, y, t = trial()
    est, other = (BayesianLinearEffect(**QUICK).fit(X, values, treatment=t) for values in (y, y * factor))
    np.testing.assert_array_equal(other.effect(X).draws, factor * est.effect(X).draws)
    np.testing.assert_array_equal(other.draws_["noise"], factor * est.draws_["noise"])


def test_a_dose_in_another_unit_is_the_same_dose():
    X, y, t = trial(dose=True)
    est, other = (BayesianLinearEffect(**QUICK).fit(X, y, treatment=dose) for dose in (t, t * 2.0**-40))
    np.testing.assert_array_equal(other.effect(X, treatment=2.0**-40).draws, est.effect(X).draws)


@pytest.mark.parametrize(
    ("features", "outcome"),
    [
        (lambda X: X * 1e-12, lambda y: y),
        (lambda X: X + 1e10, lambda y: y),
        (lambda X: X * np.array([1e9, 1.0, 1e-4]) + np.array([0.0, 1e6, 3.0]), lambda y: y),
        (lambda X: X, lambda y: 1e-14 * y),
        (lambda X: X, lambda y: 1e9 + y),
    ],
)
def test_any_unit_and_origin_differ_by_monte_carlo_error_only(features, outcome):
    X, y, t = trial()
    est = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t).effect(X)
    other = BayesianLinearEffect(**QUICK).fit(features(X), outcome(y), treatment=t).effect(features(X))
    unit = np.ptp(outcome(y)) / np.ptp(y)
    assert (np.abs(other.mean() / unit - est.mean()) < MONTE_CARLO * est.sd()).all()
    np.testing.assert_allclose(other.sd() / unit, est.sd(), rtol=0.25)


def test_a_feature_that_is_rounding_only_is_dropped_and_said():
    X, y, t = trial()
    X[:, 2] = 1.0 + 1e-15 * np.round(10 * X[:, 2])
    with pytest.warns(DataWarning, match=r"no more than rounding count as constant: x2\."):
        est = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t)
    moved = X.copy()
    moved[:, 2] = 2.0
    np.testing.assert_array_equal(est.effect(moved).draws, est.effect(X).draws)
