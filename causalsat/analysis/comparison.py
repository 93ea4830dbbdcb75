"""Which data, which model, by which metric: the comparison over site folds, resumable."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.analysis import sources as parts
from causalsat.analysis.describe import describe_effects
from causalsat.analysis.drivers import Replicates, differences, regress
from causalsat.core.inputs import learn_imputation
from causalsat.core.progress import bar as progress_bar
from causalsat.core.tables import Tabular
from causalsat.core.warn import warn
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.estimators.linear.estimator import BayesianLinearEffect
from causalsat.evaluation import blp, checks, crossfit_nuisances, dr_scores, gates, rate
from causalsat.evaluation.rate import half_sample
from causalsat.exceptions import DataError, DataWarning, ParameterError
from causalsat.inference.folds import fold_labels, seeded, split_folds
from causalsat.inference.robust import effective_clusters
from causalsat.plots.comparison import plot_comparison
from causalsat.study.predicted import corrected_study, is_corrected
from causalsat.study.study import given_roles

__all__ = ["Comparison", "DEFAULT_METRICS", "Judged", "METRICS", "compare", "resolve_metrics"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Split = tuple[IntArray, IntArray]  # training and test rows
LOG = logging.getLogger(__name__)


Metric = Callable[["Judged"], Any]

DEFAULT_METRICS = ("autoc", "rate_ratio", "qini", "blp_slope", "gates_difference")
TRUTH_METRICS = ("sqrt_pehe", "correlation")


@dataclass(frozen=True)
class Judged:
    """Out-of-fold effects with what they are judged by; what a metric is handed.

    Attributes
    ----------
    tau, sd : ndarray of shape (n,)
        Posterior means and standard deviations by models that did not see the unit's fold.
    fold : ndarray of int of shape (n,)
        Fold of each unit.
    scores : ndarray of shape (n,)
        Doubly robust scores, the same for all sources and models.
    groups, weights : ndarray of shape (n,) or None
        Sites and survey weights.
    truth : ndarray of shape (n,) or None
        True effects, in simulations.
    n_bootstrap, random_state : int
        Half-samples of clusters and their seed.
    design : Design or None
        That of a study with strata; metrics take clusters, strata and weights from it where it is there.
    """

    tau: FloatArray
    sd: FloatArray
    fold: NDArray[np.int64]
    scores: FloatArray
    groups: Any = None
    weights: Any = None
    truth: FloatArray | None = None
    n_bootstrap: int = 200
    random_state: int = 0
    design: Any = None

    @property
    def roles(self) -> dict[str, Any]:
        """Clusters and weights as ``rate``, ``blp`` and ``gates`` take them."""
        if self.design is not None:
            return {"design": self.design}
        return {"groups": self.groups, "weights": self.weights}

    @cached_property
    def clusters(self) -> IntArray:
        """Cluster of each unit as codes, shape (n,)."""
        groups = self.groups if self.design is None else self.design.inference_clusters
        return checks.codes(groups, len(self.tau))

    @cached_property
    def weight(self) -> FloatArray:
        """Survey weight of each unit, shape (n,); ones where there are none."""
        weights = self.weights if self.design is None else self.design.weights
        return np.ones(len(self.tau)) if weights is None else np.asarray(weights, dtype=float)

    @property
    def n_clusters(self) -> float:
        """Effective number of clusters: fewer than there are where they are uneven."""
        return float(effective_clusters(self.weight, self.clusters))

    @cached_property
    def halves(self) -> FloatArray:
        """Half-samples of clusters, shape (n_bootstrap, clusters), 1 where drawn, else -1: the same in all cells."""
        rng, count = np.random.default_rng(self.random_state), int(self.clusters.max()) + 1
        return np.array([2.0 * half_sample(count, rng) - 1 for _ in range(self.n_bootstrap)]).reshape(-1, count)

    def rate(self, method: str) -> Any:
        """RATE of the effects' ranks within folds."""
        return rate(
            self.tau,
            self.scores,
            folds=self.fold,
            method=method,
            n_bootstrap=self.n_bootstrap,
            random_state=self.random_state,
            **self.roles,
        )

    def replicates(self, estimate: float, se: float, influence: FloatArray) -> FloatArray:
        """An estimate over the half-samples, shape (n_bootstrap,), from each unit's influence on it, shape (n,)."""
        pushes = np.bincount(self.clusters, influence)
        pushes -= pushes.mean()
        size = float(np.sqrt((pushes**2).sum() * len(pushes) / max(len(pushes) - 1, 1)))
        return estimate + (self.halves @ pushes) * (se / size if size > 0 else 0.0)


