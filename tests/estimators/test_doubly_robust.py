"""DoublyRobustEffect against known effects, other implementations and its own intervals."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LinearRegression

from causalsat import DoublyRobustEffect
from causalsat.exceptions import CausalsatWarning, DataError, DataWarning, ParameterError
from causalsat.inference.projection import draw_coefficients, project, stabilise

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def trial(n_clusters=60, seed=0, slopes=(0.5,), k=3, noise=1.0, village=0.7):
    """Cluster-randomised trial: features of the cluster, effect 1 + slopes' x, villages of 3 to 8 units."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_clusters), rng.integers(3, 9, n_clusters))
    n = len(groups)
    X = rng.standard_normal((n_clusters, k))[groups]
    t = (rng.permutation(n_clusters) % 2)[groups].astype(float)
    tau = 1 + X[:, : len(slopes)] @ np.asarray(slopes)
    y = X[:, -1] + t * tau + village * rng.standard_normal(n_clusters)[groups] + noise * rng.standard_normal(n)
    return X, y, t, groups, tau


def test_recovers_ate_and_slopes():
    X, y, t, groups, tau = trial(800, slopes=(0.5, -0.5))
    est = DoublyRobustEffect(regularisation=None).fit(X, y, treatment=t, groups=groups)
    assert abs(est.ate_.estimate - tau.mean()) < 3 * est.ate_.se
    truth = np.array([tau.mean(), 0.5, -0.5, 0.0]) * [1, *est.scale_]
    z = (est.coef_ - truth) / np.sqrt(np.diag(est.coef_cov_))
    assert np.abs(z).max() < 3
    assert np.sqrt(np.diag(est.coef_cov_)).max() < 0.1
    assert np.corrcoef(est.predict(X), tau)[0, 1] > 0.98


def test_ate_is_that_of_cluster_robust_regression():
    """Adjusted by the same features, OLS with interactions (Lin 2013) estimates the same effect."""
    X, y, t, groups, _ = trial(200)
    est = DoublyRobustEffect().fit(X, y, treatment=t, groups=groups)
    centred = X - X.mean(axis=0)
    design = np.column_stack([np.ones(len(y)), t, centred, centred * t[:, None]])
    ols = sm.OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert abs(est.ate_.estimate - ols.params[1]) < 0.25 * ols.bse[1]
    assert est.ate_.se == pytest.approx(ols.bse[1], rel=0.15)


@pytest.mark.slow
def test_agrees_with_econml():
    from econml.dr import LinearDRLearner
    from sklearn.dummy import DummyClassifier

    X, y, t, _, _ = trial(300, village=0.0)
    ours = DoublyRobustEffect(outcome_model=LinearRegression(), regularisation=None).fit(X, y, treatment=t)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = LinearDRLearner(
            model_regression=LinearRegression(), model_propensity=DummyClassifier(), cv=5, random_state=0
        ).fit(y, t, X=X)
        theirs = peer.effect(X)
        peer_se = peer.effect_inference(X[:1]).stderr[0]
    assert abs(ours.ate_.estimate - theirs.mean()) < 0.3 * ours.ate_.se
    np.testing.assert_allclose(ours.predict(X), theirs, atol=0.6 * peer_se)
    assert ours.effect(X[:1]).sd()[0] == pytest.approx(peer_se, rel=0.15)


def quick(**more):
    """Cheap to fit: linear outcome models, and the design's propensity."""
    return DoublyRobustEffect(outcome_model=LinearRegression(), **more)


@pytest.mark.statistical
def test_intervals_cover_with_clusters():
    """95 % intervals of the ATE and 90 % of an effect over 200 trials; binomial standard error 1.5 and 2.1 points."""
    hits, naive = [], []
    for seed in range(200):
        X, y, t, groups, _ = trial(40, seed=seed, slopes=(0.3,), village=1.0)
        est = quick(n_draws=200, random_state=seed).fit(X, y, treatment=t, groups=groups, propensity=0.5)
        lower, upper = est.effect(np.zeros((1, 3))).interval(0.9)[0]
        hits.append([est.ate_.lower <= 1 <= est.ate_.upper, lower <= 1 <= upper])
        if seed < 60:
            alone = quick(n_draws=2, random_state=seed).fit(X, y, treatment=t, propensity=0.5)
            naive.append(alone.ate_.lower <= 1 <= alone.ate_.upper)
    ate, at_zero = np.mean(hits, axis=0)
    assert 0.91 <= ate <= 0.985
    assert 0.84 <= at_zero <= 0.96
    assert np.mean(naive) < 0.85  # the same trials without their clusters


