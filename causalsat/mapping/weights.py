"""What a cell of a map counts in a mean: its area on the ground, or the people of a raster that live in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ParameterError
from causalsat.imagery.grid import Grid, ground_pixels, project
from causalsat.mapping.grid import MapGrid, to_coordinates
from causalsat.mapping.tiles import Tile

__all__ = ["cell_areas", "check_weights", "ground_area_km2", "weights_of_tile"]

FloatArray = NDArray[np.float64]

MAX_WEIGHT = 1e18  # people or square metres of a pixel are fewer; undeclared nodata values are more
_EVEN = 0.01  # cells whose areas differ by no more are taken to be of one size
_WINDOW_PX = 1 << 24  # pixels of a weights raster that are read at a time
_PER = ("pixel", "km2")


def _lattice(grid: MapGrid) -> Grid:
    """The map's cells as a grid of pixels."""
    a, b, c, d, e, f = (float(v) for v in tuple(grid.transform)[:6])
    return Grid(grid.crs, (a, b, c, d, e, f), (grid.height, grid.width))


def ground_area_km2(grid: MapGrid, x: FloatArray, y: FloatArray) -> FloatArray:
    """Areas on the ground in km2 of the cells at the centres x, y, shape (n,); nominal where these are off it."""
    height, width = ground_pixels(_lattice(grid), x, y)
    area = height * width / 1e6
    return np.where(np.isfinite(area), area, (grid.resolution_m / 1000) ** 2)


def cell_areas(grid: MapGrid) -> Any:
    """A function of cell centres (x, y) that gives their weights in a mean over land: areas, of a usual cell one.

    Cells of a projection that keeps areas, within a hundredth over the map, all count one.
    """
    rows, cols = (np.linspace(0.5, n - 0.5, 9) for n in (grid.height, grid.width))
    x, y = to_coordinates(grid.transform, *(v.ravel() for v in np.meshgrid(cols, rows)))
    area = ground_area_km2(grid, x, y)
    usual = float(np.median(area))
    if area.max() <= (1 + _EVEN) * area.min():
        return lambda x, y: np.ones(len(x))
    return lambda x, y: ground_area_km2(grid, x, y) / usual


def check_weights(weights: Any, per: str) -> None:
    """Refuse weights of several layers, and units that are none of those known.

    Raises
    ------
    ParameterError
    """
    if per not in _PER:
        raise ParameterError(
            f"weights_per={per!r}",
            expected="'pixel' for counts, such as people in a pixel, or 'km2' for densities, such as people a km2",
        )
    if weights is not None and not (hasattr(weights, "read_window") and hasattr(weights, "grid")):
        raise ParameterError(
            f"weights of type {type(weights).__name__}",
            expected="an Imagery of one band",
            todo="open it first: weights=causalsat.open_imagery(path)",
        )
    layers = 1 if weights is None else len(weights.bands) * max(len(weights.dates), 1)
    if layers != 1:
        raise ParameterError(
            f"weights with {len(weights.bands)} bands and {max(len(weights.dates), 1)} dates",
            expected="one layer of weights",
            todo=f"choose one: weights.sel(bands=[{weights.bands[0]!r}]"
            + (f", dates=[{str(weights.dates[-1])!r}])" if len(weights.dates) > 1 else ")"),
        )


def weights_of_tile(weights: Any, grid: MapGrid, tile: Tile, per: str) -> tuple[FloatArray, FloatArray]:
    """Weight of each cell of a tile, and the share of the cell that the weights raster covers, each row by row.

    Pixels that lie in a cell in part count in part. Invalid pixels count nothing: nobody lives there.

    Parameters
    ----------
    weights : Imagery
        One layer, in any coordinate system.
    grid : MapGrid
    tile : Tile
    per : {"pixel", "km2"}
        Whether its numbers are counts in a pixel, which are summed, or densities, which are multiplied by areas.

    Returns
    -------
    weight, covered : ndarray of shape (height * width,)
    """
    if tile.height * tile.width == 0:
        return np.empty(0), np.empty(0)
    box = _boxes(weights.grid, grid, tile)
    inside = _within(box, weights.grid.shape)
    rows, cols = np.ptp(inside[:2]) + 2, np.ptp(inside[2:]) + 2
    if rows * cols > _WINDOW_PX and tile.height * tile.width > 1:
        return _by_halves(weights, grid, tile, per)
    size, part = ((b[1] - b[0]) * (b[3] - b[2]) for b in (box, inside))
    weight = _integral(weights, inside) if (part > 0).any() else np.zeros(len(part))
    size = np.where(size > 0, size, 1.0)  # of a cell that cannot be brought to the weights' system
    if per == "km2":
        centres = grid.centres(tile.row, tile.col, tile.height, tile.width)
        weight = weight / size * ground_area_km2(grid, *centres)
    return weight, part / size


