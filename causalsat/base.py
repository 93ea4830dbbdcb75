"""The estimator contract: what every effect estimator of the package shares.

A subclass stores its parameters in ``__init__`` and writes ``_fit(data)`` and
``_effect_draws(X, treatment, baseline)``; inputs are checked here, once, and everything else (``predict``,
``effect``, ``score``, ``support``, ``save``) follows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from causalsat import _inputs, _scoring, _support
from causalsat._inputs import FitData, FloatArray
from causalsat.exceptions import CausalsatError, DataError, ParameterError
from causalsat.posterior import EffectPosterior

__all__ = ["EffectEstimator", "OutcomeEstimator", "Summary", "effect", "final_estimator", "support"]


@dataclass(frozen=True)
class Summary:
    """A printed table, as statsmodels prints them: title, coefficient table, diagnostics, notes."""

    title: str
    table: Any
    diagnostics: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Lay the table out between rules."""
        body = self.table.to_string(float_format=lambda v: f"{v:.4f}")
        width = max([len(line) for line in body.splitlines()] + [len(self.title), 60])
        rule = "=" * width
        lines = [self.title.center(width).rstrip(), rule, body, "-" * width]
        lines += [f"{name}: {_show(value)}" for name, value in self.diagnostics.items()]
        lines += [rule, *(f"Note: {note}" for note in self.notes)]
        return "\n".join(lines)

    __repr__ = __str__


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class EffectEstimator(BaseEstimator):
    """Base class of the effect estimators: scikit-learn conventions plus posterior effects.

    Subclasses write :meth:`_fit`, :meth:`_effect_draws` and, where they can, :meth:`_summary` and
    :meth:`_diagnostics`.
    """

    # metadata that scikit-learn's Pipeline and cross-validation route to fit and score
    __metadata_request__fit: ClassVar = {
        "treatment": True,
        "groups": True,
        "sample_weight": True,
        "propensity": True,
    }
    __metadata_request__score: ClassVar = {
        "treatment": True,
        "groups": True,
        "sample_weight": True,
        "propensity": True,
    }
    _binary_treatment: ClassVar[bool] = True
    # small settings with which the contract tests, which find every public estimator, run quickly
    _contract_parameters: ClassVar[dict[str, Any]] = {}

    # ------------------------------------------------------------------ to be written by subclasses
    @abstractmethod
    def _fit(self, data: FitData) -> None:
        """Fit on checked data and store attributes that end in an underscore."""

    @abstractmethod
    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the effect for checked features; the levels have one value a unit."""

    def _diagnostics(self) -> dict[str, Any]:
        """Return what the fit says of itself, for posteriors and the summary."""
        return {}

    def _summary(self) -> Summary:
        """Return the table of :meth:`summary`."""
        raise NotImplementedError

    def _support_columns(self) -> NDArray[np.int64] | slice:
        """Columns of the design that decide the support: those on which the effect may depend."""
        return slice(None)

    def _check_parameters(self) -> None:
        """Raise ParameterError for a parameter outside its domain; called at the start of fit."""

    # ------------------------------------------------------------------ the contract
    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        treatment: ArrayLike | str | None = None,
        groups: ArrayLike | str | None = None,
        sample_weight: ArrayLike | str | None = None,
        propensity: ArrayLike | str | float | None = None,
    ) -> Any:
        """Fit the effect model.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features of the units, with missing values where they are missing: they are replaced by the
            training mean and flagged by an indicator column. A geometry column is not a feature.
        y : array of shape (n,)
            Outcome.
        treatment : array of shape (n,) or str
            Treatment, or the name of X's column that holds it. Required.
        groups : array of shape (n,) or str, optional
            Clusters (villages, sites): uncertainty and cross-fitting respect them.
        sample_weight : array of shape (n,) or str, optional
            Survey weights, rescaled to mean 1.
        propensity : array of shape (n,), float or str, optional
            Known probability of treatment (a randomised trial's design).

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
        data = self._check_fit(X, y, treatment, groups, sample_weight, propensity)
        self._fit(data)
        self.support_reference_ = _support.learn_support(data.X[:, self._support_columns()])
        self.treated_share_ = float(np.average(data.treatment, weights=data.sample_weight))
        self.n_units_, self.n_groups_ = len(data.y), data.n_groups
        return self

    def predict(self, X: Any) -> FloatArray:
        """Posterior mean of the effect of treatment 1 against 0, shape (n,)."""
        return np.asarray(self.effect(X).mean(), dtype=float)

    def effect(self, X: Any, *, treatment: ArrayLike = 1.0, baseline: ArrayLike = 0.0) -> EffectPosterior:
        """Posterior of the conditional effect of ``treatment`` against ``baseline``.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        treatment, baseline : float or array of shape (n,)
            The levels to contrast.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n).
        """
        design, index = self._check_predict(X, effect_only=True)
        levels = [self._check_level(v, len(index), k) for v, k in ((treatment, "treatment"), (baseline, "baseline"))]
        draws = self._effect_draws(design, *levels)
        return EffectPosterior(
            draws, index=index, treatment=treatment, baseline=baseline, diagnostics=self._diagnostics()
        )

    def score(
        self,
        X: Any,
        y: ArrayLike,
        *,
        treatment: ArrayLike | str | None = None,
        groups: ArrayLike | str | None = None,
        sample_weight: ArrayLike | str | None = None,
        propensity: ArrayLike | str | float | None = None,
    ) -> float:
        """R-score: share of a constant effect's R-loss that the predicted effects remove; higher is better.

        The conditional means of outcome and treatment come from ridge regressions cross-fitted within the
        scored units, the same for every estimator; a known ``propensity`` is used where it is given. 0 is
        the best constant effect of these units, and noise in y keeps even the true effects far below 1.

        Raises
        ------
        TreatmentError
            If no treatment is given and ``fit`` was not given a column's name.
        """
        check_is_fitted(self)
        if treatment is None:
            treatment = self.treatment_name_
        design, _ = self._check_predict(X)
        n = len(design)
        values = {
            role: _inputs.column_or_array(X, value, role)[0]
            for role, value in (
                ("treatment", treatment),
                ("groups", groups),
                ("sample_weight", sample_weight),
                ("propensity", propensity),
            )
        }
        t = _inputs.check_treatment(values["treatment"], n, binary=self._binary_treatment)
        outcome = _inputs.check_outcome(y, n)
        clusters = _inputs.check_groups(values["groups"], n)
        weight = _inputs.check_weights(values["sample_weight"], n)
        known = _inputs.check_propensity(values["propensity"], n)
        e = known if known is not None else _scoring.crossfit_ridge(design, t, weight, clusters)
        m = _scoring.crossfit_ridge(design, outcome, weight, clusters)
        return _scoring.r_score(self.predict(X), outcome - m, t - e, weight)

    def support(self, X: Any) -> FloatArray:
        """How much the training data say about each unit, shape (n,), in (0, 1]; below 0.05 is extrapolation.

        The share of training units at least as far from their nearest neighbours as this unit is, in the
        whitened features on which the effect may depend.
        """
        design, _ = self._check_predict(X, effect_only=True)
        return _support.support(self.support_reference_, design[:, self._support_columns()])

    def summary(self) -> Summary:
        """Printed table of the fit with its diagnostics."""
        check_is_fitted(self)
        return self._summary()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to one file, without pickle; :func:`causalsat.load` reads it."""
        from causalsat.persistence import save

        check_is_fitted(self)
        save(self, path)

    # ------------------------------------------------------------------ checks, once, at the door
    def _check_fit(self, X: Any, y: Any, treatment: Any, groups: Any, sample_weight: Any, propensity: Any) -> FitData:
        values, names = {}, set()
        for role, value in (
            ("treatment", treatment),
            ("groups", groups),
            ("sample_weight", sample_weight),
            ("propensity", propensity),
        ):
            values[role], name = _inputs.column_or_array(X, value, role)
            if name is not None:
                names.add(name)
            if role == "treatment":
                self.treatment_name_ = name
        self.role_names_ = tuple(sorted(names))
        raw = self._validate_table(_inputs.features_only(X, names), reset=True)
        n = len(raw)
        feature_names = tuple(
            str(name) for name in getattr(self, "feature_names_in_", [f"x{j}" for j in range(raw.shape[1])])
        )
        self.imputation_ = _inputs.learn_imputation(raw, feature_names)
        self.design_names_ = feature_names + tuple(f"{feature_names[j]} missing" for j in self.imputation_.indicators)
        return FitData(
            X=self.imputation_.apply(raw, feature_names),
            y=_inputs.check_outcome(y, n),
            treatment=_inputs.check_treatment(values["treatment"], n, binary=self._binary_treatment),
            groups=_inputs.check_groups(values["groups"], n),
            sample_weight=_inputs.check_weights(values["sample_weight"], n),
            propensity=_inputs.check_propensity(values["propensity"], n),
            feature_names=self.design_names_,
            weighted=values["sample_weight"] is not None,
        )

    def _check_predict(self, X: Any, *, effect_only: bool = False) -> tuple[FloatArray, NDArray[Any]]:
        """Checked features; with ``effect_only``, columns on which the effect does not depend may be missing."""
        check_is_fitted(self)
        index = _inputs.unit_index(X) if np.ndim(X) >= 1 else None
        drop = set(self.role_names_)
        if _inputs.is_dataframe(X) and hasattr(self, "feature_names_in_"):
            missing = [name for name in self.feature_names_in_ if name not in X.columns]
            if not missing:
                X = X[list(self.feature_names_in_)]
        raw = self._validate_table(_inputs.features_only(X, drop), reset=False)
        names = self.design_names_[: raw.shape[1]]
        quiet = None
        if effect_only:
            quiet = np.ones(len(self.design_names_), dtype=bool)
            quiet[self._support_columns()] = False
            quiet = quiet[: raw.shape[1]]
        return self.imputation_.apply(raw, names, quiet), np.arange(len(raw)) if index is None else index

    def _validate_table(self, X: Any, *, reset: bool) -> FloatArray:
        try:
            table = validate_data(
                self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan", accept_sparse=False
            )
        except CausalsatError:
            raise
        except ValueError as error:
            raise DataError(str(error)) from error
        if np.isinf(table).any():
            column = int(np.flatnonzero(np.isinf(table).any(axis=0))[0])
            name = getattr(self, "feature_names_in_", range(table.shape[1]))[column]
            raise DataError(
                f"X contains infinity (inf) in column {name}",
                expected="finite numbers or missing values (NaN)",
                todo="check a division or a logarithm",
            )
        return np.asarray(table)

    def _check_level(self, value: Any, n: int, name: str) -> FloatArray:
        level = _inputs.check_contrast_value(value, n, name)
        if self._binary_treatment and not np.isin(level, (0.0, 1.0)).all():
            raise ParameterError(
                f"{name}={value!r}", expected="0 or 1: this estimator was fitted to a binary treatment"
            )
        return level

    def __sklearn_tags__(self) -> Any:
        """Missing values are handled; this is neither a classifier nor a regressor."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


class OutcomeEstimator(EffectEstimator):
    """An effect estimator whose model also has the outcome itself: subclasses add :meth:`_outcome_draws`."""

    @abstractmethod
    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the mean potential outcome at treatment levels, one a unit."""

    def predict_outcome(self, X: Any, *, treatment: ArrayLike = 1.0) -> EffectPosterior:
        """Posterior of the mean potential outcome under a treatment, at a village of which nothing is known.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        treatment : float or array of shape (n,)
            The treatment level; evaluate it at several for a dose-response curve.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``; probabilities where a binary outcome was modelled as
            such. The noise of a single unit and of a single village is no part of it.

        Raises
        ------
        ParameterError
            If the level is not one finite number, or one for each unit, or not a level the model can take.
        """
        design, index = self._check_predict(X)
        level = self._check_level(treatment, len(index), "treatment")
        return EffectPosterior(
            self._outcome_draws(design, level),
            index=index,
            kind="outcome",
            treatment=treatment,
            baseline=None,
            diagnostics=self._diagnostics(),
        )


def final_estimator(model: Any) -> tuple[Any, Any]:
    """Split a Pipeline into its fitted transformer part (or None) and its final estimator."""
    steps = getattr(model, "steps", None)
    if steps is None:
        return None, model
    return (model[:-1] if len(steps) > 1 else None), steps[-1][1]


def _call_final(model: Any, X: Any, method: str, **options: Any) -> Any:
    transformers, estimator = final_estimator(model)
    if not hasattr(estimator, method):
        raise ParameterError(
            f"a model that ends in {type(estimator).__name__}, which has no {method}()",
            expected="an estimator of causalsat, or a scikit-learn Pipeline that ends in one",
        )
    if transformers is None:
        return getattr(estimator, method)(X, **options)
    latents = transformers.transform(X)
    result = getattr(estimator, method)(latents, **options)
    if isinstance(result, EffectPosterior) and not _inputs.is_dataframe(latents):
        from dataclasses import replace

        result = replace(result, index=_inputs.unit_index(X))
    return result


def effect(model: Any, X: Any, *, treatment: ArrayLike = 1.0, baseline: ArrayLike = 0.0) -> EffectPosterior:
    """Posterior effects from an estimator or from a scikit-learn Pipeline that ends in one.

    scikit-learn's Pipeline passes ``predict`` on to its last step, but not ``effect``; this does.

    Parameters
    ----------
    model : EffectEstimator or Pipeline
        Fitted model.
    X : array, DataFrame, GeoDataFrame or DataArray
        Units, in the form that the model was fitted on.
    treatment, baseline : float or array of shape (n,)
        The levels to contrast.

    Returns
    -------
    EffectPosterior
        Draws of shape (draw, n).
    """
    return _call_final(model, X, "effect", treatment=treatment, baseline=baseline)  # type: ignore[no-any-return]


def support(model: Any, X: Any) -> FloatArray:
    """Support of each unit (see :meth:`EffectEstimator.support`) from an estimator or a Pipeline."""
    return _call_final(model, X, "support")  # type: ignore[no-any-return]