def _of_rate(method: str, *, ratio: bool) -> Metric:
    def metric(judged: Judged) -> tuple[float, float, FloatArray]:
        found = judged.rate(method)
        if not ratio:
            return found.estimate, found.se, found.replicates
        return found.ratio, 1.0, found.replicates / found.se if found.se > 0 else np.zeros_like(found.replicates)

    return metric


def _blp_slope(judged: Judged) -> tuple[float, float, FloatArray]:
    found = blp(judged.tau, judged.scores, folds=judged.fold, **judged.roles)
    w, fold = judged.weight, judged.fold
    means = np.bincount(fold, w * judged.tau) / np.maximum(np.bincount(fold, w), 1e-300)
    x = judged.tau - means[fold]
    influence = w * x * (judged.scores - found.ate - found.slope * x) / float(w @ x**2)
    return found.slope, found.slope_se, judged.replicates(found.slope, found.slope_se, influence)


def _gates_difference(judged: Judged) -> tuple[float, float, FloatArray]:
    found = gates(judged.tau, judged.scores, folds=judged.fold, **judged.roles)
    sign = np.where(found.group == len(found.estimate) - 1, 1.0, np.where(found.group == 0, -1.0, 0.0))
    share = judged.weight / np.bincount(found.group, judged.weight)[found.group]
    influence = sign * share * (judged.scores - found.estimate[found.group])
    return found.difference, found.difference_se, judged.replicates(found.difference, found.difference_se, influence)


def _truth(judged: Judged) -> FloatArray:
    if judged.truth is None:
        raise ParameterError("a metric of the truth without truth=", todo="pass truth=, or leave the metric out")
    return judged.truth


def _sqrt_pehe(judged: Judged) -> float:
    return float(np.sqrt(np.average((judged.tau - _truth(judged)) ** 2, weights=judged.weight)))


def _correlation(judged: Judged) -> float:
    truth = _truth(judged)
    varies = np.ptp(judged.tau) > 0 and np.ptp(truth) > 0
    return float(np.corrcoef(judged.tau, truth)[0, 1]) if varies else 0.0


METRICS: dict[str, Metric] = {
    "autoc": _of_rate("autoc", ratio=False),
    "qini": _of_rate("qini", ratio=False),
    "rate_ratio": _of_rate("autoc", ratio=True),
    "qini_ratio": _of_rate("qini", ratio=True),
    "blp_slope": _blp_slope,
    "gates_difference": _gates_difference,
    "sqrt_pehe": _sqrt_pehe,
    "correlation": _correlation,
}


def resolve_metrics(metrics: Any, *, truth: bool) -> dict[str, Metric]:
    """Named functions for words, functions or a mapping; the default ones, with those of the truth where known."""
    if metrics is None:
        metrics = (*DEFAULT_METRICS, *(TRUTH_METRICS if truth else ()))
    if isinstance(metrics, Mapping):
        chosen = {str(name): metric for name, metric in metrics.items()}
    else:
        given = [metrics] if isinstance(metrics, str) or callable(metrics) else list(metrics)
        chosen = {m if isinstance(m, str) else getattr(m, "__name__", "metric"): m for m in given}
    result = {}
    for name, metric in chosen.items():
        if isinstance(metric, str):
            if metric not in METRICS:
                raise ParameterError(f"metric {metric!r}", expected=f"one of {', '.join(METRICS)}, or a function")
            metric = METRICS[metric]
        if not callable(metric):
            raise ParameterError(f"metric {name!r} of type {type(metric).__name__}", expected="a function")
        if not truth and metric in (_sqrt_pehe, _correlation):
            raise ParameterError(f"metric {name!r} without truth=", todo="pass truth=, or leave the metric out")
        result[name] = metric
    if not result:
        raise ParameterError("no metric", expected="at least one")
    return result


