"""Satellite trials with a known effect for every unit and every pixel.

:func:`satellite_trial` renders a landscape, lays a trial upon a part of it and draws outcomes whose effects are an
exact function of the pixels around each place. :func:`colour_confounding` and :func:`kernel_confounding` make
observational studies whose images hold the confounder, :func:`hidden_confounding`
studies whose confounder was never measured. :func:`arms_trial` has three arms, and :func:`take_up_trial` a
treatment that not everybody takes up.
"""

from __future__ import annotations

from causalsat.simulate.confounded_images import ConfoundedImages, colour_confounding, kernel_confounding
from causalsat.simulate.dose_response import DosageTrial, DoseTrial, continuous_ihdp, dosage_trial, simu1
from causalsat.simulate.experiments import ArmsTrial, TakeUpTrial, arms_trial, take_up_trial
from causalsat.simulate.landscape import Landscape, render_landscape, rgb
from causalsat.simulate.trial import SimulatedTrial, satellite_trial
from causalsat.simulate.unobserved_confounding import HiddenConfounding, hidden_confounding

__all__ = [
    "ArmsTrial",
    "TakeUpTrial",
    "arms_trial",
    "take_up_trial",
    "ConfoundedImages",
    "DosageTrial",
    "DoseTrial",
    "HiddenConfounding",
    "Landscape",
    "SimulatedTrial",
    "colour_confounding",
    "continuous_ihdp",
    "dosage_trial",
    "hidden_confounding",
    "kernel_confounding",
    "render_landscape",
    "rgb",
    "satellite_trial",
    "simu1",
]
