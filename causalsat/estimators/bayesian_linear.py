"""Bayesian linear effects: outcome on covariates, treatment and shrunken treatment-by-latent interactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat._inputs import FitData, FloatArray
from causalsat.base import OutcomeEstimator, Summary
from causalsat.estimators import _linear_data
from causalsat.estimators._columns import select_columns
from causalsat.estimators._linear_data import LinearDesign
from causalsat.exceptions import DataError, ParameterError, TreatmentError

__all__ = ["BayesianLinearEffect"]

FAMILIES = ("gaussian", "bernoulli")
PRIORS = ("horseshoe", "normal")
SAMPLERS = ("auto", "pymc")
MIN_MIXED_GROUPS = 10  # villages that hold several treatments, for group_slopes="auto"


class BayesianLinearEffect(OutcomeEstimator):
    r"""Linear model with shrunken treatment-by-latent interactions, village effects and arm-specific noise.

    The outcome of unit i in village g is

    .. math:: y_i = \alpha + z_i'\gamma + t_i(\tau + m_i'\beta) + u_g + t_i s_g + e_i,
              \quad e_i \sim N(0, \sigma^2_{arm})

    with z the standardised features, m those of them that may modify the effect and t the centred treatment.
    The conditional effect is :math:`\tau(x) = \tau + m'\beta`; for a dose it is proportional to the difference
    of doses. With ``family="bernoulli"`` the same predictor is the logit of P(y = 1), and effects are risk
    differences, averaged over villages.

    Parameters
    ----------
    modifiers : None, str, or sequence of str or int
        Features that interact with the treatment: all of them (None), those that match a name or glob pattern
        such as ``"img*"``, a list of names and patterns, or a list of positions. An empty list is a constant
        effect. Indicators of missing values never interact unless they are named in full.
    prior : {"horseshoe", "normal"}
        Prior of the interactions: the regularised horseshoe of Piironen and Vehtari (2017), which shrinks small
        interactions to nearly nothing and leaves large ones alone, or normal with a learnt common scale (ridge),
        a little better where many modifiers matter equally and much worse where few do
        (``benchmarks/bayesian_linear.py``).
    ordered : None, str, or sequence of str or int
        Features in order of importance, such as principal components (``"img*"``): the coefficients of the j-th
        have prior standard deviation 1/j of those of the first. Many components then cost little accuracy where
        the first ones matter most, and some where they do not. The order is the argument's.
    family : {"gaussian", "bernoulli"}
        Distribution of the outcome.
    group_effects : bool
        Village effects (random intercepts), where ``groups`` are given.
    group_slopes : bool or "auto"
        Village effects on the treatment effect as well: what the modifiers do not explain of how villages
        respond. "auto": where at least ten villages hold units of several treatments; in a trial that treats
        whole villages such slopes cannot be told from village effects. They widen the uncertainty of the
        conditional effect but are no part of it: the effect of a new place is the mean of the places like it.
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws a chain, and chains.
    sampler : {"auto", "pymc"}
        "auto" samples only the scales, with coefficients and village effects integrated out exactly
        (gaussian), or the hand-written density (bernoulli): no compilation. "pymc" samples the whole model
        written in PyMC, compiled by nutpie once for each structure: the reference. Both use nutpie's NUTS.
    random_state : int, RandomState or None
        Seed.
    progress : bool
        Show the sampler's progress bar.

    Attributes
    ----------
    draws_ : dict of str to ndarray
        Posterior draws in units of the outcome (or logit), chains one after the other: ``intercept``, ``main``
        (per standard deviation of each feature), ``treatment`` (at average features, per unit of treatment),
        ``interaction`` (per standard deviation of each modifier), ``noise`` (by arm), ``group_sd``,
        ``slope_sd``, ``ate`` (average over the training units).
    modifiers_ : ndarray of int
        Columns of the design that interact with the treatment.

    Notes
    -----
    Priors, for an outcome standardised to unit variance: intercept and treatment N(0, 2.5); main effects
    normal with a learnt scale; all scales half-t with 3 degrees of freedom and scale 1. Horseshoe: global scale
    half-Cauchy with a scale that expects half of the modifiers to matter, slab of scale 0.5 with 4 degrees
    of freedom. Normal prior: the interactions' total (the standard deviation of the conditional effect) has a
    half-t scale of 0.5. In a logit all scales are those times pi / sqrt(3).
    A known ``propensity`` that varies enters as a further main effect (Hahn, Murray and Carvalho 2020,
    equation 6), so that shrinkage of the other main effects does not confound the effect.
    ``sample_weight`` enters as powers of the likelihood: a unit of weight 2 counts as two units. The posterior
    then is one about the weighted population, and its spread ignores the loss of precision by unequal weights.

    References
    ----------
    Piironen, J. and Vehtari, A. (2017). Sparsity information and regularization in the horseshoe and other
    shrinkage priors. Electronic Journal of Statistics 11(2).

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
        for name, allowed in (("prior", PRIORS), ("family", FAMILIES), ("sampler", SAMPLERS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise ParameterError(f"{name}={value!r}", expected=" or ".join(repr(a) for a in allowed))
        for name, least in (("n_draws", 1), ("n_tune", 50), ("n_chains", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ParameterError(f"{name}={value!r}", expected=f"an integer of at least {least}")
        if not isinstance(self.group_effects, (bool, np.bool_)):
            raise ParameterError(f"group_effects={self.group_effects!r}", expected="True or False")
        if self.group_slopes != "auto" and not isinstance(self.group_slopes, (bool, np.bool_)):
            raise ParameterError(f"group_slopes={self.group_slopes!r}", expected="True, False or 'auto'")

    def _support_columns(self) -> NDArray[np.int64] | slice:
        return self.modifiers_ if len(self.modifiers_) else slice(None)

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        from causalsat.estimators import _linear_fit

        binary_outcome = self.family == "bernoulli"
        if binary_outcome and not np.isin(data.y, (0.0, 1.0)).all():
            raise DataError(
                f"an outcome with values from {data.y.min():g} to {data.y.max():g} for family='bernoulli'",
                expected="0 and 1",
                todo="recode it, or use family='gaussian'",
            )
        levels = np.unique(data.treatment)
        if len(levels) == 2 and not np.isin(levels, (0.0, 1.0)).all():
            raise TreatmentError(
                f"treatment has the two values {levels[0]:g} and {levels[1]:g}",
                expected="0 (control) and 1 (treated), or a dose with more than two levels",
                todo=f"recode it: (treatment == {levels[1]:g}).astype(int)",
            )
        n_features = len(self.imputation_.means)
        self.modifiers_ = np.sort(resolve_columns(self.modifiers, data.feature_names, n_features, "modifiers"))
        X, self.has_propensity_ = _with_propensity(data)
        self.scaling_ = _linear_data.learn_scaling(
            X, data.y, data.treatment, data.sample_weight, rescale_y=not binary_outcome
        )
        self.prior_scale_ = np.ones(X.shape[1])
        if self.ordered is not None:
            places = resolve_columns(self.ordered, data.feature_names, n_features, "ordered")
            self.prior_scale_[places] = 1.0 / np.arange(1, len(places) + 1)
        design = self._design(X, data)
        self.has_group_effects_, self.has_group_slopes_ = design.n_random > 0, design.n_random > 1
        seed = _seed(self.random_state)
        fit = _linear_fit.fit_model(
            design,
            prior=self.prior,
            binary_outcome=binary_outcome,
            sampler=self.sampler,
            settings=_linear_fit.Settings(self.n_draws, self.n_tune, self.n_chains, seed, self.progress),
        )
        self._store(fit, data, X)

    def _design(self, X: FloatArray, data: FitData) -> LinearDesign:
        Z = self.scaling_.features(X) * self.prior_scale_
        t = self.scaling_.treatment(data.treatment)
        binary = bool(np.isin(data.treatment, (0.0, 1.0)).all())
        arm = data.treatment.astype(np.int64) if binary else np.zeros(len(t), dtype=np.int64)
        n_random = 0
        if data.groups is not None and self.group_effects and data.n_groups < len(data.y) and data.n_groups > 1:
            slopes = self.group_slopes
            if slopes == "auto":
                slopes = _n_mixed(data.groups, data.treatment) >= MIN_MIXED_GROUPS
            n_random = 2 if slopes else 1
        return LinearDesign(
            main=Z,
            interaction=t[:, None] * Z[:, self.modifiers_],
            t=t,
            y=self.scaling_.outcome(data.y),
            weight=data.sample_weight,
            arm=arm,
            group=data.groups,
            n_random=n_random,
        )

    def _store(self, fit: Any, data: FitData, X: FloatArray) -> None:
        """Keep the draws in units of the outcome."""
        s = self.scaling_
        coefficients = fit.coefficients
        live = self.prior_scale_ * (s.x_factor > 0)
        p, up, dose = X.shape[1], s.y_scale, s.y_scale / s.t_scale
        self.draws_ = {
            "intercept": s.y_mean + up * coefficients[:, 0],
            "main": up * coefficients[:, 1 : 1 + p] * live,
            "treatment": dose * coefficients[:, 1 + p],
            "interaction": dose * coefficients[:, 2 + p :] * live[self.modifiers_],
            "noise": up * fit.noise,
        }
        if self.has_group_effects_:
            self.draws_["group_sd"] = up * fit.random_sd[:, 0]
        if self.has_group_slopes_:
            self.draws_["slope_sd"] = dose * fit.random_sd[:, 1]
        modifiers = s.features(X)[:, self.modifiers_]
        covariance = (modifiers * data.sample_weight[:, None]).T @ modifiers / data.sample_weight.sum()
        beta = self.draws_["interaction"]
        self.draws_["effect_sd"] = np.sqrt(np.maximum(((beta @ covariance) * beta).sum(axis=1), 0.0))
        self.draws_["ate"] = self.draws_["treatment"]
        if self.family == "bernoulli":
            one, zero = np.ones(len(X)), np.zeros(len(X))
            self.draws_["ate"] = self._effect_draws(data.X, one, zero) @ (data.sample_weight / len(X))
        self.diagnostics_ = self._diagnose(fit.divergences)

    def _diagnose(self, divergences: int) -> dict[str, Any]:
        from causalsat.estimators import _linear_sample

        chains = {
            name: values.reshape(self.n_chains, self.n_draws, -1)
            for name, values in self.draws_.items()
            if name not in ("intercept", "main")
        }
        result = _linear_sample.chain_diagnostics(chains, divergences, self.sampler)
        _linear_sample.warn_if_not_converged(result)
        return result

    # ------------------------------------------------------------------ effects and outcomes
    def _complete(self, X: FloatArray) -> FloatArray:
        """Features of new units, with the training mean for a propensity that was known in training."""
        return np.column_stack([X, np.full(len(X), self.scaling_.x_mean[-1])]) if self.has_propensity_ else X

    def _linear(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predictor at average treatment and its slope in the treatment, each of shape (draw, unit)."""
        d, Z = self.draws_, self.scaling_.features(self._complete(X))
        slope = d["treatment"][:, None] + d["interaction"] @ Z[:, self.modifiers_].T
        return d["intercept"][:, None] + d["main"] @ Z.T, slope

    def _outcome_draws(self, X: FloatArray, level: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the mean outcome at a treatment level, averaged over villages."""
        base, slope = self._linear(X)
        dose = level - self.scaling_.t_centre
        predictor = base + slope * dose
        if self.family == "gaussian":
            return predictor
        from causalsat.estimators import _linear_glm

        variance = np.zeros_like(predictor)
        if self.has_group_effects_:
            variance += self.draws_["group_sd"][:, None] ** 2
        if self.has_group_slopes_:
            variance += (self.draws_["slope_sd"][:, None] * dose) ** 2
        return np.asarray(_linear_glm.average_probability(predictor, np.sqrt(variance), *_linear_glm.hermite()))

    def _effect_draws(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        if self.family == "gaussian":
            Z = self.scaling_.features(self._complete(X))[:, self.modifiers_]
            contrast = treatment - baseline
            weights = np.column_stack([contrast, Z * contrast[:, None]])
            return np.column_stack([self.draws_["treatment"], self.draws_["interaction"]]) @ weights.T
        return self._outcome_draws(X, treatment) - self._outcome_draws(X, baseline)

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.diagnostics_)

    def _summary(self) -> Summary:
        import pandas as pd

        d = self.draws_
        names = [self.design_names_[j] for j in self.modifiers_]
        rows: dict[str, FloatArray] = {"ATE": d["ate"]}
        rows |= {f"treatment x {name}": d["interaction"][:, j] for j, name in enumerate(names)}
        scales: dict[str, FloatArray] = {"sd of effects": d["effect_sd"]} if names else {}
        if self.has_group_effects_:
            scales["sd of villages"] = d["group_sd"]
        if self.has_group_slopes_:
            scales["sd of village effects on treatment"] = d["slope_sd"]
        n_arms = d["noise"].shape[1]
        labels = ["noise sd"] if n_arms == 1 else ["noise sd, control", "noise sd, treated"]
        scales |= {label: d["noise"][:, a] for a, label in enumerate(labels[:n_arms])}
        table = pd.DataFrame([_describe(v, signed=True) for v in rows.values()], index=list(rows))
        table = pd.concat([table, pd.DataFrame([_describe(v, signed=False) for v in scales.values()], list(scales))])
        scale = "the logit" if self.family == "bernoulli" else "the outcome's units"
        notes = (
            f"interactions are the change of the effect, in {scale}, for one standard deviation of the feature",
            f"{self.prior} prior on {len(names)} interactions; 90 % equal-tailed intervals",
        )
        info = {"units": self.n_units_, "groups": self.n_groups_, **self._diagnostics()}
        return Summary(f"{type(self).__name__} ({self.family})", table, info, notes)


def _describe(values: FloatArray, *, signed: bool) -> dict[str, float]:
    lower, upper = np.quantile(values, [0.05, 0.95])
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "[0.05": float(lower),
        "0.95]": float(upper),
        "P>0": float((values > 0).mean()) if signed else float("nan"),
    }


def resolve_columns(
    wanted: str | Sequence[str] | Sequence[int] | None, names: Sequence[str], n_features: int, role: str
) -> NDArray[np.int64]:
    """Positions of the columns that an argument names, in the order of the argument, each once.

    Parameters
    ----------
    wanted : None, str, or sequence of str or int
        Names, glob patterns or positions; None for all features.
    names : sequence of str
        Names of the design's columns: features, then indicators of missing values.
    n_features : int
        How many of them are features.
    role : str
        What the argument is called.

    Raises
    ------
    ColumnError
        If a name or pattern matches no column, or a position lies outside the features.
    ParameterError
        If the argument is of another kind.

    Examples
    --------
    >>> resolve_columns("img*", ["age", "img0", "img1", "img1 missing"], 3, "modifiers")
    array([1, 2])
    """
    if wanted is None:
        return np.arange(n_features)
    items = [wanted] if isinstance(wanted, str) else list(np.atleast_1d(np.asarray(wanted, dtype=object)))
    found: dict[int, None] = {}  # keeps the argument's order
    for item in items:
        flag = isinstance(item, str) and item in names[n_features:]
        chosen = select_columns(names if flag else names[:n_features], [item], role=role)
        found.update(dict.fromkeys(int(j) for j in chosen))
    return np.array(list(found), dtype=np.int64)


def _with_propensity(data: FitData) -> tuple[FloatArray, bool]:
    """Features, followed by the propensity where it is known and varies; and whether it is there."""
    e = data.propensity
    if e is None or np.ptp(e) < 1e-9:
        return data.X, False
    return np.column_stack([data.X, e]), True


def _n_mixed(groups: NDArray[np.int64], treatment: FloatArray) -> int:
    """Number of groups that hold units of several treatments."""
    n_groups = int(groups.max()) + 1
    low, high = np.full(n_groups, np.inf), np.full(n_groups, -np.inf)
    np.minimum.at(low, groups, treatment)
    np.maximum.at(high, groups, treatment)
    return int((high > low).sum())


def _seed(random_state: Any) -> int:
    """A seed from an int, a RandomState, a Generator or None."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(2**31 - 1))
