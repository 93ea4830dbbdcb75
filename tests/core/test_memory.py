"""Means, intervals and averages of many units hold the draws of a few; what holds them all says so before."""

import warnings

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.core import memory
from causalsat.exceptions import LargeResultWarning, TooLargeError
from causalsat.posterior import EffectPosterior

RNG = np.random.default_rng(0)
N = 12_000  # more than are held at once


@pytest.fixture(scope="module")
def model():
    X = RNG.standard_normal((200, 3))
    t = np.arange(200) % 2
    return causalsat.DoublyRobustEffect(random_state=0).fit(X, X[:, 0] + t * (1 + X[:, 1]), treatment=t)


@pytest.fixture(scope="module")
def units():
    return RNG.standard_normal((N, 3))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(memory, "CHUNK_BYTES", 1 << 20)


@pytest.mark.parametrize("form", [np.asarray, pd.DataFrame, np.ndarray.tolist])
@pytest.mark.usefixtures("small_chunks")
def test_chunks_give_what_all_draws_give(model, units, form):
    X = form(units)
    whole = model.effect(X)
    np.testing.assert_allclose(model.predict(X), whole.mean(), rtol=1e-12)
    table = model.effect_table(X, level=0.8)
    pd.testing.assert_frame_equal(table, whole.to_dataframe(0.8), rtol=1e-10)
    weights = np.arange(N) % 3
    np.testing.assert_allclose(model.average_effect(X, weights=weights).draws, whole.ate(weights).draws, rtol=1e-10)
    assert model.average_effect(X).index.tolist() == ["ATE"]


@pytest.mark.usefixtures("small_chunks")
def test_labels_and_levels_of_each_unit_are_kept_in_chunks(model, units):
    frame = pd.DataFrame(units, index=[f"u{k}" for k in range(N)])
    level = pd.Series(np.arange(N) % 2, index=frame.index).sample(frac=1, random_state=0)  # aligned by label
    whole = model.effect(frame, treatment=level, baseline=1 - level)
    table = model.effect_table(frame, treatment=level, baseline=1 - level)
    pd.testing.assert_frame_equal(table, whole.to_dataframe(), rtol=1e-10)
    assert table.index[7] == "u7"


def test_few_draws_are_held_at_a_time(model, units, monkeypatch):
    most, own = [], model._effect_draws

    def effect_draws(X, treatment, baseline):
        draws = own(X, treatment, baseline)
        most.append(draws.nbytes)
        return draws

    monkeypatch.setattr(memory, "CHUNK_BYTES", 10 << 20)
    monkeypatch.setattr(model, "_effect_draws", effect_draws)
    model.predict(units)
    assert max(most) <= 10 << 20
    assert len(most) > 3


def test_draws_that_take_much_are_announced_before_they_are_made(model, units, monkeypatch):
    made, own = [], model._effect_draws
    monkeypatch.setattr(model, "_effect_draws", lambda X, t, b: made.append(len(X)) or own(X, t, b))
    monkeypatch.setattr(memory, "LARGE_BYTES", 1 << 20)
    with pytest.warns(LargeResultWarning, match=r"draws of 12,000 units: .* GiB.*effect_table\(X\) for intervals"):
        model.effect(units)
    made.clear()
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 << 20)
    with pytest.raises(TooLargeError, match=r"draws of 12,000 units.*memory that are free.*predict\(X\) for means"):
        model.effect(units)
    assert made == [2]  # nothing but a probe
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(units)


def test_groups_of_many_units_take_no_table_of_units_by_groups(monkeypatch):
    draws = RNG.standard_normal((5, 3000))
    groups, weights = RNG.integers(0, 400, 3000), RNG.uniform(1, 2, 3000)
    dense = EffectPosterior(draws).gate(groups, weights)
    monkeypatch.setattr("causalsat.posterior.MAX_DENSE", 10)
    monkeypatch.setattr("causalsat.posterior.CHUNK_BYTES", 4000)
    sparse = EffectPosterior(draws).gate(groups, weights)
    np.testing.assert_allclose(sparse.draws, dense.draws, rtol=1e-12)
    frame = pd.DataFrame(draws.T).assign(w=weights, g=groups)
    first = frame[frame.g == dense.index[0]]
    np.testing.assert_allclose(sparse.draws[:, 0], np.average(first[list(range(5))], axis=0, weights=first.w))


def test_quantiles_and_sds_in_chunks_are_those_of_all(monkeypatch):
    draws = RNG.standard_normal((50, 1000))
    whole = (
        EffectPosterior(draws).quantile([0.1, 0.5]),
        EffectPosterior(draws).sd(),
        EffectPosterior(draws).quantile(0.3),
    )
    monkeypatch.setattr("causalsat.posterior.CHUNK_BYTES", 4000)
    parts = (
        EffectPosterior(draws).quantile([0.1, 0.5]),
        EffectPosterior(draws).sd(),
        EffectPosterior(draws).quantile(0.3),
    )
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
