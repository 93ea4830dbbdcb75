"""Jobs that are killed, run twice at once, or meet a full disk, and files made to do harm."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from fault_rasters import TRANSFORM, expected_chips, pixels, points, write
from fault_runner import Case, in_a_child
from scipy.ndimage import gaussian_filter
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat.base import EffectEstimator
from causalsat.encoders import ImageEncoder, RandomConvFeatures, SelfSupervisedEncoder
from causalsat.imagery import open_imagery
from causalsat.mapping import map_effects

SHAPE = np.linspace(-1.0, 1.0, 21)
QUIET = {"progress": False, "png": False, "html": False}


class Level(EffectEstimator):
    """Effect: the mean of the features, with draws spread over one unit to either side."""

    def _fit(self, data: Any) -> None:
        self.fitted_ = True

    def _effect_draws(self, X: Any, treatment: float, baseline: float) -> Any:
        return X.mean(axis=1) + SHAPE[:, None] * (treatment - baseline)


def world(folder: Path, side: int = 160) -> tuple[Any, Any]:
    """Imagery with structure, and a model that reads it."""
    rng = np.random.default_rng(0)
    values = np.stack([gaussian_filter(rng.standard_normal((side, side)), 4) * 9 for _ in range(2)])
    path = write(folder / "world.tif", values.astype(np.float32), tiled=True, blockxsize=64, blockysize=64)
    imagery = open_imagery(path)
    spot = rng.uniform(12, side - 12, (60, 2))
    where = geopandas.GeoDataFrame(
        geometry=geopandas.points_from_xy(500000 + 10 * spot[:, 0], 100000 - 10 * spot[:, 1]), crs=32636
    )
    encoder = ImageEncoder(imagery, size_m=90, encoder=RandomConvFeatures(n_features=8), n_components=2)
    model = make_pipeline(encoder, Level())
    return imagery, model.fit(where, rng.standard_normal(60), level__treatment=np.arange(60) % 2)


def map_of(imagery: Any, model: Any, out: Path) -> np.ndarray:
    """Map in many tiles and read it back."""
    result = map_effects(model, imagery, None, 40, out, tile_px=8, **QUIET)
    with rasterio.open(result.path) as raster:
        return raster.read()


# ---------------------------------------------------------------------- kill -9
def victim(job: Callable[[], Any], seconds: float) -> bool:
    """Run a job in a child and kill it after a time; whether it was still at it."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            job()
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def duration(job: Callable[[], Any]) -> float:
    """Seconds that a job takes in a child."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            job()
        os._exit(0)
    os.waitpid(child, 0)
    return time.monotonic() - start


def killed_maps(folder: Path, moments: int, seed: int = 0) -> Iterator[Case]:
    """A map job killed at random moments and run again: the pixels of an uninterrupted one, bit by bit."""
    imagery, model = world(folder)
    whole = map_of(imagery, model, folder / "whole.tif")
    length = duration(lambda: map_of(imagery, model, folder / "timed.tif"))
    for k, share in enumerate(np.random.default_rng(seed).uniform(0.02, 1, moments)):

        def run(k: int = k, share: float = share) -> bool:
            out = folder / f"k{k}.tif"
            victim(lambda: map_of(imagery, model, out), share * length)
            if out.exists():  # it is written atomically
                with rasterio.open(out) as raster:
                    assert np.array_equal(raster.read(), whole, equal_nan=True)
            again = map_of(imagery, model, out)
            left = [path.name for path in folder.iterdir() if path.name.startswith(f"k{k}.tif.")]
            return again.tobytes() == whole.tobytes() and not left

        yield Case(f"killed at {share:.0%}", run)


def killed_trainings(folder: Path, moments: int, seed: int = 0) -> Iterator[Case]:
    """A training with a checkpoint killed at random moments and run again: the same weights, bit by bit."""
    rng = np.random.default_rng(0)
    chips = rng.standard_normal((24, 2, 16, 16)).astype(np.float32)

    def train(path: Path | None) -> Any:
        settings = {"width": 4, "batch_size": 12, "max_epochs": 10, "patience": 10, "random_state": 0}
        checkpoint = None if path is None else str(path)
        return SelfSupervisedEncoder(checkpoint=checkpoint, **settings).fit(chips)

    whole = train(None)
    features = whole.transform(chips).tobytes()
    length = duration(lambda: train(folder / "timed.pt"))
    for k, share in enumerate(np.random.default_rng(seed).uniform(0.02, 1, moments)):

        def run(k: int = k, share: float = share) -> bool:
            path = folder / f"t{k}.pt"
            victim(lambda: train(path), share * length)
            again = train(path)
            return again.losses_ == whole.losses_ and again.transform(chips).tobytes() == features

        yield Case(f"killed at {share:.0%}", run)


def killed_writers(folder: Path, moments: int, seed: int = 0) -> Iterator[Case]:
    """A model saved over and over, and a cache filled, killed at random moments: the old or the new, never half."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    models = [PCA(2).fit(rng.standard_normal((20, 4000))) for _ in range(2)]
    path = write(folder / "cached.tif", pixels(), tiled=True, blockxsize=32, blockysize=32)
    known = {causalsat.persistence.digest(model) for model in models}
    for k, seconds in enumerate(rng.uniform(0.0, 0.15, moments)):

        def saving(k: int = k, seconds: float = seconds) -> bool:
            file = folder / f"m{k}.safetensors"
            causalsat.save(models[0], file)
            victim(lambda: [causalsat.save(models[i % 2], file) for i in range(1000)], seconds)
            return causalsat.persistence.digest(causalsat.load(file)) in known

        def caching(k: int = k, seconds: float = seconds) -> bool:
            cache = folder / f"c{k}"
            imagery = open_imagery(path)
            read = lambda: imagery.chips(points(), size_px=21, on_invalid="mask", cache=cache)  # noqa: E731
            victim(read, seconds / 3)
            return np.array_equal(read().values, expected_chips(pixels()), equal_nan=True)

        yield Case(f"saving, {seconds:.2f} s", saving)
        yield Case(f"caching, {seconds / 3:.2f} s", caching)