@pytest.mark.statistical
@pytest.mark.parametrize("size", [0.0, 0.25])
def test_intervals_of_conditional_effects_cover(size):
    """90 % intervals of the effects of new places: ten latents that all matter, or none, in 100 villages."""
    cover, error = [], []
    for seed in range(50):
        slopes = size * np.random.default_rng([seed, 1]).standard_normal(10)
        X, y, t, groups, _ = trial(100, seed=seed, slopes=slopes, k=10)
        est = quick(n_draws=400, random_state=seed).fit(X, y, treatment=t, groups=groups, propensity=0.5)
        new = np.random.default_rng(seed).standard_normal((200, 10))
        tau = 1 + new @ slopes
        post = est.effect(new)
        lower, upper = post.interval(0.9).T
        cover.append(np.mean((lower <= tau) & (tau <= upper)))
        error.append([np.mean((post.mean() - tau) ** 2), np.mean((est._design(new) @ est.coef_ - tau) ** 2)])
    assert 0.82 <= np.mean(cover) <= 0.98  # over 150 trials: 0.86 where all matter, 0.95 where none does
    shrunk, unshrunk = np.mean(error, axis=0)
    assert shrunk < 0.9 * unshrunk


def test_no_heterogeneity_is_shrunk_to_nearly_the_same_effect():
    X, y, t, groups, _ = trial(200, slopes=(0.0,), k=15)
    flat = DoublyRobustEffect().fit(X, y, treatment=t, groups=groups)
    wild = DoublyRobustEffect(regularisation=None).fit(X, y, treatment=t, groups=groups)
    assert flat.predict(X).std() < 0.5 * wild.predict(X).std()
    assert flat.predict(X).mean() == pytest.approx(flat.ate_.estimate, abs=0.5 * flat.ate_.se)
    assert flat._heterogeneity_p_value() > 0.01


def test_modifiers_by_pattern():
    X, y, t, groups, _ = trial(200, k=3)
    frame = pd.DataFrame(X, columns=["img0", "img1", "age"])
    est = DoublyRobustEffect(modifiers="img*").fit(frame, y, treatment=t, groups=groups)
    assert est.modifier_names_ == ("img0", "img1")
    moved = frame.assign(age=frame["age"] + 10)
    np.testing.assert_allclose(est.predict(moved), est.predict(frame))
    np.testing.assert_allclose(est.support(moved), est.support(frame))
    text = str(est.summary())
    assert all(word in text for word in ("ATE", "img1", "std err", "shrunk", "effective sample size", "clusters"))
    assert "age" not in text


def test_indicators_of_missing_values_are_no_modifiers():
    X, y, t, groups, _ = trial(200)
    X[:4, 1] = np.nan
    est = DoublyRobustEffect().fit(X, y, treatment=t, groups=groups)
    assert "x1 missing" in est.design_names_
    assert est.modifier_names_ == ("x0", "x1", "x2")


