"""The benchmark of the dense form, at a size that fits the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "dense_features.py"
    spec = importlib.util.spec_from_file_location("dense_features", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dense_is_equal_and_faster(benchmark: ModuleType) -> None:
    (row,) = benchmark.run(side=224, chip=64, strides=[16], n_features=128)
    assert row["chips"] == 121
    assert row["max_difference_sd"] < 1e-5
    # CPU seconds of one process side by side; 5 or more at full size, where borders weigh less
    assert row["ratio"] > 2
    assert benchmark.to_markdown([row]).count("\n") == 2
