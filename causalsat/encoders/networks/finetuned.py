"""Networks trained to their end on outcomes and treatments, cross-fitted over sites."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders import chips as _chips
from causalsat.encoders.base import feature_array
from causalsat.encoders.chips import Float32Array
from causalsat.encoders.device import resolve_device
from causalsat.encoders.networks import finetune_network as network
from causalsat.encoders.networks.finetune_network import Start
from causalsat.encoders.networks.module_encoder import as_transformer
from causalsat.encoders.networks.outcomes import AnsweringEncoder, Units
from causalsat.encoders.networks.torchvision_encoder import TorchvisionEncoder
from causalsat.encoders.networks.training import TrainSettings
from causalsat.exceptions import ParameterError

__all__ = ["FineTunedEncoder"]

FloatArray = NDArray[np.float64]


class FineTunedEncoder(AnsweringEncoder, BaseEstimator):
    """What a network, itself trained on outcome and treatment, says of a place, never from the place's own outcomes.

    Takes the network of an encoder (a foundation model in a :class:`ModuleEncoder`, a backbone of torchvision, a
    network that was trained without labels) and trains all of it, or its last stages, so that
    ``mu(x) + (t - mean t) tau(x)`` predicts the outcome (the R-learner's decomposition; Nie and Wager 2021,
    Biometrika 108(2), equation 4, with the mean of the treatment for the propensity). Its answers mu, tau (and e) are
    the features. :class:`SupervisedEncoder` leaves the network as it is and trains on its features.

    The answers start at the ridge regression on the features of the network as it was. A stage learns at ``decay``
    times the rate of the next, the answers at the full rate (Howard and Ruder 2018, ACL, section 3.2). A fifth of the
    sites decides when to stop, and where no epoch predicts them better than the start, the start is kept: fine-tuning
    that does not pay costs time and nothing else. Batch normalisation keeps its statistics.

    ``fit_transform`` gives each training place the answers of the network of the folds that it is not in;
    ``transform`` gives the mean answer of all folds' networks. Outcomes and roles arrive as for
    :class:`SupervisedEncoder`: inside an :class:`ImageEncoder` with ``n_components=None``.

    Parameters
    ----------
    encoder : transformer of chips, optional
        A :class:`ModuleEncoder`, :class:`TorchvisionEncoder` or :class:`SelfSupervisedEncoder`, also what
        :func:`pretrain` returns; default ``TorchvisionEncoder("resnet18", "DEFAULT")``. Of a sequence, each date goes
        through the same network.
    targets : {"effect", "effect+treatment"}, default "effect"
        Whether the network also predicts the treatment, for studies that are not randomised.
    n_stages : int, optional
        How many of the network's last stages are trained (a stage is a child of the module, or of a child that holds
        more than half of its parameters); default all.
    learning_rate : float, default 1e-3
        Of the answers.
    decay : float, default 0.4
        Learning rate of a stage over that of the next.
    weight_decay : float, default 1e-2
        Of AdamW.
    augment : bool, default True
        Flip, turn and shift the training images.
    n_folds : int, default 5
        Folds over sites: as many networks are trained.
    max_epochs, patience : int
        Most epochs, and epochs without a better loss on the held-out sites after which training stops.
    batch_size : int, default 32
        Places in a step.
    random_state : int, default 0
        Seed of folds, batches and augmentation.
    device : str, default "auto"
        ``"auto"`` (GPU if there is one), ``"cpu"``, ``"cuda"``.
    checkpoint : str, optional
        Beginning of the names of files, one a fold (``<checkpoint>.fold0``, ...), that are written after each epoch
        and from which an interrupted training goes on (``ResumeError`` where one is damaged or of another training).
        For one fit: a cross-validation fits several times.
    progress : bool, default False
        Show a bar over epochs, for each fold.

    Attributes
    ----------
    encoder_ : transformer
        Fitted encoder, whose network is the start.
    weights_ : list of dict of ndarray
        Of each fold: the answers and the arrays of the network that were trained.
    losses_ : list of tuple of float
        Of each fold: loss on its held-out sites of the network as it was, and of the best epoch.
    history_ : list of list of tuple of float
        Of each fold: training and held-out loss by epoch.
    folds_ : ndarray of shape (places,)
        Fold in which each training place was held out.

    Examples
    --------
    >>> import torch
    >>> from causalsat import ModuleEncoder
    >>> rng = np.random.default_rng(0)
    >>> chips = rng.normal(size=(60, 1, 8, 8)) + rng.normal(size=(60, 1, 1, 1))
    >>> t = rng.integers(0, 2, 60)
    >>> y = t * chips.mean(axis=(1, 2, 3))
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    >>> encoder = FineTunedEncoder(ModuleEncoder(net), n_folds=2, max_epochs=2)
    >>> encoder.fit_transform(chips, y, treatment=t).shape, encoder.get_feature_names_out().tolist()
    ((60, 2), ['mu', 'tau'])
    """

    _transient: ClassVar[tuple[str, ...]] = ("_networks",)

    def __init__(
        self,
        encoder: Any = None,
        targets: str = "effect",
        *,
        n_stages: int | None = None,
        learning_rate: float = 1e-3,
        decay: float = 0.4,
        weight_decay: float = 1e-2,
        augment: bool = True,
        n_folds: int = 5,
        max_epochs: int = 40,
        patience: int = 6,
        batch_size: int = 32,
        random_state: int = 0,
        device: str = "auto",
        checkpoint: str | None = None,
        progress: bool = False,
    ) -> None:
        self.encoder = encoder
        self.targets = targets
        self.n_stages = n_stages
        self.learning_rate = learning_rate
        self.decay = decay
        self.weight_decay = weight_decay
        self.augment = augment
        self.n_folds = n_folds
        self.max_epochs = max_epochs
        self.patience = patience
        self.batch_size = batch_size
        self.random_state = random_state
        self.device = device
        self.checkpoint = checkpoint
        self.progress = progress

    # ------------------------------------------------------------------ fit
    def _learn(self, X: Any, units: Units) -> FloatArray:
        outcome, t, place, site = units
        self.encoder_ = (
            TorchvisionEncoder("resnet18", "DEFAULT") if self.encoder is None else as_transformer(self.encoder)
        )
        if not hasattr(self.encoder_, "tunable") or getattr(self.encoder_, "dense_stride", None) is not None:
            raise ParameterError(
                f"encoder={self.encoder_!r}",
                expected="one with a network that takes chips",
                todo="pass ModuleEncoder(your_module), TorchvisionEncoder(...) or SelfSupervisedEncoder()",
            )
        features = feature_array(self.encoder_.fit(X, None).transform(X))
        seen: NDArray[np.bool_] = np.asarray(np.isfinite(features).any(axis=1))
        self.mean_ = np.nanmean(features[seen], axis=0)
        spread = np.nanstd(features[seen], axis=0)
        self.sd_ = np.where(spread > 1e-6 * np.abs(self.mean_).max(initial=1e-12), spread, np.inf)
        scores = np.nan_to_num((features - self.mean_) / self.sd_)
        images = self._images(X)[0]
        fold_of_site = units.shuffled_sites(self.random_state) % self.n_folds
        place_site = units.site_of_places(len(features))
        self.folds_ = fold_of_site[place_site]
        self.weights_: list[dict[str, NDArray[Any]]] = []
        self.losses_: list[tuple[float, float]] = []
        self.history_: list[list[tuple[float, float]]] = []
        self.outcome_: list[list[float]] = []
        self._networks: dict[int, Any] = {}
        answers = np.full((len(features), len(self.get_feature_names_out())), np.nan)
        for k in range(self.n_folds):
            use = (fold_of_site[site] != k) & seen[place]
            centre, scale, share = (float(v) for v in (outcome[use].mean(), outcome[use].std(), t[use].mean()))
            self.outcome_.append([centre, scale or 1.0])
            y_scaled = (outcome[use] - centre) / (scale or 1.0)
            sums = network.place_sums(y_scaled, t[use], share, place[use], len(features))
            self._train(k, scores, images, sums, place_site)
            held = (self.folds_ == k) & seen
            answers[held] = self._answers(k, images[held])
        return answers

    def _check_parameters(self) -> None:
        self._check_targets()
        for name, low in (("n_folds", 2), ("max_epochs", 1), ("patience", 1), ("batch_size", 1), ("n_stages", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ParameterError(f"{name}={value}", expected=f"at least {low}")
        if not 0 < self.decay <= 1 or not self.learning_rate > 0:
            raise ParameterError(
                f"decay={self.decay}, learning_rate={self.learning_rate}",
                expected="a share between 0 and 1, and a rate above 0",
            )

    def _train(
        self, fold: int, scores: FloatArray, images: Float32Array, sums: FloatArray, site: NDArray[np.int64]
    ) -> None:
        """Train a fold's network on the places that have units outside of the fold."""
        rows = sums[:, 0] > 0
        seed = int(np.random.default_rng([self.random_state, fold]).integers(2**31))
        sites = np.unique(site[rows])
        order = np.random.default_rng(seed).permutation(sites)
        held_out = np.isin(site[rows], order[: max(1, len(sites) // 5)])
        weight, bias = network.ridge_start(scores[rows], sums[rows], held_out, len(self.get_feature_names_out()))
        settings = TrainSettings(
            max_epochs=self.max_epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            augment=self.augment,
            device=self.device,
            seed=seed,
            checkpoint=None if self.checkpoint is None else f"{self.checkpoint}.fold{fold}",
            progress=self.progress,
        )
        tuned = self._build(Start(self.mean_, self.sd_, weight, bias))
        found = network.train_tuned(tuned, images[rows], sums[rows], held_out, self.n_stages, self.decay, settings)
        self.weights_.append(found.weights)
        self.losses_.append((found.start_loss, min(found.loss, found.start_loss)))
        self.history_.append(found.history)

    def _build(self, start: Start) -> Any:
        module, forward = self.encoder_.tunable()
        return network.build_tuned(module, forward, max(self._dates(), 1), start)

    def _dates(self) -> int:
        return int(self.encoder_.n_time_)

    # ------------------------------------------------------------------ features
    def transform(self, X: Any) -> FloatArray:
        """Mean answer of all folds' networks, shape (n, 2 or 3); NaN for chips without a valid pixel.

        Parameters
        ----------
        X : ndarray or DataArray of shape (place, [time,] band, y, x)
            Chips with the bands (and dates) of the fit.
        """
        check_is_fitted(self)
        images, seen = self._images(self.encoder_._open_known(X).data)
        found = np.full((len(images), len(self.get_feature_names_out())), np.nan)
        if seen.any():
            found[seen] = np.mean([self._answers(k, images[seen]) for k in range(len(self.weights_))], axis=0)
        return found

    def _images(self, X: Any) -> tuple[Float32Array, NDArray[np.bool_]]:
        """The network's images (n, dates * band, y, x), and which have a valid pixel at any date."""
        chips = _chips.open_chips(X).take(slice(None))
        n, dates = chips.shape[:2]
        images: Float32Array
        images, seen = self.encoder_.network_images(chips.reshape(n * dates, *chips.shape[2:]))
        return images.reshape(n, -1, *images.shape[-2:]), np.asarray(seen.reshape(n, dates).any(axis=1))

    def _answers(self, fold: int, images: Float32Array) -> FloatArray:
        """Answers of a fold's network in the outcome's units; e as a probability."""
        import torch

        device, tuned = resolve_device(self.device), self._network(fold)
        tuned.to(device).eval()
        with torch.inference_mode():
            parts = [
                tuned(torch.from_numpy(images[i : i + self.batch_size]).to(device)).cpu().numpy()
                for i in range(0, len(images), self.batch_size)
            ]
        found = np.concatenate(parts).astype(np.float64) if parts else np.empty((0, 2))
        return self._in_units_of(found, *self.outcome_[fold])

    def _network(self, fold: int) -> Any:
        """A fold's network, rebuilt from the encoder's and the stored weights where it was saved or copied."""
        import torch

        if not hasattr(self, "_networks"):
            self._networks = {}
        if fold not in self._networks:
            weights = {k: torch.from_numpy(np.array(v)) for k, v in self.weights_[fold].items()}
            nothing = Start(self.mean_, self.sd_, *(weights[f"answers.{k}"].numpy() for k in ("weight", "bias")))
            tuned = self._build(nothing)
            tuned.load_state_dict(weights, strict=False)
            self._networks[fold] = tuned.requires_grad_(False)
        return self._networks[fold]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the networks, which can be made again, out of pickles and copies."""
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_networks", None)
        return state
