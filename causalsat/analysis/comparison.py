"""Which data, which model, by which metric: the comparison over site folds, resumable."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalsat.analysis import sources as parts
from causalsat.analysis.describe import describe_effects
from causalsat.core.inputs import check_groups, learn_imputation
from causalsat.core.tables import Tabular
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.evaluation import blp, crossfit_nuisances, dr_scores, gates, rate
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.folds import assign_folds
from causalsat.plots.comparison import plot_comparison
from causalsat.study.fitting import given_roles

__all__ = ["Comparison", "DEFAULT_METRICS", "Judged", "METRICS", "compare", "regress", "resolve_metrics"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


_ENOUGH_STUDIES = 5


def regress(rows: pd.DataFrame, attributes: Mapping[str, Any]) -> pd.DataFrame:
    """Ordinary least squares of ``value`` on sources, models and studies.

    Parameters
    ----------
    rows : DataFrame
        ``study, source, model, seed, value`` of one metric.
    attributes : mapping
        Numbers in the place of the names of "source" or "model".

    Returns
    -------
    DataFrame
        ``estimate, se, lower, upper, p_value`` of every column.
    """
    import statsmodels.api as sm

    unknown = set(attributes) - {"source", "model"}
    if unknown:
        raise ParameterError(f"attributes of {sorted(unknown)}", expected="of 'source' and 'model'")
    design = pd.DataFrame({"constant": np.ones(len(rows))}, index=rows.index)
    for factor in ("source", "model", "study"):
        design = design.join(_columns(rows[factor], factor, attributes.get(factor)))
    studies = rows["study"].nunique()
    labels = rows["study"] if studies >= _ENOUGH_STUDIES else rows["source"] + "\n" + rows["model"]
    codes = pd.factorize(labels)[0]
    fit = sm.OLS(rows["value"].to_numpy(), design).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    lower, upper = fit.conf_int(0.05).to_numpy().T
    table = pd.DataFrame(
        {"estimate": fit.params, "se": fit.bse, "lower": lower, "upper": upper, "p_value": fit.pvalues}
    )
    table.attrs = {"r2": float(fit.rsquared), "n": len(rows), "clusters": int(codes.max()) + 1}
    return table


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
        Half-samples of the RATE and their seed.
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

    def rate(self, method: str) -> Any:
        """RATE of the effects' ranks within folds."""
        return rate(
            self.tau,
            self.scores,
            groups=self.groups,
            weights=self.weights,
            folds=self.fold,
            method=method,
            n_bootstrap=self.n_bootstrap,
            random_state=self.random_state,
        )


def _of_rate(method: str, *, ratio: bool) -> Metric:
    def metric(judged: Judged) -> tuple[float, float]:
        result = judged.rate(method)
        return (result.ratio, 1.0) if ratio else (result.estimate, result.se)

    return metric


def _blp_slope(judged: Judged) -> tuple[float, float]:
    result = blp(judged.tau, judged.scores, groups=judged.groups, weights=judged.weights, folds=judged.fold)
    return result.slope, result.slope_se


def _gates_difference(judged: Judged) -> tuple[float, float]:
    result = gates(judged.tau, judged.scores, groups=judged.groups, weights=judged.weights, folds=judged.fold)
    return result.difference, result.difference_se


def _truth(judged: Judged) -> FloatArray:
    if judged.truth is None:
        raise ParameterError("a metric of the truth without truth=", todo="pass truth=, or leave the metric out")
    return judged.truth


