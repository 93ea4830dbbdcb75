"""Networks trained end to end on the clusters' likelihood: what they learn, how a killed training goes on."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import causalsat
from causalsat import ImageEffectClusters, RandomConvFeatures
from causalsat.encoders.networks import training
from causalsat.encoders.networks.training import TrainSettings, augment_batch, train_network
from causalsat.estimators.clusters import density
from causalsat.estimators.clusters.data import make_cells
from causalsat.estimators.clusters.density import Cells, Layout, Prior
from causalsat.estimators.clusters.network import NetworkScores, build_network, cluster_loss
from causalsat.estimators.clusters.posterior import find_mode
from causalsat.estimators.clusters.salience import log_probability
from causalsat.exceptions import CausalsatWarning

QUICK = {"n_draws": 100, "n_tune": 100, "n_restarts": 1, "n_folds": 2, "random_state": 0, "n_clusters": 2}


def textures(n_images=80, per_image=10, seed=0):
    """Stripes or chequers, of equal brightness: no single pixel or mean tells them apart; effects 0 and 2."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(n_images) % 2
    row, col = np.indices((12, 12))
    patterns = np.stack([(-1.0) ** row, (-1.0) ** (row + col)])
    images = patterns[kind] * rng.choice([-1, 1], n_images)[:, None, None] + 0.3 * rng.normal(size=(n_images, 12, 12))
    image = np.repeat(np.arange(n_images), per_image)
    t = (rng.permutation(n_images) % 2)[image]
    y = 2.0 * t * kind[image] + rng.normal(size=len(image))
    return images[:, None].astype(np.float32), image, t, y, kind


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    images, image, t, y, _ = textures()
    path = tmp_path_factory.mktemp("nets") / "net"
    est = ImageEffectClusters(backbone="cnn", max_epochs=15, patience=15, batch_size=8, checkpoint=str(path), **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return est.fit(images[image], y, treatment=t, groups=image), path


def test_a_network_learns_textures_that_decide_the_effect(fitted):
    images, _, _, _, kind = textures()
    est, _ = fitted
    tau = est.predict(images)
    assert np.corrcoef(tau, kind)[0, 1] > 0.9
    new, _, _, _, new_kind = textures(seed=1)
    assert np.corrcoef(est.predict(new), new_kind)[0, 1] > 0.9
    assert adjusted_rand_score(new_kind, est.predict_cluster(new)) > 0.9
    assert est.cluster_effects()["mean"].to_numpy() == pytest.approx([0, 2], abs=0.5)
    assert est.scores_.shape == (80, 2 + len(est.encoder_.start_["components.bias"]))
    assert (est.cluster_probabilities(new)[(2, "sd")] > 0).all()


def test_the_small_network_starts_as_random_convolutional_features_with_a_fitted_last_layer():
    images, image, t, y, _ = textures()
    cells, _ = make_cells(image, None, t, y, np.ones(len(y)), share=True)
    statistics = np.column_stack([cells.count, cells.mean, cells.spread])
    prior, fold = Prior(1.0, 1.0, (1.0, 1.4)), np.arange(80) // 2 % 2
    settings = TrainSettings(max_epochs=1, learning_rate=0.0, weight_decay=0.0, device="cpu")
    network = NetworkScores("cnn", 2, 32, 1, settings, n_components=3)
    features = network.fit_scores(images, statistics, prior, fold, np.arange(80))
    frozen, start = features[:, 2:], network.start_
    # its components are those of RandomConvFeatures with these filters
    encoder = RandomConvFeatures(2 * len(start["patches.weight"]), stride=2, device="cpu").fit(images)
    encoder.filters_, encoder.offsets_ = [start["patches.weight"]], [start["patches.bias"]]
    pooled = encoder.transform(images)
    np.testing.assert_allclose(pooled @ start["components.weight"].T + start["components.bias"], frozen, atol=1e-3)
    assert frozen.var(axis=0, ddof=1).mean() == pytest.approx(1.0, rel=1e-3)
    # its outputs are the prognosis and the logit of the posterior mode on these
    held_out = np.isin(np.arange(80), np.flatnonzero(fold == 1)[np.random.default_rng([0, 0]).permutation(40)[::5]])
    rows = np.flatnonzero((fold == 1) & ~held_out)
    sums = [np.ascontiguousarray(part) for part in np.split(statistics[rows], 3, axis=1)]
    known = find_mode(
        Cells(np.arange(len(rows)), np.arange(len(rows) + 1), *sums, True),
        frozen[rows],
        prior,
        2,
        np.random.default_rng(0),
        2,
    )[0]
    p = Layout(2, 3, True).unpack(known)
    weight, bias = np.vstack([p["prognostic"], p["logit"][1, 1:]]), [p["intercept"], p["logit"][1, 0]]
    outputs = network.modules()[0](network.prepare(images[:, None])).detach().numpy()
    np.testing.assert_allclose(outputs, frozen @ weight.T + bias, atol=2e-3)


def test_predictions_of_one_image_do_not_depend_on_company(fitted):
    images, *_ = textures()
    est, _ = fitted
    tau = est.predict(images)
    np.testing.assert_allclose([est.predict(images[j : j + 1])[0] for j in (0, 7)], tau[[0, 7]], rtol=1e-4, atol=1e-5)


def test_saved_networks_predict_the_same(fitted, tmp_path):
    images, *_ = textures()
    est, _ = fitted
    est.save(tmp_path / "model.safetensors")
    again = causalsat.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.effect(images[:5]).draws, est.effect(images[:5]).draws)


