r"""Quasi-posterior of a local average treatment effect that is linear in modifiers.

With scores of the intention to treat ``a_i`` and of the first stage ``c_i`` (both doubly robust in the assignment)
the effect on compliers ``tau(x) = d(x)' b`` solves ``E[d (a - c d' b)] = 0``, an orthogonal moment (Chernozhukov et
al. 2018, section 5.2; Athey, Tibshirani and Wager 2019). The quasi-likelihood of b is that of the moment's cluster
sums, normal with mean 0 and covariance V(b) at b (Anderson and Rubin 1949; Chernozhukov and Hong 2003), with V(b)
estimated from G clusters integrated out, which makes it Hotelling's: ``g(b)`` is multivariate t. It does not divide
by compliance: where compliance is weak the likelihood is flat and the prior, which is proper, decides. A priori the
average is N(0, S^2) and slopes ``N(0, s^2 l_j^2)``, s half-normal and the ``l_j`` lognormal, so that one of many
features may matter alone. Draws come from elliptical slice sampling (Murray, Adams and MacKay 2010), which has no
settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LateMoments", "draw_late", "late_moments"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LateMoments:
    """Cluster sums of the moments of a linear local effect.

    Attributes
    ----------
    a : ndarray of shape (G, k)
        Sums of ``w d a`` of each cluster.
    c : ndarray of shape (G, k, k)
        Sums of ``w d d' c``.
    cell : ndarray of int of shape (G,)
        Cells of the design within which sums vary about their mean.
    """

    a: FloatArray
    c: FloatArray
    cell: IntArray


def late_moments(
    itt: FloatArray, first: FloatArray, design: FloatArray, weight: FloatArray, cluster: IntArray, cell: IntArray
) -> LateMoments:
    """Cluster sums of the moments.

    Parameters
    ----------
    itt, first : ndarray of shape (n,)
        Scores of the intention to treat and of the first stage.
    design : ndarray of shape (n, k)
        The constant and the modifiers.
    weight : ndarray of shape (n,)
    cluster, cell : ndarray of int of shape (n,)
        Clusters, and the cells of the design that hold them.
    """
    n_clusters, k = int(cluster.max()) + 1, design.shape[1]
    weighted = weight[:, None] * design
    a = np.zeros((n_clusters, k))
    np.add.at(a, cluster, weighted * itt[:, None])
    c = np.zeros((n_clusters, k, k))
    np.add.at(c, cluster, (weighted * first[:, None])[:, :, None] * design[:, None, :])
    home = np.zeros(n_clusters, dtype=np.int64)
    home[cluster] = cell
    return LateMoments(a, c, home)


def log_likelihood(b: FloatArray, m: LateMoments, ridge: FloatArray) -> float:
    """Log density of the moments' total at b, whose covariance at b is estimated from the clusters."""
    sums = m.a - m.c @ b
    total = sums.sum(axis=0)
    cov = np.array(ridge)
    for cell in np.unique(m.cell):
        own = sums[m.cell == cell]
        left = own - own.mean(axis=0)
        cov += left.T @ left * len(own) / max(len(own) - 1, 1)
    sign, logdet = np.linalg.slogdet(cov)
    if sign <= 0:
        return -np.inf
    df = max(len(sums) - len(np.unique(m.cell)), 1)
    return float(-0.5 * ((df + 1) * np.log1p(total @ np.linalg.solve(cov, total) / df) + logdet))


def draw_late(
    m: LateMoments,
    *,
    average_sd: float,
    slope_scale: float,
    centre: float,
    n_draws: int,
    rng: np.random.Generator,
    thin: int = 2,
    burn: int = 300,
) -> FloatArray:
    """Draws (n_draws, k) of the coefficients.

    Parameters
    ----------
    m : LateMoments
    average_sd : float
        Prior standard deviation S of the average, about 0.
    slope_scale : float
        Scale of the half-normal prior of s.
    centre : float
        Where the chain begins: an estimate of the average.
    n_draws : int
    rng : numpy.random.Generator
    thin, burn : int
        Steps between draws, and before the first.

    Examples
    --------
    Everybody complies, and the effect is 2:

    >>> rng = np.random.default_rng(0)
    >>> n = 400
    >>> scores, ones = 2 + rng.standard_normal(n), np.ones(n)
    >>> m = late_moments(scores, ones, np.ones((n, 1)), ones, np.arange(n), np.zeros(n, dtype=int))
    >>> draws = draw_late(m, average_sd=10.0, slope_scale=1.0, centre=2.0, n_draws=400, rng=rng)
    >>> bool(abs(draws.mean() - 2) < 0.1), bool(0.03 < draws.std() < 0.08)
    (True, True)
    """
    k = m.a.shape[1]
    scale = float(np.mean(np.diag(np.atleast_2d(np.cov(m.a, rowvar=False))))) * len(m.a)
    ridge = (min(1.0, k / len(m.a)) * 0.1 + 1e-10) * max(scale, 1e-300) * np.eye(k)

    def coefficients(theta: FloatArray) -> FloatArray:
        slopes = slope_scale * abs(theta[-1]) * theta[1:k] * np.exp(theta[k:-1])
        return np.concatenate([[average_sd * theta[0]], slopes])

    theta = np.zeros(2 * k)
    theta[0], theta[-1] = centre / average_sd, 0.5
    current = log_likelihood(coefficients(theta), m, ridge)
    out = np.empty((n_draws, k))
    for step in range(burn + n_draws * thin):
        theta, current = _slice(theta, current, lambda t: log_likelihood(coefficients(t), m, ridge), rng)
        if step >= burn and (step - burn) % thin == thin - 1:
            out[(step - burn) // thin] = coefficients(theta)
    return out


def _slice(theta: FloatArray, current: float, density: object, rng: np.random.Generator) -> tuple[FloatArray, float]:
    """One step of elliptical slice sampling under a standard normal prior."""
    other = rng.standard_normal(len(theta))
    level = current + np.log(rng.uniform())
    angle = rng.uniform(0, 2 * np.pi)
    low, high = angle - 2 * np.pi, angle
    while True:
        proposal = theta * np.cos(angle) + other * np.sin(angle)
        value = density(proposal)  # type: ignore[operator]
        if value > level or high - low < 1e-10:
            return proposal, value
        low, high = (angle, high) if angle < 0 else (low, angle)
        angle = rng.uniform(low, high)
