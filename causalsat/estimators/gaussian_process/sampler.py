"""Mode and draws of the hyperparameters' posterior: L-BFGS, then Hamiltonian Monte Carlo.

At the mode features that matter little are shut out, and a normal approximation about it stays there; most of the
posterior does not, and intervals from the mode are too narrow. Hence draws.

**Learned scales of the kernels' weights**: how many features matter is left to the data. With fixed priors of the
weights one amount of shrinkage holds for all trials. On IHDP's covariates intervals were then too wide for sparse
exponential surfaces and too narrow for effects linear in all 25 columns. Here each part of the covariance has a
location g and a log spread h of its features' log weights, standard normal both. With z_j standard normal,

    linear weights:   log w_j = m + 1.5 exp(0.7 h) z_j  (the amplitude is their location),
    inverse lengths:  log w_j = m + g + exp(0.7 h) z_j,
    ridge function:       b_j = s exp(g) z_j,

where m and s are those of the fixed priors; and the amplitudes of these parts may come closer to zero, log a normal
with a standard deviation of 2. The sampler works in the coordinates (z, g, h). Parts of fewer than five features keep
their fixed priors: two or three weights do not tell their scale, and in simulated trials intervals only got shorter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from causalsat.estimators.gaussian_process.kernels import FloatArray, Term
from causalsat.estimators.gaussian_process.likelihood import MarginalPosterior
from causalsat.estimators.gaussian_process.model import Model

__all__ = ["HyperparameterDraws", "LearnedScales", "ScaledPosterior", "find_mode", "sample", "sample_scaled"]


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


SPREAD = {"linear": 1.5, "rbf": 1.0}  # standard deviation of log weights where h = 0
LOG_SPREAD = 0.7  # standard deviation of its logarithm
AMPLITUDE_SD = 2.0  # of log amplitudes
MIN_FEATURES = 5  # features of a part whose scales are learned
MAX_DEVIATION = 30.0  # prior standard deviations beyond which the density is taken for zero
MAX_PARAMETER = 100.0  # parameters (mostly logarithms) beyond which it is, too


@dataclass(frozen=True)
class _Part:
    """Where one term's weights and scales lie: ``location`` and ``spread`` are -1 where it has none."""

    term: Term
    location: int
    spread: int

    @property
    def weights(self) -> slice:
        return slice(self.term.start + 1, self.term.start + 1 + self.term.n_x)


class LearnedScales:
    """Coordinates of the sampler: those of the model, with weights in units of their scales, then the scales.

    Parameters
    ----------
    model : Model
        With fixed priors.

    Attributes
    ----------
    model : Model
        The same terms with the priors of the coordinates.
    parts : list
        Where the weights and scales of each part lie; empty where no scale is learned.
    """

    def __init__(self, model: Model) -> None:
        self.fixed, self.parts, at = model, [], len(model.prior_mean)
        mean, sd = model.prior_mean.copy(), model.prior_sd.copy()
        for term in model.terms:
            if term.n_x < MIN_FEATURES:
                continue
            has_location, has_spread = term.x != "linear", term.x in SPREAD
            part = _Part(term, at if has_location else -1, at + has_location if has_spread else -1)
            sd[term.start] = AMPLITUDE_SD
            mean[part.weights], sd[part.weights] = 0.0, 1.0
            self.parts.append(part)
            at += has_location + has_spread
        more = at - len(mean)
        self.model = replace(model, prior_mean=np.append(mean, np.zeros(more)), prior_sd=np.append(sd, np.ones(more)))

    def _unit(self, part: _Part, phi: FloatArray) -> float:
        """Derivative of a weight's parameter by its coordinate z."""
        if part.spread < 0:
            return float(self.fixed.prior_sd[part.weights.start] * np.exp(phi[part.location]))
        return float(SPREAD[part.term.x] * np.exp(LOG_SPREAD * phi[part.spread]))

    def expand(self, phi: FloatArray) -> FloatArray:
        """Parameters of the model, shape (k,), at coordinates of shape (k + scales,)."""
        theta = phi[: len(self.fixed.prior_mean)].copy()
        for part in self.parts:
            theta[part.weights] = self.fixed.prior_mean[part.weights] + self._unit(part, phi) * phi[part.weights]
            if part.spread >= 0 and part.location >= 0:
                theta[part.weights] += phi[part.location]
        return theta

    def contract(self, theta: FloatArray) -> FloatArray:
        """Coordinates of given parameters with all scales at the centre of their priors."""
        phi = np.zeros_like(self.model.prior_mean)
        phi[: len(theta)] = theta
        for part in self.parts:
            away = theta[part.weights] - self.fixed.prior_mean[part.weights]
            phi[part.weights] = away / self._unit(part, phi)
        return phi

    def jacobian(self, phi: FloatArray) -> FloatArray:
        """Derivative of :meth:`expand`, shape (k, k + scales)."""
        k = len(self.fixed.prior_mean)
        J = np.eye(k, len(phi))
        for part in self.parts:
            rows, unit = np.arange(k)[part.weights], self._unit(part, phi)
            J[rows, rows] = unit
            if part.spread < 0:
                J[rows, part.location] = unit * phi[part.weights]
                continue
            J[rows, part.spread] = LOG_SPREAD * unit * phi[part.weights]
            if part.location >= 0:
                J[rows, part.location] = 1.0
        return J


