"""The table of public names: the type stub of the package, which type checkers and the lazy loader both read."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

__all__ = ["attributes", "modules"]


@cache
def _table() -> dict[str, list[str]]:
    """Names by the module that they are imported from in the stub, ``causalsat`` itself for the public modules."""
    tree = ast.parse(Path(__file__).with_name("__init__.pyi").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.setdefault(node.module, []).extend(alias.name for alias in node.names)
    return found


def modules() -> list[str]:
    """Names of the public modules, such as ``evaluation``."""
    return list(_table()["causalsat"])


def attributes(package: str = "causalsat") -> dict[str, list[str]]:
    """Public names of a package, by the module below it that defines them.

    Examples
    --------
    >>> attributes("causalsat.estimators")["doubly_robust"]
    ['DoublyRobustEffect']
    """
    inside = f"{package}."
    return {name.removeprefix(inside): names for name, names in _table().items() if name.startswith(inside)}
