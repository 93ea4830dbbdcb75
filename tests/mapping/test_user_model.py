"""A map of a user's own PyMC model, and the same map from its file without the user's code."""

import warnings
from pathlib import Path

import numpy as np
from map_toys import PIXEL, ChipMeans
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat import PyMCEffect
from causalsat.exceptions import ConvergenceWarning
from causalsat.mapping import map_effects

MODEL = f"{Path(__file__).parents[1] / 'estimators' / 'pymc_model' / 'user_models.py'}:simple"
QUIET = {"png": False, "html": False, "progress": False}


def test_a_map_of_a_users_model_is_that_of_its_effects_and_of_its_file(imagery, trial, tmp_path):
    rng = np.random.default_rng(0)
    means = ChipMeans(imagery, 240.0)
    t = np.arange(len(trial)) % 2
    y = 1 + t * (0.5 + means.transform(trial)["img0"].to_numpy()) + 0.1 * rng.standard_normal(len(trial))
    model = make_pipeline(means, PyMCEffect(MODEL, n_draws=200, n_tune=200, n_chains=2, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(trial, y, pymceffect__treatment=t)
    model.steps[0] = ("first", "passthrough")
    causalsat.save(model, tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    maps = []
    for number, fitted in enumerate((model, again)):
        fitted.steps[0] = ("chipmeans", means)
        path = tmp_path / f"{number}.tif"
        maps.append(map_effects(fitted, imagery, None, 10 * PIXEL, path, **QUIET).to_xarray())
    cate = maps[0].sel(band="cate")
    centres = means.transform(trial)["img0"].to_numpy()
    assert np.isfinite(cate.values).mean() > 0.5
    assert abs(float(cate.mean()) - 0.5) < 0.5
    np.testing.assert_allclose(causalsat.effect(model, trial).mean(), 0.5 + centres, atol=0.15)
    np.testing.assert_array_equal(maps[0].values, maps[1].values)
