"""Differences between the cells of a comparison and what drives them, with standard errors that cells share.

Cells of one study are judged on the same units, by effects that were cross-fitted over the same folds: neither cells
nor fold seeds are replicates. Within a study the standard error of any contrast of cells comes from half-samples of
clusters that all cells have in common. Over several studies the studies are the replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.robust import t_interval, t_p_value

__all__ = ["CROSSFIT", "MIN_EXTRA", "Replicates", "differences", "regress"]

FloatArray = NDArray[np.float64]

# Effects of a fold depend on the outcomes of the others, where in turn they are judged. Without heterogeneity a
# cross-fitted metric is a degenerate U-statistic that counts each pair of clusters twice, and half-samples with the
# effects as given see half of its variance; with heterogeneity they see more. See benchmarks/RESULTS.md.
CROSSFIT = float(np.sqrt(2.0))
MIN_EXTRA = 5  # clusters beyond the parameters


@dataclass(frozen=True, eq=False)
class Replicates:
    """A metric of one cell of one study over half-samples of clusters.

    Attributes
    ----------
    values : ndarray of shape (b,)
        The metric in each half-sample; the same half-samples for all cells of the study.
    clusters : float
        Effective number of clusters.
    """

    values: FloatArray
    clusters: float


Cell = tuple[str, str, str]  # study, source, model


def differences(
    rows: pd.DataFrame, replicates: Mapping[Cell, Replicates], reference: tuple[str, str]
) -> pd.DataFrame:
    """Each cell less the reference, judged on the same units.

    Parameters
    ----------
    rows : DataFrame
        ``study, source, model, seed, value`` of one metric.
    replicates : mapping of (study, source, model) to Replicates
        Of that metric; needed where a difference rests on one study.
    reference : (source, model)
        What the others are compared with.

    Returns
    -------
    DataFrame
        Indexed by source and model: ``difference, se, lower, upper, p_value``; NaN where there is no standard error.
    """
    table = _cells(rows).unstack(["source", "model"])
    found: dict[tuple[str, str], dict[str, float]] = {}
    cells: list[Any] = list(table.columns)
    for cell in cells:
        gap = (table[cell] - table[reference]).dropna()
        value = float(gap.mean()) if len(gap) else np.nan
        se, df = np.nan, np.nan
        if cell == reference:
            value = 0.0 if len(gap) else np.nan
        elif len(gap) > 1:
            se, df = float(gap.std() / np.sqrt(len(gap))), len(gap) - 1.0
        elif len(gap) == 1:
            pair = [replicates.get((str(gap.index[0]), *which)) for which in (cell, reference)]
            if pair[0] is not None and pair[1] is not None:
                se = CROSSFIT * float(np.std(pair[0].values - pair[1].values, ddof=1))
                df = max(min(pair[0].clusters, pair[1].clusters) - 1, 1.0)
        lower, upper = t_interval(value, se, df)
        found[cell] = {"difference": value, "se": se, "lower": lower, "upper": upper}
        found[cell]["p_value"] = float(t_p_value(value, se, df))
    index = pd.MultiIndex.from_tuples(list(found.keys()), names=["source", "model"])
    return pd.DataFrame(list(found.values()), index=index)


def regress(rows: pd.DataFrame, replicates: Mapping[Cell, Replicates], attributes: Mapping[str, Any]) -> pd.DataFrame:
    """Least squares of cells on sources, models and studies; fold seeds are averaged first.

    Parameters
    ----------
    rows : DataFrame
        ``study, source, model, seed, value`` of one metric.
    replicates : mapping of (study, source, model) to Replicates
        Of that metric; needed where there are few studies.
    attributes : mapping
        Numbers in the place of the names of "source" or "model".

    Returns
    -------
    DataFrame
        ``estimate, se, lower, upper, p_value`` of every column; the constant has no p-value, and differences between
        studies have an estimate only.

    Raises
    ------
    ParameterError
        If the attributes are of something else, or missing for a source or model.
    DataError
        If columns depend on each other, or there are fewer clusters than parameters and five.
    """
    unknown = set(attributes) - {"source", "model"}
    if unknown:
        raise ParameterError(f"attributes of {sorted(unknown)}", expected="of 'source' and 'model'")
    cells = _cells(rows).reset_index()
    design = pd.DataFrame({"constant": np.ones(len(cells))}, index=cells.index)
    for factor in ("source", "model"):
        design = design.join(_columns(cells[factor], factor, attributes.get(factor)))
    value, X = cells["value"].to_numpy(dtype=float), design.to_numpy(dtype=float)
    study, labels = pd.factorize(cells["study"])
    fit = _fit(value, X, study, list(design.columns))
    if len(labels) >= X.shape[1] + MIN_EXTRA:
        se, df = _over_studies(fit, X, study)
        clusters, of = float(len(labels)), "studies"
    else:
        keys = list(cells[["study", "source", "model"]].itertuples(index=False, name=None))
        se, df, clusters = _within_studies(fit, study, keys, replicates, len(labels))
        of = "clusters within studies"
    interval = t_interval(fit.coef, se, df)
    columns = {"estimate": fit.coef, "se": se, "lower": interval[:, 0], "upper": interval[:, 1]}
    table = pd.DataFrame({**columns, "p_value": t_p_value(fit.coef, se, df)}, index=design.columns)
    table.loc["constant", "p_value"] = np.nan  # without heterogeneity cross-fitting moves metrics below zero
    others = pd.DataFrame({"estimate": fit.level[1:] - fit.level[0]}, index=[f"study={x}" for x in labels[1:]])
    table = table if others.empty else pd.concat([table, others])
    spread = float(((value - value.mean()) ** 2).sum())
    table.attrs = {"r2": 1 - float((fit.residual**2).sum()) / spread if spread > 0 else np.nan, "n": len(cells)}
    table.attrs |= {"clusters": int(clusters), "errors": of}
    return table


def _cells(rows: pd.DataFrame) -> pd.Series:
    """Value of each study, source and model: the mean over fold seeds of what did not fail."""
    return rows.dropna(subset="value").groupby(["study", "source", "model"], sort=False)["value"].mean()


def _columns(values: pd.Series, factor: str, numbers: Any) -> pd.DataFrame:
    """Indicators against the first level, or the attributes of each level."""
    levels = list(values.unique())
    if numbers is None:
        return pd.DataFrame({f"{factor}={x}": (values == x).astype(float) for x in levels[1:]}, index=values.index)
    table = pd.DataFrame(numbers).T if isinstance(numbers, Mapping) else pd.DataFrame(numbers)
    missing = [level for level in levels if level not in table.index]
    if missing:
        raise ParameterError(f"no attributes of {factor} {missing[0]!r}", expected=f"a row for each {factor}")
    result = table.loc[values].astype(float)
    return result.set_axis(values.index).add_prefix(f"{factor} ")


@dataclass(frozen=True, eq=False)
class _Fit:
    """Least squares with a level for each study.

    Attributes
    ----------
    coef : ndarray of shape (p,)
        The constant, which is the mean level of the studies, and the coefficients of the other columns.
    weight : ndarray of shape (p, cells)
        What each cell's value counts in them.
    level, residual : ndarrays of shape (studies,) and (cells,)
        Level of each study, and what is left of the cells.
    """

    coef: FloatArray
    weight: FloatArray
    level: FloatArray
    residual: FloatArray


def _fit(value: FloatArray, X: FloatArray, study: NDArray[Any], names: Sequence[str]) -> _Fit:
    n_studies = int(study.max()) + 1
    mean = (study == np.arange(n_studies)[:, None]) / np.bincount(study)[:, None]  # (studies, cells)
    slopes = X[:, 1:] - (mean @ X[:, 1:])[study]
    rank = np.linalg.matrix_rank(slopes) if slopes.size else 0
    if rank < slopes.shape[1]:
        raise DataError(
            f"{slopes.shape[1]} columns ({', '.join(names[1:])}) of which only {rank} can be told apart in "
            f"{len(value)} cells",
            expected="columns that do not depend on each other",
            todo="compare more sources or models, or describe them by fewer attributes",
        )
    inverse = np.linalg.pinv(slopes) if slopes.size else np.zeros((0, len(value)))
    levels = mean - (mean @ X[:, 1:]) @ inverse
    weight = np.vstack([levels.mean(axis=0), inverse])
    level = levels @ value
    residual = value - level[study] - X[:, 1:] @ (inverse @ value)
    return _Fit(weight @ value, weight, level, residual)


def _over_studies(fit: _Fit, X: FloatArray, study: NDArray[Any]) -> tuple[FloatArray, float]:
    """Standard errors with studies as clusters; those of a t-test where all studies have all cells."""
    n = len(fit.level)
    pushes = np.stack([fit.weight[:, study == k] @ fit.residual[study == k] for k in range(n)])
    pushes[:, 0] += (fit.level - fit.level.mean()) / n  # the constant also rests on the studies' levels
    return np.sqrt((pushes**2).sum(axis=0) * n / (n - 1)), n - 1.0


def _within_studies(
    fit: _Fit, study: NDArray[Any], keys: Sequence[Cell], replicates: Mapping[Cell, Replicates], n_studies: int
) -> tuple[FloatArray, float, float]:
    """Standard errors, degrees of freedom and number of clusters from half-samples of each study's clusters."""
    p = len(fit.coef)
    absent = [key for key in keys if key not in replicates]
    if absent:
        raise DataError(
            f"{n_studies} studies for {p} parameters, and no half-samples of clusters for this metric",
            expected=f"at least {p + MIN_EXTRA} studies, parameters and five, whose differences show the error",
            todo="join the comparisons of more studies, compare fewer sources and models, or take a metric of the "
            "scores (autoc, qini, rate_ratio, qini_ratio, blp_slope, gates_difference)",
        )
    clusters = [replicates[key].clusters for key in keys]
    fewest = min(clusters)
    if fewest < p + MIN_EXTRA:
        raise DataError(
            f"{fewest:.0f} effective clusters for {p} parameters",
            expected=f"at least {p + MIN_EXTRA}, parameters and five",
            todo="compare fewer sources and models, or describe them by attributes",
        )
    variance = np.zeros(p)
    for k in range(n_studies):
        own = np.flatnonzero(study == k)
        draws = fit.weight[:, own] @ np.stack([replicates[keys[int(i)]].values for i in own])
        variance += CROSSFIT**2 * draws.var(axis=1, ddof=1)
    return np.sqrt(variance), fewest - 1, fewest
