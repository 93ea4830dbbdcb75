"""Chips from a large COG: CPU seconds of four ways to read 5,000 random windows of 64 pixels.

    python benchmarks/chips.py                       # 10,980 x 10,980 pixels; about 2 minutes
    python benchmarks/chips.py --size 2048 --n 500   # seconds

The raster has 3 bands of uint8, deflated. (a) opens the file for every point, (b) is ``causalsat.chips`` into memory,
(c) decodes the raster once, block by block, which is what any reader that needs most blocks must do, (d) keeps one
handle open and takes the points in random order.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from rasterio.windows import Window

import causalsat
from causalsat.imagery.handles import close_all

CHIP_PX = 64
CACHE = 512 << 20
FAST = ["decode_once", "causalsat", "causalsat_threads"]  # in turn, several times; the fastest of each counts
LABELS = {
    "open_per_point": "(a) open the file for every point",
    "causalsat": "(b) causalsat.chips, into memory",
    "causalsat_threads": "(b2) the same with 2 threads",
    "decode_once": "(c) decode the raster once, block by block",
    "one_handle": "(d) one handle, random order",
}


def write_raster(path: Path, size: int, seed: int = 0) -> None:
    """A three-band COG with texture at all scales and noise, so that deflate finds as little in it as in imagery."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    side = min(size, 2048)
    fields = []
    for _ in range(3):
        field = sum(
            scale**0.7 * _unit(gaussian_filter(rng.normal(size=(side, side)), scale)) for scale in (1, 4, 16, 64)
        )
        fields.append(_unit(field))
    texture = np.stack([fields[0], 0.7 * fields[0] + 0.7 * fields[1], 0.5 * fields[0] + 0.8 * fields[2]]) * 28 + 110
    profile = {
        "driver": "COG", "height": size, "width": size, "count": 3, "dtype": "uint8", "compress": "deflate",
        "blocksize": 512, "overviews": "none",
        "crs": "EPSG:32636", "transform": rasterio.Affine(10, 0, 4e5, 0, -10, 4e5),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as sink:
        for r in range(0, size, side):
            for c in range(0, size, side):
                h, w = min(side, size - r), min(side, size - c)
                tile = texture[:, ::-1] if (r // side + c // side) % 2 else texture
                noisy = tile[:, :h, :w] + rng.normal(0, 1.5, size=(3, h, w)).astype(np.float32)
                sink.write(np.clip(noisy, 1, 255).astype(np.uint8), window=Window(c, r, w, h))


def _unit(field: np.ndarray) -> np.ndarray:
    return ((field - field.mean()) / field.std()).astype(np.float32)


def run(
    size: int = 10980,
    n: int = 5000,
    seed: int = 0,
    *,
    threads: bool = True,
    repeats: int = 3,
    folder: str | None = None,
) -> dict[str, Any]:
    """CPU and wall seconds of each way, compression ratio, and whether (a) and (b) read the same pixels."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "scene.tif"
        write_raster(path, size, seed)
        half = CHIP_PX // 2
        rows, cols = rng.integers(half, size - half, size=(2, n))
        points = geopandas.GeoSeries.from_xy(4e5 + 10 * cols + 5, 4e5 - 10 * rows - 5, crs="EPSG:32636")
        imagery = causalsat.open_imagery(path)
        options = {"size_px": CHIP_PX, "progress": False}
        imagery.chips(points[:2], **options)  # imports and projection tables are not what is measured
        ways: dict[str, Callable[[], Any]] = {
            "decode_once": lambda: _decode_once(path),
            "causalsat": lambda: imagery.chips(points, **options),
            "open_per_point": lambda: _open_per_point(path, rows - half, cols - half),
            "one_handle": lambda: _one_handle(path, rows - half, cols - half),
        }
        if threads:
            ways["causalsat_threads"] = lambda: imagery.chips(points, threads=2, **options)
        times: dict[str, dict[str, float]] = {}
        results = {}
        for key in [*FAST * repeats, "open_per_point", "one_handle"]:
            if key not in ways:
                continue
            close_all()  # an open file's decoded blocks would make the next reading of it look faster
            cpu, wall = time.process_time(), time.perf_counter()
            result = ways[key]()
            took = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
            times[key] = min(took, times.get(key, took), key=lambda entry: entry["cpu_s"])
            if key in ("causalsat", "open_per_point"):
                results[key] = np.asarray(result)
            del result
        equal = bool(np.array_equal(results["causalsat"], results["open_per_point"].astype(np.float32)))
        ratio = 3 * size**2 / path.stat().st_size
    return {"size": size, "n": n, "times": times, "compression": ratio, "equal": equal}


def _decode_once(path: Path) -> None:
    with rasterio.Env(GDAL_CACHEMAX=CACHE), rasterio.open(path) as source:
        for _, window in source.block_windows(1):
            source.read(window=window)


def _open_per_point(path: Path, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows), 3, CHIP_PX, CHIP_PX), dtype=np.uint8)
    for i, (row, col) in enumerate(zip(rows.tolist(), cols.tolist(), strict=True)):
        with rasterio.open(path) as source:
            source.read(window=Window(col, row, CHIP_PX, CHIP_PX), out=out[i])
    return out


def _one_handle(path: Path, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows), 3, CHIP_PX, CHIP_PX), dtype=np.uint8)
    with rasterio.Env(GDAL_CACHEMAX=CACHE // 8), rasterio.open(path) as source:
        for i, (row, col) in enumerate(zip(rows.tolist(), cols.tolist(), strict=True)):
            source.read(window=Window(col, row, CHIP_PX, CHIP_PX), out=out[i])
    return out


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    limit = result["times"]["decode_once"]["cpu_s"]
    lines = [
        f"{result['n']:,} random {CHIP_PX}-pixel chips of a {result['size']:,} x {result['size']:,} 3-band uint8 COG "
        f"(512-pixel blocks, compressed {result['compression']:.1f} times); pixels equal: {result['equal']}",
        "",
        "| way | CPU s | wall s | times (c) |",
        "|---|---|---|---|",
    ]
    for key, label in LABELS.items():
        if key in result["times"]:
            entry = result["times"][key]
            lines.append(f"| {label} | {entry['cpu_s']:.2f} | {entry['wall_s']:.2f} | {entry['cpu_s'] / limit:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10980, help="rows and columns of the raster")
    parser.add_argument("--n", type=int, default=5000, help="number of chips")
    parser.add_argument("--folder", default=None, help="where the temporary raster is written")
    options = parser.parse_args()
    print(table(run(options.size, options.n, folder=options.folder)))


if __name__ == "__main__":
    main()
