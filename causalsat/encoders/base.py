"""What the encoders of chips share: bands remembered, chips checked against them, batches, names by date, copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from causalsat.core.fitting import unfitted_unless_finished
from causalsat.core.progress import bar as progress_bar
from causalsat.core.warn import warn
from causalsat.encoders import chips as _chips
from causalsat.encoders.chips import ChipSpec, ChipView, Float32Array
from causalsat.encoders.scale import LEVELS, BandScale, check_scale, known_scale, learn_scale
from causalsat.exceptions import ImageryWarning

__all__ = ["ChipEncoder", "feature_array", "shrink", "warn_of_enlarging"]

_ENLARGED = 2.0  # times that chips are enlarged, from which on it is said
_LOOKED_AT = 32  # chips that are compared with the scale of the fit


class ChipEncoder(TransformerMixin, BaseEstimator):
    """Base of the transformers whose X is chips (unit, [time,] band, y, x).

    A subclass writes ``_check_parameters``, ``_learn_chips`` (what ``fit`` learns), ``_encode_view`` (features of
    checked chips), ``get_feature_names_out`` and, where it needs larger chips than one pixel, ``_minimum_px``.
    Networks that estimators train on images are such transformers too.
    """

    # attributes that are made again where they are missing, and neither saved nor copied
    _transient: ClassVar[tuple[str, ...]] = ()

    bands_: list[str]
    bands_named_: bool
    n_time_: int
    pixel_scale_: BandScale | None
    band_mean_: NDArray[np.float64]
    band_sd_: NDArray[np.float64]

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Learn from chips, without labels.

        Parameters
        ----------
        X : ndarray or DataArray of shape (unit, [time,] band, y, x)
            Training chips; NaN marks invalid pixels.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If a parameter is outside its domain, or the chips are too small for it.
        DataError, ImageryError
            If the chips cannot be used: wrong dimensions or bands, no valid pixels, no variation.
        """
        self._check_parameters()
        with unfitted_unless_finished(self):
            self._learn_chips(X)
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Features of chips, shape (n, features), in the order of ``get_feature_names_out``.

        A chip without any valid pixel has NaN features. Of a sequence, every date has its features, unless the
        encoder pools over dates.

        Parameters
        ----------
        X : ndarray or DataArray of shape (unit, [time,] band, y, x)
            Chips with the bands (and dates) of the fit.

        Raises
        ------
        ImageryError, ParameterError
            If bands or dates are not those of the fit, the pixels cannot be of its units, or the chips are too small.
        """
        check_is_fitted(self)
        return self._encode_view(self._open_known(X, self._minimum_px()))

    # ------------------------------------------------------------------ to be written by subclasses
    def _check_parameters(self) -> None:
        """Refuse parameters outside their domains."""

    def _learn_chips(self, X: Any) -> None:
        """Learn from training chips and store attributes that end in an underscore."""
        raise NotImplementedError

    def _encode_view(self, view: ChipView) -> NDArray[np.float64]:
        """Features (unit, features) of checked chips."""
        raise NotImplementedError

    def _minimum_px(self) -> int:
        """Fewest rows and columns of a chip that the fitted encoder can use."""
        return 1

    def _try_out(self) -> None:
        """Encode a chip once; raises where a part of the fit is missing or of another shape."""
        side = max(self._minimum_px(), 8)
        time = (int(self.n_time_),) if self.n_time_ else ()
        chip = np.linspace(0.0, 1.0, side * side, dtype=np.float32).reshape(side, side)
        chips = np.broadcast_to(chip, (1, *time, len(self.bands_), side, side)) + np.float32(0)
        features = np.asarray(self._encode_view(_chips.open_chips(chips, minimum_px=1)))
        names = self.get_feature_names_out()
        if features.shape[-1] != len(names):
            raise ValueError(f"{features.shape[-1]} features and {len(names)} names")
        scale = getattr(self, "pixel_scale_", None)  # earlier files have none
        if scale is not None and np.shape(scale.quantiles) != (len(self.bands_), len(LEVELS)):
            raise ValueError(f"quantiles of {len(self.bands_)} bands")

    # ------------------------------------------------------------------ chips
    def _remember(self, view: ChipView) -> None:
        """Keep the bands, the number of dates and the scale of the training chips."""
        spec = view.spec
        self.bands_, self.bands_named_, self.n_time_ = list(spec.bands), spec.named, spec.n_time
        self.pixel_scale_ = learn_scale(view)

    def _open_known(self, X: Any, minimum_px: int = 1) -> ChipView:
        """Chips for a fitted encoder: those of other bands, dates or units than the fit's are refused."""
        check_is_fitted(self)
        return self._open_same(X, minimum_px)

    def _open_same(self, X: Any, minimum_px: int = 1) -> ChipView:
        """The same for what is trained as a part of an estimator, without a fit of its own."""
        view = _chips.open_chips(X, minimum_px=minimum_px)
        known = ChipSpec(self.n_time_, len(self.bands_), tuple(self.bands_), self.bands_named_)
        _chips.check_same_bands(known, view.spec)
        if (scale := known_scale(self)) is not None:
            chips = view.take(np.unique(np.linspace(0, len(view) - 1, min(len(view), _LOOKED_AT)).astype(np.int64)))
            insisted, notes = check_scale(scale, chips, names=self.bands_)
            for note in insisted + (notes if len(view) >= _LOOKED_AT else []):
                warn(note, ImageryWarning)
        return view

    def _standardise(self, chips: Float32Array) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Standardised bands (..., band, y, x), 0 where invalid, and the valid pixels (..., 1, y, x)."""
        valid = np.asarray(np.isfinite(chips).all(axis=-3, keepdims=True))
        mean, sd = (s[:, None, None].astype(np.float32) for s in (self.band_mean_, self.band_sd_))
        return np.where(valid, (chips - mean) / sd, np.float32(0)), valid

    def _stacked(self, chips: Float32Array, most_px: int) -> Any:
        """Standardised tensor (m, time * band, y, x) of chips (m, time, band, y, x), averaged down to ``most_px``."""
        import torch

        scaled, _ = self._standardise(chips)
        return shrink(torch.from_numpy(scaled.reshape(len(chips), -1, *chips.shape[-2:])), most_px)

    def _encode_batches(
        self,
        view: ChipView,
        encode: Callable[[Float32Array], NDArray[np.float64]],
        batch_size: int,
        *,
        progress: bool = False,
    ) -> NDArray[np.float64]:
        """Features (unit, features) from images (k, band, y, x), at most ``batch_size`` at a time."""
        out = np.empty((len(view), len(self.get_feature_names_out())))
        with progress_bar(total=len(view), desc="encoding", unit="chip", show=progress) as bar:
            for part, chips in view.batches(batch_size):
                images = chips.reshape(-1, *chips.shape[2:])
                found = [encode(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
                out[part] = np.concatenate(found).reshape(len(chips), -1)
                bar.update(len(chips))
        return out

    def _by_date(self, names: Sequence[str]) -> NDArray[np.object_]:
        """The names; for a sequence once for each date, with ``t<date>_`` before them."""
        if self.n_time_:
            names = [f"t{t}_{name}" for t in range(self.n_time_) for name in names]
        return np.asarray(names, dtype=object)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the features."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Leave what can be made again out of pickles and copies."""
        state: dict[str, Any] = dict(super().__getstate__())
        for name in self._transient:
            state.pop(name, None)
        return state


