"""A small training that test_distributed.py runs in one process and in two."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def build():
    """A module, a criterion with a parameter of its own, images and outcomes."""
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_sd = torch.nn.Parameter(torch.zeros(()))

        def forward(self, outputs, targets):
            return (((outputs.ravel() - targets) / self.log_sd.exp()) ** 2 / 2 + self.log_sd).mean()

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(16, 1),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    images = rng.normal(size=(75, 2, 8, 8)).astype("f4")
    outcomes = images.mean(axis=(1, 2, 3)) * 20 + 0.1 * rng.standard_normal(75)
    return module, Scaled(), torch.from_numpy(images), torch.from_numpy(outcomes.astype("f4"))


def train(checkpoint: str | None = None, epochs: int = 6, *, plain: bool = False):
    """Batches of 15, whose two parts have 7 and 8 rows, and held-out rows; ``plain``: a loss without parameters."""
    from causalsat.encoders.networks.training import TrainSettings, train_network

    module, criterion, images, outcomes = build()
    if plain:
        import torch

        criterion, outcomes = torch.nn.MSELoss(), outcomes[:, None]
    settings = TrainSettings(
        max_epochs=epochs, batch_size=15, device="cpu", checkpoint=checkpoint, schedule="one_cycle"
    )
    return train_network(module, images, outcomes, criterion, np.arange(75) % 5 == 0, settings)


if __name__ == "__main__":
    import os

    import torch

    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    found = train(str(out / "checkpoint.pt") if "--checkpoint" in sys.argv else None)
    plain = {f"plain_{name}": value for name, value in train(plain=True).weights.items()}
    rank = os.environ.get("RANK", "0")
    np.savez(
        out / f"{rank}.npz",
        **found.weights,
        **found.criterion,
        **plain,
        history=found.history,
        valid=found.valid_loss,
    )
