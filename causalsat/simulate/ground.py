"""The ground of a landscape and how a sensor sees it: reflectance spectra, phenology, composition, noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causalsat.simulate import cover
from causalsat.simulate.fields import Grid, box_mean, fractal, hillshade, line_cover, stream

BANDS: tuple[str, ...] = ("blue", "green", "red", "nir", "swir1", "swir2")
SCALE = 1e-4

# surface reflectance by band, round values of the magnitudes that Landsat sees
SPECTRA = {
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


class Ground:
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
        small = cover.parcels(rng, size, 7.5, warp_px=9.0)
        farmed = _parcel_mean(small, 0.15 + 0.75 * self.near)
        self.small, self.cropped = small, rng.random(small.n) < farmed
        self.trees, self.shift = np.zeros(small.n), np.zeros(small.n)
        self.peak = rng.normal(176, 27, small.n)
        self.vigour = rng.uniform(0.65, 1.0, small.n)
        self.tint = rng.normal(0, 0.06, small.n)
        self.fallow_green = rng.uniform(0.15, 0.55, small.n)
        large = cover.parcels(rng, size, 15.0, warp_px=2.5, stretch=1.9, jitter=0.06)
        self.large, self.large_vigour = (
            large,
            np.where(rng.random(large.n) < 0.12, 0.25, rng.uniform(0.7, 1.0, large.n)),
        )

    def plan_change(self, day: float, places: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Let trees on farmland thicken in some parts and thin out in others, so that no single date tells where.

        Change within a chip must correlate with the last date less the first. Half of it lies on either side of the
        mean state, and a small slope of the trend on greenness, chosen here, shares the correlation evenly between
        the first and the last date.
        """
        label, at = self.small.label, (places[:, 0], places[:, 1])
        self.trees = rng.uniform(0.14, 0.46, self.small.n)
        few, more = (_ndvi(self.frame(day, self.trees + step)) for step in (-0.05, 0.05))
        green, per_tree = box_mean(few + more, 32) / 2, (more - few) / 0.1
        scaled = (green - green.mean()) / green.std()
        trend, uneven = fractal(rng, len(label), 1.6, scale_px=42), rng.normal(0, 0.05, self.small.n)
        best = np.inf
        for slope in np.linspace(-0.3, 0.3, 25):
            shift = np.clip(0.055 * _parcel_mean(self.small, trend - slope * scaled) + uneven, -0.28, 0.28)
            gain = box_mean(shift[label] * per_tree, 32)[at]
            middle = green[at]
            tilt = abs(sum(np.corrcoef(middle + half * gain, gain)[0, 1] for half in (-0.5, 0.5)))
            if tilt < best:
                best, self.shift = tilt, shift

    def trees_at(self, progress: float) -> NDArray[np.float64]:
        """Share of each parcel under trees when ``progress`` (0..1) of the change has happened."""
        return self.trees + (progress - 0.5) * self.shift

    def frame(self, day: float, trees: NDArray[np.float64]) -> Grid:
        """Reflectance (band, size, size) at a day of the year, given the parcels' shares under trees."""
        wet = float(0.5 + 0.5 * np.cos((day - 150) / 365 * 2 * np.pi))
        soil = _mix(_paint("dark_soil"), _paint("red_soil"), self.soil)
        green = np.clip(0.15 + 0.55 * wet + 0.5 * self.moisture + 0.10 * self.mottle, 0, 1)
        image = _mix(
            soil, _mix(_paint("dry_grass"), _paint("green_grass"), green), np.clip(0.72 + 0.1 * self.mottle, 0, 1)
        )
        image = self._fields(image, soil, day, trees)
        image = _mix(image, _paint("forest") * (1 + 0.16 * self.mottle), self.forest)
        yard = 1 - np.exp(-0.55 * ndimage.gaussian_filter(self.roofs, 1.3))
        image = _mix(image, _paint("yard"), 0.8 * yard)
        image = _mix(image, _paint("road"), self.road)
        image = _mix(image, _paint("roof"), 1 - np.exp(-0.20 * self.roofs))
        image = image * self.light * (1 + 0.03 * self.mottle)
        return _mix(
            image, _mix(_paint("clear_water"), _paint("silty_water"), wet * np.ones_like(self.water)), self.water
        )

    def _fields(self, image: Grid, soil: Grid, day: float, trees: NDArray[np.float64]) -> Grid:
        grown = self.vigour * np.exp(-(((day - self.peak) / 48) ** 2))
        ripe = _sigmoid((day - self.peak - 25) / 9) * _sigmoid((self.peak + 110 - day) / 12)
        label = self.small.label
        bright = (1 + self.tint[label]).astype(np.float32)
        crop = _mix(soil * 1.05, _paint("ripe_crop"), ripe[label] * 0.8)
        crop = _mix(crop, _paint("green_crop"), np.clip(grown[label], 0, 1)) * bright
        image = _mix(image, crop, self.cropped[label] * np.float32(0.92))
        hedge = np.clip(1.0 - self.small.edge, 0, 1) * (0.25 + 0.4 * self.cropped[label])
        image = _mix(image, _paint("forest") * 1.25, hedge * 0.7)
        if self.trees.any():
            image = _mix(image, _paint("forest") * 1.25, trees[label])
        if self.scene.any():
            label = self.large.label
            block = _mix(soil, _paint("estate_crop"), self.large_vigour[label] * (0.92 + 0.03 * self.mottle))
            block = _mix(block, _paint("road"), 0.45 * np.clip(0.9 - self.large.edge, 0, 1))
            image = _mix(image, block, self.scene.astype(np.float32))
        return image


def sense(image: Grid, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Blur by the sensor's point spread, haze, noise, and rounding to digital numbers."""
    haze = np.array((0.018, 0.010, 0.005, 0.001, 0.0, 0.0), np.float32)[:, None, None]
    seen = np.stack([ndimage.gaussian_filter(band, 0.5) for band in image]) + haze
    seen += rng.normal(0, 0.0025, seen.shape).astype(np.float32)
    return np.clip(np.rint(seen / SCALE), 1, 65535).astype(np.uint16)


def _paint(name: str) -> Grid:
    return np.array(SPECTRA[name], np.float32)[:, None, None]


def _mix(below: Grid, above: Grid, share: NDArray[Any]) -> Grid:
    return np.asarray(below + share.astype(np.float32) * (above - below), dtype=np.float32)


def _sigmoid(x: NDArray[np.floating]) -> Grid:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def _ndvi(image: Grid) -> Grid:
    red, nir = image[BANDS.index("red")], image[BANDS.index("nir")]
    return (nir - red) / (nir + red)


def _parcel_mean(parcels: cover.Parcels, values: NDArray[np.floating]) -> NDArray[np.float64]:
    label = parcels.label.ravel()
    count = np.bincount(label, minlength=parcels.n)
    return np.bincount(label, values.ravel(), minlength=parcels.n) / np.maximum(count, 1)
