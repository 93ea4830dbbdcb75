"""Checks at the door: imputation, support and the R-score on arrays with known answers."""

import warnings

import numpy as np
import pytest

from causalsat.core import inputs
from causalsat.core.features import learn_support, support
from causalsat.exceptions import DataError, DataWarning
from causalsat.inference.nuisances import crossfit_ridge, r_score


def test_imputation_fills_means_and_flags():
    X = np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 8.0]])
    rule = inputs.learn_imputation(X, ("a", "b"))
    np.testing.assert_allclose(rule.apply(X, ("a", "b")), [[1, 6, 1], [3, 4, 0], [5, 8, 0]])
    with pytest.warns(DataWarning, match="missing values in a"):
        np.testing.assert_allclose(rule.apply(np.array([[np.nan, 2.0]]), ("a", "b")), [[3, 2, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.apply(np.array([[np.nan, 2.0]]), ("a", "b"), np.array([True, False]))


def test_weights_have_mean_one_and_groups_are_codes():
    np.testing.assert_allclose(inputs.check_weights([1, 3], 2), [0.5, 1.5])
    np.testing.assert_array_equal(inputs.check_groups(["v", "u", "v"], 3), [0, 1, 0])
    with pytest.raises(DataError, match="every weight zero"):
        inputs.check_weights([0, 0], 2)
    with pytest.raises(DataError, match="1 missing labels"):
        inputs.check_groups(["v", float("nan"), "u"], 3)  # numpy makes the text "nan" of it


def test_support_is_uniform_on_new_draws_of_the_training_distribution():
    rng = np.random.default_rng(0)
    train, new = rng.standard_normal((2000, 4)) @ np.diag([1, 10, 0.1, 3]), rng.standard_normal((2000, 4))
    p = support(learn_support(train), new @ np.diag([1, 10, 0.1, 3]))
    assert abs((p < 0.05).mean() - 0.05) < 0.02
    assert abs(p.mean() - 0.5) < 0.03


def test_support_of_collinear_and_constant_features_ignores_them():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300, 2))
    wide = np.column_stack([z, z[:, 0] + z[:, 1], np.ones(300)])
    np.testing.assert_allclose(support(learn_support(wide), wide[:20]), support(learn_support(z), z[:20]), atol=0.02)
    assert support(learn_support(np.ones((5, 2))), np.ones((2, 2))).tolist() == [1.0, 1.0]


def test_r_score_orders_effects_by_their_error():
    rng = np.random.default_rng(0)
    n = 4000
    tau, t = rng.standard_normal(n), rng.integers(0, 2, n) - 0.5
    y = t * tau + 0.5 * rng.standard_normal(n)
    scores = [r_score(tau + shift * rng.standard_normal(n), y, t) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.4
    assert r_score(np.full(n, 5.0), y, t) < 0
    assert np.isnan(r_score(tau, y, np.zeros(n)))


def test_crossfit_ridge_predicts_unseen_clusters_only():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 4)
    X = rng.standard_normal((50, 3))[groups]
    noise = 3 * rng.standard_normal(50)[groups]  # shared by a cluster: a leak would predict it
    target = X[:, 0] + noise
    out = crossfit_ridge(np.column_stack([X, np.eye(50)[groups]]), target, np.ones(200), groups)
    assert np.corrcoef(out, noise)[0, 1] < 0.3
    np.testing.assert_allclose(crossfit_ridge(X[:6], target[:6], np.ones(6), None), target[:6].mean())


def test_support_does_not_depend_on_the_features_units():
    from causalsat.core.features import learn_support, support

    rng = np.random.default_rng(0)
    X, new = rng.standard_normal((200, 3)), 1.5 * rng.standard_normal((50, 3))
    units, origin = np.array([1e6, 1.0, 1e-6]), np.array([0.0, 1e4, 0.0])
    plain, other = learn_support(X), learn_support(X * units + origin)
    np.testing.assert_allclose(support(other, new * units + origin), support(plain, new), atol=0.01)
