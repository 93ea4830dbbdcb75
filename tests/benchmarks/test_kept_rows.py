"""Rows of a benchmark outlive a kill: what was finished is not made again, what was cut short is."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def kept_rows(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("CAUSALSAT_BENCHMARK_ROWS", str(tmp_path))
    import kept_rows

    yield kept_rows
    sys.modules.pop("kept_rows")


def test_a_row_is_made_once_and_read_back_as_it_was(kept_rows):
    made = []

    def make():
        made.append(1)
        return {"error": np.float64(0.25), "warned": np.bool_(True), "list": [1, float("nan")], "name": "a"}

    first = kept_rows.kept_row("b", "k", make)
    again = kept_rows.kept_row("b", "k", make)
    assert len(made) == 1
    assert first["error"] == again["error"] == 0.25
    assert first["warned"] == 1.0
    assert again["name"] == "a"
    assert np.isnan(again["list"][1])
    assert list(kept_rows.kept("other")) == []


def test_a_line_cut_by_a_kill_is_made_again_and_harms_no_other(kept_rows):
    kept_rows.keep("b", "whole", {"x": 1})
    path = kept_rows.folder() / "b.jsonl"
    with path.open("a") as file:
        file.write('{"key": "cut", "row": {"x"')
    assert list(kept_rows.kept("b")) == ["whole"]
    assert kept_rows.kept_row("b", "cut", lambda: {"x": 2}) == {"x": 2}
    assert kept_rows.kept("b") == {"whole": {"x": 1}, "cut": {"x": 2}}
