"""Gaussian-process effects: smooth prognostic and effect surfaces, for binary and continuous treatments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.base import OutcomeEstimator, Summary
from causalsat.core.inputs import FitData, FloatArray, check_flags, check_whole_numbers, select_columns
from causalsat.estimators.gaussian_process import fit as gp_fit
from causalsat.estimators.gaussian_process.fit import FitOptions, Surfaces
from causalsat.estimators.levels import FittedLevels, check_coding
from causalsat.exceptions import ParameterError
from causalsat.inference.chains import ChainPolicy, seed_of, warn_of_chains
from causalsat.posterior import draw_quantiles

__all__ = ["GaussianProcessEffect"]

POLICY = ChainPolicy(ess_per_chain=16.0)  # a Monte Carlo error of a quarter of the sd: draws cost factorisations


class GaussianProcessEffect(FittedLevels, OutcomeEstimator):
    r"""Gaussian-process outcome surfaces with arm-specific noise and village effects.

    The outcome of unit i in village g, standardised, is

    .. math:: y_i = f(x_i, t_i) + u_g + t_i s_g + e_i, \quad e_i \sim N(0, \sigma^2_{arm} / w_i)

    and the conditional effect is f(x, treatment) - f(x, baseline). For a binary treatment the arms' surfaces are
    correlated processes, f_1 = rho f_0 + kappa h (the linear model of coregionalisation of Alaa and van der Schaar
    2017), each a sum of a linear, a smooth and a ridge-function part. For a continuous treatment f is a prognostic
    surface, an average dose-response curve, curves that change linearly and smoothly with the features, and one
    learned curve c(t) times a size that depends on the features, with covariance c(t) c(t') k(x, x').

    Parameters
    ----------
    modifiers : None, str, or sequence of str or int
        Features on which the effect may depend: all (None), or names, glob patterns or positions; an empty list is
        a constant effect. The others enter a prognostic surface only.
    index : bool
        Binary treatment: include the ridge-function part, a smooth function of one learned projection of the
        features (such as an exponential or a threshold of a score).
    group_effects : bool
        Village effects (random intercepts), where ``groups`` are given.
    group_slopes : bool or "auto"
        Village effects on the treatment effect as well; "auto": where at least ten villages hold several
        treatments.
    n_draws : int
        Posterior draws, in antithetic pairs.
    n_hyper : int
        Draws of the hyperparameters over which the posterior draws are spread; 1 takes the mode only.
    n_chains : int
        Chains of the hyperparameters' sampler, each from a search of its own; the draws are spread over them.
    n_burn : int
        Transitions of a chain before its first draw (more where few rows make them cheap).
    n_starts : int
        Starting points of the search for the hyperparameters' mode.
    max_iter : int
        L-BFGS iterations of the search for the mode.
    n_max_hyper : int
        Distinct units up to which the hyperparameters are those of all units; beyond it, of a random subset of that
        size (whole villages).
    n_max_exact : int
        Distinct units up to which the surfaces are conditioned on all units exactly; beyond it through
        ``n_inducing`` rows.
    n_inducing : int
        Inducing rows of the approximation.
    random_state : int, RandomState or None
        Seed.

    Attributes
    ----------
    hyperparameters_ : dict of str to float
        Amplitudes, noise and village standard deviations, means of the draws, in the outcome's units.
    relevance_ : ndarray of shape (p,)
        Share of each feature in the kernels' weights, averaged over the parts and draws; sums to 1.
    modifiers_ : ndarray of int
        Columns of the design on which the effect may depend.

    Notes
    -----
    Features, outcome (and a continuous treatment) are standardised; all hyperparameters have weak normal or
    log-normal priors. For a binary treatment and at least five features the scales of the features' weights are
    learned with them: how many features matter is left to the data. All are sampled by Hamiltonian Monte Carlo from
    near the mode of their marginal posterior (at the mode features that matter little are shut out, and intervals
    from there are too narrow), with the average information (Gilmour, Thompson and Cullis 1995) as the metric.
    Units that share features, treatment and village are merged without loss. Draws are samples of functions
    (Wilson et al. 2020, equation 13): a place's draws do not depend on which other places are asked for.
    A known ``propensity`` that varies enters as a prognostic feature.

    The unit and the origin of features, doses and outcome do not matter: the same draws come out in another unit.
    Few draws of the hyperparameters leave a Monte Carlo error. ``ess`` in :meth:`summary` is the number of
    independent draws that would have the same: 100 is an error of a tenth of an effect's standard deviation, and
    below 16 there is a warning. One chain cannot tell of values of the hyperparameters that it has not visited, which
    is likely with ten features and more; another ``random_state`` or ``n_chains=4`` shows it, and several chains
    lower the error more than a longer one.

    References
    ----------
    Alaa, A. and van der Schaar, M. (2017). Bayesian inference of individualized treatment effects using multi-task
    Gaussian processes. NeurIPS.
    Wilson, J. et al. (2020). Efficiently sampling functions from Gaussian process posteriors. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((150, 2))
    >>> t = rng.integers(0, 2, 150)
    >>> y = X[:, 0] + t * (1.0 + np.sin(2 * X[:, 1])) + 0.3 * rng.standard_normal(150)
    >>> est = GaussianProcessEffect(n_draws=100, n_hyper=4, random_state=0).fit(X, y, treatment=t)
    >>> bool(np.corrcoef(est.predict(X), np.sin(2 * X[:, 1]))[0, 1] > 0.9)
    True
    """

    _learns_places: ClassVar[bool] = True
    _contract_parameters: ClassVar[dict[str, Any]] = {
        "n_draws": 60,
        "n_hyper": 3,
        "n_burn": 2,
        "max_iter": 15,
        "random_state": 0,
    }

    def __init__(
        self,
        *,
        modifiers: str | Sequence[str] | Sequence[int] | None = None,
        index: bool = True,
        group_effects: bool = True,
        group_slopes: bool | str = "auto",
        n_draws: int = 400,
        n_hyper: int = 20,
        n_chains: int = 1,
        n_burn: int = 10,
        n_starts: int = 1,
        max_iter: int = 45,
        n_max_hyper: int = 1000,
        n_max_exact: int = 2000,
        n_inducing: int = 800,
        random_state: Any = None,
    ) -> None:
        self.modifiers = modifiers
        self.index = index
        self.group_effects = group_effects
        self.group_slopes = group_slopes
        self.n_draws = n_draws
        self.n_hyper = n_hyper
        self.n_chains = n_chains
        self.n_burn = n_burn
        self.n_starts = n_starts
        self.max_iter = max_iter
        self.n_max_hyper = n_max_hyper
        self.n_max_exact = n_max_exact
        self.n_inducing = n_inducing
        self.random_state = random_state

    # ------------------------------------------------------------------ checks
    def _check_parameters(self) -> None:
        least = {"n_draws": 2, "n_hyper": 1, "n_chains": 1, "n_burn": 0, "n_starts": 1, "max_iter": 1}
        least |= {"n_max_hyper": 20, "n_max_exact": 20, "n_inducing": 10}
        check_whole_numbers(self, least)
        check_flags(self, ("index", "group_effects"))
        if 2 * self.n_chains > self.n_draws:
            raise ParameterError(f"n_chains={self.n_chains!r}", expected=f"at most half of n_draws={self.n_draws}")
        if self.group_slopes != "auto" and not isinstance(self.group_slopes, (bool, np.bool_)):
            raise ParameterError(f"group_slopes={self.group_slopes!r}", expected="True, False or 'auto'")

    def _support_columns(self) -> NDArray[np.int64]:
        return np.asarray(self.modifiers_)

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        check_coding(data.treatment)
        self.modifiers_ = select_columns(data.feature_names, self.modifiers, n_features=self.n_features_in_)
        rng = np.random.default_rng(seed_of(self.random_state))
        fitted = gp_fit.fit(data, self.modifiers_, FitOptions(**self._fit_parameters()), rng)
        surfaces = fitted.surfaces
        self.binary_, self.has_propensity_, self.inducing_ = fitted.binary, fitted.has_propensity, fitted.inducing
        self.scaling_, self.model_, self.functions_ = surfaces.scaling, fitted.model, surfaces.functions
        self.rows_Z_, self.rows_t_ = surfaces.rows_Z, surfaces.rows_t
        self.hyperparameters_, self.relevance_ = fitted.hyperparameters, fitted.relevance
        self.ate_draws_, self.effect_sd_draws_ = fitted.ate_draws, fitted.effect_sd_draws
        self.n_distinct_, self.evaluations_ = fitted.n_distinct, fitted.evaluations
        self.log_posterior_, self.acceptance_ = fitted.log_posterior, fitted.acceptance
        self.ess_ = fitted.ess
        warn_of_chains({"ess": self.ess_}, advice="raise n_chains and n_hyper", policy=POLICY)

    def _fit_parameters(self) -> dict[str, Any]:
        """The parameters of :class:`FitOptions`."""
        return {name: getattr(self, name) for name in FitOptions.__dataclass_fields__}

    # ------------------------------------------------------------------ effects and outcomes
    @property
    def _surfaces(self) -> Surfaces:
        """The fitted attributes as sampled functions."""
        terms, n_draws = self.model_.terms, self.n_draws
        return Surfaces(self.functions_, terms, self.rows_Z_, self.rows_t_, self.scaling_, n_draws)

    def _features(self, X: FloatArray) -> FloatArray:
        """Standardised features of new units, with the training mean for a propensity known in training."""
        if self.has_propensity_:
            X = np.column_stack([X, np.full(len(X), self.scaling_.x_mean[-1])])
        return self.scaling_.features(X)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        level, base = self.scaling_.treatment(treatment), self.scaling_.treatment(baseline)
        return self._surfaces.contrast(self._features(X), level, base)

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        surface = self._surfaces.contrast(self._features(X), self.scaling_.treatment(level), None)
        return np.asarray(self.scaling_.y_mean + surface)

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        surface = f"through {len(self.rows_t_)} inducing rows" if self.inducing_ else "exact"
        return {
            "source": f"Gaussian process, {surface}; {len(self.functions_)} draws of hyperparameters",
            "distinct rows": self.n_distinct_,
            "log marginal posterior": self.log_posterior_,
            "acceptance of hyperparameters": self.acceptance_,
            "ess": getattr(self, "ess_", float("nan")),  # files of before hold none
            "likelihood evaluations": self.evaluations_,
        }

    def _summary(self) -> Summary:
        import pandas as pd

        rows = {"ATE": self.ate_draws_, "sd of effects": self.effect_sd_draws_}
        table = pd.DataFrame(
            [(v.mean(), v.std(ddof=1), *draw_quantiles(v, [0.05, 0.95])) for v in rows.values()],
            index=list(rows),
            columns=["mean", "sd", "[0.05", "0.95]"],
        )
        modes = pd.DataFrame({"mean": list(self.hyperparameters_.values())}, index=list(self.hyperparameters_))
        top = np.argsort(-self.relevance_)[:5]
        names = (*self.design_names_, "propensity")
        shown = ", ".join(f"{names[j]} {self.relevance_[j]:.2f}" for j in top if self.relevance_[j] > 0)
        notes = (
            "amplitudes, noise and villages: means of the draws, in the outcome's units",
            f"share in the kernels' weights: {shown}",
        )
        info = {"units": self.n_units_, "groups": self.n_groups_, **self._diagnostics()}
        return Summary("GaussianProcessEffect", pd.concat([table, modes]), info, notes)
