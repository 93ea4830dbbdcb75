"""RasterImagery against arrays that are known and against rasterio's own reads."""

from __future__ import annotations

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import geopandas
import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.windows import Window

from causalsat.exceptions import ImageryWarning
from causalsat.imagery import Grid, open_imagery
from causalsat.imagery.grid import make_grid

PROFILES = {
    "tiles": {},
    "strips": {"tiled": False, "blockxsize": None, "blockysize": None},
    "pixel interleaved": {"interleave": "pixel", "blockxsize": 128, "blockysize": 128},
}


def padded_slice(image: np.ndarray, row: int, col: int, height: int, width: int) -> np.ndarray:
    """Slice of the array surrounded by NaN."""
    pad = 400
    around = np.pad(image.astype(np.float32), ((0, 0), (pad, pad), (pad, pad)), constant_values=np.nan)
    return around[:, row + pad : row + pad + height, col + pad : col + pad + width]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    windows=st.lists(st.tuples(st.integers(-150, 220), st.integers(-150, 220)), min_size=1, max_size=12),
    size=st.integers(1, 140),
    batch=st.integers(1, 5),
    threads=st.sampled_from([1, 2]),
)
def test_windows_equal_slices_of_the_padded_array(write, image, profile, windows, size, batch, threads):
    path = write("scene.tif", image, **profile)
    imagery = open_imagery(path)
    rows, cols = np.array(windows).T
    expected = np.stack([padded_slice(image, r, c, size, size) for r, c in windows])
    seen = []
    for positions, chips in imagery.iter_windows(rows, cols, size, batch, threads=threads):
        np.testing.assert_array_equal(chips, expected[positions])
        seen += positions.tolist()
    assert sorted(seen) == list(range(len(windows)))
    out = np.empty_like(expected)
    valid = imagery.fill_windows(out, rows, cols, threads=threads)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(valid, np.isfinite(expected).mean(axis=(1, 2, 3)), atol=1e-12)
    r, c = windows[0]
    np.testing.assert_array_equal(
        imagery.read_window(r, c, size, size + 3), padded_slice(image, r, c, size, size + 3)
    )


def test_blocks_let_go_for_lack_of_memory_are_read_again(write, image, monkeypatch):
    monkeypatch.setattr("causalsat.imagery.blocks.HELD_BYTES", 1)
    imagery = open_imagery(write("scene.tif", image))
    rows, cols = np.random.default_rng(0).integers(-20, 100, size=(2, 30))
    for threads in (1, 2):
        for positions, chips in imagery.iter_windows(rows, cols, 40, 7, threads=threads):
            for i, chip in zip(positions, chips, strict=True):
                np.testing.assert_array_equal(chip, padded_slice(image, rows[i], cols[i], 40, 40))


def test_windows_over_the_border_equal_rasterio_boundless(write, image):
    path = write("scene.tif", image, nodata=7)
    imagery = open_imagery(path)
    with rasterio.open(path) as source:
        for row, col in [(-10, -5), (80, 100), (30, -40), (85, 20)]:
            theirs = source.read(window=Window(col, row, 30, 25), boundless=True, fill_value=7, masked=True)
            np.testing.assert_array_equal(
                imagery.read_window(row, col, 25, 30), theirs.astype(np.float32).filled(np.nan)
            )


