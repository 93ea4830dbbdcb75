"""Pooling of frame features over dates: functions on arrays (unit, date, feature).

A frame that is missing has NaN features. Dates are years as decimal numbers, so that gaps count as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ImageryError

__all__ = [
    "POOLINGS",
    "chip_days",
    "date_means",
    "days_as_years",
    "fill_missing",
    "fill_pixels",
    "pixel_means",
    "pool",
    "pooled_names",
    "share_of_squares",
]

FloatArray = NDArray[np.float64]

POOLINGS = ("mean_trend", "mean_difference", "mean_variance", "concatenate", "attention")
_DAYS_OF_YEAR = 365.25


def chip_days(X: Any, n_time: int, given: Sequence[Any] | None) -> tuple[str, ...]:
    """Days of the frames as ISO words: the chips' own, else the given ones, else none at all.

    Parameters
    ----------
    X : array or DataArray (unit, time, band, y, x)
    n_time : int
        Number of frames.
    given : sequence of dates or None
        Days for chips that do not name theirs.
    """
    coords = getattr(X, "coords", None)
    values = None
    if coords is not None and "time" in coords:
        values = np.atleast_1d(np.asarray(coords["time"]))
        values = values if values.dtype.kind == "M" else None
    if values is None and given is not None:
        try:
            values = np.array([np.datetime64(day, "D") for day in given])
        except ValueError as error:
            raise DataError(f"dates={list(given)!r}", expected="days such as '2015-06-20'") from error
    if values is None:
        return ()
    if len(values) != n_time:
        raise DataError(f"{len(values)} dates for chips of {n_time} frames", expected="one date a frame")
    days = values.astype("datetime64[D]")
    if np.isnat(days).any() or (np.diff(days) <= np.timedelta64(0, "D")).any():
        raise ImageryError(
            f"frames dated {', '.join(map(str, days[:6]))}",
            expected="increasing days",
            todo="sort the frames by date",
        )
    return tuple(str(day) for day in days)


def days_as_years(days: Sequence[str], n_time: int) -> FloatArray:
    """Decimal years of ISO days; 0, 1, ... where there are none, so that differences are those between frames."""
    if not len(days):
        return np.arange(n_time, dtype=float)
    number = np.array(days, dtype="datetime64[D]").astype(np.int64)
    return 1970.0 + number / _DAYS_OF_YEAR


def share_of_squares(valid: NDArray[Any], rows: Any, cols: Any, size: int) -> FloatArray:
    """Share of valid pixels in squares of a window (y, x), each exactly its count over its area."""
    height, width = valid.shape
    table = np.zeros((height + 1, width + 1), dtype=np.int64)
    table[1:, 1:] = valid.astype(np.int64).cumsum(axis=0).cumsum(axis=1)
    r1, c1 = rows + size, cols + size
    counts = table[r1, c1] - table[rows, c1] - table[r1, cols] + table[rows, cols]
    return np.asarray(counts / float(size * size))


def _present(features: FloatArray) -> NDArray[np.bool_]:
    """Which frames (unit, date) are there."""
    return np.asarray(np.isfinite(features).all(axis=2), dtype=bool)


def date_means(features: FloatArray) -> FloatArray:
    """Mean of the frames that are there, by date, (date, feature); of all dates for a date without any frame."""
    present = _present(features)
    if not present.any():
        raise ImageryError(
            "no frame of any training place has enough valid pixels",
            expected="imagery with data at the training units",
            todo="check nodata value and mask, or lower min_valid",
        )
    overall = features[present].mean(axis=0)
    rows = [
        features[present[:, t], t].mean(axis=0) if present[:, t].any() else overall for t in range(len(present[0]))
    ]
    return np.stack(rows)


def fill_missing(features: FloatArray, years: FloatArray, means: FloatArray) -> FloatArray:
    """Frames that are missing, from the frames around them.

    The deviation from the date's mean is interpolated linearly in time between the nearest frames that are there
    (before the first and after the last it stays), and the missing date's mean is added. So a missing July does not
    make a place look greener or drier than it is. Places without any frame stay NaN.

    Parameters
    ----------
    features : ndarray of shape (unit, date, feature)
    years : ndarray of shape (date,)
    means : ndarray of shape (date, feature)
        Means of the dates over the training places.
    """
    present = _present(features)
    if present.all():
        return features
    filled = features.copy()
    patterns, which = np.unique(present, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        units = np.flatnonzero(which.ravel() == number)
        if pattern.all():
            continue
        if not pattern.any():
            filled[units] = np.nan
            continue
        seen = np.flatnonzero(pattern)
        weights = np.stack([np.interp(years, years[seen], row) for row in np.eye(len(seen))], axis=1)
        deviations = features[units][:, seen] - means[seen]
        absent = np.flatnonzero(~pattern)
        filled[np.ix_(units, absent)] = means[absent] + np.einsum("ts,usk->utk", weights[absent], deviations)
    return filled


def pixel_means(chips: NDArray[np.float32]) -> FloatArray:
    """Mean of each band at each date over the valid pixels of chips (unit, date, band, y, x): (date, band).

    Of all dates for a date without any valid pixel.
    """
    valid = np.isfinite(chips).all(axis=2, keepdims=True)
    count = valid.sum(axis=(0, 3, 4)).astype(float)
    total = np.where(valid, chips, 0).sum(axis=(0, 3, 4), dtype=float)
    overall = total.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
    return np.where(count > 0, total / np.maximum(count, 1), overall)


def fill_pixels(chips: NDArray[np.float32], years: FloatArray, means: FloatArray) -> NDArray[np.float32]:
    """Pixels that are missing at a date, from the same pixel at other dates.

    As :func:`fill_missing` does it for frames: the deviation from the date's band mean is interpolated linearly in
    time between the nearest dates at which the pixel is valid, and the missing date's mean is added. Pixels that are
    never valid stay NaN. Each pixel is filled from itself alone, so filling a window and cutting chips from it is
    the same as filling the chips.

    Parameters
    ----------
    chips : ndarray of shape (unit, date, band, y, x)
    years : ndarray of shape (date,)
    means : ndarray of shape (date, band)
    """
    valid: NDArray[np.bool_] = np.asarray(np.isfinite(chips).all(axis=2, keepdims=True))
    if valid.all():
        return chips
    n_time = chips.shape[1]
    level = means.astype(np.float32)[None, :, :, None, None]
    deviation = np.where(valid, chips - level, np.float32(0))
    before, when_before = _nearest(deviation, valid, years, range(n_time))
    after, when_after = _nearest(deviation, valid, years, range(n_time - 1, -1, -1))
    gap = when_after - when_before
    share = np.where(gap > 0, (years[None, :, None, None, None] - when_before) / np.where(gap > 0, gap, 1), 0.0)
    share = np.where(np.isfinite(when_before), share, 1.0)
    share = np.where(np.isfinite(when_after), share, 0.0).astype(np.float32)
    filled = level + (1 - share) * before + share * after
    never = ~np.any(valid, axis=1, keepdims=True)
    return np.where(valid, chips, np.where(never, np.float32(np.nan), filled)).astype(np.float32)


def _nearest(
    deviation: NDArray[np.float32], valid: NDArray[np.bool_], years: FloatArray, order: Any
) -> tuple[Any, Any]:
    """Deviation at the nearest valid date in one direction, and its year (infinite where there is none)."""
    values, when = np.empty_like(deviation), np.empty(valid.shape)
    held, held_when = np.zeros_like(deviation[:, 0]), np.full(valid[:, 0].shape, np.nan)
    for t in order:
        held = np.where(valid[:, t], deviation[:, t], held)
        held_when = np.where(valid[:, t], years[t], held_when)
        values[:, t], when[:, t] = held, held_when
    return values, when


def pool(features: FloatArray, years: FloatArray, means: FloatArray, how: str) -> FloatArray:
    """Pool frame features (unit, date, feature) over dates.

    Parameters
    ----------
    features : ndarray of shape (unit, date, feature)
        NaN where a frame is missing.
    years : ndarray of shape (date,)
        Decimal years.
    means : ndarray of shape (date, feature)
        Means of the dates over the training places.
    how : {"mean_trend", "mean_difference", "mean_variance", "concatenate"}

    Returns
    -------
    ndarray of shape (unit, pooled features)
        As :func:`pooled_names` says; NaN for a place without any frame.
    """
    n = len(features)
    filled = fill_missing(features, years, means)
    if how == "concatenate":
        return filled.reshape(n, -1)
    mean = filled.mean(axis=1)
    if how == "mean_difference":
        rates = np.diff(filled, axis=1) / np.diff(years)[None, :, None]
        return np.hstack([mean, rates.reshape(n, -1)])
    present = _present(features)[:, :, None]
    if how == "mean_trend":
        return np.hstack([mean, _slopes(features - means, present, years) + _slopes(means[None], True, years)])
    count = present.sum(axis=1)
    own = np.where(present, features, 0.0)
    centre = own.sum(axis=1) / np.maximum(count, 1)
    squares = np.where(present, (features - centre[:, None]) ** 2, 0.0).sum(axis=1)
    sd = np.where(count >= 2, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)
    return np.hstack([mean, sd])


def _slopes(features: FloatArray, present: Any, years: FloatArray) -> FloatArray:
    """Least squares change per year over the frames that are there, (unit, feature); NaN for a single frame."""
    weight = np.broadcast_to(present, (*features.shape[:2], 1)).astype(float)
    count = weight.sum(axis=1, keepdims=True)
    centred = years[None, :, None] - (weight * years[None, :, None]).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    centred = centred * weight
    squares = (centred**2).sum(axis=1)
    total = (centred * np.where(weight > 0, features, 0.0)).sum(axis=1)
    return np.where(squares > 0, total / np.where(squares > 0, squares, 1.0), np.nan)


def pooled_names(names: Sequence[str], n_time: int, how: str) -> list[str]:
    """Names of the pooled features.

    ``mean_*``; ``trend_*``, per year; ``change<date>_*``, per year, from that date to the next; ``sd_*``;
    ``t<date>_*``.
    """
    if how == "concatenate":
        return [f"t{t}_{name}" for t in range(n_time) for name in names]
    mean = [f"mean_{name}" for name in names]
    if how == "mean_trend":
        return mean + [f"trend_{name}" for name in names]
    if how == "mean_difference":
        return mean + [f"change{t}_{name}" for t in range(n_time - 1) for name in names]
    return mean + [f"sd_{name}" for name in names]
