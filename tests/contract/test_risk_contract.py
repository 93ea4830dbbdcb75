"""The contract of risk models, checked for every public one: a new one is found by itself."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sklearn
import xarray as xr
from contract_risks import MODELS, each, fit, fitted, fitted_small, make, risk_of, world_of
from contract_worlds import as_text
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import causalsat
from causalsat import EffectPosterior
from causalsat.exceptions import CausalsatError, CausalsatWarning, TreatmentError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def test_there_are_models_to_check():
    assert {"SelectiveLabelsRisk", "TestedOnlyRisk", "UntestedNegativeRisk"} <= {kind.__name__ for kind in MODELS}


# ---------------------------------------------------------------------- parameters
@each
def test_constructor_only_stores_and_clone_copies(kind):
    est = make(kind)
    assert set(vars(est)) == set(est.get_params(deep=False))
    for name, value in est.get_params(deep=False).items():
        assert getattr(est, name) is value or getattr(est, name) == value
    copy = clone(fitted(kind))
    assert as_text(copy.get_params()) == as_text(est.get_params())
    assert not [name for name in vars(copy) if name.endswith("_") and not name.startswith("_")]
    assert as_text(kind().set_params(**est.get_params(deep=False)).get_params()) == as_text(est.get_params())
    with pytest.raises(ValueError, match="nonsense"):
        est.set_params(nonsense=1)


@each
def test_parameters_are_keywords_with_documented_defaults(kind):
    document = inspect.getdoc(kind)
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        assert parameter.default is not inspect.Parameter.empty
        assert name in document


# ---------------------------------------------------------------------- risks
@each
def test_finds_who_is_at_risk_and_returns_posteriors(kind):
    world, est = world_of(), fitted(kind)
    post = est.risk(world.X)
    assert isinstance(post, EffectPosterior)
    assert post.kind == "risk"
    assert np.corrcoef(post.mean(), world.risk)[0, 1] > 0.9
    proba = est.predict_proba(world.X)
    assert proba.shape == (400, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(proba[:, 1], post.mean())
    np.testing.assert_array_equal(est.predict(world.X), (post.mean() > 0.5).astype(int))
    np.testing.assert_array_equal(est.classes_, [0, 1])
    decision = est.decision(world.X)
    assert decision.kind == "decision"
    np.testing.assert_allclose(est.predict_decision(world.X), decision.mean())
    assert abs(decision.mean().mean() - world.t.mean()) < 0.05
    for given in (None, "tested", "untested"):
        draws = est.risk(world.X, given=given).draws
        assert ((draws >= 0) & (draws <= 1)).all()
        np.testing.assert_allclose(est.predict_proba(world.X, given=given)[:, 1], draws.mean(axis=0))


@each
def test_score_prefers_the_right_features(kind):
    world, est = world_of(seed=1), fitted(kind)
    right = est.score(world.X, world.y, treatment=world.t)
    assert right < 0
    assert est.score(-world.X, world.y, treatment=world.t) < right - 0.1
    with pytest.raises(TreatmentError, match="no treatment"):
        est.score(world.X, world.y)


@each
def test_groups_average_the_risk_of_their_units(kind):
    world, est = world_of(), fitted(kind)
    by_group = est.risk(world.X).gate(world.groups)
    expected = [risk_of(est, world.X)[world.groups == g].mean() for g in range(40)]
    np.testing.assert_allclose(by_group.mean(), expected)
    assert (by_group.sd() > 0).all()


# ---------------------------------------------------------------------- forms of the same data
@each
def test_frames_arrays_and_dataarrays_agree(kind):
    world = world_of(160)
    by_array = risk_of(fitted_small(kind), world.X)
    y, t = pd.Series(world.y, world.frame.index), pd.Series(world.t, world.frame.index)
    by_frame = make(kind).fit(world.frame, y.iloc[::-1], treatment=t.sample(frac=1.0, random_state=0))
    table = xr.DataArray(world.X, dims=("unit", "feature"))
    by_xarray = fit(make(kind), replace(world, X=table))
    np.testing.assert_allclose(risk_of(by_frame, world.frame), by_array, rtol=1e-6)
    np.testing.assert_allclose(risk_of(by_xarray, table), by_array, rtol=1e-6)
    assert list(by_frame.risk(world.frame).index[:2]) == [1000, 1001]
    np.testing.assert_allclose(risk_of(by_frame, world.frame[["c", "a", "b"]]), by_array, rtol=1e-6)
    assert list(by_frame.feature_names_in_) == list("abc")


@each
def test_roles_by_column_name_are_the_same_as_by_array(kind):
    world = world_of(160)
    weight = np.random.default_rng(0).uniform(0.5, 2, 160)
    whole = world.frame.assign(inspected=world.t, weight=weight)
    by_name = make(kind).fit(whole, world.y, treatment="inspected", sample_weight="weight")
    by_value = fit(make(kind), replace(world, X=world.X), sample_weight=weight)
    np.testing.assert_allclose(risk_of(by_name, whole), risk_of(by_value, world.X), rtol=1e-6)
    np.testing.assert_allclose(risk_of(by_name, world.frame), risk_of(by_value, world.X), rtol=1e-6)
    given = by_value.score(world.X, world.y, treatment=world.t)
    assert by_name.score(whole, world.y) == pytest.approx(given, rel=1e-6)


@each
def test_types_of_numbers_do_not_matter(kind):
    world = world_of(160)
    values = np.round(world.X).clip(-3, 3)
    values[:, 2] = values[:, 2] > 0
    plain = pd.DataFrame(values, columns=list("abc"))
    mixed = plain.astype({"a": "Int64", "b": "float32", "c": "bool"})
    by_float = make(kind).fit(plain, world.y, treatment=world.t.astype(float))
    by_mixed = make(kind).fit(mixed, pd.Series(world.y).astype("Float64").to_numpy(float, na_value=np.nan),
                              treatment=world.t.astype(bool))  # fmt: skip
    np.testing.assert_allclose(risk_of(by_mixed, mixed), risk_of(by_float, plain), rtol=1e-6)


# ---------------------------------------------------------------------- rows
@each
def test_prediction_does_not_depend_on_row_order_or_company(kind):
    X, est = world_of().X, fitted(kind)
    order = np.random.default_rng(0).permutation(len(X))
    for given in (None, "untested"):
        draws = est.risk(X, given=given).draws
        np.testing.assert_allclose(est.risk(X[order], given=given).draws, draws[:, order], rtol=1e-9)
    np.testing.assert_allclose(est.support(X[order]), est.support(X)[order], rtol=1e-6)
    np.testing.assert_allclose([risk_of(est, X[[i]])[0] for i in (0, 5, 17)], risk_of(est, X)[[0, 5, 17]])


@each
def test_row_order_at_fit_does_not_matter(kind):
    """Sums of floating-point numbers in another order: the same posterior, though chains may part."""
    world = world_of()
    again = fit(make(kind), world.take(np.random.default_rng(1).permutation(400))).risk(world.X)
    post = fitted(kind).risk(world.X)
    assert np.sqrt(np.mean((post.mean() - again.mean()) ** 2)) < 0.5 * np.sqrt(np.mean(post.sd() ** 2))


# ---------------------------------------------------------------------- seeds
@each
def test_same_seed_same_answer(kind):
    world = world_of(160)
    np.random.seed(1)  # noqa: NPY002
    first = fit(make(kind, random_state=3), world).risk(world.X).draws
    np.random.seed(2)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(first, fit(make(kind, random_state=3), world).risk(world.X).draws)
    assert not np.array_equal(first, fit(make(kind, random_state=4), world).risk(world.X).draws)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


# ---------------------------------------------------------------------- missing values
@each
def test_missing_values_at_fit_and_at_prediction(kind):
    world = world_of()
    holed = world.X.copy()
    holed[::7, 1] = np.nan
    est = fit(make(kind), replace(world, X=holed))
    assert np.corrcoef(risk_of(est, holed), world.risk)[0, 1] > 0.85
    assert "x1 missing" in est.design_names_
    with pytest.warns(CausalsatWarning, match="missing values in x0"):
        alone = risk_of(est, np.array([[np.nan, 0.0, 0.0]]))
    np.testing.assert_allclose(alone, risk_of(est, np.array([[world.X[:, 0].mean(), 0.0, 0.0]])))
    with warnings.catch_warnings():
        warnings.simplefilter("error", CausalsatWarning)
        assert np.isfinite(est.predict_proba(np.array([[0.0, np.nan, 0.0]]))).all()


# ---------------------------------------------------------------------- weights
@each
def test_weights_count(kind):
    """Where half of the units has risk .8 and the other .3, the risk is that of the half that weighs."""
    world = world_of()
    half = np.arange(400) < 200
    rng = np.random.default_rng(2)
    y = np.where(world.t == 1, rng.random(400) < np.where(half, 0.8, 0.3), np.nan)
    world = replace(world, X=world.X[:, 1:], y=y)
    light = risk_of(fit(make(kind), world, sample_weight=np.where(half, 1.0, 0.02)), world.X).mean()
    heavy = risk_of(fit(make(kind), world, sample_weight=np.where(half, 0.02, 1.0)), world.X).mean()
    assert light - heavy > 0.25


@each
def test_only_ratios_of_weights_matter(kind):
    world = world_of(160)
    weight = np.random.default_rng(0).uniform(0.5, 2, 160)
    risk = risk_of(fit(make(kind), world, sample_weight=weight), world.X)
    np.testing.assert_allclose(risk_of(fit(make(kind), world, sample_weight=8 * weight), world.X), risk, rtol=1e-6)
    assert not np.allclose(risk, risk_of(fitted_small(kind), world.X), rtol=1e-3)


# ---------------------------------------------------------------------- hard cases
@each
@pytest.mark.parametrize("n", [2, 4, 8, 20])
def test_tiny_samples_fit_or_say_why_not(kind, n):
    world = world_of().take(np.arange(n))
    t = np.arange(n) % 2
    world = replace(world, t=t, y=np.where(t == 1, np.arange(n) % 4 == 1, np.nan))
    try:
        est = fit(make(kind), world)
    except CausalsatError as error:
        assert n < 4, error
        assert error.todo or error.expected
    else:
        assert np.isfinite(est.risk(world.X, given="untested").draws).all()


@each
def test_an_outcome_that_a_feature_separates_still_has_finite_risks(kind):
    world = world_of(160)
    world = replace(world, y=np.where(world.t == 1, world.X[:, 0] > 0, np.nan))
    est = fit(make(kind), world)
    risk = est.risk(world.X).draws
    assert np.isfinite(risk).all()
    assert risk.mean(axis=0)[world.X[:, 0] > 1].min() > 0.6
    assert np.isfinite(est.score(world.X, world.y, treatment=world.t))


@each
def test_constant_and_repeated_features_fit(kind):
    world = world_of(160)
    world = replace(world, X=np.column_stack([world.X, world.X[:, 0], np.full(160, 3.0)]))
    est = fit(make(kind), world)
    assert np.corrcoef(risk_of(est, world.X), world.risk)[0, 1] > 0.85


# ---------------------------------------------------------------------- files
@each
def test_save_and_load_are_equal(kind, tmp_path):
    world, est = world_of(), fitted(kind)
    est.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    assert type(again) is kind
    for given in (None, "tested", "untested"):
        np.testing.assert_array_equal(again.risk(world.X, given=given).draws, est.risk(world.X, given=given).draws)
    np.testing.assert_array_equal(again.decision(world.X).draws, est.decision(world.X).draws)
    np.testing.assert_array_equal(again.support(world.X), est.support(world.X))
    assert str(again.summary()) == str(est.summary())
    assert as_text(again.get_params()) == as_text(est.get_params())
    score = est.score(world.X, world.y, treatment=world.t)
    assert again.score(world.X, world.y, treatment=world.t) == score


@each
def test_summary_reads_like_a_regression_table(kind):
    text = str(fitted(kind).summary())
    assert "risk: x0" in text
    assert "=====" in text
    assert "r_hat" in text


@each
def test_support_is_high_inside_and_low_far_away(kind):
    est = fitted(kind)
    assert np.median(est.support(world_of().X)) > 0.2
    assert est.support(np.full((1, 3), 40.0))[0] < 0.05


# ---------------------------------------------------------------------- pipelines and cross-validation
@each
def test_a_pipeline_is_its_steps(kind, tmp_path):
    world = world_of(160)
    moved = StandardScaler().fit_transform(world.X)
    by_hand = make(kind).fit(moved, world.y, treatment=world.t)
    model = make_pipeline(StandardScaler(), make(kind))
    model.fit(world.X, world.y, **{f"{kind.__name__.lower()}__treatment": world.t})
    np.testing.assert_array_equal(model.predict_proba(world.X), by_hand.predict_proba(moved))
    ours, theirs = causalsat.risk(model, world.X, given="untested"), by_hand.risk(moved, given="untested")
    np.testing.assert_array_equal(ours.draws, theirs.draws)
    np.testing.assert_array_equal(causalsat.support(model, world.X), by_hand.support(moved))
    causalsat.save(model, tmp_path / "pipeline.safetensors")
    again = causalsat.load(tmp_path / "pipeline.safetensors")
    np.testing.assert_array_equal(again.predict_proba(world.X), model.predict_proba(world.X))


@each
@pytest.mark.parametrize("routing", [True, False])
def test_cross_validation_in_a_pipeline(kind, routing):
    world = world_of()
    with sklearn.config_context(enable_metadata_routing=routing):
        folds = GroupKFold(3)
        if routing:
            model, params = (
                make_pipeline(StandardScaler(), make(kind)),
                {"treatment": world.t, "groups": world.groups},
            )
            scores = cross_val_score(model, world.X, world.y, cv=folds, params=params)
        else:  # a column's name needs no routing
            data, params = world.frame.assign(inspected=world.t), {"treatment": "inspected"}
            scores = cross_val_score(make(kind), data, world.y, cv=folds, groups=world.groups, params=params)
    assert scores.shape == (3,)
    base = -np.log(4)  # of a coin thrown twice
    assert (scores > base).all()
