"""Units as cells: the units of one image and one site share a cluster and count through six sums."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Sufficient statistics of cells, sorted by site.

    Attributes
    ----------
    image : ndarray of int of shape (c,)
        Image of each cell.
    start : ndarray of int of shape (g + 1,)
        First cell of each site; the last entry is the number of cells.
    count, mean, spread : ndarray of shape (c, 2)
        Sum of weights, weighted mean and weighted sum of squares about it, by arm.
    has_sites : bool
        Whether the outcome has site effects; without, every cell is a site of its own.
    """

    image: IntArray
    start: IntArray
    count: FloatArray
    mean: FloatArray
    spread: FloatArray
    has_sites: bool

    def take_sites(self, sites: IntArray) -> Cells:
        """Cells of some sites, in that order."""
        parts = [np.arange(self.start[g], self.start[g + 1]) for g in sites]
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        start = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        return replace(
            self,
            image=self.image[rows],
            start=start,
            count=self.count[rows],
            mean=self.mean[rows],
            spread=self.spread[rows],
        )


def make_cells(
    image: IntArray, site: IntArray | None, arm: IntArray, y: FloatArray, weight: FloatArray, *, share: bool
) -> tuple[Cells, IntArray]:
    """Sum units up.

    Parameters
    ----------
    image : ndarray of int of shape (n,)
        Image of each unit.
    site : ndarray of int of shape (n,) or None
        Site of each unit.
    arm : ndarray of int of shape (n,)
        0 or 1.
    y, weight : ndarray of shape (n,)
        Outcome and weight.
    share : bool
        Whether the units of one image and site share a cluster; else every unit is a cell.

    Returns
    -------
    cells : Cells
    unit_site : ndarray of int of shape (n,)
        Position of each unit's site among the cells' sites.

    Examples
    --------
    >>> image, site = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    >>> cells, _ = make_cells(image, site, np.array([0, 0, 1, 1]), np.arange(4.0), np.ones(4), share=True)
    >>> cells.count.tolist(), cells.mean.tolist(), cells.spread.tolist()
    ([[2.0, 0.0], [0.0, 2.0]], [[0.5, 0.0], [0.0, 2.5]], [[0.5, 0.0], [0.0, 0.5]])
    """
    n = len(y)
    unit = np.zeros(n, dtype=np.int64) if share else np.arange(n)
    keys = np.column_stack([image if site is None else site, image, unit])
    distinct, cell = np.unique(keys, axis=0, return_inverse=True)
    cell, c = cell.ravel(), len(distinct)
    flat = 2 * cell + arm
    count: FloatArray = np.bincount(flat, weight, minlength=2 * c).astype(float)
    total = np.bincount(flat, weight * y, minlength=2 * c)
    mean = total / np.where(count > 0, count, 1.0)
    spread: FloatArray = np.bincount(flat, weight * (y - mean[flat]) ** 2, minlength=2 * c).astype(float)
    labels = distinct[:, 0] if site is not None else np.arange(c)
    _, first, cell_site = np.unique(labels, return_index=True, return_inverse=True)
    cells = Cells(
        image=np.ascontiguousarray(distinct[:, 1]),
        start=np.append(first, c).astype(np.int64),
        count=count.reshape(c, 2),
        mean=mean.reshape(c, 2),
        spread=spread.reshape(c, 2),
        has_sites=site is not None,
    )
    return cells, cell_site.ravel()[cell].astype(np.int64)
