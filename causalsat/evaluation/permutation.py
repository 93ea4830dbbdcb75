"""Tests of no heterogeneity that hold their level with clusters and cross-fitted priorities.

Priorities that are cross-fitted on the units that are scored share their data with the scores of the other
folds: without heterogeneity, each pair of units from two folds enters the statistic twice, and the usual ratio
of a RATE to its standard error rejects more often than it should. :func:`permutation_test` repeats the whole
cross-fitting under new randomisations of the treatment; :func:`priority_test` is for priorities from other data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import aligned
from causalsat.core.progress import bar as progress_bar
from causalsat.core.svg import histogram_svg
from causalsat.core.tables import Tabular
from causalsat.design import Design
from causalsat.design.design import roles_of
from causalsat.evaluation import checks
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.folds import MIXED, assign_folds, cluster_arms
from causalsat.inference.reassignment import RandomisationUnits, one_stratum_each, randomisation_units

__all__ = [
    "FoldRidge",
    "PermutationResult",
    "contributions",
    "fold_ridge",
    "permutation_test",
    "priority_test",
    "rank_ratio",
    "rank_weights",
    "score_statistic",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


PENALTIES = np.logspace(-3, 2, 11)


@dataclass(frozen=True, eq=False)
class FoldRidge:
    """Features with a constant, sorted by fold, for ridge regressions that leave each fold out.

    Attributes
    ----------
    design : ndarray of shape (n, k + 1)
        Constant and standardised features.
    bounds : tuple of slices
        Rows of each fold, in the order of ``order``.
    order : ndarray of int of shape (n,)
        Sorts the units by fold.
    weight : ndarray of shape (n,)
        Weights, in the order of the units.
    """

    design: FloatArray
    bounds: tuple[slice, ...]
    order: IntArray
    weight: FloatArray

    def predictions(self, target: FloatArray) -> FloatArray:
        """Out-of-fold ridge predictions of a target, shape (n,)."""
        coef = self._coefficients(self.design, target)
        return self._apply(coef)

    def priorities(self, y_residual: FloatArray, t_residual: FloatArray) -> FloatArray:
        """Out-of-fold effects, shape (n,), of the ridge R-learner (Nie and Wager 2021, equation 4).

        ``sum w (y~ - t~ (c + z b))^2 + lambda |b|^2``, lambda by cross-validation within the training folds.
        """
        coef = self._coefficients(self.design * t_residual[:, None], y_residual)
        return self._apply(coef)

    def _apply(self, coef: FloatArray) -> FloatArray:
        out = np.empty(len(self.order))
        for k, rows in enumerate(self.bounds):
            units = self.order[rows]
            out[units] = self.design[units] @ coef[k]
        return out

    def _coefficients(self, design: FloatArray, target: FloatArray) -> FloatArray:
        """Ridge coefficients without each fold, shape (fold, k + 1); the constant is not penalised."""
        gram, moment = [], []
        for rows in self.bounds:
            units = self.order[rows]
            weighted = design[units].T * self.weight[units]
            gram.append(weighted @ design[units])
            moment.append(weighted @ target[units])
        G, b = np.stack(gram), np.stack(moment)
        penalty = self._choose(G, b)
        train_G, train_b = G.sum(axis=0) - G, b.sum(axis=0) - b
        return _solve(train_G, train_b, penalty)

    def _choose(self, G: FloatArray, b: FloatArray) -> FloatArray:
        """Penalty of each held-out fold, shape (fold,), by leaving out each of the other folds in turn."""
        n_folds = len(G)
        if n_folds < 3:
            return np.full(n_folds, 1.0)
        total_G, total_b = G.sum(axis=0), b.sum(axis=0)
        outer, inner = np.nonzero(~np.eye(n_folds, dtype=bool))
        pair_G, pair_b = total_G - G[outer] - G[inner], total_b - b[outer] - b[inner]
        shape = (len(outer), len(PENALTIES))
        grid_G = np.broadcast_to(pair_G[:, None], (*shape, *G.shape[1:])).reshape(-1, *G.shape[1:])
        grid_b = np.broadcast_to(pair_b[:, None], (*shape, b.shape[1])).reshape(-1, b.shape[1])
        coef = _solve(grid_G, grid_b, np.tile(PENALTIES, len(outer))).reshape(*shape, -1)
        quadratic = np.einsum("pli,pij,plj->pl", coef, G[inner], coef)
        loss = quadratic - 2 * np.einsum("pli,pi->pl", coef, b[inner])
        by_fold = np.zeros((n_folds, len(PENALTIES)))
        np.add.at(by_fold, outer, loss)
        return np.asarray(PENALTIES[by_fold.argmin(axis=1)])


def _solve(G: FloatArray, b: FloatArray, penalty: FloatArray) -> FloatArray:
    """Ridge solutions, shape (m, k + 1); the penalty is a multiple of the features' mean cross-product."""
    k = G.shape[1] - 1
    scale = np.trace(G[:, 1:, 1:], axis1=1, axis2=2) / k
    scale = np.maximum(scale, 1e-300)
    diagonal = np.zeros(G.shape[:2])
    diagonal[:, 1:] = (penalty * scale)[:, None]
    diagonal[:, 0] = 1e-12 * np.maximum(G[:, 0, 0], 1e-300)
    ridged = G + diagonal[:, :, None] * np.eye(k + 1)
    return np.asarray(np.linalg.solve(ridged, b[:, :, None])[:, :, 0])


