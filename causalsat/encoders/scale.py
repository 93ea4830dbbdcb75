"""The scale of pixels: what an encoder saw at fit, and whether what arrives later can be of the same units.

A model that was fitted on reflectances between 0 and 1 gives numbers for stored integers, too, all of them wrong. The
quantiles of each band at fit are kept with the encoder. What arrives is compared with them once, before features are
made of it; and each chip has a share of familiar pixels, by which its support is lowered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.chips import ChipView, Float32Array
from causalsat.exceptions import ImageryError

__all__ = [
    "BandScale",
    "allow_other_scale",
    "check_scale",
    "compare_scale",
    "familiar_pixels",
    "familiar_shares",
    "known_scale",
    "learn_scale",
    "scale_checked",
    "support_factor",
]

FloatArray = NDArray[np.float64]

LEVELS = (0.0005, 0.05, 0.5, 0.95, 0.9995)
MAX_UNITS, MAX_PIXELS = 128, 400_000  # of the training chips
MAX_SIDE = 32  # rows and columns of a chip that its level is taken from
MIN_FACTOR = 6.0  # all bands together: units are off by powers of ten, land cover is not
SAME_LEVEL, SAME_SPREAD = 2.0, 2.5  # how far bands may be from their common factor
NEAR_TEN = 1.25  # a factor so close to a power of ten is taken for it
FEW_CHIPS = 10  # with fewer, a small spread is one kind of place and not other units
MARGIN = 0.1  # of a band's range, which pixels may exceed and be familiar
BEYOND, MOST = 3.0, 0.9  # ranges away from the range that was seen, for so many of the pixels
MAX_FLAT = 0.05  # share of pixels equal to their neighbour at fit, above which equal pixels mean nothing

_mode: ContextVar[str] = ContextVar("scale_mode", default="raise")


@dataclass(frozen=True, eq=False)
class BandScale:
    """Distribution of the pixels of training chips.

    Attributes
    ----------
    quantiles : ndarray of shape (bands, 5)
        Of each band's valid pixels, at ``LEVELS``.
    flat : float
        Share of the pixels that equal a neighbour in their row in all bands.
    share : float
        Share of familiar pixels that all but a twentieth of the training chips have.
    levels : ndarray of shape (k,) or None
        Log of how many times the usual level each training chip has, sorted; None of models saved before it was kept.
    contrast : ndarray of shape (bands,) or None
        Spread within a chip (its middle 80 %) beside its level, of a usual chip; NaN for bands without a level.
    """

    quantiles: FloatArray
    flat: float
    share: float
    levels: FloatArray | None = None
    contrast: FloatArray | None = None

    @property
    def leveled(self) -> NDArray[np.bool_]:
        """Bands whose pixels lie on one side of zero, so that a factor moves their median; shape (bands,)."""
        low, middle, high = (self.quantiles[:, k] for k in (1, 2, 3))
        narrow = np.abs(middle) > 0.25 * (high - low)
        return narrow if self.levels is None else narrow | (low * high > 0)


def learn_scale(view: ChipView) -> BandScale | None:
    """Scale of checked chips, from at most 128 of them spread over all; None where no pixel is valid."""
    units = np.unique(np.linspace(0, len(view) - 1, min(len(view), MAX_UNITS)).astype(np.int64))
    chips = view.take(units)
    values = _sample(chips)
    if not values.shape[1]:
        return None
    quantiles = np.quantile(values.astype(np.float64), LEVELS, axis=1).T
    plain = BandScale(quantiles, _flat_share(chips), 1.0, np.empty(0))
    levels, contrast = _profile(plain, chips)
    share = float(np.quantile(familiar_shares(plain, chips), 0.05))
    return replace(plain, share=share, levels=np.sort(levels), contrast=contrast)


def known_scale(encoder: Any) -> BandScale | None:
    """Scale that a fitted encoder, or the one that it wraps, remembers; None of others and of older saved models."""
    for _ in range(3):
        found = getattr(encoder, "pixel_scale_", None)
        if isinstance(found, BandScale):
            return found
        several = getattr(encoder, "encoders_", None) or [None]
        encoder = getattr(encoder, "encoder_", several[0])
    return None


# ---------------------------------------------------------------------- pixels
def _sample(chips: Float32Array) -> Float32Array:
    """Valid pixels (band, k) of chips (..., band, y, x), evenly thinned."""
    by_band = np.moveaxis(chips, -3, 0).reshape(chips.shape[-3], -1)
    step = max(1, by_band.shape[1] // MAX_PIXELS)
    step += int(step > 1 and chips.shape[-1] % step == 0)  # not the same columns of every row
    by_band = by_band[:, ::step]
    return by_band[:, np.isfinite(by_band).all(axis=0)]


def _profile(scale: BandScale, chips: Float32Array) -> tuple[FloatArray, FloatArray]:
    """Log level of each of at most 128 chips (n, ..., band, y, x), and the usual contrast of each band.

    A chip's level is the median over bands of how many times the fit's median its own is; chips without a level, or
    of another sign, are left out. Bands without a level have no contrast.
    """
    some = chips[np.unique(np.linspace(0, len(chips) - 1, min(len(chips), MAX_UNITS)).astype(np.int64))]
    rows, cols = (-(-side // MAX_SIDE) for side in some.shape[-2:])
    by_band = np.moveaxis(some[..., ::rows, ::cols], -3, 1).reshape(len(some), chips.shape[-3], -1)
    low, middle, high = np.full((3, *by_band.shape[:2]), np.nan)
    there = np.isfinite(by_band).any(axis=-1) & scale.leveled
    if there.any():
        values = by_band[there].astype(np.float64)
        low[there], middle[there], high[there] = np.nanquantile(values, (0.1, 0.5, 0.9), axis=-1)
    ratio = middle[:, scale.leveled] / scale.quantiles[scale.leveled, 2]
    ratio = ratio[(ratio > 0).all(axis=1)]
    levels = np.median(np.log(ratio), axis=1) if ratio.size else np.empty(0)
    relative = np.where(middle != 0, (high - low) / np.abs(middle), np.nan)
    contrast = np.full(len(scale.quantiles), np.nan)
    known = np.isfinite(relative).any(axis=0)
    contrast[known] = np.nanmedian(relative[:, known], axis=0)
    return levels, contrast


def _flat(pixels: Float32Array) -> NDArray[np.bool_]:
    """Pixels (..., y, x) that equal a neighbour in their row in all bands, of pixels (..., band, y, x)."""
    same = (pixels[..., 1:] == pixels[..., :-1]).all(axis=-3)
    flat = np.zeros((*pixels.shape[:-3], *pixels.shape[-2:]), dtype=bool)
    flat[..., 1:] |= same
    flat[..., :-1] |= same
    return flat


def _flat_share(pixels: Float32Array) -> float:
    valid = np.isfinite(pixels).all(axis=-3)
    return float(_flat(pixels)[valid].mean()) if valid.any() else 0.0


def familiar_pixels(scale: BandScale, pixels: Float32Array) -> NDArray[np.bool_]:
    """Valid pixels (..., y, x) within the range seen at fit that are no fill, of pixels (..., band, y, x)."""
    low, high = scale.quantiles[:, 0], scale.quantiles[:, -1]
    room = MARGIN * np.maximum(high - low, 1e-6 * np.maximum(np.abs(low), np.abs(high)))
    familiar = np.ones((*pixels.shape[:-3], *pixels.shape[-2:]), dtype=bool)
    for band in range(pixels.shape[-3]):
        values = pixels[..., band, :, :]  # NaN is in no range
        familiar &= (values >= np.float32((low - room)[band])) & (values <= np.float32((high + room)[band]))
    if scale.flat < MAX_FLAT:
        familiar &= ~_flat(pixels)
    return familiar


def familiar_shares(scale: BandScale, chips: Float32Array) -> FloatArray:
    """Share of each chip's pixels, over all dates, that are familiar, shape (n,)."""
    return familiar_pixels(scale, chips).reshape(len(chips), -1).mean(axis=1, dtype=np.float64)


