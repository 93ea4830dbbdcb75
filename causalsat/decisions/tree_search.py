r"""Exact search for the policy tree of largest total score.

A leaf gives its units the arm of largest total score. For a set of units split at a threshold of a feature, with
prefix sums :math:`P_a` of the scores of arm a in the order of the feature and totals :math:`T_a`, the best pair of
leaves is :math:`\max_{a,b} \max_s (P_a(s) - P_b(s)) + T_b`. A tournament tree over the sorted positions keeps the
largest prefix sum of a set while units are added one by one, so that the best split of every set on the way along a
feature costs :math:`O(\log n)` a unit and feature: depth two takes :math:`O(p^2 n \log n)` and not
:math:`O(p^2 n^2)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["best_split", "search"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NEAR = 1e-10  # gains that differ by less, relative to the scores, are equal: the first feature and threshold is taken


@njit(cache=True)
def _prefix_bests(
    order: IntArray,
    rank: IntArray,
    size: int,
    scores: FloatArray,
    least: int,
) -> FloatArray:
    """Best total score of at most one split of the first k units of an order, for each k; shape (n + 1,).

    ``rank`` (n, p) are dense ranks of the features, all below ``size`` (a power of two).
    """
    n, p = rank.shape
    k = scores.shape[1]
    pairs = k * (k - 1)
    total = np.zeros(k)
    count_tree = np.zeros((p, 2 * size), dtype=np.int64)
    sums = np.zeros((p, pairs, 2 * size))
    best = np.zeros((p, pairs, 2 * size))
    out = np.zeros(n + 1)
    for i in range(n):
        unit = order[i]
        for a in range(k):
            total[a] += scores[unit, a]
        value = total.max()
        for f in range(p):
            node = size + rank[unit, f]
            count_tree[f, node] += 1
            up = node >> 1
            while up >= 1:
                count_tree[f, up] += 1
                up >>= 1
            q = 0
            for a in range(k):
                for b in range(k):
                    if a == b:
                        continue
                    _add(sums[f, q], best[f, q], node, scores[unit, a] - scores[unit, b])
                    q += 1
            if i + 1 < 2 * least:
                continue
            low, high = _range_of(count_tree[f], size, least, i + 1 - least)
            if low > high:
                continue
            q = 0
            for a in range(k):
                for b in range(k):
                    if a == b:
                        continue
                    found = _largest(sums[f, q], best[f, q], size, low, high) + total[b]
                    if found > value:
                        value = found
                    q += 1
        out[i + 1] = value
    return out


@njit(cache=True)
def _add(sums: FloatArray, best: FloatArray, node: int, value: float) -> None:
    """Add to a position of a tree of prefix sums and carry it up."""
    sums[node] += value
    best[node] = sums[node]
    node >>= 1
    while node >= 1:
        left, right = 2 * node, 2 * node + 1
        sums[node] = sums[left] + sums[right]
        after = sums[left] + best[right]
        best[node] = best[left] if best[left] >= after else after
        node >>= 1


@njit(cache=True)
def _range_of(count: IntArray, size: int, least: int, most: int) -> tuple[int, int]:
    """First and last position whose prefix holds at least ``least`` and at most ``most`` units; not the whole set."""
    node, need = 1, least
    while node < size:
        node *= 2
        if count[node] < need:
            need -= count[node]
            node += 1
    low = node - size
    node, need = 1, most + 1  # the position at which the prefix exceeds ``most``
    if count[1] < need:
        return low, size - 1
    while node < size:
        node *= 2
        if count[node] < need:
            need -= count[node]
            node += 1
    return low, node - size - 1


@njit(cache=True)
def _largest(sums: FloatArray, best: FloatArray, size: int, low: int, high: int) -> float:
    """Largest prefix sum over positions from ``low`` to ``high``."""
    before = 0.0  # sum of what lies left of low
    node = size + low
    while node > 1:
        if node & 1:
            before += sums[node - 1]
        node >>= 1
    largest = -np.inf
    position = low
    while position <= high:  # blocks of powers of two, from the left
        node, width = size + position, 1
        while node % 2 == 0 and position + 2 * width - 1 <= high:
            node >>= 1
            width *= 2
        reached = before + best[node]
        if reached > largest:
            largest = reached
        before += sums[node]
        position += width
    return largest


@njit(cache=True)
def best_split(X: FloatArray, scores: FloatArray, least: int, near: float) -> tuple[float, int, float]:
    """Total score, feature (-1 for none) and threshold of the best tree of depth one; equal ones: the first."""
    n, p = X.shape
    k = scores.shape[1]
    total = np.zeros(k)
    for i in range(n):
        for a in range(k):
            total[a] += scores[i, a]
    value, feature, threshold = total.max(), -1, 0.0
    for f in range(p):
        order = np.argsort(X[:, f], kind="mergesort")
        left = np.zeros(k)
        for i in range(n - 1):
            for a in range(k):
                left[a] += scores[order[i], a]
            here, after = X[order[i], f], X[order[i + 1], f]
            if here == after or i + 1 < least or n - i - 1 < least:
                continue
            found = left.max() + (total - left).max()
            if found > value + near:
                value, feature, threshold = found, f, here
    return value, feature, threshold


def search(X: FloatArray, scores: FloatArray, depth: int, least: int) -> dict[str, Any]:
    """The exact best tree as nested nodes: ``feature, threshold, left, right`` or ``arm``, each with ``n``.

    Parameters
    ----------
    X : ndarray of shape (n, p)
    scores : ndarray of shape (n, arms)
    depth : int
    least : int
        Units in a leaf.
    """
    near = NEAR * max(float(np.abs(scores).sum()), 1e-300)
    return _search(np.ascontiguousarray(X), np.ascontiguousarray(scores), depth, least, near)[1]


def _search(X: FloatArray, scores: FloatArray, depth: int, least: int, near: float) -> tuple[float, dict[str, Any]]:
    leaf = {"arm": int(_arm(scores, near)), "n": len(X)}
    value = float(scores.sum(axis=0).max()) if len(X) else 0.0
    if depth == 0 or len(X) < 2 * least or not X.shape[1]:
        return value, leaf
    if depth == 1:
        found, feature, threshold = best_split(X, scores, least, near)
    elif depth == 2:
        found, feature, threshold = _top_of_two(X, scores, least, near, value)
    else:
        found, feature, threshold = _top_of_more(X, scores, depth, least, near, value)
    if feature < 0:
        return value, leaf
    goes_left = X[:, feature] <= threshold
    threshold = _roundest(float(X[goes_left, feature].max()), float(X[~goes_left, feature].min()))
    left = _search(X[goes_left], scores[goes_left], depth - 1, least, near)[1]
    right = _search(X[~goes_left], scores[~goes_left], depth - 1, least, near)[1]
    if "arm" in left and "arm" in right and left["arm"] == right["arm"]:
        return value, leaf
    return found, {
        "feature": int(feature),
        "threshold": float(threshold),
        "left": left,
        "right": right,
        "n": len(X),
    }


def _arm(scores: FloatArray, near: float) -> int:
    """Arm of the largest total; of equal ones the first, so that control is kept where nothing is gained."""
    total = scores.sum(axis=0)
    return int(np.flatnonzero(total >= total.max() - near)[0]) if len(scores) else 0


def _top_of_two(X: FloatArray, scores: FloatArray, least: int, near: float, value: float) -> tuple[float, int, float]:
    n, p = X.shape
    rank = np.column_stack([np.unique(X[:, f], return_inverse=True)[1].ravel() for f in range(p)]).astype(np.int64)
    size = 1
    while size < rank.max() + 1:
        size *= 2
    size = max(size, 2)
    best = (value, -1, 0.0)
    for f in range(p):
        order = np.argsort(X[:, f], kind="stable")
        left = _prefix_bests(order, rank, size, scores, least)
        right = _prefix_bests(order[::-1].copy(), rank, size, scores, least)[::-1]
        values = X[order, f]
        cut = np.flatnonzero(np.diff(values) > 0) + 1
        cut = cut[(cut >= least) & (n - cut >= least)]
        if not len(cut):
            continue
        both = left[cut] + right[cut]
        at = int(np.flatnonzero(both >= both.max() - near)[0])
        if both[at] > best[0] + near:
            best = (float(both[at]), f, float(values[cut[at] - 1]))
    return best


def _top_of_more(
    X: FloatArray, scores: FloatArray, depth: int, least: int, near: float, value: float
) -> tuple[float, int, float]:
    n, p = X.shape
    best = (value, -1, 0.0)
    for f in range(p):
        order = np.argsort(X[:, f], kind="stable")
        values = X[order, f]
        for cut in np.flatnonzero(np.diff(values) > 0) + 1:
            if cut < least or n - cut < least:
                continue
            one, two = order[:cut], order[cut:]
            found = sum(_search(X[rows], scores[rows], depth - 1, least, near)[0] for rows in (one, two))
            if found > best[0] + near:
                best = (float(found), f, float(values[cut - 1]))
    return best


def _roundest(here: float, after: float) -> float:
    """The number with the fewest digits between two values, in the middle four fifths of the gap.

    Examples
    --------
    >>> _roundest(1.23456, 1.23789), _roundest(0.71, 9.0), _roundest(-0.2, 0.3)
    (1.236, 5.0, 0.0)
    """
    gap = after - here
    middle = here + gap / 2
    low, high = here + gap / 10, after - gap / 10
    if low <= 0 <= high:
        return 0.0
    for digits in range(17):
        candidate = float(f"{middle:.{digits}e}")
        if low <= candidate <= high:
            return candidate
    return middle if here <= middle < after else here
