"""Which pixels are invalid: GDAL's own masks, read by rasterio, against ours, for every kind and format.

Each cell writes a raster and compares our pixels with rasterio's masked read of the same file.
"""

from __future__ import annotations

import itertools
import re
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import MaskFlags
from rasterio.shutil import copy as copy_raster

from causalsat.imagery import open_imagery
from causalsat.imagery.blocks import is_nodata, nodata_bounds

TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 100000)
SHAPE = (3, 40, 50)
FORMATS = {
    "GTiff": {"driver": "GTiff"},
    "GTiff tiled": {"driver": "GTiff", "tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"},
    "GTiff pixel": {"driver": "GTiff", "interleave": "pixel"},
    "COG": {"driver": "COG"},
    "VRT": None,
    "VRT of VRT": None,
    "zip": None,
    "ENVI": {"driver": "ENVI"},
    "HFA": {"driver": "HFA"},
}


def theirs(path: str) -> np.ndarray:
    """Rasterio's masked read as float32, NaN where GDAL's masks or not finite numbers say that a pixel is invalid."""
    with rasterio.open(path) as source:
        bands = [i for i, kind in enumerate(source.colorinterp, 1) if kind.name != "alpha"]
        with np.errstate(over="ignore"):
            values = source.read(bands).astype(np.float32)
        values[(source.read_masks(bands) == 0) | ~np.isfinite(values)] = np.nan
    return values


def written(folder: Path, data: np.ndarray, form: str, mask: np.ndarray | None = None, **profile) -> str:
    """The array in a format; returns what to open."""
    settings = {
        "height": data.shape[1], "width": data.shape[2], "count": data.shape[0], "dtype": str(data.dtype),
        "crs": "EPSG:32636", "transform": TRANSFORM, **(FORMATS[form] or {"driver": "GTiff"}), **profile,
    }  # fmt: skip
    path = folder / {"ENVI": "scene.dat", "HFA": "scene.img"}.get(form, "scene.tif")
    internal = form != "HFA" and settings.get("driver") != "ENVI"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "w", **settings) as sink:
        sink.write(data)
        if mask is not None:
            sink.write_mask(mask)
    if form == "zip":
        import zipfile

        with zipfile.ZipFile(folder / "scene.zip", "w") as archive:
            for file in folder.glob("scene.*"):
                if file.suffix != ".zip":
                    archive.write(file, file.name)
        return f"zip://{folder}/scene.zip!scene.tif"
    for k in range(("VRT", "VRT of VRT").index(form) + 1 if form.startswith("VRT") else 0):
        copy_raster(path, folder / f"scene{k}.vrt", driver="VRT")
        path = folder / f"scene{k}.vrt"
    return str(path)


def numbers(dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 100, size=SHAPE).astype(dtype)


def hole(mask: bool = False) -> np.ndarray:
    """True where a mask says valid."""
    valid = np.ones(SHAPE[1:], bool)
    valid[5:12, 7:30] = False
    return valid


_NO_ALPHA = ("COG", "ENVI", "HFA")


def plain(folder, form):
    return written(folder, numbers("uint8"), form)


def integer_nodata(folder, form):
    data = numbers("int16")
    data[0, 3:9, 4], data[2, 10, 10:20] = 0, 0
    return written(folder, data, form, nodata=0)


def float_nodata(folder, form):
    data = numbers("float32")
    data[0, 3:9, 4] = -9999.9
    data[1, 0, 0], data[1, 0, 1], data[2, 2, 2] = np.nan, np.inf, np.float32(-9999.9) + np.float32(0.001)
    return written(folder, data, form, nodata=-9999.9)


def few_digits(folder, form):
    data = numbers("float32")
    data[0, 3:9, 4], data[1, 1, 1] = -3.4028234663852886e38, -3.40282e38
    return written(folder, data, form, nodata=-3.40282e38)


