"""The index of messages: every error and warning class with its cause, its remedy and the messages that it has."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from pathlib import Path

from causalsat import exceptions
from causalsat.core.tables import markdown_text

ROOT = Path(__file__).resolve().parents[1]
BASES = ("CausalsatError", "CausalsatWarning")
GAP = "…"

HEAD = """# Messages

An error says what arrived, what was expected and what to do. Below are the classes, each with its cause and its
remedy, and every message of the package; {gap} stands for what differs from case to case. Errors are
`CausalsatError`s and also the built-in exception that one would catch (`ValueError`, `KeyError`, ...). Warnings are
`CausalsatWarning`s: `warnings.simplefilter("error", causalsat.exceptions.OverlapWarning)` makes one an error.
"""


def messages_page() -> str:
    """Markdown of the index, from the classes' documentation and from the calls in the package's source."""
    found = calls()
    parts = [HEAD.format(gap=GAP)]
    for title, warning in (("Errors", False), ("Warnings", True)):
        parts.append(f"## {title}")
        for name in exceptions.__all__:
            kind = getattr(exceptions, name)
            if name in BASES or issubclass(kind, Warning) != warning:
                continue
            cause, remedy = cause_and_remedy(kind)
            parents = [base.__name__ for base in kind.__bases__ if base.__name__ not in BASES]
            also = f" It is also a {' and a '.join(f'`{parent}`' for parent in parents)}." if parents else ""
            parts += [f"### {name}", f"{cause}{also}", f"What to do: {remedy}"]
            messages = sorted(found[name], key=str.casefold)
            if messages:
                parts.append("\n".join(f"- {message}" for message in messages))
    return "\n\n".join(parts) + "\n"


def cause_and_remedy(kind: type) -> tuple[str, str]:
    """First and second paragraph of a class's documentation."""
    paragraphs = [*inspect.cleandoc(kind.__doc__ or "").split("\n\n"), "", ""][:2]
    cause, remedy = (" ".join(part.split()).replace("``", "`") for part in paragraphs)
    return cause, remedy


def calls() -> dict[str, set[str]]:
    """Messages of each class: what arrived, and what to do where the call says it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "causalsat").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for kind, text in _message(node):
                    found[kind].add(text)
    return found


def _message(call: ast.Call) -> list[tuple[str, str]]:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name in exceptions.__all__ and call.args:
        what = _text(call.args[0])
        todo = next((_text(k.value) for k in call.keywords if k.arg == "todo"), "")
        return [(name, _line(what, todo))] if _says_something(what) else []
    kinds = [a.id for a in call.args[1:] if isinstance(a, ast.Name) and a.id in exceptions.__all__]
    if name == "warn" and kinds and _says_something(_text(call.args[0])):
        return [(kinds[0], _line(_text(call.args[0]), ""))]
    return []


def _line(what: str, todo: str) -> str:
    said = markdown_text(what)
    return f"{said}. *{markdown_text(todo)}*" if _says_something(todo) else said


def _says_something(text: str) -> bool:
    return len(text.replace(GAP, "").strip(" .:,()")) > 3


def _text(node: ast.AST) -> str:
    """The text of an expression, with a gap for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return GAP
