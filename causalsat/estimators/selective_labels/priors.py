"""Priors of the selective-labels models: which may be set, checked on input; for density, PyMC model and summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ParameterError

FloatArray = NDArray[np.float64]
Pair = tuple[float, float]

NORMAL, HALF_NORMAL, CONCENTRATION = "normal", "half-normal", "concentration"
COEFFICIENT: Pair = (0.0, 3.0)
SCALE: Pair = (0.0, 3.0)

RISK: dict[str, tuple[str, Pair]] = {
    "risk": (NORMAL, COEFFICIENT),
    "risk_intercept": (NORMAL, COEFFICIENT),
    "decision": (NORMAL, COEFFICIENT),
    "decision_intercept": (NORMAL, COEFFICIENT),
    "sigma": (HALF_NORMAL, SCALE),
    "alpha": (NORMAL, COEFFICIENT),
}
OUTCOME: dict[str, tuple[str, Pair]] = {
    "outcome": (NORMAL, COEFFICIENT),
    "outcome_intercept": (NORMAL, COEFFICIENT),
    "decision": (NORMAL, COEFFICIENT),
    "decision_intercept": (NORMAL, COEFFICIENT),
    "sigma": (HALF_NORMAL, SCALE),
    "correlation": (CONCENTRATION, (0.0, 1.0)),
}
TAKES = {
    NORMAL: "a standard deviation, or (mean, standard deviation)",
    HALF_NORMAL: "the scale of a half-normal",
    CONCENTRATION: "the exponent eta of (1 - r^2)^(eta - 1), 1 for uniform",
}


@dataclass(frozen=True)
class Priors:
    """Checked priors.

    Attributes
    ----------
    values : dict of str to (float, float)
        By name: (mean, standard deviation) of a normal, (0, scale) of a half-normal, (0, eta) of a correlation.
    kinds : dict of str to str
        By name: which of the three it is.
    """

    values: dict[str, Pair]
    kinds: dict[str, str] = field(repr=False)

    def coefficients(self, equation: str, p: int) -> FloatArray:
        """Means and standard deviations of an equation's coefficients, shape (2, p), the intercept's first."""
        slopes, intercept = self.values[equation], self.values[f"{equation}_intercept"]
        return np.column_stack([np.array(intercept), np.tile(np.array(slopes)[:, None], (1, p - 1))])

    def scale(self, name: str) -> float:
        """Scale of a half-normal, exponent of a correlation's prior, or standard deviation of a normal."""
        return self.values[name][1]

    def mean(self, name: str) -> float:
        """Mean of a normal."""
        return self.values[name][0]

    def describe(self, *, fixed: tuple[str, ...] = ()) -> str:
        """One line that says them all, but those of what is fixed."""
        return "priors: " + "; ".join(
            f"{name.replace('_', ' ')} {_density(self.kinds[name], pair)}"
            for name, pair in self.values.items()
            if name not in fixed
        )


def _density(kind: str, pair: Pair) -> str:
    if kind == NORMAL:
        return f"N({pair[0]:g}, {pair[1]:g}^2)"
    if kind == HALF_NORMAL:
        return f"half-normal({pair[1]:g})"
    return "uniform" if pair[1] == 1.0 else f"(1 - r^2)^{pair[1] - 1.0:g}"


def read_priors(given: Mapping[str, Any] | None, known: Mapping[str, tuple[str, Pair]]) -> Priors:
    """Priors of a model, the given ones in the place of its own.

    Parameters
    ----------
    given : mapping of str to float or (float, float), or None
        A number is a standard deviation, scale or exponent; a pair, of a normal only, its mean and sd.
    known : mapping of str to (str, (float, float))
        ``RISK`` or ``OUTCOME``: each name's kind and default.

    Examples
    --------
    >>> priors = read_priors({"risk_intercept": (-2, 0.5), "sigma": 1}, RISK)
    >>> priors.coefficients("risk", 3).tolist(), priors.scale("sigma")
    ([[-2.0, 0.0, 0.0], [0.5, 3.0, 3.0]], 1.0)
    """
    if given is not None and not isinstance(given, Mapping):
        raise ParameterError(f"priors={given!r}", expected=f"a dict with some of {', '.join(known)}")
    values = {name: default for name, (_, default) in known.items()}
    for name, value in (given or {}).items():
        if name not in known:
            raise ParameterError(f"priors has {name!r}", expected=f"some of {', '.join(known)}")
        values[name] = _pair(name, value, known[name][0])
    return Priors(values, {name: kind for name, (kind, _) in known.items()})


def _pair(name: str, value: Any, kind: str) -> Pair:
    try:
        parts = (
            [float(v) for v in value] if np.iterable(value) and not isinstance(value, str) else [0.0, float(value)]
        )
    except (TypeError, ValueError):
        parts = []
    paired = np.iterable(value)
    if len(parts) != 2 or not np.isfinite(parts).all() or not parts[1] > 0 or (paired and kind != NORMAL):
        raise ParameterError(f"priors[{name!r}] is {value!r}", expected=f"{TAKES[kind]}; finite and above 0")
    return parts[0], parts[1]


RISK_PRIORS, OUTCOME_PRIORS = read_priors(None, RISK), read_priors(None, OUTCOME)
