"""The grid of a map: cells of whole native pixels, laid over the imagery, and the region that they cover."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from causalsat.core.names import shown
from causalsat.core.vectors import read_vector
from causalsat.exceptions import DataError, ImageryError, MapWarning, ParameterError
from causalsat.imagery.files import is_remote
from causalsat.imagery.grid import ground_pixels, project_bounds

__all__ = ["MapGrid", "grid_over", "read_polygons", "region_geometry", "region_of", "to_coordinates", "turned_region"]

FloatArray = NDArray[np.float64]

NEAR_DEG = 30.0  # degrees around the imagery in which its projection is taken to be defined
MAX_LON, MAX_LAT = 540.0, 90.000001  # degrees: longitudes may count on across 180 or to 360
_GROUND_TOLERANCE = 0.02  # as for pixels of imagery: below, what the projection says is taken


@dataclass(frozen=True)
class MapGrid:
    """Cells of ``cell_px`` by ``cell_px`` pixels of the imagery, counted from the imagery's first pixel.

    Because cells are counted from the imagery's origin, maps of neighbouring regions fall on one lattice.

    Attributes
    ----------
    crs : str
        Coordinate system of imagery and map, as WKT.
    imagery_transform : tuple of 6 floats
        Affine transform of the imagery's pixels (a, b, c, d, e, f).
    cell_px : int
        Side of a cell in native pixels.
    row0, col0 : int
        First cell of the map, in cells from the imagery's origin.
    height, width : int
        Size of the map in cells.
    resolution_m : float
        Side of a cell in metres.
    """

    crs: str
    imagery_transform: tuple[float, ...]
    cell_px: int
    row0: int
    col0: int
    height: int
    width: int
    resolution_m: float

    @property
    def transform(self) -> Any:
        """Affine transform of the map's cells."""
        from affine import Affine

        a, b, _, d, e, _ = self.imagery_transform
        k = self.cell_px
        x, y = to_coordinates(self.imagery_transform, self.col0 * k, self.row0 * k)
        return Affine(a * k, b * k, float(x), d * k, e * k, float(y))

    def centres(self, row: int, col: int, height: int, width: int) -> tuple[FloatArray, FloatArray]:
        """Coordinates of the cell centres of a block of the map, each of shape (height * width,), row by row."""
        rows, cols = np.meshgrid(np.arange(row, row + height), np.arange(col, col + width), indexing="ij")
        return to_coordinates(self.transform, cols.ravel() + 0.5, rows.ravel() + 0.5)


def to_coordinates(transform: Any, col: Any, row: Any) -> tuple[FloatArray, FloatArray]:
    """Coordinates of (fractional) columns and rows under an affine transform (a, b, c, d, e, f)."""
    a, b, c, d, e, f = (float(v) for v in tuple(transform)[:6])
    col, row = np.asarray(col, dtype=float), np.asarray(row, dtype=float)
    return a * col + b * row + c, d * col + e * row + f


def region_of(region: Any, imagery: Any, region_crs: Any = None) -> Any:
    """Region in the imagery's coordinate system and at its longitudes, as one shapely geometry; None stays None.

    The parameters and errors are those of :func:`region_geometry`.
    """
    geometry = region_geometry(region, imagery.crs, region_crs, near=imagery.bounds)
    if geometry is not None and geometry.is_empty:
        raise ImageryError(
            f"a region that lies more than {NEAR_DEG:g} degrees from the imagery",
            expected="a region that overlaps the imagery",
            todo="check the region's coordinates, and region_crs of a bare geometry or of bounds",
        )
    return turned_region(geometry, imagery)


def turned_region(geometry: Any, imagery: Any) -> Any:
    """A region at the longitudes of the imagery, where that counts them from 0 to 360 or on across 180 degrees.

    Parameters
    ----------
    geometry : shapely geometry or None
        In the imagery's coordinate system.
    imagery : Imagery
        Gives ``crs`` and ``bounds``.

    Returns
    -------
    shapely geometry or None
        As it is where no whole turn brings more of it onto the imagery; else all of it that lies there.
    """
    import shapely
    from shapely.affinity import translate

    if geometry is None or not imagery.crs.is_geographic:
        return geometry
    left, bottom, right, top = imagery.bounds
    frame = shapely.box(left, bottom, right, top)
    parts = [translate(geometry, turn).intersection(frame) for turn in (-360.0, 360.0)]
    parts = [part for part in parts if part.area > 0]
    return shapely.union_all([geometry.intersection(frame), *parts]) if parts else geometry


