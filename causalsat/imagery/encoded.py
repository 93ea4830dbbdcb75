"""What an xarray variable says of its numbers, by the conventions of CF, GDAL and rioxarray."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ImageryError
from causalsat.imagery.blocks import is_nodata, nodata_bounds

__all__ = ["FLAGS", "NOTHING", "Stated", "stated", "stated_by_band", "unsigned"]

FLAGS = ("flag_values", "flag_masks", "flag_meanings")  # by which CF says what codes mean
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
    classes : bool
        Numbers are codes of classes or flags, and no amounts.
    """

    nodata: tuple[float, ...] = ()
    low: float = -np.inf
    high: float = np.inf
    scale: float = 1.0
    offset: float = 0.0
    classes: bool = field(default=False, repr=False, compare=False)

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
    attrs, turned = array.attrs, _turned_type(array)
    fills: dict[float, None] = {}
    for key in _FILLS:
        for value in _numbers(attrs.get(key)):
            fills[value if turned is None else _turn(value, turned)] = None
    decoded = any(key in array.encoding for key in ("scale_factor", "add_offset"))
    low, high = -np.inf, np.inf
    if not decoded:
        ends = _numbers(attrs.get("valid_range"))
        low, high = ends if len(ends) == 2 else (low, high)
        low = next(iter(_numbers(attrs.get("valid_min"))), low)
        high = next(iter(_numbers(attrs.get("valid_max"))), high)
        if turned is not None:
            low, high = (_turn(end, turned) if np.isfinite(end) else end for end in (low, high))
    scale, offset = (
        next(iter(_numbers(attrs.get(key))), none) for key, none in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    return Stated(tuple(fills), low, high, scale, offset, any(key in attrs for key in FLAGS))


def stated_by_band(array: Any, label: str) -> Stated | tuple[Stated, ...]:
    """What a DataArray states of all of its bands, or of each where rioxarray gives each a scale or an offset.

    Raises
    ------
    ImageryError
        Scales or offsets of another number than there are bands, as are left after some bands were selected.

    Examples
    --------
    >>> import xarray
    >>> array = xarray.DataArray([[[1]], [[2]]], dims=("band", "y", "x"), attrs={"scales": (0.1, 0.2)})
    >>> [one.scale for one in stated_by_band(array, "array")]
    [0.1, 0.2]
    """
    common = stated(array)
    each = {what: _numbers(array.attrs.get(key)) for key, what in (("scales", "scale"), ("offsets", "offset"))}
    each = {what: values for what, values in each.items() if values}
    if not each:
        return common
    count = array.sizes.get("band", 1)
    for what, values in each.items():
        if len(values) != count:
            raise ImageryError(
                f"{label} states {len(values)} {what}s for {count} band{'s' if count > 1 else ''}",
                expected="one for each band",
                todo=f"correct array.attrs['{what}s'], or select bands with bands= when it is opened",
            )
    own: list[dict[str, Any]] = [{what: values[k] for what, values in each.items()} for k in range(count)]
    return tuple(replace(common, **one) for one in own)


def unsigned(array: Any) -> Any:
    """The array, its whole numbers with or without a sign as its attribute ``_Unsigned`` says."""
    turned = _turned_type(array)
    return array if turned is None else array.astype(turned)


def _turned_type(array: Any) -> np.dtype[Any] | None:
    """The type of the same bits that the attribute ``_Unsigned`` says they are of; None where it is the array's."""
    says, kind = str(array.attrs.get("_Unsigned", "")).lower(), array.dtype.kind
    if (says, kind) in (("true", "i"), ("false", "u")):
        return np.dtype(f"{'u' if kind == 'i' else 'i'}{array.dtype.itemsize}")
    return None


def _turn(value: float, turned: np.dtype[Any]) -> float:
    """A stored number as the one of the same bits in the type that they are of; others as they are."""
    whole = 2.0 ** (8 * turned.itemsize)
    if turned.kind == "u":
        return value + whole if -whole / 2 <= value < 0 else value
    return value - whole if whole / 2 <= value < whole else value


def _numbers(value: Any) -> list[float]:
    """The numbers of an attribute, also of one that is a text; none where it holds no number, or NaN."""
    if value is None:
        return []
    try:
        if isinstance(value, str | bytes):
            value = float(value)
        array = np.atleast_1d(np.asarray(value))
        exact = [int(v) if array.dtype.kind in "iu" else float(v) for v in array.ravel()]
    except (TypeError, ValueError):
        return []
    return [v if isinstance(v, float) or abs(v) > 1 << 53 else float(v) for v in exact if v == v]
