"""A slice of the fault campaign of benchmarks/faults.py: every case right, or a clear error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc: Linux only"),
]


def campaign(*options):
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "faults.py"), "--no-memory", *options]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE}, check=False)


def test_no_fault_ends_in_a_wrong_result_an_unclear_error_or_a_crash():
    done = campaign("--size", "0.1", "--without", "network", "estimator's fit")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 27
    assert all(int(cases) >= 1 and ends == [0, 0, 0] for _, cases, _, _, *ends in _whole(rows))
    *_, total = _whole(rows)
    assert total[1] > 120


def _whole(rows):
    return [[row[0].strip(), *(int(cell) for cell in row[1:])] for row in rows]


def test_the_campaign_sees_wrong_results_unclear_errors_crashes_and_hangs(monkeypatch):
    """The guard itself: four bad cases are counted as what they are."""
    script = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from fault_runner import Case, tally
from causalsat.exceptions import DataError
def bare(): raise ValueError("x")
def named(): raise DataError("file.tif is bad", todo="mend it")
def other(): raise DataError("something is bad")
cases = [Case("wrong", lambda: False), Case("bare", bare), Case("crash", os.abort), Case("ok", named, "file.tif"),
         Case("hang", lambda: time.sleep(60), seconds=0.5), Case("no name", other, "file.tif"),
         Case("good", lambda: True)]
for case in cases: case.warm = False
found = tally("all", cases)
print(found.counts, found.good)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(BENCHMARKS)], capture_output=True, text=True, env={**os.environ, **ONE},
        check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "{'right': 1, 'error': 1, 'wrong': 1, 'unclear': 2, 'crash': 2} False", done.stderr
