"""Frames of a sequence: their encoder, and their centre crops."""

from __future__ import annotations

from typing import Any

from causalsat.encoders.chips import Float32Array
from causalsat.encoders.networks.module_encoder import as_transformer
from causalsat.encoders.random_conv.features import RandomConvFeatures

__all__ = ["centre", "crop", "frame_encoder"]


def frame_encoder(encoder: Any) -> Any:
    """A clone of the frame encoder; torch modules wrapped."""
    if encoder is None:
        return RandomConvFeatures(statistics=True)
    return as_transformer(encoder)


def centre(size: int, scale: float) -> tuple[int, int]:
    """Offset and side of a centre crop: the pixel of the place stays at the crop's ``side // 2``."""
    side = max(1, round(size * scale))
    return size // 2 - side // 2, side


def crop(frames: Float32Array, scale: float) -> Float32Array:
    """Centre crop of frames (..., y, x)."""
    if scale == 1.0:
        return frames
    (top, height), (left, width) = (centre(n, scale) for n in frames.shape[-2:])
    return frames[..., top : top + height, left : left + width]
