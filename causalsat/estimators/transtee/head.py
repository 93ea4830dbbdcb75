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

from causalsat.estimators.transtee.families import (
    MIN_DISPERSION,
    Family,
    information,
    likeliest_village,
    log_likelihood,
    mean_outcome,
)

__all__ = [
    "EvidenceLoss",
    "Head",
    "Heads",
    "LogisticEvidence",
    "draw_deviations",
    "draw_mixing",
    "fit_heads",
    "fit_logistic_heads",
    "village_components",
]

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
BOUND_STEPS = 3  # towards the points at which the bound of a logistic likelihood is tight
TEMPERS = (1.0, 1.5, 2.0, 3.0, 5.0)  # by which a logistic likelihood may be divided
MAX_NEWTON = 40


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


class LogisticEvidence(EvidenceLoss):
    """The same for yes/no outcomes and counts, under the quadratic bound of :mod:`families`.

    Evaluation: minus the mean log likelihood of each member's held-out units. The noise is the dispersion of counts.
    """

    def __init__(self, members: int, groups: list[int], family: str, offset: float) -> None:
        super().__init__(members, groups)
        self.family, self.offset = family, offset

    def forward(self, outputs: Any, targets: Any) -> Any:
        """Bound of the negative log marginal likelihood of the outcomes, the head integrated out."""
        y, weight, used = targets[:, 0], targets[:, 1], targets[:, 2:].T
        log_scale, log_noise = self.hyper()
        features = outputs * torch.exp(log_scale)[:, None]
        b, kappa, log_size, constant = self._weights(y, log_noise)
        w, place = weight * used, self.offset - log_size
        with torch.no_grad():
            xi = torch.ones_like(w)
            for _ in range(BOUND_STEPS):
                curve = b * _curvature(xi)
                factor, half = _solve(features, 2 * w * curve, (kappa - 2 * curve * place) / (2 * curve))
                beta = torch.linalg.solve_triangular(factor.mT, half[..., None], upper=True)
                spread = torch.linalg.solve_triangular(factor, features.mT, upper=False)
                xi = torch.sqrt(((features @ beta)[..., 0] + place) ** 2 + (spread**2).sum(dim=1))
        curve = b * _curvature(xi)
        factor, half = _solve(features, 2 * w * curve, (kappa - 2 * curve * place) / (2 * curve))
        if self.training:
            n = w.sum(dim=1).clamp_min(1e-6)
            at_place = kappa * place - curve * (place**2 - xi**2) - b * _log_cosh(xi) + constant
            volume = torch.diagonal(factor, dim1=1, dim2=2).log().sum(dim=1)
            return ((volume - 0.5 * (half**2).sum(dim=1) - (w * at_place).sum(dim=1)) / n).mean()
        beta = torch.linalg.solve_triangular(factor.mT, half[..., None], upper=True)
        psi = (features @ beta)[..., 0] + place
        rest = weight * (1 - used)
        return -(rest * (kappa * psi - b * _log_cosh(psi) + constant)).sum() / rest.sum().clamp_min(1e-6)

    def _weights(self, y: Any, log_noise: Any) -> tuple[Any, Any, Any, Any]:
        """b, kappa, log r and what of the log likelihood is no function of psi; shapes that broadcast to (M, B)."""
        if self.family == "bernoulli":
            one = torch.ones_like(y)[None]
            return one, (y - 0.5)[None], torch.zeros_like(log_noise)[:, None], torch.zeros_like(one)
        log_size = -2 * log_noise.clamp_min(float(np.log(MIN_DISPERSION)))[:, None]
        r = torch.exp(log_size)
        constant = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1)
        return y + r, 0.5 * (y - r), log_size, constant


def _curvature(xi: Any) -> Any:
    """tanh(xi / 2) / (4 xi), 1/8 at 0."""
    xi = xi.abs().clamp_min(1e-4)
    return torch.tanh(0.5 * xi) / (4 * xi)


def _log_cosh(psi: Any) -> Any:
    """Log of 2 cosh(psi / 2)."""
    return 0.5 * psi.abs() + torch.log1p(torch.exp(-psi.abs()))


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