def test_centre_pixels_equal_rasterio_sample(write, image):
    path = write("scene.tif", image)
    rng = np.random.default_rng(1)
    x, y = 500000 + rng.uniform(50, 1050, 40), 100000 - rng.uniform(50, 850, 40)
    points = geopandas.GeoSeries.from_xy(x, y, crs="EPSG:32636")
    with rasterio.open(path) as source:
        expected = np.array(list(source.sample(np.c_[x, y])))
    for size in (1, 4, 5):
        chips = open_imagery(path).chips(points.to_crs("EPSG:4326"), size_px=size)
        np.testing.assert_array_equal(chips.values[:, :, size // 2, size // 2], expected)


def test_each_block_is_decoded_once(write, image, monkeypatch):
    from causalsat.imagery.raster import RasterImagery

    imagery = open_imagery(write("scene.tif", image, blockxsize=128, blockysize=128))
    loads = []
    original = RasterImagery.load
    monkeypatch.setattr(RasterImagery, "load", lambda self, *w: loads.append(w) or original(self, *w))
    rng = np.random.default_rng(0)
    big = open_imagery(write("big.tif", np.zeros((1, 600, 700), np.uint8), blockxsize=128, blockysize=128))
    rows, cols = rng.integers(0, 500, size=(2, 300))
    for size in (1, 60, 200):
        loads.clear()
        list(big.iter_windows(rows, cols, size, 7))
        assert len(loads) == len(set(loads)) <= 30
    assert imagery.unit == (128, 128)


def test_nodata_scale_and_offset(write):
    data = np.array([[[0, 1], [2, 3]], [[10, 0], [30, 40]]], dtype=np.int16)
    path = write("scene.tif", data, nodata=0, tiled=False, blockxsize=None, blockysize=None)
    got = open_imagery(path, scale=[0.5, 2], offset=1).read_window(0, 0, 2, 2)
    np.testing.assert_array_equal(got, [[[np.nan, 1.5], [2, 2.5]], [[21, np.nan], [61, 81]]])
    assert open_imagery(path).nodata == 0
    given = open_imagery(path, nodata=40).read_window(0, 0, 2, 2)
    np.testing.assert_array_equal(given, [[[0, 1], [2, 3]], [[10, 0], [30, np.nan]]])


def test_nodata_of_bands_of_two_types(write, tmp_path):
    """A fractional nodata value is another number in single than in double precision."""
    first = np.full((1, 20, 20), 2.0, dtype=np.float32)
    first[0, 3, 4] = -9999.9
    second = np.full((1, 20, 20), 7, dtype=np.int16)
    write("a.tif", first), write("b.tif", second)
    band = (
        '<VRTRasterBand dataType="{}" band="{}"><NoDataValue>{}</NoDataValue><SimpleSource><SourceFilename '
        'relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
    )
    (tmp_path / "two.vrt").write_text(
        '<VRTDataset rasterXSize="20" rasterYSize="20"><SRS>EPSG:32636</SRS>'
        "<GeoTransform>500000,10,0,100000,0,-10</GeoTransform>"
        + band.format("Float32", 1, -9999.9, "a.tif")
        + band.format("Int16", 2, 7, "b.tif")
        + "</VRTDataset>"
    )
    pixels = open_imagery(tmp_path / "two.vrt").read_window(0, 0, 20, 20)
    assert np.argwhere(np.isnan(pixels[0])).tolist() == [[3, 4]]
    assert np.isnan(pixels[1]).all()


def test_a_scale_of_the_file_s_own_is_warned_of(write, image):
    path = write("scene.tif", image)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.1,) * 3, (-5.0,) * 3
    with pytest.warns(ImageryWarning, match=r"scale=0\.1, offset=-5\)"):
        np.testing.assert_array_equal(open_imagery(path).read_window(0, 0, 9, 9), image[:, :9, :9])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageryWarning)
        open_imagery(path, scale=0.1, offset=-5)
        open_imagery(write("plain.tif", image))


@pytest.mark.parametrize("west", [0.0, 100.0])
def test_longitudes_are_found_a_turn_away(write, west):
    """Rasters that count from 0 to 360 degrees, or on across 180."""
    degrees = (np.arange(20) * 10 + west)[None, None].repeat(20, axis=1).astype(np.int16)
    imagery = open_imagery(write("world.tif", degrees, crs="EPSG:4326", transform=from_origin(west, 90, 10, 9)))
    lon = np.array([105.0, 175.0, -175.0, -165.0])
    places = geopandas.GeoSeries.from_xy(lon, [10.0] * 4, crs="EPSG:4326")
    found = imagery.chips(places, size_px=1).values.ravel()
    np.testing.assert_array_equal(found, lon % 360 - 5)
    outside = geopandas.GeoSeries.from_xy([west - 15, west + 215], [10.0] * 2, crs="EPSG:4326")
    _, col0 = imagery.windows(outside, 1)
    assert ((col0 < 0) | (col0 >= 20)).all()


def test_float_nodata_nan_and_infinity(write):
    data = np.array([[[np.nan, -9999], [np.inf, 3]]], dtype=np.float32)
    path = write("scene.tif", data, nodata=-9999, tiled=False, blockxsize=None, blockysize=None)
    np.testing.assert_array_equal(open_imagery(path).read_window(0, 0, 2, 2), [[[np.nan, np.nan], [np.nan, 3]]])


def test_alpha_band_is_a_mask_and_no_band(write, image):
    alpha = np.full((1, 90, 110), 60000, np.uint16)
    alpha[0, :40] = 0
    imagery = open_imagery(write("scene.tif", np.concatenate([image, alpha]), photometric="rgb", alpha="yes"))
    assert imagery.bands == ("band_1", "band_2", "band_3")
    got = imagery.read_window(0, 0, 90, 110)
    assert np.isnan(got[:, :40]).all()
    np.testing.assert_array_equal(got[:, 40:], image[:, 40:])


