r"""Log density of the image effect cluster model, and its gradient.

Image j has features :math:`\phi_j`. Its units' cluster Z has probabilities
:math:`\pi(\phi_j) = softmax(0, a_2 + B_2\phi_j, \ldots)`; unit i of site s in arm w has

.. math:: y_i = \alpha + \phi_j'\beta + (w - \tfrac12) \bar\tau + (w - \lambda)(\tau_Z - \bar\tau) + u_s + e_i,
    \quad e_i \sim N(0, \sigma^2_{w,Z}), \quad u_s \sim N(0, \omega^2)

with :math:`\bar\tau` the average effect of a regression, a constant. Z is summed over and u integrated out: in closed
form where a site has one cell, by adaptive Gauss-Hermite quadrature where it has several. With shares there is no Z:
the effect at image j is :math:`\sum_k \pi_k(\phi_j) \tau_k`, and the noise depends on the arm alone.

The pivot :math:`\lambda`, uniform on (0, 1), is the treatment at which the types' outcomes meet: at 0 they differ
among the treated only, at 1 among the controls only, where treatment evens out what was unequal. With it the model is
the same whichever arm is called treated: swapped labels turn :math:`\tau` around and :math:`\lambda` into
:math:`1 - \lambda`. With one type it is a half.

Effects are ordered, :math:`\tau_1 < \tau_2 < \ldots`. The weights of the features in the prognosis, and those in the
logits, are multivariate Student t: normal with one scale that is learned. The scale is integrated out, since a
sampler of scale and weights together gets lost where the data tell the weights well. The prior of the logits is
exchangeable in the types: that of the differences of K independent draws from the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["Cells", "Layout", "Prior", "arguments", "log_density", "site_log_likelihood"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_NODES = 7
LOG_2PI = float(np.log(2 * np.pi))
DEGREES = 4.0  # of freedom of the features' weights


def nodes_and_log_weights() -> tuple[FloatArray, FloatArray]:
    """Nodes of the quadrature under a standard normal, and the logarithms of their weights."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    return nodes, np.log(weights / weights.sum())


@njit(cache=True, error_model="numpy")
def log_sum(values: FloatArray) -> float:
    """Logarithm of the sum of exponentials."""
    top = values[0]
    for value in values:
        top = max(top, value)
    total = 0.0
    for value in values:
        total += np.exp(value - top)
    return top + np.log(total)  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy")
def _quadratic(n0, n1, e0, e1, v0, v1, p0, p1, log_p0, log_p1):  # type: ignore[no-untyped-def]
    """Log likelihood of a cell in a cluster as a function of the site effect u: c - A (u - M)^2 / 2.

    By arm: n sum of weights, e mean residual, v sum of squares about it, p precision.
    """
    a0, a1 = n0 * p0, n1 * p1
    A = a0 + a1
    M = (a0 * e0 + a1 * e1) / A if A > 0.0 else 0.0
    apart = a0 * a1 / A * (e0 - e1) ** 2 if A > 0.0 else 0.0
    c = 0.5 * (n0 * log_p0 + n1 * log_p1 - (n0 + n1) * LOG_2PI - v0 * p0 - v1 * p1 - apart)
    return A, M, c


@njit(cache=True, error_model="numpy")
def _shares(lp, A, M, u, share):  # type: ignore[no-untyped-def]
    """Log likelihood of a cell at a site effect; fills ``share`` with its clusters' probabilities."""
    K = len(lp)
    top = -np.inf
    for k in range(K):
        share[k] = lp[k] - 0.5 * A[k] * (u - M[k]) ** 2
        top = max(top, share[k])
    total = 0.0
    for k in range(K):
        share[k] = np.exp(share[k] - top)
        total += share[k]
    for k in range(K):
        share[k] /= total
    return top + np.log(total)


@njit(cache=True, error_model="numpy")
def _centre(A, M, lp, omega2):  # type: ignore[no-untyped-def]
    """Mode and width of a site effect given its cells, by Newton steps, for the quadrature."""
    n_cells, K = A.shape
    u, width = 0.0, 1.0
    share = np.empty(K)
    for _ in range(8):
        slope, curve, flat = -u / omega2, -1.0 / omega2, -1.0 / omega2
        for i in range(n_cells):
            _shares(lp[i], A[i], M[i], u, share)
            m1, m2, a = 0.0, 0.0, 0.0
            for k in range(K):
                d = A[i, k] * (M[i, k] - u)
                m1 += share[k] * d
                m2 += share[k] * d * d
                a += share[k] * A[i, k]
            slope += m1
            curve += m2 - m1 * m1 - a
            flat -= a
        if curve >= 0.5 * flat:  # nearly flat or convex: several modes
            curve = flat
        step = -slope / curve
        u += step
        width = 1.0 / np.sqrt(-curve)
        if abs(step) < 0.1 * width:
            break
    return u, width