def fold_ridge(features: FloatArray, fold: IntArray, weight: FloatArray) -> FoldRidge:
    """Prepare ridge regressions that leave each fold out.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> Z, fold = rng.standard_normal((500, 2)), np.arange(500) % 5
    >>> ridge = fold_ridge(Z, fold, np.ones(500))
    >>> bool(np.corrcoef(ridge.predictions(Z[:, 0]), Z[:, 0])[0, 1] > 0.999)
    True
    """
    design = np.column_stack([np.ones(len(features)), features])
    order = np.argsort(fold, kind="stable")
    stops = np.cumsum(np.bincount(fold))
    bounds = tuple(slice(int(a), int(b)) for a, b in zip([0, *stops[:-1]], stops, strict=True) if b > a)
    return FoldRidge(design, bounds, order, weight)


def rank_ratio(
    priority: FloatArray, scores: FloatArray, cluster: IntArray, weight: FloatArray, statistic: str
) -> float:
    """RATE over its cluster-robust standard error, for given priorities and no heterogeneity, in closed form."""
    part = contributions(priority, scores, cluster, weight, statistic)
    scale = float(np.sqrt((part**2).sum()))
    return float(part.sum() / scale) if scale > 0 else 0.0


def score_statistic(latents: FloatArray, scores: FloatArray, cluster: IntArray, weight: FloatArray) -> float:
    """Ridged quadratic form of the latents' covariances with the scores, cluster-robust.

    Examples
    --------
    >>> z = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    >>> round(score_statistic(z, np.array([2.0, 0.0, 2.0, 0.0]), np.arange(4), np.ones(4)), 3)
    2.667
    """
    centred = weight * (scores - np.average(scores, weights=weight))
    z = latents - np.average(latents, axis=0, weights=weight)
    parts = np.stack([np.bincount(cluster, centred * z[:, j]) for j in range(z.shape[1])], axis=1)
    total, variance = parts.sum(axis=0), parts.T @ parts
    ridge = 0.5 * float(np.trace(variance)) / len(total)
    if ridge <= 0:
        return 0.0
    return float(total @ np.linalg.solve(variance + ridge * np.eye(len(total)), total))


