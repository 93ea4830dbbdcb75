"""Imagery that is itself one source of blocks: what raster files and arrays share."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from causalsat.core.warn import warn
from causalsat.exceptions import ImageryError, ImageryWarning
from causalsat.imagery.base import Imagery, Layer
from causalsat.imagery.blocks import Block, read_unit
from causalsat.imagery.dates import first_day

__all__ = [
    "FROM_FILE",
    "OWN_SCALE",
    "LayerImagery",
    "by_day",
    "check_stated",
    "check_unique",
    "dated_rows",
    "per_band",
    "resolve_gain",
    "states_gain",
    "tell_of_classes",
]

Gain = float | tuple[float, ...] | tuple[tuple[float, ...], ...]
Own = tuple[Sequence[float], Sequence[float]]

FROM_FILE = "file"
OWN_SCALE = "says itself how its numbers are to be scaled"


@dataclass(frozen=True, kw_only=True, repr=False)
class LayerImagery(Imagery):
    """Imagery that is itself one source of blocks.

    Attributes
    ----------
    nodata : float or None
        Value that stands for nodata in the source.
    scale, offset : float, tuple of float or tuple of tuples
        Pixels become ``value * scale + offset``; one number, one for each band, or one for each time and band.
    """

    nodata: float | None = None
    scale: Gain = 1.0
    offset: Gain = 0.0

    @abstractmethod
    def load(self, r0: int, r1: int, c0: int, c1: int) -> Block:
        """Decode a part of the raster."""

    @property
    @abstractmethod
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of the source's own blocks or chunks."""

    @property
    def has_time(self) -> bool:
        """Whether arrays have a time dimension: not for a single image."""
        return False

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns that are decoded at a time."""
        return read_unit(self.block_shape, self.shape)

    @property
    def fill(self) -> float | None:
        """Value that stands for nodata."""
        return self.nodata

    @property
    def gain(self) -> tuple[Any, Any] | None:
        """Scale and offset as arrays; None where they change nothing."""
        if np.all(np.equal(self.scale, 1)) and np.all(np.equal(self.offset, 0)):
            return None
        return _column(self.scale), _column(self.offset)

    def layers(self) -> list[Layer]:
        """Itself."""
        return [((), self)]

    def _select_days(self, positions: list[int]) -> Self:
        return self

    def _select_gain(self, positions: list[int]) -> dict[str, Any]:
        return {"scale": _take(self.scale, positions), "offset": _take(self.offset, positions)}

    def _select_gain_days(self, positions: list[int]) -> dict[str, Any]:
        """Scale and offset of some of the times."""
        both = {"scale": self.scale, "offset": self.offset}
        dated = {
            key: value for key, value in both.items() if isinstance(value, tuple) and isinstance(value[0], tuple)
        }
        return {key: tuple(value[i] for i in positions) for key, value in dated.items()}


def _take(values: Any, positions: list[int]) -> Any:
    """A scalar, or the given bands' values; of a value for each time and band, those of every time."""
    if not isinstance(values, tuple):
        return values
    if isinstance(values[0], tuple):
        return tuple(_take(row, positions) for row in values)
    return tuple(values[i] for i in positions)


def per_band(value: Any, count: int, what: str, times: int | None = None) -> Gain:
    """A float, a tuple of one float for each band, or of one such tuple for each time.

    Raises
    ------
    ImageryError
        Not numbers, or of the wrong number.
    """
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ImageryError(f"{what}={value!r}", expected="a number, or one for each band") from error
    with np.errstate(over="ignore", under="ignore"):
        single = array.astype(np.float32)  # in which pixels are scaled
    if not np.isfinite(single).all() or (what == "scale" and not single.all()):
        raise ImageryError(
            f"{what}={_shown(array.ravel())}",
            expected="finite numbers" + (" other than 0" if what == "scale" else ""),
            todo="if it is the file's, correct it: gdal_edit -scale -offset; or pass scale=1 to read what is stored",
        )
    if array.ndim == 0:
        return float(array)
    if array.shape == (count,):
        return tuple(array.tolist())
    if times is not None and array.ndim == 2 and array.shape in ((times, 1), (times, count)):
        return tuple(tuple(row) for row in np.broadcast_to(array, (times, count)).tolist())
    raise ImageryError(
        f"{what} has {array.size} values for {count} bands" + ("" if times is None else f" and {times} dates"),
        expected="one number, or one a band" + ("" if times is None else ", or one row of these a date"),
    )


