"""Which filter explains a target: its extent and resolution by held-out images, from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.filters.levels import Level, strongest
from causalsat.encoders.filters.regression import Fit, Target, fit_filter, remaining

__all__ = ["Filter", "Plan", "finer", "follow", "refine", "search", "trimmed"]

FloatArray = NDArray[np.float64]

_SIZES = (4, 6)  # sides, in pixels of its level, of the first filters
_MARGIN = 0.1  # of the largest weight: smaller ones may be cut off at the margin
_LEAST_GAIN = 0.01  # of the held-out error, for a filter to be kept
_FIRST_LOOK_PIXELS = 100 * 256 * 256  # of images that a first look takes


@dataclass(frozen=True, eq=False)
class Filter:
    """A filter at one resolution.

    Attributes
    ----------
    kernel : ndarray of shape (band, s, s)
        Its weights, in units of the target.
    level : int
        How often the image is halved first.
    sign : int
        1 where the target rises with the strongest response, -1 where it falls.
    """

    kernel: FloatArray
    level: int
    sign: int

    def respond(self, levels: Sequence[Level], rows: NDArray[np.int64]) -> FloatArray:
        """Part of the target that the filter explains, shape (len(rows),)."""
        return self.sign * strongest(levels[self.level], rows, self.kernel)


@dataclass(frozen=True, eq=False)
class Plan:
    """How a filter was found, so that others can be found alike on other images.

    Attributes
    ----------
    start : ndarray of shape (band, s, s)
        Where the regression starts at the coarsest level.
    top, bottom : int
        Coarsest and finest level.
    sign : int
        See :class:`Filter`.
    trim : bool
        Whether margins of small weights are cut off in the end.
    """

    start: FloatArray
    top: int
    bottom: int
    sign: int
    trim: bool = False


def finer(kernel: FloatArray) -> FloatArray:
    """The same filter at twice the resolution.

    Examples
    --------
    >>> finer(np.array([[[4.0, 8.0]]])).tolist()
    [[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]
    """
    return np.asarray(np.kron(kernel, np.full((1, 2, 2), 0.25)))


def trimmed(kernel: FloatArray) -> FloatArray:
    """The smallest square (band, s, s), of at least 2 pixels, that holds all weights of a tenth of the largest.

    A filter with empty margins misses what stands at the edge of an image.

    Examples
    --------
    >>> kernel = np.zeros((1, 4, 4))
    >>> kernel[0, 1, 3] = kernel[0, 2, 2] = 1.0
    >>> trimmed(kernel).tolist()
    [[[0.0, 1.0], [1.0, 0.0]]]
    """
    size, weight = kernel.shape[-1], np.abs(kernel).max(axis=0)
    large = weight >= _MARGIN * weight.max()
    lines = [np.flatnonzero(large.any(axis=axis)) for axis in (1, 0)]
    side = min(size, max(2, *(int(line[-1] - line[0]) + 1 for line in lines)))
    top, left = (min(int(line[0]), size - side) for line in lines)
    return kernel[:, top : top + side, left : left + side]


def search(
    levels: Sequence[Level], target: Target, held: NDArray[np.bool_], most_px: int
) -> tuple[Plan | None, Filter]:
    """Find a filter on the images that are not held out, its extent and resolution by those that are.

    Returns
    -------
    plan : Plan or None
        None where no filter predicts the held-out images better than the free columns alone.
    filter : Filter
        The filter found on the images that were not held out.
    """
    train, test = target.take(~held), target.take(held)
    without = _miss(levels, test, None, remaining(train)[1])
    best: tuple[float, Plan, Filter] | None = None
    for level in range(len(levels)):
        few = _thinned(train, levels[level], 1)
        for size in _SIZES if level else _SIZES[:1]:
            if size << level > most_px or 2 * size > min(levels[level].shape):
                continue
            plan = _first_look(levels, few, level, size)
            found, fit = _fit(levels, few, plan.start, plan, level, sparse=False, rounds=2 if level else 1)
            loss = _miss(levels, test, found, fit.coef)
            if best is None or loss < best[0]:
                best = (loss, plan, found)
    if best is None:
        return None, Filter(np.zeros((levels[0].images.shape[1], 1, 1)), 0, 1)
    loss, plan, found = best
    closer = found
    for bottom in range(plan.top, -1, -1):
        closer, fit = _step(levels, train, closer, bottom)
        value = _miss(levels, test, closer, fit.coef)
        if value < loss:
            loss, found, plan = value, closer, Plan(plan.start, plan.top, bottom, plan.sign)
        elif bottom < plan.top:
            break
    kept = loss < (1 - _LEAST_GAIN) * without
    if kept and (smaller := trimmed(found.kernel)).shape != found.kernel.shape:
        closer, fit = _step(levels, train, replace(found, kernel=smaller), found.level, rounds=1)
        if _miss(levels, test, closer, fit.coef) < loss:
            found, plan = closer, replace(plan, trim=True)
    return (plan if kept else None), found


def follow(levels: Sequence[Level], target: Target, plan: Plan) -> Filter:
    """Find a filter as a plan says, on the target's images."""
    found, _ = _fit(levels, target, plan.start, plan, plan.top, sparse=False, rounds=2)
    for level in range(plan.top, plan.bottom - 1, -1):
        found, _ = _step(levels, target, found, level)
    if plan.trim:
        smaller = replace(found, kernel=trimmed(found.kernel))
        found, _ = _step(levels, target, smaller, found.level, rounds=1)
    return found


def refine(levels: Sequence[Level], target: Target, found: Filter) -> tuple[Filter, FloatArray]:
    """The filter, fitted to more images, and its part of the target there."""
    better, fit = _step(levels, target, found, found.level, rounds=1)
    return better, better.sign * fit.response


def _step(levels: Sequence[Level], target: Target, found: Filter, level: int, rounds: int = 2) -> tuple[Filter, Fit]:
    """A sparse filter at a level from one at the same or the next coarser level."""
    start = found.kernel if level == found.level else finer(found.kernel)
    return _fit(levels, target, start, found, level, sparse=True, rounds=rounds)


def _fit(
    levels: Sequence[Level],
    target: Target,
    start: FloatArray,
    like: Filter | Plan,
    level: int,
    *,
    sparse: bool,
    rounds: int,
) -> tuple[Filter, Fit]:
    """A filter of a target from a start; the fit's free coefficients are those of the target as it is."""
    signed = Target(target.rows, like.sign * target.value, target.weight, target.free)
    if not start.any():
        fit = Fit(start, *remaining(target), np.zeros(len(target.rows)))
        return Filter(start, level, like.sign), fit
    fit = fit_filter(levels[level], signed, start, sparse=sparse, rounds=rounds)
    return Filter(fit.kernel, level, like.sign), replace(fit, coef=like.sign * fit.coef)


def _thinned(target: Target, level: Level, times: int) -> Target:
    """Some of the images for a first look, evenly spread over them: fewer where they are large."""
    rows, cols = level.shape
    most = max(100, _FIRST_LOOK_PIXELS // (rows * cols)) // times
    return target.take(np.arange(len(target.rows)) % -(-len(target.rows) // most) == 0)


def _first_look(levels: Sequence[Level], target: Target, level: int, size: int) -> Plan:
    """The best of a bright and a dark spot in each band and in all, whether the target rises or falls with it."""
    bands = levels[0].images.shape[1]
    spots = np.concatenate([np.eye(bands), np.full((1, bands), 1 / bands)]) if bands > 1 else np.ones((1, 1))
    few = _thinned(target, levels[level], 2)
    options = []
    for spot in np.concatenate([spots, -spots]):
        start = np.broadcast_to(spot[:, None, None] / size**2, (bands, size, size)).copy()
        response = strongest(levels[level], few.rows, start)
        error, coef = remaining(Target(few.rows, few.value, few.weight, np.column_stack([few.free, response])))
        options.append((error, Plan(start, level, level, 1 if coef[-1] >= 0 else -1)))
    return min(options, key=lambda option: option[0])[1]


def _miss(levels: Sequence[Level], test: Target, found: Filter | None, coef: FloatArray) -> float:
    """Mean squared error of held-out images."""
    left = test.value - test.free @ coef
    if found is not None:
        left = left - found.respond(levels, test.rows)
    return float(np.average(left**2, weights=test.weight))
