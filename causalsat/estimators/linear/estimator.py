"""Bayesian linear effects: outcome on covariates, treatment and shrunken treatment-by-latent interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.base import OutcomeEstimator, Summary
from causalsat.core import inputs
from causalsat.core.inputs import FitData, FloatArray, check_flags, check_whole_numbers
from causalsat.estimators.levels import FittedLevels
from causalsat.estimators.linear import design as linear_design
from causalsat.estimators.linear import draws as linear_draws
from causalsat.estimators.linear import fit as linear_fit
from causalsat.estimators.linear import model as linear_model
from causalsat.estimators.linear.density import FAMILIES, PRIORS
from causalsat.estimators.linear.design import Basis, ModelOptions
from causalsat.estimators.linear.draws import Posterior
from causalsat.exceptions import ParameterError
from causalsat.inference.chains import Settings, seed_of, warn_of_chains
from causalsat.posterior import EffectPosterior, draw_quantiles

__all__ = ["BayesianLinearEffect"]

SCALES = {
    "outcome_effect_sd": "sd of effects",
    "effect_sd": "sd of effects",
    "group_sd": "sd of villages",
    "slope_sd": "sd of village effects on treatment",
    "stratum_sd": "sd of strata",
    "stratum_slope_sd": "sd of stratum effects on treatment",
}
UNITS = {"gaussian": "the outcome's units", "bernoulli": "the logit"}
PREDICTORS = {"gaussian": "", "bernoulli": " (logit)"}  # what is added to rows on the predictor's scale


def coefficient_table(
    draws: Mapping[str, FloatArray], names: Sequence[str], strata: Sequence[str], family: str
) -> Any:
    """Average effect, interactions and stratum effects, then scales: mean, sd, 90 % interval, P(> 0).

    Of outcomes that are not normal, the average and the sd of effects are in the outcome's units (probabilities or
    means), and rows on the predictor say so.
    """
    import pandas as pd

    on = PREDICTORS.get(family, " (log)")
    rows: dict[str, FloatArray] = {"ATE": draws["ate"]}
    rows |= {f"treatment x {name}{on}": draws["interaction"][:, j] for j, name in enumerate(names)}
    if "stratum_slope" in draws:
        rows |= {f"treatment x stratum {label}{on}": draws["stratum_slope"][:, h] for h, label in enumerate(strata)}
    varies = bool(names or strata)
    scales = {
        label if name == "outcome_effect_sd" else f"{label}{on}": draws[name]
        for name, label in SCALES.items()
        if name in draws and (varies or name != "effect_sd")
    }
    noise = draws["noise"]
    word = "noise sd" if family == "gaussian" else "dispersion"
    labels = [word] if noise.shape[1] == 1 else [f"{word}, control", f"{word}, treated"]
    scales |= {label: noise[:, a] for a, label in enumerate(labels[: noise.shape[1]])}
    effects = pd.DataFrame([_describe(v, signed=True) for v in rows.values()], index=list(rows))
    if not scales:
        return effects
    return pd.concat([effects, pd.DataFrame([_describe(v, signed=False) for v in scales.values()], list(scales))])


def notes(family: str, prior: str, n_interactions: int) -> tuple[str, ...]:
    """What the table's numbers are."""
    scale = UNITS.get(family, "the logarithm of the mean outcome")
    units = () if family == "gaussian" else (f"ATE and sd of effects are in the outcome's units, others in {scale}",)
    return (
        *units,
        f"interactions are the change of the effect, in {scale}, for one standard deviation of the feature",
        f"{prior} prior on {n_interactions} interactions; 90 % equal-tailed intervals",
    )


def advice(prior: str, sampler: str) -> str:
    """What can be done about chains that have not converged, besides what is already set."""
    options = ["raise n_tune and n_draws"]
    if prior != "normal":
        options.append("use prior='normal'")
    if sampler == "laplace":
        options.append("use sampler='auto'")
    return ", or ".join(options)


def _describe(values: FloatArray, *, signed: bool) -> dict[str, float]:
    lower, upper = draw_quantiles(values, [0.05, 0.95])
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "[0.05": float(lower),
        "0.95]": float(upper),
        "P>0": float((values > 0).mean()) if signed else float("nan"),
    }


SAMPLERS = ("auto", "pymc", "laplace")
IMPUTATIONS = ("mean", "model")


