"""The pixel grid of a source: CRS, transform, shape, and the way from geometries to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError

from causalsat.core.warn import warn
from causalsat.exceptions import DataError, ImageryError, ImageryWarning, ParameterError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

__all__ = [
    "Grid",
    "check_ground_size",
    "ground_pixels",
    "lonlat",
    "make_grid",
    "project",
    "project_bounds",
    "representative_points",
    "same_affine",
    "union_grid",
]

_LOOKED_AT = 200  # places at which the size of chips is looked at
_SIZE_TOLD, _SIZE_REFUSED = 0.05, 0.1  # how far a chip's side may be off on the ground
_EARTH_M = (6.3e6, 6.4e6)  # half axes of ellipsoids of the Earth
_GROUND_TOLERANCE = 0.02  # a projection whose metre is off by more than this at the centre is measured on the ground


@lru_cache(maxsize=256)
def _crs(text: str) -> CRS:
    return CRS.from_user_input(text)


@lru_cache(maxsize=256)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(_crs(source), _crs(target), always_xy=True)


@dataclass(frozen=True)
class Grid:
    """A north-up pixel grid.

    Attributes
    ----------
    crs_wkt : str
        Coordinate reference system as WKT.
    affine : tuple of float
        The six coefficients (a, b, c, d, e, f) of the transform from (column, row) to (x, y); a > 0, e < 0,
        b = d = 0.
    shape : tuple of int
        Rows and columns.

    Examples
    --------
    >>> grid = make_grid("EPSG:32636", (10, 0, 5e5, 0, -10, 1e5), (200, 300), "scene")
    >>> grid.resolution_m, grid.bounds
    (10.0, (500000.0, 98000.0, 503000.0, 100000.0))
    """

    crs_wkt: str
    affine: tuple[float, ...]
    shape: tuple[int, int]

    @property
    def crs(self) -> CRS:
        """Coordinate reference system."""
        return _crs(self.crs_wkt)

    @property
    def transform(self) -> Affine:
        """Transform from (column, row) to coordinates."""
        return Affine(*self.affine)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in the grid's CRS."""
        a, _, c, _, e, f = self.affine
        rows, cols = self.shape
        return (c, f + e * rows, c + a * cols, f)

    @property
    def pixel_size_m(self) -> tuple[float, float]:
        """Height and width of a pixel in metres; on the ground at the raster's centre where degrees are used."""
        return _pixel_size_m(self)

    @property
    def resolution_m(self) -> float:
        """Metres per pixel: the side of the square with a pixel's area."""
        height, width = self.pixel_size_m
        return height if height == width else math.sqrt(height * width)

    def locate(self, x: FloatArray, y: FloatArray) -> tuple[IntArray, IntArray]:
        """Rows and columns of the pixels that contain the points; beyond the border where they are outside."""
        a, _, c, _, e, f = self.affine
        return np.floor((y - f) / e).astype(np.int64), np.floor((x - c) / a).astype(np.int64)

    def points(self, geometry: Any) -> tuple[FloatArray, FloatArray]:
        """Coordinates of the geometries' representative points in this grid's CRS.

        Parameters
        ----------
        geometry : GeoSeries or GeoDataFrame of length n, with a CRS

        Returns
        -------
        x, y : ndarray of shape (n,)

        Raises
        ------
        DataError
            No CRS, or a missing, empty or not projectable geometry; the message names the units.
        """
        x, y = _project(representative_points(geometry), self.crs_wkt)
        return self.turned(x), y

    def turned(self, x: FloatArray) -> FloatArray:
        """Longitudes of this grid: those outside it that a whole turn brings inside, turned; others as they are.

        For rasters that count from 0 to 360 degrees, or on across 180 degrees.

        Examples
        --------
        >>> make_grid("EPSG:4326", (10, 0, 0, 0, -10, 90), (18, 36), "world").turned(np.array([-58.0, 20.0]))
        array([302.,  20.])
        """
        if not self.crs.is_geographic:
            return x
        left, _, right, _ = self.bounds
        turned = left + (x - left) % 360
        return np.where(((x < left) | (x > right)) & (turned < right), turned, x)

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> str | None:
        """What differs from another grid, in words; None where they agree (to a fraction of a pixel)."""
        if self.shape != other.shape:
            return f"its shape is {other.shape} and not {self.shape}"
        if self.crs != other.crs:
            return f"its CRS is {other.crs.name} and not {self.crs.name}"
        if not same_affine(self.affine, other.affine, self.shape, tolerance):
            return f"its grid is shifted or scaled: transform {other.affine} and not {self.affine}"
        return None

    def offset_in(self, other: Grid, tolerance: float = 1e-3) -> tuple[int, int] | None:
        """Row and column of another grid at which this one begins; None where their pixels do not coincide.

        Examples
        --------
        >>> first = make_grid("EPSG:32636", (10, 0, 5e5, 0, -10, 1e5), (20, 30), "a")
        >>> second = make_grid("EPSG:32636", (10, 0, 500300, 0, -10, 1e5), (20, 30), "b")
        >>> second.offset_in(first), first.offset_in(second)
        ((0, 30), (0, -30))
        """
        if self.crs != other.crs:
            return None
        a, _, c, _, e, f = other.affine
        row, col = (self.affine[5] - f) / e, (self.affine[2] - c) / a
        drift = max(abs(self.affine[0] / a - 1) * self.shape[1], abs(self.affine[4] / e - 1) * self.shape[0])
        if max(abs(row - round(row)), abs(col - round(col)), drift) > tolerance:
            return None
        return round(row), round(col)


