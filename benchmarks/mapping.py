"""A map of effects over a large COG: CPU seconds, peak memory, and the same pixels after kill -9 and resume.

    python benchmarks/mapping.py                   # 10,980 x 10,980 pixels of 10 m, cells of 32 pixels
    python benchmarks/mapping.py --size 2048       # a minute

The model is ``ImageEncoder(RandomConvFeatures(64), 10 components)`` on chips of 64 pixels with a
``DoublyRobustEffect`` on top, fitted on 400 places with an effect that follows the imagery. Each map is computed in a
process of its own, with one thread. The first process is killed at a random tile and the map resumed in a second;
a third maps without interruption. Peak memory is ``ru_maxrss`` of those processes, with everything that they import.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PIXEL_M, CHIP_PX, CELL_PX, N_PLACES = 10.0, 64, 32, 400
QUIET: dict[str, Any] = {"progress": False, "png": False, "html": False}


def write_raster(path: Path, size: int, seed: int = 0) -> None:
    """A deflated three-band COG with texture at several scales and a river of nodata."""
    import rasterio
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    side = min(size, 2048)
    fields = [gaussian_filter(rng.standard_normal((side, side)), s, mode="wrap") for s in (1, 4, 16, 64)]
    fields = [f / f.std() for f in fields]
    mix = np.array([[1, 1, 2, 3], [2, 1, 1, -2], [1, 3, 1, 1]], dtype=float)
    texture = np.clip(np.tensordot(mix, np.stack(fields), 1) * 9 + 120, 1, 255).astype(np.uint8)
    profile = {
        "driver": "COG", "height": size, "width": size, "count": 3, "dtype": "uint8", "compress": "deflate",
        "blocksize": 512, "overviews": "none", "nodata": 0, "crs": "EPSG:32636",
        "transform": rasterio.Affine(PIXEL_M, 0, 4e5, 0, -PIXEL_M, 4e5),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as sink:
        for row in range(0, size, side):
            for col in range(0, size, side):
                height, width = min(side, size - row), min(side, size - col)
                block = texture[:, :height, :width].copy()
                block[:, :, max(0, width // 2 - 40) : width // 2 + 40] = 0
                sink.write(block, window=rasterio.windows.Window(col, row, width, height))


def fit_model(imagery: Any, features: Any = None, seed: int = 0) -> Any:
    """An image model of a simulated trial on the raster; the effect rises with the first component."""
    import geopandas as gpd
    from sklearn.pipeline import make_pipeline

    from causalsat import DoublyRobustEffect, ImageEncoder, RandomConvFeatures

    rng = np.random.default_rng(seed)
    west, south, east, north = imagery.bounds
    margin = CHIP_PX * PIXEL_M
    x, y = (
        rng.uniform(west + margin, east - margin, 2 * N_PLACES),
        rng.uniform(south + margin, north - margin, 2 * N_PLACES),
    )
    places = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=imagery.crs)
    valid = imagery.chips(places, size_px=CHIP_PX, on_invalid="mask", min_valid=0.0).valid_fraction.values >= 0.99
    places = places[valid].iloc[:N_PLACES].reset_index(drop=True)
    filters = RandomConvFeatures(64) if features is None else features
    encoder = ImageEncoder(imagery, CHIP_PX * PIXEL_M, filters, n_components=10)
    latent = encoder.fit_transform(places)["img0"].to_numpy()
    treatment = np.arange(len(places)) % 2
    outcome = treatment * (0.5 + 0.5 * latent) + rng.standard_normal(len(places))
    model = make_pipeline(encoder, DoublyRobustEffect(random_state=0))
    return model.fit(places, outcome, doublyrobusteffect__treatment=treatment)


def work(raster: str, model_file: str, out: str) -> None:
    """Map in this process and print what it took."""
    import resource

    import torch

    torch.set_num_threads(1)
    import causalsat

    imagery, model = causalsat.open_imagery(raster), causalsat.load(model_file)
    start = time.process_time()
    tile_px = _tile_px(imagery.shape[0])
    result = causalsat.map_effects(model, imagery, None, CELL_PX * PIXEL_M, out, tile_px=tile_px, **QUIET)
    took = {
        "cpu_s": time.process_time() - start,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cells": result.n_mapped,
        "job": result.job,
    }
    print(json.dumps(took), flush=True)


def _tile_px(size: int) -> int:
    return 48 if size > 4096 else 16


def _start(*arguments: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--work", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the map failed with exit code {process.returncode}")
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


def _pixels(path: Path) -> str:
    import rasterio

    digest = hashlib.sha256()
    with rasterio.open(path) as raster:
        for _, window in raster.block_windows(1):
            digest.update(raster.read(window=window).tobytes())
    return digest.hexdigest()


def run(size: int = 10_980, *, folder: Path | None = None, seed: int = 0) -> dict[str, Any]:
    """Measure; returns flat figures."""
    import causalsat

    with tempfile.TemporaryDirectory(dir=folder) as name:
        base = Path(name)
        raster, model_file = base / "scene.tif", base / "model.safetensors"
        write_raster(raster, size)
        causalsat.save(fit_model(causalsat.open_imagery(raster)), model_file)
        killed = _start(raster, model_file, base / "resumed.tif")
        n_tiles = (-(-size // (CELL_PX * _tile_px(size)))) ** 2
        tiles, wanted = base / "resumed.tif.tiles", random.Random(seed).randint(1, n_tiles - 1)
        while killed.poll() is None and len(list(tiles.glob("*.npy"))) < wanted:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        survived = len(list(tiles.glob("*.npy"))) if tiles.exists() else 0
        resumed = _finish(_start(raster, model_file, base / "resumed.tif"))
        whole = _finish(_start(raster, model_file, base / "whole.tif"))
        identical = _pixels(base / "resumed.tif") == _pixels(base / "whole.tif")
    km2 = (size * PIXEL_M / 1000) ** 2
    return {
        "size_px": size,
        "km2": km2,
        "cells": whole["cells"],
        "cpu_s": whole["cpu_s"],
        "cpu_s_per_1000_km2": 1000 * whole["cpu_s"] / km2,
        "peak_mb": max(whole["peak_mb"], resumed["peak_mb"]),
        "tiles": n_tiles,
        "tiles_before_kill": survived,
        "cpu_s_after_resume": resumed["cpu_s"],
        "identical_after_resume": identical and resumed["job"] == whole["job"],
    }


def to_markdown(figures: dict[str, Any]) -> str:
    """Table of the figures."""
    rows = [
        ("raster", f"{figures['size_px']:,} x {figures['size_px']:,} pixels, 3 bands, {figures['km2']:,.0f} km2"),
        ("cells with an effect", f"{figures['cells']:,} of 320 m"),
        ("CPU seconds, 1 thread", f"{figures['cpu_s']:.1f}"),
        ("CPU seconds per 1,000 km2", f"{figures['cpu_s_per_1000_km2']:.2f}"),
        ("peak memory of the process", f"{figures['peak_mb']:,.0f} MB"),
        ("tiles finished before kill -9", f"{figures['tiles_before_kill']} of {figures['tiles']}"),
        ("CPU seconds of the resumed run", f"{figures['cpu_s_after_resume']:.1f}"),
        ("pixels identical after resume", "yes" if figures["identical_after_resume"] else "NO"),
    ]
    lines = ["| Mapping | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_980)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
    else:
        print(to_markdown(run(options.size)))


if __name__ == "__main__":
    main()
