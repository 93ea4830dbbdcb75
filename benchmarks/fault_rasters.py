"""Faulty imagery: truncated, flipped, without overviews, in the wrong CRS, of mixed types, gone or replaced."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import geopandas
import numpy as np
import rasterio
from fault_runner import Case
from rasterio.enums import Resampling

from causalsat.imagery import open_imagery
from causalsat.imagery.raster import RasterImagery

TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 100000)
SIDE = 192
KINDS = {
    "deflate": {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"},
    "zstd": {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "zstd"},
    "lzw": {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "lzw"},
    "plain": {},
    "COG": {"driver": "COG", "compress": "deflate"},
}


def pixels(seed: int = 0, dtype: str = "uint16", bands: int = 2) -> np.ndarray:
    """Distinct values, (band, row, column)."""
    values = np.random.default_rng(seed).integers(1, 200, size=(bands, SIDE, SIDE))
    return values.astype(dtype)


def write(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """A raster of 10 m pixels in EPSG:32636."""
    settings = {
        "driver": "GTiff", "height": values.shape[1], "width": values.shape[2], "count": values.shape[0],
        "dtype": str(values.dtype), "crs": "EPSG:32636", "transform": TRANSFORM, **profile,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **settings) as sink:
        sink.write(values)
    return path


def points(n: int = 14) -> Any:
    """Places within the raster, some near its edge."""
    rng = np.random.default_rng(1)
    col, row = rng.uniform(2, SIDE - 2, n), rng.uniform(2, SIDE - 2, n)
    return geopandas.GeoSeries.from_xy(500000 + 10 * col, 100000 - 10 * row, crs="EPSG:32636")


def expected_chips(values: np.ndarray, px: int = 21) -> np.ndarray:
    """Chips cut with NumPy."""
    where = points()
    col = np.floor((where.x.to_numpy() - 500000) / 10).astype(int)
    row = np.floor((100000 - where.y.to_numpy()) / 10).astype(int)
    half = px // 2
    padded = np.pad(values.astype(np.float32), ((0, 0), (half, half), (half, half)), constant_values=np.nan)
    return np.stack([padded[:, r : r + px, c : c + px] for r, c in zip(row, col, strict=True)])


def reads_right(path: Path, values: np.ndarray, **options: Any) -> bool:
    """Whether chips and the whole window are those of the array."""
    imagery = open_imagery(path, **options)
    chips = imagery.chips(points(), size_px=21, on_invalid="mask").values
    chips = chips[:, 0] if chips.ndim == 5 else chips
    whole = imagery.read_window(0, 0, SIDE, SIDE).reshape(-1, SIDE, SIDE)[: len(values)]
    return np.array_equal(chips, expected_chips(values), equal_nan=True) and np.array_equal(
        whole, values.astype(np.float32), equal_nan=True
    )


# ---------------------------------------------------------------------- damage
def truncated(folder: Path, each: int, seed: int = 0) -> Iterator[Case]:
    """Files cut short at random places."""
    rng = np.random.default_rng(seed)
    for kind, profile in KINDS.items():
        path = write(folder / f"cut_{kind}.tif", pixels(), **profile)
        content = path.read_bytes()
        for k in range(each):
            keep = int(rng.integers(0, len(content)))

            def run(path: Path = path, content: bytes = content, keep: int = keep) -> bool:
                path.write_bytes(content[:keep])
                return reads_right(path, pixels())

            yield Case(f"{kind} cut at {keep} ({k})", run, path.name)


def _tile_bytes(path: Path) -> np.ndarray:
    """Offsets of all bytes of compressed pixels."""
    with rasterio.open(path) as raster:
        spans = []
        for band in raster.indexes:
            for i, j in np.ndindex(*(-(-SIDE // side) for side in raster.block_shapes[0])):
                tag = raster.get_tag_item(f"BLOCK_OFFSET_{j}_{i}", "TIFF", bidx=band)
                size = raster.get_tag_item(f"BLOCK_SIZE_{j}_{i}", "TIFF", bidx=band)
                spans.append((int(tag), int(size)))
    return np.unique(np.concatenate([np.arange(start, start + size) for start, size in set(spans)]))


def _flip(path: Path, content: bytes, at: int, bit: int) -> None:
    damaged = bytearray(content)
    damaged[at] ^= 1 << bit
    path.write_bytes(damaged)


def flipped_pixels(folder: Path, each: int, seed: int = 1) -> Iterator[Case]:
    """One bit of the compressed pixels is another; deflate carries a checksum of each block."""
    rng = np.random.default_rng(seed)
    for kind in ("deflate", "COG"):
        path = write(folder / f"flip_{kind}.tif", pixels(), **KINDS[kind])
        content, inside = path.read_bytes(), _tile_bytes(path)
        for _ in range(each):
            at, bit = int(rng.choice(inside)), int(rng.integers(8))

            def run(path: Path = path, content: bytes = content, at: int = at, bit: int = bit) -> bool:
                _flip(path, content, at, bit)
                return reads_right(path, pixels())

            yield Case(f"{kind} byte {at} bit {bit}", run, path.name)


CATALOGUE = """
version: 1
datasets:
  scene: {{kind: imagery, licence: CC0, citation: none, imagery: {{scene: {{path: {name}, sha256: '{sha}'}}}}}}
