"""Coverage of 95 % intervals of average effects, by design: strata, pairs, clusters, weights.

python benchmarks/designs.py [--trials 200] [--clusters 12 20 40 200] [--designs none blocked pairs] [--detail]

Designs have two arms and 12 to 200 clusters of equal or uneven (lognormal) size: without strata; two blocks with
treated shares of .25 and .70, a gap of 2 between them, effects of 0.5 and 1.5; pairs of clusters; each also with
survey weights, and with single units in place of clusters. Effects also vary from cluster to cluster, which makes the
treated noisier, and 30 % of the errors' variance is common to a cluster.

``SOURCES`` names what is asked for estimates: a function from a :class:`Trial` to rows of :class:`Answer`. The truth
of a row is that of its estimand.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalsat.inference.average_effects import (
    AVERAGE_EFFECT,
    EffectEstimate,
    blocked_difference,
    fixed_effects,
    interacted_adjustment,
    score_mean,
    score_projection,
)

DESIGNS = ("none", "blocked", "pairs")
CLUSTERS = (12, 20, 40, 200)
UNITS_A_CLUSTER = 15
ICC = 0.3
SHARES, GAP, EFFECTS = (0.25, 0.7), 2.0, (0.5, 1.5)  # of the two blocks


@dataclass(frozen=True)
class Trial:
    """One simulated trial; arrays have one value a unit.

    ``effect`` is what the unit's stratum expects, so that its weighted mean is the average effect.
    """

    y: np.ndarray
    treatment: np.ndarray
    covariate: np.ndarray
    clusters: np.ndarray | None
    strata: np.ndarray | None
    weights: np.ndarray | None
    effect: np.ndarray

    @property
    def options(self) -> dict[str, Any]:
        """What estimators take of the design."""
        return {"clusters": self.clusters, "strata": self.strata, "weights": self.weights}

    @property
    def stratum(self) -> np.ndarray:
        """Codes of the strata; one for all where there are none."""
        return np.zeros(len(self.y), dtype=int) if self.strata is None else self.strata

    @property
    def propensity(self) -> np.ndarray:
        """Share of treated clusters in the unit's stratum."""
        code = np.arange(len(self.y)) if self.clusters is None else self.clusters
        first = np.unique(code, return_index=True)[1]
        stratum = self.stratum[first]
        return (np.bincount(stratum, self.treatment[first]) / np.bincount(stratum))[self.stratum]

    def truth(self, estimand: str = AVERAGE_EFFECT, units: np.ndarray | None = None) -> float:
        """Average effect (of some units), or the one that stratum fixed effects estimate."""
        weight = np.ones(len(self.y)) if self.weights is None else self.weights
        if units is not None:
            weight = weight * units
        if estimand != AVERAGE_EFFECT:
            share = np.bincount(self.stratum, weight * self.treatment) / np.bincount(self.stratum, weight)
            weight = weight * (share * (1 - share))[self.stratum]
        return float(np.average(self.effect, weights=weight))


@dataclass(frozen=True)
class Answer:
    """What a row says, and the truth of what it estimates."""

    estimate: float
    se: float
    df: float
    lower: float
    upper: float
    truth: float
    effective: float = np.nan


def draw_trial(
    rng: np.random.Generator,
    design: str,
    n_clusters: int,
    *,
    uneven: bool = False,
    weighted: bool = False,
    clustered: bool = True,
    skewed: bool = False,
) -> Trial:
    """One trial of a design; without clusters, units are assigned one by one, ``n_clusters`` of them."""
    size = np.full(n_clusters, UNITS_A_CLUSTER if clustered else 1)
    if uneven and clustered:
        size = np.maximum(2, np.round(UNITS_A_CLUSTER * rng.lognormal(-0.5, 1, n_clusters))).astype(int)
    stratum, arm = _assign(rng, design, n_clusters)
    code = np.repeat(np.arange(n_clusters), size)
    n = len(code)
    level = {"none": np.zeros(1), "blocked": GAP * np.arange(2), "pairs": rng.standard_normal(n_clusters)}[design]
    effect = np.array(EFFECTS)[stratum] if design == "blocked" else np.ones(n_clusters)
    covariate = (rng.standard_normal(n_clusters)[code] + rng.standard_normal(n)) / np.sqrt(2)
    common, alone = (_errors(rng, number, skewed) for number in (n_clusters, n))
    noise = np.sqrt(ICC) * common[code] + np.sqrt(1 - ICC) * alone
    own_effect = (effect + 0.5 * rng.standard_normal(n_clusters))[code]
    y = level[stratum][code] + 0.7 * covariate + noise + arm[code] * own_effect
    return Trial(
        y=y,
        treatment=arm[code].astype(float),
        covariate=covariate,
        clusters=code if clustered else None,
        strata=None if design == "none" else stratum[code],
        weights=rng.lognormal(0, 0.7, n) if weighted else None,
        effect=effect[code],
    )


