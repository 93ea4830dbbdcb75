"""What the posterior mode says under other prevalences, and which prevalence the data imply without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators._selective_density import NO_PREVALENCE, SelectiveData
from causalsat.estimators._selective_forms import NormalForm, UniformForm
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


def by_prevalence(form: UniformForm | NormalForm, data: SelectiveData, prevalences: Sequence[float]) -> Sweep:
    """Posterior modes with the stated standard error and each prevalence in turn."""
    p, all_risk, untested_risk, sigma = [], [], [], []
    start = form.start(data)
    for value in prevalences:
        if not 0 < value < 1:
            continue
        posed = replace(data, prevalence=(float(value), data.prevalence[1]))
        start = laplace(form.density(), form.arguments(posed), start).mode
        found = form.coefficients(start[None], data)
        risk, shift = found.risk @ data.X.T, found.decision @ data.X.T
        positive, tested = form.positive(found, risk), form.tested(found, risk, shift)
        both = form.both(found, risk, shift)
        untested = data.cell == 0
        given = (positive - both)[0, untested] / (1.0 - tested)[0, untested]
        p.append(float(value))
        all_risk.append(float(np.average(positive[0], weights=data.weight)))
        untested_risk.append(float(np.average(given, weights=data.weight[untested])))
        sigma.append(float(found.sigma[0]))
    return Sweep(p, all_risk, untested_risk, sigma)


def implied_prevalence(form: UniformForm | NormalForm, data: SelectiveData) -> tuple[float, float]:
    """Mean of Y and its standard error that the data imply without a prevalence, by the Laplace approximation."""
    free = replace(data, prevalence=NO_PREVALENCE)
    found = laplace(form.density(), form.arguments(free), form.start(free))
    z = np.random.default_rng(0).standard_normal((LAPLACE_DRAWS, len(found.mode)))
    draws = form.coefficients(found.mode + z @ found.factor.T, data)
    some = np.linspace(0, len(data.X) - 1, min(len(data.X), 1000)).astype(int)
    rows, weight = data.X[some], data.weight[some]
    positive = form.positive(draws, draws.risk @ rows.T)
    means = positive @ (weight / weight.sum())
    return float(means.mean()), float(means.std())
