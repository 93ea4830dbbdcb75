"""Dates of treatment and of images as days, from whatever names one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.dates import parse_day
from causalsat.exceptions import ParameterError

__all__ = ["column_days", "parse_dates", "why_unread"]

EXPECTED = "a date such as '2008-03-01' or a year such as 2008"


def parse_dates(value: Any, role: str, *, last: bool = False) -> tuple[np.datetime64, ...]:
    """One or several dates as numpy datetime64[D].

    Parameters
    ----------
    value : date, text or number, or a sequence of them
        What :func:`causalsat.core.dates.parse_day` reads: ISO dates, months and years.
    role : str
        What the messages call it.
    last : bool
        Whether a month or a year stands for its last day, as for images, or for its first, as for treatments: both
        are the choices under which an image of the time of treatment does not pass for one from before.

    Raises
    ------
    ParameterError
        If one of them is no such date.

    Examples
    --------
    >>> parse_dates(["2000", "2008-03-01"], "treatment_date")
    (np.datetime64('2000-01-01'), np.datetime64('2008-03-01'))
    >>> parse_dates(2000, "image_dates", last=True)
    (np.datetime64('2000-12-31'),)
    """
    if value is None:
        return ()
    single = isinstance(value, str | int) or not hasattr(value, "__iter__")
    return tuple(_day(v, role, last) for v in ([value] if single else list(value)))


def column_days(values: pd.Series) -> NDArray[np.datetime64]:
    """Each treatment date of a column as a day (datetime64[D]), each read by itself; NaT where it is missing or none.

    Examples
    --------
    >>> column_days(pd.Series(["2008-03-01", "unknown", None]))
    array(['2008-03-01',        'NaT',        'NaT'], dtype='datetime64[D]')
    >>> column_days(pd.Series([2008.0, 2009.0]))
    array(['2008-01-01', '2009-01-01'], dtype='datetime64[D]')
    """
    nothing = np.datetime64("NaT", "D")
    days: dict[Any, np.datetime64] = {}
    for value in values.dropna().unique():
        try:
            days[value] = _day(value, "date", False)
        except ParameterError:
            days[value] = nothing
    return np.array([days.get(value, nothing) for value in values.astype(object)], dtype="datetime64[D]")


def why_unread(value: Any) -> str:
    """Why a value is no date, and how to write it if it is meant as one.

    Examples
    --------
    >>> why_unread("13/04/2008")
    'the year does not come first: write it as 2008-04-13'
    """
    try:
        parse_day(value, last=False)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def _day(value: Any, role: str, last: bool) -> np.datetime64:
    try:
        return parse_day(value, last=last)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"{role}={value!r} is no date: {error}", expected=EXPECTED) from error
