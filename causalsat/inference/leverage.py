r"""Leverage of clusters: what their residuals show of their errors' variance, and the moments of a robust variance.

A design of n units has columns in which X'WX is the identity: indicators of the levels of a fixed effect, scaled, and
k others. Errors have covariance :math:`\Phi = I + r J` within clusters, J of ones (the working model: r is the ratio
of the variance that a cluster's units have in common to that of each of them). Residuals ``e = (I - XX'W) error`` of
clusters g and h have covariance

.. math:: \Sigma_{gh} = \Phi_{gh} - X_g Y_h' - Y_g X_h' + X_g \Omega X_h', \qquad Y = \Phi W X, \quad
          \Omega = X'W \Phi W X.

A matrix per unit of the sample is never formed. With :math:`\Psi = \Phi_g^{1/2}`, the factor
:math:`A_g = \Psi (\Psi^{-1} \Sigma_g \Psi^{-1})^{-1/2} \Psi^{-1}` makes :math:`A_g \Sigma_g A_g' = \Phi_g`, and the
matrix in brackets is the identity plus one of rank 2(m + k) for a cluster with m levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Coordinates",
    "adjusted_influence",
    "codes",
    "common_variance",
    "demean",
    "diagonal",
    "expected_variance",
    "moments_of_sum",
    "pivoted_qr",
    "quadratic_moments",
    "stacked",
    "table",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SINGULAR = 1e-10  # eigenvalues of a covariance of residuals, in units of the errors' variance
COLLINEAR = 1e-9
CONSTANT = 1e-11  # norm of a demeaned column, in units of the column's
CHUNK = 4_000_000  # numbers in a batch of matrices
DENSE = 200_000  # numbers up to which a table of levels is no sparse matrix
MAX_RATIO = 1e3


def codes(labels: Any) -> IntArray:
    """Codes 0, 1, ... of labels, in their sorted order."""
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64).ravel()


def demean(values: FloatArray, w: FloatArray, level: IntArray, n_levels: int) -> tuple[FloatArray, FloatArray]:
    """Values (n, k) less the weighted means of their levels, and those means (levels, k).

    Means are taken out twice, so that a large common value costs no digits.
    """
    mass = np.bincount(level, w, minlength=n_levels)[:, None]
    means = np.zeros((n_levels, values.shape[1]))
    out = values
    for _ in range(2):
        sums = [np.bincount(level, w * column, minlength=n_levels) for column in out.T]
        step = np.column_stack(sums) / mass if sums else np.zeros((n_levels, 0))
        out, means = out - step[level], means + step
    return out, means


def pivoted_qr(
    centred: FloatArray, original: FloatArray, w: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray, int, FloatArray]:
    """Pivoted QR of the weighted, scaled columns: Q, R, order of the columns, rank, scale of the columns."""
    from scipy.linalg import qr

    if centred.shape[1] == 0:
        return np.zeros((len(centred), 0)), np.zeros((0, 0)), np.zeros(0, dtype=np.int64), 0, np.zeros(0)
    root = np.sqrt(w)[:, None]
    scale = np.linalg.norm(root * centred, axis=0)
    constant = scale <= CONSTANT * np.linalg.norm(root * original, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    scaled = np.where(constant, 0.0, root * centred / scale)
    q, r, order = qr(scaled, mode="economic", pivoting=True, check_finite=False)
    rank = int((np.abs(np.diag(r)) > COLLINEAR).sum())
    return q, r, np.asarray(order, dtype=np.int64), rank, scale


def table(rows: IntArray, columns: IntArray, values: FloatArray, shape: tuple[int, int], dense: bool) -> Any:
    """Sums of values by row and column, shape ``shape``: an array, or a sparse matrix."""
    from scipy import sparse

    if dense:
        return np.bincount(rows * shape[1] + columns, values, minlength=shape[0] * shape[1]).reshape(shape)
    return sparse.csr_matrix((values, (rows, columns)), shape=shape)


def diagonal(values: FloatArray, dense: bool) -> Any:
    """Diagonal matrix: an array, or sparse."""
    from scipy import sparse

    return np.diag(values) if dense else sparse.diags(values, format="csr")


def stacked(blocks: list[list[Any]]) -> Any:
    """Blocks side by side and one below the other: an array where all are, else a sparse matrix."""
    from scipy import sparse

    if any(sparse.issparse(block) for row in blocks for block in row):
        return sparse.bmat([[sparse.csr_matrix(block) for block in row] for row in blocks], format="csr")
    return np.block(blocks)


def _product(a: Any, b: Any) -> Any:
    """Product of the elements of two arrays or sparse matrices."""
    from scipy import sparse

    return a.multiply(b) if sparse.issparse(a) else (b.multiply(a) if sparse.issparse(b) else a * b)


def _row_sums(table: Any) -> FloatArray:
    return np.asarray(table.sum(axis=1), dtype=float).ravel()


# ---------------------------------------------------------------------- the design
@dataclass(frozen=True, eq=False)
class Coordinates:
    """A design in coordinates in which X'WX is the identity, units sorted by cluster.

    Attributes
    ----------
    x : ndarray of shape (n, k)
        Columns, orthogonal to the levels.
    w : ndarray of shape (n,)
        Weights, of mean 1; exactly 1 where they are equal.
    cluster : ndarray of int of shape (n,)
        Clusters 0, 1, ..., in this order.
    level : ndarray of int of shape (n,), or None
        Levels of the fixed effect.
    root : ndarray of shape (S,)
        Scale of the levels' indicators: one over the root of their sum of weights.
    ratio : float
        r of the working model.
    """

    x: FloatArray
    w: FloatArray
    cluster: IntArray
    level: IntArray | None
    root: FloatArray
    ratio: float = 0.0

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.w)

    @property
    def k(self) -> int:
        """Number of columns beside the levels."""
        return self.x.shape[1]

    @cached_property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return int(self.cluster[-1]) + 1

    @cached_property
    def starts(self) -> IntArray:
        """First unit of each cluster, and the number of units at the end, shape (G + 1,)."""
        return np.searchsorted(self.cluster, np.arange(self.n_clusters + 1))

    @cached_property
    def sizes(self) -> IntArray:
        """Units of each cluster, shape (G,)."""
        return np.diff(self.starts)

    @cached_property
    def spherical(self) -> bool:
        """Whether errors and weights are equal, so that the hat matrix says all."""
        return self.ratio == 0 and bool(np.ptp(self.w) == 0)

    def sums(self, values: FloatArray) -> FloatArray:
        """Sums of rows by cluster, shape (G, ...)."""
        return np.asarray(np.add.reduceat(values, self.starts[:-1], axis=0))

    @cached_property
    def dense(self) -> bool:
        """Whether tables of levels are small enough for arrays."""
        return (self.n_clusters + len(self.root)) * len(self.root) <= DENSE

    def level_sums(self, values: FloatArray) -> Any:
        """Sums of values (n,) by cluster and level, times the levels' scale: shape (G, S), sparse where large."""
        if self.level is None:
            return np.zeros((self.n_clusters, 0))
        scaled = values * self.root[self.level]
        return table(self.cluster, self.level, scaled, (self.n_clusters, len(self.root)), self.dense)

    def spread(self, values: FloatArray) -> FloatArray:
        """``Phi v``, shape (n, q)."""
        if self.ratio == 0:
            return values
        return np.asarray(values + self.ratio * self.sums(values)[self.cluster])

    def root_factor(self, power: float, sizes: Any) -> Any:
        """Factor c of ``Phi_g^power = I + c J`` for clusters of these sizes."""
        return ((1 + self.ratio * sizes) ** power - 1) / sizes

    @cached_property
    def omega(self) -> tuple[FloatArray, FloatArray, Any]:
        """``X'W Phi W X``: of x (k, k), of levels with x (S, k), of levels (S, S), sparse where large."""
        squared, n_levels = self.w**2, len(self.root)
        xx = self.x.T @ (squared[:, None] * self.x)
        lx, ll = np.zeros((n_levels, self.k)), np.zeros(n_levels)
        if self.level is not None:
            for j, column in enumerate(self.x.T):
                lx[:, j] = np.bincount(self.level, squared * column, minlength=n_levels) * self.root
            ll = np.bincount(self.level, squared, minlength=n_levels) * self.root**2
        levels = diagonal(ll, self.dense)
        if self.ratio:
            mine, theirs = self.sums(self.w[:, None] * self.x), self.level_sums(self.w)
            xx = xx + self.ratio * mine.T @ mine
            lx = lx + self.ratio * (theirs.T @ mine)
            levels = levels + self.ratio * (theirs.T @ theirs)
        return xx, lx, levels

    @cached_property
    def slots(self) -> tuple[IntArray, IntArray, IntArray]:
        """Positions of units' levels among their cluster's (n,), those levels (G, m) with -1 for none, counts."""
        if self.level is None:
            none = np.zeros((self.n_clusters, 0), dtype=np.int64)
            return np.zeros(self.n, dtype=np.int64), none, np.zeros(self.n_clusters, dtype=np.int64)
        n_levels = len(self.root)
        pair, inverse = np.unique(self.cluster * n_levels + self.level, return_inverse=True)
        owner = pair // n_levels
        position = np.arange(len(pair)) - np.searchsorted(owner, np.arange(self.n_clusters))[owner]
        count = np.bincount(owner, minlength=self.n_clusters)
        held = np.full((self.n_clusters, int(count.max())), -1, dtype=np.int64)
        held[owner, position] = pair % n_levels
        return position[inverse.ravel()], held, count

    def local_omega(self, chunk: IntArray, m: int) -> FloatArray:
        """Omega of the columns of some clusters, shape (clusters, m + k, m + k)."""
        xx, lx, ll = self.omega
        out = np.zeros((len(chunk), m + self.k, m + self.k))
        out[:, m:, m:] = xx
        if m:
            level = self.slots[1][chunk, :m]
            used = level >= 0
            rows, columns = np.broadcast_arrays(level[:, :, None], level[:, None, :])
            block = np.asarray(ll[rows.ravel(), columns.ravel()]).reshape(rows.shape)
            out[:, :m, :m] = np.where(used[:, :, None] & used[:, None, :], block, 0.0)
            out[:, :m, m:] = np.where(used[..., None], lx[level], 0.0)
            out[:, m:, :m] = np.swapaxes(out[:, :m, m:], 1, 2)
        return out


