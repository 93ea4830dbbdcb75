"""What displaced coordinates cost: how alike images are at a place and at a displacement from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.displacement import possible_places
from causalsat.core.tables import Tabular
from causalsat.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LocationErrorCost", "location_error_cost"]

FloatArray = NDArray[np.float64]

CHIP_PX = 32
N_PLACES = 200
N_AVERAGED = 8
MIN_PLACES = 20


@dataclass(frozen=True, eq=False, repr=False)
class LocationErrorCost(Tabular):
    """How much of the signal of image features a displacement of coordinates leaves and costs.

    Attributes
    ----------
    radius_m : float
        Largest displacement.
    kept : float
        Share of the features' variance that their average over the possible positions shows, mean over features.
    kept_at_point : float
        The same of the features read at the displaced coordinates alone, as squared correlation.
    cost : float
        ``1 - kept``.
    table : DataFrame
        A row for each feature (mean and standard deviation of each band within the chip).
    n_places : int
        Places that it was measured at.
    """

    radius_m: float
    kept: float
    kept_at_point: float
    cost: float
    table: pd.DataFrame
    n_places: int

    def to_dataframe(self) -> pd.DataFrame:
        """The table of features."""
        return self.table

    def _notes(self) -> list[str]:
        return [
            f"Up to {self.radius_m:,.0f} m: features averaged over the possible positions keep {self.kept:.0%} of "
            f"the signal, those at the displaced coordinates {self.kept_at_point:.0%}."
        ]


def location_error_cost(
    imagery: Any, radius: float, *, places: Any = None, size_m: float | None = None, n_places: int = N_PLACES,
    seed: int = 0,
) -> LocationErrorCost:  # fmt: skip
    """How much of the signal a displacement of coordinates costs on an imagery, before anything is fitted.

    Chips are read at places, at displaced coordinates (uniform angle, uniform distance up to the radius) and at the
    positions where a place with those coordinates may be. Where features change slowly over the radius little is
    lost; where the variogram of the features has reached its sill, nearly everything is.

    Parameters
    ----------
    imagery : Imagery
        What :func:`causalsat.open_imagery` returns.
    radius : float
        Largest displacement in metres.
    places : GeoDataFrame or GeoSeries, optional
        Where to measure, such as a study's units; by default at random over the imagery.
    size_m : float, optional
        Side of the chips; by default 32 pixels.
    n_places : int
        At most so many places.
    seed : int
        Of places and displacements.

    Returns
    -------
    LocationErrorCost

    Raises
    ------
    ParameterError
        If the radius is no positive number.
    DataError
        If fewer than 20 places have valid pixels.

    Examples
    --------
    >>> import rioxarray, xarray
    >>> from causalsat.imagery import open_imagery
    >>> pixels = xarray.DataArray(
    ...     np.random.default_rng(0).normal(size=(1, 300, 300)), dims=("band", "y", "x"),
    ...     coords={"band": ["red"], "y": 4e5 - 10.0 * np.arange(300), "x": 3e5 + 10.0 * np.arange(300)},
    ... ).rio.write_crs("EPSG:32636")
    >>> location_error_cost(open_imagery(pixels), 1000, size_m=50).cost > 0.9  # noise: nothing is kept
    True
    """
    import pandas as pd

    if isinstance(radius, bool) or not isinstance(radius, int | float | np.number) or not 0 < radius < np.inf:
        raise ParameterError(f"radius={radius!r}", expected="a positive number of metres")
    rng = np.random.default_rng(seed)
    true = _places(imagery, places, n_places, rng)
    size = max(1, round(CHIP_PX if size_m is None else size_m / imagery.resolution_m))
    stated = possible_places(true, np.full(len(true), float(radius)), 64)
    pick = rng.integers(64, size=len(true))
    stated = type(true)([shape.geoms[k] for shape, k in zip(stated, pick, strict=True)], crs=true.crs)
    back = possible_places(stated, np.full(len(true), float(radius)), N_AVERAGED).explode(index_parts=False)
    names, at_true = chip_features(imagery, true, size)
    at_stated, at_back = chip_features(imagery, stated, size)[1], chip_features(imagery, back, size)[1]
    with np.errstate(invalid="ignore"):
        averaged = _mean_of_valid(at_back.reshape(len(true), N_AVERAGED, -1))
    good = np.isfinite(at_true).all(axis=1) & np.isfinite(at_stated).all(axis=1) & np.isfinite(averaged).all(axis=1)
    if good.sum() < MIN_PLACES:
        raise DataError(
            f"{int(good.sum())} of {len(true)} places with valid pixels here and {radius:,.0f} m away",
            expected=f"at least {MIN_PLACES}",
            todo="take imagery that covers the places and their surroundings",
        )
    point = _r2(at_true[good], at_stated[good])
    mean = _r2(at_true[good], averaged[good])
    table = pd.DataFrame({"kept": mean, "kept_at_point": point}, index=pd.Index(names, name="feature"))
    varies = np.isfinite(mean)
    kept, alone = float(mean[varies].mean()), float(point[varies].mean())
    return LocationErrorCost(float(radius), kept, alone, 1 - kept, table, int(good.sum()))


def chip_features(imagery: Any, geometry: Any, size_px: int) -> tuple[list[str], FloatArray]:
    """Mean and standard deviation of each band (and date) within the chips, NaN where fewer than half are valid."""
    features: FloatArray | None = None
    layers = 0
    for position, chips in imagery.iter_chips(geometry, size_px):
        flat = np.asarray(chips, dtype=float).reshape(len(chips), -1, size_px * size_px)
        valid = np.isfinite(flat)
        count = np.maximum(valid.sum(axis=2), 1)
        filled = np.where(valid, flat, 0.0)
        mean = filled.sum(axis=2) / count
        sd = np.sqrt((np.where(valid, flat - mean[..., None], 0.0) ** 2).sum(axis=2) / count)
        part = np.hstack([mean, sd])
        part[valid.mean(axis=(1, 2)) < 0.5] = np.nan
        if features is None:
            features, layers = np.full((len(geometry), part.shape[1]), np.nan), mean.shape[1]
        features[position] = part
    if features is None:
        raise DataError("no places", expected="at least one place on the imagery")
    bands = [str(b) for b in imagery.bands]
    each = [bands[j % len(bands)] for j in range(layers)]
    return [*(f"mean {b}" for b in each), *(f"sd {b}" for b in each)], features


def _places(imagery: Any, places: Any, n: int, rng: np.random.Generator) -> Any:
    """Points of a sample of the distinct places, or at random over the imagery."""
    import geopandas as gpd

    if places is None:
        left, bottom, right, top = imagery.bounds
        xy = rng.random((n, 2)) * [right - left, top - bottom] + [left, bottom]
        return gpd.GeoSeries.from_xy(*xy.T, crs=imagery.crs)
    points = places.geometry.representative_point()
    points = points[~(points.isna() | points.is_empty)]
    points = points[~points.duplicated()].reset_index(drop=True)
    chosen = np.sort(rng.permutation(len(points))[:n])
    return gpd.GeoSeries(points.iloc[chosen].to_numpy(), crs=places.crs)


def _mean_of_valid(values: FloatArray) -> FloatArray:
    valid = np.isfinite(values)
    total = np.where(valid, values, 0.0).sum(axis=1)
    count = valid.sum(axis=1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), dtype=np.float64)


def _r2(a: FloatArray, b: FloatArray) -> FloatArray:
    """Squared correlations of columns, 0 where they are negative, NaN where a column is constant."""
    x, z = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((x**2).sum(axis=0) * (z**2).sum(axis=0))
    tiny = 1e-12 * np.maximum(np.abs(a).max(axis=0), 1e-300) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(scale > tiny, (x * z).sum(axis=0) / scale, np.nan)
    return np.asarray(np.maximum(r, 0.0) ** 2, dtype=np.float64)
