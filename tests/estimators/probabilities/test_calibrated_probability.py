"""CaPE: bins against their definition, calibration on a known probability, any classifier, files, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import causalsat
from causalsat import CalibratedProbability, ImageConfounding
from causalsat.estimators.probabilities.calibrated import bin_rates
from causalsat.evaluation import risk_calibration
from causalsat.exceptions import DataError, ModelFileError, ParameterError

FAST = {"max_epochs": 12, "cycles": 2, "random_state": 0}


def world(n=1500, seed=0, p=8):
    """Probability 0.1 to 0.6, by one feature."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)).astype(np.float32)
    chance = 0.1 + 0.5 * expit(2 * X[:, 0])
    return X, (rng.random(n) < chance).astype(int), chance


def log_loss(p, y):
    return -np.mean(np.where(y == 1, np.log(p), np.log1p(-p)))


# ---------------------------------------------------------------------- bins
def test_bin_rates_equal_their_definition():
    rng = np.random.default_rng(0)
    p, y, w = rng.random(100), (rng.random(100) < 0.4).astype(float), rng.uniform(0.5, 2, 100)
    fold = np.arange(100) % 2
    rates = bin_rates(p, y, w, bins=5, smoothing="bins", fold=fold)
    order = np.argsort(p)
    for i in (0, 17, 63):
        mates = order[(np.flatnonzero(order == i)[0] // 20) * 20 :][:20]
        mates = mates[fold[mates] != fold[i]]
        assert rates[i] == pytest.approx(np.average(y[mates], weights=w[mates]))


@pytest.mark.parametrize("smoothing", ["bins", "kernel"])
def test_no_label_enters_its_own_target(smoothing):
    rng = np.random.default_rng(1)
    p, y, fold = rng.random(200), (rng.random(200) < 0.4).astype(float), np.arange(200) % 5
    other = y.copy()
    other[7] = 1 - other[7]
    ours, theirs = (bin_rates(p, v, np.ones(200), bins=10, smoothing=smoothing, fold=fold) for v in (y, other))
    assert ours[7] == theirs[7]
    own = [bin_rates(p, v, np.ones(200), bins=10, smoothing=smoothing, fold=0 * fold)[7] for v in (y, other)]
    assert own[0] != own[1]  # one fold is the original, in which it does


# ---------------------------------------------------------------------- calibration
def test_probabilities_come_true_where_a_long_training_memorises():
    """A network trained for 60 epochs has learnt its labels by heart; the calibrated one predicts new units."""
    X, y, _ = world(1000)
    fresh, outcome, chance = world(4000, seed=1)
    model = CalibratedProbability(random_state=0).fit(X, y)
    assert {phase for phase, _ in model.history_} > {"early stopping"}
    assert model.log_loss_ <= model.log_loss_early_
    assert model.log_loss_ == min(loss for _, loss in model.history_)
    p = model.predict_proba(fresh)[:, 1]
    long = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    torch.manual_seed(0)
    optimiser, rows, labels = torch.optim.AdamW(long.parameters(), 2e-3), torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(60):
        for part in torch.randperm(len(X)).split(64):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(long(rows[part])[:, 0], labels[part].float()).backward()
            optimiser.step()
    memorised = torch.sigmoid(long(torch.from_numpy(fresh))[:, 0]).detach().numpy()
    ours, theirs = risk_calibration(p, outcome), risk_calibration(memorised, outcome)
    assert ours.calibration_error < 0.06
    assert ours.brier < theirs.brier - 0.03
    assert np.mean((p - chance) ** 2) < 0.3 * np.mean((memorised - chance) ** 2)
    assert abs(ours.slope - 1) < 0.35


def test_weights_move_the_probability():
    X, y, _ = world(600)
    heavy = CalibratedProbability(LogisticRegression(), **FAST).fit(X, y, sample_weight=np.where(y == 1, 4.0, 1.0))
    even = CalibratedProbability(LogisticRegression(), **FAST).fit(X, y)
    assert heavy.predict_proba(X)[:, 1].mean() > even.predict_proba(X)[:, 1].mean() + 0.2


def test_the_held_out_part_keeps_groups_whole():
    X, y, _ = world(400)
    groups = np.repeat(np.arange(40), 10)
    seen = []

    class Spy(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            seen.append(X)
            return super().fit(X, y, sample_weight)

    CalibratedProbability(Spy(), cycles=0, random_state=0).fit(X, y, groups=groups)
    trained = {tuple(row) for row in np.unique(seen[0], axis=0)}
    share = np.array([np.mean([tuple(row) in trained for row in X[groups == g]]) for g in range(40)])
    assert set(share) == {0.0, 1.0}
    assert (share == 0).sum() == 8


# ---------------------------------------------------------------------- any classifier
def images(n=300):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 2, 8, 8)).astype(np.float32)
    y = (rng.random(n) < expit(12 * X[:, 0].mean(axis=(1, 2)))).astype(int)
    return X, y


@pytest.mark.parametrize("outputs", [1, 2])
def test_torch_modules_on_images(outputs):
    X, y = images()
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs)
    )
    before = [value.clone() for value in module.parameters()]
    state = torch.random.get_rng_state()
    model = CalibratedProbability(module, learning_rate=2e-2, **{**FAST, "max_epochs": 40}).fit(X, y)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))  # the user's stays
    p = model.predict_proba(X)
    assert p.shape == (300, 2)
    assert np.corrcoef(p[:, 1], X[:, 0].mean(axis=(1, 2)))[0, 1] > 0.7
    with pytest.raises(DataError, match="shape"):
        model.predict_proba(X[:, :1])