def common_variance(design: Coordinates, residual: FloatArray) -> float:
    """Ratio r of the working model: ``sum e^2`` and ``sum_g (sum_g e)^2`` at their expectations; 0 where none.

    Both expectations are linear in the two variances, with coefficients ``tr M M'``, ``tr M J M'``, ``tr J M M'`` and
    ``tr J M J M'`` for ``M = I - XX'W``, so that leverage and fixed effects are allowed for.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> village = np.repeat(np.arange(400), 5)
    >>> error = rng.standard_normal(400)[village] + rng.standard_normal(2000)
    >>> constant = Coordinates(np.full((2000, 1), 2000**-0.5), np.ones(2000), village, None, np.zeros(0))
    >>> round(common_variance(constant, error - error.mean()), 1)
    0.9
    """
    x = stacked([[design.level_sums(np.ones(design.n)), design.sums(design.x)]])
    y = stacked([[design.level_sums(design.w), design.sums(design.w[:, None] * design.x)]])
    gram = _whole(replace(design, w=np.ones(design.n), ratio=0.0).omega)
    alone, common = _whole(replace(design, ratio=0.0).omega), y.T @ y
    size, hat = design.sizes, _row_sums(_product(x, y))
    own, shared = (_row_sums(_product(x @ each, x)) for each in (alone, common))
    moments = np.array(
        [
            [design.n - 2 * x.shape[1] + _product(alone, gram).sum(), design.n - 2 * hat.sum()],
            [(size - 2 * hat + own).sum(), (size**2 - 2 * size * hat + shared).sum()],
        ]
    )
    moments[0, 1] += _product(common, gram).sum()
    seen = np.array([float(residual @ residual), float((design.sums(residual) ** 2).sum())])
    scale = np.abs(moments).max()
    if scale == 0 or abs(np.linalg.det(moments / scale)) < 1e-9:
        return 0.0
    alone_variance, common_part = np.linalg.solve(moments, seen)
    if common_part <= 0:
        return 0.0
    return float(min(common_part / alone_variance, MAX_RATIO)) if alone_variance > 0 else MAX_RATIO


