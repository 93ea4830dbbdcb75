"""The library never prints; each warning has a class of its own; logs go to loggers below "causalsat"."""

from __future__ import annotations

import ast
import builtins
import logging
from pathlib import Path

import pytest

import causalsat
from causalsat import exceptions

FILES = sorted(Path(causalsat.__file__).parent.rglob("*.py"))
OURS = {name for name in exceptions.__all__ if name.endswith("Warning")}
PLAIN = {"UserWarning", "Warning"}
WELL_KNOWN = {"DataConversionWarning"}  # of scikit-learn
CHOSEN = "category"  # variable that holds a class chosen at run time


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def name_of(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def category(call):
    """The second positional or the category argument of a warnings.warn; None without one."""
    given = [k.value for k in call.keywords if k.arg == "category"]
    return (call.args[1] if len(call.args) > 1 else given[0]) if len(call.args) > 1 or given else None


def is_warning(call):
    """Whether this is warnings.warn, or warn of causalsat.core.warn."""
    if isinstance(call.func, ast.Attribute):
        return name_of(call.func.value) == "warnings" and call.func.attr == "warn"
    return isinstance(call.func, ast.Name) and call.func.id == "warn"


def bad_calls(path):
    """Prints, and warnings without a class, in a module."""
    for call in calls(path):
        if isinstance(call.func, ast.Name) and call.func.id == "print":
            yield f"{path.name}:{call.lineno}: print"
        if is_warning(call):
            given = category(call)
            word = "" if given is None else name_of(given)
            known = word in OURS | WELL_KNOWN or (hasattr(builtins, word) and word not in PLAIN) or word == CHOSEN
            if not known:
                yield f"{path.name}:{call.lineno}: a warning with the class {word or 'UserWarning'}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FILES[0].parent)))
def test_no_module_prints_or_warns_without_a_class(path):
    assert list(bad_calls(path)) == []


def test_the_walk_finds_what_it_looks_for(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(
        "print(1)\nwarnings.warn('a')\nwarnings.warn('b', UserWarning)\nwarnings.warn('c', DataWarning)\n"
        "warn('d', Warning)\n"
    )
    assert len(list(bad_calls(file))) == 4


def test_warnings_that_are_chosen_at_run_time_are_ours():
    """``category`` in the modules that pass one on: every class that it may be is one of ours."""
    chosen = [path.parent.name + "/" + path.name for path in FILES for call in calls(path)
              if is_warning(call) and (given := category(call)) is not None and name_of(given) == CHOSEN]  # fmt: skip
    assert chosen == ["core/warn.py", "vluci/estimator.py"]


def test_every_class_of_warning_is_a_causalsat_warning():
    for name in OURS:
        assert issubclass(getattr(exceptions, name), exceptions.CausalsatWarning)


def test_loggers_are_below_causalsat_and_silent_by_default():
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("causalsat").handlers)
    named = [ast.unparse(call.args[0]) for path in FILES for call in calls(path) if name_of(call.func) == "getLogger"]
    assert len(named) >= 6
    assert {name for name in named if name != "__name__"} == {"'causalsat'"}
