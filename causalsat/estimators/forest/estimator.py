"""Bayesian causal forest: a prognostic and an effect sum of trees, sampled by stochtree."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.base import OutcomeEstimator, Summary
from causalsat.core.inputs import FitData, check_whole_numbers, select_columns
from causalsat.estimators.forest import trees as _forest
from causalsat.estimators.levels import FittedLevels, check_coding, is_binary
from causalsat.exceptions import DataError, DataWarning, ParameterError
from causalsat.inference import nuisances
from causalsat.inference.folds import assign_folds
from causalsat.posterior import draw_quantiles

__all__ = ["BayesianForestEffect"]

FloatArray = NDArray[np.float64]

MIN_UNITS = 10
NEVER_SPLIT = 1e-30  # prior probability of a split where nothing modifies the effect: trees of one leaf
ATTEMPTS = 5


class BayesianForestEffect(FittedLevels, OutcomeEstimator):
    r"""Bayesian causal forest (Hahn, Murray and Carvalho 2020, equation 2.3) with village effects.

    .. math:: y_i = \mu(x_i, \hat\pi_i) + t_i\,(\tau_0 + \tau(x_i)) + u_{g(i)} + e_i,
              \quad e_i \sim N(0, \sigma^2 / w_i)

    with :math:`\mu` and :math:`\tau` sums of trees with priors of their own, :math:`\hat\pi` the propensity and u
    the villages' random effects. The effect is linear in a dose, which is centred and scaled; the outcome is
    standardised before sampling. Each chain has its own seed and starts at a draw around a linear regression's
    average effect, so that R-hat means what it says; the prior of :math:`\tau_0` is wide (one standard deviation of
    the outcome) around that start.

    The defaults were chosen on simulated trials (``benchmarks/meta_and_forest.py``): an effect forest with the prior
    of a prognostic one (splits with probability 0.95 (1 + depth)^-2, not BCF's 0.25 (1 + depth)^-3) and chains from
    single leaves instead of one grow-from-root chain widen unit intervals that are otherwise too narrow: in twelve
    trials of 40 villages 90 % intervals of new places covered 92 %, standard error 2 %.

    Parameters
    ----------
    modifiers : None, str, int or list
        Features on which the effect may depend: names, patterns (``"img*"``) or positions; all by default,
        an empty list for a constant effect. Indicators of missing values adjust the outcome only.
    propensity_model : {None, "constant", "logistic"} or scikit-learn estimator
        Learner of the treatment where ``fit`` is given no propensity; its cross-fitted predictions are a covariate
        of the prognostic forest. None means a randomised trial with one treatment probability: no covariate.
        For a dose a regressor.
    group_effects : bool
        Random intercepts of villages, where ``groups`` are given.
    n_chains, n_draws : int
        Chains, and draws kept of each.
    n_tune : int
        Iterations of each chain before its draws.
    n_warm_start : int
        Grow-from-root iterations (He and Hahn 2023) before those; 0 starts at single leaves.
    n_prognostic_trees, n_effect_trees : int
        Trees of the two forests.
    effect_scale : float
        Prior standard deviation of the effect forest at a place, in standard deviations of the outcome.
    n_threads : int
        Threads of stochtree.
    random_state : int, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    forests_, prognostic_forests_ : list of ndarray of uint8
        Each chain's effect forest and prognostic forest: stochtree's JSON, compressed.
    intercept_ : ndarray of shape (chain, draw)
        Draws of :math:`\tau_0` in units of the outcome.
    propensity_surface_ : scikit-learn regressor or None
        Ridge regression of the training units' propensities (their logits; for a dose its expectation) on the
        features, which :meth:`predict_outcome` uses for new units where the propensity is a covariate.
    ate_draws_, noise_draws_ : ndarray of shape (chain, draw)
        Average effect over the (weighted) training units; standard deviation of the noise.
    split_share_ : ndarray of shape (p,)
        Share of the effect forest's splits that use each feature.

    References
    ----------
    Hahn, Murray and Carvalho (2020), "Bayesian regression tree models for causal inference", Bayesian Analysis 15.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.standard_normal((300, 2)), rng.permutation(300) % 2
    >>> y = X[:, 1] + t * (1 + (X[:, 0] > 0)) + 0.3 * rng.standard_normal(300)
    >>> est = BayesianForestEffect(n_chains=2, n_tune=100, n_draws=50, n_effect_trees=20, random_state=0)
    >>> tau = est.fit(X, y, treatment=t).predict([[-1.0, 0.0], [1.0, 0.0]])
    >>> bool(tau[1] - tau[0] > 0.5)
    True
    """

    _transient: ClassVar[tuple[str, ...]] = ("_containers", "_prognostic_containers")
    _contract_parameters: ClassVar[dict[str, Any]] = {
        "n_chains": 2,
        "n_draws": 60,
        "n_tune": 60,
        "n_prognostic_trees": 30,
        "n_effect_trees": 15,
        "random_state": 0,
    }

    def __init__(
        self,
        modifiers: Any = None,
        propensity_model: Any = None,
        group_effects: bool = True,
        n_chains: int = 4,
        n_draws: int = 150,
        n_tune: int = 200,
        n_warm_start: int = 0,
        n_prognostic_trees: int = 100,
        n_effect_trees: int = 50,
        effect_scale: float = 0.7,
        n_threads: int = 1,
        random_state: Any = None,
    ) -> None:
        self.modifiers = modifiers
        self.propensity_model = propensity_model
        self.group_effects = group_effects
        self.n_chains = n_chains
        self.n_draws = n_draws
        self.n_tune = n_tune
        self.n_warm_start = n_warm_start
        self.n_prognostic_trees = n_prognostic_trees
        self.n_effect_trees = n_effect_trees
        self.effect_scale = effect_scale
        self.n_threads = n_threads
        self.random_state = random_state

    def __getstate__(self) -> dict[str, Any]:
        """State without the rebuilt C++ forests, which cannot be copied."""
        state: dict[str, Any] = dict(super().__getstate__())
        return {key: value for key, value in state.items() if key not in self._transient}

    def _check_parameters(self) -> None:
        least = {
            "n_chains": 1,
            "n_draws": 4,
            "n_tune": 0,
            "n_warm_start": 0,
            "n_prognostic_trees": 1,
            "n_effect_trees": 1,
        }
        check_whole_numbers(self, least)
        if not np.isreal(self.effect_scale) or not 0 < self.effect_scale < np.inf:
            raise ParameterError(f"effect_scale={self.effect_scale!r}", expected="a positive number")
        _forest.load_stochtree()

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        if len(data.y) < MIN_UNITS:
            raise DataError(
                f"{len(data.y)} units",
                expected=f"at least {MIN_UNITS} for trees",
                todo="pass more units, or use BayesianLinearEffect",
            )
        check_coding(data.treatment)
        self._containers: list[Any] | None = None
        self._prognostic_containers: list[Any] | None = None
        self.modifier_positions_ = select_columns(data.feature_names[: self.n_features_in_], self.modifiers)
        weight = data.sample_weight
        mean = float(np.average(data.treatment, weights=weight))
        spread = float(np.sqrt(np.average((data.treatment - mean) ** 2, weights=weight)))
        self.binary_ = is_binary(data.treatment)
        self.t_centre_, self.t_scale_ = (0.0, 1.0) if self.binary_ else (mean, 2 * spread)
        self.y_mean_ = float(np.average(data.y, weights=weight))
        self.y_scale_ = float(np.sqrt(np.average((data.y - self.y_mean_) ** 2, weights=weight)))
        self.has_group_effects_ = bool(self.group_effects) and data.groups is not None
        if self.y_scale_ <= 1e-12 * max(abs(self.y_mean_), 1.0):
            self._constant_outcome(data)
            return
        self._sample(data)

    def _constant_outcome(self, data: FitData) -> None:
        warnings.warn("the outcome has one value only: every effect is 0", DataWarning, stacklevel=4)
        shape = (int(self.n_chains), int(self.n_draws))
        self.forests_: list[NDArray[np.uint8]] = []
        self.prognostic_forests_: list[NDArray[np.uint8]] = []
        self.shift_, self.propensity_surface_ = np.zeros(shape[0]), None
        self.intercept_, self.ate_draws_, self.noise_draws_ = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.effect_sd_draws_, self.split_share_ = np.zeros(shape), np.zeros(data.X.shape[1])
        self.diagnostics_: dict[str, Any] = {"source": "no sampling: constant outcome"}

    def _sample(self, data: FitData) -> None:
        data = _forest.with_weight(data)
        rng = _forest.generator(self.random_state)
        pi = self._propensity(data, rng)
        self.propensity_surface_ = None if pi is None else _forest.propensity_surface(data.X, pi, binary=self.binary_)
        table = data.X if pi is None else np.column_stack([data.X, pi])
        outcome = (data.y - self.y_mean_) / self.y_scale_
        dose = (data.treatment - self.t_centre_) / self.t_scale_
        mean_dose = float(np.average(dose, weights=data.sample_weight))
        centred = dose - mean_dose
        options = self._options(data)
        models, shifts, intercepts = [], [], []  # one a chain
        estimate, error = _forest.preliminary_effect(data.X, outcome, centred, data.sample_weight, data.groups)
        for _ in range(int(self.n_chains)):
            start = estimate if data.weighted else estimate + error * rng.standard_normal()
            y, level = _forest.centre_outcome(outcome - start * centred)
            model = _sample_chain(options, rng, X_train=table, Z_train=dose, y_train=y)
            intercept = np.zeros(int(self.n_draws)) if data.weighted else model.tau_0_samples[0]
            if self.has_group_effects_:
                intercept = self._redraw_intercept(model, table, dose, y, data, rng)
            models.append(model)
            shifts.append(level - start * mean_dose)  # what was taken from the outcome's level
            intercepts.append(start + intercept)
        self.shift_ = np.array(shifts)
        self._keep(models, np.array(intercepts), table, data.sample_weight)

    def _keep(self, models: list[Any], intercepts: FloatArray, table: FloatArray, weight: FloatArray) -> None:
        """Store the chains' forests, in units of the outcome where they are numbers, and what they say."""
        up = self.y_scale_ / self.t_scale_
        self._containers = [model.forest_container_tau for model in models]
        self._prognostic_containers = [model.forest_container_mu for model in models]
        self.forests_ = [_forest.compress(container) for container in self._containers]
        self.prognostic_forests_ = [_forest.compress(container) for container in self._prognostic_containers]
        self.intercept_ = up * intercepts
        self.noise_draws_ = self.y_scale_ * np.sqrt([np.asarray(m.global_var_samples, dtype=float) for m in models])
        n_features, width = len(self.design_names_), table.shape[1]
        splits = np.sum([c.get_overall_split_counts(width) for c in self._containers], axis=0)
        self.split_share_ = splits[:n_features] / max(float(splits.sum()), 1.0)
        forests = np.array([_forest.forest_draws(container, table) for container in self._containers])
        tau, share = up * (intercepts[:, :, None] + forests), weight / weight.sum()
        self.ate_draws_ = np.asarray(tau @ share)
        self.effect_sd_draws_ = np.sqrt(np.maximum(tau**2 @ share - self.ate_draws_**2, 0.0))
        self.diagnostics_ = _forest.chain_diagnostics({"ATE": self.ate_draws_, "noise": self.noise_draws_})
        _forest.warn_if_not_converged(self.diagnostics_)

    @staticmethod
    def _redraw_intercept(
        model: Any, table: FloatArray, dose: FloatArray, y: FloatArray, data: FitData, rng: np.random.Generator
    ) -> FloatArray:
        """Draws of the intercept with the villages' effects integrated out, shape (draw,).

        Stochtree updates the intercept given the villages' effects and those given the intercept: where villages
        were treated as a whole, the two hardly move together, and short chains understate the uncertainty.
        """
        assert data.groups is not None  # only called with village effects
        mean = _forest.forest_draws(model.forest_container_mu, table)
        residual = y - mean - dose * _forest.forest_draws(model.forest_container_tau, table)
        found = model.rfx_container.extract_parameter_samples()
        effects = np.asarray(found["beta_samples"], dtype=float).reshape(-1, len(residual))
        noise = np.asarray(model.global_var_samples, dtype=float)
        between = _forest.village_variance(effects, rng)
        return _forest.draw_intercept(residual, dose, data.sample_weight, data.groups, noise, between, rng)

    def _options(self, data: FitData) -> dict[str, Any]:
        modifiers = [int(j) for j in self.modifier_positions_]
        leaf = max(1, min(5, len(data.y) // 8))  # stochtree stops where a tree can neither grow nor be pruned
        options: dict[str, Any] = {
            "num_gfr": int(self.n_warm_start),
            "num_burnin": int(self.n_tune),
            "num_mcmc": int(self.n_draws),
            "general_params": {
                "standardize": False,
                "propensity_covariate": "none",
                "sigma2_global_init": 1.0,
                "sigma2_global_shape": 1.5,  # a weak prior, without which a perfect fit has no noise variance
                "sigma2_global_scale": 0.005,
                "num_threads": int(self.n_threads),
            },
            "prognostic_forest_params": {"num_trees": int(self.n_prognostic_trees), "min_samples_leaf": leaf},
            "treatment_effect_forest_params": {
                "min_samples_leaf": leaf,
                "num_trees": int(self.n_effect_trees),
                "alpha": 0.95 if modifiers else NEVER_SPLIT,
                "beta": 2.0,
                "sigma2_leaf_init": float(self.effect_scale) ** 2 / int(self.n_effect_trees),
                "keep_vars": modifiers or [0],
            },
        }
        if data.weighted:
            # stochtree 0.4.5 multiplies the noise variance by these, though its documentation says that it divides
            options["observation_weights"] = 1.0 / data.sample_weight
            # stochtree 0.4.5 draws the intercept without the weights: the forest alone carries it
            options["treatment_effect_forest_params"]["sample_intercept"] = False
        else:
            options["treatment_effect_forest_params"]["tau_0_prior_var"] = 1.0
        if self.has_group_effects_:
            options["rfx_group_ids_train"] = data.groups
            options["random_effects_params"] = {"model_spec": "intercept_only"}
        return options

    def _propensity(self, data: FitData, rng: np.random.Generator) -> FloatArray | None:
        """The propensity as a covariate, or None where it is the same for all units."""
        if data.propensity is not None:
            return data.propensity if np.ptp(data.propensity) > 1e-9 else None
        weight = data.sample_weight if data.weighted else None
        binary, model = self.binary_, self.propensity_model
        if model is None or (isinstance(model, str) and model == "constant"):
            if binary:
                nuisances.warn_predictable(data.X, data.treatment, data.groups, weight)
            return None
        if isinstance(model, str) and (model != "logistic" or not binary):
            raise ParameterError(
                f"propensity_model={model!r}" + ("" if binary else " for a treatment that is not 0/1"),
                expected="None, 'constant', 'logistic' (binary treatment) or a scikit-learn estimator",
            )
        learner = nuisances.default_propensity_model() if isinstance(model, str) else model
        keys = (data.y, data.treatment, *data.X.T)
        arms = data.treatment if binary else None
        fold = assign_folds(5, rng, n=len(data.y), groups=data.groups, treatment=arms, keys=keys)
        import sklearn

        with sklearn.config_context(enable_metadata_routing=False):  # weights go to our own learner by name
            return nuisances.crossfit_predictions(learner, data.X, data.treatment, fold, weight)

    # ------------------------------------------------------------------ effects and outcomes
    def _slopes(self, X: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the effect of one unit of treatment."""
        tau = np.repeat(self.intercept_.reshape(-1, 1), len(X), axis=1)
        if self.forests_:
            table = np.column_stack([X, np.zeros(len(X))])  # the propensity's column: the effect never splits on it
            raw = np.concatenate([_forest.forest_draws(forest, table) for forest in self._forest_containers()])
            tau += raw * (self.y_scale_ / self.t_scale_)
        return np.asarray(tau)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        return self._slopes(X) * (treatment - baseline)

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        if not self.forests_:
            return np.full((self.intercept_.size, len(X)), self.y_mean_)
        surface = self.propensity_surface_
        pi = np.zeros(len(X)) if surface is None else _forest.propensity_at(surface, X, binary=self.binary_)
        table = np.column_stack([X, pi])
        chains = zip(self.shift_, self._forest_containers(prognostic=True), strict=True)
        mu = np.concatenate([shift + _forest.forest_draws(forest, table) for shift, forest in chains])
        return self.y_mean_ + self.y_scale_ * mu + self._slopes(X) * (level - self.t_centre_)

    def _forest_containers(self, *, prognostic: bool = False) -> list[Any]:
        """Stochtree's forests, rebuilt from their JSON where this estimator was loaded or copied."""
        name = "_prognostic_containers" if prognostic else "_containers"
        containers: list[Any] | None = getattr(self, name, None)
        if containers is None:
            codes = self.prognostic_forests_ if prognostic else self.forests_
            n_trees = int(self.n_prognostic_trees if prognostic else self.n_effect_trees)
            containers = [_forest.rebuild(code, n_trees, leaf_constant=prognostic) for code in codes]
            setattr(self, name, containers)
        return containers

    def _support_columns(self) -> NDArray[np.int64]:
        return np.asarray(self.modifier_positions_)

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.diagnostics_)

    def _summary(self) -> Summary:
        import pandas as pd

        rows = {"ATE": self.ate_draws_, "sd of effects": self.effect_sd_draws_, "noise sd": self.noise_draws_}
        table = pd.DataFrame(
            {
                name: {
                    "mean": float(v.mean()),
                    "sd": float(v.std(ddof=1)),
                    "[0.05": float(draw_quantiles(v, 0.05)),
                    "0.95]": float(draw_quantiles(v, 0.95)),
                    "P>0": float((v > 0).mean()) if name == "ATE" else float("nan"),
                }
                for name, v in ((name, np.ravel(chains)) for name, chains in rows.items())
            }
        ).T
        order = np.argsort(-self.split_share_, kind="stable")[:5]
        used = ", ".join(f"{self.design_names_[j]} {self.split_share_[j]:.0%}" for j in order)
        info = {"units": self.n_units_, "clusters": self.n_groups_, **self._diagnostics()}
        notes = (f"90 % equal-tailed intervals; splits of the effect forest: {used}",)
        return Summary("Bayesian causal forest", table, info, notes)


def _sample_chain(options: dict[str, Any], rng: np.random.Generator, **data: FloatArray) -> Any:
    """One sampled BCFModel; a start at which stochtree stops (tiny, perfectly fitted samples) is tried again."""
    for _ in range(ATTEMPTS):
        options["general_params"]["random_seed"] = int(rng.integers(1, 2**31 - 1))
        model = _forest.load_stochtree().BCFModel()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.sample(**data, **options)
        except (ValueError, RuntimeError) as error:
            reason = str(error)
        else:
            return model
    raise DataError(f"stochtree stopped: {reason}", expected="more units, or an outcome that is not fitted perfectly")