def _whole(omega: tuple[FloatArray, FloatArray, Any]) -> Any:
    xx, lx, ll = omega
    return stacked([[ll, lx], [lx.T, xx]])


# ---------------------------------------------------------------------- adjustment
def adjusted_influence(
    design: Coordinates, influence: FloatArray, a: FloatArray, b: FloatArray, kind: str
) -> FloatArray:
    """``p = A_g' l_g``, shape (n, q), for influences ``l = W (levels a + x b)``.

    Single units by a scalar, clusters with fewer units than columns directly, larger ones by matrices of the columns'
    size.
    """
    out = np.empty_like(influence)
    sizes, levels = design.sizes, design.slots[2]
    single = np.flatnonzero(sizes == 1)
    if len(single):
        rows = design.starts[single]
        out[rows] = influence[rows] * _single_factor(design, rows, kind)[:, None]
    width = design.k + levels
    side = width if design.spherical or kind == "CV3" else 2 * width
    for size in np.unique(sizes[(sizes > 1) & (sizes <= side)]):
        members = np.flatnonzero((sizes == size) & (sizes <= side))
        for chunk in _chunks(members, int(size) * max(int(size), int(width.max()))):
            rows = design.starts[chunk][:, None] + np.arange(size)
            out[rows] = _small(design, chunk, rows, influence, kind)
    large = np.flatnonzero((sizes > 1) & (sizes > side))
    for m in np.unique(levels[large]):
        for chunk in _chunks(large[levels[large] == m], 4 * (design.k + int(m)) ** 2):
            _large(design, chunk, int(m), a, b, kind, out)
    return out


