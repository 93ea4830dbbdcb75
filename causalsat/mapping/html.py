"""The interactive map: one HTML file that needs no network."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

import bokeh.models
import bokeh.plotting
import numpy as np
from bokeh.embed import file_html
from bokeh.layouts import column, row
from bokeh.resources import INLINE
from numpy.typing import NDArray

from causalsat.plots._geography import backdrop, shortening
from causalsat.plots._layers import LAYERS, UNSUPPORTED, MapLayers, layer_style, read_layers

__all__ = ["write_page"]

# bokeh's models are made at run time, which type checkers do not follow
bk: Any = bokeh.models
figure: Any = bokeh.plotting.figure

MOST_CELLS = 400
LATTICE = 17

TEMPLATE = """
{% block title %}{{ heading }}{% endblock %}
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="{{ description }}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';
 style-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<style>
  main { font: 16px/1.45 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: #222;
         margin: 0 auto; max-width: 64rem; padding: 1.2rem 1rem; }
  h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
  .note { color: #a33f00; font-weight: 600; margin: .2rem 0; }
  .about { color: #444; font-size: .95rem; margin: .3rem 0 1rem; }
</style>
{% endblock %}
{% block contents %}
<main aria-label="Interactive map of treatment effects">
<h1>{{ heading }}</h1>
{% if note %}<p class="note">{{ note }}</p>{% endif %}
<p class="about">{{ description }}</p>
<noscript><p class="note">This map needs JavaScript; its values are also in the GeoTIFF.</p></noscript>
{{ super() }}
</main>
{% endblock %}
"""


def write_page(
    result: Any,
    path: Path,
    imagery: Any = None,
    *,
    sites: Any = None,
    units: str = "",
    title: str = "",
    note: str = "",
) -> Path:
    """Write the interactive page of a map of effects.

    Layers (effect, sd, P(effect > 0), support) over a picture of the imagery; the pointer shows a cell's values;
    bokeh's code is within the file. At most 400 by 400 cells are shown: larger maps are averaged, which the page
    says.

    Parameters
    ----------
    result : MapResult or path
        What map_effects returned, or its GeoTIFF.
    path : Path
        The file to write; it appears whole or not at all.
    imagery : Imagery, optional
        Backdrop.
    sites : GeoDataFrame, optional
        Places of the trial.
    units, title, note : str
        Units of the effect, title, and a line beneath it; by default those in the file.
    """
    layers = read_layers(getattr(result, "path", result), MOST_CELLS)
    units, title, note = (
        given or layers.tags.get(key, "") for key, given in (("units", units), ("title", title), ("note", note))
    )
    title = title or "Map of treatment effects"
    plot = _frame(layers)
    shades = _draw_backdrop(plot, imagery, layers)
    images, bars = _draw_layers(plot, layers, units)
    hatch = _draw_hatch(plot, layers)
    dots = _draw_sites(plot, sites, layers)
    plot.add_tools(_hover(images, layers, units))
    page = column(
        _controls(images, bars, {"imagery": shades, "unlike the trial (support < 0.05)": hatch, "trial sites": dots}),
        plot,
    )
    words = {
        "heading": html.escape(title),
        "note": html.escape(note),
        "description": html.escape(_about(layers, units)),
    }
    text = file_html(page, INLINE, title=html.escape(title), template=TEMPLATE, template_variables=words)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _about(layers: MapLayers, units: str) -> str:
    effect, support = layers.values["cate"], layers.values["support"]
    mapped = np.isfinite(effect)
    level = float(layers.tags.get("level", "0.9"))
    words = f"Posterior effect of treatment in {int(mapped.sum()):,} cells"
    if mapped.any():
        low, middle, high = np.percentile(effect[mapped], [5, 50, 95])
        words += (
            f": median {middle:.3g}{' ' + units if units else ''}, 5th to 95th percentile {low:.3g} to {high:.3g}"
        )
        outside = float((support[mapped] < UNSUPPORTED).mean())
        words += f". {outside:.0%} of the cells are unlike the places of the trial (hatched)"
    words += f". Move the pointer over the map for a cell's effect, its {level:.0%} interval and its support."
    if layers.shrink > 1:
        words += f" Shown are averages of {layers.shrink} by {layers.shrink} cells; the GeoTIFF holds all."
    return words


def _frame(layers: MapLayers) -> Any:
    west, east, south, north = layers.extent
    aspect = (east - west) / (north - south) * shortening(layers.extent, layers.crs)
    width = int(np.clip(680 * aspect, 420, 900))
    margin = 0.02 * max(east - west, north - south)
    plot = figure(
        frame_width=width,
        frame_height=int(np.clip(width / aspect, 260, 760)),
        x_range=bk.Range1d(west - margin, east + margin),
        y_range=bk.Range1d(south - margin, north + margin),
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll="wheel_zoom",
        background_fill_color="#efefec",
        outline_line_color="#777777",
        toolbar_location="right",
    )
    plot.grid.visible = False
    geographic = layers.crs is not None and layers.crs.is_geographic
    for axis, letter in ((plot.xaxis, "xEW"), (plot.yaxis, "yNS")):
        code = (
            f"return Math.abs(tick).toFixed(2) + '°' + (tick >= 0 ? '{letter[1]}' : '{letter[2]}')"
            if geographic
            else "return (tick / 1000).toLocaleString('en', {maximumFractionDigits: 1}) + ' km'"
        )
        axis.formatter = bk.CustomJSTickFormatter(code=code)
        axis.ticker.desired_num_ticks = 5
        axis.major_label_text_font_size = "12px"
    if not geographic:
        plot.add_layout(
            bk.ScaleBar(
                range=plot.x_range,
                unit="m",
                location="bottom_right",
                background_fill_alpha=0.8,
                border_line_color=None,
            )
        )
    return plot


def _place(extent: tuple[float, float, float, float]) -> dict[str, float]:
    west, east, south, north = extent
    return {"x": west, "y": south, "dw": east - west, "dh": north - south}


def _draw_backdrop(plot: Any, imagery: Any, layers: MapLayers) -> Any:
    if imagery is None:
        return None
    picture, extent = backdrop(imagery, layers.extent, most=700)
    packed = np.ascontiguousarray(picture[::-1]).view(np.uint32)[..., 0]
    return plot.image_rgba(image=[packed], level="underlay", **_place(extent))


def _draw_layers(plot: Any, layers: MapLayers, units: str) -> tuple[dict[str, Any], dict[str, Any]]:
    flipped = {name: [np.ascontiguousarray(values[::-1])] for name, values in layers.values.items()}
    source = bk.ColumnDataSource({**flipped, **{key: [value] for key, value in _place(layers.extent).items()}})
    images, bars = {}, {}
    for name in LAYERS:
        style = layer_style(layers, name, units)
        colours = bk.LinearColorMapper(
            palette=list(style.palette), low=style.low, high=style.high, nan_color=(0, 0, 0, 0)
        )
        images[name] = plot.image(
            image=name, x="x", y="y", dw="dw", dh="dh", source=source, color_mapper=colours, visible=name == "cate"
        )
        bars[name] = bk.ColorBar(
            color_mapper=colours,
            title=style.label,
            visible=name == "cate",
            height=14,
            title_text_font_style="normal",
            title_text_font_size="14px",
            major_label_text_font_size="13px",
        )
        if name in ("prob_positive", "support"):
            bars[name].ticker = bk.FixedTicker(ticks=[0, 0.25, 0.5, 0.75, 1])
        plot.add_layout(bars[name], "below")
    return images, bars


def _draw_hatch(plot: Any, layers: MapLayers) -> Any:
    low = np.nan_to_num(layers.values["support"], nan=1.0) < UNSUPPORTED
    if not low.any():
        return None
    finer = max(1, 800 // max(low.shape))
    drawn = np.kron(low[::-1], np.ones((finer, finer), dtype=np.uint8))
    rows, cols = np.indices(drawn.shape)
    period = max(4, max(drawn.shape) // 90)
    lines = (rows - cols) % period < max(1, period // 5)
    colours = bk.LinearColorMapper(
        palette=["rgba(0,0,0,0)", "rgba(255,255,255,0.35)", "rgba(70,70,70,0.75)"], low=0, high=2
    )
    pattern = (drawn * (1 + lines)).astype(np.uint8)
    return plot.image(image=[pattern], color_mapper=colours, **_place(layers.extent))


def _draw_sites(plot: Any, sites: Any, layers: MapLayers) -> Any:
    if sites is None or not len(sites):
        return None
    geometry = getattr(sites, "geometry", sites)
    geometry = geometry.to_crs(layers.crs) if geometry.crs is not None and layers.crs is not None else geometry
    places = np.unique(np.column_stack([geometry.x, geometry.y]), axis=0)
    return plot.scatter(
        places[:, 0], places[:, 1], size=6, fill_color="white", line_color="#222222", line_width=1.2, fill_alpha=0.9
    )


def _hover(images: dict[str, Any], layers: MapLayers, units: str) -> Any:
    level = float(layers.tags.get("level", "0.9"))
    digits = bk.CustomJSHover(code="return Number.isFinite(value) ? value.toPrecision(3) : 'not mapped'")
    share = bk.CustomJSHover(code="return Number.isFinite(value) ? value.toFixed(2) : 'not mapped'")
    fields = {"@cate": digits, "@sd": digits, "@lower": digits, "@upper": digits}
    fields |= {"@prob_positive": share, "@support": share, "$x": _lonlat(layers)}
    lines = [
        (f"effect{f' ({html.escape(units)})' if units else ''}", "<b>@cate{custom}</b> &nbsp; sd @sd{custom}"),
        (f"{level:.0%} interval", "@lower{custom} to @upper{custom}"),
        ("P(effect &gt; 0)", "@prob_positive{custom}"),
        ("support", "@support{custom}"),
        ("place", "$x{custom}"),
    ]
    rows = "".join(
        f"<tr><td style='color:#555;padding-right:.7em'>{name}</td><td>{field}</td></tr>" for name, field in lines
    )
    return bk.HoverTool(
        renderers=list(images.values()),
        tooltips=f"<table style='font-size:14px'>{rows}</table>",
        formatters=fields,
        point_policy="follow_mouse",
    )


def _lonlat(layers: MapLayers) -> Any:
    """Longitude and latitude under the pointer, interpolated on a small lattice."""
    from pyproj import Transformer

    west, east, south, north = layers.extent
    x, y = np.meshgrid(np.linspace(west, east, LATTICE), np.linspace(south, north, LATTICE))
    lon, lat = Transformer.from_crs(layers.crs, "EPSG:4326", always_xy=True).transform(x, y)
    code = """
    const fx = Math.min(Math.max((special_vars.x - west) / (east - west), 0), 1) * (n - 1)
    const fy = Math.min(Math.max((special_vars.y - south) / (north - south), 0), 1) * (n - 1)
    const i = Math.min(Math.floor(fx), n - 2), j = Math.min(Math.floor(fy), n - 2), u = fx - i, v = fy - j
    const at = (a) => (1 - v) * ((1 - u) * a[j * n + i] + u * a[j * n + i + 1])
                    + v * ((1 - u) * a[(j + 1) * n + i] + u * a[(j + 1) * n + i + 1])
    const a = at(lat), o = at(lon)
    const words = (d, plus, minus) => Math.abs(d).toFixed(4) + '° ' + (d >= 0 ? plus : minus)
    return words(a, 'N', 'S') + ', ' + words(o, 'E', 'W')
    """
    constants = {"west": west, "east": east, "south": south, "north": north, "n": LATTICE}
    return bk.CustomJSHover(args={**constants, "lon": _flat(lon), "lat": _flat(lat)}, code=code)


def _flat(values: NDArray[Any]) -> list[float]:
    return [round(float(v), 7) for v in np.ravel(values)]


def _controls(images: dict[str, Any], bars: dict[str, Any], extras: dict[str, Any]) -> Any:
    names = {"cate": "Effect", "sd": "Uncertainty (sd)", "prob_positive": "P(effect > 0)", "support": "Support"}
    choose = bk.RadioButtonGroup(labels=[names[n] for n in LAYERS], active=0)
    choose.js_on_change(
        "active",
        bk.CustomJS(
            args={"images": [images[n] for n in LAYERS], "bars": [bars[n] for n in LAYERS]},
            code="images.forEach((r, k) => { r.visible = k === this.active; bars[k].visible = k === this.active })",
        ),
    )
    shown = {name: renderer for name, renderer in extras.items() if renderer is not None}
    tick = bk.CheckboxGroup(labels=list(shown), active=list(range(len(shown))), inline=True)
    tick.js_on_change(
        "active",
        bk.CustomJS(
            args={"extras": list(shown.values())},
            code="extras.forEach((r, k) => { r.visible = this.active.includes(k) })",
        ),
    )
    fade = bk.Slider(start=0, end=1, step=0.05, value=0.9, title="Opacity of the layer", width=240)
    for renderer in images.values():
        renderer.glyph.global_alpha = 0.9
        fade.js_link("value", renderer.glyph, "global_alpha")
    return column(row(choose, bk.Div(text="", width=10), fade), tick)
