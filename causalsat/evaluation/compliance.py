r"""Take-up of an assigned treatment: intention to treat, first stage, and the effect on compliers.

With ITT the effect of the assignment on the outcome and FS that on take-up, the effect on compliers is ``ITT / FS``
(Imbens and Angrist 1994), two-stage least squares where there are no strata. Its standard error is that of the effect
of the assignment on ``y - effect * take-up``, divided by FS. Each of the three is estimated as the average effect of
the design (strata, clusters, pairs, weights), bias-reduced, see :func:`causalsat.evaluation.average_effects`.

The Anderson-Rubin interval contains the effects b at which a test does not reject that the assignment has no effect
on ``y - b take-up``. Its coverage does not depend on the first stage; where that is weak it is unbounded: the whole
line, or all but a gap. The effective F statistic (Montiel Olea and Pflueger 2013) of one instrument is the squared t
statistic of the first stage.

References
----------
Anderson and Rubin (1949). Imbens and Angrist (1994), "Identification and estimation of local average treatment
effects", Econometrica 62. Montiel Olea and Pflueger (2013), "A robust test for weak instruments", Journal of Business
and Economic Statistics 31. Lee, McCrary, Moreira and Porter (2022), "Valid t-ratio inference for IV", American
Economic Review 112.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.core import inputs
from causalsat.core.inputs import align_all, learn_imputation
from causalsat.core.tables import Tabular
from causalsat.design import Design, make_design
from causalsat.exceptions import DataError, TreatmentError
from causalsat.inference.average_effects import EffectEstimate, blocked_difference, interacted_adjustment, score_mean
from causalsat.inference.nuisances import crossfit_nuisances, dr_scores
from causalsat.inference.robust import t_interval

__all__ = ["AndersonRubin", "Compliance", "ComplianceEstimate", "compliance"]

FloatArray = NDArray[np.float64]

WEAK_F = 10.0  # of the rule of thumb
NEGLIGIBLE_F = (
    23.1  # bias of at most a tenth of the worst case, at 5 % (Montiel Olea and Pflueger 2013, one instrument)
)


@dataclass(frozen=True)
class ComplianceEstimate:
    """One effect with its interval.

    Attributes
    ----------
    estimate, se, lower, upper : float
        Estimate, standard error and interval.
    df : float
        Degrees of freedom of the t reference.
    """

    estimate: float
    se: float
    lower: float
    upper: float
    df: float


@dataclass(frozen=True)
class AndersonRubin:
    """Anderson-Rubin confidence set of the effect on compliers.

    Attributes
    ----------
    lower, upper : float
        Ends of the interval; infinite where it is unbounded, NaN where it is empty.
    gap : tuple of float or None
        Where the set is the whole line but for a gap, its ends.
    """

    lower: float
    upper: float
    gap: tuple[float, float] | None = None

    @property
    def bounded(self) -> bool:
        """Whether both ends are finite."""
        return bool(np.isfinite(self.lower) and np.isfinite(self.upper))

    def contains(self, value: float) -> bool:
        """Whether an effect is in the set."""
        if np.isnan(self.lower):
            return False
        inside = self.lower <= value <= self.upper
        return bool(inside and (self.gap is None or not self.gap[0] < value < self.gap[1]))

    def __str__(self) -> str:
        """The set in words."""
        if np.isnan(self.lower):
            return "empty"
        if self.gap is not None:
            return f"unbounded: below {self.gap[0]:.4g} and above {self.gap[1]:.4g}"
        if not self.bounded:
            return "unbounded: the whole line, the first stage is too weak"
        return f"{self.lower:.4g} to {self.upper:.4g}"


@dataclass(frozen=True)
class Compliance(Tabular):
    """Intention to treat, take-up and the effect on compliers.

    Attributes
    ----------
    itt : ComplianceEstimate
        Effect of the assignment on the outcome.
    first_stage : ComplianceEstimate
        Effect of the assignment on take-up: the share of compliers.
    complier : ComplianceEstimate
        Effect of the treatment on those who take it up because they are assigned.
    effective_f : float
        Effective F statistic of the first stage; below 10 the t interval of ``complier`` is not to be trusted.
    anderson_rubin : AndersonRubin
        Confidence set that covers whatever the first stage.
    take_up : tuple of float
        Share that took the treatment up among control units and among assigned ones.
    level : float
        Level of the intervals.
    n, clusters : int
        Units and clusters.
    """

    itt: ComplianceEstimate
    first_stage: ComplianceEstimate
    complier: ComplianceEstimate
    effective_f: float
    anderson_rubin: AndersonRubin
    take_up: tuple[float, float]
    level: float
    n: int
    clusters: int

    def to_dataframe(self) -> pd.DataFrame:
        """Rows intention to treat, first stage, effect on compliers, and the Anderson-Rubin interval."""
        rows = {
            "intention to treat": self.itt,
            "first stage": self.first_stage,
            "effect on compliers": self.complier,
        }
        table = pd.DataFrame({name: vars(row) for name, row in rows.items()}).T.drop(columns="df")
        ends = {"estimate": self.complier.estimate, "lower": self.anderson_rubin.lower}
        table.loc["effect on compliers (Anderson-Rubin)"] = {"se": np.nan, "upper": self.anderson_rubin.upper, **ends}
        return table.rename_axis("effect")

    def _notes(self) -> list[str]:
        control, assigned = self.take_up
        said = [
            f"Take-up {assigned:.1%} of the assigned, {control:.1%} of the control units; effective F "
            f"{self.effective_f:.1f}; Anderson-Rubin {100 * self.level:.0f} % interval {self.anderson_rubin}."
        ]
        if self.effective_f < WEAK_F:
            said.append("The first stage is weak (F below 10): report the Anderson-Rubin interval and not the t one.")
        elif self.effective_f < NEGLIGIBLE_F:
            said.append(f"F is below {NEGLIGIBLE_F}: report the Anderson-Rubin interval beside the t one.")
        return said


def compliance(
    y: ArrayLike,
    take_up: ArrayLike,
    *,
    treatment: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    propensity: ArrayLike | float | None = None,
    design: Design | None = None,
    covariates: Any = None,
    level: float = 0.95,
) -> Compliance:
    """Intention to treat, first stage and the average effect on compliers, with the design's standard errors.

    Parameters
    ----------
    y : array of shape (n,)
        Outcome.
    take_up : array of shape (n,)
        Who took the treatment up, 0 or 1.
    treatment : array of shape (n,)
        The assignment, 0 or 1.
    groups, strata, sample_weight, propensity : arrays of shape (n,), optional
        Clusters, strata of the assignment, survey weights and its stated probability.
    design : Design, optional
        All of these in one object, such as ``study.design``.
    covariates : DataFrame or array of shape (n, k), optional
        To adjust for, with slopes of their own in each arm (Lin 2013), in all three effects.
    level : float
        Level of the intervals.

    Returns
    -------
    Compliance

    Raises
    ------
    TreatmentError
        If take-up or assignment are not 0 and 1, or everybody, or nobody, took the treatment up.
    DataError
        If an input cannot be used.

    Examples
    --------
    Half of the assigned take the treatment up, and nobody else; it adds 2 to their outcome:

    >>> rng = np.random.default_rng(0)
    >>> z = np.arange(2000) % 2
    >>> d = z * (rng.uniform(size=2000) < 0.5)
    >>> found = compliance(2.0 * d + rng.standard_normal(2000), d, treatment=z)
    >>> round(found.first_stage.estimate, 1), found.complier.lower < 2 < found.complier.upper
    (0.5, True)
    >>> found.effective_f > 100
    True
    """
    if design is None:
        roles = {"groups": groups, "strata": strata, "sample_weight": sample_weight, "propensity": propensity}
        given = align_all(y, {"treatment": treatment, **roles}, "y")
        design = make_design(given.pop("treatment"), **given)
    n = len(design)
    outcome = inputs.check_outcome(y, n)
    d = _check_take_up(take_up, n)
    if not design.is_binary:
        raise TreatmentError("an assignment of other values than 0 and 1", expected="0 and 1, two arms")
    effect_of = _effect_of(design, covariates)
    itt, first = effect_of(outcome), effect_of(d)
    if first.estimate == 0:
        raise TreatmentError(
            "the assignment does not move take-up at all",
            expected="take-up that differs between the arms",
            todo="there are no compliers to speak of: report the intention to treat",
        )
    late = itt.estimate / first.estimate
    residual = effect_of(outcome - late * d)
    se = residual.se / abs(first.estimate)
    lower, upper = (float(v) for v in t_interval(late, se, residual.df, level))
    w = np.ones(n) if design.weights is None else design.weights
    shares = tuple(float(np.average(d[design.treatment == k], weights=w[design.treatment == k])) for k in (0, 1))
    return Compliance(
        itt=_row(itt, level),
        first_stage=_row(first, level),
        complier=ComplianceEstimate(late, se, lower, upper, residual.df),
        effective_f=float("inf") if first.se == 0 else (first.estimate / first.se) ** 2,
        anderson_rubin=_anderson_rubin(effect_of, outcome, d, level),
        take_up=(shares[0], shares[1]),
        level=level,
        n=n,
        clusters=itt.clusters,
    )


def _check_take_up(values: Any, n: int) -> FloatArray:
    d = np.asarray(values, dtype=float)
    if d.shape != (n,):
        raise DataError(f"take_up of shape {d.shape} for {n} units", expected="one value a unit")
    if not np.isfinite(d).all():
        raise DataError(
            f"{int((~np.isfinite(d)).sum())} units without a take-up",
            expected="0 or 1 for each unit",
            todo="see check()",
        )
    if not np.isin(d, (0.0, 1.0)).all():
        raise TreatmentError(
            "take-up of other values than 0 and 1",
            expected="1 for who took the treatment up, 0 for who did not",
            todo="for amounts use linearmodels.IV2SLS",
        )
    return d


def _effect_of(design: Design, covariates: Any) -> Callable[[FloatArray], EffectEstimate]:
    """The design's estimate of the effect of the assignment on a variable, which is linear in that variable."""
    roles: dict[str, Any] = {"clusters": design.clusters, "weights": design.weights}
    stated = design.stated_probability is not None and not design.arms_were_fixed
    if not design.randomised or (stated and design.strata is None):
        return _weighted(design, covariates)
    roles["strata"] = design.strata
    table = _complete(covariates)
    if table is None:
        return lambda v: blocked_difference(v, design.treatment, **roles)
    return lambda v: interacted_adjustment(v, design.treatment, table, **roles)


