"""BayesianLinearEffect's posterior is that of its documented model: simulation-based calibration.

Talts et al. (2018): true parameters drawn from the priors have uniform ranks among the draws. The band is that of
Sailynoja et al. (2022); ``benchmarks/calibration.py`` runs the same with more replications and more models.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import sbc

pytestmark = [pytest.mark.statistical, pytest.mark.slow]

N = 50
MODELS = {
    "gaussian": sbc.Model(prior="r2d2"),
    "gaussian with villages": sbc.Model(prior="horseshoe", villages=12),
    "bernoulli": sbc.Model(prior="normal", family="bernoulli", villages=12, mixed=False),
}


@cache
def replications(name):
    return sbc.replicate(MODELS[name], N, seed=1)


@pytest.mark.parametrize("name", MODELS)
def test_ranks_of_true_parameters_are_uniform(name):
    model = MODELS[name]
    p = {quantity: sbc.ecdf_p_value(found) for quantity, found in sbc.ranks(model, replications(name)).items()}
    assert min(p.values()) > 0.01 / len(p), p  # one in a hundred such tests fails by chance


def test_ranks_under_the_pymc_reference_are_uniform():
    """Compiled once for all replications; 200 of them, and a horseshoe, are in ``benchmarks/calibration.py``."""
    model = sbc.Model(prior="normal", family="bernoulli", villages=12)
    ranks = sbc.ranks(model, sbc.replicate(model, 40, seed=1, sampler="pymc"))
    p = {quantity: sbc.ecdf_p_value(found) for quantity, found in ranks.items()}
    assert min(p.values()) > 0.01 / len(p), p


def changed(found, change):
    """The same replications with other draws."""
    return [(data, truth, change(draws)) for data, truth, draws in found]


@pytest.mark.parametrize("name", MODELS)
def test_a_shifted_or_a_narrow_posterior_would_be_noticed(name):
    def shift(draws):
        return draws | {"treatment": draws["treatment"] + 0.7 * draws["treatment"].std()}

    def narrow(draws):
        return draws | {"treatment": 0.4 * draws["treatment"] + 0.6 * draws["treatment"].mean()}

    for fault in (shift, narrow):
        ranks = sbc.ranks(MODELS[name], changed(replications(name), fault))
        assert sbc.ecdf_p_value(ranks["treatment"]) < 0.01 / 10


def test_p_values_are_uniform_when_ranks_are():
    rng = np.random.default_rng(0)
    p = [sbc.ecdf_p_value(rng.integers(0, sbc.RANKS, N)) for _ in range(400)]
    for level in (0.05, 0.2, 0.5):
        assert abs(np.mean(np.array(p) <= level) - level) < 3 * np.sqrt(level * (1 - level) / 400)
    ramp = np.sort(rng.integers(0, sbc.RANKS, 200)) // 2
    assert sbc.ecdf_p_value(ramp) < 1e-3
    assert sbc.chi_square(ramp) < 1e-3
