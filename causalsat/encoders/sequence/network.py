"""A temporal transformer over frame features, trained without labels to tell how a place departs from its mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.networks.training import TrainSettings, train_network

__all__ = ["AttentionShape", "build_network", "date_features", "encode_sequences", "train_attention"]

FloatArray = NDArray[np.float64]
_HARMONICS = 2


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of the network.

    Attributes
    ----------
    n_tokens : int
        Numbers of a frame.
    n_outputs : int
        Numbers of a sequence.
    width, layers, heads : int
        Of the transformer.
    hide : float
        Share of the frames hidden from it in training.
    """

    n_tokens: int
    n_outputs: int
    width: int = 48
    layers: int = 2
    heads: int = 4
    hide: float = 0.15


def date_features(years: FloatArray, origin: float, span: float) -> FloatArray:
    """Embedding of dates (date, 1 + 2 * harmonics).

    Time since the training sequence's start in units of its span, and sine and cosine of the season.
    """
    season = 2 * np.pi * years[:, None] * np.arange(1, _HARMONICS + 1)
    return np.column_stack([(years - origin) / span, np.sin(season), np.cos(season)])


def build_network(shape: AttentionShape, seed: int | None) -> Any:
    """Transformer encoder with a query that reads the frames, and a decoder that rebuilds any date from its answer.

    Input (batch, date, n_tokens + 1 + dates' embedding), the number after the tokens being 1 where a frame is there;
    output (batch, date, n_tokens).
    """
    import torch
    from torch import nn

    n_dates = 1 + 2 * _HARMONICS

    class Temporal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = shape.width
            self.token, self.date = nn.Linear(shape.n_tokens, width), nn.Linear(n_dates, width)
            self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))
            layer = nn.TransformerEncoderLayer(width, shape.heads, 2 * width, dropout=0.0, batch_first=True)
            self.frames = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
            self.head = nn.Linear(width, shape.n_outputs)
            self.decoder = nn.Sequential(
                nn.Linear(shape.n_outputs + n_dates, 2 * width), nn.GELU(), nn.Linear(2 * width, shape.n_tokens)
            )

        def encode(self, packed: Any) -> Any:
            tokens, there, dates = packed.split([shape.n_tokens, 1, n_dates], dim=-1)
            x = self.token(tokens) + self.date(dates)
            x = torch.cat([self.query.expand(len(x), -1, -1), x], dim=1)
            gone = torch.cat([torch.zeros_like(there[:, :1, 0]), 1 - there[..., 0]], dim=1) > 0.5
            return self.head(self.frames(x, src_key_padding_mask=gone)[:, 0])

        def forward(self, packed: Any) -> Any:
            dates = packed[..., shape.n_tokens + 1 :]
            if self.training and shape.hide:
                there = packed[..., shape.n_tokens : shape.n_tokens + 1]
                kept = there * (torch.rand_like(there) > shape.hide)
                packed = torch.cat([packed[..., : shape.n_tokens], kept, dates], dim=-1)
            z = self.encode(packed)[:, None].expand(-1, dates.shape[1], -1)
            return self.decoder(torch.cat([z, dates], dim=-1))

    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return Temporal()


def _criterion() -> Any:
    import torch

    class PresentFrames(torch.nn.Module):
        """Mean squared error over the frames that are there."""

        def forward(self, outputs: Any, targets: Any) -> Any:
            there = targets[..., -1:]
            return (there * (outputs - targets[..., :-1]) ** 2).sum() / (there.sum() * outputs.shape[-1]).clamp(min=1)

    return PresentFrames()


def _pack(tokens: FloatArray, dates: FloatArray) -> NDArray[np.float32]:
    """Tokens (unit, date, token) with NaN where missing, their presence and the dates' embedding, side by side."""
    there = np.isfinite(tokens).all(axis=2, keepdims=True)
    spread = np.broadcast_to(dates, (len(tokens), *dates.shape))
    return np.concatenate([np.where(there, tokens, 0.0), there, spread], axis=2).astype(np.float32)


def train_attention(
    tokens: FloatArray, dates: FloatArray, shape: AttentionShape, settings: TrainSettings
) -> dict[str, NDArray[Any]]:
    """Weights of a network trained on sequences, a fifth of them held out to decide when to stop.

    Parameters
    ----------
    tokens : ndarray of shape (unit, date, token)
        Deviations of frames from the place's mean; NaN where a frame is missing.
    dates : ndarray
        What :func:`date_features` gives.
    shape : AttentionShape
    settings : TrainSettings
        Without augmentation.
    """
    import torch

    packed = _pack(tokens, dates)
    targets = packed[..., : shape.n_tokens + 1]
    held_out = np.zeros(len(packed), dtype=bool)
    rng = np.random.default_rng(settings.seed)
    held_out[rng.permutation(len(packed))[: max(1, len(packed) // 5)]] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = build_network(shape, settings.seed)
        images, wanted = torch.from_numpy(packed), torch.from_numpy(np.ascontiguousarray(targets))
        return train_network(module, images, wanted, _criterion(), held_out, settings).weights


def encode_sequences(module: Any, tokens: FloatArray, dates: FloatArray, batch: int = 1024) -> FloatArray:
    """The network's answer for sequences of tokens, shape (unit, n_outputs)."""
    import torch

    packed = torch.from_numpy(_pack(tokens, dates))
    with torch.inference_mode():
        parts = [module.encode(part).numpy() for part in packed.split(batch)]
    return np.concatenate(parts).astype(np.float64)
