"""What a rule of whom to treat brings: values of rules, their differences, and the gain of a budget.

Scores are doubly robust, from models that did not see the unit, so that the mean score of those whom a rule treats is
the rule's gain (Athey and Wager 2021). With several arms the best use of a budget follows each unit's upper convex
hull of cost and effect (Sverdrup, Wu, Athey and Wager 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.figures import Drawn
from causalsat.core.inputs import aligned, check_magnitude
from causalsat.core.svg import curve_svg
from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.evaluation.rate import half_sample
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.robust import least_squares, t_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GainCurve", "PolicyValue", "gain_curve", "hull_path", "policy_difference", "policy_value"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class PolicyValue(Tabular):
    """Value of a rule of whom to treat, a head.

    Attributes
    ----------
    estimate, se : float
        Mean over the units of what the rule brings each, less its cost, and the cluster-robust standard error.
    lower, upper : float
        95 % interval.
    treated : float
        Share of the units (weighted) to which the rule gives a treatment; of a difference, the difference.
    cost : float
        Mean cost of the rule a head; of a difference, the difference.
    df : float
        Degrees of freedom of the interval.
    n_units, n_groups : int
        Units and clusters.
    """

    estimate: float
    se: float
    lower: float
    upper: float
    treated: float
    cost: float
    df: float
    n_units: int
    n_groups: int

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Interval from the t distribution: lower, upper."""
        lower, upper = t_interval(self.estimate, self.se, self.df, checks.level(level))
        return float(lower), float(upper)

    def to_dataframe(self, level: float = LEVEL) -> pd.DataFrame:
        """Table of one row: estimate, se, lower, upper, treated, cost, n_units, n_groups."""
        import pandas as pd

        lower, upper = self.interval(level)
        row = {"estimate": self.estimate, "se": self.se, "lower": lower, "upper": upper}
        row |= {"treated": self.treated, "cost": self.cost, "n_units": self.n_units, "n_groups": self.n_groups}
        return pd.DataFrame([row])


@aligned("policy", "scores", "groups", "weights", "folds")
def policy_value(
    policy: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    costs: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    folds: ArrayLike | None = None,
) -> PolicyValue:
    r"""Value of a rule: the mean of :math:`\sum_a \pi_a(x_i) (\Gamma_{ia} - c_{ia})`, with its standard error.

    Parameters
    ----------
    policy : array of shape (n,) or (n, arms)
        Whom the rule treats. With scores of shape (n,): True or 1 to treat, 0 not, or a probability of treatment.
        With scores of shape (n, arms): the number of each unit's arm (0, 1, ...), or the probability of each arm.
    scores : array of shape (n,) or (n, arms)
        Doubly robust scores of the effect (:func:`causalsat.evaluation.dr_scores`), which are the gain over treating
        nobody; or of each arm, control included, of the outcome or of the gain over control. From models, and for a
        rule, that did not see the unit.
    groups : array of shape (n,), optional
        Clusters.
    costs : float or array of shape (n,), (arms,) or (n, arms)
        Cost of the treatment, or of each arm, in units of the scores; for one column of scores one or n numbers.
    weights : array of shape (n,), optional
        Positive survey weights.
    folds : array of shape (n,), optional
        The fold in which each unit was held out, where the rule of a fold was chosen on the others; see the notes.

    Returns
    -------
    PolicyValue
        ``estimate, se, lower, upper`` and more.

    Raises
    ------
    DataError
        If shapes do not agree, or a policy is neither arms nor probabilities.

    Notes
    -----
    Without ``folds`` the interval is that of a rule which other data chose. Where folds chose each other's rules, the
    scores of a pair of units from two folds enter twice: as a value, and in the choice of the other's rule. Without
    heterogeneity that doubles the variance of what the rule gains by telling units apart; ``folds=`` adds that part,
    and is conservative where rules are mostly right. A rule that was chosen on the scores that value it looks better
    than it is.

    References
    ----------
    Athey and Wager (2021), "Policy learning with observational data", Econometrica 89(1), equation 6.

    Examples
    --------
    >>> found = policy_value([1, 1, 0, 0], [3.0, 1.0, -1.0, 0.5], costs=0.5)
    >>> found.estimate, found.treated, found.cost  # (2.5 + 0.5) / 4
    (0.75, 0.5, 0.25)
    """
    part, gamma = _parts(policy, scores, costs), score_matrix(scores)
    return _mean(part, gamma, groups, weights, folds)


