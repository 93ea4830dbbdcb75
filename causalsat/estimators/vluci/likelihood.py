r"""Likelihood of treatment and outcome with the confounder integrated out, and its derivatives by unit.

A linear link leaves one dimension of L that matters, U = b'L / |b| ~ N(0, 1):

    binary T:  P(T = 1 | X, U) = sigmoid(m f_T(X) + beta U)          dose T:  T | X, U = f_T(X) + link U + noise
    continuous Y: mean f_Y(X, T) + rho sd U, noise sd sqrt(1 - rho^2)  binary Y: logit m f_Y(X, T) + loading U

with rho the share of the residual outcome's standard deviation that U explains, one for each arm. The factors m keep
f on the scale of the probability given X alone, so that they hardly change with beta and rho. Noise of a continuous
Y under a binary T, and U there, may also be mixtures of normal distributions. Given a component of both, Y and X, U
is normal (or one value), and the treatment's probability is the mean of a sigmoid under a normal (Gauss-Hermite, 16
nodes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from causalsat.core.inputs import FloatArray

__all__ = ["NORMAL", "Law", "Link", "UnitTerms", "log_joint", "unit_terms", "unit_values"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_MORE_NODES, _MORE_WEIGHTS = np.polynomial.hermite_e.hermegauss(40)  # where U is in two logits
_MORE_WEIGHTS = _MORE_WEIGHTS / _MORE_WEIGHTS.sum()
_LOGISTIC = 3.0 / np.pi**2  # 1 / variance of the logistic distribution

Law = tuple[tuple[float, float, float], ...]  # weight, mean and sd of each normal component; mean 0, variance 1
NORMAL: Law = ((1.0, 0.0, 1.0),)


@dataclass(frozen=True)
class Link:
    """How strongly U moves treatment (``beta``) and outcome (``rho``, control and treated).

    ``beta`` is in units of the logit; of a dose, in units of its noise. A dose has one rho. ``noise`` is the law of
    the residual of a continuous outcome under a binary treatment, of the control arm alone where ``noise_treated`` is
    another law with as many components; ``confounder`` is that of U there.
    """

    beta: float
    rho: tuple[float, float]
    noise: Law = NORMAL
    noise_treated: Law = ()
    confounder: Law = NORMAL


@dataclass(frozen=True, eq=False)
class UnitTerms:
    """Log-likelihood (n,) of each unit and its derivatives in (f_T, f_Y, log sd of Y): (3, n) and (3, 3, n)."""

    value: FloatArray
    first: FloatArray
    second: FloatArray


def _mean_sigmoid(a: FloatArray, b: FloatArray, sign: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log E sigmoid(sign a + b e) over e ~ N(0, 1), with first and second derivatives in a."""
    p = expit((sign * a)[:, None] + b[:, None] * _NODES)
    slope = p * (1 - p)
    mean = np.maximum(p @ _WEIGHTS, 1e-300)
    first = (slope @ _WEIGHTS) / mean
    second = ((slope * (1 - 2 * p)) @ _WEIGHTS) / mean - first**2
    return np.log(mean), sign * first, second


