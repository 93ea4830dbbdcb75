"""Which columns of a table an option means: names, glob patterns or positions."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ColumnError, ParameterError

__all__ = ["select_columns"]


def select_columns(
    names: Sequence[str],
    selection: Any,
    *,
    role: str = "modifiers",
    n_features: int | None = None,
    ordered: bool = False,
) -> NDArray[np.int64]:
    """Positions of the columns that a selection means; an empty selection means none.

    Parameters
    ----------
    names : sequence of str of length p
        The columns' names.
    selection : None, str, int or sequence of str or int
        ``None`` for all features; a name or a glob pattern (``"img*"``); a position (negative ones count from
        the end of the features); or a sequence of those, which may be empty.
    role : str
        Name of the option, for errors.
    n_features : int, optional
        How many of the columns, the first ones, are features; the others (indicators of missing values) are meant
        only by their full names. All by default.
    ordered : bool
        Positions in the order of the selection instead of that of the columns.

    Returns
    -------
    ndarray of int
        Distinct positions.

    Raises
    ------
    ColumnError
        If a name or a pattern matches no column, or a position lies outside.
    ParameterError
        If the selection is of another kind.

    Examples
    --------
    >>> select_columns(["img0", "img1", "age"], "img*")
    array([0, 1])
    >>> select_columns(["img0", "img1", "age"], ["age", 0])
    array([0, 2])
    >>> select_columns(["img0", "img1", "age"], ["age", 0], ordered=True)
    array([2, 0])
    >>> select_columns(["age", "img0", "img0 missing"], "img*", n_features=2)
    array([1])
    """
    features = list(names if n_features is None else names[:n_features])
    if selection is None:
        return np.arange(len(features), dtype=np.int64)
    wanted = [selection] if isinstance(selection, str | int | np.integer) else selection
    try:
        wanted = list(wanted)
    except TypeError:
        raise ParameterError(f"{role}={selection!r}", expected="None, a pattern, or a list of names") from None
    chosen: dict[int, None] = {}  # keeps the selection's order
    for item in wanted:
        named_in_full = isinstance(item, str) and item in names[len(features) :]
        chosen.update(dict.fromkeys(_positions(names if named_in_full else features, item, role)))
    return np.array(list(chosen) if ordered else sorted(chosen), dtype=np.int64)


def _positions(names: Sequence[str], item: Any, role: str) -> list[int]:
    if isinstance(item, str):
        exact = [j for j, name in enumerate(names) if name == item]
        matches = exact or [j for j, name in enumerate(names) if fnmatchcase(name, item)]
        if not matches:
            shown = ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
            raise ColumnError(f"{role}={item!r} matches no column", expected=f"a name or pattern among {shown}")
        return matches
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        if not -len(names) <= item < len(names):
            raise ColumnError(f"{role} names position {item} of {len(names)} columns", expected="a position inside")
        return [int(item) % len(names)]
    raise ParameterError(f"{role} holds {item!r}", expected="names, patterns such as 'img*', or positions")
