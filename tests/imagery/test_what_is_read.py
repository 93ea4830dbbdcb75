"""Kinds of input by formats: each cell equals an independent reader, is refused with a reason or told by a warning.

Masks and nodata of raster files are in test_nodata_and_masks.py, files that change in test_identity.py.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray
from rasterio.shutil import copy as copy_raster

from causalsat.exceptions import CausalsatError, ImageryError, ImageryWarning, ParameterError
from causalsat.imagery import open_imagery
from causalsat.imagery.dates import as_day, day_in_name

TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 100000)
Y, X = 99995 - 10.0 * np.arange(12), 500005 + 10.0 * np.arange(14)
CRS = "EPSG:32636"


def tif(path: Path, data: np.ndarray, **profile) -> Path:
    """A GeoTIFF, with scales= and offsets= of its own where they are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {key: profile.pop(key) for key in ("scales", "offsets") if key in profile}
    settings = {"crs": CRS, "transform": TRANSFORM, "driver": "GTiff", **profile}
    with rasterio.open(
        path, "w", height=data.shape[1], width=data.shape[2], count=len(data), dtype=str(data.dtype), **settings
    ) as sink:
        sink.write(data)
        for key, values in own.items():
            setattr(sink, key, values)
    return path


def whole(imagery) -> np.ndarray:
    return imagery.read_window(0, 0, *imagery.shape)


# ---------------------------------------------------------------------- cubes: what each variable states
def variable(values, **attrs) -> xarray.DataArray:
    return xarray.DataArray(values, dims=("y", "x"), coords={"y": Y, "x": X}, attrs=attrs)


def numbers(dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, size=(12, 14)).astype(dtype)


def with_hole(dtype: str, fill, seed: int = 0) -> np.ndarray:
    data = numbers(dtype, seed)
    data[2:5, 3:9] = fill
    return data


VARIABLES = {
    "a fill value": {"a": variable(with_hole("int16", -9999), _FillValue=np.int16(-9999))},
    "a fill value each": {
        "a": variable(with_hole("int16", -9999), _FillValue=np.int16(-9999)),
        "b": variable(with_hole("int16", 0, 1), _FillValue=np.int16(0)),
        "c": variable(numbers("int16", 2)),
    },
    "two fill values": {
        "a": variable(with_hole("float32", -1.0), _FillValue=np.float32(-1), missing_value=np.float32(50)),
        "b": variable(numbers("float32", 3)),
    },
    "types that differ": {
        "a": variable(with_hole("uint8", 255), _FillValue=np.uint8(255)),
        "b": variable(with_hole("float32", -9999.9, 1), _FillValue=np.float32(-9999.9)),
    },
    "few digits": {"a": variable(with_hole("float32", -3.4028234663852886e38), _FillValue=np.float32(-3.40282e38))},
    "NaN": {"a": variable(with_hole("float64", np.nan), _FillValue=np.nan), "b": variable(numbers("float32", 4))},
    "none": {"a": variable(numbers("uint16")), "b": variable(numbers("uint16", 5))},
    "bytes without a sign": {
        "a": variable(numbers("uint8").view("int8"), _Unsigned="true", _FillValue=np.int8(-1)),
        "b": variable((numbers("uint8", 6) + 100).view("int8"), _Unsigned="true"),
    },
}
SCALED = {
    "one scale": {
        "a": variable(numbers("int16"), scale_factor=0.1),
        "b": variable(numbers("int16", 1), scale_factor=0.1),
    },
    "a scale each": {
        "a": variable(with_hole("int16", -9999), scale_factor=0.1, add_offset=5.0, _FillValue=np.int16(-9999)),
        "b": variable(numbers("int16", 1), scale_factor=0.001),
    },
    "an offset": {"a": variable(numbers("uint16"), add_offset=-1000.0)},
}


def dataset(variables) -> xarray.Dataset:
    return xarray.Dataset(variables).rio.write_crs(CRS)


def in_memory(variables, folder):
    return dataset(variables)


def lazily(variables, folder):
    pytest.importorskip("dask")
    return dataset(variables).chunk({"y": 5, "x": 5})


def zarr2(variables, folder):
    pytest.importorskip("zarr")
    dataset(variables).to_zarr(folder / "v2.zarr", zarr_format=2)
    return folder / "v2.zarr"


def zarr3(variables, folder):
    pytest.importorskip("zarr")
    dataset(variables).to_zarr(folder / "v3.zarr", zarr_format=3, consolidated=False)
    return folder / "v3.zarr"


def netcdf_of_xarray(variables, folder):
    """Opened by xarray without decoding, as stored."""
    dataset(variables).to_netcdf(folder / "a.nc", engine="h5netcdf")
    return xarray.open_dataset(folder / "a.nc", engine="h5netcdf", mask_and_scale=False, decode_coords="all")


