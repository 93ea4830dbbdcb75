"""BayesianForestEffect: known effects, coverage, stochtree called directly, saving, odd inputs."""

from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import pytest

import causalsat
from causalsat.estimators import levels
from causalsat.estimators.forest import fit as forest_fit
from causalsat.estimators.forest.estimator import POLICY
from causalsat.exceptions import (
    CausalsatError,
    ConvergenceWarning,
    DataError,
    DataWarning,
    ParameterError,
    TreatmentError,
)
from causalsat.inference.chains import warn_of_chains
from causalsat.inference.folds import content_order

stochtree = pytest.importorskip("stochtree", reason="the extra causalsat[trees] is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")

SMALL = {
    "n_chains": 2,
    "n_tune": 100,
    "n_draws": 60,
    "n_prognostic_trees": 30,
    "n_effect_trees": 20,
    "random_state": 1,
}


def forest(**more):
    return causalsat.BayesianForestEffect(**{**SMALL, **more})


def step_trial(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X, t = rng.standard_normal((n, 3)), rng.permutation(n) % 2
    tau = 1 + 2 * (X[:, 0] > 0)
    return X, X[:, 1] + t * tau + 0.5 * rng.standard_normal(n), t, tau


@pytest.fixture(scope="module")
def stepped():
    X, y, t, tau = step_trial()
    return forest().fit(X, y, treatment=t), X, y, t, tau


def test_a_step_in_the_effect_is_found(stepped):
    est, _, _, _, _ = stepped
    X, _, _, tau = step_trial(seed=1)
    found = est.predict(X)
    assert np.sqrt(np.mean((found - tau) ** 2)) < 0.35
    assert est.split_share_.sum() == pytest.approx(1)
    assert 0.4 < est.noise_draws_.mean() < 0.62
    assert abs(est.ate_draws_.mean() - tau.mean()) < 0.25


def test_draws_agree_with_the_reported_average_effect(stepped):
    est, X, *_ = stepped
    np.testing.assert_allclose(est.effect(X).ate().draws[:, 0], est.ate_draws_.ravel(), rtol=1e-8)
    assert est.diagnostics_["n_chains"] == 2
    assert est.diagnostics_["ess"] > 5
    assert {"r_hat ATE", "r_hat noise"} <= set(est.diagnostics_)


def test_agrees_with_stochtree_called_directly(stepped):
    est, X, y, t, _ = stepped
    model = stochtree.BCFModel()
    model.sample(
        X_train=X,
        Z_train=t.astype(float),
        y_train=y,
        num_gfr=10,
        num_burnin=50,
        num_mcmc=100,
        general_params={"random_seed": 5, "propensity_covariate": "none"},
    )
    theirs = np.asarray(model.predict(X=X, Z=t.astype(float)[:, None], terms="tau"))
    ate, sd = theirs.mean(), theirs.mean(axis=0).std()
    assert abs(est.ate_draws_.mean() - ate) < 2 * sd  # two samplers of nearly one posterior
    assert np.corrcoef(est.predict(X), theirs.mean(axis=1))[0, 1] > 0.95


def test_equals_stochtree_with_our_priors_and_seed():
    X, y, t, _ = step_trial(150)
    est = forest(n_chains=1, n_tune=30, n_draws=20).fit(X, y, treatment=t)
    rng, n = np.random.default_rng(SMALL["random_state"]), len(y)
    order, _ = content_order((t, y, *X.T))  # in which the units come to the sampler
    X, y, t = X[order], y[order], t[order]
    z, centred = (y - y.mean()) / y.std(), t - t.mean()
    design = np.column_stack([np.ones(n), centred, X - X.mean(axis=0)])  # the start: OLS and its HC0 error
    inverse = np.linalg.inv(design.T @ design)
    coef = inverse @ design.T @ z
    error = np.sqrt(inverse[1] @ (design * ((z - design @ coef) ** 2)[:, None]).T @ design @ inverse[1])
    start = coef[1] + error * rng.standard_normal()
    model = stochtree.BCFModel()
    model.sample(
        X_train=X,
        Z_train=centred,
        y_train=z - start * centred,
        num_gfr=0,
        num_burnin=30,
        num_mcmc=20,
        general_params={
            "random_seed": int(rng.integers(1, 2**31 - 1)),
            "standardize": False,
            "propensity_covariate": "none",
            "sigma2_global_init": 1.0,
            "sigma2_global_shape": 1.5,
            "sigma2_global_scale": 0.005,
        },
        prognostic_forest_params={"num_trees": 30, "min_samples_leaf": 5},
        treatment_effect_forest_params={
            "num_trees": 20,
            "min_samples_leaf": 5,
            "alpha": 0.95,
            "beta": 2.0,
            "sigma2_leaf_init": 0.7**2 / 20,
            "tau_0_prior_var": 1.0,
        },
    )
    theirs = model.predict(X=X, Z=np.full((n, 1), 1 - t.mean()), terms=["cate", "y_hat"])
    np.testing.assert_allclose(est.effect(X).draws.T, y.std() * (start + theirs["cate"]), rtol=1e-6, atol=1e-6)
    treated = y.mean() + y.std() * (theirs["y_hat"] + start * (1 - t.mean()))
    np.testing.assert_allclose(est.predict_outcome(X).draws.T, treated, rtol=1e-6, atol=1e-6)


def test_outcomes_are_predicted_and_their_difference_is_the_effect(stepped):
    est, *_ = stepped
    X, _, _, tau = step_trial(seed=1)
    one, zero = (est.predict_outcome(X, treatment=a) for a in (1.0, 0.0))
    np.testing.assert_allclose((one - zero).draws, est.effect(X).draws, atol=1e-9)
    for post, truth in ((zero, X[:, 1]), (one, X[:, 1] + tau)):
        assert post.kind == "outcome"
        assert np.sqrt(np.mean((post.mean() - truth) ** 2)) < 0.35  # of an sd of 1 and 1.4
        lower, upper = post.interval(0.9).T
        assert 0.8 < np.mean((lower <= truth) & (truth <= upper)) <= 1.0
    with pytest.raises(ParameterError, match="0 or 1"):
        est.predict_outcome(X, treatment=0.5)
    with pytest.raises(ParameterError, match="0 or 1"):
        est.effect(X, treatment=2.0)


def test_outcomes_of_new_units_where_the_propensity_is_a_covariate(tmp_path):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((900, 3))
    e = 1 / (1 + np.exp(-X[:, 0]))
    t = (rng.uniform(size=900) < e).astype(int)
    y = 3 + 2 * np.tanh(X[:, 0]) + t + 0.3 * rng.standard_normal(900)
    for known in ({"propensity": e[:600]}, {}):
        est = forest(propensity_model="logistic").fit(X[:600], y[:600], treatment=t[:600], **known)
        assert est.propensity_surface_ is not None
        for level in (0.0, 1.0):
            truth = 3 + 2 * np.tanh(X[600:, 0]) + level
            found = est.predict_outcome(X[600:], treatment=level)
            assert np.sqrt(np.mean((found.mean() - truth) ** 2)) < 0.4  # of an sd of 1.2
    est.save(tmp_path / "forest.safetensors")
    loaded = causalsat.load(tmp_path / "forest.safetensors")
    np.testing.assert_array_equal(loaded.predict_outcome(X[600:]).draws, est.predict_outcome(X[600:]).draws)


def test_a_trial_of_villages_is_found_and_its_chains_agree():
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(80), 6)
    X = np.column_stack([rng.standard_normal(80)[groups], rng.standard_normal((480, 2))])
    t = (rng.permutation(80) % 2)[groups]
    tau = 1 + 1.5 * np.tanh(2 * X[:, 0])
    y = 2 + X[:, 1] + t * tau + 0.4 * rng.standard_normal(80)[groups] + 0.7 * rng.standard_normal(480)
    est = forest(n_chains=4, n_tune=200, n_draws=150).fit(X, y, treatment=t, groups=groups)
    assert np.sqrt(np.mean((est.predict(X) - tau) ** 2)) < 0.4 * tau.std()
    control = est.predict_outcome(X, treatment=0.0).mean()
    assert np.sqrt(np.mean((control - 2 - X[:, 1]) ** 2)) < 0.45  # of an sd of 1
    assert est.diagnostics_["n_chains"] == 4
    assert est.diagnostics_["r_hat ATE"] < 1.1  # four chains from four starts
    assert abs(float(est.effect(X).ate()) - tau.mean()) < 0.35


