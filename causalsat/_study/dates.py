"""Dates as days, from whatever names one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

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


def _day(value: Any, role: str) -> np.datetime64:
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
