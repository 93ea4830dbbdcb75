"""Several scenes as one image: adjacent files, or the items of a catalogue that were taken on one day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ImageryError
from causalsat.imagery.blocks import Block, window_into
from causalsat.imagery.grid import Grid, project
from causalsat.imagery.layers import LayerImagery
from causalsat.imagery.masks import MaskRule
from causalsat.imagery.raster import MAX_DECODED, RasterImagery

__all__ = ["MosaicImagery", "open_mosaic"]

FloatArray = NDArray[np.float32]
Files = tuple[RasterImagery, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class MosaicImagery(LayerImagery):
    """Scenes on one grid, each pixel from the first of them that is valid there in any band.

    A pixel is taken from one scene with all its bands, so that no index mixes two. Scenes whose pixels do not
    coincide with those of the grid are read at the nearest pixel.

    Attributes
    ----------
    scenes : tuple of tuple of RasterImagery
        The scenes from the top; each is one file, or several files whose bands together are those of the mosaic.
    block_shape : tuple of int
        Rows and columns that are read at a time.
    mask : MaskRule or None
        Rule on a quality band, which is then the last file of each scene and no band of the mosaic.
    """

    scenes: tuple[Files, ...] = ()
    block_shape: tuple[int, int] = (256, 256)
    mask: MaskRule | None = None

    def load(self, r0: int, r1: int, c0: int, c1: int) -> Block:
        """Read rows r0..r1 and columns c0..c1 of every scene that has a part of them."""
        out = np.full((len(self.bands), r1 - r0, c1 - c0), np.nan, dtype=np.float32)
        open_pixels = np.ones(out.shape[1:], dtype=bool)
        infinite = 0
        for files in self.scenes:
            read = [_on_grid(file, self.grid, r0, r1, c0, c1) for file in files]
            parts = [part for part, _ in read]
            infinite += sum(count for _, count in read)
            if all(part is None for part in parts):
                continue
            pixels = np.concatenate([_or_nan(part, file, out) for part, file in zip(parts, files, strict=True)])
            if self.mask is not None:
                ruled_out = self.mask.flags(pixels[-1])
                pixels = pixels[:-1]
                pixels[:, ruled_out] = np.nan
            fresh = open_pixels & np.isfinite(pixels).any(axis=0)
            np.copyto(out, pixels, where=fresh)
            open_pixels &= ~fresh
            if not open_pixels.any():
                break
        return Block(out, infinite=infinite)

    def stamps(self) -> tuple[Any, ...]:
        """Those of the scenes."""
        return tuple(stamp for files in self.scenes for file in files for stamp in file.stamps())

    def unstamped(self) -> tuple[str, ...]:
        """What of the scenes cannot be looked at."""
        return tuple(name for files in self.scenes for file in files for name in file.unstamped())

    def fingerprint(self) -> dict[str, Any]:
        """The grid and what decides the scenes' pixels."""
        grid = [self.grid.crs_wkt, self.grid.affine, self.grid.shape]
        scenes = [[file.fingerprint() for file in files] for files in self.scenes]
        settings = {"bands": self.bands, "days": self.days, "mask": repr(self.mask)}
        return {"kind": type(self).__name__, "grid": grid, **settings, "scenes": scenes}

    def _select_bands(self, positions: list[int]) -> Self:
        kept = [] if self.mask is None else [len(self.bands)]  # the quality band
        scenes = tuple(_pick(files, [*positions, *kept]) for files in self.scenes)
        return replace(self, bands=tuple(self.bands[i] for i in positions), scenes=scenes)


def _pick(files: Files, positions: list[int]) -> Files:
    """The files with the bands at these positions of all their bands, neighbours of one file together."""
    owners = [(k, band) for k, file in enumerate(files) for band in range(len(file.bands))]
    chosen: list[tuple[int, list[int]]] = []
    for position in positions:
        owner, band = owners[position]
        if chosen and chosen[-1][0] == owner:
            chosen[-1][1].append(band)
        else:
            chosen.append((owner, [band]))
    return tuple(files[owner]._select_bands(bands) for owner, bands in chosen)


def _or_nan(part: FloatArray | None, file: RasterImagery, like: FloatArray) -> FloatArray:
    return np.full((len(file.bands), *like.shape[1:]), np.nan, np.float32) if part is None else part


def _on_grid(file: RasterImagery, grid: Grid, r0: int, r1: int, c0: int, c1: int) -> tuple[FloatArray | None, int]:
    """A file's pixels in a window of a grid, (band, rows, columns), NaN where invalid; None where it has none.

    Beside them, how many of those that were read are infinite.
    """
    offset = file.grid.offset_in(grid)
    if offset is not None:
        top, left = r0 - offset[0], c0 - offset[1]
        if top >= file.shape[0] or left >= file.shape[1] or top + r1 - r0 <= 0 or left + c1 - c0 <= 0:
            return None, 0
        out = np.empty((len(file.bands), r1 - r0, c1 - c0), dtype=np.float32)
        return out, window_into(out, file, top, left)
    rows, cols = _nearest(file.grid, grid, r0, r1, c0, c1)
    inside = (rows >= 0) & (cols >= 0)
    if not inside.any():
        return None, 0
    top, left = int(rows[inside].min()), int(cols[inside].min())
    height, width = int(rows[inside].max()) - top + 1, int(cols[inside].max()) - left + 1
    if height * width * len(file.bands) * 4 > MAX_DECODED:
        raise ImageryError(
            f"{file.path}: {height} x {width} pixels would be read for {r1 - r0} x {c1 - c0} of the grid",
            todo="take a resolution= closer to that of the files",
        )
    source = np.empty((len(file.bands), height, width), dtype=np.float32)
    infinite = window_into(source, file, top, left)
    picked = source[:, np.where(inside, rows - top, 0), np.where(inside, cols - left, 0)]
    return np.where(inside, picked, np.float32(np.nan)), infinite


def _nearest(own: Grid, grid: Grid, r0: int, r1: int, c0: int, c1: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and columns of a file that hold the centres of a grid's pixels, each (rows, columns); -1 outside."""
    a, _, c, _, e, f = grid.affine
    x, y = c + a * (np.arange(c0, c1) + 0.5), f + e * (np.arange(r0, r1) + 0.5)
    across, down = np.meshgrid(x, y)
    if own.crs != grid.crs:
        across, down = project(across, down, grid.crs_wkt, own.crs_wkt)
    across = own.turned(across)
    rows, cols = (down - own.affine[5]) / own.affine[4], (across - own.affine[2]) / own.affine[0]
    inside = (rows >= 0) & (rows < own.shape[0]) & (cols >= 0) & (cols < own.shape[1])
    return tuple(np.floor(np.where(inside, v, -1.0)).astype(np.int64) for v in (rows, cols))  # type: ignore[return-value]


def open_mosaic(
    scenes: Sequence[Files], grid: Grid, name: str, days: tuple[str, ...] = (), mask: MaskRule | None = None
) -> MosaicImagery:
    """A :class:`MosaicImagery` of scenes that have the same bands."""
    bands = [band for file in scenes[0] for band in file.bands]
    return MosaicImagery(
        grid=grid,
        bands=tuple(bands if mask is None else bands[:-1]),
        days=days,
        name=name,
        scenes=tuple(scenes),
        block_shape=scenes[0][0].block_shape,
        mask=mask,
    )
