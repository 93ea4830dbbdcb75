"""One digest of content for every cache key: of data, functions, classes and objects, equal in every process.

Results on disk are found again under a key of what they were computed from. Two keys must differ where the results
may: a function counts by its code, constants, defaults, closure and the globals that it uses, a class of the user by
its methods and attributes, an object by its class and state. Code of installed packages counts by its name and the
package's version. What cannot be told apart is refused.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from causalsat.exceptions import ParameterError
from causalsat.version import __version__

__all__ = ["fingerprint"]

_ATOMS = (bool, int, float, complex, str, bytes, bytearray, np.generic, np.dtype, PurePath, range, type(Ellipsis))
_REMEDY = "give its class a __getstate__ that returns what its results depend on, or do without the folder"
_MADE_IN_PYTHON = 1 << 9  # flag of classes that are made while a program runs; others are of compiled code
# of a class: what is no content, or follows from the rest
_NO_CONTENT = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__slotnames__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__", "__static_attributes__"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__abstractmethods__", "_abc_impl"),
        *("__parameters__", "__orig_bases__"),
    )
)


def fingerprint(value: Any) -> str:
    """Deterministic digest of nested content: equal content gives equal digests in every process.

    Attributes named in the ``_transient`` of an object's class are left out. Imagery counts by its own
    ``fingerprint``, which follows its files.

    Parameters
    ----------
    value : object
        Data, estimators, functions, classes, modules of torch and containers of them.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    ParameterError
        If something in the value, which the message names, cannot be told apart from another of its kind.

    Examples
    --------
    >>> fingerprint({"a": np.arange(3)}) == fingerprint({"a": np.array([0, 1, 2])})
    True
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
    False
    """
    return _Walk().digest(value, _short_name(value)).hex()


@dataclass
class _Walk:
    """Digests of one value's parts: what is known already, and what is being looked at (cycles end there)."""

    known: dict[int, tuple[Any, bytes]] = field(default_factory=dict)  # with the object, so that its id stays its own
    unfinished: dict[int, int] = field(default_factory=dict)

    def digest(self, value: Any, where: str) -> bytes:
        """SHA-256 of a value that is at ``where``."""
        atom = _atom(value)
        if atom is not None:
            return hashlib.sha256(atom).digest()
        key = id(value)
        if key in self.known:
            return self.known[key][1]
        if key in self.unfinished:
            return f"again:{len(self.unfinished) - self.unfinished[key]}".encode()
        self.unfinished[key] = len(self.unfinished)
        sha = hashlib.sha256()
        for label, part in _parts(value, where):
            sha.update(f"{label}=".encode())
            sha.update(self._sorted(part, where) if label == "unordered" else self.digest(part, _join(where, label)))
        del self.unfinished[key]
        self.known[key] = (value, sha.digest())
        return sha.digest()

    def _sorted(self, items: Iterable[Any], where: str) -> bytes:
        """Digests of items whose order does not matter."""
        return b"".join(sorted(self.digest(item, _join(where, _item_label(item))) for item in items))


Parts = Iterator[tuple[str, Any]]


def _parts(value: Any, where: str) -> Parts:
    """Labelled parts that make up the content of a compound value, its kind first."""
    for matches, parts in _KINDS:
        if matches(value):
            return parts(value, where)
    return _object(value, where)


def _atom(value: Any) -> bytes | None:
    """Bytes of what has no parts; None of what has."""
    if value is None or isinstance(value, _ATOMS):
        return f"{type(value).__qualname__}:{value!r};".encode(errors="surrogatepass")
    if type(value) is np.ndarray and not value.dtype.hasobject:
        head = f"array:{value.dtype.str}:{value.dtype.descr if value.dtype.names else ''}:{value.shape};".encode()
        return hashlib.sha256(
            head + hashlib.sha256(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data).digest()
        ).digest()
    return None


def _item_label(item: Any) -> str:
    return f"[{item[0]!r}]" if type(item) is tuple and len(item) == 2 and isinstance(item[0], str) else "[...]"


