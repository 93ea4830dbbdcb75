"""Labelled inputs put into the order of the units: by their labels, or refused where labels and units disagree."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from causalsat.core.names import shown
from causalsat.exceptions import DataError

__all__ = ["align", "align_all", "align_outcome", "align_rows", "aligned", "labels_of"]

P = ParamSpec("P")
T = TypeVar("T")


def labels_of(value: Any) -> Any:
    """The labels of the rows: a pandas Index, or None where there are none.

    Data frames and Series have an index; a DataArray has labels where its first dimension has a coordinate. Arrays,
    lists and a pandas Index have values only.

    Examples
    --------
    >>> import pandas as pd
    >>> labels_of(pd.Series([0.5, 0.7], index=["b", "a"]))
    Index(['b', 'a'], dtype='...')
    >>> labels_of([0.5, 0.7])
    """
    if hasattr(value, "iloc") and hasattr(value, "index"):
        return value.index
    if hasattr(value, "dims") and hasattr(value, "coords") and value.ndim:
        first = value.dims[0]
        return value.indexes.get(first)
    return None


def align(X: Any, value: Any, role: str) -> Any:
    """The values of a role in the order of the units of X.

    Where both have labels, the labels decide: equal labels are left as they are, the same labels in another order
    are sorted into that of X, and others are refused. An integer label is a label and never a position. Where one of
    the two has none, or the role is not one value for each unit, there is nothing to compare: its order is taken to
    be that of X.

    Parameters
    ----------
    X : DataFrame, DataArray or array of n rows
        The units.
    value : Series, DataFrame, DataArray, array, number, str or None
        What belongs to the units; of n rows where it has labels.
    role : str
        Its name, for errors.

    Returns
    -------
    object
        The value, its rows in the order of X.

    Raises
    ------
    DataError
        If the labels are not the same ones, or one of them occurs twice and the order differs.

    Examples
    --------
    >>> import pandas as pd
    >>> X = pd.DataFrame({"age": [20, 30]}, index=["a", "b"])
    >>> align(X, pd.Series([1, 0], index=["b", "a"]), "treatment").tolist()
    [0, 1]
    >>> align(X, [1, 0], "treatment")
    [1, 0]
    """
    return align_rows(labels_of(X), value, role)


def align_rows(units: Any, value: Any, role: str, whose: str = "X") -> Any:
    """:func:`align` to labels of units (a pandas Index, or None), which an error says are those of ``whose``."""
    labels = labels_of(value)
    if units is None or labels is None or len(labels) != len(units) or _identical(units, labels):
        return value  # another number of values is for the check of their number
    if not (units.is_unique and labels.is_unique):
        doubled, where = (labels, role) if units.is_unique else (units, whose)
        raise DataError(
            f"{role} and {whose} have labels in different orders, and {shown(doubled[doubled.duplicated()][0])} "
            f"occurs more than once in those of {where}",
            expected="one label for each unit, or the same labels in the same order",
            todo=f"sort both by the same key, or pass {role}.to_numpy() if its order is that of {whose}",
        )
    rows = labels.get_indexer(units)
    if (rows < 0).any():
        raise DataError(
            f"{role} has other labels than {whose}: {int((rows < 0).sum())} of {len(units)} units are not among "
            f"them, such as {shown(units[rows < 0][0])} ({role} has {shown(labels[0])}, ...)",
            expected=f"the labels of {whose}, in any order",
            todo=f"take both from one table, or pass {role}.to_numpy() if its order is that of {whose}",
        )
    return value.iloc[rows] if hasattr(value, "iloc") else value.isel({value.dims[0]: rows})


def align_all(X: Any, values: Mapping[str, Any], whose: str = "X") -> dict[str, Any]:
    """Each role in the order of the units of X (see :func:`align`); roles must agree where X has no labels.

    ``whose`` is the name of X for errors.

    Raises
    ------
    DataError
        As :func:`align`; also if X has no labels and those of two roles differ, since then no order is known to be
        that of X.

    Examples
    --------
    >>> import pandas as pd
    >>> y, t = pd.Series([5.0, 6.0], index=["a", "b"]), pd.Series([1, 0], index=["b", "a"])
    >>> align_all([[20], [30]], {"y": y, "treatment": t})
    Traceback (most recent call last):
    ...
    causalsat.exceptions.DataError: y and treatment have different labels, and X has none: ...
    """
    units = labels_of(X)
    if units is None:
        _refuse_disagreement({role: labels_of(value) for role, value in values.items()}, whose)
    return {role: align_rows(units, value, role, whose) for role, value in values.items()}


def align_outcome(X: Any, y: Any, **roles: Any) -> Any:
    """The outcome in the order of the units of X; refuses roles that cannot be put into one order with it."""
    return align_all(X, {"y": y, **roles})["y"]


def aligned(reference: str, *roles: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function that puts its roles into the order of its reference (see :func:`align_all`) before it starts.

    Parameters
    ----------
    reference : str
        The argument whose rows are the units.
    *roles : str
        Arguments that belong to the units.

    Examples
    --------
    >>> import pandas as pd
    >>> @aligned("priority", "scores")
    ... def first(priority, scores):
    ...     return priority.iloc[0], scores.iloc[0]
    >>> effect, score = first(pd.Series([1, 2], index=["a", "b"]), pd.Series([20, 10], index=["b", "a"]))
    >>> int(effect), int(score)
    (1, 10)
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # whose own error names the function
            given = {role: bound.arguments[role] for role in roles if role in bound.arguments}
            bound.arguments.update(align_all(bound.arguments.get(reference), given, reference))
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def _refuse_disagreement(labels: Mapping[str, Any], whose: str) -> None:
    labelled = [(role, own) for role, own in labels.items() if own is not None]
    for role, own in labelled[1:]:
        first, reference = labelled[0]
        if len(own) == len(reference) and not _identical(reference, own):
            raise DataError(
                f"{first} and {role} have different labels, and {whose} has none: {shown(reference[0])}, ... in "
                f"{first} and {shown(own[0])}, ... in {role}",
                expected=f"the same labels in the same order, or {whose} with these labels too",
                todo=f"give {whose} its labels, or pass {first} and {role} as arrays (.to_numpy()) in its order",
            )


def _identical(one: Any, other: Any) -> bool:
    return one is other or bool(one.equals(other)) or bool(one.astype(object).equals(other.astype(object)))
