"""The map equals the effect computed cell by cell, lies where it should, and says what it does not know."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from map_toys import (
    NORTH,
    PIXEL,
    SHAPE_OF_DRAWS,
    UTM,
    WEST,
    FirstFeature,
    direct_means,
    places,
    smooth_pixels,
    toy_model,
    write_raster,
)

from causalsat import effect
from causalsat.exceptions import (
    ColumnError,
    DataError,
    DataWarning,
    ImageryError,
    MapWarning,
    OutputError,
    ParameterError,
)
from causalsat.imagery import open_imagery
from causalsat.mapping import BANDS, map_effects

QUIET = {"progress": False, "png": False, "html": False}


def bands_of(path):
    with rasterio.open(path) as raster:
        return raster.read(), raster.transform, raster.crs


@pytest.mark.parametrize("cell", [1, 2, 3])
def test_every_cell_has_the_effect_of_its_own_chip(model, imagery, tmp_path, cell):
    result = map_effects(model, imagery, None, cell * PIXEL, tmp_path / "effects.tif", tile_px=17, **QUIET)
    values, transform, crs = bands_of(result.path)
    rows, cols = -(-90 // cell), -(-120 // cell)
    expected = direct_means(smooth_pixels(), rows, cols, cell, 8)
    assert values.shape == (6, rows, cols)
    np.testing.assert_allclose(values[0], expected, atol=2e-6)
    assert transform == Affine(cell * PIXEL, 0, WEST, 0, -cell * PIXEL, NORTH)
    assert crs.to_epsg() == UTM
    assert result.n_mapped == np.isfinite(expected).sum()
    assert np.isnan(expected).any()


def test_the_other_bands_follow_from_the_draws(model, imagery, tmp_path):
    result = map_effects(model, imagery, None, 90, tmp_path / "effects.tif", level=0.8, **QUIET)
    cate, sd, lower, upper, positive, support = bands_of(result.path)[0]
    mapped = np.isfinite(cate)
    np.testing.assert_allclose(sd[mapped], SHAPE_OF_DRAWS.std(ddof=1), rtol=1e-5)
    np.testing.assert_allclose(lower[mapped], cate[mapped] - 0.88, atol=1e-5)  # 2.2th of 21 draws in [-1, 1]
    np.testing.assert_allclose(upper[mapped], cate[mapped] + 0.88, atol=1e-5)
    share = (cate[mapped][:, None].astype(float) + SHAPE_OF_DRAWS > 0).mean(axis=1)
    assert np.abs(positive[mapped] - share).max() <= 1 / 21 + 1e-6
    assert ((support[mapped] > 0) & (support[mapped] <= 1)).all()


def test_the_map_at_the_units_is_the_effect_of_the_units(model, imagery, trial, tmp_path):
    """At native resolution the cell under a unit has the unit's own chip."""
    result = map_effects(model, imagery, None, PIXEL, tmp_path / "effects.tif", **QUIET)
    with rasterio.open(result.path) as raster:
        sampled = np.array([v[0] for v in raster.sample(np.column_stack([trial.geometry.x, trial.geometry.y]))])
    np.testing.assert_allclose(sampled, effect(model, trial).mean(), atol=2e-6)


def test_tiles_leave_no_seam(model, imagery, tmp_path):
    whole = map_effects(model, imagery, None, 60, tmp_path / "a.tif", tile_px=500, **QUIET)
    tiled = map_effects(model, imagery, None, 60, tmp_path / "b.tif", tile_px=7, **QUIET)
    np.testing.assert_allclose(bands_of(tiled.path)[0], bands_of(whole.path)[0], atol=1e-6)


def test_the_file_is_a_cloud_optimised_geotiff_with_names_and_tags(imagery, model, tmp_path):
    result = map_effects(
        model, imagery, None, 30, tmp_path / "effects.tif", units="sd", title="T", note="N", citation="C",
        heterogeneity_p=0.4, **QUIET,
    )  # fmt: skip
    with rasterio.open(result.path) as raster:
        assert raster.descriptions == BANDS == ("cate", "sd", "lower", "upper", "prob_positive", "support")
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.compression.value == "DEFLATE"
        assert raster.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        assert raster.profile["tiled"]
        assert raster.dtypes == ("float32",) * 6
        assert np.isnan(raster.nodata)
        tags = raster.tags()
    assert (tags["units"], tags["title"], tags["citation"], tags["level"]) == ("sd", "T", "C", "0.9")
    assert tags["note"] == "heterogeneity not distinguishable from zero (p = 0.4); N" == result.note
    assert tags["job"] == result.job
    assert "FirstFeature" in tags["model"]


