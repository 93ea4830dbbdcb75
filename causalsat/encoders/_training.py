"""Training of small networks on images, on skorch: augmented batches, held-out early stopping, checkpoints.

The order of the images and their augmentation depend on the seed and the number of the epoch alone, so a training
that was killed and goes on from its checkpoint ends with the same weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders._device import resolve_device

__all__ = ["TrainSettings", "Trained", "augment_batch", "train_network"]


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    Attributes
    ----------
    max_epochs, patience : int
        Most epochs, and epochs without a better held-out loss after which training stops.
    batch_size : int
        Images in a step.
    learning_rate, weight_decay : float
        Of AdamW.
    augment : bool
        Flip, turn by quarters and shift the training images.
    shift_px : int
        Largest shift in pixels.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    seed : int
        Seed of order and augmentation.
    checkpoint : str or None
        File that is written after each epoch, and from which training goes on.
    progress : bool
        Show a bar over epochs.
    """

    max_epochs: int = 40
    patience: int = 8
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    augment: bool = True
    shift_px: int = 2
    device: str = "auto"
    seed: int = 0
    checkpoint: str | None = None
    progress: bool = False


@dataclass(frozen=True)
class Trained:
    """Weights of the best epoch on held-out images.

    Attributes
    ----------
    weights : dict of ndarray
        State of the module.
    valid_loss : float
        Held-out loss of that epoch.
    history : list of tuple of float
        Training and held-out loss of each epoch.
    """

    weights: dict[str, NDArray[Any]]
    valid_loss: float
    history: list[tuple[float, float]]


def train_network(
    module: Any,
    images: Any,
    targets: Any,
    criterion: Any,
    held_out: NDArray[np.bool_],
    settings: TrainSettings,
) -> Trained:
    """Train a module and the parameters of its criterion; return the weights of the best held-out epoch.

    Parameters
    ----------
    module : torch.nn.Module
        Maps images (batch, band, y, x) to outputs.
    images, targets : torch.Tensor
        One row an image.
    criterion : torch.nn.Module
        ``criterion(outputs, targets)`` is the mean loss; its parameters are trained too.
    held_out : ndarray of bool of shape (m,)
        Images that are only used to decide when to stop.
    settings : TrainSettings
        The rest.
    """
    import torch
    from skorch import NeuralNet
    from skorch.helper import predefined_split

    device = resolve_device(settings.device)
    keeper = _keeper(settings)
    keep, out = (torch.from_numpy(np.flatnonzero(mask)) for mask in (~held_out, held_out))
    parts = [
        torch.utils.data.TensorDataset(images[rows].to(device), targets[rows].to(device)) for rows in (keep, out)
    ]
    net = NeuralNet(
        module,
        criterion=criterion,
        optimizer=torch.optim.AdamW,
        lr=settings.learning_rate,
        optimizer__weight_decay=settings.weight_decay,
        max_epochs=settings.max_epochs,
        batch_size=settings.batch_size,
        iterator_train=_Batches,
        iterator_train__settings=settings,
        iterator_train__keeper=keeper,
        iterator_valid=_Batches,
        train_split=predefined_split(parts[1]),
        callbacks=[("keeper", keeper)],
        callbacks__print_log=None,
        device=device,
        verbose=0,
    )
    net.initialize()
    keeper.resume(net)
    if not keeper.finished:
        net.partial_fit(parts[0], None)
    keeper.finish(net)
    weights = {name: value.numpy().copy() for name, value in keeper.best.items()}
    return Trained(weights, keeper.best_loss, list(keeper.losses))


