"""The estimator contract: what every effect estimator of the package shares.

A subclass stores its parameters in ``__init__`` and writes ``_fit(data)`` and
``_effect_draws(X, treatment, baseline)``; inputs are checked here, once, and everything else (``predict``,
``effect``, ``score``, ``support``, ``save``) follows.

With an integer ``random_state`` a fit gives the same numbers in every run on one machine with the same number of
threads. Another number of threads (``OMP_NUM_THREADS``, ``torch.set_num_threads``) sums in another order: small
linear models and random filters then agreed to 1e-6 and a small trained network to 1e-3 (tests/reliability), since
training follows the last bits. Across machines, and on a GPU, nothing is promised to the last bit.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from causalsat import _inputs, _scoring
from causalsat._inputs import FitData, FloatArray
from causalsat._table_estimator import Summary, TableEstimator
from causalsat.exceptions import ParameterError
from causalsat.posterior import EffectPosterior

__all__ = ["EffectEstimator", "OutcomeEstimator", "Summary", "effect", "final_estimator", "support"]


class EffectEstimator(TableEstimator):
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

    # ------------------------------------------------------------------ to be written by subclasses
    @abstractmethod
    def _fit(self, data: FitData) -> None:
        """Fit on checked data and store attributes that end in an underscore."""

    @abstractmethod
    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the effect for checked features; the levels have one value a unit."""

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
            training mean and flagged by an indicator column. A geometry column is not a feature. Estimators of
            images take chips of shape (n, [time,] band, y, x), or a GeoDataFrame of places at which their
            ``imagery`` is read; units may share an image.
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
        self._learn_support(data)
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
