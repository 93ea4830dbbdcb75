r"""Least squares with covariances and degrees of freedom for few, uneven clusters.

With X of shape (n, k), weights W, residuals e, ``B = (X'WX)^-1`` and a contrast c of the coefficients, the estimate
is ``sum_i l_i y_i`` with the influences ``l = W X B c``. Its variance is estimated by

.. math:: V = \sum_g (p_g' e_g)^2, \qquad p_g = A_g l_g,

over clusters g, which are single units where there are none. Residuals are smaller than errors where a cluster has
leverage; A_g makes up for it. Let :math:`\Sigma_g` be the covariance of e_g when errors are independent with equal
variance (the working model, weights or not: survey weights are no variances):

* ``"CR2"``: :math:`A_g = \Sigma_g^{-1/2}`, so that V is unbiased under the working model: bias-reduced linearisation
  (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018, equation 8). HC2 where units are the clusters.
* ``"CV3"``: ``A_g = (I - H_gg)^-1``: the jackknife that leaves out clusters, without the factor (G - 1) / G
  (MacKinnon, Nielsen and Webb 2023). HC3 where units are the clusters.
* ``"CR1"``: ``A_g = I`` and the factor G / (G - 1) (n - 1) / (n - k), as Stata has it; for comparison.

V is a quadratic form in normal errors. Its first two moments are those of a chi-square with
``df = (tr P)^2 / tr P^2`` degrees of freedom, ``P_gh = p_g' Sigma_gh p_h`` (Satterthwaite; Bell and McCaffrey 2002;
Imbens and Kolesar 2016). Intervals refer to t with these degrees, under CR1 with G - 1.

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

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.exceptions import DataError, ParameterError

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
MIN_EFFECTIVE_CLUSTERS = 10.0  # below it a table should say that its intervals rest on few clusters
MIN_DF = 4.0  # below it Satterthwaite's approximation is poor (Pustejovsky and Tipton 2018, section 4)
SINGULAR = 1e-10  # eigenvalues of a covariance of residuals, in units of the errors' variance
COLLINEAR = 1e-9
CHUNK = 4_000_000  # numbers in a batch of matrices


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
    centred = X if absorb is None else _demean(X, w, absorb, int(absorb.max(initial=0)) + 1)[0]
    _, _, order, rank, _ = _factor(centred, X, w)
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
    kind: str = "CR2",
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
        them (see :mod:`causalsat.inference.average_effects`). For ``"CR2"`` without ``absorb``.
    kind : {"CR2", "CV3", "CR1"}
        Covariance.

    Raises
    ------
    DataError
        If values are not finite, weights negative, no unit is left, or a contrast is not identified.
    ParameterError
        If ``kind`` is none of the three.

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
    data = _arrange(y, X, weights, clusters, absorb)
    basis, theta, residual = _orthogonalise(data)
    a, b = _directions(data, basis, contrast, level_contrast)
    influence = _influence(basis, a, b)
    if cells is None:
        p = influence if kind == "CR1" else _adjusted(basis, influence, a, b, kind)
        scores = _by_cluster(p * residual[:, None], basis)
        trace, trace_of_square = _moments(basis, p)
    else:
        cell = _codes(np.asarray(cells)[data.kept])[basis.order]
        scores, trace, trace_of_square = _centred(basis, influence, residual, cell)
    variance = (influence**2).sum(axis=0)
    share = np.divide(trace, variance, out=np.ones_like(trace), where=variance > 0)
    cov = scores.T @ scores
    if kind == "CR1":
        columns = basis.k + len(basis.root)
        factor = max(basis.n - 1, 1) / max(basis.n - columns, 1) * basis.clusters / max(basis.clusters - 1, 1)
        cov = cov * factor
        df = np.full(len(trace), float(basis.clusters - 1 if clusters is not None else max(basis.n - columns, 1)))
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.where(share > 1e-8, trace**2 / trace_of_square, np.nan)
            scale = np.where(share > 1e-8, 1 / np.sqrt(np.minimum(share, 1.0)), np.nan)
        scale = np.where(np.abs(scale - 1) < 1e-6, 1.0, scale)
        cov = cov * np.outer(scale, scale)
    estimate = influence.T @ data.y[basis.order]
    back = np.full(len(data.kept), np.nan)
    back[np.flatnonzero(data.kept)[basis.order]] = residual
    coef = np.zeros(data.X.shape[1])
    coef[basis.columns] = basis.to_coef @ theta
    count = effective_clusters(influence, basis.cluster)
    return RobustFit(coef, estimate, cov, df, basis.n, basis.clusters, count, np.minimum(share, 1.0), kind, back)


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
        np.arange(int(kept.sum())) if clusters is None else _codes(np.asarray(clusters)[kept]),
        None if absorb is None else _codes(np.asarray(absorb)[kept]),
        kept,
    )


def _codes(labels: Any) -> IntArray:
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64).ravel()


def _demean(values: FloatArray, w: FloatArray, level: IntArray, n_levels: int) -> tuple[FloatArray, FloatArray]:
    """Values (n, k) less the weighted means of their levels, and those means (levels, k); twice, for large means."""
    mass = np.bincount(level, w, minlength=n_levels)[:, None]
    means = np.zeros((n_levels, values.shape[1]))
    out = values
    for _ in range(2):
        sums = [np.bincount(level, w * column, minlength=n_levels) for column in out.T]
        step = np.column_stack(sums) / mass if sums else np.zeros((n_levels, 0))
        out, means = out - step[level], means + step
    return out, means


def _factor(
    centred: FloatArray, original: FloatArray, w: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray, int, FloatArray]:
    """Pivoted QR of the weighted, scaled columns: Q, R, order of the columns, rank, scale of the columns."""
    from scipy.linalg import qr

    k = centred.shape[1]
    if k == 0:
        return np.zeros((len(centred), 0)), np.zeros((0, 0)), np.zeros(0, dtype=np.int64), 0, np.zeros(0)
    root = np.sqrt(w)[:, None]
    scale = np.linalg.norm(root * centred, axis=0)
    size = np.linalg.norm(root * original, axis=0)
    constant = scale <= 1e-11 * size
    scaled = np.where(constant, 0.0, root * centred / np.where(scale > 0, scale, 1.0))
    q, r, order = qr(scaled, mode="economic", pivoting=True, check_finite=False)
    rank = int((np.abs(np.diag(r)) > COLLINEAR).sum())
    return q, r, np.asarray(order, dtype=np.int64), rank, np.where(scale > 0, scale, 1.0)


@dataclass(frozen=True, eq=False)
class _Basis:
    """The design in coordinates in which X'WX is the identity, units sorted by cluster.

    Columns are the indicators of the levels times ``root``, and x. ``columns`` of X are kept, ``to_coef`` turns
    coordinates into their coefficients, ``dependent`` expresses the other columns in them, ``means`` are the levels'.
    """

    x: FloatArray
    w: FloatArray
    cluster: IntArray
    level: IntArray | None
    root: FloatArray
    means: FloatArray
    order: IntArray
    columns: IntArray
    to_coef: FloatArray
    dropped: IntArray
    dependent: FloatArray

    @property
    def n(self) -> int:
        return len(self.w)

    @property
    def k(self) -> int:
        return self.x.shape[1]

    @cached_property
    def clusters(self) -> int:
        return int(self.cluster[-1]) + 1

    @cached_property
    def starts(self) -> IntArray:
        return np.searchsorted(self.cluster, np.arange(self.clusters + 1))

    @cached_property
    def weighted(self) -> bool:
        return bool(np.ptp(self.w) > 0)

    @cached_property
    def omega(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """X'W^2X: of x (k, k), of levels with x (S, k), of levels (S,)."""
        squared, n_levels = self.w**2, len(self.root)
        xx = self.x.T @ (squared[:, None] * self.x)
        if self.level is None:
            return xx, np.zeros((0, self.k)), np.zeros(0)
        sx = [np.bincount(self.level, squared * column, minlength=n_levels) for column in self.x.T]
        lx = np.column_stack(sx) * self.root[:, None] if sx else np.zeros((n_levels, 0))
        return xx, lx, np.bincount(self.level, squared, minlength=n_levels) * self.root**2

    @cached_property
    def slots(self) -> tuple[IntArray, IntArray, IntArray]:
        """Positions of units' levels among their cluster's (n,), those levels (G, m) with -1 for none, counts."""
        if self.level is None:
            return (
                np.zeros(self.n, dtype=np.int64),
                np.zeros((self.clusters, 0), dtype=np.int64),
                np.zeros(self.clusters, dtype=np.int64),
            )
        n_levels = len(self.root)
        pair, inverse = np.unique(self.cluster * n_levels + self.level, return_inverse=True)
        owner = pair // n_levels
        first = np.searchsorted(owner, np.arange(self.clusters))
        position = np.arange(len(pair)) - first[owner]
        count = np.bincount(owner, minlength=self.clusters)
        table = np.full((self.clusters, int(count.max())), -1, dtype=np.int64)
        table[owner, position] = pair % n_levels
        return position[inverse.ravel()], table, count


