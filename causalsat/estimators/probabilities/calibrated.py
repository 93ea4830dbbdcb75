"""Calibrated probabilities of an event, from networks and other classifiers that overfit: CaPE."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from causalsat.core import inputs
from causalsat.core.features import SINGLE_RESOLUTION, learn_scaler, observed_means
from causalsat.core.fitting import unfitted_unless_finished
from causalsat.core.inputs import check_whole_numbers
from causalsat.estimators.probabilities.learners import NetworkLearner, RefitLearner, default_network, is_network
from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.chains import seed_of

__all__ = ["CalibratedProbability", "bin_rates"]

FloatArray = NDArray[np.float64]

PATIENCE_EPOCHS, PATIENCE_CYCLES = 8, 3


def bin_rates(
    probability: FloatArray,
    label: FloatArray,
    weight: FloatArray,
    *,
    bins: int,
    smoothing: str,
    fold: NDArray[np.int64],
) -> FloatArray:
    """Event rate around each unit's predicted probability, from the units of the other folds, shape (n,).

    Parameters
    ----------
    probability, label, weight : ndarrays of shape (n,)
        Predictions, 0/1 labels, weights.
    bins : int
        Bins of equal counts; with ``smoothing="kernel"`` the Gaussian kernel over ranks has sd 1 / (2 bins).
    smoothing : {"bins", "kernel"}
        Event rates of bins, or of a kernel over ranks.
    fold : ndarray of int of shape (n,)
        A unit's own fold is left out of its rate, so that no label enters its own target. One fold: it enters.

    Examples
    --------
    >>> p = np.linspace(0, 1, 1000)
    >>> y = (np.random.default_rng(0).random(1000) < p**2).astype(float)
    >>> rates = bin_rates(p, y, np.ones(1000), bins=10, smoothing="bins", fold=np.arange(1000) % 5)
    >>> bool(np.abs(rates - p**2).max() < 0.2), bool(np.abs(rates - p**2).mean() < 0.05)
    (True, True)
    """
    n = len(probability)
    rank = np.argsort(np.argsort(probability, kind="stable"), kind="stable") / n
    mean = float(np.average(label, weights=weight))
    out = np.empty(n)
    for k in np.unique(fold):
        own = fold == k
        others = ~own if (~own).any() else own
        if smoothing == "bins":
            place = np.minimum((rank * bins).astype(np.int64), bins - 1)
            mass = np.bincount(place[others], weight[others], minlength=bins)
            events = np.bincount(place[others], weight[others] * label[others], minlength=bins)
            rate = np.where(mass > 0, events / np.maximum(mass, 1e-300), mean)
            out[own] = rate[place[own]]
        else:
            grid = np.linspace(0, 1, 20 * bins + 1)
            close = np.exp(-0.5 * ((grid[:, None] - rank[others]) * 2 * bins) ** 2) * weight[others]
            out[own] = np.interp(rank[own], grid, close @ label[others] / close.sum(axis=1))
    return out


class CalibratedProbability(ClassifierMixin, BaseEstimator):
    """Calibrated probabilities of a binary event from a network, or from any scikit-learn classifier.

    A network trained on 0/1 labels first learns probabilities and then memorises labels. CaPE (Liu et al. 2022)
    trains until early stopping, and goes on in cycles: predict the training set, sort it into bins of equal counts,
    take each bin's event rate as soft label of its units for one epoch, and train some ordinary epochs, which keep
    the ranking sharp. The epoch with the best held-out log loss is kept, so the result is never worse there than
    early stopping alone. For propensities and risks from images, where a bad probability breaks weighting.

    A classifier that has no epochs is fitted anew in each cycle, to a mixture of labels and bin rates in the same
    proportion; its bins come from out-of-fold predictions.

    Parameters
    ----------
    model : torch.nn.Module, skorch.NeuralNet, scikit-learn classifier or None
        What is trained, on rows of X as they are: one log-odds a row, or two scores. A skorch net keeps its
        optimiser, batches and callbacks. None: two hidden layers on standardised features.
    n_bins : int
        Bins of equal counts.
    smoothing : {"bins", "kernel"}
        Event rates of bins, or of a kernel over ranks.
    cross_fit : int
        Folds: a unit's own fold is left out of its bin's rate. 1 is the original, in which its own label enters.
    cycles : int
        Most cycles; 0 is early stopping alone.
    plain_epochs : int
        Ordinary epochs in a cycle, after the one on bin rates.
    max_epochs : int
        Most epochs of early stopping.
    validation : float
        Share of units (or of whole ``groups``) held out to decide which epoch is kept.
    hidden, learning_rate, weight_decay, batch_size : int, float, float, int
        Of the default network, and of the training of any torch module.
    random_state : int, RandomState or None
        Seed.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The two labels.
    history_ : list of tuple of (str, float)
        Phase ("early stopping", "cycle 1" ...) and held-out log loss after each epoch.
    log_loss_early_, log_loss_ : float
        Held-out log loss of early stopping alone, and of what was kept.

    Notes
    -----
    What it buys beyond early stopping depends on the network, and is often nothing (``benchmarks/RESULTS.md``).
    ``log_loss_early_`` and ``log_loss_`` say whether the cycles helped.

    References
    ----------
    Liu, S., Kaku, A., Zhu, W., et al. (2022). Deep probability estimation. ICML.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((600, 5))
    >>> y = rng.random(600) < 1 / (1 + np.exp(-X[:, 0]))
    >>> model = CalibratedProbability(max_epochs=10, cycles=2, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape, model.log_loss_ <= model.log_loss_early_
    ((600, 2), True)
    """

    _transient: ClassVar[tuple[str, ...]] = ("learner_",)

    def __init__(
        self,
        model: Any = None,
        *,
        n_bins: int = 10,
        smoothing: str = "bins",
        cross_fit: int = 5,
        cycles: int = 10,
        plain_epochs: int = 5,
        max_epochs: int = 60,
        validation: float = 0.2,
        hidden: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        batch_size: int = 64,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.n_bins = n_bins
        self.smoothing = smoothing
        self.cross_fit = cross_fit
        self.cycles = cycles
        self.plain_epochs = plain_epochs
        self.max_epochs = max_epochs
        self.validation = validation
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.random_state = random_state

    # ------------------------------------------------------------------ fit
    def fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> CalibratedProbability:
        """Train and calibrate.

        Parameters
        ----------
        X : array or DataArray of shape (n, ...)
            One row a unit: features, or images for a model that takes them.
        y : array of shape (n,)
            Two labels; the second in order is the event.
        sample_weight : array of shape (n,), optional
            Weights; under selective labels pass the tested units with 1 / P(tested).
        groups : array of shape (n,), optional
            Clusters that the held-out units keep whole.

        Raises
        ------
        DataError, ParameterError
            If y has not two labels, or an input or a parameter cannot be used.
        """
        self._check_parameters()
        with unfitted_unless_finished(self):
            self._fit(*self._check_fit(X, y, sample_weight), None if groups is None else np.asarray(groups))
        return self

    def _fit(self, rows: FloatArray, label: FloatArray, weight: FloatArray, groups: NDArray[Any] | None) -> None:
        rng = np.random.default_rng(seed_of(self.random_state))
        held = _held_out(label, groups, self.validation, rng)
        table = self._learn_scaling(rows, weight)
        self.shape_ = tuple(int(size) for size in table.shape[1:])
        fold = rng.permutation(int((~held).sum())) % int(self.cross_fit)
        learner = self._new_learner(int(rng.integers(2**31 - 1)))
        train, test = (table[~held], label[~held], weight[~held]), (table[held], label[held], weight[held])
        best = self._train(learner, train, test, fold)
        learner.restore(best)
        self.learner_ = learner
        self.weights_ = best if isinstance(best, dict) else {}
        self.estimator_ = None if isinstance(best, dict) else best

    def _train(self, learner: Any, train: Any, test: Any, fold: NDArray[np.int64]) -> Any:
        """Early stopping, then cycles; returns the state with the best held-out log loss."""
        X, label, weight = train
        self.history_: list[tuple[str, float]] = []
        self.log_loss_, best = np.inf, None

        def keep(phase: str) -> bool:
            nonlocal best
            loss = _log_loss(learner.probability(test[0]), *test[1:])
            self.history_.append((phase, loss))
            if loss < self.log_loss_:
                self.log_loss_, best = loss, learner.state()
                return True
            return False

        network, waited = isinstance(learner, NetworkLearner), 0
        for _ in range(int(self.max_epochs) if network else 1):
            learner.epochs(X, label, weight, 1)
            waited = 0 if keep("early stopping") else waited + 1
            if waited >= PATIENCE_EPOCHS:
                break
        if best is None:
            raise DataError("training diverged: no finite held-out loss", todo="lower learning_rate, or scale X")
        self.log_loss_early_, target, waited = self.log_loss_, label, 0
        learner.restore(best)
        for cycle in range(1, int(self.cycles) + 1):
            p = learner.training_probability(X, target, weight)
            rates = bin_rates(p, label, weight, bins=int(self.n_bins), smoothing=self.smoothing, fold=fold)
            better = False
            if network:
                learner.epochs(X, rates, weight, 1)
                better = keep(f"cycle {cycle}")
                for _ in range(int(self.plain_epochs)):
                    learner.epochs(X, label, weight, 1)
                    better |= keep(f"cycle {cycle}")
            else:
                target = (self.plain_epochs * label + rates) / (self.plain_epochs + 1)
                learner.epochs(X, target, weight, 1)
                better = keep(f"cycle {cycle}")
            waited = 0 if better else waited + 1
            if waited >= PATIENCE_CYCLES:
                break
        return best

    def _new_learner(self, seed: int) -> Any:
        model = self.model
        settings = {
            name: getattr(self, name) for name in ("learning_rate", "weight_decay", "batch_size")
        } | {"seed": seed}  # fmt: skip
        if model is None:
            import torch

            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = default_network(self.shape_[0], int(self.hidden))
        return (NetworkLearner if is_network(model) else RefitLearner)(model, len(self.shape_), settings)

    # ------------------------------------------------------------------ predictions
    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of both labels, shape (n, 2)."""
        check_is_fitted(self, "classes_")
        table = self._scaled(self._rows(X))
        if table.shape[1:] != self.shape_:
            raise DataError(
                f"rows of shape {table.shape[1:]}",
                expected=f"{self.shape_} as in training",
                todo="pass the same features",
            )
        p = self._learner().probability(table)
        return np.column_stack([1.0 - p, p])

    def predict(self, X: Any) -> NDArray[Any]:
        """The likelier label, shape (n,)."""
        p = self.predict_proba(X)
        return np.asarray(self.classes_[(p[:, 1] > 0.5).astype(int)])

    def _learner(self) -> Any:
        """What was trained; after loading, the network is made anew and given its weights."""
        if not hasattr(self, "learner_"):
            learner = self._new_learner(0)
            learner.restore(self.weights_ if self.estimator_ is None else self.estimator_)
            self.learner_ = learner
        return self.learner_

    # ------------------------------------------------------------------ checks
    def _check_parameters(self) -> None:
        check_whole_numbers(
            self,
            {
                "n_bins": 2,
                "cross_fit": 1,
                "cycles": 0,
                "plain_epochs": 0,
                "max_epochs": 1,
                "hidden": 1,
                "batch_size": 1,
            },
        )
        if self.smoothing not in ("bins", "kernel"):
            raise ParameterError(f"smoothing={self.smoothing!r}", expected="'bins' or 'kernel'")
        if not 0 < self.validation < 1:
            raise ParameterError(f"validation={self.validation!r}", expected="a share between 0 and 1")

    def _check_fit(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, FloatArray, FloatArray]:
        rows = self._rows(X)
        labels = np.asarray(y)
        if labels.shape != (len(rows),):
            raise DataError(f"y of shape {labels.shape} for {len(rows)} rows", expected="one label a row")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) != 2:
            raise DataError(
                f"{len(self.classes_)} labels in y, one class or several classes", expected="two labels",
                todo="code the event as 1 and the rest as 0",
            )  # fmt: skip
        return rows, codes.astype(float), inputs.check_weights(sample_weight, len(rows))

    def _rows(self, X: Any) -> Any:
        """Rows as single-precision numbers for networks, as they come for other classifiers."""
        values = np.asarray(X)
        if values.ndim < 2:
            raise DataError(
                f"X of shape {values.shape}", expected="one row a unit: an array of two or more dimensions"
            )
        network = self.model is None or is_network(self.model)
        return values.astype(np.float32) if network else values

    def _learn_scaling(self, rows: Any, weight: FloatArray) -> Any:
        """Mean and spread of the features of the default network; NaN counts as the mean."""
        if self.model is not None:
            return rows
        if rows.ndim != 2:
            raise DataError(
                f"X of shape {rows.shape} and model=None", expected="a table of features, or a model for images"
            )
        filled = np.where(np.isfinite(rows), rows, observed_means(rows, weight))
        scaler = learn_scaler(filled, weight, resolution=SINGLE_RESOLUTION)
        self.mean_, self.scale_ = scaler.mean, scaler.scale
        return self._scaled(rows)

    def _scaled(self, rows: Any) -> Any:
        if self.model is not None:
            return rows
        if rows.shape[1] != len(self.mean_):
            raise DataError(f"{rows.shape[1]} features", expected=f"{len(self.mean_)} features, as in training")
        return (np.where(np.isfinite(rows), rows - self.mean_, 0.0) / self.scale_).astype(np.float32)

    def __sklearn_tags__(self) -> Any:
        """Two classes."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _held_out(label: FloatArray, groups: Any, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Units held out: a share of each label, or of whole groups."""
    n = len(label)
    out = np.zeros(n, dtype=bool)
    if groups is not None:
        names = rng.permutation(np.unique(groups))
        out = np.isin(groups, names[: max(1, round(share * len(names)))])
    else:
        for value in (0.0, 1.0):
            rows = rng.permutation(np.flatnonzero(label == value))
            out[rows[: max(1, round(share * len(rows)))]] = True
    if len(np.unique(label[~out])) < 2 or not out.any():
        raise DataError(
            f"{n} units leave one class after holding out {share:g} of them",
            expected="units of both labels to train on", todo="pass more units, or a smaller validation",
        )  # fmt: skip
    return out


def _log_loss(p: FloatArray, label: FloatArray, weight: FloatArray) -> float:
    inside = np.clip(p, 1e-7, 1 - 1e-7)
    return float(-np.average(label * np.log(inside) + (1 - label) * np.log1p(-inside), weights=weight))
