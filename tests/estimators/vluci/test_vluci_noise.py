"""Noise of a learned shape: integrated, differentiated, fitted, and what it saves from being called a confounder."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import expit
from scipy.stats import norm

from causalsat import VLUCI, DoublyRobustEffect
from causalsat.estimators.vluci.likelihood import Link, log_joint, unit_terms, unit_values
from causalsat.estimators.vluci.noise import components, improve
from causalsat.simulate import hidden_confounding

SKEWED = components(np.array([-0.5, 2.0, 0.5]))
U = np.linspace(-12, 12, 24_001)


def test_mixed_noise_is_integrated_over_and_differentiated():
    """Noise of a skewed mixture of mean 0 and variance 1: the integral written down, and finite differences."""
    rng = np.random.default_rng(1)
    t, y, f = np.arange(9) % 2.0, rng.standard_normal(9), tuple(0.5 * rng.standard_normal((3, 9)))
    link, h = Link(1.4, (0.5, 0.8), SKEWED), 1e-5
    rho, sd = np.where(t > 0, 0.8, 0.5)[:, None], np.exp(f[2])[:, None]
    p = expit(np.sqrt(1 + 1.4**2 * 3 / np.pi**2) * f[0][:, None] + 1.4 * U)
    left = sd * np.sqrt(1 - rho**2)
    e = (y[:, None] - f[1][:, None] - rho * sd * U) / left
    noise = sum(w * norm.pdf(e, m, s) for w, m, s in SKEWED) / left
    brute_force = np.log(trapezoid(norm.pdf(U) * np.where(t[:, None] == 1, p, 1 - p) * noise, U))
    terms = unit_terms(t, y, f, link, (True, False))
    np.testing.assert_allclose(terms.value - 0.5 * np.log(2 * np.pi), brute_force, atol=2e-4)
    np.testing.assert_allclose(unit_values(t, y, f, link), terms.value, atol=1e-12)
    joint = np.log(trapezoid(np.exp(log_joint(U, t, y, f, link, (True, False))), U))
    assert np.ptp(joint - terms.value - f[2] - np.log(left[:, 0] / sd[:, 0])) < 1e-3
    for i in range(3):
        up, down = (
            unit_terms(t, y, tuple(v + s * h * (j == i) for j, v in enumerate(f)), link, (True, False))
            for s in (1, -1)
        )
        np.testing.assert_allclose(terms.first[i], (up.value - down.value) / (2 * h), atol=1e-7)
        np.testing.assert_allclose(terms.second[i], (up.first - down.first) / (2 * h), atol=1e-6)


def test_shape_of_the_noise_is_learned_and_an_outcome_without_noise_has_none():
    rng = np.random.default_rng(0)
    e = rng.exponential(size=4000) - 1

    def values(shape):
        return np.log(sum(w * norm.pdf(e, m, s) for w, m, s in components(shape)))

    shape = np.array([-1.0, 1.5, 0.4])
    for _ in range(40):
        shape, slopes = improve(values, np.ones(4000), shape)
    w, m, s = np.array(components(shape)).T
    skewness = w @ (m**3 + 3 * m * s**2)
    assert values(shape).sum() - norm.logpdf(e).sum() > 500
    assert 1.0 < skewness < 2.5  # of the exponential distribution: 2
    assert slopes.shape == (4000, 3)
    stuck, none = improve(lambda shape: 1e9 * shape[0] * np.ones(5), np.ones(5), shape)
    np.testing.assert_array_equal(stuck, shape)
    assert not none.any()


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_skewed_noise_is_not_taken_for_a_confounder():
    """Centred exponential noise, no confounder: normal noise in the model fakes one, a learned shape does not."""
    error, found = {"normal": [], "flexible": []}, {"normal": [], "flexible": []}
    base = DoublyRobustEffect(propensity_model="logistic")
    for seed in range(3):
        w = hidden_confounding(1500, strength=0.0, observed=2.0, n_features=5, seed=seed)
        y = w.outcome + 1.5 * (np.random.default_rng(seed).exponential(size=len(w.X)) - 1)
        for noise, errors in error.items():
            model = VLUCI(base, noise=noise, n_imputations=6, n_grid=5).fit(w.X, y, treatment=w.treatment)
            errors.append(abs(float(model.ate_draws_.mean()) - w.tau.mean()))
            found[noise].append(model.probability_)
    assert np.mean(found["normal"]) > 0.5
    assert np.mean(found["flexible"]) < 0.15
    assert np.mean(error["normal"]) > 0.6
    assert np.mean(error["flexible"]) < 0.25
