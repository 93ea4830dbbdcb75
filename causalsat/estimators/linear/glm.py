r"""Log density of the linear effect model where the outcome is not Gaussian.

The predictor and its priors are those of :mod:`causalsat.estimators.linear.density`, the likelihoods those of
:mod:`causalsat.estimators.linear.families`; scales of a logit are multiplied by pi / sqrt(3), the standard
deviation of the logistic distribution. The sampler's coordinates are ``x = (phi, coefficients, village effects)``
with the latter two standardised by a rough conditional posterior given their prior variance v: a coefficient of
which the data give information a and estimate b is ``a b v / (1 + a v) + sqrt(v / (1 + a v)) x``, centred where
the data are strong and non-centred where the prior is (Papaspiliopoulos, Roberts and Skoeld 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.estimators.linear import families as linear_families
from causalsat.estimators.linear.data import LinearDesign
from causalsat.estimators.linear.density import LEAST_VARIANCE, Layout, prior_scales, pull_back
from causalsat.estimators.linear.families import log_likelihood

FloatArray = NDArray[np.float64]

NEWTON_STEPS = 12


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def glm_log_density(  # type: ignore[no-untyped-def]
    x, layout, rows, y, weight, random, group, n_groups, arm, offset, held, information, estimate
):
    """Log posterior density of x = (phi, standardised coefficients and village effects) and its gradient."""
    n_arms, k, family = layout[0], layout[1], layout[7]
    n, q = rows.shape
    d = q + n_groups * k
    n_phi = x.shape[0] - d
    phi = x[:n_phi]
    prior_variance, logp, d_phi = prior_scales(phi, layout)
    variance, theta, scale, data = np.empty(d), np.empty(d), np.empty(d), np.empty(d)
    variance[:q] = prior_variance
    for j in range(q, d):
        variance[j] = max(phi[n_arms + (j - q) % k] ** 2, LEAST_VARIANCE)
    for j in range(d):
        ratio = information[j] * variance[j]
        data[j] = ratio / (1.0 + ratio)  # 0: all prior, 1: all data
        scale[j] = np.sqrt(variance[j] / (1.0 + ratio))
        theta[j] = data[j] * estimate[j] + scale[j] * x[n_phi + j]
        logp -= 0.5 * np.log1p(ratio) + 0.5 * theta[j] ** 2 / variance[j]
    eta = rows @ theta[:q]
    residual = np.empty(n)
    for i in range(n):
        eta[i] += offset
        for j in range(k):
            eta[i] += random[i, j] * theta[q + group[i] * k + j]
    logp += log_likelihood(eta, y, weight, arm, phi, held, family, residual, d_phi)
    slope = np.zeros(d)
    slope[:q] = residual @ rows
    for i in range(n):
        for j in range(k):
            slope[q + group[i] * k + j] += random[i, j] * residual[i]
    grad = np.empty(x.shape[0])
    by_log_variance = np.empty(d)
    for j in range(d):
        slope[j] -= theta[j] / variance[j]
        grad[n_phi + j] = scale[j] * slope[j]
        moved = (1.0 - data[j]) * (data[j] * estimate[j] + 0.5 * scale[j] * x[n_phi + j])
        by_log_variance[j] = slope[j] * moved + 0.5 * theta[j] ** 2 / variance[j] - 0.5 * data[j]
    for j in range(k):
        u = phi[n_arms + j]
        if abs(u) > 1e-100:
            d_phi[n_arms + j] += 2.0 / u * np.sum(by_log_variance[q + j :: k])
    pull_back(d_phi, by_log_variance[:q], phi, layout)
    grad[:n_phi] = d_phi
    return logp, grad


def random_rows(design: LinearDesign, layout: Layout) -> FloatArray:
    """Random-effect rows (1) or (1, t), shape (n, k)."""
    return np.ascontiguousarray(np.column_stack([np.ones(len(design.y)), design.t])[:, : layout.n_random])


def ridge_mode(rows: FloatArray, design: LinearDesign, layout: Layout) -> tuple[FloatArray, FloatArray]:
    """Coefficients at the mode of a ridge fit that ignores villages (Fisher scoring), and the dispersions there."""
    y, w, q, family = design.y, design.weight, rows.shape[1], layout.family
    theta, dispersion = np.zeros(q), np.ones(design.n_arms)
    for step in range(NEWTON_STEPS):
        eta = design.offset + rows @ theta
        score, curvature = linear_families.score_and_information(eta, y, dispersion[design.arm], family)
        hessian = (rows * (w * curvature)[:, None]).T @ rows + np.eye(q)
        move = np.linalg.solve(hessian, rows.T @ (w * score) - theta)
        theta = theta + np.clip(move, -1, 1)
        if step % 3 == 2:
            dispersion = linear_families.moment_dispersion(design.offset + rows @ theta, design, family)
        if np.abs(move).max() < 1e-6 and step > 5:
            break
    return theta, dispersion


def pilot(rows: FloatArray, design: LinearDesign, layout: Layout) -> tuple[FloatArray, FloatArray]:
    """What the data say of each coefficient and village effect: information and estimate, each of shape (d,).

    Coefficients by a ridge fit that ignores villages, village effects by one step from there. They only choose the
    sampler's coordinates: no value of them changes the posterior.
    """
    w, q, k = design.weight, rows.shape[1], layout.n_random
    theta, dispersion = ridge_mode(rows, design, layout)
    eta = design.offset + rows @ theta
    score, curvature = linear_families.score_and_information(eta, design.y, dispersion[design.arm], layout.family)
    hessian = (rows * (w * curvature)[:, None]).T @ rows + np.eye(q)
    information = 1.0 / np.diag(np.linalg.inv(hessian))
    if k == 0:
        return information, theta
    assert design.group is not None
    size, random = design.n_groups, random_rows(design, layout)
    seen, step = np.zeros((size, k)), np.zeros((size, k))
    for j in range(k):
        seen[:, j] = np.bincount(design.group, w * curvature * random[:, j] ** 2, size)
        step[:, j] = np.bincount(design.group, w * score * random[:, j], size)
    guess = np.clip(step / np.maximum(seen, 1e-6), -3, 3)
    return np.concatenate([information, seen.ravel()]), np.concatenate([theta, guess.ravel()])


def arguments(layout: Layout, design: LinearDesign) -> tuple[Any, ...]:
    """Arguments that follow x in :func:`glm_log_density`, in order."""
    group = np.zeros(len(design.y), dtype=np.int64) if design.group is None else design.group
    rows = np.ascontiguousarray(design.rows)
    return (
        layout.as_tuple(),
        rows,
        design.y,
        design.weight,
        random_rows(design, layout),
        group,
        design.n_groups,
        design.arm,
        float(design.offset),
        linear_families.constants(design, layout.family),
        *pilot(rows, design, layout),
    )


def coefficients(draws: FloatArray, layout: Layout, information: FloatArray, estimate: FloatArray) -> FloatArray:
    """Coefficients, shape (draw, q), from draws of x."""
    n_phi, q = layout.n_scales, layout.n_coefficients
    variance = np.array([prior_scales(phi, layout.as_tuple())[0] for phi in draws[:, :n_phi].copy()])
    ratio = information[:q] * variance
    spread = np.sqrt(variance / (1.0 + ratio))
    return np.asarray(ratio / (1.0 + ratio) * estimate[:q] + spread * draws[:, n_phi : n_phi + q])