def _join(where: str, label: str) -> str:
    return where + (label if label[:1] in "[." else f".{label}")


def _short_name(value: Any) -> str:
    return str(getattr(value, "__qualname__", "") or type(value).__qualname__)


def _refusal(value: Any, where: str, why: str) -> ParameterError:
    kind = type(value)
    return ParameterError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be told apart from another one ({why})",
        expected="numbers, text, arrays, estimators, functions and classes, for a key under which results are kept",
        todo=_REMEDY,
    )


# ---------------------------------------------------------------------- containers and arrays
def _mapping(value: Any, where: str) -> Parts:
    yield "kind", type(value)
    yield "unordered", [(k, v) for k, v in value.items()]
    yield "state", getattr(value, "__dict__", None)


def _sequence(value: Any, where: str) -> Parts:
    yield "kind", type(value)
    yield from ((f"[{k}]", item) for k, item in enumerate(value))
    yield "state", getattr(value, "__dict__", None)


def _set(value: Any, where: str) -> Parts:
    yield "kind", type(value)
    yield "unordered", value


def _array(value: Any, where: str) -> Parts:
    """An array of objects, or of a subclass of numpy's."""
    yield "kind", type(value)
    if isinstance(value, np.ma.MaskedArray):
        yield "mask", np.ma.getmaskarray(value)
    plain = np.asarray(value)
    if plain.dtype.hasobject:
        yield "shape", plain.shape
        yield from ((f"[{k}]", item) for k, item in enumerate(plain.ravel().tolist()))
    else:
        yield "data", plain
    yield "state", getattr(value, "__dict__", None)


def _tensor(value: Any, where: str) -> Parts:
    """A torch tensor: on any device, of any type, with or without gradients."""
    import torch

    plain = value.detach().to_dense() if value.layout != torch.strided else value.detach()
    flat = plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    yield "tensor", f"{plain.dtype}:{tuple(plain.shape)}"
    yield "data", flat.view(torch.uint8).numpy()


def _scripted(value: Any, where: str) -> Parts:
    """A module or function compiled by torch, as it is saved."""
    import io

    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(value, buffer)
    yield "scripted", buffer.getvalue()


def _pandas(value: Any, where: str) -> Parts:
    yield "kind", type(value)
    if hasattr(value, "columns"):
        yield "columns", value.columns
        yield "index", value.index
        yield from ((f"[{k}]", value.iloc[:, k].array) for k in range(value.shape[1]))
    else:
        yield "index", getattr(value, "index", None)
        yield "names", list(getattr(value, "names", [getattr(value, "name", None)]))
        yield "dtype", str(getattr(value, "dtype", ""))
        yield "categories", getattr(getattr(value, "dtype", None), "categories", None)
        yield "data", np.asarray(value)
    yield "crs", str(getattr(value, "crs", None))


def _xarray(value: Any, where: str) -> Parts:
    yield "kind", type(value)
    yield "dims", [str(d) for d in value.dims]
    yield "coords", {str(k): [list(map(str, c.dims)), np.asarray(c.values)] for k, c in value.coords.items()}
    yield "attrs", dict(value.attrs)
    if hasattr(value, "data_vars"):
        yield "variables", {str(k): v for k, v in value.data_vars.items()}
    else:
        yield "data", np.asarray(value.values)


# ---------------------------------------------------------------------- code
def _function(value: Any, where: str) -> Parts:
    """A Python function: its code and all that the code refers to."""
    library = _library_of(value)
    yield "function", value.__name__ if library is None else [library, value.__module__, value.__qualname__]
    yield "code", value.__code__
    yield "defaults", value.__defaults__
    yield "keyword defaults", value.__kwdefaults__
    names = value.__code__.co_freevars
    cells = value.__closure__ or ()
    yield from ((f"closure {name}", _contents(cell)) for name, cell in zip(names, cells, strict=True))
    yield "attributes", {k: v for k, v in vars(value).items() if k != "__wrapped__"}
    if library is None:
        yield from _globals(value.__code__, value.__globals__)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return "no contents"


