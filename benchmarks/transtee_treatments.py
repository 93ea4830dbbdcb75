"""TransTEE, other kinds of treatments: levels with a dosage, and graphs.

Dosages: three treatments (SCIGAN's equations), against TARNet- and DRNet-style networks. Graphs: Watts-Strogatz
graphs as treatments (Kaddour et al. 2021), against a network that is handed the same graph embedding beside the
covariates; UPEHE@6 and WPEHE@6 are the root mean squared errors of the contrasts between the six treatments that are
most likely for a unit, plain and weighted by the product of their probabilities.

    python benchmarks/transtee_treatments.py [--sections dosage graphs] [--replications 10]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from kept_rows import kept, kept_row
from sections import run_sections

import causalsat
from causalsat.simulate import dose_response

FIRST_SEED = 300  # defaults were chosen on others
N_GRAPHS, NODES, K = 60, (10, 40), 6
EPOCHS, BATCH, RATE = 200, 128, 1e-3  # of the plain networks


def kept_means(
    table: str, label: str, seeds: range, one: Callable[[int], dict[str, float]]
) -> dict[str, list[float]]:
    """Mean and standard error over seeds of what ``one(seed)`` measures, kept on disk (see kept_rows.py).

    A line of the table may be kept whole, or a row for each seed, so that a run which was stopped goes on. Delete
    what has changed from the file ``transtee.jsonl`` of the kept rows.
    """
    name = f"{table} | {label}"
    line = kept("transtee").get(f"{name} | seeds {seeds[0]} to {seeds[-1]}")
    if line is not None:
        return line
    found = pd.DataFrame([kept_row("transtee", f"{name} | seed {seed}", partial(one, seed)) for seed in seeds])
    return {column: [float(values.mean()), float(values.sem())] for column, values in found.items()}


def mean_row(label: str, means: dict[str, Any], names: Sequence[str]) -> str:
    """A line of means with their standard errors; nothing for what was not measured."""
    cells = ["" if np.isnan(means[k][0]) else f"{means[k][0]:.3f} ({means[k][1]:.3f})" for k in names]
    return f"| {label} | " + " | ".join(cells) + " |"


def plain_fit(net: torch.nn.Module, inputs: Sequence[np.ndarray], y: np.ndarray) -> Callable[..., np.ndarray]:
    """Train a plain network by Adam on the standardised outcome; a function of its inputs comes back."""
    tensors = [torch.from_numpy(np.asarray(v, dtype=np.float32)) for v in inputs]
    mean, sd = float(y.mean()), float(y.std())
    target = torch.from_numpy(((y - mean) / sd).astype(np.float32))
    steps = torch.optim.Adam(net.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y)).split(BATCH):
            steps.zero_grad()
            ((net(*(v[rows] for v in tensors)) - target[rows]) ** 2).mean().backward()
            steps.step()

    def predict(*values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = net(*(torch.from_numpy(np.asarray(v, dtype=np.float32)) for v in values))
        return found.numpy() * sd + mean

    return predict


# ---------------------------------------------------------------------- dosages
def dosage_errors(
    predict: Callable[[np.ndarray, int, float], np.ndarray], trial: Any, X: np.ndarray
) -> dict[str, float]:
    """Root MISE of the curves, root error of the dosage policy and of the policy (SCIGAN), at 33 dosages."""
    grid = np.linspace(0, 1, 33)
    truth, found = (np.empty((3, len(grid), len(X))) for _ in range(2))
    for w in range(3):
        for k, s in enumerate(grid):
            truth[w, k], found[w, k] = trial.response(X, w, np.full(len(X), s)), predict(X, w, float(s))
    chosen, units = found.argmax(axis=1), np.arange(len(X))
    reached = np.stack([truth[w, chosen[w], units] for w in range(3)])
    best = truth.max(axis=1)
    by_model = np.stack([found[w, chosen[w], units] for w in range(3)]).argmax(axis=0)
    policy = best.max(axis=0) - reached[by_model, units]
    return {
        "root MISE": float(np.sqrt(np.mean((found - truth) ** 2))),
        "root DPE": float(np.sqrt(np.mean((best - reached) ** 2))),
        "root PE": float(np.sqrt(np.mean(policy**2))),
    }


class DosageNet(torch.nn.Module):
    """TARNet (a head for each treatment, the dosage an input) or DRNet (one for each treatment and bin of dosage)."""

    def __init__(self, p: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.body = torch.nn.Sequential(
            torch.nn.Linear(p, 48), torch.nn.ReLU(), torch.nn.Linear(48, 48), torch.nn.ReLU()
        )
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(49, 48), torch.nn.ReLU(), torch.nn.Linear(48, 1))
            for _ in range(3 * bins)
        )

    def forward(self, x: Any, t: Any, s: Any) -> Any:
        shared = torch.cat([self.body(x), s[:, None]], dim=1)
        which = t.long() * self.bins + (s * self.bins).long().clamp(0, self.bins - 1)
        return torch.cat([head(shared) for head in self.heads], dim=1).gather(1, which[:, None])[:, 0]


def plain_dosage(train: Any, bins: int, seed: int) -> Callable[[np.ndarray, int, float], np.ndarray]:
    """TARNet-style (one bin) or DRNet-style."""
    torch.manual_seed(seed)
    found = plain_fit(DosageNet(train.X.shape[1], bins), (train.X, train.treatment, train.dosage), train.y)
    return lambda X, w, s: found(X, np.full(len(X), w), np.full(len(X), s))


def dosage(args: argparse.Namespace) -> None:
    """Three treatments with dosages."""
    names = ("root MISE", "root DPE", "root PE", "CPU s")
    size = "three treatments, 1,500 units, 20 covariates of rank 4"
    print(f"\nDosages: {size}, {args.replications} replications (s.e.)\n")
    print("| estimator | " + " | ".join(names) + " |\n" + "|---" * 5 + "|")
    seeds = range(FIRST_SEED, FIRST_SEED + args.replications)
    for name in ("TransTEE", "TARNet-style", "DRNet-style"):
        print(mean_row(name, kept_means("dosages", name, seeds, partial(dosage_trial, name)), names), flush=True)


def dosage_trial(name: str, seed: int) -> dict[str, float]:
    """One estimator on one trial of dosages."""
    rng = np.random.default_rng(seed)
    trial = dose_response.dosage_trial(dose_response.low_rank_covariates(1800, 20, 4, rng), rng)
    train = replace(trial, **{k: getattr(trial, k)[:1500] for k in ("X", "treatment", "dosage", "y")})
    start = time.process_time()
    if name == "TransTEE":
        est = causalsat.TransTEE(n_draws=10, random_state=seed)
        est.fit(train.X, train.y, treatment=train.treatment, dosage=train.dosage)

        def predict(X: np.ndarray, w: int, s: float) -> np.ndarray:
            return est.predict_outcome(X, treatment=w, dosage=s).mean()
    else:
        predict = plain_dosage(train, 5 if name.startswith("DR") else 1, seed)
    cpu = time.process_time() - start
    return {**dosage_errors(predict, trial, trial.X[1500:]), "CPU s": cpu}


# ---------------------------------------------------------------------- graphs
class GraphNetwork(torch.nn.Module):
    """Two rounds of messages between neighbours, and the mean over the nodes: the embedding that both use."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, width), torch.nn.Linear(width, width)

    def forward(self, adjacency: Any) -> Any:
        degree = adjacency.sum(dim=2, keepdim=True)
        share, real = adjacency / degree.clamp_min(1), (degree > 0).to(degree)
        hidden = torch.tanh(self.first(torch.cat([degree / 4, real], dim=2)))
        hidden = torch.tanh(self.second(share @ hidden + hidden)) * real
        return hidden.sum(dim=1) / real.sum(dim=1)