@pytest.mark.parametrize("share", [2, 4])
def test_swapped_arms_change_the_sign_and_nothing_else(share):
    """As like as two seeds: with one arm as the reference they correlated .90 to .95."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 8)
    X = np.column_stack([rng.standard_normal(40)[groups], rng.standard_normal((320, 2))])
    t = (rng.permutation(40) % share == 0)[groups].astype(float)
    y = X[:, 2] + np.sin(X[:, 0]) + t * (1 + 0.5 * X[:, 0] + 0.5 * (X[:, 1] > 0)) + rng.standard_normal(320)
    options = {"n_chains": 4, "n_draws": 100, "n_tune": 150}
    one = forest(**options).fit(X, y, treatment=t, groups=groups).effect(X)
    other = forest(**options).fit(X, y, treatment=1 - t, groups=groups).effect(X)
    assert np.corrcoef(one.mean(), -other.mean())[0, 1] > 0.975
    # three Monte Carlo errors of a difference of averages whose effective sample sizes are some 40
    assert abs(one.mean().mean() + other.mean().mean()) < 3 * np.sqrt(2 / 40) * one.ate().sd()[0]
    np.testing.assert_allclose(other.sd().mean(), one.sd().mean(), rtol=0.1)
    np.testing.assert_allclose(other.mean().std(), one.mean().std(), rtol=0.1)


def test_the_order_of_rows_and_the_names_of_villages_move_nothing():
    X, y, t, _ = step_trial(150)
    rng, groups = np.random.default_rng(0), np.arange(150) // 5
    short = {"n_tune": 20, "n_draws": 10}
    draws = forest(**short).fit(X, y, treatment=t, groups=groups).effect(X).draws
    rows, names = rng.permutation(150), rng.permutation(100)[groups]
    other = forest(**short).fit(X[rows], y[rows], treatment=t[rows], groups=names[rows]).effect(X).draws
    np.testing.assert_array_equal(other, draws)


def test_an_arm_in_one_village_is_refused():
    X, y, t, _ = step_trial(60)
    with pytest.raises(DataError, match="1 cluster"):
        forest().fit(X, y, treatment=t, groups=t)
    forest(group_effects=False, n_tune=5, n_draws=5).fit(X, y, treatment=t, groups=t)


def test_a_dose_has_a_linear_effect():
    rng = np.random.default_rng(0)
    X, dose = rng.standard_normal((400, 2)), rng.uniform(0, 4, 400)
    y = X[:, 1] + dose * (1 + (X[:, 0] > 0)) + 0.5 * rng.standard_normal(400)
    est = forest().fit(X, y, treatment=dose)
    tau = est.effect([[-1.0, 0.0], [1.0, 0.0]], treatment=3.0, baseline=1.0).mean()
    np.testing.assert_allclose(tau, [2.0, 4.0], atol=0.5)
    assert abs(est.predict(X).mean() - (1 + (X[:, 0] > 0)).mean()) < 0.2
    curve = [est.predict_outcome(X, treatment=d).mean() for d in (0.5, 2.0, 3.5)]
    for level, found in zip((0.5, 2.0, 3.5), curve, strict=True):
        assert np.sqrt(np.mean((found - X[:, 1] - level * (1 + (X[:, 0] > 0))) ** 2)) < 0.6
    np.testing.assert_allclose(curve[1] - curve[0], curve[2] - curve[1], atol=1e-9)  # linear in the dose


def test_effects_scale_with_the_outcome():
    X, y, t, _ = step_trial(150)
    one = forest().fit(X, y, treatment=t).effect(X).draws
    other = forest().fit(X, 5 - 1000 * y, treatment=t).effect(X).draws
    assert np.corrcoef(one.mean(axis=0), other.mean(axis=0))[0, 1] < -0.9
    assert abs(other.mean() / one.mean() + 1000) < 150
    same = forest().fit(X, 5 + 1024 * y, treatment=t).effect(X).draws
    np.testing.assert_allclose(same.mean(), 1024 * one.mean(), rtol=0.15)


def test_survey_weights_that_vary_leave_the_effects_where_they_are():
    """An outcome whose unweighted mean is not 0 makes stochtree's chains diverge: the noise became thousands."""
    X, y, t, tau = step_trial()
    weight = np.random.default_rng(3).uniform(0.5, 2, len(y))
    est = forest().fit(X, y + 1, treatment=t, sample_weight=weight)
    assert 0.4 < est.noise_draws_.mean() < 0.7
    assert np.sqrt(np.mean((est.predict(X) - tau) ** 2)) < 0.4
    assert abs(est.predict_outcome(X, treatment=0).mean()[t == 0].mean() - (y + 1)[t == 0].mean()) < 0.15


