"""Gaussian-process effects: smooth prognostic and effect surfaces, for binary and continuous treatments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.base import OutcomeEstimator, Summary
from causalsat.core.columns import select_columns
from causalsat.core.inputs import FitData, FloatArray
from causalsat.core.parameters import check_flags, check_whole_numbers
from causalsat.core.treatment import two_values
from causalsat.estimators.gaussian_process import likelihood as gp_likelihood
from causalsat.estimators.gaussian_process import model as gp_model
from causalsat.estimators.gaussian_process import paths as gp_paths
from causalsat.estimators.gaussian_process import sampler as gp_sampler
from causalsat.estimators.gaussian_process import scales as gp_scales
from causalsat.estimators.gaussian_process.likelihood import MarginalPosterior, Model, Observations
from causalsat.estimators.gaussian_process.paths import FunctionDraws
from causalsat.estimators.gaussian_process.scales import LearntScales
from causalsat.exceptions import ParameterError
from causalsat.inference.chains import seed_of
from causalsat.posterior import draw_quantiles

__all__ = ["GaussianProcessEffect"]

MIN_MIXED_GROUPS = 10  # villages that hold several treatments, for group_slopes="auto"
LEAST_HALVED = 300  # distinct rows from which the search starts on half of them
LAST_ITER = 20  # iterations of the search after that, on all rows and with learnt scales
N_THIN = 450  # distinct rows below which more transitions lie between draws of the hyperparameters
MOST_THIN = 4  # as they cost little
N_FEATURES = 512  # random features of a term's prior draws


class GaussianProcessEffect(OutcomeEstimator):
    r"""Gaussian-process outcome surfaces with arm-specific noise and village effects.

    The outcome of unit i in village g, standardised, is

    .. math:: y_i = f(x_i, t_i) + u_g + t_i s_g + e_i, \quad e_i \sim N(0, \sigma^2_{arm} / w_i)

    and the conditional effect is f(x, treatment) - f(x, baseline). For a binary treatment the arms' surfaces are
    correlated processes, f_1 = rho f_0 + kappa h (the linear model of coregionalisation of Alaa and van der Schaar
    2017), each a sum of a linear, a smooth and a ridge-function part. For a continuous treatment f is a prognostic
    surface, an average dose-response curve, curves that change linearly and smoothly with the features, and one
    learnt curve c(t) times a size that depends on the features, with covariance c(t) c(t') k(x, x').

    Parameters
    ----------
    modifiers : None, str, or sequence of str or int
        Features on which the effect may depend: all (None), or names, glob patterns or positions; an empty list is
        a constant effect. The others enter a prognostic surface only.
    index : bool
        Binary treatment: include the ridge-function part, a smooth function of one learnt projection of the
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
    n_burn : int
        Transitions of the sampler before the first draw (more where few rows make them cheap).
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
    learnt with them: how many features matter is left to the data. All are sampled by Hamiltonian Monte Carlo from
    near the mode of their marginal posterior (at the mode features that matter little are shut out, and intervals
    from there are too narrow), with the average information (Gilmour, Thompson and Cullis 1995) as the metric.
    Units that share features, treatment and village are merged without loss. Draws are samples of functions
    (Wilson et al. 2020, equation 13): a place's draws do not depend on which other places are asked for.
    A known ``propensity`` that varies enters as a prognostic feature.

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

    _binary_treatment = False
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
        self.n_burn = n_burn
        self.n_starts = n_starts
        self.max_iter = max_iter
        self.n_max_hyper = n_max_hyper
        self.n_max_exact = n_max_exact
        self.n_inducing = n_inducing
        self.random_state = random_state

    # ------------------------------------------------------------------ checks
    def _check_parameters(self) -> None:
        least = {"n_draws": 2, "n_hyper": 1, "n_burn": 0, "n_starts": 1, "max_iter": 1}
        least |= {"n_max_hyper": 20, "n_max_exact": 20, "n_inducing": 10}
        check_whole_numbers(self, least)
        check_flags(self, ("index", "group_effects"))
        if self.group_slopes != "auto" and not isinstance(self.group_slopes, (bool, np.bool_)):
            raise ParameterError(f"group_slopes={self.group_slopes!r}", expected="True, False or 'auto'")

    def _support_columns(self) -> NDArray[np.int64]:
        return np.asarray(self.modifiers_)

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        self.modifiers_ = select_columns(data.feature_names[: self.n_features_in_], self.modifiers)
        self.binary_ = bool(np.isin(data.treatment, (0.0, 1.0)).all())
        levels = np.unique(data.treatment)
        if len(levels) == 2 and not self.binary_:
            raise two_values(*levels)
        e = data.propensity
        self.has_propensity_ = e is not None and bool(np.ptp(e) > 1e-9)
        X = data.X if e is None or not self.has_propensity_ else np.column_stack([data.X, e])
        self.scaling_ = gp_model.learn_scaling(X, data.y, data.treatment, data.sample_weight, self.binary_)
        rng = np.random.default_rng(seed_of(self.random_state))
        observed = self._observations(X, data)
        self.model_ = self._model(X.shape[1], data)
        thetas = self._hyperparameters(observed, rng)
        self._condition(observed, thetas, rng)
        self._describe(thetas, observed)

    def _observations(self, X: FloatArray, data: FitData) -> Observations:
        s, live = self.scaling_, data.sample_weight > 0
        arm = data.treatment.astype(np.int64) if self.binary_ else np.zeros(len(data.y), dtype=np.int64)
        group = data.groups[live] if data.groups is not None and self._n_random(data) else None
        y, t = (data.y - s.y_mean) / s.y_sd, s.treatment(data.treatment)
        return gp_likelihood.collapse(
            s.features(X)[live], t[live], y[live], data.sample_weight[live], arm[live], group
        )

    def _n_random(self, data: FitData) -> int:
        if data.groups is None or not self.group_effects or not 1 < data.n_groups < len(data.y):
            return 0
        if self.group_slopes == "auto":
            return 2 if n_mixed(data.groups, data.treatment) >= MIN_MIXED_GROUPS else 1
        return 2 if self.group_slopes else 1

    def _model(self, p: int, data: FitData) -> Model:
        n_random = self._n_random(data)
        if self.binary_:
            return gp_model.binary_model(p, self.modifiers_, n_random, ridge=self.index)
        t = self.scaling_.treatment(data.treatment)
        return gp_model.continuous_model(p, self.modifiers_, n_random, (float(t.min()), float(t.max())))

    def _hyperparameters(self, data: Observations, rng: np.random.Generator) -> FloatArray:
        """Draws of the hyperparameters (or their mode), from all rows or a subset of whole villages.

        The search begins with half of the rows, where there are many: each step there costs a fifth. The sampler then
        starts from the mode given all rows, for doses from a draw given that half: in simulations the one was more
        accurate for arms (of which a draw given half of the rows lies far out), the other for doses. For arms the
        scales of the weights are then learnt; learnt from the beginning of the search they led to worse modes.
        """
        used = data.take(_rows(data, self.n_max_hyper, rng)) if len(data.y) > self.n_max_hyper else data
        posterior = MarginalPosterior(self.model_, used)
        starts = gp_model.starting_points(self.model_, used.Z, used.t, used.y, self.n_starts, rng)
        sampled, halved, count = self.n_hyper > 1, len(used.y) >= LEAST_HALVED, 0
        if halved:
            part = MarginalPosterior(self.model_, used.take(_rows(used, len(used.y) // 2, rng)))
            theta, _ = gp_sampler.find_mode(part, starts, self.max_iter)
            if sampled and not self.binary_:
                theta = gp_sampler.sample(part, theta, 1, 2 * self.n_burn, rng).thetas[0]
            starts, count = [theta], part.count
        scales = LearntScales(self.model_) if sampled and self.binary_ else None
        learnt = scales is not None and bool(scales.parts)
        last = min(self.max_iter, LAST_ITER)
        if not (halved and sampled) or (self.binary_ and not learnt):
            most = last if halved and sampled else self.max_iter
            theta, self.log_posterior_ = gp_sampler.find_mode(posterior, starts, most)
        thetas, self.acceptance_ = theta[None], 1.0
        if sampled:
            n = min(self.n_hyper, self.n_draws // 2)
            thin = int(np.clip((N_THIN / len(used.y)) ** 2, 1, MOST_THIN))
            if scales is not None and learnt:
                found = gp_scales.sample_scaled(scales, posterior, theta, last, n, thin * self.n_burn, rng, thin)
            else:
                found = gp_sampler.sample(posterior, theta, n, thin * self.n_burn, rng, thin)
            thetas, self.acceptance_, self.log_posterior_ = found.thetas, found.acceptance, found.value
        self.evaluations_ = posterior.count + count
        return thetas

    def _condition(self, data: Observations, thetas: FloatArray, rng: np.random.Generator) -> None:
        """Sample functions for every draw of the hyperparameters."""
        inducing = None
        if len(data.y) > self.n_max_exact:
            inducing = data.take(_spread_rows(data, self.n_inducing, rng))
        self.inducing_ = inducing is not None
        pairs = np.diff(np.linspace(0, (self.n_draws + 1) // 2, len(thetas) + 1).astype(int))
        work = None if self.inducing_ else MarginalPosterior(self.model_, data)
        self.functions_: list[FunctionDraws] = [
            gp_paths.function_draws(theta, self.model_, data, int(s), N_FEATURES, rng, inducing, work)
            for theta, s in zip(thetas, pairs, strict=True)
        ]
        rows = data if inducing is None else inducing
        self.rows_Z_, self.rows_t_ = rows.Z, rows.t

    def _describe(self, thetas: FloatArray, data: Observations) -> None:
        model, up = self.model_, self.scaling_.y_sd
        sds = up * np.exp(thetas).mean(axis=0)
        values = {f"amplitude, {term.name}": float(sds[term.start]) for term in model.terms}
        noise = ["noise sd, control", "noise sd, treated"] if self.binary_ else ["noise sd"]
        names = [*noise, *["sd of villages", "sd of village effects on treatment"][: model.n_random]]
        values |= {name: float(v) for name, v in zip(names, sds[model.noise_at :], strict=True)}
        self.hyperparameters_ = values
        shares = [gp_model.relevance(model, theta, len(self.scaling_.x_mean)) for theta in thetas]
        self.relevance_ = np.mean(shares, axis=0)
        self.n_distinct_ = len(data.y)
        one, zero = np.ones(len(data.y)), np.zeros(len(data.y))
        if not self.binary_:
            one, zero = (
                (one - self.scaling_.t_mean) / self.scaling_.t_sd,
                zero - self.scaling_.t_mean / self.scaling_.t_sd,
            )
        effects = self._contrast(data.Z, one, zero)
        self.ate_draws_ = effects @ (data.weight / data.weight.sum())
        self.effect_sd_draws_ = effects.std(axis=1)

    # ------------------------------------------------------------------ effects and outcomes
    def _contrast(self, Z: FloatArray, level: FloatArray, baseline: FloatArray | None) -> FloatArray:
        draws = gp_paths.contrast_draws(
            self.functions_, self.model_.terms, self.rows_Z_, self.rows_t_, Z, level, baseline
        )
        return self.scaling_.y_sd * draws[: self.n_draws]

    def _features(self, X: FloatArray) -> FloatArray:
        """Standardised features of new units, with the training mean for a propensity known in training."""
        if self.has_propensity_:
            X = np.column_stack([X, np.full(len(X), self.scaling_.x_mean[-1])])
        return self.scaling_.features(X)

    def _levels(self, level: FloatArray, name: str) -> FloatArray:
        if self.binary_ and not np.isin(level, (0.0, 1.0)).all():
            raise ParameterError(
                f"{name} with values other than 0 and 1", expected="0 or 1: the fitted treatment was binary"
            )
        return self.scaling_.treatment(level)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        level, base = self._levels(treatment, "treatment"), self._levels(baseline, "baseline")
        return self._contrast(self._features(X), level, base)

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        return self.scaling_.y_mean + self._contrast(self._features(X), self._levels(level, "treatment"), None)

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        surface = f"through {len(self.rows_t_)} inducing rows" if self.inducing_ else "exact"
        return {
            "source": f"Gaussian process, {surface}; {len(self.functions_)} draws of hyperparameters",
            "distinct rows": self.n_distinct_,
            "log marginal posterior": self.log_posterior_,
            "acceptance of hyperparameters": self.acceptance_,
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


def n_mixed(groups: NDArray[np.int64], treatment: FloatArray) -> int:
    """Number of villages that hold several treatments.

    Examples
    --------
    >>> n_mixed(np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 1.0, 1.0]))
    1
    """
    low, high = np.full(int(groups.max()) + 1, np.inf), np.full(int(groups.max()) + 1, -np.inf)
    np.minimum.at(low, groups, treatment)
    np.maximum.at(high, groups, treatment)
    return int((high > low).sum())


def _rows(data: Observations, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """About n random rows: whole villages, and both arms in proportion."""
    if data.group is None:
        shuffled = rng.permutation(len(data.y))
        order = shuffled[np.argsort(data.arm[shuffled], kind="stable")]
        return np.sort(order[np.linspace(0, len(order) - 1, n).astype(int)])
    rank = rng.permutation(int(data.group.max()) + 1)[data.group]
    order = np.argsort(rank, kind="stable")
    last = rank[order[min(n, len(order)) - 1]]
    return np.flatnonzero(rank <= last)


def _spread_rows(data: Observations, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random rows, both arms alike: where inducing points lie."""
    chosen = []
    for arm in range(int(data.arm.max()) + 1):
        rows = np.flatnonzero(data.arm == arm)
        share = min(len(rows), max(1, n // (int(data.arm.max()) + 1)))
        chosen.append(rng.choice(rows, share, replace=False))
    return np.sort(np.concatenate(chosen))
