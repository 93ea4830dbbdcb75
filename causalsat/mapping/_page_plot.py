"""What the interactive map draws: frame, layers, backdrop, hatching, sites, districts, the words at the pointer."""

from __future__ import annotations

import html
from typing import Any

import bokeh.models
import bokeh.plotting
import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError
from causalsat.plots._geography import backdrop, shortening
from causalsat.plots._layers import UNSUPPORTED, MapLayers, layer_style

# bokeh's models are made at run time, which type checkers do not follow
bk: Any = bokeh.models
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
    main, (fifth, words) = layers.main, FIFTH[layers.main]
    digits, share = bk.CustomJSHover(code=NUMBERS), bk.CustomJSHover(code=SHARES)
    fields = {f"@{main}": digits, "@sd": digits, "@lower": digits, "@upper": digits}
    fields |= {f"@{fifth}": share, "@support": share, "$x": lonlat_words(layers)}
    unit = f" ({html.escape(units)})" if units else ""
    lines = [
        (f"{'effect' if main == 'cate' else 'risk'}{unit}", f"<b>@{main}{{custom}}</b> &nbsp; sd @sd{{custom}}"),
        (f"{level:.0%} interval", "@lower{custom} to @upper{custom}"),
        (html.escape(words), f"@{fifth}{{custom}}"),
        ("support", "@support{custom}"),
        ("place", "$x{custom}"),
    ]
    return bk.HoverTool(
        renderers=list(images.values()), tooltips=_table(lines), formatters=fields, point_policy="follow_mouse"
    )


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
