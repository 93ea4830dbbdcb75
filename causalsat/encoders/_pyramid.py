"""An image pyramid that skips invalid pixels, and pooled responses of filters in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Extremes", "extremes", "halve", "n_levels"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Extremes:
    """Pooled responses of the filters of one level.

    Attributes
    ----------
    mean, largest, smallest : ndarrays of shape (k, filters)
        Mean, maximum and minimum of each response over the valid positions.
    """

    mean: Float32Array
    largest: Float32Array
    smallest: Float32Array


def n_levels(side_px: int, smallest_px: int, most: int = 8) -> int:
    """Levels of a pyramid whose smallest image has a side of at least ``smallest_px``.

    Examples
    --------
    >>> n_levels(256, 16), n_levels(64, 16), n_levels(20, 16)
    (5, 3, 1)
    """
    levels = 1
    while side_px // 2 >= smallest_px and levels < most:
        side_px //= 2
        levels += 1
    return levels


def halve(images: Any, valid: Any) -> tuple[Any, Any]:
    """Mean of the valid pixels of each 2 x 2 block; valid where any is. Tensors (k, band, y, x) and (k, 1, y, x)."""
    import torch.nn.functional as F

    share = F.avg_pool2d(valid, 2)
    return F.avg_pool2d(images * valid, 2) / share.clamp(min=0.25), (share > 0).to(valid.dtype)


def extremes(images: Any, valid: Any, weight: Any, offset: Any) -> Extremes:
    """Convolve images with filters and pool over the positions whose patch is valid.

    An image without any valid position is pooled over all positions, invalid pixels standing at 0.

    Parameters
    ----------
    images : torch.Tensor of shape (k, band, y, x)
        Standardised images, 0 where invalid.
    valid : torch.Tensor of shape (k, 1, y, x)
        1 where valid, else 0.
    weight, offset : torch.Tensors of shape (filters, band, patch, patch), (filters,)
        The filters.
    """
    import torch
    import torch.nn.functional as F

    response = F.conv2d(images, weight, offset)
    complete = bool(valid.all())
    if not complete:
        inside = -F.max_pool2d(-valid, weight.shape[-1], stride=1)
        inside = torch.where(inside.flatten(1).any(1)[:, None, None, None], inside, torch.ones_like(inside))
    flat = response.flatten(2)
    if complete:
        pooled = flat.mean(2), flat.amax(2), flat.amin(2)
    else:
        count = inside.flatten(2).sum(2)
        high = torch.where(inside > 0, response, -torch.inf)
        low = torch.where(inside > 0, response, torch.inf)
        pooled = (flat * inside.flatten(2)).sum(2) / count, high.flatten(2).amax(2), low.flatten(2).amin(2)
    mean, largest, smallest = (p.cpu().numpy() for p in pooled)
    return Extremes(mean, largest, smallest)
