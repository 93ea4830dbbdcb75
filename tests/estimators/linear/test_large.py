"""Fast paths of BayesianLinearEffect against the full sampler on data small enough for both."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat import BayesianLinearEffect
from causalsat.estimators.linear import fit as linear_fit
from causalsat.exceptions import ConvergenceWarning

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")
QUICK = {"n_draws": 400, "n_tune": 200, "n_chains": 2, "random_state": 0, "modifiers": [0, 1]}


def trial(n=1500, n_groups=100, *, mixed=True, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.r_[np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)]
    X = rng.standard_normal((n, 3))
    t = rng.integers(0, 2, n) if mixed else rng.permutation(np.arange(n_groups) % 2)[groups]
    y = 0.5 * X[:, 2] + t * (0.5 + 0.4 * X[:, 0]) + 0.4 * rng.standard_normal(n_groups)[groups]
    return X, y + (0.8 + 0.3 * t) * rng.standard_normal(n), t.astype(float), groups


def agree(fast, slow, names, *, means=0.2, sds=0.2):
    for name in names:
        a, b = fast.draws_[name], slow.draws_[name]
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < means * b.std(axis=0)).all(), name
        np.testing.assert_allclose(a.std(axis=0), b.std(axis=0), rtol=sds, err_msg=name)


@pytest.mark.parametrize(("mixed", "prior"), [(True, "normal"), (True, "horseshoe"), (False, "r2d2")])
def test_blocks_give_the_posterior_of_the_full_sampler(monkeypatch, mixed, prior):
    X, y, t, groups = trial(mixed=mixed)
    slow = BayesianLinearEffect(prior=prior, **QUICK).fit(X, y, treatment=t, groups=groups)
    monkeypatch.setattr(linear_fit, "COSTLY", 0)
    monkeypatch.setattr(linear_fit, "MANY_VILLAGES", 0)
    fast = BayesianLinearEffect(prior=prior, **QUICK).fit(X, y, treatment=t, groups=groups)
    assert fast.diagnostics_["pareto_k"] < 0.7
    assert "pareto_k" not in slow.diagnostics_
    # Monte Carlo error of means of about 400 effective draws is 0.05 posterior sd each
    agree(fast, slow, ["ate", "interaction", "main", "noise", "group_sd"])
    assert fast.diagnostics_["r_hat"] < 1.03


@pytest.mark.parametrize("family", ["bernoulli", "negative_binomial", "gamma"])
def test_working_likelihood_gives_the_posterior_of_the_full_sampler(family):
    X, y, t, _ = trial(2500)
    rng = np.random.default_rng(1)
    y = {
        "bernoulli": (y + rng.logistic(size=len(y)) > 0.5).astype(float),
        "negative_binomial": rng.poisson(np.exp(0.5 * y)).astype(float),
        "gamma": np.exp(0.5 * y) * rng.gamma(2.0, 0.5, len(y)),
    }[family]
    slow, fast = (
        BayesianLinearEffect(family=family, sampler=how, **QUICK).fit(X, y, treatment=t)
        for how in ("auto", "laplace")
    )
    assert fast.diagnostics_["pareto_k"] < 0.7
    names = ["ate", "treatment", "interaction", "main"] + (["noise"] if family != "bernoulli" else [])
    agree(fast, slow, names)


def test_penalised_quasi_likelihood_is_near_with_villages():
    X, y, t, groups = trial(4000, 100)
    y = (y + np.random.default_rng(2).logistic(size=len(y)) > 0.5).astype(float)
    options = {**QUICK, "family": "bernoulli", "group_slopes": False, "n_draws": 200, "n_tune": 100}
    slow, fast = (
        BayesianLinearEffect(sampler=how, **options).fit(X, y, treatment=t, groups=groups)
        for how in ("auto", "laplace")
    )
    # villages of 40 units: its scale is a few per cent small, effects are close
    agree(fast, slow, ["ate", "interaction"], means=0.5, sds=0.25)
    assert fast.draws_["group_sd"].mean() == pytest.approx(slow.draws_["group_sd"].mean(), rel=0.12)


def test_large_data_take_the_fast_path_and_wild_weights_are_reported(monkeypatch):
    X, y, t, _ = trial(400)
    y = (y > 0.3).astype(float)
    options = {**QUICK, "n_draws": 100, "family": "bernoulli"}
    assert "pareto_k" not in BayesianLinearEffect(**options).fit(X, y, treatment=t).diagnostics_
    monkeypatch.setattr(linear_fit, "MANY_UNITS", 400)
    assert "pareto_k" in BayesianLinearEffect(**options).fit(X, y, treatment=t).diagnostics_
    monkeypatch.setattr(linear_fit, "resample", lambda w, c, r: (np.arange(len(w)), 1.3))
    with pytest.warns(ConvergenceWarning, match=r"Pareto k .* 1.30"):
        BayesianLinearEffect(**options).fit(X, y, treatment=t)


def test_resampling_follows_the_weights_chain_by_chain():
    rng = np.random.default_rng(1)
    z = rng.standard_normal(4000)  # from N(0, 1), wanted N(0.5, 0.8^2)
    log_weights = 0.5 * z**2 - 0.5 * (z - 0.5) ** 2 / 0.64
    chosen, k = linear_fit.resample(log_weights, 2, rng)
    assert (chosen[:2000] < 2000).all()
    assert (chosen[2000:] >= 2000).all()
    assert (np.diff(chosen[:2000]) >= 0).all()  # copies stand beside each other
    assert z[chosen].mean() == pytest.approx(0.5, abs=0.06)
    assert z[chosen].std() == pytest.approx(0.8, abs=0.05)
    assert k < 0.5
    assert linear_fit.resample(2.0 * z**2, 2, rng)[1] > 0.7  # weights of infinite variance are seen
