"""The Gaussian process's arithmetic: gradients, an independent implementation, the approximation for many units."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

from causalsat import GaussianProcessEffect
from causalsat.estimators import _gp_kernels, _gp_likelihood, _gp_model, _gp_paths
from causalsat.estimators._gp_kernels import Term
from causalsat.estimators._gp_likelihood import Model, Observations

BUILDERS = {"binary": _gp_model.binary_model, "continuous": _gp_model.continuous_model}


def problem(kind, n=40, seed=0):
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, 4))
    t = (np.arange(n) % 2).astype(float) if kind == "binary" else rng.standard_normal(n)
    arm = t.astype(np.int64) if kind == "binary" else np.zeros(n, dtype=np.int64)
    group = np.arange(n) // 5
    data = _gp_likelihood.collapse(np.round(Z), np.round(t), Z[:, 0] + t, rng.random(n) + 0.5, arm, group)
    model = BUILDERS[kind](4, np.array([0, 2]), 2)
    return data, model, model.prior_mean + 0.3 * rng.standard_normal(len(model.prior_mean)), rng


@pytest.mark.parametrize("kind", BUILDERS)
def test_gradient_of_the_log_posterior_is_the_difference_quotient(kind):
    data, model, theta, _ = problem(kind)
    step = 1e-5
    numeric = [
        (
            _gp_likelihood.log_posterior(theta + step * e, model, data)[0]
            - _gp_likelihood.log_posterior(theta - step * e, model, data)[0]
        )
        / (2 * step)
        for e in np.eye(len(theta))
    ]
    np.testing.assert_allclose(_gp_likelihood.log_posterior(theta, model, data)[1], numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", BUILDERS)
def test_tangents_are_the_derivative_of_the_covariance(kind):
    data, model, theta, rng = problem(kind)
    a, step = rng.standard_normal(len(data.y)), 1e-5

    def product(th):
        return _gp_kernels.covariance(model.terms, th, data.Z, data.t, data.Z, data.t) @ a

    _, parts = _gp_kernels.covariance_and_parts(model.terms, theta, data.Z, data.t)
    found = _gp_kernels.covariance_tangents(model.terms, theta, data.Z, data.t, parts, a)
    for k in range(found.shape[1]):
        e = step * np.eye(len(theta))[k]
        np.testing.assert_allclose(found[:, k], (product(theta + e) - product(theta - e)) / (2 * step), atol=1e-6)


@pytest.fixture(scope="module")
def against_sklearn():
    """The same process, written with scikit-learn's kernels at fixed hyperparameters."""
    rng = np.random.default_rng(0)
    Z, new = rng.standard_normal((60, 2)), rng.standard_normal((7, 2))
    y = np.sin(Z[:, 0]) + Z[:, 1] + 0.3 * rng.standard_normal(60)
    columns = np.arange(2)
    terms = [Term("smooth", "rbf", "one", columns, 0), Term("linear", "linear", "one", columns, 3)]
    theta = np.log([0.8, 1 / 1.5, 1 / 0.7, 0.6, 1.0, 1.0, 0.3])
    model = Model(terms, 1, 0, np.zeros(7), np.full(7, 1e8))
    data = Observations(Z, np.zeros(60), y, np.ones(60), np.zeros(60, dtype=int), None, np.zeros((1, 2)))
    kernel = ConstantKernel(0.64) * RBF([1.5, 0.7]) + ConstantKernel(0.36) * DotProduct(0.0)
    peer = GaussianProcessRegressor(kernel, alpha=0.09 + _gp_likelihood.JITTER, optimizer=None).fit(Z, y)
    return data, model, theta, peer, new


def test_marginal_likelihood_is_scikit_learns(against_sklearn):
    data, model, theta, peer, _ = against_sklearn
    value, _ = _gp_likelihood.log_posterior(theta, model, data)
    assert value == pytest.approx(peer.log_marginal_likelihood(), rel=1e-8)


def test_posterior_draws_have_scikit_learns_moments(against_sklearn):
    data, model, theta, peer, new = against_sklearn
    functions = _gp_paths.function_draws(theta, model, data, 3000, 2000, np.random.default_rng(1))
    at = np.zeros(len(new))
    draws = _gp_paths.contrast_draws([functions], model.terms, data.Z, data.t, new, at, None)
    mean, covariance = peer.predict(new, return_cov=True)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=1e-7)  # antithetic pairs: exact
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.12 * np.diag(covariance).max())


@pytest.mark.parametrize("kind", BUILDERS)
def test_random_features_have_the_kernels_covariance(kind):
    data, model, theta, rng = problem(kind)
    Z, t = data.Z[:6], data.t[:6]
    draws = np.concatenate(
        [
            _gp_paths.prior_values(
                model.terms, theta, [_gp_paths._sample_term(k, theta, 400, 400, rng) for k in model.terms], Z, t
            )
            for _ in range(10)
        ],
        axis=1,
    )
    truth = _gp_kernels.covariance(model.terms, theta, Z, t, Z, t)
    np.testing.assert_allclose(draws @ draws.T / draws.shape[1], truth, atol=0.1 * truth.diagonal().max())


def test_inducing_rows_equal_to_all_rows_give_the_exact_answer():
    data, model, theta, _ = problem("binary", n=60)
    one, zero = np.ones(len(data.y)), np.zeros(len(data.y))
    exact, through = (
        _gp_paths.contrast_draws(
            [_gp_paths.function_draws(theta, model, data, 1500, 800, np.random.default_rng(0), inducing)],
            model.terms,
            data.Z,
            data.t,
            data.Z,
            one,
            zero,
        )
        for inducing in (None, data)
    )
    np.testing.assert_allclose(through.mean(axis=0), exact.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(through.std(axis=0), exact.std(axis=0), rtol=0.15)


def test_approximation_for_many_units_is_close_to_the_exact_fit():
    rng = np.random.default_rng(0)
    X, t, groups = rng.standard_normal((500, 2)), np.arange(500) % 2, np.arange(500) // 10
    tau = 1 + np.sin(1.5 * X[:, 0])
    y = X[:, 1] + t * tau + 0.3 * rng.standard_normal(50)[groups] + 0.5 * rng.standard_normal(500)
    settings = {"n_draws": 200, "n_hyper": 4, "max_iter": 25, "random_state": 0}
    exact = GaussianProcessEffect(**settings).fit(X, y, treatment=t, groups=groups)
    sparse = GaussianProcessEffect(n_max_exact=300, n_inducing=150, **settings).fit(X, y, treatment=t, groups=groups)
    assert "150 inducing rows" in sparse.summary().diagnostics["source"]
    a, b = exact.effect(X), sparse.effect(X)
    assert np.sqrt(np.mean((a.mean() - b.mean()) ** 2)) < 0.15 * tau.std()
    assert np.sqrt(np.mean((b.mean() - tau) ** 2)) < 0.35 * tau.std()
    assert b.ate().sd()[0] == pytest.approx(a.ate().sd()[0], rel=0.4)
