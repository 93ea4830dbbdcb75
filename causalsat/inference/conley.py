r"""Standard errors of errors that are correlated in space (Conley 1999).

With ``psi_i`` the influence of unit i on the estimate (its weight in it times its residual) and ``d_ij`` the
great-circle distance, the variance is ``sum_ij K(d_ij) psi_i psi_j``, with K(d) = 1 up to the cutoff (uniform) or
``1 - d / cutoff`` (Bartlett). There is no small-sample correction: the reference is the normal distribution.

References
----------
Conley (1999), "GMM estimation with cross sectional dependence", Journal of Econometrics 92.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.exceptions import DataError, ParameterError

__all__ = ["EARTH_KM", "conley_covariance", "lon_lat", "near_pairs", "unit_vectors"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EARTH_KM = 6371.0088  # mean radius
KERNELS = ("bartlett", "uniform")
CHUNK = 2048


def lon_lat(places: Any, n: int) -> FloatArray:
    """Longitude and latitude in degrees, (n, 2), of a GeoDataFrame or GeoSeries, or of an array that has them.

    Raises
    ------
    DataError
        If there is another number of places, one is missing, or degrees are none.
    """
    geometry = getattr(places, "geometry", None)
    if geometry is not None:
        if geometry.crs is None:
            raise DataError(
                "places without a coordinate reference system", todo="set it: places.set_crs('EPSG:4326')"
            )
        points = geometry.representative_point().to_crs("EPSG:4326")
        degrees = np.column_stack([points.x, points.y]).astype(float)
    else:
        degrees = np.asarray(places, dtype=float)
    if degrees.shape != (n, 2):
        raise DataError(
            f"places of shape {degrees.shape} for {n} units", expected=f"({n}, 2): longitude and latitude in degrees"
        )
    if not np.isfinite(degrees).all():
        raise DataError(
            f"{int((~np.isfinite(degrees).all(axis=1)).sum())} units without a place",
            todo="leave them out, or give them the place of their cluster",
        )
    if (np.abs(degrees[:, 1]) > 90).any() or (np.abs(degrees[:, 0]) > 360).any():
        raise DataError(
            "places that are no degrees",
            expected="longitude from -180 to 180 and latitude from -90 to 90, in degrees",
        )
    return degrees


def unit_vectors(degrees: FloatArray) -> FloatArray:
    """Places on the unit sphere, shape (n, 3)."""
    lon, lat = np.radians(degrees).T
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def near_pairs(degrees: FloatArray, km: float, rows: IntArray | None = None) -> tuple[IntArray, IntArray, FloatArray]:
    """Pairs (i, j, distance in km) within a distance, i among ``rows`` (all by default); i = j is one of them.

    Examples
    --------
    One degree of latitude is 111.2 km:

    >>> i, j, d = near_pairs(np.array([[32.0, 1.0], [32.0, 2.0], [32.0, 8.0]]), 150.0)
    >>> i, j, d.round(1)
    (array([0, 0, 1, 1, 2]), array([0, 1, 0, 1, 2]), array([  0. , 111.2, 111.2,   0. ,   0. ]))
    """
    from scipy.spatial import cKDTree

    xyz = unit_vectors(degrees)
    own = np.arange(len(xyz)) if rows is None else rows
    chord = 2 * np.sin(min(km / EARTH_KM, np.pi) / 2)
    lists = cKDTree(xyz).query_ball_point(xyz[own], chord * (1 + 1e-12), return_sorted=True)
    i = np.repeat(own, [len(x) for x in lists])
    j = np.concatenate([np.asarray(x, dtype=np.int64) for x in lists]) if len(lists) else np.zeros(0, dtype=np.int64)
    half = np.linalg.norm(xyz[i] - xyz[j], axis=1) / 2
    return i, j, 2 * EARTH_KM * np.arcsin(np.minimum(half, 1.0))


def conley_covariance(
    influence: ArrayLike, degrees: ArrayLike, km: float, *, kernel: str = "bartlett", clusters: Any = None
) -> FloatArray:
    """Covariance of estimates from the influence of each unit and its place.

    Parameters
    ----------
    influence : array of shape (n, q)
        ``psi_i`` of q estimates.
    degrees : array of shape (n, 2)
        Longitude and latitude.
    km : float
        Cutoff distance.
    kernel : {"bartlett", "uniform"}
        Weight of pairs within the cutoff.
    clusters : array of int of shape (n,), optional
        Influences of a cluster are summed, and its place is the mean of its units': they count as at distance 0.

    Returns
    -------
    ndarray of shape (q, q)
        It need not be positive definite.

    Raises
    ------
    ParameterError
        If the distance is not positive, or the kernel neither of the two.

    Examples
    --------
    Far apart, it is the sum of squares:

    >>> conley_covariance([[1.0], [2.0]], [[32.0, 1.0], [32.0, 2.0]], 50.0)
    array([[5.]])
    >>> conley_covariance([[1.0], [2.0]], [[32.0, 1.0], [32.0, 2.0]], 150.0, kernel="uniform")
    array([[9.]])
    """
    if isinstance(km, bool) or not np.isfinite(km) or not km > 0:
        raise ParameterError(f"conley_km={km!r}", expected="a positive number of kilometres")
    if kernel not in KERNELS:
        raise ParameterError(f"conley_kernel={kernel!r}", expected="'bartlett' or 'uniform'")
    psi, places = np.asarray(influence, dtype=float), np.asarray(degrees, dtype=float)
    if clusters is None:
        code = np.unique(places, axis=0, return_inverse=True)[1].ravel()  # units of one place are at distance 0
    else:
        code = np.unique(clusters, return_inverse=True)[1].ravel()
    size = np.bincount(code)
    total = np.column_stack([np.bincount(code, column) for column in psi.T])
    middle = _mean_places(places, code, size)
    cov = np.zeros((psi.shape[1],) * 2)
    for start in range(0, len(size), CHUNK):
        i, j, d = near_pairs(middle, km, np.arange(start, min(start + CHUNK, len(size))))
        weight = np.ones(len(d)) if kernel == "uniform" else np.maximum(1 - d / km, 0.0)
        cov += (weight[:, None] * total[i]).T @ total[j]
    return (cov + cov.T) / 2


def _mean_places(degrees: FloatArray, code: IntArray, size: IntArray) -> FloatArray:
    """Mean place of each code, by the mean of unit vectors, which the date line does not break."""
    xyz = unit_vectors(degrees)
    middle = np.column_stack([np.bincount(code, column) for column in xyz.T]) / size[:, None]
    lon = np.degrees(np.arctan2(middle[:, 1], middle[:, 0]))
    lat = np.degrees(np.arctan2(middle[:, 2], np.hypot(middle[:, 0], middle[:, 1])))
    return np.column_stack([lon, lat])
