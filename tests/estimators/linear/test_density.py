"""The fast densities against independent ones: a dense multivariate normal, finite differences, the PyMC model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from small_designs import EXACT, phis, small_design

from causalsat.estimators.linear import data as linear_data
from causalsat.estimators.linear import density as linear_density
from causalsat.estimators.linear import families as linear_families
from causalsat.estimators.linear import glm as linear_glm
from causalsat.estimators.linear.data import LinearDesign, sufficient_statistics

PRIORS = ("normal", "horseshoe", "r2d2")
STRUCTURES = [(k, prior, s) for k in (0, 1, 2) for prior in PRIORS for s in (0, 3) if k != 1 or prior != "r2d2"]
OUTCOMES = ("bernoulli", "negative_binomial", "gamma")


def dense_log_density(phi, design, layout):
    """The marginal likelihood as one n-dimensional normal, plus the log prior."""
    variance, log_prior, _ = linear_density.prior_scales(phi, layout.as_tuple())
    rows = design.rows
    noise = linear_density.NOISE_FLOOR + np.exp(2 * phi[: layout.n_arms])
    covariance = rows * variance @ rows.T + np.diag(noise[design.arm] / design.weight)
    if layout.n_random:
        lam = phi[layout.n_arms : layout.n_arms + layout.n_random] ** 2
        random = np.column_stack([np.ones(len(design.y)), design.t])[:, : layout.n_random]
        covariance += (design.group[:, None] == design.group) * (random * lam @ random.T)
    powers = 0.5 * ((1 - design.weight) * np.log(noise[design.arm])).sum()  # a weight is a power of the likelihood
    return multivariate_normal(np.zeros(len(rows)), covariance).logpdf(design.y) + log_prior + powers


def numerical_gradient(f, x, step=1e-5):
    return np.array([(f(x + h) - f(x - h)) / (2 * step) for h in step * np.eye(len(x))])


@pytest.mark.parametrize(("k", "prior", "strata"), STRUCTURES)
@pytest.mark.parametrize("binary", [True, False])
def test_marginal_density_equals_a_dense_normal(k, prior, strata, binary):
    design = small_design(k, binary=binary, strata=strata)
    layout = linear_density.make_layout(design, prior)
    args = linear_density.arguments(layout, sufficient_statistics(design))
    fast = [linear_density.marginal_log_density(phi, *args)[0] for phi in phis(layout)]
    dense = [dense_log_density(phi, design, layout) for phi in phis(layout)]
    np.testing.assert_allclose(np.diff(fast), np.diff(dense), rtol=EXACT, atol=1e-8)


@pytest.mark.parametrize(("k", "prior", "strata"), STRUCTURES)
def test_gradient_of_marginal_density(k, prior, strata):
    design = small_design(k, strata=strata)
    layout = linear_density.make_layout(design, prior)
    args = linear_density.arguments(layout, sufficient_statistics(design))
    for phi in phis(layout):
        gradient = linear_density.marginal_log_density(phi, *args)[1]
        numerical = numerical_gradient(lambda x: linear_density.marginal_log_density(x, *args)[0], phi)
        np.testing.assert_allclose(gradient, numerical, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("some_mixed", [False, True])
def test_villages_treated_as_a_whole_are_pooled_exactly(k, some_mixed):
    rng = np.random.default_rng(7)
    group = np.repeat(np.arange(24), np.tile([2, 3, 4], 8))
    arm = rng.integers(0, 2, 24)[group]
    if some_mixed:
        arm[group < 6] = rng.integers(0, 2, (group < 6).sum())
    n, t = len(group), arm - 0.45
    Z = rng.standard_normal((n, 3))
    design = LinearDesign(Z, t[:, None] * Z, t, rng.standard_normal(n), np.ones(n), arm, group, k)
    layout = linear_density.make_layout(design, "horseshoe")
    stats = sufficient_statistics(design)
    n_kinds = len(stats.pooled.arm)
    assert 3 <= n_kinds <= 6
    assert stats.pooled.count.sum() + stats.n_groups == 24
    args = linear_density.arguments(layout, stats)
    fast = [linear_density.marginal_log_density(phi, *args) for phi in phis(layout)]
    dense = [dense_log_density(phi, design, layout) for phi in phis(layout)]
    np.testing.assert_allclose(np.diff([value for value, _ in fast]), np.diff(dense), rtol=EXACT, atol=1e-8)
    for phi, (_, gradient) in zip(phis(layout), fast, strict=True):
        numerical = numerical_gradient(lambda x: linear_density.marginal_log_density(x, *args)[0], phi)
        np.testing.assert_allclose(gradient, numerical, rtol=1e-6, atol=1e-6)


def test_density_is_smooth_where_signed_scales_are_zero():
    """The log of a scale has an endless tail there; the signed coordinate a flat, symmetric density."""
    design = small_design(2, strata=3)
    layout = linear_density.make_layout(design, "normal")
    args = linear_density.arguments(layout, sufficient_statistics(design))
    phi = phis(layout)[0]
    signed = slice(layout.n_arms, layout.n_scales)
    value, gradient = linear_density.marginal_log_density(phi, *args)
    mirrored = phi.copy()
    mirrored[signed] *= -1
    other, opposite = linear_density.marginal_log_density(mirrored, *args)
    assert other == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(opposite[signed], -gradient[signed], rtol=1e-9)
    for size in (0.0, 1e-120, 1e-12, 1e-7):
        near = phi.copy()
        near[signed] = size
        value, gradient = linear_density.marginal_log_density(near, *args)
        assert np.isfinite(value)
        # flat: the slope is at most the curvature (3e3 here) times the size, plus rounding, 2e-16 / size
        np.testing.assert_allclose(gradient[signed], 0, atol=1e4 * size + 2e-15 / max(size, 1e-12))


# ---------------------------------------------------------------------- other families
@pytest.mark.parametrize("family", OUTCOMES)
@pytest.mark.parametrize(("k", "prior", "strata"), [(0, "normal", 0), (1, "r2d2", 3), (2, "horseshoe", 0)])
def test_gradient_of_other_families(family, k, prior, strata):
    design = small_design(k, strata=strata, family=family)
    layout = linear_density.make_layout(design, prior, family=family)
    args = linear_glm.arguments(layout, design)
    size = layout.n_scales + layout.n_coefficients + design.n_groups * layout.n_random
    x = np.random.default_rng(2).normal(0, 0.5, size)
    gradient = linear_glm.glm_log_density(x, *args)[1]
    numerical = numerical_gradient(lambda v: linear_glm.glm_log_density(v, *args)[0], x)
    np.testing.assert_allclose(gradient, numerical, rtol=1e-6, atol=1e-6)


def test_likelihoods_equal_scipys():
    from scipy import stats

    rng = np.random.default_rng(4)
    eta, arm = rng.normal(0.5, 1, (2, 40)), rng.integers(0, 2, 40)
    phi = np.array([0.6, -0.3])
    counts, amounts = rng.poisson(2.0, 40).astype(float), rng.gamma(2.0, size=40)
    size = 1 / phi**2
    nu = 1 / (linear_families.DISPERSION_FLOOR + np.exp(2 * phi))

    def fast(e, y, family):
        design = replace(small_design(0, n=40), y=y, weight=np.ones(40), arm=arm)
        held = linear_families.constants(design, family)
        return linear_families.log_likelihood(e, y, np.ones(40), arm, phi, held, family, np.empty(40), np.zeros(2))

    def with_scipy(e, family):
        mu = np.exp(e)
        if family == linear_density.NEGATIVE_BINOMIAL:
            return stats.nbinom(size[arm], size[arm] / (size[arm] + mu)).logpmf(counts).sum()
        return stats.gamma(nu[arm], scale=mu / nu[arm]).logpdf(amounts).sum()

    for family, y in ((linear_density.NEGATIVE_BINOMIAL, counts), (linear_density.GAMMA, amounts)):
        ours = fast(eta[0], y, family) - fast(eta[1], y, family)
        assert ours == pytest.approx(with_scipy(eta[0], family) - with_scipy(eta[1], family), rel=1e-10)


def test_counts_without_overdispersion_are_poisson():
    from scipy import stats

    design = small_design(0, family="negative_binomial")
    held = linear_families.constants(design, linear_density.NEGATIVE_BINOMIAL)
    eta = np.random.default_rng(1).normal(0, 1.5, (2, len(design.y)))

    def value(e, d):
        n = len(design.y)
        phi, more = np.full(2, d), (np.empty(n), np.zeros(2))
        family = linear_density.NEGATIVE_BINOMIAL
        return linear_families.log_likelihood(e, design.y, design.weight, design.arm, phi, held, family, *more)

    poisson = [(design.weight * stats.poisson(np.exp(e)).logpmf(design.y)).sum() for e in eta]
    for d, tolerance in ((0.0, 1e-12), (1e-6, 1e-9)):
        assert value(eta[0], d) - value(eta[1], d) == pytest.approx(poisson[0] - poisson[1], rel=tolerance)


def test_digamma_equals_scipys():
    from scipy.special import digamma

    x = np.array([1e-6, 0.01, 0.3, 1.0, 2.5, 7.99, 8.0, 50.0, 1e6])
    np.testing.assert_allclose([linear_families.digamma(v) for v in x], digamma(x), rtol=1e-11)


@pytest.mark.parametrize("family", OUTCOMES)
def test_coordinates_do_not_change_the_posterior(family):
    design = small_design(2, family=family)
    layout = linear_density.make_layout(design, "horseshoe", family=family)
    args = linear_glm.arguments(layout, design)
    information, estimate = args[-2:]
    n_phi, q, a = layout.n_scales, layout.n_coefficients, layout.n_arms
    rng = np.random.default_rng(6)
    gaps = []
    for _ in range(3):
        x = rng.normal(0, 0.5, n_phi + len(estimate))
        phi = x[:n_phi]
        lam = phi[a : a + layout.n_random] ** 2
        variance = np.r_[linear_density.prior_scales(phi, layout.as_tuple())[0], np.tile(lam, design.n_groups)]
        share = 1 / (1 + information * variance)
        theta = (1 - share) * estimate + np.sqrt(variance * share) * x[n_phi:]
        raw = np.r_[phi, theta / np.sqrt(variance)]
        jacobian = 0.5 * np.log(share).sum()
        one = linear_glm.glm_log_density(x, *args)[0]
        other = linear_glm.glm_log_density(raw, *args[:-2], np.zeros_like(information), estimate)[0]
        gaps.append(one - other - jacobian)
        np.testing.assert_allclose(linear_glm.coefficients(x[None], layout, information, estimate)[0], theta[:q])
    np.testing.assert_allclose(gaps, 0, atol=1e-8)


def test_drawn_coefficients_have_the_conditional_posteriors_moments():
    design = small_design(2)
    layout = linear_density.make_layout(design, "normal")
    args = linear_density.arguments(layout, sufficient_statistics(design))
    phi, n_draws = phis(layout)[0], 10_000
    normals = np.random.default_rng(3).standard_normal((n_draws, layout.n_coefficients))
    draws = linear_density.draw_coefficients(np.tile(phi, (n_draws, 1)), normals, args)
    rows, variance = design.rows, linear_density.prior_scales(phi, layout.as_tuple())[0]
    random = np.column_stack([np.ones(len(rows)), design.t])
    lam = phi[2:4] ** 2
    noise = linear_density.NOISE_FLOOR + np.exp(2 * phi[:2])
    covariance = np.diag(noise[design.arm] / design.weight) + (design.group[:, None] == design.group) * (
        random * lam @ random.T
    )
    precision = rows.T @ np.linalg.solve(covariance, rows) + np.diag(1 / variance)
    mean = np.linalg.solve(precision, rows.T @ np.linalg.solve(covariance, design.y))
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * sd.max() / np.sqrt(n_draws))
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.05)


def test_a_unit_of_weight_two_counts_as_two_units():
    design = replace(small_design(2), weight=np.ones(60))
    twice = np.r_[np.arange(60), np.arange(0, 60, 3)]
    weight = np.bincount(twice).astype(float)
    weighted = sufficient_statistics(replace(design, weight=weight))
    repeated = sufficient_statistics(
        LinearDesign(
            *(getattr(design, name)[twice] for name in ("main", "interaction", "t", "y", "weight", "arm", "group")),
            n_random=2,
        )
    )
    for name in ("dd", "dy", "yy", "total", "rr", "rd", "ry"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), atol=1e-10)


def test_statistics_do_not_grow_with_the_units():
    sizes = [sufficient_statistics(small_design(1, n=n)).rd.shape for n in (200, 2000)]
    assert sizes[0] == sizes[1]


def test_principal_axes_keep_the_prior_where_the_data_say_nothing():
    rng = np.random.default_rng(4)
    Z = rng.standard_normal((5, 8))
    axes = linear_data.principal_axes(Z)
    assert axes.shape == (8, 5)
    reduced = rng.standard_normal((20_000, 5)) * 0.01
    full = linear_data.expand_axes(reduced, axes, np.full(20_000, 2.0), rng)
    np.testing.assert_allclose(full @ axes, reduced, atol=1e-12)
    outside = np.linalg.svd(axes.T)[2][5:]
    np.testing.assert_allclose((full @ outside.T).std(axis=0), 2.0, rtol=0.03)


@pytest.mark.parametrize("prior", PRIORS)
def test_prior_draws_have_the_priors_quantiles(prior):
    design = small_design(2, strata=3)
    layout = linear_density.make_layout(design, prior)
    phi = linear_density.draw_prior(layout, 20_000, np.random.default_rng(0))
    a, g = layout.n_arms, layout.n_common
    median = np.median(np.abs(np.column_stack([np.exp(phi[:, :a]), phi[:, a:g]])), axis=0)
    np.testing.assert_allclose(median, 0.765 * np.r_[np.ones(a + 4), 0.5], rtol=0.04)  # median of half-t(3)
    variance = np.array([linear_density.prior_scales(row, layout.as_tuple())[0] for row in phi[:4000]])
    inside = variance[:, 2 + layout.n_main : 2 + layout.n_main + layout.n_interactions]
    if prior == "r2d2":  # sqrt(W) is half-Cauchy(0.5); double exponential mixing leaves E v = share W
        assert np.median(np.abs(phi[:, g])) == pytest.approx(0.5, rel=0.05)
        np.testing.assert_allclose((inside / phi[:4000, [g]] ** 2).mean(axis=0), 1 / 3, rtol=0.12)
    elif prior == "normal":
        assert np.median(np.sqrt(inside.sum(axis=1))) == pytest.approx(0.765 * 0.5, rel=0.06)
    else:
        assert inside.max() < 60  # the slab bounds them
