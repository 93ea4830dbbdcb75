"""One resolution of a set of images, and where in them a filter responds most: convolution through the spectrum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["Level", "coarser", "gather", "make_level", "scan", "strongest"]

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]

_BATCH_BYTES = 32 << 20  # of responses at a time
_KEEP_BYTES = 512 << 20  # spectra up to this size are computed once


@dataclass(frozen=True, eq=False)
class Level:
    """Images at one resolution.

    Attributes
    ----------
    images : ndarray of shape (n, band, y, x), float32
        Standardised, 0 where invalid.
    valid : ndarray of bool of shape (n, y, x) or None
        None where every pixel of every image is valid.
    spectra : ndarray of shape (n, band, y, x // 2 + 1), complex64, or None
        Fourier transforms of the images; None where they would take too much memory.
    """

    images: Float32Array
    valid: NDArray[np.bool_] | None
    spectra: NDArray[np.complex64] | None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.images.shape[2]), int(self.images.shape[3])


def make_level(images: Float32Array, valid: NDArray[np.bool_] | None) -> Level:
    """Level of images (n, band, y, x) and their valid pixels (n, y, x)."""
    whole = valid is None or bool(valid.all())
    small = images.nbytes * 1.1 <= _KEEP_BYTES
    return Level(images, None if whole else valid, fft.rfft2(images) if small else None)


def coarser(level: Level) -> Level:
    """Half the resolution: means of the valid pixels of each 2 x 2 block, valid where any is.

    Examples
    --------
    >>> one = make_level(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4), None)
    >>> coarser(one).images[0, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    n, bands, rows, cols = level.images.shape
    kept = level.images[:, :, : rows // 2 * 2, : cols // 2 * 2]
    blocks = kept.reshape(n, bands, rows // 2, 2, cols // 2, 2).sum(axis=(3, 5))
    if level.valid is None:
        return make_level(np.asarray(blocks / np.float32(4)), None)
    valid = level.valid[:, : rows // 2 * 2, : cols // 2 * 2]
    count = valid.reshape(n, rows // 2, 2, cols // 2, 2).sum(axis=(2, 4))
    return make_level((blocks / np.maximum(count, 1)[:, None]).astype(np.float32), count > 0)


def _responses(level: Level, rows: IntArray, kernel: FloatArray) -> Iterator[tuple[slice, Float32Array]]:
    """Batches of responses (k, y', x') of images to a filter (band, s, s), minus infinity where pixels are missing.

    An image without a position whose pixels are all valid is taken as it is, 0 for what is missing.
    """
    h, w = level.shape
    size = kernel.shape[-1]
    placed = np.zeros((len(kernel), h, w), dtype=np.float32)
    placed[:, :size, :size] = kernel
    turned = np.conj(fft.rfft2(placed))
    step = max(1, _BATCH_BYTES // (4 * h * w))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        some = rows[part]
        spectra = fft.rfft2(level.images[some]) if level.spectra is None else level.spectra[some]
        product = spectra[:, 0] * turned[0] if len(kernel) == 1 else (spectra * turned).sum(axis=1)
        found = fft.irfft2(product, s=(h, w), overwrite_x=True)[:, : h - size + 1, : w - size + 1]
        if level.valid is not None:
            inside = _all_valid(level.valid[some], size)
            found = np.where(inside, found, np.float32(-np.inf))
        yield part, found


def _all_valid(valid: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Positions (k, y', x') whose size x size pixels are all valid; all positions of an image that has none."""
    total = np.pad((~valid).astype(np.int32), ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    missing = total[:, size:, size:] - total[:, :-size, size:] - total[:, size:, :-size] + total[:, :-size, :-size]
    inside = missing == 0
    return np.asarray(inside | ~inside.any(axis=(1, 2), keepdims=True))


def strongest(level: Level, rows: IntArray, kernel: FloatArray) -> FloatArray:
    """Largest response of each image to a filter (band, s, s), shape (len(rows),).

    Examples
    --------
    >>> image = np.zeros((1, 1, 8, 8), dtype=np.float32)
    >>> image[0, 0, 3:5, 3:5] = 2
    >>> strongest(make_level(image, None), np.array([0]), np.ones((1, 2, 2))).round(4)
    array([8.])
    """
    out = np.empty(len(rows))
    for part, found in _responses(level, rows, kernel):
        out[part] = found.max(axis=2).max(axis=1)
    return out


def scan(level: Level, rows: IntArray, kernel: FloatArray, n_top: int, block: int) -> tuple[FloatArray, IntArray]:
    """Largest response of each image, and the places of the largest responses, at most one a block of pixels.

    Returns
    -------
    largest : ndarray of shape (n,)
    places : ndarray of int of shape (n, n_top)
        Upper-left pixels as row * columns + column of the image; the first is that of the largest response. Where an
        image has fewer blocks the last ones repeat.
    """
    largest, places = np.empty(len(rows)), np.empty((len(rows), n_top), dtype=np.int64)
    width = level.shape[1]
    for part, found in _responses(level, rows, kernel):
        k, h, w = found.shape
        full = (-(-h // block) * block, -(-w // block) * block)
        if full != (h, w):
            found = np.pad(found, ((0, 0), (0, full[0] - h), (0, full[1] - w)), constant_values=-np.inf)
        tiles = found.reshape(k, full[0] // block, block, full[1] // block, block)
        high = _largest([found[:, j::block] for j in range(block)])
        value = _largest([high[:, :, j::block] for j in range(block)]).reshape(k, -1)
        take = min(n_top, value.shape[1])
        order = np.argpartition(-value, take - 1, axis=1)[:, :take]
        order = np.take_along_axis(order, np.argsort(-np.take_along_axis(value, order, 1), axis=1, kind="stable"), 1)
        best = np.take_along_axis(value, order, 1)
        down, across = np.divmod(order, full[1] // block)
        inner = tiles[np.arange(k)[:, None], down, :, across].reshape(k, take, -1).argmax(axis=2)
        place = (down * block + inner // block) * width + across * block + inner % block
        place = np.where(np.isfinite(best), place, place[:, :1])
        places[part] = np.pad(place, ((0, 0), (0, n_top - take)), mode="edge")
        largest[part] = best[:, 0]
    return largest, places


def _largest(parts: list[Float32Array]) -> Float32Array:
    """Largest of some arrays, element by element."""
    out = parts[0].copy()
    for part in parts[1:]:
        np.maximum(out, part, out=out)
    return out


def gather(level: Level, rows: IntArray, places: IntArray, size: int) -> Float32Array:
    """Patches (n, k, band * size * size) of images at places (n, k)."""
    windows = np.lib.stride_tricks.sliding_window_view(level.images, (size, size), axis=(2, 3))
    top, left = np.divmod(places, level.shape[1])
    return windows[rows[:, None], :, top, left].reshape(*places.shape, -1)
