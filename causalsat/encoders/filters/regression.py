"""A filter found by regression: the outcome on the patch where the filter responds most, again and again.

The strongest response of image i to the filter k is ``max_p <k, x_ip>`` over its patches x_ip. Given the patch that
attains it, the response is linear in k: so regress on those patches, look for the strongest ones anew, and so on. It
is the Gauss-Newton method for the squared error, since the patch that attains a maximum is the maximum's gradient.
Between two searches of whole images the patches are chosen among some strong ones of each, as latent support vector
machines do (Felzenszwalb et al. 2010, "Object detection with discriminatively trained part-based models", section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.filters.levels import Level, gather, scan, strongest

__all__ = ["Fit", "TARGETS", "Target", "fit_filter", "make_target", "remaining", "ridge_on_patches"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


TARGETS = ("outcome", "treatment", "effect")


def make_target(name: str, y: FloatArray, t: FloatArray, place: IntArray, before: FloatArray) -> Target:
    """Target of the places that have units, given the responses (place, q) of the filters found before.

    "outcome": mean outcome of the place's units, less the treatment's part where units of a place differ in it, with
    the treated share as a free column. "treatment": the treated share. "effect": with the residual r of the outcome
    and the treatment less its mean, d, the sum of d r over that of d squared, weighted by the latter (the R-learner's
    loss, Nie and Wager 2021, with the treated share for the propensity).

    Examples
    --------
    >>> target = make_target("outcome", np.array([1.0, 2.0, 4.0]), np.array([0, 1, 1.0]), np.array([0, 2, 2]),
    ...                      np.empty((3, 0)))
    >>> target.rows.tolist(), target.weight.tolist(), target.free.tolist()
    ([0, 2], [1.0, 2.0], [[1.0, 0.0], [1.0, 1.0]])
    """
    n = len(before)
    units = np.bincount(place, minlength=n).astype(float)
    rows = np.flatnonzero(units > 0)

    def mean(values: FloatArray) -> FloatArray:
        return np.bincount(place, values, minlength=n)[rows] / units[rows]

    share = mean(t)
    one = np.ones(len(rows))
    if name == "treatment":
        return Target(rows, share, units[rows], np.column_stack([one, before[rows]]))
    design = np.column_stack([np.ones(len(y)), t, before[place]])
    coef = np.linalg.lstsq(design, y, rcond=None)[0]
    if name == "outcome":
        value = mean(y)
        if (units[rows] > 1).any():  # within places too, so that a place's mean tells of the place
            value = value - coef[1] * share
        return Target(rows, value, units[rows], np.column_stack([one, share, before[rows]]))
    apart = t - t.mean()
    weight = np.asarray(np.bincount(place, apart**2, minlength=n)[rows], dtype=float)
    some = weight > 1e-12 * max(float(weight.max(initial=0.0)), 1e-300)
    moment = np.asarray(np.bincount(place, apart * (y - design @ coef), minlength=n)[rows], dtype=float)
    value = moment[some] / weight[some] + coef[1]
    return Target(rows[some], value, weight[some], np.column_stack([one, before[rows]])[some])


Float32Array = NDArray[np.float32]

_PENALTIES = 10.0 ** np.arange(-6.0, 2.1, 0.5)
_STEPS = (1.0, 0.5, 0.25, 0.1)
_FLOOR = 0.02  # of the largest weight: no weight of a sparse filter is held to zero for good
_PATCH_BYTES = 160 << 20


@dataclass(frozen=True, eq=False)
class Target:
    """What the response is to explain, image by image.

    Attributes
    ----------
    rows : ndarray of int of shape (n,)
        The images.
    value, weight : ndarrays of shape (n,)
        Values and their weights.
    free : ndarray of shape (n, q)
        Columns with coefficients of their own: a constant, the treatment, responses to filters found before.
    """

    rows: IntArray
    value: FloatArray
    weight: FloatArray
    free: FloatArray

    def take(self, chosen: NDArray[np.bool_]) -> Target:
        """Some of the images."""
        return Target(self.rows[chosen], self.value[chosen], self.weight[chosen], self.free[chosen])


@dataclass(frozen=True, eq=False)
class Fit:
    """A filter of some images.

    Attributes
    ----------
    kernel : ndarray of shape (band, s, s)
        Its weights, in units of the target.
    error : float
        Weighted mean squared error.
    coef : ndarray of shape (q,)
        Coefficients of the free columns.
    response : ndarray of shape (n,)
        Strongest response of each image.
    """

    kernel: FloatArray
    error: float
    coef: FloatArray
    response: FloatArray


def remaining(target: Target, response: FloatArray | None = None) -> tuple[float, FloatArray]:
    """Weighted mean squared error after the response and the free columns, and these columns' coefficients."""
    left = target.value if response is None else target.value - response
    root = np.sqrt(target.weight)
    coef = np.linalg.lstsq(target.free * root[:, None], left * root, rcond=None)[0]
    return float(np.average((left - target.free @ coef) ** 2, weights=target.weight)), np.asarray(coef)


