"""From checked data to posterior draws of the linear effect model, by the chosen sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData, Imputation
from causalsat.estimators.linear import data as linear_data
from causalsat.estimators.linear import density as linear_density
from causalsat.estimators.linear import draws as linear_draws
from causalsat.estimators.linear import glm as linear_glm
from causalsat.estimators.linear import large as linear_large
from causalsat.estimators.linear import missing as linear_missing
from causalsat.estimators.linear import model as linear_model
from causalsat.estimators.linear import sample as linear_sample
from causalsat.estimators.linear.data import LinearDesign
from causalsat.estimators.linear.design import Basis, ModelOptions, make_design
from causalsat.estimators.linear.draws import LinearFit, Posterior
from causalsat.estimators.linear.large import Weighted
from causalsat.estimators.linear.layout import GAUSSIAN, NORMAL, Layout, make_layout, start_scales
from causalsat.estimators.linear.missing import Imputed
from causalsat.estimators.linear.statistics import sufficient_statistics
from causalsat.inference.chains import Settings, chain_summary, worst_summary

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """What a fit gives.

    Attributes
    ----------
    posterior : Posterior
        Draws in units of the outcome and how to apply them to units.
    layout : Layout
        Coordinates and constants of the priors, for draws from the prior.
    n_random : int
        Effects of each village: 0, 1 or 2.
    diagnostics : dict
        What the chains say of themselves.
    """

    posterior: Posterior
    layout: Layout
    n_random: int
    diagnostics: dict[str, Any]


def fit(
    data: FitData,
    imputation: Imputation,
    options: ModelOptions,
    settings: Settings,
    *,
    sampler: str = "auto",
    n_imputations: int | None = None,
) -> Fitted:
    """Fit the model to checked data, or to imputations of it.

    Parameters
    ----------
    data : FitData
        Checked training data.
    imputation : Imputation
        How its missing values were filled.
    options : ModelOptions
        The model.
    settings : Settings
        Lengths of the chains, their number and seed.
    sampler : {"auto", "laplace", "pymc"}
        How it is sampled.
    n_imputations : int or None
        Imputations drawn in the model; None where missing features are filled by their means.
    """
    basis, Z, design = make_design(data, imputation, options)
    layout = make_layout(design, options.prior, family=options.family)
    tables, model, missing = [Z], None, basis.missing(data.X)
    if n_imputations is not None and missing.any():
        tables, model = linear_missing.imputations(
            design, Z, missing, basis.may_be_missing, basis.places, options.family, n_imputations, settings.seed
        )
    fits = [
        fit_model(
            design if model is None else _with_features(design, table * basis.prior_scale, basis),
            prior=options.prior,
            family=options.family,
            sampler=sampler,
            settings=replace(settings, seed=settings.seed + m),
        )
        for m, table in enumerate(tables)
    ]
    pooled = linear_draws.pool(fits)
    draws = linear_draws.in_outcome_units(pooled, basis)
    draws |= linear_draws.averages(draws, tables, basis.places, data.sample_weight, design.stratum)
    diagnostics = diagnose(draws, settings, divergences=pooled.divergences, pareto_k=pooled.pareto_k, sampler=sampler)
    kept = {name: values[:: len(fits)] for name, values in draws.items()}  # as many as of one fit
    imputed = None
    if model is not None:
        which = np.repeat(np.arange(len(fits)), settings.n_chains * settings.n_draws)[:: len(fits)]
        imputed = Imputed(basis.may_be_missing, model, which)
    posterior = Posterior(kept, basis, layout.family, settings.seed, imputed)
    if layout.family != GAUSSIAN:
        kept["ate"] = linear_draws.average_effects(posterior, data.X, data.sample_weight)
    return Fitted(posterior, layout, design.n_random, diagnostics)


def _with_features(design: LinearDesign, main: FloatArray, basis: Basis) -> LinearDesign:
    """The design with other features."""
    return replace(design, main=main, interaction=design.t[:, None] * main[:, basis.places])


def diagnose(
    draws: Mapping[str, FloatArray],
    settings: Settings,
    *,
    divergences: int = 0,
    pareto_k: float = float("nan"),
    sampler: str = "auto",
) -> dict[str, Any]:
    """The worst R-hat and effective sample size of what is reported, over the fits whose draws these are.

    Effective sample sizes are those of bulk and tails for effects, of the bulk for scales.

    Parameters
    ----------
    draws : mapping of str to ndarray of shape (draw,) or (draw, k)
        Draws of one fit or of several, one fit after the other.
    settings : Settings
        Lengths of the chains of each fit.
    divergences, pareto_k, sampler
        What else is known of them.
    """

    def methods(name: str) -> tuple[str, ...]:
        return ("bulk",) if name.endswith("sd") or name == "noise" else ("bulk", "tail")

    n_fits = len(next(iter(draws.values()))) // (settings.n_chains * settings.n_draws)
    chains = {name: v.reshape(n_fits, settings.n_chains, settings.n_draws, v[0].size) for name, v in draws.items()}
    each = [chain_summary({name: v[m] for name, v in chains.items()}, 0, methods=methods) for m in range(n_fits)]
    diagnostics = worst_summary(each) | {"divergences": divergences, "sampler": sampler}
    if n_fits > 1:
        diagnostics["imputations"] = n_fits
    if np.isfinite(pareto_k):
        diagnostics["pareto_k"] = pareto_k
    return diagnostics


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
        scales, coefficients, divergences = linear_model.sample(design, layout, settings)
    elif family == "gaussian" or sampler == "laplace" or len(design.y) >= linear_large.MANY_UNITS:
        weighted = _sample_large(design, layout, settings)
        scales, coefficients = weighted.scales, weighted.coefficients
        divergences, pareto_k = weighted.divergences, weighted.pareto_k
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
    return linear_large.sample_gaussian(layout, sufficient_statistics(design), settings)


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
