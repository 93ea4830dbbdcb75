r"""p-values of a family of outcomes that allow for their number and their correlation, by drawing the treatment anew.

Under the sharp null of no effect on any outcome, the statistics of re-drawn assignments have the distribution of the
observed ones, with their correlation over outcomes. Stepping down, from the most to the least significant outcome,
each is compared with the largest statistic among those not yet rejected:

* Romano and Wolf (2005): the largest ``|t|``, t studentised by the design's standard error;
* Westfall and Young (1993): the smallest p-value, each outcome's own by its rank among the draws.

Both hold the probability of any false rejection at the level. They differ where outcomes have null distributions of
different shapes: the smallest p-value weighs outcomes equally, the largest t does not.

References
----------
Romano and Wolf (2005), "Stepwise multiple testing as formalized data snooping", Econometrica 73. Westfall and Young
(1993), Resampling-based multiple testing. Young (2019), "Channeling Fisher", Quarterly Journal of Economics 134.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FamilyStatistics", "own_p_values", "romano_wolf", "westfall_young"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FamilyStatistics:
    """Differences in means of several outcomes over their standard errors, for any assignment of randomisation units.

    Attributes
    ----------
    mass, total : ndarrays of shape (units, k)
        Weight of the known outcomes of each randomisation unit, and weighted sum of its outcomes.
    stratum : ndarray of int of shape (units,)
        Its stratum.
    """

    mass: FloatArray
    total: FloatArray
    stratum: IntArray

    def __call__(self, arm: FloatArray) -> FloatArray:
        """Statistics t of shape (k,) where units have the given arms, shape (units,).

        The difference is taken within strata and averaged by their weight, the variance is that of unit totals about
        their cell (arm of the stratum), or, where an arm of a stratum has one unit, of strata's differences about
        their mean.
        """
        n_strata, k = int(self.stratum.max()) + 1, self.mass.shape[1]
        cell = 2 * self.stratum + (arm > 0)
        mass, total = (
            _sums(values, cell, 2 * n_strata).reshape(n_strata, 2, k) for values in (self.mass, self.total)
        )
        count = _sums((self.mass > 0).astype(float), cell, 2 * n_strata).reshape(n_strata, 2, k)
        usable = (mass > 0).all(axis=1)
        mean = np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)
        difference = np.where(usable, mean[:, 1] - mean[:, 0], 0.0)
        size = np.where(usable, mass.sum(axis=1), 0.0)
        share = size / np.maximum(size.sum(axis=0), 1e-300)
        estimate = (share * difference).sum(axis=0)
        flat_mean, flat_mass, flat_count = (v.reshape(2 * n_strata, k) for v in (mean, mass, count))
        scale = share[self.stratum] / np.maximum(flat_mass[cell], 1e-300)
        score = scale * (self.total - self.mass * flat_mean[cell])
        single = usable & (count.min(axis=1) < 2)  # strata with one unit of an arm
        factor = np.where(flat_count > 1, flat_count / np.maximum(flat_count - 1, 1), 0.0)[cell]
        variance = (factor * score**2 * ~single[self.stratum]).sum(axis=0)
        n_single = single.sum(axis=0)
        weight = np.where(single, share, 0.0)
        middle = (weight * difference).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
        between = (weight**2 * (difference - middle) ** 2).sum(axis=0)
        variance = variance + between * n_single / np.maximum(n_single - 1, 1)
        return np.divide(estimate, np.sqrt(variance), out=np.zeros(k), where=variance > 0)


def _sums(values: FloatArray, code: IntArray, n: int) -> FloatArray:
    return np.stack([np.bincount(code, column, minlength=n) for column in values.T], axis=1)


def own_p_values(observed: FloatArray, drawn: FloatArray) -> FloatArray:
    """p-value of each outcome by its own draws: ``(1 + #{|t*| >= |t|}) / (1 + draws)``, shape (k,).

    Examples
    --------
    >>> own_p_values(np.array([2.0]), np.array([[1.0], [3.0], [0.5]]))
    array([0.5])
    """
    beaten = (np.abs(drawn) >= np.abs(observed) * (1 - 1e-9)).sum(axis=0)
    return (1.0 + beaten) / (1.0 + len(drawn))


def romano_wolf(observed: FloatArray, drawn: FloatArray) -> FloatArray:
    """Stepdown p-values by the largest absolute statistic, shape (k,).

    Parameters
    ----------
    observed : ndarray of shape (k,)
        Statistics.
    drawn : ndarray of shape (draws, k)
        The same under re-drawn assignments.

    Examples
    --------
    >>> drawn = np.random.default_rng(0).standard_normal((9999, 2))
    >>> romano_wolf(np.array([2.5, 1.0]), drawn).round(2)
    array([0.03, 0.32])
    """
    return _stepdown(np.abs(observed), np.abs(drawn))


def westfall_young(observed: FloatArray, drawn: FloatArray) -> FloatArray:
    """Stepdown p-values by the smallest p-value, shape (k,); parameters as in :func:`romano_wolf`.

    Examples
    --------
    >>> drawn = np.random.default_rng(0).standard_normal((9999, 2)) * [1, 50]
    >>> westfall_young(np.array([2.5, 50.0]), drawn).round(2)
    array([0.03, 0.32])
    """
    both = np.abs(np.vstack([observed, drawn]))
    n = len(both)
    rank = np.empty_like(both)  # share of all draws, the observed one among them, that are at most as large
    for j, column in enumerate(both.T):
        rank[:, j] = np.searchsorted(np.sort(column), column * (1 - 1e-9), side="left") / n
    return _stepdown(rank[0], rank[1:])


def _stepdown(observed: FloatArray, drawn: FloatArray) -> FloatArray:
    order = np.argsort(-observed, kind="stable")
    largest = np.maximum.accumulate(drawn[:, order[::-1]], axis=1)[:, ::-1]  # over this outcome and those below it
    beaten = (largest >= observed[order] * (1 - 1e-9)).sum(axis=0)
    p = np.maximum.accumulate((1.0 + beaten) / (1.0 + len(drawn)))
    out = np.empty(len(p))
    out[order] = p
    return out
