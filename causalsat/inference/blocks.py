r"""Projection of several scores on one design, with a joint covariance, and draws under a prior alike for all arms.

The coefficients of arm k against control are ``beta_k = gamma_k - gamma_0``; a priori the slopes of the arms are
``gamma_k ~ N(0, s^2 / 2 I)``, control included, so that every contrast has slopes N(0, s^2) and no arm is special.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.inference.projection import inverse_of_gram

__all__ = ["Blocks", "draw_blocks", "project_blocks"]

FloatArray = NDArray[np.float64]
_N_SCALES = 40


@dataclass(frozen=True, eq=False)
class Blocks:
    """Least squares of several scores on one design.

    Attributes
    ----------
    coef : ndarray of shape (q, k)
        Coefficients, a row a score.
    cov : ndarray of shape (q * k, q * k)
        Cluster-robust covariance of the rows one after the other, drawn towards that of the working model where
        clusters are few for the number of coefficients.
    df : float
        Degrees of freedom of the t reference.
    """

    coef: FloatArray
    cov: FloatArray
    df: float


def project_blocks(
    scores: FloatArray, design: FloatArray, weight: FloatArray, groups: NDArray[np.int64] | None
) -> Blocks:
    """Project scores (n, q) on a design (n, k), with one covariance of all coefficients.

    Examples
    --------
    >>> scores = np.column_stack([[1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0]])
    >>> found = project_blocks(scores, np.ones((4, 1)), np.ones(4), None)
    >>> found.coef.ravel(), np.round(found.cov[1, 1] / found.cov[0, 0], 6)
    (array([2.5, 5. ]), np.float64(4.0))
    """
    (n, q), k = scores.shape, design.shape[1]
    inverse = inverse_of_gram(design.T @ (weight[:, None] * design))
    coef = (inverse @ (design.T @ (weight[:, None] * scores))).T
    residual = scores - design @ coef.T
    code = np.arange(n) if groups is None else groups
    clusters = int(code.max()) + 1
    units = (residual[:, :, None] * (weight[:, None] * design)[:, None, :]).reshape(n, q * k)
    sums = np.zeros((clusters, q * k))
    np.add.at(sums, code, units)
    bread = np.kron(np.eye(q), inverse)
    df = float(max(clusters - k, clusters // 2, 1))
    cov = bread @ (sums.T @ sums) @ bread * clusters / df
    noise = (residual.T @ (weight[:, None] * residual)) / weight.sum() * n / max(n - k, 1)
    plain = np.kron(noise, inverse @ (design.T @ (weight[:, None] ** 2 * design)) @ inverse)
    cov = cov + np.diag(np.maximum(np.diag(plain) - np.diag(cov), 0.0))
    share = min(1.0, q * k / clusters)
    blocks = cov.reshape(q, k, q, k)
    gram = design.T @ (weight[:, None] * design)
    phi = np.einsum("aibj,ij->ab", blocks, gram) / k
    working = np.kron(phi, inverse)
    cov = (1 - share) * cov + share * working
    return Blocks(coef, (cov + cov.T) / 2, df)


def draw_blocks(
    found: Blocks, average_se: FloatArray, n_draws: int, rng: np.random.Generator, *, prior_scale: float
) -> tuple[FloatArray, float]:
    """Draws (draw, q, k) of the coefficients and the mean prior standard deviation of a slope.

    The constants, averages of centred modifiers, keep their estimates and the standard errors of the design; the
    slopes are shrunk, their prior's scale s half-Cauchy and summed over a grid with its marginal likelihood.
    """
    q, k = found.coef.shape
    cov = _with_averages(found.cov, average_se, q, k)
    flat = found.coef.ravel()
    slopes = np.flatnonzero(np.arange(q * k) % k > 0)
    constants = np.flatnonzero(np.arange(q * k) % k == 0)
    pairs = (n_draws + 1) // 2
    noise = rng.standard_normal((pairs, q * k)) * np.sqrt(found.df / rng.chisquare(found.df, size=(pairs, 1)))
    draws = np.empty((2, pairs, q * k))
    if not len(slopes):
        deviation = noise @ _root(cov)
        draws[0], draws[1] = flat + deviation, flat - deviation
        return draws.reshape(-1, q, k)[rng.permutation(2 * pairs)][:n_draws], float("nan")
    prior = np.kron(0.5 * (np.eye(q) + 1), np.eye(k - 1))
    own = cov[np.ix_(slopes, slopes)]
    scales = prior_scale * np.logspace(-3, 2, _N_SCALES)
    log_weight = np.empty(_N_SCALES)
    for i, s in enumerate(scales):
        total = own + s**2 * prior
        logdet = np.linalg.slogdet(total)[1]
        log_weight[i] = -0.5 * (logdet + flat[slopes] @ np.linalg.solve(total, flat[slopes]))
    log_weight += np.log(scales) - np.log1p((scales / prior_scale) ** 2)
    share = np.exp(log_weight - log_weight.max())
    share /= share.sum()
    chosen = np.searchsorted(np.cumsum(share), (np.arange(pairs) + rng.uniform()) / pairs)
    chosen = np.minimum(chosen, _N_SCALES - 1)
    for i in np.unique(chosen):
        rows = np.flatnonzero(chosen == i)
        gain = np.linalg.solve(own + scales[i] ** 2 * prior, cov[slopes]).T
        centre, after = flat - gain @ flat[slopes], cov - gain @ cov[slopes]
        centre[constants] = flat[constants]
        after[np.ix_(constants, constants)] = cov[np.ix_(constants, constants)]
        deviation = noise[rows] @ _root(after)
        draws[0, rows], draws[1, rows] = centre + deviation, centre - deviation
    order = rng.permutation(2 * pairs)
    return draws.reshape(-1, q, k)[order][:n_draws], float(share @ scales)


def _with_averages(cov: FloatArray, se: FloatArray, q: int, k: int) -> FloatArray:
    """A covariance whose constants have the variances of the averages; correlations stay."""
    scale = np.ones(q * k)
    for j in range(q):
        variance = cov[j * k, j * k]
        if variance > 0 and np.isfinite(se[j]) and se[j] > 0:
            scale[j * k] = se[j] / np.sqrt(variance)
    return np.asarray(scale[:, None] * cov * scale)


def _root(cov: FloatArray) -> FloatArray:
    """Matrix R with R'R = cov, for a covariance that may be singular."""
    eigen, vectors = np.linalg.eigh((cov + cov.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(eigen, 0.0))).T)
