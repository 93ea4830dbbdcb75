"""The benchmark of maps at the scale of a country, at a size that fits the tests."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def country() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("country", FOLDER / "country.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.mark.slow
def test_map_patches_and_network_side_by_side(
    country: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(country, "N_PLACES", 24)
    monkeypatch.setattr(country, "TURNS", 2)
    monkeypatch.setattr(country, "corner_of", partial(country.corner_of, side_px=128))
    monkeypatch.setattr(country, "_bare", partial(country._bare, side=256))
    monkeypatch.setattr(country, "_sliding", partial(country._sliding, cells=4))
    monkeypatch.setattr(country, "_patch_network", partial(country._patch_network, n=32))
    raster, model = country.files(tmp_path, 448, "float32")
    found = country.work_compare(str(raster), str(model), str(tmp_path / "map.tif"))
    assert found["km2"] == pytest.approx(4.48**2)
    assert 28 * 20 < found["cells"] <= 28 * 28  # a river of nodata
    assert found["tflop"] == pytest.approx(31e6 * 784 / 1e12, rel=0.2)  # 31 million operations a cell
    assert min(found[name] for name in ("bare", "patches", "patch_network", "map", "planned")) > 0
    map_row = {"cpu_s": 3.0, "km2": 20.0, "cells": 700.0, "peak_mb": 900.0}
    rows = {f"{task} {p}": row for p in country.PRECISIONS for task, row in (("compare", found), ("map", map_row))}
    workers = {"one_s": 2.0, "two_s": 1.0, "ratios": [1.9, 2.0, 2.2], "load_before": 0.0, "km2": 20.0}
    resume = {"kept": 2, "identical": True}
    text = country.to_markdown({"large": 448, "small": 448, **rows, "resume": resume, "workers": workers})
    assert "| CPU s/km2 | 0.15000 | 0.15000 |" in text
    assert "pixels identical" in text
    assert "2.00 (1.90, 2.00, 2.20) times the throughput" in text