def test_units_of_large_weight_decide():
    """Stochtree's variance weights are the inverse of ours."""
    rng = np.random.default_rng(0)
    X, t, heavy = rng.standard_normal((400, 2)), rng.permutation(400) % 2, np.arange(400) < 200
    y = np.where(heavy, 2.0, -2.0) + t * np.where(heavy, 1.0, -1.0) + 0.3 * rng.standard_normal(400)
    est = forest().fit(X, y, treatment=t, sample_weight=np.where(heavy, 1.0, 0.02))
    assert est.predict_outcome(X, treatment=0).mean().mean() > 1.5
    assert est.effect(X).ate().mean()[0] > 0.5


def test_units_of_weight_zero_count_as_absent():
    X, y, t, _ = step_trial(200)
    groups = np.arange(200) % 50
    weight, kept = np.random.default_rng(3).uniform(0.5, 2, 200), groups >= 10
    with_them = forest().fit(X, y, treatment=t, groups=groups, sample_weight=np.where(kept, weight, 0))
    without = forest().fit(X[kept], y[kept], treatment=t[kept], groups=groups[kept], sample_weight=weight[kept])
    np.testing.assert_allclose(with_them.effect(X).draws, without.effect(X).draws, rtol=1e-9)


def test_propensities_adjust_for_confounding():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((500, 4))
    e = 1 / (1 + np.exp(-2 * X[:, 0]))
    t = (rng.uniform(size=500) < e).astype(int)
    y = 2 * X[:, 0] + t + 0.5 * rng.standard_normal(500)
    naive = y[t == 1].mean() - y[t == 0].mean()
    learned = forest(propensity_model="logistic").fit(X, y, treatment=t).effect(X).ate()
    known = forest().fit(X, y, treatment=t, propensity=e).effect(X).ate()
    assert naive > 2.5
    assert abs(float(learned) - 1) < 0.35
    assert abs(float(known) - 1) < 0.35
    with pytest.warns(DataWarning, match="predict the treatment"):
        forest(n_tune=5, n_draws=5).fit(X, y, treatment=t)


