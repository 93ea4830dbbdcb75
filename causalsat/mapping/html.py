"""The interactive map: one HTML file that needs no network."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.embed import file_html
from bokeh.resources import INLINE

from causalsat._disk import whole_file, writing
from causalsat.mapping import _page_controls as controls
from causalsat.mapping import _page_plot as drawing
from causalsat.plots._layers import UNSUPPORTED, MapLayers, read_layers

__all__ = ["write_page"]

MOST_CELLS = 400
MOST_DISTRICTS = 2000

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
        The file to write; it appears whole or not at all.
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
    layers = read_layers(getattr(result, "path", result), MOST_CELLS)
    units, title, note = (
        given or layers.tags.get(key, "") for key, given in (("units", units), ("title", title), ("note", note))
    )
    table = getattr(districts, "table", districts)
    title = title or ("Map of treatment effects" if layers.main == "cate" else "Map of risk")
    plot, buttons, swatches = _draw(layers, imagery, sites, table, units)
    words = {
        "heading": html.escape(title),
        "note": html.escape(note),
        "description": html.escape(_about(layers, units)),
        "label": f"Interactive map of {'treatment effects' if layers.main == 'cate' else 'risk'}",
        "legend": _legend(layers, swatches),
        "districts": _district_rows(table),
        "district_head": ("District", "Mean effect", "sd", "Lower", "Upper", "P(effect &gt; 0)", "Support"),
        "about_json": json.dumps(_readout_words(layers, units)).replace("<", "\\u003c"),
        "keys_script": controls.KEYS_SCRIPT,
    }
    text = file_html([buttons, plot], INLINE, title=html.escape(title), template=TEMPLATE, template_variables=words)
    path = Path(path)
    with writing(path), whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _draw(layers: MapLayers, imagery: Any, sites: Any, table: Any, units: str) -> tuple[Any, Any, set[str]]:
    """The plot, its controls, and which overlays there are."""
    plot = drawing.make_frame(layers)
    shades = drawing.draw_backdrop(plot, imagery, layers)
    images, bars = drawing.draw_layers(plot, layers, units)
    fills, borders = drawing.draw_districts(plot, table, layers, images[layers.main])
    hatch = drawing.draw_hatch(plot, layers)
    dots = drawing.draw_sites(plot, sites, layers)
    controls.add_mark(plot)
    plot.add_tools(drawing.hover_cells(images, layers, units))
    if fills is not None:
        plot.add_tools(drawing.hover_districts(fills, float(layers.tags.get("level", "0.9")), units))
    names = {"imagery": shades, controls.STRIPED: hatch, "trial sites": dots, "borders": borders}
    kinds = {"hatch": hatch, "dot": dots, "border": borders}
    buttons = controls.make_controls(images, bars, fills, names)
    return plot, buttons, {key for key, renderer in kinds.items() if renderer is not None}


def _about(layers: MapLayers, units: str) -> str:
    values, support = layers.values[layers.main], layers.values["support"]
    mapped = np.isfinite(values)
    level = float(layers.tags.get("level", "0.9"))
    what = "Posterior effect of treatment" if layers.main == "cate" else "Posterior risk"
    words = f"{what} in {int(mapped.sum()):,} cells"
    if mapped.any():
        low, middle, high = np.percentile(values[mapped], [5, 50, 95])
        words += (
            f": median {middle:.3g}{' ' + units if units else ''}, 5th to 95th percentile {low:.3g} to {high:.3g}"
        )
        outside = float((support[mapped] < UNSUPPORTED).mean())
        words += f". {outside:.0%} of the cells are unlike the places of the trial (hatched)"
    name = "effect" if layers.main == "cate" else "risk"
    words += f". Move the pointer over the map for a cell's {name}, its {level:.0%} interval and its support."
    if layers.shrink > 1:
        words += f" Shown are averages of {layers.shrink} by {layers.shrink} cells; the GeoTIFF holds all."
    return words


def _legend(layers: MapLayers, swatches: set[str]) -> list[tuple[str, str, str]]:
    """Name, meaning and swatch of each layer and mark."""
    effect = layers.main == "cate"
    lines = [
        ("Effect", "posterior mean of what treatment changes, against no treatment", "")
        if effect
        else ("Risk", "posterior mean of the probability of the outcome", ""),
        ("Uncertainty (sd)", "posterior standard deviation: how far the value may be from the one shown", ""),
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
        lines.append(("Border", "a district; among district means, hatched where the interval holds zero", "border"))
    return [*lines, ("No colour", "not mapped: outside the region, or no valid imagery", "blank")]


def _readout_words(layers: MapLayers, units: str) -> dict[str, Any]:
    fifth, words = drawing.FIFTH[layers.main]
    return {
        "main": layers.main,
        "what": "effect" if layers.main == "cate" else "risk",
        "units": f" {units}" if units else "",
        "level": f"{float(layers.tags.get('level', '0.9')):.0%}",
        "fifth": fifth,
        "fifthWords": words,
        "unsupported": UNSUPPORTED,
        **drawing.lonlat_lattice(layers),
    }


def _district_rows(table: Any) -> list[list[str]]:
    if table is None:
        return []
    rows = []
    for name, line in zip(table.index[:MOST_DISTRICTS], table.itertuples(), strict=False):
        values = [f"{v:.3g}" for v in (line.mean, line.sd, line.lower, line.upper)]
        values += [f"{v:.2f}" for v in (line.prob_positive, line.support)]
        rows.append([html.escape(str(name)), *("no value" if v == "nan" else v for v in values)])
    return rows
