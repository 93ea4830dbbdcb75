"""Features trained on outcomes and treatments, cross-fitted over sites."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from causalsat.encoders.base import feature_array
from causalsat.encoders.networks import supervised_network as network
from causalsat.encoders.networks.module_encoder import as_transformer
from causalsat.encoders.networks.outcomes import AnsweringEncoder, Units
from causalsat.encoders.networks.supervised_network import SupervisedShape
from causalsat.encoders.networks.training import TrainSettings
from causalsat.encoders.random_conv.features import RandomConvFeatures
from causalsat.encoders.reduce import Reduction, count_varying, learn_reduction
from causalsat.exceptions import ParameterError

__all__ = ["SupervisedEncoder"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class SupervisedEncoder(AnsweringEncoder, BaseEstimator):
    """What a network trained on outcome and treatment predicts of a place, never from the place's own outcomes.

    An encoder without labels turns chips into features; a network on top of them is trained so that
    ``mu(x) + (t - mean t) tau(x)`` predicts the outcome (the R-learner's decomposition; Nie and Wager 2021,
    Biometrika 108(2), equation 4, with the mean of the treatment for the propensity), and, where asked, so that
    ``e(x)`` predicts the treatment. Its answers mu, tau (and e) are the features.

    The network starts at a ridge regression and learns what that misses. Features of the training places are
    cross-fitted, as scikit-learn's ``TargetEncoder`` does it: ``fit_transform``
    gives each place the answer of a network that was trained on the other folds of sites, so that an effect head
    fitted on them is not misled by overfitting. ``transform`` gives the mean answer of all folds' networks.

    On simulated trials of 250 sites, features without labels and a linear effect head did as well as this
    (``benchmarks/RESULTS.md``), with 70 sites better: it is for larger studies, and for comparison.

    Inside an :class:`ImageEncoder` (with ``n_components=None``) the outcome and the roles arrive by themselves in
    ``Study.fit``, :func:`causalsat.evaluation.crossfit_effects` and :func:`causalsat.compare`.

    Parameters
    ----------
    encoder : transformer of chips, optional
        Default :class:`RandomConvFeatures` with band statistics; a :class:`SequenceEncoder` for sequences, a
        pretrained one.
    targets : {"effect", "effect+treatment"}, default "effect"
        Whether the network also predicts the treatment, for studies that are not randomised.
    n_components : int, default 12
        Principal components of the encoder's features that the network reads.
    width : int, default 32
        Hidden units.
    n_folds : int, default 5
        Folds over sites.
    max_epochs, learning_rate, weight_decay
        Of the training; it stops where the loss of a fifth of the sites, held out, has not fallen for 10 epochs.
    random_state : int, default 0
        Seed of folds, weights and batches.

    Attributes
    ----------
    encoder_ : transformer
        Fitted encoder.
    weights_ : list of dict of ndarray
        The network of each fold.
    folds_ : ndarray of shape (places,)
        Fold in which each training place was held out.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> chips = rng.normal(size=(60, 1, 8, 8)) + rng.normal(size=(60, 1, 1, 1))
    >>> t = rng.integers(0, 2, 60)
    >>> y = t * chips.mean(axis=(1, 2, 3))
    >>> encoder = SupervisedEncoder(RandomConvFeatures(8), n_folds=2, max_epochs=5)
    >>> encoder.fit_transform(chips, y, treatment=t).shape, encoder.get_feature_names_out().tolist()
    ((60, 2), ['mu', 'tau'])
    """

    def __init__(
        self,
        encoder: Any = None,
        targets: str = "effect",
        *,
        n_components: int = 12,
        width: int = 32,
        n_folds: int = 5,
        max_epochs: int = 100,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-1,
        random_state: int = 0,
    ) -> None:
        self.encoder = encoder
        self.targets = targets
        self.n_components = n_components
        self.width = width
        self.n_folds = n_folds
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state

    # ------------------------------------------------------------------ fit
    def _learn(self, X: Any, units: Units) -> FloatArray:
        outcome, t, place, site = units
        self.encoder_ = RandomConvFeatures(statistics=True) if self.encoder is None else as_transformer(self.encoder)
        features = feature_array(self.encoder_.fit(X, None).transform(X))
        seen: NDArray[np.bool_] = np.asarray(np.isfinite(features).any(axis=1))
        varying = count_varying(features[seen]) if seen.any() else 0
        most = max(1, min(self.n_components, int(seen.sum()) - 1, varying))
        self.reduction_: Reduction = learn_reduction(features[seen], most)
        scores = self._scores(features)
        fold_of_site = units.shuffled_sites(self.random_state) % self.n_folds
        self.folds_ = fold_of_site[units.site_of_places(len(features))]
        unit_fold = fold_of_site[site]
        self.weights_: list[dict[str, NDArray[Any]]] = []
        self.outcome_: list[list[float]] = []
        answers = np.full((len(features), len(self.get_feature_names_out())), np.nan)
        for k in range(self.n_folds):
            use = (unit_fold != k) & seen[place]
            centre, scale, share = (float(v) for v in (outcome[use].mean(), outcome[use].std(), t[use].mean()))
            self.outcome_.append([centre, scale or 1.0, share])
            targets = np.column_stack([(outcome - centre) / (scale or 1.0), t - share])
            self.weights_.append(self._train(scores[place[use]], targets[use], site[use], k))
            held = self.folds_ == k
            answers[held] = self._answers(k, scores[held])
        answers[~seen] = np.nan
        return answers

    def _check_parameters(self) -> None:
        self._check_targets()
        for name, low in (("n_components", 1), ("width", 1), ("n_folds", 2), ("max_epochs", 1)):
            if getattr(self, name) < low:
                raise ParameterError(f"{name}={getattr(self, name)}", expected=f"at least {low}")

    def _train(self, x: FloatArray, targets: FloatArray, site: IntArray, fold: int) -> dict[str, NDArray[Any]]:
        seed = int(np.random.default_rng([self.random_state, fold]).integers(2**31))
        settings = TrainSettings(
            max_epochs=self.max_epochs,
            patience=10,
            batch_size=128,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            augment=False,
            device="cpu",
            seed=seed,
        )
        return network.train_supervised(x, targets, site, self._shape(), settings)

    def _shape(self) -> SupervisedShape:
        return SupervisedShape(self.reduction_.n_out, self.width, self.targets == "effect+treatment")

    def _scores(self, features: FloatArray) -> FloatArray:
        return np.nan_to_num(self.reduction_.apply(features))

    def _answers(self, fold: int, scores: FloatArray) -> FloatArray:
        """Answers of a fold's network in the outcome's units; e as a probability."""
        found = network.answer(self.weights_[fold], self._shape(), scores)
        return self._in_units_of(found, *self.outcome_[fold][:2])

    # ------------------------------------------------------------------ features
    def transform(self, X: Any) -> FloatArray:
        """Mean answer of all folds' networks, shape (n, 2 or 3); NaN for chips without a valid pixel.

        Parameters
        ----------
        X : ndarray or DataArray of shape (place, [time,] band, y, x)
            Chips with the bands (and dates) of the fit.
        """
        check_is_fitted(self)
        features = feature_array(self.encoder_.transform(X))
        return self._average(features)

    def _average(self, features: FloatArray) -> FloatArray:
        scores = self._scores(features)
        answers = np.mean([self._answers(k, scores) for k in range(len(self.weights_))], axis=0)
        answers[~np.isfinite(features).any(axis=1)] = np.nan
        return np.asarray(answers)

    @property
    def reads_dates(self) -> bool:
        """Whether the encoder takes the days of a window's frames."""
        return bool(getattr(self.encoder, "reads_dates", False))

    def _has_dense(self) -> bool:
        return hasattr(getattr(self, "encoder_", self.encoder or RandomConvFeatures()), "dense")

    @available_if(_has_dense)
    def dense(self, window: Any, rows: ArrayLike, cols: ArrayLike, size_px: int) -> FloatArray:
        """Features of many overlapping chips of one window; see the encoder's own ``dense``."""
        check_is_fitted(self)
        return self._average(np.asarray(self.encoder_.dense(window, rows, cols, size_px), dtype=float))
