"""Features as a fit sees them: their weighted centres and scales, and how far a place lies from the trial's.

Whether a column varies is judged by its own size and by how finely its numbers are stored, never by an absolute
limit: features times 1e-12 or plus 1e10 are the same features.

The support of a place is a conformal p-value: the share of training units that lie at least as far from
their nearest neighbours as the place lies from its own. 1 is in the middle of the trial's data; below 0.05
the place is unlike nearly all units of the trial and its effect is an extrapolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.warn import warn
from causalsat.exceptions import DataWarning

__all__ = ["SINGLE_RESOLUTION", "Scaler", "learn_scaler", "observed_means", "warn_of_unresolved"]


FloatArray = NDArray[np.float64]

DOUBLE_RESOLUTION = 1e-13  # spread, relative to the largest value, that is rounding of double precision
SINGLE_RESOLUTION = 1e-6  # of single precision
EXACT_IN_SINGLE = 2.0**24  # whole numbers up to it are exact in single precision
COMBINATION_RESOLUTION = 1e-14  # spread, relative to the most spread column's, that is what rounding leaves of 0
FAR_FROM_ZERO = 1e6  # standard deviations; a mean further from zero is computed twice


@dataclass(frozen=True)
class Scaler:
    """Centres and scales of columns.

    Attributes
    ----------
    mean : ndarray of shape (p,)
        Weighted means; of shape () for a single variable.
    scale : ndarray of shape (p,)
        Weighted standard deviations; infinite for a column that does not vary, which :meth:`transform` makes 0.
    unresolved : ndarray of bool of shape (p,)
        Columns whose values differ by no more than rounding: they count as constant.
    """

    mean: FloatArray
    scale: FloatArray
    unresolved: NDArray[np.bool_]

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Which columns vary."""
        return np.isfinite(self.scale)

    @property
    def scale_or_one(self) -> FloatArray:
        """Standard deviations, 1 for what does not vary."""
        return np.where(self.varies, self.scale, 1.0)

    @property
    def factor(self) -> FloatArray:
        """One over the standard deviations, 0 for what does not vary."""
        return np.where(self.varies, 1.0 / self.scale_or_one, 0.0)

    def transform(self, values: ArrayLike) -> FloatArray:
        """Standardised values, of the shape given; 0 in columns that did not vary."""
        return np.asarray((np.asarray(values, dtype=float) - self.mean) / self.scale)


def learn_scaler(values: ArrayLike, weight: ArrayLike | None = None, *, resolution: float | None = None) -> Scaler:
    """Weighted mean and standard deviation of each column.

    Parameters
    ----------
    values : array of shape (n, p) or (n,)
        Finite numbers.
    weight : array of shape (n,), optional
        Non-negative weights; rows of weight 0 count for nothing. Equal by default.
    resolution : float, optional
        Share of a column's largest absolute value up to which its standard deviation is taken for rounding, and the
        column for constant. By default 1e-13, and 1e-6 for a column whose values are all of single precision. So is a
        column with 1e-14 of the spread of another: what rounding leaves of a principal component that is zero.

    Returns
    -------
    Scaler
        Of arrays of shape (p,), or () where ``values`` is one variable.

    Examples
    --------
    >>> X = np.array([[0.0, 5.0], [2.0, 5.0]])
    >>> learn_scaler(X).transform(X)
    array([[-1.,  0.],
           [ 1.,  0.]])
    >>> [float(learn_scaler(X[:, 0] * a + b).transform(a + b)) for a, b in ((1e-12, 0), (1, 1e10), (1e200, 0))]
    [0.0, 0.0, 0.0]
    """
    x = np.asarray(values, dtype=float)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=float)
    share = w / w.sum()
    mean = np.asarray(share @ x)
    sd = _spread(x, mean, share)
    far = np.abs(mean) > FAR_FROM_ZERO * sd
    if far.any():
        mean = np.where(far, mean + share @ (x - mean), mean)
        sd = np.where(far, _spread(x, mean, share), sd)
    live = x if (share > 0).all() else x[share > 0]
    size = np.abs(live).max(axis=0, initial=0.0)
    differs = live.max(axis=0, initial=-np.inf) > live.min(axis=0, initial=np.inf)
    limit = _resolution(live) if resolution is None else resolution
    varies = differs & (sd > limit * size) & (sd > COMBINATION_RESOLUTION * np.max(sd, initial=0.0))
    return Scaler(mean, np.where(varies, sd, np.inf), np.asarray(differs & ~varies))


def observed_means(values: ArrayLike, weight: ArrayLike | None = None) -> FloatArray:
    """Weighted mean of each column's finite values, shape (p,); 0 for a column that has none.

    Parameters
    ----------
    values : array of shape (n, p)
        Numbers, some of them missing.
    weight : array of shape (n,), optional
        Non-negative weights. Equal by default.

    Examples
    --------
    >>> observed_means([[1.0, 5.0], [3.0, np.nan]])
    array([2., 5.])
    """
    x = np.asarray(values, dtype=float)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=float)
    seen = np.isfinite(x)
    mass = np.where(seen, w[:, None], 0.0)
    total = mass.sum(axis=0)
    return np.asarray((mass * np.where(seen, x, 0.0)).sum(axis=0) / np.where(total > 0, total, 1.0))


