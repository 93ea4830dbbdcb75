"""Arrays in memory, Zarr stores and STAC catalogues give the pixels that were put into them."""

from __future__ import annotations

import copy
import datetime
import pickle

import geopandas
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray

from causalsat.exceptions import ImageryError
from causalsat.imagery import chips, open_imagery


def scene(dims=("band", "y", "x"), crs="EPSG:32636", dtype=np.float32) -> xarray.DataArray:
    """A known array of 2 dates, 2 bands, 40 x 50 pixels."""
    sizes = {"time": 2, "band": 2, "y": 40, "x": 50}
    coords = {
        "time": np.array(["2014-01-01", "2015-06-01"], dtype="datetime64[ns]"),
        "band": ["red", "nir"],
        "y": 100000 - 5 - 10.0 * np.arange(40),
        "x": 500000 + 5 + 10.0 * np.arange(50),
    }
    values = np.arange(np.prod([sizes[d] for d in dims])).reshape([sizes[d] for d in dims]).astype(dtype)
    array = xarray.DataArray(values, dims=dims, coords={d: coords[d] for d in dims}, name="scene")
    return array.rio.write_crs(crs) if crs else array


def point(row: int, col: int) -> geopandas.GeoSeries:
    return geopandas.GeoSeries.from_xy([500005 + 10 * col], [99995 - 10 * row], crs="EPSG:32636").to_crs(4326)


@pytest.mark.parametrize(
    "dims", [("y", "x"), ("band", "y", "x"), ("y", "x", "band"), ("time", "band", "y", "x"), ("time", "y", "x")]
)
def test_array_of_any_order_of_dimensions(dims):
    array = scene(dims)
    imagery = open_imagery(array)
    got = imagery.chips(point(12, 20), size_px=5)
    order = [d for d in ("time", "band") if d in dims]
    expected = array.transpose(*order, "y", "x").values[..., 10:15, 18:23]
    np.testing.assert_array_equal(got.values.reshape(expected.shape), expected)
    assert imagery.bounds == (500000, 99600, 500500, 100000)
    assert imagery.has_time == ("time" in dims)


def test_array_south_up_is_turned():
    imagery = open_imagery(scene().isel(y=slice(None, None, -1)))
    np.testing.assert_array_equal(imagery.read_window(0, 0, 40, 50), scene().values)


def test_years_as_times_in_any_order():
    array = scene(("time", "band", "y", "x"))
    assert open_imagery(array.assign_coords(time=[2014, 2015])).days == ("2014-12-31", "2015-12-31")
    imagery = open_imagery(array.isel(time=[1, 0]))
    assert imagery.days == ("2014-01-01", "2015-06-01")
    np.testing.assert_array_equal(imagery.read_window(0, 0, 40, 50), array.values)
    np.testing.assert_array_equal(imagery.images_before("2015").read_window(0, 0, 40, 50), array.values[:1])


def test_array_is_not_copied_and_can_be_masked_and_selected():
    array = scene(("time", "band", "y", "x"))
    imagery = open_imagery(array, mask={"band": "nir", "invalid": [2003]}, bands=["red"], scale=2.0)
    assert np.shares_memory(open_imagery(array).load(0, 40, 0, 50).values, array.values)
    got = imagery.read_window(0, 0, 40, 50)
    expected = 2 * array.sel(band=["red"]).values
    expected[0, 0, 0, 3] = np.nan  # the pixel whose nir value is 2003
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(imagery.images_before("2015").read_window(0, 0, 40, 50), expected[:1])
    np.testing.assert_array_equal(
        imagery.sel(dates=["2015-06-01", "2014-01-01"]).read_window(0, 0, 40, 50), expected[::-1]
    )
    assert copy.deepcopy(imagery) is imagery
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(imagery)).read_window(0, 0, 40, 50), expected)


