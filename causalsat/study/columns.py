"""Columns by name: resolving roles, close matches for a misspelt name, and coding a treatment as numbers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.exceptions import ColumnError, DataError, TreatmentError

CONTROL_WORDS = frozenset(
    {"control", "control group", "controls", "untreated", "not treated", "comparison", "placebo", "no", "false", "c"}
)
TREATED_WORDS = frozenset(
    {"treatment", "treatment group", "treated", "treat", "intervention", "program", "programme", "yes", "true", "t"}
)


def close_matches(name: str, known: Iterable[Any], most: int = 3) -> list[str]:
    """Names like the given one, best first: equal but for case and spaces, then similar spelling.

    Examples
    --------
    >>> close_matches("outcom", ["unit", "Outcome ", "income"])
    ['Outcome ']
    """
    names = [str(k) for k in known]
    folded = {n: "".join(n.split()).replace("_", "").casefold() for n in names}
    target = "".join(name.split()).replace("_", "").casefold()
    same = [n for n in names if folded[n] == target]
    similar = difflib.get_close_matches(target, list(folded.values()), n=most, cutoff=0.6)
    ranked = same + [n for value in similar for n in names if folded[n] == value and n not in same]
    return list(dict.fromkeys(ranked))[:most]


def list_names(names: Iterable[Any], most: int = 10) -> str:
    """Names joined by commas, the tail counted."""
    listed = [str(n) for n in names]
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "")


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
            found += matches
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
        comma = isinstance(text, str) and pd.notna(pd.to_numeric(text.replace(",", "."), errors="coerce"))
        raise ColumnError(
            f"{role} {values.name!r} holds {text!r} ({int(bad.sum())} of {len(values)} values are not numbers)",
            expected="numbers",
            todo="the decimals are commas: read the file with read_options={'decimal': ','}"
            if comma
            else "code it as numbers, and missing values as empty cells",
        )
    return np.asarray(numbers.to_numpy(dtype=float), dtype=np.float64)


def code_treatment(
    values: pd.Series, treated: Any = None, labels: Mapping[Any, str] | None = None
) -> NDArray[np.float64]:
    """Treatment as floats: 0 control, 1 treated, or a dose; NaN where missing.

    The rule, in this order: ``treated`` names the value that means treated and the one other value is
    control; booleans and numbers 0/1 stand for themselves; two values whose words (or Stata value labels)
    say which is which (control, untreated, no, false, placebo, comparison; treatment, treated, yes, true,
    intervention) are coded by the words; any other numbers stay as they are; other words are refused.

    Parameters
    ----------
    values : Series of shape (n,)
        The column as read.
    treated : object, optional
        The value (or Stata label) that means treated.
    labels : mapping of code to label, optional
        Stata value labels of this column.

    Raises
    ------
    TreatmentError
        If words do not say which arm is which, or ``treated`` is no value of the column.

    Examples
    --------
    >>> code_treatment(pd.Series(["Control", "Treatment", "Control"]))
    array([0., 1., 0.])
    >>> code_treatment(pd.Series([1, 2, 2]), treated=1)
    array([1., 0., 0.])
    """
    named = _labelled(values, labels)
    present = list(pd.unique(values.dropna()))
    if treated is not None:
        return _against(values, named, treated, present)
    numbers = _as_numbers(values)
    if numbers is not None and set(np.unique(numbers[~np.isnan(numbers)])) <= {0.0, 1.0}:
        return numbers
    words = named.map(lambda v: str(v).strip().casefold(), na_action="ignore")
    distinct = set(words.dropna())
    if len(distinct) == 2 and len(distinct & CONTROL_WORDS) == 1 and len(distinct & TREATED_WORDS) == 1:
        return np.where(words.isna(), np.nan, words.isin(TREATED_WORDS))
    if numbers is not None:
        return numbers
    raise TreatmentError(
        f"treatment {values.name!r} has the labels {list_names(map(_shown, present), 6)}",
        expected="0 and 1, or two labels that say which is which, such as Control and Treatment",
        todo=f"name the treated label, for example treated={_shown(_example(present))}"
        if len(present) == 2
        else "keep the two arms to compare (units[units[...].isin([...])]) and name the treated one with treated=",
    )


def _labelled(values: pd.Series, labels: Mapping[Any, str] | None) -> pd.Series:
    plain = values.astype(object)
    if not labels:
        return plain
    return plain.map(lambda v: labels.get(v, labels.get(int(v), v)) if _is_whole(v) else v, na_action="ignore")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and float(value).is_integer()


def _as_numbers(values: pd.Series) -> NDArray[np.float64] | None:
    plain = values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values
    if plain.dtype.kind in "mM":
        return None
    numbers = pd.to_numeric(plain, errors="coerce")
    if (numbers.isna() & plain.notna()).any():
        return None
    return np.asarray(numbers.to_numpy(dtype=float, na_value=np.nan), dtype=np.float64)


def _against(values: pd.Series, named: pd.Series, treated: Any, present: list[Any]) -> NDArray[np.float64]:
    hit = (values.astype(object) == treated) | (named == treated)
    if not hit.any():
        raise TreatmentError(
            f"treated={treated!r} is no value of the treatment {values.name!r}",
            expected=f"one of {list_names(map(_shown, present), 6)}",
            todo="check the spelling and the type (2 is not '2')",
        )
    others = list(pd.unique(values[~hit].dropna()))
    if len(others) > 1:
        raise TreatmentError(
            f"treatment {values.name!r} has {len(others)} values besides treated={treated!r}: "
            f"{list_names(map(_shown, others), 6)}",
            expected="one control value",
            todo=f"keep the two arms to compare before, for example units[units[{values.name!r}]"
            f".isin([{treated!r}, {_shown(others[0])}])]",
        )
    return np.where(values.isna(), np.nan, hit)


def _shown(value: Any) -> str:
    """A value as a user writes it: 1, and not np.int64(1)."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def _example(present: list[Any]) -> Any:
    return sorted(present, key=str)[-1]


def one_name_each(frame: pd.DataFrame) -> None:
    """Refuse a table in which two columns share a name."""
    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        raise DataError(
            f"the units have more than one column named {str(doubled[0])!r}",
            expected="each name once",
            todo="rename or drop one: units = units.loc[:, ~units.columns.duplicated()]",
        )
