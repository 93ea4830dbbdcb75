"""Tiles of a map job: the plan, files that are written atomically, and the manifest that guards a resume."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.files import checksum, is_temporary, refuse_link, whole_file, writing
from causalsat.core.fingerprint import fingerprint
from causalsat.exceptions import ResumeError

__all__ = [
    "Tile",
    "job_is_there",
    "open_job",
    "plan_tiles",
    "read_tile",
    "remove_job",
    "tile_path",
    "vanished",
    "write_tile",
]

FloatArray = NDArray[np.float32]
LOG = logging.getLogger(__name__)
MANIFEST = "manifest.json"
_TILE_NAME = re.compile(r"r\d{7,}_c\d{7,}\.npy")


@dataclass(frozen=True)
class Tile:
    """A block of cells of the map: position and size in cells."""

    row: int
    col: int
    height: int
    width: int


def plan_tiles(height: int, width: int, size: int) -> list[Tile]:
    """Tiles of at most ``size`` by ``size`` cells that cover the map, row by row.

    Examples
    --------
    >>> plan_tiles(3, 5, 4)
    [Tile(row=0, col=0, height=3, width=4), Tile(row=0, col=4, height=3, width=1)]
    """
    return [
        Tile(row, col, min(size, height - row), min(size, width - col))
        for row in range(0, height, size)
        for col in range(0, width, size)
    ]


def tile_path(folder: Path, tile: Tile) -> Path:
    """File of a tile within the job's folder."""
    return folder / f"r{tile.row:07d}_c{tile.col:07d}.npy"


def write_tile(path: Path, values: FloatArray) -> None:
    """Write a tile and its checksum atomically.

    Raises
    ------
    OutputError
        If there is no room for it.
    """
    whole = np.ascontiguousarray(values, dtype=np.float32)
    with writing(path), whole_file(path, lasting=True) as temporary, open(temporary, "wb") as file:
        np.save(file, whole, allow_pickle=False)
        file.write(_mark(whole))


def _mark(values: FloatArray) -> bytes:
    return checksum(values).to_bytes(4, "little")


def read_tile(path: Path, shape: tuple[int, int, int]) -> FloatArray | None:
    """Values of a finished tile, or None where it is absent, damaged or of another shape."""
    try:
        with open(path, "rb") as file:
            values = np.load(file, allow_pickle=False)
            mark = file.read(5)
    except (OSError, ValueError, EOFError):
        return None
    if values.shape != shape or values.dtype != np.float32 or mark != _mark(values):
        return None
    return np.asarray(values)


def open_job(folder: Path, parts: Mapping[str, Any], *, overwrite: bool) -> str:
    """Open or create a job's folder and return its hash.

    Parameters
    ----------
    folder : Path
        Where the tiles lie.
    parts : mapping
        What the job depends on; strings and numbers.
    overwrite : bool
        Discard the tiles of another job instead of refusing.

    Raises
    ------
    ResumeError
        If the folder holds the tiles of a job with other inputs, or files of somebody else under the names of tiles.
    OutputError
        If the folder is a symbolic link.
    """
    job = fingerprint({key: parts[key] for key in sorted(parts)})
    manifest = folder / MANIFEST
    refuse_link(folder, "the tiles of a map")
    if folder.exists():
        earlier = _read_manifest(manifest)
        if earlier is None or earlier.get("job") != job:
            if earlier is not None and not overwrite:
                raise _mismatch(folder, earlier, parts)
            if not manifest.exists():
                _refuse_files_of_others(folder)
            remove_job(folder)
        else:
            LOG.info("going on with the tiles of %s", folder)
    text = json.dumps({"job": job, "parts": dict(parts)}, indent=1, sort_keys=True)
    with writing(manifest), whole_file(manifest) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return job


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def job_is_there(folder: Path) -> bool:
    """Whether the folder of a job, which has a manifest since the job began, is still there."""
    return (folder / MANIFEST).exists()


def vanished(folder: Path, tile: Tile) -> ResumeError:
    """The error for a finished tile that is gone, with the advice that is right for what happened."""
    if job_is_there(folder):
        return ResumeError(
            f"tile {tile_path(folder, tile)} vanished while the map was written",
            todo="run the same call again: finished tiles are kept; do not map to one file from two processes",
        )
    return ResumeError(
        f"the folder {folder} was removed while the map was computed",
        expected="that it stays until the map is written",
        todo="run the same call again: the tiles that were in it are computed anew",
    )


def _refuse_files_of_others(folder: Path) -> None:
    """Without a manifest, a file under the name of a tile is one only where it has a tile's checksum."""
    for path in folder.iterdir():
        if _TILE_NAME.fullmatch(path.name) and not _is_tile(path):
            raise ResumeError(
                f"{folder} has no manifest of a map, and {path.name} in it is no tile",
                expected="a folder that only map jobs write to",
                todo="move that file elsewhere, or write the map to another file",
            )


def _is_tile(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            values = np.load(file, allow_pickle=False)
            return bool(file.read(5) == _mark(values))
    except (OSError, ValueError, EOFError):
        return False


def _mismatch(folder: Path, earlier: Mapping[str, Any], parts: Mapping[str, Any]) -> ResumeError:
    before = earlier.get("parts", {})
    changed = sorted(key for key in {*parts, *before} if before.get(key) != parts.get(key))
    shown = ", ".join(f"{key} ({_short(before.get(key))} before, {_short(parts.get(key))} now)" for key in changed)
    return ResumeError(
        f"{folder} holds the tiles of an unfinished map with other inputs: {shown or 'its manifest differs'}",
        expected="the same model, imagery, region and settings as the interrupted run",
        todo="pass overwrite=True to discard those tiles, or write to another file",
    )


def _short(value: Any, most: int = 24) -> str:
    text = str(value)
    return text if len(text) <= most else text[:most] + "..."


def remove_job(folder: Path, job: str | None = None) -> None:
    """Remove a job's tiles and manifest, and the folder where nothing else lies in it; only if it is of that job.

    Files under other names are nobody's but their owner's, and nothing is removed behind a symbolic link.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    if job is not None and (_read_manifest(folder / MANIFEST) or {}).get("job") != job:
        return
    for path in list(folder.iterdir()):
        if _TILE_NAME.fullmatch(path.name) or path.name == MANIFEST or is_temporary(path.name):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else lies in it, or another process was first
        folder.rmdir()
