"""What filters are to explain, place by place: the outcome, the treatment, or the treatment's effect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders._filter_regression import Target

__all__ = ["TARGETS", "make_target"]

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
