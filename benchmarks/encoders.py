"""Model kinds that users bring: does each fit, map, save and resume, and what does a cell cost?

Each kind is fitted on 24 places of a simulated raster, its effects are mapped, the model is saved and loaded, and the
map is made again by the loaded model, which must find the tiles of the first. The cost of a cell is the map's CPU
seconds over its cells; a bare forward pass is the network's own, on the pixels of a cell where it is dense (its
patches, without overlaps), else on its chip. Weights are random: only cost and function are shown.

    python benchmarks/encoders.py [--without vit]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

PIXEL_M, CELL_PX, CHIP_PX = 10.0, 16, 32
QUIET = {"progress": False, "png": False, "html": False}


def make_trial(side: int, seed: int) -> tuple[Any, Any]:
    """Places and a dated raster of three bands."""
    import geopandas as gpd
    import rioxarray  # noqa: F401
    import xarray as xr

    import causalsat

    rng = np.random.default_rng(seed)
    pixels = [sum(s * gaussian_filter(rng.normal(size=(side, side)), s) for s in (1, 4, 16)) for _ in range(3)]
    values = np.stack(pixels).astype("f4")
    values = 0.05 + 0.4 * (values - values.min()) / np.ptp(values)
    axis = PIXEL_M * np.arange(side)
    coords = {"band": ["blue", "red", "nir"], "y": 4e5 - axis, "x": 3e5 + axis}
    data = xr.DataArray(values, dims=("band", "y", "x"), coords=coords).rio.write_crs("EPSG:32636")
    low, high = 300, PIXEL_M * side - 300
    points = gpd.points_from_xy(3e5 + rng.uniform(low, high, 24), 4e5 - rng.uniform(low, high, 24))
    t = np.arange(24) % 2
    units = gpd.GeoDataFrame({"t": t, "y": rng.normal(size=24) + t}, geometry=points, crs="EPSG:32636")
    return units, causalsat.open_imagery(data, dates="2007-06-30")


def modules() -> dict[str, Any]:
    """Small modules with the signatures of published models, 8 layers of a transformer each where they see pixels."""
    import torch

    class Trunk(torch.nn.Module):
        def __init__(self, k: int = 128) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.proj = torch.nn.Conv2d(3, k, 8, 8)
            self.place = torch.nn.Linear(8, k)
            layer = torch.nn.TransformerEncoderLayer(k, 4, 4 * k, dropout=0.0, batch_first=True)
            self.layers = torch.nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)

        def tokens(self, pixels: Any, first: Any) -> Any:
            patches = self.proj(pixels).flatten(2).transpose(1, 2)
            return self.layers(torch.cat([first.expand(len(patches), -1, -1), patches], dim=1))

    class Clay(Trunk):
        def forward(self, cube: Any) -> Any:
            first = self.place(torch.cat([cube["latlon"], cube["time"]], dim=1))[:, None]
            return self.tokens(cube["pixels"] * cube["waves"].mean(), first)

    class Prithvi(Trunk):
        def forward(self, pixels: Any, dates: Any, places: Any) -> Any:
            first = self.place(torch.cat([dates[:, 0], places, dates[:, 0], places], dim=1))[:, None]
            return self.tokens(pixels[:, :, 0], first)

    class Dofa(Trunk):
        def forward(self, pixels: Any, waves: Any) -> Any:
            return self.tokens(pixels * waves[None, :, None, None], torch.zeros(1, 1, 128, device=pixels.device))

    class SatClip(torch.nn.Module):
        takes = ("lonlat",)

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = torch.nn.Sequential(torch.nn.Linear(2, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))

        def forward(self, lonlat: Any) -> Any:
            return self.net(lonlat * 50)

    return {"clay": Clay(), "prithvi": Prithvi(), "dofa": Dofa(), "satclip": SatClip()}


def kinds(with_vit: bool) -> dict[str, tuple[Any, Callable[[Any], float] | None, int]]:
    """By name: the encoder, the CPU seconds of a bare forward pass for a cell, and the raster's side."""
    from causalsat import ModuleEncoder, RandomConvFeatures, TorchvisionEncoder

    own = modules()
    waves = {"wavelengths": [480, 660, 840], "wavelength_units": "nm"}
    clay = {"pixels": "pixels", "time": "time_waves", "latlon": "latlon_waves", "waves": "wavelengths"}
    per_chip = {"patch": 8, "pooling": "mean"}
    side = 320
    found: dict[str, tuple[Any, Callable[[Any], float] | None, int]] = {
        "random features": (RandomConvFeatures(64, random_state=0), None, side),
        "ResNet-18 of chips": (TorchvisionEncoder("resnet18"), None, side),
        "ResNet-18, dense": (TorchvisionEncoder("resnet18", dense_stride=16), None, side),
        "like Clay (a dictionary)": (ModuleEncoder(own["clay"], takes=clay, **waves, **per_chip), bare_module, side),
        "like Prithvi (frames, dates, places)": (
            ModuleEncoder(own["prithvi"], takes=("frames", "dates", "latlon"), **per_chip), bare_module, side,
        ),
        "like DOFA (pixels, wavelengths)": (ModuleEncoder(own["dofa"], **waves, **per_chip), bare_module, side),
        "the same, dense": (ModuleEncoder(own["dofa"], **waves, **per_chip, window_px=128), bare_patches, side),
        "like SatCLIP (longitude, latitude)": (ModuleEncoder(own["satclip"]), bare_module, side),
    }  # fmt: skip
    if with_vit:
        found["ViT-B/16 of chips"] = (TorchvisionEncoder("vit_b_16"), bare_torchvision(224, 1), 112)
        patches = bare_torchvision(224, (CELL_PX / 224) ** 2)
        found["ViT-B/16, dense"] = (TorchvisionEncoder("vit_b_16", dense_stride=16), patches, 896)
    return found


