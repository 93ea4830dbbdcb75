"""Which effects of villages a model has: intercepts, and slopes in the treatment where those can be told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData, FloatArray

__all__ = ["n_mixed_groups", "n_village_effects"]

MIN_MIXED_GROUPS = 10  # villages that hold several treatments, for group_slopes="auto"


def n_village_effects(data: FitData, *, group_effects: bool, group_slopes: bool | str) -> int:
    """Effects of each village: 0 none, 1 intercept, 2 intercept and slope in the treatment.

    Parameters
    ----------
    data : FitData
        Checked training data; without groups, or with one unit in each, villages have no effect.
    group_effects : bool
        Whether villages have intercepts.
    group_slopes : bool or "auto"
        Whether they have slopes; "auto": where at least ten villages hold several treatments. In a trial that treats
        whole villages slopes cannot be told from intercepts.
    """
    if data.groups is None or not group_effects or not 1 < data.n_groups < len(data.y):
        return 0
    if group_slopes == "auto":
        return 2 if n_mixed_groups(data.groups, data.treatment) >= MIN_MIXED_GROUPS else 1
    return 2 if group_slopes else 1


def n_mixed_groups(groups: NDArray[np.int64], treatment: FloatArray) -> int:
    """Number of groups that hold units of several treatments.

    Examples
    --------
    >>> n_mixed_groups(np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 1.0, 1.0]))
    1
    """
    n_groups = int(groups.max()) + 1
    low, high = np.full(n_groups, np.inf), np.full(n_groups, -np.inf)
    np.minimum.at(low, groups, treatment)
    np.maximum.at(high, groups, treatment)
    return int((high > low).sum())
