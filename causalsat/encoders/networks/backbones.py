"""torchvision backbones: built for any number of bands, heads removed, weights from files without pickle."""

from __future__ import annotations

from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

from causalsat.exceptions import ModelFileError, ParameterError

__all__ = ["build_backbone", "fixed_input", "load_weights", "split_weights"]

_FIXED_INPUT = {"vit_": 224, "maxvit": 224, "inception_v3": 299}  # backbones that accept one size of image only


def fixed_input(name: str) -> int | None:
    """Side of the images that a backbone insists on, or None."""
    return next((size for stem, size in _FIXED_INPUT.items() if name.startswith(stem)), None)


def build_backbone(name: str, n_bands: int, weights: dict[str, Any] | str | None, seed: int | None) -> Any:
    """Build a frozen torchvision model without its head, for images of ``n_bands`` bands.

    Parameters
    ----------
    name : str
        A name of ``torchvision.models.list_models()``.
    n_bands : int
        Bands of the images.
    weights : dict of tensors, "DEFAULT" or None
        A state dict, torchvision's own weights (downloaded), or random ones.
    seed : int or None
        Seed of random weights.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, giving penultimate features (n, features).
    """
    import torch
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = [k for k in known if k.split("_")[0].rstrip("0123456789") in name][:6] or known[:6]
        raise ParameterError(
            f"backbone={name!r}",
            expected=f"a classification model of torchvision, such as {', '.join(close)}",
            todo="see torchvision.models.list_models()",
        )
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        filled = isinstance(weights, dict) and "resn" in name  # every array of a ResNet is in its state
        with torch.device("meta") if filled else nullcontext():  # no random numbers that are overwritten
            module = models.get_model(name, weights="DEFAULT" if weights == "DEFAULT" else None)
        if filled:
            module = _empty(module)
        _drop_head(module, name)
        if isinstance(weights, dict):
            _load_state(module, weights, name)
        _adapt_first(module, n_bands)
    return module.eval().requires_grad_(False)


def _empty(module: Any) -> Any:
    """A module built on no device, with memory that is yet to be filled; its counters are 0."""
    import torch

    module = module.to_empty(device="cpu")
    for name, counter in module.named_buffers():
        if name.endswith("num_batches_tracked"):
            torch.nn.init.zeros_(counter)
    return module


def _drop_head(module: Any, name: str) -> None:
    """Replace the last linear layer by the identity."""
    import torch

    linear = [path for path, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)]
    if not linear or "attention" in linear[-1]:
        raise ParameterError(
            f"backbone={name!r} has no linear head to take off",
            expected="a classification model such as resnet18",
            todo="choose another backbone",
        )
    _replace(module, linear[-1], torch.nn.Identity())


def _replace(module: Any, path: str, layer: Any) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(module.get_submodule(parent), leaf, layer)


def _first_convolution(module: Any) -> tuple[str, Any]:
    import torch

    return next((path, layer) for path, layer in module.named_modules() if isinstance(layer, torch.nn.Conv2d))


def _adapt_first(module: Any, n_bands: int) -> None:
    """Give the first convolution ``n_bands`` inputs.

    Each band gets the average of the old bands' weights, times old over new number of bands: bands that are all
    equal give the response that they gave before.
    """
    import torch

    path, old = _first_convolution(module)
    if old.in_channels == n_bands:
        return
    new = torch.nn.Conv2d(
        n_bands, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, bias=old.bias is not None
    )
    with torch.no_grad():
        mean = old.weight.mean(dim=1, keepdim=True) * (old.in_channels / n_bands)
        new.weight.copy_(mean.expand_as(new.weight))
        if old.bias is not None:
            new.bias.copy_(old.bias)  # type: ignore[union-attr]
    _replace(module, path, new)


def _load_state(module: Any, state: dict[str, Any], name: str) -> None:
    """Fill a headless module; the file's first convolution may have any number of bands, its head is ignored."""
    import torch

    wanted = module.state_dict()
    state = _strip_prefix(state, set(wanted))
    path, _ = _first_convolution(module)
    first = state.get(f"{path}.weight")
    if first is not None and first.ndim == 4:
        _adapt_first(module, int(first.shape[1]))
        wanted = module.state_dict()
    absent = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [k for k in wanted if k in state and tuple(state[k].shape) != tuple(wanted[k].shape)]
    if absent or wrong:
        bad = absent or wrong
        kind = "lacks" if absent else "has other shapes for"
        raise ModelFileError(
            f"the weights file {kind} {len(bad)} of the {len(wanted)} arrays of {name}, the first {bad[0]!r}",
            expected=f"the state dict of torchvision's {name}",
            todo="choose the backbone that the weights belong to",
        )
    with torch.no_grad():
        module.load_state_dict({k: state.get(k, v) for k, v in wanted.items()})


def _strip_prefix(state: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    """Take off the prefix ("module.", "backbone.") under which training frameworks store a network."""
    if wanted & set(state):
        return state
    first = min(wanted)
    prefix = next((key[: -len(first)] for key in state if key.endswith("." + first)), "")
    return {key.removeprefix(prefix): value for key, value in state.items()}


def load_weights(path: str | PathLike[str]) -> dict[str, Any]:
    """Tensors of a ``.safetensors`` file or a torch state dict, read without executing anything in it."""
    import torch

    file = Path(path)
    if not file.is_file():
        raise ModelFileError(
            f"weights={str(path)!r} is not a file",
            expected="None, 'DEFAULT', or the path of a .pth or .safetensors file",
            todo="check the path",
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(str(file))
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFileError(
            f"{str(path)!r} cannot be read as weights ({type(error).__name__})",
            expected="a state dict saved by torch.save(model.state_dict(), path), or .safetensors",
            todo="save only the state dict; pickled models are refused",
        ) from error
    while isinstance(state, dict) and not any(hasattr(v, "shape") for v in state.values()):
        nested = next((state[k] for k in ("state_dict", "model", "model_state_dict") if k in state), None)
        if not isinstance(nested, dict):
            break
        state = nested
    if not isinstance(state, dict) or not any(hasattr(v, "shape") for v in state.values()):
        raise ModelFileError(f"{str(path)!r} holds no state dict", expected="names and tensors")
    return {str(k): v for k, v in state.items() if hasattr(v, "shape")}


def split_weights(module: Any) -> dict[str, Any]:
    """State of a module as arrays."""
    return {k: v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}
