r"""Probabilities of a decision and an outcome that share an unobservable, uniform on (0, sigma).

Balachandar, Garg and Pierson (2024), section 3.2 and appendix B: with a = x'beta_Y, d = x'beta_Delta, b = a + d and
Z ~ U(0, sigma),

.. math:: P(Y = 1) = \frac1\sigma \int_0^\sigma s(a + z) dz, \qquad
          P(T = 0) = \frac1\sigma \int_0^\sigma s(-b - z) dz, \qquad
          P(T, Y) = \frac1\sigma \int_0^\sigma s(\pm(b + z)) s(\pm(a + z)) dz

with s the logistic function. The closed forms here lose no digits where the textbook ones do (at d = 0, and in the
tails): all follows from two integrals that are sums of positive terms,

* ``A(b) = -log1p(s(-b) expm1(-sigma))``, sigma times P(T = 0), and
* ``Q = q log1p(q m) / (q m)``, sigma times P(T = 0, Y = 1), with ``q = s(-b) s(a + sigma) (1 - exp(-sigma))`` and
  ``m = expm1(d)``; P(T = 1, Y = 0) = exp(d) P(T = 0, Y = 1).

P(T = 1, Y = 1) is a difference that cancels where both a + sigma and b + sigma are far below 0; Gauss-Legendre
quadrature takes over there. Every ``log_`` function returns the logarithm and its derivatives in a, d and sigma, and
takes :func:`width` of sigma, computed once for all units.
"""

from __future__ import annotations

import numpy as np
from numba import njit

CANCELLED = 1e-5  # of P(T = 1, Y = 1) over P(Y = 1), below which quadrature is used
SMALL = 1e-4
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
NODES, WEIGHTS = (1.0 + _NODES) / 2.0, _WEIGHTS / 2.0  # on (0, 1)