def test_array_nodata_and_lazy_dask_array():
    array = scene(dtype=np.int16).rio.write_nodata(7)
    expected = np.where(array == 7, np.nan, array.values.astype(np.float32))
    np.testing.assert_array_equal(open_imagery(array).read_window(0, 0, 40, 50), expected)
    lazy = open_imagery(array.chunk({"y": 16, "x": 16}))
    assert lazy.unit == (16, 16)
    got = lazy.chips(point(12, 20), size_px=30, min_valid=0).values[0]
    np.testing.assert_array_equal(got, _window(expected, -3, 5, 30))


def _window(array: np.ndarray, row: int, col: int, size: int) -> np.ndarray:
    return np.pad(array, ((0, 0), (50, 50), (50, 50)), constant_values=np.nan)[
        :, row + 50 : row + 50 + size, col + 50 : col + 50 + size
    ]


def test_array_fingerprint_follows_the_pixels(tmp_path):
    first = open_imagery(scene()).chips(point(12, 20), size_px=5, cache=tmp_path)
    second = open_imagery(scene() + 1).chips(point(12, 20), size_px=5, cache=tmp_path)
    np.testing.assert_array_equal(second.values, first.values + 1)


BAD_ARRAYS = {
    "no CRS": (lambda: scene(crs=None), "pass crs= .*EPSG"),
    "unknown dimension": (lambda: scene().expand_dims("model"), "isel\\(model=0\\)"),
    "no x": (lambda: scene().rename(x="columns"), "rename"),
    "uneven": (lambda: scene().assign_coords(x=np.arange(50.0) ** 2), "evenly spaced"),
    "two images of a day": (
        lambda: scene(("time", "y", "x")).assign_coords(time=np.array(["2015-06-01"] * 2, dtype="datetime64[ns]")),
        "several images of 2015-06-01",
    ),
    "an ndarray": (lambda: scene().values, "xarray.DataArray"),
    "dates missing": (lambda: scene(("time", "y", "x")).drop_vars("time"), "pass dates="),
}


