"""Chips at the door of an encoder: shapes and bands checked once, batches as float32 arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ImageryError, ParameterError

__all__ = ["ChipSpec", "ChipView", "band_statistics", "check_same_bands", "open_chips", "sample_units"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class ChipSpec:
    """What one chip is made of.

    Attributes
    ----------
    n_time : int
        Number of dates; 0 where chips have no time dimension.
    n_bands : int
        Number of bands.
    bands : tuple of str
        Names of the bands, ``b0, b1, ...`` where the chips do not name them.
    named : bool
        Whether the chips named their bands.
    """

    n_time: int
    n_bands: int
    bands: tuple[str, ...]
    named: bool


@dataclass(frozen=True)
class ChipView:
    """Chips (n, [time,] band, y, x), in memory or lazy, read in batches.

    Attributes
    ----------
    data : array or DataArray
        The chips as they arrived.
    spec : ChipSpec
        Dates and bands.
    """

    data: Any
    spec: ChipSpec

    def __len__(self) -> int:
        """Number of units."""
        return int(self.data.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a chip."""
        return int(self.data.shape[-2]), int(self.data.shape[-1])

    def take(self, units: NDArray[np.int64] | slice) -> Float32Array:
        """Chips of some units as float32 (k, time, band, y, x), with time of length 1 where there is none."""
        chips = np.asarray(self.data[units], dtype=np.float32)
        return chips if self.spec.n_time else chips[:, None]

    def batches(self, size: int) -> Iterator[tuple[slice, Float32Array]]:
        """Consecutive slices of units with their chips."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.take(part)


def open_chips(X: Any, minimum_px: int = 1) -> ChipView:
    """Check chips: dimensions, at least one unit, numeric, large enough.

    Parameters
    ----------
    X : ndarray or DataArray of shape (unit, [time,] band, y, x)
        Chips; NaN marks invalid pixels.
    minimum_px : int
        Fewest rows and columns that the encoder can use.
    """
    shape = getattr(X, "shape", None)
    if shape is None:
        X = np.asarray(X)
        shape = X.shape
    if len(shape) not in (4, 5):
        raise DataError(
            f"chips of shape {tuple(shape)}",
            expected="(unit, band, y, x) or (unit, time, band, y, x)",
            todo="read chips with causalsat.chips(imagery, geometry, size_m=...), or use ImageEncoder on a table "
            "with a geometry",
        )
    dims = getattr(X, "dims", None)
    tail = ("band", "y", "x") if len(shape) == 4 else ("time", "band", "y", "x")
    if dims is not None and tuple(dims[1:]) != tail:
        raise DataError(
            f"chips with dimensions {tuple(dims)}", expected=f"(unit, {', '.join(tail)})", todo="transpose them"
        )
    if shape[0] == 0:
        raise DataError("no chips at all (0 units)", expected="at least one unit")
    if np.dtype(X.dtype).kind not in "fiub":
        raise DataError(f"chips of type {X.dtype}", expected="numbers")
    if min(shape[-2:]) < minimum_px:
        raise ParameterError(
            f"chips of {shape[-2]} x {shape[-1]} pixels",
            expected=f"at least {minimum_px} x {minimum_px} for this encoder",
            todo="read larger chips (size_m), or use smaller patches (patch_px)",
        )
    names = _band_names(X, int(shape[-3]))
    spec = ChipSpec(
        n_time=int(shape[1]) if len(shape) == 5 else 0,
        n_bands=int(shape[-3]),
        bands=names or tuple(f"b{j}" for j in range(int(shape[-3]))),
        named=names is not None,
    )
    return ChipView(X, spec)


def _band_names(X: Any, n_bands: int) -> tuple[str, ...] | None:
    coords = getattr(X, "coords", None)
    if coords is None or "band" not in coords:
        return None
    values = np.asarray(coords["band"])
    if values.shape != (n_bands,) or values.dtype.kind in "iuf":
        return None
    return tuple(str(v) for v in values)


def check_same_bands(fitted: ChipSpec, arrived: ChipSpec) -> None:
    """Refuse chips whose bands or dates are not those of the fit."""
    names_differ = fitted.named and arrived.named and fitted.bands != arrived.bands
    if fitted.n_bands != arrived.n_bands or names_differ:
        raise ImageryError(
            f"chips with bands {', '.join(arrived.bands)} ({arrived.n_bands})",
            expected=f"the bands of the fit: {', '.join(fitted.bands)} ({fitted.n_bands})",
            todo="select and order the bands: open_imagery(..., bands=[...])",
        )
    if fitted.n_time != arrived.n_time:
        raise ImageryError(
            f"chips with {arrived.n_time or 'no'} dates",
            expected=f"{fitted.n_time or 'no'} dates, as in the fit",
            todo="read the same sequence of dates as for training",
        )


def sample_units(view: ChipView, most: int, rng: np.random.Generator) -> Float32Array:
    """Chips of at most ``most`` units drawn without replacement, in their order."""
    if len(view) <= most:
        return view.take(slice(None))
    return view.take(np.sort(rng.choice(len(view), most, replace=False)))


def band_statistics(chips: Float32Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each band over the pixels in which all bands are finite.

    Parameters
    ----------
    chips : ndarray of shape (k, time, band, y, x)

    Returns
    -------
    mean, sd : ndarrays of shape (band,)
        ``sd`` is 1 for a constant band.
    """
    valid = np.isfinite(chips).all(axis=2)
    if not valid.any():
        raise ImageryError(
            "no pixel of the training chips is valid in all bands",
            expected="imagery with data at the training units",
            todo="check that units lie on the imagery, its nodata value and its mask",
        )
    mean, sd = np.empty(chips.shape[2]), np.empty(chips.shape[2])
    everywhere = bool(valid.all())
    for band in range(chips.shape[2]):
        values = chips[:, :, band] if everywhere else chips[:, :, band][valid]
        mean[band] = values.mean(dtype=np.float64)
        sd[band] = np.sqrt(max(np.square(values - np.float32(mean[band])).mean(dtype=np.float64), 0.0))
    tiny = sd <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
    return mean, np.where(tiny, 1.0, sd)
