r"""Average effects of a trial as it was designed: strata, clusters, pairs and weights.

With strata s, weights w (N_s their sum in s, N in all) and the arms' weighted means in a stratum,

* :func:`blocked_difference`: ``sum_s (N_s / N) (mean_1s - mean_0s)``, the average effect;
* :func:`interacted_adjustment`: the same, less what covariates explain, with slopes of their own in each arm (Lin
  2013): ``y = a_{s,arm} + (x - mean x)' g_arm``, estimate ``sum_s (N_s / N)(a_1s - a_0s)``: the average effect;
* :func:`fixed_effects`: least squares with stratum effects, ``sum_s h_s (mean_1s - mean_0s) / sum_s h_s`` with
  ``h_s = N_s e_s (1 - e_s)`` and e_s the treated share: another average of the strata's effects, the average effect
  only where they are equal or treated shares are;
* :func:`score_projection` and :func:`score_mean`: weighted least squares of doubly robust scores on a design, such as
  a constant (the average effect), indicators of groups (GATES) or modifiers (the best linear projection).

Variances are those of the assignment. Where each arm of a stratum holds two clusters or more, clusters vary about
their cell, the arm of the stratum (Neyman 1923; CR2). A stratum in which an arm holds a single cluster, such as a
pair, has no such variance, and clustering on the village makes standard errors of regressions with pair effects too
small by a factor of up to the square root of two at any number of pairs (de Chaisemartin and Ramirez-Cuellar 2024).
There the strata are the clusters: their differences vary about their mean (Imai, King and Nall 2009). A design with
strata of both kinds is estimated in two parts, whose estimates and variances add up with the weights of their strata
(Pashley and Miratrix 2021); the degrees of freedom are pooled, ``(V_1 + V_2)^2 / (V_1^2 / d_1 + V_2^2 / d_2)``.

Slopes of each arm need clusters to vary within cells. In strata with one cluster an arm, differences in outcomes are
regressed on differences in covariates (Fogarty 2018; Bai and others 2024), where there are more than twice as many
strata as coefficients, and are unadjusted otherwise. Where slopes of each arm are so many that clusters are left
without residuals, the arms have slopes in common, and if these are still too many, none: every choice estimates the
average effect, and none looks at the outcome. ``slopes`` says which.

Scores: with ``s_g = sum_{i in g} l_i e_i`` the influence of cluster g, the variance is the sum over clusters of
``(s_g - mean of its cell)^2``, scaled to be unbiased for errors whose variances are in proportion to ``1 / e^2`` for
treated and ``1 / (1 - e)^2`` for control units (:mod:`causalsat.inference.centred`), e the treated share of the
stratum's clusters: doubly robust scores divide residuals by it. For the mean, ``s_g`` is
``W_g (mean score_g - estimate) / W``. What the cell's mean holds is fixed by the assignment, which drew so many
clusters of the cell. Strata with one cluster an arm are one cluster here too, and together one cell.

References
----------
Bai, Jiang, Romano, Shaikh and Zhang (2024), "Covariate adjustment in experiments with matched pairs", Journal of
Econometrics 241. de Chaisemartin and Ramirez-Cuellar (2024), "At what level should one cluster standard errors in
paired and small-strata experiments?", American Economic Journal: Applied Economics 16. Fogarty (2018),
"Regression-assisted inference for the average treatment effect in paired experiments", Biometrika 105. Imai, King and
Nall (2009), "The essential role of pair matching in cluster-randomized experiments", Statistical Science 24. Lin
(2013), "Agnostic notes on regression adjustments to experimental data", Annals of Applied Statistics 7. Pashley and
Miratrix (2021), "Insights on variance estimation for blocked and matched pairs designs", Journal of Educational and
Behavioral Statistics 46.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.inputs import check_magnitude
from causalsat.design.design import pool
from causalsat.exceptions import DataError, DataWarning, TreatmentError
from causalsat.inference.leverage import codes
from causalsat.inference.robust import (
    RobustFit,
    effective_clusters,
    independent_columns,
    least_squares,
    t_interval,
    t_p_value,
)

__all__ = [
    "AVERAGE_EFFECT",
    "COMMON_SLOPES",
    "NO_SLOPES",
    "SLOPES_BY_ARM",
    "VARIANCE_WEIGHTED",
    "EffectEstimate",
    "Layout",
    "blocked_difference",
    "fixed_effects",
    "interacted_adjustment",
    "lay_out",
    "score_mean",
    "score_projection",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

AVERAGE_EFFECT = "average effect"
VARIANCE_WEIGHTED = "strata's effects weighted by N e (1 - e)"
SLOPES_BY_ARM, COMMON_SLOPES, NO_SLOPES = "by arm", "common", "none"


@dataclass(frozen=True)
class EffectEstimate:
    """One average effect with its reference distribution.

    Attributes
    ----------
    estimate, se, df : float
        Estimate, standard error and degrees of freedom of the t reference; the standard error is NaN where too few
        clusters are left to tell it.
    estimand : str
        ``AVERAGE_EFFECT`` or ``VARIANCE_WEIGHTED``.
    clustered_on : str
        ``"units"``, ``"clusters"``, ``"strata"`` (those with one cluster an arm), or two of them.
    n, clusters, strata : int
        Units of positive weight that are used, their clusters (units, where there are none) and strata.
    left_out : int
        Units of positive weight in strata with one arm, which no estimate can use.
    effective_clusters : float
        How many equal clusters (strata, where these are the clusters) would carry as much information.
    identified_share : float
        Share of the variance that residuals can show; where it is below 1, a cluster is alone in its arm and its
        variance is taken from the others.
    slopes : str
        Slopes of covariates that were adjusted for: ``"by arm"``, ``"common"``, ``"none"``, or two of them.
    """

    estimate: float
    se: float
    df: float
    estimand: str
    clustered_on: str
    n: int
    clusters: int
    strata: int
    left_out: int
    effective_clusters: float
    identified_share: float
    slopes: str = NO_SLOPES

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval."""
        lower, upper = t_interval(self.estimate, self.se, self.df, level)
        return float(lower), float(upper)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no effect."""
        return float(t_p_value(self.estimate, self.se, self.df))


# ---------------------------------------------------------------------- the assignment
@dataclass(frozen=True, eq=False)
class Layout:
    """Who was assigned with whom, of the units that can be used: positive weight, a stratum with both arms.

    Attributes
    ----------
    used : ndarray of bool of shape (n_rows,)
        Which of the given rows these are.
    arm : ndarray of shape (n,)
        0 control, 1 treated.
    weight : ndarray of shape (n,)
        Weights, of mean 1.
    stratum, cluster : ndarrays of int of shape (n,)
        Codes 0, 1, ...
    fine : ndarray of bool of shape (n,)
        Units of strata in which an arm holds one cluster, where there are two such strata or more.
    pooled : ndarray of int of shape (n,)
        The clusters of the variance: the strata of fine units (those that a cluster connects are one), clusters of
        the others.
    clustered, stratified : bool
        Whether clusters and strata were given.
    left_out : int
        Units of positive weight in strata with one arm.
    """

    used: BoolArray
    arm: IntArray
    weight: FloatArray
    stratum: IntArray
    cluster: IntArray
    fine: BoolArray
    pooled: IntArray
    clustered: bool
    stratified: bool
    left_out: int

    @property
    def clustered_on(self) -> str:
        """What the variance is clustered on, in words."""
        units = "clusters" if self.clustered else "units"
        names = [*([units] if not self.fine.all() else []), *(["strata"] if self.fine.any() else [])]
        return " and ".join(names)

    @property
    def cells(self) -> IntArray:
        """Cells within which clusters were drawn, (n,): arms of strata, clusters of both arms apart; 0 if fine."""
        treated = np.bincount(self.pooled, self.arm) / np.bincount(self.pooled)
        kind = np.where(treated <= 0, 0, np.where(treated >= 1, 1, 2))[self.pooled]
        return np.where(self.fine, 0, 1 + 3 * self.stratum + kind)


def lay_out(
    treatment: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Layout:
    """The layout of a trial with two arms.

    Parameters
    ----------
    treatment : array of shape (n,)
        0 for control, 1 for treated (or bool).
    strata, clusters : arrays of shape (n,), optional
        Strata within which, and clusters to which, treatment was assigned; any labels.
    weights : array of shape (n,), optional
        Survey weights; units of weight zero are dropped before strata and clusters are counted.

    Raises
    ------
    TreatmentError
        If the treatment is not 0 and 1, or no stratum holds both arms.
    DataError
        If lengths differ or weights are negative.

    Warns
    -----
    DataWarning
        Where strata with one arm are left out.

    Examples
    --------
    Two pairs of villages and a stratum of four:

    >>> village = np.arange(8)
    >>> found = lay_out([0, 1, 0, 1, 0, 1, 0, 1], strata=list("aabbcccc"), clusters=village)
    >>> found.fine.astype(int), found.pooled, found.clustered_on
    (array([1, 1, 1, 1, 0, 0, 0, 0]), array([0, 0, 1, 1, 2, 3, 4, 5]), 'clusters and strata')
    """
    t = np.asarray(treatment, dtype=float)
    w = np.ones(len(t)) if weights is None else np.asarray(weights, dtype=float)
    for name, values in (("weights", w), ("strata", strata), ("clusters", clusters)):
        if values is not None and np.shape(values) != t.shape:
            raise DataError(f"{name} of shape {np.shape(values)} for {len(t)} units", expected=f"({len(t)},)")
    if not np.isfinite(w).all() or (w < 0).any():
        raise DataError("weights that are negative or not finite", expected="weights from 0 on")
    seen = w > 0
    if not np.isin(t[seen], (0.0, 1.0)).all():
        raise TreatmentError("a treatment with other values than 0 and 1", expected="0 for control, 1 for treated")
    stratum = np.zeros(len(t), dtype=np.int64)
    if strata is not None:
        stratum[seen] = codes(np.asarray(strata)[seen])
    used = seen & _both_arms(stratum, t, seen)
    if not used.any():
        raise TreatmentError("no stratum holds treated and control units", expected="both arms")
    left_out = int((seen & ~used).sum())
    if left_out:
        lost = len(np.unique(stratum[seen & ~used]))
        warnings.warn(
            f"{left_out} units in {lost} {'stratum' if lost == 1 else 'strata'} with one arm are left out: "
            "averages are over the other strata",
            DataWarning,
            stacklevel=3,
        )
    arm, stratum = t[used].astype(np.int64), codes(stratum[used])
    cluster = np.arange(len(arm)) if clusters is None else codes(np.asarray(clusters)[used])
    fine, pooled = pool(arm, stratum, cluster)
    weight = w[used] / w[used].mean()
    return Layout(
        used, arm, weight, stratum, cluster, fine, pooled, clusters is not None, strata is not None, left_out
    )


def _both_arms(stratum: IntArray, t: FloatArray, seen: BoolArray) -> BoolArray:
    arms = [np.bincount(stratum, seen & (t == arm)) > 0 for arm in (0, 1)]
    return np.asarray((arms[0] & arms[1])[stratum])


# ---------------------------------------------------------------------- estimators
def blocked_difference(
    y: ArrayLike,
    treatment: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    kind: str = "CR2",
) -> EffectEstimate:
    """Difference in means within strata, averaged over units: ``sum_s (N_s / N)(mean_1s - mean_0s)``.

    Parameters
    ----------
    y : array of shape (n,)
        Outcome.
    treatment, strata, clusters, weights : arrays of shape (n,)
        As in :func:`lay_out`.
    kind : {"CR2", "CV3"}
        Covariance, as in :func:`~causalsat.inference.robust.least_squares`.

    Raises
    ------
    DataError, TreatmentError
        As in :func:`lay_out`, or if outcomes are not finite.

    Examples
    --------
    Treated shares of 1/4 and 3/4, a gap of 10 between strata, an effect of 1:

    >>> y, t = [0.0, 0.2, -0.2, 1.0, 10.0, 11.2, 10.8, 11.0], [0, 0, 0, 1, 0, 1, 1, 1]
    >>> found = blocked_difference(y, t, strata=list("aaaabbbb"))
    >>> round(found.estimate, 6), found.estimand, found.clustered_on
    (1.0, 'average effect', 'strata')
    """
    layout = lay_out(treatment, strata=strata, clusters=clusters, weights=weights)
    return _saturated(_outcome(y, layout), None, layout, kind)


def interacted_adjustment(
    y: ArrayLike,
    treatment: ArrayLike,
    covariates: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    kind: str = "CR2",
) -> EffectEstimate:
    """Lin's (2013) adjustment for covariates, interacted with the treatment, as are the strata: the average effect.

    Parameters
    ----------
    y, treatment, strata, clusters, weights, kind
        As in :func:`blocked_difference`.
    covariates : array of shape (n, k)
        Measured before treatment, finite. Columns that depend on others are dropped.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, t = rng.standard_normal(400), np.tile([0, 1], 200)
    >>> y = 3 * x + t * (1 + x) + 0.1 * rng.standard_normal(400)
    >>> found = interacted_adjustment(y, t, x[:, None])
    >>> plain = blocked_difference(y, t)
    >>> bool(abs(found.estimate - 1 - x.mean()) < 0.02), round(found.se, 3), round(plain.se, 3)
    (True, 0.01, 0.354)
    """
    layout = lay_out(treatment, strata=strata, clusters=clusters, weights=weights)
    return _saturated(_outcome(y, layout), _covariates(covariates, layout), layout, kind)


def fixed_effects(
    y: ArrayLike,
    treatment: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    kind: str = "CR2",
) -> EffectEstimate:
    """Least squares of the outcome on treatment, stratum effects and covariates.

    It averages the strata's effects with weights ``N_s e_s (1 - e_s)``, e_s the treated share: ``estimand`` says
    so, unless there is one stratum.

    Parameters
    ----------
    y, treatment, strata, clusters, weights, kind
        As in :func:`blocked_difference`.
    covariates : array of shape (n, k), optional
        Measured before treatment, finite.

    Examples
    --------
    Effects of 1 and 3 in strata of equal size with treated shares of 1/2 and 1/5:

    >>> y = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3]
    >>> t = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    >>> strata = np.repeat([0, 1], 10)
    >>> [round(estimator(y, t, strata=strata).estimate, 2) for estimator in (fixed_effects, blocked_difference)]
    [1.78, 2.0]
    """
    layout = lay_out(treatment, strata=strata, clusters=clusters, weights=weights)
    outcome, t = _outcome(y, layout), layout.arm.astype(float)[:, None]
    X = t if covariates is None else np.hstack([t, _covariates(covariates, layout)])
    fit = least_squares(
        outcome,
        X,
        weights=layout.weight,
        clusters=layout.pooled,
        absorb=layout.stratum,
        contrast=np.eye(X.shape[1])[0],
        kind=kind,
        icc=None,
    )
    count = _effective(t[:, 0] - _stratum_mean(t[:, 0], layout), layout)
    estimand = VARIANCE_WEIGHTED if layout.stratum.any() else AVERAGE_EFFECT
    return _estimate(fit, layout, estimand, count, COMMON_SLOPES if X.shape[1] > 1 else NO_SLOPES)


def _outcome(y: ArrayLike, layout: Layout) -> FloatArray:
    outcome = np.asarray(y, dtype=float)
    if outcome.shape != layout.used.shape:
        raise DataError(f"y of shape {outcome.shape} for {len(layout.used)} units", expected=f"({len(layout.used)},)")
    return outcome[layout.used]


def _covariates(covariates: ArrayLike, layout: Layout) -> FloatArray:
    table = np.asarray(covariates, dtype=float)
    if table.ndim != 2 or len(table) != len(layout.used):
        raise DataError(f"covariates of shape {table.shape}", expected=f"({len(layout.used)}, k)")
    table = table[layout.used]
    if not np.isfinite(table).all():
        raise DataError("covariates that are not finite", todo="impute them, and flag what was missing")
    return table


def _stratum_mean(values: FloatArray, layout: Layout) -> FloatArray:
    mass = np.bincount(layout.stratum, layout.weight)
    return np.asarray((np.bincount(layout.stratum, layout.weight * values) / mass)[layout.stratum])


def _effective(direction: FloatArray, layout: Layout) -> float:
    """Effective number of the variance's clusters; clusters of a pooled stratum add up."""
    influence = layout.weight * direction
    if not layout.fine.any():
        return float(effective_clusters(influence, layout.cluster))
    pair, code = np.unique(np.stack([layout.pooled, layout.cluster]), axis=1, return_inverse=True)
    share = np.bincount(pair[0], np.bincount(code.ravel(), influence) ** 2)
    return float(share.sum() ** 2 / (share**2).sum()) if share.any() else 0.0


