"""The linear effect model written in PyMC and sampled by nutpie: the reference of the fast densities.

The model is the one of :mod:`causalsat.estimators._linear_density` (Gaussian) or
:mod:`causalsat.estimators._linear_glm` (logit), with nothing integrated out. All data are ``pm.Data``, so a model
is compiled once for each structure (numbers of columns, arms, random effects, prior, family, villages rounded up to
a multiple of 64) and reused with other data: cross-validation does not compile again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators import _linear_density
from causalsat.estimators._linear_data import LinearDesign
from causalsat.estimators._linear_density import NORMAL, Layout

if TYPE_CHECKING:
    from causalsat.estimators._linear_fit import Settings

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
    import pytensor.tensor as pt

    unit, k = layout.unit, layout.n_random
    with pm.Model() as model:
        held = {name: pm.Data(name, values) for name, values in data.items()}
        main_scale = pm.HalfStudentT("main_scale", nu=3, sigma=unit)
        fixed = pm.Normal("fixed", 0.0, _linear_density.COEFFICIENT_SCALE * unit, shape=2)
        eta = fixed[0] + fixed[1] * held["t"]
        if layout.n_main:
            main = pm.Normal("main_raw", shape=layout.n_main) * main_scale
            eta = eta + held["main"] @ pm.Deterministic("main_effects", main)
        if layout.n_interactions:
            scale = _interaction_scale(layout, held["global_scale"])
            raw = pm.Normal("interaction_raw", shape=layout.n_interactions)
            eta = eta + held["interaction"] @ pm.Deterministic("interaction_effects", raw * scale)
        if k:
            sd = pm.HalfStudentT("random_sd", nu=3, sigma=unit, shape=k)
            effects = pm.Normal("random_raw", shape=(n_groups, k))[held["group"]] * sd
            eta = eta + effects[:, 0]
            if k == 2:
                eta = eta + effects[:, 1] * held["t"]
        if layout.n_arms:
            noise = pm.HalfStudentT("noise", nu=3, sigma=1.0, shape=layout.n_arms)
            variance = (_linear_density.NOISE_FLOOR + noise**2)[held["arm"]]
            each = -0.5 * (pt.log(variance) + (held["y"] - eta) ** 2 / variance)
        else:
            each = held["y"] * eta - pt.softplus(eta)
        pm.Potential("likelihood", (held["weight"] * each).sum())
    return model


def _interaction_scale(layout: Layout, global_scale: Any) -> Any:
    """Prior standard deviation of the interactions."""
    import pymc as pm
    import pytensor.tensor as pt

    if layout.prior == NORMAL:
        return pm.HalfStudentT("interaction_scale", nu=3, sigma=1.0) * global_scale
    h = pm.HalfCauchy("interaction_scale", beta=1.0) * global_scale
    slab = pm.InverseGamma("slab", alpha=2.0, beta=2.0 * (_linear_density.SLAB_SCALE * layout.unit) ** 2)
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
        "global_scale": np.array(1.0),
    }
    model = nutpie.compile_pymc_model(build_model(structure, n_groups, empty))
    return model, tuple(model.shared_data)


def sample(design: LinearDesign, layout: Layout, settings: Settings) -> tuple[FloatArray, FloatArray, int]:
    """Sample the PyMC model by nutpie.

    Returns
    -------
    scales : ndarray of shape (draw, d)
        Log scales in the order of the layout.
    coefficients : ndarray of shape (draw, q)
        Intercept, main effects, treatment, interactions.
    divergences : int
        Divergent transitions after tuning.
    """
    from dataclasses import replace

    import nutpie

    padded = -(-design.n_groups // GROUP_BLOCK) * GROUP_BLOCK if layout.n_random else 0
    compiled, used = _compiled(replace(layout, global_scale=1.0), padded)
    data = model_data(design, layout)
    trace = nutpie.sample(
        compiled.with_data(**{name: data[name] for name in used}),
        draws=settings.n_draws,
        tune=settings.n_tune,
        chains=settings.n_chains,
        cores=1,
        seed=settings.seed,
        save_warmup=False,
        progress_bar=settings.progress,
    )
    posterior = trace.posterior

    def draws(name: str, width: int) -> FloatArray:
        if width == 0 or name not in posterior:
            return np.zeros((settings.n_draws * settings.n_chains, width))
        return np.asarray(posterior[name]).reshape(-1, width)

    positive = [draws("noise", layout.n_arms), draws("random_sd", layout.n_random), draws("main_scale", 1)]
    if layout.n_interactions:
        positive.append(draws("interaction_scale", 1) * layout.global_scale)
        if layout.prior != NORMAL:
            positive += [draws("slab", 1), draws("local", layout.n_interactions)]
    fixed = draws("fixed", 2)
    main, interaction = draws("main_effects", layout.n_main), draws("interaction_effects", layout.n_interactions)
    coefficients = np.column_stack([fixed[:, :1], main, fixed[:, 1:], interaction])
    return np.log(np.column_stack(positive)), coefficients, int(trace.sample_stats["diverging"].sum())
