"""Training of TransTEE's members on skorch: all of them in one call, each without a fold of the villages.

The adversarial regularisers (Zhang et al. 2022, section 4.2) train a discriminator to predict the treatment from the
mean covariate token, and the network to make that hard.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from torch import nn
from torch.nn import functional

from causalsat.encoders.networks.training import TrainSettings, train_network
from causalsat.estimators.transtee.data import NetworkShape, column_groups
from causalsat.estimators.transtee.head import EvidenceLoss, LogisticEvidence
from causalsat.estimators.transtee.network import MemberLinear, TokenNetwork

__all__ = ["Adversary", "Speed", "TrainedMembers", "TrainingData", "adversary_loss", "train_members"]

HIDDEN = 50  # units of the discriminator
MAX_VALID = 4096  # held-out rows a batch
MAX_SPREAD = 5.0  # of a discriminator's log variance


@dataclass(frozen=True)
class TrainingData:
    """Standardised units as tensors.

    Attributes
    ----------
    inputs : dict of torch.Tensor
        ``columns``, ``basis``, ``treatment`` and, with images, ``unit_image``: a row a unit.
    y, weight : torch.Tensor of shape (n,)
        Outcome and weight.
    used : ndarray of bool of shape (n, M)
        Whether each member trains on the unit.
    images, treatments : torch.Tensor or None
        Distinct images; the table of treatments.
    family : {"gaussian", "bernoulli", "negative_binomial"}
        Of the outcome.
    offset : float
        Predictor of the mean outcome where that is not normal.
    """

    inputs: dict[str, Any]
    y: Any
    weight: Any
    used: NDArray[np.bool_]
    images: Any = None
    treatments: Any = None
    family: str = "gaussian"
    offset: float = 0.0


@dataclass(frozen=True)
class Adversary:
    """An adversarial regulariser.

    Attributes
    ----------
    kind : {"tr", "ptr"}
        The discriminator predicts the treatment, or its mean and log variance.
    n_levels : int
        Levels of the treatment; 0 for a dose. For levels both kinds are the cross-entropy.
    alpha : float
        Weight of the discriminator's loss in the network's objective.
    """

    kind: str
    n_levels: int
    alpha: float


@dataclass(frozen=True)
class Speed:
    """What makes a step shorter on some machines.

    Attributes
    ----------
    half : bool
        Multiply in bfloat16 (mixed precision): the loss and its Cholesky factors stay in float32.
    compiled : bool
        Compile the network with torch.compile before the first step.
    """

    half: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class TrainedMembers:
    """Weights of the epoch that was best on held-out units.

    Attributes
    ----------
    state : dict of ndarray
        The network's weights.
    scale, noise : ndarrays of shape (M, F) and (M,)
        Prior scales of the coefficients and noise, in training.
    history : list of tuple of float
        Training and held-out loss of each epoch.
    """

    state: dict[str, NDArray[Any]]
    scale: NDArray[np.float64]
    noise: NDArray[np.float64]
    history: list[tuple[float, float]]


class Discriminator(nn.Module):
    """Predicts the treatment from the mean covariate token, for each member: d -> 50 ReLU -> outputs."""

    def __init__(self, members: int, width: int, n_out: int) -> None:
        super().__init__()
        self.first, self.second = MemberLinear(members, width, HIDDEN), MemberLinear(members, HIDDEN, n_out)

    def forward(self, token: Any) -> Any:
        return self.second(functional.relu(self.first(token)))


def adversary_loss(outputs: Any, treatment: Any, kind: str, n_levels: int) -> Any:
    r"""Loss of the discriminator, mean over members and units.

    TR: (t_hat_i - t_i)^2. PTR: 0.5 [(t_i - mu_i)^2 exp(-s_i) + s_i] with s_i the log variance, the negative log
    likelihood of each unit under its own prediction. Levels: cross-entropy.

    Parameters
    ----------
    outputs : torch.Tensor of shape (M, B, k)
        k is 1 (TR), 2 (PTR: mean, log variance) or the number of levels.
    treatment : torch.Tensor of shape (B,)
    """
    if n_levels:
        return functional.cross_entropy(outputs.flatten(0, 1), treatment.long().repeat(len(outputs)))
    error = (treatment - outputs[..., 0]) ** 2
    if kind == "tr":
        return error.mean()
    spread = outputs[..., 1].clamp(-MAX_SPREAD, MAX_SPREAD)
    return 0.5 * (error * torch.exp(-spread) + spread).mean()


class AdversarialNet(NeuralNet):
    """A skorch net that alternates: a step of the discriminator on detached tokens, then one of the network.

    The network's loss is that of its criterion minus alpha times the discriminator's.
    """

    def __init__(self, *args: Any, adversary: Adversary, **kwargs: Any) -> None:
        self.adversary = adversary
        super().__init__(*args, **kwargs)

    def initialize_module(self) -> Any:
        super().initialize_module()
        kind, n_levels = self.adversary.kind, self.adversary.n_levels
        shape = self.module_.shape
        opponent = Discriminator(shape.n_members, shape.width, n_levels or (2 if kind == "ptr" else 1))
        # held in a tuple: no module of skorch's own, which its optimiser would train with the network
        self.opponent_ = (opponent.to(self.device),)
        self.opponent_steps_ = torch.optim.Adam(opponent.parameters(), lr=self.lr)
        return self

    def train_step_single(self, batch: Any, **fit_params: Any) -> Any:
        self._set_training(True)
        inputs, targets = batch
        outputs = self.infer(inputs, **fit_params)
        token, treatment = self.module_.token_mean, inputs["treatment"].to(self.device)
        self.opponent_steps_.zero_grad()
        self._opponent_loss(token.detach(), treatment).backward()
        self.opponent_steps_.step()
        loss = self.get_loss(outputs, targets, X=inputs, training=True)
        loss = loss - self.adversary.alpha * self._opponent_loss(token, treatment)
        loss.backward()
        return {"loss": loss, "y_pred": outputs}

    def _opponent_loss(self, token: Any, treatment: Any) -> Any:
        outputs = self.opponent_[0](token)
        return adversary_loss(outputs, treatment, self.adversary.kind, self.adversary.n_levels)


def train_members(
    shape: NetworkShape,
    data: TrainingData,
    settings: TrainSettings,
    adversary: Adversary | None = None,
    treatment_module: Any = None,
    speed: Speed | None = None,
) -> TrainedMembers:
    """Train all members at once; stop when the held-out units, over all members, are predicted best.

    Parameters
    ----------
    shape : NetworkShape
        Sizes of the network.
    data : TrainingData
        Units.
    settings : TrainSettings
        How to train; ``batch_size`` 0 takes a fifth of the units, between 32 and 1,024.
    adversary : Adversary, optional
        An adversarial regulariser.
    treatment_module : torch.nn.ModuleList, optional
        A module for each member that embeds structured treatments.
    speed : Speed, optional
        Mixed precision and compilation.
    """
    n, speed = len(data.y), speed or Speed()
    size = settings.batch_size or int(np.clip(n // 5, 32, 1024))
    settings = replace(
        settings, batch_size=size, schedule="one_cycle", fused=True, augment=False, valid_batch=min(n, MAX_VALID)
    )
    targets = torch.column_stack([data.y, data.weight, torch.from_numpy(data.used.astype(np.float32))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = TokenNetwork(shape, treatment_module)
        network.mixed = speed.half
        if speed.compiled:
            network.compile()
        if data.images is not None:
            network.set_images(data.images)
        if data.treatments is not None:
            network.set_treatments(data.treatments)
        groups = column_groups(shape)
        loss = EvidenceLoss(shape.n_members, groups)
        if data.family != "gaussian":
            loss = LogisticEvidence(shape.n_members, groups, data.family, data.offset)
        options = {} if adversary is None else {"net_type": AdversarialNet, "adversary": adversary}
        trained = train_network(network, data.inputs, targets, loss, None, settings, **options)
    loss.load_state_dict({name: torch.from_numpy(value) for name, value in trained.criterion.items()})
    with torch.no_grad():
        scale, noise = (value.exp().double().cpu().numpy() for value in loss.hyper())
    return TrainedMembers(trained.weights, scale, noise, trained.history)
