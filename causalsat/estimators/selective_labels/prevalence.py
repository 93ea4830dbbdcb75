"""What is known of how common the outcome is: one figure for all units, or one for each group of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core import inputs
from causalsat.exceptions import ColumnError, ParameterError

__all__ = ["GroupPrevalence", "check_figure", "check_prevalence", "group_prevalence", "is_by_group", "label_columns"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_LISTED = 8  # labels in a message


@dataclass(frozen=True, eq=False)
class GroupPrevalence:
    """Known prevalences of groups of units.

    Attributes
    ----------
    labels : tuple of str of length K
        What each group is called, ``"district=north"``.
    codes : ndarray of int of shape (n, C)
        The group of each unit in each column of groups; -1 where its prevalence is not known.
    known : ndarray of shape (K, 2)
        Mean of Y in each group, and its standard error.
    """

    labels: tuple[str, ...]
    codes: IntArray
    known: FloatArray

    def members(self, k: int) -> NDArray[np.bool_]:
        """Which units are of a group, shape (n,)."""
        return np.asarray((self.codes == k).any(axis=1))

    def scaled(self, share: float) -> GroupPrevalence:
        """The same with every mean times a share."""
        return GroupPrevalence(self.labels, self.codes, self.known * [share, 1.0])

    def only(self, k: int) -> GroupPrevalence:
        """The knowledge of one group."""
        codes = np.where(self.members(k), 0, -1)[:, None]
        return GroupPrevalence((self.labels[k],), codes, self.known[[k]])


def is_by_group(value: Any) -> bool:
    """Whether a prevalence is one of groups."""
    return isinstance(value, Mapping)


def check_figure(value: Any, name: str = "prevalence") -> tuple[float, float]:
    """A mean and its standard error as numbers.

    Raises
    ------
    ParameterError
        If it is no such pair.
    """
    try:
        p, se = (float(v) for v in value)
    except (TypeError, ValueError):
        raise ParameterError(
            f"{name}={value!r}",
            expected="(p, se): the population's mean outcome and its standard error",
            todo="a census figure without an error still has one: say how far off it may be",
        ) from None
    if not 0 < p < 1 or not 0 < se < 1:
        raise ParameterError(f"{name}={value!r}", expected="p between 0 and 1 and a positive standard error")
    return p, se


def check_prevalence(value: Any) -> None:
    """Refuse what is neither (p, se) nor columns of groups of such."""
    if not is_by_group(value):
        check_figure(value)
        return
    for column, groups in value.items():
        if isinstance(column, bool) or not isinstance(column, str | int | np.integer):
            raise ParameterError(f"prevalence of {column!r}", expected="a column's name, or its position in an array")
        if not isinstance(groups, Mapping) or not groups:
            raise ParameterError(
                f"prevalence of {column!r} is {groups!r}",
                expected="a mapping of the column's labels to (p, se): {'district': {'north': (0.2, 0.02)}}",
            )
        for label, figure in groups.items():
            check_figure(figure, f"prevalence[{column!r}][{label!r}]")
    if not value:
        raise ParameterError("prevalence={}", expected="(p, se), columns of groups, or None")


def group_prevalence(X: Any, prevalence: Mapping[Any, Mapping[Any, Any]]) -> GroupPrevalence:
    """The groups of the units of a table.

    Parameters
    ----------
    X : DataFrame or array of n rows
        The table, before columns of labels are left out.
    prevalence : mapping of column to mapping of label to (p, se)

    Raises
    ------
    ColumnError
        If a column is not there.
    ParameterError
        If no unit has a label.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"district": ["north", "south", "north"], "age": [20, 30, 40]})
    >>> found = group_prevalence(table, {"district": {"north": (0.2, 0.02)}})
    >>> found.labels, found.codes[:, 0].tolist(), found.known.tolist()
    (('district=north',), [0, -1, 0], [[0.2, 0.02]])
    """
    names: list[str] = []
    known, columns = [], []
    for column, groups in prevalence.items():
        values = _values(X, column)
        codes = np.full(len(values), -1, dtype=np.int64)
        for label, figure in groups.items():
            own = np.asarray(values == label, dtype=bool)
            if not own.any():
                raise ParameterError(
                    f"prevalence of {column}={label!r}, and no unit of it",
                    expected=f"labels of {column}: {_listed(values)}",
                )
            codes[own] = len(names)
            names.append(f"{column}={label}")
            known.append(check_figure(figure))
        columns.append(codes)
    return GroupPrevalence(tuple(names), np.column_stack(columns), np.array(known))


def label_columns(X: Any, prevalence: Any) -> set[str]:
    """Columns of a data frame that hold the groups' labels and are no numbers: they are no features."""
    if not is_by_group(prevalence) or not inputs.is_dataframe(X):
        return set()
    named = [c for c in prevalence if isinstance(c, str) and c in X.columns]
    return {c for c in named if getattr(X[c].dtype, "kind", "O") not in "biuf"}


def _values(X: Any, column: Any) -> NDArray[Any]:
    if inputs.is_dataframe(X):
        if not isinstance(column, str):
            raise ColumnError(f"prevalence of {column!r}", expected="the name of a column, as X is a data frame")
        return np.asarray(inputs.column_or_array(X, column, "prevalence")[0], dtype=object)
    values = np.asarray(X)
    if isinstance(column, str) or values.ndim != 2 or not -values.shape[1] <= column < values.shape[1]:
        raise ColumnError(
            f"prevalence of {column!r}, and X is a {type(X).__name__} of shape {values.shape}",
            expected="the position of a column",
            todo="pass a data frame to name columns",
        )
    return values[:, column]


def _listed(values: NDArray[Any]) -> str:
    import pandas as pd

    labels = [repr(v) for v in pd.unique(pd.Series(values).dropna())]
    return ", ".join(labels[:MAX_LISTED]) + (f", ... ({len(labels)} in all)" if len(labels) > MAX_LISTED else "")