def region_geometry(region: Any, crs: Any, region_crs: Any = None, near: tuple[float, ...] | None = None) -> Any:
    """Region in the imagery's coordinate system, as one shapely geometry; None stays None.

    Parameters
    ----------
    region : GeoDataFrame, GeoSeries, shapely geometry, (west, south, east, north), path or None
        Polygons, or bounds. A bare geometry and bounds are in ``region_crs``, else in the imagery's system. Bounds in
        degrees whose west is greater than their east lie across 180 degrees.
    crs : pyproj.CRS
        Coordinate system of the imagery.
    region_crs : optional
        Coordinate system of a bare geometry or of bounds, such as ``"EPSG:4326"``.
    near : left, bottom, right, top, optional
        Bounds of the imagery in its system. What lies in degrees far from them is cut off before it is brought to a
        projection, which is not defined there; the geometry is empty where nothing is left.

    Raises
    ------
    DataError
        If the region is none of these, is empty, has no coordinate system or no area, or coordinates that are not
        finite or lie outside its system.
    """
    if region is None:
        return None
    series = _as_series(region, crs, region_crs)
    series = series[series.notna() & ~series.is_empty].force_2d()
    if not len(series):
        raise DataError("a region without geometry", expected="at least one polygon")
    if series.crs is None:
        raise DataError(
            "a region without a coordinate system", todo="set it: region.set_crs('EPSG:4326') for lon/lat"
        )
    _check_coordinates(series)
    if near is not None and series.crs.is_geographic and not crs.is_geographic:
        series = _cut_near(series, crs, near)
        if series.is_empty.all():
            return series.iloc[0]
    if series.crs != crs:
        west, south, east, north = series.total_bounds
        was_projected, source = not series.crs.is_geographic, series.crs.name
        series = series.segmentize(max(east - west, north - south, 1e-9) / 100).to_crs(crs)
        if was_projected and crs.is_geographic:
            series = series.explode(index_parts=False).map(_unwrapped)
        if not np.isfinite(series.bounds.to_numpy()).all():
            raise DataError(
                f"a region whose coordinates cannot be brought from {source} to the imagery's {crs.name}",
                expected="polygons where both systems are defined",
                todo="check the region's coordinate system, or cut it to the surroundings of the imagery",
            )
    geometry = series.make_valid().union_all()
    if geometry.area <= 0:
        raise DataError(
            f"a region of type {geometry.geom_type}, without area",
            expected="polygons",
            todo="buffer points or lines: region.buffer(metres) in a projected coordinate system",
        )
    return geometry


def _cut_near(series: Any, crs: Any, bounds: tuple[float, ...]) -> Any:
    """Polygons in degrees without what lies far from bounds in a projection, at any of their longitudes."""
    import shapely

    west, south, east, north = project_bounds(bounds, _wkt(crs), _wkt(series.crs))
    if not np.isfinite((west, south, east, north)).all():
        return series
    east += 360.0 if east < west else 0.0
    if east - west + 2 * NEAR_DEG >= 360:
        return series
    frames = [
        shapely.box(west - NEAR_DEG + turn, south - NEAR_DEG, east + NEAR_DEG + turn, north + NEAR_DEG)
        for turn in (-360.0, 0.0, 360.0)
    ]
    far = ~np.any([series.within(frame) for frame in frames], axis=0)
    if not far.any():
        return series
    cut = series.copy()
    cut[far] = series[far].make_valid().intersection(shapely.union_all(frames))
    return cut


def _check_coordinates(series: Any) -> None:
    """Refuse coordinates that are not finite, and metres in a system of degrees, as in GeoJSON without its system.

    Raises
    ------
    DataError
    """
    bounds = series.bounds.to_numpy()
    bad = ~np.isfinite(bounds).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(series)} polygons have coordinates that are not finite, such as "
            f"{shown(series.index[bad][0])}",
            expected="finite coordinates",
            todo="look for a projection that failed: the same polygons before it",
        )
    if not series.crs.is_geographic:
        return
    west, south, east, north = series.total_bounds
    if max(abs(west), abs(east)) > MAX_LON or max(abs(south), abs(north)) > MAX_LAT:
        exchanged = max(abs(west), abs(east)) <= MAX_LAT and max(abs(south), abs(north)) <= MAX_LON
        raise DataError(
            f"polygons from {west:.7g}, {south:.7g} to {east:.7g}, {north:.7g} in {series.crs.name}, which is in "
            "degrees",
            expected="longitudes and latitudes",
            todo="longitude and latitude look swapped: exchange them"
            if exchanged
            else "they look like metres; GeoJSON without a system counts as degrees: say which it is, "
            "polygons.set_crs('EPSG:...', allow_override=True)",
        )


