"""A window of imagery that is kept for a while: what lies in it is read and decoded once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Held", "held_window", "holder", "promised", "read_held"]

Read = Callable[[int, int, int, int], NDArray[np.float32]]

_LOCAL = threading.local()


class _Holder:
    """The first window that is read of one imagery, with a margin."""

    def __init__(self, imagery: Any, margin_px: int) -> None:
        self.imagery, self.margin = imagery, margin_px
        self.corner = (0, 0)
        self.pixels: NDArray[np.float32] | None = None

    def window(self, read: Read, row0: int, col0: int, height: int, width: int) -> NDArray[np.float32]:
        """The window: a part of what is held, not to be written to, or read."""
        if self.pixels is None:
            self.corner = row0 - self.margin, col0 - self.margin
            self.pixels = read(*self.corner, height + 2 * self.margin, width + 2 * self.margin)
            self.pixels.flags.writeable = False
        top, left = row0 - self.corner[0], col0 - self.corner[1]
        rows, cols = self.pixels.shape[-2:]
        if top < 0 or left < 0 or top + height > rows or left + width > cols:
            return read(row0, col0, height, width)
        return self.pixels[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class Held:
    """A window that was read before it is wanted.

    Attributes
    ----------
    imagery : Imagery
        Of which it is.
    margin_px : int
        Pixels around what was asked for.
    corner : (int, int)
        Its first row and column.
    pixels : ndarray of shape ([time,] band, height, width)
    """

    imagery: Any
    margin_px: int
    corner: tuple[int, int]
    pixels: NDArray[np.float32]


def read_held(imagery: Any, row0: int, col0: int, height: int, width: int, margin_px: int = 0) -> Held:
    """Read a window and its margin, for :func:`held_window` in another thread."""
    corner = row0 - margin_px, col0 - margin_px
    pixels = np.asarray(imagery.read_window(*corner, height + 2 * margin_px, width + 2 * margin_px))
    return Held(imagery, margin_px, corner, pixels)


@contextmanager
def promised(held: Held | None) -> Iterator[None]:
    """Within it, this thread's ``held_window`` of that imagery and margin begins with what was read before."""
    before = getattr(_LOCAL, "promised", None)
    _LOCAL.promised = held
    try:
        yield
    finally:
        _LOCAL.promised = before


@contextmanager
def held_window(imagery: Any, margin_px: int = 0) -> Iterator[None]:
    """Within it, this thread keeps the first window that it reads of this imagery, and serves parts of it.

    Parameters
    ----------
    imagery : Imagery
        This very object; other imagery is read as ever.
    margin_px : int
        Pixels to read around the first window, for those that ask for more of its surroundings.
    """
    before = getattr(_LOCAL, "holder", None)
    _LOCAL.holder = _Holder(imagery, int(margin_px))
    ready = getattr(_LOCAL, "promised", None)
    if ready is not None and ready.imagery is imagery and ready.margin_px == int(margin_px):
        _LOCAL.holder.corner, _LOCAL.holder.pixels = ready.corner, ready.pixels
        ready.pixels.flags.writeable = False
    try:
        yield
    finally:
        _LOCAL.holder = before


def holder(imagery: Any) -> Any:
    """What keeps a window of this imagery in this thread, or None."""
    found = getattr(_LOCAL, "holder", None)
    return found if found is not None and found.imagery is imagery else None
