"""A model built, checked and sampled by nutpie; a model of the same structure is not compiled again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalsat.core.inputs import FloatArray
from causalsat.estimators.pymc_model.expression import (
    FEATURE_INPUT,
    FEATURES,
    LEVEL_INPUT,
    TREATMENT,
    Graph,
    as_it_stands,
    compiled,
    graph_of,
)
from causalsat.exceptions import ParameterError
from causalsat.inference.chains import Settings, run_chains

__all__ = ["EFFECT", "MEAN_OUTCOME", "Sampled", "check_model", "effect_graph", "sample"]

MEAN_OUTCOME, EFFECT = "mean_outcome", "effect"  # deterministics
N_KEPT = 8  # compiled models
TOLERANCE = 1e-6  # between effects of units alone and together, relative


@dataclass(frozen=True, eq=False)
class Sampled:
    """Draws of a model.

    Attributes
    ----------
    draws : dict of str to ndarray of shape (chain, draw, ...)
        Of the free variables and of deterministics that are single numbers.
    divergences : int
        Divergent transitions.
    """

    draws: dict[str, FloatArray]
    divergences: int


# ---------------------------------------------------------------------- the model's parts
def effect_graph(model: Any) -> tuple[str, Graph]:
    """Which deterministic the effects come from, and its graph.

    Raises
    ------
    ParameterError
        If the model lacks what effects at new places are made of.
    """
    import pymc as pm
    from pytensor.compile.sharedvalue import SharedVariable

    if not isinstance(model, pm.Model):
        raise ParameterError(f"build returns a {type(model).__name__}", expected="a pymc.Model")
    held = {v.name for v in model.deterministics}
    name = MEAN_OUTCOME if MEAN_OUTCOME in held else EFFECT
    if name not in held:
        raise ParameterError(
            f"a model with the deterministics {', '.join(sorted(held)) or '(none)'}",
            expected=f"pm.Deterministic({MEAN_OUTCOME!r}, ...), the mean outcome of each unit at the data X and "
            f"treatment, or pm.Deterministic({EFFECT!r}, ...), the effect of each unit at the data X",
        )
    needed = (FEATURES, TREATMENT) if name == MEAN_OUTCOME else (FEATURES,)
    for data in needed:
        if not isinstance(model.named_vars.get(data), SharedVariable):
            raise ParameterError(
                f"a model without the data {data!r}",
                expected=f"pm.Data({data!r}, data.{data}), which is replaced at new places",
            )
    discrete = [v.name for v in model.discrete_value_vars]
    if discrete:
        raise ParameterError(
            f"a model with the discrete unobserved variables {', '.join(map(str, discrete))}",
            expected="continuous ones, which nutpie samples",
            todo="sum them out, for example by pm.Mixture",
        )
    if not model.free_RVs or not (model.observed_RVs or model.potentials):
        raise ParameterError(
            "a model without unobserved variables or without a likelihood",
            expected="priors, and an observed variable or a pm.Potential",
        )
    graph = graph_of(model, name)
    if name == MEAN_OUTCOME and LEVEL_INPUT not in graph.inputs:
        raise ParameterError(
            f"a deterministic {MEAN_OUTCOME!r} that does not depend on the data 'treatment'",
            expected="the mean outcome at the data 'treatment'",
            todo="use the variable that pm.Data('treatment', ...) returns, not the array",
        )
    return name, graph


def check_model(model: Any, graph: Graph, X: FloatArray, treatment: FloatArray) -> None:
    """Refuse effects that cannot be had at new places, or that depend on the other units of a table.

    Parameters
    ----------
    model : pymc.Model
    graph : Graph
        Of its effects or mean outcomes.
    X, treatment : ndarray
        Of the fit.
    """
    values = some_values(model)
    evaluate = compiled(graph)
    whole = values_at(evaluate, graph.inputs, values, X, treatment)
    rows = np.arange(len(X))[-2::-1] if len(X) > 1 else np.arange(1)
    try:
        chosen = values_at(evaluate, graph.inputs, values, X[rows], treatment[rows])
    except (ValueError, TypeError, IndexError) as error:
        fixed = [name for name, shape in graph.constants.items() if len(shape) and shape[0] == len(X)]
        about = f": the data {', '.join(map(repr, fixed))} have one value for each unit of the fit" if fixed else ""
        raise ParameterError(
            f"effects that cannot be had for another number of units{about} ({str(error).splitlines()[0][:200]})",
            expected="a function of the data X (and treatment) and of the model's variables",
            todo="leave clusters' own effects out of it, and compute what it needs from X",
        ) from error
    size = np.abs(whole).max(initial=0.0)
    if np.isfinite(whole).all() and np.abs(chosen - whole[rows]).max() > TOLERANCE * max(size, 1e-300):
        raise ParameterError(
            "effects of a unit that change with the other units of the table",
            expected="effects that depend on the unit's own X (and treatment) only",
            todo="take means and scales from data.X, which is fixed, and not from the variable X; leave out what "
            "belongs to units by their position",
        )


def values_at(
    evaluate: Callable[[Mapping[str, Any]], FloatArray],
    names: Any,
    values: Mapping[str, Any],
    X: FloatArray,
    treatment: FloatArray | None,
) -> FloatArray:
    """Values (n,) of a deterministic at units and levels, given one value of every variable."""
    given = {name: values[name] for name in names if name not in (FEATURE_INPUT, LEVEL_INPUT)}
    found = evaluate({**given, FEATURE_INPUT: X, LEVEL_INPUT: treatment})
    return np.broadcast_to(found, (len(X),))


def some_values(model: Any) -> dict[str, FloatArray]:
    """Values of the free variables within their domains, none of them at a round number."""
    rng = np.random.default_rng(0)
    start = {name: value + rng.uniform(-0.5, 0.5, np.shape(value)) for name, value in model.initial_point(0).items()}
    free = {v.name for v in model.free_RVs}
    outputs = [v for v in model.unobserved_value_vars if v.name in free]
    function = model.compile_fn(outputs, inputs=model.value_vars, mode=as_it_stands(), on_unused_input="ignore")
    return dict(zip([v.name for v in outputs], function(start), strict=True))


# ---------------------------------------------------------------------- sampling
@dataclass(frozen=True, eq=False)
class _Compiled:
    """What nutpie compiled, with what tells whether it serves another model."""

    model: Any
    names: tuple[str, ...]
    nutpie: Any


_KEPT: list[_Compiled] = []


def sample(model: Any, settings: Settings) -> Sampled:
    """Sample a model by nutpie.

    Parameters
    ----------
    model : pymc.Model
    settings : Settings
        Equal seeds give equal draws.
    """
    names = tuple(v.name for v in model.free_RVs) + tuple(v.name for v in model.deterministics if v.ndim == 0)
    kept = next((k for k in _KEPT if k.names == names and same_structure(k.model, model)), None)
    if kept is None:
        import nutpie

        kept = _Compiled(model, names, nutpie.compile_pymc_model(model, var_names=list(names)))
        if not _starts_depend_on_data(model):
            _KEPT.insert(0, kept)
            del _KEPT[N_KEPT:]
        ready = kept.nutpie
    else:
        data = {name: variable.get_value() for name, variable in _data(model).items()}
        ready = kept.nutpie.with_data(**{name: data[name] for name in kept.nutpie.shared_data if name in data})
    trace = run_chains(ready, settings)
    draws = {name: np.asarray(trace.posterior[name], dtype=float) for name in names}
    return Sampled(draws, int(trace.sample_stats["diverging"].sum()))


def _data(model: Any) -> dict[str, Any]:
    from pytensor.compile.sharedvalue import SharedVariable

    return {str(v.name): v for v in model.named_vars.values() if isinstance(v, SharedVariable)}


def _lengths(model: Any) -> dict[str, Any]:
    """Variables that hold the lengths of named dimensions."""
    return {f"length of {k}": v for k, v in model.dim_lengths.items() if hasattr(v, "get_value")}


def _starts_depend_on_data(model: Any) -> bool:
    """Whether a prior reads data: its starting values would stay those of the data that it was compiled with."""
    from pytensor.graph.traversal import ancestors

    data = set(_data(model).values())
    return any(v in data for v in ancestors(model.free_RVs))


def _structure(model: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Names, shapes and fixed sizes; what a model computes; and the variables that it computes it from."""
    from pytensor.graph.traversal import ancestors

    numbers = [v for v in model.deterministics if v.ndim == 0]
    outputs = [model.logp(), *model.replace_rvs_by_values(numbers)]
    data, lengths = _data(model), _lengths(model)
    read = set(ancestors(outputs))
    sizes = [(name, int(v.get_value())) for name, v in lengths.items() if v in read]
    shapes = [(name, np.shape(v)) for name, v in model.initial_point(0).items()]
    return (
        [shapes, list(data), list(lengths), sizes, len(outputs)],
        outputs,
        [*model.value_vars, *data.values(), *lengths.values()],
    )


def same_structure(one: Any, other: Any) -> bool:
    """Whether two models differ in the values of their data only."""
    from pytensor.graph.basic import equal_computations

    if one is other:
        return True
    facts, outputs, inputs = zip(*map(_structure, (one, other)), strict=True)
    return bool(facts[0] == facts[1] and equal_computations(*map(list, outputs), *map(list, inputs)))
