"""Meta-learners: effects from any scikit-learn regressor, with intervals from a bootstrap of clusters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData, FloatArray, select_columns
from causalsat.estimators.levels import FittedLevels, check_coding, is_binary
from causalsat.estimators.meta.base import Learners, MetaLearner, Regression, in_sample_left_over
from causalsat.estimators.meta.nuisances import (
    Models,
    away_from_zero,
    check_learner,
    crossfit,
    expectations,
    or_default,
)
from causalsat.exceptions import ParameterError
from causalsat.inference.bootstrap import default_classifier, fit_learner, takes_weights
from causalsat.inference.nuisances import dr_scores, predict_mean

__all__ = ["DRLearnerEffect", "RLearnerEffect", "TLearnerEffect", "XLearnerEffect"]


class TLearnerEffect(MetaLearner):
    """One outcome model for each arm; the effect is the difference of their predictions.

    Simple, and with flexible learners noisy: each arm's learner is shrunk on its own, so their difference can show
    heterogeneity that is not there (Künzel et al. 2019, section 2).

    Draws are refits under the Bayesian bootstrap: each cluster gets an exponential weight (Rubin 1981). Learners
    that take no ``sample_weight`` are refitted to clusters drawn with replacement within the arms. ``predict`` is
    the mean over the replicates, about which the draws are widened for the degrees of freedom of few clusters in
    either arm (MacKinnon and White 1985); an arm in a single cluster is refused. No bootstrap sees the bias of a
    learner that is too stiff or shrunk too much: see ``lack_of_fit``. Coverage of the four meta-learners in simulated
    trials is in ``benchmarks/RESULTS.md``.

    Parameters
    ----------
    outcome_model : scikit-learn regressor or classifier, optional
        Learner of the outcome in each arm; by default ridge regression on standardised features, with the penalty
        chosen by leave-one-out.
    n_bootstrap : int
        Replicates. Rows in another order, or other labels of clusters, give the same draws; another seed moves a
        mean by some ``1 / sqrt(n_bootstrap)`` of its standard deviation, and a standard deviation by
        ``1 / sqrt(2 n_bootstrap)`` of itself.
    lack_of_fit : float
        What the learners may leave out of the effects, beside their linear part: median of the prior of its
        standard deviation over the trial's units, as a share of that of the fitted effects; 0 for nothing. It widens
        the draws, the more the farther from the trial's places, and leaves the mean (as in
        :class:`~causalsat.DoublyRobustEffect`). Above 0, draws of ridge learners (the default) also hold what the
        penalty may have taken from the slopes, which a bootstrap does not show: with it they have the covariance of
        ridge regression's posterior.
    random_state : int
        Seed.

    Attributes
    ----------
    models_ : list of tuple
        Fitted learners of each replicate: control, treated.
    lack_of_fit_ : LackOfFit or None
        Draws of what is left out, with its standard deviation ``sd`` over the trial's units.

    References
    ----------
    Künzel, Sekhon, Bickel and Yu (2019), "Metalearners for estimating heterogeneous treatment effects using
    machine learning", PNAS 116.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((400, 2)), rng.permutation(400) % 2
    >>> y = X[:, 1] + t * (1 + X[:, 0]) + 0.1 * rng.standard_normal(400)
    >>> est = TLearnerEffect(n_bootstrap=50).fit(X, y, treatment=t)
    >>> est.predict([[0.0, 0.0], [1.0, 0.0]]).round(1)
    array([1., 2.])
    """

    def __init__(
        self, outcome_model: Any = None, n_bootstrap: int = 200, lack_of_fit: float = 0.2, random_state: Any = 0
    ) -> None:
        self.outcome_model = outcome_model
        self.n_bootstrap = n_bootstrap
        self.lack_of_fit = lack_of_fit
        self.random_state = random_state

    def _learners(self) -> list[Any]:
        return [or_default(self.outcome_model)]

    def _regressions(self, data: FitData, known: Any, weight: FloatArray, *, counts: bool) -> Iterable[Regression]:
        (model,) = self._learners()
        for arm in (0, 1):
            rows = data.treatment == arm
            yield Regression(2.0 * arm - 1, model, data.X[rows], data.y[rows], weight[rows])

    def _tau(self, learners: Learners, X: FloatArray) -> FloatArray:
        control, treated = (predict_mean(learner, X) for learner in learners)
        return treated - control

    def _left_over(self, data: FitData, known: Any, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        (model,) = self._learners()
        treated: float | FloatArray = float(np.average(data.treatment, weights=data.sample_weight))
        if data.propensity is not None and not data.balanced:
            treated = data.propensity
        return in_sample_left_over(model, data, treated, counts=not takes_weights(model))


class XLearnerEffect(MetaLearner):
    """Each arm's outcomes against the other arm's model, blended by the propensity (Künzel et al. 2019).

    With mu0, mu1 the arms' outcome models, tau1 is learned from ``y - mu0(x)`` of the treated, tau0 from
    ``mu1(x) - y`` of the controls, and ``tau(x) = g(x) tau0(x) + (1 - g(x)) tau1(x)`` (their equation 9): good where
    one arm is much smaller than the other. Everything but g is refitted in each replicate; draws as in
    :class:`TLearnerEffect`.

    Parameters
    ----------
    outcome_model, n_bootstrap, lack_of_fit, random_state
        As in :class:`TLearnerEffect`.
    final_model : scikit-learn regressor, optional
        Learner of the effects; ridge regression by default.
    propensity_model : {None, "constant", "logistic"} or scikit-learn classifier
        Learner of the blending weight g. None means the treated share, or the mean of the propensity given to
        ``fit``.

    Attributes
    ----------
    models_ : list of tuple
        Fitted learners of each replicate: tau0, tau1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((400, 2)), rng.permutation(400) % 5 == 0
    >>> y = X[:, 1] + t * (1 + X[:, 0]) + 0.1 * rng.standard_normal(400)
    >>> est = XLearnerEffect(n_bootstrap=50).fit(X, y, treatment=t)
    >>> est.predict([[0.0, 0.0], [1.0, 0.0]]).round(1)
    array([1., 2.])
    """

    def __init__(
        self,
        outcome_model: Any = None,
        final_model: Any = None,
        propensity_model: Any = None,
        n_bootstrap: int = 200,
        lack_of_fit: float = 0.2,
        random_state: Any = 0,
    ) -> None:
        self.outcome_model = outcome_model
        self.final_model = final_model
        self.propensity_model = propensity_model
        self.n_bootstrap = n_bootstrap
        self.lack_of_fit = lack_of_fit
        self.random_state = random_state

    def _learners(self) -> list[Any]:
        return [or_default(self.outcome_model), or_default(self.final_model)]

    def _prepare(self, data: FitData) -> None:
        model = self.propensity_model
        self.blend_model_ = None
        if data.propensity is not None:
            self.blend_ = float(np.average(data.propensity, weights=data.sample_weight))
        else:
            self.blend_ = float(np.average(data.treatment, weights=data.sample_weight))
            if model is not None and model != "constant":
                learner = default_classifier() if isinstance(model, str) and model == "logistic" else model
                check_learner(learner, "propensity_model", model)
                weight = data.sample_weight if takes_weights(learner) else np.ones(len(data.y))
                self.blend_model_ = fit_learner(learner, data.X, data.treatment, weight, counts=False)

    def _regressions(self, data: FitData, known: Any, weight: FloatArray, *, counts: bool) -> Iterable[Regression]:
        outcome, final = self._learners()
        X, y = data.X, data.y
        c, t = data.treatment == 0, data.treatment == 1
        mu0 = fit_learner(outcome, X[c], y[c], weight[c], counts=counts)
        mu1 = fit_learner(outcome, X[t], y[t], weight[t], counts=counts)
        yield Regression(self.blend_, final, X[c], predict_mean(mu1, X[c]) - y[c], weight[c])
        yield Regression(1 - self.blend_, final, X[t], y[t] - predict_mean(mu0, X[t]), weight[t])

    def _tau(self, learners: Learners, X: FloatArray) -> FloatArray:
        tau0, tau1 = (predict_mean(learner, X) for learner in learners)
        g = self.blend_ if self.blend_model_ is None else predict_mean(self.blend_model_, X)
        return np.asarray(g * tau0 + (1 - g) * tau1)

    def _left_over(self, data: FitData, known: Any, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        outcome = self._learners()[0]
        if data.propensity is not None:
            treated: float | FloatArray = 0.5 if data.balanced else data.propensity
        else:
            treated = self.blend_ if self.blend_model_ is None else predict_mean(self.blend_model_, data.X)
        return in_sample_left_over(outcome, data, np.clip(treated, 0.01, 0.99), counts=not takes_weights(outcome))


class DRLearnerEffect(MetaLearner):
    """Any regressor on cross-fitted doubly robust scores (Kennedy 2023, algorithm 1).

    :class:`~causalsat.DoublyRobustEffect` with a learner in the place of the linear projection. The scores are
    cross-fitted over clusters once; draws refit the final learner under the Bayesian bootstrap of clusters (as in
    :class:`TLearnerEffect`). That the scores are kept is right to first order, for they are orthogonal to errors
    of the outcome and treatment models (Chernozhukov et al. 2018).

    Parameters
    ----------
    outcome_model, propensity_model, n_splits, min_propensity
        Cross-fitted nuisances, as in :class:`~causalsat.DoublyRobustEffect`.
    final_model : scikit-learn regressor, optional
        Learner of the effect; ridge regression by default.
    modifiers : None, str, int or list
        Features on which the effect may depend; all by default, an empty list for a constant effect.
    n_bootstrap, lack_of_fit, random_state
        As in :class:`TLearnerEffect`; the seed is that of the folds too.

    Attributes
    ----------
    scores_ : ndarray of shape (n,)
        Doubly robust scores.
    models_ : list of tuple
        Fitted final learner of each replicate.

    References
    ----------
    Kennedy (2023), "Towards optimal doubly robust estimation of heterogeneous causal effects", EJS 17.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((400, 2)), rng.permutation(400) % 2
    >>> y = X[:, 1] + t * (1 + X[:, 0]) + 0.1 * rng.standard_normal(400)
    >>> est = DRLearnerEffect(n_bootstrap=50).fit(X, y, treatment=t)
    >>> est.predict([[0.0, 0.0], [1.0, 0.0]]).round(1)
    array([1., 2.])
    """

    _takes_design: ClassVar[bool] = True

    def __init__(
        self,
        outcome_model: Any = None,
        final_model: Any = None,
        propensity_model: Any = None,
        n_splits: int = 5,
        modifiers: Any = None,
        n_bootstrap: int = 200,
        lack_of_fit: float = 0.2,
        min_propensity: float = 0.01,
        random_state: Any = 0,
    ) -> None:
        self.outcome_model = outcome_model
        self.final_model = final_model
        self.propensity_model = propensity_model
        self.n_splits = n_splits
        self.modifiers = modifiers
        self.n_bootstrap = n_bootstrap
        self.lack_of_fit = lack_of_fit
        self.min_propensity = min_propensity
        self.random_state = random_state

    def _learners(self) -> list[Any]:
        return [or_default(self.final_model)]

    def _models(self) -> Models:
        return Models(
            self.outcome_model, self.propensity_model, self.min_propensity, self.n_splits, self.random_state
        )

    def _prepare(self, data: FitData) -> Any:
        """Doubly robust scores, shape (n,)."""
        self.modifier_positions_ = select_columns(data.feature_names[: self.n_features_in_], self.modifiers)
        return dr_scores(data.y, data.treatment, crossfit(data, self._models()))

    def _publish(self, known: Any, place: NDArray[np.int64]) -> None:
        self.scores_ = known[place]

    def _regressions(self, data: FitData, known: Any, weight: FloatArray, *, counts: bool) -> Iterable[Regression]:
        (model,) = self._learners()
        yield Regression(1.0, model, self._modifier_table(data.X), known, weight)

    def _tau(self, learners: Learners, X: FloatArray) -> FloatArray:
        return predict_mean(learners[0], self._modifier_table(X))

    def _modifier_table(self, X: FloatArray) -> FloatArray:
        """The modifiers, or one constant column where there are none: a constant effect."""
        return X[:, self.modifier_positions_] if len(self.modifier_positions_) else np.ones((len(X), 1))

    def _left_over(self, data: FitData, known: Any, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        return known - tau, data.sample_weight

    def _support_columns(self) -> NDArray[np.int64]:
        return np.asarray(self.modifier_positions_)


class RLearnerEffect(FittedLevels, DRLearnerEffect):
    r"""Residual on residual: any weighted regressor, for binary treatments and doses (Nie and Wager 2021).

    Minimises :math:`\sum_i w_i \{(y_i - m(x_i)) - (t_i - e(x_i))\,\tau(x_i)\}^2` (their equation 5) as a regression
    of (y - m)/(t - e) with weights (t - e)^2; m = E[Y|X] and e = E[T|X] are cross-fitted over clusters. For a
    dose the model is partially linear (Robinson 1988): the effect is linear in the dose. Draws as in
    :class:`DRLearnerEffect`.

    Parameters
    ----------
    outcome_model : scikit-learn regressor, optional
        Learner of m; ridge regression by default.
    final_model : scikit-learn regressor that takes ``sample_weight``, optional
        Learner of the effect; by default ridge regression on standardised features.
    propensity_model : {None, "constant", "logistic"} or scikit-learn estimator
        Learner of e. None means the treated share where the treatment is binary (a randomised trial with one
        probability), ridge regression where it is a dose. For a dose a regressor.
    n_splits, modifiers, n_bootstrap, lack_of_fit, random_state
        As in :class:`DRLearnerEffect`.
    min_propensity : float
        Propensities are clipped to [min_propensity, 1 - min_propensity].

    Attributes
    ----------
    residual_outcome_, residual_treatment_ : ndarray of shape (n,)
        y - m(x) and t - e(x), out of fold.
    models_ : list of tuple
        Fitted final learner of each replicate.

    References
    ----------
    Nie and Wager (2021), "Quasi-oracle estimation of heterogeneous treatment effects", Biometrika 108.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, dose = rng.standard_normal((600, 2)), rng.uniform(0, 3, 600)
    >>> y = X[:, 1] + dose * (1 + X[:, 0]) + 0.1 * rng.standard_normal(600)
    >>> est = RLearnerEffect(n_bootstrap=50).fit(X, y, treatment=dose)
    >>> est.effect([[0.0, 0.0], [1.0, 0.0]], treatment=2.0).mean().round(1)
    array([2., 4.])
    """

    def _fit(self, data: FitData) -> None:
        """Fit; where the design's probabilities differ, places count as in the population, not by e (1 - e)."""
        e = data.propensity
        if e is not None and is_binary(data.treatment) and np.ptp(e) > 1e-9:
            weight = data.sample_weight / (e * (1 - e))
            data = replace(data, sample_weight=weight / weight.mean(), weighted=True)
        super()._fit(data)

    def _prepare(self, data: FitData) -> Any:
        """Residuals of outcome and treatment, each of shape (n,)."""
        self.modifier_positions_ = select_columns(data.feature_names[: self.n_features_in_], self.modifiers)
        check_coding(data.treatment)
        if not takes_weights(self._learners()[0]):
            raise ParameterError(
                f"final_model={self.final_model!r}, which takes no sample_weight",
                expected="a regressor with fit(X, y, sample_weight=...)",
                todo="use such a learner, or DRLearnerEffect",
            )
        self.binary_ = is_binary(data.treatment)
        means = expectations(data, self._models())
        return data.y - means.outcome, data.treatment - means.treatment

    def _publish(self, known: Any, place: NDArray[np.int64]) -> None:
        self.residual_outcome_, self.residual_treatment_ = (residual[place] for residual in known)

    def _regressions(self, data: FitData, known: Any, weight: FloatArray, *, counts: bool) -> Iterable[Regression]:
        (model,) = self._learners()
        outcome, treatment = known
        safe = away_from_zero(treatment)
        yield Regression(1.0, model, self._modifier_table(data.X), outcome / safe, weight * safe**2)

    def _left_over(self, data: FitData, known: Any, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        outcome, treatment = known
        safe = away_from_zero(treatment)
        return outcome / safe - tau, data.sample_weight * safe**2
