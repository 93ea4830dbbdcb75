"""Cross-fitted ridge regressions from the folds' cross-products: small solves, no pass over folds' rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FoldRidge", "fold_ridge"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PENALTIES = np.logspace(-3, 2, 11)


@dataclass(frozen=True, eq=False)
class FoldRidge:
    """Features with a constant, sorted by fold, for ridge regressions that leave each fold out.

    Attributes
    ----------
    design : ndarray of shape (n, k + 1)
        Constant and standardised features.
    bounds : tuple of slices
        Rows of each fold, in the order of ``order``.
    order : ndarray of int of shape (n,)
        Sorts the units by fold.
    weight : ndarray of shape (n,)
        Weights, in the order of the units.
    """

    design: FloatArray
    bounds: tuple[slice, ...]
    order: IntArray
    weight: FloatArray

    def predictions(self, target: FloatArray) -> FloatArray:
        """Out-of-fold ridge predictions of a target, shape (n,)."""
        coef = self._coefficients(self.design, target)
        return self._apply(coef)

    def priorities(self, y_residual: FloatArray, t_residual: FloatArray) -> FloatArray:
        """Out-of-fold effects, shape (n,), of the ridge R-learner (Nie and Wager 2021, equation 4).

        ``sum w (y~ - t~ (c + z b))^2 + lambda |b|^2``, lambda by cross-validation within the training folds.
        """
        coef = self._coefficients(self.design * t_residual[:, None], y_residual)
        return self._apply(coef)

    def _apply(self, coef: FloatArray) -> FloatArray:
        out = np.empty(len(self.order))
        for k, rows in enumerate(self.bounds):
            units = self.order[rows]
            out[units] = self.design[units] @ coef[k]
        return out

    def _coefficients(self, design: FloatArray, target: FloatArray) -> FloatArray:
        """Ridge coefficients without each fold, shape (fold, k + 1); the constant is not penalised."""
        gram, moment = [], []
        for rows in self.bounds:
            units = self.order[rows]
            weighted = design[units].T * self.weight[units]
            gram.append(weighted @ design[units])
            moment.append(weighted @ target[units])
        G, b = np.stack(gram), np.stack(moment)
        penalty = self._choose(G, b)
        train_G, train_b = G.sum(axis=0) - G, b.sum(axis=0) - b
        return _solve(train_G, train_b, penalty)

    def _choose(self, G: FloatArray, b: FloatArray) -> FloatArray:
        """Penalty of each held-out fold, shape (fold,), by leaving out each of the other folds in turn."""
        n_folds = len(G)
        if n_folds < 3:
            return np.full(n_folds, 1.0)
        total_G, total_b = G.sum(axis=0), b.sum(axis=0)
        outer, inner = np.nonzero(~np.eye(n_folds, dtype=bool))
        pair_G, pair_b = total_G - G[outer] - G[inner], total_b - b[outer] - b[inner]
        shape = (len(outer), len(PENALTIES))
        grid_G = np.broadcast_to(pair_G[:, None], (*shape, *G.shape[1:])).reshape(-1, *G.shape[1:])
        grid_b = np.broadcast_to(pair_b[:, None], (*shape, b.shape[1])).reshape(-1, b.shape[1])
        coef = _solve(grid_G, grid_b, np.tile(PENALTIES, len(outer))).reshape(*shape, -1)
        quadratic = np.einsum("pli,pij,plj->pl", coef, G[inner], coef)
        loss = quadratic - 2 * np.einsum("pli,pi->pl", coef, b[inner])
        by_fold = np.zeros((n_folds, len(PENALTIES)))
        np.add.at(by_fold, outer, loss)
        return np.asarray(PENALTIES[by_fold.argmin(axis=1)])


def _solve(G: FloatArray, b: FloatArray, penalty: FloatArray) -> FloatArray:
    """Ridge solutions, shape (m, k + 1); the penalty is a multiple of the features' mean cross-product."""
    k = G.shape[1] - 1
    scale = np.trace(G[:, 1:, 1:], axis1=1, axis2=2) / k
    scale = np.maximum(scale, 1e-300)
    diagonal = np.zeros(G.shape[:2])
    diagonal[:, 1:] = (penalty * scale)[:, None]
    diagonal[:, 0] = 1e-12 * np.maximum(G[:, 0, 0], 1e-300)
    ridged = G + diagonal[:, :, None] * np.eye(k + 1)
    return np.asarray(np.linalg.solve(ridged, b[:, :, None])[:, :, 0])


def fold_ridge(features: FloatArray, fold: IntArray, weight: FloatArray) -> FoldRidge:
    """Prepare ridge regressions that leave each fold out.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> Z, fold = rng.standard_normal((500, 2)), np.arange(500) % 5
    >>> ridge = fold_ridge(Z, fold, np.ones(500))
    >>> bool(np.corrcoef(ridge.predictions(Z[:, 0]), Z[:, 0])[0, 1] > 0.999)
    True
    """
    design = np.column_stack([np.ones(len(features)), features])
    order = np.argsort(fold, kind="stable")
    stops = np.cumsum(np.bincount(fold))
    bounds = tuple(slice(int(a), int(b)) for a, b in zip([0, *stops[:-1]], stops, strict=True) if b > a)
    return FoldRidge(design, bounds, order, weight)
