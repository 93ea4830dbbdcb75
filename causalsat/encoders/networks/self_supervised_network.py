"""A small convolutional network trained without labels: contrastive, or as a masked autoencoder."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.networks.training import TrainSettings, augment_batch, train_network

__all__ = ["OBJECTIVES", "build_module", "train_self_supervised"]

OBJECTIVES = ("contrastive", "masked")
_BLOCK = 4  # side of the masked squares in pixels
_MASKED = 0.5
_TEMPERATURE = 0.2
_JITTER = 0.1  # standard deviation of the change of a band's level and contrast between two views


def build_module(n_bands: int, width: int, objective: str, seed: int | None) -> Any:
    """Network with ``features(images)``, (batch, 2 width), and the objective's ``forward``.

    Images are (batch, n_bands + 1, y, x): standardised bands, 0 where invalid, and 1 where valid. Forward gives the
    projections of two views, (2 batch, width), or the rebuilt bands with the pixels that were hidden, (batch,
    n_bands + 1, y, x).
    """
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, stride: int) -> Any:
        norm = nn.GroupNorm(min(8, outputs), outputs)
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), norm, nn.GELU())

    class SelfSupervised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(
                block(n_bands + 1, width, 1), block(width, width, 2), block(width, 2 * width, 2)
            )
            if objective == "contrastive":
                self.head = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            else:
                self.head = nn.Sequential(block(2 * width, width, 1), nn.Conv2d(width, 16 * n_bands, 1))

        def features(self, images: Any) -> Any:
            return self.backbone(images).mean(dim=(2, 3))

        def forward(self, images: Any) -> Any:
            generator = torch.Generator().manual_seed(0 if not self.training else int(torch.randint(2**31, ())))
            return self._views(images, generator) if objective == "contrastive" else self._rebuilt(images, generator)

        def _views(self, images: Any, generator: Any) -> Any:
            views = []
            for _ in range(2):
                view = augment_batch(images, generator, max(1, images.shape[-1] // 4))
                bands, there = view[:, :n_bands], view[:, n_bands:]
                shape = (2, len(view), n_bands, 1, 1)
                level, contrast = _JITTER * torch.randn(shape, generator=generator).to(view.device)
                bands = (bands * (1 + contrast) + level) * there
                views.append(self.head(self.features(torch.cat([bands, there], dim=1))))
            return torch.cat(views)

        def _rebuilt(self, images: Any, generator: Any) -> Any:
            n, _, height, width_px = images.shape
            cells = (n, 1, -(-height // _BLOCK), -(-width_px // _BLOCK))
            hidden = (torch.rand(cells, generator=generator) < _MASKED).float().to(images.device)
            hidden = hidden.repeat_interleave(_BLOCK, 2).repeat_interleave(_BLOCK, 3)[..., :height, :width_px]
            small = self.head(self.backbone(images * (1 - hidden)))
            rebuilt = torch.nn.functional.pixel_shuffle(small, 4)[..., :height, :width_px]
            return torch.cat([rebuilt, hidden], dim=1)

    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return SelfSupervised()


def _criterion(objective: str) -> Any:
    import torch

    class Contrastive(torch.nn.Module):
        """Normalised temperature-scaled cross entropy of two views (Chen et al. 2020, SimCLR, equation 1)."""

        def forward(self, outputs: Any, targets: Any) -> Any:
            z = torch.nn.functional.normalize(outputs, dim=1)
            likeness = z @ z.T / _TEMPERATURE
            likeness = likeness.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
            n = len(z) // 2
            partner = torch.cat([torch.arange(n, 2 * n), torch.arange(n)]).to(z.device)
            return torch.nn.functional.cross_entropy(likeness, partner)

    class Masked(torch.nn.Module):
        """Mean squared error of the hidden valid pixels (He et al. 2022, masked autoencoders)."""

        def forward(self, outputs: Any, targets: Any) -> Any:
            counted = outputs[:, -1:] * targets[:, -1:]
            error = (outputs[:, :-1] - targets[:, :-1]) ** 2 * counted
            return error.sum() / (counted.sum() * (targets.shape[1] - 1)).clamp(min=1)

    return Contrastive() if objective == "contrastive" else Masked()


def train_self_supervised(
    images: NDArray[np.float32], width: int, objective: str, settings: TrainSettings
) -> tuple[dict[str, NDArray[Any]], list[tuple[float, float]]]:
    """Weights of the best epoch on a held-out tenth of the images, and the losses of all epochs.

    Parameters
    ----------
    images : ndarray of shape (n, band + 1, y, x)
    width : int
    objective : {"contrastive", "masked"}
    settings : TrainSettings
    """
    import torch

    held_out = np.zeros(len(images), dtype=bool)
    order = np.random.default_rng(settings.seed).permutation(len(images))
    held_out[order[: max(2, len(images) // 10)]] = True
    module = build_module(images.shape[1] - 1, width, objective, settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        tensor = torch.from_numpy(images)
        trained = train_network(module, tensor, tensor, _criterion(objective), held_out, settings)
    return trained.weights, trained.history