def _orthogonalise(data: _Data) -> tuple[_Basis, FloatArray, FloatArray]:
    """The basis, coordinates of the coefficients of x, and the residuals in the basis' order."""
    from scipy.linalg import solve_triangular

    n_levels = data.n_levels
    y, centred, means = data.y, data.X, np.zeros((0, data.X.shape[1]))
    root = np.zeros(0)
    if data.level is not None:
        centred, means = _demean(data.X, data.w, data.level, n_levels)
        y = _demean(data.y[:, None], data.w, data.level, n_levels)[0][:, 0]
        root = 1 / np.sqrt(np.bincount(data.level, data.w, minlength=n_levels))
    q, r, pivot, rank, scale = _factor(centred, data.X, data.w)
    q, upper = q[:, :rank], r[:rank, :rank]
    kept, dropped = pivot[:rank], pivot[rank:]
    to_coef, dependent = np.zeros((rank, rank)), np.zeros((rank, len(dropped)))
    if rank:
        to_coef = solve_triangular(upper, np.eye(rank)) / scale[kept][:, None]
        dependent = solve_triangular(upper, r[:rank, rank:]) / scale[kept][:, None] * scale[dropped]
    theta = q.T @ (np.sqrt(data.w) * y)
    x = q / np.sqrt(data.w)[:, None]
    residual = y - x @ theta
    order = np.argsort(data.cluster, kind="stable")
    level = None if data.level is None else data.level[order]
    basis = _Basis(
        x[order], data.w[order], data.cluster[order], level, root, means, order, kept, to_coef, dropped, dependent
    )
    return basis, theta, residual[order]


