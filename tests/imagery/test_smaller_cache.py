"""A thread that goes through a raster keeps few of its blocks."""

from __future__ import annotations

import threading

from causalsat.imagery import handles


def bound() -> int:
    return int(handles.gdal_env().options["GDAL_CACHEMAX"])


def test_the_bound_holds_within_and_for_this_thread_alone() -> None:
    seen = []
    with handles.smaller_cache(1 << 20):
        assert bound() == 1 << 20
        with handles.smaller_cache(1 << 22):  # a larger one does not loosen it
            assert bound() == 1 << 20
        other = threading.Thread(target=lambda: seen.append(bound()))
        other.start()
        other.join()
    assert seen == [handles.CACHE_BYTES]
    assert bound() == handles.CACHE_BYTES
