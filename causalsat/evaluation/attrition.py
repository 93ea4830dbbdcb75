r"""Bounds on the average effect where outcomes are missing, without a model of who responds (Lee 2009).

If the treatment moves response in one direction only (monotonicity), the arm with the higher response rate holds the
units that would respond in either arm, in the share ``1 - p``, and others, in the share p. Their mean outcome lies
between the means after the p largest and after the p smallest outcomes of that arm are trimmed. The bounds are on the
average effect among units that would respond in either arm.

With cells (values of covariates, strata) the bounds are taken in each cell, in whatever direction its response rates
differ, and averaged by the cell's share of units that respond in either arm; they are never wider on average.

Standard errors are those of the bounds' influence functions, which include that of the trimmed share, summed by
cluster. With q the quantile at which outcomes are trimmed and ``mu`` the trimmed mean, those of the upper bound are
``((Y - q)_+ - E (Y - q)_+) / (1 - p)`` of the outcomes and ``(mu - q) / (1 - p)`` of p.

References
----------
Lee (2009), "Training, wages, and sample selection: estimating sharp bounds on treatment effects", Review of Economic
Studies 76. Imbens and Manski (2004), "Confidence intervals for partially identified parameters", Econometrica 72.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import aligned
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.exceptions import DataError

__all__ = ["LeeBounds", "imbens_manski", "lee_bounds"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LeeBounds(Tabular):
    """Bounds on the average effect among units that would respond in either arm.

    Attributes
    ----------
    lower, upper : float
        Estimated bounds.
    lower_se, upper_se : float
        Their standard errors.
    interval : tuple of float
        Imbens-Manski confidence interval of the effect, which lies between the bounds.
    level : float
        Its level.
    trimmed_share : float
        Share of the outcomes of the arm with the higher response that is trimmed; over cells, the average.
    trimmed_arm : str
        ``"treated"``, ``"control"``, ``"none"``, or ``"both"`` where it differs between cells.
    response : tuple of float
        Response rates of control and treated units.
    n, n_observed, clusters : int
        Units, those with an outcome, and clusters (units, where there are none).
    """

    lower: float
    upper: float
    lower_se: float
    upper_se: float
    interval: tuple[float, float]
    level: float
    trimmed_share: float
    trimmed_arm: str
    response: tuple[float, float]
    n: int
    n_observed: int
    clusters: int

    def to_dataframe(self) -> pd.DataFrame:
        """Rows lower and upper with estimate and se; the interval's end is ``confidence``."""
        columns = {
            "estimate": [self.lower, self.upper],
            "se": [self.lower_se, self.upper_se],
            "confidence": list(self.interval),
        }
        return pd.DataFrame(columns, index=pd.Index(["lower", "upper"], name="bound"))

    def __str__(self) -> str:
        """One sentence."""
        return (
            f"Lee bounds {self.lower:.4g} ({self.lower_se:.3g}) to {self.upper:.4g} ({self.upper_se:.3g}); "
            f"{100 * self.level:.0f} % interval of the effect {self.interval[0]:.4g} to {self.interval[1]:.4g}; "
            f"{100 * self.trimmed_share:.1f} % of the outcomes trimmed ({self.trimmed_arm})"
        )


