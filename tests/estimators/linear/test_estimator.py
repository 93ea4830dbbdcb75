"""BayesianLinearEffect from known effects: values first, then what happens with awkward data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import causalsat
from causalsat import BayesianLinearEffect
from causalsat.estimators.linear import fit as linear_fit
from causalsat.exceptions import ConvergenceWarning, DataError, ParameterError, TreatmentError
from causalsat.inference.chains import Settings, convergence_problems

QUICK = {"n_draws": 200, "n_tune": 200, "n_chains": 2, "random_state": 0}
# Monte Carlo error of a posterior mean from 400 draws is at most sd / sqrt(100): tolerances below are in these sds
quiet = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")
pytestmark = quiet


def trial(n=600, n_groups=120, *, beta=(0.6, 0.0, 0.0), mixed=False, seed=0, dose=False, group_sd=0.4):
    """Effect 1 + m'beta of three place-level modifiers and one covariate without effect on it."""
    rng = np.random.default_rng(seed)
    groups = np.r_[np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)]
    M = rng.standard_normal((n_groups, 3))[groups]
    X = np.column_stack([M, rng.standard_normal(n)])
    t = rng.integers(0, 2, n) if mixed else rng.permutation(np.arange(n_groups) % 2)[groups]
    t = rng.uniform(0, 3, n) if dose else t.astype(float)
    tau = 1.0 + M @ np.asarray(beta)
    y = 2.0 + 0.5 * X[:, 3] + t * tau + group_sd * rng.standard_normal(n_groups)[groups] + rng.standard_normal(n)
    return X, y, t, groups, tau


def new_places(beta=(0.6, 0.0, 0.0), n=200, seed=9):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4))
    return X, 1.0 + X[:, :3] @ np.asarray(beta)


# ---------------------------------------------------------------------- values
@pytest.mark.parametrize("prior", ["normal", "horseshoe"])
@pytest.mark.parametrize("mixed", [False, True])
def test_recovers_the_known_effect_at_new_places(prior, mixed):
    X, y, t, groups, _ = trial(n=900, n_groups=150, mixed=mixed)
    est = BayesianLinearEffect(modifiers=[0, 1, 2], prior=prior, **QUICK).fit(X, y, treatment=t, groups=groups)
    new, tau = new_places()
    post = est.effect(new)
    # standard errors are 0.10 for the ATE and each interaction, so the error of a place is 0.2 without shrinkage
    assert np.corrcoef(post.mean(), tau)[0, 1] > 0.93
    assert np.abs(post.mean() - tau).mean() < 0.25
    ate = est.draws_["ate"]
    assert abs(ate.mean() - 1.0) < 3 * ate.std()
    assert est.has_group_slopes_ == mixed


def test_scales_are_recovered_in_the_outcomes_units():
    X, y, t, groups, _ = trial(n=2000, n_groups=200, mixed=True)
    y = 100.0 * (y + np.random.default_rng(1).standard_normal(len(y)) * 1.2 * t)
    est = BayesianLinearEffect(modifiers=[0, 1, 2], **QUICK).fit(X, y, treatment=t, groups=groups)
    np.testing.assert_allclose(est.draws_["noise"].mean(axis=0), [100, 156.2], rtol=0.06)
    assert abs(est.draws_["group_sd"].mean() - 40) < 15
    np.testing.assert_allclose(est.draws_["interaction"].mean(axis=0), [60, 0, 0], atol=20)
    np.testing.assert_allclose(est.draws_["main"].mean(axis=0)[3], 50, atol=10)


def test_noise_and_ate_keep_to_the_outcomes_shift_and_scale():
    X, y, t, groups, _ = trial()
    first = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t, groups=groups)
    second = BayesianLinearEffect(**QUICK).fit(X, 5.0 + 1000.0 * y, treatment=t, groups=groups)
    np.testing.assert_allclose(second.predict(X), 1000.0 * first.predict(X), rtol=0.1, atol=60)


