"""The page of a plan: a slider for the budget, whom it treats, what it spends and brings; needs no network."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bokeh.models
import bokeh.plotting
import numpy as np
from bokeh.embed import file_html
from bokeh.resources import INLINE
from numpy.typing import NDArray

from causalsat.core.files import whole_file, writing
from causalsat.decisions.ranking import worth_it
from causalsat.mapping.page import draw_backdrop, draw_hatch, make_frame
from causalsat.plots.geography import padded
from causalsat.plots.layers import MapLayers, read_layers

__all__ = ["write_plan_page"]

FloatArray = NDArray[np.float64]
bk: Any = bokeh.models
figure: Any = bokeh.plotting.figure

MAX_CELLS = 400
STEPS = 200
TREATED, PARTLY, PASSED, INK, GREY = "#0072B2", "#E69F00", "#f3e9c9", "#222222", "#777777"
NEVER = -1e300  # ratio of a cell that no budget treats
Z = 1.959964

SCRIPT = """
(() => {
  const about = JSON.parse(document.getElementById("plan-about").textContent)
  const slider = document.getElementById("budget"), exact = document.getElementById("budget-exact")
  const words = document.getElementById("readout")
  const money = (v) => v.toLocaleString("en", {maximumSignificantDigits: 6}) + about.currency
  const number = (v) => Number(v.toPrecision(3)).toLocaleString("en", {maximumSignificantDigits: 3})
  const at = (name, x) => {  // on the curve, level beyond its end
    const xs = about.curve.budget, ys = about.curve[name]
    if (x >= xs[xs.length - 1]) return ys[ys.length - 1]
    const k = Math.max(1, xs.findIndex((v) => v > x))
    if (ys[k] === null || ys[k - 1] === null) return null
    return ys[k - 1] + (ys[k] - ys[k - 1]) * (x - xs[k - 1]) / (xs[k] - xs[k - 1])
  }
  const parts = (b) => about.paid.map((paid, i) => {
    if (paid === null) return 0
    if (about.first[i]) return b >= paid * (1 - 1e-12) ? 1 : 0
    const part = (b - (paid - about.cost[i])) / about.cost[i]
    return part > 1 - 1e-9 ? 1 : part < 1e-9 ? 0 : part
  })
  const cutoff = (part) => {
    let least = Infinity, all = true
    part.forEach((v, i) => {
      if (about.paid[i] === null || about.first[i]) return
      if (v > 0) least = Math.min(least, about.ratio[i])
      if (v < 1) all = false
    })
    return all ? about.never / 2 : Math.min(least, -about.never)
  }
  const range = (name, b) => {
    const low = at(name + "Lower", b), high = at(name + "Upper", b)
    if (low === null || high === null) return ["", false]
    return [` (95 % interval ${number(low)} to ${number(high)})`, low <= 0 && high >= 0]
  }
  const say = (b, part) => {
    let treated = 0, people = 0, spent = 0
    part.forEach((v, i) => { treated += v > 0; people += v * about.people[i]; spent += v * about.cost[i] })
    const [gain, none] = range("gain", b), [over, nothing] = range("over", b)
    const heads = about.counted ? `, ${Math.round(people).toLocaleString("en")} people,` : ""
    words.textContent = `A budget of ${money(b)} treats ${treated.toLocaleString("en")} of `
      + `${part.length.toLocaleString("en")} places${heads} and spends ${money(spent)}. By the trial that brings `
      + `${number(at("gain", b))}${about.units} a head${gain} over treating nobody`
      + (none ? ", which includes no gain" : "") + `, and ${number(at("over", b))}${about.units}${over} over the `
      + "same money spent at random" + (nothing ? ", which includes no gain." : ".")
  }
  const start = (doc) => {
    const model = (name) => doc.get_model_by_name(name)
    const places = model("places"), line = model("budget-line"), colours = model("cell-colours")
    const show = (b) => {
      const part = parts(b)
      places.data = {
        ...places.data, treat: part,
        colour: part.map((v) => v === 1 ? about.colours[0] : v > 0 ? about.colours[1] : "#ffffff"),
        size: part.map((v) => v > 0 ? about.sizes[0] : about.sizes[1]),
      }
      line.location = b
      if (colours) {
        const c = cutoff(part), near = Math.max(Math.abs(c) * 1e-9, 1e-300)
        colours.setv({low: c - 2 * near, high: c})
      }
      say(b, part)
      slider.setAttribute("aria-valuetext", money(b))
    }
    slider.addEventListener("input", () => { exact.value = slider.value; show(Number(slider.value)) })
    exact.addEventListener("change", () => {
      const b = Math.min(Math.max(Number(exact.value) || 0, about.least), about.most)
      exact.value = b; slider.value = b; show(b)
    })
    const box = document.getElementById("cells-shown")
    if (box) box.addEventListener("change", () => { model("cells").visible = box.checked })
    show(about.budget)
    document.body.dataset.ready = "true"
  }
  const wait = setInterval(() => {
    const doc = window.Bokeh && Bokeh.documents.find((d) => d.get_model_by_name("places"))
    if (doc) { clearInterval(wait); start(doc) }
  }, 30)
})()
"""

TEMPLATE = """
{% block title %}{{ heading }}{% endblock %}
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';
 style-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<style>
  main { font: 16px/1.45 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: #222;
         margin: 0 auto; max-width: 64rem; padding: 1.2rem 1rem; }
  h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
  h2 { font-size: 1.1rem; margin: 1.2rem 0 .3rem; }
  .about { color: #444; font-size: .95rem; margin: .3rem 0 .6rem; }
  .choose { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem 1rem; margin: .8rem 0 .2rem; }
  .choose label { font-weight: 600; }
  #budget { flex: 1 1 22rem; accent-color: #0072b2; height: 1.6rem; }
  #budget-exact { width: 9rem; font: inherit; font-variant-numeric: tabular-nums; }
  #readout { min-height: 4.4em; margin: .3rem 0 .6rem; font-variant-numeric: tabular-nums; }
  .swatch { display: inline-block; width: .8em; height: .8em; border: 1px solid #222; border-radius: 50%;
            margin: 0 .35em 0 .9em; }
  .hatch { background: repeating-linear-gradient(135deg, #fff 0 4px, #464646 4px 5.5px); }
  .square { border-radius: 0; border-color: #777; width: 1.2em; }
</style>
{% endblock %}
{% block contents %}
<main>
<h1>{{ heading }}</h1>
<div class="choose"><label for="budget">Budget{{ currency }}</label>
<input id="budget" type="range" min="{{ least }}" max="{{ most }}" step="any" value="{{ budget }}" list="planned">
<input id="budget-exact" type="number" min="{{ least }}" max="{{ most }}" step="any" value="{{ budget }}"
 aria-label="Budget as a number">
<datalist id="planned"><option value="{{ budget }}" label="plan"></option></datalist></div>
<p id="readout" role="status" aria-live="polite" aria-atomic="true">{{ paragraph }}</p>
<p class="about"><span class="swatch" style="background:{{ colours[0] }};margin-left:0"></span>treated
<span class="swatch" style="background:{{ colours[1] }}"></span>treated in part
<span class="swatch" style="background:#fff"></span>not treated{% if cells %}
<span class="swatch square" style="background:{{ colours[0] }};opacity:.55"></span>the rule would treat a place here
<span class="swatch" style="border:0">&times;</span>place of the trial
{% if hatched %}<span class="swatch square hatch"></span>unlike the places of the trial{% endif %}
<label>&nbsp; <input id="cells-shown" type="checkbox" checked> show the map of the rule</label>{% endif %}</p>
<div>{{ embed(roots.map) }}</div>
<h2>What a budget brings</h2>
<div>{{ embed(roots.curve) }}</div>
<h2>The plan</h2>
<p>{{ paragraph }}</p>
{% for line in notes %}<p class="about">{{ line }}</p>{% endfor %}
<noscript><p>The slider needs JavaScript; <code>targeting.csv</code> has for each place the smallest budget that
treats it (<code>paid_from</code>).</p></noscript>
</main>
<script type="application/json" id="plan-about">{{ about_json }}</script>
<script>{{ script }}</script>
{% endblock %}
"""


def write_plan_page(
    plan: Any,
    path: Path,
    *,
    effects: Path | None = None,
    cells: FloatArray | None = None,
    words: Sequence[str] = (),
) -> Path:
    """Write the page of a plan: whom any budget treats, what it spends, and what that brings by the trial.

    Parameters
    ----------
    plan : TargetingPlan
        With places.
    path : Path
        The file to write, atomically; it asks nothing of the network.
    effects : Path, optional
        A map of effects, whose cells show where the rule would treat a place.
    cells : ndarray of shape (y, x), optional
        Cost a head of those cells, NaN where unknown.
    words : sequence of str
        Paragraphs beneath.

    Returns
    -------
    Path
    """
    layers = _frame(plan) if effects is None else read_layers(effects, MAX_CELLS)
    plot = make_frame(layers)
    imagery = getattr(plan.source, "imagery", None)
    draw_backdrop(plot, imagery if effects is not None else None, layers)
    hatched = False
    if effects is not None and cells is not None:
        _draw_cells(plot, layers, cells, plan.source.worth)
        hatched = draw_hatch(plot, layers) is not None
        _draw_sites(plot, plan.source.sites, layers)
    sizes = (9, 6) if len(plan.table) <= 500 else (6, 4)
    _draw_places(plot, plan, layers, sizes)
    about = _about(plan, sizes)
    notes = [*_notes(plan, layers, effects is not None), *words]
    labels = {
        "heading": "Whom to treat",
        "paragraph": html.escape(plan.paragraph()),
        "notes": [html.escape(line) for line in notes],
        "currency": html.escape(f" ({plan.currency})") if plan.currency else "",
        "least": about["least"],
        "most": about["most"],
        "budget": about["budget"],
        "colours": (TREATED, PARTLY),
        "cells": effects is not None,
        "hatched": hatched,
        "about_json": json.dumps(about, allow_nan=False).replace("<", "\\u003c"),
        "script": SCRIPT,
    }
    models = [plot, _draw_curve(plan, about)]
    text = file_html(models, INLINE, title="Whom to treat", template=TEMPLATE, template_variables=labels)
    with writing(path), whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _frame(plan: Any) -> MapLayers:
    """The extent of the places, without a map."""
    points = plan.geometry.representative_point()
    west, east, south, north = padded(np.column_stack([points.x, points.y]), 0.05)
    return MapLayers({}, (west, east, south, north), plan.geometry.crs, {}, 1)


# ---------------------------------------------------------------------- numbers
def _about(plan: Any, sizes: tuple[int, int]) -> dict[str, Any]:
    """What the slider computes with."""
    table = plan.table
    paid = table["paid_from"].to_numpy()
    known = np.isfinite(paid)
    first = known & (paid == paid[known].min()) if known.any() else known
    first &= first.sum() > 1  # ranked places are paid one after the other, quotas together
    people = table["people"].to_numpy() if "people" in table else np.ones(len(table))
    curve = plan.gain_curve.to_dataframe()
    ends = (paid[known].max(initial=0.0), float(curve["spend"].iloc[-1]) * plan.heads, plan.budget)
    over, half = curve["over_random"], Z * curve["over_random_se"]
    return {
        "budget": float(plan.budget),
        "least": float(paid[first].min()) if first.any() else 0.0,
        "most": float(max(ends)),
        "paid": _numbers(paid),
        "first": first.tolist(),
        "cost": _numbers(table["cost"]),
        "people": _numbers(people),
        "ratio": _numbers(table["effect"] * people / table["cost"]),
        "counted": "people" in table,
        "never": NEVER,
        "units": f" {plan.units}" if plan.units else "",
        "currency": f" {plan.currency}" if plan.currency else "",
        "colours": [TREATED, PARTLY],
        "sizes": list(sizes),
        "curve": {
            "budget": _numbers(curve["spend"] * plan.heads),
            "gain": _numbers(curve["gain"]),
            "gainLower": _numbers(curve["lower"]),
            "gainUpper": _numbers(curve["upper"]),
            "over": _numbers(over),
            "overLower": _numbers(over - half),
            "overUpper": _numbers(over + half),
        },
    }


def _numbers(values: Any) -> list[float | None]:
    """Numbers for JSON, None where they are missing."""
    return [float(v) if np.isfinite(v) else None for v in np.asarray(values, dtype=float)]


def _notes(plan: Any, layers: MapLayers, mapped: bool) -> list[str]:
    notes = []
    if plan.tree is not None:
        notes.append("The slider keeps the rule of the plan's budget; a larger budget may deserve another rule.")
    if plan.constrained:
        notes.append("Gains of other budgets leave the shares of the districts out.")
    if mapped and layers.shrink > 1:
        k = layers.shrink
        notes.append(f"The map shows averages of {k} by {k} cells; policy.tif holds all.")
    return notes


# ---------------------------------------------------------------------- drawings
def _draw_cells(plot: Any, layers: MapLayers, cells: FloatArray, worth: float | None) -> None:
    """Where the rule would treat a place: cells with at least the cutoff's effect for their cost."""
    effect = layers.values["cate"].astype(float)
    cost = shrunk(cells, effect.shape)
    with np.errstate(invalid="ignore"):
        ratio = np.where(worth_it(effect, cost, worth), effect / cost, NEVER)
    ratio[~np.isfinite(effect) | ~np.isfinite(cost)] = np.nan
    west, east, south, north = layers.extent
    colours = bk.LinearColorMapper(
        palette=[PASSED, TREATED], low=0, high=1, nan_color=(0, 0, 0, 0), name="cell-colours"
    )
    plot.image(
        image=[np.ascontiguousarray(ratio[::-1])], x=west, y=south, dw=east - west, dh=north - south,
        color_mapper=colours, alpha=0.55, name="cells",
    )  # fmt: skip


def shrunk(values: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Averages over blocks of what is finite, of a smaller shape.

    Examples
    --------
    >>> shrunk(np.array([[1.0, 3.0, np.nan], [1.0, 3.0, 5.0]]), (1, 2))
    array([[2., 5.]])
    """
    if values.shape == shape:
        return values
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0), known.astype(float)
    for axis, size in enumerate(shape):
        step = -(-values.shape[axis] // size)
        starts = np.minimum(np.arange(size) * step, values.shape[axis] - 1)
        sums, counts = (np.add.reduceat(v, starts, axis=axis) for v in (sums, counts))
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def _draw_sites(plot: Any, sites: Any, layers: MapLayers) -> None:
    """Crosses at the places of the trial."""
    if sites is None or not len(sites):
        return
    points = getattr(sites, "geometry", sites).representative_point()
    points = points.to_crs(layers.crs) if points.crs is not None and layers.crs is not None else points
    for width, colour in ((3, "white"), (1.4, INK)):
        plot.scatter(points.x, points.y, marker="x", size=6, line_color=colour, line_width=width)


def _draw_places(plot: Any, plan: Any, layers: MapLayers, sizes: tuple[int, int]) -> None:
    """The places as dots, which the slider colours, and what the pointer says of one."""
    points = plan.geometry.representative_point().reindex(plan.table.index)
    if layers.crs is not None and points.crs is not None:
        points = points.to_crs(layers.crs)
    table = plan.table
    data: dict[str, Any] = {
        "x": points.x.to_numpy(), "y": points.y.to_numpy(), "name": [str(label) for label in table.index],
        "colour": ["#ffffff"] * len(table), "size": [sizes[1]] * len(table),
    }  # fmt: skip
    shown = ["rank", "effect", "sd", "prob_worth", "cost", "treat", "paid_from"]
    shown += ["people"] if "people" in table else []
    data |= {name: table[name].to_numpy() for name in shown}
    source = bk.ColumnDataSource(data, name="places")
    dots = plot.scatter(
        "x", "y", source=source, size="size", fill_color="colour", line_color=INK, line_width=0.8, fill_alpha=0.95
    )
    unit = f" ({html.escape(plan.units)})" if plan.units else ""
    lines = [("place", "@name"), ("rank", "@rank"), (f"effect{unit}", "@effect{0.000} (sd @sd{0.000})")]
    lines += [("P(worth it)", "@prob_worth{0.00}"), ("cost", "@cost{0,0.[00]}")]
    lines += [("people", "@people{0,0}")] if "people" in table else []
    lines += [("treated", "@treat{0.[00]}"), ("from a budget of", "@paid_from{0,0.[00]}")]
    plot.add_tools(bk.HoverTool(renderers=[dots], tooltips=lines))


def _draw_curve(plan: Any, about: dict[str, Any]) -> Any:
    """The gain of every budget with its bands, and a line at the chosen one."""
    curve = plan.gain_curve.to_dataframe()
    data = {name: curve[name].to_numpy() for name in curve.columns}
    source = bk.ColumnDataSource({**data, "budget": data["spend"] * plan.heads})
    money = f" ({plan.currency})" if plan.currency else ""
    unit = f" ({plan.units})" if plan.units else ""
    plot = figure(
        name="curve", frame_width=640, frame_height=280, x_range=bk.Range1d(0, about["most"] or 1.0), tools="save",
        x_axis_label=f"budget{money}", y_axis_label=f"gain a head{unit}", outline_line_color=None,
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.xaxis.formatter = bk.NumeralTickFormatter(format="0,0.[00]")
    if np.isfinite(curve["band_lower"]).all():
        for low, high, alpha, label in (
            ("band_lower", "band_upper", 0.12, "95 % band, all budgets at once"),
            ("lower", "upper", 0.24, "95 % interval of one budget"),
        ):
            plot.varea("budget", low, high, source=source, fill_color=TREATED, fill_alpha=alpha, legend_label=label)
    plot.line(
        "budget",
        "gain",
        source=source,
        line_color=TREATED,
        line_width=2.5,
        legend_label="largest effects for cost first",
    )
    plot.line(
        "budget", "random", source=source, line_color=GREY, line_width=1.6, line_dash="dashed",
        legend_label="the same money at random",
    )  # fmt: skip
    plot.add_layout(bk.Span(location=0, dimension="width", line_color=INK, line_width=1))
    plot.add_layout(
        bk.Span(location=about["budget"], dimension="height", line_color=PARTLY, line_width=3, name="budget-line")
    )
    plot.add_layout(plot.legend[0], "right")
    plot.legend.border_line_color = None
    return plot
