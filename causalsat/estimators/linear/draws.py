"""From draws on the standardised scale to draws in the outcome's units, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.linear import families as linear_families
from causalsat.estimators.linear import layout as linear_layout
from causalsat.estimators.linear.data import Scaling
from causalsat.estimators.linear.density import NOISE_FLOOR
from causalsat.estimators.linear.fit import LinearFit
from causalsat.estimators.linear.layout import GAUSSIAN, Layout

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Draws = dict[str, FloatArray]

BLOCK = 2**24  # draws times units at once


def in_outcome_units(fit: LinearFit, scaling: Scaling, prior_scale: FloatArray, modifiers: IntArray) -> Draws:
    """Draws in units of the outcome (or of the logit or logarithm); ``modifiers`` are positions among features."""
    live = prior_scale * (scaling.x_factor > 0)
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


def base(draws: Mapping[str, FloatArray], Z: FloatArray) -> FloatArray:
    """Predictor at the average treatment, strata apart, (draw, unit)."""
    return np.asarray(draws["intercept"][:, None] + draws["main"] @ Z.T)


def slope(draws: Mapping[str, FloatArray], Z: FloatArray, modifiers: IntArray) -> FloatArray:
    """Slope of the predictor in the treatment, strata apart, (draw, unit)."""
    return np.asarray(draws["treatment"][:, None] + draws["interaction"] @ Z[:, modifiers].T)


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


def weighted_average(values_of: Callable[[slice], FloatArray], weight: FloatArray, n_draws: int) -> FloatArray:
    """Average over units of draws that are made for a slice of units at a time, shape (draw,)."""
    total, step = np.zeros(n_draws), max(1, BLOCK // n_draws)
    for first in range(0, len(weight), step):
        part = slice(first, first + step)
        total += values_of(part) @ weight[part]
    return np.asarray(total / weight.sum())


def single_outcomes(
    draws: Mapping[str, FloatArray],
    eta: FloatArray,
    dose: FloatArray,
    arm: IntArray,
    group: IntArray,
    family: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Outcomes of single units, (draw, unit): village effects of new villages, then noise or the family's scatter."""
    n_draws, n_groups = len(eta), int(group.max()) + 1
    eta = eta.copy()
    if "group_sd" in draws:
        eta += (draws["group_sd"][:, None] * rng.standard_normal((n_draws, n_groups)))[:, group]
    if "slope_sd" in draws:
        eta += (draws["slope_sd"][:, None] * rng.standard_normal((n_draws, n_groups)))[:, group] * dose
    noise = draws["noise"]
    each = noise[:, arm] if noise.shape[1] else np.zeros_like(eta)
    return linear_families.draw_outcomes(eta, each, family, rng)


def prior_fit(layout: Layout, n_draws: int, n_features: int, n_modifiers: int, rng: np.random.Generator) -> LinearFit:
    """Draws of everything from the prior, in the form of a fit.

    Main effects and modifiers are those before any reduction to principal axes.
    """
    full = replace(layout, n_main=n_features, n_interactions=n_modifiers)
    phi = linear_layout.draw_prior(full, n_draws, rng)
    variance = np.array([linear_layout.prior_scales(row, full.as_tuple())[0] for row in phi])
    coefficients = rng.standard_normal(variance.shape) * np.sqrt(variance)
    noise, q = full.noise(phi), 2 + n_features + n_modifiers
    return LinearFit(
        coefficients[:, :q],
        coefficients[:, q:].reshape(n_draws, -1, max(full.n_strata, 1)),
        np.sqrt(NOISE_FLOOR + noise**2) if full.family == GAUSSIAN else noise,
        full.random_sd(phi),
        full.stratum_sd(phi),
        0,
    )
