"""Arguments of a user's module: images, wavelengths, places and dates as tensors, in the order that it declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.networks.declaration import Declaration
from causalsat.exceptions import DataError

__all__ = ["Surroundings", "arguments", "surroundings_of"]

_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Surroundings:
    """Where and when images were taken.

    Attributes
    ----------
    lonlat : ndarray of shape (n, 2) or None
        Longitude and latitude in degrees.
    times : ndarray of datetime64 of shape (n, time) or None
        When.
    gsd : float or None
        Metres of a pixel.
    """

    lonlat: NDArray[np.float64] | None = None
    times: NDArray[np.datetime64] | None = None
    gsd: float | None = None

    def part(self, units: Any) -> Surroundings:
        """Those of some units."""
        lonlat, times = (None if v is None else v[units] for v in (self.lonlat, self.times))
        return Surroundings(lonlat, times, self.gsd)

    def by_date(self) -> Surroundings:
        """One row an image instead of one a unit: (n * time) rows with one date each."""
        if self.times is None:
            return self
        dates = self.times.shape[1]
        lonlat = None if self.lonlat is None else np.repeat(self.lonlat, dates, axis=0)
        return Surroundings(lonlat, self.times.reshape(-1, 1), self.gsd)


def surroundings_of(X: Any, declared: Declaration, n_time: int) -> Surroundings:
    """Place, date and pixel size of chips, from their coordinates, or as declared.

    Parameters
    ----------
    X : ndarray or DataArray of shape (unit, [time,] band, y, x)
        Coordinates ``lon`` and ``lat`` of the units, ``time`` of the images, attribute ``resolution_m``.
    declared : Declaration
    n_time : int
        Dates of a chip, 0 without.

    Raises
    ------
    DataError
        If the module takes what neither the chips nor the declaration say.
    """
    coords, n = getattr(X, "coords", {}), len(X)
    lonlat = None
    if declared.reads_places:
        if "lon" not in coords or "lat" not in coords:
            raise DataError(
                "chips without longitude and latitude for a module that takes them",
                expected="coordinates lon and lat of each unit",
                todo="read chips with causalsat.chips(imagery, units, ...), or use ImageEncoder on a GeoDataFrame",
            )
        lonlat = np.column_stack([np.broadcast_to(np.asarray(coords[k], dtype=float), n) for k in ("lon", "lat")])
    gsd = declared.gsd
    if gsd is None and "gsd" in declared.quantities:
        found = getattr(X, "attrs", {}).get("resolution_m")
        if found is None:
            raise DataError(
                "chips that do not say their pixels' size, for a module that takes it",
                expected="metres of a pixel",
                todo="pass gsd=10.0 to ModuleEncoder",
            )
        gsd = float(found)
    return Surroundings(lonlat, _times(X, coords, declared, n, max(n_time, 1)), gsd)


def _times(X: Any, coords: Any, declared: Declaration, n: int, n_time: int) -> NDArray[np.datetime64] | None:
    if not declared.reads_dates:
        # the number of dates is kept, so that places can be repeated for each of them
        return np.full((n, n_time), np.datetime64("NaT", "s"))
    days: Any = None
    if declared.time is not None:
        days = np.array(declared.time, dtype="datetime64[s]")
    elif "time" in coords and np.asarray(coords["time"]).dtype.kind == "M":
        days = np.atleast_1d(np.asarray(coords["time"]).astype("datetime64[s]"))
    elif getattr(X, "attrs", {}).get("date"):
        days = np.array([X.attrs["date"]], dtype="datetime64[s]")
    if days is None or np.isnat(days).any():
        raise DataError(
            "chips without dates for a module that takes them",
            expected="imagery with dates",
            todo="open it with dates=, or pass time='2019-06-01' to ModuleEncoder",
        )
    if len(days) not in (1, n_time):
        raise DataError(f"{len(days)} dates for images of {n_time} dates", expected=f"{n_time} dates, or one for all")
    return np.broadcast_to(days, (n, n_time))


def arguments(declared: Declaration, images: Any, places: Surroundings, device: Any) -> tuple[Any, ...]:
    """What the module is called with: tensors in its order, or one dictionary of them.

    Parameters
    ----------
    declared : Declaration
    images : tensor of shape (n, band, y, x) or (n, band, time, y, x), or None
    places : Surroundings
        Of the n images or units.
    device : torch.device
    """
    made = {name: images if name in ("pixels", "frames") else None for name in declared.quantities}
    for name in made:
        if made[name] is None:
            made[name] = _tensor(_values(name, declared, places), device)
    if isinstance(declared.takes, dict):
        return ({key: made[name] for key, name in declared.takes.items()},)
    return tuple(made[name] for name in declared.takes)


def _tensor(values: Any, device: Any) -> Any:
    import torch

    return torch.tensor(np.asarray(values, dtype=np.float32), device=device)


def _values(name: str, declared: Declaration, places: Surroundings) -> Any:
    """A quantity as numbers.

    ``dates`` are (n, time, 2) year and day of the year from 1; ``time_waves`` (n, 4) sine and cosine of the ISO week
    out of 52 and of the hour, of the first date; ``latlon_waves`` (n, 4) sine and cosine of latitude and longitude.
    """
    if name == "wavelengths":
        return declared.wavelengths or ()
    if name == "gsd":
        return places.gsd
    if name in ("lonlat", "latlon", "latlon_waves"):
        assert places.lonlat is not None
        lon, lat = places.lonlat.T
        if name != "latlon_waves":
            return np.column_stack([lon, lat] if name == "lonlat" else [lat, lon])
        lon, lat = np.radians(lon), np.radians(lat)
        return np.column_stack([np.sin(lat), np.cos(lat), np.sin(lon), np.cos(lon)])
    assert places.times is not None
    if name == "dates":
        years = places.times.astype("datetime64[Y]")
        day = (places.times.astype("datetime64[D]") - years.astype("datetime64[D]")) // _DAY + 1
        return np.stack([years.astype(int) + 1970, day], axis=-1)
    first = places.times[:, 0]
    moments = first.astype("datetime64[s]").tolist()
    week = np.array([moment.isocalendar().week for moment in moments]) * 2 * np.pi / 52
    hour = np.array([moment.hour for moment in moments]) * 2 * np.pi / 24
    return np.column_stack([np.sin(week), np.cos(week), np.sin(hour), np.cos(hour)])
