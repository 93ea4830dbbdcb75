"""Features of any torch module: foundation models with a declaration of what they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder, feature_array, warn_of_enlarging
from causalsat.encoders.chips import ChipSpec, ChipView, Float32Array
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
from causalsat.encoders.networks.declaration import (
    Declaration,
    check_standardisation,
    check_wavelengths,
    declare,
)
from causalsat.encoders.networks.module_inputs import Surroundings, arguments, surroundings_of
from causalsat.encoders.networks.positions import interpolated
from causalsat.encoders.networks.saved_module import (
    SavedModule,
    built,
    choose_module,
    reference_of,
    weights_digest,
)
from causalsat.encoders.networks.tokens import patch_tokens, pooled
from causalsat.exceptions import CausalsatError, DataError, ImageryError, ModelFileError, ParameterError

__all__ = ["ModuleEncoder", "as_transformer"]

_FIT_UNITS = 1024
_DECLARED = (
    "takes", "bands", "scale", "mean", "sd", "wavelengths", "wavelength_units", "time", "lonlat", "gsd", "patch",
    "pooling", "image_px",
)  # fmt: skip


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


def _is_dense(encoder: Any) -> bool:
    return encoder.window_px is not None or not encoder.reads_pixels


class ModuleEncoder(ChipEncoder):
    """Features of a user's own torch module, left as it is, with a declaration of what it takes.

    A foundation model expects certain bands in a certain order, on a certain scale, and some take wavelengths, places
    or dates beside them. Declared here, or by attributes of the module itself where it has one called ``takes``, the
    chips' bands are picked by name, multiplied by ``scale`` and standardised by the declared mean and standard
    deviation, or by those of the training chips where none are declared; and the module is called as it wants.
    Invalid pixels count as the mean; chips without any valid pixel get NaN features. Declarations that cannot be of
    this imagery (its units, its bands' wavelengths) are refused with the remedy.

    Parameters
    ----------
    module : torch.nn.Module or str
        Gives features (n, k), tokens (n, token, k) or maps (n, k, y, x), of which the mean is taken. A string says
        where it is made, ``"package.module:factory"`` or ``"path/to/file.py:factory"``, a function without arguments.
    bands : sequence of str or mapping, optional
        Names of the bands that the module expects, in its order; a mapping gives for each of them the name in the
        imagery. Default: the bands as they come.
    scale : float, default 1.0
        What the imagery is multiplied by to be on the module's scale (10,000 for reflectances in 0..1 and a module
        trained on integers).
    mean, sd : sequence of float, optional
        The module's own standardisation, after ``scale``.
    wavelengths : sequence of float, optional
        Wavelengths of the bands; by default passed as second argument.
    method : str, default "forward"
        Which method gives features, such as ``"forward_features"``; with dots that of a part, ``"encoder.forward"``.
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
    takes : sequence of str or mapping, optional
        The module's arguments in order, or the keys of the one dictionary that it takes with what belongs there:
        ``"pixels"`` (n, band, y, x); ``"frames"`` (n, band, time, y, x), all dates in one call; ``"wavelengths"``
        (band,); ``"gsd"`` metres of a pixel; ``"lonlat"`` or ``"latlon"`` (n, 2) degrees; ``"latlon_waves"`` (n, 4)
        sine and cosine of both; ``"dates"`` (n, time, 2) year and day of the year; ``"time_waves"`` (n, 4) sine and
        cosine of the week and of the hour. Default: pixels, then what else is declared. Without pixels or frames the
        features are those of the place, the centre of its chip.
    wavelength_units : {"nm", "um"}, optional
        Unit of ``wavelengths``; converted to the module's where that declares another. Default: told by their size.
    time : bool, date or sequence of dates, optional
        True: the module takes the dates of the imagery; a date stands for those of undated imagery.
    lonlat : bool, default False
        Whether the module takes longitude and latitude.
    gsd : bool or float, optional
        True: the module takes the pixel's metres, the imagery's; a number replaces these.
    patch : int, optional
        Pixels along the side of a token's patch.
    pooling : {"cls", "mean", "tokens"}, optional
        Of tokens the first one, the mean of the patches' (tokens before them left out), or all patches' one after
        another. Default: the mean; where there are tokens before the patches', one has to choose.
    weights : path or (path, str), optional
        State dict for the module, ``.pth`` or ``.safetensors``, and the SHA-256 that the file must have.
    window_px : int, optional
        With ``patch``, the side of windows that the module is applied to wall to wall: cells and places average the
        patches' tokens over their square. None applies it chip by chip.

    Attributes
    ----------
    declared_ : Declaration
        What the module takes.
    band_mean_, band_sd_ : ndarray of shape (band,)
        Standardisation, on the module's scale.
    n_outputs_ : int
        Features of a chip (of one date).
    module_digest_ : str
        SHA-256 of the module's weights.
    margin_px_ : int
        With ``window_px``, pixels along a window's border whose tokens are not used, measured on the training places.

    Notes
    -----
    A module is code. A saved model holds its name and the digest of its weights, and computes nothing after loading
    until the module is passed again or its reference is trusted: ``causalsat.load(path, modules=...)``. Copies by
    ``sklearn.base.clone``, as in cross-validation, share the module.

    A token of a transformer depends on its whole window, so that features with ``window_px`` are others than those of
    the chips alone. Windows lie at fixed places of the imagery: a place has the same features alone and in a map.
    Positional embeddings called ``pos_embed`` are interpolated to the window.

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

    _transient: ClassVar[tuple[str, ...]] = ("_module", "_cache")

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
        takes: Sequence[str] | Mapping[str, str] | None = None,
        wavelength_units: str | None = None,
        time: Any = None,
        lonlat: bool = False,
        gsd: bool | float | None = None,
        patch: int | None = None,
        pooling: str | None = None,
        weights: str | PathLike[str] | tuple[str | PathLike[str], str] | None = None,
        window_px: int | None = None,
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
        self.takes = takes
        self.wavelength_units = wavelength_units
        self.time = time
        self.lonlat = lonlat
        self.gsd = gsd
        self.patch = patch
        self.pooling = pooling
        self.weights = weights
        self.window_px = window_px

    def _check_parameters(self) -> None:
        if not self.scale > 0 or self.batch_size < 1:
            raise ParameterError(f"scale={self.scale}, batch_size={self.batch_size}", expected="above 0")
        if not isinstance(self.module, str | SavedModule) and not hasattr(self.module, "state_dict"):
            raise ParameterError(
                f"module={type(self.module).__name__}",
                expected="a torch.nn.Module, or where it is made: 'package.module:factory'",
                todo="pass an instance and not its class" if isinstance(self.module, type) else "",
            )

    def _learn_chips(self, X: Any) -> None:
        """Find the declared bands among the chips' and, where none is declared, take their statistics."""
        view = _chips.open_chips(X)
        self._module: Any = None
        self._cache: TokenCache | None = None
        self.__dict__.pop("module_digest_", None)
        network = self._network()
        self.declared_: Declaration = declare(network, {name: getattr(self, name) for name in _DECLARED})
        self._remember(view)
        self._check_dense()
        chips = _chips.sample_units(view, _FIT_UNITS, np.random.default_rng(0))
        if self.declared_.reads_pixels:
            self._learn_bands(view.spec, chips)
            if self.window_px is None:
                warn_of_enlarging(max(view.size), self.declared_.image_px)
        self.module_digest_ = weights_digest(network)
        self.gsd_ = self._surroundings(view.data[:1], view.spec.n_time).gsd
        if self.window_px is not None:
            side = int(self.window_px)
            self.times_ = self._times_of(view.data[:1], view.spec.n_time)
            self.margin_px_ = margin_from(np.ones(2), self._patch(), side)
            self.n_outputs_ = self._tokens(np.zeros((1, len(self.bands_), side, side), dtype=np.float32)).shape[-1]
        else:
            first = view.take(slice(0, 1))
            self.n_outputs_ = self._encode(first, self._surroundings(view.data[:1], view.spec.n_time)).shape[-1]

    def _learn_bands(self, spec: ChipSpec, chips: Float32Array) -> None:
        declared = self.declared_
        self.positions_ = self._positions(spec)
        for given in ("mean", "sd", "wavelengths"):
            values = getattr(declared, given)
            if values is not None and len(values) != len(self.positions_):
                raise ParameterError(
                    f"{given} of {len(values)} numbers for {len(self.positions_)} bands", expected="one a band"
                )
        own_mean, own_sd = _chips.band_statistics(chips[:, :, self.positions_])
        names = [spec.bands[k] for k in self.positions_]
        if spec.named:
            check_wavelengths(declared, names)
        check_standardisation(declared, names, own_mean, own_sd)
        self.band_mean_ = declared.scale * own_mean if declared.mean is None else np.asarray(declared.mean)
        self.band_sd_ = declared.scale * own_sd if declared.sd is None else np.asarray(declared.sd)

    def _positions(self, spec: ChipSpec) -> list[int]:
        if self.declared_.bands is None:
            return list(range(spec.n_bands))
        wanted = [name for _, name in self.declared_.bands]
        missing = [band for band in wanted if band not in spec.bands]
        if missing or not spec.named:
            raise ImageryError(
                f"chips with bands {', '.join(spec.bands) if spec.named else 'without names'}",
                expected=f"the module's bands {', '.join(wanted)}",
                todo="name the imagery's bands (open_imagery(..., bands=...)), or map names: bands={'B08': 'nir'}",
            )
        return [spec.bands.index(band) for band in wanted]

    # ------------------------------------------------------------------ what it reads, for those who feed it
    @property
    def reads_pixels(self) -> bool:
        """Whether the module looks at images, and not at places and dates alone."""
        return not hasattr(self, "declared_") or self.declared_.reads_pixels

    @property
    def reads_dates(self) -> bool:
        """Whether the module takes dates."""
        return hasattr(self, "declared_") and self.declared_.reads_dates

    @property
    def reads_places(self) -> bool:
        """Whether the module takes longitude and latitude."""
        return hasattr(self, "declared_") and self.declared_.reads_places

    # ------------------------------------------------------------------ chip by chip
    def _surroundings(self, X: Any, n_time: int) -> Surroundings:
        return surroundings_of(X, self.declared_, n_time)

    def _times_of(self, X: Any, n_time: int) -> Any:
        """Dates of the images of the first unit, shape (time,); None where the module takes none."""
        times = self._surroundings(X, n_time).times
        return times[0] if times is not None and self.reads_dates else None

    def _encode_view(self, view: ChipView) -> NDArray[np.float64]:
        if self.window_px is not None:
            return self._encode_whole(view)
        places = self._surroundings(view.data, view.spec.n_time)
        out = np.empty((len(view), len(self.get_feature_names_out())))
        for part, chips in view.batches(self.batch_size):
            out[part] = self._encode(chips, places.part(part)).reshape(len(chips), -1)
        return out

    def _encode(self, chips: Float32Array, places: Surroundings) -> NDArray[np.float64]:
        """Features (n, k) of units, or (n * time, k) of their images one by one, of chips (n, time, band, y, x)."""
        if not self.declared_.reads_pixels:
            return self._forward(None, places)
        images = chips[:, :, self.positions_]
        if self.declared_.by_unit:
            return self._forward(images, places)
        images, places = images.reshape(-1, *images.shape[2:]), places.by_date()
        size = self.batch_size
        return np.concatenate([
            self._forward(images[i : i + size], places.part(slice(i, i + size))) for i in range(0, len(images), size)
        ])  # fmt: skip

    def _forward(self, chips: Float32Array | None, places: Surroundings) -> NDArray[np.float64]:
        """Features (n, k) of images (n, [time,] band, y, x) in the imagery's units; NaN without any valid pixel."""
        images, valid = (None, None) if chips is None else self._scaled(chips)
        if images is not None and images.ndim == 5:
            images = np.ascontiguousarray(images.transpose(0, 2, 1, 3, 4))
        features = feature_array(self._computed(lambda net, x: self._features(net, x, places), images))
        if valid is not None:
            features[~valid] = np.nan
        return features

    def _computed(self, compute: Callable[[Any, Any], Any], images: Float32Array | None) -> Any:
        """What ``compute`` gives of the module and images, both on the device, without gradients; in float32."""
        import torch

        device = resolve_device(self.device)
        half = use_half(self.precision, device, by_default=True)
        module = self._network()
        was_training = module.training
        module.eval()
        try:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
                return compute(module.to(device), None if images is None else on_device(images, device)).float()
        finally:
            module.train(was_training)

    def _scaled(self, chips: Float32Array) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Chips of the module's bands on its scale, 0 where invalid, and which have a valid pixel (n,)."""
        valid = np.isfinite(chips).all(axis=-3, keepdims=True)
        mean, sd = (s[:, None, None].astype(np.float32) for s in (self.band_mean_, self.band_sd_))
        images = np.where(valid, (self.declared_.scale * chips - mean) / sd, np.float32(0)).astype(np.float32)
        return images, np.asarray(valid.reshape(len(chips), -1).any(axis=1))

    def _features(self, module: Any, images: Any, places: Surroundings | None = None) -> Any:
        """Features (n, k) that the module gives of images on its scale, with their gradients."""
        found, shape, n = self._called(module, images, places or Surroundings(gsd=self.gsd_))
        if not hasattr(found, "ndim") or found.ndim not in (2, 3, 4) or len(found) != n:
            raise DataError(
                f"the module's {self.method} gives {_shape_of(found)}",
                expected=f"features ({n}, k), tokens (n, token, k) or maps (n, k, y, x)",
                todo="wrap it in a torch.nn.Module whose forward returns features",
            )
        if shape is None:
            return pooled(found, None, (0, 0), None) if found.ndim == 2 else found.flatten(1)
        frames = images.shape[2] if images.ndim == 5 else 1
        return pooled(found, self.declared_.pooling, shape, self.declared_.patch, frames)

    def _called(self, module: Any, images: Any, places: Surroundings) -> tuple[Any, tuple[int, int] | None, int]:
        """What the module gives, the rows and columns of the images that it saw, and of how many."""
        import torch

        declared = self.declared_
        side = declared.image_px
        if images is not None and side and self.window_px is None and tuple(images.shape[-2:]) != (side, side):
            flat = images.reshape(
                -1, images.shape[1] * (images.shape[2] if images.ndim == 5 else 1), *images.shape[-2:]
            )
            flat = torch.nn.functional.interpolate(flat, size=(side, side), mode="bilinear", antialias=True)
            images = flat.reshape(*images.shape[:-2], side, side)
        device = next((p.device for p in module.parameters()), resolve_device(self.device))
        if images is not None:
            device = images.device
        given = arguments(declared, images, places, device)
        shape = None if images is None else (int(images.shape[-2]), int(images.shape[-1]))
        n = len(images) if images is not None else len(_first_of(places))
        try:
            call: Any = module
            for part in self.method.split("."):
                call = getattr(call, part, None) if part != "forward" or call is not module else module
            if call is None:
                raise ParameterError(f"method={self.method!r}", expected=f"a method of {type(module).__name__}")
            found = call(*given)
        except CausalsatError:
            raise
        except torch.OutOfMemoryError as error:
            raise DataError(
                f"the module takes more memory than there is for {n} images",
                todo=f"lower batch_size={self.batch_size}",
            ) from error
        except Exception as error:
            raise _failed(self.method, declared, given, error) from error
        return found if hasattr(found, "ndim") else _first_tensor(found), shape, n

    # ------------------------------------------------------------------ the module
    def _network(self) -> Any:
        """The torch module, shared with all copies of this encoder; with the weights that it was fitted with."""
        made = getattr(self, "_module", None)
        if made is None:
            made = built(self.module, self.weights)
            known = getattr(self, "module_digest_", None)
            if known is not None and weights_digest(made) != known:
                raise ModelFileError(
                    f"the module {reference_of(self.module)!r} with other weights than those of the fit",
                    expected=f"weights with the digest {known[:16]}...",
                    todo="pass weights= or the module with the weights of the fit, or fit again",
                )
            self._module = made
        return made

    def _saved_state(self) -> dict[str, Any]:
        """Attributes for a file: the module by its name and the digest of its weights."""
        state = dict(vars(self))
        if not isinstance(self.module, SavedModule):
            digest = getattr(self, "module_digest_", None) or weights_digest(self._network())
            state["module"] = SavedModule(reference_of(self.module), digest, isinstance(self.module, str))
        return state

    def _take_modules(self, modules: Any) -> None:
        """After loading: the module that the user passes, if its weights are those of the file."""
        saved = self.module
        if not isinstance(saved, SavedModule):
            return
        chosen = choose_module(saved, modules)
        if chosen is saved:
            return
        self.module = chosen
        found = weights_digest(built(chosen, self.weights))
        if found != saved.digest:
            raise ModelFileError(
                f"a module for {saved.name!r} with other weights (digest {found[:16]}...)",
                expected=f"those of the saved model ({saved.digest[:16]}...)",
                todo="load the weights into the module first, or fit again with these",
            )

    def __sklearn_clone__(self) -> ModuleEncoder:
        """A copy of the parameters, unfitted, that shares the module."""
        given = {k: clone(v, safe=False) for k, v in self.get_params(deep=False).items() if k != "module"}
        made = type(self)(module=self.module, **given)
        for name in ("_metadata_request", "_sklearn_output_config"):
            if hasattr(self, name):
                setattr(made, name, deepcopy(getattr(self, name)))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> ModuleEncoder:
        """A copy that shares the module."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for name, value in vars(self).items():
            shared = name in ("module", "_module")
            made.__dict__[name] = None if name == "_cache" else value if shared else deepcopy(value, memo)
        return made

    # ------------------------------------------------------------------ wall to wall
    def _check_dense(self) -> None:
        if self.window_px is None:
            return
        declared = self.declared_
        if declared.patch is None or self.window_px % declared.patch or self.window_px < 4 * declared.patch:
            raise ParameterError(
                f"window_px={self.window_px} with patch={declared.patch}",
                expected="the side of a token's patch, and windows of at least four whole patches",
            )
        if set(declared.quantities) - {"pixels", "wavelengths", "gsd", "dates", "time_waves"}:
            raise ParameterError(
                f"window_px={self.window_px} for a module that takes {', '.join(declared.quantities)}",
                expected="pixels, wavelengths, gsd and dates",
                todo="leave window_px=None: the module is then applied chip by chip",
            )
        if declared.pooling == "cls" or declared.pooling == "tokens":
            raise ParameterError(
                f"window_px={self.window_px} with pooling={declared.pooling!r}",
                expected="pooling='mean': places average their patches",
            )

    def _patch(self) -> int:
        assert self.declared_.patch is not None
        return self.declared_.patch

    def _grid(self) -> TokenGrid:
        assert self.window_px is not None
        return TokenGrid(self._patch(), int(self.window_px), int(self.margin_px_))

    @property
    def halo_px(self) -> int:
        """Pixels around the lattice's squares that are read with them; 0 chip by chip."""
        return int(self.margin_px_) if self.window_px is not None and hasattr(self, "margin_px_") else 0

    @property
    def looks_beyond(self) -> bool:
        """Whether features of a place depend on pixels outside its chip."""
        return self.window_px is not None

    @property
    def lattice_px(self) -> int:
        """Distance between windows, counted from the imagery's first pixel; else 1."""
        return self._grid().core_px if self.window_px is not None else 1

    def clear_cache(self) -> None:
        """Forget the tokens that were computed."""
        self._cache = None

    @property
    def margin_window_px(self) -> int:
        """Side of the windows whose margin is to be measured; 0 where there are none."""
        return int(self.window_px or 0)

    def learn_margin(self, areas: Float32Array) -> NDArray[np.float64]:
        """Measure the margin of windows on pixels around training places.

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
        assert self.window_px is not None
        flat = areas.reshape(-1, *areas.shape[-3:])
        found = border_differences(flat, int(self.window_px), self._patch(), self._tokens)
        self.margin_px_ = margin_from(found, self._patch(), int(self.window_px))
        return found

    def _tokens(self, windows: Float32Array, time: Any = None) -> Float32Array:
        """Tokens (n, g, g, k) of windows (n, band, side, side) in the imagery's units, taken at a time."""
        scaled, _ = self._scaled(windows[:, self.positions_])
        side = int(self.window_px or 0)
        time = self.times_[0] if time is None and self.times_ is not None else time
        times = None if time is None else np.full((len(windows), 1), time)
        places = Surroundings(None, times, self.gsd_)

        def compute(module: Any, images: Any) -> Any:
            with interpolated(module, side // self._patch()):
                found, shape, _ = self._called(module, images, places)
            if not hasattr(found, "ndim") or found.ndim not in (3, 4):
                raise DataError(
                    f"the module's {self.method} gives {_shape_of(found)}",
                    expected="tokens (n, token, k) of the patches",
                    todo="name the method that gives them, method='forward_features', or leave window_px=None",
                )
            return patch_tokens(found, shape or (side, side), self._patch())

        return np.asarray(self._computed(compute, scaled).cpu().numpy(), dtype=np.float32)

    @available_if(_is_dense)
    def dense(
        self,
        window: Float32Array,
        rows: ArrayLike,
        cols: ArrayLike,
        size_px: int,
        head: LinearHead | None = None,
        lonlat: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Features of the places of one window of imagery, each patch computed once.

        Parameters
        ----------
        window : ndarray or DataArray of shape ([time,] band, h, w)
            Pixels; NaN where invalid.
        rows, cols : arrays of shape (n,), int
            Upper-left pixel of each chip, counted from the window's.
        size_px : int
            Side of the chips.
        head : LinearHead, optional
            Applied before pooling.
        lonlat : ndarray of shape (n, 2), optional
            Longitudes and latitudes of the chips' centres, for modules of places alone.

        Returns
        -------
        ndarray of shape (n, features), or (n, k) with a head
        """
        check_is_fitted(self)
        top, left = np.asarray(rows, dtype=np.int64), np.asarray(cols, dtype=np.int64)
        if not self.reads_pixels:
            return self._of_places(window, lonlat, len(top))
        pixels = self._open_known(np.asarray(window)[None]).take(slice(None))[0]
        cache = self._cache = getattr(self, "_cache", None) or TokenCache()
        grid = self._grid()
        salt = f"{resolve_device(self.device)} {self.precision} {self.module_digest_} {grid}"
        times = self._times_of(_as_unit(window), self.n_time_) if self.reads_dates else None
        return features_by_date(
            pixels,
            top,
            left,
            int(size_px),
            grid,
            lambda j: self._tokens if times is None else partial(self._tokens, time=times[j]),
            self.n_outputs_,
            head=head,
            cache=cache,
            salt=lambda j: salt if times is None else f"{salt} {times[j]}",
            at_once=windows_at_once(self.batch_size, grid),
        )

    def _of_places(self, window: Any, lonlat: Any, n: int) -> NDArray[np.float64]:
        """Features of places alone, ``batch_size`` times 64 at a time."""
        shape, dims = (n, *window.shape[:-2], 1, 1), ("unit", *("time", "band", "y", "x")[-window.ndim :])
        import xarray as xr

        coords = {} if lonlat is None else {"lon": ("unit", lonlat[:, 0]), "lat": ("unit", lonlat[:, 1])}
        if hasattr(window, "coords") and "time" in window.coords:
            coords["time"] = window.coords["time"]
        empty = xr.DataArray(np.broadcast_to(np.float32(0), shape), dims=dims, coords=coords)
        places = self._surroundings(empty, self.n_time_)
        step = 64 * self.batch_size
        return np.concatenate([self._forward(None, places.part(slice(i, i + step))) for i in range(0, n, step)])

    def _encode_whole(self, view: ChipView) -> NDArray[np.float64]:
        """Features of the middle of chips that hold a whole window, for those without ImageEncoder."""
        raise ParameterError(
            f"chips of {view.size[0]} x {view.size[1]} pixels with window_px={self.window_px}",
            expected="places on imagery: windows lie at fixed places of it",
            todo="encode places with ImageEncoder, or pass window_px=None",
        )

    def _try_out(self) -> None:
        if self.window_px is None:
            super()._try_out()

    # ------------------------------------------------------------------ to be trained on
    def tunable(self) -> tuple[Any, Callable[[Any, Any], Any]]:
        """A copy of the module, and the function of it and of images that gives features; for fine-tuning."""
        if set(self.declared_.quantities) - {"pixels", "wavelengths", "gsd"} or self.window_px is not None:
            raise ParameterError(
                f"fine-tuning of a module that takes {', '.join(self.declared_.quantities)}",
                expected="pixels chip by chip, with wavelengths and gsd",
                todo="use it as it is, or wrap it in a module of pixels",
            )
        return deepcopy(self._network()).requires_grad_(True), self._features

    def network_images(self, chips: Float32Array) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Images for :meth:`tunable` of chips (n, band, y, x), and which have a valid pixel."""
        return self._scaled(chips[:, self.positions_])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names ``<name>_0, ...``; for a sequence once for each date, with ``t<date>_`` before them."""
        check_is_fitted(self, "n_outputs_")
        names = [f"{self.name}_{j}" for j in range(self.n_outputs_)]
        return np.asarray(names, dtype=object) if self.declared_.by_unit else self._by_date(names)


def _as_unit(window: Any) -> Any:
    """A window as the chips of one unit, with its coordinates."""
    return window.expand_dims("unit") if hasattr(window, "expand_dims") else np.asarray(window)[None]


def _first_of(places: Surroundings) -> Any:
    return places.lonlat if places.lonlat is not None else places.times


def _first_tensor(found: Any) -> Any:
    """The first tensor of a tuple, or what networks of Hugging Face call the last hidden state."""
    for name in ("last_hidden_state", "pooler_output"):
        value = getattr(found, name, None)
        if hasattr(value, "ndim"):
            return value
    if isinstance(found, tuple | list) and found and hasattr(found[0], "ndim"):
        return found[0]
    return found


def _shape_of(found: Any) -> Any:
    return tuple(found.shape) if hasattr(found, "shape") else type(found).__name__


def _failed(method: str, declared: Declaration, given: tuple[Any, ...], error: Exception) -> DataError:
    items = given[0].items() if isinstance(declared.takes, dict) else zip(declared.takes, given, strict=True)
    shown = ", ".join(f"{name} {_shape_of(value)}" for name, value in items)
    lines = str(error).strip().splitlines()
    return DataError(
        f"the module's {method} failed on {shown}: {type(error).__name__}: {lines[0][:200] if lines else ''}",
        expected="a module that takes what is declared",
        todo="declare its arguments with takes= (their order, or the keys of its dictionary), the size of its images "
        "with image_px= and its bands with bands=",
    )