class Concatenated(torch.nn.Module):
    """Covariates and the graph's embedding side by side, in two layers of 48."""

    def __init__(self, p: int, graphs: np.ndarray, embedding: torch.nn.Module) -> None:
        super().__init__()
        self.embedding, self.graphs = embedding, torch.from_numpy(graphs.astype(np.float32))
        with torch.inference_mode():
            d = embedding(self.graphs[:1]).shape[1]
        layers = [torch.nn.Linear(p + d, 48), torch.nn.ReLU(), torch.nn.Linear(48, 48), torch.nn.ReLU()]
        self.body = torch.nn.Sequential(*layers, torch.nn.Linear(48, 1))

    def forward(self, x: Any, which: Any) -> Any:
        rows, where = torch.unique(which.long(), return_inverse=True)
        return self.body(torch.cat([x, self.embedding(self.graphs[rows])[where]], dim=1))[:, 0]


def contrast_errors(found: np.ndarray, trial: Any, units: slice) -> dict[str, float]:
    """UPEHE@K and WPEHE@K of predicted outcomes (n, graph)."""
    chance, truth = trial.chance[units], trial.mean[units]
    top = np.argsort(-chance, axis=1)[:, :K]
    first, second = np.triu_indices(K, 1)
    error, weight = [], np.ones((len(top), len(first)))
    for values in (found, truth):
        best = np.take_along_axis(values, top, axis=1)
        error.append(best[:, first] - best[:, second])
    likely = np.take_along_axis(chance, top, axis=1)
    weight = likely[:, first] * likely[:, second]
    square = (error[0] - error[1]) ** 2
    return {
        "UPEHE@6": float(np.sqrt(square.mean())),
        "WPEHE@6": float(np.sqrt(np.average(square, weights=weight))),
        "spread of the contrasts": float(error[1].std()),
    }


