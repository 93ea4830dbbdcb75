"""The picture of a map of effects: effect, uncertainty and P(effect > 0), with what the trial does not support."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causalsat.core.files import whole_file, writing
from causalsat.exceptions import ParameterError
from causalsat.plots import geography
from causalsat.plots import style as _style
from causalsat.plots.layers import LAYERS, UNSUPPORTED, LayerStyle, MapLayers, layer_style, read_layers
from causalsat.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_layer", "plot_map", "save_map"]


def plot_map(
    result: Any,
    *,
    layer: str | None = None,
    sites: Any = None,
    units: str = "",
    title: str = "",
    note: str = "",
    ax: Any = None,
) -> Figure | Axes:
    """Draw a map of effects.

    Cells with a support below 0.05, where the trial says little, are hatched; cells without valid imagery are
    grey.

    Parameters
    ----------
    result : MapResult or path
        What map_effects or map_risk returned, or its GeoTIFF.
    layer : {"cate", "sd", "prob_positive", "support"}, optional
        Draw one layer; by default a figure with effect, sd and P(effect > 0). A map of risk has the layers "risk",
        "sd", "decision" and "support".
    sites : GeoDataFrame, optional
        Places of the trial.
    units, title, note : str
        Units of the effect, title, and a line beneath it; by default those in the file.
    ax : matplotlib Axes, optional
        Where to draw a single layer.

    Returns
    -------
    Figure, or Axes when ``layer`` or ``ax`` is given
    """
    layers = read_layers(getattr(result, "path", result))
    units, title, note = (
        _style.plain(given or layers.tags.get(key, ""))
        for key, given in (("units", units), ("title", title), ("note", note))
    )
    if layer is not None or ax is not None:
        name = layer or layers.main
        if name not in layers.values:
            shown = LAYERS if layers.main == "cate" else (*layers.panels, "support")
            raise ParameterError(f"layer={layer!r}", expected=f"one of {', '.join(shown)}")
        ax = _style.new_axes(ax, (6.4, 5.6))
        style = layer_style(layers, name, units)
        draw_layer(ax, layers, name, style, sites, large=True)
        ax.set_title(title or style.title, loc="left", fontsize=12, fontweight="bold", color=_style.INK)
        return ax
    import matplotlib.pyplot as plt

    figure = plt.figure(layout="constrained")
    return _style.shown_once(_fill(figure, layers, sites, units, title, note))


def save_map(
    result: Any, path: Any, *, sites: Any = None, units: str = "", title: str = "", note: str = "", dpi: int = 160
) -> Path:
    """Write :func:`plot_map` to a PNG file, without touching the user's pyplot state.

    Parameters
    ----------
    result, sites, units, title, note
        As for :func:`plot_map`.
    path : path-like
        The file to write, atomically.
    dpi : int
        Dots per inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = read_layers(getattr(result, "path", result))
    units, title, note = (
        _style.plain(given or layers.tags.get(key, ""))
        for key, given in (("units", units), ("title", title), ("note", note))
    )
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    _fill(figure, layers, sites, units, title, note)
    target = Path(path)
    with writing(target), whole_file(target) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png", metadata={"Software": f"causalsat {__version__}"})
    return target


def _fill(figure: Any, layers: MapLayers, sites: Any, units: str, title: str, note: str) -> Any:
    west, east, south, north = layers.extent
    main, _, third = layers.panels
    aspect = (east - west) / (north - south) * geography.shortening(layers.extent, layers.crs)
    aspect = float(np.clip(aspect, 0.4, 2.6))
    if aspect <= 1.6:
        height = 6.4 / np.sqrt(aspect)
        small = height / 2 - 0.4
        figure.set_size_inches(aspect * (height + small) + 1.5, height + 2.0)
        widths = [aspect * height, aspect * small]
        panels = figure.subplot_mosaic([[main, "sd"], [main, third]], width_ratios=widths)
    else:
        figure.set_size_inches(11.0, 10.2 / aspect * 1.5 + 3.4)
        panels = figure.subplot_mosaic([[main, main], ["sd", third]], height_ratios=[2.0, 1.1])
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03)
    for name, ax in panels.items():
        style = layer_style(layers, name, units)
        draw_layer(ax, layers, name, style, sites if name == main else None, large=name == main)
        ax.set_title(style.title, loc="left", fontsize=12 if name == main else 10.5, color=_style.INK)
    _words(figure, title or ("Map of treatment effects" if main == "cate" else "Map of risk"), note)
    _legend(figure, layers, sites)
    return figure


