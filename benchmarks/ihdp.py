"""IHDP replications 1 to 5: accuracy, coverage and cost of the estimators of conditional effects.

672 children for fitting and 75 for testing, split by ``np.random.RandomState(seed).permutation`` with the seed equal
to the replication's number. nPEHE is the root mean squared error of the test units' effects over the standard
deviation of their true effects (a constant scores about 1); coverage is that of 95 % intervals of unit effects.

    python benchmarks/ihdp.py [--estimators GaussianProcessEffect ...] [--replications 1 2 3 4 5]

The data lie in the folder that the environment variable CAUSALSAT_DATA names (../shared/data unless set). The
benchmark's replications judge; defaults are chosen on simulations. Another estimator is another entry of FACTORIES.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import causalsat
from causalsat.exceptions import CausalsatWarning

N_TRAIN = 672
FACTORIES: dict[str, Callable[[int], Any]] = {
    "GaussianProcessEffect": lambda seed: causalsat.GaussianProcessEffect(random_state=seed),
    "BayesianLinearEffect": lambda seed: causalsat.BayesianLinearEffect(random_state=seed),
    "DoublyRobustEffect": lambda seed: causalsat.DoublyRobustEffect(random_state=seed),
}


def data_folder() -> Path:
    """Where the benchmark's files lie."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("CAUSALSAT_DATA", default)) / "ihdp"


def load_replication(number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test units of a replication."""
    frame = pd.read_csv(data_folder() / f"ihdp_npci_{number}.csv")
    order = np.random.RandomState(number).permutation(len(frame))
    return frame.iloc[order[:N_TRAIN]], frame.iloc[order[N_TRAIN:]]


def evaluate(factory: Callable[[int], Any], number: int) -> dict[str, float]:
    """Fit on the training units of a replication and compare with the truth on its test units."""
    train, test = load_replication(number)
    names = [f"x{j}" for j in range(1, 26)]
    start = time.process_time()
    model = factory(number).fit(train[names], train["y_factual"], treatment=train["treatment"])
    cpu = time.process_time() - start
    truth = (test["mu1"] - test["mu0"]).to_numpy()
    posterior = model.effect(test[names])
    lower, upper = posterior.interval(0.95).T
    pehe = float(np.sqrt(np.mean((posterior.mean() - truth) ** 2)))
    return {
        "sqrt-PEHE": pehe,
        "nPEHE": pehe / float(truth.std()),
        "coverage": float(np.mean((lower <= truth) & (truth <= upper))),
        "ATE error": float(abs(posterior.mean().mean() - truth.mean())),
        "CPU s": cpu,
    }


def main() -> None:
    """Print one row for each estimator and replication, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--estimators", nargs="+", default=list(FACTORIES), choices=list(FACTORIES))
    parser.add_argument("--replications", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    args = parser.parse_args()
    rows = []
    for name in args.estimators:
        for number in args.replications:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CausalsatWarning)
                rows.append({"estimator": name, "replication": number, **evaluate(FACTORIES[name], number)})
            print(
                " ".join(f"{k} {v:.3f}" if isinstance(v, float) else str(v) for k, v in rows[-1].items()), flush=True
            )
    table = pd.DataFrame(rows).drop(columns="replication").groupby("estimator", sort=False).mean()
    print(table.to_string(float_format=lambda v: f"{v:.3f}"))


if __name__ == "__main__":
    main()
