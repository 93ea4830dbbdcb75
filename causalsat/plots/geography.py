"""Map furniture: degrees along the edges, a scale bar, a decimated picture of imagery."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.plots import style

Frame = tuple[float, float, float, float]  # west, east, south, north
NICE = np.array([1.0, 2.0, 5.0, 10.0])
STRIP_PIXELS = 4_000_000


def padded(points: NDArray[Any], share: float) -> Frame:
    """Bounds of points (n, 2) with a margin: west, east, south, north."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = max(share * float((high - low).max()), 1e-6)
    return float(low[0] - margin), float(high[0] + margin), float(low[1] - margin), float(high[1] + margin)


def nice_below(value: float) -> float:
    """Largest of 1, 2, 5 times a power of ten that is not above the value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(NICE[NICE * power <= value * (1 + 1e-9)].max() * power)


def shortening(frame: Frame, crs: Any) -> float:
    """Length of a degree of longitude over one of latitude in the middle of a frame; 1 for projected systems."""
    from pyproj import CRS

    if crs is None or not CRS.from_user_input(crs).is_geographic:
        return 1.0
    return float(np.cos(np.deg2rad((frame[2] + frame[3]) / 2)))


def frame_axes(ax: Any, frame: Frame, crs: Any, *, ticks: bool = True, scale: bool = True) -> None:
    """Set extent and aspect, write degrees along the edges and draw a scale bar."""
    from pyproj import CRS

    west, east, south, north = frame
    crs = None if crs is None else CRS.from_user_input(crs)
    geographic = crs is not None and crs.is_geographic
    middle = shortening(frame, crs)
    ax.set_xlim(west, east)
    ax.set_ylim(south, north)
    ax.set_aspect(1 / middle)
    for spine in ax.spines.values():
        spine.set_color(style.GREY)
        spine.set_linewidth(0.8)
    ax.tick_params(labelsize=8.5, color=style.GREY, length=3)
    if ticks and crs is not None:
        _degrees(ax, frame, crs)
    else:
        ax.set_xticks([])
        ax.set_yticks([])
    if scale and crs is not None:
        metres = 111_320 * middle if geographic else float(crs.axis_info[0].unit_conversion_factor or 1.0)
        _scale_bar(ax, frame, metres)


def _degrees(ax: Any, frame: Frame, crs: Any) -> None:
    from pyproj import Transformer

    west, east, south, north = frame
    narrow = (east - west) * shortening(frame, crs) < 0.75 * (north - south)
    to_lonlat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y = np.linspace(west, east, 201), np.linspace(south, north, 201)
    lon, _ = to_lonlat.transform(x, np.full(201, south))
    _, lat = to_lonlat.transform(np.full(201, west), y)
    for values, places, positive, negative, axis in ((lon, x, "E", "W", ax.xaxis), (lat, y, "N", "S", ax.yaxis)):
        if not np.isfinite(values).all() or values[-1] <= values[0]:
            axis.set_ticks([])
            continue
        span = values[-1] - values[0]
        most = 2 if axis is ax.xaxis and narrow else 4
        step = next(s for s in (nice_below(span * k) for k in (0.15, 0.3, 0.5, 0.7, 1.0)) if span / s <= most + 0.5)
        marks = np.arange(np.ceil(values[0] / step), np.floor(values[-1] / step) + 1) * step
        digits = max(0, -int(np.floor(np.log10(step) + 1e-9)))
        names = [f"{abs(v):.{digits}f}°{positive if v > 0 else negative if v < 0 else ''}" for v in marks]
        axis.set_ticks(np.interp(marks, values, places), names)


def _scale_bar(ax: Any, frame: Frame, metres_per_unit: float) -> None:
    import matplotlib.patheffects as effects

    west, east = frame[:2]
    length_m = nice_below(0.28 * (east - west) * metres_per_unit)
    share = length_m / metres_per_unit / (east - west)
    name = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    halo = [effects.withStroke(linewidth=4.5, foreground="white", alpha=0.85)]
    right, low = 0.96, 0.05
    ax.plot(
        [right - share, right], [low, low], transform=ax.transAxes, color=style.INK, linewidth=2.2,
        path_effects=halo, solid_capstyle="butt", zorder=9,
    )  # fmt: skip
    ax.text(
        right - share / 2, low + 0.015, name, transform=ax.transAxes, ha="center", va="bottom", fontsize=9,
        color=style.INK, path_effects=halo, zorder=9,
    )  # fmt: skip


def backdrop(imagery: Any, frame: Frame | None = None, *, most: int = 800) -> tuple[NDArray[np.uint8], Frame]:
    """Decimated picture of the imagery, uint8 (y, x, 4), transparent where invalid, and its extent.

    Three bands become red, green and blue (the imagery's bands named so, else its first three), fewer become
    grey; each is stretched from its 2nd to its 98th percentile. Of several dates the first is drawn. Read in
    strips of whole rows, keeping every k-th pixel, so that memory is bounded.
    """
    rows, cols = (int(v) for v in imagery.shape[-2:])
    top, bottom, left, right = 0, rows, 0, cols
    if frame is not None:
        corner_col, corner_row = _affine(~imagery.transform, np.array(frame[:2]), np.array([frame[3], frame[2]]))
        left, right = max(int(np.floor(corner_col.min())), 0), min(int(np.ceil(corner_col.max())), cols)
        top, bottom = max(int(np.floor(corner_row.min())), 0), min(int(np.ceil(corner_row.max())), rows)
    step = max(1, -(-max(bottom - top, right - left) // most))
    strip = max(step, STRIP_PIXELS // max(right - left, 1) // step * step)
    kept = []
    for row in range(top, bottom, strip):
        pixels = np.asarray(imagery.read_window(row, left, min(strip, bottom - row), right - left))
        pixels = pixels[0] if pixels.ndim == 4 else pixels
        kept.append(pixels[:, step // 2 :: step, step // 2 :: step].copy())
    picture = _stretch(np.concatenate(kept, axis=1), tuple(imagery.bands))
    west, north = _affine(imagery.transform, left, top)
    east, south = _affine(imagery.transform, left + picture.shape[1] * step, top + picture.shape[0] * step)
    return picture, (float(west), float(east), float(south), float(north))


def _affine(transform: Any, col: Any, row: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f = (float(v) for v in tuple(transform)[:6])
    return a * col + b * row + c, d * col + e * row + f


def _stretch(pixels: NDArray[Any], bands: tuple[str, ...]) -> NDArray[np.uint8]:
    names = [str(b).lower() for b in bands]
    order = [names.index(n) for n in ("red", "green", "blue") if n in names]
    order = order if len(order) == 3 else list(range(3)) if len(pixels) >= 3 else [0, 0, 0]
    chosen = pixels[order].astype(float)
    valid = np.isfinite(chosen).all(axis=0)
    out = np.zeros((*valid.shape, 4), dtype=np.uint8)
    if valid.any():
        low, high = np.percentile(chosen[:, valid], [2, 98], axis=1)
        scaled = (chosen - low[:, None, None]) / np.maximum(high - low, 1e-12)[:, None, None]
        out[..., :3] = np.moveaxis(np.nan_to_num(np.clip(scaled, 0, 1)) * 255, 0, -1).astype(np.uint8)
        out[..., 3] = np.where(valid, 255, 0)
    return out
