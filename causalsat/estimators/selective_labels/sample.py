"""Mode, Laplace whitening and sampling of a smooth log density whose gradient is written by hand.

Independent draws along the path of conditional modes (:mod:`causalsat.inference.mode_path`) where its proposals fit
the posterior; else, as with few units, nutpie's No-U-Turn sampler in the coordinates of the curvature at the mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.inference.chains import (
    ChainPolicy,
    Settings,
    chain_summary,
    inverse_root,
    negative_hessian,
    sample_nuts,
    warn_of_chains,
)
from causalsat.inference.mode_path import sample_path

FloatArray = NDArray[np.float64]

POLICY = ChainPolicy(divergence_share=0.0)
MIN_EFFECTIVE = 0.2  # share of independent proposals' draws that must be effective, else NUTS
MIN_CURVATURE = 1e-6  # smallest curvature relative to the largest that whitening believes


@dataclass(frozen=True)
class Laplace:
    """Mode of a density, shape (d,), and a factor L of its inverse curvature, L L' = H^-1."""

    mode: FloatArray
    factor: FloatArray


@dataclass(frozen=True)
class Sampled:
    """Draws (chain, draw, d), divergences, which sampler made them, and its share of accepted proposals (or NaN)."""

    draws: FloatArray
    divergences: int
    sampler: str
    accepted: float

    @property
    def flat(self) -> FloatArray:
        """Draws (draw, d), one chain after the other."""
        return self.draws.reshape(-1, self.draws.shape[2])

    def diagnostics(self, reported: Mapping[str, FloatArray]) -> dict[str, Any]:
        """R-hat, effective draws and the rest for reported quantities (draw, k) or (draw,)."""
        chains = {name: values.reshape(*self.draws.shape[:2], -1) for name, values in reported.items()}
        summary = chain_summary(chains, self.divergences)
        accepted = {} if np.isnan(self.accepted) else {"accepted": self.accepted}
        return {**summary, "sampler": self.sampler, **accepted}


def sample(density: Callable[..., Any], arguments: tuple[Any, ...], start: FloatArray, settings: Settings) -> Sampled:
    """Draws from the posterior by the sampler that fits it."""
    approximation = laplace(density, arguments, start)
    scale = float(np.sqrt((approximation.factor[-1] ** 2).sum()))
    quick = sample_path(lambda x: density(x, *arguments), approximation.mode, scale, settings)
    if quick is not None and quick.trustworthy and _moves(quick.draws):
        return Sampled(quick.draws, 0, "mode path", quick.accepted)
    draws, divergences = sample_whitened(density, arguments, approximation, settings)
    return Sampled(draws, divergences, "NUTS", float("nan"))


def _moves(draws: FloatArray) -> bool:
    """Whether no chain is stuck: effective draws of every coordinate are at least a fifth of the draws."""
    summary = chain_summary({"coordinates": draws}, 0)
    return bool(summary["ess"] >= MIN_EFFECTIVE * summary["n_draws"])


def laplace(density: Callable[..., Any], arguments: tuple[Any, ...], start: FloatArray) -> Laplace:
    """Mode by BFGS and curvature by central differences of the gradient."""
    mode = find_mode(density, arguments, start)
    curvature = negative_hessian(lambda x: density(x, *arguments), mode)
    return Laplace(mode, inverse_root(curvature, share=MIN_CURVATURE))


def find_mode(density: Callable[..., Any], arguments: tuple[Any, ...], start: FloatArray) -> FloatArray:
    """Mode by BFGS."""
    from scipy.optimize import minimize

    def negative(x: FloatArray) -> tuple[float, FloatArray]:
        with np.errstate(all="ignore"):
            value, gradient = density(x, *arguments)
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e100, np.zeros_like(x)
        return -value, -gradient

    optimum = minimize(negative, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "maxfun": 1000})
    return np.asarray(optimum.x)


def sample_whitened(
    density: Callable[..., Any], arguments: tuple[Any, ...], approximation: Laplace, settings: Settings
) -> tuple[FloatArray, int]:
    """Draws (chain, draw, d) by nutpie's NUTS in the coordinates in which the Laplace approximation is spherical.

    Returns the draws and the number of divergences.
    """

    def white(z: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = density(approximation.mode + approximation.factor @ z, *arguments)
        return value, approximation.factor.T @ gradient

    draws, divergences = sample_nuts(white, np.zeros(len(approximation.mode)), settings)
    return approximation.mode + draws @ approximation.factor.T, divergences


def warn_if_not_converged(diagnostics: Mapping[str, Any]) -> None:
    """Warn of chains outside the policy, or of any divergence."""
    advice = (
        "raise n_tune and n_draws; if that does not help, give a prevalence or an expertise constraint: without them "
        "the data may not tell the unobservables from the intercept"
    )
    warn_of_chains(diagnostics, advice=advice, policy=POLICY)
