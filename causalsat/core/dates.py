"""Dates as people write them, read in one way only: ISO texts, years, and the date types of numpy and pandas.

A month or a year stands for its first day or its last; which of the two is conservative, the caller knows: an annual
image may show anything up to 31 December, and a treatment of a year may have begun on 1 January.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

import numpy as np

__all__ = ["FIRST_YEAR", "LAST_YEAR", "parse_day"]

FIRST_YEAR, LAST_YEAR = 1900, 2200

_COMPACT = re.compile(r"(\d{4})(?:(\d{2})(\d{2})?)?")
_PARTS = re.compile(r"(\d{4})([-/])(\d{1,2})(?:\2(\d{1,2})(?:[T ][\d:.]+(?:Z|\+00:?00)?)?)?")
_OTHER_ORDER = re.compile(r"(\d{1,2})[-/. ](\d{1,2})[-/. ](\d{4}|\d{2})(?!\d)")
_EPOCH_S = (3e8, 8e9)  # 1979 to 2223, in seconds since 1970
_SERIALS = (20_000, 80_000)  # days since 1899-12-30, as spreadsheets count: 1954 to 2119


def parse_day(value: Any, *, last: bool) -> np.datetime64:
    """The day that a value names, as datetime64[D].

    Parameters
    ----------
    value : text, number, date, datetime, datetime64, Timestamp or Period
        ISO texts with four digits of the year first (``2008-03-01``, ``20080301``, ``2008-03``, ``2008``); whole
        numbers of four, six or eight digits; dates of other calendars.
    last : bool
        Whether a month or a year stands for its last day or for its first.

    Raises
    ------
    ValueError
        Anything else; the message says what the value may be, such as a decimal year, and how to write it.

    Examples
    --------
    >>> parse_day("2008-03-01", last=True), parse_day(2008, last=True), parse_day("200803", last=False)
    (np.datetime64('2008-03-01'), np.datetime64('2008-12-31'), np.datetime64('2008-03-01'))
    >>> parse_day("03/04/2008", last=True)
    Traceback (most recent call last):
    ...
    ValueError: day and month in an order that nothing tells: write it as 2008-03-04 or 2008-04-03
    """
    if hasattr(value, "start_time"):  # a period of pandas
        value = value.end_time if last else value.start_time
    date = _with_unit(value)
    if np.isnat(date):
        raise ValueError("it is missing")
    unit = np.datetime_data(date.dtype)[0]
    if unit in ("Y", "M") and last:
        date = (date + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    day = date.astype("datetime64[D]")
    if not FIRST_YEAR <= int(str(day).split("-")[0]) <= LAST_YEAR:
        raise ValueError(f"years from {FIRST_YEAR} to {LAST_YEAR} are read")
    return np.datetime64(day)


def _with_unit(value: Any) -> np.datetime64:
    """As a numpy date whose unit is that of the value: a year, a month, or finer."""
    if isinstance(value, bool | np.bool_) or value is None:
        raise ValueError("it is no date")
    if isinstance(value, float | np.floating):
        if not float(value).is_integer():
            raise ValueError(_of_number(float(value)))
        value = int(value)  # a year of a column with missing values
    if isinstance(value, str | int | np.integer):
        return _of_text(str(value).strip())
    if isinstance(value, datetime.date) and value.year == value.year:  # pandas' NaT has the year NaN
        return np.datetime64(f"{value.year:04d}-{value.month:02d}-{value.day:02d}")  # the day of its own time zone
    if isinstance(value, np.datetime64 | datetime.date):
        return np.datetime64(value if isinstance(value, np.datetime64) else "NaT")
    if all(hasattr(value, part) for part in ("year", "month", "day")):  # of other calendars, as of models
        return np.datetime64(f"{value.year:04d}-{value.month:02d}-{value.day:02d}")
    raise ValueError("it is no date")


def _of_text(text: str) -> np.datetime64:
    found = _COMPACT.fullmatch(text)
    parts: tuple[str | None, ...] | None = found.groups() if found else None
    if found is None and (found := _PARTS.fullmatch(text)) is not None:
        parts = found.group(1, 3, 4)
    if parts is None:
        raise ValueError(_reason(text))
    return np.datetime64("-".join(part.zfill(2) for part in parts if part))


def _reason(text: str) -> str:
    other = _OTHER_ORDER.match(text)
    if other is not None:
        first, second, year = other.groups()
        if len(year) == 2:
            return "a year of two digits: write all four, year first"
        ways = [f"{year}-{int(m):02d}-{int(d):02d}" for m, d in ((first, second), (second, first)) if int(m) <= 12]
        ways = list(dict.fromkeys(ways))
        if len(ways) == 1:
            return f"the year does not come first: write it as {ways[0]}"
        return f"day and month in an order that nothing tells: write it as {' or '.join(ways) or 'year-month-day'}"
    try:
        return _of_number(float(text))
    except ValueError:
        return "it is no date in digits, the year first"


def _of_number(number: float) -> str:
    """What a number that is no year may count."""
    if FIRST_YEAR < number < LAST_YEAR:
        year = int(number)
        start, end = (np.datetime64(f"{y}-01-01", "D") for y in (year, year + 1))
        day = start + np.timedelta64(int((number - year) * int((end - start).astype(int))), "D")
        return f"if it is a decimal year, write it as {day}"
    for scale, unit in ((1, "seconds"), (1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")):
        if _EPOCH_S[0] <= number / scale <= _EPOCH_S[1]:
            day = np.datetime64(int(number / scale), "s").astype("datetime64[D]")
            return f"if it counts {unit} since 1970, write it as {day}"
    if _SERIALS[0] <= number <= _SERIALS[1]:
        counted = np.datetime64("1899-12-30") + np.timedelta64(int(number), "D")
        return f"if it is a spreadsheet's count of days, write it as {counted}"
    return "it is no date in digits, the year first"