def _code(value: Any, where: str) -> Parts:
    names = value.co_varnames[: value.co_argcount + value.co_kwonlyargcount + 2]
    yield "code", [value.co_code, value.co_names, names, value.co_freevars, value.co_cellvars, value.co_flags]
    yield "arguments", [value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount]
    yield "handlers", getattr(value, "co_exceptiontable", b"")
    yield "constants", list(value.co_consts)


def _globals(code: Any, namespace: Mapping[str, Any]) -> Parts:
    """Globals that code refers to: attributes of modules as themselves, so that a module counts by what is used."""
    steps = list(dis.get_instructions(code))
    for k, step in enumerate(steps):
        name = step.argval
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name in namespace:
            found = namespace[name]
            for later in steps[k + 1 :]:
                if not isinstance(found, types.ModuleType) or later.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                    break
                name = f"{name}.{later.argval}"
                found = getattr(found, later.argval, None)
            yield f"global {name}", found
        elif step.opname == "IMPORT_NAME":
            yield f"import {name}", _imported(name, namespace)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant, namespace)


def _imported(name: str, namespace: Mapping[str, Any]) -> Any:
    """What a module that is imported within a function counts by: its version, or its text."""
    package = namespace.get("__package__") or ""
    for full in dict.fromkeys((name, f"{package}.{name}".strip("."))):
        if (library := _library(full.partition(".")[0])) is not None:
            return [library, full]
        try:
            spec = importlib.util.find_spec(full)
        except (ImportError, ValueError, AttributeError):
            continue
        if spec is not None and spec.origin and Path(spec.origin).is_file():
            return Path(spec.origin).read_bytes()
    return name


def _class(value: Any, where: str) -> Parts:
    library = _library_of(value)
    if library is not None or not value.__flags__ & _MADE_IN_PYTHON:
        yield "class", [_library(value.__module__), value.__module__, value.__qualname__]
        return
    yield "class", value.__name__
    yield from ((f"base {k}", base) for k, base in enumerate(value.__bases__))
    left_out = _NO_CONTENT | set(getattr(value, "_transient", ()))
    yield "kind", type(value)
    yield from (
        (name, member)
        for name, member in sorted(vars(value).items())
        if name not in left_out and not isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType)
    )


def _descriptor(value: Any, where: str) -> Parts:
    yield "descriptor", type(value).__qualname__
    parts = [getattr(value, name, None) for name in ("fget", "fset", "fdel", "func", "__func__")]
    yield from ((name, part) for name, part in zip("abcde", parts, strict=True))


def _module(value: Any, where: str) -> Parts:
    """A module as such: its version, or the text of its file."""
    library = _library(value.__name__)
    file = getattr(value, "__file__", None)
    if library is None and not (file and Path(file).is_file()):
        raise _refusal(value, where, "a module without a file")
    yield "module", value.__name__
    yield "text", library if library is not None else Path(str(file)).read_bytes()


def _builtin(value: Any, where: str) -> Parts:
    owner, home = getattr(value, "__self__", None), getattr(value, "__module__", None)
    yield "builtin", [_library(home), home, value.__qualname__]
    yield "owner", None if isinstance(owner, types.ModuleType) else owner


def _method(value: Any, where: str) -> Parts:
    yield "method", value.__func__
    yield "owner", value.__self__


def _library_of(value: Any) -> str | None:
    """The installed package that has this very function or class under its name; else None."""
    home = getattr(value, "__module__", None)
    return _library(home) if _is_in(home, value.__qualname__, value) else None


