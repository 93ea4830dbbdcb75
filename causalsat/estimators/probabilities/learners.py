"""What CalibratedProbability trains on soft labels: networks by epochs, other classifiers by fitting anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import DataError, ParameterError

FloatArray = NDArray[np.float64]

FOLDS = 3  # of the predictions of a classifier that remembers its training set


def is_network(model: Any) -> bool:
    """Whether a model is a torch module or a skorch net, known without importing torch."""
    names = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(model).__mro__}
    return bool(names & {"torch.Module", "skorch.NeuralNet"})


def default_network(n_features: int, hidden: int) -> Any:
    """Two hidden layers with dropout: the network of a table of features."""
    from torch import nn

    first, second, last = nn.Linear(n_features, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(0.2), second, nn.ReLU(), last)


# ---------------------------------------------------------------------- networks
def soft_loss(outputs: Any, targets: Any, probabilities: bool = False) -> Any:
    """Weighted cross-entropy of soft labels; ``targets`` (n, 2) holds label and weight."""
    import torch

    return torch.nn.functional.binary_cross_entropy_with_logits(
        logits(outputs, probabilities), targets[:, 0], weight=targets[:, 1], reduction="sum"
    ) / targets[:, 1].sum().clamp_min(1e-12)


def logits(outputs: Any, probabilities: bool = False) -> Any:
    """Log-odds, shape (n,), of outputs (n,), (n, 1) or (n, 2), or of the probabilities of two classes."""
    if isinstance(outputs, tuple):
        outputs = outputs[0]
    if outputs.ndim == 1:
        return outputs
    if outputs.ndim != 2 or outputs.shape[1] > 2:
        raise DataError(
            f"a network with outputs of shape {tuple(outputs.shape)}", expected="one log-odds, or two scores, a row"
        )
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    if probabilities:
        outputs = outputs.clamp_min(1e-12).log()
    return outputs[:, 1] - outputs[:, 0]


class NetworkLearner:
    """A torch module trained epoch by epoch with skorch; random numbers of torch stay as they were."""

    def __init__(self, model: Any, n: int, settings: dict[str, Any]) -> None:
        import torch
        from sklearn.base import clone
        from skorch import NeuralNet

        class SoftLoss(torch.nn.Module):
            def __init__(self, probabilities: bool = False) -> None:
                super().__init__()
                self.probabilities = probabilities

            def forward(self, outputs: Any, targets: Any) -> Any:
                return soft_loss(outputs, targets, self.probabilities)

        self._seed, self.probabilities = int(settings["seed"]), False
        self._generator = torch.Generator().manual_seed(self._seed)
        with self._own_randomness():
            if isinstance(model, torch.nn.Module):
                from copy import deepcopy

                self.net = NeuralNet(
                    deepcopy(model), criterion=SoftLoss, optimizer=torch.optim.AdamW, lr=settings["learning_rate"],
                    optimizer__weight_decay=settings["weight_decay"], batch_size=settings["batch_size"],
                )  # fmt: skip
            else:
                self.net = clone(model)
                self.probabilities = getattr(model.criterion, "__name__", "") == "NLLLoss"
                self.net.set_params(criterion=SoftLoss)
            self.net.set_params(
                train_split=None, verbose=0, callbacks__print_log=None, criterion__probabilities=self.probabilities,
                iterator_train__shuffle=True, iterator_train__generator=self._generator,
            )  # fmt: skip
            self.net.initialize()

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            self._seed += 1
            yield

    def epochs(self, X: Any, soft: FloatArray, weight: FloatArray, n: int) -> None:
        """Train for n epochs."""
        import torch

        targets = torch.from_numpy(np.column_stack([soft, weight]).astype(np.float32))
        with self._own_randomness():
            self.net.fit_loop(X, targets, epochs=n)

    def probability(self, X: Any) -> FloatArray:
        """Probabilities of the second class, shape (n,)."""
        import torch

        with torch.random.fork_rng(), torch.inference_mode():
            batches = [logits(batch, self.probabilities) for batch in self.net.forward_iter(X)]
            return np.asarray(torch.sigmoid(torch.cat(batches)).double().cpu().numpy())

    def training_probability(self, X: Any, soft: FloatArray, weight: FloatArray) -> FloatArray:
        """Probabilities of training rows for the bins."""
        return self.probability(X)

    def state(self) -> dict[str, NDArray[Any]]:
        """Weights of the network."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.net.module_.state_dict().items()}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Put weights back."""
        import torch

        self.net.module_.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in state.items()})


# ---------------------------------------------------------------------- other classifiers
class RefitLearner:
    """A scikit-learn classifier fitted anew: a soft label is both labels, weighted."""

    def __init__(self, model: Any, n: int, settings: dict[str, Any]) -> None:
        from sklearn.utils.validation import has_fit_parameter

        if not hasattr(model, "predict_proba") or not hasattr(model, "fit"):
            raise ParameterError(f"model={model!r}", expected="a classifier with predict_proba, or a torch module")
        if not has_fit_parameter(model, "sample_weight"):
            raise ParameterError(
                f"model={type(model).__name__}, whose fit takes no sample_weight",
                expected="a classifier that takes weights, which soft labels need",
            )
        self.template, self.fitted = model, None

    def _fit(self, X: Any, soft: FloatArray, weight: FloatArray) -> Any:
        from sklearn import config_context
        from sklearn.base import clone

        both = np.concatenate([weight * (1 - soft), weight * soft])
        keep = both > 0
        label = np.repeat([0, 1], len(soft))
        rows = np.tile(np.arange(len(soft)), 2)[keep]
        with config_context(enable_metadata_routing=False):
            return clone(self.template).fit(X[rows], label[keep], sample_weight=both[keep])

    def epochs(self, X: Any, soft: FloatArray, weight: FloatArray, n: int) -> None:
        """Fit anew."""
        self.fitted = self._fit(X, soft, weight)

    def probability(self, X: Any) -> FloatArray:
        """Probabilities of the second class, shape (n,)."""
        return _second(self.fitted, X)

    def training_probability(self, X: Any, soft: FloatArray, weight: FloatArray) -> FloatArray:
        """Probabilities of training rows for the bins, each by a fit to the other folds: trees remember labels."""
        fold = np.arange(len(soft)) % FOLDS
        out = np.empty(len(soft))
        for k in range(FOLDS):
            out[fold == k] = _second(self._fit(X[fold != k], soft[fold != k], weight[fold != k]), X[fold == k])
        return out

    def state(self) -> Any:
        """The fitted classifier."""
        return self.fitted

    def restore(self, state: Any) -> None:
        """Put a fitted classifier back."""
        self.fitted = state


def _second(model: Any, X: Any) -> FloatArray:
    probability = np.asarray(model.predict_proba(X), dtype=float)
    if probability.shape[1] == 1:  # one class only was seen
        return np.full(len(probability), float(model.classes_[0]))
    return probability[:, 1]
