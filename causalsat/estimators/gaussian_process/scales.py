"""Learned scales of the kernels' weights: how many features matter is left to the data.

With fixed priors of the weights one amount of shrinkage holds for all trials. On IHDP's covariates intervals were
then too wide for sparse exponential surfaces and too narrow for effects linear in all 25 columns. Here each part of
the covariance has a location g and a log spread h of its features' log weights, standard normal both. With z_j
standard normal,

    linear weights:   log w_j = m + 1.5 exp(0.7 h) z_j  (the amplitude is their location),
    inverse lengths:  log w_j = m + g + exp(0.7 h) z_j,
    ridge function:       b_j = s exp(g) z_j,

where m and s are those of the fixed priors; and the amplitudes of these parts may come closer to zero, log a normal
with a standard deviation of 2. The sampler works in the coordinates (z, g, h). Parts of fewer than five features keep
their fixed priors: two or three weights do not tell their scale, and in simulated trials intervals only got shorter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causalsat.estimators.gaussian_process.kernels import FloatArray, Term
from causalsat.estimators.gaussian_process.likelihood import MarginalPosterior
from causalsat.estimators.gaussian_process.model import Model
from causalsat.estimators.gaussian_process.sampler import HyperparameterDraws, find_mode, sample

__all__ = ["LearnedScales", "ScaledPosterior", "sample_scaled"]

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
