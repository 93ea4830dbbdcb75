"""Worlds in which the effect is linear, curved, a step, sparse or an interaction: who covers it at new places.

    python benchmarks/place_intervals.py                # some 20 minutes on two cores
    python benchmarks/place_intervals.py --trials 2     # a look

Trials of 60 villages of five people, who were assigned one by one; outcomes have a village effect (sd 0.5) and noise
(sd 1), effects a standard deviation of about 1. Judged are 90 % intervals of ``effect`` (the mean effect of places
that look alike) at 200 places that no trial saw. Nothing was chosen on these trials.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kept_rows import kept_row

FloatArray = NDArray[np.float64]

N_VILLAGES, SIZE, N_PLACES = 60, 5, 200
FIRST_SEED = 5_000

#: Effect less its average by world, and the number of features.
WORLDS: dict[str, tuple[Callable[[FloatArray], FloatArray], int]] = {
    "linear": (lambda X: X[:, 0], 5),
    "curved": (lambda X: 1.4 * np.sin(2 * X[:, 0]), 5),
    "step": (lambda X: np.sign(X[:, 0]), 5),
    "interaction": (lambda X: X[:, 0] * X[:, 1], 5),
    "linear in 1 of 30": (lambda X: X[:, 0], 30),
}
LABELS = {
    "bayesian_linear": "BayesianLinearEffect",
    "doubly_robust": "DoublyRobustEffect",
    "gaussian_process": "GaussianProcessEffect",
    "stack": "StackedEffect, the default",
}


def trial(world: str, seed: int) -> tuple[dict[str, Any], FloatArray, FloatArray]:
    """Arguments of fit, features of new places, and their effects."""
    effect, p = WORLDS[world]
    rng = np.random.default_rng([FIRST_SEED + seed, list(WORLDS).index(world)])
    village = np.repeat(np.arange(N_VILLAGES), SIZE)
    X, places = rng.standard_normal((N_VILLAGES, p))[village], rng.standard_normal((N_PLACES, p))
    t = rng.permutation(len(village)) % 2
    level = X[:, 1] + 0.5 * rng.standard_normal(N_VILLAGES)[village]
    y = level + t * (1 + effect(X)) + rng.standard_normal(len(village))
    return {"X": X, "y": y, "treatment": t, "groups": village}, places, 1 + effect(places)


def judge(world: str, seed: int) -> dict[str, Any]:
    """Error, coverage and width of the stack and of its members, which are fitted to the same trial."""
    from causalsat import StackedEffect
    from causalsat.exceptions import CausalsatWarning

    fit, places, truth = trial(world, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        start = time.process_time()
        stack = StackedEffect(random_state=seed).fit(**fit)
        seconds = time.process_time() - start
        row: dict[str, Any] = {
            "cpu": seconds,
            "weights": dict(zip(stack.members_, stack.weights_.tolist(), strict=True)),
        }
        for name, model in {**stack.members_, "stack": stack}.items():
            posterior = model.effect(places)
            low, high = np.quantile(posterior.draws, [0.05, 0.95], axis=0)
            row[name] = {
                "rmse": float(np.sqrt(np.mean((posterior.mean() - truth) ** 2))),
                "covered": float(np.mean((low < truth) & (truth < high))),
                "width": float(np.mean(high - low)),
            }
    return row


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """A row for each world and estimator: means over trials, with the standard error of the coverage."""
    lines = [
        "| world | estimator | weight | RMSE | 90 % intervals cover (s.e.) | width |",
        "|---|---|---|---|---|---|",
    ]
    for world, trials in rows.items():
        for name, label in LABELS.items():
            cells = defaultdict(list)
            for row in trials:
                for key, value in row[name].items():
                    cells[key].append(value)
            weights = [row["weights"][name] for row in trials if name in row["weights"]]
            covered = np.array(cells["covered"])
            error = covered.std(ddof=1) / np.sqrt(len(covered)) if len(covered) > 1 else np.nan
            weight = f"{np.mean(weights):.2f}" if weights else ""
            lines.append(
                f"| {world} | {label} | {weight} | {np.mean(cells['rmse']):.3f} | {covered.mean():.2f} ({error:.2f}) "
                f"| {np.mean(cells['width']):.2f} |"
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="trials of each world")
    args = parser.parse_args(argv)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for seed in range(args.trials):
        for world in WORLDS:
            rows[world].append(kept_row("place_intervals", f"{world} {seed}", lambda w=world, s=seed: judge(w, s)))
    print(table(rows))
    seconds = [row["cpu"] for world in rows.values() for row in world]
    print(f"\nA fit of the stack: {np.median(seconds):.1f} CPU s (median; {max(seconds):.1f} at most).")


if __name__ == "__main__":
    main()
