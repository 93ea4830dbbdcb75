"""Posterior of the strength of confounding on a grid, the strengths that the imputations stand for, draws of L."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.estimators.vluci.fit import NO_LINK, Design, Mode, fit_mode, fitted_share, predictors
from causalsat.estimators.vluci.laws import SHAPE_STARTS, SHARE_STARTS, Laws
from causalsat.estimators.vluci.likelihood import Link, log_joint
from causalsat.exceptions import DataError

__all__ = [
    "Grid",
    "LawKind",
    "Peak",
    "Prior",
    "choose",
    "curve_points",
    "draw_confounder",
    "draw_parameters",
    "evaluate_grid",
    "find_peak",
    "law_kinds",
    "no_grid",
]

IntArray = NDArray[np.int64]

RATIOS = (0.5, 1.0, 2.0)  # of L's link to X's own, times the prior scale
MAX_BETA = 4.0
BETA_FADE = 0.35  # of the log link beyond MAX_BETA, sd with which its prior falls off
MAX_PLACE = 3.0  # of atanh(rho)
MAX_EVALUATIONS = 60
BETA_WEIGHTS = (0.1, 0.3, 0.6)
SIZES = np.array([-1.0, 0.0, 1.0])  # log2 of the ratios
TIES = np.array([0.0, 1e-6, 2e-6])  # where links are equal, as they are at most MAX_BETA
REACH = 1.9  # of atanh(rho): the confounder explains at most 91 % of the residual variance
SHIFTS = (-0.4, 0.0, 0.4)  # between the arms, in atanh(rho), treated minus control halved
SHIFT_SD = 0.3
FINE = 5, 61, 13  # of the log link, atanh(rho), shift
U_GRID = np.linspace(-5.5, 5.5, 221)
MAX_FALL = 15.0  # natural logarithms below the best
TAIL = 0.05
REGION_FALL = (
    3.126  # half the 90 % quantile of chi-squared of 3 degrees: fall of the evidence within the joint region
)
SPREAD_FALL = 10.0  # of the evidence, beyond which imputations stand for no strength
MAX_TILT = 50.0
YES_NO = 0.3  # prior probability that a confounder is yes or no, and not normal
SHARES_APART = 1.0  # logits, beyond which two shares of yes are two peaks of the likelihood
LAW_SKIP = 6.0  # below the highest of other laws, at which arms that differ are not searched
MIN_LAW = 0.01  # posterior probability of laws that are not ruled out
LAW_FALL = 3.0  # below the highest evidence, of laws that are not ruled out either
BY_ARM = 0.1  # prior probability that noise has a law of its own in each arm
MAX_FITTED = 0.95  # of the units' freedom, where columns of the outcome leave something to see of a confounder
MIN_UNITS = 100  # for noise whose shape is learned
TEMPER = 0.3  # power of the likelihood in the spread, for which 90 % intervals cover in small simulated studies

NARROW = 8.0  # fall of the log evidence over a step of the grid, beyond which it is refined
FLAT = 3.0  # fall over a step at which a parabola is trusted
MAX_ROUNDS = 4
PEAK_REACH, PLACES = 3.6, 13  # of the normal approximation, in sds, and points along each axis
PAIRS = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class Prior:
    """Prior of confounding: its probability, the scale of L's link relative to X's, whether the data are asked.

    ``flexible`` noise need not be normal, and ``yes_no`` is the probability that a confounder is yes or no.
    """

    probability: float
    link_scale: float
    use_evidence: bool = True
    flexible: bool = True
    yes_no: float = YES_NO


@dataclass(frozen=True)
class LawKind:
    """Kinds of the laws: noise "normal", "alike" in the arms or "by arm", confounder "normal" or "yes/no"."""

    noise: str
    confounder: str
    log_prior: float


@dataclass(frozen=True, eq=False)
class Grid:
    """Posterior weights of strengths, under each of the laws of noise and confounder.

    Attributes
    ----------
    beta, rho0, rho1, ate, ate_sd, evidence : ndarray of shape (k,)
        Strengths (0 is none, the first), the average effect there and its sd, log evidence against no confounding.
    weight, spread : ndarray of shape (k,)
        Posterior weights, and the wider ones of the strengths that the imputations stand for; of one mean effect.
    table : ndarray of shape (3, r, s)
        Log evidence where it was computed, under the likeliest laws: by beta, atanh(rho), shift; NaN elsewhere.
    computed : ndarray of shape (3, r, s, 2)
        Average effect and its sd there.
    betas, places : ndarray of shape (3,), (r,)
        Values of beta and of atanh(rho).
    laws : ndarray of int of shape (k,)
        Position of each strength's laws in ``kinds``.
    kinds : tuple of LawKind
        The laws.
    below : ndarray of shape (k,)
        Log evidence less the highest under the same laws; -inf under laws that are unlikely given the data.
    """

    beta: FloatArray
    rho0: FloatArray
    rho1: FloatArray
    ate: FloatArray
    ate_sd: FloatArray
    evidence: FloatArray
    weight: FloatArray
    spread: FloatArray
    table: FloatArray
    computed: FloatArray
    betas: FloatArray
    places: FloatArray
    laws: IntArray | None = None
    kinds: tuple[LawKind, ...] = ()
    below: FloatArray | None = None

    @property
    def none(self) -> NDArray[np.bool_]:
        """Which strengths are no confounding, shape (k,)."""
        return self.beta == 0

    @property
    def probability(self) -> float:
        """Posterior probability of confounding."""
        return float(self.weight[~self.none].sum())

    @property
    def none_ate(self) -> float:
        """Average effect without confounding."""
        weight = np.where(self.none, np.maximum(self.weight, 1e-300), 0.0)
        return float(weight @ self.ate / weight.sum())

    def share_of(self, **laws: str) -> float:
        """Posterior probability of a law, ``noise=`` or ``confounder=``; of the latter given that there is one."""
        among = ~self.none if "confounder" in laws else np.ones(len(self.weight), dtype=bool)
        total = float(self.weight[among].sum())
        return float(self.weight[among & self.under(**laws)].sum()) / total if total > 0 else float("nan")

    def under(self, **laws: str) -> NDArray[np.bool_]:
        """Which strengths are under a law, ``noise=`` or ``confounder=``, shape (k,)."""
        assert self.laws is not None
        kinds = [all(getattr(kind, name) == value for name, value in laws.items()) for kind in self.kinds]
        return np.array(kinds, dtype=bool)[self.laws]


@dataclass(frozen=True, eq=False)
class _Strengths:
    """Strengths other than none: coordinates (k, 3), log prior weight, log evidence, average effect and its sd."""

    where: FloatArray
    log_prior: FloatArray
    evidence: FloatArray
    ate: FloatArray
    sd: FloatArray


@dataclass(frozen=True, eq=False)
class _Axes:
    """Strengths at which the evidence is computed: beta (3,), atanh(rho) (r,), shift between the arms (s,)."""

    betas: FloatArray
    places: FloatArray
    shifts: FloatArray


@dataclass(frozen=True, eq=False)
class _Surface:
    """Evidence under one kind of laws: table (3, r, s, 3) of evidence, effect and sd, and the mode at its top.

    ``begin`` is the mode without confounding, with the laws at the top; ``starts`` are the shares of yes (1,), or
    nothing (0,) of a normal confounder, from which a search goes out.
    """

    kind: LawKind
    begin: Mode
    table: FloatArray
    top: Mode
    starts: tuple[FloatArray, ...]

    @property
    def highest(self) -> float:
        """Largest log evidence, with the log prior of the laws."""
        return float(np.nanmax(self.table[..., 0], initial=-np.inf)) + self.kind.log_prior


def evaluate_grid(design: Design, prior: Prior, n_grid: int) -> tuple[Grid, list[Mode]]:
    """Evidence and average effect over strengths; prior: rho^2 Beta(1, 1/2), arms alike but for a normal shift.

    Returns
    -------
    grid : Grid
        Posterior of the strengths and laws.
    begins : list of Mode
        For each of the grid's kinds of laws, the mode without confounding from which a search starts.
    """
    begins = without_confounding(design, flexible=prior.flexible)
    kinds = law_kinds(begins, design, prior)
    none = begins[kinds[0].noise]
    places = np.linspace(-REACH, REACH, n_grid)
    shifts = np.array(SHIFTS) if design.kinds[0] else np.zeros(1)
    axes = _Axes(_betas(design, none, prior.link_scale), places, shifts)
    middle, outer = [len(shifts) // 2], [k for k in range(len(shifts)) if k != len(shifts) // 2]
    surfaces = [_search(design, kind, begins[kind.noise], none, axes, middle) for kind in kinds]
    if (np.isfinite(surfaces[0].table[..., 0]).sum(axis=1)[:, middle[0]] < 2).any():
        raise _too_many_columns()
    best = max(surface.highest for surface in surfaces)
    strengths: list[_Strengths | None] = []
    for f, surface in enumerate(surfaces):
        usable = (np.isfinite(surface.table[:, :, middle[0], 0]).sum(axis=1) >= 2).all()
        if not usable or surface.highest < best - LAW_SKIP:
            strengths.append(None)
            continue
        surfaces[f] = surface = _search(design, surface.kind, begins[surface.kind.noise], none, axes, outer, surface)
        strengths.append(_peaked(design, surface, axes, none) or _refine(surface.table, axes))
    grid = _weigh(strengths, surfaces, axes, begins, prior)
    return grid, [surface.begin for surface in surfaces]


def law_kinds(begins: dict[str, Mode], design: Design, prior: Prior) -> tuple[LawKind, ...]:
    """Kinds of laws that are averaged over, the likeliest before the data first.

    A yes/no confounder goes with noise that is alike in the arms: with a law of its own in each of them, shapes would
    say nothing of it.
    """
    alike = next(noise for noise in begins if noise != "by arm")
    kinds = [(alike, "normal", 1.0)]
    if design.kinds == (True, False) and prior.use_evidence:
        kinds = [(alike, "normal", 1 - prior.yes_no), (alike, "yes/no", prior.yes_no)]
    if "by arm" in begins:
        kinds = [(noise, name, (1 - BY_ARM) * share) for noise, name, share in kinds]
        kinds.append(("by arm", "yes/no" if prior.yes_no == 1 else "normal", BY_ARM))
    return tuple(LawKind(noise, name, float(np.log(share))) for noise, name, share in kinds if share > 0)


def _search(
    design: Design,
    kind: LawKind,
    without: Mode,
    none: Mode,
    axes: _Axes,
    columns: list[int],
    known: _Surface | None = None,
) -> _Surface:
    """Evidence along rho, from none outwards, at each beta and at some of the shifts.

    Of a yes/no confounder that is the highest of the searches that begin with different shares of yes, and after the
    first search of those that begin with the shares at its peaks.
    """
    table = np.full((len(axes.betas), len(axes.places), len(axes.shifts), 3), np.nan)
    starts = tuple(np.array([v]) for v in SHARE_STARTS) if kind.confounder == "yes/no" else (np.empty(0),)
    surface = known or _Surface(kind, without, table, without, starts)
    best = -np.inf if known is None else known.top.evidence - none.evidence
    peaks: list[Mode] = []
    for share in surface.starts:
        begin = replace(without, laws=Laws(without.laws.noise, share))
        table, top = _search_from(design, begin, none, axes, columns)
        higher = ~(surface.table[..., 0] >= table[..., 0]) & np.isfinite(table[..., 0])
        surface = replace(surface, table=np.where(higher[..., None], table, surface.table))
        if top is not None:
            peaks.append(top)
            if top.evidence - none.evidence > best:
                best = top.evidence - none.evidence
                surface = replace(surface, begin=replace(begin, laws=top.laws), top=top)
    return replace(surface, starts=_distinct_shares(peaks, none.evidence)) if peaks and known is None else surface


def _distinct_shares(peaks: list[Mode], none: float) -> tuple[FloatArray, ...]:
    """Shares of yes at the peaks of searches, the highest first, without those that are lower or the same peak.

    One where the evidence is hardly above that of no confounding: it says nothing of the share there.
    """
    ordered = sorted(peaks, key=lambda mode: -mode.evidence)
    highest = ordered[0]
    kept = [highest.laws.share]
    if len(kept[0]) and highest.evidence > none + LAW_FALL:
        for mode in ordered[1:]:
            apart = min(float(np.abs(mode.laws.share - other).max()) for other in kept)
            if apart > SHARES_APART and mode.evidence > highest.evidence - LAW_FALL:
                kept.append(mode.laws.share)
    return tuple(kept)


def _search_from(
    design: Design, begin: Mode, none: Mode, axes: _Axes, columns: list[int]
) -> tuple[FloatArray, Mode | None]:
    """Table of evidence, effect and sd (3, r, s, 3), NaN where the search did not go, and the mode at its top."""
    a = axes.places
    table = np.full((len(axes.betas), len(a), len(axes.shifts), 3), np.nan)
    top, best = None, -np.inf
    for i, beta in enumerate(axes.betas):
        for k in columns:
            for side in (1, -1):
                mode, peak = begin, begin.evidence - none.evidence
                for j in sorted(np.flatnonzero(a * side > 0 if side > 0 else a <= 0), key=lambda j: float(abs(a[j]))):
                    mode = fit_mode(design, _link(beta, a[j], axes.shifts[k]), mode)
                    gain = mode.evidence - none.evidence
                    if not np.isfinite([gain, mode.ate, mode.ate_sd]).all():
                        break
                    table[i, j, k] = gain, mode.ate, mode.ate_sd
                    top, best, peak = mode if gain > best else top, max(best, gain), max(peak, gain)
                    if gain < peak - MAX_FALL:
                        break
    return table, top


def _peaked(design: Design, surface: _Surface, axes: _Axes, none: Mode) -> _Strengths | None:
    """Strengths around the highest point, where the evidence falls from it too steeply for the grid.

    The lumps that a yes/no confounder leaves pin down its strength between the places of the grid, so that its
    highest point is searched for first, from the highest place at each shift.
    """
    betas, a, shifts = axes.betas, axes.places, axes.shifts
    if len(shifts) == 1:
        return None
    evidence = surface.table[..., 0]
    i, j, k = np.unravel_index(np.nanargmax(evidence), evidence.shape)
    lumps = surface.kind.confounder == "yes/no"
    beside = [evidence[m, j, k] for m in (i - 1, i + 1) if 0 <= m < 3]
    beside += [evidence[i, m, k] for m in (j - 1, j + 1) if 0 <= m < len(a)]
    if evidence[i, j, k] < NARROW or (not lumps and evidence[i, j, k] - np.nanmax(beside) < NARROW / 2):
        return None

    def density(x: FloatArray) -> FloatArray:
        size = np.interp(x[:, 0], np.log(betas) + TIES, SIZES)
        width = max(float(np.log(betas[2] / betas[0])) / 2, 0.1)
        beyond = np.maximum(x[:, 0] - np.log(MAX_BETA), 0.0) / BETA_FADE
        return _log_density(np.column_stack([size, x[:, 1:]])) - np.log(width) - 0.5 * beyond**2

    top = [surface.top]

    def compute(x: FloatArray) -> tuple[float, float, float]:
        mode = fit_mode(design, _link(np.exp(x[0]), x[1], x[2]), top[0], rounds=3)
        return mode.evidence - none.evidence + float(density(x[None])[0]), mode.ate, mode.ate_sd

    centre = np.array([np.log(betas[i]), a[j], shifts[k]])
    step = np.array([np.log(2.0), a[1] - a[0], shifts[1] - shifts[0]])
    if lumps:
        places = [centre]
        for m in range(len(shifts)):
            if m != k and np.nanmax(evidence[:, :, m], initial=-np.inf) > evidence[i, j, k] - MAX_FALL:
                p, q = np.unravel_index(np.nanargmax(evidence[:, :, m]), evidence.shape[:2])
                places.append(np.array([np.log(betas[p]), a[q], shifts[m]]))
        tops = [_highest(lambda x: compute(x)[0], place, 0.5 * step) for place in places]
        centre, step = max(tops, key=lambda x: compute(x)[0]), 0.3 * step
        top[0] = fit_mode(design, _link(np.exp(centre[0]), centre[1], centre[2]), surface.top, rounds=6)
    peak = find_peak(compute, centre, step)
    if peak is None:
        return None
    prior = density(peak.places)
    return _Strengths(peak.places, prior + peak.log_volume, peak.evidence - prior, peak.ate, peak.sd)


def _highest(height: Callable[[FloatArray], float], centre: FloatArray, step: FloatArray) -> FloatArray:
    """The highest point near a centre (3,), by a simplex of that size."""
    from scipy.optimize import minimize

    def depth(x: FloatArray) -> float:
        value = height(x) if np.abs(x[1]) < MAX_PLACE else -np.inf
        return -value if np.isfinite(value) else 1e10

    simplex = np.vstack([centre, centre + np.diag(step)])
    options = {"initial_simplex": simplex, "maxfev": MAX_EVALUATIONS, "xatol": 0.02, "fatol": 0.05}
    return np.asarray(minimize(depth, centre, method="Nelder-Mead", options=options).x)


def _log_density(x: FloatArray) -> FloatArray:
    """Log prior density at (k, 3): log2 of the ratio of the link to the prior's scale, atanh(rho), shift."""
    weights = np.interp(x[:, 0], SIZES, BETA_WEIGHTS)
    shares = 0.5 * np.abs(np.tanh(x[:, 1])) / np.cosh(x[:, 1])  # of a, where rho^2 is Beta(1, 1/2)
    normal = np.exp(-0.5 * (x[:, 2] / SHIFT_SD) ** 2) / (SHIFT_SD * np.sqrt(2 * np.pi))
    return np.asarray(np.log(np.maximum(weights * shares * normal, 1e-300)))