def test_large_maps_have_overviews(tmp_path):
    """A map of 600 x 300 cells of a constant effect: overviews show the constant."""
    pixels = np.full((1, 300, 600), 0.25)
    imagery = open_imagery(write_raster(tmp_path / "flat.tif", pixels))
    points = places(40, (300, 600))
    model = toy_model(imagery, points, 30.0)
    result = map_effects(model, imagery, None, 30, tmp_path / "e.tif", **QUIET)
    with rasterio.open(result.path) as raster:
        assert raster.overviews(1) == [2, 4]
        small = raster.read(1, out_shape=(75, 150))
    np.testing.assert_allclose(small, 0.25)


def test_a_region_in_another_coordinate_system_is_cut_to_its_polygon(model, imagery, tmp_path):
    x, y = WEST + PIXEL * np.array([20, 100, 60]), NORTH - PIXEL * np.array([80, 75, 45])
    triangle = gpd.GeoSeries([shapely.Polygon(np.column_stack([x, y]))], crs=UTM)
    region = gpd.GeoDataFrame(geometry=triangle.to_crs(4326))
    cut = map_effects(model, imagery, region, 60, tmp_path / "cut.tif", tile_px=9, **QUIET)
    whole = map_effects(model, imagery, None, 60, tmp_path / "whole.tif", tile_px=9, **QUIET)
    values, transform, _ = bands_of(cut.path)
    everything, origin, _ = bands_of(whole.path)
    row, col = round((transform.f - origin.f) / origin.e), round((transform.c - origin.c) / origin.a)
    block = everything[:, row : row + values.shape[1], col : col + values.shape[2]]
    cx = transform.c + transform.a * (np.arange(values.shape[2]) + 0.5)
    cy = transform.f + transform.e * (np.arange(values.shape[1]) + 0.5)
    inside = shapely.contains_xy(triangle.iloc[0], *np.meshgrid(cx, cy))
    np.testing.assert_allclose(values, np.where(inside, block, np.nan), atol=1e-6)
    assert 100 < np.isfinite(values[0]).sum() < values[0].size


def test_regions_as_bounds_shapes_series_and_files_agree(model, imagery, tmp_path):
    bounds = (WEST + 600, NORTH - 1800, WEST + 1500, NORTH - 900)
    box = shapely.box(*bounds)
    series = gpd.GeoSeries([box], crs=UTM)
    series.to_frame("geometry").to_file(tmp_path / "region.gpkg")
    kinds = {"bounds": bounds, "shape": box, "series": series, "file": tmp_path / "region.gpkg"}
    maps = [
        bands_of(map_effects(model, imagery, region, 60, tmp_path / f"{name}.tif", **QUIET).path)[0]
        for name, region in kinds.items()
    ]
    assert maps[0].shape == (6, 15, 15)
    for other in maps[1:]:
        np.testing.assert_array_equal(other, maps[0])


def test_bounds_in_degrees_need_their_coordinate_system(model, imagery, tmp_path):
    box = gpd.GeoSeries([shapely.box(WEST + 600, NORTH - 1800, WEST + 1500, NORTH - 900)], crs=UTM).to_crs(4326)
    with pytest.raises(ImageryError, match=r"outside the imagery.*region_crs"):
        map_effects(model, imagery, tuple(box.total_bounds), 60, tmp_path / "e.tif", **QUIET)
    result = map_effects(model, imagery, tuple(box.total_bounds), 60, tmp_path / "e.tif", region_crs=4326, **QUIET)
    assert result.shape[0] in (15, 16, 17)


