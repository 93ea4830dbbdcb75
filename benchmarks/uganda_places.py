"""Simulated outcomes at Uganda's own places: which way of letting effects follow the place ranks unseen sites best?

The places, images, covariates and sites are the trial's; its outcomes and assignment are not used. A trial's effects
(mean 0.7, standard deviation 0.28) are a sum of a part that images show, a smooth field in space (a Gaussian process
with a length of 40, 100 or 200 km) and a part that x1, x3 and x5 carry, linearly or by thresholds; the shares of the
three vary from trial to trial, and some are zero. What images show is linear in 100 components of other random
features, of other chips (1 and 2 km), than the models have, with weights that fall slowly or fast, or a random
network of them, or a threshold of a mixture of the bands' means, spreads and textures. Outcomes have such parts too,
and village effects and noise as in ``uganda_design.py``; sites are assigned anew, 49 of them mixed. Features are
fitted on the training sites of one fold seed, so that a trial costs its fits only.

CHOICE, on 48 trials by the AUTOC of the true effects within folds: ``image_model(coordinates="smooth")``, seven slow
waves of the coordinates among the modifiers, three after the coordinates and four after six components, with the
horseshoe. CONFIRMATION, on 24 other trials. Then it was run on Uganda's outcomes, once (``uganda_seeds.py``). Tried
on some of these trials besides: fourteen cosines in place of the coordinates, forty components, a Gaussian process,
the mean over three draws of the random features, 2,048 of them, smaller chips, equal mixtures. More random features
(+0.004, s.e. 0.002, for eight times the encoding) and smaller chips (+0.003, s.e. 0.002) were left. Chains are short
here (one of 100 draws), and their Monte Carlo error moves a trial's figure by up to some 0.01; it is part of the
standard errors. Finished rows are kept (``kept_rows.py``). Needs the data, as benchmarks/uganda.py does.

    python benchmarks/uganda_places.py [--choosing 48] [--confirming 24] [--sections choice confirmation]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import uganda
from kept_rows import Row, kept_row
from sections import run_sections
from sklearn.base import clone
from uganda_covariates import truly
from uganda_estimators import Uganda, features_without_folds, held_out_effects
from uganda_seeds import paired, standardised

import causalsat
from causalsat.encoders.places import COORDINATES, WAVES, learn_box, waves

FIRST_SEED, FOLD_SEED, CONFIRMED_FROM = 10_000, 100, 48
NOTE = (
    "Straight coordinates, with the horseshoe (with covariates) or the normal prior (without), were fixed before "
    "any of these trials was drawn, so both tables judge them beside the simple baseline. Smooth coordinates "
    "without covariates were confirmed; with covariates the gain in the other trials is within its error. That a "
    "field in space is a part of most trials favours them; where it is none, the trials of the choice show no "
    "gain without covariates."
)
IMAGES, COVARIATES = [f"img{k}" for k in range(20)], ["x1", "x3", "x5"]
TAU_MEAN, TAU_SD, SITE_SD, NOISE_SD = 0.7, 0.28, 0.3, (0.95, 1.25)
LENGTHS_KM = [40, 100, 200]
IMAGE_KINDS = (("linear", 0.5), ("linear", 1.0), ("linear", 2.0), ("network", 1.0), ("step", 0.0), ("network", 2.0))
SHOWN = (1000.0, 2000.0, 2000.0)  # sides in metres of the chips whose features carry effects
PLACED = ["img0", "img1", *COORDINATES, "img*"]
MIXED = ["img0", "img1", *COORDINATES, *WAVES[:3], "img[2-5]", *WAVES[3:], "img*"]
LATER = ["img0", "img1", *COORDINATES, "img[2-5]", *WAVES[:3], "img[6-9]", *WAVES[3:], "img*"]
TOGETHER = ["img0", "img1", *COORDINATES, *WAVES, "img*"]
AND = ", and covariates"
STRAIGHT, SMOOTH, BASELINE = "coordinates, horseshoe", "smooth coordinates, horseshoe", "simple baseline"
WITH, WITHOUT = STRAIGHT + AND, "coordinates, normal prior"  # the methods before, with covariates and without
CONFIRMED = [SMOOTH + AND, WITH, "coordinates, normal prior" + AND, BASELINE + AND, SMOOTH, WITHOUT, BASELINE]


def linear(ordered: Any, prior: str) -> Any:
    """The default's estimator with short chains."""
    return causalsat.BayesianLinearEffect(
        ordered=ordered, prior=prior, n_draws=100, n_tune=100, n_chains=1, random_state=0
    )