@njit(cache=True, error_model="numpy")
def site_terms(  # type: ignore[no-untyped-def]
    shift, sigma, log_pi, level, omega, image, start, count, mean, spread, has_sites, nodes, log_weights
):
    """Log likelihood of each site, and the cells' moments for its gradient.

    ``level`` is the prognosis of each image, ``log_pi`` (image, K) its log probabilities, ``shift`` (2, K) what an
    arm and a type add to the level. Returns the log likelihood (site,), and for each cell and cluster the
    expectations of [Z = k], u [Z = k] and u^2 [Z = k], with the sites' expectation of u^2.
    """
    n_cells, K, n_sites = len(image), shift.shape[1], len(start) - 1
    precision, log_precision = sigma**-2.0, -2.0 * np.log(sigma)
    R, Q1, Q2 = np.zeros((n_cells, K)), np.zeros((n_cells, K)), np.zeros((n_cells, K))
    A, M, lp = np.empty((n_cells, K)), np.empty((n_cells, K)), np.empty((n_cells, K))
    for i in range(n_cells):
        g = level[image[i]]
        for k in range(K):
            A[i, k], M[i, k], c = _quadratic(
                count[i, 0], count[i, 1], mean[i, 0] - g - shift[0, k], mean[i, 1] - g - shift[1, k],
                spread[i, 0], spread[i, 1], precision[0, k], precision[1, k], log_precision[0, k],
                log_precision[1, k],
            )  # fmt: skip
            lp[i, k] = log_pi[image[i], k] + c
    out, square = np.empty(n_sites), np.zeros(n_sites)
    omega2 = omega * omega
    t = np.empty(K)
    q = len(nodes)
    for g in range(n_sites):
        low, high = start[g], start[g + 1]
        if not has_sites:
            for k in range(K):
                t[k] = lp[low, k] - 0.5 * A[low, k] * M[low, k] ** 2
            out[g] = log_sum(t)
            for k in range(K):
                R[low, k] = np.exp(t[k] - out[g])
        elif high - low == 1:
            for k in range(K):
                ratio = 1.0 + omega2 * A[low, k]
                t[k] = lp[low, k] - 0.5 * (A[low, k] * M[low, k] ** 2 / ratio + np.log(ratio))
            out[g] = log_sum(t)
            for k in range(K):
                v = omega2 / (1.0 + omega2 * A[low, k])
                m, r = v * A[low, k] * M[low, k], np.exp(t[k] - out[g])
                R[low, k], Q1[low, k], Q2[low, k] = r, r * m, r * (v + m * m)
                square[g] += Q2[low, k]
        else:
            centre, width = _centre(A[low:high], M[low:high], lp[low:high], omega2)
            terms, share = np.empty(q), np.empty((q, high - low, K))
            for j in range(q):
                u = centre + width * nodes[j]
                terms[j] = log_weights[j] + 0.5 * nodes[j] ** 2 + np.log(width / omega) - 0.5 * u * u / omega2
                for i in range(low, high):
                    terms[j] += _shares(lp[i], A[i], M[i], u, share[j, i - low])
            out[g] = log_sum(terms)
            for j in range(q):
                u, p = centre + width * nodes[j], np.exp(terms[j] - out[g])
                square[g] += p * u * u
                for i in range(low, high):
                    for k in range(K):
                        r = p * share[j, i - low, k]
                        R[i, k] += r
                        Q1[i, k] += r * u
                        Q2[i, k] += r * u * u
    return out, R, Q1, Q2, square


