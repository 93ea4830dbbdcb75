"""Stacked effects: a combination of effect estimators, weighted by how well each predicts unseen clusters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.metaestimators import _BaseComposition, available_if

from causalsat.base import Summary, effect, final_estimator
from causalsat.core.inputs import FitData, check_whole_numbers
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.estimators.gaussian_process.estimator import GaussianProcessEffect
from causalsat.estimators.levels import FittedLevels, check_coding, is_binary
from causalsat.estimators.linear.estimator import BayesianLinearEffect
from causalsat.estimators.members import (
    check_doses,
    check_members,
    chunks,
    fit_member,
    has_outcomes,
    moments,
    outcome,
    slopes,
    take,
)
from causalsat.estimators.meta.learners import RLearnerEffect
from causalsat.estimators.meta.nuisances import Models, away_from_zero, crossfit, expectations
from causalsat.exceptions import DataWarning, ParameterError
from causalsat.inference import nuisances as scoring
from causalsat.inference import stacking
from causalsat.inference.folds import content_order
from causalsat.inference.stacking import StackWeights
from causalsat.posterior import EffectPosterior

__all__ = ["StackedEffect"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

METHODS = ("r_loss", "stacking")


# default members in the folds, of which the R-loss asks the means alone
SHORT: dict[str, dict[str, Any]] = {
    "bayesian_linear": {"n_chains": 2, "n_draws": 200, "n_tune": 200},
    "gaussian_process": {"n_hyper": 6, "n_burn": 5, "n_draws": 50, "n_max_hyper": 500},
}


def _all_have_outcomes(stack: Any) -> bool:
    """Whether each member has potential outcomes, for ``predict_outcome``."""
    members = getattr(stack, "members_", None)
    models = members.values() if members else [model for _, model in stack._named()]
    return all(has_outcomes(model) for model in models)


class StackedEffect(FittedLevels, _BaseComposition):
    r"""Weighted combination of effect estimators whose posterior mixes the members' draws.

    Each member is fitted without each fold of clusters in turn, and the weights, non-negative and summing to one,
    are those with which the out-of-fold predictions of the combination are best. Then the members are fitted to
    all units, and the posterior takes draws of each member in proportion to its weight: its mean is the weighted
    mean of the members' and its spread holds their disagreement.

    Parameters
    ----------
    estimators : list of (str, estimator), optional
        Named members, which are cloned: effect estimators of this package, or Pipelines that end in one. By default
        one that is linear, :class:`~causalsat.BayesianLinearEffect` (``"bayesian_linear"``), and one that bends,
        :class:`~causalsat.GaussianProcessEffect` (``"gaussian_process"``), both with shorter chains in the folds; for
        a dose the first and :class:`~causalsat.RLearnerEffect` (``"r_learner"``). A second linear member takes
        weight by chance from the one that bends: noise in the R-loss of some replicates favours either.
    method : {"r_loss", "stacking"}
        ``"r_loss"``: weights minimise the cross-validated R-loss
        :math:`\sum w_i (y_i - m(x_i) - (t_i - e(x_i)) \sum_k a_k \tau_k(x_i))^2` (Nie and Wager 2021, section 3),
        which is about effects only. ``"stacking"``: weights maximise the cross-validated log score of the outcomes'
        mixed predictive density (Yao et al. 2018, equation 4), which is mostly about who predicts the outcome well;
        for members that all have ``predict_outcome``, else the R-loss is used, with a warning. The density of a unit
        in a new cluster is normal about the member's posterior of its mean, with a noise variance for each arm
        estimated out of fold; Bernoulli where the outcome is 0/1 and the members predict probabilities.
    cv : int
        Folds, made of whole clusters.
    n_bootstrap : int
        The weights are averages of the optimal weights over so many Bayesian-bootstrap replicates of the clusters,
        so that members of nearly equal loss share the weight rather than one taking all of it by chance; 0 for
        the optimum itself.
    outcome_model : scikit-learn estimator, optional
        Learner of m in the R-loss, as in :func:`causalsat.evaluation.crossfit_nuisances`.
    propensity_model : {None, "constant", "logistic"} or scikit-learn classifier
        Learner of e in the R-loss where ``fit`` is given no propensity; for a dose a regressor (None: ridge
        regression).
    min_propensity : float
        Propensities are clipped to [min_propensity, 1 - min_propensity].
    n_draws : int
        Draws of the mixture.
    random_state : int
        Seed of the folds, the replicates and the default members; members that you pass keep their own.

    Attributes
    ----------
    members_ : dict of str to estimator
        The members, fitted to all units.
    weights_, weights_sd_ : ndarray of shape (k,)
        Weight of each member and its standard deviation over the bootstrap replicates.
    optimum_ : ndarray of shape (k,)
        The optimal weights of the sample as it is.
    method_ : str
        The criterion that was used.
    criterion_ : ndarray of shape (k + 1,)
        Out-of-fold R-score (share of a constant effect's R-loss that is removed), or mean log density, of each
        member and, last, of the combination.
    fold_ : ndarray of int of shape (n,)
        The fold in which each unit was held out.

    Notes
    -----
    Binary treatments, and doses where each member takes them; the R-loss of a dose uses each member's effect of
    the dose received against the expected dose e(x), which is exact where effects are linear in the dose (Robinson
    1988). The mixture is no Bayesian model average: weights are about prediction and do not go to
    one model as data grow unless its predictions are best. The last entry of ``criterion_`` is on the units that
    chose the weights, k - 1 numbers, and optimistic by about that much. In six simulated trials of 40 villages 90 %
    intervals of new places' effects covered 86 %, standard error 8 % (``benchmarks/meta_and_forest.py``).

    References
    ----------
    Nie and Wager (2021), "Quasi-oracle estimation of heterogeneous treatment effects", Biometrika 108(2).
    Yao, Vehtari, Simpson and Gelman (2018), "Using stacking to average Bayesian predictive distributions",
    Bayesian Analysis 13(3).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, village = rng.standard_normal((600, 2)), np.repeat(np.arange(60), 10)
    >>> t = (rng.permutation(60) % 2)[village]
    >>> y = X[:, 1] + t * (1 + X[:, 0]) + 0.5 * rng.standard_normal(600)
    >>> members = [("varies", DoublyRobustEffect()), ("noise only", DoublyRobustEffect(modifiers=[1]))]
    >>> est = StackedEffect(members).fit(X, y, treatment=t, groups=village)
    >>> bool(est.weights_[0] > 0.9), float(est.weights_.sum().round(9))
    (True, 1.0)
    >>> bool(np.corrcoef(est.predict(X), X[:, 0])[0, 1] > 0.95)
    True
    """

    _learns_places: ClassVar[bool] = True
    _takes_design: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {
        "estimators": [
            ("linear", BayesianLinearEffect(n_draws=60, n_tune=60, n_chains=2, random_state=0)),
            ("robust", DoublyRobustEffect(n_splits=2, n_draws=200)),
        ],
        "cv": 2,
        "n_bootstrap": 20,
        "n_draws": 200,
    }

    def __init__(
        self,
        estimators: Any = None,
        method: str = "r_loss",
        cv: int = 5,
        n_bootstrap: int = 100,
        outcome_model: Any = None,
        propensity_model: Any = None,
        min_propensity: float = 0.01,
        n_draws: int = 1000,
        random_state: Any = 0,
    ) -> None:
        self.estimators = estimators
        self.method = method
        self.cv = cv
        self.n_bootstrap = n_bootstrap
        self.outcome_model = outcome_model
        self.propensity_model = propensity_model
        self.min_propensity = min_propensity
        self.n_draws = n_draws
        self.random_state = random_state

    # ------------------------------------------------------------------ parameters
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with ``deep`` those of the members too, as ``name`` and ``name__parameter``."""
        return self._get_params("estimators", deep=deep)  # type: ignore[no-any-return]

    def set_params(self, **params: Any) -> StackedEffect:
        """Set parameters, members (``name=estimator``) or parameters of members (``name__parameter=value``)."""
        self._set_params("estimators", **params)
        return self

    def _named(self, *, binary: bool = True) -> list[tuple[str, Any]]:
        if self.estimators is not None:
            return list(self.estimators)
        seed = self.random_state
        linear = ("bayesian_linear", BayesianLinearEffect(random_state=seed))
        if not binary:
            return [linear, ("r_learner", RLearnerEffect(random_state=seed))]
        bends = ("gaussian_process", GaussianProcessEffect(random_state=seed))
        return [linear, bends]

    def _in_folds(self, name: str, model: Any) -> Any:
        """A member as it is fitted to the folds: the defaults with what their posterior's mean needs."""
        short = SHORT.get(name, {}) if self.estimators is None and self.method_ == "r_loss" else {}
        return clone(model).set_params(**short)

    def _check_parameters(self) -> None:
        if not isinstance(self.method, str) or self.method not in METHODS:
            raise ParameterError(f"method={self.method!r}", expected="'r_loss' or 'stacking'")
        check_whole_numbers(self, {"cv": 2, "n_bootstrap": 0, "n_draws": 2})
        check_members(self._named() if self.estimators is None else self.estimators, self.get_params(deep=False))

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        check_coding(data.treatment)
        self.binary_ = is_binary(data.treatment)
        named = [(name, clone(model)) for name, model in self._named(binary=self.binary_)]
        m, e, self.fold_ = self._means(named, data)
        self.method_ = self._criterion(named)
        rng = np.random.default_rng(self.random_state)
        keys = (data.treatment, data.sample_weight, data.y, *data.X.T)
        cluster = content_order(keys, data.groups)[1]  # neither rows' order nor labels move the replicates
        options = {"n_bootstrap": int(self.n_bootstrap), "rng": rng}
        if self.method_ == "r_loss":
            found, self.criterion_ = self._by_r_loss(named, data, (m, e), cluster, options)
        else:
            found, self.criterion_ = self._by_log_score(named, data, cluster, options)
        self.weights_, self.weights_sd_, self.optimum_ = found.weights, found.sd, found.optimum
        X = self._raw(data.X)
        everyone = np.arange(len(data.y))
        self.members_ = {name: fit_member(name, clone(m), X, data, everyone) for name, m in named}
        self.counts_ = stacking.mixture_counts(self.weights_, int(self.n_draws))
        self.ate_ = self._averages(X, data.sample_weight)

    def _means(self, named: list[tuple[str, Any]], data: FitData) -> tuple[FloatArray, FloatArray, IntArray]:
        """Out-of-fold conditional means of outcome and treatment, and the folds."""
        models = Models(self.outcome_model, self.propensity_model, self.min_propensity, self.cv, self.random_state)
        if self.binary_:
            nuisances = crossfit(data, models)
            return nuisances.m, nuisances.propensity, nuisances.fold
        check_doses(named)
        found = expectations(data, models)
        return found.outcome, found.treatment, found.fold

    def _criterion(self, named: list[tuple[str, Any]]) -> str:
        without = [name for name, model in named if not has_outcomes(model)]
        if self.method == "stacking" and without:
            warnings.warn(
                f"method='stacking' needs predictive densities of the outcome, which {', '.join(without)} lacks: "
                "the weights come from the R-loss",
                DataWarning,
                stacklevel=5,
            )
            return "r_loss"
        return self.method

    def _by_r_loss(
        self,
        named: list[tuple[str, Any]],
        data: FitData,
        means: tuple[FloatArray, FloatArray],
        cluster: IntArray,
        options: dict[str, Any],
    ) -> tuple[StackWeights, FloatArray]:
        residuals = data.y - means[0], away_from_zero(data.treatment - means[1])
        n = len(data.y)
        level, base = (np.ones(n), np.zeros(n)) if self.binary_ else (means[1] + residuals[1], means[1])
        tau = np.empty((len(data.y), len(named)))
        for j, held, model in self._fold_models(named, data):
            tau[held, j] = slopes(model, self._raw(data.X[held]), level[held], base[held])
        found = stacking.r_loss_weights(tau, *residuals, data.sample_weight, cluster, **options)
        candidates = np.column_stack([tau, tau @ found.weights])
        score = [scoring.r_score(c, *residuals, data.sample_weight) for c in candidates.T]
        return found, np.array(score)

    def _by_log_score(
        self, named: list[tuple[str, Any]], data: FitData, cluster: IntArray, options: dict[str, Any]
    ) -> tuple[StackWeights, FloatArray]:
        n, k = len(data.y), len(named)
        mean, variance = np.empty((n, k)), np.empty((n, k))
        inside = True
        for j, held, model in self._fold_models(named, data):
            mean[held, j], variance[held, j], bounds = moments(model, self._raw(data.X[held]), data.treatment[held])
            inside = inside and bounds[0] >= 0 and bounds[1] <= 1
        binary = bool(inside and np.isin(data.y, (0.0, 1.0)).all())
        arm = data.treatment.astype(np.int64) if self.binary_ else np.zeros(n, dtype=np.int64)
        w = data.sample_weight
        columns = [
            stacking.predictive_log_density(data.y, mu, v, arm, w, binary=binary)
            for mu, v in zip(mean.T, variance.T, strict=True)
        ]
        log_p = np.column_stack(columns)
        found = stacking.log_score_weights(log_p, data.sample_weight, cluster, **options)
        top = log_p.max(axis=1, keepdims=True)
        mixed = top[:, 0] + np.log(np.exp(log_p - top) @ found.weights)
        return found, np.average(np.column_stack([log_p, mixed]), axis=0, weights=data.sample_weight)

    def _fold_models(self, named: list[tuple[str, Any]], data: FitData) -> Iterator[tuple[int, IntArray, Any]]:
        """Each member fitted without each fold: its position, the held-out units, the model."""
        for k in np.unique(self.fold_):
            train, held = np.flatnonzero(self.fold_ != k), np.flatnonzero(self.fold_ == k)
            X = self._raw(data.X[train], training=True)
            for j, (name, model) in enumerate(named):
                with warnings.catch_warnings():  # the same warnings come from the fit to all units
                    warnings.simplefilter("ignore", DataWarning)
                    yield j, held, fit_member(name, self._in_folds(name, model), X, data, train)

    def _raw(self, X: FloatArray, *, training: bool = False) -> Any:
        """Features as they came, with their missing values and names, which each member handles in its own way.

        While ``training`` on some folds, a column without any value in them keeps the training mean.
        """
        p = self.n_features_in_
        raw = X[:, :p].copy()
        for column, j in enumerate(self.imputation_.indicators):
            missing = X[:, p + column] > 0.5
            if not (training and missing.all()):
                raw[missing, j] = np.nan
        if not hasattr(self, "feature_names_in_"):
            return raw
        import pandas as pd

        return pd.DataFrame(raw, columns=self.feature_names_in_)

    # ------------------------------------------------------------------ effects and outcomes
    def _mix(self, draws_of: Any) -> FloatArray:
        parts = []
        for model, count in zip(self.members_.values(), self.counts_, strict=True):
            if count:
                draws = draws_of(model).draws
                parts.append(draws[stacking.thin(len(draws), int(count))])
        return np.concatenate(parts)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        raw = self._raw(X)
        return self._mix(lambda model: effect(model, raw, treatment=treatment, baseline=baseline))

    @available_if(_all_have_outcomes)
    def predict_outcome(self, X: Any, *, treatment: ArrayLike = 1.0) -> EffectPosterior:
        """Posterior of the mean potential outcome under a treatment, mixed like the effect.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        treatment : float or array of shape (n,)
            The treatment level.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``. Only where each member has ``predict_outcome``.
        """

        def draws_of(design: FloatArray, level: FloatArray) -> FloatArray:
            raw = self._raw(design)
            return self._mix(lambda model: outcome(model, raw, level))

        return self._outcome_posterior(X, treatment, draws_of)  # type: ignore[no-any-return]

    def _support_columns(self) -> NDArray[np.int64] | slice:
        used: set[int] = set()
        for model in self.members_.values():
            columns = slice(None) if hasattr(model, "steps") else model._support_columns()
            if isinstance(columns, slice):
                return slice(None)
            used |= {int(j) for j in columns}
        return np.array(sorted(used), dtype=np.int64)

    # ------------------------------------------------------------------ reports
    def _averages(self, X: Any, weight: FloatArray) -> FloatArray:
        """Mean and sd of the average effect, by member and, last, of the mixture; shape (k + 1, 2)."""
        rows, mixed = [], []
        for model, count in zip(self.members_.values(), self.counts_, strict=True):
            total = sum(effect(model, take(X, c)).draws @ weight[c] for c in chunks(len(weight))) / weight.sum()
            draws = np.asarray(total)
            rows.append([draws.mean(), draws.std(ddof=1)])
            mixed.append(draws[stacking.thin(len(draws), int(count))])
        pooled = np.concatenate(mixed)
        return np.array([*rows, [pooled.mean(), pooled.std(ddof=1)]])

    def _diagnostics(self) -> dict[str, Any]:
        shown = ", ".join(f"{n} {w:.2f}" for n, w in zip(self.members_, self.weights_, strict=True))
        names = {"r_loss": "R-loss", "stacking": "log score of the outcomes"}
        about: dict[str, Any] = {
            "source": "mixture of the members' draws",
            "weights": shown,
            "criterion": f"cross-validated {names[self.method_]}, {len(np.unique(self.fold_))} folds",
        }
        for name, model in self.members_.items():
            inner = final_estimator(model)[1]._diagnostics()
            about |= {f"{name}: {k}": v for k, v in inner.items() if k in ("r_hat", "ess", "divergences")}
        return about

    def _summary(self) -> Summary:
        import pandas as pd

        columns = {
            "weight": [*self.weights_, self.weights_.sum()],
            "weight sd": [*self.weights_sd_, np.nan],
            {"r_loss": "R-score", "stacking": "log score"}[self.method_]: self.criterion_,
            "ATE": self.ate_[:, 0],
            "ATE sd": self.ate_[:, 1],
        }
        table = pd.DataFrame(columns, index=[*self.members_, "stack"])
        counts = {"units": self.n_units_, "clusters": self.n_groups_, "treated share": self.treated_share_}
        notes = (
            "weight: mean of the optimal weights over Bayesian-bootstrap replicates of the clusters, with its sd.",
            "The score is out of fold; that of the stack is on the units that chose its weights.",
        )
        return Summary("Stacked effects", table, {**counts, **self._diagnostics()}, notes)
