"""Scaling and design of the Bayesian linear effect model.

Functions on arrays; nothing here samples. Notation: a unit i in village g and arm a has outcome ``y``, features
``z`` (standardised), centred treatment ``t`` and modifiers ``m`` (a subset of z). Its design row is
``d = (1, z, t, t m)``, followed by indicators of its stratum and t times those where there are strata, and its
random-effect row is ``r = (1)`` or ``(1, t)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.scaling import learn_scaler

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RANK_TOLERANCE = 1e-10  # eigenvalues of the Gram matrix below this share of the largest count as zero


@dataclass(frozen=True)
class Scaling:
    """Location and scale of features, outcome and treatment in the training data.

    Attributes
    ----------
    x_mean : ndarray of shape (p,)
        Weighted means of the features.
    x_factor : ndarray of shape (p,)
        One over their weighted standard deviations; 0 for a constant feature, which then has no part.
    y_mean, y_scale : float
        Weighted mean and standard deviation of the outcome; 0 and 1 where it is not rescaled.
    t_centre, t_scale : float
        Weighted mean of the treatment; 1 where it is binary, else two standard deviations, so that one scaled
        unit of a dose is comparable with the step from control to treated.
    """

    x_mean: FloatArray
    x_factor: FloatArray
    y_mean: float
    y_scale: float
    t_centre: float
    t_scale: float

    def features(self, X: FloatArray) -> FloatArray:
        """Standardised features, shape (n, p)."""
        return (X - self.x_mean) * self.x_factor

    def treatment(self, t: FloatArray) -> FloatArray:
        """Centred and scaled treatment, shape (n,)."""
        return (t - self.t_centre) / self.t_scale

    def outcome(self, y: FloatArray) -> FloatArray:
        """Standardised outcome, shape (n,)."""
        return (y - self.y_mean) / self.y_scale


def learn_scaling(X: FloatArray, y: FloatArray, t: FloatArray, weight: FloatArray, *, rescale_y: bool) -> Scaling:
    """Learn the scaling from training data.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Features.
    y, t, weight : ndarray of shape (n,)
        Outcome, treatment, weights with mean 1.
    rescale_y : bool
        Whether the outcome is standardised (a binary one is not).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 5.0], [2.0, 5.0]])
    >>> s = learn_scaling(X, np.array([1.0, 3.0]), np.array([0.0, 1.0]), np.ones(2), rescale_y=True)
    >>> s.features(X)
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    features, dose = learn_scaler(X, weight), learn_scaler(t, weight)
    y_mean, y_scale = 0.0, 1.0
    if rescale_y:
        outcome = learn_scaler(y, weight)
        y_mean, y_scale = float(outcome.mean), float(outcome.scale_or_one)
    binary = bool(np.isin(t, (0.0, 1.0)).all())
    t_scale = 1.0 if binary else 2.0 * float(dose.scale_or_one)
    return Scaling(features.mean, features.factor, y_mean, y_scale, float(dose.mean), t_scale)


@dataclass(frozen=True)
class LinearDesign:
    """Standardised data of the linear model, what both the fast density and the PyMC model read.

    Attributes
    ----------
    main : ndarray of shape (n, p)
        Columns with main effects (standardised features, or their principal axes where those are fewer).
    interaction : ndarray of shape (n, J)
        Centred treatment times modifiers.
    t : ndarray of shape (n,)
        Centred, scaled treatment.
    y, weight : ndarray of shape (n,)
        Standardised outcome; weights with mean 1.
    arm : ndarray of int of shape (n,)
        Noise arm of each unit; all 0 where noise is common.
    group : ndarray of int of shape (n,) or None
        Village codes, None without village effects.
    n_random : int
        Random effects a village: 0 none, 1 intercept, 2 intercept and treatment slope.
    stratum : ndarray of int of shape (n,) or None
        Stratum codes, None without strata.
    offset : float
        Added to the predictor of a logarithm: the logarithm of the mean outcome.
    """

    main: FloatArray
    interaction: FloatArray
    t: FloatArray
    y: FloatArray
    weight: FloatArray
    arm: IntArray
    group: IntArray | None
    n_random: int
    stratum: IntArray | None = None
    offset: float = 0.0

    @property
    def rows(self) -> FloatArray:
        """Design rows (1, main, t, interaction, strata, t x strata), shape (n, 2 + p + J + 2 S)."""
        parts = [np.ones(len(self.y)), self.main, self.t, self.interaction]
        if self.stratum is not None:
            member = np.eye(self.n_strata)[self.stratum]
            parts += [member, self.t[:, None] * member]
        return np.column_stack(parts)

    @property
    def n_strata(self) -> int:
        """Number of strata with effects of their own."""
        return 0 if self.stratum is None else int(self.stratum.max()) + 1

    @property
    def n_arms(self) -> int:
        """Number of noise arms."""
        return int(self.arm.max()) + 1

    @property
    def n_groups(self) -> int:
        """Number of villages with an effect of their own."""
        return 0 if self.group is None or self.n_random == 0 else int(self.group.max()) + 1


def principal_axes(Z: FloatArray) -> FloatArray | None:
    """Orthonormal axes that span the rows of Z, shape (p, rank); None where Z has full column rank.

    Under a prior that is the same for all directions (independent normals of one scale) the model in the
    coordinates ``Z @ axes`` is exactly the model in Z: the likelihood says nothing of the other directions.

    Examples
    --------
    >>> import numpy as np
    >>> principal_axes(np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])).shape
    (2, 1)
    """
    n, p = Z.shape
    if p == 0:
        return None
    if p > n:
        _, s, vt = np.linalg.svd(Z, full_matrices=False)
        eigen, vectors = s**2, vt.T
    else:
        eigen, vectors = np.linalg.eigh(Z.T @ Z)
    keep = eigen > RANK_TOLERANCE * max(float(eigen.max()), 1e-300)
    return None if keep.sum() == p else np.ascontiguousarray(vectors[:, keep])


def expand_axes(
    reduced: FloatArray, axes: FloatArray | None, scale: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Coefficients in the original coordinates from those in principal axes.

    Directions on which the data say nothing get draws from the prior, so that the posterior is exact for
    places whose features leave the span of the training features.

    Parameters
    ----------
    reduced : ndarray of shape (draw, rank)
        Draws in the axes.
    axes : ndarray of shape (p, rank) or None
        Result of :func:`principal_axes`.
    scale : ndarray of shape (draw,)
        Prior standard deviation of each coefficient in each draw.
    """
    if axes is None:
        return reduced
    prior = rng.standard_normal((len(reduced), axes.shape[0])) * scale[:, None]
    return (reduced - prior @ axes) @ axes.T + prior
