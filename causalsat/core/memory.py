"""Draws that would not fit in memory: said before they are made; rows of any X in chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import is_dataarray, is_dataframe
from causalsat.core.warn import warn
from causalsat.exceptions import LargeResultWarning, TooLargeError

__all__ = ["announce", "available_bytes", "in_chunks", "number_of_rows", "take_rows"]

P = TypeVar("P", bound=Any)

CHUNK_BYTES = 48 << 20  # of draws at a time
WHOLE_ROWS = 10_000  # up to here the draws are held at once
FIRST_ROWS = 1_024
LARGE_BYTES = 1 << 30


def number_of_rows(X: Any) -> int:
    """Units of X in any of its forms; 0 of what has no length, which is refused elsewhere."""
    if hasattr(X, "shape"):
        return int(X.shape[0]) if X.shape else 0
    return len(X) if hasattr(X, "__len__") else 0


def take_rows(X: Any, rows: slice) -> Any:
    """Some units of X, in the form of X.

    Examples
    --------
    >>> take_rows([[1.0], [2.0], [3.0]], slice(1, 3))
    [[2.0], [3.0]]
    """
    if is_dataframe(X) or (hasattr(X, "iloc") and not is_dataarray(X)):
        return X.iloc[rows]
    return X[rows]


def in_chunks(X: Any, evaluate: Callable[[Any, slice], P]) -> Iterator[P]:
    """Posteriors of a chunk of units at a time; the first chunk is small and tells how many draws there are.

    Parameters
    ----------
    X : array, DataFrame or DataArray of n units
    evaluate : callable
        Gives the posterior, which has ``n_draws``, of some units of X and their positions.
    """
    if hasattr(X, "__array__") and not hasattr(X, "shape"):
        X = np.asarray(X)
    start, size, n = 0, FIRST_ROWS, number_of_rows(X)
    while start < n:
        rows = slice(start, min(start + size, n))
        part = evaluate(take_rows(X, rows), rows)
        yield part
        start, size = rows.stop, max(FIRST_ROWS, CHUNK_BYTES // (8 * part.n_draws))


def available_bytes() -> int | None:
    """Memory that is free now; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
        return free["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return None


def announce(n_units: int, draws_of_two: Callable[[], NDArray[np.floating[Any]]], way_out: str) -> None:
    """Say what draws of many units take, before they are made.

    Parameters
    ----------
    n_units : int
        Number of units.
    draws_of_two : callable
        Gives the draws (draw, unit) of one or two units; not called where the units are few.
    way_out : str
        What to call for means and intervals.

    Raises
    ------
    TooLargeError
        If they take more memory than there is.

    Warns
    -----
    LargeResultWarning
        If they take more than 1 GiB.
    """
    if n_units <= WHOLE_ROWS:
        return
    draws = draws_of_two()
    kept = len(draws) * n_units * draws.dtype.itemsize
    if kept < LARGE_BYTES:
        return
    size = f"{len(draws):,} draws of {n_units:,} units: {kept / 2**30:.1f} GiB, and more while they are made"
    free = available_bytes()
    if free is not None and kept > free:
        raise TooLargeError(
            size, expected=f"at most the {free / 2**30:.1f} GiB of memory that are free", todo=f"use {way_out}"
        )
    warn(f"{size}. Less is held by {way_out}", LargeResultWarning)
