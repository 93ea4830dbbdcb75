"""Uganda: how each estimator ranks unseen sites by the same image features, and its average effect beside OLS.

The features (``causalsat.image_model``'s, images only) are fitted once for each training fold of each fold seed and
are the same for all estimators, as are folds and doubly robust scores (those of benchmarks/uganda.py). AUTOC ratio:
AUTOC over its standard error, units ranked within the fold in which they were held out (``rate(folds=)``); one column
has the mean over the seeds where all units are ranked together. The average effect is that of a fit to all
units, with its 95 % interval, beside cluster-robust OLS. Meta-learners have 50 replicates; the forest has two chains
and BayesianLinearEffect four for the average effect, and one each where only their mean effects rank units; the
stack's members are DoublyRobustEffect and, with five replicates, RLearnerEffect and TLearnerEffect, in three folds.
Finished rows are kept (benchmarks/kept_rows.py). Needs the data, as benchmarks/uganda.py does.

    python benchmarks/uganda_estimators.py [--only RLearnerEffect ...] [--seeds 10]
"""

from __future__ import annotations

import argparse
import hashlib
import time
import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from kept_rows import folder, kept_row
from sklearn.base import clone

import causalsat
from causalsat.analysis import average_effects
from causalsat.evaluation import crossfit_effects, crossfit_nuisances, dr_scores, rate
from causalsat.exceptions import CausalsatWarning

N_FOLDS = 5
BOOT = {"n_bootstrap": 50, "random_state": 0}


def features_without_folds(images: Any, X: Any, fold: np.ndarray) -> list[np.ndarray]:
    """For each fold, features of all units from an encoder fitted to the units outside it."""
    found = []
    for k in np.unique(fold):
        encoder = clone(images)
        train, test = np.asarray(encoder.fit_transform(X[fold != k])), np.asarray(encoder.transform(X[fold == k]))
        table = np.empty((len(fold), train.shape[1]))
        table[fold != k], table[fold == k] = train, test
        found.append(table)
    return found


