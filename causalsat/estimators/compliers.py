"""Conditional effects on compliers: doubly robust scores of intention to treat and of take-up, and their ratio."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.base import EffectEstimator, Summary
from causalsat.core import inputs
from causalsat.core.inputs import FitData, align, check_whole_numbers, select_columns, without_zero_weights
from causalsat.design.design import make_design, roles_of
from causalsat.exceptions import DataError, ParameterError, TreatmentError
from causalsat.inference.arms import cells_of_arms
from causalsat.inference.average_effects import score_mean
from causalsat.inference.blocks import draw_blocks, project_blocks
from causalsat.inference.late import draw_late, late_moments
from causalsat.inference.nuisances import dr_scores, nuisances_of
from causalsat.posterior import EffectPosterior, coefficient_table

__all__ = ["ComplierEffect"]

FloatArray = NDArray[np.float64]

QUANTITIES = ("complier", "itt", "compliance")


class ComplierEffect(EffectEstimator):
    """Conditional effects on compliers of a treatment that not everybody takes up.

    The treatment is the assignment; ``take_up`` says who took it up. Doubly robust scores of the intention to treat
    and of the first stage, cross-fitted over clusters, give an effect on compliers that is linear in the modifiers,
    by an orthogonal moment whose quasi-likelihood does not divide by compliance: where compliance is weak the
    posterior is that of the prior, wide and proper. ``effect(X, what="itt")`` and ``what="compliance"`` are the
    conditional intention to treat and share of compliers.

    Parameters
    ----------
    outcome_model : scikit-learn estimator, optional
        Learner of outcome and take-up in each arm; by default ridge regression on standardised features.
    propensity_model : {None, "constant", "logistic"} or scikit-learn classifier
        Learner of the assignment where ``fit`` is given no propensity. None means a randomised trial.
    n_splits : int
        Folds of the cross-fitting.
    modifiers : None, str, int or list
        Features on which the effects may depend: names, patterns (``"img*"``) or positions.
    prior_sd : float
        Prior standard deviation of the average effect on compliers, in standard deviations of the outcome. It bounds
        what is not known where nobody complies.
    n_draws : int
        Number of draws.
    random_state : int
        Seed of the folds and the draws.

    Attributes
    ----------
    coef_draws_ : ndarray of shape (n_draws, k + 1)
        Draws of the coefficients of the effect on compliers, on the constant and the standardised modifiers.
    stage_draws_ : ndarray of shape (n_draws, 2, k + 1)
        Those of the intention to treat and of compliance.
    first_stage_f_ : float
        Squared t statistic of the average first stage.
    modifier_names_ : tuple of str
        Names of the columns.

    Notes
    -----
    Without ``take_up`` everybody did as assigned, and the effect on compliers is that of the treatment. With
    one-sided noncompliance, compliers are all who take the treatment up, and the effect is that on the treated.
    Identification needs that the assignment moves the outcome through take-up only, and take-up in one direction.

    References
    ----------
    Imbens and Angrist (1994); Anderson and Rubin (1949); Chernozhukov and Hong (2003), "An MCMC approach to classical
    estimation"; Murray, Adams and MacKay (2010), "Elliptical slice sampling".

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, z = rng.standard_normal((1500, 2)), np.arange(1500) % 2
    >>> d = z * (rng.uniform(size=1500) < 0.6)
    >>> y = d * (1 + X[:, 0]) + rng.standard_normal(1500)
    >>> model = ComplierEffect(n_draws=300).fit(X, y, treatment=z, take_up=d)
    >>> low, high = model.effect(X).ate().interval(0.95)[0]
    >>> bool(low < 1 < high), bool(np.corrcoef(model.predict(X), X[:, 0])[0, 1] > 0.9)
    (True, True)
    >>> bool(abs(model.effect(X, what="compliance").ate().mean()[0] - 0.6) < 0.05)
    True
    """

    quantities: ClassVar[tuple[str, ...]] = QUANTITIES
    _takes_design: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {"n_draws": 400}
    __metadata_request__fit: ClassVar = {
        "treatment": True,
        "take_up": True,
        "groups": True,
        "strata": True,
        "sample_weight": True,
        "propensity": True,
    }

    def __init__(
        self,
        outcome_model: Any = None,
        propensity_model: Any = None,
        n_splits: int = 5,
        modifiers: Any = None,
        prior_sd: float = 5.0,
        n_draws: int = 1000,
        random_state: Any = 0,
    ) -> None:
        self.outcome_model = outcome_model
        self.propensity_model = propensity_model
        self.n_splits = n_splits
        self.modifiers = modifiers
        self.prior_sd = prior_sd
        self.n_draws = n_draws
        self.random_state = random_state

    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_draws": 2, "n_splits": 2})
        sd = self.prior_sd
        if isinstance(sd, bool) or not isinstance(sd, int | float | np.number) or not 0 < float(sd) < np.inf:
            raise ParameterError(f"prior_sd={sd!r}", expected="a positive number of standard deviations")

    def fit(self, X: Any, y: Any = None, *, take_up: Any = None, **roles: Any) -> Any:
        """Fit the effects on compliers.

        Parameters
        ----------
        X : array, DataFrame or GeoDataFrame of shape (n, p)
            Features of the units.
        y : array of shape (n,)
            Outcome.
        take_up : array of shape (n,) or str, optional
            Who took the treatment up, 0 or 1, or the name of X's column that says so; by default as assigned.
        **roles
            ``treatment`` (the assignment), ``groups``, ``strata``, ``sample_weight``, ``propensity``, or ``design``,
            as every estimator takes them.

        Returns
        -------
        self

        Raises
        ------
        DataError, TreatmentError, ColumnError, ParameterError
            If an input cannot be used; the message says what to do.
        """
        values, name = inputs.column_or_array(X, take_up, "take_up") if take_up is not None else (None, None)
        if name is not None:
            X = X.drop(columns=name)
        self._take_up_of_fit = None if values is None else self._checked_take_up(X, y, values, roles)
        try:
            return super().fit(X, y, **roles)
        finally:
            del self._take_up_of_fit

    def _checked_take_up(self, X: Any, y: Any, values: Any, roles: dict[str, Any]) -> FloatArray:
        """Take-up of the units of positive weight, as the fit sees them."""
        n = len(X)
        d = np.asarray(align(X, values, "take_up"), dtype=float)
        if d.shape != (n,):
            raise DataError(f"take_up of shape {d.shape} for {n} units", expected="one value a unit")
        if not np.isin(d, (0.0, 1.0)).all():
            raise TreatmentError(
                "take-up with missing values, or others than 0 and 1",
                expected="1 for who took the treatment up, 0 for who did not",
                todo="leave units without a take-up out",
            )
        given = roles_of(roles.get("design"), {"sample_weight": roles.get("sample_weight")})
        weight = given["sample_weight"]
        if weight is None:
            return d
        kept = without_zero_weights(X, d, weight, {})
        return np.asarray(kept[1], dtype=float)

    # ------------------------------------------------------------------ the fit
    def _fit(self, data: FitData) -> None:
        self.modifier_positions_ = select_columns(data.feature_names[: self.n_features_in_], self.modifiers)
        self.modifier_names_ = tuple(data.feature_names[j] for j in self.modifier_positions_)
        taken = self._take_up_of_fit
        d = data.treatment if taken is None else taken
        self.as_assigned_ = bool(np.array_equal(d, data.treatment))
        if len(d) != len(data.y):
            raise DataError(f"take_up of {len(d)} units for {len(data.y)}", expected="one value a unit")
        scores = np.column_stack([self._scores(data, data.y), self._scores(data, d)])
        if self.as_assigned_:
            scores[:, 1] = 1.0
        features, weight = data.X[:, self.modifier_positions_], data.sample_weight
        self.centre_ = np.average(features, axis=0, weights=weight)
        spread = np.sqrt(np.average((features - self.centre_) ** 2, axis=0, weights=weight))
        self.scale_ = np.where(spread > 1e-12 * np.maximum(np.abs(self.centre_), 1e-300), spread, np.inf)
        self._draw(data, d, scores, self._design(features))

    def _scores(self, data: FitData, values: FloatArray) -> FloatArray:
        nuisances = nuisances_of(
            data,
            values,
            outcome_model=self.outcome_model,
            propensity_model=self.propensity_model,
            n_splits=self.n_splits,
            random_state=self.random_state,
        )
        return dr_scores(values, data.treatment, nuisances)

    def _draw(self, data: FitData, d: FloatArray, scores: FloatArray, design: FloatArray) -> None:
        weight, rng = data.sample_weight, np.random.default_rng(self.random_state)
        fixed = self._arms_were_fixed(data)
        roles = {"treatment": data.treatment, "strata": data.strata} if fixed else {}
        averages = [score_mean(s, clusters=data.groups, weights=weight, **roles) for s in scores.T]
        self.averages_ = np.array([[found.estimate, found.se, found.df] for found in averages])
        se = averages[1].se
        self.first_stage_f_ = float((averages[1].estimate / se) ** 2) if se > 0 else float("inf")
        cell, cluster = cells_of_arms(data.treatment.astype(np.int64), data.strata, data.groups)
        if not fixed:
            cell = np.zeros_like(cell)
        mean = np.average(data.y, weights=weight)
        sd = max(float(np.sqrt(np.average((data.y - mean) ** 2, weights=weight))), 1e-12)
        k = max(design.shape[1] - 1, 1)
        unit = np.column_stack([scores[:, 0] / sd, scores[:, 1]])  # in standard deviations of the outcome
        first = float(np.average(scores[:, 1], weights=weight))
        centre = float(np.average(unit[:, 0], weights=weight)) / (first if abs(first) > 0.05 else 1.0)
        draws = draw_late(
            late_moments(unit[:, 0], unit[:, 1], design, weight, cluster, cell),
            average_sd=float(self.prior_sd),
            slope_scale=1.0 / np.sqrt(k),
            centre=float(np.clip(centre, -2 * self.prior_sd, 2 * self.prior_sd)),
            n_draws=int(self.n_draws),
            rng=rng,
        )
        self.coef_draws_ = sd * draws
        found = project_blocks(unit, design, weight, data.groups)
        stages, _ = draw_blocks(
            found, self.averages_[:, 1] / np.array([sd, 1.0]), int(self.n_draws), rng, prior_scale=0.5 / np.sqrt(k)
        )
        self.stage_draws_ = stages * np.array([sd, 1.0])[None, :, None]
        self.take_up_ = tuple(
            float(np.average(d[data.treatment == arm], weights=weight[data.treatment == arm])) for arm in (0, 1)
        )

    def _arms_were_fixed(self, data: FitData) -> bool:
        if data.propensity is None:
            return self.propensity_model is None or self.propensity_model == "constant"
        design = make_design(data.treatment, groups=data.groups, strata=data.strata, propensity=data.propensity)
        return design.arms_were_fixed

    def _design(self, features: FloatArray) -> FloatArray:
        return np.column_stack([np.ones(len(features)), (features - self.centre_) / self.scale_])

    # ------------------------------------------------------------------ effects
    def effect(
        self,
        X: Any,
        *,
        treatment: Any = 1.0,
        baseline: Any = 0.0,
        scope: str = "mean",
        what: str = "complier",
    ) -> EffectPosterior:
        """Posterior of the conditional effect on compliers, intention to treat, or compliance.

        Parameters
        ----------
        X : array, DataFrame or GeoDataFrame of shape (n, p)
            Features, as in :meth:`fit`.
        treatment, baseline : float or array of shape (n,)
            The levels to contrast.
        scope : {"mean"}
            What an interval is about: the mean effect of places that look alike.
        what : {"complier", "itt", "compliance"}
            Which of them.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n).

        Raises
        ------
        ParameterError
            If ``what`` is none of the three.
        """
        if what not in QUANTITIES:
            raise ParameterError(f"what={what!r}", expected=f"one of {', '.join(QUANTITIES)}")
        found = super().effect(X, treatment=treatment, baseline=baseline, scope=scope)
        if what == "complier":
            return found
        design, _ = self._check_predict(X, effect_only=True)
        levels = [
            self._check_level(align(X, v, name), len(design), name)
            for name, v in (("treatment", treatment), ("baseline", baseline))
        ]
        coef = self.stage_draws_[:, QUANTITIES.index(what) - 1]
        return replace(found, draws=self._draws_of(coef, design, *levels))

    def _draws_of(self, coef: FloatArray, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        design = self._design(X[:, self.modifier_positions_])
        return np.asarray(((treatment - baseline)[:, None] * design) @ coef.T).T

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        return self._draws_of(self.coef_draws_, X, treatment, baseline)

    def _support_columns(self) -> NDArray[np.int64]:
        return np.asarray(self.modifier_positions_)

    def _diagnostics(self) -> dict[str, Any]:
        return {
            "source": "quasi-posterior of an orthogonal moment (Anderson-Rubin likelihood)",
            "first stage F": self.first_stage_f_,
            "take-up (control, assigned)": "as assigned"
            if self.as_assigned_
            else f"{self.take_up_[0]:.3f}, {self.take_up_[1]:.3f}",
        }

    def _summary(self) -> Summary:
        names = [f"ATE: {name}" for name in ("effect on compliers", "intention to treat", "share of compliers")]
        own = np.column_stack([self.coef_draws_[:, 0], self.stage_draws_[:, :, 0]])
        table = coefficient_table(np.column_stack([own, self.coef_draws_[:, 1:]]), [*names, *self.modifier_names_])
        counts = {"units": self.n_units_, "clusters": self.n_groups_}
        notes = (
            "ATE: of average modifiers.",
            "Modifiers are standardised: change of the effect on compliers with one standard deviation.",
        )
        return Summary("Effects on compliers", table, {**counts, **self._diagnostics()}, notes)
