"""Posterior of the strength of confounding on a grid, the strengths that the imputations stand for, draws of L."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalsat._inputs import FloatArray
from causalsat.estimators._vluci_fit import NO_LINK, Design, Mode, fit_mode, predictors
from causalsat.estimators._vluci_likelihood import Link, log_joint

__all__ = [
    "Grid",
    "Prior",
    "all_strengths",
    "choose",
    "curve_points",
    "draw_confounder",
    "draw_parameters",
    "evaluate_grid",
    "no_grid",
]

RATIOS = (0.5, 1.0, 2.0)  # of L's link to X's own, times the prior scale
MOST_BETA = 4.0
BETA_WEIGHTS = (0.1, 0.3, 0.6)
REACH = 1.9  # of atanh(rho): the confounder explains at most 91 % of the residual variance
SHIFTS = (-0.4, 0.0, 0.4)  # between the arms, in atanh(rho), treated minus control halved
SHIFT_SD = 0.3
FINE = 121, 25
U_GRID = np.linspace(-5.5, 5.5, 221)
HOPELESS = 15.0  # natural logarithms below the best


@dataclass(frozen=True)
class Prior:
    """Prior of confounding: its probability, the scale of L's link relative to X's, whether the data are asked."""

    probability: float
    link_scale: float
    use_evidence: bool = True


@dataclass(frozen=True, eq=False)
class Grid:
    """Posterior weights of strengths.

    Attributes
    ----------
    beta, rho0, rho1, weight, ate, ate_sd : ndarray of shape (k,)
        Strengths, their posterior weights, and the average effect there. The first is no confounding.
    evidence : ndarray of shape (3, r, s)
        Log evidence against no confounding where it was computed: by beta, atanh(rho), shift; NaN where it was not.
    computed : ndarray of shape (3, r, s, 2)
        Average effect and its sd there.
    betas, places : ndarray of shape (3,), (r,)
        Values of beta and of atanh(rho).
    """

    beta: FloatArray
    rho0: FloatArray
    rho1: FloatArray
    weight: FloatArray
    ate: FloatArray
    ate_sd: FloatArray
    evidence: FloatArray
    computed: FloatArray
    betas: FloatArray
    places: FloatArray


def evaluate_grid(design: Design, prior: Prior, n_grid: int) -> tuple[Grid, Mode]:
    """Evidence and average effect over strengths; prior: rho^2 Beta(1, 1/2), arms alike but for a normal shift."""
    none = fit_mode(design, NO_LINK, rounds=10)
    betas = _betas(design, none, prior.link_scale)
    a = np.linspace(-REACH, REACH, n_grid)
    shifts = np.array(SHIFTS) if design.kinds[0] else np.zeros(1)
    table = np.full((3, n_grid, len(shifts), 3), np.nan)
    best = 0.0
    for i, beta in enumerate(betas):
        for k in np.argsort(np.abs(shifts)):
            for side in (1, -1):
                mode, peak = none, 0.0
                for j in sorted(np.flatnonzero(a * side > 0 if side > 0 else a <= 0), key=lambda j: abs(a[j])):
                    mode = fit_mode(design, _link(beta, a[j], shifts[k]), mode)
                    gain = mode.evidence - none.evidence
                    table[i, j, k] = gain, mode.ate, mode.ate_sd
                    best, peak = max(best, gain), max(peak, gain)
                    if gain < min(best, peak) - HOPELESS:
                        break
    return _weigh(table, betas, a, shifts, none, prior), none


def _betas(design: Design, none: Mode, scale: float) -> FloatArray:
    """Lengths of L's link at the prior's ratios to that of X, which L itself weakens: solved for both at once."""
    f_t = predictors(design, none.z)[0]
    middle = np.average(f_t, weights=design.weight)
    seen = np.average((f_t - middle) ** 2, weights=design.weight)
    noise = 3.0 / np.pi**2 if design.kinds[0] else 1.0
    square = (scale * np.array(RATIOS)) ** 2 * seen
    return np.sqrt(square / np.maximum(1 - noise * square, square / MOST_BETA**2))


def no_grid() -> Grid:
    """Grid of no confounding, where it has been ruled out."""
    zero, none = np.zeros(1), np.empty((3, 0, 1))
    return Grid(zero, zero, zero, np.ones(1), zero, zero, none, np.empty((3, 0, 1, 2)), np.zeros(3), np.empty(0))


def _link(beta: float, a: float, shift: float) -> Link:
    return Link(float(beta), (float(np.tanh(a - shift)), float(np.tanh(a + shift))))


def _weigh(table: FloatArray, betas: FloatArray, a: FloatArray, shifts: FloatArray, none: Mode, prior: Prior) -> Grid:
    fine_a = np.linspace(-REACH, REACH, FINE[0])
    fine_s = np.linspace(SHIFTS[0], SHIFTS[-1], FINE[1]) if len(shifts) > 1 else np.zeros(1)
    fine = _refine(table, a, shifts, fine_a, fine_s)
    A, S = np.meshgrid(fine_a, fine_s, indexing="ij")
    density = np.abs(np.tanh(A)) / np.cosh(A)  # of a, where rho^2 is Beta(1, 1/2)
    density = density * np.exp(-0.5 * (S / SHIFT_SD) ** 2)
    slab = np.array(BETA_WEIGHTS)[:, None, None] * density / density.sum()
    log_w = np.log(np.maximum(slab * prior.probability, 1e-300))
    if prior.use_evidence:
        log_w = log_w + fine[..., 0]
    log_w = np.concatenate([[np.log(max(1 - prior.probability, 1e-300))], log_w.ravel()])
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    rho0, rho1 = (np.broadcast_to(np.tanh(A + s * S), slab.shape).ravel() for s in (-1, 1))
    beta = np.broadcast_to(betas[:, None, None], slab.shape).ravel()
    columns = [
        np.concatenate([[first], rest])
        for first, rest in (
            (0.0, beta),
            (0.0, rho0),
            (0.0, rho1),
            (none.ate, fine[..., 1].ravel()),
            (none.ate_sd, np.maximum(fine[..., 2].ravel(), 1e-9)),
        )
    ]
    keep = np.r_[True, w[1:] > 1e-7]
    b, r0, r1, ate, sd = (c[keep] for c in columns)
    return Grid(b, r0, r1, w[keep] / w[keep].sum(), ate, sd, table[..., 0], table[..., 1:], betas, a)


def _refine(
    table: FloatArray, a: FloatArray, shifts: FloatArray, fine_a: FloatArray, fine_s: FloatArray
) -> FloatArray:
    """Evidence, average effect and its sd between the strengths at which they were computed."""
    filled = np.array([[_fill(table[i, :, k], a) for k in range(len(shifts))] for i in range(3)])
    return np.array([_interpolate(filled[i].transpose(1, 0, 2), a, shifts, fine_a, fine_s) for i in range(3)])


def all_strengths(grid: Grid) -> FloatArray:
    """Average effect, its sd and log evidence, shape (3, k), of all strengths; the first is no confounding."""
    fine_a = np.linspace(-REACH, REACH, FINE[0])
    both = grid.evidence.shape[2] > 1
    shifts = np.array(SHIFTS) if both else np.zeros(1)
    fine_s = np.linspace(SHIFTS[0], SHIFTS[-1], FINE[1]) if both else np.zeros(1)
    table = np.concatenate([grid.evidence[..., None], grid.computed], axis=3)
    evidence, ate, sd = (_refine(table, grid.places, shifts, fine_a, fine_s)[..., k].ravel() for k in range(3))
    none = np.array([[grid.ate[0]], [grid.ate_sd[0]], [0.0]])
    return np.hstack([none, np.array([ate, np.maximum(sd, 1e-9), evidence])])


def _fill(values: FloatArray, a: FloatArray) -> FloatArray:
    """Where the search was broken off, the evidence falls on, and the average effect goes on, in a line."""
    out = values.copy()
    known = np.isfinite(values[:, 0])
    for side in (known.argmax() - 1, len(a) - known[::-1].argmax()):
        step, stop = (-1, -1) if side < known.argmax() else (1, len(a))
        for j in range(side, stop, step):
            out[j] = 2 * out[j - step] - out[j - 2 * step]
            out[j, 0] = min(out[j, 0], out[j - step, 0] - 3.0)
            out[j, 2] = out[j - step, 2]
    return out


def _interpolate(
    values: FloatArray, a: FloatArray, shifts: FloatArray, fine_a: FloatArray, fine_s: FloatArray
) -> FloatArray:
    """Cubic splines along a, and along the shift the parabola through its three values."""
    from scipy.interpolate import make_interp_spline

    along = make_interp_spline(a, values, k=3 if len(a) > 3 else 1)(fine_a)
    if len(shifts) == 1:
        return np.asarray(along)
    parabola = np.vander(fine_s, 3) @ np.linalg.inv(np.vander(shifts, 3))
    return np.einsum("sk,akv->asv", parabola, along)


def curve_points(grid: Grid) -> list[tuple[float, float, float, float, float]]:
    """Strengths that are alike in both arms: beta, signed share rho |rho|, average effect, its sd, log evidence."""
    middle = grid.evidence.shape[2] // 2
    rows = []
    for i, beta in enumerate(grid.betas):
        for j, a in enumerate(grid.places):
            if np.isfinite(grid.evidence[i, j, middle]):
                rho = float(np.tanh(a))
                ate, sd = (float(v) for v in grid.computed[i, j, middle])
                rows.append((float(beta), rho * abs(rho), ate, sd, float(grid.evidence[i, j, middle])))
    return rows


def choose(grid: Grid, m: int) -> list[tuple[Link, float]]:
    """The strengths at the (i + 1/2) / m quantiles of the average effect, with that effect."""
    order = np.argsort(grid.ate, kind="stable")
    reached = np.cumsum(grid.weight[order])
    rows = order[np.minimum(np.searchsorted(reached, (np.arange(m) + 0.5) / m), len(order) - 1)]
    return [(Link(float(grid.beta[i]), (float(grid.rho0[i]), float(grid.rho1[i]))), float(grid.ate[i])) for i in rows]


def draw_parameters(mode: Mode, rng: np.random.Generator) -> FloatArray:
    """One draw from the Laplace approximation."""
    chol = np.linalg.cholesky(mode.hessian)
    return np.asarray(mode.z + np.linalg.solve(chol.T, rng.standard_normal(len(mode.z))))


def draw_confounder(design: Design, z: FloatArray, link: Link, uniform: FloatArray) -> FloatArray:
    """Draws of U given X, T and Y at the quantiles ``uniform`` (n,) of its exact posterior on a grid, shape (n,)."""
    if link.beta == 0 and link.rho == (0.0, 0.0):
        from scipy.special import ndtri

        return np.asarray(ndtri(uniform))
    out = np.empty(len(design.t))
    f = predictors(design, z)
    for rows in np.array_split(np.arange(len(out)), max(1, len(out) // 4096)):
        there = (f[0][rows], f[1][rows], f[2][rows])
        log_p = log_joint(U_GRID, design.t[rows], design.y[rows], there, link, design.kinds)
        out[rows] = _inverse_cdf(log_p, uniform[rows])
    return out


def _inverse_cdf(log_p: FloatArray, uniform: FloatArray) -> FloatArray:
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    middle = 0.5 * (p[:, 1:] + p[:, :-1])
    reached = np.concatenate([np.zeros((len(p), 1)), np.cumsum(middle, axis=1)], axis=1)
    reached /= reached[:, -1:]
    j = np.clip((reached <= uniform[:, None]).sum(axis=1) - 1, 0, len(U_GRID) - 2)
    rows = np.arange(len(p))
    low, high = reached[rows, j], reached[rows, j + 1]
    part = np.where(high > low, (uniform - low) / np.maximum(high - low, 1e-300), 0.5)
    return np.asarray(U_GRID[j] + part * (U_GRID[j + 1] - U_GRID[j]))