def test_a_constant_known_propensity_changes_nothing():
    X, y, t, _ = step_trial(120)
    short = {"n_tune": 20, "n_draws": 10}
    known = forest(**short).fit(X, y, treatment=t, propensity=0.5).effect(X).draws
    np.testing.assert_array_equal(known, forest(**short).fit(X, y, treatment=t).effect(X).draws)


def test_modifiers_alone_move_the_effect():
    X, y, t, _ = step_trial(200)
    est = forest(modifiers=[1, 2], n_tune=40, n_draws=20).fit(X, y, treatment=t)
    moved = X.copy()
    moved[:, 0] = 50.0
    np.testing.assert_array_equal(est.effect(moved).draws, est.effect(X).draws)
    assert est.split_share_[0] == 0


def test_features_with_few_values_constant_ones_and_single_rows():
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(120), rng.integers(0, 2, 120), rng.integers(0, 3, 120)]).astype(float)
    t = rng.permutation(120) % 2
    y = t * (1 + 2 * X[:, 1]) + 0.3 * rng.standard_normal(120)
    est = forest().fit(X, y, treatment=t)
    np.testing.assert_allclose(est.predict([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]), [1.0, 3.0], atol=0.5)
    row = est.effect([[1.0, 1.0, 2.0]])
    assert row.draws.shape == (120, 1)
    assert np.isfinite(forest(n_tune=10, n_draws=5).fit(X[:, :1], y, treatment=t).predict(X[:3, :1])).all()


def test_saved_pickled_and_copied_forests_predict_the_same(stepped, tmp_path):
    est, X, *_ = stepped
    draws, outcomes = est.effect(X[:20]).draws, est.predict_outcome(X[:20]).draws
    est.save(tmp_path / "forest.safetensors")
    loaded = causalsat.load(tmp_path / "forest.safetensors")
    for other in (loaded, copy.deepcopy(est), pickle.loads(pickle.dumps(est))):
        np.testing.assert_array_equal(other.effect(X[:20]).draws, draws)
        np.testing.assert_array_equal(other.predict_outcome(X[:20]).draws, outcomes)
    assert est.forests_[0].dtype == np.uint8


def test_global_random_state_is_left_alone():
    X, y, t, _ = step_trial(80)
    np.random.seed(7)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = forest(n_tune=10, n_draws=10).fit(X, y, treatment=t).predict(X)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(8)  # noqa: NPY002
    np.testing.assert_array_equal(forest(n_tune=10, n_draws=10).fit(X, y, treatment=t).predict(X), first)


def test_without_stochtree_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "stochtree", None)
    X, y, t, _ = step_trial(40)
    with pytest.raises(ImportError, match=r"causalsat\[trees\]") as caught:
        forest().fit(X, y, treatment=t)
    assert isinstance(caught.value, CausalsatError)