def _by_halves(weights: Any, grid: MapGrid, tile: Tile, per: str) -> tuple[FloatArray, FloatArray]:
    """The same for a tile whose window of the weights raster is too large to read at once."""
    row, col, height, width = tile.row, tile.col, tile.height, tile.width
    axis = 0 if height >= width else 1
    half = (height if axis == 0 else width) // 2
    parts = (
        (Tile(row, col, half, width), Tile(row + half, col, height - half, width))
        if axis == 0
        else (Tile(row, col, height, half), Tile(row, col + half, height, width - half))
    )
    found = [[v.reshape(t.height, t.width) for v in weights_of_tile(weights, grid, t, per)] for t in parts]
    first, second = (np.concatenate(pair, axis=axis).ravel() for pair in zip(*found, strict=True))
    return first, second


def _boxes(own: Grid, grid: MapGrid, tile: Tile) -> FloatArray:
    """Top, bottom, left and right of each cell in rows and columns of the weights raster, shape (4, cells).

    Of cells in another system, what lies between the middles of their sides.
    """
    x, y = grid.centres(tile.row, tile.col, tile.height, tile.width)
    a, e = float(grid.transform.a) / 2, float(grid.transform.e) / 2
    sides = [(x, y + e * k) for k in (-1, 1)] + [(x + a * k, y) for k in (-1, 1)]
    (middle, _), *ends = (project(px, py, grid.crs, own.crs_wkt) for px, py in ((x, y), *sides))
    turned = own.turned(middle)
    if own.crs.is_geographic:  # sides beside their middle, also where that lies at 180 degrees
        ends = [(turned + (px - middle + 180) % 360 - 180, py) for px, py in ends]
    left, top = own.affine[2], own.affine[5]
    rows = [(ends[k][1] - top) / own.affine[4] for k in (0, 1)]
    cols = [(ends[k][0] - left) / own.affine[0] for k in (2, 3)]
    return np.nan_to_num(np.stack([*rows, *cols]), nan=-1.0, posinf=-1.0, neginf=-1.0)


def _within(box: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """The part of each box that lies on the raster; one of no size where none does."""
    inside = np.concatenate([np.clip(box[:2], 0, shape[0]), np.clip(box[2:], 0, shape[1])])
    gone = (inside[1] <= inside[0]) | (inside[3] <= inside[2])
    if gone.all():
        return np.zeros_like(inside)
    inside[:, gone] = inside[:, np.flatnonzero(~gone)[:1]][[0, 0, 2, 2]]
    return inside


def _integral(weights: Any, box: FloatArray) -> FloatArray:
    """Sum of the pixels in each box (top, bottom, left, right), those at its border by the share that it holds."""
    low, high = np.floor(box.min(axis=1)).astype(int), np.ceil(box.max(axis=1)).astype(int)
    row, col, height, width = low[0], low[2], high[1] - low[0], high[3] - low[2]
    pixels = np.asarray(weights.read_window(row, col, height, width), dtype=float).reshape(height, width)
    pixels = np.where(np.isfinite(pixels), pixels, 0.0)
    if (pixels < 0).any():
        raise DataError("negative weights", expected="people, areas or other numbers that are not below 0")
    if (largest := pixels.max(initial=0.0)) > MAX_WEIGHT:
        raise DataError(
            f"a weight of {largest:g}",
            expected=f"numbers up to {MAX_WEIGHT:g}",
            todo="it looks like a nodata value that the file does not state: open the weights with nodata=",
        )
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = pixels.cumsum(axis=0).cumsum(axis=1)

    def up_to(r: FloatArray, c: FloatArray) -> FloatArray:
        i, j = (np.minimum(v.astype(np.int64), n - 1) for v, n in ((r, height), (c, width)))
        u, v = r - i, c - j
        upper = sums[i, j] * (1 - v) + sums[i, j + 1] * v
        lower = sums[i + 1, j] * (1 - v) + sums[i + 1, j + 1] * v
        return upper * (1 - u) + lower * u

    top, bottom, left, right = box[0] - row, box[1] - row, box[2] - col, box[3] - col
    total = up_to(bottom, right) - up_to(top, right) - up_to(bottom, left) + up_to(top, left)
    return np.maximum(total, 0.0)
