"""Training of small networks on images, on skorch: augmented batches, held-out early stopping, checkpoints.

The order of the images and their augmentation depend on the seed and the number of the epoch alone, and the state of
all else that is drawn is in the checkpoint: a training that was killed and goes on from there ends with the same
weights (on the CPU; some of CUDA's sums have no fixed order).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.files import add_arrays, whole_file, writing
from causalsat.core.progress import bar as progress_bar
from causalsat.encoders.device import resolve_device
from causalsat.encoders.networks.distributed import bare, shared_net, sharing
from causalsat.exceptions import ResumeError

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
    schedule : {"constant", "one_cycle"}
        Learning rate: constant, or up to ``learning_rate`` in a fifth of the steps and then down to nearly nothing.
    fused : bool
        Update all weights in one call of the optimiser, which saves time where they are many and small.
    valid_batch : int or None
        Rows of a batch of held-out rows; ``batch_size`` unless given.
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
    schedule: str = "constant"
    fused: bool = False
    valid_batch: int | None = None


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
    criterion : dict of ndarray
        State of the criterion at that epoch.
    """

    weights: dict[str, NDArray[Any]]
    valid_loss: float
    history: list[tuple[float, float]]
    criterion: dict[str, NDArray[Any]] = field(default_factory=dict)


def train_network(
    module: Any,
    images: Any,
    targets: Any,
    criterion: Any,
    held_out: NDArray[np.bool_] | None,
    settings: TrainSettings,
    net_type: Any = None,
    **net_options: Any,
) -> Trained:
    """Train a module and the parameters of its criterion; return the weights of the best held-out epoch.

    Parameters
    ----------
    module : torch.nn.Module
        Maps images (batch, band, y, x) to outputs.
    images, targets : torch.Tensor
        One row an image. ``images`` may be a dict of tensors, which become the module's keyword arguments.
    criterion : torch.nn.Module
        ``criterion(outputs, targets)`` is the mean loss; its parameters are trained too.
    held_out : ndarray of bool of shape (m,) or None
        Images that are only used to decide when to stop; ``None`` where the targets say it to the criterion, which
        then sees all rows in training and in evaluation.
    settings : TrainSettings
        The rest.
    net_type : subclass of skorch.NeuralNet, optional
        What trains; ``net_options`` are passed on to it.
    """
    import torch
    from skorch import NeuralNet
    from skorch.helper import predefined_split

    shared = sharing(settings.device)
    device = resolve_device(settings.device) if shared is None else shared.accelerator.device
    keeper = _keeper(settings, shared)
    everything = np.ones(len(targets), dtype=bool)
    masks = (everything, everything) if held_out is None else (~held_out, held_out)
    keep, out = (torch.from_numpy(np.flatnonzero(mask)) for mask in masks)
    parts = [_rows(_move(_take(images, rows), device), targets[rows].to(device)) for rows in (keep, out)]
    n_steps = settings.max_epochs * ((len(keep) + settings.batch_size - 1) // settings.batch_size)
    kind = net_type or NeuralNet
    alone = {"device": device, "callbacks__print_log": None} if shared is None else shared.options
    net = (kind if shared is None else shared_net(kind, shared))(
        module,
        criterion=criterion,
        optimizer=torch.optim.AdamW,
        lr=settings.learning_rate,
        optimizer__weight_decay=settings.weight_decay,
        **({"optimizer__fused": True} if settings.fused else {}),
        max_epochs=settings.max_epochs,
        batch_size=settings.batch_size,
        iterator_train=_Batches,
        iterator_train__settings=settings,
        iterator_train__keeper=keeper,
        iterator_valid=_Batches,
        **({} if settings.valid_batch is None else {"iterator_valid__batch_size": settings.valid_batch}),
        train_split=predefined_split(parts[1]),
        callbacks=[("keeper", keeper), *_schedule(settings, n_steps)],
        verbose=0,
        **alone,
        **net_options,
    )
    net.initialize()
    keeper.job = "" if settings.checkpoint is None else _job(module, images, targets, held_out, settings)
    read_checkpoint(net, keeper, settings.checkpoint)
    _run(net, parts[0], keeper)
    weights = {name: value.numpy().copy() for name, value in keeper.best.items()}
    learned = {name: value.numpy().copy() for name, value in keeper.best_criterion.items()}
    return Trained(weights, keeper.best_loss, list(keeper.losses), learned)


def _run(net: Any, rows: Any, keeper: Any) -> None:
    """Train epoch by epoch until the keeper says that it is enough.

    Not by skorch's own ``partial_fit``, which takes an interrupt for the end of the training: here it propagates.
    """
    if keeper.finished:
        return
    net.notify("on_train_begin", X=rows, y=None)
    try:
        while not keeper.finished:
            net.fit_loop(rows, epochs=1)
    finally:
        keeper.bar.close()
    net.notify("on_train_end", X=rows, y=None)


def _job(module: Any, images: Any, targets: Any, held_out: Any, settings: TrainSettings) -> str:
    """Digest of what a training is of: its data, the first weights, and the settings but for how long it takes."""
    digest = hashlib.sha256()
    free = ("checkpoint", "progress", "device", "max_epochs", "patience", "valid_batch")
    digest.update(repr([(k, v) for k, v in sorted(asdict(settings).items()) if k not in free]).encode())
    parts = {**(images if isinstance(images, dict) else {"": images}), "targets": targets}
    parts |= {f"weight {name}": value for name, value in module.state_dict().items()}
    add_arrays(digest, {name: value.detach().cpu().numpy() for name, value in parts.items()})
    digest.update(b"" if held_out is None else np.ascontiguousarray(held_out).tobytes())
    return digest.hexdigest()


def _rows(inputs: Any, targets: Any) -> Any:
    """Inputs (a tensor, or a dict of tensors) and targets as a data set."""
    from torch.utils.data import Dataset

    class Rows(Dataset):
        def __init__(self) -> None:
            self.inputs, self.targets = inputs, targets

        def __len__(self) -> int:
            return len(self.targets)

    return Rows()


def _take(inputs: Any, rows: Any) -> Any:
    return {name: value[rows] for name, value in inputs.items()} if isinstance(inputs, dict) else inputs[rows]


def _move(inputs: Any, device: Any) -> Any:
    if isinstance(inputs, dict):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)


