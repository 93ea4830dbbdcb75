"""What raises the propensity: places of an image, by occlusion; covariates, by their average marginal effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["occlusion", "tabular_salience"]

FloatArray = NDArray[np.float64]

_MIN_PROBABILITY = 1e-9


def log_odds(chance: FloatArray) -> FloatArray:
    """Log-odds of probabilities, kept finite."""
    kept = np.clip(chance, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return np.asarray(np.log(kept / (1 - kept)))


def occlusion(
    encoder: Any,
    model: Any,
    chips: NDArray[np.float32],
    covariates: FloatArray,
    *,
    window_px: int,
    stride_px: int,
    fill: FloatArray,
    bands: Sequence[str] | None = None,
) -> FloatArray:
    """Change of the log-odds of treatment by what stands at each place, shape (n, y, x), by captum's Occlusion.

    A window of each image is replaced by ``fill`` and the log-odds compared; where windows overlap, the mean.
    Positive: what stands there makes treatment likelier. Works with any encoder and any classifier.

    Parameters
    ----------
    encoder, model : fitted transformer of chips, fitted classifier of its features and covariates
    chips : ndarray of shape (n, [time,] band, y, x)
        Images.
    covariates : ndarray of shape (n, q)
        Covariates of their units.
    window_px, stride_px : int
        Side of the window, and its step.
    fill : ndarray of shape (band,)
        What the window is replaced by: the bands' training means.
    bands : sequence of str, optional
        Names of the bands, for an encoder that was fitted to named ones.
    """
    import torch
    import xarray as xr
    from captum.attr import Occlusion

    side = min(chips.shape[-2:])
    if not 1 <= stride_px <= window_px <= side:
        raise ParameterError(
            f"window_px={window_px}, stride_px={stride_px} for images of {side} pixels",
            expected="1 <= stride_px <= window_px <= the images' side",
        )
    lead = chips.shape[1:-2]
    dims = ("unit", "band", "y", "x") if len(lead) == 1 else ("unit", "time", "band", "y", "x")
    shape = (*lead, window_px, window_px)
    strides = (*lead, stride_px, stride_px)
    baseline = np.broadcast_to(np.asarray(fill, dtype=np.float32)[:, None, None], chips.shape[1:])
    out = np.empty((len(chips), *chips.shape[-2:]))
    for i in range(len(chips)):

        def forward(batch: Any, row: FloatArray = covariates[i]) -> Any:
            images = xr.DataArray(batch.numpy(), dims=dims, coords=None if bands is None else {"band": list(bands)})
            features = np.asarray(encoder.transform(images), dtype=float)
            design = np.hstack([features, np.broadcast_to(row, (len(features), len(row)))])
            return torch.from_numpy(log_odds(model.predict_proba(design)[:, 1]))

        attribution = Occlusion(forward).attribute(
            torch.from_numpy(chips[i : i + 1]),
            sliding_window_shapes=shape,
            strides=strides,
            baselines=torch.from_numpy(baseline[None].copy()),
            perturbations_per_eval=16,
        )
        out[i] = attribution.numpy()[0].reshape(-1, *chips.shape[-2:])[0]
    return out


def tabular_salience(
    model: Any, features: FloatArray, covariates: FloatArray, names: Sequence[str], weight: FloatArray
) -> pd.DataFrame:
    """How the propensity depends on each covariate and on the image as a whole.

    Returns
    -------
    DataFrame
        Index is the covariate, ``image`` last. ``per_sd``: mean change of the propensity for one standard deviation
        more (none for the image); ``spread``: root mean squared change when the covariate (all image features) is
        put at its mean.
    """
    import pandas as pd

    def chance(f: FloatArray, c: FloatArray) -> FloatArray:
        return np.asarray(model.predict_proba(np.hstack([f, c]))[:, 1], dtype=float)

    base, rows = chance(features, covariates), []
    for j in range(covariates.shape[1]):
        mean = np.average(covariates[:, j], weights=weight)
        sd = float(np.sqrt(np.average((covariates[:, j] - mean) ** 2, weights=weight)))
        moved = []
        for shift in (-sd / 2, sd / 2):
            table = covariates.copy()
            table[:, j] += shift
            moved.append(chance(features, table))
        flat = covariates.copy()
        flat[:, j] = mean
        spread = np.sqrt(np.average((base - chance(features, flat)) ** 2, weights=weight))
        rows.append((float(np.average(moved[1] - moved[0], weights=weight)), float(spread)))
    centre = np.broadcast_to(np.nanmean(features, axis=0), features.shape)
    spread = np.sqrt(np.average((base - chance(centre, covariates)) ** 2, weights=weight))
    rows.append((float("nan"), float(spread)))
    return pd.DataFrame(rows, index=pd.Index([*names, "image"], name="feature"), columns=["per_sd", "spread"])
