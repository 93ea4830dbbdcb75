"""Save and load fitted models without pickle: arrays as safetensors, everything else as JSON in its header.

Loading runs no code from the file: it looks classes up by name among causalsat's and scikit-learn's estimators
and dataclasses, makes empty instances and fills in their attributes. Anything else is refused. A checksum of all of
it is in the file, so that a damaged file is not taken for a model, and what was loaded is used once on an average
unit, so that a file without a part is not taken for one either; memory is bounded by the size of the file. What a
model remembers may be addresses of imagery, which are read when it is used and not when it is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Mapping
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path, PurePath
from types import MemberDescriptorType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.files import add_arrays, whole_file, writing
from causalsat.exceptions import CausalsatError, ModelFileError, OutputError, ParameterError
from causalsat.moved_classes import MOVED
from causalsat.version import __version__

__all__ = ["digest", "load", "save"]

LOG = logging.getLogger(__name__)
FORMAT = 1
CHECKSUM = "causalsat-sha256"
_MODULE = re.compile(r"(causalsat|sklearn)(\.[A-Za-z_]\w*)*")
_ARRAY_KINDS = "biuf"
_SIMPLE = ("sklearn.preprocessing._data", "sklearn.decomposition", "sklearn.linear_model", "sklearn.impute._base")


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator, encoder or scikit-learn Pipeline of them to one file.

    The file is written beside its place and moved there at the end, so an interrupted save leaves the old one.

    Parameters
    ----------
    model : estimator
        A causalsat estimator or encoder, or a scikit-learn Pipeline or ColumnTransformer of such.
    path : path-like
        Where to write; the usual suffix is ``.safetensors``.

    Raises
    ------
    ModelFileError
        If an attribute cannot be stored without pickle; the message names it.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> scaler = StandardScaler().fit(np.arange(6.0).reshape(3, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(scaler, f"{folder}/scaler.safetensors")
    ...     load(f"{folder}/scaler.safetensors").mean_
    array([2., 3.])
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[Any]] = {}
    header = {"format": FORMAT, "version": __version__, "model": _encode(model, arrays, type(model).__name__)}
    header["arrays"] = _shapes(arrays)
    text, target = json.dumps(header), Path(path)
    try:
        with writing(target), whole_file(target) as temporary:
            save_file(arrays, temporary, metadata={"causalsat": text, CHECKSUM: _checksum(text, arrays)})
    except SafetensorError as error:
        raise OutputError(
            f"{target} cannot be written ({error})", todo="free space, or choose another folder"
        ) from error
    LOG.info("saved a %s in %s", type(model).__name__, target)


def load(path: str | os.PathLike[str], *, modules: Any = None) -> Any:
    """Read what :func:`save` wrote.

    Parameters
    ----------
    path : path-like
        A file written by :func:`save` or by an estimator's ``save`` method.
    modules : torch.nn.Module, callable, mapping or collection of str, optional
        For a model with a :class:`ModuleEncoder`, whose module is code that no file holds: the module again (or a
        function that makes it); a mapping of the names in the file to modules; or the references
        (``"package.module:factory"``) in it that are trusted to be imported. Weights must be those of the fit.
        Without it such a model loads, and says what is missing when it is used.

    Returns
    -------
    estimator
        Equal to the saved one: it gives the same predictions.

    Raises
    ------
    ModelFileError
        If the file is not there, is damaged, was saved by a later version, is not a causalsat model or names a class
        that is not allowed; or if the model in it cannot be used, because arrays are missing or have other shapes.
    """
    from safetensors import SafetensorError, safe_open

    source = Path(path)
    if not source.is_file():
        raise ModelFileError(f"no file {source.name!r}", expected="a model file", todo=f"check the path {source}")
    try:
        with safe_open(source, framework="numpy") as file:
            found = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        text = found.get("causalsat")
        if text is None:
            raise ModelFileError(f"{source.name} is a safetensors file without a causalsat header", todo=_REMEDY)
        if found.get(CHECKSUM, "") != _checksum(text, arrays) and (CHECKSUM in found or len(found) > 1):
            raise ModelFileError(
                f"{source.name} is damaged: its checksum is another", todo="copy it again, or " + _REMEDY
            )
        header = json.loads(text)
    except ModelFileError:
        raise
    except (SafetensorError, OSError, ValueError, RecursionError, TypeError) as error:
        raise ModelFileError(f"{source.name} cannot be read ({error})", todo=_REMEDY) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFileError(
            f"{source.name} has format {header.get('format') if isinstance(header, dict) else None!r}",
            expected=f"format {FORMAT} (this is causalsat {__version__})",
            todo="load it with the version that saved it",
        )
    _check_version(header, source.name)
    _check_shapes(header, arrays, source.name)
    try:
        model = _decode(header["model"], arrays)
        if modules is not None:
            _give_modules(model, modules)
    except (ModelFileError, ParameterError):
        raise
    except Exception as error:  # a header that is JSON but not ours
        raise ModelFileError(f"{source.name} is damaged ({type(error).__name__}: {error})", todo=_REMEDY) from error
    _try_out(model, source.name)
    return model


_REMEDY = "save the model again with causalsat.save"


def digest(model: Any) -> str:
    """SHA-256 of everything that :func:`save` would write: equal for equal fitted models.

    Parameters
    ----------
    model : estimator
        As for :func:`save`.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    arrays: dict[str, NDArray[Any]] = {}
    structure = _encode(model, arrays, type(model).__name__)
    sha = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
    for key in sorted(arrays):
        array = arrays[key]
        sha.update(f"{key} {array.dtype.str} {array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _checksum(text: str, arrays: dict[str, NDArray[Any]]) -> str:
    """SHA-256 of a model's structure and arrays."""
    sha = hashlib.sha256(text.encode())
    add_arrays(sha, arrays)
    return sha.hexdigest()


def _give_modules(value: Any, modules: Any) -> None:
    """Hand the user's modules to every part of a model that was saved with the name of one."""
    if hasattr(type(value), "_take_modules"):
        value._take_modules(modules)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            _give_modules(part, modules)
    elif isinstance(value, dict):
        for part in value.values():
            _give_modules(part, modules)
    elif _MODULE.fullmatch(type(value).__module__) and hasattr(value, "__dict__"):
        for part in list(vars(value).values()):
            _give_modules(part, modules)


# ---------------------------------------------------------------------- what was read is whole
def _shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    return {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}


def _check_version(header: Mapping[str, Any], name: str) -> None:
    """Refuse what a later version saved, which may mean something else by it."""
    version = header.get("version", "0")
    numbers, own = (re.findall(r"\d+", str(text).partition("+")[0])[:3] for text in (version, __version__))
    if not numbers or [int(n) for n in numbers] > [int(n) for n in own]:
        raise ModelFileError(
            f"{name} was saved by causalsat {str(version)[:40]}",
            expected=f"a file of this version, {__version__}, or of an earlier one",
            todo="load it with the version that saved it: pip install --upgrade causalsat",
        )


def _check_shapes(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], name: str) -> None:
    """Refuse arrays that are not those of the header, which lists them in files of this version."""
    listed = header.get("arrays")
    if listed is None:
        return
    present = _shapes(arrays)
    if not isinstance(listed, dict) or listed != present:
        known = listed if isinstance(listed, dict) else {}
        wrong = sorted(key for key in {*known, *present} if known.get(key) != present.get(key))
        raise ModelFileError(
            f"{name} is damaged: arrays {', '.join(wrong[:5])} are missing or of another shape than its header says",
            todo="copy it again, or " + _REMEDY,
        )