def test_a_coefficient_of_few_units_is_not_sure_of_itself():
    """A feature that is 1 in one cluster only: its robust variance is nearly zero."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 4)
    rare = (groups == 0).astype(float)
    t = (np.arange(50) % 2)[groups].astype(float)
    y = t + rng.standard_normal(200)
    est = DoublyRobustEffect(regularisation=None).fit(rare[:, None], y, treatment=t, groups=groups, propensity=0.5)
    at_rare = est.effect([[1.0]]).sd()[0]
    assert at_rare > 0.7  # the mean of four scores of standard deviation 2


def test_known_propensity_corrects_a_stratified_design():
    rng = np.random.default_rng(0)
    stratum = rng.integers(0, 2, 4000)
    e = np.where(stratum == 1, 0.8, 0.2)
    t = (rng.random(4000) < e).astype(float)
    y = 3 * stratum + t + rng.standard_normal(4000)
    X = rng.standard_normal((4000, 1))  # does not know the stratum
    right = DoublyRobustEffect(n_draws=2).fit(X, y, treatment=t, propensity=e).ate_
    wrong = DoublyRobustEffect(n_draws=2).fit(X, y, treatment=t).ate_
    assert right.lower < 1 < right.upper
    assert wrong.lower > 2


def test_survey_weights_move_the_population():
    X, y, t, groups, tau = trial(400, slopes=(1.0,))
    heavy = X[:, 0] > 0
    w = np.where(heavy, 9.0, 1.0)
    est = DoublyRobustEffect(n_draws=2).fit(X, y, treatment=t, groups=groups, sample_weight=w)
    assert abs(est.ate_.estimate - np.average(tau, weights=w)) < 3 * est.ate_.se
    assert est.ate_.estimate - tau.mean() > 0.4


def test_parameters_are_checked():
    X, y, t, groups, _ = trial(20, k=3)
    for bad in ({"regularisation": "lasso"}, {"n_draws": 1}, {"min_propensity": 0.7}):
        with pytest.raises(ParameterError):
            DoublyRobustEffect(**bad).fit(X, y, treatment=t, groups=groups)
    wide = np.random.default_rng(0).standard_normal((len(y), 25))
    with pytest.raises(DataError, match="25 modifiers for 20 clusters"):
        DoublyRobustEffect(regularisation=None).fit(wide, y, treatment=t, groups=groups)
    assert np.isfinite(DoublyRobustEffect().fit(wide, y, treatment=t, groups=groups).predict(wide)).all()
    with pytest.warns(DataWarning, match="collinear"):
        DoublyRobustEffect(regularisation=None).fit(np.column_stack([X, X[:, 0]]), y, treatment=t, groups=groups)
    with pytest.warns(CausalsatWarning, match="clipped"):
        DoublyRobustEffect().fit(X, y, treatment=t, groups=groups, propensity=np.where(t > 0, 0.995, 0.5))


@pytest.mark.parametrize("regularisation", [None, "ridge"])
def test_columns_that_are_one_but_for_their_last_digits_count_as_one(regularisation):
    """A year beside an age, single precision beside double: coefficients were 1e12, intervals as wide.

    Copies were evidence of effects that do not vary.
    """
    X, y, t, groups, tau = trial(60, slopes=(0.5,), k=3, seed=2)
    again = 100 * X[:, 0] + 20_000.7, (X[:, 1] - 3 * X[:, 2]).astype(np.float32)
    found = []
    for columns in (X, np.column_stack([X, X[:, :2]]), np.column_stack([X, *again])):
        model = DoublyRobustEffect(regularisation=regularisation).fit(columns, y, treatment=t, groups=groups)
        assert np.abs(model.coef_).max() < 10
        found.append(model.effect(columns))
    for posterior in found[1:]:
        assert posterior.sd().mean() == pytest.approx(found[0].sd().mean(), rel=0.15)
        assert posterior.mean().std() == pytest.approx(found[0].mean().std(), rel=0.5)
        assert np.corrcoef(posterior.mean(), tau)[0, 1] > 0.9


@pytest.mark.parametrize(("k", "by_unit"), [(60, False), (200, False), (59, True), (200, True)])
def test_as_many_modifiers_as_there_are_clusters_or_units_do_not_pass_for_certainty(k, by_unit):
    """A projection through all scores leaves no residual: its standard errors, and the draws' spread, were 0."""
    X, y, t, groups, tau = trial(60, slopes=(0.5,), k=k)
    if by_unit:  # k = 59 modifiers and the constant are exactly as many as the 60 units
        first = np.unique(groups, return_index=True)[1]
        X, y, t, groups, tau = X[first], y[first], t[first], groups[first] // 2, tau[first]
    est = DoublyRobustEffect().fit(X, y, treatment=t, groups=groups)
    post = est.effect(X)
    lower, upper = post.interval(0.9).T
    assert 0.7 < post.ate().sd()[0] / est.ate_.se < 1.8
    assert np.mean((lower <= tau) & (tau <= upper)) > 0.7
    elsewhere = np.random.default_rng(1).standard_normal(X.shape)
    assert est.effect(elsewhere).sd().mean() > 0.9 * post.sd().mean()


