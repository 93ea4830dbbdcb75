"""The linear effect model written in PyMC and sampled by nutpie: the reference of the fast densities.

The model is the one of :mod:`causalsat.estimators.linear.layout` with the likelihoods of
:mod:`causalsat.estimators.linear.families`, nothing integrated out. All data are ``pm.Data``, so a model
is compiled once for each structure (numbers of columns, arms, random effects, prior, family, villages rounded up to
a multiple of 64) and reused with other data: cross-validation does not compile again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.linear import layout as linear_layout
from causalsat.estimators.linear.data import LinearDesign
from causalsat.estimators.linear.density import NOISE_FLOOR
from causalsat.estimators.linear.families import DISPERSION_FLOOR
from causalsat.estimators.linear.layout import BERNOULLI, GAUSSIAN, HORSESHOE, NEGATIVE_BINOMIAL, NORMAL, R2D2, Layout
from causalsat.inference.chains import Settings
from causalsat.inference.nuts import run_chains

FloatArray = NDArray[np.float64]

GROUP_BLOCK = 64  # villages are padded to a multiple of this; the padding has no data


def build_model(layout: Layout, n_groups: int, data: dict[str, NDArray[Any]]) -> Any:
    """PyMC model of a layout.

    Parameters
    ----------
    layout : Layout
        Numbers of columns, arms and random effects; prior.
    n_groups : int
        Villages, padding included.
    data : dict of str to ndarray
        As :func:`model_data` makes it; replaceable later by data of the same columns.

    Returns
    -------
    pymc.Model
        The model.
    """
    import pymc as pm

    unit, k = layout.unit, layout.n_random
    with pm.Model() as model:
        held = {name: pm.Data(name, values) for name, values in data.items()}
        main_scale = pm.HalfStudentT("main_scale", nu=3, sigma=unit)
        fixed = pm.Normal("fixed", 0.0, linear_layout.COEFFICIENT_SCALE * unit, shape=2)
        eta = held["offset"] + fixed[0] + fixed[1] * held["t"]
        if layout.n_main:
            main = pm.Normal("main_raw", shape=layout.n_main) * main_scale
            eta = eta + held["main"] @ pm.Deterministic("main_effects", main)
        if layout.n_interactions:
            scale = _interaction_scale(layout, held["global_scale"])
            raw = pm.Normal("interaction_raw", shape=layout.n_interactions)
            eta = eta + held["interaction"] @ pm.Deterministic("interaction_effects", raw * scale)
        if layout.n_strata:
            spread = unit * np.array([1.0, linear_layout.HETEROGENEITY_SCALE])
            sd = pm.HalfStudentT("stratum_sd", nu=3, sigma=spread, shape=2)
            raw = pm.Normal("stratum_raw", shape=(2, layout.n_strata))
            effects = pm.Deterministic("stratum_effects", raw * sd[:, None])
            eta = eta + effects[0][held["stratum"]] + effects[1][held["stratum"]] * held["t"]
        if k:
            sd = pm.HalfStudentT("random_sd", nu=3, sigma=unit, shape=k)
            effects = pm.Normal("random_raw", shape=(n_groups, k))[held["group"]] * sd
            eta = eta + effects[:, 0]
            if k == 2:
                eta = eta + effects[:, 1] * held["t"]
        noise = pm.HalfStudentT("noise", nu=3, sigma=1.0, shape=layout.n_arms)[held["arm"]] if layout.n_arms else None
        pm.Potential("likelihood", (held["weight"] * _log_likelihood(layout.family, held["y"], eta, noise)).sum())
    return model


def _log_likelihood(family: int, y: Any, eta: Any, noise: Any) -> Any:
    """Log likelihood of each unit, up to a constant; ``noise`` is the unit's noise scale."""
    import pymc as pm
    import pytensor.tensor as pt

    if family == GAUSSIAN:
        variance = NOISE_FLOOR + noise**2
        return -0.5 * (pt.log(variance) + (y - eta) ** 2 / variance)
    if family == BERNOULLI:
        return y * eta - pt.softplus(eta)
    if family == NEGATIVE_BINOMIAL:
        return pm.logp(pm.NegativeBinomial.dist(mu=pt.exp(eta), alpha=1.0 / noise**2), y)
    shape = 1.0 / (DISPERSION_FLOOR + noise**2)
    return pm.logp(pm.Gamma.dist(alpha=shape, beta=shape * pt.exp(-eta)), y)


