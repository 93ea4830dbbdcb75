r"""Independent draws from a posterior whose one hard direction is its last coordinate u.

Given u the posterior of the other coordinates x is close to normal, but its centre and width move with u, and u
itself may be skewed or trail off to one side (sigma near 0, which data often cannot exclude). So the proposal is

.. math:: q(u) \, q(x | u), \qquad q(x | u) \approx N(\hat x(u), H(u)^{-1}), \qquad
          \log q(u) = \log p(\hat x(u), u) - \tfrac12 \log |H(u)| + const,

with the conditional modes and curvatures found at some ten values of u and splines between them: the Laplace
approximation of the marginal of u (Tierney and Kadane 1986; Rue, Martino and Chopin 2009). Independence Metropolis
steps (Tierney 1994) make the draws exact; a tenth of the proposals comes from a wider t distribution, so that no
region of the target is starved. A draw costs one evaluation of the density, where a No-U-Turn step costs seven or
more, and the larger the data, the closer to normal the conditionals. Where the proposal does not fit, its weights
say so (Pareto k, Vehtari et al. 2024), and the caller takes the No-U-Turn sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.inference.chains import Settings, negative_hessian

FloatArray = NDArray[np.float64]
Density = Callable[[FloatArray], tuple[float, FloatArray]]

STEP = 0.7  # standard deviations of u between the first nodes; further out they lie further apart
GROWTH = 1.15
DROP = 9.0  # of the log marginal, beyond which its tail is taken for exponential
MAX_NODES = 14  # to either side of the mode
FINE = 60  # cells between two nodes in which log q(u) is linear
WIDE_SHARE, WIDE_SCALE, WIDE_DEGREES = 0.1, 1.3, 5.0
BURN = 25  # proposals before the first draw that is kept

PARETO_LIMIT = 0.5  # finite variance of the weights
MIN_SHARE = 0.5  # of effective proposals


@dataclass(frozen=True)
class ModePath:
    """Conditional modes and curvatures along the last coordinate.

    Attributes
    ----------
    nodes : ndarray of shape (k,)
        Increasing values of u.
    modes : ndarray of shape (k, d - 1)
        Modes of the other coordinates given u.
    roots : ndarray of shape (k, d - 1, d - 1)
        Lower-triangular L(u) with L L' the inverse curvature there.
    log_marginal : ndarray of shape (k,)
        Laplace approximation of the log marginal density of u, up to a constant.
    """

    nodes: FloatArray
    modes: FloatArray
    roots: FloatArray
    log_marginal: FloatArray


@dataclass(frozen=True)
class IndependentDraws:
    """Draws (chain, draw, d), the share of accepted proposals, the weights' Pareto k and effective share."""

    draws: FloatArray
    accepted: float
    pareto_k: float
    effective_share: float

    @property
    def trustworthy(self) -> bool:
        """Whether the proposal covers the posterior."""
        return self.pareto_k < PARETO_LIMIT and self.effective_share > MIN_SHARE


def sample_path(density: Density, mode: FloatArray, scale: float, settings: Settings) -> IndependentDraws | None:
    """Independence Metropolis draws from a log density with gradient; None where no path of modes is found.

    Parameters
    ----------
    density : callable
        ``density(x)`` gives the log density at x, shape (d,), and its gradient.
    mode : ndarray of shape (d,)
        Joint mode.
    scale : float
        Standard deviation of the last coordinate by the curvature at the mode.
    settings : Settings
        Draws a chain, chains, seed; there is nothing to tune.

    Examples
    --------
    >>> target = lambda x: (-0.5 * (x[0] - x[1]) ** 2 - 0.5 * x[1] ** 2, np.array([x[1] - x[0], x[0] - 2 * x[1]]))
    >>> sampled = sample_path(target, np.zeros(2), 1.0, Settings(500, 0, 4, 0))
    >>> sampled.draws.shape, sampled.trustworthy, sampled.accepted > 0.9
    ((4, 500, 2), True, True)
    >>> float(sampled.draws[..., 0].std().round(1))
    1.4
    """
    path = follow_modes(density, mode, scale)
    if path is None:
        return None
    rng = np.random.default_rng(settings.seed)
    chains, each = settings.n_chains, settings.n_draws + BURN
    proposals, log_q = propose(path, chains * each, rng)
    log_p = np.array([_value(density, x) for x in proposals])
    log_w = (log_p - log_q).reshape(chains, each)
    if not np.isfinite(log_w).any(axis=1).all():
        return None
    taken, accepted = independence_chain(log_w, rng)
    kept = proposals.reshape(chains, each, -1)[np.arange(chains)[:, None], taken[:, BURN:]]
    weight = np.exp(log_w - log_w.max())
    share = float(weight.sum() ** 2 / (weight**2).sum() / weight.size)
    return IndependentDraws(kept, accepted, _pareto_k(log_w), share)


