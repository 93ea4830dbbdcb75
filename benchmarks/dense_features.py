"""Wall-to-wall random convolutional features: dense against patch by patch.

Encodes every chip of a regular grid over a simulated raster twice, by ``RandomConvFeatures.transform`` of the chips
and by ``RandomConvFeatures.dense`` of the raster, and prints the largest difference and the CPU seconds of both.

    python benchmarks/dense_features.py [--side 768] [--chip 64] [--stride 16]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

PIXEL_M = 10.0


def make_raster(side: int, bands: int, seed: int) -> np.ndarray:
    """Smooth and rough bands with a lake of missing pixels."""
    rng = np.random.default_rng(seed)
    smooth = [gaussian_filter(rng.normal(size=(side, side)), 1 + 2 * j) * (3 + 6 * j) for j in range(bands)]
    raster = (100 + 40 * (np.stack(smooth) + 0.2 * rng.normal(size=(bands, side, side)))).astype(np.float32)
    y, x = np.mgrid[:side, :side]
    raster[:, (y - side / 3) ** 2 + (x - side / 2) ** 2 < (side / 12) ** 2] = np.nan
    return raster


def cpu_seconds(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least CPU seconds of some repeats, and the result."""
    best, result = np.inf, None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def run(
    side: int = 768,
    chip: int = 64,
    strides: Sequence[int] = (32, 16, 8),
    bands: int = 3,
    n_features: int = 256,
    patch_px: int = 4,
    repeats: int = 2,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Compare both forms for each stride between chips; one dict a stride."""
    import torch

    from causalsat.encoders import RandomConvFeatures

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        raster = make_raster(side, bands, seed)
        rng = np.random.default_rng(seed)
        training = _cut(raster, rng.integers(0, side - chip, 200), rng.integers(0, side - chip, 200), chip)
        encoder = RandomConvFeatures(n_features=n_features, patch_px=patch_px, random_state=seed, device="cpu")
        encoder.fit(training)
        rows = []
        for stride in strides:
            corners = np.arange(0, side - chip + 1, stride)
            top, left = (g.ravel() for g in np.meshgrid(corners, corners, indexing="ij"))
            rows.append(_compare(encoder, raster, top, left, chip, stride, repeats))
        return rows
    finally:
        torch.set_num_threads(threads)


def _cut(raster: np.ndarray, top: np.ndarray, left: np.ndarray, chip: int) -> np.ndarray:
    return np.stack([raster[:, r : r + chip, c : c + chip] for r, c in zip(top, left, strict=True)])


def _compare(
    encoder: Any, raster: np.ndarray, top: np.ndarray, left: np.ndarray, chip: int, stride: int, repeats: int
) -> dict[str, float]:
    def patchwise() -> np.ndarray:
        parts = [
            encoder.transform(_cut(raster, top[i : i + 512], left[i : i + 512], chip))
            for i in range(0, len(top), 512)
        ]
        return np.concatenate(parts)

    slow, wanted = cpu_seconds(patchwise, 1)
    fast, found = cpu_seconds(lambda: encoder.dense(raster, top, left, chip), repeats)
    if not np.array_equal(np.isnan(found), np.isnan(wanted)):
        raise AssertionError("dense and patchwise features are missing at different places")
    area_km2 = len(top) * (stride * PIXEL_M / 1000) ** 2
    difference = np.abs(found - wanted)
    return {
        "stride": stride,
        "chips": len(top),
        "max_difference": float(np.nanmax(difference)),
        "max_difference_sd": float(np.nanmax(difference / np.nanstd(wanted, axis=0))),
        "patchwise_s_per_km2": slow / area_km2,
        "dense_s_per_km2": fast / area_km2,
        "ratio": slow / fast,
    }


def to_markdown(rows: Sequence[dict[str, float]]) -> str:
    """Table of the results."""
    head = (
        "| step between chips, px | chips | largest difference | in sd of the feature "
        "| patch by patch, CPU s/km2 | dense, CPU s/km2 | ratio |\n|---|---|---|---|---|---|---|"
    )
    lines = [
        f"| {r['stride']:g} | {r['chips']:g} | {r['max_difference']:.1e} | {r['max_difference_sd']:.1e} "
        f"| {r['patchwise_s_per_km2']:.4f} | {r['dense_s_per_km2']:.4f} | {r['ratio']:.1f} |"
        for r in rows
    ]
    return "\n".join([head, *lines])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=768, help="side of the raster in pixels")
    parser.add_argument("--chip", type=int, default=64, help="side of a chip in pixels")
    parser.add_argument("--stride", type=int, nargs="+", default=[32, 16, 8], help="pixels between chips")
    options = parser.parse_args(argv)
    print(f"256 random convolutional features, {options.chip}-pixel chips, 3 bands, 10 m pixels, one thread\n")
    print(to_markdown(run(side=options.side, chip=options.chip, strides=options.stride)))


if __name__ == "__main__":
    main()
