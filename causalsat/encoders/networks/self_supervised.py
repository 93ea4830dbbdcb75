"""Encoders trained without labels, on the training places or on all imagery of a region."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import chips as _chips
from causalsat.encoders import places
from causalsat.encoders.base import ChipEncoder
from causalsat.encoders.chips import ChipView, Float32Array
from causalsat.encoders.device import resolve_device
from causalsat.encoders.networks.module_encoder import as_transformer
from causalsat.encoders.networks.self_supervised_network import OBJECTIVES, build_module, train_self_supervised
from causalsat.encoders.networks.training import TrainSettings
from causalsat.exceptions import DataError, ImageryError, ParameterError

__all__ = ["SelfSupervisedEncoder", "pretrain"]

_MIN_PX = 8


class SelfSupervisedEncoder(ChipEncoder):
    """Features of a small convolutional network that was trained without labels.

    ``"contrastive"``: two views of the same place (flipped, turned, shifted, bands slightly changed) are to be told
    from other places (Chen et al. 2020, SimCLR). ``"masked"``: half of the squares of 4 pixels are hidden and rebuilt
    (He et al. 2022, masked autoencoders). Features are the mean of the network's last map over the chip. It can be
    trained on many more places than a trial has: see :func:`pretrain`.

    Chips of at least 8 x 8 pixels are taken. Invalid pixels (NaN) count as the mean and are marked in a band of their
    own; chips without any valid pixel get NaN features.

    Parameters
    ----------
    objective : {"contrastive", "masked"}, default "contrastive"
        See above.
    width : int, default 32
        Channels; there are twice as many features.
    max_epochs, patience, batch_size, learning_rate
        Of the training; it stops where the loss of a held-out tenth has not fallen for ``patience`` epochs.
    random_state : int, default 0
        Seed of weights, views and batches.
    device : str, default "auto"
        ``"auto"`` (GPU if there is one), ``"cpu"``, ``"cuda"``.
    checkpoint : str, optional
        File that is written after each epoch, and from which an interrupted training goes on.
    progress : bool, default False
        Show a bar over epochs.

    Attributes
    ----------
    weights_ : dict of ndarray
        State of the network.
    losses_ : list of tuple of float
        Training and held-out loss of each epoch.
    band_mean_, band_sd_ : ndarray of shape (band,)
        Statistics of the training chips.

    Examples
    --------
    >>> chips = np.random.default_rng(0).normal(size=(24, 2, 16, 16))
    >>> SelfSupervisedEncoder(width=4, max_epochs=1).fit_transform(chips).shape
    (24, 8)
    """

    _transient: ClassVar[tuple[str, ...]] = ("_module",)

    def __init__(
        self,
        objective: str = "contrastive",
        *,
        width: int = 32,
        max_epochs: int = 40,
        patience: int = 8,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        random_state: int = 0,
        device: str = "auto",
        checkpoint: str | None = None,
        progress: bool = False,
    ) -> None:
        self.objective = objective
        self.width = width
        self.max_epochs = max_epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.device = device
        self.checkpoint = checkpoint
        self.progress = progress

    def _check_parameters(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ParameterError(f"objective={self.objective!r}", expected=f"one of {', '.join(OBJECTIVES)}")
        for name in ("width", "max_epochs", "patience", "batch_size"):
            if getattr(self, name) < (2 if name == "batch_size" else 1):
                raise ParameterError(f"{name}={getattr(self, name)}", expected="a positive number")

    def _learn_chips(self, X: Any) -> None:
        """Train the network; of a sequence every frame is an image."""
        view = _chips.open_chips(X, minimum_px=_MIN_PX)
        chips = view.take(slice(None))
        self._remember(view)
        self.band_mean_, self.band_sd_ = _chips.band_statistics(chips)
        images = self._images(chips.reshape(-1, *chips.shape[2:]))
        images = images[images[:, -1].any(axis=(1, 2))]
        if len(images) < 8:
            raise DataError(f"{len(images)} images with valid pixels", expected="at least eight to train on")
        settings = TrainSettings(
            max_epochs=self.max_epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            augment=False,
            device=self.device,
            seed=self.random_state,
            checkpoint=self.checkpoint,
            progress=self.progress,
        )
        self.weights_, self.losses_ = train_self_supervised(images, self.width, self.objective, settings)
        self._module = None

    def _images(self, chips: Float32Array) -> Float32Array:
        """Standardised bands, 0 where invalid, and the valid pixels as a last band."""
        return np.concatenate(self._standardise(chips), axis=1, dtype=np.float32)

    def _minimum_px(self) -> int:
        return _MIN_PX

    def _encode_view(self, view: ChipView) -> NDArray[np.float64]:
        return self._encode_batches(view, self._forward, self.batch_size)

    def _forward(self, chips: Float32Array) -> NDArray[np.float64]:
        import torch

        device = resolve_device(self.device)
        images = self._images(chips)
        with torch.inference_mode():
            found = self._network().to(device).features(torch.from_numpy(images).to(device)).cpu().numpy()
        features = np.asarray(found, dtype=np.float64)
        features[~images[:, -1].any(axis=(1, 2))] = np.nan
        return features

    def _network(self) -> Any:
        """The network, rebuilt from its stored weights where it was saved or copied."""
        module = getattr(self, "_module", None)
        if module is None:
            import torch

            module = build_module(len(self.bands_), self.width, self.objective, None)
            module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in self.weights_.items()})
            self._module = module = module.eval().requires_grad_(False)
        return module

    def tunable(self) -> tuple[Any, Callable[[Any, Any], Any]]:
        """A copy of the network's features, and the function of it and of images; for fine-tuning."""
        backbone = deepcopy(self._network().backbone).requires_grad_(True)
        return backbone, lambda network, images: network(images).mean(dim=(2, 3))

    def network_images(self, chips: Float32Array) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Images for :meth:`tunable` of chips (n, band, y, x), and which have a valid pixel."""
        images = self._images(chips)
        return images, np.asarray(images[:, -1].any(axis=(1, 2)))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names ``ssl0, ...``; for a sequence once for each date, with ``t<date>_`` before them."""
        check_is_fitted(self)
        names = [f"ssl{j}" for j in range(2 * self.width)]
        return self._by_date(names)


