"""Image effect clusters under a referee: outcome laws by truths, and a real outcome whose treatment is permuted.

Rendered scenes: 240 sites of five units, each with an image of 16 pixels in three bands, of which two carry an index.
Real scenes: the images of Uganda's trial (327 sites), with the spectral index (nir - swir2) / (nir + swir2) and the
brightness of the green band. Treatment is drawn over sites. One index moves the effect, the other the outcome of
both arms. The effect of a site, in standard deviations of the untreated outcome, is .4 everywhere (none), 0 or .8 by
the sign of the first index (step), or .4 + .4 index (linear, index clipped at 1.5). Outcomes: normal, exponential and
lognormal noise with an additive effect; zero-inflated (a share of zeros that treatment lowers, gamma else); yes/no;
count (Poisson-gamma). Reported: numbers of types chosen; the mean error of the average effect in standard deviations,
beside that of the difference in means in the same data; coverage of the 90 % intervals of the average, of the sites'
effects and (rendered scenes) of those of 240 new places, with both scopes of an interval; and the time. Last,
Uganda's outcome itself with the treatment permuted over sites, for which the truth is no effect and one type, and the
time of a fit of 900 sites.

Everything has the estimator's defaults but for the backbone, which is random convolutional features. Rows are kept
(see kept_rows.py). Real scenes need the folder that holds ``uganda_yop`` in the environment variable CAUSALSAT_DATA.

    python benchmarks/image_referee.py [--seeds 8] [--real 2] [--permutations 40]
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
from numpy.typing import NDArray

import causalsat
from causalsat import ImageEffectClusters, RandomConvFeatures
from causalsat.exceptions import CausalsatWarning

FloatArray = NDArray[np.float64]
LAWS = ("normal", "exponential", "lognormal", "zero-inflated", "yes/no", "count")
TRUTHS = ("none", "step", "linear")
PER_SITE, SITES, PX = 5, 240, 16
MEAN, SPREAD, CLIP = 0.4, 0.4, 1.5


# ---------------------------------------------------------------------- worlds
def rendered(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float32], FloatArray, FloatArray]:
    """Images (n, 3, px, px) with two standardised indices, (n,) each: contrast of two bands, and brightness."""
    effect, prognosis = rng.standard_normal((2, n))
    images = rng.normal(size=(n, 3, PX, PX))
    images += np.stack([effect + prognosis, prognosis - effect, rng.standard_normal(n)], axis=1)[:, :, None, None]
    return images.astype(np.float32), effect, prognosis


@cache
def uganda() -> Any:
    """The study of Uganda's trial."""
    return causalsat.load_study("uganda_yop")


