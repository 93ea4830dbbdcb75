"""What an xarray variable says of its numbers, by the conventions of CF, GDAL and rioxarray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.imagery.blocks import is_nodata, nodata_bounds

__all__ = ["NOTHING", "Stated", "stated", "unsigned"]

_FILLS = ("_FillValue", "missing_value", "fill_value", "nodata")


@dataclass(frozen=True)
class Stated:
    """What a variable states.

    Attributes
    ----------
    nodata : tuple of float
        Values that stand for nodata; NaN, which is invalid in any case, is not among them.
    low, high : float
        Stored values below or above are invalid.
    scale, offset : float
        Numbers are ``stored * scale + offset``.
    """

    nodata: tuple[float, ...] = ()
    low: float = -np.inf
    high: float = np.inf
    scale: float = 1.0
    offset: float = 0.0

    @property
    def simple(self) -> bool:
        """Whether at most one nodata value says all of what is invalid."""
        return len(self.nodata) <= 1 and self.low == -np.inf and self.high == np.inf

    def invalid(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """True where stored values, of any shape, are invalid; NaN is left to the reader."""
        bad = np.zeros(values.shape, dtype=bool)
        for value in self.nodata:
            bounds = nodata_bounds(value, values.dtype)
            if bounds is not None:
                bad |= is_nodata(values, bounds)
        if self.low > -np.inf:
            bad |= values < self.low
        if self.high < np.inf:
            bad |= values > self.high
        return bad


NOTHING = Stated()


def stated(array: Any) -> Stated:
    """What a DataArray states in its attributes.

    Values that xarray has decoded have no fill value, scale or offset there any more; a valid range, which is of the
    packed numbers, is then not taken.

    Examples
    --------
    >>> import xarray
    >>> stated(xarray.DataArray([1, 2], attrs={"_FillValue": -1, "missing_value": [-2, -1], "valid_min": 0}))
    Stated(nodata=(-1.0, -2.0), low=0.0, high=inf, scale=1.0, offset=0.0)
    """
    attrs, turned = array.attrs, _is_unsigned(array)
    dtype = np.dtype(array.dtype)
    fills: dict[float, None] = {}
    for key in _FILLS:
        for value in _numbers(attrs.get(key)):
            fills[_turn(value, dtype) if turned else value] = None
    decoded = any(key in array.encoding for key in ("scale_factor", "add_offset"))
    low, high = -np.inf, np.inf
    if not decoded:
        ends = _numbers(attrs.get("valid_range"))
        low, high = ends if len(ends) == 2 else (low, high)
        low = next(iter(_numbers(attrs.get("valid_min"))), low)
        high = next(iter(_numbers(attrs.get("valid_max"))), high)
        if turned:
            low, high = (_turn(end, dtype) if np.isfinite(end) else end for end in (low, high))
    scale, offset = (
        next(iter(_numbers(attrs.get(key))), none) for key, none in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    return Stated(tuple(fills), low, high, scale, offset)


def unsigned(array: Any) -> Any:
    """The array, its whole numbers without a sign where the attribute ``_Unsigned`` says that they have none."""
    if not _is_unsigned(array):
        return array
    return array.astype(np.dtype(f"u{array.dtype.itemsize}"))


def _is_unsigned(array: Any) -> bool:
    return array.dtype.kind == "i" and str(array.attrs.get("_Unsigned", "")).lower() == "true"


def _turn(value: float, dtype: np.dtype[Any]) -> float:
    """A stored number of a signed type as the unsigned one of the same bits."""
    return value + 2.0 ** (8 * dtype.itemsize) if value < 0 else value


def _numbers(value: Any) -> list[float]:
    """The numbers of an attribute; none where it holds no number, or NaN."""
    if value is None or isinstance(value, str | bytes):
        return []
    try:
        array = np.atleast_1d(np.asarray(value))
        exact = [int(v) if array.dtype.kind in "iu" else float(v) for v in array.ravel()]
    except (TypeError, ValueError):
        return []
    return [v if isinstance(v, float) or abs(v) > 1 << 53 else float(v) for v in exact if v == v]
