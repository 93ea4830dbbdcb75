"""The interactive map: one HTML file that needs no network."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import bokeh.models
import bokeh.plotting
import numpy as np
from bokeh.embed import file_html
from bokeh.resources import INLINE
from numpy.typing import NDArray

from causalsat.core.files import whole_file, writing
from causalsat.exceptions import DataError
from causalsat.plots.geography import backdrop, shortening
from causalsat.plots.layers import UNSUPPORTED, MapLayers, layer_style, read_layers
from causalsat.version import __version__

__all__ = ["write_page"]


bk: Any = bokeh.models

STRIPED = "unlike the trial (support < 0.05)"
NAMES = {
    "cate": "Effect",
    "risk": "Risk",
    "sd": "Uncertainty (sd)",
    "prob_positive": "P(effect > 0)",
    "decision": "P(tested)",
    "support": "Support",
}

CHOOSE = """
const last = images.length
images.forEach((r, k) => { r.visible = k === this.active })
bars.forEach((r, k) => { r.visible = k === (this.active === last ? 0 : this.active) })
if (fills !== null) { fills.visible = this.active === last }
if (hatch !== null) { hatch.visible = this.active !== last && tick.active.includes(tick.labels.indexOf(striped)) }
if (window.causalsatMap) { window.causalsatMap.press(this.active) }
"""
TOGGLE = "extras.forEach((r, k) => { r.visible = this.active.includes(k) })"
TAP = "if (window.causalsatMap) { window.causalsatMap.moveTo(cb_obj.x, cb_obj.y) }"

#: Moves a mark over the cells by arrow keys or a click and reads their values out; needs no library but bokeh.
KEYS_SCRIPT = """
(() => {
  const frame = document.getElementById("map-frame"), readout = document.getElementById("readout")
  const about = JSON.parse(document.getElementById("map-about").textContent)
  const start = (doc) => {
    const model = (name) => doc.get_model_by_name(name)
    const cells = model("cells"), mark = model("mark"), plot = model("map"), data = cells.data
    const get = (name) => data[name][0]
    const [rows, cols] = get(about.main).shape
    const west = data.x[0], south = data.y[0], dx = data.dw[0] / cols, dy = data.dh[0] / rows
    const home = [plot.x_range.start, plot.x_range.end, plot.y_range.start, plot.y_range.end]
    let at = [Math.floor(rows / 2), Math.floor(cols / 2)], shown = false
    const lonlat = (x, y) => {
      const n = about.n, clip = (v) => Math.min(Math.max(v, 0), 1) * (n - 1)
      const fx = clip((x - about.west) / (about.east - about.west))
      const fy = clip((y - about.south) / (about.north - about.south))
      const i = Math.min(Math.floor(fx), n - 2), j = Math.min(Math.floor(fy), n - 2), u = fx - i, v = fy - j
      const on = (a) => (1 - v) * ((1 - u) * a[j * n + i] + u * a[j * n + i + 1])
        + v * ((1 - u) * a[(j + 1) * n + i] + u * a[(j + 1) * n + i + 1])
      const words = (d, plus, minus) => Math.abs(d).toFixed(4) + "° " + (d >= 0 ? plus : minus)
      return words(on(about.lat), "N", "S") + ", " + words(on(about.lon), "E", "W")
    }
    const say = () => {
      const [r, c] = at, x = west + (c + 0.5) * dx, y = south + (r + 0.5) * dy
      const value = (name) => get(name)[r * cols + c], p3 = (name) => value(name).toPrecision(3)
      mark.data = {x: [x], y: [y]}
      const words = Number.isFinite(value(about.main))
        ? `${about.what} ${p3(about.main)}${about.units}, sd ${p3("sd")}, ${about.level} interval ${p3("lower")} to `
          + `${p3("upper")}, ${about.fifthWords} ${value(about.fifth).toFixed(2)}, `
          + `support ${value("support").toFixed(2)}`
          + (value("support") < about.unsupported ? " (unlike the trial)" : "")
        : "not mapped"
      readout.textContent = `${lonlat(x, y)}: ${words}`
      shown = true
    }
    const follow = () => {  // keep the mark in view
      const x = west + (at[1] + 0.5) * dx, y = south + (at[0] + 0.5) * dy
      for (const [range, v] of [[plot.x_range, x], [plot.y_range, y]]) {
        const width = range.end - range.start
        if (v < range.start || v > range.end) range.setv({start: v - width / 2, end: v + width / 2})
      }
    }
    const zoom = (factor) => {
      const x = west + (at[1] + 0.5) * dx, y = south + (at[0] + 0.5) * dy
      for (const [range, v] of [[plot.x_range, x], [plot.y_range, y]]) {
        const half = (range.end - range.start) * factor / 2
        range.setv({start: v - half, end: v + half})
      }
    }
    const pressed = (root, out) => {  // bokeh's buttons live in shadow trees and do not say which is pressed
      for (const node of root.querySelectorAll("*")) {
        if (node.shadowRoot) pressed(node.shadowRoot, out)
        if (node.matches("button")) out.push(node)
      }
      return out
    }
    const press = (active) => pressed(document.getElementById("controls"), []).forEach(
      (button, k) => button.setAttribute("aria-pressed", String(k === active)))
    press(0)
    window.causalsatMap = {
      press,
      moveTo: (x, y) => {
        const r = Math.floor((y - south) / dy), c = Math.floor((x - west) / dx)
        if (r >= 0 && r < rows && c >= 0 && c < cols) { at = [r, c]; say() }
      },
    }
    frame.addEventListener("focus", () => { if (!shown) say() })
    frame.addEventListener("keydown", (event) => {
      if (event.target !== frame || event.ctrlKey || event.metaKey || event.altKey) return
      const step = event.shiftKey ? 10 : 1
      const moves = {ArrowUp: [step, 0], ArrowDown: [-step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step]}
      const clip = (v, n) => Math.min(Math.max(v, 0), n - 1)
      if (event.key in moves) {
        at = [clip(at[0] + moves[event.key][0], rows), clip(at[1] + moves[event.key][1], cols)]
        say(); follow()
      } else if (event.key === "+" || event.key === "=") { zoom(0.5) }
      else if (event.key === "-") { zoom(2) }
      else if (event.key === "0") {
        plot.x_range.setv({start: home[0], end: home[1]}); plot.y_range.setv({start: home[2], end: home[3]})
      } else return
      event.preventDefault()
    })
    document.body.dataset.ready = "true"
  }
  const wait = setInterval(() => {
    const doc = window.Bokeh && Bokeh.documents.find((d) => d.get_model_by_name("mark"))
    if (doc) { clearInterval(wait); start(doc) }
  }, 30)
})()
"""


def add_mark(plot: Any) -> None:
    """The mark of the chosen cell, and the click that moves it."""
    source = bk.ColumnDataSource({"x": [], "y": []}, name="mark")
    for width, colour in ((5, "white"), (2, "#222222")):
        plot.scatter(
            "x", "y", source=source, marker="circle_cross", size=18, fill_color=None, line_width=width,
            line_color=colour,
        )  # fmt: skip
    plot.js_on_event("tap", bk.CustomJS(code=TAP))


def make_controls(images: dict[str, Any], bars: dict[str, Any], fills: Any, extras: dict[str, Any]) -> Any:
    """Buttons of the layers, boxes of the overlays, and the slider of the opacity.

    Layers start opaque, since the colours of a layer over a picture are not those of its legend.
    """
    from bokeh.layouts import column, row

    labels = [NAMES[name] for name in images] + ([] if fills is None else ["District means"])
    choose = bk.RadioButtonGroup(labels=labels, active=0, name="layer")
    shown = {name: renderer for name, renderer in extras.items() if renderer is not None}
    tick = bk.CheckboxGroup(labels=list(shown), active=list(range(len(shown))), inline=True, name="overlays")
    tick.js_on_change("active", bk.CustomJS(args={"extras": list(shown.values())}, code=TOGGLE))
    arguments = {"images": list(images.values()), "bars": list(bars.values()), "fills": fills, "tick": tick}
    arguments |= {"hatch": extras.get(STRIPED), "striped": STRIPED}
    choose.js_on_change("active", bk.CustomJS(args=arguments, code=CHOOSE))
    fade = bk.Slider(start=0, end=1, step=0.05, value=1, title="Opacity of the layer", width=240)
    for renderer in images.values():
        fade.js_link("value", renderer.glyph, "global_alpha")
    if fills is not None:
        for part in ("fill_alpha", "hatch_alpha"):
            fade.js_link("value", fills.glyph, part)
    return column(row(choose, bk.Div(text="", width=10), fade), tick, name="controls")


# bokeh's models are made at run time, which type checkers do not follow
figure: Any = bokeh.plotting.figure

LATTICE = 17
FIFTH = {"cate": ("prob_positive", "P(effect > 0)"), "risk": ("decision", "P(tested)")}
NUMBERS = "return Number.isFinite(value) ? value.toPrecision(3) : 'not mapped'"
SHARES = "return Number.isFinite(value) ? value.toFixed(2) : 'not mapped'"


def shown_layers(layers: MapLayers) -> tuple[str, str, str, str]:
    """Names of the four layers that the page shows."""
    return (*layers.panels, "support")


def make_frame(layers: MapLayers) -> Any:
    """An empty plot in the map's coordinates."""
    west, east, south, north = layers.extent
    aspect = (east - west) / (north - south) * shortening(layers.extent, layers.crs)
    width = int(np.clip(680 * aspect, 420, 900))
    margin = 0.02 * max(east - west, north - south)
    plot = figure(
        name="map",
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
    plot.toolbar.logo = None
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
        place = {"location": "bottom_right", "background_fill_alpha": 0.8, "border_line_color": None}
        plot.add_layout(bk.ScaleBar(range=plot.x_range, unit="m", **place))
    return plot


def _place(extent: tuple[float, float, float, float]) -> dict[str, float]:
    west, east, south, north = extent
    return {"x": west, "y": south, "dw": east - west, "dh": north - south}


def draw_backdrop(plot: Any, imagery: Any, layers: MapLayers) -> Any:
    """The imagery in true or first-bands colour; None without imagery."""
    if imagery is None:
        return None
    picture, extent = backdrop(imagery, layers.extent, most=700)
    packed = np.ascontiguousarray(picture[::-1]).view(np.uint32)[..., 0]
    return plot.image_rgba(image=[packed], level="underlay", **_place(extent))


def draw_layers(plot: Any, layers: MapLayers, units: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Images and colour bars of the layers by name; only the first is visible."""
    flipped = {name: [np.ascontiguousarray(values[::-1])] for name, values in layers.values.items()}
    place = {key: [value] for key, value in _place(layers.extent).items()}
    source = bk.ColumnDataSource({**flipped, **place}, name="cells")
    images, bars = {}, {}
    for name in shown_layers(layers):
        style = layer_style(layers, name, units)
        colours = bk.LinearColorMapper(
            palette=list(style.palette), low=style.low, high=style.high, nan_color=(0, 0, 0, 0)
        )
        first = name == layers.main
        beyond = "" if style.extend == "neither" else "; values beyond the ends have the colour of the end"
        images[name] = plot.image(
            image=name, x="x", y="y", dw="dw", dh="dh", source=source, color_mapper=colours, visible=first
        )
        bars[name] = bk.ColorBar(
            color_mapper=colours,
            title=style.label + beyond,
            visible=first,
            height=14,
            title_text_font_style="normal",
            title_text_font_size="14px",
            major_label_text_font_size="13px",
        )
        if (style.low, style.high) == (0.0, 1.0):
            bars[name].ticker = bk.FixedTicker(ticks=[0, 0.25, 0.5, 0.75, 1])
        plot.add_layout(bars[name], "below")
    return images, bars


def draw_hatch(plot: Any, layers: MapLayers) -> Any:
    """Stripes over the cells that are unlike the trial; None where there is none."""
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


def draw_sites(plot: Any, sites: Any, layers: MapLayers) -> Any:
    """Dots at the places of the trial; None without."""
    if sites is None or not len(sites):
        return None
    geometry = getattr(sites, "geometry", sites)
    geometry = geometry.to_crs(layers.crs) if geometry.crs is not None and layers.crs is not None else geometry
    places = np.unique(np.column_stack([geometry.x, geometry.y]), axis=0)
    return plot.scatter(
        places[:, 0], places[:, 1], size=6, fill_color="white", line_color="#222222", line_width=1.2, fill_alpha=0.9
    )


# ---------------------------------------------------------------------- districts
def draw_districts(plot: Any, table: Any, layers: MapLayers, image: Any) -> tuple[Any, Any]:
    """Districts filled by their mean effect (hidden at first) in the colours of the cells, and their borders."""
    if table is None:
        return None, None
    source = bk.ColumnDataSource(_district_data(table, layers), name="districts")
    options: dict[str, Any] = {"xs": "xs", "ys": "ys", "source": source}
    colours = image.glyph.color_mapper
    shades = bk.LinearColorMapper(palette=colours.palette, low=colours.low, high=colours.high, nan_color="#dddddd")
    fills = plot.multi_polygons(
        **options, fill_color={"field": "mean", "transform": shades}, line_color="#222222", visible=False,
        hatch_pattern="pattern", hatch_color="#555555", hatch_weight=1.2, hatch_scale=9,
    )  # fmt: skip
    borders = plot.multi_polygons(**options, fill_color=None, line_color="#222222", line_width=1.4)
    return fills, borders


def _district_data(table: Any, layers: MapLayers) -> dict[str, Any]:
    """Rings, names and numbers of the districts, the rings thinned to half a cell of the page."""
    if layers.main != "cate":
        raise DataError("districts of effects on a map of risk", expected="a map of effects")
    columns = ("mean", "sd", "lower", "upper", "prob_positive", "support")
    missing = sorted({*columns} - set(table.columns))
    if missing:
        raise DataError(f"districts without {', '.join(missing)}", expected="what district_effects gives")
    west, east, south, north = layers.extent
    shapes = table.geometry if layers.crs is None or table.crs is None else table.geometry.to_crs(layers.crs)
    thinned = shapes.simplify(max(east - west, north - south) / 2000)
    rings = [_rings(shape) for shape in thinned]
    unsure = ((table["lower"] < 0) & (table["upper"] > 0)).to_numpy()
    return {
        "xs": [[[ring[:, 0].tolist() for ring in polygon] for polygon in shape] for shape in rings],
        "ys": [[[ring[:, 1].tolist() for ring in polygon] for polygon in shape] for shape in rings],
        "district": [str(name) for name in table.index],
        "pattern": ["right_diagonal_line" if flag else "blank" for flag in unsure],
        **{name: table[name].to_numpy(dtype=float) for name in columns},
    }


def _rings(shape: Any) -> list[list[NDArray[Any]]]:
    """Outer ring and holes of each polygon of a shape."""
    polygons = [part for part in getattr(shape, "geoms", [shape]) if part.geom_type == "Polygon"]
    return [[np.asarray(ring.coords)[:, :2] for ring in (p.exterior, *p.interiors)] for p in polygons]


# ---------------------------------------------------------------------- the pointer
def _table(lines: list[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><td style='color:#555;padding-right:.7em'>{name}</td><td>{field}</td></tr>" for name, field in lines
    )
    return f"<table style='font-size:14px'>{rows}</table>"


def hover_cells(images: dict[str, Any], layers: MapLayers, units: str) -> Any:
    """Effect or risk, its interval, the fifth band and the support of the cell under the pointer."""
    level = float(layers.tags.get("level", "0.9"))
    main, (fifth, label) = layers.main, FIFTH[layers.main]
    digits, share = bk.CustomJSHover(code=NUMBERS), bk.CustomJSHover(code=SHARES)
    fields = {f"@{main}": digits, "@sd": digits, "@lower": digits, "@upper": digits}
    fields |= {f"@{fifth}": share, "@support": share, "$x": lonlat_words(layers)}
    unit = f" ({html.escape(units)})" if units else ""
    lines = [
        (f"{'effect' if main == 'cate' else 'risk'}{unit}", f"<b>@{main}{{custom}}</b> &nbsp; sd @sd{{custom}}"),
        (_interval(level, layers), "@lower{custom} to @upper{custom}"),
        (html.escape(label), f"@{fifth}{{custom}}"),
        ("support", "@support{custom}"),
        ("place", "$x{custom}"),
    ]
    return bk.HoverTool(
        renderers=list(images.values()), tooltips=_table(lines), formatters=fields, point_policy="follow_mouse"
    )


def _interval(level: float, layers: MapLayers) -> str:
    """An interval by its level and, where it is not of the mean effect, by what it is of."""
    return f"{level:.0%} interval" + (" (place itself)" if layers.tags.get("scope") == "place" else "")


def hover_districts(fills: Any, level: float, units: str) -> Any:
    """Mean effect of the district under the pointer, with its interval."""
    digits, share = bk.CustomJSHover(code=NUMBERS), bk.CustomJSHover(code=SHARES)
    fields = {"@mean": digits, "@sd": digits, "@lower": digits, "@upper": digits}
    unit = f" ({html.escape(units)})" if units else ""
    lines = [
        ("district", "<b>@district</b>"),
        (f"mean effect{unit}", "<b>@mean{custom}</b> &nbsp; sd @sd{custom}"),
        (f"{level:.0%} interval", "@lower{custom} to @upper{custom}"),
        ("P(effect &gt; 0)", "@prob_positive{custom}"),
        ("support", "@support{custom}"),
    ]
    fields |= {"@prob_positive": share, "@support": share}
    return bk.HoverTool(renderers=[fills], tooltips=_table(lines), formatters=fields, point_policy="follow_mouse")


def lonlat_words(layers: MapLayers) -> Any:
    """Longitude and latitude under the pointer, interpolated on a small lattice."""
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
    return bk.CustomJSHover(args=lonlat_lattice(layers), code=code)


def lonlat_lattice(layers: MapLayers) -> dict[str, Any]:
    """Edges of the map, and longitudes and latitudes on a lattice of ``n`` by ``n`` points over it."""
    from pyproj import Transformer

    west, east, south, north = layers.extent
    x, y = np.meshgrid(np.linspace(west, east, LATTICE), np.linspace(south, north, LATTICE))
    lon, lat = Transformer.from_crs(layers.crs, "EPSG:4326", always_xy=True).transform(x, y)
    edges = {"west": west, "east": east, "south": south, "north": north, "n": LATTICE}
    return {**edges, "lon": _flat(lon), "lat": _flat(lat)}


def _flat(values: NDArray[Any]) -> list[float]:
    return [round(float(v), 7) for v in np.ravel(values)]


MAX_CELLS = 400
MAX_DISTRICTS = 2000

TEMPLATE = """
{% block title %}{{ heading }}{% endblock %}
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{{ software }}">
<meta name="description" content="{{ description }}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';
 style-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<style>
  main { font: 16px/1.45 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: #222;
         margin: 0 auto; max-width: 64rem; padding: 1.2rem 1rem; }
  h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
  h2 { font-size: 1.1rem; margin: 1.2rem 0 .3rem; }
  .note { color: #a33f00; font-weight: 600; margin: .2rem 0; }
  .about { color: #444; font-size: .95rem; margin: .3rem 0 1rem; }
  .skip { position: absolute; left: -99rem; }
  .skip:focus { position: static; }
  #map-frame { display: inline-block; padding: 3px; }
  #map-frame:focus { outline: 3px solid #0072b2; }
  #readout { min-height: 1.5em; margin: .3rem 0; font-variant-numeric: tabular-nums; }
  dl.legend { display: grid; grid-template-columns: max-content 1fr; gap: .25rem .8rem; margin: .3rem 0; }
  dl.legend dt { font-weight: 600; } dl.legend dd { margin: 0; }
  .swatch { display: inline-block; width: 1.6em; height: 1em; border: 1px solid #777; vertical-align: -.15em;
            margin-right: .5em; }
  .hatch { background: repeating-linear-gradient(135deg, #fff 0 4px, #464646 4px 5.5px); }
  .dot { border: 1.5px solid #222; border-radius: 50%; width: .7em; height: .7em; margin-right: 1.4em;
         background: #fff; }
  .border { border: 2px solid #222; background: none; }
  .blank { background: #efefec; }
  table.districts { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
  table.districts th, table.districts td { padding: .15rem .7rem .15rem 0; text-align: right; }
  table.districts th:first-child { text-align: left; font-weight: 600; }
  table.districts thead th { border-bottom: 1px solid #777; }
</style>
{% endblock %}
{% block contents %}
<main aria-label="{{ label }}">
<h1>{{ heading }}</h1>
{% if note %}<p class="note">{{ note }}</p>{% endif %}
<p class="about">{{ description }}</p>
<noscript><p class="note">This map needs JavaScript; its values are also in the GeoTIFF.</p></noscript>
<a class="skip" href="#how-to-read">Skip the map</a>
<div id="controls" role="group" aria-label="Layers and overlays">{{ embed(roots.controls) }}</div>
<div id="map-frame" tabindex="0" role="application" aria-roledescription="map" aria-label="{{ label }}"
 aria-describedby="keys">{{ embed(roots.map) }}</div>
<p id="readout" role="status" aria-live="polite" aria-atomic="true"></p>
<p class="about" id="keys">Click a cell to read its values here. By keyboard: Tab to the map, arrow keys for the next
 cell (with Shift ten cells), + and - to zoom, 0 for the whole map.</p>
<h2 id="how-to-read">How to read this map</h2>
<dl class="legend">{% for name, words, swatch in legend %}
<dt>{% if swatch %}<span class="swatch {{ swatch }}"></span>{% endif %}{{ name }}</dt><dd>{{ words }}</dd>{% endfor %}
</dl>
{% if districts %}<details><summary>Districts as a table ({{ districts | length }})</summary>
<table class="districts"><thead><tr>{% for name in district_head %}<th scope="col">{{ name }}</th>{% endfor %}</tr>
</thead><tbody>{% for line in districts %}
<tr><th scope="row">{{ line[0] }}</th>{% for value in line[1:] %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></details>{% endif %}
</main>
<script type="application/json" id="map-about">{{ about_json }}</script>
<script>{{ keys_script }}</script>
{% endblock %}
"""


def write_page(
    result: Any,
    path: Path,
    imagery: Any = None,
    *,
    sites: Any = None,
    districts: Any = None,
    units: str = "",
    title: str = "",
    note: str = "",
) -> Path:
    """Write the interactive page of a map of effects or of risk.

    Layers (effect or risk, sd, P(effect > 0) or P(tested), support, district means) over a picture of the imagery;
    the pointer, a click or the arrow keys show a cell's values; bokeh's code is within the file, which asks nothing
    of the network. At most 400 by 400 cells are shown: larger maps are averaged, which the page says.

    Parameters
    ----------
    result : MapResult or path
        What map_effects or map_risk returned, or its GeoTIFF.
    path : Path
        The file to write, atomically.
    imagery : Imagery, optional
        Backdrop.
    sites : GeoDataFrame, optional
        Places of the trial.
    districts : DistrictEffects or its table, optional
        What :func:`causalsat.district_effects` gave: a layer of mean effects, their borders, and a table.
    units, title, note : str
        Units of the effect, title, and a line beneath it; by default those in the file.

    Raises
    ------
    DataError
        If the raster is not a map of this package, or the districts are not those of district_effects.
    OutputError
        If the file cannot be written.
    """
    layers = read_layers(getattr(result, "path", result), MAX_CELLS)
    units, title, note = (
        given or layers.tags.get(key, "") for key, given in (("units", units), ("title", title), ("note", note))
    )
    table = getattr(districts, "table", districts)
    title = title or ("Map of treatment effects" if layers.main == "cate" else "Map of risk")
    plot, buttons, swatches = _draw(layers, imagery, sites, table, units)
    labels = {
        "software": f"causalsat {__version__}",
        "heading": html.escape(title),
        "note": html.escape(note),
        "description": html.escape(_about(layers, units)),
        "label": f"Interactive map of {'treatment effects' if layers.main == 'cate' else 'risk'}",
        "legend": _legend(layers, swatches),
        "districts": _district_rows(table),
        "district_head": ("District", "Mean effect", "sd", "Lower", "Upper", "P(effect &gt; 0)", "Support"),
        "about_json": json.dumps(_readout_words(layers, units)).replace("<", "\\u003c"),
        "keys_script": KEYS_SCRIPT,
    }
    text = file_html([buttons, plot], INLINE, title=html.escape(title), template=TEMPLATE, template_variables=labels)
    path = Path(path)
    with writing(path), whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _draw(layers: MapLayers, imagery: Any, sites: Any, table: Any, units: str) -> tuple[Any, Any, set[str]]:
    """The plot, its controls, and which overlays there are."""
    plot = make_frame(layers)
    shades = draw_backdrop(plot, imagery, layers)
    images, bars = draw_layers(plot, layers, units)
    fills, borders = draw_districts(plot, table, layers, images[layers.main])
    hatch = draw_hatch(plot, layers)
    dots = draw_sites(plot, sites, layers)
    add_mark(plot)
    plot.add_tools(hover_cells(images, layers, units))
    if fills is not None:
        plot.add_tools(hover_districts(fills, float(layers.tags.get("level", "0.9")), units))
    names = {"imagery": shades, STRIPED: hatch, "trial sites": dots, "borders": borders}
    kinds = {"hatch": hatch, "dot": dots, "border": borders}
    buttons = make_controls(images, bars, fills, names)
    return plot, buttons, {key for key, renderer in kinds.items() if renderer is not None}


def _about(layers: MapLayers, units: str) -> str:
    values, support = layers.values[layers.main], layers.values["support"]
    mapped = np.isfinite(values)
    level = float(layers.tags.get("level", "0.9"))
    what = "Posterior effect of treatment" if layers.main == "cate" else "Posterior risk"
    text = f"{what} in {int(mapped.sum()):,} cells"
    if mapped.any():
        low, middle, high = np.percentile(values[mapped], [5, 50, 95])
        text += f": median {middle:.3g}{' ' + units if units else ''}, 5th to 95th percentile {low:.3g} to {high:.3g}"
        outside = float((support[mapped] < UNSUPPORTED).mean())
        text += f". {outside:.0%} of the cells are unlike the places of the trial (hatched)"
    name = "effect" if layers.main == "cate" else "risk"
    text += f". Move the pointer over the map for a cell's {name}, its {_interval(level, layers)} and its support."
    if layers.shrink > 1:
        text += f" Shown are averages of {layers.shrink} by {layers.shrink} cells; the GeoTIFF holds all."
    return text


def _legend(layers: MapLayers, swatches: set[str]) -> list[tuple[str, str, str]]:
    """Name, meaning and swatch of each layer and mark."""
    effect = layers.main == "cate"
    lines = [
        ("Effect", "posterior mean of what treatment changes, against no treatment", "")
        if effect
        else ("Risk", "posterior mean of the probability of the outcome", ""),
        (
            "Uncertainty (sd)",
            "posterior standard deviation: how far the "
            + ("effect at the place itself" if layers.tags.get("scope") == "place" else "value")
            + " may be from the one shown",
            "",
        ),
        ("P(effect &gt; 0)", "posterior probability that treatment raises the outcome here", "")
        if effect
        else ("P(tested)", "probability that somebody like this is tested", ""),
        ("Support", "how much the place is like those of the trial: the share of trial units farther out", ""),
    ]
    if "hatch" in swatches:
        lines.append(("Hatched", "unlike the places of the trial (support below 0.05): an extrapolation", "hatch"))
    if "dot" in swatches:
        lines.append(("Dot", "a place of the trial", "dot"))
    if "border" in swatches:
        lines.append(
            ("Border", "a district; among district means, hatched where the interval includes zero", "border")
        )
    return [*lines, ("No colour", "not mapped: outside the region, or no valid imagery", "blank")]


def _readout_words(layers: MapLayers, units: str) -> dict[str, Any]:
    fifth, label = FIFTH[layers.main]
    return {
        "main": layers.main,
        "what": "effect" if layers.main == "cate" else "risk",
        "units": f" {units}" if units else "",
        "level": f"{float(layers.tags.get('level', '0.9')):.0%}",
        "fifth": fifth,
        "fifthWords": label,
        "unsupported": UNSUPPORTED,
        **lonlat_lattice(layers),
    }


def _district_rows(table: Any) -> list[list[str]]:
    if table is None:
        return []
    rows = []
    for name, line in zip(table.index[:MAX_DISTRICTS], table.itertuples(), strict=False):
        values = [f"{v:.3g}" for v in (line.mean, line.sd, line.lower, line.upper)]
        values += [f"{v:.2f}" for v in (line.prob_positive, line.support)]
        rows.append([html.escape(str(name)), *("no value" if v == "nan" else v for v in values)])
    return rows
