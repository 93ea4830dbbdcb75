"""EconML's estimators under the contract: their estimates and standard errors as they are, clusters, refusals."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

import causalsat
from causalsat import EconMLEffect
from causalsat.exceptions import (
    DataError,
    DataWarning,
    ModelFileError,
    ParameterError,
    TreatmentError,
)

pytest.importorskip("econml")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def trial(n=300, seed=0, *, dose=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 2.0]
    t = X[:, 0] + rng.standard_normal(n) if dose else rng.permutation(n) % 2.0
    tau = 1 + 0.5 * X[:, 0] + 0.05 * X[:, 1]
    return X, t, X[:, 0] + tau * t + rng.standard_normal(n), tau


def linear_dml(**more):
    from econml.dml import LinearDML

    options = {"model_y": LinearRegression(), "model_t": LogisticRegression(), "discrete_treatment": True}
    return LinearDML(**{**options, "random_state": 3, **more})


def linear_dr():
    from econml.dr import LinearDRLearner

    return LinearDRLearner(model_propensity=LogisticRegression(), model_regression=LinearRegression(), random_state=3)


def forest():
    from econml.dml import CausalForestDML

    options = {"model_y": LinearRegression(), "model_t": LogisticRegression(), "discrete_treatment": True}
    return CausalForestDML(**options, n_estimators=40, n_jobs=1, random_state=3)


def t_learner():
    from econml.metalearners import TLearner

    return TLearner(models=LinearRegression())


# ---------------------------------------------------------------------- EconML called directly
@pytest.mark.parametrize("make", [linear_dml, linear_dr, forest, t_learner])
def test_estimates_are_econmls(make):
    X, t, y, _ = trial()
    direct = make()
    direct.fit(y, t, X=X)
    ours = EconMLEffect(make(), n_bootstrap=5).fit(X, y, treatment=t)
    new = X[:50] + 0.3
    np.testing.assert_allclose(ours.predict(new), direct.effect(new), rtol=1e-6)
    assert ours.inference_ == ("bootstrap" if make is t_learner else "own")


@pytest.mark.parametrize("make", [linear_dml, linear_dr, forest])
def test_standard_errors_are_econmls(make):
    X, t, y, _ = trial()
    direct = make()
    direct.fit(y, t, X=X)
    ours = EconMLEffect(make(), n_draws=4000).fit(X, y, treatment=t)
    new = X[:50] + 0.3
    there = direct.effect_inference(new, T0=0.0, T1=1.0)
    post = ours.effect(new)
    np.testing.assert_allclose(post.sd(), there.stderr, rtol=1e-5)
    theirs = np.column_stack(direct.effect_interval(new, T0=0.0, T1=1.0, alpha=0.1))
    assert np.abs(post.interval(0.9) - theirs).max() < 0.15 * there.stderr.max()  # quantiles of 4,000 draws


def test_the_error_of_an_average_is_that_of_a_linear_effect_at_the_mean():
    X, t, y, _ = trial()
    direct = linear_dml()
    direct.fit(y, t, X=X)
    ours = EconMLEffect(linear_dml()).fit(X, y, treatment=t)
    at_mean = direct.effect_inference(X.mean(axis=0, keepdims=True), T0=0.0, T1=1.0).stderr[0]
    assert ours.effect(X).ate().sd()[0] == pytest.approx(at_mean, rel=1e-6)
    assert at_mean < 0.8 * direct.effect_inference(X).stderr.mean()  # which moving all units together would give
    assert "ATE" in str(ours.summary())


def test_units_of_a_forest_move_together_and_it_is_not_saved(tmp_path):
    X, t, y, _ = trial()
    ours = EconMLEffect(forest()).fit(X, y, treatment=t)
    assert ours.curve_ is None
    assert ours.effect(X).ate().sd()[0] == pytest.approx(ours.effect(X).sd().mean(), rel=1e-9)
    with pytest.raises(ModelFileError, match="without pickle"):
        ours.save(tmp_path / "forest.safetensors")


def test_a_linear_effect_is_saved_without_econml(tmp_path):
    X, t, y, _ = trial()
    ours = EconMLEffect(linear_dr()).fit(X, y, treatment=t)
    ours.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.effect(X).draws, ours.effect(X).draws)
    assert again.estimator is None
    assert str(again.summary()) == str(ours.summary())


# ---------------------------------------------------------------------- treatments and columns
def test_a_dose_has_an_effect_of_each_unit_of_it():
    X, t, y, _ = trial(dose=True)
    direct = linear_dml(discrete_treatment=False, model_t=LinearRegression())
    ours = EconMLEffect(direct).fit(X, y, treatment=t)
    direct.fit(y, t, X=X)
    levels = np.linspace(-1, 2, 20)
    post = ours.effect(X[:20], treatment=levels, baseline=0.5)
    np.testing.assert_allclose(post.mean(), direct.effect(X[:20], T0=np.full(20, 0.5), T1=levels), rtol=1e-6)
    assert EconMLEffect().fit(X, y, treatment=t).estimator_name_ == "LinearDML"
    with pytest.raises(TreatmentError, match="takes arms"):
        EconMLEffect(linear_dr()).fit(X, y, treatment=t)


def test_a_bent_dose_response():
    from sklearn.preprocessing import PolynomialFeatures

    X, t, y, _ = trial(dose=True)
    square = PolynomialFeatures(degree=2, include_bias=False)
    direct = linear_dml(discrete_treatment=False, model_t=LinearRegression(), treatment_featurizer=square)
    ours = EconMLEffect(direct, n_draws=50).fit(X, y - 0.5 * t**2, treatment=t)
    direct.fit(y - 0.5 * t**2, t[:, None], X=X)
    post = ours.effect(X[:20], treatment=2.0, baseline=-1.0)
    there = direct.effect_inference(X[:20], T0=-1.0, T1=2.0)
    np.testing.assert_allclose(post.mean(), there.pred.ravel(), rtol=1e-6)
    np.testing.assert_allclose(post.sd(), there.stderr.ravel(), rtol=1e-6)
    np.testing.assert_allclose(ours.effect(X[:20], treatment=-1.0, baseline=2.0).draws, -post.draws)


def test_modifiers_are_x_and_other_columns_are_w():
    X, t, y, _ = trial()
    direct = linear_dml()
    direct.fit(y, t, X=X[:, [1]], W=X[:, [0, 2]])
    ours = EconMLEffect(linear_dml(), modifiers=[1]).fit(X, y, treatment=t)
    np.testing.assert_allclose(ours.predict(X), direct.effect(X[:, [1]]), rtol=1e-6)
    with pytest.raises(ParameterError, match="takes no controls"):
        EconMLEffect(t_learner(), modifiers=[1]).fit(X, y, treatment=t)


# ---------------------------------------------------------------------- clusters and weights
@pytest.mark.parametrize("make", [lambda: linear_dml(cv=5), t_learner])
def test_clusters_are_bootstrapped(make):
    """30 villages of sd 2 and no noise to speak of: the difference of two means of 15 has a standard error of .73."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 10)
    X, t = rng.standard_normal((300, 1)), (np.arange(30) % 2.0)[groups]
    y = t + 2 * rng.standard_normal(30)[groups] + 0.1 * rng.standard_normal(300)
    ours = EconMLEffect(make(), n_bootstrap=60).fit(X, y, treatment=t, groups=groups)
    assert ours.inference_ == "bootstrap"
    means = np.array([y[groups == g].mean() for g in range(30)])
    known = np.sqrt(means[::2].var(ddof=1) / 15 + means[1::2].var(ddof=1) / 15)
    assert 0.7 < ours.effect(X).ate().sd()[0] / known < 1.6  # 60 draws, and as wide again as 30 clusters demand
    again = EconMLEffect(make(), n_bootstrap=60).fit(X, y, treatment=t, groups=groups)
    np.testing.assert_array_equal(again.effect(X).draws, ours.effect(X).draws)


