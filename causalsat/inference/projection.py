"""Best linear projection of doubly robust scores: cluster-robust, and shrunk towards a constant effect."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Projection",
    "about_the_mean",
    "at_least_conventional",
    "draw_coefficients",
    "inverse_of_gram",
    "leaves_nothing",
    "open_directions",
    "project",
    "stabilise",
]

FloatArray = NDArray[np.float64]

_N_SCALES = 60
_ALIKE = 1e-10  # eigenvalue of the columns' correlations, relative to the largest, up to which they are collinear


@dataclass(frozen=True, eq=False)
class Projection:
    """Weighted least squares of scores on a design, with cluster-robust covariance.

    Attributes
    ----------
    coef : ndarray of shape (k,)
        Coefficients.
    cov : ndarray of shape (k, k)
        Cluster-robust covariance of statsmodels, times (clusters - 1) / df: regressors that are constant in a
        cluster use up one degree of freedom of the clusters each, which CR1 does not count. With ten of them and 100
        clusters it comes to what CR2 gives. Without clusters, HC0 times units / df: HC1, and finite where columns
        are as many as units.
    df : float
        Degrees of freedom of the t reference: clusters (units) less k, at least half of them.
    gram : ndarray of shape (k, k)
        The design's weighted cross-products.
    """

    coef: FloatArray
    cov: FloatArray
    df: float
    gram: FloatArray

    @property
    def rank(self) -> int:
        """Number of directions in which the design varies by more than the rounding of its columns."""
        return _directions(self.gram)[0].shape[1]


def project(scores: FloatArray, design: FloatArray, weight: FloatArray, groups: Any = None) -> Projection:
    """Regress scores on a design by statsmodels' weighted least squares (Semenova and Chernozhukov 2021).

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Doubly robust scores.
    design : ndarray of shape (n, k)
        Regressors, the constant included.
    weight : ndarray of shape (n,)
        Weights.
    groups : ndarray of int of shape (n,), optional
        Clusters.

    Examples
    --------
    >>> scores = np.array([1.0, 2.0, 3.0, 4.0])
    >>> mean = project(scores, np.ones((4, 1)), np.ones(4), np.array([0, 0, 1, 1]))
    >>> float(mean.coef[0].round(6)), mean.df
    (2.5, 1.0)
    """
    import statsmodels.api as sm

    gram = design.T @ (weight[:, None] * design)
    seen, value, _ = _directions(gram)
    varying = design if len(value) == design.shape[1] else design @ seen
    kind: dict[str, Any] = {"cov_type": "HC0"}
    if groups is not None:
        spare = design.shape[0] > design.shape[1]  # the correction divides by units less columns
        kind = {"cov_type": "cluster", "cov_kwds": {"groups": groups, "use_correction": spare}}
    with warnings.catch_warnings():  # collinear modifiers: the pseudo-inverse's solution is what is wanted
        warnings.filterwarnings("ignore", message=".*rank-deficient")
        fit = sm.WLS(scores, varying, weights=weight).fit(use_t=True, **kind)
    coef, cov, k = np.asarray(fit.params), np.asarray(fit.cov_params()), design.shape[1]
    if varying is not design:
        coef, cov = seen @ coef, seen @ cov @ seen.T
    clusters = len(scores) if groups is None else int(groups.max()) + 1
    df = float(max(clusters - k, clusters // 2, 1))
    cov = cov * (clusters if groups is None else max(clusters - 1, 1)) / df  # HC1, also with fewer units than columns
    return Projection(coef, cov, df, gram)


def _directions(gram: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Directions in which a design varies (k, r), sums of squares along them (r,), and where it does not (k, k - r).

    Judged with every column at length one, so that no unit of measurement counts, and far from rounding: columns that
    are one but for the last digits of their numbers are collinear.
    """
    size = np.sqrt(np.diag(gram))
    size = np.where(size > 0, size, 1.0)
    value, vector = np.linalg.eigh(gram / np.outer(size, size))
    seen = value > _ALIKE * max(float(value[-1]), 0.0)
    turned = vector / size[:, None]
    return turned[:, seen], value[seen], turned[:, ~seen]


