"""Checks of labels: names that differ only in their spelling, and numbers too large to tell apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from causalsat.core.names import list_names, shown
from causalsat.core.warn import warn
from causalsat.exceptions import DataError, DataWarning
from causalsat.study.report import Finding

__all__ = ["check_distinct", "labels", "spellings"]

ROLES = ("treatment", "cluster", "strata", "unit")
MAX_DOUBLE = 2.0**53  # from which double precision does not hold every whole number
MAX_KINDS = 50_000  # distinct values that are compared


def labels(study: Any, a: Any) -> Iterator[Finding]:
    """Labels of roles and of text covariates that are one but for their spelling; identity numbers as doubles."""
    columns = {study.roles[role]: role for role in ROLES if role in study.roles}
    if a.is_binary:  # coded by its words, whatever their case and spaces
        columns.pop(study.roles["treatment"], None)
    columns = {**dict.fromkeys(a.text, "covariate"), **columns}
    for column, role in columns.items():
        values = study.units[column]
        if role != "treatment" and role != "covariate":
            yield from _large_numbers(values, role)
        invisible, visible = spellings(values)
        for pairs, level, how in ((invisible, "error", "spaces or type"), (visible, "warning", "case or accents")):
            if not pairs:
                continue
            listed = _pairs(pairs)
            yield Finding(
                "warning" if role == "covariate" else level,  # type: ignore[arg-type]
                "labels",
                f"{role} {column!r} has labels that differ only by {how}: {listed}; they count as "
                f"{sum(map(len, pairs)):,} and not as {len(pairs):,}",
                f"if they are one, write them alike: units[{column!r}] = units[{column!r}].map(lambda v: "
                f"' '.join(str(v).split()){'' if how == 'spaces or type' else '.casefold()'}, na_action='ignore')",
                pairs,
            )


def check_distinct(names: pd.Series, what: str) -> None:
    """Refuse names of districts, one a row, that are missing, repeated or told apart only by spaces or type.

    Labels of clusters in a table of units have the same rule.

    Parameters
    ----------
    names : Series of object
    what : str
        What messages call them.

    Raises
    ------
    DataError

    Warns
    -----
    DataWarning
        Names that differ only by case or accents: they are taken for different districts.

    Examples
    --------
    >>> check_distinct(pd.Series(["Gulu", "Gulu "], dtype=object), "column 'name' of the districts")
    Traceback (most recent call last):
    causalsat.exceptions.DataError: column 'name' of the districts has names that differ only by spaces or type: ...
    """
    missing = (names.isna() | names.map(lambda value: isinstance(value, str) and not value.strip())).to_numpy(bool)
    if missing.any():
        raise DataError(
            f"{what} has no name in {int(missing.sum())} of {len(names)} rows, the first of them row "
            f"{int(missing.argmax())}",
            expected="a name for each district",
            todo="name them, or leave them out: districts[districts[name].notna()]",
        )
    if names.duplicated().any():
        raise DataError(
            f"{what} has repeated names, such as {shown(names[names.duplicated()].iloc[0])}",
            expected="one row a district",
            todo="join the parts of a district, districts.dissolve(by=...), or name a column that tells them apart, "
            "such as a code",
        )
    invisible, visible = spellings(names)
    if invisible:
        raise DataError(
            f"{what} has names that differ only by spaces or type: {_pairs(invisible)}",
            expected="one spelling of each name",
            todo="if they are one district, write them alike and join them, districts.dissolve(by=...); if not, name "
            "them apart",
        )
    if visible:
        warn(
            f"{what} has names that differ only by case or accents: {_pairs(visible)}; they are taken for different "
            "districts",
            DataWarning,
        )


def _pairs(groups: list[tuple[Any, ...]]) -> str:
    return list_names((" and ".join(map(repr, group)) for group in groups), 3)


def spellings(values: pd.Series) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Groups of distinct values that differ only by spaces or type, and only by case or accents as well.

    Examples
    --------
    >>> spellings(pd.Series(["north", "north ", "South", "south", 7, "7"], dtype=object))
    ([('north', 'north '), (7, '7')], [('South', 'south')])
    """
    if values.dtype.kind not in "OUST" and not isinstance(values.dtype, pd.CategoricalDtype):
        return [], []
    distinct = list(pd.unique(values.dropna().astype(object)))
    if len(distinct) > MAX_KINDS:
        return [], []
    plain = _alike(distinct, lambda value: " ".join(_text(value).split()))
    known = {value for pair in plain for value in pair[1:]}
    folded = _alike([value for value in distinct if value not in known], _folded)
    return plain, folded


def _alike(distinct: list[Any], key: Any) -> list[tuple[Any, ...]]:
    groups: dict[str, list[Any]] = {}
    for value in distinct:
        groups.setdefault(key(value), []).append(value)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _text(value: Any) -> str:
    """A label as text; 7.0 as 7, and letters and accents in one form."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return unicodedata.normalize("NFKC", str(value)).replace("\u200b", "").replace("\ufeff", "")


def _folded(value: Any) -> str:
    decomposed = unicodedata.normalize("NFD", " ".join(_text(value).split()).casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def _large_numbers(values: pd.Series, role: str) -> Iterator[Finding]:
    if values.dtype.kind != "f":
        return
    known = values.dropna().to_numpy(dtype=float)
    far = np.isfinite(known) & (np.abs(known) >= MAX_DOUBLE)
    if far.any():
        yield Finding(
            "error",
            "labels",
            f"{role} {values.name!r} holds numbers of more than 15 digits in double precision, such as "
            f"{known[far][0]:.0f} in {int(far.sum()):,} rows: neighbouring ones have become one",
            f"read it as text from the original file, pandas.read_csv(..., dtype={{{values.name!r}: str}}); in Stata "
            "keep it as a string",
        )
