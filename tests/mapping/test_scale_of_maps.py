"""Imagery on another scale than the fit's: maps stop before the first tile, or tell of it and mark it in support."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from map_toys import UTM, smooth_pixels, write_raster
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat import DoublyRobustEffect, ImageEncoder, RandomConvFeatures
from causalsat.encoders import allow_other_scale
from causalsat.exceptions import ImageryError, MapWarning
from causalsat.mapping import map_effects

QUIET = {"progress": False, "png": False, "html": False}


@pytest.fixture(scope="module")
def scene():
    """Reflectances with a pattern and noise, without a hole."""
    pattern = smooth_pixels((100, 140), bands=2, seed=5, hole=False)
    noise = np.random.default_rng(0).standard_normal(pattern.shape)
    return (0.15 * np.exp(0.3 * pattern / np.std(pattern) + 0.1 * noise)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(scene, tmp_path_factory):
    imagery = causalsat.open_imagery(write_raster(tmp_path_factory.mktemp("fit") / "fit.tif", scene))
    rng = np.random.default_rng(1)
    x, y = rng.uniform(400_200, 404_000, 120), rng.uniform(297_200, 299_800, 120)
    units = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=UTM)
    images = ImageEncoder(imagery, 240.0, RandomConvFeatures(16, random_state=0), n_components=3)
    model = make_pipeline(images, DoublyRobustEffect(random_state=0))
    t = np.arange(120) % 2
    return model.fit(units, t + rng.standard_normal(120), doublyrobusteffect__treatment=t), imagery


def other(folder, pixels, **options):
    return causalsat.open_imagery(write_raster(folder / "other.tif", pixels.astype(np.float32)), **options)


def bands(result):
    with rasterio.open(result.path) as raster:
        return raster.read()


def test_the_imagery_of_the_fit_and_another_season_are_mapped_in_silence(scene, fitted, tmp_path):
    model, imagery = fitted
    with warnings.catch_warnings():
        warnings.simplefilter("error", MapWarning)
        own = bands(map_effects(model, imagery, None, 240, tmp_path / "own.tif", **QUIET))
        map_effects(model, other(tmp_path, 1.2 * scene), None, 240, tmp_path / "drier.tif", **QUIET)
    assert np.nanmin(own[5]) > 0


@pytest.mark.parametrize("factor", [10.0, 0.1, 1e4])
def test_other_units_stop_before_the_first_tile(scene, fitted, tmp_path, factor):
    imagery = other(tmp_path, factor * scene)
    with pytest.raises(
        ImageryError, match=r"imagery 'other'.* times those of the fit in all bands.*allow_other_scale"
    ):
        map_effects(fitted[0], imagery, None, 240, tmp_path / "e.tif", **QUIET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.tif"]
    scaled = other(tmp_path, factor * scene, scale=1 / factor)
    values = bands(map_effects(fitted[0], scaled, None, 240, tmp_path / "e.tif", **QUIET))
    np.testing.assert_allclose(
        values[0], bands(map_effects(*fitted, None, 240, tmp_path / "own.tif", **QUIET))[0], atol=1e-3
    )


def test_who_insists_gets_a_map_that_says_what_it_is_worth(scene, fitted, tmp_path):
    imagery = other(tmp_path, 10 * scene)
    with allow_other_scale(), pytest.warns(MapWarning, match="about 10 times those of the fit"):
        values = bands(map_effects(fitted[0], imagery, None, 240, tmp_path / "e.tif", **QUIET))
    assert np.isfinite(values[0]).any()
    assert np.nanmax(values[5]) < 0.05


def test_undeclared_nodata_has_no_support(scene, fitted, tmp_path):
    pixels = scene.copy()
    pixels[:, :, :70] = 0.0
    path = write_raster(tmp_path / "zero.tif", pixels, nodata=None)
    with pytest.warns(MapWarning, match=r"of the pixels repeat their neighbour.* most often 0, 0.*nodata="):
        values = bands(map_effects(fitted[0], causalsat.open_imagery(path), None, 240, tmp_path / "e.tif", **QUIET))
    support = values[5]
    assert np.nanmax(support[:, : support.shape[1] // 2 - 2]) < 0.01
    own = bands(map_effects(*fitted, None, 240, tmp_path / "own.tif", **QUIET))[5]
    right = slice(support.shape[1] // 2 + 2, None)
    np.testing.assert_allclose(support[:, right], own[:, right], atol=0.02)


def test_chips_half_under_clouds_have_half_the_support(scene, fitted, tmp_path):
    pixels = scene.copy()
    pixels[:, :, np.arange(140) // 12 % 2 == 1] = np.nan
    values = bands(map_effects(fitted[0], other(tmp_path, pixels), None, 60, tmp_path / "e.tif", **QUIET))
    own = bands(map_effects(*fitted, None, 60, tmp_path / "own.tif", **QUIET))
    mapped = np.isfinite(values[0])
    share = (values[5] / own[5])[mapped]
    assert mapped.sum() > 500
    assert (share < 0.9).mean() > 0.3
    assert np.quantile(values[5][mapped], 0.95) < np.quantile(own[5][mapped], 0.95)
    clear = np.isfinite(pixels[0]).reshape(50, 2, 70, 2).all(axis=(1, 3))
    inside = np.zeros_like(clear)
    inside[2:-2, 2:-2] = np.lib.stride_tricks.sliding_window_view(clear, (5, 5)).all(axis=(2, 3))
    np.testing.assert_allclose(values[5][inside], own[5][inside], atol=1e-3)


def test_a_model_that_remembers_no_scale_says_nothing(scene, fitted, tmp_path):
    from copy import deepcopy

    model = deepcopy(fitted[0])
    del model[0].encoders_[0].pixel_scale_
    with warnings.catch_warnings():
        warnings.simplefilter("error", MapWarning)
        found = map_effects(model, other(tmp_path, 10 * scene), None, 240, tmp_path / "e.tif", **QUIET)
    assert found.n_mapped > 0
