"""Uganda, five folds over sites: does the predicted effect rank places that the model has not seen?

AUTOC over its standard error for ten fold seeds, for image features alone, with covariates, covariates alone and
coordinates alone, with the default estimator; the doubly robust scores are the same for all. Priorities are ranked
over all units (pooled) and within the fold in which each was held out (``rate(folds=)``). The simple baseline is
256 random convolutional features, ten principal components and a ridge R-learner; each row's AUTOC less that of the
simple baseline comes with its paired standard error (the same half-samples of sites). Needs the data: the folder
that holds ``uganda_yop`` in the environment variable CAUSALSAT_DATA.

    python benchmarks/uganda.py [--seeds 10] [--models "images" "simple baseline"]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

import causalsat
from causalsat.analysis import average_effects
from causalsat.evaluation import crossfit_effects, crossfit_nuisances, dr_scores, permutation_test, rate
from causalsat.exceptions import CausalsatWarning

BASELINE = "simple baseline"
NOTE = (
    "The default model was chosen on simulated trials before these ten folds were run; three other fold seeds of the "
    "same data had been looked at with ten components while the parts were put together, so the data were not wholly "
    "unseen. Covariates are x1, x3 and x5: x2, x4 and x6 of the file are these times the treatment, and models that "
    "use them rank by leaked treatment. What the two ways of ranking do is seen where the truth is known (next "
    "section): over all units the AUTOC is understated, most for models that shrink, and single trials hardly tell "
    "good models from poor ones. The method that was chosen on simulated trials for ranking, images with the place's "
    "coordinates, is in uganda_seeds.py beside the simple baseline with the same covariates."
)
POOLED, WITHIN = "ranked over all units", "ranked within folds"


def models(study: Any) -> dict[str, tuple[Any, Any]]:
    """Model and X of each row of the table."""
    points = study.X.geometry
    coordinates = pd.DataFrame({"lon": points.x, "lat": points.y}, index=study.X.index)
    covariates = study.X.drop(columns="geometry")
    return {
        "images": (causalsat.image_model(study, covariates="ignore"), study.X),
        "images and covariates": (causalsat.image_model(study, covariates="modify"), study.X),
        "covariates alone": (causalsat.BayesianLinearEffect(random_state=0), covariates),
        "coordinates alone": (causalsat.BayesianLinearEffect(random_state=0), coordinates),
        BASELINE: (simple_baseline(study, "ignore"), study.X),
        "images, DoublyRobustEffect": (
            causalsat.image_model(study, causalsat.DoublyRobustEffect(random_state=0), covariates="ignore"),
            study.X,
        ),
    }


def simple_baseline(study: Any, covariates: str) -> Any:
    """The simple baseline, its effects varying with the covariates too or not."""
    return causalsat.image_model(
        study,
        causalsat.RLearnerEffect(n_bootstrap=50, random_state=0),
        encoder=causalsat.RandomConvFeatures(random_state=0),
        n_components=10,
        covariates=covariates,
    )


def run(seeds: Sequence[int], names: Sequence[str] | None = None) -> pd.DataFrame:
    """One row a model and seed: the two RATE results, CPU seconds of the five fits."""
    study = causalsat.load_study("uganda_yop")
    y, t, site = study.y, study.treatment, study.groups
    images = causalsat.image_model(study, covariates="ignore").named_steps["images"].fit_transform(study.X)
    features = pd.concat([images, study.X.drop(columns="geometry")], axis=1)
    rows = []
    for seed in seeds:
        nuisances = crossfit_nuisances(features, y, treatment=t, groups=site, random_state=seed)
        scores = dr_scores(y, t, nuisances)
        for name, (model, X) in models(study).items():
            if names is not None and name not in names:
                continue
            start = time.process_time()
            found = crossfit_effects(model, X, y, treatment=t, groups=site, cv=5, random_state=seed, progress=False)
            cpu = time.process_time() - start
            row = {"model": name, "seed": seed, "cpu": cpu}
            for ranked, folds in ((POOLED, None), (WITHIN, found.fold)):
                row[ranked] = rate(found.tau, scores, groups=site, folds=folds, random_state=seed)
            rows.append(row)
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame, ranked: str) -> str:
    """AUTOC of each model less the simple baseline's: mean over the fold seeds and mean paired standard error."""
    results = table.pivot(index="seed", columns="model", values=ranked)
    if BASELINE not in results:
        return ""
    lines = [
        f"| AUTOC less the simple baseline's, {ranked}, mean over seeds | difference | paired s.e. |",
        "|---|---|---|",
    ]
    for name in dict.fromkeys(table.model):
        if name != BASELINE:
            found = [mine - base for mine, base in zip(results[name], results[BASELINE], strict=True)]
            gap, se = np.mean([f.estimate for f in found]), np.mean([f.se for f in found])
            lines.append(f"| {name} | {gap:+.3f} | {se:.3f} |")
    return "\n".join(lines)


def tests(study: Any) -> str:
    """Average effect and permutation test, in words."""
    ols = average_effects(study.y, study.treatment, groups=study.groups).iloc[0]
    images = causalsat.image_model(study, covariates="ignore").named_steps["images"].fit_transform(study.X)
    found = permutation_test(images, study.y, study.treatment, groups=study.groups, n_permutations=999)
    return (
        f"Cluster-robust OLS: {ols.estimate:.4f} (se {ols.se:.4f}). Permutation test along the image features: "
        f"p = {found.p_value:.3f}."
    )


def to_markdown(table: pd.DataFrame, ranked: str) -> str:
    """Ratios of all seeds, their mean, and the CPU seconds of five fits."""
    wide = table.pivot(index="model", columns="seed", values=ranked).map(lambda result: result.ratio)
    wide = wide.loc[list(dict.fromkeys(table.model))]
    cpu = table.groupby("model").cpu.median()
    head = " | ".join(f"{seed}" for seed in wide.columns)
    lines = [
        f"| {name} | {' | '.join(f'{v:.2f}' for v in row)} | {np.mean(row):.2f} | {cpu[name]:.1f} |"
        for name, row in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    return "\n".join(
        [
            f"| AUTOC ratio, {ranked}, fold seed | {head} | mean | CPU s |",
            "|---" * (len(wide.columns) + 3) + "|",
            *lines,
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--models", nargs="+", help="rows of the table; all without it")
    options = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        table = run(range(options.seeds), options.models)
        for ranked in (POOLED, WITHIN):
            print(to_markdown(table, ranked), differences(table, ranked), sep="\n\n", end="\n\n")
        print(tests(causalsat.load_study("uganda_yop")), NOTE, sep="\n\n")


if __name__ == "__main__":
    main()
