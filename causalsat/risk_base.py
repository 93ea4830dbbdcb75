"""The contract of models of an outcome seen only where a decision let it be seen: risks, and means."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from causalsat.base import TableEstimator, call_final_step
from causalsat.core import inputs, memory
from causalsat.core.features import learn_scaler, warn_of_unresolved
from causalsat.core.fitting import unfitted_unless_finished
from causalsat.core.inputs import FitData, FloatArray, align_outcome
from causalsat.exceptions import DataError, ParameterError
from causalsat.posterior import EffectPosterior

__all__ = ["RiskEstimator", "SelectiveEstimator", "risk"]

GIVEN = (None, "tested", "untested")
ROLES = {"treatment": True, "sample_weight": True}


class SelectiveEstimator(TableEstimator):
    """Base of the models of an outcome seen only where a decision, the ``treatment``, let it be seen.

    Subclasses write :meth:`_fit`, :meth:`_tested_draws` and what they say of the outcome.
    """

    __metadata_request__fit: ClassVar = ROLES
    __metadata_request__score: ClassVar = ROLES

    @abstractmethod
    def _fit(self, data: FitData) -> None:
        """Fit on checked data; the outcome of untested units is 0 there and means nothing."""

    @abstractmethod
    def _tested_draws(self, X: FloatArray) -> FloatArray:
        """Draws (draw, unit) of P(T = 1) for checked features."""

    def _trial_draws(self, design: FloatArray) -> Iterable[FloatArray]:
        yield self._tested_draws(design)

    # ------------------------------------------------------------------ the contract
    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        treatment: ArrayLike | str | None = None,
        sample_weight: ArrayLike | str | None = None,
    ) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features of all units, tested or not, as for the effect estimators.
        y : array of shape (n,)
            Outcome where the unit was tested, NaN where it was not; 0 or 1 of a risk model.
        treatment : array of shape (n,) or str
            The decision: 1 tested (inspected, audited, granted), 0 not; or the name of X's column that holds it.
        sample_weight : array of shape (n,) or str, optional
            Survey weights, rescaled to mean 1; they enter as powers of the likelihood.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        DataError, TreatmentError, ColumnError, ParameterError
            If an input cannot be used; the message says what to do.
        """
        self._check_parameters()
        with unfitted_unless_finished(self):
            y = align_outcome(X, y, treatment=treatment, sample_weight=sample_weight)
            data = self._check_fit(X, y, treatment, None, sample_weight, None)
            self._learn_scaling(data.X, data.sample_weight)
            self._fit(data)
            self._learn_support(data)
            self.tested_share_ = float(np.average(data.treatment, weights=data.sample_weight))
            self.n_units_ = len(data.y)
        return self

    def decision(self, X: Any) -> EffectPosterior:
        """Posterior of the probability of being tested, P(T = 1 | x): draws (draw, n), ``kind="decision"``."""
        design, index = self._check_predict(X)
        return self._posterior(self._tested_draws(design), index, "decision")

    def predict_decision(self, X: Any) -> FloatArray:
        """Posterior mean of the probability of being tested, shape (n,)."""
        return np.asarray(self.decision(X).mean(), dtype=float)

    # ------------------------------------------------------------------ checks
    def _check_outcome(self, y: Any, treatment: Any, n: int) -> FloatArray:
        if y is None:
            return inputs.check_outcome(y, n)
        values = inputs.outcome_column(y, n)
        t = inputs.check_treatment(treatment, n, binary=True)
        seen = ~np.isnan(values)
        missing, known = int((~seen & (t == 1)).sum()), int((seen & (t == 0)).sum())
        if missing:
            raise DataError(
                f"y is missing for {missing} of {int(t.sum())} tested units",
                expected="an outcome wherever treatment is 1",
                todo="code those units as untested if their result is unknown, or drop them",
            )
        if known:
            raise DataError(
                f"y has values for {known} units that were not tested",
                expected="NaN where treatment is 0: what was not tested is unknown, not 0",
                todo="set y to NaN there, y = np.where(tested == 1, y, np.nan); outcomes learned later are "
                "for evaluation.risk_calibration",
            )
        return np.where(seen, values, 0.0)

    def _check_score(
        self, X: Any, y: Any, treatment: Any, sample_weight: Any
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Design, decision, outcome (0 untested) and weights of units to score."""
        check_is_fitted(self)
        decision = self.treatment_name_ if treatment is None else treatment
        design, _ = self._check_predict(X)
        n = len(design)
        t_values, _ = inputs.column_or_array(X, decision, "treatment")
        weights, _ = inputs.column_or_array(X, sample_weight, "sample_weight")
        t = inputs.check_treatment(t_values, n, binary=True)
        y = align_outcome(X, y, treatment=t_values, sample_weight=weights)
        return design, t, self._check_outcome(y, t, n), inputs.check_weights(weights, n)

    # ------------------------------------------------------------------ the design
    def _learn_scaling(self, X: FloatArray, weight: FloatArray) -> None:
        scaler = learn_scaler(X, weight)
        warn_of_unresolved(scaler, self.design_names_)
        self.feature_mean_, self.feature_sd_ = scaler.mean, scaler.scale

    def _rows(self, X: FloatArray) -> FloatArray:
        """Standardised features, a column of ones first."""
        return np.column_stack([np.ones(len(X)), (X - self.feature_mean_) / self.feature_sd_])

    def _posterior(self, draws: FloatArray, index: NDArray[Any], kind: str) -> EffectPosterior:
        return EffectPosterior(
            draws, index=index, kind=kind, treatment=None, baseline=None, diagnostics=self._diagnostics()
        )


class RiskEstimator(ClassifierMixin, SelectiveEstimator):  # type: ignore[misc]
    """Base class of the risk models: ``treatment`` is the decision to test, the outcome is missing without it.

    Subclasses write :meth:`_fit`, :meth:`_positive_draws`, :meth:`_tested_draws` and :meth:`_both_draws`.
    """

    classes_ = np.array([0, 1])

    @abstractmethod
    def _positive_draws(self, X: FloatArray) -> FloatArray:
        """Draws (draw, unit) of P(Y = 1) for checked features."""

    @abstractmethod
    def _both_draws(self, X: FloatArray) -> FloatArray:
        """Draws (draw, unit) of P(T = 1, Y = 1) for checked features."""

    def _trial_draws(self, design: FloatArray) -> Iterable[FloatArray]:
        yield from super()._trial_draws(design)
        yield self._positive_draws(design)
        yield self._both_draws(design)

    # ------------------------------------------------------------------ the contract
    def risk(self, X: Any, *, given: str | None = None) -> EffectPosterior:
        """Posterior of the probability that Y = 1, for tested and untested alike.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        given : {None, "tested", "untested"}
            What is known of the decision: nothing, P(Y = 1 | x), or what it was, P(Y = 1 | x, T). Decision makers
            see more than x, so the untested have less risk than x says wherever the decision follows risk.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="risk"``.
        """
        if given not in GIVEN:
            raise ParameterError(f"given={given!r}", expected="None, 'tested' or 'untested'")
        design, index = self._check_predict(X)
        memory.announce(len(index), lambda: self._positive_draws(design[:2]), "predict_proba(X) for means")
        if given is None:
            draws = self._positive_draws(design)
        elif given == "tested":
            draws = self._both_draws(design) / np.maximum(self._tested_draws(design), np.finfo(float).tiny)
        else:
            rest = np.maximum(1.0 - self._tested_draws(design), np.finfo(float).eps)
            draws = (self._positive_draws(design) - self._both_draws(design)) / rest
        return self._posterior(np.clip(draws, 0.0, 1.0), index, "risk")

    def predict_proba(self, X: Any, *, given: str | None = None) -> FloatArray:
        """Posterior mean of P(Y = 0) and P(Y = 1), shape (n, 2); ``given`` as in :meth:`risk`."""
        if memory.number_of_rows(X) <= memory.WHOLE_ROWS:
            p = self.risk(X, given=given).mean()
        else:
            parts = memory.in_chunks(X, lambda part, _: self.risk(part, given=given))
            p = np.concatenate([part.mean() for part in parts])
        return np.column_stack([1.0 - p, p])

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Whether Y = 1 is more likely than not, shape (n,); what rare risks need is :meth:`predict_proba`."""
        return (self.predict_proba(X)[:, 1] > 0.5).astype(np.int64)

    def score(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | str | None = None,
        *,
        treatment: ArrayLike | str | None = None,
    ) -> float:
        """Mean log predictive probability of what was seen, decision and outcome together; higher is better.

        Raises
        ------
        TreatmentError
            If no treatment is given and ``fit`` was not given a column's name.
        """
        design, t, outcome, weight = self._check_score(X, y, treatment, sample_weight)
        tested, both = self._tested_draws(design).mean(axis=0), self._both_draws(design).mean(axis=0)
        seen = np.where(t == 0, 1.0 - tested, np.where(outcome == 1, both, tested - both))
        return float(np.average(np.log(np.maximum(seen, np.finfo(float).tiny)), weights=weight))

    # ------------------------------------------------------------------ checks
    def _check_outcome(self, y: Any, treatment: Any, n: int) -> FloatArray:
        values = super()._check_outcome(y, treatment, n)
        seen = values[np.asarray(treatment, dtype=float) == 1]
        if not np.isin(seen, (0.0, 1.0)).all():
            raise DataError(
                f"outcomes from {np.min(seen):g} to {np.max(seen):g}, continuous or of several "
                "classes. Only binary classification is supported",
                expected="0 and 1 (NaN untested)",
                todo="code the event as 1 and the rest as 0; for a continuous outcome use SelectiveLabelsOutcome",
            )
        if len(np.unique(seen)) < 2:
            raise DataError(
                f"every tested unit has the outcome {seen[0]:g}, one class only",
                expected="both outcomes among the tested",
                todo="check the sample; in cross-validation use folds that keep both",
            )
        return values

    def __sklearn_tags__(self) -> Any:
        """Two classes; the rest is that of every estimator of a table."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def risk(model: Any, X: Any, *, given: str | None = None) -> EffectPosterior:
    """Posterior risk from a risk model or from a scikit-learn Pipeline that ends in one.

    Parameters
    ----------
    model : RiskEstimator or Pipeline
        Fitted model.
    X : array, DataFrame, GeoDataFrame or DataArray
        Units, in the form that the model was fitted on.
    given : {None, "tested", "untested"}
        See :meth:`RiskEstimator.risk`.

    Returns
    -------
    EffectPosterior
        Draws of shape (draw, n).
    """
    return call_final_step(model, X, "risk", given=given)  # type: ignore[no-any-return]
