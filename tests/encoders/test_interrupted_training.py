"""Ctrl-C during a training ends it: it propagates, and nothing that is half trained is taken for finished."""

from __future__ import annotations

import os
import signal
import warnings

import geopandas as gpd
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError

from causalsat import (
    VLUCI,
    CalibratedProbability,
    FineTunedEncoder,
    ImageEffectClusters,
    LearnedFilters,
    ModuleEncoder,
    RandomConvFeatures,
    SelfSupervisedEncoder,
    SequenceEncoder,
    Study,
    SupervisedEncoder,
    TLearnerEffect,
    TransTEE,
    compare,
)
from causalsat.encoders.networks import training
from causalsat.encoders.networks.training import TrainSettings, train_network
from causalsat.exceptions import CausalsatWarning

RNG = np.random.default_rng(0)
T = np.arange(60) % 2
CHIPS = (RNG.normal(size=(60, 2, 8, 8)) + RNG.normal(size=(60, 1, 1, 1))).astype(np.float32)
Y = T * CHIPS.mean(axis=(1, 2, 3)) + 0.1 * RNG.normal(size=60)
SEQUENCES = np.stack([CHIPS, 0.5 * CHIPS[::-1]], axis=1)
TABLE = RNG.normal(size=(60, 3))


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Python's own handler, also where the tests run in the background, whose processes ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupt_at(monkeypatch):
    """Press Ctrl-C, as the operating system does, at the n-th pass through training batches."""

    def arrange(n: int):
        passes = []
        whole = training._Batches.__iter__

        def pressing(self):
            if self.settings is not None:
                passes.append(1)
                if len(passes) == n:
                    signal.raise_signal(signal.SIGINT)
            yield from whole(self)

        monkeypatch.setattr(training._Batches, "__iter__", pressing)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        yield arrange
    monkeypatch.undo()


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))


SMALL_CLUSTERS = {"n_draws": 50, "n_tune": 50, "n_restarts": 1, "n_folds": 2, "random_state": 0, "n_clusters": 2}
SMALL_VLUCI = {"n_networks": 1, "n_imputations": 1, "random_state": 0, "base": TLearnerEffect(n_bootstrap=2)}
TRAINED = {
    "self-supervised": (SelfSupervisedEncoder(width=4, max_epochs=4), CHIPS, {}),
    "attention": (
        SequenceEncoder(RandomConvFeatures(8), "attention", n_tokens=4, n_outputs=2, max_epochs=4),
        SEQUENCES,
        {},
    ),
    "supervised": (SupervisedEncoder(RandomConvFeatures(8), n_folds=3, max_epochs=3), CHIPS, {"treatment": T}),
    "fine-tuned": (FineTunedEncoder(ModuleEncoder(small()), n_folds=3, max_epochs=3), CHIPS, {"treatment": T}),
    "transtee": (TransTEE(max_epochs=4, random_state=0), TABLE, {"treatment": T}),
    "clusters": (
        ImageEffectClusters(backbone="cnn", max_epochs=4, **SMALL_CLUSTERS),
        CHIPS,
        {"treatment": T},
    ),
    "vluci": (VLUCI(inference="variational", max_epochs=4, **SMALL_VLUCI), TABLE, {"treatment": T}),
}


@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupted_fit_propagates_and_is_no_fit(name, interrupt_at):
    model, X, roles = TRAINED[name]
    interrupt_at(3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, **roles)
    ask = model.transform if hasattr(model, "transform") else model.predict
    with pytest.raises(NotFittedError):
        ask(X)


def test_an_earlier_fit_is_not_mixed_with_an_interrupted_one(interrupt_at):
    encoder = SupervisedEncoder(RandomConvFeatures(8), n_folds=3, max_epochs=3).fit(CHIPS, Y, treatment=T)
    interrupt_at(2)
    with pytest.raises(KeyboardInterrupt):
        encoder.fit(CHIPS, -Y, treatment=T)
    with pytest.raises(NotFittedError):
        encoder.transform(CHIPS)