@aligned("policy", "other", "scores", "groups", "weights", "folds")
def policy_difference(
    policy: ArrayLike,
    other: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    costs: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    folds: ArrayLike | None = None,
) -> PolicyValue:
    """Value of a rule less that of another on the same units, with its paired standard error.

    Parameters
    ----------
    policy, other : array of shape (n,) or (n, arms), or a number
        The rules, as in :func:`policy_value`; ``other=0`` treats nobody, ``other=1`` everybody (the arm 1), and
        ``other=0.5`` half of the units at random.
    scores, groups, costs, weights, folds
        As in :func:`policy_value`.

    Returns
    -------
    PolicyValue
        Of the difference.

    Examples
    --------
    >>> policy_difference([1, 1, 0, 0], 1, [3.0, 1.0, -1.0, 0.5], costs=0.5).estimate  # saves -1.5 and 0
    0.375
    """
    first, second = _parts(policy, scores, costs), _parts(other, scores, costs)
    gap = _Parts(*(a - b for a, b in zip(first, second, strict=True)))
    return _mean(gap, score_matrix(scores), groups, weights, folds)


class _Parts(NamedTuple):
    """Value, treatment and cost of each unit under a rule, and the probabilities of the arms."""

    value: FloatArray
    treated: FloatArray
    cost: FloatArray
    chance: FloatArray


def _parts(policy: Any, scores: Any, costs: Any) -> _Parts:
    gamma = score_matrix(scores)
    price = cost_matrix(costs, gamma.shape, np.ndim(scores) == 1)
    chance = chances(policy, gamma.shape, np.ndim(scores) == 1)
    value = (chance * (gamma - price)).sum(axis=1)
    return _Parts(value, chance[:, 1:].sum(axis=1), (chance * price).sum(axis=1), chance)


def score_matrix(scores: Any) -> FloatArray:
    """Scores of all arms, (n, arms); the effect's scores (n,) become arm 1 beside an arm 0 of zeros."""
    gamma = np.asarray(scores, dtype=float)
    if gamma.ndim == 1:
        gamma = np.column_stack([np.zeros(len(gamma)), gamma])
    if gamma.ndim != 2 or gamma.shape[1] < 2 or not len(gamma):
        raise DataError(f"scores of shape {np.shape(scores)}", expected="(n,) of the effect, or (n, arms)")
    if not np.isfinite(gamma).all():
        raise DataError(
            f"scores has {int((~np.isfinite(gamma)).sum())} values missing or infinite",
            expected="finite numbers",
            todo="drop those units from all arguments",
        )
    for column in gamma.T:
        check_magnitude(column, "scores")
    return gamma


def cost_matrix(costs: Any, shape: tuple[int, int], single: bool) -> FloatArray:
    """Costs of all arms, (n, arms); what is given for one treatment leaves arm 0 free."""
    n, k = shape
    price = np.asarray(costs, dtype=float)
    if not np.isfinite(price).all():
        raise DataError("costs that are missing or infinite", expected="finite numbers")
    check_magnitude(price.ravel(), "costs")
    if single and price.shape in ((), (n,)):
        return np.column_stack([np.zeros(n), np.broadcast_to(price, n)])
    if not single and price.ndim == 0:
        return np.column_stack([np.zeros(n), np.broadcast_to(price, (n, k - 1))])
    if price.shape == (n, k) or (price.shape == (k,) and not (single and n == k)):
        return np.broadcast_to(price, shape)
    expected = f"a number, or {n} numbers" if single else f"a number, {k} numbers (one an arm), or {n} x {k}"
    raise DataError(f"costs of shape {price.shape} for {n} units and {k} arms", expected=expected)


