"""A user's module by reference: where its code is, the digest of its weights, and what stands for it in a file.

A model file names the module and holds no code. What was loaded computes nothing until the user passes the module
again, or says that the reference is trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from causalsat.core.references import looked_up
from causalsat.encoders.networks.backbones import load_weights
from causalsat.exceptions import ModelFileError, ParameterError

__all__ = ["SavedModule", "built", "choose_module", "is_module", "reference_of", "weights_digest"]

_BUILT: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


@dataclass(frozen=True)
class SavedModule:
    """What stands for a module in a file.

    Attributes
    ----------
    name : str
        ``"package.module:factory"`` or ``"file.py:factory"``, or the class of a module that was passed itself.
    digest : str
        SHA-256 of its weights.
    is_reference : bool
        Whether the name can be built from.
    """

    name: str
    digest: str
    is_reference: bool


def is_module(value: Any) -> bool:
    """Whether a value is a torch module."""
    return hasattr(value, "state_dict") and hasattr(value, "forward")


def reference_of(module: Any) -> str:
    """Name of a module: its reference, or its class."""
    if isinstance(module, str):
        return module
    return f"{type(module).__module__}:{type(module).__qualname__}"


def weights_digest(module: Any) -> str:
    """SHA-256 of a module's state: names, types, shapes and bytes."""
    import torch

    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            sha.update(f"{name} {value!r}".encode())
            continue
        flat = value.detach().cpu().contiguous()
        sha.update(f"{name} {flat.dtype} {tuple(flat.shape)}".encode())
        sha.update(flat.reshape(-1).view(torch.uint8).numpy().data if flat.numel() else b"")
    return sha.hexdigest()


def built(module: Any, weights: Any) -> Any:
    """The torch module that a parameter means, with weights from a file where these are given.

    Modules of one reference and one file are built once in a process and shared; a module that is passed itself is
    shared as it is, and copied once where a file's weights are put into it.

    Parameters
    ----------
    module : torch.nn.Module, str or callable
        A module; ``"package.module:factory"`` or ``"file.py:factory"``; or a function that makes one.
    weights : path, (path, digest) or None
        File of a state dict; the digest is the SHA-256 of the file, in hexadecimal digits.

    Raises
    ------
    ParameterError
        If nothing is found under the name, or what is made is no torch module.
    ModelFileError
        If the file is not there, has another digest, or other arrays than the module.
    """
    if isinstance(module, SavedModule):
        raise _not_trusted(module)
    path, digest = weights if isinstance(weights, tuple | list) else (weights, None)
    if path is None and is_module(module):
        return module
    stamp = None if path is None else _stamp(Path(path), digest)
    key = (_source(module) if isinstance(module, str) else id(module), stamp)
    made = _BUILT.get(key)
    if made is None:
        made = _made(module, copy=path is not None)
        if path is not None:
            _fill(made, load_weights(path), str(path))
        made.eval()
        _BUILT[key] = made
        if not isinstance(module, str):
            made.__dict__["_made_from"] = module  # keeps the id that is the key
    return made


def _source(reference: str) -> tuple[Any, ...]:
    """A reference, with the state of the file where it is one: an edited file is read again."""
    home = reference.rpartition(":")[0]
    if not home.endswith(".py") or not Path(home).is_file():
        return (reference,)
    return reference, Path(home).stat().st_mtime_ns


def _stamp(path: Path, digest: Any) -> tuple[Any, ...]:
    if not path.is_file():
        raise ModelFileError(f"weights={str(path)!r} is not a file", expected="a .pth or .safetensors file")
    if digest is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != str(digest).removeprefix("sha256:").lower():
            raise ModelFileError(
                f"{path.name} has the digest {found[:16]}...",
                expected=f"{str(digest)[:23]}...",
                todo="get the file again, or pass the digest of the one that is meant",
            )
    status = path.stat()
    return str(path.resolve()), status.st_mtime_ns, status.st_size


def _made(module: Any, *, copy: bool) -> Any:
    from copy import deepcopy

    if is_module(module):
        return deepcopy(module) if copy else module
    factory = looked_up(module, "module", "a module") if isinstance(module, str) else module
    made = factory if is_module(factory) and not isinstance(factory, type) else None
    if made is None and callable(factory):
        made = factory()
    if made is None or not is_module(made):
        raise ParameterError(
            f"module={module!r} gives a {type(made or factory).__name__}",
            expected="a torch.nn.Module, or a function without arguments that returns one",
        )
    return deepcopy(made) if copy and made is factory else made


def _fill(module: Any, state: dict[str, Any], name: str) -> None:
    """Put a state dict into a module, under whatever prefix it was stored."""
    wanted = module.state_dict()
    if not set(wanted) & set(state) and wanted:
        first = min(wanted)
        prefix = next((key[: -len(first)] for key in state if key.endswith("." + first)), "")
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    absent = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [k for k in wanted if k in state and tuple(state[k].shape) != tuple(wanted[k].shape)]
    if absent or wrong:
        first, kind = (absent or wrong)[0], "lacks" if absent else "has other shapes for"
        raise ModelFileError(
            f"{name} {kind} {len(absent or wrong)} of the {len(wanted)} arrays of the module, the first {first!r}",
            expected="the state dict of this very module",
            todo="build the module with the settings that the weights were trained with",
        )
    module.load_state_dict({k: state.get(k, v) for k, v in wanted.items()})


# ---------------------------------------------------------------------- after loading
def _not_trusted(saved: SavedModule) -> ParameterError:
    trusted = f", or modules=[{saved.name!r}] if you trust that code" if saved.is_reference else ""
    return ParameterError(
        f"a model file that refers to the module {saved.name!r}, which is not loaded: a file runs no code",
        expected="the module itself",
        todo=f"causalsat.load(path, modules={{{saved.name!r}: your_module}}){trusted}",
    )


def choose_module(saved: SavedModule, modules: Any) -> Any:
    """What the user passes for a saved module: a module, a reference that is trusted, or the saved one unchanged.

    Parameters
    ----------
    saved : SavedModule
    modules : module, callable, mapping of names to these, or collection of trusted references
        A mapping's value True trusts the reference.
    """
    if is_module(modules):
        return modules
    if isinstance(modules, Mapping):
        given = modules.get(saved.name)
        if given is None or given is False:
            return saved
        if given is True:
            return saved.name if saved.is_reference else saved
        return given if is_module(given) else _made(given, copy=False)
    if isinstance(modules, str):
        modules = [modules]
    if isinstance(modules, Callable):  # type: ignore[arg-type]
        return _made(modules, copy=False)
    return saved.name if saved.is_reference and saved.name in modules else saved