def nan_nodata(folder, form):
    data = numbers("float64")
    data[0, 3:9, 4] = np.nan
    return written(folder, data, form, nodata=np.nan)


def dataset_mask(folder, form):
    return written(folder, numbers("uint8"), form, mask=hole())


def mask_and_nodata(folder, form):
    """GDAL lets the mask win: zeros outside it are numbers."""
    data = numbers("uint8")
    data[:, 20:30, 20:30] = 0
    return written(folder, data, form, mask=hole(), nodata=0)


def alpha(folder, form):
    data = np.concatenate([numbers("uint8"), (hole() * 255).astype("uint8")[None]])
    return written(folder, data, form, photometric="rgb", alpha="yes") if form not in _NO_ALPHA else None


def alpha_and_nodata(folder, form):
    """GDAL lets the nodata value win over alpha."""
    data = np.concatenate([numbers("uint8"), (hole() * 255).astype("uint8")[None]])
    data[:3, 20:30, 20:30] = 0
    return written(folder, data, form, photometric="rgb", alpha="yes", nodata=0) if form not in _NO_ALPHA else None


KINDS = {
    "plain": (plain, 0), "integer nodata": (integer_nodata, 16), "float nodata": (float_nodata, 9),
    "few digits": (few_digits, 7), "NaN nodata": (nan_nodata, 6), "mask": (dataset_mask, 483),
    "mask and nodata": (mask_and_nodata, 483), "alpha": (alpha, 483), "alpha and nodata": (alpha_and_nodata, 300),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "form"), [*itertools.product(KINDS, FORMATS)])
def test_pixels_equal_rasterio_s_masked_read(tmp_path, kind, form):
    make, least = KINDS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = make(tmp_path, form)
    if path is None:
        pytest.skip("the format has no alpha")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        got = open_imagery(path).read_window(0, 0, *SHAPE[1:])
    said = [str(w.message)[:29] for w in told if w.category.__module__.startswith("causalsat")]
    assert said == (["1 infinite value was read fro"] if kind == "float nodata" else [])
    expected = theirs(path)
    np.testing.assert_array_equal(got, expected)
    assert np.isnan(expected).sum() >= least


BAND = (
    '<VRTRasterBand dataType="{dtype}" band="{band}">{nodata}<ColorInterp>Gray</ColorInterp>{mask}<SimpleSource>'
    '<SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource>'
    "</VRTRasterBand>"
)
MASK = (
    '<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename>'
    "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></MaskBand>"
)


def vrt(folder: Path, bands: str, outside: str = "") -> str:
    (folder / "scene.vrt").write_text(
        f'<VRTDataset rasterXSize="{SHAPE[2]}" rasterYSize="{SHAPE[1]}"><SRS>EPSG:32636</SRS>'
        f"<GeoTransform>500000,10,0,100000,0,-10</GeoTransform>{bands}{outside}</VRTDataset>"
    )
    return str(folder / "scene.vrt")


def one_band(path: Path, data: np.ndarray, **profile) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", height=SHAPE[1], width=SHAPE[2], count=len(data), dtype=str(data.dtype),
        crs="EPSG:32636", transform=TRANSFORM, **profile,
    ) as sink:  # fmt: skip
        sink.write(data)


def mask_of_each_band(folder):
    """Masks of single bands (flags 0), which a dataset's mask is not."""
    one_band(folder / "a.tif", numbers("uint16"))
    one_band(folder / "m.tif", (hole()[None] * 255).astype("uint8"))
    masks = ["", MASK.format("m.tif"), ""]
    bands = "".join(BAND.format(dtype="UInt16", band=k + 1, nodata="", mask=masks[k], file="a.tif") for k in range(3))
    return vrt(folder, bands), ([MaskFlags.all_valid], [], [MaskFlags.all_valid])