def rank_weights(priority: FloatArray, weight: FloatArray, statistic: str) -> FloatArray:
    """Weights a, shape (n,), such that the RATE is sum(w a score) / sum(w); tied priorities share theirs.

    AUTOC: ``a_i = sum over j ranked at or after i of w_j / (w_1 + ... + w_j), less 1``; QINI: the share of the
    weight ranked at or after i, less its mean.

    Examples
    --------
    >>> rank_weights(np.array([2.0, 1.0]), np.ones(2), "autoc")
    array([ 0.5, -0.5])
    """
    order = np.lexsort((weight, -priority))
    w = weight[order]
    mass = np.cumsum(w)
    step = w / mass if statistic == "autoc" else w / mass[-1]
    after = np.cumsum(step[::-1])[::-1]
    new = np.concatenate([[True], np.diff(priority[order]) != 0])
    tie = np.cumsum(new) - 1
    after = (np.bincount(tie, w * after) / np.bincount(tie, w))[tie]
    out = np.empty(len(w))
    out[order] = after - np.average(after, weights=w)
    return out


def contributions(
    priority: FloatArray, scores: FloatArray, cluster: IntArray, weight: FloatArray, statistic: str
) -> FloatArray:
    """Contribution of each cluster to the RATE."""
    a = rank_weights(priority, weight, statistic)
    centred = scores - np.average(scores, weights=weight)
    return np.bincount(cluster, weight * a * centred).astype(np.float64)


if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class PermutationResult(Tabular):
    """A test of no heterogeneity.

    Attributes
    ----------
    statistic : float
        Observed statistic; larger means more heterogeneity.
    p_value : float
        One-sided: (1 + number of draws at least as large) / (1 + number of draws).
    null : ndarray of shape (n_permutations,)
        Statistics under the hypothesis.
    method : str
        What was drawn anew, in words.
    n_units, n_groups : int
        Units and clusters.
    """

    statistic: float
    p_value: float
    null: FloatArray
    method: str
    n_units: int
    n_groups: int

    def rejects(self, level: float = 0.05) -> bool:
        """Whether no heterogeneity is rejected at the level."""
        return self.p_value <= level

    def to_dataframe(self) -> pd.DataFrame:
        """Table of one row: statistic, p_value, null_mean, null_q95, n_permutations, method."""
        import pandas as pd

        row = {
            "statistic": self.statistic,
            "p_value": self.p_value,
            "null_mean": float(self.null.mean()),
            "null_q95": float(np.quantile(self.null, 0.95)),
            "n_permutations": len(self.null),
            "method": self.method,
        }
        return pd.DataFrame([row])

    def _picture(self) -> str:
        title = f"Statistics of {len(self.null):,} draws without heterogeneity; the dashed line is the observed one"
        return histogram_svg(self.null, title=title, axis="statistic", mark=self.statistic)


