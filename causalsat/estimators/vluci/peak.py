"""The posterior of the strength where it is narrower than the grid's cells: quadratics round its highest point.

With many units the likelihood of three strengths (log of the link, atanh of the share in the arms, halved difference)
is all but normal, and the coarse grid steps over it. Evidence and average effect are then computed at a point, two
more along each axis and three between, closer and closer, until the evidence falls by little enough to be a parabola.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from causalsat.core.inputs import FloatArray

__all__ = ["Peak", "find_peak"]

NARROW = 8.0  # fall of the log evidence over a step of the grid, beyond which it is refined
FLAT = 3.0  # fall over a step at which a parabola is trusted
MOST_ROUNDS = 4
REACH, PLACES = 3.6, 13  # of the normal approximation, in sds, and points along each axis
PAIRS = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, eq=False)
class Peak:
    """Strengths (k, 3) round the peak: log link, atanh share, shift; evidence, average effect, its sd; log volume."""

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
    >>> found = find_peak(hill, np.zeros(3), np.ones(3))
    >>> best = found.evidence.argmax()
    >>> found.places[best].round(6).tolist(), float(found.ate[best].round(6)), bool(abs(found.evidence[best]) < 1e-9)
    ([0.3, 0.3, 0.3], 0.9, True)
    """
    centre, step = centre.copy(), 0.5 * step
    for _ in range(MOST_ROUNDS):
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
    along = np.linspace(-REACH, REACH, PLACES)
    z = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    z = z[(z**2).sum(axis=1) <= REACH**2]
    spread = axes / np.sqrt(-size)
    u = top + z @ spread.T
    evidence = level + 0.5 * float(slope @ top) - 0.5 * (z**2).sum(axis=1)
    ate0, ate1, ate2 = _quadratic(points, values[:, 1])
    ate = ate0 + u @ ate1 + 0.5 * np.einsum("ki,ij,kj->k", u, ate2, u)
    cell = float(np.log(along[1] - along[0])) * 3
    volume = cell + float(np.log(np.abs(np.linalg.det(spread)))) + float(np.log(step).sum())
    return Peak(centre + step * u, evidence, ate, np.full(len(u), values[:, 2].mean()), volume)
