"""Folds over clusters: balanced in units and in treatment arms, seeded, independent of the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData
from causalsat.core.warn import warn
from causalsat.exceptions import DataError, DataWarning, ParameterError

__all__ = [
    "assign_folds",
    "cluster_arms",
    "content_order",
    "in_content_order",
    "fold_labels",
    "seeded",
    "split_folds",
]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

CONTROL, TREATED, MIXED = 0, 1, 2
SAME = 1e-9  # difference of two clusters' totals, relative to the largest, that may be the order of summation


def cluster_arms(groups: IntArray, treatment: FloatArray) -> IntArray:
    """Arm of each cluster, shape (n_clusters,): 0 all control, 1 all treated, 2 both.

    Examples
    --------
    >>> cluster_arms(np.array([0, 0, 1, 2, 2]), np.array([0.0, 0, 1, 0, 1]))
    array([0, 1, 2])
    """
    share = np.bincount(groups, treatment > 0) / np.maximum(np.bincount(groups), 1)
    return np.where(share <= 0, CONTROL, np.where(share >= 1, TREATED, MIXED)).astype(np.int64)


def content_order(keys: Sequence[FloatArray], groups: IntArray | None = None) -> tuple[IntArray, IntArray]:
    """Rows in an order that their content decides, and clusters numbered in the order of theirs.

    What is drawn at random for rows in this order, or for clusters with these numbers, depends neither on the order
    of the rows nor on the clusters' labels. Rows, or clusters, of equal content stay in the order in which they come.

    Parameters
    ----------
    keys : sequence of ndarrays of shape (n,)
        Content of the rows; the last decides first.
    groups : ndarray of int of shape (n,), optional
        Cluster codes 0, 1, ...; without them each row is its own cluster.

    Returns
    -------
    order : ndarray of int of shape (n,)
        Positions of the rows, cluster by cluster.
    codes : ndarray of int of shape (n,)
        New number of each row's cluster; the rows are as they came.

    Examples
    --------
    >>> order, codes = content_order([np.array([3.0, 1.0, 2.0])], np.array([0, 1, 1]))
    >>> order, codes  # the smaller cluster first
    (array([0, 1, 2]), array([0, 1, 1]))
    """
    n = len(keys[0])
    if groups is None:
        order = _lexsort(keys)
        codes = np.empty(n, dtype=np.int64)
        codes[order] = np.arange(n)
        return order, codes
    clusters = _clusters_by_content(groups, np.bincount(groups), keys)
    number = np.empty(len(clusters), dtype=np.int64)
    number[clusters] = np.arange(len(clusters))
    codes = number[groups]
    return _lexsort((*keys, codes)), codes


def _lexsort(keys: Sequence[NDArray[Any]]) -> IntArray:
    """As ``np.lexsort``, the last key decides first; further keys are looked at only where there are ties.

    Examples
    --------
    >>> _lexsort([np.array([3, 2, 1, 0]), np.array([5.0, 1.0, 5.0, 0.0])])
    array([3, 1, 2, 0])
    """
    used = [np.asarray(key) for key in keys]
    while len(used) > 1 and used[-1].size and (used[-1] == used[-1][0]).all():
        used.pop()
    order = np.argsort(used[-1], kind="stable").astype(np.int64)
    last = used[-1][order]
    if len(used) == 1 or len(last) < 2:
        return order
    same = last[1:] == last[:-1]
    if not same.any() and last[-1] == last[-1]:  # missing values come last, and are ties
        return order
    if same.mean() > 0.5 or last[-1] != last[-1]:
        return np.lexsort(used).astype(np.int64)
    tied = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    block = np.cumsum(np.concatenate([[True], ~same]))
    rows = order[tied]
    order[tied] = rows[np.lexsort([*(key[rows] for key in used[:-1]), block[tied]])]
    return order


def _clusters_by_content(codes: IntArray, size: IntArray, keys: Sequence[FloatArray]) -> IntArray:
    """Codes of the clusters in the order of their sizes, then of their totals of the keys, the last first."""
    totals = []
    for key in keys:
        total = np.bincount(codes, np.asarray(key, dtype=float), minlength=len(size))
        unit = SAME * float(np.abs(total).max(initial=0.0))
        totals.append(np.round(total / unit) if 0 < unit < np.inf else total)
    return _lexsort([*totals, size])


def assign_folds(
    n_splits: int,
    rng: np.random.Generator,
    *,
    n: int | None = None,
    groups: IntArray | None = None,
    treatment: FloatArray | None = None,
    keys: Sequence[FloatArray] = (),
) -> IntArray:
    """Fold of each unit, shape (n,): clusters stay whole, and each fold has its share of both arms.

    Clusters are dealt at random within the strata "all control", "all treated" and "both" to the fold that
    has the fewest units of that stratum.

    Parameters
    ----------
    n_splits : int
        Number of folds.
    rng : numpy.random.Generator
        Source of the shuffle.
    n : int, optional
        Number of units, where neither groups nor treatment say it.
    groups : ndarray of int of shape (n,), optional
        Cluster codes 0, 1, ...; without it each unit is its own cluster.
    treatment : ndarray of shape (n,), optional
        Treatment (positive means treated); the folds are stratified by it.
    keys : sequence of ndarrays of shape (n,)
        Content of the units. Clusters are put in the order of their content before they are shuffled, so that
        the folds do not depend on the order of the rows or on the coding of the clusters.

    Raises
    ------
    ParameterError
        If n_splits is not an integer of at least 2.
    DataError
        If an arm has fewer clusters than there are folds.

    Examples
    --------
    >>> groups = np.repeat(np.arange(6), 2)
    >>> fold = assign_folds(3, np.random.default_rng(0), groups=groups)
    >>> np.bincount(fold)
    array([4, 4, 4])
    """
    if not isinstance(n_splits, int | np.integer) or n_splits < 2:
        raise ParameterError(f"n_splits={n_splits!r}", expected="an integer of at least 2")
    units = next((len(a) for a in (groups, treatment) if a is not None), n)
    if units is None:
        raise ParameterError("no groups, treatment or n", expected="one of them")
    codes = np.arange(units) if groups is None else groups
    n_clusters = int(codes.max()) + 1 if units else 0
    size = np.bincount(codes, minlength=n_clusters)
    arm = np.full(n_clusters, MIXED) if treatment is None else cluster_arms(codes, treatment)
    _check_enough(arm, size, n_splits)
    shuffled = _clusters_by_content(codes, size, keys)[rng.permutation(n_clusters)]
    fold = np.empty(n_clusters, dtype=np.int64)
    start = 0
    for stratum in (CONTROL, TREATED, MIXED):
        clusters = shuffled[arm[shuffled] == stratum]
        fold[clusters] = _deal(size[clusters], n_splits, start)
        start += len(clusters)
    return fold[codes]


def split_folds(
    cv: Any,
    X: Any,
    y: FloatArray,
    treatment: FloatArray,
    *,
    groups: Any = None,
    codes: IntArray | None = None,
    rng: np.random.Generator,
) -> list[tuple[IntArray, IntArray]]:
    """Training and test rows of each fold, as a number of folds or a splitter says.

    The training rows are those that the splitter gives, which may be fewer than the rest: a buffer stays out.

    Parameters
    ----------
    cv : int or splitter
        Number of folds over clusters, or an object with ``split(X, y, groups)``.
    X, y : table of n units and array of shape (n,)
        What the splitter is handed.
    treatment : ndarray of shape (n,)
        Treatment; folds that a number asks for are stratified by whether it is positive.
    groups, codes : arrays of shape (n,), optional
        Clusters as the splitter is handed them, and as codes 0, 1, ...
    rng : numpy.random.Generator
        Source of the shuffle, for a number of folds.

    Raises
    ------
    ParameterError
        If cv is neither.
    DataError
        If the test folds do not cover each unit once, a fold trains on what it tests, or has one arm to train on.

    Warns
    -----
    DataWarning
        If the splitter has units of one cluster in training and test rows.

    Examples
    --------
    >>> from sklearn.model_selection import KFold
    >>> y, t = np.zeros(4), np.array([0.0, 1, 0, 1])
    >>> split_folds(KFold(2), y[:, None], y, t, rng=np.random.default_rng(0))
    [(array([2, 3]), array([0, 1])), (array([0, 1]), array([2, 3]))]
    """
    if isinstance(cv, int | np.integer):
        fold = assign_folds(int(cv), rng, groups=codes, treatment=treatment)
        return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in np.unique(fold)]
    if isinstance(cv, str) or not hasattr(cv, "split"):
        raise ParameterError(f"cv={cv!r}", expected="a number of folds, or a splitter with split(X, y, groups)")
    table, n = X if hasattr(X, "shape") else np.asarray(X), len(y)
    given = [(_rows(a, n, cv), _rows(b, n, cv)) for a, b in cv.split(table, y, groups=groups)]
    splits = [(train, test) for train, test in given if len(test)]
    held = np.bincount(np.concatenate([test for _, test in splits] or [np.empty(0, dtype=int)]), minlength=n)
    if (held > 1).any():
        raise DataError(f"{cv!r} holds out some units twice", expected="test folds that cover each unit once")
    if (held < 1).any():
        raise DataError(f"{cv!r} never holds out {int((held < 1).sum())} of {n} units", expected="each unit once")
    for k, (train, test) in enumerate(splits):
        if len(np.intersect1d(train, test)):
            raise DataError(f"fold {k} of {cv!r} trains on units that it tests", expected="disjoint rows")
        if len(np.unique(treatment[train])) < 2:
            raise DataError(
                f"without fold {k} only one treatment is left, in {len(train)} units to train on",
                todo="take other folds, or a smaller buffer",
            )
    if codes is not None and (split := sum(bool(len(np.intersect1d(codes[a], codes[b]))) for a, b in splits)):
        warn(
            f"{cv!r} has units of one cluster in both the training and the test rows of {split} of {len(splits)} "
            "folds: what is judged there was seen. Take a splitter that keeps groups whole, such as GroupKFold",
            DataWarning,
        )
    return splits


def _rows(values: Any, n: int, cv: Any) -> IntArray:
    """Positions that a splitter gave, in order."""
    rows = np.asarray(values)
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or (len(rows) and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n)):
        raise DataError(
            f"rows of type {rows.dtype} and shape {rows.shape} from {cv!r}", expected=f"positions below {n}"
        )
    return np.unique(rows.astype(np.int64))


def fold_labels(splits: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    """The fold in which each unit is tested, shape (n,).

    Examples
    --------
    >>> fold_labels([(np.array([0]), np.array([1, 2])), (np.array([1]), np.array([0]))])
    array([1, 0, 0])
    """
    fold = np.empty(sum(len(test) for _, test in splits), dtype=np.int64)
    for k, (_, test) in enumerate(splits):
        fold[test] = k
    return fold


def seeded(cv: Any, seeds: Sequence[Any]) -> list[Any]:
    """The splitter for each of several fold seeds: with that ``random_state``; a number of folds as it is.

    Raises
    ------
    ParameterError
        If a splitter without ``random_state`` would give the same folds for every seed.
    """
    if len(seeds) < 2 or isinstance(cv, int | np.integer) or not hasattr(cv, "split"):
        return [cv] * len(seeds)
    if not hasattr(cv, "random_state") or getattr(cv, "shuffle", True) is False:
        raise ParameterError(
            f"{len(seeds)} fold seeds for {cv!r}, whose folds do not depend on a seed",
            expected="one fold seed, or a splitter with a random_state that shuffles",
        )
    copies = [copy(cv) for _ in seeds]
    for own, seed in zip(copies, seeds, strict=True):
        own.random_state = seed
    return copies


def _deal(size: IntArray, n_splits: int, start: int) -> IntArray:
    """Deal clusters, in their order, to the fold with the fewest units so far."""
    turn = (start + np.arange(len(size))) % n_splits
    if len(size) == 0 or (size == size[0]).all():
        return turn
    filled = np.zeros(n_splits)
    rank = (np.arange(n_splits) - start) % n_splits
    out = np.empty(len(size), dtype=np.int64)
    for i, units in enumerate(size):
        out[i] = np.lexsort((rank, filled))[0]
        filled[out[i]] += units
    return out


def _check_enough(arm: IntArray, size: IntArray, n_splits: int) -> None:
    present = size > 0
    for stratum, name in ((CONTROL, "control"), (TREATED, "treated")):
        count = int((present & np.isin(arm, (stratum, MIXED))).sum())
        if count < n_splits:
            raise DataError(
                f"{count} clusters with {name} units for {n_splits} folds",
                expected="at least as many clusters in each arm as folds",
                todo="take fewer folds (n_splits, cv), or more clusters",
            )


def in_content_order(data: FitData) -> tuple[FitData, IntArray]:
    """The units in the order of their content, clusters numbered in that of theirs, and each unit's position before.

    Treatment decides last: units whose arms change their names stay in their order.
    """
    keys = (data.treatment, data.sample_weight, data.y, *data.X.T)
    order, codes = content_order(keys, data.groups)
    per_unit = ("X", "y", "treatment", "sample_weight", "propensity", "strata")
    values: dict[str, Any] = {name: getattr(data, name) for name in per_unit}
    taken: dict[str, Any] = {name: None if v is None else v[order] for name, v in values.items()}
    return replace(data, **taken, groups=None if data.groups is None else codes[order]), order
