"""Labelled inputs: the same numbers whatever the order of their rows, or a refusal, never a silent mix-up."""

from __future__ import annotations

import inspect

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from causalsat import DoublyRobustEffect, Study
from causalsat.core.inputs import align, align_all, align_rows, labels_of
from causalsat.design import make_design
from causalsat.evaluation import (
    blp,
    conformal_outcome_intervals,
    crossfit_effects,
    gates,
    overlap,
    permutation_test,
    priority_test,
    rate,
)
from causalsat.exceptions import DataError
from causalsat.inference.nuisances import crossfit_nuisances
from causalsat.posterior import EffectPosterior

VILLAGES = pd.Index([f"v{i:03d}" for i in range(240)])


def trial(index: pd.Index = VILLAGES) -> pd.DataFrame:
    """A trial with effect 1.5 whose outcome also follows x; labels are those of the units."""
    rng = np.random.default_rng(3)
    n = len(index)
    t = rng.permutation(n) % 2
    x = rng.normal(size=n)
    return pd.DataFrame({"x": x, "t": t, "y": 1.5 * t + 2 * x + 0.3 * rng.normal(size=n)}, index=index)


def shuffled(values: pd.Series, seed: int = 0) -> pd.Series:
    return values.sample(frac=1.0, random_state=seed)


INDEXES = {
    "text": VILLAGES,
    "integers that are no positions": pd.RangeIndex(240)[::-1],
    "dates": pd.date_range("2001-01-01", periods=240),
    "two levels": pd.MultiIndex.from_product([range(24), list("abcdefghij")]),
}


def as_dataframe(table):
    return table[["x"]]


def as_geodataframe(table):
    return gpd.GeoDataFrame(table[["x"]], geometry=gpd.points_from_xy(table["x"], table["x"]), crs=4326)


def as_dataarray(table):
    return xr.DataArray(table[["x"]].to_numpy(), dims=("unit", "band"), coords={"unit": table.index})


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("make", [as_dataframe, as_geodataframe, as_dataarray])
def test_a_fit_does_not_depend_on_the_order_of_labelled_rows(name, make):
    table = trial(INDEXES[name])
    if make is as_dataarray and isinstance(table.index, pd.MultiIndex):
        pytest.skip("a coordinate of two levels is no dimension coordinate")
    X = make(table)
    right = DoublyRobustEffect(random_state=0).fit(X, table["y"], treatment=table["t"])
    assert float(right.effect(X).ate()) == pytest.approx(1.5, abs=0.15)
    for y, t in (
        (shuffled(table["y"], 1), shuffled(table["t"], 2)),
        (shuffled(table["y"], 1).to_frame()["y"], table["t"].to_numpy()),
        (table["y"].tolist(), shuffled(table["t"], 2)),
        (shuffled(table["y"], 1), shuffled(table["t"], 2).to_xarray() if name == "text" else shuffled(table["t"], 2)),
    ):
        again = DoublyRobustEffect(random_state=0).fit(X, y, treatment=t)
        np.testing.assert_array_equal(again.predict(X), right.predict(X))
        assert again.score(X, y, treatment=t) == right.score(X, table["y"], treatment=table["t"])