def named(value) -> str:
    return getattr(value, "__name__", str(value))


CUBES = [in_memory, lazily, zarr2, zarr3, netcdf_of_xarray]


def decoded(variables, folder) -> np.ndarray:
    """Xarray's own decoding of a netCDF file, which heeds fill values, scale, offset and _Unsigned."""
    dataset(variables).to_netcdf(folder / "oracle.nc", engine="h5netcdf")
    with xarray.open_dataset(folder / "oracle.nc", engine="h5netcdf", decode_coords="all") as opened:
        bands = np.stack([opened[key].values.astype("float64") for key in variables])
    bands[np.abs(bands) > 1e38] = np.nan  # -3.40282e38 with few digits, which xarray compares exactly
    return bands.astype("float32")


@pytest.mark.parametrize(("kind", "form"), [*itertools.product(VARIABLES, CUBES)], ids=named)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_variable_keeps_its_fill_value(tmp_path, kind, form):
    made = VARIABLES[kind]
    imagery = open_imagery(form(made, tmp_path))
    if len(made) > 1:
        assert imagery.bands == tuple(made)
    expected = decoded(made, tmp_path)
    np.testing.assert_array_equal(whole(imagery), expected)
    if len(made) > 1:
        np.testing.assert_array_equal(whole(imagery.sel(bands=["b"])), expected[[1]])


