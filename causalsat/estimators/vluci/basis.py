"""Flexible functions of the covariates: linear, smooth and product columns, each kind with a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.features import learn_scaler
from causalsat.core.inputs import FloatArray

__all__ = ["Basis", "learn_basis"]

IntArray = NDArray[np.int64]

LINEAR, SMOOTH, PRODUCT = 0, 1, 2
KNOTS = (0.1, 0.3, 0.5, 0.7, 0.9)
N_SMOOTH, MAX_SMOOTH, MAX_PRODUCTS = 3, 60, 200


@dataclass(frozen=True, eq=False)
class Basis:
    """Columns of functions of p covariates, learned from training units.

    Attributes
    ----------
    mean, sd : ndarray of shape (p,)
        Standardisation; sd 0 marks a constant covariate, which is left out.
    knots : ndarray of shape (k, 5)
        Knots of the smooth functions of the k covariates in ``smooth``.
    weights : ndarray of shape (k, 8, 3)
        Three smooth functions of each in terms of 1, z, z^2 and the cubic hinges.
    linear, smooth : ndarray of int
        Covariates with linear columns, and those with smooth ones.
    products : ndarray of int of shape (m, 2)
        Pairs whose products are columns.
    limits : ndarray of shape (2, p)
        Range of the training units: beyond it, functions stay at their value at the border.
    """

    mean: FloatArray
    sd: FloatArray
    knots: FloatArray
    weights: FloatArray
    linear: IntArray
    smooth: IntArray
    products: IntArray
    limits: FloatArray

    @property
    def kinds(self) -> IntArray:
        """Kind of each column: 0 linear, 1 smooth, 2 product."""
        sizes = (len(self.linear), N_SMOOTH * len(self.smooth), len(self.products))
        return np.repeat([LINEAR, SMOOTH, PRODUCT], sizes)

    def apply(self, X: FloatArray) -> FloatArray:
        """Columns (n, q) for covariates (n, p)."""
        z = (X - self.mean) / np.where(self.sd > 0, self.sd, 1.0)
        inner = np.clip(z, *self.limits)
        smooth = [_hinges(inner[:, j], self.knots[i]) @ self.weights[i] for i, j in enumerate(self.smooth)]
        products = inner[:, self.products[:, 0]] * inner[:, self.products[:, 1]]
        return np.column_stack([z[:, self.linear], *smooth, products])


def _hinges(z: FloatArray, knots: FloatArray) -> FloatArray:
    return np.column_stack([np.ones_like(z), z, z**2, np.maximum(z[:, None] - knots, 0.0) ** 3])


def learn_basis(X: FloatArray) -> Basis:
    """Basis for covariates (n, p).

    Linear columns, three smooth ones for each where there are at most n / 20 (and 60) covariates, and products of
    pairs where there are at most n / 10 (and 200) of them.

    Examples
    --------
    >>> X = np.random.default_rng(0).standard_normal((400, 3))
    >>> basis = learn_basis(X)
    >>> basis.apply(X).shape, np.bincount(basis.kinds).tolist()
    ((400, 15), [3, 9, 3])
    """
    n, p = X.shape
    scaler = learn_scaler(X)
    mean, sd = scaler.mean, np.where(scaler.varies, scaler.scale, 0.0)
    z = (X - mean) / scaler.scale_or_one
    linear = np.flatnonzero(scaler.varies)
    n_values = np.array([len(np.unique(z[:, j])) for j in linear], dtype=int)
    smooth = linear[n_values >= 6] if p <= min(n / 20, MAX_SMOOTH) else linear[:0]
    pairs = np.array([(i, j) for a, i in enumerate(linear) for j in linear[:a]], dtype=np.int64).reshape(-1, 2)
    products = pairs if len(pairs) <= min(n / 10, MAX_PRODUCTS) else pairs[:0]
    knots = np.quantile(z[:, smooth], KNOTS, axis=0).T.reshape(len(smooth), len(KNOTS))
    weights = np.array([_smooth_weights(z[:, j], knots[i]) for i, j in enumerate(smooth)]).reshape(-1, 8, N_SMOOTH)
    limits = np.stack([z.min(axis=0), z.max(axis=0)])
    return Basis(mean, sd, knots, weights, linear, smooth, products, limits)


def _smooth_weights(z: FloatArray, knots: FloatArray) -> FloatArray:
    """The three leading smooth functions that are orthogonal to 1 and z, of unit variance; shape (8, 3)."""
    columns = _hinges(z, knots)
    onto_line = np.linalg.lstsq(columns[:, :2], columns[:, 2:], rcond=None)[0]
    bent = columns[:, 2:] - columns[:, :2] @ onto_line
    _, size, axes = np.linalg.svd(bent, full_matrices=False)
    scale = np.sqrt(len(z)) / np.maximum(size[:N_SMOOTH], 1e-9 * size[0] + 1e-300)
    turned = axes[:N_SMOOTH].T * np.where(size[:N_SMOOTH] > 1e-6 * size[0], scale, 0.0)
    return np.vstack([-onto_line @ turned, turned])
