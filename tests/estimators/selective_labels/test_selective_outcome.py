"""Continuous outcomes under selection: gradient, a known truth, Heckman's two-step estimate, constraints."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import causalsat
from causalsat import SelectiveLabelsOutcome
from causalsat.estimators.selective_labels import heckman as heckman
from causalsat.exceptions import CausalsatWarning, ColumnError, DataError, DataWarning, ParameterError, TreatmentError

BETA, SIGMA, R = np.array([2.0, 1.5, 0.0]), 2.0, 0.6
DECISION = np.array([0.2, 0.5, 1.0])  # the last feature moves the decision and not the outcome
FAST = {"n_draws": 150, "n_tune": 100, "n_chains": 2, "random_state": 0}


def world(n=4000, seed=0, expert=False):
    """Outcome 2 + 1.5 x0 + Z, Z of sd 2, correlated .6 with what moves the decision."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2))
    e = rng.standard_normal(n)
    z = SIGMA * (R * e + np.sqrt(1 - R**2) * rng.standard_normal(n))
    rows = np.column_stack([np.ones(n), X])
    y = rows @ BETA + z
    decision = R / SIGMA * BETA + np.array([0.3, 0.0, 0.0]) if expert else DECISION
    tested = (rows @ decision + e > 0).astype(int)
    return X, np.where(tested == 1, y, np.nan), tested, y


# ---------------------------------------------------------------------- density
def prepared(free=(0, 1, 2), mean=heckman.NO_PREVALENCE, n=60):
    X, y, tested, _ = world(n)
    weight = np.random.default_rng(1).uniform(0.5, 2, n)
    rows = np.column_stack([np.ones(n), X])
    return heckman.HeckmanData(rows, np.nan_to_num(y) / 2, tested == 1, weight, np.array(free), mean)


@pytest.mark.parametrize("mean", [heckman.NO_PREVALENCE, (0.4, 0.1)])
@pytest.mark.parametrize("free", [(0, 1, 2), (0, 2), (0,)])
def test_gradient_of_the_density(free, mean):
    data = prepared(free, mean)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(0, 0.6, data.n_parameters)
        _, gradient = heckman.log_density(x, data)
        numeric = approx_fprime(x, lambda v: heckman.log_density(v, data)[0], 1e-7)
        np.testing.assert_allclose(gradient, numeric, rtol=2e-4, atol=2e-3)


def test_likelihood_equals_the_bivariate_normal():
    """Differences of the density of two points equal those by scipy's bivariate normal and the priors by formula."""
    data = prepared((0, 2))

    def by_hand(x):
        found = heckman.unpack(x[None], 3, data.free)
        beta, decision, sigma, r = found.outcome[0], found.decision[0], found.sigma[0], found.correlation[0]
        total = 0.0
        for i in range(len(data.y)):
            m, t = data.X[i] @ beta, data.X[i] @ decision
            if not data.tested[i]:
                total += data.weight[i] * norm.logcdf(-t)
                continue
            e = data.y[i] - m
            step = 1e-4  # density of y and e > -t: derivative of P(Z <= e, -u <= t) in e
            joint = multivariate_normal([0, 0], [[sigma**2, -r * sigma], [-r * sigma, 1]])
            total += data.weight[i] * np.log((joint.cdf([e + step, t]) - joint.cdf([e - step, t])) / (2 * step))
        departure = found.departure[0][data.free]
        total -= (beta @ beta + departure @ departure + sigma**2) / 18
        return total + np.log(sigma) + np.log(1 - r**2)  # Jacobians of log sigma and atanh r

    one, two = np.array([0.8, 0.6, 0.1, 0.3, 0.5, 0.1, 0.4]), np.array([0.5, 0.9, -0.2, 0.1, 0.9, -0.3, -0.5])
    ours = heckman.log_density(one, data)[0] - heckman.log_density(two, data)[0]
    assert ours == pytest.approx(by_hand(one) - by_hand(two), abs=0.02)


# ---------------------------------------------------------------------- the estimator
@pytest.fixture(scope="module")
def fitted():
    X, y, tested, truth = world()
    return SelectiveLabelsOutcome(random_state=0).fit(X, y, treatment=tested), X, y, tested, truth


