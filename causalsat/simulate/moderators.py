"""What in a chip moves the effect, for every pixel as the chip's centre: exact functions of the cloud-free image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causalsat.exceptions import ParameterError
from causalsat.simulate.fields import box_mean
from causalsat.simulate.landscape import Landscape

Surface = NDArray[np.float64]
KERNEL_PX = 32

#: Names of the covariates of a simulated trial.
COVARIATES = ("age", "female", "schooling", "household_size", "assets", "road_km")


def built_up(land: Landscape, chip_px: int) -> Surface:
    """Chip mean of how far blue reflectance exceeds 0.10 (roofs and yards), square root, mean over dates."""
    dates = range(len(land.dates))
    exceed = np.mean([np.maximum(land.band("blue", d) - 0.10, 0) for d in dates], axis=0)
    return np.sqrt(np.maximum(box_mean(exceed, chip_px), 0) + 1e-3)


def dense_vegetation(land: Landscape, chip_px: int) -> Surface:
    """Chip mean of how far NDVI exceeds 0.5 (forest, standing crops, hedges), mean over dates."""
    dates = range(len(land.dates))
    return box_mean(np.mean([np.maximum(land.ndvi(d) - 0.5, 0) for d in dates], axis=0), chip_px)


def greenness(land: Landscape, chip_px: int) -> Surface:
    """Chip mean of NDVI, mean over dates."""
    return box_mean(np.mean([land.ndvi(d) for d in range(len(land.dates))], axis=0), chip_px)


def greening(land: Landscape, chip_px: int) -> Surface:
    """Chip mean of the last date's NDVI minus the first's."""
    return box_mean(land.ndvi(len(land.dates) - 1) - land.ndvi(0), chip_px)


def estate_majority(land: Landscape, chip_px: int) -> Surface:
    """1.0 where most of the chip is estates, else 0.0."""
    return (box_mean(land.scene.astype(np.float64), chip_px) > 0.5).astype(np.float64)


def bright_ring(land: Landscape, chip_px: int) -> Surface:
    """Largest response within the chip to a fixed 32 x 32 kernel, centre -1 and surround +1, on visible brightness.

    The centre is the middle 16 x 16; responses are those of the kernel's positions that lie wholly in the chip.
    """
    if chip_px < KERNEL_PX + 1:
        raise ParameterError(f"chip_px={chip_px}", expected=f"at least {KERNEL_PX + 1} for the kernel moderator")
    visible = np.mean([land.band(b, d) for b in ("blue", "green", "red") for d in range(len(land.dates))], axis=0)
    response = box_mean(visible, KERNEL_PX) - 2 * 0.25 * box_mean(visible, KERNEL_PX // 2)
    reach = chip_px - KERNEL_PX + 1
    return ndimage.maximum_filter(response, size=reach, origin=0 if reach % 2 else -1, mode="nearest")


def smooth(land: Landscape, chip_px: int, at: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Surface:
    """Built-up density less dense vegetation, each standardised over the places ``at``."""
    return standardise(built_up(land, chip_px), at) - standardise(dense_vegetation(land, chip_px), at)


def standardise(surface: Surface, at: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Surface:
    """Surface shifted and scaled to mean 0 and standard deviation 1 over the pixels ``at`` (rows, columns)."""
    values = surface[at]
    return (surface - values.mean()) / values.std()