def chances(policy: Any, shape: tuple[int, int], single: bool) -> FloatArray:
    """Probability of each arm under a rule, (n, arms)."""
    n, k = shape
    rule = np.asarray(policy)
    try:
        rule = rule.astype(float)
    except (TypeError, ValueError):
        raise DataError(
            f"a policy of {rule.dtype}", expected="numbers of arms, or probabilities", todo="code the arms 0, 1, ..."
        ) from None
    if rule.ndim == 0:
        rule = np.broadcast_to(rule, n)
    if not np.isfinite(rule).all():
        raise DataError("a policy with missing values", expected="an arm, or probabilities, for each unit")
    if rule.shape == (n, k):
        if (rule < 0).any() or np.abs(rule.sum(axis=1) - 1).max() > 1e-6:
            raise DataError("rows of the policy that do not sum to 1", expected="probabilities of the arms")
        return np.asarray(rule)
    if rule.shape != (n,):
        raise DataError(f"a policy of shape {rule.shape}", expected=f"({n},) or ({n}, {k})")
    if single or k == 2:
        if (rule < 0).any() or (rule > 1).any():
            raise DataError(
                f"a policy from {rule.min():g} to {rule.max():g}",
                expected="0, 1, or a probability of treatment",
                todo="compare the predicted effects with the cost: effects > cost",
            )
        return np.column_stack([1 - rule, rule])
    if not np.isin(rule, np.arange(k)).all():
        raise DataError(f"a policy from {rule.min():g} to {rule.max():g}", expected=f"numbers of arms, 0 to {k - 1}")
    return np.eye(k)[rule.astype(np.int64)]


def _mean(parts: _Parts, gamma: FloatArray, groups: Any, weights: Any, folds: Any) -> PolicyValue:
    value, n = parts.value, len(parts.value)
    cluster = checks.codes(groups, n)
    n_groups = checks.several(cluster)
    w = checks.weights(weights, n)
    weight = np.ones(n) if w is None else w
    estimate, share, price = (float(np.average(v, weights=weight)) for v in parts[:3])
    if np.ptp(value) <= 1e-14 * np.abs(value).max(initial=0):
        return PolicyValue(estimate, 0.0, estimate, estimate, share, price, float(n_groups - 1), n, n_groups)
    fit = least_squares(value, np.ones((n, 1)), weights=weight, clusters=cluster)
    se, df = float(fit.se[0]), float(fit.df[0])
    if folds is not None:
        se = float(
            np.hypot(se, _contrast_error(parts.chance, gamma, cluster, weight, checks.codes(folds, n, "folds")))
        )
    lower, upper = (float(v) for v in t_interval(estimate, se, df, LEVEL))
    return PolicyValue(estimate, se, lower, upper, share, price, df, n, n_groups)


def _contrast_error(
    chance: FloatArray, gamma: FloatArray, cluster: IntArray, weight: FloatArray, fold: IntArray
) -> float:
    """Standard error of what a rule gains by telling the units of a fold apart."""
    apart = np.zeros(len(gamma))
    for k in np.unique(fold):
        own = fold == k
        centred = [v[own] - np.average(v[own], axis=0, weights=weight[own]) for v in (chance, gamma)]
        apart[own] = (centred[0] * centred[1]).sum(axis=1)
    if np.ptp(apart) <= 1e-14 * np.abs(gamma).max():
        return 0.0
    return float(least_squares(apart, np.ones((len(apart), 1)), weights=weight, clusters=cluster).se[0])