def _schedule(settings: TrainSettings, n_steps: int) -> list[Any]:
    if settings.schedule == "constant":
        return []
    from skorch.callbacks import LRScheduler
    from torch.optim.lr_scheduler import OneCycleLR

    options = {"max_lr": settings.learning_rate, "total_steps": max(n_steps, 10), "pct_start": 0.2}
    return [("schedule", LRScheduler(policy=OneCycleLR, step_every="batch", **options))]


class _Batches:
    """Batches of tensors that are in memory, sliced at once; shuffled and augmented in training."""

    def __init__(
        self, dataset: Any, batch_size: int, settings: TrainSettings | None = None, keeper: Any = None
    ) -> None:
        self.data, self.batch_size = dataset, batch_size
        self.settings, self.keeper = settings, keeper

    def __len__(self) -> int:
        return (len(self.data) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        import torch

        images, targets = self.data.inputs, self.data.targets
        if self.settings is None:
            for start in range(0, len(targets), self.batch_size):
                rows = slice(start, start + self.batch_size)
                yield _take(images, rows), targets[rows]
            return
        generator = torch.Generator().manual_seed(self.settings.seed * 100_003 + self.keeper.epoch)
        order = torch.randperm(len(targets), generator=generator).to(targets.device)
        for rows in order.split(self.batch_size):
            batch = _take(images, rows)
            if self.settings.augment:
                batch = augment_batch(batch, generator, self.settings.shift_px)
            shared = self.keeper.shared
            mine = slice(None) if shared is None else shared.part(len(rows))
            yield _take(batch, mine), targets[rows][mine]


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


def _keeper(settings: TrainSettings, shared: Any = None) -> Any:
    from skorch.callbacks import Callback

    class Keeper(Callback):
        """Remembers the best epoch, says when none was better for a while, writes a checkpoint after each."""

        def __init__(self) -> None:
            self.epoch, self.best_loss, self.best_epoch, self.finished = 0, float("inf"), -1, False
            self.job, self.shared = "", shared
            self.best: dict[str, Any] = {}
            self.best_criterion: dict[str, Any] = {}
            self.losses: list[tuple[float, float]] = []

        def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
            shown = settings.progress and not (shared and shared.rank)
            self.bar = progress_bar(total=settings.max_epochs, desc="training", unit="epoch", show=shown)
            self.bar.update(self.epoch)

        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            train, valid = (float(net.history[-1, name]) for name in ("train_loss", "valid_loss"))
            if shared is not None:
                train, valid = shared.mean(train, valid)
            self.losses.append((train, valid))
            if valid < self.best_loss or not self.best:
                self.best_loss, self.best_epoch = valid, self.epoch
                self.best, self.best_criterion = (
                    {k: v.detach().cpu().clone() for k, v in bare(part).state_dict().items()}
                    for part in (net.module_, net.criterion_)
                )
            self.epoch += 1
            self.bar.update()
            self.bar.set_postfix(held_out=f"{self.best_loss:.4f}")
            self.finished = self.over()
            write_checkpoint(net, self, settings.checkpoint)

        def over(self) -> bool:
            return self.epoch - 1 - self.best_epoch >= settings.patience or self.epoch >= settings.max_epochs

    return Keeper()


def write_checkpoint(net: Any, keeper: Any, file: str | None) -> None:
    """Put the training's whole state into the file, whole or not at all; nothing without a file."""
    if file is None or (keeper.shared is not None and keeper.shared.rank):
        return
    import torch

    state = {
        "module": bare(net.module_).state_dict(),
        "criterion": bare(net.criterion_).state_dict(),
        "optimizer": net.optimizer_.state_dict(),
        "keeper": [keeper.epoch, keeper.best_loss, keeper.best_epoch, keeper.finished],
        "best": keeper.best,
        "best_criterion": keeper.best_criterion,
        "losses": keeper.losses,
        "job": keeper.job,
        "random": torch.get_rng_state(),  # of dropout, and of networks that draw views or masks
    }
    path = Path(file)
    memory = io.BytesIO()
    torch.save(state, memory)
    content = memory.getbuffer()
    with writing(path), whole_file(path) as temporary:
        temporary.write_bytes(hashlib.sha256(content).digest() + content)


def read_checkpoint(net: Any, keeper: Any, file: str | None) -> None:
    """Go on from the state in the file, where there is one; loading it runs no code.

    Raises
    ------
    ResumeError
        If the file is damaged, or of a training on other data or with other settings.
    """
    if file is None or not Path(file).exists():
        return
    import torch

    content = memoryview(Path(file).read_bytes())
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ResumeError(
            f"the checkpoint {file} is damaged, or not one of causalsat", todo="delete it: the training begins anew"
        )
    state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    if state["job"] != keeper.job:
        raise ResumeError(
            f"the checkpoint {file} is of a training on other data or with other settings",
            expected="the same images, outcomes, network and settings (but for max_epochs and patience)",
            todo="delete it, or name another checkpoint=",
        )
    bare(net.module_).load_state_dict(state["module"])
    bare(net.criterion_).load_state_dict(state["criterion"])
    net.optimizer_.load_state_dict(state["optimizer"])
    keeper.epoch, keeper.best_loss, keeper.best_epoch, _ = state["keeper"]
    keeper.finished = keeper.over()  # by the epochs and the patience of now
    keeper.best, keeper.best_criterion = state["best"], state["best_criterion"]
    keeper.losses = [tuple(pair) for pair in state["losses"]]
    torch.set_rng_state(state["random"])
