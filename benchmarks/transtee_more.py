"""TransTEE, more: ablations, doses outside the training support, chips and covariates together, 50,000 units.

Curves are judged as in benchmarks/transtee.py. Other kinds of treatments: benchmarks/transtee_treatments.py.

    python benchmarks/transtee_more.py [--sections ablation shift images size]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from dose_designs import ihdp_covariates
from sections import run_sections
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transtee import HEAD, evaluate, halves, row
from transtee_treatments import kept_means, mean_row

import causalsat
from causalsat.simulate import dose_response
from causalsat.simulate.dose_response import DoseTrial

FIRST_SEED = 100


def shifted(design: str) -> Callable[[int], tuple[DoseTrial, DoseTrial]]:
    """Training doses on a smaller support: simu1 [0, 4] against [0, 5], IHDP [0.1, 2] against [0, 2]."""

    def split(seed: int) -> tuple[DoseTrial, DoseTrial]:
        rng = np.random.default_rng(seed)
        if design == "simu1":
            train = dose_response.simu1(500, rng, scale=5.0, reach=0.8)
            return train, dose_response.simu1(200, rng, scale=5.0)
        trial = dose_response.continuous_ihdp(ihdp_covariates(), rng, scale=2.0)
        train = trial.take(slice(471))
        return train.take(train.dose >= 0.1), trial.take(slice(471, None))

    return split


ABLATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "one network": {"n_members": 1},
    "one map to tokens for all columns": {"column_embedding": False},
    "post-norm": {"norm": "post"},
    "no norm": {"norm": "none"},
    "a self-attention block": {"n_blocks": 1},
    "TR": {"regularizer": "tr"},
    "PTR": {"regularizer": "ptr"},
    "propensity weights": {"propensity_weights": True},
}


def ablation(args: argparse.Namespace) -> None:
    """What the choices contribute."""
    print(f"\nAblations\n\n{HEAD}")
    for design, count in (("simu1", args.simu1), ("ihdp", args.ihdp)):
        if not count:
            continue
        seeds = range(FIRST_SEED, FIRST_SEED + count)
        for label, options in ABLATIONS.items():
            one = partial(evaluate, "TransTEE", options, design, halves(design))
            print(row("ablation", design, label, seeds, one), flush=True)


def shift(args: argparse.Namespace) -> None:
    """Doses outside the training support."""
    print(f"\nTreatment shift: training doses on a smaller support than the test's\n\n{HEAD}")
    for design, scale, count in (("simu1", 5.0, args.simu1), ("ihdp", 2.0, args.ihdp)):
        if not count:
            continue
        seeds = range(FIRST_SEED, FIRST_SEED + count)
        for name in ("TransTEE", "VCNet", "TARNet", "DRNet"):
            one = partial(evaluate, name, {}, design, shifted(design), scale=scale)
            print(row("shift", design, name, seeds, one), flush=True)


def size(_: argparse.Namespace) -> None:
    """50,000 units of simu1."""

    def split(seed: int) -> tuple[DoseTrial, DoseTrial]:
        train, test = (np.random.default_rng(k) for k in (seed, seed + 1))
        return dose_response.simu1(50_000, train), dose_response.simu1(2_000, test)

    print(f"\n50,000 units of simu1, 2,000 for testing\n\n{HEAD}")
    seeds = range(FIRST_SEED, FIRST_SEED + 1)
    print(row("size", "simu1", "TransTEE", seeds, partial(evaluate, "TransTEE", {}, "simu1", split)))


# ---------------------------------------------------------------------- images
def image_trial(n: int, rng: np.random.Generator) -> tuple[Any, ...]:
    """Chips in half of which a field is bright; it doubles the effect on the old. Chips, age, y, t, effect."""
    bright = rng.integers(0, 2, n)
    images = 0.3 * rng.normal(size=(n, 2, 16, 16)).astype(np.float32)
    rows, columns = rng.integers(0, 12, (2, n))
    for i in np.flatnonzero(bright):
        images[i, 0, rows[i] : rows[i] + 4, columns[i] : columns[i] + 4] += 1.0
    age = rng.normal(size=n)
    tau = 1.0 + 1.5 * bright * (age > 0)
    t = rng.integers(0, 2, n)
    return images, age, age + t * tau + 0.5 * rng.normal(size=n), t, tau


def images(args: argparse.Namespace) -> None:
    """An effect that needs the chip and a covariate together."""
    names = ("nPEHE", "coverage of 90 %", "CPU s")
    print(f"\nChip and covariate together: 800 units, 400 for testing, {args.few} replications (s.e.)\n")
    print("| estimator | " + " | ".join(names) + " |\n" + "|---" * 4 + "|")
    seeds = range(FIRST_SEED, FIRST_SEED + args.few)
    for name in IMAGE_MODELS:
        print(mean_row(name, kept_means("images", name, seeds, partial(image_model, name)), names), flush=True)


IMAGE_MODELS = (
    "TransTEE, chip and age",
    "TransTEE, chip alone",
    "TransTEE, age alone",
    "TransTEE, frozen features and age",
    "BayesianLinearEffect, frozen features and age",
)


def image_model(name: str, seed: int) -> dict[str, float]:
    """One of IMAGE_MODELS on one trial: error and coverage of unit effects, and CPU seconds."""
    pixels, age, y, t, tau = image_trial(1200, np.random.default_rng(seed))
    X: Any = xr.DataArray(pixels, dims=("unit", "band", "y", "x")).assign_coords(age=("unit", age))
    est: Any = causalsat.TransTEE(random_state=seed)
    if "chip" in name:
        more = {"covariates": ["age"]} if name.endswith("age") else {}
        est = causalsat.TransTEE(backbone="cnn", max_epochs=50, random_state=seed, **more)
    elif "frozen" in name:
        frozen = make_pipeline(causalsat.RandomConvFeatures(), StandardScaler(), PCA(10)).fit(X[:800])
        X = np.column_stack([frozen.transform(X), age])
        est = causalsat.BayesianLinearEffect(random_state=seed) if name.startswith("Bayes") else est
    else:
        X = age[:, None]
    start = time.process_time()
    post = est.fit(X[:800], y[:800], treatment=t[:800]).effect(X[800:])
    cpu, (lower, upper), truth = time.process_time() - start, post.interval(0.9).T, tau[800:]
    inside = float(np.mean((lower < truth) & (truth < upper)))
    error = float(np.sqrt(np.mean((post.mean() - truth) ** 2)) / truth.std())
    return {"nPEHE": error, "coverage of 90 %": inside, "CPU s": cpu}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    run_sections(
        __doc__,
        {"ablation": ablation, "shift": shift, "images": images, "size": size},
        {
            "simu1": (10, "replications of each row on simu1"),
            "ihdp": (10, "replications of each row on IHDP"),
            "few": (10, "replications with images"),
        },
        argv,
    )


if __name__ == "__main__":
    main()
