"""Coverage of the intervals of the forest, the doubly robust estimator, the meta-learners and the stack.

Simulated trials with known effects: ``linear`` (40 villages of 6 units, outcome and effect linear in four features),
``bends`` (60 villages of 8 units, eight features, an effect that no linear learner can follow) and, on demand,
``confounded`` (500 units whose treatment depends on their features). Errors are at new places, in standard
deviations of their effects (nPEHE); coverage of 50, 90 and 95 % intervals for those places' effects and for the
average over the trial's units, with standard errors over the trials in brackets; default settings.

    python benchmarks/meta_and_forest.py [--trials 10] [--only TLearnerEffect ...] [--worlds linear bends confounded]

Finished rows are kept (see benchmarks/kept_rows.py): delete them to measure changed code.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from kept_rows import kept_row

from causalsat import (
    BayesianForestEffect,
    DoublyRobustEffect,
    DRLearnerEffect,
    RLearnerEffect,
    StackedEffect,
    TLearnerEffect,
    XLearnerEffect,
)

Trial = dict[str, Any]
Method = Callable[[Trial, int], tuple[np.ndarray, np.ndarray]]
LEVELS = (0.5, 0.9, 0.95)


def linear(rng: np.random.Generator) -> Trial:
    """A small cluster-randomised trial in which outcome and effect are linear."""
    villages, size, new = 40, 6, 100
    group = np.concatenate([np.repeat(np.arange(villages), size), villages + np.arange(new)])
    X = np.column_stack([rng.standard_normal((villages + new, 2))[group], rng.standard_normal((len(group), 2))])
    tau = 1 + 0.5 * X[:, 0] + 0.5 * X[:, 2]
    n = villages * size
    t = (rng.permutation(villages) % 2)[group[:n]].astype(float)
    noise = 0.5 * rng.standard_normal(villages)[group[:n]] + rng.standard_normal(n)
    y = 0.7 * X[:n, 1] + 0.5 * X[:n, 3] + t * tau[:n] + noise
    return {"X": X[:n], "y": y, "t": t, "groups": group[:n], "tau": tau[:n], "new": X[n:], "tau_new": tau[n:]}


def cluster(rng: np.random.Generator) -> Trial:
    """A cluster-randomised trial whose effect bends in one village feature and shifts with a unit's."""
    villages, size, new = 60, 8, 200
    group = np.concatenate([np.repeat(np.arange(villages), size), villages + np.arange(new)])
    place, unit = rng.standard_normal((villages + new, 4)), rng.standard_normal((len(group), 4))
    unit[:, 3] = unit[:, 3] > 0
    X = np.column_stack([place[group], unit])
    tau = 1 + 0.8 * np.tanh(X[:, 0]) + 0.4 * np.maximum(X[:, 1], 0) + 0.4 * X[:, 7]
    n = villages * size
    t = (rng.permutation(villages) % 2)[group[:n]].astype(float)
    base = 0.7 * X[:n, 0] + 0.5 * X[:n, 4] + 0.5 * X[:n, 5] ** 2
    y = base + t * tau[:n] + 0.5 * rng.standard_normal(villages)[group[:n]] + rng.standard_normal(n)
    return {"X": X[:n], "y": y, "t": t, "groups": group[:n], "tau": tau[:n], "new": X[n:], "tau_new": tau[n:]}


def confounded(rng: np.random.Generator) -> Trial:
    """An observational study: features decide treatment and outcome."""
    n = 500
    X = rng.standard_normal((n + 200, 10))
    X[:, 5:] = X[:, 5:] > 0.3
    chance = 1 / (1 + np.exp(-(0.8 * X[:, 0] - 0.6 * X[:, 5] + 0.5 * X[:, 1] - 0.3)))
    t = (rng.uniform(size=n + 200) < chance).astype(float)
    tau = 1 + 0.7 * X[:, 2] + X[:, 6] + 0.5 * np.abs(X[:, 3])
    y = 2 * np.sin(X[:, 0]) + 0.5 * X[:, 1] ** 2 + X[:, 5] + X[:, 2] + t * tau + rng.standard_normal(n + 200)
    return {"X": X[:n], "y": y[:n], "t": t[:n], "groups": None, "tau": tau[:n], "new": X[n:], "tau_new": tau[n:]}


