"""Priors of the selective-labels models: on input, in the densities and in PyMC alike, in posteriors and summary."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit
from scipy.stats import norm
from sklearn.base import clone

import causalsat
from causalsat import SelectiveLabelsOutcome, SelectiveLabelsRisk
from causalsat.estimators.selective_labels import density, heckman
from causalsat.estimators.selective_labels.forms import NormalForm, UniformForm
from causalsat.estimators.selective_labels.model import build_heckman_model, build_model
from causalsat.estimators.selective_labels.priors import OUTCOME, RISK, read_priors
from causalsat.exceptions import CausalsatWarning, DataError, ParameterError

GIVEN = {"risk": (0.5, 0.7), "risk_intercept": (-2, 0.4), "decision": (-0.3, 0.5), "decision_intercept": (1.5, 0.9),
         "sigma": 1.2}  # fmt: skip
ALPHA = {"alpha": (1.0, 0.2)}
FORMS = [UniformForm(), NormalForm(1.0, np.nan), NormalForm(np.nan, 1.5)]
FREE = np.array([0, 2])


def world(n, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2))
    logit = -1.5 + X[:, 0] + rng.uniform(0, 2, n)
    tested = (rng.random(n) < expit(logit + 1.5 + 0.5 * X[:, 1])).astype(int)
    return X, np.where(tested == 1, rng.random(n) < expit(logit), np.nan), tested


def prepared(priors, prevalence=density.NO_PREVALENCE, n=150):
    X, y, tested = world(n)
    cell = np.where(tested == 0, 0, 1 + np.nan_to_num(y)).astype(np.int64)
    weight = np.random.default_rng(1).uniform(0.5, 2, n)
    rows = np.column_stack([np.ones(n), X])
    return density.SelectiveData(rows, cell, weight, FREE, prevalence, read_priors(priors, RISK))


def log_normal(values, given):
    return norm.logpdf(values, *given).sum()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_density_changes_by_the_priors_and_by_nothing_else(form):
    given = {**GIVEN, **ALPHA}
    ours, default = prepared(given), prepared(None)
    gaps = []
    for x in np.random.default_rng(2).normal(0, 0.7, (4, ours.n_parameters)):
        found = form.coefficients(x[None], ours)
        beta, delta = found.risk[0], found.decision[0]
        pieces = {"risk": beta[1:], "risk_intercept": beta[0], "decision": delta[2], "decision_intercept": delta[0]}
        if isinstance(form, UniformForm) or np.isnan(form.sigma):
            pieces["sigma"] = found.sigma[0]
        else:
            pieces["alpha"] = found.alpha[0]
        change = sum(log_normal(v, np.r_[0, given[k]][-2:]) - log_normal(v, (0, 3)) for k, v in pieces.items())
        values = [form.density()(x, *form.arguments(data))[0] for data in (ours, default)]
        gaps.append(values[0] - values[1] - change)
        gradient = form.density()(x, *form.arguments(ours))[1]
        numeric = approx_fprime(x, lambda v: form.density()(v, *form.arguments(ours))[0], 1e-7)
        np.testing.assert_allclose(gradient, numeric, rtol=2e-4, atol=2e-3)
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-8)


def test_the_raw_model_in_pymc_has_the_same_priors():
    """At the density's parameters, Jacobian apart; the reparametrised form is tested with the density."""
    data = prepared(GIVEN, prevalence=(0.4, 0.02))
    reference = build_model(data, raw=True).compile_logp(jacobian=False)
    gaps = []
    for x in np.random.default_rng(4).normal(0, 0.7, (4, data.n_parameters)):
        found = density.coefficients(x[None], 3, FREE)
        sigma = found.sigma[0]
        point = {"risk": found.risk[0], "departures": found.decision[0][FREE], "sigma_log__": np.log(sigma)}
        jacobian = 5 * np.log(np.sqrt(1 + density.CURVATURE * sigma**2)) + np.log(-np.expm1(-sigma))
        gaps.append(density.log_density(x, *data.as_tuple())[0] - float(reference(point)) - jacobian)
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-6)


