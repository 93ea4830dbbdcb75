r"""What a linear effect leaves out: a process over the modifiers that is added to the draws.

The best linear projection is not the effect. With D = (1, z) the constant and the standardised modifiers,

``tau(x) = D(x) b + delta(x)``, ``delta(x) = f(z) - D(x) (D'WD)^-1 D'W f(Z)``, ``f ~ GP(0, s^2 k)``,

with k the squared exponential of length scale ``sqrt(number of modifiers)``, scaled so that delta has the standard
deviation s over the trial's units. delta is orthogonal to D over the trial, as what a projection leaves out is by
definition: the average effect and the coefficients of the trial are as they were. Away from the trial's places its
variance grows, and near-by places have it in common, so that a mean over a district does not average it away.

Only the size of delta is learned, not its shape: its mean stays 0 and predictions stay the projection's. With r the
residuals of the scores, averaged by cluster, ``M r ~ N(0, M (s^2 K + v W^-1) M)`` is their restricted likelihood (M
takes out D; Patterson and Thompson 1971), with v in each principal direction of K at least what is robust to unequal
noise, and s is half-Cauchy a priori with ``ratio`` times the standard deviation of the projected effects as its
median: a trial says little of small s, and nothing is left out where no effect varies. f is made of random features
(Rahimi and Recht 2007): draw k is one function of all places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ParameterError
from causalsat.inference.folds import content_order

__all__ = ["LackOfFit", "check_ratio", "lack_of_fit", "with_slopes"]

FloatArray = NDArray[np.float64]

_FREQUENCIES = 32
_SCALES = np.logspace(-2, 1.5, 50)  # s in units of its prior median
MAX_UNITS = 20_000  # rows at most from which s is learned


@dataclass(frozen=True, eq=False)
class LackOfFit:
    """Draws of what a projection leaves out.

    Attributes
    ----------
    frequency : ndarray of shape (k, m)
        Frequencies of the random features.
    weight : ndarray of shape (n_draws, 2 m)
        Weights of their cosines and sines; the mean over draws is 0.
    linear : ndarray of shape (n_draws, k + 1)
        Coefficients of what is taken out: the draws' own projection, less what a penalty may have taken from the fit.
    sd : float
        Posterior mean of the standard deviation over the trial's units.
    """

    frequency: FloatArray
    weight: FloatArray
    linear: FloatArray
    sd: float

    def draws(self, design: FloatArray, coef_draws: Any = None, factor: Any = None) -> FloatArray:
        """Values (n_draws, n) at places with this design (n, k + 1), added to ``coef_draws @ design.T``.

        ``factor``, of shape (n,), multiplies the places' values. The draws of a place lie side by side in memory, as
        quantiles over draws want them.
        """
        table = np.hstack([design, _waves(design[:, 1:], self.frequency)])
        if factor is not None:
            table *= np.asarray(factor)[:, None]
        linear = -self.linear if coef_draws is None else coef_draws - self.linear
        return np.asarray(table @ np.hstack([linear, self.weight]).T).T


def with_slopes(left: LackOfFit, slopes: FloatArray) -> LackOfFit:
    """The draws with linear functions of the modifiers added, given by slopes (n_draws, k)."""
    return replace(left, linear=left.linear - np.column_stack([np.zeros(len(slopes)), slopes]))


def check_ratio(ratio: Any) -> None:
    """Refuse a ratio that is no number from 0 on."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float | np.number) or not 0 <= float(ratio) < math.inf:
        raise ParameterError(f"lack_of_fit={ratio!r}", expected="a number from 0 (nothing is left out) on")


