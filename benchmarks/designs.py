"""Coverage of 95 % intervals of average effects, by design: strata, pairs, clusters, weights; size of the tests.

python benchmarks/designs.py [--trials 200] [--clusters 12 20 40 200] [--designs none blocked pairs] [--detail]
python benchmarks/designs.py --source encoders --trials 60
python benchmarks/designs.py --source heterogeneity --trials 200

Designs have two arms and 12 to 200 clusters of equal or uneven (lognormal) size: without strata; two blocks with
treated shares of .25 and .70, a gap of 2 between them, effects of 0.5 and 1.5; pairs of clusters; each also with
survey weights, and with single units in place of clusters. Effects also vary from cluster to cluster, which makes the
treated noisier, and 30 % of the errors' variance is common to a cluster.

``SOURCES`` names what is asked for estimates: a function from a :class:`Trial` to rows of :class:`Answer`. The truth
of a row is that of its estimand.

``encoders``: how often the permutation test of an analysis rejects a constant effect at 5 %, with each encoder.
``heterogeneity``: how often tests of cross-fitted predictions do, and how often their intervals cover.
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

    from causalsat import DoublyRobustEffect
    from causalsat.design import make_design
    from causalsat.evaluation import crossfit_nuisances, dr_scores, gates
    from causalsat.evaluation.average_effects import average_effects, score_average

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
    model = DoublyRobustEffect(**folds)
    rows["DoublyRobustEffect, posterior"] = _posterior(model.fit(x, y, design=design), trial)
    if trial.strata is not None:
        given = {"groups": trial.clusters, "sample_weight": trial.weights, "propensity": trial.propensity}
        stated = DoublyRobustEffect(**folds).fit(x, y, treatment=t, **given)
        rows["DoublyRobustEffect, given e"] = _posterior(stated, trial)
    return rows


def posterior_rows(trial: Trial) -> dict[str, Answer]:
    """Average effects of models of outcomes, which see a design by weights and by the strata's levels."""
    from causalsat import BayesianLinearEffect, TLearnerEffect
    from causalsat.design import make_design

    roles = {"groups": trial.clusters, "strata": trial.strata, "sample_weight": trial.weights}
    design, x = make_design(trial.treatment, **roles), trial.covariate[:, None]
    models = (TLearnerEffect(n_bootstrap=100), BayesianLinearEffect())
    return {type(m).__name__: _posterior(m.fit(x, trial.y, design=design), trial) for m in models}


def _posterior(model: Any, trial: Trial) -> Answer:
    average = model.effect(trial.covariate[:, None]).ate(trial.weights)
    low, high = average.interval(0.95)[0]
    return Answer(float(average), average.sd()[0], np.nan, low, high, trial.truth())


def _tabled(row: Any, truth: float) -> Answer:
    return Answer(row["estimate"], row["se"], row["df"], row["lower"], row["upper"], truth)


SOURCES: dict[str, Callable[[Trial], dict[str, Answer]]] = {
    "arrays": array_rows,
    "package": package_rows,
    "posteriors": posterior_rows,
}


