"""What a trial's treatment tells apart: levels that are no doses, levels unknown to a fit, effects of villages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.base import EffectEstimator
from causalsat.core.inputs import FitData, FloatArray
from causalsat.core.treatment import two_values
from causalsat.exceptions import ParameterError
from causalsat.posterior import EffectPosterior

__all__ = ["FittedLevels", "check_coding", "is_binary", "n_mixed_groups", "n_village_effects"]


def is_binary(treatment: FloatArray) -> bool:
    """Whether each unit is control (0) or treated (1)."""
    return bool(np.isin(treatment, (0.0, 1.0)).all())


def check_coding(treatment: FloatArray) -> None:
    """Refuse a treatment with two values that are not 0 and 1: almost always codes, not doses."""
    values = np.unique(treatment)
    if len(values) == 2 and not np.array_equal(values, (0.0, 1.0)):
        raise two_values(*values)


class FittedLevels(EffectEstimator):
    """An estimator for binary treatments and doses: a fit to a binary one (``binary_``) knows 0 and 1 only."""

    _binary_treatment: ClassVar[bool] = False
    binary_: bool

    def _check_level(self, value: Any, n: int, name: str) -> FloatArray:
        level: FloatArray = super()._check_level(value, n, name)
        if self.binary_ and not is_binary(level):
            raise ParameterError(f"{name}={value!r}", expected="0 or 1: the fitted treatment was binary")
        return level

    def _outcome_posterior(
        self, X: Any, treatment: Any, draws_of: Callable[[FloatArray, FloatArray], FloatArray]
    ) -> Any:
        """Posterior of the mean outcome at levels, whose draws are made of the checked features and levels."""
        design, index = self._check_predict(X)
        level = self._check_level(treatment, len(index), "treatment")
        about = self._diagnostics()
        return EffectPosterior(
            draws_of(design, level),
            index=index,
            kind="outcome",
            treatment=treatment,
            baseline=None,
            diagnostics=about,
        )


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