@aligned(
    "latents", "y", "treatment", "groups", "covariates", "strata", "assignment", "propensity", "weights", "folds"
)
def permutation_test(
    latents: Any,
    y: ArrayLike,
    treatment: ArrayLike | None = None,
    *,
    design: Design | None = None,
    groups: ArrayLike | None = None,
    covariates: Any = None,
    strata: ArrayLike | None = None,
    assignment: ArrayLike | None = None,
    propensity: ArrayLike | float | None = None,
    weights: ArrayLike | None = None,
    n_splits: int = 5,
    folds: ArrayLike | None = None,
    statistic: str | None = None,
    refit: Callable[[FloatArray, FloatArray], ArrayLike] | None = None,
    assignments: ArrayLike | None = None,
    n_permutations: int = 499,
    random_state: Any = 0,
    progress: bool = True,
) -> PermutationResult:
    r"""Test a randomised trial for heterogeneity along latents, by randomising the treatment anew.

    Under a constant effect c the outcomes without treatment, ``y - c t``, are known, so the outcomes under any
    other assignment are too. The treatment is drawn anew as it was assigned (whole clusters, within strata), the
    statistic (with it, where it has any, the cross-fitting of the effects) is computed again and compared with the
    observed one: a Fisher randomisation test with c estimated (Ding, Feller and Miratrix 2016, "Randomization
    inference for treatment effect variation", section 3.2).

    Parameters
    ----------
    latents : array or DataFrame of shape (n, k)
        Features along which the effect may vary, made without outcome or treatment (principal components of
        image features, for example).
    y, treatment : array of shape (n,)
        Outcome and 0/1 treatment.
    design : Design, optional
        Treatment, clusters, strata, probabilities and weights in one object, such as ``study.design``.
    groups : array of shape (n,), optional
        Clusters: folds and standard errors respect them.
    covariates : array or DataFrame of shape (n, p), optional
        Further features that predict the outcome; they make the test sharper.
    strata : array of shape (n,), optional
        Strata within which the treatment was randomised; a unit of randomisation lies in one.
    assignment : array of shape (n,), optional
        The units of randomisation, each of one treatment. By default the clusters where each has one
        treatment; where a few have both, their treated and their control units count as separate units of
        randomisation; where most have both, single units within clusters (and strata).
    propensity : float or array of shape (n,), optional
        Known probability of treatment; by default the treated share of each stratum.
    weights : array of shape (n,), optional
        Positive survey weights.
    n_splits : int
        Number of folds over clusters.
    folds : array of shape (n,), optional
        The folds, where they are given; a ``refit`` of yours must hold out the same ones.
    statistic : {"score", "autoc", "qini"}, optional
        ``"score"``, the default without ``refit``, is the ridged score statistic ``U' (V + c I)^-1 U`` with U the
        sum of doubly robust scores times latents over clusters, V its cluster-robust variance and c half the mean
        diagonal of V: nothing is cross-fitted, and in our simulations it has the most power. ``"autoc"``, the
        default with ``refit``, and ``"qini"``: RATE of out-of-fold priorities over its standard error.
    refit : callable, optional
        ``refit(y, treatment) -> priorities of shape (n,)``, cross-fitted, called for each assignment. By default
        a ridge R-learner on the latents (Nie and Wager 2021) with a cross-validated penalty, in closed form.
    assignments : array of shape (k, n), optional
        Assignments (0 or 1) that the trial could have had with equal probability, among which the treatment is drawn
        anew, such as those that a re-randomisation accepts (``assignments_of`` of :func:`causalsat.assign`).
    n_permutations : int
        Number of assignments.
    random_state : int or numpy.random.Generator
        Seed of folds and assignments.
    progress : bool
        Show a progress bar.

    Returns
    -------
    PermutationResult
        Statistic, p-value, null distribution.

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If an input cannot be used, or a unit of randomisation has both treatments or lies in several strata.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> Z, village = rng.standard_normal((800, 3)), np.repeat(np.arange(80), 10)
    >>> t = (rng.permutation(80) % 2)[village]
    >>> y = t * (1 + Z[:, 0]) + rng.standard_normal(80)[village] + rng.standard_normal(800)
    >>> permutation_test(Z, y, t, groups=village, n_permutations=99).p_value
    0.01
    """
    given = {"treatment": treatment, "groups": groups, "strata": strata}
    given |= {"propensity": propensity, "weights": weights}
    treatment, groups, strata, propensity, weights = roles_of(design, given).values()
    if design is not None and not design.randomised:
        raise DataError(
            "a study that was not randomised",
            expected="a randomised trial, whose assignment can be drawn anew",
            todo="look at rate and blp of cross-fitted effects, whose scores adjust for covariates",
        )
    kind = statistic or ("score" if refit is None else "autoc")
    if kind not in ("score", "autoc", "qini") or (kind == "score" and refit is not None):
        raise ParameterError(
            f"statistic={statistic!r}",
            expected="'autoc', 'qini' or, without refit, 'score': the latents alone decide it",
        )
    count = checks.count(n_permutations, "n_permutations")
    z = _table(latents, "latents")
    n = len(z)
    outcome = inputs.check_outcome(y, n)
    t = inputs.check_treatment(treatment, n, binary=True)
    cluster = checks.codes(groups, n)
    w = checks.weights(weights, n)
    stratum = np.zeros(n, dtype=np.int64) if strata is None else checks.codes(strata, n, "strata")
    e = inputs.check_propensity(propensity, n)
    e = _share_treated(t, stratum) if e is None else e
    rng = np.random.default_rng(random_state)
    given_draws = None if assignments is None else _given(assignments, n)
    randomised = None if given_draws is not None else _randomisation_units(t, cluster, stratum, assignment, n)
    fold = assign_folds(n_splits, rng, groups=cluster) if folds is None else checks.codes(folds, n, "folds")
    checks.several(fold, 2, "folds")
    features = z if covariates is None else np.column_stack([z, _table(covariates, "covariates", n)])
    mass = np.ones(n) if w is None else w
    null_model = _NullModel.fit(features, outcome, t, e, fold, mass, cluster)
    learner = fold_ridge(z, fold, mass)

    def evaluate(assigned: FloatArray) -> float:
        residual = null_model.residual(assigned)
        scores = null_model.scores(residual, assigned)
        if kind == "score":
            return score_statistic(z, scores, cluster, mass)
        if refit is None:
            priority = learner.priorities(residual, assigned - e)
        else:
            priority = checks.numbers(refit(null_model.outcome(assigned), assigned), "refit's priorities", n)
        rank = checks.within_fold_rank(priority, fold, w)
        return rank_ratio(rank, scores, cluster, mass, kind)

    observed = evaluate(t)
    draws = progress_bar(range(count), desc="permutations", unit="draw", show=progress)
    if randomised is None:
        assert given_draws is not None
        null = np.array([evaluate(given_draws[rng.integers(len(given_draws))]) for _ in draws])
        method = f"the {len(given_draws):,} assignments given"
    else:
        null = np.array([evaluate(randomised.reassign(t, rng)) for _ in draws])
        method = randomised.description
    return PermutationResult(observed, _p_value(observed, null), null, method, n, int(cluster.max()) + 1)


