"""Prevalences known by group: the density, what they buy against a known truth, what is refused, warnings, files."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalsat
from causalsat import SelectiveLabelsRisk
from causalsat.estimators.selective_labels import density
from causalsat.estimators.selective_labels.forms import NormalForm, UniformForm
from causalsat.estimators.selective_labels.prevalence import GroupPrevalence, group_prevalence
from causalsat.exceptions import CausalsatWarning, ColumnError, DataWarning, ParameterError

FAST = {"n_draws": 150, "n_tune": 150, "n_chains": 2, "random_state": 0}
NAMES = np.array(["north", "south", "west"])


def world(n=1500, seed=0):
    """Risk 1.5 logits higher in the south, where fewer are tested at the same risk; true risks of all units."""
    rng = np.random.default_rng(seed)
    district = rng.integers(0, 3, n)
    south, age = (district == 1).astype(float), rng.standard_normal(n)
    a = -2.0 + 1.5 * south + 0.7 * age
    r = a + rng.uniform(0, 2, n)
    tested = rng.random(n) < expit(r + 0.5 - 2.5 * south)
    y = np.where(tested, rng.random(n) < expit(r), np.nan)
    table = pd.DataFrame({"south": south, "age": age, "district": NAMES[district]})
    truth = np.log1p(np.expm1(2.0) * expit(a)) / 2.0  # mean of expit(a + Z), Z uniform on (0, 2)
    return table, y, tested.astype(int), truth


def known(table, truth, se=0.005):
    return {name: (truth[(table["district"] == name).to_numpy()].mean(), se) for name in NAMES}


def fit(prevalence, table, y, tested, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return SelectiveLabelsRisk(prevalence=prevalence, **{**FAST, **options}).fit(table, y, treatment=tested)


# ---------------------------------------------------------------------- density
def prepared(groups=None, prevalence=density.NO_PREVALENCE, n=120):
    table, y, tested, _ = world(n)
    rows = np.column_stack([np.ones(n), table[["south", "age"]]])
    cell = np.where(tested == 0, 0, 1 + np.nan_to_num(y)).astype(np.int64)
    weight = np.random.default_rng(1).uniform(0.5, 2, n)
    return density.SelectiveData(rows, cell, weight, np.array([0, 2]), prevalence, groups=groups)


def two_columns(n=120):
    """Districts, one of them free, and two age bands."""
    table = world(n)[0].assign(band=lambda t: np.where(t["age"] > 0, "old", "young"))
    figures = {
        "district": {"north": (0.2, 0.02), "south": (0.4, 0.03)},
        "band": {"old": (0.4, 0.02), "young": (0.2, 0.05)},
    }
    return group_prevalence(table, figures)


@pytest.mark.parametrize("form", [UniformForm(), NormalForm(1.0, np.nan), NormalForm(np.nan, 1.5)], ids=str)
def test_the_density_falls_by_the_distance_of_each_group_and_its_gradient_is_right(form):
    groups = two_columns()
    data = prepared(groups)
    free = replace(data, groups=None)
    x = np.random.default_rng(2).normal(0, 0.7, data.n_parameters)
    parameters = form.coefficients(x[None], data)
    risk = form.positive(parameters, parameters.risk @ data.X.T)[0]
    by_hand = 0.0
    for k, (mean, se) in enumerate(groups.known):
        own = groups.members(k)
        by_hand -= 0.5 * ((np.average(risk[own], weights=data.weight[own]) - mean) / se) ** 2

    def value(at, which=data):
        return form.density()(at, *form.arguments(which))[0]

    assert value(x) - value(x, free) == pytest.approx(by_hand, rel=1e-9)
    numeric = [(value(x + h) - value(x - h)) / 2e-6 for h in 1e-6 * np.eye(len(x))]
    np.testing.assert_allclose(form.density()(x, *form.arguments(data))[1], numeric, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", [UniformForm(), NormalForm(1.0, np.nan)], ids=str)
def test_the_pymc_model_has_the_same_constraint(form):
    data = prepared(two_columns())
    model = form.to_pymc(data)
    start = {name: np.asarray(value) + 0.3 for name, value in model.initial_point().items()}
    found = float(model.compile_logp(vars=[model["prevalence"]], jacobian=False)(start))
    sigma = np.exp(start["sigma_log__"])
    draws = density.Coefficients(start["risk"][None], np.zeros((1, 3)), np.array([sigma]), np.ones(1))
    risk = form.positive(draws, draws.risk @ data.X.T)[0]
    by_hand = [
        ((np.average(risk[own], weights=data.weight[own]) - mean) / se) ** 2
        for own, (mean, se) in zip(map(data.groups.members, range(4)), data.groups.known, strict=True)
    ]
    assert found == pytest.approx(-0.5 * sum(by_hand), rel=1e-8)


def test_one_group_of_all_is_the_prevalence_of_all():
    everybody = GroupPrevalence(("all",), np.zeros((120, 1), dtype=np.int64), np.array([[0.3, 0.02]]))
    one, other = prepared(everybody), prepared(prevalence=(0.3, 0.02))
    x = np.random.default_rng(2).normal(0, 0.7, one.n_parameters)
    for ours, theirs in zip(*(density.log_density(x, *d.as_tuple()) for d in (one, other)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# ---------------------------------------------------------------------- a known truth
def test_prevalences_by_group_find_the_risk_of_a_group_that_is_tested_less():
    """The overall prevalence leaves open which group has the risk; by group it is known."""
    table, y, tested, truth = world()
    south = table["south"].to_numpy() == 1
    overall = fit((truth.mean(), 0.005), table.drop(columns="district"), y, tested)
    by_group = fit({"district": known(table, truth)}, table, y, tested)
    error = {}
    for name, model in (("overall", overall), ("by group", by_group)):
        risk = model.risk(table)
        error[name] = np.abs(risk.mean() - truth).mean()
        low, high = risk.interval(0.9).T
        assert np.mean((low < truth) & (truth < high)) > 0.75
    assert error["by group"] < error["overall"]
    found = by_group.risk(table).draws[:, south].mean(axis=1)
    assert found.mean() == pytest.approx(truth[south].mean(), abs=0.01)
    assert found.std() < 0.7 * overall.risk(table).draws[:, south].mean(axis=1).std()
    assert by_group.sensitivity_["times_stated"] == [0.8, 0.9, 1.0, 1.1, 1.2]
    assert by_group.sensitivity_["p_value"][2] > 0.01
    assert "times the stated ones" in str(by_group.summary())


@pytest.mark.statistical
def test_intervals_with_prevalences_by_group_cover():
    """Twenty worlds: 90 % intervals of every unit's risk and of the mean risk of the untested.

    The coverage of a world's units has a standard deviation of .27 over worlds, that of twenty one of .06.
    """
    units, untested = [], []
    for seed in range(20):
        table, y, tested, truth = world(800, seed)
        model = fit({"district": known(table, truth, 0.01)}, table, y, tested)
        risk = model.risk(table)
        low, high = risk.interval(0.9).T
        units.append(np.mean((low < truth) & (truth < high)))
        low, high = np.quantile(risk.draws[:, tested == 0].mean(axis=1), [0.05, 0.95])
        untested.append(low < truth[tested == 0].mean() < high)
    assert np.mean(units) > 0.74
    assert np.mean(untested) > 0.75


def test_a_wrong_prevalence_of_one_group_is_named():
    table, y, tested, truth = world(3000)
    figures = known(table, truth)
    figures["north"] = (0.75, 0.01)
    with pytest.warns(DataWarning, match=r"most of all 0\.75 \(se 0\.01\) of district=north"):
        SelectiveLabelsRisk(prevalence={"district": figures}, expertise=["south"], **FAST).fit(
            table, y, treatment=tested
        )


# ---------------------------------------------------------------------- tables and files
def test_labels_are_no_features_and_new_places_need_none(tmp_path):
    table, y, tested, truth = world(400)
    model = fit({"district": known(table, truth)}, table, y, tested)
    assert list(model.design_names_) == ["south", "age"]
    plain = model.predict_proba(table.drop(columns="district"))
    np.testing.assert_array_equal(model.predict_proba(table), plain)
    model.save(tmp_path / "risk.safetensors")
    again = causalsat.load(tmp_path / "risk.safetensors")
    np.testing.assert_array_equal(again.predict_proba(table), plain)
    assert again.prevalence == model.prevalence


def test_numbers_are_features_and_labels_too():
    table, y, tested, truth = world(400)
    figures = {0: {level: (truth[table["south"] == level].mean(), 0.01) for level in (0, 1)}}
    numbers = table[["south", "age"]].to_numpy()
    by_position = fit(figures, numbers, y, tested)
    by_name = fit({"south": figures[0]}, table[["south", "age"]], y, tested)
    np.testing.assert_allclose(by_name.predict_proba(table), by_position.predict_proba(numbers))
    assert by_position.draws_.risk.shape[1] == 3


@pytest.mark.parametrize(
    ("prevalence", "error", "says"),
    [
        ({}, ParameterError, r"prevalence=\{\}"),
        ({"district": (0.2, 0.1)}, ParameterError, "mapping of the column's labels"),
        ({"district": {"north": 0.2}}, ParameterError, r"prevalence\['district'\]\['north'\]=0.2"),
        ({"district": {"north": (1.2, 0.1)}}, ParameterError, "between 0 and 1"),
        ({"district": {"nord": (0.2, 0.1)}}, ParameterError, r"labels of district: '(north|south|west)'"),
        ({"region": {"north": (0.2, 0.1)}}, ColumnError, "not a column"),
        ({0: {"north": (0.2, 0.1)}}, ColumnError, "name of a column"),
        ({True: {"north": (0.2, 0.1)}}, ParameterError, "position in an array"),
    ],
)
def test_what_is_no_prevalence_by_group_is_refused(prevalence, error, says):
    table, y, tested, _ = world(100)
    with pytest.raises(error, match=says):
        SelectiveLabelsRisk(prevalence=prevalence).fit(table, y, treatment=tested)