# ---------------------------------------------------------------------- budgets
@dataclass(frozen=True, eq=False)
class GainCurve(Drawn, Tabular):
    """Gain of a budget that is spent on the most promising units first, a head.

    Attributes
    ----------
    spend : ndarray of shape (k,)
        Budget a head.
    gain, se : ndarray of shape (k,)
        Mean gain a head of that budget, and its half-sample bootstrap standard error.
    random, over_random, over_random_se : ndarray of shape (k,)
        Gain of the same budget spent at random, the gain over it, and its standard error.
    critical : float
        Multiple of ``se`` of a 95 % band that holds over all budgets at once.
    share : ndarray of shape (k,)
        Share of the units that are treated.
    full_spend : float
        Budget a head beyond which nobody is predicted to gain.
    replicates : ndarray of shape (b, k)
        Bootstrap replicates of the gain.
    n_units, n_groups : int
        Units and clusters.
    """

    _figure: ClassVar[str] = "plot_gain_curve"

    spend: FloatArray
    gain: FloatArray
    se: FloatArray
    random: FloatArray
    over_random: FloatArray
    over_random_se: FloatArray
    critical: float
    share: FloatArray
    full_spend: float
    replicates: FloatArray
    n_units: int
    n_groups: int

    def to_dataframe(self, level: float = LEVEL) -> pd.DataFrame:
        """Table: spend, gain, se, lower, upper (pointwise), band_lower, band_upper (all budgets), random, ..."""
        import pandas as pd
        from scipy.stats import norm

        half = norm.ppf((1 + checks.level(level)) / 2) * self.se
        wide = _critical(self.replicates, self.gain, self.se, level) * self.se
        return pd.DataFrame(
            {
                "spend": self.spend,
                "gain": self.gain,
                "se": self.se,
                "lower": self.gain - half,
                "upper": self.gain + half,
                "band_lower": self.gain - wide,
                "band_upper": self.gain + wide,
                "random": self.random,
                "over_random": self.over_random,
                "over_random_se": self.over_random_se,
                "share": self.share,
            }
        )

    def at(self, spend: float) -> dict[str, float]:
        """Gain, standard error, gain of random spending and share treated at one budget a head (interpolated)."""
        names = ("gain", "se", "random", "over_random", "over_random_se", "share")
        return {name: float(np.interp(spend, self.spend, getattr(self, name))) for name in names}

    def _picture(self) -> str:
        table = self.to_dataframe()
        drawn = (table["spend"], table["gain"], table["lower"], table["upper"])
        title = "Gain a head by budget a head, with 95 % bands"
        return curve_svg(*drawn, title=title, across="budget a head", up="gain a head")


@dataclass(frozen=True)
class _Path:
    """Steps of the best use of a budget, the most promising first."""

    unit: IntArray
    cost: FloatArray
    score: FloatArray
    first: NDArray[np.bool_]
    tie: IntArray


@aligned("effects", "scores", "groups", "weights", "folds")
def gain_curve(
    effects: ArrayLike,
    scores: ArrayLike,
    costs: ArrayLike = 1.0,
    groups: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    spend: ArrayLike | None = None,
    n_bootstrap: int = 200,
    random_state: Any = 0,
) -> GainCurve:
    """Gain as a function of the budget, spent where predicted effects are largest for their cost.

    One treatment: units in the order of effect over cost, as long as the effect is positive. Several arms: each unit
    goes along the upper convex hull of its arms' costs and predicted effects, and the steps of all units are taken in
    the order of their slopes (the Qini curve of Sverdrup et al. 2023). The gain is the mean doubly robust score of
    what is taken. Steps of equal slope are taken together, in parts.

    Parameters
    ----------
    effects : array of shape (n,) or (n, arms)
        Predicted effects against control, from other data or other folds; of each arm that is not control.
    scores : array of shape (n,) or (n, arms)
        Doubly robust scores of the same effects.
    costs : float or array of shape (n,), (arms,) or (n, arms)
        Positive cost of treating a unit, or of each arm.
    groups : array of shape (n,), optional
        Clusters, drawn as a whole.
    weights : array of shape (n,), optional
        Positive survey weights.
    folds : array of shape (n,), optional
        The fold in which each unit was held out: each fold spends the same budget a head by its own predictions, and
        standard errors allow for folds that chose the rules of each other (see :func:`policy_value`).
    spend : array of shape (k,), optional
        Budgets a head; 51 from 0 to where nobody else is predicted to gain.
    n_bootstrap : int
        Half-samples of clusters.
    random_state : int or numpy.random.Generator
        Seed of the half-samples.

    Returns
    -------
    GainCurve

    Raises
    ------
    DataError
        If shapes do not agree or costs are not positive.

    References
    ----------
    Sverdrup, Wu, Athey and Wager (2023), "Qini curves for multi-armed treatment rules", arXiv 2306.11979, section 2.

    Examples
    --------
    >>> curve = gain_curve([3.0, 2.0, 1.0, -1.0], [2.0, 4.0, 1.0, 0.0], costs=1.0, spend=[0, 0.25, 0.5, 1.0])
    >>> curve.gain  # the fourth unit is not treated, whatever the budget
    array([0.  , 0.5 , 1.5 , 1.75])
    """
    tau, gamma, price = _curve_inputs(effects, scores, costs)
    n = len(tau)
    cluster = checks.codes(groups, n)
    n_groups = checks.several(cluster)
    w = checks.weights(weights, n)
    weight = np.ones(n) if w is None else w
    fold = np.zeros(n, dtype=np.int64) if folds is None else checks.codes(folds, n, "folds")
    parts = [np.flatnonzero(fold == k) for k in range(int(fold.max()) + 1)]
    paths = [hull_path(tau[rows], price[rows], gamma[rows]) for rows in parts]
    full = max(
        (float((p.cost * weight[r][p.unit]).sum() / weight[r].sum()) for p, r in zip(paths, parts, strict=True))
    )
    grid = np.linspace(0, full, 51) if spend is None else _grid(spend)
    arms = _random_arms(tau, gamma, price)
    whole = _gains(paths, parts, arms, weight, grid)
    replicates = checks.count(n_bootstrap, "n_bootstrap", 0)
    boot = np.empty((replicates, 3, len(grid)))
    rng = np.random.default_rng(random_state)
    for b in range(replicates):
        half = half_sample(n_groups, rng)[cluster]
        boot[b] = _gains(paths, parts, arms, np.where(half, weight, 0.0), grid)
    gain, random, share = whole
    over = boot[:, 0] - boot[:, 1]
    missing = np.full(len(grid), np.nan)
    se, over_se = (v.std(axis=0, ddof=1) if replicates > 1 else missing for v in (boot[:, 0], over))
    if folds is not None:  # pairs of units from two folds enter twice, see policy_value
        se, over_se = np.hypot(se, over_se), over_se * checks.CROSSFIT_WIDENING
    critical = _critical(boot[:, 0], gain, se, LEVEL)
    return GainCurve(grid, gain, se, random, gain - random, over_se, critical, share, full, boot[:, 0], n, n_groups)