def _sigmoid(a: FloatArray, sign: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log sigmoid(sign a), with first and second derivatives in a."""
    p = expit(sign * a)
    return log_expit(sign * a), sign * (1 - p), -p * (1 - p)


def _loadings(link: Link, arm: FloatArray) -> FloatArray:
    """Rho of each unit."""
    return np.where(arm > 0, link.rho[1], link.rho[0])


def _logit_loading(rho: FloatArray) -> FloatArray:
    """Coefficient of U in the logit of a binary outcome whose latent residual it explains by rho."""
    return np.asarray(rho / np.sqrt(1 - rho**2) / np.sqrt(_LOGISTIC))


def _shares(link: Link) -> float:
    """Correlation of U with a dose's residual."""
    return link.beta / np.sqrt(1 + link.beta**2)


def unit_terms(
    t: FloatArray, y: FloatArray, f: tuple[FloatArray, FloatArray, FloatArray], link: Link, kinds: tuple[bool, bool]
) -> UnitTerms:
    """Log-likelihood of each unit with U integrated out.

    Parameters
    ----------
    t, y : ndarray of shape (n,)
        Treatment (a dose in units of its residual sd) and outcome.
    f : tuple of three ndarrays of shape (n,)
        f_T, f_Y and log sd of the outcome.
    link : Link
        Strength of U.
    kinds : tuple of bool
        Whether treatment and outcome are binary.
    """
    binary_t, binary_y = kinds
    if binary_t:
        return (_both_binary if binary_y else _binary_treatment)(t, y, f, link)
    return (_dose_binary_outcome if binary_y else _dose)(t, y, f, link)


def _pack(value: FloatArray, first: list[FloatArray], second: list[FloatArray]) -> UnitTerms:
    """Second derivatives come as TT, TY, TK, YY, YK, KK."""
    tt, ty, tk, yy, yk, kk = (np.broadcast_to(v, value.shape) for v in second)
    matrix = np.array([[tt, ty, tk], [ty, yy, yk], [tk, yk, kk]])
    return UnitTerms(value, np.array([np.broadcast_to(v, value.shape) for v in first]), matrix)


def _components(link: Link, t: FloatArray) -> list[tuple[Any, Any, Any, tuple[float, float]]]:
    """Pairs of a component of the noise and one of U: log weight, mean and sd of the noise, mean and sd of U."""
    treated = link.noise_treated or link.noise
    pairs = []
    for own, other in zip(link.noise, treated, strict=True):
        weight, mean, sd = own if own == other else (np.where(t > 0, b, a) for a, b in zip(own, other, strict=True))
        for share, place, width in link.confounder:
            pairs.append((np.log(weight * share), mean, sd, (place, width)))
    return pairs


def _binary_treatment(t: FloatArray, y: FloatArray, f: tuple[FloatArray, ...], link: Link) -> UnitTerms:
    parts = [_component(t, y, f, link, *pair) for pair in _components(link, t)]
    if len(parts) == 1:
        return parts[0]
    values = np.array([part.value for part in parts])
    value = np.logaddexp.reduce(values, axis=0)
    share = np.exp(values - value)
    first = sum(w * part.first for w, part in zip(share, parts, strict=True))
    second = sum(w * (part.second + part.first[:, None] * part.first) for w, part in zip(share, parts, strict=True))
    return UnitTerms(value, first, second - first[:, None] * first)


def unit_values(t: FloatArray, y: FloatArray, f: tuple[FloatArray, FloatArray, FloatArray], link: Link) -> FloatArray:
    """Log-likelihood (n,) of each unit for a binary treatment and a continuous outcome, without derivatives."""
    rho = _loadings(link, t)
    rest = np.sqrt(1 - rho**2)
    d = (y - f[1]) * np.exp(-f[2])
    sign, logit = 2 * t - 1, np.sqrt(1 + link.beta**2 * _LOGISTIC) * f[0]
    parts = []
    for log_weight, mean, sd, (place, width) in _components(link, t):
        spread = np.sqrt((rho * width) ** 2 + (rest * sd) ** 2)
        q, r = rho * width / spread, (d - rho * place - rest * mean) / spread
        a = sign * (logit + link.beta * (place + width * q * r))
        if width:
            p = expit(a[:, None] + (link.beta * width * np.sqrt(1 - q**2))[:, None] * _NODES) @ _WEIGHTS
            log_p = np.log(np.maximum(p, 1e-300))
        else:
            log_p = log_expit(a)
        parts.append(log_p + log_weight - np.log(spread) - 0.5 * r**2)
    return np.asarray(np.logaddexp.reduce(parts, axis=0) - f[2])


def _component(
    t: FloatArray,
    y: FloatArray,
    f: tuple[FloatArray, ...],
    link: Link,
    log_weight: FloatArray,
    mean: FloatArray,
    sd: FloatArray,
    confounder: tuple[float, float],
) -> UnitTerms:
    """Terms of one normal component of the noise and one of U, whose log weight is in the value."""
    place, width = confounder
    rho = _loadings(link, t)
    rest = np.sqrt(1 - rho**2)
    spread = np.sqrt((rho * width) ** 2 + (rest * sd) ** 2)
    m, q, beta = np.sqrt(1 + link.beta**2 * _LOGISTIC), rho * width / spread, link.beta * width
    pull, shrink = beta * q, np.exp(-f[2]) / spread
    d = (y - f[1]) * shrink
    r = d - (rho * place + rest * mean) / spread
    a, sign = m * f[0] + link.beta * place + pull * r, 2 * t - 1
    log_p, p1, p2 = _mean_sigmoid(a, beta * np.sqrt(1 - q**2), sign) if width else _sigmoid(a, sign)
    value = log_weight - f[2] - np.log(spread) - 0.5 * r**2 + log_p
    slope, curve = r - pull * p1, pull**2 * p2 - 1
    first = [m * p1, shrink * slope, d * slope - 1]
    second = [
        m**2 * p2,
        -m * pull * shrink * p2,
        -m * pull * d * p2,
        shrink**2 * curve,
        shrink * (d * curve - slope),
        d * (d * curve - slope),
    ]
    return _pack(value, first, second)


def _both_binary(t: FloatArray, y: FloatArray, f: tuple[FloatArray, ...], link: Link) -> UnitTerms:
    loading = _logit_loading(_loadings(link, t))
    m_t, m_y = np.sqrt(1 + link.beta**2 * _LOGISTIC), np.sqrt(1 + loading**2 * _LOGISTIC)
    a = (m_t * f[0])[:, None] + link.beta * _MORE_NODES
    b = (m_y * f[1])[:, None] + loading[:, None] * _MORE_NODES
    log_w = log_expit((2 * t - 1)[:, None] * a) + log_expit((2 * y - 1)[:, None] * b) + np.log(_MORE_WEIGHTS)
    top = log_w.max(axis=1, keepdims=True)
    w = np.exp(log_w - top)
    total = w.sum(axis=1)
    w /= total[:, None]
    p, q = expit(a), expit(b)
    g_t, g_y = t[:, None] - p, y[:, None] - q
    mean_t, mean_y = (w * g_t).sum(axis=1), (w * g_y).sum(axis=1)
    tt = (w * (g_t**2 - p * (1 - p))).sum(axis=1) - mean_t**2
    yy = (w * (g_y**2 - q * (1 - q))).sum(axis=1) - mean_y**2
    ty = (w * g_t * g_y).sum(axis=1) - mean_t * mean_y
    zero = np.zeros(1)
    second = [m_t**2 * tt, m_t * m_y * ty, zero, m_y**2 * yy, zero, zero]
    return _pack(top[:, 0] + np.log(total), [m_t * mean_t, m_y * mean_y, zero], second)


def _dose(t: FloatArray, y: FloatArray, f: tuple[FloatArray, ...], link: Link) -> UnitTerms:
    """Bivariate normal residuals: f_Y takes up whatever the correlation q leaves, so q is not identified."""
    q = link.rho[0] * _shares(link)
    rest = 1 - q**2
    shrink = np.exp(-f[2])
    r, u = (y - f[1]) * shrink, t - f[0]
    d = (r - q * u) / rest
    value = -f[2] - 0.5 * np.log(rest) - 0.5 * rest * d**2 - 0.5 * u**2
    first = [u - q * d, shrink * d, -1 + d * r]
    second = [
        np.asarray(-1 / rest),
        q * shrink / rest,
        q * r / rest,
        -(shrink**2) / rest,
        -shrink * (r / rest + d),
        -(r**2) / rest - d * r,
    ]
    return _pack(value, first, second)


def _dose_binary_outcome(t: FloatArray, y: FloatArray, f: tuple[FloatArray, ...], link: Link) -> UnitTerms:
    share = _shares(link)
    loading = _logit_loading(np.full(len(t), link.rho[0]))
    m = np.sqrt(1 + loading**2 * _LOGISTIC)
    u, pull = t - f[0], loading * share
    log_p, p1, p2 = _mean_sigmoid(m * f[1] + pull * u, loading * np.sqrt(1 - share**2), 2 * y - 1)
    zero = np.zeros(1)
    second = [-1 + pull**2 * p2, -m * pull * p2, zero, m**2 * p2, zero, zero]
    return _pack(-0.5 * u**2 + log_p, [u - pull * p1, m * p1, zero], second)


def log_joint(
    z: FloatArray,
    t: FloatArray,
    y: FloatArray,
    f: tuple[FloatArray, FloatArray, FloatArray],
    link: Link,
    kinds: tuple[bool, bool],
    confounder: tuple[float, float] = (0.0, 1.0),
) -> FloatArray:
    """Log p(z, T, Y | X) up to a constant for each unit (rows) at the values z (columns), z ~ N(0, 1).

    The confounder is U = mean + sd z, of one component of its law.
    """
    binary_t, binary_y = kinds
    u = confounder[0] + confounder[1] * z
    rho = _loadings(link, t) if binary_t else np.full(len(t), link.rho[0])
    out = np.broadcast_to(-0.5 * z**2, (len(t), len(z)))
    if binary_t:
        logit = (np.sqrt(1 + link.beta**2 * _LOGISTIC) * f[0])[:, None] + link.beta * u
        out = out + log_expit((2 * t - 1)[:, None] * logit)
    else:
        share = _shares(link)
        out = out - 0.5 * ((t - f[0])[:, None] - share * u) ** 2 / (1 - share**2)
    if binary_y:
        loading = _logit_loading(rho)
        logit = (np.sqrt(1 + loading**2 * _LOGISTIC) * f[1])[:, None] + loading[:, None] * u
        return np.asarray(out + log_expit((2 * y - 1)[:, None] * logit))
    r = (y - f[1]) * np.exp(-f[2])
    e = (r[:, None] - rho[:, None] * u) / np.sqrt(1 - rho[:, None] ** 2)
    parts = []
    for own, other in zip(link.noise, link.noise_treated or link.noise, strict=True):
        w, mean, sd = (np.where(t > 0, b, a)[:, None] for a, b in zip(own, other, strict=True))
        parts.append(np.log(w / sd) - 0.5 * ((e - mean) / sd) ** 2)
    return np.asarray(out + np.logaddexp.reduce(parts, axis=0))
