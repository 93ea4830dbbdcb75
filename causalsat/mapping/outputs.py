"""Maps on disk: their metadata, their blocks, their cells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["blocks_of", "count_mapped", "finished_tags", "map_notes", "model_words"]


def finished_tags(path: Path, job_hash: str, bands: tuple[str, ...]) -> dict[str, str]:
    """Tags of a map of the same job that is already there and can be read; empty where there is none."""
    if not path.exists():
        return {}
    import rasterio

    try:
        with rasterio.open(path) as raster:
            tags, same_bands = raster.tags(), raster.descriptions == bands
        if not same_bands or tags.get("job") != job_hash:
            return {}
        for _ in blocks_of(path):  # a damaged one is made anew
            pass
    except rasterio.errors.RasterioError:
        return {}
    tags.pop("AREA_OR_POINT", None)
    return tags


def blocks_of(path: Path) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Row, column and values of the blocks of a map."""
    import rasterio

    with rasterio.open(path) as raster:
        for _, window in raster.block_windows(1):
            yield window.row_off, window.col_off, raster.read(window=window)


def count_mapped(path: Path) -> int:
    """Cells of a map that have a value."""
    import rasterio

    with rasterio.open(path) as raster:
        return sum(int(np.isfinite(raster.read(1, window=w)).sum()) for _, w in raster.block_windows(1))


def model_words(model: Any) -> str:
    """Steps of the model by class, and the settings of its estimator."""
    steps = [step for _, step in getattr(model, "steps", [("", model)])]
    labels = [type(step).__name__ for step in steps[:-1]] + [" ".join(str(steps[-1]).split())]
    return " > ".join(labels)[:2000]


def map_notes(note: str, p_value: float | None, scope: str = "mean") -> str:
    """The line beneath a map: what its reader must know."""
    notes = [note] if note else []
    if scope == "place":
        notes.insert(0, "sd and intervals are of the effect at the place itself")
    if p_value is not None and p_value > 0.05:
        notes.insert(0, f"heterogeneity not distinguishable from zero (p = {p_value:.2g})")
    return "; ".join(notes)
