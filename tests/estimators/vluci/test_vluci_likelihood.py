"""The likelihood with L integrated out: against brute-force integration, finite differences and simulation."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import expit
from scipy.stats import kstest, norm

from causalsat.estimators.vluci.basis import learn_basis
from causalsat.estimators.vluci.fit import NO_LINK, fit_mode, make_design
from causalsat.estimators.vluci.likelihood import Link, log_joint, unit_terms
from causalsat.estimators.vluci.posterior import Prior, _tilted, choose, draw_confounder, evaluate_grid, find_peak

KINDS = [(True, False), (True, True), (False, False), (False, True)]
U = np.linspace(-12, 12, 24_001)


def units(kinds, n=7, seed=0):
    rng = np.random.default_rng(seed)
    t = (rng.random(n) < 0.5).astype(float) if kinds[0] else rng.standard_normal(n)
    y = (rng.random(n) < 0.5).astype(float) if kinds[1] else rng.standard_normal(n)
    return t, y, tuple(0.5 * rng.standard_normal((3, n)))


def brute(t, y, f, link, kinds):
    """Log of the integral over U of p(U) p(T | U) p(Y | T, U), written down directly."""
    rho = np.where(t > 0, link.rho[1], link.rho[0])[:, None] if kinds[0] else link.rho[0]
    scale = 3 / np.pi**2
    if kinds[0]:
        p = expit(np.sqrt(1 + link.beta**2 * scale) * f[0][:, None] + link.beta * U)
        log_t = np.where(t[:, None] == 1, np.log(p), np.log1p(-p))
    else:
        share = link.beta / np.sqrt(1 + link.beta**2)
        log_t = norm.logpdf(t[:, None], f[0][:, None] + share * U, np.sqrt(1 - share**2))
    if kinds[1]:
        loading = rho / np.sqrt(1 - rho**2) * np.pi / np.sqrt(3)
        q = expit(np.sqrt(1 + loading**2 * scale) * f[1][:, None] + loading * U)
        log_y = np.where(y[:, None] == 1, np.log(q), np.log1p(-q))
    else:
        sd = np.exp(f[2])[:, None]
        log_y = norm.logpdf(y[:, None], f[1][:, None] + rho * sd * U, sd * np.sqrt(1 - rho**2))
    return np.log(trapezoid(np.exp(norm.logpdf(U) + log_t + log_y), U))


@pytest.mark.parametrize("kinds", KINDS)
def test_value_is_the_integral_over_the_confounder(kinds):
    t, y, f = units(kinds)
    link = Link(1.2, (0.5, 0.7) if kinds[0] else (0.5, 0.5))
    constants = 0.5 * np.log(2 * np.pi) * ((not kinds[0]) + (not kinds[1]))
    ours = unit_terms(t, y, f, link, kinds).value - constants
    np.testing.assert_allclose(ours, brute(t, y, f, link, kinds), atol=2e-4)


@pytest.mark.parametrize("kinds", KINDS)
def test_derivatives_are_those_of_finite_differences(kinds):
    t, y, f = units(kinds)
    link, h = Link(1.7, (0.6, 0.8) if kinds[0] else (0.6, 0.6)), 1e-5
    terms = unit_terms(t, y, f, link, kinds)
    for i in range(3):
        up, down = (
            unit_terms(t, y, tuple(v + s * h * (j == i) for j, v in enumerate(f)), link, kinds) for s in (1, -1)
        )
        np.testing.assert_allclose(terms.first[i], (up.value - down.value) / (2 * h), atol=1e-7)
        np.testing.assert_allclose(terms.second[i], (up.first - down.first) / (2 * h), atol=1e-6)


def test_few_coefficients_may_be_large_and_the_rest_are_shrunk_to_nothing():
    """One bent and one product column of 300 units move the outcome; ridge regression would smear them out."""
    rng = np.random.default_rng(6)
    n = 400
    X = rng.standard_normal((n, 6))
    t = (rng.random(n) < 0.5).astype(float)
    y = X[:, 0] + X[:, 1] ** 2 + X[:, 2] * X[:, 3] + t + rng.standard_normal(n)
    basis = learn_basis(X)
    B = basis.apply(X)
    design = make_design(B, basis.kinds, t, (y - y.mean()) / y.std(), np.ones(n), (True, False))
    mode = fit_mode(design, NO_LINK, rounds=15)
    first = design.D_t.shape[1] + 1
    products = np.flatnonzero(basis.kinds == 2)
    mine = products[[set(pair) == {2, 3} for pair in basis.products.tolist()]][0]
    others = np.setdiff1d(products, [mine])
    size = np.abs(mode.z[first : first + B.shape[1]])
    assert size[mine] * y.std() == pytest.approx(1.0, abs=0.15)
    assert np.median(size[others]) < 0.02 * size[mine]
    variance = mode.variance[first : first + B.shape[1]]
    assert variance[mine] > 50 * np.median(variance[others])


def test_tilted_weights_have_the_mean_and_are_log_linear_in_the_effect():
    rng = np.random.default_rng(7)
    weight, ate = rng.dirichlet(np.ones(50)), rng.standard_normal(50)
    tilted = _tilted(weight, ate, 0.4, (-10.0, 10.0))  # no effect beyond the ends
    assert tilted @ ate == pytest.approx(0.4, abs=1e-9)
    slope = np.polyfit(ate, np.log(tilted / weight), 1)
    np.testing.assert_allclose(np.log(tilted / weight), np.polyval(slope, ate), atol=1e-9)
    np.testing.assert_array_equal(_tilted(weight, np.ones(50), 1.0, (0.0, 2.0)), weight)


def test_tilted_weights_leave_a_twentieth_beyond_each_end():
    rng = np.random.default_rng(8)
    ate = np.sort(rng.standard_normal(200))
    weight = np.exp(-5 * ate**2)  # hardly anything beyond the ends
    tilted = _tilted(weight / weight.sum(), ate, 0.1, (-1.0, 1.2))
    assert (tilted @ ate, tilted[ate < -1].sum(), tilted[ate > 1.2].sum()) == pytest.approx((0.1, 0.05, 0.05))


def test_a_narrow_peak_is_found_between_the_places_of_a_grid_and_a_slope_has_none():
    turn = np.array([[1.0, 0.3, 0.0], [0.0, 1.0, -0.4], [0.0, 0.0, 1.0]])

    def hill(x):
        z = turn @ (x - np.array([0.31, -0.12, 0.05])) / 0.07
        return float(70 - 0.5 * z @ z), float(2 * x[0] + x[1] ** 2), 0.1

    found = find_peak(hill, np.array([0.0, 0.0, 0.0]), np.array([0.7, 0.5, 0.4]))
    weight = np.exp(found.evidence - found.evidence.max())
    weight /= weight.sum()
    np.testing.assert_allclose(weight @ found.places, [0.31, -0.12, 0.05], atol=1e-3)
    spread = np.cov(found.places.T, aweights=weight, bias=True)
    np.testing.assert_allclose(spread, 0.07**2 * np.linalg.inv(turn.T @ turn), atol=2e-4)
    np.testing.assert_allclose(found.ate, 2 * found.places[:, 0] + found.places[:, 1] ** 2, atol=1e-6)
    total = np.log(np.exp(found.evidence).sum()) + found.log_volume
    assert total == pytest.approx(70 + 1.5 * np.log(2 * np.pi) + 3 * np.log(0.07), abs=0.02)
    assert find_peak(lambda x: (float(x.sum()), 0.0, 1.0), np.zeros(3), np.ones(3)) is None


def test_a_dose_with_normal_residuals_says_nothing_of_the_strength():
    """Shifting f_Y by what the correlation takes gives the same likelihood: no data can tell them apart."""
    rng = np.random.default_rng(0)
    t, f_t = rng.standard_normal((2, 50))
    y, f_y = rng.standard_normal((2, 50))
    link = Link(1.0, (0.8, 0.8))
    q = 0.8 / np.sqrt(2)
    sd = 1.3
    hidden = unit_terms(t, y, (f_t, f_y, np.full(50, np.log(sd))), link, (False, False)).value
    shifted = f_y + q * sd * (t - f_t)
    none = unit_terms(
        t, y, (f_t, shifted, np.full(50, np.log(sd * np.sqrt(1 - q**2)))), NO_LINK, (False, False)
    ).value
    np.testing.assert_allclose(hidden, none, atol=1e-10)


@pytest.mark.parametrize("kinds", KINDS)
def test_draws_of_the_confounder_follow_its_posterior(kinds):
    """Over units simulated from the model, uniform quantiles of the exact posterior give back the true U's law."""
    rng = np.random.default_rng(1)
    n = 4000
    u = rng.standard_normal(n)
    X = rng.standard_normal((n, 2))
    link = Link(2.0, (0.8, 0.8))
    m = np.sqrt(1 + 4 * 3 / np.pi**2)
    share = 2 / np.sqrt(5)
    t = (rng.random(n) < expit(2 * u)).astype(float) if kinds[0] else share * u + 0.2**0.5 * rng.standard_normal(n)
    loading = 0.8 / 0.6 * np.pi / np.sqrt(3)
    y = (rng.random(n) < expit(loading * u)).astype(float) if kinds[1] else 0.8 * u + 0.6 * rng.standard_normal(n)
    basis = learn_basis(X)
    design = make_design(basis.apply(X), basis.kinds, t, y, np.ones(n), kinds)
    z = np.zeros(len(design.group) + 2)
    draws = draw_confounder(design, z, link, rng.random(n))
    assert kstest(draws, "norm").pvalue > 0.001
    expected = np.corrcoef(u, t)[0, 1], np.corrcoef(u, y)[0, 1]
    assert (np.corrcoef(draws, t)[0, 1], np.corrcoef(draws, y)[0, 1]) == pytest.approx(expected, abs=0.04)
    middle = np.mean([draw_confounder(design, z, link, rng.random(n)) for _ in range(20)], axis=0)
    assert np.corrcoef(middle, u)[0, 1] ** 2 > 0.45
    assert m > 1


