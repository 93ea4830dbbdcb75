"""Stacks beside their members, conformal beside naive intervals, aggregated beside single quantile models.

    python benchmarks/stacking_and_conformal.py [--stacks 2] [--intervals 4] [--quantiles 2]

Cluster-randomised trials with eight latents and village effects, in which all is known; the options are numbers of
trials. Stacks are slow: their standard errors say what few trials are worth.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import QuantileRegressor

from causalsat import BayesianLinearEffect, StackedEffect
from causalsat.evaluation import (
    aggregate_quantiles,
    conformal_individual_effects,
    conformal_outcome_intervals,
    out_of_fold_quantiles,
    pinball_loss,
)

LANDSCAPES = ("two latents", "all latents", "constant effect")


def trial(rng: np.random.Generator, landscape: str, n_clusters: int = 100, size: int = 8, new: int = 50) -> dict:
    """A trial and new villages, with both potential outcomes and the conditional effect of each unit."""
    total = n_clusters + new
    groups = np.repeat(np.arange(total), size)
    n = len(groups)
    X = 0.7 * rng.standard_normal((total, 8))[groups] + 0.7 * rng.standard_normal((n, 8))
    beta = {
        "two latents": np.r_[0.5, -0.4, np.zeros(6)],
        "all latents": np.full(8, 0.23),
        "constant effect": np.zeros(8),
    }
    tau = 0.4 + X @ beta[landscape]
    y0 = X[:, 0] + 0.5 * np.maximum(X[:, 2], 0) + 0.4 * rng.standard_normal(total)[groups] + rng.standard_normal(n)
    y1 = y0 + tau + 0.5 * rng.standard_normal(n)
    t = (rng.permutation(total) % 2)[groups]
    old = groups < n_clusters
    return {"X": X, "y0": y0, "y1": y1, "tau": tau, "t": t, "groups": groups, "old": old}


def stacks(replications: int) -> list[dict[str, Any]]:
    """Error and coverage of the conditional effects of new villages, by member and stack."""
    rows = []
    for landscape in LANDSCAPES:
        found: dict[str, list[list[float]]] = {}
        weight = []
        for r in range(replications):
            d = trial(np.random.default_rng(r), landscape)
            old, y = d["old"], np.where(d["t"], d["y1"], d["y0"])
            start = time.process_time()
            stack = StackedEffect(cv=3, random_state=r).fit(
                d["X"][old], y[old], treatment=d["t"][old], groups=d["groups"][old]
            )
            seconds = time.process_time() - start
            weight.append(stack.weights_[0])
            for name, model in {**stack.members_, "stack": stack}.items():
                post, truth = model.effect(d["X"][~old]), d["tau"][~old]
                low, high = post.interval(0.9).T
                error = np.sqrt(np.mean((post.mean() - truth) ** 2))
                inside = np.mean((low <= truth) & (truth <= high))
                found.setdefault(name, []).append([error, inside, float(np.mean(high - low)), seconds])
        for name, values in found.items():
            error, inside, width, seconds = np.mean(values, axis=0)
            se = np.std(values, axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.full(4, np.nan)
            share = np.mean(weight) if name == "bayesian_linear" else 1 - np.mean(weight)
            row = {"trial": landscape, "model": name, "rmse (s.e.)": f"{error:.3f} ({se[0]:.3f})"}
            row |= {"coverage of 90 % (s.e.)": f"{inside:.3f} ({se[1]:.3f})"}
            row |= {"width": round(width, 2), "mean weight": 1.0 if name == "stack" else round(share, 2)}
            rows.append({**row, "fit of the stack, CPU s": round(seconds, 1) if name == "stack" else ""})
    return rows


def conformal(replications: int, level: float = 0.8) -> list[dict[str, Any]]:
    """Coverage of outcomes and of individual effects in new villages."""
    found: dict[str, list[list[float]]] = {}
    for r in range(replications):
        d = trial(np.random.default_rng(1000 + r), "two latents", n_clusters=160)
        old, y = d["old"], np.where(d["t"], d["y1"], d["y0"])
        args = (d["X"][old], y[old], d["t"][old], d["X"][~old])
        model, groups = QuantileRegressor(alpha=0.0), d["groups"][old]
        for name, codes, method in (
            ("outcome, units taken as independent", None, "hierarchical"),
            ("outcome, hierarchical", groups, "hierarchical"),
            ("outcome, one unit a cluster", groups, "subsample"),
        ):
            both = conformal_outcome_intervals(
                *args, groups=codes, level=level, quantile_model=model, method=method, random_state=r
            )
            covered = both.treated.covers(d["y1"][~old]).mean() / 2 + both.control.covers(d["y0"][~old]).mean() / 2
            found.setdefault(name, []).append([covered, np.median(both.treated.width)])
        for approach in ("nested", "bonferroni"):
            one = conformal_individual_effects(
                *args, groups=groups, level=level, quantile_model=model, approach=approach, random_state=r
            )
            covered = one.covers((d["y1"] - d["y0"])[~old]).mean()
            found.setdefault(f"individual effect, {approach}", []).append([covered, np.median(one.width)])
        est = BayesianLinearEffect(random_state=r).fit(args[0], args[1], treatment=args[2], groups=groups)
        low, high = est.effect(args[3]).interval(level).T
        for name, truth in (("conditional", d["tau"][~old]), ("individual", (d["y1"] - d["y0"])[~old])):
            inside = np.mean((low <= truth) & (truth <= high))
            found.setdefault(f"{name} effect, credible interval", []).append([inside, np.median(high - low)])
    return [
        {
            "interval": name,
            "nominal": level,
            "coverage": round(float(np.mean(values, axis=0)[0]), 3),
            "se": round(float(np.std(values, axis=0)[0] / np.sqrt(len(values))), 3),
            "median width": round(float(np.median(values, axis=0)[1]), 2),
        }
        for name, values in found.items()
    ]


def quantiles(replications: int) -> list[dict[str, Any]]:
    """Pinball loss in new villages: single models, their mean, and aggregates."""
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    models = [QuantileRegressor(alpha=0.0), QuantileRegressor(alpha=0.1)]
    models.append(HistGradientBoostingRegressor(loss="quantile", quantile=0.5, max_iter=40, max_leaf_nodes=7))
    losses: dict[str, list[float]] = {}
    for r in range(replications):
        d = trial(np.random.default_rng(2000 + r), "two latents")
        old, y = d["old"], d["y0"] + 0.8 * np.sin(3 * d["X"][:, 1]) * np.abs(d["X"][:, 1])
        q = out_of_fold_quantiles(models, d["X"][old], y[old], levels, groups=d["groups"][old])
        new = out_of_fold_new(models, d["X"][old], y[old], d["X"][~old], levels)
        names = ["linear", "linear, penalised", "trees"]
        for name, one in zip(names, new, strict=True):
            losses.setdefault(name, []).append(pinball_loss(y[~old], np.sort(one, axis=1), levels))
        losses.setdefault("mean of the three", []).append(pinball_loss(y[~old], new.mean(axis=0), levels))
        for weighting in ("coarse", "medium"):
            mixed = aggregate_quantiles(q, y[old], levels, weighting=weighting).predict(new)
            losses.setdefault(f"aggregate, {weighting}", []).append(pinball_loss(y[~old], mixed, levels))
    return [{"model": name, "pinball loss": round(float(np.mean(values)), 4)} for name, values in losses.items()]


def out_of_fold_new(models: list, X: np.ndarray, y: np.ndarray, X_new: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles of new units by models fitted to all old ones, shape (model, n, level)."""
    from sklearn.base import clone

    return np.array(
        [np.column_stack([clone(m).set_params(quantile=q).fit(X, y).predict(X_new) for q in levels]) for m in models]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    comparisons = {"stacks": (stacks, 2), "intervals": (conformal, 4), "quantiles": (quantiles, 2)}
    for name, (_, trials) in comparisons.items():
        parser.add_argument(f"--{name}", type=int, default=trials, metavar="TRIALS")
    options = vars(parser.parse_args(argv))
    for name, (compare, _) in comparisons.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = compare(options[name])
        print(f"{name.capitalize()} (means of {options[name]} trials)\n")
        print("| " + " | ".join(rows[0]) + " |")
        print("|" + "---|" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join(str(value) for value in row.values()) + " |")
        print()


if __name__ == "__main__":
    main()
