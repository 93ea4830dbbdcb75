"""From a design to posterior draws of the linear effect model, by the chosen sampler."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.linear import data as linear_data
from causalsat.estimators.linear import density as linear_density
from causalsat.estimators.linear import glm as linear_glm
from causalsat.estimators.linear import large as linear_large
from causalsat.estimators.linear import sample as linear_sample
from causalsat.estimators.linear.data import LinearDesign
from causalsat.estimators.linear.large import Weighted
from causalsat.estimators.linear.layout import GAUSSIAN, NORMAL, Layout, make_layout, start_scales
from causalsat.inference.chains import Settings

FloatArray = NDArray[np.float64]


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


def fit_model(design: LinearDesign, *, prior: str, family: str, sampler: str, settings: Settings) -> LinearFit:
    """Sample the model of a design.

    Wide designs are reduced to principal axes where that is exact: main effects always, interactions under the
    normal prior.
    """
    main_axes = linear_data.principal_axes(design.main)
    interaction_axes = linear_data.principal_axes(design.interaction) if prior == "normal" else None
    full = design.interaction.shape[1]
    if main_axes is not None:
        design = replace(design, main=design.main @ main_axes)
    if interaction_axes is not None:
        design = replace(design, interaction=design.interaction @ interaction_axes)
    layout, pareto_k = make_layout(design, prior, family=family, rank=full), float("nan")
    if sampler == "pymc":
        from causalsat.estimators.linear import model as linear_model

        scales, coefficients, divergences = linear_model.sample(design, layout, settings)
    elif family == "gaussian" or sampler == "laplace" or len(design.y) >= linear_large.MANY_UNITS:
        large = _sample_large(design, layout, settings)
        scales, coefficients, divergences, pareto_k = (
            large.scales,
            large.coefficients,
            large.divergences,
            large.pareto_k,
        )
    else:
        scales, coefficients, divergences = _sample_glm(design, layout, settings)
    rng = np.random.default_rng([settings.seed, 2])
    p, j = layout.n_main, layout.n_interactions
    kappa = layout.main_scale(scales)
    lam = np.abs(scales[:, layout.n_common]) if j and layout.prior == NORMAL else kappa
    expanded = [
        coefficients[:, :1],
        linear_data.expand_axes(coefficients[:, 1 : 1 + p], main_axes, kappa, rng),
        coefficients[:, 1 + p : 2 + p],
        linear_data.expand_axes(coefficients[:, 2 + p : 2 + p + j], interaction_axes, lam, rng),
    ]
    noise = layout.noise(scales)
    return LinearFit(
        np.column_stack(expanded),
        coefficients[:, 2 + p + j :].reshape(len(scales), -1, max(layout.n_strata, 1)),
        np.sqrt(linear_density.NOISE_FLOOR + noise**2) if family == "gaussian" else noise,
        layout.random_sd(scales),
        layout.stratum_sd(scales),
        divergences,
        pareto_k,
    )


def _sample_large(design: LinearDesign, layout: Layout, settings: Settings) -> Weighted:
    if layout.family != GAUSSIAN:
        return linear_large.sample_working(design, layout, settings)
    return linear_large.sample_gaussian(layout, linear_data.sufficient_statistics(design), settings)


def _sample_glm(design: LinearDesign, layout: Layout, settings: Settings) -> tuple[FloatArray, FloatArray, int]:
    args = linear_glm.arguments(layout, design)
    n_raw = layout.n_coefficients + design.n_groups * layout.n_random
    start = np.concatenate([start_scales(layout), np.zeros(n_raw)])
    chains, divergences = linear_sample.sample_density(
        linear_glm.glm_log_density, args, start, layout.steps(), settings
    )
    draws = np.ascontiguousarray(chains.reshape(-1, len(start)))
    scales = draws[:, : layout.n_scales]
    return scales, linear_glm.coefficients(draws, layout, *args[-2:]), divergences
