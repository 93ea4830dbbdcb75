"""Image effect clusters on Uganda's trial: types, their effects, held-out gain over one type, unseen sites' ranking.

Random convolutional features (128, every fourth position), eight components; the outcome is residualised on x1, x3
and x5. It is far from normal: two thirds of the units share its smallest value. The ranking is that of five folds
over sites for ten fold seeds with two types given, beside the same doubly robust scores as in
``benchmarks/uganda.py``, over all units and within folds. The second fit is that of the network trained end to end
(one seed), whose ranking is that of the first fold seeds. Rows of the ranking are kept (see kept_rows.py). Needs
the folder that holds ``uganda_yop`` in the environment variable CAUSALSAT_DATA.

    python benchmarks/image_clusters_uganda.py [--seeds 10] [--cnn 1]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import kept_rows
import numpy as np
import pandas as pd

import causalsat
from causalsat import ImageEffectClusters, RandomConvFeatures
from causalsat.evaluation import crossfit_effects, crossfit_nuisances, dr_scores, rate
from causalsat.exceptions import CausalsatWarning

FROZEN, TRAINED = "frozen features", "trained network"


def model(study: Any, backbone: str = FROZEN, **more: Any) -> ImageEffectClusters:
    """The estimator for the study."""
    imagery = next(iter(study.imagery.values())) if isinstance(study.imagery, dict) else study.imagery
    features = RandomConvFeatures(n_features=128, stride=4, random_state=0)
    return ImageEffectClusters(
        imagery=imagery,
        size_m=study.chip_size_m,
        covariates=("x1", "x3", "x5"),
        backbone=features if backbone == FROZEN else "cnn",
        random_state=0,
        **more,
    )


@cache
def table(study: Any) -> Any:
    """Image features and covariates of the units."""
    images = causalsat.image_model(study, covariates="ignore").named_steps["images"].fit_transform(study.X)
    return pd.concat([images, study.X.drop(columns="geometry")], axis=1)


@cache
def nuisances(study: Any, seed: int) -> Any:
    """Doubly robust scores of a fold seed."""
    features = table(study)
    found = crossfit_nuisances(features, study.y, treatment=study.treatment, groups=study.groups, random_state=seed)
    return dr_scores(study.y, study.treatment, found)


def ranking(study: Any, backbone: str, seed: int) -> kept_rows.Row:
    """AUTOC over its standard error, over all units and within folds, and CPU seconds of five fits."""
    scores = nuisances(study, seed)
    start = time.process_time()
    found = crossfit_effects(
        model(study, backbone, n_clusters=2, n_draws=200, n_tune=200),
        study.X,
        study.y,
        treatment=study.treatment,
        groups=study.groups,
        cv=5,
        random_state=seed,
        progress=False,
    )
    row: kept_rows.Row = {"cpu": time.process_time() - start}
    for name, folds in (("all", None), ("within", found.fold)):
        row[name] = float(rate(found.tau, scores, groups=study.groups, folds=folds, random_state=seed).ratio)
    return row


def whole(study: Any, backbone: str) -> kept_rows.Row:
    """Summary of the fit to all sites."""
    est = model(study, backbone).fit(study.X, study.y, treatment=study.treatment, groups=study.groups)
    return {"summary": str(est.summary())}


def ranked(study: Any, backbone: str, seeds: int) -> list[str]:
    """Rows of the table of ratios."""
    rows = [
        kept_rows.kept_row("image_clusters_uganda", f"{backbone}|{seed}", partial(ranking, study, backbone, seed))
        for seed in range(seeds)
    ]
    cpu = np.median([row["cpu"] for row in rows])
    lines = []
    for name, words in (("all", "ranked over all units"), ("within", "ranked within folds")):
        ratios = [row[name] for row in rows]
        cells = [f"{ratio:.2f}" for ratio in ratios]
        lines.append(f"| {backbone}, {words} | {' '.join(cells)} | {np.mean(ratios):.2f} | {cpu:.1f} |")
    return lines


def report(seeds: int, trained: int) -> str:
    """Summaries of the fits to all sites, and the ratios."""
    study = causalsat.load_study("uganda_yop")
    lines = []
    for backbone in (FROZEN, TRAINED):
        text = kept_rows.kept_row("image_clusters_uganda", f"{backbone}|all sites", partial(whole, study, backbone))
        lines.append(f"{backbone.capitalize()}:\n\n```\n{text['summary']}\n```")
    if seeds:
        rows = ranked(study, FROZEN, seeds) + (ranked(study, TRAINED, trained) if trained else [])
        head = "| two types | AUTOC ratio, fold seeds 0, 1, ... | mean | CPU s |\n|---|---|---|---|\n"
        lines.append(head + "\n".join(rows))
    return "\n\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="fold seeds; 0 for none")
    parser.add_argument("--cnn", type=int, default=1, help="fold seeds of the trained network; 0 for none")
    options = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        print(report(options.seeds, options.cnn))


if __name__ == "__main__":
    main()
