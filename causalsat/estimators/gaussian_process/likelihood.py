"""Marginal posterior of the hyperparameters of the Gaussian-process effect model, given a trial's distinct rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.gaussian_process import kernels as gp_kernels
from causalsat.estimators.gaussian_process.kernels import FloatArray, Term, arm_features, arm_matrix
from causalsat.estimators.gaussian_process.model import Model, Observations

__all__ = ["MarginalPosterior", "SquareCovariance"]


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
        self.curves = [gp_kernels.curve_features(term.knots, t) if term.t == "curve" else None for term in terms]

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
            self.where[k] = gp_kernels.coordinates(term, theta, self.Z, self.t)
            q = gp_kernels.half_squares(self.where[k], self.where[k], kernel)
            if (slope := self.slopes[k]) is not None:
                _matern(q, slope, self.scratch)
            else:
                np.exp(q, out=q)
            if linear is None:
                np.copyto(self.scratch, kernel)
            else:
                np.multiply(kernel, gp_kernels.linear_kernel(px, X, X, linear), out=self.scratch)
        elif term.x == "linear":
            gp_kernels.linear_kernel(px, X, X, self.scratch)
        else:
            np.multiply.outer(self.t, self.t, out=self.scratch)

    # ------------------------------------------------------------------ gradients
    def gradient(self, theta: FloatArray, W: FloatArray) -> FloatArray:
        """Sum over entries of W (symmetric) times the covariance's derivative, for each parameter.

        The last call of :meth:`build` must have been at the same theta.
        """
        out = np.zeros(gp_kernels.n_parameters(self.terms))
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
        out = np.zeros((n, gp_kernels.n_parameters(self.terms)))
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


def village_pairs(group: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of all entries of the covariance that two rows of one village meet in.

    Examples
    --------
    >>> village_pairs(np.array([0, 1, 0]))
    (array([0, 0, 2, 2, 1]), array([0, 2, 0, 2, 1]))
    """
    order = np.argsort(group, kind="stable")
    size = np.bincount(group)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    mates = size[group[order]]  # of each row, taken village by village
    first = np.repeat(order, mates)
    position = np.arange(mates.sum()) - np.repeat(np.cumsum(mates) - mates, mates)
    return first, order[np.repeat(start[group[order]], mates) + position]


class MarginalPosterior:
    """Log posterior of the hyperparameters, with gradient and information, in memory that is used again.

    Parameters
    ----------
    model : Model
    data : Observations

    Attributes
    ----------
    count : int
        Evaluations so far.
    """

    def __init__(self, model: Model, data: Observations) -> None:
        self.model, self.data, self.count = model, data, 0
        self.square = SquareCovariance(model.terms, data.Z, data.t)
        self.pairs: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        if model.n_random and data.group is not None:
            rows, columns = village_pairs(data.group)
            self.pairs = rows, columns
            self.random = [np.ones(len(rows)), data.t[rows] * data.t[columns]][: model.n_random]

    def covariance(self, theta: FloatArray) -> FloatArray:
        """Covariance (m, m) of the rows' mean outcomes: surfaces, village effects and noise; overwritten later."""
        K = self.square.build(theta)
        if self.pairs is not None:
            for variance, base in zip(self.model.random_variance(theta), self.random, strict=True):
                K[self.pairs] += variance * base
        K[np.diag_indices(len(K))] += self.model.noise_variance(theta, self.data)
        return K

    def value(self, theta: FloatArray) -> float:
        """Log marginal likelihood plus log prior, up to a constant that depends on the units' weights alone."""
        return self._evaluate(theta, gradient=False)[0]

    def value_and_gradient(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Also the gradient; minus infinity where the covariance is not positive definite."""
        return self._evaluate(theta, gradient=True)

    def _evaluate(self, theta: FloatArray, *, gradient: bool) -> tuple[float, FloatArray]:
        """Rasmussen and Williams (2006), equations 5.8 and 5.9, plus what lies within the distinct rows."""
        from scipy.linalg import blas, lapack

        model, data, at = self.model, self.data, self.model.noise_at
        self.count += 1
        arms = slice(at, at + model.n_arms)
        noise = model.unit_noise(theta)
        K = self.covariance(theta)
        L, failed = lapack.dpotrf(K.T, lower=1, clean=1, overwrite_a=1)  # K.T: Fortran order, no copy
        diagonal = np.diag(L)
        if failed or not np.isfinite(diagonal).all():
            return -np.inf, np.zeros_like(theta)
        alpha, _ = lapack.dpotrs(L, data.y, lower=1)
        rest = -0.5 * (data.extra[:, 0] * np.log(2 * np.pi * noise) + data.extra[:, 1] / noise)
        value = -0.5 * data.y @ alpha - np.log(diagonal).sum() - 0.5 * len(alpha) * np.log(2 * np.pi) + rest.sum()
        z = (theta - model.prior_mean) / model.prior_sd
        value = float(value - 0.5 * z @ z)
        if not gradient:
            return value, np.zeros_like(theta)
        half, _ = lapack.dpotri(L, lower=1, overwrite_c=1)  # lower half of the inverse
        half = blas.dsyr(-1.0, alpha, a=half, lower=1, overwrite_a=1)
        half[np.diag_indices(len(alpha))] *= 0.5
        W = self._symmetric(half)  # inverse - alpha alpha'
        slope = np.zeros_like(theta)
        slope[:at] = self.square.gradient(theta, W)
        inner = np.bincount(data.arm, np.diag(W) / data.weight, minlength=model.n_arms)
        within = inner + data.extra[:, 0] / noise - data.extra[:, 1] / noise**2
        slope[arms] = within * 2 * np.exp(2 * theta[arms])
        if self.pairs is not None:
            own = [W[self.pairs] @ base for base in self.random]
            slope[at + model.n_arms :] = 2 * model.random_variance(theta) * own
        return value, -0.5 * slope - z / model.prior_sd

    def _symmetric(self, half: FloatArray) -> FloatArray:
        if not hasattr(self, "_room"):
            self._room = np.empty_like(self.square.total)
        return np.asarray(np.add(half, half.T, out=self._room))

    def information(self, theta: FloatArray) -> FloatArray:
        """Average information (Gilmour, Thompson and Cullis 1995) plus that of the prior, shape (k, k).

        The mean of observed and expected information of variance parameters: positive definite, and as cheap as
        one vector.
        """
        from scipy.linalg import cho_factor, cho_solve

        model, data, at = self.model, self.data, self.model.noise_at
        factor = cho_factor(self.covariance(theta), lower=True)
        alpha = cho_solve(factor, data.y)
        moved = np.zeros((len(alpha), len(theta)))
        moved[:, :at] = self.square.tangents(theta, alpha)
        arms = np.arange(at, at + model.n_arms)
        share = np.exp(2 * theta[arms])
        for arm in range(model.n_arms):
            moved[:, at + arm] = 2 * np.where(data.arm == arm, share[arm] / data.weight, 0.0) * alpha
        if self.pairs is not None:
            rows, columns = self.pairs
            for k, (v, base) in enumerate(zip(model.random_variance(theta), self.random, strict=True)):
                moved[:, at + model.n_arms + k] = 2 * v * np.bincount(rows, base * alpha[columns], len(alpha))
        information = 0.5 * moved.T @ cho_solve(factor, moved)
        noise = model.unit_noise(theta)
        information[arms, arms] += 2 * data.extra[:, 1] * share**2 / noise**3
        return np.asarray(information + np.diag(model.prior_sd**-2.0))
