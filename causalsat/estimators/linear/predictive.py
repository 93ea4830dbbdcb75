"""Draws of single outcomes of the linear effect model, from its prior and from its posterior."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.base import OutcomeEstimator
from causalsat.core import inputs
from causalsat.core.inputs import FloatArray
from causalsat.estimators.linear.data import Scaling
from causalsat.estimators.linear.layout import Layout
from causalsat.exceptions import ParameterError
from causalsat.posterior import EffectPosterior


class PredictiveLinear(OutcomeEstimator):
    """What of :class:`~causalsat.BayesianLinearEffect` draws outcomes of single units."""

    binary_: bool
    draws_: dict[str, FloatArray]
    layout_: Layout
    modifiers_: NDArray[np.int64]
    prior_scale_: FloatArray
    scaling_: Scaling
    seed_: int

    @abstractmethod
    def _places(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of the design's columns among the features with main effects."""

    @abstractmethod
    def _linear(
        self, X: FloatArray, draws: dict[str, FloatArray] | None = None, *, with_base: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Predictor at average treatment and its slope in the treatment, each of shape (draw, unit)."""

    def posterior_predictive(
        self, X: Any, *, treatment: ArrayLike | str, groups: ArrayLike | str | None = None
    ) -> EffectPosterior:
        """Draws of single outcomes from the posterior: with noise, and with the effects of new villages.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        treatment : float, array of shape (n,) or str
            Treatment of each unit, or the name of X's column that holds it.
        groups : array of shape (n,) or str, optional
            Units of one village share a village effect; by default each is in a village of its own.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``; :func:`causalsat.plots.plot_predictive` shows them.
        """
        return self._predictive(X, treatment, groups, None)

    def prior_predictive(
        self, X: Any, *, treatment: ArrayLike | str, groups: ArrayLike | str | None = None, n_draws: int = 400
    ) -> EffectPosterior:
        """Draws of single outcomes from the prior: what the model held possible before it saw the outcomes.

        The prior is stated for a standardised outcome, so it takes location and scale from the outcomes of
        :meth:`fit`; nothing else of them enters.

        Parameters
        ----------
        X, treatment, groups
            As in :meth:`posterior_predictive`.
        n_draws : int
            Number of draws.

        Returns
        -------
        EffectPosterior
            Draws of shape (n_draws, n), ``kind="outcome"``.
        """
        if not isinstance(n_draws, int | np.integer) or n_draws < 1:
            raise ParameterError(f"n_draws={n_draws!r}", expected="a positive whole number")
        return self._predictive(X, treatment, groups, int(n_draws))

    def _predictive(self, X: Any, treatment: Any, groups: Any, n_prior: int | None) -> EffectPosterior:
        from causalsat.estimators.linear import draws as linear_draws

        design, index = self._check_predict(X)
        level = self._check_level(inputs.column_or_array(X, treatment, "treatment")[0], len(index), "treatment")
        codes = inputs.check_groups(inputs.column_or_array(X, groups, "groups")[0], len(index))
        rng = np.random.default_rng([self.seed_, 3 if n_prior is None else 4])
        draws = None
        if n_prior is not None:
            fit = linear_draws.prior_fit(self.layout_, n_prior, len(self.prior_scale_), len(self.modifiers_), rng)
            draws = linear_draws.in_outcome_units(
                fit, self.scaling_, self.prior_scale_, self._places(self.modifiers_)
            )
        base, slope = self._linear(design, draws)
        dose = level - self.scaling_.t_centre
        values = linear_draws.single_outcomes(
            self.draws_ if draws is None else draws,
            base + slope * dose,
            dose,
            level.astype(np.int64) if self.binary_ else np.zeros(len(level), dtype=np.int64),
            np.arange(len(level)) if codes is None else codes,
            self.layout_.family,
            rng,
        )
        return EffectPosterior(values, index=index, kind="outcome", treatment=treatment, baseline=None)