def ours(make: Callable[[int, Any], Any]) -> Method:
    """Draws (draw, unit) at the new places and at the trial's own units."""

    def fit(trial: Trial, seed: int) -> tuple[np.ndarray, np.ndarray]:
        estimator = make(seed, None if trial["groups"] is not None else "logistic")
        estimator.fit(trial["X"], trial["y"], treatment=trial["t"], groups=trial["groups"])
        return estimator.effect(trial["new"]).draws, estimator.effect(trial["X"]).draws

    return fit


METHODS: dict[str, Method] = {
    "DoublyRobustEffect": ours(lambda seed, e: DoublyRobustEffect(propensity_model=e, random_state=seed)),
    "RLearnerEffect": ours(lambda seed, e: RLearnerEffect(propensity_model=e, random_state=seed)),
    "DRLearnerEffect": ours(lambda seed, e: DRLearnerEffect(propensity_model=e, random_state=seed)),
    "TLearnerEffect": ours(lambda seed, _: TLearnerEffect(random_state=seed)),
    "XLearnerEffect": ours(lambda seed, e: XLearnerEffect(propensity_model=e, random_state=seed)),
    "BayesianForestEffect": ours(lambda seed, e: BayesianForestEffect(propensity_model=e, random_state=seed)),
    "StackedEffect": ours(lambda seed, e: StackedEffect(propensity_model=e, random_state=seed)),
}
WORLDS = {"linear": linear, "bends": cluster, "confounded": confounded}
# replications: many where a fit is cheap; the standard errors say what the others are worth
TRIALS = {
    "linear": dict(zip(METHODS, (200, 29, 24, 16, 12, 12, 6), strict=True)),
    "bends": dict(zip(METHODS, (40, 8, 8, 5, 4), strict=False)),
}


def inside(draws: np.ndarray, truth: np.ndarray, level: float) -> float:
    """Share of truths inside equal-tailed intervals."""
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return float(np.mean((lower <= truth) & (truth <= upper)))


def judge(world: str, method: str, seed: int) -> dict[str, float]:
    """Error, coverage and CPU seconds of one method on one trial."""
    trial = WORLDS[world](np.random.default_rng(seed))
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new, own = METHODS[method](trial, seed)
    cpu = time.process_time() - start
    average, ate = own.mean(axis=1, keepdims=True), np.array([trial["tau"].mean()])
    error = np.sqrt(np.mean((new.mean(axis=0) - trial["tau_new"]) ** 2))
    row = {"nPEHE": float(error / trial["tau_new"].std())}
    row |= {f"unit {level:.0%}": inside(new, trial["tau_new"], level) for level in LEVELS}
    row |= {f"ATE {level:.0%}": inside(average, ate, level) for level in LEVELS}
    return row | {"CPU s": cpu}


def line(world: str, method: str, rows: list[dict[str, float]]) -> str:
    """Means over the trials with their standard errors."""
    value = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    cells = [f"{value['nPEHE'].mean():.2f}"]
    for key in (f"{kind} {level:.0%}" for kind in ("unit", "ATE") for level in LEVELS):
        cells.append(f"{value[key].mean():.2f} ({value[key].std(ddof=1) / np.sqrt(len(rows)):.2f})")
    cells.append(f"{np.median(value['CPU s']):.1f}")
    return f"| {world} | {method} | {len(rows)} | {' | '.join(cells)} |"


def run(trials: int | None = None, methods: Sequence[str] = (), worlds: Sequence[str] = tuple(TRIALS)) -> list[str]:
    """Lines of the table, printed as they are made."""
    heads = [f"{kind} {level:.0%}" for kind in ("units", "ATE") for level in LEVELS]
    lines = [f"| trial | estimator | trials | nPEHE | {' | '.join(heads)} | CPU s |", "|---" * 11 + "|"]
    print("\n".join(lines), flush=True)
    for world in worlds:
        for method in methods or TRIALS.get(world, METHODS):
            n = trials or TRIALS.get(world, TRIALS["linear"])[method]
            rows = []
            for seed in range(n):
                row = kept_row("meta_and_forest", f"{world}/{method}/{seed}", partial(judge, world, method, seed))
                rows.append(row or {})
            lines.append(line(world, method, rows))
            print(lines[-1], flush=True)
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, help="the same number for all")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=[])
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(TRIALS))
    options = parser.parse_args(argv)
    run(options.trials, options.only, options.worlds)


if __name__ == "__main__":
    main()
