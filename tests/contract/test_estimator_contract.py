"""The estimator contract, checked for every public estimator: a new one is found by itself."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import xarray as xr
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import _num_samples

import causalsat
from causalsat import EffectPosterior
from causalsat.base import EffectEstimator
from causalsat.exceptions import CausalsatError, CausalsatWarning, ColumnError, DataError, TreatmentError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def public_estimators() -> list[type[EffectEstimator]]:
    found = [getattr(causalsat, name) for name in causalsat._LAZY]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, EffectEstimator)]


ESTIMATORS = public_estimators()
each = pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)


def make(kind, **more):
    return kind(**{**kind._contract_parameters, **more})


def trial(n=240, p=3, seed=0):
    """A cluster-randomised trial with effect 1 + x0 in 40 clusters."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(40), n // 40)
    t = (rng.permutation(40) % 2)[groups]
    X = rng.standard_normal((n, p))
    y = X @ np.linspace(1, 0, p) + t * (1 + X[:, 0]) + 0.5 * rng.standard_normal(40)[groups] + rng.standard_normal(n)
    return X, y, t, groups


@pytest.fixture(scope="module")
def fitted():
    """Fit each estimator once for the tests that only read it."""
    cache = {}

    def get(kind):
        if kind not in cache:
            X, y, t, groups = trial()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CausalsatWarning)
                cache[kind] = make(kind).fit(X, y, treatment=t, groups=groups)
        return cache[kind]

    return get


def test_there_are_estimators_to_check():
    assert {"BayesianLinearEffect", "DoublyRobustEffect"} <= {kind.__name__ for kind in ESTIMATORS}


@each
def test_constructor_only_stores_and_clone_copies(kind):
    est = make(kind)
    for name, value in est.get_params(deep=False).items():
        assert getattr(est, name) is value or getattr(est, name) == value
    copy = clone(est)
    assert copy.get_params(deep=False).keys() == est.get_params(deep=False).keys()
    assert not [name for name in vars(copy) if name.endswith("_") and not name.startswith("_")]
    assert (
        kind().set_params(**est.get_params(deep=False)).get_params(deep=False).keys()
        == est.get_params(deep=False).keys()
    )


@each
def test_finds_the_effect_and_returns_posteriors(kind, fitted):
    X, *_ = trial()
    est = fitted(kind)
    tau = est.predict(X)
    post = est.effect(X)
    assert isinstance(post, EffectPosterior)
    assert tau.shape == (len(X),)
    np.testing.assert_allclose(tau, post.mean())
    assert abs(float(post.ate()) - 1) < 0.6
    assert np.corrcoef(tau, X[:, 0])[0, 1] > 0.7
    np.testing.assert_allclose(est.effect(X, treatment=0.0, baseline=1.0).mean(), -tau, atol=1e-8)
    np.testing.assert_allclose(est.effect(X, treatment=1.0, baseline=1.0).draws, 0, atol=1e-8)


@each
def test_score_is_higher_for_the_right_effects(kind, fitted):
    X, y, t, groups = trial(seed=1)
    est = fitted(kind)
    assert est.score(X, y, treatment=t, groups=groups) > 0.02
    assert est.score(X[::-1], y, treatment=t, groups=groups) < est.score(X, y, treatment=t, groups=groups)
    with pytest.raises(TreatmentError, match="no treatment"):
        est.score(X, y)


@each
def test_frames_arrays_and_dataarrays_agree(kind):
    X, y, t, groups = trial(120)
    names = ["a", "b", "c"]
    frame = pd.DataFrame(X, columns=names, index=np.arange(120) + 1000)
    array = xr.DataArray(X, dims=("unit", "feature"))
    by_array = make(kind).fit(X, y, treatment=t, groups=groups).predict(X)
    by_frame = make(kind).fit(frame, pd.Series(y), treatment=pd.Series(t), groups=groups)
    by_xarray = make(kind).fit(array, y, treatment=t, groups=groups)
    np.testing.assert_allclose(by_frame.predict(frame), by_array, rtol=1e-6)
    np.testing.assert_allclose(by_xarray.predict(array), by_array, rtol=1e-6)
    assert list(by_frame.effect(frame).index[:2]) == [1000, 1001]
    shuffled = frame[["c", "a", "b"]]
    np.testing.assert_allclose(by_frame.predict(shuffled), by_array, rtol=1e-6)
    assert list(by_frame.feature_names_in_) == names


@each
def test_roles_by_column_name_are_the_same_as_by_array(kind):
    X, y, t, groups = trial(120)
    frame = pd.DataFrame(X, columns=list("abc"))
    whole = frame.assign(arm=t, village=groups.astype(str))
    by_name = make(kind).fit(whole, y, treatment="arm", groups="village")
    by_value = make(kind).fit(frame, y, treatment=t, groups=groups.astype(str))
    np.testing.assert_allclose(by_name.predict(whole), by_value.predict(frame), rtol=1e-6)
    np.testing.assert_allclose(by_name.predict(frame), by_value.predict(frame), rtol=1e-6)
    assert by_name.score(whole, y) == pytest.approx(by_value.score(frame, y, treatment=t))


