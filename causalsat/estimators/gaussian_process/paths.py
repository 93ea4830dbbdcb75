"""Function samples from a Gaussian-process posterior that can be evaluated anywhere: pathwise conditioning.

A draw is a draw of the prior, made of random features, plus the exact correction by the data (Wilson et al. 2020,
equation 13): f(x) = prior(x) + k(x, Z) v. Its value at a place does not depend on which other places are asked for,
so the tiles of a map belong to one and the same function. Draws come in antithetic pairs about the exact mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causalsat.estimators.gaussian_process import kernels as gp_kernels
from causalsat.estimators.gaussian_process.kernels import FloatArray, Term, arm_features
from causalsat.estimators.gaussian_process.likelihood import MarginalPosterior
from causalsat.estimators.gaussian_process.model import Model, Observations

__all__ = ["FunctionDraws", "contrast_draws", "function_draws"]

CHUNK = 2_000_000  # entries of the largest temporary matrix


@dataclass(frozen=True)
class TermSample:
    """Random features of one term and the weights of its prior draws.

    Attributes
    ----------
    frequency : ndarray of shape (d, m)
        Frequencies of a stationary term's scaled coordinates.
    phase : ndarray of shape (m,)
    weight : ndarray of shape (feature, draw)
        Normal weights times the amplitude; where there are two arms, those of f0 and then those of h.
    """

    frequency: FloatArray
    phase: FloatArray
    weight: FloatArray


@dataclass(frozen=True)
class FunctionDraws:
    """Function samples for one vector of hyperparameters.

    Attributes
    ----------
    theta : ndarray of shape (k,)
        Hyperparameters.
    prior : list of TermSample
        The prior's draws, one entry for each term.
    mean : ndarray of shape (m,)
        Weights of the posterior mean: mean(x) = k(x, Z) mean.
    deviation : ndarray of shape (m, s)
        Weights of the deviations: deviation(x) = prior(x) + k(x, Z) deviation.
    """

    theta: FloatArray
    prior: list[TermSample]
    mean: FloatArray
    deviation: FloatArray


def _sample_term(term: Term, theta: FloatArray, n_features: int, s: int, rng: np.random.Generator) -> TermSample:
    """Random features (Rahimi and Recht 2007); Matern 5/2 has Student frequencies with 5 degrees of freedom."""
    scale, _, _ = term.split(theta)
    m = n_features if term.stationary and term.x != "linear" else max(n_features // 8, 32)
    frequency, phase = np.zeros((0, m)), np.zeros(0)
    if term.stationary:
        d = {"rbf": len(term.columns), "index": 1}.get(term.x, 0) + (term.t == "rbf")
        frequency, phase = rng.standard_normal((d, m)), rng.uniform(0, 2 * np.pi, m)
        if term.matern:
            frequency *= np.sqrt(5 / rng.chisquare(5, m))
    n_weights = m if term.stationary else max(term.n_x, 1)
    if term.stationary and term.x == "linear":
        n_weights = m * term.n_x
    columns = 2 * s if term.t == "arms" else s
    return TermSample(frequency, phase, np.sqrt(scale) * rng.standard_normal((n_weights, columns)))


def _waves(term: Term, theta: FloatArray, sample: TermSample, X: FloatArray, t: FloatArray) -> FloatArray:
    """Random features (n, m) of a stationary term's coordinates."""
    angle = gp_kernels.coordinates(term, theta, X, t) @ sample.frequency
    angle += sample.phase
    np.cos(angle, out=angle)
    angle *= np.sqrt(2 / len(sample.phase))
    return angle


