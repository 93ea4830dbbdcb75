"""The Gaussian process's arithmetic: gradients, an independent implementation, the approximation for many units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern

from causalsat import GaussianProcessEffect
from causalsat.estimators.gaussian_process import kernels as gp_kernels
from causalsat.estimators.gaussian_process import likelihood as gp_square
from causalsat.estimators.gaussian_process import model as gp_model
from causalsat.estimators.gaussian_process import paths as gp_paths
from causalsat.estimators.gaussian_process import sampler as gp_sampler
from causalsat.estimators.gaussian_process.kernels import Term
from causalsat.estimators.gaussian_process.likelihood import MarginalPosterior
from causalsat.estimators.gaussian_process.model import Model, Observations
from causalsat.estimators.gaussian_process.sampler import LearnedScales, ScaledPosterior

BUILDERS = {"binary": gp_model.binary_model, "continuous": gp_model.continuous_model}
KINDS = [(kind, matern) for kind in BUILDERS for matern in (False, True)]


def problem(kind, n=40, seed=0, matern=False):
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, 4))
    t = (np.arange(n) % 2).astype(float) if kind == "binary" else rng.standard_normal(n)
    arm = t.astype(np.int64) if kind == "binary" else np.zeros(n, dtype=np.int64)
    group = np.arange(n) // 5
    data = gp_model.collapse(np.round(Z), np.round(t), Z[:, 0] + t, rng.random(n) + 0.5, arm, group)
    model = BUILDERS[kind](4, np.array([0, 2]), 2)
    model = replace(model, terms=[replace(term, matern=matern) for term in model.terms])
    return data, model, model.prior_mean + 0.3 * rng.standard_normal(len(model.prior_mean)), rng


@pytest.mark.parametrize(("kind", "matern"), KINDS)
def test_gradient_of_the_log_posterior_is_the_difference_quotient(kind, matern):
    data, model, theta, _ = problem(kind, matern=matern)
    posterior, step = MarginalPosterior(model, data), 1e-5
    numeric = [
        (posterior.value(theta + step * e) - posterior.value(theta - step * e)) / (2 * step)
        for e in np.eye(len(theta))
    ]
    np.testing.assert_allclose(posterior.value_and_gradient(theta)[1], numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("modifiers", [np.arange(5), np.array([1])])
def test_learnt_scales_have_the_density_of_their_hierarchy(modifiers):
    """Against the likelihood and the priors of weights, scales and amplitudes written down once more."""
    data, _, _, rng = problem("binary")
    data = replace(data, Z=rng.standard_normal((len(data.y), 6)))
    model = gp_model.binary_model(6, modifiers, 2)
    scales, flat = LearnedScales(model), replace(model, prior_sd=np.full(len(model.prior_sd), np.inf))
    density, likelihood = ScaledPosterior(scales, MarginalPosterior(model, data)), MarginalPosterior(flat, data)
    prior, step = scales.model, 1e-5
    n_scales = {1: 1 + 2, 5: 2 * (1 + 2) + 1}[len(modifiers)]  # linear h; smooth g and h; index g
    assert len(prior.prior_mean) == len(model.prior_mean) + n_scales
    phi = prior.prior_mean + 0.3 * prior.prior_sd * rng.standard_normal(len(prior.prior_mean))
    theta = scales.expand(phi)
    first = next(term for term in model.terms if term.name == "prognosis, smooth")
    weights, (g, h) = slice(first.start + 1, first.start + 7), phi[len(model.prior_mean) + 1 :][:2]
    np.testing.assert_allclose(theta[weights], 0.5 * np.log(0.5 / 6) + g + np.exp(0.7 * h) * phi[weights])
    for term in model.terms:  # one modifier keeps its fixed priors
        assert term.n_x >= 5 or np.array_equal(prior.prior_sd[term.start], model.prior_sd[term.start])
        assert term.n_x < 5 or prior.prior_sd[term.start] == 2
    z = (phi - prior.prior_mean) / prior.prior_sd
    value, gradient = density.value_and_gradient(phi)
    assert value == pytest.approx(likelihood.value(theta) - 0.5 * z @ z, rel=1e-9)
    near = [phi + sign * step * e for e in np.eye(len(phi)) for sign in (1, -1)]
    numeric = np.reshape([density.value_and_gradient(p)[0] for p in near], (-1, 2)) @ [1, -1] / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scales.expand(scales.contract(theta)), theta, atol=1e-12)
    moved = likelihood.information(theta)
    J = scales.jacobian(phi)
    np.testing.assert_allclose(density.information(phi), J.T @ moved @ J + np.diag(prior.prior_sd**-2.0), atol=1e-8)
    assert density.value_and_gradient(phi + 100)[0] == -np.inf


@pytest.mark.parametrize(("kind", "matern"), KINDS)
def test_tangents_are_the_derivative_of_the_covariance(kind, matern):
    data, model, theta, rng = problem(kind, matern=matern)
    a, step = rng.standard_normal(len(data.y)), 1e-5

    def product(th):
        return gp_kernels.covariance(model.terms, th, data.Z, data.t, data.Z, data.t) @ a

    found = gp_square.SquareCovariance(model.terms, data.Z, data.t).tangents(theta, a)
    for k in range(found.shape[1]):
        e = step * np.eye(len(theta))[k]
        np.testing.assert_allclose(found[:, k], (product(theta + e) - product(theta - e)) / (2 * step), atol=1e-6)


@pytest.mark.parametrize(("kind", "matern"), KINDS)
def test_covariance_in_reused_memory_is_the_covariance(kind, matern):
    data, model, theta, _ = problem(kind, matern=matern)
    square = gp_square.SquareCovariance(model.terms, data.Z, data.t)
    square.build(theta + 1)  # what it leaves behind must not matter
    expected = gp_kernels.covariance(model.terms, theta, data.Z, data.t, data.Z, data.t)
    np.testing.assert_allclose(square.build(theta), expected, atol=1e-12)
    np.testing.assert_allclose(
        gp_kernels.prior_variance(model.terms, theta, data.Z, data.t), np.diag(expected), atol=1e-12
    )


@pytest.mark.parametrize(("kind", "matern"), KINDS)
def test_contrast_of_covariances_is_taken_once(kind, matern):
    data, model, theta, rng = problem(kind, matern=matern)
    X, V, Z, t = rng.standard_normal((6, 4)), rng.standard_normal((len(data.y), 3)), data.Z, data.t
    level, base = np.ones(6), np.zeros(6)
    at = [gp_kernels.covariance(model.terms, theta, X, s, Z, t) @ V for s in (level, base)]
    found = gp_kernels.cross_product(model.terms, theta, X, level, base, Z, t, V)
    np.testing.assert_allclose(found, at[0] - at[1], atol=1e-11)
    np.testing.assert_allclose(
        gp_kernels.cross_product(model.terms, theta, X, level, None, Z, t, V), at[0], atol=1e-11
    )


def test_learnt_curve_is_shared_and_can_be_any_smooth_curve():
    model = gp_model.continuous_model(4, np.array([0, 2]), 0, (-1.0, 3.0))
    own, other = (term for term in model.terms if term.t == "curve")
    assert own.curve == other.curve
    assert (own.n_t, other.n_t) == (gp_model.N_KNOTS, 0)
    t = np.linspace(-1, 3, 200)
    phi = gp_kernels.curve_features(own.knots, t)
    weights = np.linalg.lstsq(phi, np.cos(2 * np.pi * t / 4), rcond=None)[0]  # a whole period over the doses
    np.testing.assert_allclose(phi @ weights, np.cos(2 * np.pi * t / 4), atol=2e-3)
    assert np.abs(weights).max() < 3  # not far out in its prior
    np.testing.assert_allclose(phi @ phi.T, np.exp(-0.5 * (np.subtract.outer(t, t) / 1.008) ** 2), atol=0.01)


def test_rows_of_two_arms_out_of_order_are_refused():
    data, model, _, _ = problem("binary")
    with pytest.raises(ValueError, match="controls, then treated"):
        gp_square.SquareCovariance(model.terms, data.Z[::-1], data.t[::-1])


@pytest.mark.parametrize("kind", BUILDERS)
def test_merged_duplicates_have_the_likelihood_of_the_units(kind):
    """With unequal weights and village effects: equal up to the constant of the units' weights, to 1e-8."""
    rng = np.random.default_rng(0)
    place = np.repeat(np.arange(30), 4)
    n = len(place)
    Z = rng.standard_normal((30, 4))[place]
    t = np.repeat(np.arange(60) % 2, 2).astype(float)
    arm = t.astype(np.int64) if kind == "binary" else np.zeros(n, dtype=np.int64)
    order = np.argsort(arm, kind="stable")
    weight, village, y = rng.random(n) + 0.5, place // 5, rng.standard_normal(n)
    rows = [v[order] for v in (Z, t, y, weight, arm, village)]
    merged = gp_model.collapse(*rows)
    units = Observations(*rows, np.zeros((int(arm.max()) + 1, 2)))
    assert len(merged.y) == 60
    model = BUILDERS[kind](4, np.arange(4), 2)
    posteriors = [MarginalPosterior(model, data) for data in (merged, units)]
    thetas = [model.prior_mean + 0.3 * rng.standard_normal(len(model.prior_mean)) for _ in range(3)]
    sums = np.bincount(np.unique(rows[0] @ rng.standard_normal(4) + 100 * rows[1], return_inverse=True)[1], rows[3])
    constant = 0.5 * (np.log(weight).sum() - np.log(sums).sum())  # of the units' own weights
    for theta in thetas:
        (a, slope), (b, other) = (p.value_and_gradient(theta) for p in posteriors)
        assert a + constant == pytest.approx(b, abs=1e-8)
        np.testing.assert_allclose(slope, other, rtol=1e-7, atol=1e-7)


