"""Features of a frozen torchvision backbone."""

from __future__ import annotations

from os import PathLike
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import _chips
from causalsat.encoders._backbones import build_backbone, fixed_input, load_weights, split_weights
from causalsat.encoders._base import ChipEncoder
from causalsat.encoders._chips import Float32Array
from causalsat.encoders._device import resolve_device, use_half
from causalsat.exceptions import ParameterError

__all__ = ["TorchvisionEncoder"]

_FIT_UNITS = 1024  # chips from which band statistics are taken


class TorchvisionEncoder(ChipEncoder):
    """Penultimate features of a torchvision classification network, frozen.

    Bands are standardised by their mean and standard deviation over the training chips. A network for three bands
    is adapted to any number: each band gets the average of the first convolution's weights over its inputs, times
    3 / bands, so that equal bands give the response they gave before. Three bands keep the weights as they are.

    Invalid pixels (NaN in any band) count as the training mean; a chip without any valid pixel gets NaN features.
    Unlike random convolutional features, a deep network applied to a window at once is another function than
    applied to its chips, so there is no dense form: maps are encoded chip by chip.

    Parameters
    ----------
    backbone : str, default "resnet18"
        A classification model of torchvision: resnet50, convnext_tiny, efficientnet_b0, swin_t, vit_b_16, ...
    weights : str or path, optional
        None: random weights; ``"DEFAULT"``: torchvision's own, downloaded by torchvision; else a local file, a state
        dict ``.pth`` (read with ``weights_only=True``) or ``.safetensors``, whose first convolution may have any
        number of bands and whose head is ignored.
    image_px : int, optional
        Resize chips to this side (bilinear). Default: the size that the backbone insists on (224 for vision
        transformers), else as they are.
    random_state : int or None, default 0
        Seed of random weights.
    batch_size : int, default 32
        Chips at a time. Features do not depend on it.
    device : str, default "auto"
        ``"auto"`` (GPU if there is one), ``"cpu"``, ``"cuda"``.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        ``"auto"``: bfloat16 mixed precision on a GPU, float32 on the CPU.
    progress : bool, default False
        Show a progress bar.

    Attributes
    ----------
    weights_ : dict of ndarray
        State of the network.
    band_mean_, band_sd_ : ndarray of shape (band,)
        Statistics of the training chips.
    n_outputs_ : int
        Features of a chip (of one date).

    Examples
    --------
    >>> import numpy as np
    >>> chips = np.random.default_rng(0).normal(size=(3, 5, 32, 32))
    >>> TorchvisionEncoder("resnet18").fit(chips).transform(chips).shape
    (3, 512)
    """

    _transient: ClassVar[tuple[str, ...]] = ("_module",)

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str | PathLike[str] | None = None,
        *,
        image_px: int | None = None,
        random_state: int | None = 0,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
        progress: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_px = image_px
        self.random_state = random_state
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.progress = progress

    def fit(self, X: Any, y: ArrayLike | None = None) -> TorchvisionEncoder:
        """Take band statistics from chips and build the network for their bands.

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
            If torchvision has no such backbone, or a parameter is outside its domain.
        ModelFileError
            If the weights file cannot be read or belongs to another network.
        """
        if self.batch_size < 1:
            raise ParameterError(f"batch_size={self.batch_size}", expected="at least 1")
        if self.image_px is not None and self.image_px < 8:
            raise ParameterError(f"image_px={self.image_px}", expected="at least 8 pixels, or None")
        view = _chips.open_chips(X)
        chips = _chips.sample_units(view, _FIT_UNITS, np.random.default_rng(0))
        self.band_mean_, self.band_sd_ = _chips.band_statistics(chips)
        self._remember(view.spec)
        source: Any = self.weights
        if source is not None and source != "DEFAULT":
            source = load_weights(source)
        self._module = build_backbone(self.backbone, view.spec.n_bands, source, self.random_state)
        self.weights_ = split_weights(self._module)
        self.n_outputs_ = self._forward(chips[:1, 0]).shape[1]
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Features of chips, shape (n, n_outputs), that many for each date of a sequence.

        Parameters
        ----------
        X : ndarray or DataArray of shape (unit, [time,] band, y, x)
            Chips with the bands (and dates) of the fit.
        """
        return self._encode_batches(self._open_known(X), self._forward, self.batch_size, progress=self.progress)

    def _network(self) -> Any:
        """The network, rebuilt from its stored weights where it was saved or copied."""
        module = getattr(self, "_module", None)
        if module is None:
            import torch

            state = {k: torch.from_numpy(np.array(v)) for k, v in self.weights_.items()}
            module = build_backbone(self.backbone, len(self.bands_), state, None)
            self._module = module
        return module

    def _forward(self, chips: Float32Array) -> NDArray[np.float64]:
        """Features (n, features) of chips (n, band, y, x); NaN without any valid pixel."""
        import torch

        device = resolve_device(self.device)
        half = use_half(self.precision, device, by_default=True)
        scaled, valid = self._standardise(chips)
        images = torch.from_numpy(scaled).to(device)
        side = self.image_px or fixed_input(self.backbone)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            if side and tuple(images.shape[-2:]) != (side, side):
                images = torch.nn.functional.interpolate(
                    images, size=(side, side), mode="bilinear", antialias=True, align_corners=False
                )
            try:
                found = self._network().to(device)(images)
            except RuntimeError as error:
                raise ParameterError(
                    f"{self.backbone} cannot take chips of {chips.shape[-2]} x {chips.shape[-1]} pixels "
                    f"({str(error).splitlines()[0][:120]})",
                    expected="images of the size that the backbone was made for",
                    todo="pass image_px=224, or read larger chips",
                ) from error
        features = np.asarray(found.float().cpu().numpy(), dtype=np.float64)
        features[~valid.reshape(len(chips), -1).any(axis=1)] = np.nan
        return features

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names ``<backbone>_0, ...``; for a sequence once for each date, with ``t<date>_`` before them."""
        check_is_fitted(self)
        names = [f"{self.backbone}_{j}" for j in range(self.n_outputs_)]
        return self._by_date(names)
