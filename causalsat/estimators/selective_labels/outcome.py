"""A continuous outcome seen only where a past decision looked: Heckman's selection model, Bayesian, constrained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin

from causalsat.base import Summary
from causalsat.core import memory
from causalsat.core.inputs import FitData, FloatArray, check_whole_numbers
from causalsat.core.warn import warn
from causalsat.estimators.selective_labels import heckman, sweep
from causalsat.estimators.selective_labels import sample as sampling
from causalsat.estimators.selective_labels.density import free_columns
from causalsat.estimators.selective_labels.model import build_heckman_model
from causalsat.estimators.selective_labels.priors import OUTCOME, Priors, read_priors
from causalsat.exceptions import DataError, DataWarning, ParameterError
from causalsat.inference.chains import Settings, seed_of
from causalsat.posterior import EffectPosterior, coefficient_table
from causalsat.risk_base import GIVEN, SelectiveEstimator

__all__ = ["SelectiveLabelsOutcome"]


class SelectiveLabelsOutcome(RegressorMixin, SelectiveEstimator):  # type: ignore[misc]
    r"""Mean of a continuous outcome for all units, where a past decision let it be seen of some only.

    Yields measured where an officer went, incomes of those who answered, prices of what was sold. Heckman's selection
    model (1979), with the domain constraints of Balachandar, Garg and Pierson (2024, appendix B):

    .. math:: Y = x'\beta_Y + Z,\quad T = 1[x'\beta_T + e > 0],\quad
              (Z, e) \sim N\left(0, \begin{pmatrix} \sigma^2 & r \sigma \\ r \sigma & 1 \end{pmatrix}\right)

    with Y seen where T = 1. :math:`\beta_\Delta = \beta_T - (r / \sigma) \beta_Y` is where the decision departs from
    the outcome. If all features may enter it, r rests on normality alone; a feature on which the decision depends but
    the outcome does not, a known population mean, or ``expertise`` makes it sharper.

    Parameters
    ----------
    mean : (float, float) or None
        Mean of Y in the population that the units represent, and its standard error. A wrong figure with a small
        standard error spoils the fit: every fit with a mean computes ``sensitivity_`` and warns where data and mean
        are at odds.
    expertise : sequence of str or int, or None
        The features on which the decision may depend beyond the outcome; along all others :math:`\beta_\Delta = 0`.
        Names, glob patterns or positions; an empty list for none. None: no constraint.
    priors : dict of str to float or (float, float), or None
        Priors other than those of the notes, by name: ``outcome`` and ``decision`` (the coefficients of the features
        in :math:`\beta_Y` and :math:`\beta_\Delta`), ``outcome_intercept``, ``decision_intercept``: a standard
        deviation around 0, or (mean, standard deviation), of a normal; ``sigma``: the scale of a half-normal;
        ``correlation``: eta of (1 - r^2)^(eta - 1). Per standard deviation of a feature, the outcome in standard
        deviations of the tested around their mean. The summary shows all that are in force.
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws a chain, and chains; only NUTS tunes.
    random_state : int, RandomState or None
        Seed.
    progress : bool
        Show the sampler's progress bar.

    Attributes
    ----------
    draws_ : HeckmanDraws
        Posterior draws: ``outcome`` (draw, p + 1) and ``decision`` (draw, p + 1), the coefficients of :math:`\beta_Y`
        and :math:`\beta_T` per standard deviation of each feature, intercept first; ``sigma`` and ``correlation``
        (draw,). ``outcome`` and ``sigma`` are in the units of y.
    sensitivity_ : dict of str to list, or None
        With a mean: what the posterior mode says if it were up to 0.2 standard deviations of the tested off, and the
        p-value of each, how consistent it is with the data (a likelihood-ratio test; small: it is not).

    Notes
    -----
    Priors, with y in standard deviations of the tested: coefficients N(0, 3^2), sigma half-normal(3), r uniform,
    unless ``priors`` says otherwise. Sampled as :class:`SelectiveLabelsRisk` is.

    References
    ----------
    Heckman, J. J. (1979). Sample selection bias as a specification error. Econometrica 47. Balachandar, S., Garg, N.
    and Pierson, E. (2024). Domain constraints improve risk prediction when outcome data is missing. ICLR. arXiv
    2312.03878.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((2000, 2))
    >>> e = rng.standard_normal(2000)
    >>> yields = 3 + X[:, 0] + 0.8 * e + 0.6 * rng.standard_normal(2000)
    >>> seen = X[:, 0] + X[:, 1] + e > 0
    >>> model = SelectiveLabelsOutcome(random_state=0)
    >>> model = model.fit(X, np.where(seen, yields, np.nan), treatment=seen.astype(int))
    >>> naive, ours = yields[seen].mean(), float(model.outcome(X).ate())
    >>> bool(naive > 3.4), bool(abs(ours - 3) < 0.15)
    (True, True)
    """

    _contract_parameters: ClassVar[dict[str, Any]] = {"n_draws": 100, "n_tune": 100, "n_chains": 2, "random_state": 0}

    def __init__(
        self,
        *,
        mean: tuple[float, float] | None = None,
        expertise: Sequence[str] | Sequence[int] | None = None,
        priors: Mapping[str, Any] | None = None,
        n_draws: int = 500,
        n_tune: int = 300,
        n_chains: int = 4,
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        self.mean = mean
        self.expertise = expertise
        self.priors = priors
        self.n_draws = n_draws
        self.n_tune = n_tune
        self.n_chains = n_chains
        self.random_state = random_state
        self.progress = progress

    # ------------------------------------------------------------------ checks
    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_draws": 1, "n_tune": 50, "n_chains": 1})
        if self.mean is not None:
            _check_mean(self.mean)
        read_priors(self.priors, OUTCOME)

    def _priors(self) -> Priors:
        return read_priors(self.priors, OUTCOME)

    def _check_outcome(self, y: Any, treatment: Any, n: int) -> FloatArray:
        values = super()._check_outcome(y, treatment, n)
        seen = values[np.asarray(treatment, dtype=float) == 1]
        if np.isinf(seen).any():
            raise DataError(f"the outcome y is infinite (inf) for {int(np.isinf(seen).sum())} units",
                            expected="finite outcomes of the tested", todo="drop those units")  # fmt: skip
        if np.ptp(seen) == 0:
            raise DataError(
                f"every tested unit has the outcome {seen[0]:g}", expected="outcomes that vary among the tested"
            )
        return values

    # ------------------------------------------------------------------ fit
    def _fit(self, data: FitData) -> None:
        tested = data.treatment == 1
        weight = data.sample_weight[tested]
        centre = float(np.average(data.y[tested], weights=weight))
        scale = float(np.sqrt(np.average((data.y[tested] - centre) ** 2, weights=weight)))
        known = heckman.NO_PREVALENCE
        if self.mean is not None:
            m, se = _check_mean(self.mean)
            known = ((m - centre) / scale, se / scale)
        prepared = self._model_data = heckman.HeckmanData(
            self._rows(data.X), np.where(tested, (data.y - centre) / scale, 0.0), tested, data.sample_weight,
            free_columns(data.feature_names, self.expertise), known, self._priors(),
        )  # fmt: skip
        settings = Settings(self.n_draws, self.n_tune, self.n_chains, seed_of(self.random_state), self.progress)
        sampled = sampling.sample(heckman.log_density, (prepared,), heckman.starting_point(prepared), settings)
        draws = heckman.unpack(sampled.flat, prepared.X.shape[1], prepared.free)
        outcome = draws.outcome * scale
        outcome[:, 0] += centre
        self.departures_ = draws.departure  # of the outcome in standard deviations around its mean among the tested
        self.draws_ = heckman.HeckmanDraws(outcome, draws.decision, draws.sigma * scale, draws.correlation)
        self.sampler_diagnostics_ = sampled.diagnostics(vars(self.draws_))
        sampling.warn_if_not_converged(self.sampler_diagnostics_)
        self.sensitivity_ = None if self.mean is None else self._sweep(prepared, centre, scale)

    def _sweep(self, prepared: Any, centre: float, scale: float) -> dict[str, list[float]]:
        """Posterior modes under other means, and a warning where the stated one is at odds with the data."""
        swept = sweep.by_mean(prepared)
        if swept.p_value < sweep.CONFLICT:
            m, se = _check_mean(self.mean)
            warn(
                f"the mean {m:g} (se {se:g}) is at odds with the data, which imply about "
                f"{centre + scale * swept.implied:.4g} without it (likelihood-ratio test, p = {swept.p_value:.1g}). "
                "What to do: check that it is of the population that these units represent, and look at "
                "sensitivity_.",
                DataWarning,
            )
        of_y = {"mean": centre, "mean_outcome": centre, "untested_outcome": centre, "sigma": 0.0}
        return {
            name: [of_y[name] + scale * v for v in values] if name in of_y else values
            for name, values in swept.columns.items()
        }

    # ------------------------------------------------------------------ predictions
    def outcome(self, X: Any, *, given: str | None = None) -> EffectPosterior:
        """Posterior of the mean outcome at each unit, in the units of y.

        Parameters
        ----------
        X : array, DataFrame, GeoDataFrame or DataArray of shape (n, p)
            Features, as in :meth:`fit`.
        given : {None, "tested", "untested"}
            What is known of the decision: nothing, E(Y | x), or what it was, E(Y | x, T).

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="outcome"``.
        """
        if given not in GIVEN:
            raise ParameterError(f"given={given!r}", expected="None, 'tested' or 'untested'")
        design, index = self._check_predict(X)
        rows, fitted = self._rows(design), self.draws_
        draws = fitted.outcome @ rows.T
        if given is not None:
            sign = 1.0 if given == "tested" else -1.0
            mills = heckman.log_normal_cdf(sign * (fitted.decision @ rows.T))[1]
            draws = draws + sign * (fitted.correlation * fitted.sigma)[:, None] * mills
        return self._posterior(draws, index, "outcome")

    def predict(self, X: Any) -> FloatArray:
        """Posterior mean of the outcome of each unit, tested or not, shape (n,)."""
        if memory.number_of_rows(X) <= memory.WHOLE_ROWS:
            return np.asarray(self.outcome(X).mean(), dtype=float)
        return np.concatenate([part.mean() for part in memory.in_chunks(X, lambda part, _: self.outcome(part))])

    def departure(self, X: Any) -> EffectPosterior:
        r"""Posterior of how far the decision departs from the outcome, :math:`x'\beta_\Delta`, in probits.

        Returns
        -------
        EffectPosterior
            Draws of shape (draw, n), ``kind="departure"``.
        """
        design, index = self._check_predict(X)
        return self._posterior(self.departures_ @ self._rows(design).T, index, "departure")

    def score(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | str | None = None,
        *,
        treatment: ArrayLike | str | None = None,
    ) -> float:
        """Mean log predictive density of what was seen, decision and outcome together; higher is better.

        Raises
        ------
        TreatmentError
            If no treatment is given and ``fit`` was not given a column's name.
        """
        from scipy.special import logsumexp

        design, t, values, weight = self._check_score(X, y, treatment, sample_weight)
        rows, fitted = self._rows(design), self.draws_
        sigma, r = fitted.sigma[:, None], fitted.correlation[:, None]
        e = (values - fitted.outcome @ rows.T) / sigma
        score = fitted.decision @ rows.T
        inside = np.where(t == 1, (score + r * e) / np.sqrt(1 - r**2), -score)
        density = heckman.log_normal_cdf(inside)[0] - t * (np.log(sigma) + 0.5 * e**2 + 0.5 * np.log(2 * np.pi))
        return float(np.average(logsumexp(density, axis=0) - np.log(len(density)), weights=weight))

    def _trial_draws(self, design: FloatArray) -> Iterable[FloatArray]:
        yield from super()._trial_draws(design)
        yield self.draws_.outcome @ self._rows(design).T
        yield self.departures_ @ self._rows(design).T

    def _tested_draws(self, X: FloatArray) -> FloatArray:
        from scipy.special import ndtr

        return np.asarray(ndtr(self.draws_.decision @ self._rows(X).T))

    def to_pymc(self) -> Any:
        r"""Return the model in PyMC with the data of the fit, to be read, plotted, extended and sampled.

        The outcome is in standard deviations of the tested around their mean. The fit itself samples a faster
        density, which equals it (:mod:`causalsat.estimators.selective_labels.heckman`).

        Returns
        -------
        pymc.Model

        Raises
        ------
        DataError
            If the estimator was loaded or copied, which leaves the training data out.
        """
        return build_heckman_model(self._fit_data())

    # ------------------------------------------------------------------ reports
    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.sampler_diagnostics_)

    def _summary(self) -> Summary:
        names = ["intercept", *self.design_names_]
        draws = self.draws_
        scales = np.column_stack([draws.sigma, draws.correlation])
        values = np.hstack([draws.outcome, self.departures_, scales])
        labels = [f"outcome: {n}" for n in names] + [f"decision beyond it: {n}" for n in names]
        table = coefficient_table(values, [*labels, "sigma", "correlation"])
        notes = [
            "coefficients per standard deviation of each feature: of the outcome in its units, of the decision in "
            "probits",
            self._priors().describe() + " (of the outcome: in standard deviations of the tested around their mean)",
        ]
        if self.sensitivity_ is not None:
            swept = sweep.sweep_text(self.sensitivity_, "mean", "untested_outcome")
            notes.append(f"outcome of the untested at the posterior mode if the mean were {swept}")
        diagnostics = {**self._diagnostics(), "units": self.n_units_}
        return Summary("SelectiveLabelsOutcome", table, diagnostics, tuple(notes))


def _check_mean(value: Any) -> tuple[float, float]:
    try:
        m, se = (float(v) for v in value)
    except (TypeError, ValueError):
        m, se = np.nan, np.nan
    if not (np.isfinite(m) and 0 < se < np.inf):
        raise ParameterError(
            f"mean={value!r}",
            expected="(m, se): the population's mean outcome and its standard error",
            todo="a census figure without an error still has one: say how far off it may be",
        )
    return m, se
