"""Where a place may be whose coordinates were displaced: positions that stand for all of them.

A displaced place is a MultiPoint of equally likely positions; image features are averaged over them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["N_POSITIONS", "as_positions", "possible_places", "row_of_position", "spread_rows"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_POSITIONS = 16
GOLDEN = np.pi * (3 - np.sqrt(5))


def possible_places(geometry: Any, radius_m: FloatArray, n_positions: int = N_POSITIONS) -> Any:
    """MultiPoints of the positions where each place may be: uniform angle, uniform distance up to its radius.

    This is the displacement of the Demographic and Health Surveys. Distances are the middles of equal shares and
    angles spread by the golden angle, from a start that the coordinates decide, so that the same place always has
    the same positions.

    Parameters
    ----------
    geometry : GeoSeries of n points, with a CRS
    radius_m : ndarray of shape (n,)
        Metres; 0 leaves the place as it is.
    n_positions : int

    Returns
    -------
    GeoSeries of MultiPoint

    Examples
    --------
    >>> import geopandas
    >>> place = geopandas.GeoSeries.from_xy([300_000.0], [100_000.0], crs="EPSG:32636")
    >>> moved = possible_places(place, np.array([2000.0]), 100).explode()
    >>> distance = moved.distance(place.iloc[0])
    >>> bool(abs(distance.max() - 1990) < 10), bool(abs(distance.mean() - 1000) < 5)
    (True, True)
    """
    import geopandas as gpd
    import shapely

    points = geometry if (geometry.geom_type == "Point").all() else geometry.representative_point()
    degrees = points.to_crs(4326)
    lon, lat = degrees.x.to_numpy(), degrees.y.to_numpy()
    k = np.arange(n_positions)
    start = 2 * np.pi * ((1e4 * (lon * 0.7548776662 + lat * 0.5698402910)) % 1.0)
    distance = radius_m[:, None] * (k + 0.5) / n_positions
    angle = start[:, None] + GOLDEN * k
    phi = np.radians(lat)  # metres in a degree of the ellipsoid WGS 84
    of_lat = 111_132.95 - 559.85 * np.cos(2 * phi) + 1.18 * np.cos(4 * phi)
    of_lon = np.maximum(111_412.88 * np.cos(phi) - 93.5 * np.cos(3 * phi), 1.0)
    north = lat[:, None] + distance * np.sin(angle) / of_lat[:, None]
    east = lon[:, None] + distance * np.cos(angle) / of_lon[:, None]
    moved = gpd.GeoSeries.from_xy(east.ravel(), north.ravel(), crs=4326).to_crs(geometry.crs)
    xy = np.column_stack([moved.x, moved.y]).reshape(len(points), n_positions, 2)
    exact = radius_m <= 0
    xy[exact] = np.column_stack([points.x, points.y])[exact][:, None]
    places = [shapely.MultiPoint(xy[i, :1] if exact[i] else xy[i]) for i in range(len(points))]
    return gpd.GeoSeries(places, index=geometry.index, crs=geometry.crs, name=geometry.name)


def as_positions(X: Any) -> tuple[list[Any], Any] | None:
    """The parts of each row's geometry, and the geometry itself, where some have several; else None."""
    geometry = getattr(X, "geometry", None)
    if geometry is None or getattr(geometry, "geom_type", None) is None:
        return None
    if not (geometry.geom_type == "MultiPoint").any():
        return None
    parts = [list(getattr(shape, "geoms", [shape])) for shape in geometry]
    return (parts, geometry) if max(map(len, parts)) > 1 else None


def spread_rows(X: Any) -> tuple[Any, IntArray] | None:
    """A row for each possible position, and the row of X that it belongs to; None where all places are exact."""
    found = as_positions(X)
    if found is None:
        return None
    import geopandas as gpd

    parts, geometry = found
    owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    points = gpd.GeoSeries([point for p in parts for point in p], crs=geometry.crs)
    if not hasattr(X, "columns"):
        return points, owner
    rows = X.iloc[owner].reset_index(drop=True)
    return rows.set_geometry(points.rename(X.geometry.name)), owner


def row_of_position(owner: IntArray, k: int) -> IntArray:
    """Among spread rows, that of each unit's k-th position, its positions taken in turn."""
    count = np.bincount(owner)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    return np.asarray(first + k % count, dtype=np.int64)