# ---------------------------------------------------------------------- heterogeneity that is not there
def label_free_encoders() -> dict[str, Any]:
    """Each encoder that is made without outcomes, small."""
    import torch

    import causalsat as cs

    network = torch.nn.Sequential(torch.nn.Conv2d(6, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    return {
        "RandomConvFeatures": cs.RandomConvFeatures(32, statistics=True),
        "PyramidFeatures": cs.PyramidFeatures(4),
        "TorchvisionEncoder": cs.TorchvisionEncoder("resnet18", image_px=64, device="cpu"),
        "ModuleEncoder": cs.ModuleEncoder(network, device="cpu"),
        "SelfSupervisedEncoder": cs.SelfSupervisedEncoder(width=8, max_epochs=3, device="cpu"),
        "SequenceEncoder": cs.SequenceEncoder(cs.RandomConvFeatures(16)),
    }


def trained_encoders() -> dict[str, Any]:
    """Each encoder that is trained on outcomes, small."""
    import torch

    import causalsat as cs

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(6, 6, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 3, 2))
    small = {"n_folds": 2, "max_epochs": 4}
    return {
        "SupervisedEncoder": cs.SupervisedEncoder(
            cs.RandomConvFeatures(16, statistics=True), n_components=6, **small
        ),
        "FineTunedEncoder": cs.FineTunedEncoder(cs.ModuleEncoder(network, device="cpu"), device="cpu", **small),
        "LearnedFilters": cs.LearnedFilters(targets="effect", max_px=8),
    }


def encoder_rows(trials: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rejections of a constant effect by the permutation test of an analysis, and along an encoder's own features."""
    import causalsat as cs
    from causalsat.analysis.main import features_of_tests
    from causalsat.simulate import satellite_trial

    size = {"n_units": 300, "n_sites": 60, "size_px": 384, "seed": 5}
    world, dated = (satellite_trial("none", n_dates=dates, **size).study() for dates in (None, 2))
    learner = cs.DoublyRobustEffect(modifiers="img*")
    images = cs.image_model(world, learner, n_components=6).steps[0][1].fit(world.X).transform(world.X)
    base = np.asarray(images["img1"] / images["img1"].std())
    for name, encoder in {**label_free_encoders(), **trained_encoders()}.items():
        trained = name in trained_encoders()
        still = dated if name == "SequenceEncoder" else world
        model = cs.image_model(
            still, learner, encoder=encoder, n_components=None if trained else 6, covariates="ignore"
        )
        if not trained:
            model.steps[0][1].fit(still.X)
        p_values = []
        for k in range(trials):
            study = constant_effect(still, base, np.random.default_rng([seed, k]))
            if trained:
                study.fit(model)
            own = model.steps[0][1].transform(study.X).filter(like="img").to_numpy() if trained else None
            latents, _, _ = features_of_tests(model, study, 0)
            p_values.append([_permuted(study, latents), np.nan if own is None else _permuted(study, own)])
        rejected = (np.array(p_values) <= 0.05).mean(axis=0)
        yield {
            "encoder": name,
            "trials": trials,
            "analysis rejects": round(rejected[0], 3),
            "Monte Carlo error": round(float(np.sqrt(0.05 * 0.95 / trials)), 3),
            "along its own features": round(rejected[1], 3) if trained else "",
        }


def constant_effect(world: Any, base: np.ndarray, rng: np.random.Generator) -> Any:
    """A trial of an effect of 1 everywhere, at the world's sites, whose outcomes follow the images."""
    code = np.unique(world.groups, return_inverse=True)[1]
    t = (rng.permutation(code.max() + 1) % 2)[code].astype(float)
    y = t + base + 0.5 * rng.standard_normal(code.max() + 1)[code] + rng.standard_normal(len(code))
    return world.replace(units=world.units.assign(outcome=y, treatment=t), propensity=None)


def _permuted(study: Any, features: np.ndarray) -> float:
    from causalsat.evaluation import permutation_test

    return permutation_test(features, study.y, design=study.design, n_permutations=99).p_value


def heterogeneity_rows(trials: int, seed: int) -> Iterator[dict[str, Any]]:
    """Tests of cross-fitted effects without and with heterogeneity, and RATE of priorities from other data."""
    for spread, (n_clusters, uneven) in itertools.product((0.0, 0.6), ((60, False), (40, True))):
        rng = np.random.default_rng([seed, n_clusters, int(10 * spread)])
        found = np.array([_judged(rng, spread, n_clusters, uneven) for _ in range(trials)])
        slope, gap, autoc, other = found.T
        yield {
            "effect's sd": spread,
            "clusters": f"{n_clusters} {'uneven' if uneven else 'equal'}",
            "BLP slope covers": round(float(slope.mean()), 3),
            "GATES difference covers": round(float(gap.mean()), 3),
            "AUTOC covers": round(float(autoc.mean()), 3),
            "AUTOC of another priority covers 0": round(float(other.mean()), 3),
        }


def _judged(rng: np.random.Generator, spread: float, n_clusters: int, uneven: bool) -> list[bool]:
    """Whether 95 % intervals cover what the given predictions deserve."""
    from causalsat import DoublyRobustEffect
    from causalsat.design import make_design
    from causalsat.evaluation import blp, crossfit_effects, crossfit_nuisances, dr_scores, gates, rate

    size = np.full(n_clusters, 10)
    if uneven:
        size = np.maximum(2, np.round(10 * rng.lognormal(-0.5, 1, n_clusters))).astype(int)
    code = np.repeat(np.arange(n_clusters), size)
    X = rng.standard_normal((n_clusters, 3))[code]
    t = (rng.permutation(n_clusters) % 2)[code].astype(float)
    tau = 1 + spread * X[:, 0]
    y = tau * t + 0.5 * X[:, 2] + 0.4 * rng.standard_normal(n_clusters)[code] + rng.standard_normal(len(code))
    design = make_design(t, groups=code)
    held = crossfit_effects(DoublyRobustEffect(), X, y, design=design, progress=False)
    gamma = dr_scores(y, t, crossfit_nuisances(X, y, t, groups=code))
    roles = {"folds": held.fold, "design": design}
    line, thirds = blp(held.tau, gamma, **roles), gates(held.tau, gamma, n_groups=3, **roles)
    autoc = rate(held.tau, gamma, n_bootstrap=100, **roles)
    centred = held.tau - (np.bincount(held.fold, held.tau) / np.bincount(held.fold))[held.fold]
    lowest, highest = tau[thirds.group == 0].mean(), tau[thirds.group == 2].mean()
    bounds = thirds.to_dataframe().iloc[-1]
    deserved = rate(held.tau, tau, n_bootstrap=0, **roles).estimate
    other = rate(X[:, 1], gamma, design=design, n_bootstrap=100).interval()
    return [
        _within(line.interval(), centred @ tau / (centred @ centred)),
        _within((bounds["lower"], bounds["upper"]), highest - lowest),
        _within(autoc.interval(), deserved),
        _within(other, 0.0),
    ]


def _within(bounds: tuple[float, float], value: float) -> bool:
    return bool(bounds[0] <= value <= bounds[1])


TESTS: dict[str, Callable[[int, int], Iterator[dict[str, Any]]]] = {
    "encoders": encoder_rows,
    "heterogeneity": heterogeneity_rows,
}


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
            columns = print_row(row, columns)


def print_row(row: dict[str, Any], columns: list[str] | None) -> list[str]:
    """A line of a table, after its header where the columns are others; the columns."""
    if columns != list(row):
        print("\n| " + " | ".join(row) + " |\n|" + "---|" * len(row))
    print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    return list(row)


def main() -> None:
    """Print the tables: functions on arrays in every cell, and what an analysis reports with 40 clusters."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--clusters", type=int, nargs="+", default=list(CLUSTERS))
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--source", choices=[*sorted(SOURCES), *sorted(TESTS), "both"], default="both")
    parser.add_argument("--skewed", action="store_true", help="exponential errors in place of normal ones")
    parser.add_argument("--detail", action="store_true", help="one line a cell and row: bias, standard error, df")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.process_time()
    if arguments.source in ("arrays", "both"):
        print(f"Coverage of 95 % intervals, {arguments.trials} trials a cell: functions on arrays.")
        print_table(arguments, "arrays", cells(arguments.designs, arguments.clusters), arguments.trials)
    for source in ("package", "posteriors"):
        if arguments.source not in (source, "both"):
            continue
        few = max(arguments.trials // 2, 1) if arguments.source == "both" else arguments.trials
        clusters = [40] if arguments.source == "both" else arguments.clusters
        chosen = (cell for cell in cells(arguments.designs, clusters) if not cell.get("weighted"))
        print(f"\nCoverage of 95 % intervals, {few} trials a cell: {source}.")
        print_table(arguments, source, chosen, few)
    if arguments.source in TESTS:
        columns: list[str] | None = None
        for row in TESTS[arguments.source](arguments.trials, arguments.seed):
            columns = print_row(row, columns)
    print(f"\n{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