def read_polygons(path: str | os.PathLike[str]) -> Any:
    """GeoDataFrame of a local vector file: what GDAL reads, or GeoParquet.

    Raises
    ------
    DataError
        If the path is an address on the net, the file is not there, cannot be read or holds no geometry.
    """
    import geopandas as gpd

    text = os.fspath(path)
    kinds = "a vector file of polygons, such as GeoPackage, GeoJSON, GeoParquet or Shapefile"
    if is_remote(text):
        raise DataError(
            f"{text} lies on the net",
            expected="a local file: nothing is fetched unless it is asked for",
            todo="download it, or read it from there yourself and pass the table: geopandas.read_file(address)",
        )
    if not text.startswith("/vsi") and not os.path.exists(text):
        raise DataError(f"{text} does not exist", expected=kinds, todo="check the path")
    try:
        frame = gpd.read_parquet(text) if text.endswith((".parquet", ".geoparquet", ".pq")) else read_vector(text)
    except DataError:
        raise
    except Exception as error:  # each reader has its own errors; the user needs one that names the file
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise DataError(
            f"{text} cannot be read ({type(error).__name__}: {first})",
            expected=kinds,
            todo="open it in another program, such as QGIS, to see whether it is whole",
        ) from error
    if getattr(frame, "active_geometry_name", None) is None:
        raise DataError(f"{text} holds no geometry", expected=kinds)
    return frame


def _as_series(region: Any, crs: Any, region_crs: Any) -> Any:
    import geopandas as gpd
    import shapely

    if isinstance(region, str | Path):
        region = read_polygons(region)
    if isinstance(region, gpd.GeoDataFrame):
        region = region.geometry
    if isinstance(region, gpd.GeoSeries):
        if region.crs is None or region_crs is None:
            return region if region_crs is None else region.set_crs(region_crs)
        if region.crs != CRS.from_user_input(region_crs):
            raise ParameterError(
                f"region_crs={region_crs!r}, but the region says {region.crs.to_string()[:60]}",
                expected="one coordinate reference system",
                todo="leave region_crs out if the region is right; else region.set_crs(..., allow_override=True)",
            )
        return region
    if isinstance(region, shapely.Geometry):
        return gpd.GeoSeries([region], crs=region_crs or crs)
    bounds = np.asarray(region, dtype=float) if np.ndim(region) == 1 and len(region) == 4 else None
    if bounds is None or not np.isfinite(bounds).all():
        raise DataError(
            f"region={region!r}",
            expected="a GeoDataFrame, a shapely polygon, (west, south, east, north), a path, or None",
        )
    if bounds[0] > bounds[2] and _in_degrees(region_crs or crs) and -180 <= bounds[2] < bounds[0] <= 180:
        bounds[2] += 360
    if bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
        raise DataError(f"region bounds {tuple(bounds)}", expected="(west, south, east, north) with west < east")
    return gpd.GeoSeries([shapely.box(*bounds)], crs=region_crs or crs)


def _in_degrees(crs: Any) -> bool:
    return bool(CRS.from_user_input(crs).is_geographic)


def _unwrapped(polygon: Any) -> Any:
    """A polygon whose longitudes run on across 180 degrees, where its border jumps to the other side."""
    import shapely

    lon = shapely.get_coordinates(polygon.exterior if polygon.geom_type == "Polygon" else polygon)[:, 0]
    if not len(lon) or np.abs(np.diff(lon)).max(initial=0) <= 180:
        return polygon

    def unwrap(xy: FloatArray) -> FloatArray:
        return np.column_stack([lon[0] + (xy[:, 0] - lon[0] + 180) % 360 - 180, xy[:, 1]])

    return shapely.transform(polygon, unwrap)


