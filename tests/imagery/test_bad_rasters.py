"""Bad rasters and folders, one row each: which error it is and what it says to do."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import rasterio

from causalsat.exceptions import CausalsatError, ImageryError, ImageryNotFoundError
from causalsat.imagery import open_imagery

SMALL = np.ones((2, 64, 64), np.uint8)
NOISE = np.random.default_rng(0).integers(0, 255, size=(2, 256, 256), dtype=np.uint8)
ROTATED = rasterio.Affine(10, 2, 500000, 2, -10, 100000)


def truncated(write, tmp_path):
    """Opens, but its pixels are gone."""
    path = write("cut.tif", NOISE)
    path.write_bytes(path.read_bytes()[:60000])
    return open_imagery(path).read_window(0, 0, 256, 256)


def truncated_chips(write, tmp_path):
    path = write("cut.tif", NOISE)
    path.write_bytes(path.read_bytes()[:60000])
    points = geopandas.GeoSeries.from_xy([502000], [98000], crs="EPSG:32636")
    return open_imagery(path).chips(points, size_px=5, threads=2)


def text_file(write, tmp_path):
    (tmp_path / "notes.tif").write_text("not a raster")
    return open_imagery(tmp_path / "notes.tif")


def two(write, name="b_20150101.tif", data=SMALL, **profile):
    """A folder of a good scene and another one."""
    write("d/a_20140101.tif", SMALL)
    return open_imagery(write(f"d/{name}", data, **profile).parent)


def opened(**options):
    """A small good file, opened with these options."""
    return lambda write, tmp_path: open_imagery(write("a.tif", SMALL), **options)


def folder(name, **options):
    """A folder of one good scene, opened with these options."""
    return lambda write, tmp_path: open_imagery(write(f"d/{name}", SMALL).parent, **options)


def quality_of_other_shape(write, tmp_path):
    write("s_QA.tif", SMALL[:1, :32, :32])
    return open_imagery(write("s_SR.tif", SMALL), mask={"replace": ["SR", "QA"], "bits": [1]})


ROWS = {
    "missing file": (
        lambda w, t: open_imagery(t / "none.tif"),
        ImageryNotFoundError,
        "no such raster.*check the path",
    ),
    "not a raster": (text_file, ImageryError, "cannot be opened as a raster.*gdalinfo"),
    "truncated, window": (truncated, ImageryError, "cut.tif: its pixels cannot be read.*download or copy it again"),
    "truncated, chips in threads": (truncated_chips, ImageryError, "cut.tif: its pixels.*download or copy it again"),
    "no CRS": (lambda w, t: open_imagery(w("a.tif", SMALL, crs=None)), ImageryError, r"no coordinate ref.*pass crs="),
    "no georeference": (
        lambda w, t: open_imagery(w("a.tif", SMALL, transform=None)),
        ImageryError,
        "identity.*gdal_translate -a_ullr",
    ),
    "rotated": (lambda w, t: open_imagery(w("a.tif", SMALL, transform=ROTATED)), ImageryError, "rotated.*gdalwarp"),
    "south up": (
        lambda w, t: open_imagery(w("a.tif", SMALL, transform=rasterio.Affine(10, 0, 5e5, 0, 10, 0))),
        ImageryError,
        "mirrored.*gdalwarp",
    ),
    "wrong CRS given": (opened(crs="EPSG:4326"), ImageryError, "says that its CRS.*leave crs= out"),
    "nonsense CRS given": (
        lambda w, t: open_imagery(w("a.tif", SMALL, crs=None), crs="UTM 36"),
        ImageryError,
        "cannot be read.*EPSG code",
    ),
    "complex pixels": (
        lambda w, t: open_imagery(w("a.tif", SMALL.astype(np.complex64))),
        ImageryError,
        "complex64.*amplitudes",
    ),
    "wrong band name": (
        lambda w, t: open_imagery(w("a.tif", SMALL, names=["red", "nir"]), bands=["swir"]),
        ImageryError,
        r"no band 'swir'.*\['red', 'nir'\].*mapping",
    ),
    "band number 0": (opened(bands=[0]), ImageryError, "no band 0.*from 1 to 2"),
    "too many names": (opened(bands=["red", "nir", "blue"]), ImageryError, "no band 'red'.*mapping"),
    "a band twice": (opened(bands=[1, 1]), ImageryError, "more than once.*mapping"),
    "no band left": (opened(bands=[]), ImageryError, "no band is left.*at least one"),
    "mask band missing": (opened(mask="sentinel2-scl"), ImageryError, "no band 'SCL'.*one of"),
    "mask unknown": (opened(mask="clouds"), ImageryError, "known rule.*sentinel2-scl"),
    "mask with a typo": (opened(mask={"band": 1, "invlaid": [0]}), ImageryError, "unknown keys.*mask="),
    "mask that masks nothing": (opened(mask={"band": 1}), ImageryError, "rules nothing out.*mask="),
    "mask file missing": (
        lambda w, t: open_imagery(w("a_SR.tif", SMALL), mask={"replace": ["SR", "QA"], "bits": [1]}),
        ImageryNotFoundError,
        "a_QA.tif.*check the path",
    ),
    "mask file is the image": (
        opened(mask={"replace": ["SR", "QA"], "bits": [1]}),
        ImageryError,
        "changes nothing.*text that the path contains",
    ),
    "mask of another shape": (quality_of_other_shape, ImageryError, "shape.*gdalwarp -r near"),
    "three scales for two bands": (
        lambda w, t: open_imagery(w("a.tif", SMALL), scale=[1, 2, 3]),
        ImageryError,
        "3 values for 2 bands.*one a band",
    ),
    "scale is a word": (opened(scale="big"), ImageryError, "scale='big'.*a number"),
    "date is no date": (opened(dates="spring"), ImageryError, "'spring'.*2016-07"),
    "two dates for a file": (opened(dates=["2014", "2015"]), ImageryError, "2 dates for one file"),
    "unknown option": (opened(band=["red"]), ImageryError, "no option.*help"),
    "a number": (lambda w, t: open_imagery(3), ImageryError, "source is a int.*a path"),
    "empty folder": (lambda w, t: open_imagery(t), ImageryNotFoundError, "holds no raster.*glob"),
    "glob of nothing": (lambda w, t: open_imagery(t / "*.tif"), ImageryNotFoundError, "no file matches.*pattern"),
    "empty list": (lambda w, t: open_imagery([]), ImageryNotFoundError, "empty list.*at least one"),
    "folder without dates": (
        lambda w, t: two(w, "b.tif"),
        ImageryError,
        r"no date in the name of 1 of 2.*b.tif.*date_regex=",
    ),
    "date regex that does not match": (
        folder("a_20140101.tif", date_regex=r"T(\d{8})"),
        ImageryError,
        "a_20140101.tif, by date_regex.*pass date_regex=",
    ),
    "date regex that finds no date": (
        folder("a_20149901.tif", date_regex=r"(\d{8})"),
        ImageryError,
        "'20149901', which is not a date.*first group",
    ),
    "date regex that is none": (folder("a_20140101.tif", date_regex="("), ImageryError, "not a regular expr"),
    "two files a day": (lambda w, t: two(w, "b_20140101.tif"), ImageryError, "two files of 2014-01-01.*gdalbuildvrt"),
    "dates of another number": (
        folder("a_20140101.tif", dates=["2014", "2015"]),
        ImageryError,
        "2 dates for 1 files.*date_regex=",
    ),
    "mixed CRSs": (
        lambda w, t: two(w, crs="EPSG:32637"),
        ImageryError,
        r"b_20150101.tif does not fit a_.*UTM zone 37N.*gdalwarp",
    ),
    "mixed shapes": (
        lambda w, t: two(w, data=SMALL[:, :32]),
        ImageryError,
        r"b_2015.*shape is \(64, 64\)|shape.*gdalwarp",
    ),
    "shifted by half a pixel": (
        lambda w, t: two(w, transform=rasterio.Affine(10, 0, 500005, 0, -10, 100000)),
        ImageryError,
        "b_2015.*shifted.*gdalwarp",
    ),
    "mixed band counts": (lambda w, t: two(w, data=SMALL[:1]), ImageryError, "b_2015.*its bands are.*pass bands="),
    "mixed band names": (
        lambda w, t: two(w, names=["nir", "red"]),
        ImageryError,
        "b_2015.*its bands are.*pass bands=",
    ),
    "mixed types": (
        lambda w, t: two(w, data=SMALL.astype(np.uint16)),
        ImageryError,
        "b_2015.*uint16.*gdal_translate -ot",
    ),
}


@pytest.mark.parametrize(("make", "kind", "message"), ROWS.values(), ids=ROWS.keys())
def test_bad_raster(write, tmp_path, make, kind, message):
    with pytest.raises(CausalsatError, match=f"(?s){message}") as caught:
        make(write, tmp_path)
    assert type(caught.value) is kind
    assert isinstance(caught.value, ValueError)


def test_what_is_missing_is_a_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such raster"):
        open_imagery(tmp_path / "none.tif")
