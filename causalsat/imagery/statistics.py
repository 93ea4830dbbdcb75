"""Means and standard deviations of the bands, from training units only, and normalising by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.warn import warn
from causalsat.exceptions import DataError, ImageryError, ImageryWarning
from causalsat.imagery.base import Imagery

if TYPE_CHECKING:
    import xarray

__all__ = ["ChannelStatistics", "channel_statistics", "normalise"]


@dataclass(frozen=True)
class ChannelStatistics:
    """Moments of the bands over all valid pixels and dates of some units.

    Attributes
    ----------
    bands : tuple of str
        Names.
    mean, sd : tuple of float
        One for each band; sd is 1 for a band that is constant.
    count : tuple of int
        Number of valid pixels of each band.
    """

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    count: tuple[int, ...]


def channel_statistics(
    source: xarray.DataArray | Imagery,
    units: Any = None,
    *,
    size_m: float | None = None,
    size_px: int | None = None,
) -> ChannelStatistics:
    """Mean and standard deviation of each band, ignoring NaN.

    Give training units only: statistics over held-out units leak their images into the model.

    Parameters
    ----------
    source : xarray.DataArray (unit, [time,] band, y, x) or Imagery
        Chips, or imagery from which they are read without keeping them.
    units : array or GeoDataFrame, optional
        For chips, positions or a boolean mask of the training units (default: all that were passed). For imagery, the
        geometry of the training units; places that occur often count as often.
    size_m, size_px : number, optional
        For imagery, the side of the chips.

    Returns
    -------
    ChannelStatistics

    Raises
    ------
    DataError
        A band without a valid pixel.

    Examples
    --------
    >>> import numpy as np, xarray
    >>> chips = xarray.DataArray(np.array([[[[0.0, 2.0]]], [[[np.nan, 90.0]]]]), dims=("unit", "band", "y", "x"),
    ...                          coords={"band": ["red"]})
    >>> channel_statistics(chips, units=[0])
    ChannelStatistics(bands=('red',), mean=(1.0,), sd=(1.0,), count=(2,))
    """
    if isinstance(source, Imagery):
        bands, batches = source.bands, _from_imagery(source, units, size_m, size_px)
    else:
        bands, batches = tuple(str(name) for name in source["band"].values), _from_chips(source, units)
    count, mean, spread = np.zeros(len(bands)), np.zeros(len(bands)), np.zeros(len(bands))
    for batch in batches:
        count, mean, spread = _merge((count, mean, spread), _moments(batch))
    empty = [name for name, number in zip(bands, count, strict=True) if number == 0]
    if empty:
        raise DataError(
            f"no valid pixel in {empty} in the training units", todo="check nodata, masks and coordinates"
        )
    sd = np.sqrt(spread / count)
    constant = [name for name, value in zip(bands, sd, strict=True) if value == 0]
    if constant:
        words = f"constant in the training units: {constant}; their sd is set to 1"
        warn(words, ImageryWarning)
    sd[sd == 0] = 1.0
    return ChannelStatistics(bands, tuple(mean.tolist()), tuple(sd.tolist()), tuple(int(n) for n in count))


def normalise(chips: xarray.DataArray, statistics: ChannelStatistics) -> xarray.DataArray:
    """Chips with each band's mean subtracted and divided by its standard deviation; float32, NaN stays.

    Raises
    ------
    ImageryError
        The chips' bands are not those of the statistics.

    Examples
    --------
    >>> import numpy as np, xarray
    >>> values = np.array([[[[0.0, 2.0]]]])
    >>> chips = xarray.DataArray(values, dims=("unit", "band", "y", "x"), coords={"band": ["red"]})
    >>> normalise(chips, channel_statistics(chips)).values.tolist()
    [[[[-1.0, 1.0]]]]
    """
    bands = tuple(str(name) for name in chips["band"].values)
    if bands != statistics.bands:
        raise ImageryError(
            f"the chips have bands {list(bands)} and the statistics {list(statistics.bands)}",
            todo='select the same bands in the same order: chips.sel(band=["red", ...])',
        )
    mean = np.asarray(statistics.mean, dtype=np.float32)[:, None, None]
    sd = np.asarray(statistics.sd, dtype=np.float32)[:, None, None]
    return chips.copy(data=(chips.data.astype(np.float32, copy=False) - mean) / sd)


def _from_chips(chips: xarray.DataArray, units: Any, batch: int = 256) -> Iterator[NDArray[Any]]:
    positions = np.arange(chips.sizes["unit"])
    if units is not None:
        positions = positions[np.asarray(units)]
    for start in range(0, len(positions), batch):
        yield chips.isel(unit=positions[start : start + batch]).values


def _from_imagery(imagery: Imagery, units: Any, size_m: float | None, size_px: int | None) -> Iterator[NDArray[Any]]:
    if units is None or (size_m is None) == (size_px is None):
        raise DataError(
            "statistics of imagery without training units or size", todo="pass units=, their geometry, and size_m="
        )
    px = imagery.size_px(size_m) if size_m is not None else int(size_px or 0)
    for _, batch in imagery.iter_chips(units, px):
        yield batch


FloatArray = NDArray[np.float64]
Moments = tuple[FloatArray, FloatArray, FloatArray]


def _moments(batch: NDArray[Any]) -> Moments:
    """Count, mean and sum of squared deviations of each band of (n, [time,] band, y, x)."""
    pixels = np.moveaxis(batch, -3, 0).reshape(batch.shape[-3], -1)
    valid = ~np.isnan(pixels)
    count: FloatArray = np.count_nonzero(valid, axis=1).astype(float)
    safe = np.maximum(count, 1)
    mean: FloatArray = np.sum(pixels, axis=1, where=valid, dtype=np.float64) / safe
    spread: FloatArray = np.sum((pixels - mean[:, None]) ** 2, axis=1, where=valid, dtype=np.float64)
    return count, mean, spread


def _merge(a: Moments, b: Moments) -> Moments:
    """Moments of two batches together (Chan, Golub and LeVeque 1983, equation 2.1)."""
    count: FloatArray = a[0] + b[0]
    share = b[0] / np.maximum(count, 1)
    shift = b[1] - a[1]
    spread: FloatArray = a[2] + b[2] + shift**2 * a[0] * share
    mean: FloatArray = a[1] + shift * share
    return count, mean, spread
