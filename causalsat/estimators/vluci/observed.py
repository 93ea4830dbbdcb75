"""What VLUCI says of units whose treatment and outcome were observed: their L, and their own effects."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from causalsat.base import effect
from causalsat.core import inputs
from causalsat.core.inputs import FloatArray
from causalsat.estimators.levels import FittedLevels
from causalsat.estimators.members import chunks, take
from causalsat.estimators.vluci import checks as vluci_checks
from causalsat.inference.stacking import thin
from causalsat.posterior import EffectPosterior

__all__ = ["ObservedUnits"]


class ObservedUnits(FittedLevels):
    """Methods about observed units, which use the posterior of their own L rather than its prior."""

    engine_: Any
    members_: list[Any]
    seed_: int
    shift_: float

    def _observed(self, X: Any, y: Any, treatment: Any) -> tuple[FloatArray, FloatArray, FloatArray, Any]:
        """Checked units that were observed: X, y, treatment, index."""
        design, index = self._check_predict(X)
        if treatment is None:
            treatment = self.treatment_name_
        values, _ = inputs.column_or_array(X, treatment, "treatment")
        outcome = inputs.check_outcome(y, len(design))
        t = vluci_checks.observed_treatment(values, len(design), binary=self.binary_)
        return design, outcome, t, index

    def infer_confounders(
        self, X: Any, y: ArrayLike, treatment: ArrayLike | str | None = None, *, n_draws: int | None = None
    ) -> FloatArray:
        """Draws of the unobserved confounder of units whose treatment and outcome were observed.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        y, treatment : array of shape (n,)
            Their outcome and treatment (or its column in X, by default the one that ``fit`` was given).
        n_draws : int, optional
            Draws; by default one for each imputation. They go round the imputations.

        Returns
        -------
        ndarray of shape (n_draws, n, d)
            Draws of L. Its sign is arbitrary: positive moves towards treatment.

        Raises
        ------
        DataError, TreatmentError
            If treatment or outcome cannot be used.
        """
        design, outcome, t, _ = self._observed(X, y, treatment)
        m = self.engine_.n_imputations
        rng = np.random.default_rng([self.seed_, 1])
        return np.array([self.engine_.draw(i % m, design, t, outcome, rng) for i in range(int(n_draws or m))])

    def counterfactual(
        self,
        X: Any,
        y: ArrayLike,
        treatment: ArrayLike | str | None = None,
        *,
        level: ArrayLike = 1.0,
        baseline: ArrayLike = 0.0,
    ) -> EffectPosterior:
        """Effect on units whose treatment and outcome were observed, given what these say of their own L.

        Parameters
        ----------
        X, y, treatment
            As in :meth:`infer_confounders`.
        level, baseline : float or array of shape (n,)
            The levels to contrast.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n). :meth:`effect` is about new units, of which only X is known.
        """
        design, outcome, t, index = self._observed(X, y, treatment)
        high, low = (self._check_level(v, len(t), k) for v, k in ((level, "level"), (baseline, "baseline")))
        draws = self._own(design, outcome, t, high, low)
        about = self._diagnostics()
        return EffectPosterior(draws, index=index, treatment=level, baseline=baseline, diagnostics=about)

    def counterfactual_outcome(
        self, X: Any, y: ArrayLike, treatment: ArrayLike | str | None = None, *, level: ArrayLike = 0.0
    ) -> EffectPosterior:
        """Outcome that observed units would have had at a level: their own plus the effect of the change.

        Parameters
        ----------
        X, y, treatment
            As in :meth:`infer_confounders`.
        level : float or array of shape (n,)
            The treatment that they would have had.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``; where the level is their own, their own outcome.
        """
        design, outcome, t, index = self._observed(X, y, treatment)
        other = self._check_level(level, len(t), "level")
        draws = outcome + self._own(design, outcome, t, other, t)
        about = self._diagnostics()
        return EffectPosterior(draws, index=index, kind="outcome", treatment=level, baseline=None, diagnostics=about)

    def _own(
        self, X: FloatArray, y: FloatArray, t: FloatArray, level: FloatArray, baseline: FloatArray
    ) -> FloatArray:
        rng = np.random.default_rng([self.seed_, 2])
        parts = []
        for i, model in enumerate(self.members_):
            joined = self._with_latent(X, self.engine_.draw(i, X, t, y, rng))
            rows = []
            for c in chunks(len(X)):
                draws = effect(model, take(joined, c), treatment=level[c], baseline=baseline[c]).draws
                rows.append(draws[thin(len(draws), self._count())])
            parts.append(np.concatenate(rows, axis=1))
        return np.concatenate(parts) + self.shift_ * (level - baseline)
