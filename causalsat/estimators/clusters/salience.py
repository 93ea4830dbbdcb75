"""What in an image makes it one of a type: derivatives of log probabilities, by captum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders import RandomConvFeatures, TorchvisionEncoder, places
from causalsat.encoders.base import shrink
from causalsat.encoders.device import resolve_device
from causalsat.estimators.clusters.features import FrozenFeatures
from causalsat.estimators.clusters.network import NetworkScores
from causalsat.estimators.clusters.report import check_cluster
from causalsat.exceptions import ParameterError

FloatArray = NDArray[np.float64]

METHODS = ("integrated_gradients", "gradient")
N_DRAWS = 100  # posterior draws over which the probability is averaged
BATCH = 8


def salience(est: Any, X: Any, cluster: int, method: str, n_steps: int) -> FloatArray:
    """Attributions (n, band, y, x) of each unit's image; see :meth:`ImageEffectClusters.salience`."""
    import torch
    from captum.attr import IntegratedGradients, Saliency

    k = check_cluster(est, cluster)
    if method not in METHODS:
        raise ParameterError(f"method={method!r}", expected=" or ".join(repr(name) for name in METHODS))
    chips = read_chips(est, X)
    score, images = log_probability(est, k, chips)
    out = []
    for part in images.split(BATCH):
        part = part.clone().requires_grad_(True)
        if method == "gradient":
            found = Saliency(score).attribute(part, abs=False)
        else:
            found = IntegratedGradients(score).attribute(part, n_steps=n_steps, internal_batch_size=4 * BATCH)
        out.append(found.detach().cpu().numpy())
    with torch.inference_mode():
        return np.concatenate(out).astype(np.float64).reshape(chips.shape)


def read_chips(est: Any, X: Any) -> NDArray[np.float32]:
    """Chips (n, [time,] band, y, x) of all units of X, NaN where invalid."""
    if est._reads(X):
        size = est._size_px()
        chips = np.empty((len(X), *est.imagery.leading, size, size), dtype=np.float32)
        for position, part in places.read_chips(est.imagery, X.geometry, size):
            chips[position] = part
        return chips
    view = est._open(X)
    taken = view.take(slice(None))
    return taken if view.spec.n_time else taken[:, 0]


def log_probability(est: Any, k: int, chips: NDArray[np.float32]) -> tuple[Any, Any]:
    """A differentiable function of standardised images, log p_k, and those images; 0 is the average band."""
    import torch

    encoder = est.encoder_
    inner = encoder.encoder_ if isinstance(encoder, FrozenFeatures) else encoder
    if not isinstance(inner, (RandomConvFeatures, TorchvisionEncoder, NetworkScores)):
        raise ParameterError(
            f"backbone {type(inner).__name__}, whose features have no derivative here",
            expected="a trained network, RandomConvFeatures or TorchvisionEncoder",
        )
    if inner.n_time_:
        raise ParameterError("images with several dates", expected="images of one date, for salience")
    device = resolve_device(est.device)
    features = image_features(inner, device)
    place, scale, axes = feature_map(encoder, device)
    chosen = np.linspace(0, len(est.draws_["tau"]) - 1, N_DRAWS).astype(int)
    weights = torch.from_numpy(est.draws_["logit"][chosen]).float().to(device)

    def score(images: Any) -> Any:
        phi = (features(images) - place) / scale
        phi = phi if axes is None else phi @ axes.T
        logits = weights[:, :, 0][:, None] + torch.einsum("md,skd->smk", phi, weights[:, :, 1:])
        return torch.logsumexp(torch.log_softmax(logits, dim=2)[:, :, k], dim=0) - float(np.log(len(chosen)))

    return score, standardise(inner, chips).to(device)


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


__all__ = ["METHODS", "log_probability", "read_chips", "salience"]
