"""A simulated trial as files and as a Study."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray

from causalsat.simulate import satellite_trial


@pytest.fixture(scope="module")
def trial():
    return satellite_trial("change", n_units=120, n_sites=20, size_px=256, clouds="qa", seed=6)


@pytest.fixture(scope="module")
def written(trial, tmp_path_factory):
    return trial.write(tmp_path_factory.mktemp("simulated"))


def test_images_come_back_as_they_were(trial, written):
    for position, date in enumerate(trial.landscape.dates):
        with rioxarray.open_rasterio(written[f"imagery_{date}"]) as image:
            np.testing.assert_array_equal(image.values, trial.imagery.values[position])
            assert tuple(image.attrs["long_name"]) == tuple(trial.imagery.band.values)
            assert image.rio.crs == trial.imagery.rio.crs
            assert image.rio.transform() == trial.imagery.rio.transform()
            assert image.rio.nodata == 0


def test_tables_come_back_without_the_truth(trial, written):
    units = pd.read_csv(written["units"], index_col="unit")
    assert not {"tau", "mu0", "baseline", "scene"} & set(units.columns)
    np.testing.assert_allclose(units["outcome"], trial.units["outcome"], rtol=1e-9)
    assert (units["treatment"] == trial.units["treatment"]).all()
    points = gpd.GeoSeries.from_xy(units["lon"], units["lat"], crs="EPSG:4326").to_crs(trial.units.crs)
    assert points.distance(trial.units.geometry).max() < 0.01
    places = pd.read_csv(written["places"], index_col="place")
    assert list(places.columns) == ["lon", "lat"]
    assert len(places) == len(trial.places)


def test_truth_comes_back(trial, written):
    truth = pd.read_csv(written["units_truth"], index_col="unit")
    np.testing.assert_array_equal(truth["tau"], trial.units["tau"])
    np.testing.assert_array_equal(pd.read_csv(written["places_truth"], index_col="place")["tau"], trial.places["tau"])
    with rioxarray.open_rasterio(written["tau"]) as tau:
        np.testing.assert_allclose(tau.values[0], trial.tau_map.values, atol=1e-6)
    assert json.loads(written["truth"].read_text()) == trial.truth
    assert gpd.read_file(written["region"]).geometry[0].equals(trial.region)


def test_study_knows_the_design_and_not_the_truth(trial):
    study = trial.study()
    assert not {"tau", "mu0", "baseline", "scene"} & set(study.units.columns)
    assert list(study.covariates) == ["age", "female", "schooling", "household_size", "assets", "road_km"]
    np.testing.assert_array_equal(study.y, trial.units["outcome"])
    np.testing.assert_array_equal(study.treatment, trial.units["treatment"])
    assert (np.asarray(study.propensity) == 0.5).all()
    assert study.imagery.bands == ("blue", "green", "red", "nir", "swir1", "swir2")
    assert list(study.places.columns) == ["geometry"]


def test_an_observational_study_has_no_known_propensity():
    study = satellite_trial("confounded", n_units=120, n_sites=20, size_px=256, seed=1).study()
    assert study.propensity is None
    assert not study.randomised
    assert "propensity" not in study.units.columns


def test_chips_of_the_study_are_the_chips_that_make_the_effect():
    """The window that imagery reads at a unit's point is the one whose pixels decide its effect."""
    trial = satellite_trial(n_units=60, n_sites=20, size_px=256, seed=2)
    study = trial.study()
    chips = study.imagery.chips(trial.units.geometry, size_px=32)
    names = list(chips.band.values)
    blue, red, nir = (chips.values[:, names.index(b)] for b in ("blue", "red", "nir"))
    built = np.sqrt(np.maximum(blue - 0.10, 0).mean((1, 2)) + 1e-3)
    dense = np.maximum((nir - red) / (nir + red) - 0.5, 0).mean((1, 2))
    design = np.column_stack([np.ones(60), built, dense])
    fitted = design @ np.linalg.lstsq(design, trial.units["tau"], rcond=None)[0]
    np.testing.assert_allclose(fitted, trial.units["tau"], atol=1e-4)  # chips are float32