def support_factor(scale: BandScale, shares: FloatArray) -> FloatArray:
    """What the support of chips with these shares of familiar pixels is multiplied by, shape (n,), in [0, 1]."""
    return np.minimum(1.0, shares / max(scale.share, 1e-6))


# ---------------------------------------------------------------------- comparison
def compare_scale(scale: BandScale, chips: Float32Array, names: Any = None) -> tuple[str, list[str]]:
    """What is impossible about chips (n, ..., band, y, x), "" where nothing is; and what the reader should know.

    Impossible are a common factor of all bands, in level and in spread, unless the fit had chips as dark or as
    bright, and nearly all pixels several ranges away from what was seen in every band. Fill without a nodata value
    and another distribution are worth knowing.
    """
    values = _sample(chips)
    if not values.shape[1] or len(values) != len(scale.quantiles):
        return "", []
    labels = [str(n) for n in (range(len(values)) if names is None else names)]
    flat = _flat_share(chips)
    notes = []
    if scale.flat < MAX_FLAT and flat > scale.flat + 0.05:
        notes.append(
            f"{flat:.0%} of the pixels repeat their neighbour in all bands, {scale.flat:.0%} at fit: "
            f"{_fill(chips)}. If this is fill, open the imagery with nodata=; the support of such places is lowered"
        )
        values = _sample(np.where(_flat(chips)[..., None, :, :], np.float32(np.nan), chips))
        if not values.shape[1]:
            return "", notes
    seen = np.quantile(values.astype(np.float64), LEVELS, axis=1).T
    levels, contrast = _profile(scale, chips)
    factor = _common_factor(scale, seen, contrast, few=len(chips) < FEW_CHIPS)
    if factor:
        what = f"pixels that are about {factor:.2g} times those of the fit in all bands"
        if not _seen_at_fit(scale, levels, factor):
            return what, notes
        notes.append(f"{what}, as those of some places of the fit were: water, shadow, bare or bright ground")
        return "", notes
    low, high = scale.quantiles[:, 0], scale.quantiles[:, -1]
    wide = BEYOND * np.maximum(high - low, 0.1 * np.maximum(np.abs(low), np.abs(high)))
    outside = ((values < (low - wide)[:, None]) | (values > (high + wide)[:, None])).mean(axis=1)
    if (outside > MOST).all():  # clouds and snow are far from dark land in some bands only
        band = int(np.argmax(outside))
        return _told(labels[band], scale.quantiles[band], seen[band]), notes
    shifted = (seen[:, 2] < scale.quantiles[:, 1]) | (seen[:, 2] > scale.quantiles[:, 3])
    if shifted.any():
        band = int(np.flatnonzero(shifted)[0])
        notes.append(_told(labels[band], scale.quantiles[band], seen[band]))
    return "", notes