def candidates() -> dict[str, tuple[Any, list[str]]]:
    """Estimator and columns of each model; the baseline has components of its own."""
    r_learner = causalsat.RLearnerEffect(n_bootstrap=2, random_state=0)
    straight, with_all = [*IMAGES, *COORDINATES], [*IMAGES, *COORDINATES, *COVARIATES, *WAVES]
    bent = [*straight, *WAVES]
    return {
        WITH: (linear(PLACED, "horseshoe"), straight + COVARIATES),
        SMOOTH + AND: (linear(MIXED, "horseshoe"), with_all),
        "smooth, all waves before the components" + AND: (linear(TOGETHER, "horseshoe"), with_all),
        "smooth, waves after six and ten components" + AND: (linear(LATER, "horseshoe"), with_all),
        "coordinates, normal prior" + AND: (linear(PLACED, "normal"), straight + COVARIATES),
        "R-learner, coordinates" + AND: (r_learner, straight + COVARIATES),
        "DoublyRobustEffect, coordinates" + AND: (
            causalsat.DoublyRobustEffect(random_state=0, n_draws=2),
            straight + COVARIATES,
        ),
        BASELINE + AND: (r_learner, COVARIATES),
        WITHOUT: (linear(PLACED, "normal"), straight),
        STRAIGHT: (linear(PLACED, "horseshoe"), straight),
        "smooth coordinates, normal prior": (linear(MIXED, "normal"), bent),
        SMOOTH: (linear(MIXED, "horseshoe"), bent),
        "images": (linear("img*", "normal"), IMAGES),
        BASELINE: (r_learner, []),
    }