def by_day(value: Any, days: Sequence[str], what: str) -> Any:
    """The value of each day where it is a mapping from the day on which one begins to hold; else the value itself.

    Raises
    ------
    ImageryError
        A day before the first of the mapping.

    Examples
    --------
    >>> by_day({"2015": 0.0, "2022-01-25": -0.1}, ["2021-12-01", "2022-03-01"], "offset")
    [[0.0], [-0.1]]
    """
    if not isinstance(value, Mapping):
        return value
    begins = {first_day(day): np.atleast_1d(each).tolist() for day, each in value.items()}
    early = [day for day in days if day < min(begins, default="9999")]
    if early:
        raise ImageryError(
            f"{what}={dict(value)} says nothing of the image of {min(early)}",
            expected="a day on or before the first image, and what holds from then on",
        )
    return [begins[max(begin for begin in begins if begin <= day)] for day in days]


def resolve_gain(own: Own, scale: Any, offset: Any, name: str) -> tuple[Any, Any]:
    """The scale and offset to apply, of those that a source states itself and of those that were given.

    Parameters
    ----------
    own : two sequences of float
        Scales and offsets that the source states for its bands.
    scale, offset
        As given to :func:`causalsat.open_imagery`.
    name : str
        What messages call the source; not in the warning, so that a sequence of sources warns once.

    Raises
    ------
    ImageryError
        What was given contradicts what the source states.

    Warns
    -----
    ImageryWarning
        The source states a scale or an offset, and none is given.
    """
    stated = tuple(np.asarray(values, dtype=float) for values in own)
    if FROM_FILE in (_text(scale), _text(offset)):
        if _text(scale) not in (None, FROM_FILE) or _text(offset) not in (None, FROM_FILE):
            raise ImageryError(f"scale={scale!r} with offset={offset!r}", expected=f'scale="{FROM_FILE}" alone')
        return tuple(float(v[0]) if len(set(v.tolist())) == 1 else v for v in stated)  # type: ignore[return-value]
    applied = (1.0 if scale is None else scale, 0.0 if offset is None else offset)
    if scale is None and offset is None:
        _tell_of_own_scale(own)
    elif states_gain(own) and not _as_stored(*applied):
        for what, given, value in zip(("scale", "offset"), applied, stated, strict=True):
            if not _agree(given, value):
                raise ImageryError(
                    f"{name} states itself {what}={_shown(value)}, and {what}={given!r} was given",
                    expected="the same of both",
                    todo=f'pass scale="{FROM_FILE}" and no offset to take what each file states, or correct what it '
                    "states (gdal_edit -scale -offset; array.attrs)",
                )
    return applied


def check_stated(labels: Sequence[str], owns: Sequence[Own], scale: Any) -> None:
    """Refuse images that state different scales or offsets where one is taken for all of them.

    Parameters
    ----------
    labels : sequence of str
        What messages call the images.
    owns : sequence of two sequences of float
        Scales and offsets that each states for its bands.
    scale
        As given to :func:`causalsat.open_imagery`.

    Raises
    ------
    ImageryError
    """
    if _text(scale) == FROM_FILE:
        silent = [label for label, own in zip(labels, owns, strict=True) if not states_gain(own)]
        if silent and len(silent) < len(labels):
            raise ImageryError(
                f"{silent[0]} states no scale and no offset and other images do",
                expected=f'that all state them, for scale="{FROM_FILE}"',
                todo="pass scale= and offset=, where needed one row a date",
            )
        return
    for label, own in zip(labels, owns, strict=True):
        if not all(np.array_equal(mine, first) for mine, first in zip(own, owns[0], strict=True)):
            raise ImageryError(
                f"the images state different scales or offsets: {labels[0]} {_gain_text(owns[0])} and {label} "
                f"{_gain_text(own)}",
                expected="numbers that are scaled alike at all dates",
                todo=f'pass scale="{FROM_FILE}" to take what each states, or an offset for each date: '
                'offset={"2015": 0, "2022-01-25": -0.1} (from that day on)',
            )