def mask_of_a_vrt(folder):
    one_band(folder / "a.tif", numbers("uint16"))
    one_band(folder / "m.tif", (hole()[None] * 255).astype("uint8"))
    bands = "".join(BAND.format(dtype="UInt16", band=k + 1, nodata="", mask="", file="a.tif") for k in range(3))
    return vrt(folder, bands, MASK.format("m.tif")), ([MaskFlags.per_dataset],) * 3


def mask_and_nodata_of_bands(folder):
    """One band has a mask, one a nodata value, one neither."""
    data = numbers("uint16")
    data[1, 2, 2] = 7
    one_band(folder / "a.tif", data)
    one_band(folder / "m.tif", (hole()[None] * 255).astype("uint8"))
    masks, nodata = [MASK.format("m.tif"), "", ""], ["", "<NoDataValue>7</NoDataValue>", ""]
    bands = "".join(
        BAND.format(dtype="UInt16", band=k + 1, nodata=nodata[k], mask=masks[k], file="a.tif") for k in range(3)
    )
    return vrt(folder, bands), ([], [MaskFlags.nodata], [MaskFlags.all_valid])


def nodata_of_64_bits(folder):
    """Nodata that a double cannot hold."""
    data = numbers("int64")
    data[0, 3, 4], data[0, 3, 5] = -(2**53) - 1, -(2**53)
    one_band(folder / "a.tif", data)
    nodata = f"<NoDataValue>{-(2**53) - 1}</NoDataValue>"
    bands = "".join(BAND.format(dtype="Int64", band=k + 1, nodata=nodata, mask="", file="a.tif") for k in range(3))
    return vrt(folder, bands), ([MaskFlags.nodata],) * 3


def nodata_of_all_bands(folder):
    """The metadata item NODATA_VALUES: invalid where every band has its value."""
    data = numbers("uint16")
    data[:, 2, 2], data[0, 4, 4] = [7, 8, 9], 7
    one_band(folder / "a.tif", data)
    bands = "".join(BAND.format(dtype="UInt16", band=k + 1, nodata="", mask="", file="a.tif") for k in range(3))
    item = '<Metadata><MDI key="NODATA_VALUES">7 8 9</MDI></Metadata>'
    return vrt(folder, bands, item), ([MaskFlags.per_dataset, MaskFlags.nodata],) * 3


def impossible_nodata(folder):
    one_band(folder / "a.tif", numbers("uint16"))
    nodata = "<NoDataValue>-9999</NoDataValue>"
    bands = "".join(BAND.format(dtype="UInt16", band=k + 1, nodata=nodata, mask="", file="a.tif") for k in range(3))
    return vrt(folder, bands), ([MaskFlags.all_valid],) * 3


def mask_file_of_one_band(folder):
    """A file ``.msk`` whose flags are 0: each band has the mask for itself."""
    one_band(folder / "scene.tif", numbers("uint16"))
    masks = np.stack([hole(), ~hole(), np.ones_like(hole())]).astype("uint8") * 255
    one_band(folder / "m.tif", masks)
    with rasterio.open(folder / "m.tif", "r+") as sink:
        sink.update_tags(INTERNAL_MASK_FLAGS_1="0", INTERNAL_MASK_FLAGS_2="0", INTERNAL_MASK_FLAGS_3="0")
    (folder / "m.tif").rename(folder / "scene.tif.msk")
    return str(folder / "scene.tif"), ([], [], [])


RARE = [
    mask_of_each_band, mask_of_a_vrt, mask_and_nodata_of_bands, nodata_of_64_bits, nodata_of_all_bands,
    impossible_nodata, mask_file_of_one_band,
]  # fmt: skip


@pytest.mark.parametrize("make", RARE, ids=lambda make: make.__name__)
def test_flags_of_each_band(tmp_path, make):
    path, flags = make(tmp_path)
    with rasterio.open(path) as source:
        assert [set(f) for f in source.mask_flag_enums] == [set(f) for f in flags]  # the kind is the one meant
    imagery = open_imagery(path)
    np.testing.assert_array_equal(imagery.read_window(0, 0, *SHAPE[1:]), theirs(path))
    np.testing.assert_array_equal(
        imagery.sel(bands=["band_3", "band_2"]).read_window(0, 0, *SHAPE[1:]), theirs(path)[[2, 1]]
    )


