"""Multiple imputation of missing features around any effect estimator: a fit to each completed table, pooled."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if

from causalsat.base import EffectEstimator, Summary
from causalsat.core.inputs import FitData, check_whole_numbers
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.estimators.levels import FittedLevels, check_coding, is_binary
from causalsat.estimators.members import chunks, fit_member, has_outcomes
from causalsat.exceptions import DataWarning, ParameterError
from causalsat.inference import stacking
from causalsat.inference.chains import seed_of
from causalsat.inference.folds import content_order
from causalsat.inference.imputation import FeatureModel, Outcome, impute, patterns
from causalsat.posterior import EffectPosterior

__all__ = ["MultipleImputationEffect"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

DECIMALS = 6  # of standardised features: rows that differ by rounding get the same values


def _has_outcomes(model: Any) -> bool:
    """Whether the estimator has potential outcomes, for ``predict_outcome``."""
    return has_outcomes(model._base())


class MultipleImputationEffect(FittedLevels):
    r"""Any effect estimator on features of which some are missing, by multiple imputation.

    With missing features replaced by their means, an estimator knows the effect of a unit whose modifier is missing
    too surely, and adjusts too little for a confounder. Here the missing values are drawn, given the observed
    features, the treatment and the outcome, ``n_imputations`` times; the estimator is fitted to each completed table,
    and the posterior mixes the draws of all fits (Rubin 1987). The effect of a unit with missing features averages
    over the values that they may have, so that its interval is of the unit's own effect.

    Parameters
    ----------
    estimator : effect estimator, optional
        Cloned for each completed table; :class:`~causalsat.DoublyRobustEffect` by default. It sees complete features.
    n_imputations : int
        Completed tables; so many times the time of a fit.
    n_values : int
        Values drawn for each missing feature of a unit when effects are predicted, for each fit.
    random_state : int
        Seed of the imputations; the estimator keeps its own.

    Attributes
    ----------
    members_ : dict of str to estimator
        The fits, by completed table; one where nothing is missing.
    ate_ : ndarray of shape (m + 1, 2)
        Mean and standard deviation of the average effect over the training units, by completed table and, last,
        pooled.
    fraction_missing_ : float
        Share of the variance of the average effect that comes from missing values (Rubin 1987, equation 3.1.10).

    Notes
    -----
    Values are missing at random given the other features, the treatment and the outcome. Features and treatment are
    taken as jointly normal, and the outcome as linear in them with an interaction of treatment and each feature
    (a normal working model, also for other outcomes): what the estimator finds beyond that is not in the imputations.
    A feature without missing values in training that is missing later is replaced by its mean, with a warning.
    :class:`~causalsat.BayesianLinearEffect` with ``impute="model"`` does the same within one model, and faster.
    Coverage beside mean imputation: ``benchmarks/RESULTS.md``.

    References
    ----------
    Rubin (1987), "Multiple Imputation for Nonresponse in Surveys", Wiley, section 3.1.
    Tanner and Wong (1987), "The calculation of posterior distributions by data augmentation", JASA 82(398).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((500, 2)), rng.permutation(500) % 2
    >>> y = t * (1 + X[:, 0]) + 0.5 * rng.standard_normal(500)
    >>> X[::3, 0] = np.nan
    >>> est = MultipleImputationEffect(n_imputations=4).fit(X, y, treatment=t)
    >>> seen, missing = est.effect([[1.0, 0.0], [np.nan, 0.0]]).sd()
    >>> bool(missing > 5 * seen)
    True
    """

    _takes_design: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {"n_imputations": 2, "n_values": 2}

    def __init__(
        self, estimator: Any = None, n_imputations: int = 10, n_values: int = 10, random_state: Any = 0
    ) -> None:
        self.estimator = estimator
        self.n_imputations = n_imputations
        self.n_values = n_values
        self.random_state = random_state

    def _base(self) -> Any:
        return DoublyRobustEffect(random_state=self.random_state) if self.estimator is None else self.estimator

    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_imputations": 2, "n_values": 1})
        if isinstance(self.estimator, type) or not isinstance(self._base(), EffectEstimator):
            kind = self.estimator.__name__ if isinstance(self.estimator, type) else type(self.estimator).__name__
            raise ParameterError(f"estimator is a {kind}", expected="an instance of an effect estimator")

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        check_coding(data.treatment)
        self.binary_ = is_binary(data.treatment)
        if self._base()._binary_treatment and not self.binary_:
            raise ParameterError(
                f"a dose for {type(self._base()).__name__}, which takes binary treatments only",
                expected="an estimator of doses, such as BayesianLinearEffect or RLearnerEffect",
            )
        self.seed_ = seed_of(self.random_state)
        filled, missing = self._split(data.X)
        self.centre_, self.scale_ = _scaling(filled, missing)
        tables = [filled]
        self.features_: FeatureModel | None = None
        if missing.any():
            tables, self.features_ = self._complete(data, filled, missing)
        everyone, members = np.arange(len(data.y)), {}
        for m, table in enumerate(tables):
            with warnings.catch_warnings():
                if m:  # of the first table already
                    warnings.simplefilter("ignore", DataWarning)
                members[f"table {m + 1}"] = fit_member(
                    "estimator", clone(self._base()), self._named(table), data, everyone
                )
        self.members_: dict[str, Any] = members
        self.ate_, self.fraction_missing_ = self._averages(tables, data.sample_weight)

    def _split(self, X: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Filled features (n, p), and which of them were missing."""
        p = self.n_features_in_
        missing = np.zeros((len(X), p), dtype=bool)
        missing[:, self.imputation_.indicators] = X[:, p:] > 0.5
        return X[:, :p], missing

    def _complete(
        self, data: FitData, filled: FloatArray, missing: BoolArray
    ) -> tuple[list[FloatArray], FeatureModel]:
        weight, y = data.sample_weight, _standard(data.y, data.sample_weight)
        t = data.treatment - np.average(data.treatment, weights=weight)
        strata = np.zeros((len(y), 0)) if data.strata is None else np.eye(int(data.strata.max()) + 1)[data.strata]
        groups = data.groups if data.groups is not None and data.n_groups < len(y) else None
        order, codes = content_order((weight, t, y, *data.X.T), groups)  # neither rows' order nor labels move a draw
        outcome = Outcome(
            y=y[order],
            t=t[order] if self.binary_ else _standard(t, weight)[order],
            weight=weight[order],
            flags=strata[order],
            modifiers=np.arange(filled.shape[1]),
            arm=data.treatment[order].astype(np.int64) if self.binary_ else np.zeros(len(y), dtype=np.int64),
            group=None if groups is None else codes[order],
        )
        Z = (filled - self.centre_) / self.scale_
        rng = np.random.default_rng([self.seed_, 5])
        completed, model = impute(Z[order], missing[order], outcome, int(self.n_imputations), rng)
        tables = []
        for values in completed:
            drawn = np.empty_like(values)
            drawn[order] = values
            table = filled.copy()
            table[missing] = (drawn * self.scale_ + self.centre_)[missing]
            tables.append(table)
        return tables, model

    def _named(self, table: FloatArray) -> Any:
        if not hasattr(self, "feature_names_in_"):
            return table
        import pandas as pd

        return pd.DataFrame(table, columns=self.feature_names_in_)

    # ------------------------------------------------------------------ effects and outcomes
    def _pool(self, X: FloatArray, draws_of: Any) -> FloatArray:
        """Draws (draw, unit) of all fits; ``draws_of(model, table, rows)`` are those of a fit for completed rows."""
        filled, missing = self._split(X)
        counts = stacking.mixture_counts(np.full(len(self.members_), 1 / len(self.members_)), self._n_pooled())
        parts = []
        for m, (model, count) in enumerate(zip(self.members_.values(), counts, strict=True)):
            whole = np.asarray(draws_of(model, self._named(filled), np.arange(len(X))))
            kept = stacking.thin(len(whole), int(count))
            draws = whole[kept]
            for pattern, units in patterns(missing):
                draws[:, units] = self._over_values(model, m, filled, pattern, units, kept, draws_of)
            parts.append(draws)
        return np.concatenate(parts)

    def _n_pooled(self) -> int:
        """Draws of the mixture: as many as of one fit."""
        first = next(iter(self.members_.values()))
        means = self._named(self.centre_[None])
        return max(len(self.members_), len(first.effect(means).draws))

    def _over_values(
        self,
        model: Any,
        m: int,
        filled: FloatArray,
        pattern: BoolArray,
        units: IntArray,
        kept: IntArray,
        draws_of: Any,
    ) -> FloatArray:
        """Draws of units with one pattern of missing features, each draw at one of the values they may have."""
        assert self.features_ is not None
        rows, k = filled[units], int(self.n_values)
        Z = (rows - self.centre_) / self.scale_
        values = self.features_.draws(Z, pattern, np.full(k, m), self.seed_ + m, DECIMALS)
        found = np.empty((len(kept), len(units)))
        for r in range(min(k, len(kept))):
            table = rows.copy()
            table[:, pattern] = values[r] * self.scale_[pattern] + self.centre_[pattern]
            found[r::k] = np.asarray(draws_of(model, self._named(table), units))[kept[r::k]]
        return found

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        return self._pool(
            X,
            lambda model, table, rows: model.effect(table, treatment=treatment[rows], baseline=baseline[rows]).draws,
        )

    @available_if(_has_outcomes)
    def predict_outcome(self, X: Any, *, treatment: ArrayLike = 1.0) -> EffectPosterior:
        """Posterior of the mean potential outcome under a treatment, mixed like the effect.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        treatment : float or array of shape (n,)
            The treatment level.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``. Only where the estimator has ``predict_outcome``.
        """

        def draws_of(design: FloatArray, level: FloatArray) -> FloatArray:
            return self._pool(design, lambda m, table, rows: m.predict_outcome(table, treatment=level[rows]).draws)

        return self._outcome_posterior(X, treatment, draws_of)  # type: ignore[no-any-return]

    def _support_columns(self) -> NDArray[np.int64] | slice:
        return next(iter(self.members_.values()))._support_columns()  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ reports
    def _averages(self, tables: list[FloatArray], weight: FloatArray) -> tuple[FloatArray, float]:
        """Mean and sd of the average effect, by table and, last, pooled; and the fraction of missing information."""
        rows = []
        for model, table in zip(self.members_.values(), tables, strict=True):
            draws = sum(model.effect(self._named(table[c])).draws @ weight[c] for c in chunks(len(weight)))
            rows.append([np.mean(draws / weight.sum()), np.std(draws / weight.sum(), ddof=1)])
        table = np.array(rows, dtype=float)
        m, within = len(table), float((table[:, 1] ** 2).mean())
        between = float(table[:, 0].var(ddof=1)) if m > 1 else 0.0
        total = within + (1 + 1 / m) * between
        pooled = [table[:, 0].mean(), np.sqrt(total)]
        return np.vstack([table, pooled]), float((1 + 1 / m) * between / total) if total > 0 else 0.0

    def _diagnostics(self) -> dict[str, Any]:
        about: dict[str, Any] = {"source": "draws of the fits to completed tables"}
        inner = [model._diagnostics() for model in self.members_.values()]
        for name, worst in (("r_hat", np.nanmax), ("ess", np.nanmin), ("divergences", np.sum)):
            values = [d[name] for d in inner if isinstance(d.get(name), int | float)]
            if values:
                about[name] = worst(values)
        return {**about, "fraction of missing information": self.fraction_missing_}

    def _summary(self) -> Summary:
        import pandas as pd

        table = pd.DataFrame(self.ate_, index=[*self.members_, "pooled"], columns=["ATE", "ATE sd"])
        counts = {"units": self.n_units_, "clusters": self.n_groups_, "treated share": self.treated_share_}
        notes = (
            "A row is a fit to one completed table; the pooled variance is the mean of theirs, and their spread.",
            f"The estimator is {type(self._base()).__name__}.",
        )
        title = f"Effects by multiple imputation ({len(self.members_)} tables)"
        return Summary(title, table, {**counts, **self._diagnostics()}, notes)


def _scaling(filled: FloatArray, missing: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the observed values of each feature; 1 for constants."""
    count = np.maximum((~missing).sum(axis=0), 1)
    centre = np.where(missing, 0.0, filled).sum(axis=0) / count
    sd = np.sqrt(np.where(missing, 0.0, (filled - centre) ** 2).sum(axis=0) / count)
    return centre, np.where(sd > 1e-12 * np.maximum(np.abs(centre), 1e-300), sd, 1.0)


def _standard(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Values with weighted mean 0 and variance 1."""
    centred = values - np.average(values, weights=weight)
    sd = np.sqrt(np.average(centred**2, weights=weight))
    return np.asarray(centred / sd if sd > 0 else centred)