def _common_factor(scale: BandScale, seen: FloatArray, contrast: FloatArray, *, few: bool) -> float:
    """Factor that levels and spreads of all bands share and that cannot be land cover; 0 if there is none.

    Spreads are those within chips where the fit's are known: those over all chips depend on which places they are of.
    """
    fit = scale.quantiles
    spread, other = fit[:, 3] - fit[:, 1], seen[:, 3] - seen[:, 1]
    varied = (spread > 1e-6 * np.abs(fit).max(axis=1)) & (other > 0)
    if not varied.any():
        return 0.0
    leveled = varied & scale.leveled & (fit[:, 2] * seen[:, 2] > 0)
    by_level = np.log(np.abs(seen[leveled, 2] / fit[leveled, 2]))
    over_all = np.log(other[varied] / spread[varied])
    by_spread, estimates = over_all, [over_all, by_level]
    if scale.contrast is not None:
        known = (contrast[leveled] > 0) & (scale.contrast[leveled] > 0)
        within = by_level[known] + np.log(contrast[leveled][known] / scale.contrast[leveled][known])
        by_spread = np.concatenate([within, over_all[~leveled[varied]]])
        estimates.append(within)
    log = float(np.median(np.concatenate(estimates)))
    if abs(log) < np.log(MIN_FACTOR) or (log < 0 and (few or not leveled.any())):
        return 0.0
    apart = np.abs(by_level - log).max(initial=0.0) > np.log(SAME_LEVEL)
    apart = apart or float(np.abs(by_spread - log).max(initial=0.0)) > np.log(SAME_SPREAD)
    ten = np.log(10) * np.round(log / np.log(10))
    return 0.0 if apart else float(np.exp(ten if abs(log - ten) < np.log(NEAR_TEN) else log))