def lack_of_fit(
    scores: FloatArray,
    fitted: FloatArray,
    design: FloatArray,
    weight: FloatArray,
    groups: Any,
    *,
    effect_sd: float,
    ratio: float,
    n_draws: int,
    rng: np.random.Generator,
) -> LackOfFit | None:
    """Draws of what the fitted effects leave out of the scores; None where nothing can be.

    Parameters
    ----------
    scores, fitted : ndarray of shape (n,)
        Unbiased scores of the units' effects, and the effects that were fitted to them.
    design : ndarray of shape (n, k + 1)
        The constant and the standardised modifiers.
    weight : ndarray of shape (n,)
    groups : ndarray of int of shape (n,), optional
        Clusters.
    effect_sd : float
        Standard deviation of the fitted effects over the units, noise excluded.
    ratio : float
        Median of the prior of s, as a share of ``effect_sd``.
    n_draws : int
    rng : numpy.random.Generator

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal(2000)
    >>> design, scores = np.column_stack([np.ones(2000), x]), x + 0.4 * (x**2 - 1) + rng.standard_normal(2000)
    >>> left = lack_of_fit(scores, x, design, np.ones(2000), None, effect_sd=1, ratio=0.2, n_draws=500, rng=rng)
    >>> here, far = left.draws(np.array([[1.0, 0.0], [1.0, 3.0]])).std(axis=0)
    >>> bool(far > 2 * here)
    True
    """
    used = np.ptp(design[:, 1:], axis=0) > 0 if len(design) else np.zeros(0, dtype=bool)
    centre = ratio * effect_sd
    if not used.any() or not 0 < centre < math.inf:
        return None
    if len(design) > MAX_UNITS:
        order, _ = content_order((scores, fitted, *design[:, 1:].T))  # whatever the order of the rows
        rows = order[rng.choice(len(design), MAX_UNITS, replace=False)]
        groups = None if groups is None else np.unique(groups[rows], return_inverse=True)[1]
        scores, fitted, design, weight = scores[rows], fitted[rows], design[rows], weight[rows]
    frequency = rng.standard_normal((design.shape[1] - 1, _FREQUENCIES)) / math.sqrt(used.sum())
    waves, root = _waves(design[:, 1:], frequency), np.sqrt(weight)[:, None]
    own = np.linalg.lstsq(root * design, root * np.column_stack([waves, scores - fitted]), rcond=None)[0]
    left = np.column_stack([waves, scores - fitted]) - design @ own
    size = math.sqrt(float(np.average((left[:, :-1] ** 2).sum(axis=1), weights=weight)))
    if size < 1e-6:  # so few units that the design can follow every function
        return None
    share = _scale_posterior(left[:, :-1] / size, left[:, -1], weight, groups, centre * _SCALES, design.shape[1])
    level = (np.arange(n_draws) + rng.uniform()) / n_draws
    scale = np.exp(np.interp(rng.permutation(level), np.cumsum(share), np.log(centre * _SCALES)))
    draws = scale[:, None] * rng.standard_normal((n_draws, 2 * _FREQUENCIES)) / size
    draws -= draws.mean(axis=0)
    return LackOfFit(frequency, draws, draws @ own[:, :-1].T, float(share @ (centre * _SCALES)))


def _waves(modifiers: FloatArray, frequency: FloatArray) -> FloatArray:
    angle = modifiers @ frequency
    return np.hstack([np.cos(angle), np.sin(angle)]) / math.sqrt(_FREQUENCIES)


def _scale_posterior(
    features: FloatArray, residual: FloatArray, weight: FloatArray, groups: Any, scales: FloatArray, n_columns: int
) -> FloatArray:
    """Posterior weights of s on a logarithmic grid whose prior median is 1 in units of ``_SCALES``."""
    code = np.arange(len(residual)) if groups is None else groups
    mass = np.bincount(code, weight)
    table = np.column_stack([features, residual]) * weight[:, None]
    means = np.zeros((len(mass), table.shape[1]))
    np.add.at(means, code, table)
    means /= np.maximum(mass, 1e-300)[:, None]
    mass = mass / mass[mass > 0].mean()
    features, residual = means[:, :-1], means[:, -1]
    noise = float(mass @ residual**2) / max(len(mass) - n_columns, len(mass) // 2, 1)
    prior = np.log(_SCALES) - np.log1p(_SCALES**2)  # half-Cauchy, on the log scale
    if noise > 0:
        eigen, vectors = np.linalg.eigh(features.T @ (mass[:, None] * features))
        seen = eigen > 1e-9 * max(eigen[-1], 1e-300)
        parts = (mass * residual)[:, None] * (features @ vectors[:, seen]) / np.sqrt(eigen[seen])
        noises = np.maximum(noise, (parts**2).sum(axis=0))  # noise that grows with the features is no lack of fit
        signal, gain = parts.sum(axis=0) ** 2 / noises, eigen[seen, None] * scales**2 / noises[:, None]
        prior = prior + 0.5 * (signal[:, None] * gain / (1 + gain) - np.log1p(gain)).sum(axis=0)
    share = np.exp(prior - prior.max())
    return np.asarray(share / share.sum())