def _try_out(model: Any, name: str) -> None:
    """Use what was loaded once, so that missing or misshapen parts are found here and not in the middle of a map."""
    for step in [step for _, step in model.steps] if hasattr(model, "steps") else [model]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if hasattr(type(step), "_try_out"):
                    step._try_out()
                elif type(step).__module__.startswith(_SIMPLE) and hasattr(step, "n_features_in_"):
                    (step.transform if hasattr(step, "transform") else step.predict)(
                        np.zeros((1, step.n_features_in_))
                    )
        except ModelFileError:
            raise
        except CausalsatError as error:  # such as a package that is not installed: said again when it is used
            LOG.info("%s could not be tried: %s", name, error)
        except Exception as error:
            raise ModelFileError(
                f"{name} is damaged: its {type(step).__name__} cannot be used ({type(error).__name__}: {error})",
                expected="all parts of a fitted model, in their shapes",
                todo="copy it again, or " + _REMEDY,
            ) from error


# ---------------------------------------------------------------------- encoding
def _encode(value: Any, arrays: dict[str, NDArray[Any]], where: str) -> Any:
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if isinstance(value, np.generic):
        return {"$scalar": _encode(np.asarray(value), arrays, where)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, np.ndarray):
        return _encode_array(value, arrays, where)
    if isinstance(value, dict):
        pairs = [[_encode(k, arrays, where), _encode(v, arrays, f"{where}[{k!r}]")] for k, v in value.items()]
        return {"$dict": pairs}
    for kind, tag in ((list, "$list"), (tuple, "$tuple"), (set, "$set"), (frozenset, "$frozenset")):
        if type(value) is kind:
            items = sorted(value, key=repr) if kind in (set, frozenset) else value
            return {tag: [_encode(v, arrays, f"{where}[{i}]") for i, v in enumerate(items)]}
    if isinstance(value, slice):
        return {"$slice": [_encode(v, arrays, where) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, PurePath):
        return {"$path": str(value)}
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return {"$dtype": np.dtype(value).str}
    if value is float or value is int or value is bool:
        return {"$builtin": value.__name__}
    special = _encode_special(value, arrays, where)
    return special if special is not None else _encode_object(value, arrays, where)


def _encode_array(value: NDArray[Any], arrays: dict[str, NDArray[Any]], where: str) -> Any:
    if value.dtype.kind in _ARRAY_KINDS:
        if value.dtype.itemsize > 8:
            raise _refuse(value, where)
        if value.flags.f_contiguous and not value.flags.c_contiguous:  # the layout decides the last bits of a product
            return {"$transposed": _encode_array(value.T, arrays, where)}
        key = f"a{len(arrays)}"
        arrays[key] = (
            np.ascontiguousarray(value).reshape(value.shape).astype(value.dtype.newbyteorder("="), copy=True)
        )
        return {"$array": key}
    if value.dtype.kind in "mM":
        code = _encode_array(value.astype(np.int64), arrays, where)
        return {"$datetimes": [value.dtype.str, code]}
    if value.dtype.kind in "UO":
        items = [_encode(v, arrays, where) for v in value.ravel().tolist()]
        return {"$objects": [value.dtype.str, list(value.shape), items]}
    raise _refuse(value, where)


def _encode_special(value: Any, arrays: dict[str, NDArray[Any]], where: str) -> Any:
    """Coordinate systems, affine transforms and in-memory rasters, known by their module and class."""
    name = f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"
    if name == "pyproj.CRS":
        return {"$crs": value.to_wkt()}
    if name == "affine.Affine":
        return {"$affine": [float(v) for v in tuple(value)[:6]]}
    if name == "xarray.DataArray":
        coords = {str(k): [list(c.dims), c.values] for k, c in value.coords.items()}
        parts = [list(value.dims), value.values, coords, dict(value.attrs), value.name]
        return {"$dataarray": _encode(parts, arrays, where)}
    return None


def _encode_object(value: Any, arrays: dict[str, NDArray[Any]], where: str) -> Any:
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if not _allowed(kind) or not _MODULE.fullmatch(kind.__module__):
        raise _refuse(value, where)
    transient = set(getattr(kind, "_transient", ()))
    state = value._saved_state() if hasattr(kind, "_saved_state") else vars(value)
    fields = {k: v for k, v in state.items() if k not in transient and not _is_memory(kind, k)}
    fields |= {k: None for k in state if _is_memory(kind, k)}
    return {"$object": name, "state": {k: _encode(v, arrays, f"{where}.{k}") for k, v in fields.items()}}


def _is_memory(kind: type, attribute: str) -> bool:
    """Whether an attribute is scikit-learn's ``memory``: a folder of pickles, which would be loaded from there."""
    return attribute == "memory" and kind.__module__.startswith("sklearn.")


def _refuse(value: Any, where: str) -> ModelFileError:
    kind = type(value)
    return ModelFileError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be saved without pickle",
        expected="numbers, strings, arrays, and estimators of causalsat or scikit-learn made of those",
        todo="use an integer random_state, pass names instead of functions, wrap a torch module in a ModuleEncoder, "
        "or save the causalsat steps only",
    )


