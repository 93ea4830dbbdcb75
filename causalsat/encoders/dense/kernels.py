"""Loops over pixels of the dense form's first layers on a CPU: standardisation of bands, ReLU and maximum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["pool_rectified", "standardised"]


def standardised(pixels: NDArray[np.float32], mean: NDArray[Any], sd: NDArray[Any]) -> NDArray[np.float32]:
    """Standardised bands of pixels (band, y, x), channels last, (y, x, band); 0 where any band is invalid.

    Examples
    --------
    >>> pixels = np.array([[[3.0, np.nan]], [[1.0, 1.0]]], dtype=np.float32)
    >>> standardised(pixels, np.array([1.0, 1.0]), np.array([2.0, 1.0])).tolist()
    [[[1.0, 0.0], [0.0, 0.0]]]
    """
    out = np.empty((*pixels.shape[1:], len(pixels)), dtype=np.float32)
    _standardise(pixels, mean.astype(np.float32), (1 / sd).astype(np.float32), out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _standardise(pixels, mean, scale, out):  # type: ignore[no-untyped-def]
    for row in range(pixels.shape[1]):
        for col in range(pixels.shape[2]):
            total = np.float32(0)
            for band in range(pixels.shape[0]):
                value = (pixels[band, row, col] - mean[band]) * scale[band]
                out[row, col, band] = value
                total += value
            if not np.isfinite(total):
                for band in range(pixels.shape[0]):
                    out[row, col, band] = 0


def pool_rectified(images: Any) -> Any:
    """ReLU and the maximum over 3 x 3 at stride 2 of a tensor (n, channel, y, x) on a CPU, channels last.

    bfloat16 is compared by its bits as whole numbers: among numbers of which one is above 0 the order is the same.
    """
    import torch

    n, channels, height, width = images.shape
    out = torch.empty((n, (height - 1) // 2, (width - 1) // 2, channels), dtype=images.dtype)
    source = images.permute(0, 2, 3, 1).contiguous()
    kind = torch.int16 if images.dtype == torch.bfloat16 else images.dtype
    for image, result in zip(source.view(kind), out.view(kind), strict=True):
        _pool(image.numpy(), result.numpy())
    return out.permute(0, 3, 1, 2)


@njit(cache=True, nogil=True, error_model="numpy")
def _pool(x, out):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    best = np.empty((x.shape[1], x.shape[2]), x.dtype)
    for row in range(out.shape[0]):
        for col in range(x.shape[1]):
            a, b, c, up = x[2 * row, col], x[2 * row + 1, col], x[2 * row + 2, col], best[col]
            for k in range(x.shape[2]):
                up[k] = max(max(a[k], b[k]), max(c[k], zero))
        for col in range(out.shape[1]):
            a, b, c, to = best[2 * col], best[2 * col + 1], best[2 * col + 2], out[row, col]
            for k in range(x.shape[2]):
                to[k] = max(max(a[k], b[k]), c[k])
