"""Days of images: read from names and values; a month or a year stands for its last day.

The last day is the careful choice: an annual composite may show anything up to 31 December, so
``images_before("2016-06-01")`` must not return the composite of 2016.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from causalsat.exceptions import ImageryError

__all__ = ["as_day", "day_in_name", "first_day"]

_COMPACT = re.compile(r"(\d{4})(\d{2})?(\d{2})?$")
_DEFAULT = (
    r"(?<!\d)((?:19|20)\d{2}[-_]?(?:0[1-9]|1[0-2])[-_]?(?:0[1-9]|[12]\d|3[01]))(?!\d)",
    r"(?<!\d)((?:19|20)\d{2}[-_]?(?:0[1-9]|1[0-2]))(?!\d)",
    r"(?<!\d)((?:19|20)\d{2})(?!\d)",
)


def as_day(value: Any) -> str:
    """ISO day of a text, number (year), datetime or numpy date; the last day of a month or year.

    Raises
    ------
    ImageryError
        Not a date.

    Examples
    --------
    >>> as_day("2016-07-03"), as_day("20160703"), as_day("2016-02"), as_day(2016)
    ('2016-07-03', '2016-07-03', '2016-02-29', '2016-12-31')
    """
    text = str(value).strip()
    compact = _COMPACT.match(text)
    if compact:
        text = "-".join(part for part in compact.groups() if part)
    try:
        date = np.datetime64(text if isinstance(value, str | int | np.integer) else value)
        unit = np.datetime_data(date.dtype)[0]
        if unit in ("Y", "M"):
            date = (date + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
        day = date.astype("datetime64[D]")
    except (ValueError, TypeError) as error:
        raise ImageryError(f"{value!r} is not a date", expected="2016-07-03, 20160703, 2016-07 or 2016") from error
    if np.isnat(day):
        raise ImageryError("a date is missing (NaT)", expected="2016-07-03, 20160703, 2016-07 or 2016")
    return str(day)


def day_in_name(name: str, regex: str | None = None) -> str | None:
    r"""ISO day found in a file's name; None where there is none.

    Parameters
    ----------
    name : str
        File name.
    regex : str, optional
        With groups named ``year``, ``month``, ``day`` or ``doy`` (day of year), or with the whole date in its first
        group. Default: a date such as 20160703, 2016-07-03, 2016_07, 2016 between non-digits.

    Examples
    --------
    >>> day_in_name("S2_T36NVJ_20160703T0801.tif"), day_in_name("ndvi_2016.tif"), day_in_name("scene.tif")
    ('2016-07-03', '2016-12-31', None)
    >>> day_in_name("LC08_2016185.tif", r"_(?P<year>\d{4})(?P<doy>\d{3})")
    '2016-07-03'
    """
    try:
        patterns = [re.compile(regex)] if regex else [re.compile(default) for default in _DEFAULT]
    except re.error as error:
        raise ImageryError(
            f"date_regex={regex!r} is not a regular expression ({error})", todo=r'for example date_regex=r"_(\d{8})_"'
        ) from error
    for pattern in patterns:
        found = pattern.search(name)
        if found:
            return _day_of(found, name)
    return None


def _day_of(found: re.Match[str], name: str) -> str:
    parts = {key: text for key, text in found.groupdict().items() if text}
    if "year" in parts and "doy" in parts:
        start = np.datetime64(f"{parts['year']}-01-01")
        return str(start + np.timedelta64(int(parts["doy"]) - 1, "D"))
    if "year" in parts:
        return as_day("-".join(parts[key].zfill(2) for key in ("year", "month", "day") if key in parts))
    text = found.group(1) if found.re.groups else found.group(0)
    try:
        return as_day(text.replace("_", "-"))
    except ImageryError as error:
        raise ImageryError(
            f"{name}: date_regex found {text!r}, which is not a date",
            todo="put the date into the first group, or use groups named year, month, day or doy",
        ) from error


def first_day(value: Any) -> str:
    """ISO first day of a month or year; otherwise the day itself.

    Examples
    --------
    >>> first_day("2016"), first_day("2016-02"), first_day("2016-02-10")
    ('2016-01-01', '2016-02-01', '2016-02-10')
    """
    text = str(value)
    last = as_day(value)
    if len(text) == 4:
        return last[:4] + "-01-01"
    if len(text) in (6, 7) and text[:4].isdigit():
        return last[:8] + "01"
    return last