def union_grid(grids: Sequence[Grid]) -> Grid | None:
    """The smallest grid that holds all of these; None where their pixels do not coincide.

    Examples
    --------
    >>> tiles = [make_grid("EPSG:32636", (10, 0, x, 0, -10, 1e5), (20, 30), "a") for x in (5e5, 500300)]
    >>> union_grid(tiles).shape
    (20, 60)
    """
    first = grids[0]
    offsets = [grid.offset_in(first) for grid in grids]
    if None in offsets:
        return None
    corners = np.array([[r, c, r + g.shape[0], c + g.shape[1]] for (r, c), g in zip(offsets, grids, strict=True)])  # type: ignore[misc]
    top, left = corners[:, :2].min(axis=0).tolist()
    bottom, right = corners[:, 2:].max(axis=0).tolist()
    a, _, c, _, e, f = first.affine
    return Grid(first.crs_wkt, (a, 0.0, c + left * a, 0.0, e, f + top * e), (bottom - top, right - left))


@lru_cache(maxsize=256)
def _pixel_size_m(grid: Grid) -> tuple[float, float]:
    left, bottom, right, top = grid.bounds
    width, height = grid.affine[0], -grid.affine[4]
    factor = 0.0 if grid.crs.is_geographic else float(grid.crs.axis_info[0].unit_conversion_factor)
    nominal = (height * factor, width * factor)
    x, y = (left + right) / 2, (bottom + top) / 2
    xs, ys = np.array([x - width / 2, x + width / 2, x, x]), np.array([y, y, y - height / 2, y + height / 2])
    lon, lat = _transformer(grid.crs_wkt, "EPSG:4326").transform(xs, ys)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all() and (np.abs(lat) < 90).all()):
        return nominal
    _, _, metres = Geod(ellps="WGS84").inv(lon[[2, 0]], lat[[2, 0]], lon[[3, 1]], lat[[3, 1]])
    ground = (float(metres[0]), float(metres[1]))
    close = factor and all(abs(g / n - 1) < _GROUND_TOLERANCE for g, n in zip(ground, nominal, strict=True))
    return nominal if close else ground