class ScaledPosterior:
    """Log posterior of the coordinates of :class:`LearnedScales`.

    Parameters
    ----------
    scales : LearnedScales
    posterior : MarginalPosterior
        Of the model with fixed priors, which are taken out.
    """

    def __init__(self, scales: LearnedScales, posterior: MarginalPosterior) -> None:
        self.scales, self.posterior, self.model = scales, posterior, scales.model

    def value_and_gradient(self, phi: FloatArray) -> tuple[float, FloatArray]:
        """Log density and gradient; minus infinity where it vanishes."""
        fixed, z = self.scales.fixed, (phi - self.model.prior_mean) / self.model.prior_sd
        if not np.abs(z).max() < MAX_DEVIATION:
            return -np.inf, np.zeros_like(phi)
        theta = self.scales.expand(phi)
        if not np.abs(theta).max() < MAX_PARAMETER:
            return -np.inf, np.zeros_like(phi)
        value, gradient = self.posterior.value_and_gradient(theta)
        if not np.isfinite(value):
            return -np.inf, np.zeros_like(phi)
        old = (theta - fixed.prior_mean) / fixed.prior_sd
        gradient = (gradient + old / fixed.prior_sd) @ self.scales.jacobian(phi)
        return float(value + 0.5 * (old @ old - z @ z)), gradient - z / self.model.prior_sd

    def information(self, phi: FloatArray) -> FloatArray:
        """Average information of the coordinates plus that of their prior."""
        J = self.scales.jacobian(phi)
        own = self.posterior.information(self.scales.expand(phi)) - np.diag(self.scales.fixed.prior_sd**-2.0)
        return np.asarray(J.T @ own @ J + np.diag(self.model.prior_sd**-2.0))


def sample_scaled(
    scales: LearnedScales,
    posterior: MarginalPosterior,
    theta: FloatArray,
    max_iter: int,
    n: int,
    burn: int,
    rng: np.random.Generator,
    thin: int,
) -> HyperparameterDraws:
    """Draws of the model's parameters with learned scales, from near the mode ``theta`` that has them fixed.

    As :func:`causalsat.estimators.gaussian_process.sampler.sample`, after a search of ``max_iter`` iterations.
    """
    density = ScaledPosterior(scales, posterior)
    phi, _ = find_mode(density, [scales.contract(theta)], max_iter)
    result = sample(density, phi, n, burn, rng, thin)
    return replace(result, thetas=np.array([scales.expand(state) for state in result.thetas]))