@pytest.mark.parametrize(("kind", "form"), [*itertools.product(SCALED, CUBES)], ids=named)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_variable_keeps_its_scale(tmp_path, kind, form):
    made = SCALED[kind]
    source = form(made, tmp_path)
    with pytest.warns(ImageryWarning, match="says itself how its numbers are to be scaled"):
        stored = whole(open_imagery(source))
    expected = decoded(made, tmp_path)
    np.testing.assert_allclose(whole(open_imagery(source, scale="file")), expected, rtol=1e-6, atol=1e-5)
    own = [float(v.attrs.get("scale_factor", 1)) for v in made.values()]
    offsets = [float(v.attrs.get("add_offset", 0)) for v in made.values()]
    given = open_imagery(source, scale=own, offset=offsets)
    np.testing.assert_allclose(whole(given), expected, rtol=1e-6, atol=1e-5)
    with pytest.raises(ImageryError, match=r'states itself .* was given.*scale="file"'):
        open_imagery(source, scale=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageryWarning)
        np.testing.assert_array_equal(whole(open_imagery(source, scale=1)), stored)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_valid_range_is_heeded_where_numbers_are_packed(tmp_path):
    """As GDAL's netCDF driver does; xarray leaves it to the user."""
    made = {
        "a": variable(numbers("int16"), valid_range=np.array([10, 60], "int16")),
        "b": variable(numbers("int16", 1)),
    }
    expected = np.stack([v.values for v in made.values()]).astype("float32")
    expected[0, (expected[0] < 10) | (expected[0] > 60)] = np.nan
    np.testing.assert_array_equal(whole(open_imagery(dataset(made))), expected)
    packed = dataset({"a": variable(numbers("int16"), scale_factor=0.1, valid_max=np.int16(60))})
    packed.to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "p.nc", engine="h5netcdf", decode_coords="all") as unpacked:
        np.testing.assert_allclose(whole(open_imagery(unpacked)), decoded({"a": packed["a"]}, tmp_path), rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_arrays_of_rioxarray(tmp_path, masked):
    data = np.stack([with_hole("int16", -9999), with_hole("int16", -9999, 1)])
    path = tif(tmp_path / "a.tif", data, nodata=-9999)
    array = rioxarray.open_rasterio(path, masked=masked)
    expected = np.where(data == -9999, np.nan, data.astype("float32"))
    np.testing.assert_array_equal(whole(open_imagery(array)), expected)


@pytest.mark.parametrize("form", [in_memory, zarr2, zarr3], ids=named)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quality_variable_with_holes(tmp_path, form):
    """A float quality band with NaN, and one with a fill value, say nothing of those pixels: they are left out."""
    quality = numbers("float32") % 4
    quality[0, :5] = np.nan
    kinds = {"a": variable(numbers("uint8")), "q": variable(quality)}
    got = whole(open_imagery(form(kinds, tmp_path), mask={"band": "q", "invalid": [3]}))
    expected = np.where((quality == 3) | np.isnan(quality), np.nan, kinds["a"].values.astype("float32"))[None]
    np.testing.assert_array_equal(got, expected)
    (tmp_path / "two").mkdir()
    kinds["q"] = variable(np.where(np.isnan(quality), 9, quality).astype("uint8"), _FillValue=np.uint8(9))
    got = whole(open_imagery(form(kinds, tmp_path / "two"), mask={"band": "q", "invalid": [3]}))
    np.testing.assert_array_equal(got, expected)


def test_quality_bands_of_files_with_holes(tmp_path):
    data, quality = numbers("float32"), numbers("float32") % 4
    quality[0, :5] = np.nan
    path = tif(tmp_path / "a.tif", np.stack([data, quality]))
    expected = np.where((quality == 3) | np.isnan(quality), np.nan, data)
    for rule in ({"band": 2, "invalid": [3]}, {"band": 2, "valid": [0, 1, 2]}):
        np.testing.assert_array_equal(whole(open_imagery(path, bands=[1], mask=rule))[0], expected)
    bits = open_imagery(path, bands=[1], mask={"band": 2, "bits": [1]})
    np.testing.assert_array_equal(whole(bits)[0], np.where(np.nan_to_num(quality, nan=2) >= 2, np.nan, data))
    codes = np.where(np.isnan(quality), 9, quality).astype("uint8")
    tif(tmp_path / "b_QA.tif", codes[None], nodata=9)
    image = tif(tmp_path / "b_SR.tif", data[None])
    got = open_imagery(image, mask={"replace": ["SR", "QA"], "invalid": [3]})
    np.testing.assert_array_equal(whole(got)[0], expected)
    clear = open_imagery(
        image, mask={"replace": ["SR", "QA"], "valid": [0, 1, 2, 9]}
    )  # said to be clear, though nodata
    np.testing.assert_array_equal(whole(clear)[0], np.where(codes == 3, np.nan, data))


# ---------------------------------------------------------------------- scale and offset of files
def test_one_scale_and_offset_of_a_file(tmp_path):
    data = np.stack([numbers("uint16"), numbers("uint16", 1)])
    path = tif(tmp_path / "a.tif", data, scales=(1e-4, 1e-4), offsets=(-0.1, -0.1))
    expected = data * np.float32(1e-4) + np.float32(-0.1)
    np.testing.assert_array_equal(whole(open_imagery(path, scale="file")), expected)
    np.testing.assert_array_equal(whole(open_imagery(path, scale=1e-4, offset=-0.1)), expected)
    for given in (
        {"scale": 1e-4},
        {"offset": -0.2},
        {"scale": 1e-4, "offset": 0.0},
        {"scale": [1e-4, 2e-4], "offset": -0.1},
    ):
        with pytest.raises(ImageryError, match=r'states itself .* was given.*scale="file"'):
            open_imagery(path, **given)
    with pytest.raises(ImageryError, match='scale="file" alone'):
        open_imagery(path, scale="file", offset=1.0)


@pytest.mark.parametrize("gain", [(0.0, 10.0), (np.nan, 0.0), (1.0, np.inf), (np.inf, 0.0)])
def test_scales_that_no_number_survives_are_refused(tmp_path, gain):
    path = tif(tmp_path / "a.tif", numbers("uint16")[None], scales=(gain[0],), offsets=(gain[1],))
    with pytest.raises(ImageryError, match=r"Expected: finite numbers.*gdal_edit"):
        open_imagery(path, scale="file")
    np.testing.assert_array_equal(whole(open_imagery(path, scale=1))[0], numbers("uint16"))
    with pytest.raises(ImageryError, match="finite numbers"):
        open_imagery(tif(tmp_path / "b.tif", numbers("uint16")[None]), scale=gain[0], offset=gain[1])


def scenes(folder: Path, gains) -> Path:
    """Scenes whose reflectance is 0.15 everywhere, each stored with its own scale and offset; None: not stated."""
    for year, (stored, gain) in gains.items():
        data = np.full((1, 12, 14), stored, "uint16")
        own = {} if gain is None else {"scales": (gain[0],), "offsets": (gain[1],)}
        tif(folder / f"s_{year}0601.tif", data, **own)
    return folder


def test_scenes_across_a_change_of_baseline(tmp_path):
    """1500 before and 2500 after the change are one reflectance, .15."""
    stated = scenes(tmp_path / "stated", {2021: (1500, (1e-4, 0.0)), 2022: (2500, (1e-4, -0.1))})
    with pytest.raises(ImageryError, match=r'state different scales or offsets.*scale="file".*offset={'):
        open_imagery(stated)
    np.testing.assert_allclose(whole(open_imagery(stated, scale="file")), 0.15, atol=1e-6)
    with pytest.raises(ImageryError, match=r"s_20210601.tif states itself offset=0"):
        open_imagery(stated, scale=1e-4, offset=-0.1)
    for offset in ({"2015": 0, "2022-01-25": -0.1}, [[0.0], [-0.1]], np.array([[0.0], [-0.1]])):
        imagery = open_imagery(stated, scale=1e-4, offset=offset)
        np.testing.assert_allclose(whole(imagery), 0.15, atol=1e-6)
        np.testing.assert_allclose(whole(imagery.sel(dates="2022-06-01")), 0.15, atol=1e-6)
    silent = scenes(tmp_path / "silent", {2021: (1500, None), 2022: (2500, None)})
    np.testing.assert_allclose(
        whole(open_imagery(silent, scale=1e-4, offset={"2015": 0, "2022": -0.1})), 0.15, atol=1e-6
    )
    mixed = scenes(tmp_path / "mixed", {2021: (1500, None), 2022: (2500, (1e-4, -0.1))})
    for options in ({}, {"scale": "file"}, {"scale": 1e-4, "offset": -0.1}):
        with pytest.raises(ImageryError, match=r"state different scales|states no scale"):
            open_imagery(mixed, **options)
    with pytest.raises(ImageryError, match="says nothing of the image of 2021-06-01"):
        open_imagery(silent, offset={"2022": -0.1})
    with pytest.raises(ImageryError, match="one row a date"):
        open_imagery(silent, offset=[[0.0], [0.0], [-0.1]])


def test_offsets_by_date_of_arrays():
    cube = xarray.DataArray(
        np.stack([np.full((1, 12, 14), v, "uint16") for v in (2500, 1500)]),
        dims=("time", "band", "y", "x"),
        coords={"time": np.array(["2022-06-01", "2021-06-01"], "datetime64[ns]"), "band": ["red"], "y": Y, "x": X},
    ).rio.write_crs(CRS)  # descending in time
    for offset in ({"2015": 0, "2022-01-25": -0.1}, [[-0.1], [0.0]]):
        imagery = open_imagery(cube, scale=1e-4, offset=offset)
        assert imagery.days == ("2021-06-01", "2022-06-01")
        np.testing.assert_allclose(whole(imagery), 0.15, atol=1e-6)
        np.testing.assert_allclose(whole(imagery.sel(dates="2022-06-01", bands="red")), 0.15, atol=1e-6)
        place = geopandas.GeoSeries.from_xy([500050], [99950], crs=CRS)
        np.testing.assert_allclose(imagery.chips(place, size_px=3), 0.15, atol=1e-6)


# ---------------------------------------------------------------------- dates
@pytest.mark.parametrize(
    "text",
    [
        "03/04/2008",
        "13/04/2008",
        "01.04.2008",
        "4 March 2008",
        "20081301",
        "2008-13-01",
        "2008.5",
        "08-03-01",
        2008.5,
        1204588800,
        True,
        "today",
        730000,
    ],
)
def test_dates_that_are_not_plain_are_refused(text):
    with pytest.raises(ImageryError, match=r"is not a date.*2016-07-03"):
        as_day(text)


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("VNL_npp_201204-201303_global.tif", "2013-03-31"),
        ("landcover_2009-01-01_2011-12-31.tif", "2011-12-31"),
        ("landcover_2009_2011.tif", "2011-12-31"),
        ("x_20090101_20111231.tif", "2011-12-31"),
        ("x_2009to2011.tif", "2011-12-31"),
        ("x_2009-01-01_2011.tif", "2011-12-31"),
        ("20160703_20160705_median.tif", "2016-07-05"),
        ("lulc_2017_10m.tif", "2017-12-31"),
        ("chirps-v2.0.2009.01.tif", "2009-01-31"),
        ("GHS_POP_E2015_GLOBE_R2023A.tif", "2015-12-31"),
        ("LC08_L2SP_171060_20160703_20200906_02_T1_SR_B4.TIF", "2016-07-03"),
        ("S2A_MSIL2A_20160703T080101_N0204_R035_T36NVJ_20160704T080102.tif", "2016-07-03"),
        ("x_20160231.tif", None),
    ],
)
def test_periods_in_names_are_dated_at_their_end(name, day):
    assert day_in_name(name) == day


