"""What the meta-learners share: the bootstrap over clusters, its draws and the table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalsat.base import EffectEstimator, Summary
from causalsat.core.features import learn_scaler
from causalsat.core.inputs import FitData, FloatArray, check_whole_numbers
from causalsat.core.warn import warn
from causalsat.estimators.levels import is_binary
from causalsat.estimators.meta.shrinkage import shrinkage_draws
from causalsat.exceptions import DataError, IgnoredWarning
from causalsat.inference.bootstrap import (
    check_clusters,
    clusters_by_arm,
    draw_weights,
    fit_learner,
    small_sample_factor,
    takes_weights,
)
from causalsat.inference.folds import in_content_order
from causalsat.inference.lack_of_fit import LackOfFit, check_ratio, lack_of_fit, with_slopes
from causalsat.inference.nuisances import predict_mean
from causalsat.posterior import draw_quantiles

__all__ = [
    "Learners",
    "MetaLearner",
    "Regression",
    "in_sample_left_over",
]

IntArray = NDArray[np.int64]
Learners = tuple[Any, ...]

MIN_ARM = 3


class Regression(NamedTuple):
    """What one learner is fitted to, and its share in the effect, which is a weighted sum of the learners'."""

    share: float
    model: Any
    X: FloatArray
    target: FloatArray
    weight: FloatArray


@dataclass(frozen=True, eq=False)
class Fitted:
    """A bootstrap of clusters.

    Attributes
    ----------
    models : list of tuple
        Fitted learners of each replicate.
    resampling : str
        How clusters were resampled.
    widening : float
        What the replicates' distance from their mean is multiplied by.
    centre, scale : ndarray of shape (modifiers,)
        Standardisation of the modifiers, of the draws of what is left out.
    lack_of_fit : LackOfFit or None
        Draws of what the learners leave out.
    ate_draws, effect_sd_draws : ndarray of shape (replicate,)
        Average effect over the units, and standard deviation of the units' effects.
    """

    models: list[Learners]
    resampling: str
    widening: float
    centre: FloatArray
    scale: FloatArray
    lack_of_fit: LackOfFit | None
    ate_draws: FloatArray
    effect_sd_draws: FloatArray


