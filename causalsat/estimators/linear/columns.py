"""Roles of the linear effect model's columns: modifiers, strata, propensity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from causalsat.core import inputs
from causalsat.core.columns import select_columns
from causalsat.core.inputs import FitData
from causalsat.core.treatment import two_values
from causalsat.exceptions import ColumnError, DataError, ParameterError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def features_with_propensity(data: FitData, columns: IntArray) -> tuple[FloatArray, bool]:
    """Feature columns, followed by the propensity where it is known and varies; and whether it is there."""
    X, e = data.X[:, columns], data.propensity
    if e is None or np.ptp(e) < 1e-9:
        return X, False
    return np.column_stack([X, e]), True


def n_mixed(groups: IntArray, treatment: FloatArray) -> int:
    """Number of groups that hold units of several treatments.

    Examples
    --------
    >>> import numpy as np
    >>> n_mixed(np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 1.0, 1.0]))
    1
    """
    n_groups = int(groups.max()) + 1
    low, high = np.full(n_groups, np.inf), np.full(n_groups, -np.inf)
    np.minimum.at(low, groups, treatment)
    np.maximum.at(high, groups, treatment)
    return int((high > low).sum())


def is_binary(treatment: FloatArray) -> bool:
    """Whether the treatment is 0 and 1; two other levels are refused.

    Examples
    --------
    >>> import numpy as np
    >>> is_binary(np.array([0.0, 1.0])), is_binary(np.array([0.0, 0.5, 2.0]))
    (True, False)
    """
    levels = np.unique(treatment)
    binary = bool(np.isin(levels, (0.0, 1.0)).all())
    if len(levels) == 2 and not binary:
        raise two_values(*levels)
    return binary


def roles(
    names: Sequence[str], n_features: int, modifiers: Any, strata: str | int | None
) -> tuple[IntArray, IntArray, IntArray]:
    """Columns of the design with main effects, the stratum's (one or none), and those that modify the effect.

    Examples
    --------
    >>> roles(["age", "site", "age missing"], 2, None, "site")
    (array([0, 2]), array([1]), array([0]))
    """
    taken = np.zeros(0, dtype=np.int64)
    if strata is not None:
        position = names.index(strata) if isinstance(strata, str) else strata % n_features
        taken = np.array([position], dtype=np.int64)
    chosen = select_columns(names, modifiers, n_features=n_features)
    if modifiers is not None and np.isin(taken, chosen).any():
        raise ParameterError(
            f"modifiers={modifiers!r}, which takes in the column of strata",
            expected="other features: strata have treatment effects of their own",
        )
    return np.setdiff1d(np.arange(len(names)), taken), taken, np.setdiff1d(chosen, taken)


# ---------------------------------------------------------------------- strata
def stratum_key(label: Any) -> str:
    """One text for a label however it is stored: 3, 3.0 and numpy's 3 are the same; missing is "".

    Examples
    --------
    >>> stratum_key(3), stratum_key(3.0), stratum_key("north"), stratum_key(float("nan"))
    ('3.0', '3.0', 'north', '')
    """
    if label is None:
        return ""
    try:
        value = float(label)
    except (TypeError, ValueError):
        return str(label)
    return "" if np.isnan(value) else repr(value)


def _factorized(values: NDArray[Any]) -> tuple[IntArray, list[str]]:
    """Position of each unit's key among the keys that occur, missing last; and those keys."""
    import pandas as pd

    codes, labels = pd.factorize(values)
    return codes, [*(stratum_key(v) for v in labels), ""]


def stratum_labels(values: NDArray[Any]) -> list[str]:
    """Sorted keys of the strata of training data; missing labels are refused."""
    codes, keys = _factorized(values)
    if (codes < 0).any():
        raise DataError(
            f"strata with {int((codes < 0).sum())} missing labels",
            expected="a stratum for each unit",
            todo="give units outside any stratum a label of their own",
        )
    return sorted(set(keys[:-1]))


def stratum_codes(values: NDArray[Any], labels: Sequence[str]) -> FloatArray:
    """Position of each label among the known ones; a negative number that depends on the label alone for others.

    Examples
    --------
    >>> import numpy as np
    >>> stratum_codes(np.array(["north", "south", "north"]), ["north", "south"])
    array([0., 1., 0.])
    """
    codes, keys = _factorized(values)
    known = {key: float(code) for code, key in enumerate(labels)}
    numbers = [known.get(key, -1.0 - float(crc32(key.encode()) % 2**31)) for key in keys]
    return np.asarray(numbers)[codes]


def stratum_column(X: Any, strata: Any) -> NDArray[Any] | None:
    """Values of the column that ``strata`` names; None where X is no table (it is refused elsewhere)."""
    if inputs.is_dataframe(X):
        if not isinstance(strata, str):
            raise ParameterError(f"strata={strata!r}", expected="the name of a column, as X is a data frame")
        return np.asarray(inputs.column_or_array(X, strata, "strata")[0])
    if isinstance(strata, str):
        raise ColumnError(
            f"strata={strata!r} names a column, but X is a {type(X).__name__} without columns",
            expected="a data frame with that column, or a position",
            todo="pass a data frame, or strata= the column's position",
        )
    values = np.asarray(X)
    if values.ndim != 2:
        return None
    if not -values.shape[1] <= strata < values.shape[1]:
        raise ColumnError(f"strata={strata} in {values.shape[1]} columns", expected="a position inside")
    return values[:, strata]


def with_codes(X: Any, strata: Any, codes: FloatArray) -> Any:
    """X with the stratum column replaced by codes."""
    if inputs.is_dataframe(X):
        return X.assign(**{strata: codes})
    values = np.array(X)
    if values.dtype.kind not in "fO":
        values = values.astype(float)
    values[:, strata] = codes
    return X.copy(data=values) if inputs.is_dataarray(X) else values
