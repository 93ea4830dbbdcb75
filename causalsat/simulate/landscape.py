"""Renders a landscape as a multi-band satellite image: terrain, rivers, parcels, forest, settlements, roads, clouds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causalsat.exceptions import ParameterError
from causalsat.simulate import _cover
from causalsat.simulate._fields import Grid, fractal, hillshade, line_cover, stream

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
NODATA = 0
SCALE = 1e-4
CRS = "EPSG:32636"
_ORIGIN = (420_000.0, 180_000.0)  # easting and northing of the upper-left corner: 33 degrees east, just north of the equator

# surface reflectance by band, round values of the magnitudes that Landsat sees
_SPECTRA = {
    "clear_water": (0.055, 0.050, 0.035, 0.020, 0.012, 0.008),
    "silty_water": (0.080, 0.105, 0.110, 0.060, 0.022, 0.015),
    "red_soil": (0.065, 0.100, 0.165, 0.250, 0.330, 0.270),
    "dark_soil": (0.055, 0.080, 0.105, 0.165, 0.230, 0.190),
    "dry_grass": (0.062, 0.092, 0.120, 0.230, 0.280, 0.185),
    "green_grass": (0.040, 0.075, 0.060, 0.310, 0.200, 0.100),
    "green_crop": (0.032, 0.072, 0.042, 0.430, 0.200, 0.090),
    "ripe_crop": (0.075, 0.115, 0.145, 0.280, 0.310, 0.220),
    "estate_crop": (0.028, 0.068, 0.034, 0.480, 0.170, 0.070),
    "forest": (0.022, 0.045, 0.026, 0.310, 0.130, 0.055),
    "roof": (0.300, 0.335, 0.360, 0.400, 0.420, 0.380),
    "yard": (0.095, 0.135, 0.190, 0.270, 0.340, 0.290),
    "road": (0.110, 0.155, 0.220, 0.290, 0.350, 0.310),
    "cloud": (0.620, 0.620, 0.630, 0.660, 0.500, 0.380),
}


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

    def xy(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eastings and northings of pixel centres."""
        east = _ORIGIN[0] + (np.asarray(cols) + 0.5) * self.resolution_m
        north = _ORIGIN[1] - (np.asarray(rows) + 0.5) * self.resolution_m
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
        white = np.array(_SPECTRA["cloud"], np.float32)[None, :, None, None] / SCALE
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
        Whether fields are opened or abandoned between the first and the last date.
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
    water, moisture = _cover.rivers(stream(seed, "rivers"), elevation)
    elevation -= 14 * moisture
    elevation = ndimage.gaussian_filter(elevation, 1.0)
    slope = np.hypot(*np.gradient(elevation, 30.0)).astype(np.float32)
    allowed = (ndimage.maximum_filter(water, 7) < 0.3) & (slope < np.quantile(slope, 0.93))
    places, sizes = _cover.settlement_points(stream(seed, "settlements"), allowed, 29)
    roofs = _cover.buildings(stream(seed, "buildings"), places, sizes, size_px) * (water < 0.3)
    main, tracks = _cover.roads(places, sizes, slope, water)
    days, dates = _calendar(n_dates, change)
    ground = _Ground(seed, elevation, slope, water, moisture, roofs, main, tracks, scenes)
    frames = [ground.frame(day, k / max(1, n_dates - 1) if change else None) for k, day in enumerate(days)]
    cloud = shadow = None
    if cloud_cover > 0:
        pairs = [_cover.clouds(stream(seed, f"clouds{k}"), size_px, cloud_cover) for k in range(n_dates)]
        cloud, shadow = (np.stack(p) for p in zip(*pairs, strict=True))
    to_road = ndimage.distance_transform_edt(~main) * resolution_m if main.any() else np.zeros_like(water)
    return Landscape(
        np.stack([_sense(f, stream(seed, f"sensor{k}")) for k, f in enumerate(frames)]), dates, places, sizes,
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


class _Ground:
    """Everything that is fixed on the ground; :meth:`frame` paints it at one day."""

    def __init__(
        self, seed: int, elevation: Grid, slope: Grid, water: Grid, moisture: Grid, roofs: Grid,
        main: NDArray[np.bool_], tracks: NDArray[np.bool_], scenes: bool,
    ) -> None:  # fmt: skip
        size = elevation.shape[0]
        self.light = 0.45 + 0.55 * hillshade(elevation * 2.2, 30.0)
        self.water, self.moisture, self.roofs, self.seed = water, moisture, roofs, seed
        self.road = np.maximum(line_cover(main, 1.5) * 0.85, line_cover(tracks, 0.7) * 0.6)
        self.soil = _sigmoid(1.2 * fractal(stream(seed, "soil"), size, 1.8, scale_px=250))
        self.mottle = fractal(stream(seed, "mottle"), size, 0.7, scale_px=12)
        self.scene = np.zeros((size, size), np.int8)
        if scenes:
            field_ = fractal(stream(seed, "scenes"), size, 2.6, scale_px=190)
            self.scene = (field_ > np.median(field_)).astype(np.int8)
        near = ndimage.gaussian_filter(roofs, 11.0)
        self.near = near / (near + 0.06)
        wild = 1.1 * fractal(stream(seed, "forest"), size, 1.5, scale_px=150) + 1.6 * moisture - 1.3 * self.near
        wild += 0.35 * (elevation - elevation.mean()) / elevation.std() + 4.0 * np.clip(slope - 0.12, 0, 0.4)
        self.forest = _sigmoid(6 * (wild - 0.75)) * (1 - self.scene) + 0.0
        self._plant(stream(seed, "parcels"), size)

    def _plant(self, rng: np.random.Generator, size: int) -> None:
        small = _cover.parcels(rng, size, 7.5, warp_px=9.0)
        farmed = _parcel_mean(small, 0.15 + 0.75 * self.near)
        self.small, self.cropped = small, rng.random(small.n) < farmed
        self.peak = rng.normal(176, 27, small.n)
        self.vigour = rng.uniform(0.65, 1.0, small.n)
        self.tint = rng.normal(0, 0.06, small.n)
        self.fallow_green = rng.uniform(0.15, 0.55, small.n)
        trend = fractal(stream(self.seed, "change"), size, 1.6, scale_px=42)
        push, luck = _parcel_mean(small, trend), rng.random(small.n)
        opened = ~self.cropped & (luck < 0.03 + 0.22 * np.maximum(push, 0))
        closed = self.cropped & (luck < 0.03 + 0.22 * np.maximum(-push, 0))
        self.flips, self.flip_at = opened | closed, rng.uniform(0, 1, small.n)
        large = _cover.parcels(rng, size, 24.0, warp_px=0.0, stretch=1.3)
        self.large, self.large_vigour = large, rng.uniform(0.75, 1.0, large.n)

    def frame(self, day: float, progress: float | None) -> Grid:
        """Reflectance (band, size, size) at a day of the year; ``progress`` 0..1 of the change, None without."""
        wet = float(0.5 + 0.5 * np.cos((day - 150) / 365 * 2 * np.pi))
        soil = _mix(_paint("dark_soil"), _paint("red_soil"), self.soil)
        green = np.clip(0.15 + 0.55 * wet + 0.5 * self.moisture + 0.10 * self.mottle, 0, 1)
        image = _mix(soil, _mix(_paint("dry_grass"), _paint("green_grass"), green), np.clip(0.72 + 0.1 * self.mottle, 0, 1))
        image = self._fields(image, soil, day, progress)
        image = _mix(image, _paint("forest") * (1 + 0.16 * self.mottle), self.forest)
        yard = 1 - np.exp(-0.55 * ndimage.gaussian_filter(self.roofs, 1.3))
        image = _mix(image, _paint("yard"), 0.8 * yard)
        image = _mix(image, _paint("road"), self.road)
        image = _mix(image, _paint("roof"), 1 - np.exp(-0.20 * self.roofs))
        image = image * self.light * (1 + 0.03 * self.mottle)
        return _mix(image, _mix(_paint("clear_water"), _paint("silty_water"), wet * np.ones_like(self.water)), self.water)

    def _fields(self, image: Grid, soil: Grid, day: float, progress: float | None) -> Grid:
        cropped = self.cropped
        if progress is not None:
            cropped = np.where(self.flips & (self.flip_at < progress), ~cropped, cropped)
        grown = self.vigour * np.exp(-(((day - self.peak) / 48) ** 2))
        ripe = _sigmoid((day - self.peak - 25) / 9) * _sigmoid((self.peak + 110 - day) / 12)
        label = self.small.label
        bright = (1 + self.tint)[label]
        crop = _mix(soil * 1.05, _paint("ripe_crop"), ripe[label] * 0.8)
        crop = _mix(crop, _paint("green_crop"), np.clip(grown[label], 0, 1)) * bright
        image = _mix(image, crop, cropped[label] * np.float32(0.92))
        hedge = np.clip(1.0 - self.small.edge, 0, 1) * (0.25 + 0.4 * cropped[label])
        image = _mix(image, _paint("forest") * 1.25, hedge * 0.7)
        if self.scene.any():
            label = self.large.label
            block = _mix(soil, _paint("estate_crop"), self.large_vigour[label] * (0.92 + 0.03 * self.mottle))
            block = _mix(block, _paint("road"), 0.7 * np.clip(1.2 - self.large.edge, 0, 1))
            image = _mix(image, block, self.scene.astype(np.float32))
        return image


def _sense(image: Grid, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Blur by the sensor's point spread, haze, noise, and rounding to digital numbers."""
    haze = np.array((0.018, 0.010, 0.005, 0.001, 0.0, 0.0), np.float32)[:, None, None]
    seen = np.stack([ndimage.gaussian_filter(band, 0.5) for band in image]) + haze
    seen += rng.normal(0, 0.0025, seen.shape).astype(np.float32)
    return np.clip(np.rint(seen / SCALE), 1, 65535).astype(np.uint16)


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
        Shown as black and as full colour, over the pixels that are not 0 (no data).
    """
    frame = image.isel(time=date) if "time" in image.dims else image
    values = frame.sel(band=list(bands)).values.astype(np.float32)
    valid = (values > 0).all(axis=0)
    low, high = np.percentile(values[:, valid], percentiles, axis=1)
    shown = (values - low[:, None, None]) / (high - low)[:, None, None]
    return np.moveaxis(np.clip(shown, 0, 1) * valid, 0, -1).astype(np.float32)


def _paint(name: str) -> Grid:
    return np.array(_SPECTRA[name], np.float32)[:, None, None]


def _mix(below: Grid, above: Grid, share: NDArray[np.floating]) -> Grid:
    return below + share.astype(np.float32) * (above - below)


def _sigmoid(x: NDArray[np.floating]) -> Grid:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def _parcel_mean(parcels: _cover.Parcels, values: NDArray[np.floating]) -> NDArray[np.float64]:
    label = parcels.label.ravel()
    count = np.bincount(label, minlength=parcels.n)
    return np.bincount(label, values.ravel(), minlength=parcels.n) / np.maximum(count, 1)
