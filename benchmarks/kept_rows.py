"""Rows of a long benchmark, kept on disk so that a run which was stopped goes on where it was."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

Row = dict[str, float]


def folder() -> Path:
    """Where rows are kept: the environment variable CAUSALSAT_BENCHMARK_ROWS, else a folder for temporary files."""
    default = Path(tempfile.gettempdir()) / "causalsat-benchmarks"
    return Path(os.environ.get("CAUSALSAT_BENCHMARK_ROWS", default))


def kept_row(benchmark: str, key: str, make: Callable[[], Row], *, only_kept: bool = False) -> Row | None:
    """The row of that key, made now if it is not there (None with ``only_kept``). Delete the file to begin anew."""
    path = folder() / f"{benchmark}.jsonl"
    if path.exists():
        for line in path.read_text().splitlines():
            found = json.loads(line)
            if found["key"] == key:
                return dict(found["row"])
    if only_kept:
        return None
    row = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"key": key, "row": {name: float(value) for name, value in row.items()}}) + "\n")
    return row
