"""Meta-learners: known effects, EconML called directly, the bootstrap of clusters, coverage, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor

import causalsat
from causalsat import DoublyRobustEffect, DRLearnerEffect, RLearnerEffect, TLearnerEffect, XLearnerEffect
from causalsat.estimators.meta import base as meta_base
from causalsat.evaluation import crossfit_nuisances
from causalsat.exceptions import DataError, DataWarning, ModelFileError, ParameterError, TreatmentError
from causalsat.inference.bootstrap import draw_weights, fit_learner, small_sample_factor

ALL = [TLearnerEffect, XLearnerEffect, RLearnerEffect, DRLearnerEffect]
each = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)


def trial(n=600, seed=0, share=2):
    rng = np.random.default_rng(seed)
    X, t = rng.standard_normal((n, 3)), (rng.permutation(n) % share == 0).astype(int)
    tau = 1 + X[:, 0]
    return X, X[:, 1] + t * tau + 0.3 * rng.standard_normal(n), t, tau


@each
def test_a_linear_effect_is_found(kind):
    X, y, t, _ = trial()
    est = kind(n_bootstrap=40).fit(X, y, treatment=t)
    X, _, _, tau = trial(seed=1)
    assert np.sqrt(np.mean((est.predict(X) - tau) ** 2)) < 0.1
    lower, upper = est.effect(X).ate().interval(0.99)[0]
    assert lower < tau.mean() < upper


@each
def test_trees_find_a_step_and_cannot_be_saved(kind, tmp_path):
    rng = np.random.default_rng(0)
    X, t = rng.uniform(-1, 1, (800, 2)), rng.permutation(800) % 2
    y = X[:, 1] + t * 2.0 * (X[:, 0] > 0) + 0.3 * rng.standard_normal(800)
    trees = HistGradientBoostingRegressor(max_iter=30, max_leaf_nodes=4)
    name = "outcome_model" if kind is TLearnerEffect else "final_model"
    est = kind(**{name: trees}, n_bootstrap=4).fit(X, y, treatment=t)
    np.testing.assert_allclose(est.predict([[-0.5, 0.0], [0.5, 0.0]]), [0.0, 2.0], atol=0.5)
    with pytest.raises(ModelFileError, match="cannot be saved without pickle"):
        est.save(tmp_path / "model.safetensors")


def test_a_dose_has_a_linear_effect_in_the_r_learner():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((800, 2))
    dose = X[:, 1] + rng.gamma(2.0, size=800)  # confounded by x1
    y = 2 * X[:, 1] + dose * (1 + X[:, 0]) + 0.3 * rng.standard_normal(800)
    est = RLearnerEffect(n_bootstrap=40).fit(X, y, treatment=dose)
    tau = est.effect([[0.0, 0.0], [1.0, 0.0]], treatment=3.0, baseline=1.0).mean()
    np.testing.assert_allclose(tau, [2.0, 4.0], atol=0.2)
    flat = RLearnerEffect(n_bootstrap=10, propensity_model="constant").fit(X, y, treatment=dose)
    assert abs(flat.predict([[0.0, 0.0]])[0] - 1) > 0.2  # x1 decides the dose, and was not taken out of it
    with pytest.raises(ParameterError, match="propensity"):
        RLearnerEffect(n_bootstrap=5).fit(X, y, treatment=dose, propensity=0.5)
    with pytest.raises(TreatmentError, match="recode"):
        RLearnerEffect(n_bootstrap=5).fit(X, y, treatment=1 + (dose > 2))
    binary = RLearnerEffect(n_bootstrap=5, propensity_model="logistic").fit(X, y, treatment=(dose > 2).astype(int))
    with pytest.raises(ParameterError, match="0 or 1"):
        binary.effect(X, treatment=2.0)


# ---------------------------------------------------------------------- EconML
def confounded(n=1500):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((n, 3))
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-X[:, 1]))).astype(int)
    y = 2 * X[:, 1] + t * (1 + X[:, 0]) + 0.3 * rng.standard_normal(n)
    return X, y, t


class PerArm(BaseEstimator, RegressorMixin):
    """EconML's outcome model sees (X, arm): this fits a line to each arm, as ours does."""

    def fit(self, XT, y):
        self.lines_ = [LinearRegression().fit(XT[XT[:, -1] == a, :-1], y[XT[:, -1] == a]) for a in (0, 1)]
        return self

    def predict(self, XT):
        return np.where(XT[:, -1] == 1, *(self.lines_[a].predict(XT[:, :-1]) for a in (1, 0)))


