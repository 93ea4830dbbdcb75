"""VLUCI: what an inferred confounder adds to three base estimators, beside X alone, the true L, and CEVAE.

Worlds of causalsat.simulate.hidden_confounding: ten covariates, L of d dimensions with a linear link of length
``strength`` to treatment and outcome, X with one of length ``observed`` to the treatment. Strength 0 is no unobserved
confounder; correlation 0.6 makes L depend on X; "skewed" gives the outcome centred exponential noise. Effects are
compared with those of the units, given X and L. "region" is VLUCI.likelihood_region(0.9), which has no prior of the
strength: how often it holds the average effect of the units, and its width. The second table has the best case beside
it: maximum likelihood where the functions of X are known (vluci_reference.py). Simulated worlds are those of seeds
from FIRST_SEED on, IHDP's are replications 1 to 5. The model was chosen in worlds of other seeds. Then the posterior
median with a prior of 0.7 and of 0.5 was tried in these: it closed more of the gap with 500 units, and without a
confounder had an error of 17 and 23 % more than X alone, so the mean with 0.3 stayed (``vluci_prior.py`` shows both).

    python benchmarks/vluci.py [--cells NAME ...] [--seeds 500 501 ...]

PLAN says which cells are run with which bases and how many seeds; the options limit it. Rows are kept (see
benchmarks/kept_rows.py): the plan can be run in parts.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ihdp import load_replication
from kept_rows import keep, kept, kept_row
from vluci_cevae import cevae_effects
from vluci_reference import reference_fit

import causalsat
from causalsat.simulate import hidden_confounding

HIDDEN = ("x1", "x2", "x3")  # of IHDP: birth weight, head circumference, weeks born preterm
CELLS: dict[str, dict[str, Any]] = {
    f"n{n} d{d} s{s:g}": {"n": n, "n_latents": d, "strength": s, "observed": 2.0}
    for n in (2000, 500, 10000)
    for d in (1, 3, 5)
    for s in (0.5, 1.0, 2.0)
}
CELLS |= {f"no confounder n{n}": {"n": n, "strength": 0.0, "observed": 2.0} for n in (500, 2000, 10000)}
CELLS |= {f"weaker X n2000 d1 s{s:g}": {"n": 2000, "strength": s, "observed": 1.0} for s in (0.0, 0.5, 1.0, 2.0)}
CELLS["L depends on X n2000 d1 s1"] = {"n": 2000, "strength": 1.0, "observed": 2.0, "correlation": 0.6}
CELLS["skewed noise, no confounder n2000"] = {"n": 2000, "strength": 0.0, "observed": 2.0, "skewed": True}
CELLS["IHDP, birth covariates hidden"] = {}
MAIN = ("n2000 d1 s2", "n2000 d1 s1", "no confounder n2000")
SMALL = ("n500 d1 s2", "n500 d1 s1", "no confounder n500")
SEVERAL = tuple(f"n500 d{d} s{s}" for d in (3, 5) for s in (1, 2))  # dimensions of L
WEAKEST = "weaker X n2000 d1 s2"  # L moves the treatment twice as much as X, the most that the prior allows
HARD = (
    *(f"n2000 d{d} s{s}" for d in (3, 5) for s in (1, 2)),
    "n2000 d1 s0.5",
    "weaker X n2000 d1 s0",
    "weaker X n2000 d1 s1",
    WEAKEST,
    "L depends on X n2000 d1 s1",
    "skewed noise, no confounder n2000",
)
ROBUST = ("DoublyRobustEffect",)
BASES = (*ROBUST, "TLearnerEffect", "BayesianLinearEffect")
FIRST_SEED = 500
MORE_SEEDS = 10  # of small studies
REFERENCE_SEEDS = dict.fromkeys((*SMALL[:2], *SEVERAL), 5) | {SMALL[2]: 20}  # 2 elsewhere
HARMLESS_SEEDS = 60, 20  # without a confounder: a difference of a tenth is small beside one study's error
LARGE = ("n10000 d1 s1", "n10000 d1 s2", "no confounder n10000")
IDENTIFIED = (  # cells whose model is that of the reference
    *(f"n2000 d1 s{s}" for s in (1, 2)),
    *(f"n2000 d{d} s{s}" for d in (3, 5) for s in (1, 2)),
    *SMALL,
    *SEVERAL,
)


class Part(NamedTuple):
    """Cells that are run alike: number of seeds, methods."""

    cells: tuple[str, ...]
    seeds: int
    methods: tuple[str, ...] = ROBUST


IHDP = "IHDP, birth covariates hidden"
PLAN = (
    Part(SEVERAL, MORE_SEEDS),
    Part((SMALL[0],), 5, BASES),
    Part(SMALL[:2], MORE_SEEDS),
    Part((SMALL[2],), HARMLESS_SEEDS[0]),
    Part(MAIN, 5, BASES),
    Part((IHDP,), 5),
    Part(("n500 d1 s0.5", *HARD), 5),
    Part((WEAKEST,), MORE_SEEDS),
    Part(LARGE, 5),
    Part((MAIN[2],), HARMLESS_SEEDS[1]),
    Part((*MAIN, *SMALL, IHDP), 5, ("CEVAE",)),
)


def seeds_of(cell: str, number: int) -> range:
    """The first seeds of a cell: of simulated worlds, or replications of IHDP less one."""
    first = 0 if cell == IHDP else FIRST_SEED
    return range(first, first + number)


def bases() -> dict[str, Any]:
    """The estimators to which L is handed."""
    return {
        "DoublyRobustEffect": causalsat.DoublyRobustEffect(propensity_model="logistic"),
        "TLearnerEffect": causalsat.TLearnerEffect(n_bootstrap=20),
        "BayesianLinearEffect": causalsat.BayesianLinearEffect(n_draws=100, n_tune=100, n_chains=2, random_state=0),
    }


def make_world(cell: str, seed: int) -> tuple[Any, ...]:
    """X, treatment, outcome, hidden confounder and effects of a cell's replication."""
    options = dict(CELLS[cell])
    if not options:
        train, _ = load_replication(seed + 1)
        seen = [f"x{j}" for j in range(1, 26) if f"x{j}" not in HIDDEN]
        columns = train[seen].to_numpy(), train["treatment"].to_numpy(float), train["y_factual"].to_numpy()
        return *columns, train[list(HIDDEN)].to_numpy(), (train["mu1"] - train["mu0"]).to_numpy()
    skewed = options.pop("skewed", False)
    w = hidden_confounding(**options, seed=seed)
    y = w.outcome
    if skewed:
        y = y + np.random.default_rng(seed + 10_000).exponential(1.5, len(y)) - 1.5
    return w.X, w.treatment, y, w.confounder, w.tau


