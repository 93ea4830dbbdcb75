"""Do the p-values of a comparison reject at their level where nothing differs?

Effects are cross-fitted by least squares over site folds, on doubly robust scores without nuisances, and judged,
compared and regressed by the functions that `compare` uses. In the first designs no source predicts any effect, so
that every difference and every driver is zero; in "two equal sources" both predict half of an
effect that varies, and only differences between the sources are zero. Over studies, every study is a trial of its
own. Reported is the share of p-values below .05 and .10, with the standard error of such shares.

    python benchmarks/compare_nulls.py [--trials 200]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.analysis.comparison import METRICS, Judged
from causalsat.analysis.drivers import Replicates, differences, regress
from causalsat.inference.folds import assign_folds

NAMES = ("autoc", "rate_ratio", "qini", "gates_difference")
SOURCES, MODELS = ("s1", "s2"), ("linear", "squares")
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """A null of the comparison.

    Attributes
    ----------
    label : str
        What differs from the first design.
    sites, people, features, folds, seeds, studies : int
        Sites and people in each, features of a source, folds, fold seeds and studies.
    effect : float
        What each source's first feature moves the effect by, in standard deviations of the score.
    by_person : bool
        Whether features vary within sites.
    tails : float
        Degrees of freedom of the noise; infinite for normal.
    """

    label: str
    sites: int = 60
    people: int = 10
    features: int = 3
    folds: int = 5
    seeds: int = 1
    studies: int = 1
    effect: float = 0.0
    by_person: bool = False
    tails: float = np.inf


DESIGNS = (
    Design("60 sites of 10"),
    Design("three fold seeds", seeds=3),
    Design("24 sites", sites=24),
    Design("200 sites of 3", sites=200, people=3),
    Design("one feature", features=1),
    Design("two folds", folds=2),
    Design("features of people, heavy tails", by_person=True, tails=3.0),
    Design("two equal sources", effect=0.15),
    Design("12 studies of 24 sites", sites=24, studies=12, people=5),
)


def cells(rng: np.random.Generator, design: Design, study: str) -> tuple[list[dict[str, Any]], dict[Any, Any]]:
    """Rows and half-sample replicates of one study: two sources by two models by all metrics."""
    site = np.repeat(np.arange(design.sites), design.people)
    size = len(site) if design.by_person else design.sites
    drawn = [rng.standard_normal((size, design.features)) for _ in SOURCES]
    tables = [x if design.by_person else x[site] for x in drawn]
    noise = rng.standard_normal(len(site)) if np.isinf(design.tails) else rng.standard_t(design.tails, len(site))
    scores = (
        sum(design.effect * x[:, 0] for x in tables) + 0.45 * rng.standard_normal(design.sites)[site] + 0.9 * noise
    )
    rows, repeated = [], {}
    folds = [assign_folds(design.folds, rng, groups=site) for _ in range(design.seeds)]
    for source, X in zip(SOURCES, tables, strict=True):
        for model in MODELS:
            features = X if model == "linear" else np.column_stack([X, X**2])
            draws: dict[str, list[FloatArray]] = {name: [] for name in NAMES}
            for seed, fold in enumerate(folds):
                tau = crossfitted(features, scores, fold)
                judged = Judged(tau, np.ones(len(tau)), fold, scores, groups=site, n_bootstrap=100)
                for name in NAMES:
                    value, se, halves = METRICS[name](judged)
                    key = {"study": study, "source": source, "model": model, "seed": seed, "metric": name}
                    rows.append({**key, "value": value, "se": se})
                    draws[name].append(halves)
            for name in NAMES:
                repeated[study, source, model, name] = Replicates(np.mean(draws[name], axis=0), judged.n_clusters)
    return rows, repeated


def crossfitted(X: FloatArray, scores: FloatArray, fold: NDArray[np.int64]) -> FloatArray:
    """Least squares of the scores of the other folds, predicted for each fold."""
    design, out = np.column_stack([np.ones(len(X)), X]), np.empty(len(X))
    for k in range(int(fold.max()) + 1):
        train = fold != k
        out[~train] = design[~train] @ np.linalg.lstsq(design[train], scores[train], rcond=None)[0]
    return out


def p_values(rng: np.random.Generator, design: Design) -> dict[tuple[str, str], float]:
    """P-values of one trial (or of trials joined) whose null is true, by what is tested and metric."""
    rows: list[dict[str, Any]] = []
    repeated: dict[Any, Any] = {}
    for k in range(design.studies):
        more, own = cells(rng, design, f"study {k}")
        rows, repeated = rows + more, {**repeated, **own}
    table, out = pd.DataFrame(rows), {}
    for name in NAMES:
        mine = table[table["metric"] == name]
        halves = {key[:3]: value for key, value in repeated.items() if key[3] == name}
        gaps = differences(mine, halves, (SOURCES[0], MODELS[0]))["p_value"]
        driven = regress(mine, halves, {})["p_value"]
        out["difference of sources", name] = gaps[SOURCES[1], MODELS[0]]
        out["driver: source", name] = driven["source=s2"]
        if not design.effect:
            out["difference of models", name] = gaps[SOURCES[0], MODELS[1]]
            out["driver: model", name] = driven["model=squares"]
    return out


def run(trials: int = 200, designs: Sequence[Design] = DESIGNS, first_seed: int = 9000) -> dict[str, pd.DataFrame]:
    """Every p-value, trials down, by label of the design."""
    found = {}
    for design in designs:
        count = trials // 4 if design.studies > 1 else trials
        seeds = range(first_seed, first_seed + count)
        found[design.label] = pd.DataFrame([p_values(np.random.default_rng(seed), design) for seed in seeds])
    return found


def to_markdown(found: dict[str, pd.DataFrame], seconds: float) -> str:
    """Shares of rejections at 5 and 10 %."""
    lines = ["| design | trials | null of | " + " | ".join(NAMES) + " |", "|" + "---|" * (len(NAMES) + 3)]
    for label, table in found.items():
        for what in dict.fromkeys(key[0] for key in table.columns):
            shares = [f"{(table[what, n] < 0.05).mean():.3f}, {(table[what, n] < 0.1).mean():.3f}" for n in NAMES]
            lines.append(f"| {label} | {len(table)} | {what} | " + " | ".join(shares) + " |")
    most = max(len(table) for table in found.values())
    se = [np.sqrt(level * (1 - level) / most) for level in (0.05, 0.1)]
    lines += ["", f"Shares below .05 and .10 with {most} trials have standard errors {se[0]:.3f} and {se[1]:.3f}; "]
    lines[-1] += f"{seconds:.0f} CPU s."
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args(argv)
    start = time.process_time()
    found = run(options.trials)
    print(to_markdown(found, time.process_time() - start))


if __name__ == "__main__":
    main()
