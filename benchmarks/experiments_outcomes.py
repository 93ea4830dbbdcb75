"""Take-up, attrition, many outcomes, predicted outcomes, neighbours, panels: coverage on trials with a known effect.

    python benchmarks/experiments_outcomes.py [--trials 200] [--jobs take_up attrition ...]

Each job prints a row for each estimate: its bias, its spread over the trials, the standard error it claims, and how
often its 90 and 95 % intervals cover. Attrition and predicted outcomes are on satellite trials: places and images
stay; assignment, outcomes and response are drawn anew. The Monte Carlo error of a coverage of .95 is .015.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from causalsat import ComplierEffect, Study
from causalsat.analysis.outcome_family import family_statistics
from causalsat.design import make_design
from causalsat.encoders import ImageEncoder, RandomConvFeatures
from causalsat.evaluation import (
    average_effects,
    compliance,
    exposure_effects,
    lee_bounds,
    linear_calibration,
    permutation_test,
    prediction_powered,
    two_wave_effects,
)
from causalsat.inference.average_effects import blocked_difference, score_mean
from causalsat.inference.response import response_nuisances, response_probabilities, response_scores
from causalsat.inference.robust import t_interval
from causalsat.inference.stepdown import romano_wolf, westfall_young
from causalsat.simulate import satellite_trial


class Tally:
    """Estimates of several rows over trials."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[float, float, float, float]]] = {}

    def add(self, name: str, estimate: float, se: float, df: float, truth: float) -> None:
        """One estimate of one trial."""
        self.rows.setdefault(name, []).append((float(estimate), float(se), float(df), float(truth)))

    def table(self) -> Iterator[dict[str, Any]]:
        """A line a row."""
        for name, values in self.rows.items():
            estimate, se, df, truth = np.array(values).T
            line = {
                "row": name,
                "bias": estimate.mean() - truth.mean(),
                "sd": (estimate - truth).std(),
                "claimed se": se.mean(),
            }
            for level in (0.9, 0.95):
                low, high = t_interval(estimate, se, df, level).T
                line[f"covers {level:g}"] = ((low < truth) & (truth < high)).mean()
            yield {k: v if isinstance(v, str) else round(float(v), 3) for k, v in line.items()} | {
                "trials": len(values)
            }


