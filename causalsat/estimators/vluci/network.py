r"""The doubly variational model: networks for q(L | X, T) and q(L | X, T, Y), trained against two bounds.

.. math:: \log p(T | X) \ge E_{q_T} \log p(T | X, L) - KL(q_T || N(0, I)), \quad
          \log p(Y | X, T) \ge E_{q_Y} \log p(Y | X, T, L) - KL(q_Y || q_T)

The second bound's prior is p(L | X, T), of which q_T is the approximation: what the treatment has said of L is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.encoders.networks.training import TrainSettings, train_network

__all__ = ["NetworkFit", "NetworkSettings", "sample_latents", "train"]

HELD_OUT = 0.15
LATENT_SAMPLES = 4  # of L for each unit and step
HSIC_UNITS = 256


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes and weights of the networks' training.

    Attributes
    ----------
    n_latents, hidden : int
        Dimension of L, and units of each hidden layer.
    warmup : int
        Epochs over which the weight of the KL divergences rises from 0 to 1.
    independence : float
        Weight of the penalty on dependence between L and X.
    link_scale : float
        Prior standard deviation of L's coefficients in the treatment.
    max_epochs, patience, batch_size : int
        As in training on images.
    learning_rate : float
        Of AdamW.
    device : str
        "auto", "cpu" or "cuda".
    progress : bool
        Show a bar.
    """

    n_latents: int = 1
    hidden: int = 32
    warmup: int = 20
    independence: float = 1.0
    link_scale: float = 2.0
    max_epochs: int = 150
    patience: int = 20
    batch_size: int = 128
    learning_rate: float = 5e-3
    device: str = "auto"
    progress: bool = False


@dataclass(frozen=True, eq=False)
class NetworkFit:
    """A trained network: its weights, the bound on held-out units, and the KL divergence in nats of each latent."""

    weights: dict[str, NDArray[Any]]
    bound: float
    kl: FloatArray
    epochs: int