@pytest.mark.parametrize(
    ("region", "error", "words"),
    [
        (gpd.GeoSeries([shapely.Point(WEST + 900, NORTH - 900)], crs=UTM), DataError, "without area.*buffer"),
        (gpd.GeoSeries([], crs=UTM), DataError, "without geometry"),
        (gpd.GeoSeries([shapely.box(0, 0, 1, 1)]), DataError, "without a coordinate system"),
        ((3.0, 0.0, 1.0, 1.0), DataError, "west < east"),
        (17, DataError, "a GeoDataFrame, a shapely polygon"),
        ((0.0, 0.0, 1.0, 1.0), ImageryError, "outside the imagery"),
    ],
)
def test_regions_that_cannot_be_used(model, imagery, tmp_path, region, error, words):
    with pytest.raises(error, match=words):
        map_effects(model, imagery, region, 60, tmp_path / "e.tif", **QUIET)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resolution": 0}, "positive"),
        ({"resolution": 1e6}, "one cell"),
        ({"level": 1.0}, "between 0 and 1"),
        ({"min_valid": 2}, "share"),
        ({"tile_px": 0}, "whole number of cells"),
        ({"heterogeneity_p": -1}, "p-value"),
        ({"out": "effects.png"}, "ends in .tif"),
    ],
)
def test_settings_outside_their_domain(model, imagery, tmp_path, settings, words):
    arguments = {"resolution": 60, "out": tmp_path / "e.tif", **QUIET, **settings}
    with pytest.raises(ParameterError, match=words):
        map_effects(model, imagery, **arguments)


def test_resolution_is_rounded_to_pixels_and_says_so(model, imagery, tmp_path):
    with pytest.warns(DataWarning, match="cells are 3 pixels, 90 m"):
        result = map_effects(model, imagery, None, 100, tmp_path / "e.tif", **QUIET)
    assert result.resolution_m == 90
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        map_effects(model, imagery, None, 60, tmp_path / "f.tif", **QUIET)


def test_a_raster_in_degrees(tmp_path):
    pixels = smooth_pixels(hole=False)
    degree = 0.0003
    path = write_raster(tmp_path / "deg.tif", pixels, crs=4326, transform=Affine(degree, 0, 32.0, 0, -degree, 3.0))
    imagery = open_imagery(path)
    rng = np.random.default_rng(1)
    points = gpd.points_from_xy(32 + degree * rng.uniform(10, 110, 60), 3 - degree * rng.uniform(10, 80, 60))
    model = toy_model(imagery, gpd.GeoDataFrame(geometry=points, crs=4326), 8 * imagery.resolution_m)
    result = map_effects(model, imagery, None, 2 * imagery.resolution_m, tmp_path / "e.tif", **QUIET)
    values, transform, crs = bands_of(result.path)
    np.testing.assert_allclose(values[0], direct_means(pixels, 45, 60, 2, 8), atol=2e-6)
    assert transform.almost_equals(Affine(2 * degree, 0, 32.0, 0, -2 * degree, 3.0))
    assert crs.to_epsg() == 4326


def test_stricter_validity_maps_fewer_cells(model, imagery, tmp_path):
    counts = [
        map_effects(model, imagery, None, 60, tmp_path / f"{share}.tif", min_valid=share, **QUIET).n_mapped
        for share in (0.3, 0.5, 1.0)
    ]
    assert counts[0] > counts[1] > counts[2] > 0


def test_a_map_without_a_cell_warns(model, imagery, tmp_path):
    hole = (WEST + 57 * PIXEL, NORTH - 33 * PIXEL, WEST + 67 * PIXEL, NORTH - 27 * PIXEL)
    with pytest.warns(DataWarning, match="no cell of the map has an effect"):
        result = map_effects(model, imagery, hole, 60, tmp_path / "e.tif", **QUIET)
    assert result.n_mapped == 0
    assert np.isnan(bands_of(result.path)[0]).all()


