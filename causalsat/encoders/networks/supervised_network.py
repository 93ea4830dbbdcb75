"""A network of image features whose answers are expected outcome, effect and propensity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.networks.training import TrainSettings, train_network

__all__ = ["SupervisedShape", "answer", "build_network", "train_supervised"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SupervisedShape:
    """Sizes of the network.

    Attributes
    ----------
    n_inputs, width : int
        Features and hidden units.
    treatment : bool
        Whether it predicts the treatment.
    """

    n_inputs: int
    width: int
    treatment: bool


def build_network(shape: SupervisedShape, seed: int | None) -> Any:
    """Linear answers plus those of a hidden layer, at first zero, (batch, 2 or 3): mu, tau and the logit of e."""
    import torch
    from torch import nn

    outputs = 3 if shape.treatment else 2

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(shape.n_inputs, outputs)
            self.hidden = nn.Sequential(nn.Linear(shape.n_inputs, shape.width), nn.GELU(), nn.Dropout(0.2))
            self.bent = nn.Linear(shape.width, outputs)
            for layer in (self.linear, self.bent):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

        def forward(self, x: Any) -> Any:
            return self.linear(x) + self.bent(self.hidden(x))

    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return Answers()


def _criterion() -> Any:
    import torch

    class Decomposition(torch.nn.Module):
        """Squared error of y by mu + (t - mean t) tau, and cross entropy of the treatment."""

        def forward(self, outputs: Any, targets: Any) -> Any:
            y, t = targets[:, 0], targets[:, 1]
            loss = ((y - outputs[:, 0] - t * outputs[:, 1]) ** 2).mean()
            if outputs.shape[1] > 2:
                arm = (t > 0).float()
                loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 2], arm)
            return loss

    return Decomposition()


def train_supervised(
    x: FloatArray, targets: FloatArray, site: NDArray[np.int64], shape: SupervisedShape, settings: TrainSettings
) -> dict[str, NDArray[Any]]:
    """Weights of the best epoch on a fifth of the sites.

    The linear part starts at the ridge regression whose penalty is best on those sites, and where no epoch is better
    than that start, the start is kept.

    Parameters
    ----------
    x : ndarray of shape (unit, n_inputs)
    targets : ndarray of shape (unit, 2)
        Standardised outcome, and treatment less its mean.
    site : ndarray of int of shape (unit,)
        Held out as a whole.
    shape : SupervisedShape
    settings : TrainSettings
    """
    import torch

    sites = np.unique(site)
    order = np.random.default_rng(settings.seed).permutation(sites)
    held_out = np.isin(site, order[: max(1, len(sites) // 5)])
    linear, loss = _linear_start(x, targets, held_out)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = build_network(shape, settings.seed)
        with torch.no_grad():
            module.linear.weight[:2] = torch.from_numpy(linear[:, :-1].astype(np.float32))
            module.linear.bias[:2] = torch.from_numpy(linear[:, -1].astype(np.float32))
        start = {k: v.detach().numpy().copy() for k, v in module.state_dict().items()}
        inputs, wanted = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(targets.astype(np.float32))
        trained = train_network(module, inputs, wanted, _criterion(), held_out, settings)
    return start if not shape.treatment and loss <= trained.valid_loss else trained.weights


def _linear_start(x: FloatArray, targets: FloatArray, held_out: NDArray[np.bool_]) -> tuple[FloatArray, float]:
    """Ridge coefficients of mu and tau (2, inputs + 1), the penalty chosen on the held-out sites, and their loss."""
    y, t = targets.T
    ones = np.column_stack([x, np.ones(len(x))])
    design = np.hstack([ones, t[:, None] * ones])
    free = np.tile(np.append(np.ones(x.shape[1]), 0.0), 2)  # constants are not shrunk
    fit, out = ~held_out, held_out
    gram, cross = design[fit].T @ design[fit], design[fit].T @ y[fit]
    best: tuple[FloatArray, float] | None = None
    for penalty in fit.sum() * np.logspace(-3, 1, 9):
        beta = np.linalg.solve(gram + penalty * np.diag(free) + 1e-8 * np.eye(len(gram)), cross)
        loss = float(np.mean((y[out] - design[out] @ beta) ** 2))
        if best is None or loss < best[1]:
            best = (beta.reshape(2, -1), loss)
    assert best is not None
    return best


def answer(weights: dict[str, NDArray[Any]], shape: SupervisedShape, x: FloatArray) -> FloatArray:
    """Answers (n, 2 or 3) of a trained network."""
    import torch

    module = build_network(shape, None).eval()
    module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()})
    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(x.astype(np.float32))).numpy(), dtype=np.float64)
