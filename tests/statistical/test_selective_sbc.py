"""The posterior of the selective-labels model is that of its documented priors: simulation-based calibration.

Talts et al. (2018): parameters drawn from the priors have uniform ranks among the draws. Both samplers are tried: the
one that the model takes by itself, and the No-U-Turn sampler that stands in where proposals do not fit.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import sbc
from scipy.special import expit

from causalsat.estimators.selective_labels import density as density
from causalsat.estimators.selective_labels import sample as sampling
from causalsat.estimators.selective_labels.forms import NormalForm, UniformForm
from causalsat.inference.chains import Settings

pytestmark = [pytest.mark.statistical, pytest.mark.slow]

REPLICATIONS, UNITS = 60, 150
SETTINGS = Settings(100, 150, 2, 0)
CASES = {
    "uniform": (UniformForm(), np.array([0, 1])),
    "uniform, expertise": (UniformForm(), np.array([0])),
    "normal": (NormalForm(1.0, np.nan), np.array([0, 1])),
}


def data_from_the_priors(form, free, rng):
    """Units whose coefficients, sigma and unobservables come from the priors."""
    rows = np.column_stack([np.ones(UNITS), rng.standard_normal(UNITS)])
    risk, decision = 3 * rng.standard_normal(2), np.zeros(2)
    decision[free] = 3 * rng.standard_normal(len(free))
    sigma = abs(3 * rng.standard_normal())
    z = rng.uniform(0, sigma, UNITS) if isinstance(form, UniformForm) else sigma * rng.standard_normal(UNITS)
    logit = rows @ risk + z
    tested = rng.random(UNITS) < expit(logit + rows @ decision)
    cell = np.where(tested, 1 + (rng.random(UNITS) < expit(logit)), 0).astype(np.int64)
    truth = {"risk 0": risk[0], "risk 1": risk[1], "decision 0": decision[0], "sigma": sigma}
    return density.SelectiveData(rows, cell, np.ones(UNITS), free), truth


@cache
def ranks(name):
    """Ranks of the truth among thinned draws, by parameter, and how often the mode path was taken."""
    form, free = CASES[name]
    found, quick = {}, 0
    for k in range(REPLICATIONS):
        data, truth = data_from_the_priors(form, free, np.random.default_rng([7, k]))
        start = form.start(data) if (data.cell > 0).any() else np.zeros(data.n_parameters)
        sampled = sampling.sample(form.density(), form.arguments(data), start, SETTINGS)
        quick += sampled.sampler == "mode path"
        draws = form.coefficients(sampled.flat, data)
        values = {"risk 0": draws.risk[:, 0], "risk 1": draws.risk[:, 1], "decision 0": draws.decision[:, 0],
                  "sigma": draws.sigma}  # fmt: skip
        thin = np.linspace(0, len(draws.sigma) - 1, sbc.RANKS - 1).astype(int)
        for parameter, value in truth.items():
            found.setdefault(parameter, []).append(int((values[parameter][thin] < value).sum()))
    return {parameter: np.array(r) for parameter, r in found.items()}, quick


@pytest.mark.parametrize("name", CASES)
def test_ranks_of_true_parameters_are_uniform(name):
    found, quick = ranks(name)
    p = {parameter: sbc.ecdf_p_value(r) for parameter, r in found.items()}
    assert min(p.values()) > 0.01 / len(p), p  # one in a hundred such tests fails by chance
    assert quick > 0.2 * REPLICATIONS  # the test is of the sampler that data sets of this size get


def test_a_shifted_posterior_would_be_noticed():
    found, _ = ranks("uniform")
    shifted = np.clip(found["risk 1"] + sbc.RANKS // 4, 0, sbc.RANKS - 1)
    assert sbc.ecdf_p_value(shifted) < 0.01 / 10
