"""Files that are written atomically, clear errors where the disk refuses, and checksums of what was written."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import CausalsatError, OutputError

__all__ = [
    "add_arrays",
    "advice",
    "checksum",
    "is_temporary",
    "refuse_link",
    "temporary_file",
    "whole_file",
    "writing",
]

_TEMPORARY = re.compile(r".*\.([0-9a-f]{16}|\d+\.[0-9a-f]+|\d+)\.tmp", re.DOTALL)


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
            todo=todo or advice(path, error),
        ) from error


def advice(path: str | os.PathLike[str], error: OSError) -> str:
    """What to do where the operating system refuses to write.

    Examples
    --------
    >>> advice("a.tif", OSError(errno.EACCES, "Permission denied"))
    'choose a folder that you may write to, or change its permissions'
    """
    again = "and run it again: what is finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder that you may write to, or change its permissions"
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return f"the folder is not there, or was removed meanwhile: check {Path(path).parent}, {again}"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"a file stands where a folder is needed, or the other way round: check {Path(path)}"
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
        return "choose a shorter or plainer name"
    return f"free space or choose another folder, {again}"


@contextmanager
def whole_file(path: str | os.PathLike[str], *, lasting: bool = False) -> Iterator[Path]:
    """A temporary file's path beside ``path``, which takes its place where the block ends without an error.

    The folder is made where it is not there. The file has the permissions that the umask leaves. Any number of
    threads and processes may write one path: each file that is seen there is whole.

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
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(target) as temporary:
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        with writing(target):
            if stat.S_IMODE(temporary.stat().st_mode) != mode:  # a library wrote a file of its own in its place
                temporary.chmod(mode)
            if lasting:
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, target)


@contextmanager
def temporary_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty file beside ``target`` under a name that nobody can foresee; it is gone at the end.

    It is made exclusively and follows no link, with the permissions that the umask leaves.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, temporary_file(f"{folder}/a.txt") as temporary:
    ...     temporary.name.startswith("a.txt."), is_temporary(temporary.name), temporary.stat().st_size
    (True, True, 0)
    """
    beside = Path(target)
    temporary = beside.with_name(f"{beside.name[:48]}.{secrets.token_hex(8)}.tmp")
    with writing(beside):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o666))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether a file is one that :func:`temporary_file` left behind, in this version or an earlier one."""
    return _TEMPORARY.fullmatch(name) is not None


def refuse_link(folder: Path, what: str) -> None:
    """Refuse a folder that is a symbolic link: whatever is written or removed there would be elsewhere.

    Raises
    ------
    OutputError
        If the folder is a link.
    """
    if folder.is_symlink():
        raise OutputError(
            f"{folder} is a symbolic link",
            expected=f"a folder for {what}, which are written and removed there",
            todo="remove the link, or write to another file",
        )


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
