"""Effects at a study's further places, those off the imagery left out."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd

from causalsat.base import final_estimator
from causalsat.exceptions import DataWarning
from causalsat.mapping.compute import image_encoders

__all__ = ["effects_at_places"]


def effects_at_places(model: Any, study: Any) -> tuple[Any, Any, Any]:
    """The study with the further places that have effects, their posterior and their support; None without any.

    Warns
    -----
    DataWarning
        Where places have too few valid pixels for the model's images: they are left out.
    """
    if study.places is None or not len(study.places):
        return study, None, None
    table = study.places[["geometry"]].copy()
    for name in study.covariates:  # unknown there
        table[name] = np.nan
    masking = deepcopy(model)
    for encoder in image_encoders(masking):
        if hasattr(encoder, "on_invalid"):
            encoder.on_invalid = "mask"
    transformers, estimator = final_estimator(masking)
    features = table if transformers is None else transformers.transform(table)
    if transformers is not None and isinstance(features, pd.DataFrame):
        lost = features.drop(columns=list(study.covariates), errors="ignore").isna().any(axis=1).to_numpy()
        if lost.any():
            warnings.warn(
                f"{int(lost.sum())} of {len(lost)} further places have too few valid pixels and are left out, "
                f"such as {', '.join(map(str, study.places.index[lost][:3]))}",
                DataWarning,
                stacklevel=3,
            )
            study = study.replace(places=study.places[~lost] if not lost.all() else None)
            features = features[~lost]
    if not len(features):
        return study, None, None
    return study, estimator.effect(features), estimator.support(features)