def _weighted(design: Design, covariates: Any) -> Callable[[FloatArray], EffectEstimate]:
    """Doubly robust scores, where probabilities of the assignment differ between units or were not known."""
    table = _complete(covariates)
    X = np.zeros((len(design), 1)) if table is None else table
    known = design.stated_probability
    how: dict[str, Any] = {"propensity_model": "logistic"} if known is None else {"propensity": known}

    def of(v: FloatArray) -> EffectEstimate:
        nuisances = crossfit_nuisances(
            X, v, design.treatment, groups=design.clusters, sample_weight=design.weights, **how
        )
        scores = dr_scores(v, design.treatment, nuisances)
        return score_mean(scores, clusters=design.clusters, weights=design.weights)

    return of


def _complete(covariates: Any) -> FloatArray | None:
    """Covariates with missing values replaced by means and flagged; None without any."""
    if covariates is None or np.shape(covariates)[1] == 0:
        return None
    table = np.asarray(covariates, dtype=float)
    names = tuple(f"x{j}" for j in range(table.shape[1]))
    return learn_imputation(table, names).apply(table, names)


def _row(found: EffectEstimate, level: float) -> ComplianceEstimate:
    lower, upper = found.interval(level)
    return ComplianceEstimate(found.estimate, found.se, lower, upper, found.df)


