"""Training on images: the package's loop on skorch beside a plain torch loop of the same network, images a second.

Both train the small network of ImageEffectClusters on the same images in memory with the same loss, optimiser, batch
size and augmentation; the package's loop also computes the loss of held-out images, and so does the plain loop.
Rounds of both alternate; the median of their ratios is reported. Seconds are those of the CPU, or of the clock where
there is a GPU.

    python benchmarks/training_speed.py [--images 400] [--px 32] [--epochs 3] [--rounds 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from causalsat.encoders.device import resolve_device
from causalsat.encoders.networks.training import TrainSettings, augment_batch, train_network
from causalsat.estimators.clusters.network import build_network, cluster_loss


def data(n: int, px: int) -> tuple[Any, Any]:
    """Images of noise, and outcomes of eight units an image."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(n, 6, px, px)).astype(np.float32))
    arm = rng.integers(0, 2, n)
    count = 8.0 * np.column_stack([arm == 0, arm == 1])
    statistics = np.column_stack([count, rng.normal(size=(n, 2)), count])
    return images, torch.from_numpy(statistics.astype(np.float32))


def ours(images: Any, targets: Any, held_out: np.ndarray, settings: TrainSettings) -> float:
    """Seconds of the package's loop."""
    start = clock()
    train_network(build_network("cnn", 6, 2, 0), images, targets, cluster_loss(2, 0.3), held_out, settings)
    return clock() - start


def plain(images: Any, targets: Any, held_out: np.ndarray, settings: TrainSettings) -> float:
    """Seconds of a plain loop."""
    start = clock()
    device = resolve_device(settings.device)
    module, loss = build_network("cnn", 6, 2, 0).to(device), cluster_loss(2, 0.3).to(device)
    known, unseen = (torch.from_numpy(np.flatnonzero(mask)) for mask in (~held_out, held_out))
    x, y, x_out, y_out = (a[rows].to(device) for rows in (known, unseen) for a in (images, targets))
    optimiser = torch.optim.AdamW(
        [*module.parameters(), *loss.parameters()], lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(settings.max_epochs):
        module.train()
        for rows in torch.randperm(len(x), generator=generator).to(device).split(settings.batch_size):
            optimiser.zero_grad()
            value = loss(module(augment_batch(x[rows], generator, settings.shift_px)), y[rows])
            value.backward()
            optimiser.step()
        module.eval()
        with torch.no_grad():
            for rows in torch.arange(len(x_out), device=device).split(settings.batch_size):
                loss(module(x_out[rows]), y_out[rows]).item()
    return clock() - start


def clock() -> float:
    """CPU seconds; wall seconds where a GPU does the work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    images, targets = data(options.images, options.px)
    held_out = np.arange(options.images) % 5 == 0
    settings = TrainSettings(max_epochs=options.epochs, patience=options.epochs + 1)
    ours(images, targets, held_out, TrainSettings(max_epochs=1))  # imports
    pairs = [
        (ours(images, targets, held_out, settings), plain(images, targets, held_out, settings))
        for _ in range(options.rounds)
    ]
    trained = int((~held_out).sum()) * options.epochs
    unit = "GPU" if torch.cuda.is_available() else "CPU"
    speed = trained / np.median(pairs, axis=0)
    print(f"| training, {options.px} x {options.px} pixels, 6 bands | images a {unit} second |\n|---|---|")
    print(f"| the package's loop | {speed[0]:.0f} |\n| plain torch loop | {speed[1]:.0f} |")
    print(f"| ratio (median of {options.rounds} rounds) | {np.median([b / a for a, b in pairs]):.2f} |")


if __name__ == "__main__":
    main()
