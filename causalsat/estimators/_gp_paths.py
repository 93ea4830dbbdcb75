"""Function samples from a Gaussian-process posterior that can be evaluated anywhere: pathwise conditioning.

A draw is a draw of the prior, made of random features, plus the exact correction by the data (Wilson et al. 2020,
equation 13): f(x) = prior(x) + k(x, Z) v. Its value at a place does not depend on which other places are asked for,
so the tiles of a map belong to one and the same function. Draws come in antithetic pairs about the exact mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causalsat.estimators import _gp_kernels
from causalsat.estimators._gp_kernels import FloatArray, Term
from causalsat.estimators._gp_likelihood import JITTER, Model, Observations, random_covariance

__all__ = ["FunctionDraws", "contrast_draws", "function_draws"]

CHUNK = 2_000_000  # entries of the largest temporary matrix


@dataclass(frozen=True)
class TermSample:
    """Random features of one term and the weights of its prior draws.

    Attributes
    ----------
    frequency : ndarray of shape (p, m)
        Frequencies of the features kernel (of no columns where it needs none).
    t_frequency : ndarray of shape (m,)
        Frequencies of the treatment kernel.
    phase, t_phase : ndarray of shape (m,)
    weight : ndarray of shape (feature, draw)
        Normal weights times the amplitude.
    """

    frequency: FloatArray
    t_frequency: FloatArray
    phase: FloatArray
    t_phase: FloatArray
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
    scale, px, pt = term.split(theta)
    p, m = len(term.columns), n_features
    none = np.zeros((0, m))
    if term.x == "rbf":
        frequency = np.exp(px)[:, None] * rng.standard_normal((p, m))
    elif term.x == "index":
        frequency = np.multiply.outer(px, rng.standard_normal(m))
    else:
        frequency = none
    waves = term.x in ("rbf", "index")
    m_t = m if waves or term.x == "const" else max(m // 8, 32)  # linear features: one smooth curve in t for each
    t_frequency = np.exp(pt[0]) * rng.standard_normal(m_t) if term.t == "rbf" else np.zeros(0)
    phase = rng.uniform(0, 2 * np.pi, m if waves else 0)
    t_phase = rng.uniform(0, 2 * np.pi, 0 if waves or term.t != "rbf" else m_t)
    n_weights = (m if waves else max(term.n_x, 1)) * (2 if term.t == "arms" else max(len(t_phase), 1))
    weight = np.sqrt(scale) * rng.standard_normal((n_weights, s))
    return TermSample(frequency, t_frequency, phase, t_phase, weight)


def _features(term: Term, theta: FloatArray, sample: TermSample, X: FloatArray, t: FloatArray) -> FloatArray:
    """Features of a term, shape (n, feature), with inner products that approximate its kernel."""
    _, px, pt = term.split(theta)
    X = X[:, term.columns]
    if term.x in ("rbf", "index"):
        angle = X @ sample.frequency + sample.phase
        if term.t == "rbf":  # one squared exponential over features and treatment
            angle += np.multiply.outer(t, sample.t_frequency)
        phi = np.sqrt(2 / len(sample.phase)) * np.cos(angle)
    else:
        phi = X * np.exp(px) if term.x == "linear" else np.ones((len(X), 1))
    if term.t == "linear":
        return np.asarray(phi * t[:, None])
    if term.t == "arms":
        psi = _gp_kernels.arm_features(t, pt)
    elif len(sample.t_phase):
        psi = np.sqrt(2 / len(sample.t_phase)) * np.cos(np.multiply.outer(t, sample.t_frequency) + sample.t_phase)
    else:
        return np.asarray(phi)
    return np.asarray((phi[:, :, None] * psi[:, None]).reshape(len(X), -1))


def prior_values(
    terms: Sequence[Term], theta: FloatArray, samples: Sequence[TermSample], X: FloatArray, t: FloatArray
) -> FloatArray:
    """Values (n, s) of the prior's draws."""
    parts = [_features(term, theta, s, X, t) @ s.weight for term, s in zip(terms, samples, strict=True)]
    return np.asarray(sum(parts))


def function_draws(
    theta: FloatArray,
    model: Model,
    data: Observations,
    n_pairs: int,
    n_features: int,
    rng: np.random.Generator,
    inducing: Observations | None = None,
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
    """
    samples = [_sample_term(term, theta, n_features, n_pairs, rng) for term in model.terms]
    if inducing is not None:
        return _through_inducing(theta, model, data, inducing, samples, n_pairs, rng)
    from scipy.linalg import cho_factor, cho_solve

    n = len(data.y)
    K = _gp_kernels.covariance(model.terms, theta, data.Z, data.t, data.Z, data.t)
    noise = model.noise_variance(theta, data) + JITTER
    error = np.sqrt(noise)[:, None] * rng.standard_normal((n, n_pairs))
    for k, block in enumerate(random_covariance(model, theta, data)):
        K += block
        error += _village_draws(model, theta, data, k, n_pairs, rng)
    K[np.diag_indices(n)] += noise
    factor = cho_factor(K, lower=True, overwrite_a=True)
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
    Kuu = _gp_kernels.covariance(model.terms, theta, inducing.Z, inducing.t, inducing.Z, inducing.t)
    Kuu[np.diag_indices(m)] += 1e-6 * np.trace(Kuu) / m
    L = cholesky(Kuu, lower=True)
    V = solve_triangular(
        L, _gp_kernels.covariance(model.terms, theta, inducing.Z, inducing.t, data.Z, data.t), lower=True
    )
    diagonal = _prior_variance(model.terms, theta, data.Z, data.t)
    noise = model.noise_variance(theta, data) + np.maximum(diagonal - (V**2).sum(axis=0), 0) + JITTER
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


def _prior_variance(terms: Sequence[Term], theta: FloatArray, X: FloatArray, t: FloatArray) -> FloatArray:
    """Diagonal of the covariance."""
    total = np.zeros(len(X))
    for term in terms:
        scale, px, pt = term.split(theta)
        kx = (X[:, term.columns] ** 2) @ np.exp(2 * px) if term.x == "linear" else 1.0
        kt = {"linear": t**2}.get(term.t, 1.0)
        if term.t == "arms":
            kt = (_gp_kernels.arm_features(t, pt) ** 2).sum(axis=1)
        total += scale * kx * kt
    return total


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
        for d, low, high in zip(draws, at[:-1], at[1:], strict=True):
            prior = [d.prior[k] for k in keep]
            cross = _gp_kernels.covariance(used, d.theta, X[rows], level[rows], Z, t)
            deviation = prior_values(used, d.theta, prior, X[rows], level[rows])
            if baseline is not None:
                cross -= _gp_kernels.covariance(used, d.theta, X[rows], baseline[rows], Z, t)
                deviation -= prior_values(used, d.theta, prior, X[rows], baseline[rows])
            centre, deviation = cross @ d.mean, deviation + cross @ d.deviation
            out[low:high:2, rows] = (centre[:, None] + deviation).T
            out[low + 1 : high : 2, rows] = (centre[:, None] - deviation).T
    return out
