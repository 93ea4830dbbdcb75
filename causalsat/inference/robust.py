r"""Least squares with covariances and degrees of freedom for few, uneven clusters.

With X of shape (n, k), weights W, residuals e, ``B = (X'WX)^-1`` and a contrast c of the coefficients, the estimate
is ``sum_i l_i y_i`` with the influences ``l = W X B c``. Its variance is estimated by

.. math:: V = \sum_g (p_g' e_g)^2, \qquad p_g = A_g l_g,

over clusters g, which are single units where there are none. Residuals are smaller than errors where a cluster has
leverage; A_g makes up for it. Let :math:`\Phi` be the covariance of the errors up to a constant, and
:math:`\Sigma_g` the covariance of e_g that follows. In the working model variances are equal, weights or not (survey
weights are no variances), and a share rho of them is common to a cluster's units: with J of ones,
:math:`\Phi_g = I + J \rho / (1 - \rho)`. Commonly rho = 0. V is then too small where clusters are uneven and have
much in common, because a large cluster decides more than the number of its units says; rho estimated from the
residuals mends that.

* ``"CR2"``: A_g such that :math:`A_g \Sigma_g A_g' = \Phi_g`, the symmetric :math:`\Sigma_g^{-1/2}` for rho = 0. V is
  unbiased under the working model: bias-reduced linearisation (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018,
  equation 8). HC2 where units are the clusters.
* ``"CV3"``: ``A_g = (I - H_gg)^-1``: the jackknife that leaves out clusters, without the factor (G - 1) / G
  (MacKinnon, Nielsen and Webb 2023). HC3 where units are the clusters.
* ``"CR1"``: ``A_g = I`` and the factor G / (G - 1) (n - 1) / (n - k), as Stata has it; for comparison.

V is a quadratic form in normal errors. Its first two moments are those of a chi-square with
``df = (tr P)^2 / tr P^2`` degrees of freedom, ``P_gh = p_g' S_gh p_h`` (Satterthwaite; Bell and McCaffrey 2002;
Imbens and Kolesar 2016). Intervals refer to t with these degrees, under CR1 with G - 1. S is the covariance of
residuals for the errors for which the estimator is efficient, independent with variances ``1 / w``: then the estimate
and V are independent, as t has them. For other errors a cluster that moves the estimate moves V along with it, and
the degrees that V alone would have are too few: intervals would be too wide, the more so the more uneven clusters or
weights are (``benchmarks/designs.py``).

Fixed effects are absorbed by demeaning, but leverage is that of the whole design, fixed effects included: an effect
that clusters share gives leverage to each of them (Pustejovsky and Tipton 2018, section 2.2). Where a cluster alone
decides a coefficient, :math:`\Sigma_g` is singular and its pseudo-inverse is taken; the part of the variance that is
lost with it is made up for by scaling V to be unbiased under the working model.

Units of weight zero are dropped before anything is counted.

References
----------
Bell and McCaffrey (2002), "Bias reduction in standard errors for linear regression with multi-stage samples", Survey
Methodology 28. Carter, Schnepel and Steigerwald (2017), "Asymptotic behavior of a t-test robust to cluster
heterogeneity", Review of Economics and Statistics 99. Imbens and Kolesar (2016), "Robust standard errors in small
samples: some practical advice", Review of Economics and Statistics 98. MacKinnon, Nielsen and Webb (2023),
"Cluster-robust inference: a guide to empirical practice", Journal of Econometrics 232. Pustejovsky and Tipton (2018),
"Small-sample methods for cluster-robust variance estimation and hypothesis testing in fixed effects models", Journal
of Business and Economic Statistics 36.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.centred import centred_scores
from causalsat.inference.leverage import (
    Coordinates,
    adjusted_influence,
    codes,
    common_variance,
    demean,
    expected_variance,
    pivoted_qr,
    quadratic_moments,
)

__all__ = [
    "MIN_DF",
    "MIN_EFFECTIVE_CLUSTERS",
    "RobustFit",
    "effective_clusters",
    "independent_columns",
    "least_squares",
    "t_interval",
    "t_p_value",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

KINDS = ("CR2", "CV3", "CR1")
MIN_EFFECTIVE_CLUSTERS = 5.0  # below it a table should say that its intervals rest on few clusters
MIN_SHARE = 1e-8  # of the variance under the working model that residuals must show
MIN_DF = 4.0  # below it Satterthwaite's approximation is poor (Pustejovsky and Tipton 2018, section 4)


# ---------------------------------------------------------------------- results
@dataclass(frozen=True, eq=False)
class RobustFit:
    """Contrasts of a least squares fit with their covariance.

    Attributes
    ----------
    coef : ndarray of shape (k,)
        Coefficients of the columns of X; those of columns that depend on others are 0.
    estimate : ndarray of shape (q,)
        The contrasts.
    cov : ndarray of shape (q, q)
        Their covariance; NaN where no cluster has a residual from which it could be told.
    df : ndarray of shape (q,)
        Degrees of freedom of each contrast's t reference.
    n, clusters : int
        Units of positive weight, and clusters that hold one (units, where there are no clusters).
    effective_clusters : ndarray of shape (q,)
        :func:`effective_clusters` of each contrast.
    identified_share : ndarray of shape (q,)
        Share of the variance under the working model that residuals can show; 1 unless clusters have leverage one.
    icc : float
        Share of the errors' variance that units of a cluster have in common, in the working model.
    kind : str
        ``"CR2"``, ``"CV3"`` or ``"CR1"``.
    residual : ndarray of shape (n_rows,)
        Residuals of all rows that were given; NaN where the weight is zero.
    """

    coef: FloatArray
    estimate: FloatArray
    cov: FloatArray
    df: FloatArray
    n: int
    clusters: int
    effective_clusters: FloatArray
    identified_share: FloatArray
    icc: float
    kind: str
    residual: FloatArray

    @property
    def se(self) -> FloatArray:
        """Standard errors, shape (q,)."""
        return np.sqrt(np.diag(self.cov))

    def interval(self, level: float = 0.95) -> FloatArray:
        """Confidence intervals, shape (q, 2)."""
        return t_interval(self.estimate, self.se, self.df, level)

    @property
    def p_value(self) -> FloatArray:
        """Two-sided p-values of zero contrasts, shape (q,)."""
        return t_p_value(self.estimate, self.se, self.df)


def t_interval(estimate: ArrayLike, se: ArrayLike, df: ArrayLike, level: float = 0.95) -> FloatArray:
    """``estimate -+ t_{df, (1 + level) / 2} se``, shape (..., 2).

    Examples
    --------
    >>> t_interval(1.0, 0.5, 10.0).round(3)
    array([-0.114,  2.114])
    """
    from scipy.stats import t

    middle = np.asarray(estimate, dtype=float)
    half = t.ppf(0.5 + level / 2, np.asarray(df, dtype=float)) * np.asarray(se, dtype=float)
    return np.stack([middle - half, middle + half], axis=-1)


def t_p_value(estimate: ArrayLike, se: ArrayLike, df: ArrayLike) -> Any:
    """Two-sided p-value of a zero estimate; NaN without a standard error.

    Examples
    --------
    >>> float(t_p_value(1.0, 0.5, 10.0).round(4))
    0.0734
    """
    from scipy.stats import t

    spread = np.asarray(se, dtype=float)
    ratio = np.abs(np.asarray(estimate, dtype=float)) / np.where(spread > 0, spread, np.nan)
    return 2 * t.sf(ratio, np.asarray(df, dtype=float))


def effective_clusters(influence: ArrayLike, clusters: ArrayLike | None = None) -> FloatArray:
    r"""How many equal clusters would carry as much information (Carter, Schnepel and Steigerwald 2017).

    ``G* = (sum_g gamma_g)^2 / sum_g gamma_g^2``, with gamma_g the share of cluster g in the estimate's variance: of
    errors that all units of a cluster have in common, ``gamma_g = (sum_{i in g} l_i)^2``, or of independent errors,
    ``sum_{i in g} l_i^2``, where the contrast varies within clusters and these are the larger in sum.

    Parameters
    ----------
    influence : array of shape (n,) or (n, q)
        Influence of each unit on the estimate: ``W X B c``.
    clusters : array of shape (n,), optional
        Clusters.

    Returns
    -------
    ndarray of shape () or (q,)

    Examples
    --------
    One cluster holds half of all units:

    >>> float(effective_clusters(np.ones(8), [0, 0, 0, 0, 1, 2, 3, 4]).round(2))
    1.54
    """
    values = np.asarray(influence, dtype=float)
    table = values.reshape(len(values), -1)
    if clusters is not None:
        code = np.unique(np.asarray(clusters), return_inverse=True)[1].ravel()
        common = np.column_stack([np.bincount(code, column) for column in table.T]) ** 2
        alone = np.column_stack([np.bincount(code, column) for column in (table**2).T])
        share = np.where(common.sum(axis=0) >= alone.sum(axis=0), common, alone)
    else:
        share = table**2
    total = share.sum(axis=0)
    count = np.divide(total**2, (share**2).sum(axis=0), out=np.zeros(len(total)), where=total > 0)
    return np.asarray(count.reshape(values.shape[1:]))


def independent_columns(
    X: FloatArray, *, weights: FloatArray | None = None, absorb: IntArray | None = None
) -> NDArray[np.bool_]:
    """Which columns to keep, shape (k,), so that none depends on others or on the absorbed effects.

    Examples
    --------
    >>> X = np.array([[1.0, 2.0, 7.0], [2.0, 4.0, 7.0], [3.0, 6.0, 7.0]])
    >>> int(independent_columns(X, absorb=np.zeros(3, dtype=int)).sum())
    1
    """
    w = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=float)
    centred = X if absorb is None else demean(X, w, absorb, int(absorb.max(initial=0)) + 1)[0]
    _, _, order, rank, _ = pivoted_qr(centred, X, w)
    kept = np.zeros(X.shape[1], dtype=bool)
    kept[order[:rank]] = True
    return kept


# ---------------------------------------------------------------------- the fit
def least_squares(
    y: ArrayLike,
    X: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    absorb: ArrayLike | None = None,
    contrast: ArrayLike | None = None,
    level_contrast: ArrayLike | None = None,
    cells: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    kind: str = "CR2",
    icc: float | None = 0.0,
) -> RobustFit:
    """(Weighted) least squares of y on X and absorbed fixed effects; covariances as the module's text defines them.

    Parameters
    ----------
    y : array of shape (n,)
        Outcome.
    X : array of shape (n, k)
        Regressors; k may be 0 where fixed effects are absorbed. There is no constant but what X or ``absorb`` holds.
    weights : array of shape (n,), optional
        Weights; units of weight zero are dropped.
    clusters : array of shape (n,), optional
        Clusters, of any labels; without them each unit is one.
    absorb : array of shape (n,), optional
        Levels of a fixed effect. One level for all units is a constant, with the covariates centred.
    contrast : array of shape (k,) or (k, q), optional
        Contrasts of the coefficients; each coefficient by default.
    level_contrast : array of shape (levels,) or (levels, q), optional
        What the contrasts take of the fixed effects, in the sorted order of the levels of positive weight.
    cells : array of shape (n,), optional
        Cells of clusters, such as the arms of a stratum, whose mean scores are no variance: scores are centred within
        them (see :mod:`causalsat.inference.centred`). For ``"CR2"`` without ``absorb``.
    noise : array of shape (n,), optional
        Relative variances of the errors in the working model, with ``cells``.
    kind : {"CR2", "CV3", "CR1"}
        Covariance.
    icc : float or None
        Share of the errors' variance that units of a cluster have in common, in the working model; None estimates it
        from the residuals.

    Raises
    ------
    DataError
        If values are not finite, weights negative, no unit is left, or a contrast is not identified.
    ParameterError
        If ``kind`` is none of the three, or ``icc`` no share.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> village, t = np.repeat(np.arange(20), 30), np.repeat(np.arange(20) % 2, 30)
    >>> y = 2.0 * t + rng.standard_normal(20)[village] + rng.standard_normal(600)
    >>> fit = least_squares(y, t[:, None], clusters=village, absorb=np.zeros(600))
    >>> fit.estimate.round(2), fit.se.round(2), fit.df.round(1), fit.effective_clusters.round(1)
    (array([2.3]), array([0.41]), array([18.]), array([20.]))
    """
    if kind not in KINDS:
        raise ParameterError(f"kind={kind!r}", expected=f"one of {', '.join(KINDS)}")
    if cells is not None and (absorb is not None or kind != "CR2"):
        raise ParameterError("cells together with absorb or another kind than 'CR2'", expected="cells alone")
    if noise is not None and cells is None:
        raise ParameterError("noise without cells", expected="both")
    if icc is not None and not 0 <= icc < 1:
        raise ParameterError(f"icc={icc!r}", expected="None, or a number from 0 up to 1")
    data = _arrange(y, X, weights, clusters, absorb)
    solution = _solve(data)
    design, residual = solution.design, solution.residual
    if clusters is not None and cells is None:
        ratio = common_variance(design, residual) if icc is None else icc / (1 - icc)
        design = replace(design, ratio=ratio)
    a, b = _directions(data, solution, contrast, level_contrast)
    value = design.x @ b
    if design.level is not None:
        value = value + (design.root[:, None] * a)[design.level]
    influence = design.w[:, None] * value
    ratio = design.ratio
    if kind == "CR1":
        cov, df, share = _conventional(design, influence, residual, clusters is not None)
    elif cells is None:
        p = adjusted_influence(design, influence, a, b, kind)
        variance = (influence * design.spread(influence)).sum(axis=0)
        moments = (expected_variance(design, p), variance, *quadratic_moments(design, p))
        cov, df, share = _bias_reduced(design.sums(p * residual[:, None]), *moments)
    else:
        cell, relative = (_sorted(values, data, solution) for values in (cells, noise))
        fixed = 0.0 if clusters is None else (None if icc is None else icc / (1 - icc))
        found = centred_scores(design, influence, residual, codes(cell), relative, fixed)
        moments = (found.expected, found.variance, found.trace, found.of_square)
        cov, df, share = _bias_reduced(found.scores, *moments)
        ratio = found.ratio
    back = np.full(len(data.kept), np.nan)
    back[np.flatnonzero(data.kept)[solution.order]] = residual
    coef = np.zeros(data.X.shape[1])
    coef[solution.columns] = solution.to_coef @ solution.theta
    return RobustFit(
        coef=coef,
        estimate=influence.T @ data.y[solution.order],
        cov=cov,
        df=df,
        n=design.n,
        clusters=design.n_clusters,
        effective_clusters=effective_clusters(influence, design.cluster),
        identified_share=share,
        icc=ratio / (1 + ratio),
        kind=kind,
        residual=back,
    )


def _conventional(
    design: Coordinates, influence: FloatArray, residual: FloatArray, clustered: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Covariance, degrees of freedom and share 1 of CR1."""
    scores, q = design.sums(influence * residual[:, None]), influence.shape[1]
    left, groups = max(design.n - design.k - len(design.root), 1), design.n_clusters
    factor = max(design.n - 1, 1) / left * groups / max(groups - 1, 1)
    return scores.T @ scores * factor, np.full(q, float(groups - 1 if clustered else left)), np.ones(q)


