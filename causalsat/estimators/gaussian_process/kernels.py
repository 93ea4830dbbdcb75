"""Kernels of the Gaussian-process effect model: sums of (features kernel) x (treatment kernel).

Every term is ``amplitude^2 * k_x(x, x') * k_t(t, t')``. The functions here know nothing of outcomes. Stationary
kernels are functions of q = -|c - c'|^2 / 2 for coordinates c that depend on the parameters: squared exponential
k = exp(q), or Matern 5/2 (Rasmussen and Williams 2006, equation 4.17), which is not infinitely smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

__all__ = [
    "Term",
    "arm_features",
    "arm_matrix",
    "coordinates",
    "covariance",
    "cross_product",
    "curve_features",
    "dose_factor",
    "half_squares",
    "n_parameters",
    "prior_variance",
    "profile",
    "slope_of_profile",
]

CURVE_LENGTH = 1.8  # length of a learned curve in distances of its knots


@dataclass(frozen=True)
class Term:
    """One term of the covariance.

    Attributes
    ----------
    name : str
        Name for tables.
    x : {"const", "linear", "rbf", "index"}
        Kernel over the features: 1; linear with a weight for each feature; stationary with an inverse length for
        each feature (ARD); stationary in one learned projection (a ridge function).
    t : {"one", "arms", "linear", "rbf", "curve"}
        Kernel over the treatment: 1; two correlated arms, f1 = rho f0 + kappa h; t t'; stationary (with stationary
        features: one kernel over both); c(t) c(t') with one learned curve c.
    columns : ndarray of int
        Features that the term sees.
    start : int
        Position of its first parameter: log amplitude, then those of x, then those of t.
    matern : bool
        Stationary parts are Matern 5/2 instead of squared exponential.
    knots : ndarray of shape (K,)
        Equally spaced treatments that carry the learned curve.
    shared : int
        Position of the curve's weights where an earlier term holds them; -1 where this one does.
    """

    name: str
    x: str
    t: str
    columns: NDArray[np.int64]
    start: int
    matern: bool = False
    knots: FloatArray = field(default_factory=lambda: np.zeros(0))
    shared: int = -1

    @property
    def n_x(self) -> int:
        """Number of parameters of the features kernel."""
        return 0 if self.x == "const" else len(self.columns)

    @property
    def n_t(self) -> int:
        """Number of parameters of the treatment kernel."""
        if self.t == "curve":
            return 0 if self.shared >= 0 else len(self.knots)
        return {"one": 0, "linear": 0, "rbf": 1, "arms": 2}[self.t]

    @property
    def stop(self) -> int:
        """Position after its last parameter."""
        return self.start + 1 + self.n_x + self.n_t

    @property
    def curve(self) -> slice:
        """Where the weights of the learned curve lie."""
        first = self.shared if self.shared >= 0 else self.start + 1 + self.n_x
        return slice(first, first + len(self.knots))

    @property
    def stationary(self) -> bool:
        """Whether the term has stationary coordinates (those of its features, its treatment, or both)."""
        return self.x in ("rbf", "index") or self.t == "rbf"

    def split(self, theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Amplitude squared, parameters of x, parameters of t."""
        own = theta[self.start : self.stop]
        pt = theta[self.curve] if self.t == "curve" else own[1 + self.n_x :]
        return float(np.exp(2 * own[0])), own[1 : 1 + self.n_x], pt


def n_parameters(terms: Sequence[Term]) -> int:
    """Number of parameters of all terms."""
    return terms[-1].stop if terms else 0


def arm_features(t: FloatArray, params: FloatArray) -> FloatArray:
    """Features (n, 2) of the two-arm kernel: (1, 0) under control, (rho, kappa) under treatment."""
    return np.column_stack([1 + t * (params[0] - 1), t * np.exp(params[1])])


def arm_matrix(params: FloatArray) -> FloatArray:
    """Covariance (2, 2) of control and treated surfaces: [[1, rho], [rho, rho^2 + kappa^2]]."""
    pair = arm_features(np.array([0.0, 1.0]), params)
    return np.asarray(pair @ pair.T)


def curve_features(knots: FloatArray, t: FloatArray) -> FloatArray:
    """Features (n, K) whose standard normal weights make a smooth Gaussian process in t, of unit variance.

    Its length is :data:`CURVE_LENGTH` distances of knots, so that the knots lose little of it.

    Examples
    --------
    >>> phi = curve_features(np.linspace(0, 1, 9), np.array([0.1, 0.5]))
    >>> phi.shape, bool(np.allclose((phi**2).sum(axis=1), 1, atol=1e-3))
    ((2, 9), True)
    """
    from scipy.linalg import cholesky, solve_triangular

    length = CURVE_LENGTH * (knots[1] - knots[0])
    K, cross = (np.exp(-0.5 * (np.subtract.outer(knots, other) / length) ** 2) for other in (knots, t))
    return np.asarray(solve_triangular(cholesky(K + 1e-6 * np.eye(len(knots)), lower=True), cross, lower=True).T)


def dose_factor(term: Term, theta: FloatArray, t: FloatArray) -> FloatArray:
    """The factor f(t) of a treatment kernel f(t) f(t'): t itself, or the learned curve."""
    return t if term.t == "linear" else np.asarray(curve_features(term.knots, t) @ term.split(theta)[2])


def coordinates(term: Term, theta: FloatArray, X: FloatArray, t: FloatArray) -> FloatArray:
    """Scaled coordinates (n, d) in which the term is stationary; X holds all features."""
    _, px, pt = term.split(theta)
    parts = []
    if term.x == "rbf":
        parts.append(X[:, term.columns] * np.exp(px))
    elif term.x == "index":
        parts.append((X[:, term.columns] @ px)[:, None])
    if term.t == "rbf":
        parts.append((t * np.exp(pt[0]))[:, None])
    return parts[0] if len(parts) == 1 else np.column_stack(parts)


def half_squares(A: FloatArray, B: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Minus half the squared distances of the rows of A from those of B, as one matrix product."""
    left = np.column_stack([A, -0.5 * (A**2).sum(axis=1), np.ones(len(A))])
    right = np.column_stack([B, np.ones(len(B)), -0.5 * (B**2).sum(axis=1)])
    q = np.matmul(left, right.T, out=out)
    return np.asarray(np.minimum(q, 0, out=q))


def profile(q: FloatArray, matern: bool) -> FloatArray:
    """Kernel values for q, which is overwritten."""
    if not matern:
        return np.asarray(np.exp(q, out=q))
    root = np.sqrt(-10 * q)
    q *= -10 / 3
    q += 1
    q += root
    np.negative(root, out=root)
    q *= np.exp(root, out=root)
    return q


def slope_of_profile(q: FloatArray) -> FloatArray:
    """Derivative by q of the Matern kernel (the squared exponential is its own)."""
    root = np.sqrt(-10 * q)
    return np.asarray(5 / 3 * (1 + root) * np.exp(-root))


def _base(term: Term, theta: FloatArray, A: FloatArray, s: FloatArray, B: FloatArray, t: FloatArray) -> FloatArray:
    """The term's covariance without amplitude and without the factor of arms or of linear treatment."""
    _, px, _ = term.split(theta)
    if term.stationary:
        k = profile(half_squares(coordinates(term, theta, A, s), coordinates(term, theta, B, t)), term.matern)
        return k * linear_kernel(px, A[:, term.columns], B[:, term.columns]) if term.x == "linear" else k
    if term.x == "linear":
        return linear_kernel(px, A[:, term.columns], B[:, term.columns])
    return np.ones((len(A), len(B)))


def linear_kernel(p: FloatArray, A: FloatArray, B: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Sum over features of exp(2 p) times the product."""
    return np.asarray(np.matmul(A * np.exp(2 * p), B.T, out=out))


def covariance(
    terms: Sequence[Term], theta: FloatArray, A: FloatArray, s: FloatArray, B: FloatArray, t: FloatArray
) -> FloatArray:
    """Covariance (n, m) of the function at features A, treatments s with that at features B, treatments t."""
    total = np.zeros((len(A), len(B)))
    for term in terms:
        scale, _, pt = term.split(theta)
        k = _base(term, theta, A, s, B, t)
        if term.t in ("linear", "curve"):
            k *= np.multiply.outer(dose_factor(term, theta, s), dose_factor(term, theta, t))
        elif term.t == "arms":
            k *= arm_features(s, pt) @ arm_features(t, pt).T
        k *= scale
        total += k
    return total


def cross_product(
    terms: Sequence[Term],
    theta: FloatArray,
    X: FloatArray,
    level: FloatArray,
    baseline: FloatArray | None,
    Z: FloatArray,
    t: FloatArray,
    V: FloatArray,
) -> FloatArray:
    """Covariance of f(X, level) - f(X, baseline) with f(Z, t), times V: shape (n, columns of V).

    Without a baseline, of f(X, level). The features kernel is taken once where the treatment's is a product.
    """
    out = np.zeros((len(X), V.shape[1]))
    for term in terms:
        scale, _, pt = term.split(theta)
        base = _base(term, theta, X, level, Z, t)
        if term.t == "rbf":
            if baseline is not None:
                base -= _base(term, theta, X, baseline, Z, t)
            out += scale * (base @ V)
        elif term.t == "arms":
            own = arm_features(level, pt) - (0.0 if baseline is None else arm_features(baseline, pt))
            both = base @ (arm_features(t, pt)[:, :, None] * V[:, None]).reshape(len(Z), -1)
            out += scale * np.einsum("nk,nks->ns", own, both.reshape(len(X), 2, -1))
        elif term.t in ("linear", "curve"):
            own = dose_factor(term, theta, level)
            own = own if baseline is None else own - dose_factor(term, theta, baseline)
            out += scale * own[:, None] * (base @ (dose_factor(term, theta, t)[:, None] * V))
        elif baseline is None:
            out += scale * (base @ V)
    return out


def prior_variance(terms: Sequence[Term], theta: FloatArray, X: FloatArray, t: FloatArray) -> FloatArray:
    """Diagonal of the covariance."""
    total = np.zeros(len(X))
    for term in terms:
        scale, px, pt = term.split(theta)
        kx = (X[:, term.columns] ** 2) @ np.exp(2 * px) if term.x == "linear" else 1.0
        kt = dose_factor(term, theta, t) ** 2 if term.t in ("linear", "curve") else np.ones(len(X))
        if term.t == "arms":
            kt = (arm_features(t, pt) ** 2).sum(axis=1)
        total += scale * kx * kt
    return total
