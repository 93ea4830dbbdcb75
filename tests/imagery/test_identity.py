"""Files that change are read anew: the pixels after a change are those that rasterio or xarray reads then.

Every case is read through a chip cache before and after, in one process, with handles that stay open.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray
from rasterio.shutil import copy as copy_raster

from causalsat.exceptions import ImageryError, ImageryWarning
from causalsat.imagery import open_imagery

TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 100000)
PLACE = geopandas.GeoSeries.from_xy([500155], [99845], crs="EPSG:32636")
FIRST = np.random.default_rng(0).integers(1, 200, size=(2, 30, 30)).astype("uint8")
SECOND = FIRST[:, ::-1].copy()


def tif(path: Path, data: np.ndarray = FIRST, mask: np.ndarray | None = None, **profile) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(
        path, "w", driver="GTiff", height=30, width=30, count=len(data), dtype=str(data.dtype), crs="EPSG:32636",
        transform=TRANSFORM, **profile,
    ) as sink:  # fmt: skip
        sink.write(data)
        if mask is not None:
            sink.write_mask(mask)
    return path


def replaced(folder):
    """The file itself, written beside and moved into its place."""
    path = tif(folder / "a.tif")

    def change():
        tif(folder / "new.tif", SECOND)
        os.replace(folder / "new.tif", path)

    return path, change


def same_time_and_size(folder):
    """A file of the same size, moved into place with the old modification time."""
    path = tif(folder / "a.tif")
    stat = path.stat()

    def change():
        tif(folder / "new.tif", SECOND)
        os.utime(folder / "new.tif", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(folder / "new.tif", path)

    return path, change


def source_of_a_vrt(folder):
    source = tif(folder / "a.tif")
    copy_raster(source, folder / "a.vrt", driver="VRT")
    return folder / "a.vrt", lambda: tif(source, SECOND)


def source_of_a_vrt_moved_into_place(folder):
    source = tif(folder / "a.tif")
    copy_raster(source, folder / "a.vrt", driver="VRT")

    def change():
        tif(folder / "new.tif", SECOND)
        os.replace(folder / "new.tif", source)

    return folder / "a.vrt", change


def source_of_a_vrt_of_a_vrt(folder):
    source = tif(folder / "a.tif")
    copy_raster(source, folder / "a.vrt", driver="VRT")
    copy_raster(folder / "a.vrt", folder / "b.vrt", driver="VRT")
    return folder / "b.vrt", lambda: tif(source, SECOND)


def member_of_a_zip(folder):
    def pack(data):
        tif(folder / "a.tif", data)
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            archive.write(folder / "a.tif", "in/a.tif")

    pack(FIRST)
    return f"zip://{folder}/a.zip!in/a.tif", lambda: pack(SECOND)


def member_of_a_tar(folder):
    import tarfile

    def pack(data):
        tif(folder / "a.tif", data)
        with tarfile.open(folder / "a.tar", "w") as archive:
            archive.add(folder / "a.tif", "a.tif")

    pack(FIRST)
    return f"/vsitar/{folder}/a.tar/a.tif", lambda: pack(SECOND)


def vrt_in_a_folder_with_zip(folder):
    member, change = member_of_a_zip(folder)
    vsi = "/vsizip/" + member.removeprefix("zip://").replace("!", "/")
    copy_raster(vsi, folder / "z.vrt", driver="VRT")
    return folder / "z.vrt", change


def mask_file_appears(folder):
    path = tif(folder / "a.tif")

    def change():
        tif(folder / "b.tif", mask=np.eye(30, dtype=bool))
        (folder / "b.tif.msk").rename(folder / "a.tif.msk")

    return path, change


def mask_file_changes(folder):
    path = tif(folder / "a.tif", mask=np.eye(30, dtype=bool))

    def change():
        tif(folder / "b.tif", mask=~np.eye(30, dtype=bool))
        os.replace(folder / "b.tif.msk", folder / "a.tif.msk")

    return path, change


def mask_file_goes(folder):
    path = tif(folder / "a.tif", mask=np.eye(30, dtype=bool))
    return path, lambda: (folder / "a.tif.msk").unlink()


def nodata_in_a_sidecar(folder):
    """A nodata value in an ``.aux.xml`` beside a format that cannot hold one."""
    with rasterio.open(folder / "a.png", "w", driver="PNG", height=30, width=30, count=1, dtype="uint8") as sink:
        sink.write(FIRST[:1])
    xml = (
        "<PAMDataset><SRS>EPSG:32636</SRS><GeoTransform>500000,10,0,100000,0,-10</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>{}</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    aux = folder / "a.png.aux.xml"
    aux.write_text(xml.format(int(FIRST[0, 15, 15])))

    def change():
        aux.unlink()
        aux.write_text(xml.format(int(FIRST[0, 14, 15])))

    return folder / "a.png", change


def quality_of_another_file(folder):
    quality = np.zeros((1, 30, 30), "uint8")
    tif(folder / "a_SR.tif")
    tif(folder / "a_QA.tif", quality)

    def change():
        quality[0, 15, 15] = 1
        tif(folder / "a_QA.tif", quality)

    return folder / "a_SR.tif", change, {"mask": {"replace": ["SR", "QA"], "bits": [0]}}


FILES = [
    replaced, same_time_and_size, source_of_a_vrt, source_of_a_vrt_moved_into_place, source_of_a_vrt_of_a_vrt,
    member_of_a_zip, member_of_a_tar, vrt_in_a_folder_with_zip, mask_file_appears, mask_file_changes,
    mask_file_goes, nodata_in_a_sidecar,
]  # fmt: skip


def theirs(path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(masked=True).astype(np.float32).filled(np.nan)


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_what_was_changed_is_read_anew(tmp_path, make):
    path, change = make(tmp_path)
    options = {"size_px": 5, "on_invalid": "mask", "min_valid": 0.0, "cache": tmp_path / "cache"}
    imagery = open_imagery(path)
    before, window = imagery.chips(PLACE, **options).values[0], imagery.read_window(0, 0, 30, 30)
    np.testing.assert_array_equal(window, theirs(path))
    digest = imagery.fingerprint()
    assert imagery.fingerprint() == digest
    change()
    expected = theirs(path)
    assert not np.array_equal(window, expected, equal_nan=True)
    np.testing.assert_array_equal(open_imagery(path).chips(PLACE, **options).values[0], expected[:, 13:18, 13:18])
    assert imagery.fingerprint() != digest
    assert not np.array_equal(before, expected[:, 13:18, 13:18], equal_nan=True)
    if make in (mask_file_appears, mask_file_goes, nodata_in_a_sidecar):
        with pytest.raises(ImageryError, match=r"masks or nodata values .* open it again"):
            imagery.read_window(0, 0, 30, 30)
        return
    np.testing.assert_array_equal(imagery.read_window(0, 0, 30, 30), expected)
    np.testing.assert_array_equal(imagery.chips(PLACE, **options).values[0], expected[:, 13:18, 13:18])


def test_a_quality_file_that_changes_is_read_anew(tmp_path):
    path, change, options = quality_of_another_file(tmp_path)
    imagery = open_imagery(path, **options)
    kept = {"size_px": 3, "cache": tmp_path / "cache"}
    assert np.isfinite(imagery.chips(PLACE, **kept)).all()
    change()
    assert np.isnan(imagery.chips(PLACE, **kept).values[0, :, 1, 1]).all()


def store(path: Path, data: np.ndarray, version: int, **options) -> None:
    y, x = 99995 - 10.0 * np.arange(30), 500005 + 10.0 * np.arange(30)
    array = xarray.DataArray(data, dims=("band", "y", "x"), coords={"y": y, "x": x}, name="scene")
    array.rio.write_crs("EPSG:32636").to_dataset().to_zarr(
        path, mode="w", zarr_format=version, encoding={"scene": {"chunks": (1, 10, 10), **options}}
    )


def rewritten(path, version):
    shutil.rmtree(path)
    store(path, SECOND, version)


def region(path, version):
    data = xarray.DataArray(SECOND[:, 10:20, 10:20], dims=("band", "y", "x"), name="scene").to_dataset()
    data.to_zarr(path, region={"band": slice(0, 2), "y": slice(10, 20), "x": slice(10, 20)})


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("change", [rewritten, region], ids=["rewritten", "region"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stores_that_changed_are_read_anew(tmp_path, version, change):
    pytest.importorskip("zarr")
    path = tmp_path / "s.zarr"
    store(path, FIRST, version)
    imagery = open_imagery(path)
    options = {"size_px": 5, "cache": tmp_path / "cache"}
    np.testing.assert_array_equal(imagery.chips(PLACE, **options).values[0], FIRST[:, 13:18, 13:18])
    change(path, version)
    with xarray.open_zarr(path) as again:
        expected = again["scene"].values.astype(np.float32)
    assert not np.array_equal(expected[:, 13:18, 13:18], FIRST[:, 13:18, 13:18])
    np.testing.assert_array_equal(imagery.chips(PLACE, **options).values[0], expected[:, 13:18, 13:18])
    np.testing.assert_array_equal(imagery.read_window(0, 0, 30, 30), expected)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tif(tmp_path / "a.tif")
    copy_raster(path, tmp_path / "a.vrt", driver="VRT")
    imagery = open_imagery(tmp_path / "a.vrt")
    batches = imagery.iter_windows(np.array([0, 5]), np.array([0, 5]), 5, 1)
    next(batches)
    tif(path, SECOND)
    with pytest.raises(ImageryError, match=r"a\.tif changed while it was read"):
        list(batches)


def test_a_lazy_array_is_not_kept_and_says_so(tmp_path):
    pytest.importorskip("dask")
    y, x = 99995 - 10.0 * np.arange(30), 500005 + 10.0 * np.arange(30)
    array = xarray.DataArray(FIRST, dims=("band", "y", "x"), coords={"y": y, "x": x}).rio.write_crs("EPSG:32636")
    lazy = open_imagery(array.chunk({"y": 10}))
    with pytest.warns(ImageryWarning, match="are not kept"):
        lazy.chips(PLACE, size_px=3, cache=tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*.npy"))
    assert open_imagery(array.chunk({"y": 10})).fingerprint() != lazy.fingerprint()
    assert lazy.fingerprint() == lazy.fingerprint()


def test_what_cannot_be_looked_at_is_told_apart_by_when_it_was_opened(tmp_path):
    from rasterio.io import MemoryFile

    tif(tmp_path / "a.tif")
    with MemoryFile((tmp_path / "a.tif").read_bytes(), filename="a.tif") as memory:
        first, second = open_imagery(memory.name), open_imagery(memory.name)
        assert first.unstamped() == (memory.name,)
        assert first.fingerprint() != second.fingerprint()
        with pytest.warns(ImageryWarning, match="are not kept"):
            got = first.chips(PLACE, size_px=5, cache=tmp_path / "cache")
        np.testing.assert_array_equal(got.values[0], FIRST[:, 13:18, 13:18])
