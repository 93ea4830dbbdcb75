"""Loops over the draws of a map's cells: each draw is read once for all that is asked of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["moments"]

FloatArray = NDArray[np.float64]


def moments(draws: NDArray[Any]) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.float32]]:
    """Mean, standard deviation and share above 0 of draws (draw, n), each (n,), and the draws (n, draw) as float32.

    Examples
    --------
    >>> mean, sd, above, single = moments(np.array([[1.0], [-1.0], [3.0]]))
    >>> mean, sd, above.round(3), single
    (array([1.]), array([2.]), array([0.667]), array([[ 1., -1.,  3.]], dtype=float32))
    """
    cells = np.ascontiguousarray(draws.T)  # no copy where the draws of a cell lie side by side
    mean, sd, above = np.empty((3, len(cells)))
    single = np.empty(cells.shape, dtype=np.float32)
    _moments(cells, mean, sd, above, single)
    return mean, sd, above, single


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _moments(cells, mean, sd, above, single):  # type: ignore[no-untyped-def]
    n_draws = cells.shape[1]
    for cell in range(cells.shape[0]):
        total, count = 0.0, 0
        for k in range(n_draws):
            value = cells[cell, k]
            total += value
            count += value > 0
            single[cell, k] = value
        centre, squares = total / n_draws, 0.0
        for k in range(n_draws):
            squares += (cells[cell, k] - centre) ** 2
        mean[cell], sd[cell], above[cell] = centre, np.sqrt(squares / max(n_draws - 1, 1)), count / n_draws
