"""The model where none is given: an effect that is linear in the features, villages that differ, normal noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalsat.estimators.levels import is_binary
from causalsat.estimators.pymc_model.data import ModelData

__all__ = ["linear_effect"]

NOISE_FLOOR = 1e-5  # of the standardised outcome, for outcomes without noise
GROUP_BLOCK = 64  # villages are padded to a multiple of this, so that folds of other villages compile nothing new


def linear_effect(data: ModelData) -> Any:
    """Build the model: every number that changes between fits is data, so that it is compiled once.

    Parameters
    ----------
    data : ModelData
        Of the fit.

    Returns
    -------
    pymc.Model
        With the data ``X`` and ``treatment`` and the deterministic ``mean_outcome``.
    """
    import pymc as pm

    scales = data.standardised()
    dose_sd = 1.0 if is_binary(data.treatment) else 2.0 * float(data.treatment.std())
    with pm.Model(coords={"feature": data.features}) as model:
        X, treatment = pm.Data("X", data.X), pm.Data("treatment", data.treatment)
        known = {name: pm.Data(name, np.asarray(value)) for name, value in scales.items()}
        dose_mean, dose_scale = pm.Data("dose_mean", data.treatment.mean()), pm.Data("dose_sd", dose_sd)
        z, dose = (X - known["x_mean"]) / known["x_sd"], (treatment - dose_mean) / dose_scale

        level = pm.Normal("level", 0.0, 2.5)
        prognosis_sd = pm.HalfNormal("prognosis_sd", 1.0)
        prognosis = pm.Normal("prognosis", dims="feature") * prognosis_sd
        average_effect = pm.Normal("average_effect", 0.0, 2.5)
        moderation_sd = pm.HalfNormal("moderation_sd", 0.5)
        moderation = pm.Normal("moderation", dims="feature") * moderation_sd
        predictor = level + z @ prognosis + dose * (average_effect + z @ moderation)
        pm.Deterministic("mean_outcome", known["y_mean"] + known["y_sd"] * predictor)

        if data.is_clustered:
            village_sd = pm.HalfNormal("village_sd", 1.0)
            villages = pm.Normal("village", shape=-(-data.n_groups // GROUP_BLOCK) * GROUP_BLOCK) * village_sd
            predictor = predictor + villages[pm.Data("group", data.groups)]
        noise_sd = pm.HalfNormal("noise_sd", 1.0)
        y = (pm.Data("y", data.y) - known["y_mean"]) / known["y_sd"]
        likelihood = pm.logp(pm.Normal.dist(predictor, noise_sd + NOISE_FLOOR), y)
        pm.Potential("outcome", (pm.Data("weight", data.sample_weight) * likelihood).sum())
    return model
