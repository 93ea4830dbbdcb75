"""The folder of an analysis: which of its files are whose, so that nobody's are written over or removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from causalsat.core.files import whole_file, writing
from causalsat.core.names import list_names
from causalsat.core.warn import warn
from causalsat.exceptions import IgnoredWarning, OutputError
from causalsat.version import __version__

__all__ = ["MANIFEST", "NAMES", "check_folder", "claim", "finish"]

MANIFEST = "outputs.json"
FIGURES = ("study", "ate", "toc", "gates", "overlap", "units")
NAMES = (
    *("report.html", "report.md", "report.tex", "effects.tif", "effects.png", "map.html", "metrics.json"),
    *("model.safetensors", "places.csv", *(f"{name}.png" for name in FIGURES)),
)


def check_folder(folder: Path, study: Any, *, overwrite: bool = False) -> dict[str, str | None]:
    """Files of an earlier run of this study in the folder, with their checksums (None where unknown).

    Parameters
    ----------
    folder : Path
        Where the outputs go; it need not exist.
    study : Study
        What is analysed: its name, outcome and treatment tell whose outputs are whose.
    overwrite : bool
        Take the folder whatever lies there.

    Raises
    ------
    OutputError
        If the outputs of another study, or files of somebody else under the names of outputs, would be written over.
    """
    earlier = _read(folder)
    mine = earlier is not None and earlier["study"] == _identity(study)
    if earlier is not None and not mine and not overwrite:
        before, now = ({k: str(v) for k, v in item.items()} for item in (earlier["study"], _identity(study)))
        changed = [f"{k} {before.get(k)!r} (now {now[k]!r})" for k in now if before.get(k) != now[k]]
        raise OutputError(
            f"{folder} holds the outputs of another analysis: {', '.join(changed)}",
            expected="a folder of its own for each analysis",
            todo="choose another folder, or pass overwrite=True (causalsat run --overwrite) to replace them",
        )
    files: dict[str, str | None] = {} if earlier is None else dict(earlier["files"])
    if earlier is None and _metrics_of(folder, study):  # written before there was a manifest
        files = dict.fromkeys(n for n in NAMES if n != "places.csv")
    names = (*NAMES, MANIFEST) if earlier is None else NAMES
    if not overwrite:
        _refuse_strangers(folder, [name for name in names if name not in files])
    return files


def claim(folder: Path, study: Any, names: Iterable[str], *, overwrite: bool = False) -> dict[str, str | None]:
    """Say in the folder that these names are this study's, before they are written; returns the earlier files."""
    names = list(names)
    earlier = check_folder(folder, study, overwrite=overwrite)
    if not overwrite:
        _refuse_strangers(folder, [name for name in names if name not in earlier])
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _write(folder, study, {**earlier, **dict.fromkeys(names)})
    return earlier


def _refuse_strangers(folder: Path, names: Iterable[str]) -> None:
    """Refuse files of these names, which no manifest knows."""
    strangers = [name for name in names if (folder / name).exists()]
    if strangers:
        raise OutputError(
            f"{folder} holds files that no analysis is known to have written: {list_names(strangers)}",
            expected="a new folder, or one of an earlier run of this study",
            todo="choose another folder, move them, or pass overwrite=True (causalsat run --overwrite)",
        )


def finish(folder: Path, study: Any, names: Iterable[str], earlier: dict[str, str | None]) -> None:
    """Note the checksums of what was written, and remove what an earlier run wrote and this one did not.

    Warns
    -----
    IgnoredWarning
        If such a file has been changed since: it stays.
    """
    written = set(names)
    for name, checksum in earlier.items():
        path = folder / name
        if name in written or name not in NAMES or not path.exists():
            continue
        if checksum is not None and checksum != _checksum(path):
            warn(f"{path} is of an earlier run and was changed since: it is left as it is", IgnoredWarning)
            continue
        with writing(path):
            path.unlink()
    _write(folder, study, {name: _checksum(folder / name) for name in sorted(written)})


def _identity(study: Any) -> dict[str, str]:
    return {"name": str(study.name), **{role: str(study.roles[role]) for role in ("outcome", "treatment")}}


def _read(folder: Path) -> dict[str, Any] | None:
    """What the manifest says; None without one that can be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = isinstance(found["study"], dict) and isinstance(found["files"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if known else None


def _metrics_of(folder: Path, study: Any) -> bool:
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return bool(metrics["study.name"] == study.name)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(folder: Path, study: Any, files: dict[str, str | None]) -> None:
    text = json.dumps({"software": f"causalsat {__version__}", "study": _identity(study), "files": files}, indent=1)
    path = folder / MANIFEST
    with writing(path), whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