@pytest.mark.parametrize("role", ["y", "treatment", "groups", "sample_weight", "propensity", "strata"])
def test_every_role_is_aligned_and_refused(role):
    table = trial().assign(g=np.arange(240) // 4, w=1.0 + np.arange(240) % 3, e=0.3 + 0.4 * (np.arange(240) % 2))
    roles = {"y": table["y"], "treatment": table["t"], "groups": table["g"]}
    roles |= {"sample_weight": table["w"], "propensity": table["e"]}
    if role == "strata":  # whose shares are the probabilities, of units within clusters
        roles = {"y": table["y"], "treatment": table["t"], "strata": pd.Series(np.arange(240) // 40, VILLAGES)}
    right = DoublyRobustEffect(random_state=0).fit(table[["x"]], **roles).predict(table[["x"]])
    again = DoublyRobustEffect(random_state=0).fit(table[["x"]], **{**roles, role: shuffled(roles[role])})
    np.testing.assert_array_equal(again.predict(table[["x"]]), right)
    for other in (roles[role].reset_index(drop=True), roles[role].rename(lambda v: v.upper())):
        with pytest.raises(DataError, match=rf"{role} has other labels than X: 240 of 240.*{role}\.to_numpy"):
            DoublyRobustEffect().fit(table[["x"]], **{**roles, role: other})


def test_without_labels_of_x_rows_are_positions_unless_two_roles_disagree():
    table = trial()
    X = table[["x"]].to_numpy()
    right = (
        DoublyRobustEffect(random_state=0).fit(X, table["y"].to_numpy(), treatment=table["t"].to_numpy()).predict(X)
    )
    y, t = table["y"].reset_index(drop=True), table["t"].reset_index(drop=True)
    for pair in ((table["y"], table["t"]), (y, t), (y, t.to_numpy()), (table["y"].tolist(), t)):
        fit = DoublyRobustEffect(random_state=0).fit(X, pair[0], treatment=pair[1])
        np.testing.assert_array_equal(fit.predict(X), right)
    for pair in ((table["y"], shuffled(table["t"])), (y, table["t"])):
        with pytest.raises(DataError, match="y and treatment have different labels, and X has none"):
            DoublyRobustEffect().fit(X, pair[0], treatment=pair[1])


def test_repeated_labels_are_positions_only_where_both_are_the_same():
    table = trial(pd.Index(np.repeat(np.arange(80), 3)))
    DoublyRobustEffect().fit(table[["x"]], table["y"], treatment=table["t"])
    with pytest.raises(DataError, match="occurs more than once"):
        DoublyRobustEffect().fit(table[["x"]], shuffled(table["y"]), treatment=table["t"])
    with pytest.raises(DataError, match="in those of y"):
        align(pd.DataFrame({"x": [1, 2]}, index=["a", "b"]), pd.Series([1, 2], index=["b", "b"]), "y")


def test_labels_of_other_types_are_compared_as_labels():
    X = pd.DataFrame({"x": [1.0, 2.0, 3.0]}, index=pd.Index(["a", "b", "c"], dtype="string"))
    assert align(X, pd.Series([3, 1, 2], index=np.array(["c", "a", "b"], dtype=object)), "y").tolist() == [1, 2, 3]
    numbers = pd.DataFrame({"x": [1.0, 2.0]}, index=[7, 9])
    assert align(numbers, pd.Series([2, 1], index=[9.0, 7.0]), "y").tolist() == [1, 2]
    with pytest.raises(DataError, match="other labels"):
        align(numbers, pd.Series([2, 1], index=["9", "7"]), "y")
    same = pd.Index(["a", "a"], dtype="string"), pd.Index(["a", "a"], dtype=object)
    assert align_rows(same[0], pd.Series([1, 2], index=same[1]), "y").tolist() == [1, 2]


def test_what_has_no_labels_is_left_alone():
    X = trial()[["x"]]
    for value in (None, "x", 0.5, [1, 2], np.ones(240), X.index, pd.Categorical(["a"])):
        assert align(X, value, "role") is value
    assert labels_of(xr.DataArray(np.ones((3, 2)))) is None
    short = pd.Series([1.0, 2.0])
    assert align(X, short, "y") is short  # the check of the number of values says it better
    with pytest.raises(DataError, match="y of shape"):
        DoublyRobustEffect().fit(X, short, treatment=np.arange(240) % 2)
    assert align_all(X, {"treatment": "x"}) == {"treatment": "x"}


def test_levels_of_single_units_are_aligned():
    table = trial()
    fit = DoublyRobustEffect(random_state=0).fit(table[["x"]], table["y"], treatment=table["t"])
    level = pd.Series(np.arange(240) % 2, index=VILLAGES)
    straight = fit.effect(table[["x"]], treatment=level.to_numpy())
    np.testing.assert_array_equal(fit.effect(table[["x"]], treatment=shuffled(level)).mean(), straight.mean())


def test_nuisances_are_aligned():
    table = trial()
    right = crossfit_nuisances(table[["x"]], table["y"], table["t"], propensity=np.full(240, 0.5))
    half = pd.Series(0.5, index=VILLAGES)
    again = crossfit_nuisances(table[["x"]], shuffled(table["y"], 1), shuffled(table["t"]), propensity=shuffled(half))
    np.testing.assert_array_equal(again.mu1, right.mu1)


def test_a_design_of_series_is_aligned_with_its_treatment():
    table = trial().assign(g=np.arange(240) // 4, w=1.0 + np.arange(240) % 3)
    design = make_design(table["t"], groups=shuffled(table["g"]), sample_weight=shuffled(table["w"], 2))
    np.testing.assert_array_equal(design.clusters, table["g"])
    np.testing.assert_allclose(design.weights, table["w"] / table["w"].mean())
    with pytest.raises(DataError, match="groups has other labels than treatment"):
        make_design(table["t"], groups=table["g"].reset_index(drop=True))


def test_weights_of_zero_leave_out_the_units_that_have_them_in_any_order():
    table = trial().assign(w=(np.arange(240) % 3 > 0).astype(float))
    right = DoublyRobustEffect(random_state=0).fit(
        table[["x"]], table["y"], treatment=table["t"], sample_weight=table["w"]
    )
    again = DoublyRobustEffect(random_state=0).fit(
        table[["x"]],
        shuffled(table["y"], 1),
        treatment=shuffled(table["t"], 2),
        sample_weight=shuffled(table["w"], 3),
    )
    np.testing.assert_array_equal(again.predict(table[["x"]]), right.predict(table[["x"]]))


def test_averages_over_groups_are_by_label():
    rng = np.random.default_rng(0)
    effects = np.arange(6.0)
    post = EffectPosterior(effects + 0.01 * rng.normal(size=(50, 6)), index=[10, 11, 12, 13, 14, 15])
    district = pd.Series(list("aabbcc"), index=post.index)
    weight = pd.Series([1.0, 3.0, 1.0, 3.0, 1.0, 3.0], index=post.index)
    right = post.gate(district.to_numpy(), weight.to_numpy())
    np.testing.assert_allclose(right.mean(), [0.75, 2.75, 4.75], atol=0.01)
    np.testing.assert_array_equal(post.gate(shuffled(district, 1), shuffled(weight, 2)).mean(), right.mean())
    assert float(post.att(shuffled(district == "c", 1))) == pytest.approx(4.5, abs=0.01)
    assert float(post.ate(shuffled(weight, 2))) == pytest.approx(2.75, abs=0.01)
    with pytest.raises(DataError, match=r"groups has other labels than the posterior.*groups\.to_numpy"):
        post.gate(district.reset_index(drop=True))


def study(table: pd.DataFrame, **roles) -> Study:
    frame = table.assign(lon=32.0, lat=1.0).reset_index(names="village")
    return Study(frame, outcome="y", treatment="t", covariates=["x"], unit="village", lon="lon", lat="lat", **roles)


def test_a_study_is_fitted_and_cut_by_label():
    table = trial()
    trial_of = study(table)
    features = table[["x"]].assign(x2=table["x"] ** 2)
    right = trial_of.fit(DoublyRobustEffect(random_state=0), X=features.to_numpy())
    again = trial_of.fit(DoublyRobustEffect(random_state=0), X=shuffled(features))
    np.testing.assert_array_equal(again.predict(features), right.predict(features.to_numpy()))
    chosen = table["x"] > 0.3
    assert list(trial_of.subset(shuffled(chosen)).units.index) == list(table.index[chosen])
    assert list(trial_of.subset(shuffled(chosen.astype("boolean"))).units.index) == list(table.index[chosen])
    with pytest.raises(DataError, match="the mask has other labels than the study"):
        trial_of.subset(chosen.reset_index(drop=True))
    with pytest.raises(DataError, match="X has other labels than the study"):
        trial_of.fit(DoublyRobustEffect(), X=features.reset_index(drop=True))


# ---------------------------------------------------------------------- functions that evaluate
def scores_of(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """True effects of a trial whose effect is 1 + x, and noisy scores of them, in the table's order."""
    tau = 1 + table["x"]
    return tau, tau + np.random.default_rng(0).normal(size=len(table))


def test_rate_blp_and_gates_are_by_label():
    tau, scores = scores_of(trial())
    group = pd.Series(np.arange(240) // 2, VILLAGES)
    for function in (rate, blp, gates, priority_test):
        right = function(tau, scores, groups=group)
        again = function(tau, shuffled(scores, 1), groups=shuffled(group, 2))
        assert str(again) == str(right)
        assert again.to_dataframe().equals(right.to_dataframe())
        with pytest.raises(DataError, match="scores has other labels than"):
            function(tau, scores.reset_index(drop=True), groups=group)
    right, wrong = rate(tau, scores), rate(tau, shuffled(scores, 1).to_numpy())  # what going by position gives
    assert right.estimate > 0.5 > 0.25 > wrong.estimate


def test_crossfit_effects_and_permutation_test_are_by_label():
    table = trial()
    options = {"cv": 3, "progress": False}
    model = DoublyRobustEffect(random_state=0)
    right = crossfit_effects(model, table[["x"]], table["y"], treatment=table["t"], **options)
    mixed = shuffled(table["y"], 1), shuffled(table["t"], 2)
    again = crossfit_effects(model, table[["x"]], mixed[0], treatment=mixed[1], **options)
    np.testing.assert_array_equal(again.tau, right.tau)
    assert right.tau.mean() == pytest.approx(1.5, abs=0.15)
    p = [permutation_test(table[["x"]], y, t, n_permutations=19) for y, t in ((table["y"], table["t"]), mixed)]
    assert p[0].statistic == p[1].statistic
    with pytest.raises(DataError, match="y and treatment have different labels, and X has none"):
        crossfit_effects(model, table[["x"]].to_numpy(), table["y"], treatment=mixed[1], **options)


def test_conformal_intervals_and_overlap_are_by_label():
    table = trial()
    new = table[["x"]].iloc[:20]
    sets = [
        conformal_outcome_intervals(table[["x"]], y, t, new, random_state=0)
        for y, t in ((table["y"], table["t"]), (shuffled(table["y"], 1), shuffled(table["t"], 2)))
    ]
    pd.testing.assert_frame_equal(sets[0].to_dataframe(), sets[1].to_dataframe())
    e = pd.Series(0.5 + 0.1 * np.tanh(table["x"]), VILLAGES)
    orders = ((table["t"], table[["x"]]), (shuffled(table["t"]), table[["x"]][::-1]))
    balances = [overlap(e, t, X).balance() for t, X in orders]
    pd.testing.assert_frame_equal(*balances)


def test_an_aligned_function_keeps_its_name_and_its_own_errors():
    assert rate.__name__ == "rate"
    assert "priority" in inspect.signature(rate).parameters
    with pytest.raises(TypeError, match=r"rate\(\) missing 1 required positional argument: 'scores'"):
        rate([1.0, 2.0])
