"""The square covariance of a trial's rows: built and differentiated in memory that is used again and again.

Gradients are vector-Jacobian products, so that a gradient of the marginal likelihood costs a few matrix products;
tangents (derivatives of the covariance times one vector) serve the average information.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causalsat.estimators import _gp_kernels
from causalsat.estimators._gp_kernels import FloatArray, Term, arm_features, arm_matrix

__all__ = ["SquareCovariance"]


class SquareCovariance:
    """Covariance of the function among the rows of one data set.

    Parameters
    ----------
    terms : sequence of Term
    Z : ndarray of shape (n, p)
        Features.
    t : ndarray of shape (n,)
        Treatment; where a term has arms: 0 for the first rows, 1 for the rest.

    Attributes
    ----------
    total : ndarray of shape (n, n)
        The covariance at the last parameters that :meth:`build` was given; callers may overwrite it.
    """

    def __init__(self, terms: Sequence[Term], Z: FloatArray, t: FloatArray) -> None:
        n = len(t)
        self.terms, self.Z, self.t = list(terms), Z, t
        self.n_control = int(np.sum(t == 0))
        if any(term.t == "arms" for term in terms) and not np.array_equal(t, np.arange(n) >= self.n_control):
            raise ValueError("rows of two arms must be sorted: controls, then treated")
        self.total, self.scratch = np.empty((n, n)), np.empty((n, n))
        self.kernels = [np.empty((n, n)) if term.stationary else None for term in terms]
        self.slopes = [np.empty((n, n)) if term.stationary and term.matern else None for term in terms]
        self.linear = [np.empty((n, n)) if term.x == "linear" and term.t == "rbf" else None for term in terms]
        self.where = [np.empty((0, 0)) for _ in terms]  # coordinates
        self.curves = [_gp_kernels.curve_features(term.knots, t) if term.t == "curve" else None for term in terms]

    def _blocks(self, M: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        c = self.n_control
        return M[:c, :c], M[:c, c:], M[c:, :c], M[c:, c:]

    def _scale_arms(self, M: FloatArray, B: FloatArray) -> None:
        """Multiply the arms' blocks by the entries of B, in place."""
        for block, factor in zip(self._blocks(M), B.ravel(), strict=True):
            block *= factor

    def _scale(self, k: int, M: FloatArray, theta: FloatArray) -> None:
        """Multiply M by the term's amplitude and the factor of its arms or of its curve, in place."""
        scale, _, pt = self.terms[k].split(theta)
        phi = self.curves[k]
        if self.terms[k].t == "arms":
            self._scale_arms(M, scale * arm_matrix(pt))
        elif phi is not None:
            c = phi @ pt
            M *= scale * c[:, None]
            M *= c
        else:
            M *= scale

    # ------------------------------------------------------------------ values
    def build(self, theta: FloatArray) -> FloatArray:
        """Covariance at theta, in ``total``."""
        self.total.fill(0.0)
        for k, term in enumerate(self.terms):
            if term.x == "const" and term.t == "one":
                self.total += term.split(theta)[0]
                continue
            self._base(k, term, theta)
            self._scale(k, self.scratch, theta)
            self.total += self.scratch
        return self.total

    def _base(self, k: int, term: Term, theta: FloatArray) -> None:
        """Put the term's kernel without amplitude, arms and curve into scratch; keep what its gradient needs."""
        _, px, _ = term.split(theta)
        X = self.Z[:, term.columns]
        kernel, linear = self.kernels[k], self.linear[k]
        if kernel is not None:
            self.where[k] = _gp_kernels.coordinates(term, theta, self.Z, self.t)
            q = _gp_kernels.half_squares(self.where[k], self.where[k], kernel)
            if (slope := self.slopes[k]) is not None:
                _matern(q, slope, self.scratch)
            else:
                np.exp(q, out=q)
            if linear is None:
                np.copyto(self.scratch, kernel)
            else:
                np.multiply(kernel, _gp_kernels.linear_kernel(px, X, X, linear), out=self.scratch)
        elif term.x == "linear":
            _gp_kernels.linear_kernel(px, X, X, self.scratch)
        else:
            np.multiply.outer(self.t, self.t, out=self.scratch)

    # ------------------------------------------------------------------ gradients
    def gradient(self, theta: FloatArray, W: FloatArray) -> FloatArray:
        """Sum over entries of W (symmetric) times the covariance's derivative, for each parameter.

        The last call of :meth:`build` must have been at the same theta.
        """
        out = np.zeros(_gp_kernels.n_parameters(self.terms))
        for k, term in enumerate(self.terms):
            own = out[term.start : term.stop]
            if term.x == "linear":
                self._linear_gradient(k, term, theta, W, out)
            elif term.stationary:
                self._stationary_gradient(k, term, theta, W, out)
            else:
                scale = term.split(theta)[0]
                own[0] = 2 * scale * (W.sum() if term.t == "one" else self.t @ W @ self.t)
        return out

    def _arms_gradient(self, sums: FloatArray, scale: float, pt: FloatArray, own: FloatArray) -> None:
        """Gradient by amplitude, rho and log kappa from the sums (2, 2) over the arms' blocks."""
        rho, kappa = pt[0], np.exp(pt[1])
        own[0] = 2 * scale * (sums * arm_matrix(pt)).sum()
        own[-2] = scale * (sums[0, 1] + sums[1, 0] + 2 * rho * sums[1, 1])
        own[-1] = scale * 2 * kappa**2 * sums[1, 1]

    def _linear_gradient(self, k: int, term: Term, theta: FloatArray, W: FloatArray, out: FloatArray) -> None:
        scale, px, pt = term.split(theta)
        own = out[term.start : term.stop]
        X, weight = self.Z[:, term.columns], np.exp(2 * px)
        if term.t == "arms":
            c = self.n_control
            halves = (slice(None, c), slice(c, None))
            sums = np.array([[np.einsum("ij,ij->j", X[a], W[a, b] @ X[b]) for b in halves] for a in halves])
            self._arms_gradient(sums @ weight, scale, pt, own)
            own[1 : 1 + term.n_x] = 2 * scale * weight * np.einsum("ab,abj->j", arm_matrix(pt), sums)
            return
        kernel, phi = self.kernels[k], self.curves[k]
        if phi is not None:
            moved = W @ ((phi @ pt)[:, None] * X)
            out[term.curve] += 2 * scale * phi.T @ ((X * moved) @ weight)
            share = weight * ((phi @ pt) @ (X * moved))
            own[0], own[1 : 1 + term.n_x] = 2 * scale * share.sum(), 2 * scale * share
            return
        G = W if kernel is None else np.multiply(W, kernel, out=self.scratch)
        share = weight * np.einsum("ij,ij->j", X, G @ X)
        own[0], own[1 : 1 + term.n_x] = 2 * scale * share.sum(), 2 * scale * share
        if kernel is not None:
            slope = self.slopes[k]
            np.multiply(W, kernel if slope is None else slope, out=self.scratch)
            self.scratch *= np.asarray(self.linear[k])
            C = self.where[k]
            own[-1] = scale * np.sum(self._pull(self.scratch, C) * C)

    def _stationary_gradient(self, k: int, term: Term, theta: FloatArray, W: FloatArray, out: FloatArray) -> None:
        scale, _, pt = term.split(theta)
        own = out[term.start : term.stop]
        C, slope = self.where[k], self.slopes[k]
        kernel, phi = self.kernels[k], self.curves[k]
        assert kernel is not None
        H = np.multiply(W, kernel, out=self.scratch)
        if term.t == "arms":
            sums = np.array([block.sum() for block in self._blocks(H)]).reshape(2, 2)
            self._arms_gradient(sums, scale, pt, own)
        elif phi is not None:
            moved = H @ (phi @ pt)
            own[0] = 2 * scale * (phi @ pt) @ moved
            out[term.curve] += 2 * scale * phi.T @ moved
        else:
            own[0] = 2 * scale * H.sum()
        if slope is not None:
            np.multiply(W, slope, out=H)
        self._scale(k, H, theta)
        R = self._pull(H, C)
        if term.x == "rbf":
            own[1 : 1 + term.n_x] = np.einsum("ij,ij->j", R, C)[: term.n_x]
        elif term.x == "index":
            own[1 : 1 + term.n_x] = self.Z[:, term.columns].T @ R[:, 0]
        if term.t == "rbf":
            own[-1] = R[:, -1] @ C[:, -1]

    @staticmethod
    def _pull(H: FloatArray, C: FloatArray) -> FloatArray:
        """Derivative by the coordinates C of the sum of H times q; H is symmetric."""
        moved = H @ np.column_stack([C, np.ones(len(C))])
        return np.asarray(-2 * (moved[:, -1:] * C - moved[:, :-1]))

    # ------------------------------------------------------------------ tangents
    def tangents(self, theta: FloatArray, a: FloatArray) -> FloatArray:
        """The covariance's derivative by each parameter, times the vector a: shape (n, k)."""
        n = len(self.t)
        out = np.zeros((n, _gp_kernels.n_parameters(self.terms)))
        for k, term in enumerate(self.terms):
            scale, px, pt = term.split(theta)
            own, X = out[:, term.start : term.stop], self.Z[:, term.columns]
            if not term.stationary and term.x == "const":
                flat = np.ones(n) if term.t == "one" else self.t
                own[:, 0] = 2 * scale * flat * (flat @ a)
                continue
            self._base(k, term, theta)
            base = scale * self.scratch  # amplitude, no arms, no curve
            Q = self.scratch.copy()
            self._scale(k, Q, theta)
            if (phi := self.curves[k]) is not None:
                c = phi @ pt
                out[:, term.curve] += phi * (base @ (c * a))[:, None] + c[:, None] * (base @ (phi * a[:, None]))
            if term.t == "arms":
                first, second = arm_features(self.t, pt).T
                own[:, -2] = self.t * (base @ (first * a)) + first * (base @ (self.t * a))
                own[:, -1] = 2 * second * (base @ (second * a))
            own[:, 0] = 2 * (Q @ a)
            if term.x == "linear":
                kt = np.ones((n, n)) if self.kernels[k] is None else np.array(self.kernels[k])
                self._scale(k, kt, theta)
                own[:, 1 : 1 + term.n_x] = 2 * np.exp(2 * px) * X * (kt @ (X * a[:, None]))
            if term.stationary:
                self._stationary_tangents(k, term, theta, Q, a, own)
        return out

    def _stationary_tangents(
        self, k: int, term: Term, theta: FloatArray, Q: FloatArray, a: FloatArray, own: FloatArray
    ) -> None:
        C, slope = self.where[k], self.slopes[k]
        if slope is not None:
            Q = slope.copy() if self.linear[k] is None else slope * np.asarray(self.linear[k])
            self._scale(k, Q, theta)

        def moved(c: FloatArray, v: FloatArray) -> FloatArray:
            """Derivative along moves v (n, m) of the coordinates c (n, m or 1)."""
            Qa = (Q @ a)[:, None]
            return np.asarray(
                -(v * c * Qa - v * (Q @ (c * a[:, None])) - c * (Q @ (v * a[:, None])) + Q @ (c * v * a[:, None]))
            )

        if term.x == "rbf":
            own[:, 1 : 1 + term.n_x] = moved(C[:, : term.n_x], C[:, : term.n_x])
        elif term.x == "index":
            own[:, 1 : 1 + term.n_x] = moved(C[:, :1], self.Z[:, term.columns])
        if term.t == "rbf":
            own[:, -1:] = moved(C[:, -1:], C[:, -1:])


def _matern(q: FloatArray, slope: FloatArray, scratch: FloatArray) -> None:
    """Matern 5/2 kernel of q (in place) and its derivative by q."""
    np.multiply(q, -10, out=slope)
    np.sqrt(slope, out=slope)
    np.negative(slope, out=scratch)
    np.exp(scratch, out=scratch)
    slope += 1
    q *= -10 / 3
    q += slope
    q *= scratch
    slope *= scratch
    slope *= 5 / 3
