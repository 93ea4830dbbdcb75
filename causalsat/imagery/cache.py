"""Chips kept on disk under a key of everything that decides their pixels.

One ``<key>.npy`` with the chips and one ``<key>.valid.npy`` with their valid fractions, written to temporary files
and renamed, the valid fractions last: where those are, the chips are complete. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ImageryError
from causalsat.imagery.base import Imagery
from causalsat.imagery.grid import IntArray

__all__ = ["content_key", "load", "store"]

_FORMAT = 1
Chips = NDArray[np.float32]


def content_key(imagery: Imagery, row0: IntArray, col0: IntArray, size_px: int) -> str:
    """Hexadecimal key of the imagery's fingerprint, the windows and their size."""
    text = json.dumps([_FORMAT, imagery.fingerprint(), size_px], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    for array in (row0, col0):
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()[:40]


def load(folder: Path, key: str, shape: tuple[int, ...], lazy: bool) -> tuple[Chips, NDArray[np.float64]] | None:
    """Chips and valid fractions; None where they are not there or not whole."""
    try:
        valid = np.load(folder / f"{key}.valid.npy", allow_pickle=False)
        chips = np.load(folder / f"{key}.npy", allow_pickle=False, mmap_mode="r" if lazy else None)
    except (OSError, ValueError, EOFError):
        return None
    return (chips, valid) if chips.shape == shape and valid.shape == shape[:1] else None


def store(
    folder: Path,
    key: str,
    shape: tuple[int, ...],
    fill: Callable[[Chips], NDArray[np.float64]],
) -> None:
    """Let ``fill`` write the chips into a file, and keep what it returns, the valid fractions.

    Raises
    ------
    ImageryError
        The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        chips_file, valid_file = _temporary(folder), _temporary(folder)
    except OSError as error:
        raise ImageryError(
            f"the chip cache {folder} cannot be written ({error})", todo="pass another cache= folder"
        ) from error
    try:
        chips: Any = np.lib.format.open_memmap(chips_file, mode="w+", dtype=np.float32, shape=shape)
        valid = fill(chips)
        chips.flush()
        with open(valid_file, "wb") as out:
            np.save(out, valid, allow_pickle=False)
        os.replace(chips_file, folder / f"{key}.npy")
        os.replace(valid_file, folder / f"{key}.valid.npy")
    finally:
        for file in (chips_file, valid_file):
            Path(file).unlink(missing_ok=True)


def _temporary(folder: Path) -> str:
    handle, path = tempfile.mkstemp(dir=folder, prefix=".chips-", suffix=".tmp")
    os.close(handle)
    return path
