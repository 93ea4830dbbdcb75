r"""Families of outcomes: likelihoods in the predictor eta, their mean and what an outcome must look like.

::

    bernoulli           P(y = 1) = logistic(eta)
    negative_binomial   E y = mu = exp(eta),  var y = mu + d^2 mu^2     (d = 0: Poisson)
    gamma               E y = mu = exp(eta),  var y = d^2 mu^2

with one dispersion d for each arm, which takes the place of the noise: for counts the sampler's coordinate is d
itself with a sign, so that the Poisson limit is an inner point; for gamma it is log d. Counts are negative binomial
and not Poisson because a Poisson likelihood claims to know the variance, and its intervals are too narrow wherever
counts cluster; where they do not, d goes to nearly zero by itself. Positive outcomes are gamma and not lognormal
because effects are differences of means: the gamma score ``(y - mu) / mu`` is unbiased for the mean whatever the
distribution, and small values do not weigh on it, where the logarithms of a few near-zero earnings can decide a
lognormal fit and its mean hangs on the residual's tails.
"""

from __future__ import annotations

from math import lgamma

import numpy as np
from numba import njit
from numpy.typing import NDArray

from causalsat.estimators.linear.data import LinearDesign
from causalsat.estimators.linear.density import BERNOULLI, GAMMA, GAUSSIAN, NEGATIVE_BINOMIAL
from causalsat.exceptions import DataError

FloatArray = NDArray[np.float64]

NODES = 7  # Gauss-Hermite nodes for averages of a probability over villages
LARGEST_COUNT = 1_000_000
DISPERSION_FLOOR = 1e-6  # variance of a gamma outcome with mean one


def check_outcome(y: FloatArray, family: str) -> None:
    """Raise DataError for an outcome that the family cannot have.

    Examples
    --------
    >>> import numpy as np
    >>> check_outcome(np.array([0.0, 3.0]), "negative_binomial")
    """
    n, shown = len(y), f"an outcome with values from {y.min():g} to {y.max():g} for family={family!r}"
    if family == "bernoulli" and not np.isin(y, (0.0, 1.0)).all():
        raise DataError(shown, expected="0 and 1", todo="recode it, or use family='gaussian'")
    if family == "negative_binomial":
        if (y < 0).any() or (y != np.floor(y)).any() or y.max() > LARGEST_COUNT:
            raise DataError(
                shown,
                expected=f"counts 0, 1, 2, ... up to {LARGEST_COUNT:,}",
                todo="use family='gamma' for positive amounts or family='gaussian'",
            )
        if y.max() == 0:
            raise DataError("counts that are all zero", expected="some events", todo="use family='gaussian'")
    if family == "gamma" and (y <= 0).any():
        zeros = int((y == 0).sum())
        only_zeros = zeros > 0 and (y >= 0).all()
        raise DataError(
            f"{zeros} of {n} outcomes that are zero for family='gamma'" if only_zeros else shown,
            expected="outcomes above zero",
            todo="use family='negative_binomial' for counts, family='gaussian' for amounts with zeros, or model "
            "whether there is any amount (bernoulli) and how much where there is (gamma) apart",
        )


# ---------------------------------------------------------------------- likelihoods
def constants(design: LinearDesign, family: int) -> FloatArray:
    """What a likelihood needs of the outcomes once, one row an arm.

    Counts: the weight of units with more than k events, k = 0, 1, ...; gamma: sums of weights and of weighted
    logarithms.
    """
    n_arms, y, w = design.n_arms, design.y, design.weight
    if family == NEGATIVE_BINOMIAL:
        top = int(y.max())
        out = np.zeros((n_arms, top))
        for a in range(n_arms):
            mine = design.arm == a
            held = np.bincount(y[mine].astype(np.int64), w[mine], top + 1)
            out[a] = held[::-1].cumsum()[::-1][1:]
        return out
    if family == GAMMA:
        log_y = w * np.log(y)
        return np.array([[w[design.arm == a].sum(), log_y[design.arm == a].sum()] for a in range(n_arms)])
    return np.zeros((1, 1))


