"""TransTEE: average dose-response curves beside the Gaussian process and plain networks, and binary IHDP.

AMSE is the mean over the test units' doses of the squared error of the average outcome at that dose, over the test
units; coverage that of pointwise 90 % intervals of the same. Every replication draws new noise (simu1: new units as
well). CPU seconds are those of a fit, in one thread. The published settings and the plain networks, which have no
draws, are in transtee_baselines.py; the published settings, which cost most, run on the first replications only.

    python benchmarks/transtee.py [--sections curves binary] [--replications 10] [--published 2]

Continuous IHDP needs the covariates of IHDP: see benchmarks/ihdp.py. Defaults were chosen on other seeds (1000-1005,
2000-2011) than those of the table. What else was measured: benchmarks/transtee_more.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from dose_designs import DESIGNS
from scipy.interpolate import CubicSpline
from sections import run_sections
from transtee_baselines import SETTINGS, Plain
from transtee_treatments import kept_means

import causalsat
from causalsat.posterior import draw_quantiles
from causalsat.simulate.dose_response import DoseTrial

GRID = 16  # doses of the test's range at which curves are evaluated; a cubic spline between them
LEVEL = 0.9


def curve_of(model: Any, test: DoseTrial) -> tuple[np.ndarray, np.ndarray | None]:
    """Average curve at the test units' doses, and the bounds of its intervals where the model has draws."""
    grid = np.linspace(test.dose.min(), test.dose.max(), GRID)
    if isinstance(model, Plain):
        return CubicSpline(grid, model.curve(test.X, grid))(test.dose), None
    draws = np.array([model.predict_outcome(test.X, treatment=dose).draws.mean(axis=1) for dose in grid])
    curves = CubicSpline(grid, draws)(test.dose)
    return curves.mean(axis=1), draw_quantiles(curves, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)


def fit(name: str, options: dict[str, Any], design: str, train: DoseTrial, scale: float, seed: int) -> Any:
    """One fitted model."""
    if (design, name) in SETTINGS:
        return Plain(name, SETTINGS[design, name], scale, seed).fit(train.X, train.y, train.dose)
    return getattr(causalsat, name)(random_state=seed, **options).fit(train.X, train.y, treatment=train.dose)


def evaluate(name: str, options: dict[str, Any], design: str, split: Any, seed: int, scale: float = 1.0) -> dict:
    """AMSE, coverage and CPU seconds of one replication."""
    train, test = split(seed)
    start = time.process_time()
    model = fit(name, options, design, train, scale, seed)
    cpu = time.process_time() - start
    curve, bounds = curve_of(model, test)
    truth = test.average(test.dose)
    inside = np.nan if bounds is None else float(np.mean((bounds[0] < truth) & (truth < bounds[1])))
    return {"AMSE": float(np.mean((curve - truth) ** 2)), "coverage": inside, "CPU s": cpu}


def halves(design: str) -> Callable[[int], tuple[DoseTrial, DoseTrial]]:
    """Training and test units of a design by seed."""

    def split(seed: int) -> tuple[DoseTrial, DoseTrial]:
        trial, n = DESIGNS[design](np.random.default_rng(seed))
        return trial.take(slice(n)), trial.take(slice(n, None))

    return split


def row(table: str, design: str, label: str, seeds: range, one: Callable[[int], dict[str, float]]) -> str:
    """A line of a table: what ``one(seed)`` measures, over seeds."""
    means = kept_means(f"{table}, {design}", label, seeds, one)
    amse, error = means["AMSE"]
    inside = "" if np.isnan(means["coverage"][0]) else f"{means['coverage'][0]:.3f}"
    se = f"{error:.4f}" if len(seeds) > 1 else ""
    return f"| {design} | {label} | {len(seeds)} | {amse:.4f} | {se} | {inside} | {means['CPU s'][0]:.2f} |"


HEAD = "| design | estimator | replications | AMSE | s.e. | coverage of 90 % | CPU s a fit |\n" + "|---" * 7 + "|"


def curves(args: argparse.Namespace) -> None:
    """TransTEE, the Gaussian process, the published settings and the plain networks."""
    print(f"Average dose-response curves, new noise in every replication\n\n{HEAD}")
    counts = dict.fromkeys(("TransTEE", "GaussianProcessEffect", "VCNet", "TARNet", "DRNet"), args.replications)
    counts["PublishedTransTEE"] = min(args.published, args.replications)
    for design in ("simu1", "ihdp"):
        for name, count in counts.items():
            if count:
                seeds = range(args.first_seed, args.first_seed + count)
                options = {"n_draws": 100} if name == "GaussianProcessEffect" else {}
                one = partial(evaluate, name, options, design, halves(design))
                print(row("curves", design, name, seeds, one), flush=True)


def binary(_: argparse.Namespace) -> None:
    """IHDP's replications 1 to 5, a binary treatment: see benchmarks/ihdp.py."""
    import ihdp

    one = partial(ihdp.evaluate, lambda seed: causalsat.TransTEE(random_state=seed))
    found = kept_means("IHDP", "TransTEE", range(1, 6), one)
    print("\nBinary treatment: IHDP, replications 1 to 5, TransTEE\n\n| measure | mean | s.e. |\n|---|---|---|")
    for name in found:
        print(f"| {name} | {found[name][0]:.3f} | {found[name][1]:.3f} |")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    causalsat.TransTEE(max_epochs=1, n_members=1).fit(np.eye(20), np.arange(20.0), treatment=np.arange(20) % 3)
    run_sections(
        __doc__,
        {"curves": curves, "binary": binary},
        {
            "replications": (10, "of each row"),
            "published": (2, "replications of the published settings"),
            "first-seed": (100, "of the replications"),
        },
        argv,
    )


if __name__ == "__main__":
    main()