def _curve_inputs(effects: Any, scores: Any, costs: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    tau, gamma = (np.asarray(v, dtype=float) for v in (effects, scores))
    if tau.shape != gamma.shape or tau.ndim not in (1, 2) or not tau.size:
        raise DataError(
            f"effects of shape {tau.shape} and scores of shape {gamma.shape}",
            expected="the same: (n,), or (n, arms that are not control)",
        )
    if not (np.isfinite(tau).all() and np.isfinite(gamma).all()):
        raise DataError("effects or scores that are missing or infinite", expected="finite numbers")
    for values, role in ((tau, "effects"), (gamma, "scores")):
        check_magnitude(values.ravel(), role)
    n, k = len(tau), 1 if tau.ndim == 1 else tau.shape[1]
    price = np.asarray(costs, dtype=float)
    if price.ndim == 1 and len(price) == n and k == 1:
        price = price[:, None]
    try:
        price = np.broadcast_to(price, (n, k))
    except ValueError:
        raise DataError(
            f"costs of shape {price.shape} for {n} units and {k} arms",
            expected=f"a number, {k} numbers, or {n} x {k}",
        ) from None
    if not np.isfinite(price).all() or (price <= 0).any():
        raise DataError(
            f"{int((~(price > 0)).sum())} costs that are not positive",
            expected="the cost of treating a unit, a positive number",
            todo="a treatment that costs nothing goes to whoever gains; use policy_value(effects > 0, scores)",
        )
    check_magnitude(np.asarray(price).ravel(), "costs")
    return tau.reshape(n, k), gamma.reshape(n, k), np.asarray(price)


def _grid(spend: Any) -> FloatArray:
    grid = np.asarray(spend, dtype=float)
    if (
        grid.ndim != 1
        or not len(grid)
        or not np.isfinite(grid).all()
        or (grid < 0).any()
        or (np.diff(grid) < 0).any()
    ):
        raise ParameterError(f"spend={spend!r}", expected="budgets a head, increasing from 0 or more")
    return grid


def hull_path(effects: FloatArray, costs: FloatArray, scores: FloatArray) -> _Path:
    """Steps along the upper convex hulls of (cost, effect), in the order of their slopes; only those that gain.

    Parameters
    ----------
    effects, costs, scores : ndarray of shape (n, k)
        Of each arm against control.

    Examples
    --------
    >>> path = hull_path(np.array([[1.0, 1.5, 4.0]]), np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 2.0, 3.0]]))
    >>> path.cost  # from nothing to the third arm at once
    array([3.])
    """
    n, k = effects.shape
    if k == 1:
        unit = np.flatnonzero(effects[:, 0] > 0)
        slope, cost, score = effects[unit, 0] / costs[unit, 0], costs[unit, 0], scores[unit, 0]
        return _ordered(unit, slope, cost, score, np.ones(len(unit), dtype=bool))
    steps: list[tuple[int, float, float, float, bool]] = []
    for i in range(n):
        at = np.zeros(3)
        first = True
        order = np.lexsort((-effects[i], costs[i]))
        points = np.column_stack([costs[i], effects[i], scores[i]])[order]
        while True:
            ahead = points[(points[:, 0] > at[0]) & (points[:, 1] > at[1])]
            if not len(ahead):
                break
            slopes = (ahead[:, 1] - at[1]) / (ahead[:, 0] - at[0])
            best = ahead[len(slopes) - 1 - int(slopes[::-1].argmax())]  # of equal slopes the farthest
            d_cost, d_effect, d_score = best - at
            steps.append((i, d_effect / d_cost, d_cost, d_score, first))
            at, first = best, False
    if not steps:
        nothing = np.empty(0)
        return _ordered(nothing.astype(np.int64), nothing, nothing, nothing, nothing.astype(bool))
    unit, slope, cost, score, begin = (np.array(v) for v in zip(*steps, strict=True))
    return _ordered(unit.astype(np.int64), slope, cost, score, begin.astype(bool))


def _ordered(
    unit: IntArray, slope: FloatArray, cost: FloatArray, score: FloatArray, first: NDArray[np.bool_]
) -> _Path:
    order = np.argsort(-slope, kind="stable")
    tie = np.cumsum(np.r_[0, np.diff(slope[order]) != 0]) if len(order) else np.empty(0)
    return _Path(unit[order], cost[order], score[order], first[order], tie[: len(order)].astype(np.int64))


def _random_arms(tau: FloatArray, gamma: FloatArray, price: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scores and costs (n, steps) of the arms on the hull of average effects, through which random spending goes."""
    path = hull_path(tau.mean(axis=0)[None], price.mean(axis=0)[None], np.arange(tau.shape[1], dtype=float)[None])
    reached = np.cumsum(path.score).round().astype(int) if len(path.score) else np.array([0])  # numbers of the arms
    if tau.shape[1] == 1:
        reached = np.array([0])
    return gamma[:, reached], price[:, reached]


def _gains(
    paths: list[_Path],
    parts: list[IntArray],
    arms: tuple[FloatArray, FloatArray],
    weight: FloatArray,
    grid: FloatArray,
) -> FloatArray:
    """Gain by predictions, gain at random and share treated for each budget, shape (3, k)."""
    out = np.zeros((3, len(grid)))
    total = weight.sum()
    for path, rows in zip(paths, parts, strict=True):
        own = weight[rows]
        mass = own.sum()
        if mass <= 0:
            continue
        w = own[path.unit] / mass
        ends = np.flatnonzero(np.diff(np.r_[path.tie, -1]) != 0)  # the last step of each slope
        spent, gained, treated = (
            np.r_[0.0, np.cumsum(w * v)[ends]] for v in (path.cost, path.score, path.first.astype(float))
        )
        out[0] += mass / total * np.interp(grid, spent, gained)
        out[2] += mass / total * np.interp(grid, spent, treated)
    mean_gain, mean_cost = ((weight[:, None] * v).sum(axis=0) / total for v in arms)
    out[1] = np.interp(grid, np.r_[0.0, mean_cost], np.r_[0.0, mean_gain])
    return out


def _critical(replicates: FloatArray, gain: FloatArray, se: FloatArray, level: float) -> float:
    """Quantile over half-samples of the largest deviation in standard errors."""
    seen = se > 1e-12 * max(float(np.abs(gain).max(initial=0)), 1e-300)
    if len(replicates) < 2 or not seen.any():
        return float("nan")
    own = replicates.std(axis=0, ddof=1)
    deviation = np.abs(replicates - replicates.mean(axis=0))[:, seen] / np.where(own > 0, own, 1.0)[seen]
    return float(np.quantile(deviation.max(axis=1), level))
