"""Overlap: whether treated and control units are comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import aligned
from causalsat.core.svg import intervals_svg
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OverlapResult", "effective_sample_size", "overlap"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OverlapResult(Tabular):
    """Propensities by arm, effective sample sizes and balance.

    Attributes
    ----------
    quantiles : ndarray of shape (2, 5)
        Minimum, 5 %, median, 95 %, maximum of the propensity among control and among treated units.
    share_extreme : float
        Weighted share of units with a propensity below ``bound`` or above 1 - ``bound``.
    bound : float
        What counts as extreme.
    ess : ndarray of shape (2,)
        Effective sample size of control and treated units under inverse-propensity weights.
    n : ndarray of int of shape (2,)
        Control and treated units.
    names : tuple of str
        Names of the features.
    smd_raw, smd_weighted : ndarray of shape (p,)
        Standardised mean difference of each feature, treated less control, before and after inverse-propensity
        weighting; in the same unit, the pooled standard deviation of the arms before weighting.
    """

    quantiles: FloatArray
    share_extreme: float
    bound: float
    ess: FloatArray
    n: NDArray[np.int64]
    names: tuple[str, ...]
    smd_raw: FloatArray
    smd_weighted: FloatArray

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row an arm: n, ess, min, q05, median, q95, max of the propensity."""
        import pandas as pd

        table = pd.DataFrame(self.quantiles, columns=["min", "q05", "median", "q95", "max"])
        table.insert(0, "ess", self.ess)
        table.insert(0, "n", self.n)
        table.index = pd.Index(["control", "treated"], name="arm")
        return table

    def balance(self) -> pd.DataFrame:
        """Table with one row a feature: standardised differences, raw and weighted."""
        import pandas as pd

        columns = {"raw": self.smd_raw, "weighted": self.smd_weighted}
        return pd.DataFrame(columns, index=pd.Index(self.names, name="feature"))

    def _picture(self) -> str:
        low, mid, high = self.quantiles[:, 1], self.quantiles[:, 2], self.quantiles[:, 3]
        title = "Median propensity of each arm, and the range of its middle 90 %"
        return intervals_svg(["control", "treated"], mid, low, high, title=title, axis="propensity", reference=None)

    def _notes(self) -> list[str]:
        return [
            f"{self.share_extreme:.1%} of the units have a propensity below {self.bound:g} or above "
            f"{1 - self.bound:g}. Largest standardised difference of a feature: "
            f"{np.abs(self.smd_raw).max(initial=0):.3f}, weighted {np.abs(self.smd_weighted).max(initial=0):.3f}."
        ]


def effective_sample_size(weights: ArrayLike) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2.

    Examples
    --------
    >>> effective_sample_size([1.0, 1.0, 1.0, 1.0])
    4.0
    >>> effective_sample_size([1.0, 0.0, 0.0, 0.0])
    1.0
    """
    w = checks.numbers(weights, "weights")
    if not len(w) or (w < 0).any() or not (w > 0).any():
        what = "no weight" if not len(w) else "negative weights" if (w < 0).any() else "every weight zero"
        raise DataError(what, expected="non-negative weights with a positive sum")
    w = w / w.max()  # squares of very small or large weights leave the doubles
    return float(w.sum() ** 2 / (w**2).sum())


@aligned("propensity", "treatment", "X", "weights")
def overlap(
    propensity: ArrayLike | float,
    treatment: ArrayLike,
    X: Any = None,
    *,
    weights: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    bound: float = 0.05,
) -> OverlapResult:
    """Summarise propensities, inverse-propensity weights and the balance of features.

    Parameters
    ----------
    propensity : array of shape (n,) or float
        Probability of treatment, strictly between 0 and 1.
    treatment : array of shape (n,)
        0/1 treatment.
    X : array or DataFrame of shape (n, p), optional
        Features to check the balance of; missing values are left out feature by feature.
    weights : array of shape (n,), optional
        Survey weights.
    names : sequence of str, optional
        The features' names.
    bound : float
        Propensities within it of 0 or 1 count as extreme.

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If an input cannot be used.

    Examples
    --------
    >>> result = overlap(0.5, [0, 1, 0, 1], [[0.0], [1.0], [1.0], [2.0]])
    >>> result.ess, result.smd_raw.round(2)
    (array([2., 2.]), array([2.]))
    """
    if not 0 < bound < 0.5:
        raise ParameterError(f"bound={bound!r}", expected="a number between 0 and 0.5")
    n = len(np.asarray(treatment))
    t = inputs.check_treatment(treatment, n, binary=True)
    e = inputs.check_propensity(propensity, n)
    assert e is not None
    w = inputs.check_weights(weights, n)
    inverse = w * np.where(t > 0, 1 / e, 1 / (1 - e))
    arms = [t == 0, t > 0]
    table = np.empty((n, 0)) if X is None else np.asarray(inputs.features_only(X, set()), dtype=float)
    if table.ndim != 2 or len(table) != n:
        raise DataError(f"X of shape {table.shape} for {n} units", expected="a table (unit, feature)")
    if names is None:
        names = [str(c) for c in X.columns] if inputs.is_dataframe(X) else [f"x{j}" for j in range(table.shape[1])]
        if inputs.is_dataframe(X) and len(names) != table.shape[1]:  # a geometry column is not a feature
            names = [str(c) for c in inputs.features_only(X, set()).columns]
    if len(names) != table.shape[1]:
        raise ParameterError(f"{len(names)} names for {table.shape[1]} features", expected="one name a feature")
    inputs.check_feature_magnitudes(table, names)
    scale = np.sqrt(sum(_moments(table[arm], w[arm])[1] for arm in arms) / 2)
    return OverlapResult(
        quantiles=np.stack([np.quantile(e[arm], [0, 0.05, 0.5, 0.95, 1]) for arm in arms]),
        share_extreme=float(np.average((e < bound) | (e > 1 - bound), weights=w)),
        bound=bound,
        ess=np.array([effective_sample_size(inverse[arm]) for arm in arms]),
        n=np.array([int(arm.sum()) for arm in arms]),
        names=tuple(names),
        smd_raw=_difference(table, w, arms, scale),
        smd_weighted=_difference(table, inverse, arms, scale),
    )


def _moments(table: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean and variance of each column's observed values."""
    mass = np.where(np.isnan(table), 0.0, w[:, None])
    total = np.maximum(mass.sum(axis=0), 1e-300)
    values = np.nan_to_num(table)
    mean = (mass * values).sum(axis=0) / total
    variance = (mass * (values - mean) ** 2).sum(axis=0) / total
    return mean, np.where(variance > _rounding(table) ** 2, variance, 0.0)


def _rounding(table: FloatArray) -> FloatArray:
    """What is rounding in a mean of each column."""
    return 1e-12 * np.abs(np.nan_to_num(table)).max(axis=0, initial=0.0)


def _difference(table: FloatArray, w: FloatArray, arms: list[NDArray[np.bool_]], scale: FloatArray) -> FloatArray:
    control, treated = (_moments(table[arm], w[arm])[0] for arm in arms)
    gap = treated - control
    return np.divide(gap, scale, out=np.where(np.abs(gap) <= _rounding(table), 0.0, np.nan), where=scale > 0)
