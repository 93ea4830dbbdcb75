"""Bayesian linear effects: outcome on covariates, treatment and shrunken treatment-by-latent interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.base import Summary
from causalsat.core.columns import select_columns
from causalsat.core.inputs import FitData, FloatArray
from causalsat.core.parameters import check_flags, check_whole_numbers
from causalsat.estimators.linear import columns as linear_columns
from causalsat.estimators.linear import data as linear_data
from causalsat.estimators.linear import layout as linear_layout
from causalsat.estimators.linear import report as linear_report
from causalsat.estimators.linear.data import LinearDesign
from causalsat.estimators.linear.predictive import PredictiveLinear
from causalsat.exceptions import ParameterError
from causalsat.inference.chains import seed_of

__all__ = ["BayesianLinearEffect"]

FAMILIES = ("gaussian", "bernoulli", "negative_binomial", "gamma")
PRIORS = ("horseshoe", "normal", "r2d2")
SAMPLERS = ("auto", "pymc", "laplace")
IMPUTATIONS = ("mean", "model")
MIN_MIXED_GROUPS = 10  # villages that hold several treatments, for group_slopes="auto"


class BayesianLinearEffect(PredictiveLinear):
    r"""Linear model with shrunken treatment-by-latent interactions, village and stratum effects, noise by arm.

    The outcome of unit i in village g and stratum h is

    .. math:: y_i = \alpha + z_i'\gamma + a_h + t_i(\tau + m_i'\beta + b_h) + u_g + t_i s_g + e_i,
              \quad e_i \sim N(0, \sigma^2_{arm})

    with z the standardised features, m those of them that may modify the effect and t the centred treatment.
    The conditional effect is :math:`\tau(x) = \tau + m'\beta + b_h`; for a dose it is proportional to the difference
    of doses. With another ``family`` the same predictor is the logit of P(y = 1) or the logarithm of the mean
    outcome, and effects are differences of mean outcomes, averaged over villages.

    Parameters
    ----------
    modifiers : None, str, or sequence of str or int
        Features that interact with the treatment: all of them (None), those that match a name or glob pattern
        such as ``"img*"``, a list of names and patterns, or a list of positions. An empty list is a constant
        effect. Indicators of missing values never interact unless they are named in full.
    prior : {"horseshoe", "normal", "r2d2"}
        Prior of the interactions: the regularised horseshoe of Piironen and Vehtari (2017), which shrinks small
        interactions to nearly nothing and leaves large ones alone; normal with a learnt common scale (ridge),
        a little better where many modifiers matter equally and much worse where few do
        (``benchmarks/bayesian_linear.py``); or R2D2 of Zhang et al. (2022), a prior on the share of variance that
        the conditional effect explains, divided among the modifiers.
    ordered : None, str, or sequence of str or int
        Features in order of importance, such as principal components (``"img*"``): the coefficients of the j-th
        have prior standard deviation 1/j of those of the first. Many components then cost little accuracy where
        the first ones matter most, and some where they do not. The order is the argument's.
    family : {"gaussian", "bernoulli", "negative_binomial", "gamma"}
        Distribution of the outcome: any number, 0 or 1, a count, or a positive amount. Counts are negative binomial
        with Poisson as the limit of no overdispersion. Amounts that are sometimes zero are no gamma outcome.
    strata : None, str or int
        The column of X that says which stratum (site, district, trial) a unit is in: its name in a data frame, whose
        labels may be texts, or its position in an array. Strata have partially pooled intercepts and treatment
        effects. The effect of a unit in a known stratum includes that stratum's; a stratum that was not in training
        has the population's mean, and its spread: the draws are those of a stratum drawn from the population, the
        same for all its units. For a few up to about a hundred strata; ``groups`` is for more.
    impute : {"mean", "model"}
        Missing features, which also get an indicator: by training means, or drawn in the model given the other
        features, treatment and outcome, with a fit for each of ``n_imputations`` imputations and the draws of all
        together. Effects of units with missing modifiers are then uncertain by as much as the modifiers are.
    n_imputations : int
        Imputations of ``impute="model"``; so many times the time of a fit.
    group_effects : bool
        Village effects (random intercepts), where ``groups`` are given.
    group_slopes : bool or "auto"
        Village effects on the treatment effect as well: what the modifiers do not explain of how villages
        respond. "auto": where at least ten villages hold units of several treatments; in a trial that treats
        whole villages such slopes cannot be told from village effects. They widen the uncertainty of the
        conditional effect but are no part of it: the effect of a new place is the mean of the places like it.
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws a chain, and chains.
    sampler : {"auto", "laplace", "pymc"}
        "auto" samples only the scales, with coefficients, strata and village effects integrated out exactly
        (gaussian), or the hand-written density (other families below 20,000 units): no compilation. "laplace", and
        "auto" from 20,000 units on, samples other families from their working Gaussian likelihood at the mode, with
        draws weighted by the exact likelihood where there are no villages (with villages, penalised
        quasi-likelihood). "pymc" samples the whole model written in PyMC, compiled by nutpie once for each
        structure: the reference. All use nutpie's NUTS.
    random_state : int, RandomState or None
        Seed.
    progress : bool
        Show the sampler's progress bar.

    Attributes
    ----------
    draws_ : dict of str to ndarray
        Posterior draws in units of the outcome (or logit, or logarithm), chains one after the other: ``intercept``,
        ``main`` (per standard deviation of each feature), ``treatment`` (at average features, per unit of treatment),
        ``interaction`` (per standard deviation of each modifier), ``noise`` (by arm: standard deviation; dispersion d
        of counts, variance mean + d^2 mean^2, and of gamma outcomes, standard deviation d times the mean),
        ``group_sd``, ``slope_sd``, ``stratum_intercept``, ``stratum_slope`` (by stratum), ``stratum_sd``,
        ``stratum_slope_sd``, ``effect_sd``, ``ate`` (average over the training units, their strata's effects
        included).
    modifiers_ : ndarray of int
        Columns of the design that interact with the treatment.
    strata_ : list of str
        Labels of the strata in the order of ``stratum_slope``.

    Notes
    -----
    Priors, for an outcome standardised to unit variance: intercept and treatment N(0, 2.5); main effects
    normal with a learnt scale; all scales half-t with 3 degrees of freedom and scale 1 (stratum effects on the
    treatment: 0.5). Horseshoe: global scale half-Cauchy with a scale that expects half of the modifiers to matter,
    slab of scale 0.5 with 4 degrees of freedom. Normal prior: the interactions' total (the standard deviation of
    the conditional effect) has a half-t scale of 0.5; R2D2: a half-Cauchy one. In a logit all scales are those times
    pi / sqrt(3); in a logarithm they are as they stand, around the logarithm of the mean outcome.
    Noise (or dispersion) is one number for each arm of a binary treatment, in every family but the binary one, and
    one for all units under a dose; it goes with all priors, villages, strata and imputations.
    A known ``propensity`` that varies enters as a further main effect (Hahn, Murray and Carvalho 2020,
    equation 6), so that shrinkage of the other main effects does not confound the effect.
    ``sample_weight`` enters as powers of the likelihood: a unit of weight 2 counts as two units. The posterior
    then is one about the weighted population, and its spread ignores the loss of precision by unequal weights.

    References
    ----------
    Piironen, J. and Vehtari, A. (2017). Sparsity information and regularization in the horseshoe and other
    shrinkage priors. Electronic Journal of Statistics 11(2).

    Zhang, Y. D., Naughton, B. P., Bondell, H. D. and Reich, B. J. (2022). Bayesian regression using a prior on the
    model fit: the R2-D2 shrinkage prior. Journal of the American Statistical Association 117.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((400, 3))
    >>> t = rng.integers(0, 2, 400)
    >>> y = X[:, 0] + t * (1.0 + 0.5 * X[:, 1]) + 0.3 * rng.standard_normal(400)
    >>> est = BayesianLinearEffect(random_state=0).fit(X, y, treatment=t)
    >>> bool(np.corrcoef(est.predict(X), 1.0 + 0.5 * X[:, 1])[0, 1] > 0.98)
    True
    >>> float(est.effect(X).ate().mean()[0]).__round__(1)
    1.0
    """

    _binary_treatment = False
    _contract_parameters: ClassVar[dict[str, Any]] = {
        "n_draws": 100,
        "n_tune": 100,
        "n_chains": 2,
        "random_state": 0,
    }

    def __init__(
        self,
        *,
        modifiers: str | Sequence[str] | Sequence[int] | None = None,
        prior: str = "horseshoe",
        ordered: str | Sequence[str] | Sequence[int] | None = None,
        family: str = "gaussian",
        strata: str | int | None = None,
        impute: str = "mean",
        n_imputations: int = 10,
        group_effects: bool = True,
        group_slopes: bool | str = "auto",
        n_draws: int = 400,
        n_tune: int = 300,
        n_chains: int = 4,
        sampler: str = "auto",
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        self.modifiers = modifiers
        self.prior = prior
        self.ordered = ordered
        self.family = family
        self.strata = strata
        self.impute = impute
        self.n_imputations = n_imputations
        self.group_effects = group_effects
        self.group_slopes = group_slopes
        self.n_draws = n_draws
        self.n_tune = n_tune
        self.n_chains = n_chains
        self.sampler = sampler
        self.random_state = random_state
        self.progress = progress

    # ------------------------------------------------------------------ checks
    def _check_parameters(self) -> None:
        choices = {"prior": PRIORS, "family": FAMILIES, "sampler": SAMPLERS, "impute": IMPUTATIONS}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise ParameterError(f"{name}={value!r}", expected=" or ".join(repr(a) for a in allowed))
        check_whole_numbers(self, {"n_draws": 1, "n_tune": 50, "n_chains": 1, "n_imputations": 2})
        check_flags(self, ("group_effects",))
        if self.group_slopes != "auto" and not isinstance(self.group_slopes, (bool, np.bool_)):
            raise ParameterError(f"group_slopes={self.group_slopes!r}", expected="True, False or 'auto'")
        if isinstance(self.strata, bool) or not isinstance(self.strata, (str, int, np.integer, type(None))):
            raise ParameterError(f"strata={self.strata!r}", expected="a column's name, its position, or None")

    def _support_columns(self) -> NDArray[np.int64] | slice:
        return self.modifiers_ if len(self.modifiers_) else slice(None)

    # ------------------------------------------------------------------ strata and levels
    def _encode_columns(self, X: Any, *, reset: bool) -> Any:
        if self.strata is None:
            return X
        values = linear_columns.stratum_column(X, self.strata)
        if values is None:
            return X
        if reset:
            self.strata_ = linear_columns.stratum_labels(values)
        return linear_columns.with_codes(X, self.strata, linear_columns.stratum_codes(values, self.strata_))

    def _check_level(self, value: Any, n: int, name: str) -> FloatArray:
        level = super()._check_level(value, n, name)
        if self.binary_ and not np.isin(level, (0.0, 1.0)).all():
            raise ParameterError(
                f"{name} with values other than 0 and 1", expected="0 or 1: the fitted treatment was binary"
            )
        return level

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        from causalsat.estimators.linear import families as linear_families

        linear_families.check_outcome(data.y, self.family)
        self.binary_ = linear_columns.is_binary(data.treatment)
        n_features = len(self.imputation_.means)
        self.columns_, self.stratum_column_, self.modifiers_ = linear_columns.roles(
            data.feature_names, n_features, self.modifiers, self.strata
        )
        X, self.has_propensity_ = linear_columns.features_with_propensity(data, self.columns_)
        self.scaling_ = linear_data.learn_scaling(
            X, data.y, data.treatment, data.sample_weight, rescale_y=self.family == "gaussian"
        )
        offset = 0.0
        if self.family in ("negative_binomial", "gamma"):
            offset = float(np.log(np.average(data.y, weights=data.sample_weight)))
            self.scaling_ = replace(self.scaling_, y_mean=offset)
        self.prior_scale_ = np.ones(X.shape[1])
        if self.ordered is not None:
            ordered = select_columns(
                data.feature_names, self.ordered, role="ordered", n_features=n_features, ordered=True
            )
            self.prior_scale_[self._places(ordered)] = 1.0 / np.arange(1, len(ordered) + 1)
        self.seed_ = seed_of(self.random_state)
        self._sample(self._design(X, data, offset), X, data)

    def _places(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of the design's columns among the features with main effects."""
        return np.searchsorted(self.columns_, columns)

    def _design(self, X: FloatArray, data: FitData, offset: float) -> LinearDesign:
        Z, t = self.scaling_.features(X) * self.prior_scale_, self.scaling_.treatment(data.treatment)
        n_random = 0
        if data.groups is not None and self.group_effects and 1 < data.n_groups < len(data.y):
            slopes = self.group_slopes
            if slopes == "auto":
                slopes = linear_columns.n_mixed(data.groups, data.treatment) >= MIN_MIXED_GROUPS
            n_random = 2 if slopes else 1
        self.has_group_effects_, self.has_group_slopes_ = n_random > 0, n_random > 1
        stratum = data.X[:, self.stratum_column_[0]].astype(np.int64) if len(self.stratum_column_) else None
        return LinearDesign(
            main=Z,
            interaction=t[:, None] * Z[:, self._places(self.modifiers_)],
            t=t,
            y=self.scaling_.outcome(data.y) if self.family == "gaussian" else data.y,
            weight=data.sample_weight,
            arm=data.treatment.astype(np.int64) if self.binary_ else np.zeros(len(t), dtype=np.int64),
            group=data.groups if n_random else None,
            n_random=n_random,
            stratum=stratum,
            offset=offset,
        )

    def _sample(self, design: LinearDesign, X: FloatArray, data: FitData) -> None:
        """Fit the design, or each of its imputations, and keep the draws in units of the outcome."""
        from causalsat.estimators.linear import draws as linear_draws
        from causalsat.estimators.linear import fit as linear_fit
        from causalsat.estimators.linear import missing as linear_missing

        settings = linear_fit.Settings(self.n_draws, self.n_tune, self.n_chains, self.seed_, self.progress)
        how: dict[str, Any] = {"prior": self.prior, "family": self.family, "sampler": self.sampler}
        places, Z = self._places(self.modifiers_), self.scaling_.features(X)
        self.layout_, self.imputed_ = linear_layout.make_layout(design, self.prior, family=self.family), None
        missing, model = self._missing(data.X), None
        if self.impute == "model" and missing.any():
            features = linear_missing.feature_columns(self.imputation_, self.columns_, X.shape[1])
            tables, model = linear_missing.imputations(
                design, Z, missing, features, places, self.family, self.n_imputations, self.seed_
            )
            fits = [
                linear_fit.fit_model(
                    linear_missing.with_features(design, table * self.prior_scale_, places),
                    settings=replace(settings, seed=settings.seed + m),
                    **how,
                )
                for m, table in enumerate(tables)
            ]
        else:
            tables, fits = [Z], [linear_fit.fit_model(design, settings=settings, **how)]
        fit = linear_missing.pool(fits)
        draws = linear_draws.in_outcome_units(fit, self.scaling_, self.prior_scale_, places)
        draws |= linear_draws.averages(draws, tables, places, data.sample_weight, design.stratum)
        self.diagnostics_ = self._diagnose(draws, fit, len(fits))
        self.draws_ = {name: values[:: len(fits)] for name, values in draws.items()}  # as many as of one fit
        if model is not None:
            which = np.repeat(np.arange(len(fits)), self.n_chains * self.n_draws)[:: len(fits)]
            self.imputed_ = linear_missing.Imputed(features, model, which)
        if self.family != "gaussian":
            self.draws_["ate"] = linear_draws.weighted_average(
                lambda part: self._effect_draws(data.X[part], *np.ones((2, len(X)))[:, part] * [[1.0], [0.0]]),
                data.sample_weight,
                len(self.draws_["ate"]),
            )

    def _diagnose(self, draws: dict[str, FloatArray], fit: Any, n_fits: int) -> dict[str, Any]:
        from causalsat.estimators.linear import sample as linear_sample

        chains = {name: v.reshape(n_fits, self.n_chains, self.n_draws, -1) for name, v in draws.items()}
        each = [
            linear_sample.chain_diagnostics({name: v[m] for name, v in chains.items()}, fit.divergences, self.sampler)
            for m in range(n_fits)
        ]
        result = linear_sample.worst_diagnostics(each) | {"divergences": fit.divergences}
        if np.isfinite(fit.pareto_k):
            result["pareto_k"] = fit.pareto_k
        linear_sample.warn_if_not_converged(result, self.prior)
        return result

    def _missing(self, X: FloatArray) -> NDArray[np.bool_]:
        """Which of the columns with main effects were missing, shape (n, p)."""
        from causalsat.estimators.linear import missing as linear_missing

        return linear_missing.missing_features(X, self.imputation_, self.columns_, len(self.prior_scale_))

    # ------------------------------------------------------------------ effects and outcomes
    def _features(self, X: FloatArray) -> FloatArray:
        """Standardised features of new units, with the training mean for a propensity that was known in training."""
        X = X[:, self.columns_]
        if self.has_propensity_:
            X = np.column_stack([X, np.full(len(X), self.scaling_.x_mean[-1])])
        return self.scaling_.features(X)

    def _linear(
        self, X: FloatArray, draws: dict[str, FloatArray] | None = None, *, with_base: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Predictor at average treatment and its slope in the treatment, each of shape (draw, unit)."""
        from causalsat.estimators.linear import draws as linear_draws
        from causalsat.estimators.linear import missing as linear_missing

        d, Z = self.draws_ if draws is None else draws, self._features(X)
        places = self._places(self.modifiers_)
        slope = linear_draws.slope(d, Z, places)
        base = linear_draws.base(d, Z) if with_base else np.zeros((1, 1))
        if "stratum_slope" in d:
            codes = X[:, self.stratum_column_[0]].astype(np.int64)
            more = linear_draws.stratum_effects(d, codes, self.seed_)
            base, slope = base + more[0], slope + more[1]
        if self.imputed_ is not None and draws is None:
            missing = self._missing(X)
            more = linear_missing.missing_contribution(d, Z, missing, places, self.imputed_, self.seed_)
            base, slope = base + more[0], slope + more[1]
        return base, slope

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the mean outcome at a treatment level, averaged over villages."""
        from causalsat.estimators.linear import draws as linear_draws
        from causalsat.estimators.linear import families as linear_families

        base, slope = self._linear(X)
        dose = level - self.scaling_.t_centre
        spread = linear_draws.village_spread(self.draws_, dose)
        return linear_families.mean_outcome(base + slope * dose, spread, self.layout_.family)

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        if self.family == "gaussian":
            return self._linear(X, with_base=False)[1] * (treatment - baseline)
        return self._outcome_draws(X, treatment) - self._outcome_draws(X, baseline)

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.diagnostics_)

    def _summary(self) -> Summary:
        names = [self.design_names_[j] for j in self.modifiers_]
        info = {"units": self.n_units_, "groups": self.n_groups_, **self._diagnostics()}
        table = linear_report.coefficient_table(self.draws_, names, getattr(self, "strata_", []), self.family)
        notes = linear_report.notes(self.family, self.prior, len(names))
        return Summary(f"{type(self).__name__} ({self.family})", table, info, notes)
