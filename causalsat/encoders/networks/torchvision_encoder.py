"""Features of a frozen torchvision backbone."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder, warn_of_enlarging
from causalsat.encoders.chips import ChipView, Float32Array
from causalsat.encoders.dense import window as dense_window
from causalsat.encoders.dense.fast import standardised
from causalsat.encoders.dense.resnet import DenseResNet, build_dense
from causalsat.encoders.dense.window import LinearHead
from causalsat.encoders.dense.windows import (
    TokenCache,
    TokenGrid,
    border_differences,
    features_by_date,
    margin_from,
    windows_at_once,
)
from causalsat.encoders.device import on_device, resolve_device, use_half
from causalsat.encoders.networks.backbones import build_backbone, fixed_input, load_weights, split_weights
from causalsat.encoders.networks.positions import vit_macs, vit_tokens
from causalsat.exceptions import ParameterError

__all__ = ["TorchvisionEncoder"]

_WINDOW_PATCHES = 28  # along a window's side, of a vision transformer wall to wall
_LIVE_ARRAYS = 14  # of a token's features, alive at once in a layer of a transformer
_FIT_UNITS = 1024  # chips from which band statistics are taken


def _is_dense(encoder: Any) -> bool:
    return encoder.dense_stride is not None


class TorchvisionEncoder(ChipEncoder):
    """Penultimate features of a torchvision classification network, frozen.

    Bands are standardised by their mean and standard deviation over the training chips. A network for three bands
    is adapted to any number: each band gets the average of the first convolution's weights over its inputs, times
    3 / bands, so that equal bands give the response they gave before. Three bands keep the weights as they are.

    Invalid pixels (NaN in any band) count as the training mean; a chip without any valid pixel gets NaN features.

    A deep network applied to a window at once is another function than applied to its chips, because padding lets a
    chip's border into all of its features. ``dense_stride`` chooses the first: a ResNet without padding, its later
    strides replaced by dilation, is run over the imagery, and a place's features are the average over its chip of the
    responses, one a square of ``dense_stride`` pixels, counted from the imagery's first pixel. Training places and
    the cells of a map are then encoded by one and the same function, and a map costs a fraction of encoding chips one
    by one (a thirteenth in float32, less in bfloat16: ``benchmarks/country.py``). A response sees ``halo_px`` pixels
    around the chip (224 for a ResNet-18 at stride 16), which :class:`ImageEncoder` reads by itself and which chips
    given to ``transform`` hold on each side.

    Of a vision transformer (``vit_b_16``, ``dense_stride=16``) the dense form gives the tokens of patches: it is
    applied to windows of ``window_px``, its positional embeddings interpolated, and a place's features are the
    average of the tokens over its chip. A token depends on its whole window. Windows therefore lie at fixed places of
    the imagery, so that a place has the same features alone and in a map, and overlap by twice ``margin_px_``, which
    is measured on the training places: what lies further inside differs no more between two windows than their
    middles do. These are other features than the class token of the chip alone; only :class:`ImageEncoder` gives
    them.

    Parameters
    ----------
    backbone : str, default "resnet18"
        A classification model of torchvision: resnet50, convnext_tiny, efficientnet_b0, swin_t, vit_b_16, ...
    weights : str or path, optional
        None: random weights; ``"DEFAULT"``: torchvision's own, downloaded by torchvision; else a local file, a state
        dict ``.pth`` (read with ``weights_only=True``) or ``.safetensors``, whose first convolution may have any
        number of bands and whose head is ignored. A file that cannot be read, or is of another
        network, is a ``ModelFileError``.
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
    dense_stride : {None, 4, 8, 16, 32}, default None
        Pixels between the responses of the dense form, of a ResNet any of these, of a vision transformer its patch;
        None applies the network chip by chip.
    window_px : int, optional
        Side of the windows that a vision transformer is applied to in its dense form; default 28 patches.

    Attributes
    ----------
    weights_ : dict of ndarray
        State of the network.
    band_mean_, band_sd_ : ndarray of shape (band,)
        Statistics of the training chips.
    n_outputs_ : int
        Features of a chip (of one date).
    margin_px_ : int
        Of a vision transformer in its dense form, pixels along a window's border whose tokens are not used.

    Notes
    -----
    On a CPU in float32 most convolutions of the dense form are done by minimal filtering (a quarter of the
    multiplications); the tests allow its responses to differ from those of torch's own convolutions by 2e-4 of their
    standard deviation.

    With ``precision="bfloat16"`` on a CPU the features of the dense form differ from those in float32 by a fiftieth
    of their standard deviation (the median; the tests allow 0.05), 99 % of them by less than a sixth.

    Examples
    --------
    >>> import numpy as np
    >>> chips = np.random.default_rng(0).normal(size=(3, 5, 32, 32))
    >>> TorchvisionEncoder("resnet18").fit(chips).transform(chips).shape
    (3, 512)
    """

    _transient: ClassVar[tuple[str, ...]] = ("_module", "_dense_network", "_dense_kind", "_cache")

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
        dense_stride: int | None = None,
        window_px: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_px = image_px
        self.random_state = random_state
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.progress = progress
        self.dense_stride = dense_stride
        self.window_px = window_px

    def _check_parameters(self) -> None:
        if self.batch_size < 1:
            raise ParameterError(f"batch_size={self.batch_size}", expected="at least 1")
        if self.image_px is not None and self.image_px < 8:
            raise ParameterError(f"image_px={self.image_px}", expected="at least 8 pixels, or None")
        if self.image_px is not None and self.dense_stride is not None:
            raise ParameterError("image_px with dense_stride", expected="one of them", todo="leave image_px=None")

    def _learn_chips(self, X: Any) -> None:
        """Take band statistics from chips and build the network for their bands."""
        view = _chips.open_chips(X)
        chips = _chips.sample_units(view, _FIT_UNITS, np.random.default_rng(0))
        self.band_mean_, self.band_sd_ = _chips.band_statistics(chips)
        self._remember(view)
        source: Any = self.weights
        if source is not None and source != "DEFAULT":
            source = load_weights(source)
        self._module = build_backbone(self.backbone, view.spec.n_bands, source, self.random_state)
        self._dense_network: DenseResNet | None = None
        self._cache: TokenCache | None = None
        self.weights_ = split_weights(self._module)
        if self.dense_stride is None:
            warn_of_enlarging(max(view.size), self.image_px or fixed_input(self.backbone))
            self.n_outputs_ = self._forward(chips[:1, 0]).shape[1]
        elif self._of_tokens:
            self.margin_px_ = margin_from(np.ones(2), self._patch(), self._window_px())
            self.n_outputs_ = int(self._network().hidden_dim)
        else:
            self.n_outputs_ = self._dense().geometry.n_features

    def _encode_view(self, view: ChipView) -> NDArray[np.float64]:
        if self.dense_stride is not None:
            return self._encode_dense(view)
        return self._encode_batches(view, self._forward, self.batch_size, progress=self.progress)

    # ------------------------------------------------------------------ the dense form
    @property
    def _of_tokens(self) -> bool:
        """Whether the dense form is that of a vision transformer."""
        return self.dense_stride is not None and self.backbone.startswith("vit_")

    @property
    def looks_beyond(self) -> bool:
        """Whether features of a place depend on pixels outside its chip."""
        return self.dense_stride is not None

    def _patch(self) -> int:
        patch = int(self._network().patch_size)
        if self.dense_stride != patch:
            raise ParameterError(
                f"dense_stride={self.dense_stride!r} of {self.backbone}", expected=f"its patch, {patch}"
            )
        return patch

    def _window_px(self) -> int:
        patch = self._patch()
        side = _WINDOW_PATCHES * patch if self.window_px is None else int(self.window_px)
        if side % patch or side < 4 * patch:
            raise ParameterError(f"window_px={side}", expected=f"at least four whole patches of {patch} pixels")
        return side

    def _grid(self) -> TokenGrid:
        return TokenGrid(self._patch(), self._window_px(), int(self.margin_px_))

    def learn_margin(self, areas: Float32Array) -> NDArray[np.float64] | None:
        """Measure the margin of a vision transformer's windows on pixels around training places.

        Parameters
        ----------
        areas : ndarray of shape (n, [time,] band, side, side)
            Squares of one and a half windows.

        Returns
        -------
        ndarray
            Differences between two windows' tokens by their distance from a border, in patches, as standard
            deviations.
        """
        flat = areas.reshape(-1, *areas.shape[-3:])
        found = border_differences(flat, self._window_px(), self._patch(), self._tokens)
        self.margin_px_ = margin_from(found, self._patch(), self._window_px())
        return found

    @property
    def margin_window_px(self) -> int:
        """Side of the windows whose margin is to be measured; 0 where there are none."""
        return self._window_px() if self._of_tokens else 0

    def clear_cache(self) -> None:
        """Forget the tokens that were computed."""
        self._cache = None

    def _tokens(self, windows: Float32Array) -> Float32Array:
        """Tokens (n, g, g, k) of windows (n, band, side, side) in the imagery's units."""
        import torch

        device = resolve_device(self.device)
        half = use_half(self.precision, device, by_default=True)
        scaled, _ = self.network_images(windows)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            found = vit_tokens(self._network().to(device), on_device(scaled, device))
        return np.asarray(found.float().cpu().numpy())

    @property
    def halo_px(self) -> int:
        """Pixels round a chip that its features depend on; 0 where the network is applied chip by chip."""
        if self._of_tokens:
            return int(self.margin_px_)
        return 0 if self.dense_stride is None else self._dense().geometry.halo_px

    @property
    def lattice_px(self) -> int:
        """Side of the squares of the dense form, counted from the imagery's first pixel; else 1."""
        if self._of_tokens:
            return self._grid().core_px
        return 1 if self.dense_stride is None else int(self.dense_stride)

    @property
    def flops_per_px(self) -> float:
        """Floating point operations for a pixel of a map in the dense form; NaN chip by chip."""
        if self.dense_stride is None:
            return float("nan")
        if self._of_tokens:
            grid = self._grid()
            return 2.0 * vit_macs(self._network(), (grid.window_px // grid.patch) ** 2 + 1) / grid.core_px**2
        geometry = self._dense().geometry
        return 2.0 * geometry.macs_per_response / geometry.stride**2

    def block_bytes(self, window_px: int) -> float:
        """Memory of the activations of a block of the dense form, in a window of that side; 0 chip by chip."""
        if self.dense_stride is None:
            return 0.0
        if self._of_tokens:
            grid = self._grid()
            tokens = (grid.window_px // grid.patch) ** 2
            return 4.0 * _LIVE_ARRAYS * self.n_outputs_ * tokens * windows_at_once(self.batch_size, grid)
        geometry = self._dense().geometry
        side = dense_window.block_squares(geometry) * geometry.stride + geometry.field_px
        return geometry.bytes_per_px * min(side, window_px) ** 2

    @available_if(_is_dense)
    def dense(
        self, window: Float32Array, rows: ArrayLike, cols: ArrayLike, size_px: int, head: LinearHead | None = None
    ) -> NDArray[np.float64]:
        """Features of the chips of one window, each response computed once.

        Parameters
        ----------
        window : ndarray of shape ([time,] band, h, w), float32
            Pixels; NaN where invalid. Squares of ``lattice_px`` pixels are counted from its first pixel, which
            therefore lies at a multiple of ``lattice_px`` of the imagery's pixels.
        rows, cols : arrays of shape (n,), int
            Upper-left pixel of each chip, counted from the window's; ``halo_px`` pixels round each lie in the window.
        size_px : int
            Side of the chips.
        head : LinearHead, optional
            Applied before pooling, date by date; features of dates without a valid pixel then count as their mean.

        Returns
        -------
        ndarray of shape (n, features), or (n, k) with a head
            In the order of ``rows`` and ``cols``; NaN for a chip without any valid pixel.
        """
        check_is_fitted(self)
        pixels = self._open_known(np.asarray(window)[None]).take(slice(None))[0]
        top, left = np.asarray(rows, dtype=np.int64), np.asarray(cols, dtype=np.int64)
        if self._of_tokens:
            return self._dense_tokens(pixels, top, left, int(size_px), head)
        network, stride = self._ready_dense(), self.lattice_px
        squares = dense_window.squares_of(top, left, int(size_px), stride)
        wanted = dense_window.wanted_squares(top, left, int(size_px), stride, squares)
        parts = []
        for j, date in enumerate(pixels):
            own = None if head is None else head.part(j * self.n_outputs_, (j + 1) * self.n_outputs_)
            responses = dense_window.window_responses(date, squares, wanted, network, self._dense_input, own)
            found = dense_window.pool_squares(responses, squares, top, left, int(size_px), stride)
            found[~dense_window.any_valid(date, top, left, int(size_px))] = np.nan
            parts.append(found)
        if head is None:
            return np.hstack(parts)
        seen = np.asarray(np.isfinite(parts).any(axis=(0, 2)))
        return np.where(seen[:, None], np.nansum(parts, axis=0), np.nan)

    def _dense_tokens(
        self, pixels: Float32Array, top: NDArray[np.int64], left: NDArray[np.int64], size_px: int, head: Any
    ) -> NDArray[np.float64]:
        """Features of the chips of one window (time, band, h, w) from a vision transformer's tokens."""
        if getattr(self, "_cache", None) is None:
            self._cache = TokenCache()
        assert self._cache is not None
        grid, salt = self._grid(), f"{resolve_device(self.device)} {self.precision}"
        return features_by_date(
            pixels,
            top,
            left,
            size_px,
            grid,
            lambda _: self._tokens,
            self.n_outputs_,
            head=head,
            cache=self._cache,
            salt=lambda _: salt,
            at_once=windows_at_once(self.batch_size, grid),
        )

    def _encode_dense(self, view: ChipView) -> NDArray[np.float64]:
        """Features of chips with their surroundings."""
        if self._of_tokens:
            raise ParameterError(
                f"chips of {view.size[0]} x {view.size[1]} pixels with dense_stride={self.dense_stride}",
                expected="places on imagery: windows lie at fixed places of it",
                todo="encode places with ImageEncoder, or pass dense_stride=None",
            )
        halo = self.halo_px
        size = min(view.size) - 2 * halo
        if size < 1 or view.size[0] != view.size[1]:
            raise ParameterError(
                f"chips of {view.size[0]} x {view.size[1]} pixels with dense_stride={self.dense_stride}",
                expected=f"square chips with {halo} pixels of surroundings on each side, above {2 * halo}",
                todo="encode places with ImageEncoder, which reads the surroundings, or pass dense_stride=None",
            )
        corner = np.array([halo])
        found = [self.dense(view.data[i : i + 1][0], corner, corner, size) for i in range(len(view))]
        return np.concatenate(found)

    def _dense(self) -> DenseResNet:
        found: DenseResNet | None = getattr(self, "_dense_network", None)
        if found is None:
            assert self.dense_stride is not None
            found = build_dense(self._network(), int(self.dense_stride), self.backbone)
            self._dense_network = found
            self._module = None  # the dense form has its own copy
            self._dense_kind: tuple[str, bool] | None = None
        return found

    def _ready_dense(self) -> DenseResNet:
        """The dense network on its device, in its precision; rebuilt from the weights where these changed."""
        import torch

        device = resolve_device(self.device)
        kind = (str(device), use_half(self.precision, device, by_default=True))
        if getattr(self, "_dense_kind", None) not in (None, kind):
            self._dense_network = None
        network = self._dense()
        if self._dense_kind is None:
            network.to(device, torch.bfloat16 if kind[1] else torch.float32)
            self._dense_kind = kind
        return network

    def _dense_input(self, pixels: Float32Array) -> Any:
        """Standardised bands of pixels (1, band, y, x) on the device, as the dense network takes them."""
        import torch

        weight = self._dense().stem.weight
        images = standardised(pixels[0], self.band_mean_, self.band_sd_)
        return torch.from_numpy(images[None]).permute(0, 3, 1, 2).to(weight.device, weight.dtype)

    # ------------------------------------------------------------------ chip by chip
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
        scaled, valid = self.network_images(chips)
        images = on_device(scaled, device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            found = self._features(self._network().to(device), images)
        features = np.asarray(found.float().cpu().numpy(), dtype=np.float64)
        features[~valid] = np.nan
        return features

    def _features(self, module: Any, images: Any) -> Any:
        """Features (n, k) that the network gives of standardised images, with their gradients."""
        import torch

        side, given = self.image_px or fixed_input(self.backbone), tuple(images.shape[-2:])
        if side and given != (side, side):
            images = torch.nn.functional.interpolate(
                images, size=(side, side), mode="bilinear", antialias=True, align_corners=False
            )
        try:
            return module(images)
        except RuntimeError as error:
            raise ParameterError(
                f"{self.backbone} cannot take chips of {given[0]} x {given[1]} pixels "
                f"({str(error).splitlines()[0][:120]})",
                expected="images of the size that the backbone was made for",
                todo="pass image_px=224, or read larger chips",
            ) from error

    # ------------------------------------------------------------------ to be trained on
    def tunable(self) -> tuple[Any, Callable[[Any, Any], Any]]:
        """A copy of the network, and the function of it and of images that gives features; for fine-tuning."""
        return deepcopy(self._network()).requires_grad_(True), self._features

    def network_images(self, chips: Float32Array) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Images for :meth:`tunable` of chips (n, band, y, x), and which have a valid pixel."""
        scaled, valid = self._standardise(chips)
        return scaled, np.asarray(valid.reshape(len(chips), -1).any(axis=1))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names ``<backbone>_0, ...``; for a sequence once for each date, with ``t<date>_`` before them."""
        check_is_fitted(self)
        names = [f"{self.backbone}_{j}" for j in range(self.n_outputs_)]
        return self._by_date(names)