def _sqrt_pehe(judged: Judged) -> float:
    return float(np.sqrt(np.average((judged.tau - _truth(judged)) ** 2, weights=judged.weights)))


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
        One row a study, source, model, fold seed and metric: ``value, se``.
    effects : dict of (source, model) to list of Judged
        Out-of-fold effects, one for each fold seed.
    seconds : DataFrame
        CPU seconds of fitting, by source and model; 0 for what was read from the folder.
    study : Study or None
        What was analysed; None where several comparisons were joined.
    """

    rows: pd.DataFrame
    effects: Mapping[tuple[str, str], list[Judged]] = field(repr=False)
    seconds: pd.DataFrame = field(repr=False)
    study: Any = field(default=None, repr=False)

    def to_dataframe(self, metric: str | None = None) -> pd.DataFrame:
        """Table of one row a source, model and metric.

        Columns ``value`` (mean over studies and fold seeds), ``se`` (clustered by site, mean over fold seeds; over
        several studies, the error of their mean), ``seed_sd`` (standard deviation over fold seeds) and ``n`` (rows
        averaged). The ratio of a RATE has standard error 1 by construction.
        """
        rows = self.rows if metric is None else self.rows[self.rows["metric"] == metric]
        if not len(rows):
            raise ParameterError(f"metric={metric!r}", expected=f"one of {', '.join(self.rows['metric'].unique())}")
        one = rows.groupby(["study", "source", "model", "metric"], sort=False)["value"].agg(["mean", "std"])
        one["se"] = rows.groupby(["study", "source", "model", "metric"], sort=False)["se"].mean()
        grouped = one.groupby(["source", "model", "metric"], sort=False)
        table = pd.DataFrame({"value": grouped["mean"].mean(), "se": grouped["se"].apply(_joined_error)})
        several: pd.Series = grouped["mean"].std() / np.sqrt(grouped.size())
        table["se"] = np.where(grouped.size() > 1, several, table["se"])
        table["seed_sd"] = grouped["std"].mean()
        table["n"] = rows.groupby(["source", "model", "metric"], sort=False).size()
        return table.reset_index()

    def table(self, metric: str) -> pd.DataFrame:
        """One metric, sources down and models across."""
        result = self.to_dataframe(metric)
        return result.pivot(index="source", columns="model", values="value").loc[
            result["source"].unique(), result["model"].unique()
        ]

    def drivers(self, metric: str = "rate_ratio", attributes: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Multivariate regression of what drives a metric, with statsmodels.

        Ordinary least squares of the metric's rows on the sources and the models (against the first of each), and
        on the studies where several were joined; standard errors are clustered by combination of source and model,
        or by study where there are at least five.

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
            Rows ``constant``, ``source=...``, ``model=...`` or attributes: ``estimate, se, lower, upper, p_value``.

        Raises
        ------
        ParameterError
            If there is no such metric, or an attribute is missing for a source or model.
        """
        rows = self.rows[self.rows["metric"] == metric]
        if not len(rows):
            raise ParameterError(f"metric={metric!r}", expected=f"one of {', '.join(self.rows['metric'].unique())}")
        return regress(rows, attributes or {})

    def quintiles(self, source: str, model: str, **options: Any) -> pd.DataFrame:
        """Effect groups of one combination described by spectral indices and land cover.

        See :func:`causalsat.analysis.describe_effects` for the options and the table.
        """
        if (source, model) not in self.effects or self.study is None:
            raise ParameterError(
                f"source={source!r}, model={model!r}",
                expected="one of " + ", ".join(f"({a!r}, {b!r})" for a, b in self.effects),
            )
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
            result["cell"] = [
                f"{v:.3f} ({s:.3f})" if np.isfinite(s) else f"{v:.3f}" for v, s in result[["value", "se"]].values
            ]
            wide = result.pivot(index="source", columns="model", values="cell")
            wide = wide.loc[result["source"].unique(), result["model"].unique()]
            blocks.append(f"{metric}\n{wide.rename_axis(None).rename_axis(None, axis=1).to_string()}")
        return "\n\n".join(blocks)

    def join(self, *others: Comparison) -> Comparison:
        """Comparisons of several studies as one, for tables and drivers over studies."""
        everything = [self, *others]
        rows = [c.rows for c in everything]
        labels = [name for part in rows for name in part["study"].unique()]
        if len(set(labels)) < len(labels):
            rows = [part.assign(study=f"{k}: " + part["study"]) for k, part in enumerate(rows)]
        seconds = sum((c.seconds for c in everything[1:]), start=self.seconds)
        return Comparison(pd.concat(rows, ignore_index=True), {}, seconds, None)


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
        need ``truth``), or functions of a :class:`Judged` that return a value or a value and its standard error.
    cv : int or splitter
        Folds over the study's clusters, or a scikit-learn splitter such as :class:`SpatialBlockCV`.
    fold_seeds : sequence of int
        Seeds of the folds; each gives a row.
    folder : path-like, optional
        Where finished folds are kept under a key of their content: a killed run goes on where it stopped, and a
        source or model more computes only what is new.
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

    Raises
    ------
    ParameterError
        If a source, model or metric cannot be used.
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
    ['source', 'model', 'metric', 'value', 'se', 'seed_sd', 'n']
    """
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
    work = _Work(study, chosen, fitted, None if folder is None else Path(folder), progress)
    result = work.effects(cv, fold_seeds)
    shared = {"scores": gamma, "groups": study.groups, "weights": study.weights, "truth": true}
    shared |= {"n_bootstrap": n_bootstrap, "random_state": random_state}
    judged = {pair: [Judged(*values, **shared) for values in runs] for pair, runs in result.items()}
    rows = [
        {"study": study.name, "source": source, "model": model, "seed": seed, "metric": name, **_value(metric(item))}
        for (source, model), runs in judged.items()
        for seed, item in zip(fold_seeds, runs, strict=True)
        for name, metric in functions.items()
    ]
    seconds = pd.DataFrame(work.seconds).T.reindex(index=list(chosen), columns=list(fitted))
    return Comparison(pd.DataFrame(rows), judged, seconds, study)


def _default_models(random_state: int) -> dict[str, Any]:
    from causalsat.estimators.linear.estimator import BayesianLinearEffect

    return {
        "BayesianLinearEffect": BayesianLinearEffect(prior="normal", random_state=random_state),
        "DoublyRobustEffect": DoublyRobustEffect(random_state=random_state),
    }


def _value(found: Any) -> dict[str, float]:
    value, se = found if isinstance(found, tuple) else (found, np.nan)
    return {"value": float(value), "se": float(se)}


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

    def effects(
        self, cv: Any, seeds: Sequence[int]
    ) -> dict[tuple[str, str], list[tuple[FloatArray, FloatArray, IntArray]]]:
        from tqdm.auto import tqdm

        n = len(self.study)
        digest = parts.study_digest(self.study)
        result: dict[tuple[str, str], list[Any]] = {(s, m): [] for s in self.sources for m in self.models}
        folds = {seed: _assign(self.study, cv, seed) for seed in seeds}
        total = len(result) * sum(len(np.unique(fold)) for fold in folds.values())
        with tqdm(total=total, desc="comparing", unit="fold", disable=not self.progress) as bar:
            for name, source in self.sources.items():
                self.seconds[name] = dict.fromkeys(self.models, 0.0)
                for fold in folds.values():
                    out = {model: np.empty((2, n)) for model in self.models}
                    for k in np.unique(fold):
                        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
                        for model, values in self._fold(digest, name, source, train, test):
                            out[model][:, test] = values
                            bar.update()
                    for model, values in out.items():
                        result[name, model].append((values[0], values[1], fold))
        return result

    def _fold(
        self, digest: str, name: str, source: Any, train: IntArray, test: IntArray
    ) -> Iterator[tuple[str, FloatArray]]:
        from sklearn.base import clone

        encoded: tuple[Any, Any] | None = None
        for label, model in self.models.items():
            key = "" if self.folder is None else parts.fold_key(digest, source, model, train, test)
            values = parts.read_fold(self.folder, key, len(test))
            if values is None:
                if encoded is None:
                    encoded = _encode(source, self.study, train, test)
                values = self._fit(clone(model), encoded, train, name, label)
                parts.write_fold(self.folder, key, values)
            yield label, values

    def _fit(self, model: Any, encoded: tuple[Any, Any], train: IntArray, name: str, label: str) -> FloatArray:
        import time

        start = time.process_time()
        model.fit(encoded[0], self.study.y[train], **_roles(self.study, model, train))
        posterior = model.effect(encoded[1])
        self.seconds[name][label] += time.process_time() - start
        return np.stack([posterior.mean(), posterior.sd()]).astype(np.float64)


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
    return {k: np.asarray(v)[rows] for k, v in given_roles(study).items() if k in known}


def _assign(study: Any, cv: Any, seed: int) -> IntArray:
    """Fold of each unit: whole clusters, or what a splitter says."""
    if isinstance(cv, int | np.integer):
        groups = check_groups(study.groups, len(study))
        return assign_folds(int(cv), np.random.default_rng(seed), groups=groups, treatment=study.treatment)
    if isinstance(cv, str) or not hasattr(cv, "split"):
        raise ParameterError(f"cv={cv!r}", expected="a number of folds, or a splitter with split(X, y, groups)")
    fold = np.full(len(study), -1, dtype=np.int64)
    for k, (_, test) in enumerate(cv.split(study.X, study.y, groups=study.groups)):
        fold[test] = k
    if (fold < 0).any():
        raise DataError(f"{cv!r} never holds out {int((fold < 0).sum())} units", expected="each unit once")
    return fold
