"""The interface that every source of imagery has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from causalsat.core.ahead import ahead
from causalsat.core.notebook import fragment, html_facts
from causalsat.core.warn import warn
from causalsat.exceptions import ImageryError, ImageryWarning, ParameterError
from causalsat.imagery import chip_reader
from causalsat.imagery.blocks import BlockSource, WindowReader, block_order, window_into
from causalsat.imagery.dates import as_day, first_day
from causalsat.imagery.grid import Grid, IntArray, check_ground_size
from causalsat.imagery.handles import cache_bound, gdal_env, new_operation, smaller_cache
from causalsat.imagery.held import holder

if TYPE_CHECKING:
    import xarray
    from affine import Affine
    from pyproj import CRS

__all__ = ["Imagery", "Layer"]

Layer = tuple[tuple[int, ...], BlockSource]
SIZE_MISSED = 0.1  # how far a side of whole pixels may be from the metres asked for
_TOLD: WeakSet[Imagery] = WeakSet()  # sources of which it was said that they hold infinite values


@dataclass(frozen=True, kw_only=True, repr=False)
class Imagery(ABC):
    """A source of pixels on one grid: paths and settings, no open handle.

    Copies share everything (``copy.deepcopy`` returns the object itself, since nothing in it can change), so an
    object can be a scikit-learn parameter, and it can be pickled to workers.

    Attributes
    ----------
    grid : Grid
        CRS, transform and shape.
    bands : tuple of str
        Names of the bands, in the order of the arrays.
    days : tuple of str
        ISO days of the images; empty where undated.
    name : str
        What messages and results call the source.
    """

    grid: Grid
    bands: tuple[str, ...]
    days: tuple[str, ...] = ()
    name: str = "imagery"

    # what sources provide

    @property
    @abstractmethod
    def has_time(self) -> bool:
        """Whether arrays have a time dimension."""

    @abstractmethod
    def layers(self) -> list[Layer]:
        """Where each block source's pixels go in the leading dimensions, and the source."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What decides the pixels (paths, modification times, settings), as JSON values."""

    @abstractmethod
    def _select_days(self, positions: list[int]) -> Self:
        """The images at these positions of ``days``."""

    @abstractmethod
    def _select_bands(self, positions: list[int]) -> Self:
        """The bands at these positions."""

    def stamps(self) -> tuple[Any, ...]:
        """What tells that files changed (path, modification time, size); empty for sources without files."""
        return ()

    def unstamped(self) -> tuple[str, ...]:
        """What decides the pixels and cannot be looked at, such as files on the net: never taken as unchanged."""
        return ()

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Refuse what was read while a file changed: it may be of two images."""
        new_operation()
        before = self.stamps()
        yield
        after = self.stamps()
        if before != after:
            changed = sorted({str(old[0]) for old, new in zip(before, after, strict=False) if old != new})
            raise ImageryError(
                f"{', '.join(changed) or self.name} changed while it was read",
                expected="files that no other process writes",
                todo="run it again when they are whole",
            )

    # georeference

    @property
    def crs(self) -> CRS:
        """Coordinate reference system (``pyproj.CRS``)."""
        return self.grid.crs

    @property
    def transform(self) -> Affine:
        """Transform from (column, row) to coordinates."""
        return self.grid.transform

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.grid.shape

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in the CRS of the imagery."""
        return self.grid.bounds

    @property
    def resolution_m(self) -> float:
        """Metres per pixel; for rasters in degrees, on the ground at the raster's centre."""
        return self.grid.resolution_m

    @property
    def dates(self) -> tuple[np.datetime64, ...]:
        """Days of the images (``datetime64[D]``); empty where undated."""
        return tuple(np.datetime64(day, "D") for day in self.days)

    @property
    def leading(self) -> tuple[int, ...]:
        """Shape of the dimensions before y and x: (time, band) or (band,)."""
        return (len(self.days), len(self.bands)) if self.has_time else (len(self.bands),)

    def size_px(self, size_m: float, geometry: Any = None, *, tell: bool = True) -> int:
        """Pixels in a side of ``size_m`` metres, at least 1.

        Parameters
        ----------
        size_m : float
        geometry : GeoSeries or GeoDataFrame, optional
            Places at which it is checked that a side has so many metres on the ground.
        tell : bool
            Whether to warn of sides that are a little off.

        Raises
        ------
        ParameterError
            Not a positive number, or pixels that are more than a tenth larger or smaller on the ground at a place
            than in the middle of the raster.

        Warns
        -----
        ImageryWarning
            Whole pixels that miss the side by more than a tenth, such as one pixel of a source that is coarser.
        """
        if not np.isfinite(size_m) or size_m <= 0:
            raise ParameterError(f"size_m={size_m!r}", expected="a positive number of metres")
        if geometry is not None:
            check_ground_size(self.grid, geometry, float(size_m), self.name, tell=tell)
        pixels = max(1, round(size_m / self.resolution_m))
        if tell and abs(pixels * self.resolution_m / size_m - 1) > SIZE_MISSED:
            sides = sorted({max(1, pixels + k) for k in (-1, 0, 1)})
            warn(
                f"size_m={size_m:g} in {self.name} is {pixels} pixel{'s' if pixels > 1 else ''} of "
                f"{self.resolution_m:g} m, a side of {pixels * self.resolution_m:g} m. Sides of whole pixels are "
                f"{', '.join(f'{k * self.resolution_m:g}' for k in sides)}, ... m",
                ImageryWarning,
            )
        return pixels

    def windows(self, geometry: Any, size_px: int) -> tuple[IntArray, IntArray]:
        """Upper-left pixels of the windows centred at each geometry.

        Parameters
        ----------
        geometry : GeoSeries or GeoDataFrame of length n, with a CRS
            Points, or polygons and lines by their representative point.
        size_px : int
            Side of the windows; the pixel that contains the point has ``size_px // 2`` pixels above it and to its
            left.

        Returns
        -------
        row0, col0 : ndarray of int64 of shape (n,)
            May lie outside the raster.

        Raises
        ------
        DataError
            Missing, empty or not projectable geometries.
        """
        if size_px < 1 or int(size_px) != size_px:
            raise ParameterError(f"size_px={size_px!r}", expected="a whole number of pixels, at least 1")
        row, col = self.grid.locate(*self.grid.points(geometry))
        return row - int(size_px) // 2, col - int(size_px) // 2

    # pixels

    def read_window(self, row0: int, col0: int, height: int, width: int) -> NDArray[np.float32]:
        """Pixels of one window, anywhere, also over the border.

        Returns
        -------
        ndarray of float32 of shape ([time,] band, height, width)
            NaN where nodata, masked or outside; scale and offset applied. Read-only where it is a part of a window
            that is kept (``held_window``).

        Raises
        ------
        ImageryError
            The file cannot be read.
        """
        keeper, window = holder(self), (int(row0), int(col0), int(height), int(width))
        return self._read_window(*window) if keeper is None else keeper.window(self._read_window, *window)

    def _read_window(self, row0: int, col0: int, height: int, width: int) -> NDArray[np.float32]:
        out = np.empty((*self.leading, height, width), dtype=np.float32)
        with self._unchanged(), gdal_env():
            infinite = sum(window_into(out[where], source, row0, col0) for where, source in self.layers())
        self._tell_infinite(infinite, once=True)
        return out

    def _tell_infinite(self, count: int, *, once: bool) -> None:
        """Warn of infinite values that were read, which are NaN in what is handed on; once for a source, if asked."""
        if not count or (once and self in _TOLD):
            return
        _TOLD.add(self)
        verb = "value was" if count == 1 else "values were"
        warn(
            f"{count:,} infinite {verb} read from {self.name}; infinite ones count as missing, like nodata. If they "
            "are of a division by zero, correct the raster; if they stand for nodata, say so: nodata=float('inf')",
            ImageryWarning,
        )

    def iter_windows(
        self, row0: IntArray, col0: IntArray, size_px: int, batch_size: int = 256, *, threads: int = 1
    ) -> Iterator[tuple[IntArray, NDArray[np.float32]]]:
        """Square windows in the order of the file's blocks, each block decoded once.

        Parameters
        ----------
        row0, col0 : ndarray of int of shape (n,)
            Upper-left pixels.
        size_px : int
            Side of the windows.
        batch_size : int, default 256
            Windows in a batch.
        threads : int, default 1
            Threads that decode blocks ahead.

        Yields
        ------
        positions : ndarray of int of shape (k,)
            Which windows; every position comes once.
        chips : ndarray of float32 of shape (k, [time,] band, size_px, size_px)
        """
        layers = self.layers()
        order = block_order(row0, col0, layers[0][1].unit)
        with self._unchanged(), gdal_env():
            readers = [
                (where, WindowReader(source, row0, col0, size_px, order, threads, len(layers)))
                for where, source in layers
            ]
            try:
                for start in range(0, len(order), batch_size):
                    positions = order[start : start + batch_size]
                    batch = np.empty((len(positions), *self.leading, size_px, size_px), dtype=np.float32)
                    for where, reader in readers:
                        for chip, i in zip(batch, positions.tolist(), strict=True):
                            reader.read_into(chip[where], i)
                    yield positions, batch
            finally:
                for _, reader in readers:
                    reader.__exit__()
        self._tell_infinite(sum(reader.infinite for _, reader in readers), once=True)

    def fill_windows(
        self, out: NDArray[np.float32], row0: IntArray, col0: IntArray, *, threads: int = 1, progress: Any = None
    ) -> NDArray[np.float64]:
        """Write all windows into an array of shape (n, [time,] band, size, size), one file after the other.

        Returns
        -------
        ndarray of shape (n,)
            Share of each window's values that are valid.
        """
        layers = self.layers()
        valid, infinite = np.zeros(len(row0)), 0
        with self._unchanged(), gdal_env():
            for where, source in layers:
                order = block_order(row0, col0, source.unit)
                with WindowReader(source, row0, col0, out.shape[-1], order, threads) as reader:
                    for i in order.tolist():
                        valid[i] += reader.read_into(out[i][where], i)
                        if progress is not None:
                            progress.update(1)
                    infinite += reader.infinite
        self._tell_infinite(infinite, once=False)
        return valid / max(1, out[0].size if len(out) else 1)

    def iter_chips(
        self, geometry: Any, size_px: int, batch_size: int = 256, *, threads: int = 1
    ) -> Iterator[tuple[IntArray, NDArray[np.float32]]]:
        """Chips centred at geometries, in the order of the file's blocks.

        Parameters
        ----------
        geometry : GeoSeries or GeoDataFrame of length n
        size_px : int
            Side of the chips in pixels.
        batch_size : int, default 256
            Chips in a batch.
        threads : int, default 1
            Threads that decode blocks ahead.

        Yields
        ------
        positions : ndarray of int of shape (k,)
            Positions in geometry.
        chips : ndarray of float32 of shape (k, [time,] band, size_px, size_px)
            NaN where invalid.
        """
        row0, col0 = self.windows(geometry, size_px)
        yield from self.iter_windows(row0, col0, int(size_px), batch_size, threads=threads)

    def iter_chips_ahead(
        self, geometry: Any, size_px: int, batch_size: int = 256
    ) -> Iterator[tuple[IntArray, NDArray[np.float32]]]:
        """The same as :meth:`iter_chips`, where a thread reads the next batch while the caller works on one."""
        if len(geometry) <= batch_size:
            yield from self.iter_chips(geometry, size_px, batch_size)
            return
        most = cache_bound()

        def read() -> Iterator[tuple[IntArray, NDArray[np.float32]]]:
            with smaller_cache(most):
                yield from self.iter_chips(geometry, size_px, batch_size)

        yield from ahead(read())

    def chips(self, geometry: Any, **options: Any) -> xarray.DataArray:
        """Chips around geometries; see :func:`causalsat.chips` for the options.

        Returns
        -------
        xarray.DataArray of dimensions (unit, [time,] band, y, x)
        """
        return chip_reader.chips(self, geometry, **options)  # type: ignore[return-value]

    # selection

    def sel(self, *, dates: Any = None, bands: Sequence[str] | str | None = None) -> Self:
        """Some of the dates and bands.

        Parameters
        ----------
        dates : date, sequence of dates or slice of dates, optional
            ``slice("2014", "2015-06")`` holds both ends: from the first day of a month or year to its last.
        bands : str or sequence of str, optional
            Names, in the wanted order.

        Raises
        ------
        ImageryError
            A date or band that is not there, or nothing left.
        """
        chosen = self
        if bands is not None:
            names = [bands] if isinstance(bands, str) else list(bands)
            chosen = chosen._select_bands([self._band_position(name) for name in names])
        if dates is not None:
            chosen = chosen._select_days(self._day_positions(dates))
        return chosen

    def images_before(self, date: Any) -> Self:
        """The images dated before a day, such as the day of treatment.

        Raises
        ------
        ImageryError
            The imagery is undated, or nothing lies before the day.
        """
        self._need_days()
        limit = first_day(date)
        positions = [i for i, day in enumerate(self.days) if day < limit]
        if not positions:
            raise ImageryError(
                f"{self.name}: no image before {limit}; the first is of {min(self.days)}",
                todo="take an earlier image, or a later date",
            )
        return self._select_days(positions)

    def _need_days(self) -> None:
        if not self.days:
            raise ImageryError(
                f"{self.name} has no dates", todo='pass dates= to open_imagery, for example dates="2000-07-01"'
            )

    def _band_position(self, name: str) -> int:
        if name not in self.bands:
            raise ImageryError(f"{self.name} has no band {name!r}", expected=f"one of {list(self.bands)}")
        return self.bands.index(name)

    def _day_positions(self, dates: Any) -> list[int]:
        self._need_days()
        if isinstance(dates, slice):
            low = "" if dates.start is None else first_day(dates.start)
            high = "9999" if dates.stop is None else as_day(dates.stop)
            positions = [i for i, day in enumerate(self.days) if low <= day <= high]
        else:
            many = isinstance(dates, list | tuple | set | np.ndarray)
            wanted = [as_day(date) for date in (dates if many else [dates])]
            missing = [day for day in wanted if day not in self.days]
            if missing:
                raise ImageryError(f"{self.name} has no image of {missing}", expected=f"of {list(self.days)}")
            positions = [i for day in wanted for i, own in enumerate(self.days) if own == day]
        if not positions:
            raise ImageryError(f"{self.name} has no image in {dates}", expected=f"of {list(self.days)}")
        return positions

    # copies and text

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        rows, cols = self.shape
        dated = f", {self.days[0]}" if len(self.days) == 1 else ""
        dated = f", {len(self.days)} dates {self.days[0]} .. {self.days[-1]}" if len(self.days) > 1 else dated
        where = f"EPSG:{code}" if (code := self.crs.to_epsg()) else self.crs.name
        return (
            f"<{type(self).__name__} {self.name}: {rows} x {cols} pixels of {self.resolution_m:g} m, {where}, "
            f"bands {', '.join(self.bands)}{dated}>"
        )

    def _repr_html_(self) -> str:
        """Size, place, bands and dates, for notebooks."""
        rows, cols = self.shape
        left, bottom, right, top = self.bounds
        facts = {
            "pixels": f"{rows:,} x {cols:,} of {self.resolution_m:g} m",
            "coordinates": f"EPSG:{code}" if (code := self.crs.to_epsg()) else self.crs.name,
            "bounds": f"{left:.6g} to {right:.6g}, {bottom:.6g} to {top:.6g}",
            "bands": ", ".join(self.bands),
            "dates": _dated(self.days),
        }
        return fragment(html_facts(facts, f"{type(self).__name__} {self.name}"))


def _dated(days: tuple[str, ...]) -> str:
    if len(days) > 6:
        return f"{len(days)}, {days[0]} to {days[-1]}"
    return ", ".join(days) or "undated"