@functools.lru_cache(maxsize=4096)
def _library(module: str | None) -> str | None:
    """Name and version of the installed package that a module is of; None of the user's own code."""
    top = str(module).partition(".")[0]
    if top == "causalsat":
        return f"causalsat {__version__}"
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return None if top == "__main__" else f"python {sys.version_info[:3]}"
    found = sys.modules.get(top)
    file = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ())), None)
    if file is None and found is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
        file = None if spec is None else spec.origin
    if file is None or not {"site-packages", "dist-packages"} & set(Path(file).parts):
        return None
    try:
        return f"{top} {getattr(found, '__version__', None) or metadata.version(top)}"
    except metadata.PackageNotFoundError:
        return f"{top} {Path(file).stat().st_mtime_ns}"


# ---------------------------------------------------------------------- objects
def _imagery(value: Any, where: str) -> Parts:
    yield "imagery", value.fingerprint()


def _crs(value: Any, where: str) -> Parts:
    yield "crs", str(value.to_wkt())


def _geometry(value: Any, where: str) -> Parts:
    yield "geometry", bytes(value.wkb)


def _cached(value: Any, where: str) -> Parts:
    yield "function", value.__wrapped__


def _compiled(value: Any, where: str) -> Parts:
    yield "function", value.py_func


def _object(value: Any, where: str) -> Parts:
    """Anything else: its class, and the state that copying it would take."""
    yield "kind", type(value)
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        content = value.__reduce_ex__(2) if reduce is None else reduce(value)
    except Exception as error:
        raise _refusal(value, where, str(error)) from error
    if isinstance(content, str):
        if not _is_found(value, content):
            raise _refusal(value, where, "it has only a name")
        yield "name", [_library(getattr(value, "__module__", None) or type(value).__module__), content]
        return
    maker, arguments, state, items, pairs = (*content, None, None, None)[:5]
    if maker is not getattr(copyreg, "__newobj__", None) or arguments != (type(value),):
        yield "maker", maker
        yield from ((f"[{k}]", argument) for k, argument in enumerate(arguments or ()))
    transient = set(getattr(type(value), "_transient", ()))
    for own in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(own, dict):
            yield from ((str(name), own[name]) for name in sorted(own, key=str) if name not in transient)
        else:
            yield "state", own
    yield "items", None if items is None else list(items)
    yield "pairs", None if pairs is None else dict(pairs)


def _is_found(value: Any, name: str) -> bool:
    """Whether a module has this very object under the name, so that the name says all."""
    homes = (getattr(value, "__module__", None), type(value).__module__, "numpy", "scipy.special")
    return any(_is_in(home, name, value) for home in homes)


def _is_in(home: str | None, name: str, value: Any) -> bool:
    found: Any = sys.modules.get(str(home))
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _from(package: str, *attributes: str) -> Callable[[Any], bool]:
    """Whether an object's class or a base of it is of a package, and the object has the attributes."""

    def matches(value: Any) -> bool:
        homes = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
        return package in homes and all(hasattr(value, name) for name in attributes)

    return matches


def _reads_chips(value: Any) -> bool:
    return (
        not isinstance(value, type) and callable(getattr(value, "fingerprint", None)) and hasattr(value, "iter_chips")
    )


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], Parts]], ...] = (
    (_is(Mapping), _mapping),
    (_is(list, tuple), _sequence),
    (_is(set, frozenset), _set),
    (_is(type), _class),
    (_is(types.FunctionType), _function),
    (_is(types.CodeType), _code),
    (_is(types.MethodType), _method),
    (_is(types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType), _builtin),
    (_is(types.ModuleType), _module),
    (_is(property, classmethod, staticmethod, functools.cached_property), _descriptor),
    (_is(functools._lru_cache_wrapper), _cached),
    (_from("numba", "py_func"), _compiled),
    (_reads_chips, _imagery),
    (_is(np.ndarray), _array),
    (_from("torch", "untyped_storage"), _tensor),
    (_from("torch", "save_to_buffer"), _scripted),
    (_from("pandas", "dtype"), _pandas),
    (_from("pandas", "columns", "iloc"), _pandas),
    (_from("xarray", "dims", "coords"), _xarray),
    (_from("shapely", "wkb"), _geometry),
    (_from("pyproj", "to_wkt"), _crs),
)