@pytest.mark.parametrize("prior", ["normal", "horseshoe"])
def test_without_heterogeneity_the_effect_is_nearly_constant(prior):
    X, y, t, groups, _ = trial(n=1800, n_groups=200, beta=(0, 0, 0))
    est = BayesianLinearEffect(modifiers=[0, 1, 2], prior=prior, **QUICK).fit(X, y, treatment=t, groups=groups)
    new, _ = new_places()
    post = est.effect(new)
    Z, tc = (X - X.mean(axis=0)) / X.std(axis=0), t - t.mean()
    design = np.column_stack([np.ones(len(y)), Z, tc, tc[:, None] * Z[:, :3]])
    least_squares = np.linalg.lstsq(design, y, rcond=None)[0][6:]
    assert post.mean().std() < 0.65 * np.linalg.norm(least_squares)
    assert post.mean().std() < 0.12
    inside = (post.interval(0.98)[:, 0] < 1) & (post.interval(0.98)[:, 1] > 1)
    assert inside.mean() > 0.95


def test_ate_has_the_cluster_robust_standard_error():
    sm = pytest.importorskip("statsmodels.api")
    ratios = []
    for seed in range(4):
        X, y, t, groups, _ = trial(n=900, n_groups=120, beta=(0, 0, 0), group_sd=0.8, seed=seed)
        est = BayesianLinearEffect(modifiers=[0], **QUICK).fit(X, y, treatment=t, groups=groups)
        ols = sm.OLS(y, sm.add_constant(np.column_stack([t, X]))).fit(cov_type="cluster", cov_kwds={"groups": groups})
        naive = sm.OLS(y, sm.add_constant(np.column_stack([t, X]))).fit()
        ratios.append(est.draws_["ate"].std() / ols.bse[1])
        assert est.draws_["ate"].std() > 1.4 * naive.bse[1]
        assert abs(est.draws_["ate"].mean() - ols.params[1]) < ols.bse[1]
    # the sandwich itself scatters by about 8 % with 120 clusters, and the model weighs villages better than OLS
    assert 0.8 < np.mean(ratios) < 1.15


def test_village_slopes_widen_what_modifiers_of_places_can_claim():
    rng = np.random.default_rng(3)
    n_groups, n = 60, 1800
    groups = np.repeat(np.arange(n_groups), n // n_groups)
    M = rng.standard_normal(n_groups)
    t = rng.integers(0, 2, n).astype(float)
    y = t * (1 + rng.standard_normal(n_groups)[groups]) + rng.standard_normal(n)
    X = M[groups][:, None]
    with_slopes = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t, groups=groups)
    without = BayesianLinearEffect(group_slopes=False, **QUICK).fit(X, y, treatment=t, groups=groups)
    assert abs(with_slopes.draws_["slope_sd"].mean() - 1.0) < 0.25
    assert with_slopes.draws_["ate"].std() > 2 * without.draws_["ate"].std()
    assert "slope_sd" not in without.draws_


def test_strong_data_agree_with_interacted_least_squares_and_double_ml():
    sm = pytest.importorskip("statsmodels.api")
    X, y, t, _, _ = trial(n=3000, n_groups=3000, beta=(0.6, -0.3, 0.1), mixed=True, group_sd=0)
    est = BayesianLinearEffect(modifiers=[0, 1, 2], prior="normal", **QUICK).fit(X, y, treatment=t)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    tc = t - t.mean()
    design = sm.add_constant(np.column_stack([Z, tc, tc[:, None] * Z[:, :3]]))
    ols = sm.OLS(y, design).fit()
    bayes = np.r_[est.draws_["ate"].mean(), est.draws_["interaction"].mean(axis=0)]
    np.testing.assert_allclose(bayes, ols.params[5:], atol=0.2 * ols.bse[5:].max())
    spread = np.r_[est.draws_["ate"].std(), est.draws_["interaction"].std(axis=0)]
    np.testing.assert_allclose(spread, ols.bse[5:], rtol=0.12)
    dml = pytest.importorskip("econml.dml")
    from sklearn.linear_model import LinearRegression, LogisticRegression

    peer = dml.LinearDML(
        model_y=LinearRegression(), model_t=LogisticRegression(), discrete_treatment=True, random_state=0
    ).fit(y, t, X=X[:, :3], W=X[:, 3:])
    # both are least squares in large samples; they differ by cross-fitting, of the order of half a standard error
    np.testing.assert_allclose(est.predict(X), peer.effect(X[:, :3]), atol=0.08)


