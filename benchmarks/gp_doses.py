"""Doses: GaussianProcessEffect beside a plain Gaussian process on the same draws of simu1 and continuous IHDP.

The plain one is a linear plus a squared-exponential kernel over features and dose together, a length for each column
(ARD), 150 steps of Adam on the marginal likelihood. AMSE and coverage of 90 % intervals are those of the average
outcome at the test units' doses, as in benchmarks/transtee.py; the error of a unit is the mean squared error of its
own curve at 16 doses of the test's range. Standard errors over replications in brackets; CPU seconds in one thread.

    python benchmarks/gp_doses.py [--replications 10] [--designs simu1 ihdp] [--first-seed 100]

Continuous IHDP needs the covariates of IHDP: see benchmarks/ihdp.py. The model was chosen on other seeds (from 1000).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from transtee import GRID, LEVEL, halves

import causalsat
from causalsat.posterior import draw_quantiles
from causalsat.simulate.dose_response import DoseTrial

STEPS, RATE = 150, 0.1


class PlainProcess:
    """Linear plus squared-exponential kernel over features and dose, at the mode of the marginal likelihood."""

    def fit(self, trial: DoseTrial) -> PlainProcess:
        """Standardise, and climb with Adam."""
        import torch

        C = np.column_stack([trial.X, trial.dose])
        self.centre, self.scale = C.mean(axis=0), np.where(C.std(axis=0) > 0, C.std(axis=0), 1.0)
        self.y_mean, self.y_sd = trial.y.mean(), trial.y.std()
        self.C = torch.tensor((C - self.centre) / self.scale)
        y = torch.tensor((trial.y - self.y_mean) / self.y_sd)
        d = C.shape[1]
        start = np.concatenate([[np.log(0.5)] * 2, np.full(2 * d, -0.5 * np.log(d)), [0.0]])  # noise, sizes, weights
        self.theta = torch.tensor(start, requires_grad=True)
        search = torch.optim.Adam([self.theta], lr=RATE)
        for _ in range(STEPS):
            search.zero_grad()
            L = self._factor()
            loss = 0.5 * y @ torch.cholesky_solve(y[:, None], L)[:, 0] + torch.log(torch.diag(L)).sum()
            loss.backward()
            search.step()
        self.theta = self.theta.detach()
        self.L = self._factor()
        self.alpha = torch.cholesky_solve(y[:, None], self.L)[:, 0]
        return self

    def _kernel(self, A: Any, B: Any) -> Any:
        import torch

        d = A.shape[1]
        linear, inverse = torch.exp(self.theta[2 : 2 + d]), torch.exp(self.theta[2 + d : 2 + 2 * d])
        square = torch.cdist(A * inverse, B * inverse, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        smooth = torch.exp(2 * self.theta[1] - 0.5 * square)
        return torch.exp(2 * self.theta[-1]) + (A * linear**2) @ B.T + smooth

    def _factor(self) -> Any:
        import torch

        noise = torch.exp(2 * self.theta[0]) + 1e-6
        return torch.linalg.cholesky(self._kernel(self.C, self.C) + noise * torch.eye(len(self.C)))

    def at(self, X: np.ndarray, dose: float) -> tuple[np.ndarray, float, np.ndarray]:
        """Mean of each unit's outcome at a dose, sd of their average, sd of each."""
        import torch

        new = torch.tensor((np.column_stack([X, np.full(len(X), dose)]) - self.centre) / self.scale)
        cross, own = self._kernel(new, self.C), self._kernel(new, new)
        cut = own - cross @ torch.cholesky_solve(cross.T, self.L)
        mean = (cross @ self.alpha).numpy() * self.y_sd + self.y_mean
        return mean, float(cut.mean().sqrt()) * self.y_sd, np.sqrt(torch.diag(cut).numpy()) * self.y_sd


def ours(train: DoseTrial, test: DoseTrial, grid: np.ndarray, seed: int) -> dict[str, Any]:
    """Units' means, bounds, and the average curve with its bounds at the test units' doses."""
    start = time.process_time()
    model = causalsat.GaussianProcessEffect(n_draws=100, random_state=seed)
    model.fit(train.X, train.y, treatment=train.dose)
    cpu = time.process_time() - start
    draws = np.array([model.predict_outcome(test.X, treatment=dose).draws for dose in grid])
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    curves = CubicSpline(grid, draws.mean(axis=2))(test.dose)
    units = draw_quantiles(draws, tails, axis=1)
    found = {"mean": draws.mean(axis=1), "units": units, "curve": curves.mean(axis=1), "CPU s": cpu}
    return found | {"average": draw_quantiles(curves, tails, axis=1)}


def plain(train: DoseTrial, test: DoseTrial, grid: np.ndarray, _: int) -> dict[str, Any]:
    """The same of the plain process."""
    start = time.process_time()
    model = PlainProcess().fit(train)
    cpu = time.process_time() - start
    means, averages, sds = (np.array(part) for part in zip(*(model.at(test.X, d) for d in grid), strict=True))
    z = norm.ppf((1 + LEVEL) / 2)
    curve, sd = CubicSpline(grid, means.mean(axis=1))(test.dose), CubicSpline(grid, averages)(test.dose)
    found = {"mean": means, "units": (means - z * sds, means + z * sds), "curve": curve, "CPU s": cpu}
    return found | {"average": (curve - z * sd, curve + z * sd)}


def score(make: Any, design: str, seed: int) -> dict[str, float]:
    """Scores of one replication."""
    train, test = halves(design)(seed)
    grid = np.linspace(test.dose.min(), test.dose.max(), GRID)
    found = make(train, test, grid, seed)
    truth, own = test.average(test.dose), np.array([test.response(test.X, np.full(len(test), d)) for d in grid])
    (low, high), (least, most) = found["average"], found["units"]
    return {
        "AMSE": float(np.mean((found["curve"] - truth) ** 2)),
        "coverage of 90 %, average": float(np.mean((low < truth) & (truth < high))),
        "error of a unit": float(np.mean((found["mean"] - own) ** 2)),
        "coverage of 90 %, units": float(np.mean((least < own) & (own < most))),
        "CPU s a fit": found["CPU s"],
    }


def main() -> None:
    """Print a row for each design and process."""
    import torch

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=10)
    parser.add_argument("--designs", nargs="+", default=["simu1", "ihdp"])
    parser.add_argument("--first-seed", type=int, default=100)
    chosen = parser.parse_args()
    head = ""
    for design in chosen.designs:
        tables = {}
        for name, make in (("GaussianProcessEffect", ours), ("plain process", plain)):
            seeds = range(chosen.first_seed, chosen.first_seed + chosen.replications)
            tables[name] = table = pd.DataFrame([score(make, design, seed) for seed in seeds])
            if not head:
                head = (
                    f"| design | process | replications | {' | '.join(table)} |\n{'|---' * (len(table.columns) + 3)}|"
                )
                print(head)
            cells = [f"{table[c].mean():.4g} ({table[c].sem():.2g})" for c in table]
            print(f"| {design} | {name} | {len(table)} | {' | '.join(cells)} |", flush=True)
        better = tables["GaussianProcessEffect"] < tables["plain process"]
        print(
            f"| {design} | ours less than the plain one in | {len(better)} | {better['AMSE'].sum()} |  | "
            f"{better['error of a unit'].sum()} |  |  |",
            flush=True,
        )


if __name__ == "__main__":
    main()
