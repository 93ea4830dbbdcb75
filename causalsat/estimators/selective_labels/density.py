r"""Log posterior density of the selective-labels model with uniform unobservables, and its gradient.

The model (Balachandar, Garg and Pierson 2024, section 3)::

    Y ~ Bernoulli(s(x'beta_Y + Z)),  T ~ Bernoulli(s(x'beta_Y + Z + x'beta_Delta)),  Z ~ U(0, sigma)

with Y seen where T = 1; by default the priors are beta_Y, beta_Delta ~ N(0, 3^2), sigma ~ half-normal(3)
(:mod:`causalsat.estimators.selective_labels.priors`). The prevalence constraint is a Gaussian on the model's implied
mean of P(Y = 1 | x) over the units, or one for each group of them whose prevalence is known; the expertise constraint
fixes entries of beta_Delta at zero.

Z is integrated out exactly (:mod:`causalsat.estimators.selective_labels.cells`). The sampled coordinates are
``(gamma, tau, u)`` with

    sigma = log(1 + exp(u)),  k = sqrt(1 + 0.0288 sigma^2),
    beta_Y = k gamma - (sigma / 2) e_0,  beta_Delta = k (tau - gamma),

tau = gamma where beta_Delta is zero: gamma is close to the logit of Y on x and tau to that of T on x, which the data
determine directly, where beta_Y0 and sigma are nearly collinear. u is linear in sigma where sigma is large and
logarithmic only near 0, which the data often cannot exclude: chains that move in log sigma get lost there. The priors
stay on the original parameters, with the Jacobian k^(D + F) (1 - exp(-sigma)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.core.inputs import select_columns
from causalsat.estimators.selective_labels.cells import (
    log_tested_positive,
    log_untested,
    log_untested_positive,
    logistic,
    positive,
    width,
)
from causalsat.estimators.selective_labels.prevalence import GroupPrevalence
from causalsat.estimators.selective_labels.priors import RISK_PRIORS, Priors

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CURVATURE = 0.0288  # 0.346 / 12: how much a uniform of width 1 flattens a logistic curve
NO_PREVALENCE = (0.0, np.inf)


@dataclass(frozen=True)
class SelectiveData:
    """What the density needs of the data.

    Attributes
    ----------
    X : ndarray of shape (n, p)
        Standardised features, a column of ones first.
    cell : ndarray of int of shape (n,)
        0 untested, 1 tested and negative, 2 tested and positive.
    weight : ndarray of shape (n,)
        Powers of the likelihood.
    free : ndarray of int
        Columns on which the decision may depend beyond risk (entries of beta_Delta that are not zero).
    prevalence : tuple of float
        Known mean of Y in the population, and its standard error (inf for none).
    priors : Priors
        Of the coefficients, sigma and alpha.
    groups : GroupPrevalence, optional
        Known prevalences of groups.
    """

    X: FloatArray
    cell: IntArray
    weight: FloatArray
    free: IntArray
    prevalence: tuple[float, float] = NO_PREVALENCE
    priors: Priors = RISK_PRIORS
    groups: GroupPrevalence | None = None

    @property
    def constraints(self) -> tuple[IntArray, FloatArray]:
        """Group of each unit in each column of groups (n, C), -1 for none; (mean, standard error) of groups (K, 2).

        A prevalence of all units is that of a group of all.
        """
        n = len(self.cell)
        codes, known = np.empty((n, 0), dtype=np.int64), np.empty((0, 2))
        if self.groups is not None:
            codes, known = self.groups.codes, self.groups.known
        if np.isfinite(self.prevalence[1]):
            codes = np.column_stack([codes, np.full(n, len(known))])
            known = np.vstack([known, self.prevalence])
        return np.ascontiguousarray(codes), known

    @property
    def n_parameters(self) -> int:
        """Length of the vector of coordinates."""
        return self.X.shape[1] + len(self.free) + 1

    def as_tuple(self) -> tuple[Any, ...]:
        """Plain arrays for the compiled density, in its order."""
        p, priors = self.X.shape[1], self.priors
        normal = np.vstack([priors.coefficients("risk", p), priors.coefficients("decision", p)])
        scales = np.array([priors.scale("sigma"), priors.mean("alpha"), priors.scale("alpha")])
        return self.X, self.cell, self.weight, self.free, *self.constraints, normal, scales


def free_columns(names: Sequence[str], expertise: Any) -> IntArray:
    """Columns of the design on which the decision may depend beyond the outcome; the intercept, 0, always.

    Parameters
    ----------
    names : sequence of str of length p
        Names of the features, the columns after the intercept.
    expertise : None, str or sequence of str or int
        Names, patterns or positions of features; None for all, an empty list for none.

    Examples
    --------
    >>> free_columns(["age", "sex"], ["sex"]), free_columns(["age", "sex"], [])
    (array([0, 2]), array([0]))
    """
    return np.append(0, 1 + select_columns(names, expertise, role="expertise"))


@dataclass(frozen=True)
class Coefficients:
    """Draws of the parameters: ``risk`` and ``decision`` (draw, p), ``sigma`` and ``alpha`` (draw,)."""

    risk: FloatArray
    decision: FloatArray
    sigma: FloatArray
    alpha: FloatArray


def coefficients(coordinates: FloatArray, n_columns: int, free: IntArray) -> Coefficients:
    """Parameters beta_Y, beta_Delta and sigma from coordinates of shape (draw, coordinate)."""
    sigma = np.logaddexp(0.0, coordinates[:, -1])
    k = np.sqrt(1.0 + CURVATURE * sigma**2)[:, None]
    gamma, tau = coordinates[:, :n_columns], coordinates[:, n_columns:-1]
    risk = k * gamma
    risk[:, 0] -= sigma / 2
    decision = np.zeros_like(risk)
    decision[:, free] = k * (tau - gamma[:, free])
    return Coefficients(risk, decision, sigma, np.ones(len(sigma)))


@njit(cache=True, error_model="numpy")
def log_prior(beta, delta, free, normal):  # type: ignore[no-untyped-def]
    """Log normal priors of the coefficients, and their gradients in beta_Y and beta_Delta (0 where that is fixed).

    ``normal`` of shape (4, p): mean and sd of beta_Y, mean and sd of beta_Delta.
    """
    value, by_beta, by_delta = 0.0, np.empty(len(beta)), np.zeros(len(beta))
    for j in range(len(beta)):
        z = (beta[j] - normal[0, j]) / normal[1, j]
        value -= 0.5 * z * z
        by_beta[j] = -z / normal[1, j]
    for j in free:
        z = (delta[j] - normal[2, j]) / normal[3, j]
        value -= 0.5 * z * z
        by_delta[j] = -z / normal[3, j]
    return value, by_beta, by_delta


@njit(cache=True, error_model="numpy")
def pull_to_prevalence(codes, known, weight, share, share_by_risk, share_by_sigma):  # type: ignore[no-untyped-def]
    """Log density of known prevalences at the implied ones, and its derivatives in each unit's risk and in sigma.

    ``codes`` (n, C) and ``known`` (K, 2) as :attr:`SelectiveData.constraints`; ``share`` (n,) is P(Y = 1) of each
    unit, with its derivatives in the unit's risk and in sigma.
    """
    n, n_groups = len(weight), len(known)
    total, mean, by_sigma = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
    for i in range(n):
        for k in codes[i]:
            if k >= 0:
                total[k] += weight[i]
                mean[k] += weight[i] * share[i]
                by_sigma[k] += weight[i] * share_by_sigma[i]
    value, slope, pull = 0.0, 0.0, np.zeros(n_groups)
    for k in range(n_groups):
        error = (mean[k] / total[k] - known[k, 0]) / known[k, 1]
        value -= 0.5 * error * error
        pull[k] = error / known[k, 1] / total[k]
        slope -= pull[k] * by_sigma[k]
    by_risk = np.zeros(n)
    for i in range(n):
        for k in codes[i]:
            if k >= 0:
                by_risk[i] -= pull[k] * weight[i] * share_by_risk[i]
    return value, by_risk, slope


@njit(cache=True, error_model="numpy")
def log_density(x, X, cell, weight, free, codes, known, normal, scales):  # type: ignore[no-untyped-def]
    """Log posterior density at coordinates x, shape (p + free + 1,), and its gradient.

    ``codes`` and ``known`` as in :func:`pull_to_prevalence`; ``normal`` as in :func:`log_prior`; ``scales``: that of
    sigma first.
    """
    n, p = X.shape
    f = free.shape[0]
    u = x[p + f]
    sigma = np.log1p(np.exp(-abs(u))) + max(u, 0.0)
    wide = width(sigma)
    k = np.sqrt(1.0 + CURVATURE * sigma * sigma)
    k_slope = CURVATURE * sigma / k
    beta, delta = k * x[:p], np.zeros(p)
    beta[0] -= sigma / 2.0
    for j in range(f):
        delta[free[j]] = k * (x[p + j] - x[free[j]])
    risk, shift = X @ beta, X @ delta
    by_risk, by_shift, by_sigma = np.empty(n), np.empty(n), 0.0
    logp = 0.0
    constrained = len(known) > 0
    size = n if constrained else 0
    share, share_by_risk, share_by_sigma = np.empty(size), np.empty(size), np.empty(size)
    for i in range(n):
        a, d, w = risk[i], shift[i], weight[i]
        if cell[i] == 0:
            value, one, two, three = log_untested(a, d, wide)
        elif cell[i] == 1:
            value, one, two, three = log_untested_positive(a, d, wide)
            value, two = value + d, two + 1.0
        else:
            value, one, two, three = log_tested_positive(a, d, wide)
        logp += w * value
        by_risk[i], by_shift[i] = w * one, w * two
        by_sigma += w * three
        if constrained:
            share[i], share_by_risk[i], share_by_sigma[i] = positive(a, wide)
    if constrained:
        pulled, by_share, slope = pull_to_prevalence(codes, known, weight, share, share_by_risk, share_by_sigma)
        logp += pulled
        by_risk += by_share
        by_sigma += slope
    prior, prior_by_beta, prior_by_delta = log_prior(beta, delta, free, normal)
    g_beta, g_delta = by_risk @ X + prior_by_beta, by_shift @ X + prior_by_delta
    logp += prior - 0.5 * (sigma / scales[0]) ** 2
    logp += (p + f) * np.log(k) + wide[4]
    grad = np.zeros(p + f + 1)
    grad[:p] = k * g_beta
    by_sigma += k_slope * np.dot(g_beta, x[:p]) - g_beta[0] / 2.0
    for j in range(f):
        grad[free[j]] -= k * g_delta[free[j]]
        grad[p + j] = k * g_delta[free[j]]
        by_sigma += k_slope * g_delta[free[j]] * (x[p + j] - x[free[j]])
    by_sigma += (p + f) * k_slope / k - sigma / scales[0] ** 2
    grad[p + f] = by_sigma * wide[2] + logistic(-u)
    return logp, grad


@njit(cache=True, error_model="numpy")
def positive_probability(logit, sigma):  # type: ignore[no-untyped-def]
    """Mean of s(logit + Z), shape (draw, unit): P(Y = 1) of the risk's logit, P(T = 1) of the decision's."""
    out = np.empty(logit.shape)
    for s in range(logit.shape[0]):
        wide = width(sigma[s])
        for i in range(logit.shape[1]):
            out[s, i] = positive(logit[s, i], wide)[0]
    return out


@njit(cache=True, error_model="numpy")
def both_probability(risk, shift, sigma):  # type: ignore[no-untyped-def]
    """P(T = 1, Y = 1), shape (draw, unit); risk and shift (draw, unit), sigma (draw,)."""
    out = np.empty(risk.shape)
    for s in range(risk.shape[0]):
        wide = width(sigma[s])
        for i in range(risk.shape[1]):
            out[s, i] = np.exp(log_tested_positive(risk[s, i], shift[s, i], wide)[0])
    return out


def starting_point(data: SelectiveData) -> FloatArray:
    """Coordinates from which the mode is sought: marginal logits of the outcome and of the decision."""
    start = np.zeros(data.n_parameters)
    tested = data.cell > 0
    for place, share in (
        (0, np.average(data.cell[tested] == 2, weights=data.weight[tested])),
        (data.X.shape[1], np.average(tested, weights=data.weight)),
    ):
        share = float(np.clip(share, 0.01, 0.99))
        start[place] = np.log(share / (1.0 - share))
    start[-1] = 1.0
    return start