def test_a_dose_has_an_effect_in_proportion():
    X, y, t, groups, _ = trial(dose=True)
    est = BayesianLinearEffect(modifiers=[0, 1, 2], **QUICK).fit(X, y, treatment=t, groups=groups)
    new, tau = new_places()
    assert np.abs(est.predict(new) - tau).mean() < 0.2
    assert est.draws_["noise"].shape[1] == 1
    double = est.effect(new, treatment=2.5, baseline=0.5)
    np.testing.assert_allclose(double.draws, 2.0 * est.effect(new).draws, rtol=1e-10)
    each = est.effect(new, treatment=np.linspace(0, 3, len(new)))
    np.testing.assert_allclose(each.draws[:, -1], 3.0 * est.effect(new).draws[:, -1])


@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
def test_outcomes_differ_by_the_effect(family):
    X, y, t, groups, _ = trial()
    y = (y > 2.5).astype(float) if family == "bernoulli" else y
    est = BayesianLinearEffect(family=family, **QUICK).fit(X, y, treatment=t, groups=groups)
    one, zero = (est.predict_outcome(X, treatment=a) for a in (1.0, 0.0))
    np.testing.assert_allclose((one - zero).draws, est.effect(X).draws, atol=1e-10)
    assert one.kind == "outcome"
    assert abs(one.mean()[t == 1].mean() - y[t == 1].mean()) < 0.1 * y.std() + 0.05
    if family == "bernoulli":
        assert one.draws.min() >= 0
        assert one.draws.max() <= 1


def test_binary_outcome_agrees_with_logit_and_g_computation():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(5)
    n = 2500
    X, t = rng.standard_normal((n, 2)), rng.integers(0, 2, n).astype(float)
    y = (rng.random(n) < 1 / (1 + np.exp(-(-0.5 + 0.7 * X[:, 1] + t * (0.8 + 0.6 * X[:, 0]))))).astype(float)
    options = {**QUICK, "n_draws": 500}  # the spread of the effect is compared to 15 %
    est = BayesianLinearEffect(family="bernoulli", modifiers=[0], **options).fit(X, y, treatment=t)

    def design(level):
        return np.column_stack([np.ones(n), X, level, level * X[:, 0]])

    logit = sm.Logit(y, design(t)).fit(disp=0)
    difference = logit.predict(design(np.ones(n))) - logit.predict(design(np.zeros(n)))
    assert abs(est.draws_["ate"].mean() - difference.mean()) < 0.003
    assert np.abs(est.predict(X) - difference).max() < 0.03
    draws = rng.multivariate_normal(logit.params, logit.cov_params(), 2000)
    by_delta = np.std(
        [
            (1 / (1 + np.exp(-design(np.ones(n)) @ b)) - 1 / (1 + np.exp(-design(np.zeros(n)) @ b))).mean()
            for b in draws[:400]
        ]
    )
    assert abs(est.draws_["ate"].std() / by_delta - 1) < 0.15
    table = est.summary().table  # average and spread in probabilities, coefficients in logits
    assert table.loc["sd of effects", "mean"] == pytest.approx(difference.std(), abs=0.015)
    assert table.loc["sd of effects (logit)", "mean"] == pytest.approx(abs(logit.params[-1]) * X[:, 0].std(), abs=0.1)
    assert table.loc["treatment x x0 (logit)", "mean"] == pytest.approx(logit.params[-1], abs=0.1)
    assert "in the outcome's units, others in the logit" in str(est.summary())


def test_risk_differences_average_over_villages():
    """With strong villages the risk difference is the population's, not that of a village at zero."""
    rng = np.random.default_rng(6)
    n_groups, size = 120, 15
    groups = np.repeat(np.arange(n_groups), size)
    t = rng.integers(0, 2, n_groups * size).astype(float)
    eta = -1.0 + 2.0 * t + 2.0 * rng.standard_normal(n_groups)[groups]
    y = (rng.random(len(t)) < 1 / (1 + np.exp(-eta))).astype(float)
    X = rng.standard_normal((len(t), 1))
    est = BayesianLinearEffect(family="bernoulli", **QUICK).fit(X, y, treatment=t, groups=groups)
    u = 2.0 * rng.standard_normal(400_000)
    truth = (1 / (1 + np.exp(-(1 + u))) - 1 / (1 + np.exp(-(-1 + u)))).mean()  # 0.30; a village at zero has 0.46
    assert abs(est.draws_["ate"].mean() - truth) < 3 * est.draws_["ate"].std()
    assert est.draws_["ate"].std() < 0.035


