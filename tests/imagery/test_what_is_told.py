"""Kinds of numbers and names by formats, beside rasterio and xarray: infinite values, packed nodata, signs, names."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray
from rasterio.shutil import copy as copy_raster

from causalsat.exceptions import ImageryError, ImageryWarning
from causalsat.imagery import open_imagery

CRS = "EPSG:32636"
TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 100000)
Y, X = 99995 - 10.0 * np.arange(12), 500005 + 10.0 * np.arange(14)


def tif(path: Path, data: np.ndarray, **profile) -> Path:
    own = {key: profile.pop(key) for key in ("scales", "offsets", "descriptions") if key in profile}
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


def numbers(dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, size=(12, 14)).astype(dtype)


def variable(values, **attrs) -> xarray.DataArray:
    return xarray.DataArray(values, dims=("y", "x"), coords={"y": Y, "x": X}, attrs=attrs)


def named(value) -> str:
    return getattr(value, "__name__", str(value))


# ---------------------------------------------------------------------- the same pixels in every format
def file(data, nodata, folder):
    return open_imagery(tif(folder / "a.tif", data, nodata=nodata))


def vrt(data, nodata, folder):
    copy_raster(tif(folder / "b.tif", data, nodata=nodata), folder / "b.vrt", driver="VRT")
    return open_imagery(folder / "b.vrt")


def in_memory(data, nodata, folder):
    attrs = {} if nodata is None else {"_FillValue": data.dtype.type(nodata)}
    cube = xarray.DataArray(data, dims=("band", "y", "x"), coords={"y": Y, "x": X}, attrs=attrs)
    return open_imagery(cube.rio.write_crs(CRS))


def zarr(data, nodata, folder):
    pytest.importorskip("zarr")
    attrs = {} if nodata is None else {"_FillValue": data.dtype.type(nodata)}
    made = xarray.Dataset({f"b{k}": variable(band, **attrs) for k, band in enumerate(data)})
    made.rio.write_crs(CRS).to_zarr(folder / "c.zarr", zarr_format=2)
    return open_imagery(folder / "c.zarr")


def sequence(data, nodata, folder):
    (folder / "d").mkdir()
    tif(folder / "d" / "s_2010.tif", data, nodata=nodata)
    return open_imagery(folder / "d")


def mosaic(data, nodata, folder):
    (folder / "e").mkdir()
    east = rasterio.Affine(10, 0, 500070, 0, -10, 100000)
    parts = [
        tif(folder / "e" / "w.tif", data[..., :7], nodata=nodata),
        tif(folder / "e" / "x.tif", data[..., 7:], nodata=nodata, transform=east),
    ]
    return open_imagery(parts, mosaic=True)


def stac(data, nodata, folder):
    path = tif(folder / "f.tif", data, nodata=nodata)
    return open_imagery(catalogue(folder, [{"all": (path, {})}]))


def catalogue(folder: Path, items: list[dict], keys=None) -> Path:
    """An item collection of items {asset: (file, what the asset says)}, a year apart."""
    features = []
    for k, assets in enumerate(items):
        said = {
            key: {"href": f"./{path.name}", "type": "image/tiff", "roles": ["data"], **words}
            for key, (path, words) in assets.items()
        }
        features.append(
            {
                "type": "Feature", "stac_version": "1.0.0", "id": f"item{k}", "geometry": None,
                "bbox": [33.0, 0.8, 33.1, 0.91], "properties": {"datetime": f"{2010 + k}-03-05T08:00:00Z"},
                "assets": said, "links": [],
            }
        )  # fmt: skip
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return folder / "items.json"


FORMATS = [file, vrt, in_memory, zarr, sequence, mosaic, stac]


@pytest.mark.parametrize(("form", "nodata"), [*itertools.product(FORMATS, [None, -1.0, np.inf])], ids=named)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_infinite_values_are_counted_and_said_once(tmp_path, form, nodata):
    """They are missing, as NaN is; an infinite nodata value is nodata and nothing is said of it."""
    data = np.stack([numbers("float32"), numbers("float32", 1)])
    data[0, 2, 3:6], data[1, 5, 5], data[0, 9, 9], data[0, 0, 0] = np.inf, -np.inf, np.nan, -1
    path = tif(tmp_path / "oracle.tif", data, nodata=nodata)
    with rasterio.open(path) as source:
        masked = source.read(masked=True).astype("float32").filled(np.nan)
    count = int(np.isinf(masked).sum())
    assert count == (1 if nodata == np.inf else 4)
    expected = np.where(np.isinf(masked), np.nan, masked)
    imagery = form(data, nodata, tmp_path)
    places = geopandas.GeoSeries.from_xy([500065], [99935], crs=CRS)
    with pytest.warns(ImageryWarning, match=rf"^{count} infinite values? (was|were) read from .*count as missing"):
        got = whole(imagery)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageryWarning)
        whole(imagery)
    np.testing.assert_array_equal(got.reshape(expected.shape), expected)
    with pytest.warns(ImageryWarning, match=rf"^{count} infinite value"):
        chips = imagery.chips(places, size_px=12, min_valid=0, progress=False)
    np.testing.assert_array_equal(chips.values.reshape(2, 12, 12), expected[:, :, :12])


def test_infinite_values_under_a_mask_are_not_said(tmp_path):
    data = np.full((1, 12, 14), 5, "float32")
    data[0, :3] = np.inf
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = tif(tmp_path / "a.tif", data)
        with rasterio.open(path, "r+") as sink:
            sink.write_mask(np.isfinite(data[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageryWarning)
        got = whole(open_imagery(path))
    np.testing.assert_array_equal(got, np.where(np.isinf(data), np.nan, data))


# ---------------------------------------------------------------------- nodata is a stored value, whatever the scale
@pytest.mark.parametrize("given", [None, -9999, 5])
@pytest.mark.parametrize("scale", ["file", 0.01, 1])
@pytest.mark.parametrize("form", ["tif", "vrt", "array", "zarr", "netcdf"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nodata_is_compared_before_the_scale(tmp_path, form, scale, given):
    """5 * 0.01 + 1 is 1.05, and -9999 * 0.01 + 1 is -98.99: what is stored is compared, as rasterio does."""
    data = numbers("int16")
    data[2:5, 3:9] = -9999
    offset = None if scale in ("file", 1) else 1.0
    path = tif(tmp_path / "a.tif", data[None], nodata=-9999, scales=(0.01,), offsets=(1.0,))
    with rasterio.open(path) as source:
        stored, own = source.read(1).astype(float), source.read_masks(1) == 0
    expected = stored if scale == 1 else stored * 0.01 + 1
    expected = np.where(own if given is None else stored == given, np.nan, expected)
    cube = xarray.Dataset({"a": variable(data, _FillValue=np.int16(-9999), scale_factor=0.01, add_offset=1.0)})
    cube = cube.rio.write_crs(CRS)
    if form == "vrt":
        copy_raster(path, tmp_path / "a.vrt", driver="VRT")
    if form == "zarr":
        pytest.importorskip("zarr")
        cube.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    if form == "netcdf":
        for key in "xy":
            cube[key].attrs |= {"standard_name": f"projection_{key}_coordinate", "units": "m"}
        cube.to_netcdf(tmp_path / "a.nc", engine="scipy")
        if given is None and scale != 1:  # xarray decodes in this order too
            with xarray.open_dataset(tmp_path / "a.nc", engine="scipy") as opened:
                np.testing.assert_allclose(opened["a"].values, expected, rtol=1e-6)
    source = {"tif": path, "vrt": tmp_path / "a.vrt", "array": cube, "zarr": tmp_path / "a.zarr",
              "netcdf": tmp_path / "a.nc"}[form]  # fmt: skip
    imagery = open_imagery(source, nodata=given, scale=scale, offset=offset)
    np.testing.assert_allclose(whole(imagery)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("form", ["array", "masked", "decoded", "zarr", "dataset"])
@pytest.mark.filterwarnings("ignore::UserWarning:rioxarray", "ignore::UserWarning:zarr")
def test_a_scale_for_each_band_of_rioxarray(tmp_path, form):
    """Rioxarray keeps scales that differ by band under names of its own: .1 and .001 * n + 5."""
    data = np.stack([numbers("int16"), numbers("int16", 1)])
    data[0, 2:5, 3:9] = -9999
    path = tif(tmp_path / "a.tif", data, nodata=-9999, scales=(0.1, 0.001), offsets=(0.0, 5.0))
    with rasterio.open(path) as source:
        bands = source.read(masked=True).astype(float).filled(np.nan)
        expected = bands * np.reshape(source.scales, (2, 1, 1)) + np.reshape(source.offsets, (2, 1, 1))
    array = rioxarray.open_rasterio(path, masked=form == "masked", mask_and_scale=form == "decoded")
    opened = array
    if form in ("zarr", "dataset"):
        opened = array.to_dataset(name="a")
    if form == "zarr":
        pytest.importorskip("zarr")
        opened.to_zarr(tmp_path / "a.zarr", zarr_format=2)
        opened = tmp_path / "a.zarr"
    np.testing.assert_allclose(whole(open_imagery(opened, scale="file")), expected, rtol=1e-6)
    if form == "decoded":
        return
    with pytest.warns(ImageryWarning, match=r"scale=0.001, offset=5; scale=0.1, offset=0"):
        np.testing.assert_array_equal(whole(open_imagery(opened)), bands)
    with pytest.raises(ImageryError, match="states itself scale="):
        open_imagery(opened, scale=0.1)
    second = open_imagery(opened, bands=[2], scale="file")
    np.testing.assert_allclose(whole(second), expected[[1]], rtol=1e-6)
    if form == "array":
        with pytest.raises(ImageryError, match="states 2 scales for 1 band"):
            open_imagery(array.isel(band=[1]), scale="file")


def test_scales_beyond_single_precision_are_refused(tmp_path):
    path = tif(tmp_path / "a.tif", numbers("uint16")[None])
    for scale in (1e39, 1e-46):
        with pytest.raises(ImageryError, match=r"scale=.*Expected: finite numbers other than 0"):
            open_imagery(path, scale=scale)


# ---------------------------------------------------------------------- numbers with and without a sign
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16"])
@pytest.mark.parametrize("says", ["true", "false"])
@pytest.mark.parametrize("form", ["netcdf", "opened", "zarr", "gdal"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_signs_are_those_that_xarray_decodes(tmp_path, form, says, dtype):
    """What GDAL reads with another sign than the file states is refused."""
    info = np.iinfo(dtype)
    data = np.arange(168).reshape(12, 14).astype(dtype)
    data[0, 0], data[1, 1], data[2, 2] = info.max, info.max - 1, info.min
    fill = info.max if info.min == 0 else -1
    made = xarray.Dataset({"a": variable(data, _Unsigned=says, _FillValue=np.dtype(dtype).type(fill))})
    for key in "xy":
        made[key].attrs |= {"standard_name": f"projection_{key}_coordinate", "units": "m"}
    path = tmp_path / "a.nc"
    if dtype == "int8" and form == "gdal":
        made.to_netcdf(path, engine="scipy")
    else:
        made.to_netcdf(path, engine="h5netcdf")
    with xarray.open_dataset(path) as decoded:
        expected = decoded["a"].values.astype("float32")
    if form == "zarr":
        pytest.importorskip("zarr")
        made.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    opened = {
        "netcdf": lambda: made,
        "opened": lambda: xarray.open_dataset(path, mask_and_scale=False),
        "zarr": lambda: tmp_path / "a.zarr",
        "gdal": lambda: f'NETCDF:"{path}":a',
    }[form]()
    try:
        got = whole(open_imagery(opened, crs=CRS))[0]
    except ImageryError as error:
        assert form == "gdal"
        assert f'states _Unsigned="{says}" for band 1' in str(error)
        assert (dtype, says) in (("int32", "true"), ("uint8", "false"), ("uint16", "false"))
        return
    np.testing.assert_array_equal(got, expected)


# ---------------------------------------------------------------------- variables that are no bands
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["memory", "zarr"])
def test_variables_without_rows_and_columns_are_said(tmp_path, form):
    rain = variable(numbers("float32"), grid_mapping="crs")
    made = xarray.Dataset(
        {
            "rain": rain,
            "stations": ("station", np.arange(3.0)),
            "version": 3,
            "crs": ((), 0, {"crs_wkt": rasterio.crs.CRS.from_string(CRS).to_wkt()}),
            "x_bnds": (("x", "two"), np.stack([X - 5, X + 5], axis=1)),
        }
    )
    made["x"].attrs["bounds"] = "x_bnds"
    source = made
    if form == "zarr":
        pytest.importorskip("zarr")
        made.to_zarr(tmp_path / "a.zarr", zarr_format=2)
        source = tmp_path / "a.zarr"
    with pytest.warns(ImageryWarning, match=r"left out of the bands: stations \('station',\), version\. Rows have"):
        imagery = open_imagery(source)
    np.testing.assert_array_equal(whole(imagery)[0], rain.values)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImageryWarning)
        open_imagery(made.drop_vars(["stations", "version"]))
        if form == "zarr":
            open_imagery(source, variable="rain")


# ---------------------------------------------------------------------- rasters that are no grid
@pytest.mark.parametrize("count", [4, 9])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rasters_placed_by_control_points_are_refused(tmp_path, count):
    from rasterio.control import GroundControlPoint

    points = [
        GroundControlPoint(row=r, col=c, x=500000 + 10 * c, y=100000 - 10 * r)
        for r, c in itertools.product(*[np.linspace(0, 12, int(count**0.5))] * 2)
    ]
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=12, width=14, count=1, dtype="uint8", gcps=points, crs=CRS
    ) as sink:
        sink.write(numbers("uint8")[None])
    method = "-tps " if count > 6 else ""
    with pytest.raises(ImageryError, match=rf"placed by {count} ground control points only.*gdalwarp {method}-t_srs"):
        open_imagery(tmp_path / "a.tif")


# ---------------------------------------------------------------------- codes of classes, and times that only count
CODES = {"flag_values": np.array([1, 2], "uint8"), "flag_meanings": "water land"}


@pytest.mark.filterwarnings("ignore::UserWarning:xarray")
@pytest.mark.parametrize("form", ["dataset", "array", "zarr", "netcdf", "stac"])
def test_bands_of_classes_are_said(tmp_path, form):
    """CF's flags, and STAC's classification; not where the band is the mask, or is left out."""
    data = numbers("uint8")
    cube = xarray.Dataset({"cover": variable(data, **CODES), "rain": variable(numbers("uint8", 1))})
    cube = cube.rio.write_crs(CRS)
    if form == "netcdf":
        for key in "xy":
            cube[key].attrs |= {"standard_name": f"projection_{key}_coordinate", "units": "m"}
        cube.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        source, name = f'NETCDF:"{tmp_path / "a.nc"}":cover', "band_1"
    elif form == "zarr":
        pytest.importorskip("zarr")
        cube.to_zarr(tmp_path / "a.zarr", zarr_format=2)
        source, name = tmp_path / "a.zarr", "cover"
    elif form == "stac":
        path = tif(tmp_path / "a.tif", np.stack([data, numbers("uint8", 1)]))
        classes = {"classification:classes": [{"value": 1, "name": "water"}]}
        words = {"bands": [{"name": "cover", **classes}, {"name": "rain"}]}
        source, name = catalogue(tmp_path, [{"all": (path, words)}]), "cover"
    else:
        source, name = (cube, "cover") if form == "dataset" else (cube["cover"].rio.write_crs(CRS), "band_1")
    with pytest.warns(ImageryWarning, match=rf"the numbers of {name} in .* are codes of classes or flags"):
        imagery = open_imagery(source)
    np.testing.assert_array_equal(whole(imagery).reshape(-1, 12, 14)[0], data)
    if form in ("dataset", "zarr", "stac"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ImageryWarning)
            open_imagery(source, bands=["rain"])
            masked = open_imagery(source, bands=["rain"], mask={"band": "cover", "invalid": [1]})
        expected = np.where(data == 1, np.nan, numbers("uint8", 1).astype("float32"))
        np.testing.assert_array_equal(whole(masked).reshape(12, 14), expected)


@pytest.mark.parametrize("units", ["days since 2000-01-01", "hours since 1900-01-01", "months since 1960-01-01"])
def test_counts_of_days_are_no_years(units):
    """2008 days after 2000-01-01 are in 2005, and 201103 hours after 1900 in 1922."""
    times = {"days": [2008, 2009], "hours": [201103, 201104], "months": [576, 577]}[units.split()[0]]
    cube = xarray.DataArray(
        np.stack([numbers("uint8"), numbers("uint8", 1)]), dims=("time", "y", "x"), name="rain",
        coords={"time": ("time", times, {"units": units, "calendar": "standard"}), "y": Y, "x": X},
    ).rio.write_crs(CRS)  # fmt: skip
    with pytest.raises(ImageryError, match=rf"the coordinate time counts {units} and is not decoded.*decode_cf"):
        open_imagery(cube)
    if not units.startswith("months"):
        decoded = xarray.decode_cf(cube.to_dataset())["rain"].rio.write_crs(CRS)
        days = tuple(str(day)[:10] for day in decoded["time"].values)
        assert days[0] == {"days": "2005-07-01", "hours": "1922-12-11"}[units.split()[0]]
        if len(set(days)) == 2:
            assert open_imagery(decoded).days == days
    assert open_imagery(cube, dates=["2005", "2006"]).days == ("2005-12-31", "2006-12-31")


# ---------------------------------------------------------------------- metres that are no whole pixels
@pytest.mark.parametrize(
    ("size_m", "pixels"), [(44, 4), (45, 4), (14, 1), (4, 1), (26, 3), (95, 10), (15, 2), (9.5, 1)]
)
def test_sides_that_whole_pixels_miss_are_said(tmp_path, size_m, pixels):
    imagery = open_imagery(tif(tmp_path / "a.tif", numbers("uint8")[None]))
    place = geopandas.GeoSeries.from_xy([500065], [99945], crs=CRS)
    missed = abs(10 * pixels / size_m - 1) > 0.1
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        chip = imagery.chips(place, size_m=size_m, min_valid=0, progress=False)
    said = [str(w.message) for w in told if w.category is ImageryWarning]
    assert chip.sizes["x"] == pixels
    assert chip.attrs["size_m"] == 10 * pixels
    assert len(said) == missed
    if missed:
        assert f"size_m={size_m} in a is {pixels} pixel" in said[0]
        assert f"a side of {10 * pixels} m. Sides of whole pixels are " in said[0]


# ---------------------------------------------------------------------- names of bands
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["array", "zarr", "sequence", "mosaic", "stac"])
def test_a_name_that_two_bands_have_is_refused(tmp_path, form):
    data = np.stack([numbers("uint8"), numbers("uint8", 1), numbers("uint8", 2)])
    names = ["red", "nir", "red"]
    cube = xarray.DataArray(data, dims=("band", "y", "x"), coords={"y": Y, "x": X, "band": names}, name="cube")
    cube = cube.rio.write_crs(CRS)
    path = tif(tmp_path / "s_2010.tif", data, descriptions=names)
    options = {}
    if form == "array":
        source = cube
    elif form == "zarr":
        pytest.importorskip("zarr")
        cube.to_zarr(tmp_path / "a.zarr", zarr_format=2)
        source = tmp_path / "a.zarr"
    elif form == "stac":
        words = {"eo:bands": [{"name": name} for name in names]}
        source = catalogue(tmp_path, [{"all": (path, words)}])
    else:
        source, options = [path], {"mosaic": form == "mosaic"}
    for bands in (None, ["red"], {"x": "red"}):
        with pytest.raises(ImageryError, match=r"'red'.*occur more than once|2 bands named 'red'|have a band 'red'"):
            open_imagery(source, bands=bands, **options)
    second = open_imagery(source, bands={"second": "all.3" if form == "stac" else 3}, **options)
    np.testing.assert_array_equal(whole(second).reshape(12, 14), data[2])


def test_names_that_an_item_and_its_file_give_to_different_bands_are_refused(tmp_path):
    data = np.stack([numbers("uint8"), numbers("uint8", 1)])
    path = tif(tmp_path / "a.tif", data, descriptions=["Blue", "Red"])
    items = catalogue(tmp_path, [{"all": (path, {"eo:bands": [{"name": "red"}, {"name": "blue"}]})}])
    for bands in (None, ["red"], {"x": "blue"}):
        with pytest.raises(ImageryError, match=r"calls band 1 of all 'red', its file 'Blue'.*'Blue': \"all\.1\""):
            open_imagery(items, bands=bands)
    imagery = open_imagery(items, bands={"blue": "all.1", "red": "all.2"})
    np.testing.assert_array_equal(whole(imagery)[0], data)
    for words in (
        {"eo:bands": [{"name": "blue"}, {"name": "red"}]},
        {"eo:bands": [{"name": "B02"}, {"name": "B04"}]},
        {"bands": [{"name": "B02", "eo:common_name": "blue"}, {"name": "B04", "eo:common_name": "red"}]},
    ):
        items = catalogue(tmp_path, [{"all": (path, words)}])
        np.testing.assert_array_equal(whole(open_imagery(items))[0], data)


def test_a_file_described_as_another_asset_is_told(tmp_path):
    red, nir = numbers("uint8"), numbers("uint8", 1)
    files = {
        "red": (tif(tmp_path / "a.tif", red[None], descriptions=["nir"]), {"eo:bands": [{"name": "B04"}]}),
        "nir": (tif(tmp_path / "b.tif", nir[None], descriptions=["B08"]), {"eo:bands": [{"name": "B08"}]}),
    }
    with pytest.warns(ImageryWarning, match=r"calls band 1 of red 'B04', its file 'nir', .* band 1 of nir"):
        imagery = open_imagery(catalogue(tmp_path, [files]))
    np.testing.assert_array_equal(whole(imagery)[0], np.stack([red, nir]))


@pytest.mark.parametrize("by", ["item", "file"])
def test_items_whose_bands_change_places_are_refused(tmp_path, by):
    data = np.stack([numbers("uint8"), numbers("uint8", 1)])
    items = []
    for k, names in enumerate((["red", "nir"], ["nir", "red"])):
        own = {"descriptions": names} if by == "file" else {}
        words = {"eo:bands": [{"name": name} for name in names]} if by == "item" else {}
        items.append({"all": (tif(tmp_path / f"{k}.tif", data, **own), words)})
    with pytest.raises(ImageryError, match=r"band 1 of all is 'nir' in the STAC item item1 .*'red' in the first"):
        open_imagery(catalogue(tmp_path, items))
    np.testing.assert_array_equal(whole(open_imagery(catalogue(tmp_path, items[:1])))[0], data)
