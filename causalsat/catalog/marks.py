"""YAML that remembers on which line each key stands, and errors that say so.

Only plain data is read (PyYAML's SafeLoader); a tag that would make an object is refused, and so is a file whose
anchors unfold to more than any catalogue needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from causalsat.exceptions import CatalogError
from causalsat.study.building import close_matches, list_names

Path_ = tuple[Any, ...]

MAX_BYTES = 8 << 20
MAX_NODES = 200_000


@dataclass(frozen=True)
class Marked:
    """Plain data of a YAML file and the line of each key.

    Attributes
    ----------
    file : Path
        The file.
    data : Any
        Dicts, lists and scalars.
    lines : dict of key path to int
        Line (from 1) of each key; a key path is a tuple such as ``("datasets", "uganda_yop", "units")``.
    """

    file: Path
    data: Any
    lines: dict[Path_, int]

    def where(self, path: Path_) -> str:
        """File and line of a key, or of the nearest key above it."""
        for depth in range(len(path), 0, -1):
            if path[:depth] in self.lines:
                return f"{self.file}, line {self.lines[path[:depth]]}"
        return str(self.file)


def read_yaml(file: Path) -> Marked:
    """Read a YAML file of plain data.

    Raises
    ------
    CatalogError
        If the file does not exist, is not YAML, repeats a key, indents by tabs or holds a tag for an object.
    """
    try:
        if file.is_file() and file.stat().st_size > MAX_BYTES:
            raise CatalogError(f"{file} has {file.stat().st_size:,} bytes", expected=f"at most {MAX_BYTES:,}")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CatalogError(f"{file} does not exist", expected="a data catalogue", todo="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{file} cannot be read: {error}", expected="a text file in UTF-8") from error
    lines: dict[Path_, int] = {}
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None and _unfolded(root, {}) > MAX_NODES:
            raise CatalogError(
                f"{file}: anchors and aliases that unfold to more than {MAX_NODES:,} values",
                todo="write the values out, or do not use a catalogue of people you do not trust",
            )
        data = None if root is None else _plain(loader, root, (), lines, file)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(file, error) from error
    except (RecursionError, yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, CatalogError):
            raise
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise CatalogError(
            f"{file} cannot be read: {reason}",
            expected="key: value pairs of plain words, numbers and dates",
            todo="correct the value, or put it in quotes where it is meant as text",
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    return Marked(file, data, lines)


def _unfolded(node: Any, known: dict[int, float]) -> float:
    """Number of values below a node when every alias is written out; infinite where one holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # while its own parts are counted: only a cycle comes back to it
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in pairs for part in pair]
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


def _plain(loader: yaml.SafeLoader, node: Any, path: Path_, lines: dict[Path_, int], file: Path) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, child, (*path, i), lines, file) for i, child in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    own: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key, line = loader.construct_object(key_node), key_node.start_mark.line + 1
        if not isinstance(key, str | int | float | bool):
            raise CatalogError(f"{file}, line {line}: a key that is no plain word", expected="key: value")
        if key in own:
            raise CatalogError(
                f"{file}, line {line}: key {key!r} a second time (first on line {own[key]})",
                expected="each key once",
                todo="rename or remove one; YAML would silently keep the last",
            )
        own[key] = line
    loader.flatten_mapping(node)  # keys merged by << come first, the mapping's own override them
    found: dict[Any, Any] = {}
    for key_node, child in node.value:
        key = loader.construct_object(key_node)
        lines[(*path, key)] = key_node.start_mark.line + 1
        found[key] = _plain(loader, child, (*path, key), lines, file)
    return found


def _syntax_error(file: Path, error: yaml.MarkedYAMLError) -> CatalogError:
    mark = error.problem_mark or error.context_mark
    line = f", line {mark.line + 1}" if mark else ""
    problem = str(error.problem or error)
    if "\\t" in problem or "tab" in problem.lower():
        return CatalogError(
            f"{file}{line}: a tab in the indentation", expected="spaces", todo="replace each tab by two spaces"
        )
    if "could not determine a constructor" in problem:
        return CatalogError(
            f"{file}{line}: a tag ({problem.split('tag')[-1].strip()})",
            expected="plain words, numbers, lists and mappings: a catalogue holds no code",
            todo="remove the tag",
        )
    return CatalogError(
        f"{file}{line}: not valid YAML: {problem}",
        expected="key: value pairs, indented by spaces",
        todo="look at this line and the one above: a missing colon, quote or bracket?",
    )


def explain(error: ValidationError, model: type[BaseModel], marked: Marked, at: Path_, entry: str) -> CatalogError:
    """Turn pydantic's errors into one CatalogError that names file, line, entry and key."""
    told = [_one(problem, model, marked, at, entry) for problem in error.errors()]
    first = told[0]
    seen = {first[0]}
    others = [what for what, _, _ in told[1:] if not (what in seen or seen.add(what))]  # type: ignore[func-returns-value]
    rest = f"; and {len(others)} more: {'; '.join(others[:3])}" if others else ""
    return CatalogError(first[0] + rest, expected=first[1], todo=first[2])


def _one(problem: Any, model: type[BaseModel], marked: Marked, at: Path_, entry: str) -> tuple[str, str, str]:
    loc = _real_keys(tuple(problem["loc"]), marked, at)
    key = ".".join(str(k) for k in loc) or "the entry"
    where = marked.where((*at, *loc))
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = list(_model_at(model, loc[:-1]).model_fields)
        near = close_matches(str(loc[-1]), known)
        todo = f"did you mean {' or '.join(near)}?" if near else "remove it or correct the spelling"
        return f"{where}: entry {entry!r} has an unknown key {key!r}", f"one of {list_names(known, 20)}", todo
    if kind == "missing":
        return f"{where}: entry {entry!r} has no {key!r}", "this key", f"add {loc[-1]}: ..."
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    got = problem.get("input")
    shown = f" is {got!r}" if isinstance(got, str | int | float | bool | list) or got is None else " cannot be used"
    if isinstance(got, dict) and kind == "value_error":
        shown = " is not complete"
    quote = kind == "string_type" and isinstance(got, int | float)
    return f"{where}: entry {entry!r}, {key}{shown}", message, "put it in quotes" if quote else "correct it there"


def _real_keys(loc: Path_, marked: Marked, at: Path_) -> Path_:
    """Drop the names of union members that pydantic puts into a location."""
    kept: list[str | int] = []
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if (*at, *kept, part) in marked.lines or isinstance(part, int) or (last and "[" not in str(part)):
            kept.append(part)
    if kept and isinstance(kept[-1], str) and kept[-1] in ("str", "int", "float", "bool", "date", "none"):
        kept.pop()
    return tuple(kept)


def _model_at(model: type[BaseModel], loc: Path_) -> type[BaseModel]:
    """The model of a nested key: through Optional and dict values."""
    from typing import get_args

    current = model
    for part in loc:
        info = current.model_fields.get(str(part))
        if info is None:
            continue
        models: list[Any] = [info.annotation]
        while models:
            candidate = models.pop()
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                current = candidate
                break
            models += get_args(candidate)
    return current
