"""Rank-weighted average treatment effects: whether a priority finds the units with larger effects.

Yadlowsky, Fleming, Shah, Brunskill and Wager (2025), "Evaluating treatment prioritization rules via
rank-weighted average treatment effects", JASA 120(549): section 2 defines TOC
and RATE. Conventions follow R's grf (``rank_average_treatment_effect``): the RATE integrates the TOC over all
units, q is only where the curve is reported, tied priorities share their mean score, and standard errors come
from half-samples of clusters.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import aligned
from causalsat.core.svg import curve_svg
from causalsat.core.tables import Tabular
from causalsat.design import Design
from causalsat.design.design import roles_of
from causalsat.evaluation import checks
from causalsat.evaluation.permutation import contributions
from causalsat.exceptions import ParameterError
from causalsat.inference.robust import t_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RateResult", "TocCurve", "half_sample", "rate", "toc"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

DEFAULT_Q = tuple(i / 10 for i in range(1, 11))


@dataclass(frozen=True, eq=False)
class TocCurve(Tabular):
    """Targeting operator characteristic on a grid.

    Attributes
    ----------
    q : ndarray of shape (k,)
        Share of the units that is treated first.
    estimate : ndarray of shape (k,)
        Mean score of that share less the mean score of all.
    se : ndarray of shape (k,)
        Pointwise half-sample bootstrap standard errors.
    ate : float
        Mean score of all units.
    n_units, n_groups, n_bootstrap : int
        Units, clusters and bootstrap replicates.
    """

    q: FloatArray
    estimate: FloatArray
    se: FloatArray
    ate: float
    n_units: int
    n_groups: int
    n_bootstrap: int

    def to_dataframe(self, level: float = 0.95) -> pd.DataFrame:
        """Table of the curve: q, toc, se, lower, upper (pointwise, normal)."""
        import pandas as pd

        half = _normal_quantile(level) * self.se
        columns = {"q": self.q, "toc": self.estimate, "se": self.se}
        return pd.DataFrame({**columns, "lower": self.estimate - half, "upper": self.estimate + half})

    def _picture(self) -> str:
        table = self.to_dataframe()
        title = "Effect of the units that are treated first less the effect of all, with 95 % bands"
        drawn = (table["q"], table["toc"], table["lower"], table["upper"])
        return curve_svg(*drawn, title=title, across="share of units treated first", up="effect above the average")


@dataclass(frozen=True, eq=False)
class RateResult(Tabular):
    """A rank-weighted average treatment effect with its TOC.

    Attributes
    ----------
    estimate, se : float
        RATE and its half-sample bootstrap standard error.
    ratio : float
        estimate / se (0 where both are 0).
    p_value : float
        Two-sided, from t with ``df`` degrees of freedom, of ``ratio / widening``.
    method : str
        "autoc" or "qini"; of a difference, that of both.
    toc : TocCurve
        The curve with pointwise standard errors.
    replicates : ndarray of shape (n_bootstrap,)
        Bootstrap replicates of the estimate.
    df : float
        Degrees of freedom that the clusters' contributions c show, ``3 (sum c^2)^2 / sum c^4 - 2``, at least 1: few
        or uneven clusters have heavier tails than the normal.
    widening : float
        By how much more the estimate varies than ``se`` says: the square root of 2 for cross-fitted priorities
        (``folds=``), else 1. In ``p_value`` and ``interval``, not in ``se`` and ``ratio``.
    paired : tuple
        Identifies scores, groups, weights, q and half-samples: only results with the same ones are subtracted.
    """

    estimate: float
    se: float
    ratio: float
    p_value: float
    method: str
    toc: TocCurve
    replicates: FloatArray
    df: float = np.inf
    paired: tuple[Any, ...] = ()
    widening: float = 1.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval from the t distribution: lower, upper."""
        lower, upper = t_interval(self.estimate, self.se * self.widening, self.df, checks.level(level))
        return float(lower), float(upper)

    def to_dataframe(self, level: float = 0.95) -> pd.DataFrame:
        """Table of one row: method, estimate, se, lower, upper, ratio, p_value, n_units, n_groups."""
        import pandas as pd

        lower, upper = self.interval(level)
        row = {
            "method": self.method,
            "estimate": self.estimate,
            "se": self.se,
            "lower": lower,
            "upper": upper,
            "ratio": self.ratio,
            "p_value": self.p_value,
            "n_units": self.toc.n_units,
            "n_groups": self.toc.n_groups,
        }
        return pd.DataFrame([row])

    def _picture(self) -> str:
        return self.toc._picture()

    def __sub__(self, other: RateResult) -> RateResult:
        """Difference of two priorities' RATEs on the same units, with its paired standard error."""
        if not isinstance(other, RateResult):
            return NotImplemented
        if not self.paired or self.paired != other.paired or len(self.replicates) != len(other.replicates):
            raise ParameterError(
                "RATEs from other units, scores, groups, weights, method, q or half-samples",
                expected="two results of rate() on the same scores and groups with the same integer random_state",
            )
        curve = replace(
            self.toc, estimate=self.toc.estimate - other.toc.estimate, se=np.full(len(self.toc.q), np.nan)
        )
        return _result(
            self.estimate - other.estimate,
            self.replicates - other.replicates,
            self.method,
            curve,
            self.paired,
            min(self.df, other.df),
            max(self.widening, other.widening),
        )


