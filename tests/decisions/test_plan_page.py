"""The page of a plan in a real headless browser: the slider treats, spends and gains what the plan says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from causalsat.decisions.plan_page import shrunk, write_plan_page
from causalsat.decisions.ranking import paid_from, plan_of
from causalsat.decisions.target import TargetingPlan
from causalsat.evaluation import gain_curve, policy_value

pytest.importorskip("bokeh", reason="extra 'maps'")
sys.path.insert(0, str(Path(__file__).parents[1] / "mapping"))
from browser import Page, start

N = 40


def plan_of_places(quotas=None, people=None):
    """A plan of 40 places whose effects, costs and scores are known."""
    rng = np.random.default_rng(2)
    effects, costs = rng.normal(0.3, 0.6, N), rng.uniform(1, 3, N)
    heads = np.ones(N) if people is None else people
    order = {"quotas": quotas, "weights": heads}
    budget = 30.0 if people is None else 300.0
    chosen = plan_of(effects, costs, budget, effects > 0, **order)
    table = pd.DataFrame(
        {
            "rank": np.arange(1, N + 1), "effect": effects, "sd": 0.1, "prob_worth": 0.5, "cost": costs * heads,
            "treat": chosen, "paid_from": paid_from(effects, costs, effects > 0, **order),
        },
        index=pd.Index([f"<b>{k}" for k in range(N)], name="place"),
    )  # fmt: skip
    if people is not None:
        table["people"] = people
    scores = np.repeat(effects, 5) + rng.standard_normal(5 * N)
    curve = gain_curve(np.repeat(effects, 5), scores, np.repeat(costs, 5), n_bootstrap=50)
    points = gpd.GeoSeries(gpd.points_from_xy(30 + rng.uniform(size=N), rng.uniform(size=N)), table.index, crs=4326)
    value = policy_value(np.ones(5 * N), scores)
    plan = TargetingPlan(
        table, value, value, curve, 0.01, budget, float(table["cost"] @ chosen), float(heads.sum()), "ranking",
        geometry=points, units="kg", constrained=quotas is not None,
    )  # fmt: skip
    return plan, effects, costs


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    made = start(tmp_path_factory.mktemp("profile"))
    yield made
    made.quit()


def slide(page, budget):
    """Move the slider and return the sentence, and whom the page shows as treated."""
    page.run(
        "const s = document.getElementById('budget'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        budget,
    )
    treat = page.run("return Array.from(Bokeh.documents[0].get_model_by_name('places').data.treat)")
    return page.text("#readout"), np.array(treat, dtype=float)


def numbers(words):
    return [float(v.replace(",", "")) for v in re.findall(r"(?<![\w.])-?\d[\d,]*\.?\d*", words)]


@pytest.mark.slow
def test_the_slider_treats_spends_and_gains_what_the_plan_says(driver, tmp_path):
    plan, effects, costs = plan_of_places()
    page = Page(driver, write_plan_page(plan, tmp_path / "plan.html"))
    curve = plan.gain_curve.to_dataframe()
    for budget in (0.0, 4.0, 17.3, 30.0, 45.0):
        words, treat = slide(page, budget)
        expected = plan_of(effects, costs, max(budget, 1e-300), effects > 0)
        np.testing.assert_allclose(treat, expected, atol=1e-9)
        said, treated, total, spent, gain, _, low, high = numbers(words)[:8]
        assert (treated, total) == ((expected > 1e-9).sum(), N)
        assert said == pytest.approx(budget)
        assert spent == pytest.approx(expected @ costs, rel=1e-4, abs=1e-9)
        truth = [np.interp(budget / N, curve["spend"], curve[c]) for c in ("gain", "lower", "upper")]
        np.testing.assert_allclose([gain, low, high], truth, rtol=6e-3, atol=1e-9)
        line = page.run("return Bokeh.documents[0].get_model_by_name('budget-line').location")
        assert line == pytest.approx(budget)
    assert not page.problems()
    assert page.requests() <= {(tmp_path / "plan.html").as_uri()}


@pytest.mark.slow
def test_keys_and_the_number_box_choose_a_budget(driver, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    plan, effects, costs = plan_of_places()
    page = Page(driver, write_plan_page(plan, tmp_path / "plan.html"))
    slider, box = (driver.find_element(By.ID, name) for name in ("budget", "budget-exact"))
    slider.send_keys(Keys.END)
    treats = f"treats {(effects > 0).sum()} of"
    page.until(f"return document.getElementById('readout').textContent.includes('{treats}')")
    box.clear()
    box.send_keys("12.5" + Keys.TAB)
    treat = np.array(page.run("return Array.from(Bokeh.documents[0].get_model_by_name('places').data.treat)"))
    np.testing.assert_allclose(treat, plan_of(effects, costs, 12.5, effects > 0), atol=1e-9)
    assert float(slider.get_attribute("value")) == pytest.approx(12.5)


@pytest.mark.slow
def test_quotas_come_first_and_people_are_counted(driver, tmp_path):
    people = np.arange(1.0, N + 1)
    quotas = (np.arange(N) % 4, 0.1)
    plan, effects, costs = plan_of_places(quotas, people)
    page = Page(driver, write_plan_page(plan, tmp_path / "plan.html"))
    least = float(page.run("return document.getElementById('budget').min"))
    for budget in (least, 200.0, 700.0):
        words, treat = slide(page, budget)
        expected = plan_of(effects, costs, budget, effects > 0, quotas, people)
        np.testing.assert_allclose(treat, expected, atol=1e-6)
        assert f"{round(people @ expected):,} people" in words
    assert "leave the shares of the districts out" in page.text("main")


def test_nothing_to_gain_and_names_that_are_code_make_a_page(tmp_path):
    plan, _, _ = plan_of_places()
    plan.table["paid_from"], plan.table["treat"] = np.nan, 0.0
    text = write_plan_page(plan, tmp_path / "plan.html", words=["<script>alert(1)</script>"]).read_text()
    assert "<script>alert(1)" not in text
    assert '"least": 0.0' in text


def test_blocks_are_averaged():
    values = np.arange(16.0).reshape(4, 4)
    values[0, 0] = np.nan
    np.testing.assert_allclose(shrunk(values, (2, 2)), [[(1 + 4 + 5) / 3, 4.5], [10.5, 12.5]])
    assert SimpleNamespace(v=shrunk(values, (4, 4))).v is values
