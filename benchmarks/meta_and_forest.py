"""Bayesian causal forest and meta-learners on simulated trials: accuracy, coverage and CPU seconds, beside peers.

Two kinds of trial with known effects: ``cluster`` (60 villages of 8 units, village-level and unit-level features,
treatment by village) and ``confounded`` (500 units whose treatment depends on their features). Errors are at 200
new places, in standard deviations of their effects; coverage of 50, 90 and 95 % intervals for those places and of
90 and 95 % intervals for the average over the trial's units.

    python benchmarks/meta_and_forest.py [--trials 10] [--only BayesianForest,T] [--worlds cluster]

With ``--ihdp FOLDER`` replications 1 to 5 of IHDP instead (90/10 split, seed = replication).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from causalsat import (
    BayesianForestEffect,
    DoublyRobustEffect,
    DRLearnerEffect,
    RLearnerEffect,
    TLearnerEffect,
    XLearnerEffect,
)

Trial = dict[str, Any]


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


def ihdp(folder: Path) -> list[Trial]:
    """Replications 1 to 5: treatment, observed and counterfactual outcome, two means, 25 features."""
    trials = []
    for replication in range(1, 6):
        data = np.loadtxt(folder / f"ihdp_npci_{replication}.csv", delimiter=",", skiprows=1)
        order = np.random.default_rng(replication).permutation(len(data))
        held, kept = order[: len(data) // 10], order[len(data) // 10 :]
        tau = data[:, 4] - data[:, 3]
        trials.append(
            {
                "X": data[kept, 5:],
                "y": data[kept, 1],
                "t": data[kept, 0],
                "groups": None,
                "tau": tau[kept],
                "new": data[held, 5:],
                "tau_new": tau[held],
            }
        )
    return trials


def ours(make: Callable[[int, Any], Any]) -> Callable[[Trial, int], tuple[np.ndarray, np.ndarray]]:
    """Draws (draw, unit) at the new places and at the trial's own units."""

    def fit(trial: Trial, seed: int) -> tuple[np.ndarray, np.ndarray]:
        estimator = make(seed, None if trial["groups"] is not None else "logistic")
        estimator.fit(trial["X"], trial["y"], treatment=trial["t"], groups=trial["groups"])
        return estimator.effect(trial["new"]).draws, estimator.effect(trial["X"]).draws

    return fit


def stochtree_direct(trial: Trial, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stochtree's BCFModel called directly, with the settings of a common comparison (10 + 200 + 500)."""
    from stochtree import BCFModel

    more = {}
    if trial["groups"] is not None:
        more = {"rfx_group_ids_train": trial["groups"], "random_effects_params": {"model_spec": "intercept_only"}}
    model = BCFModel()
    model.sample(
        X_train=trial["X"],
        Z_train=trial["t"],
        y_train=trial["y"],
        num_gfr=10,
        num_burnin=200,
        num_mcmc=500,
        general_params={
            "random_seed": seed + 1,
            "propensity_covariate": "none" if trial["groups"] is not None else "prognostic",
        },
        **more,
    )
    return tuple(
        np.asarray(model.predict(X=table, Z=np.ones(len(table)), terms="tau", type="posterior")).T
        for table in (trial["new"], trial["X"])
    )


def econml_direct(trial: Trial, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """EconML's LinearDML with its default learners; normal draws from its standard errors (units independent)."""
    from econml.dml import LinearDML

    model = LinearDML(discrete_treatment=True, random_state=seed)
    model.fit(trial["y"], trial["t"].astype(int), X=trial["X"], groups=trial["groups"])
    rng = np.random.default_rng(seed)
    found = [model.effect_inference(table) for table in (trial["new"], trial["X"])]
    ate = model.ate_inference(trial["X"])
    average = ate.mean_point + np.asarray(ate.stderr_mean) * rng.standard_normal((1000, 1))
    draws = found[0].point_estimate + found[0].stderr * rng.standard_normal((1000, len(trial["new"])))
    return draws, np.repeat(average, 2, axis=1)


METHODS: dict[str, Callable[[Trial, int], tuple[np.ndarray, np.ndarray]]] = {
    "BayesianForest": ours(lambda seed, e: BayesianForestEffect(propensity_model=e, random_state=seed)),
    "T": ours(lambda seed, e: TLearnerEffect(random_state=seed)),
    "X": ours(lambda seed, e: XLearnerEffect(propensity_model=e, random_state=seed)),
    "R": ours(lambda seed, e: RLearnerEffect(propensity_model=e, random_state=seed)),
    "DR": ours(lambda seed, e: DRLearnerEffect(propensity_model=e, random_state=seed)),
    "DoublyRobust": ours(lambda seed, e: DoublyRobustEffect(propensity_model=e, random_state=seed)),
    "stochtree": stochtree_direct,
    "EconML LinearDML": econml_direct,
}


def inside(draws: np.ndarray, truth: np.ndarray, level: float) -> float:
    """Share of truths inside equal-tailed intervals."""
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return float(np.mean((lower <= truth) & (truth <= upper)))


def judge(method: str, trial: Trial, seed: int) -> dict[str, float]:
    """Error, coverage and CPU seconds of one method on one trial."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new, own = METHODS[method](trial, seed)
    cpu = time.process_time() - start
    average, ate = own.mean(axis=1, keepdims=True), np.array([trial["tau"].mean()])
    error = np.sqrt(np.mean((new.mean(axis=0) - trial["tau_new"]) ** 2))
    row = {"nPEHE": error / trial["tau_new"].std()}
    row |= {f"unit {level:.0%}": inside(new, trial["tau_new"], level) for level in (0.5, 0.9, 0.95)}
    row |= {f"ATE {level:.0%}": inside(average, ate, level) for level in (0.9, 0.95)}
    row |= {"ATE error": float(average.mean() - ate[0]), "CPU s": cpu}
    return row


def run(trials: int = 10, methods: list[str] | None = None, worlds: Any = ("cluster", "confounded")) -> list[str]:
    """Print and return one line a world and method."""
    lines = []
    for world in worlds:
        made = (
            ihdp(Path(world))
            if Path(world).is_dir()
            else [
                {"cluster": cluster, "confounded": confounded}[world](np.random.default_rng(i)) for i in range(trials)
            ]
        )
        for method in methods or METHODS:
            rows = [judge(method, trial, seed) for seed, trial in enumerate(made)]
            means = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
            name = "IHDP 1-5" if Path(world).is_dir() else world
            text = f"{name:<11} {method:<17}" + "  ".join(f"{key} {value:.2f}" for key, value in means.items())
            print(text, flush=True)
            lines.append(text)
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--only", default="")
    parser.add_argument("--worlds", default="cluster,confounded")
    parser.add_argument("--ihdp", default="")
    options = parser.parse_args()
    run(
        options.trials,
        options.only.split(",") if options.only else None,
        [options.ihdp] if options.ihdp else options.worlds.split(","),
    )
