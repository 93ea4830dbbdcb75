"""Does the RATE rank data sources and models as their true errors would? Twelve combinations on simulated trials.

In each trial (variant "smooth", a landscape of its own) `compare` cross-fits four data sources times three models
over site folds. Their AUTOC needs no truth; the square root of PEHE (error of the effect) and the correlation with
the true effect do. The rank correlation of the two orders is reported for single trials and for averages over 2, 4,
... trials.

    python benchmarks/compare.py [--trials 12] [--units 1200]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from causalsat.analysis import compare
from causalsat.encoders import ImageEncoder, RandomConvFeatures
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.estimators.meta.learners import TLearnerEffect
from causalsat.exceptions import CausalsatWarning
from causalsat.simulate import satellite_trial

METRICS = ("autoc", "rate_ratio", "qini", "blp_slope", "sqrt_pehe", "correlation")


def sources(study: Any) -> dict[str, Any]:
    """From little to all that moves the effect."""

    def image(imagery: Any, size_m: float) -> ImageEncoder:
        return ImageEncoder(imagery, size_m, RandomConvFeatures(64, statistics=True), n_components=12)

    return {
        "covariates": "covariates",
        "image, one band": image(study.imagery.sel(bands=["swir2"]), study.chip_size_m),
        "image, a quarter of the side": image(study.imagery, study.chip_size_m / 4),
        "image": image(study.imagery, study.chip_size_m),
    }


def models() -> dict[str, Any]:
    """A doubly robust linear model, and two T-learners."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.neighbors import KNeighborsRegressor

    forest = RandomForestRegressor(30, min_samples_leaf=10, max_features=0.4, random_state=0)
    return {
        "doubly robust": DoublyRobustEffect(n_splits=3, n_draws=50),
        "T, forest": TLearnerEffect(forest, n_bootstrap=2),
        "T, nearest neighbours": TLearnerEffect(KNeighborsRegressor(15), n_bootstrap=2),
    }


def one(seed: int, n_units: int) -> Any:
    """Comparison of one simulated trial."""
    trial = satellite_trial("smooth", n_units=n_units, n_sites=n_units // 8, size_px=576, seed=seed)
    study = trial.study().replace(name=f"trial {seed}")
    truth = trial.units["tau"].to_numpy()
    return compare(
        study,
        sources(study),
        models(),
        METRICS,
        cv=4,
        truth=truth,
        n_bootstrap=100,
        random_state=seed,
        progress=False,
    )


def run(trials: int = 12, n_units: int = 1200, first_seed: int = 5000) -> dict[str, Any]:
    """Every trial's comparison, joined."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        found = [one(seed, n_units) for seed in range(first_seed, first_seed + trials)]
    return {"joined": found[0].join(*found[1:]), "cpu": time.process_time() - start}


def wide(joined: Any, metric: str) -> Any:
    """Trials down, combinations across."""
    rows = joined.rows[joined.rows["metric"] == metric]
    return rows.pivot_table(index="study", columns=["source", "model"], values="value", sort=False)


def agreement(joined: Any, metric: str, truth: str = "sqrt_pehe") -> dict[int, tuple[float, float]]:
    """Rank correlation of a metric with the truth over the combinations.

    By number of trials averaged: the mean over disjoint groups of trials, and its standard deviation. The truth is
    averaged over the same trials.
    """
    from scipy.stats import spearmanr

    by, true = wide(joined, metric), wide(joined, truth)
    sign = -1 if truth == "sqrt_pehe" else 1
    out = {}
    size = 1
    while size <= len(by):
        rho = [
            spearmanr(by[k : k + size].mean(), sign * true[k : k + size].mean()).statistic
            for k in range(0, len(by) - size + 1, size)
        ]
        out[size] = (float(np.mean(rho)), float(np.std(rho, ddof=1)) if len(rho) > 1 else float("nan"))
        size *= 2
    if size // 2 < len(by):
        out[len(by)] = (float(spearmanr(by.mean(), sign * true.mean()).statistic), float("nan"))
    return out


def to_markdown(found: dict[str, Any]) -> str:
    """The comparison over all trials, the agreement of the orders, and what drives the AUTOC."""
    joined = found["joined"]
    table = {m: joined.to_dataframe(m).set_index(["source", "model"]) for m in METRICS}
    head = ["source", "model", "AUTOC", "s.e.", "RATE ratio", "slope", "sqrt-PEHE", "correlation"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for pair, row in table["autoc"].iterrows():
        more = [table[m].loc[pair, "value"] for m in ("rate_ratio", "blp_slope", "sqrt_pehe", "correlation")]
        lines.append("| " + " | ".join([*pair, *(f"{v:.3f}" for v in (row["value"], row["se"], *more))]) + " |")
    n = len(wide(joined, "autoc"))
    lines += ["", f"Rank correlation over the 12 combinations, {n} trials, {found['cpu']:.0f} CPU s:", ""]
    lines += ["| order by | against | trials averaged | rank correlation | sd over groups |", "|---|---|---|---|---|"]
    for metric in ("autoc", "rate_ratio", "qini"):
        for truth in ("sqrt_pehe", "correlation"):
            for size, (rho, sd) in agreement(joined, metric, truth).items():
                spread = "" if np.isnan(sd) else f"{sd:.2f}"
                lines.append(f"| {metric} | {truth} | {size} | {rho:.2f} | {spread} |")
    drivers = joined.drivers("autoc")
    clusters = drivers.attrs["clusters"]
    lines += ["", f"What drives the AUTOC (ordinary least squares, {clusters} clusters, trials left out below):", ""]
    lines += ["| | estimate | s.e. | p |", "|---|---|---|---|"]
    for name, row in drivers.iterrows():
        if not str(name).startswith("study"):
            lines.append(f"| {name} | {row['estimate']:.3f} | {row['se']:.3f} | {row['p_value']:.3g} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--units", type=int, default=1200, help="people in a trial, eight a site")
    options = parser.parse_args(argv)
    print(to_markdown(run(options.trials, options.units)))


if __name__ == "__main__":
    main()
