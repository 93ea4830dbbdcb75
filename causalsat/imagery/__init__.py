"""Imagery: rasters, dated sequences, arrays, Zarr, STAC and embeddings behind one small interface.

:func:`open_imagery` opens a source, :func:`chips` reads the pixels around places, each block of the file decoded
once; :func:`indices`, :func:`channel_statistics` and :func:`normalise` work on the chips.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "ArrayImagery": "arrays",
    "EmbeddingImagery": "embeddings",
    "Grid": "grid",
    "Imagery": "base",
    "MaskRule": "masks",
    "RasterImagery": "raster",
    "SequenceImagery": "sequence",
    "StacImagery": "stac",
    "ZarrImagery": "arrays",
    "channel_statistics": "statistics",
    "chips": "chip_reader",
    "indices": "spectral_indices",
    "normalise": "statistics",
    "open_embeddings": "embeddings",
    "open_imagery": "sources",
    "open_stac": "stac",
}

__all__ = [*_LAZY]  # noqa: PLE0604

if TYPE_CHECKING:
    from causalsat.imagery.arrays import ArrayImagery as ArrayImagery
    from causalsat.imagery.arrays import ZarrImagery as ZarrImagery
    from causalsat.imagery.base import Imagery as Imagery
    from causalsat.imagery.chip_reader import chips as chips
    from causalsat.imagery.embeddings import EmbeddingImagery as EmbeddingImagery
    from causalsat.imagery.embeddings import open_embeddings as open_embeddings
    from causalsat.imagery.grid import Grid as Grid
    from causalsat.imagery.masks import MaskRule as MaskRule
    from causalsat.imagery.raster import RasterImagery as RasterImagery
    from causalsat.imagery.sequence import SequenceImagery as SequenceImagery
    from causalsat.imagery.sources import open_imagery as open_imagery
    from causalsat.imagery.spectral_indices import indices as indices
    from causalsat.imagery.stac import StacImagery as StacImagery
    from causalsat.imagery.stac import open_stac as open_stac
    from causalsat.imagery.statistics import channel_statistics as channel_statistics
    from causalsat.imagery.statistics import normalise as normalise


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'causalsat.imagery' has no attribute {name!r}")
    value = getattr(import_module(f"causalsat.imagery.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