@aligned("y", "treatment", "groups", "weights", "cells")
def lee_bounds(
    y: ArrayLike,
    treatment: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    cells: ArrayLike | None = None,
    level: float = 0.95,
) -> LeeBounds:
    """Bounds on the average effect among units that would respond in either arm (Lee 2009).

    Parameters
    ----------
    y : array of shape (n,)
        Outcome, NaN where missing.
    treatment : array of shape (n,)
        0/1 treatment.
    groups : array of shape (n,), optional
        Clusters of the standard errors.
    weights : array of shape (n,), optional
        Survey weights.
    cells : array of shape (n,), optional
        Labels of cells, such as strata or fifths of a covariate measured before treatment, in which bounds are taken.
        Cells without an outcome of each arm are refused.
    level : float
        Level of the interval.

    Returns
    -------
    LeeBounds

    Raises
    ------
    DataError, TreatmentError
        If an input cannot be used, or a cell has no outcome of an arm.

    Examples
    --------
    Of 100 treated units 80 respond, of 100 control units 60, so that a quarter of the treated is trimmed:

    >>> y = np.r_[np.arange(1.0, 81), np.full(20, np.nan), np.zeros(60), np.full(40, np.nan)]
    >>> found = lee_bounds(y, np.repeat([1, 0], 100))
    >>> round(found.lower, 6), round(found.upper, 6), round(found.trimmed_share, 6), found.trimmed_arm
    (30.5, 50.5, 0.25, 'treated')
    """
    level = checks.level(level)
    outcome = inputs.outcome_column(y, np.size(y)).astype(float)
    n = len(outcome)
    if np.isinf(outcome).any():
        raise DataError(f"{int(np.isinf(outcome).sum())} infinite outcomes", expected="numbers, NaN where missing")
    inputs.check_magnitude(outcome, "the outcome y")
    t = inputs.check_treatment(np.asarray(treatment), n, binary=True)
    w = inputs.check_weights(weights, n)
    codes = inputs.check_groups(groups, n)
    cell = np.zeros(n, dtype=np.int64) if cells is None else checks.codes(inputs.as_labels(cells), n)
    kept = w > 0
    outcome, t, w, cell = outcome[kept], t[kept], w[kept] / w[kept].mean(), cell[kept]
    cluster = np.arange(len(t)) if codes is None else np.unique(codes[kept], return_inverse=True)[1]
    seen = ~np.isnan(outcome)
    _check_cells(seen, t, cell)
    pieces = [_bounds_of_cell(outcome, t, w, seen, cell == c) for c in np.unique(cell)]
    mass = np.array([p.mass for p in pieces])
    estimates, influences = [], []
    for side in ("lower", "upper"):
        value = np.array([getattr(p, side) for p in pieces])
        average = float(mass @ value / mass.sum())
        psi = sum(
            p.mass * getattr(p, f"{side}_influence") + (v - average) * p.mass_influence
            for p, v in zip(pieces, value, strict=True)
        )
        estimates.append(average)
        influences.append(np.asarray(psi) / mass.sum())
    lower_se, upper_se = (_clustered_se(psi, cluster) for psi in influences)
    arms = {p.trimmed_arm for p in pieces} - {"none"} or {"none"}
    rates = [float(w[t == a] @ seen[t == a] / w[t == a].sum()) for a in (0, 1)]
    return LeeBounds(
        lower=estimates[0],
        upper=estimates[1],
        lower_se=lower_se,
        upper_se=upper_se,
        interval=imbens_manski(estimates[0], estimates[1], lower_se, upper_se, level),
        level=level,
        trimmed_share=float(mass @ [p.trimmed for p in pieces] / mass.sum()),
        trimmed_arm=arms.pop() if len(arms) == 1 else "both",
        response=(rates[0], rates[1]),
        n=len(t),
        n_observed=int(seen.sum()),
        clusters=int(cluster.max()) + 1,
    )


