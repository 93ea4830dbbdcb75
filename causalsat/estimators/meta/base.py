"""What the meta-learners share: the bootstrap over clusters, its draws and the table."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalsat.base import EffectEstimator, Summary
from causalsat.core.inputs import FitData, FloatArray
from causalsat.core.parameters import check_whole_numbers
from causalsat.design import make_design
from causalsat.estimators.levels import is_binary
from causalsat.estimators.meta.shrinkage import lost_to_penalty
from causalsat.exceptions import DataError, IgnoredWarning, ParameterError
from causalsat.inference import nuisances
from causalsat.inference.bootstrap import default_regressor, draw_weights, fit_learner, takes_weights
from causalsat.inference.folds import assign_folds
from causalsat.inference.lack_of_fit import LackOfFit, check_ratio, lack_of_fit, with_slopes
from causalsat.inference.nuisances import Nuisances
from causalsat.posterior import draw_quantiles

__all__ = [
    "Expectations",
    "Learners",
    "MetaLearner",
    "Part",
    "check_learner",
    "crossfit",
    "expectations",
    "in_sample_left_over",
    "or_default",
    "small_sample_factor",
]

Learners = tuple[Any, ...]

MIN_ARM = 3


class Part(NamedTuple):
    """What one learner is fitted to, and its share in the effect, which is a weighted sum of the learners'."""

    share: float
    model: Any
    X: FloatArray
    target: FloatArray
    weight: FloatArray


