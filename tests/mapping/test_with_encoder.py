"""Maps of the package's own models: dense features, covariates beside them, several sources, sparse imagery."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from map_toys import UTM, smooth_pixels, write_raster
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import causalsat
from causalsat import DoublyRobustEffect, ImageEncoder, RandomConvFeatures
from causalsat.encoders.scale import familiar_shares, support_factor
from causalsat.exceptions import ColumnError, DataWarning
from causalsat.mapping import map_effects

QUIET = {"progress": False, "png": False, "html": False}
DATA = Path(os.environ.get("CAUSALSAT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CHIP_M = 240.0


def encoder(imagery, **options):
    return ImageEncoder(imagery, CHIP_M, RandomConvFeatures(16, random_state=0), n_components=4, **options)


def fit(model, X, seed=0):
    treatment = np.arange(len(X)) % 2
    outcome = treatment * (X["age"] / 40).to_numpy() + np.random.default_rng(seed).standard_normal(len(X))
    return model.fit(X, outcome, doublyrobusteffect__treatment=treatment)


def cells(path):
    """Values at all mapped cells and the cells' centres."""
    with rasterio.open(path) as raster:
        values, t = raster.read(), raster.transform
    row, col = np.nonzero(np.isfinite(values[0]))
    centres = gpd.points_from_xy(t.c + t.a * (col + 0.5) + 0.3, t.f + t.e * (row + 0.5) - 0.3)
    return values[:, row, col], gpd.GeoDataFrame(geometry=centres, crs=UTM)