class BayesianLinearEffect(FittedLevels, OutcomeEstimator):
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
        interactions to nearly nothing and leaves large ones alone; normal with a learned common scale (ridge),
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
        included, in units of the outcome always, as is ``outcome_effect_sd`` of outcomes that are not normal).
    modifiers_ : ndarray of int
        Columns of the design that interact with the treatment.
    strata_ : list of str
        Labels of the strata in the order of ``stratum_slope``.

    Notes
    -----
    Priors, for an outcome standardised to unit variance: intercept and treatment N(0, 2.5); main effects
    normal with a learned scale; all scales half-t with 3 degrees of freedom and scale 1 (stratum effects on the
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

    _learns_places: ClassVar[bool] = True
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

    def _encode_columns(self, X: Any, *, reset: bool) -> Any:
        """X with codes in place of the labels of strata; a new label has a negative code."""
        if self.strata is None:
            return X
        values = linear_design.stratum_column(X, self.strata)
        if values is None:
            return X
        if reset:
            self.strata_ = linear_design.stratum_labels(values)
        return linear_design.with_codes(X, self.strata, linear_design.stratum_codes(values, self.strata_))

    # ------------------------------------------------------------------ fit
    def _options(self) -> ModelOptions:
        return ModelOptions(
            modifiers=self.modifiers,
            prior=self.prior,
            ordered=self.ordered,
            family=self.family,
            strata=self.strata,
            group_effects=self.group_effects,
            group_slopes=self.group_slopes,
        )

    def _fit(self, data: FitData) -> None:
        options = self._options()
        self._model_data = data, options
        settings = Settings(self.n_draws, self.n_tune, self.n_chains, seed_of(self.random_state), self.progress)
        fitted = linear_fit.fit(
            data,
            self.imputation_,
            options,
            settings,
            sampler=self.sampler,
            n_imputations=self.n_imputations if self.impute == "model" else None,
        )
        posterior, basis = fitted.posterior, fitted.posterior.basis
        self.binary_ = basis.binary
        self.columns_, self.modifiers_, self.stratum_column_ = basis.columns, basis.modifiers, basis.stratum_column
        self.has_propensity_, self.prior_scale_, self.scaling_ = (
            basis.has_propensity,
            basis.prior_scale,
            basis.scaling,
        )
        self.has_group_effects_, self.has_group_slopes_ = fitted.n_random > 0, fitted.n_random > 1
        self.layout_, self.seed_, self.imputed_ = fitted.layout, settings.seed, posterior.imputed
        self.draws_, self.diagnostics_ = posterior.draws, fitted.diagnostics
        warn_of_chains(self.diagnostics_, advice=advice(self.prior, self.sampler))

    @property
    def _posterior(self) -> Posterior:
        """The fitted attributes as what effects and outcomes are made of."""
        basis = Basis(
            columns=self.columns_,
            modifiers=self.modifiers_,
            stratum_column=self.stratum_column_,
            has_propensity=self.has_propensity_,
            binary=self.binary_,
            scaling=self.scaling_,
            prior_scale=self.prior_scale_,
            imputation=self.imputation_,
        )
        return Posterior(self.draws_, basis, self.layout_.family, self.seed_, self.imputed_)

    def to_pymc(self, *, effects: bool = False) -> Any:
        """Return the model in PyMC with the data of the fit, to be read, plotted, extended and sampled.

        Outcome and features are standardised in it; ``ate`` is in the outcome's units. Dimensions carry names
        (``feature``, ``modifier``, ``village`` ...). Where units weigh alike the outcome is an observed variable,
        ``outcome``, so that PyMC's predictive checks work; else each unit's likelihood has the power of its weight.
        The fit itself samples faster densities, which equal it with coefficients and village effects integrated out
        (:mod:`causalsat.estimators.linear.density`) or in other coordinates.

        Parameters
        ----------
        effects : bool
            Add the features in their own units, as the data ``X``, and each unit's effect in the outcome's units, as
            the deterministic ``effect``: with both, and with what you add, it is a model for
            :class:`~causalsat.PyMCEffect`.

        Returns
        -------
        pymc.Model
            ``pm.sample(model=...)``, ``nutpie.compile_pymc_model(...)`` or ``pm.model_to_graphviz(...)`` take it.

        Raises
        ------
        DataError
            If the estimator was loaded or copied, which leaves the training data out.
        ParameterError
            If missing features were drawn in the model (``impute="model"``): that is a fit for each imputation. With
            ``effects``, if the outcome is not normal or effects differ by stratum.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, t = rng.standard_normal((200, 2)), rng.integers(0, 2, 200)
        >>> y = X[:, 0] + t * (1.0 + X[:, 1]) + rng.standard_normal(200)
        >>> est = BayesianLinearEffect(prior="normal", n_draws=100, random_state=0).fit(X, y, treatment=t)
        >>> model = est.to_pymc()
        >>> [variable.name for variable in model.free_RVs]  # doctest: +NORMALIZE_WHITESPACE
        ['main_scale', 'intercept', 'treatment', 'main_raw', 'interaction_scale', 'interaction_raw', 'noise']
        >>> model.named_vars_to_dims["interaction_effects"], model.coords["modifier"]
        (('modifier',), ('x0', 'x1'))
        """
        data, options = self._fit_data()
        if self.imputed_ is not None:
            raise ParameterError(
                "a fit with impute='model', which is one model for each imputation",
                expected="complete features, or impute='mean'",
                todo="fit with impute='mean', or impute the table before the fit",
            )
        basis, Z, design = linear_design.make_design(data, self.imputation_, options)
        features = [self.design_names_[j] for j in basis.columns] + ["propensity"] * basis.has_propensity
        labels = {
            "feature": features,
            "modifier": [features[j] for j in basis.places],
            "stratum": getattr(self, "strata_", []),
        }
        modifiers = (Z * basis.prior_scale)[:, basis.places]
        model = linear_model.readable_model(design, self.layout_, basis.scaling, modifiers, labels)
        if effects:
            if self.family != "gaussian" or self.strata is not None:
                raise ParameterError(
                    f"effects=True with family={self.family!r} and strata={self.strata!r}",
                    expected="normal outcomes, and effects that do not differ by stratum",
                    todo="add pm.Data('X', ...) and pm.Deterministic('effect', ...) to the model by hand",
                )
            scaling, places = basis.scaling, basis.places
            factor = (scaling.x_factor * basis.prior_scale)[places]
            unit = scaling.y_scale / scaling.t_scale
            linear_model.add_effects(model, data.X, basis.modifiers, scaling.x_mean[places], factor, unit)
        return model

    # ------------------------------------------------------------------ effects and outcomes
    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        return self._posterior.effects(X, treatment, baseline)

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        return self._posterior.mean_outcomes(X, level)

    def posterior_predictive(
        self, X: Any, *, treatment: ArrayLike | str, groups: ArrayLike | str | None = None
    ) -> EffectPosterior:
        """Draws of single outcomes from the posterior: with noise, and with the effects of new villages.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        treatment : float, array of shape (n,) or str
            Treatment of each unit, or the name of X's column that holds it.
        groups : array of shape (n,) or str, optional
            Units of one village share a village effect; by default each is in a village of its own.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``; :func:`causalsat.plots.plot_predictive` shows them.
        """
        return self._predictive(X, treatment, groups, None)

    def prior_predictive(
        self, X: Any, *, treatment: ArrayLike | str, groups: ArrayLike | str | None = None, n_draws: int = 400
    ) -> EffectPosterior:
        """Draws of single outcomes from the prior: what the model held possible before it saw the outcomes.

        The prior is stated for a standardised outcome, so it takes location and scale from the outcomes of
        :meth:`fit`; nothing else of them enters.

        Parameters
        ----------
        X, treatment, groups
            As in :meth:`posterior_predictive`.
        n_draws : int
            Number of draws.

        Returns
        -------
        EffectPosterior
            Draws of shape (n_draws, n), ``kind="outcome"``.
        """
        if not isinstance(n_draws, int | np.integer) or n_draws < 1:
            raise ParameterError(f"n_draws={n_draws!r}", expected="a positive whole number")
        return self._predictive(X, treatment, groups, int(n_draws))

    def _predictive(self, X: Any, treatment: Any, groups: Any, n_prior: int | None) -> EffectPosterior:
        design, index = self._check_predict(X)
        level = self._check_level(inputs.column_or_array(X, treatment, "treatment")[0], len(index), "treatment")
        codes = inputs.check_groups(inputs.column_or_array(X, groups, "groups")[0], len(index))
        group = np.arange(len(level)) if codes is None else codes
        arm = level.astype(np.int64) if self.binary_ else np.zeros(len(level), dtype=np.int64)
        rng, posterior = np.random.default_rng([self.seed_, 3 if n_prior is None else 4]), self._posterior
        if n_prior is not None:
            posterior = linear_draws.prior_of(posterior, self.layout_, n_prior, rng)
        values = posterior.single_outcomes(design, level, group, arm, rng)
        return EffectPosterior(values, index=index, kind="outcome", treatment=treatment, baseline=None)

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.diagnostics_)

    def _summary(self) -> Summary:
        names = [self.design_names_[j] for j in self.modifiers_]
        info = {"units": self.n_units_, "groups": self.n_groups_, **self._diagnostics()}
        table = coefficient_table(self.draws_, names, getattr(self, "strata_", []), self.family)
        remarks = notes(self.family, self.prior, len(names))
        return Summary(f"{type(self).__name__} ({self.family})", table, info, remarks)