def test_mask_band_of_the_file(write, image):
    mask = np.zeros((90, 110), bool)
    mask[10:20, 5:50] = True
    got = open_imagery(write("scene.tif", image, mask=mask)).read_window(0, 0, 90, 110)
    np.testing.assert_array_equal(got, np.where(mask, image.astype(np.float32), np.nan))


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ({"band": "SCL", "invalid": [3, 9]}, [3, 9]),
        ({"band": "SCL", "valid": [4, 5]}, [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]),
        ({"band": "SCL", "bits": [0, 3]}, [1, 3, 5, 7, 8, 9, 10, 11]),
        ({"band": 4, "invalid": 4}, [4]),
        ("sentinel2-scl", [0, 1, 3, 8, 9, 10, 11]),
    ],
)
def test_quality_band(write, image, rule, bad):
    quality = np.random.default_rng(2).integers(0, 12, size=(1, 90, 110), dtype=np.uint16)
    path = write("scene.tif", np.concatenate([image, quality]), names=["red", "nir", "swir1", "SCL"])
    imagery = open_imagery(path, mask=rule)
    assert imagery.bands == ("red", "nir", "swir1")
    expected = np.where(np.isin(quality, bad), np.nan, image.astype(np.float32))
    np.testing.assert_array_equal(imagery.read_window(0, 0, 90, 110), expected)
    np.testing.assert_array_equal(imagery.sel(bands="nir").read_window(0, 0, 90, 110), expected[1:2])


def test_quality_in_another_file(write, image):
    quality = np.zeros((1, 90, 110), np.uint8)
    quality[0, 0, 0] = 8
    write("scene_QA.tif", quality)
    path = write("scene_SR.tif", image)
    got = open_imagery(path, mask={"replace": ["_SR", "_QA"], "bits": [3]}).read_window(0, 0, 2, 2)
    assert np.isnan(got[:, 0, 0]).all()
    assert np.isfinite(got).sum() == 9


def test_bands_by_name_number_and_new_name(write, image):
    path = write("scene.tif", image, names=["red", "nir", "swir1"])
    whole = image.astype(np.float32)
    for bands, names, order in [
        (["swir1", "red"], ("swir1", "red"), [2, 0]),
        ([2], ("nir",), [1]),
        ({"a": 3, "b": "red"}, ("a", "b"), [2, 0]),
    ]:
        imagery = open_imagery(path, bands=bands)
        assert imagery.bands == names
        np.testing.assert_array_equal(imagery.read_window(0, 0, 90, 110), whole[order])
    unnamed = write("unnamed.tif", image)
    assert open_imagery(unnamed, bands=["r", "n", "s"]).bands == ("r", "n", "s")


def test_degrees_are_metres_on_the_ground(write):
    path = write(
        "scene.tif",
        np.zeros((1, 64, 64), np.uint8),
        crs="EPSG:4326",
        transform=rasterio.Affine(0.001, 0, 30, 0, -0.001, 60),
    )
    imagery = open_imagery(path)
    height, width = imagery.grid.pixel_size_m
    # one degree of latitude at 60 N is 111.41 km on WGS84, one of longitude 55.80 km (cos 59.968 * 111.32 adjusted)
    assert height == pytest.approx(111.41, rel=1e-3)
    assert width == pytest.approx(55.85, rel=2e-3)
    assert imagery.resolution_m == pytest.approx((height * width) ** 0.5)
    assert imagery.size_px(790) == 10


@pytest.mark.parametrize(
    ("crs", "centre", "expected"),
    [
        ("EPSG:32636", (5e5, 1e5), 10.0),  # metres as they stand
        ("EPSG:2263", (1e6, 2e5), 10 * 0.3048006096),  # US feet
        ("EPSG:3857", (0, 8399737.9), 5.0),  # Mercator at 60 N: half as long on the ground
    ],
)
def test_metres_of_projections(crs, centre, expected):
    grid = make_grid(crs, (10, 0, centre[0] - 500, 0, -10, centre[1] + 500), (100, 100), "scene")
    assert grid.resolution_m == pytest.approx(expected, rel=5e-3)


def test_objects_cross_threads_processes_and_copies(write, image):
    imagery = open_imagery(write("scene.tif", image), dates="2000-07-01", mask=None)
    assert copy.deepcopy(imagery) is imagery
    again = pickle.loads(pickle.dumps(imagery))
    assert again == imagery
    assert hash(again) == hash(imagery)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda i: again.read_window(i, 2 * i, 20, 20), range(30)):
            assert got.shape == (3, 20, 20)
    np.testing.assert_array_equal(again.read_window(5, 6, 20, 20), image[:, 5:25, 6:26])
    assert isinstance(again.grid, Grid)
    assert imagery.dates == (np.datetime64("2000-07-01"),)
    assert not imagery.has_time


def test_a_file_written_anew_is_read_anew(write, image):
    imagery = open_imagery(write("scene.tif", image))
    first = imagery.read_window(0, 0, 90, 110)
    write("scene.tif", image[:, ::-1].copy())
    np.testing.assert_array_equal(imagery.read_window(0, 0, 90, 110), first[:, ::-1])


def test_vrt(write, image, tmp_path):
    from rasterio.shutil import copy as copy_raster

    copy_raster(write("scene.tif", image), tmp_path / "scene.vrt", driver="VRT")
    np.testing.assert_array_equal(
        open_imagery(tmp_path / "scene.vrt").read_window(3, 4, 50, 60), image[:, 3:53, 4:64]
    )
