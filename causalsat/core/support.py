"""Support: how much the trial says about a place, from the distance of its features to the trial's.

The support of a place is a conformal p-value: the share of training units that lie at least as far from
their nearest neighbours as the place lies from its own. 1 is in the middle of the trial's data; below 0.05
the place is unlike nearly all units of the trial and its effect is an extrapolation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.scaling import learn_scaler

FloatArray = NDArray[np.float64]

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