def _bias_reduced(
    scores: FloatArray, expected: FloatArray, variance: FloatArray, trace: FloatArray, of_square: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Covariance (q, q), degrees of freedom and identified shares (q,), from scores (G, q) and moments (q,)."""
    share = np.divide(expected, variance, out=np.ones_like(variance), where=variance > 0)
    known = share > MIN_SHARE
    df = np.divide(trace**2, of_square, out=np.full_like(share, np.nan), where=known & (of_square > 0))
    share = np.where(share > 1 - 1e-6, 1.0, share)
    scale = np.divide(1.0, np.sqrt(np.where(known, share, 1.0)), out=np.full_like(share, np.nan), where=known)
    return scores.T @ scores * np.outer(scale, scale), df, share


def _sorted(values: Any, data: _Data, solution: _Solution) -> Any:
    """Values of the units that are used, sorted by cluster; ones where there are none."""
    return (np.ones(len(data.kept)) if values is None else np.asarray(values))[data.kept][solution.order]


@dataclass(frozen=True, eq=False)
class _Data:
    """Units of positive weight, with codes for labels; weights have mean 1."""

    y: FloatArray
    X: FloatArray
    w: FloatArray
    cluster: IntArray
    level: IntArray | None
    kept: NDArray[np.bool_]

    @property
    def n_levels(self) -> int:
        return 0 if self.level is None else int(self.level.max()) + 1


def _arrange(y: ArrayLike, X: ArrayLike, weights: Any, clusters: Any, absorb: Any) -> _Data:
    outcome, table = np.asarray(y, dtype=float), np.asarray(X, dtype=float)
    n = len(outcome)
    if outcome.ndim != 1 or table.ndim != 2 or len(table) != n:
        raise DataError(f"y of shape {outcome.shape}, X of shape {table.shape}", expected="(n,) and (n, k)")
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
    for name, values in (("weights", w), ("clusters", clusters), ("absorb", absorb)):
        if values is not None and np.shape(values) != (n,):
            raise DataError(f"{name} of shape {np.shape(values)} for {n} units", expected=f"({n},)")
    if not np.isfinite(w).all() or (w < 0).any():
        raise DataError("weights that are negative or not finite", expected="weights from 0 on")
    kept = w > 0
    if not kept.any():
        raise DataError("no unit of positive weight", expected="at least one")
    if not (np.isfinite(outcome[kept]).all() and np.isfinite(table[kept]).all()):
        raise DataError("values of y or X that are not finite", todo="drop or impute them")
    w = w[kept] / w[kept].mean()
    return _Data(
        outcome[kept],
        table[kept],
        np.ones(len(w)) if np.ptp(w) < 1e-12 else w,
        np.arange(int(kept.sum())) if clusters is None else codes(np.asarray(clusters)[kept]),
        None if absorb is None else codes(np.asarray(absorb)[kept]),
        kept,
    )


@dataclass(frozen=True, eq=False)
class _Solution:
    """A fit in the coordinates of its design, and the way back to the columns of X.

    ``order`` are the units sorted by cluster, as ``residual`` is; ``columns`` of X are kept, with coefficients
    ``to_coef @ theta``; ``dependent`` expresses the ``dropped`` ones in them; ``means`` are the levels', (S, k).
    """

    design: Coordinates
    theta: FloatArray
    residual: FloatArray
    order: IntArray
    columns: IntArray
    to_coef: FloatArray
    dropped: IntArray
    dependent: FloatArray
    means: FloatArray


def _solve(data: _Data) -> _Solution:
    from scipy.linalg import solve_triangular

    n_levels, w = data.n_levels, data.w
    y, centred, means, root = data.y, data.X, np.zeros((0, data.X.shape[1])), np.zeros(0)
    if data.level is not None:
        centred, means = demean(data.X, w, data.level, n_levels)
        y = demean(data.y[:, None], w, data.level, n_levels)[0][:, 0]
        root = 1 / np.sqrt(np.bincount(data.level, w, minlength=n_levels))
    q, r, pivot, rank, scale = pivoted_qr(centred, data.X, w)
    q, upper, kept, dropped = q[:, :rank], r[:rank, :rank], pivot[:rank], pivot[rank:]
    to_coef, dependent = np.zeros((rank, rank)), np.zeros((rank, len(dropped)))
    if rank:
        to_coef = solve_triangular(upper, np.eye(rank)) / scale[kept][:, None]
        dependent = solve_triangular(upper, r[:rank, rank:]) / scale[kept][:, None] * scale[dropped]
    theta = q.T @ (np.sqrt(w) * y)
    x = q / np.sqrt(w)[:, None]
    residual = y - x @ theta
    order = np.argsort(data.cluster, kind="stable")
    level = None if data.level is None else data.level[order]
    design = Coordinates(x[order], w[order], data.cluster[order], level, root)
    return _Solution(design, theta, residual[order], order, kept, to_coef, dropped, dependent, means)


def _directions(
    data: _Data, solution: _Solution, contrast: Any, level_contrast: Any
) -> tuple[FloatArray, FloatArray]:
    """The contrasts in the design's coordinates: of the levels (S, q) and of x (k, q)."""
    k, n_levels = data.X.shape[1], data.n_levels
    taken = None if level_contrast is None else _matrix(level_contrast, n_levels, "level_contrast")
    if contrast is None:
        c = np.eye(k) if taken is None else np.zeros((k, taken.shape[1]))
    else:
        c = _matrix(contrast, k, "contrast")
    if taken is None:
        taken = np.zeros((n_levels, c.shape[1]))
    c = c - solution.means.T @ taken
    if len(solution.dropped):
        gap = np.abs(c[solution.dropped] - solution.dependent.T @ c[solution.columns])
        size = np.abs(c[solution.dropped]) + np.abs(solution.dependent).T @ np.abs(c[solution.columns])
        if (gap > 1e-6 * np.maximum(size, 1e-300)).any():
            raise DataError(
                "a coefficient that the data do not identify: its column depends on other columns or fixed effects",
                expected="a column that varies where the others do not",
                todo="drop the columns that repeat it",
            )
    return taken * solution.design.root[:, None], solution.to_coef.T @ c[solution.columns]


def _matrix(values: Any, rows: int, name: str) -> FloatArray:
    table = np.asarray(values, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or len(table) != rows:
        raise DataError(f"{name} of shape {np.shape(values)}", expected=f"({rows},) or ({rows}, q)")
    return table
