r"""Missing features imputed in the model: proper multiple imputation by data augmentation.

Features and treatment are taken as jointly normal, missing at random given the observed ones, the treatment and
the outcome. A Gibbs sampler (Tanner and Wong 1987) draws in turn the missing values, the mean and covariance of the
features (normal and inverse-Wishart) and the coefficients, noise and village intercepts of the outcome's model with
its interactions, so that the imputations are congenial with that model (Meng 1994). In it given the coefficients

    y_i - (known part) = c_i' x_mis,i + e_i,    c_i = gamma_mis + t_i beta_mis,

so missing values given everything else are exactly normal. Its shrinkage is simpler than the final model's: normal
coefficients with inverse-gamma scales. A non-Gaussian outcome enters it as a working Gaussian one (the outcome of a
binary one, the logarithm of 1 + count, the logarithm of a positive one). Each imputation is then fitted in full, and
the draws of all fits together are the posterior (Gelman et al. 2013, section 18.2). The approximations are the joint
normality (also of binary features), units that are independent given their features, and the working outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = ["FeatureModel", "Outcome", "impute", "patterns"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

BURN_IN = 60  # Gibbs sweeps before the first imputation
BETWEEN = 10  # sweeps from one imputation to the next
RIDGE = 2.5**2  # prior variance of intercept and treatment


@dataclass(frozen=True)
class FeatureModel:
    """Joint normal distribution of the standardised features, one draw an imputation.

    Attributes
    ----------
    mean : ndarray of shape (imputation, p)
        Means.
    covariance : ndarray of shape (imputation, p, p)
        Covariances.
    """

    mean: FloatArray
    covariance: FloatArray

    def draws(
        self, rows: FloatArray, missing: BoolArray, which: IntArray, seed: int, decimals: int | None = None
    ) -> FloatArray:
        """Draws of the missing values of rows with one pattern, given the other features.

        Parameters
        ----------
        rows : ndarray of shape (n, p)
            Features; what stands in missing places is not read.
        missing : ndarray of bool of shape (p,)
            Which features are missing in all these rows.
        which : ndarray of int of shape (draw,)
            Imputation from which each draw takes mean and covariance.
        seed : int
            Draws depend on it and on a row's observed values, so equal rows get equal draws in any company.
        decimals : int, optional
            Rows whose observed values agree to so many decimals are equal.

        Returns
        -------
        ndarray of shape (draw, n, missing features)
        """
        out = np.empty((len(which), len(rows), int(missing.sum())))
        observed = rows[:, ~missing]
        if decimals is not None:
            observed = np.round(observed, decimals) + 0.0  # no negative zeros
        keys = [crc32(np.ascontiguousarray(row).tobytes()) for row in observed]
        normals = [np.random.default_rng([seed, key]).standard_normal((len(which), out.shape[2])) for key in keys]
        for m in range(len(self.mean)):
            own = which == m
            gain, root = conditional(self.covariance[m], missing)
            centre = self.mean[m][missing] + (rows[:, ~missing] - self.mean[m][~missing]) @ gain.T
            for i, z in enumerate(normals):
                out[own, i] = centre[i] + z[own] @ root.T
        return out


@dataclass(frozen=True)
class Outcome:
    """What the imputation knows of the outcome: a working Gaussian one and the units' roles.

    Attributes
    ----------
    y, t, weight : ndarray of shape (n,)
        Working outcome with unit variance, centred treatment, weights.
    flags : ndarray of shape (n, f)
        Complete columns with main effects that are no features: indicators, strata.
    modifiers : ndarray of int
        Features that interact with the treatment.
    arm : ndarray of int of shape (n,)
        Noise arm.
    group : ndarray of int of shape (n,) or None
        Villages with an intercept.
    """

    y: FloatArray
    t: FloatArray
    weight: FloatArray
    flags: FloatArray
    modifiers: IntArray
    arm: IntArray
    group: IntArray | None


def conditional(covariance: FloatArray, missing: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Regression of missing on observed features and the Cholesky factor of the residual covariance.

    Examples
    --------
    >>> import numpy as np
    >>> gain, root = conditional(np.array([[1.0, 0.6], [0.6, 1.0]]), np.array([True, False]))
    >>> gain, root
    (array([[0.6]]), array([[0.8]]))
    """
    inside = covariance[np.ix_(missing, missing)]
    if missing.all():
        return np.zeros((len(inside), 0)), np.asarray(np.linalg.cholesky(inside), dtype=np.float64)
    across = covariance[np.ix_(missing, ~missing)]
    gain = np.linalg.solve(covariance[np.ix_(~missing, ~missing)], across.T).T
    residual = inside - gain @ across.T
    root = np.linalg.cholesky(0.5 * (residual + residual.T) + 1e-10 * np.eye(len(residual)))
    return np.asarray(gain, dtype=np.float64), np.asarray(root, dtype=np.float64)