def _allowed(kind: type) -> bool:
    from sklearn.base import BaseEstimator

    return issubclass(kind, BaseEstimator) or (
        dataclasses.is_dataclass(kind) and kind.__module__.startswith("causalsat.")
    )


# ---------------------------------------------------------------------- decoding
def _decode(code: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if not isinstance(code, dict):
        if isinstance(code, list):
            raise ModelFileError("a bare list in a model header", todo=_REMEDY)
        return code
    if "$object" in code:
        return _decode_object(code, arrays)
    ((tag, body),) = code.items()
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](_decode(v, arrays) for v in body)
    if tag == "$dict":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in body}
    if tag == "$array":
        return arrays[body]
    if tag == "$transposed":
        return _decode(body, arrays).T
    if tag == "$scalar":
        return _decode(body, arrays)[()]
    if tag == "$float":
        return float(body)
    if tag == "$path":
        return Path(body)
    if tag == "$slice":
        return slice(*(_decode(v, arrays) for v in body))
    if tag == "$dtype":
        return np.dtype(body)
    if tag == "$builtin":
        return {"float": float, "int": int, "bool": bool}[body]
    return _decode_special(tag, body, arrays)


_SEQUENCES: dict[str, Any] = {"$list": list, "$tuple": tuple, "$set": set, "$frozenset": frozenset}


