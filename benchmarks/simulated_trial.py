"""The main job on the simulated default: accuracy and coverage of the mapped effect, and error rate without any.

For each landscape: render it, encode it, fit the default model to the trial's part, and compare the effects of the
places without a trial with the truth. On each landscape assignment and noise are drawn several times. Then the same
with a constant effect: how often does the permutation test reject at 5 %?

    python benchmarks/simulated_trial.py [--landscapes 10] [--draws 5] [--null 20]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

import causalsat
from causalsat.evaluation import permutation_test
from causalsat.exceptions import CausalsatWarning
from causalsat.simulate import satellite_trial


def fit_and_predict(trial: Any, model: Any, places: Any) -> Any:
    """Fit the effect step of a model whose image step is fitted, and predict at encoded places."""
    images, estimator = model.named_steps["images"], model.named_steps["effect"]
    units = images.transform(trial.units)
    estimator.fit(units, trial.units["outcome"], treatment=trial.units["treatment"], groups=trial.units["site"])
    return estimator.effect(places)


def accuracy(landscapes: int, draws: int, first_seed: int = 1000) -> list[dict[str, float]]:
    """One row a landscape and draw: correlation, error and coverage at places without a trial."""
    rows = []
    for seed in range(first_seed, first_seed + landscapes):
        trial = satellite_trial("smooth", seed=seed)
        study = trial.study()
        model = causalsat.image_model(study)
        images = model.named_steps["images"].fit(study.X)
        places = images.transform(trial.places.assign(**dict.fromkeys(study.covariates, np.nan)))
        truth = trial.places["tau"].to_numpy()
        for draw in range(draws):
            start = time.process_time()
            posterior = fit_and_predict(trial.draw_outcomes(seed * 100 + draw), model, places)
            lower, upper = posterior.interval(0.9).T
            error = posterior.mean() - truth
            rows.append(
                {
                    "correlation": np.corrcoef(posterior.mean(), truth)[0, 1],
                    "rmse": np.sqrt(np.mean(error**2)) / truth.std(),
                    "coverage": np.mean((lower < truth) & (truth < upper)),
                    "cpu": time.process_time() - start,
                }
            )
    return rows


def rejections(landscapes: int, draws: int, n_permutations: int = 199, first_seed: int = 2000) -> list[float]:
    """P-values of the permutation test along the image features where the effect is constant."""
    p_values = []
    for seed in range(first_seed, first_seed + landscapes):
        trial = satellite_trial("none", seed=seed)
        study = trial.study()
        images = causalsat.image_model(study).named_steps["images"].fit(study.X)
        units = images.transform(study.X)
        latents = units.filter(like="img")
        covariates = units.drop(columns=latents.columns)
        covariates = covariates.fillna(covariates.mean())
        for draw in range(draws):
            new = trial.draw_outcomes(seed * 100 + draw).units
            found = permutation_test(
                latents,
                new["outcome"],
                new["treatment"],
                groups=new["site"],
                covariates=covariates,
                strata=new["district"],
                n_permutations=n_permutations,
                random_state=draw,
            )
            p_values.append(found.p_value)
    return p_values


def run(landscapes: int = 10, draws: int = 5, null: int = 20) -> dict[str, Any]:
    """Both parts; ``null`` draws of the constant effect on each landscape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return {"rows": accuracy(landscapes, draws), "p_values": rejections(landscapes, null)}


def to_markdown(found: dict[str, Any], draws: int) -> str:
    """Table of means over landscapes; standard errors from the landscapes' means."""
    table = np.array([list(row.values()) for row in found["rows"]]).reshape(-1, draws, 4).mean(axis=1)
    mean, se = table.mean(axis=0), table.std(axis=0, ddof=1) / np.sqrt(len(table))
    p = np.array(found["p_values"])
    rate = np.mean(p <= 0.05)
    names = ["correlation of mapped and true effect", "error / sd of true effect", "coverage of 90 % intervals"]
    lines = [f"| {name} | {m:.3f} | {s:.3f} |" for name, m, s in zip(names, mean[:3], se[:3], strict=True)]
    lines.append(
        f"| rejections at 5 % without heterogeneity ({len(p)} draws) | {rate:.3f} "
        f"| {np.sqrt(rate * (1 - rate) / len(p)):.3f} |"
    )
    lines.append(f"| CPU seconds, a fit and prediction | {mean[3]:.2f} | {se[3]:.2f} |")
    return "\n".join(["| places without a trial | mean | s.e. |", "|---|---|---|", *lines])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", type=int, default=10)
    parser.add_argument("--draws", type=int, default=5, help="draws of assignment and noise on each landscape")
    parser.add_argument("--null", type=int, default=20, help="draws with a constant effect on each landscape")
    options = parser.parse_args(argv)
    print(to_markdown(run(options.landscapes, options.draws, options.null), options.draws))


if __name__ == "__main__":
    main()