def _interaction_scale(layout: Layout, global_scale: Any) -> Any:
    """Prior standard deviation of the interactions."""
    import pymc as pm
    import pytensor.tensor as pt

    if layout.prior == NORMAL:
        return pm.HalfStudentT("interaction_scale", nu=3, sigma=1.0) * global_scale
    h = pm.HalfCauchy("interaction_scale", beta=1.0) * global_scale
    if layout.prior == R2D2:
        parts = pm.Gamma("parts", alpha=linear_layout.CONCENTRATION, beta=1.0, shape=layout.n_interactions)
        mixing = pm.Exponential("mixing", lam=0.5, shape=layout.n_interactions)
        return h * pt.sqrt(parts / parts.sum() * mixing / 2)
    slab = pm.InverseGamma("slab", alpha=2.0, beta=2.0 * (linear_layout.SLAB_SCALE * layout.unit) ** 2)
    wide = h * pm.HalfCauchy("local", beta=1.0, shape=layout.n_interactions)
    return wide * pt.sqrt(slab / (slab + wide**2))


def model_data(design: LinearDesign, layout: Layout) -> dict[str, NDArray[Any]]:
    """Arrays that the model reads."""
    group = np.zeros(len(design.y), dtype=np.int64) if design.group is None else design.group
    return {
        "main": design.main,
        "interaction": design.interaction,
        "t": design.t,
        "y": design.y,
        "weight": design.weight,
        "arm": design.arm,
        "group": group,
        "stratum": np.zeros(len(design.y), dtype=np.int64) if design.stratum is None else design.stratum,
        "offset": np.array(float(design.offset)),
        "global_scale": np.array(layout.global_scale),
    }


@lru_cache(maxsize=8)
def _compiled(structure: Layout, n_groups: int) -> tuple[Any, tuple[str, ...]]:
    """Compiled model of a structure, with the names of the data that it reads."""
    import nutpie

    empty = {
        "main": np.zeros((2, structure.n_main)),
        "interaction": np.zeros((2, structure.n_interactions)),
        "t": np.zeros(2),
        "y": np.zeros(2),
        "weight": np.ones(2),
        "arm": np.zeros(2, dtype=np.int64),
        "group": np.zeros(2, dtype=np.int64),
        "stratum": np.zeros(2, dtype=np.int64),
        "offset": np.array(0.0),
        "global_scale": np.array(1.0),
    }
    model = nutpie.compile_pymc_model(build_model(structure, n_groups, empty))
    return model, tuple(model.shared_data)


def sample(design: LinearDesign, layout: Layout, settings: Settings) -> tuple[FloatArray, FloatArray, int]:
    """Sample the PyMC model by nutpie.

    Returns
    -------
    scales : ndarray of shape (draw, d)
        Coordinates in the order of the layout, signed ones positive.
    coefficients : ndarray of shape (draw, q)
        Intercept, main effects, treatment, interactions, stratum effects.
    divergences : int
        Divergent transitions after tuning.
    """
    from dataclasses import replace

    padded = -(-design.n_groups // GROUP_BLOCK) * GROUP_BLOCK if layout.n_random else 0
    compiled, used = _compiled(replace(layout, global_scale=1.0), padded)
    data = model_data(design, layout)
    trace = run_chains(compiled.with_data(**{name: data[name] for name in used}), settings)
    posterior = trace.posterior

    def draws(name: str, width: int) -> FloatArray:
        if width == 0 or name not in posterior:
            return np.zeros((settings.n_draws * settings.n_chains, width))
        return np.asarray(posterior[name]).reshape(-1, width)

    noise = draws("noise", layout.n_arms)
    parts = [noise if layout.family == NEGATIVE_BINOMIAL else np.log(noise), draws("random_sd", layout.n_random)]
    parts += [draws("main_scale", 1), draws("stratum_sd", layout.n_stratum_effects)]
    j = layout.n_interactions
    if j:
        scale = draws("interaction_scale", 1) * layout.global_scale
        parts.append(np.log(scale) if layout.prior == HORSESHOE else scale)
        further = ((), (("slab", 1), ("local", j)), (("parts", j), ("mixing", j)))[layout.prior]
        parts += [np.log(draws(name, width)) for name, width in further]
    fixed, strata = draws("fixed", 2), draws("stratum_effects", layout.n_strata * layout.n_stratum_effects)
    main, interaction = draws("main_effects", layout.n_main), draws("interaction_effects", j)
    coefficients = np.column_stack([fixed[:, :1], main, fixed[:, 1:], interaction, strata])
    return np.column_stack(parts), coefficients, int(trace.sample_stats["diverging"].sum())