def grid_over(imagery: Any, geometry: Any, resolution: float | None, *, tell: bool = True) -> MapGrid:
    """Smallest grid of whole-pixel cells that covers the region's part of the imagery.

    Parameters
    ----------
    imagery : Imagery
        Gives ``crs``, ``transform``, ``shape`` and ``resolution_m``.
    geometry : shapely geometry or None
        Region in the imagery's system; None for all of the imagery.
    resolution : float or None
        Wanted side of a cell in metres, rounded to whole pixels; None chooses about 250,000 cells.
    tell : bool
        Warn where rounding changes the resolution by more than one per cent.

    Raises
    ------
    ParameterError
        If the resolution is not positive, or so coarse that the region is less than one cell.
    ImageryError
        If the region lies outside the imagery.
    """
    pixel_m = _ground_m(imagery, geometry)
    rows, cols = (int(v) for v in imagery.shape[-2:])
    window = _pixel_window(imagery, geometry, rows, cols)
    if resolution is None:
        area = max(window[1] - window[0], 1) * max(window[3] - window[2], 1)
        cell = max(1, round((area / 250_000) ** 0.5))
    else:
        cell = _whole_pixels(float(resolution), pixel_m, tell)
    if cell > max(rows, cols):
        raise ParameterError(
            f"resolution={resolution!r}: one cell of {cell} pixels for imagery of {rows} x {cols} pixels",
            expected=f"metres, at most {min(rows, cols) * pixel_m:g} here",
        )
    row0, row1 = window[0] // cell, -(-window[1] // cell)
    col0, col1 = window[2] // cell, -(-window[3] // cell)
    return MapGrid(
        crs=_wkt(imagery.crs),
        imagery_transform=tuple(float(v) for v in imagery.transform)[:6],
        cell_px=cell,
        row0=int(row0),
        col0=int(col0),
        height=int(row1 - row0),
        width=int(col1 - col0),
        resolution_m=cell * pixel_m,
    )


def _ground_m(imagery: Any, geometry: Any) -> float:
    """Side of a square with a pixel's area on the ground in the region's middle, or the imagery's own."""
    usual = float(np.mean(imagery.resolution_m))
    if geometry is None or not hasattr(imagery, "grid"):
        return usual
    west, south, east, north = geometry.bounds
    x, y = (np.array([middle]) for middle in ((west + east) / 2, (south + north) / 2))
    here = float(np.sqrt(np.prod([side[0] for side in ground_pixels(imagery.grid, x, y)])))
    return here if np.isfinite(here) and abs(here / usual - 1) > _GROUND_TOLERANCE else usual


def _whole_pixels(resolution: float, pixel_m: float, tell: bool) -> int:
    if not np.isfinite(resolution) or resolution <= 0:
        raise ParameterError(f"resolution={resolution!r}", expected="metres, a positive number")
    cell = max(1, round(resolution / pixel_m))
    actual = cell * pixel_m
    if tell and abs(actual / resolution - 1) > 0.01:
        warnings.warn(
            f"resolution {resolution:g} m is not a whole number of {pixel_m:g} m pixels: "
            f"the map's cells are {cell} pixels, {actual:g} m",
            MapWarning,
            stacklevel=4,
        )
    return cell


def _pixel_window(imagery: Any, geometry: Any, rows: int, cols: int) -> tuple[int, int, int, int]:
    if geometry is None:
        return 0, rows, 0, cols
    west, south, east, north = geometry.bounds
    x, y = np.array([west, west, east, east]), np.array([south, north, south, north])
    pixel_col, pixel_row = to_coordinates(~imagery.transform, x, y)
    low_row, high_row = max(int(np.floor(pixel_row.min() + 1e-6)), 0), min(int(np.ceil(pixel_row.max() - 1e-6)), rows)
    low_col, high_col = max(int(np.floor(pixel_col.min() + 1e-6)), 0), min(int(np.ceil(pixel_col.max() - 1e-6)), cols)
    if high_row <= low_row or high_col <= low_col:
        raise ImageryError(
            f"a region of bounds {tuple(round(float(v), 3) for v in geometry.bounds)} outside the imagery, "
            f"whose bounds are {tuple(round(float(v), 3) for v in imagery.bounds)}",
            expected="a region that overlaps the imagery",
            todo="name the region's coordinate system, for example region_crs='EPSG:4326' for lon/lat bounds",
        )
    return low_row, high_row, low_col, high_col


def _wkt(crs: Any) -> str:
    return str(CRS.from_user_input(crs).to_wkt())
