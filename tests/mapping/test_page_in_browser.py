"""The interactive map in a real headless browser: what hovering, clicking and keys say is what the GeoTIFF holds."""

from __future__ import annotations

import re

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from browser import Page, start
from map_toys import ChipMeans
from scipy.special import expit
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat.mapping import district_effects, map_effects, map_risk
from causalsat.risk_base import RiskEstimator

pytest.importorskip("bokeh", reason="extra 'maps'")
pytestmark = pytest.mark.slow
RESOLUTION = 60
NUMBER = r"(-?\d[\d.]*(?:e[+-]?\d+)?)"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    made = start(tmp_path_factory.mktemp("profile"))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def made(model, imagery, trial, tmp_path_factory):
    """A map, its districts, and its page."""
    folder = tmp_path_factory.mktemp("page")
    result = map_effects(model, imagery, None, RESOLUTION, folder / "e.tif", png=False, html=False, progress=False)
    west, south, east, north = imagery.bounds
    middle = (west + east) / 2
    shapes = [shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)]
    areas = gpd.GeoDataFrame({"name": ["West <i>", "East"]}, geometry=shapes, crs=imagery.crs)
    districts = district_effects(model, imagery, areas, RESOLUTION, name="name", progress=False)
    page = result.to_html(folder / "map.html", imagery, sites=trial, districts=districts, units="points")
    return result, districts, page


@pytest.fixture(scope="module")
def page(driver, made):
    return Page(driver, made[2])


def cell(result, row, col):
    """Bands and centre of a cell of the map."""
    with rasterio.open(result.path) as raster:
        return dict(zip(raster.descriptions, raster.read()[:, row, col], strict=True)), raster.xy(row, col)


def numbers(text, pattern):
    found = re.search(pattern.replace("#", NUMBER), text)
    assert found, text
    return [float(v) for v in found.groups()]


def test_hovering_says_effect_interval_probability_and_support(page, made):
    for row, col in ((4, 7), (30, 40), (40, 12)):
        bands, at = cell(made[0], row, col)
        page.pointer(*at)
        words = page.tooltip()
        effect, sd, low, high, prob, support = numbers(
            words, r"effect \(points\) # sd # 90% interval # to # P\(effect > 0\) # support #"
        )
        np.testing.assert_allclose(
            [effect, sd, low, high], [bands[k] for k in ("cate", "sd", "lower", "upper")], rtol=6e-3, atol=1e-6
        )
        np.testing.assert_allclose([prob, support], [bands["prob_positive"], bands["support"]], atol=6e-3)


def test_clicking_and_arrow_keys_read_cells_out(page, made):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    bands, at = cell(made[0], 30, 40)
    page.pointer(*at, click=True)
    said = page.text("#readout")
    lat, lon, effect = numbers(said, "#° N, #° E: effect # points")
    assert effect == pytest.approx(bands["cate"], rel=6e-3)
    x, y = gpd.GeoSeries.from_xy([lon], [lat], crs=4326).to_crs(32636).iloc[0].coords[0]
    np.testing.assert_allclose([x, y], at, atol=10)
    frame = page.driver.find_element(By.ID, "map-frame")
    frame.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.SHIFT, Keys.ARROW_LEFT)
    moved, _ = cell(made[0], 31, 31)
    assert numbers(page.text("#readout"), "effect #")[0] == pytest.approx(moved["cate"], rel=6e-3)
    before = page.run("return Bokeh.documents[0].get_model_by_name('map').x_range.end")
    frame.send_keys(Keys.NULL, "+")
    assert page.run("return Bokeh.documents[0].get_model_by_name('map').x_range.end") < before
    frame.send_keys("0")
    assert page.run("return Bokeh.documents[0].get_model_by_name('map').x_range.end") == before
    hole, at = cell(made[0], 15, 30)
    assert np.isnan(hole["cate"])
    page.pointer(*at, click=True)
    assert page.text("#readout").endswith("not mapped")