def _seen_at_fit(scale: BandScale, levels: FloatArray, factor: float) -> bool:
    """Whether chips so many times darker or brighter than usual are like some of the fit's: water, shadow, salt.

    If the units differed, the fit's own dark and bright chips times the factor would be among those that arrive, and
    lie beyond all that was seen. So the share that lies there is compared with the share that other units would give.
    """
    known = scale.levels
    if known is None or len(known) < FEW_CHIPS or not len(levels):
        return False
    low, high = np.quantile(known, (0.01, 0.99)) + np.log(SAME_LEVEL) * np.array([-1, 1])
    beyond, expected = (float(((v < low) | (v > high)).mean()) for v in (levels, known + np.log(factor)))
    return beyond < max(expected / 2, min(1.5 / len(levels), 0.5))  # one of many chips alone decides nothing


def _fill(chips: Float32Array) -> str:
    """The commonest repeated pixel in words."""
    bands = np.moveaxis(chips, -3, 0)
    repeated = bands[:, _flat(chips)]
    pixels, count = np.unique(repeated.T[:20_000], axis=0, return_counts=True)
    return "most often " + ", ".join(f"{v:g}" for v in pixels[np.argmax(count)][:4])


def _told(band: str, fit: FloatArray, seen: FloatArray) -> str:
    return (
        f"pixels of band {band!r} from {seen[1]:.4g} to {seen[3]:.4g} (the middle 90 %), where the model was fitted "
        f"on {fit[1]:.4g} to {fit[3]:.4g}"
    )


# ---------------------------------------------------------------------- what is done about it
@contextmanager
def allow_other_scale() -> Iterator[None]:
    """Within this block, pixels on another scale than the fit's are warned of and used.

    Examples
    --------
    >>> chips = np.random.default_rng(0).uniform(0.1, 0.4, size=(12, 3, 20, 20))
    >>> from causalsat.encoders import RandomConvFeatures
    >>> encoder = RandomConvFeatures(n_features=8).fit(chips)
    >>> with allow_other_scale():
    ...     encoder.transform(100 * chips).shape
    (12, 8)
    """
    with _as("warn"):
        yield


@contextmanager
def scale_checked() -> Iterator[None]:
    """Within this block, chips are not compared again: the job that reads them has looked at them as a whole."""
    with _as("checked"):
        yield


@contextmanager
def _as(mode: str) -> Iterator[None]:
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def check_scale(
    scale: BandScale | None, chips: Float32Array, *, names: Any = None, what: str = "chips"
) -> tuple[list[str], list[str]]:
    """Stop at chips that cannot be of the fit's units, and say what else differs.

    Parameters
    ----------
    scale : BandScale or None
        What was seen at fit; without it nothing is said.
    chips : ndarray of shape (n, [time,] band, y, x)
        What arrived, or a sample of it.
    names : sequence of str, optional
        Names of the bands.
    what : str
        Whose pixels these are.

    Returns
    -------
    insisted, notes : lists of str
        What is impossible and used all the same, and what differs; to be warned of.

    Raises
    ------
    ImageryError
        If the pixels cannot be on the fit's scale, outside of ``allow_other_scale``.
    """
    if scale is None or _mode.get() == "checked":
        return [], []
    impossible, notes = compare_scale(scale, chips, names)
    if impossible and _mode.get() == "raise":
        raise ImageryError(
            f"{what} with {impossible}",
            expected="pixels in the units of the fit",
            todo="open the imagery with the scale=, offset= and nodata= of the fit's; if they are right, insist with "
            "causalsat.encoders.allow_other_scale()",
        )
    return [f"{what}: {text}" for text in ([impossible] if impossible else [])], [f"{what}: {note}" for note in notes]
