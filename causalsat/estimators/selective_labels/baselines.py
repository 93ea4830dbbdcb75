"""What is usually done with selectively observed outcomes: two baselines to compare SelectiveLabelsRisk with."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.base import Summary
from causalsat.core.inputs import FitData, FloatArray, check_whole_numbers
from causalsat.estimators.selective_labels import sample as sampling
from causalsat.estimators.selective_labels.priors import COEFFICIENT
from causalsat.inference.chains import Settings, seed_of, worst_summary
from causalsat.posterior import coefficient_table
from causalsat.risk_base import RiskEstimator

__all__ = ["TestedOnlyRisk", "UntestedNegativeRisk"]


def logistic_density(x: FloatArray, rows: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[float, FloatArray]:
    """Log posterior density of a logistic regression with N(0, 3^2) priors, and its gradient."""
    eta = rows @ x
    tail = np.exp(-np.abs(eta))
    p = np.where(eta >= 0, 1.0, tail) / (1.0 + tail)
    value = weight @ (y * eta - np.maximum(eta, 0.0) - np.log1p(tail)) - 0.5 * x @ x / COEFFICIENT[1] ** 2
    return float(value), (weight * (y - p)) @ rows - x / COEFFICIENT[1] ** 2


class _LogisticRisk(RiskEstimator):
    """Two Bayesian logistic regressions: of the outcome in some form, and of the decision."""

    _contract_parameters: ClassVar[dict[str, Any]] = {"n_draws": 100, "n_tune": 100, "n_chains": 2, "random_state": 0}

    def __init__(
        self,
        *,
        n_draws: int = 500,
        n_tune: int = 200,
        n_chains: int = 4,
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        self.n_draws = n_draws
        self.n_tune = n_tune
        self.n_chains = n_chains
        self.random_state = random_state
        self.progress = progress

    def _check_parameters(self) -> None:
        check_whole_numbers(self, {"n_draws": 1, "n_tune": 50, "n_chains": 1})

    @abstractmethod
    def _used(self, data: FitData) -> NDArray[np.bool_]:
        """Mask of the units whose outcome is used; what is missing there is 0."""

    def _fit(self, data: FitData) -> None:
        X, w = data.X, data.sample_weight
        rows, used = self._rows(X), self._used(data)
        seed = seed_of(self.random_state)
        sampled = {}
        for name, units, values in (("risk", used, data.y), ("decision", np.ones(len(X), bool), data.treatment)):
            settings = Settings(self.n_draws, self.n_tune, self.n_chains, seed, self.progress)
            arguments = (np.ascontiguousarray(rows[units]), values[units], w[units])
            sampled[name] = sampling.sample(logistic_density, arguments, np.zeros(rows.shape[1]), settings)
        self.risk_draws_, self.decision_draws_ = sampled["risk"].flat, sampled["decision"].flat
        self.sampler_diagnostics_ = worst_summary(
            [chains.diagnostics({name: chains.flat}) for name, chains in sampled.items()]
        )
        sampling.warn_if_not_converged(self.sampler_diagnostics_)

    def _positive_draws(self, X: FloatArray) -> FloatArray:
        from scipy.special import expit

        return np.asarray(expit(self.risk_draws_ @ self._rows(X).T))

    def _tested_draws(self, X: FloatArray) -> FloatArray:
        from scipy.special import expit

        return np.asarray(expit(self.decision_draws_ @ self._rows(X).T))

    def _both_draws(self, X: FloatArray) -> FloatArray:
        return self._positive_draws(X) * self._tested_draws(X)

    def _diagnostics(self) -> dict[str, Any]:
        return dict(self.sampler_diagnostics_)

    def _summary(self) -> Summary:
        names = ["intercept", *self.design_names_]
        values = np.hstack([self.risk_draws_, self.decision_draws_])
        table = coefficient_table(values, [f"risk: {n}" for n in names] + [f"decision: {n}" for n in names])
        diagnostics = {**self._diagnostics(), "units": self.n_units_}
        return Summary(type(self).__name__, table, diagnostics, ("logits per standard deviation of each feature",))


class TestedOnlyRisk(_LogisticRisk):
    """Baseline: a Bayesian logistic regression on the tested units, applied to all.

    It takes the untested for the tested of the same features, although decision makers saw more than the features:
    where the decision follows risk, it overstates the risk of the untested. ``given=`` changes nothing.

    Parameters
    ----------
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws a chain, and chains; only NUTS tunes.
    random_state : int, RandomState or None
        Seed.
    progress : bool
        Show the sampler's progress bar.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 1))
    >>> tested = rng.integers(0, 2, 500)
    >>> y = np.where(tested == 1, rng.random(500) < 0.3, np.nan)
    >>> model = TestedOnlyRisk(random_state=0).fit(X, y, treatment=tested)
    >>> bool(abs(model.predict_proba(X)[:, 1].mean() - 0.3) < 0.08)
    True
    """

    __test__ = False  # not a test, whatever its name makes pytest think

    def _used(self, data: FitData) -> NDArray[np.bool_]:
        return data.treatment == 1


class UntestedNegativeRisk(_LogisticRisk):
    """Baseline: a Bayesian logistic regression that takes every untested unit for a negative.

    It understates the risk of whoever is rarely tested. Its risk is that of being found positive; ``given=`` changes
    nothing.

    Parameters
    ----------
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws a chain, and chains; only NUTS tunes.
    random_state : int, RandomState or None
        Seed.
    progress : bool
        Show the sampler's progress bar.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 1))
    >>> tested = rng.integers(0, 2, 500)
    >>> y = np.where(tested == 1, rng.random(500) < 0.3, np.nan)
    >>> model = UntestedNegativeRisk(random_state=0).fit(X, y, treatment=tested)
    >>> bool(abs(model.predict_proba(X)[:, 1].mean() - 0.15) < 0.05)
    True
    """

    def _used(self, data: FitData) -> NDArray[np.bool_]:
        return np.ones(len(data.y), dtype=bool)