def test_buttons_change_the_layer_and_say_so(page):
    shown = """
    const plot = Bokeh.documents[0].get_model_by_name('map')
    return plot.renderers.filter((r) => r.visible && r.glyph.type === 'Image' && r.glyph.image.field
      && r.data_source.name === 'cells').map((r) => r.glyph.image.field)
    """
    names = ["Effect", "Uncertainty (sd)", "P(effect > 0)", "Support", "District means"]
    for label, field in zip(names, [["cate"], ["sd"], ["prob_positive"], ["support"], []], strict=True):
        page.button(label).click()
        assert page.run(shown) == field
        pressed = {b.text: b.get_attribute("aria-pressed") for b in page.all("#controls button, button")}
        assert [pressed[n] for n in names] == [str(n == label).lower() for n in names]
    page.button("Effect").click()


def test_the_district_layer_says_the_mean_of_the_district(page, made):
    _, districts, _ = made
    page.button("District means").click()
    for name, line in districts.table.iterrows():
        centre = line.geometry.representative_point()
        page.pointer(centre.x, centre.y)
        words = page.tooltip()
        assert f"district {name} " in words
        mean, low, high, prob = numbers(words, r"mean effect \(points\) # sd .* interval # to # P\(effect > 0\) #")
        np.testing.assert_allclose([mean, low, high], [line["mean"], line.lower, line.upper], rtol=6e-3, atol=1e-6)
        assert prob == pytest.approx(line.prob_positive, abs=6e-3)
    page.button("Effect").click()


def test_nothing_is_asked_of_the_network_and_nothing_fails(driver, made):
    page = Page(driver, made[2])
    page.button("Support").click()
    assert page.requests() == {made[2].as_uri()}
    assert page.problems() == []


def test_what_can_be_reached_by_keyboard_has_a_name(page):
    from selenium.webdriver.common.by import By

    frame = page.driver.find_element(By.ID, "map-frame")
    assert frame.get_attribute("tabindex") == "0"
    assert frame.accessible_name == "Interactive map of treatment effects"
    for node in page.all("#controls button, button, input[type=checkbox]"):
        assert node.accessible_name, node.get_attribute("outerHTML")
    assert page.run("return document.documentElement.lang") == "en"
    assert page.text("table.districts tbody tr th") == "West <i>"


class Risky(RiskEstimator):
    """Logit of the risk: the first feature, more or less."""

    def _fit(self, data):
        self.fitted_ = True

    def _positive_draws(self, X):
        return expit(X[:, 0] + np.linspace(-1, 1, 21)[:, None])

    def _tested_draws(self, X):
        return expit(2 * X[:, 0] + 0 * np.linspace(-1, 1, 21)[:, None])

    def _both_draws(self, X):
        return self._positive_draws(X) * self._tested_draws(X)


def test_a_map_of_risk_has_its_page(driver, imagery, trial, tmp_path):
    model = make_pipeline(ChipMeans(imagery, 240), Risky())
    n = len(trial)
    tested = np.arange(n) % 3 > 0
    outcome = np.where(tested, np.arange(n) % 2, np.nan)
    model.fit(trial, outcome, risky__treatment=tested.astype(int))
    result = map_risk(model, imagery, None, RESOLUTION, tmp_path / "r.tif", png=False, html=True, progress=False)
    page = Page(driver, result.html)
    bands, at = cell(result, 40, 12)
    page.pointer(*at)
    found = numbers(page.tooltip(), r"risk # sd # 90% interval # to # P\(tested\) # support #")
    np.testing.assert_allclose(found, list(bands.values()), rtol=6e-3, atol=6e-3)
    page.button("P(tested)").click()
    page.pointer(*at, click=True)
    assert numbers(page.text("#readout"), "risk #")[0] == pytest.approx(bands["risk"], rel=6e-3)
    assert causalsat.risk(model, trial).mean().min() > 0
    assert page.problems() == []