def _decode_special(tag: str, body: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if tag == "$datetimes":
        if np.dtype(body[0]).kind not in "mM":
            raise ModelFileError(f"dates of type {body[0]!r} in a model header", todo=_REMEDY)
        return _decode(body[1], arrays).astype(np.dtype(body[0]))
    if tag == "$objects":
        dtype, shape, items = body
        longest = max((len(v) for v in items if isinstance(v, str)), default=0)
        if np.dtype(dtype).kind not in "OU" or np.dtype(dtype).itemsize > 4 * (longest + 4096):
            raise ModelFileError(f"texts of type {dtype!r} in a model header", todo=_REMEDY)
        out = np.empty(len(items), dtype=object)
        out[:] = [_decode(v, arrays) for v in items]
        return (out if dtype.endswith("O") else out.astype(np.dtype(dtype))).reshape(shape)
    if tag == "$crs":
        from pyproj import CRS

        return CRS.from_wkt(body)
    if tag == "$affine":
        from affine import Affine

        return Affine(*body)
    if tag == "$dataarray":
        import xarray as xr

        dims, values, coords, attrs, name = _decode(body, arrays)
        return xr.DataArray(
            values, dims=dims, coords={k: (tuple(d), v) for k, (d, v) in coords.items()}, attrs=attrs, name=name
        )
    raise ModelFileError(f"unknown tag {tag!r} in a model header", todo=_REMEDY)


def _decode_object(code: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
    kind = _resolve(code["$object"])
    made = kind.__new__(kind)
    for key, value in code["state"].items():
        _check_attribute(kind, key)
        vars(made)[key] = None if _is_memory(kind, key) else _decode(value, arrays)
    for name, default in _defaults(kind).items():
        if name in vars(made):
            continue
        if default is inspect.Parameter.empty:
            raise ModelFileError(f"a {kind.__name__} without its {name!r} in a model header", todo=_REMEDY)
        vars(made)[name] = default() if isinstance(default, _Factory) else default  # of before there was this one
    return made


def _check_attribute(kind: Any, name: str) -> None:
    """Refuse an attribute that would take the place of what the class does: a method, or a property."""
    known = inspect.getattr_static(kind, name, None)
    if (
        not name.isidentifier()
        or name.startswith("__")
        or (hasattr(type(known), "__get__") and not isinstance(known, cached_property | MemberDescriptorType))
    ):
        raise ModelFileError(
            f"attribute {name!r} of a {kind.__name__} in a model header",
            expected="parameters and fitted parts",
            todo="do not use the file: no version of causalsat writes this",
        )


class _Factory:
    """What makes a field's default."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __call__(self) -> Any:
        return self.make()


@lru_cache(maxsize=512)
def _defaults(kind: Any) -> dict[str, Any]:
    """Defaults of a dataclass's fields, or of an estimator's parameters; ``Parameter.empty`` where there is none."""
    if dataclasses.is_dataclass(kind):
        empty, missing = inspect.Parameter.empty, dataclasses.MISSING
        made = {f.name: _Factory(f.default_factory) for f in dataclasses.fields(kind) if f.default_factory != missing}
        return {f.name: empty if f.default is missing else f.default for f in dataclasses.fields(kind)} | made
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.kind in named}


def _resolve(name: str) -> Any:
    module, _, attribute = name.partition(":")
    moved = MOVED.get(name.removeprefix("causalsat."))
    module = f"causalsat.{moved}" if moved else module
    parts = module.split(".")
    if _MODULE.fullmatch(module) and attribute.isidentifier() and not {"tests", "conftest"} & set(parts):
        try:
            kind = getattr(import_module(module), attribute, None)
        except ImportError:
            kind = None
        if isinstance(kind, type) and kind.__module__ == module and _allowed(kind):
            return kind
    raise ModelFileError(
        f"the file names the class {name!r}",
        expected="an estimator or dataclass of causalsat, or an estimator of scikit-learn, of this installation",
        todo="load it with the version that saved it; do not load files from people you do not trust",
    )
