"""The pixel grid of a source: CRS, transform, shape, and the way from geometries to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError

from causalsat.exceptions import DataError, ImageryError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

__all__ = ["Grid", "lonlat", "make_grid", "representative_points"]

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
        scale = np.array([1, 1, self.affine[0], 1, 1, self.affine[0]])
        limit = tolerance * np.abs(scale) * np.array([self.affine[0]] * 2 + [1] + [self.affine[0]] * 2 + [1])
        limit[[0, 1, 3, 4]] /= max(self.shape)
        if (np.abs(np.subtract(self.affine, other.affine)) > limit).any():
            return f"its grid is shifted or scaled: transform {other.affine} and not {self.affine}"
        return None


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
    a, b, c, d, e, f = (float(v) for v in tuple(transform)[:6])
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
