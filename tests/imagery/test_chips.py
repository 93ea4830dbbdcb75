"""chips(): places, validity, several sources and sizes, lazy reading, the cache."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rioxarray
import shapely
import xarray

from causalsat.exceptions import DataError, DataWarning, ImageryError, ParameterError
from causalsat.imagery import chips, open_imagery
from causalsat.imagery.raster import RasterImagery

DATA = Path(os.environ.get("CAUSALSAT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def places(rows, cols, **options) -> geopandas.GeoSeries:
    """Points at the centres of pixels, in degrees."""
    x, y = 500000 + 10 * np.asarray(cols) + 5, 100000 - 10 * np.asarray(rows) - 5
    return geopandas.GeoSeries.from_xy(x, y, crs="EPSG:32636", **options).to_crs("EPSG:4326")


def test_chips_carry_pixels_names_and_georeference(write, image):
    imagery = open_imagery(write("scene.tif", image, names=["red", "nir", "swir1"]))
    units = places([20, 50], [30, 60], index=["a", "b"])
    got = imagery.chips(units, size_m=70)
    assert got.dims == ("unit", "band", "y", "x")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.sel(unit="a"), image[:, 17:24, 27:34])
    np.testing.assert_array_equal(got.sel(unit="b", band="nir"), image[1, 47:54, 57:64])
    np.testing.assert_array_equal(got.y, 10 * np.arange(3, -4, -1))
    np.testing.assert_array_equal(got.x, 10 * np.arange(-3, 4))
    np.testing.assert_allclose(got.lon, units.x)
    np.testing.assert_allclose(got.lat, units.y)
    assert got.valid_fraction.values.tolist() == [1, 1]
    assert (got.attrs["crs"], got.attrs["size_m"], got.attrs["resolution_m"]) == ("EPSG:32636", 70, 10)


def test_chips_equal_rioxarray_selection(write, image):
    path = write("scene.tif", image)
    units = places([20, 33, 71], [30, 44, 90])
    ours = open_imagery(path).chips(units, size_px=9)
    theirs = rioxarray.open_rasterio(path)
    for i, point in enumerate(units.to_crs("EPSG:32636")):
        box = theirs.rio.clip_box(point.x - 44, point.y - 44, point.x + 44, point.y + 44)
        np.testing.assert_array_equal(ours[i], box)


def test_frames_polygons_and_multiindex(write, image):
    imagery = open_imagery(write("scene.tif", image))
    point = places([40], [50])
    square = geopandas.GeoSeries(point.to_crs("EPSG:32636").buffer(30, cap_style="square"))
    index = pd.MultiIndex.from_tuples([("v", 1)])
    frame = geopandas.GeoDataFrame({"age": [3]}, geometry=square.values, crs="EPSG:32636", index=index)
    np.testing.assert_array_equal(imagery.chips(frame, size_px=5).values, imagery.chips(point, size_px=5).values)


def test_repeated_places_are_read_once(write, image, monkeypatch):
    imagery = open_imagery(write("scene.tif", image))
    seen = []
    original = type(imagery).fill_windows

    def spy(self, out, row0, col0, **options):
        seen.append(len(row0))
        return original(self, out, row0, col0, **options)

    monkeypatch.setattr(type(imagery), "fill_windows", spy)
    rows, cols = [50, 20, 50, 20, 50], [60, 30, 60, 30, 60]
    got = imagery.chips(places(rows, cols), size_px=7)
    assert seen == [2]
    for i, (r, c) in enumerate(zip(rows, cols, strict=True)):
        np.testing.assert_array_equal(got[i], image[:, r - 3 : r + 4, c - 3 : c + 4])


@pytest.mark.parametrize("lazy", [False, True])
def test_on_invalid(write, image, lazy):
    imagery = open_imagery(write("scene.tif", image), name="scene")
    units = places([40, 40, -500, 88], [50, 109, 50, 50], index=list("abcd"))
    # size 10, above and left of the centre 5 pixels: 'b' has columns 104..109 (6 of 10), 'd' rows 83..89 (7 of 10)
    with pytest.raises(
        ImageryError, match=r'2 of 4 units have less than 65% valid pixels in scene: b, c .*on_invalid="drop"'
    ):
        imagery.chips(units, size_px=10, min_valid=0.65, lazy=lazy)
    with pytest.warns(DataWarning, match=r"scene: c .*kept with NaN, 1 of them without"):
        masked = imagery.chips(units, size_px=10, on_invalid="mask", lazy=lazy)
    np.testing.assert_allclose(masked.valid_fraction, [1, 0.6, 0, 0.7])
    assert np.isnan(masked.sel(unit="c").values).all()
    with pytest.warns(DataWarning, match="dropped 2 of 4 units .* b, c"):
        dropped = imagery.chips(units, size_px=10, on_invalid="drop", min_valid=0.65, lazy=lazy)
    assert dropped.unit.values.tolist() == ["a", "d"]
    assert dropped.attrs["dropped"] == ["b", "c"]
    np.testing.assert_array_equal(dropped.sel(unit="d").values, masked.sel(unit="d").values)
    np.testing.assert_allclose(dropped.lat, units.y[["a", "d"]])


def test_nothing_left_is_an_error(write, image):
    imagery = open_imagery(write("scene.tif", image))
    with pytest.raises(ImageryError, match="no unit has"):
        imagery.chips(places([-500], [50]), size_px=10, on_invalid="drop")


def test_several_sources_and_sizes_keep_the_same_units(write, image):
    fine = open_imagery(write("fine.tif", image))
    coarse = open_imagery(write("coarse.tif", image[:1, :30, :30], transform=(30, 0, 500000, 0, -30, 100000)))
    units = places([40, 5, 60], [50, 50, 60], index=list("abc"))
    with pytest.warns(DataWarning, match="dropped 1 of 3"):
        got = chips({"fine": fine, "coarse": coarse}, units, size_m=[90, 300], on_invalid="drop", min_valid=0.9)
    assert list(got) == ["fine@90m", "fine@300m", "coarse@90m", "coarse@300m"]
    assert [array.shape for array in got.values()] == [(2, 3, 9, 9), (2, 3, 30, 30), (2, 1, 3, 3), (2, 1, 10, 10)]
    assert all(array.unit.values.tolist() == ["a", "c"] for array in got.values())
    np.testing.assert_array_equal(got["coarse@90m"][0, 0], image[0, 12:15, 15:18])
    for size, array in chips(fine, units, size_px=[4, 9, 5, 8]).items():
        xarray.testing.assert_identical(array, fine.chips(units, size_px=int(size[:-2])))
    assert list(chips({"a": fine, "b": fine}, units, size_px=3)) == ["a", "b"]


def test_lazy_chips_read_what_is_used(write, image, monkeypatch):
    imagery = open_imagery(write("scene.tif", image))
    rng = np.random.default_rng(0)
    units = places(rng.integers(10, 80, 30), rng.integers(10, 100, 30))
    eager, lazy = (imagery.chips(units, size_px=12, lazy=flag) for flag in (False, True))
    seen = []
    original = type(imagery).fill_windows
    monkeypatch.setattr(
        type(imagery), "fill_windows", lambda s, o, r, c, **k: seen.append(len(r)) or original(s, o, r, c, **k)
    )
    few = lazy.isel(unit=[3, 17, 3], band=slice(0, 2), y=[0, 5])
    assert seen == []
    np.testing.assert_array_equal(few.values, eager.isel(unit=[3, 17, 3], band=slice(0, 2), y=[0, 5]).values)
    assert seen == [2]
    np.testing.assert_array_equal(lazy.isel(unit=4, band=1).values, eager.isel(unit=4, band=1).values)
    np.testing.assert_array_equal(lazy.isel(unit=slice(25, None)).values, eager.values[25:])
    xarray.testing.assert_identical(lazy.load(), eager)


def test_cache_is_keyed_by_content(write, image, tmp_path, monkeypatch):
    folder, path = tmp_path / "cache", write("scene.tif", image)
    units = places([20, 50, 20], [30, 60, 30])
    first = open_imagery(path).chips(units, size_px=7, cache=folder)
    entries = {file.name for file in folder.iterdir()}
    assert len(entries) == 2
    assert not [name for name in entries if name.endswith(".tmp")]
    chip_file = next(file for file in folder.iterdir() if not file.name.endswith(".valid.npy"))
    assert np.load(chip_file, allow_pickle=False).shape == (2, 3, 7, 7)
    with monkeypatch.context() as patch:
        patch.setattr(RasterImagery, "load", None)  # nothing is decoded any more
        again = open_imagery(path).chips(units, size_px=7, cache=folder)
        np.testing.assert_array_equal(again.values, first.values)
        lazy = open_imagery(path).chips(units, size_px=7, cache=folder, lazy=True)
        np.testing.assert_array_equal(lazy.values, first.values)
    flipped = bytearray(chip_file.read_bytes())
    flipped[-5] ^= 4
    chip_file.write_bytes(flipped)
    with pytest.raises(ImageryError, match=r"chip cache .* is damaged.*delete"):
        open_imagery(path).chips(units, size_px=7, cache=folder, lazy=True).values  # noqa: B018
    np.testing.assert_array_equal(open_imagery(path).chips(units, size_px=7, cache=folder).values, first.values)
    lazy = open_imagery(path).chips(units, size_px=7, cache=folder, lazy=True)
    np.testing.assert_array_equal(lazy.isel(unit=[2, 1]).values, again.values[[2, 1]])
    open_imagery(path, scale=2.0).chips(units, size_px=7, cache=folder)
    open_imagery(path).chips(units, size_px=8, cache=folder)
    open_imagery(path).chips(units[1:], size_px=7, cache=folder)
    write("scene.tif", image[:, ::-1].copy())
    changed = open_imagery(path).chips(units, size_px=7, cache=folder)
    np.testing.assert_array_equal(changed[0], image[:, ::-1][:, 17:24, 27:34])
    assert len(list(folder.iterdir())) == 10


def test_a_damaged_cache_entry_is_read_again(write, image, tmp_path):
    folder, imagery = tmp_path / "cache", open_imagery(write("scene.tif", image))
    units = places([20], [30])
    first = imagery.chips(units, size_px=7, cache=folder)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    xarray.testing.assert_identical(imagery.chips(units, size_px=7, cache=folder), first)


def _read_with_cache(arguments) -> float:
    path, folder = arguments
    return float(open_imagery(path).chips(places([20, 50], [30, 60]), size_px=7, cache=folder).sum())


def test_two_processes_share_a_cache(write, image, tmp_path):
    import multiprocessing

    path = write("scene.tif", image)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
        sums = list(pool.map(_read_with_cache, [(path, tmp_path / "cache")] * 4))
    assert sums == [float(image[:, 17:24, 27:34].sum(dtype=float) + image[:, 47:54, 57:64].sum(dtype=float))] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 2


BAD_GEOMETRY = {
    "missing": (
        geopandas.GeoSeries([shapely.Point(33, 0.9), None], index=["a", "b"], crs=4326),
        "1 unit without a geom.*: b",
    ),
    "empty": (geopandas.GeoSeries([shapely.Point(), shapely.Point(33, 0.9)], index=[7, 8], crs=4326), "geometry: 7"),
    "no CRS": (geopandas.GeoSeries([shapely.Point(33, 0.9)]), 'set_crs\\("EPSG:4326"\\)'),
    "a frame": (pd.DataFrame({"lon": [33], "lat": [1]}), "points_from_xy"),
    "latitude 120": (
        geopandas.GeoSeries([shapely.Point(33, 120.0)], index=["far"], crs=4326),
        "projected: far .*swapped",
    ),
}


@pytest.mark.parametrize(("geometry", "message"), BAD_GEOMETRY.values(), ids=BAD_GEOMETRY.keys())
def test_bad_geometry(write, image, geometry, message):
    imagery = open_imagery(write("scene.tif", image))
    with pytest.raises(DataError, match=message):
        imagery.chips(geometry, size_px=5)


BAD_PARAMETERS = {
    "neither size": ({}, "neither size_m nor size_px"),
    "both sizes": ({"size_m": 50, "size_px": 5}, "both size_m and size_px"),
    "negative size": ({"size_m": -50}, "positive number of metres"),
    "half a pixel": ({"size_px": 2.5}, "whole number"),
    "unknown on_invalid": ({"size_px": 5, "on_invalid": "ignore"}, "on_invalid='ignore'"),
    "min_valid in percent": ({"size_px": 5, "min_valid": 50}, "between 0 and 1"),
}


@pytest.mark.parametrize(("options", "message"), BAD_PARAMETERS.values(), ids=BAD_PARAMETERS.keys())
def test_bad_parameters(write, image, options, message):
    with pytest.raises(ParameterError, match=message):
        open_imagery(write("scene.tif", image)).chips(places([20], [30]), **options)


def test_a_path_is_not_imagery(write, image):
    with pytest.raises(ImageryError, match="open_imagery"):
        chips(str(write("scene.tif", image)), places([20], [30]), size_px=5)


def test_uganda_sites_lie_on_their_images():
    folder = DATA / "uganda_yop"
    if not folder.exists():
        pytest.skip(f"real data not at {folder}; set CAUSALSAT_DATA")
    imagery = open_imagery(folder / "landsat_geocover_2000.tif", dates="2000")
    sites = pd.read_csv(folder / "sites.csv").set_index("site").iloc[::10]
    points = geopandas.GeoSeries.from_xy(sites.lon, sites.lat, index=sites.index, crs="EPSG:4326")
    assert imagery.size_px(5000) == 117
    valid = np.concatenate([np.isfinite(batch).mean(axis=(1, 2, 3)) for _, batch in imagery.iter_chips(points, 117)])
    assert valid.min() > 0.95  # images exist only within 2.5 km of the sites: a shift of 10 pixels would cost 8 %


def test_thousands_of_bands_are_opened_in_time_that_grows_with_them(tmp_path):
    """A file's properties, of all bands at once, are asked for once and not for each band."""
    import time

    import rasterio

    path = tmp_path / "bands.tif"
    profile = {"driver": "GTiff", "width": 8, "height": 8, "dtype": "uint8", "crs": "EPSG:32636", "sparse_ok": True}
    with rasterio.open(path, "w", count=4000, transform=rasterio.Affine(10, 0, 0, 0, -10, 0), **profile):
        pass
    start = time.process_time()
    assert len(open_imagery(path).bands) == 4000
    assert time.process_time() - start < 5
