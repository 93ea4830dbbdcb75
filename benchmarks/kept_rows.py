"""Rows of a long benchmark, kept on disk so that a run which was stopped goes on where it was.

A benchmark's rows are lines of JSON in one file; delete the file to measure changed code. They lie in the folder that
the environment variable CAUSALSAT_BENCHMARK_ROWS names, else in one for temporary files.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def folder() -> Path:
    """Where rows are kept."""
    default = Path(tempfile.gettempdir()) / "causalsat-benchmarks"
    return Path(os.environ.get("CAUSALSAT_BENCHMARK_ROWS", default))


def kept(benchmark: str) -> dict[str, Row]:
    """All rows of a benchmark by key; a line cut short by a kill is passed over."""
    path = folder() / f"{benchmark}.jsonl"
    if not path.exists():
        return {}
    stat = path.stat()
    return dict(_read(path, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> dict[str, Row]:
    """Rows of a file as it was at that time: it is read again only after it has changed."""
    rows = {}
    for line in path.read_text().splitlines():
        if line.endswith("}}"):
            found = json.loads(line)
            rows[found["key"]] = dict(found["row"])
    return rows


def keep(benchmark: str, key: str, row: Row) -> None:
    """Add a row; NumPy scalars become floats."""
    path = folder() / f"{benchmark}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or not path.stat().st_size or path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("" if whole else "\n") + json.dumps({"key": key, "row": row}, default=float) + "\n")


def kept_row(benchmark: str, key: str, make: Callable[[], Row]) -> Row:
    """The row of that key, made and kept now if it is not there."""
    rows = kept(benchmark)
    if key not in rows:
        row = make()
        keep(benchmark, key, row)
        rows = kept(benchmark)
    return rows[key]
