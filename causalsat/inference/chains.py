"""Lengths of chains and their seed: shared by the samplers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Settings", "seed_of"]


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