@pytest.mark.parametrize(("make", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_arrays(make, message):
    with pytest.raises(ImageryError, match=message):
        open_imagery(make())


@pytest.mark.parametrize("how", ["spatial_ref", "attribute", "given", "variables"])
def test_zarr(tmp_path, how):
    pytest.importorskip("zarr")
    dims = ("time", "band", "y", "x")
    array = scene(dims, crs="EPSG:32636" if how in ("spatial_ref", "variables") else None)
    store = array.to_dataset(dim="band") if how == "variables" else array.to_dataset()
    if how == "attribute":
        store.attrs["crs"] = "EPSG:32636"
    chunked = {key: {"chunks": tuple(min(n, 16) for n in store[key].shape)} for key in store.data_vars}
    store.to_zarr(tmp_path / "scene.zarr", encoding=chunked)
    imagery = open_imagery(
        tmp_path / "scene.zarr", bands=["red", "nir"], crs="EPSG:32636" if how == "given" else None
    )
    assert imagery.bands == ("red", "nir")
    assert imagery.days == ("2014-01-01", "2015-06-01")
    assert imagery.unit == (16, 16)
    np.testing.assert_array_equal(imagery.read_window(0, 0, 40, 50), array.values)
    got = pickle.loads(pickle.dumps(imagery)).chips(point(15, 20), size_px=9, cache=tmp_path / "cache")
    np.testing.assert_array_equal(got.values[0], array.values[:, :, 11:20, 16:25])
    nir = imagery.sel(bands="nir", dates="2015-06-01").read_window(0, 0, 40, 50)
    np.testing.assert_array_equal(nir, array.values[1:, 1:])


def test_zarr_with_several_variables(tmp_path):
    pytest.importorskip("zarr")
    array = scene()
    xarray.Dataset({"a": array, "b": array + 1}).to_zarr(tmp_path / "s.zarr")
    with pytest.raises(ImageryError, match=r"several variables.*variable="):
        open_imagery(tmp_path / "s.zarr")
    with pytest.raises(ImageryError, match=r"no variable 'c'.*'a', 'b'"):
        open_imagery(tmp_path / "s.zarr", variable="c")
    got = open_imagery(tmp_path / "s.zarr", variable="b")
    np.testing.assert_array_equal(got.read_window(0, 0, 40, 50), array.values + 1)
    with pytest.raises(ImageryError, match="no such Zarr store"):
        open_imagery(tmp_path / "none.zarr")


@pytest.fixture
def catalogue(write, tmp_path):
    """A static STAC catalogue of two items with two assets each, and their pixels (time, band, y, x)."""
    pystac = pytest.importorskip("pystac")
    data = np.random.default_rng(0).integers(1, 200, size=(2, 2, 90, 110), dtype=np.uint8)
    catalog = pystac.Catalog("trial", "two scenes")
    corners = geopandas.GeoSeries.from_xy([500000, 501100], [99100, 100000], crs="EPSG:32636").to_crs(4326)
    (west, south), (east, north) = ((p.x, p.y) for p in corners)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    for t, day in enumerate((datetime.datetime(2014, 3, 5, 8), datetime.datetime(2016, 3, 5, 8))):
        item = pystac.Item(
            f"scene{t}", {"type": "Polygon", "coordinates": [ring]}, [west, south, east, north], day,
            {"proj:epsg": 32636, "proj:shape": [90, 110], "proj:transform": [10, 0, 500000, 0, -10, 100000]},
            stac_extensions=["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        )  # fmt: skip
        for b, band in enumerate(("red", "nir")):
            href = str(write(f"scene{t}_{band}.tif", data[t, b : b + 1]))
            item.add_asset(band, pystac.Asset(href, media_type=pystac.MediaType.GEOTIFF, roles=["data"]))
        catalog.add_item(item)
    catalog.normalize_and_save(str(tmp_path / "stac"), pystac.CatalogType.SELF_CONTAINED)
    return tmp_path / "stac", data


def test_stac_catalogue_on_disk(catalogue, tmp_path):
    folder, data = catalogue
    imagery = open_imagery(folder, bands=["nir", "red"])
    assert imagery.days == ("2014-03-05", "2016-03-05")
    assert imagery.bands == ("nir", "red")
    assert imagery.resolution_m == 10
    got = pickle.loads(pickle.dumps(imagery)).chips(point(40, 50), size_px=9, cache=tmp_path / "cache")
    np.testing.assert_array_equal(got.values[0], data[:, ::-1, 36:45, 46:55])
    early = open_imagery(folder / "catalog.json", bands=["red"], dates=slice(None, "2015"))
    assert early.days == ("2014-03-05",)
    np.testing.assert_array_equal(
        early.images_before("2015").chips(point(40, 50), size_px=3).values[0, 0, 0], data[0, 0, 39:42, 49:52]
    )


def test_bad_stac(catalogue, tmp_path):
    folder, _ = catalogue
    with pytest.raises(ImageryError, match=r"no item.*dates="):
        open_imagery(folder, dates="1999")
    with pytest.raises(ImageryError, match="no such STAC catalogue"):
        open_imagery(tmp_path / "nowhere" / "catalog.json")
    with pytest.raises(ImageryError, match="check bands="):
        open_imagery(folder, bands=["swir"])
    (tmp_path / "catalog.json").write_text('{"type": "Sandwich"}')
    with pytest.raises(ImageryError, match="cannot be read as STAC"):
        open_imagery(tmp_path / "catalog.json")


def test_arrays_beside_files(write, image):
    got = chips(
        {"file": open_imagery(write("scene.tif", image)), "array": open_imagery(scene())}, point(20, 20), size_m=50
    )
    np.testing.assert_array_equal(got["file"][0], image[:, 18:23, 18:23])
    np.testing.assert_array_equal(got["array"][0], scene().values[:, 18:23, 18:23])