def _directions(data: _Data, basis: _Basis, contrast: Any, level_contrast: Any) -> tuple[FloatArray, FloatArray]:
    """The contrasts in the basis' coordinates: of the levels (S, q) and of x (k, q)."""
    k, n_levels = data.X.shape[1], data.n_levels
    taken = None if level_contrast is None else _matrix(level_contrast, n_levels, "level_contrast")
    if contrast is None:
        c = np.eye(k) if taken is None else np.zeros((k, taken.shape[1]))
    else:
        c = _matrix(contrast, k, "contrast")
    if taken is None:
        taken = np.zeros((n_levels, c.shape[1]))
    c = c - basis.means.T @ taken
    if len(basis.dropped):
        gap = np.abs(c[basis.dropped] - basis.dependent.T @ c[basis.columns])
        size = np.abs(c[basis.dropped]) + np.abs(basis.dependent).T @ np.abs(c[basis.columns])
        if (gap > 1e-6 * np.maximum(size, 1e-300)).any():
            raise DataError(
                "a coefficient that the data do not identify: its column depends on other columns or fixed effects",
                expected="a column that varies where the others do not",
                todo="drop the columns that repeat it",
            )
    return taken * basis.root[:, None], basis.to_coef.T @ c[basis.columns]


def _matrix(values: Any, rows: int, name: str) -> FloatArray:
    table = np.asarray(values, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or len(table) != rows:
        raise DataError(f"{name} of shape {np.shape(values)}", expected=f"({rows},) or ({rows}, q)")
    return table


# ---------------------------------------------------------------------- leverage
def _influence(basis: _Basis, a: FloatArray, b: FloatArray) -> FloatArray:
    """``W X B c``, shape (n, q)."""
    value = basis.x @ b
    if basis.level is not None:
        value = value + (basis.root[:, None] * a)[basis.level]
    return np.asarray(basis.w[:, None] * value)


def _adjusted(basis: _Basis, influence: FloatArray, a: FloatArray, b: FloatArray, kind: str) -> FloatArray:
    """``p = A_g l_g``, (n, q): of single units by a scalar, of small clusters directly, of large by their Gram."""
    sizes = np.diff(basis.starts)
    out = np.empty_like(influence)
    single = np.flatnonzero(sizes == 1)
    if len(single):
        rows = basis.starts[single]
        out[rows] = influence[rows] * _single_factor(basis, rows, kind)[:, None]
    width = basis.k + basis.slots[2]
    side = 2 * width if basis.weighted and kind == "CR2" else width
    for size in np.unique(sizes[(sizes > 1) & (sizes <= side)]):
        members = np.flatnonzero((sizes == size) & (sizes <= side))
        for chunk in _chunks(members, int(size) * max(int(size), int(width.max()))):
            rows = basis.starts[chunk][:, None] + np.arange(size)
            out[rows] = _small(basis, chunk, rows, influence, kind)
    large = np.flatnonzero((sizes > 1) & (sizes > side))
    for m in np.unique(basis.slots[2][large]):
        members = large[basis.slots[2][large] == m]
        for chunk in _chunks(members, 4 * (basis.k + int(m)) ** 2):
            _large(basis, chunk, int(m), a, b, kind, out)
    return out


def _chunks(members: IntArray, numbers: int) -> list[IntArray]:
    step = max(1, CHUNK // max(numbers, 1))
    return [members[i : i + step] for i in range(0, len(members), step)]


def _single_factor(basis: _Basis, rows: IntArray, kind: str) -> FloatArray:
    x, w = basis.x[rows], basis.w[rows]
    square = (x**2).sum(axis=1)
    if basis.level is not None:
        square = square + basis.root[basis.level[rows]] ** 2
    left = 1 - w * square
    if kind == "CV3":
        return _power(left, -1.0)
    if basis.weighted:
        xx, lx, ll = basis.omega
        left = 1 - 2 * w * square + np.einsum("ij,ij->i", x @ xx, x)
        if basis.level is not None:
            level = basis.level[rows]
            root = basis.root[level]
            left += 2 * root * np.einsum("ij,ij->i", lx[level], x) + root**2 * ll[level]
    return _power(left, -0.5)


def _power(value: FloatArray, exponent: float) -> FloatArray:
    """Powers of eigenvalues; 0 of those that are 0."""
    seen = value > SINGULAR
    return np.asarray(np.where(seen, np.where(seen, value, 1.0) ** exponent, 0.0))


def _symmetric_power(matrix: FloatArray, exponent: float) -> FloatArray:
    value, vector = np.linalg.eigh(matrix)
    return np.asarray((vector * _power(value, exponent)[..., None, :]) @ np.swapaxes(vector, -1, -2))


def _local_design(basis: _Basis, chunk: IntArray, rows: IntArray) -> FloatArray:
    """Columns of clusters of one size, shape (clusters, size, m + k)."""
    x = basis.x[rows]
    if basis.level is None:
        return x
    slot, _, count = basis.slots
    indicator = np.zeros((*rows.shape, int(count[chunk].max())))
    np.put_along_axis(indicator, slot[rows][..., None], basis.root[basis.level[rows]][..., None], axis=2)
    return np.concatenate([indicator, x], axis=2)


def _local_omega(basis: _Basis, chunk: IntArray, m: int) -> FloatArray:
    """X'W^2X of the clusters' columns, shape (clusters, m + k, m + k)."""
    xx, lx, ll = basis.omega
    out = np.zeros((len(chunk), m + basis.k, m + basis.k))
    out[:, m:, m:] = xx
    if m:
        level = basis.slots[1][chunk, :m]
        used = level >= 0
        out[:, np.arange(m), np.arange(m)] = np.where(used, ll[level], 0.0)
        out[:, :m, m:] = np.where(used[..., None], lx[level], 0.0)
        out[:, m:, :m] = np.swapaxes(out[:, :m, m:], 1, 2)
    return out


def _small(basis: _Basis, chunk: IntArray, rows: IntArray, influence: FloatArray, kind: str) -> FloatArray:
    x = _local_design(basis, chunk, rows)
    hat, w, unit = x @ np.swapaxes(x, 1, 2), basis.w[rows], np.eye(rows.shape[1])
    if kind == "CV3":
        root = np.sqrt(w)[..., None]
        inverse = _symmetric_power(unit - root * hat * np.swapaxes(root, 1, 2), -1.0)
        return np.asarray(root * (inverse @ (influence[rows] / root)))
    if not basis.weighted:
        return _symmetric_power(unit - hat, -0.5) @ influence[rows]
    omega = _local_omega(basis, chunk, x.shape[2] - basis.k)
    sigma = unit - hat * w[:, None, :] - w[..., None] * hat + x @ omega @ np.swapaxes(x, 1, 2)
    return _symmetric_power(sigma, -0.5) @ influence[rows]


def _large(basis: _Basis, chunk: IntArray, m: int, a: FloatArray, b: FloatArray, kind: str, out: FloatArray) -> None:
    """Write p of clusters with more units than columns: ``p_g = Z_g z_g``, z_g by matrices of the columns' size.

    Unweighted, Z = X and ``z = (I - X_g'X_g)^(-1/2) t`` with l = X t. Weighted, ``Sigma_g = I + Z C Z'`` with
    Z = [X, WX] and C = [[X'W^2X, -I], [-I, 0]]; with L = Z'Z and phi(v) = ((1 + v)^(-1/2) - 1) / v,
    ``z = t + C L^(1/2) phi(L^(1/2) C L^(1/2)) L^(1/2) t``, which divides by nothing where Z is collinear.
    """
    t = np.broadcast_to(b, (len(chunk), *b.shape))
    if m:
        t = np.concatenate([a[basis.slots[1][chunk, :m]], t], axis=1)
    doubled = basis.weighted and kind == "CR2"
    designs = [_columns(basis, g, m, doubled) for g in chunk]
    unit = np.eye(m + basis.k)
    if kind == "CV3":
        gram = np.stack([z.T @ (w[:, None] * z) for z, w in designs])
        inner = _symmetric_power(unit - gram, -1.0) @ t
    elif not doubled:
        inner = _symmetric_power(unit - np.stack([z.T @ z for z, _ in designs]), -0.5) @ t
    else:
        omega = _local_omega(basis, chunk, m)
        minus = np.broadcast_to(-unit, omega.shape)
        middle = np.block([[omega, minus], [minus, np.zeros_like(omega)]])
        t = np.concatenate([np.zeros_like(t), t], axis=1)
        gram = np.stack([z.T @ z for z, _ in designs])
        value, vector = np.linalg.eigh(gram)
        half = (vector * np.sqrt(np.maximum(value, 0.0))[:, None, :]) @ np.swapaxes(vector, 1, 2)
        value, vector = np.linalg.eigh(half @ middle @ half)
        inner = (vector * _phi(value)[:, None, :]) @ (np.swapaxes(vector, 1, 2) @ (half @ t))
        inner = t + middle @ (half @ inner)
    for g, (z, w), coordinates in zip(chunk, designs, inner, strict=True):
        value = z @ coordinates
        out[basis.starts[g] : basis.starts[g + 1]] = w[:, None] * value if not doubled else value


def _columns(basis: _Basis, g: int, m: int, doubled: bool) -> tuple[FloatArray, FloatArray]:
    """Columns of one cluster, with those times the weights where doubled; its weights."""
    rows = slice(basis.starts[g], basis.starts[g + 1])
    x, w = basis.x[rows], basis.w[rows]
    if m:
        indicator = np.zeros((len(w), m))
        indicator[np.arange(len(w)), basis.slots[0][rows]] = basis.root[basis.level[rows]]  # type: ignore[index]
        x = np.hstack([indicator, x])
    return (np.hstack([x, w[:, None] * x]) if doubled else x), w


def _phi(value: FloatArray) -> FloatArray:
    """((1 + v)^(-1/2) - 1) / v, with 0 for the power where 1 + v is 0."""
    near = np.abs(value) < 1e-4
    series = -0.5 + value * (0.375 - 0.3125 * value)
    exact = (_power(1 + value, -0.5) - 1) / np.where(near, 1.0, value)
    return np.where(near, series, exact)


# ---------------------------------------------------------------------- moments
def _by_cluster(values: FloatArray, basis: _Basis) -> FloatArray:
    """Sums of rows by cluster, shape (G, ...)."""
    return np.asarray(np.add.reduceat(values, basis.starts[:-1], axis=0))


def _moments(basis: _Basis, p: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``tr P`` and ``tr P^2`` of each contrast, ``P_gh = p_g' Sigma_gh p_h``, shape (q,).

    ``P = diag(p_g'p_g) + R C R'`` with R = [X_g'p_g, X_g'W_gp_g] and C as in :func:`_large`: the levels' part of R is
    sparse, the rest of low rank.
    """
    pairs = [_moments_of_one(basis, column) for column in p.T]
    return np.array([first for first, _ in pairs]), np.array([second for _, second in pairs])


def _moments_of_one(basis: _Basis, p: FloatArray) -> tuple[float, float]:
    from scipy import sparse

    xx, lx, ll = basis.omega
    k, n_levels = basis.k, len(basis.root)
    square = _by_cluster(p**2, basis)
    first = _by_cluster(p[:, None] * basis.x, basis)
    second = _by_cluster((basis.w * p)[:, None] * basis.x, basis)
    unit, zero = np.eye(k), np.zeros((k, k))
    if basis.level is None:
        return _moments_of_sum(square, np.hstack([first, second]), np.block([[xx, -unit], [-unit, zero]]))
    root, shape = basis.root[basis.level], (basis.clusters, n_levels)
    cells = [sparse.csr_matrix((root * v, (basis.cluster, basis.level)), shape=shape) for v in (p, basis.w * p)]
    diagonal = sparse.identity(n_levels)
    core = sparse.bmat([[sparse.diags(ll), -diagonal], [-diagonal, None]], format="csr")
    low = np.hstack([first, second, cells[0] @ lx])
    middle = np.block([[xx, -unit, unit], [-unit, zero, zero], [unit, zero, zero]])
    return _moments_of_sum(square, low, middle, sparse.hstack(cells, format="csr"), core)


def _moments_of_sum(
    diagonal: FloatArray, low: FloatArray, middle: FloatArray, levels: Any = None, core: Any = None
) -> tuple[float, float]:
    """``tr P`` and ``tr P^2`` of ``P = diag(d) + L M L' + S K S'``, L (G, r) of low rank, S (G, s) and K sparse."""
    inner = middle @ (low.T @ low)
    trace = float(diagonal.sum() + np.trace(inner))
    of_square = float(diagonal @ diagonal + (inner * inner.T).sum())
    reach = diagonal[:, None] * low
    if levels is not None:
        by_level = np.asarray((levels @ core).multiply(levels).sum(axis=1)).ravel()
        gram = core @ (levels.T @ levels)
        trace += float(by_level.sum())
        of_square += float(2 * diagonal @ by_level + gram.multiply(gram.T).sum())
        reach = reach + levels @ (core @ (levels.T @ low))
    return trace, of_square + 2 * float((middle * (low.T @ reach)).sum())


def _centred(
    basis: _Basis, influence: FloatArray, residual: FloatArray, cells: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Scores of the clusters less the mean of their cell, scaled, (G, q); ``tr P`` and ``tr P^2`` of each, (q,).

    With ``s_g = l_g' e_g`` and N the operator that takes cells' means out, the factor of a cluster is
    ``(l_g'l_g / (N Var(s) N)_gg)^(1/2)``: each cluster adds its part of the variance under the working model.
    """
    from scipy import sparse

    cell = _codes(cells[basis.starts[:-1]])
    count = np.bincount(cell)
    xx, unit, zero = basis.omega[0], np.eye(basis.k), np.zeros((basis.k, basis.k))
    middle = np.block([[xx, -unit], [-unit, zero]])

    def less_mean(values: FloatArray) -> FloatArray:
        return _demean(values, np.ones(len(cell)), cell, len(count))[0]

    scores = less_mean(_by_cluster(influence * residual[:, None], basis))
    first, second = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    for j, own in enumerate(influence.T):
        target = _by_cluster(own**2, basis)
        low = _by_cluster(own[:, None] * np.hstack([basis.x, basis.w[:, None] * basis.x]), basis)
        low, mean = less_mean(low), np.bincount(cell, target) / count
        seen = target * (1 - 2 / count[cell]) + (mean / count)[cell]
        seen = seen + np.einsum("ij,ij->i", low @ middle, low)
        usable = seen > SINGULAR * np.maximum(target, 1e-300)
        factor = np.where(usable, np.sqrt(target / np.where(usable, seen, 1.0)), 0.0)
        scores[:, j] *= factor
        at = (np.arange(len(cell)), cell)
        parts = [sparse.csr_matrix((factor * v, at), shape=(len(cell), len(count))) for v in (1 + 0 * target, target)]
        share = sparse.diags(1.0 / count)
        core = sparse.bmat([[sparse.diags(mean / count), -share], [-share, None]], format="csr")
        first[j], second[j] = _moments_of_sum(
            factor**2 * target, factor[:, None] * low, middle, sparse.hstack(parts, format="csr"), core
        )
    return scores, first, second
