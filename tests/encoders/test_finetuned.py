"""Fine-tuning: a network that is trained to its end finds what its frozen features do not show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finetuning import module as small
from finetuning import world
from sklearn.base import clone

import causalsat
from causalsat.encoders import FineTunedEncoder, ModuleEncoder, SelfSupervisedEncoder, TorchvisionEncoder, pretrain
from causalsat.encoders.networks import finetune_network as network
from causalsat.exceptions import DataError, ParameterError
from causalsat.simulate import satellite_trial


def tuned(module: torch.nn.Module | None = None, **options) -> FineTunedEncoder:
    settings = {"n_folds": 2, "learning_rate": 3e-3, "decay": 1.0, "augment": False, "batch_size": 16, **options}
    return FineTunedEncoder(ModuleEncoder(small() if module is None else module), **settings)


def r2(found: np.ndarray, truth: np.ndarray) -> float:
    return 1 - float(np.mean((found - truth) ** 2) / truth.var())


@pytest.fixture(scope="module")
def fitted():
    chips, tau, place, t, y = world()
    module = small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    encoder = tuned(module, max_epochs=60, patience=15)
    features = encoder.fit_transform(chips, y, treatment=t, groups=place, unit_place=place)
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())  # the user's own is left
    return encoder, features, chips, tau


def test_fine_tuning_beats_the_frozen_network(fitted) -> None:
    """On new places, by the effect; and what was held out of a fold's training says the same."""
    encoder, features, _, tau = fitted
    new, truth, *_ = world(seed=100)
    frozen = tuned(max_epochs=1, learning_rate=1e-12)
    chips, _, place, t, y = world()
    frozen.fit(chips, y, treatment=t, groups=place, unit_place=place)
    of_frozen, of_tuned = r2(frozen.transform(new)[:, 1], truth), r2(encoder.transform(new)[:, 1], truth)
    assert of_frozen < 0.3
    assert of_tuned > of_frozen + 0.3
    assert r2(features[:, 1], tau) > of_frozen + 0.2
    assert all(best < start for start, best in encoder.losses_)


def test_a_place_never_meets_its_own_outcomes() -> None:
    chips, _, place, t, y = world(n_sites=30, per_site=4)
    roles = {"treatment": t, "groups": place, "unit_place": place}
    one, other = tuned(max_epochs=2), tuned(max_epochs=2)
    before = one.fit_transform(chips, y, **roles)
    after = other.fit_transform(chips, np.where(place == 4, y + 50.0, y), **roles)
    own = one.folds_ == one.folds_[4]
    np.testing.assert_array_equal(after[own], before[own])
    assert np.abs(after[~own] - before[~own]).max() > 0.5


def test_stages_and_their_rates() -> None:
    from torchvision.models import resnet18

    found = network.stages(resnet18())
    assert [names[0] for names in found][:3] == ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight"]
    assert [names[0] for names in found][-3:] == ["layer4.0.conv1.weight", "layer4.1.conv1.weight", "fc.weight"]
    rates = network._rates(small(), 1, 0.5, 0.1)
    assert rates == {"2.weight": 0.05, "2.bias": 0.05}
    assert network._rates(small(), None, 0.5, 0.1)["0.weight"] == pytest.approx(0.025)


def test_only_the_last_stages_are_trained_and_each_at_its_rate() -> None:
    """With one step of AdamW without decay a weight moves by its learning rate."""
    chips, _, place, t, y = world(n_sites=24, per_site=4)
    module = small()
    encoder = tuned(module, n_stages=1, max_epochs=1, batch_size=100, learning_rate=1e-4, weight_decay=0.0)
    encoder.fit(chips, y, treatment=t, groups=place, unit_place=place)
    for weights in encoder.weights_:
        assert set(weights) == {"network.2.weight", "network.2.bias", "answers.weight", "answers.bias"}
    halved = tuned(module, max_epochs=1, batch_size=100, learning_rate=1e-4, weight_decay=0.0, decay=0.5)
    halved.fit(chips, y, treatment=t, groups=place, unit_place=place)
    improved = [k for k, (start, best) in enumerate(halved.losses_) if best < start]
    assert improved
    for k in improved:
        steps = [
            np.abs(halved.weights_[k][f"network.{name}"] - module.state_dict()[name].numpy()).max()
            for name in ("2.weight", "0.weight")
        ]
        np.testing.assert_allclose(steps, [5e-5, 2.5e-5], rtol=0.02)


def test_where_no_epoch_is_better_the_start_is_kept() -> None:
    chips, _, place, t, y = world(n_sites=40)
    wild = tuned(learning_rate=30.0, max_epochs=1)
    found = wild.fit_transform(chips, y, treatment=t, groups=place, unit_place=place)
    still = tuned(learning_rate=1e-12, max_epochs=1)
    np.testing.assert_allclose(
        found, still.fit_transform(chips, y, treatment=t, groups=place, unit_place=place), atol=1e-5
    )
    assert all(best == start for start, best in wild.losses_)