def inverse_of_gram(gram: FloatArray) -> FloatArray:
    """Inverse of a design's cross-products in the directions in which it varies; a pseudo-inverse of collinear ones.

    Examples
    --------
    >>> x = np.arange(6.0) - 2.5
    >>> both = np.column_stack([np.ones(6), x, 1e9 * (x + 1e-12 * x**2)])  # the last two are one but for rounding
    >>> inverse = inverse_of_gram(both.T @ both)
    >>> coef = inverse @ (both.T @ (3 + 2 * x))
    >>> bool(np.abs(both @ coef - (3 + 2 * x)).max() < 1e-6)
    True
    """
    seen, value, _ = _directions(gram)
    return np.asarray((seen / value) @ seen.T)


def at_least_conventional(
    projection: Projection, scores: FloatArray, design: FloatArray, weight: FloatArray
) -> FloatArray:
    """Covariance with no variance below that of independent, equally noisy scores.

    Robust variances of a coefficient that rests on few units or clusters are biased towards zero; the larger of
    the robust and the conventional is the usual guard (Angrist and Pischke 2009, section 8.1).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rare = np.column_stack([np.ones(200), np.arange(200) == 0]).astype(float)
    >>> scores = rng.standard_normal(200)
    >>> found = project(scores, rare, np.ones(200))
    >>> guarded = at_least_conventional(found, scores, rare, np.ones(200))
    >>> [round(float(np.sqrt(cov[1, 1])), 1) for cov in (found.cov, guarded)]
    [0.1, 1.0]
    """
    residual = scores - design @ projection.coef
    n, k = design.shape
    noise = float(np.average(residual**2, weights=weight)) * n / max(n - k, 1)
    inverse = inverse_of_gram(projection.gram)
    conventional = noise * inverse @ (design.T @ (weight[:, None] ** 2 * design)) @ inverse
    short = np.maximum(np.diag(conventional) - np.diag(projection.cov), 0.0)
    return np.asarray(projection.cov + np.diag(short))


def leaves_nothing(
    projection: Projection, scores: FloatArray, design: FloatArray, weight: FloatArray, groups: Any = None
) -> bool:
    """Whether the columns are so many that no cluster has a residual, from which its noise could be told.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores, wide = rng.standard_normal(9), rng.standard_normal((9, 10))
    >>> [leaves_nothing(project(scores, D, np.ones(9)), scores, D, np.ones(9)) for D in (wide, wide[:, :5])]
    [True, False]
    """
    code = np.arange(len(scores)) if groups is None else groups
    if design.shape[1] < int(code.max()) + 1:
        return False
    centred = scores - np.average(scores, weights=weight)
    left, all_of_it = (np.bincount(code, weight * v) for v in (scores - design @ projection.coef, centred))
    return bool(np.linalg.norm(left) <= 1e-6 * np.linalg.norm(all_of_it))


def about_the_mean(
    projection: Projection, scores: FloatArray, design: FloatArray, weight: FloatArray, groups: Any = None
) -> FloatArray:
    """Cluster-robust covariance with the scores' distances from their mean in the place of residuals.

    A projection that passes through the scores does not tell their noise; that about a constant effect is no smaller.
    """
    code = np.arange(len(scores)) if groups is None else groups
    sums = np.zeros((int(code.max()) + 1, design.shape[1]))
    np.add.at(sums, code, design * (weight * (scores - np.average(scores, weights=weight)))[:, None])
    inverse = inverse_of_gram(projection.gram)
    return np.asarray(inverse @ (sums.T @ sums) @ inverse * len(sums) / max(len(sums) - 1, 1))


def open_directions(cov: FloatArray, projection: Projection, robust: FloatArray, variance: float) -> FloatArray:
    """A covariance with ``variance`` where the design does not vary, and the robust one's for the average effect.

    Examples
    --------
    >>> both = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0]])  # the second and the third column are one
    >>> found = project(np.array([0.0, 1.0]), both, np.ones(2))
    >>> open_directions(np.zeros((3, 3)), found, 0.25 * np.eye(3), 8.0).round(2) + 0.0
    array([[ 0.25,  0.  ,  0.  ],
           [ 0.  ,  4.  , -4.  ],
           [ 0.  , -4.  ,  4.  ]])
    """
    unseen = np.linalg.qr(_directions(projection.gram)[2])[0]
    out = cov + variance * unseen @ unseen.T
    out[0, 0] += max(float(robust[0, 0] - cov[0, 0]), 0.0)
    return np.asarray(out)