@njit(cache=True, error_model="numpy")
def digamma(x):  # type: ignore[no-untyped-def]
    """Derivative of log Gamma at x > 0: upward recurrence, then Stirling's series."""
    out = 0.0
    while x < 8.0:
        out -= 1.0 / x
        x += 1.0
    z = 1.0 / (x * x)
    series = z * (1.0 / 12.0 - z * (1.0 / 120.0 - z * (1.0 / 252.0 - z * (1.0 / 240.0 - z / 132.0))))
    return out + np.log(x) - 0.5 / x - series


@njit(cache=True, error_model="numpy")
def _log_ratio(x):  # type: ignore[no-untyped-def]
    """log(1 + x) / x and (log(1 + x) - x / (1 + x)) / x^2, by series near zero."""
    if x < 1e-3:
        first = 1.0 - x * (0.5 - x * (1.0 / 3.0 - x * (0.25 - 0.2 * x)))
        return first, 0.5 - x * (2.0 / 3.0 - x * (0.75 - x * (0.8 - x * 5.0 / 6.0)))
    log = np.log1p(x)
    return log / x, (log - x / (1.0 + x)) / (x * x)


@njit(cache=True, error_model="numpy")
def log_likelihood(eta, y, weight, arm, phi, held, family, residual, grad):  # type: ignore[no-untyped-def]
    """Log likelihood; fills the slopes in eta and adds those in the dispersions' coordinates to grad."""
    n, logp = eta.shape[0], 0.0
    if family == BERNOULLI:
        for i in range(n):
            tail = np.exp(-np.abs(eta[i]))
            logp += weight[i] * (y[i] * eta[i] - max(eta[i], 0.0) - np.log1p(tail))
            p = 1.0 / (1.0 + tail) if eta[i] >= 0 else tail / (1.0 + tail)
            residual[i] = weight[i] * (y[i] - p)
        return logp
    n_arms = held.shape[0]
    by_arm = np.zeros(n_arms)
    if family == NEGATIVE_BINOMIAL:
        for i in range(n):
            alpha, mu = phi[arm[i]] ** 2, np.exp(eta[i])
            first, second = _log_ratio(alpha * mu)
            # y log(1 + alpha mu) + log(1 + alpha mu) / alpha
            logp += weight[i] * (y[i] * eta[i] - (alpha * y[i] + 1.0) * mu * first)
            residual[i] = weight[i] * (y[i] - mu) / (1.0 + alpha * mu)
            by_arm[arm[i]] += weight[i] * mu * (mu * second - y[i] / (1.0 + alpha * mu))
        for a in range(n_arms):
            alpha = phi[a] ** 2
            for k in range(held.shape[1]):
                logp += held[a, k] * np.log1p(k * alpha)
                by_arm[a] += held[a, k] * k / (1.0 + k * alpha)
            grad[a] += 2.0 * phi[a] * by_arm[a]
        return logp
    for i in range(n):
        a = arm[i]
        nu = 1.0 / (DISPERSION_FLOOR + np.exp(2.0 * phi[a]))
        ratio = y[i] * np.exp(-eta[i])
        logp -= weight[i] * nu * (eta[i] + ratio)
        by_arm[a] -= weight[i] * (eta[i] + ratio)
        residual[i] = weight[i] * nu * (ratio - 1.0)
    for a in range(n_arms):
        squared = np.exp(2.0 * phi[a])
        nu = 1.0 / (DISPERSION_FLOOR + squared)
        logp += held[a, 0] * (nu * np.log(nu) - lgamma(nu)) + nu * held[a, 1]
        by_nu = by_arm[a] + held[a, 0] * (np.log(nu) + 1.0 - digamma(nu)) + held[a, 1]
        grad[a] -= 2.0 * by_nu * nu * nu * squared
    return logp


