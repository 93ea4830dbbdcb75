"""The fast densities against independent ones: a dense multivariate normal, finite differences, the PyMC model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from causalsat.estimators import _linear_data, _linear_density, _linear_glm
from causalsat.estimators._linear_data import LinearDesign

EXACT = 1e-8  # relative; both sides are closed forms in double precision
STRUCTURES = [(k, prior) for k in (0, 1, 2) for prior in ("normal", "horseshoe")]


def small_design(k=1, *, n=60, p=4, j=3, binary=True, seed=0) -> LinearDesign:
    rng = np.random.default_rng(seed)
    group = np.unique(rng.integers(0, 12, n), return_inverse=True)[1]
    treatment = (rng.random(n) < 0.4).astype(float) if binary else rng.uniform(0, 3, n)
    Z, t = rng.standard_normal((n, p)), treatment - treatment.mean()
    y = 0.3 * Z[:, 0] + t * (0.5 + 0.4 * Z[:, 1]) + rng.standard_normal(n)
    arm = treatment.astype(np.int64) if binary else np.zeros(n, dtype=np.int64)
    return LinearDesign(Z, t[:, None] * Z[:, :j], t, y, np.ones(n), arm, group if k else None, k)


def dense_log_density(phi, design, layout):
    """The marginal likelihood as one n-dimensional normal, plus the log prior."""
    variance, _, _, log_prior, _ = _linear_density.prior_scales(phi, layout.as_tuple())
    rows = design.rows
    noise = _linear_density.NOISE_FLOOR + np.exp(2 * phi[: layout.n_arms])
    covariance = rows * variance @ rows.T + np.diag(noise[design.arm])
    if layout.n_random:
        lam = np.exp(2 * phi[layout.n_arms : layout.n_arms + layout.n_random])
        random = np.column_stack([np.ones(len(design.y)), design.t])[:, : layout.n_random]
        covariance += (design.group[:, None] == design.group) * (random * lam @ random.T)
    return multivariate_normal(np.zeros(len(rows)), covariance).logpdf(design.y) + log_prior


def numerical_gradient(f, x, step=1e-5):
    return np.array([(f(x + h) - f(x - h)) / (2 * step) for h in step * np.eye(len(x))])


def phis(layout, count=3):
    rng = np.random.default_rng(1)
    return [rng.normal(-0.5, 0.6, layout.n_scales) for _ in range(count)]


@pytest.mark.parametrize(("k", "prior"), STRUCTURES)
@pytest.mark.parametrize("binary", [True, False])
def test_marginal_density_equals_a_dense_normal(k, prior, binary):
    design = small_design(k, binary=binary)
    layout = _linear_density.make_layout(design, prior)
    args = _linear_density.arguments(layout, _linear_data.sufficient_statistics(design))
    fast = [_linear_density.marginal_log_density(phi, *args)[0] for phi in phis(layout)]
    dense = [dense_log_density(phi, design, layout) for phi in phis(layout)]
    np.testing.assert_allclose(np.diff(fast), np.diff(dense), rtol=EXACT, atol=1e-8)


@pytest.mark.parametrize(("k", "prior"), STRUCTURES)
def test_gradient_of_marginal_density(k, prior):
    design = small_design(k)
    layout = _linear_density.make_layout(design, prior)
    args = _linear_density.arguments(layout, _linear_data.sufficient_statistics(design))
    for phi in phis(layout):
        gradient = _linear_density.marginal_log_density(phi, *args)[1]
        numerical = numerical_gradient(lambda x: _linear_density.marginal_log_density(x, *args)[0], phi)
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
    layout = _linear_density.make_layout(design, "horseshoe")
    stats = _linear_data.sufficient_statistics(design)
    n_kinds = len(stats.pooled.arm)
    assert 3 <= n_kinds <= 6
    assert stats.pooled.count.sum() + stats.n_groups == 24
    args = _linear_density.arguments(layout, stats)
    fast = [_linear_density.marginal_log_density(phi, *args) for phi in phis(layout)]
    dense = [dense_log_density(phi, design, layout) for phi in phis(layout)]
    np.testing.assert_allclose(np.diff([value for value, _ in fast]), np.diff(dense), rtol=EXACT, atol=1e-8)
    for phi, (_, gradient) in zip(phis(layout), fast, strict=True):
        numerical = numerical_gradient(lambda x: _linear_density.marginal_log_density(x, *args)[0], phi)
        np.testing.assert_allclose(gradient, numerical, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("k", "prior"), STRUCTURES)
def test_gradient_of_logit_density(k, prior):
    design = small_design(k)
    design = replace(design, y=(design.y > 0).astype(float))
    layout = _linear_density.make_layout(design, prior, binary_outcome=True)
    args = _linear_glm.arguments(layout, design)
    size = layout.n_scales + layout.n_coefficients + design.n_groups * layout.n_random
    x = np.random.default_rng(2).normal(0, 0.5, size)
    gradient = _linear_glm.logit_log_density(x, *args)[1]
    numerical = numerical_gradient(lambda v: _linear_glm.logit_log_density(v, *args)[0], x)
    np.testing.assert_allclose(gradient, numerical, rtol=1e-6, atol=1e-6)


def test_logit_coordinates_do_not_change_the_posterior():
    design = small_design(2)
    design = replace(design, y=(design.y > 0).astype(float))
    layout = _linear_density.make_layout(design, "horseshoe", binary_outcome=True)
    args = _linear_glm.arguments(layout, design)
    information, estimate = args[-2:]
    n_phi, q = layout.n_scales, layout.n_coefficients
    rng = np.random.default_rng(6)
    gaps = []
    for _ in range(3):
        x = rng.normal(0, 0.5, n_phi + len(estimate))
        phi = x[:n_phi]
        lam = np.exp(2 * phi[: layout.n_random])
        variance = np.r_[_linear_density.prior_scales(phi, layout.as_tuple())[0], np.tile(lam, design.n_groups)]
        share = 1 / (1 + information * variance)
        theta = (1 - share) * estimate + np.sqrt(variance * share) * x[n_phi:]
        raw = np.r_[phi, theta / np.sqrt(variance)]
        jacobian = 0.5 * np.log(share).sum()
        one = _linear_glm.logit_log_density(x, *args)[0]
        other = _linear_glm.logit_log_density(raw, *args[:-2], np.zeros_like(information), estimate)[0]
        gaps.append(one - other - jacobian)
        np.testing.assert_allclose(_linear_glm.coefficients(x[None], layout, information, estimate)[0], theta[:q])
    np.testing.assert_allclose(gaps, 0, atol=1e-8)


def test_drawn_coefficients_have_the_conditional_posteriors_moments():
    design = small_design(2)
    layout = _linear_density.make_layout(design, "normal")
    args = _linear_density.arguments(layout, _linear_data.sufficient_statistics(design))
    phi, n_draws = phis(layout)[0], 10_000
    normals = np.random.default_rng(3).standard_normal((n_draws, layout.n_coefficients))
    draws = _linear_density.draw_coefficients(np.tile(phi, (n_draws, 1)), normals, args)
    rows, variance = design.rows, _linear_density.prior_scales(phi, layout.as_tuple())[0]
    random = np.column_stack([np.ones(len(rows)), design.t])
    lam = np.exp(2 * phi[2:4])
    noise = _linear_density.NOISE_FLOOR + np.exp(2 * phi[:2])
    covariance = np.diag(noise[design.arm]) + (design.group[:, None] == design.group) * (random * lam @ random.T)
    precision = rows.T @ np.linalg.solve(covariance, rows) + np.diag(1 / variance)
    mean = np.linalg.solve(precision, rows.T @ np.linalg.solve(covariance, design.y))
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * sd.max() / np.sqrt(n_draws))
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.05)


def test_a_unit_of_weight_two_counts_as_two_units():
    design = small_design(2)
    twice = np.r_[np.arange(60), np.arange(0, 60, 3)]
    weight = np.bincount(twice).astype(float)
    weighted = _linear_data.sufficient_statistics(replace(design, weight=weight))
    repeated = _linear_data.sufficient_statistics(
        LinearDesign(
            *(getattr(design, name)[twice] for name in ("main", "interaction", "t", "y", "weight", "arm", "group")),
            n_random=2,
        )
    )
    for name in ("dd", "dy", "yy", "total", "rr", "rd", "ry"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), atol=1e-10)


def test_statistics_do_not_grow_with_the_units():
    sizes = [_linear_data.sufficient_statistics(small_design(1, n=n)).rd.shape for n in (200, 2000)]
    assert sizes[0] == sizes[1]


def test_principal_axes_keep_the_prior_where_the_data_say_nothing():
    rng = np.random.default_rng(4)
    Z = rng.standard_normal((5, 8))
    axes = _linear_data.principal_axes(Z)
    assert axes.shape == (8, 5)
    reduced = rng.standard_normal((20_000, 5)) * 0.01
    full = _linear_data.expand_axes(reduced, axes, np.full(20_000, 2.0), rng)
    np.testing.assert_allclose(full @ axes, reduced, atol=1e-12)
    outside = np.linalg.svd(axes.T)[2][5:]
    np.testing.assert_allclose((full @ outside.T).std(axis=0), 2.0, rtol=0.03)


def joint_of_pymc(design, layout):
    """PyMC's log density and gradient as functions of (phi, raw coefficients, raw village effects)."""
    pm = pytest.importorskip("pymc")
    import pytensor

    from causalsat.estimators import _linear_model

    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        model = _linear_model.build_model(layout, design.n_groups, _linear_model.model_data(design, layout))
        logp, gradient = model.compile_logp(), model.compile_dlogp()
    del pm
    a, k = layout.n_arms, layout.n_random

    def point(x):
        phi, rest = x[: layout.n_scales], x[layout.n_scales :]
        scales = {
            "noise_log__": phi[:a],
            "random_sd_log__": phi[a : a + k],
            "main_scale_log__": phi[a + k],
            "interaction_scale_log__": phi[a + k + 1] - np.log(layout.global_scale),
            "slab_log__": phi[a + k + 2 : a + k + 3].sum(),
            "local_log__": phi[a + k + 3 :],
        }
        p, q = layout.n_main, layout.n_coefficients
        scale = _linear_density.COEFFICIENT_SCALE * layout.unit
        raw = {
            "fixed": np.array([rest[0], rest[1 + p]]) * scale,
            "main_raw": rest[1 : 1 + p],
            "interaction_raw": rest[2 + p : q],
            "random_raw": rest[q:].reshape(-1, k) if k else rest[q:],
        }
        names = {v.name for v in model.value_vars}
        return {name: np.asarray(v) for name, v in {**scales, **raw}.items() if name in names}

    return lambda x: float(logp(point(x))), lambda x: gradient(point(x)), model


