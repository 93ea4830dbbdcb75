"""BayesianLinearEffect with 100,000 units x 50 latents: cost, effective sample size, accuracy, coverage.

Usage: ``OMP_NUM_THREADS=1 python benchmarks/large_linear.py [--units 100000] [--latents 50] [--more]``. Prints
Markdown; ``--more`` adds rows. Each row is a process of its own, so that its peak memory is that of the fit. All
latents have main effects; the effect is 0.5 plus ten of the latents, with standard deviation 0.3 in the outcome's
(or the logit's) units; 4 chains of 300 tuning draws and 400 kept.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np

CASES = (
    ("gaussian", 0, "units", "normal"),
    ("gaussian", 0, "units", "horseshoe"),
    ("gaussian", 2000, "villages", "normal"),
    ("bernoulli", 0, "units", "normal"),
)
MORE = (
    ("gaussian", 2000, "units", "normal"),
    ("bernoulli", 0, "units", "horseshoe"),
    ("bernoulli", 2000, "villages", "normal"),
)


def simulate(family: str, n: int, p: int, n_villages: int, treated: str) -> dict[str, np.ndarray]:
    """A trial of n units; latents are of the unit, and half of the villages or half of the units are treated."""
    rng = np.random.default_rng(7)
    X = rng.standard_normal((n, p))
    gamma = 0.5 * rng.standard_normal(p) / np.sqrt(p)
    beta = np.zeros(p)
    beta[:10] = 0.3 * rng.standard_normal(10) / np.sqrt(10)
    groups = rng.integers(0, max(n_villages, 1), n)
    by_village = treated == "villages" and n_villages
    t = (rng.permutation(np.arange(n_villages) % 2)[groups] if by_village else rng.integers(0, 2, n)).astype(float)
    village = 0.3 * rng.standard_normal(max(n_villages, 1))[groups] if n_villages else np.zeros(n)
    eta = X @ gamma + t * (0.5 + X @ beta) + village
    y = (
        eta + (1.0 + 0.2 * t) * rng.standard_normal(n)
        if family == "gaussian"
        else rng.random(n) < 1 / (1 + np.exp(-eta))
    )
    return {"X": X, "y": y.astype(float), "t": t, "groups": groups, "gamma": gamma, "beta": beta}


def truth(family: str, data: dict[str, np.ndarray], new: np.ndarray, n_villages: int) -> np.ndarray:
    """Effect at new places: on the outcome's scale, averaged over villages."""
    slope = 0.5 + new @ data["beta"]
    if family == "gaussian":
        return slope
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    base, spread = new @ data["gamma"], 0.3 if n_villages else 0.0
    risk = [
        1 / (1 + np.exp(-(base + move)[:, None] - spread * nodes)) @ (weights / weights.sum()) for move in (slope, 0)
    ]
    return risk[0] - risk[1]


def one(family: str, n_villages: int, treated: str, prior: str, n: int, p: int) -> dict[str, float]:
    """Fit once and say what it took and how good it is, for 1,000 new units."""
    from causalsat import BayesianLinearEffect

    data = simulate(family, n, p, n_villages, treated)
    warm = BayesianLinearEffect(family=family, n_draws=5, n_tune=50, n_chains=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warm.fit(data["X"][:400, :3], data["y"][:400], treatment=data["t"][:400])  # compilation cache
        wall, cpu = time.perf_counter(), time.process_time()
        estimator = BayesianLinearEffect(family=family, prior=prior, random_state=0)
        groups = data["groups"] if n_villages else None
        estimator.fit(data["X"], data["y"], treatment=data["t"], groups=groups)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    new = np.random.default_rng(8).standard_normal((1000, p))
    post, tau = estimator.effect(new), truth(family, data, new, n_villages)
    lower, upper = post.interval(0.9).T
    found = {"cpu": cpu, "wall": wall, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    found |= {key: float(estimator.diagnostics_.get(key, np.nan)) for key in ("ess", "r_hat", "pareto_k")}
    found["correlation"] = float(np.corrcoef(post.mean(), tau)[0, 1])
    return found | {"coverage": float(((lower < tau) & (tau < upper)).mean())}


def run(n: int, p: int, *, more: bool = False) -> str:
    """The table, as Markdown."""
    rows = [
        f"{n:,} units x {p} latents, all of them modifiers; correlation with the true effects of 1,000 new units, "
        "and the share of these in 90 % intervals, in one trial: all share one posterior, so that share scatters. "
        "Peak memory includes the data and the libraries.",
        "",
        "| family | villages | treated | prior | CPU s | wall s | peak MB | least ESS | R-hat | Pareto k "
        "| correlation | cover 90 % |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES + MORE if more else CASES:
        command = [sys.executable, "-W", "ignore", __file__, "--case", json.dumps(case)]
        command += ["--units", str(n), "--latents", str(p)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        f = json.loads(done.stdout.strip().splitlines()[-1])
        k = "" if np.isnan(f["pareto_k"]) else f"{f['pareto_k']:.2f}"
        family, n_villages, treated, prior = case
        rows.append(
            f"| {family} | {n_villages:,} | {treated} | {prior} | {f['cpu']:.0f} | {f['wall']:.0f} | {f['mb']:.0f} | "
            f"{f['ess']:.0f} | {f['r_hat']:.3f} | {k} | {f['correlation']:.4f} | {f['coverage']:.2f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--latents", type=int, default=50)
    parser.add_argument("--more", action="store_true", help="further rows")
    parser.add_argument("--case", help="one row, as a JSON list; prints JSON")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one(*json.loads(options.case), options.units, options.latents)))
    else:
        print(run(options.units, options.latents, more=options.more))
