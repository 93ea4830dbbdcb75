"""Features of the strongest local patterns of an image at several scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder
from causalsat.encoders.chips import ChipView, Float32Array
from causalsat.encoders.device import resolve_device
from causalsat.encoders.random_conv.filters import learn_filters, sample_patches
from causalsat.exceptions import ImageryError, ParameterError

__all__ = ["Extremes", "PyramidFeatures", "extremes", "halve", "n_levels"]


@dataclass(frozen=True)
class Extremes:
    """Pooled responses of the filters of one level.

    Attributes
    ----------
    mean, largest, smallest : ndarrays of shape (k, filters)
        Mean, maximum and minimum of each response over the valid positions.
    """

    mean: Float32Array
    largest: Float32Array
    smallest: Float32Array


def n_levels(side_px: int, smallest_px: int, most: int = 8) -> int:
    """Levels of a pyramid whose smallest image has a side of at least ``smallest_px``.

    Examples
    --------
    >>> n_levels(256, 16), n_levels(64, 16), n_levels(20, 16)
    (5, 3, 1)
    """
    levels = 1
    while side_px // 2 >= smallest_px and levels < most:
        side_px //= 2
        levels += 1
    return levels


def halve(images: Any, valid: Any) -> tuple[Any, Any]:
    """Mean of the valid pixels of each 2 x 2 block; valid where any is. Tensors (k, band, y, x) and (k, 1, y, x)."""
    import torch.nn.functional as F

    share = F.avg_pool2d(valid, 2)
    return F.avg_pool2d(images * valid, 2) / share.clamp(min=0.25), (share > 0).to(valid.dtype)


def extremes(images: Any, valid: Any, weight: Any, offset: Any) -> Extremes:
    """Convolve images with filters and pool over the positions whose patch is valid.

    An image without any valid position is pooled over all positions, invalid pixels standing at 0.

    Parameters
    ----------
    images : torch.Tensor of shape (k, band, y, x)
        Standardised images, 0 where invalid.
    valid : torch.Tensor of shape (k, 1, y, x)
        1 where valid, else 0.
    weight, offset : torch.Tensors of shape (filters, band, patch, patch), (filters,)
        The filters.
    """
    import torch
    import torch.nn.functional as F

    response = F.conv2d(images, weight, offset)
    complete = bool(valid.all())
    if not complete:
        inside = -F.max_pool2d(-valid, weight.shape[-1], stride=1)
        inside = torch.where(inside.flatten(1).any(1)[:, None, None, None], inside, torch.ones_like(inside))
    flat = response.flatten(2)
    if complete:
        pooled = flat.mean(2), flat.amax(2), flat.amin(2)
    else:
        count = inside.flatten(2).sum(2)
        high = torch.where(inside > 0, response, -torch.inf)
        low = torch.where(inside > 0, response, torch.inf)
        pooled = (flat * inside.flatten(2)).sum(2) / count, high.flatten(2).amax(2), low.flatten(2).amin(2)
    mean, largest, smallest = (p.cpu().numpy() for p in pooled)
    return Extremes(mean, largest, smallest)


_FIT_UNITS = 1024
_FIT_PATCHES = 16_384
_SMALLEST_PX = 16  # side of the coarsest level
_WHITENING_RIDGE = 1e3  # filters are patches as they are: bright, dark and edges at their own strength


class PyramidFeatures(ChipEncoder):
    """Strongest and mean responses to filters at several scales: features that see a single striking place.

    :class:`RandomConvFeatures` averages over the chip, so that one streak, one roof or one clearing hardly moves it.
    Here the image is halved again and again, each level is convolved with filters that are patches of the training
    imagery at that level (and a local mean), and each response is pooled by its maximum, minimum and mean over the
    chip. The mean and standard deviation of each band come with them. No labels are used. Maximum pooling of
    filters learned from patches is that of Coates, Ng and Lee (2011), "An analysis of single-layer networks in
    unsupervised feature learning".

    Invalid pixels (NaN in any band) are left out; a position counts where its whole patch is valid.

    Parameters
    ----------
    n_filters : int, default 8
        Filters of each level.
    patch_px : int, default 4
        Side of the filters in pixels of the level.
    levels : int, optional
        Number of levels, each of half the resolution; by default down to a side of 16 pixels.
    random_state : int or None, default 0
        Seed of the choice of patches.
    batch_size : int, default 64
        Chips encoded at a time.
    device : str, default "auto"
        ``"auto"`` (GPU if there is one), ``"cpu"``, ``"cuda"``.

    Attributes
    ----------
    filters_, offsets_ : list of ndarray
        Of each level: (n_filters + 1, band, patch_px, patch_px), the local mean of all bands last; (n_filters + 1,).
    band_mean_, band_sd_ : ndarray of shape (band,)
        Statistics of the training chips.
    bands_ : list of str
        Names of the bands.

    Examples
    --------
    >>> chips = np.random.default_rng(0).normal(size=(20, 1, 32, 32))
    >>> chips[:10, 0, 8:12, 8:12] += 4  # one bright spot in half of them
    >>> features = PyramidFeatures(n_filters=2).fit_transform(chips)
    >>> features.shape
    (20, 20)
    >>> names = PyramidFeatures(n_filters=2).fit(chips).get_feature_names_out()
    >>> brightest = features[:, list(names).index("pyr0_mean_max")]
    >>> bool(brightest[:10].min() > brightest[10:].max())
    True
    """

    def __init__(
        self,
        n_filters: int = 8,
        patch_px: int = 4,
        *,
        levels: int | None = None,
        random_state: int | None = 0,
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        self.n_filters = n_filters
        self.patch_px = patch_px
        self.levels = levels
        self.random_state = random_state
        self.batch_size = batch_size
        self.device = device

    def _check_parameters(self) -> None:
        for name in ("n_filters", "patch_px", "batch_size", "levels"):
            value = getattr(self, name)
            if not (value is None and name == "levels") and (int(value) != value or value < 1):
                raise ParameterError(f"{name}={value!r}", expected="a positive integer")

    def _learn_chips(self, X: Any) -> None:
        """Draw filters from chips: patches of up to 1,024 of them, all dates alike."""
        view = _chips.open_chips(X, minimum_px=self.patch_px)
        rng = np.random.default_rng(self.random_state)
        chips = _chips.sample_units(view, _FIT_UNITS, rng)
        self.band_mean_, self.band_sd_ = _chips.band_statistics(chips)
        self._remember(view)
        side, floor = min(view.size), max(_SMALLEST_PX, self.patch_px)
        count = self.levels or n_levels(side, floor)
        if side >> (count - 1) < self.patch_px:
            raise ParameterError(
                f"levels={count} for chips of {side} pixels", expected=f"a coarsest level of {self.patch_px} pixels"
            )
        self.filters_: list[Float32Array] = []
        self.offsets_: list[Float32Array] = []
        flat = chips.reshape(-1, *chips.shape[2:])
        for images, valid in self._pyramid(flat, count):
            level = np.where(valid.numpy() > 0, images.numpy(), np.float32(np.nan))
            self._learn(level[:, None], rng)

    def _learn(self, level: Float32Array, rng: np.random.Generator) -> None:
        patches = sample_patches(level, self.patch_px, _FIT_PATCHES, rng)
        if len(patches) < 2:
            raise ImageryError(
                f"no {self.patch_px} x {self.patch_px} patch of the training chips is free of missing pixels",
                expected="some gap-free patches",
                todo="use a smaller patch_px, or check the nodata value and the mask",
            )
        bank = learn_filters(patches, self.n_filters, _WHITENING_RIDGE, rng)
        scale = np.sqrt(
            np.mean((np.tensordot(patches, bank.weight, ((1, 2, 3), (1, 2, 3))) + bank.offset) ** 2, axis=0)
        )
        scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
        mean = np.full((1, *bank.weight.shape[1:]), 1 / bank.weight[0].size, dtype=np.float32)
        self.filters_.append(np.concatenate([bank.weight / scale[:, None, None, None], mean]))
        self.offsets_.append(np.append(bank.offset / scale, np.float32(0)).astype(np.float32))

    def _pyramid(self, pixels: Float32Array, levels: int) -> Iterator[tuple[Any, Any]]:
        """Tensors (k, band, y, x), 0 where invalid, and (k, 1, y, x), 1 where valid, of each level."""
        import torch

        scaled, good = self._standardise(pixels)
        images, valid = torch.from_numpy(scaled), torch.from_numpy(good.astype(np.float32))
        for level in range(levels):
            if level:
                images, valid = halve(images, valid)
            yield images, valid

    # ------------------------------------------------------------------ features
    def _minimum_px(self) -> int:
        return self.patch_px << (len(self.filters_) - 1)

    def _encode_view(self, view: ChipView) -> NDArray[np.float64]:
        return self._encode_batches(view, self._encode, self.batch_size)

    def _encode(self, pixels: Float32Array) -> NDArray[np.float64]:
        """Features (k, features) of images (k, band, y, x)."""
        import torch

        device, parts = resolve_device(self.device), []
        with torch.inference_mode():
            for level, (images, valid) in enumerate(self._pyramid(pixels, len(self.filters_))):
                if level == 0:
                    moments = self._moments(images.numpy(), valid.numpy())
                bank = (torch.from_numpy(v[level]).to(device) for v in (self.filters_, self.offsets_))
                found = extremes(images.to(device), valid.to(device), *bank)
                parts += [found.largest, found.smallest, found.mean]
        features = np.hstack([*parts, *moments]).astype(np.float64)
        features[~np.isfinite(pixels).all(axis=1).reshape(len(pixels), -1).any(axis=1)] = np.nan
        return features

    def _moments(self, images: Float32Array, valid: Float32Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each band in its own units, each (k, band)."""
        count = np.maximum(valid.sum(axis=(2, 3), dtype=np.float64), 1)
        first = images.sum(axis=(2, 3), dtype=np.float64) / count
        second = np.square(images, dtype=np.float64).sum(axis=(2, 3)) / count
        sd = np.sqrt(np.maximum(second - first**2, 0.0))
        return self.band_mean_ + self.band_sd_ * first, self.band_sd_ * sd

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the features.

        ``pyr<level>_<filter>_max``, ``_min``, ``_avg`` (the filter ``mean`` is the local mean), ``mean_<band>``,
        ``sd_<band>``; for a sequence once for each date, with ``t<date>_`` before them.
        """
        check_is_fitted(self)
        names: list[str] = []
        for level, bank in enumerate(self.filters_):
            labels = [*map(str, range(len(bank) - 1)), "mean"]
            names += [f"pyr{level}_{label}_{pool}" for pool in ("max", "min", "avg") for label in labels]
        names += [f"mean_{b}" for b in self.bands_] + [f"sd_{b}" for b in self.bands_]
        return self._by_date(names)
