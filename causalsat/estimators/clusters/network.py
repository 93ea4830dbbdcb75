"""The networks of the image effect clusters, trained end to end on the model's likelihood, cross-fitted over sites.

A network gives each image a prognosis g and K - 1 logits. Networks are trained without one fold of sites each; the
scores of a training image come from the network that has not seen its site, those of a new image are the average
over the networks. Given the scores, the last layer (weights of the prognosis and of the logits) has a posterior. The
small network's frozen start gives further features beside the scores: where training finds nothing, the model is the
one on frozen features.

The small network starts as random convolutional features. Its first layer are whitened patches of the training
images, as in :class:`causalsat.RandomConvFeatures`; the averages of the responses of both signs are reduced to
principal components, on which the model of :mod:`causalsat.estimators.clusters.density` is fitted. A second branch,
whose last weights start at 0, looks at the map of responses again. So the first step is the model on frozen features,
and training begins from there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalsat.encoders import chips as _chips
from causalsat.encoders.base import ChipEncoder
from causalsat.encoders.device import resolve_device
from causalsat.encoders.networks.backbones import build_backbone, fixed_input
from causalsat.encoders.networks.training import Trained, TrainSettings, train_network
from causalsat.encoders.random_conv.filters import learn_filters, sample_patches
from causalsat.encoders.reduce import feature_rank, learn_reduction
from causalsat.estimators.clusters.density import Cells, Prior
from causalsat.estimators.clusters.features import in_proportion
from causalsat.estimators.clusters.posterior import find_mode
from causalsat.exceptions import ParameterError

__all__ = ["NetworkScores", "build_network", "cluster_loss"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Weights = dict[str, NDArray[np.float32]]

BATCH = 256
HELD_OUT = 5  # every fifth block of training images decides when to stop
FIRST_LAYERS = 0.05  # share of the learning rate with which the frozen start's layers move

PATCHES = 64  # filters of the small network's first layer, each with two signs
PATCH_PX = 4
STRIDE = 2  # between patches
RIDGE = 0.1
N_SAMPLED = 16_384
RESTARTS = 2


class NetworkScores(ChipEncoder):
    """Scores (prognosis, logits) of images by networks that were cross-fitted over sites.

    Parameters
    ----------
    backbone : str
        ``"cnn"``, or a classification model of torchvision.
    n_clusters : int
        K of the likelihood that the networks are trained on.
    image_px : int
        Larger chips are averaged down to this side.
    n_networks : int
        Networks trained for each fold, of which the best on held-out images is kept.
    settings : TrainSettings
        How they are trained.
    n_components : int
        Components of the small network's frozen start.
    """

    _transient: ClassVar[tuple[str, ...]] = ("_modules", "_first")

    def __init__(
        self,
        backbone: str,
        n_clusters: int,
        image_px: int,
        n_networks: int,
        settings: TrainSettings,
        n_components: int = 8,
    ) -> None:
        self.backbone = backbone
        self.n_clusters = n_clusters
        self.image_px = image_px
        self.n_networks = n_networks
        self.settings = settings
        self.n_components = n_components

    def fit_scores(self, X: Any, statistics: FloatArray, prior: Prior, fold: IntArray, block: IntArray) -> FloatArray:
        """Train, and return the scores of the training images by networks that have not seen their fold.

        Scores (m, K) come first, then the components of the frozen start (m, d), where the network has one.

        Parameters
        ----------
        X : DataArray of shape (m, [time,] band, y, x)
            Distinct images.
        statistics : ndarray of shape (m, 6)
            Count, mean and spread of the standardised outcomes of each image, by arm.
        prior : Prior
            Scales of the priors; the clusters' effects start around its average effect.
        fold, block : ndarray of int of shape (m,)
            Fold of each image, and what must not be split between training and held-out images.
        """
        import torch

        view = _chips.open_chips(X)
        chips = view.take(slice(None))
        self.band_mean_, self.band_sd_ = _chips.band_statistics(chips)
        self._remember(view)
        images = self.prepare(chips)
        targets = torch.from_numpy(statistics.astype(np.float32))
        self.start_: dict[str, NDArray[np.float32]] = {}
        if self.backbone == "cnn":
            self.start_ = learn_start(images.numpy(), self.n_components, self.settings.seed)
        self._first: Any = None
        frozen = self._frozen(images)
        self.weights_: list[dict[str, NDArray[np.float32]]] = []
        self.losses_: list[list[tuple[float, float]]] = []
        raw: list[FloatArray] = []
        for k in np.unique(fold):
            rows = np.flatnonzero(fold != k)
            best = self._train_fold(images[rows], targets[rows], frozen[rows], prior, block[rows], int(k))
            self.weights_.append(best.weights)
            self.losses_.append(best.history)
            raw.append(self._scores(self._build(best.weights), images))
        self._modules: list[Any] | None = None
        unseen = np.array([raw[list(np.unique(fold)).index(k)][j] for j, k in enumerate(fold)])
        self.score_mean_ = unseen.mean(axis=0)
        sd = unseen.std(axis=0)
        self.score_sd_ = np.where(sd > 1e-8, sd, 1.0)
        return np.hstack([(unseen - self.score_mean_) / self.score_sd_, frozen])

    def _train_fold(
        self, images: Any, targets: Any, frozen: FloatArray, prior: Prior, block: IntArray, fold: int
    ) -> Trained:
        import torch

        labels = np.unique(block)
        order = np.random.default_rng([self.settings.seed, fold]).permutation(len(labels))
        held_out = np.isin(block, labels[order[::HELD_OUT]])
        candidates = []
        for attempt in range(self.n_networks):
            seed = self.settings.seed * 1009 + 31 * fold + attempt
            path = self.settings.checkpoint
            settings = replace(
                self.settings, seed=seed, checkpoint=None if path is None else f"{path}.fold{fold}-{attempt}.pt"
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = self._build()
            loss = cluster_loss(self.n_clusters, prior.effect, tied=prior.tied_noise, shares=prior.shares)
            options: dict[str, Any] = {}
            if self.start_:
                known = frozen[~held_out], targets.numpy()[~held_out]
                load_likely_head(module, loss, *known, prior, self.n_clusters, seed)
                slow = {"lr": FIRST_LAYERS * settings.learning_rate}
                options = {"optimizer__param_groups": [("patches.*", slow), ("components.*", slow)]}
                candidates.append(untrained(module, images, targets, loss, held_out, settings))
            candidates.append(train_network(module, images, targets, loss, held_out, settings, **options))
        return min(candidates, key=lambda trained: trained.valid_loss)

    def transform(self, X: Any) -> FloatArray:
        """Standardised scores (m, K) of images, the average over the networks, and components of the frozen start."""
        view = self._open_same(X)
        parts = []
        for _, chips in view.batches(BATCH):
            images = self.prepare(chips)
            scores = np.mean([self._scores(module, images) for module in self.modules()], axis=0)
            parts.append(np.hstack([(scores - self.score_mean_) / self.score_sd_, self._frozen(images)]))
        return np.concatenate(parts)

    def prepare(self, chips: NDArray[np.float32]) -> Any:
        """Standardised tensor (m, time * band, px, px) of chips (m, time, band, y, x); 0 at invalid pixels."""
        return self._stacked(chips, self.image_px)

    def modules(self) -> list[Any]:
        """The networks, rebuilt from their stored weights where the object was saved or copied."""
        modules = getattr(self, "_modules", None)
        if modules is None:
            modules = [self._build(weights) for weights in self.weights_]
            self._modules = modules
        return modules

    def first(self) -> Any:
        """The small network as it starts, for its components; None for another backbone."""
        if self.start_ and getattr(self, "_first", None) is None:
            self._first = self._build().eval()
        return self._first if self.start_ else None

    def _frozen(self, images: Any) -> FloatArray:
        """Components (m, d) of the frozen start; none for another backbone."""
        module = self.first()
        if module is None:
            return np.empty((len(images), 0))
        return start_features(module, images.to(resolve_device(self.settings.device)))

    def _build(self, weights: dict[str, NDArray[Any]] | None = None) -> Any:
        """A network with these weights; with those of the start and no head to speak of without."""
        import torch

        n_in = len(self.bands_) * max(self.n_time_, 1)
        if self.start_:
            patches, components = self.start_["patches.weight"], self.start_["components.weight"]
            module = patch_network(n_in, self.n_clusters, len(components), len(patches), patches.shape[-1])
        else:
            module = build_network(self.backbone, n_in, self.n_clusters, self.settings.seed)
        given = self.start_ if weights is None else weights
        tensors = {name: torch.from_numpy(np.array(v)) for name, v in given.items()}
        module.load_state_dict(tensors, strict=weights is not None)
        return module.to(resolve_device(self.settings.device))

    def _scores(self, module: Any, images: Any) -> FloatArray:
        import torch

        module.eval()
        device = resolve_device(self.settings.device)
        with torch.inference_mode():
            parts = [module(batch.to(device)).float().cpu().numpy() for batch in images.split(BATCH)]
        return np.concatenate(parts).astype(np.float64)


def build_network(backbone: str, n_in: int, n_clusters: int, seed: int) -> Any:
    """A network from images (batch, n_in, y, x) to a prognosis and K - 1 logits, (batch, K)."""
    import torch
    from torch import nn

    if backbone == "cnn":
        return patch_network(n_in, n_clusters, 8)

    if fixed_input(backbone):
        raise ParameterError(
            f"backbone={backbone!r}, which takes images of one size only",
            expected="a convolutional model of torchvision, such as resnet18",
            todo="pass backbone=TorchvisionEncoder(...), which is not trained",
        )
    body = build_backbone(backbone, n_in, None, seed).requires_grad_(True)
    with torch.no_grad():
        width = body(torch.zeros(1, n_in, 64, 64)).shape[1]
    return nn.Sequential(body, small_head(width, n_clusters))


def small_head(width: int, n_clusters: int) -> Any:
    """Last layer, which starts at nearly equal probabilities."""
    from torch import nn

    head = nn.Linear(width, n_clusters)
    nn.init.normal_(head.weight, std=0.1 / width**0.5)
    nn.init.zeros_(head.bias)
    return head


def untrained(
    module: Any, images: Any, targets: Any, loss: Any, held_out: NDArray[np.bool_], settings: TrainSettings
) -> Trained:
    """The network as it is, with its held-out loss in the batches of training."""
    import torch

    rows = np.flatnonzero(held_out)
    module, loss, total = module.eval(), loss.to(next(module.parameters()).device), 0.0
    device = next(module.parameters()).device
    with torch.inference_mode():
        for start in range(0, len(rows), settings.batch_size):
            batch = rows[start : start + settings.batch_size]
            total += len(batch) * float(loss(module(images[batch].to(device)), targets[batch].to(device)))
    weights = {name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}
    return Trained(weights, total / max(len(rows), 1), [])


def cluster_loss(n_clusters: int, effect: float, *, tied: bool = False, shares: bool = False) -> Any:
    """Negative log likelihood of images' outcomes with trained effects, pivot and noise; see the density module.

    Outputs are (prognosis, logits 2..K), targets count, mean and spread by arm; an image's units share a cluster (or
    the image's mean effect) and a normal image effect. ``effect`` is the constant that effects are taken from;
    ``tied`` noise is that of the arm.
    """
    import torch
    from torch import nn

    class ClusterLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            start = effect + (torch.linspace(-0.5, 0.5, n_clusters) if n_clusters > 1 else torch.zeros(1))
            self.tau = nn.Parameter(start.float())
            self.pivot_logit = nn.Parameter(torch.zeros(()))
            self.log_sigma = nn.Parameter(torch.zeros(2, 1 if tied else n_clusters))
            self.log_omega = nn.Parameter(torch.tensor(-1.5))

        def forward(self, outputs: Any, targets: Any) -> Any:
            n, mean, spread = targets[:, 0:2, None], targets[:, 2:4, None], targets[:, 4:6, None]
            zero = torch.zeros_like(outputs[:, :1])
            log_pi = torch.log_softmax(torch.cat([zero, outputs[:, 1:]], dim=1), dim=1)
            apart: Any = (self.tau - effect)[None, None]  # image, arm, cluster
            log_sigma: Any = self.log_sigma
            if shares:
                mean_effect = (torch.exp(log_pi) * self.tau).sum(dim=1)
                apart, log_sigma = (mean_effect - effect)[:, None, None], log_sigma[:, :1]
                log_pi = zero
            arm = torch.tensor([0.0, 1.0], device=outputs.device)[:, None]
            pivot = torch.sigmoid(self.pivot_logit) if n_clusters > 1 else torch.tensor(0.5)
            e = mean - outputs[:, :1, None] - (arm - 0.5) * effect - (arm - pivot) * apart
            precision = torch.exp(-2 * log_sigma)
            a = n * precision
            total = a.sum(dim=1).clamp_min(1e-12)
            middle = (a * e).sum(dim=1) / total
            ratio = 1 + torch.exp(2 * self.log_omega) * total
            quadratic = (spread * precision + a * (e - middle[:, None]) ** 2).sum(dim=1)
            quadratic = quadratic + total * middle**2 / ratio + torch.log(ratio)
            value = -(n * log_sigma).sum(dim=1) - 0.5 * quadratic
            return -torch.logsumexp(log_pi + value, dim=1).sum() / n.sum().clamp_min(1e-6)

    return ClusterLoss()


# ---------------------------------------------------------------------- the small network
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
        parts = [module.responses(batch).mean(dim=(-2, -1)) for batch in torch.from_numpy(images).split(BATCH)]
    pooled = np.concatenate([batch.numpy() for batch in parts]).astype(np.float64)
    rank = feature_rank(pooled)
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
        parts = [module.features(batch).float().cpu().numpy() for batch in images.split(BATCH)]
    return np.concatenate(parts).astype(np.float64)


def load_likely_head(
    module: Any, loss: Any, features: FloatArray, statistics: FloatArray, prior: Prior, n_clusters: int, seed: int
) -> None:
    """Set the head of the network and the loss's effects and noise to the posterior mode on its components.

    Parameters
    ----------
    module, loss : torch.nn.Module
        Of :func:`patch_network`, and of :func:`cluster_loss`.
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
    mode, _ = find_mode(known, features, prior, n_clusters, np.random.default_rng(seed), RESTARTS)
    p = prior.layout(n_clusters, features, known).unpack(mode)
    weight = np.vstack([p["prognostic"], p["logit"][1:, 1:]])
    bias = np.append(p["intercept"], p["logit"][1:, 0])
    values = {
        module.head.weight: weight,
        module.head.bias: bias,
        loss.tau: p["tau"],
        loss.log_sigma: np.log(p["sigma"])[:, : loss.log_sigma.shape[1]],
        loss.log_omega: np.log(p["site_sd"]),
        loss.pivot_logit: np.log(p["pivot"]) - np.log1p(-p["pivot"]),
    }
    with torch.no_grad():
        for parameter, value in values.items():
            parameter.copy_(torch.as_tensor(value, dtype=torch.float32))
