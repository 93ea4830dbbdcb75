"""The study of an outcome that a model predicted, corrected by its measured subset."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalsat.inference.predicted import corrected_outcome, label_probabilities

__all__ = ["corrected_study", "is_corrected"]

CORRECTED = "corrected outcome"


def is_corrected(study: Any) -> bool:
    """Whether the study's outcome was predicted and a measured subset corrects it."""
    return bool(study.outcome_predicted) and study.labelled is not None


def corrected_study(study: Any) -> Any:
    """The study whose outcome is the prediction-powered one, which has the measured outcome's mean in each arm.

    Parameters
    ----------
    study : Study
        With ``outcome_predicted=True`` and ``outcome_labelled``.

    Returns
    -------
    Study
        Its outcome is the column ``corrected outcome``.
    """
    design, labelled = study.design, study.labelled
    w = np.ones(len(design)) if design.weights is None else design.weights
    pi = label_probabilities(None, np.isfinite(labelled), design.treatment, w)
    star, _ = corrected_outcome(study.y, labelled, design.treatment, pi, w, design.cluster_codes)
    name = CORRECTED
    while name in study.units.columns:
        name += " "
    units = study.units.assign(**{name: star})
    return study.replace(units=units, outcome=name, outcome_predicted=False, outcome_labelled=None)
