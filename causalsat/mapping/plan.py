"""What a map will take, before it is made: tiles, pixels, memory, operations, hours and money."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from causalsat.core.notebook import fragment, html_facts
from causalsat.exceptions import ImageryError, ParameterError
from causalsat.mapping.compute import MapJob, fitted_encoders, surroundings, tile_values
from causalsat.mapping.grid import region_of, to_coordinates
from causalsat.mapping.job import make_job, tile_side, tiles_of
from causalsat.mapping.layers import check_layers
from causalsat.mapping.tiles import Tile
from causalsat.mapping.weights import ground_area_km2

__all__ = ["MapPlan", "plan_map", "plan_of"]

_COPIES = 6  # of a window's pixels that are alive at once, two of them of tiles that are read ahead
_DRAWS = 1000  # of a cell, in double precision: what a chunk's posterior takes at most about
_AREA_TOLERANCE = 0.04  # of a projection's areas, as of its lengths a fiftieth
_BUDGET_S = 8.0  # seconds that measuring may take, besides what the first cell takes
_TRIED = 7  # tiles that are looked at for one with valid imagery


@dataclass(frozen=True)
class MapPlan:
    """What a map will take.

    Attributes
    ----------
    n_tiles, n_cells : int
        Tiles that touch the region, and cells in them.
    tile_px : int
        Side of a tile in cells.
    resolution_m : float
        Side of a cell in metres.
    area_km2 : float
        Area of the tiles' cells.
    pixels_read : int
        Pixels, of all bands and dates together, with what tiles read of their neighbours.
    bytes_read : int
        The same as 32-bit numbers, as they lie in memory.
    flops : float
        Floating point operations of the encoders' networks; NaN where an encoder does not say.
    worker_bytes : int
        Working memory of a worker beyond what it takes to import the libraries: an estimate, from the size of the
        windows and of the networks' blocks.
    cpu_s_per_tile, seconds_per_tile : float
        CPU and clock seconds of one tile, measured here on a tile with valid imagery; NaN where not measured.
    peak_bytes : int
        Most memory of this process up to the end of that tile, libraries included; 0 where not measured.
    measured_cells : int
        Cells of the tile that were computed; where a tile takes long, a part of it, from which the rest follows.
    measured_share : float
        Valid share of the measured tile's cells. Other tiles may hold fewer, so that hours are rather too many.
    workers : int
        Workers that share the tiles.
    price_per_hour : float or None
        Price of a worker for an hour.
    """

    n_tiles: int
    n_cells: int
    tile_px: int
    resolution_m: float
    area_km2: float
    pixels_read: int
    bytes_read: int
    flops: float
    worker_bytes: int
    cpu_s_per_tile: float = float("nan")
    seconds_per_tile: float = float("nan")
    peak_bytes: int = 0
    measured_share: float = float("nan")
    measured_cells: int = 0
    workers: int = 1
    price_per_hour: float | None = None

    @property
    def hours(self) -> float:
        """Hours from start to end, on the given number of workers, each as fast as this process was."""
        return self.n_tiles * self.seconds_per_tile / self.workers / 3600

    @property
    def cpu_hours(self) -> float:
        """CPU hours of all workers together."""
        return self.n_tiles * self.cpu_s_per_tile / 3600

    @property
    def cost(self) -> float:
        """Price of all workers' hours; NaN without a price or a measurement."""
        return float("nan") if self.price_per_hour is None else self.hours * self.workers * self.price_per_hour

    def hours_for(self, area_km2: float) -> float:
        """Hours for an area of another size, at the same rate."""
        return self.hours * area_km2 / self.area_km2

    def __str__(self) -> str:
        """The plan in a few lines."""
        return "\n".join(self._facts().values())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The plan as a table, for notebooks."""
        return fragment(html_facts(self._facts(), "What the map will take"))

    def _took(self) -> str:
        part = self.measured_cells < 0.9 * min(self.tile_px**2, self.n_cells / max(self.n_tiles, 1))
        return f"would take, by {self.measured_cells:,} of its cells," if part else "took"

    def _facts(self) -> dict[str, str]:
        facts = {
            "size": f"{self.n_tiles:,} tiles of at most {self.tile_px} x {self.tile_px} cells of "
            f"{self.resolution_m:g} m: {self.n_cells:,} cells, {self.area_km2:,.0f} km2",
            "reading": f"reads {self.pixels_read / 1e6:,.1f} million pixels ({_size(self.bytes_read)} in memory, in "
            "turn)",
            "memory": f"working memory of a worker about {_size(self.worker_bytes)}, besides the libraries",
        }
        if np.isfinite(self.flops):
            facts["operations"] = f"networks: {self.flops / 1e12:,.2f} million million operations"
        if np.isfinite(self.seconds_per_tile):
            facts["time"] = (
                f"one tile {self._took()} {self.seconds_per_tile:.2f} s ({self.cpu_s_per_tile:.2f} CPU s, peak of "
                f"the process {_size(self.peak_bytes)}): {self.hours:,.2f} hours on {self.workers} worker"
                f"{'s' if self.workers > 1 else ''}, {self.cpu_hours:,.2f} CPU hours"
            )
        if np.isfinite(self.cost):
            facts["price"] = f"cost {self.cost:,.2f} at {self.price_per_hour:g} for a worker's hour"
        return facts


def plan_map(
    model: Any,
    imagery: Any,
    region: Any = None,
    resolution: float | None = None,
    *,
    region_crs: Any = None,
    covariates: Mapping[str, float] | None = None,
    size_m: float | None = None,
    min_valid: float | None = None,
    tile_px: int = 128,
    others: Sequence[Any] = (),
    learned_error: Any = None,
    measure: bool = True,
    workers: int = 1,
    price_per_hour: float | None = None,
) -> MapPlan:
    """What :func:`map_effects` would take with the same arguments; nothing is written.

    Parameters
    ----------
    model, imagery, region, resolution, region_crs, covariates, size_m, min_valid, tile_px, others, learned_error
        As for :func:`map_effects`.
    measure : bool, default True
        Compute one tile in this process, or as much of it as a few seconds allow, to know hours and memory. Set
        torch's threads before to those of a worker.
    workers : int
        Workers that will share the tiles.
    price_per_hour : float, optional
        Price of a worker for an hour, in any currency.

    Returns
    -------
    MapPlan
        ``print`` shows it in a few lines.

    Raises
    ------
    ParameterError, DataError, ColumnError, ImageryError
        As for :func:`map_effects`; ImageryError also where no tile with valid imagery is found to measure.
    """
    if int(workers) != workers or workers < 1:
        raise ParameterError(f"workers={workers!r}", expected="a whole number, at least 1")
    if price_per_hour is not None and not price_per_hour >= 0:
        raise ParameterError(f"price_per_hour={price_per_hour!r}", expected="a number of at least 0, or None")
    job = make_job(
        model, imagery, region_of(region, imagery, region_crs), resolution, covariates,
        size_m=size_m, min_valid=min_valid, level=0.9, folder=Path(), learned_error=learned_error,
        others=check_layers(model, others, learned_error),
    )  # fmt: skip
    side = tile_side(tile_px, job.grid.cell_px, job.chip_px, imagery)
    tiles = tiles_of(job, side)
    plan = replace(plan_of(job, tiles, side), workers=int(workers), price_per_hour=price_per_hour)
    return _measured(plan, job, tiles) if measure else plan


def plan_of(job: MapJob, tiles: Sequence[Tile], side: int) -> MapPlan:
    """The plan of a job, without a measurement."""
    cell_px, layers = job.grid.cell_px, max(len(job.imagery.bands), 1) * max(len(job.imagery.dates), 1)
    margin = job.chip_px + 2 * surroundings(job)  # read once, for the validity check and for the encoders
    pixels = sum((tile.height * cell_px + margin) * (tile.width * cell_px + margin) for tile in tiles)
    cells = sum(tile.height * tile.width for tile in tiles)
    area_px = cells * cell_px**2
    flops = area_px * sum((float(getattr(e, "flops_per_px", np.nan)) for e in fitted_encoders(job)), 0.0)
    dates = max(len(job.imagery.dates), 1)
    window = max(min(side, job.grid.height) * cell_px, 1) + margin
    window = min(window, max(min(side, job.grid.width) * cell_px, 1) + margin)
    return MapPlan(
        n_tiles=len(tiles),
        n_cells=cells,
        tile_px=side,
        resolution_m=job.grid.resolution_m,
        area_km2=_area_km2(job, tiles),
        pixels_read=int(pixels),
        bytes_read=int(4 * layers * pixels),
        flops=float(flops * dates) if surroundings(job) else float("nan"),
        worker_bytes=int(_COPIES * 4 * layers * window**2 + _network_bytes(job, window) + 3 * 8 * _DRAWS * job.chunk),
    )


def _area_km2(job: MapJob, tiles: Sequence[Tile]) -> float:
    """Area of the tiles' cells: that of the cell in the middle of each tile, times its cells."""
    rows, cols = (np.array([t.row + t.height / 2 for t in tiles]), np.array([t.col + t.width / 2 for t in tiles]))
    sizes = np.array([t.height * t.width for t in tiles], dtype=float)
    nominal = (job.grid.resolution_m / 1000) ** 2
    area = ground_area_km2(job.grid, *to_coordinates(job.grid.transform, cols, rows))
    return float(area @ sizes) if np.abs(area / nominal - 1).max() > _AREA_TOLERANCE else float(nominal * sizes.sum())


