"""An analysis half and a held-out half of a study, by cluster and within strata."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.design.design import pool
from causalsat.exceptions import CausalsatError, DataError, ParameterError

__all__ = ["draw_half", "split_study"]

IntArray = NDArray[np.int64]
HALVES = ("analysis half", "held-out half")
MAX_ARMS = 10


def split_study(study: Any, share: float, seed: int) -> tuple[Any, Any]:
    """The two halves; see :meth:`causalsat.Study.split`."""
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share < 1:
        raise ParameterError(f"share={share!r}", expected="the share that is held out, between 0 and 1")
    n = len(study)
    cluster = _codes(study.groups, n, "cluster")
    stratum = np.zeros(n, dtype=np.int64) if study.strata is None else _codes(study.strata, n, "stratum")
    arm = _arms(study)
    held = draw_half(arm, stratum, cluster, float(share), np.random.default_rng(seed))
    for half, rows in zip(HALVES, (~held, held), strict=True):
        lost = np.setdiff1d(np.unique(arm), np.unique(arm[rows]))
        if not rows.any() or len(lost):
            raise DataError(
                f"a {half} without units of {'an arm' if rows.any() else 'any arm'}: {len(np.unique(cluster))} "
                "clusters (units) cannot be divided so",
                expected="two clusters or more in each arm",
                todo="take a share nearer to a half",
            )
    drawn = f"drawn by {'unit' if study.groups is None else 'cluster'}"
    drawn += "" if study.strata is None else " within strata"
    first, second = (
        _half(study, half, rows, f"{drawn}, held-out share {share:g}, seed {seed}")
        for half, rows in zip(HALVES, (~held, held), strict=True)
    )
    return first, second


def _half(study: Any, half: str, rows: NDArray[np.bool_], drawn: str) -> Any:
    said = f"This is the {half}: {int(rows.sum()):,} of {len(rows):,} units, {drawn}."
    text = f"{study.description} {said}" if study.description else said
    return study.subset(rows).replace(name=f"{study.name}, {half}", description=text)


def draw_half(
    arm: IntArray, stratum: IntArray, cluster: IntArray, share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which units are held out, (n,): whole clusters, as evenly as can be within cells of stratum and arm.

    Parameters
    ----------
    arm, stratum, cluster : ndarrays of int of shape (n,)
        Codes 0, 1, ...; a cluster of several arms is in a cell of its own kind.
    share : float
        Share of the clusters.
    rng : numpy.random.Generator
        Source of randomness.

    Examples
    --------
    >>> held = draw_half(np.tile([0, 1], 4), np.repeat([0, 1], 4), np.arange(8), 0.5, np.random.default_rng(0))
    >>> held.reshape(2, 4).sum(axis=1)
    array([2, 2])
    """
    n_clusters = int(cluster.max()) + 1
    low, high = np.full(n_clusters, np.iinfo(np.int64).max), np.full(n_clusters, -1)
    np.minimum.at(low, cluster, arm)
    np.maximum.at(high, cluster, arm)
    kind = np.where(low == high, low, arm.max() + 1)
    home = np.zeros(n_clusters, dtype=np.int64)
    home[cluster] = stratum
    whole = cluster
    if set(np.unique(arm)) == {0, 1}:  # pairs go as a whole
        fine, pooled = pool(arm, stratum, cluster)
        if fine.any():
            whole = pooled
    n_whole = int(whole.max()) + 1
    size = np.zeros(n_whole, dtype=np.int64)
    block = np.zeros(n_whole, dtype=np.int64)
    pairs = np.unique(np.stack([whole, cluster]), axis=1)
    np.add.at(size, pairs[0], 1)
    cell = np.unique(home * (arm.max() + 2) + kind, return_inverse=True)[1]
    block[whole] = np.where(size[whole] > 1, -1, cell[cluster])
    held = np.zeros(n_whole, dtype=bool)
    for value in np.unique(block):
        members = rng.permutation(np.flatnonzero(block == value))
        wanted = share * len(members)
        count = int(wanted) + (rng.random() < wanted - int(wanted))
        if len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        held[members[:count]] = True
    return held[whole]


def _codes(labels: Any, n: int, what: str) -> IntArray:
    if labels is None:
        return np.arange(n)
    codes, values = pd.factorize(pd.Series(labels).astype(object))
    if (codes < 0).any():
        raise DataError(
            f"{int((codes < 0).sum())} units without a {what}",
            expected=f"the {what} of each unit",
            todo="give them a label of their own, or leave them out: study.subset(...)",
        )
    order = sorted(range(len(values)), key=lambda i: (str(values[i]), str(type(values[i]))))
    return np.argsort(order)[codes].astype(np.int64)


def _arms(study: Any) -> IntArray:
    """Codes of the arms, (n,); of doses one code for all."""
    try:
        t = study.treatment
    except CausalsatError:
        t = pd.factorize(study.units[study.roles["treatment"]])[0].astype(float)
    values, codes = np.unique(t, return_inverse=True)
    return codes.astype(np.int64) if len(values) <= MAX_ARMS else np.zeros(len(t), dtype=np.int64)
