"""A deterministic of a PyMC model as a function of its variables and of new places, written down without code.

A deterministic is a graph of PyTensor's operations. Its inputs are the model's free variables, whose draws are known,
and the data ``X`` and ``treatment``; other data are constants. The graph is written down as names of operations with
their settings, which a file can hold, and read back as the same graph. Only operations of PyTensor's tensor
arithmetic are read: a file names no other code, and they have no loops, no files and no random numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np

from causalsat.core.inputs import FloatArray
from causalsat.exceptions import ModelFileError, ParameterError

__all__ = [
    "FEATURES",
    "FEATURE_INPUT",
    "LEVEL_INPUT",
    "TREATMENT",
    "Expression",
    "Graph",
    "as_it_stands",
    "compiled",
    "graph_of",
    "read",
    "written",
]

FEATURES, TREATMENT = "X", "treatment"  # names of the data that are replaced at new places
FEATURE_INPUT, LEVEL_INPUT = "data X", "data treatment"  # of the inputs, whose other names are those of variables
OPERATIONS = (  # modules of pytensor.tensor
    *("basic", "blockwise", "elemwise", "extra_ops", "linalg", "math", "nlinalg", "shape", "slinalg", "sort"),
    *("special", "subtensor", "type_other"),
)
HANDING_ON = ("DeepCopyOp", "ParameterValueCheck", "ViewOp")
SCALARS = ("pytensor.scalar.basic", "pytensor.scalar.math")


@dataclass(frozen=True, eq=False)
class Graph:
    """A deterministic cut at its inputs.

    Attributes
    ----------
    inputs : dict of str to Variable
        Free variables, and the data ``X`` and ``treatment``, as far as they are read; new variables of their types.
    output : Variable
        Of no or one dimension, a function of the inputs.
    constants : dict of str to shape
        Other data that are read, as they were at the fit.
    """

    inputs: dict[str, Any]
    output: Any
    constants: dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Expression:
    """A graph written down.

    Attributes
    ----------
    inputs : tuple of (name, dtype, shape)
        Inputs; sizes are None where they may differ.
    nodes : tuple of (operation, arguments)
        In an order in which each follows its arguments. An argument is ``("input", i)``, ``("constant", i)`` or
        ``("node", i, k)``, the k-th output of node i.
    constants : tuple
        Arrays, or what stands for other constants.
    output : tuple
        An argument, the result.
    """

    inputs: tuple[tuple[str, str, tuple[int | None, ...]], ...]
    nodes: tuple[tuple[Any, tuple[tuple[Any, ...], ...]], ...]
    constants: tuple[Any, ...]
    output: tuple[Any, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(name for name, _, _ in self.inputs)


# ---------------------------------------------------------------------- from a model
def graph_of(model: Any, name: str) -> Graph:
    """The graph of a model's deterministic.

    Parameters
    ----------
    model : pymc.Model
    name : str
        Of the deterministic.

    Raises
    ------
    ParameterError
        If it has other dimensions than one (units), or depends on random numbers or observed outcomes.
    """
    from pytensor.compile.sharedvalue import SharedVariable
    from pytensor.graph.replace import clone_replace

    output = model[name]
    if output.ndim > 1:
        raise ParameterError(
            f"a deterministic {name!r} of {output.ndim} dimensions",
            expected="one number a unit",
            todo="sum or index it",
        )
    free = {variable: variable.name for variable in model.free_RVs}
    named = ((model.named_vars.get(FEATURES), FEATURE_INPUT), (model.named_vars.get(TREATMENT), LEVEL_INPUT))
    replaced = {variable: name for variable, name in named if isinstance(variable, SharedVariable)}
    inputs, constants, values = {}, {}, {}
    for variable in _upstream(output, stop={*free, *replaced}):
        own = free.get(variable) or replaced.get(variable)
        if own is not None:
            inputs[own] = values[variable] = variable.type() if variable in free else _open(variable)
        elif isinstance(variable, SharedVariable):
            values[variable] = variable.type.filter_variable(_constant(variable))
            constants[variable.name or ""] = np.shape(variable.get_value())
        elif variable.owner is not None and _is_random(variable.owner.op):
            raise ParameterError(
                f"a deterministic {name!r} that depends on the random variable {variable.name or variable.owner.op}",
                expected="a function of X, treatment and the model's unobserved variables",
                todo="leave noise and observed outcomes out of it",
            )
    (output,) = clone_replace([output], replace=values)
    return Graph(inputs, output, constants)


def _open(variable: Any) -> Any:
    """An input like a data variable, of any number of units."""
    import pytensor.tensor as pt

    return pt.tensor(dtype=variable.dtype, shape=(None,) * variable.ndim)


def _constant(shared: Any) -> Any:
    import pytensor.tensor as pt

    return pt.constant(np.array(shared.get_value()), dtype=shared.dtype)


def _is_random(op: Any) -> bool:
    from pymc.distributions.distribution import SymbolicRandomVariable
    from pytensor.tensor.random.op import RandomVariable

    return isinstance(op, RandomVariable | SymbolicRandomVariable)


def _upstream(output: Any, stop: set[Any]) -> Iterable[Any]:
    """Every variable that an output is made of, down to ``stop``."""
    seen, waiting = set(), [output]
    while waiting:
        variable = waiting.pop()
        if variable in seen:
            continue
        seen.add(variable)
        yield variable
        if variable not in stop and variable.owner is not None and not _is_random(variable.owner.op):
            waiting.extend(variable.owner.inputs)


# ---------------------------------------------------------------------- evaluated
def as_it_stands() -> Any:
    """PyTensor's mode that runs each operation in NumPy and rewrites nothing: ready at once, the same bits always."""
    from pytensor.compile.mode import Mode

    return Mode(linker="py", optimizer=cast("Any", None))