def without_confounding(design: Design, *, flexible: bool) -> dict[str, Mode]:
    """Modes without confounding by the law of the noise: normal, or learned, alike in the arms and by arm.

    Of learned laws that is the best of those from several starts.
    """
    normal = fit_mode(design, NO_LINK, rounds=10)
    if not design.kinds[1] and fitted_share(design, normal) > MAX_FITTED:
        raise _too_many_columns()
    if not flexible or design.kinds != (True, False) or len(design.t) < MIN_UNITS:
        return {"normal": normal}
    alike = _likeliest(design, normal, [np.array([shape]) for shape in SHAPE_STARTS], rounds=8)
    negative, positive = SHAPE_STARTS[1], SHAPE_STARTS[0]  # skewness
    pairs = [np.repeat(alike.laws.noise, 2, axis=0), np.array([negative, positive]), np.array([positive, negative])]
    return {"alike": alike, "by arm": _likeliest(design, normal, pairs, rounds=8)}


def _likeliest(design: Design, near: Mode, noises: list[FloatArray], rounds: int) -> Mode:
    modes = [fit_mode(design, NO_LINK, replace(near, laws=Laws(noise)), rounds) for noise in noises]
    return max(modes, key=lambda mode: mode.evidence)


def _too_many_columns() -> DataError:
    return DataError(
        "an evidence of confounding that cannot be computed: the covariates fit the outcome almost perfectly",
        expected="many more units than covariates",
        todo="take fewer covariates (principal components), or prior_confounding=0",
    )