# ---------------------------------------------------------------------- two at once
def two_at_once(folder: Path, pairs: int) -> Iterator[Case]:
    """Two processes or four threads that fill one chip cache; two processes that write one map."""
    path = write(folder / "shared.tif", pixels(), tiled=True, blockxsize=32, blockysize=32)
    wanted = expected_chips(pixels())
    imagery, model = world(folder)
    whole = map_of(imagery, model, folder / "whole.tif").tobytes()

    def right(cache: Path, lazy: bool) -> bool:
        chips = open_imagery(path).chips(points(), size_px=21, on_invalid="mask", cache=cache, lazy=lazy)
        return np.array_equal(chips.values, wanted, equal_nan=True)

    def beside(job: Callable[[], bool]) -> bool:
        """The job here and in another process at the same time."""
        child = os.fork()
        if child == 0:
            os._exit(0 if in_a_child(Case("other", job))[0] in ("right", "error") else 1)
        try:
            return job()
        finally:
            assert os.waitpid(child, 0)[1] == 0

    def threads(cache: Path) -> bool:
        found: list[bool] = []
        workers = [threading.Thread(target=lambda k=k: found.append(right(cache, k % 2 == 0))) for k in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return found == [True] * 4

    for k in range(pairs):
        yield Case(f"cache, processes {k}", lambda k=k: beside(lambda: right(folder / f"p{k}", k % 2 == 1)))
        yield Case(f"cache, threads {k}", lambda k=k: threads(folder / f"t{k}"))
        out = folder / f"both{k}.tif"
        yield Case(
            f"map {k}", lambda out=out: beside(lambda: map_of(imagery, model, out).tobytes() == whole), out.name
        )


# ---------------------------------------------------------------------- a full disk
@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of a few bytes in memory; False where this machine does not let one be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(folder: Path, shares: tuple[float, ...]) -> Iterator[Case]:
    """Outputs on a disk with a share of the room that they need, and under a limit of the size of a file."""
    from sklearn.decomposition import PCA

    imagery, model = world(folder)
    whole = map_of(imagery, model, folder / "whole.tif")
    fitted = PCA(4).fit(np.random.default_rng(0).standard_normal((30, 20000)))
    source = write(folder / "full.tif", pixels(), tiled=True, blockxsize=32, blockysize=32)
    chips = np.random.default_rng(0).standard_normal((24, 2, 16, 16)).astype(np.float32)

    def mapping(where: Path) -> bool:
        return np.array_equal(map_of(imagery, model, where / "e.tif"), whole, equal_nan=True)

    def saving(where: Path) -> bool:
        causalsat.save(fitted, where / "m.safetensors")
        return np.array_equal(causalsat.load(where / "m.safetensors").components_, fitted.components_)

    def caching(where: Path) -> bool:
        found = open_imagery(source).chips(points(), size_px=21, on_invalid="mask", cache=where / "c", lazy=True)
        return np.array_equal(found.values, expected_chips(pixels()), equal_nan=True)

    def training(where: Path) -> bool:
        encoder = SelfSupervisedEncoder(width=8, max_epochs=2, checkpoint=str(where / "t.pt"), random_state=0)
        return len(encoder.fit(chips).losses_) == 2

    def page(where: Path) -> bool:
        from causalsat.mapping.page import write_page

        return write_page(folder / "whole.tif", where / "map.html").stat().st_size > 1e6

    jobs = {"map": (mapping, 300_000, "e.tif"), "model": (saving, 800_000, "m.safetensors"),
            "cache": (caching, 60_000, "c"), "checkpoint": (training, 60_000, "t.pt"),
            "page": (page, 1_900_000, "map.html")}  # fmt: skip
    for name, (job, needs, file) in jobs.items():
        for share in shares:

            def on_disk(name: str = name, job: Any = job, needs: int = needs, share: float = share) -> bool:
                where = folder / f"disk_{name}_{share}"
                with small_disk(where, int(share * needs)) as mounted:
                    if not mounted:
                        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * needs / 4),) * 2)
                    return _whole_or_nothing(job, where)

            def limited(name: str = name, job: Any = job, needs: int = needs, share: float = share) -> bool:
                where = folder / f"limit_{name}_{share}"
                where.mkdir()
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * needs / 4),) * 2)
                return _whole_or_nothing(job, where)

            yield Case(f"{name}, {share:.0%} of the room", on_disk, file)
            yield Case(f"{name}, files of {share / 4:.0%}", limited, file)


