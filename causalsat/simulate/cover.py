"""What lies on the land: rivers, parcels, settlements, roads. Layers as arrays of shape (size, size)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import distance_matrix

from causalsat.simulate.fields import Grid, drainage, draw_segments, fractal, line_cover


@dataclass(frozen=True)
class Parcels:
    """Field parcels: Voronoi cells of a jittered grid of seeds in warped coordinates.

    Attributes
    ----------
    label : ndarray of int of shape (size, size)
        Parcel of each pixel, 0 .. n - 1.
    edge : ndarray of float of shape (size, size)
        Distance to the parcel's border, in pixels, roughly.
    n : int
        Number of parcels.
    """

    label: NDArray[np.int64]
    edge: Grid
    n: int


def rivers(rng: np.random.Generator, elevation: Grid) -> tuple[Grid, Grid]:
    """Water cover and nearness to water (1 at the bank, falling over some 25 pixels), along the terrain's flow."""
    size = elevation.shape[0]
    step = max(1, size // 160)
    coarse = ndimage.gaussian_filter(elevation, step)[step // 2 :: step, step // 2 :: step]
    coarse = coarse + rng.exponential(6.0, coarse.shape)  # rough ground: streams across flats wander
    downstream, area = drainage(coarse)
    cols = coarse.shape[1]
    place = np.column_stack(np.divmod(np.arange(coarse.size), cols)).astype(np.float64)
    place += rng.uniform(-0.35, 0.35, place.shape)
    largest = np.full(coarse.size, -1)
    order = np.argsort(area, kind="stable")
    largest[downstream[order]] = order  # the largest tributary is written last
    largest = np.where(largest < 0, np.arange(coarse.size), largest)
    for _ in range(3):  # smooth the stair-steps of the grid along the stream
        place = 0.5 * place + 0.25 * place[downstream] + 0.25 * place[largest]
    place = place * step + step // 2
    whole = np.clip(place.astype(int), 0, size - 1)
    for axis in (0, 1):  # meanders
        place[:, axis] += 5 * fractal(rng, size, 2.6, scale_px=70)[whole[:, 0], whole[:, 1]]
    cover = np.zeros((size, size), np.float32)
    for share, width in ((0.004, 1.0), (0.02, 1.8), (0.08, 3.4), (0.2, 5.0)):
        cells = np.flatnonzero(area >= share * coarse.size)
        cells = cells[downstream[cells] != cells]
        mask = draw_segments(place[cells], place[downstream[cells]], size)
        cover = np.maximum(cover, line_cover(mask, width) * (0.55 if width <= 1 else 1.0))
    distance = ndimage.distance_transform_edt(cover < 0.5) if (cover >= 0.5).any() else np.full(cover.shape, size)
    return cover, np.exp(-distance / 12.0).astype(np.float32)


def parcels(
    rng: np.random.Generator, size: int, cell_px: float, *, warp_px: float, stretch: float = 1.5, jitter: float = 0.38
) -> Parcels:
    """Parcels of ``cell_px`` x ``cell_px * stretch`` pixels, bent by ``warp_px``, uneven by ``jitter``."""
    row, col = np.mgrid[0:size, 0:size].astype(np.float32)
    if warp_px:
        row = row + warp_px * fractal(rng, size, 2.2, scale_px=160)
        col = col + warp_px * fractal(rng, size, 2.2, scale_px=160)
    angle = rng.uniform(0.2, 0.6)
    u = (np.cos(angle) * row + np.sin(angle) * col) / cell_px
    v = (np.cos(angle) * col - np.sin(angle) * row) / (cell_px * stretch)
    u, v = u - u.min() + 1, v - v.min() + 1
    n_u, n_v = int(u.max()) + 3, int(v.max()) + 3
    seeds = rng.uniform(0.5 - jitter, 0.5 + jitter, (2, n_u, n_v)).astype(np.float32)
    cell_u, cell_v = u.astype(np.int64), v.astype(np.int64)
    best = np.full((size, size), np.inf, np.float32)
    second = best.copy()
    label = np.zeros((size, size), np.int64)
    for d_u in (-1, 0, 1):
        for d_v in (-1, 0, 1):
            i, j = cell_u + d_u, cell_v + d_v
            distance = (i + seeds[0, i, j] - u) ** 2 + ((j + seeds[1, i, j] - v) * stretch) ** 2
            closer = distance < best
            second = np.where(closer, best, np.minimum(second, distance))
            label = np.where(closer, i * n_v + j, label)
            best = np.where(closer, distance, best)
    edge = (np.sqrt(second) - np.sqrt(best)) * cell_px / 2
    return Parcels(label, edge.astype(np.float32), n_u * n_v)


def settlement_points(
    rng: np.random.Generator, allowed: NDArray[np.bool_], spacing_px: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows and columns (n, 2) of settlements, about one for each ``spacing_px`` square, and their buildings (n,)."""
    size = allowed.shape[0]
    margin = min(10, size // 8)
    n_side = max(2, (size - 2 * margin) // spacing_px)
    grid = margin + (np.argwhere(np.ones((n_side, n_side), bool)) + 0.5) * (size - 2 * margin) / n_side
    jitter = rng.uniform(-0.38, 0.38, (6, *grid.shape)) * spacing_px
    buildings = np.exp(rng.normal(0.0, 0.75, len(grid))) * 55
    density = np.exp(0.45 * fractal(rng, size, 2.0, scale_px=220))
    places, sizes = [], []
    for k, centre in enumerate(grid):
        for attempt in jitter[:, k]:
            row, col = np.clip(np.rint(centre + attempt).astype(int), 0, size - 1)
            if allowed[row, col]:
                places.append((row, col))
                sizes.append(float(np.clip(buildings[k] * density[row, col], 6, 600)))
                break
    return np.array(places, dtype=np.int64).reshape(-1, 2), np.array(sizes)


def buildings(rng: np.random.Generator, places: NDArray[np.int64], sizes: NDArray[np.float64], size: int) -> Grid:
    """Number of roofs in each pixel: a stretched cluster for each settlement, and scattered homesteads."""
    counts = rng.poisson(sizes)
    owner = np.repeat(np.arange(len(places)), counts)
    angle = rng.uniform(0, np.pi, len(places))[owner]
    spread = (1.3 + 0.22 * np.sqrt(sizes))[owner]
    along, across = rng.normal(0, 1, (2, len(owner)))
    along, across = along * spread * 1.35, across * spread * 0.75
    row = places[owner, 0] + along * np.sin(angle) + across * np.cos(angle)
    col = places[owner, 1] + along * np.cos(angle) - across * np.sin(angle)
    homesteads = rng.uniform(0, size, (2, size * size // 160))
    row, col = np.concatenate([row, homesteads[0]]), np.concatenate([col, homesteads[1]])
    inside = (row >= 0) & (row < size) & (col >= 0) & (col < size)
    flat = row[inside].astype(int) * size + col[inside].astype(int)
    return np.bincount(flat, minlength=size * size).reshape(size, size).astype(np.float32)


def roads(
    rng: np.random.Generator,
    places: NDArray[np.int64],
    sizes: NDArray[np.float64],
    slope: Grid,
    water: Grid,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of main roads (between the largest settlements) and of tracks from every other one to the next road."""
    from skimage.graph import MCP_Geometric, route_through_array

    size = slope.shape[0]
    empty = np.zeros((size, size), bool)
    if len(places) < 2:
        return empty, empty
    step = max(1, size // 128)
    trimmed = size // step * step
    blocks = (trimmed // step, step, trimmed // step, step)
    cost = 1 + 14 * slope[:trimmed, :trimmed].reshape(blocks).mean((1, 3))
    cost *= np.exp(0.45 * rng.standard_normal(cost.shape))
    cost += 8 * water[:trimmed, :trimmed].reshape(blocks).max((1, 3))
    node = np.minimum(places // step, cost.shape[0] - 1)
    towns = np.argsort(-sizes, kind="stable")[: max(2, len(places) // 22)]
    tree = minimum_spanning_tree(distance_matrix(places[towns], places[towns])).tocoo()
    on_road = np.zeros(cost.shape, bool)
    main: list[NDArray[np.float64]] = []
    for a, b in zip(tree.row, tree.col, strict=True):
        path, _ = route_through_array(np.where(on_road, 0.5, cost), node[towns[a]], node[towns[b]])
        on_road[tuple(np.transpose(path))] = True
        main.append(_smooth_path(path, places[towns[a]], places[towns[b]], step))
    finder = MCP_Geometric(cost)
    finder.find_costs(np.argwhere(on_road).tolist())
    tracks = [_smooth_path(path[::-1], p, None, step) for p, n in zip(places, node, strict=True)
              if len(path := finder.traceback(n)) > 1]  # fmt: skip
    return _draw_paths(main, size), _draw_paths(tracks, size)


def _smooth_path(
    path: list[tuple[int, int]], start: NDArray[np.int64], stop: NDArray[np.int64] | None, step: int
) -> NDArray[np.float64]:
    points = np.asarray(path, dtype=np.float64) * step + step / 2
    points[0] = start
    if stop is not None:
        points[-1] = stop
    for _ in range(2):
        points[1:-1] = 0.5 * points[1:-1] + 0.25 * (points[:-2] + points[2:])
    return points


def _draw_paths(paths: list[NDArray[np.float64]], size: int) -> NDArray[np.bool_]:
    if not paths:
        return np.zeros((size, size), bool)
    return draw_segments(np.concatenate([p[:-1] for p in paths]), np.concatenate([p[1:] for p in paths]), size)


def clouds(rng: np.random.Generator, size: int, cover: float) -> tuple[Grid, Grid]:
    """Opacity of cloud and depth of cloud shadow, each 0..1 of shape (size, size); about ``cover`` is cloudy."""
    field = fractal(rng, size, 1.7, scale_px=size / 3)
    threshold = np.quantile(field, 1 - cover)
    opacity = np.clip((field - threshold) / 0.35 + 0.25, 0, 1) * (field > threshold - 0.05)
    shift = (int(size * 0.018) + 4, int(size * 0.022) + 5)
    shadow = np.zeros_like(opacity)
    shadow[: -shift[0], : -shift[1]] = opacity[shift[0] :, shift[1] :]
    shadow = ndimage.gaussian_filter(shadow, 1.5) * (1 - opacity)
    return opacity.astype(np.float32), shadow.astype(np.float32)
