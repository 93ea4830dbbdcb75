"""Cross-fitted effects: nothing leaks, roles reach the last step, folds are sound."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import sklearn
import xarray as xr
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GroupKFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalsat import DoublyRobustEffect, EffectPosterior
from causalsat.evaluation import SpatialBlockCV, crossfit_effects
from causalsat.exceptions import DataError, DataWarning, ParameterError, TreatmentError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def trial(n_clusters=60, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_clusters), 6)
    X = rng.standard_normal((len(groups), 3))
    t = (rng.permutation(n_clusters) % 2)[groups]
    y = t * (1 + X[:, 0]) + 0.3 * rng.standard_normal(len(groups))
    return X, y, t, groups


class Memory(BaseEstimator):
    """Predicts 1 for a unit whose first feature it has seen, 0 otherwise; keeps what fit was given."""

    def fit(self, X, y, *, treatment, groups=None, sample_weight=None, propensity=None):
        self.seen_ = set(np.asarray(X)[:, 0])
        self.given_ = {"treatment": treatment, "groups": groups, "weight": sample_weight, "propensity": propensity}
        return self

    def effect(self, X, *, treatment=1.0, baseline=0.0):
        known = np.array([[float(v in self.seen_) for v in np.asarray(X)[:, 0]]])
        return EffectPosterior(np.repeat(known, 2, axis=0))


class FirstColumn(TransformerMixin, BaseEstimator):
    """An encoder of a geometry: longitude and latitude."""

    def fit(self, X, y=None):
        self.n_seen_ = len(X)
        return self

    def transform(self, X):
        return pd.DataFrame({"x": X.geometry.x, "y": X.geometry.y}, index=X.index)


def test_no_unit_is_predicted_by_a_model_that_saw_its_cluster():
    X, y, t, groups = trial()
    X[:, 0] = groups
    out = crossfit_effects(Memory(), X, y, treatment=t, groups=groups, progress=False)
    assert (out.tau == 0).all()
    leaky = crossfit_effects(Memory(), X, y, treatment=t, progress=False)  # units of a cluster in several folds
    assert leaky.tau.mean() > 0.9


def test_effects_are_found_and_intervals_ordered():
    X, y, t, groups = trial()
    out = crossfit_effects(DoublyRobustEffect(), X, y, treatment=t, groups=groups, progress=False)
    assert np.corrcoef(out.tau, X[:, 0])[0, 1] > 0.97
    assert ((out.lower < out.tau) & (out.tau < out.upper)).all()
    assert (out.sd > 0).all()
    assert len(out) == len(y)
    assert list(out.to_dataframe().columns) == ["tau", "sd", "lower", "upper", "fold"]
    rank = out.within_fold_rank()
    for k in range(5):
        np.testing.assert_allclose(np.sort(rank[out.fold == k]), (np.arange((out.fold == k).sum()) + 0.5) / 72)


@pytest.mark.parametrize("routing", [False, True])
def test_pipelines_get_their_roles_with_and_without_routing(routing):
    X, y, t, groups = trial()
    bare = crossfit_effects(
        DoublyRobustEffect(), X, y, treatment=t, groups=groups, sample_weight=np.ones(len(y)), progress=False
    )
    model = make_pipeline(StandardScaler(), DoublyRobustEffect())
    with sklearn.config_context(enable_metadata_routing=routing):
        piped = crossfit_effects(
            model, X, y, treatment=t, groups=groups, sample_weight=np.ones(len(y)), progress=False
        )
    np.testing.assert_allclose(piped.tau, bare.tau, atol=1e-6)


def test_names_of_columns_and_other_containers():
    X, y, t, groups = trial()
    by_array = crossfit_effects(DoublyRobustEffect(), X, y, treatment=t, groups=groups, progress=False)
    frame = pd.DataFrame(X, columns=list("abc"), index=np.arange(len(y)) + 7).assign(arm=t, village=groups)
    by_name = crossfit_effects(DoublyRobustEffect(), frame, y, treatment="arm", groups="village", progress=False)
    np.testing.assert_allclose(by_name.tau, by_array.tau, atol=1e-8)
    assert by_name.index[0] == 7
    array = xr.DataArray(X, dims=("unit", "feature"))
    by_xarray = crossfit_effects(DoublyRobustEffect(), array, y, treatment=t, groups=groups, progress=False)
    np.testing.assert_allclose(by_xarray.tau, by_array.tau, atol=1e-8)


def test_roles_are_cut_to_the_training_fold():
    X, y, t, groups = trial()
    X[:, 0] = np.arange(len(y))
    w, e = np.arange(1.0, len(y) + 1), np.linspace(0.2, 0.8, len(y))
    out = crossfit_effects(
        Memory(), X, y, treatment=t, groups=groups, sample_weight=w, propensity=e, progress=False, return_models=True
    )
    for k, model in enumerate(out.models):
        rows = np.flatnonzero(out.fold != k)
        np.testing.assert_array_equal(model.given_["weight"], w[rows])
        np.testing.assert_array_equal(model.given_["propensity"], e[rows])
        np.testing.assert_array_equal(model.given_["treatment"], t[rows])
        assert model.seen_ == set(rows.astype(float))


def test_geometry_is_encoded_inside_the_folds_and_blocks_are_not_split():
    X, y, t, groups = trial(80)
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 100_000, size=(80, 2))[groups] + np.array([400_000, 300_000])
    units = gpd.GeoDataFrame({"age": X[:, 0]}, geometry=gpd.points_from_xy(*xy.T), crs=32636)
    model = make_pipeline(FirstColumn(), DoublyRobustEffect())
    out = crossfit_effects(
        model, units, y, treatment=t, groups=groups, cv=SpatialBlockCV(20_000, 4), progress=False, return_models=True
    )
    assert set(out.fold) == {0, 1, 2, 3}
    assert all(m[0].n_seen_ == (out.fold != k).sum() for k, m in enumerate(out.models))
    assert all(len(set(out.fold[groups == g])) == 1 for g in range(80))


def test_folds_depend_on_the_seed_only():
    X, y, t, groups = trial()
    first, again, other = (
        crossfit_effects(Memory(), X, y, treatment=t, groups=groups, random_state=s, progress=False).fold
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = crossfit_effects(
        Memory(), X[order], y[order], treatment=t[order], groups=groups[order], random_state=1, progress=False
    )
    np.testing.assert_array_equal(shuffled.fold, first[order])
    for k in range(5):
        assert set(t[first == k]) == {0, 1}


@pytest.mark.slow
def test_two_processes_give_the_same():
    X, y, t, groups = trial()
    one, two = (
        crossfit_effects(DoublyRobustEffect(), X, y, treatment=t, groups=groups, n_jobs=j, progress=False).tau
        for j in (1, 2)
    )
    np.testing.assert_array_equal(one, two)


def test_rows_within_a_buffer_do_not_enter_a_fit():
    """Outcomes of the units that a buffer removes are changed by a thousand: nothing of that fold moves."""
    X, y, t, groups = trial()
    place = np.random.default_rng(1).uniform(0, 100_000, size=(60, 2))[groups]
    cv = SpatialBlockCV(20_000, n_splits=3, geometry=place, buffer_m=12_000)
    run = {"treatment": t, "groups": groups, "cv": cv, "progress": False, "return_models": True}
    before = crossfit_effects(DoublyRobustEffect(), X, y, **run)
    for k, (train, test) in enumerate(cv.split(X, y, groups)):
        removed = np.setdiff1d(np.arange(len(y)), np.concatenate([train, test]))
        assert len(removed)
        changed = y.copy()
        changed[removed] += 1000.0
        after = crossfit_effects(DoublyRobustEffect(), X, changed, **run)
        np.testing.assert_array_equal(after.tau[test], before.tau[test])
        np.testing.assert_array_equal(after.sd[test], before.sd[test])
        assert (before.fold[test] == k).all()
        assert not np.allclose(np.delete(after.tau, test), np.delete(before.tau, test))


class Given:
    """A splitter that gives what it was given."""

    def __init__(self, *splits):
        self.splits = splits

    def split(self, X, y=None, groups=None):
        yield from self.splits


def test_splitters_that_cannot_be_used_and_those_that_split_clusters():
    from sklearn.model_selection import KFold

    X, y, t, groups = trial()
    rows, run = np.arange(len(y)), {"treatment": t, "progress": False}
    half = rows < 180
    masks = crossfit_effects(Memory(), X, y, cv=Given((half, ~half), (~half, half)), **run)
    assert masks.fold.tolist() == (~half * 0 + half).astype(int).tolist()
    with pytest.raises(DataError, match="trains on units that it tests"):
        crossfit_effects(Memory(), X, y, cv=Given((rows, rows[half]), (rows[half], rows[~half])), **run)
    with pytest.raises(DataError, match="positions below 360"):
        crossfit_effects(Memory(), X, y, cv=Given((rows + 1, rows)), **run)
    with pytest.raises(DataError, match="in 0 units to train on"):
        crossfit_effects(Memory(), X, y, cv=Given((rows[:0], rows)), **run)
    with pytest.warns(DataWarning, match="units of one cluster in both"):
        crossfit_effects(Memory(), X, y, groups=groups, cv=KFold(3, shuffle=True, random_state=0), **run)


def test_bad_input():
    X, y, t, groups = trial()
    with pytest.raises(TreatmentError):
        crossfit_effects(Memory(), X, y, treatment=np.ones(len(y)), progress=False)
    with pytest.raises(DataError, match="twice"):
        crossfit_effects(
            Memory(), X, y, treatment=t, cv=ShuffleSplit(5, test_size=0.5, random_state=0), progress=False
        )
    with pytest.raises(DataError, match="never holds out"):
        crossfit_effects(Memory(), X, y, treatment=t, cv=ShuffleSplit(1, random_state=0), progress=False)
    with pytest.raises(ParameterError, match="splitter"):
        crossfit_effects(Memory(), X, y, treatment=t, cv="five", progress=False)
    with pytest.raises(ParameterError, match="level"):
        crossfit_effects(Memory(), X, y, treatment=t, level=90, progress=False)
    with pytest.raises(DataError, match="groups of shape"):
        crossfit_effects(Memory(), X, y, treatment=t, groups=groups[:-1], progress=False)
    with pytest.raises(DataError, match="only one treatment"):
        crossfit_effects(
            Memory(),
            X,
            y,
            treatment=np.arange(len(y)) < 180,
            groups=np.arange(len(y)) < 180,
            cv=GroupKFold(2),
            progress=False,
        )
    with pytest.raises(ParameterError, match=r"no effect\(\)"):
        crossfit_effects(make_pipeline(StandardScaler(), Plain()), X, y, treatment=t, progress=False)


class Plain(BaseEstimator):
    def fit(self, X, y, treatment=None):
        return self
