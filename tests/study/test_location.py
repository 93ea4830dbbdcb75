"""Displaced coordinates: positions, features averaged over them, intervals, and what the check says."""

import geopandas as gpd
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray

import causalsat
from causalsat.core.displacement import possible_places, spread_rows
from causalsat.evaluation import location_error_cost
from causalsat.exceptions import ColumnError, ParameterError

CRS = "EPSG:32636"


def smooth_imagery(scale_px, size=240, seed=0):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    field = np.stack([gaussian_filter(rng.standard_normal((size, size)), scale_px) for _ in range(2)])
    field /= field.std(axis=(1, 2), keepdims=True)
    pixels = xarray.DataArray(
        field, dims=("band", "y", "x"),
        coords={"band": ["red", "nir"], "y": 4e5 - 100.0 * np.arange(size), "x": 3e5 + 100.0 * np.arange(size)},
    ).rio.write_crs(CRS)  # fmt: skip
    return causalsat.open_imagery(pixels), field


def study_of(imagery, n=60, **options):
    rng = np.random.default_rng(1)
    points = gpd.points_from_xy(rng.uniform(306_000, 318_000, n), rng.uniform(382_000, 394_000, n))
    columns = {"y": rng.standard_normal(n), "d": np.arange(n) % 2, "village": np.arange(n), "urban": np.arange(n) % 2}
    units = gpd.GeoDataFrame(columns, geometry=points, crs=CRS)
    return causalsat.Study(units, outcome="y", treatment="d", imagery=imagery, chip_size_m=800, **options)


def test_positions_are_uniform_in_distance_and_angle():
    place = gpd.GeoSeries.from_xy([36.0, -70.0], [-1.0, 55.0], crs=4326)
    moved = possible_places(place, np.array([5000.0, 0.0]), 400)
    assert [len(shape.geoms) for shape in moved] == [400, 1]
    local = gpd.GeoSeries(list(moved.iloc[0].geoms), crs=4326).to_crs("EPSG:32737")
    centre = place.to_crs("EPSG:32737").iloc[0]
    dx, dy = local.x - centre.x, local.y - centre.y
    distance = np.hypot(dx, dy)
    np.testing.assert_allclose(np.quantile(distance, [0.1, 0.5, 0.9]), [500, 2500, 4500], rtol=0.012)
    assert abs(dx.mean()) < 100
    assert abs(dy.mean()) < 100


def test_features_are_means_over_the_positions():
    imagery, _ = smooth_imagery(6)
    study = study_of(imagery, location_error=1500)
    encoder = causalsat.ImageEncoder(imagery, size_m=800, n_components=4).fit(study.X)
    averaged = encoder.transform(study.X)
    rows, owner = spread_rows(study.X)
    each = encoder.transform(rows)
    np.testing.assert_allclose(averaged, each.groupby(owner).mean(), atol=1e-9)
    assert averaged.index.equals(study.units.index)
    exact = encoder.transform(study.units)  # a map's cells are where they are
    assert np.abs(exact.to_numpy() - averaged.to_numpy()).max() > 0.05


def test_dhs_moves_urban_places_less_and_the_study_stays_itself():
    imagery, _ = smooth_imagery(6)
    study = study_of(imagery, location_error="dhs", urban="urban")
    assert study.subset(np.arange(60) < 10).location_error == "dhs"
    reach = [
        max(p.distance(q) for p in shape.geoms)
        for shape, q in zip(study.X.geometry, study.units.geometry, strict=True)
    ]
    urban = study.units["urban"].to_numpy() == 1
    assert np.max(np.array(reach)[urban]) < 2000 < np.median(np.array(reach)[~urban])
    assert (study.units.geom_type == "Point").all()
    assert (study_of(imagery).X.geom_type == "Point").all()


def test_cost_falls_with_the_range_of_the_images_and_grows_with_the_radius():
    rough, _ = smooth_imagery(3)
    smooth, _ = smooth_imagery(25)
    assert location_error_cost(smooth, 1000, size_m=800).cost < 0.1
    assert location_error_cost(rough, 5000, size_m=800).cost > 0.8
    cost = [location_error_cost(rough, r, size_m=800).cost for r in (300, 1000, 3000)]
    assert cost[0] < cost[1] < cost[2]


def test_check_says_what_it_costs():
    imagery, _ = smooth_imagery(3)
    found = [f for f in study_of(imagery, location_error=3000).check().findings if f.topic == "displaced coordinates"]
    assert found[0].level == "warning"
    assert "of the signal of image features" in found[0].what
    assert not [f for f in study_of(imagery).check().findings if f.topic == "displaced coordinates"]


def test_intervals_widen_and_villages_move_together():
    imagery, field = smooth_imagery(6)
    exact = study_of(imagery, n=80)
    row = ((4e5 - exact.units.geometry.y) / 100).round().astype(int)
    col = ((exact.units.geometry.x - 3e5) / 100).round().astype(int)
    tau = field[0][row, col]
    units = exact.units.assign(y=tau * exact.treatment + 0.2 * exact.y)
    model = causalsat.image_model(exact.replace(units=units), n_components=4)
    known = exact.replace(units=units).fit(model)
    sd_exact = causalsat.effect(known, exact.X).sd()
    displaced = exact.replace(units=units, location_error=1500)
    posterior = causalsat.effect(known, displaced.X)
    assert np.median(posterior.sd()) > 1.5 * np.median(sd_exact)
    twice = causalsat.effect(known, displaced.X.iloc[[0, 0, 1]])
    np.testing.assert_array_equal(twice.draws[:, 0], twice.draws[:, 1])


def test_refusals():
    imagery, _ = smooth_imagery(6)
    with pytest.raises(ParameterError, match="without urban="):
        study_of(imagery, location_error="dhs")
    with pytest.raises(ParameterError, match="location_error=-5"):
        study_of(imagery, location_error=-5)
    with pytest.raises(ParameterError, match="urban= without"):
        study_of(imagery, location_error=500, urban="urban")
    with pytest.raises(ColumnError, match="True/False, 1/0, or U/R"):
        study_of(imagery, location_error="dhs", urban="village")
    with pytest.raises(ParameterError, match="radius"):
        location_error_cost(imagery, 0)
