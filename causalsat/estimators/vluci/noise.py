"""Noise of an outcome that need not be normal: a mixture of two normal distributions whose shape is learned.

An unobserved confounder is read from the shape of the outcomes; so is skewed or heavy-tailed noise. Noise of one law
in both arms is what can explain such a shape without a confounder, whose skewness has the opposite sign in the arms.
The shape has three parameters: logit of the second component's weight, its mean in units of the first's sd, and the
log ratio of the sds; whatever they are, the mixture has mean 0 and variance 1. Their prior is independent normal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from causalsat.core.inputs import FloatArray
from causalsat.estimators.vluci.likelihood import NORMAL, Noise

__all__ = ["STARTS", "components", "improve", "log_prior", "volume"]

MEAN = np.array([-1.0, 0.0, 0.3])
SD = np.array([1.0, 1.5, 0.5])
STARTS = (np.array([-1.0, 1.5, 0.4]), np.array([-1.0, -1.5, 0.4]), np.array([-1.0, 0.0, 0.6]))
STEP = 1e-4
MAX_SLOPE = 1e6
MAX_STEP = 1.0  # step, in prior sds


def components(shape: FloatArray) -> Noise:
    """Weight, mean and sd of the components for a shape (3,); normal noise for an empty one.

    Examples
    --------
    >>> w, mean, sd = np.array(components(np.array([-1.0, 1.5, 0.4]))).T
    >>> float((w @ mean).round(9)), float((w @ (mean**2 + sd**2)).round(9))
    (0.0, 1.0)
    """
    if not len(shape):
        return NORMAL
    w = float(expit(shape[0]))
    mean, sd = np.array([0.0, shape[1]]), np.array([1.0, np.exp(shape[2])])
    weights = np.array([1 - w, w])
    mean = mean - weights @ mean
    scale = np.sqrt(weights @ (mean**2 + sd**2))
    rows = np.column_stack([weights, mean / scale, sd / scale])
    return tuple((float(a), float(b), float(c)) for a, b, c in rows)


def log_prior(shape: FloatArray) -> float:
    """Log prior density of a shape, relative to its highest."""
    return float(-0.5 * (((shape - MEAN) / SD) ** 2).sum()) if len(shape) else 0.0


def improve(
    values: Callable[[FloatArray], FloatArray], weight: FloatArray, shape: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """One step of scoring (Berndt, Hall, Hall and Hausman 1974) towards the likeliest shape, or none if it fails.

    With the slopes (n, 3) of each unit's log-likelihood in the shape, where the step began.
    """
    here = values(shape)
    slopes = np.column_stack([(values(shape + STEP * e) - here) / STEP for e in np.eye(3)])
    precision = SD**-2
    if not (np.abs(slopes) < MAX_SLOPE).all():  # an outcome without noise has no shape of it
        return shape, np.zeros_like(slopes)
    gradient = weight @ slopes - precision * (shape - MEAN)
    step = np.linalg.solve((weight * slopes.T) @ slopes + np.diag(precision), gradient)
    step *= min(1.0, MAX_STEP / max(float(np.abs(step / SD).max()), 1e-12))
    now = float(weight @ here) + log_prior(shape)
    for size in (1.0, 0.4, 0.1):
        there = shape + size * step
        if weight @ values(there) + log_prior(there) >= now:
            return there, slopes
    return shape, slopes


def volume(slopes: FloatArray, weight: FloatArray) -> float:
    """Log of the share of the prior's volume that the posterior of the shape fills, by Laplace's approximation."""
    if not slopes.shape[1]:
        return 0.0
    scaled = np.eye(3) + SD[:, None] * ((weight * slopes.T) @ slopes) * SD
    return -0.5 * float(np.linalg.slogdet(scaled)[1])