@pytest.fixture
def without_bootstrap(monkeypatch):
    """Every replicate is the estimate itself."""
    monkeypatch.setattr(meta_base, "draw_weights", lambda rng, groups, treatment, counts: np.ones(len(treatment)))


def test_equals_econml_with_the_same_learners_and_folds(without_bootstrap):
    dml, dr = pytest.importorskip("econml.dml"), pytest.importorskip("econml.dr")
    metalearners = pytest.importorskip("econml.metalearners")
    X, y, t = confounded(600)
    line, odds = LinearRegression(), LogisticRegression()
    new = np.random.default_rng(0).uniform(-1.5, 1.5, (50, 3))
    fold = crossfit_nuisances(X, y, t).fold
    cv = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in np.unique(fold)]
    regression = {"model_regression": PerArm(), "model_propensity": odds, "min_propensity": 1e-6, "cv": cv}
    learners = {"model_y": line, "model_t": odds, "model_final": line, "discrete_treatment": True, "cv": cv}
    theirs = {
        TLearnerEffect: metalearners.TLearner(models=line).fit(y, t, X=X),
        XLearnerEffect: metalearners.XLearner(models=line, propensity_model=odds).fit(y, t, X=X),
        DRLearnerEffect: dr.LinearDRLearner(**regression).fit(y, t, X=X),
        RLearnerEffect: dml.NonParamDML(**learners).fit(y, t, X=X),
    }
    for kind, peer in theirs.items():
        options = {"outcome_model": line, "n_bootstrap": 2}
        if kind is not TLearnerEffect:
            options |= {"final_model": line, "propensity_model": odds}
        if kind in (DRLearnerEffect, RLearnerEffect):
            options |= {"min_propensity": 1e-6}
        ours = kind(**options).fit(X, y, treatment=t).predict(new)
        np.testing.assert_allclose(ours, np.ravel(peer.effect(new)), rtol=1e-6, atol=1e-8, err_msg=str(kind))


def test_average_effects_and_errors_are_those_of_statsmodels():
    te = pytest.importorskip("statsmodels.treatment.treatment_effects")
    sm = pytest.importorskip("statsmodels.api")
    X, y, t = confounded(800)
    design = sm.add_constant(X)
    chosen = sm.Probit(t, design).fit(disp=False)
    theirs = te.TreatmentEffect(sm.OLS(y, design), t, results_select=chosen)
    adjusted, robust = theirs.ra(), theirs.aipw()
    (ate, error), (robust_ate, robust_error) = ((float(f.effect[0]), float(f.sd[0])) for f in (adjusted, robust))
    line = LinearRegression()
    ours = TLearnerEffect(outcome_model=line, n_bootstrap=200).fit(X, y, treatment=t).effect(X).ate()
    # the mean over replicates is within a few hundredths of an error of the estimate
    assert abs(float(ours) - ate) < 0.3 * error
    # our draws keep the units' features as they are: less than theirs by the variance of the effect over n
    inside = error**2 - 1.0 / len(y)
    assert 0.8 < ours.sd()[0] / np.sqrt(inside) < 1.25
    scores = DRLearnerEffect(outcome_model=line, propensity_model="logistic", n_bootstrap=2).fit(X, y, treatment=t)
    assert abs(scores.scores_.mean() - robust_ate) < 0.5 * robust_error  # cross-fitted; logit for probit


def test_agrees_with_econml_for_a_dose():
    dml = pytest.importorskip("econml.dml")
    X, y, _ = confounded()
    rng = np.random.default_rng(0)
    dose = X[:, 1] + rng.standard_normal(len(X))
    y = X[:, 1] + dose * (1 + X[:, 0]) + 0.3 * rng.standard_normal(len(X))
    line = LinearRegression()
    peer = dml.LinearDML(model_y=line, model_t=line, cv=5, random_state=0).fit(y, dose, X=X)
    ours = RLearnerEffect(outcome_model=line, final_model=line, propensity_model=line, n_bootstrap=100)
    ours.fit(X, y, treatment=dose)
    new = rng.uniform(-1.5, 1.5, (50, 3))
    np.testing.assert_allclose(ours.predict(new), np.ravel(peer.effect(new)), atol=0.1)
    ratio = ours.effect(new).sd() / np.ravel(peer.effect_inference(new).stderr)
    assert 0.75 < np.median(ratio) < 1.35


# ---------------------------------------------------------------------- bootstrap
def clustered(seed=0, villages=60, size=6):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(villages), size)
    X = np.column_stack([rng.standard_normal(villages)[groups], rng.standard_normal((len(groups), 2))])
    t = (rng.permutation(villages) % 2)[groups]
    tau = 1 + 0.5 * X[:, 0] + 0.5 * X[:, 1]
    noise = 0.5 * rng.standard_normal(villages)[groups] + rng.standard_normal(len(groups))
    return X, X[:, 2] + t * tau + noise, t, groups, tau


