"""Layers beyond the effect: what models disagree on, and the error learnt from held-out regions."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from map_toys import FirstFeature, smooth_pixels, toy_model, write_raster

import causalsat
from causalsat.evaluation import DirectUncertainty
from causalsat.exceptions import CausalsatWarning, DataError, ParameterError, ResumeError
from causalsat.imagery import open_imagery
from causalsat.mapping import map_effects
from causalsat.plots import plot_map

QUIET = {"progress": False, "png": False, "html": False}


class SecondFeature(FirstFeature):
    """Effect: the second feature."""

    def _effect_draws(self, X, treatment, baseline):
        return super()._effect_draws(X[:, 1:], treatment, baseline)


def second(imagery, trial, size_m):
    from sklearn.pipeline import make_pipeline

    steps = toy_model(imagery, trial, size_m)
    model = make_pipeline(steps[0], SecondFeature())
    n = len(trial)
    return model.fit(trial, np.random.default_rng(0).standard_normal(n), secondfeature__treatment=np.arange(n) % 2)


@pytest.mark.parametrize("size_m", [240.0, 360.0])  # places encoded once for both models, and once for each
def test_disagreement_is_the_spread_of_the_models(model, imagery, trial, tmp_path, monkeypatch, size_m):
    from map_toys import ChipMeans

    calls, whole = [], ChipMeans.transform
    monkeypatch.setattr(ChipMeans, "transform", lambda self, X: calls.append(self.size_m) or whole(self, X))
    other = second(imagery, trial, size_m)
    calls.clear()
    both = map_effects(model, imagery, None, 90, tmp_path / "both.tif", others=[other], tile_px=20, **QUIET)
    tiles = len(calls) // (1 if size_m == 240.0 else 2)
    assert sorted(set(calls)) == sorted({240.0, size_m})
    assert both.bands[-1] == "disagreement"
    alone = [map_effects(m, imagery, None, 90, tmp_path / f"{k}.tif", **QUIET) for k, m in enumerate((model, other))]
    assert tiles == 4
    first, last = (result.to_xarray() for result in alone)
    array = both.to_xarray()
    np.testing.assert_array_equal(array.sel(band="cate"), first.sel(band="cate"))
    wanted = np.abs(first.sel(band="cate") - last.sel(band="cate")) / np.sqrt(2)
    both_valid = np.isfinite(wanted.values)
    found = array.sel(band="disagreement").values
    np.testing.assert_allclose(found[both_valid], wanted.values[both_valid], atol=1e-5)
    assert both_valid.sum() > 900
    assert float(wanted.max()) > 0.5
    assert "Effects on" in str(both)


def test_learned_error_rises_away_from_the_trial(model, imagery, trial, tmp_path):
    features = model[:-1].transform(trial).to_numpy()
    region = np.digitize(features[:, 0], np.quantile(features[:, 0], [0.25, 0.5, 0.75]))
    loss = 0.1 + features[:, 0] ** 2 + 0.01 * np.random.default_rng(1).chisquare(1, len(features))
    trust = DirectUncertainty().fit(features, loss, folds=region)
    result = map_effects(model, imagery, None, 90, tmp_path / "e.tif", learned_error=trust, **QUIET)
    assert result.bands == (*result.bands[:6], "learned_error")
    array = result.to_xarray()
    cate, error = (array.sel(band=name).values.ravel() for name in ("cate", "learned_error"))
    seen = np.isfinite(cate)
    np.testing.assert_array_equal(np.isfinite(error), seen)
    assert np.corrcoef(cate[seen] ** 2, error[seen])[0, 1] > 0.6
    with_sd = DirectUncertainty().fit(features, loss, folds=region, sd=np.full(len(loss), 0.6))
    same = map_effects(model, imagery, None, 90, tmp_path / "s.tif", learned_error=with_sd, **QUIET)
    np.testing.assert_allclose(same.to_xarray().sel(band="learned_error").values.ravel(), error, rtol=0.05)


def test_pixels_depend_on_the_layers(model, imagery, trial, tmp_path, monkeypatch):
    from causalsat.mapping import effects_map

    whole, done = effects_map.map_tile, []

    def two(job, tile):
        if len(done) == 2:
            raise ArithmeticError
        done.append(tile)
        return whole(job, tile)

    others = [second(imagery, trial, 240.0)]
    with monkeypatch.context() as patch:
        patch.setattr(effects_map, "map_tile", two)
        with pytest.raises(ArithmeticError):
            map_effects(model, imagery, None, 90, tmp_path / "e.tif", tile_px=12, others=others, **QUIET)
    with pytest.raises(ResumeError, match="others"):
        map_effects(model, imagery, None, 90, tmp_path / "e.tif", tile_px=12, **QUIET)
    resumed = map_effects(model, imagery, None, 90, tmp_path / "e.tif", tile_px=12, others=others, **QUIET)
    fresh = map_effects(model, imagery, None, 90, tmp_path / "f.tif", tile_px=12, others=others, **QUIET)
    np.testing.assert_array_equal(resumed.to_xarray(), fresh.to_xarray())


def test_what_is_no_layer_is_refused(model, imagery, trial, tmp_path):
    out = tmp_path / "e.tif"
    with pytest.raises(ParameterError, match="no effect"):
        map_effects(model, imagery, None, 90, out, others=[model[0]], **QUIET)
    with pytest.raises(ParameterError, match="DirectUncertainty"):
        map_effects(model, imagery, None, 90, out, learned_error=DirectUncertainty(), **QUIET)
    rng = np.random.default_rng(0)
    wide = DirectUncertainty().fit(rng.normal(size=(40, 5)), rng.chisquare(1, 40), folds=np.arange(40) % 4)
    with pytest.raises(DataError, match="5 features for a model of 2"):
        map_effects(model, imagery, None, 90, out, learned_error=wide, **QUIET)


def test_a_dense_network_maps_alike_whatever_the_tiles(trial, tmp_path):
    """Cells of an interrupted, resumed map through a ResNet's dense form, and places encoded one by one."""
    import xarray
    from sklearn.pipeline import make_pipeline

    from causalsat import DoublyRobustEffect, ImageEncoder, TorchvisionEncoder

    imagery = open_imagery(write_raster(tmp_path / "scene.tif", smooth_pixels()))
    encoder = ImageEncoder(imagery, 480.0, TorchvisionEncoder(dense_stride=32), n_components=2)
    few = trial.iloc[::6]
    model = make_pipeline(encoder, DoublyRobustEffect(random_state=0))
    outcome = np.random.default_rng(0).standard_normal(len(few))
    model.fit(few, outcome, doublyrobusteffect__treatment=np.arange(len(few)) % 2)
    settings = {"region": None, "resolution": 240.0, **QUIET}
    whole = map_effects(model, imagery, out=tmp_path / "whole.tif", **settings).to_xarray()
    tiled = map_effects(model, imagery, out=tmp_path / "tiled.tif", tile_px=8, **settings).to_xarray()
    np.testing.assert_allclose(tiled.sel(band="cate"), whole.sel(band="cate"), atol=2e-3)
    again = model[-1].effect(model[:-1].transform(few)).mean()
    x, y = (xarray.DataArray(v.to_numpy(), dims="unit") for v in (few.geometry.x, few.geometry.y))
    near = whole.sel(band="cate").sel(x=x, y=y, method="nearest").values
    assert np.corrcoef(near, again)[0, 1] > 0.8  # a cell's centre lies within half a cell of the place