def test_columns_on_which_the_effect_does_not_depend_are_filled(imagery, trial, tmp_path, model):
    adjusted = toy_model(imagery, trial, 240.0, keep=("age",))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        result = map_effects(adjusted, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    plain = map_effects(model, imagery, None, 60, tmp_path / "f.tif", **QUIET)
    np.testing.assert_array_equal(bands_of(result.path)[0], bands_of(plain.path)[0])


def test_columns_on_which_the_effect_depends_must_be_given(imagery, trial, tmp_path):
    dependent = toy_model(imagery, trial, 240.0, keep=("age",), modifiers="all")
    with pytest.raises(ColumnError, match=r"'age'.*covariates=\{'age': value"):
        map_effects(dependent, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    result = map_effects(dependent, imagery, None, 60, tmp_path / "e.tif", covariates={"age": 30}, **QUIET)
    with rasterio.open(result.path) as raster:
        assert raster.tags()["columns"] == "age=30"
    with pytest.raises(ColumnError, match=r"'agee'.*does not use"):
        map_effects(dependent, imagery, None, 60, tmp_path / "e.tif", covariates={"agee": 30}, **QUIET)
    with pytest.raises(DataError, match="one finite number"):
        map_effects(dependent, imagery, None, 60, tmp_path / "e.tif", covariates={"age": "old"}, **QUIET)


def test_a_model_without_images_or_columns_is_refused(imagery, tmp_path):
    rng = np.random.default_rng(0)
    bare = FirstFeature("all").fit(rng.standard_normal((20, 2)), rng.standard_normal(20), treatment=np.arange(20) % 2)
    with pytest.raises(ParameterError, match="without an ImageEncoder"):
        map_effects(bare, imagery, None, 60, tmp_path / "e.tif", **QUIET)


def test_a_model_fitted_on_chips_is_mapped_with_size_m(imagery, trial, tmp_path, model):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    chips = imagery.chips(trial, size_m=240.0, on_invalid="mask", min_valid=0.0)
    rng = np.random.default_rng(0)
    means = FunctionTransformer(_chip_means)
    fitted = make_pipeline(means, FirstFeature("all"))
    fitted.fit(chips, rng.standard_normal(len(trial)), firstfeature__treatment=np.arange(len(trial)) % 2)
    result = map_effects(fitted, imagery, None, 90, tmp_path / "e.tif", size_m=240.0, **QUIET)
    plain = map_effects(model, imagery, None, 90, tmp_path / "f.tif", **QUIET)
    np.testing.assert_allclose(bands_of(result.path)[0][:4], bands_of(plain.path)[0][:4], atol=1e-6)


def _chip_means(chips):
    return np.nanmean(np.asarray(chips), axis=(-2, -1)).reshape(len(chips), -1)


def test_another_raster_with_the_same_bands_is_mapped_on_itself(model, imagery, tmp_path):
    """A model trained on one raster maps another: the effect is that of the other's pixels."""
    other_pixels = smooth_pixels(seed=5, hole=False)
    other = open_imagery(write_raster(tmp_path / "other.tif", other_pixels))
    result = map_effects(model, other, None, 60, tmp_path / "e.tif", **QUIET)
    np.testing.assert_allclose(bands_of(result.path)[0][0], direct_means(other_pixels, 45, 60, 2, 8), atol=2e-6)
    assert model.steps[0][1].imagery is imagery


def test_a_raster_without_a_date_is_mapped_by_a_model_whose_images_have_one(trial, raster, tmp_path):
    model = toy_model(open_imagery(raster, dates="2000-07-01"), trial, 240.0)
    other_pixels = smooth_pixels(seed=5, hole=False)
    other = open_imagery(write_raster(tmp_path / "other.tif", other_pixels))
    result = map_effects(model, other, None, 60, tmp_path / "e.tif", **QUIET)
    np.testing.assert_allclose(bands_of(result.path)[0][0], direct_means(other_pixels, 45, 60, 2, 8), atol=2e-6)


def test_images_that_the_model_cannot_read_only_lay_the_grid_and_that_is_told(model, tmp_path):
    path = write_raster(tmp_path / "other.tif", smooth_pixels(seed=5))
    with pytest.warns(MapWarning, match=r"its own images, scene .*bands red, nir\) only lays the grid"):
        result = map_effects(model, open_imagery(path, bands=["red", "nir"]), None, 60, tmp_path / "e.tif", **QUIET)
    own, found = direct_means(smooth_pixels(), 45, 60, 2, 8), bands_of(result.path)[0][0]
    both = np.isfinite(own) & np.isfinite(found)
    assert both.sum() > 2000
    np.testing.assert_allclose(found[both], own[both], atol=2e-6)


def test_the_model_s_own_file_is_mapped_as_it_was_opened_for_the_fit(trial, raster, tmp_path):
    """The command line opens it without the scale, and perhaps the date, that the model was fitted with."""
    model = toy_model(open_imagery(raster, scale=0.5, offset=1.0, dates="2000-07-01"), trial, 240.0)
    with pytest.warns(MapWarning, match=r"other settings \(offset=1\.0, scale=0\.5\)"):
        result = map_effects(model, open_imagery(raster), None, 60, tmp_path / "e.tif", **QUIET)
    expected = 0.5 * direct_means(smooth_pixels(), 45, 60, 2, 8) + 1
    np.testing.assert_allclose(bands_of(result.path)[0][0], expected, atol=2e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MapWarning)
        undated = open_imagery(raster, scale=0.5, offset=1.0)
        map_effects(model, undated, None, 60, tmp_path / "e.tif", overwrite=True, **QUIET)


def test_another_file_with_another_scale_is_mapped_with_a_warning(model, tmp_path):
    path = write_raster(tmp_path / "other.tif", smooth_pixels(seed=5, hole=False))
    with pytest.warns(MapWarning, match=r"scale=0\.1, offset=0\.0 .* with scale=1\.0"):
        map_effects(model, open_imagery(path, scale=0.1), None, 90, tmp_path / "e.tif", **QUIET)


def test_result_in_memory_and_in_words(model, imagery, tmp_path):
    result = map_effects(model, imagery, None, 60, tmp_path / "e.tif", **QUIET)
    array = result.to_xarray()
    assert array.dims == ("band", "y", "x")
    assert list(array.band.values) == list(BANDS)
    np.testing.assert_array_equal(array.sel(band="cate").values, bands_of(result.path)[0][0])
    assert f"{result.n_mapped:,} of 45 x 60 cells of 60 m" in str(result)


def test_outputs_are_neither_the_imagery_nor_one_file(model, tmp_path):
    write_raster(tmp_path / "scene.tif", smooth_pixels())
    before = (tmp_path / "scene.tif").read_bytes()
    held = open_imagery(tmp_path / "scene.tif")
    with pytest.raises(ParameterError, match="which the imagery is read from"):
        map_effects(model, held, resolution=3 * PIXEL, out=tmp_path / "scene.tif", **QUIET)
    with pytest.raises(ParameterError, match="the file of out="):
        map_effects(
            model, held, resolution=3 * PIXEL, out=tmp_path / "map.tif", **{**QUIET, "html": tmp_path / "map.tif"}
        )
    assert (tmp_path / "scene.tif").read_bytes() == before


def test_dollars_in_titles_and_units_are_words(model, imagery, tmp_path):
    options = {"title": "Cost $a_$ and $b^$", "units": r"$\write18{id}$ a year"}
    result = map_effects(
        model, imagery, resolution=6 * PIXEL, out=tmp_path / "map.tif", **{**QUIET, "png": True}, **options
    )
    assert result.png.stat().st_size > 10_000


def test_a_region_of_two_coordinate_systems_is_refused(model, imagery, tmp_path):
    region = gpd.GeoDataFrame(geometry=[shapely.box(*imagery.bounds)], crs=imagery.crs)
    with pytest.raises(ParameterError, match=r"region_crs=32637, but the region says"):
        map_effects(model, imagery, region, 3 * PIXEL, tmp_path / "map.tif", region_crs=32637, **QUIET)


@pytest.mark.parametrize("name", ["prec.tif", "prec.png", "prec.html"])
def test_a_users_own_file_is_not_mapped_over(model, imagery, tmp_path, name):
    """Neither the file named nor those beside it; a map, its picture and its page of before are replaced."""
    own = tmp_path / name
    if name.endswith(".tif"):
        with rasterio.open(
            own, "w", driver="GTiff", width=4, height=4, count=1, dtype="float32", crs="EPSG:32636",
            transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
        ) as sink:  # fmt: skip
            sink.write(np.ones((1, 4, 4), "float32"))
    else:
        own.write_bytes(b"mine")
    before = own.read_bytes()
    options = {"png": True, "html": True, "progress": False}
    with pytest.raises(OutputError, match=rf"{name} would be written over .*another name, move them, or pass overw"):
        map_effects(model, imagery, None, 2400, tmp_path / "prec.tif", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert own.read_bytes() == before
    made = map_effects(model, imagery, None, 2400, tmp_path / "prec.tif", overwrite=True, **options)
    again = map_effects(model, imagery, None, 3600, tmp_path / "prec.tif", **options)  # another job, over our own
    assert again.resolution_m != made.resolution_m
    assert all(path.read_bytes() != before for path in (again.path, again.png, again.html))