def _term_values(
    term: Term,
    theta: FloatArray,
    sample: TermSample,
    X: FloatArray,
    level: FloatArray,
    baseline: FloatArray | None,
) -> FloatArray:
    """Values (n, s) of the prior's draws of one term: f(x, level) - f(x, baseline), or f(x, level)."""
    _, px, pt = term.split(theta)
    linear = X[:, term.columns] * np.exp(px) if term.x == "linear" else None
    weight = sample.weight
    if term.t == "rbf":
        waves = _waves(term, theta, sample, X, level)
        if baseline is not None:
            waves -= _waves(term, theta, sample, X, baseline)
        if linear is None:
            return np.asarray(waves @ weight)
        curves = weight.reshape(linear.shape[1], len(sample.phase), -1)  # one smooth curve in t for each feature
        return np.asarray(sum(linear[:, [j]] * (waves @ curves[j]) for j in range(linear.shape[1])))
    if term.stationary:
        phi = _waves(term, theta, sample, X, level)
    else:
        phi = np.ones((len(X), 1)) if linear is None else linear
    if term.t == "arms":
        own = arm_features(level, pt) - (0.0 if baseline is None else arm_features(baseline, pt))
        pair = (phi @ weight).reshape(len(X), 2, -1)  # first the surface f0's draws, then h's
        return np.asarray(np.einsum("nk,nks->ns", own, pair))
    if term.t in ("linear", "curve"):
        own = gp_kernels.dose_factor(term, theta, level)
        own = own if baseline is None else own - gp_kernels.dose_factor(term, theta, baseline)
        return np.asarray(own[:, None] * (phi @ weight))
    return np.asarray(phi @ weight)


def prior_values(
    terms: Sequence[Term],
    theta: FloatArray,
    samples: Sequence[TermSample],
    X: FloatArray,
    level: FloatArray,
    baseline: FloatArray | None = None,
) -> FloatArray:
    """Values (n, s) of the prior's draws of f(x, level) - f(x, baseline), or of f(x, level)."""
    parts = [_term_values(term, theta, s, X, level, baseline) for term, s in zip(terms, samples, strict=True)]
    return np.asarray(sum(parts, start=np.zeros((len(X), 1))))


def function_draws(
    theta: FloatArray,
    model: Model,
    data: Observations,
    n_pairs: int,
    n_features: int,
    rng: np.random.Generator,
    inducing: Observations | None = None,
    work: MarginalPosterior | None = None,
) -> FunctionDraws:
    """Condition draws of the prior on the data: exactly, or through inducing points.

    Parameters
    ----------
    theta : ndarray of shape (k,)
        Hyperparameters.
    n_pairs : int
        Number of deviations s; each gives two draws.
    n_features : int
        Random features of a term.
    inducing : Observations, optional
        Rows Z on which the function is conditioned; all rows, exactly, where it is None.
    work : MarginalPosterior, optional
        Of the same model and data: its memory is used.
    """
    samples = [_sample_term(term, theta, n_features, n_pairs, rng) for term in model.terms]
    if inducing is not None:
        return _through_inducing(theta, model, data, inducing, samples, n_pairs, rng)
    from scipy.linalg import cho_factor, cho_solve

    n, posterior = len(data.y), work or MarginalPosterior(model, data)
    error = np.sqrt(model.noise_variance(theta, data))[:, None] * rng.standard_normal((n, n_pairs))
    for k in range(model.n_random if data.group is not None else 0):
        error += _village_draws(model, theta, data, k, n_pairs, rng)
    factor = cho_factor(posterior.covariance(theta), lower=True)
    prior = prior_values(model.terms, theta, samples, data.Z, data.t)
    solved = cho_solve(factor, np.column_stack([data.y, -(prior + error)]))
    return FunctionDraws(theta, samples, solved[:, 0].copy(), np.ascontiguousarray(solved[:, 1:]))


def _village_draws(
    model: Model, theta: FloatArray, data: Observations, k: int, s: int, rng: np.random.Generator
) -> FloatArray:
    assert data.group is not None
    effect = np.sqrt(model.random_variance(theta)[k]) * rng.standard_normal((int(data.group.max()) + 1, s))
    return np.asarray(effect[data.group] if k == 0 else effect[data.group] * data.t[:, None])


