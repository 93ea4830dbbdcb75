"""Names, numbers, files, folders and sizes at the ends of what users bring."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import rasterio
from fault_jobs import map_of, small_disk, world
from fault_rasters import TRANSFORM
from fault_runner import Case
from shapely.geometry import Point, box

import causalsat
from causalsat.analysis.folder import NAMES, check_folder, claim, finish
from causalsat.catalog import load_imagery
from causalsat.core.tables import write_csv
from causalsat.exceptions import CausalsatError, ModelFileError, OutputError
from causalsat.imagery import open_imagery
from causalsat.report import Page, Section, Table

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 3))
TREATED = np.arange(120) % 2
Y = X[:, 0] + TREATED * (1 + X[:, 1]) + 0.5 * RNG.standard_normal(120)
HOSTILE = {
    "LaTeX": "\\end{verbatim}\\input{/etc/passwd}",
    "an empty line": "a\n\nb",
    "a script": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a formula": "=cmd|'/c calc'!A0",
    "a plus": "+1+HYPERLINK(1)",
    "an at": "@SUM(1)",
    "a tab": "\t=1+1",
    "control characters": "a\x00b\x08c\x1bd",
    "carets": "^^5cinput{x}",
    "a fence": "```\n# heading\n",
    "braces": "}\\begin{document}{",
    "a comment": "50 % of $x^2$ & #1 ~_",
    "Markdown": "[x](javascript:alert(1)) **b** | c\n---",
    "another script": "\u202eحلب \u5317\u4eac",
}


# ---------------------------------------------------------------------- names
def names(folder: Path) -> Iterator[Case]:
    """Names of studies, columns and places that are code, in LaTeX, HTML, Markdown and CSV."""

    def latex(text: str) -> bool:
        page = Page(
            text, [text], [Section(text, [text], [Table([text, "b"], [[text, "1"]], text)], text=text)], [text]
        )
        made = page.to_latex(folder)
        inside = re.search(r"\\begin\{verbatim\}\n(.*?)\n\\end\{verbatim\}", made, re.DOTALL)
        rest = made.replace(inside[1] if inside else "", "")
        plain = re.sub(r"\\text(backslash|asciicircum|asciitilde|less|greater|bar)\{\}", "", rest)
        words = set(re.findall(r"\\([a-zA-Z]+\d*)", plain.split(r"\title", 1)[1]))
        ours = {"date", "begin", "maketitle", "end", "section", "label", "centering", "caption", "toprule", "midrule"}
        ours |= {"bottomrule", "scriptsize", "medskip", "hrule", "small", "linewidth"}
        title = re.search(r"\\title\{.*\}$", made, re.MULTILINE)
        return words <= ours and made.count(r"\end{verbatim}") == 1 and title is not None and "\x00" not in made

    def html(text: str) -> bool:
        page = Page(
            text, [text], [Section(text, [text], [Table([text, "b"], [[text, "1"]], text)], text=text)], [text]
        )
        made = page.write(folder / "n.html").read_text()
        return not re.search(r"<script|<img|onerror=[^&]*>", made)

    def markdown(text: str) -> bool:
        made = Page(text, [text], [Section("S", [text], text=text)], [text]).to_markdown(folder)
        fence = re.search(r"^(`{3,})text$", made, re.MULTILINE)
        outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", made, flags=re.DOTALL | re.MULTILINE)
        return fence is not None and not re.search(r"(?<!\\)<(?!/)|(?<!\\)\]\(|^# heading", outside, re.MULTILINE)

    def table(text: str) -> bool:
        frame = pd.DataFrame({text: [text, "x"], "n": [-1.5, 2]}, index=pd.Index([text, "b"], name=text))
        write_csv(frame, folder / "n.csv")
        with open(folder / "n.csv", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        return not [c for c in cells if c[:1] in tuple("=+@\t\r") and c] and "-1.5" in cells

    for what, text in HOSTILE.items():
        for form, check in (("LaTeX", latex), ("HTML", html), ("Markdown", markdown), ("CSV", table)):
            yield Case(f"{what} in {form}", lambda check=check, text=text: check(text))


# ---------------------------------------------------------------------- numbers
def _fits() -> dict[str, Callable[[], Any]]:
    return {
        "linear": lambda: causalsat.BayesianLinearEffect(n_draws=50, n_tune=50, n_chains=1, random_state=0),
        "robust": lambda: causalsat.DoublyRobustEffect(random_state=0),
        "learner": lambda: causalsat.TLearnerEffect(n_bootstrap=5, random_state=0),
        "process": lambda: causalsat.GaussianProcessEffect(n_draws=20, random_state=0),
    }


def numbers(folder: Path) -> Iterator[Case]:
    """Outcomes, doses, weights, probabilities, features at the ends: finite effects, or our error with the value."""
    del folder

    def one(values: Any, value: float) -> Any:
        changed = np.array(values, dtype=float)
        changed[3] = value
        return changed

    column = X.copy()
    column[3, 1] = 1e300
    small = X.copy()
    small[:, 1] *= 1e-300
    cases: dict[str, dict[str, Any]] = {
        **{f"outcome of {v:g}": {"y": one(Y, v)} for v in (1e300, -1e300, 1e160, 1e60, 1e308)},
        **{f"outcomes times {v:g}": {"y": Y * v} for v in (1e300, 1e-300, 1e-170, 1e60, 1e-60)},
        "outcome zero in an arm": {"y": np.where(TREATED == 1, 0.0, Y)},
        "outcome the treatment": {"y": TREATED.astype(float)},
        **{f"weight of {v:g}": {"sample_weight": one(np.ones(120), v)} for v in (1e300, 1e-300, 1e10)},
        **{f"weights of {v:g}": {"sample_weight": RNG.uniform(1, 2, 120) * v} for v in (1e300, 1e-300)},
        "weights of one unit": {"sample_weight": one(np.zeros(120), 1.0)},
        "weights of one arm": {"sample_weight": TREATED.astype(float)},
        **{f"probability of {v:g}": {"propensity": one(np.full(120, 0.5), v)} for v in (1e-300, 1e-9, 1 - 2e-16)},
        "dose of 1e300": {"treatment": one(TREATED, 1e300)},
        "feature of 1e300": {"X": column},
        "features of 1e-300": {"X": small},
    }
    for name, change in cases.items():
        for kind, make in _fits().items():

            def run(make: Any = make, change: dict[str, Any] = change) -> bool:
                given = {"X": X, "y": Y, "treatment": TREATED, **change}
                model = make().fit(given.pop("X"), given.pop("y"), **given)
                return bool(np.isfinite(model.predict(X)).all() and np.isfinite(model.effect(X).interval()).all())

            yield Case(f"{name}, {kind}", run)


# ---------------------------------------------------------------------- models
def model_parts(folder: Path, each: int, seed: int = 0) -> Iterator[Case]:
    """Models whose arrays or parts are changed under a right checksum: refused, or the same predictions."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    from causalsat.persistence import CHECKSUM, _checksum

    def states(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if "$object" in node:
                yield node["state"]
            for value in node.values():
                yield from states(value)
        elif isinstance(node, list):
            for value in node:
                yield from states(value)

    for kind, make in _fits().items():
        model = make().fit(X, Y, treatment=TREATED)
        expected = model.predict(X)
        source = folder / f"{kind}.safetensors"
        causalsat.save(model, source)
        with safe_open(source, framework="numpy") as file:
            header, arrays = json.loads(file.metadata()["causalsat"]), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        for number in range(each):

            def run(number: int = number, header: Any = header, arrays: Any = arrays, right: Any = expected) -> bool:
                rng = np.random.default_rng([seed, number])
                changed, kept = json.loads(json.dumps(header)), dict(arrays)
                if number % 2:
                    name = rng.choice(sorted(n for n, a in arrays.items() if a.size > 1))
                    hows = (lambda a: a[:-1], lambda a: np.concatenate([a, a[-1:]]), lambda a: a.reshape(1, *a.shape))
                    kept[name] = np.ascontiguousarray(hows[number % 3](kept[name]))
                else:
                    found = [state for state in states(changed["model"]) if state]
                    state = found[rng.integers(len(found))]
                    parts = sorted(k for k in state if k.endswith("_")) or sorted(state)  # not a setting: None is one
                    key = parts[rng.integers(len(parts))]
                    if number % 4 or not key.endswith("_"):
                        del state[key]
                    else:
                        state[key] = None
                text, path = json.dumps(changed), folder / f"changed{os.getpid()}"
                save_file(kept, path, metadata={"causalsat": text, CHECKSUM: _checksum(text, kept)})
                return bool(np.array_equal(causalsat.load(path).predict(X), right))

            yield Case(f"{kind} {number}", run)
    later = folder / "later.safetensors"
    text = json.dumps({**header, "version": "99.0"})
    save_file(arrays, later, metadata={"causalsat": text, CHECKSUM: _checksum(text, arrays)})
    yield Case("of a later version", lambda: refused(ModelFileError, lambda: causalsat.load(later)), "later")


def refused(kind: type[CausalsatError], job: Callable[[], Any]) -> bool:
    """False where a job ends without the error that it must end with; the error is raised."""
    try:
        job()
    except kind:
        raise
    return False


# ---------------------------------------------------------------------- files and folders
def _writers(folder: Path) -> dict[str, tuple[Callable[[Path], Any], str]]:
    """What is written to a folder, by name, and the file."""
    from causalsat.encoders import SelfSupervisedEncoder
    from causalsat.plots.maps import save_map

    imagery, model = world(folder)
    map_of(imagery, model, folder / "whole.tif")
    fitted = causalsat.DoublyRobustEffect(random_state=0).fit(X, Y, treatment=TREATED)
    frame = pd.DataFrame({"a": ["x"] * 2000})
    page = Page("A", ["b" * 5000], [])
    chips = RNG.standard_normal((24, 2, 16, 16)).astype(np.float32)

    def train(where: Path) -> Any:
        return SelfSupervisedEncoder(width=4, max_epochs=1, checkpoint=str(where / "t.pt"), random_state=0).fit(chips)

    return {
        "model": (lambda where: causalsat.save(fitted, where / "m.safetensors"), "m.safetensors"),
        "map": (lambda where: map_of(imagery, model, where / "e.tif"), "e.tif"),
        "picture": (lambda where: save_map(folder / "whole.tif", where / "e.png"), "e.png"),
        "page": (lambda where: page.write(where / "r.html"), "r.html"),
        "LaTeX": (lambda where: page.write(where / "r.tex"), "r.tex"),
        "table": (lambda where: write_csv(frame, where / "a.csv"), "a.csv"),
        "checkpoint": (train, "t.pt"),
    }


def folders(folder: Path) -> Iterator[Case]:
    """Folders that are read-only, full, a file, or behind links: an error that names the file, and nothing half."""
    import resource

    for what, (write, name) in _writers(folder).items():

        def read_only(write: Any = write, what: str = what) -> bool:
            where = folder / f"ro_{what}"
            with small_disk(where, 4 << 20) as mounted:
                if not mounted or os.system(f"mount -o remount,ro {where} 2>/dev/null"):
                    where = Path("/proc/sys/kernel")  # where nobody can write, root included
                return refused(OutputError, lambda: write(where))

        def full(write: Any = write, what: str = what) -> bool:
            where = folder / f"full_{what}"
            with small_disk(where, 4096) as mounted:
                if not mounted:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
                try:
                    return refused(OutputError, lambda: write(where))
                finally:
                    if mounted and [p for p in where.iterdir() if p.suffix not in (".tiles",)]:
                        raise AssertionError(f"left {os.listdir(where)}")

        def a_file(write: Any = write, what: str = what) -> bool:
            where = folder / f"file_{what}"
            where.write_text("mine")
            try:
                return refused(OutputError, lambda: write(where))
            finally:
                assert where.read_text() == "mine"

        def link(write: Any = write, what: str = what, name: str = name) -> bool:
            where, victim = folder / f"link_{what}", folder / f"victim_{what}"
            where.mkdir(exist_ok=True)
            victim.write_text("mine")
            (where / name).unlink(missing_ok=True)
            (where / name).symlink_to(victim)
            try:
                write(where)
            finally:
                assert victim.read_text() == "mine"
            return not (where / name).is_symlink() and (where / name).stat().st_size > 0

        def mode(write: Any = write, what: str = what, name: str = name) -> bool:
            where = folder / f"mode_{what}"
            where.mkdir(exist_ok=True)
            os.umask(0o027)
            write(where)
            return stat.S_IMODE((where / name).stat().st_mode) == 0o640

        yield Case(f"{what}: a folder that is read-only", read_only)
        yield Case(f"{what}: a disk of one page", full)
        yield Case(f"{what}: a file in the place of the folder", a_file)
        if what != "checkpoint":  # which reads what is there
            yield Case(f"{what}: a link in the place of the file", link)
        yield Case(f"{what}: permissions of the umask", mode)
    imagery, model = world(folder)

    def tiles_behind_a_link() -> bool:
        (folder / "elsewhere").mkdir(exist_ok=True)
        np.save(folder / "elsewhere" / "r0000000_c0000000.npy", np.arange(3))
        (folder / "l.tif.tiles").symlink_to(folder / "elsewhere")
        try:
            return refused(OutputError, lambda: map_of(imagery, model, folder / "l.tif"))
        finally:
            assert len(os.listdir(folder / "elsewhere")) == 1

    def own_arrays() -> bool:
        (folder / "o.tif.tiles").mkdir(exist_ok=True)
        np.save(folder / "o.tif.tiles" / "mine.npy", np.arange(3))
        map_of(imagery, model, folder / "o.tif")
        return os.listdir(folder / "o.tif.tiles") == ["mine.npy"]

    yield Case("tiles behind a link", tiles_behind_a_link, "l.tif.tiles")
    yield Case("own arrays among the tiles", own_arrays)


def shared_folders(folder: Path) -> Iterator[Case]:
    """Two runs in one folder of outputs, of one study and of two, and a user's own files there."""
    study = SimpleNamespace(name="trial", roles={"outcome": "y", "treatment": "t"})
    other = SimpleNamespace(name="trial", roles={"outcome": "income", "treatment": "t"})

    def write(where: Path, whose: Any) -> None:
        earlier = claim(where, whose, NAMES)
        for name in NAMES:
            write_csv(pd.DataFrame({"a": [whose.roles["outcome"]] * 50}), where / name)
        finish(where, whose, NAMES, earlier)

    def own(name: str) -> bool:
        where = folder / f"own_{name}"
        where.mkdir(exist_ok=True)
        (where / name).write_text("mine")
        try:
            return refused(OutputError, lambda: check_folder(where, study))
        finally:
            assert (where / name).read_text() == "mine"

    def both(k: int) -> bool:
        where = folder / f"both{k}"
        threads = [threading.Thread(target=write, args=(where, study)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(os.listdir(where)) == sorted([*NAMES, "outputs.json"]) and not check_folder(where, study).get(
            "x"
        )

    def second() -> bool:
        write(folder / "second", study)
        return refused(OutputError, lambda: write(folder / "second", other))

    for name in NAMES:
        yield Case(f"own {name}", lambda name=name: own(name), name)
    for k in range(3):
        yield Case(f"three runs of one study {k}", lambda k=k: both(k))
    yield Case("another study", second, "income")


# ---------------------------------------------------------------------- sizes
def sizes(folder: Path) -> Iterator[Case]:
    """10,000 districts, 5,000 columns, a million rows, 10,000 bands."""
    from causalsat.posterior import EffectPosterior

    def districts() -> bool:
        draws = RNG.standard_normal((20, 100_000))
        groups = np.arange(100_000) % 10_000
        found = EffectPosterior(draws).gate(groups)
        return np.allclose(found.draws, draws.reshape(20, 10, 10_000).mean(axis=1))

    def polygons() -> bool:
        imagery, model = world(folder)
        side = 100
        shapes = [
            box(500000 + 16 * i, 98400 + 16 * j, 500016 + 16 * i, 98416 + 16 * j)
            for j in range(side)
            for i in range(side)
        ]
        frame = geopandas.GeoDataFrame({"name": np.arange(len(shapes))}, geometry=shapes, crs=32636)
        found = causalsat.district_effects(model, imagery, frame, 40, name="name", progress=False)
        return len(found.table) == 10_000 and np.isfinite(found.table["mean"]).any()

    def columns() -> bool:
        wide = RNG.standard_normal((120, 5000))
        model = causalsat.DoublyRobustEffect(modifiers=[0, 1], random_state=0).fit(wide, Y, treatment=TREATED)
        return bool(np.isfinite(model.predict(wide)).all())

    def rows(make: Any) -> bool:
        model = make().fit(X, Y, treatment=TREATED)
        before = _resident("VmRSS")
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        many = np.tile(X, (8334, 1))[:1_000_000]
        found = model.predict(many)
        grown = (_resident("VmHWM") - before) / 1024
        return np.allclose(found[:120], model.predict(X)) and len(found) == 1_000_000 and grown < 2000

    def too_many_draws() -> bool:
        model = causalsat.DoublyRobustEffect(random_state=0).fit(X, Y, treatment=TREATED)
        return refused(CausalsatError, lambda: model.effect(np.tile(X, (400_000, 1))))

    def bands() -> bool:
        profile = {
            "driver": "GTiff",
            "width": 32,
            "height": 32,
            "count": 10_000,
            "dtype": "uint8",
            "crs": "EPSG:32636",
        }
        profile |= {"transform": TRANSFORM, "compress": "deflate", "sparse_ok": True, "interleave": "band"}
        with rasterio.open(folder / "bands.tif", "w", **profile):
            pass
        place = geopandas.GeoSeries.from_xy([500100], [99900], crs=32636)
        return open_imagery(folder / "bands.tif").chips(place, size_px=3, on_invalid="mask").shape[-3] == 10_000

    yield Case("10,000 groups of 100,000 units", districts)
    yield Case("10,000 districts of a map", polygons)
    yield Case("5,000 columns of 120 units", columns)
    for kind, make in _fits().items():
        if kind != "process":
            yield Case(f"a million rows, {kind}", lambda make=make: rows(make), seconds=900)
    yield Case("draws of 48 million units", too_many_draws, "predict(X)", seconds=600)
    yield Case("10,000 bands", bands)


def _resident(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


# ---------------------------------------------------------------------- files of units
def unit_files(folder: Path) -> Iterator[Case]:
    """GeoPackage, Parquet, Stata and CSV cut short, empty, of another kind, or made to do harm."""
    table = pd.DataFrame({"y": Y, "t": TREATED, "lon": 32 + X[:, 0] / 100, "lat": 1 + X[:, 1] / 100, "x": X[:, 2]})
    frame = geopandas.GeoDataFrame(
        table[["y", "t", "x"]], geometry=[Point(a, b) for a, b in zip(table.lon, table.lat, strict=True)], crs=4326
    )
    frame.to_file(folder / "units.gpkg", driver="GPKG")
    table.to_parquet(folder / "units.parquet")
    table.to_stata(folder / "units.dta", write_index=False)
    table.to_csv(folder / "units.csv", index=False)

    def read(path: Path) -> bool:
        study = causalsat.Study.from_file(
            path,
            outcome="y",
            treatment="t",
            covariates=["x"],
            **({} if path.suffix == ".gpkg" else {"lon": "lon", "lat": "lat"}),
        )
        return np.allclose(np.asarray(study.y), Y)

    for ending in ("gpkg", "parquet", "dta", "csv"):
        whole = (folder / f"units.{ending}").read_bytes()
        yield Case(f"{ending} as it is", lambda ending=ending: read(folder / f"units.{ending}"))
        changes = {
            "empty": b"",
            "of zeros": bytes(len(whole)),
            "of noise": np.random.default_rng(1).bytes(4000),
            **{f"cut at {s:.0%}": whole[: int(s * len(whole))] for s in (0.02, 0.3, 0.6, 0.95) if ending != "csv"},
            "of another kind": (folder / ("units.dta" if ending != "dta" else "units.parquet")).read_bytes(),
        }
        for what, content in changes.items():
            path = folder / f"{what.replace(' ', '_').replace('%', '')}.{ending}"
            path.write_bytes(content)
            yield Case(f"{ending} {what}", lambda path=path: not _reads_other(read, path), path.name)
    evil = folder / "trigger.gpkg"
    evil.write_bytes((folder / "units.gpkg").read_bytes())
    with sqlite3.connect(evil) as base:
        layer = base.execute("select table_name from gpkg_contents").fetchone()[0]
        base.execute(f'create view "evil" as select load_extension("/tmp/none") as y, * from "{layer}"')
        base.execute(
            "insert into gpkg_contents (table_name, data_type, identifier) values ('evil', 'attributes', 'evil')"
        )
    yield Case("gpkg with a view that loads code", lambda: read(evil) or True, evil.name)
    (folder / "nested.csv").write_text("y,t,lon,lat,x\n" + '"' * 100_001 + "\n")
    yield Case("csv of 100,001 quotes", lambda: not _reads_other(read, folder / "nested.csv"), "nested.csv")


def _reads_other(read: Callable[[Path], bool], path: Path) -> bool:
    """Whether a damaged file is read as something else than the units; errors are raised."""
    return not read(path)


# ---------------------------------------------------------------------- addresses
def addresses(folder: Path) -> Iterator[Case]:
    """Addresses hidden in rasters, catalogues and unit files: a local server counts what is fetched: nothing."""

    def counted(job: Callable[[str], Any]) -> bool:
        """Whether a job that is given the server's address asks for nothing; its error is raised."""
        server, calls = socket.create_server(("127.0.0.1", 0)), []

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                calls.append(1)
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        try:
            job(f"http://127.0.0.1:{server.getsockname()[1]}")
        finally:
            time.sleep(0.2)
            server.close()
            if calls:
                os.abort()  # counted as a crash
        return True

    def vrt(source: str, head: str = "") -> str:
        return (
            f'<?xml version="1.0"?>\n{head}<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32636</SRS>'
            "<GeoTransform>500000, 10, 0, 100000, 0, -10</GeoTransform>"
            f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{source}</SourceFilename>'
            '<SourceBand>1</SourceBand><SourceProperties RasterXSize="8" RasterYSize="8" DataType="Byte"/>'
            "</SimpleSource></VRTRasterBand></VRTDataset>"
        )

    def raster(name: str, text: Callable[[str], str]) -> Callable[[str], Any]:
        def job(address: str) -> Any:
            path = folder / name
            path.write_text(text(address))
            place = geopandas.GeoSeries.from_xy([500040], [99960], crs=32636)
            return open_imagery(path).chips(place, size_px=3, on_invalid="mask")

        return job

    def nested(address: str) -> str:
        (folder / "inner.vrt").write_text(vrt(f"/vsicurl/{address}/x.tif"))
        return vrt(str(folder / "inner.vrt"))

    def catalogue(address: str) -> Any:
        os.environ["SECRET_TOKEN"] = "secret"
        text = (
            "datasets:\n  toy: {kind: imagery, licence: x, citation: x, "
            f"imagery: {{path: '{address}/${{SECRET_TOKEN}}.tif'}}}}\n"
        )
        (folder / "net.yaml").write_text(text)
        return load_imagery("toy", folder / "net.yaml")

    def units(address: str) -> Any:
        return causalsat.Study.from_file(f"{address}/units.csv", outcome="y", treatment="t", lon="lon", lat="lat")

    wms = (
        '<GDAL_WMS><Service name="TMS"><ServerUrl>{}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>'
        "<UpperLeftX>0</UpperLeftX><UpperLeftY>1000</UpperLeftY><LowerRightX>1000</LowerRightX><LowerRightY>0"
        "</LowerRightY><SizeX>1000</SizeX><SizeY>1000</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
    )
    item = (
        '{{"type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": null, "bbox": [32, 0, 33, 1], "links": '
        '[], "properties": {{"datetime": "2020-01-01T00:00:00Z"}}, "assets": {{"b": {{"href": "{}/x.tif"}}}}}}'
    )
    entity = '<!DOCTYPE x [<!ENTITY a "/vsicurl/{}/x.tif">]>\n'
    jobs: dict[str, Callable[[str], Any]] = {
        "an address": lambda a: open_imagery(f"{a}/x.tif"),
        "an address of GDAL's": lambda a: open_imagery(f"/vsicurl/{a}/x.tif"),
        "an address within an archive": lambda a: open_imagery(f"/vsizip//vsicurl/{a}/x.zip/x.tif"),
        "a Zarr store on the net": lambda a: open_imagery(f"{a}/x.zarr"),
        "a VRT": raster("net.vrt", lambda a: vrt(f"/vsicurl/{a}/x.tif")),
        "a VRT with an entity": raster("entity.vrt", lambda a: vrt("&a;", entity.format(a))),
        "a VRT of a VRT": raster("outer.vrt", nested),
        "a VRT under another name": raster("net.tif", lambda a: vrt(f"{a}/x.tif")),
        "a web service": raster("wms.xml", wms.format),
        "a STAC item": lambda a: (folder / "i.json").write_text(item.format(a)) and open_imagery(folder / "i.json"),
        "a catalogue with a variable": catalogue,
        "a file of units": units,
    }
    for name, job in jobs.items():
        yield Case(name, lambda job=job: refused(CausalsatError, lambda: counted(job)), warm=False)
