"""The posterior of the cluster model on fixed features: its mode, a normal approximation, and draws by NUTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.clusters import density
from causalsat.estimators.clusters.density import Cells, Layout, Prior
from causalsat.inference.chains import Settings, inverse_root, negative_hessian, sample_nuts

__all__ = ["Posterior", "climb", "curvature", "find_mode", "laplace_draws", "sample"]

FloatArray = NDArray[np.float64]

MAX_DEVIATION = 1e4  # in standard deviations near the mode: no posterior reaches there


def find_mode(
    cells: Cells, features: FloatArray, prior: Prior, n_clusters: int, rng: np.random.Generator, n_restarts: int
) -> tuple[FloatArray, float]:
    """Highest posterior mode over several starts: along the effect's gradient, then along random directions.

    Parameters
    ----------
    cells : Cells
        Outcomes.
    features : ndarray of shape (m, d)
        Features of the images, standardised.
    prior : Prior
        Scales.
    n_clusters : int
        K.
    rng : numpy.random.Generator
        Draws the directions.
    n_restarts : int
        Starts; the first is along the effect's gradient.

    Returns
    -------
    x : ndarray of shape (size,)
        Parameters at the mode.
    value : float
        Log density there.
    """
    d = features.shape[1]
    single, value = climb(_start_single(cells, features, prior), cells, features, prior, 1)
    if n_clusters == 1:
        return single, value
    directions = [_effect_direction(single, cells, features)]
    directions += list(rng.standard_normal((n_restarts - 1, d)))
    modes = [
        climb(
            _start_mixture(single, direction, features, prior.layout(n_clusters, features, cells)),
            cells,
            features,
            prior,
            n_clusters,
        )
        for direction in directions
    ]
    return max(modes, key=lambda pair: pair[1])


def climb(
    start: FloatArray, cells: Cells, features: FloatArray, prior: Prior, n_clusters: int
) -> tuple[FloatArray, float]:
    """The posterior mode that a search from these parameters ends at, shape (size,), and the log density there."""
    from scipy.optimize import minimize

    args = density.arguments(cells, features, prior, n_clusters)

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = density.log_density(x, *args)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return 1e300, np.zeros_like(x)
        return -value, -gradient

    optimum = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-12.0, 12.0)] * len(start),
        options={"maxiter": 250, "ftol": 1e-8},
    )
    return np.asarray(optimum.x), float(-optimum.fun)


def _start_single(cells: Cells, features: FloatArray, prior: Prior) -> FloatArray:
    layout = prior.layout(1, features, cells)
    x = np.zeros(layout.size)
    at = 1 + layout.n_features
    x[at] = prior.effect
    x[at + 1 : at + 3] = np.log(prior.arm_sd)
    if cells.has_sites:
        x[-1] = np.log(0.2)
    return x


def _effect_direction(single: FloatArray, cells: Cells, features: FloatArray) -> FloatArray:
    """Weights of the features in a ridge regression of the effect on them, less the prognosis."""
    d = features.shape[1]
    p = Layout(1, d, cells.has_sites).unpack(single)
    level = p["intercept"] + features @ p["prognostic"]
    side = np.array([-0.5, 0.5])
    residual = cells.mean - level[cells.image][:, None] - side * p["tau"][0]
    Z = features[cells.image]
    weight = cells.count.sum(axis=1) / 4
    gram = (Z * weight[:, None]).T @ Z + 0.05 * weight.sum() * np.eye(d)
    return np.asarray(np.linalg.solve(gram, Z.T @ (cells.count * residual @ side)))


def _start_mixture(single: FloatArray, direction: FloatArray, features: FloatArray, layout: Layout) -> FloatArray:
    """Clusters are ordered along a direction of the features, with effects that rise along it."""
    d, k, q = layout.n_features, layout.n_clusters, layout.n_noise
    x = np.zeros(layout.size)
    at = 1 + d
    x[:at] = single[:at]
    x[at] = single[at] - 0.3
    x[at + 1 : at + k] = np.log(0.6 / (k - 1))
    x[at + k : at + k + q] = single[at + 1]
    x[at + k + q : at + k + 2 * q] = single[at + 2]
    score = features @ direction
    scale = max(float(score.std()), 1e-12)
    cuts = np.quantile(score / scale, np.arange(1, k) / k)
    al = at + k + 2 * q
    x[al : al + k - 1] = -2.0 * np.cumsum(cuts)
    x[al + k - 1 : al + (k - 1) * (1 + d)] = (2.0 * np.arange(1, k)[:, None] * direction / scale).ravel()
    if layout.has_sites:
        x[-1] = single[-1]
    return x


def curvature(mode: FloatArray, args: tuple[Any, ...]) -> FloatArray:
    """Matrix S, (size, size), such that mode + S z has the curvature of the log density at the mode for normal z."""
    curved = negative_hessian(lambda x: density.log_density(x, *args), mode)
    return inverse_root(curved, least=0.25)  # no wider than two prior standard deviations


def laplace_draws(
    mode: FloatArray, args: tuple[Any, ...], n_draws: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draws from the normal approximation at a mode, with truncated importance weights (Ionides 2008).

    Returns
    -------
    draws : ndarray of shape (n_draws, size)
        Parameter vectors.
    log_weight : ndarray of shape (n_draws,)
        Logarithms of weights that sum to one.
    """
    normals = rng.standard_normal((n_draws, len(mode)))
    draws = mode + normals @ curvature(mode, args).T
    target = np.array([density.log_density(x, *args)[0] for x in draws])
    weight = np.where(np.isfinite(target), target, -np.inf) + 0.5 * (normals**2).sum(axis=1)
    total = np.logaddexp.reduce(weight)
    weight = np.minimum(weight, total - 0.5 * np.log(n_draws))
    return draws, weight - np.logaddexp.reduce(weight)


@dataclass(frozen=True)
class Posterior:
    """Draws of the parameters, chains one after the other.

    Attributes
    ----------
    draws : ndarray of shape (draw, size)
        Parameter vectors of ``layout``.
    layout : Layout
        Where the parameters lie.
    divergences : int
        Divergent transitions.
    n_chains : int
        Chains.
    """

    draws: FloatArray
    layout: Layout
    divergences: int
    n_chains: int


def sample(
    mode: FloatArray, cells: Cells, features: FloatArray, prior: Prior, n_clusters: int, settings: Settings
) -> Posterior:
    """Draw from the posterior by NUTS, in coordinates that are standard normal near the mode."""
    args = density.arguments(cells, features, prior, n_clusters)
    scale = curvature(mode, args)

    def whitened(z: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = density.log_density(mode + scale @ z, *args)
        return value, scale.T @ gradient

    layout = prior.layout(n_clusters, features, cells)
    draws, divergences = sample_nuts(whitened, np.zeros(layout.size), settings, spread=0.5, limit=MAX_DEVIATION)
    return Posterior(mode + draws.reshape(-1, layout.size) @ scale.T, layout, divergences, settings.n_chains)
