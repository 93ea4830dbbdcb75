"""Checks on input of the evaluation functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core import inputs
from causalsat.exceptions import DataError, ParameterError

# standard errors of contrasts between units that cross-fitted predictions ranked, over those that take them as given
CROSSFIT_WIDENING = float(np.sqrt(2))
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def inference_groups(design: Any, groups: Any) -> Any:
    """Clusters of standard errors: the groups that were given, or those that the design says (pairs as a whole)."""
    return groups if design is None else design.inference_clusters


def numbers(values: Any, role: str, n: int | None = None, *, any_unit: bool = False) -> FloatArray:
    """One finite number a unit.

    Numbers whose squares leave what a computer can hold are refused, unless the caller takes ``any_unit``: it looks
    at their order only, or divides them by their size.
    """
    try:
        out = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"{role} that are not numbers", expected="one finite number a unit") from None
    if out.ndim != 1 or len(out) == 0:
        raise DataError(f"{role} of shape {out.shape}", expected="a one-dimensional array of one number a unit")
    if n is not None and len(out) != n:
        raise DataError(f"{len(out)} {role} for {n} units", expected="one number a unit")
    bad = int((~np.isfinite(out)).sum())
    if bad:
        raise DataError(
            f"{role} has {bad} of {len(out)} values missing or infinite",
            expected="one finite number a unit",
            todo="drop those units from all arguments",
        )
    if not any_unit:
        inputs.check_magnitude(out, role)
    return out


def codes(labels: Any, n: int, role: str = "groups") -> IntArray:
    """Labels as codes in their sorted order, whatever the order of the rows; each unit its own if None."""
    if labels is None:
        return np.arange(n)
    appearance = inputs.check_groups(labels, n)
    assert appearance is not None
    values = np.asarray(labels)
    try:
        _, out = np.unique(values, return_inverse=True)
    except TypeError:  # labels of several types cannot be sorted
        return appearance
    if len(out) != n:
        raise DataError(f"{role} of shape {values.shape} for {n} units", expected="one label a unit")
    return out.astype(np.int64)


def weights(values: Any, n: int) -> FloatArray | None:
    """Positive weights with mean 1, or None where there are none."""
    if values is None:
        return None
    w = inputs.check_weights(values, n)
    if (w <= 0).any():
        raise DataError(
            f"{int((w <= 0).sum())} weights of zero", expected="positive weights", todo="drop units of weight zero"
        )
    return None if np.ptp(w) == 0 else w


def several(labels: IntArray, least: int = 2, role: str = "groups") -> int:
    """Number of clusters; refuse too few."""
    count = int(labels.max()) + 1
    if count < least:
        raise DataError(f"{count} {role}", expected=f"at least {least}", todo="evaluate on more clusters")
    return count


def level(value: float) -> float:
    """Level of an interval, strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ParameterError(f"level={value!r}", expected="a number between 0 and 1, such as 0.95")
    return float(value)


def count(value: Any, name: str, least: int = 1) -> int:
    """An integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ParameterError(f"{name}={value!r}", expected=f"an integer of at least {least}")
    return int(value)


def within_fold_rank(values: FloatArray, folds: IntArray, weight: FloatArray | None = None) -> FloatArray:
    """Weighted mid-rank of each value in its fold, in (0, 1); ties share their rank."""
    out = np.empty(len(values))
    w = np.ones(len(values)) if weight is None else weight
    for k in np.unique(folds):
        units = np.flatnonzero(folds == k)
        _, tie = np.unique(values[units], return_inverse=True)
        mass = np.bincount(tie, w[units])
        middle = np.cumsum(mass) - mass / 2
        out[units] = middle[tie] / mass.sum()
    return out