@njit(cache=True, error_model="numpy")
def logistic(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)) without overflow."""
    if x >= 0.0:
        return 1.0 / (1.0 + np.exp(-x))
    tail = np.exp(x)
    return tail / (1.0 + tail)


@njit(cache=True, error_model="numpy")
def log_logistic(x):  # type: ignore[no-untyped-def]
    """log(1 / (1 + exp(-x))) without overflow."""
    return min(x, 0.0) - np.log1p(np.exp(-abs(x)))


@njit(cache=True, error_model="numpy")
def width(sigma):  # type: ignore[no-untyped-def]
    """What all cells need of sigma: sigma, exp(sigma) - 1, 1 - exp(-sigma), log(sigma), log(1 - exp(-sigma))."""
    rest = -np.expm1(-sigma)
    return sigma, np.expm1(sigma), rest, np.log(sigma), np.log(rest)


@njit(cache=True, error_model="numpy")
def both_ways(x):  # type: ignore[no-untyped-def]
    """s(x) and s(-x), by one exponential."""
    tail = np.exp(-abs(x))
    near = 1.0 / (1.0 + tail)
    far = tail * near
    return (near, far) if x >= 0.0 else (far, near)


@njit(cache=True, error_model="numpy")
def integral(b, wide):  # type: ignore[no-untyped-def]
    """Integral of s(b + z) over (0, sigma), and its derivatives in b and sigma, s(b + sigma) - s(b) and s(b + sigma).

    With s(b + sigma) = s(b) exp(sigma) / (1 + s(b) (exp(sigma) - 1)), nothing cancels.
    """
    sigma, grown, rest = wide[0], wide[1], wide[2]
    low, other = both_ways(b)
    if b > 0.0:  # sigma - integral of s(-b - z)
        portion = other * rest
        return sigma + np.log1p(-portion), low * portion / (1.0 - portion), low / (1.0 - portion)
    small = low * grown
    return np.log1p(small), other * small / (1.0 + small), low * (1.0 + grown) / (1.0 + small)


@njit(cache=True, error_model="numpy")
def log_integral(b, wide):  # type: ignore[no-untyped-def]
    """Log of the integral of s(b + z) over (0, sigma), and its derivatives in b and sigma."""
    value, by_b, by_sigma = integral(b, wide)
    if value > 1e-300:
        return np.log(value), by_b / value, by_sigma / value
    return log_logistic(b) + wide[0] + wide[4], 1.0, 1.0 / wide[2]  # low (exp(sigma) - 1)


@njit(cache=True, error_model="numpy")
def log_untested(a, d, wide):  # type: ignore[no-untyped-def]
    """Log P(T = 0) and its derivatives in a, d, sigma."""
    sigma = wide[0]
    # the integral of s(-b - z) over (0, sigma) is that of s(c + z), c = -(b + sigma)
    log_value, slope, by_sigma = log_integral(-(a + d + sigma), wide)
    return log_value - wide[3], -slope, -slope, by_sigma - slope - 1.0 / sigma


@njit(cache=True, error_model="numpy")
def positive(a, wide):  # type: ignore[no-untyped-def]
    """P(Y = 1) and its derivatives in a and sigma."""
    value, by_a, by_sigma = integral(a, wide)
    p = value / wide[0]
    return p, by_a / wide[0], (by_sigma - p) / wide[0]


@njit(cache=True, error_model="numpy")
def log_positive(a, wide):  # type: ignore[no-untyped-def]
    """Log P(Y = 1) and its derivatives in a and sigma."""
    log_value, slope, by_sigma = log_integral(a, wide)
    return log_value - wide[3], slope, by_sigma - 1.0 / wide[0]


@njit(cache=True, error_model="numpy")
def log_untested_positive(a, d, wide):  # type: ignore[no-untyped-def]
    """Log P(T = 0, Y = 1) and its derivatives in a, d, sigma."""
    sigma, _, rest, log_sigma, log_rest = wide
    b, top = a + d, a + sigma
    tested, untested = both_ways(b)
    high, low = both_ways(top)
    q_by_a, q_by_d = low - tested, -tested
    q_by_sigma = low + (1.0 - rest) / rest
    if abs(b) < 300.0 and abs(top) < 300.0:
        q = untested * high * rest
        log_q = np.log(q)
    else:
        log_q = log_logistic(-b) + log_logistic(top) + log_rest
        q = np.exp(log_q)
    grown = np.exp(log_q + d)  # q exp(d)
    x = q * np.expm1(d) if abs(d) < 1.0 else grown - q
    one_plus = tested + untested * (low + high * (1.0 - rest)) + grown  # 1 + x
    if abs(x) < SMALL:
        ratio = 1.0 - x / 2.0 + x * x / 3.0
        slope = -0.5 + 2.0 * x / 3.0 - 0.75 * x * x
    else:
        ratio = (np.log(one_plus) if x < -0.5 else np.log1p(x)) / x
        slope = (1.0 / one_plus - ratio) / x
    share = 1.0 / (one_plus * ratio)  # derivative of log Q in log q
    return (
        log_q + np.log(ratio) - log_sigma,
        share * q_by_a,
        share * q_by_d + slope / ratio * grown,
        share * q_by_sigma - 1.0 / sigma,
    )


@njit(cache=True, error_model="numpy")
def log_tested_positive(a, d, wide):  # type: ignore[no-untyped-def]
    """Log P(T = 1, Y = 1) and its derivatives in a, d, sigma."""
    sigma = wide[0]
    log_all, all_by_a, all_by_sigma = log_positive(a, wide)
    log_part, part_by_a, part_by_d, part_by_sigma = log_untested_positive(a, d, wide)
    portion = np.exp(log_part - log_all)
    remainder = -np.expm1(log_part - log_all)
    if remainder > CANCELLED:
        return (
            log_all + np.log(remainder),
            (all_by_a - portion * part_by_a) / remainder,
            -portion * part_by_d / remainder,
            (all_by_sigma - portion * part_by_sigma) / remainder,
        )
    total, by_a, by_d, by_sigma = 0.0, 0.0, 0.0, 0.0
    peak = log_logistic(a + sigma) + log_logistic(a + d + sigma)
    for i in range(NODES.shape[0]):
        z = sigma * NODES[i]
        density = WEIGHTS[i] * np.exp(log_logistic(a + z) + log_logistic(a + d + z) - peak)
        no, untested = logistic(-(a + z)), logistic(-(a + d + z))
        total += density
        by_a += density * (no + untested)
        by_d += density * untested
        by_sigma += density * (no + untested) * NODES[i]
    return peak + np.log(total), by_a / total, by_d / total, by_sigma / total
