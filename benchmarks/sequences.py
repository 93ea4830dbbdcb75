"""A moderator that only the change between dates shows: sequences against single images.

On each landscape (variant "change": the effect follows the gain of NDVI, small beside its variation within a date)
a doubly robust linear model is fitted with each source to the trial's part, and its effects at settlements without a
trial are compared with the truth. Then the same with five dates, a third of each under clouds, and with frame
encoders that were trained without labels on random places of all imagery, or on outcomes.

    python benchmarks/sequences.py [--landscapes 3] [--trained 2]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

import causalsat
from causalsat.encoders import (
    PyramidFeatures,
    RandomConvFeatures,
    SelfSupervisedEncoder,
    SequenceEncoder,
    SupervisedEncoder,
    TorchvisionEncoder,
    pretrain,
)
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.exceptions import CausalsatWarning
from causalsat.simulate import satellite_trial

POOLINGS = ("mean_trend", "mean_difference", "attention", "mean_variance", "concatenate")


def sources(imagery: Any, *, all_of_them: bool) -> dict[str, tuple[Any, Any]]:
    """Imagery and encoder by name: every single image, and sequences."""
    rcf = RandomConvFeatures(64, statistics=True)
    found = {f"image of {day[:4]}": (imagery.sel(dates=[day]), rcf) for day in imagery.days}
    if all_of_them:
        found["two images side by side, no sequence encoder"] = (imagery, rcf)
    found |= {f"sequence, {pooling}": (imagery, SequenceEncoder(rcf, pooling)) for pooling in POOLINGS}
    if all_of_them:
        found["sequence, mean_difference, two scales"] = (imagery, SequenceEncoder(rcf, scales=(1.0, 0.5)))
        found["sequence, mean_difference, pyramid frames"] = (imagery, SequenceEncoder(PyramidFeatures()))
    else:
        unfilled = SequenceEncoder(rcf, "mean_trend", fill_pixels=False)
        found["sequence, mean_trend, pixels under clouds not filled"] = (imagery, unfilled)
    return found


def trained_frames(imagery: Any, size_m: float, n_places: int = 600) -> dict[str, tuple[Any, Any]]:
    """Sequences whose frame encoders were trained without labels on random places of all imagery, and others."""
    found: dict[str, tuple[Any, Any]] = {}
    for objective in ("contrastive", "masked"):
        network = SelfSupervisedEncoder(objective, width=16, max_epochs=20)
        found[f"{objective} network, trained on {n_places} random places"] = (
            imagery,
            lambda network=network: pretrain(SequenceEncoder(network), imagery, size_m, n_places=n_places),
        )
    for name, encoder in (
        ("random convolutional features", RandomConvFeatures(64, statistics=True)),
        ("ResNet-18, random weights", TorchvisionEncoder("resnet18")),
    ):
        found[name] = (imagery, SequenceEncoder(encoder))
    rcf = SequenceEncoder(RandomConvFeatures(64, statistics=True))
    found["random convolutional features, then trained on outcomes (SupervisedEncoder)"] = (
        imagery,
        SupervisedEncoder(rcf),
    )
    return found


def r2_of_sources(trial: Any, choice: dict[str, tuple[Any, Any]]) -> dict[str, tuple[float, float]]:
    """R2 of the effects at places without a trial, and CPU seconds, by source."""
    study = trial.study()
    truth = trial.places["tau"].to_numpy()
    places = trial.places.assign(**dict.fromkeys(study.covariates, np.nan))
    out = {}
    for name, (imagery, encoder) in choice.items():
        start = time.process_time()
        encoder = encoder() if callable(encoder) else encoder
        own = study.replace(imagery=imagery)
        estimator = DoublyRobustEffect(modifiers="img*", n_draws=50)
        model = causalsat.image_model(own, estimator, encoder=encoder)
        model.named_steps["images"].set_params(min_valid=0.05, on_invalid="mask")
        if isinstance(encoder, SupervisedEncoder):
            model.named_steps["images"].set_params(n_components=None)
        own.fit(model)
        features = model.named_steps["images"].transform(places)
        seen = features.filter(like="img").notna().all(axis=1).to_numpy()
        predicted = np.full(len(truth), np.nan)
        predicted[seen] = model.named_steps["effect"].predict(features[seen])
        error = np.mean((predicted[seen] - truth[seen]) ** 2)
        out[name] = (float(1 - error / truth[seen].var()), time.process_time() - start)
    return out


def run(landscapes: int = 3, trained: int = 2, first_seed: int = 3000) -> dict[str, list[Any]]:
    """Two clear dates, five dates under clouds, and two clear dates by frame encoder."""
    found: dict[str, list[Any]] = {"clear": [], "clouds": [], "frames": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        for seed in range(first_seed, first_seed + landscapes):
            clear = satellite_trial("change", seed=seed)
            study = clear.study()
            found["clear"].append(r2_of_sources(clear, sources(study.imagery, all_of_them=True)))
            if seed < first_seed + trained:
                choice = trained_frames(study.imagery, study.chip_size_m)
                found["frames"].append(r2_of_sources(clear, choice))
            cloudy = satellite_trial("change", n_dates=5, clouds="nodata", cloud_cover=0.35, seed=seed)
            found["clouds"].append(r2_of_sources(cloudy, sources(cloudy.study().imagery, all_of_them=False)))
    return found


def to_markdown(found: dict[str, list[dict[str, tuple[float, float]]]]) -> str:
    """Mean R2 over landscapes with its standard error, and the gap to the best single image."""
    words = {"clear": "two dates, no clouds", "clouds": "five dates, a third under clouds"}
    words["frames"] = "two dates, frames by"
    lines = ["| imagery | source | R2 | s.e. | less the best single image | CPU s |", "|---|---|---|---|---|---|"]
    for part, rows in found.items():
        single = [row if part != "frames" else other for row, other in zip(rows, found["clear"], strict=False)]
        best = np.array([max(v[0] for k, v in row.items() if k.startswith("image of")) for row in single])
        for name in rows[0]:
            values, seconds = np.array([row[name] for row in rows]).T
            se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            gap = "" if name.startswith("image of") else f"{np.mean(values - best):+.3f}"
            lines.append(
                f"| {words[part]} | {name} | {values.mean():.3f} | {se:.3f} | {gap} | {seconds.mean():.1f} |"
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", type=int, default=3)
    parser.add_argument("--trained", type=int, default=2, help="of those, landscapes for trained frame encoders")
    options = parser.parse_args(argv)
    print(to_markdown(run(options.landscapes, options.trained)))


if __name__ == "__main__":
    main()
