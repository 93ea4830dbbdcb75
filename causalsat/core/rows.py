"""Rows of units, whatever holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core import inputs

__all__ = ["take", "without_zero_weights"]


def take(X: Any, rows: NDArray[Any]) -> Any:
    """Rows of a table, data frame or DataArray, by position or mask.

    Examples
    --------
    >>> take(np.arange(6).reshape(3, 2), np.array([True, False, True]))
    array([[0, 1],
           [4, 5]])
    """
    if inputs.is_dataframe(X) or hasattr(X, "iloc"):
        return X.iloc[rows]
    if inputs.is_dataarray(X):
        return X.isel({X.dims[0]: rows})
    return np.asarray(X)[rows]


def without_zero_weights(
    X: Any, y: Any, weight: Any, roles: dict[str, Any]
) -> tuple[Any, Any, Any, dict[str, Any], NDArray[np.bool_] | None]:
    """Units of positive weight: X, y, the weights, roles that are arrays, and which units they are.

    A unit of weight zero is in no population: it counts neither as a unit nor as a cluster. The mask is None where
    all weights are positive, or are no array of numbers (which is refused elsewhere).

    Examples
    --------
    >>> X, y, w, roles, kept = without_zero_weights(np.eye(3), [1, 2, 3], [1.0, 0.0, 2.0], {"treatment": [0, 1, 1]})
    >>> y, roles["treatment"], kept
    (array([1, 3]), array([0, 1]), array([ True, False,  True]))
    """
    values = np.asarray(inputs.column_or_array(X, weight, "sample_weight")[0] if weight is not None else 1.0)
    n = len(X) if hasattr(X, "__len__") else 0
    if values.dtype.kind not in "biuf" or values.shape != (n,):
        return X, y, weight, roles, None
    if not (values == 0).any() or not (values > 0).any() or np.ndim(y) == 0:
        return X, y, weight, roles, None
    kept = values != 0
    cut = {k: v if isinstance(v, str) or np.ndim(v) == 0 else take(v, kept) for k, v in roles.items()}
    weight = weight if isinstance(weight, str) else take(weight, kept)
    return take(X, kept), take(y, kept), weight, cut, kept
