r"""Variance of clusters' scores about the means of their cells, for what an assignment fixes.

An estimate ``sum_i l_i y_i`` of a regression has the clusters' scores ``s_g = l_g' e_g``. Where so many clusters of a
cell (the arm of a stratum) were drawn, the mean score of the cell is no variance. With N the operator that takes
cells' means out,

.. math:: V = \sum_g (f_g (N s)_g)^2, \qquad f_g^2 = l_g' \Phi_g l_g / (N \, Var(s) \, N)_{gg},

is unbiased under a working model of the errors, :math:`\Phi = D^{1/2} (I + r J) D^{1/2}`: relative variances D that
are given, and r times that common to a cluster (:mod:`causalsat.inference.leverage`), estimated from residuals about
their cell's mean. Var(s) is a diagonal and a matrix of low rank. Degrees of freedom are Satterthwaite's for errors of
variance D / w.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causalsat.inference.leverage import (
    DENSE,
    SINGULAR,
    Coordinates,
    codes,
    common_variance,
    demean,
    diagonal,
    moments_of_sum,
    stacked,
    table,
)

__all__ = ["Centred", "centred_scores"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Spread = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Centred:
    """Scores of clusters about their cells' means, and moments of their squares.

    Attributes
    ----------
    scores : ndarray of shape (G, q)
        ``f_g (N s)_g``; 0 of a cluster that is alone in its cell.
    expected, variance : ndarrays of shape (q,)
        Expectation of V, and the variance of the estimate, under the working model: they differ by what clusters that
        are alone in their cell would add.
    trace, of_square : ndarrays of shape (q,)
        ``tr P`` and ``tr P^2`` for the degrees of freedom.
    ratio : float
        r of the working model.
    """

    scores: FloatArray
    expected: FloatArray
    variance: FloatArray
    trace: FloatArray
    of_square: FloatArray
    ratio: float


def centred_scores(
    design: Coordinates,
    influence: FloatArray,
    residual: FloatArray,
    cells: IntArray,
    noise: FloatArray,
    ratio: float | None,
) -> Centred:
    """Scores about their cells' means, scaled to be unbiased.

    Parameters
    ----------
    design : Coordinates
        A design without levels.
    influence : ndarray of shape (n, q)
        Influences l of the contrasts.
    residual, cells, noise : ndarrays of shape (n,)
        Residuals, cells (constant in a cluster) and relative variances D of the errors.
    ratio : float or None
        r; None estimates it.
    """
    root = np.sqrt(noise)
    if ratio is None:
        ratio = _common_ratio(design, residual / root, cells)
    working = replace(design, ratio=ratio)

    def spread(values: FloatArray) -> FloatArray:
        return root[:, None] * working.spread(root[:, None] * values)

    def efficient(values: FloatArray) -> FloatArray:
        return (noise / design.w)[:, None] * values

    cell, q = codes(cells[design.starts[:-1]]), influence.shape[1]
    scores = _less_mean(design.sums(influence * residual[:, None]), cell)
    expected, variance, trace, of_square = (np.zeros(q) for _ in range(4))
    for j in range(q):
        own = influence[:, [j]]
        target, low, core_low = _score_variance(design, own, cell, spread)
        seen = _centred_diagonal(target, cell) + (low * core_low).sum(axis=1)
        usable = seen > SINGULAR * np.maximum(target, 1e-300)
        factor = np.where(usable, np.sqrt(target / np.where(usable, seen, 1.0)), 0.0)
        scores[:, j] *= factor
        expected[j], variance[j] = target[usable].sum(), target.sum()
        trace[j], of_square[j] = _moments(factor, cell, *_score_variance(design, own, cell, efficient))
    return Centred(scores, expected, variance, trace, of_square, ratio)


def _common_ratio(design: Coordinates, residual: FloatArray, cells: IntArray) -> float:
    level = codes(cells)
    root = 1 / np.sqrt(np.bincount(level, design.w))
    about = demean(residual[:, None], design.w, level, len(root))[0][:, 0]
    return common_variance(replace(design, x=np.zeros((design.n, 0)), level=level, root=root), about)


def _score_variance(
    design: Coordinates, own: FloatArray, cell: IntArray, spread: Spread
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Parts d (G,), L and L M (G, 2k) of ``N Var(s) N = N diag(d) N + L M L'``, errors of covariance ``spread``."""
    y = spread(design.w[:, None] * design.x)
    omega, unit = (design.w[:, None] * design.x).T @ y, np.eye(design.k)
    middle = np.block([[omega, -unit], [-unit, 0 * unit]])
    low = _less_mean(design.sums(own * np.hstack([design.x, y])), cell)
    return design.sums(own * spread(own))[:, 0], low, low @ middle


def _less_mean(values: FloatArray, cell: IntArray) -> FloatArray:
    return demean(values, np.ones(len(cell)), cell, int(cell.max()) + 1)[0]


def _centred_diagonal(target: FloatArray, cell: IntArray) -> FloatArray:
    """Diagonal of ``N diag(d) N``."""
    count = np.bincount(cell)
    return np.asarray(target * (1 - 2 / count[cell]) + (np.bincount(cell, target) / count**2)[cell])


def _moments(
    factor: FloatArray, cell: IntArray, target: FloatArray, low: FloatArray, core_low: FloatArray
) -> tuple[float, float]:
    """``tr P`` and ``tr P^2`` of ``P = F (N diag(d) N + L M L') F``.

    ``N diag(d) N = diag(d) + S K S'`` with the cells' indicators and d times them as S.
    """
    count = np.bincount(cell)
    shape, dense = (len(cell), len(count)), (len(cell) + len(count)) * len(count) <= DENSE
    rows = np.arange(len(cell))
    levels = stacked([[table(rows, cell, factor * v, shape, dense) for v in (np.ones(len(cell)), target)]])
    mean, share = diagonal(np.bincount(cell, target) / count**2, dense), diagonal(1.0 / count, dense)
    core = stacked([[mean, -share], [-share, 0 * share]])
    return moments_of_sum(
        factor**2 * target, factor[:, None] * low, factor[:, None] * core_low, levels, levels @ core
    )
