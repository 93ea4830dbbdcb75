"""The map of a plan's rule: where it treats, its costs, its file, and what is kept when it is written again."""

from __future__ import annotations

from types import SimpleNamespace

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import causalsat
from causalsat import plots
from causalsat.decisions.plan_outputs import cell_costs, rule_map
from causalsat.decisions.policy_map import map_policy
from causalsat.decisions.target import RuleSource
from causalsat.exceptions import DataError, ParameterError

mpl.use("Agg")


@pytest.fixture(scope="module")
def fitted():
    """A model of a small simulated trial, its imagery, and its places."""
    trial = causalsat.simulate.satellite_trial(n_units=240, n_sites=24, size_px=256, seed=1)
    study = trial.study()
    estimator = causalsat.DoublyRobustEffect(modifiers="img*", random_state=0)
    return study.fit(causalsat.image_model(study, estimator, n_components=3)), study, trial.places


def plan_with(fitted, **source):
    model, study, places = fitted
    given = {"cost": 2.0, "people": None, "cost_per": "place", "mean_cost": 2.0, "cutoff": 0.2, "worth": None}
    given |= {"sites": study.sites(), **source}
    return SimpleNamespace(source=RuleSource(model, study.imagery, **given), geometry=places.geometry, units="")


def test_the_rule_is_mapped_to_a_cog_and_kept(fitted, tmp_path):
    plan = plan_with(fitted)
    mapped, costs, words = rule_map(plan, tmp_path, 480.0, progress=False)
    assert (costs[np.isfinite(costs)] == 2.0).all()
    assert f"{mapped.n_cells:,} cells of 480 m" in words
    with rasterio.open(tmp_path / "effects.tif") as effects, rasterio.open(mapped.path) as policy:
        tau, treat = effects.read(1), policy.read(1)
        assert policy.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert policy.crs == effects.crs
        assert policy.transform == effects.transform
        assert policy.tags()["cutoff"] == "0.2"
    known = np.isfinite(tau)
    assert np.isnan(treat[~known]).all()
    np.testing.assert_array_equal(treat[known], (tau[known] > 0) & (tau[known] / 2.0 >= 0.2))
    assert 0 < treat[known].mean() < 1
    before, stamp = mapped.path.read_bytes(), (tmp_path / "effects.tif").stat().st_mtime_ns
    mapped.path.unlink()
    again, _, _ = rule_map(plan, tmp_path, 480.0, progress=False)
    assert again.path.read_bytes() == before
    assert (tmp_path / "effects.tif").stat().st_mtime_ns == stamp  # not computed again
    ax = plots.plot_policy(mapped, sites=plan.source.sites)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any("the rule treats" in label for label in labels)
    mpl.pyplot.close("all")
    with pytest.raises(DataError, match="map of whom to treat"):
        plots.plot_policy(tmp_path / "effects.tif")