def warn_of_unresolved(scaler: Scaler, names: Sequence[str]) -> None:
    """Warn of columns that count as constant because their values differ by rounding only.

    Parameters
    ----------
    scaler : Scaler
        Of p columns.
    names : sequence of str of length p
        The columns' names.
    """
    which = np.flatnonzero(scaler.unresolved)
    if len(which):
        shown = ", ".join(str(names[j]) for j in which[:5]) + (" ..." if len(which) > 5 else "")
        warn(
            f"features that vary by no more than rounding count as constant: {shown}. What to do: leave them out; "
            "or, if they are more than rounding, subtract a constant before they are stored, or use like units.",
            DataWarning,
        )


def _spread(x: FloatArray, mean: FloatArray, share: FloatArray) -> FloatArray:
    """Weighted standard deviation about ``mean``, at any size of the numbers."""
    centred = x - mean
    largest = np.abs(centred).max(axis=0, initial=0.0)
    unit = np.ldexp(1.0, np.frexp(np.where(largest > 0, largest, 1.0))[1] - 1)  # a power of two: exact
    return np.asarray(unit * np.sqrt(share @ (centred / unit) ** 2))


def _resolution(x: FloatArray) -> FloatArray:
    """How finely each column is stored, relative to its size."""
    with np.errstate(over="ignore"):
        single = (x.astype(np.float32) == x).all(axis=0)
    exact = ((np.abs(x) <= EXACT_IN_SINGLE) & (np.round(x) == x)).all(axis=0)
    return np.where(single & ~exact, SINGLE_RESOLUTION, DOUBLE_RESOLUTION)


N_NEIGHBOURS = 5
MAX_REFERENCE = 4000


@dataclass(frozen=True)
class SupportReference:
    """Training units in whitened coordinates and their own neighbour distances.

    Attributes
    ----------
    centre : ndarray of shape (p,)
        Mean of the training features.
    whitening : ndarray of shape (p, r)
        Map to coordinates with unit covariance (r is the features' rank).
    points : ndarray of shape (m, r)
        Distinct training units (at most 4,000 of them) in those coordinates.
    distances : ndarray of shape (m,)
        Sorted mean distances of each reference unit to its five nearest others.
    """

    centre: FloatArray
    whitening: FloatArray
    points: FloatArray
    distances: FloatArray


def whiten(X: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (p,) and map (p, rank) to coordinates with unit covariance, of the rows of X in any units."""
    scaler = learn_scaler(X)
    _, s, vt = np.linalg.svd(scaler.transform(X), full_matrices=False)
    keep = s > 1e-8 * max(float(s.max(initial=0.0)), 1e-300)
    return scaler.mean, scaler.factor[:, None] * vt[keep].T / (s[keep] / np.sqrt(len(X)))


def neighbour_distance(places: FloatArray, others: FloatArray, k: int) -> FloatArray:
    """Mean distance (n,) of each place from the k nearest of the others (all of them where there are fewer)."""
    from scipy.spatial import cKDTree

    nearest, _ = cKDTree(others).query(places, k=min(k, len(others)))
    return np.asarray(nearest, dtype=float).reshape(len(places), -1).mean(axis=1)


def learn_support(X: FloatArray, *, seed: int = 0) -> SupportReference:
    """Whiten the distinct rows of X and store their leave-one-out neighbour distances.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Training features, complete.
    seed : int
        Seed of the subsample taken where there are more than 4,000 distinct rows.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((500, 3))
    >>> reference = learn_support(X)
    >>> near, far = support(reference, np.array([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]))
    >>> bool(near > 0.5), bool(far < 0.05)
    (True, True)
    """
    from scipy.spatial import cKDTree

    centre, whitening = whiten(X)
    points = np.unique(X, axis=0)
    if len(points) > MAX_REFERENCE:
        points = points[np.sort(np.random.default_rng(seed).choice(len(points), MAX_REFERENCE, replace=False))]
    points = (points - centre) @ whitening
    k = min(N_NEIGHBOURS, len(points) - 1)
    if k < 1 or points.shape[1] == 0:
        return SupportReference(centre, whitening, points, np.zeros(1))
    nearest, _ = cKDTree(points).query(points, k=k + 1)
    return SupportReference(centre, whitening, points, np.sort(nearest[:, 1:].mean(axis=1)))


def support(reference: SupportReference, X: FloatArray) -> FloatArray:
    """Conformal p-value of each row's neighbour distance, shape (n,), in (0, 1]."""
    if reference.points.shape[1] == 0:
        return np.ones(len(X))
    k = min(N_NEIGHBOURS, max(len(reference.points) - 1, 1))
    distance = neighbour_distance((X - reference.centre) @ reference.whitening, reference.points, k)
    m = len(reference.distances)
    at_least_as_far = m - np.searchsorted(reference.distances, distance * (1 - 1e-9), side="left")
    return np.asarray((1.0 + at_least_as_far) / (1.0 + m))
