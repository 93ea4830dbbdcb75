"""Random convolutional features of images, exact patch by patch and wall to wall."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder
from causalsat.encoders.chips import ChipView, Float32Array
from causalsat.encoders.dense.window import LinearHead, sum_of_parts
from causalsat.encoders.device import resolve_device, use_half
from causalsat.encoders.random_conv import pooling
from causalsat.encoders.random_conv.filters import FilterBank, learn_filters, sample_patches
from causalsat.exceptions import DataError, ImageryError, ParameterError

__all__ = ["RandomConvFeatures"]

_FIT_UNITS = 1024  # chips from which patches and band statistics are drawn
_FIT_PATCHES = 16_384


class RandomConvFeatures(ChipEncoder):
    """Mean responses of an image to filters that are patches of the training imagery.

    Filters are patches at random places of the training chips, whitened (ZCA) and scaled to unit length, so that
    each response z has a variance of about 1 over the training imagery. The image is convolved with each filter,
    rectified with both signs, max(z - b, 0) and max(-z - b, 0), and averaged over the chip (Coates and Ng 2012,
    "Learning feature representations with k-means", section 5; Rolf et al. 2021, "A generalizable and accessible
    approach to machine learning with global satellite imagery", Methods). No labels are used. Because pooling is an
    average of local responses, :meth:`dense` gives the same features for every cell of a map at a fraction of the
    cost.

    A pixel that is NaN in any band is invalid; patches that touch it are left out of the average. A chip without
    any valid patch gets NaN features.

    Parameters
    ----------
    n_features : int, default 256
        Number of features: half as many filters, two signs each.
    patch_px : int or sequence of int, default 4
        Side of the patches in pixels; several sizes share ``n_features`` evenly.
    statistics : bool, default False
        Append the mean and standard deviation of each band over valid pixels, in the bands' own units. Filters
        respond to brightness too, so components of many features hardly change with it; with few features, or
        with names that mean something, it helps.
    threshold : float, default 0.0
        The b above, in standard deviations of the response: larger values respond to rarer patterns only.
    stride : int, default 1
        Step between patch positions in pixels; 2 costs a quarter and averages over a quarter of the positions.
    ridge : float, default 0.1
        Regularises the whitening, as a share of the patches' mean variance.
    random_state : int or None, default 0
        Seed of the choice of patches; None draws other filters in each fit.
    batch_size : int, default 64
        Chips read and moved to the device at a time. Features do not depend on it.
    device : str, default "auto"
        ``"auto"`` (GPU if there is one), ``"cpu"``, ``"cuda"``.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        Precision of the multiplication; ``"auto"`` is float32, in which :meth:`dense` is exact.
    progress : bool, default False
        Show a progress bar.

    Attributes
    ----------
    filters_ : list of ndarray of shape (filters, band, patch, patch)
        One array a patch size; they apply to standardised bands.
    offsets_ : list of ndarray of shape (filters,)
        Constants added to the responses.
    band_mean_, band_sd_ : ndarray of shape (band,)
        Statistics of the training chips.
    bands_ : list of str
        Names of the bands.

    Examples
    --------
    >>> import numpy as np
    >>> chips = np.random.default_rng(0).normal(size=(12, 3, 20, 20))
    >>> encoder = RandomConvFeatures(n_features=8).fit(chips)
    >>> encoder.transform(chips).shape
    (12, 8)
    >>> encoder.get_feature_names_out()[:2]
    array(['rcf0_pos', 'rcf1_pos'], dtype=object)
    """

    def __init__(
        self,
        n_features: int = 256,
        patch_px: int | Sequence[int] = 4,
        *,
        statistics: bool = False,
        threshold: float = 0.0,
        stride: int = 1,
        ridge: float = 0.1,
        random_state: int | None = 0,
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "auto",
        progress: bool = False,
    ) -> None:
        self.n_features = n_features
        self.patch_px = patch_px
        self.statistics = statistics
        self.threshold = threshold
        self.stride = stride
        self.ridge = ridge
        self.random_state = random_state
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.progress = progress

    # ------------------------------------------------------------------ fit
    def _learn_chips(self, X: Any) -> None:
        """Draw filters from chips: patches of up to 1,024 of them, all dates alike."""
        sizes = self._patch_sizes()
        view = _chips.open_chips(X, minimum_px=max(sizes))
        rng = np.random.default_rng(self.random_state)
        chips = _chips.sample_units(view, _FIT_UNITS, rng)
        self.band_mean_, self.band_sd_ = _chips.band_statistics(chips)
        self.filters_: list[NDArray[np.float32]] = []
        self.offsets_: list[NDArray[np.float32]] = []
        for size, count in zip(sizes, _shares(self.n_features // 2, len(sizes)), strict=True):
            bank = self._learn(chips, size, count, rng)
            self.filters_.append(bank.weight)
            self.offsets_.append(bank.offset)
        self._remember(view)

    def _learn(self, chips: Float32Array, size: int, count: int, rng: np.random.Generator) -> FilterBank:
        patches = sample_patches(chips, size, max(_FIT_PATCHES, count), rng)
        if len(patches) < 2:
            raise ImageryError(
                f"no {size} x {size} patch of the training chips is free of missing pixels",
                expected="some gap-free patches",
                todo="use a smaller patch_px, or check the nodata value and the mask",
            )
        mean, sd = self.band_mean_[:, None, None], self.band_sd_[:, None, None]
        return learn_filters(((patches - mean) / sd).astype(np.float32), count, self.ridge, rng)

    def _patch_sizes(self) -> tuple[int, ...]:
        return tuple(int(size) for size in np.ravel(self.patch_px))

    def _check_parameters(self) -> None:
        if self.n_features < 2 or self.n_features % 2:
            raise ParameterError(f"n_features={self.n_features}", expected="an even number of at least 2")
        sizes = (self.patch_px,) if isinstance(self.patch_px, int | np.integer) else tuple(self.patch_px)
        if not sizes or any(int(s) != s or s < 1 for s in sizes):
            raise ParameterError(f"patch_px={self.patch_px!r}", expected="pixels, such as 4 or (3, 6)")
        if self.n_features // 2 < len(sizes):
            raise ParameterError(
                f"n_features={self.n_features} for {len(sizes)} patch sizes", expected="at least two features a size"
            )
        for name, low in (("stride", 1), ("batch_size", 1), ("ridge", 0), ("threshold", 0)):
            if not getattr(self, name) >= low:
                raise ParameterError(f"{name}={getattr(self, name)!r}", expected=f"at least {low}")

    # ------------------------------------------------------------------ features
    def _encode_view(self, view: ChipView) -> NDArray[np.float64]:
        encode = partial(self._encode, self._kernels())
        return self._encode_batches(view, encode, self.batch_size, progress=self.progress)

    def _minimum_px(self) -> int:
        return max(int(bank.shape[-1]) for bank in self.filters_)

    def _kernels(self) -> list[pooling.Kernel]:
        device = resolve_device(self.device)
        half = use_half(self.precision, device, by_default=False)
        banks = [FilterBank(w, b) for w, b in zip(self.filters_, self.offsets_, strict=True)]
        return [pooling.make_kernel(bank, self.stride, self.threshold, device, half) for bank in banks]

    def _tensors(self, pixels: Float32Array) -> tuple[Any, Any]:
        """Standardised bands and the valid pixels (..., y, x), on the device."""
        import torch

        scaled, valid = self._standardise(pixels)
        device = resolve_device(self.device)
        return torch.from_numpy(scaled).to(device), torch.from_numpy(valid.squeeze(-3)).to(device)

    def _encode(self, kernels: list[pooling.Kernel], images: Float32Array) -> NDArray[np.float64]:
        """Features (k, features) of images (k, band, y, x)."""
        import torch

        with torch.inference_mode():
            scaled, valid = self._tensors(images)
            parts = [pooling.chip_means(scaled, valid, kernel)[0] for kernel in kernels]
            if self.statistics:
                parts.append(self._raw_units(*pooling.chip_moments(scaled, valid)))
        return np.hstack(parts)

    def _raw_units(self, mean: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means and standard deviations in the bands' units from standardised first and second moments."""
        sd = np.sqrt(np.maximum(square - mean**2, 0.0))
        return np.hstack([self.band_mean_ + self.band_sd_ * mean, self.band_sd_ * sd])

    def dense(
        self, window: Float32Array, rows: ArrayLike, cols: ArrayLike, size_px: int, head: LinearHead | None = None
    ) -> NDArray[np.float64]:
        """Features of many overlapping chips of one window, each response computed once.

        Equal to :meth:`transform` of the chips to rounding (the tests ask for 1e-5 of a feature's standard
        deviation), at a cost that grows with the window's area and not with the number of chips.

        Parameters
        ----------
        window : ndarray of shape ([time,] band, h, w), float32
            Pixels; NaN where invalid.
        rows, cols : arrays of shape (n,), int
            Upper-left pixel of each chip, counted from the window's.
        size_px : int
            Side of the chips; each must lie in the window.
        head : LinearHead, optional
            Linear map of the features, applied before they are added up over the chip.

        Returns
        -------
        ndarray of shape (n, features) or (n, k)
            In the order of ``rows`` and ``cols``.
        """
        import torch

        check_is_fitted(self)
        pixels = self._open_known(np.asarray(window)[None], self._minimum_px()).take(slice(None))[0]
        top, left = np.asarray(rows, dtype=np.int64), np.asarray(cols, dtype=np.int64)
        _check_inside(top, left, int(size_px), pixels.shape[-2:])
        kernels, parts, start = self._kernels(), [], 0
        with torch.inference_mode():
            for date in pixels:
                image, valid = self._tensors(date)
                for kernel in kernels:
                    own = None if head is None else head.part(start, start + 2 * kernel.n_filters)
                    parts.append(pooling.window_means(image, valid, kernel, top, left, int(size_px), own))
                    start += 2 * kernel.n_filters
                if self.statistics:
                    moments = pooling.window_moments(image, valid, top, left, int(size_px))
                    raw = self._raw_units(*moments)
                    parts.append(raw if head is None else head.part(start, start + raw.shape[1]).apply(raw))
                    start += raw.shape[1]
        return np.hstack(parts) if head is None else sum_of_parts(parts)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the features.

        ``rcf<filter>_pos``, ``rcf<filter>_neg``, ``mean_<band>``, ``sd_<band>``; for a sequence once for each date,
        with ``t<date>_`` before them.
        """
        check_is_fitted(self)
        names: list[str] = []
        start = 0
        for bank in self.filters_:
            ids = range(start, start + len(bank))
            names += [f"rcf{j}_pos" for j in ids] + [f"rcf{j}_neg" for j in ids]
            start += len(bank)
        if self.statistics:
            names += [f"mean_{b}" for b in self.bands_] + [f"sd_{b}" for b in self.bands_]
        return self._by_date(names)


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (j < total % parts) for j in range(parts)]


def _check_inside(rows: NDArray[np.int64], cols: NDArray[np.int64], size: int, shape: tuple[int, int]) -> None:
    if rows.ndim != 1 or rows.shape != cols.shape:
        raise DataError(f"rows of shape {rows.shape} and cols of shape {cols.shape}", expected="two equal lengths")
    outside = (rows < 0) | (cols < 0) | (rows + size > shape[0]) | (cols + size > shape[1])
    if outside.any():
        j = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{int(outside.sum())} chips of {size} pixels reach beyond the window of {shape[0]} x {shape[1]}, "
            f"the first at row {rows[j]}, column {cols[j]}",
            expected="chips inside the window",
            todo="read a larger window",
        )
