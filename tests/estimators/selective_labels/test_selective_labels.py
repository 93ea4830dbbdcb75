"""Selective labels: cells against quadrature, the density's gradient, recovery of a known truth, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import expit, log_expit
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import causalsat
from causalsat import SelectiveLabelsRisk
from causalsat.estimators.selective_labels import cells as cells
from causalsat.estimators.selective_labels import density as density
from causalsat.estimators.selective_labels import normal as normal
from causalsat.estimators.selective_labels import sample as sampling
from causalsat.estimators.selective_labels.forms import NormalForm, UniformForm
from causalsat.estimators.selective_labels.priors import RISK, read_priors
from causalsat.exceptions import (
    ColumnError,
    DataError,
    DataWarning,
    ParameterError,
    TreatmentError,
)
from causalsat.inference.chains import Settings

FAST = {"n_draws": 200, "n_tune": 200, "n_chains": 2, "random_state": 0}
quiet = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")


def world(n=2000, p=4, seed=0, sigma=2.0, free=(1,)):
    """Data of the paper's design: risk, an unobservable that decision makers see, and the outcome of the tested."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    rows = np.column_stack([np.ones(n), X])
    risk = np.r_[rng.normal(-2, 0.1), rng.standard_normal(p)]
    decision = np.zeros(p + 1)
    decision[0] = rng.normal(2, 0.1)
    decision[list(free)] = rng.standard_normal(len(free))
    z = rng.uniform(0, sigma, n)
    truth = (rng.random(n) < expit(rows @ risk + z)).astype(float)
    tested = (rng.random(n) < expit(rows @ (risk + decision) + z)).astype(int)
    a, d = rows @ risk, rows @ decision
    u = (np.arange(400) + 0.5) / 400 * sigma  # midpoint rule over the unobservable
    positive, untested = expit(a[:, None] + u), expit(-(a + d)[:, None] - u)
    known = {"risk": positive.mean(axis=1), "untested": (positive * untested).mean(axis=1) / untested.mean(axis=1)}
    return X, np.where(tested == 1, truth, np.nan), tested, {**known, "decision": decision}


# ---------------------------------------------------------------------- cells
CASES = [(0.3, 0.0, 2.0), (0.3, 1e-9, 2.0), (-12.0, -15.0, 2.0), (-25.0, -14.0, 1.5), (8.0, 9.0, 3.0),
         (5.0, -5.0, 1e-3), (-3.0, 2.0, 8.0), (1.0, 3.0, 0.5), (20.0, -35.0, 1.0)]  # fmt: skip


def log_quadrature(log_integrand, sigma):
    """Log of the mean of exp(log_integrand) over (0, sigma), scaled by its largest value."""
    grid = np.linspace(0, sigma, 201)
    peak = log_integrand(grid).max()
    value, _ = quad(lambda z: np.exp(log_integrand(z) - peak), 0, sigma, epsabs=0, epsrel=1e-11, limit=200)
    return peak + np.log(value / sigma)


@pytest.mark.parametrize(("a", "d", "sigma"), CASES)
def test_cells_equal_quadrature_also_in_the_tails(a, d, sigma):
    wide, b = cells.width(sigma), a + d
    expected = {
        "untested": log_quadrature(lambda z: log_expit(-b - z), sigma),
        "positive": log_quadrature(lambda z: log_expit(a + z), sigma),
        "untested and positive": log_quadrature(lambda z: log_expit(-b - z) + log_expit(a + z), sigma),
        "tested and positive": log_quadrature(lambda z: log_expit(b + z) + log_expit(a + z), sigma),
        "tested and negative": log_quadrature(lambda z: log_expit(b + z) + log_expit(-a - z), sigma),
    }
    found = {
        "untested": cells.log_untested(a, d, wide)[0],
        "positive": cells.log_positive(a, wide)[0],
        "untested and positive": cells.log_untested_positive(a, d, wide)[0],
        "tested and positive": cells.log_tested_positive(a, d, wide)[0],
        "tested and negative": d + cells.log_untested_positive(a, d, wide)[0],
    }
    assert found == pytest.approx(expected, abs=1e-8)


