"""Conditional effects of several arms: doubly robust scores of every arm, projected jointly on the modifiers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.base import EffectEstimator, Summary
from causalsat.core import inputs
from causalsat.core.inputs import FitData, align, check_whole_numbers, select_columns
from causalsat.core.names import list_names, plain, shown
from causalsat.core.treatment import CONTROL_WORDS, arm_label, is_dose, two_values
from causalsat.design.design import check_nested, check_strata
from causalsat.exceptions import ParameterError, TreatmentError
from causalsat.inference import nuisances as scoring
from causalsat.inference.arm_comparison import ArmComparison, code_arms, compare_arms
from causalsat.inference.arms import ArmScores, arm_scores
from causalsat.inference.blocks import draw_blocks, project_blocks
from causalsat.inference.lack_of_fit import LackOfFit, check_ratio, lack_of_fit
from causalsat.posterior import EffectPosterior

__all__ = ["ArmsEffect"]

FloatArray = NDArray[np.float64]


class ArmsEffect(EffectEstimator):
    """Conditional effects of several arms against each other, jointly estimated.

    Doubly robust scores of each arm's outcome (AIPW), cross-fitted over clusters, are projected on the modifiers, a
    block of coefficients for each arm, with one cluster-robust covariance of all blocks. The blocks are shrunk
    towards constant effects by one prior that treats the arms alike, control included. With two arms it does what
    :class:`~causalsat.DoublyRobustEffect` does.

    Effects of a pair of arms are differences of the same draws, so that effect(a, b) = -effect(b, a) and
    effect(a, c) = effect(a, b) + effect(b, c).

    Parameters
    ----------
    control : object, optional
        Label of the control arm. ``Study.fit`` gives the study's; by default 0, or the one label that means control,
        such as "control".
    outcome_model : scikit-learn estimator, optional
        Learner of the outcome in each arm; by default ridge regression on standardised features.
    propensity_model : {None, "logistic"}
        None: shares of the arms (in each stratum), as in a randomised trial. ``"logistic"``: a multinomial logistic
        regression, for observational data.
    n_splits : int
        Folds of the cross-fitting; fewer where an arm has fewer clusters.
    modifiers : None, str, int or list
        Features on which the effects may depend: names, patterns (``"img*"``) or positions.
    lack_of_fit : float
        What linear effects may leave out, as in :class:`~causalsat.DoublyRobustEffect`.
    n_draws : int
        Number of draws.
    random_state : int
        Seed of the folds and the draws.

    Attributes
    ----------
    arms_ : tuple of str
        Names of the arms, the control first.
    comparison_ : ArmComparison
        Average effects of all pairs, with their joint covariance.
    modifier_names_ : tuple of str
        Names of the columns of the projection.
    coef_draws_ : ndarray of shape (n_draws, K - 1, k + 1)
        Draws of the coefficients of each arm against control, on the constant and the standardised modifiers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, arm = rng.standard_normal((900, 2)), np.array(["control", "cash", "goats"])[np.arange(900) % 3]
    >>> y = (arm == "cash") * (1 + X[:, 0]) + (arm == "goats") * 2.0 + rng.standard_normal(900)
    >>> model = ArmsEffect(control="control").fit(X, y, treatment=arm)
    >>> round(float(model.effect(X, treatment="goats", baseline="cash").ate()), 1)
    1.0
    >>> bool(np.corrcoef(model.effect(X, treatment="cash").mean(), X[:, 0])[0, 1] > 0.9)
    True
    """

    takes_arms: ClassVar[bool] = True
    _takes_design: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        control: Any = None,
        outcome_model: Any = None,
        propensity_model: str | None = None,
        n_splits: int = 5,
        modifiers: Any = None,
        lack_of_fit: float = 0.2,
        n_draws: int = 1000,
        random_state: Any = 0,
    ) -> None:
        self.control = control
        self.outcome_model = outcome_model
        self.propensity_model = propensity_model
        self.n_splits = n_splits
        self.modifiers = modifiers
        self.lack_of_fit = lack_of_fit
        self.n_draws = n_draws
        self.random_state = random_state

    def _check_parameters(self) -> None:
        if self.propensity_model not in (None, "logistic"):
            raise ParameterError(f"propensity_model={self.propensity_model!r}", expected="None or 'logistic'")
        check_whole_numbers(self, {"n_draws": 2, "n_splits": 2})
        check_ratio(self.lack_of_fit)

    def fit(self, X: Any, y: Any = None, *, control: Any = None, **roles: Any) -> Any:
        """Fit the effects of all arms.

        Parameters
        ----------
        X : array, DataFrame or GeoDataFrame of shape (n, p)
            Features of the units.
        y : array of shape (n,)
            Outcome.
        control : object, optional
            Label of the control arm, in the place of the estimator's parameter.
        **roles
            ``treatment`` (labels of the arms: texts or numbers), ``groups``, ``strata``, ``sample_weight`` and
            ``propensity`` (of two arms), or ``design``, as every estimator takes them.

        Returns
        -------
        self

        Raises
        ------
        DataError, TreatmentError, ColumnError, ParameterError
            If an input cannot be used; the message says what to do.
        """
        self._control_of_fit = self.control if control is None else control
        return super().fit(X, y, **roles)

    # ------------------------------------------------------------------ labels and codes
    def _checked_roles(self, y: Any, values: Any, n: int) -> dict[str, Any]:
        code, self.arms_ = _codes(values["treatment"], n, self._control_of_fit)
        roles = super()._checked_roles(y, {**values, "treatment": (code > 0).astype(float)}, n)
        if len(self.arms_) > 2 and roles["propensity"] is not None:
            raise ParameterError(
                f"one propensity for {len(self.arms_)} arms",
                expected="no propensity",
                todo="leave it out: the shares of the arms (in each stratum) are used",
            )
        return {**roles, "treatment": code.astype(float)}

    def _with_design(self, data: FitData, strata: Any) -> FitData:
        if len(self.arms_) == 2:
            return super()._with_design(data, strata)
        blocks = check_strata(strata, len(data.y))
        if blocks is not None:
            check_nested(data.groups, blocks)
        return replace(data, strata=blocks)

    def arm_code(self, value: Any, name: str = "treatment") -> float:
        """Code of an arm: its position in ``arms_``.

        Raises
        ------
        ParameterError
            If it is no arm, or none is named where there are three or more.
        """
        value = np.asarray(value).item() if np.ndim(value) == 0 else value
        text = arm_label(value)
        if text in self.arms_:
            return float(self.arms_.index(text))
        if isinstance(value, float | int) and not isinstance(value, bool):
            if name == "baseline" and value == 0:
                return 0.0
            if name == "treatment" and value == 1 and len(self.arms_) == 2:
                return 1.0
        raise ParameterError(
            f"{name}={shown(value)}",
            expected=f"one of the arms {list_names(map(shown, self.arms_), 8)}",
            todo=f"name two arms: treatment={self.arms_[-1]!r}, baseline={self.arms_[0]!r}",
        )

    def _codes_of(self, X: Any, value: Any, name: str) -> Any:
        own = align(X, value, name)
        if np.ndim(own) == 0:
            return self.arm_code(own, name)
        values = np.asarray(own, dtype=object)
        found = {v: self.arm_code(v, name) for v in set(values.tolist())}
        return np.array([found[v] for v in values.tolist()])

    def _check_level(self, value: Any, n: int, name: str) -> FloatArray:
        return inputs.check_contrast_value(value, n, name)

    def effect(self, X: Any, *, treatment: Any = 1.0, baseline: Any = 0.0, scope: str = "mean") -> EffectPosterior:
        """Posterior of the conditional effect of one arm against another.

        Parameters
        ----------
        X : array, DataFrame or GeoDataFrame of shape (n, p)
            Features, as in :meth:`fit`.
        treatment, baseline : label, or array of labels of shape (n,)
            The arms to compare; the baseline is the control by default. Of three arms or more the treatment must be
            named, unless an arm is called 1.
        scope : {"mean"}
            What an interval is about: the mean effect of places that look alike.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n).

        Raises
        ------
        ParameterError
            If a label is no arm.
        """
        self._check_fitted_arms()
        levels = {"treatment": treatment, "baseline": baseline}
        codes = {name: self._codes_of(X, value, name) for name, value in levels.items()}
        return replace(super().effect(X, scope=scope, **codes), **levels)

    def _check_fitted_arms(self) -> None:
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)

    def score(
        self,
        X: Any,
        y: ArrayLike,
        *,
        treatment: Any = None,
        groups: Any = None,
        sample_weight: Any = None,
        propensity: Any = None,
    ) -> float:
        """R-score of every arm against control, averaged over the arms by their units; see other estimators.

        Raises
        ------
        TreatmentError
            If no treatment is given and ``fit`` was not given a column's name.
        """
        roles = {"groups": groups, "sample_weight": sample_weight}
        if len(self.arms_) == 2 and self.arms_ == ("0", "1"):
            return super().score(X, y, treatment=treatment, propensity=propensity, **roles)
        treatment = self.treatment_name_ if treatment is None else treatment
        design, _ = self._check_predict(X)
        given = {"treatment": treatment, **roles}
        own = {role: inputs.column_or_array(X, value, role)[0] for role, value in given.items()}
        if own["treatment"] is None:
            raise TreatmentError("no treatment", expected="treatment= the arms of the units")
        outcome = inputs.check_outcome(inputs.align_outcome(X, y, **own), len(design))
        code = np.asarray([self.arm_code(v, "treatment") for v in np.asarray(own["treatment"], dtype=object)])
        clusters, weight = (
            inputs.check_groups(own["groups"], len(design)),
            inputs.check_weights(own["sample_weight"], len(design)),
        )
        total = 0.0
        for k in range(1, len(self.arms_)):
            rows = np.isin(code, (0, k))
            t = (code[rows] == k).astype(float)
            groups_of = None if clusters is None else np.unique(clusters[rows], return_inverse=True)[1]
            e = scoring.crossfit_ridge(design[rows], t, weight[rows], groups_of)
            m = scoring.crossfit_ridge(design[rows], outcome[rows], weight[rows], groups_of)
            level = np.full(int(rows.sum()), float(k))
            tau = self._effect_draws(design[rows], level, np.zeros_like(level)).mean(axis=0)
            part = scoring.r_score(tau, outcome[rows] - m, t - e, weight[rows])
            total += part * float((code == k).sum())
        return total / float((code > 0).sum())

    # ------------------------------------------------------------------ the fit
    def _fit(self, data: FitData) -> None:
        n_arms, code = len(self.arms_), data.treatment.astype(np.int64)
        self.modifier_positions_ = select_columns(data.feature_names[: self.n_features_in_], self.modifiers)
        self.modifier_names_ = tuple(data.feature_names[j] for j in self.modifier_positions_)
        found = self._scores(data, code)
        fixed = self.propensity_model is None
        self.comparison_: ArmComparison = compare_arms(
            found.scores, code, self.arms_, data.sample_weight, data.strata, data.groups, fixed=fixed
        )
        counts = np.bincount(code, minlength=n_arms)
        self.smallest_propensity_ = float(found.propensity.min())
        self.arm_counts_ = tuple(int(v) for v in counts)
        self._project(data, found.scores[:, 1:] - found.scores[:, :1])

    def _scores(self, data: FitData, code: NDArray[np.int64]) -> ArmScores:
        e = None if data.propensity is None else np.column_stack([1 - data.propensity, data.propensity])
        return arm_scores(
            data.X,
            data.y,
            code,
            len(self.arms_),
            strata=data.strata,
            clusters=data.groups,
            weight=data.sample_weight if data.weighted else None,
            propensity=e,
            randomised=self.propensity_model is None,
            outcome_model=self.outcome_model,
            n_splits=self.n_splits,
            random_state=self.random_state,
        )

    def _project(self, data: FitData, contrasts: FloatArray) -> None:
        features, weight = data.X[:, self.modifier_positions_], data.sample_weight
        self.centre_ = np.average(features, axis=0, weights=weight)
        spread = np.sqrt(np.average((features - self.centre_) ** 2, axis=0, weights=weight))
        self.scale_ = np.where(spread > 1e-12 * np.maximum(np.abs(self.centre_), 1e-300), spread, np.inf)
        design = self._design(features)
        found = project_blocks(contrasts, design, weight, data.groups)
        averages = np.array([self.comparison_.contrast(arm)["se"] for arm in self.arms_[1:]])
        mean = np.average(data.y, weights=weight)
        spread_y = float(np.sqrt(np.average((data.y - mean) ** 2, weights=weight)))
        prior = max(0.5 * spread_y, 1e-12) / np.sqrt(max(design.shape[1] - 1, 1))
        rng = np.random.default_rng(self.random_state)
        self.coef_draws_, self.prior_sd_ = draw_blocks(found, averages, int(self.n_draws), rng, prior_scale=prior)
        self.lack_of_fit_: tuple[LackOfFit | None, ...] = tuple(
            lack_of_fit(
                contrasts[:, k],
                design @ found.coef[k],
                design,
                weight,
                data.groups,
                effect_sd=float(np.std(design @ self.coef_draws_[:, k].mean(axis=0))),
                ratio=float(self.lack_of_fit),
                n_draws=int(self.n_draws),
                rng=rng,
            )
            for k in range(contrasts.shape[1])
        )

    def _design(self, features: FloatArray) -> FloatArray:
        return np.column_stack([np.ones(len(features)), (features - self.centre_) / self.scale_])

    def _arm_draws(self, design: FloatArray, k: int) -> FloatArray:
        """Draws (draw, n) of arm k against control."""
        if k == 0:
            return np.zeros((len(self.coef_draws_), len(design)))
        left, coef = self.lack_of_fit_[k - 1], self.coef_draws_[:, k - 1]
        return np.asarray(coef @ design.T) if left is None else left.draws(design, coef)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        design = self._design(X[:, self.modifier_positions_])
        out = np.zeros((len(self.coef_draws_), len(design)))
        for k in np.unique(np.concatenate([treatment, baseline])).astype(int):
            draws = self._arm_draws(design, int(k))
            sign = (treatment == k).astype(float) - (baseline == k)
            out += draws * sign
        return out

    def _support_columns(self) -> NDArray[np.int64]:
        return np.asarray(self.modifier_positions_)

    def _diagnostics(self) -> dict[str, Any]:
        return {
            "source": "joint cluster-robust t approximation of all arms, prior on the modifiers' coefficients",
            "smallest probability of an arm": self.smallest_propensity_,
            "prior sd of a coefficient": self.prior_sd_,
        }

    def _summary(self) -> Summary:
        table = self.comparison_.to_dataframe()
        table.index = [f"ATE: {a} against {b}" for a, b in table.index]
        counts = {"units": self.n_units_, "clusters": self.n_groups_}
        counts |= {f"units of {name}": n for name, n in zip(self.arms_, self.arm_counts_, strict=True)}
        notes = ("Averages of doubly robust scores; one covariance of all arms, clustered.",)
        return Summary("Effects of several arms", table, {**counts, **self._diagnostics()}, notes)


def _codes(values: Any, n: int, control: Any) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Codes and names of the arms; the control is named, or called 0, or says so."""
    import pandas as pd

    if values is None:
        inputs.check_treatment(values, n, binary=True)
    labels = inputs.as_labels(values)
    numeric = labels.dtype.kind in "biuf" or pd.to_numeric(pd.Series(labels.ravel()), errors="coerce").notna().all()
    if numeric or labels.shape != (n,):
        labels = inputs.check_treatment(values, n, binary=False)
        kinds = list(np.unique(labels))
        if is_dose(kinds):
            inputs.check_treatment(values, n, binary=True)
        if control is None and kinds[0] != 0:
            if len(kinds) == 2:
                raise two_values(*kinds)
            control = _control_among(kinds)
        labels = np.array([plain(v) for v in labels], dtype=object)
        control = 0 if control is None else control
    kinds = list(pd.unique(pd.Series(labels)))
    if control is None:
        control = _control_among(kinds)
    return code_arms(labels, control)


def _control_among(kinds: list[Any]) -> Any:
    """The one label that means control."""
    words = [v for v in kinds if str(v).strip().casefold() in CONTROL_WORDS]
    if len(words) == 1:
        return words[0]
    raise TreatmentError(
        f"the arms {list_names((shown(v) for v in kinds), 8)}, none of which is known as control",
        expected="the label of the control arm",
        todo="ArmsEffect(control=...): the sign of every effect depends on it",
    )
