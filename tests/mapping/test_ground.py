"""Regions, districts and weights on the globe: means against sums over cells written out by hand."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from map_toys import toy_model, write_raster
from pyproj import Geod

from causalsat.exceptions import DataError, DataWarning, ParameterError
from causalsat.imagery import open_imagery
from causalsat.mapping import district_effects, map_effects, plan_map
from causalsat.mapping.grid import grid_over, read_polygons, region_of

GEOD = Geod(ellps="WGS84")


def geodesic_area(west, south, east, north):
    """Of a box in degrees, its parallels followed in steps."""
    lon = np.linspace(west, east, 50)
    ring = np.concatenate([lon, lon[::-1]]), np.concatenate([np.full(50, south), np.full(50, north)])
    return abs(GEOD.polygon_area_perimeter(*ring)[0])


def world(folder, west, south, side, shape, crs="EPSG:4326", seed=0):
    """A raster in degrees whose first band varies by row and column."""
    rng = np.random.default_rng(seed)
    pixels = (rng.uniform(size=(1, *shape)) + np.arange(shape[0])[:, None] * 0.2).astype(np.float32)
    transform = Affine(side, 0, west, 0, -side, south + side * shape[0])
    path = write_raster(folder / "world.tif", pixels, crs=crs, transform=transform)
    return open_imagery(path), pixels[0].astype(float), transform


def model_of(imagery):
    """Effect: the pixel itself (chips of one pixel)."""
    left, bottom, right, top = imagery.bounds
    x, y = np.linspace(left, right, 12)[1:-1], np.linspace(bottom, top, 12)[1:-1]
    places = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=imagery.crs)
    return toy_model(imagery, places, imagery.resolution_m)


def one(imagery, shape, crs="EPSG:4326", **options):
    frame = shape if hasattr(shape, "geometry") else gpd.GeoDataFrame(geometry=[shape], crs=crs)
    found = district_effects(model_of(imagery), imagery, frame, imagery.resolution_m, progress=False, **options)
    return found.table


# ---------------------------------------------------------------------- means over land
@pytest.mark.filterwarnings("ignore::causalsat.exceptions.ImageryWarning")
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_means_over_land_are_by_area_on_the_ground(tmp_path, crs):
    """A country from 0 to 24 north: in degrees and in Mercator its north counts too much where cells count alike."""
    if crs == "EPSG:4326":
        imagery, effect, transform = world(tmp_path, 10.0, 0.0, 0.4, (60, 20))
        south = 24.0 - 0.4 * (np.arange(60) + 1)
        area = np.array([geodesic_area(10, s, 10.4, s + 0.4) for s in south])
    else:
        imagery, effect, transform = world(tmp_path, 1_000_000, 0, 45_000, (60, 20), crs)
        edges = gpd.GeoSeries.from_xy([1_000_000] * 61, transform.f - 45_000 * np.arange(61), crs=crs).to_crs(4326).y
        width = 45_000 / 6378137.0 * 180 / np.pi
        area = np.array([geodesic_area(10, edges[k + 1], 10 + width, edges[k]) for k in range(60)])
    truth = (effect.mean(axis=1) * area).sum() / area.sum()
    found = one(imagery, shapely.box(*imagery.bounds), crs)["mean"].iloc[0]
    assert found == pytest.approx(truth, rel=2e-4)
    assert abs(effect.mean() - truth) > 0.05


def test_cells_of_a_projection_that_keeps_areas_count_alike(tmp_path):
    imagery, effect, _ = world(tmp_path, 4_000_000, 2_600_000, 10_000, (40, 30), "EPSG:3035")
    assert one(imagery, shapely.box(*imagery.bounds), "EPSG:3035")["mean"].iloc[0] == pytest.approx(effect.mean())


# ---------------------------------------------------------------------- longitudes
FIJI = {
    "in two parts": gpd.GeoSeries(
        [shapely.MultiPolygon([shapely.box(178, -19, 180, -16), shapely.box(-180, -19, -179, -16)])], crs=4326
    ),
    "on across 180": gpd.GeoSeries([shapely.box(178, -19, 181, -16)], crs=4326),
    "below -180": gpd.GeoSeries([shapely.box(-182, -19, -179, -16)], crs=4326),
    "projected": gpd.GeoSeries([shapely.box(178, -19, 181, -16)], crs=4326).segmentize(0.1).to_crs(3832),
}  # fmt: skip
RASTERS = {"0 to 360": (0.0, 360), "-180 to 180": (-180.0, 360), "around 180": (170.0, 20)}


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.ImageryWarning")
@pytest.mark.parametrize("raster", RASTERS)
@pytest.mark.parametrize("kind", FIJI)
def test_districts_on_both_sides_of_180_degrees(tmp_path, kind, raster):
    west, columns = RASTERS[raster]
    imagery, effect, _ = world(tmp_path, west, -30.0, 1.0, (20, columns))
    table = one(imagery, gpd.GeoDataFrame(geometry=FIJI[kind]))
    cols = [int(lon - west) % 360 for lon in (178, 179, 180)]
    rows = slice(-10 + 16, -10 + 19)
    area = np.array([geodesic_area(0, s, 1, s + 1) for s in (-17, -18, -19)])
    truth = (effect[rows][:, cols].mean(axis=1) * area).sum() / area.sum()
    assert table["n_cells"].iloc[0] == 9
    assert table["mean"].iloc[0] == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize(("west", "lon"), [(0.0, -60), (-180.0, 300), (-180.0, -60), (0.0, 300)])
def test_regions_at_other_longitudes_than_the_raster(tmp_path, west, lon):
    imagery, effect, _ = world(tmp_path, west, -10.0, 1.0, (20, 360))
    out = map_effects(model_of(imagery), imagery, (lon, -4, lon + 5, 3), imagery.resolution_m, tmp_path / "m.tif",
                      region_crs="EPSG:4326", png=False, html=False, progress=False)  # fmt: skip
    with rasterio.open(out.path) as raster:
        mapped = raster.read(1)
    col = int(lon - west) % 360
    np.testing.assert_allclose(mapped, effect[7:14, col : col + 5], atol=1e-5)


def test_bounds_across_180_degrees(tmp_path):
    imagery, _, _ = world(tmp_path, 0.0, -30.0, 1.0, (40, 360))
    assert region_of((177, -20, -178, -12), imagery).bounds == (177, -20, 182, -12)
    with pytest.raises(DataError, match="west < east"):
        region_of((500_000, 0, 400_000, 10), imagery, "EPSG:32636")


# ---------------------------------------------------------------------- weights
def people(folder, data, west, north, side, crs="EPSG:4326", **profile):
    data = np.asarray(data)
    with rasterio.open(
        folder / "people.tif", "w", driver="GTiff", height=data.shape[-2], width=data.shape[-1], count=len(data),
        crs=crs, dtype=str(data.dtype), transform=Affine(side, 0, west, 0, -side, north), **profile,
    ) as sink:  # fmt: skip
        sink.write(data)
    return open_imagery(folder / "people.tif")


def test_counts_are_summed_and_pixels_on_a_border_shared(tmp_path):
    """Cells of 1 degree, pixels of 0.4, nobody where nodata: every person once, in the cells of their pixel."""
    imagery, effect, _ = world(tmp_path, 10.0, 0.0, 1.0, (8, 8))
    counts = np.random.default_rng(1).integers(0, 50, (1, 20, 20)).astype("float32")
    counts[0, 3:6, 2:9] = -99
    weights = people(tmp_path, counts, 10.0, 8.0, 0.4, nodata=-99)
    each = np.where(counts[0] == -99, 0, counts[0]) / 16  # per 0.1 x 0.1 degrees
    fine = np.kron(each, np.ones((4, 4)))
    truth = (fine * np.kron(effect, np.ones((10, 10)))).sum() / fine.sum()
    assert one(imagery, shapely.box(10, 0, 18, 8), weights=weights)["mean"].iloc[0] == pytest.approx(truth, rel=1e-6)


def test_counts_and_densities_in_degrees(tmp_path):
    """One density everywhere: the mean over people is the mean over land, from counts and from densities."""
    imagery, effect, _ = world(tmp_path, 10.0, 5.0, 0.25, (60, 6))
    country = shapely.box(10, 5, 11.5, 20)
    land = one(imagery, country)["mean"].iloc[0]
    area = np.array([geodesic_area(0, 20 - 0.125 * (k + 1), 0.125, 20 - 0.125 * k) for k in range(120)]) / 1e6
    counts = people(tmp_path, np.repeat(100 * area[:, None], 12, axis=1)[None].astype("float32"), 10.0, 20.0, 0.125)
    assert one(imagery, country, weights=counts)["mean"].iloc[0] == pytest.approx(land, rel=1e-5)
    density = people(tmp_path, np.full((1, 120, 12), 100.0, "float32"), 10.0, 20.0, 0.125)
    table = one(imagery, country, weights=density, weights_per="km2")
    assert table["mean"].iloc[0] == pytest.approx(land, rel=1e-5)
    taken_for_counts = one(imagery, country, weights=density)["mean"].iloc[0]
    assert taken_for_counts == pytest.approx(effect.mean(), rel=1e-6)
    assert abs(taken_for_counts - land) > 0.02


def test_weights_in_another_system(tmp_path):
    imagery, effect, _ = world(tmp_path, 500_000, 0, 1000, (30, 30), "EPSG:32636")
    west, south, east, north = gpd.GeoSeries([shapely.box(*imagery.bounds)], crs=32636).to_crs(4326).total_bounds
    side = 0.001
    shape = int(np.ceil((north - south) / side)) + 2, int(np.ceil((east - west) / side)) + 2
    lon, lat = west + side * (np.arange(shape[1]) + 0.5), north - side * (np.arange(shape[0]) + 0.5)
    counts = np.add.outer(1 + np.cos(300 * lat), np.sin(400 * lon) + 1)
    weights = people(tmp_path, counts[None].astype("float32"), west, north, side)
    centres = gpd.GeoSeries.from_xy(*(v.ravel() for v in np.meshgrid(lon, lat)), crs=4326).to_crs(32636)
    col, row = ((centres.x - 500_000) // 1000).astype(int), ((30_000 - centres.y) // 1000).astype(int)
    inside = (col >= 0) & (col < 30) & (row >= 0) & (row < 30)
    mass = np.zeros((30, 30))
    np.add.at(mass, (row[inside], col[inside]), counts.ravel()[inside])
    table = one(imagery, shapely.box(*imagery.bounds), "EPSG:32636", weights=weights)
    assert table["mean"].iloc[0] == pytest.approx((mass * effect).sum() / mass.sum(), rel=2e-3)


def test_a_district_that_the_weights_cover_in_part_is_told(tmp_path):
    imagery, effect, _ = world(tmp_path, 10.0, 0.0, 1.0, (8, 8))
    weights = people(tmp_path, np.ones((1, 8, 4), "uint8"), 10.0, 8.0, 1.0)
    frame = gpd.GeoDataFrame(
        geometry=[shapely.box(10, 0, 14, 8), shapely.box(12, 0, 18, 8)], index=["w", "e"], crs=4326
    )
    with pytest.warns(DataWarning, match=r"cover 1 districts in part: e \(33%\)"):
        table = one(imagery, frame, weights=weights)
    np.testing.assert_allclose(table["mean"], [effect[:, :4].mean(), effect[:, 2:4].mean()], rtol=1e-5)


def test_weights_that_are_no_weights_are_refused(tmp_path):
    imagery, _, _ = world(tmp_path, 10.0, 0.0, 1.0, (8, 8))
    weights = people(tmp_path, np.ones((3, 8, 8), "uint8"), 10.0, 8.0, 1.0)
    with pytest.raises(ParameterError, match=r"3 bands.*weights.sel\(bands="):
        one(imagery, shapely.box(10, 0, 18, 8), weights=weights)
    with pytest.raises(ParameterError, match=r"weights_per='cell'.*'km2' for densities"):
        one(imagery, shapely.box(10, 0, 18, 8), weights=weights.sel(bands=["band_1"]), weights_per="cell")
    with pytest.raises(ParameterError, match="open it first"):
        one(imagery, shapely.box(10, 0, 18, 8), weights=tmp_path / "people.tif")
    elsewhere = people(tmp_path, np.ones((1, 8, 8), "uint8"), 100.0, 8.0, 1.0)
    with pytest.raises(DataError, match="weights are zero or missing in all districts"):
        one(imagery, shapely.box(10, 0, 18, 8), weights=elsewhere)
    negative = people(tmp_path, np.full((1, 8, 8), -1.0, "float32"), 10.0, 8.0, 1.0)
    with pytest.raises(DataError, match="negative weights"):
        one(imagery, shapely.box(10, 0, 18, 8), weights=negative)
    undeclared = np.ones((1, 8, 8), "float32")
    undeclared[0, 2, 2] = np.finfo("float32").max
    with pytest.raises(DataError, match=r"a weight of 3\.40282e\+38.*open the weights with nodata="):
        one(imagery, shapely.box(10, 0, 18, 8), weights=people(tmp_path, undeclared, 10.0, 8.0, 1.0))


def test_weights_are_read_in_parts(tmp_path, monkeypatch):
    imagery, _, _ = world(tmp_path, 10.0, 0.0, 1.0, (8, 8))
    counts = np.random.default_rng(1).integers(0, 50, (1, 80, 80)).astype("float32")
    weights = people(tmp_path, counts, 10.0, 8.0, 0.1)
    whole = one(imagery, shapely.box(10, 0, 18, 8), weights=weights)
    monkeypatch.setattr("causalsat.mapping.weights._WINDOW_PX", 300)
    parts = one(imagery, shapely.box(10, 0, 18, 8), weights=weights)
    np.testing.assert_allclose(parts["mean"], whole["mean"], rtol=1e-9)


# ---------------------------------------------------------------------- files and sizes
def test_written_geojson_is_in_longitude_and_latitude(tmp_path):
    """RFC 7946, in two parts where it lies across 180 degrees."""
    import json

    imagery, _, _ = world(tmp_path, 0.0, -30.0, 1.0, (20, 360))
    frame = gpd.GeoDataFrame(geometry=FIJI["on across 180"])
    found = district_effects(model_of(imagery), imagery, frame, imagery.resolution_m, progress=False)
    text = json.loads(found.write(tmp_path / "d.geojson").read_text())
    assert "crs" not in text
    shape = shapely.geometry.shape(text["features"][0]["geometry"])
    assert shape.bounds[0] >= -180
    assert shape.bounds[2] <= 180
    assert shape.area == pytest.approx(9)
    utm, _, _ = world(tmp_path, 500_000, 0, 1000, (30, 30), "EPSG:32636")
    table = gpd.GeoDataFrame(geometry=[shapely.box(*utm.bounds)], crs=32636)
    path = district_effects(model_of(utm), utm, table, 1000, progress=False).write(tmp_path / "u.geojson")
    west, _, east, _ = gpd.read_file(path).total_bounds
    assert (west, east) == pytest.approx((33.0, 33.2695), abs=1e-3)


def test_altitudes_are_left_out_of_regions(tmp_path):
    imagery, _, _ = world(tmp_path, 10.0, 0.0, 1.0, (8, 8))
    flat = gpd.GeoDataFrame(geometry=[shapely.box(10, 0, 14, 8)], crs=4326)
    high = gpd.GeoDataFrame(geometry=shapely.force_3d(flat.geometry, 1200.0), crs=4326)
    assert one(imagery, high)["mean"].iloc[0] == one(imagery, flat)["mean"].iloc[0]


@pytest.mark.parametrize(
    "path", ["https://example.org/d.geojson", "/vsicurl/https://example.org/d.gpkg", "s3://b/d.gpkg"]
)
def test_polygons_on_the_net_are_not_fetched(path):
    with pytest.raises(DataError, match=r"lies on the net.*geopandas.read_file"):
        read_polygons(path)


def test_chips_of_a_map_have_the_metres_of_the_fit(tmp_path):
    """Fitted at the equator, mapped at 60 north: chips in degrees would be half as wide there."""
    from causalsat.encoders import ImageEncoder, RandomConvFeatures

    imagery, _, _ = world(tmp_path, 0.0, -65.0, 1.0, (130, 40))
    places = gpd.GeoDataFrame(geometry=gpd.points_from_xy(np.arange(2.5, 38), np.tile([0.5, 2.5], 18)), crs=4326)
    encoder = ImageEncoder(imagery, 500_000, encoder=RandomConvFeatures(n_features=4), n_components=2)
    encoder.fit(places)
    north = gpd.GeoDataFrame(geometry=gpd.points_from_xy([10.0], [60.0]), crs=4326)
    with pytest.raises(ParameterError, match=r"m from north to south.*gdalwarp"):
        encoder.transform(north)
    assert len(encoder.transform(places.iloc[:2])) == 2
    model = toy_model(imagery, places, 500_000)
    with pytest.raises(ParameterError, match=r"m from north to south.*gdalwarp"):
        plan_map(model, imagery, (5, 55, 20, 64), 200_000, region_crs="EPSG:4326", measure=False)


@pytest.mark.filterwarnings("ignore::causalsat.exceptions.ImageryWarning")
def test_a_plan_counts_areas_on_the_ground(tmp_path):
    imagery, _, _ = world(tmp_path, 10.0, 0.0, 0.4, (60, 20))
    plan = plan_map(model_of(imagery), imagery, None, imagery.resolution_m, tile_px=8, measure=False)
    assert plan.area_km2 == pytest.approx(geodesic_area(10, 0, 18, 24) / 1e6, rel=1e-3)


def test_cells_have_the_metres_of_the_region(tmp_path):
    """A raster from 60 south to 60 north in Mercator, and a region at 20 north: cells of so many metres there."""
    imagery, _, _ = world(tmp_path, 0, -8_400_000, 10_000, (1680, 40), "EPSG:3857")
    for south, side in ((0, 10_000), (2_200_000, 9_390), (4_800_000, 7_640)):
        region = shapely.box(100_000, south, 300_000, south + 200_000)
        grid = grid_over(imagery, region, 20_000, tell=False)
        assert grid.resolution_m == pytest.approx(grid.cell_px * side, rel=0.02)
