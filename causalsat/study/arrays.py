"""What the checks of a study look at: its roles and covariates as arrays, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.exceptions import CausalsatError
from causalsat.study.leaks import Leak, find_leaks
from causalsat.study.missing_codes import Code, codes_of

__all__ = ["Arrays", "read_arrays"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Arrays:
    """A study's roles as arrays of shape (n,), None where absent or unusable, and its numeric covariates.

    Attributes
    ----------
    y, labelled, t, weights, propensity : ndarray of float or None
        NaN where missing.
    clusters, strata : ndarray of int or None
        Codes in the order of appearance, -1 where missing.
    covariates : DataFrame of shape (n, p)
        Numeric covariates that vary, as floats; NaN where missing or infinite.
    others : DataFrame of n rows
        The other covariates: text, dates, constants.
    text : tuple of str
        Covariates that hold text or dates.
    codes : mapping of column to tuple of Code
        Values of role columns and covariates that look like codes for missing values; columns without any are left
        out.
    problems : mapping of role to (what, todo)
        Why a role could not be read.
    """

    y: FloatArray | None
    labelled: FloatArray | None
    t: FloatArray | None
    clusters: IntArray | None
    strata: IntArray | None
    weights: FloatArray | None
    propensity: FloatArray | None
    covariates: pd.DataFrame
    others: pd.DataFrame
    text: tuple[str, ...] = ()
    codes: Mapping[str, tuple[Code, ...]] = field(default_factory=dict)
    problems: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @cached_property
    def is_binary(self) -> bool:
        """Whether the treatment has both values 0 and 1 and no other."""
        return self.t is not None and set(np.unique(self.t[~np.isnan(self.t)])) == {0.0, 1.0}

    @cached_property
    def leaks(self) -> dict[str, Leak]:
        """Why each covariate that is made from the treatment, or determines it, does."""
        if not self.is_binary or self.t is None:
            return {}
        return find_leaks(self.covariates, self.others, self.t, self.assigned)

    @cached_property
    def honest(self) -> pd.DataFrame:
        """Numeric covariates without those that leak."""
        return self.covariates[[c for c in self.covariates.columns if str(c) not in self.leaks]]

    @cached_property
    def blocks(self) -> IntArray | None:
        """Within what treatment was assigned with one probability: strata, or values of the stated propensity."""
        if self.strata is not None:
            return self.strata
        if self.propensity is None or not np.nanmax(self.propensity) > np.nanmin(self.propensity):
            return None
        return probability_bins(self.propensity)

    @cached_property
    def n_clusters(self) -> int:
        """Number of clusters; of units where there are none."""
        if self.clusters is None:
            return len(self.covariates)
        return int(self.clusters.max(initial=-1)) + 1

    @cached_property
    def assigned(self) -> IntArray:
        """What was assigned, as codes of shape (n,): clusters, or units where most clusters hold both arms.

        A unit without a cluster is one of its own.
        """
        if self.clusters is None or self.are_mixed.mean() > 0.5:
            return np.arange(len(self.covariates))
        alone = self.clusters < 0
        return np.where(alone, self.n_clusters + np.cumsum(alone) - 1, self.clusters).astype(np.int64)

    @cached_property
    def are_mixed(self) -> NDArray[np.bool_]:
        """Whether each cluster holds treated and control units, shape (n_clusters,)."""
        lowest, highest = self.arms_of_clusters
        return lowest < highest

    @cached_property
    def arms_of_clusters(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest treatment in each cluster, NaN where none is known."""
        assert self.clusters is not None
        assert self.t is not None
        return extremes(self.t, self.clusters, self.n_clusters)

    def without_codes(self, role: str, study: Any) -> FloatArray:
        """Finite values of the outcome or the treatment that are no codes for missing values."""
        values = self.y if role == "outcome" else self.t
        assert values is not None
        finite = values[np.isfinite(values)]
        codes = [c.value for c in self.codes.get(study.roles[role], ()) if c.certain and not isinstance(c.value, str)]
        return finite[~np.isin(finite, codes)] if codes else finite


def extremes(values: FloatArray, codes: IntArray, n_codes: int) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest value under each code, shape (n_codes,) each; missing values and codes below 0 left out.

    Examples
    --------
    >>> extremes(np.array([1.0, 3.0, 2.0]), np.array([0, 0, 1]), 2)
    (array([1., 2.]), array([3., 2.]))
    """
    known = ~np.isnan(values) & (codes >= 0)
    lowest, highest = np.full(n_codes, np.nan), np.full(n_codes, np.nan)
    np.fmin.at(lowest, codes[known], values[known])
    np.fmax.at(highest, codes[known], values[known])
    return lowest, highest


def probability_bins(e: FloatArray, most: int = 20) -> IntArray:
    """Codes of the values of a probability, -1 where it is missing; of as many quantiles where there are more.

    Examples
    --------
    >>> probability_bins(np.array([0.2, 0.8, 0.2]))
    array([0, 1, 0])
    """
    codes, values = pd.factorize(pd.Series(e), sort=True)
    if len(values) > most:
        codes = pd.qcut(pd.Series(e), most, labels=False, duplicates="drop").fillna(-1).to_numpy()
    return np.asarray(codes, dtype=np.int64)


def read_arrays(study: Any) -> Arrays:
    """Read each role; an error becomes a problem to report."""
    problems: dict[str, tuple[str, str]] = {}

    def attempt(key: str, name: str) -> Any:
        try:
            return getattr(study, name)
        except CausalsatError as error:
            problems[key] = (error.what, error.todo or error.expected or "check the column")
            return None

    pairs = {"y": "y", "labelled": "labelled", "t": "treatment", "weights": "weights", "propensity": "propensity"}
    codes = {column: codes_of(study, column, role) for role, column in _columns(study)}
    numeric, text = _numeric_covariates(study)
    return Arrays(
        **{key: attempt(key, name) for key, name in pairs.items()},
        clusters=_codes(study.groups),
        strata=_codes(study.strata),
        covariates=numeric,
        text=text,
        others=pd.DataFrame(study.units[[c for c in study.covariates if c not in numeric.columns]]),
        codes={column: found for column, found in codes.items() if found},
        problems=problems,
    )


def _columns(study: Any) -> list[tuple[str, str]]:
    """Role and column of everything that may hold codes for missing values, each column once."""
    held = ("outcome", "outcome_labelled", "treatment", "cluster", "strata", "weights", "propensity")
    roles = {study.roles[role]: role for role in held if role in study.roles}
    return [(role, column) for column, role in (dict.fromkeys(study.covariates, "covariate") | roles).items()]


def _codes(labels: Any) -> IntArray | None:
    if labels is None:
        return None
    return np.asarray(pd.factorize(pd.Series(labels), use_na_sentinel=True)[0], dtype=np.int64)


def _numeric_covariates(study: Any) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Covariates that are numbers and vary, and the names of those that are no numbers."""
    frame = pd.DataFrame(study.units[list(study.covariates)])
    columns, text = {}, []
    for name in frame.columns:
        try:
            x = frame[name].astype(float).to_numpy()  # objects and categories of numbers too, as estimators do
        except (TypeError, ValueError):
            text.append(str(name))
            continue
        finite = x[np.isfinite(x)]
        if len(finite) and finite.min() < finite.max():
            columns[name] = np.where(np.isfinite(x), x, np.nan)
    return pd.DataFrame(columns, index=frame.index), tuple(text)
