import numpy as np
import pytest
import rasterio
from map_toys import PIXEL, ChipMeans
from sklearn.pipeline import make_pipeline

from causalsat import DoublyRobustEffect
from causalsat.exceptions import DataError, ParameterError
from causalsat.mapping import district_effects, map_effects

CELL = 10 * PIXEL
QUIET = {"png": False, "html": False, "progress": False}


def fitted(imagery, trial, size, groups=True):
    """A model of places with ``size`` people each, whose own effects have standard deviation 1."""
    rng = np.random.default_rng(0)
    place = np.repeat(np.arange(len(trial)), size)
    t = np.tile(np.arange(size) % 2, len(trial)).astype(float)
    y = t * (1 + rng.standard_normal(len(trial)))[place] + 0.5 * rng.standard_normal(len(place))
    model = make_pipeline(ChipMeans(imagery, 240.0), DoublyRobustEffect(n_draws=400))
    roles = {"doublyrobusteffect__treatment": t} | ({"doublyrobusteffect__groups": place} if groups else {})
    return model.fit(trial.iloc[place].reset_index(drop=True), y, **roles)


@pytest.fixture(scope="module")
def model(imagery, trial):
    return fitted(imagery, trial, 4)


def test_the_file_says_which_effect_its_interval_is_of(model, imagery, tmp_path):
    mean = map_effects(model, imagery, None, CELL, tmp_path / "mean.tif", **QUIET)
    place = map_effects(model, imagery, None, CELL, tmp_path / "place.tif", scope="place", **QUIET)
    with rasterio.open(mean.path) as one, rasterio.open(place.path) as other:
        assert (one.tags()["scope"], other.tags()["scope"]) == ("mean", "place")
    assert "place itself" in str(place)
    assert "place itself" not in str(mean)
    one, other = mean.to_xarray(), place.to_xarray()
    np.testing.assert_allclose(one.sel(band="cate"), other.sel(band="cate"), atol=1e-6)
    added = np.sqrt(other.sel(band="sd") ** 2 - one.sel(band="sd") ** 2).values
    assert np.nanmean(added) == pytest.approx(1.0, abs=0.15)
    assert mean.job != place.job


def test_what_is_a_cells_own_averages_out_over_a_district(model, imagery, tmp_path):
    import geopandas as gpd
    import shapely

    west, south, east, north = imagery.bounds
    whole = gpd.GeoDataFrame(geometry=[shapely.box(west, south, east, north)], crs=imagery.crs)
    mean = district_effects(model, imagery, whole, CELL, progress=False)
    place = district_effects(model, imagery, whole, CELL, progress=False, scope="place")
    n = int(place.table["n_cells"].iloc[0] * place.table["valid"].iloc[0])
    added = place.posterior.sd()[0] ** 2 - mean.posterior.sd()[0] ** 2
    assert added == pytest.approx(1 / n, abs=1.0 / n)
    assert place.posterior.scope == "place"


def test_a_trial_that_does_not_tell_is_refused_before_the_map(imagery, trial, tmp_path):
    model = fitted(imagery, trial, 4, groups=False)
    with pytest.raises(DataError, match="groups"):
        map_effects(model, imagery, None, CELL, tmp_path / "no.tif", scope="place", **QUIET)
    with pytest.raises(ParameterError, match="scope"):
        map_effects(model, imagery, None, CELL, tmp_path / "no.tif", scope="cell", **QUIET)
