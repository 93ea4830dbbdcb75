"""Coverage of the intervals of district means: joint draws against cells taken as independent.

Each landscape is cut into 25 square districts, most of them without a trial place. Assignment and noise are drawn
several times on each landscape; each time a model is fitted to the trial and 90 % intervals of the district means
are compared with the true means over all pixels. Estimators have their default numbers of draws. Rows are kept (see
kept_rows.py) by landscape and estimator.

    python benchmarks/districts.py [--landscapes 24] [--draws 6] [--slow 3]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import causalsat
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.estimators.linear.estimator import BayesianLinearEffect
from causalsat.estimators.meta.learners import TLearnerEffect
from causalsat.exceptions import CausalsatWarning
from causalsat.mapping import district_effects
from causalsat.simulate import satellite_trial

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kept_rows import kept_row

SIDE = 5  # districts along a side


def squares(trial: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Districts, their true mean effects, and which of them lie in the trial's region."""
    import geopandas as gpd
    import shapely

    land = trial.landscape
    edges = np.linspace(0, land.size_px, SIDE + 1).round().astype(int)
    shapes, truth = [], []
    for r0, r1 in itertools.pairwise(edges):
        for c0, c1 in itertools.pairwise(edges):
            west, north = land.xy(np.array([r0 - 0.5]), np.array([c0 - 0.5]))
            east, south = land.xy(np.array([r1 - 0.5]), np.array([c1 - 0.5]))
            shapes.append(shapely.box(float(west[0]), float(south[0]), float(east[0]), float(north[0])))
            truth.append(trial.tau_map.values[r0:r1, c0:c1].mean())
    table = gpd.GeoDataFrame(geometry=shapes, crs=land.crs)
    inside = table.centroid.within(trial.region).to_numpy()
    return table, np.array(truth), inside


def estimators() -> dict[str, Any]:
    """Cheap ones, and the default of image_model."""
    return {
        "DoublyRobustEffect": DoublyRobustEffect(),
        "TLearnerEffect": TLearnerEffect(),
        "BayesianLinearEffect": BayesianLinearEffect(modifiers="img*", ordered="img*", prior="normal"),
    }


def one(trial: Any, model: Any, places: tuple[Any, np.ndarray, np.ndarray], level: float = 0.9) -> dict[str, float]:
    """Fit the effect step and judge the districts."""
    from scipy.stats import norm

    districts, truth, inside = places
    start = time.process_time()
    images, estimator = model.named_steps["images"], model.named_steps["effect"]
    units = trial.units
    estimator.fit(images.transform(units), units["outcome"], treatment=units["treatment"], groups=units["site"])
    found = district_effects(model, trial.study().imagery, districts, 300.0, level=level, progress=False)
    table = found.table
    hit = ((table["lower"] < truth) & (truth < table["upper"])).to_numpy()
    half = norm.ppf(0.5 + level / 2) * table["sd_independent"]
    return {
        "coverage": float(hit.mean()),
        "in the region": float(hit[inside].mean()),
        "outside": float(hit[~inside].mean()),
        "independent cells": float((np.abs(table["mean"] - truth) < half).mean()),
        "rmse": float(np.sqrt(np.mean((table["mean"] - truth) ** 2))),
        "sd": float(table["sd"].mean()),
        "cpu": time.process_time() - start,
    }


def run(landscapes: int = 24, draws: int = 6, slow: int = 3, first_seed: int = 4000) -> dict[str, list[Any]]:
    """Rows (landscape, draw) by estimator; those that are kept are not made again."""
    rows: dict[str, list[list[dict[str, float]]]] = {}
    worlds = {seed: Landscape(seed) for seed in range(first_seed, first_seed + landscapes)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        for name in estimators():
            count = {"DoublyRobustEffect": draws, "BayesianLinearEffect": slow}.get(name, 2)
            rows[name] = [
                [dict(kept_row("districts", f"{name} {seed} {k}", lambda w=world, n=name, k=k: w.judge(n, k)))
                 for k in range(count)]
                for seed, world in worlds.items()
            ]  # fmt: skip
    return rows


class Landscape:
    """A landscape with its districts and its encoder, made when it is first needed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @functools.cached_property
    def parts(self) -> tuple[Any, Any, tuple[Any, np.ndarray, np.ndarray]]:
        """The trial, the model whose encoder is fitted, the districts."""
        trial = satellite_trial("smooth", n_units=1500, n_sites=150, size_px=576, seed=self.seed)
        study, places = trial.study(), squares(trial)
        encoder = causalsat.RandomConvFeatures(n_features=64, statistics=True)
        model = causalsat.image_model(study, encoder=encoder, n_components=12, covariates="ignore")
        model.named_steps["images"].fit(study.X)
        return trial, model, places

    def judge(self, name: str, k: int) -> dict[str, float]:
        """One estimator on draw k of assignment and noise."""
        trial, model, places = self.parts
        model.set_params(effect=estimators()[name])
        return one(trial.draw_outcomes(self.seed * 100 + k), model, places)


def to_markdown(rows: dict[str, list[list[dict[str, float]]]]) -> str:
    """Means over landscapes, with the standard error of the coverage from the landscapes' means."""
    names = list(next(iter(rows.values()))[0][0])
    head = ["estimator", "trials", "coverage of 90 % intervals", "s.e.", *names[1:]]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, found in rows.items():
        means = np.array([[np.mean([row[k] for row in draws]) for k in names] for draws in found])
        se = means[:, 0].std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        average = means.mean(axis=0)
        cells = [name, str(sum(len(d) for d in found)), f"{average[0]:.3f}", f"{se:.3f}"]
        lines.append("| " + " | ".join([*cells, *(f"{v:.3f}" for v in average[1:])]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", type=int, default=24)
    parser.add_argument("--draws", type=int, default=6, help="draws of assignment and noise on each landscape")
    parser.add_argument(
        "--slow", type=int, default=3, help="of those, draws for BayesianLinearEffect; 2 for TLearnerEffect"
    )
    options = parser.parse_args(argv)
    print(to_markdown(run(options.landscapes, options.draws, options.slow)))


if __name__ == "__main__":
    main()