def _gain_text(own: Own) -> str:
    return f"scale={_shown(np.asarray(own[0]))}, offset={_shown(np.asarray(own[1]))}"


def dated_rows(value: Any, days: Sequence[str]) -> tuple[list[Any], bool]:
    """The scale or offset of each image, and whether it was given one row a date.

    Parameters
    ----------
    value : number, sequence, two-dimensional sequence or mapping
        As given to :func:`causalsat.open_imagery`.
    days : sequence of str
        Days of the images.
    """
    value = by_day(value, days, "scale or offset")
    if hasattr(value, "ndim") and value.ndim == 2:
        value = value.tolist()
    if not isinstance(value, list | tuple) or not any(hasattr(row, "__len__") for row in value):
        return [value] * len(days), False
    if len(value) != len(days) or not all(hasattr(row, "__len__") for row in value):
        raise ImageryError(
            f"scale or offset has {len(value)} rows for {len(days)} dates", expected="one row a date, in their order"
        )
    return [row[0] if len(row) == 1 else list(row) for row in value], True


def states_gain(own: Own) -> bool:
    """Whether a source states a scale or an offset that changes its numbers."""
    return bool(np.any(np.not_equal(own[0], 1)) or np.any(np.not_equal(own[1], 0)))


def _text(value: Any) -> Any:
    """The text or None that it is; another word for anything else."""
    return value if value is None or isinstance(value, str) else "numbers"


def _as_stored(scale: Any, offset: Any) -> bool:
    """Whether it was asked for the numbers as they are stored."""
    try:
        return bool(np.all(np.equal(scale, 1)) and np.all(np.equal(offset, 0)))
    except TypeError:
        return False


def _agree(given: Any, stated: Any) -> bool:
    try:
        return bool(np.allclose(np.asarray(given, dtype=float), stated, rtol=1e-6, atol=1e-12))
    except (TypeError, ValueError):  # not numbers, or of the wrong number: another check says so
        return True


def _shown(values: Any) -> str:
    numbers = list(dict.fromkeys(f"{value:g}" for value in values.tolist()))
    return numbers[0] if len(numbers) == 1 else f"[{', '.join(numbers[:4])}{', ...' if len(numbers) > 4 else ''}]"


def _tell_of_own_scale(own: Own) -> None:
    pairs = sorted(set(zip(map(float, own[0]), map(float, own[1]), strict=True)))
    if pairs == [(1.0, 0.0)]:
        return
    shown = "; ".join(f"scale={a:g}, offset={b:g}" for a, b in pairs[:3])
    warn(
        f"imagery {OWN_SCALE} ({shown}), which is not done: its numbers are taken as they are stored. Pass "
        f'scale="{FROM_FILE}" to have it done, which spectral indices with constants need, or scale=1 to go without',
        ImageryWarning,
    )


def _column(value: Gain) -> Any:
    return np.float32(value) if isinstance(value, float) else np.asarray(value, np.float32)[..., None, None]


def tell_of_classes(names: Sequence[str], what: str) -> None:
    """Warn of bands that state that their numbers are codes of classes or flags."""
    if names:
        warn(
            f"the numbers of {', '.join(names)} in {what} are codes of classes or flags and no amounts, whose means "
            "and differences say nothing. Take shares of classes with describe_effects(land_cover=), or use a band "
            "of quality as mask=",
            ImageryWarning,
        )


def check_unique(names: Sequence[str], what: str) -> None:
    """Refuse repeated band names.

    Raises
    ------
    ImageryError
    """
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise ImageryError(
            f"{what}: band names {repeated} occur more than once",
            todo='name the bands with a mapping to their numbers: bands={"red": 1, "nir": 2}',
        )
