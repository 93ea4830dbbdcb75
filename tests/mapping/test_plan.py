"""The plan of a map says what the map then takes."""

from __future__ import annotations

import numpy as np
import pytest
from map_toys import smooth_pixels, toy_model, write_raster

import causalsat
from causalsat.exceptions import ImageryError, ParameterError
from causalsat.imagery import open_imagery
from causalsat.mapping import map_effects, plan_map


def test_counts_are_those_of_the_map(model, imagery):
    """90 x 120 pixels in cells of 3, tiles of 20 cells: 2 x 2 of them; chips of 8 pixels."""
    plan = plan_map(model, imagery, None, 90, tile_px=20, measure=False)
    assert (plan.n_tiles, plan.n_cells, plan.tile_px, plan.resolution_m) == (4, 30 * 40, 20, 90.0)
    assert plan.area_km2 == pytest.approx(90 * 120 * 0.03**2)
    windows = [(20, 20), (20, 20), (10, 20), (10, 20)]
    assert plan.pixels_read == sum((3 * h + 8) * (3 * w + 8) for h, w in windows)
    assert plan.bytes_read == plan.pixels_read * 2 * 4
    assert np.isnan([plan.flops, plan.hours, plan.cost]).all()
    assert "4 tiles of at most 20 x 20 cells of 90 m: 1,200 cells, 10 km2" in str(plan)


def test_seconds_and_cost_are_those_of_a_tile(imagery, trial):
    slow = toy_model(imagery, trial, 240.0, pause=0.3)
    plan = plan_map(slow, imagery, None, 90, tile_px=20, workers=2, price_per_hour=3.6)
    assert 0.3 <= plan.seconds_per_tile * 400 / 300 < 2  # tiles have 300 cells, the measured one 400
    assert plan.hours == pytest.approx(4 * plan.seconds_per_tile / 2 / 3600)
    assert plan.cost == pytest.approx(plan.hours * 2 * 3.6)
    assert plan.hours_for(10 * plan.area_km2) == pytest.approx(10 * plan.hours)
    assert 0.5 < plan.measured_share <= 1
    assert plan.peak_bytes > 50 << 20
    assert "hours on 2 workers" in str(plan)
    assert "at 3.6 for a worker's hour" in str(plan)


def test_a_dense_network_counts_operations_and_surroundings(tmp_path):
    import geopandas as gpd
    from map_toys import places
    from sklearn.pipeline import make_pipeline

    from causalsat import DoublyRobustEffect, ImageEncoder, TorchvisionEncoder

    imagery = open_imagery(write_raster(tmp_path / "scene.tif", smooth_pixels(hole=False)))
    points = gpd.GeoDataFrame(geometry=places(12, imagery.shape).geometry)
    encoder = ImageEncoder(imagery, 480.0, TorchvisionEncoder(dense_stride=32), n_components=2)
    model = make_pipeline(encoder, DoublyRobustEffect(random_state=0))
    model.fit(points, np.arange(12.0), doublyrobusteffect__treatment=np.arange(12) % 2)
    plan = plan_map(model, imagery, None, 240, measure=False)
    assert plan.n_tiles == 1
    margin = 16 + 2 * (224 + 32)  # the chip; what the network sees of its surroundings, to whole squares
    assert plan.pixels_read == (96 + margin) * (120 + margin)
    assert plan.flops == pytest.approx(model[0].encoders_[0].flops_per_px * 96 * 120)
    assert plan.worker_bytes > 48 * (96 + 464) ** 2
    assert "million million operations" in str(plan)


def test_the_plan_is_told_before_the_map_begins(model, imagery, tmp_path, capsys):
    causalsat.set_progress(True)
    map_effects(model, imagery, None, 90, tmp_path / "e.tif", tile_px=20, png=False, html=False)
    causalsat.set_progress(None)
    told = capsys.readouterr()
    assert "4 tiles of at most 20 x 20 cells" in told.err
    assert told.out == ""
    assert causalsat.plan_map is plan_map


def test_what_cannot_be_planned_is_refused(imagery, trial, tmp_path):
    model = toy_model(imagery, trial, 240.0)
    with pytest.raises(ParameterError, match="workers=0"):
        plan_map(model, imagery, workers=0)
    with pytest.raises(ParameterError, match="price_per_hour"):
        plan_map(model, imagery, price_per_hour=-1)
    empty = open_imagery(write_raster(tmp_path / "empty.tif", np.full((2, 90, 120), np.nan)))
    with pytest.raises(ImageryError, match="measure=False"):
        plan_map(model, empty, None, 90)