class Places:
    """What is known of Uganda's units but their outcomes, and the features of one fold seed."""

    def __init__(self) -> None:
        self.uganda = Uganda()

    @cached_property
    def site(self) -> np.ndarray:
        """Site of each unit, numbered."""
        return pd.factorize(np.asarray(self.uganda.study.groups))[0]

    @cached_property
    def covariates(self) -> pd.DataFrame:
        """x1, x3 and x5; the few missing values are means."""
        table = pd.DataFrame(self.uganda.study.X[COVARIATES]).reset_index(drop=True)
        return table.fillna(table.mean())

    @cached_property
    def imagery(self) -> Any:
        """The one source of images."""
        found = self.uganda.pipeline.named_steps["images"].imagery
        return next(iter(found.values())) if isinstance(found, dict) else found

    @cached_property
    def kilometres(self) -> np.ndarray:
        """Coordinates about their means, shape (units, 2)."""
        east, north = self.imagery.grid.points(self.uganda.study.X.geometry)
        return np.column_stack([east - east.mean(), north - north.mean()]) / 1e3

    @cached_property
    def shown(self) -> list[np.ndarray]:
        """Components of other random features of other chips, standardised; what effects may be made of."""
        found = []
        for k, size_m in enumerate(SHOWN):
            images = clone(self.uganda.pipeline.named_steps["images"])
            images.set_params(size_m=size_m, encoder__random_state=77 + k, n_components=100)
            found.append(standardised(np.asarray(images.fit_transform(self.uganda.study.X))))
        return found

    @cached_property
    def statistics(self) -> np.ndarray:
        """Means, spreads, an index and textures of the bands in 2 km, standardised."""
        pixels = np.asarray(self.imagery.chips(self.uganda.study.X.geometry, size_m=2000.0)).astype(float)
        swir, nir = pixels[:, 0], pixels[:, 1]
        columns = [
            np.nanmean(pixels, axis=(-1, -2)),
            np.nanstd(pixels, axis=(-1, -2)),
            np.nanmean((nir - swir) / (nir + swir + 1), axis=(-1, -2)),
            np.nanmean(np.abs(np.diff(pixels, axis=-1)), axis=(-1, -2)),
        ]
        return standardised(np.column_stack(columns))

    @cached_property
    def tables(self) -> tuple[np.ndarray, list[pd.DataFrame], list[pd.DataFrame]]:
        """Folds; for each, features of all units fitted without it, and the simple baseline's."""
        fold, default = self.uganda.fold_features(FOLD_SEED)
        east, north = self.kilometres.T
        beside = self.covariates.assign(east=east, north=north, **waves(east, north, learn_box(east, north)))
        study = self.uganda.study
        images = uganda.simple_baseline(study, "ignore").named_steps["images"]
        simple = [pd.DataFrame(v, columns=IMAGES[:10]) for v in features_without_folds(images, study.X, fold)]
        return fold, [pd.concat([table, beside], axis=1) for table in default], simple

    # ------------------------------------------------------------------ parts of effects and outcomes
    def in_space(self, rng: np.random.Generator, length_km: float) -> np.ndarray:
        """A smooth field at the units."""
        first = np.unique(self.site, return_index=True)[1]
        gap = self.kilometres[first][:, None] - self.kilometres[first]
        covariance = np.exp(-(gap**2).sum(axis=2) / (2 * length_km**2)) + 1e-6 * np.eye(len(first))
        return standardised((np.linalg.cholesky(covariance) @ rng.standard_normal(len(first)))[self.site])

    def in_images(self, rng: np.random.Generator, kind: int) -> np.ndarray:
        """What images show, of one of the kinds."""
        name, falling = IMAGE_KINDS[kind]
        z = self.shown[rng.integers(len(SHOWN))]
        if name == "step":
            mixture = self.statistics @ rng.standard_normal(self.statistics.shape[1])
            return standardised((mixture > np.quantile(mixture, rng.uniform(0.3, 0.7))) * 1.0)
        weight = np.sqrt(np.arange(1, 101) ** -falling)
        if name == "linear":
            return standardised(z @ (weight * rng.standard_normal(100)))
        weight /= np.sqrt((weight**2).sum())
        hidden = np.tanh(1.5 * z @ (weight[:, None] * rng.standard_normal((100, 8))) + rng.standard_normal(8))
        return standardised(hidden @ rng.standard_normal(8))

    def in_households(self, rng: np.random.Generator) -> np.ndarray:
        """What the covariates carry."""
        people = self.covariates
        if rng.random() < 0.66:
            return standardised(standardised(people.to_numpy()) @ rng.standard_normal(3))
        carried = (people.x3 > people.x3.quantile(0.6)) ^ ((people.x5 == 1) & (people.x1 == 0))
        return standardised(carried.to_numpy() * 1.0) * rng.choice([-1, 1])

    def trial(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Shares (images, space, households) of the effects' variance, effects, treatment, outcome."""
        rng, n_sites = np.random.default_rng(FIRST_SEED + number), self.site.max() + 1
        share = rng.dirichlet([1.5, 1, 1])
        share[2] *= number % 3 != 0
        share[1] *= number % 4 != 0
        share /= share.sum()
        root = np.sqrt(share)
        parts = root[0] * self.in_images(rng, number % 6)
        parts = parts + root[1] * self.in_space(rng, rng.choice(LENGTHS_KM)) + root[2] * self.in_households(rng)
        tau = TAU_MEAN + TAU_SD * standardised(parts)
        outcome = 0.25 * self.in_images(rng, rng.integers(6))
        outcome = outcome + 0.2 * self.in_space(rng, 100) + 0.2 * self.in_households(rng)
        t = (rng.random(n_sites) < 0.4).astype(int)[self.site]
        mixed = np.isin(self.site, rng.choice(n_sites, 49, replace=False)) & (rng.random(len(t)) < 0.4)
        t = np.where(mixed, 1 - t, t)
        outcome = outcome + t * tau + SITE_SD * rng.standard_normal(n_sites)[self.site]
        return share, tau, t, outcome + np.where(t == 1, *NOISE_SD[::-1]) * rng.standard_normal(len(t))

    # ------------------------------------------------------------------ judging
    def ranked(self, number: int, name: str) -> Row:
        """How a model ranks one trial's true effects."""
        _, tau, t, y = self.trial(number)
        model, columns = candidates()[name]
        fold, default, simple = self.tables
        tables = [table[columns] for table in default]
        if name.startswith(BASELINE):
            tables = [pd.concat(pair, axis=1) for pair in zip(simple, tables, strict=True)]
        found = held_out_effects(model, tables, y, t, self.site, fold)
        return truly(found, tau, fold, self.site)


def run(places: Places, numbers: range, names: Sequence[str]) -> pd.DataFrame:
    """One row a trial and model."""
    rows = []
    for number in numbers:
        share = places.trial(number)[0]
        at = {"trial": number, "in space": "a part" if share[1] else "none"}
        at["in households"] = "a part" if share[2] else "none"
        for name in names:
            make = partial(places.ranked, number, name)
            rows.append(at | {"model": name} | kept_row("uganda_places", f"{number}/{name}", make))
    return pd.DataFrame(rows)


def to_markdown(table: pd.DataFrame) -> str:
    """Each model beside the method before, with covariates or without as it has."""
    parts = [(f"{column}: {value}", part) for column in ("in space", "in households")
             for value, part in table.groupby(column)]  # fmt: skip
    head = " | ".join(f"less, {name}" for name, _ in parts)
    lines = [
        f"| model | AUTOC of the true effects | less the former method's (s.e.) | {head} | less the baseline's "
        "| correlation | less the former method's | RMSE |",
        "|---" * (7 + len(parts)) + "|",
    ]
    for name in dict.fromkeys(table.model):
        mean, both = table[table.model == name][["free", "correlation", "rmse"]].mean(), name.endswith(AND)
        before, base = (WITH, BASELINE + AND) if both else (WITHOUT, BASELINE)
        by = " | ".join(paired(part, name, before, "free", 4) for _, part in parts)
        lines.append(
            f"| {name} | {mean.free:.4f} | {paired(table, name, before, 'free', 4)} | {by} | "
            f"{paired(table, name, base, 'free', 4)} | {mean.correlation:.3f} | "
            f"{paired(table, name, before, 'correlation', 4)} | {mean.rmse:.4f} |"
        )
    return "\n".join(lines)


def choice_section(options: argparse.Namespace) -> None:
    """The trials on which the method was chosen."""
    print(f"{options.choosing} trials on which the method was chosen", end="\n\n")
    print(to_markdown(run(Places(), range(options.choosing), list(candidates()))), end="\n\n")


def confirmation_section(options: argparse.Namespace) -> None:
    """Other trials."""
    numbers = range(CONFIRMED_FROM, CONFIRMED_FROM + options.confirming)
    print(f"{options.confirming} other trials", end="\n\n")
    places = Places()
    print(to_markdown(run(places, numbers, CONFIRMED)), end="\n\n")
    table = run(places, range(numbers.stop), CONFIRMED)
    gaps = [paired(table, *pair, "free", 4) for pair in ((WITH, BASELINE + AND), (WITHOUT, BASELINE))]
    print(
        f"All {table.trial.nunique()} trials together, AUTOC of the true effects less the simple baseline's: "
        f"straight coordinates with covariates {gaps[0]}, without {gaps[1]}.",
        NOTE,
        sep="\n\n",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    numbers = {"choosing": (48, "trials for the choice"), "confirming": (24, "trials for its confirmation")}
    run_sections(__doc__, {"choice": choice_section, "confirmation": confirmation_section}, numbers, argv)


if __name__ == "__main__":
    main()
