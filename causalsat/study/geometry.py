"""From lon/lat columns or a geometry to a GeoDataFrame of units."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd

from causalsat.exceptions import ColumnError, DataError, DataWarning
from causalsat.study.building import check_table
from causalsat.study.columns import list_names, numeric_column, require_column

LON_WORDS = ("lon", "long", "longitude", "lng", "easting", "gps_longitude", "geo_long", "x_coord")
LAT_WORDS = ("lat", "latitude", "northing", "gps_latitude", "geo_lat", "y_coord")
DEFAULT_CRS = "EPSG:4326"


def parse_crs(crs: Any) -> Any:
    """A pyproj CRS from whatever names one; DataError where nothing does."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise DataError(
            f"crs={crs!r} is no coordinate reference system that PROJ knows",
            expected="an EPSG code such as 'EPSG:4326' (lon/lat) or 'EPSG:32636' (UTM 36N), or WKT",
            todo="look the code up in the documentation of the data",
        ) from error


def to_geoframe(frame: pd.DataFrame, lon: str | None, lat: str | None, crs: Any, what: str = "units") -> Any:
    """GeoDataFrame of the table's places: points from lon/lat, or the geometry that it has.

    A place with a missing coordinate gets no geometry (None); Study.check reports it.
    """
    import geopandas as gpd

    if (lon is None) != (lat is None):
        given, other = ("lon", "lat") if lat is None else ("lat", "lon")
        raise ColumnError(
            f"{given}={lon or lat!r} without {other}",
            expected="both lon and lat, or a geometry column",
            todo=f"name the column that holds {other}",
        )
    if lon is not None and lat is not None:
        x = numeric_column(frame[require_column(frame, lon, "lon", what)], "lon")
        y = numeric_column(frame[require_column(frame, lat, "lat", what)], "lat")
        points = np.full(len(frame), None, dtype=object)
        there = np.isfinite(x) & np.isfinite(y)
        points[there] = gpd.points_from_xy(x[there], y[there])
        if "geometry" in frame.columns and getattr(frame, "active_geometry_name", None) != "geometry":
            warnings.warn(
                f"the column 'geometry' of the {what} gives way to points of {lon} and {lat}; rename it to keep it",
                DataWarning,
                stacklevel=4,
            )
        table = pd.DataFrame(frame).drop(columns="geometry", errors="ignore")
        return gpd.GeoDataFrame(table, geometry=points, crs=parse_crs(DEFAULT_CRS if crs is None else crs))
    if isinstance(frame, gpd.GeoDataFrame) and frame.active_geometry_name is not None:
        return _with_crs(frame, crs)
    raise ColumnError(
        f"the {what} have no place: neither lon and lat nor a geometry",
        expected="lon= and lat= naming columns, or a GeoDataFrame",
        todo=_suggest_places(frame),
    )


def units_frame(frame: pd.DataFrame, places: Any, lon: str | None, lat: str | None, crs: Any) -> Any:
    """The units' places; by their own geometry where the columns named are those of the further places only."""
    if getattr(frame, "active_geometry_name", None) is not None and lon and lat:
        elsewhere = {lon, lat} <= set(getattr(places, "columns", ()))
        if elsewhere and not {lon, lat} & set(frame.columns):
            return _with_crs(frame, None if frame.crs is not None else crs)
    return to_geoframe(frame, lon, lat, crs)


def places_frame(places: Any, lon: str | None, lat: str | None, crs: Any) -> Any:
    """Further places: by the units' lon and lat columns, or by their own geometry where they lack those."""
    frame = check_table(places, "places")
    if getattr(frame, "active_geometry_name", None) is not None and not {lon, lat} <= set(frame.columns):
        return _with_crs(frame, None if frame.crs is not None else crs)
    return to_geoframe(frame, lon, lat, crs, "places")


def _with_crs(frame: Any, crs: Any) -> Any:
    own = frame.copy()
    if own.active_geometry_name != "geometry":
        own = own.drop(columns="geometry", errors="ignore").rename_geometry("geometry")
    own["geometry"] = own.geometry.force_2d()  # altitudes tell no places apart
    if crs is None:
        return own
    wanted = parse_crs(crs)
    if own.crs is None:
        return own.set_crs(wanted)
    if own.crs != wanted:
        raise DataError(
            f"crs={wanted.to_string()[:60]} was passed, but the geometry says {own.crs.to_string()[:60]}",
            expected="one coordinate reference system",
            todo="leave crs out if the geometry is right; frame.set_crs(..., allow_override=True) if it is wrong",
        )
    return own


def _suggest_places(frame: pd.DataFrame) -> str:
    def find(words: tuple[str, ...]) -> list[str]:
        return [str(c) for c in frame.columns if str(c).strip().casefold() in words]

    wkt = [c for c in frame.columns if _is_wkt(frame[c])]
    if wkt:
        return (
            f"make {str(wkt[0])!r} a geometry: geopandas.GeoDataFrame(t, geometry=geopandas.GeoSeries.from_wkt("
            f"t[{str(wkt[0])!r}]), crs='EPSG:4326'), with the system that it is in"
        )
    lons, lats = find(LON_WORDS), find(LAT_WORDS)
    if lons and lats:
        return f"pass lon={lons[0]!r}, lat={lats[0]!r}"
    return f"name the columns with the coordinates (columns: {list_names(frame.columns)})"


def _is_wkt(values: pd.Series) -> bool:
    """Whether a column holds geometries as text, such as POINT (32.1 1.2)."""
    first = next((v for v in values.dropna().head(5) if isinstance(v, str)), "")
    return re.match(r"\s*(SRID=\d+;)?\s*(MULTI)?(POINT|POLYGON|LINESTRING)\s*Z?M?\s*\(", first, re.I) is not None
