"""Outcomes, doses, weights, probabilities and features at the ends of what numbers can be are refused by name."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from contract_kinds import each, each_of_tables, make
from contract_worlds import world_of

from causalsat.exceptions import CausalsatWarning, DataError

N, ROW = 120, 3


def with_value(values, value):
    changed = np.array(values, dtype=float)
    changed[ROW] = value
    return changed


def roles_of(world):
    return {"y": world.y, "treatment": world.t, "sample_weight": np.ones(N)}


REFUSED = {
    "outcome": (lambda w: {"y": with_value(w.y, 1e300)}, r"outcome y has the value 1e\+300 at row 3"),
    "outcomes": (lambda w: {"y": np.asarray(w.y) * 1e300}, r"outcome y has the value .*e\+300"),
    "small outcomes": (lambda w: {"y": np.asarray(w.y) * 1e-300}, r"outcome y varies by .*e-300 only"),
    "dose": (lambda w: {"treatment": with_value(w.t, 1e300)}, r"treatment has the value 1e\+300 at row 3"),
    "weight": (lambda w: {"sample_weight": with_value(np.ones(N), 1e300)}, r"sample_weight gives one of .* 100\.0 %"),
    "weights": (
        lambda w: {"sample_weight": 10 ** np.random.default_rng(0).uniform(-300, 300, N)},
        r"sample_weight gives one of",
    ),
    "one arm": (lambda w: {"sample_weight": np.where(w.t == np.max(w.t), 0.0, 1.0)}, r"one value only \(0\)"),
    "one unit": (lambda w: {"sample_weight": with_value(np.zeros(N), 1.0)}, "1 sample"),
    "probability": (lambda w: {"propensity": with_value(np.full(N, 0.5), 1e-300)}, r"propensity from 1e-300 to 0\.5"),
    "certainty": (lambda w: {"propensity": with_value(np.full(N, 0.5), 1 - 2e-16)}, r"propensity from 0\.5 to 0\.99"),
}


@pytest.mark.parametrize("case", REFUSED)
@each
def test_values_at_the_ends_are_refused_by_name_and_value(kind, case):
    world = world_of(kind, N)
    change, says = REFUSED[case]
    roles = {**roles_of(world), **change(world)}
    with pytest.raises(DataError, match=says) as caught:
        make(kind).fit(world.X, **roles)
    assert caught.value.expected


@each_of_tables
def test_features_at_the_ends_are_refused_by_name_and_value(kind):
    world = world_of(kind, N)
    frame = world.frame.copy()
    name = next(c for c in frame.columns if frame[c].dtype.kind == "f")
    frame.loc[frame.index[ROW], name] = -1e300
    with pytest.raises(DataError, match=rf"column '{name}' has the value -1e\+300 at row 3"):
        make(kind).fit(frame, world.y, treatment=world.t)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_weights_of_any_size_are_those_of_mean_one(scale):
    from causalsat import DoublyRobustEffect

    world = world_of(DoublyRobustEffect, N)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, N)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        ours, plain = (
            DoublyRobustEffect(random_state=0)
            .fit(world.X, world.y, treatment=world.t, sample_weight=w)
            .predict(world.X)
            for w in (weight * scale, weight)
        )
    np.testing.assert_allclose(ours, plain, rtol=1e-9)


def test_the_column_of_an_outcome_is_named():
    import pandas as pd

    from causalsat.core.inputs import check_outcome

    with pytest.raises(DataError, match=r"the outcome y \('income'\) has the value 1e\+200 at row 1"):
        check_outcome(pd.Series([1.0, 1e200, 2.0], name="income"), 3)
