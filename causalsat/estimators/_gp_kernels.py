"""Kernels of the Gaussian-process effect model: sums of (features kernel) x (treatment kernel), with gradients.

Every term is ``amplitude^2 * k_x(x, x') * k_t(t, t')``. The functions here know nothing of outcomes; gradients are
vector-Jacobian products, so that a gradient of the marginal likelihood costs a few matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

__all__ = [
    "Term",
    "arm_features",
    "covariance",
    "covariance_and_parts",
    "covariance_gradient",
    "covariance_tangents",
    "n_parameters",
]


@dataclass(frozen=True)
class Term:
    """One term of the covariance.

    Attributes
    ----------
    name : str
        Name for tables.
    x : {"const", "linear", "rbf", "index"}
        Kernel over the features: 1; linear with a weight for each feature; squared exponential with an inverse
        length for each feature (ARD); squared exponential of one learnt projection (a ridge function).
    t : {"one", "arms", "linear", "rbf"}
        Kernel over the treatment: 1; two correlated arms, f1 = rho f0 + kappa h; t t'; squared exponential.
    columns : ndarray of int
        Features that the term sees.
    start : int
        Position of its first parameter: log amplitude, then those of x, then those of t.
    """

    name: str
    x: str
    t: str
    columns: NDArray[np.int64]
    start: int

    @property
    def n_x(self) -> int:
        """Number of parameters of the features kernel."""
        return 0 if self.x == "const" else len(self.columns)

    @property
    def n_t(self) -> int:
        """Number of parameters of the treatment kernel."""
        return {"one": 0, "linear": 0, "rbf": 1, "arms": 2}[self.t]

    @property
    def stop(self) -> int:
        """Position after its last parameter."""
        return self.start + 1 + self.n_x + self.n_t

    def split(self, theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Amplitude squared, parameters of x, parameters of t."""
        own = theta[self.start : self.stop]
        return float(np.exp(2 * own[0])), own[1 : 1 + self.n_x], own[1 + self.n_x :]


def n_parameters(terms: Sequence[Term]) -> int:
    """Number of parameters of all terms."""
    return terms[-1].stop if terms else 0


def arm_features(t: FloatArray, params: FloatArray) -> FloatArray:
    """Features (n, 2) of the two-arm kernel: (1, 0) under control, (rho, kappa) under treatment."""
    return np.column_stack([1 + t * (params[0] - 1), t * np.exp(params[1])])


def _x_kernel(kind: str, p: FloatArray, A: FloatArray, B: FloatArray) -> FloatArray | float:
    if kind == "const":
        return 1.0
    if kind == "linear":
        return np.asarray((A * np.exp(2 * p)) @ B.T)
    if kind == "index":
        square = np.subtract.outer(A @ p, B @ p)
        square *= square
    else:
        scaled, other = A * np.exp(p), B * np.exp(p)
        square = -2 * (scaled @ other.T)
        square += (scaled**2).sum(axis=1)[:, None]
        square += (other**2).sum(axis=1)[None]
        np.maximum(square, 0, out=square)
    square *= -0.5
    return np.asarray(np.exp(square, out=square))


def _t_kernel(kind: str, p: FloatArray, s: FloatArray, t: FloatArray) -> FloatArray | float:
    if kind == "one":
        return 1.0
    if kind == "linear":
        return np.multiply.outer(s, t)
    if kind == "arms":
        return np.asarray(arm_features(s, p) @ arm_features(t, p).T)
    return np.asarray(np.exp(-0.5 * (np.exp(p[0]) * np.subtract.outer(s, t)) ** 2))


def _x_gradient(kind: str, p: FloatArray, Z: FloatArray, K: FloatArray | float, G: FloatArray) -> FloatArray:
    """Sum of G times the derivative of the (square) features kernel, for each parameter; G is symmetric."""
    if kind == "const":
        return np.zeros(0)
    if kind == "linear":
        return np.asarray(2 * np.exp(2 * p) * np.einsum("ij,ij->j", Z, G @ Z))
    H = G * K
    mass = H.sum(axis=1)
    if kind == "index":
        u = Z @ p
        return np.asarray(-2 * Z.T @ (mass * u - H @ u))
    return np.asarray(-2 * np.exp(2 * p) * (mass @ Z**2 - np.einsum("ij,ij->j", Z, H @ Z)))


def _t_gradient(kind: str, p: FloatArray, t: FloatArray, K: FloatArray | float, G: FloatArray) -> FloatArray:
    if kind == "rbf":
        return np.array([-np.einsum("ij,ij->", G * K, (np.exp(p[0]) * np.subtract.outer(t, t)) ** 2)])
    if kind == "arms":
        features = arm_features(t, p)
        pulled = G @ features
        return np.array([2 * t @ pulled[:, 0], 2 * features[:, 1] @ pulled[:, 1]])
    return np.zeros(0)


