"""Several arms: values, the covariance of statsmodels, additivity, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from causalsat import ArmsEffect, BayesianLinearEffect, DoublyRobustEffect, Study, best_arm, load
from causalsat.evaluation import arm_effects
from causalsat.exceptions import ParameterError, TreatmentError

ARMS = np.array(["control", "cash", "training"])


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    village = np.repeat(np.arange(90), 10)
    arm = rng.permutation(90)[village] % 3
    X = rng.standard_normal((90, 2))[village]
    effect = np.select([arm == 1, arm == 2], [1 + X[:, 0], np.full(900, 2.0)], 0.0)
    y = X[:, 1] + effect + 0.3 * rng.standard_normal(90)[village] + rng.standard_normal(900)
    return pd.DataFrame(X, columns=["a", "b"]), y, ARMS[arm], village


@pytest.fixture(scope="module")
def model(world):
    X, y, arm, village = world
    return ArmsEffect(random_state=0).fit(X, y, treatment=arm, groups=village)


def test_without_covariates_it_is_hc2_of_a_regression_on_the_arms(world):
    _, y, arm, _ = world
    found = arm_effects(y, arm, control="control")
    dummies = np.column_stack([np.ones(900), arm == "cash", arm == "training"]).astype(float)
    fit = sm.OLS(y, dummies).fit(cov_type="HC2")
    np.testing.assert_allclose([found.contrast(a)["estimate"] for a in ARMS[1:]], fit.params[1:], atol=1e-10)
    np.testing.assert_allclose([found.contrast(a)["se"] for a in ARMS[1:]], fit.bse[1:], rtol=1e-10)
    by_hand = fit.wald_test(np.eye(3)[1:], use_f=True, scalar=True)
    assert found.wald()[0] == pytest.approx(float(by_hand.statistic), rel=1e-9)
    between = fit.t_test([0, -1, 1])
    assert found.contrast("training", "cash")["se"] == pytest.approx(float(between.sd.item()), rel=1e-9)


def test_the_clustered_standard_error_is_that_of_village_means(world):
    """Villages of equal size: the variance of the difference of village means, by arm."""
    _, y, arm, village = world
    found = arm_effects(y, arm, control="control", groups=village)
    means = pd.DataFrame({"y": y, "arm": arm, "v": village}).groupby(["arm", "v"])["y"].mean()
    variance = {a: means[a].var() / len(means[a]) for a in ARMS}
    assert found.contrast("cash")["se"] == pytest.approx(np.sqrt(variance["cash"] + variance["control"]), rel=1e-9)


def test_effects_are_antisymmetric_and_add_up(world, model):
    X = world[0]
    of = {(a, b): model.effect(X, treatment=a, baseline=b).draws for a in ARMS for b in ARMS}
    np.testing.assert_array_equal(of["cash", "control"], -of["control", "cash"])
    total = of["cash", "training"] + of["training", "control"]
    np.testing.assert_allclose(of["cash", "control"], total, atol=1e-14)
    assert (of["cash", "cash"] == 0).all()


def test_truth_lies_in_the_intervals_and_the_best_arm_is_found(world, model):
    X, _, _, _ = world
    for arm, truth in (("cash", 1 + X["a"].to_numpy()), ("training", np.full(900, 2.0))):
        found = model.effect(X, treatment=arm)
        inside = found.interval(0.9)
        assert np.mean((inside[:, 0] < truth) & (truth < inside[:, 1])) > 0.75
    best = best_arm(model, pd.DataFrame({"a": [3.0, -3.0], "b": [0.0, 0.0]}))
    assert best.arm.tolist() == ["cash", "training"]
    np.testing.assert_allclose(best.probabilities.sum(axis=1), 1.0)
    assert best_arm(model, X[:5], higher_is_better=False).arm.tolist() == ["control"] * 5


def test_another_control_and_other_names_change_nothing_else(world, model):
    X, y, arm, village = world
    names = {"control": "z9", "cash": "b", "training": "a"}
    other = ArmsEffect(control="z9", random_state=0).fit(
        X, y, treatment=np.array([names[a] for a in arm]), groups=village
    )
    first, second = model.comparison_.contrast("cash"), other.comparison_.contrast("b")
    assert first["estimate"] == pytest.approx(second["estimate"], rel=0.02)
    assert first["se"] == pytest.approx(second["se"], rel=0.05)


def test_a_saved_model_gives_the_same_effects(world, model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(
        again.effect(world[0], treatment="cash", baseline="training").draws,
        model.effect(world[0], treatment="cash", baseline="training").draws,
    )


def test_what_is_no_arm_is_refused(world, model):
    X, y, arm, _ = world
    with pytest.raises(ParameterError, match=r"one of the arms 'control', 'cash', 'training'"):
        model.effect(X, treatment="goats")
    with pytest.raises(ParameterError, match="name two arms"):
        model.predict(X)
    with pytest.raises(TreatmentError, match="none of which is known as control"):
        ArmsEffect().fit(X, y, treatment=np.where(arm == "control", "none given", arm))
    with pytest.raises(TreatmentError, match="dose"):
        arm_effects(y, np.linspace(0, 1, 900), control=0)
    with pytest.raises(TreatmentError, match="lack an arm"):
        arm_effects(y, arm, control="control", strata=np.where(arm == "cash", 1, 0))


def test_strata_are_no_effects():
    """Shares of arms that differ between strata with other levels: the averages stay right, and are precise."""
    rng = np.random.default_rng(1)
    stratum = np.repeat([0, 1], 600)
    arm = np.concatenate([np.repeat([0, 1, 2], [400, 100, 100]), np.repeat([0, 1, 2], [100, 100, 400])])
    y = 50.0 * stratum + np.array([0.0, 1.0, 3.0])[arm] + rng.standard_normal(1200)
    found = arm_effects(y, ARMS[arm], control="control", strata=stratum).contrast("training")
    assert found["estimate"] == pytest.approx(3.0, abs=0.25)
    assert found["se"] < 0.15


def table(world):
    X, y, arm, village = world
    return X.assign(y=y, arm=arm, village=village, lon=32.0 + village / 100, lat=1.0)


def test_a_study_of_arms_goes_to_estimators_of_arms_only(world):
    study = Study(
        table(world), outcome="y", treatment="arm", control="control", cluster="village", covariates=["a", "b"],
        lon="lon", lat="lat",
    )  # fmt: skip
    assert study.arms == {0: "control", 1: "cash", 2: "training"}
    np.testing.assert_array_equal(ARMS[study.treatment.astype(int)], world[2])
    assert "3 arms" in repr(study)
    assert study.check(imagery=False).ok
    for kind in (DoublyRobustEffect(), BayesianLinearEffect()):
        with pytest.raises(TreatmentError, match="ArmsEffect"):
            study.fit(kind)
    fitted = study.fit(ArmsEffect(random_state=0))
    assert fitted.arms_ == ("control", "cash", "training")
    codes = table(world).assign(arm=np.searchsorted(np.sort(ARMS), world[2]))
    coded = Study(codes, outcome="y", treatment="arm", control=1, lon="lon", lat="lat")
    assert coded.arms == {0: "1", 1: "0", 2: "2"}
    np.testing.assert_array_equal(coded.treatment, study.treatment)


def test_one_propensity_for_three_arms_is_an_error_of_the_check(world):
    study = Study(table(world), outcome="y", treatment="arm", control="control", propensity=0.5, lon="lon", lat="lat")
    assert "one propensity for 3 arms" in str(study.check(imagery=False))
