"""TransTEE, more: ablations, doses outside the training support, chips and covariates, 50,000 units, precision.

Curves are judged as in benchmarks/transtee.py. Other kinds of treatments: benchmarks/transtee_treatments.py.

    python benchmarks/transtee_more.py [--sections ablation shift images size speed]
"""

from __future__ import annotations

import argparse
import os
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
    if args.pairs:
        seeds = range(FIRST_SEED + 10, FIRST_SEED + 10 + args.pairs)
        means = kept_means("shift, pairs", "simu1", seeds, shift_pair)
        print(f"\nShifted simu1, {args.pairs} further replications: AMSE (s.e.) and the difference within them\n")
        print("| " + " | ".join(means) + " |\n" + "|---" * len(means) + "|")
        print("| " + " | ".join(f"{mean:.4f} ({error:.4f})" for mean, error in means.values()) + " |", flush=True)


def shift_pair(seed: int) -> dict[str, float]:
    """AMSE of TransTEE and of the best plain network on the same replication of shifted simu1."""
    ours, theirs = (evaluate(k, {}, "simu1", shifted("simu1"), seed, 5.0)["AMSE"] for k in ("TransTEE", "VCNet"))
    return {"TransTEE": ours, "VCNet": theirs, "TransTEE less VCNet": ours - theirs}


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


# ---------------------------------------------------------------------- mixed precision and compilation
SPEEDS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "compiled, first fit": {"compile_network": True},
    "compiled, second fit": {"compile_network": True},
}


def spent() -> float:
    """CPU seconds of this process and of the compilers that it has started."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def timed(fit: Callable[..., Any], options: dict[str, Any], _: int) -> dict[str, float]:
    """CPU seconds of a fit and of one of its epochs, and its held-out R2."""
    start = spent()
    est = fit(**options)
    cpu = spent() - start
    return {"CPU s": cpu, "CPU ms an epoch": 1e3 * cpu / len(est.history_), "held-out R2": est.held_out_r2_}


def speed(_: argparse.Namespace) -> None:
    """What torch.compile and bfloat16 gain or cost on this CPU."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    train = dose_response.simu1(500, np.random.default_rng(FIRST_SEED))
    pixels, age, y, t, _tau = image_trial(200, np.random.default_rng(FIRST_SEED))
    chips = xr.DataArray(pixels, dims=("unit", "band", "y", "x")).assign_coords(age=("unit", age))

    def table_fit(**more: Any) -> Any:
        return causalsat.TransTEE(random_state=0, **more).fit(train.X, train.y, treatment=train.dose)

    def chip_fit(**more: Any) -> Any:
        est = causalsat.TransTEE(backbone="cnn", covariates=["age"], max_epochs=10, random_state=0, **more)
        return est.fit(chips, y, treatment=t)

    table_fit(max_epochs=1)  # what a process does once
    names = ("CPU s", "CPU ms an epoch", "held-out R2")
    print("\nMixed precision and torch.compile on this CPU, one fit each, compilers' time included\n")
    print("| units | network | " + " | ".join(names) + " |\n" + "|---" * 5 + "|")
    for units, fit in (("500 of simu1", table_fit), ("200 chips, 10 epochs", chip_fit)):
        for label in list(SPEEDS)[: 4 if fit is table_fit else 2]:  # images break the graph: minutes
            options = SPEEDS[label]
            means = kept_means(f"speed, {units}", label, range(1), partial(timed, fit, options))
            cells = (f"{means['CPU s'][0]:.2f}", f"{means[names[1]][0]:.0f}", f"{means[names[2]][0]:.3f}")
            print(f"| {units} | {label} | " + " | ".join(cells) + " |", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    run_sections(
        __doc__,
        {"ablation": ablation, "shift": shift, "images": images, "size": size, "speed": speed},
        {
            "simu1": (10, "replications of each row on simu1"),
            "ihdp": (10, "replications of each row on IHDP"),
            "pairs": (30, "further replications of shifted simu1"),
            "few": (10, "replications with images"),
        },
        argv,
    )


if __name__ == "__main__":
    main()
