r"""Bayesian linear regression on the network's features: the loss that trains them, and the posterior at the end.

For features Phi (n, F) of one member, standardised outcomes y, weights w and villages g,

.. math:: y_i = \phi_i^\top \beta + u_{g(i)} + e_i, \quad \beta_f \sim N(0, s_{b(f)}^2),
          \quad u_g \sim N(0, \omega^2), \quad e_i \sim N(0, \sigma^2 / w_i),

with one prior scale s_b for each block of columns. Coefficients are integrated out in training: the loss is the
negative log evidence of a batch, in which a feature counts by what it adds whatever its coefficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["EvidenceLoss", "Head", "draw_deviations", "draw_mixing", "fit_heads", "village_components"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SPEED = 3.0  # prior scales and noise learn faster than the network's weights
START = (
    0.0,
    0.0,
    -1.0,
    -1.0,
    -1.5,
)  # log prior scales of the blocks: constant, treatment, covariates, learned, crossed
MIN_NOISE = 1e-3  # of the outcome's standard deviation


class EvidenceLoss(nn.Module):
    """Training: negative log evidence of a batch, a unit. Evaluation: squared error of each member's held-out units.

    ``targets`` are (B, 2 + M): outcome, weight, and whether each member trains on the unit.
    """

    def __init__(self, members: int, groups: list[int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(START).repeat(members, 1) / SPEED)
        self.noise = nn.Parameter(torch.full((members,), -0.5 / SPEED))
        self.groups: torch.Tensor
        self.register_buffer("groups", torch.tensor(groups), persistent=False)

    def hyper(self) -> tuple[Any, Any]:
        """Log prior scale of each column (M, F) and log noise (M,)."""
        return (SPEED * self.scale)[:, self.groups], (SPEED * self.noise).clamp_min(float(np.log(MIN_NOISE)))

    def forward(self, outputs: Any, targets: Any) -> Any:
        """Negative log marginal likelihood of the outcomes, the head integrated out."""
        y, weight, used = targets[:, 0], targets[:, 1], targets[:, 2:].T
        log_scale, log_noise = self.hyper()
        w = weight * used
        precision = w * torch.exp(-2 * log_noise)[:, None]
        features = outputs * torch.exp(log_scale)[:, None]
        factor, half = _solve(features, precision, y)
        if self.training:
            n = w.sum(dim=1).clamp_min(1e-6)
            fit = 0.5 * ((precision * y**2).sum(dim=1) - (half**2).sum(dim=1))
            volume = torch.diagonal(factor, dim1=1, dim2=2).log().sum(dim=1)
            return ((fit + volume) / n + log_noise).mean()
        beta = torch.linalg.solve_triangular(factor.mT, half[..., None], upper=True)
        rest = weight * (1 - used)
        error = (features @ beta)[..., 0] - y
        return (rest * error**2).sum() / rest.sum().clamp_min(1e-6)


def _solve(features: Any, precision: Any, y: Any) -> tuple[Any, Any]:
    """Cholesky factor L of I + Phi' W Phi, and L^-1 Phi' W y, for each member."""
    gram = torch.einsum("mnf,mng->mfg", features * precision[..., None], features)
    factor = torch.linalg.cholesky(gram + torch.eye(features.shape[2], dtype=features.dtype, device=features.device))
    right = torch.einsum("mnf,mn->mf", features, precision * y)
    return factor, torch.linalg.solve_triangular(factor, right[..., None], upper=False)[..., 0]


@dataclass(frozen=True)
class Head:
    """Posterior of one member's coefficients.

    Attributes
    ----------
    mean : ndarray of shape (F,)
        Posterior mean.
    root : ndarray of shape (F, F)
        A square root of the posterior covariance: covariance = root root'.
    """

    mean: FloatArray
    root: FloatArray


def posterior(
    features: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    groups: IntArray | None,
    scale: FloatArray,
    noise: float,
    village: float,
) -> Head:
    """Posterior of the coefficients; villages are integrated out.

    Parameters
    ----------
    features : ndarray of shape (n, F)
    y, weight : ndarrays of shape (n,)
    groups : ndarray of int of shape (n,) or None
    scale : ndarray of shape (F,)
        Prior standard deviations.
    noise, village : float
        Standard deviations of noise and villages.
    """
    z = features * scale
    w = weight / noise**2
    gram, right = (z * w[:, None]).T @ z, z.T @ (w * y)
    if groups is not None and village > 0:
        total = np.bincount(groups, w)
        shrink = np.sqrt(village**2 / (1 + village**2 * total))
        sums = np.zeros((len(total), z.shape[1]))
        np.add.at(sums, groups, z * w[:, None])
        outcome = shrink * np.bincount(groups, w * y)
        sums = sums * shrink[:, None]
        gram, right = gram - sums.T @ sums, right - sums.T @ outcome
    values, vectors = np.linalg.eigh(gram + np.eye(len(gram)))
    root = (
        vectors / np.sqrt(np.maximum(values, 1e-10))
    ) @ vectors.T  # the symmetric one: no sign is left to rounding
    return Head(scale * (root @ (root @ right)), scale[:, None] * root)


def village_components(residual: FloatArray, weight: FloatArray, groups: IntArray | None) -> tuple[float, float]:
    """Standard deviations of noise and of village effects that make held-out residuals most likely.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> g = np.repeat(np.arange(300), 10)
    >>> r = 2.0 * rng.standard_normal(300)[g] + rng.standard_normal(3000)
    >>> [round(v, 1) for v in village_components(r, np.ones(3000), g)]
    [1.0, 2.0]
    """
    plain = float(np.sqrt(np.average(residual**2, weights=weight)))
    if groups is None or plain <= MIN_NOISE:
        return max(plain, MIN_NOISE), 0.0
    from scipy.optimize import minimize

    live = weight > 0
    total, mass = np.bincount(groups, weight), float(live.sum())
    square, first = float(np.sum(weight * residual**2)), np.bincount(groups, weight * residual)

    def loss(theta: FloatArray) -> float:
        noise, village = np.exp(2 * theta)
        ratio = 1 + village * total / noise
        inner = square / noise - np.sum(village * (first / noise) ** 2 / ratio)
        return float(inner + mass * np.log(noise) + np.sum(np.log(ratio)))

    low, high = np.log(MIN_NOISE * 0.1), np.log(10 * plain)
    result = minimize(loss, np.log(plain) + np.array([-0.2, -1.0]), method="L-BFGS-B", bounds=[(low, high)] * 2)
    noise, village = np.exp(result.x)
    return max(float(noise), MIN_NOISE), float(village)


def fit_heads(
    features: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    used: NDArray[np.bool_],
    groups: IntArray | None,
    scale: FloatArray,
    noise: FloatArray,
) -> tuple[list[Head], float, float, FloatArray]:
    """Posterior of every member's coefficients from all units, with noise and villages from held-out residuals.

    A member's features have seen the units on which it trained, so their residuals are too small. The noise is that
    of the units which a member did not see; it holds what the features miss as well.

    Parameters
    ----------
    features : ndarray of shape (M, n, F)
    y, weight : ndarrays of shape (n,)
    used : ndarray of bool of shape (M, n)
        Units on which each member trained.
    groups : ndarray of int of shape (n,) or None
    scale : ndarray of shape (M, F)
        Prior standard deviations.
    noise : ndarray of shape (M,)
        Noise in training.

    Returns
    -------
    heads : list of Head
    noise, village : float
        Standard deviations.
    residual : ndarray of shape (n,)
        Held-out residuals; NaN for units on which all members trained.
    """
    residual, count = np.zeros(len(y)), np.zeros(len(y))
    for phi, s, mask, sd in zip(features, scale, used, noise, strict=True):
        out = ~mask
        if out.any():
            beta = posterior(phi, y, weight * mask, None, s, float(sd), 0.0).mean
            residual[out] += y[out] - phi[out] @ beta
            count[out] += 1
    seen = count > 0
    residual = np.where(seen, residual / np.maximum(count, 1), np.nan)
    codes = None if groups is None else groups[seen]
    sd, village = village_components(residual[seen], weight[seen], codes)
    heads = [posterior(phi, y, weight, groups, s, sd, village) for phi, s in zip(features, scale, strict=True)]
    return heads, sd, village, residual


def draw_deviations(heads: list[Head], n_draws: int, rng: np.random.Generator) -> list[FloatArray]:
    """Draws of each member's coefficients less their mean, (F, S_m), in antithetic pairs; ``n_draws`` in all."""
    edges = np.linspace(0, n_draws, len(heads) + 1).astype(int)
    out = []
    for head, count in zip(heads, np.diff(edges), strict=True):
        half = rng.standard_normal((len(head.mean), (count + 1) // 2))
        z = np.concatenate([half, -half], axis=1)[:, :count]
        out.append(head.root @ z)
    return out


def draw_mixing(n_members: int, n_draws: int, rng: np.random.Generator) -> FloatArray:
    r"""Weights (draw, M) of the members' distances from their mean; rows come in antithetic pairs.

    The truth is taken to lie among M members of mean :math:`\bar f` as one more of them would: its variance around
    :math:`\bar f` is :math:`(1 + 1/M) s^2` with :math:`s^2 = \sum_m (f_m - \bar f)^2 / (M - 1)`. A draw is
    :math:`\bar f + \sum_m a_m (f_m - \bar f)` with independent normal :math:`a_m` of variance
    :math:`(1 + 1/M) / (M - 1)`, which has that variance for every unit and treatment at once. A single network has no
    such spread, and gets zeros.

    Examples
    --------
    >>> f = np.array([1.0, 2.0, 4.0])
    >>> a = draw_mixing(3, 100_000, np.random.default_rng(0))
    >>> round(float(np.var(a @ (f - f.mean())) / (f.var(ddof=1) * 4 / 3)), 2)
    1.0
    """
    if n_members == 1:
        return np.zeros((n_draws, 1))
    half = rng.standard_normal(((n_draws + 1) // 2, n_members))
    scale = np.sqrt((1 + 1 / n_members) / (n_members - 1))
    return np.asarray(scale * np.concatenate([half, -half])[:n_draws])
