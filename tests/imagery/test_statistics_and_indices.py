"""Channel statistics, normalising and spectral indices against numpy."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import xarray

from causalsat.exceptions import DataError, DataWarning, ImageryError, ParameterError
from causalsat.imagery import channel_statistics, indices, normalise, open_imagery


@pytest.fixture
def chips() -> xarray.DataArray:
    """600 chips of 2 dates and 3 bands with 10 % NaN."""
    rng = np.random.default_rng(0)
    values = (1000 + 10 * rng.normal(size=(600, 2, 3, 4, 4)) * [[[1]], [[5]], [[9]]]).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    return xarray.DataArray(values, dims=("unit", "time", "band", "y", "x"), coords={"band": ["red", "nir", "swir1"]})


def test_statistics_of_training_units_only(chips):
    train = np.random.default_rng(1).random(600) < 0.7
    stats = channel_statistics(chips, units=train)
    pixels = np.moveaxis(chips.values[train], 2, 0).reshape(3, -1).astype(float)
    np.testing.assert_allclose(stats.mean, np.nanmean(pixels, axis=1), rtol=1e-12)
    np.testing.assert_allclose(stats.sd, np.nanstd(pixels, axis=1), rtol=1e-9)
    assert stats.count == tuple(np.isfinite(pixels).sum(axis=1))
    assert channel_statistics(chips, units=np.flatnonzero(train)) == stats
    chips.values[~train] = 1e6  # held-out units change nothing
    assert channel_statistics(chips, units=train) == stats


def test_statistics_of_imagery_equal_those_of_its_chips(write, image):
    imagery = open_imagery(write("scene.tif", image))
    points = geopandas.GeoSeries.from_xy(
        500000 + np.arange(100, 900, 40), 99950 - np.arange(100, 700, 30), crs="EPSG:32636"
    )
    a = channel_statistics(imagery, points, size_m=80)
    b = channel_statistics(imagery.chips(points, size_m=80))
    np.testing.assert_allclose([a.mean, a.sd], [b.mean, b.sd], rtol=1e-9)
    with pytest.raises(DataError, match="pass units="):
        channel_statistics(imagery)


def test_normalise(chips):
    got = normalise(chips, channel_statistics(chips))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.mean(["unit", "time", "y", "x"]), 0, atol=1e-3)
    np.testing.assert_allclose(got.std(["unit", "time", "y", "x"]), 1, atol=1e-3)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(chips))
    with pytest.raises(ImageryError, match="same bands in the same order"):
        normalise(chips[:, :, ::-1], channel_statistics(chips))


def test_constant_and_empty_bands(chips):
    chips[:, :, 1] = 3
    with pytest.warns(DataWarning, match=r"constant in the training units: \['nir'\]"):
        assert channel_statistics(chips).sd[1] == 1
    chips[:, :, 2] = np.nan
    with pytest.raises(DataError, match=r"no valid pixel in \['swir1'\]"):
        channel_statistics(chips)


VALUES = {"blue": 0.04, "green": 0.08, "red": 0.06, "nir": 0.40, "swir1": 0.20, "swir2": 0.10}
EXPECTED = {  # by hand from VALUES
    "ndvi": 0.34 / 0.46,
    "gndvi": 0.32 / 0.48,
    "evi": 2.5 * 0.34 / (0.40 + 0.36 - 0.30 + 1),
    "evi2": 2.5 * 0.34 / (0.40 + 0.144 + 1),
    "savi": 1.5 * 0.34 / 0.96,
    "ndwi": -0.32 / 0.48,
    "mndwi": -0.12 / 0.28,
    "ndmi": 0.20 / 0.60,
    "ndbi": -0.20 / 0.60,
    "nbr": 0.30 / 0.50,
    "bsi": (0.26 - 0.44) / 0.70,
}


def flat(values: dict[str, float]) -> xarray.DataArray:
    data = np.broadcast_to(np.array(list(values.values()))[:, None, None], (len(values), 2, 2)).copy()
    return xarray.DataArray(data[None], dims=("unit", "band", "y", "x"), coords={"band": list(values)})


def test_indices_by_hand():
    got = indices(flat(VALUES), list(EXPECTED))
    assert got.band.values.tolist() == list(EXPECTED)
    assert got.dims == ("unit", "band", "y", "x")
    np.testing.assert_allclose(got[0, :, 0, 0], list(EXPECTED.values()), rtol=1e-12)
    from causalsat.imagery.spectral_indices import INDICES

    assert set(EXPECTED) == set(INDICES)


def test_indices_with_other_band_names():
    renamed = flat({"B04": 0.06, "nir08": 0.40, "Swir16": 0.2})
    np.testing.assert_allclose(
        indices(renamed, ["ndvi", "ndmi"], bands={"red": "B04"})[0, :, 0, 0], [0.34 / 0.46, 0.2 / 0.6]
    )
    appended = indices(renamed, "ndmi", append=True)
    assert appended.band.values.tolist() == ["B04", "nir08", "Swir16", "ndmi"]
    with pytest.raises(ImageryError, match=r"ndvi needs red; evi needs red, blue; .*bands=\{"):
        indices(renamed, ["ndvi", "evi"])
    with pytest.raises(ImageryError, match=r"no band \['B99'\]"):
        indices(renamed, "ndvi", bands={"red": "B99"})
    with pytest.raises(ParameterError, match="unknown indices"):
        indices(renamed, "nvdi")


def test_indices_of_invalid_pixels_and_unscaled_reflectance():
    array = flat(VALUES)
    array[0, 3, 0, 0] = np.nan
    array[0, 2:4, 1, 1] = 0
    got = indices(array, "ndvi")[0, 0]
    np.testing.assert_array_equal(np.isnan(got), [[True, False], [False, True]])
    with pytest.warns(DataWarning, match="evi presumes reflectances.*scale="):
        indices(array * 10000, "evi")