@each
def test_standard_errors_are_those_of_cluster_robust_inference(kind):
    X, y, t, groups, _ = clustered(1)
    robust = DoublyRobustEffect().fit(X, y, treatment=t, groups=groups).ate_.se
    ours = kind(n_bootstrap=80).fit(X, y, treatment=t, groups=groups).effect(X).ate().sd()[0]
    assert 0.7 < ours / robust < 1.35  # 80 replicates: a relative error of 8 %


def test_few_clusters_widen_the_draws_and_leave_their_mean(monkeypatch):
    X, y, t, groups, _ = clustered(villages=30)
    narrow = TLearnerEffect(n_bootstrap=10, lack_of_fit=0)
    with monkeypatch.context() as patch:
        patch.setattr(meta_base, "small_sample_factor", lambda n_clusters, n_features: 1.0)
        narrow.fit(X, y, treatment=t, groups=groups)
    wide = TLearnerEffect(n_bootstrap=10, lack_of_fit=0).fit(X, y, treatment=t, groups=groups)
    np.testing.assert_allclose(wide.predict(X), narrow.predict(X), rtol=1e-9)
    factor = np.sqrt(30 / 22) * 1.717 / 1.645  # 8 coefficients; Student's t with 22 degrees of freedom
    np.testing.assert_allclose(wide.effect(X).sd() / narrow.effect(X).sd(), factor, rtol=1e-3)


@each
def test_the_order_of_rows_and_the_names_of_clusters_move_nothing(kind):
    X, y, t, groups, _ = clustered()
    X[:, 2] = X[:, 2] > 0  # many clusters have the same total
    new = np.random.default_rng(1).standard_normal((20, 3))
    rng = np.random.default_rng(2)
    within = np.concatenate([rng.permutation(np.flatnonzero(groups == k)) for k in range(groups.max() + 1)])
    anyhow, renamed = rng.permutation(len(y)), rng.permutation(1000)[groups]
    forest = RandomForestRegressor(5, random_state=0)  # its own draws follow the order of rows
    for model in (kind(n_bootstrap=5), kind(forest, n_bootstrap=3)):
        draws = model.fit(X, y, treatment=t, groups=groups).effect(new).draws
        per_unit = {k: v for k, v in vars(model).items() if k.endswith("_") and np.shape(v) == (len(y),)}
        for rows, labels in ((within, groups), (anyhow, groups), (np.arange(len(y)), renamed)):
            model.fit(X[rows], y[rows], treatment=t[rows], groups=labels[rows])
            np.testing.assert_array_equal(model.effect(new).draws, draws)
            for name, values in per_unit.items():
                np.testing.assert_array_equal(getattr(model, name), values[rows])
    alone = kind(n_bootstrap=5).fit(X, y, treatment=t).effect(new).draws
    np.testing.assert_array_equal(
        kind(n_bootstrap=5).fit(X[anyhow], y[anyhow], treatment=t[anyhow]).effect(new).draws, alone
    )


@each
def test_swapped_arms_change_the_sign(kind):
    X, y, t, groups, _ = clustered()
    one = kind(n_bootstrap=20, lack_of_fit=0).fit(X, y, treatment=t, groups=groups).effect(X).draws
    other = kind(n_bootstrap=20, lack_of_fit=0).fit(X, y, treatment=1 - t, groups=groups).effect(X).draws
    np.testing.assert_allclose(other, -one, rtol=1e-6, atol=1e-8)


@each
def test_an_arm_in_one_cluster_is_refused(kind):
    """Nothing says how much clusters differ: the standard deviation was .01 where 1.4 was right."""
    X, y, t, groups, _ = clustered(villages=12)
    options = {} if kind in (TLearnerEffect, XLearnerEffect) else {"n_splits": 2}
    for labels in (t, np.where(t == 1, 0, groups + 1), np.where(t == 0, 0, groups + 1)):
        with pytest.raises(DataError, match="1 cluster"):
            kind(n_bootstrap=2, **options).fit(X, y, treatment=t, groups=labels)
    kind(n_bootstrap=2, **options).fit(X, y, treatment=t, groups=2 * t + np.arange(len(y)) % 2)  # two in each arm


def test_a_dose_in_one_cluster_is_refused():
    X, y, *_ = trial(60)
    with pytest.raises(DataError, match="1 cluster"):
        RLearnerEffect(n_bootstrap=2).fit(X, y, treatment=np.linspace(0, 1, 60), groups=np.zeros(60))


