"""Patch tokens of a vision transformer wall to wall: windows at fixed places of the imagery, whose middles count.

Every token of a transformer depends on the whole window that it was computed in. So that a place has the same
features alone and in a map, windows lie on a lattice that is counted from the imagery's first pixel: the token of a
patch comes from the one window whose middle holds it. Windows overlap by twice a margin, beyond which their tokens
differ no more than those in the middle of two windows do; it is measured on the training places. Cells average the
tokens over their area.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.dense.window import LinearHead, any_valid, pool_squares, squares_of, wanted_squares
from causalsat.exceptions import DataError

__all__ = [
    "MARGIN_TOLERANCE",
    "TokenCache",
    "TokenGrid",
    "border_differences",
    "features_by_date",
    "margin_from",
    "pooled_tokens",
    "windows_at_once",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Tokens = Callable[[NDArray[np.float32]], NDArray[np.float32]]

MARGIN_TOLERANCE = 1.1  # of the difference in the middle of windows
_CACHE_BYTES = 96 << 20
_TOKENS_AT_ONCE = 49  # of a window, for each chip of a batch: memory is bounded by the batch size
_SHIFT_SHARE = 2  # windows that are compared lie half a window apart


@dataclass(frozen=True)
class TokenGrid:
    """Where windows and their tokens lie.

    Attributes
    ----------
    patch : int
        Pixels along the side of a token's patch.
    window_px : int
        Side of a window, whole patches.
    margin_px : int
        Pixels along a window's border whose tokens are not used, whole patches.
    """

    patch: int
    window_px: int
    margin_px: int

    @property
    def core_px(self) -> int:
        """Side of a window's middle, and distance between windows."""
        return self.window_px - 2 * self.margin_px


@dataclass
class TokenCache:
    """Tokens of the windows that were computed last, by the windows' pixels."""

    kept: OrderedDict[bytes, NDArray[np.float32]] = field(default_factory=OrderedDict)
    size: int = 0

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """Tokens of a window, or None."""
        found = self.kept.get(key)
        if found is not None:
            self.kept.move_to_end(key)
        return found

    def put(self, key: bytes, tokens: NDArray[np.float32]) -> None:
        """Keep tokens, and forget the oldest beyond the bound on memory."""
        self.kept[key] = tokens
        self.size += tokens.nbytes
        while self.size > _CACHE_BYTES and len(self.kept) > 1:
            self.size -= self.kept.popitem(last=False)[1].nbytes


def pooled_tokens(
    pixels: NDArray[np.float32],
    rows: IntArray,
    cols: IntArray,
    size_px: int,
    grid: TokenGrid,
    tokens: Tokens,
    *,
    head: LinearHead | None = None,
    cache: TokenCache | None = None,
    salt: str = "",
    at_once: int = 1,
) -> FloatArray:
    """Features (n, k) of chips: averages of the patches' tokens over each chip's area.

    Parameters
    ----------
    pixels : ndarray of shape (band, h, w)
        A window of the imagery that begins ``margin_px`` before a window of the lattice and holds whole ones.
    rows, cols : ndarray of int of shape (n,)
        Upper-left pixels of the chips, counted from the window's.
    size_px : int
    grid : TokenGrid
    tokens : callable
        Tokens (m, g, g, k) of windows (m, band, window_px, window_px).
    head : LinearHead, optional
        Applied to the tokens before pooling.
    cache : TokenCache, optional
    salt : str
        What else decides the tokens, for the cache.
    at_once : int
        Windows in a batch.
    """
    core, patch, margin = grid.core_px, grid.patch, grid.margin_px
    top, left = rows - margin, cols - margin
    cells = squares_of(top, left, size_px, core)
    _check_window(pixels, cells, grid)
    wanted = wanted_squares(top, left, size_px, core, cells)
    side = core // patch
    places = [(int(i), int(j)) for i, j in np.argwhere(wanted)]
    arrays = _tokens_of_cells(pixels, cells, places, grid, tokens, head, cache, salt, at_once)
    responses = np.zeros((cells.rows * side, cells.cols * side, arrays[0].shape[-1]), dtype=np.float32)
    for (i, j), found in zip(places, arrays, strict=True):
        responses[i * side : (i + 1) * side, j * side : (j + 1) * side] = found
    start_row, start_col = cells.row * core, cells.col * core
    whole = squares_of(top - start_row, left - start_col, size_px, patch)
    block = responses[whole.row : whole.row + whole.rows, whole.col : whole.col + whole.cols]
    return pool_squares(block, whole, top - start_row, left - start_col, size_px, patch)


def features_by_date(
    pixels: NDArray[np.float32],
    rows: IntArray,
    cols: IntArray,
    size_px: int,
    grid: TokenGrid,
    tokens: Callable[[int], Tokens],
    n_features: int,
    *,
    head: LinearHead | None,
    cache: TokenCache,
    salt: Callable[[int], str],
    at_once: int,
) -> FloatArray:
    """Features of chips (n, time * k) of a window (time, band, h, w), or (n, columns of the head), summed over dates.

    NaN for a chip without any valid pixel. ``tokens`` and ``salt`` are given the number of the date.
    """
    parts = []
    for j, date in enumerate(pixels):
        own = None if head is None else head.part(j * n_features, (j + 1) * n_features)
        found = pooled_tokens(
            date, rows, cols, size_px, grid, tokens(j), head=own, cache=cache, salt=salt(j), at_once=at_once
        )
        found[~any_valid(date, rows, cols, size_px)] = np.nan
        parts.append(found)
    if head is None:
        return np.hstack(parts)
    seen = np.asarray(np.isfinite(parts).any(axis=(0, 2)))
    return np.where(seen[:, None], np.nansum(parts, axis=0), np.nan)