@aligned("priority", "scores", "groups", "weights", "folds")
def toc(
    priority: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    q: ArrayLike = DEFAULT_Q,
    *,
    folds: ArrayLike | None = None,
    n_bootstrap: int = 200,
    random_state: Any = 0,
) -> TocCurve:
    """Targeting operator characteristic: gain from treating the top share q first.

    ``TOC(q)`` is the mean score of the share q of units with the highest priority, less the mean of all
    (Yadlowsky et al. 2025, section 2). Parameters are those of :func:`rate`.

    Examples
    --------
    >>> curve = toc([4, 3, 2, 1], [4.0, 3.0, 2.0, 1.0], q=[0.25, 0.5, 1.0])
    >>> curve.estimate
    array([1.5, 1. , 0. ])
    """
    return rate(
        priority,
        scores,
        groups=groups,
        weights=weights,
        q=q,
        folds=folds,
        n_bootstrap=n_bootstrap,
        random_state=random_state,
    ).toc


@aligned("priority", "scores", "groups", "weights", "folds")
def rate(
    priority: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    method: str = "autoc",
    n_bootstrap: int = 200,
    q: ArrayLike = DEFAULT_Q,
    random_state: Any = 0,
    design: Design | None = None,
) -> RateResult:
    r"""Rank-weighted average treatment effect of a priority, with half-sample cluster bootstrap.

    ``RATE = integral of alpha(q) TOC(q) dq``, alpha = 1 for AUTOC and q for QINI (Yadlowsky et al. 2025,
    section 2). Half of the clusters are drawn without replacement in each replicate, the ranks are formed
    anew in the half, and the standard deviation over the replicates estimates the standard error.

    Parameters
    ----------
    priority : array of shape (n,)
        Predicted effects, or any score by which units would be treated first; from other data or other folds.
    scores : array of shape (n,)
        Doubly robust scores (:func:`causalsat.evaluation.dr_scores`).
    groups : array of shape (n,), optional
        Clusters, drawn as a whole; each unit its own by default.
    weights : array of shape (n,), optional
        Positive survey weights.
    folds : array of shape (n,), optional
        The fold in which each unit was held out. Priorities are then replaced by their rank within the fold, so
        that only units that one and the same model ranked are compared; see the notes.
    method : {"autoc", "qini"}
        Weight of the curve.
    n_bootstrap : int
        Replicates.
    q : array of shape (k,)
        Increasing grid in (0, 1] where the curve is reported; the RATE does not depend on it.
    random_state : int or numpy.random.Generator
        Seed of the half-samples.
    design : Design, optional
        Clusters (pairs as a whole) and weights in one object, such as ``study.design``.

    Returns
    -------
    RateResult
        Estimate, standard error, ratio, p-value, curve.

    Raises
    ------
    DataError, ParameterError
        If an argument cannot be used.

    Notes
    -----
    The standard error takes the priority as fixed: it is right for priorities from other data. Priorities that were
    cross-fitted on the very units that are scored depend on the scores of the other folds: each pair of units from
    two folds enters twice, so that without heterogeneity the variance is twice as large. With ``folds=`` the p-value
    and the interval allow for that; where priorities are mostly right they are conservative. Pooled priorities
    (without ``folds``) also lower the RATE, because a fold whose own effect is large was predicted by models that
    did not see it, and understate it the more the stronger a model shrinks. Figures: ``benchmarks/RESULTS.md``. In a
    trial :func:`causalsat.evaluation.permutation_test` decides whether there is heterogeneity.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tau = rng.uniform(size=4000)
    >>> result = rate(tau, tau + rng.standard_normal(4000))
    >>> abs(result.estimate - 0.25) < 2 * result.se  # a perfect ranking of uniform effects: 1/4
    True
    """
    if method not in ("autoc", "qini"):
        raise ParameterError(f"method={method!r}", expected="'autoc' or 'qini'")
    given = roles_of(design, {"groups": groups, "weights": weights})
    groups, weights = checks.inference_groups(design, given["groups"]), given["weights"]
    s = checks.numbers(priority, "priority", any_unit=True)
    gamma = checks.numbers(scores, "scores", len(s))
    n = len(s)
    cluster = checks.codes(groups, n)
    n_groups = checks.several(cluster)
    w = checks.weights(weights, n)
    grid = _check_grid(q)
    replicates = checks.count(n_bootstrap, "n_bootstrap", 0)
    if folds is not None:
        s = checks.within_fold_rank(s, checks.codes(folds, n, "folds"), w)
    ranked = _rank(s, gamma, cluster, w)
    estimate, curve, ate = _curve(ranked.scores, ranked.weights, ranked.ties, grid, method)
    boot = np.empty((replicates, 1 + len(grid)))
    rng = np.random.default_rng(random_state)
    for b in range(replicates):
        half = half_sample(n_groups, rng)
        boot[b, 0], boot[b, 1:], _ = _curve(*ranked.take(half), grid, method)
    se = boot[:, 1:].std(axis=0, ddof=1) if replicates > 1 else np.full(len(grid), np.nan)
    rounding = 1e-14 * float(np.abs(gamma).max())
    toc_curve = TocCurve(grid, curve, np.where(se < rounding, 0.0, se), ate, n, n_groups, replicates)
    paired: tuple[Any, ...] = ()
    if isinstance(random_state, int | np.integer):
        parts = (gamma, cluster, np.ones(n) if w is None else w, grid)
        paired = (n, n_groups, method, int(random_state), *(zlib.crc32(part.tobytes()) for part in parts))
    part = contributions(s, gamma, cluster, np.ones(n) if w is None else w, method)
    widening = 1.0 if folds is None else checks.CROSSFIT_WIDENING
    return _result(estimate, boot[:, 0], method, toc_curve, paired, observed_df(part), widening)


