"""Zarr stores: what they hold, whether they changed, and a limit on what is decoded from them."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from causalsat.exceptions import ImageryError, ImageryNotFoundError
from causalsat.imagery.files import is_remote
from causalsat.imagery.network import check_text
from causalsat.imagery.raster import MAX_DECODED

__all__ = ["open_store", "store_stamp"]

_MANY_FILES = 2000  # below, a stamp is always taken anew, however long a busy machine took for it
_REUSED = 20  # a stamp of a store of many files is used again for so many times as long as it took
_STAMPS: dict[str, tuple[float, float, Any]] = {}
_SLACK = 1 << 16


def store_stamp(path: str) -> tuple[str, int]:
    """A digest of the paths, modification times and sizes of all files of a local store, and their number.

    Taking it takes some 10 microseconds a file. Of a store of thousands of files, one taken a short while ago is
    given again, so that looking after changes takes at most a twentieth of the time.
    """
    now = time.monotonic()
    taken, took, stamp = _STAMPS.get(path, (0.0, 0.0, None))
    if stamp is not None and stamp[1] >= _MANY_FILES and now - taken < _REUSED * took:
        return stamp  # type: ignore[no-any-return]
    digest, count = hashlib.sha256(), 0
    for name, stat in sorted(_files(path)):
        digest.update(f"{name}\0{stat}\0".encode())
        count += 1
    stamp = (digest.hexdigest()[:32], count)
    end = time.monotonic()
    _STAMPS[path] = (end, end - now, stamp)
    return stamp


def _files(folder: str, under: str = "") -> list[tuple[str, tuple[int, int, int]]]:
    found: list[tuple[str, tuple[int, int, int]]] = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return found
    for entry in entries:
        name = f"{under}{entry.name}"
        if entry.is_dir():
            found += _files(entry.path, f"{name}/")
            continue
        try:
            stat = entry.stat()
        except OSError:  # written anew at this moment
            continue
        found.append((name, (stat.st_mtime_ns, stat.st_size, stat.st_ino)))
    return found


def open_store(path: str, network: bool, variable: str | None = None) -> Any:
    """The store as an xarray Dataset of stored numbers, lazy where dask is installed.

    Parameters
    ----------
    path : str
    network : bool
        Whether the store may be read over the net.
    variable : str, optional
        The variable that will be read; None: any.

    Raises
    ------
    ImageryNotFoundError
        There is no such store.
    ImageryError
        It cannot be read, it lies on the net, or one of its chunks is too large to be decoded.
    """
    import xarray

    check_text(path, network)
    if find_spec("zarr") is None:
        raise ImageryError(f"{path} is a Zarr store and zarr is not installed", todo="pip install causalsat[zarr]")
    if not is_remote(path) and not os.path.exists(path):
        raise ImageryNotFoundError(f"no such Zarr store: {path}", todo="check the path")
    chunks: Any = {} if find_spec("dask") else None
    try:
        sizes = _chunk_sizes(path)
        for name, size in sizes.items():
            if size > MAX_DECODED and variable in (None, name):
                raise ImageryError(
                    f"{path} has chunks of {size / 2**30:.1f} GiB in {name!r}, which are decoded at a time",
                    expected=f"at most {MAX_DECODED >> 30} GiB",
                    todo='write it in smaller chunks: dataset.chunk({"x": 512, "y": 512}).to_zarr(...)',
                )
        limit = min(MAX_DECODED, max(sizes.values(), default=0)) + _SLACK
        source: Any = path if is_remote(path) else _limited_store(path, limit)
        return xarray.open_zarr(source, chunks=chunks, decode_coords="all", mask_and_scale=False)
    except ImageryError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageryError(f"{path} cannot be read as a Zarr store ({error})", todo="check the store") from error


def _chunk_sizes(path: str) -> dict[str, int]:
    """Bytes of one decoded chunk of each array: of the smallest part that can be decoded."""
    import zarr

    group = zarr.open_group(path, mode="r")
    return {
        name: int(np.prod(array.chunks, dtype=float)) * np.dtype(array.dtype).itemsize
        for name, array in group.arrays()
    }


def _limited_store(path: str, limit: int) -> Any:
    """A local store that refuses chunks which would be decoded to more than so many bytes."""
    from zarr.storage import LocalStore

    return _limited_class()(LocalStore(path, read_only=True), limit)


@lru_cache(maxsize=1)
def _limited_class() -> Any:
    from zarr.storage import WrapperStore

    class Limited(WrapperStore):  # type: ignore[type-arg]
        def __init__(self, store: Any, limit: int) -> None:
            super().__init__(store)
            self.limit = limit

        def _with_store(self, store: Any) -> Any:
            return type(self)(store, self.limit)

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            found = await super().get(key, prototype, byte_range)
            if found is not None and not key.endswith((".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")):
                _check_decoded(found.to_bytes(), self.limit, f"{self._store.root}/{key}")
            return found

    return Limited


def _check_decoded(content: bytes, limit: int, name: str) -> None:
    """Refuse a compressed chunk that is larger than a chunk is.

    Raises
    ------
    ImageryError
    """
    if decoded_size(content, limit) > limit:
        raise ImageryError(
            f"{name} would be decoded to more than {limit:,} bytes, the size of the largest chunk",
            expected="a chunk of the size that the store states",
            todo="the store is damaged or made to exhaust memory: do not use it",
        )


def decoded_size(content: bytes, limit: int) -> int:
    """Size of a compressed chunk when decoded, by its header or by decoding up to the limit; 0 if unknown."""
    if content[:4] == b"\x28\xb5\x2f\xfd":
        return _zstd_size(content, limit)
    is_zlib = content[:1] == b"\x78" and int.from_bytes(content[:2], "big") % 31 == 0
    if content[:2] == b"\x1f\x8b" or is_zlib:
        return _inflated_size(content, limit)
    if content[:1] == b"\x02" and len(content) >= 16 and struct.unpack("<I", content[12:16])[0] == len(content):
        return int(struct.unpack("<I", content[4:8])[0])  # Blosc
    if content[:3] == b"BZh" or content[:6] == b"\xfd7zXZ\x00":
        return _streamed_size(content, limit)
    return 0


def _zstd_size(content: bytes, limit: int) -> int:
    """Content size in the header of a Zstandard frame (RFC 8878, 3.1.1.1); above the limit where it is not stated."""
    descriptor = content[4]
    single, flag = bool(descriptor & 0x20), descriptor >> 6
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    length = (1 if single else 0, 2, 4, 8)[flag]
    if not length:
        return limit + 1
    size = int.from_bytes(content[start : start + length], "little")
    return size + 256 if length == 2 else size


def _inflated_size(content: bytes, limit: int) -> int:
    size, rest = 0, content
    while rest:
        machine = zlib.decompressobj(47)  # gzip or zlib
        try:
            while not machine.eof:
                piece = machine.decompress(rest, 1 << 20)
                size, rest = size + len(piece), machine.unconsumed_tail
                if size > limit:
                    return size
                if not piece and not rest:
                    return size
            rest = machine.unused_data
        except zlib.error:  # not compressed, or damaged: the decoder says so
            return size
    return size


def _streamed_size(content: bytes, limit: int) -> int:
    import bz2
    import lzma

    machine: Any = bz2.BZ2Decompressor() if content[:3] == b"BZh" else lzma.LZMADecompressor()
    size, piece = 0, content
    try:
        while not machine.eof and size <= limit:
            out = machine.decompress(piece, 1 << 20)
            size, piece = size + len(out), b""
            if not out and machine.needs_input:
                break
    except (OSError, EOFError, lzma.LZMAError):
        return size
    return size
