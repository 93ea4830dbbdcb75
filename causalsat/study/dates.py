"""Dates as days, from whatever names one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.exceptions import ParameterError


def parse_dates(value: Any, role: str) -> tuple[np.datetime64, ...]:
    """One or several dates as numpy datetime64[D]; a bare year is its first day.

    Examples
    --------
    >>> parse_dates(["2000", "2008-03-01"], "image_dates")
    (np.datetime64('2000-01-01'), np.datetime64('2008-03-01'))
    """
    if value is None:
        return ()
    single = isinstance(value, str | int) or not hasattr(value, "__iter__")
    listed = [value] if single else list(value)
    return tuple(_day(v, role) for v in listed)


def column_days(values: pd.Series) -> NDArray[np.datetime64]:
    """Each value of a column as a day (datetime64[D]), each read by itself; NaT where it is missing or no date.

    Examples
    --------
    >>> column_days(pd.Series(["2008-03-01", "unknown", None]))
    array(['2008-03-01',        'NaT',        'NaT'], dtype='datetime64[D]')
    >>> column_days(pd.Series([2008.0, 2009.0]))
    array(['2008-01-01', '2009-01-01'], dtype='datetime64[D]')
    """
    days: dict[Any, np.datetime64] = {}
    for value in values.dropna().unique():
        try:
            days[value] = _day(value, "date")
        except ParameterError:
            days[value] = np.datetime64("NaT", "D")
    nothing = np.datetime64("NaT", "D")
    return np.array([days.get(value, nothing) for value in values.astype(object)], dtype="datetime64[D]")


def _day(value: Any, role: str) -> np.datetime64:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # a year of a column with missing values
    text = str(value) if isinstance(value, int | np.integer) and not isinstance(value, np.datetime64) else value
    try:
        stamp: Any = pd.Timestamp(text)
    except (ValueError, TypeError):
        stamp = None
    if stamp is None or pd.isna(stamp) or not 1900 <= stamp.year <= 2200:
        raise ParameterError(
            f"{role}={value!r} is no date", expected="a date such as '2008-03-01' or a year such as 2008"
        )
    return np.datetime64(stamp.date(), "D")