def test_mode_without_a_link_is_ridge_regression_and_evidence_is_that_of_the_normal_model():
    rng = np.random.default_rng(2)
    n = 300
    X = rng.standard_normal((n, 2))
    t = (rng.random(n) < 0.5).astype(float)
    y = X[:, 0] + 0.7 * t + rng.standard_normal(n)
    basis = learn_basis(X)
    design = make_design(basis.apply(X), basis.kinds, t, y, np.ones(n), (True, False))
    mode = fit_mode(design, NO_LINK, rounds=20)
    assert mode.ate == pytest.approx(0.7, abs=3 * mode.ate_sd)
    assert mode.ate_sd == pytest.approx(2 / np.sqrt(n), rel=0.15)
    assert np.exp(mode.z[-2:]) == pytest.approx([1.0, 1.0], abs=0.15)


def test_chosen_strengths_are_quantiles_of_the_average_effect():
    rng = np.random.default_rng(3)
    n = 400
    X = rng.standard_normal((n, 2))
    t = (rng.random(n) < expit(X[:, 0])).astype(float)
    y = X[:, 1] + t + rng.standard_normal(n)
    basis = learn_basis(X)
    design = make_design(basis.apply(X), basis.kinds, t, y, np.ones(n), (True, False))
    grid, (none, *_) = evaluate_grid(design, Prior(1.0, 2.0), 5)
    assert grid.weight.sum() == pytest.approx(1)
    assert grid.weight[grid.none].sum() == pytest.approx(0, abs=1e-12)  # prior probability 1 rules out none
    effects = np.array([effect for _, effect, _ in choose(grid, 200)])
    assert (np.diff(effects) >= 0).all()
    assert effects.mean() == pytest.approx(grid.weight @ grid.ate, abs=0.02)
    assert grid.ate.min() < none.ate < grid.ate.max()


def test_smooth_functions_are_orthogonal_to_the_line_and_constant_columns_are_left_out():
    rng = np.random.default_rng(4)
    X = np.column_stack([rng.standard_normal((500, 2)), np.ones(500), rng.integers(0, 2, 500)])
    basis = learn_basis(X)
    B = basis.apply(X)
    assert basis.linear.tolist() == [0, 1, 3]
    assert basis.smooth.tolist() == [0, 1]  # nothing bends in a column of zeros and ones
    smooth = B[:, basis.kinds == 1]
    np.testing.assert_allclose(smooth.T @ np.column_stack([np.ones(500), X[:, 0]])[:, :1], 0, atol=1e-6)
    np.testing.assert_allclose(smooth.var(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(smooth[:, :3].T @ X[:, 0] / 500, 0, atol=1e-6)


def test_log_joint_integrates_to_the_likelihood():
    t, y, f = units((True, False), seed=5)
    link = Link(1.0, (0.4, 0.4))
    total = np.log(trapezoid(np.exp(log_joint(U, t, y, f, link, (True, False))), U))
    value = unit_terms(t, y, f, link, (True, False)).value
    assert np.ptp(total - value - f[2]) < 1e-4