@cache
def real() -> tuple[NDArray[np.float32], FloatArray, FloatArray]:
    """Images of Uganda's sites with two standardised indices, as :func:`rendered`; a third of their resolution."""
    study = uganda()
    places = study.X.drop_duplicates("geometry")
    imagery = next(iter(study.imagery.values())) if isinstance(study.imagery, dict) else study.imagery
    reader = ImageEffectClusters(imagery=imagery, size_m=study.chip_size_m)
    chips = reader._read_images(places).chips.to_numpy()
    size = chips.shape[-1] // 3 * 3
    blocks = chips[:, :, :size, :size].reshape(*chips.shape[:2], size // 3, 3, size // 3, 3)
    chips = np.nanmean(blocks, axis=(3, 5)).astype(np.float32)
    swir, nir, green = np.nanmean(chips, axis=(2, 3)).T
    indices = [(nir - swir) / (nir + swir), green]
    return chips, *((value - value.mean()) / value.std() for value in indices)  # type: ignore[return-value]


def draw_outcomes(
    law: str, truth: str, effect: FloatArray, prognosis: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Outcome and treatment of the units, (n,), effect of each site, standard deviation of an untreated outcome."""
    g = len(effect)
    index = {"none": 0 * effect, "step": np.sign(effect), "linear": np.clip(effect, -CLIP, CLIP)}[truth]
    tau, lean = MEAN + SPREAD * index, 0.25 * np.clip(prognosis, -2, 2)
    arm, site = (rng.permutation(g) % 2).astype(float), np.repeat(np.arange(g), PER_SITE)
    n, t = len(site), arm[site]
    noise = {
        "normal": lambda: rng.standard_normal(n),
        "exponential": lambda: rng.exponential(size=n) - 1,
        "lognormal": lambda: (rng.lognormal(size=n) - np.exp(0.5)) / np.sqrt(np.e * (np.e - 1)),
    }
    if law in noise:
        level = (lean + 0.25 * rng.standard_normal(g))[site]
        return level + noise[law]() + t * tau[site], t, tau, np.ones(1)
    if law == "count":  # mean 1.5, overdispersed by site
        sd = np.sqrt(1.5 + 1.5**2 / 8)
        mean = (1.5 + sd * (0.5 * lean[site] + t * tau[site])) * rng.gamma(8, 1 / 8, size=g)[site]
        return rng.poisson(np.maximum(mean, 0)).astype(float), t, sd * tau, np.array([sd])
    share = 0.25 + 0.1 * lean
    size, square = (1.0, 1.0) if law == "yes/no" else (1.6, 1.6**2 * 1.5)  # of what is not zero: mean, mean square
    sd = np.sqrt(0.25 * square - (0.25 * size) ** 2)
    treated = np.clip(share + sd * tau / size, 0, 1)
    some = rng.random(n) < np.where(t > 0, treated[site], share[site])
    amount = np.ones(n) if law == "yes/no" else rng.gamma(2, size / 2, size=n)
    return some * amount, t, (treated - share) * size, np.array([sd])


# ---------------------------------------------------------------------- rows
def covered(interval: FloatArray, truth: FloatArray) -> float:
    """Share of the intervals (n, 2) that cover."""
    return float(np.mean((interval[:, 0] < truth) & (truth < interval[:, 1])))


def fit(X: Any, y: FloatArray, t: FloatArray, groups: Any, **options: Any) -> tuple[ImageEffectClusters, float]:
    """The fitted estimator and its CPU seconds."""
    settings = {"backbone": "random_conv", "random_state": 0, **options}
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        est = ImageEffectClusters(**settings).fit(X, y, treatment=t, groups=groups)
    return est, time.process_time() - start


def judge(scenes: str, law: str, truth: str, seed: int) -> kept_rows.Row:
    """One data set."""
    rng = np.random.default_rng([seed, LAWS.index(law), TRUTHS.index(truth), scenes == "real"])
    images, effect, prognosis = rendered(rng, 2 * SITES) if scenes == "rendered" else real()
    y, t, tau, sd = draw_outcomes(law, truth, effect, prognosis, rng)
    trial = np.arange(len(effect)) % 2 == 0 if scenes == "rendered" else np.ones(len(effect), dtype=bool)
    site = np.repeat(np.arange(len(effect)), PER_SITE)
    kept = trial[site]
    est, cpu = fit(images[site[kept]], y[kept], t[kept], site[kept])
    ate, real_ate = est.draws_["ate"], tau[trial].mean()
    plain = y[kept][t[kept] == 1].mean() - y[kept][t[kept] == 0].mean()
    posterior = est.effect(images[trial])
    row: kept_rows.Row = {
        "K": est.n_clusters_,
        "error": float((ate.mean() - real_ate) / sd[0]),
        "plain": float((plain - real_ate) / sd[0]),
        "average": covered(np.quantile(ate, [0.05, 0.95])[None], real_ate),
        "sites": covered(posterior.interval(0.9), tau[trial]),
        "rmse": float(np.sqrt(np.mean((posterior.mean() - tau[trial]) ** 2)) / sd[0]),
        "cpu": cpu,
    }
    row["own sites"] = covered(est.effect(images[trial], scope="place").interval(0.9), tau[trial])
    if scenes == "rendered":
        row["new"] = covered(est.effect(images[~trial]).interval(0.9), tau[~trial])
        row["own new"] = covered(est.effect(images[~trial], scope="place").interval(0.9), tau[~trial])
    return row


def permuted(seed: int) -> kept_rows.Row:
    """Uganda's outcome with its treatment permuted over sites."""
    study = uganda()
    rng = np.random.default_rng([seed, 99])
    groups = np.unique(np.asarray(study.groups), return_inverse=True)[1]
    t = np.asarray(study.treatment, dtype=float)
    arm = np.array([t[groups == g][0] for g in range(groups.max() + 1)])
    imagery = next(iter(study.imagery.values())) if isinstance(study.imagery, dict) else study.imagery
    backbone = RandomConvFeatures(n_features=128, stride=4, random_state=0)
    options = {"imagery": imagery, "size_m": study.chip_size_m, "covariates": ("x1", "x3", "x5")}
    est, cpu = fit(study.X, np.asarray(study.y), rng.permutation(arm)[groups], groups, backbone=backbone, **options)
    effects, ate = est.cluster_effects(0.9), est.draws_["ate"]
    off = (effects["lower"] > 0) | (effects["upper"] < 0)
    lower, upper = np.quantile(ate, [0.05, 0.95])
    return {
        "K": est.n_clusters_,
        "error": float(ate.mean()),
        "average": float(lower < 0 < upper),
        "off": float(off.mean()),
        "cpu": cpu,
    }


def large() -> kept_rows.Row:
    """CPU seconds of a fit of 900 sites with a step."""
    rng = np.random.default_rng(900)
    images, effect, prognosis = rendered(rng, 900)
    y, t, *_ = draw_outcomes("normal", "step", effect, prognosis, rng)
    site = np.repeat(np.arange(900), PER_SITE)
    est, cpu = fit(images[site], y, t, site)
    return {"K": est.n_clusters_, "cpu": cpu}


def kept(key: str, make: Any) -> kept_rows.Row:
    """A row of this benchmark, made if it is not there."""
    return kept_rows.kept_row("image_referee", key, make)


# ---------------------------------------------------------------------- tables
def matrix(scenes: str, seeds: int) -> str:
    """Table of laws by truths."""
    lines = [
        f"| {scenes} scenes: outcome, effect | data sets | K chosen | error of the average, sd (s.e.) | of the "
        "difference in means | 90 % intervals cover: average | sites, mean scope | place scope "
        "| new places, mean scope | place scope | RMSE of sites, sd | CPU s, median |",
        "|---" * 12 + "|",
    ]
    for law in LAWS:
        for truth in TRUTHS:
            rows = [kept(f"{scenes}|{law}|{truth}|{s}", partial(judge, scenes, law, truth, s)) for s in range(seeds)]

            def mean(name: str, rows: Any = rows, digits: int = 2) -> str:
                return f"{np.mean([row[name] for row in rows]):.{digits}f}" if name in rows[0] else ""

            spread = np.std([row["error"] for row in rows], ddof=1) if len(rows) > 1 else np.nan
            se = f" ({spread / np.sqrt(len(rows)):.3f})" if len(rows) > 1 else ""
            chosen = " ".join(f"{row['K']:.0f}" for row in rows)
            lines.append(
                f"| {law}, {truth} | {seeds} | {chosen} | {mean('error', digits=3)}{se} "
                f"| {mean('plain', digits=3)} | {mean('average')} | {mean('sites')} | {mean('own sites')} "
                f"| {mean('new')} | {mean('own new')} | {mean('rmse')} "
                f"| {np.median([row['cpu'] for row in rows]):.1f} |"
            )
    return "\n".join(lines)


def uganda_text(permutations: int) -> str:
    """The permuted trial, in words."""
    rows = [kept(f"uganda|{s}", partial(permuted, s)) for s in range(permutations)]
    several = np.mean([row["K"] > 1 for row in rows])
    error = np.array([row["error"] for row in rows])
    return (
        f"Uganda's outcome, treatment permuted over sites {permutations} times: more than one type in {several:.1%}; "
        f"mean average effect {error.mean():.3f} (s.e. {error.std(ddof=1) / np.sqrt(permutations):.3f}); its 90 % "
        f"interval covers 0 in {np.mean([row['average'] for row in rows]):.1%}; types whose 90 % interval excludes "
        f"0: {np.mean([row['off'] for row in rows]):.1%}; {np.median([row['cpu'] for row in rows]):.1f} CPU s a fit."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, help="data sets of each law and truth, rendered scenes")
    parser.add_argument("--real", type=int, default=2, help="the same on real scenes; 0 for none")
    parser.add_argument("--permutations", type=int, default=40, help="of Uganda's treatment; 0 for none")
    options = parser.parse_args(argv)
    print(matrix("rendered", options.seeds), flush=True)
    if options.real:
        print("\n" + matrix("real", options.real), flush=True)
    if options.permutations:
        print("\n" + uganda_text(options.permutations), flush=True)
    row = kept("900", large)
    print(f"\nA fit of 900 sites: {row['cpu']:.0f} CPU s, {row['K']:.0f} types.", flush=True)


if __name__ == "__main__":
    main()