def test_the_smaller_arm_decides_how_wide_intervals_are():
    factor = small_sample_factor
    assert factor((20, 20), 4) == pytest.approx(np.sqrt(40 / 30) * 1.6973 / 1.6449, rel=1e-4)  # t with 30 df
    assert factor((3, 37), 4) == pytest.approx(factor((37, 3), 4))
    assert factor((37, 3), 4) > 1.9  # sqrt(2) for three clusters, then t with some two degrees of freedom
    assert factor((5000, 5000), 4) == pytest.approx(1, abs=2e-3)


def test_clusters_that_hold_most_units_count_as_the_few_that_they_are():
    """20 villages an arm, of which one weighs as much as the 19 others: 38^2 / (19^2 + 19) = 3.8 of equal weight."""
    X, y, t, groups, _ = clustered(villages=40)
    size = np.bincount(groups)
    large = [np.flatnonzero(np.bincount(groups, t * (t == arm) + (1 - arm) * (t == 0)) > 0)[0] for arm in (0, 1)]
    weight = np.where(np.isin(groups, large), 19.0 / size[groups], 1.0 / size[groups])
    equal = TLearnerEffect(n_bootstrap=4).fit(X, y, treatment=t, groups=groups)
    uneven = TLearnerEffect(n_bootstrap=4).fit(X, y, treatment=t, groups=groups, sample_weight=weight)
    n = [len(np.unique(groups[t == arm])) for arm in (0, 1)]
    effective = [(19 + k - 1) ** 2 / (19**2 + k - 1) for k in n]
    assert equal.widening_ == pytest.approx(small_sample_factor(n, X.shape[1]), rel=0.1)
    assert uneven.widening_ == pytest.approx(small_sample_factor(effective, X.shape[1]))
    assert uneven.widening_ > 1.5 * equal.widening_


@pytest.mark.statistical
@pytest.mark.slow
@pytest.mark.parametrize("arms", [(2, 2), (20, 4)])
def test_intervals_cover_where_one_arm_has_few_clusters(arms):
    """Without regard to the smaller arm 90 % intervals covered 62 to 80 %."""
    inside = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        groups, t = np.repeat(np.arange(sum(arms)), 10), np.repeat(np.arange(sum(arms)) >= arms[0], 10).astype(float)
        X = rng.standard_normal((sum(arms), 1))[groups] + 0.5 * rng.standard_normal((len(t), 1))
        noise = rng.standard_normal(sum(arms))[groups] + rng.standard_normal(len(t))
        y = X[:, 0] + t * (1 + 0.5 * X[:, 0]) + noise
        model = TLearnerEffect(LinearRegression(), 40, 0, random_state=seed)
        draws = model.fit(X, y, treatment=t, groups=groups).ate_draws_
        low, high = np.quantile(draws, [0.05, 0.95])
        inside.append(low < 1 + 0.5 * X.mean() < high)
    assert 0.8 <= np.mean(inside) <= 1  # 40 trials: a standard error of 5 %


@pytest.mark.parametrize("counts", [True, False])
def test_bootstrap_weights_belong_to_clusters(counts):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 3)
    t = (groups < 4).astype(float)
    drawn = np.array([draw_weights(rng, groups, t, counts=counts) for _ in range(2000)])
    np.testing.assert_array_equal(drawn[:, ::3], drawn[:, 2::3])
    by_cluster = drawn[:, ::3]
    np.testing.assert_allclose(by_cluster.sum(axis=1), 10)
    np.testing.assert_allclose(by_cluster.mean(axis=0), 1, atol=0.12)
    if counts:  # drawn within arms: neither is ever lost
        np.testing.assert_array_equal(by_cluster[:, :4].sum(axis=1), 4)
        assert by_cluster.var(axis=0)[5] == pytest.approx(1 - 1 / 6, abs=0.12)
    else:  # Dirichlet(1, ..., 1) times the number of clusters
        assert by_cluster.var() == pytest.approx(9 / 11, abs=0.1)


def test_learners_without_weights_are_refitted_to_copies_of_clusters():
    X, y, t, groups, _ = clustered()
    est = TLearnerEffect(outcome_model=KNeighborsRegressor(15), n_bootstrap=20)
    est.fit(X, y, treatment=t, groups=groups)
    assert "copies" in str(est.summary())
    assert 0.5 < float(est.effect(X).ate()) < 1.5
    with pytest.warns(DataWarning, match="no sample_weight"):
        est.fit(X, y, treatment=t, sample_weight=np.ones(len(y)))
    with pytest.raises(ParameterError, match="sample_weight"):
        RLearnerEffect(final_model=KNeighborsRegressor()).fit(X, y, treatment=t)