def _saturated(y: FloatArray, x: FloatArray | None, layout: Layout, kind: str) -> EffectEstimate:
    """Arms of strata apart, averaged with the strata's weights, in two parts where there are strata of two kinds."""
    parts, shares, slopes = [], [], []
    for rows, estimator in ((~layout.fine, _coarse), (layout.fine, _fine)):
        if rows.any():
            part = replace(
                layout,
                arm=layout.arm[rows],
                weight=layout.weight[rows],
                stratum=codes(layout.stratum[rows]),
                cluster=layout.cluster[rows],
                fine=layout.fine[rows],
                pooled=layout.pooled[rows],
            )
            found, adjusted = estimator(y[rows], None if x is None else x[rows], part, kind)
            parts.append(found)
            slopes.append(adjusted)
            shares.append(float(layout.weight[rows].sum() / layout.weight.sum()))
    cell = 2 * layout.stratum + layout.arm
    mass, whole = np.bincount(cell, layout.weight)[cell], np.bincount(layout.stratum, layout.weight)[layout.stratum]
    count = _effective(whole / mass, layout)
    used = " and ".join(dict.fromkeys(slopes))
    if len(parts) == 1:
        return _estimate(parts[0], layout, AVERAGE_EFFECT, count, used)
    share = np.array(shares)
    variance = share**2 * [float(part.cov[0, 0]) for part in parts]
    df = variance.sum() ** 2 / (variance**2 / [float(part.df[0]) for part in parts]).sum()
    whole_fit = replace(
        parts[0],
        estimate=share @ [part.estimate for part in parts],
        cov=np.array([[variance.sum()]]),
        df=np.array([df]),
        identified_share=np.min([part.identified_share for part in parts], axis=0),
    )
    return _estimate(whole_fit, layout, AVERAGE_EFFECT, count, used)


