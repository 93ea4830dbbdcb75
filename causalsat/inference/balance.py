"""Balance of features between the arms, before and after weighting by the inverse propensity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import check_feature_magnitudes, check_weights
from causalsat.core.svg import intervals_svg
from causalsat.core.tables import Tabular
from causalsat.exceptions import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Balance", "balance", "inverse_weights"]

FloatArray = NDArray[np.float64]


def inverse_weights(treatment: FloatArray, propensity: FloatArray, weight: FloatArray) -> FloatArray:
    """Weight over the probability of the arm that the unit is in, shape (n,).

    Examples
    --------
    >>> inverse_weights(np.array([1.0, 0.0]), np.array([0.25, 0.25]), np.ones(2)).round(3)
    array([4.   , 1.333])
    """
    return np.asarray(weight * np.where(treatment > 0, 1 / propensity, 1 / (1 - propensity)))


@dataclass(frozen=True, eq=False)
class Balance(Tabular):
    """Standardised differences of the arms before and after weighting by the inverse propensity.

    Attributes
    ----------
    names : tuple of str
        Names of the features.
    raw, weighted : ndarrays of shape (p,)
        Mean of the treated less mean of the control units over the pooled standard deviation of the arms before
        weighting (Austin and Stuart 2015). Below 0.1 is usually called balanced.
    variance_ratio : ndarray of shape (p,)
        Variance among treated over that among control units, after weighting.
    ess : ndarray of shape (2,)
        Effective sample size of control and treated units under the weights (Kish).
    """

    names: tuple[str, ...]
    raw: FloatArray
    weighted: FloatArray
    variance_ratio: FloatArray
    ess: FloatArray

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row a feature: raw, weighted, variance_ratio."""
        import pandas as pd

        columns = {"raw": self.raw, "weighted": self.weighted, "variance_ratio": self.variance_ratio}
        return pd.DataFrame(columns, index=pd.Index(self.names, name="feature"))

    def _picture(self) -> str:
        first = np.argsort(-np.abs(self.raw))[:20]  # the least balanced
        after, title = self.weighted[first], "Standardised differences after weighting; hollow dots are those before"
        labels = [self.names[j] for j in first]
        return intervals_svg(
            labels, after, after, after, title=title, axis="standardised difference", before=self.raw[first]
        )

    @property
    def worst(self) -> tuple[float, float]:
        """Largest absolute differences, before and after weighting."""
        return tuple(float(np.abs(v).max(initial=0.0)) for v in (self.raw, self.weighted))  # type: ignore[return-value]


def balance(
    X: Any, treatment: Any, propensity: Any, *, weights: Any = None, names: tuple[str, ...] | None = None
) -> Balance:
    """Balance of features between the arms, before and after weighting by the inverse propensity.

    Parameters
    ----------
    X : array or DataFrame of shape (n, p)
        Features, complete.
    treatment, propensity : array of shape (n,)
        0/1 treatment and its probability.
    weights : array of shape (n,), optional
        Survey weights.
    names : tuple of str, optional
        Names of the features.

    Raises
    ------
    DataError
        If features are missing, a treatment is not 0 or 1, a propensity not strictly between 0 and 1, a weight
        negative or missing, or an arm has no unit of positive weight.

    Examples
    --------
    >>> x = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    >>> t = np.array([1, 1, 0, 0, 0, 1])
    >>> found = balance(x[:, None], t, np.array([1, 2, 1, 2, 1, 2]) / 3)
    >>> found.raw.round(2), found.weighted.round(2)
    (array([0.71]), array([0.]))
    """
    table = np.asarray(X, dtype=float)
    t, e = np.asarray(treatment, dtype=float), np.asarray(propensity, dtype=float)
    if table.ndim != 2 or not len(table) == len(t) == len(e) or not np.isfinite(table).all():
        raise DataError(f"X of shape {table.shape} for {len(t)} units", expected="a complete table (unit, feature)")
    if names is None:
        names = tuple(str(c) for c in getattr(X, "columns", [f"x{j}" for j in range(table.shape[1])]))
    check_feature_magnitudes(table, names)
    if not np.isin(t, (0, 1)).all():
        raise DataError(f"treatment with {t[~np.isin(t, (0, 1))][0]:g}", expected="0 and 1 for each unit")
    inside = (e > 0) & (e < 1)
    if not inside.all():
        raise DataError(
            f"a propensity of {e[~inside][0]:g} ({int((~inside).sum())} of {len(e)} outside of 0 to 1, or missing)",
            expected="a probability strictly between 0 and 1 for each unit",
        )
    w = np.ones(len(t)) if weights is None else check_weights(weights, len(t))
    for name, arm in (("treated", t > 0), ("control", t == 0)):
        if not w[arm].sum() > 0:
            raise DataError(f"no {name} unit with a positive weight", expected="units in both arms")
    inverse = inverse_weights(t, e, w)
    arms = [t == 0, t > 0]
    before, after = ([_moments(table[arm], v[arm]) for arm in arms] for v in (w, inverse))
    scale = np.sqrt((before[0][1] + before[1][1]) / 2)
    scale = np.where(scale > 1e-12 * np.abs(table).max(axis=0, initial=1e-300), scale, np.inf)
    small = np.finfo(float).tiny
    return Balance(
        names=tuple(names),
        raw=(before[1][0] - before[0][0]) / scale,
        weighted=(after[1][0] - after[0][0]) / scale,
        variance_ratio=np.where(np.isfinite(scale), after[1][1] / np.maximum(after[0][1], small), 1.0),
        ess=np.array([inverse[arm].sum() ** 2 / (inverse[arm] ** 2).sum() for arm in arms]),
    )


def _moments(table: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = np.average(table, axis=0, weights=w)
    return mean, np.average((table - mean) ** 2, axis=0, weights=w)