@pytest.mark.parametrize("form", [NormalForm(1.3, np.nan), NormalForm(np.nan, 1.7)], ids=["sigma", "alpha"])
def test_the_model_in_pymc_with_normal_unobservables_equals_the_density(form):
    data = prepared(GIVEN, prevalence=(0.4, 0.02))
    reference = form.to_pymc(data).compile_logp(jacobian=False)
    gaps = []
    for x in np.random.default_rng(5).normal(0, 0.7, (4, data.n_parameters)):
        values = form.coefficients(x[None], data)
        sigma, alpha = float(values.sigma[0]), float(values.alpha[0])
        scale = {"sigma_log__": np.log(sigma)} if np.isnan(form.sigma) else {"alpha": np.float64(alpha)}
        theirs = reference({"risk": values.risk[0], "departures": values.decision[0][FREE], **scale})
        k = np.sqrt(1 + 0.346 * sigma**2), np.sqrt(1 + 0.346 * (alpha * sigma) ** 2)
        jacobian = 3 * np.log(k[0]) + len(FREE) * np.log(k[1])
        jacobian += np.log(-np.expm1(-sigma)) if np.isnan(form.sigma) else 0.0
        gaps.append(form.density()(x, *form.arguments(data))[0] - float(theirs) - jacobian)
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-6)


@pytest.mark.parametrize("mean", [(0.1, 0.2), (0.0, np.inf)])
def test_the_model_in_pymc_of_continuous_outcomes_equals_the_density(mean):
    X, _, tested = world(150)
    rows = np.column_stack([np.ones(150), X])
    weight = np.random.default_rng(1).uniform(0.5, 2, 150)
    data = heckman.HeckmanData(
        rows, X[:, 0] * tested, tested == 1, weight, FREE, mean, read_priors({"correlation": 3.0}, OUTCOME)
    )
    reference = build_heckman_model(data).compile_logp()
    gaps = []
    for x in np.random.default_rng(2).normal(0, 0.6, (4, data.n_parameters)):
        values = heckman.unpack(x[None], 3, FREE)
        r = values.correlation[0]
        point = {
            "outcome": values.outcome[0],
            "departures": values.departure[0][FREE],
            "sigma_log__": np.log(values.sigma[0]),
            "correlation_interval__": np.log1p(r) - np.log1p(-r),
        }
        gaps.append(heckman.log_density(x, data)[0] - float(reference(point)))
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-6)


def test_fitted_models_give_their_model_in_pymc_and_files_hold_no_data(tmp_path):
    X, y, tested = world(400)
    risk = SelectiveLabelsRisk(n_draws=20, n_chains=2, random_state=0, prevalence=(0.4, 0.02))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        risk.fit(X, y, treatment=tested)
    assert {v.name for v in risk.to_pymc().free_RVs} == {"risk", "sigma", "departures"}
    risk.save(tmp_path / "risk.safetensors")
    with pytest.raises(DataError, match="holds no training data"):
        causalsat.load(tmp_path / "risk.safetensors").to_pymc()
    with pytest.raises(DataError, match="holds no training data"):
        copy.deepcopy(risk).to_pymc()


def test_the_density_of_continuous_outcomes_changes_by_the_priors():
    X, _, tested = world(150)
    given = {"outcome": (0.5, 0.7), "outcome_intercept": (-0.4, 0.3), "decision": (-0.3, 0.5),
             "decision_intercept": (0.5, 0.9), "sigma": 0.8, "correlation": 4.0}  # fmt: skip
    rows, y = np.column_stack([np.ones(150), X]), X[:, 0] * tested
    ours, default = (
        heckman.HeckmanData(rows, y, tested == 1, np.ones(150), FREE, (0.1, 0.2), read_priors(p, OUTCOME))
        for p in (given, None)
    )
    gaps = []
    for x in np.random.default_rng(2).normal(0, 0.6, (4, ours.n_parameters)):
        found = heckman.unpack(x[None], 3, FREE)
        beta, delta = found.outcome[0], found.departure[0]
        pieces = {"outcome": beta[1:], "outcome_intercept": beta[0], "decision": delta[2],
                  "decision_intercept": delta[0], "sigma": found.sigma[0]}  # fmt: skip
        change = sum(log_normal(v, np.r_[0, given[k]][-2:]) - log_normal(v, (0, 3)) for k, v in pieces.items())
        change += 3 * np.log(1 - found.correlation[0] ** 2)
        gaps.append(heckman.log_density(x, ours)[0] - heckman.log_density(x, default)[0] - change)
        numeric = approx_fprime(x, lambda v: heckman.log_density(v, ours)[0], 1e-7)
        np.testing.assert_allclose(heckman.log_density(x, ours)[1], numeric, rtol=2e-4, atol=2e-3)
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-8)