def two_step(X, y, tested):
    """Heckman's two-step estimate: probit, then least squares with the inverse Mills ratio."""
    rows = sm.add_constant(X)
    probit = sm.Probit(tested, rows).fit(disp=0)
    index = rows @ probit.params
    seen = tested == 1
    mills = norm.pdf(index) / norm.cdf(index)
    fit = sm.OLS(y[seen], np.column_stack([rows, mills])[seen]).fit()
    return fit.params[:3], fit.params[3], probit.params


def in_own_units(model, X):
    """Coefficients on the features themselves."""
    slopes = model.draws_.outcome[:, 1:] / X.std(axis=0)
    return np.column_stack([model.draws_.outcome[:, 0] - slopes @ X.mean(axis=0), slopes])


def test_recovers_the_truth_where_least_squares_does_not(fitted):
    model, X, y, tested, _ = fitted
    draws = in_own_units(model, X)
    truth = np.r_[BETA, SIGMA, R]
    found = np.column_stack([draws, model.draws_.sigma, model.draws_.correlation])
    lower, upper = np.quantile(found, [0.005, 0.995], axis=0)
    assert ((lower < truth) & (truth < upper)).all()
    np.testing.assert_allclose(found.mean(axis=0), truth, atol=0.2)
    seen = tested == 1
    naive = sm.OLS(y[seen], sm.add_constant(X[seen])).fit().params
    assert naive[0] - BETA[0] > 0.5
    assert naive[2] < -0.25
    assert model.sampler_diagnostics_["sampler"] == "mode path"
    assert model.sampler_diagnostics_["r_hat"] < 1.01


def test_agrees_with_the_two_step_estimate(fitted):
    """Two consistent estimators of the same model: within two standard deviations of the posterior."""
    model, X, y, tested, _ = fitted
    beta, by_mills, probit = two_step(X, y, tested)
    draws = in_own_units(model, X)
    assert (np.abs(draws.mean(axis=0) - beta) < 2 * draws.std(axis=0)).all()
    covariance = model.draws_.correlation * model.draws_.sigma  # what the Mills ratio's coefficient estimates
    assert abs(covariance.mean() - by_mills) < 2 * covariance.std()
    np.testing.assert_allclose(model.draws_.decision[:, 1:].mean(axis=0) / X.std(axis=0), probit[1:], atol=0.04)


def test_means_of_the_tested_and_the_untested(fitted):
    model, X, _, tested, truth = fitted
    for given, rows in (("tested", tested == 1), ("untested", tested == 0), (None, tested >= 0)):
        mean = model.outcome(X, given=given)[rows].ate()
        assert float(mean) == pytest.approx(truth[rows].mean(), abs=0.25)  # about two posterior sd
        assert mean.interval(0.99)[0, 0] < truth[rows].mean() < mean.interval(0.99)[0, 1]
    share = model.decision(X).draws
    mixed = share * model.outcome(X, given="tested").draws + (1 - share) * model.outcome(X, given="untested").draws
    np.testing.assert_allclose(mixed, model.outcome(X).draws, atol=1e-9)
    np.testing.assert_allclose(model.predict(X), model.outcome(X).mean())
    assert abs(model.predict_decision(X).mean() - tested.mean()) < 0.02


