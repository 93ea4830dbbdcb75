"""Maps at the scale of a country: a ResNet-18 at a 16-pixel stride over a large COG, beside sliding patches.

    python benchmarks/country.py                   # 10,980 x 10,980 pixels of 10 m, and 4,096 x 4,096
    python benchmarks/country.py --large 2048 --small 1024     # a few minutes

The model is ``ImageEncoder(TorchvisionEncoder("resnet18", dense_stride=16), 10 components)`` on chips of 64 pixels
with a ``DoublyRobustEffect`` on top; cells are 16 pixels. Every measurement is made in a process of its own, with one
thread, and kept (see kept_rows.py): a run that was stopped goes on where it was. "The bare network" is torchvision's
own, dilated to the stride, with its normalisation folded in and channels last, on a 2,048 x 2,048 tensor in memory:
no file, no surroundings, no pooling, no effect. It, the patches and the map are measured in turn in one process,
because the machine is shared: the network before and after each map, and the median over the turns is what counts.
Two workers against one is clock time, on the large raster, and says little while others use the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kept_rows import kept_row
from mapping import _pixels, write_raster

PIXEL_M, CHIP_PX, STRIDE, N_PLACES = 10.0, 64, 16, 100
UGANDA_KM2 = 241_550
QUIET: dict[str, Any] = {"progress": False, "png": False, "html": False}
PRECISIONS = ("float32", "bfloat16")
TURNS, PAIRS = 5, 3


# ---------------------------------------------------------------------- model and files
def fit_model(imagery: Any, precision: str, seed: int = 0) -> Any:
    """A model of a simulated trial on the raster; the effect rises with the first component."""
    import geopandas as gpd
    from sklearn.pipeline import make_pipeline

    from causalsat import DoublyRobustEffect, ImageEncoder, TorchvisionEncoder

    rng = np.random.default_rng(seed)
    west, south, east, north = imagery.bounds
    margin = CHIP_PX * PIXEL_M
    x, y = (rng.uniform(a + margin, b - margin, N_PLACES) for a, b in ((west, east), (south, north)))
    places = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=imagery.crs)
    network = TorchvisionEncoder("resnet18", dense_stride=STRIDE, precision=precision, device="cpu")
    encoder = ImageEncoder(imagery, margin, network, n_components=10, on_invalid="mask")
    latent = encoder.fit_transform(places)["img0"]
    places = places[latent.notna().to_numpy()].reset_index(drop=True)
    latent = latent.dropna().to_numpy()
    treatment = np.arange(len(places)) % 2
    outcome = treatment * (0.5 + 0.5 * latent) + rng.standard_normal(len(places))
    model = make_pipeline(encoder, DoublyRobustEffect(random_state=0))
    return model.fit(places, outcome, doublyrobusteffect__treatment=treatment)


def files(folder: Path, size: int, precision: str) -> tuple[Path, Path]:
    """Raster and model of that size, made where they are not there yet."""
    import causalsat

    raster, model = folder / f"scene{size}.tif", folder / f"model{size}_{precision}.safetensors"
    if not raster.exists():
        write_raster(raster, size)
    if not model.exists():
        causalsat.save(fit_model(causalsat.open_imagery(raster), precision), model)
    return raster, model


# ---------------------------------------------------------------------- inside a process of its own
def work_map(raster: str, model_file: str, out: str) -> dict[str, float]:
    """Map in this process; what it took."""
    import causalsat

    imagery, model = causalsat.open_imagery(raster), causalsat.load(model_file)
    start, clock = time.process_time(), time.perf_counter()
    result = causalsat.map_effects(model, imagery, None, STRIDE * PIXEL_M, out, **QUIET)
    return {
        "cpu_s": time.process_time() - start,
        "clock_s": time.perf_counter() - clock,
        "peak_mb": _peak_mb(),
        "cells": result.n_mapped,
        "km2": _km2(imagery.shape[0]),
    }


def work_compare(raster: str, model_file: str, out: str) -> dict[str, Any]:
    """CPU seconds per km2 of the bare network, of sliding patches and of the map, in turn, after a warm-up."""
    import causalsat

    imagery, model = causalsat.open_imagery(raster), causalsat.load(model_file)
    encoder = model[0].encoders_[0]
    half = encoder.precision == "bfloat16"
    causalsat.map_effects(model, imagery, corner_of(imagery), STRIDE * PIXEL_M, out, **QUIET)
    _bare(encoder, half)
    bare, patches, alone, maps, ratios = [], [], [], [], []
    for turn in range(TURNS):
        before = _bare(encoder, half)
        Path(out).unlink()
        taken = work_map(raster, model_file, out)
        after = _bare(encoder, half)
        bare += [before, after]
        maps.append(taken["cpu_s"] / taken["km2"])
        ratios.append(2 * maps[-1] / (before + after))
        if turn < 2:
            patches.append(_sliding(encoder, imagery))
            alone.append(_patch_network(encoder, half))
    plan = causalsat.plan_map(model, imagery, None, STRIDE * PIXEL_M)
    return {
        "bare": float(np.median(bare)),
        "patches": float(np.mean(patches)),
        "patch_network": float(np.mean(alone)),
        "map": float(np.median(maps)),
        "ratios": sorted(ratios),
        "cells": taken["cells"],
        "km2": taken["km2"],
        "planned": plan.cpu_hours * 3600 / plan.area_km2,
        "tflop": plan.flops / 1e12,
        "planned_mb": plan.worker_bytes / 2**20,
    }


def corner_of(imagery: Any, side_px: int = 1024) -> tuple[float, float, float, float]:
    """Bounds of its north-western corner: a map of it imports and compiles what a map needs."""
    west, _, _, north = imagery.bounds
    return west, north - side_px * PIXEL_M, west + side_px * PIXEL_M, north


def _bare(encoder: Any, half: bool, side: int = 2048) -> float:
    """The dilated network, padded as torchvision pads it, on a tensor in memory."""
    import torch

    dtype = torch.bfloat16 if half else torch.float32
    network = _plain_network(encoder, dilated=True).to(dtype).to(memory_format=torch.channels_last)
    image = torch.randn(1, len(encoder.bands_), side, side).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(image[:, :, :256, :256])
        return _cpu(lambda: network(image)) / _km2(side)


def _patch_network(encoder: Any, half: bool, n: int = 256) -> float:
    """The same network as it was trained, on patches in memory, one a cell."""
    import torch

    dtype = torch.bfloat16 if half else torch.float32
    network = _plain_network(encoder, dilated=False).to(dtype).to(memory_format=torch.channels_last)
    image = torch.randn(32, len(encoder.bands_), CHIP_PX, CHIP_PX).to(dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(image)
        return _cpu(lambda: [network(image) for _ in range(n // 32)]) / (n * _km2(STRIDE))


def _plain_network(encoder: Any, *, dilated: bool) -> Any:
    """torchvision's ResNet-18 with the encoder's weights, normalisation folded into the convolutions."""
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval
    from torchvision.models.resnet import BasicBlock

    from causalsat.encoders.networks.backbones import build_backbone

    state = {k: torch.from_numpy(np.array(v)) for k, v in encoder.weights_.items()}
    network = build_backbone("resnet18", len(encoder.bands_), state, None)
    network.conv1, network.bn1 = fuse_conv_bn_eval(network.conv1, network.bn1), torch.nn.Identity()
    for block in network.modules():
        if isinstance(block, BasicBlock):
            block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), torch.nn.Identity()
            block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), torch.nn.Identity()
            if block.downsample is not None:
                block.downsample = torch.nn.Sequential(fuse_conv_bn_eval(*block.downsample))
    if dilated:
        first, second = network.layer4
        first.conv1.stride = first.downsample[0].stride = (1, 1)
        for conv in (first.conv2, second.conv1, second.conv2):
            conv.dilation = conv.padding = (2, 2)
    stem = (network.conv1, network.relu, network.maxpool)
    return torch.nn.Sequential(*stem, network.layer1, network.layer2, network.layer3, network.layer4)


def _sliding(encoder: Any, imagery: Any, cells: int = 24) -> float:
    """A chip for each cell, through the network chip by chip as ``TorchvisionEncoder`` does without a dense form."""
    from causalsat import TorchvisionEncoder

    side = (cells - 1) * STRIDE + CHIP_PX
    window = imagery.read_window(256, 256, side, side)
    chips = np.lib.stride_tricks.sliding_window_view(window, (CHIP_PX, CHIP_PX), axis=(-2, -1))
    chips = chips[:, ::STRIDE, ::STRIDE].transpose(1, 2, 0, 3, 4).reshape(-1, len(window), CHIP_PX, CHIP_PX)
    patchwise = TorchvisionEncoder("resnet18", precision=encoder.precision, device="cpu").fit(chips[:32])
    return _cpu(lambda: patchwise.transform(chips)) / (len(chips) * _km2(STRIDE))


def work_workers(raster: str, model_file: str, out: str) -> dict[str, Any]:
    """Clock seconds of the map on one and on two worker processes of a dask cluster, in turn, warm."""
    from distributed import Client, LocalCluster

    import causalsat

    imagery, model = causalsat.open_imagery(raster), causalsat.load(model_file)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    busy = os.getloadavg()[0]
    for _ in range(PAIRS):
        for n in (1, 2):
            with (
                LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None) as cluster,
                Client(cluster) as client,
            ):
                settings = {**QUIET, "client": client, "overwrite": True}
                causalsat.map_effects(
                    model, imagery, corner_of(imagery, 2560), STRIDE * PIXEL_M, out, tile_px=40, **settings
                )
                start = time.perf_counter()
                causalsat.map_effects(model, imagery, None, STRIDE * PIXEL_M, out, **settings)
                seconds[n].append(time.perf_counter() - start)
    ratios = sorted(one / two for one, two in zip(seconds[1], seconds[2], strict=True))
    return {
        "one_s": float(np.median(seconds[1])),
        "two_s": float(np.median(seconds[2])),
        "ratios": ratios,
        "load_before": busy,
        "km2": _km2(imagery.shape[0]),
    }


def _cpu(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _km2(side_px: float) -> float:
    return float((side_px * PIXEL_M / 1000) ** 2)


def _peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---------------------------------------------------------------------- processes
def start(task: str, *arguments: Path) -> subprocess.Popen[str]:
    """A process that measures, with one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--work", task, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads})


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it measured."""
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a measurement failed with exit code {process.returncode}")
    return dict(json.loads(text.splitlines()[-1]))


def killed_and_resumed(raster: Path, model: Path, folder: Path) -> dict[str, Any]:
    """The map after kill -9 at a random tile, against one without interruption."""
    out = folder / "resumed.tif"
    process = start("map", raster, model, out)
    tiles, wanted = Path(f"{out}.tiles"), random.Random(0).randint(1, 3)
    while process.poll() is None and len(list(tiles.glob("*.npy"))) < wanted:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = len(list(tiles.glob("*.npy")))
    finish(start("map", raster, model, out))
    finish(start("map", raster, model, folder / "whole.tif"))
    return {"kept": kept, "identical": _pixels(out) == _pixels(folder / "whole.tif")}


def run(large: int, small: int, folder: Path) -> dict[str, Any]:
    """All measurements; those that are kept are not made again."""

    def measure(task: str, size: int, precision: str) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            raster, model = files(folder, size, precision)
            for stale in folder.glob("*.tif"):
                if not stale.name.startswith("scene"):
                    stale.unlink()
            if task == "resume":
                return killed_and_resumed(raster, model, folder)
            return finish(start(task, raster, model, folder / f"{task}_{size}_{precision}.tif"))

        return kept_row("country", f"{task} {size} {precision}", make)

    found: dict[str, Any] = {"large": large, "small": small}
    for precision in PRECISIONS:
        found[f"compare {precision}"] = measure("compare", small, precision)
    found["resume"] = measure("resume", small, "bfloat16")
    found["workers"] = measure("workers", large, "bfloat16")
    for precision in reversed(PRECISIONS):
        found[f"map {precision}"] = measure("map", large, precision)
    return found


def to_markdown(found: dict[str, Any]) -> str:
    """Tables of the figures."""
    large, small = found["large"], found["small"]
    columns = [(found[f"compare {p}"], found[f"map {p}"]) for p in PRECISIONS]

    def row(name: str, value: Callable[[dict[str, Any], dict[str, Any]], str]) -> str:
        return f"| {name} | " + " | ".join(value(c, m) for c, m in columns) + " |"

    rows = [
        row("sliding patches of 64 pixels, CPU s/km2", lambda c, m: f"{c['patches']:.4f}"),
        row("the same network on patches in memory, folded, channels last", lambda c, m: f"{c['patch_network']:.4f}"),
        row("the bare dilated network on a tensor in memory", lambda c, m: f"{c['bare']:.5f}"),
        row(f"the map, end to end, {small:,} x {small:,} pixels", lambda c, m: f"{c['map']:.5f}"),
        row("sliding patches over the map", lambda c, m: f"{c['patches'] / c['map']:.1f}"),
        row("patches in memory over the map", lambda c, m: f"{c['patch_network'] / c['map']:.1f}"),
        row(f"the map over the bare network: median of {TURNS} turns (all)", lambda c, m: _spread(c["ratios"])),
        row("planned from one tile", lambda c, m: f"{c['planned']:.5f}"),
        row(
            f"the map of {large:,} x {large:,} pixels, {columns[0][1]['km2']:,.0f} km2: CPU s",
            lambda c, m: f"{m['cpu_s']:.0f}",
        ),
        row("CPU s/km2", lambda c, m: f"{m['cpu_s'] / m['km2']:.5f}"),
        row("cells with an effect", lambda c, m: f"{m['cells']:,.0f}"),
        row("peak memory of the process, MB", lambda c, m: f"{m['peak_mb']:,.0f}"),
        row(
            f"Uganda ({UGANDA_KM2:,} km2): CPU hours; hours on 2 cores",
            lambda c, m: (
                f"{m['cpu_s'] / m['km2'] * UGANDA_KM2 / 3600:.2f}; {m['cpu_s'] / m['km2'] * UGANDA_KM2 / 7200:.2f}"
            ),
        ),
    ]
    resume, workers = found["resume"], found["workers"]
    words = [
        f"Killed with {resume['kept']:.0f} tiles finished and resumed: pixels "
        f"{'identical' if resume['identical'] else 'NOT identical'}.",
        f"Two workers against one, {workers['km2']:,.0f} km2, bfloat16, {PAIRS} pairs in turn: "
        f"{workers['one_s']:.1f} s and {workers['two_s']:.1f} s of clock time (medians), "
        f"{_spread(workers['ratios'])} times the throughput; the machine's load before the measurement was "
        f"{workers['load_before']:.1f} on {os.cpu_count()} cores.",
        "On a GPU: not measured.",
    ]
    head = f"| ResNet-18 at stride {STRIDE}, one thread | " + " | ".join(PRECISIONS) + " |\n|---|---|---|"
    return "\n".join([head, *rows, "", *words])


def _spread(ratios: Sequence[float]) -> str:
    """Median, and all of them."""
    return f"{np.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=10_980, help="side of the large raster in pixels")
    parser.add_argument("--small", type=int, default=4096, help="side of the raster of the comparisons")
    parser.add_argument("--folder", type=Path, help="where rasters, models and maps are kept")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        import torch

        torch.set_num_threads(1)
        task = {"map": work_map, "compare": work_compare, "workers": work_workers}[options.work[0]]
        print(json.dumps(task(*options.work[1:])), flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        print(to_markdown(run(options.large, options.small, folder)))


if __name__ == "__main__":
    main()
