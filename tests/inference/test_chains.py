"""Chain diagnostics: one policy, whose messages show why they were given."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from causalsat.exceptions import ConvergenceWarning
from causalsat.inference.chains import (
    POLICY,
    ChainPolicy,
    chain_summary,
    convergence_problems,
    warn_of_chains,
    worst_summary,
)

GOOD = {"r_hat": 1.002, "ess": 900.0, "divergences": 0, "n_chains": 4, "n_draws": 2000}


def test_good_chains_have_no_problem():
    draws = np.random.default_rng(0).standard_normal((4, 500, 3))
    summary = chain_summary({"beta": draws, "fixed": np.ones((4, 500))}, 0)
    assert convergence_problems(summary) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_chains(summary, advice="none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r_hat": 1.0100004}, "R-hat 1.0100004 (above 1.01)"),
        ({"r_hat": 1.0104}, "R-hat 1.0104 (above 1.01)"),
        ({"r_hat": 1.2}, "R-hat 1.200 (above 1.01)"),
        ({"r_hat": np.inf}, "R-hat inf (above 1.01)"),
        ({"ess": 399.99}, "effective sample size 399 (below 400)"),
        ({"divergences": 21}, "21 divergences in 2000 draws (above 1 %)"),
        ({"pareto_k": 0.7004}, "Pareto k of the importance weights 0.7004 (above 0.7)"),
    ],
)
def test_a_number_that_is_outside_looks_outside(change, said):
    assert convergence_problems(GOOD | change) == [said]


def test_numbers_at_the_limits_are_accepted():
    at = {"r_hat": POLICY.r_hat, "ess": 400.0, "divergences": 20, "pareto_k": POLICY.pareto_k}
    assert convergence_problems(GOOD | at) == []
    assert convergence_problems(GOOD | {"r_hat": np.nan}) == []  # a single chain


def test_a_family_may_be_stricter_and_needs_as_many_draws_as_chains():
    assert convergence_problems(GOOD | {"divergences": 1}, ChainPolicy(divergence_share=0.0)) == [
        "1 divergence in 2000 draws"
    ]
    assert convergence_problems(GOOD | {"n_chains": 10}) == ["effective sample size 900 (below 1000)"]


def test_draws_that_are_not_finite_are_no_good_chain():
    draws = np.random.default_rng(1).standard_normal((4, 500))
    draws[2, 17] = np.nan
    summary = chain_summary({"ate": draws, "sd": np.ones((4, 500))}, 0)
    assert [p.split(" (")[0] for p in convergence_problems(summary)] == ["R-hat inf", "effective sample size 0"]


def test_the_warning_carries_the_advice_and_the_callers_line():
    with pytest.warns(ConvergenceWarning, match=r"R-hat 1\.500 .*What to do: raise n_tune\.$") as caught:
        warn_of_chains(GOOD | {"r_hat": 1.5}, advice="raise n_tune.")
    assert caught[0].filename == __file__


def test_the_worst_of_several_fits():
    other = GOOD | {"r_hat": np.nan, "ess": 50.0, "divergences": 3}
    worst = worst_summary([GOOD, other])
    assert (worst["r_hat"], worst["ess"], worst["divergences"], worst["n_draws"]) == (1.002, 50.0, 3, 4000)