@dataclass(frozen=True, eq=False)
class Comparison(Tabular):
    """Data source x model x metric; what :func:`compare` gives.

    Attributes
    ----------
    rows : DataFrame
        One row a study, source, model, fold seed and metric: ``value, se``, and ``error``, which says why there is no
        value ("" where there is one).
    effects : dict of (source, model) to list of Judged
        Out-of-fold effects, one for each fold seed that did not fail.
    seconds : DataFrame
        CPU seconds of fitting, by source and model; 0 for what was read from the folder.
    study : Study or None
        What was analysed; None where several comparisons were joined.
    replicates : dict of (study, source, model, metric) to Replicates
        Each metric over half-samples of clusters that the cells of a study share, the mean over fold seeds.
    """

    rows: pd.DataFrame
    effects: Mapping[tuple[str, str], list[Judged]] = field(repr=False)
    seconds: pd.DataFrame = field(repr=False)
    study: Any = field(default=None, repr=False)
    replicates: Mapping[tuple[str, str, str, str], Replicates] = field(default_factory=dict, repr=False)

    def to_dataframe(self, metric: str | None = None) -> pd.DataFrame:
        """Table of one row a source, model and metric.

        Columns ``value`` (mean over studies and fold seeds), ``se`` (clustered by site, with the effects as given;
        over several studies, the error of their mean), ``seed_sd`` (standard deviation over fold seeds), ``n`` (rows
        averaged), and ``difference, difference_se, p_value`` from the first source and model, see
        :meth:`differences`. The ratio of a RATE has standard error 1 by construction. Where something failed, a
        column ``error`` says why.
        """
        rows = self.rows if metric is None else self._rows_of(metric)
        one = rows.groupby(["study", "source", "model", "metric"], sort=False)["value"].agg(["mean", "std"])
        one["se"] = rows.groupby(["study", "source", "model", "metric"], sort=False)["se"].mean()
        grouped = one.groupby(["source", "model", "metric"], sort=False)
        table = pd.DataFrame({"value": grouped["mean"].mean(), "se": grouped["se"].apply(_joined_error)})
        studies: pd.Series = grouped["mean"].count()
        several: pd.Series = grouped["mean"].std() / np.sqrt(studies)
        table["se"] = np.where(studies > 1, several, table["se"])
        table["seed_sd"] = grouped["std"].mean()
        table["n"] = rows.groupby(["source", "model", "metric"], sort=False)["value"].count()
        gaps = pd.concat({name: self.differences(str(name)) for name in rows["metric"].unique()}, names=["metric"])
        gaps = gaps.reorder_levels(["source", "model", "metric"]).rename(columns={"se": "difference_se"})
        table = table.join(gaps[["difference", "difference_se", "p_value"]])
        errors = _errors(rows)
        return (table.join(errors).fillna({"error": ""}) if len(errors) else table).reset_index()

    def differences(self, metric: str = "rate_ratio", reference: tuple[str, str] | None = None) -> pd.DataFrame:
        """Each cell less a reference cell on the same units.

        Within one study the standard error is from half-samples of its clusters, the same for both cells, times the
        square root of 2: effects that were cross-fitted depend on each other's outcomes, so that without any
        heterogeneity a difference varies twice as much as half-samples of the given effects show; with heterogeneity
        the p-values are conservative. Over several studies it is from the studies' differences. The p-values are not
        corrected for the number of cells. A calibration slope has none: it is a ratio, whose mean cross-fitting moves
        below zero where there is no heterogeneity. There is no standard error for metrics of the truth or of one's
        own in one study, where what the models were trained on decides.

        Parameters
        ----------
        metric : str
            Which metric.
        reference : (source, model), optional
            Default: the first of each.

        Returns
        -------
        DataFrame
            Indexed by source and model: ``difference, se, lower, upper`` (95 %), ``p_value``.

        Raises
        ------
        ParameterError
            If there is no such metric or cell.
        """
        rows = self._rows_of(metric)
        cells = list(rows[["source", "model"]].drop_duplicates().itertuples(index=False, name=None))
        chosen = cells[0] if reference is None else tuple(reference)
        if chosen not in cells:
            raise ParameterError(f"reference={reference!r}", expected="one of " + ", ".join(map(repr, cells)))
        found = _tested(differences(rows, self._replicates_of(metric), chosen), metric)
        return found.reindex(pd.MultiIndex.from_tuples(cells, names=["source", "model"]))

    def table(self, metric: str) -> pd.DataFrame:
        """One metric, sources down and models across."""
        result = self.to_dataframe(metric)
        return result.pivot(index="source", columns="model", values="value").loc[
            result["source"].unique(), result["model"].unique()
        ]

    def drivers(self, metric: str = "rate_ratio", attributes: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Multivariate regression of what drives a metric.

        Ordinary least squares of the cells (means over fold seeds, which are no replicates) on the sources and the
        models, against the first of each, with a level for each study. With at least as many studies as parameters
        and five, standard errors are clustered by study. With fewer they are from half-samples of the clusters of
        each study, as in :meth:`differences`, and speak of these studies only.

        Parameters
        ----------
        metric : str
            Which metric.
        attributes : mapping, optional
            Numbers that describe sources or models and take the place of their names:
            ``{"source": {"one image": {"dates": 1}, "two images": {"dates": 2}}}``.

        Returns
        -------
        DataFrame
            Rows ``constant`` (the reference cell; without a p-value, since whether there is heterogeneity is for
            :func:`causalsat.evaluation.permutation_test`), ``source=...``, ``model=...`` or attributes: ``estimate,
            se, lower, upper`` (95 %), ``p_value``; rows ``study=...`` have an estimate only. ``attrs`` has ``r2``,
            ``n`` (cells), ``clusters`` and ``errors``, which says of what.

        Raises
        ------
        ParameterError
            If there is no such metric, or an attribute is missing for a source or model.
        DataError
            If there are fewer clusters than parameters and five, or the columns depend on each other.
        """
        return _tested(regress(self._rows_of(metric), self._replicates_of(metric), attributes or {}), metric)

    def _rows_of(self, metric: str) -> pd.DataFrame:
        rows = self.rows[self.rows["metric"] == metric]
        if not len(rows):
            raise ParameterError(f"metric={metric!r}", expected=f"one of {', '.join(self.rows['metric'].unique())}")
        return rows

    def _replicates_of(self, metric: str) -> dict[tuple[str, str, str], Replicates]:
        return {key[:3]: values for key, values in self.replicates.items() if key[3] == metric}

    def quintiles(self, source: str, model: str, **options: Any) -> pd.DataFrame:
        """Effect groups of one combination described by spectral indices and land cover.

        See :func:`causalsat.analysis.describe_effects` for the options and the table.
        """
        if (source, model) not in self.effects or self.study is None:
            raise ParameterError(
                f"source={source!r}, model={model!r}",
                expected="one of " + ", ".join(f"({a!r}, {b!r})" for a, b in self.effects),
            )
        if not self.effects[source, model]:
            raise DataError(f"source={source!r}, model={model!r} failed in every fold seed", todo="see rows['error']")
        judged = self.effects[source, model][0]
        return describe_effects(self.study, judged.tau, folds=judged.fold, scores=judged.scores, **options)

    def plot(self, metric: str = "rate_ratio", ax: Any = None, **options: Any) -> Any:
        """Dot plot of a metric, see :func:`causalsat.plots.plot_comparison`."""
        return plot_comparison(self.to_dataframe(metric), ax=ax, **options)

    def __str__(self) -> str:
        """Every metric as sources x models, value and standard error."""
        blocks = []
        for metric in self.rows["metric"].unique():
            result = self.to_dataframe(metric)
            result["cell"] = [_shown(v, s) for v, s in result[["value", "se"]].values]
            wide = result.pivot(index="source", columns="model", values="cell")
            wide = wide.loc[result["source"].unique(), result["model"].unique()]
            blocks.append(f"{metric}\n{wide.rename_axis(None).rename_axis(None, axis=1).to_string()}")
        failures = _errors(self.rows).reset_index()
        told = failures.drop_duplicates(["source", "model", "error"]) if len(failures) else failures
        blocks += [f"{row.source}, {row.model}: {row.error}" for row in told.itertuples()]
        return "\n\n".join(blocks)

    def join(self, *others: Comparison) -> Comparison:
        """Comparisons of several studies as one, for tables and drivers over studies."""
        everything = [self, *others]
        labels = [name for c in everything for name in c.rows["study"].unique()]
        prefixes = [f"{k}: " if len(set(labels)) < len(labels) else "" for k in range(len(everything))]
        rows = [c.rows.assign(study=prefix + c.rows["study"]) for c, prefix in zip(everything, prefixes, strict=True)]
        seconds = sum((c.seconds for c in everything[1:]), start=self.seconds)
        replicates = {
            (prefix + study, source, model, metric): values
            for c, prefix in zip(everything, prefixes, strict=True)
            for (study, source, model, metric), values in c.replicates.items()
        }
        return Comparison(pd.concat(rows, ignore_index=True), {}, seconds, None, replicates)


def _tested(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The table without p-values of a calibration slope, whose mean is not zero where nothing is heterogeneous."""
    if metric == "blp_slope":
        table["p_value"] = np.nan
    return table


def _shown(value: float, se: float) -> str:
    if not np.isfinite(value):
        return "failed"
    return f"{value:.3f} ({se:.3f})" if np.isfinite(se) else f"{value:.3f}"


def _errors(rows: pd.DataFrame) -> pd.Series:
    """Why cells have no value, by source, model and metric; empty where nothing failed."""
    if "error" not in rows:
        return pd.Series([], dtype=object, name="error")
    failed = rows[rows["error"].fillna("") != ""]
    by = failed.groupby(["source", "model", "metric"], sort=False)["error"]
    return by.agg(lambda texts: "; ".join(dict.fromkeys(texts))) if len(failed) else failed["error"]


def _joined_error(errors: pd.Series) -> float:
    return float(np.sqrt((errors**2).sum(min_count=1)) / len(errors))


def compare(
    study: Any,
    sources: Any = None,
    models: Any = None,
    metrics: Any = None,
    *,
    cv: Any = 5,
    fold_seeds: Sequence[int] = (0,),
    folder: str | os.PathLike[str] | None = None,
    truth: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    n_bootstrap: int = 200,
    random_state: int = 0,
    progress: bool = True,
) -> Comparison:
    """Compare data sources and models by cross-fitted metrics of treatment-effect heterogeneity.

    The table of Jerzak et al. (2024, arXiv 2407.11674): every source of features is encoded and every model fitted
    on all folds of sites but one, effects are predicted for that one, and every metric judges the out-of-fold
    effects by the same doubly robust scores. Encoders are fitted on the training folds only.

    Parameters
    ----------
    study : Study
        With a binary treatment.
    sources : sequence or mapping of sources, optional
        ``"covariates"``, ``"imagery"`` (the study's), ``"both"``, an imagery (a sequence of dates is encoded by a
        :class:`causalsat.SequenceEncoder`), or any transformer of the study's X such as a
        :class:`causalsat.ImageEncoder`. A mapping names them. Default: covariates where there are any, and imagery.
    models : sequence or mapping of effect estimators, optional
        Default: :class:`causalsat.BayesianLinearEffect` and :class:`causalsat.DoublyRobustEffect`.
    metrics : sequence of str or mapping, optional
        Of ``autoc, qini, rate_ratio, qini_ratio, blp_slope, gates_difference, sqrt_pehe, correlation`` (the last two
        need ``truth``), or functions of a :class:`Judged` that return a value, or a value and its standard error.
    cv : int or splitter
        Folds over the study's clusters, or a scikit-learn splitter such as :class:`SpatialBlockCV`, whose training
        rows are used as they are: a buffer stays out.
    fold_seeds : sequence of int
        Seeds of the folds; each gives a row. With several, a splitter is used with each as its ``random_state``.
    folder : path-like, optional
        Where finished folds are kept under a key of their content: a killed run goes on where it stopped, and a
        source or model more computes only what is new. Functions and classes count by their code; what cannot be
        told apart is refused.
    truth : array of shape (n,), optional
        True effects, in simulations.
    scores : array of shape (n,), optional
        Doubly robust scores; default: cross-fitted on the covariates, with the study's known propensity.
    n_bootstrap : int
        Half-samples of the RATE's standard error.
    random_state : int
        Seed of the scores' folds, of encoders and of the half-samples.
    progress : bool
        Show a bar.

    Returns
    -------
    Comparison

    Warns
    -----
    DataWarning
        If a model fails: its cell says why, and the others go on. If all of them fail, the first error is raised.

    Raises
    ------
    ParameterError
        If a source, model or metric cannot be used, or has no key for the folder.
    DataError
        If truth or scores do not fit the units.
    ImageryError
        If a source's imagery (precomputed embeddings included) is not from before the study's treatment date.

    Examples
    --------
    >>> from causalsat import DoublyRobustEffect
    >>> from causalsat.simulate import satellite_trial
    >>> trial = satellite_trial(n_units=300, n_sites=30, size_px=256, seed=1)
    >>> found = compare(
    ...     trial.study(), ["covariates"], [DoublyRobustEffect()], ["autoc"], cv=3, n_bootstrap=20, progress=False
    ... )
    >>> found.to_dataframe().columns.tolist()
    ['source', 'model', 'metric', 'value', 'se', 'seed_sd', 'n', 'difference', 'difference_se', 'p_value']
    """
    study = _with_whole_outcomes(study)
    if sources is None:
        sources = [*(["covariates"] if study.covariates else []), *(["imagery"] if study.imagery is not None else [])]
    chosen = {k: parts.resolve_source(study, s, random_state) for k, s in parts.named(sources, "sources").items()}
    for name, source in chosen.items():
        parts.check_dates(study, name, source)
    fitted = parts.named(_default_models(random_state) if models is None else models, "models")
    for name, model in fitted.items():
        if not hasattr(model, "effect") or not hasattr(model, "fit"):
            raise ParameterError(f"model {name!r} of type {type(model).__name__}", expected="an effect estimator")
    true = _one_a_unit(truth, study, "truth")
    functions = resolve_metrics(metrics, truth=true is not None)
    gamma = _scores(study, random_state) if scores is None else _one_a_unit(scores, study, "scores")
    splits = _splits(study, cv, fold_seeds)
    work = _Work(study, chosen, fitted, None if folder is None else Path(folder), progress)
    result = work.effects(splits)
    shared = {"scores": gamma, "groups": study.groups, "weights": study.weights, "truth": true}
    shared |= {"n_bootstrap": n_bootstrap, "random_state": random_state}
    shared["design"] = study.design if study.strata is not None else None
    judged = {pair: [_judged(run, shared) for run in runs] for pair, runs in result.items()}
    rows, replicates = _judge(study.name, judged, tuple(splits), functions)
    seconds = pd.DataFrame(work.seconds).T.reindex(index=list(chosen), columns=list(fitted))
    effects = {pair: [run for run in runs if isinstance(run, Judged)] for pair, runs in judged.items()}
    return Comparison(rows, effects, seconds, study, replicates)


@dataclass(frozen=True, eq=False)
class _Failure:
    """Why a source and a model have no effects with a fold seed."""

    error: Exception
    where: str

    def __str__(self) -> str:
        first = (str(self.error).strip().splitlines() or [""])[0]
        return f"{self.where}: {type(self.error).__name__}: {first}"


def _judged(run: Any, shared: Mapping[str, Any]) -> Judged | _Failure:
    return run if isinstance(run, _Failure) else Judged(*run, **shared)


def _judge(
    study: str,
    judged: Mapping[tuple[str, str], list[Judged | _Failure]],
    seeds: tuple[int, ...],
    metrics: Mapping[str, Metric],
) -> tuple[pd.DataFrame, dict[tuple[str, str, str, str], Replicates]]:
    """Rows of all cells, and their metrics over half-samples of clusters.

    Raises
    ------
    Exception
        The first of them, where nothing has a value by some metric.
    """
    rows: list[dict[str, Any]] = []
    replicates: dict[tuple[str, str, str, str], Replicates] = {}
    failures: dict[str, list[_Failure]] = {name: [] for name in metrics}
    for (source, model), runs in judged.items():
        for name, metric in metrics.items():
            draws: list[FloatArray] = []
            for seed, item in zip(seeds, runs, strict=True):
                found = _value(metric, name, item)
                row = {"study": study, "source": source, "model": model, "seed": seed, "metric": name}
                if isinstance(found, _Failure):
                    failures[name].append(found)
                    rows.append({**row, "value": np.nan, "se": np.nan, "error": str(found)})
                    continue
                value, se, repeated = found
                rows.append({**row, "value": value, "se": se, "error": ""})
                if repeated is not None and len(repeated) > 1:
                    draws.append(repeated)
            if draws:
                clusters = min(run.n_clusters for run in runs if isinstance(run, Judged))
                replicates[study, source, model, name] = Replicates(np.mean(draws, axis=0), clusters)
    for name, found_failures in failures.items():
        if len(found_failures) == sum(row["metric"] == name for row in rows):
            first = found_failures[0]
            first.error.add_note(f"in {first.where}; nothing else worked either")
            raise first.error
    return pd.DataFrame(rows), replicates


def _value(metric: Metric, name: str, item: Judged | _Failure) -> tuple[float, float, FloatArray | None] | _Failure:
    """A metric's value, standard error and values over half-samples, or why there is none."""
    if isinstance(item, _Failure):
        return item
    try:
        found = metric(item)
        values = list(found) if isinstance(found, tuple) else [found]
        value, se, repeated = values + [np.nan, None][len(values) - 1 :]
        return float(value), float(se), repeated
    except Exception as error:
        return _Failure(error, f"metric {name}")


def _default_models(random_state: int) -> dict[str, Any]:
    return {
        "BayesianLinearEffect": BayesianLinearEffect(prior="normal", random_state=random_state),
        "DoublyRobustEffect": DoublyRobustEffect(random_state=random_state),
    }


def _with_whole_outcomes(study: Any) -> Any:
    """The study with its corrected outcome, where a model predicted it; refuses missing outcomes before any fit."""
    if is_corrected(study):
        return corrected_study(study)
    missing = int(np.isnan(study.y).sum())
    if missing:
        raise DataError(
            f"{missing} of {len(study)} outcomes are missing",
            expected="an outcome of each unit: the comparison does not weight for missing ones",
            todo="compare on respondents, study.subset(~np.isnan(study.y)), and use analyse() with "
            "missing_outcome='weight' for the effects",
        )
    return study


def _one_a_unit(values: Any, study: Any, role: str) -> FloatArray | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=float)
    if array.shape != (len(study),) or not np.isfinite(array).all():
        raise DataError(f"{role} of shape {array.shape}", expected=f"{len(study)} finite numbers")
    return array