def patterns(missing: BoolArray) -> list[tuple[BoolArray, IntArray]]:
    """Patterns of missing values that occur, with the units that have each; complete units are left out."""
    kinds, member = np.unique(missing, axis=0, return_inverse=True)
    member = np.asarray(member).ravel()
    return [(kind, np.flatnonzero(member == k)) for k, kind in enumerate(kinds) if kind.any()]


def impute(
    Z: FloatArray, missing: BoolArray, outcome: Outcome, n_imputations: int, rng: np.random.Generator
) -> tuple[list[FloatArray], FeatureModel]:
    """Draw completed features.

    Parameters
    ----------
    Z : ndarray of shape (n, p)
        Standardised features; missing ones filled with anything.
    missing : ndarray of bool of shape (n, p)
        Which are missing.
    outcome : Outcome
        Working outcome.
    n_imputations : int
        How many completed tables.
    rng : Generator
        Source of randomness.

    Returns
    -------
    completed : list of ndarray of shape (n, p)
        Completed tables.
    model : FeatureModel
        Means and covariances of the features that go with them.
    """
    state = _State(Z, missing, outcome)
    completed, means, covariances = [], [], []
    for sweep in range(BURN_IN + BETWEEN * n_imputations):
        mean, covariance = state.draw_features(rng)
        state.draw_outcome_model(rng)
        state.draw_missing(mean, covariance, rng)
        if sweep >= BURN_IN and (sweep - BURN_IN) % BETWEEN == BETWEEN - 1:
            completed.append(state.V[:, :-1].copy())
            means.append(mean[:-1])
            covariances.append(covariance[:-1, :-1])
    return completed, FeatureModel(np.array(means), np.array(covariances))