class MetaLearner(EffectEstimator):
    """What the meta-learners share: the bootstrap over clusters, its draws and the table.

    A subclass writes ``_prepare`` (once, on the data as they are), ``_parts`` (what its learners are fitted to, on
    reweighted clusters) and ``_tau`` (effects of fitted learners).
    """

    n_bootstrap: int
    random_state: Any
    lack_of_fit: float
    _contract_parameters: ClassVar[dict[str, Any]] = {"n_bootstrap": 12}

    @abstractmethod
    def _learners(self) -> list[Any]:
        """Every learner that is refitted in the bootstrap."""

    def _prepare(self, data: FitData) -> None:
        """Fit what the bootstrap does not refit."""

    @abstractmethod
    def _parts(self, data: FitData, weight: FloatArray, *, counts: bool) -> Iterable[Part]:
        """What the learners of a replicate are fitted to; weights are counts of copies where ``counts``."""

    def _fit_once(self, data: FitData, weight: FloatArray, *, counts: bool) -> Learners:
        return tuple(
            fit_learner(part.model, part.X, part.target, part.weight, counts=counts)
            for part in self._parts(data, weight, counts=counts)
        )

    @abstractmethod
    def _tau(self, learners: Learners, X: FloatArray) -> FloatArray:
        """Effects (unit,) that fitted learners predict."""

    @abstractmethod
    def _left_over(self, data: FitData, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Per unit, an unbiased score of what effects ``tau`` leave out, and the weight of that score."""

    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_bootstrap": 2})
        check_ratio(self.lack_of_fit)

    def _fit(self, data: FitData) -> None:
        import sklearn

        # weights go to our own learners by name; the base class has checked what is finite
        with sklearn.config_context(
            enable_metadata_routing=False, assume_finite=True, skip_parameter_validation=True
        ):
            self._fit_replicates(data)

    def _fit_replicates(self, data: FitData) -> None:
        if is_binary(data.treatment):
            _check_arms(data.treatment)
        rng = np.random.default_rng(self.random_state)
        self._prepare(data)
        counts = not all(takes_weights(learner) for learner in self._learners())
        if counts and data.weighted:
            warnings.warn("a learner takes no sample_weight: fitted without", IgnoredWarning, stacklevel=5)
        self.models_ = []
        for _ in range(int(self.n_bootstrap)):
            drawn = draw_weights(rng, data.groups, data.treatment, counts=counts)
            weight = drawn if counts else drawn * data.sample_weight
            self.models_.append(self._fit_once(data, weight, counts=counts))
        self.resampling_ = "copies of clusters" if counts else "exponential weights of clusters"
        self.widening_ = small_sample_factor(data.n_groups, data.X.shape[1])
        tau = self._replicates(data.X)
        share = data.sample_weight / data.sample_weight.sum()
        self._learn_lack_of_fit(data, tau, share, rng)
        self.ate_draws_ = tau @ share
        self.effect_sd_draws_ = np.sqrt(np.maximum(tau**2 @ share - self.ate_draws_**2, 0.0))

    def _replicates(self, X: FloatArray) -> FloatArray:
        """Effects (replicate, unit), spread about their mean for the small number of clusters."""
        tau = np.array([self._tau(learners, X) for learners in self.models_])
        centre = tau.mean(axis=0)
        return np.asarray(centre + self.widening_ * (tau - centre))

    def _learn_lack_of_fit(self, data: FitData, tau: FloatArray, share: FloatArray, rng: np.random.Generator) -> None:
        """What is left out by the effects ``tau`` (replicate, unit), over the standardised modifiers."""
        features, centre = data.X[:, self._support_columns()], tau.mean(axis=0)
        self.lack_of_fit_: LackOfFit | None = None
        if not self.lack_of_fit:
            return
        self.centre_ = share @ features
        spread = np.sqrt(share @ (features - self.centre_) ** 2)
        self.scale_ = np.where(spread > 1e-12 * np.maximum(np.abs(self.centre_), 1e-300), spread, np.inf)
        left, weight = self._left_over(data, centre)
        effect_sd = float(np.sqrt(max(share @ centre**2 - (share @ centre) ** 2, 0.0)))
        self.lack_of_fit_ = lack_of_fit(
            left, np.zeros_like(left), self._linear_design(data.X), weight, data.groups,
            effect_sd=effect_sd, ratio=float(self.lack_of_fit), n_draws=len(tau), rng=rng,
        )  # fmt: skip
        if self.lack_of_fit_ is not None:
            self.lack_of_fit_ = with_slopes(self.lack_of_fit_, self._lost_slopes(data, len(tau), rng))

    def _lost_slopes(self, data: FitData, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """Draws of what ridge penalties may have taken from the slopes of the standardised modifiers."""
        counts = self.resampling_ == "copies of clusters"
        weight = np.ones(len(data.y)) if counts else data.sample_weight
        lost = np.zeros((n_draws, len(self.scale_)))
        for share, model, X, target, part_weight in self._parts(data, weight, counts=counts):
            learner = fit_learner(model, X, target, part_weight, counts=counts)
            lost += share * lost_to_penalty(learner, X, target, part_weight, n_draws, rng)
        return np.asarray(lost * np.where(np.isfinite(self.scale_), self.scale_, 0.0))

    def _linear_design(self, X: FloatArray) -> FloatArray:
        return np.column_stack([np.ones(len(X)), (X[:, self._support_columns()] - self.centre_) / self.scale_])

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        tau = self._replicates(X)
        left = getattr(self, "lack_of_fit_", None)  # files of before hold none
        if left is not None:
            tau += left.draws(self._linear_design(X))
        return np.asarray(tau * (treatment - baseline))

    def _diagnostics(self) -> dict[str, Any]:
        return {
            "source": f"bootstrap of clusters ({self.resampling_})",
            "replicates": len(self.models_),
            "sd of what is left out": getattr(getattr(self, "lack_of_fit_", None), "sd", 0.0),
        }

    def _summary(self) -> Summary:
        import pandas as pd

        rows = {"ATE": self.ate_draws_, "sd of effects": self.effect_sd_draws_}
        table = pd.DataFrame(
            {
                name: {
                    "estimate": float(v.mean()),
                    "std err": float(v.std(ddof=1)),
                    "[0.025": float(draw_quantiles(v, 0.025)),
                    "0.975]": float(draw_quantiles(v, 0.975)),
                }
                for name, v in rows.items()
            }
        ).T
        info = {
            "units": self.n_units_,
            "clusters": self.n_groups_,
            "treated share or mean dose": self.treated_share_,
            **self._diagnostics(),
        }
        notes = (
            f"95 % percentile intervals over the replicates, {self.widening_:.2f} times as wide for few clusters; "
            "a bootstrap does not see the bias of a shrunken learner; draws of effects allow for what is left out.",
        )
        return Summary(f"{type(self).__name__.removesuffix('Effect')} of effects", table, info, notes)


def small_sample_factor(n_clusters: int, n_features: int) -> float:
    """How much wider than a bootstrap of clusters an interval must be where clusters are few.

    The bootstrap's variance, as the sandwich without correction, misses the degrees of freedom that the learners
    use (MacKinnon and White 1985): sqrt(G / df), times the ratio of 95 % quantiles of Student's t with df degrees of
    freedom and of the normal. df = G - 2 (p + 1), a coefficient a feature in each arm, but at least G / 2.

    Examples
    --------
    >>> round(small_sample_factor(40, 4), 2), round(small_sample_factor(2000, 4), 2)
    (1.19, 1.0)
    """
    from scipy.stats import norm, t

    df = max(n_clusters - 2 * (n_features + 1), n_clusters / 2, 1.0)
    return float(np.sqrt(n_clusters / df) * t.ppf(0.95, df) / norm.ppf(0.95))


def in_sample_left_over(
    model: Any, data: FitData, treated: float | FloatArray, *, counts: bool
) -> tuple[FloatArray, FloatArray]:
    """Signed, inversely weighted residuals of one outcome model for each arm, and the units' weights.

    The augmentation of a doubly robust score: ``(t / e - (1 - t) / (1 - e)) (y - mu_t(x))``.
    """
    weight = np.ones(len(data.y)) if counts else data.sample_weight
    left = np.empty(len(data.y))
    for arm in (0, 1):
        rows = data.treatment == arm
        learner = fit_learner(model, data.X[rows], data.y[rows], weight[rows], counts=counts)
        left[rows] = (2 * arm - 1) * (data.y[rows] - nuisances.predict_mean(learner, data.X[rows]))
    chance = np.where(data.treatment == 1, treated, 1 - np.asarray(treated))
    return left / chance, data.sample_weight


def or_default(model: Any) -> Any:
    """The learner that was given, or ridge regression."""
    return default_regressor() if model is None else model


def check_learner(learner: Any, name: str, given: Any) -> None:
    """Refuse what cannot be fitted."""
    if not hasattr(learner, "fit"):
        raise ParameterError(
            f"{name}={given!r}",
            expected="None, 'constant', 'logistic' (binary treatment) or a scikit-learn estimator",
        )


def crossfit(estimator: Any, data: FitData, n_splits: int) -> Nuisances:
    """Cross-fitted nuisances of a binary treatment, by the estimator's own parameters."""
    return nuisances.crossfit_nuisances(
        data.X,
        data.y,
        data.treatment,
        groups=data.groups,
        strata=data.strata,
        outcome_model=estimator.outcome_model,
        propensity_model=estimator.propensity_model,
        propensity=data.propensity,
        n_splits=n_splits,
        random_state=estimator.random_state,
        sample_weight=data.sample_weight if data.weighted else None,
        min_propensity=estimator.min_propensity,
    )


@dataclass(frozen=True, eq=False)
class Expectations:
    """Out-of-fold E[Y | X] and E[T | X] of each unit, shape (n,), and the fold in which it was held out."""

    outcome: FloatArray
    treatment: FloatArray
    fold: NDArray[np.int64]


def expectations(estimator: Any, data: FitData, n_splits: int) -> Expectations:
    """Cross-fitted means of outcome and treatment, binary or a dose, for residuals on residuals (Robinson 1988)."""
    if not 0 < estimator.min_propensity < 0.5:
        raise ParameterError(f"min_propensity={estimator.min_propensity!r}", expected="a number between 0 and 0.5")
    rng = np.random.default_rng(estimator.random_state)
    keys = (data.y, data.treatment, *data.X.T)
    binary = is_binary(data.treatment)
    arms = data.treatment if binary else None
    fold = assign_folds(n_splits, rng, n=len(data.y), groups=data.groups, treatment=arms, keys=keys)
    weight = data.sample_weight if data.weighted else None
    level = None
    if binary and data.strata is not None:
        design = make_design(data.treatment, groups=data.groups, strata=data.strata, sample_weight=weight)
        level = nuisances.out_of_fold_levels(design, data.y, fold)
    outcome = nuisances._crossfit(or_default(estimator.outcome_model), data.X, data.y, fold, weight, level=level)
    expected = _expected_treatment if binary else _expected_dose
    return Expectations(outcome, expected(estimator, data, fold, weight), fold)


def _expected_dose(estimator: Any, data: FitData, fold: NDArray[np.int64], weight: FloatArray | None) -> FloatArray:
    model = estimator.propensity_model
    if data.propensity is not None:
        raise ParameterError(
            "a propensity for a treatment that is not 0/1",
            expected="none: the expected dose is learnt by propensity_model",
        )
    if isinstance(model, str) and model == "constant":
        return np.full(len(fold), np.average(data.treatment, weights=weight))
    learner = or_default(model)
    check_learner(learner, "propensity_model", model)
    return nuisances._crossfit(learner, data.X, data.treatment, fold, weight)


def _expected_treatment(
    estimator: Any, data: FitData, fold: NDArray[np.int64], weight: FloatArray | None
) -> FloatArray:
    model, raw = estimator.propensity_model, data.propensity
    if raw is None:
        raw = nuisances._propensity(model, data.X, data.treatment, data.groups, fold, weight)
    e = np.clip(raw, estimator.min_propensity, 1 - estimator.min_propensity)
    nuisances.warn_clipped(e != raw, data.treatment, estimator.min_propensity)
    return np.asarray(e)


def _check_arms(t: FloatArray) -> None:
    least = int(min((t == 0).sum(), (t == 1).sum()))
    if least < MIN_ARM:
        raise DataError(f"an arm of {least} units", expected=f"at least {MIN_ARM}", todo="pass more units")
