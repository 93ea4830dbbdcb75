"""The small network that starts as random convolutional features: patches, rectified, averaged; a fitted last layer.

Its first layer are whitened patches of the training images, as in :class:`causalsat.RandomConvFeatures`; the averages
of the responses of both signs are reduced to principal components, on which the model of
:mod:`causalsat.estimators.clusters.density` is fitted. A second branch, whose last weights start at 0, looks at the
map of responses again. So the first step is the model on frozen features, and training begins from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders.random_conv.filters import learn_filters, sample_patches
from causalsat.encoders.reduce import learn_reduction
from causalsat.estimators.clusters import fit as clusters_fit
from causalsat.estimators.clusters.cells import Cells
from causalsat.estimators.clusters.density import Prior
from causalsat.estimators.clusters.features import in_proportion

__all__ = ["PATCHES", "learn_start", "load_likely_head", "patch_network", "start_features"]

FloatArray = NDArray[np.float64]
Weights = dict[str, NDArray[np.float32]]

PATCHES = 64  # filters of the first layer, each with two signs
PATCH_PX = 4
STRIDE = 2  # between patches
RIDGE = 0.1
N_SAMPLED = 16_384
BATCH = 256
RESTARTS = 2


def patch_network(n_in: int, n_clusters: int, n_components: int, n_patches: int = PATCHES, patch_px: int = 4) -> Any:
    """A network from images (batch, n_in, y, x) to a prognosis and K - 1 logits, (batch, K)."""
    import torch
    from torch import nn

    class PatchNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(n_in, n_patches, patch_px, stride=STRIDE)
            self.components = nn.Linear(2 * n_patches, n_components)
            self.head = nn.Linear(n_components, n_clusters)
            self.deeper = nn.Conv2d(2 * n_patches, 32, 3, padding=1, padding_mode="replicate")
            self.last = nn.Linear(64, n_clusters, bias=False)
            nn.init.kaiming_normal_(self.deeper.weight, nonlinearity="relu")
            nn.init.normal_(self.head.weight, std=0.1 / n_components**0.5)
            nn.init.zeros_(self.head.bias)
            nn.init.zeros_(self.last.weight)

        def responses(self, images: Any) -> Any:
            z = self.patches(images)
            return torch.relu(torch.cat([z, -z], dim=1))

        def features(self, images: Any) -> Any:
            """Components of the mean responses, (batch, n_components)."""
            return self.components(self.responses(images).mean(dim=(-2, -1)))

        def forward(self, images: Any) -> Any:
            a = self.responses(images)
            coarse = nn.functional.avg_pool2d(a, 2, ceil_mode=True) if a.shape[-1] >= 8 else a
            b = torch.relu(self.deeper(coarse))
            seen = torch.cat([b.mean(dim=(-2, -1)), b.amax(dim=(-2, -1))], dim=1)
            return self.head(self.components(a.mean(dim=(-2, -1)))) + self.last(seen)

    return PatchNetwork()


def learn_start(images: NDArray[np.float32], n_components: int, seed: int) -> Weights:
    """Weights of the first layer and of the components, from standardised images (m, n_in, y, x); no outcome is used.

    Returns
    -------
    dict
        ``patches.weight`` (filters, n_in, px, px), ``patches.bias``, ``components.weight`` (d, 2 filters),
        ``components.bias``: of at most ``n_components`` components, with a mean square of 1.
    """
    import torch

    rng = np.random.default_rng([seed, 3])
    px = min(PATCH_PX, *images.shape[-2:])
    bank = learn_filters(sample_patches(images[:, None], px, N_SAMPLED, rng), PATCHES, RIDGE, rng)
    start = {"patches.weight": bank.weight, "patches.bias": bank.offset}
    module = patch_network(images.shape[1], 1, 1, PATCHES, px)
    module.patches.load_state_dict({"weight": torch.from_numpy(bank.weight), "bias": torch.from_numpy(bank.offset)})
    with torch.inference_mode():
        parts = [module.responses(part).mean(dim=(-2, -1)) for part in torch.from_numpy(images).split(BATCH)]
    pooled = np.concatenate([part.numpy() for part in parts]).astype(np.float64)
    rank = int(np.linalg.matrix_rank(pooled - pooled.mean(axis=0)))
    reduction = in_proportion(learn_reduction(pooled, max(1, min(n_components, rank, len(pooled) - 1))))
    assert reduction.components is not None
    weight = reduction.components / reduction.scale
    start["components.weight"] = weight.astype(np.float32)
    start["components.bias"] = (-weight @ reduction.mean).astype(np.float32)
    return start


def start_features(module: Any, images: Any) -> FloatArray:
    """Components (m, d) of images by a network."""
    import torch

    with torch.inference_mode():
        parts = [module.features(part).float().cpu().numpy() for part in images.split(BATCH)]
    return np.concatenate(parts).astype(np.float64)


def load_likely_head(
    module: Any, loss: Any, features: FloatArray, statistics: FloatArray, prior: Prior, n_clusters: int, seed: int
) -> None:
    """Set the head of the network and the loss's effects and noise to the posterior mode on its components.

    Parameters
    ----------
    module, loss : torch.nn.Module
        Of :func:`patch_network`, and of :func:`causalsat.estimators.clusters.network.cluster_loss`.
    features : ndarray of shape (m, d)
        Components of the images.
    statistics : ndarray of shape (m, 6)
        Count, mean and spread of their outcomes, by arm.
    prior : Prior
        Scales.
    n_clusters, seed : int
        K, and the seed of the search.
    """
    import torch

    m = len(features)
    parts = np.split(np.asarray(statistics, dtype=np.float64), 3, axis=1)
    count, mean, spread = (np.ascontiguousarray(part) for part in parts)
    known = Cells(np.arange(m), np.arange(m + 1), count, mean, spread, has_sites=True)
    mode, _ = clusters_fit.find_mode(known, features, prior, n_clusters, np.random.default_rng(seed), RESTARTS)
    p = prior.layout(n_clusters, features, known).unpack(mode)
    weight = np.vstack([p["prognostic"], p["logit"][1:, 1:]])
    bias = np.append(p["intercept"], p["logit"][1:, 0])
    values = {
        module.head.weight: weight,
        module.head.bias: bias,
        loss.tau: p["tau"],
        loss.log_sigma: np.log(p["sigma"]),
        loss.log_omega: np.log(p["site_sd"]),
    }
    with torch.no_grad():
        for parameter, value in values.items():
            parameter.copy_(torch.as_tensor(value, dtype=torch.float32))
