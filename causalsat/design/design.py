"""One frozen object for assignment, clusters, strata, probabilities and weights.

A variance is taken on clusters; strata in which an arm holds one cluster are clusters as a whole (``pool``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import align_all
from causalsat.core.warn import warn
from causalsat.exceptions import DataError, DataWarning, ParameterError, TreatmentError

__all__ = ["Design", "make_design", "pool", "roles_of", "warn_contradicted"]


FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Design:
    """Who was assigned what, within what, with which probability, and what each unit weighs.

    Made by :func:`make_design` from arrays, or by ``Study.design``. Estimators, nuisances and tests take it whole,
    so that no part of it can get lost.

    Attributes
    ----------
    treatment : ndarray of shape (n,)
        Treatment: 0 and 1 where it is binary, else a dose.
    clusters : ndarray of int of shape (n,) or None
        Codes 0, 1, ... of the unit of assignment or sampling.
    strata : ndarray of int of shape (n,) or None
        Codes of the strata (blocks, pairs) within which treatment was assigned.
    weights : ndarray of shape (n,) or None
        Survey weights with mean 1, all positive or some zero.
    stated_probability : ndarray of shape (n,) or None
        Probability of treatment that the design states.
    randomised : bool
        Whether anybody randomised; otherwise strata are no more than labels and there is no known probability.
    """

    treatment: FloatArray
    clusters: IntArray | None = None
    strata: IntArray | None = None
    weights: FloatArray | None = None
    stated_probability: FloatArray | None = None
    randomised: bool = True

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.treatment)

    @property
    def is_binary(self) -> bool:
        """Whether each unit is control (0) or treated (1)."""
        return bool(np.isin(self.treatment, (0.0, 1.0)).all())

    @property
    def cluster_codes(self) -> IntArray:
        """Codes of the clusters, shape (n,); each unit its own where there are none."""
        return np.arange(len(self)) if self.clusters is None else self.clusters

    @property
    def probability(self) -> FloatArray | None:
        """Probability of treatment that the design knows, shape (n,), or None.

        The stated one; else, in a randomised study with strata, the share of the stratum's clusters that were
        treated (of its units, where clusters hold units of both arms). None without either, for doses, and
        without randomisation.

        Raises
        ------
        TreatmentError
            If a stratum has one arm only.
        """
        if self.stated_probability is not None:
            return self.stated_probability
        if self.strata is None or not self.randomised or not self.is_binary:
            return None
        share = treated_share(self.treatment, self.strata, self.cluster_codes)
        single = np.flatnonzero((share <= 0) | (share >= 1))
        if len(single):
            raise TreatmentError(
                f"{len(single)} of {len(share)} strata have one arm only, {int(np.isin(self.strata, single).sum())} "
                f"of {len(self)} units",
                expected="treated and control units in each stratum",
                todo="leave those strata out and say so (they hold no comparison), join strata that were randomised "
                "together, or state the design's propensity=",
            )
        return np.asarray(share[self.strata], dtype=float)

    @property
    def arms_were_fixed(self) -> bool:
        """Whether the numbers of treated and control clusters (of each stratum) were fixed by the assignment.

        So they were in a randomised trial whose probability is the treated share. A stated probability that differs
        from it by more than .02 is taken for independent draws.
        """
        if not self.is_binary or not self.randomised:
            return False
        if self.stated_probability is None:
            return True
        strata = np.zeros(len(self), dtype=np.int64) if self.strata is None else self.strata
        share = treated_share(self.treatment, strata, self.cluster_codes)[strata]
        return bool(np.abs(share - self.stated_probability).max() <= 0.02)

    @property
    def inference_clusters(self) -> IntArray:
        """Clusters of variances, shape (n,): a stratum in which an arm holds one cluster is one as a whole.

        The rule of the table of averages, AIPW, GATES and RATE, ``causalsat.design.design.pool``.
        """
        return self._pooled[1]

    @property
    def is_paired(self) -> bool:
        """Whether some strata, such as pairs, hold a single cluster (unit) of an arm and are clusters as a whole."""
        return bool(self._pooled[0].any())

    @property
    def _pooled(self) -> tuple[NDArray[np.bool_], IntArray]:
        if self.strata is None or not self.is_binary or not self.randomised:
            return np.zeros(len(self), dtype=bool), self.cluster_codes
        return pool(self.treatment.astype(np.int64), self.strata, self.cluster_codes)

    def take(self, rows: ArrayLike) -> Design:
        """The design of some of its units, with the probabilities of the whole one.

        Parameters
        ----------
        rows : array of int or bool
            Positions, or a mask of shape (n,).

        Examples
        --------
        >>> whole = make_design([0, 1, 0, 1, 1, 1], strata=[0, 0, 1, 1, 1, 1])
        >>> whole.take([0, 1, 2]).probability
        array([0.5 , 0.5 , 0.75])
        """
        chosen = np.asarray(rows)
        cut = {"clusters": self.clusters, "strata": self.strata, "weights": self.weights}
        part: dict[str, Any] = {name: None if values is None else values[chosen] for name, values in cut.items()}
        for name in ("clusters", "strata"):
            if part[name] is not None:
                part[name] = np.unique(part[name], return_inverse=True)[1].astype(np.int64)
        known = self.probability
        return replace(
            self,
            treatment=self.treatment[chosen],
            stated_probability=None if known is None else known[chosen],
            **part,
        )


def make_design(
    treatment: Any,
    *,
    groups: Any = None,
    strata: Any = None,
    sample_weight: Any = None,
    propensity: Any = None,
    randomised: bool = True,
) -> Design:
    """A design from arrays, checked. Roles with labels (Series) are put into the order of the treatment.

    Parameters
    ----------
    treatment : array of shape (n,)
        0 and 1, or doses.
    groups : array of shape (n,), optional
        Clusters, the unit of assignment.
    strata : array of shape (n,), optional
        Strata (blocks, pairs) within which the clusters were assigned; a cluster lies in one of them.
    sample_weight : array of shape (n,), optional
        Survey weights.
    propensity : array of shape (n,) or float, optional
        The design's probability of treatment.
    randomised : bool
        Whether assignment was randomised.

    Returns
    -------
    Design

    Raises
    ------
    DataError, TreatmentError
        If a role cannot be used, or a cluster lies in several strata, or every cluster is a stratum of its own.

    Examples
    --------
    >>> design = make_design([0, 0, 1, 1, 0, 1], groups=[0, 0, 1, 1, 2, 3], strata=["a", "a", "a", "a", "b", "b"])
    >>> design.probability
    array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    >>> design.is_paired
    True
    """
    values = np.asarray(treatment)
    t = inputs.check_treatment(values, len(values), binary=False)
    n = len(t)
    roles = {"groups": groups, "strata": strata, "sample_weight": sample_weight, "propensity": propensity}
    given = align_all(treatment, roles, "treatment")
    clusters, blocks = inputs.check_groups(given["groups"], n), check_strata(given["strata"], n)
    if blocks is not None:
        check_nested(clusters, blocks)
    weights = None if sample_weight is None else inputs.check_weights(given["sample_weight"], n)
    return Design(t, clusters, blocks, weights, inputs.check_propensity(given["propensity"], n), bool(randomised))


def warn_contradicted(design: Design) -> None:
    """Warn where the stated probability cannot be that of the assignment: six standard deviations off, and .05.

    The sum over clusters of treated shares less probabilities has mean zero and at most the variance of independent
    draws, ``sum e (1 - e)``.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_contradicted(make_design([0, 1] * 100, propensity=0.01))
    >>> str(caught[0].message)[:62]
    'the stated propensity has mean 0.010, but 0.500 of the cluster'
    """
    e = design.stated_probability
    if e is None or not design.is_binary or not design.randomised:
        return
    code = design.cluster_codes
    size = np.bincount(code)
    share, chance = np.bincount(code, design.treatment) / size, np.bincount(code, e) / size
    gap = float((share - chance).mean())
    spread = float(np.sqrt((chance * (1 - chance)).sum())) / len(size)
    if abs(gap) > 6 * spread and abs(gap) > 0.05:
        warn(
            f"the stated propensity has mean {chance.mean():.3f}, but {share.mean():.3f} of the clusters (or units) "
            f"are treated, {abs(gap) / spread:.0f} standard deviations away, and effects rest on it: check that it "
            "is the probability of treatment and not of control, and of these units",
            DataWarning,
        )


def roles_of(design: Design | None, given: dict[str, Any]) -> dict[str, Any]:
    """The roles that were given, or those of a design; one of them only.

    Parameters
    ----------
    design : Design or None
        What holds the roles, if anything does.
    given : dict
        Keys among treatment, groups, strata, sample_weight, weights and propensity; None where not given.

    Examples
    --------
    >>> roles_of(make_design([0, 1], groups=["a", "b"]), {"groups": None, "weights": None})
    {'groups': array([0, 1]), 'weights': None}
    """
    if design is None:
        return given
    beside = [name for name, value in given.items() if value is not None]
    if beside:
        raise ParameterError(
            f"design= and {', '.join(beside)}",
            expected="one of them: a design holds treatment, groups, strata, weights and propensity",
            todo="leave the roles out, or make a design of them with causalsat.design.make_design",
        )
    values = {
        "treatment": design.treatment,
        "groups": design.clusters,
        "strata": design.strata if design.randomised else None,
        "sample_weight": design.weights,
        "weights": design.weights,
        "propensity": design.stated_probability,
    }
    return {name: values[name] for name in given}


def check_strata(strata: Any, n: int) -> IntArray | None:
    """Stratum labels (texts or numbers) as codes 0, 1, ...; missing labels are refused.

    Examples
    --------
    >>> check_strata(["north", "south", "north"], 3)
    array([0, 1, 0])
    """
    if strata is None:
        return None
    import pandas as pd

    values = inputs.as_labels(strata)
    if values.shape != (n,):
        raise DataError(f"strata of shape {values.shape} for {n} units", expected="one label a unit")
    codes, _ = pd.factorize(values, sort=False)
    if (codes < 0).any():
        raise DataError(
            f"strata has {int((codes < 0).sum())} missing labels",
            expected="the stratum of each unit",
            todo="give units that were randomised outside any stratum a label of their own",
        )
    return codes.astype(np.int64)


def check_nested(clusters: IntArray | None, strata: IntArray) -> None:
    """Refuse a cluster that lies in several strata, and strata that are the clusters themselves."""
    n_strata = int(strata.max()) + 1
    if clusters is None:
        if n_strata == len(strata) > 1:
            raise DataError(
                f"{n_strata} strata for {n_strata} units",
                expected="strata that hold several units, treated and control",
                todo="pass the labels of blocks or pairs; without any, leave strata out",
            )
        return
    n_clusters = int(clusters.max()) + 1
    pairs = np.unique(clusters * n_strata + strata)
    if len(pairs) > n_clusters:
        several = int((np.bincount(pairs // n_strata, minlength=n_clusters) > 1).sum())
        raise DataError(
            f"{several} of {n_clusters} clusters lie in several strata",
            expected="clusters that lie in one stratum each, since clusters were assigned within strata",
            todo="check the labels; where units were assigned within clusters, the clusters are the strata",
        )
    if n_strata == n_clusters > 1:
        raise DataError(
            f"the {n_strata} strata are the clusters themselves",
            expected="strata that hold several clusters, or units assigned within clusters",
            todo="leave strata out if whole clusters were assigned, leave groups out if units were within them",
        )


def treated_share(treatment: FloatArray, strata: IntArray, clusters: IntArray) -> FloatArray:
    """Share of each stratum's clusters that were treated, shape (n_strata,); of units where clusters hold both arms.

    Examples
    --------
    >>> treated_share(np.array([1.0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1, 1]), np.arange(6))
    array([0.25, 1.  ])
    """
    n_clusters = int(clusters.max()) + 1
    size = np.bincount(clusters, minlength=n_clusters)
    share = np.bincount(clusters, treatment, minlength=n_clusters) / np.maximum(size, 1)
    home = np.zeros(n_clusters, dtype=np.int64)
    home[clusters] = strata
    present = size > 0
    mixed = (share > 0) & (share < 1)
    mass = np.where(mixed[present].any(), size, 1.0) * present  # units where they were assigned, else clusters
    total = np.bincount(home, mass, minlength=int(strata.max()) + 1)
    return np.asarray(np.bincount(home, mass * share, minlength=len(total)) / np.maximum(total, 1e-300))


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