def test_sampler_finds_the_posterior_of_a_noise_level():
    """One parameter: draws against the posterior on a grid."""
    rng = np.random.default_rng(0)
    n = 60
    data = Observations(
        np.zeros((n, 1)), np.zeros(n), rng.standard_normal(n), np.ones(n), np.zeros(n, int), None, np.zeros((1, 2))
    )
    term = Term("level", "const", "one", np.zeros(0, dtype=np.int64), 0)
    model = Model([term], 1, 0, np.zeros(2), np.array([1e-3, 1.0]))
    posterior = MarginalPosterior(model, data)
    grid = np.linspace(-0.5, 0.6, 200)
    log = np.array([posterior.value(np.array([0.0, g])) for g in grid])
    density = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    mean = density @ grid
    sd = np.sqrt(density @ (grid - mean) ** 2)
    start, _ = gp_sampler.find_mode(posterior, [model.prior_mean], 20)
    found = gp_sampler.sample(posterior, start, 1500, 20, rng)
    assert found.thetas[:, 1].mean() == pytest.approx(mean, abs=0.2 * sd)
    assert found.thetas[:, 1].std() == pytest.approx(sd, rel=0.12)
    assert 0.4 < found.acceptance < 0.99


@pytest.fixture(scope="module")
def against_sklearn():
    """The same process, written with scikit-learn's kernels at fixed hyperparameters."""
    rng = np.random.default_rng(0)
    Z, new = rng.standard_normal((60, 2)), rng.standard_normal((7, 2))
    y = np.sin(Z[:, 0]) + Z[:, 1] + 0.3 * rng.standard_normal(60)
    columns = np.arange(2)
    terms = [
        Term("smooth", "rbf", "one", columns, 0),
        Term("linear", "linear", "one", columns, 3),
        Term("rough", "rbf", "one", columns, 6, matern=True),
    ]
    theta = np.log([0.8, 1 / 1.5, 1 / 0.7, 0.6, 1.0, 1.0, 0.5, 1 / 0.8, 0.5, 0.3])
    model = Model(terms, 1, 0, np.zeros(10), np.full(10, 1e8))
    data = Observations(Z, np.zeros(60), y, np.ones(60), np.zeros(60, dtype=int), None, np.zeros((1, 2)))
    kernel = ConstantKernel(0.64) * RBF([1.5, 0.7]) + ConstantKernel(0.36) * DotProduct(0.0)
    kernel += ConstantKernel(0.25) * Matern([0.8, 2.0], nu=2.5)
    peer = GaussianProcessRegressor(kernel, alpha=0.09 + gp_model.MIN_NOISE, optimizer=None).fit(Z, y)
    return data, model, theta, peer, new