def test_the_textbook_form_fails_where_ours_does_not():
    """P(T = 1, Y = 0) = (D_b - D_a) / (sigma (1 - exp(-d))) is 0 / 0 at d = 0."""
    softplus = lambda u: np.logaddexp(0, u)  # noqa: E731
    a, sigma = 0.3, 2.0
    gain = softplus(a + sigma) - softplus(a)
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.float64(gain - gain) / (sigma * (1 - np.exp(-np.float64(0.0)))))
    assert np.isfinite(cells.log_untested_positive(a, 0.0, cells.width(sigma))[0])


# ---------------------------------------------------------------------- density
def prepared(n=200, free=(0, 1, 2), prevalence=density.NO_PREVALENCE):
    X, y, tested, _ = world(n)
    cell = np.where(tested == 0, 0, 1 + np.nan_to_num(y)).astype(np.int64)
    weight = np.random.default_rng(1).uniform(0.5, 2, n)
    return density.SelectiveData(np.column_stack([np.ones(n), X]), cell, weight, np.array(free), prevalence)


FORMS = [UniformForm(), NormalForm(1.0, np.nan), NormalForm(0.7, np.nan), NormalForm(np.nan, 1.5)]


@pytest.mark.parametrize("prevalence", [density.NO_PREVALENCE, (0.4, 0.02)])
@pytest.mark.parametrize("free", [[0, 1, 2, 3, 4], [0, 2], [0]])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gradient_of_the_density(form, free, prevalence):
    data = prepared(free=free, prevalence=prevalence)
    x = np.random.default_rng(2).normal(0, 0.7, data.n_parameters)

    def value(at):
        return form.density()(at, *form.arguments(data))[0]

    numeric = [(value(x + h) - value(x - h)) / 2e-6 for h in 1e-6 * np.eye(len(x))]
    np.testing.assert_allclose(form.density()(x, *form.arguments(data))[1], numeric, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", FORMS[1:], ids=str)
def test_normal_density_equals_its_definition(form):
    """Cells by adaptive quadrature, priors and Jacobian by formula: differences of two points agree."""
    data = prepared(30, free=(0, 3), prevalence=(0.3, 0.05))

    def by_hand(x):
        found = form.coefficients(x[None], data)
        beta, delta, sigma, alpha = found.risk[0], found.decision[0], found.sigma[0], found.alpha[0]
        a, e = data.X @ beta, data.X @ delta
        total, mean = 0.0, 0.0
        for i in range(30):

            def weighed(f, i=i):
                return quad(lambda z: np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * f(a[i] + sigma * z), -12, 12)[0]

            risk_sign = 1 if data.cell[i] == 2 else -1
            cells_of = {0: lambda r, i=i: expit(-alpha * r - e[i])}
            seen = cells_of.get(data.cell[i], lambda r, i=i, s=risk_sign: expit(alpha * r + e[i]) * expit(s * r))
            total += data.weight[i] * np.log(weighed(seen))
            mean += data.weight[i] * weighed(expit) / data.weight.sum()
        total -= (mean - 0.3) ** 2 / (2 * 0.05**2) + ((beta**2).sum() + (delta**2).sum()) / 18
        k_y, k_t = np.sqrt(1 + 0.346 * sigma**2), np.sqrt(1 + 0.346 * (alpha * sigma) ** 2)
        total += 5 * np.log(k_y) + 2 * np.log(k_t)
        if np.isnan(form.sigma):
            return total - sigma**2 / 18 + np.log(1 - np.exp(-sigma))
        return total - alpha**2 / 18

    one, two = np.random.default_rng(3).normal(0, 0.5, (2, data.n_parameters))
    ours = [form.density()(x, *form.arguments(data))[0] for x in (one, two)]
    assert ours[0] - ours[1] == pytest.approx(by_hand(one) - by_hand(two), abs=1e-3)


def test_normal_probabilities_equal_quadrature():
    form = NormalForm(0.8, np.nan)
    draws = density.Coefficients(np.zeros((1, 1)), np.zeros((1, 1)), np.array([1.7]), np.array([0.8]))
    risk, shift = np.array([[-1.0, 0.4]]), np.array([[0.5, -0.3]])
    weighed = [
        [
            quad(lambda z, r=r, e=e, f=f: np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * f(r + 1.7 * z, e), -12, 12)[0]
            for r, e in zip(risk[0], shift[0], strict=True)
        ]
        for f in (
            lambda r, e: expit(r),
            lambda r, e: expit(0.8 * r + e),
            lambda r, e: expit(r) * expit(0.8 * r + e),
        )
    ]
    np.testing.assert_allclose(form.positive(draws, risk)[0], weighed[0], atol=1e-7)
    np.testing.assert_allclose(form.tested(draws, risk, shift)[0], weighed[1], atol=1e-7)
    np.testing.assert_allclose(form.both(draws, risk, shift)[0], weighed[2], atol=1e-7)
    assert normal.NODES.size % 2 == 1


def test_density_equals_its_definition():
    """Likelihood by quadrature, priors and Jacobian by formula, up to a constant: differences of two points agree."""
    X, y, tested, _ = world(40)
    rows, free = np.column_stack([np.ones(40), X]), np.array([0, 3])
    cell = np.where(tested == 0, 0, 1 + np.nan_to_num(y)).astype(np.int64)
    data = density.SelectiveData(rows, cell, np.ones(40), free, (0.3, 0.05))

    def by_hand(x):
        found = density.coefficients(x[None], 5, free)
        beta, delta, sigma = found.risk[0], found.decision[0], found.sigma[0]
        a, d = rows @ beta, rows @ delta
        total, mean = 0.0, 0.0
        for i in range(40):
            if cell[i] == 0:
                total += log_quadrature(lambda z, i=i: log_expit(-a[i] - d[i] - z), sigma)
            else:
                sign = 1 if cell[i] == 2 else -1
                total += log_quadrature(
                    lambda z, i=i, s=sign: log_expit(a[i] + d[i] + z) + log_expit(s * (a[i] + z)), sigma
                )
            mean += np.exp(log_quadrature(lambda z, i=i: log_expit(a[i] + z), sigma)) / 40
        total -= (mean - 0.3) ** 2 / (2 * 0.05**2)
        total -= ((beta**2).sum() + (delta**2).sum() + sigma**2) / (2 * 9)
        k = np.sqrt(1 + 0.0288 * sigma**2)
        return total + (5 + 2) * np.log(k) + np.log(1 - np.exp(-sigma))

    rng = np.random.default_rng(2)
    one, two = rng.normal(0, 0.6, (2, data.n_parameters))
    ours = density.log_density(one, *data.as_tuple())[0] - density.log_density(two, *data.as_tuple())[0]
    assert ours == pytest.approx(by_hand(one) - by_hand(two), abs=1e-6)


# ---------------------------------------------------------------------- the estimator
@pytest.fixture(scope="module")
def fitted():
    X, y, tested, truth = world(2000, seed=3)
    model = SelectiveLabelsRisk(prevalence=(truth["risk"].mean(), 0.01), expertise=[0], random_state=0)
    return model.fit(X, y, treatment=tested), X, y, tested, truth


def test_recovers_the_risk_of_the_untested(fitted):
    model, X, _, tested, truth = fitted
    untested = tested == 0
    found = model.risk(X, given="untested")
    assert np.abs(found.mean() - truth["untested"])[untested].mean() < 0.015
    assert np.corrcoef(found.mean(), truth["untested"])[0, 1] > 0.98
    inside = (found.interval(0.9)[:, 0] < truth["untested"]) & (truth["untested"] < found.interval(0.9)[:, 1])
    assert inside[untested].mean() > 0.5
    assert abs(model.risk(X).mean().mean() - truth["risk"].mean()) < 0.02
    assert abs(model.predict_decision(X).mean() - tested.mean()) < 0.02


def test_given_splits_the_risk_by_the_law_of_total_probability(fitted):
    model, X, *_ = fitted
    share = model.decision(X).draws
    mixed = share * model.risk(X, given="tested").draws + (1 - share) * model.risk(X, given="untested").draws
    np.testing.assert_allclose(mixed, model.risk(X).draws, atol=1e-9)
    assert (model.risk(X, given="tested").mean() > model.risk(X, given="untested").mean()).all()


def test_expertise_fixes_the_decision_along_the_other_features(fitted):
    model, *_, truth = fitted
    sd = model.draws_.decision.std(axis=0)
    assert (sd[2:] == 0).all()
    assert (sd[:2] > 0).all()
    lower, upper = np.quantile(model.draws_.decision[:, 1], [0.005, 0.995])
    assert lower < truth["decision"][1] < upper


def test_departure_is_zero_along_the_features_of_expertise(fitted):
    model, X, *_, truth = fitted
    found = model.departure(X)
    other = X.copy()
    other[:, 1:] += 1.0
    np.testing.assert_allclose(model.departure(other).draws, found.draws)
    expected = truth["decision"][0] + X[:, 0] * truth["decision"][1]
    assert np.corrcoef(found.mean(), expected)[0, 1] > 0.999
    low, high = found.gate(X[:, 0] > 0).interval(0.99)[1]
    assert low < expected[X[:, 0] > 0].mean() < high


def test_converged_and_saved(fitted, tmp_path):
    model, X, *_ = fitted
    diagnostics = model.risk(X[:3]).diagnostics
    assert diagnostics["r_hat"] < 1.01
    assert diagnostics["ess"] > 400
    assert diagnostics["divergences"] == 0
    model.save(tmp_path / "risk.safetensors")
    again = causalsat.load(tmp_path / "risk.safetensors")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert str(again.summary()) == str(model.summary())
    assert "if the prevalence were" in str(model.summary())


def test_single_rows_frames_and_order(fitted):
    model, X, *_ = fitted
    whole = model.predict_proba(X)
    np.testing.assert_allclose(model.predict_proba(X[5:6]), whole[5:6])
    np.testing.assert_allclose(model.predict_proba(X[::-1]), whole[::-1])
    assert whole.shape == (len(X), 2)
    np.testing.assert_allclose(whole.sum(axis=1), 1)
    assert set(np.unique(model.predict(X))) == {0, 1}


@quiet
def test_score_prefers_the_truth_to_a_blunter_model(fitted):
    model, X, y, tested, _ = fitted
    X_new, y_new, tested_new, _ = world(2000, seed=3)
    one_feature = SelectiveLabelsRisk(**FAST).fit(X[:, :1], y, treatment=tested)
    assert model.score(X_new, y_new, treatment=tested_new) > one_feature.score(
        X_new[:, :1], y_new, treatment=tested_new
    )


@quiet
def test_a_prevalence_at_odds_with_the_data_warns():
    X, y, tested, truth = world(2000, seed=3)
    wrong = 0.5 * truth["risk"].mean()
    with pytest.warns(DataWarning, match="at odds with the data, which imply about"):
        model = SelectiveLabelsRisk(prevalence=(wrong, 0.005), expertise=[0], **FAST).fit(X, y, treatment=tested)
    table = pd.DataFrame(model.sensitivity_)
    assert (table["mean_risk"] > table["prevalence"]).all()  # the positives that were seen pull it up


def test_the_sweep_follows_a_plausible_prevalence(fitted):
    table, truth = pd.DataFrame(fitted[0].sensitivity_), fitted[-1]
    right = truth["risk"].mean()
    np.testing.assert_allclose(table["prevalence"], right * np.array([0.8, 0.9, 1.0, 1.1, 1.2]))
    assert table["mean_risk"][2] == pytest.approx(right, abs=0.02)
    assert table["untested_risk"][2] == pytest.approx(truth["untested"][fitted[3] == 0].mean(), abs=0.03)
    assert table["untested_risk"].is_monotonic_increasing
    assert table["untested_risk"][4] - table["untested_risk"][0] > 0.03
    assert table["p_value"][2] > 0.1  # the true prevalence
    assert table["p_value"][[0, 4]].max() < 0.01
    assert f"{table['untested_risk'][2]:.3f} (p {table['p_value'][2]:.2g})" in str(fitted[0].summary())


@quiet
def test_names_weights_missing_values_and_pipelines():
    X, y, tested, _ = world(600)
    frame = pd.DataFrame(X, columns=["age", "poverty", "distance", "size"])
    frame.loc[::7, "age"] = np.nan
    frame["inspected"] = tested
    est = SelectiveLabelsRisk(expertise=["dist*"], **FAST)
    model = clone(est).fit(frame, y, treatment="inspected")
    assert model.design_names_[-1] == "age missing"
    assert np.flatnonzero(model.draws_.decision.std(axis=0)).tolist() == [0, 3]
    assert np.isfinite(model.score(frame, y))
    double = np.r_[np.full(300, 2.0), np.full(300, 1.0)]
    weighted = clone(est).fit(frame, y, treatment="inspected", sample_weight=double)
    assert not np.allclose(weighted.predict_proba(frame), model.predict_proba(frame))
    pipeline = make_pipeline(StandardScaler(), SelectiveLabelsRisk(**FAST))
    pipeline.fit(X, y, selectivelabelsrisk__treatment=tested)
    assert causalsat.risk(pipeline, X[:4], given="untested").draws.shape == (400, 4)
    assert pipeline.predict_proba(X).shape == (600, 2)


@pytest.mark.slow
@quiet
@pytest.mark.parametrize("known", [{"sigma": 1.5}, {"alpha": 1.0}])
def test_normal_unobservables_recover_the_risk_of_the_untested(known):
    rng = np.random.default_rng(6)
    X = rng.standard_normal((1500, 2))
    z = rng.normal(0, 1.5, 1500)
    risk = -1.0 + X[:, 0] + z
    y = (rng.random(1500) < expit(risk)).astype(float)
    tested = (rng.random(1500) < expit(risk + 0.8)).astype(int)
    model = SelectiveLabelsRisk(
        prevalence=(y.mean(), 0.02), expertise=[], unobservables="normal", n_draws=150, n_tune=150, n_chains=2,
        random_state=0, **known,
    )  # fmt: skip
    model.fit(X, np.where(tested == 1, y, np.nan), treatment=tested)
    untested = tested == 0
    mean = model.risk(X, given="untested")[untested].ate()
    expected = expit(risk)[untested].mean()  # of these very units, their unobservables known
    assert mean.interval(0.99)[0, 0] < expected < mean.interval(0.99)[0, 1]
    assert float(mean) == pytest.approx(expected, abs=0.05)
    found = model.draws_.alpha if "sigma" in known else model.draws_.sigma
    assert np.quantile(found, 0.005) < (1.0 if "sigma" in known else 1.5) < np.quantile(found, 0.995)


@quiet
def test_reproducible():
    X, y, tested, _ = world(300)
    one, two = (SelectiveLabelsRisk(**FAST).fit(X, y, treatment=tested).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"y": "zero"}, DataError, "were not tested"),
        ({"y": "hole"}, DataError, "missing for 1 of"),
        ({"y": "two"}, DataError, "0 and 1"),
        ({"y": "ones"}, DataError, "both outcomes"),
        ({"y": None}, DataError, "y is None"),
        ({"treatment": None}, TreatmentError, "no treatment"),
        ({"treatment": "all"}, TreatmentError, "one value only"),
        ({"prevalence": 0.3}, ParameterError, "standard error"),
        ({"prevalence": (1.3, 0.1)}, ParameterError, "between 0 and 1"),
        ({"prevalence": (0.3, 0.0)}, ParameterError, "positive"),
        ({"expertise": ["nothing"]}, ColumnError, "nothing"),
        ({"n_draws": 0}, ParameterError, "n_draws"),
        ({"unobservables": "cauchy"}, ParameterError, "'uniform' or 'normal'"),
        ({"sigma": 2.0}, ParameterError, "uniform"),
        ({"unobservables": "normal", "sigma": -1.0}, ParameterError, "sigma"),
    ],
)
def test_bad_input_is_named(change, error, words):
    X, y, tested, _ = world(60)
    settings = {k: v for k, v in change.items() if k not in ("y", "treatment")}
    if change.get("y", y) is None:
        y = None
    elif "y" in change:
        y = y.copy()
        first = np.flatnonzero(tested)[0]
        {
            "zero": lambda: y.__setitem__(tested == 0, 0.0),
            "hole": lambda: y.__setitem__(first, np.nan),
            "two": lambda: y.__setitem__(first, 2.0),
            "ones": lambda: y.__setitem__(tested == 1, 1.0),
        }[change["y"]]()
    treatment = {"all": np.ones(60)}.get(change["treatment"]) if "treatment" in change else tested
    with pytest.raises(error, match=words):
        SelectiveLabelsRisk(**{**FAST, **settings}).fit(X, y, treatment=treatment)