def _chunks(members: IntArray, numbers: int) -> list[IntArray]:
    step = max(1, CHUNK // max(numbers, 1))
    return [members[i : i + step] for i in range(0, len(members), step)]


def _single_factor(design: Coordinates, rows: IntArray, kind: str) -> FloatArray:
    x, w = design.x[rows], design.w[rows]
    xx, lx, ll = design.omega
    square, spread = (x**2).sum(axis=1), np.einsum("ij,ij->i", x @ xx, x)
    if design.level is not None:
        level = design.level[rows]
        root = design.root[level]
        square = square + root**2
        spread += 2 * root * np.einsum("ij,ij->i", lx[level], x) + root**2 * ll.diagonal()[level]
    if kind == "CV3":
        return _power(1 - w * square, -1.0)
    if design.spherical:
        return _power(1 - square, -0.5)
    return _power(1 - 2 * w * square + spread / (1 + design.ratio), -0.5)


def _power(value: FloatArray, exponent: float) -> FloatArray:
    """Powers of eigenvalues; 0 of those that are 0."""
    seen = value > SINGULAR
    return np.asarray(np.where(seen, np.where(seen, value, 1.0) ** exponent, 0.0))


def _symmetric_power(matrix: FloatArray, exponent: float) -> FloatArray:
    value, vector = np.linalg.eigh(matrix)
    return np.asarray((vector * _power(value, exponent)[..., None, :]) @ _transposed(vector))


def _transposed(stack: FloatArray) -> FloatArray:
    return np.swapaxes(stack, -1, -2)


def _small(design: Coordinates, chunk: IntArray, rows: IntArray, influence: FloatArray, kind: str) -> FloatArray:
    """Values p of clusters of one size, shape (clusters, size, q)."""
    x, w, own = design.x[rows], design.w[rows][..., None], influence[rows]
    size = rows.shape[1]
    if design.level is not None:
        slot, _, count = design.slots
        indicator = np.zeros((*rows.shape, int(count[chunk].max())))
        np.put_along_axis(indicator, slot[rows][..., None], design.root[design.level[rows]][..., None], axis=2)
        x = np.concatenate([indicator, x], axis=2)
    unit = np.eye(size)
    if kind == "CV3":
        root = np.sqrt(w)
        return np.asarray(root * (_symmetric_power(unit - root * x @ _transposed(root * x), -1.0) @ (own / root)))
    if design.spherical:
        return _symmetric_power(unit - x @ _transposed(x), -0.5) @ own

    def psi(values: FloatArray, power: float) -> FloatArray:
        return np.asarray(values + design.root_factor(power, size) * values.sum(axis=1, keepdims=True))

    omega = design.local_omega(chunk, x.shape[2] - design.k)
    left, right = psi(x, -0.5), psi(w * x, 0.5)
    cross = left @ _transposed(right)
    sigma = unit - cross - _transposed(cross) + left @ omega @ _transposed(left)
    return psi(_symmetric_power(sigma, -0.5) @ psi(own, 0.5), -0.5)


def _large(
    design: Coordinates, chunk: IntArray, m: int, a: FloatArray, b: FloatArray, kind: str, out: FloatArray
) -> None:
    """Write p of clusters with more units than columns, ``p_g = Psi^-1 Z_g z_g``.

    Unweighted and without a common variance, Z = X and ``z = (I - X_g'X_g)^(-1/2) t`` with l = X t. Else the matrix
    in brackets is ``I + Z C Z'`` with Z = [Psi^-1 X, Psi W X] and C = [[Omega, -I], [-I, 0]]. With L = Z'Z and
    ``phi(v) = ((1 + v)^(-1/2) - 1) / v``, ``z = t + C L^(1/2) phi(L^(1/2) C L^(1/2)) L^(1/2) t``, which divides by
    nothing where Z is collinear.
    """
    t = np.broadcast_to(b, (len(chunk), *b.shape))
    if m:
        t = np.concatenate([a[design.slots[1][chunk, :m]], t], axis=1)
    doubled = not design.spherical and kind != "CV3"
    tables = [_columns(design, int(g), m, doubled) for g in chunk]
    unit = np.eye(m + design.k)
    if doubled:
        omega = design.local_omega(chunk, m)
        minus = np.broadcast_to(-unit, omega.shape)
        middle = np.block([[omega, minus], [minus, np.zeros_like(omega)]])
        t = np.concatenate([np.zeros_like(t), t], axis=1)
        value, vector = np.linalg.eigh(np.stack([z.T @ z for z in tables]))
        half = (vector * np.sqrt(np.maximum(value, 0.0))[:, None, :]) @ _transposed(vector)
        value, vector = np.linalg.eigh(half @ middle @ half)
        inner = (vector * _phi(value)[:, None, :]) @ (_transposed(vector) @ (half @ t))
        inner = t + middle @ (half @ inner)
    else:
        rows = [slice(design.starts[g], design.starts[g + 1]) for g in chunk]
        weights = [design.w[each][:, None] for each in rows]
        gram = np.stack([z.T @ (w * z) for z, w in zip(tables, weights, strict=True)])
        inner = _symmetric_power(unit - gram, -1.0 if kind == "CV3" else -0.5) @ t
        tables = [w * z for z, w in zip(tables, weights, strict=True)]
    for g, z, coordinates in zip(chunk, tables, inner, strict=True):
        value = z @ coordinates
        if doubled:
            value = value + design.root_factor(-0.5, len(z)) * value.sum(axis=0)
        out[design.starts[g] : design.starts[g + 1]] = value


def _columns(design: Coordinates, g: int, m: int, doubled: bool) -> FloatArray:
    """X of one cluster, or [Psi^-1 X, Psi W X]."""
    rows = slice(design.starts[g], design.starts[g + 1])
    x, w = design.x[rows], design.w[rows]
    if m and design.level is not None:
        indicator = np.zeros((len(w), m))
        indicator[np.arange(len(w)), design.slots[0][rows]] = design.root[design.level[rows]]
        x = np.hstack([indicator, x])
    if not doubled:
        return x
    weighted, factor = w[:, None] * x, design.root_factor
    left = x + factor(-0.5, len(w)) * x.sum(axis=0)
    return np.hstack([left, weighted + factor(0.5, len(w)) * weighted.sum(axis=0)])


def _phi(value: FloatArray) -> FloatArray:
    """((1 + v)^(-1/2) - 1) / v, with 0 for the power where 1 + v is 0."""
    near = np.abs(value) < 1e-4
    series = -0.5 + value * (0.375 - 0.3125 * value)
    exact = (_power(1 + value, -0.5) - 1) / np.where(near, 1.0, value)
    return np.where(near, series, exact)


# ---------------------------------------------------------------------- moments
def expected_variance(design: Coordinates, p: FloatArray) -> FloatArray:
    """Expectation ``sum_g p_g' Sigma_g p_g`` of ``sum_g (p_g' e_g)^2`` under the working model, shape (q,)."""
    xx, lx, ll = design.omega
    spread = design.spread(design.w[:, None] * design.x)
    out = np.zeros(p.shape[1])
    for j, own in enumerate(p.T):
        total = design.sums(own)
        first, second = design.sums(own[:, None] * design.x), design.sums(own[:, None] * spread)
        left, right = design.level_sums(own), design.level_sums(design.w * own)
        if design.ratio:
            right = right + diagonal(design.ratio * total, design.dense) @ design.level_sums(design.w)
        out[j] = own @ own + design.ratio * (total @ total) + (first * (first @ xx - 2 * second)).sum()
        out[j] += _product(left, left @ ll - 2 * right).sum() + 2 * ((left @ lx) * first).sum()
    return out


def quadratic_moments(design: Coordinates, p: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``tr P`` and ``tr P^2`` of each contrast, shape (q,), for ``P_gh = p_g' (W^-1 - X X')_gh p_h``.

    The matrix is the covariance of residuals where weights are inverse variances.
    """
    pairs = []
    for own in p.T:
        square, low = design.sums(own**2 / design.w), design.sums(own[:, None] * design.x)
        levels = design.level_sums(own)
        pairs.append(moments_of_sum(square, low, -low, levels, -levels))
    return np.array([first for first, _ in pairs]), np.array([second for _, second in pairs])


def moments_of_sum(
    square: FloatArray, low: FloatArray, core_low: FloatArray, levels: Any, core_levels: Any
) -> tuple[float, float]:
    """``tr P`` and ``tr P^2`` of ``P = diag(d) + L M L' + S K S'``, symmetric.

    Given are L and L M of shape (G, r), S and S K of shape (G, s), these sparse where large.
    """
    inner, gram = low.T @ core_low, levels.T @ core_levels
    by_level = _row_sums(_product(core_levels, levels))
    trace = float(square.sum() + np.trace(inner) + by_level.sum())
    of_square = float(square @ square + (inner * inner.T).sum())
    of_square += float(2 * square @ by_level + _product(gram, gram.T).sum())
    reach = square[:, None] * low + core_levels @ (levels.T @ low)
    return trace, of_square + 2 * float((core_low * reach).sum())
