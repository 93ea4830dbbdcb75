"""Risk when only some were tested: Bayesian models with domain constraints, and the two usual baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from causalsat.base import Summary
from causalsat.core.inputs import FitData, FloatArray, check_whole_numbers
from causalsat.core.warn import warn
from causalsat.estimators.selective_labels import sample as sampling
from causalsat.estimators.selective_labels import sweep
from causalsat.estimators.selective_labels.density import NO_PREVALENCE, SelectiveData, free_columns
from causalsat.estimators.selective_labels.forms import NormalForm, UniformForm, form_of
from causalsat.estimators.selective_labels.prevalence import (
    check_figure,
    check_prevalence,
    group_prevalence,
    is_by_group,
    label_columns,
)
from causalsat.estimators.selective_labels.priors import RISK, Priors, read_priors
from causalsat.exceptions import DataWarning, ParameterError
from causalsat.inference.chains import Settings, seed_of
from causalsat.posterior import EffectPosterior, coefficient_table
from causalsat.risk_base import RiskEstimator

__all__ = ["SelectiveLabelsRisk"]

UNOBSERVABLES = ("uniform", "normal")


class SelectiveLabelsRisk(RiskEstimator):
    r"""Bayesian risk model for an outcome seen only where a past decision tested for it.

    Decision makers see more than the features; Z stands for what they saw (Balachandar, Garg and Pierson 2024,
    section 3):

    .. math:: r = x'\beta_Y + Z,\quad Y \sim Bernoulli(s(r)),\quad T \sim Bernoulli(s(r + x'\beta_\Delta)),\quad
              Z \sim U(0, \sigma)

    with s the logistic function and Y seen where T = 1. :math:`\beta_\Delta` is where the decision departs from
    risk. Without further knowledge the data tell :math:`\sigma` and the intercepts apart only weakly; two pieces of
    knowledge help: how common Y = 1 is in the population, and along which features the decision follows risk.

    Parameters
    ----------
    prevalence : (float, float), dict or None
        Mean of Y in the population that the units represent, and its standard error. Where it is known by group, a
        dict of columns of X, each with its labels' figures: ``{"district": {"north": (0.2, 0.02), "south": (0.3,
        0.02)}, "age_band": {...}}``; positions in place of names where X is an array. Labels that are left out are
        free. A column of labels that are no numbers is no feature, and new places need not have it. A wrong figure
        with a small standard error spoils the fit, and diagnostics do not show it: every fit with a prevalence
        computes ``sensitivity_`` and warns where data and prevalence are at odds.
    expertise : sequence of str or int, or None
        The features on which the decision may depend beyond risk; along all others the decision makers are taken to
        be experts, :math:`\beta_\Delta = 0`. Names, glob patterns or positions; an empty list for none. None: no
        constraint. The intercept is always free.
    unobservables : {"uniform", "normal"}
        Distribution of what decision makers saw beyond the features: uniform on (0, sigma), integrated out in closed
        form, or normal with standard deviation sigma, by quadrature (some four times slower).
    alpha : float
        Only with normal unobservables: how strongly the decision follows risk, T ~ Bernoulli(s(alpha r +
        x'beta_Delta)). With uniform ones it is 1, as in the paper.
    sigma : float or None
        Only with normal unobservables, whose sigma and alpha cannot both be learned: None learns sigma and keeps
        ``alpha``; a number keeps sigma and learns alpha.
    priors : dict of str to float or (float, float), or None
        Priors other than those of the notes, by name: ``risk`` and ``decision`` (the coefficients of the features
        in :math:`\beta_Y` and :math:`\beta_\Delta`), ``risk_intercept``, ``decision_intercept`` and ``alpha``: a
        standard deviation around 0, or (mean, standard deviation), of a normal; ``sigma``: the scale of a
        half-normal. In logits per standard deviation of a feature. The summary shows all that are in force.
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws a chain, and chains; only NUTS tunes.
    random_state : int, RandomState or None
        Seed.
    progress : bool
        Show the sampler's progress bar.

    Attributes
    ----------
    draws_ : Coefficients
        Posterior draws: ``risk`` (draw, p + 1) and ``decision`` (draw, p + 1), the coefficients of
        :math:`\beta_Y` and :math:`\beta_\Delta` per standard deviation of each feature, intercept first;
        ``sigma`` and ``alpha`` (draw,).
    sensitivity_ : dict of str to list, or None
        With a prevalence: what the posterior mode says if it were 0.8 to 1.2 times the stated one (``prevalence``; by
        group all of them, ``times_stated``), and the p-value of each, how consistent it is with the data (a
        likelihood-ratio test; small: it is not).

    Notes
    -----
    Priors: all coefficients N(0, 3^2) for standardised features, sigma half-normal(3), alpha N(0, 3^2), unless
    ``priors`` says otherwise. Z is integrated out exactly
    and sigma, the only poorly determined direction, is separated from the coefficients
    (:mod:`causalsat.estimators.selective_labels.density`). Independent proposals along the path of conditional
    modes, made exact by Metropolis steps, sample what is left (:mod:`causalsat.inference.mode_path`); where they
    do not fit the posterior, as with few units, nutpie's NUTS does, in the coordinates of the curvature at the
    mode. The diagnostics say which it was.

    How often data sets are found to be at odds with a wrong prevalence, and with the true one, is in
    ``benchmarks/RESULTS.md``.

    References
    ----------
    Balachandar, S., Garg, N. and Pierson, E. (2024). Domain constraints improve risk prediction when outcome data is
    missing. ICLR. arXiv 2312.03878.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1500, 2))
    >>> r = -1.5 + X[:, 0] + rng.uniform(0, 2, 1500)
    >>> tested = rng.random(1500) < 1 / (1 + np.exp(-r - 1.5))
    >>> y = np.where(tested, rng.random(1500) < 1 / (1 + np.exp(-r)), np.nan)
    >>> model = SelectiveLabelsRisk(prevalence=(0.40, 0.02), expertise=[], random_state=0)
    >>> model = model.fit(X, y, treatment=tested.astype(int))
    >>> model.predict_proba(X).shape, model.risk(X, given="untested").interval(0.9).shape
    ((1500, 2), (1500, 2))
    >>> bool(model.risk(X, given="untested").mean().mean() < model.risk(X, given="tested").mean().mean())
    True
    """

    _transient: ClassVar[tuple[str, ...]] = ("_model_data", "_groups")
    _contract_parameters: ClassVar[dict[str, Any]] = {"n_draws": 100, "n_tune": 100, "n_chains": 2, "random_state": 0}

    def __init__(
        self,
        *,
        prevalence: tuple[float, float] | Mapping[Any, Mapping[Any, tuple[float, float]]] | None = None,
        expertise: Sequence[str] | Sequence[int] | None = None,
        unobservables: str = "uniform",
        alpha: float = 1.0,
        sigma: float | None = None,
        priors: Mapping[str, Any] | None = None,
        n_draws: int = 500,
        n_tune: int = 300,
        n_chains: int = 4,
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        self.prevalence = prevalence
        self.expertise = expertise
        self.unobservables = unobservables
        self.alpha = alpha
        self.sigma = sigma
        self.priors = priors
        self.n_draws = n_draws
        self.n_tune = n_tune
        self.n_chains = n_chains
        self.random_state = random_state
        self.progress = progress

    # ------------------------------------------------------------------ checks
    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_draws": 1, "n_tune": 50, "n_chains": 1})
        if self.prevalence is not None:
            check_prevalence(self.prevalence)
        read_priors(self.priors, RISK)
        if self.unobservables not in UNOBSERVABLES:
            raise ParameterError(f"unobservables={self.unobservables!r}", expected="'uniform' or 'normal'")
        if self.unobservables == "uniform" and (self.alpha != 1.0 or self.sigma is not None):
            raise ParameterError(
                f"alpha={self.alpha!r}, sigma={self.sigma!r} with uniform unobservables",
                expected="alpha=1 and sigma=None: sigma is learned",
                todo="use unobservables='normal' to set one of them",
            )
        for name in self._fixed_scales():
            if self.priors and name in self.priors:
                raise ParameterError(
                    f"priors has {name!r}, which is not learned here", expected="priors of what is learned",
                    todo="uniform unobservables have alpha 1; normal ones learn sigma, or alpha where sigma is given",
                )  # fmt: skip
        if not np.isfinite(self.alpha) or (self.sigma is not None and not self.sigma > 0):
            raise ParameterError(
                f"alpha={self.alpha!r}, sigma={self.sigma!r}", expected="a finite alpha, and sigma above 0 or None"
            )

    def _resolve_roles(
        self, X: Any, treatment: Any, groups: Any, sample_weight: Any, propensity: Any
    ) -> dict[str, Any]:
        """Values of the roles; groups of known prevalence are read here, where labels still are."""
        values = super()._resolve_roles(X, treatment, groups, sample_weight, propensity)
        by_group = is_by_group(self.prevalence)
        self._groups = group_prevalence(X, self.prevalence) if by_group else None  # type: ignore[arg-type]
        self.role_names_ = tuple(sorted({*self.role_names_, *label_columns(X, self.prevalence)}))
        return values

    def _fixed_scales(self) -> tuple[str, ...]:
        """Which of sigma and alpha is not learned."""
        return ("alpha",) if self.unobservables == "uniform" or self.sigma is None else ("sigma",)

    def _priors(self) -> Priors:
        return read_priors(self.priors, RISK)

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        prepared = self._model_data = self._prepare(data)
        form = self._form()
        settings = Settings(self.n_draws, self.n_tune, self.n_chains, seed_of(self.random_state), self.progress)
        sampled = sampling.sample(form.density(), form.arguments(prepared), form.start(prepared), settings)
        self.draws_ = form.coefficients(sampled.flat, prepared)
        self.sampler_diagnostics_ = sampled.diagnostics(vars(self.draws_))
        sampling.warn_if_not_converged(self.sampler_diagnostics_)
        self.sensitivity_ = None if self.prevalence is None else self._sweep(prepared)

    def _form(self) -> UniformForm | NormalForm:
        return form_of(self.unobservables, self.alpha, self.sigma)

    def _prepare(self, data: FitData) -> SelectiveData:
        X, w = data.X, data.sample_weight
        free = free_columns(data.feature_names, self.expertise)
        cell = np.where(data.treatment == 0, 0, np.where(data.y == 1, 2, 1)).astype(np.int64)
        one = self.prevalence is not None and not is_by_group(self.prevalence)
        prevalence = check_figure(self.prevalence) if one else NO_PREVALENCE
        return SelectiveData(self._rows(X), cell, w, free, prevalence, self._priors(), self._groups)

    def _sweep(self, prepared: SelectiveData) -> dict[str, list[float]]:
        """Posterior modes under other prevalences, and a warning where the stated one is at odds with the data."""
        if prepared.groups is not None:
            return self._sweep_groups(prepared)
        swept = sweep.by_prevalence(self._form(), prepared)
        if swept.p_value < sweep.CONFLICT:
            stated, se = prepared.prevalence
            warn(
                f"the prevalence {stated:g} (se {se:g}) is at odds with the data, which imply about "
                f"{swept.implied:.3f} without it (likelihood-ratio test, p = {swept.p_value:.1g}). What to do: check "
                "that it is of the population that these units represent, and look at sensitivity_.",
                DataWarning,
            )
        return swept.columns

    def _sweep_groups(self, prepared: SelectiveData) -> dict[str, list[float]]:
        """The same for prevalences by group; the warning names the group that is furthest from the data."""
        swept = sweep.by_group_prevalence(self._form(), prepared)
        if swept.p_value < sweep.CONFLICT:
            group = sweep.worst_group(self._form(), prepared)
            warn(
                f"prevalences by group at odds with the data (likelihood-ratio test, p = {swept.p_value:.1g}), "
                f"most of all {group.stated:g} (se {group.se:g}) of {group.label}, where the data imply about "
                f"{group.implied:.3f} without any (p = {group.p_value:.1g}). What to do: check that each is of the "
                "population that its units represent, and look at sensitivity_.",
                DataWarning,
            )
        return swept.columns

    # ------------------------------------------------------------------ predictions
    def departure(self, X: Any) -> EffectPosterior:
        r"""Posterior of how far the decision departs from risk at each unit, :math:`x'\beta_\Delta`, in logits.

        Two units of equal risk have equal departures where testing follows risk alone. Where a group's is lower than
        another's, its members are tested less at the same risk: ``model.departure(X).gate(group)`` gives the groups'
        means with their intervals; the coefficients by feature are in the summary.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="departure"``.
        """
        design, index = self._check_predict(X)
        return self._posterior(self._shifts(design), index, "departure")

    def _positive_draws(self, X: FloatArray) -> FloatArray:
        return self._form().positive(self.draws_, self._logits(X))

    def _tested_draws(self, X: FloatArray) -> FloatArray:
        return self._form().tested(self.draws_, self._logits(X), self._shifts(X))

    def _both_draws(self, X: FloatArray) -> FloatArray:
        return self._form().both(self.draws_, self._logits(X), self._shifts(X))

    def _logits(self, X: FloatArray) -> FloatArray:
        return self.draws_.risk @ self._rows(X).T

    def _shifts(self, X: FloatArray) -> FloatArray:
        return self.draws_.decision @ self._rows(X).T

    def to_pymc(self) -> Any:
        r"""Return the model in PyMC with the data of the fit, to be read, plotted, extended and sampled.

        Its parameters are the paper's (``risk`` and ``decision`` for :math:`\beta_Y` and :math:`\beta_\Delta`,
        ``sigma``), Z is integrated out. The fit itself samples a faster density, which equals it
        (:mod:`causalsat.estimators.selective_labels.density`).

        Returns
        -------
        pymc.Model

        Raises
        ------
        DataError
            If the estimator was loaded or copied, which leaves the training data out.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, tested = rng.standard_normal((300, 1)), rng.integers(0, 2, 300)
        >>> y = np.where(tested == 1, rng.random(300) < 0.3, np.nan)
        >>> fitted = SelectiveLabelsRisk(random_state=0).fit(X, y, treatment=tested)
        >>> [variable.name for variable in fitted.to_pymc().free_RVs]
        ['risk', 'sigma', 'departures']
        """
        return self._form().to_pymc(self._fit_data())

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.sampler_diagnostics_)

    def _summary(self) -> Summary:
        names = ["intercept", *self.design_names_]
        scales = np.column_stack([self.draws_.sigma, self.draws_.alpha])
        values = np.hstack([self.draws_.risk, self.draws_.decision, scales])
        labels = [f"risk: {n}" for n in names] + [f"decision beyond risk: {n}" for n in names] + ["sigma", "alpha"]
        table = coefficient_table(values, labels)
        notes = ["coefficients are logits per standard deviation of each feature"]
        notes.append(self._priors().describe(fixed=self._fixed_scales()))
        if self.sensitivity_ is not None:
            by_group = "times_stated" in self.sensitivity_
            scale = "times_stated" if by_group else "prevalence"
            stated = "the prevalences were, times the stated ones," if by_group else "the prevalence were"
            notes.append(
                f"risk of the untested at the posterior mode if {stated} "
                + sweep.sweep_text(self.sensitivity_, scale, "untested_risk")
            )
        fixed = np.ptp(values, axis=0) == 0
        if fixed.any():
            notes.append("what has a standard deviation of 0 is fixed: by expertise, or by alpha= or sigma=")
        return Summary("SelectiveLabelsRisk", table, {**self._diagnostics(), "units": self.n_units_}, tuple(notes))