def ground_pixels(grid: Grid, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Heights and widths in metres on the ground of pixels of a grid, at coordinates in its CRS.

    Parameters
    ----------
    grid : Grid
    x, y : ndarray of shape (n,)

    Returns
    -------
    height, width : ndarray of shape (n,)
        NaN where the coordinates cannot be brought to longitude and latitude.
    """
    width, height = grid.affine[0] / 2, -grid.affine[4] / 2
    transformer = _transformer(grid.crs_wkt, "EPSG:4326")
    ends = [transformer.transform(x + dx, y + dy) for dx, dy in ((-width, 0), (width, 0), (0, -height), (0, height))]
    lon, lat = (np.array([end[k] for end in ends], dtype=float) for k in (0, 1))
    bad = ~(np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90)).all(axis=0)
    lon[:, bad], lat[:, bad] = 0.0, 0.0
    geod = Geod(ellps="WGS84")
    _, _, across = geod.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, along = geod.inv(lon[2], lat[2], lon[3], lat[3])
    return np.where(bad, np.nan, along), np.where(bad, np.nan, across)


def check_ground_size(grid: Grid, geometry: Any, size_m: float, name: str, *, tell: bool = True) -> None:
    """Refuse places where a square of so many metres is not so large on the ground.

    All chips of a raster have one number of pixels. In degrees and in projections that stretch, such as Web
    Mercator, a pixel is not as large everywhere, and in degrees not square.

    Raises
    ------
    ParameterError
        Somewhere a side is more than a tenth longer or shorter.

    Warns
    -----
    ImageryWarning
        Somewhere a side is more than a twentieth longer or shorter.
    """
    x, y = grid.points(geometry)
    if not len(x):
        return
    few = _spread_out(x, y)
    x, y, labels = x[few], y[few], getattr(geometry, "geometry", geometry).index[few]
    sides = np.stack(ground_pixels(grid, x, y)) / grid.resolution_m
    off = np.nanmax(np.abs(np.log(sides)), axis=0, initial=0.0)
    worst = int(np.nanargmax(off)) if len(off) else 0
    if not off[worst] > np.log1p(_SIZE_TOLD):
        return
    along, across = (float(side) * size_m for side in sides[:, worst])
    what = (
        f"size_m={size_m:g} in {name}, whose CRS is {grid.crs.name}, is {along:.0f} m from north to south and "
        f"{across:.0f} m from west to east at {labels[worst]}"
    )
    todo = f"warp the imagery to metres on the ground there: gdalwarp -t_srs {_utm(x[worst], y[worst], grid)}"
    if off[worst] > np.log1p(_SIZE_REFUSED):
        raise ParameterError(what, expected=f"within {_SIZE_REFUSED:.0%} of it", todo=f"{todo}; or pass size_px=")
    if tell:
        warn(f"{what}; {todo}", ImageryWarning)


def _spread_out(x: FloatArray, y: FloatArray) -> IntArray:
    """Positions of all places, or of many those at the edges and some between: scales change slowly over a raster."""
    if len(x) <= _LOOKED_AT:
        return np.arange(len(x))
    edges = [int(v.argmin()) for direction in (x, y, x + y, x - y) for v in (direction, -direction)]
    return np.unique([*edges, *np.linspace(0, len(x) - 1, _LOOKED_AT).astype(np.int64)])


def _utm(x: float, y: float, grid: Grid) -> str:
    """EPSG code of the UTM zone of a place."""
    lon, lat = _transformer(grid.crs_wkt, "EPSG:4326").transform(x, y)
    zone = int((lon + 180) % 360 // 6) + 1
    return f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"


def make_grid(crs: Any, transform: Any, shape: tuple[int, int], name: str) -> Grid:
    """A checked :class:`Grid`.

    Parameters
    ----------
    crs : anything that ``pyproj.CRS.from_user_input`` reads, or None
    transform : Affine or six floats (a, b, c, d, e, f)
    shape : (rows, columns)
    name : str
        What the messages call the source.

    Raises
    ------
    ImageryError
        No CRS, a CRS that is neither projected nor geographic, or a rotated, mirrored or absent transform.
    """
    if crs is None or crs == "":
        raise ImageryError(
            f"{name} has no coordinate reference system",
            expected="a georeferenced raster",
            todo='pass crs= (for example crs="EPSG:32636"), or write it into the file with gdal_edit -a_srs',
        )
    try:
        parsed = CRS.from_user_input(crs.to_wkt() if hasattr(crs, "to_wkt") else crs)
    except CRSError as error:
        raise ImageryError(
            f"{name}: the CRS {crs!r} cannot be read", todo='pass crs= as an EPSG code such as "EPSG:32636"'
        ) from error
    if not (parsed.is_geographic or parsed.is_projected):
        raise ImageryError(
            f"{name}: the CRS {parsed.name!r} is neither projected nor geographic",
            todo='pass crs= with the real one (for example crs="EPSG:32636")',
        )
    ellipsoid = parsed.ellipsoid
    if ellipsoid is not None and not _EARTH_M[0] < ellipsoid.semi_major_metre < _EARTH_M[1]:
        raise ImageryError(
            f"{name}: the CRS {parsed.name!r} is of another body than the Earth "
            f"(a half axis of {ellipsoid.semi_major_metre / 1000:,.0f} km)",
            expected="imagery of the Earth",
            todo="if it is of the Earth, correct its CRS with gdal_edit -a_srs",
        )
    a, b, c, d, e, f = (float(v) for v in tuple(transform)[:6])
    if not np.isfinite((a, b, c, d, e, f)).all():
        raise ImageryError(f"{name} has a transform that is not finite: {(a, b, c, d, e, f)}", todo="check the file")
    if (a, b, c, d, e, f) == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        raise ImageryError(
            f"{name} has no georeference (identity transform)",
            todo="warp it with gdalwarp (ground control points) or set the corners with gdal_translate -a_ullr",
        )
    if abs(b) > 1e-9 * abs(a) or abs(d) > 1e-9 * abs(e) or a <= 0 or e >= 0:
        raise ImageryError(
            f"{name} is rotated, sheared or mirrored: transform {(a, b, c, d, e, f)}",
            expected="a north-up grid",
            todo="warp it first: gdalwarp -t_srs EPSG:... in.tif out.tif",
        )
    return Grid(parsed.to_wkt(), (a, 0.0, c, 0.0, e, f), (int(shape[0]), int(shape[1])))


def representative_points(geometry: Any) -> Any:
    """The geometries as a GeoSeries of points: points stay, everything else gets its representative point.

    Raises
    ------
    DataError
        Not a GeoSeries or GeoDataFrame, no CRS, or missing and empty geometries, named by their labels.
    """
    series = getattr(geometry, "geometry", geometry)
    if not hasattr(series, "geom_type") or not hasattr(series, "crs"):
        raise DataError(
            f"geometry is a {type(geometry).__name__}",
            expected="a GeoSeries or GeoDataFrame",
            todo='make one with geopandas.GeoSeries(geopandas.points_from_xy(lon, lat, crs="EPSG:4326"))',
        )
    if series.crs is None:
        raise DataError(
            "the geometries have no coordinate reference system",
            todo='set it with geometry.set_crs("EPSG:4326") where they are longitudes and latitudes',
        )
    bad = np.asarray(series.isna() | series.is_empty)
    if bad.any():
        raise DataError(
            f"{_several(bad.sum(), 'unit')} without a geometry: {_labels(series.index[bad])}",
            todo="drop them or look up their coordinates",
        )
    is_point = np.asarray(series.geom_type == "Point")
    return series if is_point.all() else series.representative_point().where(~is_point, series)


def project(x: FloatArray, y: FloatArray, source: str, target: str) -> tuple[FloatArray, FloatArray]:
    """Coordinates in another CRS, both as WKT; not finite where they cannot be brought there."""
    px, py = _transformer(source, target).transform(x, y)
    return np.asarray(px), np.asarray(py)


def project_bounds(bounds: tuple[float, ...], source: str, target: str) -> tuple[float, float, float, float]:
    """Left, bottom, right, top in another CRS, both as WKT, of all within bounds; not finite where it has none."""
    left, bottom, right, top = bounds[:4]
    return _transformer(source, target).transform_bounds(left, bottom, right, top)  # type: ignore[no-any-return]


def same_affine(a: tuple[float, ...], b: tuple[float, ...], shape: tuple[int, int], tolerance: float = 1e-3) -> bool:
    """Whether two transforms agree over a raster of this shape, to a fraction of a pixel."""
    if a == b:
        return True
    scale = np.array([a[0] / shape[1], a[0] / shape[0], a[0], a[4] / shape[1], a[4] / shape[0], a[4]])
    return bool((np.abs(np.subtract(a, b)) <= tolerance * np.abs(scale)).all())


def lonlat(geometry: Any) -> tuple[FloatArray, FloatArray]:
    """Longitudes and latitudes (EPSG:4326) of the representative points, two arrays of shape (n,)."""
    return _project(representative_points(geometry), "EPSG:4326")


def _project(series: Any, target: str) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float)
    px, py = _transformer(series.crs.to_wkt(), target).transform(x, y)
    bad = ~(np.isfinite(px) & np.isfinite(py))
    if bad.any():
        raise DataError(
            f"{_several(bad.sum(), 'unit')} whose coordinates cannot be projected: {_labels(series.index[bad])}"
            f" (the first at {x[bad][0]:g}, {y[bad][0]:g})",
            expected=f"coordinates in {series.crs.name}",
            todo="check that longitude and latitude are not swapped and that the CRS is the right one",
        )
    return np.asarray(px), np.asarray(py)


def _labels(labels: Any, limit: int = 5) -> str:
    text = ", ".join(str(label) for label in labels[:limit])
    return text + (", ..." if len(labels) > limit else "")


def _several(count: int, noun: str) -> str:
    return f"{int(count)} {noun}{'' if count == 1 else 's'}"
