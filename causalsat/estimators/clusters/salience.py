"""What in an image makes it one of a type: derivatives of log probabilities, by captum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders import RandomConvFeatures, TorchvisionEncoder
from causalsat.encoders.base import shrink
from causalsat.encoders.device import resolve_device
from causalsat.estimators.clusters.features import FrozenFeatures
from causalsat.estimators.clusters.network import NetworkScores
from causalsat.exceptions import ParameterError

__all__ = ["METHODS", "log_probability", "salience"]

FloatArray = NDArray[np.float64]

METHODS = ("integrated_gradients", "gradient")
N_DRAWS = 100  # posterior draws over which the probability is averaged
BATCH = 8


def salience(
    encoder: Any,
    logit: FloatArray,
    position: int,
    chips: NDArray[np.float32],
    *,
    method: str,
    n_steps: int,
    device: str,
) -> FloatArray:
    """Attributions of each image to the log probability of a type, of the shape of the chips.

    Parameters
    ----------
    encoder : fitted transformer of chips
        Of the model.
    logit : ndarray of shape (draw, K, 1 + d)
        Draws of the logits' weights.
    position : int
        Position of the type among the K.
    chips : ndarray of shape (n, band, y, x)
        Images, NaN where invalid.
    method, n_steps
        As in :meth:`causalsat.ImageEffectClusters.salience`.
    device : str
        Where to compute.
    """
    import torch
    from captum.attr import IntegratedGradients, Saliency

    if method not in METHODS:
        raise ParameterError(f"method={method!r}", expected=" or ".join(repr(name) for name in METHODS))
    score, images = log_probability(encoder, logit, position, chips, device)
    out = []
    for batch in images.split(BATCH):
        leaf = batch.clone().requires_grad_(True)
        if method == "gradient":
            attribution = Saliency(score).attribute(leaf, abs=False)
        else:
            attribution = IntegratedGradients(score).attribute(leaf, n_steps=n_steps, internal_batch_size=4 * BATCH)
        out.append(attribution.detach().cpu().numpy())
    with torch.inference_mode():
        return np.concatenate(out).astype(np.float64).reshape(chips.shape)


def log_probability(
    encoder: Any, logit: FloatArray, position: int, chips: NDArray[np.float32], device: str
) -> tuple[Any, Any]:
    """A differentiable function of standardised images, log p_k, and those images; 0 is the average band."""
    import torch

    inner = encoder.encoder_ if isinstance(encoder, FrozenFeatures) else encoder
    if not isinstance(inner, (RandomConvFeatures, TorchvisionEncoder, NetworkScores)):
        raise ParameterError(
            f"backbone {type(inner).__name__}, whose features have no derivative here",
            expected="a trained network, RandomConvFeatures or TorchvisionEncoder",
        )
    if inner.n_time_:
        raise ParameterError("images with several dates", expected="images of one date, for salience")
    place = resolve_device(device)
    features = image_features(inner, place)
    mean, scale, axes = feature_map(encoder, place)
    chosen = np.linspace(0, len(logit) - 1, N_DRAWS).astype(int)
    weights = torch.from_numpy(logit[chosen]).float().to(place)

    def score(images: Any) -> Any:
        phi = (features(images) - mean) / scale
        phi = phi if axes is None else phi @ axes.T
        logits = weights[:, :, 0][:, None] + torch.einsum("md,skd->smk", phi, weights[:, :, 1:])
        return torch.logsumexp(torch.log_softmax(logits, dim=2)[:, :, position], dim=0) - float(np.log(len(chosen)))

    return score, standardise(inner, chips).to(place)


def standardise(inner: Any, chips: NDArray[np.float32]) -> Any:
    """Standardised bands (n, band, y, x) as a tensor, 0 where a pixel is invalid."""
    import torch

    valid = np.isfinite(chips).all(axis=1, keepdims=True)
    mean, sd = (s[:, None, None].astype(np.float32) for s in (inner.band_mean_, inner.band_sd_))
    return torch.from_numpy(np.where(valid, (chips - mean) / sd, np.float32(0)))


def feature_map(encoder: Any, device: Any) -> tuple[Any, Any, Any]:
    """Mean, scale and axes by which raw features become those of the last layer."""
    import torch

    if isinstance(encoder, NetworkScores):
        d = len(encoder.start_["components.bias"]) if encoder.start_ else 0
        parts: list[Any] = [
            np.append(encoder.score_mean_, np.zeros(d)),
            np.append(encoder.score_sd_, np.ones(d)),
            None,
        ]
    else:
        parts = [encoder.reduction_.mean, encoder.reduction_.scale, encoder.reduction_.components]
    place, scale, axes = (None if p is None else torch.from_numpy(np.asarray(p)).float().to(device) for p in parts)
    return place, scale, axes


def image_features(inner: Any, device: Any) -> Any:
    """The encoder as a differentiable function from standardised images to raw features."""
    import torch

    if isinstance(inner, NetworkScores):
        modules, first = [module.eval().to(device) for module in inner.modules()], inner.first()

        def scores(images: Any) -> Any:
            seen = shrink(images, inner.image_px)
            mean = torch.stack([module(seen) for module in modules]).mean(dim=0)
            return mean if first is None else torch.cat([mean, first.to(device).features(seen)], dim=1)

        return scores
    if isinstance(inner, TorchvisionEncoder):
        module, side = inner._network().to(device), inner.image_px
        resize = torch.nn.functional.interpolate

        def forward(images: Any) -> Any:
            if side:
                images = resize(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
            return module(images)

        return forward
    if inner.statistics:
        raise ParameterError("RandomConvFeatures(statistics=True)", expected="statistics=False, for salience")
    banks = [
        (torch.from_numpy(np.array(w)).float().to(device), torch.from_numpy(np.array(b)).float().ravel().to(device))
        for w, b in zip(inner.filters_, inner.offsets_, strict=True)
    ]

    def responses(images: Any) -> Any:
        parts = []
        for weight, offset in banks:
            z = torch.nn.functional.conv2d(images, weight, offset, stride=inner.stride)
            for sign in (z, -z):
                parts.append(torch.relu(sign - inner.threshold).mean(dim=(-2, -1)))
        return torch.cat(parts, dim=1)

    return responses