def test_two_years_that_are_no_period_are_refused():
    with pytest.raises(ImageryError, match=r"holds several dates.*date_regex="):
        day_in_name("ndvi_2009_made_2016.tif")
    assert day_in_name("ndvi_2009_made_2016.tif", r"ndvi_(\d{4})") == "2009-12-31"


PARTS = (
    "a_03-04-2008 03.04.2008 a_15Jan2008 a_Jan2008 a_2008Q1 a_2008_001 a_2008-001 a_2008-W05 a_2008_1_5 a_2008_10_5 "
    "a_03_2008 a_2008_March Q3_2008 15-sept-2008"
)
YEARS = (
    "a_2008_10m chirps-v2.0.2008 CHIRPS-2.0.2008 a_2008_v2 a_2008_h10v09 h10v09_2008 Landsat_7_2008 sentinel-2-2008 "
    "gpw_v4_rev11_2008_30_sec VNL_v21_npp_2008_global ppp_2008_1km 2008_mara B04_2008"
)


@pytest.mark.parametrize("name", PARTS.split())
def test_years_next_to_the_rest_of_a_date_are_refused(name):
    with pytest.raises(ImageryError, match=r"2008.*next to.*date_regex=.*dates="):
        day_in_name(name + ".tif")


@pytest.mark.parametrize("name", YEARS.split())
def test_years_next_to_other_things_are_years(name):
    assert day_in_name(name + ".tif") == "2008-12-31"