# ---------------------------------------------------------------------- jobs
def take_up(trials: int) -> Iterator[dict[str, Any]]:
    """Half of the people of 100 villages are offered; 60, 20 or 4 % comply. `ComplierEffect`: at 300 new places."""
    places: list[dict[str, Any]] = []
    for share in (0.6, 0.2, 0.04):
        tally, robust, width, covered = Tally(), 0, [], []
        for seed in range(trials):
            rng = np.random.default_rng([seed, int(100 * share)])
            village = np.repeat(np.arange(100), 20)
            X, z = rng.standard_normal((100, 8))[village], (rng.permutation(2000) % 2).astype(float)
            complier = rng.random(2000) < share * (1 + 0.2 * np.clip(X[:, 1], -3, 3))
            tau = 1 + 0.7 * X[:, 0]
            y = 0.5 * X[:, 1] - 0.5 * complier + z * complier * tau
            y += 0.3 * rng.standard_normal(100)[village] + rng.standard_normal(2000)
            found, truth = compliance(y, z * complier, treatment=z), tau[complier].mean()
            own = found.complier
            tally.add(f"{share:.0%} comply, effect on compliers", own.estimate, own.se, own.df, truth)
            robust += found.anderson_rubin.contains(truth)
            if seed < trials // 5:
                model = ComplierEffect(n_draws=400).fit(X, y, treatment=z, take_up=z * complier, groups=village)
                new = rng.standard_normal((300, 8))
                low, high = model.effect(new).interval(0.9).T
                covered.append(np.mean((low < 1 + 0.7 * new[:, 0]) & (1 + 0.7 * new[:, 0] < high)))
                width.append(np.mean(high - low))
        yield from (row | {"Anderson-Rubin 0.95": robust / trials} for row in tally.table())
        error = float(np.std(covered) / np.sqrt(len(covered)))
        line = {
            "row": f"{share:.0%} comply, `ComplierEffect`",
            "places covered 0.9": round(float(np.mean(covered)), 3),
        }
        places.append(line | {"se": round(error, 3), "width": round(float(np.mean(width)), 2), "trials": trials // 5})
    yield from places


def attrition(trials: int) -> Iterator[dict[str, Any]]:
    """Treated people of places with a large effect respond rarely, control people of green places too."""
    world, features = _world("smooth")
    site, tau = world.units["site"].to_numpy(), world.units["tau"].to_numpy()
    z, green = (tau - tau.mean()) / tau.std(), features[:, 0] / features[:, 0].std()
    tally, inside = Tally(), []
    for seed in range(trials):
        own = world.draw_outcomes(seed + 1)
        study, rng = own.study(), np.random.default_rng(seed)
        t, y, design = study.treatment, study.y, study.design
        chance = 1 / (1 + np.exp(-np.where(t == 1, 0.8 - 1.5 * z, 1.5 - 0.5 * green)))
        seen = rng.random(len(t)) < chance
        lost, truth = np.where(seen, y, np.nan), float(tau.mean())
        plain = blocked_difference(y[seen], t[seen], strata=design.strata[seen], clusters=site[seen])
        tally.add("respondents as they are", plain.estimate, plain.se, plain.df, truth)
        found = response_probabilities(features, seen, design, random_state=seed)
        w = found.weights(t)
        weighted = blocked_difference(
            y[seen], t[seen], strata=design.strata[seen], clusters=site[seen], weights=w[seen]
        )
        tally.add("weighted difference", weighted.estimate, weighted.se, weighted.df, truth)
        scores = response_scores(lost, t, response_nuisances(features, lost, found, design), found)
        aipw = score_mean(scores, treatment=t, strata=design.strata, clusters=design.clusters)
        tally.add("AIPW with response", aipw.estimate, aipw.se, aipw.df, truth)
        bounds = lee_bounds(lost, t, groups=site)
        inside.append(bounds.interval[0] < truth < bounds.interval[1])
    yield from tally.table()
    yield {
        "row": "Lee bounds: the interval covers the average effect",
        "covers 0.95": round(float(np.mean(inside)), 3),
        "trials": trials,
    }


def attrition_null(trials: int) -> Iterator[dict[str, Any]]:
    """How often the permutation test along images rejects a constant effect, with such attrition, at 5 %."""
    world, features = _world("none")
    green = features[:, 0] / features[:, 0].std()
    weighted, plain = [], []
    for seed in range(trials):
        study, rng = world.draw_outcomes(seed + 1).study(), np.random.default_rng(seed)
        t, design = study.treatment, study.design
        seen = rng.random(len(t)) < 1 / (1 + np.exp(-np.where(t == 1, 0.8 - 1.5 * green, 1.5)))
        found = response_probabilities(features, seen, design, random_state=seed)
        part = design.take(seen)
        options = {"n_permutations": 199, "random_state": seed, "progress": False}
        for own, rows in ((replace(part, weights=found.weights(t)[seen]), weighted), (part, plain)):
            rows.append(permutation_test(features[seen], study.y[seen], design=own, **options).p_value <= 0.05)
    for name, rows in (("response weights", weighted), ("without", plain)):
        yield {"permutation test with": name, "rejects": round(float(np.mean(rows)), 3), "trials": trials}


def predicted(trials: int) -> Iterator[dict[str, Any]]:
    """A ridge regression on images and a noisy survey item, trained on another draw, predicts the outcome."""
    from sklearn.linear_model import Ridge

    world, features = _world("smooth")
    site, tau = world.units["site"].to_numpy(), world.units["tau"].to_numpy()
    train = world.draw_outcomes(10_000).study()
    proxy = np.random.default_rng(0).standard_normal(len(tau))
    model = Ridge(1.0).fit(np.column_stack([features, train.y + proxy]), train.y)
    tally = Tally()
    for seed in range(trials):
        study, rng = world.draw_outcomes(seed + 1).study(), np.random.default_rng(seed)
        y, t, truth = study.y, study.treatment, float(tau.mean())
        f = model.predict(np.column_stack([features, y + rng.standard_normal(len(y))]))
        roles = {"strata": study.design.strata}
        plain = blocked_difference(f, t, clusters=site, **roles)
        tally.add("predictions as they are", plain.estimate, plain.se, plain.df, truth)
        for share in (0.3, 0.1):
            seen = rng.random(len(y)) < share
            found = prediction_powered(f, np.where(seen, y, np.nan), t, site, **roles)
            tally.add(f"prediction-powered, {share:.0%} measured", found.estimate, found.se, found.df, truth)
            only = found.labelled_only
            tally.add(f"measured units only, {share:.0%}", only.estimate, only.se, only.df, truth)
        other = world.draw_outcomes(20_000 + seed).study()
        g = model.predict(np.column_stack([features, other.y + rng.standard_normal(len(y))]))
        rows = rng.permutation(len(y))[:400]
        line = linear_calibration(g[rows], other.y[rows], groups=site[rows])
        found = prediction_powered(f, None, t, site, calibration=line, **roles)
        tally.add("linear calibration on 400 units", found.estimate, found.se, found.df, truth)
    yield from tally.table()


def family(trials: int) -> Iterator[dict[str, Any]]:
    """Any false rejection among ten null outcomes of correlation .6, 30 villages; power for two effects among ten."""
    names = ("single p-values", "Romano-Wolf", "Westfall-Young")
    for effects in ((), (0.8, 0.8)):
        false, power = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
        for seed in range(trials):
            rng = np.random.default_rng(seed)
            village = np.repeat(np.arange(30), 5)
            t = (rng.permutation(30) % 2)[village].astype(float)
            y = np.sqrt(0.6) * rng.standard_normal((150, 1)) + np.sqrt(0.4) * rng.standard_normal((150, 10))
            y += 0.4 * rng.standard_normal((30, 10))[village]
            y[:, : len(effects)] += t[:, None] * np.asarray(effects) if effects else 0.0
            drawn, observed, _ = family_statistics(y, make_design(t, groups=village), np.ones(150), 399, seed)
            beaten = (np.abs(drawn) >= np.abs(observed)).sum(axis=0)
            p = {"single p-values": (1 + beaten) / 400, "Romano-Wolf": romano_wolf(observed, drawn)}
            p["Westfall-Young"] = westfall_young(observed, drawn)
            for name, own in p.items():
                false[name] += bool((own[len(effects) :] <= 0.05).any())
                power[name] += float((own[: len(effects)] <= 0.05).mean()) if effects else 0.0
        for name in names:
            line = {"effects": len(effects), "p-values": name, "any false rejection": round(false[name] / trials, 3)}
            yield line | {"true ones found": round(power[name] / trials, 3) if effects else "", "trials": trials}


def conley(trials: int) -> Iterator[dict[str, Any]]:
    """Treatment and errors of blocks of 4 x 4 places, 11 km apart, that nobody declared as clusters."""
    gx, gy = (v.ravel() for v in np.meshgrid(np.arange(32), np.arange(32)))
    degrees, block = np.column_stack([gx * 0.1, gy * 0.1]), gx // 4 * 8 + gy // 4
    tally = Tally()
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        t = (rng.permutation(64) % 2)[block]
        y = t + rng.standard_normal(64)[block] + rng.standard_normal(1024)
        for kernel in ("bartlett", "uniform"):
            table = average_effects(y, t, places=degrees, conley_km=[30, 60, 120], conley_kernel=kernel)
            for name, row in table.iloc[1:].iterrows():
                tally.add(f"{kernel}, {str(name).split(', ')[1]}", row["estimate"], row["se"], row["df"], 1.0)
        row = table.iloc[0]
        tally.add("independent units (HC2)", row["estimate"], row["se"], row["df"], 1.0)
        known = average_effects(y, t, groups=block).iloc[0]
        tally.add("blocks declared as clusters (CR2)", known["estimate"], known["se"], known["df"], 1.0)
    yield from tally.table()


def exposure(trials: int) -> Iterator[dict[str, Any]]:
    """Villages on a lattice, 5 km apart; effect 2, and 1 more where over half of the four neighbours are treated."""
    gx, gy = (v.ravel() for v in np.meshgrid(np.arange(15), np.arange(15)))
    near = (np.abs(gx[:, None] - gx) + np.abs(gy[:, None] - gy)) == 1
    truth = {"direct effect, few treated neighbours": 2.0, "direct effect, many treated neighbours": 2.0}
    truth |= {"spillover on control": 1.0, "spillover on treated": 1.0}
    tally = Tally()
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        t = rng.permutation(np.arange(225) % 2).astype(float)
        y = 2 * t + ((near @ t) / near.sum(axis=1) > 0.5) + rng.standard_normal(225)
        table = pd.DataFrame({"y": y, "t": t, "lon": 32 + gx * 0.045, "lat": gy * 0.045})
        study = Study(table, outcome="y", treatment="t", lon="lon", lat="lat")
        found = exposure_effects(study, 6, threshold=0.5, n_draws=1000).table.loc[6.0]
        for name, row in found.iterrows():
            tally.add(str(name), row["estimate"], row["se"], np.inf, truth[str(name)])
    yield from tally.table()


def panel(trials: int) -> Iterator[dict[str, Any]]:
    """Households of 24 villages with levels of their own, an arm that starts higher, a common change."""
    tally = Tally()
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        village = np.repeat(np.arange(24), 8)
        arm = (rng.permutation(24) % 2)[village]
        level, shared = 3 * rng.standard_normal(192) + 2 * arm, 0.5 * rng.standard_normal(24)[village]
        waves = [level + rng.standard_normal(192), level + 2 + arm + shared + rng.standard_normal(192)]
        table = pd.DataFrame(
            {"hh": np.tile(np.arange(192), 2), "wave": np.repeat([1, 2], 192), "y": np.concatenate(waves)}
        )
        table = table.assign(d=np.r_[np.zeros(192), arm], village=np.tile(village, 2))
        found = two_wave_effects(table, outcome="y", treatment="d", unit="hh", wave="wave", cluster="village")
        tally.add("two_wave_effects", found.estimate, found.se, found.df, 1.0)
        plain = blocked_difference(waves[1], arm, clusters=village)
        tally.add("difference of the second wave", plain.estimate, plain.se, plain.df, 1.0)
    yield from tally.table()


def _world(variant: str) -> tuple[Any, np.ndarray]:
    """A satellite trial of 900 people in 90 places, and ten components of its images' features."""
    world = satellite_trial(variant, n_units=900, n_sites=90, size_px=512, seed=1, tau_sd=0.8)
    study = world.study()
    encoder = ImageEncoder(
        study.imagery, size_m=960, encoder=RandomConvFeatures(statistics=True, random_state=0), n_components=10
    )
    return world, np.asarray(encoder.fit_transform(study.X[["geometry"]]), dtype=float)


JOBS = {
    "take_up": take_up,
    "attrition": attrition,
    "attrition_null": attrition_null,
    "predicted": predicted,
    "family": family,
    "conley": conley,
    "exposure": exposure,
    "panel": panel,
}


def main() -> None:
    """Print a table a job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in arguments.jobs:
        start = time.process_time()
        print(f"\n**{name}** {JOBS[name].__doc__}\n")
        columns: list[str] = []
        for row in JOBS[name](arguments.trials):
            if list(row) != columns:
                columns = list(row)
                print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
            print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
        print(f"\n{time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