def covariance(
    terms: Sequence[Term], theta: FloatArray, A: FloatArray, s: FloatArray, B: FloatArray, t: FloatArray
) -> FloatArray:
    """Covariance (n, m) of the function at features A, treatments s with that at features B, treatments t."""
    total = np.zeros((len(A), len(B)))
    for term in terms:
        scale, px, pt = term.split(theta)
        total += scale * _x_kernel(term.x, px, A[:, term.columns], B[:, term.columns]) * (_t_kernel(term.t, pt, s, t))
    return total


def covariance_and_parts(
    terms: Sequence[Term], theta: FloatArray, Z: FloatArray, t: FloatArray
) -> tuple[FloatArray, list[tuple[FloatArray | float, FloatArray | float]]]:
    """Square covariance with the factors of every term, for :func:`covariance_gradient`."""
    total, product = np.zeros((len(Z), len(Z))), np.empty((len(Z), len(Z)))
    parts = []
    for term in terms:
        scale, px, pt = term.split(theta)
        kx, kt = _x_kernel(term.x, px, Z[:, term.columns], Z[:, term.columns]), _t_kernel(term.t, pt, t, t)
        parts.append((kx, kt))
        np.multiply(kx, kt, out=product)
        product *= scale
        total += product
    return total, parts


def covariance_tangents(
    terms: Sequence[Term],
    theta: FloatArray,
    Z: FloatArray,
    t: FloatArray,
    parts: Sequence[tuple[FloatArray | float, FloatArray | float]],
    a: FloatArray,
) -> FloatArray:
    """The covariance's derivative by each parameter, times the vector a: shape (n, k)."""
    out = np.zeros((len(t), n_parameters(terms)))
    n = len(t)
    for term, (kx, kt) in zip(terms, parts, strict=True):
        scale, px, pt = term.split(theta)
        own, X = out[:, term.start : term.stop], Z[:, term.columns]
        Q = np.broadcast_to(scale * (kt * np.asarray(kx)), (n, n))
        Qa = Q @ a
        own[:, 0] = 2 * Qa
        if term.x == "linear":
            T = np.broadcast_to(scale * np.asarray(kt), (n, n))
            own[:, 1 : 1 + term.n_x] = 2 * np.exp(2 * px) * X * (T @ (X * a[:, None]))
        elif term.x == "rbf":
            moved = X**2 * Qa[:, None] + Q @ (X**2 * a[:, None]) - 2 * X * (Q @ (X * a[:, None]))
            own[:, 1 : 1 + term.n_x] = -np.exp(2 * px) * moved
        elif term.x == "index":
            u = X @ px
            moved = (u * Qa - Q @ (u * a))[:, None] * X - u[:, None] * (Q @ (X * a[:, None]))
            own[:, 1 : 1 + term.n_x] = -(moved + Q @ (X * (u * a)[:, None]))
        own[:, 1 + term.n_x :] = _t_tangents(term, pt, t, np.broadcast_to(scale * np.asarray(kx), (n, n)), Q, a)
    return out


def _t_tangents(term: Term, p: FloatArray, t: FloatArray, Y: FloatArray, Q: FloatArray, a: FloatArray) -> FloatArray:
    if term.t == "rbf":
        return np.asarray(-((Q * (np.exp(p[0]) * np.subtract.outer(t, t)) ** 2) @ a)[:, None])
    if term.t == "arms":
        first, second = arm_features(t, p).T
        return np.column_stack([t * (Y @ (first * a)) + first * (Y @ (t * a)), 2 * second * (Y @ (second * a))])
    return np.zeros((len(t), 0))


def covariance_gradient(
    terms: Sequence[Term],
    theta: FloatArray,
    Z: FloatArray,
    t: FloatArray,
    parts: Sequence[tuple[FloatArray | float, FloatArray | float]],
    G: FloatArray,
) -> FloatArray:
    """Sum over entries of G (symmetric) times the covariance's derivative, for each parameter."""
    out = np.zeros(n_parameters(terms))
    for term, (kx, kt) in zip(terms, parts, strict=True):
        scale, px, pt = term.split(theta)
        Gx = scale * G if np.ndim(kt) == 0 else scale * (G * kt)  # gradient of the features kernel
        own = out[term.start : term.stop]
        own[0] = 2 * (Gx.sum() if np.ndim(kx) == 0 else np.einsum("ij,ij->", Gx, kx))
        own[1 : 1 + term.n_x] = _x_gradient(term.x, px, Z[:, term.columns], kx, Gx)
        if term.n_t:
            Gt = scale * G if np.ndim(kx) == 0 else scale * (G * kx)
            own[1 + term.n_x :] = _t_gradient(term.t, pt, t, kt, Gt)
    return out
