"""The linear effect model written in PyMC: to be read, plotted, extended and sampled by any of PyMC's samplers.

The model is the one of :mod:`causalsat.estimators.linear.density` with the likelihoods of
:mod:`causalsat.estimators.linear.families`, nothing integrated out: the reference of the fast densities. All data are
``pm.Data``. The estimator's own ``sampler="pymc"`` compiles it once for each structure (numbers of columns, arms,
random effects, prior, family, villages rounded up to a multiple of 64) and reuses that with other data:
cross-validation does not compile again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators.linear import density as linear_density
from causalsat.estimators.linear.data import LinearDesign, Scaling
from causalsat.estimators.linear.density import (
    BERNOULLI,
    GAUSSIAN,
    HORSESHOE,
    NEGATIVE_BINOMIAL,
    NOISE_FLOOR,
    NORMAL,
    R2D2,
    Layout,
)
from causalsat.estimators.linear.families import DISPERSION_FLOOR, NODES
from causalsat.inference.chains import Settings, run_chains

FloatArray = NDArray[np.float64]

GROUP_BLOCK = 64  # villages are padded to a multiple of this; the padding has no data


DIMENSIONS: dict[str, tuple[str, ...]] = {  # of the data
    "main": ("unit", "feature"),
    "interaction": ("unit", "modifier"),
    "modifiers": ("unit", "modifier"),
    **dict.fromkeys(("t", "y", "weight", "arm", "group", "stratum"), ("unit",)),
    **dict.fromkeys(("offset", "global_scale"), ()),
}
EFFECTS = ["intercept", "treatment"]


@dataclass(frozen=True)
class _Dimensions:
    """Dimensions of variables: by name where they have labels, else by size."""

    sizes: Mapping[str, int]
    named: bool

    def of(self, *names: str) -> dict[str, Any]:
        """What says how large a random variable is."""
        return {"dims": names} if self.named else {"shape": tuple(self.sizes[name] for name in names)}

    def labels(self, *names: str) -> dict[str, Any]:
        """The names alone, for what has its size already."""
        return {"dims": names} if self.named else {}


# ---------------------------------------------------------------------- the model
def build_model(
    layout: Layout,
    n_groups: int,
    data: Mapping[str, NDArray[Any]],
    *,
    coords: Mapping[str, Any] | None = None,
    scaling: Scaling | None = None,
) -> Any:
    """PyMC model of a layout.

    Parameters
    ----------
    layout : Layout
        Numbers of columns, arms and random effects; prior; family.
    n_groups : int
        Villages, padding included.
    data : mapping of str to ndarray
        As :func:`model_data` makes it; replaceable later by data of the same columns.
    coords : mapping of str to sequence, optional
        Labels of the dimensions; variables have sizes only without.
    scaling : Scaling, optional
        With it the model holds the average effect in the outcome's units, ``ate``.

    Returns
    -------
    pymc.Model
        The model.
    """
    import pymc as pm

    unit, sizes = layout.unit, {"feature": layout.n_main, "modifier": layout.n_interactions, "arm": layout.n_arms}
    sizes |= {"village": n_groups, "village_effect": layout.n_random, "stratum": layout.n_strata, "stratum_effect": 2}
    dims = _Dimensions(sizes, named=coords is not None)
    with pm.Model(coords=coords) as model:
        x = {name: pm.Data(name, values, **dims.labels(*DIMENSIONS[name])) for name, values in data.items()}
        main_scale = pm.HalfStudentT("main_scale", nu=3, sigma=unit)
        intercept = pm.Normal("intercept", 0.0, linear_density.COEFFICIENT_SCALE * unit)
        treatment = pm.Normal("treatment", 0.0, linear_density.COEFFICIENT_SCALE * unit)
        level, slope, rest = x["offset"] + intercept, treatment, 0.0  # predictor = level + slope t + rest
        if layout.n_main:
            raw = pm.Normal("main_raw", **dims.of("feature"))
            level = level + x["main"] @ pm.Deterministic("main_effects", raw * main_scale, **dims.labels("feature"))
        if layout.n_interactions:
            scale = _interaction_scale(layout, x["global_scale"], dims)
            raw = pm.Normal("interaction_raw", **dims.of("modifier"))
            effects = pm.Deterministic("interaction_effects", raw * scale, **dims.labels("modifier"))
            slope = slope + x["modifiers"] @ effects if "modifiers" in x else slope
            rest = x["interaction"] @ effects if "interaction" in x else rest
        if layout.n_strata:
            spread = unit * np.array([1.0, linear_density.HETEROGENEITY_SCALE])
            sd = pm.HalfStudentT("stratum_sd", nu=3, sigma=spread, **dims.of("stratum_effect"))
            raw = pm.Normal("stratum_raw", **dims.of("stratum_effect", "stratum"))
            effects = pm.Deterministic(
                "stratum_effects", raw * sd[:, None], **dims.labels("stratum_effect", "stratum")
            )
            level, slope = level + effects[0][x["stratum"]], slope + effects[1][x["stratum"]]
        random_sd = None
        if layout.n_random:
            random_sd = pm.HalfStudentT("random_sd", nu=3, sigma=unit, **dims.of("village_effect"))
            effects = pm.Normal("random_raw", **dims.of("village", "village_effect"))[x["group"]] * random_sd
            rest = rest + effects[:, 0] + (effects[:, 1] * x["t"] if layout.n_random == 2 else 0.0)
        noise = pm.HalfStudentT("noise", nu=3, sigma=1.0, **dims.of("arm"))[x["arm"]] if layout.n_arms else None
        _outcome(layout.family, level + slope * x["t"] + rest, noise, x, dims)
        if scaling is not None:
            pm.Deterministic("ate", _average_effect(layout, scaling, level, slope, random_sd, x))
    return model


def _interaction_scale(layout: Layout, global_scale: Any, dims: _Dimensions) -> Any:
    """Prior standard deviation of the interactions."""
    import pymc as pm
    import pytensor.tensor as pt

    if layout.prior == NORMAL:
        return pm.HalfStudentT("interaction_scale", nu=3, sigma=1.0) * global_scale
    h = pm.HalfCauchy("interaction_scale", beta=1.0) * global_scale
    if layout.prior == R2D2:
        parts = pm.Gamma("parts", alpha=linear_density.CONCENTRATION, beta=1.0, **dims.of("modifier"))
        mixing = pm.Exponential("mixing", lam=0.5, **dims.of("modifier"))
        return h * pt.sqrt(parts / parts.sum() * mixing / 2)
    slab = pm.InverseGamma("slab", alpha=2.0, beta=2.0 * (linear_density.SLAB_SCALE * layout.unit) ** 2)
    wide = h * pm.HalfCauchy("local", beta=1.0, **dims.of("modifier"))
    return wide * pt.sqrt(slab / (slab + wide**2))


def _outcome(family: int, eta: Any, noise: Any, x: Mapping[str, Any], dims: _Dimensions) -> None:
    """The outcome given its predictor and noise: an observed variable, or with weights a power of its likelihood."""
    import pymc as pm
    import pytensor.tensor as pt

    y = x["y"]
    if family == GAUSSIAN:
        kind, parameters = pm.Normal, {"mu": eta, "sigma": pt.sqrt(NOISE_FLOOR + noise**2)}
    elif family == BERNOULLI:
        kind, parameters = pm.Bernoulli, {"logit_p": eta}
    elif family == NEGATIVE_BINOMIAL:
        kind, parameters = pm.NegativeBinomial, {"mu": pt.exp(eta), "alpha": 1.0 / noise**2}
    else:
        shape = 1.0 / (DISPERSION_FLOOR + noise**2)
        kind, parameters = pm.Gamma, {"alpha": shape, "beta": shape * pt.exp(-eta)}
    if "weight" in x:
        pm.Potential("outcome", (x["weight"] * pm.logp(kind.dist(**parameters), y)).sum())
    else:
        kind("outcome", **parameters, observed=y, **dims.labels("unit"))


def _average_effect(
    layout: Layout, scaling: Scaling, level: Any, slope: Any, random_sd: Any, x: Mapping[str, Any]
) -> Any:
    """Weighted average over units of the mean outcome at treatment 1 less that at 0, averaged over villages."""
    import pytensor.tensor as pt

    def mean_outcome(treatment: float) -> Any:
        t = (treatment - scaling.t_centre) / scaling.t_scale
        eta = level + slope * t + pt.zeros_like(x["t"])
        if layout.family == GAUSSIAN:
            return scaling.y_scale * eta
        variance = sum(((random_sd[k] * t**k) ** 2 for k in range(layout.n_random)), pt.constant(0.0))
        if layout.family == BERNOULLI:
            nodes, mass = np.polynomial.hermite_e.hermegauss(NODES)
            at = [w * pt.sigmoid(eta + pt.sqrt(variance) * z) for z, w in zip(nodes, mass / mass.sum(), strict=True)]
            return sum(at[1:], at[0])
        return pt.exp(eta + 0.5 * variance)

    effect = mean_outcome(1.0) - mean_outcome(0.0)
    return pt.mean(effect) if "weight" not in x else (x["weight"] * effect).sum() / x["weight"].sum()


# ---------------------------------------------------------------------- its data
def model_data(
    design: LinearDesign, layout: Layout, *, modifiers: FloatArray | None = None, weighted: bool = True
) -> dict[str, NDArray[Any]]:
    """Arrays that the model of a layout reads.

    Parameters
    ----------
    design : LinearDesign
        The design, of n units.
    layout : Layout
        Its layout.
    modifiers : ndarray of shape (n, J), optional
        Modifiers of the effect, in place of their products with the treatment.
    weighted : bool
        Whether units have weights.
    """
    data: dict[str, NDArray[Any]] = {"t": design.t, "y": design.y, "offset": np.array(float(design.offset))}
    if layout.n_main:
        data["main"] = design.main
    if layout.n_interactions:
        data |= {"interaction": design.interaction} if modifiers is None else {"modifiers": modifiers}
        data["global_scale"] = np.array(layout.global_scale)
    if layout.n_arms:
        data["arm"] = design.arm
    if layout.n_random and design.group is not None:
        data["group"] = design.group
    if design.stratum is not None:
        data["stratum"] = design.stratum
    return data | ({"weight": design.weight} if weighted else {})


def readable_model(
    design: LinearDesign, layout: Layout, scaling: Scaling, modifiers: FloatArray, labels: Mapping[str, Any]
) -> Any:
    """The model of a design with named dimensions and the average effect; the outcome observed if weights are equal.

    Parameters
    ----------
    design : LinearDesign
        The design, of n units.
    layout : Layout
        Its layout.
    scaling : Scaling
        What has standardised outcome and treatment.
    modifiers : ndarray of shape (n, J)
        Modifiers on the scale of the design.
    labels : mapping of str to sequence
        Names of features, modifiers and strata.
    """
    data = model_data(design, layout, modifiers=modifiers, weighted=bool(np.ptp(design.weight) > 0))
    coords: dict[str, Any] = {"unit": np.arange(len(design.y)), "feature": list(labels["feature"])}
    if layout.n_interactions:
        coords["modifier"] = list(labels["modifier"])
    if layout.n_arms:
        coords["arm"] = ["control", "treated"] if layout.n_arms == 2 else ["all"]
    if layout.n_random:
        coords |= {"village": np.arange(design.n_groups), "village_effect": EFFECTS[: layout.n_random]}
    if layout.n_strata:
        coords |= {"stratum": list(labels["stratum"]), "stratum_effect": EFFECTS}
    return build_model(layout, design.n_groups, data, coords=coords, scaling=scaling)


def add_effects(
    model: Any,
    X: FloatArray,
    columns: NDArray[np.int64],
    mean: FloatArray,
    factor: FloatArray,
    unit: float,
) -> None:
    """Add the data ``X``, features in their own units, and the deterministic ``effect`` of each unit.

    Parameters
    ----------
    model : pymc.Model
        As :func:`readable_model` makes it, of normal outcomes without strata.
    X : ndarray of shape (n, p)
        The checked table.
    columns : ndarray of int of shape (J,)
        Its columns that are modifiers.
    mean, factor : ndarray of shape (J,)
        What makes them the model's modifiers: their means, and one over their scales.
    unit : float
        The outcome's units for one unit of treatment in the model.
    """
    import pymc as pm

    with model:
        table, slope = pm.Data("X", X), model["treatment"]
        if len(columns):
            slope = slope + ((table[:, columns] - mean) * factor) @ model["interaction_effects"]
        pm.Deterministic("effect", unit * slope)


# ---------------------------------------------------------------------- sampled by nutpie
@lru_cache(maxsize=8)
def _compiled(structure: Layout, n_groups: int) -> tuple[Any, tuple[str, ...]]:
    """Compiled model of a structure, with the names of the data that it reads."""
    import nutpie

    empty = LinearDesign(
        main=np.zeros((2, structure.n_main)),
        interaction=np.zeros((2, structure.n_interactions)),
        t=np.zeros(2),
        y=np.zeros(2),
        weight=np.ones(2),
        arm=np.zeros(2, dtype=np.int64),
        group=np.zeros(2, dtype=np.int64) if structure.n_random else None,
        n_random=structure.n_random,
        stratum=np.zeros(2, dtype=np.int64) if structure.n_strata else None,
    )
    data = model_data(empty, structure)
    model = nutpie.compile_pymc_model(build_model(structure, n_groups, data))
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
    blocks = {"intercept": 1, "main_effects": layout.n_main, "treatment": 1, "interaction_effects": j}
    blocks["stratum_effects"] = layout.n_strata * layout.n_stratum_effects
    coefficients = np.column_stack([draws(name, width) for name, width in blocks.items()])
    return np.column_stack(parts), coefficients, int(trace.sample_stats["diverging"].sum())