def _scores(study: Any, random_state: int) -> FloatArray:
    """Doubly robust scores from the covariates, cross-fitted over sites."""
    names = tuple(study.covariates)
    table = np.zeros((len(study), 1))
    if names:
        raw = study.X[list(names)].to_numpy(dtype=float)
        table = learn_imputation(raw, names).apply(raw, names)
    roles = given_roles(study) | ({} if study.randomised else {"propensity_model": "logistic"})
    nuisances = crossfit_nuisances(table, study.y, random_state=random_state, **roles)
    return np.asarray(dr_scores(study.y, study.treatment, nuisances), dtype=float)


@dataclass
class _Work:
    """The loops: a source is encoded once a fold, and only where one of its models is not yet on disk."""

    study: Any
    sources: Mapping[str, Any]
    models: Mapping[str, Any]
    folder: Path | None
    progress: bool
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)

    def effects(self, splits: Mapping[int, list[Split]]) -> dict[tuple[str, str], list[Any]]:
        """For each source and model, one (means, sds, folds) or failure a fold seed."""
        digest = "" if self.folder is None else parts.study_digest(self.study)
        result: dict[tuple[str, str], list[Any]] = {(s, m): [] for s in self.sources for m in self.models}
        total = len(result) * sum(map(len, splits.values()))
        with progress_bar(total=total, desc="comparing", unit="fold", show=self.progress) as bar:
            for name, source in self.sources.items():
                self.seconds[name] = dict.fromkeys(self.models, 0.0)
                for seed, folds in splits.items():
                    out: dict[str, Any] = {model: np.empty((2, len(self.study))) for model in self.models}
                    for k, (train, test) in enumerate(folds):
                        left = {m: model for m, model in self.models.items() if not isinstance(out[m], _Failure)}
                        for label, values in self._fold(digest, name, source, left, train, test):
                            if isinstance(values, Exception):
                                where = f"fold {k} of {len(folds)}, fold seed {seed}"
                                out[label] = _Failure(values, where)
                                _tell(name, label, out[label])
                            else:
                                out[label][:, test] = values
                        bar.update(len(self.models))
                    fold = fold_labels(folds)
                    for label, values in out.items():
                        run = values if isinstance(values, _Failure) else (values[0], values[1], fold)
                        result[name, label].append(run)
        return result

    def _fold(
        self, digest: str, name: str, source: Any, models: Mapping[str, Any], train: IntArray, test: IntArray
    ) -> Iterator[tuple[str, FloatArray | Exception]]:
        """Effects of a fold by each model, or the error that it stopped with."""
        from sklearn.base import clone

        encoded: tuple[Any, Any] | Exception | None = None
        for label, model in models.items():
            key = "" if self.folder is None else parts.fold_key(digest, source, model, train, test)
            values = parts.read_fold(self.folder, key, len(test))
            if values is not None:
                yield label, values
                continue
            if encoded is None:
                encoded = _attempt(_encode, source, self.study, train, test)
            if isinstance(encoded, Exception):
                yield label, encoded
                continue
            found = _attempt(self._fit, clone(model), encoded, train, name, label)
            if not isinstance(found, Exception):
                parts.write_fold(self.folder, key, found)
            yield label, found

    def _fit(self, model: Any, encoded: tuple[Any, Any], train: IntArray, name: str, label: str) -> FloatArray:
        import time

        start = time.process_time()
        model.fit(encoded[0], self.study.y[train], **_roles(self.study, model, train))
        posterior = model.effect(encoded[1])
        self.seconds[name][label] += time.process_time() - start
        values = np.stack([posterior.mean(), posterior.sd()]).astype(np.float64)
        if not np.isfinite(values[0]).all():
            raise DataError(f"{int((~np.isfinite(values[0])).sum())} of {values.shape[1]} effects are not finite")
        return values


