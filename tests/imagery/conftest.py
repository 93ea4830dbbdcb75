"""Rasters written by the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 100000)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write an array (band, rows, columns) as a GeoTIFF in EPSG:32636 with 10 m pixels; returns its path."""

    def _write(name: str, data: np.ndarray, *, names: Any = None, mask: Any = None, **profile: Any):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {
            "driver": "GTiff", "height": data.shape[1], "width": data.shape[2], "count": data.shape[0],
            "dtype": str(data.dtype), "crs": "EPSG:32636", "transform": TRANSFORM, "tiled": True, "blockxsize": 32,
            "blockysize": 16, "compress": "deflate", **profile,
        }  # fmt: skip
        settings = {key: value for key, value in settings.items() if value is not None}
        with rasterio.open(path, "w", **settings) as sink:
            sink.write(data)
            if names:
                sink.descriptions = tuple(names)
            if mask is not None:
                sink.write_mask(mask)
        return path

    return _write


@pytest.fixture
def image() -> np.ndarray:
    """Three bands of 90 x 110 distinct uint16 values."""
    return np.random.default_rng(0).integers(1, 60000, size=(3, 90, 110), dtype=np.uint16)
