"""Columns by name: resolving roles and covariates, and reading a column as numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.names import close_matches, list_names
from causalsat.exceptions import ColumnError, DataError


def require_column(frame: pd.DataFrame, name: Any, role: str, what: str = "units") -> str:
    """The column's name if the frame has it, once; otherwise a ColumnError with close matches."""
    if not isinstance(name, str):
        raise ColumnError(
            f"{role}={name!r} is a {type(name).__name__}",
            expected=f"the name of a column, one of {list_names(frame.columns)}",
            todo=f"add the values to the table as a column and pass its name as {role}",
        )
    if name not in frame.columns:
        near = close_matches(name, frame.columns)
        raise ColumnError(
            f"{role}={name!r} is not a column of the {what}",
            expected=f"one of {list_names(frame.columns)}",
            todo=f"did you mean {' or '.join(repr(n) for n in near)}?" if near else "check the spelling",
        )
    values = frame[name]
    if isinstance(values, pd.Series) and values.dtype == object:
        nested = next((v for v in values if isinstance(v, list | dict | set | np.ndarray)), None)
        if nested is not None:
            raise ColumnError(
                f"{role} {name!r} holds objects of type {type(nested).__name__}, such as {str(nested)[:60]}",
                expected="one number or one text in a cell",
                todo="take what is needed out of them, such as units[name].str[0], before",
            )
    return name


def resolve_covariates(frame: pd.DataFrame, covariates: Any, roles: Mapping[str, str]) -> tuple[str, ...]:
    """Names of covariates; ``*`` and ``?`` are patterns, which never match a column that has another role."""
    if covariates is None:
        return ()
    wanted: Sequence[Any] = [covariates] if isinstance(covariates, str) else list(covariates)
    taken = {column: role for role, column in roles.items()}
    taken |= dict.fromkeys(("geometry", getattr(frame, "active_geometry_name", None) or "geometry"), "place")
    found: list[str] = []
    for name in wanted:
        if isinstance(name, str) and ("*" in name or "?" in name) and name not in frame.columns:
            matches = [c for c in frame.columns if fnmatchcase(str(c), name) and c not in taken]
            if not matches:
                raise ColumnError(
                    f"the pattern {name!r} in covariates matches no column of the units",
                    expected=f"a pattern for some of {list_names(frame.columns)}",
                    todo="check the pattern, or list the columns",
                )
            found += [require_column(frame, c, "covariates") if isinstance(c, str) else c for c in matches]
            continue
        column = require_column(frame, name, "covariates")
        if column in taken and taken[column] in ("outcome", "treatment", "place"):
            raise ColumnError(
                f"column {column!r} is the {taken[column]} and a covariate",
                expected="covariates measured before treatment, none of them the outcome, the treatment or the place",
                todo=f"leave {column!r} out of covariates",
            )
        found.append(column)
    return tuple(dict.fromkeys(found))


def numeric_column(values: pd.Series, role: str) -> NDArray[np.float64]:
    """The column as floats, NaN where missing; ColumnError naming the first value that is no number."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if values.dtype.kind in "mM":
        raise ColumnError(
            f"{role} {values.name!r} holds dates ({values.dtype})",
            expected="numbers",
            todo="turn it into a number, such as days since a date",
        )
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    bad = numbers.isna() & values.notna()
    if bad.any():
        text = values[bad].iloc[0]
        raise ColumnError(
            f"{role} {values.name!r} holds {text!r} ({int(bad.sum())} of {len(values)} values are not numbers)",
            expected="numbers",
            todo=_about_commas([str(value).strip() for value in values[bad].unique()]),
        )
    return np.asarray(numbers.to_numpy(dtype=float), dtype=np.float64)


def _about_commas(texts: Sequence[str]) -> str:
    """What to do about texts that are no numbers: commas as decimals, between thousands, or as either."""
    if all(re.fullmatch(r"[+-]?\d+,\d+|[+-]?\d{1,3}(\.\d{3})+(,\d+)?", text) for text in texts):
        thousands = any("." in text for text in texts)
        if thousands or not all(re.fullmatch(r"[+-]?\d{1,3},\d{3}", text) for text in texts):
            more = ", 'thousands': '.'" if thousands else ""
            return f"the decimals are commas: read the file with read_options={{'decimal': ','{more}}}"
        return (
            "the commas stand between thousands or before decimals, and the codebook says which: read the file with "
            "read_options={'thousands': ','} or {'decimal': ','}"
        )
    if all(re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d+,\d{3}", text) for text in texts):
        return "the commas stand between thousands: read the file with read_options={'thousands': ','}"
    return "code it as numbers, and missing values as empty cells"


def one_name_each(frame: pd.DataFrame) -> None:
    """Refuse a table in which two columns share a name."""
    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        raise DataError(
            f"the units have more than one column named {str(doubled[0])!r}",
            expected="each name once",
            todo="rename or drop one: units = units.loc[:, ~units.columns.duplicated()]",
        )