def _module(p: int, kinds: tuple[bool, bool], n: int, settings: NetworkSettings) -> Any:
    """The networks; forward maps rows (X, T, Y) to the terms of the loss."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    d, h = settings.n_latents, settings.hidden

    def mlp(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, h), nn.ELU(), nn.Linear(h, outputs))

    class Doubly(nn.Module):
        steps: Any  # of training so far

        def __init__(self) -> None:
            super().__init__()
            self.q_t, self.q_y = mlp(p + 1, 2 * d), mlp(p + 2, 2 * d)
            self.skip_t, self.skip_q = nn.Linear(p + 1, d), nn.Linear(p + 2, d)
            self.f_t, self.line_t, self.link = mlp(p, 1), nn.Linear(p, 1), nn.Linear(d, 1, bias=False)
            self.f_y, self.line_y, self.effect = mlp(p + d, 1), nn.Linear(p + d, 1), mlp(p + d, 1)
            self.constant = nn.Parameter(torch.zeros(1))
            self.log_sd = nn.Parameter(torch.zeros(2))
            self.register_buffer("steps", torch.zeros(1))

        def posterior(self, x: Any, t: Any, y: Any) -> tuple[Any, Any, Any, Any]:
            given_t, given_y = torch.cat([x, t], 1), torch.cat([x, t, y], 1)
            mean_t, log_t = self.q_t(given_t).chunk(2, 1)
            mean_y, log_y = self.q_y(given_y).chunk(2, 1)
            bounded = (4 * torch.tanh(log_t / 4), 4 * torch.tanh(log_y / 4))
            return mean_t + self.skip_t(given_t), bounded[0], mean_y + self.skip_q(given_y), bounded[1]

        def log_t(self, x: Any, t: Any, latent: Any) -> Any:
            predictor = (self.f_t(x) + self.line_t(x)).unsqueeze(0) + self.link(latent)
            if kinds[0]:
                return -F.binary_cross_entropy_with_logits(predictor, t.expand_as(predictor), reduction="none")
            return -0.5 * ((t - predictor) * torch.exp(-self.log_sd[1])) ** 2 - self.log_sd[1]

        def log_y(self, x: Any, t: Any, y: Any, latent: Any) -> Any:
            both = torch.cat([x.expand(len(latent), *x.shape), latent], -1)
            mean = self.f_y(both) + self.line_y(both) + t * (self.effect(both) + self.constant)
            if kinds[1]:
                return -F.binary_cross_entropy_with_logits(mean, y.expand_as(mean), reduction="none")
            return -0.5 * ((y - mean) * torch.exp(-self.log_sd[0])) ** 2 - self.log_sd[0]

        def forward(self, rows: Any) -> Any:
            x, t, y = rows[:, :p], rows[:, p : p + 1], rows[:, p + 1 :]
            mean_t, log_t, mean_y, log_y = self.posterior(x, t, y)
            shape = (LATENT_SAMPLES, *mean_t.shape)
            noise = _antithetic(shape, mean_t, None if self.training else 0)
            from_t, from_y = mean_t + torch.exp(log_t) * noise, mean_y + torch.exp(log_y) * noise
            kl_t = 0.5 * (mean_t**2 + torch.exp(2 * log_t) - 1) - log_t
            ratio = torch.exp(2 * (log_y - log_t))
            kl_y = 0.5 * (ratio + (mean_y - mean_t) ** 2 * torch.exp(-2 * log_t) - 1) - (log_y - log_t)
            weight = 1.0
            if self.training:
                self.steps.add_(1)
                weight = min(1.0, float(self.steps.item()) / max(1.0, settings.warmup * n / settings.batch_size))
            fit = self.log_t(x, t, from_t).mean(0) + self.log_y(x, t, y, from_y).mean(0)
            bound = fit[:, 0] - weight * (kl_t + kl_y).sum(1)
            prior = 0.5 * (self.link.weight**2).sum() / settings.link_scale**2 / n
            extra = settings.independence * _hsic(from_y[0], x) + prior
            return torch.stack([bound, extra.expand_as(bound)], 1)

    return Doubly()


def _antithetic(shape: tuple[int, ...], like: Any, seed: int | None) -> Any:
    import torch

    generator = None if seed is None else torch.Generator(like.device).manual_seed(seed)
    half = torch.randn((shape[0] // 2, *shape[1:]), device=like.device, generator=generator)
    return torch.cat([half, -half])


def _hsic(latent: Any, x: Any) -> Any:
    """Dependence of L and X: normalised Hilbert-Schmidt criterion with normal kernels (Gretton et al. 2005)."""
    import torch

    def centred(v: Any) -> Any:
        squares = torch.cdist(v, v) ** 2
        k = torch.exp(-squares / (2 * v.shape[1]))
        return k - k.mean(0, keepdim=True) - k.mean(1, keepdim=True) + k.mean()

    a, b = centred(latent[:HSIC_UNITS]), centred(x[:HSIC_UNITS])
    return (a * b).sum() / torch.sqrt((a * a).sum() * (b * b).sum() + 1e-12)


def _criterion() -> Any:
    from torch import nn

    class Bound(nn.Module):
        def forward(self, terms: Any, weights: Any) -> Any:
            return -(terms[:, 0] * weights[:, 0]).mean() + terms[:, 1].mean()

    return Bound()


def _seeded(seed: int) -> Any:
    """A context in which torch draws from a seed, and after which it goes on where it was."""
    import torch

    fork = torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_available() else [])

    class Seeded:
        def __enter__(self) -> None:
            fork.__enter__()
            torch.manual_seed(seed)

        def __exit__(self, *caught: Any) -> None:
            fork.__exit__(*caught)

    return Seeded()


def train(
    x: FloatArray,
    t: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    kinds: tuple[bool, bool],
    settings: NetworkSettings,
    seed: int,
) -> NetworkFit:
    """Train one network on standardised covariates (n, p), treatment and outcome, with held-out early stopping."""
    import torch

    rng = np.random.default_rng(seed)
    n, p = x.shape
    held = np.zeros(n, dtype=bool)
    held[rng.permutation(n)[: max(1, round(HELD_OUT * n))]] = True
    rows = torch.tensor(np.column_stack([x, t, y]), dtype=torch.float32)
    with _seeded(seed):
        module = _module(p, kinds, n, settings)
        options = TrainSettings(
            max_epochs=settings.max_epochs,
            patience=settings.patience,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=1e-3,
            augment=False,
            device=settings.device,
            seed=seed,
            progress=settings.progress,
        )
        targets = torch.tensor(weight[:, None], dtype=torch.float32)
        done = train_network(module, rows, targets, _criterion(), held, options)
    kl = _divergences(done.weights, rows, p, kinds, n, settings)
    return NetworkFit(done.weights, -done.valid_loss, kl, len(done.history))


def _loaded(weights: dict[str, NDArray[Any]], p: int, kinds: tuple[bool, bool], n: int, settings: Any) -> Any:
    import torch

    with _seeded(0):
        module = _module(p, kinds, n, settings)
    module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()})
    return module.eval()


def _divergences(
    weights: dict[str, NDArray[Any]], rows: Any, p: int, kinds: tuple[bool, bool], n: int, settings: NetworkSettings
) -> FloatArray:
    """Mean KL divergence of q(L | X, T, Y) from the prior, by latent."""
    import torch

    module = _loaded(weights, p, kinds, n, settings)
    with torch.no_grad():
        _, _, mean, log_sd = module.posterior(rows[:, :p], rows[:, p : p + 1], rows[:, p + 1 :])
        kl = 0.5 * (mean**2 + torch.exp(2 * log_sd) - 1) - log_sd
    return kl.mean(0).numpy().astype(float)


def sample_latents(
    fit: NetworkFit,
    x: FloatArray,
    t: FloatArray,
    y: FloatArray,
    kinds: tuple[bool, bool],
    settings: NetworkSettings,
    noise: FloatArray,
) -> FloatArray:
    """Draws of L from q(L | X, T, Y): mean plus standard deviation times ``noise`` (n, d)."""
    import torch

    module = _loaded(fit.weights, x.shape[1], kinds, len(x), replace(settings, device="cpu"))
    with torch.no_grad():
        columns = [torch.tensor(np.atleast_2d(v.T).T, dtype=torch.float32) for v in (x, t, y)]
        _, _, mean, log_sd = module.posterior(*columns)
    return np.asarray(mean.numpy() + np.exp(log_sd.numpy()) * noise, dtype=float)
