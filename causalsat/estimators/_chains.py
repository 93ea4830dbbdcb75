"""Lengths of chains, their seed, and the checks of both: shared by the samplers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalsat.exceptions import ParameterError

__all__ = ["Settings", "check_whole_numbers", "seed_of"]


@dataclass(frozen=True)
class Settings:
    """Sampler settings: draws and tuning draws a chain, chains, seed, progress bar."""

    n_draws: int
    n_tune: int
    n_chains: int
    seed: int
    progress: bool = False


def seed_of(random_state: Any) -> int:
    """A seed from an int, a RandomState, a Generator or None."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(2**31 - 1))


def check_whole_numbers(estimator: Any, least: Mapping[str, int]) -> None:
    """Raise ParameterError where a named parameter is not a whole number of at least the given size."""
    for name, low in least.items():
        value = getattr(estimator, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ParameterError(f"{name}={value!r}", expected=f"an integer of at least {low}")
