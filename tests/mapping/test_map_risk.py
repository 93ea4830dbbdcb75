"""Risk maps: the bands equal the model's own answers cell by cell, resume by job, and the picture is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from map_toys import ChipMeans, places, smooth_pixels, toy_model, write_raster
from scipy.special import expit
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat import map_effects, map_risk
from causalsat.exceptions import ParameterError
from causalsat.plots import plot_map
from causalsat.risk_base import RiskEstimator

SPREAD = np.linspace(-1, 1, 21)[:, None]


class ToyRisk(RiskEstimator):
    """Logit of the risk: the first feature, more or less; of the decision: twice that."""

    def _fit(self, data):
        self.fitted_ = True

    def _positive_draws(self, X):
        return expit(X[:, 0] + SPREAD)

    def _tested_draws(self, X):
        return expit(2 * X[:, 0] + 0 * SPREAD)

    def _both_draws(self, X):
        return self._positive_draws(X) * self._tested_draws(X) ** 0.5


@pytest.fixture
def world(tmp_path):
    imagery = causalsat.open_imagery(write_raster(tmp_path / "image.tif", smooth_pixels()))
    points = places(60, (90, 120))
    model = make_pipeline(ChipMeans(imagery, 240), ToyRisk())
    tested = np.arange(60) % 3 > 0
    outcome = np.where(tested, np.arange(60) % 2, np.nan)
    return imagery, points, model.fit(points, outcome, toyrisk__treatment=tested.astype(int))


QUICK = {"progress": False, "png": False, "html": False}


@pytest.mark.parametrize("given", [None, "tested", "untested"])
def test_bands_are_the_models_answers(world, tmp_path, given):
    imagery, points, model = world
    result = map_risk(model, imagery, resolution=300, out=tmp_path / "risk.tif", given=given, **QUICK)
    with rasterio.open(result.path) as raster:
        assert raster.descriptions == ("risk", "sd", "lower", "upper", "decision", "support")
        bands = raster.read()
        rows, cols = np.nonzero(np.isfinite(bands[0]))
        x, y = raster.xy(rows, cols)
    import geopandas as gpd

    cells = gpd.GeoDataFrame(geometry=gpd.points_from_xy(np.array(x) + 0.3, np.array(y) - 0.3), crs=points.crs)
    found = causalsat.risk(model, cells, given=given)
    lower, upper = found.interval(0.9).T
    features = model[:-1].transform(cells)
    expected = [found.mean(), found.sd(), lower, upper, model[-1].predict_decision(features),
                causalsat.support(model, cells)]  # fmt: skip
    np.testing.assert_allclose(bands[:, rows, cols], np.array(expected), atol=1e-5)
    assert len(rows) == result.n_mapped > 50
    assert np.isnan(bands[0]).any()  # the hole in the imagery


def test_a_map_of_another_risk_is_another_job(world, tmp_path):
    imagery, _, model = world
    settings = {"resolution": 600, "out": tmp_path / "risk.tif", **QUICK}
    one, again = (map_risk(model, imagery, **settings) for _ in range(2))
    other = map_risk(model, imagery, given="untested", overwrite=True, **settings)
    assert one.job == again.job != other.job
    assert list(other.to_xarray().band.values) == ["risk", "sd", "lower", "upper", "decision", "support"]
    assert "Risks on" in str(other)


def test_picture_shows_risk_uncertainty_and_decision(world, tmp_path):
    imagery, points, model = world
    result = map_risk(model, imagery, resolution=300, out=tmp_path / "risk.tif", sites=points, progress=False)
    assert result.png.stat().st_size > 10_000
    page = result.html.read_text(encoding="utf-8")
    assert "Posterior risk in" in page
    assert '["Risk","Uncertainty (sd)","P(tested)","Support"]' in page
    figure = plot_map(result)
    assert {"Risk", "Uncertainty (posterior sd)", "P(tested)"} <= {ax.get_title(loc="left") for ax in figure.axes}
    assert plot_map(result, layer="decision").get_title(loc="left") == "P(tested)"
    with pytest.raises(ParameterError, match="decision"):
        plot_map(result, layer="cate")


def test_models_without_a_risk_or_an_effect_are_refused(world, tmp_path):
    imagery, points, model = world
    with pytest.raises(ParameterError, match="no risk"):
        map_risk(toy_model(imagery, points, 240), imagery, out=tmp_path / "risk.tif")
    with pytest.raises(ParameterError, match="given"):
        map_risk(model, imagery, out=tmp_path / "risk.tif", given="seen")
    with pytest.raises(ParameterError, match="no effect"):
        map_effects(model, imagery, out=tmp_path / "effects.tif")