def test_the_map_is_the_effect_patch_by_patch(imagery, trial, tmp_path):
    model = fit(make_pipeline(encoder(imagery), DoublyRobustEffect(random_state=0)), trial)
    result = map_effects(model, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    values, centres = cells(result.path)
    assert 2000 < len(centres) < 2700
    patchwise = model[:-1]
    patchwise.set_params(imageencoder__dense=False, imageencoder__on_invalid="mask")
    latents = patchwise.transform(centres)
    effects = model[-1].effect(latents)
    np.testing.assert_allclose(values[0], effects.mean(), atol=2e-4)
    np.testing.assert_allclose(values[1], effects.sd(), atol=2e-4)
    scale = model[0].encoders_[0].pixel_scale_
    shares = familiar_shares(scale, np.asarray(imagery.chips(centres, size_m=CHIP_M, on_invalid="mask", min_valid=0)))
    assert 20 < (shares < 0.9).sum() < 700  # chips with a part of the hole
    support = model[-1].support(latents) * support_factor(scale, shares)
    np.testing.assert_allclose(values[5], support, atol=0.02)


def test_covariates_that_do_not_modify_the_effect_may_be_absent(imagery, trial, tmp_path):
    trial = trial.assign(age=trial["age"].where(np.arange(len(trial)) > 5))
    plain = DoublyRobustEffect(modifiers="img*", random_state=0)
    kept = fit(make_pipeline(encoder(imagery, keep=("age",)), plain), trial.assign(age=trial["age"].fillna(40)))
    columns = make_column_transformer(
        (encoder(imagery), ["geometry"]), (StandardScaler(), ["age"]), verbose_feature_names_out=False
    ).set_output(transform="pandas")
    beside = fit(
        make_pipeline(columns, DoublyRobustEffect(modifiers="img*", random_state=0)), trial.fillna({"age": 40})
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        maps = [
            map_effects(m, imagery, None, 90, tmp_path / f"{i}.tif", **QUIET) for i, m in enumerate((kept, beside))
        ]
    first, second = (cells(result.path)[0][0] for result in maps)
    np.testing.assert_allclose(first, second, atol=5e-3)  # the nuisances see age on another scale
    assert first.std() > 0.02


def test_covariates_that_modify_the_effect_are_named(imagery, trial, tmp_path):
    model = fit(make_pipeline(encoder(imagery, keep=("age",)), DoublyRobustEffect(random_state=0)), trial)
    with pytest.raises(ColumnError, match="'age'"):
        map_effects(model, imagery, None, 90, tmp_path / "e.tif", **QUIET)
    young, old = (
        cells(map_effects(model, imagery, None, 90, tmp_path / "e.tif", covariates={"age": a}, **QUIET).path)[0][0]
        for a in (20, 60)
    )
    assert np.ptp(old - young) < 1e-4
    assert abs((old - young).mean()) > 1e-3


def test_two_sources_on_one_grid(imagery, trial, tmp_path):
    """A model of two rasters is mapped on the grid of one; the other need not have its resolution."""
    from affine import Affine

    coarse = smooth_pixels((50, 70), bands=1, seed=3, hole=False)
    path = write_raster(tmp_path / "coarse.tif", coarse, transform=Affine(60.0, 0, 399_800.0, 0, -60.0, 300_120.0))
    sources = {"fine": imagery, "coarse": causalsat.open_imagery(path)}
    model = fit(make_pipeline(encoder(sources), DoublyRobustEffect(random_state=0)), trial)
    result = map_effects(model, imagery, None, 120, tmp_path / "e.tif", **QUIET)
    values, centres = cells(result.path)
    model.set_params(imageencoder__on_invalid="mask")
    np.testing.assert_allclose(values[0], causalsat.effect(model, centres).mean(), atol=2e-4)


def test_a_saved_model_makes_the_same_map(imagery, trial, tmp_path):
    model = fit(make_pipeline(encoder(imagery), DoublyRobustEffect(random_state=0)), trial)
    causalsat.save(model, tmp_path / "model.safetensors")
    first = map_effects(model, imagery, None, 120, tmp_path / "a.tif", **QUIET)
    again = map_effects(
        causalsat.load(tmp_path / "model.safetensors"), imagery, None, 120, tmp_path / "b.tif", **QUIET
    )
    assert first.job == again.job
    np.testing.assert_array_equal(cells(first.path)[0], cells(again.path)[0])


def test_a_tiles_window_is_read_once(imagery, trial, tmp_path, monkeypatch):
    latents = {"convolutions": RandomConvFeatures(16, random_state=0), "network": causalsat.TorchvisionEncoder()}
    latents["network"].set_params(dense_stride=32)
    reads, plain = [], type(imagery)._read_window
    monkeypatch.setattr(type(imagery), "_read_window", lambda *window: reads.append(window[1:]) or plain(*window))
    for name, latent in latents.items():
        images = ImageEncoder(imagery, CHIP_M, latent, n_components=4, on_invalid="mask")
        model = fit(make_pipeline(images, DoublyRobustEffect(random_state=0)), trial)
        reads.clear()
        map_effects(model, imagery, None, 240, tmp_path / f"{name}.tif", tile_px=64, **QUIET)
        assert sum(height > 16 for _, _, height, _ in reads) == 1  # beside small ones that show the scale


def test_the_users_model_is_left_as_it_was(imagery, trial, tmp_path):
    model = fit(make_pipeline(encoder(imagery), DoublyRobustEffect(random_state=0)), trial)
    map_effects(model, imagery, None, 120, tmp_path / "a.tif", min_valid=0.9, **QUIET)
    assert model[0].on_invalid == "raise"
    assert model[0].min_valid == 0.5


@pytest.mark.skipif(not (DATA / "uganda_yop").exists(), reason="the Uganda data are not here (CAUSALSAT_DATA)")
def test_uganda_is_mapped_where_there_is_imagery(tmp_path):
    """The imagery is islands of 5 km round each site: cells near a site are mapped, those between are nodata."""
    folder = DATA / "uganda_yop"
    imagery = causalsat.open_imagery(folder / "landsat_geocover_2000.tif")
    table = pd.read_csv(folder / "units.csv").drop_duplicates("site").iloc[::3]
    units = gpd.GeoDataFrame(geometry=gpd.points_from_xy(table.lon, table.lat), crs=4326)
    image = ImageEncoder(imagery, 1000.0, RandomConvFeatures(16), n_components=4)
    model = make_pipeline(image, DoublyRobustEffect(random_state=0))
    model.fit(units, table.outcome.to_numpy(), doublyrobusteffect__treatment=table.treatment.to_numpy())
    site = units.iloc[[0]].to_crs(imagery.crs)
    result = map_effects(model, imagery, site.buffer(8000), 342.0, tmp_path / "e.tif", **QUIET)
    values, _ = cells(result.path)
    with rasterio.open(result.path) as raster:
        at_site = next(raster.sample([(site.geometry.x.iloc[0], site.geometry.y.iloc[0])]))[0]
    assert np.isfinite(at_site)
    assert 150 < result.n_mapped < 0.8 * result.shape[0] * result.shape[1]
    assert ((values[4] >= 0) & (values[4] <= 1)).all()
