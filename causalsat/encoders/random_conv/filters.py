"""Random convolutional filters: patches of the training imagery, whitened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ImageryError

__all__ = ["FilterBank", "learn_filters", "sample_patches"]


@dataclass(frozen=True)
class FilterBank:
    """Filters of one patch size; the response to a patch x is ``weight @ x + offset``.

    Attributes
    ----------
    weight : ndarray of shape (filters, band, patch, patch), float32
        Filters on standardised bands, the whitening folded in.
    offset : ndarray of shape (filters,), float32
        Constants that centre the response over the training patches.
    """

    weight: NDArray[np.float32]
    offset: NDArray[np.float32]

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return int(self.weight.shape[-1])


def sample_patches(
    chips: NDArray[np.float32], patch_px: int, n_patches: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Patches without NaN at random places of the chips.

    Parameters
    ----------
    chips : ndarray of shape (k, time, band, y, x)
        Training chips.
    patch_px : int
        Side of a patch.
    n_patches : int
        Number wanted.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray of shape (n_patches, band, patch_px, patch_px)
        Fewer where valid patches are rare.
    """
    k, n_time, _, rows, cols = chips.shape
    windows = np.lib.stride_tricks.sliding_window_view(chips, (patch_px, patch_px), axis=(-2, -1))
    found: list[NDArray[np.float32]] = []
    missing = n_patches
    for _ in range(30):
        unit, date = rng.integers(k, size=n_patches), rng.integers(n_time, size=n_patches)
        row, col = (
            rng.integers(rows - patch_px + 1, size=n_patches),
            rng.integers(cols - patch_px + 1, size=n_patches),
        )
        drawn = windows[unit, date, :, row, col]
        drawn = drawn[np.isfinite(drawn).all(axis=(1, 2, 3))][:missing]
        found.append(drawn)
        missing -= len(drawn)
        if missing == 0:
            break
    return np.concatenate(found)


def learn_filters(patches: NDArray[np.float32], n_filters: int, ridge: float, rng: np.random.Generator) -> FilterBank:
    """Whiten patches (ZCA) and take some of them, scaled to unit length, as filters.

    With m and C the mean and covariance of the patches and W = (C + ridge * tr(C)/d * I)^(-1/2), the filter of a
    patch q is u = W(q - m)/|W(q - m)|, and its response to a patch x is u'W(x - m) = (Wu)'x - (Wu)'m: one
    convolution, with a variance of about 1 (Coates and Ng 2012; Rolf et al. 2021).

    Parameters
    ----------
    patches : ndarray of shape (n, band, patch, patch)
        Patches of the training imagery on standardised bands.
    n_filters : int
        Number of filters.
    ridge : float
        Added to the eigenvalues, as a share of their mean: keeps noise from being blown up.
    rng : numpy.random.Generator
        Chooses the patches.

    Returns
    -------
    FilterBank
        The filters.
    """
    n, shape = len(patches), patches.shape[1:]
    flat = patches.reshape(n, -1).astype(np.float64)
    mean = flat.mean(axis=0)
    centred = flat - mean
    covariance = centred.T @ centred / n
    values, vectors = np.linalg.eigh(covariance)
    scale = float(values.clip(min=0).mean())
    if scale <= 1e-12:
        raise ImageryError(
            "the training imagery is constant: patches do not differ",
            expected="imagery with variation in at least one band",
            todo="check the bands, the nodata value and the scale",
        )
    whitening = (vectors / np.sqrt(values.clip(min=0) + ridge * scale)) @ vectors.T
    whitened = centred @ whitening
    length = np.linalg.norm(whitened, axis=1)
    usable = np.flatnonzero(length > 1e-9 * length.max())
    chosen = rng.choice(usable, n_filters, replace=len(usable) < n_filters)
    directions = whitened[chosen] / length[chosen, None]
    weight = directions @ whitening
    return FilterBank(
        weight=weight.reshape(n_filters, *shape).astype(np.float32),
        offset=(-weight @ mean).astype(np.float32),
    )
