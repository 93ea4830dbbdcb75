"""Continuous treatments: average dose-response error on simu1 and continuous IHDP (TransTEE, arXiv 2202.01336).

AMSE is the mean over the test units' doses of the squared error of the average outcome at that dose, the average
taken over the test units. Every replication draws new noise (simu1: new units as well; IHDP: a new split).

    python benchmarks/continuous.py [--replications 10] [--designs simu1 ihdp]

Covariates of continuous IHDP are (x - min)/max, with minimum and maximum in the original units (grams, weeks, years),
as in the public implementations of VCNet and TransTEE, whose file holds them unstandardised. The replications of IHDP
hold six of them standardised, so RAW_RANGE brings their units back. Read on the standardised columns the same formula
puts 70 % of the doses above 0.965; the third design is
the other reading, each covariate scaled to [0, 1]. The
truth here is the average over the test units; the public files average over all units, on which a perfect model's
AMSE is the figure printed last. It needs the IHDP covariates: see benchmarks/ihdp.py. Another estimator is another
entry of FACTORIES.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import causalsat
from causalsat.simulate import dose_response
from causalsat.simulate.dose_response import DoseTrial

Array = NDArray[np.float64]
RAW_RANGE = [(540, 2500), (20, 36), (2, 15), (1, 4), (17, 137), (14, 43)]  # birth weight, head, weeks preterm, ...
FACTORIES: dict[str, Callable[[int], Any]] = {
    "GaussianProcessEffect": lambda seed: causalsat.GaussianProcessEffect(random_state=seed),
}


def simu1(rng: np.random.Generator) -> tuple[DoseTrial, int]:
    """700 units of simu1 and the number of those that train."""
    return dose_response.simu1(700, rng), 500


def ihdp_covariates(scaling: str = "original") -> Array:
    """The 25 covariates of IHDP, (x - min)/max in the original units, or scaled to [0, 1]."""
    from ihdp import data_folder

    X = pd.read_csv(data_folder() / "ihdp_npci_1.csv")[[f"x{j}" for j in range(1, 26)]].to_numpy()
    low, high = X.min(axis=0), X.max(axis=0)
    X = (X - low) / (high - low)
    if scaling == "original":
        low[:6], high[:6] = np.array(RAW_RANGE).T
        X = X * (high - low) / high
    return np.asarray(X)


def ihdp(rng: np.random.Generator, scaling: str = "original") -> tuple[DoseTrial, int]:
    """Continuous treatment over the IHDP covariates, in the order of a new split."""
    return dose_response.continuous_ihdp(ihdp_covariates(scaling), rng), 471


DESIGNS: dict[str, Callable[..., tuple[DoseTrial, int]]] = {
    "simu1": simu1,
    "ihdp": ihdp,
    "ihdp, covariates in [0, 1]": partial(ihdp, scaling="unit"),
}


def average_curve(model: Any, X: Array, doses: Array) -> Array:
    """Mean predicted outcome over the units, at every dose."""
    return np.array([model.predict_outcome(X, treatment=dose).mean().mean() for dose in doses])


def evaluate(design: str, factory: Callable[[int], Any], seed: int) -> dict[str, float]:
    """AMSE and CPU seconds of one replication; the curve is a cubic spline through 16 doses of the test's range."""
    rng = np.random.default_rng(seed)
    trial, n = DESIGNS[design](rng)
    train, test = trial.take(slice(n)), trial.take(slice(n, None))
    start = time.process_time()
    model = factory(seed).fit(train.X, train.y, treatment=train.dose)
    cpu = time.process_time() - start
    doses = test.dose
    grid = np.linspace(doses.min(), doses.max(), 16)
    from scipy.interpolate import CubicSpline

    predicted = CubicSpline(grid, average_curve(model, test.X, grid))(doses)
    return {"AMSE": float(np.mean((predicted - test.average(doses)) ** 2)), "CPU s": cpu}


def perfect_model(replications: int) -> tuple[float, float]:
    """AMSE (mean, s.e.) of the truth of the test units against that of all units, on continuous IHDP."""
    found = []
    for seed in range(replications):
        trial, n = ihdp(np.random.default_rng(seed))
        test = trial.take(slice(n, None))
        found.append(np.mean((test.average(test.dose) - trial.average(test.dose)) ** 2))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(replications))


def main() -> None:
    """Print the means over the replications."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--replications", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--designs", nargs="+", default=["simu1", "ihdp"], choices=list(DESIGNS))
    args = parser.parse_args()
    print("| design | estimator | replications | AMSE | s.e. | least | largest | CPU s a fit |")
    print("|---|---|---|---|---|---|---|---|")
    for design in args.designs:
        for name, factory in FACTORIES.items():
            seeds = range(args.first_seed, args.first_seed + args.replications)
            table = pd.DataFrame([evaluate(design, factory, seed) for seed in seeds])
            amse = table["AMSE"]
            row = f"{amse.mean():.4f} | {amse.sem():.4f} | {amse.min():.4f} | {amse.max():.4f}"
            print(f"| {design} | {name} | {len(table)} | {row} | {table['CPU s'].mean():.1f} |", flush=True)
    if "ihdp" in args.designs:
        mean, se = perfect_model(20)
        print(f"\nThe test units' own truth against that of all units, IHDP: AMSE {mean:.4f} (s.e. {se:.4f}).")


if __name__ == "__main__":
    main()