@dataclass(frozen=True)
class Cells:
    """Sufficient statistics of cells, sorted by site.

    Attributes
    ----------
    image : ndarray of int of shape (c,)
        Image of each cell.
    start : ndarray of int of shape (g + 1,)
        First cell of each site; the last entry is the number of cells.
    count, mean, spread : ndarray of shape (c, 2)
        Sum of weights, weighted mean and weighted sum of squares about it, by arm.
    has_sites : bool
        Whether the outcome has site effects; without, every cell is a site of its own.
    """

    image: IntArray
    start: IntArray
    count: FloatArray
    mean: FloatArray
    spread: FloatArray
    has_sites: bool

    def take_sites(self, sites: IntArray) -> Cells:
        """Cells of some sites, in that order."""
        parts = [np.arange(self.start[g], self.start[g + 1]) for g in sites]
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        start = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        return replace(
            self,
            image=self.image[rows],
            start=start,
            count=self.count[rows],
            mean=self.mean[rows],
            spread=self.spread[rows],
        )


@dataclass(frozen=True)
class Layout:
    """Where the parameters lie in a vector.

    Attributes
    ----------
    n_clusters, n_features : int
        K and d.
    has_sites : bool
        Whether there are site effects.
    tied : bool
        Whether the noise depends on the arm alone and not on the cluster.
    shares : bool
        Whether an image has shares of the types.
    """

    n_clusters: int
    n_features: int
    has_sites: bool
    tied: bool = False
    shares: bool = False

    @property
    def n_noise(self) -> int:
        """Noise parameters of an arm."""
        return 1 if self.tied else self.n_clusters

    @property
    def size(self) -> int:
        """Length of the vector."""
        k, d = self.n_clusters, self.n_features
        return 1 + d + k + 2 * self.n_noise + ((k - 1) * (1 + d) + 1 if k > 1 else 0) + int(self.has_sites)

    def unpack(self, x: FloatArray) -> dict[str, FloatArray]:
        """Named parameters of vectors (..., size).

        Returns
        -------
        dict
            ``intercept`` (...), ``prognostic`` (..., d), ``tau`` (..., K), ``sigma`` (..., 2, K), ``logit``
            (..., K, 1 + d) with a first row of zeros, ``pivot`` (...), ``site_sd`` (...).
        """
        k, d = self.n_clusters, self.n_features
        at = 1 + d
        tau = np.concatenate([x[..., at : at + 1], np.exp(x[..., at + 1 : at + k])], axis=-1).cumsum(axis=-1)
        q = self.n_noise
        noise = np.exp(x[..., at + k : at + k + 2 * q]).reshape(*x.shape[:-1], 2, q)
        sigma = np.broadcast_to(noise, (*x.shape[:-1], 2, k)).copy()
        logit, pivot = np.zeros((*x.shape[:-1], k, 1 + d)), np.full(x.shape[:-1], 0.5)
        at += k + 2 * q
        if k > 1:
            logit[..., 1:, 0] = x[..., at : at + k - 1]
            end = at + (k - 1) * (1 + d)
            logit[..., 1:, 1:] = x[..., at + k - 1 : end].reshape(*x.shape[:-1], k - 1, d)
            pivot = 1.0 / (1.0 + np.exp(-x[..., end]))
        site_sd = np.exp(x[..., -1]) if self.has_sites else np.zeros(x.shape[:-1])
        return {
            "intercept": x[..., 0],
            "prognostic": x[..., 1 : 1 + d],
            "tau": tau,
            "sigma": sigma,
            "logit": logit,
            "pivot": pivot,
            "site_sd": site_sd,
        }


@dataclass(frozen=True)
class Prior:
    """Scales of the priors, for an outcome of unit variance.

    Attributes
    ----------
    effect, effect_sd : float
        Normal prior of each cluster's effect: that of a regression, which is also the constant that effects are
        taken from, and a scale.
    arm_sd : tuple of float
        Standard deviation of the outcome in each arm, the median of the noise's log-normal prior.
    noise_log_sd : float
        Standard deviation of the logarithm of the noise.
    logit_sd : float
        Scale of the Student t prior of the logits' weights.
    intercept_logit_sd : float
        Standard deviation of the logits' intercepts.
    prognostic_sd : float
        Scale of the Student t prior of the prognostic weights.
    site_sd : float
        Scale of the half-normal prior of the site effects' standard deviation.
    tied_noise : bool
        Whether the noise depends on the arm alone.
    shares : bool
        Whether an image has shares of the types, and their mean effect, instead of being of one of them.
    by_image : bool
        Whether the types' probabilities follow the image; otherwise they are the same for all.
    """

    effect: float
    effect_sd: float
    arm_sd: tuple[float, float]
    noise_log_sd: float = 0.3
    logit_sd: float = 1.5
    intercept_logit_sd: float = 1.5
    prognostic_sd: float = 0.25
    site_sd: float = 1.0
    tied_noise: bool = False
    shares: bool = False
    by_image: bool = True

    def layout(self, n_clusters: int, features: FloatArray, cells: Cells) -> Layout:
        """Layout of the parameters of a model with these features and cells."""
        return Layout(n_clusters, features.shape[1], cells.has_sites, self.tied_noise, self.shares)

    def numbers(self) -> FloatArray:
        """As one array, for the compiled functions."""
        return np.array(
            [
                self.effect,
                self.effect_sd,
                np.log(self.arm_sd[0]),
                np.log(self.arm_sd[1]),
                self.noise_log_sd,
                self.logit_sd,
                self.intercept_logit_sd,
                self.prognostic_sd,
                self.site_sd,
                float(self.tied_noise),
                float(self.shares),
                float(self.by_image),
            ]
        )