def _anderson_rubin(
    effect_of: Callable[[FloatArray], EffectEstimate], y: FloatArray, d: FloatArray, level: float
) -> AndersonRubin:
    """Effects b for which ``|effect of y - b d| <= c se``: a quadratic inequality in b."""
    from scipy.stats import t

    scale = float(np.std(y)) or 1.0
    unit = y / scale
    of_y, of_d, of_both = effect_of(unit), effect_of(d), effect_of(unit - d)
    vy, vd = of_y.se**2, of_d.se**2
    shared = (vy + vd - of_both.se**2) / 2
    c2 = float(t.ppf((1 + level) / 2, min(of_y.df, of_d.df, of_both.df))) ** 2
    itt, first = of_y.estimate, of_d.estimate
    found = quadratic_set(first**2 - c2 * vd, -2 * (itt * first - c2 * shared), itt**2 - c2 * vy)
    return AndersonRubin(found[0] * scale, found[1] * scale, found[2] and (found[2][0] * scale, found[2][1] * scale))


def quadratic_set(a: float, b: float, c: float) -> tuple[float, float, tuple[float, float] | None]:
    """Where ``a x^2 + b x + c <= 0``: the ends, and the gap of a set that is the line without it.

    Examples
    --------
    >>> quadratic_set(1, 0, -4), quadratic_set(-1, 0, 4)
    ((-2.0, 2.0, None), (-inf, inf, (-2.0, 2.0)))
    >>> quadratic_set(-1, 0, -1), quadratic_set(1, 0, 1)
    ((-inf, inf, None), (nan, nan, None))
    """
    inside = b * b - 4 * a * c
    if a == 0:
        if b == 0:
            return (-np.inf, np.inf, None) if c <= 0 else (np.nan, np.nan, None)
        return (-np.inf, -c / b, None) if b > 0 else (-c / b, np.inf, None)
    if inside < 0:
        return (-np.inf, np.inf, None) if a < 0 else (np.nan, np.nan, None)
    roots = sorted(((-b - np.sqrt(inside)) / (2 * a), (-b + np.sqrt(inside)) / (2 * a)))
    low, high = (float(v) + 0.0 for v in roots)
    return (low, high, None) if a > 0 else (-np.inf, np.inf, (low, high))