def test_probabilities_of_image_clusters_are_bands_of_their_map(imagery, trial, tmp_path):
    """Bands named after the types hold what cluster_probabilities gives at the cell's centre."""
    model = causalsat.ImageEffectClusters(
        n_clusters=2, imagery=imagery, size_m=240.0, backbone="random_conv", n_draws=60, n_tune=60, n_restarts=1,
        random_state=0,
    )  # fmt: skip
    bright = np.asarray(imagery.chips(trial, size_m=240.0))[:, 0].mean(axis=(1, 2))
    t = np.arange(len(trial)) % 2
    y = 3 * t * (bright > np.median(bright)) + np.random.default_rng(0).standard_normal(len(trial))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        model.fit(trial, y, treatment=t)
    result = map_effects(model, imagery, None, 300, tmp_path / "types.tif", **QUIET)
    own = ("prob_cluster_1", "prob_cluster_2", "sd_cluster_1", "sd_cluster_2")
    assert result.bands[6:] == own
    with rasterio.open(result.path) as raster:
        assert raster.descriptions[6:] == own
        values, transform = raster.read(), raster.transform
    row, col = np.nonzero(np.isfinite(values[0]))
    assert len(row) > 50
    x, y = transform.c + transform.a * (col + 0.5), transform.f + transform.e * (row + 0.5)
    centres = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x + 0.3, y - 0.3), crs=imagery.crs)
    table = model.cluster_probabilities(centres)
    for k in (1, 2):
        np.testing.assert_allclose(values[5 + k, row, col], table[(k, "mean")], atol=1e-5)
        np.testing.assert_allclose(values[7 + k, row, col], table[(k, "sd")], atol=1e-5)
    np.testing.assert_allclose(values[6:8, row, col].sum(axis=0), 1, atol=1e-5)
    assert values[6, row, col].std() > 0.1
    shown = plot_map(result, layer="prob_cluster_2")
    assert shown.get_title(loc="left") == "Type 2 of image"
