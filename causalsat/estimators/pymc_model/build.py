"""A user's build function: where it is, the digest of its source, and what stands for it in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from causalsat.core.references import looked_up, name_of, source_digest
from causalsat.estimators.pymc_model.linear import linear_effect
from causalsat.exceptions import ModelFileError, ParameterError

__all__ = ["SavedBuild", "build_function", "chosen_build", "saved_build"]


@dataclass(frozen=True)
class SavedBuild:
    """What stands for a build function in a file.

    Attributes
    ----------
    name : str
        ``"package.module:function"`` or ``"file.py:function"``.
    digest : str
        SHA-256 of its source text; empty where Python did not know it.
    is_reference : bool
        Whether the parameter was a reference, which can be imported again.
    """

    name: str
    digest: str
    is_reference: bool


def build_function(build: Any) -> Callable[[Any], Any]:
    """The function that a parameter means; the linear model where there is none.

    Raises
    ------
    ParameterError
        If it is no function, nothing is found under a reference, or it was loaded and not given again.
    """
    if build is None:
        return linear_effect
    if isinstance(build, SavedBuild):
        trusted = f", or modules=[{build.name!r}] if you trust that code" if build.is_reference else ""
        raise ParameterError(
            f"a model file that refers to the function {build.name!r}, which is not loaded: a file runs no code",
            expected="the function itself, to fit again",
            todo=f"causalsat.load(path, modules={{{build.name!r}: your_function}}){trusted}",
        )
    found = looked_up(build, "build", "a function") if isinstance(build, str) else build
    if isinstance(found, type) or not callable(found):
        raise ParameterError(
            f"build={build!r}",
            expected="a function that takes the data and returns a pymc.Model, or where to find it: "
            "'package.module:function'",
        )
    return found  # type: ignore[no-any-return]


def saved_build(build: Any) -> SavedBuild:
    """What stands for a build function in a file."""
    if isinstance(build, str):
        return SavedBuild(build, source_digest(build_function(build)), is_reference=True)
    return SavedBuild(name_of(build), source_digest(build), is_reference=False)


def chosen_build(saved: SavedBuild, modules: Any) -> Any:
    """What the user passes for a saved build function; the saved one where nothing is passed for it.

    Parameters
    ----------
    saved : SavedBuild
    modules : callable, mapping of names to functions, or collection of trusted references
        A mapping's value True trusts the reference.

    Raises
    ------
    ModelFileError
        If the function's source is not that of the fit.
    """
    chosen: Any = None
    if isinstance(modules, Mapping):
        given = modules.get(saved.name)
        chosen = (saved.name if saved.is_reference else None) if given is True else given or None
    elif hasattr(modules, "state_dict"):  # a torch module, of an encoder
        return saved
    elif callable(modules):
        chosen = modules
    elif saved.is_reference and saved.name in ([modules] if isinstance(modules, str) else modules):
        chosen = saved.name
    if chosen is None:
        return saved
    digest = source_digest(build_function(chosen))
    if saved.digest and digest != saved.digest:
        raise ModelFileError(
            f"a function for {saved.name!r} with another source (digest {digest[:16] or 'unknown'}...)",
            expected=f"that of the saved model ({saved.digest[:16]}...)",
            todo="pass the function of the fit, or fit a new PyMCEffect with this one",
        )
    return chosen