class _Batches:
    """Batches of tensors that are in memory, sliced at once; shuffled and augmented in training."""

    def __init__(
        self, dataset: Any, batch_size: int, settings: TrainSettings | None = None, keeper: Any = None
    ) -> None:
        self.tensors, self.batch_size = dataset.tensors, batch_size
        self.settings, self.keeper = settings, keeper

    def __len__(self) -> int:
        return (len(self.tensors[0]) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        import torch

        images, targets = self.tensors
        if self.settings is None:
            yield from zip(images.split(self.batch_size), targets.split(self.batch_size), strict=True)
            return
        generator = torch.Generator().manual_seed(self.settings.seed * 100_003 + self.keeper.epoch)
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for rows in order.split(self.batch_size):
            batch = images[rows]
            if self.settings.augment:
                batch = augment_batch(batch, generator, self.settings.shift_px)
            yield batch, targets[rows]


def augment_batch(images: Any, generator: Any, shift_px: int) -> Any:
    """Each image flipped and turned by quarters at random, all shifted by the same few pixels (edges wrap).

    Parameters
    ----------
    images : torch.Tensor of shape (batch, band, y, x)
        Images; turned only where they are square.
    generator : torch.Generator
        Source of the choice.
    shift_px : int
        Largest shift.
    """
    import torch

    square = images.shape[-1] == images.shape[-2]
    kind = torch.randint(8 if square else 4, (len(images),), generator=generator)
    dy, dx = torch.randint(-shift_px, shift_px + 1, (2,), generator=generator).tolist()
    out = torch.empty_like(images)
    for k in range(8):
        rows = torch.nonzero(kind == k).ravel().to(images.device)
        if len(rows):
            part = images[rows]
            part = part.flip(-1) if k & 1 else part
            part = part.flip(-2) if k & 2 else part
            out[rows] = part.transpose(-1, -2) if k & 4 else part
    return out.roll((dy, dx), (-2, -1))


def _keeper(settings: TrainSettings) -> Any:
    from skorch.callbacks import Callback

    class Keeper(Callback):
        """Remembers the best epoch, stops when none is better for a while, writes and reads checkpoints."""

        def __init__(self) -> None:
            self.epoch, self.best_loss, self.best_epoch, self.finished = 0, float("inf"), -1, False
            self.best: dict[str, Any] = {}
            self.losses: list[tuple[float, float]] = []

        def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
            from tqdm.auto import tqdm

            net.max_epochs = settings.max_epochs - self.epoch
            self.bar = tqdm(
                total=settings.max_epochs, initial=self.epoch, desc="training", disable=not settings.progress
            )

        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            train, valid = (float(net.history[-1, name]) for name in ("train_loss", "valid_loss"))
            self.losses.append((train, valid))
            if valid < self.best_loss or not self.best:
                self.best_loss, self.best_epoch = valid, self.epoch
                self.best = {k: v.detach().cpu().clone() for k, v in net.module_.state_dict().items()}
            self.epoch += 1
            self.bar.update()
            self.bar.set_postfix(held_out=f"{self.best_loss:.4f}")
            self.finished = self.epoch - 1 - self.best_epoch >= settings.patience or self.epoch >= settings.max_epochs
            self.write(net)
            if self.finished and self.epoch < settings.max_epochs:
                raise KeyboardInterrupt  # how skorch's own early stopping ends a training

        def write(self, net: Any) -> None:
            if settings.checkpoint is None:
                return
            import torch

            state = {
                "module": net.module_.state_dict(),
                "criterion": net.criterion_.state_dict(),
                "optimizer": net.optimizer_.state_dict(),
                "keeper": [self.epoch, self.best_loss, self.best_epoch, self.finished],
                "best": self.best,
                "losses": self.losses,
            }
            path = Path(settings.checkpoint)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, path.with_name(path.name + ".part"))
            os.replace(path.with_name(path.name + ".part"), path)

        def resume(self, net: Any) -> None:
            if settings.checkpoint is None or not Path(settings.checkpoint).exists():
                return
            import torch

            state = torch.load(settings.checkpoint, map_location="cpu", weights_only=True)
            net.module_.load_state_dict(state["module"])
            net.criterion_.load_state_dict(state["criterion"])
            net.optimizer_.load_state_dict(state["optimizer"])
            self.epoch, self.best_loss, self.best_epoch, self.finished = state["keeper"]
            self.best, self.losses = state["best"], [tuple(pair) for pair in state["losses"]]

        def finish(self, net: Any) -> None:
            if hasattr(self, "bar"):
                self.bar.close()

    return Keeper()
