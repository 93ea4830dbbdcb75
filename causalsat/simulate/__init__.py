"""Satellite trials with a known effect for every unit and every pixel.

:func:`satellite_trial` renders a landscape, lays a trial upon a part of it and draws outcomes whose effects are an
exact function of the pixels around each place. :func:`colour_confounding` and :func:`kernel_confounding` make
observational studies whose images hold the confounder.
"""

from __future__ import annotations

from causalsat.simulate.confounded_images import ConfoundedImages, colour_confounding, kernel_confounding
from causalsat.simulate.landscape import Landscape, render_landscape, rgb
from causalsat.simulate.trial import SimulatedTrial, satellite_trial

__all__ = [
    "ConfoundedImages",
    "Landscape",
    "SimulatedTrial",
    "colour_confounding",
    "kernel_confounding",
    "render_landscape",
    "rgb",
    "satellite_trial",
]
