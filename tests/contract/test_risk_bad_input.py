"""What every public risk model answers to input that it cannot use."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import sklearn
from contract_risks import each, fitted, make, world_of

import causalsat
from causalsat.exceptions import CausalsatError, ColumnError, DataError, TreatmentError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")

BAD = [
    ("no treatment", lambda X, y, t: (X, y, {}), TreatmentError, "no treatment"),
    (
        "everyone tested",
        lambda X, y, t: (X, np.nan_to_num(y), {"treatment": np.ones_like(t)}),
        TreatmentError,
        "one value only",
    ),
    (
        "nobody tested",
        lambda X, y, t: (X, y + np.nan, {"treatment": np.zeros_like(t)}),
        TreatmentError,
        "one value only",
    ),
    ("one class", lambda X, y, t: (X, np.where(t == 1, 0.0, np.nan), {"treatment": t}), DataError, "both outcomes"),
    ("untested as 0", lambda X, y, t: (X, np.nan_to_num(y), {"treatment": t}), DataError, "not tested"),
    ("a hole", lambda X, y, t: (X, y + np.where(t.cumsum() == 9, np.nan, 0), {"treatment": t}), DataError, "missing"),
    ("three classes", lambda X, y, t: (X, y * 2, {"treatment": t}), DataError, "0 and 1"),
    ("outcome text", lambda X, y, t: (X, y.astype(str) + "kg", {"treatment": t}), DataError, "numbers"),
    ("outcome too short", lambda X, y, t: (X, y[:-1], {"treatment": t}), DataError, "y of shape"),
    ("outcome 2D", lambda X, y, t: (X, np.c_[y, y], {"treatment": t}), DataError, "y of shape"),
    ("no outcome", lambda X, y, t: (X, None, {"treatment": t}), DataError, "y is None"),
    ("text arms", lambda X, y, t: (X, y, {"treatment": np.where(t, "yes", "no")}), DataError, "numbers"),
    ("stata arms", lambda X, y, t: (X, y, {"treatment": t + 2}), TreatmentError, "recode it"),
    ("treatment missing", lambda X, y, t: (X, y, {"treatment": np.where(t, np.nan, 0)}), TreatmentError, "missing"),
    ("treatment too short", lambda X, y, t: (X, y, {"treatment": t[:-1]}), DataError, "treatment of shape"),
    ("name for an array", lambda X, y, t: (X, y, {"treatment": "arm"}), ColumnError, "names a column"),
    (
        "negative weight",
        lambda X, y, t: (X, y, {"treatment": t, "sample_weight": -np.ones(len(y))}),
        DataError,
        "weight",
    ),
    ("infinite feature", lambda X, y, t: (np.where(X > 2, np.inf, X), y, {"treatment": t}), DataError, "inf"),
    ("empty column", lambda X, y, t: (X * [1, np.nan, 1], y, {"treatment": t}), DataError, "no value at all"),
    ("text features", lambda X, y, t: (X.astype(str) + "m", y, {"treatment": t}), DataError, "could not convert"),
    (
        "sparse",
        lambda X, y, t: (scipy.sparse.csr_matrix(X), y, {"treatment": t}),
        (DataError, TypeError),
        "[Ss]parse",
    ),
    ("no rows", lambda X, y, t: (X[:0], y[:0], {"treatment": t[:0]}), DataError, "0 sample"),
    ("one dimension", lambda X, y, t: (X[:, 0], y, {"treatment": t}), DataError, "2D array"),
]


@each
@pytest.mark.parametrize(("bad", "error", "says"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_gets_a_clear_error(kind, bad, error, says):
    world = world_of(160)
    X, y, options = bad(world.X, world.y, world.t)
    with pytest.raises(error, match=says):
        make(kind).fit(X, y, **options)


@each
def test_bad_prediction_input_gets_a_clear_error(kind):
    X, est = world_of().X, fitted(kind)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        make(kind).predict_proba(X)
    with pytest.raises(CausalsatError, match="given"):
        est.risk(X, given="unseen")
    with pytest.raises(DataError, match="features"):
        est.risk(np.zeros((2, 5)))
    with pytest.raises(DataError, match="inf"):
        est.risk(np.array([[np.inf, 0.0, 0.0]]))
    with pytest.raises(CausalsatError, match="no effect"):
        causalsat.effect(est, X)
