"""Draws of the linear effect model: from the standardised scale to the outcome's, effects and outcomes of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.linear import density as linear_density
from causalsat.estimators.linear import families as linear_families
from causalsat.estimators.linear.density import GAUSSIAN, NOISE_FLOOR, Layout
from causalsat.estimators.linear.design import Basis
from causalsat.estimators.linear.missing import Imputed, missing_contribution

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Draws = dict[str, FloatArray]

BLOCK = 2**24  # draws times units at once


@dataclass(frozen=True)
class LinearFit:
    """Posterior draws on the standardised scale, chains one after the other.

    Attributes
    ----------
    coefficients : ndarray of shape (draw, q)
        Intercept, main effects, treatment, interactions.
    strata : ndarray of shape (draw, 2, S)
        Stratum intercepts and stratum effects on the treatment.
    noise : ndarray of shape (draw, arm)
        Noise standard deviations; dispersions where the outcome is a count or gamma.
    random_sd : ndarray of shape (draw, k)
        Standard deviations of village intercepts and slopes.
    stratum_sd : ndarray of shape (draw, 0 or 2)
        Standard deviations of stratum intercepts and effects.
    divergences : int
        Divergent transitions.
    pareto_k : float
        Diagnostic of importance weights where there were any, else NaN.
    """

    coefficients: FloatArray
    strata: FloatArray
    noise: FloatArray
    random_sd: FloatArray
    stratum_sd: FloatArray
    divergences: int
    pareto_k: float = float("nan")


def pool(fits: Sequence[LinearFit]) -> LinearFit:
    """The draws of several fits, one fit after the other; divergences are summed."""
    names = [f.name for f in fields(LinearFit) if f.name not in ("divergences", "pareto_k")]
    pooled: dict[str, Any] = {name: np.concatenate([getattr(fit, name) for fit in fits]) for name in names}
    return LinearFit(**pooled, divergences=sum(f.divergences for f in fits), pareto_k=max(f.pareto_k for f in fits))


def in_outcome_units(fit: LinearFit, basis: Basis) -> Draws:
    """Draws in units of the outcome (or of the logit or logarithm), by name."""
    scaling, modifiers = basis.scaling, basis.places
    live = basis.prior_scale * (scaling.x_factor > 0)
    c, p, j = fit.coefficients, len(live), len(modifiers)
    up, dose = scaling.y_scale, scaling.y_scale / scaling.t_scale
    draws = {
        "intercept": scaling.y_mean + up * c[:, 0],
        "main": up * c[:, 1 : 1 + p] * live,
        "treatment": dose * c[:, 1 + p],
        "interaction": dose * c[:, 2 + p : 2 + p + j] * live[modifiers],
        "noise": up * fit.noise,
    }
    if fit.random_sd.shape[1]:
        draws["group_sd"] = up * fit.random_sd[:, 0]
    if fit.random_sd.shape[1] > 1:
        draws["slope_sd"] = dose * fit.random_sd[:, 1]
    if fit.stratum_sd.shape[1]:
        draws |= {"stratum_intercept": up * fit.strata[:, 0], "stratum_slope": dose * fit.strata[:, 1]}
        draws |= {"stratum_sd": up * fit.stratum_sd[:, 0], "stratum_slope_sd": dose * fit.stratum_sd[:, 1]}
    return draws


def averages(
    draws: Mapping[str, FloatArray],
    tables: Sequence[FloatArray],
    modifiers: IntArray,
    weight: FloatArray,
    stratum: IntArray | None,
) -> Draws:
    """Average of the training units' effects on the predictor's scale and their standard deviation, by draw.

    ``tables`` are the standardised features of each imputation, whose draws lie one imputation after the other.
    """
    share, coefficients = weight / weight.sum(), [draws["interaction"]]
    member = np.zeros((len(weight), 0))
    if stratum is not None:
        member = np.eye(int(stratum.max()) + 1)[stratum]
        coefficients.append(draws["stratum_slope"])
    means, sds = [], []
    for beta, table in zip(np.array_split(np.column_stack(coefficients), len(tables)), tables, strict=True):
        rows = np.column_stack([table[:, modifiers], member])
        mean = share @ rows
        centred = rows - mean
        covariance = (centred * share[:, None]).T @ centred
        means.append(beta @ mean)
        sds.append(np.sqrt(np.maximum(((beta @ covariance) * beta).sum(axis=1), 0.0)))
    return {"effect_sd": np.concatenate(sds), "ate": draws["treatment"] + np.concatenate(means)}


@dataclass(frozen=True)
class Posterior:
    """Draws and what it takes to apply them to units.

    Attributes
    ----------
    draws : dict of str to ndarray
        Draws in units of the outcome, as :func:`in_outcome_units` makes them.
    basis : Basis
        How a checked table becomes features.
    family : int
        Position in :data:`causalsat.estimators.linear.density.FAMILIES`.
    seed : int
        Of what is drawn for units: effects of strata that training did not have, missing features.
    imputed : Imputed or None
        The imputations, where missing features are drawn in the model.
    """

    draws: Draws
    basis: Basis
    family: int
    seed: int
    imputed: Imputed | None = None

    def predictor(self, X: FloatArray, *, with_base: bool = True) -> tuple[FloatArray, FloatArray]:
        """Predictor at average treatment and its slope in the treatment, each of shape (draw, unit)."""
        d, Z, places = self.draws, self.basis.features(X), self.basis.places
        slope = np.asarray(d["treatment"][:, None] + d["interaction"] @ Z[:, places].T)
        base = np.asarray(d["intercept"][:, None] + d["main"] @ Z.T) if with_base else np.zeros((1, 1))
        codes = self.basis.strata(X)
        if codes is not None:
            of_strata = stratum_effects(d, codes, self.seed)
            base, slope = base + of_strata[0], slope + of_strata[1]
        if self.imputed is not None:
            drawn = missing_contribution(d, Z, self.basis.missing(X), places, self.imputed, self.seed)
            base, slope = base + drawn[0], slope + drawn[1]
        return base, slope

    def mean_outcomes(self, X: FloatArray, level: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the mean outcome at a treatment level, averaged over villages."""
        base, slope = self.predictor(X)
        dose = level - self.basis.scaling.t_centre
        spread = village_spread(self.draws, dose)
        return linear_families.mean_outcome(base + slope * dose, spread, self.family)

    def effects(self, X: FloatArray, treatment: FloatArray, baseline: FloatArray) -> FloatArray:
        """Draws (draw, unit) of the difference of mean outcomes between two levels."""
        if self.family == GAUSSIAN:
            return self.predictor(X, with_base=False)[1] * (treatment - baseline)
        return self.mean_outcomes(X, treatment) - self.mean_outcomes(X, baseline)

    def single_outcomes(
        self, X: FloatArray, level: FloatArray, group: IntArray, arm: IntArray, rng: np.random.Generator
    ) -> FloatArray:
        """Outcomes of single units, (draw, unit): with effects of new villages, then noise or the family's scatter.

        ``group`` says which units share a village, ``arm`` which noise applies.
        """
        base, slope = self.predictor(X)
        dose, d = level - self.basis.scaling.t_centre, self.draws
        eta = base + slope * dose
        shape = len(eta), int(group.max()) + 1
        if "group_sd" in d:
            eta = eta + (d["group_sd"][:, None] * rng.standard_normal(shape))[:, group]
        if "slope_sd" in d:
            eta = eta + (d["slope_sd"][:, None] * rng.standard_normal(shape))[:, group] * dose
        noise = d["noise"][:, arm] if d["noise"].shape[1] else np.zeros_like(eta)
        return linear_families.draw_outcomes(eta, noise, self.family, rng)


