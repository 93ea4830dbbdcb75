"""Chips equal what NumPy cuts, for any data type, block size, nodata value, band, window and place."""

from __future__ import annotations

import geopandas
import numpy as np
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from causalsat.imagery import open_imagery

WEST, NORTH, PIXEL = 500000.0, 100000.0, 10.0


@st.composite
def rasters(draw):
    """Values (band, row, column), how they are stored, and a nodata value."""
    dtype = draw(st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64"]))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)))
    values = np.random.default_rng(draw(st.integers(0, 2**20))).integers(0, 120, shape).astype(dtype)
    nodata = draw(st.sampled_from([None, 0, 7, 119] if dtype[0] != "f" else [None, 0, 7, np.nan]))
    if nodata is not None:
        values[:, :: draw(st.integers(1, 5)), :: draw(st.integers(1, 9))] = nodata
    profile = {"nodata": nodata, "compress": draw(st.sampled_from([None, "deflate", "lzw"]))}
    if draw(st.booleans()):
        side = st.sampled_from([16, 32, 64])
        profile |= {"tiled": True, "blockxsize": draw(side), "blockysize": draw(side)}
    return values, profile


def cut(values, nodata, row, col, height, width):
    """A window that may lie over the border, NaN where nodata or outside."""
    pixels = values.astype(np.float32)
    if nodata is not None and not np.isnan(nodata):
        pixels[values == nodata] = np.nan
    out = np.full((len(values), height, width), np.nan, dtype=np.float32)
    r0, c0 = max(row, 0), max(col, 0)
    r1, c1 = min(row + height, values.shape[1]), min(col + width, values.shape[2])
    if r1 > r0 and c1 > c0:
        out[:, r0 - row : r1 - row, c0 - col : c1 - col] = pixels[:, r0:r1, c0:c1]
    return out


@given(rasters(), st.data())
def test_chips_and_windows_are_what_numpy_cuts(tmp_path_factory, raster, data):
    values, profile = raster
    path = tmp_path_factory.mktemp("r") / "r.tif"
    bands, rows, cols = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=rows, width=cols, dtype=str(values.dtype), crs="EPSG:32636",
        transform=rasterio.Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH),
        **{key: value for key, value in profile.items() if value is not None},
    ) as sink:  # fmt: skip
        sink.write(values)
    chosen = data.draw(st.lists(st.integers(1, bands), min_size=1, max_size=bands, unique=True))
    imagery, part = open_imagery(path, bands=chosen), values[[b - 1 for b in chosen]]
    place = st.tuples(st.integers(-20, rows + 20), st.integers(-20, cols + 20))
    row, col = data.draw(place)
    height, width = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    window = imagery.read_window(row, col, height, width)
    np.testing.assert_array_equal(window, cut(part, profile["nodata"], row, col, height, width))
    spots = data.draw(st.lists(place, min_size=1, max_size=6))
    px, threads, lazy = data.draw(st.integers(1, 25)), data.draw(st.sampled_from([1, 2])), data.draw(st.booleans())
    where = geopandas.GeoSeries.from_xy(
        [WEST + PIXEL * (c + 0.4) for _, c in spots], [NORTH - PIXEL * (r + 0.4) for r, _ in spots], crs=32636
    )
    options = {"on_invalid": "mask", "min_valid": 0.0, "threads": threads, "lazy": lazy, "progress": False}
    chips = imagery.chips(where, size_px=px, **options)
    expected = [cut(part, profile["nodata"], r - px // 2, c - px // 2, px, px) for r, c in spots]
    np.testing.assert_array_equal(chips.values, expected)
    np.testing.assert_allclose(chips["valid_fraction"], [np.isfinite(e).mean() for e in expected], atol=1e-12)
