"""Small pictures for notebooks as SVG text: intervals, a curve with its band, a histogram.

Letters and axes have the colour of the text around them, so that a picture follows the theme of its page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalsat.core.names import escaped

__all__ = ["curve_svg", "histogram_svg", "intervals_svg", "ticks"]

FloatArray = NDArray[np.float64]
ACCENT = "#2f7fc4"  # at least 3 to 1 on white and on black
WIDTH, MARGIN, FOOT, ROW = 560, 16, 40, 22  # pixels
LABEL_LETTERS = 30


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round numbers from low to high, about n of them.

    Examples
    --------
    >>> ticks(-0.13, 1.21)
    [0.0, 0.5, 1.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / max(n - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def intervals_svg(
    labels: Sequence[Any],
    estimate: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    title: str,
    axis: str = "effect",
    before: ArrayLike | None = None,
    reference: float | None = 0.0,
) -> str:
    """One line a row: an estimate with its interval, and a line at the reference.

    Parameters
    ----------
    labels : sequence of length k
        Names of the rows.
    estimate, lower, upper : array of shape (k,)
        Dots and the ends of their intervals.
    title : str
        What the picture shows, for those who cannot see it.
    axis : str
        Name of the horizontal axis.
    before : array of shape (k,), optional
        Hollow dots in the same rows.
    reference : float or None
        Where the dashed line stands.

    Examples
    --------
    >>> "G1" in intervals_svg(["G1"], [0.5], [0.1], [0.9], title="Effect of a group")
    True
    """
    mid, low, high = (np.asarray(v, dtype=float) for v in (estimate, lower, upper))
    other = np.full(len(mid), np.nan) if before is None else np.asarray(before, dtype=float)
    names = [_short(label) for label in labels]
    left = MARGIN + 7 * max((len(name) for name in names), default=0)
    known = np.concatenate([low, mid, high, other, [] if reference is None else [reference]])
    scale = _scale(known, left, WIDTH - MARGIN)
    height = ROW * len(names) + FOOT + 6
    marks = []
    for k, name in enumerate(names):
        y = ROW * k + ROW / 2 + 4
        marks.append(_text(MARGIN / 2, y + 4, name))
        if np.isfinite([low[k], high[k]]).all():
            marks.append(_line(scale(low[k]), y, scale(high[k]), y, ACCENT, 2))
        if np.isfinite(other[k]):
            marks.append(f'<circle cx="{scale(other[k]):.1f}" cy="{y:.1f}" r="4" fill="none" stroke="{ACCENT}"/>')
        if np.isfinite(mid[k]):
            marks.append(f'<circle cx="{scale(mid[k]):.1f}" cy="{y:.1f}" r="4" fill="{ACCENT}"/>')
    if reference is not None:
        at = scale(reference)
        marks.insert(0, _line(at, 4, at, height - FOOT, "currentColor", 1, dashed=True))
    return _svg(height, title, marks, _horizontal(scale, known, left, height, axis))


def curve_svg(
    x: ArrayLike, y: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, title: str, across: str, up: str
) -> str:
    """A curve with its band and a line at zero.

    Parameters
    ----------
    x, y, lower, upper : array of shape (k,)
        The curve and its band.
    title, across, up : str
        What the picture shows, and the names of its axes.
    """
    at, mid, low, high = (np.asarray(v, dtype=float) for v in (x, y, lower, upper))
    height, left = 240, 64
    known = np.concatenate([low, mid, high, [0.0]])
    right = _scale(at, left, WIDTH - MARGIN)
    down = _scale(known, height - FOOT, 12)
    good = np.isfinite(at) & np.isfinite(mid)
    band = np.isfinite(at) & np.isfinite(low) & np.isfinite(high)
    around = [*zip(at[band], low[band], strict=True), *reversed([*zip(at[band], high[band], strict=True)])]
    marks = [_line(left, down(0.0), WIDTH - MARGIN, down(0.0), "currentColor", 1, dashed=True)]
    if band.any():
        marks.append(f'<polygon points="{_points(around, right, down)}" fill="{ACCENT}" fill-opacity="0.2"/>')
    line = _points(zip(at[good], mid[good], strict=True), right, down)
    marks.append(f'<polyline points="{line}" fill="none" stroke="{ACCENT}" stroke-width="2"/>')
    marks += [_text(left - 6, down(tick) + 4, _number(tick), "end") for tick in _ticks(known)]
    marks.append(
        f'<text x="12" y="{(height - FOOT) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {(height - FOOT) / 2:.0f})">{escaped(up)}</text>'
    )
    return _svg(height, title, marks, _horizontal(right, at, left, height, across))


def histogram_svg(values: ArrayLike, *, title: str, axis: str, mark: float | None = None, bins: int = 30) -> str:
    """How often values occur, and a line at one of them.

    Parameters
    ----------
    values : array of shape (n,)
        Those that are not finite are left out.
    title, axis : str
        What the picture shows, and the name of its axis.
    mark : float, optional
        Where the dashed line stands.
    bins : int
        Bars.
    """
    known = np.asarray(values, dtype=float).ravel()
    known = known[np.isfinite(known)]
    shown = known if mark is None or not math.isfinite(mark) else np.append(known, mark)
    height, left = 170, MARGIN
    scale = _scale(shown, left, WIDTH - MARGIN)
    marks = []
    if len(known):
        low, high = _span(shown)
        count, edges = np.histogram(known, bins=bins, range=(low, high))
        top = max(int(count.max()), 1)
        for k in np.flatnonzero(count):
            x, tall = scale(edges[k]), (height - FOOT - 12) * count[k] / top
            wide = max(scale(edges[k + 1]) - x - 1, 1)
            marks.append(
                f'<rect x="{x:.1f}" y="{height - FOOT - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}" '
                f'fill="{ACCENT}" fill-opacity="0.65"/>'
            )
    if mark is not None and math.isfinite(mark):
        marks.append(_line(scale(mark), 6, scale(mark), height - FOOT, "currentColor", 2, dashed=True))
    return _svg(height, title, marks, _horizontal(scale, shown, left, height, axis))


# ---------------------------------------------------------------------- pieces
def _svg(height: float, title: str, marks: Sequence[str], axis: Sequence[str]) -> str:
    name = escaped(title, quote=True)
    return (
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" style="max-width:100%;height:auto" fill="currentColor" font-size="12" '
        f'font-family="system-ui, sans-serif"><title>{escaped(title)}</title>{"".join(marks)}{"".join(axis)}</svg>'
    )


def _horizontal(scale: Any, values: FloatArray, left: float, height: float, name: str) -> list[str]:
    base = height - FOOT
    found = [_line(left, base, WIDTH - MARGIN, base, "currentColor", 1)]
    for tick in _ticks(values):
        found += [
            _line(scale(tick), base, scale(tick), base + 4, "currentColor", 1),
            _text(scale(tick), base + 17, _number(tick), "middle"),
        ]
    return [*found, _text((left + WIDTH - MARGIN) / 2, height - 6, name, "middle")]


def _span(values: ArrayLike) -> tuple[float, float]:
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        half = abs(low) / 2 or 0.5
        low, high = low - half, high + half
    return low, high


def _wide(values: ArrayLike) -> tuple[float, float]:
    """The span with some room at either end, so that no interval touches the frame."""
    low, high = _span(values)
    return low - 0.03 * (high - low), high + 0.03 * (high - low)


def _ticks(values: ArrayLike) -> list[float]:
    return ticks(*_wide(values), n=6)


def _scale(values: ArrayLike, start: float, end: float) -> Any:
    low, high = _wide(values)
    return lambda value: start + (float(value) - low) / (high - low) * (end - start)


def _points(pairs: Any, right: Any, down: Any) -> str:
    return " ".join(f"{right(x):.1f},{down(y):.1f}" for x, y in pairs)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    where = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {where} stroke="{colour}" stroke-width="{width}"{dash}/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.6g}".replace("-", "\u2212") if abs(value) < 1e9 else f"{value:.3g}".replace("-", "\u2212")


def _short(label: Any) -> str:
    text = " ".join(str(label).split())
    return text if len(text) <= LABEL_LETTERS else text[: LABEL_LETTERS - 1] + "\u2026"