def imbens_manski(lower: float, upper: float, lower_se: float, upper_se: float, level: float) -> tuple[float, float]:
    """Interval that covers a parameter between two bounds: ``Phi(c + (upper - lower) / max se) - Phi(-c) = level``.

    Examples
    --------
    With equal bounds it is the two-sided interval, with distant ones each side is one-sided:

    >>> [round(v, 3) for v in (*imbens_manski(0, 0, 1, 1, 0.95), *imbens_manski(0, 50, 1, 1, 0.95))]
    [-1.96, 1.96, -1.645, 51.645]
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    widest = max(lower_se, upper_se)
    if not np.isfinite(widest) or widest <= 0:
        return lower - 0.0 * widest, upper + 0.0 * widest
    gap = max(upper - lower, 0.0) / widest
    c = brentq(lambda x: norm.cdf(x + gap) - norm.cdf(-x) - level, 0.0, 40.0)
    return float(lower - c * lower_se), float(upper + c * upper_se)


@dataclass(frozen=True, eq=False)
class _Piece:
    lower: float
    upper: float
    lower_influence: FloatArray
    upper_influence: FloatArray
    mass: float
    mass_influence: FloatArray
    trimmed: float
    trimmed_arm: str


def _bounds_of_cell(y: FloatArray, t: FloatArray, w: FloatArray, seen: Any, inside: Any) -> _Piece:
    """Bounds in one cell with the influence of every unit on them (sums over units are the estimate's error)."""
    n = len(y)
    rate, d_rate = np.empty(2), np.zeros((2, n))
    for arm in (0, 1):
        rows = inside & (t == arm)
        rate[arm] = w[rows] @ seen[rows] / w[rows].sum()
        d_rate[arm, rows] = w[rows] * (seen[rows] - rate[arm]) / w[rows].sum()
    high, low = (1, 0) if rate[1] >= rate[0] else (0, 1)
    p = 1 - rate[low] / rate[high]
    d_p = -d_rate[low] / rate[high] + rate[low] * d_rate[high] / rate[high] ** 2
    rows = inside & (t == low) & seen
    plain = float(w[rows] @ y[rows] / w[rows].sum())
    d_plain = np.zeros(n)
    d_plain[rows] = w[rows] * (y[rows] - plain) / w[rows].sum()
    rows = inside & (t == high) & seen
    means, d_means = [], []
    for sign in (1.0, -1.0):  # outcomes above the quantile of p; those below that of 1 - p
        value, own, slope = _trimmed(sign * y[rows], w[rows], p)
        d_value = slope * d_p
        d_value[rows] += own
        means.append(sign * value)
        d_means.append(sign * d_value)
    trimmed_high, trimmed_low = means  # the largest and the smallest mean
    pairs = {"upper": (trimmed_high, d_means[0]), "lower": (trimmed_low, d_means[1])}
    if high == 0:  # control is trimmed: its smallest mean makes the largest effect
        pairs = {"upper": (trimmed_low, d_means[1]), "lower": (trimmed_high, d_means[0])}
    sign = 1.0 if high == 1 else -1.0
    part = float(w[inside].sum() / w.sum())
    d_part = w * (inside - part) / w.sum()
    return _Piece(
        lower=sign * (pairs["lower"][0] - plain),
        upper=sign * (pairs["upper"][0] - plain),
        lower_influence=sign * (pairs["lower"][1] - d_plain),
        upper_influence=sign * (pairs["upper"][1] - d_plain),
        mass=part * rate[low],
        mass_influence=d_part * rate[low] + part * d_rate[low],
        trimmed=p,
        trimmed_arm="none" if p <= 0 else ("treated" if high == 1 else "control"),
    )


def _trimmed(y: FloatArray, w: FloatArray, p: float) -> tuple[float, FloatArray, float]:
    """Mean of the ``1 - p`` largest outcomes, the influence of each on it, and its slope in p; ties are split."""
    order = np.argsort(y, kind="stable")
    reached = np.cumsum(w[order]) / w.sum()
    q = y[order][min(int(np.searchsorted(reached, p * (1 + 1e-12), side="right")), len(y) - 1)]
    above = np.maximum(y - q, 0.0)
    share = w / w.sum()
    mean = float(share @ above)
    value = mean / (1 - p) + q
    return value, share * (above - mean) / (1 - p), (value - q) / (1 - p)


def _clustered_se(psi: FloatArray, cluster: IntArray) -> float:
    total = np.bincount(cluster, psi)
    g = len(total)
    return float(np.sqrt((total**2).sum() * g / (g - 1))) if g > 1 else float("nan")


def _check_cells(seen: Any, t: FloatArray, cell: IntArray) -> None:
    size = [np.bincount(cell, seen & (t == arm), minlength=int(cell.max()) + 1) for arm in (0, 1)]
    empty = np.unique(cell)[[bool(size[0][c] == 0 or size[1][c] == 0) for c in np.unique(cell)]]
    if len(empty):
        raise DataError(
            f"{len(empty)} of {len(np.unique(cell))} cells without an outcome of each arm",
            expected="outcomes of treated and control units in each cell",
            todo="take fewer cells, or drop cells=",
        )