def cpu_of(work: Callable[[], Any], repeats: int = 2) -> float:
    """Least CPU seconds of some repeats."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def bare_torchvision(side: int, share: float) -> Callable[[Any], float]:
    """CPU seconds of the network on images of a side, times the share of one that a cell is."""

    def seconds(encoder: Any) -> float:
        import torch

        network, images = encoder._network().cpu(), torch.zeros(2, 3, side, side)
        with torch.inference_mode():
            return cpu_of(lambda: network(images)) / 2 * share

    return seconds


def bare_module(encoder: Any) -> float:
    """CPU seconds of the module alone on the chip of a cell, 32 at a time."""
    import torch

    from causalsat.encoders.networks.module_inputs import Surroundings, arguments

    declared, n = encoder.declared_, 32
    places = Surroundings(np.zeros((n, 2)), np.full((n, 1), np.datetime64("2007-06-30", "s")), PIXEL_M)
    frames = declared.reads_pixels and declared.by_unit
    images = torch.zeros((n, 3, *([1] if frames else []), CHIP_PX, CHIP_PX))
    given = arguments(declared, images, places, images.device)
    module = encoder._network().eval()
    with torch.inference_mode():
        return cpu_of(lambda: module(*given)) / n


def bare_patches(encoder: Any) -> float:
    """CPU seconds of the module alone on a window, times the share of one that a cell is."""
    import torch

    side = encoder.window_px
    module, images = encoder._network().eval(), torch.zeros(4, 3, side, side)
    waves = torch.tensor(encoder.declared_.wavelengths)
    with torch.inference_mode():
        return cpu_of(lambda: module(images, waves)) / 4 * (CELL_PX / side) ** 2


def run_kind(encoder: Any, bare: Callable[[Any], float] | None, side: int) -> dict[str, Any]:
    """Fit, map, save, load and map again."""
    from sklearn.pipeline import make_pipeline

    import causalsat
    from causalsat import DoublyRobustEffect, ImageEncoder

    units, imagery = make_trial(side, 0)
    row: dict[str, Any] = {"fits": False, "maps": False, "saves": False, "resumes": False}
    image = ImageEncoder(imagery, CHIP_PX * PIXEL_M, encoder, n_components=3)
    model = make_pipeline(image, DoublyRobustEffect(random_state=0))
    model.fit(units, units["y"], doublyrobusteffect__treatment=units["t"].to_numpy())
    row["fits"] = True
    fitted = model[0].encoders_[0]
    for name in ("margin_px_",):
        row[name] = getattr(fitted, name, None)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        first = causalsat.map_effects(model, imagery, None, CELL_PX * PIXEL_M, Path(folder) / "a.tif", **QUIET)
        row["cell_s"] = (time.process_time() - start) / first.n_mapped
        row["maps"], row["cells"] = first.n_mapped > 0, first.n_mapped
        path = Path(folder) / "model.safetensors"
        causalsat.save(model, path)
        module = getattr(encoder, "module", None)
        loaded = causalsat.load(path, modules=module)
        row["saves"] = bool(np.allclose(loaded[0].transform(units), model[0].transform(units), atol=1e-4))
        plan = causalsat.plan_map(loaded, imagery, None, CELL_PX * PIXEL_M, measure=False)
        row["gflop"] = plan.flops / plan.n_cells / 1e9
        if side > 200:
            again = causalsat.map_effects(loaded, imagery, None, CELL_PX * PIXEL_M, Path(folder) / "b.tif", **QUIET)
            row["resumes"] = again.job == first.job
        else:
            from causalsat.mapping.job import model_digest

            row["resumes"] = model_digest(loaded) == model_digest(model)
    row["bare_s"] = np.nan if bare is None else bare(fitted)
    return row


def to_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Table of the results."""
    head = (
        "| model | fits | maps | saves | resumes | cells | CPU ms a cell | over its bare forward pass "
        "| margin, px |\n|---|---|---|---|---|---|---|---|---|"
    )
    yes = {True: "yes", False: "no"}
    lines = []
    for name, r in rows.items():
        ratio = "" if not np.isfinite(r["bare_s"]) else f"{r['cell_s'] / r['bare_s']:.2f}"
        margin = "" if r["margin_px_"] is None else f"{r['margin_px_']}"
        checks = " | ".join(yes[bool(r[k])] for k in ("fits", "maps", "saves", "resumes"))
        lines.append(f"| {name} | {checks} | {r['cells']} | {1e3 * r['cell_s']:.2f} | {ratio} | {margin} |")
    return "\n".join([head, *lines])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", choices=["vit"], help="leave out the vision transformers of 86 million weights")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = {name: run_kind(*kind) for name, kind in kinds(options.without != "vit").items()}
    print(f"Chips of {CHIP_PX} pixels, cells of {CELL_PX}, three bands, random weights, one thread\n")
    print(to_markdown(rows))
    if "ViT-B/16, dense" in rows:
        ratio = rows["ViT-B/16 of chips"]["cell_s"] / rows["ViT-B/16, dense"]["cell_s"]
        print(f"\nA cell of ViT-B/16 by tokens is {ratio:.0f} times cheaper than by chips.")


if __name__ == "__main__":
    main()
