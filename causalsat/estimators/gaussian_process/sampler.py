"""Mode and draws of the hyperparameters' posterior: L-BFGS, then Hamiltonian Monte Carlo.

At the mode features that matter little are shut out, and a normal approximation about it stays there; most of the
posterior does not, and intervals from the mode are too narrow. Hence draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from causalsat.estimators.gaussian_process.kernels import FloatArray

__all__ = ["HyperparameterDraws", "find_mode", "sample"]

N_STEPS = 5  # leapfrog steps of a trajectory
TARGET = 0.7  # acceptance
REFRESH = (3, 7)  # transitions before which the metric is learned again from the states visited


class Posterior(Protocol):
    """A log density of the hyperparameters: in the model's own coordinates, or with learned scales beside them."""

    @property
    def model(self) -> Any:
        """The model, with its prior."""

    @property
    def information(self) -> Any:
        """Curvature at a point."""

    @property
    def value_and_gradient(self) -> Any:
        """Log density and its gradient at a point."""


@dataclass(frozen=True)
class HyperparameterDraws:
    """Draws of the hyperparameters.

    Attributes
    ----------
    thetas : ndarray of shape (n, k)
    acceptance : float
        Mean acceptance probability of the kept transitions.
    value : float
        Log posterior of the last draw.
    step : float
        Step size in units of the metric.
    """

    thetas: FloatArray
    acceptance: float
    value: float
    step: float


def find_mode(
    posterior: Posterior, starts: Sequence[FloatArray], max_iter: int, short_iter: int = 25
) -> tuple[FloatArray, float]:
    """Mode of the posterior: a short L-BFGS run from every start, then the best one to the end.

    Returns
    -------
    theta : ndarray of shape (k,)
    value : float
        Log posterior there.
    """
    from scipy.optimize import minimize

    centre, scale = posterior.model.prior_mean, posterior.model.prior_sd

    def objective(z: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = posterior.value_and_gradient(centre + scale * z)
        return (-value, -gradient * scale) if np.isfinite(value) else (1e25, np.zeros_like(z))

    def run(z: FloatArray, most: int) -> tuple[float, FloatArray]:
        options = {"maxiter": most, "maxcor": 20, "ftol": 1e-8, "gtol": 1e-3}
        result = minimize(objective, z, jac=True, method="L-BFGS-B", options=options)
        return float(result.fun), np.asarray(result.x)

    z0 = [(start - centre) / scale for start in starts]
    best = z0[0]
    if len(z0) > 1:
        best = min((run(z, short_iter) for z in z0), key=lambda result: result[0])[1]
    value, best = run(best, max_iter)
    return centre + scale * best, -value


def metric_factor(posterior: Posterior, thetas: Sequence[FloatArray]) -> FloatArray:
    """Factor F (k, k) with F F' the inverse of the mean information at the states given."""
    scale = posterior.model.prior_sd
    mean = np.mean([posterior.information(theta) for theta in thetas], axis=0)
    values, vectors = np.linalg.eigh(scale[:, None] * mean * scale)
    return np.asarray(scale[:, None] * vectors / np.sqrt(values))


def sample(
    posterior: Posterior,
    theta: FloatArray,
    n: int,
    burn: int,
    rng: np.random.Generator,
    thin: int = 1,
) -> HyperparameterDraws:
    """Hamiltonian Monte Carlo from theta (Neal 2011, section 5.3.3.1).

    The metric is the average information at states visited; the step size is tuned during the burn-in. A trajectory
    that meets a covariance that is not positive definite is refused.

    Parameters
    ----------
    posterior : Posterior
    theta : ndarray of shape (k,)
        Start, such as the mode.
    n : int
        Draws.
    burn : int
        Transitions before them.
    rng : Generator
    thin : int
        Transitions from one draw to the next.
    """
    value, gradient = posterior.value_and_gradient(theta)
    F, visited, log_step, kept, accepted = metric_factor(posterior, [theta]), [theta], np.log(0.3), [], []
    for k in range(burn + n * thin):
        if k in REFRESH and k < burn:
            F = metric_factor(posterior, visited[-3:])
        step = float(np.exp(log_step + 0.2 * rng.standard_normal()))
        momentum = rng.standard_normal(len(theta))
        result = _trajectory(posterior, F, theta, gradient, momentum, step)
        chance = 0.0
        if result is not None:
            end, end_value, end_gradient, end_momentum = result
            energy = end_value - value - 0.5 * (end_momentum @ end_momentum - momentum @ momentum)
            chance = math.exp(min(0.0, float(energy))) if np.isfinite(energy) else 0.0
            if rng.random() < chance:
                theta, value, gradient = end, end_value, end_gradient
        if k < burn:
            log_step += 0.4 * (chance - TARGET) / (1 + k) ** 0.3
            visited.append(theta)
        else:
            kept.append(theta)
            accepted.append(chance)
    return HyperparameterDraws(
        np.array(kept[thin - 1 :: thin]), float(np.mean(accepted)), value, float(np.exp(log_step))
    )


def _trajectory(
    posterior: Posterior,
    F: FloatArray,
    theta: FloatArray,
    gradient: FloatArray,
    momentum: FloatArray,
    step: float,
) -> tuple[FloatArray, float, FloatArray, FloatArray] | None:
    """Leapfrog steps in the metric's coordinates; None where the density vanishes on the way."""
    value = -np.inf
    for _ in range(N_STEPS):
        momentum = momentum + 0.5 * step * (F.T @ gradient)
        theta = theta + step * (F @ momentum)
        value, gradient = posterior.value_and_gradient(theta)
        if not np.isfinite(value):
            return None
        momentum = momentum + 0.5 * step * (F.T @ gradient)
    return theta, value, gradient, momentum