def test_salience_of_a_network_adds_up(fitted):
    images, *_ = textures()
    est, _ = fitted
    found = est.salience(images[:2], 2, n_steps=100)
    score, x = log_probability(est.encoder_, est.draws_["logit"], 1, images[:2], "cpu")
    difference = (score(x) - score(x * 0)).detach().numpy()
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), difference, rtol=0.15, atol=0.15)


def test_finished_networks_are_read_from_their_checkpoints(fitted, monkeypatch):
    est, path = fitted
    assert len(list(path.parent.glob("net.fold*.pt"))) == 2
    images, image, t, y, _ = textures()

    def never(*_args, **_kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(training._Batches, "__iter__", never)
    again = ImageEffectClusters(
        backbone="cnn", max_epochs=15, patience=15, batch_size=8, checkpoint=str(path), **QUICK
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        again.fit(images[image], y, treatment=t, groups=image)
    np.testing.assert_array_equal(again.scores_, est.scores_)


# ---------------------------------------------------------------------- loss
@pytest.mark.parametrize("shares", [False, True])
def test_loss_is_the_models_likelihood(shares):
    rng = np.random.default_rng(0)
    image, arm = np.repeat(np.arange(20), 5), rng.integers(0, 2, 100)
    y = rng.normal(size=100)
    cells, _ = make_cells(image, image, arm, y, np.ones(100), share=True)
    loss = cluster_loss(2, 0.3, tied=shares, shares=shares)
    with torch.no_grad():
        loss.pivot_logit.fill_(0.4)
    scores = rng.normal(size=(20, 2)).astype(np.float32)
    statistics = np.column_stack([cells.count, cells.mean, cells.spread]).astype(np.float32)
    value = float(loss(torch.from_numpy(scores), torch.from_numpy(statistics)).detach()) * 100
    # the same in the density: the features are the scores, the first of them the prognosis, the second the logit
    layout = Layout(2, 2, True, shares, shares)
    x = np.zeros(layout.size)
    x[1:3] = [1.0, 0.0]
    x[3:5] = [0.3 - 0.5, np.log(1.0)]
    x[-4:-2] = [0.0, 1.0]  # weights of the logit; then the pivot's logit, as trained
    x[-2] = 0.4
    x[-1] = -1.5
    ours = density.site_log_likelihood(x, layout, cells, scores.astype(float), 0.3).sum()
    assert value == pytest.approx(-ours - 100 * 0.5 * np.log(2 * np.pi), rel=1e-4)


# ---------------------------------------------------------------------- training
class Killed(Exception):
    pass


def run(path, kill_after=None, monkeypatch=None):
    images, image, t, y, _ = textures(40, 4)
    cells, _ = make_cells(image, None, t, y, np.ones(len(y)), share=True)
    targets = torch.from_numpy(np.column_stack([cells.count, cells.mean, cells.spread]).astype(np.float32))
    torch.manual_seed(0)
    module = build_network("cnn", 1, 2, 0)
    settings = TrainSettings(max_epochs=5, patience=5, batch_size=16, checkpoint=None if path is None else str(path))
    if kill_after is not None:
        epochs = []
        whole = training._Batches.__iter__

        def killing(self):
            if self.settings is not None:
                epochs.append(1)
                if len(epochs) > kill_after:
                    raise Killed
            yield from whole(self)

        monkeypatch.setattr(training._Batches, "__iter__", killing)
    return train_network(
        module, torch.from_numpy(images), targets, cluster_loss(2, 0.5), np.arange(40) % 4 == 0, settings
    )


def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path):
    whole = run(None)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        run(tmp_path / "state.pt", kill_after=2, monkeypatch=patch)
    resumed = run(tmp_path / "state.pt")
    assert resumed.history == whole.history
    assert len(whole.history) == 5
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(resumed.weights[name], value)


def test_training_stops_when_held_out_loss_rises_and_keeps_the_best_epoch():
    torch.manual_seed(0)
    images = torch.randn(24, 1, 8, 8)
    targets = torch.randn(24, 1)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    settings = TrainSettings(max_epochs=60, patience=3, batch_size=8, learning_rate=0.02, augment=False)
    found = train_network(module, images, targets, torch.nn.MSELoss(), np.arange(24) % 2 == 0, settings)
    held = [valid for _, valid in found.history]
    assert len(held) < 60
    assert found.valid_loss == min(held)
    assert len(held) - 1 - int(np.argmin(held)) == 3
    module.load_state_dict({k: torch.from_numpy(v) for k, v in found.weights.items()})
    with torch.no_grad():
        assert float(torch.nn.MSELoss()(module(images[::2]), targets[::2])) == pytest.approx(min(held), rel=1e-4)


def test_augmentation_only_turns_flips_and_shifts():
    images = torch.arange(2 * 1 * 6 * 6, dtype=torch.float32).reshape(2, 1, 6, 6)
    seen = set()
    for seed in range(40):
        out = augment_batch(images, torch.Generator().manual_seed(seed), 1)
        assert torch.equal(out.flatten(1).sort(dim=1).values, images.flatten(1).sort(dim=1).values)
        seen.add(tuple(out[0].ravel().tolist()))
    assert len(seen) > 20


@pytest.mark.slow
def test_a_torchvision_network_can_be_trained():
    images, image, t, y, _ = textures(24, 4)
    est = ImageEffectClusters(backbone="resnet18", max_epochs=1, patience=1, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        est.fit(images[image], y, treatment=t, groups=image)
    assert np.isfinite(est.predict(images[:3])).all()