def compiled(graph: Graph) -> Callable[..., FloatArray]:
    """The graph as a function of its inputs by name, in NumPy: each operation as it stands, nothing rewritten."""
    import pytensor

    inputs = list(graph.inputs.values())
    function = pytensor.function(inputs, graph.output, mode=as_it_stands(), on_unused_input="ignore")
    function.trust_input = True  # arrays are made of the right types below
    types = {name: (variable.dtype, variable.ndim) for name, variable in graph.inputs.items()}

    def evaluate(values: Mapping[str, Any]) -> FloatArray:
        arrays = [np.asarray(values[name], dtype=dtype) for name, (dtype, _) in types.items()]
        return np.asarray(function(*arrays), dtype=float)

    return evaluate


# ---------------------------------------------------------------------- written down
def written(graph: Graph) -> Expression:
    """A graph written down.

    Raises
    ------
    ModelFileError
        If it has an operation that a file cannot hold; the message names it.
    """
    places: dict[Any, tuple[Any, ...]] = {v: ("input", i) for i, v in enumerate(graph.inputs.values())}
    constants: list[Any] = []
    nodes: list[Any] = []
    waiting = [graph.output]
    while waiting:
        variable = waiting[-1]
        if variable in places:
            waiting.pop()
        elif variable.owner is None:
            places[variable] = ("constant", len(constants))
            constants.append(_written_constant(variable))
        elif _hands_on(variable.owner.op) and variable.owner.inputs[0] in places:
            places[variable] = places[variable.owner.inputs[0]]
        elif missing := [v for v in _arguments(variable.owner) if v not in places]:
            waiting.extend(missing)
        else:
            node = variable.owner
            nodes.append((_written_op(node.op), tuple(places[v] for v in node.inputs)))
            places |= {v: ("node", len(nodes) - 1, k) for k, v in enumerate(node.outputs)}
    inputs = tuple((name, str(v.dtype), tuple(v.type.shape)) for name, v in graph.inputs.items())
    return Expression(inputs, tuple(nodes), tuple(constants), places[graph.output])


def _arguments(node: Any) -> list[Any]:
    return list(node.inputs[:1] if _hands_on(node.op) else node.inputs)


def _hands_on(op: Any) -> bool:
    """Whether an operation hands its first argument on: views, copies, and checks, which raise an error."""
    return type(op).__module__ == "pytensor.raise_op" or type(op).__name__ in HANDING_ON


def _written_constant(variable: Any) -> Any:
    data = getattr(variable, "data", variable)
    kind = type(variable.type).__name__
    if kind == "TensorType" and isinstance(data, np.ndarray):
        return np.array(data)
    if kind == "ScalarType":
        return ("scalar", str(variable.type.dtype), np.asarray(data).item())
    if kind == "NoneTypeT":
        return ("none",)
    if kind == "SliceType":
        return ("slice", *(None if v is None else int(v) for v in (data.start, data.stop, data.step)))
    raise _not_written(f"a constant of type {kind}")