def score_and_information(
    eta: FloatArray, y: FloatArray, dispersion: FloatArray | float, family: int
) -> tuple[FloatArray, FloatArray]:
    """Slope of the log likelihood in eta and its expected curvature, each of shape (n,), for weight one."""
    if family == BERNOULLI:
        p = 1.0 / (1.0 + np.exp(-np.clip(eta, -30, 30)))
        return y - p, np.maximum(p * (1 - p), 1e-6)
    mu = np.exp(np.clip(eta, -30, 30))
    if family == NEGATIVE_BINOMIAL:
        shrink = 1.0 + np.square(dispersion) * mu
        return (y - mu) / shrink, mu / shrink
    nu = 1.0 / (DISPERSION_FLOOR + np.square(dispersion))
    return nu * (y / mu - 1.0), np.zeros_like(mu) + nu


def moment_dispersion(eta: FloatArray, design: LinearDesign, family: int) -> FloatArray:
    """Dispersion of each arm by moments around fitted means, shape (arm,); ones for a binary outcome."""
    out = np.ones(design.n_arms)
    if family == BERNOULLI:
        return out
    mu = np.exp(np.clip(eta, -30, 30))
    for a in range(design.n_arms):
        mine = design.arm == a
        y, m, w = design.y[mine], mu[mine], design.weight[mine]
        if family == NEGATIVE_BINOMIAL:
            out[a] = np.sqrt(max(float(w @ ((y - m) ** 2 - y)), 0.0) / max(float(w @ m**2), 1e-12))
        else:
            out[a] = np.sqrt(max(float(w @ (y / m - 1.0) ** 2) / max(float(w.sum()), 1e-12), 1e-4))
    return np.minimum(out, 10.0)


# ---------------------------------------------------------------------- means and single outcomes
def mean_outcome(eta: FloatArray, spread: FloatArray, family: int) -> FloatArray:
    """Mean outcome over villages whose effects on the predictor have that standard deviation; (draw, unit)."""
    if family == GAUSSIAN:
        return eta
    if family == BERNOULLI:
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        return np.asarray(average_probability(eta, spread, nodes, weights / weights.sum()))
    return np.exp(np.clip(eta + 0.5 * spread**2, -700, 700))


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def average_probability(eta, spread, nodes, weights):  # type: ignore[no-untyped-def]
    """Mean over villages of logistic(eta + spread z), z standard normal; eta and spread of shape (draw, unit)."""
    out = np.zeros_like(eta)
    for d in range(eta.shape[0]):
        for i in range(eta.shape[1]):
            total = 0.0
            if spread[d, i] < 1e-3:
                total = 1.0 / (1.0 + np.exp(-eta[d, i]))
            else:
                for m in range(nodes.shape[0]):
                    total += weights[m] / (1.0 + np.exp(-eta[d, i] - spread[d, i] * nodes[m]))
            out[d, i] = total
    return out


def draw_outcomes(eta: FloatArray, noise: FloatArray, family: int, rng: np.random.Generator) -> FloatArray:
    """Outcomes of single units given their predictors and noise scales, each of shape (draw, unit)."""
    if family == GAUSSIAN:
        return eta + noise * rng.standard_normal(eta.shape)
    if family == BERNOULLI:
        return (rng.random(eta.shape) < 1.0 / (1.0 + np.exp(-np.clip(eta, -700, 700)))).astype(float)
    shape = 1.0 / np.maximum(noise**2, 1e-9)
    mean = np.exp(np.clip(eta, -700, 34.0 if family == NEGATIVE_BINOMIAL else 700))
    multiplier = rng.gamma(shape) / shape
    if family == GAMMA:
        return np.asarray(np.maximum(mean * multiplier, 1e-300))
    return rng.poisson(np.minimum(mean * multiplier, 1e15)).astype(float)