def test_its_own_inference_says_that_it_does_not_know_clusters():
    X, t, y, _ = trial()
    with pytest.warns(DataWarning, match="units of a cluster as independent"):
        EconMLEffect(linear_dml(), inference="own").fit(X, y, treatment=t, groups=np.arange(300) // 3)


def test_weights_are_passed_on():
    X, t, y, _ = trial()
    weight = np.random.default_rng(1).uniform(0.2, 2, 300)
    direct = linear_dml()
    direct.fit(y, t, X=X, sample_weight=weight / weight.mean())
    ours = EconMLEffect(linear_dml()).fit(X, y, treatment=t, sample_weight=weight)
    np.testing.assert_allclose(ours.predict(X), direct.effect(X), rtol=1e-6)
    with pytest.raises(ParameterError, match="takes no weights"):
        EconMLEffect(t_learner()).fit(X, y, treatment=t, sample_weight=weight)


# ---------------------------------------------------------------------- among other estimators
@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_base_of_vluci_and_member_of_a_stack(tmp_path):
    X, t, y, tau = trial()
    vluci = causalsat.VLUCI(EconMLEffect(linear_dr()), n_imputations=2, n_grid=3, prior_confounding=0.02)
    vluci.fit(X, y, treatment=t)
    assert float(vluci.effect(X).ate()) == pytest.approx(tau.mean(), abs=0.5)
    vluci.save(tmp_path / "vluci.safetensors")
    np.testing.assert_array_equal(causalsat.load(tmp_path / "vluci.safetensors").predict(X), vluci.predict(X))
    members = [("econml", EconMLEffect(linear_dr())), ("ours", causalsat.DoublyRobustEffect())]
    stack = causalsat.StackedEffect(members).fit(X, y, treatment=t)
    assert np.corrcoef(stack.predict(X), tau)[0, 1] > 0.8


# ---------------------------------------------------------------------- refusals
def test_what_cannot_be_an_estimator_is_refused():
    from econml.iv.dml import OrthoIV

    X, t, y, _ = trial()
    with pytest.raises(ParameterError, match="fit needs Z"):
        EconMLEffect(OrthoIV()).fit(X, y, treatment=t)
    with pytest.raises(ParameterError, match="an instance"):
        EconMLEffect(type(linear_dml())).fit(X, y, treatment=t)
    with pytest.raises(ParameterError, match="an instance"):
        EconMLEffect(LinearRegression()).fit(X, y, treatment=t)
    with pytest.raises(ParameterError, match="inference="):
        EconMLEffect(inference="robust").fit(X, y, treatment=t)
    with pytest.raises(ParameterError, match="which has none"):
        EconMLEffect(t_learner(), inference="own").fit(X, y, treatment=t)
    with pytest.raises(DataError, match="could not be fitted"):
        EconMLEffect(linear_dr()).fit(X[:3], y[:3], treatment=[0.0, 1.0, 0.0])


# ---------------------------------------------------------------------- coverage
@pytest.mark.statistical
def test_intervals_of_units_and_of_the_average_cover():
    units, average = [], []
    for seed in range(60):
        X, t, y, tau = trial(400, seed)
        post = EconMLEffect(linear_dr()).fit(X, y, treatment=t).effect(X)
        low, high = post.interval(0.9).T
        units.append(np.mean((low <= tau) & (tau <= high)))
        low, high = post.ate().interval(0.9)[0]
        average.append(low <= tau.mean() <= high)
    assert 0.82 < np.mean(units) < 0.97
    assert 0.8 < np.mean(average) < 0.98