def test_given_is_checked(fitted):
    with pytest.raises(ParameterError, match="given"):
        fitted[0].risk(fitted[1], given="inspected")


# ---------------------------------------------------------------------- the reference
OTHERS = {"risk": (0.5, 0.7), "risk_intercept": (-2, 0.4), "decision": (-0.3, 0.5), "sigma": 1.2}


@pytest.mark.parametrize(("prevalence", "priors"), [(density.NO_PREVALENCE, None), ((0.3, 0.02), OTHERS)])
def test_fast_density_equals_the_model_in_pymc(prevalence, priors):
    from causalsat.estimators.selective_labels.model import build_model

    X, y, tested, _ = world(300)
    rng = np.random.default_rng(4)
    data = density.SelectiveData(
        np.column_stack([np.ones(300), X]),
        np.where(tested == 0, 0, 1 + np.nan_to_num(y)).astype(np.int64),
        rng.uniform(0.5, 2, 300),
        np.array([0, 2]),
        prevalence,
        read_priors(priors, RISK),
    )
    reference = build_model(data).compile_logp()
    gaps = []
    for x in rng.normal(0, 0.7, (6, data.n_parameters)):
        theirs = reference({"gamma": x[:5], "tau": x[5:7], "u": np.float64(x[7])})
        gaps.append(density.log_density(x, *data.as_tuple())[0] - float(theirs))
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-6)


