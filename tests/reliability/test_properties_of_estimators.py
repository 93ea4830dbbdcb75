"""What an estimator is given in another form is the same trial: arrays or tables, types, a saved copy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import causalsat
from causalsat import DoublyRobustEffect
from causalsat.exceptions import CausalsatError

FEW = settings(max_examples=3)
ESTIMATORS = {
    "doubly robust": DoublyRobustEffect(random_state=0, n_draws=50),
}


def trial(seed, n=40):
    """A table, outcomes that depend on it, and a treatment."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-20, 20, (n, 2)).astype(float) / 8
    t = rng.permutation(np.arange(n) % 2)
    return X, X[:, 0] + t * X[:, 1] + rng.standard_normal(n), t


def fitted(estimator, X, y, t):
    from sklearn.base import clone

    return clone(estimator).fit(X, y, treatment=t)


@FEW
@given(st.sampled_from(sorted(ESTIMATORS)), st.integers(0, 2**20))
def test_the_form_of_the_input_does_not_matter(name, seed):
    X, y, t = trial(seed)
    wanted = fitted(ESTIMATORS[name], X, y, t).effect(X).draws
    frame = pd.DataFrame(X, columns=["a", "b"], index=np.arange(40) + 7)
    forms = [
        (X.astype(np.float32), y, t.astype(bool)),
        (np.asfortranarray(X), list(y), t.astype(float)),
        (frame, pd.Series(y, frame.index), pd.Series(t, frame.index)[::-1]),
        (frame.to_numpy(), pd.Series(y), pd.Series(t)),
    ]
    for table, outcome, treatment in forms:
        np.testing.assert_allclose(
            fitted(ESTIMATORS[name], table, outcome, treatment).effect(table).draws, wanted, rtol=1e-9, atol=1e-9
        )


@FEW
@given(st.sampled_from(sorted(ESTIMATORS)), st.integers(0, 2**20))
def test_units_are_predicted_one_by_one_as_together_and_by_a_saved_copy(tmp_path_factory, name, seed):
    X, y, t = trial(seed)
    model = fitted(ESTIMATORS[name], X, y, t)
    whole = model.effect(X)
    np.testing.assert_allclose(model.predict(X[:3]), whole.mean()[:3], rtol=1e-6, atol=1e-8)
    lower, upper = whole.interval(0.9).T
    assert (lower <= upper).all()
    path = tmp_path_factory.mktemp("m") / "m.safetensors"
    model.save(path)
    np.testing.assert_array_equal(causalsat.load(path).effect(X).draws, whole.draws)


@given(
    st.sampled_from(["X", "y", "t"]),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, 39),
    st.integers(0, 9),
)
def test_values_that_are_no_numbers_are_handled_or_refused_in_words(part, value, at, seed):
    X, y, t = trial(seed)
    t = t.astype(float)
    {"X": X[:, 0], "y": y, "t": t}[part][at] = value
    try:
        draws = fitted(ESTIMATORS["doubly robust"], X, y, t).effect(X).draws
    except CausalsatError as error:
        assert error.todo or error.expected
    else:
        assert part == "X"
        assert np.isnan(value)
        assert np.isfinite(draws).all()


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_lengths_that_differ_are_refused_in_words(a, b, c):
    X, y, t = trial(0)
    if len({a, b, c}) == 1:
        return
    with pytest.raises(CausalsatError):
        fitted(ESTIMATORS["doubly robust"], X[a:], y[b:], t[c:])