def _betas(design: Design, none: Mode, scale: float) -> FloatArray:
    """Lengths of L's link at the prior's ratios to that of X, which L itself weakens: solved for both at once."""
    f_t = predictors(design, none.z)[0]
    middle = np.average(f_t, weights=design.weight)
    seen = np.average((f_t - middle) ** 2, weights=design.weight)
    noise = 3.0 / np.pi**2 if design.kinds[0] else 1.0
    square = (scale * np.array(RATIOS)) ** 2 * seen
    return np.sqrt(square / np.maximum(1 - noise * square, square / MAX_BETA**2))


def no_grid() -> Grid:
    """Grid of no confounding, where it has been ruled out."""
    zero, one, none = np.zeros(1), np.ones(1), np.empty((3, 0, 1))
    empty = none, np.empty((3, 0, 1, 2)), np.zeros(3), np.empty(0)
    return Grid(zero, zero, zero, zero, zero, zero, one, one, *empty)


def _link(beta: float, a: float, shift: float) -> Link:
    return Link(float(beta), (float(np.tanh(a - shift)), float(np.tanh(a + shift))))


def _weigh(
    strengths: list[_Strengths | None],
    surfaces: list[_Surface],
    axes: _Axes,
    begins: dict[str, Mode],
    prior: Prior,
) -> Grid:
    """Posterior over no confounding and the strengths, under all laws."""
    kinds = tuple(surface.kind for surface in surfaces)
    none = begins[kinds[0].noise]
    spike, slab = np.log(max(1 - prior.probability, 1e-300)), np.log(max(prior.probability, 1e-300))
    parts = []
    for noise, mode in begins.items():  # no confounding, under the laws of noise
        own = [f for f, kind in enumerate(kinds) if kind.noise == noise]
        law = float(np.logaddexp.reduce([kinds[f].log_prior for f in own]))
        row = [0.0, 0.0, 0.0, mode.ate, mode.ate_sd, mode.evidence - none.evidence, spike + law, law, own[0]]
        parts.append(np.array([row]))
    for f, part in enumerate(strengths):
        if part is not None:
            x = part.where
            log_prior = part.log_prior + kinds[f].log_prior
            columns = [np.exp(x[:, 0]), np.tanh(x[:, 1] - x[:, 2]), np.tanh(x[:, 1] + x[:, 2]), part.ate]
            columns += [np.maximum(part.sd, 1e-9), part.evidence, slab + log_prior, log_prior, np.full(len(x), f)]
            parts.append(np.column_stack(columns))
    beta, rho0, rho1, ate, sd, evidence, log_prior, log_free, laws = np.concatenate(parts).T
    below = _below_highest(evidence, log_free, beta, laws, kinds)
    if not prior.use_evidence:
        weight = spread = _normalised(log_prior)
    else:
        weight = _normalised(log_prior + evidence)
        consistent = ate[below >= -REGION_FALL]
        ends = float(consistent.min()), float(consistent.max())
        near = (beta > 0) & (below >= -SPREAD_FALL)
        tempered = _tempered(evidence, log_free, near if near.any() else beta > 0, laws)
        spread = _tilted(tempered, ate, float(weight @ ate), ends)
    keep = (weight > 1e-7) | (spread > 1e-7) | (evidence > evidence.max() - MAX_FALL) | (beta == 0)
    weight, spread = (v[keep] / v[keep].sum() for v in (weight, spread))
    beta, rho0, rho1, ate, sd, evidence, below = (v[keep] for v in (beta, rho0, rho1, ate, sd, evidence, below))
    best = max(surfaces, key=lambda surface: surface.highest).table
    own = laws[keep].astype(np.int64)
    table = best[..., 0], best[..., 1:]
    return Grid(
        beta, rho0, rho1, ate, sd, evidence, weight, spread, *table, axes.betas, axes.places, own, kinds, below
    )


