"""Renders a landscape as a multi-band image: terrain, rivers, parcels, forest, settlements, roads, clouds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causalsat.exceptions import ParameterError
from causalsat.simulate import cover
from causalsat.simulate.fields import Grid, fractal, stream
from causalsat.simulate.ground import BANDS, SCALE, SPECTRA, Ground, sense

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

NODATA = 0
CRS = "EPSG:32636"
_ORIGIN = (
    420_000.0,
    180_000.0,
)  # easting and northing of the upper-left corner: 33 degrees east, just north of the equator


@dataclass(frozen=True)
class Landscape:
    """A rendered landscape; what trials are laid upon.

    Attributes
    ----------
    reflectance : ndarray of uint16 of shape (time, band, size, size)
        Surface reflectance times 10,000 without clouds; never 0, which stands for no data.
    dates : tuple of numpy.datetime64[D]
        One for each time.
    settlements : ndarray of int of shape (n, 2)
        Row and column of each settlement's centre.
    buildings : ndarray of shape (n,)
        Expected number of buildings of each.
    elevation : ndarray of shape (size, size)
        Metres above the sea.
    road_distance : ndarray of shape (size, size)
        Metres to the next main road.
    land : ndarray of bool of shape (size, size)
        True where it is not water.
    scene : ndarray of int8 of shape (size, size)
        Scene type of every pixel: 0 smallholdings, 1 estates; all 0 unless ``scenes``.
    cloud, shadow : ndarray of shape (time, size, size), or None
        Opacity of clouds and depth of their shadows, 0 to 1.
    resolution_m : float
        Metres per pixel.
    seed : int
        The seed it was rendered from.
    """

    reflectance: NDArray[np.uint16] = field(repr=False)
    dates: tuple[np.datetime64, ...]
    settlements: NDArray[np.int64] = field(repr=False)
    buildings: NDArray[np.float64] = field(repr=False)
    elevation: Grid = field(repr=False)
    road_distance: Grid = field(repr=False)
    land: NDArray[np.bool_] = field(repr=False)
    scene: NDArray[np.int8] = field(repr=False)
    cloud: Grid | None = field(repr=False)
    shadow: Grid | None = field(repr=False)
    resolution_m: float
    seed: int

    bands = BANDS
    crs = CRS

    @property
    def size_px(self) -> int:
        """Side of the square landscape in pixels."""
        return int(self.reflectance.shape[-1])

    def band(self, name: str, date: int = 0) -> NDArray[np.float64]:
        """Cloud-free reflectance (0..1) of one band at one date, shape (size, size)."""
        return self.reflectance[date, BANDS.index(name)] * SCALE

    def ndvi(self, date: int = 0) -> NDArray[np.float64]:
        """Normalised difference vegetation index of one date, shape (size, size)."""
        nir, red = self.band("nir", date), self.band("red", date)
        return (nir - red) / (nir + red)

    def xy(self, rows: NDArray[Any], cols: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eastings and northings of pixel centres."""
        east: NDArray[np.float64] = _ORIGIN[0] + (np.asarray(cols) + 0.5) * self.resolution_m
        north: NDArray[np.float64] = _ORIGIN[1] - (np.asarray(rows) + 0.5) * self.resolution_m
        return east, north

    def points(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> gpd.GeoSeries:
        """Pixel centres as points with the landscape's CRS."""
        import geopandas as gpd

        east, north = self.xy(rows, cols)
        return gpd.GeoSeries(gpd.points_from_xy(east, north), crs=CRS)

    def grid(self, values: NDArray[Any], name: str) -> xr.DataArray:
        """Wrap an array (..., size, size) as a DataArray with coordinates and CRS."""
        import rioxarray  # noqa: F401  (registers .rio)
        import xarray as xr

        index = np.arange(self.size_px)
        east, north = self.xy(index, index)
        lead = ("time", "band")[2 - (values.ndim - 2) :]
        array = xr.DataArray(values, dims=(*lead, "y", "x"), coords={"y": north, "x": east}, name=name)
        return array.rio.write_crs(CRS)

    def imagery(self, clouds: str | None = None) -> xr.DataArray:
        """Image as DataArray of uint16, (band, y, x), or (time, band, y, x) if there are several dates.

        Parameters
        ----------
        clouds : {None, "qa", "nodata"}
            None leaves clouds out. "qa" shows clouds and their shadows and adds the band ``qa`` (1 clear, 2 cloud,
            3 shadow). "nodata" sets pixels under cloud or shadow to 0.
        """
        values, bands = self.reflectance, BANDS
        if clouds is not None:
            if clouds not in ("qa", "nodata"):
                raise ParameterError(f"clouds={clouds!r}", expected='None, "qa" or "nodata"')
            values, bands = self._with_clouds(clouds)
        single = len(self.dates) == 1
        array = self.grid(values[0] if single else values, "reflectance")
        array = array.assign_coords(band=list(bands)).rio.write_nodata(NODATA)
        if single:
            array = array.assign_coords(time=self.dates[0].astype("datetime64[ns]"))
        else:
            array = array.assign_coords(time=np.array(self.dates, dtype="datetime64[ns]"))
        array.attrs.update(units="surface reflectance x 10000", long_name=list(bands))
        return array

    def _with_clouds(self, how: str) -> tuple[NDArray[np.uint16], tuple[str, ...]]:
        if self.cloud is None or self.shadow is None:
            raise ParameterError(
                "the landscape has no clouds", expected="one rendered with cloud_cover > 0", todo="set cloud_cover"
            )
        hidden = np.where(self.cloud > 0.15, 2, np.where(self.shadow > 0.25, 3, 1)).astype(np.uint16)
        if how == "nodata":
            return np.where((hidden > 1)[:, None], NODATA, self.reflectance).astype(np.uint16), BANDS
        white = np.array(SPECTRA["cloud"], np.float32)[None, :, None, None] / SCALE
        seen = self.reflectance * (1 - 0.55 * self.shadow[:, None])
        seen += self.cloud[:, None] * (white * (0.8 + 0.2 * self.cloud[:, None]) - seen)
        seen = np.clip(np.rint(seen), 1, 65535).astype(np.uint16)
        return np.concatenate([seen, hidden[:, None]], axis=1), (*BANDS, "qa")


def render_landscape(
    size_px: int = 768,
    *,
    n_dates: int = 1,
    resolution_m: float = 30.0,
    scenes: bool = False,
    change: bool = False,
    cloud_cover: float = 0.0,
    seed: int = 0,
) -> Landscape:
    """Render a landscape.

    Features have their size in pixels (parcels of about 8 x 12, settlements some 30 apart), so ``resolution_m``
    sets the georeference and the slope of the terrain, not how much lies in the picture.

    Parameters
    ----------
    size_px : int
        Side of the square image, at least 128.
    n_dates : int
        Number of dates; 75 days apart in one season, or one year apart if ``change``.
    resolution_m : float
        Metres per pixel.
    scenes : bool
        Whether parts of the land are estates of large, regular, uniform fields instead of smallholdings.
    change : bool
        Whether trees on farmland thicken in some parts and thin out in others from the first to the last date.
    cloud_cover : float
        Share of each date under cloud, 0 to 0.9.
    seed : int
        Same seed, same landscape to the bit.

    Examples
    --------
    >>> land = render_landscape(128, seed=1)
    >>> land.reflectance.shape, land.bands[3]
    ((1, 6, 128, 128), 'nir')
    """
    _check(size_px, n_dates, resolution_m, change, cloud_cover)
    terrain = fractal(stream(seed, "terrain"), size_px, 2.1, scale_px=450)
    elevation = (1150 + 45 * terrain + 28 * np.abs(fractal(stream(seed, "ridges"), size_px, 1.9, scale_px=200))) * 1.0
    elevation = elevation.astype(np.float32)
    water, moisture = cover.rivers(stream(seed, "rivers"), elevation)
    elevation -= 14 * moisture
    elevation = ndimage.gaussian_filter(elevation, 1.0)
    slope = np.hypot(*np.gradient(elevation, 30.0)).astype(np.float32)
    allowed = (ndimage.maximum_filter(water, 7) < 0.3) & (slope < np.quantile(slope, 0.93))
    places, sizes = cover.settlement_points(stream(seed, "settlements"), allowed, 29)
    roofs = cover.buildings(stream(seed, "buildings"), places, sizes, size_px) * (water < 0.3)
    main, tracks = cover.roads(stream(seed, "roads"), places, sizes, slope, water)
    days, dates = _calendar(n_dates, change)
    ground = Ground(seed, elevation, slope, water, moisture, roofs, main, tracks, scenes)
    if change:
        ground.plan_change(days[0], places, stream(seed, "change"))
    frames = [ground.frame(day, ground.trees_at(k / max(1, n_dates - 1))) for k, day in enumerate(days)]
    cloud: Grid | None = None
    shadow: Grid | None = None
    if cloud_cover > 0:
        pairs = [cover.clouds(stream(seed, f"clouds{k}"), size_px, cloud_cover) for k in range(n_dates)]
        cloud, shadow = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
    to_road = ndimage.distance_transform_edt(~main) * resolution_m if main.any() else np.zeros_like(water)
    return Landscape(
        np.stack([sense(f, stream(seed, f"sensor{k}")) for k, f in enumerate(frames)]), dates, places, sizes,
        elevation, to_road.astype(np.float32), water < 0.5, ground.scene, cloud, shadow, float(resolution_m), seed,
    )  # fmt: skip


def _check(size_px: int, n_dates: int, resolution_m: float, change: bool, cloud_cover: float) -> None:
    if size_px < 128:
        raise ParameterError(f"size_px={size_px}", expected="at least 128 pixels")
    if n_dates < (2 if change else 1):
        raise ParameterError(f"n_dates={n_dates}", expected="at least 2 for change, 1 otherwise")
    if not resolution_m > 0:
        raise ParameterError(f"resolution_m={resolution_m}", expected="a positive number of metres")
    if not 0 <= cloud_cover <= 0.9:
        raise ParameterError(f"cloud_cover={cloud_cover}", expected="a share between 0 and 0.9")


def _calendar(n_dates: int, change: bool) -> tuple[list[float], tuple[np.datetime64, ...]]:
    """Days of the year (for the phenology) and dates; scenes of a change study are anniversaries."""
    start = np.datetime64("2015-06-20", "D")
    if change:
        dates = tuple(np.datetime64(f"{2015 + k}-06-20", "D") for k in range(n_dates))
        return [171.0] * n_dates, dates
    dates = tuple(start + np.timedelta64(75 * k, "D") for k in range(n_dates))
    return [171.0 + 75 * k for k in range(n_dates)], dates


def rgb(
    image: xr.DataArray,
    bands: tuple[str, str, str] = ("red", "green", "blue"),
    *,
    date: int = 0,
    percentiles: tuple[float, float] = (1.0, 99.0),
) -> Grid:
    """Array (y, x, 3) of floats in 0..1 for display, each band stretched between two percentiles.

    Parameters
    ----------
    image : xarray.DataArray
        ([time,] band, y, x) with band names.
    bands : tuple of str
        Shown as red, green and blue; ``("nir", "red", "green")`` for the usual false colour.
    date : int
        Position of the date, if there are several.
    percentiles : tuple of float
        Shown as black and as full colour, over the pixels that are not 0 (no data) nor, where there
        is a band ``qa``, under cloud or shadow.
    """
    frame = image.isel(time=date) if "time" in image.dims else image
    values = frame.sel(band=list(bands)).values.astype(np.float32)
    valid = (values > 0).all(axis=0)
    clear = valid & (frame.sel(band="qa").values == 1) if "qa" in frame.band else valid
    low, high = np.percentile(values[:, clear], percentiles, axis=1)
    shown = (values - low[:, None, None]) / (high - low)[:, None, None]
    return np.moveaxis(np.clip(shown, 0, 1) * valid, 0, -1).astype(np.float32)
