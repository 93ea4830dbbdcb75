"""From a window of imagery to the features of the chips in it, through a network's dense responses.

The dense map of a window has one response for each square of stride x stride pixels. A chip's feature is the average
of that map over the chip's area, a square counting by the part of it that lies in the chip. An average is linear, so
that a linear head (the projection on principal components) may come before it: few columns are pooled, not 512.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.dense.boxes import valid_shares
from causalsat.encoders.dense.resnet import DenseResNet, Geometry
from causalsat.exceptions import DataError

__all__ = [
    "LinearHead",
    "any_valid",
    "block_squares",
    "pool_squares",
    "squares_of",
    "sum_of_parts",
    "wanted_squares",
    "window_responses",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BLOCK_BYTES = 384 << 20  # activations held at once
_BLOCK_PX = 2368  # a block's side at most


@dataclass(frozen=True)
class LinearHead:
    """What is done to the features of a chip, where it is linear: ``(features - mean) @ weight``.

    Attributes
    ----------
    mean : ndarray of shape (features,)
    weight : ndarray of shape (features, k)
    """

    mean: FloatArray
    weight: FloatArray

    def part(self, start: int, stop: int) -> LinearHead:
        """The head of some of the features."""
        return LinearHead(self.mean[start:stop], self.weight[start:stop])

    def apply(self, features: FloatArray) -> FloatArray:
        """What the head makes of features (n, features), shape (n, k)."""
        return np.asarray((features - self.mean) @ self.weight)


def sum_of_parts(parts: Sequence[FloatArray]) -> FloatArray:
    """Sum of heads of parts of the features (n, k); a part that is NaN counts as its mean, all NaN gives NaN.

    Examples
    --------
    >>> missing = np.full((1, 2), np.nan)
    >>> sum_of_parts([np.ones((1, 2)), missing]), sum_of_parts([missing, missing])
    (array([[1., 1.]]), array([[nan, nan]]))
    """
    total = np.zeros_like(parts[0])
    lost = np.ones(len(total), dtype=bool)
    for part in parts:
        absent = np.asarray(np.isnan(part).any(axis=1))
        total += np.where(absent[:, None], 0.0, part)
        lost &= absent
    total[lost] = np.nan
    return total


@dataclass(frozen=True)
class Squares:
    """Block of squares that chips touch: the first row and column, and how many of each."""

    row: int
    col: int
    rows: int
    cols: int


def squares_of(rows: IntArray, cols: IntArray, size_px: int, stride: int) -> Squares:
    """Squares, counted from the window's first pixel, that chips at these upper-left pixels touch."""
    row, col = int(rows.min()) // stride, int(cols.min()) // stride
    return Squares(
        row,
        col,
        -(-(int(rows.max()) + size_px) // stride) - row,
        -(-(int(cols.max()) + size_px) // stride) - col,
    )


def window_responses(
    pixels: NDArray[np.float32],
    squares: Squares,
    wanted: NDArray[np.bool_],
    network: DenseResNet,
    to_tensor: Callable[[NDArray[np.float32]], Any],
    head: LinearHead | None,
) -> NDArray[np.float32]:
    """Responses of the squares, after the head, shape (rows, columns, features or k); 0 where none is wanted.

    Parameters
    ----------
    pixels : ndarray of shape (band, h, w)
        The window; it must hold the receptive fields of all squares.
    squares : Squares
    wanted : ndarray of bool of shape (rows, columns)
        Squares that are needed; blocks without any are left out.
    network : DenseResNet
    to_tensor : callable
        Gives the network's input (1, band, y, x) of some rows of the pixels (1, band, y, x).
    head : LinearHead or None
    """
    import torch

    geometry = network.geometry
    _check_surroundings(squares, geometry, pixels.shape[-2:])
    n = geometry.n_features if head is None else head.weight.shape[1]
    out = np.zeros((squares.rows, squares.cols, n), dtype=np.float32)
    device = network.stem.weight.device
    if head is not None:
        mean, weight = (torch.from_numpy(v.astype(np.float32)).to(device) for v in (head.mean, head.weight))
    for rows, cols in _blocks(squares, geometry):
        if not wanted[rows, cols].any():
            continue
        y0, y1 = geometry.reach(squares.row + rows.start, squares.row + rows.stop - 1)
        x0, x1 = geometry.reach(squares.col + cols.start, squares.col + cols.stop - 1)
        with torch.inference_mode():
            found = network(pixels[None, :, y0:y1, x0:x1], to_tensor)[0].permute(1, 2, 0).float()
            if head is not None:
                found = (found - mean) @ weight
            out[rows, cols] = found.cpu().numpy()
    return out


def _check_surroundings(squares: Squares, geometry: Geometry, shape: tuple[int, ...]) -> None:
    y0, y1 = geometry.reach(squares.row, squares.row + squares.rows - 1)
    x0, x1 = geometry.reach(squares.col, squares.col + squares.cols - 1)
    if y0 < 0 or x0 < 0 or y1 > shape[0] or x1 > shape[1]:
        raise DataError(
            f"a window of {shape[0]} x {shape[1]} pixels for chips whose receptive fields are rows {y0} to {y1}, "
            f"columns {x0} to {x1}",
            expected=f"{geometry.halo_px} pixels round each chip",
            todo="read a larger window; off the imagery it may be NaN",
        )


def block_squares(geometry: Geometry) -> int:
    """Side, in squares, of the blocks that are computed at a time."""
    side = int((_BLOCK_BYTES / geometry.bytes_per_px) ** 0.5) - geometry.field_px
    return max(min(side, _BLOCK_PX) // geometry.stride, 1)


def _blocks(squares: Squares, geometry: Geometry) -> Iterator[tuple[slice, slice]]:
    """Blocks of about the same size, as few as the bound on a block allows."""
    most = block_squares(geometry)
    for rows in _even(squares.rows, most):
        for cols in _even(squares.cols, most):
            yield rows, cols


def _even(total: int, most: int) -> Iterator[slice]:
    edges = np.linspace(0, total, -(-total // most) + 1).round().astype(int)
    yield from (slice(int(a), int(b)) for a, b in pairwise(edges))


def wanted_squares(rows: IntArray, cols: IntArray, size_px: int, stride: int, squares: Squares) -> NDArray[np.bool_]:
    """Which squares some chip touches, shape (rows, columns)."""
    marks = np.zeros((squares.rows + 1, squares.cols + 1), dtype=np.int32)
    r0, c0 = rows // stride - squares.row, cols // stride - squares.col
    r1, c1 = -(-(rows + size_px) // stride) - squares.row, -(-(cols + size_px) // stride) - squares.col
    for r, c, sign in ((r0, c0, 1), (r1, c0, -1), (r0, c1, -1), (r1, c1, 1)):
        np.add.at(marks, (r, c), sign)
    return np.asarray(marks.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0)


def pool_squares(
    responses: NDArray[np.float32], squares: Squares, rows: IntArray, cols: IntArray, size_px: int, stride: int
) -> FloatArray:
    """Average of the responses over each chip's area, shape (n, features), exact for chips between squares."""
    table = np.zeros((squares.rows + 1, squares.cols + 1, responses.shape[2]))
    np.cumsum(responses, axis=0, dtype=np.float64, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])

    def up_to(row: IntArray, col: IntArray) -> FloatArray:
        """Integral of the map from its corner to a pixel corner: between squares it is bilinear."""
        (r, fr), (c, fc) = (
            np.divmod(v - stride * first, stride) for v, first in ((row, squares.row), (col, squares.col))
        )
        r1, c1 = np.minimum(r + 1, squares.rows), np.minimum(c + 1, squares.cols)
        wr, wc = (fr / stride)[:, None], (fc / stride)[:, None]
        top = (1 - wc) * table[r, c] + wc * table[r, c1]
        return np.asarray((1 - wr) * top + wr * ((1 - wc) * table[r1, c] + wc * table[r1, c1]))

    bottom, right = rows + size_px, cols + size_px
    total = (up_to(bottom, right) - up_to(rows, right)) - (up_to(bottom, cols) - up_to(rows, cols))
    return np.asarray(total * (stride / size_px) ** 2)


def any_valid(pixels: NDArray[np.float32], rows: IntArray, cols: IntArray, size_px: int) -> NDArray[np.bool_]:
    """Whether a chip of the window (band, h, w) has any pixel that is valid in all bands, shape (n,)."""
    middle = pixels[:, rows + size_px // 2, cols + size_px // 2]  # mostly decides it
    found = np.asarray(np.isfinite(middle).all(axis=0))
    rest = np.flatnonzero(~found)
    if len(rest):
        top, left = int(rows[rest].min()), int(cols[rest].min())
        part = pixels[:, top : rows[rest].max() + size_px, left : cols[rest].max() + size_px]
        found[rest] = valid_shares(part, rows[rest] - top, cols[rest] - left, size_px) > 0
    return found
