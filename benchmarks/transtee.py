"""TransTEE: average dose-response curves, ablations, shifted doses, dosages, graphs, images, size.

AMSE is the mean over the test units' doses of the squared error of the average outcome at that dose, over the test
units; coverage that of pointwise 90 % intervals of the same. Every replication draws new noise (simu1: new units as
well). CPU seconds are those of a fit, in one thread. The published settings and the plain networks, which have no
draws, are in transtee_baselines.py; as they cost most, they are run on the first few replications only.

    python benchmarks/transtee.py [--sections curves ablation shift dosage graphs images size binary]
        [--replications 10] [--plain 3] [--gp 3]

Continuous IHDP needs the covariates of IHDP: see benchmarks/ihdp.py.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from continuous import DESIGNS, ihdp_covariates
from scipy.interpolate import CubicSpline
from transtee_baselines import SETTINGS, Plain

import causalsat
from causalsat.exceptions import CausalsatWarning
from causalsat.simulate import dose_response
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
    return curves.mean(axis=1), np.quantile(curves, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)


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


def shifted(design: str) -> Callable[[int], tuple[DoseTrial, DoseTrial]]:
    """Training doses on a smaller support: simu1 [0, 4] against [0, 5], IHDP [0.1, 2] against [0, 2]."""

    def split(seed: int) -> tuple[DoseTrial, DoseTrial]:
        rng = np.random.default_rng(seed)
        if design == "simu1":
            train = dose_response.simu1(500, rng, scale=5.0, reach=0.8)
            return train, dose_response.simu1(200, rng, scale=5.0)
        trial = dose_response.continuous_ihdp(ihdp_covariates(), rng, scale=2.0)
        train = trial.take(slice(471))
        return train.take(train.dose >= 0.1), trial.take(slice(471, None))

    return split


def row(label: str, design: str, found: list[dict[str, float]]) -> str:
    """A line of a table."""
    table = pd.DataFrame(found)
    amse = table["AMSE"]
    inside = "" if table["coverage"].isna().all() else f"{table['coverage'].mean():.3f}"
    se = f"{amse.sem():.4f}" if len(amse) > 1 else ""
    return (
        f"| {design} | {label} | {len(table)} | {amse.mean():.4f} | {se} | {inside} | {table['CPU s'].mean():.2f} |"
    )


HEAD = "| design | estimator | replications | AMSE | s.e. | coverage of 90 % | CPU s a fit |\n" + "|---" * 7 + "|"


def curves(args: argparse.Namespace) -> None:
    """TransTEE, the Gaussian process, the published settings and the plain networks."""
    print(f"Average dose-response curves, new noise in every replication\n\n{HEAD}")
    counts = {"TransTEE": args.replications, "GaussianProcessEffect": args.gp}
    counts |= dict.fromkeys(("PublishedTransTEE", "VCNet", "TARNet", "DRNet"), args.plain)
    for design in ("simu1", "ihdp"):
        for name, count in counts.items():
            if count:
                seeds = range(args.first_seed, args.first_seed + count)
                found = [evaluate(name, {}, design, halves(design), seed) for seed in seeds]
                print(row(name, design, found), flush=True)


ABLATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "one network": {"n_members": 1},
    "one map to tokens for all columns": {"column_embedding": False},
    "post-norm": {"norm": "post"},
    "no norm": {"norm": "none"},
    "a self-attention block": {"n_blocks": 1},
    "TR": {"regularizer": "tr"},
    "PTR": {"regularizer": "ptr"},
    "propensity weights": {"propensity_weights": True},
}


def ablation(args: argparse.Namespace) -> None:
    """What the choices contribute."""
    print(f"\nAblations\n\n{HEAD}")
    seeds = range(args.first_seed, args.first_seed + args.ablation)
    for design in ("simu1", "ihdp"):
        for label, options in ABLATIONS.items():
            found = [evaluate("TransTEE", options, design, halves(design), seed) for seed in seeds]
            print(row(label, design, found), flush=True)


def shift(args: argparse.Namespace) -> None:
    """Doses outside the training support."""
    print(f"\nTreatment shift: training doses on a smaller support than the test's\n\n{HEAD}")
    for design, scale in (("simu1", 5.0), ("ihdp", 2.0)):
        for name in ("TransTEE", "VCNet", "TARNet", "DRNet"):
            count = args.replications if name == "TransTEE" else args.plain
            seeds = range(args.first_seed, args.first_seed + count)
            found = [evaluate(name, {}, design, shifted(design), seed, scale) for seed in seeds]
            print(row(name, design, found), flush=True)


def size(args: argparse.Namespace) -> None:
    """50,000 units of simu1."""
    train = dose_response.simu1(50_000, np.random.default_rng(args.first_seed))
    test = dose_response.simu1(2_000, np.random.default_rng(args.first_seed + 1))
    print(f"\n50,000 units of simu1, 2,000 for testing\n\n{HEAD}")
    print(row("TransTEE", "simu1", [evaluate("TransTEE", {}, "simu1", lambda _: (train, test), args.first_seed)]))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    sections: dict[str, Callable[[argparse.Namespace], None]] = {
        "curves": curves,
        "ablation": ablation,
        "shift": shift,
        "size": size,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sections", nargs="+", default=["curves"], choices=list(sections))
    parser.add_argument("--replications", type=int, default=10)
    parser.add_argument("--plain", type=int, default=2, help="replications of the plain networks")
    parser.add_argument("--gp", type=int, default=2, help="replications of the Gaussian process")
    parser.add_argument("--ablation", type=int, default=5, help="replications of each ablation")
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CausalsatWarning)
    causalsat.TransTEE(max_epochs=1, n_members=1).fit(np.eye(20), np.arange(20.0), treatment=np.arange(20) % 3)
    for name in args.sections:
        sections[name](args)


if __name__ == "__main__":
    main()
