"""Images as tokens, alone and with covariates: chips, sequences, places on a raster; the formats of the contract."""

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import causalsat
from causalsat import TransTEE
from causalsat.exceptions import CausalsatError, DataError, ImageryError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "contract"))
from contract_worlds import image_world

SMALL = {"backbone": "cnn", "n_members": 2, "width": 8, "n_features": 16, "n_draws": 100, "random_state": 0}


@pytest.fixture(scope="module")
def trial():
    """160 images with a bright square in one of four corners (or none) and an age: the effect needs both."""
    rng = np.random.default_rng(0)
    n = 480
    bright = rng.integers(0, 2, n)
    images = 0.3 * rng.normal(size=(n, 2, 16, 16)).astype(np.float32)
    rows, columns = rng.integers(0, 12, (2, n))
    for i in np.flatnonzero(bright):
        images[i, 0, rows[i] : rows[i] + 4, columns[i] : columns[i] + 4] += 1.5
    age = rng.normal(size=n)
    tau = 1.0 + 1.5 * bright * (age > 0)
    t = rng.integers(0, 2, n)
    y = age + t * tau + 0.3 * rng.normal(size=n)
    chips = xr.DataArray(images, dims=("unit", "band", "y", "x"), coords={"band": ["red", "nir"]})
    return chips.assign_coords(age=("unit", age)), y, t, tau, bright, (rows, columns)


@pytest.fixture(scope="module")
def fitted(trial):
    chips, y, t, *_ = trial
    return TransTEE(covariates=["age"], max_epochs=40, **SMALL).fit(chips, y, treatment=t)


def test_effects_that_need_image_and_covariate(trial, fitted):
    chips, y, t, tau, *_ = trial
    post = fitted.effect(chips)
    assert abs(float(post.ate()) - tau.mean()) < 0.15
    assert np.corrcoef(post.mean(), tau)[0, 1] > 0.8
    age_only = TransTEE(**{**SMALL, "backbone": None}).fit(np.asarray(chips["age"])[:, None], y, treatment=t)
    error = [np.mean((p - tau) ** 2) for p in (post.mean(), age_only.predict(np.asarray(chips["age"])[:, None]))]
    assert error[0] < 0.8 * error[1]


def test_attention_over_cells(trial, fitted):
    chips, *_ = trial
    found = fitted.attention(chips[:6])
    assert found.names == ("age",)
    assert found.cells.shape == (6, 1, 4, 4)
    np.testing.assert_allclose(found.covariates.sum(axis=1) + found.cells.sum(axis=(1, 2, 3)), 1)
    assert list(found.to_dataframe().columns) == ["age", "image"]


def test_forms_files_and_company(trial, fitted, tmp_path):
    chips, *_ = trial
    draws = fitted.effect(chips[:12]).draws
    np.testing.assert_allclose(fitted.effect(chips[[3]]).draws[:, 0], draws[:, 3], rtol=1e-5, atol=1e-6)
    fitted.save(tmp_path / "m.safetensors")
    again = causalsat.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.effect(chips[:12]).draws, draws)
    assert str(again.summary()) == str(fitted.summary())
    assert np.median(fitted.support(chips)) > 0.2
    far = chips[:1] * 0 + 40.0
    assert fitted.support(far.assign_coords(age=("unit", [9.0])))[0] < 0.05
    with pytest.raises(ImageryError, match="shape"):
        fitted.effect(chips[:2, :, :8, :8])
    with pytest.raises(CausalsatError, match="band"):
        fitted.effect(chips[:2, ::-1])
    with pytest.raises(DataError, match="encode chips"):
        TransTEE().fit(chips, trial[1], treatment=trial[2])


def test_places_on_a_raster_are_as_their_chips():
    world = image_world()
    options = {**SMALL, "max_epochs": 12}
    by_chips = TransTEE(**options).fit(world.X, world.y, treatment=world.t, groups=world.groups)
    places = TransTEE(imagery=world.imagery, size_m=world.size_m, **options)
    places.fit(world.frame, world.y, treatment=world.t, groups=world.groups)
    tau = by_chips.predict(world.X)
    assert np.corrcoef(tau, world.tau)[0, 1] > 0.7
    np.testing.assert_allclose(places.predict(world.frame), tau, rtol=1e-3)
    holed = world.X.copy()
    holed[:, :, :2, :4] = np.nan
    assert np.isfinite(by_chips.predict(holed)).all()


def test_sequences_know_the_date():
    """The effect is decided by brightness in the second of two dates; brightness in the first is noise."""
    rng = np.random.default_rng(0)
    n = 360
    level = rng.choice([-1.0, 1.0], (n, 2))
    images = (0.3 * rng.normal(size=(n, 2, 1, 8, 8)) + level[:, :, None, None, None]).astype(np.float32)
    t = rng.integers(0, 2, n)
    tau = 1 + level[:, 1]
    y = t * tau + 0.3 * rng.normal(size=n)
    est = TransTEE(max_epochs=25, **SMALL).fit(images, y, treatment=t)
    found = est.predict(images)
    assert np.corrcoef(found, tau)[0, 1] > 0.9
    assert abs(np.corrcoef(found, level[:, 0])[0, 1]) < 0.3
    assert est.attention(images[:3]).cells.shape == (3, 2, 2, 2)
