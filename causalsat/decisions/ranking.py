"""Who comes first for a budget: quotas, then the largest effect for its cost; what each budget pays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError

__all__ = ["cutoff_of", "paid_from", "plan_of", "queue", "worth_it"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def worth_it(effects: FloatArray, costs: FloatArray, worth: float | None) -> NDArray[np.bool_]:
    """Whether effects are positive, or worth their cost."""
    return np.asarray(effects > 0 if worth is None else effects * worth > costs)


def plan_of(
    effects: FloatArray,
    costs: FloatArray,
    budget: float,
    wanted: NDArray[np.bool_],
    quotas: tuple[IntArray, float] | None = None,
    weights: FloatArray | None = None,
    *,
    strict: bool = True,
    ties: IntArray | None = None,
    in_parts: bool = False,
) -> FloatArray:
    """Share of each place that is treated, shape (n,): quotas first, then who is wanted, the best ratio first.

    Parameters
    ----------
    effects, costs : ndarray of shape (n,)
        Effect, and cost, a head.
    budget : float
        What all may cost together.
    wanted : ndarray of bool of shape (n,)
        Places that may be treated beyond the quotas.
    quotas : (codes of shape (n,), share), optional
        District of each place, and the share of its places that comes first.
    weights : ndarray of shape (n,), optional
        People of each place.
    strict : bool
        Refuse a budget that does not pay the quotas; otherwise they are paid in part.
    ties : ndarray of int of shape (n,), optional
        Order of places with equal ratio and cost; by default that of the rows.
    in_parts : bool
        Treat an equal part of all places of the marginal ratio, so that the order of rows does not matter.

    Examples
    --------
    >>> every = np.ones(3, dtype=bool)
    >>> plan_of(np.array([2.0, 2.0, 1.0]), np.ones(3), 1.0, every)
    array([1., 0., 0.])
    >>> plan_of(np.array([2.0, 2.0, 1.0]), np.ones(3), 1.0, every, in_parts=True)
    array([0.5, 0.5, 0. ])
    """
    price = costs if weights is None else costs * weights
    first, rest = queue(effects, costs, wanted, quotas, ties)
    out, left = np.zeros(len(effects)), budget - float(price[first].sum())
    out[first] = 1.0
    if left < -1e-9 * budget:
        if strict:
            share = 0.0 if quotas is None else quotas[1]
            raise DataError(
                f"a share of {share:g} of each district costs {budget - left:,.6g}, the budget is {budget:,.6g}",
                expected="a budget that pays the shares",
                todo="lower the share or raise the budget",
            )
        return np.asarray(out * budget / (budget - left))
    spent = np.cumsum(price[rest])
    whole = spent <= left * (1 + 1e-12)
    out[rest[whole]] = 1.0
    cut = int(whole.sum())
    if cut < len(rest):
        before = spent[cut - 1] if cut else 0.0
        out[rest[cut]] = max(0.0, (left - before) / price[rest[cut]])
    if in_parts and len(rest):
        tie = np.cumsum(np.r_[0, np.diff((effects / costs)[rest]) != 0])
        out[rest] = (np.bincount(tie, out[rest] * price[rest]) / np.bincount(tie, price[rest]))[tie]
    return out


def queue(
    effects: FloatArray,
    costs: FloatArray,
    wanted: NDArray[np.bool_],
    quotas: tuple[IntArray, float] | None,
    ties: IntArray | None = None,
) -> tuple[IntArray, IntArray]:
    """Rows that the quotas pay, and the others that are wanted, the largest effect for its cost first."""
    rows = np.arange(len(effects)) if ties is None else ties
    order = np.lexsort((rows, costs, -effects / costs))
    chosen = np.zeros(len(effects), dtype=bool)
    if quotas is not None:
        codes, share = quotas
        for k in np.unique(codes):
            own = order[codes[order] == k]
            chosen[own[: int(np.ceil(share * len(own) - 1e-9))]] = True
    return np.flatnonzero(chosen), order[(wanted & ~chosen)[order]]


def paid_from(
    effects: FloatArray,
    costs: FloatArray,
    wanted: NDArray[np.bool_],
    quotas: tuple[IntArray, float] | None = None,
    weights: FloatArray | None = None,
    ties: IntArray | None = None,
) -> FloatArray:
    """Smallest budget that treats the whole of each place, shape (n,); NaN where none does.

    Examples
    --------
    >>> paid_from(np.array([3.0, 2.0, -1.0]), np.array([2.0, 1.0, 1.0]), np.array([True, True, False]))
    array([ 3.,  1., nan])
    """
    price = costs if weights is None else costs * weights
    first, rest = queue(effects, costs, wanted, quotas, ties)
    out = np.full(len(effects), np.nan)
    out[first] = price[first].sum()
    out[rest] = price[first].sum() + np.cumsum(price[rest])
    return out


def cutoff_of(ratio: FloatArray, chosen: FloatArray, wanted: NDArray[np.bool_], first: IntArray) -> float:
    """Effect for its cost down to which a plan treats places; minus infinity where it treats all that are wanted.

    Examples
    --------
    >>> cutoff_of(np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.5, 0.0]), np.ones(3, dtype=bool), np.array([], int))
    2.0
    """
    ranked = wanted.copy()
    ranked[first] = False
    if not (ranked & (chosen < 1)).any():
        return float("-inf")
    taken = ranked & (chosen > 0)
    return float(ratio[taken].min()) if taken.any() else float("inf")