def test_a_day_of_the_year_is_read_as_the_expression_says():
    assert day_in_name("a_2008_060.tif", r"(?P<year>\d{4})_(?P<doy>\d{3})") == "2008-02-29"


def test_composites_pass_only_when_they_ended(tmp_path):
    for name in ("c_200801-200812.tif", "c_2009_2011.tif"):
        tif(tmp_path / "c" / name, numbers("uint8")[None])
    imagery = open_imagery(tmp_path / "c")
    assert imagery.images_before("2010-06-01").days == ("2008-12-31",)


def test_dates_of_other_calendars():
    """As cftime's, which are no datetimes: of models whose years have 360 days."""
    from types import SimpleNamespace

    assert as_day(SimpleNamespace(year=2008, month=3, day=1)) == "2008-03-01"
    with pytest.raises(ImageryError, match="is not a date"):
        as_day(SimpleNamespace(year=2008, month=2, day=30))


# ---------------------------------------------------------------------- CRS, grids, sizes
def places(x, y, crs="EPSG:4326") -> geopandas.GeoSeries:
    return geopandas.GeoSeries.from_xy(np.atleast_1d(x), np.atleast_1d(y), crs=crs)


def grid_of(folder: Path, crs: str, x: float, y: float, side: float) -> Path:
    """A raster of 200 x 200 pixels around a place, in units of its CRS."""
    transform = rasterio.Affine(side, 0, x - 100 * side, 0, -side, y + 100 * side)
    return tif(folder / "g.tif", np.ones((1, 200, 200), "uint8"), crs=crs, transform=transform)


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "side", "outcome"),
    [
        ("EPSG:4326", 33, 1, 0.001, "equal"),
        ("EPSG:4326", 33, 26, 0.001, "told"),
        ("EPSG:4326", 33, 60, 0.001, "refused"),
        ("EPSG:32636", 33, 1, 100, "equal"),
        ("EPSG:32636", 33, 60, 100, "equal"),
        ("EPSG:3857", 33, 60, 100, "equal"),  # at the centre of the raster, on whose ground pixels are measured
        ("EPSG:2263", -74, 40.7, 300, "equal"),  # US feet
        ("EPSG:3035", 10, 52, 100, "equal"),
    ],
)
def test_metres_are_those_on_the_ground(tmp_path, crs, lon, lat, side, outcome):
    from pyproj import Geod

    place = places(lon, lat)
    x, y = (float(v[0]) for v in place.to_crs(crs).get_coordinates().T.to_numpy())
    imagery = open_imagery(grid_of(tmp_path, crs, x, y, side))
    if outcome == "refused":
        with pytest.raises(ParameterError, match=r"m from north to south.*gdalwarp -t_srs EPSG:32636.*size_px="):
            imagery.chips(place, size_m=1000)
        assert imagery.chips(place, size_px=9).shape[-1] == 9
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chip = imagery.chips(place, size_m=5000)
    told = [str(w.message) for w in caught if issubclass(w.category, ImageryWarning)]
    assert bool(told) == (outcome == "told"), told
    px = chip.shape[-1]
    corners = [(x - px * side / 2, y), (x + px * side / 2, y), (x, y - px * side / 2), (x, y + px * side / 2)]
    ends = places(*zip(*corners, strict=True), crs=crs).to_crs(4326)
    geod = Geod(ellps="WGS84")
    across = geod.inv(ends.x[0], ends.y[0], ends.x[1], ends.y[1])[2]
    along = geod.inv(ends.x[2], ends.y[2], ends.x[3], ends.y[3])[2]
    for length in (across, along):
        assert length == pytest.approx(5000, rel=0.1 if told else 0.05)


def test_one_raster_from_the_equator_to_60_north(tmp_path):
    """In Web Mercator a pixel at 60 north is half as long as at the equator."""
    transform = rasterio.Affine(50000, 0, 0, 0, -50000, 8500000)
    imagery = open_imagery(
        tif(tmp_path / "m.tif", np.ones((1, 172, 60), "uint8"), crs="EPSG:3857", transform=transform)
    )
    with pytest.raises(ParameterError, match=r"at north.*gdalwarp"):
        imagery.chips(places([10, 10], [0.5, 60]).set_axis(["south", "north"]), size_m=100000)


