"""The estimator contract, checked for every public estimator: a new one is found by itself.

``contract_worlds`` says how an estimator whose X is images, or that has one effect for all units, declares it.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sklearn
import xarray as xr
from contract_kinds import (
    ESTIMATORS,
    each,
    each_conditional,
    each_of_images,
    each_of_tables,
    equal_up_to_rounding,
    fit,
    fitted,
    fitted_small,
    make,
    make_for_frame,
)
from contract_worlds import N_SITES, as_text, has_one_effect, take, uses_images, world_of
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import causalsat
from causalsat import EffectPosterior
from causalsat.base import OutcomeEstimator
from causalsat.exceptions import CausalsatError, CausalsatWarning, TreatmentError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def test_there_are_estimators_to_check():
    assert {"BayesianLinearEffect", "DoublyRobustEffect"} <= {kind.__name__ for kind in ESTIMATORS}
    declared = {getattr(kind, "_contract_data", "table") for kind in ESTIMATORS}
    assert declared <= {"table", "images"}
    assert {getattr(kind, "_contract_effect", "conditional") for kind in ESTIMATORS} <= {"conditional", "average"}


# ---------------------------------------------------------------------- parameters
@each
def test_constructor_only_stores_and_clone_copies(kind):
    est = make(kind)
    for name, value in est.get_params(deep=False).items():
        assert getattr(est, name) is value or getattr(est, name) == value
    assert set(vars(est)) == set(est.get_params(deep=False))
    copy = clone(fitted(kind))
    assert as_text(copy.get_params()) == as_text(est.get_params())
    assert not [name for name in vars(copy) if name.endswith("_") and not name.startswith("_")]
    assert as_text(kind().set_params(**est.get_params(deep=False)).get_params()) == as_text(est.get_params())
    with pytest.raises(ValueError, match="nonsense"):
        est.set_params(nonsense=1)


@each
def test_parameters_are_keywords_with_documented_defaults(kind):
    signature = inspect.signature(kind.__init__)
    document = inspect.getdoc(kind)
    for name, parameter in list(signature.parameters.items())[1:]:
        assert parameter.default is not inspect.Parameter.empty
        assert name in document


# ---------------------------------------------------------------------- effects
@each
def test_finds_the_effect_and_returns_posteriors(kind):
    world = world_of(kind)
    est = fitted(kind)
    tau = est.predict(world.X)
    post = est.effect(world.X)
    assert isinstance(post, EffectPosterior)
    assert tau.shape == (len(world),)
    np.testing.assert_allclose(tau, post.mean())
    assert abs(float(post.ate()) - 1) < 0.6
    assert has_one_effect(kind) or np.corrcoef(tau, world.tau)[0, 1] > 0.7
    np.testing.assert_allclose(est.effect(world.X, treatment=0.0, baseline=1.0).mean(), -tau, atol=1e-8)
    np.testing.assert_allclose(est.effect(world.X, treatment=1.0, baseline=1.0).draws, 0, atol=1e-8)
    if issubclass(kind, OutcomeEstimator):
        one, zero = (est.predict_outcome(world.X, treatment=level) for level in (1.0, 0.0))
        np.testing.assert_allclose(one.mean() - zero.mean(), tau, atol=1e-6)
        assert abs(one.mean()[world.t == 1].mean() - world.y[world.t == 1].mean()) < 0.5


@each_conditional
def test_score_is_higher_for_the_right_effects(kind):
    world = world_of(kind, seed=1)
    est = fitted(kind)
    right = est.score(world.X, world.y, treatment=world.t, groups=world.groups)
    assert right > 0.02
    other = np.argsort(world.tau, kind="stable")[::-1]  # each unit gets the features of one of another effect
    wrong = np.empty(len(world), dtype=int)
    wrong[other] = other[::-1]
    assert est.score(take(world.X, wrong), world.y, treatment=world.t, groups=world.groups) < right


@each
def test_score_without_a_treatment_is_refused(kind):
    world = world_of(kind)
    with pytest.raises(TreatmentError, match="no treatment"):
        fitted(kind).score(world.X, world.y)


# ---------------------------------------------------------------------- forms of the same data
@each_of_tables
def test_frames_arrays_and_dataarrays_agree(kind):
    world = world_of(kind, 120)
    X, frame = world.X, world.frame
    by_array = fitted_small(kind).predict(X)
    y, t = pd.Series(world.y, frame.index), pd.Series(world.t, frame.index)
    by_frame = make(kind).fit(frame, y.iloc[::-1], treatment=t.sample(frac=1.0, random_state=0), groups=world.groups)
    by_xarray = fit(make(kind), replace(world, X=xr.DataArray(X, dims=("unit", "feature"))))
    np.testing.assert_allclose(by_frame.predict(frame), by_array, rtol=1e-6)
    np.testing.assert_allclose(by_xarray.predict(xr.DataArray(X, dims=("unit", "feature"))), by_array, rtol=1e-6)
    assert list(by_frame.effect(frame).index[:2]) == [1000, 1001]
    np.testing.assert_allclose(by_frame.predict(frame[["c", "a", "b"]]), by_array, rtol=1e-6)
    assert list(by_frame.feature_names_in_) == list("abc")


@each_of_images
def test_places_arrays_and_dataarrays_agree(kind):
    world = world_of(kind, 120)
    by_xarray = fitted_small(kind).predict(world.X)
    by_array = fit(make(kind), replace(world, X=np.asarray(world.X)))
    by_frame = fit(make_for_frame(kind, world), world, frame=True)
    equal_up_to_rounding(kind, by_array.predict(np.asarray(world.X)), by_xarray)
    equal_up_to_rounding(kind, by_frame.predict(world.frame), by_xarray)
    assert list(by_frame.effect(world.frame).index[:2]) == [1000, 1001]


@each
def test_roles_by_column_name_are_the_same_as_by_array(kind):
    world = world_of(kind, 120)
    village = world.groups.astype(str)
    whole = world.frame.assign(arm=world.t, village=village)
    by_name = make_for_frame(kind, world).fit(whole, world.y, treatment="arm", groups="village")
    by_value = fit(make_for_frame(kind, world), world, frame=True)
    equal_up_to_rounding(kind, by_name.predict(whole), by_value.predict(world.frame))
    equal_up_to_rounding(kind, by_name.predict(world.frame), by_value.predict(world.frame))
    given = by_value.score(world.frame, world.y, treatment=world.t)
    assert by_name.score(whole, world.y) == pytest.approx(given, rel=1e-3)


@each_of_tables
def test_types_of_numbers_do_not_matter(kind):
    """Integers, booleans, nullable and 32-bit columns, a boolean treatment, an outcome of integers."""
    world = world_of(kind, 120)
    values = np.round(world.X).clip(-3, 3)
    values[:, 2] = values[:, 2] > 0
    y = np.round(4 * world.y)
    plain = pd.DataFrame(values, columns=list("abc"))
    mixed = plain.astype({"a": "Int64", "b": "float32", "c": "bool"})
    by_float = make(kind).fit(plain, y, treatment=world.t.astype(float), groups=world.groups.astype(float))
    by_mixed = make(kind).fit(mixed, y.astype(int), treatment=world.t.astype(bool), groups=world.groups.astype(str))
    np.testing.assert_allclose(by_mixed.predict(mixed), by_float.predict(plain), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(by_mixed.predict(mixed.astype(object)), by_float.predict(plain), rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------- rows
@each
def test_prediction_does_not_depend_on_row_order_or_company(kind):
    X = world_of(kind).X
    est = fitted(kind)
    post = est.effect(X)
    order = np.random.default_rng(0).permutation(len(post.mean()))
    np.testing.assert_allclose(est.effect(take(X, order)).draws, post.draws[:, order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(est.support(take(X, order)), est.support(X)[order], rtol=1e-6)
    alone = [est.predict(take(X, [i]))[0] for i in (0, 5, 17)]
    np.testing.assert_allclose(alone, post.mean()[[0, 5, 17]], rtol=1e-5, atol=1e-6)


@each
def test_row_order_at_fit_moves_effects_by_less_than_their_uncertainty(kind):
    """Folds, bootstrap samples and chains change with the order; the answer by no more than chance allows."""
    world = world_of(kind)
    order = np.random.default_rng(1).permutation(len(world))
    post, again = fitted(kind).effect(world.X), fit(make(kind), world.take(order)).effect(world.X)
    moved = np.sqrt(np.mean((post.mean() - again.mean()) ** 2))
    assert moved < 0.5 * np.sqrt(np.mean(post.sd() ** 2))
    assert abs(float(post.ate()) - float(again.ate())) < 0.5 * post.ate().sd()[0]


# ---------------------------------------------------------------------- seeds
@each
def test_same_seed_same_answer(kind):
    world = world_of(kind, 120)
    np.random.seed(1)  # noqa: NPY002
    first = fit(make(kind, random_state=3), world).effect(world.X).draws
    np.random.seed(2)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    second = fit(make(kind, random_state=3), world).effect(world.X).draws
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, fit(make(kind, random_state=4), world).effect(world.X).draws)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


# ---------------------------------------------------------------------- missing values
@each_of_tables
def test_missing_values_at_fit_and_at_prediction(kind):
    world = world_of(kind)
    holed = world.X.copy()
    holed[::7, 1] = np.nan
    est = make(kind).fit(holed, world.y, treatment=world.t, groups=world.groups)
    tau = est.predict(holed)
    assert np.isfinite(tau).all()
    assert np.corrcoef(tau, world.tau)[0, 1] > 0.6
    assert "x1 missing" in est.design_names_
    with pytest.warns(CausalsatWarning, match="missing values in x0"):
        alone = est.predict(np.array([[np.nan, 0.0, 0.0]]))
    assert abs(alone[0] - est.predict(np.array([[world.X[:, 0].mean(), 0.0, 0.0]]))[0]) < 1e-8
    with warnings.catch_warnings():
        warnings.simplefilter("error", CausalsatWarning)
        assert np.isfinite(est.predict(np.array([[0.0, np.nan, 0.0]]))).all()
    table = pd.DataFrame(holed, columns=list("abc"))
    named = fit(make(kind), replace(world, X=table)).predict(table)
    # a frame's columns lie otherwise in memory: means differ in the last digit; a search stopped early magnifies that
    assert np.abs(named - tau).max() < 0.25 * est.effect(holed).sd().mean()


@each_of_images
def test_missing_pixels_at_fit_and_at_prediction(kind):
    world = world_of(kind, 120)
    holed = world.X.copy()
    holed[:, :, :2, :4] = np.nan
    est = fit(make(kind), replace(world, X=holed))
    assert np.isfinite(est.predict(holed)).all()
    assert np.isfinite(fitted_small(kind).predict(holed)).all()
    empty = world.X.copy()
    empty[3] = np.nan
    with pytest.raises(CausalsatError, match="valid"):
        fit(make(kind), replace(world, X=empty))
    with pytest.raises(CausalsatError, match="valid"):
        fitted_small(kind).predict(empty)


# ---------------------------------------------------------------------- weights and groups
@each
def test_weights_count(kind):
    world = world_of(kind)
    half = np.arange(240) < 120  # sites 0 to 19, which differ from the others in their mean effect
    world = world.with_outcome(world.y - world.t * world.tau + np.where(half, 3.0, -1.0) * world.t)
    if not uses_images(kind):
        world = replace(world, X=world.X[:, 1:])
    light = fit(make(kind), world, groups=False, sample_weight=np.where(half, 1.0, 0.02)).effect(world.X).ate()
    heavy = fit(make(kind), world, groups=False, sample_weight=np.where(half, 0.02, 1.0)).effect(world.X).ate()
    assert float(light) - float(heavy) > 2


@each
def test_only_ratios_of_weights_matter(kind):
    world = world_of(kind, 120)
    weight = np.random.default_rng(0).uniform(0.5, 2, 120)
    tau = fit(make(kind), world, sample_weight=weight).predict(world.X)
    np.testing.assert_allclose(fit(make(kind), world, sample_weight=8 * weight).predict(world.X), tau, rtol=1e-6)
    assert not np.allclose(tau, fitted_small(kind).predict(world.X), rtol=1e-3)


@each
def test_clusters_widen_the_interval_of_the_average(kind):
    """30 sites of 20 units, villages of sd 2: the standard error is that of 30 sites, not of 600 units.

    Units of one image are a cluster also where no groups are given.
    """
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 20)
    world = world_of(kind, N_SITES).take(groups)
    t = (np.arange(30) % 2)[groups]
    y = t + 2 * rng.standard_normal(30)[groups] + rng.standard_normal(600)
    X = world.X if uses_images(kind) else rng.standard_normal((600, 2))
    world = replace(world, X=X, y=y, t=t, groups=groups)
    naive = fit(make(kind), world, groups=False).effect(world.X).ate().sd()[0]
    honest = fit(make(kind), world).effect(world.X).ate().sd()[0]
    if uses_images(kind):  # the difference of two means of 15 villages of sd 2 has a standard error of .73
        assert min(honest, naive) > 0.5
    else:
        assert honest > 2 * naive


# ---------------------------------------------------------------------- hard cases
@each
def test_strata_with_other_shares_of_treated_are_no_effects(kind):
    """Strata (labels are texts) that differ by 3 and in which 30 % and 70 % of the villages are treated."""
    world = world_of(kind)
    rng = np.random.default_rng(1)
    south = np.arange(N_SITES) >= N_SITES // 2
    arm = np.zeros(N_SITES)
    for half, share in ((~south, 0.3), (south, 0.7)):
        arm[rng.choice(np.flatnonzero(half), round(share * half.sum()), replace=False)] = 1
    t = arm[world.groups]
    y = world.y - world.t * world.tau + t * world.tau + 3.0 * south[world.groups]
    strata = np.where(south, "south", "north")[world.groups]
    blocked = fit(make(kind), replace(world, y=y, t=t), strata=strata).effect(world.X).ate()
    assert abs(float(blocked) - 1) < max(0.7, 3 * blocked.sd()[0])
    plain = fit(make(kind), replace(world, y=y, t=t)).effect(world.X).ate()
    assert float(plain) - float(blocked) > 0.3 or plain.sd()[0] > 2 * blocked.sd()[0]


@each
def test_swapped_arms_and_another_unit_of_the_outcome_change_the_effect_as_they_must(kind):
    """Within a standard deviation of the posterior: chains of 120 draws of a forest have an error of that size."""
    world = world_of(kind, 120)
    before = fitted_small(kind).effect(world.X).ate()
    other = replace(world, y=1e3 * world.y - 1e4, t=1 - world.t)
    after = fit(make(kind), other).effect(world.X).ate()
    spread = max(before.sd()[0], after.sd()[0] / 1e3, 0.02)
    assert abs(float(after) / -1e3 - float(before)) < spread
    assert 0.5 < after.sd()[0] / 1e3 / before.sd()[0] < 2


@each
def test_constant_outcome_gives_no_effect(kind):
    world = world_of(kind, 120)
    est = fit(make(kind), world.with_outcome(np.full(120, 3.0)))
    np.testing.assert_allclose(est.predict(world.X), 0, atol=1e-3)
    assert np.isfinite(est.effect(world.X).draws).all()


@each
@pytest.mark.parametrize("n", [2, 4, 8, 20])
def test_tiny_samples_fit_or_say_why_not(kind, n):
    rng = np.random.default_rng(0)
    world = world_of(kind).take(np.arange(n) * 6)
    t = np.arange(n) % 2
    world = replace(world, t=t, y=t + rng.standard_normal(n))
    try:
        est = fit(make(kind), world, groups=False)
    except CausalsatError as error:
        assert n < 20, error
        assert error.todo or error.expected
    else:
        assert np.isfinite(est.effect(world.X).draws).all()


@each
def test_one_treated_cluster_fits_or_says_why_not(kind):
    world = world_of(kind)
    world = replace(world, t=(world.groups == 7).astype(int))
    try:
        est = fit(make(kind), world)
    except CausalsatError as error:
        assert error.todo or error.expected
    else:
        assert np.isfinite(est.effect(world.X).draws).all()


# ---------------------------------------------------------------------- files
@each
def test_save_and_load_are_equal(kind, tmp_path):
    world = world_of(kind)
    est = fitted(kind)
    est.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    assert type(again) is kind
    np.testing.assert_array_equal(again.effect(world.X).draws, est.effect(world.X).draws)
    np.testing.assert_array_equal(again.support(world.X), est.support(world.X))
    assert str(again.summary()) == str(est.summary())
    assert as_text(again.get_params()) == as_text(est.get_params())
    score = est.score(world.X, world.y, treatment=world.t)
    assert again.score(world.X, world.y, treatment=world.t) == score
    if issubclass(kind, OutcomeEstimator):
        outcomes = [model.predict_outcome(world.X, treatment=1.0).draws for model in (est, again)]
        np.testing.assert_array_equal(*outcomes)


@each
def test_summary_reads_like_a_regression_table(kind):
    text = str(fitted(kind).summary())
    assert "ATE" in text
    assert "=====" in text


@each
def test_support_is_high_inside_and_low_far_away(kind):
    X = world_of(kind).X
    est = fitted(kind)
    far = take(X, [0]) * 0 + 40.0
    assert np.median(est.support(X)) > 0.2
    assert est.support(far)[0] < 0.05


# ---------------------------------------------------------------------- pipelines and cross-validation
def first_step(kind):
    return FunctionTransformer() if uses_images(kind) else StandardScaler()


@each
def test_a_pipeline_is_its_steps(kind, tmp_path):
    world = world_of(kind, 120)
    step = first_step(kind)
    moved = step.fit_transform(world.X)
    by_hand = make(kind).fit(moved, world.y, treatment=world.t, groups=world.groups)
    name = kind.__name__.lower()
    model = make_pipeline(first_step(kind), make(kind))
    model.fit(world.X, world.y, **{f"{name}__treatment": world.t, f"{name}__groups": world.groups})
    np.testing.assert_array_equal(model.predict(world.X), by_hand.predict(moved))
    np.testing.assert_array_equal(causalsat.effect(model, world.X).draws, by_hand.effect(moved).draws)
    np.testing.assert_array_equal(causalsat.support(model, world.X), by_hand.support(moved))
    causalsat.save(model, tmp_path / "pipeline.safetensors")
    again = causalsat.load(tmp_path / "pipeline.safetensors")
    np.testing.assert_array_equal(again.predict(world.X), model.predict(world.X))


@each
@pytest.mark.parametrize("routing", [True, False])
def test_cross_validation_in_a_pipeline(kind, routing):
    world = world_of(kind)
    with sklearn.config_context(enable_metadata_routing=routing):
        if routing:
            model, data = make_pipeline(first_step(kind), make(kind)), world.X
            params = {"treatment": world.t, "groups": world.groups}
            scores = cross_val_score(model, data, world.y, cv=GroupKFold(3), params=params)
        else:  # a column's name needs no routing
            model, data = make_for_frame(kind, world), world.frame.assign(arm=world.t)
            folds = GroupKFold(3)
            scores = cross_val_score(model, data, world.y, cv=folds, groups=world.groups, params={"treatment": "arm"})
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    assert scores.mean() > 0 or has_one_effect(kind)


# ---------------------------------------------------------------------- modifiers
@pytest.mark.parametrize(
    "kind", [k for k in ESTIMATORS if "modifiers" in inspect.signature(k).parameters], ids=lambda kind: kind.__name__
)
def test_no_modifiers_is_a_constant_effect(kind):
    world = world_of(kind)
    effects = fit(make(kind, modifiers=[]), world).effect(world.X)
    assert np.ptp(effects.draws, axis=1).max() < 1e-9 * np.abs(effects.draws).max()
    assert effects.sd()[0] > 0
