"""Drawing a trial's treatment anew: what was randomised, and a permutation of it within strata."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError
from causalsat.inference.folds import MIXED, cluster_arms

__all__ = ["RandomisationUnits", "one_stratum_each", "randomisation_units"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RandomisationUnits:
    """What a treatment was drawn for, and within what.

    Attributes
    ----------
    unit : ndarray of int of shape (n,)
        Unit of randomisation of each unit, each with one treatment.
    stratum : ndarray of int of shape (n,)
        Its stratum.
    description : str
        The same in words.
    """

    unit: IntArray
    stratum: IntArray
    description: str

    def reassign(self, treatment: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Permute the treatment, shape (n,), over the units of randomisation within strata.

        Examples
        --------
        >>> pairs = randomisation_units(np.array([0.0, 1, 0, 1]), np.arange(4), np.array([0, 0, 1, 1]))
        >>> drawn = pairs.reassign(np.array([0.0, 1, 0, 1]), np.random.default_rng(0))
        >>> drawn.reshape(2, 2).sum(axis=1)
        array([1., 1.])
        """
        n_units = int(self.unit.max()) + 1
        arm, home = np.empty(n_units), np.empty(n_units, dtype=np.int64)
        arm[self.unit], home[self.unit] = treatment, self.stratum
        by_stratum = np.argsort(home, kind="stable")
        shuffled = np.lexsort((rng.random(n_units), home))
        out = np.empty(n_units)
        out[by_stratum] = arm[shuffled]
        return out[self.unit]


def randomisation_units(treatment: FloatArray, clusters: IntArray, strata: IntArray) -> RandomisationUnits:
    """What was randomised, as the treatment shows.

    The clusters, where each has one treatment; where a few have both, their treated and their control units count as
    separate units of randomisation; where most have both, single units within clusters (and strata).

    Parameters
    ----------
    treatment : ndarray of shape (n,)
        0/1 treatment.
    clusters, strata : ndarray of int of shape (n,)
        Codes 0, 1, ...

    Raises
    ------
    DataError
        If a unit of randomisation lies in several strata.

    Examples
    --------
    >>> village = np.array([0, 0, 1, 1])
    >>> randomisation_units(np.array([0.0, 0, 1, 1]), village, np.zeros(4, dtype=int)).description
    'treatment of clusters'
    """
    mixed = cluster_arms(clusters, treatment) == MIXED
    if not mixed.any():
        words = "treatment of clusters" if len(mixed) < len(treatment) else "treatment of units"
        return RandomisationUnits(clusters, one_stratum_each(clusters, strata), words)
    if mixed.mean() > 0.5:
        within = np.unique(clusters * (strata.max() + 1) + strata, return_inverse=True)[1]
        words = "treatment of units within clusters" + (" and strata" if within.max() > clusters.max() else "")
        return RandomisationUnits(np.arange(len(treatment)), within.astype(np.int64), words)
    cell = np.unique(2 * clusters + (treatment > 0), return_inverse=True)[1].astype(np.int64)
    words = "treatment of clusters, in two parts where they have both treatments"
    return RandomisationUnits(cell, one_stratum_each(cell, strata), words)


def one_stratum_each(unit: IntArray, strata: IntArray) -> IntArray:
    """The strata, each unit of randomisation in one; refuses others."""
    pairs = np.unique(np.column_stack([unit, strata]), axis=0)[:, 0]
    several = int((np.bincount(pairs) > 1).sum())
    if several:
        raise DataError(
            f"{several} units of randomisation (clusters) that lie in several strata",
            expected="one stratum each, for the treatment was drawn within strata",
            todo="pass the strata of the randomisation, or assignment=, what was randomised",
        )
    return strata
