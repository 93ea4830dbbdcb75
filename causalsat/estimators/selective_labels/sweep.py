"""What the posterior mode says under other prevalences or means, and how consistent each is with the data.

A stated prevalence is one more measurement of what the model implies. If it is consistent with data and model, it
costs little: twice the fall of the log posterior density at its mode, measurement included, is close to chi-squared
with one degree of freedom (a likelihood-ratio test, Wilks 1938, of the likelihood with its priors). Unlike a distance
in standard errors it does not take the posterior for normal, which it is not: that of a prevalence ends where the
positives seen do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.selective_labels import heckman
from causalsat.estimators.selective_labels.density import NO_PREVALENCE, SelectiveData
from causalsat.estimators.selective_labels.forms import NormalForm, UniformForm
from causalsat.estimators.selective_labels.prevalence import GroupPrevalence
from causalsat.estimators.selective_labels.sample import find_mode

FloatArray = NDArray[np.float64]

CONFLICT = 0.01  # p-value below which a stated prevalence or mean is at odds with the data
SHARES = (0.8, 0.9, 1.0, 1.1, 1.2)  # of the stated prevalence
SHIFTS = (-0.2, -0.1, 0.0, 0.1, 0.2)  # of the stated mean, in standard deviations of the tested


@dataclass(frozen=True)
class Sweep:
    """One row a value of the prevalence or mean.

    Attributes
    ----------
    columns : dict of str to list of float
        ``p_value``, how consistent the value is with the data, and what the posterior mode says if it is true.
    stated : int
        Row of the value that was stated.
    implied : float
        Value at the mode of the posterior without it.
    """

    columns: dict[str, list[float]]
    stated: int
    implied: float

    @property
    def p_value(self) -> float:
        """P-value of the stated value."""
        return self.columns["p_value"][self.stated]


def sweep_text(columns: Mapping[str, Sequence[float]], value: str, answer: str) -> str:
    """Text of two columns of a sweep with the p-value of each row."""
    rows = zip(columns[value], columns[answer], columns["p_value"], strict=True)
    return ", ".join(f"{v:.3g}: {a:.3f} (p {p:.2g})" for v, a, p in rows)


@dataclass(frozen=True)
class _Peak:
    mode: FloatArray
    height: float


def _peak(density: Callable[..., Any], arguments: tuple[Any, ...], start: FloatArray) -> _Peak:
    mode = find_mode(density, arguments, start)
    return _Peak(mode, float(density(mode, *arguments)[0]))


def _sweep(
    names: Sequence[str],
    values: Sequence[float],
    stated: float,
    free: _Peak,
    told: Callable[[float], _Peak],
    means: Callable[[FloatArray], tuple[float, ...]],
    n_stated: int = 1,
) -> Sweep:
    """A row a value of ``n_stated`` figures; ``told`` finds the mode under a value.

    ``means`` is what a mode says, the overall mean first.
    """
    from scipy.stats import chi2

    columns: dict[str, list[float]] = {name: [] for name in (names[0], "p_value", *names[1:])}
    for value in values:
        peak = told(value)
        p = float(chi2.sf(max(2.0 * (free.height - peak.height), 0.0), n_stated))
        for name, number in zip(columns, (value, p, *means(peak.mode)), strict=True):
            columns[name].append(float(number))
    return Sweep(columns, list(values).index(stated), means(free.mode)[0])


def by_prevalence(form: UniformForm | NormalForm, data: SelectiveData) -> Sweep:
    """Posterior modes if the prevalence were 0.8 to 1.2 times the stated one, with the same standard error."""
    stated, se = data.prevalence
    density, free = form.density(), _free_peak(form, data)
    return _sweep(
        ("prevalence", "mean_risk", "untested_risk", "sigma"),
        [stated * share for share in SHARES if stated * share < 1],
        stated,
        free,
        lambda value: _peak(density, form.arguments(replace(data, prevalence=(value, se))), free.mode),
        lambda mode: _mean_risks(form, data, mode),
    )


@dataclass(frozen=True)
class GroupFinding:
    """How consistent a group's stated prevalence is with the data, without those of the others.

    Attributes
    ----------
    label : str
        The group.
    stated, se, implied, p_value : float
        Its prevalence and standard error, what data and model imply without any, and the p-value of the stated one.
    """

    label: str
    stated: float
    se: float
    implied: float
    p_value: float


def by_group_prevalence(form: UniformForm | NormalForm, data: SelectiveData) -> Sweep:
    """Posterior modes if the prevalences of all groups were 0.8 to 1.2 times the stated ones."""
    groups = _groups(data)
    density, free = form.density(), _free_peak(form, data)

    def told(share: float) -> _Peak:
        return _peak(density, form.arguments(replace(data, groups=groups.scaled(share))), free.mode)

    shares = [share for share in SHARES if groups.known[:, 0].max() * share < 1]
    names = ("times_stated", "mean_risk", "untested_risk", "sigma")
    return _sweep(names, shares, 1.0, free, told, lambda mode: _mean_risks(form, data, mode), len(groups.labels))


def worst_group(form: UniformForm | NormalForm, data: SelectiveData) -> GroupFinding:
    """The group whose stated prevalence is least consistent with the data, each judged without the others."""
    from scipy.stats import chi2

    groups, density, free = _groups(data), form.density(), _free_peak(form, data)
    parameters = form.coefficients(free.mode[None], data)
    risk = form.positive(parameters, parameters.risk @ data.X.T)[0]
    findings = []
    for k, label in enumerate(groups.labels):
        peak = _peak(density, form.arguments(replace(data, groups=groups.only(k))), free.mode)
        p = float(chi2.sf(max(2.0 * (free.height - peak.height), 0.0), 1))
        own = groups.members(k)
        implied = float(np.average(risk[own], weights=data.weight[own]))
        findings.append(GroupFinding(label, float(groups.known[k, 0]), float(groups.known[k, 1]), implied, p))
    return min(findings, key=lambda finding: finding.p_value)


def _groups(data: SelectiveData) -> GroupPrevalence:
    assert data.groups is not None
    return data.groups


def _free_peak(form: UniformForm | NormalForm, data: SelectiveData) -> _Peak:
    """Mode of the posterior without any prevalence."""
    untold = replace(data, prevalence=NO_PREVALENCE, groups=None)
    return _peak(form.density(), form.arguments(untold), form.start(data))


def _mean_risks(form: UniformForm | NormalForm, data: SelectiveData, mode: FloatArray) -> tuple[float, float, float]:
    """Mean risk of all and of the untested, and sigma, at a mode."""
    parameters = form.coefficients(mode[None], data)
    risk, shift = parameters.risk @ data.X.T, parameters.decision @ data.X.T
    positive, tested = form.positive(parameters, risk), form.tested(parameters, risk, shift)
    untested = data.cell == 0
    given = (positive - form.both(parameters, risk, shift))[0, untested] / (1.0 - tested)[0, untested]
    return (
        float(np.average(positive[0], weights=data.weight)),
        float(np.average(given, weights=data.weight[untested])),
        float(parameters.sigma[0]),
    )


def by_mean(data: heckman.HeckmanData) -> Sweep:
    """Posterior modes if the mean were up to 0.2 standard deviations from the stated one; all in units of data.y."""
    stated, se = data.mean
    free = _peak(heckman.log_density, (replace(data, mean=NO_PREVALENCE),), heckman.starting_point(data))
    return _sweep(
        ("mean", "mean_outcome", "untested_outcome", "sigma", "correlation"),
        [stated + shift for shift in SHIFTS],
        stated,
        free,
        lambda value: _peak(heckman.log_density, (replace(data, mean=(value, se)),), free.mode),
        lambda mode: _mean_outcomes(data, mode),
    )


def _mean_outcomes(data: heckman.HeckmanData, mode: FloatArray) -> tuple[float, float, float, float]:
    """Mean outcome of all and of the untested, sigma and the correlation, at a mode."""
    parameters = heckman.unpack(mode[None], data.X.shape[1], data.free)
    mean, untested = data.X @ parameters.outcome[0], ~data.tested
    sigma, r = float(parameters.sigma[0]), float(parameters.correlation[0])
    mills = heckman.log_normal_cdf(-(data.X[untested] @ parameters.decision[0]))[1]
    return (
        float(np.average(mean, weights=data.weight)),
        float(np.average(mean[untested] - r * sigma * mills, weights=data.weight[untested])),
        sigma,
        r,
    )
