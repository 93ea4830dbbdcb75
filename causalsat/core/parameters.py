"""Checks of constructor parameters, called at the start of fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from causalsat.exceptions import ParameterError

__all__ = ["check_flags", "check_whole_numbers"]


def check_whole_numbers(estimator: Any, least: Mapping[str, int], *, otherwise: str = "") -> None:
    """Raise ParameterError where a named parameter is not a whole number of at least the given size.

    ``otherwise`` is what it may be instead, for the message.
    """
    for name, low in least.items():
        value = getattr(estimator, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ParameterError(
                f"{name}={value!r}", expected=f"an integer of at least {low}{otherwise and f', or {otherwise}'}"
            )


def check_flags(estimator: Any, names: Iterable[str]) -> None:
    """Raise ParameterError where a named parameter is neither True nor False."""
    for name in names:
        value = getattr(estimator, name)
        if not isinstance(value, (bool, np.bool_)):
            raise ParameterError(f"{name}={value!r}", expected="True or False")