def test_nodata_that_is_given_replaces_the_file_s_and_not_its_mask(tmp_path):
    data = numbers("uint8")
    data[:, 30:, 30:], data[:, 35, 35] = 0, 50
    path = written(tmp_path, data, "GTiff", mask=hole())
    got = open_imagery(path, nodata=50).read_window(0, 0, *SHAPE[1:])
    expected = np.where(hole() & (data != 50), data.astype(np.float32), np.nan)
    np.testing.assert_array_equal(got, expected)
    data[:, :5] = 0
    path = written(tmp_path, data, "GTiff", nodata=0)
    got = open_imagery(path, nodata=50).read_window(0, 0, *SHAPE[1:])
    np.testing.assert_array_equal(got, np.where(data == 50, np.nan, data.astype(np.float32)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    nodata=st.one_of(
        st.floats(-1e6, 1e6, width=32),
        st.sampled_from([-3.4028234663852886e38, -3.4e38, -9999.9, 0.0, 1e20, -1e38, -1.71e38]),
    ),
    steps=st.lists(st.integers(-40, 40), min_size=1, max_size=20),
)
def test_floats_near_nodata_are_nodata_where_gdal_says_so(tmp_path, dtype, nodata, steps):
    centre = np.dtype(dtype).type(nodata)
    unit = np.spacing(np.float32(abs(nodata)) if dtype == "float64" else abs(centre)) if nodata else np.float32(1e-7)
    with np.errstate(over="ignore"):
        values = (centre + np.array(steps) * unit).astype(dtype)
    values = np.r_[values, centre, -centre, centre / 2, np.dtype(dtype).type(1)].astype(dtype)
    path = tmp_path / "near.tif"
    path.unlink(missing_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=1, width=len(values), count=1, dtype=dtype, crs="EPSG:32636",
        transform=TRANSFORM, nodata=nodata,
    ) as sink:  # fmt: skip
        sink.write(values[None, None])
    with rasterio.open(path) as source:
        expected = source.read_masks(1)[0] == 0
        stated = source.nodata
    bounds = nodata_bounds(stated, np.dtype(dtype))
    ours = is_nodata(values, bounds) | ~np.isfinite(values)
    np.testing.assert_array_equal(ours, expected | ~np.isfinite(values))
    got = open_imagery(path).read_window(0, 0, 1, len(values))[0, 0]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(np.isnan(got), expected | ~np.isfinite(values.astype("float32")))


DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32", "float64"]


@st.composite
def rasters(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    tiled = draw(st.booleans())
    form = draw(st.sampled_from(["GTiff", "COG", "ENVI", "HFA"]))
    if dtype in ("int8", "int64", "uint64") and form in ("ENVI", "HFA"):
        form = "GTiff"
    profile = {"driver": form}
    if form == "GTiff":
        profile |= {"interleave": draw(st.sampled_from(["band", "pixel"]))}
        if tiled:
            profile |= {"tiled": True, "blockxsize": 16 * draw(st.integers(1, 3)), "blockysize": 16}
        profile |= {"compress": draw(st.sampled_from(["none", "deflate", "lzw"]))}
    low, high = (0, 6) if dtype.startswith("u") else (-3, 3)
    data = np.random.default_rng(draw(st.integers(0, 99))).integers(low, high, size=shape).astype(dtype)
    nodata = draw(st.sampled_from([None, 0, 1, 2]))
    mask = draw(st.sampled_from([None, "some"])) if form in ("GTiff", "COG") else None
    crs = draw(st.sampled_from(["EPSG:32636", "EPSG:4326", "EPSG:3857"]))
    scale = draw(st.sampled_from([None, (0.5, 1.0)]))
    virtual = draw(st.sampled_from([None, "nodata", "masks"])) if form == "GTiff" and scale is None else None
    return dtype, data, nodata, mask, crs, scale, profile, virtual


def as_vrt(path: Path, kind: str, data: np.ndarray) -> Path:
    """A VRT of a file whose bands have each their nodata value, or each its mask in another file."""
    target = path.with_name("any.vrt")
    copy_raster(path, target, driver="VRT")
    masks = path.with_name("any_masks.tif")
    with rasterio.open(path) as source:
        profile = {**source.profile, "driver": "GTiff", "dtype": "uint8", "nodata": None}
    with rasterio.open(masks, "w", **profile) as sink:
        sink.write(np.where(data % 2 == 0, 0, 255).astype("uint8"))
    parts = target.read_text().split("</VRTRasterBand>")
    n = len(data)
    for k in range(n):
        if kind == "nodata":
            text = re.sub(r"\s*<NoDataValue>.*?</NoDataValue>", "", parts[k])
            parts[k] = re.sub(r"(<VRTRasterBand [^>]*>)", rf"\1<NoDataValue>{k}</NoDataValue>", text)
        else:
            parts[k] += (
                '<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename relativeToVRT="1">'
                f"any_masks.tif</SourceFilename><SourceBand>{k + 1}</SourceBand></SimpleSource>"
                "</VRTRasterBand></MaskBand>"
            )
    target.write_text("</VRTRasterBand>".join(parts))
    return target


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=rasters(), row=st.integers(-30, 45), col=st.integers(-30, 45), size=st.integers(1, 40))
def test_any_small_raster_is_read_as_rasterio_reads_it(tmp_path, made, row, col, size):
    dtype, data, nodata, mask, crs, scale, profile, virtual = made
    path = tmp_path / "any.tif"
    for old in tmp_path.glob("any*"):
        old.unlink()
    side = 1e-4 if crs == "EPSG:4326" else 10
    corner = (30, 2) if crs == "EPSG:4326" else (3.4e6, 1e5) if crs == "EPSG:3857" else (5e5, 1e5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", height=data.shape[1], width=data.shape[2], count=data.shape[0], dtype=dtype, crs=crs,
            transform=rasterio.Affine(side, 0, corner[0], 0, -side, corner[1]), nodata=nodata, **profile,
        ) as sink:  # fmt: skip
            sink.write(data)
            if mask:
                sink.write_mask(data.sum(axis=0) % 3 != 0)
            if scale and profile["driver"] == "GTiff":
                sink.scales, sink.offsets = (scale[0],) * len(data), (scale[1],) * len(data)
    stated = scale is not None and profile["driver"] == "GTiff"
    if virtual:
        path = as_vrt(path, virtual, data)
    imagery = open_imagery(path, scale="file" if stated else None)
    expected = theirs(str(path))
    if stated:
        expected = expected * np.float32(scale[0]) + np.float32(scale[1])
    around = np.pad(expected, ((0, 0), (100, 100), (100, 100)), constant_values=np.nan)
    cut = around[:, row + 100 : row + 100 + size, col + 100 : col + 100 + size]
    out = np.empty((1, *cut.shape), dtype=np.float32)
    valid = imagery.fill_windows(out, np.array([row]), np.array([col]))
    np.testing.assert_array_equal(out[0], cut)
    np.testing.assert_array_equal(imagery.read_window(row, col, size, size), cut)
    assert valid[0] == pytest.approx(np.isfinite(cut).mean())
    x = corner[0] + side * (col + size // 2 + 0.5), corner[1] - side * (row + size // 2 + 0.5)
    place = geopandas.GeoSeries.from_xy([x[0]], [x[1]], crs=crs)
    chips = imagery.chips(place, size_px=size, min_valid=0, on_invalid="mask")
    np.testing.assert_array_equal(np.asarray(chips)[0], cut)
