"""BayesianLinearEffect: cost of a fit, effective sample size a CPU second, accuracy and coverage by prior.

Usage: ``OMP_NUM_THREADS=1 python benchmarks/bayesian_linear.py [--replications 6] [--pymc] [--cold]``. Prints
Markdown; ``--pymc`` adds the reference sampler, ``--cold`` the first fit of a fresh process.
Data: 2,000 units in 327 villages, ten latents of the village, six covariates of the unit, half of the villages
treated; the standard deviation of a unit's outcome given its effect is about 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np

N_UNITS, N_GROUPS, N_LATENTS, N_COVARIATES = 2000, 327, 10, 6
PRIORS = ("horseshoe", "normal", "r2d2")
DESIGNS = ("none", "one latent, sd 0.2", "all latents, sd 0.2", "all latents, sd 0.5")


def simulate(design: str, seed: int, n_latents: int = N_LATENTS) -> dict[str, Any]:
    """A cluster-randomised trial with a known effect, and new places."""
    rng = np.random.default_rng([seed, DESIGNS.index(design)])
    groups = np.r_[np.arange(N_GROUPS), rng.integers(0, N_GROUPS, N_UNITS - N_GROUPS)]
    t = rng.permutation(np.arange(N_GROUPS) % 2)[groups].astype(float)
    latents = rng.standard_normal((N_GROUPS, n_latents))
    beta = np.zeros(n_latents)
    if design.startswith("one"):
        beta[0] = 0.2
    elif design.startswith("all"):
        beta = rng.standard_normal(n_latents)
        beta *= float(design[-3:]) / np.linalg.norm(beta)
    M, C = latents[groups], rng.standard_normal((N_UNITS, N_COVARIATES))
    prognostic = M @ rng.standard_normal(n_latents) * 0.3 / np.sqrt(n_latents) + 0.3 * C[:, 0]
    villages = 0.3 * rng.standard_normal(N_GROUPS)[groups]
    y = prognostic + t * (0.5 + M @ beta) + villages + (0.8 + 0.1 * t) * rng.standard_normal(N_UNITS)
    new = np.column_stack([rng.standard_normal((500, n_latents)), np.zeros((500, N_COVARIATES))])
    X = np.column_stack([M, C])
    return {"X": X, "y": y, "t": t, "groups": groups, "new": new, "tau": 0.5 + new[:, :n_latents] @ beta}


def fit(data: dict[str, Any], **options: Any) -> tuple[Any, float]:
    """A fitted estimator and its CPU seconds."""
    from causalsat import BayesianLinearEffect

    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = BayesianLinearEffect(modifiers=list(range(N_LATENTS)), random_state=0, **options)
        estimator.fit(data["X"], data["y"], treatment=data["t"], groups=data["groups"])
    return estimator, time.process_time() - began


def first_fit_seconds(*, cold: bool) -> float:
    """CPU seconds of the first fit of a fresh process, imports included; cold: with an empty compilation cache."""
    code = (
        "import sys, resource; sys.path.insert(0, sys.argv[1]); import bayesian_linear as b; "
        "b.fit(b.simulate(b.DESIGNS[1], 0)); print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))"
    )
    import os
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, NUMBA_CACHE_DIR=folder) if cold else dict(os.environ)
        folder_here = str(Path(__file__).resolve().parent)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, folder_here],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout.strip().splitlines()[-1])


def speed_rows(*, pymc: bool) -> list[str]:
    """One row for each sampler and prior: first and second fit, and effective sample size a CPU second."""
    first, second = simulate(DESIGNS[1], 0), simulate(DESIGNS[2], 1)
    rows = []
    for sampler in ("auto", "pymc") if pymc else ("auto",):
        for prior in PRIORS:
            _, opening = fit(first, sampler=sampler, prior=prior)
            estimator, again = fit(second, sampler=sampler, prior=prior)
            d = estimator.diagnostics_
            rows.append(
                f"| {sampler} | {prior} | {opening:.1f} | {again:.1f} | {d['ess']:.0f} | {d['ess'] / again:.0f} |"
                f" {d['r_hat']:.3f} | {d['divergences']} |"
            )
    return rows


def accuracy_rows(replications: int) -> list[str]:
    """One row for each design and prior: error of the effect at new places and coverage."""
    rows = []
    for design in DESIGNS:
        for prior in PRIORS:
            found = []
            for seed in range(replications):
                data = simulate(design, seed)
                estimator, _ = fit(data, prior=prior, n_draws=250, n_tune=200, n_chains=2)
                post, tau = estimator.effect(data["new"]), data["tau"]
                inside = [
                    ((post.interval(level)[:, 0] < tau) & (tau < post.interval(level)[:, 1])).mean()
                    for level in (0.5, 0.9)
                ]
                found.append([np.sqrt(np.mean((post.mean() - tau) ** 2)), post.mean().std(), *inside])
            rmse, spread, half, ninety = np.mean(found, axis=0)
            error = np.std([row[-1] for row in found], ddof=1) / np.sqrt(replications)
            rows.append(
                f"| {design} | {prior} | {rmse:.3f} | {spread:.3f} | {half:.2f} | {ninety:.2f} | {error:.2f} |"
            )
    return rows


def run(replications: int = 6, *, pymc: bool = False, cold: bool = False) -> str:
    """The tables, as Markdown."""
    parts = [
        f"BayesianLinearEffect, {N_UNITS} units, {N_GROUPS} villages, {N_LATENTS} modifiers, {N_COVARIATES} more "
        "covariates; 4 chains of 300 + 400, CPU seconds.",
        "",
        "| sampler | prior | first fit | next fit | least ESS | ESS a CPU s (next fit) | R-hat | divergences |",
        "|---|---|---|---|---|---|---|---|",
        *speed_rows(pymc=pymc),
    ]
    if cold:
        parts += [
            "",
            f"First fit in a fresh process, imports included: {first_fit_seconds(cold=False):.1f} s with the "
            f"compilation cache on disk, {first_fit_seconds(cold=True):.1f} s without.",
        ]
    parts += [
        "",
        f"Conditional effects of 500 new places, {replications} trials a row; s.e. of 90 % coverage over trials.",
        "",
        "| heterogeneity | prior | RMSE | sd of predicted | cover 50 % | cover 90 % | s.e. |",
        "|---|---|---|---|---|---|---|",
        *accuracy_rows(replications),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=6)
    parser.add_argument("--pymc", action="store_true", help="the reference sampler as well")
    parser.add_argument("--cold", action="store_true", help="the first fit of a fresh process")
    options = parser.parse_args()
    print(run(options.replications, pymc=options.pymc, cold=options.cold))
