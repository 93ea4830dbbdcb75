"""What a design does to the data of an estimator that models outcomes and knows neither strata nor probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalsat.design.design import Design

__all__ = ["adjust_for_design", "balancing_weights", "stratum_levels"]

FloatArray = NDArray[np.float64]

MIN_CLUSTERS = 6  # of a stratum, on average: with fewer its level takes a notable share of the noise with it


def adjust_for_design(y: FloatArray, design: Design, *, shift: bool = True) -> tuple[FloatArray, FloatArray]:
    """Outcome and weights under which treatment is independent of the strata.

    Units are weighted by the inverse of the probability of their own arm, so that any weighted estimator of effects
    averages over the strata as the population does. The strata's levels, which shift both potential outcomes alike
    and so no effect, are taken from the outcome, where strata are large enough to tell them.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Outcome.
    design : Design
        With a binary treatment.
    shift : bool
        Whether the outcome may be shifted: not if it is yes/no, a count, or positive by its nature.

    Returns
    -------
    outcome : ndarray of shape (n,)
    weight : ndarray of shape (n,)
        With mean 1; survey weights times the balancing ones.

    Examples
    --------
    >>> from causalsat.design import make_design
    >>> design = make_design([0, 0, 0, 1], propensity=[0.25, 0.25, 0.25, 0.25])
    >>> adjust_for_design(np.arange(4.0), design)[1]  # one probability for all: nothing to balance
    array([1., 1., 1., 1.])
    """
    survey = np.ones(len(y)) if design.weights is None else design.weights
    weight = survey * balancing_weights(design)
    weight = weight / weight.mean()
    return (y - stratum_levels(y, design, weight) if shift else y), weight


def balancing_weights(design: Design) -> FloatArray:
    """Inverse probability of each unit's own arm, shape (n,); ones where it is the same for all or unknown."""
    e = design.probability if design.is_binary else None
    if e is None or np.ptp(e) < 1e-9:
        return np.ones(len(design))
    return np.asarray(np.where(design.treatment > 0, 1 / e, 1 / (1 - e)) / 2)


def stratum_levels(y: FloatArray, design: Design, weight: FloatArray) -> FloatArray:
    """Level of each unit's stratum, the mean of its arms' means, shrunk and with mean zero over the units, (n,).

    Shrinkage is that of a random intercept, with the variances between strata and between clusters within strata
    by the method of moments. Zero where there are no strata, or fewer than ``MIN_CLUSTERS`` clusters in the average
    one, whose level would take too much of the clusters' noise with it.
    """
    if design.strata is None or not design.is_binary or not design.randomised:
        return np.zeros(len(y))
    strata, n_strata = design.strata, int(design.strata.max()) + 1
    codes = design.cluster_codes
    _, first = np.unique(codes, return_index=True)
    clusters = np.bincount(strata[first], minlength=n_strata)
    if n_strata < 2 or clusters.mean() < MIN_CLUSTERS:
        return np.zeros(len(y))
    arm = design.treatment.astype(np.int64)
    cell = strata * 2 + arm
    mass = np.bincount(cell, weight, minlength=2 * n_strata)
    means = np.bincount(cell, weight * y, minlength=2 * n_strata) / np.maximum(mass, 1e-300)
    both = (mass.reshape(-1, 2) > 0).all(axis=1)
    level = np.where(both, means.reshape(-1, 2).mean(axis=1), np.nan)
    residual = y - means[cell]
    total = np.bincount(codes, weight * residual)
    share = np.bincount(cell * 0 + strata, weight, minlength=n_strata)
    noise = np.bincount(strata[first], total[codes[first]] ** 2, minlength=n_strata) / np.maximum(share, 1e-300) ** 2
    noise *= clusters / np.maximum(clusters - 2, 1)
    if both.sum() < 2:
        return np.zeros(len(y))
    centre = np.average(level[both], weights=share[both])
    typical = np.average(noise[both], weights=share[both])
    between = max(float(np.average((level[both] - centre) ** 2, weights=share[both])) - typical, 0.0)
    kept = between / np.maximum(between + noise, 1e-300) if between > 0 else np.zeros(n_strata)
    shrunk = np.where(both, kept * (np.nan_to_num(level, nan=centre) - centre), 0.0)[strata]
    return np.asarray(shrunk - np.average(shrunk, weights=weight))