def test_copies_and_weights_are_the_same_to_a_linear_learner():
    X, y, *_ = trial(50)
    count = np.random.default_rng(0).integers(0, 4, 50).astype(float)
    one, two = (fit_learner(LinearRegression(), X, y, count, counts=c).coef_ for c in (True, False))
    np.testing.assert_allclose(one, two, rtol=1e-8)


# ---------------------------------------------------------------------- options
def test_x_learner_blends_by_the_propensity():
    X, y, t, _ = trial(share=6)
    constant = XLearnerEffect(n_bootstrap=5).fit(X, y, treatment=t)
    assert constant.blend_ == pytest.approx(1 / 6)
    known = XLearnerEffect(n_bootstrap=5).fit(X, y, treatment=t, propensity=0.25)
    assert known.blend_ == 0.25
    learnt = XLearnerEffect(n_bootstrap=5, propensity_model="logistic").fit(X, y, treatment=t)
    assert learnt.blend_model_ is not None
    with pytest.raises(ParameterError, match="propensity_model"):
        XLearnerEffect(propensity_model="forest").fit(X, y, treatment=t)


@pytest.mark.parametrize("kind", [RLearnerEffect, DRLearnerEffect], ids=lambda kind: kind.__name__)
def test_modifiers_alone_move_the_effect(kind):
    X, y, t, _ = trial(200)
    est = kind(modifiers=[0], n_bootstrap=5).fit(X, y, treatment=t)
    moved = X + np.array([0.0, 50.0, -50.0])
    np.testing.assert_array_equal(est.predict(moved), est.predict(X))


@pytest.mark.parametrize("kind", [RLearnerEffect, DRLearnerEffect], ids=lambda kind: kind.__name__)
def test_confounding_is_adjusted_for_by_the_propensity(kind):
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (1500, 2))
    e = 1 / (1 + np.exp(-1.5 * X[:, 0]))
    t = (rng.uniform(size=1500) < e).astype(int)
    y = np.exp(X[:, 0]) + t + 0.3 * rng.standard_normal(1500)  # no linear outcome model is right
    known = kind(n_bootstrap=20).fit(X, y, treatment=t, propensity=e).effect(X).ate()
    assert abs(float(known) - 1) < 0.25


@each
def test_wrong_parameters_and_lost_arms_are_refused(kind):
    X, y, t, _ = trial(60)
    with pytest.raises(ParameterError, match="n_bootstrap"):
        kind(n_bootstrap=1).fit(X, y, treatment=t)
    with pytest.raises(DataError, match="an arm of 2 units"):
        kind(n_bootstrap=3).fit(X, y, treatment=np.arange(60) < 2)


def test_random_forests_work_as_final_learners():
    X, y, t, tau = trial(400)
    final = RandomForestRegressor(20, min_samples_leaf=20, random_state=0)
    est = RLearnerEffect(final_model=final, n_bootstrap=3).fit(X, y, treatment=t)
    assert np.corrcoef(est.predict(X), tau)[0, 1] > 0.8


# ---------------------------------------------------------------------- coverage
N_TRIALS, N_BOOTSTRAP = 40, 50


@pytest.mark.statistical
@pytest.mark.slow
@each
def test_intervals_cover(kind):
    """Unpenalised learners, whose bias is none: the bootstrap is what is tested."""
    line = LinearRegression()
    options = {"outcome_model": line} | ({} if kind is TLearnerEffect else {"final_model": line})
    rows = []
    for seed in range(N_TRIALS):
        X, y, t, groups, tau = clustered(100 + seed)
        est = kind(**options, n_bootstrap=N_BOOTSTRAP, random_state=seed).fit(X, y, treatment=t, groups=groups)
        post = est.effect(X)
        row = []
        for level in (0.5, 0.9, 0.95):
            lower, upper = post.interval(level).T
            row.append(((lower <= tau) & (tau <= upper)).mean())
            lower, upper = post.ate().interval(level)[0]
            row.append(float(lower <= tau.mean() <= upper))
        rows.append(row)
    shares = np.array(rows)
    for column, level in enumerate(np.repeat([0.5, 0.9, 0.95], 2)):
        error = max(shares[:, column].std(ddof=1), np.sqrt(level * (1 - level)) / 2) / np.sqrt(N_TRIALS)
        # three standard errors of the simulation, and 0.03: 30 clusters an arm, 50 replicates
        assert abs(shares[:, column].mean() - level) < 3 * error + 0.03, (column, level, shares.mean(axis=0))


def test_they_are_public():
    assert {kind.__name__ for kind in ALL} <= set(causalsat.__all__)