def test_a_known_propensity_removes_confounding_that_covariates_do_not_show():
    rng = np.random.default_rng(7)
    n = 3000
    X = rng.standard_normal((n, 2))
    e = np.where(rng.random(n) < 0.5, 0.2, 0.8)  # strata that are not in X
    t = (rng.random(n) < e).astype(float)
    y = t + 4.0 * (e > 0.5) + rng.standard_normal(n)
    plain = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t)
    known = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t, propensity=e)
    assert plain.draws_["ate"].mean() > 2
    assert abs(known.draws_["ate"].mean() - 1.0) < 0.15
    assert known.predict_outcome(X).draws.shape == (400, n)


def test_weights_move_the_effect_to_the_weighted_population():
    rng = np.random.default_rng(8)
    n = 4000
    rich = (rng.random(n) < 0.5).astype(float)
    t = rng.integers(0, 2, n).astype(float)
    y = t * (1 + 2 * rich) + 0.5 * rng.standard_normal(n)
    X = rng.standard_normal((n, 1))
    weight = np.where(rich == 1, 1.0, 3.0)  # the population is 1/4 rich: ATE 1.5, the sample's is 2
    est = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t, sample_weight=weight)
    assert abs(est.draws_["ate"].mean() - 1.5) < 0.1
    assert abs(BayesianLinearEffect(**QUICK).fit(X, y, treatment=t).draws_["ate"].mean() - 2.0) < 0.1


# ---------------------------------------------------------------------- the contract's corners
def test_same_seed_same_draws_and_row_order_does_not_matter():
    X, y, t, groups, _ = trial()
    est = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t, groups=groups)
    again = clone(est).fit(X, y, treatment=t, groups=groups)
    np.testing.assert_array_equal(est.effect(X).draws, again.effect(X).draws)
    other = clone(est).set_params(random_state=1).fit(X, y, treatment=t, groups=groups)
    assert not np.array_equal(est.draws_["ate"], other.draws_["ate"])
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = clone(est).fit(X[order], y[order], treatment=t[order], groups=groups[order])
    gap = np.abs(shuffled.predict(X) - est.predict(X))
    assert (gap < 0.35 * est.effect(X).sd()).all()  # Monte Carlo error only


@pytest.mark.parametrize(
    "bad",
    [
        {"prior": "lasso"},
        {"family": "poisson"},
        {"sampler": 3},
        {"n_draws": 0},
        {"n_tune": 2.5},
        {"n_chains": True},
        {"group_slopes": "yes"},
        {"group_effects": 1},
    ],
)
def test_bad_parameters(bad):
    X, y, t, groups, _ = trial(n=150)
    with pytest.raises(ParameterError, match=next(iter(bad))):
        BayesianLinearEffect(**bad).fit(X, y, treatment=t, groups=groups)


def test_bernoulli_refuses_other_outcomes():
    X, y, t, groups, _ = trial(n=150)
    with pytest.raises(DataError, match="bernoulli"):
        BayesianLinearEffect(family="bernoulli", **QUICK).fit(X, y, treatment=t, groups=groups)


def test_two_levels_must_be_zero_and_one():
    X, y, t, groups, _ = trial(n=150)
    with pytest.raises(TreatmentError, match=r"recode it: \(treatment == 2\)"):
        BayesianLinearEffect(**QUICK).fit(X, y, treatment=t + 1, groups=groups)


def test_effects_depend_on_modifiers_only():
    X, y, t, groups, _ = trial(n=300)
    table = pd.DataFrame(X, columns=["img0", "img1", "img2", "age"])
    est = BayesianLinearEffect(modifiers="img*", **QUICK).fit(table, y, treatment=t, groups=groups)
    older = table.assign(age=table["age"] + 10)
    np.testing.assert_array_equal(est.effect(older).draws, est.effect(table).draws)
    np.testing.assert_array_equal(est.support(older), est.support(table))
    far = table.assign(img0=table["img0"] + 30)
    assert est.support(far).max() < 0.05
    assert (est.effect(far).sd() > 3 * est.effect(table).sd()).all()
    constant = BayesianLinearEffect(modifiers=[], **QUICK).fit(table, y, treatment=t, groups=groups)
    assert np.ptp(constant.predict(table)) == 0


