"""Sampling of the linear effect model's densities by nutpie's NUTS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.linear.layout import stretch
from causalsat.inference.chains import Settings
from causalsat.inference.nuts import sample_nuts

FloatArray = NDArray[np.float64]


def sample_density(
    density: Callable[..., Any],
    arguments: tuple[Any, ...],
    start: FloatArray,
    steps: FloatArray,
    settings: Settings,
) -> tuple[FloatArray, int]:
    """Sample ``density(x, *arguments)``, log density and gradient, by NUTS.

    Parameters
    ----------
    density : callable
        Gives the log density at x, shape (d,), and its gradient.
    arguments : tuple
        What follows x.
    start : ndarray of shape (d,)
        Centre of the chains' starting points.
    steps : ndarray of shape (k,)
        Of the first k coordinates, those with a positive step are sampled as u = step sinh(v).
    settings : Settings
        Lengths of the chains, their number and seed.

    Returns
    -------
    draws : ndarray of shape (chain, draw, d)
        Draws.
    divergences : int
        Divergent transitions after tuning.
    """
    k, signed = len(steps), np.flatnonzero(steps > 0)
    centre = start.copy()
    centre[signed] = np.arcsinh(start[signed] / steps[signed])

    def stretched(v: FloatArray) -> tuple[float, FloatArray]:
        slope = np.ones(k)
        inside, log_jacobian = stretch(v, steps, slope)
        value, gradient = density(inside, *arguments)
        gradient[:k] *= slope
        gradient[:k] += np.tanh(v[:k]) * (steps > 0)
        return value + log_jacobian, gradient

    draws, divergences = sample_nuts(stretched, centre, settings)
    draws[..., signed] = steps[signed] * np.sinh(draws[..., signed])
    return draws, divergences