def test_constraints_sharpen_what_they_know():
    """No feature moves the decision alone: r is hard to learn, until the mean or the expertise is known."""
    X, y, tested, truth = world(1500, seed=2, expert=True)
    settings = {"n_draws": 300, "random_state": 0}
    free = SelectiveLabelsOutcome(**settings).fit(X, y, treatment=tested)
    mean = SelectiveLabelsOutcome(mean=(truth.mean(), 0.05), **settings).fit(X, y, treatment=tested)
    expert = SelectiveLabelsOutcome(expertise=[], **settings).fit(X, y, treatment=tested)
    widths = [m.outcome(X).ate().sd()[0] for m in (free, mean, expert)]
    assert widths[1] < 0.5 * widths[0]
    assert widths[2] < 0.7 * widths[0]
    for model in (mean, expert):
        low, high = model.outcome(X).ate().interval(0.99)[0]
        assert low < truth.mean() < high
    slope = expert.departures_[:, 1:]
    np.testing.assert_allclose(slope, 0, atol=1e-12)
    assert free.departures_[:, 1:].std(axis=0).min() > 0.01
    assert np.ptp(expert.departure(X).draws, axis=1).max() < 1e-9  # the same departure everywhere


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")
def test_the_sweep_shows_what_other_means_would_say_and_warns():
    X, y, tested, truth = world(3000, seed=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        right = SelectiveLabelsOutcome(mean=(truth.mean(), 0.02), **FAST).fit(X, y, treatment=tested)
    table, sd = pd.DataFrame(right.sensitivity_), np.std(y[tested == 1])
    np.testing.assert_allclose(table["mean"], truth.mean() + sd * np.array([-0.2, -0.1, 0.0, 0.1, 0.2]))
    np.testing.assert_allclose(table["mean_outcome"], table["mean"], atol=0.1)
    assert table["untested_outcome"][2] == pytest.approx(truth[tested == 0].mean(), abs=0.1)
    assert table["untested_outcome"].is_monotonic_increasing
    assert table["correlation"].is_monotonic_decreasing  # the lower the mean, the more selected are those seen
    assert table["correlation"][2] == pytest.approx(R, abs=0.1)
    assert table["sigma"][2] == pytest.approx(SIGMA, abs=0.15)
    assert table["p_value"][2] > 0.1
    assert f"{table['untested_outcome'][2]:.3f} (p {table['p_value'][2]:.2g})" in str(right.summary())
    with pytest.warns(DataWarning, match="at odds with the data, which imply about"):
        wrong = SelectiveLabelsOutcome(mean=(truth.mean() + 2.0, 0.02), **FAST).fit(X, y, treatment=tested)
    assert wrong.sensitivity_["p_value"][2] < 1e-4
    assert SelectiveLabelsOutcome(**FAST).fit(X[:300], y[:300], treatment=tested[:300]).sensitivity_ is None


def test_names_weights_files_and_scores(fitted, tmp_path):
    model, X, y, tested, _ = fitted
    model.save(tmp_path / "outcome.safetensors")
    again = causalsat.load(tmp_path / "outcome.safetensors")
    np.testing.assert_array_equal(again.outcome(X, given="untested").draws, model.outcome(X, given="untested").draws)
    assert str(again.summary()) == str(model.summary())
    assert "decision beyond it: x1" in str(model.summary())
    right = model.score(X, y, treatment=tested)
    assert right > model.score(-X, y, treatment=tested) + 0.1
    with pytest.raises(TreatmentError):
        model.score(X, y)
    frame = pd.DataFrame(X, columns=["slope", "road"]).assign(visited=tested, weight=1.0)
    frame.loc[::9, "slope"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        named = SelectiveLabelsOutcome(expertise=["ro*"], **FAST)
        named.fit(frame, y, treatment="visited", sample_weight="weight")
        scores = cross_val_score(clone(named), frame[:900], y[:900], cv=3,
                                 params={"treatment": "visited", "sample_weight": "weight"})  # fmt: skip
    assert np.isfinite(scores).all()
    assert named.design_names_ == ("slope", "road", "slope missing")
    assert (named.departures_[:, [1, 3]].std(axis=0) < 1e-12).all()
    np.testing.assert_allclose(named.predict(frame[5:6]), named.predict(frame)[5:6])


def test_units_of_the_outcome_do_not_matter():
    X, y, tested, _ = world(500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        one = SelectiveLabelsOutcome(**FAST).fit(X, y, treatment=tested)
        two = SelectiveLabelsOutcome(**FAST).fit(X, 1000 * y + 7, treatment=tested)
    np.testing.assert_allclose(two.predict(X), 1000 * one.predict(X) + 7, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mean": 3.0}, ParameterError, "standard error"),
        ({"mean": (3.0, 0.0)}, ParameterError, "standard error"),
        ({"expertise": ["nothing"]}, ColumnError, "nothing"),
        ({"n_draws": 0}, ParameterError, "n_draws"),
    ],
)
def test_bad_settings_are_named(change, error, words):
    X, y, tested, _ = world(60)
    with pytest.raises(error, match=words):
        SelectiveLabelsOutcome(**{**FAST, **change}).fit(X, y, treatment=tested)


def test_bad_outcomes_are_named():
    X, y, tested, _ = world(60)
    for bad, words in (
        (np.where(tested == 1, 3.0, np.nan), "vary"),
        (np.where(tested == 1, np.inf, np.nan), "inf"),
        (np.nan_to_num(y), "not tested"),
    ):
        with pytest.raises(DataError, match=words):
            SelectiveLabelsOutcome(**FAST).fit(X, bad, treatment=tested)
