"""Stacked effects: weights against independent solutions, recovery of the right member, honest mixing."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import causalsat
from causalsat import BayesianLinearEffect, DoublyRobustEffect, StackedEffect
from causalsat.base import EffectEstimator
from causalsat.exceptions import DataWarning, ParameterError, TreatmentError
from causalsat.inference import stacking
from causalsat.inference.nuisances import r_score

LINEAR = {"n_draws": 60, "n_tune": 60, "n_chains": 2, "random_state": 0}
N_TRIALS = 20
quiet = pytest.mark.filterwarnings("ignore::causalsat.exceptions.ConvergenceWarning")


class Fixed(EffectEstimator):
    """A member that knows its effects: a + b x0, with a posterior sd; it counts the units it was fitted to."""

    _contract_parameters: ClassVar[dict[str, Any]] = {}

    def __init__(self, constant=1.0, slope=0.0, sd=0.1, level=0.0, n_draws=400):
        self.constant, self.slope, self.sd, self.level, self.n_draws = constant, slope, sd, level, n_draws

    def _fit(self, data):
        self.seen_ = np.unique(data.groups) if data.groups is not None else None
        self.roles_ = [data.weighted, data.propensity is not None, data.groups is not None]
        self.n_missing_ = int(data.X.shape[1]) - self.n_features_in_

    def _effect_draws(self, X, treatment, baseline):
        noise = np.linspace(-1.7, 1.7, self.n_draws)[:, None]
        return (treatment - baseline) * (self.constant + self.slope * X[:, 0] + self.sd * noise)


class FixedOutcome(Fixed):
    """The same with outcomes: level + t * effect."""

    def predict_outcome(self, X, *, treatment=1.0):
        from causalsat import EffectPosterior

        design, _ = self._check_predict(X)
        t = np.full(len(design), float(treatment)) if np.ndim(treatment) == 0 else np.asarray(treatment)
        return EffectPosterior(self.level + self._effect_draws(design, t, 0 * t), kind="outcome")


def trial(n_clusters=60, size=10, seed=0, slope=1.0, noise=1.0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_clusters), size)
    n = len(groups)
    X = rng.standard_normal((n, 3))
    t = (rng.permutation(n_clusters) % 2)[groups]
    tau = 1 + slope * X[:, 0]
    y = X[:, 1] + t * tau + 0.3 * rng.standard_normal(n_clusters)[groups] + noise * rng.standard_normal(n)
    return X, y, t, groups, tau


# ---------------------------------------------------------------------- the weights as functions on arrays
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10_000))
def test_quadratic_weights_equal_the_best_of_all_supports(k, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((k + 3, k)) + rng.standard_normal(k)
    M = A.T @ A
    best, best_loss = None, np.inf
    for support in range(1, 2**k):  # on each support the minimum under the sum constraint has a closed form
        on = [j for j in range(k) if support >> j & 1]
        z = np.linalg.solve(M[np.ix_(on, on)], np.ones(len(on)))
        if (z >= 0).all():
            a = np.zeros(k)
            a[on] = z / z.sum()
            if a @ M @ a < best_loss:
                best, best_loss = a, a @ M @ a
    found = stacking.simplex_quadratic(M)
    np.testing.assert_allclose(found @ M @ found, best_loss, rtol=1e-6)
    np.testing.assert_allclose(found, best, atol=1e-4)


def test_equal_members_share_and_no_loss_gives_equal_weights():
    np.testing.assert_allclose(stacking.simplex_quadratic(np.ones((3, 3))), 1 / 3, atol=1e-6)
    np.testing.assert_array_equal(stacking.simplex_quadratic(np.zeros((4, 4))), 0.25)


def test_log_score_weights_equal_expectation_maximisation():
    rng = np.random.default_rng(0)
    log_p, w = rng.normal(0, 2, (300, 4)) - [0, 0.5, 2, 0.2], rng.uniform(0.2, 3, 300)
    found = stacking.log_score_weights(log_p, w, np.arange(300), n_bootstrap=0, rng=rng).weights
    a = np.full(4, 0.25)
    for _ in range(20_000):
        p = np.exp(log_p) * a
        a = np.average(p / p.sum(axis=1, keepdims=True), axis=0, weights=w)
    np.testing.assert_allclose(found, a, atol=1e-4)


def test_predictive_density_finds_the_noise_of_each_arm():
    rng = np.random.default_rng(0)
    arm = np.arange(40_000) % 2
    variance = np.full(40_000, 0.5)
    sd = np.sqrt(0.5 + np.where(arm, 4.0, 1.0))
    y = sd * rng.standard_normal(40_000)
    log_p = stacking.predictive_log_density(y, 0 * y, variance, arm, np.ones(40_000), binary=False)
    np.testing.assert_allclose(log_p, -0.5 * (np.log(2 * np.pi * sd**2) + y**2 / sd**2), atol=0.15)
    p = np.array([0.2, 0.8])
    found = stacking.predictive_log_density(np.array([1.0, 0.0]), p, p, np.zeros(2, int), np.ones(2), binary=True)
    np.testing.assert_allclose(np.exp(found), [0.2, 0.2])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(2, 500))
def test_counts_are_within_one_of_proportional_and_sum(raw, n_draws):
    weights = (np.array(raw) + 1e-3) / (np.array(raw) + 1e-3).sum()
    counts = stacking.mixture_counts(weights, n_draws)
    assert counts.sum() == n_draws
    assert (np.abs(counts - weights * n_draws) <= 1 + 1e-6).all()


def test_bootstrap_weighs_whole_clusters():
    rng = np.random.default_rng(0)
    error = rng.standard_normal((40, 2))
    once = stacking.r_loss_weights(
        error, np.zeros(40), np.ones(40), np.ones(40), np.arange(40), n_bootstrap=200, rng=rng
    )
    many = np.repeat(np.arange(40), 25)  # the same clusters, each unit 25 times: no more information
    copies = stacking.r_loss_weights(
        error[many], np.zeros(1000), np.ones(1000), np.ones(1000), many, n_bootstrap=200, rng=np.random.default_rng(1)
    )
    np.testing.assert_allclose(once.optimum, copies.optimum, atol=1e-6)
    np.testing.assert_allclose(once.sd, copies.sd, rtol=0.3)


# ---------------------------------------------------------------------- the estimator
def test_the_right_member_gets_the_weight_and_the_posterior_is_its_own():
    X, y, t, groups, tau = trial()
    members = [("right", Fixed(1.0, 1.0)), ("wrong", Fixed(1.0, -1.0)), ("constant", Fixed(1.0, 0.0))]
    est = StackedEffect(members).fit(X, y, treatment=t, groups=groups)
    assert est.weights_[0] > 0.85
    assert est.weights_[1] < 0.05
    assert est.weights_.sum() == pytest.approx(1)
    assert np.sqrt(np.mean((est.predict(X) - tau) ** 2)) < 0.2
    assert est.criterion_[0] > est.criterion_[2] > est.criterion_[1]


def test_halfway_between_two_members_is_found():
    X, y, t, groups, _ = trial(n_clusters=200, slope=1.0, noise=0.3)
    est = StackedEffect([("flat", Fixed(1.0, 0.0)), ("steep", Fixed(1.0, 2.0))]).fit(X, y, treatment=t, groups=groups)
    np.testing.assert_allclose(est.weights_, 0.5, atol=0.05)
    np.testing.assert_allclose(est.predict(X), 1 + 2 * est.counts_[1] / 1000 * X[:, 0], atol=1e-3)


def test_posterior_is_the_mixture_of_the_members_draws():
    X, y, t, groups, _ = trial(slope=0.0)
    members = [("low", Fixed(0.0, sd=0.1)), ("high", Fixed(2.0, sd=0.1))]
    est = StackedEffect(members).fit(X, y, treatment=t, groups=groups)
    share = est.weights_[1]
    draws = est.effect(X).draws
    assert np.mean(draws > 1) == pytest.approx(share, abs=1e-3)
    between = 4 * share * (1 - share)
    np.testing.assert_allclose(draws.var(axis=0), between + draws[: est.counts_[0]].var(axis=0), rtol=0.02)


def test_no_unit_is_predicted_by_a_model_that_saw_its_cluster():
    seen = []

    class Spy(Fixed):
        def _fit(self, data):
            super()._fit(data)
            seen.append({tuple(row) for row in data.X.round(9)})

        def effect(self, X, **options):
            asked.append(({tuple(row) for row in np.asarray(X).round(9)}, seen[-1]))
            return super().effect(X, **options)

    asked: list = []
    X, y, t, groups, _ = trial()
    X[:, 2] = groups
    est = StackedEffect([("spy", Spy())], cv=3).fit(X, y, treatment=t, groups=groups)
    for test, train in asked[:3]:
        assert not {row[2] for row in test} & {row[2] for row in train}
    assert sum(len(test) for test, _ in asked[:3]) == len(X)
    assert est.weights_ == pytest.approx([1.0])
    assert [len(rows) for rows in seen[:3]] == [400, 400, 400]
    assert len(seen[-1]) == 600  # at last all units


@quiet
def test_out_of_sample_the_stack_is_no_worse_than_its_best_member():
    losses = []
    for seed in range(3):
        X, y, t, groups, _ = trial(seed=seed)
        new = trial(n_clusters=200, seed=100 + seed)
        members = [("a", DoublyRobustEffect(modifiers=[0])), ("b", DoublyRobustEffect(modifiers=[2]))]
        members += [("c", BayesianLinearEffect(**LINEAR))]
        est = StackedEffect(members, cv=3).fit(X, y, treatment=t, groups=groups)
        residuals = new[1] - new[0][:, 1] - 0.5 * new[4], new[2] - 0.5  # the true nuisances
        scores = [r_score(m.predict(new[0]), *residuals) for m in est.members_.values()]
        losses.append(max(scores) - r_score(est.predict(new[0]), *residuals))
    assert np.mean(losses) < 0.01
    assert max(losses) < 0.03


def test_without_heterogeneity_the_weights_stay_calm():
    noisy = [(f"noise{j}", DoublyRobustEffect(modifiers=[j], regularisation=None)) for j in range(3)]
    constant, spread = [], []
    for seed in range(4):
        X, y, t, groups, _ = trial(slope=0.0, seed=seed)
        est = StackedEffect([*noisy, ("constant", Fixed(1.0))]).fit(X, y, treatment=t, groups=groups)
        constant.append(est.weights_[3])
        members = [est.members_[name].predict(X).std() for name, _ in noisy]
        spread.append([est.predict(X).std(), np.mean(members)])
        assert est.weights_.min() >= 0
        assert est.weights_.sum() == pytest.approx(1)
    assert np.mean(constant) > 0.3  # more than an equal share
    stack, alone = np.mean(spread, axis=0)
    assert stack < alone  # no more false heterogeneity than a member's own


def test_averaged_weights_vary_less_than_the_optimum():
    averaged, optimum = [], []
    for seed in range(12):
        X, y, t, groups, _ = trial(slope=0.0, seed=seed, n_clusters=30)
        est = StackedEffect([("up", Fixed(1.0, 0.2)), ("down", Fixed(1.0, -0.2))]).fit(
            X, y, treatment=t, groups=groups
        )
        averaged.append(est.weights_[0])
        optimum.append(est.optimum_[0])
    assert np.std(averaged) < 0.9 * np.std(optimum)
    assert abs(np.mean(averaged) - 0.5) < 0.2


def test_bayesian_stacking_goes_by_the_outcomes():
    X, y, t, groups, _ = trial(slope=0.0)
    y = y - X[:, 1] + 5
    members = [("right", FixedOutcome(1.0, level=5.0)), ("off", FixedOutcome(1.0, level=2.0))]
    est = StackedEffect(members, method="stacking").fit(X, y, treatment=t, groups=groups)
    assert est.method_ == "stacking"
    assert est.weights_[0] > 0.9
    assert est.criterion_[0] > est.criterion_[1]
    np.testing.assert_allclose(est.predict_outcome(X, treatment=0.0).mean(), 5, atol=0.4)
    contrast = est.predict_outcome(X) - est.predict_outcome(X, treatment=0.0)
    np.testing.assert_allclose(contrast.draws, est.effect(X).draws, atol=1e-9)


def test_binary_outcomes_are_stacked_by_their_probabilities():
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((800, 2)), np.arange(800) % 2
    y = (rng.uniform(size=800) < 0.2 + 0.5 * t).astype(float)
    members = [("right", FixedOutcome(0.5, sd=0.01, level=0.2)), ("off", FixedOutcome(0.1, sd=0.01, level=0.5))]
    est = StackedEffect(members, method="stacking").fit(X, y, treatment=t)
    assert est.weights_[0] > 0.9
    p = np.where(t, 0.7, 0.2)
    assert est.criterion_[0] == pytest.approx(np.mean(np.where(y > 0, np.log(p), np.log(1 - p))), abs=0.01)


def test_without_densities_the_r_loss_is_used_and_said():
    X, y, t, groups, _ = trial()
    with pytest.warns(DataWarning, match="effects lacks"):
        est = StackedEffect([("out", FixedOutcome()), ("effects", Fixed())], method="stacking").fit(
            X, y, treatment=t, groups=groups
        )
    assert est.method_ == "r_loss"
    assert not hasattr(est, "predict_outcome")
    assert hasattr(StackedEffect([("out", FixedOutcome())]), "predict_outcome")


def test_roles_and_missing_values_reach_the_members_as_they_came():
    X, y, t, groups, _ = trial()
    X[::9, 1] = np.nan
    est = StackedEffect([("m", Fixed())]).fit(
        X, y, treatment=t, groups=groups, sample_weight=np.ones(len(y)), propensity=0.5
    )
    member = est.members_["m"]
    assert member.roles_ == [True, True, True]
    assert member.n_missing_ == 1  # the member made its own indicator
    assert member.design_names_ == est.design_names_
    bare = StackedEffect([("m", Fixed())]).fit(X, y, treatment=t)
    assert bare.members_["m"].roles_ == [False, False, False]


def test_a_column_seen_in_one_fold_only_does_not_stop_the_fit():
    X, y, t, groups, _ = trial()
    X[groups != 0, 2] = np.nan
    est = StackedEffect([("m", Fixed(1.0, 1.0)), ("n", DoublyRobustEffect())]).fit(X, y, treatment=t, groups=groups)
    assert np.isfinite(est.predict(X)).all()


def test_members_may_be_pipelines_and_choose_modifiers_by_name(tmp_path):
    X, y, t, groups, tau = trial()
    frame = pd.DataFrame(X, columns=["img0", "age", "img1"])
    members = [
        ("scaled", make_pipeline(StandardScaler(), DoublyRobustEffect())),
        ("named", DoublyRobustEffect(modifiers="img*")),
    ]
    est = StackedEffect(members, n_draws=200).fit(frame, y, treatment=t, groups=groups)
    assert np.corrcoef(est.predict(frame), tau)[0, 1] > 0.95
    est.save(tmp_path / "stack.safetensors")
    again = causalsat.load(tmp_path / "stack.safetensors")
    np.testing.assert_array_equal(again.effect(frame).draws, est.effect(frame).draws)
    assert est.get_params()["named__modifiers"] == "img*"
    assert est.set_params(named__modifiers=None).estimators[1][1].modifiers is None


@pytest.mark.parametrize("routing", [True, False])
def test_works_as_the_last_step_of_a_pipeline(routing):
    X, y, t, groups, tau = trial()
    inner = make_pipeline(StandardScaler(), DoublyRobustEffect())
    model = make_pipeline(StandardScaler(), StackedEffect([("a", inner), ("b", Fixed())], cv=2))
    prefix = "" if routing else "stackedeffect__"
    with sklearn.config_context(enable_metadata_routing=routing):
        model.fit(X, y, **{f"{prefix}treatment": t, f"{prefix}groups": groups})
    assert np.corrcoef(causalsat.effect(model, X).mean(), tau)[0, 1] > 0.9
    assert causalsat.support(model, X).shape == (600,)


@quiet
def test_default_members_and_summary():
    X, y, t, groups, tau = trial(n_clusters=30)
    est = StackedEffect(n_bootstrap=20, cv=2).set_params(random_state=1).fit(X, y, treatment=t, groups=groups)
    assert list(est.members_) == ["bayesian_linear", "gaussian_process"]
    assert np.corrcoef(est.predict(X), tau)[0, 1] > 0.95
    table = est.summary().table
    assert list(table.index) == ["bayesian_linear", "gaussian_process", "stack"]
    assert table.loc["stack", "ATE"] == pytest.approx(float(est.effect(X).ate()), abs=1e-6)


@quiet
def test_the_default_stack_bends_where_the_effect_does():
    """The linear members cover half of what they promise of a sine; the weights go to the member that bends."""
    rng = np.random.default_rng(3)
    X, t = rng.standard_normal((400, 2)), rng.permutation(400) % 2
    tau = 1.4 * np.sin(2 * X[:, 0])
    est = StackedEffect(cv=3).fit(X, X[:, 1] + t * tau + rng.standard_normal(400), treatment=t)
    weight = dict(zip(est.members_, est.weights_, strict=True))
    assert weight["gaussian_process"] > 0.75
    low, high = np.quantile(est.effect(X).draws, [0.05, 0.95], axis=0)
    assert np.mean((low < tau) & (tau < high)) > 0.8
    error = {name: np.std(model.predict(X) - tau) for name, model in {**est.members_, "stack": est}.items()}
    assert error["stack"] < 1.15 * error["gaussian_process"] < 0.5 * error["bayesian_linear"]


@pytest.mark.statistical
@pytest.mark.slow
def test_intervals_of_a_stack_cover():
    """Members that each miss a modifier: the mixture must hold their disagreement."""
    shares = []
    for seed in range(N_TRIALS):
        rng = np.random.default_rng(seed)
        X, village = rng.standard_normal((360, 3)), np.repeat(np.arange(60), 6)
        t = (rng.permutation(60) % 2)[village]
        tau = 1 + 0.5 * X[:, 0] + 0.25 * X[:, 1]
        y = X[:, 2] + t * tau + 0.3 * rng.standard_normal(60)[village] + rng.standard_normal(360)
        members = [("both", DoublyRobustEffect(n_splits=3)), ("one", DoublyRobustEffect(n_splits=3, modifiers=[0]))]
        est = StackedEffect(members, cv=3, n_bootstrap=20, random_state=seed).fit(X, y, treatment=t, groups=village)
        post = est.effect(X)
        row = []
        for level in (0.5, 0.9, 0.95):
            lower, upper = post.interval(level).T
            row.append(((lower <= tau) & (tau <= upper)).mean())
            lower, upper = post.ate().interval(level)[0]
            row.append(float(lower <= tau.mean() <= upper))
        shares.append(row)
    found = np.array(shares)
    for column, level in enumerate(np.repeat([0.5, 0.9, 0.95], 2)):
        error = max(found[:, column].std(ddof=1), np.sqrt(level * (1 - level)) / 2) / np.sqrt(N_TRIALS)
        # three standard errors of the simulation; 0.05: the second member is wrong where x1 matters
        assert found[:, column].mean() > level - 3 * error - 0.05, (column, level, found.mean(axis=0))


# ---------------------------------------------------------------------- doses
class FixedDose(FixedOutcome):
    """The same for doses."""

    _binary_treatment: ClassVar[bool] = False


def dose_trial(seed=0, n_clusters=80, size=8):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_clusters), size)
    n = len(groups)
    X = rng.standard_normal((n, 3))
    dose = 2 + 0.7 * X[:, 1] + rng.standard_normal(n)  # confounded by x1
    tau = 1 + X[:, 0]
    y = 2 * X[:, 1] + dose * tau + 0.3 * rng.standard_normal(n_clusters)[groups] + rng.standard_normal(n)
    return X, y, dose, groups, tau


@pytest.mark.parametrize("method", ["r_loss", "stacking"])
def test_the_right_member_for_a_dose_gets_the_weight(method):
    X, y, dose, groups, tau = dose_trial()
    if method == "stacking":
        y = y - 2 * X[:, 1]
    members = [("right", FixedDose(1.0, 1.0)), ("wrong", FixedDose(1.0, -1.0)), ("constant", FixedDose(1.0, 0.0))]
    est = StackedEffect(members, method=method).fit(X, y, treatment=dose, groups=groups)
    assert est.weights_[0] > 0.85
    assert est.criterion_[0] > est.criterion_[2] > est.criterion_[1]
    np.testing.assert_allclose(est.effect(X, treatment=4.0, baseline=2.0).mean(), 2 * tau, atol=0.6)
    again = est.effect(X, treatment=dose, baseline=dose - 1).draws
    np.testing.assert_allclose(again, est.effect(X).draws, atol=1e-9)  # linear members


@quiet
def test_a_dose_with_the_default_members():
    X, y, dose, groups, tau = dose_trial()
    est = StackedEffect(cv=2, n_bootstrap=20).fit(X, y, treatment=dose, groups=groups)
    assert list(est.members_) == ["bayesian_linear", "r_learner"]
    assert np.sqrt(np.mean((est.predict(X) - tau) ** 2)) < 0.2
    lower, upper = est.effect(X).interval(0.9).T
    assert np.mean((lower <= tau) & (tau <= upper)) > 0.75


def test_members_for_binary_treatments_refuse_a_dose_by_name():
    X, y, dose, groups, _ = dose_trial()
    members = [("a", FixedDose()), ("robust", DoublyRobustEffect())]
    with pytest.raises(TreatmentError, match=r"'robust' take binary treatments only.*\n*.*RLearnerEffect"):
        StackedEffect(members).fit(X, y, treatment=dose, groups=groups)
    with pytest.raises(TreatmentError, match="recode"):
        StackedEffect([("a", FixedDose())]).fit(X, y, treatment=1 + (dose > 2), groups=groups)
    with pytest.raises(ParameterError, match="propensity"):
        StackedEffect([("a", FixedDose())]).fit(X, y, treatment=dose, groups=groups, propensity=0.5)


def test_a_stack_fitted_to_a_binary_treatment_knows_no_doses():
    X, y, t, groups, _ = trial()
    est = StackedEffect([("a", FixedDose())], cv=2).fit(X, y, treatment=t, groups=groups)
    with pytest.raises(ParameterError, match="0 or 1"):
        est.effect(X, treatment=2.0)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([], "estimators=\\[\\]"),
        ("dr", "estimators='dr'"),
        ([("a", DoublyRobustEffect()), ("a", Fixed())], "two members named 'a'"),
        ([("cv", DoublyRobustEffect())], "member named 'cv'"),
        ([("a__b", DoublyRobustEffect())], "a__b"),
        ([("a", StandardScaler())], "is a StandardScaler"),
        ([("a", DoublyRobustEffect)], "is a DoublyRobustEffect"),
    ],
)
def test_bad_members_get_a_clear_error(members, says):
    X, y, t, groups, _ = trial()
    with pytest.raises(ParameterError, match=says):
        StackedEffect(members).fit(X, y, treatment=t, groups=groups)


@pytest.mark.parametrize("bad", [{"method": "bma"}, {"cv": 1}, {"n_draws": 1}, {"n_bootstrap": -1}, {"cv": True}])
def test_bad_parameters_get_a_clear_error(bad):
    X, y, t, groups, _ = trial()
    with pytest.raises(ParameterError, match=next(iter(bad))):
        StackedEffect([("a", Fixed())], **bad).fit(X, y, treatment=t, groups=groups)


def test_a_member_that_fails_is_named():
    X, y, t, groups, _ = trial(n_clusters=10)
    with pytest.raises(
        causalsat.exceptions.DataError, match=r"member 'many' could not be fitted to 80 of 100.*folds"
    ):
        StackedEffect([("many", DoublyRobustEffect(n_splits=5))], cv=5).fit(X, y, treatment=t, groups=groups)