def _network_bytes(job: MapJob, window: int) -> float:
    """Activations of the largest block of a dense network."""
    per_px = [float(getattr(e, "block_bytes", lambda side: 0.0)(window)) for e in fitted_encoders(job)]
    return max(per_px, default=0.0)


def _measured(plan: MapPlan, job: MapJob, tiles: Sequence[Tile]) -> MapPlan:
    """The plan with the seconds and the memory of a tile in the middle of the region that has valid imagery."""
    order = sorted(range(len(tiles)), key=lambda k: abs(k - len(tiles) // 2))[:: max(1, len(tiles) // _TRIED)]
    for tile in (tiles[k] for k in order):
        if not any(np.isfinite(tile_values(job, cell)[0]).any() for cell in _probes(tile)):
            continue  # a probe that is valid has also imported and built what is needed
        done = _within_budget(job, tile)
        scale = _work(job, tile) / _work(job, done.tile)
        if done.tile != tile and not surroundings(job):
            scale /= max(done.share, 1e-3)  # as if all other cells were valid: invalid ones cost nothing
        scale *= plan.n_cells / plan.n_tiles / (tile.height * tile.width)  # tiles at the border are smaller
        return replace(
            plan,
            cpu_s_per_tile=done.cpu * scale,
            seconds_per_tile=done.clock * scale,
            peak_bytes=_peak(),
            measured_share=done.share,
            measured_cells=done.tile.height * done.tile.width,
        )
    raise ImageryError(
        "no valid imagery at the cells that were looked at",
        expected="a region with imagery",
        todo="pass measure=False, or plan a part of the region",
    )


@dataclass(frozen=True)
class _Timed:
    """Seconds of a part of a tile, and the valid share of its cells."""

    tile: Tile
    cpu: float
    clock: float
    share: float


def _within_budget(job: MapJob, tile: Tile) -> _Timed:
    """The tile timed, or the largest part in its middle that is expected to take no longer than the budget."""
    part, left = next(p for p in _probes(tile) if np.isfinite(tile_values(job, p)[0]).any()), _BUDGET_S
    while True:
        done = _timed(job, part)
        left -= done.clock
        rate = done.clock / (
            _work(job, part) * (1.0 if surroundings(job) else max(done.share, 1e-3))
        )  # valid cells cost
        sizes = [_middle(tile, side) for side in range(1, max(tile.height, tile.width) + 1)]
        fitting = [p for p in sizes if rate * _work(job, p) <= left]
        if not fitting or fitting[-1].height * fitting[-1].width < 2 * part.height * part.width:
            return done
        part = fitting[-1]


def _timed(job: MapJob, part: Tile) -> _Timed:
    for encoder in fitted_encoders(job):
        if hasattr(encoder, "clear_cache"):
            encoder.clear_cache()
    cpu, clock = time.process_time(), time.perf_counter()
    values = tile_values(job, part)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    return _Timed(part, cpu, clock, float(np.isfinite(values[0]).mean()))


def _middle(tile: Tile, side: int) -> Tile:
    height, width = min(side, tile.height), min(side, tile.width)
    return Tile(tile.row + (tile.height - height) // 2, tile.col + (tile.width - width) // 2, height, width)


def _work(job: MapJob, part: Tile) -> float:
    """What the time of a part of a tile is in proportion to: its cells, or the pixels of its window."""
    around = surroundings(job)
    if not around:
        return float(part.height * part.width)
    margin = job.chip_px + around
    return float((part.height * job.grid.cell_px + margin) * (part.width * job.grid.cell_px + margin))


def _probes(tile: Tile) -> Iterator[Tile]:
    """Cells of a tile: in its middle and in the middle of its quarters."""
    for row, col in ((2, 2), (1, 1), (1, 3), (3, 1), (3, 3)):
        yield Tile(tile.row + tile.height * row // 4, tile.col + tile.width * col // 4, 1, 1)


def _peak() -> int:
    """Most memory of this process so far, in bytes."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _size(n: float) -> str:
    return f"{n / 2**30:,.1f} GB" if n >= 2**30 else f"{n / 2**20:,.0f} MB"
