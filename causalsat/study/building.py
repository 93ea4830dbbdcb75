"""What the constructor of Study checks: the table, the roles, the imagery's kind."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import align_rows
from causalsat.exceptions import ColumnError, DataError, ParameterError
from causalsat.study.columns import one_name_each, require_column


def check_table(units: Any, what: str = "units") -> Any:
    """A table with rows and distinct column names, or an error that says what arrived."""
    if not isinstance(units, pd.DataFrame):
        raise DataError(
            f"{what} of type {type(units).__name__}",
            expected="a pandas DataFrame or a GeoDataFrame",
            todo="read a file with Study.from_file(path, ...)"
            if isinstance(units, str | PathLike)
            else "make it a DataFrame with named columns",
        )
    if not len(units):
        raise DataError(f"the {what} have no rows", expected="one row for each unit", todo="check the filter or file")
    one_name_each(units)
    return units


def resolve_roles(frame: Any, **roles: str | None) -> dict[str, str]:
    """Columns of the roles that were given, each of them in the table."""
    found = {
        role: require_column(frame, column, role)
        for role, column in roles.items()
        if column is not None or role in ("outcome", "treatment")
    }
    if found["outcome"] == found["treatment"]:
        raise ColumnError(f"{found['outcome']!r} is both outcome and treatment", expected="two different columns")
    return found


def one_probability(value: Any) -> float:
    """A probability of treatment that holds for all units, strictly between 0 and 1."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ColumnError(
            f"propensity of type {type(value).__name__}",
            expected="the name of a column, or one number",
            todo="add the values to the table as a column",
        ) from None
    if not 0 < number < 1:
        raise ParameterError(f"propensity={number:g}", expected="a probability strictly between 0 and 1")
    return number


def imagery_names(imagery: Any) -> str:
    """Names of the imagery's sources, for messages."""
    if isinstance(imagery, Mapping):
        return ", ".join(map(str, imagery))
    return str(getattr(imagery, "name", None) or type(imagery).__name__)


def check_imagery(imagery: Any) -> Any:
    """The imagery, or dict of them, if each can be asked for its bounds and chips."""
    for source in imagery.values() if isinstance(imagery, Mapping) else [imagery]:
        if imagery is None or all(hasattr(source, name) for name in ("iter_chips", "bounds", "crs")):
            continue
        raise ParameterError(
            f"imagery of type {type(source).__name__}",
            expected="an imagery, or a dict of them",
            todo=f"open it first: imagery=causalsat.open_imagery({source!r})"
            if isinstance(source, str | PathLike)
            else "open it first with causalsat.open_imagery(...)",
        )
    return imagery


def chosen_rows(mask: ArrayLike, units: pd.Index) -> NDArray[Any]:
    """Positions of the units that a boolean mask, by its labels where it has any, or positions select."""
    n = len(units)
    chosen = np.asarray(mask)
    if chosen.dtype == object and pd.isna(chosen).any():
        raise DataError(
            f"a mask with {int(pd.isna(chosen).sum())} missing values",
            expected="True or False for each unit",
            todo="say where missing values belong, such as (study.units['age'] > 30).fillna(False)",
        )
    if chosen.dtype.kind in "iuf" and len(chosen) == n > 2 and np.isin(chosen, (0, 1)).all():
        raise DataError(
            f"{n} numbers 0 and 1 for {n} units, which as positions repeat the first two units",
            expected="a boolean mask, or positions",
            todo="make it a mask: study.subset(study.units['female'] == 1)",
        )
    if chosen.dtype == bool and chosen.shape != (n,):
        raise DataError(
            f"a mask of shape {chosen.shape} for {n} units",
            expected=f"a boolean array of {n}",
            todo="make the mask from this study's own columns, such as study.units['age'] > 30",
        )
    if chosen.dtype != bool:
        return chosen
    return np.flatnonzero(np.asarray(align_rows(units, mask, "the mask", "the study"), dtype=bool))
