"""On which clusters a variance is taken: strata in which an arm holds one cluster are clusters as a whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["pool"]

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def pool(arm: IntArray, stratum: IntArray, cluster: IntArray) -> tuple[BoolArray, IntArray]:
    """Units of strata in which an arm holds one cluster, and the clusters of the variance, each (n,).

    The noise of a pair's two clusters cannot be told from their shared level, and standard errors clustered on the
    single cluster are too small by up to the square root of two (de Chaisemartin and Ramirez-Cuellar 2024). Strata
    that a cluster connects are one. Where there is a single such stratum nothing compares it, and clusters stay.

    Parameters
    ----------
    arm, stratum, cluster : ndarrays of int of shape (n,)
        0 control and 1 treated; codes 0, 1, ...

    Examples
    --------
    >>> pool(np.array([0, 1, 0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2, 2, 2]), np.arange(8))[1]
    array([0, 0, 1, 1, 2, 3, 4, 5])
    """
    n_strata, n_clusters = int(stratum.max()) + 1, int(cluster.max()) + 1
    pair = np.unique(cluster * 2 * n_strata + 2 * stratum + arm)
    held = np.bincount(pair % (2 * n_strata), minlength=2 * n_strata)
    fine = (held.reshape(n_strata, 2) == 1).any(axis=1)
    if not fine.any():
        return np.zeros(len(arm), dtype=bool), cluster
    component = _connected(stratum, cluster)
    tied = np.isin(component, component[fine])
    if len(np.unique(component[tied])) < 2:  # nothing to compare it with
        return np.zeros(len(arm), dtype=bool), cluster
    units = tied[stratum]
    labels = np.where(units, component[stratum], n_strata + n_clusters + cluster)
    return units, np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _connected(stratum: IntArray, cluster: IntArray) -> IntArray:
    """Which strata a cluster connects, shape (strata,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_strata, n_clusters = int(stratum.max()) + 1, int(cluster.max()) + 1
    owner = np.zeros(n_clusters, dtype=np.int64)
    owner[cluster] = stratum
    if (owner[cluster] == stratum).all():
        return np.arange(n_strata)
    links = coo_matrix((np.ones(len(stratum)), (stratum, n_strata + cluster)), shape=(n_strata + n_clusters,) * 2)
    return np.asarray(connected_components(links, directed=False)[1][:n_strata], dtype=np.int64)
