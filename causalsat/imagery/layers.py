"""Imagery that is itself one source of blocks: what raster files and arrays share."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from causalsat.exceptions import ImageryError, ImageryWarning
from causalsat.imagery.base import Imagery, Layer
from causalsat.imagery.blocks import Block, read_unit

__all__ = ["OWN_SCALE", "LayerImagery", "check_unique", "per_band", "tell_of_own_scale"]

OWN_SCALE = "says itself how its numbers are to be scaled"


@dataclass(frozen=True, kw_only=True, repr=False)
class LayerImagery(Imagery):
    """Imagery that is itself one source of blocks.

    Attributes
    ----------
    nodata : float or None
        Value that stands for nodata in the source.
    scale, offset : float or tuple of float
        Pixels become ``value * scale + offset``; one number, or one for each band.
    """

    nodata: float | None = None
    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0

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


def _take(values: Any, positions: list[int]) -> Any:
    """A scalar, or the given positions of a tuple."""
    return tuple(values[i] for i in positions) if isinstance(values, tuple) else values


def per_band(value: Any, count: int, what: str) -> float | tuple[float, ...]:
    """A float, or a tuple of one float for each band.

    Raises
    ------
    ImageryError
        Not numbers, or of the wrong number.
    """
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ImageryError(f"{what}={value!r}", expected="a number, or one for each band") from error
    if array.ndim == 0:
        return float(array)
    if array.shape != (count,):
        raise ImageryError(f"{what} has {array.size} values for {count} bands", expected="one number, or one a band")
    return tuple(array.tolist())


def tell_of_own_scale(own: tuple[Sequence[float], Sequence[float]], scale: Any, offset: Any) -> None:
    """Warn where a source has a scale or an offset of its own, and none is given.

    Parameters
    ----------
    own : two sequences of float
        Scales and offsets of its bands. No file is named in the warning, so that a sequence of them warns once.
    scale, offset
        As given to :func:`causalsat.open_imagery`.
    """
    pairs = sorted(set(zip(map(float, own[0]), map(float, own[1]), strict=True)))
    if pairs == [(1.0, 0.0)] or np.any(np.not_equal(scale, 1)) or np.any(np.not_equal(offset, 0)):
        return
    shown = "; ".join(f"scale={a:g}, offset={b:g}" for a, b in pairs[:3])
    warnings.warn(
        f"imagery {OWN_SCALE} ({shown}), which is not done: its numbers are taken as they are stored. Pass scale= "
        "and offset= to have it done; spectral indices with constants need it",
        ImageryWarning,
        stacklevel=4,
    )


def _column(value: float | tuple[float, ...]) -> Any:
    return np.float32(value) if isinstance(value, float) else np.asarray(value, np.float32)[:, None, None]


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
