"""Image effect clusters on simulated satellite trials with a known effect.

Scene types: two types of image with effects of their own; kernel: an effect that varies continuously with the largest
response of the image to a fixed kernel, 2,000 units on 500 images; none: the same effect everywhere. Seeds 100, 101,
...; the model's settings were chosen on seeds 0 to 3. Coverage: on each landscape of the scene types assignment and
outcomes are drawn several times, with two clusters given. Rows are kept (see kept_rows.py).

    python benchmarks/image_clusters.py [--seeds 10] [--kernel 5] [--draws 4] [--cnn 5]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import kept_rows
import numpy as np

import causalsat
from causalsat import ImageEffectClusters
from causalsat.exceptions import CausalsatWarning
from causalsat.simulate import satellite_trial

COVARIATES = ("age", "female", "schooling", "household_size", "assets", "road_km")
SIZES = {"kernel": {"n_sites": 500, "size_px": 1152}}
FIRST_SEED = 100


def trial(variant: str, seed: int) -> tuple[Any, Any]:
    """Simulated trial of 2,000 units, and chips of its sites with the site of each unit."""
    made = satellite_trial(variant, n_units=2000, seed=seed, **SIZES.get(variant, {}))
    return made, causalsat.open_imagery(made.imagery)


def model(made: Any, imagery: Any, **more: Any) -> ImageEffectClusters:
    """The estimator for a trial; random convolutional features unless another backbone is given."""
    options = {"backbone": "random_conv", "covariates": COVARIATES, "random_state": 0, **more}
    return ImageEffectClusters(imagery=imagery, size_m=made.truth["chip_m"], **options)


def fit(estimator: ImageEffectClusters, units: Any) -> ImageEffectClusters:
    """Fit to the units of a simulated trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return estimator.fit(units, units["outcome"], treatment="treatment", groups="site")


def judge(variant: str, seed: int, **more: Any) -> dict[str, float]:
    """Number of clusters, adjusted Rand index, and accuracy of the effects of the trial's places and of new ones."""
    from sklearn.metrics import adjusted_rand_score

    made, imagery = trial(variant, seed)
    start = time.process_time()
    estimator = fit(model(made, imagery, **more), made.units)
    cpu = time.process_time() - start
    sites = made.units.drop_duplicates("site")
    row: dict[str, float] = {"K": estimator.n_clusters_, "cpu": cpu}
    if variant == "scene_types":
        row["ari"] = adjusted_rand_score(sites["scene"], estimator.predict_cluster(sites))
    for name, places in (("sites", sites), ("new places", made.places.iloc[:400])):
        posterior, truth = estimator.effect(places), places["tau"].to_numpy()
        lower, upper = posterior.interval(0.9).T
        error = posterior.mean() - truth
        row[f"rmse {name}"] = float(np.sqrt(np.mean(error**2)))
        row[f"cover {name}"] = float(np.mean((lower < truth) & (truth < upper)))
        if truth.std() > 1e-6:
            row[f"R2 {name}"] = 1 - float(np.mean(error**2) / truth.var())
    return row


def kept(key: str, make: Callable[[], kept_rows.Row]) -> kept_rows.Row:
    """A row of this benchmark, made if it is not there."""
    return kept_rows.kept_row("image_clusters", key, make)


def coverage(seed: int, draws: int) -> kept_rows.Row:
    """Whether the 90 % intervals of both cluster effects cover the truth, for several draws of one landscape."""
    made, imagery = trial("scene_types", seed)
    truth = made.settings.tau_mean + made.settings.tau_sd * np.array([-1.0, 1.0])
    out = []
    for draw in range(draws):
        units = made.draw_outcomes(1000 * seed + draw).units
        effects = fit(model(made, imagery, n_clusters=2), units).cluster_effects(0.9)
        out.append(tuple(((effects["lower"] < truth) & (truth < effects["upper"])).tolist()))
    return {"holds": out}


def simulated(many: dict[str, int], cnn: int) -> str:
    """Table of means over seeds; the trained network on the first few of the scene types."""
    lines = [
        "| effect, backbone | seeds | K chosen | adjusted Rand index: mean, least, seeds with 0.8 | R2 sites "
        "| R2 new places | sqrt-PEHE new places | 90 % intervals cover: sites, new places | CPU s a fit, median |",
        "|---" * 9 + "|",
    ]
    for variant, seeds in many.items():
        for backbone, n in (("random_conv", seeds), ("cnn", min(cnn, seeds) if variant == "scene_types" else 0)):
            if not n:
                continue
            rows = [
                kept(f"{variant}|{backbone}|{seed}", partial(judge, variant, seed, backbone=backbone))
                for seed in range(FIRST_SEED, FIRST_SEED + n)
            ]

            def mean(name: str, rows: Any = rows) -> str:
                return f"{np.mean([row[name] for row in rows]):.2f}" if name in rows[0] else ""

            index = np.array([row["ari"] for row in rows if "ari" in row])
            ari = f"{index.mean():.2f}, {index.min():.2f}, {(index >= 0.8).sum()} of {n}" if len(index) else ""
            chosen = " ".join(f"{row['K']:.0f}" for row in rows)
            lines.append(
                f"| {variant}, {backbone} | {n} | {chosen} | {ari} | {mean('R2 sites')} | {mean('R2 new places')} "
                f"| {mean('rmse new places')} | {mean('cover sites')}, {mean('cover new places')} "
                f"| {np.median([row['cpu'] for row in rows]):.1f} |"
            )
    return "\n".join(lines)


def covered(seeds: int, draws: int) -> str:
    """Coverage of the cluster effects, in words."""
    each = [
        kept(f"cover|{draws}|{seed}", partial(coverage, seed, draws))
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
    ]
    found = np.array([pair for row in each for pair in row["holds"]])
    rate = found.mean()
    se = found.reshape(seeds, -1).mean(axis=1).std(ddof=1) / np.sqrt(seeds)
    lower, upper = found.mean(axis=0)
    return (
        f"90 % intervals of the {found.size} cluster effects (two types, {seeds} landscapes, {draws} draws each) "
        f"cover the truth: {rate:.3f} (s.e. {se:.3f}); lower type {lower:.3f}, upper type {upper:.3f}."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--draws", type=int, default=4, help="draws for the coverage, on each landscape; 0 for none")
    parser.add_argument("--kernel", type=int, default=5, help="seeds of the kernel's effect")
    parser.add_argument(
        "--cnn", type=int, default=5, help="seeds of the scene types that are fitted by the trained network too"
    )
    options = parser.parse_args(argv)
    many = {"scene_types": options.seeds, "kernel": options.kernel, "none": options.seeds}
    print(simulated(many, options.cnn), flush=True)
    if options.draws:
        print("\n" + covered(options.seeds, options.draws), flush=True)


if __name__ == "__main__":
    main()