def ridge_on_patches(patches: FloatArray, target: Target, prior: FloatArray) -> FloatArray:
    """Weights (d,) of the patches' pixels with prior variances, their scale by leave-one-out error.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, one = rng.normal(size=(200, 3)), np.ones(200)
    >>> target = Target(np.arange(200), 5 + x @ [1.0, 0.0, -2.0] + 0.1 * rng.normal(size=200), one, one[:, None])
    >>> ridge_on_patches(x, target, np.ones(3)).round(1) + 0.0
    array([ 1.,  0., -2.])
    """
    root = np.sqrt(target.weight)
    basis, _ = np.linalg.qr(target.free * root[:, None])
    value, design = target.value * root, patches * root[:, None]
    value = value - basis @ (basis.T @ value)
    design = (design - basis @ (basis.T @ design)) * np.sqrt(prior)
    if design.shape[1] < len(design):
        eigen, right = np.linalg.eigh(design.T @ design)
        kept = eigen > 1e-10 * max(eigen[-1], 1e-300)
        eigen, left = eigen[kept], design @ (right[:, kept] / np.sqrt(eigen[kept]))
    else:
        eigen, left = np.linalg.eigh(design @ design.T)
        kept = eigen > 1e-10 * max(eigen[-1], 1e-300)
        eigen, left = eigen[kept], left[:, kept]
    if not len(eigen):
        return np.zeros(design.shape[1])
    moment, lever = left.T @ value, (basis**2).sum(axis=1)
    scale = eigen.sum() / len(value)
    errors = []
    for penalty in _PENALTIES * scale:
        share = eigen / (eigen + penalty)
        own = np.minimum(lever + (left**2) @ share, 0.999)
        errors.append(np.sum(((value - left @ (share * moment)) / (1 - own)) ** 2))
    penalty = _PENALTIES[int(np.argmin(errors))] * scale
    return np.asarray(np.sqrt(prior) * (design.T @ (left @ (moment / (eigen + penalty)))))


def fit_filter(
    level: Level, target: Target, start: FloatArray, *, sparse: bool, rounds: int = 4, steps: int = 5
) -> Fit:
    """Filter (band, s, s) whose strongest response explains the target, from a start of the same shape.

    Parameters
    ----------
    level : Level
        The images.
    target : Target
        What to explain.
    start : ndarray of shape (band, s, s)
        First filter; a start whose response goes against the target is returned as zeros.
    sparse : bool
        Whether prior variances follow the weights' own sizes, which pulls small weights to zero (iteratively
        reweighted ridge regression; Daubechies et al. 2010), or all are equal.
    rounds, steps : int
        Searches of the whole images, and regressions between two of them.
    """
    size, rows = start.shape[-1], target.rows
    n_top = int(np.clip(_PATCH_BYTES // (4 * len(rows) * start.size), 4, 24))
    kernel, best = start, Fit(np.zeros(start.shape), *remaining(target), np.zeros(len(rows)))
    for turn in range(rounds):
        largest, places = scan(level, rows, kernel, n_top, max(2, size // 4))
        if turn == 0:
            slope = _slope(target, largest)
            if slope <= 0:
                return best
            kernel, largest = kernel * slope, largest * slope
        before, found = best.error, Fit(kernel, *remaining(target, largest), largest)
        best = min(best, found, key=lambda fit: fit.error)
        if found.error > 0.99 * before:
            return best
        patches = gather(level, rows, places, size)
        kernel = _among(patches, target, kernel.ravel(), sparse, steps).reshape(start.shape)
    largest = strongest(level, rows, kernel)
    found = Fit(kernel, *remaining(target, largest), largest)
    return min(best, found, key=lambda fit: fit.error)


def _slope(target: Target, response: FloatArray) -> float:
    root = np.sqrt(target.weight)
    design = np.column_stack([response, target.free]) * root[:, None]
    return float(np.linalg.lstsq(design, target.value * root, rcond=None)[0][0])


def _among(patches: Float32Array, target: Target, kernel: FloatArray, sparse: bool, steps: int) -> FloatArray:
    """Alternate between the strongest of some patches (n, k, d) of each image and regression on them."""
    n, k, d = patches.shape
    flat, own = patches.reshape(n * k, d), np.arange(n)
    response = (flat @ kernel.astype(np.float32)).reshape(n, k).astype(float)
    chosen = response.argmax(axis=1)
    error, _ = remaining(target, response[own, chosen])
    for _ in range(steps):
        prior = np.ones(d)
        if sparse:
            size = np.abs(kernel)
            prior = size + _FLOOR * max(float(size.max()), 1e-12)
        wanted = ridge_on_patches(patches[own, chosen].astype(float), target, prior)
        answer = (flat @ wanted.astype(np.float32)).reshape(n, k).astype(float)
        found = []
        for step in _STEPS:
            mixed = (1 - step) * response + step * answer
            places = mixed.argmax(axis=1)
            found.append((remaining(target, mixed[own, places])[0], step, places))
            if found[-1][0] < 0.9 * error:
                break
        least, step, places = min(found, key=lambda option: option[0])
        if least >= error:
            break
        kernel, chosen = (1 - step) * kernel + step * wanted, places
        response = (1 - step) * response + step * answer
        done, error = least > 0.997 * error, least
        if done:
            break
    return kernel