def _coarse(y: FloatArray, x: FloatArray | None, layout: Layout, kind: str) -> tuple[RobustFit, str]:
    """Cell means, less slopes on covariates, for strata with two clusters or more an arm; which slopes."""
    weight, cell = layout.weight, 2 * layout.stratum + layout.arm
    share = np.bincount(layout.stratum, weight) / weight.sum()

    def fit(columns: FloatArray) -> RobustFit:
        return least_squares(
            y,
            columns[:, independent_columns(columns, weights=weight, absorb=cell)],
            weights=weight,
            clusters=layout.cluster if layout.clustered else None,
            absorb=cell,
            level_contrast=np.column_stack([-share, share]).ravel(),
            kind=kind,
            icc=None,
        )

    if x is None or x.shape[1] == 0:
        return fit(np.zeros((len(y), 0))), NO_SLOPES
    centred = x - np.average(x, axis=0, weights=weight)
    interacted = fit(np.hstack([centred * (layout.arm == arm)[:, None] for arm in (0, 1)]))
    if interacted.identified_share[0] == 1:
        return interacted, SLOPES_BY_ARM
    common, plain = fit(centred), fit(np.zeros((len(y), 0)))
    for found, slopes in ((interacted, SLOPES_BY_ARM), (common, COMMON_SLOPES)):
        if found.identified_share[0] > plain.identified_share[0] - 1e-6:
            return found, slopes
    return plain, NO_SLOPES