def _tempered(evidence: FloatArray, log_free: FloatArray, among: NDArray[np.bool_], laws: FloatArray) -> FloatArray:
    """Weights of some strengths by the likelihood to the power of TEMPER within laws, whose weights are their own."""
    out = np.full(len(evidence), -np.inf)
    for kind in np.unique(laws[among]):
        own = (laws == kind) & among
        total = float(np.logaddexp.reduce((log_free + evidence)[own]))
        out[own] = np.log(_normalised((log_free + TEMPER * evidence)[own]) + 1e-300) + total
    return _normalised(out)


def _below_highest(
    evidence: FloatArray, log_free: FloatArray, beta: FloatArray, laws: FloatArray, kinds: tuple[LawKind, ...]
) -> FloatArray:
    """Evidence less the highest under the same laws, or without confounding; -inf under laws that are ruled out.

    Laws are ruled out where they are unlikely given the data (at even odds of confounding, whose prior has no part in
    this) and fit worse at their best, too.
    """
    out = np.full(len(evidence), -np.inf)
    law_weight = np.bincount(laws.astype(np.int64), _normalised(log_free + evidence), len(kinds))
    for f, kind in enumerate(kinds):
        own = laws == f
        if own.any() and (law_weight[f] >= MIN_LAW or evidence[own].max() >= evidence.max() - LAW_FALL):
            none = (beta == 0) & np.array([kinds[int(k)].noise == kind.noise for k in laws])
            out[own] = evidence[own] - max(evidence[own].max(), evidence[none].max())
    return out