def test_ordered_features_are_shrunken_by_their_rank():
    rng = np.random.default_rng(2)
    n, j = 400, 12
    X = rng.standard_normal((n, j))
    t = rng.integers(0, 2, n).astype(float)
    y = t * (1 + 0.5 * X[:, 0]) + rng.standard_normal(n)
    options = {**QUICK, "prior": "normal", "modifiers": list(range(j))}
    plain = BayesianLinearEffect(**options).fit(X, y, treatment=t)
    ordered = BayesianLinearEffect(ordered=list(range(j)), **options).fit(X, y, treatment=t)
    backwards = BayesianLinearEffect(ordered=list(range(j))[::-1], **options).fit(X, y, treatment=t)
    np.testing.assert_allclose(ordered.prior_scale_, 1 / np.arange(1, j + 1))
    np.testing.assert_allclose(backwards.prior_scale_, ordered.prior_scale_[::-1])
    truth = 1 + 0.5 * X[:, 0]
    error = [np.sqrt(np.mean((est.predict(X) - truth) ** 2)) for est in (ordered, plain, backwards)]
    assert error[0] < error[1] < error[2]
    assert ordered.draws_["interaction"][:, -1].std() < 0.6 * plain.draws_["interaction"][:, -1].std()


def test_works_at_the_end_of_a_pipeline():
    X, y, t, groups, _ = trial(n=300)
    pipe = make_pipeline(StandardScaler(), BayesianLinearEffect(**QUICK))
    pipe.fit(X, y, bayesianlineareffect__treatment=t, bayesianlineareffect__groups=groups)
    np.testing.assert_allclose(pipe.predict(X), causalsat.effect(pipe, X).mean())


def test_state_is_arrays_and_survives_a_file(tmp_path):
    X, y, t, groups, _ = trial(n=200)
    est = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t, groups=groups)
    assert all(isinstance(v, np.ndarray) for v in est.draws_.values())
    est.save(tmp_path / "model.safetensors")
    loaded = causalsat.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.effect(X).draws, est.effect(X).draws)
    assert str(loaded.summary()) == str(est.summary())


@pytest.mark.parametrize("prior", ["normal", "horseshoe"])
def test_tiny_wide_collinear_and_constant_designs(prior):
    rng = np.random.default_rng(0)
    t = np.tile([0.0, 1.0], 10)
    y = 3.0 * t + 0.1 * rng.standard_normal(20)
    wide = rng.standard_normal((20, 30))
    twin = np.column_stack([wide[:, 0], wide[:, 0], np.full(20, 7.0)])
    for X in (wide, twin, wide[:, :1]):
        est = BayesianLinearEffect(prior=prior, **QUICK).fit(X, y, treatment=t)
        assert abs(est.draws_["ate"].mean() - 3.0) < 0.3
        assert np.isfinite(est.effect(X * 5).draws).all()
    six = BayesianLinearEffect(prior=prior, **QUICK).fit(wide[:6, :2], y[:6], treatment=t[:6])
    assert np.isfinite(six.predict(wide[:, :2])).all()


def test_a_constant_column_has_no_part_even_where_it_varies_later():
    X, y, t, groups, _ = trial(n=300)
    X[:, 1] = 4.0
    est = BayesianLinearEffect(**QUICK).fit(X, y, treatment=t, groups=groups)
    moved = X.copy()
    moved[:, 1] = 1000.0
    np.testing.assert_array_equal(est.effect(moved).draws, est.effect(X).draws)


def test_wide_designs_keep_prior_uncertainty_outside_the_span_of_the_data():
    rng = np.random.default_rng(1)
    basis = rng.standard_normal((3, 12))
    X = rng.standard_normal((200, 3)) @ basis  # twelve collinear latents of rank three
    t = rng.integers(0, 2, 200).astype(float)
    y = t * (1 + X[:, 0]) + rng.standard_normal(200)
    est = BayesianLinearEffect(prior="normal", **QUICK).fit(X, y, treatment=t)
    inside = est.effect(X[:1]).sd()[0]
    away = np.linalg.svd(basis)[2][3:4] * np.linalg.norm(X[0])
    assert est.effect(X[:1] + away).sd()[0] > 1.5 * inside


def test_constant_outcome_has_no_effect():
    X, _, t, groups, _ = trial(n=200)
    est = BayesianLinearEffect(**QUICK).fit(X, np.full(200, 5.0), treatment=t, groups=groups)
    assert np.abs(est.predict(X)).max() < 0.01
    assert est.predict_outcome(X).mean() == pytest.approx(np.full(200, 5.0), abs=0.01)