def pretrain(
    encoder: Any,
    imagery: Any,
    size_m: float,
    *,
    n_places: int = 2000,
    min_valid: float = 0.5,
    before: Any = None,
    random_state: int = 0,
) -> Any:
    """Fit an encoder on random places of all imagery, and freeze it.

    A trial has a few hundred places; the imagery of its region has many thousands. No outcomes are used, so nothing
    of a fold leaks into the features that it is judged by. Inside an :class:`ImageEncoder`, in cross-validation and
    in maps the frozen encoder is used as it is.

    Parameters
    ----------
    encoder : transformer of chips
        Such as :class:`SelfSupervisedEncoder`, :class:`SequenceEncoder`, :class:`RandomConvFeatures`.
    imagery : Imagery
        What :func:`causalsat.open_imagery` returns.
    size_m : float
        Side of the chips in metres.
    n_places : int, default 2000
        Number of random places.
    min_valid : float, default 0.5
        Places with a smaller share of valid pixels are left out.
    before : date, optional
        Images of this day and later are left out, such as those from after the treatment.
    random_state : int, default 0
        Seed of the places.

    Returns
    -------
    sklearn.frozen.FrozenEstimator
        The fitted encoder; ``fit`` and ``clone`` leave it as it is.

    Raises
    ------
    ImageryError
        If the imagery is smaller than a chip, or has no valid place.
    """
    from sklearn.frozen import FrozenEstimator

    if n_places < 1:
        raise ParameterError(f"n_places={n_places}", expected="at least 1")
    source = imagery if before is None else imagery.images_before(before)
    size = source.size_px(float(size_m))
    rows, cols = (int(n) - size for n in source.shape)
    if rows < 0 or cols < 0:
        raise ImageryError(f"imagery of {source.shape} pixels", expected=f"at least {size} x {size}")
    rng = np.random.default_rng(random_state)
    row, col = rng.integers(0, rows + 1, n_places), rng.integers(0, cols + 1, n_places)
    parts = []
    for _, chips in source.iter_windows(row, col, size):
        parts.append(chips[places.valid_share(chips) >= max(min_valid, np.finfo(float).tiny)])
    chips = np.concatenate(parts)
    if not len(chips):
        raise ImageryError(
            f"none of {n_places} random places has {min_valid:.0%} valid pixels",
            expected="imagery with data",
            todo="check nodata value and mask, or lower min_valid",
        )
    return FrozenEstimator(as_transformer(encoder).fit(places.as_chips(source, chips)))
