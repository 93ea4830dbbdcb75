"""Importance of segments: known effects of brightness, types that a square decides, invalid pixels, refusals."""

from __future__ import annotations

import warnings

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat.analysis import segment_importance
from causalsat.analysis.segments import segments_of
from causalsat.exceptions import CausalsatWarning, ImageryError, ParameterError

mpl.use("Agg")

PX, SIDE = 8, 96


class Brightness(TransformerMixin, BaseEstimator):
    """A chip's mean of each band over its valid pixels."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return np.nanmean(np.asarray(X, dtype=float), axis=(-2, -1))

    def get_feature_names_out(self, names=None):
        return np.array([f"mean{j}" for j in range(self.n_features_in_)], dtype=object)


def scene(seed=0, hole=False):
    """Two bands of a 96 x 96 raster of 10 m pixels, blocks of four pixels with one value each."""
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(0, 1, size=(2, SIDE // 4, SIDE // 4)).repeat(4, axis=1).repeat(4, axis=2)
    if hole:
        blocks[:, :4, :4] = np.nan
    centre = np.arange(SIDE) * 10.0 + 5
    data = xr.DataArray(
        blocks.astype(np.float32),
        dims=("band", "y", "x"),
        coords={"band": ["a", "b"], "y": 960 - centre, "x": centre},
    )
    return causalsat.open_imagery(data.rio.write_crs("EPSG:32636"))


def places(n=12):
    """Centres of chips of 8 pixels on the lattice of the blocks, a chip each; the first at the upper left corner."""
    row, col = np.divmod(np.arange(n), 4)
    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(40.5 + 80 * col, 919.5 - 80 * row), crs="EPSG:32636")


def model_of(imagery, X):
    encoder = causalsat.ImageEncoder(imagery, 80.0, Brightness(), n_components=None)
    rng = np.random.default_rng(1)
    rows = X.loc[X.index.repeat(60)].reset_index(drop=True)
    t = np.arange(len(rows)) % 2
    bright = encoder.fit_transform(rows).iloc[:, 0].to_numpy() * encoder.reduction_.scale[0]
    y = t * 3 * bright + 0.1 * rng.standard_normal(len(rows))
    pipeline = make_pipeline(encoder, causalsat.DoublyRobustEffect(random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return pipeline.fit(rows, y, doublyrobusteffect__treatment=t)


@pytest.mark.parametrize("fill", ["median", "surroundings"])
def test_segments_of_a_linear_effect_move_it_by_share_times_brightness(fill):
    imagery, X = scene(), places()
    model = model_of(imagery, X)
    found = segment_importance(model, X, n_segments=4, compactness=0.01, fill=fill)
    np.testing.assert_array_equal(found.chips, model[0].read_chips(X))
    table = found.table
    assert (table["pixels"].groupby("unit").sum() == PX * PX).all()
    average = np.median(found.chips, axis=(0, 2, 3))  # of the fit's images, which are these
    names = list(model[0].get_feature_names_out())

    def effect(means):
        features = pd.DataFrame(model[0].reduction_.apply(np.asarray(means, dtype=float)), columns=names)
        return model[-1].effect(features).draws

    for unit in (0, 5, 11):
        chip, labels = found.chips[unit].astype(float), found.labels[unit]
        whole = chip.mean(axis=(1, 2))
        for k in range(1, labels.max() + 1):
            inside = labels == k
            filling = average if fill == "median" else chip[:, ~inside].mean(axis=1)
            share = inside.mean()
            without = whole - share * (chip[:, inside].mean(axis=1) - filling)
            draws = np.diff(effect([without, whole]), axis=1).ravel()
            row = table.loc[(unit, k)]
            assert row["mean"] == pytest.approx(draws.mean(), abs=1e-5)
            assert row["sd"] == pytest.approx(draws.std(ddof=1), rel=1e-3, abs=1e-6)
            assert row["lower"] <= row["mean"] <= row["upper"]
            np.testing.assert_allclose(row[["a", "b"]].astype(float), chip[:, inside].mean(axis=1), rtol=1e-5)
            truth = 3 * share * (chip[0, inside].mean() - filling[0])
            assert row["mean"] == pytest.approx(truth, abs=0.05)


def test_what_raises_the_effect_is_described_by_its_bands():
    imagery, X = scene(), places()
    found = segment_importance(model_of(imagery, X), X, n_segments=4, compactness=0.01)
    groups = found.describe(3)
    assert groups["a"].is_monotonic_increasing
    assert groups["a"].iloc[-1] - groups["a"].iloc[0] > 0.4
    assert abs(groups["b"].iloc[-1] - groups["b"].iloc[0]) < 0.25
    assert groups["n"].sum() == len(found.table)


def test_invalid_pixels_are_in_no_segment_and_images_without_any_are_refused():
    X = places()
    imagery = scene(hole=True)
    model = model_of(imagery, X)
    found = segment_importance(model, X.iloc[:3], n_segments=4)
    assert (found.labels[0][:4, :4] == 0).all()
    assert found.table.loc[0, "pixels"].sum() == 48
    assert np.isfinite(found.table.to_numpy()).all()
    assert segments_of(found.chips[1], np.ones((PX, PX), dtype=bool), 4, 0.2).min() == 1
    outside = X.iloc[:1].set_geometry(gpd.points_from_xy([-500.0], [5000.0]), crs=X.crs)
    with pytest.raises(ImageryError, match="valid"):
        segment_importance(model, outside)


def test_the_square_that_decides_a_type_is_its_most_important_segment():
    rng = np.random.default_rng(0)
    n, px = 80, 12
    kind = rng.permutation(n) % 2
    images = rng.normal(size=(n, 1, px, px)).astype(np.float32) * 0.3
    images[:, :, 2:7, 3:8] += 2.5 * kind[:, None, None, None]
    image = np.repeat(np.arange(n), 6)
    t = (rng.permutation(n) % 2)[image]
    y = t * 3.0 * kind[image] + rng.normal(size=len(image))
    X = xr.DataArray(images[image], dims=("unit", "band", "y", "x"))
    model = causalsat.ImageEffectClusters(
        n_clusters=2, backbone="random_conv", n_draws=80, n_tune=80, n_restarts=1, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        model.fit(X, y, treatment=t, groups=image)
    chosen = np.flatnonzero(kind[image] == 1)[::6][:5]
    square = np.zeros((px, px), dtype=bool)
    square[2:7, 3:8] = True
    for what in ("cluster", "effect"):
        found = segment_importance(model, X[chosen], what=what, n_segments=9)
        for i, unit in enumerate(found.table.index.get_level_values("unit").unique()):
            rows = found.table.loc[unit]
            best = rows["mean"].idxmax()
            within = np.array([square[found.labels[i] == k].mean() for k in rows.index])
            assert within[best - 1] > 0.6
            assert rows["prob_positive"][best] > 0.5
            assert np.abs(rows["mean"][within == 0]).max() < 0.2 * rows["mean"].max()
    figure = found.plot(n=3)
    assert len(figure.axes) == 7  # two rows of three images and a colour bar
    with pytest.raises(ParameterError, match="a type from 1 to 2"):
        segment_importance(model, X[:1], what="cluster", cluster=3)


def test_what_cannot_be_explained_is_refused():
    imagery, X = scene(), places()
    model = model_of(imagery, X)
    with pytest.raises(ParameterError, match="ImageEffectClusters"):
        segment_importance(model, X, what="cluster")
    with pytest.raises(ParameterError, match="'median' or 'surroundings'"):
        segment_importance(model, X, fill="zero")
    with pytest.raises(ParameterError, match="reads no images"):
        segment_importance(model[-1], X)
    two = causalsat.ImageEncoder(imagery, [80.0, 160.0], Brightness(), n_components=None).fit(places(8).iloc[5:7])
    with pytest.raises(ParameterError, match="2 sources or sizes"):
        two.read_chips(X)
