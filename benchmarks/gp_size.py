"""GaussianProcessEffect over sizes: time, memory, error and coverage; exact against inducing rows; a large map.

Every case runs in its own process, for its peak memory (of the whole process, imports included). Errors are RMSE of
unit effects at 500 new places over the standard deviation of the true effects.

    python benchmarks/gp_size.py [--sizes 500 2000 5000 20000] [--trials 100] [--places 100000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from causalsat import GaussianProcessEffect

LEVELS = (0.5, 0.9, 0.95)


def trial(n: int, seed: int, n_villages: int = 0, new: int = 500) -> dict[str, Any]:
    """Five features, curved prognosis and effect, arms of unequal noise, villages of equal size if any."""
    rng = np.random.default_rng(seed)
    X, t = rng.standard_normal((n + new, 5)), rng.permutation(n) % 2
    tau = 1 + np.sin(1.5 * X[:, 0]) + 0.5 * X[:, 1]
    prognosis = np.cos(X[:, 2]) + X[:, 3] * X[:, 0] / 2
    y = prognosis[:n] + t * tau[:n] + np.where(t, 1.0, 0.7) * rng.standard_normal(n)
    groups = None
    if n_villages:
        groups = np.arange(n) % n_villages
        y = y + 0.5 * rng.standard_normal(n_villages)[groups]
    return {"X": X[:n], "y": y, "t": t, "groups": groups, "new": X[n:], "tau": tau[n:]}


def fit(data: dict[str, Any], **settings: Any) -> GaussianProcessEffect:
    """The estimator on a trial."""
    model = GaussianProcessEffect(random_state=0, **settings)
    return model.fit(data["X"], data["y"], treatment=data["t"], groups=data["groups"])


def size_case(n: int, settings: dict[str, Any]) -> dict[str, Any]:
    """One fit: CPU seconds, error, coverage, and the effects, for comparison with another fit."""
    data = trial(n, seed=0, n_villages=n // 20)
    start = time.process_time()
    model = fit(data, **settings)
    cpu = time.process_time() - start
    posterior = model.effect(data["new"])
    lower, upper = posterior.interval(0.9).T
    error, tau = posterior.mean() - data["tau"], data["tau"]
    return {
        "cpu": cpu,
        "rmse": float(np.sqrt(np.mean(error**2)) / tau.std()),
        "cover": float(np.mean((lower < tau) & (tau < upper))),
        "mean": posterior.mean().tolist(),
        "sd": posterior.sd().tolist(),
        "ate sd": float(posterior.ate().sd()[0]),
    }


def map_case(places: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Effects of many places from a fit of 500 units: CPU seconds, and memory beyond that of the draws."""
    model = fit(trial(500, seed=0), **settings)
    X = np.random.default_rng(1).standard_normal((places, 5))
    start = time.process_time()
    draws = model.effect(X).draws
    return {"cpu": time.process_time() - start, "draws": draws.nbytes / 2**20}


