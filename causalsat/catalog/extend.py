"""Adding an entry to a catalogue file, whose own lines stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from causalsat.catalog.load import load_catalog
from causalsat.catalog.schema import Entry
from causalsat.core.files import whole_file, writing
from causalsat.exceptions import CatalogError

__all__ = ["add_entry"]

HEADER = """# Data sets by name: causalsat.load_study(name), causalsat run NAME. Paths are relative to this file.
version: 1
"""


def add_entry(file: Path, name: str, content: Mapping[str, Any]) -> Path:
    """Write an entry to the end of a catalogue file, which is made where it is not there.

    Parameters
    ----------
    file : Path
        The catalogue.
    name : str
        Name of the entry.
    content : mapping
        Its keys, plain values only.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    CatalogError
        If the name is taken, the entry does not follow the schema, or the file is laid out such that it cannot be
        extended without changing its lines.
    """
    Entry.model_validate(dict(content))
    before = dict(load_catalog(file)) if file.exists() else {}
    if name in before:
        raise CatalogError(
            f"{file} has a data set {name!r}",
            expected="a name that is not taken",
            todo="take another name, or change the entry in the file",
        )
    text = file.read_text(encoding="utf-8") if file.exists() else f"{HEADER}\ndatasets:\n"
    own = yaml.safe_dump({name: dict(content)}, sort_keys=False, allow_unicode=True, width=100)
    indent = _indent(text)
    entry = "".join(f"{indent}{line}" for line in own.splitlines(keepends=True))
    with writing(file), whole_file(file) as temporary:
        temporary.write_text(
            f"{text.rstrip()}\n\n{entry}" if before else f"{text.rstrip()}\n{entry}", encoding="utf-8"
        )
        _check(temporary, file, name, before, entry)
    return file


def _indent(text: str) -> str:
    """Spaces before the names of the data sets."""
    found = re.search(r"^datasets:[^\n]*\n(?:[ \t]*(?:#[^\n]*)?\n)*( +)\S", text, flags=re.M)
    return found[1] if found else "  "


def _check(written: Path, file: Path, name: str, before: Mapping[str, Entry], entry: str) -> None:
    """Refuse a file in which the entry does not stand beside the others as they were."""
    try:
        after = dict(load_catalog(written))
    except CatalogError:
        after = {}
    if name not in after or {k: v for k, v in after.items() if k != name} != dict(before):
        raise CatalogError(
            f"{file} cannot be extended: datasets is not its last key, or is written in braces",
            expected="datasets: as the last key, one indented entry after the other",
            todo=f"paste this below datasets:\n{entry}",
        )