def held_out_effects(
    model: Any, tables: Sequence[pd.DataFrame], y: np.ndarray, t: np.ndarray, site: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Effect of each unit from a clone of the model fitted to the other folds, with the features of its fold."""
    tau = np.empty(len(fold))
    for k, table in enumerate(tables):
        train = fold != k
        fitted = clone(model).fit(table[train], y[train], treatment=t[train], groups=site[train])
        tau[~train] = fitted.predict(table[~train])
    return tau


class Uganda:
    """The study, its default image features on each training fold, and the scores that judge."""

    @cached_property
    def study(self) -> Any:
        """Units, outcome, treatment, sites, imagery."""
        return causalsat.load_study("uganda_yop")

    @cached_property
    def pipeline(self) -> Any:
        """The default model: its first step makes the features, its last is the default estimator."""
        return causalsat.image_model(self.study, covariates="ignore")

    @cached_property
    def features(self) -> pd.DataFrame:
        """Features fitted on all units."""
        return clone(self.pipeline.named_steps["images"]).fit_transform(self.study.X)

    @cached_property
    def key(self) -> str:
        """What decides the features, in eight digits."""
        return hashlib.sha256(repr(self.pipeline.named_steps["images"]).encode()).hexdigest()[:8]

    def scores(self, seed: int) -> np.ndarray:
        """Doubly robust scores of a fold seed, as in benchmarks/uganda.py."""
        study = self.study
        table = pd.concat([self.features, study.X.drop(columns="geometry")], axis=1)
        found = crossfit_nuisances(table, study.y, treatment=study.treatment, groups=study.groups, random_state=seed)
        return dr_scores(study.y, study.treatment, found)

    def folds(self, seed: int) -> np.ndarray:
        """Fold of each unit: that of any model cross-fitted with this seed."""
        study, constant = self.study, np.zeros((len(self.study.y), 1))
        model = causalsat.DoublyRobustEffect(n_draws=2)
        found = crossfit_effects(
            model,
            constant,
            study.y,
            treatment=study.treatment,
            groups=study.groups,
            cv=N_FOLDS,
            random_state=seed,
            progress=False,
        )
        return found.fold

    def fold_features(self, seed: int) -> tuple[np.ndarray, list[pd.DataFrame]]:
        """Folds, and for each the features of all units, fitted without it; kept on disk."""
        path = folder() / f"uganda-{self.key}-{seed}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fold = self.folds(seed)
            made = features_without_folds(self.pipeline.named_steps["images"], self.study.X, fold)
            np.savez(path, fold=fold, **{f"f{k}": table for k, table in enumerate(made)})
        with np.load(path) as file:
            names = list(self.features.columns)
            tables = [pd.DataFrame(file[f"f{k}"], columns=names) for k in np.unique(file["fold"])]
            return file["fold"], tables

    def ranking(self, model: Any, seed: int) -> dict[str, float]:
        """AUTOC ratios of effects predicted for the held-out sites, and the CPU seconds of the five fits."""
        fold, tables = self.fold_features(seed)
        study, start = self.study, time.process_time()
        one = {"n_chains": 1} if "n_chains" in model.get_params() else {}
        y, t, site = (np.asarray(values) for values in (study.y, study.treatment, study.groups))
        tau = held_out_effects(clone(model).set_params(**one), tables, y, t, site, fold)
        cpu = time.process_time() - start
        scores = self.scores(seed)
        within, pooled = (
            rate(tau, scores, groups=site, folds=folds, random_state=seed).ratio for folds in (fold, None)
        )
        return {"within": within, "pooled": pooled, "cpu": cpu}

    def average(self, model: Any) -> dict[str, float]:
        """Average effect with its 95 % interval, from a fit to all units."""
        study, table = self.study, self.features
        start = time.process_time()
        fitted = clone(model).fit(table, study.y, treatment=study.treatment, groups=study.groups)
        ate = fitted.effect(table).ate()
        lower, upper = ate.interval(0.95)[0]
        return {"ate": float(ate), "lower": lower, "upper": upper, "cpu": time.process_time() - start}


def models(data: Uganda) -> dict[str, Any]:
    """Estimator of each row; BayesianLinearEffect with ``image_model``'s settings."""
    few = {"n_bootstrap": 5, "random_state": 0}
    members = [
        ("robust", causalsat.DoublyRobustEffect(random_state=0)),
        ("r_learner", causalsat.RLearnerEffect(**few)),
        ("t_learner", causalsat.TLearnerEffect(**few)),
    ]
    return {
        "DoublyRobustEffect": causalsat.DoublyRobustEffect(random_state=0),
        "RLearnerEffect": causalsat.RLearnerEffect(**BOOT),
        "DRLearnerEffect": causalsat.DRLearnerEffect(**BOOT),
        "TLearnerEffect": causalsat.TLearnerEffect(**BOOT),
        "XLearnerEffect": causalsat.XLearnerEffect(**BOOT),
        "StackedEffect": causalsat.StackedEffect(members, cv=3, random_state=0),
        "GaussianProcessEffect": causalsat.GaussianProcessEffect(random_state=0),
        "BayesianForestEffect": causalsat.BayesianForestEffect(n_chains=2, random_state=0),
        "BayesianLinearEffect": data.pipeline.named_steps["effect"],
    }


def run(names: Sequence[str] = (), seeds: int = 10) -> str:
    """The table; rows not kept are made, estimator by estimator."""
    data = Uganda()
    n = min(seeds, 10)
    head = " | ".join(str(seed) for seed in range(n))
    means = "mean | mean, over all units"
    lines = [
        f"| AUTOC ratio, ranked within folds, fold seed | {head} | {means} | CPU s | ATE (95 % interval) | CPU s |"
    ]
    lines.append("|---" * (n + 6) + "|")
    study = data.study
    for name, model in models(data).items():
        if names and name not in names:
            continue
        make = partial(kept_row, "uganda_estimators")
        average = make(key=f"{data.key}/{name}/average", make=partial(data.average, model))
        rows = [make(key=f"{data.key}/{name}/{seed}", make=partial(data.ranking, model, seed)) for seed in range(n)]
        cells = [f"{row['within']:.2f}" for row in rows]
        means = " | ".join(f"{np.mean([row[ranked] for row in rows]):.2f}" for ranked in ("within", "pooled"))
        cpu = f"{np.median([row['cpu'] for row in rows]):.1f}"
        ate = "{ate:.3f} ({lower:.3f} to {upper:.3f}) | {cpu:.1f}".format(**average)
        lines.append(f"| {name} | {' | '.join(cells)} | {means} | {cpu} | {ate} |")
    ols = average_effects(study.y, study.treatment, groups=study.groups).iloc[0]
    lines.append(
        f"| cluster-robust OLS {'| ' * (n + 3)}| {ols.estimate:.3f} ({ols.lower:.3f} to {ols.upper:.3f}) | |"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        print(run(options.only, options.seeds))


if __name__ == "__main__":
    main()