def measure(posterior: Any, units: Any, truth: Any) -> list[float]:
    """ATE error (signed), whether its 90 % interval covers the truth, its width, sqrt-PEHE of the units."""
    ate = posterior.ate()
    low, high = ate.interval(0.9)[0]
    pehe = float(np.sqrt(np.mean((units - truth) ** 2)))
    return [float(ate) - truth.mean(), float(low <= truth.mean() <= high), float(high - low), pehe]


def recovered(model: Any, L: Any) -> float:
    """R2 of the true confounder's direction b'L (the hidden columns' best one) by the mean inferred L."""
    guess = model.latents_.mean(axis=0)
    columns = np.column_stack([np.ones(len(L)), L])
    fitted = columns @ np.linalg.lstsq(columns, guess, rcond=None)[0]
    if np.var(guess) < 1e-12 or np.var(fitted) < 1e-12:
        return 0.0
    return float(max(np.corrcoef(guess[:, j], fitted[:, j])[0, 1] ** 2 for j in range(guess.shape[1])))


def run(cell: str, seed: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of one replication, one by one; the bases share one inference of L."""
    world = make_world(cell, seed)
    if "CEVAE" in names:
        yield {"cell": cell, "seed": seed, "method": "CEVAE", **cevae(world, seed)}
    if not (members := [name for name in names if name != "CEVAE"]):
        return
    X, t, y, L, tau = world
    start = time.process_time()
    quick = causalsat.DoublyRobustEffect(propensity_model="logistic")
    whole = causalsat.VLUCI(quick, random_state=seed).fit(X, y, treatment=t)
    engine_cpu = time.process_time() - start
    data = whole._check_fit(X, y, t, None, None, None)
    for name in members:
        base, fitted = bases()[name], copy.copy(whole)
        fitted.base = base
        start = time.process_time()
        if name != "DoublyRobustEffect":
            fitted._fit_members(base, data)
        own = fitted.counterfactual(X, y, t)
        row = {"inferred": measure(fitted.effect(X), own.mean(), tau), "R2": recovered(whole, L)}
        region = whole.likelihood_region(0.9)
        row["region"] = [float(region.lower <= tau.mean() <= region.upper), region.upper - region.lower]
        row["cpu"] = engine_cpu + time.process_time() - start
        start = time.process_time()
        post = copy.deepcopy(base).fit(X, y, treatment=t).effect(X)
        row |= {"X only": measure(post, post.mean(), tau), "cpu X only": time.process_time() - start}
        joined = np.column_stack([X, L])
        post = copy.deepcopy(base).fit(joined, y, treatment=t).effect(joined)
        row |= {"oracle": measure(post, post.mean(), tau), "probability": whole.probability_}
        yield {"cell": cell, "seed": seed, "method": name, **row}


def reference(cell: str, seed: int) -> dict[str, float]:
    """Signed error of the best case, and its likelihood-ratio statistic against no confounding."""
    X, t, y, _, tau = make_world(cell, seed)
    ate, gain = reference_fit(X, t, y)
    return {"error": ate - tau.mean(), "gain": gain}


def cevae(world: tuple[Any, ...], seed: int) -> dict[str, Any]:
    """What the plain CEVAE finds, and its CPU seconds."""
    X, t, y, _, tau = world
    start = time.process_time()
    found = cevae_effects(X, t, y, seed=seed)
    pehe = float(np.sqrt(np.mean((found - tau) ** 2)))
    error = [float(found.mean() - tau.mean()), float("nan"), float("nan"), pehe]
    return {"inferred": error, "cpu": time.process_time() - start}


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each cell and method."""
    lines = [
        "| cell | method | seeds | ATE error: X only | inferred L | CEVAE or true L | gap closed | coverage X only "
        "| coverage inferred | width | region: coverage | width | sqrt-PEHE X / inferred / true | R2 of L "
        "| P(confounding) | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    frame = pd.DataFrame(rows)
    for cell in [c for c in CELLS if c in set(frame["cell"])]:
        for method, part in frame[frame["cell"] == cell].groupby("method", sort=False):
            inner = np.array(part["inferred"].tolist(), dtype=float)
            error = np.abs(inner[:, 0]).mean()
            if part["X only"].isna().any() if "X only" in part else True:
                r2 = f"{part['R2'].mean():.2f}" if part["R2"].notna().all() else ""
                cover = "" if np.isnan(inner[:, 1]).any() else f"{inner[:, 1].mean():.2f}"
                width = "" if np.isnan(inner[:, 2]).any() else f"{inner[:, 2].mean():.2f}"
                middle = f"| | {error:.3f} | | | | {cover} | {width} | | | / {inner[:, 3].mean():.2f} / | {r2} | "
                lines.append(f"| {cell} | {method} | {len(part)} {middle}| {part['cpu'].mean():.1f} |")
                continue
            alone, oracle = (np.array(part[k].tolist(), dtype=float) for k in ("X only", "oracle"))
            region = np.array(part["region"].tolist(), dtype=float)
            before, best = np.abs(alone[:, 0]).mean(), np.abs(oracle[:, 0]).mean()
            gap = f"{(before - error) / (before - best):.2f}" if before > best + 0.1 else "no gap"
            pehe = " / ".join(f"{v[:, 3].mean():.2f}" for v in (alone, inner, oracle))
            lines.append(
                f"| {cell} | {method} | {len(part)} | {before:.3f} | {error:.3f} | {best:.3f} | {gap} "
                f"| {alone[:, 1].mean():.2f} | {inner[:, 1].mean():.2f} | {inner[:, 2].mean():.2f} "
                f"| {region[:, 0].mean():.2f} | {region[:, 1].mean():.2f} | {pehe} "
                f"| {part['R2'].mean():.2f} | {part['probability'].mean():.2f} | {part['cpu'].mean():.1f} |"
            )
    return "\n".join(lines)


def identified(rows: list[dict[str, Any]], found: dict[str, list[dict[str, float]]]) -> str:
    """What the best case closes of the gap, beside VLUCI and X alone."""
    lines = [
        "| cell | seeds | ATE error: X only | inferred L | best case | true L | gap closed: inferred L | best case "
        "| 2 log likelihood ratio of the best case: median (least) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    frame = pd.DataFrame(rows)
    for cell, best in found.items():
        same = frame["seed"].isin(seeds_of(cell, len(best)))
        part = frame[(frame["cell"] == cell) & (frame["method"] == ROBUST[0]) & same]
        if not len(part):
            continue
        errors = [
            np.abs(np.array(part[k].tolist(), dtype=float)[:, 0]).mean() for k in ("X only", "inferred", "oracle")
        ]
        before, ours, oracle = errors
        best_error = np.mean([abs(row["error"]) for row in best])
        gain = np.array([row["gain"] for row in best])
        closed = ["no gap"] * 2
        if before > oracle + 0.1:
            closed = [f"{(before - e) / (before - oracle):.2f}" for e in (ours, best_error)]
        lines.append(
            f"| {cell} | {len(best)} | {before:.3f} | {ours:.3f} | {best_error:.3f} | {oracle:.3f} "
            f"| {closed[0]} | {closed[1]} | {np.median(gain):.1f} ({gain.min():.1f}) |"
        )
    return "\n".join(lines)


def collect_references(cells: list[str], seeds: list[int] | None) -> dict[str, list[dict[str, float]]]:
    """The best case of the cells whose model it is, kept as the rows are."""
    return {
        cell: [
            kept_row("vluci_reference", f"{cell}|{seed}", lambda cell=cell, seed=seed: reference(cell, seed))
            for seed in seeds_of(cell, REFERENCE_SEEDS.get(cell, 2))
            if seeds is None or seed in seeds
        ]
        for cell in IDENTIFIED
        if cell in cells
    }


def collect(cells: list[str], seeds: list[int] | None) -> list[dict[str, Any]]:
    """The plan's rows of those cells and seeds, read where they are kept and made where they are not."""
    wanted = []
    for cells_alike, n_seeds, methods in PLAN:
        for cell in [c for c in cells_alike if c in cells]:
            for seed in [s for s in seeds_of(cell, n_seeds) if seeds is None or s in seeds]:
                there = kept("vluci")
                keys = {f"{cell}|{seed}|{name}": name for name in methods}
                if missing := [name for key, name in keys.items() if key not in there]:
                    for row in run(cell, seed, missing):
                        keep("vluci", f"{cell}|{seed}|{row['method']}", row)
                wanted += [key for key in keys if key not in wanted]
    there = kept("vluci")
    return [there[key] for key in wanted]


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = collect(args.cells, args.seeds)
    print(table(rows))
    print("\nThe best case: the functions of X known but for their coefficients, maximum likelihood.\n")
    print(identified(rows, collect_references(args.cells, args.seeds)))


if __name__ == "__main__":
    main()
