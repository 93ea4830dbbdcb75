"""Whose a file is: what lies where an output goes and was not written by this package is not written over."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from causalsat.core.names import list_names
from causalsat.exceptions import OutputError

__all__ = ["is_ours", "refuse_strangers"]

# what maps, pictures, pages and tables of this package have near their beginning
_MARK = re.compile(rb"causalsat(?:Map| \d)|\Adistrict,n_cells,")
_LOOKED_AT = 1 << 20


def is_ours(path: Path) -> bool:
    """Whether a file was written by this package, as its first bytes say; an empty one is nobody's.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page, notes = Path(folder, "map.html"), Path(folder, "notes.html")
    ...     _ = page.write_text("<!-- causalsat 0.1.0 -->"), notes.write_text("mine")
    ...     is_ours(page), is_ours(notes)
    (True, False)
    """
    with open(path, "rb") as file:
        start = file.read(_LOOKED_AT)
    return not start or _MARK.search(start) is not None


def refuse_strangers(paths: Iterable[Path], todo: str) -> None:
    """Refuse to write over files that this package has not written.

    Parameters
    ----------
    paths : iterable of Path
        Where outputs go; what does not exist is free.
    todo : str
        What to do about it, for the message.

    Raises
    ------
    OutputError
        Names the files.
    """
    strangers = [path for path in paths if path.is_file() and not is_ours(path)]
    if strangers:
        one = len(strangers) == 1
        raise OutputError(
            f"{list_names(strangers, 5)} would be written over and {'is' if one else 'are'} not of causalsat",
            expected="files that do not exist, or earlier outputs",
            todo=todo,
        )
