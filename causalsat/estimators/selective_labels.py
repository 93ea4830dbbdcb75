"""Risk when only some were tested: Bayesian models with domain constraints, and the two usual baselines."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from causalsat._inputs import FitData, FloatArray
from causalsat._risk_base import RiskEstimator
from causalsat._table_estimator import Summary
from causalsat.estimators import _selective_density as density
from causalsat.estimators._columns import select_columns
from causalsat.exceptions import DataWarning, ParameterError
from causalsat.posterior import EffectPosterior

__all__ = ["SelectiveLabelsRisk"]

SWEEP = (0.8, 0.9, 1.0, 1.1, 1.2)
CONFLICT = 3.0  # standard errors between a stated prevalence and what the data imply, from which to warn


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
    prevalence : (float, float) or None
        Mean of Y in the population that the units represent, and its standard error. A wrong figure with a small
        standard error spoils the fit and nothing else in it shows: see ``sensitivity_``, which every fit with a
        prevalence computes, and :meth:`sensitivity`.
    expertise : sequence of str or int, or None
        The features on which the decision may depend beyond risk; along all others the decision makers are taken to
        be experts, :math:`\beta_\Delta = 0`. Names, glob patterns or positions; an empty list for none. None: no
        constraint. The intercept is always free.
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws a chain, and chains.
    random_state : int, RandomState or None
        Seed.
    progress : bool
        Show the sampler's progress bar.

    Attributes
    ----------
    draws_ : Coefficients
        Posterior draws: ``risk`` (draw, p + 1) and ``decision`` (draw, p + 1), the coefficients of
        :math:`\beta_Y` and :math:`\beta_\Delta` per standard deviation of each feature, intercept first; ``sigma``
        (draw,).
    sensitivity_ : dict of str to list, or None
        With a prevalence: what the posterior mode says if the prevalence were 0.8 to 1.2 times the stated one.

    Notes
    -----
    Priors: all coefficients N(0, 3^2) for standardised features, sigma half-normal(3). Z is integrated out exactly
    and sigma, the only poorly determined direction, is separated from the coefficients
    (:mod:`causalsat.estimators._selective_density`); nutpie's NUTS samples what is left from the posterior mode, in
    the coordinates of its curvature.

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

    _contract_parameters: ClassVar[dict[str, Any]] = {"n_draws": 100, "n_tune": 100, "n_chains": 2, "random_state": 0}

    def __init__(
        self,
        *,
        prevalence: tuple[float, float] | None = None,
        expertise: Sequence[str] | Sequence[int] | None = None,
        n_draws: int = 500,
        n_tune: int = 300,
        n_chains: int = 4,
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        self.prevalence = prevalence
        self.expertise = expertise
        self.n_draws = n_draws
        self.n_tune = n_tune
        self.n_chains = n_chains
        self.random_state = random_state
        self.progress = progress

    # ------------------------------------------------------------------ checks
    def _check_parameters(self) -> None:
        for name, least in (("n_draws", 1), ("n_tune", 50), ("n_chains", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ParameterError(f"{name}={value!r}", expected=f"an integer of at least {least}")
        if self.prevalence is not None:
            _check_prevalence(self.prevalence)

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        from causalsat.estimators import _selective_sample as sampling

        prepared = self._prepare(data)
        start = density.starting_point(prepared)
        settings = sampling.Settings(
            self.n_draws, self.n_tune, self.n_chains, sampling.seed_of(self.random_state), self.progress
        )
        draws, divergences = sampling.sample_whitened(density.log_density, prepared.as_tuple(), start, settings)
        flat = draws.reshape(-1, draws.shape[2])
        self.draws_ = density.coefficients(flat, prepared.X.shape[1], prepared.free)
        chains = {
            name: values.reshape(*draws.shape[:2], -1)
            for name, values in (
                ("risk", self.draws_.risk),
                ("decision", self.draws_.decision),
                ("sigma", self.draws_.sigma),
            )
        }
        self.sampler_diagnostics_ = sampling.convergence(chains, divergences)
        sampling.warn_if_not_converged(self.sampler_diagnostics_)
        self.sensitivity_ = None if self.prevalence is None else self._sweep(prepared)

    def _prepare(self, data: FitData) -> density.SelectiveData:
        X, w = data.X, data.sample_weight
        self.feature_mean_ = np.average(X, axis=0, weights=w)
        sd = np.sqrt(np.average((X - self.feature_mean_) ** 2, axis=0, weights=w))
        self.feature_sd_ = np.where(sd > 1e-12 * np.maximum(1.0, np.abs(self.feature_mean_)), sd, 1.0)
        free = np.arange(X.shape[1] + 1, dtype=np.int64)
        if self.expertise is not None:
            named = list(self.expertise) if not isinstance(self.expertise, str) else [self.expertise]
            free = np.zeros(1, dtype=np.int64)
            if named:
                free = np.append(free, 1 + select_columns(data.feature_names, named, role="expertise"))
        cell = np.where(data.treatment == 0, 0, np.where(data.y == 1, 2, 1)).astype(np.int64)
        prevalence = density.NO_PREVALENCE if self.prevalence is None else _check_prevalence(self.prevalence)
        return density.SelectiveData(self._rows(X), cell, w, free, prevalence)

    def _rows(self, X: FloatArray) -> FloatArray:
        return np.column_stack([np.ones(len(X)), (X - self.feature_mean_) / self.feature_sd_])

    def _sweep(self, prepared: density.SelectiveData) -> dict[str, list[float]]:
        """Posterior modes under other prevalences, and a warning where the stated one is at odds with the data."""
        from causalsat.estimators import _selective_sweep as sweep

        stated, se = prepared.prevalence
        implied, implied_se = sweep.implied_prevalence(prepared)
        distance = abs(stated - implied) / np.hypot(se, implied_se)
        if distance > CONFLICT:
            warnings.warn(
                f"the prevalence {stated:g} (se {se:g}) is {distance:.1f} standard errors from {implied:.3f} (se "
                f"{implied_se:.3f}), which the data imply without it. What to do: check that it is of the population "
                "that these units represent, and look at sensitivity_.",
                DataWarning,
                stacklevel=5,
            )
        return sweep.by_prevalence(prepared, [stated * share for share in SWEEP]).to_columns()

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
        return density.positive_probability(self._logits(X), self.draws_.sigma)  # type: ignore[no-any-return]

    def _tested_draws(self, X: FloatArray) -> FloatArray:
        shifted = self._logits(X) + self._shifts(X)
        return density.positive_probability(shifted, self.draws_.sigma)  # type: ignore[no-any-return]

    def _both_draws(self, X: FloatArray) -> FloatArray:
        return density.both_probability(  # type: ignore[no-any-return]
            self._logits(X), self._shifts(X), self.draws_.sigma
        )

    def _logits(self, X: FloatArray) -> FloatArray:
        return self.draws_.risk @ self._rows(X).T

    def _shifts(self, X: FloatArray) -> FloatArray:
        return self.draws_.decision @ self._rows(X).T

    # ------------------------------------------------------------------ what follows
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.sampler_diagnostics_)

    def _summary(self) -> Summary:
        import pandas as pd

        names = ["intercept", *self.design_names_]
        values = np.hstack([self.draws_.risk, self.draws_.decision, self.draws_.sigma[:, None]])
        labels = [f"risk: {n}" for n in names] + [f"decision beyond risk: {n}" for n in names] + ["sigma"]
        lower, upper = np.quantile(values, [0.025, 0.975], axis=0)
        table = pd.DataFrame(
            {"mean": values.mean(axis=0), "sd": values.std(axis=0, ddof=1), "[0.025": lower, "0.975]": upper},
            index=labels,
        )
        notes = ["coefficients are logits per standard deviation of each feature"]
        if self.sensitivity_ is not None:
            notes.append(
                "risk of the untested at the posterior mode if the prevalence were "
                + ", ".join(
                    f"{p:.3g}: {r:.3f}"
                    for p, r in zip(self.sensitivity_["prevalence"], self.sensitivity_["untested_risk"], strict=True)
                )
            )
        fixed = values.std(axis=0) == 0
        if fixed.any():
            notes.append("a coefficient of exactly 0 is fixed by the expertise constraint")
        return Summary("SelectiveLabelsRisk", table, {**self._diagnostics(), "units": self.n_units_}, tuple(notes))


def _check_prevalence(value: Any) -> tuple[float, float]:
    try:
        p, se = (float(v) for v in value)
    except (TypeError, ValueError):
        raise ParameterError(
            f"prevalence={value!r}",
            expected="(p, se): the population's mean outcome and its standard error",
            todo="a census figure without an error still has one: say how far off it may be",
        ) from None
    if not 0 < p < 1 or not 0 < se < 1:
        raise ParameterError(f"prevalence={value!r}", expected="p between 0 and 1 and a positive standard error")
    return p, se
