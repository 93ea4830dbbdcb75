"""A network of images trained to its end: the last stages of any torch module under linear answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.device import resolve_device
from causalsat.encoders.networks.training import TrainSettings, train_network

__all__ = ["Start", "TunedFold", "build_tuned", "place_sums", "ridge_start", "stages", "train_tuned"]

FloatArray = NDArray[np.float64]
Forward = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Start:
    """Where a training starts: answers that are linear in the features of the network as it was.

    Attributes
    ----------
    mean, sd : ndarray of shape (features,)
        Standardisation of the features.
    weight, bias : ndarray of shape (answers, features), (answers,)
    """

    mean: FloatArray
    sd: FloatArray
    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True)
class TunedFold:
    """What a training gave.

    Attributes
    ----------
    weights : dict of ndarray
        The answers, and those of the network's arrays that were trained; at the start where no epoch was better.
    start_loss, loss : float
        Held-out loss of the network as it was, and of the best epoch.
    history : list of tuple of float
        Training and held-out loss of each epoch.
    """

    weights: dict[str, NDArray[Any]]
    start_loss: float
    loss: float
    history: list[tuple[float, float]]


def stages(module: Any) -> list[list[str]]:
    """Names of a module's parameters, by stage in the order of their definition.

    A stage is a child; a child that holds more than half of all parameters is taken apart. A torchvision ResNet has
    conv1, bn1, layer1, layer2, layer3 and the blocks of layer4; a transformer its embedding and its layers.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Conv2d(2, 2, 3))
    >>> stages(net)
    [['0.weight', '0.bias'], ['2.weight', '2.bias']]
    """
    return _stages(module, "", sum(p.numel() for p in module.parameters()) / 2)


def _stages(module: Any, prefix: str, most: float) -> list[list[str]]:
    own = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    found = [own] if own else []
    for name, child in module.named_children():
        size = sum(p.numel() for p in child.parameters())
        if size > most and any(True for _ in child.children()):
            found += _stages(child, f"{prefix}{name}.", most)
        elif size:
            found.append([f"{prefix}{name}.{key}" for key, _ in child.named_parameters()])
    return found


def place_sums(y: FloatArray, t: FloatArray, share: float, place: NDArray[np.int64], n: int) -> FloatArray:
    """What the loss needs of the units at each place, (n, 7): sums of 1, s, s^2, y, s y, y^2 and of the treated.

    s is the treatment less its mean ``share``. A place's loss, the sum of ``(y - mu - s tau)^2`` over its units, is a
    polynomial in mu and tau with these coefficients, so that each place is encoded once an epoch.
    """
    s = t - share
    columns = (np.ones_like(y), s, s**2, y, s * y, y**2, (t > 0).astype(float))
    return np.column_stack([np.bincount(place, column, n) for column in columns])


def ridge_start(
    features: FloatArray, sums: FloatArray, held_out: NDArray[np.bool_], n_answers: int
) -> tuple[FloatArray, FloatArray]:
    """Weights (answers, features) and constants of mu and tau by ridge, its penalty chosen on held-out places.

    Parameters
    ----------
    features : ndarray of shape (place, features)
        Standardised.
    sums : ndarray of shape (place, 7)
        As :func:`place_sums` gives them.
    held_out : ndarray of bool of shape (place,)
    n_answers : int
        3 where the treatment is predicted too: at first by its share alone.
    """
    design = np.column_stack([features, np.ones(len(features))])
    k = design.shape[1]
    fit, out = ~held_out, held_out
    one, s, ss, y, sy = (sums[:, j] for j in range(5))
    blocks = [design[fit].T @ (w[fit, None] * design[fit]) for w in (one, s, ss)]
    gram = np.block([[blocks[0], blocks[1]], [blocks[1], blocks[2]]])
    cross = np.concatenate([design[fit].T @ y[fit], design[fit].T @ sy[fit]])
    free = np.tile(np.append(np.ones(k - 1), 0.0), 2)  # constants are not shrunk
    best: tuple[float, FloatArray] | None = None
    for penalty in one[fit].sum() * np.logspace(-3, 1, 9):
        beta = np.linalg.solve(gram + penalty * np.diag(free) + 1e-8 * np.eye(2 * k), cross).reshape(2, k)
        mu, tau = design[out] @ beta.T[:, 0], design[out] @ beta.T[:, 1]
        loss = float(_squares(mu, tau, sums[out]).sum())
        if best is None or loss < best[0]:
            best = (loss, beta)
    assert best is not None
    beta = np.zeros((n_answers, k))
    beta[:2] = best[1]
    if n_answers > 2:
        share = np.clip(sums[fit, 6].sum() / one[fit].sum(), 0.01, 0.99)
        beta[2, -1] = np.log(share / (1 - share))
    return beta[:, :-1], beta[:, -1]


def _squares(mu: Any, tau: Any, sums: Any) -> Any:
    """Sum of squared errors of each place, from its sums."""
    one, s, ss, y, sy, yy = (sums[:, j] for j in range(6))
    return yy + one * mu**2 + ss * tau**2 - 2 * mu * y - 2 * tau * sy + 2 * mu * tau * s


def build_tuned(module: Any, forward: Forward, n_dates: int, start: Start) -> Any:
    """The module under its answers: images (n, dates * band, y, x) to (n, 2 or 3), mu, tau and the logit of e.

    Batch normalisation keeps the statistics that the network came with: batches of a trial are small.
    """
    import torch

    class Tuned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module
            self.answers = torch.nn.Linear(start.weight.shape[1], start.weight.shape[0])
            self.register_buffer("mean", torch.from_numpy(start.mean.astype(np.float32)))
            self.register_buffer("sd", torch.from_numpy(start.sd.astype(np.float32)))
            with torch.no_grad():
                self.answers.weight.copy_(torch.from_numpy(start.weight))
                self.answers.bias.copy_(torch.from_numpy(start.bias))

        def forward(self, images: Any) -> Any:
            n = len(images)
            frames = images.reshape(n * n_dates, -1, *images.shape[-2:])
            features = forward(self.network, frames).float().reshape(n, -1)
            return self.answers((features - self.mean) / self.sd)

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            for layer in self.network.modules():
                if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                    layer.eval()
            return self

    return Tuned()


def _criterion(units_a_place: float) -> Any:
    import torch

    class Decomposition(torch.nn.Module):
        """Squared error of y by mu + (t - mean t) tau, and cross entropy of the treatment, a unit."""

        def forward(self, outputs: Any, sums: Any) -> Any:
            loss = _squares(outputs[:, 0], outputs[:, 1], sums)
            if outputs.shape[1] > 2:
                treated, logit = sums[:, 6], outputs[:, 2]
                plus = torch.nn.functional.softplus
                loss = loss + treated * plus(-logit) + (sums[:, 0] - treated) * plus(logit)
            return loss.mean() / units_a_place

    return Decomposition()


def train_tuned(
    tuned: Any,
    images: NDArray[np.float32],
    sums: FloatArray,
    held_out: NDArray[np.bool_],
    n_stages: int | None,
    decay: float,
    settings: TrainSettings,
) -> TunedFold:
    """Train the answers and the network's last stages; where no epoch is better than the start, the start is kept.

    Parameters
    ----------
    tuned : torch.nn.Module
        As :func:`build_tuned` makes it.
    images : ndarray of shape (place, dates * band, y, x)
    sums : ndarray of shape (place, 7)
    held_out : ndarray of bool of shape (place,)
        Places of sites that decide when to stop.
    n_stages : int or None
        How many of the last stages are trained; None for all.
    decay : float
        Learning rate of a stage over that of the next.
    settings : TrainSettings
    """
    import torch

    rates = _rates(tuned.network, n_stages, decay, settings.learning_rate)
    for name, value in tuned.network.named_parameters():
        value.requires_grad_(name in rates)
    pixels, targets = torch.from_numpy(images), torch.from_numpy(sums.astype(np.float32))
    criterion = _criterion(float(sums[:, 0].mean()))
    start = _loss(tuned, pixels, targets, held_out, criterion, settings)
    names = [*(f"network.{name}" for name in rates), "answers.weight", "answers.bias"]
    first = {name: tuned.state_dict()[name].detach().cpu().numpy().copy() for name in names}
    groups = [(f"network.{name}", {"lr": rate}) for name, rate in rates.items()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        trained = train_network(tuned, pixels, targets, criterion, held_out, settings, optimizer__param_groups=groups)
    better = trained.valid_loss < start
    weights = {name: trained.weights[name] for name in names} if better else first
    return TunedFold(weights, start, float(trained.valid_loss), trained.history)


def _rates(network: Any, n_stages: int | None, decay: float, rate: float) -> dict[str, float]:
    """Learning rate of each parameter that is trained: less by ``decay`` from a stage to the one before it."""
    found = stages(network)[::-1][:n_stages]
    return {name: rate * decay**depth for depth, names in enumerate(found, start=1) for name in names}


def _loss(
    tuned: Any, images: Any, targets: Any, rows: NDArray[np.bool_], criterion: Any, settings: TrainSettings
) -> float:
    import torch

    device, chosen = resolve_device(settings.device), torch.from_numpy(np.flatnonzero(rows))
    tuned.to(device).eval()
    total = 0.0
    with torch.inference_mode():
        for part in chosen.split(settings.batch_size):
            total += len(part) * float(criterion(tuned(images[part].to(device)), targets[part].to(device)))
    return total / len(chosen)