def test_marginal_likelihood_is_scikit_learns(against_sklearn):
    data, model, theta, peer, _ = against_sklearn
    value = MarginalPosterior(model, data).value(theta)
    assert value == pytest.approx(peer.log_marginal_likelihood(), rel=1e-8)


def test_posterior_draws_have_scikit_learns_moments(against_sklearn):
    data, model, theta, peer, new = against_sklearn
    functions = gp_paths.function_draws(theta, model, data, 3000, 2000, np.random.default_rng(1))
    at = np.zeros(len(new))
    draws = gp_paths.contrast_draws([functions], model.terms, data.Z, data.t, new, at, None)
    mean, covariance = peer.predict(new, return_cov=True)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=1e-7)  # antithetic pairs: exact
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.12 * np.diag(covariance).max())


@pytest.mark.parametrize(("kind", "matern"), KINDS)
def test_random_features_have_the_kernels_covariance(kind, matern):
    data, model, theta, rng = problem(kind, matern=matern)
    Z, t = data.Z[:6], data.t[:6]
    draws = np.concatenate(
        [
            gp_paths.prior_values(
                model.terms, theta, [gp_paths._sample_term(k, theta, 400, 400, rng) for k in model.terms], Z, t
            )
            for _ in range(10)
        ],
        axis=1,
    )
    truth = gp_kernels.covariance(model.terms, theta, Z, t, Z, t)
    np.testing.assert_allclose(draws @ draws.T / draws.shape[1], truth, atol=0.1 * truth.diagonal().max())


def test_inducing_rows_equal_to_all_rows_give_the_exact_answer():
    data, model, theta, _ = problem("binary", n=60)
    one, zero = np.ones(len(data.y)), np.zeros(len(data.y))
    exact, through = (
        gp_paths.contrast_draws(
            [gp_paths.function_draws(theta, model, data, 1500, 800, np.random.default_rng(0), inducing)],
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
