r"""The fused lasso towards proportional odds: loss, gradient, path over penalties.

With ordered classes 1 .. K and :math:`P(y \le k | x) = s(\alpha_k + \beta_k'x)`, k = 1 .. K - 1, the objective is

.. math:: -\frac1n \sum_i \log P(y_i | x_i) + \lambda \left(\sum_j |\beta_{1j}|
          + \sum_{k \ge 2} \sum_j |\beta_{kj} - \beta_{k-1,j}|\right)

a lasso in :math:`\theta_1 = \beta_1, \theta_k = \beta_k - \beta_{k-1}`: at large :math:`\lambda` the classes share
their slopes, as in the proportional-odds model. Each theta is a difference of two non-negative numbers, so that
scipy's L-BFGS-B finds exact zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FLOOR = 1e-6  # below it the log of a probability goes on as its tangent: crossing curves cost much, not infinity
MAX_STEPS = 300


@dataclass(frozen=True)
class Ordinal:
    """Intercepts (K - 1,) and slopes (K - 1, p) of the cumulative logits."""

    intercepts: FloatArray
    slopes: FloatArray

    def cumulative(self, X: FloatArray) -> FloatArray:
        """P(y <= k), shape (n, K - 1), made increasing in k where the curves cross."""
        from scipy.special import expit

        return np.maximum.accumulate(expit(self.intercepts + X @ self.slopes.T), axis=1)

    def probabilities(self, X: FloatArray) -> FloatArray:
        """P(y = k), shape (n, K)."""
        edges = np.column_stack([np.zeros(len(X)), self.cumulative(X), np.ones(len(X))])
        return np.diff(edges, axis=1)


def loss_and_gradient(
    intercepts: FloatArray, slopes: FloatArray, X: FloatArray, code: IntArray, weight: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Mean negative log likelihood, and its gradients in intercepts (K - 1,) and slopes (K - 1, p)."""
    from scipy.special import expit

    n, top = len(X), len(intercepts)
    logit = intercepts + X @ slopes.T
    edges = np.column_stack([np.zeros(n), expit(logit), np.ones(n)])
    rows = np.arange(n)
    p = edges[rows, code + 1] - edges[rows, code]
    inside = np.maximum(p, FLOOR)
    value = np.where(p >= FLOOR, np.log(inside), np.log(FLOOR) + (p - FLOOR) / FLOOR)
    by_p = weight / (inside * weight.sum())
    density = edges[:, 1:-1] * (1.0 - edges[:, 1:-1])
    upper = code[:, None] == np.arange(top)
    lower = code[:, None] == np.arange(top) + 1
    by_logit = -by_p[:, None] * density * (upper.astype(float) - lower)
    return -float(weight @ value / weight.sum()), by_logit.sum(axis=0), by_logit.T @ X


def fit_one(
    X: FloatArray, code: IntArray, weight: FloatArray, penalty: float, start: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Intercepts (K - 1,) and theta (K - 1, p) at one penalty, from a start."""
    from scipy.optimize import minimize

    top, p = start[1].shape

    def objective(v: FloatArray) -> tuple[float, FloatArray]:
        theta = (v[top : top + top * p] - v[top + top * p :]).reshape(top, p)
        value, by_intercept, by_slope = loss_and_gradient(v[:top], np.cumsum(theta, axis=0), X, code, weight)
        by_theta = np.cumsum(by_slope[::-1], axis=0)[::-1].ravel()
        penalised = value + penalty * float(v[top:].sum())
        return penalised, np.concatenate([by_intercept, by_theta + penalty, penalty - by_theta])

    theta = start[1].ravel()
    first = np.concatenate([start[0], np.maximum(theta, 0.0), np.maximum(-theta, 0.0)])
    bounds = [(None, None)] * top + [(0.0, None)] * (2 * top * p)
    options = {"maxiter": MAX_STEPS, "ftol": 1e-8, "gtol": 1e-6}
    found = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return found[:top], (found[top : top + top * p] - found[top + top * p :]).reshape(top, p)


def null_start(code: IntArray, weight: FloatArray, n_classes: int, p: int) -> tuple[FloatArray, FloatArray]:
    """Intercepts of the classes' shares, and no slopes."""
    share = np.bincount(code, weight, minlength=n_classes) + 0.5
    below = np.cumsum(share / share.sum())[:-1]
    return np.log(below) - np.log1p(-below), np.zeros((n_classes - 1, p))


def largest_penalty(X: FloatArray, code: IntArray, weight: FloatArray, n_classes: int) -> float:
    """Least penalty at which every slope is 0."""
    intercepts, slopes = null_start(code, weight, n_classes, X.shape[1])
    _, _, by_slope = loss_and_gradient(intercepts, slopes, X, code, weight)
    return float(np.abs(np.cumsum(by_slope[::-1], axis=0)).max())


def fit_path(
    X: FloatArray, code: IntArray, weight: FloatArray, n_classes: int, penalties: FloatArray
) -> list[Ordinal]:
    """Fits at decreasing penalties, each from the last."""
    start, out = null_start(code, weight, n_classes, X.shape[1]), []
    for penalty in penalties:
        start = fit_one(X, code, weight, float(penalty), start)
        out.append(Ordinal(start[0], np.cumsum(start[1], axis=0)))
    return out
