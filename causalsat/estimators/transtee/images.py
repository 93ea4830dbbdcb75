"""The tokens that TransTEE's networks see in images, as features of an encoder."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder
from causalsat.encoders.device import resolve_device
from causalsat.estimators.transtee.shapes import ImageShape, NetworkShape

__all__ = ["CellTokens"]

BATCH = 128


class CellTokens(ChipEncoder):
    """Tokens of images by the trained convolutions: (m, members * cells * width).

    Parameters
    ----------
    image_px : int
        Larger chips are averaged down to this side.
    device : str
        Where the network runs.
    """

    _transient: ClassVar[tuple[str, ...]] = ("_network",)

    def __init__(self, image_px: int, device: str) -> None:
        self.image_px = image_px
        self.device = device

    def prepare_training(self, chips: Any) -> Any:
        """Learn the bands' means and spreads from the training chips; returns their standardised tensor."""
        view = _chips.open_chips(chips)
        pixels = view.take(slice(None))
        self.band_mean_, self.band_sd_ = _chips.band_statistics(pixels)
        self._remember(view)
        images = self.prepare(pixels)
        self.image_shape_ = ImageShape(self.n_time_, len(self.bands_), *(int(k) for k in images.shape[-2:]))
        return images

    def prepare(self, chips: NDArray[np.float32]) -> Any:
        """Standardised tensor (m, time * band, px, px) of chips (m, time, band, y, x); 0 at invalid pixels."""
        return self._stacked(chips, self.image_px)

    def set_state(self, shape: NetworkShape, state: dict[str, NDArray[Any]]) -> None:
        """Keep the weights that images need."""
        self.shape_ = shape
        self.state_ = {k: v for k, v in state.items() if k.split(".")[0] in ("pixels", "date", "row", "column")}

    def transform(self, X: Any) -> FloatArray:
        """Tokens (m, members * cells * width) of chips."""
        import torch

        view = self._open_same(X)
        network, device = self._built(), resolve_device(self.device)
        parts = []
        for _, chips in view.batches(BATCH):
            with torch.inference_mode():
                tokens = network.encode_images(self.prepare(chips).double().to(device))
            parts.append(tokens.transpose(0, 1).flatten(1).cpu().numpy())
        return np.concatenate(parts)

    def pooled(self, features: FloatArray) -> FloatArray:
        """Mean over the cells (m, members * width): what the support of a place is judged by."""
        shape = self.shape_
        return (
            features.reshape(len(features), shape.n_members, -1, shape.width).mean(axis=2).reshape(len(features), -1)
        )

    def _built(self) -> Any:
        network = getattr(self, "_network", None)
        if network is None:
            import torch

            from causalsat.estimators.transtee.network import TokenNetwork

            with torch.random.fork_rng(devices=[]):
                network = TokenNetwork(self.shape_)
            network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in self.state_.items()}, strict=False)
            network = network.double().eval().to(resolve_device(self.device))
            self._network = network
        return network