def _errors(rng: np.random.Generator, number: int, skewed: bool) -> np.ndarray:
    """Errors of mean 0 and variance 1: normal, or exponential (skewness 2, kurtosis 9)."""
    return rng.standard_exponential(number) - 1 if skewed else rng.standard_normal(number)


def _assign(rng: np.random.Generator, design: str, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Stratum and arm of each cluster."""
    if design == "none":
        return np.zeros(n_clusters, dtype=int), rng.permutation(n_clusters) % 2
    if design == "pairs":
        arm = np.arange(n_clusters) + np.repeat(rng.integers(0, 2, n_clusters // 2), 2)
        return np.arange(n_clusters) // 2, arm % 2
    stratum, arm = np.arange(n_clusters) * 2 // n_clusters, np.zeros(n_clusters, dtype=int)
    for block, share in enumerate(SHARES):
        members = np.flatnonzero(stratum == block)
        treated = min(max(2, round(share * len(members))), len(members) - 2)
        arm[rng.choice(members, treated, replace=False)] = 1
    return stratum, arm


# ---------------------------------------------------------------------- what is asked
def array_rows(trial: Trial) -> dict[str, Answer]:
    """The functions on arrays: every estimator of the average effect, and a group's average effect (GATES)."""
    y, t, x = trial.y, trial.treatment, trial.covariate[:, None]
    found = {
        "difference": blocked_difference(y, t, **trial.options),
        "difference, CV3": blocked_difference(y, t, **trial.options, kind="CV3"),
        "interacted": interacted_adjustment(y, t, x, **trial.options),
        "fixed effects": fixed_effects(y, t, x, **trial.options),
        "scores": score_mean(scores(trial), treatment=t, **trial.options),
        "scores, no model": score_mean(scores(trial, 0.0), treatment=t, **trial.options),
    }
    rows = {name: _answer(estimate, trial.truth(estimate.estimand)) for name, estimate in found.items()}
    upper = trial.covariate > np.median(trial.covariate)
    groups = np.column_stack([upper, ~upper]).astype(float)
    fit = score_projection(scores(trial), groups, treatment=t, **trial.options)
    bounds = fit.interval()[0]
    truth = trial.truth(units=upper)
    rows["group"] = Answer(
        fit.estimate[0], fit.se[0], fit.df[0], bounds[0], bounds[1], truth, fit.effective_clusters[0]
    )
    return rows


def scores(trial: Trial, known: float = 0.9) -> np.ndarray:
    """Doubly robust scores with outcome models that know a share of the outcome's mean."""
    t, e = trial.treatment, trial.propensity
    base = 0.7 * trial.covariate + (GAP * trial.stratum if trial.effect.std() > 0 else 0)
    control, treated = known * base, known * (base + trial.effect)
    return treated - control + t * (trial.y - treated) / e - (1 - t) * (trial.y - control) / (1 - e)


def _answer(found: EffectEstimate, truth: float) -> Answer:
    lower, upper = found.interval()
    return Answer(found.estimate, found.se, found.df, lower, upper, truth, found.effective_clusters)


def package_rows(trial: Trial) -> dict[str, Answer]:
    """What an analysis reports: the table of averages, AIPW and the posteriors, GATES, and the same with the
    probabilities given by hand in the place of the strata."""
    import pandas as pd

    from causalsat import DoublyRobustEffect, TLearnerEffect
    from causalsat.analysis.average_effects import average_effects, score_average
    from causalsat.design import make_design
    from causalsat.evaluation import crossfit_nuisances, dr_scores, gates

    y, t, x = trial.y, trial.treatment, trial.covariate[:, None]
    roles = {"groups": trial.clusters, "strata": trial.strata, "sample_weight": trial.weights}
    design = make_design(t, **roles)
    table = average_effects(y, design=design, covariates=pd.DataFrame({"x": trial.covariate}))
    rows = {str(name): _tabled(row, trial.truth(row.estimand)) for name, row in table.iterrows()}
    folds = {"n_splits": 2 if len(np.unique(design.cluster_codes)) < 20 else 5}
    nuisances = crossfit_nuisances(x, y, t, **roles, **folds)
    gamma = dr_scores(y, t, nuisances)
    rows["AIPW"] = _tabled(pd.Series(score_average(gamma, design)), trial.truth())
    upper = trial.covariate > np.median(trial.covariate)
    top = gates(trial.covariate, gamma, n_groups=2, design=design)
    rows["GATES, upper half"] = Answer(
        top.estimate[1], top.se[1], top.df[1], *top.to_dataframe().loc["G2", ["lower", "upper"]],
        trial.truth(units=upper if trial.weights is None else top.group == 1),
    )  # fmt: skip
    for name, model in {
        "DoublyRobustEffect": DoublyRobustEffect(**folds),
        "TLearnerEffect": TLearnerEffect(n_bootstrap=40),
    }.items():
        average = model.fit(x, y, design=design).effect(x).ate(trial.weights)
        low, high = average.interval(0.95)[0]
        rows[f"{name}, posterior"] = Answer(float(average), average.sd()[0], np.nan, low, high, trial.truth())
    if trial.strata is not None:
        given = {"groups": trial.clusters, "sample_weight": trial.weights, "propensity": trial.propensity}
        stated = DoublyRobustEffect(**folds).fit(x, y, treatment=t, **given)
        average = stated.effect(x).ate(trial.weights)
        low, high = average.interval(0.95)[0]
        rows["DoublyRobustEffect, given e"] = Answer(
            float(average), average.sd()[0], np.nan, low, high, trial.truth()
        )
    return rows


def _tabled(row: Any, truth: float) -> Answer:
    return Answer(row["estimate"], row["se"], row["df"], row["lower"], row["upper"], truth)


SOURCES: dict[str, Callable[[Trial], dict[str, Answer]]] = {"arrays": array_rows, "package": package_rows}


# ---------------------------------------------------------------------- the table
def cells(designs: Any = DESIGNS, clusters: Any = CLUSTERS) -> Iterator[dict[str, Any]]:
    """Arguments of :func:`draw_trial`: designs by clusters, sizes and weights, and units alone."""
    for design, n_clusters, uneven, weighted in itertools.product(designs, clusters, (False, True), (False, True)):
        yield {"design": design, "n_clusters": n_clusters, "uneven": uneven, "weighted": weighted}
    for design, n_clusters in itertools.product(designs, clusters):
        yield {"design": design, "n_clusters": n_clusters, "clustered": False}


def run_cell(trials: int, source: str = "arrays", seed: int = 0, **cell: Any) -> list[dict[str, Any]]:
    """Coverage, bias in standard deviations, standard error over standard deviation, of each row in one cell."""
    rng = np.random.default_rng([seed, *map(ord, str(sorted(cell.items())))])
    answers: dict[str, list[Answer]] = {}
    for _ in range(trials):
        for name, answer in SOURCES[source](draw_trial(rng, **cell)).items():
            answers.setdefault(name, []).append(answer)
    return [{**_label(cell), "row": name, **summarise(found)} for name, found in answers.items()]


def summarise(answers: list[Answer]) -> dict[str, float]:
    """Figures of one row over trials."""
    error = np.array([a.estimate - a.truth for a in answers])
    covered = np.array([a.lower <= a.truth <= a.upper for a in answers])
    spread = error.std(ddof=1)
    return {
        "coverage": round(float(covered.mean()), 3),
        "bias_sd": round(float(error.mean() / spread), 2),
        "se_over_sd": round(float(np.sqrt(np.nanmean([a.se**2 for a in answers])) / spread), 2),
        "df": round(float(np.nanmedian([a.df for a in answers])), 1),
        "effective": round(float(np.nanmedian([a.effective for a in answers])), 1),
        "no_se": int(np.isnan([a.se for a in answers]).sum()),
    }


def _label(cell: dict[str, Any]) -> dict[str, Any]:
    sizes = "uneven" if cell.get("uneven") else "equal"
    return {
        "design": cell["design"],
        "clusters": cell["n_clusters"],
        "sizes": sizes if cell.get("clustered", True) else "units",
        "weights": "lognormal" if cell.get("weighted") else "",
    }


def coverage_line(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Coverage of every row of a cell in one line."""
    label = {key: rows[0][key] for key in ("design", "clusters", "sizes", "weights")}
    return {**label, **{row["row"]: row["coverage"] for row in rows}}


def print_table(arguments: argparse.Namespace, source: str, chosen: Iterator[dict[str, Any]], trials: int) -> None:
    """One line a cell with the coverage of its rows, or one line a cell and row."""
    columns = None
    for cell in chosen:
        cell = {**cell, "skewed": True} if arguments.skewed else cell
        rows = run_cell(trials, source, arguments.seed, **cell)
        for row in rows if arguments.detail else [coverage_line(rows)]:
            if columns != list(row):
                columns = list(row)
                print("\n| " + " | ".join(row) + " |\n|" + "---|" * len(row))
            print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)


def main() -> None:
    """Print the tables: functions on arrays in every cell, and what an analysis reports with 40 clusters."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--clusters", type=int, nargs="+", default=list(CLUSTERS))
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--source", choices=[*sorted(SOURCES), "both"], default="both")
    parser.add_argument("--skewed", action="store_true", help="exponential errors in place of normal ones")
    parser.add_argument("--detail", action="store_true", help="one line a cell and row: bias, standard error, df")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.process_time()
    if arguments.source in ("arrays", "both"):
        print(f"Coverage of 95 % intervals, {arguments.trials} trials a cell: functions on arrays.")
        print_table(arguments, "arrays", cells(arguments.designs, arguments.clusters), arguments.trials)
    if arguments.source in ("package", "both"):
        few = max(arguments.trials // 2, 1) if arguments.source == "both" else arguments.trials
        clusters = [40] if arguments.source == "both" else arguments.clusters
        chosen = (cell for cell in cells(arguments.designs, clusters) if not cell.get("weighted"))
        print(f"\nCoverage of 95 % intervals, {few} trials a cell: rows and posteriors of the package.")
        print_table(arguments, "package", chosen, few)
    print(f"\n{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