@pytest.fixture(scope="module")
def fits():
    X, y, tested = world(1500, seed=1)
    given = {"risk_intercept": (-1.0, 0.3), "sigma": 1.0}
    models = {name: SelectiveLabelsRisk(priors=priors, random_state=0, n_draws=1000)
              for name, priors in (("default", None), ("given", given))}  # fmt: skip
    return {name: model.fit(X, y, treatment=tested) for name, model in models.items()}, given


def test_the_posterior_moves_as_bayes_rule_says(fits):
    """Draws under the default priors, weighted by the ratio of priors, have the mean of those under the others."""
    models, given = fits
    old, new = models["default"].draws_, models["given"].draws_
    intercept = old.risk[:, 0]
    log_ratio = norm.logpdf(intercept, *given["risk_intercept"]) - norm.logpdf(intercept, 0, 3)
    log_ratio += norm.logpdf(old.sigma, 0, given["sigma"]) - norm.logpdf(old.sigma, 0, 3)
    weight = np.exp(log_ratio - log_ratio.max())
    weight /= weight.sum()
    effective = 1 / (weight**2).sum()
    assert effective > 150
    for name in ("sigma", "risk"):
        before, after = getattr(old, name), getattr(new, name)
        expected = weight @ before
        error = 4 * after.std(axis=0) * np.sqrt(3 / effective)
        assert (np.abs(after.mean(axis=0) - expected) < error).all()
    assert new.sigma.mean() < old.sigma.mean() - 0.3  # a shift to be seen
    assert new.risk[:, 0].std() < 0.3


def test_a_certain_prior_is_the_posterior():
    X, y, tested = world(400)
    model = SelectiveLabelsRisk(priors={"risk": (0.7, 1e-3)}, n_draws=100, n_chains=2, random_state=0)
    with pytest.warns(causalsat.exceptions.ConvergenceWarning, match="effective"):
        model.fit(X, y, treatment=tested)
    np.testing.assert_allclose(model.draws_.risk[:, 1:], 0.7, atol=6e-3)
    continuous = np.where(tested == 1, X[:, 0], np.nan) + 0.1 * np.random.default_rng(0).standard_normal(400)
    other = SelectiveLabelsOutcome(priors={"outcome": (0.2, 1e-3)}, n_draws=100, n_chains=2, random_state=0)
    with pytest.warns(causalsat.exceptions.ConvergenceWarning, match="effective"):
        other.fit(X, continuous, treatment=tested)
    scale = np.std(continuous[tested == 1])
    np.testing.assert_allclose(other.draws_.outcome[:, 1:] / scale, 0.2, atol=6e-3)
    assert "priors: outcome N(0.2, 0.001^2); outcome intercept N(0, 3^2)" in str(other.summary())


def test_the_summary_says_which_priors_are_in_force(fits, tmp_path):
    models, given = fits
    words = str(models["given"].summary())
    assert "risk intercept N(-1, 0.3^2)" in words
    assert "sigma half-normal(1)" in words
    assert "alpha N" not in words  # fixed at 1
    assert "sigma half-normal(3)" in str(models["default"].summary())
    models["given"].save(tmp_path / "risk.safetensors")
    again = causalsat.load(tmp_path / "risk.safetensors")
    assert str(again.summary()) == words
    assert clone(again).priors == given


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"priors": {"beta": 1}}, "beta"),
        ({"priors": {"risk": 0}}, "above 0"),
        ({"priors": {"risk": (0, 1, 2)}}, "mean, standard deviation"),
        ({"priors": {"risk": "wide"}}, "standard deviation"),
        ({"priors": {"sigma": (1, 1)}}, "half-normal"),
        ({"priors": {"sigma": np.inf}}, "finite"),
        ({"priors": 3}, "dict"),
        ({"priors": {"alpha": 1}}, "not learned"),
        ({"priors": {"sigma": 1}, "unobservables": "normal", "sigma": 1.0}, "not learned"),
    ],
)
def test_bad_priors_are_named(settings, words):
    X, y, tested = world(60)
    with pytest.raises(ParameterError, match=words):
        SelectiveLabelsRisk(**settings).fit(X, y, treatment=tested)


def test_bad_priors_of_an_outcome_are_named():
    X, y, tested = world(60)
    for bad, words in (({"risk": 1}, "outcome_intercept"), ({"correlation": -1}, "eta")):
        with pytest.raises(ParameterError, match=words):
            SelectiveLabelsOutcome(priors=bad).fit(X, y, treatment=tested)
