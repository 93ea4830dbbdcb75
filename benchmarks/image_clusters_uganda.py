"""Image effect clusters on Uganda's trial: types, their effects, held-out gain over one type, unseen sites' ranking.

Random convolutional features (128, every fourth position), five components, noise by arm; the outcome is residualised
on x1, x3 and x5. It is far from normal: two thirds of the units share its smallest value, and with a noise of its own
for each type the types become those of that value, with an average effect far from the difference in means. The
ranking is that of five folds over sites for ten fold seeds with two types given, beside the same doubly robust scores
as in ``benchmarks/uganda.py``. Needs the folder that holds ``uganda_yop`` in the environment variable CAUSALSAT_DATA.

    python benchmarks/image_clusters_uganda.py [--seeds 10]
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
from causalsat import ImageEffectClusters, RandomConvFeatures
from causalsat.evaluation import crossfit_effects, crossfit_nuisances, dr_scores, rate
from causalsat.exceptions import CausalsatWarning


def model(study: Any, **more: Any) -> ImageEffectClusters:
    """The estimator for the study."""
    imagery = next(iter(study.imagery.values())) if isinstance(study.imagery, dict) else study.imagery
    return ImageEffectClusters(
        imagery=imagery,
        size_m=study.chip_size_m,
        covariates=("x1", "x3", "x5"),
        noise="arm",
        backbone=RandomConvFeatures(n_features=128, stride=4, random_state=0),
        random_state=0,
        **more,
    )


def ratios(study: Any, seeds: Sequence[int]) -> tuple[list[float], float]:
    """AUTOC over its standard error for each fold seed, and CPU seconds of five fits."""
    y, t, site = study.y, study.treatment, study.groups
    images = causalsat.image_model(study, covariates="ignore").named_steps["images"].fit_transform(study.X)
    features = pd.concat([images, study.X.drop(columns="geometry")], axis=1)
    estimator, out, cpu = model(study, n_clusters=2, n_draws=200, n_tune=200), [], []
    for seed in seeds:
        nuisances = crossfit_nuisances(features, y, treatment=t, groups=site, random_state=seed)
        start = time.process_time()
        found = crossfit_effects(
            estimator, study.X, y, treatment=t, groups=site, cv=5, random_state=seed, progress=False
        )
        cpu.append(time.process_time() - start)
        out.append(float(rate(found.tau, dr_scores(y, t, nuisances), groups=site, random_state=seed).ratio))
    return out, float(np.median(cpu))


def report(seeds: int) -> str:
    """Summary of the fit to all sites, and the ratios."""
    study = causalsat.load_study("uganda_yop")
    whole = model(study).fit(study.X, study.y, treatment=study.treatment, groups=study.groups)
    lines = [f"```\n{whole.summary()}\n```"]
    if seeds:
        found, cpu = ratios(study, range(seeds))
        head = " | ".join(str(seed) for seed in range(seeds))
        row = " | ".join(f"{ratio:.2f}" for ratio in found)
        lines.append(
            f"| AUTOC ratio, fold seed | {head} | mean | CPU s |\n|{'---|' * (seeds + 3)}\n"
            f"| two types | {row} | {np.mean(found):.2f} | {cpu:.1f} |"
        )
    return "\n\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="fold seeds; 0 for none")
    options = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        print(report(options.seeds))


if __name__ == "__main__":
    main()