def arguments(cells: Cells, features: FloatArray, prior: Prior, n_clusters: int) -> tuple[Any, ...]:
    """What :func:`log_density` takes after the parameters."""
    return (
        n_clusters,
        np.ascontiguousarray(features),
        cells.image,
        cells.start,
        cells.count,
        cells.mean,
        cells.spread,
        cells.has_sites,
        prior.numbers(),
        *nodes_and_log_weights(),
    )


@njit(cache=True, error_model="numpy")
def _effects(x, K, at):  # type: ignore[no-untyped-def]
    """Ordered effects (K,) and the gaps between them, from the parameters that start at ``at``."""
    tau, gap = np.empty(K), np.ones(K)
    tau[0] = x[at]
    for k in range(1, K):
        gap[k] = np.exp(x[at + k])
        tau[k] = tau[k - 1] + gap[k]
    return tau, gap


@njit(cache=True, error_model="numpy")
def _noise(x, K, q, at):  # type: ignore[no-untyped-def]
    """Noise (2, K) of each arm and type, from q parameters an arm that start at ``at``."""
    sigma = np.empty((2, K))
    for k in range(K):
        for w in range(2):
            sigma[w, k] = np.exp(x[at + w * q + min(k, q - 1)])
    return sigma


@njit(cache=True, error_model="numpy")
def _types(x, K, features, at, by_image):  # type: ignore[no-untyped-def]
    """Log probabilities (image, K) of the types; ``by_image`` 0 leaves the features out."""
    m, d = features.shape
    log_pi = np.zeros((m, K))
    if K > 1:
        weights = x[at + K - 1 : at + (K - 1) * (1 + d)].reshape(K - 1, d)
        log_pi[:, 1:] = x[at : at + K - 1] + by_image * (features @ weights.T)
    for j in range(m):
        log_pi[j] -= log_sum(log_pi[j])
    return log_pi


@njit(cache=True, error_model="numpy")
def _student(square, n, scale):  # type: ignore[no-untyped-def]
    """Log density, up to a constant, of n weights with this sum of squares, and minus twice its slope in it."""
    wide = DEGREES * scale**2
    return -0.5 * (DEGREES + n) * np.log1p(square / wide), (DEGREES + n) / (wide + square)


@njit(cache=True, error_model="numpy")
def _pivot(x, K, at):  # type: ignore[no-untyped-def]
    """Pivot, from the parameter at ``at``; a half with one type."""
    return 1.0 / (1.0 + np.exp(-x[at])) if K > 1 else 0.5


@njit(cache=True, error_model="numpy")
def _shifts(effect, centre, pivot):  # type: ignore[no-untyped-def]
    """What each arm adds to the level, (2, k), for effects (k,)."""
    shift = np.empty((2, len(effect)))
    for w in range(2):
        shift[w] = (w - 0.5) * centre + (w - pivot) * (effect - centre)
    return shift


