"""Items made ahead are the same, in the same order, never more than asked for; errors come in their turn."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

import numpy as np
import pytest

from causalsat.core.ahead import ahead

MODE: ContextVar[str] = ContextVar("mode", default="plain")


def threads() -> int:
    return sum(thread.name == "ahead" for thread in threading.enumerate())


def test_order_context_and_bound():
    made: list[int] = []

    def items():
        for k in range(8):
            made.append(k)
            yield k, MODE.get(), threading.current_thread().name

    MODE.set("changed")
    for k, (item, mode, name) in enumerate(ahead(items(), depth=2)):
        assert (item, mode, name) == (k, "changed", "ahead")
        time.sleep(0.02)
        assert len(made) <= k + 4  # this one, two that wait and one that is being made
    assert threads() == 0


def test_errors_come_after_what_was_made_before_them():
    def items():
        yield from range(3)
        raise ValueError("the fourth")

    seen: list[int] = []
    with pytest.raises(ValueError, match="the fourth"):
        seen.extend(ahead(items()))
    assert seen == [0, 1, 2]
    assert threads() == 0


def test_stopping_early_ends_the_thread_and_closes_the_iterator():
    closed = []

    def items():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    for item in ahead(items()):
        if item == 3:
            break
    assert threads() == 0
    assert closed == [True]


def test_reading_and_computing_overlap():
    def items():
        for k in range(6):
            time.sleep(0.05)
            yield k

    start = time.perf_counter()
    for _ in ahead(items()):
        time.sleep(0.05)
    assert time.perf_counter() - start < 0.05 * 7 * 1.4  # one after the other takes 0.6 s


def test_chips_read_ahead_are_the_same(tmp_path):
    import geopandas as gpd
    import rasterio

    import causalsat

    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "count": 2, "height": 300, "width": 280, "dtype": "float32", "crs": "EPSG:32636"}
    profile |= {"transform": rasterio.transform.from_origin(3e5, 4e5, 10, 10), "tiled": True}
    profile |= {"blockxsize": 64, "blockysize": 64}
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
        file.write(rng.normal(size=(2, 300, 280)).astype("f4"))
    imagery = causalsat.open_imagery(tmp_path / "scene.tif")
    places = gpd.GeoSeries.from_xy(rng.uniform(300000, 302800, 90), rng.uniform(397000, 400000, 90), crs="EPSG:32636")
    plain, early = (list(read(places, 16, batch_size=20)) for read in (imagery.iter_chips, imagery.iter_chips_ahead))
    assert len(plain) == len(early) == 5
    for (a, chips), (b, others) in zip(plain, early, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(chips, others)
