"""What the posterior mode says under other prevalences, and which prevalence the data imply without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators import _selective_density as density
from causalsat.estimators._selective_density import SelectiveData
from causalsat.estimators._selective_sample import laplace

FloatArray = NDArray[np.float64]

LAPLACE_DRAWS = 400


@dataclass(frozen=True)
class Sweep:
    """One row a prevalence: mean risk of all, of the untested, sigma, all at the posterior mode."""

    prevalence: list[float]
    mean_risk: list[float]
    untested_risk: list[float]
    sigma: list[float]

    def to_columns(self) -> dict[str, list[float]]:
        """Columns of a table."""
        return dict(vars(self))


def by_prevalence(data: SelectiveData, prevalences: Sequence[float]) -> Sweep:
    """Posterior modes with the stated standard error and each prevalence in turn."""
    p, all_risk, untested_risk, sigma = [], [], [], []
    start = density.starting_point(data)
    for value in prevalences:
        if not 0 < value < 1:
            continue
        posed = replace(data, prevalence=(float(value), data.prevalence[1]))
        start = laplace(density.log_density, posed.as_tuple(), start).mode
        found = density.coefficients(start[None], data.X.shape[1], data.free)
        logit, shift = found.risk @ data.X.T, found.decision @ data.X.T
        positive, tested = (density.positive_probability(v, found.sigma) for v in (logit, logit + shift))
        both = density.both_probability(logit, shift, found.sigma)
        untested = data.cell == 0
        given = (positive - both)[0, untested] / (1.0 - tested)[0, untested]
        p.append(float(value))
        all_risk.append(float(np.average(positive[0], weights=data.weight)))
        untested_risk.append(float(np.average(given, weights=data.weight[untested])))
        sigma.append(float(found.sigma[0]))
    return Sweep(p, all_risk, untested_risk, sigma)


def implied_prevalence(data: SelectiveData) -> tuple[float, float]:
    """Mean of Y and its standard error that the data imply without a prevalence, by the Laplace approximation."""
    free = replace(data, prevalence=density.NO_PREVALENCE)
    found = laplace(density.log_density, free.as_tuple(), density.starting_point(free))
    z = np.random.default_rng(0).standard_normal((LAPLACE_DRAWS, len(found.mode)))
    draws = density.coefficients(found.mode + z @ found.factor.T, data.X.shape[1], data.free)
    some = np.linspace(0, len(data.X) - 1, min(len(data.X), 1000)).astype(int)
    rows, weight = data.X[some], data.weight[some]
    positive = density.positive_probability(draws.risk @ rows.T, draws.sigma)
    means = positive @ (weight / weight.sum())
    return float(means.mean()), float(means.std())