"""


def flipped_anywhere(folder: Path, each: int, seed: int = 2, *, checksum: bool = True) -> Iterator[Case]:
    """One bit of the file is another, headers too; with and without the catalogue's checksum."""
    from hashlib import sha256

    from causalsat.catalog import load_imagery

    rng = np.random.default_rng(seed)
    for kind, profile in KINDS.items():
        path = write(folder / f"any_{kind}_{checksum}.tif", pixels(), **profile)
        content = path.read_bytes()
        listed = folder / f"{path.stem}.yaml"
        listed.write_text(CATALOGUE.format(name=path.name, sha=sha256(content).hexdigest()))
        for _ in range(each):
            at, bit = int(rng.integers(len(content))), int(rng.integers(8))

            def run(
                path: Path = path, content: bytes = content, at: int = at, bit: int = bit, listed: Path = listed
            ) -> bool:
                _flip(path, content, at, bit)
                return reads_right(load_imagery("scene", listed) if checksum else path, pixels())  # type: ignore[arg-type]

            yield Case(f"{kind} byte {at} bit {bit}", run, path.name)


def overviews(folder: Path) -> Iterator[Case]:
    """Overviews that are missing, cut short, garbage, or of another image: chips do not depend on them."""

    def make(name: str, harm: Callable[[Path], None]) -> Case:
        def run() -> bool:
            path = write(folder / name / "o.tif", pixels(), **KINDS["deflate"])
            with rasterio.Env(TIFF_USE_OVR="YES"), rasterio.open(path, "r+") as raster:
                raster.build_overviews([2, 4], Resampling.average)
            ovr = path.with_name("o.tif.ovr")
            assert ovr.exists()
            harm(ovr)
            return reads_right(path, pixels())

        return Case(name, run, "o.tif")

    def cut(ovr: Path) -> None:
        ovr.write_bytes(ovr.read_bytes()[: ovr.stat().st_size // 2])

    yield make("missing", lambda ovr: ovr.unlink())
    yield make("cut short", cut)
    yield make("garbage", lambda ovr: ovr.write_bytes(b"garbage" * 100) and None)
    yield make("empty", lambda ovr: ovr.write_bytes(b"") and None)
    yield make("of another image", lambda ovr: write(ovr.with_name("x.tif"), pixels(5)).replace(ovr) and None)


# ---------------------------------------------------------------------- what a file says
def wrong_crs(folder: Path) -> Iterator[Case]:
    """No CRS, another one given, one that is not the file's, longitude and latitude swapped."""
    none = write(folder / "none.tif", pixels(), crs=None)
    good = write(folder / "good.tif", pixels())
    other = write(folder / "other.tif", pixels(), crs="EPSG:32638")
    swapped = geopandas.GeoSeries.from_xy(points().to_crs(4326).y, points().to_crs(4326).x, crs=4326)
    local = write(folder / "local.tif", pixels(), crs=rasterio.crs.CRS.from_wkt('LOCAL_CS["x",UNIT["metre",1]]'))
    yield Case("none", lambda: reads_right(none, pixels()), "none.tif")
    yield Case("none, given right", lambda: reads_right(none, pixels(), crs="EPSG:32636"))
    yield Case("another given", lambda: reads_right(good, pixels(), crs="EPSG:4326"), "good.tif")
    yield Case("local", lambda: reads_right(local, pixels()), "local.tif")
    yield Case("the file's is wrong", lambda: _raises_by_default(other, points()), "other")
    yield Case("swapped coordinates", lambda: _raises_by_default(good, swapped))
    bare = geopandas.GeoSeries.from_xy(points().x, points().y)
    yield Case("points without a CRS", lambda: _raises_by_default(good, bare), "coordinate reference")
    degrees = geopandas.GeoSeries.from_xy(points().x, points().y, crs=4326)
    yield Case("metres taken for degrees", lambda: _raises_by_default(good, degrees))


def _raises_by_default(path: Path, where: Any) -> bool:
    open_imagery(path).chips(where, size_px=21)
    return False


VRT = """<VRTDataset rasterXSize="{n}" rasterYSize="{n}"><SRS>EPSG:32636</SRS>
<GeoTransform>500000, 10, 0, 100000, 0, -10</GeoTransform>{bands}</VRTDataset>"""
VRT_BAND = """<VRTRasterBand dataType="{kind}" band="{b}"><SimpleSource>
<SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"""


def mixed_types(folder: Path) -> Iterator[Case]:
    """Bands and dates of different data types."""
    for a, b in (("uint8", "uint16"), ("int16", "float32"), ("float32", "float64"), ("uint8", "float64")):
        values = [pixels(0, a, 1), pixels(1, b, 1)]
        gdal = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32", "float64": "Float64"}
        bands = ""
        for k, (kind, value) in enumerate(zip((a, b), values, strict=True), 1):
            write(folder / f"m_{a}_{b}_{k}.tif", value)
            bands += VRT_BAND.format(kind=gdal[kind], b=k, name=f"m_{a}_{b}_{k}.tif")
        path = folder / f"m_{a}_{b}.vrt"
        path.write_text(VRT.format(n=SIDE, bands=bands))
        whole = np.concatenate([v.astype(np.float32) for v in values])
        yield Case(f"bands {a} and {b}", lambda path=path, whole=whole: reads_right(path, whole), path.name)
        dated = folder / f"d_{a}_{b}"
        write(dated / "s_20140101.tif", values[0])
        write(dated / "s_20150101.tif", values[1])
        yield Case(f"dates {a} and {b}", lambda d=dated, v=values: reads_right(d, v[0]), "s_20150101.tif")


def nodata(folder: Path) -> Iterator[Case]:
    """NaN, infinite, fractional and impossible nodata values, and values that differ by band."""
    for dtype, value, holes in (
        ("float32", np.nan, [np.nan]), ("float32", -9999.0, [-9999.0]), ("float64", np.nan, [np.nan, np.inf]),
        ("float32", np.inf, [np.inf]), ("uint16", 0, [0]), ("int16", -32768, [-32768]), ("uint8", 255, [255]),
        ("float32", None, [np.nan, -np.inf]), ("float64", 1e300, [1e300]),
        ("float32", -3.4028234663852886e38, [np.float32(-3.4028234663852886e38)]),
    ):  # fmt: skip
        values = pixels(0, dtype)
        for k, hole in enumerate(holes):
            values[:, 20 + 30 * k : 40 + 30 * k, 10:90] = hole
        good = values.astype(np.float64)
        gone = ~np.isfinite(good) | (False if value is None else np.isclose(good, float(value), equal_nan=True))
        wanted = np.where(gone, np.nan, good).astype(np.float32)
        path = write(folder / f"n_{dtype}_{value}.tif".replace(" ", ""), values, nodata=value)
        yield Case(f"{dtype} {value}", lambda p=path, w=wanted: reads_right(p, w), path.name)
    path = write(folder / "beyond.tif", pixels(0, "uint8"))
    yield Case("-9999 for uint8", lambda: reads_right(path, pixels(0, "uint8"), nodata=-9999), path.name)
    yield Case("NaN for uint8", lambda: reads_right(path, pixels(0, "uint8"), nodata=float("nan")), path.name)


# ---------------------------------------------------------------------- files that go
def disappearing(folder: Path, blocks: tuple[int, ...] = (0, 1, 5, 11)) -> Iterator[Case]:
    """A file is deleted, replaced, emptied or cut after some blocks have been read from it."""
    other = write(folder / "other.tif", pixels(7), **KINDS["deflate"])

    def replace(path: Path) -> None:
        shutil.copyfile(other, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)

    def overwrite(path: Path) -> None:
        shutil.copyfile(other, path)

    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 3)

    harms = {"deleted": Path.unlink, "replaced": replace, "overwritten": overwrite, "cut": cut}
    for name, harm in harms.items():
        for after in blocks:
            for threads in (1, 2):

                def run(harm: Any = harm, after: int = after, threads: int = threads, name: str = name) -> bool:
                    path = write(folder / f"{name}_{after}_{threads}.tif", pixels(), **KINDS["deflate"])
                    imagery = open_imagery(path)
                    reads, load = itertools.count(), RasterImagery.load  # its next is one step for all threads

                    def loading(self: RasterImagery, *where: int) -> Any:
                        if next(reads) == after:
                            harm(path)
                        return load(self, *where)

                    with mock.patch.object(RasterImagery, "load", loading):
                        chips = imagery.chips(points(), size_px=21, on_invalid="mask", threads=threads)
                    return next(reads) <= after or np.array_equal(chips, expected_chips(pixels()), equal_nan=True)

                yield Case(f"{name} after {after} blocks, {threads} threads", run, f"{name}_{after}")


def scene_gone(folder: Path) -> Iterator[Case]:
    """A scene of a sequence goes between opening and reading."""

    def run() -> bool:
        for year in (2014, 2015, 2016):
            write(folder / "scenes" / f"s_{year}0101.tif", pixels(year))
        imagery = open_imagery(folder / "scenes")
        (folder / "scenes" / "s_20150101.tif").unlink()
        imagery.chips(points(), size_px=21, on_invalid="mask")
        return False

    yield Case("a scene deleted", run, "s_20150101.tif")