def _fine(y: FloatArray, x: FloatArray | None, layout: Layout, kind: str) -> tuple[RobustFit, str]:
    """Mean of the strata's differences, less slopes on their differences in covariates; which slopes."""
    mass = np.bincount(layout.stratum, layout.weight).astype(float)
    owner = np.zeros(len(mass), dtype=np.int64)
    owner[layout.stratum] = layout.pooled
    n_owners = len(np.unique(owner))
    design = np.zeros((len(mass), 0))
    if x is not None:
        columns = _differences(x - np.average(x, axis=0, weights=layout.weight), layout)
        kept = independent_columns(columns, weights=mass, absorb=np.zeros(len(mass), dtype=np.int64))
        if n_owners > 2 * (kept.sum() + 1):
            design = columns[:, kept]
    fit = least_squares(
        _differences(y[:, None], layout)[:, 0],
        design,
        weights=mass,
        clusters=owner if n_owners < len(owner) else None,
        absorb=np.zeros(len(mass)),
        level_contrast=np.ones(1),
        kind=kind,
    )
    return fit, COMMON_SLOPES if design.shape[1] else NO_SLOPES


def _differences(values: FloatArray, layout: Layout) -> FloatArray:
    """Treated less control means of the strata, shape (strata, k)."""
    cell = 2 * layout.stratum + layout.arm
    mass = np.bincount(cell, layout.weight)
    means = np.column_stack([np.bincount(cell, layout.weight * column) / mass for column in values.T])
    return np.asarray(means[1::2] - means[::2])