@pytest.mark.parametrize("form", ["file", "array", "zarr"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_another_crs_than_the_source_states_is_refused(tmp_path, form):
    array = variable(numbers("uint8")).rio.write_crs(CRS)
    sources = {
        "file": lambda: tif(tmp_path / "a.tif", numbers("uint8")[None]),
        "array": lambda: array,
        "zarr": lambda: zarr3({"a": array}, tmp_path),
    }
    source = sources[form]()
    with pytest.raises(ImageryError, match=r"says that its CRS is .*leave crs= out"):
        open_imagery(source, crs="EPSG:32637")
    assert open_imagery(source, crs="EPSG:32636").crs.to_epsg() == 32636


@pytest.mark.parametrize("crs", ["ESRI:104905", "IAU_2015:30100", "+proj=eqc +R=1737400 +units=m"])
def test_other_bodies_are_refused(tmp_path, crs):
    with pytest.raises(ImageryError, match="another body than the Earth"):
        open_imagery(tif(tmp_path / "mars.tif", numbers("uint8")[None], crs=crs))


def test_a_quality_file_on_a_shifted_grid_is_refused(tmp_path):
    tif(tmp_path / "a_QA.tif", numbers("uint8")[None], transform=rasterio.Affine(10, 0, 500010, 0, -10, 100000))
    image = tif(tmp_path / "a_SR.tif", numbers("uint8")[None])
    with pytest.raises(ImageryError, match=r"a_QA.tif has another grid than the image.*gdalwarp"):
        open_imagery(image, mask={"replace": ["SR", "QA"], "bits": [0]})


def test_colour_tables_are_told(tmp_path):
    path = tif(tmp_path / "classes.tif", numbers("uint8")[None])
    with rasterio.open(path, "r+") as sink:
        sink.write_colormap(1, {k: (k, k, k, 255) for k in range(100)})
    with pytest.warns(ImageryWarning, match=r"band_1 are entries of a colour table.*land_cover="):
        got = whole(open_imagery(path))
    np.testing.assert_array_equal(got[0], numbers("uint8"))


ODD_ARRAYS = {
    "whole numbers with NaN for nodata": (lambda: variable(numbers("int16"), _FillValue=np.nan), None),
    "nodata that is a text": (lambda: variable(numbers("int16"), nodata="none"), None),
    "coordinates of two dimensions": (
        lambda: xarray.DataArray(
            numbers("int16"), dims=("y", "x"),
            coords={"lat": (("y", "x"), np.add.outer(Y, 0 * X)), "lon": (("y", "x"), np.add.outer(0 * Y, X))},
        ),
        "coordinates of two dimensions",
    ),
    "complex numbers": (lambda: variable(numbers("complex64")), "real numbers"),
    "texts": (lambda: variable(numbers("uint8").astype(str)), "real numbers"),
    "latitudes of a Gaussian grid": (
        lambda: variable(numbers("int16")).assign_coords(y=99995 - 10.0 * np.arange(12) ** 1.2), "evenly spaced"
    ),
    "coordinates of single precision": (
        lambda: variable(numbers("int16")).assign_coords(x=X.astype("float32"), y=Y.astype("float32")), None
    ),
    "columns from east to west": (lambda: variable(numbers("int16")).isel(x=slice(None, None, -1)), "mirrored"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), ODD_ARRAYS.values(), ids=ODD_ARRAYS)
def test_odd_arrays(make, reason):
    array = make().rio.write_crs(CRS)
    if reason is None:
        np.testing.assert_array_equal(whole(open_imagery(array))[0], numbers("int16"))
        return
    with pytest.raises(ImageryError, match=reason):
        open_imagery(array)


def test_datasets_that_are_no_image_are_refused():
    bounds = xarray.DataArray(np.zeros((3, 2)), dims=("time", "nv"))
    with pytest.raises(ImageryError, match=r"holds no array with rows and columns, but \['bounds'\]"):
        open_imagery(xarray.Dataset({"bounds": bounds}))
    timed = xarray.Dataset(
        {"a": variable(numbers("int16")), "b": variable(numbers("int16")).expand_dims(time=[2008])}
    )
    with pytest.raises(ImageryError, match=r"variables of different dimensions.*dataset\[\["):
        open_imagery(timed.rio.write_crs(CRS))
    got = open_imagery(xarray.Dataset({"a": variable(numbers("int16")), "bounds": bounds}).rio.write_crs(CRS))
    assert got.bands == ("a",)


# ---------------------------------------------------------------------- subdatasets and mosaics
def test_subdatasets_are_opened_by_their_names(tmp_path):
    made = {"a": variable(with_hole("int16", -9999), _FillValue=np.int16(-9999)), "b": variable(numbers("int16", 1))}
    path = tmp_path / "two variables.nc"
    dataset(made).rio.write_coordinate_system().to_netcdf(path, engine="h5netcdf")
    with rasterio.open(path) as source:
        names = source.subdatasets
    assert len(names) >= 2
    with pytest.raises(ImageryError, match=r"holds no band of its own.*open_imagery\('.*two variables.nc"):
        open_imagery(path)
    read = 0
    for name in [*names, f'NETCDF:"{path}":a', f"HDF5:{path}://b"]:
        with rasterio.open(name) as source:
            if source.crs is None and not name.lower().startswith("netcdf"):
                continue
            expected = source.read(masked=True).astype("float32").filled(np.nan)
        imagery = open_imagery(name)
        np.testing.assert_array_equal(whole(imagery), expected)
        assert imagery.unstamped() == ()
        assert str(path) in [stamp[0] for stamp in imagery.stamps()]
        read += 1
    assert read >= 3


def test_a_subdataset_of_a_geopackage(tmp_path):
    data = np.random.default_rng(0).integers(1, 200, size=(3, 12, 14)).astype("uint8")
    path = tmp_path / "tiles.gpkg"
    for table in ("first", "second"):
        with rasterio.open(
            path, "w", driver="GPKG", height=12, width=14, count=3, dtype="uint8", crs=CRS, transform=TRANSFORM,
            RASTER_TABLE=table, APPEND_SUBDATASET="YES" if table == "second" else "NO", TILE_FORMAT="PNG",
        ) as sink:  # fmt: skip
            sink.write(data if table == "first" else data[:, ::-1])
    with rasterio.open(path) as source:
        names = source.subdatasets
    for name, table in zip(sorted(names), (data, data[:, ::-1]), strict=True):
        with rasterio.open(name) as source:
            expected = source.read([1, 2, 3], masked=True).astype("float32").filled(np.nan)
        got = whole(open_imagery(name))
        np.testing.assert_array_equal(got[:3], expected)
        np.testing.assert_array_equal(got[:3], table)


def tile(folder: Path, name: str, east: int, south: int, value: int, hole: bool = False, **profile) -> Path:
    data = np.full((2, 20, 20), value, "uint8")
    if hole:
        data[:, 5:15, 12:] = 0
    transform = rasterio.Affine(10, 0, 500000 + 10 * east, 0, -10, 100000 - 10 * south)
    return tif(folder / name, data, transform=transform, nodata=0, **profile)


def test_adjacent_scenes_are_one_mosaic(tmp_path):
    """As rasterio.merge joins them, the first file on top."""
    from rasterio.merge import merge

    files = [
        tile(tmp_path, "a.tif", 0, 0, 10, hole=True), tile(tmp_path, "b.tif", 14, 0, 20),
        tile(tmp_path, "c.tif", 3, 20, 30),
    ]  # fmt: skip
    expected, transform = merge(files)
    with pytest.raises(ImageryError, match="mosaic=True"):
        open_imagery(files)
    imagery = open_imagery(files, mosaic=True)
    assert tuple(imagery.transform)[:6] == tuple(transform)[:6]
    expected = np.where(expected == 0, np.nan, expected.astype("float32"))
    np.testing.assert_array_equal(whole(imagery), expected)
    np.testing.assert_array_equal(whole(imagery.sel(bands=["band_2"])), expected[[1]])
    place = places(500150, 99900, CRS)
    np.testing.assert_array_equal(
        imagery.chips(place, size_px=9, cache=tmp_path / "cache").values[0], expected[:, 6:15, 11:20]
    )
    digest = imagery.fingerprint()
    tile(tmp_path, "b.tif", 14, 0, 25)
    assert imagery.fingerprint() != digest
    expected[expected == 20] = 25
    np.testing.assert_array_equal(whole(imagery), expected)
    assert not imagery.has_time
    assert open_imagery(files, mosaic=True, dates="2008").days == ("2008-12-31",)


def test_mosaics_by_date(tmp_path):
    for day, value in (("20080301", 10), ("20090301", 30)):
        tile(tmp_path / "d", f"a_{day}.tif", 0, 0, value)
        tile(tmp_path / "d", f"b_{day}.tif", 20, 0, value + 1)
    tile(tmp_path / "d", "c_20090301.tif", 40, 0, 99)
    imagery = open_imagery(tmp_path / "d", mosaic=True)
    assert imagery.days == ("2008-03-01", "2009-03-01")
    assert imagery.shape == (20, 60)
    row = whole(imagery)[:, 0, 0]
    np.testing.assert_array_equal(row[0], [10] * 20 + [11] * 20 + [np.nan] * 20)
    np.testing.assert_array_equal(row[1], [30] * 20 + [31] * 20 + [99] * 20)
    np.testing.assert_array_equal(whole(imagery.images_before("2009")), whole(imagery)[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transform": rasterio.Affine(10, 0, 500205, 0, -10, 100000)}, "do not coincide"),
        ({"transform": rasterio.Affine(20, 0, 500200, 0, -20, 100000)}, "do not coincide"),
        ({"crs": "EPSG:32637"}, "do not coincide"),
        ({"dtype": "uint16"}, "data type is uint16"),
    ],
)
def test_scenes_that_make_no_mosaic(tmp_path, change, message):
    dtype = change.pop("dtype", "uint8")
    tile(tmp_path, "a.tif", 0, 0, 10)
    options = {"transform": rasterio.Affine(10, 0, 500200, 0, -10, 100000), **change}
    tif(tmp_path / "b.tif", np.full((2, 20, 20), 5, dtype), **options)
    with pytest.raises(ImageryError, match=f"b.tif.*{message}|{message}.*a.tif"):
        open_imagery([tmp_path / "a.tif", tmp_path / "b.tif"], mosaic=True)


def test_vrt_of_bands_is_read_as_rasterio_reads_it(tmp_path):
    path = tif(tmp_path / "a.tif", np.stack([numbers("int16"), numbers("int16", 1)]), nodata=7)
    copy_raster(path, tmp_path / "a.vrt", driver="VRT")
    with rasterio.open(tmp_path / "a.vrt") as source:
        expected = source.read(masked=True).astype("float32").filled(np.nan)
    np.testing.assert_array_equal(whole(open_imagery(tmp_path / "a.vrt")), expected)


def test_every_refusal_is_a_causalsat_error():
    assert issubclass(ImageryError, CausalsatError)


# ---------------------------------------------------------------------- arguments that would do nothing
@pytest.mark.parametrize(
    "settings",
    [
        {"mask": {"band": 1, "invalid": [3.5]}},
        {"mask": {"band": 1, "bits": [-1]}},
        {"nodata": "0"},
        {"nodata": -1},
        {"nodata": 0.5},
    ],
)
def test_masks_and_nodata_that_no_pixel_can_have_are_refused(tmp_path, settings):
    tif(tmp_path / "a.tif", np.stack([numbers("uint8")] * 2))
    with pytest.raises(ParameterError, match=r"invalid=|bits=|nodata="):
        open_imagery(tmp_path / "a.tif", **settings)


def test_bits_beyond_the_quality_band_are_refused(tmp_path):
    tif(tmp_path / "a.tif", np.stack([numbers("uint8")] * 2))
    with pytest.raises(ParameterError, match="from 0 to 7"):
        whole(open_imagery(tmp_path / "a.tif", mask={"band": 2, "bits": [16]}))


def test_the_times_of_a_netcdf_file_are_no_bands(tmp_path):
    import xarray

    coords = {"time": np.array(["2008-01-01", "2009-01-01"], "datetime64[ns]"), "y": Y, "x": X}
    rain = xarray.DataArray(np.zeros((2, len(Y), len(X))), dims=("time", "y", "x"), coords=coords, name="rain")
    for key in ("x", "y"):
        rain[key].attrs = {"standard_name": f"projection_{key}_coordinate", "units": "m"}
    rain.to_netcdf(tmp_path / "a.nc", engine="scipy")
    with pytest.raises(ImageryError, match=r"2 times of the dimension 'time'.*xarray\.open_dataset"):
        open_imagery(tmp_path / "a.nc", crs="EPSG:32636")
    rain[:1].to_netcdf(tmp_path / "one.nc", engine="scipy")
    assert len(open_imagery(tmp_path / "one.nc", crs="EPSG:32636").bands) == 1


def test_lists_of_other_things_are_refused():
    with pytest.raises(ImageryError, match="list with a int"):
        open_imagery([1])


def test_a_name_that_two_bands_have_is_refused(tmp_path):
    path = tif(tmp_path / "a.tif", np.stack([np.full((12, 14), v, dtype=np.float32) for v in (1, 2)]))
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("a", "a")
    with pytest.raises(ImageryError, match=r"2 bands named 'a'.*choose by number"):
        open_imagery(path, bands=["a"])
    assert open_imagery(path, bands={"second": 2}).bands == ("second",)


@pytest.mark.parametrize("name", ["W05_2008.tif", "ndvi_W5-2008.tif", "3_2008.tif", "ndvi_03-2008.tif"])
def test_weeks_and_months_before_a_year_are_no_whole_year(name):
    with pytest.raises(ImageryError, match="rest of a date"):
        day_in_name(name)
