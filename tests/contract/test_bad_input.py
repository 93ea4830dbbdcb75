"""What every public estimator answers to input that it cannot use."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import xarray as xr
from contract_kinds import each, each_of_images, each_of_tables, fitted, make
from contract_worlds import take, uses_images, world_of

from causalsat.exceptions import CausalsatError, ColumnError, DataError, TreatmentError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")

# (what is wrong, X, y and t -> arguments of fit, error, what it says)
BAD_ROLES = [
    ("no treatment", lambda X, y, t: (X, y, {}), TreatmentError, "no treatment"),
    ("one arm", lambda X, y, t: (X, y, {"treatment": np.ones_like(t)}), TreatmentError, "one value only"),
    ("stata arms", lambda X, y, t: (X, y, {"treatment": t + 2}), TreatmentError, "recode it"),
    ("text arms", lambda X, y, t: (X, y, {"treatment": np.where(t, "yes", "no")}), DataError, "numbers"),
    ("complex arms", lambda X, y, t: (X, y, {"treatment": t + 0j}), DataError, "complex"),
    ("treatment missing", lambda X, y, t: (X, y, {"treatment": np.where(t, np.nan, 0)}), TreatmentError, "missing"),
    ("treatment infinite", lambda X, y, t: (X, y, {"treatment": np.where(t, np.inf, 0)}), TreatmentError, "infinite"),
    ("treatment too short", lambda X, y, t: (X, y, {"treatment": t[:-1]}), DataError, "treatment of shape"),
    ("treatment 2D", lambda X, y, t: (X, y, {"treatment": np.c_[t, t]}), DataError, "treatment of shape"),
    ("name for an array", lambda X, y, t: (X, y, {"treatment": "arm"}), ColumnError, "names a column"),
    ("outcome missing", lambda X, y, t: (X, np.where(t, np.nan, y), {"treatment": t}), DataError, "missing"),
    ("outcome infinite", lambda X, y, t: (X, np.where(t, np.inf, y), {"treatment": t}), DataError, "infinite"),
    ("outcome text", lambda X, y, t: (X, y.astype(str) + "kg", {"treatment": t}), DataError, "numbers"),
    ("outcome too short", lambda X, y, t: (X, y[:-1], {"treatment": t}), DataError, "y of shape"),
    ("outcome 2D", lambda X, y, t: (X, np.c_[y, y], {"treatment": t}), DataError, "y of shape"),
    ("no outcome", lambda X, y, t: (X, None, {"treatment": t}), DataError, "y is None"),
    (
        "negative weight",
        lambda X, y, t: (X, y, {"treatment": t, "sample_weight": -np.ones(len(y))}),
        DataError,
        "weight",
    ),
    ("no weight", lambda X, y, t: (X, y, {"treatment": t, "sample_weight": 0.0 * y}), DataError, "every weight zero"),
    (
        "weight missing",
        lambda X, y, t: (X, y, {"treatment": t, "sample_weight": np.where(t, np.nan, 1)}),
        DataError,
        "missing",
    ),
    ("group missing", lambda X, y, t: (X, y, {"treatment": t, "groups": np.where(t, None, 1)}), DataError, "groups"),
    ("groups too short", lambda X, y, t: (X, y, {"treatment": t, "groups": t[:-1]}), DataError, "groups of shape"),
    ("propensity of 1", lambda X, y, t: (X, y, {"treatment": t, "propensity": 1.0}), DataError, "between 0 and 1"),
    (
        "propensity text",
        lambda X, y, t: (X, y, {"treatment": t, "propensity": "half"}),
        ColumnError,
        "names a column",
    ),
]


def frame(X, **more):
    return pd.DataFrame(X, columns=list("abc")).assign(**more)


BAD_TABLES = [
    ("unknown column", lambda X, y, t: (frame(X), y, {"treatment": "arm"}), ColumnError, "not a column"),
    ("infinite feature", lambda X, y, t: (np.where(X > 2, np.inf, X), y, {"treatment": t}), DataError, "inf"),
    ("empty column", lambda X, y, t: (X * [1, np.nan, 1], y, {"treatment": t}), DataError, "no value at all"),
    ("text column", lambda X, y, t: (frame(X, d="north"), y, {"treatment": t}), ColumnError, "OneHotEncoder"),
    ("dates", lambda X, y, t: (frame(X, d=pd.Timestamp("2020")), y, {"treatment": t}), ColumnError, "dates"),
    (
        "categories",
        lambda X, y, t: (frame(X, d=pd.Categorical(["n"] * len(y))), y, {"treatment": t}),
        ColumnError,
        "not numbers",
    ),
    ("complex features", lambda X, y, t: (X + 1j, y, {"treatment": t}), DataError, "[Cc]omplex"),
    ("text features", lambda X, y, t: (X.astype(str) + "m", y, {"treatment": t}), DataError, "could not convert"),
    (
        "sparse",
        lambda X, y, t: (scipy.sparse.csr_matrix(X), y, {"treatment": t}),
        (DataError, TypeError),
        "[Ss]parse",
    ),
    ("no rows", lambda X, y, t: (X[:0], y[:0], {"treatment": t[:0]}), DataError, "0 sample"),
    ("no features", lambda X, y, t: (X[:, :0], y, {"treatment": t}), DataError, "0 feature"),
    ("one dimension", lambda X, y, t: (X[:, 0], y, {"treatment": t}), DataError, "2D array"),
    (
        "chips",
        lambda X, y, t: (
            xr.DataArray(np.zeros((len(y), 3, 8, 8)), dims=("unit", "band", "y", "x")),
            y,
            {"treatment": t},
        ),
        DataError,
        "encode chips",
    ),
]
BAD_IMAGES = [
    ("a table", lambda X, y, t: (np.zeros((len(y), 3)), y, {"treatment": t}), DataError, "chips"),
    ("one image", lambda X, y, t: (X[0], y, {"treatment": t}), DataError, "chips"),
    (
        "dimensions in another order",
        lambda X, y, t: (X.transpose("unit", "y", "x", "band"), y, {"treatment": t}),
        DataError,
        "transpose",
    ),
    ("no images", lambda X, y, t: (X[:0], y[:0], {"treatment": t[:0]}), DataError, "0 units"),
    ("text", lambda X, y, t: (X.astype(str), y, {"treatment": t}), DataError, "numbers"),
    ("infinite pixels", lambda X, y, t: (X.where(X < 1.5, np.inf), y, {"treatment": t}), DataError, "inf"),
]


def check_refused(kind, bad, error, says):
    world = world_of(kind, 120)
    X, y, options = bad(world.X, world.y, world.t)
    with pytest.raises(error, match=says):
        make(kind).fit(X, y, **options)


@each
@pytest.mark.parametrize(("bad", "error", "says"), [b[1:] for b in BAD_ROLES], ids=[b[0] for b in BAD_ROLES])
def test_bad_roles_get_a_clear_error(kind, bad, error, says, request):
    if "text arms" in request.node.name and getattr(kind, "takes_arms", False):
        pytest.skip("labels of arms are what it takes")
    check_refused(kind, bad, error, says)


@each_of_tables
@pytest.mark.parametrize(("bad", "error", "says"), [b[1:] for b in BAD_TABLES], ids=[b[0] for b in BAD_TABLES])
def test_bad_tables_get_a_clear_error(kind, bad, error, says):
    check_refused(kind, bad, error, says)


@each_of_images
@pytest.mark.parametrize(("bad", "error", "says"), [b[1:] for b in BAD_IMAGES], ids=[b[0] for b in BAD_IMAGES])
def test_bad_images_get_a_clear_error(kind, bad, error, says):
    check_refused(kind, bad, error, says)


@each
def test_bad_prediction_input_gets_a_clear_error(kind):
    X, est = world_of(kind).X, fitted(kind)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        make(kind).predict(X)
    with pytest.raises(CausalsatError, match="treatment"):
        est.effect(take(X, [0, 1]), treatment=[1, 2, 3])
    with pytest.raises(CausalsatError, match="baseline"):
        est.effect(take(X, [0, 1]), baseline=np.nan)
    if uses_images(kind):
        with pytest.raises(CausalsatError, match="shape"):
            est.predict(X[:2, :, :8, :8])
        with pytest.raises(CausalsatError, match=r"shape|band"):
            est.predict(X[:2, :2])
        return
    with pytest.raises(DataError, match="features"):
        est.predict(np.zeros((2, 5)))
    with pytest.raises(DataError, match="inf"):
        est.predict(np.array([[np.inf, 0.0, 0.0]]))
    with pytest.raises(DataError, match="could not convert"):
        est.predict(np.array([["a", "b", "c"]]))
