"""Features of image sequences: a frame encoder on each date, pooled over dates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder, feature_array
from causalsat.encoders.chips import ChipView, Float32Array
from causalsat.encoders.networks.module_encoder import as_transformer
from causalsat.encoders.networks.training import TrainSettings
from causalsat.encoders.random_conv.features import RandomConvFeatures
from causalsat.encoders.reduce import Reduction, count_varying, learn_reduction
from causalsat.encoders.sequence import network as network
from causalsat.encoders.sequence import temporal
from causalsat.encoders.sequence.network import AttentionShape, build_network
from causalsat.exceptions import DataError, ParameterError

__all__ = ["SequenceEncoder", "centre", "crop", "frame_encoder"]


def frame_encoder(encoder: Any) -> Any:
    """A clone of the frame encoder; torch modules wrapped."""
    if encoder is None:
        return RandomConvFeatures(statistics=True)
    return as_transformer(encoder)


def centre(size: int, scale: float) -> tuple[int, int]:
    """Offset and side of a centre crop: the pixel of the place stays at the crop's ``side // 2``."""
    side = max(1, round(size * scale))
    return size // 2 - side // 2, side


def crop(frames: Float32Array, scale: float) -> Float32Array:
    """Centre crop of frames (..., y, x)."""
    if scale == 1.0:
        return frames
    (top, height), (left, width) = (centre(n, scale) for n in frames.shape[-2:])
    return frames[..., top : top + height, left : left + width]


FloatArray = NDArray[np.float64]

_FIT_FRAMES = 2048  # frames from which the frame encoder learns


