"""Trials simulated with Uganda's design: does the default rank unseen sites better than the simple baseline?

327 sites, 2,082 units, whole sites treated except 49 mixed ones, heterogeneity so weak that the baseline's AUTOC is
about as significant as on the real data; three kinds of moderators. Here the true effect is known, so beside the
AUTOC ratio of the cross-fitted priorities (ranked over all units, and within folds) stand their correlation with the
true effect and their error; the first row ranks by the true effect itself. The simple
baseline is that of ``benchmarks/uganda.py``: 256 random convolutional features, ten principal components, a ridge
R-learner. The default's chains are short here (one of 100 draws), which moves posterior means little.

    python benchmarks/uganda_design.py [--seeds 8]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

import causalsat
from causalsat.evaluation import crossfit_effects, crossfit_nuisances, dr_scores, rate
from causalsat.exceptions import CausalsatWarning

CHIP_PX, RESOLUTION_M = 48, 30.0
SHORT = {"n_draws": 100, "n_tune": 150, "n_chains": 1, "random_state": 0}
BASELINE = "simple baseline"


def features(trial: Any, n_components: int, *, statistics: bool) -> pd.DataFrame:
    """Principal components of random convolutional features at the units' places."""
    encoder = causalsat.RandomConvFeatures(statistics=statistics, random_state=0, stride=2)
    size_m = CHIP_PX * RESOLUTION_M
    images = causalsat.open_imagery(trial.imagery)
    return causalsat.ImageEncoder(images, size_m, encoder=encoder, n_components=n_components).fit_transform(
        trial.units
    )


def models(trial: Any) -> Iterator[tuple[str, Any, pd.DataFrame]]:
    """Name, estimator and features of each row."""
    twenty, ten = features(trial, 20, statistics=True), features(trial, 10, statistics=False)
    linear = causalsat.BayesianLinearEffect
    yield "default: normal prior, ordered", linear(prior="normal", ordered="img*", **SHORT), twenty
    yield "horseshoe, ordered", linear(prior="horseshoe", ordered="img*", **SHORT), twenty
    yield "normal prior, not ordered, ten", linear(prior="normal", **SHORT), twenty.iloc[:, :10]
    yield "DoublyRobustEffect", causalsat.DoublyRobustEffect(random_state=0), twenty
    yield BASELINE, causalsat.RLearnerEffect(n_bootstrap=2, random_state=0), ten


def survey(trial: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcome and treatment with 49 sites in which some units had the other arm."""
    units, rng = trial.units, np.random.default_rng(seed)
    mixed = units.site.isin(rng.choice(units.site.unique(), 49, replace=False)).to_numpy()
    other = mixed & (rng.random(len(units)) < 0.4)
    t = units.treatment.to_numpy()
    y = units.outcome.to_numpy() + np.where(other, (1 - 2 * t) * units.tau, 0.0)
    return y, np.where(other, 1 - t, t)


def judged(
    priority: np.ndarray, tau: np.ndarray, scores: np.ndarray, site: Any, fold: np.ndarray | None, seed: int
) -> dict[str, float]:
    """Measures of a priority, for which the fold is given where it was cross-fitted."""
    return {
        "AUTOC ratio": rate(priority, scores, groups=site, random_state=seed).ratio,
        "AUTOC ratio within folds": rate(priority, scores, groups=site, folds=fold, random_state=seed).ratio,
        "correlation with the truth": np.corrcoef(priority, tau)[0, 1],
        "RMSE": np.sqrt(np.mean((priority - tau) ** 2)),
    }


def run(seeds: Sequence[int]) -> pd.DataFrame:
    """One row a trial and model."""
    rows = []
    for seed in seeds:
        for variant in ("smooth", "kernel", "scene_types"):
            trial = causalsat.simulate.satellite_trial(
                variant, n_units=2082, n_sites=327, size_px=1024, chip_px=CHIP_PX, resolution_m=RESOLUTION_M,
                tau_mean=0.7, tau_sd=0.25, noise_sd=(0.95, 1.25), site_sd=0.3, seed=1000 + seed,
            )  # fmt: skip
            y, t = survey(trial, seed)
            site, tau = trial.units.site, trial.units.tau.to_numpy()
            known = None
            for name, model, X in models(trial):
                if known is None:
                    people = trial.units[["age", "female", "road_km"]].astype(float)
                    nuisances = crossfit_nuisances(
                        pd.concat([X, people], axis=1), y, treatment=t, groups=site, random_state=seed
                    )
                    known = dr_scores(y, t, nuisances)
                    rows.append({"trial": f"{variant} {seed}", "model": "the true effect"}
                                | judged(tau, tau, known, site, None, seed))  # fmt: skip
                found = crossfit_effects(
                    model, X, y, treatment=t, groups=site, cv=5, random_state=seed, progress=False
                )
                rows.append({"trial": f"{variant} {seed}", "model": name}
                            | judged(found.tau, tau, known, site, found.fold, seed))  # fmt: skip
    return pd.DataFrame(rows)


def to_markdown(table: pd.DataFrame) -> str:
    """Means and standard errors over trials, and of the paired differences from the simple baseline."""
    columns = list(table.columns[2:])
    lines = ["| model | " + " | ".join(f"{c} | less the baseline's" for c in columns) + " |"]
    lines.append("|---" * (1 + 2 * len(columns)) + "|")
    for name in dict.fromkeys(table.model):
        row = f"| {name} |"
        for column in columns:
            wide = table.pivot(index="trial", columns="model", values=column)
            gap = wide[name] - wide[BASELINE]
            se = gap.std(ddof=1) / np.sqrt(len(gap))
            row += (
                f" {wide[name].mean():.3f} | " + ("" if name == BASELINE else f"{gap.mean():+.3f} ({se:.3f})") + " |"
            )
        lines.append(row)
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        table = run(range(options.seeds))
    print(f"{table.trial.nunique()} trials; means, and paired differences (s.e. over trials)", end="\n\n")
    print(to_markdown(table))


if __name__ == "__main__":
    main()