# ---------------------------------------------------------------------- the sampler
@pytest.mark.slow
@pytest.mark.parametrize("prevalence", [density.NO_PREVALENCE, (0.4, 0.02)])
def test_both_samplers_find_the_same_posterior(prevalence):
    """Independent proposals along the modes, and the No-U-Turn sampler: moments agree within their chance error."""
    data, form = prepared(600, prevalence=prevalence), UniformForm()
    settings = Settings(1000, 300, 4, 0)
    quick = sampling.sample(form.density(), form.arguments(data), form.start(data), settings)
    assert quick.sampler == "mode path"
    found = sampling.laplace(form.density(), form.arguments(data), form.start(data))
    slow, _ = sampling.sample_whitened(form.density(), form.arguments(data), found, settings)
    slow = slow.reshape(-1, data.n_parameters)
    chance = np.sqrt(2 / quick.diagnostics({"x": quick.flat})["ess"])
    assert (np.abs(quick.flat.mean(axis=0) - slow.mean(axis=0)) < 4 * chance * slow.std(axis=0)).all()
    np.testing.assert_allclose(quick.flat.std(axis=0), slow.std(axis=0), rtol=0.15)
    for share in (0.05, 0.95):
        below = (slow[:, -1] < np.quantile(quick.flat[:, -1], share)).mean()
        assert abs(below - share) < 4 * chance * np.sqrt(0.05 * 0.95)


@quiet
def test_few_units_and_a_sharp_prevalence_are_left_to_nuts():
    X, y, tested, truth = world(60)
    settings = {**FAST, "n_chains": 2}
    model = SelectiveLabelsRisk(prevalence=(truth["risk"].mean(), 0.002), **settings).fit(X, y, treatment=tested)
    assert model.sampler_diagnostics_["sampler"] == "NUTS"
    assert "accepted" not in model.sampler_diagnostics_


def test_effective_draws_where_sigma_near_0_is_not_excluded():
    """No unobservable at all: sigma's posterior leans on 0, and its chains still mix."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1500, 2))
    y = (rng.random(1500) < expit(-1 + X[:, 0])).astype(float)
    tested = (rng.random(1500) < expit(X[:, 0])).astype(int)
    model = SelectiveLabelsRisk(random_state=0).fit(X, np.where(tested == 1, y, np.nan), treatment=tested)
    assert np.quantile(model.draws_.sigma, 0.05) < 0.5
    assert model.sampler_diagnostics_["ess"] > 0.4 * 2000
    assert model.sampler_diagnostics_["r_hat"] < 1.01
