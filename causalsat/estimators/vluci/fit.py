"""Fit of the likelihood at a given strength of confounding: Newton, learned scales, Laplace evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray
from causalsat.estimators.vluci.basis import PRODUCT
from causalsat.estimators.vluci.laws import Laws, improve, log_prior, volume
from causalsat.estimators.vluci.likelihood import Link, UnitTerms, unit_terms, unit_values

__all__ = ["NO_LINK", "Design", "Mode", "fit_mode", "fitted_share", "make_design", "predictors", "start"]

IntArray = NDArray[np.int64]

NO_LINK = Link(0.0, (0.0, 0.0))
FREE, N_SCALES = -1, 8  # scales: 0-2 of f_T (linear, smooth, products), 3-5 of f_Y, 6-7 of the effect; -1 is fixed
FREE_VARIANCE, LOG_SD_VARIANCE = 25.0, 4.0
MEASURED = 1e-3  # error with which a continuous outcome is known, in its sds: no fit to it is closer
TAILS = 0.5
MIN_VARIANCE = 1e-7
MIN_CURVATURE = 1e-13  # of the largest on the diagonal: a few hundred times the rounding
MAX_STEPS = 40


@dataclass(frozen=True, eq=False)
class Design:
    """Columns of f_T (n, p) and f_Y (n, q), of the effect (n, r), treatment, outcome, weights, groups of shrinkage.

    The outcome is standardised and a dose in units of its residual sd. The parameters are the coefficients of f_T, of
    f_Y (main effects, then the treatment times the effect's columns) and the log sd of the outcome by arm.
    """

    D_t: FloatArray
    D_y: FloatArray
    D_effect: FloatArray
    t: FloatArray
    y: FloatArray
    weight: FloatArray
    group: IntArray
    kinds: tuple[bool, bool]

    @property
    def arm(self) -> IntArray:
        """Arm of each unit's noise: 0 for all units of a dose."""
        return self.t.astype(np.int64) if self.kinds[0] else np.zeros(len(self.t), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Mode:
    """Posterior mode at one strength: parameters, minus Hessian with the prior and without, log evidence, scales.

    ``link`` is the strength with the ``laws`` learned there. ``ate`` is the average
    effect in the model's units.
    """

    link: Link
    z: FloatArray
    hessian: FloatArray
    information: FloatArray
    evidence: float
    variance: FloatArray
    scale: FloatArray
    laws: Laws
    ate: float
    ate_sd: float


def effect_columns(B: FloatArray, kinds: IntArray) -> FloatArray:
    """Columns on which the effect depends: a constant, linear and smooth ones."""
    return np.column_stack([np.ones(len(B)), B[:, kinds < PRODUCT]])


def make_design(
    B: FloatArray, kinds: IntArray, t: FloatArray, y: FloatArray, weight: FloatArray, binary: tuple[bool, bool]
) -> Design:
    """Lay out the columns and their groups of shrinkage."""
    one = np.ones((len(t), 1))
    H = effect_columns(B, kinds)
    group = np.concatenate([[FREE], kinds, [FREE], 3 + kinds, [FREE], 6 + kinds[kinds < PRODUCT]]).astype(np.int64)
    main = np.column_stack([one, B])
    return Design(main, np.column_stack([main, t[:, None] * H]), H, t, y, weight, group, binary)


def predictors(design: Design, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """f_T, f_Y and the log sd of the outcome for each unit."""
    p = design.D_t.shape[1]
    return design.D_t @ z[:p], design.D_y @ z[p:-2], z[-2:][design.arm]


def start(design: Design) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Parameters, prior variances of the coefficients, and squared scales of the groups to begin with."""
    variance = np.where(design.group == FREE, FREE_VARIANCE, 0.3**2)
    return np.zeros(len(design.group) + 2), variance, np.full(N_SCALES, 0.3**2)


def fit_mode(design: Design, link: Link, near: Mode | None = None, rounds: int = 2) -> Mode:
    """Mode and Laplace evidence at a strength of confounding, with scales learned there (EM), from a mode near by.

    The scales are learned at each strength anew: those learned without confounding would have taken up what it leaves
    in the means, and would speak for its absence.
    """
    if near is None:
        z, variance, scale = start(design)
        information, laws = _information(design, link, z), Laws()
    else:
        z, variance, scale, information, laws = near.z, near.variance, near.scale, near.information, near.laws
    link, slopes = laws.apply(link), np.empty((len(design.t), 0))
    for step in range(rounds):
        precision = _precision(variance)
        last = step == rounds - 1
        z, value, information = _newton(design, link, z, precision, information, tolerance=1e-3 if last else 0.05)
        if not last:
            variance, scale = _scales(design, z, information + np.diag(precision), variance, scale)
            if len(laws.vector):
                laws, slopes = improve(_by_laws(design, link, z), design.weight, laws)
                link = laws.apply(link)
    information = _information(design, link, z)
    hessian = _positive(information + np.diag(precision))
    chol = np.linalg.cholesky(hessian)
    evidence = value + 0.5 * float(np.log(precision).sum()) - float(np.log(np.diag(chol)).sum())
    evidence += _log_prior(design, variance, scale) + log_prior(laws) + volume(slopes, design.weight, laws.prior_sd)
    average = _average_weights(design)
    spread = np.linalg.solve(chol, average)
    ate, sd = float(average @ z), float(np.sqrt(spread @ spread))
    return Mode(link, z, hessian, information, evidence, variance, scale, laws, ate, sd)


def _by_laws(design: Design, link: Link, z: FloatArray) -> Callable[[Laws], FloatArray]:
    """Log-likelihood of each unit as a function of the laws of noise and confounder."""
    f = predictors(design, z)
    return lambda laws: unit_values(design.t, design.y, f, laws.apply(link))


def _positive(matrix: FloatArray) -> FloatArray:
    """The matrix, with eigenvalues below MIN_CURVATURE of the largest curvature raised to it."""
    least = MIN_CURVATURE * float(np.diag(matrix).max())
    try:
        np.linalg.cholesky(matrix - least * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        return np.asarray((vectors * np.maximum(values, least)) @ vectors.T)
    return matrix


def _inverse(matrix: FloatArray) -> FloatArray:
    """Inverse of a symmetric positive definite matrix, at half the cost of a general one."""
    from scipy.linalg.lapack import dpotrf, dpotri

    factor, failed = dpotrf(matrix, lower=True)
    if failed:
        factor, _ = dpotrf(_positive(matrix), lower=True)
    lower = np.tril(dpotri(factor, lower=True)[0])
    return np.asarray(lower + lower.T - np.diag(np.diag(lower)))


def fitted_share(design: Design, mode: Mode) -> float:
    """Share of the units' freedom that a continuous outcome's columns take up: 1 where they fit whatever it is."""
    p = design.D_t.shape[1]
    spread = _inverse(mode.hessian)[p:-2, p:-2]
    precision = design.weight * np.exp(-2 * mode.z[-2:])[design.arm]
    return float(np.mean(precision * ((design.D_y @ spread) * design.D_y).sum(axis=1)))


def _average_weights(design: Design) -> FloatArray:
    """Weights of the parameters in the average effect (of the logit, where the outcome is binary)."""
    out = np.zeros(len(design.group) + 2)
    out[-2 - design.D_effect.shape[1] : -2] = np.average(design.D_effect, axis=0, weights=design.weight)
    return out


def _precision(variance: FloatArray) -> FloatArray:
    return 1 / np.concatenate([variance, [LOG_SD_VARIANCE] * 2])


def _scales(
    design: Design, z: FloatArray, hessian: FloatArray, variance: FloatArray, scale: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Variance of each coefficient and squared scale of each group, by a step of EM.

    A coefficient is Student-t with TAILS degrees of freedom around 0: few are large and most are nothing, without
    which no shape would be left for a confounder. Its variance is scaled inverse chi-squared around its group's
    scale.
    """
    second = (z**2 + np.diag(_inverse(hessian)))[:-2]
    variance, scale = variance.copy(), scale.copy()
    for k in range(N_SCALES):
        own = design.group == k
        if own.any():
            scale[k] = max(float(1 / np.mean((TAILS + 1) / (TAILS * scale[k] + second[own]))), MIN_VARIANCE)
            variance[own] = (TAILS * scale[k] + second[own]) / (TAILS + 1)
    return variance, scale


def _log_prior(design: Design, variance: FloatArray, scale: FloatArray) -> float:
    """Log prior density of the log variances, given the scales of their groups, up to a constant."""
    own = design.group != FREE
    ratio = scale[design.group[own]] / variance[own]
    return float(0.5 * TAILS * (np.log(ratio) - ratio).sum())


def _newton(
    design: Design, link: Link, z: FloatArray, precision: FloatArray, information: FloatArray, tolerance: float
) -> tuple[FloatArray, float, FloatArray]:
    """Newton's method with the Hessian of the start, which is computed anew only where the steps fail to shrink."""
    value, gradient = _value(design, link, z, precision)
    factor = _inverse(information + np.diag(precision))
    gain = np.inf
    for _ in range(MAX_STEPS):
        step = factor @ gradient
        ahead = float(gradient @ step)
        if ahead < tolerance:
            break
        if ahead > 0.3 * gain:
            information = _information(design, link, z)
            factor = _inverse(information + np.diag(precision))
            step = factor @ gradient
            ahead = np.inf
        gain, size = ahead, 1.0
        while not (there := _value(design, link, z + size * step, precision))[0] >= value - 1e-9 and size > 1e-4:
            size /= 2
        if not np.isfinite(there[0]):
            break
        z, (value, gradient) = z + size * step, there
    return z, value, information


def _terms(design: Design, link: Link, z: FloatArray) -> UnitTerms:
    """Terms of each unit, the square of MEASURED added to each squared residual of a continuous outcome.

    Columns that fit an outcome exactly would else take its noise to zero, where all is decided by rounding.
    """
    f = predictors(design, z)
    terms = unit_terms(design.t, design.y, f, link, design.kinds)
    if design.kinds[1]:
        return terms
    share = MEASURED**2 * np.exp(-2 * f[2])
    first, second = terms.first.copy(), terms.second.copy()
    first[2] += share
    second[2, 2] -= 2 * share
    return UnitTerms(terms.value - 0.5 * share, first, second)


def _value(design: Design, link: Link, z: FloatArray, precision: FloatArray) -> tuple[float, FloatArray]:
    """Log posterior density and its gradient."""
    with np.errstate(over="ignore", invalid="ignore"):  # a step too far is refused by its value
        terms = _terms(design, link, z)
        first = design.weight * terms.first
        arms = np.bincount(design.arm, first[2], 2)
        gradient = np.concatenate([design.D_t.T @ first[0], design.D_y.T @ first[1], arms]) - precision * z
        return float(design.weight @ terms.value - 0.5 * (precision * z) @ z), gradient


def _information(design: Design, link: Link, z: FloatArray) -> FloatArray:
    """Minus the Hessian of the log-likelihood, made positive where the likelihood is not concave."""
    second = design.weight * _terms(design, link, z).second
    columns = (design.D_t, design.D_y, np.eye(2)[design.arm])
    ends = np.cumsum([0, *(c.shape[1] for c in columns)])
    out = np.empty((ends[-1], ends[-1]))
    for i in range(3):
        for j in range(i, 3):
            block = columns[i].T @ (second[i, j][:, None] * columns[j])
            out[ends[i] : ends[i + 1], ends[j] : ends[j + 1]] = -block
            out[ends[j] : ends[j + 1], ends[i] : ends[i + 1]] = -block.T
    least = max(1e-3, MIN_CURVATURE * float(np.abs(np.diag(out)).max()))
    try:
        np.linalg.cholesky(out + least * np.eye(len(out)))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(out)
        out = (vectors * np.maximum(values, least)) @ vectors.T
    return out
