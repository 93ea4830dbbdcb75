"""Windows out of blocks: every block of a file is decoded once, however many windows it touches.

Windows are visited in the order of the file's blocks. A block is held, in the file's own data type, until the last
window that needs it has been served; the conversion to float32 and the mask happen on the windows only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Key = tuple[int, int]

__all__ = [
    "Block",
    "BlockSource",
    "WindowReader",
    "block_order",
    "is_nodata",
    "nodata_bounds",
    "read_unit",
    "window_into",
]

_MIN_UNIT_PX = 128
HELD_BYTES = 512 << 20  # of decoded blocks, over all files that are read at the same time


@dataclass(frozen=True)
class Block:
    """Decoded pixels.

    Attributes
    ----------
    values : ndarray of shape ([time,] band, rows, columns)
        In the data type of the source.
    invalid : ndarray of bool of a shape that broadcasts to that of values, or None
        Pixels that a mask rules out; nodata values need not be in it.
    infinite : int
        Infinite values that were made NaN when it was decoded.
    """

    values: NDArray[Any]
    invalid: NDArray[np.bool_] | None = None
    infinite: int = 0

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return int(self.values.nbytes + (0 if self.invalid is None else self.invalid.nbytes))


class BlockSource(Protocol):
    """What a reader needs from a source of pixels."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of what is decoded at a time."""

    @property
    def fill(self) -> float | None:
        """Value that stands for nodata."""

    @property
    def gain(self) -> tuple[Any, Any] | None:
        """Scale and offset, each broadcasting to ([time,] band, y, x); None where nothing is to be done."""

    def load(self, r0: int, r1: int, c0: int, c1: int) -> Block:
        """Decode rows r0..r1 and columns c0..c1, which lie inside the raster."""


