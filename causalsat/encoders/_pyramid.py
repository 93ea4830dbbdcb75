"""An image pyramid that skips invalid pixels, and the strongest responses of filters in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Extremes", "extremes", "halve", "n_levels"]

Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Extremes:
    """Pooled responses of the filters of one level.

    Attributes
    ----------
    mean, largest, smallest : ndarrays of shape (k, filters)
        Mean, maximum and minimum of each response over the valid positions.
    peaks : ndarray of int of shape (k, candidates) or None
        Flat positions of the windows round the strongest responses of either sign.
    """

    mean: Float32Array
    largest: Float32Array
    smallest: Float32Array
    peaks: IntArray | None


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


def extremes(images: Any, valid: Any, weight: Any, offset: Any, *, window_px: int = 0, n_peaks: int = 0) -> Extremes:
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
    window_px : int
        Side of the windows that ``peaks`` names, at least the filters'.
    n_peaks : int
        Windows for each filter and sign; 0 for none.
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
        low, high = response, response
    else:
        count = inside.flatten(2).sum(2)
        high = torch.where(inside > 0, response, -torch.inf)
        low = torch.where(inside > 0, response, torch.inf)
        pooled = (flat * inside.flatten(2)).sum(2) / count, high.flatten(2).amax(2), low.flatten(2).amin(2)
    peaks = _peaks(high, low, weight.shape[-1], window_px, n_peaks) if n_peaks else None
    mean, largest, smallest = (p.cpu().numpy() for p in pooled)
    return Extremes(mean, largest, smallest, peaks)


def _peaks(high: Any, low: Any, patch_px: int, window_px: int, n_peaks: int) -> IntArray:
    """Windows (their flat upper-left positions) centred at the strongest responses of both signs."""
    import torch

    margin = (window_px - patch_px) // 2
    rows, cols = (n + patch_px - window_px for n in high.shape[-2:])
    part = (..., slice(margin, margin + rows), slice(margin, margin + cols))
    both = torch.cat([high[part], -low[part]], 1).flatten(2)
    found = both.topk(min(n_peaks, both.shape[2]), 2).indices
    return np.asarray(found.flatten(1).cpu().numpy(), dtype=np.int64)
