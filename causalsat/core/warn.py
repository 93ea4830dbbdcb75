"""Warnings that point at the line of the user's code, however deep in the package they are given."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

BETWEEN = ("causalsat", "sklearn", "joblib")  # packages whose frames lie between the user and the warning


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning with the place of the first frame that is not the package's, nor scikit-learn's.

    Parameters
    ----------
    message : str
        What the user should know, and what can be done about it.
    category : type of Warning
        One of :mod:`causalsat.exceptions`.

    Examples
    --------
    >>> import warnings
    >>> from causalsat.exceptions import DataWarning
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("3 of 40 units have no image", DataWarning)
    >>> print(caught[0].category.__name__, "|", caught[0].message)
    DataWarning | 3 of 40 units have no image
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