@dataclass(frozen=True)
class Heads:
    """Posterior of every member's coefficients.

    Attributes
    ----------
    heads : list of Head
    noise, village : float
        Standard deviations of held-out noise (dispersion of counts; NaN of yes/no outcomes) and of villages.
    residual : ndarray of shape (n,)
        Held-out residuals; NaN for units on which all members trained.
    """

    heads: list[Head]
    noise: float
    village: float
    residual: FloatArray


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
) -> Heads:
    """Posterior of every member's coefficients from all units, with noise and villages from held-out residuals.

    A member's features have seen the units on which it trained, so their residuals are too small. The noise is that
    of the units which a member did not see; what the features miss is in it as well.

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
    return Heads(heads, sd, village, residual)


def logistic_posterior(
    features: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    groups: IntArray | None,
    scale: FloatArray,
    family: Family,
    village: float,
    offset: float,
) -> Head:
    """Laplace's approximation to the posterior of the coefficients for yes/no outcomes and counts.

    Villages are integrated out of the quadratic approximation at the mode.

    Parameters
    ----------
    features : ndarray of shape (n, F)
    y, weight : ndarrays of shape (n,)
    groups : ndarray of int of shape (n,) or None
    scale : ndarray of shape (F,)
        Prior standard deviations.
    family : Family
    village : float
        Standard deviation of villages on the predictor.
    offset : float
        The predictor where all features are 0.
    """
    codes = groups if groups is not None and village > 0 else None
    beta, own = np.zeros(features.shape[1]), np.zeros(0 if codes is None else int(codes.max()) + 1)

    def height(beta: FloatArray, own: FloatArray) -> float:
        eta = offset + features @ beta + (0.0 if codes is None else own[codes])
        prior = float(((beta / scale) ** 2).sum()) + (float((own**2).sum()) / village**2 if len(own) else 0.0)
        return float(weight @ log_likelihood(y, eta, family)) - 0.5 * prior

    def step(beta: FloatArray, own: FloatArray) -> tuple[Head, FloatArray]:
        """Posterior by the quadratic approximation here, and the villages' effects under it."""
        linear = features @ beta + (0.0 if codes is None else own[codes])
        info, score = information(offset + linear, y, family)
        working, mass = linear + score / info, weight * info
        head = posterior(features, working, mass, codes, scale, 1.0, village)
        if codes is None:
            return head, own
        rest = np.bincount(codes, mass * (working - features @ head.mean))
        return head, village**2 * rest / (1 + village**2 * np.bincount(codes, mass))

    now = height(beta, own)
    for _ in range(MAX_NEWTON):
        head, target = step(beta, own)
        size = 1.0
        while (there := height(beta + size * (head.mean - beta), own + size * (target - own))) < now and size > 1e-3:
            size /= 2
        beta, own, gain = beta + size * (head.mean - beta), own + size * (target - own), there - now
        now = there
        if gain < 1e-6 * (1 + abs(now)):
            break
    return step(beta, own)[0]


def fit_logistic_heads(
    features: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    used: NDArray[np.bool_],
    groups: IntArray | None,
    scale: FloatArray,
    family: Family,
    offset: float,
) -> Heads:
    """The same as :func:`fit_heads` for yes/no outcomes and counts.

    A member's features have seen the units on which it trained. What noise is to a normal outcome, the temper is
    here: the likelihood is divided by the number under which members predict best what they did not see.

    Parameters
    ----------
    features, y, weight, used, groups, scale
        As in :func:`fit_heads`.
    family : Family
        With the dispersion of counts in training.
    offset : float
        The predictor where all features are 0.
    """
    n_out = np.maximum((~used).sum(axis=0), 1)
    seen = (~used).any(axis=0)

    def held_out(temper: float) -> FloatArray:
        eta = np.zeros(len(y))
        for phi, s, mask in zip(features, scale, used, strict=True):
            head = logistic_posterior(phi, y, weight * mask / temper, None, s, family, 0.0, offset)
            eta += np.where(mask, 0.0, phi @ head.mean) / n_out
        return (offset + eta)[seen]

    best, eta, temper = -np.inf, np.zeros(0), 1.0
    for candidate in TEMPERS:
        out = held_out(candidate)
        fit = float(weight[seen] @ log_likelihood(y[seen], out, family))
        if fit <= best:
            break
        best, eta, temper = fit, out, candidate
    codes = None if groups is None else groups[seen]
    chosen, village = likeliest_village(y[seen], eta, weight[seen], codes, family.name)
    heads = [
        logistic_posterior(phi, y, weight / temper, groups, s, chosen, village, offset)
        for phi, s in zip(features, scale, strict=True)
    ]
    residual = np.full(len(y), np.nan)
    residual[seen] = y[seen] - mean_outcome(eta, village, family.name)
    noise = chosen.dispersion if family.name == "negative_binomial" else float("nan")
    return Heads(heads, noise, village, residual)


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