def test_a_skorch_net_keeps_its_settings():
    from skorch import NeuralNetClassifier

    X, y, _ = world(400)
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(8, 2), nn.Softmax(dim=-1)),
        optimizer=torch.optim.Adam,
        lr=0.05,
        batch_size=32,
        verbose=0,
    )
    model = CalibratedProbability(net, **FAST).fit(X, y)
    assert model.learner_.net.lr == 0.05
    assert model.learner_.net.optimizer is torch.optim.Adam
    assert not net.initialized_ if hasattr(net, "initialized_") else True
    assert np.corrcoef(model.predict_proba(X)[:, 1], X[:, 0])[0, 1] > 0.8


def test_other_classifiers_are_fitted_anew():
    """A forest's out-of-fold bins: no worse held out than the forest, and labels of any kind."""
    X, y, _ = world(600)
    words = np.where(y == 1, "treated", "control")
    forest = RandomForestClassifier(30, min_samples_leaf=3, random_state=0)
    model = CalibratedProbability(forest, cycles=3, random_state=0).fit(X, words)
    assert list(model.classes_) == ["control", "treated"]
    assert model.log_loss_ <= model.log_loss_early_
    assert set(model.predict(X)) == {"control", "treated"}
    assert not hasattr(forest, "classes_")


def test_same_seed_same_answer_and_clone():
    X, y, _ = world(300)
    one, two = (CalibratedProbability(**FAST).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert clone(CalibratedProbability(n_bins=7)).n_bins == 7


def test_saved_and_loaded(tmp_path):
    X, y, _ = world(300)
    X[::9, 1] = np.nan
    for model in (
        CalibratedProbability(**FAST),
        CalibratedProbability(LogisticRegression(), cycles=1, random_state=0),
    ):
        rows = X if model.model is None else np.nan_to_num(X)
        model.fit(rows, y)
        causalsat.save(model, tmp_path / "model.safetensors")
        again = causalsat.load(tmp_path / "model.safetensors")
        np.testing.assert_allclose(again.predict_proba(rows), model.predict_proba(rows), rtol=1e-6)
    own = CalibratedProbability(nn.Linear(8, 1), **FAST).fit(np.nan_to_num(X), y)
    with pytest.raises(ModelFileError, match="torch"):
        causalsat.save(own, tmp_path / "own.safetensors")


def test_image_propensities_can_be_calibrated():
    """The probability of treatment from images: known here, near with calibration, and the effect is found."""
    data = causalsat.simulate.colour_confounding(500, 12)
    estimates = ImageConfounding(covariates=["x1", "x2"], propensity_model="calibrated", n_splits=2)
    estimates.fit(data.chips(), data.outcome, treatment=data.treatment)
    assert isinstance(estimates.propensity_model_, CalibratedProbability)
    assert estimates.held_out_.log_loss < estimates.held_out_.log_loss_share
    assert abs(estimates.ate_.estimate - data.effect) < 0.4
    assert abs(estimates.naive_.estimate - data.effect) > 1


@pytest.mark.parametrize(
    ("settings", "change", "error", "words"),
    [
        ({"smoothing": "spline"}, None, ParameterError, "'bins' or 'kernel'"),
        ({"validation": 1.0}, None, ParameterError, "between 0 and 1"),
        ({"n_bins": 1}, None, ParameterError, "n_bins"),
        ({"model": KNeighborsClassifier()}, None, ParameterError, "sample_weight"),
        ({"model": "forest"}, None, ParameterError, "predict_proba"),
        ({}, lambda X, y: (X, 0 * y), DataError, "one class"),
        ({}, lambda X, y: (X, y[:-1]), DataError, "one label a row"),
        ({}, lambda X, y: (X[:, 0], y), DataError, "two or more dimensions"),
        ({}, lambda X, y: (X[:, :, None], y), DataError, "model for images"),
        ({"model": nn.Linear(8, 3)}, None, DataError, "outputs of shape"),
    ],
)
def test_bad_input_is_named(settings, change, error, words):
    X, y, _ = world(80)
    X, y = (X, y) if change is None else change(X, y)
    with pytest.raises(error, match=words):
        CalibratedProbability(**{**FAST, **settings}).fit(X, y)