def read_unit(block: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns to decode at a time: the file's block, or several where blocks are small or strips.

    Examples
    --------
    >>> read_unit((256, 256), (10980, 10980)), read_unit((1, 5000), (4000, 5000)), read_unit((16, 16), (100, 90))
    ((256, 256), (128, 5000), (128, 128))
    """
    rows, cols = block
    up = -(-_MIN_UNIT_PX // rows) * rows
    across = cols if cols >= shape[1] else -(-_MIN_UNIT_PX // cols) * cols
    return (max(rows, up), max(cols, across))


def block_order(row0: IntArray, col0: IntArray, unit: tuple[int, int]) -> IntArray:
    """Positions of the windows sorted by block row, block column, row and column of their upper-left pixels."""
    return np.lexsort((col0, row0, col0 // unit[1], row0 // unit[0]))


class WindowReader:
    """Serves square windows of one source in a given order.

    Parameters
    ----------
    source : BlockSource
    row0, col0 : ndarray of int of shape (n,)
        Upper-left pixels; windows may lie over the border or outside.
    size : int
        Side of the windows in pixels.
    order : ndarray of int of shape (n,)
        The order in which windows will be asked for.
    threads : int, default 1
        With more than one, the next blocks are decoded while the current windows are cut.
    share : int, default 1
        Number of readers that hold blocks at the same time.

    Attributes
    ----------
    infinite : int
        Infinite values in the windows served so far, which are NaN in them.
    """

    def __init__(
        self,
        source: BlockSource,
        row0: IntArray,
        col0: IntArray,
        size: int,
        order: IntArray,
        threads: int = 1,
        share: int = 1,
    ) -> None:
        self._source, self._size = source, size
        self._shape, self._unit, self._fill, self._gain = source.shape, source.unit, source.fill, source.gain
        self._row0, self._col0 = row0.tolist(), col0.tolist()
        self._spans = [
            part.tolist()
            for start, axis in ((row0, 0), (col0, 1))
            for part in _blocks_of(start, size, self._shape[axis], self._unit[axis])
        ]
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self._bytes, self._budget = 0, HELD_BYTES // share
        self._left: dict[Key, int] = {}
        for i in order.tolist():
            for key in self._keys(i):
                self._left[key] = self._left.get(key, 0) + 1
        self._upcoming: Iterator[Key] = iter(list(self._left))
        self._pending: dict[Key, Future[Block]] = {}
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._ahead = 2 * threads
        self.infinite = 0

    def __enter__(self) -> WindowReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._blocks.clear()

    def read_into(self, chip: NDArray[np.float32], i: int) -> int:
        """Write window i into chip, of shape ([time,] band, size, size); NaN where invalid or outside.

        Returns
        -------
        int
            Number of valid values.
        """
        row, col, size = self._row0[i], self._col0[i], self._size
        (rows, cols), (uh, uw) = self._shape, self._unit
        if row < 0 or col < 0 or row + size > rows or col + size > cols:
            chip.fill(np.nan)
        written, whole = 0, True
        for key in self._keys(i):
            block = self._get(key)
            top, left = key[0] * uh, key[1] * uw
            r0, c0 = max(row, top), max(col, left)
            r1, c1 = min(row + size, top + uh, rows), min(col + size, left + uw, cols)
            target = chip[..., r0 - row : r1 - row, c0 - col : c1 - col]
            inside = (slice(r0 - top, r1 - top), slice(c0 - left, c1 - left))
            all_valid, infinite = _paste(target, block, inside, self._fill)
            whole &= all_valid
            self.infinite += infinite
            written += target.size
        _apply_gain(chip, self._gain)
        return written if whole else int(np.count_nonzero(chip == chip))  # NaN is not equal to itself

    def _keys(self, i: int) -> list[Key]:
        top, bottom, left, right = (span[i] for span in self._spans)
        return [(u, v) for u in range(top, bottom) for v in range(left, right)]

    def _get(self, key: Key) -> Block:
        block = self._blocks.get(key)
        if block is None:
            block = self._fetch(key)
            self._blocks[key] = block
            self._bytes += block.nbytes
            self.infinite += block.infinite
        self._left[key] -= 1
        if self._left[key] == 0:
            self._drop(key)
        while self._bytes > self._budget and len(self._blocks) > 1:
            self._drop(next(iter(self._blocks)))
        return block

    def _drop(self, key: Key) -> None:
        self._bytes -= self._blocks.pop(key).nbytes

    def _fetch(self, key: Key) -> Block:
        if self._pool is None:
            return self._load(key)
        ready = self._pending.pop(key, None) or self._pool.submit(self._load, key)
        while len(self._pending) < self._ahead:
            following = next(self._upcoming, None)
            if following is None:
                break
            if following != key and following not in self._blocks:
                self._pending[following] = self._pool.submit(self._load, following)
        return ready.result()

    def _load(self, key: Key) -> Block:
        (uh, uw), (rows, cols) = self._unit, self._shape
        top, left = key[0] * uh, key[1] * uw
        return self._source.load(top, min(top + uh, rows), left, min(left + uw, cols))


def _blocks_of(start: IntArray, size: int, length: int, unit: int) -> tuple[IntArray, IntArray]:
    """First block and one past the last block, along one axis, of windows; equal where a window is outside."""
    first, stop = np.clip(start, 0, length), np.clip(start + size, 0, length)
    return first // unit, np.where(stop > first, -(-stop // unit), first // unit)


def window_into(out: NDArray[np.float32], source: BlockSource, row0: int, col0: int) -> int:
    """Read one window of any size, which may lie over the border, into out of shape ([time,] band, y, x).

    Returns
    -------
    int
        Number of infinite values, which are NaN in out.
    """
    height, width = out.shape[-2:]
    rows, cols = source.shape
    r0, c0, r1, c1 = max(row0, 0), max(col0, 0), min(row0 + height, rows), min(col0 + width, cols)
    if r1 <= r0 or c1 <= c0:
        out.fill(np.nan)
        return 0
    rows_in, cols_in = slice(r0 - row0, r1 - row0), slice(c0 - col0, c1 - col0)
    for outside in (np.s_[: rows_in.start], np.s_[rows_in.stop :]):
        out[..., outside, :] = np.nan
    for outside in (np.s_[: cols_in.start], np.s_[cols_in.stop :]):
        out[..., rows_in, outside] = np.nan
    inside = out[..., rows_in, cols_in]
    block = source.load(r0, r1, c0, c1)
    _, infinite = _paste(inside, block, (slice(None), slice(None)), source.fill)
    _apply_gain(inside, source.gain)
    return infinite + block.infinite


def _paste(
    target: NDArray[np.float32], block: Block, where: tuple[slice, slice], fill: float | None
) -> tuple[bool, int]:
    """Convert a part of a block; False where some of it may be invalid, and how many of its values are infinite."""
    values = block.values[(..., *where)]
    whole = block.invalid is None and values.dtype.kind in "iu"
    if values.dtype == np.float64:
        with np.errstate(over="ignore"):
            target[...] = values
    else:
        target[...] = values
    if fill is not None and (bounds := nodata_bounds(fill, values.dtype)) is not None:
        np.copyto(target, np.nan, where=is_nodata(values, bounds))
        whole = False
    if block.invalid is not None:
        np.copyto(target, np.nan, where=block.invalid[(..., *where)])
    infinite = 0
    if values.dtype.kind == "f":
        bad = ~np.isfinite(target)
        if count := np.count_nonzero(bad):
            infinite = int(count - np.count_nonzero(target != target))  # NaN is not equal to itself
            if infinite:
                target[bad] = np.nan
    return whole, infinite


@lru_cache(maxsize=512)
def nodata_bounds(nodata: float, dtype: np.dtype[Any]) -> tuple[Any, Any] | None:
    """Lowest and highest value, in the pixels' data type, that stands for nodata; None where no pixel can.

    Whole numbers are compared exactly. Floats are compared as GDAL does (``ARE_REAL_EQUAL``): by four units of single
    precision, because nodata is often written with few digits; for nodata beyond half of the largest number, where
    GDAL's sum overflows, everything that large is nodata.

    Examples
    --------
    >>> nodata_bounds(0.0, np.dtype("uint8")), nodata_bounds(-1.0, np.dtype("uint8"))
    ((np.uint8(0), np.uint8(0)), None)
    >>> low, high = nodata_bounds(-3.40282e38, np.dtype("float32"))
    >>> bool(low <= np.float32(-3.4028235e38) <= high), bool(low <= np.float32(-1) <= high)
    (True, False)
    """
    if np.isnan(nodata):
        return None  # NaN is invalid in any case
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            centre = dtype.type(nodata)
        if np.isinf(nodata):
            return centre, centre
        if not np.isfinite(centre):
            return None
        if dtype.itemsize < 4:
            return centre, centre
        return tuple(sorted(_furthest(centre, end) for end in (np.finfo(dtype).min, np.finfo(dtype).max)))  # type: ignore[return-value]
    if dtype.kind not in "iu":
        return None
    info = np.iinfo(dtype)
    if not (float(nodata).is_integer() and info.min <= nodata <= info.max):
        return None
    return dtype.type(int(nodata)), dtype.type(int(nodata))


def _furthest(centre: Any, end: Any) -> Any:
    """The value nearest to ``end`` that GDAL takes for equal to ``centre``, by bisection over the floats between."""
    tolerance = centre.dtype.type(np.finfo(np.float32).eps * 2)

    def equal(value: Any) -> bool:
        return bool(value == centre or abs(value - centre) < abs(value + centre) * tolerance)

    with np.errstate(over="ignore", invalid="ignore"):
        if abs(centre) > abs(end) / 2:
            if equal(end):
                return end
        else:  # GDAL's sum does not overflow between these
            end = np.sign(end) * (abs(end) - abs(centre))
        near, far = centre, end
        while True:
            middle = near + (far - near) / 2 if abs(far - near) < np.inf else (near / 2 + far / 2)
            if middle in (near, far):
                return near
            near, far = (middle, far) if equal(middle) else (near, middle)


def is_nodata(values: NDArray[Any], bounds: tuple[Any, Any]) -> NDArray[np.bool_]:
    """Where values lie within the bounds of nodata."""
    low, high = bounds
    return values == low if low == high else (values >= low) & (values <= high)


def _apply_gain(chip: NDArray[np.float32], gain: tuple[Any, Any] | None) -> None:
    if gain is not None:
        chip *= gain[0]
        chip += gain[1]