def _normalised(log_weight: FloatArray) -> FloatArray:
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def _tilted(weight: FloatArray, ate: FloatArray, mean: float, ends: tuple[float, float]) -> FloatArray:
    """The weights nearest to ``weight`` in Kullback-Leibler divergence under which the mean effect is ``mean``.

    At least TAIL of them lies beyond each of the ``ends``, where there are strengths beyond.
    """
    scale = float(np.sqrt(weight @ (ate - float(weight @ ate)) ** 2))
    if scale <= 1e-9 * (1 + abs(mean)):
        return weight
    u = (ate - mean) / scale
    zones = [ate < ends[0], (ate >= ends[0]) & (ate <= ends[1]), ate > ends[1]]
    free = _with_mean(weight, u, [np.ones(len(u), dtype=bool)], [1.0])
    tails = [max(TAIL, float(free[z].sum())) if weight[z].sum() > 1e-12 else 0.0 for z in (zones[0], zones[2])]
    masses = [tails[0], 1 - sum(tails), tails[1]]
    return _with_mean(weight, u, zones, masses)


def _with_mean(weight: FloatArray, u: FloatArray, zones: list[Any], masses: list[float]) -> FloatArray:
    """Weights that sum to ``masses`` in the zones, log-linear in u from ``weight`` within each, with mean u of 0."""
    from scipy.optimize import brentq

    log_weight = np.log(np.maximum(weight, 1e-300))

    def tilt(slope: float) -> FloatArray:
        out = np.zeros(len(u))
        for zone, mass in zip(zones, masses, strict=True):
            if mass > 0:
                log_w = (log_weight + slope * u)[zone]
                w = np.exp(log_w - log_w.max())
                out[zone] = mass * w / w.sum()
        return out

    ends = [float(tilt(slope) @ u) for slope in (-MAX_TILT, MAX_TILT)]
    if ends[0] >= 0 or ends[1] <= 0:
        return tilt(-MAX_TILT if ends[0] >= 0 else MAX_TILT)
    return tilt(float(brentq(lambda slope: float(tilt(slope) @ u), -MAX_TILT, MAX_TILT)))


