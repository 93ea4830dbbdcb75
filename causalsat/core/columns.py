"""Which columns of a design an option means: names, glob patterns or positions."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ColumnError, ParameterError

__all__ = ["select_columns"]


def select_columns(names: Sequence[str], modifiers: Any, *, role: str = "modifiers") -> NDArray[np.int64]:
    """Positions of the columns that a selection means, in the order of the columns.

    Parameters
    ----------
    names : sequence of str of length p
        The columns' names.
    modifiers : None, str, int or sequence of str or int
        ``None`` for all columns; a name or a glob pattern (``"img*"``); a position (negative ones count from
        the end); or a sequence of those.
    role : str
        Name of the option, for errors.

    Returns
    -------
    ndarray of int
        Sorted distinct positions.

    Raises
    ------
    ColumnError
        If a name or a pattern matches no column, or a position lies outside.
    ParameterError
        If the selection is of another kind, or empty.

    Examples
    --------
    >>> select_columns(["img0", "img1", "age"], "img*")
    array([0, 1])
    >>> select_columns(["img0", "img1", "age"], ["age", 0])
    array([0, 2])
    """
    if modifiers is None:
        return np.arange(len(names), dtype=np.int64)
    wanted = [modifiers] if isinstance(modifiers, str | int | np.integer) else modifiers
    try:
        wanted = list(wanted)
    except TypeError:
        raise ParameterError(f"{role}={modifiers!r}", expected="None, a pattern, or a list of names") from None
    found: set[int] = set()
    for item in wanted:
        found |= _positions(names, item, role)
    if not found:
        raise ParameterError(
            f"{role}={modifiers!r} selects no column", expected="at least one column, or None for all"
        )
    return np.array(sorted(found), dtype=np.int64)


def _positions(names: Sequence[str], item: Any, role: str) -> set[int]:
    if isinstance(item, str):
        exact = {j for j, name in enumerate(names) if name == item}
        matches = exact or {j for j, name in enumerate(names) if fnmatchcase(name, item)}
        if not matches:
            shown = ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
            raise ColumnError(f"{role}={item!r} matches no column", expected=f"a name or pattern among {shown}")
        return matches
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        if not -len(names) <= item < len(names):
            raise ColumnError(f"{role} names position {item} of {len(names)} columns", expected="a position inside")
        return {int(item) % len(names)}
    raise ParameterError(f"{role} holds {item!r}", expected="names, patterns such as 'img*', or positions")