def _estimate(fit: RobustFit, layout: Layout, estimand: str, count: float, slopes: str = NO_SLOPES) -> EffectEstimate:
    return EffectEstimate(
        estimate=float(fit.estimate[0]),
        se=float(fit.se[0]),
        df=float(fit.df[0]),
        estimand=estimand,
        clustered_on=layout.clustered_on,
        n=len(layout.arm),
        clusters=int(layout.cluster.max()) + 1,
        strata=int(layout.stratum.max()) + 1,
        left_out=layout.left_out,
        effective_clusters=count,
        identified_share=float(fit.identified_share[0]),
        slopes=slopes,
    )


# ---------------------------------------------------------------------- scores
def score_projection(
    scores: ArrayLike,
    design: ArrayLike,
    *,
    treatment: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    contrast: ArrayLike | None = None,
) -> RobustFit:
    """Weighted least squares of doubly robust scores on a design, with the variance of the assignment.

    Parameters
    ----------
    scores : array of shape (n,)
        Doubly robust scores; NaN where the weight is zero.
    design : array of shape (n, k)
        A constant for the average effect, indicators of groups for their averages (GATES), a constant and modifiers
        for the best linear projection.
    treatment : array of shape (n,), optional
        0 and 1, where the numbers of clusters in each arm (of each stratum) were fixed, or the propensity is their
        share. Without it, as for observational data, scores are a random sample of clusters.
    strata, clusters, weights : arrays of shape (n,), optional
        As in :func:`lay_out`; strata need the treatment.
    contrast : array of shape (k,) or (k, q), optional
        Contrasts of the coefficients; each by default.

    Raises
    ------
    TreatmentError
        If strata are given without the treatment.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> group, t = np.repeat([0, 1], 500), np.tile([0, 1], 500)
    >>> scores = 1.0 + group + rng.standard_normal(1000)
    >>> found = score_projection(scores, np.column_stack([group == 0, group == 1]), treatment=t)
    >>> found.estimate.round(2), found.se.round(3)
    (array([0.97, 1.93]), array([0.045, 0.042]))
    """
    check_magnitude(np.asarray(scores, dtype=float), "scores")
    if treatment is None:
        if strata is not None:
            raise TreatmentError("strata without a treatment", todo="give the treatment that was assigned in them")
        return least_squares(scores, design, weights=weights, clusters=clusters, contrast=contrast, icc=None)
    layout = lay_out(treatment, strata=strata, clusters=clusters, weights=weights)
    return _project(_outcome(scores, layout), np.asarray(design, dtype=float)[layout.used], layout, contrast)


