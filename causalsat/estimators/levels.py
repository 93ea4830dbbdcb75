"""Treatment levels: codes that are no doses, and levels of which a fit to a binary treatment knows nothing."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from causalsat.base import EffectEstimator
from causalsat.core.inputs import FloatArray
from causalsat.core.treatment import two_values
from causalsat.exceptions import ParameterError

__all__ = ["FittedLevels", "check_coding", "is_binary"]


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
