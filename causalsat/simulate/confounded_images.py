"""Observational studies in which the image holds the confounder: two benchmarks with a known effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from causalsat.exceptions import ParameterError
from causalsat.simulate.fields import stream

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ConfoundedImages", "antidiagonal_maximum", "colour_confounding", "kernel_confounding", "natural_images"]

FloatArray = NDArray[np.float64]
Images = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ConfoundedImages:
    """Units, each with an image of its own, whose treatment and outcome both depend on the image.

    Attributes
    ----------
    images : ndarray of shape (n, band, y, x), float32
        One image a unit.
    treatment, outcome : ndarray of shape (n,)
        Treatment (0.0 or 1.0) and outcome.
    covariates : mapping of str to ndarray of shape (n,)
        Observed covariates; empty where there are none.
    confounder : ndarray of shape (n,)
        What of the image moves treatment and outcome; a model never sees it.
    propensity : ndarray of shape (n,)
        True probability of treatment.
    effect : float
        True effect, the same for every unit.
    noise_sd : float
        Standard deviation of the outcome's noise.
    """

    images: Images = field(repr=False)
    treatment: FloatArray = field(repr=False)
    outcome: FloatArray = field(repr=False)
    covariates: Mapping[str, FloatArray] = field(repr=False)
    confounder: FloatArray = field(repr=False)
    propensity: FloatArray = field(repr=False)
    effect: float
    noise_sd: float

    def chips(self) -> xr.DataArray:
        """Images as a DataArray (unit, band, y, x) with the covariates as coordinates along the units."""
        import xarray as xr

        bands = ["red", "green", "blue"] if self.images.shape[1] == 3 else ["b0"]
        coords: dict[str, Any] = {name: ("unit", values) for name, values in self.covariates.items()}
        return xr.DataArray(self.images, dims=("unit", "band", "y", "x"), coords={"band": bands, **coords})

    def naive(self) -> float:
        """Difference in means of treated and control outcomes."""
        return float(self.outcome[self.treatment > 0].mean() - self.outcome[self.treatment == 0].mean())


def colour_confounding(
    n: int = 1000, size_px: int = 64, *, gradient: float = 0.05, seed: int = 0
) -> ConfoundedImages:
    """Images whose red level is a confounder, beside two observed ones.

    C, X1 and X2 are independent N(0, 1), the treatment has log-odds C + X1 + X2, and the outcome is
    ``2 W + C + X1 + X2 + N(0, 1)``. The red band is C rescaled to [0, 1], the same at every pixel; green and blue
    are constants drawn from U(0, 1); all have a gradient along the rows. The difference in means is biased by about
    2.

    Parameters
    ----------
    n : int
        Number of units.
    size_px : int
        Side of the images.
    gradient : float
        Difference of the last row from the first.
    seed : int
        Same seed, same data.

    Examples
    --------
    >>> data = colour_confounding(400, 16)
    >>> data.images.shape, sorted(data.covariates), data.effect
    ((400, 3, 16, 16), ['x1', 'x2'], 2.0)
    >>> bool(1.5 < data.naive() - data.effect < 2.7)
    True
    """
    _check(n, size_px)
    rng = stream(seed, "colour confounding")
    hidden, x1, x2 = rng.standard_normal((3, n))
    level = np.column_stack([(hidden - hidden.min()) / np.ptp(hidden), rng.random((n, 2))]).astype(np.float32)
    rows = np.linspace(-gradient / 2, gradient / 2, size_px, dtype=np.float32)
    images = np.broadcast_to(level[:, :, None, None] + rows[:, None], (n, 3, size_px, size_px)).copy()
    index = hidden + x1 + x2
    chance = 1 / (1 + np.exp(-index))
    treatment = (rng.random(n) < chance).astype(float)
    outcome = 2.0 * treatment + index + rng.standard_normal(n)
    return ConfoundedImages(images, treatment, outcome, {"x1": x1, "x2": x2}, hidden, chance, 2.0, 1.0)


def kernel_confounding(
    width: int = 8, n: int = 500, size_px: int = 256, *, images: Images | None = None, seed: int = 0
) -> ConfoundedImages:
    """Images whose brightest anti-diagonal streak of some width is the confounder.

    U is the maximum over the image of its convolution with an anti-diagonal kernel (:func:`antidiagonal_maximum`),
    standardised over the images. With V, E ~ N(0, 0.1^2) the treatment has the probability
    1 / (1 + exp(-(U + V))) and the outcome is ``U + W + E``. There are no covariates.

    Parameters
    ----------
    width : int
        Width of the kernel in pixels.
    n, size_px : int
        Number and side of the images, of one band; see :func:`natural_images`.
    images : ndarray of shape (n, 1, size_px, size_px), optional
        Use these and do not draw any; :func:`redraw` draws treatment and outcome anew.
    seed : int
        Same seed, same data.

    Examples
    --------
    >>> data = kernel_confounding(4, 200, 32)
    >>> data.images.shape, data.effect
    ((200, 1, 32, 32), 1.0)
    >>> bool(data.naive() > 1.4)
    True
    """
    _check(n if images is None else len(images), size_px)
    if images is None:
        images = natural_images(n, size_px, seed=seed)
    raw = antidiagonal_maximum(images[:, 0], width)
    hidden = (raw - raw.mean()) / raw.std()
    blank = np.zeros(len(images))
    return redraw(ConfoundedImages(images, blank, blank, {}, hidden, blank, 1.0, 0.1), seed)


def redraw(data: ConfoundedImages, seed: int) -> ConfoundedImages:
    """The images of :func:`kernel_confounding` with treatment and outcome drawn anew.

    Examples
    --------
    >>> data = kernel_confounding(4, 50, 32)
    >>> again = redraw(data, 1)
    >>> again.images is data.images, bool((again.outcome == data.outcome).any())
    (True, False)
    """
    rng, n = stream(seed, "kernel confounding"), len(data.images)
    chance = 1 / (1 + np.exp(-(data.confounder + 0.1 * rng.standard_normal(n))))
    treatment = (rng.random(n) < chance).astype(float)
    outcome = data.confounder + data.effect * treatment + data.noise_sd * rng.standard_normal(n)
    return replace(data, treatment=treatment, outcome=outcome, propensity=chance)


def natural_images(n: int, size_px: int = 256, *, seed: int = 0) -> Images:
    """Random images with the spectrum of natural scenes, shape (n, 1, size_px, size_px).

    Amplitudes fall as 1 / frequency, which gives each octave the same variance (Field 1987, "Relations between the
    statistics of natural images and the response properties of cortical cells"). Each image is cut from a field of
    its own of twice the side, so that images differ in brightness as neighbouring scenes do.

    Examples
    --------
    >>> natural_images(3, 32).shape
    (3, 1, 32, 32)
    """
    rng, side = stream(seed, "natural images"), 2 * size_px
    frequency = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None, :])
    frequency[0, 0] = np.inf
    amplitude = (1 / frequency).astype(np.float32)
    # standard deviation of the field: each of its modes by its amplitude, conjugate modes counted twice
    twice = np.full(amplitude.shape[1], 2.0)
    twice[0] = twice[-1] = 1.0
    scale = np.float32(np.sqrt((amplitude.astype(float) ** 2 * twice).sum()) / side)
    images = np.empty((n, 1, size_px, size_px), dtype=np.float32)
    for i in range(n):
        noise = fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
        images[i, 0] = fft.irfft2(noise * amplitude, s=(side, side))[:size_px, :size_px] / scale
    return images


def antidiagonal_maximum(images: NDArray[np.floating], width: int) -> FloatArray:
    """Maximum over each image (n, y, x) of its convolution with an anti-diagonal line of ones, shape (n,).

    The kernel is ``width`` x ``width`` and lies wholly in the image.

    Examples
    --------
    >>> antidiagonal_maximum(np.array([[[0.0, 3.0], [4.0, 9.0]]]), 2)
    array([7.])
    """
    n, rows, cols = images.shape
    if not 1 <= width <= min(rows, cols):
        raise ParameterError(f"width={width} for images of {rows} x {cols} pixels", expected="1 to the images' side")
    height, length = rows - width + 1, cols - width + 1
    total = np.zeros((n, height, length), dtype=images.dtype)
    for j in range(width):
        total += images[:, j : j + height, width - 1 - j : width - 1 - j + length]
    return np.asarray(total.max(axis=(1, 2)), dtype=float)


def _check(n: int, size_px: int) -> None:
    if n < 4 or size_px < 2:
        raise ParameterError(f"n={n}, size_px={size_px}", expected="n at least 4, size_px at least 2")
