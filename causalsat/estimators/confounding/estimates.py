"""Average effects of an observational study: difference in means, Hajek, doubly robust on the treated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.doubly_robust import AverageEffect, average_effect
from causalsat.inference.balance import inverse_weights
from causalsat.inference.nuisances import Nuisances
from causalsat.inference.projection import project

__all__ = ["att", "hajek", "naive_difference"]

FloatArray = NDArray[np.float64]


def naive_difference(y: FloatArray, treatment: FloatArray, weight: FloatArray, groups: Any = None) -> AverageEffect:
    """Difference in means of the arms with its cluster-robust t interval.

    Examples
    --------
    >>> naive = naive_difference(np.array([1.0, 2.0, 4.0, 5.0]), np.array([0.0, 0, 1, 1]), np.ones(4))
    >>> round(naive.estimate, 6)
    3.0
    """
    return _slope(y, treatment, weight, groups)


def hajek(
    y: FloatArray, treatment: FloatArray, propensity: FloatArray, weight: FloatArray, groups: Any = None
) -> AverageEffect:
    """Difference of inverse-propensity weighted means, the weights of each arm summing to one (Hajek 1971).

    The standard error is the cluster-robust one of the weighted regression on the treatment. It takes the
    propensities as known, which in a correctly specified model overstates it (Hirano, Imbens and Ridder 2003).

    Examples
    --------
    >>> y, t, e = np.array([1.0, 2.0, 4.0, 8.0]), np.array([0.0, 0, 1, 1]), np.array([0.5, 0.5, 0.25, 0.75])
    >>> round(hajek(y, t, e, np.ones(4)).estimate, 6)  # (4 x 4 + 8 x 4/3) / (4 + 4/3) - 1.5
    3.5
    """
    return _slope(y, treatment, inverse_weights(treatment, propensity, weight), groups)


def _slope(y: FloatArray, treatment: FloatArray, weight: FloatArray, groups: Any) -> AverageEffect:
    from scipy.stats import t

    slope = project(y, np.column_stack([np.ones(len(y)), treatment]), weight, groups)
    estimate, se = float(slope.coef[1]), float(np.sqrt(max(slope.cov[1, 1], 0.0)))
    half = float(t.ppf(0.975, slope.df)) * se
    p_value = float(2 * t.sf(abs(estimate) / se, slope.df)) if se > 0 else float("nan")
    return AverageEffect(estimate, se, estimate - half, estimate + half, slope.df, p_value)


def att(
    y: FloatArray, treatment: FloatArray, nuisances: Nuisances, weight: FloatArray, groups: Any = None
) -> AverageEffect:
    """Doubly robust effect on the treated: sum of (T - (1 - T) e/(1 - e)) (Y - mu0) over the number of treated.

    Its standard error is that of the mean of the influence function (Chernozhukov et al. 2018, equation 5.4).

    Examples
    --------
    >>> zero, half = np.zeros(4), np.full(4, 0.5)
    >>> known = Nuisances(zero, zero, half, zero, np.arange(4), np.zeros(4, dtype=bool))
    >>> att(np.array([1.0, 2.0, 4.0, 5.0]), np.array([0.0, 0, 1, 1]), known, np.ones(4)).estimate
    3.0
    """
    e, share = nuisances.propensity, float(np.average(treatment, weights=weight))
    gap = (treatment - (1 - treatment) * e / (1 - e)) * (y - nuisances.mu0)
    estimate = float(np.average(gap, weights=weight)) / share
    return average_effect(estimate + (gap - treatment * estimate) / share, weight, groups)