def graphs(args: argparse.Namespace) -> None:
    """Graphs as treatments."""
    names = ("UPEHE@6", "WPEHE@6", "spread of the contrasts", "CPU s")
    size = f"{N_GRAPHS} graphs of {NODES[0]} to {NODES[1]} nodes, 1,000 units, 500 for testing"
    print(f"\nGraphs as treatments: {size}, {args.replications} replications (s.e.)\n")
    print("| estimator | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    seeds = range(FIRST_SEED, FIRST_SEED + args.replications)
    for name in ("TransTEE", "the same embedding beside the covariates"):
        print(mean_row(name, kept_means("graphs", name, seeds, partial(graph_trial, name)), names), flush=True)


def graph_trial(name: str, seed: int) -> dict[str, float]:
    """One estimator on one trial of graphs."""
    trial = dose_response.graph_trial(1500, N_GRAPHS, np.random.default_rng(seed), nodes=NODES)
    torch.manual_seed(seed)
    embedding, test = GraphNetwork(), slice(1000, None)
    X, t, y = trial.X[:1000], trial.treatment[:1000], trial.y[:1000]
    start = time.process_time()
    if name == "TransTEE":
        est = causalsat.TransTEE(treatment_module=embedding, n_draws=10, random_state=seed)
        est.fit(X, y, treatment=t, treatments=trial.graphs)
        columns = [est.predict_outcome(trial.X[test], treatment=k).mean() for k in range(N_GRAPHS)]
    else:
        predict = plain_fit(Concatenated(20, trial.graphs, embedding), (X, t), y)
        columns = [predict(trial.X[test], np.full(500, k)) for k in range(N_GRAPHS)]
    cpu = time.process_time() - start
    return {**contrast_errors(np.column_stack(columns), trial, test), "CPU s": cpu}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    run_sections(__doc__, {"dosage": dosage, "graphs": graphs}, {"replications": (10, "of each row")}, argv)


if __name__ == "__main__":
    main()