def test_sums_of_a_place_give_the_loss_of_its_units() -> None:
    rng = np.random.default_rng(0)
    place, y, t = rng.integers(0, 5, 60), rng.normal(size=60), rng.integers(0, 2, 60).astype(float)
    mu, tau = rng.normal(size=(2, 5))
    sums = network.place_sums(y, t, 0.4, place, 5)
    wanted = np.bincount(place, (y - mu[place] - (t - 0.4) * tau[place]) ** 2, 5)
    np.testing.assert_allclose(network._squares(mu, tau, sums), wanted)
    np.testing.assert_allclose(sums[:, 6], np.bincount(place, t, 5))


def test_a_killed_training_goes_on(tmp_path) -> None:
    chips, _, place, t, y = world(n_sites=30, per_site=4)
    roles = {"treatment": t, "groups": place, "unit_place": place}
    settings = {"augment": True, "patience": 10}
    whole = tuned(max_epochs=4, **settings).fit_transform(chips, y, **roles)
    file = str(tmp_path / "training")
    tuned(max_epochs=2, checkpoint=file, **settings).fit(chips, y, **roles)
    resumed = tuned(max_epochs=4, checkpoint=file, **settings)
    np.testing.assert_array_equal(resumed.fit_transform(chips, y, **roles), whole)
    assert [len(history) for history in resumed.history_] == [4, 4]


def test_a_backbone_of_torchvision_is_saved_and_loaded(tmp_path) -> None:
    """Its batch normalisation keeps its statistics."""
    chips, _, place, t, y = world(n_sites=16, per_site=3)
    chips[3] = np.nan
    encoder = FineTunedEncoder(
        TorchvisionEncoder("resnet18", image_px=32), "effect+treatment", n_stages=2, n_folds=2, max_epochs=1
    )
    found = encoder.fit_transform(chips, y, treatment=t, groups=place, unit_place=place)
    assert np.isnan(found[3]).all()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()
    assert ((np.delete(found, 3, axis=0)[:, 2] > 0) & (np.delete(found, 3, axis=0)[:, 2] < 1)).all()
    assert all(name.startswith(("answers.", "network.layer4.")) for name in encoder.weights_[0])
    assert not any("running" in name for name in encoder.weights_[0])
    causalsat.save(encoder, tmp_path / "tuned.safetensors")
    again = causalsat.load(tmp_path / "tuned.safetensors")
    np.testing.assert_allclose(again.transform(chips), encoder.transform(chips), atol=1e-6)


def test_dates_of_a_sequence_share_the_network() -> None:
    chips, _, place, t, y = world(n_sites=24, per_site=3)
    sequence = np.stack([chips, chips[:, ::-1]], axis=1)
    encoder = tuned(max_epochs=2)
    found = encoder.fit_transform(sequence, y, treatment=t, groups=place, unit_place=place)
    assert found.shape == (24, 2)
    assert encoder.weights_[0]["answers.weight"].shape == (2, 12)
    np.testing.assert_allclose(clone(encoder).fit(
        sequence, y, treatment=t, groups=place, unit_place=place
    ).transform(sequence), encoder.transform(sequence), atol=1e-6)  # fmt: skip


def test_in_a_study_from_a_network_that_was_trained_without_labels() -> None:
    trial = satellite_trial("smooth", n_units=200, n_sites=24, size_px=224, seed=4)
    study = trial.study()
    base = pretrain(SelfSupervisedEncoder(width=4, max_epochs=1), study.imagery, study.chip_size_m, n_places=30)
    encoder = FineTunedEncoder(base, n_folds=2, max_epochs=1)
    model = causalsat.image_model(study, causalsat.DoublyRobustEffect(n_draws=20), encoder=encoder)
    model.named_steps["images"].set_params(n_components=None)
    study.fit(model)
    assert model.named_steps["images"].get_feature_names_out().tolist()[:2] == ["img_mu", "img_tau"]
    assert model.named_steps["images"].requests_roles


def test_refusals() -> None:
    chips, _, place, t, y = world(n_sites=24, per_site=2)
    roles = {"treatment": t, "groups": place, "unit_place": place}
    with pytest.raises(ParameterError, match="one with a network"):
        FineTunedEncoder(causalsat.RandomConvFeatures(8)).fit(chips, y, **roles)
    with pytest.raises(ParameterError, match="one with a network"):
        FineTunedEncoder(TorchvisionEncoder(dense_stride=16)).fit(chips, y, **roles)
    with pytest.raises(ParameterError, match="decay"):
        tuned(decay=0.0).fit(chips, y, **roles)
    with pytest.raises(ParameterError, match="n_stages"):
        tuned(n_stages=-1).fit(chips, y, **roles)
    with pytest.raises(DataError, match=r"Study\.fit"):
        tuned().fit(chips, y)