class SequenceEncoder(ChipEncoder):
    """Features of dated image sequences: each frame encoded by any frame encoder, then pooled over dates.

    One frame encoder, fitted on the frames of all dates together, is applied to every date, so that a difference
    between dates is a difference of the same feature. A pixel under a cloud is interpolated in time from the same
    pixel at other dates, as a deviation from the date's mean: else two dates whose clouds leave other parts of the
    square would differ by what lies in those parts. A frame with too few valid pixels even so is missing, and its
    features are interpolated likewise, so that a gap neither drops the place nor looks like a change.

    Poolings (Jerzak et al. 2024, arXiv 2407.11674, section 3, compare images with image sequences for effect
    heterogeneity; several scales of one place follow arXiv 2411.02134):

    * ``"mean_trend"``: the mean, and the least squares change per year. For two dates the same as the next.
    * ``"mean_difference"``: the mean, and the first differences between consecutive dates per year of the gap.
    * ``"mean_variance"``: the mean, and the standard deviation over the dates that are there.
    * ``"concatenate"``: all frames side by side.
    * ``"attention"``: the mean of the frames' components, and the answer of a temporal transformer with date
      embedding that is trained, without labels, to rebuild the frames' deviations from the place's mean at any
      date, some frames hidden.

    Parameters
    ----------
    encoder : transformer of chips or torch.nn.Module, optional
        Frame encoder for chips (unit, band, y, x): default :class:`RandomConvFeatures` with band statistics;
        :class:`PyramidFeatures`, :class:`TorchvisionEncoder` (vision transformers too), :class:`ModuleEncoder`. A
        bare torch module is wrapped in a :class:`ModuleEncoder`.
    pooling : {"mean_difference", "mean_trend", "mean_variance", "concatenate", "attention"}
        Default "mean_difference"; see above.
    scales : sequence of float, default (1.0,)
        Shares of the chip's side; each centre crop is encoded by a clone of the encoder and joined.
    dates : sequence of dates, optional
        Days of the frames, for chips without a ``time`` coordinate; without either, frames count as one unit apart.
        :class:`ImageEncoder` passes the imagery's own dates.
    min_valid : float, default 0.25
        Share of valid pixels below which a frame is missing.
    fill_pixels : bool, default True
        Whether pixels under clouds are interpolated in time.
    n_tokens, n_outputs : int, default 24 and 12
        Of ``"attention"``: principal components of a frame that it reads, and numbers that it answers with.
    max_epochs : int, default 200
        Most epochs of its training; it stops where held-out places are not rebuilt better for 20 epochs.
    random_state : int, default 0
        Seed of its training.
    batch_size : int, default 64
        Places encoded at a time.
    progress : bool, default False
        Show a bar over the training's epochs.

    Attributes
    ----------
    encoders_ : list
        Fitted frame encoder of each scale.
    days_ : tuple of str
        Days of the training frames; empty where unknown.
    pixel_means_ : ndarray of shape (date, band)
        Mean of each band at each date over the training pixels.
    date_means_ : ndarray of shape (date, feature)
        Mean frame features of each date over the training places.
    frame_names_ : list of str
        Names of a frame's features.

    Notes
    -----
    Where the frame encoder has a method ``dense``, so has this one: maps encode the surroundings once a date and
    pool over dates afterwards, with the same features up to rounding.

    Examples
    --------
    >>> from causalsat import RandomConvFeatures
    >>> chips = np.random.default_rng(0).normal(size=(12, 3, 2, 16, 16))  # 12 places, 3 dates, 2 bands
    >>> chips[0, 1] = np.nan  # a cloud
    >>> days = ["2012-06-01", "2013-06-01", "2015-06-01"]
    >>> encoder = SequenceEncoder(RandomConvFeatures(n_features=4), dates=days).fit(chips)
    >>> encoder.transform(chips).shape, encoder.get_feature_names_out()[[0, 4, 8]].tolist()
    ((12, 12), ['mean_rcf0_pos', 'change0_rcf0_pos', 'change1_rcf0_pos'])
    """

    _transient: ClassVar[tuple[str, ...]] = ("_module",)
    reads_dates: ClassVar[bool] = True

    def __init__(
        self,
        encoder: Any = None,
        pooling: str = "mean_difference",
        *,
        scales: Sequence[float] = (1.0,),
        dates: Sequence[Any] | None = None,
        min_valid: float = 0.25,
        fill_pixels: bool = True,
        n_tokens: int = 24,
        n_outputs: int = 12,
        max_epochs: int = 200,
        random_state: int = 0,
        batch_size: int = 64,
        progress: bool = False,
    ) -> None:
        self.encoder = encoder
        self.pooling = pooling
        self.scales = scales
        self.dates = dates
        self.min_valid = min_valid
        self.fill_pixels = fill_pixels
        self.n_tokens = n_tokens
        self.n_outputs = n_outputs
        self.max_epochs = max_epochs
        self.random_state = random_state
        self.batch_size = batch_size
        self.progress = progress

    # ------------------------------------------------------------------ fit
    def _learn_chips(self, X: Any) -> None:
        """Fit the frame encoder on the frames of all dates, and what the pooling learns."""
        view = self._open(X)
        self.days_ = temporal.chip_days(X, view.spec.n_time, self.dates)
        self._remember(view)
        self._fit_frames(view)
        features = self._frames(view, self.days_)
        self.date_means_ = temporal.date_means(features)
        if self.pooling == "attention":
            self._fit_attention(features)

    def _check_parameters(self) -> None:
        if self.pooling not in temporal.POOLINGS:
            raise ParameterError(f"pooling={self.pooling!r}", expected=f"one of {', '.join(temporal.POOLINGS)}")
        scales = np.atleast_1d(np.asarray(self.scales, dtype=float))
        if not len(scales) or not ((scales > 0) & (scales <= 1)).all() or len(set(scales)) < len(scales):
            raise ParameterError(
                f"scales={self.scales!r}", expected="different shares of the chip, above 0, at most 1"
            )
        if not 0 <= self.min_valid <= 1:
            raise ParameterError(f"min_valid={self.min_valid}", expected="a share between 0 and 1")
        for name in ("n_tokens", "n_outputs", "max_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name}={getattr(self, name)!r}", expected="at least 1")

    def _open(self, X: Any) -> ChipView:
        view = _chips.open_chips(X)
        if view.spec.n_time < 2:
            raise DataError(
                f"chips with {view.spec.n_time or 'no'} dates",
                expected="(unit, time, band, y, x) with at least two dates",
                todo="open a folder of dated scenes, or use the frame encoder itself for a single image",
            )
        return view

    def _fit_frames(self, view: ChipView) -> None:
        """Fit a frame encoder a scale, on frames with enough valid pixels."""
        units = max(2, _FIT_FRAMES // view.spec.n_time)
        chips = _chips.sample_units(view, units, np.random.default_rng(0))
        self.pixel_means_ = temporal.pixel_means(chips)
        chips = self._fill(chips, self.days_)
        frames = chips.reshape(-1, *chips.shape[2:])
        share = np.isfinite(frames).all(axis=1).reshape(len(frames), -1).mean(axis=1)
        usable = share >= max(self.min_valid, np.finfo(float).tiny)
        frames = frames[usable] if usable.any() else frames
        self.encoders_: list[Any] = []
        names: list[str] = []
        for scale in self._scales():
            encoder = frame_encoder(self.encoder)
            encoder.fit(self._label(crop(frames, scale)))
            self.encoders_.append(encoder)
            names += self._own_names(encoder, scale, frames)
        self.frame_names_ = names

    def _own_names(self, encoder: Any, scale: float, frames: Float32Array) -> list[str]:
        if hasattr(encoder, "get_feature_names_out"):
            own = [str(name) for name in encoder.get_feature_names_out()]
        else:
            one = feature_array(encoder.transform(self._label(crop(frames[:1], scale))))
            own = [f"f{j}" for j in range(one.shape[1])]
        return own if len(self._scales()) == 1 else [f"x{scale:g}_{name}" for name in own]

    def _scales(self) -> list[float]:
        return [float(scale) for scale in np.atleast_1d(np.asarray(self.scales, dtype=float))]

    def _label(self, frames: Float32Array) -> Any:
        import xarray as xr

        coords = {"band": list(self.bands_)} if self.bands_named_ else {}
        return xr.DataArray(frames, dims=("unit", "band", "y", "x"), coords=coords)

    # ------------------------------------------------------------------ frames
    def _fill(self, chips: Float32Array, days: tuple[str, ...]) -> Float32Array:
        if not self.fill_pixels:
            return chips
        years = temporal.days_as_years(days or self.days_, self.n_time_)
        return temporal.fill_pixels(chips, years, self.pixel_means_)

    def _frames(self, view: ChipView, days: tuple[str, ...]) -> FloatArray:
        """Frame features (unit, date, feature), NaN where a frame is missing."""
        out = np.empty((len(view), self.n_time_, len(self.frame_names_)))
        for part, chips in view.batches(self.batch_size):
            frames = self._fill(chips, days).reshape(-1, *chips.shape[2:])
            features = []
            for scale, encoder in zip(self._scales(), self.encoders_, strict=True):
                centres = crop(frames, scale)
                valid = np.isfinite(centres).all(axis=1).reshape(len(centres), -1)
                share = valid.sum(axis=1) / float(valid.shape[1])
                features.append(self._missing(feature_array(encoder.transform(self._label(centres))), share))
            out[part] = np.hstack(features).reshape(len(chips), self.n_time_, -1)
        return out

    def _missing(self, features: FloatArray, share: FloatArray) -> FloatArray:
        gone = (share < self.min_valid) | (share == 0) | ~np.isfinite(features).all(axis=1)
        return np.where(gone[:, None], np.nan, features)

    # ------------------------------------------------------------------ features
    def _encode_view(self, view: ChipView) -> FloatArray:
        """Pooled features; where the chips name other days than the fit's, the gaps between dates are theirs."""
        days = temporal.chip_days(view.data, self.n_time_, None)
        return self._pool(self._frames(view, days), days)

    def _pool(self, features: FloatArray, days: tuple[str, ...]) -> FloatArray:
        years = temporal.days_as_years(days or self.days_, self.n_time_)
        if self.pooling == "attention":
            return self._attend(features, years)
        return temporal.pool(features, years, self.date_means_, self.pooling)

    def _dense_encoders(self) -> bool:
        encoders = getattr(self, "encoders_", None) or [frame_encoder(self.encoder)]
        return all(hasattr(encoder, "dense") for encoder in encoders)

    @available_if(_dense_encoders)
    def dense(self, window: Any, rows: ArrayLike, cols: ArrayLike, size_px: int) -> FloatArray:
        """Features of many overlapping chips of one window, each frame of it encoded once.

        Parameters
        ----------
        window : ndarray or DataArray of shape (time, band, h, w), float32
            Pixels; NaN where invalid. A DataArray may name the days.
        rows, cols : arrays of shape (n,), int
            Upper-left pixel of each chip.
        size_px : int
            Side of the chips.

        Returns
        -------
        ndarray of shape (n, features)
        """
        check_is_fitted(self)
        pixels = np.asarray(window, dtype=np.float32)
        if pixels.ndim != 4 or len(pixels) != self.n_time_:
            raise DataError(
                f"a window of shape {pixels.shape}", expected=f"(time, band, y, x) with {self.n_time_} dates"
            )
        top, left = np.asarray(rows, dtype=np.int64), np.asarray(cols, dtype=np.int64)
        days, parts = temporal.chip_days(window, self.n_time_, None), []
        pixels = self._fill(pixels[None], days)[0]
        for scale, encoder in zip(self._scales(), self.encoders_, strict=True):
            shift, side = centre(int(size_px), scale)
            dates = []
            for frame in pixels:
                share = temporal.share_of_squares(np.isfinite(frame).all(axis=0), top + shift, left + shift, side)
                dates.append(self._missing(encoder.dense(frame, top + shift, left + shift, side), share))
            parts.append(np.stack(dates, axis=1))
        return self._pool(np.concatenate(parts, axis=2), days)

    # ------------------------------------------------------------------ attention
    def _fit_attention(self, features: FloatArray) -> None:
        flat = features.reshape(-1, features.shape[2])
        flat = flat[np.isfinite(flat).all(axis=1)]
        varying = count_varying(flat)
        self.tokens_: Reduction = learn_reduction(flat, min(self.n_tokens, len(flat) - 1, max(varying, 1)))
        self.token_sd_ = np.sqrt(self.tokens_.explained / self.tokens_.explained[0])
        years = temporal.days_as_years(self.days_, self.n_time_)
        self.date_span_ = [float(years[0]), float(years[-1] - years[0])]
        level, deviations = self._tokens(features, years)
        self.token_unit_ = float(np.nanstd(deviations)) or 1.0
        some = np.isfinite(level).all(axis=1)
        settings = TrainSettings(
            max_epochs=self.max_epochs,
            patience=20,
            augment=False,
            device="cpu",
            seed=self.random_state,
            progress=self.progress,
        )
        dates = network.date_features(years, *self.date_span_)
        tokens = deviations[some] / self.token_unit_
        self.weights_ = network.train_attention(tokens, dates, self._shape(), settings)
        self._module = None

    def _shape(self) -> Any:
        return AttentionShape(len(self.token_sd_), self.n_outputs)

    def _tokens(self, features: FloatArray, years: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean components of a place (unit, token), and the frames' deviations from it, NaN where missing."""
        n, n_time, k = features.shape
        flat = features.reshape(-1, k)
        there = np.isfinite(flat).all(axis=1)
        read = np.full((len(flat), len(self.token_sd_)), np.nan)
        read[there] = self.tokens_.apply(flat[there]) * self.token_sd_
        tokens = read.reshape((n, n_time, len(self.token_sd_)))
        means = self.tokens_.apply(self.date_means_) * self.token_sd_
        level = temporal.fill_missing(tokens, years, means).mean(axis=1)
        return level, tokens - level[:, None]

    def _attend(self, features: FloatArray, years: FloatArray) -> FloatArray:
        level, deviations = self._tokens(features, years)
        some = np.isfinite(level).all(axis=1)
        answer = np.full((len(level), self.n_outputs), np.nan)
        if some.any():
            dates = network.date_features(years, *self.date_span_)
            answer[some] = network.encode_sequences(self._network(), deviations[some] / self.token_unit_, dates)
        return np.hstack([level, answer])

    def _network(self) -> Any:
        """The transformer, rebuilt from its stored weights where it was saved or copied."""
        module = getattr(self, "_module", None)
        if module is None:
            import torch

            module = build_network(self._shape(), None)
            module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in self.weights_.items()})
            self._module = module = module.eval().requires_grad_(False)
        return module

    # ------------------------------------------------------------------ names and copies
    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the features: ``mean_*``, ``change<date>_*``, ``sd_*``, ``t<date>_*``, ``level*``, ``att*``."""
        check_is_fitted(self)
        if self.pooling == "attention":
            names = [f"level{j}" for j in range(len(self.token_sd_))] + [f"att{j}" for j in range(self.n_outputs)]
        else:
            names = temporal.pooled_names(self.frame_names_, self.n_time_, self.pooling)
        return np.asarray(names, dtype=object)