class _State:
    """The Gibbs sampler's state: completed features and treatment V, coefficients, noise, village intercepts."""

    def __init__(self, Z: FloatArray, missing: BoolArray, outcome: Outcome) -> None:
        self.o = outcome
        self.V = np.column_stack([Z, outcome.t])
        self.p = Z.shape[1]
        self.patterns = patterns(np.column_stack([missing, np.zeros(len(Z), dtype=bool)]))
        self.noise = np.ones(int(outcome.arm.max()) + 1)
        self.village = np.zeros(0 if outcome.group is None else int(outcome.group.max()) + 1)
        self.scales = np.array([0.1, 0.1, 0.1])  # variances of main effects, interactions, village intercepts
        self.theta = np.zeros(2 + self.p + outcome.flags.shape[1] + len(outcome.modifiers))

    def rows(self) -> FloatArray:
        """Design rows: 1, t, features, flags, t times modifiers."""
        o, Z = self.o, self.V[:, :-1]
        return np.column_stack([np.ones(len(Z)), o.t, Z, o.flags, o.t[:, None] * Z[:, o.modifiers]])

    def of_village(self) -> FloatArray | float:
        """Village intercept of each unit."""
        return 0.0 if self.o.group is None else self.village[self.o.group]

    def draw_features(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Mean and covariance of features and treatment."""
        from scipy.stats import invwishart

        n, d = self.V.shape
        centre = self.V.mean(axis=0)
        scatter = (self.V - centre).T @ (self.V - centre)
        covariance = np.atleast_2d(invwishart.rvs(n + d + 1, scatter + np.eye(d), random_state=rng))
        return rng.multivariate_normal(centre, covariance / n, method="cholesky"), covariance

    def draw_outcome_model(self, rng: np.random.Generator) -> None:
        """Coefficients, their scales, noise and village intercepts."""
        o, rows = self.o, self.rows()
        n_main = self.p + o.flags.shape[1]
        precision = o.weight / self.noise[o.arm]
        prior = np.r_[RIDGE, RIDGE, np.full(n_main, self.scales[0]), np.full(len(o.modifiers), self.scales[1])]
        A = (rows * precision[:, None]).T @ rows + np.diag(1.0 / prior)
        L = np.linalg.cholesky(A)
        mean = np.linalg.solve(A, rows.T @ (precision * (o.y - self.of_village())))
        self.theta = mean + np.linalg.solve(L.T, rng.standard_normal(len(mean)))
        blocks = (self.theta[2 : 2 + n_main], self.theta[2 + n_main :], self.village)
        self.scales = np.array([_inverse_gamma(block, rng) for block in blocks])
        residual = o.y - rows @ self.theta
        if o.group is not None:
            size = len(self.village)
            seen = np.bincount(o.group, precision, size) + 1.0 / self.scales[2]
            self.village = np.bincount(o.group, precision * residual, size) / seen
            self.village += rng.standard_normal(size) / np.sqrt(seen)
            residual = residual - self.of_village()
        for a in range(len(self.noise)):
            own = o.arm == a
            rate = 0.5 * float(o.weight[own] @ residual[own] ** 2) + 0.05
            self.noise[a] = rate / rng.gamma(0.5 * float(o.weight[own].sum()) + 0.5)

    def draw_missing(self, mean: FloatArray, covariance: FloatArray, rng: np.random.Generator) -> None:
        """Missing values: a draw given the other features, corrected by what the outcome says of it."""
        o, p = self.o, self.p
        slope = np.zeros(p)
        slope[o.modifiers] = self.theta[2 + p + o.flags.shape[1] :]
        for pattern, units in self.patterns:
            gain, root = conditional(covariance, pattern)
            rows, places = self.V[units], np.flatnonzero(pattern)
            draw = mean[pattern] + (rows[:, ~pattern] - mean[~pattern]) @ gain.T
            draw += rng.standard_normal(draw.shape) @ root.T
            c = self.theta[2 + places] + o.t[units, None] * slope[places]
            filled = rows.copy()
            filled[:, places] = draw
            self.V[units] = filled
            variance = self.noise[o.arm[units]] / np.maximum(o.weight[units], 1e-9)
            spread = c @ (root @ root.T)
            simulated = self._fitted(units) + np.sqrt(variance) * rng.standard_normal(len(units))
            surprise = (o.y[units] - simulated) / ((spread * c).sum(axis=1) + variance)
            self.V[np.ix_(units, places)] = draw + spread * surprise[:, None]

    def _fitted(self, units: IntArray) -> FloatArray:
        o, Z, first = self.o, self.V[units, :-1], 2 + self.p
        of_flags, of_modifiers = self.theta[first:][: o.flags.shape[1]], self.theta[first + o.flags.shape[1] :]
        fitted = self.theta[0] + Z @ self.theta[2:first] + o.flags[units] @ of_flags
        village = 0.0 if o.group is None else self.village[o.group[units]]
        return np.asarray(fitted + o.t[units] * (self.theta[1] + Z[:, o.modifiers] @ of_modifiers) + village)


def _inverse_gamma(values: NDArray[Any], rng: np.random.Generator) -> float:
    """Variance of normal values with an inverse-gamma(1, 0.02) prior."""
    return float((0.02 + 0.5 * values @ values) / rng.gamma(1.0 + 0.5 * len(values)))