def observed_df(part: FloatArray) -> float:
    """Degrees of freedom of a sum of squares of clusters' contributions, from their own fourth powers.

    A normal contribution of variance v has a fourth moment of ``3 v^2``, so that ``3 (sum c^2)^2 / sum c^4 - 2``
    estimates ``(sum v)^2 / sum v^2`` (Satterthwaite 1946).

    Examples
    --------
    >>> observed_df(np.random.default_rng(0).standard_normal(100_000)) > 90_000
    True
    >>> round(observed_df(np.array([5.0, 0.1, 0.1, 0.1])), 1)  # one cluster has it all
    1.0
    """
    largest = float(np.abs(part).max(initial=0.0))
    if not largest > 0:
        return float(max(len(part) - 1, 1))
    share = part / largest  # fourth powers of very small or large scores leave the doubles
    return max(3 * float((share**2).sum()) ** 2 / float((share**4).sum()) - 2, 1.0)


def _result(
    estimate: float,
    replicates: FloatArray,
    method: str,
    curve: TocCurve,
    paired: tuple[Any, ...],
    df: float,
    widening: float,
) -> RateResult:
    from scipy.stats import t

    se = float(replicates.std(ddof=1)) if len(replicates) > 1 else float("nan")
    scale = max(abs(curve.ate), float(np.abs(curve.estimate).max()), 1e-300)
    if se < 1e-13 * scale and abs(estimate) < 1e-13 * scale:
        estimate, se, ratio = 0.0, 0.0, 0.0
    else:
        ratio = estimate / se if se > 0 else float("nan")
    p_value = float(2 * t.sf(abs(ratio) / widening, df))
    return RateResult(float(estimate), se, float(ratio), p_value, method, curve, replicates, df, paired, widening)