def _through_inducing(
    theta: FloatArray,
    model: Model,
    data: Observations,
    inducing: Observations,
    samples: list[TermSample],
    s: int,
    rng: np.random.Generator,
) -> FunctionDraws:
    """Draws conditioned through inducing rows (FITC: each row keeps its exact prior variance).

    Snelson and Ghahramani (2006); village effects are part of the noise, whose inverse is taken village by village.
    """
    from scipy.linalg import cholesky, solve_triangular

    m = len(inducing.y)
    Kuu = gp_kernels.covariance(model.terms, theta, inducing.Z, inducing.t, inducing.Z, inducing.t)
    Kuu[np.diag_indices(m)] += 1e-6 * np.trace(Kuu) / m
    L = cholesky(Kuu, lower=True)
    V = solve_triangular(
        L, gp_kernels.covariance(model.terms, theta, inducing.Z, inducing.t, data.Z, data.t), lower=True
    )
    diagonal = gp_kernels.prior_variance(model.terms, theta, data.Z, data.t)
    noise = model.noise_variance(theta, data) + np.maximum(diagonal - (V**2).sum(axis=0), 0)
    DV = _noise_solve(model, theta, data, noise, V.T)
    A = np.eye(m) + V @ DV
    LA = cholesky(A, lower=True)
    whitened = solve_triangular(LA.T, solve_triangular(LA, DV.T @ data.y, lower=True), lower=False)
    spread = solve_triangular(LA.T, rng.standard_normal((m, s)), lower=False)
    prior = prior_values(model.terms, theta, samples, inducing.Z, inducing.t)
    mean = solve_triangular(L.T, whitened, lower=False)
    deviation = solve_triangular(L.T, spread - solve_triangular(L, prior, lower=True), lower=False)
    return FunctionDraws(theta, samples, np.ascontiguousarray(mean), np.ascontiguousarray(deviation))


def _noise_solve(model: Model, theta: FloatArray, data: Observations, noise: FloatArray, B: FloatArray) -> FloatArray:
    """(diag(noise) + village covariance)^-1 B, by Woodbury's identity in each village."""
    out = B / noise[:, None]
    if not model.n_random or data.group is None:
        return out
    W = np.ones((len(noise), 1)) if model.n_random == 1 else np.column_stack([np.ones(len(noise)), data.t])
    prior = np.diag(1 / model.random_variance(theta))
    for rows in np.split(np.argsort(data.group, kind="stable"), np.cumsum(np.bincount(data.group))[:-1]):
        w = W[rows] / noise[rows, None]
        out[rows] -= w @ np.linalg.solve(prior + W[rows].T @ w, w.T @ B[rows])
    return out


def contrast_draws(
    draws: Sequence[FunctionDraws],
    terms: Sequence[Term],
    Z: FloatArray,
    t: FloatArray,
    X: FloatArray,
    level: FloatArray,
    baseline: FloatArray | None,
) -> FloatArray:
    """Draws (draw, n) of f(x, level) - f(x, baseline), or of f(x, level) where the baseline is None.

    Rows are taken in chunks; a row's draws do not depend on the others. Terms that do not see the treatment cancel
    and are left out of contrasts.
    """
    keep = [k for k, term in enumerate(terms) if baseline is None or term.t != "one"]
    used = [terms[k] for k in keep]
    width = max(len(Z), max((d.prior[k].weight.shape[0] for d in draws for k in keep), default=1))
    size = max(1, CHUNK // width)
    columns = [2 * d.deviation.shape[1] for d in draws]
    out = np.empty((sum(columns), len(X)))
    at = np.cumsum([0, *columns])
    for begin in range(0, len(X), size):
        rows = slice(begin, begin + size)
        base = None if baseline is None else baseline[rows]
        for d, low, high in zip(draws, at[:-1], at[1:], strict=True):
            V = np.column_stack([d.mean, d.deviation])
            moved = gp_kernels.cross_product(used, d.theta, X[rows], level[rows], base, Z, t, V)
            deviation = moved[:, 1:] + prior_values(
                used, d.theta, [d.prior[k] for k in keep], X[rows], level[rows], base
            )
            out[low:high:2, rows] = (moved[:, :1] + deviation).T
            out[low + 1 : high : 2, rows] = (moved[:, :1] - deviation).T
    return out