def _attempt(work: Callable[..., Any], *arguments: Any) -> Any:
    """What the work gives, or the error with which it stopped; an interrupt goes on its way."""
    try:
        return work(*arguments)
    except Exception as error:
        LOG.info("a fold failed", exc_info=error)
        return error


def _tell(source: str, model: str, failure: _Failure) -> None:
    warn(
        f"source {source!r} with model {model!r} failed in {str(failure).rstrip('.')}. The others go on", DataWarning
    )


def _encode(source: Any, study: Any, train: IntArray, test: IntArray) -> tuple[Any, Any]:
    """Features of training and test units by a transformer fitted on the training units."""
    from sklearn.base import clone

    transformer, roles = clone(source), {}
    if getattr(transformer, "requests_roles", False):  # an encoder that is trained on outcomes
        roles = {"y": study.y[train], "treatment": study.treatment[train]}
        roles |= {} if study.groups is None else {"groups": np.asarray(study.groups)[train]}
    return transformer.fit_transform(study.X.iloc[train], **roles), transformer.transform(study.X.iloc[test])


def _roles(study: Any, model: Any, rows: IntArray) -> dict[str, Any]:
    known = inspect.signature(model.fit).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    return {k: np.asarray(v)[rows] for k, v in given_roles(study).items() if takes_any or k in known}


def _splits(study: Any, cv: Any, seeds: Sequence[int]) -> dict[int, list[Split]]:
    """Training and test rows of each fold, for each fold seed."""
    codes = None if study.groups is None else checks.codes(study.groups, len(study))
    return {
        seed: split_folds(
            own, study.X, study.y, study.treatment, groups=study.groups, codes=codes, rng=np.random.default_rng(seed)
        )
        for seed, own in zip(seeds, seeded(cv, seeds), strict=True)
    }