@njit(cache=True, error_model="numpy")
def _slopes(shift, sigma, log_pi, level, image, count, mean, spread, R, Q1, Q2):  # type: ignore[no-untyped-def]
    """Derivatives of the log likelihood by the images' levels and logits, the shifts and the log noise."""
    K = shift.shape[1]
    d_level, d_logit = np.zeros(len(level)), np.zeros(log_pi.shape)
    d_shift, d_sigma, pi = np.zeros((2, K)), np.zeros((2, K)), np.exp(log_pi)
    for i in range(len(image)):
        j = image[i]
        for k in range(K):
            d_logit[j, k] += R[i, k] - pi[j, k]
            for w in range(2):
                n = count[i, w]
                if n == 0.0:
                    continue
                e = mean[i, w] - level[j] - shift[w, k]
                precision = sigma[w, k] ** -2
                first = n * (e * R[i, k] - Q1[i, k]) * precision
                d_level[j] += first
                d_shift[w, k] += first
                second = (spread[i, w] + n * e**2) * R[i, k] + n * (Q2[i, k] - 2 * e * Q1[i, k])
                d_sigma[w, k] += second * precision - n * R[i, k]
    return d_level, d_logit, d_shift, d_sigma


@njit(cache=True, error_model="numpy")
def _shared(tau, sigma, log_pi, centre, pivot, image, mean):  # type: ignore[no-untyped-def]
    """The same model with one type and no shift: outcomes less what their image's mean effect adds."""
    rest, effect = mean.copy(), np.exp(log_pi) @ tau
    shift = _shifts(effect, centre, pivot)
    for i in range(len(image)):
        for w in range(2):
            rest[i, w] -= shift[w, image[i]]
    return np.zeros((2, 1)), np.ascontiguousarray(sigma[:, :1]), np.zeros((len(log_pi), 1)), rest


@njit(cache=True, error_model="numpy")
def _share_slopes(tau, pi, level, centre, pivot, image, count, rest, Q1, sigma):  # type: ignore[no-untyped-def]
    """Derivatives by the logits, the effects and the pivot where images have shares of the types."""
    K, m = len(tau), len(level)
    effect, d_effect, d_pivot = pi @ tau, np.zeros(m), 0.0
    for i in range(len(image)):
        j = image[i]
        for w in range(2):
            slope = count[i, w] * (rest[i, w] - level[j] - Q1[i, 0]) * sigma[w, 0] ** -2
            d_effect[j] += (w - pivot) * slope
            d_pivot -= (effect[j] - centre) * slope
    apart = tau.reshape(1, K) - effect.reshape(m, 1)
    return pi * apart * d_effect.reshape(m, 1), pi.T @ d_effect, d_pivot


@njit(cache=True, error_model="numpy")
def _add_priors(x, grad, tau, gap, K, d, q, has_sites, prior):  # type: ignore[no-untyped-def]
    """Log prior density at x with the Jacobians of the logarithms; its gradient is added to ``grad``."""
    effect, effect_sd, noise_sd = prior[0], prior[1], prior[4]
    at = 1 + d
    value = -0.5 * x[0] ** 2
    grad[0] -= x[0]
    log_weight, precision = _student((x[1:at] ** 2).sum(), d, prior[7])
    value += log_weight
    grad[1:at] -= precision * x[1:at]
    pull = (tau - effect) / effect_sd
    value -= 0.5 * (pull**2).sum()
    for k in range(K):
        grad[at + k] -= pull[k:].sum() / effect_sd * gap[k]
        if k:
            value += x[at + k]
            grad[at + k] += 1.0
    for w in range(2):
        for k in range(at + K + w * q, at + K + (w + 1) * q):
            z = (x[k] - prior[2 + w]) / noise_sd
            value -= 0.5 * z * z
            grad[k] -= z / noise_sd
    if K > 1:
        value += _add_type_priors(x, grad, K, d, at + K + 2 * q, prior)
    if has_sites:
        ratio = np.exp(x[-1]) / prior[8]
        value += -0.5 * ratio**2 + x[-1]
        grad[-1] += 1.0 - ratio**2
    return value


@njit(cache=True, error_model="numpy")
def _add_type_priors(x, grad, K, d, al, prior):  # type: ignore[no-untyped-def]
    """The same of the logits, whose parameters start at ``al``, and of the pivot after them."""
    end = al + (K - 1) * (1 + d)
    pull = np.empty(end - al)  # precision of K - 1 differences from the first, with variances of one, times them
    for c in range(1 + d):
        low, step = (0, 1) if c == 0 else (K - 2 + c, d)
        total = 0.0
        for k in range(K - 1):
            total += x[al + low + k * step]
        for k in range(K - 1):
            pull[low + k * step] = 2.0 * (x[al + low + k * step] - total / K)
    intercepts, weights = slice(al, al + K - 1), slice(al + K - 1, end)
    value = -0.5 * (pull[: K - 1] * x[intercepts]).sum() / prior[6] ** 2
    grad[intercepts] -= pull[: K - 1] / prior[6] ** 2
    log_weight, precision = _student((pull[K - 1 :] * x[weights]).sum(), (K - 1) * d, prior[5])
    grad[weights] -= precision * pull[K - 1 :]
    pivot = 1.0 / (1.0 + np.exp(-x[end]))  # uniform: the prior of its logit is logistic
    grad[end] += 1.0 - 2.0 * pivot
    return value + log_weight + np.log(pivot) + np.log(1.0 - pivot)


