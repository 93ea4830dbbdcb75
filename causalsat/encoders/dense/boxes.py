"""How many pixels of a window are valid in each of many overlapping chips."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["true_shares", "valid_counts", "valid_shares"]

IntArray = NDArray[np.int64]


def valid_shares(pixels: NDArray[np.float32], rows: Any, cols: Any, size_px: int) -> NDArray[np.float64]:
    """Share of valid pixels of each chip, shape (n,); over all dates, a pixel valid where all its bands are.

    Parameters
    ----------
    pixels : ndarray of shape ([time,] band, h, w)
        The window.
    rows, cols : arrays of int of shape (n,)
        Upper-left pixels of the chips in it.
    size_px : int
        Side of the chips.

    Examples
    --------
    >>> pixels = np.ones((1, 4, 6), dtype=np.float32)
    >>> pixels[0, :, 0] = np.nan
    >>> valid_shares(pixels, [0, 1], [0, 3], 2)
    array([0.5, 1. ])
    """
    return true_shares(np.asarray(np.isfinite(pixels).all(axis=-3)), rows, cols, size_px)


def true_shares(good: NDArray[np.bool_], rows: Any, cols: Any, size_px: int) -> NDArray[np.float64]:
    """Share of true pixels of ([time,] h, w) in each chip, over all dates, shape (n,)."""
    dates = 1 if good.ndim == 2 else len(good)
    if good.all():
        return np.ones(len(rows))
    return valid_counts(good, rows, cols, size_px) / (dates * int(size_px) ** 2)


def valid_counts(good: NDArray[np.bool_], rows: Any, cols: Any, size_px: int) -> IntArray:
    """Number of true pixels of ([time,] h, w) in each chip, shape (n,): sums between the chips' borders, once."""
    row, col = np.asarray(rows, dtype=np.int64), np.asarray(cols, dtype=np.int64)
    row_edges, col_edges = (np.unique(np.concatenate([v, v + int(size_px)])) for v in (row, col))
    part = good[..., row_edges[0] : row_edges[-1], col_edges[0] : col_edges[-1]]
    cells = np.add.reduceat(part.view(np.uint8), col_edges[:-1] - col_edges[0], axis=-1, dtype=np.int32)
    cells = np.add.reduceat(cells, row_edges[:-1] - row_edges[0], axis=-2, dtype=np.int64)
    cells = cells.reshape(-1, *cells.shape[-2:]).sum(axis=0)
    table = np.zeros((len(row_edges), len(col_edges)), dtype=np.int64)
    table[1:, 1:] = cells.cumsum(axis=0).cumsum(axis=1)
    r0, r1 = np.searchsorted(row_edges, row), np.searchsorted(row_edges, row + int(size_px))
    c0, c1 = np.searchsorted(col_edges, col), np.searchsorted(col_edges, col + int(size_px))
    return np.asarray(table[r1, c1] - table[r0, c1] - table[r1, c0] + table[r0, c0])
