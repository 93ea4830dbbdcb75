"""Files that are written atomically, clear errors where the disk refuses, and checksums of what was written."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import CausalsatError, OutputError

__all__ = ["add_arrays", "checksum", "whole_file", "writing"]


@contextmanager
def writing(path: str | os.PathLike[str], todo: str = "") -> Iterator[None]:
    """Turn the operating system's refusal to write a file into an ``OutputError`` that names it.

    Examples
    --------
    >>> with writing("/proc/x/y"):  # doctest: +IGNORE_EXCEPTION_DETAIL
    ...     open("/proc/x/y", "w")
    Traceback (most recent call last):
    causalsat.exceptions.OutputError: /proc/x/y cannot be written (No such file or directory). ...
    """
    try:
        yield
    except CausalsatError:
        raise
    except OSError as error:
        raise OutputError(
            f"{os.fspath(path)} cannot be written ({error.strerror or error})",
            todo=todo or "free space or choose another folder, and run it again: what is finished is kept",
        ) from error


@contextmanager
def whole_file(path: str | os.PathLike[str], *, lasting: bool = False) -> Iterator[Path]:
    """A temporary file's path beside ``path``, which takes its place where the block ends without an error.

    The folder is made where it is not there. Any number of threads and processes may write one path: each file that
    is seen there is whole.

    Parameters
    ----------
    path : path-like
        The file to make or replace.
    lasting : bool
        Wait until the disk has it, so that it outlives a loss of power as well.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(f"{folder}/a.txt") as temporary:
    ...         _ = temporary.write_text("all of it")
    ...     [found.name for found in Path(folder).iterdir()]
    ['a.txt']
    """
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident():x}.tmp")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        with writing(target):
            if lasting:
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def checksum(values: NDArray[Any]) -> int:
    """CRC-32 of an array's bytes.

    Examples
    --------
    >>> checksum(np.frombuffer(b"123456789", dtype=np.uint8)) == 0xCBF43926  # the check value of CRC-32
    True
    """
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def add_arrays(digest: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Add named arrays, with their types and shapes, to a digest of hashlib; their order does not matter."""
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