def _refine(table: FloatArray, axes: _Axes) -> _Strengths:
    """Evidence, average effect and its sd between the strengths at which they were computed."""
    betas, a, shifts = axes.betas, axes.places, axes.shifts
    fine_b, fine_a = np.linspace(-1, 1, FINE[0]), np.linspace(-REACH, REACH, FINE[1])
    fine_s = np.linspace(SHIFTS[0], SHIFTS[-1], FINE[2]) if len(shifts) > 1 else np.zeros(1)
    filled = np.array([[_fill(table[i, :, k], a) for k in range(len(shifts))] for i in range(3)])
    along = np.array([_interpolate(filled[i].transpose(1, 0, 2), a, shifts, fine_a, fine_s) for i in range(3)])
    between = np.maximum(1 - np.abs(fine_b[:, None] - SIZES), 0.0)  # linear: no peaks made up
    fine = np.einsum("bi,iasv->basv", between, along)
    x = np.stack(np.meshgrid(fine_b, fine_a, fine_s, indexing="ij"), axis=-1).reshape(-1, 3)
    log_prior = _log_density(x)
    log_prior -= np.logaddexp.reduce(log_prior)
    evidence, ate, sd = (fine[..., k].ravel() for k in range(3))
    where = np.column_stack([np.interp(x[:, 0], SIZES, np.log(betas)), x[:, 1:]])
    return _Strengths(where, log_prior, evidence, ate, sd)


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
    middle = grid.table.shape[2] // 2
    rows = []
    for i, beta in enumerate(grid.betas):
        for j, a in enumerate(grid.places):
            if np.isfinite(grid.table[i, j, middle]):
                rho = float(np.tanh(a))
                ate, sd = (float(v) for v in grid.computed[i, j, middle])
                rows.append((float(beta), rho * abs(rho), ate, sd, float(grid.table[i, j, middle])))
    return rows


