"""Random fields and grids: named random streams, fractal noise, box means, hill shading, drainage.

Functions on arrays; nothing here knows of bands, coordinates or trials.
"""

from __future__ import annotations

import heapq
import zlib

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Grid = NDArray[np.float32]
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def stream(seed: int, name: str) -> np.random.Generator:
    """Generator of its own for each named part, so that drawing more of one leaves the others as they were.

    Examples
    --------
    >>> bool(stream(0, "terrain").random() == stream(0, "terrain").random())
    True
    >>> bool(stream(0, "terrain").random() == stream(0, "forest").random())
    False
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),)))


def fractal(rng: np.random.Generator, size: int, roughness: float = 2.0, *, scale_px: float | None = None) -> Grid:
    """Fractal field by spectral synthesis, shape (size, size), mean 0 and standard deviation 1.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the white noise.
    size : int
        Side in pixels.
    roughness : float
        Amplitudes fall with spatial frequency f as ``f ** -roughness``; larger is smoother.
    scale_px : float, optional
        Largest wavelength in pixels; amplitudes are level above it, so the field has no trend longer than that.
    """
    n = fft.next_fast_len(size + size // 4, real=True)  # cropped: the synthesised field is periodic
    noise = fft.rfft2(rng.standard_normal((n, n), dtype=np.float32))
    frequency = np.hypot(fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None, :]).astype(np.float32)
    floor = 1.0 / (scale_px or n)
    noise *= np.maximum(frequency, floor) ** np.float32(-roughness)
    noise[0, 0] = 0.0
    field = fft.irfft2(noise, s=(n, n))[:size, :size]
    return ((field - field.mean()) / field.std()).astype(np.float32)


def box_mean(values: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """Mean over the ``size`` x ``size`` window around every pixel, over the part that lies inside the array.

    The window of pixel (r, c) has rows ``r - size // 2`` to ``r - size // 2 + size - 1``, and columns likewise.

    Examples
    --------
    >>> box_mean(np.arange(16.0).reshape(4, 4), 2)[1, 1]  # rows 0-1, columns 0-1
    np.float64(2.5)
    """
    summed = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    summed[1:, 1:] = values.cumsum(0, dtype=np.float64).cumsum(1)
    low, high = [], []
    for n in values.shape:
        start = np.arange(n) - size // 2
        low.append(np.clip(start, 0, n))
        high.append(np.clip(start + size, 0, n))
    rows, cols = (low[0][:, None], high[0][:, None]), (low[1][None, :], high[1][None, :])
    total = summed[rows[1], cols[1]] - summed[rows[0], cols[1]] - summed[rows[1], cols[0]] + summed[rows[0], cols[0]]
    return total / ((rows[1] - rows[0]) * (cols[1] - cols[0]))


def hillshade(elevation: Grid, resolution_m: float, azimuth: float = 135.0, altitude: float = 50.0) -> Grid:
    """Illumination relative to flat ground, shape of ``elevation`` (metres); ``azimuth`` clockwise from north."""
    d_row, d_col = np.gradient(elevation, resolution_m)
    sun, height = np.deg2rad(azimuth), np.deg2rad(altitude)
    east, north, up = np.sin(sun) * np.cos(height), np.cos(sun) * np.cos(height), np.sin(height)
    light = (up - east * d_col + north * d_row) / np.sqrt(1 + d_col**2 + d_row**2)
    return (np.maximum(light, 0.0) / up).astype(np.float32)


def drainage(elevation: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Downstream cell and upstream area of every cell, by priority flooding from the border.

    Every cell drains to the cell from which the flood reached it, so that depressions overflow at their lowest
    rim and all water leaves the grid (Barnes, Lehman and Mulla 2014, algorithm 1, with the flood tree kept).

    Returns
    -------
    downstream : ndarray of int of shape (cells,)
        Flat index of the next cell; a border cell that drains out is its own.
    area : ndarray of int of shape (cells,)
        Number of cells that drain through each cell, itself included.
    """
    rows, cols = elevation.shape
    height = elevation.ravel().tolist()
    downstream = np.arange(rows * cols)
    seen = bytearray(rows * cols)
    border = np.ones((rows, cols), bool)
    border[1:-1, 1:-1] = False
    heap = [(height[i], i) for i in np.flatnonzero(border).tolist()]
    for _, i in heap:
        seen[i] = 1
    heapq.heapify(heap)
    order = []
    while heap:
        level, i = heapq.heappop(heap)
        order.append(i)
        row, col = divmod(i, cols)
        for d_row, d_col in _NEIGHBOURS:
            r, c = row + d_row, col + d_col
            if 0 <= r < rows and 0 <= c < cols and not seen[j := r * cols + c]:
                seen[j] = 1
                downstream[j] = i
                heapq.heappush(heap, (max(level, height[j]), j))
    area = np.ones(rows * cols, dtype=np.int64)
    for i in reversed(order):
        if downstream[i] != i:
            area[downstream[i]] += area[i]
    return downstream, area


def draw_segments(start: NDArray[np.floating], stop: NDArray[np.floating], size: int) -> NDArray[np.bool_]:
    """Mask of shape (size, size) of the straight segments between two arrays of (row, column), each (n, 2)."""
    mask = np.zeros((size, size), bool)
    if len(start) == 0:
        return mask
    steps = int(np.ceil(np.abs(stop - start).max() * 1.5)) + 2
    share = np.linspace(0, 1, steps)[:, None, None]
    points = np.rint(start + share * (stop - start)).astype(int).reshape(-1, 2)
    points = points[((points >= 0) & (points < size)).all(axis=1)]
    mask[points[:, 0], points[:, 1]] = True
    return mask


def line_cover(mask: NDArray[np.bool_], width_px: float) -> Grid:
    """Share of each pixel covered by lines of ``width_px`` along a one-pixel mask (soft edges)."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    distance = ndimage.distance_transform_edt(~mask)
    return np.clip(width_px / 2 + 0.5 - distance, 0, min(1.0, width_px)).astype(np.float32)
