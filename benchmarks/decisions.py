"""From a map to a decision: coverage of rules' values, share of the best gain, exact trees.

Sections:

* ``values``: clustered trials of 60 villages of 5 people, effects linear in the first of three features; a linear
  rule from the other folds. Coverage of 95 % intervals of its value, of the gain over random, and of the gain curve
  at one budget and over all of them.
* ``share``: simulated satellite trials of the default variant; the true gain of three budgets (a tenth, three tenths
  and half of what treating everybody costs) over that of the best plan for the true effects. The trial's people are
  ranked by models that did not see their village, further places by the model of all people.
* ``tree``: CPU seconds of the exact tree of depth two, 10,000 units and 20 features, beside the sweep of policytree's
  algorithm written plainly (compiled, at 600 and 1,200 units, whose ratio gives its growth).
* ``uganda``: the gain of every budget at a cost of 1, and the plan for half of the places, written to
  ``outputs/uganda_plan``. Needs the folder that holds ``uganda_yop`` in the environment variable CAUSALSAT_DATA.

    python benchmarks/decisions.py [--sections values share tree uganda] [--trials 200] [--images 20] [--first 2000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numba import njit
from sections import run_sections

import causalsat
from causalsat.decisions.ranking import plan_of
from causalsat.decisions.tree_search import best_split
from causalsat.evaluation import crossfit_effects, gain_curve, policy_difference, policy_value
from causalsat.exceptions import DataError


def values(args: argparse.Namespace) -> None:
    """Coverage of values of rules that other folds chose."""
    rows = []
    for slope in (0.0, 0.5):
        hits = [covered(slope, seed) for seed in range(args.trials)]
        mean = pd.DataFrame(hits).mean()
        rows.append({"effect": "constant" if slope == 0 else "linear", **{k: f"{v:.3f}" for k, v in mean.items()}})
    show(rows, f"{args.trials} trials a row, standard error of a share of .95: {np.sqrt(0.0475 / args.trials):.3f}")


def covered(slope: float, seed: int) -> dict[str, bool]:
    """Whether each interval of one trial holds what the rule truly brings."""
    rng = np.random.default_rng([77, seed])
    village = np.repeat(np.arange(60), 5)
    x = rng.standard_normal((60, 3))[village]
    tau = 0.3 + slope * x[:, 0]
    scores = tau + rng.standard_normal(60)[village] + 2 * rng.standard_normal(300)
    fold = (np.arange(60) % 5)[village]
    predicted = np.empty(300)
    for k in range(5):
        out = fold != k
        design = np.column_stack([np.ones(300), x])
        predicted[~out] = design[~out] @ np.linalg.lstsq(design[out], scores[out], rcond=None)[0]
    rule = predicted > 0.3
    found = policy_value(rule, scores, groups=village, folds=fold)
    over = policy_difference(rule, rule.mean(), scores, groups=village, folds=fold)
    curve = gain_curve(predicted, scores, 1.0, village, folds=fold, spend=np.linspace(0.1, 0.5, 9))
    true = gain_curve(predicted, tau, 1.0, village, folds=fold, spend=curve.spend, n_bootstrap=0)
    table = curve.to_dataframe()
    gain = (rule * tau).mean()
    return {
        "value": bool(found.lower <= gain <= found.upper),
        "over random": bool(over.lower <= gain - rule.mean() * tau.mean() <= over.upper),
        "one budget": bool(table["lower"][4] <= true.gain[4] <= table["upper"][4]),
        "all budgets": bool(((table["band_lower"] <= true.gain) & (true.gain <= table["band_upper"])).all()),
    }


def share(args: argparse.Namespace) -> None:
    """True gain of a budget as a share of the best."""
    rows = [row for seed in range(args.images) for row in shares_of_a_trial(args.first + seed)]
    table = pd.DataFrame(rows)
    groups = table.groupby(["model", "units", "costs"], sort=False)
    shown = [
        dict(zip(("model", "units", "costs"), key, strict=True))
        | {k: f"{part[k].mean():.3f} ({part[k].std() / np.sqrt(len(part)):.3f})" for k in part.columns[3:-1]}
        | {"least": f"{part[list(PARTS)].to_numpy().min():.3f}", "CPU s": f"{part['seconds'].mean():.0f}"}
        for key, part in groups
    ]
    show(shown, f"{args.images} trials, seeds from {args.first}; standard errors of means in brackets")


PARTS = {"budget 10%": 0.1, "budget 30%": 0.3, "budget 50%": 0.5}


def shares_of_a_trial(seed: int) -> list[dict[str, Any]]:
    """Shares of one trial, of its people out of fold and of further places, with equal and with unequal costs."""
    trial = causalsat.simulate.satellite_trial(seed=seed)
    imagery = causalsat.open_imagery(trial.imagery, scale=1e-4)
    study = causalsat.Study(
        trial.units, outcome="outcome", treatment="treatment", cluster="site", imagery=imagery, chip_size_m=960
    )
    by_images = causalsat.DoublyRobustEffect(modifiers="img*", random_state=0)
    models = {
        "default": causalsat.image_model(study),
        "doubly robust, 8 components": causalsat.image_model(study, by_images, n_components=8),
        "doubly robust, 20 and covariates": causalsat.image_model(
            study, causalsat.DoublyRobustEffect(random_state=0)
        ),
    }
    rng = np.random.default_rng(seed)
    truth = {"people, out of fold": trial.units["tau"].to_numpy(), "further places": trial.places["tau"].to_numpy()}
    unequal = {name: np.exp(0.5 * rng.standard_normal(len(tau))) for name, tau in truth.items()}
    rows = []
    for name, model in models.items():
        start = time.process_time()
        found = crossfit_effects(model, study.X, study.y, design=study.design, progress=False).tau
        seconds = time.process_time() - start
        study.fit(model)
        there = model.predict(trial.places.reindex(columns=study.X.columns))
        for (units, tau), effects in zip(truth.items(), (found, there), strict=True):
            for costs, price in (("equal", np.ones(len(tau))), ("unequal", unequal[units])):
                row = {"model": name, "units": units, "costs": costs, "correlation": np.corrcoef(effects, tau)[0, 1]}
                rows.append(row | gains(effects, tau, price) | {"seconds": seconds})
    return rows


def gains(effects: np.ndarray, tau: np.ndarray, price: np.ndarray) -> dict[str, float]:
    """True gain of three budgets over that of the best plan for the true effects."""
    out = {}
    for name, part in PARTS.items():
        mine, best = (plan_of(e, price, part * price.sum(), e > 0) @ tau for e in (effects, tau))
        out[name] = float(mine / best)
    return out


@njit(cache=True)
def plain_two(X: np.ndarray, scores: np.ndarray) -> float:
    """Best tree of depth two as policytree searches it: both sides anew for every split of every feature."""
    best = -np.inf
    for f in range(X.shape[1]):
        order = np.argsort(X[:, f])
        for cut in range(1, len(X)):
            if X[order[cut - 1], f] == X[order[cut], f]:
                continue
            left, right = order[:cut], order[cut:]
            found = best_split(X[left], scores[left], 1, 1e-12)[0] + best_split(X[right], scores[right], 1, 1e-12)[0]
            best = max(best, found)
    return best


def tree(args: argparse.Namespace) -> None:
    """CPU seconds of the exact tree, and of a plain search."""
    rng = np.random.default_rng(0)

    def data(n: int) -> tuple[np.ndarray, np.ndarray]:
        X = rng.standard_normal((n, 20))
        return X, X[:, 0] * (X[:, 1] > 0) + rng.standard_normal(n)

    rows = []
    causalsat.PolicyTree(2).fit(*data(60))
    X, gamma = data(60)
    plain_two(X, np.column_stack([np.zeros(60), gamma]))
    for n in (600, 1200, 10_000):
        X, gamma = data(n)
        start = time.process_time()
        found = causalsat.PolicyTree(2).fit(X, gamma)
        row = {"units": f"{n:,}", "PolicyTree": f"{time.process_time() - start:.2f}", "plain search": "", "same": ""}
        if n < 2000:
            start = time.process_time()
            value = plain_two(X, np.column_stack([np.zeros(n), gamma]))
            row["plain search"] = f"{time.process_time() - start:.2f}"
            row["same"] = str(bool(np.isclose(value / n, found.value_)))
        rows.append(row)
    show(rows, "CPU seconds, one thread, 20 features, depth two")


def uganda(args: argparse.Namespace) -> None:
    """What a budget brings in northern Uganda, and the plan for half of the places, at a cost of 1."""
    try:
        study = causalsat.load_study("uganda_yop")
    except (DataError, OSError) as error:
        print(f"\nUganda is left out: {error}")
        return
    by_images = causalsat.DoublyRobustEffect(modifiers="img*", random_state=0)
    models = {
        "default": causalsat.image_model(study),
        "doubly robust, 8 components": causalsat.image_model(study, by_images, n_components=8),
    }
    for name, model in models.items():
        analysis = causalsat.analyse(study, model, fold_seeds=(0,), n_permutations=19, progress=False)
        plan = causalsat.target(analysis, budget=len(study.places) / 2, cost=1.0)
        table = plan.gain_curve.to_dataframe().set_index("spend")
        rows = [{"budget a head": f"{b:g}", **{k: f"{v:.3f}" for k, v in at(table, b).items()}} for b in BUDGETS]
        show(rows, f"Uganda, {name}")
        print(f"\n{plan.paragraph()}")
        written = plan.write(Path("outputs") / "uganda_plan" / name.split(",")[0].replace(" ", "_"), resolution=2000)
        print(f"\nwrote {', '.join(path.name for path in written)} to {written[0].parent}")


BUDGETS = (0.1, 0.3, 0.5, 0.7, 0.9)


def at(table: pd.DataFrame, budget: float) -> dict[str, float]:
    """The gain curve at a budget a head, with its intervals."""
    found = {name: float(np.interp(budget, table.index, table[name])) for name in table}
    names = ("gain", "lower", "upper", "band_lower", "band_upper", "random", "over_random", "over_random_se")
    return {name: found[name] for name in names}


def show(rows: list[dict[str, str]], caption: str) -> None:
    """Print a table as Markdown."""
    names = list(rows[0])
    print(f"\n{caption}\n\n| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(row[name] for name in names) + " |")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sections that were asked for."""
    numbers = {
        "trials": (200, "trials of the values"),
        "images": (20, "satellite trials"),
        "first": (2000, "seed of the first of them"),
    }
    run_sections(__doc__, {"values": values, "share": share, "tree": tree, "uganda": uganda}, numbers, argv)


if __name__ == "__main__":
    main()
