"""Average effects on a family of outcomes: p-values that allow for their number, and an index of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.tables import Tabular
from causalsat.core.warn import warn
from causalsat.evaluation import average_effects, checks
from causalsat.exceptions import DataError, DataWarning, ParameterError
from causalsat.inference.reassignment import randomisation_units
from causalsat.inference.stepdown import FamilyStatistics, own_p_values, romano_wolf, westfall_young
from causalsat.study.building import numeric_column, require_column
from causalsat.study.predicted import corrected_study, is_corrected

__all__ = ["OutcomeFamily", "analyse_outcomes", "family_statistics", "summary_index"]

FloatArray = NDArray[np.float64]

INDEX = "summary index"


@dataclass(frozen=True, eq=False)
class OutcomeFamily(Tabular):
    """Average effects on several outcomes.

    Attributes
    ----------
    table : DataFrame
        One row an outcome, in the order given, and the ``summary index`` last: ``estimate, se, lower, upper`` of the
        difference in means, ``p_value`` by its t reference, ``p_randomisation`` by the draws for this outcome alone,
        ``p_romano_wolf`` and ``p_westfall_young`` for the family (NaN for the index), ``n`` units with the outcome.
    index : Series
        Summary index of each unit.
    index_weights : Series
        Weight of each standardised outcome in it.
    correlation : DataFrame
        Correlation of the outcomes' statistics over the draws.
    level : float
        Level of the intervals.
    n_draws : int
        Draws of the assignment.
    assignment : str
        What was drawn anew, in words.
    """

    table: pd.DataFrame
    index: pd.Series
    index_weights: pd.Series
    correlation: pd.DataFrame
    level: float
    n_draws: int
    assignment: str

    def to_dataframe(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()

    def __str__(self) -> str:
        """The table, and what was drawn."""
        return f"{self.table.round(4).to_string()}\n\n{self._note()}"

    def _repr_html_(self) -> str:
        return f"{self.table.round(4).to_html()}<p>{escape(self._note())}</p>"

    def _note(self) -> str:
        return (
            f"Family-wise p-values by {self.n_draws:,} draws of the assignment ({self.assignment}); "
            f"{100 * self.level:.0f} % intervals of single outcomes."
        )


def analyse_outcomes(
    study: Any,
    outcomes: Sequence[str],
    *,
    signs: Mapping[str, int] | None = None,
    n_draws: int = 1999,
    level: float = 0.95,
    random_state: Any = 0,
) -> OutcomeFamily:
    """Average effects on several outcomes, with p-values for the family and a summary index.

    The p-values come from drawing the treatment anew as the design assigned it (clusters, within strata), and so
    allow for the outcomes' number and correlation. The effects are differences in means, within strata.

    Parameters
    ----------
    study : Study
        A randomised study of two arms. Its own outcome is used only if it is among the outcomes, corrected where a
        model predicted it; its ``missing_outcome`` is not used.
    outcomes : sequence of str
        Columns of outcomes, two or more. Units are left out of the outcomes that they miss.
    signs : mapping of str to {1, -1}, optional
        -1 for outcomes of which less is better, so that the index has one direction; 1 for the others.
    n_draws : int
        Draws of the assignment; the smallest p-value is ``1 / (n_draws + 1)``.
    level : float
        Level of the intervals of single outcomes.
    random_state : int or numpy.random.Generator
        Seed of the draws.

    Returns
    -------
    OutcomeFamily

    Raises
    ------
    ColumnError
        If an outcome is not a column, or holds no numbers.
    DataError, ParameterError, TreatmentError
        If the study was not randomised, there are fewer than two outcomes, or an outcome is constant.

    Warns
    -----
    DataWarning
        Where outcomes are missing.

    Examples
    --------
    >>> from causalsat import Study
    >>> rng = np.random.default_rng(0)
    >>> t = rng.permutation(np.arange(200) % 2)
    >>> table = pd.DataFrame({"t": t, "income": t + rng.standard_normal(200), "assets": rng.standard_normal(200)})
    >>> study = Study(table.assign(lon=32.0, lat=1.0), outcome="income", treatment="t", lon="lon", lat="lat")
    >>> found = analyse_outcomes(study, outcomes=["income", "assets"], n_draws=499)
    >>> found.table["p_romano_wolf"].round(3).to_list()[:2]
    [0.002, 0.432]
    """
    level, n_draws = checks.level(level), checks.count(n_draws, "n_draws", 99)
    names = _names(study, outcomes)
    design = study.design
    if not study.randomised or not design.is_binary:
        raise DataError(
            f"the study {study.name!r} " + ("was not randomised" if design.is_binary else "has not two arms"),
            expected="a randomised study of two arms: p-values come from drawing its assignment anew",
            todo="compare one arm with control, or adjust p-values of observational estimates with pyfixest (rwolf)",
        )
    w = np.ones(len(design)) if design.weights is None else design.weights
    values = np.column_stack([_outcome(study, name) for name in names])
    values = np.where(w[:, None] > 0, values, np.nan)
    _check_values(values, names)
    index, weights = summary_index(values, design.treatment, w, _signs(names, signs))
    rows = {name: _row(column, design, level) for name, column in zip(names, values.T, strict=True)}
    rows[INDEX] = _row(index, design, level)
    table = pd.DataFrame(rows).T.astype({"n": int})
    drawn, observed, words = family_statistics(np.column_stack([values, index]), design, w, n_draws, random_state)
    family, own = slice(0, len(names)), own_p_values(observed, drawn)
    table["p_randomisation"] = own
    for column, method in (("p_romano_wolf", romano_wolf), ("p_westfall_young", westfall_young)):
        table[column] = [*method(observed[family], drawn[:, family]), np.nan]
    order = [
        "estimate",
        "se",
        "lower",
        "upper",
        "p_value",
        "p_randomisation",
        "p_romano_wolf",
        "p_westfall_young",
        "n",
    ]
    table.index.name = "outcome"
    return OutcomeFamily(
        table=table[order],
        index=pd.Series(index, index=study.units.index, name=INDEX),
        index_weights=pd.Series(weights, index=names, name="weight"),
        correlation=pd.DataFrame(np.corrcoef(drawn[:, family].T), index=names, columns=names),
        level=level,
        n_draws=n_draws,
        assignment=words,
    )


def summary_index(values: FloatArray, treatment: FloatArray, w: FloatArray, signs: FloatArray) -> tuple[Any, Any]:
    """Index of each unit and weights of the outcomes (Anderson 2008).

    Outcomes are signed and standardised by the mean and standard deviation of the control units, and weighted by the
    row sums of the inverse of their covariance, so that outcomes that repeat others count less. Units that miss
    outcomes have the weighted mean of the others.

    Parameters
    ----------
    values : ndarray of shape (n, k)
        Outcomes, NaN where missing.
    treatment, w : ndarrays of shape (n,)
        0/1 treatment and weights.
    signs : ndarray of shape (k,)
        1 or -1.

    References
    ----------
    Anderson (2008), "Multiple inference and gender differences in the effects of early intervention", Journal of the
    American Statistical Association 103, section 3.2.1.

    Examples
    --------
    An outcome that is there twice counts half each time:

    >>> rng = np.random.default_rng(0)
    >>> x, t = rng.standard_normal((400, 2)), np.arange(400) % 2
    >>> twice = np.column_stack([x[:, 0], x[:, 0] + 1e-3 * x[:, 1], x[:, 1]])
    >>> weights = summary_index(twice, t, np.ones(400), np.ones(3))[1]
    >>> bool(abs(weights[:2].sum() - weights[2]) < 0.1)
    True
    """
    signed = values * signs
    control = treatment == 0
    known = np.isfinite(signed)
    mass = np.where(known & control[:, None], w[:, None], 0.0)
    mean = np.nansum(mass * np.nan_to_num(signed), axis=0) / mass.sum(axis=0)
    spread = np.sqrt((mass * np.nan_to_num(signed - mean) ** 2).sum(axis=0) / mass.sum(axis=0))
    z = np.where(known, (signed - mean) / spread, 0.0)
    pair = (w[:, None] * known).T @ known
    middle = ((w[:, None] * z).T @ known) / np.maximum(pair, 1e-300)
    cov = ((w[:, None] * z).T @ z) / np.maximum(pair, 1e-300) - middle * middle.T
    weights = np.linalg.pinv(cov, hermitian=True, rcond=1e-10).sum(axis=1)
    weights = weights / weights.sum()
    total = known @ weights
    score = np.divide(
        z @ weights, total, out=np.full(len(z), np.nan), where=known.any(axis=1) & (np.abs(total) > 1e-9)
    )
    return score, weights


def _names(study: Any, outcomes: Any) -> list[str]:
    if isinstance(outcomes, str):
        raise ParameterError(
            f"outcomes={outcomes!r}", expected="a list of columns", todo=f"outcomes=[{outcomes!r}, ...]"
        )
    names = list(outcomes)
    for name in names:
        require_column(study.units, name, "outcomes")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ParameterError(
            f"outcomes={names!r}", expected="two or more different columns", todo="for one: analyse()"
        )
    taken = {study.roles[role]: role for role in ("treatment", "cluster", "strata") if role in study.roles}
    for name in names:
        if name in taken or name in study.covariates:
            raise ParameterError(
                f"the outcome {name!r} is the {taken.get(name, 'covariate')} of the study",
                expected="outcomes measured after treatment",
                todo=f"leave {name!r} out of the one or the other",
            )
    return names


def _outcome(study: Any, name: str) -> FloatArray:
    """A column of numbers; the corrected outcome, where it is the one that a model predicted."""
    if name == study.roles["outcome"] and is_corrected(study):
        return np.asarray(corrected_study(study).y, dtype=float)
    return np.asarray(numeric_column(study.units[name], "outcome"), dtype=float)


def _signs(names: list[str], signs: Mapping[str, int] | None) -> FloatArray:
    given = dict(signs or {})
    unknown = [name for name in given if name not in names]
    if unknown or not set(given.values()) <= {1, -1}:
        raise ParameterError(
            f"signs={given!r}", expected="1 or -1 for some of the outcomes", todo=f"the outcomes are {names}"
        )
    return np.array([float(given.get(name, 1)) for name in names])


def _check_values(values: FloatArray, names: list[str]) -> None:
    for name, column in zip(names, values.T, strict=True):
        known = column[~np.isnan(column)]
        if np.isinf(known).any() or len(known) < 4 or np.ptp(known) == 0:
            raise DataError(
                f"the outcome {name!r} is infinite, constant or missing", expected="finite numbers that vary"
            )
    lost = {name: int(np.isnan(column).sum()) for name, column in zip(names, values.T, strict=True)}
    if any(lost.values()):
        listed = ", ".join(f"{name} {count:,}" for name, count in lost.items() if count)
        warn(
            f"outcomes are missing ({listed} of {len(values):,} units), and each effect is that on the units which "
            "have it, unweighted: p-values hold if the treatment does not decide who responds; analyse() weights for "
            "response one outcome at a time (missing_outcome='weight'), lee_bounds bounds",
            DataWarning,
        )


def _row(y: FloatArray, design: Any, level: float) -> dict[str, float]:
    seen = ~np.isnan(y)
    found = average_effects(y[seen], design=design.take(seen), level=level).iloc[0]
    return {name: found[name] for name in ("estimate", "se", "lower", "upper", "p_value", "n")}


def family_statistics(
    values: FloatArray, design: Any, w: FloatArray, n_draws: int, random_state: Any
) -> tuple[FloatArray, FloatArray, str]:
    """Statistics of re-drawn assignments (draws, k), of the observed one (k,), and what was drawn."""
    rng = np.random.default_rng(random_state)
    strata = np.zeros(len(design), dtype=np.int64) if design.strata is None else design.strata
    units = randomisation_units(design.treatment, design.cluster_codes, strata)
    n = int(units.unit.max()) + 1
    known = np.isfinite(values)
    middle = np.nanmean(values, axis=0)
    mass = np.stack([np.bincount(units.unit, w * seen, minlength=n) for seen in known.T], axis=1).astype(float)
    centred = np.where(known, values - middle, 0.0)
    total = np.stack([np.bincount(units.unit, w * column, minlength=n) for column in centred.T], axis=1).astype(float)
    home, arm = np.zeros(n, dtype=np.int64), np.zeros(n)
    home[units.unit], arm[units.unit] = units.stratum, design.treatment
    statistic = FamilyStatistics(mass, total, home)
    one_each = type(units)(np.arange(n), home, units.description)
    drawn = np.stack([statistic(one_each.reassign(arm, rng)) for _ in range(n_draws)])
    return drawn, statistic(arm), units.description
