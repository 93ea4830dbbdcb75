"""The cells of a table as text, for whatever prints it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Rows", "shortened", "text_cells", "to_the_right"]

Rows = Sequence[Sequence[str]]
FIGURES = 4  # of the largest number of a column, where the decimal places are not given
ALIKE = 30  # times as large, and columns are written with the same places


def text_cells(frame: Any, digits: int | None = 3) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text from a data frame: its index names the rows, numbers that are not whole are rounded.

    A missing number is an empty cell. Levels of an index or of column names are joined with a comma.

    Parameters
    ----------
    frame : DataFrame
        The table.
    digits : int or None
        Decimal places of numbers that are not whole; None for as many as each column needs.

    Examples
    --------
    >>> import pandas as pd
    >>> text_cells(pd.DataFrame({"error": [0.12345, float("nan")], "units": [1200, 80]}, index=["ours", "theirs"]))
    (['', 'error', 'units'], [['ours', '0.123', '1,200'], ['theirs', '', '80']])
    >>> text_cells(pd.DataFrame({"income": [120512.25]}, index=["ATE"]), digits=None)[1]
    [['ATE', '120,512']]
    """
    formats = _formats(frame) if digits is None else [f",.{digits}f"] * frame.shape[1]

    def cells(column: Any, places: str) -> list[str]:
        if column.dtype.kind in "iu":
            return [f"{value:,}" for value in column]
        if column.dtype.kind == "f":
            return ["" if math.isnan(value) else f"{value:{places}}" for value in column]
        return [("" if math.isnan(v) else f"{v:{places}}") if isinstance(v, float) else str(v) for v in column]

    columns = [cells(frame.iloc[:, j], formats[j]) for j in range(frame.shape[1])]
    names = [_label(name) for name in frame.index]
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    corner = ", ".join(str(name) for name in frame.index.names if name is not None)
    return [corner, *(_label(name) for name in frame.columns)], rows


def _formats(frame: Any) -> list[str]:
    """Format of each column: its largest number shows four figures; columns of like size are written alike."""
    largest = [_largest(frame.iloc[:, j]) for j in range(frame.shape[1])]
    alike = [max((m for m in largest if size <= m <= ALIKE * size), default=size) for size in largest]
    return [f",.{max(0, FIGURES - 1 - math.floor(math.log10(m)))}f" if 1e-6 < m < 1e12 else ".3g" for m in alike]


def _largest(column: Any) -> float:
    known = [abs(float(v)) for v in column if isinstance(v, float | np.floating) and math.isfinite(v) and v]
    return max(known, default=1.0)


def to_the_right(columns: Sequence[str], rows: Rows) -> list[bool]:
    """Which columns hold numbers; the first names the rows."""

    def is_number(cell: str) -> bool:
        return not cell or cell[-1].isdigit() or cell == "\u2026"

    return [j > 0 and all(is_number(row[j]) for row in rows) for j in range(len(columns))]


def shortened(frame: Any, max_rows: int) -> Any:
    """The first and last rows of a long table."""
    if len(frame) <= max_rows:
        return frame
    keep = [*range(max_rows // 2), *range(len(frame) - (max_rows - max_rows // 2), len(frame))]
    return frame.iloc[keep]


def _label(name: Any) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