def feature_array(features: Any) -> NDArray[np.float64]:
    """What an encoder's ``transform`` gives as an array of doubles; a tensor on any device, with gradients or not.

    Examples
    --------
    >>> import torch
    >>> feature_array(torch.nn.Linear(1, 1).weight.detach().fill_(2.0).requires_grad_())
    array([[2.]])
    """
    if hasattr(features, "untyped_storage"):  # a torch tensor
        features = features.detach().cpu().double().numpy()
    return np.asarray(features, dtype=np.float64)


def shrink(images: Any, most_px: int) -> Any:
    """Images (m, band, y, x) averaged down to sides of at most ``most_px`` pixels."""
    import torch

    side = [min(most_px, int(k)) for k in images.shape[-2:]]
    if side == list(images.shape[-2:]):
        return images
    return torch.nn.functional.interpolate(images, size=side, mode="area")


def warn_of_enlarging(side_px: int, image_px: int | None) -> None:
    """Say that chips are enlarged to a network's images, where that is by two or more.

    Warns
    -----
    ImageryWarning
    """
    if image_px and image_px >= _ENLARGED * side_px:
        warn(
            f"chips of {side_px} pixels are enlarged to {image_px}, what the network expects: it sees a scale "
            f"{image_px / side_px:.3g} times that of its training. Read larger chips (size_m=), or pass image_px= "
            "where the network takes other sizes",
            ImageryWarning,
        )
