"""Places in metres on the ground, whatever system and unit their coordinates are in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Proj

__all__ = ["middle_of", "planar_metres"]

FloatArray = NDArray[np.float64]

_TOLERANCE = 0.02  # how far a metre of a projection may be off on the ground


def planar_metres(geometry: Any) -> FloatArray:
    """Coordinates in the plane in metres on the ground, shape (n, 2).

    The geometry's own projection is taken where its unit is a length that is one on the ground at all places, within
    a fiftieth; else the UTM zone of the places; else, for places that no zone holds, an azimuthal equidistant
    projection around them. So degrees, feet, Web Mercator and both sides of 180 degrees give the same distances.

    Parameters
    ----------
    geometry : GeoSeries of length n, with a CRS
        Polygons and lines are represented by an inner point.

    Examples
    --------
    >>> import geopandas
    >>> places = geopandas.GeoSeries.from_xy([33.0, 33.1], [60.0, 60.0], crs="EPSG:4326")
    >>> for crs in ("EPSG:4326", "EPSG:3857", "EPSG:32636"):
    ...     print(round(float(np.ptp(planar_metres(places.to_crs(crs))[:, 0])), -2))
    5600.0
    5600.0
    5600.0
    """
    degrees = geometry.representative_point().to_crs("EPSG:4326")
    lon, lat = degrees.x.to_numpy(dtype=float), degrees.y.to_numpy(dtype=float)
    for crs in (geometry.crs, _utm(geometry)):
        if crs is None or crs.is_geographic or not _is_true_to_scale(crs, lon, lat):
            continue
        points = geometry.to_crs(crs).representative_point()
        unit = float(crs.axis_info[0].unit_conversion_factor)
        return np.column_stack([points.x, points.y]) * unit
    centre = middle_of(lon, lat)
    x, y = Proj(proj="aeqd", lon_0=centre[0], lat_0=centre[1], ellps="WGS84")(lon, lat)
    return np.column_stack([x, y])


def middle_of(lon: FloatArray, lat: FloatArray) -> tuple[float, float]:
    """Longitude and latitude in the middle of places, also of those on both sides of 180 degrees.

    Examples
    --------
    >>> middle_of(np.array([179.0, -179.0]), np.array([-18.0, -16.0]))
    (180.0, -17.0)
    """
    if not len(lon):
        return 0.0, 0.0
    turns = np.exp(1j * np.radians(lon)).mean()
    first = float(np.degrees(np.angle(turns))) if abs(turns) > 1e-9 else float(lon[0])
    around = first + (lon - first + 180) % 360 - 180
    middle = (around.min() + around.max()) / 2
    return float(round(180 - (180 - middle) % 360, 9)), float((lat.min() + lat.max()) / 2)


def _utm(geometry: Any) -> CRS | None:
    try:
        return geometry.estimate_utm_crs()
    except (RuntimeError, ValueError):  # near the poles
        return None


def _is_true_to_scale(crs: CRS, lon: FloatArray, lat: FloatArray) -> bool:
    """Whether a metre of a projection is one on the ground at all places."""
    factors = Proj(crs).get_factors(lon, lat)
    scales = np.array([factors.meridional_scale, factors.parallel_scale], dtype=float)
    return bool((np.abs(scales - 1) < _TOLERANCE).all())
