"""Where a user's code is: names of functions that can be imported again, and the digest of their source."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any

from causalsat.exceptions import ParameterError

__all__ = ["looked_up", "name_of", "source_digest"]


def looked_up(reference: str, parameter: str, kind: str) -> Any:
    """What a reference names; its module or file is imported.

    Parameters
    ----------
    reference : str
        ``"package.module:name"`` or ``"path/to/file.py:name"``.
    parameter, kind : str
        Of the caller and what it takes beside a reference ("a module"), for errors.

    Raises
    ------
    ParameterError
        If it is not written like that, or nothing is found under it.

    Examples
    --------
    >>> looked_up("statistics:fmean", "build", "a function")([1, 2])
    1.5
    """
    home, _, name = reference.rpartition(":")
    todo = "write it as 'package.module:factory' or 'path/to/file.py:factory'"
    if not home or not name:
        raise ParameterError(f"{parameter}={reference!r}", expected=f"{kind}, or where to find it", todo=todo)
    try:
        if home.endswith(".py"):
            if not Path(home).is_file():
                raise ParameterError(f"{parameter}={reference!r}, and there is no file {home!r}", todo=todo)
            spec = importlib.util.spec_from_file_location(f"causalsat_user_{Path(home).stem}", home)
            assert spec is not None
            assert spec.loader is not None
            found: Any = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found)
        else:
            found = importlib.import_module(home)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ParameterError(f"{parameter}={reference!r} is not found ({error})", todo=todo) from error
    return found


def name_of(value: Any) -> str:
    """Reference of a function or class by its module and qualified name; of other objects that of their class.

    Examples
    --------
    >>> name_of(looked_up)
    'causalsat.core.references:looked_up'
    """
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def source_digest(function: Any) -> str:
    """SHA-256 of a function's source text; empty where Python does not know the source.

    Examples
    --------
    >>> len(source_digest(looked_up)), source_digest(len)
    (64, '')
    """
    try:
        text = inspect.getsource(inspect.unwrap(function) if callable(function) else function)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()
