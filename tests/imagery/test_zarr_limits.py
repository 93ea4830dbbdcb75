"""What is decoded from Zarr stores has a limit, by what the store states and by what its chunks hold."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

zarr = pytest.importorskip("zarr")

from causalsat.exceptions import ImageryError  # noqa: E402
from causalsat.imagery import open_imagery  # noqa: E402
from causalsat.imagery.zarr_store import decoded_size, store_stamp  # noqa: E402

LIMIT = 1 << 20


def coded(kind: str, content: bytes) -> bytes:
    import numcodecs

    codecs = {
        "gzip": gzip.compress, "zlib": zlib.compress, "bz2": bz2.compress, "xz": lzma.compress,
        "zstd": numcodecs.Zstd().encode, "blosc": numcodecs.Blosc().encode, "raw": bytes,
    }  # fmt: skip
    return bytes(codecs[kind](content))


@pytest.mark.parametrize("kind", ["gzip", "zlib", "bz2", "xz", "zstd", "blosc"])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 300, 65_000, 70_000, 3_000_000])
def test_sizes_are_known_before_decoding(kind, size):
    found = decoded_size(coded(kind, b"\1" * size), LIMIT)
    assert found == size or (size > LIMIT and found > LIMIT)


def test_what_is_not_compressed_is_left_to_the_decoder():
    noise = np.random.default_rng(0).integers(0, 256, 3_000_000).astype("uint8").tobytes()
    assert decoded_size(noise, LIMIT) == 0
    for magic in (b"\x1f\x8b", b"\x78\x9c", b"BZh", b"\xfd7zXZ\x00"):
        assert decoded_size(magic + noise, LIMIT) == 0
    two = gzip.compress(b"\1" * 600_000) + gzip.compress(b"\1" * 600_000)  # members that follow each other
    assert decoded_size(two, LIMIT) > LIMIT


def v2_store(path: Path, chunk: bytes, compressor, shape=(4, 5), chunks=(4, 5)) -> Path:
    array = {
        "zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": "|u1", "compressor": compressor,
        "fill_value": None, "order": "C", "filters": None, "dimension_separator": ".",
    }  # fmt: skip
    axis = {**array, "dtype": "<f8", "compressor": None}
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps({"crs": "EPSG:32636"}))
    for name, values in (("y", 100000 - 10.0 * np.arange(shape[0])), ("x", 500000 + 10.0 * np.arange(shape[1]))):
        (path / name).mkdir()
        (path / name / ".zarray").write_text(json.dumps({**axis, "shape": [len(values)], "chunks": [len(values)]}))
        (path / name / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": [name]}))
        (path / name / "0").write_bytes(values.tobytes())
    (path / "a").mkdir()
    (path / "a" / ".zarray").write_text(json.dumps(array))
    (path / "a" / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["y", "x"]}))
    (path / "a" / "0.0").write_bytes(chunk)
    return path


READ = """
import resource, sys
from causalsat.exceptions import ImageryError
from causalsat.imagery import open_imagery
import zarr, xarray, dask, numcodecs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_imagery(sys.argv[1]).read_window(0, 0, 2, 2)
    print("read")
except ImageryError as error:
    print(str(error).replace(chr(10), " "))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("kind", ["gzip", "zstd", "blosc"])
def test_a_chunk_that_is_more_than_it_says_is_not_decoded(tmp_path, kind):
    """Some kilobytes of a chunk of 20 numbers that would fill 400 megabytes."""
    compressor = {"gzip": {"id": "gzip", "level": 5}, "zstd": {"id": "zstd", "level": 1}, "blosc": {"id": "blosc"}}[
        kind
    ]
    path = v2_store(tmp_path / "bomb.zarr", coded(kind, b"\1" * (400 << 20)), compressor)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    words, megabytes = done.stdout.strip().splitlines()
    assert "would be decoded to more than" in words
    assert float(megabytes) < 100


@pytest.mark.filterwarnings("ignore")
def test_honest_chunks_are_read(tmp_path):
    values = np.arange(20, dtype="uint8").reshape(4, 5)
    for kind, compressor in [("gzip", {"id": "gzip", "level": 5}), ("zstd", {"id": "zstd", "level": 1}),
                             ("blosc", {"id": "blosc"}), ("zlib", {"id": "zlib"}), ("raw", None)]:  # fmt: skip
        path = v2_store(tmp_path / f"{kind}.zarr", coded(kind, values.tobytes()), compressor)
        np.testing.assert_array_equal(open_imagery(path).read_window(0, 0, 4, 5)[0], values)


@pytest.mark.filterwarnings("ignore")
def test_chunks_that_are_too_large_are_refused_before_they_are_read(tmp_path):
    side = 40_000
    path = v2_store(tmp_path / "large.zarr", b"", None, (side, side), (side, side))
    with pytest.raises(ImageryError, match=r"chunks of 1\.5 GiB in 'a'.*at most 1 GiB.*to_zarr"):
        open_imagery(path)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_chunk_is_an_error_of_ours(tmp_path):
    path = v2_store(tmp_path / "damaged.zarr", gzip.compress(b"\1" * 20)[:-9], {"id": "gzip", "level": 5})
    with pytest.raises(ImageryError, match="its pixels cannot be read"):
        open_imagery(path).read_window(0, 0, 2, 2)


@pytest.mark.filterwarnings("ignore")
def test_sharded_stores_are_read_by_their_inner_chunks(tmp_path):
    values = np.arange(64 * 64, dtype="uint16").reshape(64, 64)
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=3)
    array = group.create_array(
        "a", shape=(64, 64), chunks=(16, 16), shards=(32, 32), dtype="uint16", dimension_names=["y", "x"]
    )
    array[:] = values
    for name, axis in (("y", 100000 - 10.0 * np.arange(64)), ("x", 500000 + 10.0 * np.arange(64))):
        group.create_array(name, data=axis, dimension_names=[name])
    group.attrs["crs"] = "EPSG:32636"
    np.testing.assert_array_equal(open_imagery(tmp_path / "s.zarr").read_window(0, 0, 64, 64)[0], values)


def test_the_stamp_of_a_store_of_many_files_is_taken_now_and_then(tmp_path, monkeypatch):
    import causalsat.imagery.zarr_store as module

    for k in range(5):
        (tmp_path / str(k)).write_text("x")
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    real = module._files

    def slow(folder, under=""):
        clock[0] += 1.0
        return real(folder, under)

    monkeypatch.setattr(module, "_files", slow)
    monkeypatch.setattr(module, "_STAMPS", {})
    few = store_stamp(str(tmp_path))
    (tmp_path / "more").write_text("y")
    assert store_stamp(str(tmp_path)) != few  # of few files always anew, also where the machine is slow
    monkeypatch.setattr(module, "_MANY_FILES", 5)
    first = store_stamp(str(tmp_path))
    (tmp_path / "new").write_text("y")
    assert store_stamp(str(tmp_path)) == first  # a second's work is not repeated within 20 seconds
    clock[0] += 30
    second = store_stamp(str(tmp_path))
    assert second != first
    assert second[1] == 7
