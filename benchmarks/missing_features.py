"""Missing modifiers and confounders: means with an indicator beside multiple imputation.

Three correlated features; the first moves the outcome and (in the trials) the effect, and is missing by the second,
for about a third of the units. In the skewed trial its distribution is lognormal, which no imputation here assumes;
in the observational study it decides who is treated, and the effect is 1 for all. Coverage of 90 % intervals of a
unit's own effect is shown for units that miss the feature and for the others; standard errors are over trials.

    python benchmarks/missing_features.py [--trials 30]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalsat import DoublyRobustEffect, MultipleImputationEffect
from causalsat.exceptions import CausalsatWarning

WORLDS = ("trial", "skewed", "observational")
FIRST_SEED = 5000


def world(kind: str, seed: int, n: int = 500) -> tuple[Any, ...]:
    """Features with missing values, outcome, treatment, effects and who misses the first feature."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)) @ np.array([[1.0, 0.0, 0.0], [0.5, 0.87, 0.0], [0.0, 0.3, 0.95]]).T
    if kind == "skewed":
        X[:, 0] = np.exp(0.6 * X[:, 0]) - 1.2
    chance = 1 / (1 + np.exp(-X[:, 0])) if kind == "observational" else np.full(n, 0.5)
    t = (rng.random(n) < chance).astype(float)
    tau = np.ones(n) if kind == "observational" else 1 + X[:, 0]
    y = X[:, 0] + X[:, 1] + t * tau + rng.standard_normal(n)
    missing = rng.random(n) < 1 / (1 + np.exp(1 - X[:, 1]))
    X[missing, 0] = np.nan
    return X, y, t, tau, missing


def estimators(kind: str) -> dict[str, Callable[[], Any]]:
    """What is compared, by name."""
    learner = {"propensity_model": "logistic"} if kind == "observational" else {}

    def robust() -> Any:
        return DoublyRobustEffect(random_state=0, **learner)

    return {
        "DoublyRobustEffect, means": robust,
        "DoublyRobustEffect, imputed": lambda: MultipleImputationEffect(robust()),
    }


def judged(est: Any, kind: str, seed: int) -> dict[str, float]:
    """One fit: coverage with and without the feature, error of the average, CPU seconds."""
    X, y, t, tau, missing = world(kind, seed)
    start = time.process_time()
    post = est.fit(X, y, treatment=t).effect(X)
    low, high = post.interval(0.9).T
    inside = (low <= tau) & (tau <= high)
    average = post.ate()
    bounds = average.interval(0.9)[0]
    return {
        "missing": inside[missing].mean(),
        "observed": inside[~missing].mean(),
        "average error": average.mean()[0] - tau.mean(),
        "average covered": float(bounds[0] <= tau.mean() <= bounds[1]),
        "CPU s": time.process_time() - start,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore", CausalsatWarning)
    rows = []
    for kind in WORLDS:
        for name, make in estimators(kind).items():
            found = pd.DataFrame([judged(make(), kind, FIRST_SEED + s) for s in range(args.trials)])
            mean, se = found.mean(), found.std(ddof=1) / np.sqrt(args.trials)
            cells = {c: f"{mean[c]:.3f} ({se[c]:.3f})" for c in found.columns if c != "CPU s"}
            rows.append({"world": kind, "estimator": name, **cells, "CPU s": f"{mean['CPU s']:.1f}"})
    table = pd.DataFrame(rows)
    print("| " + " | ".join(table.columns) + " |")
    print("|" + "---|" * len(table.columns))
    for row in table.itertuples(index=False):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