def stabilise(projection: Projection, n_clusters: int) -> FloatArray:
    """Covariance drawn towards the working model's where clusters are few for the number of columns.

    ``(1 - r) V + r phi (D'WD)^-1`` with r = k / clusters and phi such that both have the same average variance
    on the design's scale. A cluster-robust covariance of many coefficients from few clusters has directions of
    variance near zero, in which a shrinkage estimator would trust noise.
    """
    k = len(projection.coef)
    share = min(1.0, k / max(n_clusters, 1))
    working = inverse_of_gram(projection.gram)
    phi = float(np.trace(projection.cov @ projection.gram)) / max(projection.rank, 1)
    blended = (1 - share) * projection.cov + share * max(phi, 0.0) * working
    return np.asarray((blended + blended.T) / 2)


def draw_coefficients(
    coef: FloatArray,
    cov: FloatArray,
    df: float,
    n_draws: int,
    rng: np.random.Generator,
    *,
    prior_scale: float | None,
) -> tuple[FloatArray, float]:
    r"""Draws (draw, k) of a projection's coefficients and the mean prior standard deviation.

    Without ``prior_scale`` the draws are from the t approximation to the estimator's distribution. With it, all
    coefficients but the first (the constant) are N(0, s^2) a priori, s half-Cauchy with that scale: given s the
    posterior of the others, h, is normal in closed form,

    ``mean_h = b_h - V_hh (V_hh + s^2 I)^-1 b_h``, ``cov_.h = V_.h - V_.h (V_hh + s^2 I)^-1 V_hh``

    and s is summed over a grid with its marginal likelihood ``N(b_h; 0, V_hh + s^2 I)``. The constant keeps its own
    mean and variance, ``b_0`` and ``V_00``: of centred regressors it is the average, which is estimated without the
    others, and their shrinkage, which is a bias, must not move it through a correlation of errors. Draws come in
    antithetic pairs.
    """
    pairs = (n_draws + 1) // 2
    k = len(coef)
    noise = rng.standard_normal((pairs, k)) * np.sqrt(df / rng.chisquare(df, size=(pairs, 1)))
    if prior_scale is None or k == 1:
        deviation = noise @ _root(cov)
        return np.concatenate([coef + deviation, coef - deviation])[:n_draws], float("nan")
    scales = prior_scale * np.logspace(-3, 2, _N_SCALES)
    share = _scale_posterior(coef[1:], cov[1:, 1:], scales, prior_scale)
    chosen = np.searchsorted(np.cumsum(share), (np.arange(pairs) + rng.uniform()) / pairs)
    chosen = np.minimum(chosen, _N_SCALES - 1)
    draws = np.empty((2, pairs, k))
    for i in np.unique(chosen):
        rows = np.flatnonzero(chosen == i)
        gain = np.linalg.solve(cov[1:, 1:] + scales[i] ** 2 * np.eye(k - 1), cov[1:, :]).T
        centre, after = coef - gain @ coef[1:], cov - gain @ cov[1:, :]
        centre[0], after[0, 0] = coef[0], cov[0, 0]
        deviation = noise[rows] @ _root(after)
        draws[0, rows], draws[1, rows] = centre + deviation, centre - deviation
    order = rng.permutation(2 * pairs)
    return draws.reshape(-1, k)[order][:n_draws], float(share @ scales)


def _scale_posterior(coef: FloatArray, cov: FloatArray, scales: FloatArray, prior_scale: float) -> FloatArray:
    """Posterior weights of the prior standard deviations on a logarithmic grid."""
    eigen, vectors = np.linalg.eigh(cov)
    rotated = (vectors.T @ coef) ** 2
    variance = np.maximum(eigen, 0.0)[:, None] + scales**2
    log_weight = -0.5 * (np.log(variance) + rotated[:, None] / variance).sum(axis=0)
    log_weight += np.log(scales) - np.log1p((scales / prior_scale) ** 2)  # half-Cauchy, on the log scale
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def _root(cov: FloatArray) -> FloatArray:
    """Matrix R with R'R = cov, for a covariance that may be singular."""
    eigen, vectors = np.linalg.eigh((cov + cov.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(eigen, 0.0))).T)
