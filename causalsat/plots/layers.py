"""A map read back at a size for the eye, and the colours of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError
from causalsat.plots import style

__all__ = ["LAYERS", "UNSUPPORTED", "LayerStyle", "MapLayers", "layer_style", "palette", "read_layers"]

LAYERS = ("cate", "sd", "prob_positive", "support")
BANDS = ("cate", "sd", "lower", "upper", "prob_positive", "support")
RISK_BANDS = ("risk", "sd", "lower", "upper", "decision", "support")
UNSUPPORTED = 0.05
WORDS = {
    "disagreement": ("Disagreement of models", "sd across models"),
    "learned_error": ("Learned error", "expected excess loss"),
}
TAKE_UP = {
    "what=itt": ("Effect of the assignment", "effect"),
    "what=compliance": ("Share of compliers", "share"),
    "what=complier": ("Effect on compliers", "effect"),
}  # title and quantity by the file's contrast


@dataclass(frozen=True)
class MapLayers:
    """A map at most ``most`` cells wide or high.

    Attributes
    ----------
    values : dict of str to ndarray of shape (y, x)
        The bands, NaN where there is no effect.
    extent : (west, east, south, north)
        Edges in the map's coordinate system.
    crs : rasterio CRS
        Coordinate system.
    tags : dict of str to str
        Metadata of the file.
    shrink : int
        Cells of the file along the side of one cell here.
    """

    values: Mapping[str, NDArray[np.float32]]
    extent: tuple[float, float, float, float]
    crs: Any
    tags: Mapping[str, str]
    shrink: int

    @property
    def main(self) -> str:
        """Name of what is mapped: "cate", the effect, or "risk"."""
        return "cate" if "cate" in self.values else "risk"

    @property
    def panels(self) -> tuple[str, str, str]:
        """What a picture shows: the quantity, its sd, and P(effect > 0) or the probability of being tested."""
        return self.main, "sd", "prob_positive" if self.main == "cate" else "decision"


def read_layers(path: Any, most: int = 1000) -> MapLayers:
    """Read a map written by map_effects, averaging cells where it is larger than ``most``.

    Raises
    ------
    DataError
        If the file lacks the bands of a map of effects.
    """
    from rasterio.enums import Resampling

    from causalsat.imagery.handles import local_raster

    with local_raster(path) as raster:
        if not (set(BANDS) <= set(raster.descriptions) or set(RISK_BANDS) <= set(raster.descriptions)):
            raise DataError(
                f"a raster with the bands {', '.join(map(str, raster.descriptions))}",
                expected=f"a map of effects, with the bands {', '.join(BANDS)}",
                todo="write it with causalsat.map_effects",
            )
        shrink = max(1, -(-max(raster.shape) // most))
        height, width = (max(1, -(-side // shrink)) for side in raster.shape)
        values = raster.read(out_shape=(raster.count, height, width), masked=True, resampling=Resampling.average)
        bounds = raster.bounds
        layers = {str(name): values[i].filled(np.nan) for i, name in enumerate(raster.descriptions)}
        return MapLayers(
            layers, (bounds.left, bounds.right, bounds.bottom, bounds.top), raster.crs, raster.tags(), shrink
        )


@dataclass(frozen=True)
class LayerStyle:
    """How a layer is drawn: words, colour map (256 hex colours, low to high) and limits."""

    title: str
    label: str
    palette: tuple[str, ...]
    low: float
    high: float
    extend: str


def layer_style(layers: MapLayers, name: str, units: str = "") -> LayerStyle:
    """Words, colours and limits of a layer.

    Effects on both sides of zero get a diverging map centred on zero (brown to teal, which colour-blind people
    tell apart); effects of one sign a sequential one. Limits of effects and sd are the 1st and 99th percentiles.
    """
    shown = layers.values[name][np.isfinite(layers.values[name])].astype(float)
    level = float(layers.tags.get("level", "0.9"))
    main, quantity = TAKE_UP.get(layers.tags.get("contrast", ""), ("Effect of treatment", "effect"))
    if name == "prob_positive":
        return LayerStyle(f"P({quantity} > 0)", "posterior probability", palette("PuOr"), 0.0, 1.0, "neither")
    if name == "support":
        title = "Support by the trial"
        return LayerStyle(title, "share of trial units farther out", palette("cividis"), 0.0, 1.0, "neither")
    if name.startswith("prob_cluster_"):
        title = f"Type {name.rpartition('_')[2]} of image"
        return LayerStyle(title, "posterior probability of the type", palette("viridis"), 0.0, 1.0, "neither")
    if name == "decision":
        return LayerStyle("P(tested)", "probability of being tested", palette("viridis"), 0.0, 1.0, "neither")
    low, high = (float(v) for v in np.percentile(shown, [1, 99])) if len(shown) else (0.0, 1.0)
    if name == "risk":
        low, high = _apart(max(0.0, low), high)
        label = style.with_units("probability", units)
        return LayerStyle("Risk", label, palette("inferno"), low, high, _extend(shown, low, high))
    if name == "sd":
        low, high = _apart(low, high)
        label = style.with_units("posterior sd", units)
        return LayerStyle(
            "Uncertainty (posterior sd)", label, palette("YlGnBu"), low, high, _extend(shown, low, high)
        )
    if name in WORDS or name.startswith("sd_cluster_"):
        low, high = _apart(low, high)
        title, words = WORDS.get(name, (f"Uncertainty of type {name.rpartition('_')[2]}", "sd of its probability"))
        label = style.with_units(words, units) if name == "disagreement" else words
        return LayerStyle(title, label, palette("YlGnBu"), low, high, _extend(shown, low, high))
    label = style.with_units(quantity, units if quantity == "effect" else "")
    title = main if name == "cate" else f"{name.capitalize()} bound of the {level:.0%} interval"
    if quantity == "share":
        return LayerStyle(title, label, palette("viridis"), 0.0, 1.0, _extend(shown, 0.0, 1.0))
    if low < 0 < high:
        most = max(-low, high)
        return LayerStyle(title, label, palette("BrBG"), -most, most, _extend(shown, -most, most))
    low, high = _apart(low, high)
    return LayerStyle(title, label, palette("viridis"), low, high, _extend(shown, low, high))


def palette(name: str) -> tuple[str, ...]:
    """256 hex colours of a colour map, low to high."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return tuple(to_hex(colour) for colour in colormaps[name](np.linspace(0, 1, 256)))


def _apart(low: float, high: float) -> tuple[float, float]:
    room = max(1e-9, 1e-3 * max(abs(low), abs(high)))
    return (low, high) if high - low > room else (low - room, high + room)


def _extend(shown: NDArray[Any], low: float, high: float) -> str:
    below, above = bool((shown < low).any()), bool((shown > high).any())
    return "both" if below and above else "min" if below else "max" if above else "neither"