# ---------------------------------------------------------------------- the path
def follow_modes(density: Density, mode: FloatArray, scale: float) -> ModePath | None:
    """Conditional modes and curvatures outwards from the joint mode, until the marginal has dropped by 9."""
    middle = _node(density, mode[-1], mode[:-1])
    if middle is None:
        return None
    nodes = [middle]
    for side in (-1.0, 1.0):
        step, last, before = STEP * scale, middle, None
        for _ in range(MAX_NODES):
            u = last[0] + side * step
            guess = last[1]
            if before is not None:
                guess = last[1] + (last[1] - before[1]) * (u - last[0]) / (last[0] - before[0])
            node = _node(density, u, guess)
            if node is None:
                return None
            nodes.append(node)
            before, last, step = last, node, step * GROWTH
            if middle[3] - node[3] > DROP:
                break
    nodes.sort(key=lambda node: node[0])
    return ModePath(*(np.array([node[i] for node in nodes]) for i in range(4)))


def _node(density: Density, u: float, guess: FloatArray) -> tuple[float, FloatArray, FloatArray, float] | None:
    """Value of u, conditional mode, root of the inverse curvature, log marginal; None where Newton fails."""

    def given(x: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = density(np.append(x, u))
        return value, gradient[:-1]

    x, value = guess, given(guess)[0]
    for _ in range(4):  # curvatures; between them steps with the last one
        try:
            upper = np.linalg.cholesky(negative_hessian(given, x)[::-1, ::-1])[::-1, ::-1]  # H = upper upper'
        except np.linalg.LinAlgError:
            return None
        root = np.linalg.inv(upper).T  # lower triangular, root root' = H^-1
        first = np.inf
        for _ in range(6):
            step = root.T @ given(x)[1]
            size = float(np.linalg.norm(step))
            if not np.isfinite(size) or size > 0.5 * first:
                break
            first, x = size, x + root @ step
            if size < 0.02:
                value = given(x)[0]
                return u, x, root, value + float(np.log(np.abs(np.diag(root))).sum())
    return None


# ---------------------------------------------------------------------- proposals
def propose(path: ModePath, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Draws (n, d) from the proposal and their log density, up to one constant."""
    from scipy.interpolate import CubicSpline
    from scipy.special import gammaln

    u, log_q = _marginal(path, n, rng)
    inside = np.clip(u, path.nodes[0], path.nodes[-1])
    d = path.modes.shape[1]
    centre = CubicSpline(path.nodes, path.modes)(inside)
    root = np.tril(CubicSpline(path.nodes, path.roots)(inside))
    diagonal = np.einsum("ijj->ij", root)
    diagonal[:] = np.exp(CubicSpline(path.nodes, np.log(np.einsum("ijj->ij", path.roots)))(inside))
    z = rng.standard_normal((n, d))
    wide = rng.random(n) < WIDE_SHARE
    stretch = WIDE_SCALE / np.sqrt(rng.chisquare(WIDE_DEGREES, n) / WIDE_DEGREES)
    z = np.where(wide[:, None], z * stretch[:, None], z)
    square = (z**2).sum(axis=1)
    narrow = -0.5 * square - 0.5 * d * np.log(2 * np.pi)
    spread = (
        gammaln((WIDE_DEGREES + d) / 2)
        - gammaln(WIDE_DEGREES / 2)
        - 0.5 * d * np.log(WIDE_DEGREES * np.pi)
        - d * np.log(WIDE_SCALE)
        - 0.5 * (WIDE_DEGREES + d) * np.log1p(square / (WIDE_DEGREES * WIDE_SCALE**2))
    )
    log_q = log_q + np.logaddexp(np.log1p(-WIDE_SHARE) + narrow, np.log(WIDE_SHARE) + spread)
    log_q -= np.log(diagonal).sum(axis=1)
    return np.column_stack([centre + np.einsum("ijk,ik->ij", root, z), u]), log_q


def _marginal(path: ModePath, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Draws of u and their log density, linear within fine cells and in both tails."""
    from scipy.interpolate import CubicSpline

    cells = (len(path.nodes) - 1) * FINE
    grid = np.linspace(path.nodes[0], path.nodes[-1], cells + 1)
    level = CubicSpline(path.nodes, path.log_marginal)(grid)
    level -= level.max()
    slope = np.diff(level) / np.diff(grid)
    width = grid[-1] - grid[0]
    left, right = max(slope[0], 2.0 / width), max(-slope[-1], 2.0 / width)
    growth = slope * np.diff(grid)
    inner = np.exp(level[:-1]) * np.diff(grid) * _mean_of_exponential(growth)
    mass = np.concatenate([[np.exp(level[0]) / left], inner, [np.exp(level[-1]) / right]])
    place = rng.choice(cells + 2, n, p=mass / mass.sum()) - 1
    v = rng.random(n)
    cell = np.clip(place, 0, cells - 1)
    flat = np.abs(growth[cell]) < 1e-8
    share = np.where(flat, v, np.log1p(v * np.expm1(growth[cell])) / np.where(flat, 1.0, growth[cell]))
    u = grid[cell] + share * np.diff(grid)[cell]
    log_q = level[cell] + slope[cell] * (u - grid[cell])
    far = -np.log(v)
    u = np.where(place < 0, grid[0] - far / left, np.where(place == cells, grid[-1] + far / right, u))
    log_q = np.where(place < 0, level[0] - far, np.where(place == cells, level[-1] - far, log_q))
    return u, log_q


def _mean_of_exponential(growth: FloatArray) -> FloatArray:
    """Mean of exp(growth t) over t in (0, 1)."""
    small = np.abs(growth) < 1e-8
    return np.where(small, 1.0, np.expm1(growth) / np.where(small, 1.0, growth))


# ---------------------------------------------------------------------- chains
def independence_chain(log_weight: FloatArray, rng: np.random.Generator) -> tuple[NDArray[np.int64], float]:
    """Which proposal each chain is at, shape (chain, proposal), and the share of proposals accepted."""
    chains, n = log_weight.shape
    at = np.zeros((chains, n), dtype=np.int64)
    log_u = np.log(rng.random((chains, n)))
    moves = 0
    for c in range(chains):
        now = 0
        for i in range(1, n):
            if log_weight[c, i] - log_weight[c, now] > log_u[c, i] or not np.isfinite(log_weight[c, now]):
                now, moves = i, moves + 1
            at[c, i] = now
    return at, moves / max(chains * (n - 1), 1)


def _pareto_k(log_weight: FloatArray) -> float:
    import arviz

    finite = log_weight[np.isfinite(log_weight)]
    return float(np.max(arviz.psislw(finite - finite.max())[1]))


def _value(density: Density, x: FloatArray) -> float:
    with np.errstate(all="ignore"):
        value: Any = density(x)[0]
    return float(value) if np.isfinite(value) else -np.inf