def draw_layer(ax: Any, layers: MapLayers, name: str, style: LayerStyle, sites: Any, *, large: bool) -> None:
    """Draw one layer with its colour bar, unsupported cells hatched."""
    from matplotlib.colors import ListedColormap

    image = ax.imshow(
        layers.values[name],
        extent=layers.extent,
        cmap=ListedColormap(list(style.palette)),
        vmin=style.low,
        vmax=style.high,
        interpolation="nearest",
    )
    ax.set_facecolor("#d7d7d4")
    _hatch(ax, layers)
    if sites is not None and len(sites):
        places = _places(sites, layers)
        ax.scatter(*places.T, s=16, facecolor="white", edgecolor=_style.INK, linewidth=0.8, zorder=6)
    geography.frame_axes(ax, layers.extent, layers.crs, ticks=large, scale=large)
    bar = ax.figure.colorbar(
        image, ax=ax, extend=style.extend, orientation="horizontal", aspect=38 if large else 24,
        pad=0.02,
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.set_label(style.label, fontsize=11 if large else 9.5)
    bar.ax.tick_params(labelsize=10 if large else 8.5, length=3)


def _hatch(ax: Any, layers: MapLayers) -> None:
    support = layers.values["support"]
    low = np.where(np.isfinite(support), support < UNSUPPORTED, False).astype(float)
    if not low.any() or min(low.shape) < 2:
        return
    west, east, south, north = layers.extent
    height, width = low.shape
    x = west + (np.arange(width) + 0.5) * (east - west) / width
    y = north - (np.arange(height) + 0.5) * (north - south) / height
    veil = np.ones((height, width, 4))
    veil[..., 3] = 0.4 * low
    ax.imshow(veil, extent=layers.extent, interpolation="nearest", zorder=2)
    drawn = ax.contourf(x, y, low, levels=[0.5, 2.0], colors="none", hatches=["////"], zorder=3)
    drawn.set(edgecolor="#6a6a6a", linewidth=0.0)


def _places(sites: Any, layers: MapLayers) -> Any:
    geometry = getattr(sites, "geometry", sites)
    if geometry.crs is not None and layers.crs is not None:
        geometry = geometry.to_crs(layers.crs)
    return np.unique(np.column_stack([geometry.x, geometry.y]), axis=0)


def _words(figure: Any, title: str, note: str) -> None:
    width = figure.get_figwidth()
    lines = textwrap.wrap(note, int(width * 11)) if note else []
    heading = figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold", color=_style.INK)
    if lines:
        heading.set_text(title + "\n" * len(lines))
        step = 0.25 / figure.get_figheight()
        for number, line in enumerate(lines):
            figure.text(
                0.012, 1 - 0.40 / figure.get_figheight() - number * step, line, fontsize=11.5, va="top",
                color=_style.VERMILION,
            )  # fmt: skip


def _legend(figure: Any, layers: MapLayers, sites: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = []
    if sites is not None and len(sites):
        entries.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="o",
                markerfacecolor="white",
                markeredgecolor=_style.INK,
                label="trial sites" if layers.main == "cate" else "units of the fit",
            )
        )
    if (layers.values["support"] < UNSUPPORTED).any():
        entries.append(
            Patch(
                facecolor="none",
                edgecolor="#5a5a5a",
                hatch="////",
                linewidth=0,
                label=f"unlike the {'trial' if layers.main == 'cate' else 'units of the fit'}: support < 0.05",
            )
        )
    if not np.isfinite(layers.values[layers.main]).all():
        entries.append(Patch(facecolor="#d7d7d4", label="not mapped"))
    if entries:
        figure.legend(handles=entries, loc="outside lower left", ncols=3, frameon=False, fontsize=10)