def _given(assignments: ArrayLike, n: int) -> FloatArray:
    """Assignments as numbers, shape (k, n)."""
    drawn = np.asarray(assignments, dtype=float)
    if drawn.ndim != 2 or drawn.shape[1] != n or not len(drawn) or not np.isin(drawn, (0, 1)).all():
        raise DataError(
            f"assignments of shape {drawn.shape} for {n} units",
            expected=f"0 and 1, of shape (k, {n})",
            todo="plan.assignments_of(units['village']) of an Assignment",
        )
    return drawn


@aligned("priority", "scores", "groups", "weights", "folds")
def priority_test(
    priority: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    statistic: str = "autoc",
    n_permutations: int = 999,
    random_state: Any = 0,
) -> PermutationResult:
    """Test priorities that come from other data: the clusters' contributions get random signs.

    Without heterogeneity each cluster's contribution to the RATE has mean zero whatever its priority. Cheap,
    but only for priorities that do not depend on these scores (another trial, a split sample, land cover): for
    cross-fitted ones it rejects more often than nominal, use :func:`permutation_test`.

    Parameters
    ----------
    priority, scores, groups, folds, weights :
        As in :func:`causalsat.evaluation.rate`.
    statistic : {"autoc", "qini"}
        The RATE.
    n_permutations : int
        Number of draws of signs.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    PermutationResult
        Statistic, p-value, null distribution.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tau = rng.standard_normal(500)
    >>> priority_test(tau, tau + rng.standard_normal(500)).p_value
    0.001
    """
    if statistic not in ("autoc", "qini"):
        raise ParameterError(f"statistic={statistic!r}", expected="'autoc' or 'qini'")
    s = checks.numbers(priority, "priority", any_unit=True)
    n = len(s)
    gamma = checks.numbers(scores, "scores", n, any_unit=True)
    cluster = checks.codes(groups, n)
    n_groups = checks.several(cluster)
    count = checks.count(n_permutations, "n_permutations")
    w = checks.weights(weights, n)
    mass = np.ones(n) if w is None else w
    if folds is not None:
        s = checks.within_fold_rank(s, checks.codes(folds, n, "folds"), w)
    part = contributions(s, gamma, cluster, mass, statistic)
    part = part / (float(np.abs(part).max()) or 1.0)  # squares of very small or large scores leave the doubles
    scale = float(np.sqrt((part**2).sum()))
    if scale == 0:
        return PermutationResult(0.0, 1.0, np.zeros(count), "random signs of clusters", n, n_groups)
    rng = np.random.default_rng(random_state)
    chunk = max(1, 10_000_000 // n_groups)
    sizes = [min(chunk, count - start) for start in range(0, count, chunk)]
    null = np.concatenate([(1 - 2 * rng.integers(0, 2, (size, n_groups))) @ part / scale for size in sizes])
    observed = float(part.sum() / scale)
    return PermutationResult(observed, _p_value(observed, null), null, "random signs of clusters", n, n_groups)


@dataclass(frozen=True, eq=False)
class _NullModel:
    """Outcomes under a constant effect: known for every assignment.

    ``untreated`` is y - c t, ``base`` its part that features do not predict (cross-fitted over clusters).
    """

    effect: float
    untreated: FloatArray
    base: FloatArray
    propensity: FloatArray
    weight: FloatArray

    @classmethod
    def fit(
        cls,
        features: FloatArray,
        y: FloatArray,
        t: FloatArray,
        e: FloatArray,
        fold: IntArray,
        weight: FloatArray,
        cluster: IntArray,
    ) -> _NullModel:
        ridge = fold_ridge(features, fold, weight)
        effect = 0.0
        for _ in range(2):  # the effect again from outcomes adjusted for what the features predict
            untreated = y - effect * t
            base = untreated - ridge.predictions(untreated)
            gap = t - e
            effect += float((weight * gap * base).sum() / (weight * gap**2).sum())
        untreated = y - effect * t
        return cls(effect, untreated, untreated - ridge.predictions(untreated), e, weight)

    def outcome(self, t: FloatArray) -> FloatArray:
        """Outcomes that another assignment would have brought."""
        return self.untreated + self.effect * t

    def residual(self, t: FloatArray) -> FloatArray:
        """Residual outcome, less the constant effect as it would be estimated under this assignment."""
        gap = t - self.propensity
        again = float((self.weight * gap * self.base).sum() / (self.weight * gap**2).sum())
        return self.base - again * gap

    def scores(self, residual: FloatArray, t: FloatArray) -> FloatArray:
        """Doubly robust scores under this assignment, up to the constant effect."""
        return (t - self.propensity) * residual / (self.propensity * (1 - self.propensity))


def _table(values: Any, role: str, n: int | None = None) -> FloatArray:
    """Standardised features, missing values at the mean."""
    try:
        table = np.asarray(inputs.features_only(values, set()), dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"{role} that are not numbers", expected="a numeric table (unit, feature)") from None
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or table.shape[1] == 0 or (n is not None and len(table) != n) or np.isinf(table).any():
        raise DataError(f"{role} of shape {table.shape}", expected="a finite table (unit, feature), one row a unit")
    missing = np.isnan(table)
    count = np.maximum((~missing).sum(axis=0), 1)
    mean = np.where(missing, 0.0, table).sum(axis=0) / count
    centred = np.where(missing, 0.0, table - mean)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    keep = spread > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    if not keep.any():
        raise DataError(f"{role} that are constant", expected="at least one feature that varies")
    return np.asarray(centred[:, keep] / spread[keep], dtype=np.float64)


def _share_treated(t: FloatArray, stratum: IntArray) -> FloatArray:
    share = np.bincount(stratum, t) / np.bincount(stratum)
    if ((share <= 0) | (share >= 1)).any():
        raise DataError(
            "a stratum with one treatment only",
            expected="treated and control units in each stratum",
            todo="merge strata, or leave such strata out",
        )
    return share[stratum]


def _randomisation_units(
    t: FloatArray, cluster: IntArray, stratum: IntArray, assignment: ArrayLike | None, n: int
) -> RandomisationUnits:
    """What was randomised: the given units, or what the treatment shows."""
    if assignment is None:
        return randomisation_units(t, cluster, stratum)
    unit = checks.codes(assignment, n, "assignment")
    if (cluster_arms(unit, t) == MIXED).any():
        raise DataError("a unit of randomisation with treated and control units", expected="one treatment each")
    words = "treatment of the given units of randomisation"
    return RandomisationUnits(unit, one_stratum_each(unit, stratum), words)


def _p_value(observed: float, null: FloatArray) -> float:
    return float((1 + np.count_nonzero(null >= observed - 1e-12)) / (1 + len(null)))