def _project(scores: FloatArray, design: FloatArray, layout: Layout, contrast: Any = None) -> RobustFit:
    fit = least_squares(
        scores,
        design,
        weights=layout.weight,
        clusters=layout.pooled if layout.clustered or layout.fine.any() else None,
        contrast=contrast,
        cells=layout.cells,
        noise=_score_noise(layout),
        icc=None,
    )
    residual = np.full(len(layout.used), np.nan)
    residual[layout.used] = fit.residual
    return replace(fit, clusters=int(layout.cluster.max()) + 1, residual=residual)


def _score_noise(layout: Layout) -> FloatArray:
    """Relative variances of scores, ``1 / e^2`` of treated and ``1 / (1 - e)^2`` of control units, shape (n,)."""
    stratum = np.zeros(int(layout.cluster.max()) + 1, dtype=np.int64)
    stratum[layout.cluster] = layout.stratum
    share = np.bincount(layout.cluster, layout.arm) / np.bincount(layout.cluster)
    treated = (np.bincount(stratum, share) / np.bincount(stratum))[layout.stratum]
    return np.asarray(np.where(layout.arm == 1, treated, 1 - treated) ** -2.0)


def score_mean(
    scores: ArrayLike,
    *,
    treatment: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> EffectEstimate:
    """Weighted mean of doubly robust scores: the average effect, with the variance of the assignment.

    Parameters
    ----------
    scores, treatment, strata, clusters, weights
        As in :func:`score_projection`.

    Examples
    --------
    Scores of a difference in means, ``y / e`` and ``-y / (1 - e)``, have its standard error:

    >>> rng = np.random.default_rng(0)
    >>> t = np.tile([0, 1], 50)
    >>> y = 5 + t + rng.standard_normal(100)
    >>> scores = np.where(t == 1, 2 * y, -2 * y)
    >>> found, difference = score_mean(scores, treatment=t), blocked_difference(y, t)
    >>> abs(found.estimate - difference.estimate) < 1e-9, round(found.se / difference.se, 9)
    (True, 1.0)
    """
    values = np.asarray(scores, dtype=float)
    check_magnitude(values, "scores")
    if treatment is not None:
        layout = lay_out(treatment, strata=strata, clusters=clusters, weights=weights)
        fit = _project(_outcome(values, layout), np.ones((len(layout.arm), 1)), layout)
        return _estimate(fit, layout, AVERAGE_EFFECT, float(fit.effective_clusters[0]))
    fit = score_projection(values, np.ones((len(values), 1)), strata=strata, clusters=clusters, weights=weights)
    return EffectEstimate(
        estimate=float(fit.estimate[0]),
        se=float(fit.se[0]),
        df=float(fit.df[0]),
        estimand=AVERAGE_EFFECT,
        clustered_on="units" if clusters is None else "clusters",
        n=fit.n,
        clusters=fit.clusters,
        strata=1,
        left_out=0,
        effective_clusters=float(fit.effective_clusters[0]),
        identified_share=float(fit.identified_share[0]),
    )