def duplicates_case(n: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Units that share the features of their village: 327 places, 30 features; ``jitter`` parts them."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 327, n)
    X = rng.standard_normal((327, 30))[place]
    if settings.pop("jitter", False):
        X = X + 1e-6 * rng.standard_normal(X.shape)
    t = rng.integers(0, 2, n)
    y = X[:, 0] + t * (1 + 0.5 * X[:, 1]) + 0.3 * rng.standard_normal(327)[place] + rng.standard_normal(n)
    start = time.process_time()
    model = GaussianProcessEffect(random_state=0, **settings).fit(X, y, treatment=t, groups=place)
    return {"cpu": time.process_time() - start, "distinct": model.n_distinct_}


CASES = {"size": size_case, "map": map_case, "duplicates": duplicates_case}


def run(kind: str, n: int, **settings: Any) -> dict[str, Any]:
    """A case in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps([kind, n, settings])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout))


def show(name: str, found: dict[str, Any]) -> None:
    """A row of the table of sizes."""
    print(
        f"| {name} | {found['cpu']:.1f} | {found['mb']:.0f} | {found['rmse']:.3f} | {found['cover']:.2f} |",
        flush=True,
    )


def sizes(numbers: list[int]) -> None:
    """Time, memory, error and coverage, and the approximation beside the exact fit."""
    print("| units (villages of 20) | CPU s | peak MB | RMSE / sd of effects | cover 90 % |\n|---|---|---|---|---|")
    for n in numbers:
        show(f"{n:,}, default", run("size", n))
    both = [run("size", 2000, n_max_exact=most) for most in (2000, 1000)]
    show("2,000, exact", both[0])
    show("2,000, 800 inducing rows", both[1])
    mean, sd = (np.array([found[key] for found in both]) for key in ("mean", "sd"))
    gap = np.sqrt(np.mean((mean[1] - mean[0]) ** 2)) / np.sqrt(np.mean(sd[0] ** 2))
    print(
        f"\nInducing rows against exact, 2,000 units: effects differ by {gap:.2f} posterior sd (root mean square); "
        f"sd {np.mean(sd[1] / sd[0]):.2f} times the exact one on average, that of the ATE "
        f"{both[1]['ate sd'] / both[0]['ate sd']:.2f} times.\n"
    )


def duplicates() -> None:
    """Units on few places, merged and not."""
    merged, apart = run("duplicates", 2082), run("duplicates", 2082, jitter=True, n_max_exact=3000, n_max_hyper=3000)
    print(
        f"2,082 units on 327 places, 30 features: {merged['cpu']:.1f} CPU s as {merged['distinct']} distinct rows, "
        f"{apart['cpu']:.1f} CPU s where no two units are alike, all rows used for everything.\n"
    )


def coverage(trials: int, n: int = 80) -> None:
    """Coverage of unit and average effects over simulated trials with and without villages."""
    settings = {"n_draws": 200, "n_hyper": 10, "max_iter": 25}
    print(f"Coverage over {trials} trials of {n} units each (s.e. over trials in brackets for units).\n")
    head = [f"{kind} {level:.0%}" for kind in ("units", "average") for level in LEVELS]
    print("| trial | " + " | ".join(head) + " | CPU s a fit |\n|" + "---|" * (2 + len(head)))
    for name, villages in (("independent units", 0), ("10 villages", 10)):
        units, averages, start = [], [], time.process_time()
        for seed in range(1000, 1000 + trials):
            data = trial(n, seed, villages, new=100)
            posterior = fit(data, **settings).effect(data["new"])
            tau, ate = data["tau"], posterior.ate()
            bands = [posterior.interval(level).T for level in LEVELS]
            units.append([np.mean((low < tau) & (tau < high)) for low, high in bands])
            ends = [ate.interval(level)[0] for level in LEVELS]
            averages.append([low < tau.mean() < high for low, high in ends])
        cpu = (time.process_time() - start) / trials
        cells = [f"{m:.3f} ({s:.3f})" for m, s in zip(np.mean(units, 0), np.std(units, 0) / trials**0.5, strict=True)]
        cells += [f"{m:.2f}" for m in np.mean(averages, 0)]
        print(f"| {name} | " + " | ".join(cells) + f" | {cpu:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="*", type=int, default=[500, 2000, 5000, 20000])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--places", type=int, default=100_000)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        kind, n, settings = json.loads(args.case)
        found = CASES[kind](n, settings)
        found["mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps(found))
        return
    sizes(args.sizes)
    duplicates()
    one = run("map", args.places, n_draws=100)
    few = run("map", 1000, n_draws=100)
    print(
        f"Effects of {args.places:,} places from 500 units, 100 draws: {one['cpu']:.1f} CPU s; "
        f"peak {one['mb']:.0f} MB, of which {one['draws']:.0f} MB are the draws (1,000 places: {few['mb']:.0f} MB).\n"
    )
    coverage(args.trials)


if __name__ == "__main__":
    main()