def choose(grid: Grid, m: int) -> list[tuple[Link, float, int]]:
    """A strength for each of m parts of equal weight, by the average effect: the weightiest near the part's mean.

    With its average effect and the position of its laws.
    """
    order = np.argsort(grid.ate, kind="stable")
    ate, spread = grid.ate[order], grid.spread[order]
    reached = np.r_[0.0, np.cumsum(spread)]
    variance = float(spread @ (ate - float(spread @ ate)) ** 2)
    width = 0.02 * float(np.sqrt(max(variance, 1e-300)))
    chosen = []
    for i in range(m):
        share = np.maximum(np.minimum(reached[1:], (i + 1) / m) - np.maximum(reached[:-1], i / m), 0.0)
        middle = float(share @ ate / share.sum())
        score = np.log(np.maximum(spread, 1e-300)) - 0.5 * ((ate - middle) / width) ** 2
        chosen.append(order[np.where(share > 0, score, -np.inf).argmax()])
    assert grid.laws is not None
    links = [Link(float(grid.beta[i]), (float(grid.rho0[i]), float(grid.rho1[i]))) for i in chosen]
    return [(link, float(grid.ate[i]), int(grid.laws[i])) for link, i in zip(links, chosen, strict=True)]


def draw_parameters(mode: Mode, noise: FloatArray) -> FloatArray:
    """The draw from the Laplace approximation for standard normal ``noise``."""
    chol = np.linalg.cholesky(mode.hessian)
    return np.asarray(mode.z + np.linalg.solve(chol.T, noise))


