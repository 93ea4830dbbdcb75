"""Mode, Laplace whitening and sampling of a smooth log density whose gradient is written by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators._chains import Settings
from causalsat.estimators._linear_sample import sample_density
from causalsat.exceptions import ConvergenceWarning

FloatArray = NDArray[np.float64]

R_HAT_LIMIT = 1.01
ESS_LIMIT = 400
STEP = 1e-4  # of the central differences of the gradient, in coordinates of order one
STIFFEST = 1e-6  # smallest curvature relative to the largest that whitening believes


@dataclass(frozen=True)
class Laplace:
    """Mode of a density, shape (d,), and a factor L of its inverse curvature, L L' = H^-1."""

    mode: FloatArray
    factor: FloatArray


def laplace(density: Callable[..., Any], arguments: tuple[Any, ...], start: FloatArray) -> Laplace:
    """Mode by BFGS and curvature by central differences of the gradient."""
    from scipy.optimize import minimize

    def negative(x: FloatArray) -> tuple[float, FloatArray]:
        with np.errstate(all="ignore"):
            value, gradient = density(x, *arguments)
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e100, np.zeros_like(x)
        return -value, -gradient

    mode = minimize(negative, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "maxfun": 1000}).x
    eye = np.eye(len(mode)) * STEP
    curvature = np.array([negative(mode + e)[1] - negative(mode - e)[1] for e in eye]) / (2 * STEP)
    values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    values = np.maximum(values, STIFFEST * values.max())
    return Laplace(mode, vectors / np.sqrt(values))


def sample_whitened(
    density: Callable[..., Any], arguments: tuple[Any, ...], start: FloatArray, settings: Settings
) -> tuple[FloatArray, int]:
    """Draws (chain, draw, d) by nutpie's NUTS in the coordinates that the Laplace approximation makes round.

    Returns the draws and the number of divergences.
    """
    found = laplace(density, arguments, start)
    factor = np.ascontiguousarray(found.factor)

    def white(z: FloatArray, *args: Any) -> tuple[float, FloatArray]:
        value, gradient = density(found.mode + factor @ z, *args)
        return value, factor.T @ gradient

    draws, divergences = sample_density(
        white,
        arguments,
        np.zeros(len(start)),
        steps=np.empty(0),
        n_draws=settings.n_draws,
        n_tune=settings.n_tune,
        n_chains=settings.n_chains,
        seed=settings.seed,
        progress=settings.progress,
    )
    return found.mode + draws @ factor.T, divergences


def convergence(draws: Mapping[str, FloatArray], divergences: int) -> dict[str, Any]:
    """Largest R-hat and smallest bulk or tail effective sample size over named draws (chain, draw[, k])."""
    import arviz

    r_hat, ess = [], []
    for values in draws.values():
        columns = values.reshape(*values.shape[:2], -1)
        for j in range(columns.shape[2]):
            column = columns[:, :, j]
            if np.ptp(column) == 0:  # fixed by a constraint
                continue
            r_hat.append(float(arviz.rhat(column)) if len(column) > 1 else np.nan)
            ess.append(min(float(arviz.ess(column, method=m)) for m in ("bulk", "tail")))
    first = next(iter(draws.values()))
    return {
        "r_hat": float(np.nanmax(r_hat)) if len(first) > 1 else float("nan"),
        "ess": float(np.min(ess)),
        "divergences": int(divergences),
        "n_chains": int(first.shape[0]),
        "n_draws": int(first.shape[0] * first.shape[1]),
    }


def warn_if_not_converged(diagnostics: Mapping[str, Any]) -> None:
    """Warn of R-hat above 1.01, fewer than 400 effective draws, or any divergence."""
    wrong = []
    if diagnostics["r_hat"] > R_HAT_LIMIT:
        wrong.append(f"R-hat {diagnostics['r_hat']:.3f} (above {R_HAT_LIMIT})")
    if diagnostics["ess"] < ESS_LIMIT:
        wrong.append(f"effective sample size {diagnostics['ess']:.0f} (below {ESS_LIMIT})")
    if diagnostics["divergences"]:
        wrong.append(f"{diagnostics['divergences']} divergent draws")
    if wrong:
        warnings.warn(
            f"the sampler may not have converged: {', '.join(wrong)}. What to do: raise n_tune and n_draws; "
            "if that does not help, give a prevalence or an expertise constraint: without them the data may not "
            "tell the unobservables from the intercept.",
            ConvergenceWarning,
            stacklevel=4,
        )
