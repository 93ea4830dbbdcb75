"""Features of any torch module: foundation models with a declaration of bands, wavelengths and scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder, feature_array
from causalsat.encoders.chips import ChipSpec, ChipView, Float32Array
from causalsat.encoders.device import resolve_device, use_half
from causalsat.exceptions import DataError, ImageryError, ParameterError

__all__ = ["ModuleEncoder", "as_transformer"]

_FIT_UNITS = 1024


def as_transformer(encoder: Any) -> Any:
    """A clone of an encoder; a bare torch module becomes a :class:`ModuleEncoder`.

    Examples
    --------
    >>> import torch
    >>> type(as_transformer(torch.nn.Flatten())).__name__
    'ModuleEncoder'
    """
    if not hasattr(encoder, "transform") and hasattr(encoder, "state_dict"):
        return ModuleEncoder(encoder)
    return clone(encoder)


class ModuleEncoder(ChipEncoder):
    """Features of a user's own torch module, left as it is, with a declaration of what it was trained on.

    A foundation model expects certain bands in a certain order, on a certain scale. Declared here, the chips' bands
    are picked by name, multiplied by ``scale``, and standardised by the declared mean and standard deviation, or by
    those of the training chips where none are declared. Invalid pixels count as the mean; chips without any valid
    pixel get NaN features.

    Parameters
    ----------
    module : torch.nn.Module
        Maps images (n, band, y, x) to features (n, k); of tokens (n, token, k) and maps (n, k, y, x) the mean is
        taken.
    bands : sequence of str or mapping, optional
        Names of the bands that the module expects, in its order; a mapping gives for each of them the name in the
        imagery. Default: the bands as they come.
    scale : float, default 1.0
        What the imagery is multiplied by to be on the module's scale (10,000 for reflectances in 0..1 and a module
        trained on integers).
    mean, sd : sequence of float, optional
        The module's own standardisation, after ``scale``.
    wavelengths : sequence of float, optional
        Passed as second argument, as a tensor: wavelengths of the bands in the unit that the module expects.
    method : str, default "forward"
        Which method gives features, such as ``"forward_features"``.
    image_px : int, optional
        Resize chips to this side.
    name : str, default "module"
        Beginning of the features' names.
    batch_size : int, default 32
        Chips at a time.
    device : str, default "auto"
        ``"auto"`` (GPU if there is one), ``"cpu"``, ``"cuda"``.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        As in :class:`TorchvisionEncoder`.

    Attributes
    ----------
    band_mean_, band_sd_ : ndarray of shape (band,)
        Standardisation, on the module's scale.
    n_outputs_ : int
        Features of a chip (of one date).

    Notes
    -----
    A module is code: a fitted model that holds one cannot be saved without pickle, and saving says so.

    Examples
    --------
    >>> import torch, xarray
    >>> chips = xarray.DataArray(
    ...     np.random.default_rng(0).normal(size=(3, 3, 8, 8)), dims=("unit", "band", "y", "x"),
    ...     coords={"band": ["red", "green", "nir"]},
    ... )
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU())
    >>> ModuleEncoder(net, bands=["nir", "red"]).fit_transform(chips).shape
    (3, 4)
    """

    def __init__(
        self,
        module: Any,
        bands: Sequence[str] | Mapping[str, str] | None = None,
        *,
        scale: float = 1.0,
        mean: Sequence[float] | None = None,
        sd: Sequence[float] | None = None,
        wavelengths: Sequence[float] | None = None,
        method: str = "forward",
        image_px: int | None = None,
        name: str = "module",
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.module = module
        self.bands = bands
        self.scale = scale
        self.mean = mean
        self.sd = sd
        self.wavelengths = wavelengths
        self.method = method
        self.image_px = image_px
        self.name = name
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    def _check_parameters(self) -> None:
        if not self.scale > 0 or self.batch_size < 1:
            raise ParameterError(f"scale={self.scale}, batch_size={self.batch_size}", expected="above 0")

    def _learn_chips(self, X: Any) -> None:
        """Find the declared bands among the chips' and, where none is declared, take their statistics."""
        view = _chips.open_chips(X)
        self._remember(view)
        self.positions_ = self._positions(view.spec)
        for given in ("mean", "sd", "wavelengths"):
            values = getattr(self, given)
            if values is not None and len(values) != len(self.positions_):
                raise ParameterError(
                    f"{given} of {len(values)} numbers for {len(self.positions_)} bands", expected="one a band"
                )
        chips = _chips.sample_units(view, _FIT_UNITS, np.random.default_rng(0))[:, :, self.positions_]
        own_mean, own_sd = _chips.band_statistics(chips)
        self.band_mean_ = self.scale * own_mean if self.mean is None else np.asarray(self.mean, dtype=float)
        self.band_sd_ = self.scale * own_sd if self.sd is None else np.asarray(self.sd, dtype=float)
        self.n_outputs_ = self._forward(chips[:1, 0]).shape[1]

    def _positions(self, spec: ChipSpec) -> list[int]:
        if self.bands is None:
            return list(range(spec.n_bands))
        wanted = list(self.bands.values()) if isinstance(self.bands, Mapping) else list(self.bands)
        missing = [band for band in wanted if band not in spec.bands]
        if missing or not spec.named:
            raise ImageryError(
                f"chips with bands {', '.join(spec.bands) if spec.named else 'without names'}",
                expected=f"the module's bands {', '.join(wanted)}",
                todo="name the imagery's bands (open_imagery(..., bands=...)), or map names: bands={'B08': 'nir'}",
            )
        return [spec.bands.index(band) for band in wanted]

    def _encode_view(self, view: ChipView) -> NDArray[np.float64]:
        return self._encode_batches(view, lambda images: self._forward(images[:, self.positions_]), self.batch_size)

    def _forward(self, chips: Float32Array) -> NDArray[np.float64]:
        """Features (n, k) of chips (n, band, y, x) in the imagery's units; NaN without any valid pixel."""
        import torch

        device = resolve_device(self.device)
        half = use_half(self.precision, device, by_default=True)
        images, valid = self._scaled(chips)
        was_training = self.module.training
        self.module.eval()
        try:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
                features = feature_array(
                    self._features(self.module.to(device), torch.from_numpy(images).to(device)).float()
                )
        finally:
            self.module.train(was_training)
        features[~valid] = np.nan
        return features

    def _scaled(self, chips: Float32Array) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Chips of the module's bands on its scale, 0 where invalid, and which have a valid pixel (n,)."""
        valid = np.isfinite(chips).all(axis=1, keepdims=True)
        mean, sd = (s[:, None, None].astype(np.float32) for s in (self.band_mean_, self.band_sd_))
        images = np.where(valid, (self.scale * chips - mean) / sd, np.float32(0)).astype(np.float32)
        return images, np.asarray(valid.reshape(len(chips), -1).any(axis=1))

    def _features(self, module: Any, images: Any) -> Any:
        """Features (n, k) that the module gives of images on its scale, with their gradients."""
        import torch

        more = () if self.wavelengths is None else (torch.tensor(list(self.wavelengths), device=images.device),)
        if self.image_px and tuple(images.shape[-2:]) != (self.image_px, self.image_px):
            size = (self.image_px, self.image_px)
            images = torch.nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
        found = getattr(module, self.method)(images, *more)
        if not hasattr(found, "ndim") or found.ndim not in (2, 3, 4) or len(found) != len(images):
            raise DataError(
                f"the module's {self.method} gives {getattr(found, 'shape', type(found).__name__)}",
                expected=f"features ({len(images)}, k), tokens (n, token, k) or maps (n, k, y, x)",
                todo="wrap it in a torch.nn.Module whose forward returns features",
            )
        return found.mean(dim=1) if found.ndim == 3 else found.mean(dim=(2, 3)) if found.ndim == 4 else found

    # ------------------------------------------------------------------ to be trained on
    def tunable(self) -> tuple[Any, Callable[[Any, Any], Any]]:
        """A copy of the module, and the function of it and of images that gives features; for fine-tuning."""
        return deepcopy(self.module).requires_grad_(True), self._features

    def network_images(self, chips: Float32Array) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Images for :meth:`tunable` of chips (n, band, y, x), and which have a valid pixel."""
        return self._scaled(chips[:, self.positions_])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names ``<name>_0, ...``; for a sequence once for each date, with ``t<date>_`` before them."""
        check_is_fitted(self, "n_outputs_")
        names = [f"{self.name}_{j}" for j in range(self.n_outputs_)]
        return self._by_date(names)
