"""Fine-tuning a network against its frozen features: the effect at new places, by the size of the trial.

The effect follows the direction of the stripes in a place's image, which a small network with random weights hardly
shows. Half of the sites are treated, eight people a site. R2 of the effect at 300 new places, where each source takes
the mean of its networks; and of the trial's own places, by the network that did not see them (cross-fitted).

    python benchmarks/finetuning.py [--seeds 3] [--sites 80 240]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from causalsat.encoders import FineTunedEncoder, ModuleEncoder, RandomConvFeatures, SupervisedEncoder

NEW_PLACES, PEOPLE, WIDTH = 300, 8, 6
SETTINGS: dict[str, Any] = {"n_folds": 2, "learning_rate": 3e-3, "decay": 1.0, "batch_size": 16, "augment": False}
SETTINGS |= {"max_epochs": 60, "patience": 12}


def world(n_sites: int = 160, per_site: int = PEOPLE, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Images (site, band, y, x), effects, and place, treatment and outcome of people.

    The effect is large where the stripes of an image run along it, and small where they run across.
    """
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, n_sites)
    along, across = (
        sum(np.roll(noise, k, axis) for k in range(3)) / np.sqrt(3)
        for noise, axis in zip(rng.normal(size=(2, n_sites, 2, 16, 16)), (-1, -2), strict=True)
    )
    share = ((1 + z) / 2)[:, None, None, None]
    images = (np.sqrt(share) * along + np.sqrt(1 - share) * across).astype("f4")
    place = np.repeat(np.arange(n_sites), per_site)
    t = (rng.permutation(n_sites) % 2)[place].astype(float)
    y = 0.5 * z[place] + t * (1 + z[place]) + 0.5 * rng.standard_normal(len(place))
    return images, 1 + z, place, t, y


def module(seed: int = 0) -> Any:
    """Two convolutions with random weights."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nn = torch.nn
        return nn.Sequential(nn.Conv2d(2, WIDTH, 3), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, 2), nn.ReLU())


def sources(seed: int) -> dict[str, Any]:
    """Encoders by name."""
    base = ModuleEncoder(module(seed))
    return {
        "network frozen, ridge on its features": FineTunedEncoder(base, n_folds=2, max_epochs=1, learning_rate=1e-12),
        "network frozen, a small network on its features (SupervisedEncoder)": SupervisedEncoder(base, n_folds=2),
        "last stage of two fine-tuned": FineTunedEncoder(base, n_stages=1, **SETTINGS),
        "fine-tuned": FineTunedEncoder(base, **SETTINGS),
        "fine-tuned, a stage at 0.4 of the next one's rate": FineTunedEncoder(base, **{**SETTINGS, "decay": 0.4}),
        "64 random convolutional features (SupervisedEncoder)": SupervisedEncoder(RandomConvFeatures(64), n_folds=2),
    }


def run(seeds: int = 3, sites: Sequence[int] = (80, 240)) -> dict[int, dict[str, list[list[float]]]]:
    """R2 at new places, R2 cross-fitted and CPU seconds of each source, by sites and seed."""
    found: dict[int, dict[str, list[list[float]]]] = {}
    for n in sites:
        rows: dict[str, list[list[float]]] = {name: [] for name in sources(0)}
        for seed in range(seeds):
            images, tau, place, t, y = world(n, seed=1000 + seed)
            new, truth = world(NEW_PLACES, seed=2000 + seed)[:2]
            for name, encoder in sources(seed).items():
                start = time.process_time()
                own = encoder.fit_transform(images, y, treatment=t, groups=place, unit_place=place)[:, 1]
                other = encoder.transform(new)[:, 1]
                rows[name].append([_r2(other, truth), _r2(own, tau), time.process_time() - start])
        found[n] = rows
    return found


def _r2(found: np.ndarray, truth: np.ndarray) -> float:
    return 1 - float(np.mean((found - truth) ** 2) / truth.var())


def to_markdown(found: dict[int, dict[str, list[list[float]]]]) -> str:
    """Means over seeds, with the standard error at new places."""
    lines = ["| sites | source | R2 at new places | s.e. | R2 cross-fitted | CPU s |", "|---|---|---|---|---|---|"]
    for n, rows in found.items():
        for name, values in rows.items():
            mean = np.mean(values, axis=0)
            se = np.std(values, axis=0, ddof=1)[0] / np.sqrt(len(values)) if len(values) > 1 else np.nan
            lines.append(f"| {n} | {name} | {mean[0]:.3f} | {se:.3f} | {mean[1]:.3f} | {mean[2]:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sites", type=int, nargs="+", default=[80, 240])
    options = parser.parse_args(argv)
    print(to_markdown(run(options.seeds, options.sites)))


if __name__ == "__main__":
    main()