def test_costs_of_cells_follow_functions_and_rasters_and_else_the_mean(fitted, tmp_path):
    """Half of the imagery's extent costs 1 and the other 4; the raster has no value in its last rows."""
    plan = plan_with(fitted)
    rule_map(plan, tmp_path, 480.0, progress=False)
    path = tmp_path / "effects.tif"
    west, south, east, north = plan.source.imagery.bounds
    values = np.ones((1, 40, 40), dtype=np.float32)
    values[:, :, 20:] = 4
    values[:, 36:] = np.nan
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 40, "width": 40, "nodata": np.nan}
    profile |= {"crs": plan.source.imagery.crs}
    profile |= {"transform": from_origin(west, north, (east - west) / 40, (north - south) / 40)}
    with rasterio.open(tmp_path / "cost.tif", "w", **profile) as raster:
        raster.write(values)
    costs, note = cell_costs(
        plan_with(fitted, cost=causalsat.open_imagery(tmp_path / "cost.tif")).source, path, plan.geometry
    )
    assert note == ""
    half = costs.shape[1] // 2
    corner = costs[: costs.shape[0] // 2, : half - 1]
    assert set(np.unique(corner[np.isfinite(corner)])) == {1.0}
    assert np.isnan(costs[-1]).all()
    by_function = plan_with(fitted, cost=lambda p: 1.0 + (p.geometry.x > p.geometry.x.median()), people=5.0)
    a_head, _ = cell_costs(by_function.source, path, plan.geometry)
    assert set(np.unique(a_head[np.isfinite(a_head)])) == {0.2, 0.4}
    for cost in ("price", [1.0, 2.0], lambda p: p["price"]):
        a_head, note = cell_costs(plan_with(fitted, cost=cost).source, path, plan.geometry)
        assert (a_head == 2.0).all()
        assert "mean cost a head of the places" in note


def effects_map(path, values):
    bands = np.full((6, *values.shape), 0.5, dtype=np.float32)
    bands[0], bands[5] = values, 1.0
    with rasterio.open(
        path, "w", driver="GTiff", dtype="float32", count=6, height=values.shape[0], width=values.shape[1],
        crs="EPSG:32636", nodata=np.nan, transform=from_origin(300000, 100000, 500, 500),
    ) as raster:  # fmt: skip
        raster.write(bands)
        raster.descriptions = ("cate", "sd", "lower", "upper", "prob_positive", "support")


def test_people_of_cells_are_summed_and_paid_by_place_or_person(tmp_path):
    """Four cells of 500 m; people in a raster of 250 m: 1, 2, 3, 4 for each of its pixels in the cells."""
    effects_map(tmp_path / "e.tif", np.array([[1.0, 0.9], [0.8, -1.0]]))
    people = np.kron([[1.0, 2.0], [3.0, 0.0]], np.ones((2, 2))).astype(np.float32)
    with rasterio.open(
        tmp_path / "people.tif", "w", driver="GTiff", dtype="float32", count=1, height=4, width=4, crs="EPSG:32636",
        transform=from_origin(300000, 100000, 250, 250),
    ) as raster:  # fmt: skip
        raster.write(people, 1)
    options = {"cost": 8.0, "people": tmp_path / "people.tif", "overwrite": True}
    a_place = map_policy(tmp_path / "e.tif", tmp_path / "p.tif", budget=12.0, **options)
    with rasterio.open(a_place.path) as raster:
        np.testing.assert_allclose(raster.read(1), [[0, 0.5], [1, 0]])  # 12 people for 8, then 8 for 8
    assert a_place.gain == pytest.approx(0.8 * 12 + 0.5 * 0.9 * 8)
    assert a_place.n_cells == 3
    a_person = map_policy(tmp_path / "e.tif", tmp_path / "p.tif", budget=64.0, cost_per="person", **options)
    with rasterio.open(a_person.path) as raster:
        np.testing.assert_allclose(raster.read(1), [[1, 0.5], [0, 0]])  # 4 people for 32, then half of 8
    assert a_person.spent == pytest.approx(64)
    everybody = map_policy(tmp_path / "e.tif", tmp_path / "p.tif", **options)
    assert everybody.n_treated == 3
    with pytest.raises(ParameterError, match="one of the two"):
        map_policy(tmp_path / "e.tif", tmp_path / "q.tif", budget=1.0, cutoff=1.0)
    with pytest.raises(ParameterError, match="'place' or 'person'"):
        map_policy(tmp_path / "e.tif", tmp_path / "q.tif", cost_per="head")


def test_places_need_a_coordinate_system_only_for_functions(fitted, tmp_path):
    plan = plan_with(fitted)
    rule_map(plan, tmp_path, 960.0, progress=False)
    bare = gpd.GeoSeries(plan.geometry.to_numpy())
    costs, _ = cell_costs(plan.source, tmp_path / "effects.tif", bare)
    assert np.nanmax(costs) == 2.0