def stratum_effects(draws: Mapping[str, FloatArray], codes: IntArray, seed: int) -> tuple[FloatArray, FloatArray]:
    """Intercept and treatment effect of each unit's stratum, each (draw, unit).

    A stratum that was not in training, which has a negative code, gets draws from the population of strata: mean
    zero, and the same draws for all units with that code.
    """
    known = np.maximum(codes, 0)
    out = draws["stratum_intercept"][:, known], draws["stratum_slope"][:, known]
    for code in np.unique(codes[codes < 0]):
        normals = np.random.default_rng([seed, -int(code)]).standard_normal((2, len(out[0])))
        for effects, z, name in zip(out, normals, ("stratum_sd", "stratum_slope_sd"), strict=True):
            effects[:, codes == code] = (z * draws[name])[:, None]
    return out


def village_spread(draws: Mapping[str, FloatArray], dose: FloatArray) -> FloatArray:
    """Standard deviation of the predictor over villages, (draw, unit); ``dose`` is the centred treatment."""
    n_draws = len(draws["treatment"])
    variance = np.zeros((n_draws, len(dose)))
    if "group_sd" in draws:
        variance += draws["group_sd"][:, None] ** 2
    if "slope_sd" in draws:
        variance += (draws["slope_sd"][:, None] * dose) ** 2
    return np.sqrt(variance)


def average_effects(posterior: Posterior, X: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean and standard deviation over units of the effect of treatment 1 against 0, in the outcome's units.

    Each has shape (draw,); some units at a time.
    """
    n_draws, share = len(posterior.draws["treatment"]), weight / weight.sum()
    total, squares, step = np.zeros(n_draws), np.zeros(n_draws), max(1, BLOCK // n_draws)
    for first in range(0, len(weight), step):
        rows = slice(first, first + step)
        one = np.ones(len(X[rows]))
        effects = posterior.effects(X[rows], one, 0.0 * one)
        total += effects @ share[rows]
        squares += effects**2 @ share[rows]
    return total, np.sqrt(np.maximum(squares - total**2, 0.0))


def prior_of(posterior: Posterior, layout: Layout, n_draws: int, rng: np.random.Generator) -> Posterior:
    """The same with draws of everything from the prior, main effects and modifiers before any reduction to axes."""
    basis = posterior.basis
    full = replace(layout, n_main=len(basis.prior_scale), n_interactions=len(basis.modifiers))
    phi = linear_density.draw_prior(full, n_draws, rng)
    variance = np.array([linear_density.prior_scales(row, full.as_tuple())[0] for row in phi])
    coefficients = rng.standard_normal(variance.shape) * np.sqrt(variance)
    noise, q = full.noise(phi), 2 + full.n_main + full.n_interactions
    fit = LinearFit(
        coefficients[:, :q],
        coefficients[:, q:].reshape(n_draws, -1, max(full.n_strata, 1)),
        np.sqrt(NOISE_FLOOR + noise**2) if full.family == GAUSSIAN else noise,
        full.random_sd(phi),
        full.stratum_sd(phi),
        0,
    )
    return replace(posterior, draws=in_outcome_units(fit, basis), imputed=None)