# ---------------------------------------------------------------------- diagnostics
def test_summary_shows_effects_scales_and_diagnostics():
    X, y, t, groups, _ = trial(mixed=True)
    table = pd.DataFrame(X, columns=["img0", "img1", "img2", "age"])
    est = BayesianLinearEffect(modifiers="img*", random_state=0).fit(table, y, treatment=t, groups=groups)
    summary = est.summary()
    assert summary.table.loc["ATE", "mean"] == pytest.approx(est.draws_["ate"].mean())
    assert summary.table.loc["treatment x img0", "P>0"] > 0.99
    assert summary.table.loc["treatment x img0", "[0.05"] < 0.6 < summary.table.loc["treatment x img0", "0.95]"]
    for row in ("sd of villages", "sd of village effects on treatment", "noise sd, control", "noise sd, treated"):
        assert summary.table.loc[row, "mean"] > 0
    text = str(summary)
    assert all(word in text for word in ("r_hat", "ess", "divergences", "sampler", "img0"))
    post = est.effect(table)
    assert post.diagnostics["r_hat"] < 1.03
    assert post.diagnostics["ess"] > 200
    assert post.diagnostics["n_chains"] == 4


def test_chains_that_disagree_are_reported():
    rng, settings = np.random.default_rng(0), Settings(1000, 0, 4, 0)
    slow = {
        "ate": rng.standard_normal(4000),
        "group_sd": np.abs(rng.standard_normal(4000) + np.repeat([0, 0, 0, 3], 1000)),
    }
    result = linear_fit.diagnose(slow, settings, divergences=50)  # a village scale is held to the same limits
    assert result["r_hat"] > 1.1
    assert [p.split(" ")[0] for p in convergence_problems(result)] == ["R-hat", "effective", "50"]
    good = linear_fit.diagnose({"ate": rng.standard_normal(4000)}, settings)
    assert convergence_problems(good) == []
    assert 0.99 < good["r_hat"] < 1.01
    assert good["ess"] > 2500


@pytest.mark.filterwarnings("default::causalsat.exceptions.ConvergenceWarning")
def test_advice_is_what_is_not_set_already():
    X, y, t, _, _ = trial(n=150)
    options = {"n_draws": 20, "n_tune": 50, "random_state": 0}
    with pytest.warns(ConvergenceWarning, match=r"effective sample size .*, or use prior='normal'\.$") as caught:
        BayesianLinearEffect(**options).fit(X, y, treatment=t)
    assert caught[0].filename == __file__
    with pytest.warns(ConvergenceWarning, match=r"What to do: raise n_tune and n_draws\.$"):
        BayesianLinearEffect(prior="normal", **options).fit(X, y, treatment=t)


# ---------------------------------------------------------------------- the reference
@pytest.mark.slow
def test_fast_sampler_agrees_with_pymc_and_pymc_compiles_once():
    from causalsat.estimators.linear import model as linear_model

    options = {**QUICK, "n_draws": 700, "n_chains": 3, "prior": "horseshoe", "modifiers": [0, 1, 2]}
    X, y, t, groups, _ = trial(n=400, n_groups=60, mixed=True)
    linear_model._compiled.cache_clear()
    fast = BayesianLinearEffect(**options).fit(X, y, treatment=t, groups=groups)
    slow = BayesianLinearEffect(**options, sampler="pymc").fit(X, y, treatment=t, groups=groups)
    # posterior means within 0.15 posterior sd (Monte Carlo error with about 300 effective draws each: 0.08)
    for name in ("ate", "main", "interaction", "noise", "group_sd", "slope_sd"):
        a, b = fast.draws_[name], slow.draws_[name]
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 0.2 * b.std(axis=0)).all(), name
        np.testing.assert_allclose(a.std(axis=0), b.std(axis=0), rtol=0.2)
    np.testing.assert_allclose(fast.draws_["ate"].std(), slow.draws_["ate"].std(), rtol=0.1)
    np.testing.assert_allclose(fast.effect(X).sd(), slow.effect(X).sd(), rtol=0.15)
    part = groups < 50  # a fold: other units, other villages, no second compilation
    clone(slow).set_params(n_draws=50, n_tune=50).fit(X[part], y[part], treatment=t[part], groups=groups[part])
    assert linear_model._compiled.cache_info().misses == 1
