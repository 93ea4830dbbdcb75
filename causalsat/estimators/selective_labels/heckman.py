r"""Log posterior density of the selection model for a continuous outcome, and its gradient.

The model (Heckman 1979, as in Balachandar, Garg and Pierson 2024, appendix B)::

    Y = x'beta_Y + Z,   T = 1 where x'beta_T + e > 0,   (Z, e) normal, sd (sigma, 1), correlation r

with Y seen where T = 1. With alpha = r / sigma, the decision is that of someone who sees the outcome,
T = 1 where alpha Y + x'beta_Delta + (rest) > 0, beta_Delta = beta_T - alpha beta_Y: where it departs from the
outcome. Priors, for standardised features and an outcome of unit variance among the tested, by default: beta_Y,
beta_Delta ~ N(0, 3^2), sigma half-normal(3), r uniform (:mod:`causalsat.estimators.selective_labels.priors`). A known
population mean (m, se) is a Gaussian on the mean of x'beta_Y.

The sampled coordinates are ``(beta_Y, beta_T where free, log sigma, w)`` with r = tanh(w): w, which only the
curvature of the inverse Mills ratio determines where every feature is free, comes last, as
:mod:`causalsat.inference.mode_path` asks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.selective_labels.density import NO_PREVALENCE
from causalsat.estimators.selective_labels.priors import OUTCOME_PRIORS, Priors

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_W = 8.0  # |w| beyond which r is 1 in floating point


@dataclass(frozen=True)
class HeckmanData:
    """What the density needs of the data.

    Attributes
    ----------
    X : ndarray of shape (n, p)
        Standardised features, a column of ones first.
    y : ndarray of shape (n,)
        Outcome in standard deviations of the tested; anything where untested.
    tested : ndarray of bool of shape (n,)
        Who was tested.
    weight : ndarray of shape (n,)
        Powers of the likelihood.
    free : ndarray of int
        Columns on which the decision may depend beyond the outcome.
    mean : tuple of float
        Known population mean of Y, in the units of ``y``, and its standard error (inf for none).
    priors : Priors
        Of the coefficients, sigma and the correlation.
    """

    X: FloatArray
    y: FloatArray
    tested: NDArray[np.bool_]
    weight: FloatArray
    free: IntArray
    mean: tuple[float, float] = NO_PREVALENCE
    priors: Priors = OUTCOME_PRIORS

    @property
    def n_parameters(self) -> int:
        """Length of the vector of coordinates."""
        return self.X.shape[1] + len(self.free) + 2


@dataclass(frozen=True)
class HeckmanDraws:
    """Draws: ``outcome`` and ``decision`` (draw, p), beta_Y and beta_T; ``sigma`` and ``correlation`` (draw,)."""

    outcome: FloatArray
    decision: FloatArray
    sigma: FloatArray
    correlation: FloatArray

    @property
    def departure(self) -> FloatArray:
        """beta_Delta, shape (draw, p), in probits."""
        return self.decision - (self.correlation / self.sigma)[:, None] * self.outcome


def unpack(coordinates: FloatArray, n_columns: int, free: IntArray) -> HeckmanDraws:
    """Parameters of coordinates of shape (draw, coordinate)."""
    beta = coordinates[:, :n_columns]
    sigma, r = np.exp(coordinates[:, -2]), np.tanh(coordinates[:, -1])
    decision = (r / sigma)[:, None] * beta
    decision[:, free] = coordinates[:, n_columns:-2]
    return HeckmanDraws(beta, decision, sigma, r)


def log_density(x: FloatArray, data: HeckmanData) -> tuple[float, FloatArray]:
    """Log posterior density at coordinates x, shape (p + free + 2,), and its gradient."""
    p, free, tested, w = data.X.shape[1], data.free, data.tested, data.weight
    if abs(x[-1]) > MAX_W or abs(x[-2]) > 50.0:
        return -np.inf, np.zeros_like(x)
    parameters = unpack(x[None], p, free)
    beta, total = parameters.outcome[0], parameters.decision[0]
    sigma, r = float(parameters.sigma[0]), float(parameters.correlation[0])
    alpha, k = r / sigma, np.cosh(x[-1])  # k = 1 / sqrt(1 - r^2)
    t = data.X @ total
    e = np.where(tested, (data.y - data.X @ beta) / sigma, 0.0)
    inside = np.where(tested, k * (t + r * e), -t)
    log_cdf, mills = log_normal_cdf(inside)
    seen = w * tested
    logp = w @ log_cdf - seen.sum() * x[-2] - 0.5 * seen @ e**2
    by_t = w * mills * np.where(tested, k, -1.0)
    by_e = seen * (r * k * mills - e)
    by_r = float(seen @ (mills * k**3 * (e + r * t)))
    g_beta, g_total = -(by_e @ data.X) / sigma, by_t @ data.X
    departure = total - alpha * beta
    of_outcome, of_decision = data.priors.coefficients("outcome", p), data.priors.coefficients("decision", p)[:, free]
    pull, pull_free = (beta - of_outcome[0]) / of_outcome[1], (departure[free] - of_decision[0]) / of_decision[1]
    logp -= 0.5 * (pull @ pull + pull_free @ pull_free)
    g_beta -= pull / of_outcome[1]
    by_departure = pull_free / of_decision[1]
    g_total[free] -= by_departure
    if data.mean[1] < np.inf:
        share = w @ data.X / w.sum()
        error = (share @ beta - data.mean[0]) / data.mean[1]
        logp -= 0.5 * error**2
        g_beta -= error / data.mean[1] * share
    # beta_T follows beta_Y where the decision is that of an expert; elsewhere beta_Delta's prior holds alpha
    rest = np.ones(p, dtype=bool)
    rest[free] = False
    by_alpha = float(beta[rest] @ g_total[rest] + beta[free] @ by_departure)
    g_beta[rest] += alpha * g_total[rest]
    g_beta[free] += alpha * by_departure
    scale, eta = data.priors.scale("sigma"), data.priors.scale("correlation")
    by_log_sigma = float(-seen.sum() - by_e @ e) - alpha * by_alpha + 1.0 - (sigma / scale) ** 2
    by_w = (by_r + by_alpha / sigma) / k**2 - 2.0 * eta * r
    logp += x[-2] - 0.5 * (sigma / scale) ** 2 - 2.0 * eta * np.log(k)  # d r / d w = 1 - r^2
    return float(logp), np.concatenate([g_beta, g_total[free], [by_log_sigma, by_w]])


def log_normal_cdf(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log of the normal distribution function, and its derivative, the inverse Mills ratio."""
    from scipy.special import log_ndtr

    value = log_ndtr(z)
    return value, np.exp(-0.5 * z**2 - value) / np.sqrt(2.0 * np.pi)


def starting_point(data: HeckmanData) -> FloatArray:
    """Coordinates from which the mode is sought: least squares on the tested, the share tested, no correlation."""
    w = np.sqrt(data.weight * data.tested)
    rows = np.vstack([w[:, None] * data.X, np.diag(1.0 / data.priors.coefficients("outcome", data.X.shape[1])[1])])
    beta = np.linalg.lstsq(rows, np.append(w * data.y, np.zeros(data.X.shape[1])), rcond=None)[0]
    start = np.zeros(data.n_parameters)
    start[: len(beta)] = beta
    start[len(beta)] = 1.2 * (np.average(data.tested, weights=data.weight) - 0.5) * 2
    return start