def _written_op(op: Any) -> Any:
    """An operation by name: an instance of a module of scalar arithmetic, or a class with its settings."""
    module = type(op).__module__
    if module in SCALARS:
        name = next((k for k, v in vars(import_module(module)).items() if type(v) is type(op) and v == op), None)
        if name is not None:
            return ("scalar", module, name)
    settings = getattr(op, "__props__", None)
    if not _is_operation(module) or settings is None:
        raise _not_written(f"the operation {type(op).__qualname__} of {module}")
    taken = inspect.signature(type(op).__init__).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    chosen = [name for name in settings if name in taken or open_ended]
    code = ("op", module, type(op).__qualname__, tuple((k, _written_setting(getattr(op, k))) for k in chosen))
    try:
        again = _read_op(code)
    except TypeError as error:
        raise _not_written(f"the operation {type(op).__qualname__} with its settings") from error
    if again != op:
        raise _not_written(f"the operation {type(op).__qualname__} with its settings")
    return code


def _is_operation(module: str) -> bool:
    inside = module.removeprefix("pytensor.tensor.")
    return module in SCALARS or (inside != module and inside.partition(".")[0] in OPERATIONS)


def _written_setting(value: Any) -> Any:
    from pytensor.graph.op import Op
    from pytensor.scalar import ScalarType

    if value is None or isinstance(value, bool | str | float) or type(value) is int:
        return value
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, tuple | list):
        return ("tuple", *(_written_setting(v) for v in value))
    if isinstance(value, slice):
        return ("slice", *(_written_setting(v) for v in (value.start, value.stop, value.step)))
    if isinstance(value, Mapping) and not value:
        return ("none",)
    if isinstance(value, ScalarType):
        return ("type", str(value.dtype))
    if isinstance(value, Op):
        return _written_op(value)
    raise _not_written(f"a setting {value!r}")


def _not_written(what: str) -> ModelFileError:
    return ModelFileError(
        f"the model's effect has {what}, which a file without code cannot hold",
        expected="arithmetic of pytensor.tensor on X, treatment and the model's variables",
        todo="write the effect in those, or keep its draws: effect(X).to_xarray().to_netcdf(path)",
    )


# ---------------------------------------------------------------------- read back
def read(expression: Expression) -> Graph:
    """The graph of an expression.

    Raises
    ------
    ModelFileError
        If it names anything but arithmetic of PyTensor.
    """
    import pytensor.tensor as pt

    inputs = {name: pt.tensor(dtype=dtype, shape=shape) for name, dtype, shape in expression.inputs}
    variables = list(inputs.values())
    constants = [_read_constant(code) for code in expression.constants]
    outputs: list[list[Any]] = []

    def argument(place: tuple[Any, ...]) -> Any:
        kind, i, *k = place
        if kind == "node":
            return outputs[i][k[0]]
        return variables[i] if kind == "input" else constants[i]

    for code, arguments in expression.nodes:
        outputs.append(_read_op(code).make_node(*map(argument, arguments)).outputs)
    return Graph(inputs, argument(expression.output), {})


def _read_constant(code: Any) -> Any:
    import pytensor.tensor as pt
    from pytensor.scalar import ScalarConstant, get_scalar_type
    from pytensor.tensor.type_other import NoneConst, SliceConstant, slicetype

    if isinstance(code, np.ndarray):
        return pt.constant(code, dtype=code.dtype)
    if code[0] == "scalar":
        return ScalarConstant(get_scalar_type(code[1]), np.dtype(code[1]).type(code[2]))
    return NoneConst if code[0] == "none" else SliceConstant(slicetype, slice(*code[1:]))


def _read_op(code: Any) -> Any:
    from pytensor.graph.op import Op

    kind, module, name, *settings = code
    if not _is_operation(module):
        raise ModelFileError(
            f"the file names an operation of {module!r}",
            expected="arithmetic of pytensor.tensor",
            todo="do not load files from people you do not trust",
        )
    found = getattr(import_module(module), name, None)
    if kind == "scalar":
        if isinstance(found, Op):
            return found
    elif isinstance(found, type) and issubclass(found, Op) and found.__module__ == module:
        return found(**{key: _read_setting(value) for key, value in settings[0]})
    raise ModelFileError(
        f"the file names the operation {name!r}, which this PyTensor lacks",
        todo="load it with the versions of PyMC and PyTensor that saved it",
    )


def _read_setting(code: Any) -> Any:
    from pytensor.scalar import get_scalar_type

    if not isinstance(code, tuple):
        return code
    kind, *rest = code
    if kind == "tuple":
        return tuple(map(_read_setting, rest))
    if kind == "slice":
        return slice(*map(_read_setting, rest))
    if kind == "type":
        return get_scalar_type(rest[0])
    return {} if kind == "none" else _read_op(code)