def _whole_or_nothing(job: Callable[[Path], bool], where: Path) -> bool:
    """Whether a job is right; one that fails leaves nothing under its own name."""
    try:
        return job(where)
    except causalsat.exceptions.CausalsatError:
        half = [path.name for path in where.iterdir() if path.suffix in (".tif", ".safetensors", ".html")]
        if half:
            raise AssertionError(f"left {half}") from None
        raise


# ---------------------------------------------------------------------- files made to do harm
def hostile(folder: Path, most_mib: float = 400.0) -> Iterator[Case]:
    """Models, catalogues and rasters that would run code or fill the memory."""
    jobs: dict[str, tuple[Callable[[], Any], str]] = {**_models(folder), **_catalogues(folder), **_rasters(folder)}
    for name, (job, file) in jobs.items():

        def run(job: Callable[[], Any] = job) -> bool:
            before = _resident("VmRSS")
            with open("/proc/self/clear_refs", "w") as reset:
                reset.write("5")
            try:
                job()
            finally:
                grown = (_resident("VmHWM") - before) / 1024
                if grown > most_mib or (folder / "owned").exists():
                    os.abort()  # counted as a crash
            return True

        yield Case(name, run, file)


def _resident(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def _models(folder: Path) -> dict[str, tuple[Callable[[], Any], str]]:
    from safetensors.numpy import save_file

    def model(name: str, body: Any) -> tuple[Callable[[], Any], str]:
        path = folder / f"{name}.safetensors"
        text = body if isinstance(body, str) else json.dumps({"format": 1, "model": body})
        save_file({"a0": np.zeros(2)}, path, metadata={"causalsat": text})
        return lambda: causalsat.load(path), ""

    nested = '{"format": 1, "model": ' + '{"$list": [' * 50_000 + "]}" * 50_000 + "}"
    huge = folder / "huge.safetensors"
    huge.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    claim = json.dumps({"a": {"dtype": "F64", "shape": [1 << 40], "data_offsets": [0, 1 << 43]}}).encode()
    (folder / "claim.safetensors").write_bytes(len(claim).to_bytes(8, "little") + claim)
    touch = f"touch {folder / 'owned'}"
    return {
        "model names os.system": model("system", {"$object": "os:system", "state": {"x": touch}}),
        "model names a function": model("function", {"$object": "causalsat.cli:main", "state": {}}),
        "model sets __class__": model(
            "dunder", {"$object": "sklearn.linear_model._ridge:Ridge", "state": {"__class__": 1}}
        ),
        "model nested deeply": model("nested", nested),
        "model with a number of a million digits": model("digits", '{"format": 1, "model": ' + "1" * 10**6 + "}"),
        "model with texts of a gigabyte": model("texts", {"$objects": ["<U250000000", [3], ["a", "b", "c"]]}),
        "model with dates of a gigabyte": model("dates", {"$datetimes": ["S1000000000", {"$array": "a0"}]}),
        "model whose header is 4 EiB": (lambda: causalsat.load(huge), huge.name),
        "model whose array is 8 TiB": (lambda: causalsat.load(folder / "claim.safetensors"), "claim.safetensors"),
    }


def _catalogues(folder: Path) -> dict[str, tuple[Callable[[], Any], str]]:
    from causalsat.catalog import load_catalog, load_study

    good = "version: 1\ndatasets:\n  toy: {kind: simulated, licence: CC0, citation: x, simulate: {seed: 1}}\n"
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    merges = "m0: &m0 {a: 1, b: 2}\n" + "".join(
        f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 9)
    )
    away = """
version: 1
datasets:
  {name}: {{kind: trial, licence: x, citation: x, folder: nowhere, units: {{file: u.csv}},
    roles: {{outcome: y, treatment: d}},
    download: {{urls: {{'{file}': 'http://127.0.0.1:9/x'}}, sha256: {{'{file}': '{zeros}'}}}}}}
"""
    texts = {
        "catalogue of a billion laughs": laughs + good,
        "catalogue of merged laughs": merges + good,
        "catalogue that holds itself": "a: &a [*a]\n" + good,
        "catalogue nested deeply": "a: " + "[" * 5000 + "]" * 5000 + "\n" + good,
        "catalogue with a Python object": good + f"x: !!python/object/apply:os.system ['touch {folder / 'owned'}']\n",
        "catalogue with a control character": "a: \x00\n" + good,
        "catalogue with a day that is none": "a: 2020-13-45\n" + good,
        "catalogue of zeros": "\x00" * 10**6,
        "catalogue of 20 MB": good + "# " + "x" * (20 << 20),
    }
    jobs: dict[str, tuple[Callable[[], Any], str]] = {}
    for k, (name, text) in enumerate(texts.items()):
        path = folder / f"catalogue{k}.yaml"
        path.write_text(text)
        jobs[name] = (lambda path=path: load_catalog(path), path.name)
    for k, (name, file) in enumerate((("'../../toy'", "u.csv"), ("toy", "../../../owned"), ("toy", "/tmp/owned"))):
        path = folder / f"away{k}.yaml"
        path.write_text(away.format(name=name, file=file, zeros="0" * 64))
        entry = name.strip("'")
        jobs[f"catalogue that leads out of the cache {k}"] = (
            lambda path=path, entry=entry: load_study(entry, path, download=True),
            "",
        )
    return jobs


