"""Faults on purpose: damaged imagery, full disks, kill -9, Ctrl-C, two processes at once, input made to do harm.

Every case must end in the right result (bit by bit where that is promised) or in one of the package's errors that
says what arrived and what to do. Prints how many cases of each fault ended how, and the memory that jobs need.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fault_inputs as inputs
import fault_interrupts as interrupts
import fault_jobs as jobs
import fault_rasters as rasters
import numpy as np
from fault_runner import Case, Tally, peak_mib, tally

MAIN_JOB = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("the network was asked for")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from causalsat.analysis import analyse, image_model
from causalsat.simulate import satellite_trial
study = satellite_trial("smooth", n_units=160, n_sites=36, size_px=256, seed=1).study()
analysis = analyse(study, image_model(study, random_state=0, size_m=480), n_permutations=20, progress=False)
analysis.write(sys.argv[1], resolution=480, progress=False)
"""


def asked_of_the_network(command: list[str]) -> tuple[int, int]:
    """Exit status of a program, and how often it, GDAL or PROJ included, connected to the proxy they are given."""
    server = socket.create_server(("127.0.0.1", 0))
    calls: list[int] = []

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            calls.append(1)
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "GDAL_HTTP_PROXY")
    environment = {**os.environ, **dict.fromkeys(names, proxy), "NO_PROXY": "", "no_proxy": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    server.close()
    if done.returncode:
        sys.stderr.write(done.stderr[-2000:])
    return done.returncode, len(calls)


def no_network(folder: Path) -> Iterable[Case]:
    """The main job with sockets that refuse and a proxy that counts; a request that is meant to be seen is seen."""

    def main_job() -> bool:
        return asked_of_the_network([sys.executable, "-W", "ignore", "-c", MAIN_JOB, str(folder / "out")]) == (0, 0)

    def control() -> bool:
        words = "import rasterio; rasterio.open('/vsicurl/http://192.0.2.1/x.tif')"
        status, calls = asked_of_the_network([sys.executable, "-c", words])
        return status != 0 and calls > 0

    yield Case("main job", main_job, seconds=600, warm=False)
    yield Case("a request through GDAL is counted", control, seconds=600)


def campaign(folder: Path, size: float = 1.0) -> list[tuple[str, Callable[[Path], Iterable[Case]]]]:
    """All faults and what makes their cases; ``size`` scales how many there are."""

    def n(full: int) -> int:
        return max(1, round(size * full))

    def some(make: Callable[[Path], Iterable[Case]]) -> Callable[[Path], Iterable[Case]]:
        step = max(1, round(1 / size))
        return lambda folder: (case for number, case in enumerate(make(folder)) if number % step == 0)

    return [
        ("GeoTIFF and COG cut short (deflate, zstd, LZW, none)", lambda f: rasters.truncated(f, n(12))),
        ("one bit flipped anywhere, checksum in the catalogue", lambda f: rasters.flipped_anywhere(f, n(20))),
        ("overviews missing, cut, garbage, of another image", rasters.overviews),
        ("wrong, missing or contradicting CRS", rasters.wrong_crs),
        ("bands and dates of mixed data types", rasters.mixed_types),
        ("nodata NaN, infinite, impossible, by type", rasters.nodata),
        ("file deleted, replaced, overwritten, cut while it is read",
         lambda f: rasters.disappearing(f, (0, 1, 5, 11)[: n(4)])),
        ("scene of a sequence deleted", rasters.scene_gone),
        ("disk full, or files limited, for map, model, cache, checkpoint, page",
         lambda f: jobs.full_disk(f, (0.02, 0.3, 0.7, 1.5, 6.0)[: n(5)])),
        ("two processes or four threads on one cache, two on one map", lambda f: jobs.two_at_once(f, n(6))),
        ("map job killed (-9) at a random moment and run again", lambda f: jobs.killed_maps(f, n(20))),
        ("training killed (-9) at a random moment and run again", lambda f: jobs.killed_trainings(f, n(20))),
        ("killed (-9) while saving a model or filling a cache", lambda f: jobs.killed_writers(f, n(10))),
        ("models, catalogues and rasters made to do harm", jobs.hostile),
        ("main job without a network", no_network),
        ("addresses in rasters, catalogues, files of units, counted by a server", some(inputs.addresses)),
        ("Ctrl-C at a random moment of every estimator's fit", lambda f: interrupts.fits(f, n(4))),
        ("Ctrl-C or SIGTERM in a comparison, called again", lambda f: interrupts.comparisons(f, n(8))),
        ("Ctrl-C or SIGTERM in an analysis and its outputs, called again", lambda f: interrupts.analyses(f, n(4))),
        ("Ctrl-C or SIGTERM in a map, called again", lambda f: interrupts.maps(f, n(16))),
        ("Ctrl-C or SIGTERM in a command, called again", lambda f: interrupts.commands(f, n(4))),
        ("names that are code, in LaTeX, HTML, Markdown, CSV", some(inputs.names)),
        ("numbers at the ends, four estimators", some(inputs.numbers)),
        ("models changed under a right checksum", lambda f: inputs.model_parts(f, n(20))),
        ("folders read-only, full, a file, behind links; permissions", some(inputs.folders)),
        ("two runs, two studies, own files in one folder", some(inputs.shared_folders)),
        ("10,000 districts, 5,000 columns, a million rows, 10,000 bands", some(inputs.sizes)),
        ("GeoPackage, Parquet, Stata, CSV: cut, empty, noise, made to do harm", some(inputs.unit_files)),
    ]  # fmt: skip


def run(folder: Path, size: float, only: str, without: Sequence[str]) -> list[Tally]:
    """Run the campaign, or the part of it whose faults are named so."""
    found = []
    for number, (fault, make) in enumerate(campaign(folder, size)):
        if only in fault and not any(words in fault for words in without):
            place = folder / str(number)
            place.mkdir()
            found.append(tally(fault, make(place)))
    return found


def table(found: list[Tally]) -> str:
    """The table of faults and ends."""
    lines = ["| fault | cases | right result | clear error | silently wrong | unclear error | crash or hang |"]
    lines.append("|---|---|---|---|---|---|---|")
    for item in found:
        counts = item.counts
        lines.append(f"| {item.fault} | {item.cases} | " + " | ".join(str(v) for v in counts.values()) + " |")
    total = [sum(item.counts[end] for item in found) for end in found[0].counts]
    lines.append(f"| all | {sum(total)} | " + " | ".join(map(str, total)) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------------- memory
def memory(folder: Path) -> str:
    """Peak memory of jobs on a raster of 100 and of 1,600 million pixels (sparse, 3 bands)."""
    import geopandas

    from causalsat.imagery import open_imagery

    def sparse(side: int) -> Path:
        import rasterio

        profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8",
                   "crs": "EPSG:32636", "transform": rasters.TRANSFORM, "tiled": True,
                   "blockxsize": 512, "blockysize": 512,
                   "compress": "deflate", "sparse_ok": True, "bigtiff": "YES"}  # fmt: skip
        with rasterio.open(folder / f"{side}.tif", "w", **profile):
            pass
        return folder / f"{side}.tif"

    lines = ["| job | peak memory at 10,000 x 10,000 pixels, MiB | at 40,000 x 40,000 |", "|---|---|---|"]
    rows: dict[str, list[float]] = {}
    for side in (10_000, 40_000):
        imagery = open_imagery(sparse(side))
        spot = np.random.default_rng(0).uniform(100, side - 100, (2000, 2))
        places = geopandas.GeoSeries.from_xy(500000 + 10 * spot[:, 0], 100000 - 10 * spot[:, 1], crs=32636)

        def through(imagery: Any = imagery, places: Any = places) -> None:
            for _ in imagery.iter_chips(places, 64, 128):
                pass

        def mapping(imagery: Any = imagery, side: int = side) -> None:
            from causalsat.mapping.compute import valid_share
            from causalsat.mapping.grid import grid_over
            from causalsat.mapping.tiles import plan_tiles

            grid = grid_over(imagery, None, 320.0)
            for tile in plan_tiles(grid.height, grid.width, 64)[:40]:
                x, y = grid.centres(tile.row, tile.col, tile.height, tile.width)
                valid_share(imagery, geopandas.GeoSeries.from_xy(x, y, crs=32636), 64)

        def keeping(imagery: Any = imagery, places: Any = places) -> None:
            imagery.chips(places, size_px=64)

        names = {"2,000 chips of 64 x 64 pixels, one batch after the other": through,
                 "2,000 chips of 64 x 64 pixels, kept (94 MiB)": keeping,
                 "valid pixels of 40 tiles of a map": mapping}  # fmt: skip
        for name, job in names.items():
            rows.setdefault(name, []).append(peak_mib(job))
    lines += [f"| {name} | {first:.0f} | {second:.0f} |" for name, (first, second) in rows.items()]
    return "\n".join(lines)


def main() -> None:
    """Run all of it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=1.0, help="share of the cases")
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--without", nargs="*", default=[], help="no faults whose name holds one of these")
    parser.add_argument("--no-memory", action="store_true", help="the table of faults alone")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = run(folder, options.size, options.only, options.without)
        print(table(found))
        for item in found:
            for words in item.failures:
                print(f"\n{item.fault}: {words}", file=sys.stderr)
        if not all(item.good for item in found):
            raise SystemExit(1)
        if options.no_memory:
            return
        unknown = tally("", rasters.flipped_anywhere(folder / "none", 20, checksum=False))
        print(
            f"\nWithout a checksum a flipped bit of an image cannot always be known: of {unknown.cases} files "
            f"with one flipped bit that were opened without the catalogue's checksum, {unknown.counts['right']} "
            f"read right, {unknown.counts['error']} were refused, and {unknown.counts['wrong']} gave other pixels or "
            f"other places. The checksum (`sha256:` in the catalogue) finds all of them.\n"
        )
        print(memory(folder))


if __name__ == "__main__":
    main()