@each
def test_prediction_does_not_depend_on_row_order_or_company(kind, fitted):
    X, *_ = trial()
    est = fitted(kind)
    tau = est.predict(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(est.predict(X[order]), tau[order], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        [est.predict(X[i : i + 1])[0] for i in (0, 5, 17)], tau[[0, 5, 17]], rtol=1e-6, atol=1e-8
    )


@each
def test_same_seed_same_answer(kind):
    X, y, t, groups = trial(120)
    runs = [make(kind, random_state=3).fit(X, y, treatment=t, groups=groups).effect(X).draws for _ in range(2)]
    np.testing.assert_array_equal(*runs)


@each
def test_missing_values_at_fit_and_at_prediction(kind):
    X, y, t, groups = trial(240)
    holed = X.copy()
    holed[::7, 1] = np.nan
    est = make(kind).fit(holed, y, treatment=t, groups=groups)
    assert np.isfinite(est.predict(holed)).all()
    assert "x1 missing" in est.design_names_
    with pytest.warns(CausalsatWarning, match="missing values in x0"):
        est.predict(np.array([[np.nan, 0.0, 0.0]]))


@each
def test_weights_count(kind):
    X, y, t, _ = trial(240)
    X = X[:, 1:]  # without the modifier, the two halves differ in their mean effect
    half = np.arange(240) < 120
    y = y + np.where(half, 2.0, -2.0) * t
    light = make(kind).fit(X, y, treatment=t, sample_weight=np.where(half, 1.0, 0.02)).effect(X).ate()
    heavy = make(kind).fit(X, y, treatment=t, sample_weight=np.where(half, 0.02, 1.0)).effect(X).ate()
    assert float(light) - float(heavy) > 2


@each
def test_clusters_widen_the_interval_of_the_average(kind):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 20)
    t = (np.arange(30) % 2)[groups]
    X = rng.standard_normal((600, 2))
    y = X[:, 0] + t + 2 * rng.standard_normal(30)[groups] + rng.standard_normal(600)
    naive = make(kind).fit(X, y, treatment=t).effect(X).ate().sd()[0]
    honest = make(kind).fit(X, y, treatment=t, groups=groups).effect(X).ate().sd()[0]
    assert honest > 2 * naive


@each
def test_constant_outcome_gives_no_effect(kind):
    X, y, t, groups = trial(120)
    est = make(kind).fit(X, np.full_like(y, 3.0), treatment=t, groups=groups)
    np.testing.assert_allclose(est.predict(X), 0, atol=1e-3)


@each
@pytest.mark.parametrize("n", [4, 8, 20])
def test_tiny_samples_fit_or_say_why_not(kind, n):
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((n, 2)), np.arange(n) % 2
    try:
        est = make(kind).fit(X, t + rng.standard_normal(n), treatment=t)
    except CausalsatError as error:
        assert n < 20, error
        assert error.todo or error.expected
    else:
        assert np.isfinite(est.predict(X)).all()


@each
def test_save_and_load_are_equal(kind, fitted, tmp_path):
    X, *_ = trial()
    est = fitted(kind)
    est.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    assert type(again) is kind
    np.testing.assert_array_equal(again.effect(X).draws, est.effect(X).draws)
    np.testing.assert_array_equal(again.support(X), est.support(X))
    assert str(again.summary()) == str(est.summary())


@each
def test_summary_reads_like_a_regression_table(kind, fitted):
    text = str(fitted(kind).summary())
    assert "ATE" in text
    assert "=====" in text


@each
def test_support_is_high_inside_and_low_far_away(kind, fitted):
    X, *_ = trial()
    est = fitted(kind)
    assert np.median(est.support(X)) > 0.2
    assert est.support(np.full((1, 3), 40.0))[0] < 0.05


@each
@pytest.mark.parametrize("routing", [True, False])
def test_cross_validation_in_a_pipeline(kind, routing):
    X, y, t, groups = trial(240)
    with sklearn.config_context(enable_metadata_routing=routing):
        if routing:
            model, data = make_pipeline(StandardScaler(), make(kind)), X
            params = {"treatment": t, "groups": groups}
            scores = cross_val_score(model, data, y, cv=GroupKFold(3), params=params)
        else:  # a column's name needs no routing
            data = pd.DataFrame(X, columns=list("abc")).assign(arm=t)
            scores = cross_val_score(
                make(kind), data, y, cv=GroupKFold(3), groups=groups, params={"treatment": "arm"}
            )
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    assert scores.mean() > 0


