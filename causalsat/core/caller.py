"""Warnings that name the user's own line, wherever in the package they are raised."""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

__all__ = ["warn_user"]


def _folder(package: str) -> str:
    spec = find_spec(package)
    return str(Path(spec.origin).parent) if spec is not None and spec.origin else package


_OWN = str(Path(__file__).parents[1])
_INSIDE = tuple(f"{folder}{sep}" for folder in (_OWN, _folder("sklearn"), _folder("joblib")) for sep in ("/", "\\"))


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn with the file and line of the user's call: the first frame outside causalsat, scikit-learn and joblib.

    Parameters
    ----------
    message : str
        What happened, what it means, what to do.
    category : type of Warning
        A class of :mod:`causalsat.exceptions`.

    Examples
    --------
    >>> from causalsat.exceptions import DataWarning
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warn_user("3 units have no village", DataWarning)
    >>> caught[0].category.__name__, str(caught[0].message)
    ('DataWarning', '3 units have no village')
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