class MetaLearner(EffectEstimator):
    """What the meta-learners share: the bootstrap over clusters, its draws and the table.

    A subclass writes ``_prepare`` (once, on the data as they are), ``_regressions`` (what its learners are fitted
    to, on reweighted clusters), ``_tau`` (effects of fitted learners) and ``_left_over``.

    Units and clusters come to the bootstrap in the order of their content, so that neither the order of the rows nor
    the clusters' labels move the draws.
    """

    n_bootstrap: int
    random_state: Any
    lack_of_fit: float
    _learns_places: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {"n_bootstrap": 12}

    # ------------------------------------------------------------------ to be written by subclasses
    @abstractmethod
    def _learners(self) -> list[Any]:
        """Every learner that is refitted in the bootstrap."""

    def _prepare(self, data: FitData) -> Any:
        """What the bootstrap does not refit, and attributes for prediction; arrays a unit are of ``data``'s order."""

    @abstractmethod
    def _regressions(self, data: FitData, known: Any, weight: FloatArray, *, counts: bool) -> Iterable[Regression]:
        """What the learners of a replicate are fitted to; weights are counts of copies where ``counts``."""

    @abstractmethod
    def _tau(self, learners: Learners, X: FloatArray) -> FloatArray:
        """Effects (unit,) that fitted learners predict."""

    @abstractmethod
    def _left_over(self, data: FitData, known: Any, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Per unit, an unbiased score of what effects ``tau`` leave out, and the weight of that score."""

    def _publish(self, known: Any, place: IntArray) -> None:
        """Set attributes that have a value a unit; ``place`` is where each unit of the fit is in ``known``."""

    # ------------------------------------------------------------------ fit
    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_bootstrap": 2})
        check_ratio(self.lack_of_fit)

    def _fit(self, data: FitData) -> None:
        import sklearn

        if is_binary(data.treatment):
            _check_arms(data.treatment)
        check_clusters(data.treatment, data.groups)
        counts = not all(takes_weights(learner) for learner in self._learners())
        if counts and data.weighted:
            warn("a learner takes no sample_weight: fitted without", IgnoredWarning)
        data, order = in_content_order(data)
        # weights go to our own learners by name; the base class has checked what is finite
        with sklearn.config_context(
            enable_metadata_routing=False, assume_finite=True, skip_parameter_validation=True
        ):
            known = self._prepare(data)
            fitted = self._bootstrap(data, known, counts)
        self._publish(known, np.argsort(order))
        self.models_, self.resampling_, self.widening_ = fitted.models, fitted.resampling, fitted.widening
        self.centre_, self.scale_, self.lack_of_fit_ = fitted.centre, fitted.scale, fitted.lack_of_fit
        self.ate_draws_, self.effect_sd_draws_ = fitted.ate_draws, fitted.effect_sd_draws

    def _bootstrap(self, data: FitData, known: Any, counts: bool) -> Fitted:
        """Refit the learners to resampled clusters, and draw what they leave out."""
        rng = np.random.default_rng(self.random_state)
        models = []
        for _ in range(int(self.n_bootstrap)):
            drawn = draw_weights(rng, data.groups, data.treatment, counts=counts)
            weight = drawn if counts else drawn * data.sample_weight
            models.append(tuple(_fitted(r, counts) for r in self._regressions(data, known, weight, counts=counts)))
        effective = clusters_by_arm(data.treatment, data.groups, influence_weight(data))
        widening = small_sample_factor(effective, data.X.shape[1])
        tau = self._replicates(models, widening, data.X)
        share = data.sample_weight / data.sample_weight.sum()
        scaler = learn_scaler(data.X[:, self._support_columns()], data.sample_weight)
        left = self._draw_lack_of_fit(data, known, tau, scaler.mean, scaler.scale, counts, rng)
        ate = tau @ share
        square = np.array([row**2 @ share for row in tau])
        effect_sd = np.sqrt(np.maximum(square - ate**2, 0.0))
        resampling = "copies of clusters" if counts else "exponential weights of clusters"
        return Fitted(models, resampling, widening, scaler.mean, scaler.scale, left, ate, effect_sd)

    def _replicates(self, models: list[Learners], widening: float, X: FloatArray) -> FloatArray:
        """Effects (replicate, unit), spread about their mean for the small number of clusters."""
        tau = np.empty((len(models), len(X)))
        for row, learners in zip(tau, models, strict=True):
            row[:] = self._tau(learners, X)
        centre = tau.mean(axis=0)
        tau -= centre  # in place: the replicates are held once
        tau *= widening
        tau += centre
        return tau

    def _draw_lack_of_fit(
        self,
        data: FitData,
        known: Any,
        tau: FloatArray,
        centre: FloatArray,
        scale: FloatArray,
        counts: bool,
        rng: np.random.Generator,
    ) -> LackOfFit | None:
        """What is left out by the effects ``tau`` (replicate, unit), over the standardised modifiers."""
        if not self.lack_of_fit:
            return None
        mean, share = tau.mean(axis=0), data.sample_weight / data.sample_weight.sum()
        score, weight = self._left_over(data, known, mean)
        effect_sd = float(np.sqrt(max(share @ mean**2 - (share @ mean) ** 2, 0.0)))
        left = lack_of_fit(
            score, np.zeros_like(score), self._linear_design(data.X, centre, scale), weight, data.groups,
            effect_sd=effect_sd, ratio=float(self.lack_of_fit), n_draws=len(tau), rng=rng,
        )  # fmt: skip
        if left is None:
            return None
        weight = np.ones(len(data.y)) if counts else data.sample_weight
        slopes = np.zeros((len(tau), len(scale)))
        for regression in self._regressions(data, known, weight, counts=counts):
            learner = _fitted(regression, counts)
            slopes += regression.share * shrinkage_draws(
                learner, regression.X, regression.target, regression.weight, len(tau), rng
            )
        return with_slopes(left, slopes * np.where(np.isfinite(scale), scale, 0.0))

    def _linear_design(self, X: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
        return np.column_stack([np.ones(len(X)), (X[:, self._support_columns()] - centre) / scale])

    # ------------------------------------------------------------------ effects and reports
    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        tau = self._replicates(self.models_, self.widening_, X)
        left: LackOfFit | None = getattr(self, "lack_of_fit_", None)  # older files have none
        if left is not None:
            tau += left.draws(self._linear_design(X, self.centre_, self.scale_))
        tau *= treatment - baseline
        return tau

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


def _fitted(regression: Regression, counts: bool) -> Any:
    return fit_learner(regression.model, regression.X, regression.target, regression.weight, counts=counts)


def influence_weight(data: FitData) -> FloatArray:
    """Weight of each unit in its arm's mean, (n,): by the arm's probability too, where the weights do not hold it."""
    if data.propensity is None or data.balanced:
        return data.sample_weight
    return np.asarray(data.sample_weight / np.where(data.treatment == 1, data.propensity, 1 - data.propensity))


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
        left[rows] = (2 * arm - 1) * (data.y[rows] - predict_mean(learner, data.X[rows]))
    chance = np.where(data.treatment == 1, treated, 1 - np.asarray(treated))
    return left / chance, data.sample_weight


def _check_arms(t: FloatArray) -> None:
    least = int(min((t == 0).sum(), (t == 1).sum()))
    if least < MIN_ARM:
        raise DataError(f"an arm of {least} units", expected=f"at least {MIN_ARM}", todo="pass more units")
