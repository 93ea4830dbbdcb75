"""Days of images: read from names and values; a month, a year or a period stands for its last day.

The last day is the conservative choice: an annual composite may show anything up to 31 December, so
``images_before("2016-06-01")`` must not return the composite of 2016.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from causalsat.core.dates import parse_day
from causalsat.exceptions import ImageryError

__all__ = ["as_day", "check_order", "day_in_name", "first_day"]

EXPECTED = "2016-07-03, 20160703, 2016-07 or 2016"
# a year that follows a lone v or r is a version or a release, and a month that a letter follows is none: 2015_10m
_YEAR = r"(?<!\d)(?<![^A-Za-z][vVrR])(?<!^[vVrR])((?:19|20)\d{2})"
_MONTH = r"(0[1-9]|1[0-2])"
_TOKENS = (
    re.compile(_YEAR + r"([-_.]?)" + _MONTH + r"\2(0[1-9]|[12]\d|3[01])(?!\d)"),
    re.compile(_YEAR + r"(?:" + _MONTH + r"(?!\d)|[-_.]" + _MONTH + r"(?![0-9A-Za-z]))"),
    re.compile(_YEAR + r"(?!\d)"),
)
_NAMED = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
# what makes a year a part of a date that is not read: day of year, other orders, months in words, quarters, weeks;
# 2015_10m and 2015_30_sec are years with a resolution, v2.0.2008 with a version
_REST_BEHIND = re.compile(
    r"[-_.]\d{1,3}(?![0-9A-Za-z])(?![-_. ]?(?:k?m|arc\w*|sec\w*|min\w*|deg\w*)(?![A-Za-z]))"
    rf"|[-_. ]?{_NAMED}(?![A-Za-z])|[-_. ]?(?:Q[1-4]|W\d\d)(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_REST_BEFORE = re.compile(
    r"(?:(?<![0-9A-Za-z])(?:0?[1-9]|[12]\d|3[01])[-_.](?:0?[1-9]|[12]\d|3[01])[-_.]"
    r"|(?<![0-9A-Za-z.])(?:0[1-9]|1[0-2])[-_.]|\A[1-9][-_.]"  # but Landsat_7_2008, sentinel-2-2008
    r"|(?<![0-9A-Za-z])W(?:0?[1-9]|[1-4]\d|5[0-3])[-_. ]?"
    rf"|(?<![A-Za-z]){_NAMED}[-_. ]?|(?<![0-9A-Za-z])Q[1-4][-_. ]?)\Z",
    re.IGNORECASE,
)
_SHORT_DAY = re.compile(r"\d{4}([-_])\d\d\1[1-9](?![0-9A-Za-z])")
_BETWEEN = re.compile(r"[-_. ]{1,3}|[-_. ]?(?:to|through)[-_. ]?")
# products whose second day is that of processing: Landsat's and Sentinel-2's
_PRODUCTS = re.compile(
    r"L[COTEM]\d{2}_L\w{3}_\d{6}_(\d{8})_\d{8}_\d{2}_(?:T1|T2|RT)"
    r"|S2[A-D]_MSIL\w{2}_(\d{8})T\d{6}_N\d{4}_R\d{3}_T\w{5}_\d{8}T\d{6}"
)


def as_day(value: Any) -> str:
    """ISO day of a text, number (year), datetime or numpy date; the last day of a month or year.

    Days and months in another order than ISO's (03/04/2008, 13.04.2008) are refused, since nothing says which of the
    two comes first.

    Raises
    ------
    ImageryError
        Not a date, or one before 1900 or after 2200.

    Examples
    --------
    >>> as_day("2016-07-03"), as_day("20160703"), as_day("2016-02"), as_day(2016)
    ('2016-07-03', '2016-07-03', '2016-02-29', '2016-12-31')
    """
    try:
        return str(parse_day(value, last=True))
    except (ValueError, TypeError) as error:
        raise ImageryError(f"{value!r} is not a date: {error}", expected=EXPECTED) from error


def first_day(value: Any) -> str:
    """ISO first day of a month or year; otherwise the day itself.

    Examples
    --------
    >>> first_day("2016"), first_day("2016-02"), first_day("2016-02-10")
    ('2016-01-01', '2016-02-01', '2016-02-10')
    """
    try:
        return str(parse_day(value, last=False))
    except (ValueError, TypeError) as error:
        raise ImageryError(f"{value!r} is not a date: {error}", expected=EXPECTED) from error


def day_in_name(name: str, regex: str | None = None) -> str | None:
    r"""ISO day found in a file's name; None where there is none.

    Parameters
    ----------
    name : str
        File name.
    regex : str, optional
        With groups named ``year``, ``month``, ``day`` or ``doy`` (day of year), or with the whole date in its first
        group. Default: a date such as 20160703, 2016-07-03, 2016_07, 2016. A period (``201204-201303``,
        ``2009_2011``) and several days in one name give the last of them, but for the names of Landsat's and
        Sentinel-2's products, which hold the day of processing behind that of the image.

    Raises
    ------
    ImageryError
        Several years or months that are no period, a year next to what is not read (03-04-2008, 15Jan2008, 2008Q1,
        2008-W05, 2008_001: nothing is guessed), or a regular expression that finds no date.

    Examples
    --------
    >>> day_in_name("S2_T36NVJ_20160703T0801.tif"), day_in_name("ndvi_2016.tif"), day_in_name("scene.tif")
    ('2016-07-03', '2016-12-31', None)
    >>> day_in_name("npp_201204-201303_global.tif")
    '2013-03-31'
    >>> day_in_name("LC08_2016185.tif", r"_(?P<year>\d{4})(?P<doy>\d{3})")
    '2016-07-03'
    """
    if regex is None:
        return _day_by_default(name)
    try:
        found = re.search(regex, name)
    except re.error as error:
        raise ImageryError(
            f"date_regex={regex!r} is not a regular expression ({error})", todo=r'for example date_regex=r"_(\d{8})_"'
        ) from error
    return None if found is None else _day_of(found, name)


def _day_by_default(name: str) -> str | None:
    product = _PRODUCTS.search(name)
    if product:
        return as_day(product.group(1) or product.group(2))
    tokens = _tokens(name)
    if not tokens:
        return None
    finest = min(level for _, _, level, _ in tokens)
    if finest > 0:
        _check_whole(name, [token for token in tokens if token[2] == finest])
    days, end = [], -1
    period = False
    for start, stop, level, day in tokens:
        follows = end >= 0 and _BETWEEN.fullmatch(name[end:start]) is not None
        if level == finest or follows:
            period |= follows
            days.append(day)
            end = stop
    if len(set(days)) > 1 and finest > 0 and not period:
        raise ImageryError(
            f"{name} holds several dates: {', '.join(sorted(set(days)))}",
            todo=r'say which with date_regex=, the date in its first group (r"_(\d{4})_"), or pass dates=',
        )
    return max(days)


def _tokens(name: str) -> list[tuple[int, int, int, str]]:
    """Start, end, level (0 day, 1 month, 2 year) and last day of each date in a name, in their order."""
    found: list[tuple[int, int, int, str]] = []
    for level, pattern in enumerate(_TOKENS):
        for match in pattern.finditer(name):
            if any(match.start() < stop and start < match.end() for start, stop, _, _ in found):
                continue
            digits = re.sub(r"\D", "", match.group(0))
            try:
                found.append((match.start(), match.end(), level, as_day(digits)))
            except ImageryError:  # 20160231
                continue
    return sorted(found)


def _check_whole(name: str, tokens: list[tuple[int, int, int, str]]) -> None:
    """Refuse years, and months, that are a part of a longer date in a form that is not read."""
    for start, stop, level, _ in tokens:
        if level == 2:
            before, behind = _REST_BEFORE.search(name[:start]), _REST_BEHIND.match(name, stop)
            partial = before is not None or behind is not None
        else:
            partial = _SHORT_DAY.match(name, start) is not None
        if partial:
            raise ImageryError(
                f"{name} holds {name[start:stop]} next to what may be the rest of a date that is not read",
                expected=EXPECTED,
                todo="say what the date is with date_regex= (groups named year, month, day or doy), or pass dates=",
            )


def _day_of(found: re.Match[str], name: str) -> str:
    parts = {key: text for key, text in found.groupdict().items() if text}
    if "year" in parts and "doy" in parts:
        start = np.datetime64(f"{parts['year']}-01-01")
        return as_day(start + np.timedelta64(int(parts["doy"]) - 1, "D"))
    if "year" in parts:
        return as_day("-".join(parts[key].zfill(2) for key in ("year", "month", "day") if key in parts))
    text = found.group(1) if found.re.groups else found.group(0)
    try:
        return as_day(re.sub("[_.]", "-", text))
    except ImageryError as error:
        raise ImageryError(
            f"{name}: date_regex found {text!r}, which is not a date",
            todo="put the date into the first group, or use groups named year, month, day or doy",
        ) from error


def check_order(days: tuple[str, ...], what: str) -> None:
    """Refuse a day that occurs twice.

    Raises
    ------
    ImageryError
    """
    repeated = sorted({day for day in days if days.count(day) > 1})
    if repeated:
        raise ImageryError(
            f"{what} has several images of {', '.join(repeated[:3])}",
            expected="one image a day",
            todo='select one, or join them: array.groupby("time.date").mean()',
        )
