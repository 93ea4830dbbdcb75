"""Pictures of a chip and of what in it moved a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.exceptions import DataError
from causalsat.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["show_image", "show_salience", "stretch"]


def stretch(chip: ArrayLike, bands: ArrayLike | None = None) -> NDArray[np.float64]:
    """Bands of a chip (band, y, x) stretched to 0..1 between their 2nd and 98th percentiles, (y, x, bands).

    Invalid pixels are white.

    Examples
    --------
    >>> stretch(np.arange(12.0).reshape(1, 3, 4)).shape
    (3, 4, 1)
    """
    pixels = np.asarray(chip, dtype=float)
    if pixels.ndim != 3:
        raise DataError(f"a chip of shape {pixels.shape}", expected="(band, y, x)")
    if bands is not None:
        pixels = pixels[np.asarray(bands)]
    valid = np.isfinite(pixels).all(axis=0)
    if not valid.any():
        return np.ones((*valid.shape, len(pixels)))
    low, high = np.quantile(pixels[:, valid], [0.02, 0.98], axis=1)
    scale = np.where(high > low, high - low, 1.0)
    out = np.clip((pixels - low[:, None, None]) / scale[:, None, None], 0, 1)
    return np.asarray(np.where(valid, out, 1.0).transpose(1, 2, 0))


def show_image(chip: ArrayLike, *, bands: ArrayLike | None = None, ax: Any = None) -> Axes:
    """Draw a chip (band, y, x): three bands in colour, or one in grey.

    Parameters
    ----------
    chip : array of shape (band, y, x)
        Pixels, NaN where invalid.
    bands : array of three or one int, optional
        Which bands; the first three, or the first.
    ax : matplotlib Axes, optional
        Where to draw.
    """
    ax = style.new_axes(ax, (3.0, 3.0))
    n_bands = np.shape(chip)[0]
    chosen = (np.arange(3) if n_bands >= 3 else np.arange(1)) if bands is None else np.asarray(bands)
    picture = stretch(chip, chosen)
    ax.imshow(picture if picture.shape[2] == 3 else picture[:, :, 0], cmap="gray", vmin=0, vmax=1)
    ax.axis("off")
    return ax  # type: ignore[no-any-return]


def show_salience(attribution: ArrayLike, *, smooth_px: float = 2.0, ax: Any = None) -> Axes:
    """Draw contributions of pixels, summed over bands: blue raises, red lowers, deeper is more.

    Parameters
    ----------
    attribution : array of shape (band, y, x)
        What :meth:`causalsat.ImageEffectClusters.salience` gives for one unit.
    smooth_px : float
        Standard deviation of a Gaussian filter, in pixels.
    ax : matplotlib Axes, optional
        Where to draw.
    """
    from scipy.ndimage import gaussian_filter

    ax = style.new_axes(ax, (3.0, 3.0))
    total = gaussian_filter(np.asarray(attribution, dtype=float).sum(axis=0), smooth_px)
    most = float(np.quantile(np.abs(total), 0.99)) or 1.0
    ax.imshow(total, cmap="RdBu", vmin=-most, vmax=most)
    ax.axis("off")
    return ax  # type: ignore[no-any-return]