# ---------------------------------------------------------------------------- the projection
def test_draws_without_a_prior_have_the_covariance_of_the_estimate():
    cov = np.array([[0.04, 0.01], [0.01, 0.09]])
    draws, scale = draw_coefficients(
        np.array([1.0, 2.0]), cov, 1e6, 40_000, np.random.default_rng(0), prior_scale=None
    )
    np.testing.assert_allclose(draws.mean(axis=0), [1, 2], atol=1e-8)  # antithetic pairs
    np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.003)
    assert np.isnan(scale)


def test_shrunk_draws_are_the_posterior_under_the_prior():
    """Against a brute-force posterior: importance weights of draws from the prior, one coefficient."""
    b, v, scale = 0.3, 0.2**2, 0.25
    rng = np.random.default_rng(0)
    s = scale * np.abs(rng.standard_cauchy(400_000))
    beta = s * rng.standard_normal(len(s))
    weight = np.exp(-0.5 * (beta - b) ** 2 / v)
    mean = np.average(beta, weights=weight)
    sd = np.sqrt(np.average((beta - mean) ** 2, weights=weight))
    draws, _ = draw_coefficients(np.array([0.0, b]), np.diag([1e-6, v]), 1e6, 40_000, rng, prior_scale=scale)
    assert draws[:, 1].mean() == pytest.approx(mean, abs=0.006)
    assert draws[:, 1].std() == pytest.approx(sd, abs=0.006)


def test_the_constant_keeps_its_mean_and_variance_whatever_is_shrunk():
    cov = np.array([[1.0, 0.9], [0.9, 1.0]]) * 0.01
    draws, _ = draw_coefficients(np.array([1.0, 0.1]), cov, 1e6, 4000, np.random.default_rng(0), prior_scale=1e-5)
    assert draws[:, 1].mean() == pytest.approx(0, abs=0.01)
    assert draws[:, 0].mean() == pytest.approx(1, abs=1e-3)
    assert draws[:, 0].std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("law", ["noise along a modifier", "income with zeros"])
def test_the_posterior_average_is_the_average_effect(law):
    """Shrinking slopes moved it by .12 and .39 of effects of 1 and 1.5."""
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((400, 3)), rng.permutation(400) % 2
    y = t + np.exp(0.6 * X[:, 0]) * rng.standard_normal(400)
    if law == "income with zeros":
        y = np.where(rng.uniform(size=400) < 0.4, 0, np.exp(1 + 0.5 * X[:, 0] + rng.standard_normal(400))) * (1 + t)
    est = DoublyRobustEffect().fit(X, y, treatment=t)
    average = est.effect(X).ate()
    assert float(average) == pytest.approx(est.ate_.estimate, abs=1e-9)
    assert average.sd()[0] == pytest.approx(est.ate_.se, rel=0.1)


def test_few_clusters_draw_the_covariance_towards_the_working_model():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 20)
    design = np.column_stack([np.ones(120), rng.standard_normal((120, 5))])
    found = project(rng.standard_normal(120), design, np.ones(120), groups)
    assert np.linalg.eigvalsh(found.cov).min() < 1e-10
    blended = stabilise(found, 6)
    assert np.linalg.eigvalsh(blended).min() > 1e-4
    np.testing.assert_allclose(stabilise(found, 10**9), found.cov, atol=1e-8)


def test_as_many_columns_as_units_has_finite_intervals():
    """HC1 divides by zero there; the degrees of freedom never fall below half of the units."""
    rng = np.random.default_rng(0)
    design = np.column_stack([np.ones(6), rng.standard_normal((6, 5))])
    found = project(rng.standard_normal(6), design, np.ones(6))
    assert np.isfinite(found.cov).all()
    assert found.df == 3