def _rasters(folder: Path) -> dict[str, tuple[Callable[[], Any], str]]:
    place = geopandas.GeoSeries.from_xy([500100], [99900], crs=32636)

    def sparse(name: str, side: int, block: int, count: int = 1, **more: Any) -> Path:
        profile = {"driver": "GTiff", "width": side, "height": side, "count": count, "dtype": "uint8", "tiled": True,
                   "crs": "EPSG:32636", "transform": TRANSFORM, "blockxsize": block, "blockysize": block,
                   "compress": "deflate", "sparse_ok": True, "bigtiff": "YES", **more}  # fmt: skip
        with rasterio.open(folder / name, "w", **profile):
            pass
        return folder / name

    def read(path: Path) -> Callable[[], Any]:
        return lambda: open_imagery(path).chips(place, size_px=9, on_invalid="mask")

    python = """<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:32636</SRS>
<GeoTransform>500000, 10, 0, 100000, 0, -10</GeoTransform>
<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand"><PixelFunctionType>own</PixelFunctionType>
<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA[
import os
def own(*args, **kwargs): os.system("touch {owned}")
]]></PixelFunctionCode></VRTRasterBand></VRTDataset>"""
    (folder / "python.vrt").write_text(python.format(owned=folder / "owned"))
    own = VRT_OF_ITSELF
    (folder / "itself.vrt").write_text(own)
    (folder / "service.tif").write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}/${x}/${y}.png</ServerUrl></Service>'
        "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>1000</UpperLeftY><LowerRightX>1000</LowerRightX>"
        "<LowerRightY>0</LowerRightY><SizeX>1000</SizeX><SizeY>1000</SizeY></DataWindow>"
        "<Projection>EPSG:32636</Projection><BandsCount>3</BandsCount></GDAL_WMS>"
    )
    return {
        "raster of a trillion pixels": (read(sparse("wide.tif", 1_000_000, 1024)), "wide.tif"),
        "raster with blocks of 4 GiB": (read(sparse("blocks.tif", 65_536, 65_536)), "blocks.tif"),
        "raster of 60,000 bands": (read(sparse("bands.tif", 512, 512, 60_000, interleave="pixel")), "bands.tif"),
        "raster whose VRT holds Python": (read(folder / "python.vrt"), "python.vrt"),
        "raster whose VRT holds itself": (read(folder / "itself.vrt"), "itself.vrt"),
        "raster that is a web service": (read(folder / "service.tif"), "service.tif"),
    }


VRT_OF_ITSELF = """<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:32636</SRS>
<GeoTransform>500000, 10, 0, 100000, 0, -10</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">itself.vrt</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
</VRTRasterBand></VRTDataset>"""
