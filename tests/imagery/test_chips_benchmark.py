"""The benchmark of chips runs at a small size, reads the same pixels both ways, and the order of magnitude holds."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_benchmark_at_a_small_size(tmp_path):
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "chips.py"
    spec = importlib.util.spec_from_file_location("chips_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.run(768, 100, threads=False, folder=str(tmp_path))
    times = {key: entry["cpu_s"] for key, entry in result["times"].items()}
    assert result["equal"]
    assert times["open_per_point"] > 5 * times["causalsat"]
    assert "(b) causalsat.chips" in module.table(result)
