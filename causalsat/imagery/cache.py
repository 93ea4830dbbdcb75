"""Chips kept on disk under a key of everything that decides their pixels.

One ``<key>.npy`` with the chips and one ``<key>.valid.npy`` with their valid fractions and the checksum of both,
written to temporary files and renamed, the valid fractions last: where those are, the chips are complete. Any number
of threads and processes may read and write one folder: equal keys have equal content, and a file is replaced whole.
What is damaged is read anew. No pickle.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.files import checksum, whole_file, writing
from causalsat.core.fingerprint import fingerprint as content_digest
from causalsat.exceptions import ImageryError
from causalsat.imagery.grid import IntArray

__all__ = ["check", "content_key", "load", "store"]

_FORMAT = 2
Chips = NDArray[np.float32]


def content_key(fingerprint: dict[str, Any], row0: IntArray, col0: IntArray, size_px: int) -> str:
    """Hexadecimal key of the imagery's fingerprint, the windows and their size."""
    return content_digest([_FORMAT, fingerprint, size_px, *(np.asarray(a, dtype="<i8") for a in (row0, col0))])[:40]


def load(
    folder: Path, key: str, shape: tuple[int, ...], lazy: bool
) -> tuple[Chips, NDArray[np.float64], NDArray[np.int64]] | None:
    """Chips, valid fractions and each chip's checksum; None where they are not there, not whole or damaged.

    Lazy chips are not read here, so that their checksums have to be compared where they are: :func:`check`.
    """
    try:
        marked = np.load(folder / f"{key}.valid.npy", allow_pickle=False)
        chips = np.load(folder / f"{key}.npy", allow_pickle=False, mmap_mode="r" if lazy else None)
    except (OSError, ValueError, EOFError):
        return None
    if chips.shape != shape or chips.dtype != np.float32 or marked.shape != (2, shape[0] + 1):
        return None
    valid, sums = marked[0, :-1], marked[1, :-1].astype(np.int64)
    if marked[0, -1] != checksum(marked[:, :-1]):
        return None
    return (chips, valid, sums) if lazy or (_checksums(chips) == sums).all() else None


def check(chips: Chips, sums: NDArray[np.int64], folder: str) -> None:
    """Refuse chips whose checksums are others.

    Raises
    ------
    ImageryError
        The file was damaged, or is being written.
    """
    if (_checksums(chips) != sums).any():
        raise ImageryError(f"the chip cache {folder} is damaged", todo="delete that file: the chips are read again")


def _checksums(chips: Chips) -> NDArray[np.int64]:
    """CRC-32 of each chip's bytes, shape (n,)."""
    return np.array([checksum(chip) for chip in chips], dtype=np.int64)


def store(
    folder: Path,
    key: str,
    shape: tuple[int, ...],
    fill: Callable[[Chips], NDArray[np.float64]],
) -> None:
    """Let ``fill`` write the chips into a file, and keep what it returns, the valid fractions.

    Raises
    ------
    OutputError
        The folder cannot be written, or has no room for the chips.
    """
    remedy = "pass another cache= folder, or free space"
    with whole_file(folder / f"{key}.valid.npy") as valid_file, whole_file(folder / f"{key}.npy") as chips_file:
        with writing(folder, todo=remedy):
            chips: Any = np.lib.format.open_memmap(chips_file, mode="w+", dtype=np.float32, shape=shape)
            _reserve(chips_file)
        valid = fill(chips)
        marked = np.zeros((2, len(valid) + 1))  # checksums are exact in float64
        marked[:, :-1] = valid, _checksums(chips)
        marked[0, -1] = checksum(marked[:, :-1])
        with writing(folder, todo=remedy):
            chips.flush()
            with open(valid_file, "wb") as out:
                np.save(out, marked, allow_pickle=False)


def _reserve(file: Path) -> None:
    """Take the room on the disk now: a mapped file that finds none later would end the process (SIGBUS)."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(file, "r+b") as opened:
        size = os.fstat(opened.fileno()).st_size
        if shutil.disk_usage(file.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        os.posix_fallocate(opened.fileno(), 0, size)