@njit(cache=True, error_model="numpy")
def log_density(  # type: ignore[no-untyped-def]
    x, K, features, image, start, count, mean, spread, has_sites, prior, nodes, log_weights
):
    """Log posterior density at x up to a constant, and its gradient."""
    d, q = features.shape[1], 1 if prior[9] > 0.0 else K
    at, al = 1 + d, 1 + d + K + 2 * q
    ap = al + (K - 1) * (1 + d)
    tau, gap = _effects(x, K, at)
    sigma = _noise(x, K, q, at + K)
    log_pi = _types(x, K, features, al, prior[11])
    centre, pivot = prior[0], _pivot(x, K, ap)
    omega = np.exp(x[-1]) if has_sites else 0.0
    level = x[0] + features @ x[1:at]
    shares = prior[10] > 0.0
    shift, noise, lp, rest = _shifts(tau, centre, pivot), sigma, log_pi, mean
    if shares:
        shift, noise, lp, rest = _shared(tau, sigma, log_pi, centre, pivot, image, mean)
    sites, R, Q1, Q2, square = site_terms(
        shift, noise, lp, level, omega, image, start, count, rest, spread, has_sites, nodes, log_weights
    )
    d_level, d_logit, d_shift, d_sigma = _slopes(shift, noise, lp, level, image, count, rest, spread, R, Q1, Q2)
    if shares:
        d_logit, d_tau, d_pivot = _share_slopes(
            tau, np.exp(log_pi), level, centre, pivot, image, count, rest, Q1, noise
        )
    else:
        d_tau = (1.0 - pivot) * d_shift[1] - pivot * d_shift[0]
        d_pivot = -((d_shift[0] + d_shift[1]) * (tau - centre)).sum()
    grad = np.zeros(len(x))
    grad[0], grad[1:at] = d_level.sum(), features.T @ d_level
    for k in range(K):
        grad[at + k] = d_tau[k:].sum() * gap[k]
        for w in range(2):
            if k < d_sigma.shape[1]:
                grad[at + K + w * q + min(k, q - 1)] += d_sigma[w, k]
    if K > 1:
        grad[al : al + K - 1] = d_logit[:, 1:].sum(axis=0)
        grad[al + K - 1 : ap] = prior[11] * (np.ascontiguousarray(d_logit[:, 1:].T) @ features).ravel()
        grad[ap] = d_pivot * pivot * (1.0 - pivot)
    if has_sites:
        grad[-1] += (square / omega**2).sum() - len(sites)
    return sites.sum() + _add_priors(x, grad, tau, gap, K, d, q, has_sites, prior), grad


def site_log_likelihood(
    x: FloatArray, layout: Layout, cells: Cells, features: FloatArray, centre: float
) -> FloatArray:
    """Log predictive density of each site's outcomes, shape (g,), at one parameter vector.

    ``centre`` is the constant that effects are taken from, :attr:`Prior.effect`.
    """
    p = layout.unpack(x)
    logits = p["logit"][:, 0] + features @ p["logit"][:, 1:].T
    log_pi = np.ascontiguousarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    level = p["intercept"] + features @ p["prognostic"]
    pivot, sigma, mean = float(p["pivot"]), p["sigma"], cells.mean
    shift = _shifts(p["tau"], centre, pivot)
    if layout.shares:
        shift, sigma, log_pi, mean = _shared(p["tau"], sigma, log_pi, centre, pivot, cells.image, mean)
    sites, *_ = site_terms(
        shift,
        sigma,
        log_pi,
        level,
        float(p["site_sd"]),
        cells.image,
        cells.start,
        cells.count,
        mean,
        cells.spread,
        cells.has_sites,
        *nodes_and_log_weights(),
    )
    return np.asarray(sites)