@pytest.mark.parametrize(("k", "prior"), [(0, "normal"), (2, "horseshoe")])
def test_logit_density_equals_the_pymc_model(k, prior):
    design = small_design(k)
    design = replace(design, y=(design.y > 0).astype(float))
    layout = _linear_density.make_layout(design, prior, binary_outcome=True)
    args = _linear_glm.arguments(layout, design)
    logp, _, _ = joint_of_pymc(design, layout)
    size = layout.n_scales + layout.n_coefficients + design.n_groups * k
    points = np.random.default_rng(5).normal(0, 0.5, (3, size))
    prior_only = (*args[:-2], np.zeros(len(args[-1])), args[-1])  # coordinates in prior standard deviations
    fast = [_linear_glm.logit_log_density(x, *prior_only)[0] for x in points]
    np.testing.assert_allclose(np.diff(fast), np.diff([logp(x) for x in points]), rtol=EXACT, atol=1e-8)


@pytest.mark.parametrize(("k", "prior"), [(1, "normal"), (2, "horseshoe")])
def test_marginal_density_equals_the_pymc_model_integrated(k, prior):
    """PyMC's joint density is quadratic in the raw effects, so its integral follows from values at a few points."""
    design = small_design(k, n=40, p=2, j=2)
    layout = _linear_density.make_layout(design, prior)
    args = _linear_density.arguments(layout, _linear_data.sufficient_statistics(design))
    logp, _, _ = joint_of_pymc(design, layout)
    d = layout.n_coefficients + design.n_groups * k
    eye = np.eye(d)

    def integrated(phi):
        f = lambda r: logp(np.r_[phi, r])  # noqa: E731
        zero = f(np.zeros(d))
        plus, minus = np.array([f(e) for e in eye]), np.array([f(-e) for e in eye])
        slope, curve = (plus - minus) / 2, plus + minus - 2 * zero
        hessian = np.diag(curve)
        for i in range(d):
            for j in range(i):
                hessian[i, j] = hessian[j, i] = f(eye[i] + eye[j]) - plus[i] - plus[j] + zero
        return zero + 0.5 * slope @ np.linalg.solve(-hessian, slope) - 0.5 * np.linalg.slogdet(-hessian)[1]

    fast = [_linear_density.marginal_log_density(phi, *args)[0] for phi in phis(layout, 2)]
    np.testing.assert_allclose(np.diff(fast), np.diff([integrated(phi) for phi in phis(layout, 2)]), rtol=1e-6)