def draw_confounder(design: Design, z: FloatArray, link: Link, uniform: FloatArray) -> FloatArray:
    """Draws of U given X, T and Y at the quantiles ``uniform`` (n,) of its exact posterior on a grid, shape (n,).

    Where U has several components, the uniform number chooses one, and what it is within that one's share chooses the
    value there.
    """
    from scipy.special import ndtri

    f = predictors(design, z)
    out = np.empty(len(design.t))
    flat = link.beta == 0 and link.rho == (0.0, 0.0)
    for rows in np.array_split(np.arange(len(out)), max(1, len(out) // 4096)):
        there, t, y = (f[0][rows], f[1][rows], f[2][rows]), design.t[rows], design.y[rows]
        parts = [(place, width) for _, place, width in link.confounder]
        if flat:
            mass = np.tile([share for share, _, _ in link.confounder], (len(rows), 1))
        else:
            joint = [log_joint(U_GRID, t, y, there, link, design.kinds, part) for part in parts]
            highest = np.max(joint, axis=(0, 2))[:, None]
            mass = np.column_stack(
                [w[0] * np.exp(p - highest).sum(axis=1) for w, p in zip(link.confounder, joint, strict=True)]
            )
        reached = np.cumsum(mass, axis=1) / mass.sum(axis=1, keepdims=True)
        chosen = np.minimum((reached < uniform[rows, None]).sum(axis=1), len(parts) - 1)
        before = np.column_stack([np.zeros(len(rows)), reached])
        own = np.arange(len(rows))
        share = np.maximum(reached[own, chosen] - before[own, chosen], 1e-300)
        within = np.clip((uniform[rows] - before[own, chosen]) / share, 1e-12, 1 - 1e-12)
        for k, (place, width) in enumerate(parts):
            units = chosen == k
            if units.any():
                value = ndtri(within[units]) if flat else _inverse_cdf(joint[k][units], within[units])
                out[rows[units]] = place + width * value
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


# ---------------------------------------------------------------------- a peak that is narrower than the grid's cells
# With many units the likelihood of three strengths (log of the link, atanh of the share in the arms, halved
# difference) is all but normal, and the coarse grid steps over it. Evidence and average effect are then computed at a
# point, two more along each axis and three between, closer and closer, until the evidence falls by little enough to
# be a parabola.
@dataclass(frozen=True, eq=False)
class Peak:
    """Strengths (k, 3) at the peak: log link, atanh share, shift; evidence, average effect, its sd; log volume."""

    places: FloatArray
    evidence: FloatArray
    ate: FloatArray
    sd: FloatArray
    log_volume: float


def find_peak(
    compute: Callable[[FloatArray], tuple[float, float, float]], centre: FloatArray, step: FloatArray
) -> Peak | None:
    """The posterior near ``centre`` by quadratics, or None where the evidence has no peak there.

    Parameters
    ----------
    compute : callable
        Strength (3,) to log evidence, average effect and its sd.
    centre, step : ndarray of shape (3,)
        The highest point of the grid, and its steps.

    Examples
    --------
    >>> def hill(x): return (float(-50 * ((x - 0.3) ** 2).sum()), float(x.sum()), 0.1)
    >>> peak = find_peak(hill, np.zeros(3), np.ones(3))
    >>> best = peak.evidence.argmax()
    >>> peak.places[best].round(6).tolist(), float(peak.ate[best].round(6)), bool(abs(peak.evidence[best]) < 1e-9)
    ([0.3, 0.3, 0.3], 0.9, True)
    """
    centre, step = centre.copy(), 0.5 * step
    for _ in range(MAX_ROUNDS):
        points = _points()
        values = np.array([compute(centre + step * p) for p in points])
        level, slope, curve = _quadratic(points, values[:, 0])
        size, axes = np.linalg.eigh(curve)
        if size[-1] >= 0:  # a saddle: go on from the highest point seen, closer
            centre, step = centre + step * points[values[:, 0].argmax()], 0.5 * step
            continue
        move = np.clip(-np.linalg.solve(curve, slope), -2, 2)
        falls = -0.5 * np.diag(curve)
        if falls.max() <= FLAT and np.abs(move).max() <= 1:
            return _spread(centre, step, (level, slope, curve), values, points, (size, axes))
        centre = centre + step * move
        step = step * np.clip(np.sqrt(0.5 * FLAT / np.maximum(falls, 1e-9)), 0.2, 1.0)
    return None


def _points() -> FloatArray:
    crossed = [np.eye(3)[i] + np.eye(3)[j] for i, j in PAIRS]
    return np.array([np.zeros(3), *np.eye(3), *-np.eye(3), *crossed])


def _quadratic(points: FloatArray, values: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Level, gradient and second derivatives at the centre of the quadratic through ten values."""
    columns = [np.ones(len(points)), *points.T, *(0.5 * points.T**2)]
    columns += [points[:, i] * points[:, j] for i, j in PAIRS]
    b = np.linalg.solve(np.column_stack(columns), values)
    curve = np.diag(b[4:7])
    for (i, j), value in zip(PAIRS, b[7:], strict=True):
        curve[i, j] = curve[j, i] = value
    return float(b[0]), b[1:4], curve


def _spread(
    centre: FloatArray,
    step: FloatArray,
    fitted: tuple[float, FloatArray, FloatArray],
    values: FloatArray,
    points: FloatArray,
    principal: tuple[FloatArray, FloatArray],
) -> Peak:
    level, slope, curve = fitted
    size, axes = principal
    top = -np.linalg.solve(curve, slope)
    along = np.linspace(-PEAK_REACH, PEAK_REACH, PLACES)
    z = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    z = z[(z**2).sum(axis=1) <= PEAK_REACH**2]
    spread = axes / np.sqrt(-size)
    u = top + z @ spread.T
    evidence = level + 0.5 * float(slope @ top) - 0.5 * (z**2).sum(axis=1)
    ate0, ate1, ate2 = _quadratic(points, values[:, 1])
    ate = ate0 + u @ ate1 + 0.5 * np.einsum("ki,ij,kj->k", u, ate2, u)
    cell = float(np.log(along[1] - along[0])) * 3
    volume = cell + float(np.log(np.abs(np.linalg.det(spread)))) + float(np.log(step).sum())
    return Peak(centre + step * u, evidence, ate, np.full(len(u), values[:, 2].mean()), volume)