BAD_FITS = [
    ("no treatment", lambda X, y, t: (X, y, {}), TreatmentError, "no treatment"),
    ("one arm", lambda X, y, t: (X, y, {"treatment": np.ones_like(t)}), TreatmentError, "one value only"),
    ("stata arms", lambda X, y, t: (X, y, {"treatment": t + 2}), TreatmentError, "recode it"),
    ("text arms", lambda X, y, t: (X, y, {"treatment": np.where(t, "yes", "no")}), DataError, "numbers"),
    ("treatment missing", lambda X, y, t: (X, y, {"treatment": np.where(t, np.nan, 0)}), TreatmentError, "missing"),
    ("treatment too short", lambda X, y, t: (X, y, {"treatment": t[:-1]}), DataError, "treatment of shape"),
    ("unknown column", lambda X, y, t: (pd.DataFrame(X), y, {"treatment": "arm"}), ColumnError, "not a column"),
    ("name for an array", lambda X, y, t: (X, y, {"treatment": "arm"}), ColumnError, "names a column"),
    ("outcome missing", lambda X, y, t: (X, np.where(t, np.nan, y), {"treatment": t}), DataError, "missing"),
    ("outcome infinite", lambda X, y, t: (X, np.where(t, np.inf, y), {"treatment": t}), DataError, "infinite"),
    ("outcome text", lambda X, y, t: (X, y.astype(str) + "kg", {"treatment": t}), DataError, "numbers"),
    ("outcome too short", lambda X, y, t: (X, y[:-1], {"treatment": t}), DataError, "y of shape"),
    ("no outcome", lambda X, y, t: (X, None, {"treatment": t}), DataError, "y is None"),
    ("infinite feature", lambda X, y, t: (np.where(X > 2, np.inf, X), y, {"treatment": t}), DataError, "inf"),
    ("empty column", lambda X, y, t: (X * [1, np.nan, 1], y, {"treatment": t}), DataError, "no value at all"),
    (
        "text column",
        lambda X, y, t: (pd.DataFrame(X, columns=list("abc")).assign(d="north"), y, {"treatment": t}),
        ColumnError,
        "OneHotEncoder",
    ),
    (
        "date column",
        lambda X, y, t: (pd.DataFrame(X, columns=list("abc")).assign(d=pd.Timestamp("2020")), y, {"treatment": t}),
        ColumnError,
        "dates",
    ),
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
    ("one dimension", lambda X, y, t: (X[:, 0], y, {"treatment": t}), DataError, "2D array"),
    (
        "negative weight",
        lambda X, y, t: (X, y, {"treatment": t, "sample_weight": -np.ones(len(y))}),
        DataError,
        "weight",
    ),
    ("group missing", lambda X, y, t: (X, y, {"treatment": t, "groups": np.where(t, None, 1)}), DataError, "groups"),
    ("propensity of 1", lambda X, y, t: (X, y, {"treatment": t, "propensity": 1.0}), DataError, "between 0 and 1"),
]


@each
@pytest.mark.parametrize(("bad", "error", "says"), [b[1:] for b in BAD_FITS], ids=[b[0] for b in BAD_FITS])
def test_bad_input_gets_a_clear_error(kind, bad, error, says):
    X, y, t, _ = trial(120)
    X, y, options = bad(X, y, t)
    with pytest.raises(error, match=says):
        make(kind).fit(X, y, **options)


@each
def test_bad_prediction_input_gets_a_clear_error(kind, fitted):
    est = fitted(kind)
    with pytest.raises(DataError, match="features"):
        est.predict(np.zeros((2, 5)))
    with pytest.raises(CausalsatError, match="treatment"):
        est.effect(np.zeros((2, 3)), treatment=[1, 2, 3])
    with pytest.raises(sklearn.exceptions.NotFittedError):
        make(kind).predict(np.zeros((2, 3)))


def supplying_treatment(kind):
    """The adapter through which scikit-learn's checks, which know no treatment, run: every second unit is treated."""

    class Supplied(kind):
        def fit(self, X, y=None, sample_weight=None):
            return super().fit(X, y, treatment=np.arange(_num_samples(X)) % 2, sample_weight=sample_weight)

        def score(self, X, y, sample_weight=None):
            return super().score(X, y, treatment=np.arange(_num_samples(X)) % 2, sample_weight=sample_weight)

    Supplied.__name__ = Supplied.__qualname__ = f"Supplied{kind.__name__}"
    globals()[Supplied.__name__] = Supplied  # pickle looks classes up by name
    return Supplied


# scikit-learn's checks that cannot pass, each with its reason
CANNOT_PASS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "weights are survey weights, not repeated units, and the adapter's treatment depends on a row's position"
    ),
}


@each
@pytest.mark.slow
def test_scikit_learns_own_checks_pass(kind):
    results = check_estimator(make(supplying_treatment(kind)), on_fail=None, on_skip=None)
    failed = {r["check_name"]: repr(r["exception"])[:300] for r in results if r["status"] == "failed"}
    assert {k: v for k, v in failed.items() if k not in CANNOT_PASS} == {}
    assert sum(r["status"] == "passed" for r in results) >= 30