def test_an_error_in_a_fit_leaves_it_unfitted_too(monkeypatch):
    encoder = LearnedFilters(max_px=4).fit(CHIPS, Y, treatment=T)

    def broken(*_args, **_kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("causalsat.encoders.filters.learned.make_target", broken)
    with pytest.raises(RuntimeError):
        encoder.fit(CHIPS, Y, treatment=T)
    with pytest.raises(NotFittedError):
        encoder.transform(CHIPS)


def test_an_interrupted_network_of_a_calibrated_probability_is_no_fit(monkeypatch):
    from causalsat.estimators.probabilities.learners import NetworkLearner

    whole, calls = NetworkLearner.epochs, []

    def pressing(self, *args):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        whole(self, *args)

    monkeypatch.setattr(NetworkLearner, "epochs", pressing)
    model = CalibratedProbability(max_epochs=5, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(TABLE, (Y > 0).astype(int))
    with pytest.raises(NotFittedError):
        model.predict_proba(TABLE)


def test_the_last_step_of_a_batch_can_be_interrupted_too():
    """Within skorch's own step, whose callers take an interrupt for the end of the training."""

    class Pressing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = torch.nn.Linear(3, 1), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 5:
                signal.raise_signal(signal.SIGINT)
            return self.layer(x)

    x, y = torch.from_numpy(TABLE.astype(np.float32)), torch.from_numpy(Y[:, None].astype(np.float32))
    settings = TrainSettings(max_epochs=50, batch_size=16, augment=False)
    with pytest.raises(KeyboardInterrupt):
        train_network(Pressing(), x, y, torch.nn.MSELoss(), np.arange(60) % 5 == 0, settings)


class Swallowing(BaseEstimator, RegressorMixin):
    """Ends early on Ctrl-C and goes on with what it has, as skorch's nets do."""

    def fit(self, X, y, sample_weight=None):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            self.mean_ = 0.0
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)


def test_a_learner_that_swallows_the_interrupt_does_not_finish_the_fit():
    model = TLearnerEffect(Swallowing(), n_bootstrap=2)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.fit(TABLE, Y, treatment=T)
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(NotFittedError):
        model.predict(TABLE)


def test_an_interrupted_sampler_is_an_interrupt_and_no_other_error(monkeypatch):
    """nutpie gives a partial trace, whose use fails later."""
    from causalsat import BayesianLinearEffect
    from causalsat.inference import chains as nuts

    whole, calls = nuts._guarded, []

    def pressing(*args):
        calls.append(1)
        if len(calls) == 200:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(*args)

    monkeypatch.setattr(nuts, "_guarded", pressing)
    model = BayesianLinearEffect(family="bernoulli", n_draws=100, n_tune=100, n_chains=2, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(TABLE, (Y > 0).astype(float), treatment=T)
    assert len(calls) >= 200
    with pytest.raises(NotFittedError):
        model.predict(TABLE)


def test_compare_stores_no_fold_of_an_interrupted_training(interrupt_at, tmp_path, monkeypatch):
    """A rerun in the folder gives the numbers of a run that nobody interrupted."""
    table = gpd.GeoDataFrame(
        {"y": Y, "t": T, **{f"x{j}": TABLE[:, j] for j in range(3)}},
        geometry=gpd.points_from_xy(30 + RNG.random(60), RNG.random(60)),
        crs="EPSG:4326",
    )
    study = Study(table, outcome="y", treatment="t", covariates=["x0", "x1", "x2"])
    models = {"transtee": TransTEE(max_epochs=4, n_draws=50, random_state=0)}
    options = {"metrics": ["blp_slope"], "cv": 2, "n_bootstrap": 10, "progress": False}
    with monkeypatch.context() as patch:
        whole, passes = training._Batches.__iter__, []

        def pressing(self):
            if self.settings is not None:
                passes.append(1)
                if len(passes) == 6:  # the second epoch of the second fold
                    signal.raise_signal(signal.SIGINT)
            yield from whole(self)

        patch.setattr(training._Batches, "__iter__", pressing)
        with pytest.raises(KeyboardInterrupt):
            compare(study, ["covariates"], models, folder=tmp_path / "cut", **options)
    assert len([path for path in (tmp_path / "cut").rglob("*") if path.is_file()]) == 1
    again = compare(study, ["covariates"], models, folder=tmp_path / "cut", **options)
    alone = compare(study, ["covariates"], models, folder=tmp_path / "whole", **options)
    first, second = (found.effects["covariates", "transtee"][0] for found in (again, alone))
    np.testing.assert_array_equal(first.tau, second.tau)
