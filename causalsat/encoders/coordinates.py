"""The place among the features: its coordinates, and smooth functions of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

COORDINATES = ("east", "north")
MARGIN = 0.1  # of the extent of the training places, around them
HALF_WAVES = {f"wave_e{i}n{s - i}": (i, s - i) for s in (2, 3) for i in range(s + 1)}
WAVES = tuple(HALF_WAVES)
PLACE = COORDINATES + WAVES


def names_of(coordinates: bool | str) -> tuple[str, ...]:
    """Names of the columns that a setting of ``coordinates`` adds."""
    if coordinates == "smooth":
        return PLACE
    return COORDINATES if coordinates else ()


def learn_box(east: FloatArray, north: FloatArray) -> FloatArray:
    """Corner and extent, shape (2, 2), of the box around places, with a margin; an extent of zero becomes one."""
    low = np.array([east.min(), north.min()])
    extent = np.array([np.ptp(east), np.ptp(north)])
    return np.array([low - MARGIN * extent, np.where(extent > 0, (1 + 2 * MARGIN) * extent, 1.0)])


def waves(east: FloatArray, north: FloatArray, box: FloatArray) -> dict[str, FloatArray]:
    """Products of cosines with two or three half waves across the box, of about unit variance over it.

    They are the eigenfunctions of the Laplace operator on the box with free edges, after the constant and the first
    ones, which the coordinates stand for. Outside the box they keep the value of its nearest point.

    Examples
    --------
    >>> box = learn_box(np.array([0.0, 10.0]), np.array([0.0, 10.0]))
    >>> {name: round(float(v[0]), 2) for name, v in waves(np.array([5.0]), np.array([5.0]), box).items()}
    {'wave_e0n2': -1.41, 'wave_e1n1': 0.0, 'wave_e2n0': -1.41, 'wave_e0n3': -0.0, 'wave_e1n2': -0.0, \
'wave_e2n1': -0.0, 'wave_e3n0': -0.0}
    """
    x, y = (np.clip((v - box[0, k]) / box[1, k], 0, 1) for k, v in enumerate((east, north)))
    return {name: np.sqrt(2) * np.cos(np.pi * i * x) * np.cos(np.pi * j * y) for name, (i, j) in HALF_WAVES.items()}
