"""Conformal quantiles for clustered and weighted data, and the quantile models that conformal intervals widen."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, DataWarning, ParameterError

__all__ = ["Calibration", "calibrate", "conformal_quantile", "fit_quantiles", "predict_quantiles", "warn_infinite"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

CLUSTER_METHODS = ("hierarchical", "subsample")


def conformal_quantile(scores: FloatArray, mass: FloatArray, infinity: FloatArray, level: float) -> FloatArray:
    """Quantile of weighted scores with a mass at infinity for the new unit, one for each such mass; may be inf.

    The smallest score s with ``sum of mass at or below s >= level * (sum of mass + infinity)``.

    Parameters
    ----------
    scores, mass : ndarray of shape (m,)
        Calibration scores and their masses.
    infinity : ndarray of shape (k,)
        Masses of the new units.
    level : float
        Coverage wanted.

    Examples
    --------
    >>> s, one = np.arange(1.0, 10.0), np.ones(9)
    >>> conformal_quantile(s, one, np.ones(1), 0.8), conformal_quantile(s, one, np.ones(1), 0.95)
    (array([8.]), array([inf]))
    """
    order = np.argsort(scores, kind="stable")
    cumulated = np.cumsum(mass[order])
    total = cumulated[-1] if len(cumulated) else 0.0
    wanted = level * (total + infinity)
    position = np.searchsorted(cumulated, wanted - 1e-12 * np.maximum(wanted, 1e-300), side="left")
    return np.append(scores[order], np.inf)[position]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores and masses of the calibration units of an arm.

    Attributes
    ----------
    scores, mass : ndarray of shape (m,)
        How far each outcome lies outside its interval (negative inside), and the mass of that score.
    largest : float
        Largest weight of a unit.
    single : bool
        Whether no cluster had more than one unit that could be drawn: the weight of the new unit is then its mass
        at infinity; else it is the largest weight, for the whole of its cluster.
    n_clusters : int
        Clusters with a score.
    """

    scores: FloatArray
    mass: FloatArray
    largest: float
    single: bool
    n_clusters: int

    def quantile(self, weight: FloatArray | None, n: int, level: float) -> FloatArray:
        """Conformal quantile for each of n new units of the given weights (unknown: the largest)."""
        infinity = np.full(n, self.largest) if weight is None else weight
        if not self.single:
            infinity = np.maximum(infinity, self.largest)
        distinct, back = np.unique(infinity, return_inverse=True)
        return conformal_quantile(self.scores, self.mass, distinct, level)[back]


def calibrate(
    scores: FloatArray,
    cluster: IntArray,
    chosen: BoolArray,
    weight: FloatArray,
    method: str,
    rng: np.random.Generator,
) -> Calibration:
    """Masses of calibration scores such that one unit of a new cluster is covered.

    Parameters
    ----------
    scores : ndarray of shape (m,)
        Scores of all calibration units; only those of ``chosen`` ones are looked at.
    cluster : ndarray of int of shape (m,)
        Clusters, of which the new unit's is one more.
    chosen : ndarray of bool of shape (m,)
        Units whose outcome is of the kind wanted (the arm).
    weight : ndarray of shape (m,)
        Likelihood ratio of the target population to the chosen units.
    method : {"hierarchical", "subsample"}
        ``"hierarchical"``: each unit has the mass weight / size of its cluster (Lee, Barber and Willett 2023,
        section 3.1). ``"subsample"``: one unit a cluster, drawn at random (Dunn, Wasserman and Ramdas 2023,
        section 3.3), dropped where it is not a chosen one.
    rng : numpy.random.Generator
        Draws that unit.
    """
    _, code, size = np.unique(cluster, return_inverse=True, return_counts=True)
    if method == "subsample":
        order = rng.permutation(len(code))
        _, first = np.unique(code[order], return_index=True)
        drawn = np.zeros(len(code), dtype=bool)
        drawn[order[first]] = True
        use, mass, single = chosen & drawn, weight, True
    else:
        use, mass, single = chosen, weight / size[code], bool((size == 1).all())
    largest = float(weight[chosen].max(initial=0.0))
    return Calibration(scores[use], mass[use], largest, single, len(np.unique(code[use])))


def warn_infinite(n_infinite: int, n: int, n_clusters: int, level: float) -> None:
    """Say that there are too few clusters for a finite interval."""
    if n_infinite:
        warnings.warn(
            f"{n_infinite} of {n} conformal intervals are infinite: {n_clusters} calibration clusters (with their "
            f"weights) cannot support the level {level:.3g}; take a lower level, or more clusters",
            DataWarning,
            stacklevel=4,
        )


def default_quantile_model() -> Any:
    """Gradient-boosted trees with the pinball loss; missing values are handled."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        loss="quantile", quantile=0.5, max_iter=60, max_leaf_nodes=15, random_state=0, early_stopping=False
    )


def fit_quantiles(
    model: Any, X: FloatArray, targets: tuple[FloatArray, ...], levels: tuple[float, ...], weight: FloatArray | None
) -> list[Any]:
    """Clones of a quantile regression, one for each target and its level.

    Raises
    ------
    ParameterError
        If the model has no parameter ``quantile``.
    DataError
        If there is no unit to fit it to.
    """
    from sklearn.base import clone
    from sklearn.utils.validation import has_fit_parameter

    base = default_quantile_model() if model is None else model
    names = [name for name in base.get_params() if name == "quantile" or name.endswith("__quantile")]
    if not names:
        raise ParameterError(
            f"a quantile model {type(base).__name__} without a parameter 'quantile'",
            expected="such as HistGradientBoostingRegressor(loss='quantile') or QuantileRegressor()",
        )
    if len(X) == 0:
        raise DataError("an arm without units in the clusters that train the quantile models", todo="more clusters")
    fitted = []
    for target, level in zip(targets, levels, strict=True):
        learner = clone(base).set_params(**{names[0]: float(level)})
        takes = weight is not None and has_fit_parameter(learner, "sample_weight")
        fitted.append(learner.fit(X, target, **({"sample_weight": weight} if takes else {})))
    return fitted


def predict_quantiles(models: list[Any], X: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower and upper quantile of each row, in that order even where the two models cross."""
    low, high = (np.asarray(model.predict(X), dtype=float).reshape(len(X)) for model in models)
    return np.minimum(low, high), np.maximum(low, high)