def windows_at_once(batch_size: int, grid: TokenGrid) -> int:
    """Windows in a batch, so that it holds about as much as ``batch_size`` small chips."""
    return max(1, _TOKENS_AT_ONCE * batch_size // (grid.window_px // grid.patch) ** 2)


def _check_window(pixels: NDArray[np.float32], cells: Any, grid: TokenGrid) -> None:
    height, width = pixels.shape[-2:]
    need = ((cells.row + cells.rows) * grid.core_px, (cells.col + cells.cols) * grid.core_px)
    if min(cells.row, cells.col) < 0 or need[0] + 2 * grid.margin_px > height or need[1] + 2 * grid.margin_px > width:
        raise DataError(
            f"a window of {height} x {width} pixels for chips that need "
            f"{need[0] + 2 * grid.margin_px} x {need[1] + 2 * grid.margin_px}",
            expected=f"whole squares of {grid.core_px} pixels and {grid.margin_px} around them",
            todo="encode places with ImageEncoder, which reads the surroundings; off the imagery they may be NaN",
        )


def _tokens_of_cells(
    pixels: NDArray[np.float32],
    cells: Any,
    places: list[tuple[int, int]],
    grid: TokenGrid,
    tokens: Tokens,
    head: LinearHead | None,
    cache: TokenCache | None,
    salt: str,
    at_once: int,
) -> list[NDArray[np.float32]]:
    """Tokens (side, side, k) of the middle of each wanted window, after the head."""
    core, inner = grid.core_px, grid.margin_px // grid.patch
    side = core // grid.patch
    made: dict[int, NDArray[np.float32]] = {}
    waiting: list[tuple[int, bytes, NDArray[np.float32]]] = []

    def compute() -> None:
        found = tokens(np.stack([image for _, _, image in waiting]))
        found = found[:, inner : inner + side, inner : inner + side]
        if head is not None:
            found = ((found - head.mean.astype(np.float32)) @ head.weight.astype(np.float32)).astype(np.float32)
        for (number, key, _), values in zip(waiting, found, strict=True):
            made[number] = values
            if cache is not None:
                cache.put(key, values.copy())
        waiting.clear()

    for number, (i, j) in enumerate(places):
        y, x = (cells.row + i) * core, (cells.col + j) * core
        image = np.ascontiguousarray(pixels[:, y : y + grid.window_px, x : x + grid.window_px])
        key = _key(image, head, salt) if cache is not None else b""
        known = cache.get(key) if cache is not None else None
        if known is not None:
            made[number] = known
            continue
        waiting.append((number, key, image))
        if len(waiting) >= at_once:
            compute()
    if waiting:
        compute()
    return [made[number] for number in range(len(places))]


def _key(image: NDArray[np.float32], head: LinearHead | None, salt: str) -> bytes:
    sha = hashlib.blake2b(f"{salt} {image.shape}".encode(), digest_size=20)
    sha.update(image.data)
    if head is not None:
        sha.update(np.ascontiguousarray(head.mean).data)
        sha.update(np.ascontiguousarray(head.weight).data)
    return sha.digest()


# ---------------------------------------------------------------------- the margin
def border_differences(areas: NDArray[np.float32], window_px: int, patch: int, tokens: Tokens) -> FloatArray:
    """How much tokens differ between two windows, by their distance from the nearer border of either.

    Parameters
    ----------
    areas : ndarray of shape (n, band, side, side)
        Pixels of squares of one and a half windows.
    window_px, patch : int
    tokens : callable
        Tokens (m, g, g, k) of windows (m, band, window_px, window_px).

    Returns
    -------
    ndarray of shape (g / 4,)
        Root mean square difference of tokens that lie so many patches from a border, in standard deviations of the
        tokens' features.
    """
    shift = window_px // _SHIFT_SHARE // patch * patch
    first = tokens(areas[:, :, :window_px, :window_px]).astype(np.float64)
    second = tokens(areas[:, :, shift : shift + window_px, shift : shift + window_px]).astype(np.float64)
    g, s = window_px // patch, shift // patch
    sd = np.maximum(first.reshape(-1, first.shape[-1]).std(axis=0), 1e-12)
    apart = (((first[:, s:, s:] - second[:, : g - s, : g - s]) / sd) ** 2).mean(axis=(0, 3))
    ends = np.arange(g - s)
    along = np.minimum(ends, ends[::-1])  # a token's distance from the second's first row, or the first's last
    distance = np.minimum(along[:, None], along[None, :])
    return np.array([np.sqrt(apart[distance == k].mean()) for k in range(int(distance.max()) + 1)])


def margin_from(differences: FloatArray, patch: int, window_px: int) -> int:
    """Margin in pixels: the least from which on differences are within a tenth of those in the middle.

    Examples
    --------
    >>> margin_from(np.array([0.9, 0.5, 0.31, 0.3, 0.3]), 16, 448)
    32
    """
    floor = float(np.median(differences[len(differences) // 2 :]))
    beyond = np.flatnonzero(differences > MARGIN_TOLERANCE * floor)
    patches = 0 if not len(beyond) else int(beyond[-1]) + 1
    return int(min(patches, window_px // patch // 4) * patch)
