"""Sampling of the linear effect model's densities by nutpie's NUTS, and what the chains say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.linear.layout import stretch
from causalsat.inference.chains import Settings, chain_summary, warn_of_chains, worst_summary
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


def chain_diagnostics(draws: Mapping[str, FloatArray], divergences: int, sampler: str) -> dict[str, Any]:
    """Largest R-hat and smallest effective sample size over the named quantities.

    Effective sample sizes are those of bulk and tails for effects, of the bulk for scales.

    Parameters
    ----------
    draws : mapping of str to ndarray of shape (chain, draw) or (chain, draw, k)
        What is reported of the model; names that end in "sd" and "noise" are scales.
    """

    def methods(name: str) -> tuple[str, ...]:
        return ("bulk",) if name.endswith("sd") or name == "noise" else ("bulk", "tail")

    return {**chain_summary(draws, divergences, methods=methods), "sampler": sampler}


def worst_diagnostics(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Diagnostics of several fits of one model, such as those of imputations: the worst of each."""
    return worst_summary(each) | ({"imputations": len(each)} if len(each) > 1 else {})


def warn_if_not_converged(diagnostics: Mapping[str, Any], prior: str = "horseshoe") -> None:
    """Warn, with what to do under the prior that is set, of chains outside the policy."""
    other = "" if prior == "normal" else ", or use prior='normal'"
    warn_of_chains(diagnostics, advice=f"raise n_tune and n_draws{other}")
