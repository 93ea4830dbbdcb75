"""What is pressed on the interactive map: choice of layer, overlays, opacity, and keys that move over cells."""

from __future__ import annotations

from typing import Any

import bokeh.models

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
