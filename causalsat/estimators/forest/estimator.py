"""Bayesian causal forest: a prognostic and an effect sum of trees, sampled by stochtree."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.base import OutcomeEstimator, Summary
from causalsat.core.inputs import FitData, check_whole_numbers, select_columns
from causalsat.core.warn import warn
from causalsat.estimators.forest import fit, trees
from causalsat.estimators.levels import FittedLevels, check_coding
from causalsat.exceptions import DataError, DataWarning, ParameterError
from causalsat.inference.bootstrap import check_clusters
from causalsat.inference.chains import ChainPolicy, warn_of_chains
from causalsat.inference.folds import in_content_order
from causalsat.posterior import draw_quantiles

__all__ = ["BayesianForestEffect"]

FloatArray = NDArray[np.float64]

MIN_UNITS = 10
POLICY = ChainPolicy(r_hat=1.1, ess_per_chain=15)  # sums of trees mix slowly; enough for means and 90 % intervals


class BayesianForestEffect(FittedLevels, OutcomeEstimator):
    r"""Bayesian causal forest (Hahn, Murray and Carvalho 2020, equation 2.3) with village effects.

    .. math:: y_i = \mu(x_i, \hat\pi_i) + (t_i - \bar t)\,(\tau_0 + \tau(x_i)) + u_{g(i)} + e_i,
              \quad e_i \sim N(0, \sigma^2 / w_i)

    with :math:`\mu` and :math:`\tau` sums of trees with priors of their own, :math:`\hat\pi` the propensity and u
    the villages' random effects. Treatment is measured from its mean, so that no arm is the reference: with the arms'
    labels swapped the effects change their sign and, but for Monte Carlo error, nothing else. The effect is linear in
    a dose, which is scaled too; the outcome is standardised before sampling. Each chain has its own seed and starts
    at a draw around a linear regression's average effect, so that R-hat means what it says; the prior of
    :math:`\tau_0` is wide (one standard deviation of the outcome) around that start.

    The effect forest has the prior of a prognostic one (splits with probability 0.95 (1 + depth)^-2, not BCF's
    0.25 (1 + depth)^-3), and chains start at single leaves instead of one grow-from-root chain: intervals of units
    are otherwise too narrow (``benchmarks/RESULTS.md``).

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

    _learns_places: ClassVar[bool] = True
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
        trees.load_stochtree()

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        if len(data.y) < MIN_UNITS:
            raise DataError(
                f"{len(data.y)} units",
                expected=f"at least {MIN_UNITS} for trees",
                todo="pass more units, or use BayesianLinearEffect",
            )
        check_coding(data.treatment)
        if self.group_effects:
            check_clusters(data.treatment, data.groups)
        positions = select_columns(data.feature_names[: self.n_features_in_], self.modifiers)
        data, _ = in_content_order(data)
        rng = fit.generator(self.random_state)
        units = fit.scale_units(
            data, fit.propensity_values(data, self.propensity_model, rng), group_effects=bool(self.group_effects)
        )
        if units.constant:
            warn("the outcome has one value only: every effect is 0", DataWarning)
            fitted = fit.constant_outcome(data.X.shape[1], self._settings())
        else:
            fitted = fit.fit_forests(units, positions, self._settings(), rng)
            warn_of_chains(fitted.diagnostics, advice="raise n_tune and n_draws", policy=POLICY)
        self._store(units, positions, fitted)

    def _settings(self) -> fit.Settings:
        return fit.Settings(
            n_chains=int(self.n_chains),
            n_draws=int(self.n_draws),
            n_tune=int(self.n_tune),
            n_warm_start=int(self.n_warm_start),
            n_prognostic_trees=int(self.n_prognostic_trees),
            n_effect_trees=int(self.n_effect_trees),
            effect_scale=float(self.effect_scale),
            n_threads=int(self.n_threads),
        )

    def _store(self, units: fit.Units, positions: NDArray[np.int64], fitted: fit.Fitted) -> None:
        self.modifier_positions_, self.binary_ = positions, units.binary
        self.has_group_effects_ = units.group_effects
        self.t_centre_, self.t_scale_ = units.t_centre, units.t_scale
        self.y_mean_, self.y_scale_ = units.y_mean, units.y_scale
        pi = units.propensity
        self.propensity_surface_ = (
            None if pi is None else fit.propensity_surface(units.features, pi, binary=units.binary)
        )
        self._containers: list[Any] | None = fitted.containers
        self._prognostic_containers: list[Any] | None = fitted.prognostic_containers
        self.forests_, self.prognostic_forests_ = fitted.forests, fitted.prognostic_forests
        self.shift_, self.intercept_ = fitted.shift, fitted.intercept
        self.ate_draws_, self.effect_sd_draws_ = fitted.ate_draws, fitted.effect_sd_draws
        self.noise_draws_, self.split_share_ = fitted.noise_draws, fitted.split_share
        self.diagnostics_ = fitted.diagnostics

    # ------------------------------------------------------------------ effects and outcomes
    def _slopes(self, X: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the effect of one unit of treatment."""
        tau = np.repeat(self.intercept_.reshape(-1, 1), len(X), axis=1)
        if self.forests_:
            table = np.column_stack([X, np.zeros(len(X))])  # the propensity's column: the effect never splits on it
            raw = np.concatenate([trees.forest_draws(forest, table) for forest in self._forest_containers()])
            tau += raw * (self.y_scale_ / self.t_scale_)
        return np.asarray(tau)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        return self._slopes(X) * (treatment - baseline)

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        if not self.forests_:
            return np.full((self.intercept_.size, len(X)), self.y_mean_)
        surface = self.propensity_surface_
        pi = np.zeros(len(X)) if surface is None else fit.propensity_at(surface, X, binary=self.binary_)
        table = np.column_stack([X, pi])
        chains = zip(self.shift_, self._forest_containers(prognostic=True), strict=True)
        mu = np.concatenate([shift + trees.forest_draws(forest, table) for shift, forest in chains])
        return self.y_mean_ + self.y_scale_ * mu + self._slopes(X) * (level - self.t_centre_)

    def _forest_containers(self, *, prognostic: bool = False) -> list[Any]:
        """Stochtree's forests, rebuilt from their JSON where this estimator was loaded or copied."""
        name = "_prognostic_containers" if prognostic else "_containers"
        containers: list[Any] | None = getattr(self, name, None)
        if containers is None:
            codes = self.prognostic_forests_ if prognostic else self.forests_
            n_trees = int(self.n_prognostic_trees if prognostic else self.n_effect_trees)
            containers = [trees.rebuild(code, n_trees, leaf_constant=prognostic) for code in codes]
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
