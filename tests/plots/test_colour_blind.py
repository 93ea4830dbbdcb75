"""The layers' colours, seen by people who cannot tell red from green or blue from yellow, are still apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from causalsat.plots.layers import MapLayers, layer_style

#: sRGB of protanopia, deuteranopia and tritanopia (Machado, Oliveira and Fernandes 2009, table 1).
SIGHT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
APART = 5.0  # CIEDE2000; about 1 is the least difference that is seen side by side


def seen(palette, sight):
    """CIELAB of hex colours as seen with a deficiency."""
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in palette])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    turned = np.clip(linear @ np.array(SIGHT[sight]).T, 0, 1)
    return rgb2lab(np.where(turned <= 0.0031308, 12.92 * turned, 1.055 * turned ** (1 / 2.4) - 0.055))


def closest(palette, sight, steps=7):
    """Smallest difference between any two of a few steps of a palette."""
    lab = seen([palette[k] for k in np.linspace(0, len(palette) - 1, steps).round().astype(int)], sight)
    return min(float(deltaE_ciede2000(a, b)) for a, b in itertools.combinations(lab, 2))


VALUES = np.linspace(-1, 1, 100).reshape(10, 10).astype(np.float32)
BANDS = ("cate", "sd", "lower", "upper", "prob_positive", "support", "risk", "decision")
LAYERS = MapLayers(dict.fromkeys(BANDS, VALUES), (0, 1, 0, 1), None, {}, 1)
POSITIVE = MapLayers(dict.fromkeys(BANDS, VALUES + 2), (0, 1, 0, 1), None, {}, 1)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("name", ["cate", "sd", "prob_positive", "support", "risk", "decision", "cate above zero"])
def test_seven_steps_of_every_layer_are_told_apart(name, sight):
    style = layer_style(POSITIVE, "cate") if name.endswith("zero") else layer_style(LAYERS, name)
    assert closest(style.palette, sight) > APART


def test_a_rainbow_of_red_and_green_would_not_pass():
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    palette = [to_hex(colour) for colour in colormaps["RdYlGn"](np.linspace(0, 1, 256))]
    assert closest(palette, "deuteranopia") < APART