def _normal_quantile(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(0.5 + checks.level(level) / 2))


def _check_grid(q: ArrayLike) -> FloatArray:
    grid = np.atleast_1d(np.asarray(q, dtype=float))
    if grid.ndim != 1 or len(grid) == 0 or not ((grid > 0) & (grid <= 1)).all() or (np.diff(grid) <= 0).any():
        raise ParameterError(f"q={q!r}", expected="an increasing grid of shares in (0, 1]")
    return grid


@dataclass(frozen=True)
class _Ranked:
    """Units in decreasing order of priority: sorted once, halved for each replicate."""

    scores: FloatArray
    clusters: IntArray
    weights: FloatArray | None
    ties: IntArray | None

    def take(self, half: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray | None, IntArray | None]:
        units = half[self.clusters]
        weights = None if self.weights is None else self.weights[units]
        return self.scores[units], weights, None if self.ties is None else self.ties[units]


def _rank(priority: FloatArray, scores: FloatArray, clusters: IntArray, weights: FloatArray | None) -> _Ranked:
    by = (-priority,) if weights is None else (weights, -priority)  # ties by weight: the row order does not matter
    order = np.argsort(-priority, kind="stable") if weights is None else np.lexsort(by)
    new = np.diff(priority[order]) != 0
    ties = None if new.all() else np.concatenate([[0], np.cumsum(new)]).astype(np.int64)
    sorted_weights = None if weights is None else weights[order]
    return _Ranked(scores[order], clusters[order], sorted_weights, ties)


def half_sample(n_groups: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A uniformly drawn half of the clusters: fair coins, then the excess turned over at random."""
    size = n_groups // 2
    bits = np.frombuffer(rng.bytes((n_groups + 7) // 8), dtype=np.uint8)
    half = np.unpackbits(bits, count=n_groups).astype(bool)
    excess = int(np.count_nonzero(half)) - size
    if excess:
        turn = np.flatnonzero(half == (excess > 0))
        half[rng.choice(turn, abs(excess), replace=False, shuffle=False)] = excess < 0
    return half


def _curve(
    scores: FloatArray, weights: FloatArray | None, ties: IntArray | None, q: FloatArray, method: str
) -> tuple[float, FloatArray, float]:
    """RATE, TOC at q and mean score of units in decreasing order of priority."""
    if ties is not None:
        scores = _average_ties(scores, weights, ties)
    if weights is None:
        n = len(scores)
        mass: FloatArray = np.arange(1.0, n + 1)
        gain = np.cumsum(scores)
        total, ate = float(n), gain[-1] / n
        mean_first = gain / mass
        estimate = mean_first.mean() - ate if method == "autoc" else gain.mean() / n - ate * (n + 1) / (2 * n)
    else:
        mass = np.cumsum(weights)
        gain = np.cumsum(weights * scores)
        total, ate = float(mass[-1]), gain[-1] / mass[-1]
        share = weights / total
        alpha = share if method == "autoc" else share * mass / total
        estimate = float(alpha @ (gain / mass - ate))
    return float(estimate), _interpolate(gain, mass, q * total) / (q * total) - ate, float(ate)


def _interpolate(gain: FloatArray, mass: FloatArray, at: FloatArray) -> FloatArray:
    """Sum of the scores of the first ``at`` units, the last of them in part."""
    after = np.minimum(np.searchsorted(mass, at * (1 - 1e-12)), len(mass) - 1)
    start_mass = np.where(after > 0, mass[after - 1], 0.0)
    start_gain = np.where(after > 0, gain[after - 1], 0.0)
    part = np.clip((at - start_mass) / (mass[after] - start_mass), 0.0, 1.0)
    return start_gain + part * (gain[after] - start_gain)


def _average_ties(scores: FloatArray, weights: FloatArray | None, ties: IntArray) -> FloatArray:
    """Replace the scores of units of equal priority by their weighted mean."""
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ties) != 0]))
    lengths = np.diff(np.append(starts, len(ties)))
    if weights is None:
        means = np.add.reduceat(scores, starts) / lengths
    else:
        means = np.add.reduceat(scores * weights, starts) / np.add.reduceat(weights, starts)
    return np.repeat(means, lengths)
