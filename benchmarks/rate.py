"""RATE at n = 1,000,000 with 200 half-sample replicates: CPU seconds and peak memory.

python benchmarks/rate.py [n]
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from typing import Any

import numpy as np

from causalsat.evaluation import rate


def run(n: int = 1_000_000, n_bootstrap: int = 200, n_groups: int = 20_000) -> list[dict[str, Any]]:
    """Time each case: single units, clusters, clusters with tied priorities, survey weights; AUTOC = 0.1 in truth."""
    rng = np.random.default_rng(0)
    tau = rng.uniform(0, 0.4, n)
    scores = tau + rng.standard_normal(n)
    groups = rng.integers(0, n_groups, n)
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "units": (tau, {}),
        "clusters": (tau, {"groups": groups}),
        "clusters, tied priorities": (np.round(tau, 2), {"groups": groups}),
        "clusters, weights": (tau, {"groups": groups, "weights": rng.uniform(0.5, 2, n)}),
    }
    rows = []
    for name, (priority, options) in cases.items():
        start = time.process_time()
        result = rate(priority, scores, n_bootstrap=n_bootstrap, **options)
        seconds = time.process_time() - start
        tracemalloc.start()
        rate(priority, scores, n_bootstrap=2, **options)  # the replicates reuse the memory
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        row = {"case": name, "n": n, "replicates": n_bootstrap, "cpu_s": round(seconds, 2), "peak_mb": round(peak)}
        rows.append({**row, "autoc": round(result.estimate, 5), "se": round(result.se, 5)})
    return rows


def main() -> None:
    """Print the table."""
    rows = run(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    main()