@pytest.mark.parametrize(
    "wrong",
    [{"n_chains": 0}, {"n_draws": 2.5}, {"n_tune": -1}, {"effect_scale": 0}, {"propensity_model": "forest"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_parameters_are_refused(wrong):
    X, y, t, _ = step_trial(40)
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        forest(**wrong).fit(X, y, treatment=t)


def test_two_codes_are_not_a_dose():
    with pytest.raises(TreatmentError, match="recode"):
        levels.check_coding(np.array([1.0, 2.0, 2.0]))
    levels.check_coding(np.array([0.0, 1.0, 2.0]))


def test_a_constant_outcome_is_said():
    X, _, t, _ = step_trial(40)
    with pytest.warns(DataWarning, match="one value only"):
        est = forest().fit(X, np.full(40, 2.0), treatment=t)
    np.testing.assert_array_equal(est.effect(X).draws, 0)
    np.testing.assert_array_equal(est.predict_outcome(X).draws, 2)


def test_chains_that_disagree_warn():
    rng = np.random.default_rng(0)
    apart = rng.standard_normal((2, 100)) + np.array([[0.0], [5.0]])
    summary = forest_fit.chain_diagnostics({"ATE": apart, "noise": rng.standard_normal((2, 100))})
    assert summary["r_hat ATE"] > 1.5 > 1.1 > summary["r_hat noise"]
    with pytest.warns(ConvergenceWarning, match="effective sample size .*n_tune"):
        warn_of_chains(summary, advice="raise n_tune and n_draws", policy=POLICY)


def test_preliminary_effect_is_cluster_robust_ols():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 5)
    X, t = rng.standard_normal((100, 2)), (np.arange(20) % 2)[groups].astype(float)
    y = X[:, 0] + t + rng.standard_normal(20)[groups] + rng.standard_normal(100)
    estimate, error = forest_fit.preliminary_effect(X, y, t, np.ones(100), groups)
    design = np.column_stack([np.ones(100), t, X])
    ols = sm.OLS(y, design).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False, "df_correction": False}
    )
    assert estimate == pytest.approx(ols.params[1], rel=1e-8)
    assert error == pytest.approx(ols.bse[1], rel=1e-8)


# ---------------------------------------------------------------------- coverage
N_TRIALS = 40


def covered(world):
    rows = []
    for seed in range(N_TRIALS):
        rng = np.random.default_rng(seed)
        X, y, t, groups, tau = world(rng)
        n = len(y)
        est = forest(n_tune=80, n_draws=60, random_state=seed, n_prognostic_trees=20, n_effect_trees=10)
        post = est.fit(X[:n], y, treatment=t, groups=groups).effect(X)
        average, truth = post[:n].ate(), tau[:n].mean()
        row = []
        for level in (0.5, 0.9, 0.95):
            lower, upper = post[n:].interval(level).T
            row.append(((lower <= tau[n:]) & (tau[n:] <= upper)).mean())
            lower, upper = average.interval(level)[0]
            row.append(float(lower <= truth <= upper))
        rows.append(row)
    return np.array(rows)


def units(rng):
    X, t = rng.standard_normal((250, 3)), rng.permutation(200) % 2
    tau = rng.standard_normal() + 0.5 * X[:, 0] + 0.5 * (X[:, 1] > 0)
    return X, X[:200, 2] + t * tau[:200] + rng.standard_normal(200), t, None, tau


def villages(rng):
    groups = np.repeat(np.arange(36), 6)
    X = np.column_stack([rng.standard_normal(86)[np.r_[groups, 36:86]], rng.standard_normal((266, 2))])
    t = (rng.permutation(36) % 2)[groups]
    tau = rng.standard_normal() + 0.5 * X[:, 0] + 0.5 * (X[:, 1] > 0)
    y = X[:216, 2] + t * tau[:216] + 0.5 * rng.standard_normal(36)[groups] + rng.standard_normal(216)
    return X, y, t, groups, tau


@pytest.mark.statistical
@pytest.mark.slow
@pytest.mark.parametrize("world", [units, villages], ids=["units", "villages"])
def test_intervals_cover(world):
    shares = covered(world)
    for column, (level, kind) in enumerate((a, b) for a in (0.5, 0.9, 0.95) for b in ("unit", "ATE")):
        error = max(shares[:, column].std(ddof=1), np.sqrt(level * (1 - level))) / np.sqrt(N_TRIALS)
        # 2.6 standard errors (1 in 100); 0.05 for units, whose effects do not come from the prior
        low = level - 2.6 * error - (0.05 if kind == "unit" else 0.0)
        assert shares[:, column].mean() > low, (level, kind, shares[:, column].mean())
        if level == 0.5:
            assert shares[:, column].mean() < 0.8, (level, kind)
