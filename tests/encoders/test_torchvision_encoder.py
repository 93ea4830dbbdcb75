"""Frozen torchvision backbones: bands, weights from files, determinism."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from causalsat import load, save
from causalsat.encoders import TorchvisionEncoder
from causalsat.exceptions import DataError, ImageryError, ModelFileError, ParameterError


@pytest.fixture(scope="module")
def chips() -> np.ndarray:
    return np.random.default_rng(0).normal(loc=[[[50.0]], [[90]], [[20]]], scale=9, size=(6, 3, 40, 40)).astype("f4")


def reference(chips: np.ndarray, seed: int) -> np.ndarray:
    """torchvision's resnet18 with random weights, its head removed by hand."""
    import torch
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = resnet18().eval()
    network.fc = torch.nn.Identity()
    x = (chips - chips.mean((0, 2, 3), keepdims=True)) / chips.std((0, 2, 3), keepdims=True)
    with torch.inference_mode():
        return network(torch.from_numpy(x)).numpy()


def test_features_are_those_of_torchvision(chips: np.ndarray) -> None:
    found = TorchvisionEncoder("resnet18", random_state=5).fit(chips).transform(chips)
    assert found.shape == (6, 512)
    np.testing.assert_allclose(found, reference(chips, 5), rtol=1e-3, atol=1e-4)


def test_seed_decides_and_batches_do_not(chips: np.ndarray) -> None:
    encoder = TorchvisionEncoder("shufflenet_v2_x0_5", random_state=1).fit(chips)
    found = encoder.transform(chips)
    scale = found.std()
    again = clone(encoder).set_params(batch_size=4).fit(chips)
    np.testing.assert_allclose(again.transform(chips), found, atol=1e-5 * scale)
    np.testing.assert_allclose(encoder.transform(chips[3:4])[0], found[3], atol=1e-5 * scale)
    other = clone(encoder).set_params(random_state=2).fit(chips).transform(chips)
    assert np.abs(other - found).max() > 0.1 * scale
    assert encoder.get_feature_names_out()[-1] == "shufflenet_v2_x0_5_1023"


def test_fitting_leaves_the_global_generator_alone(chips: np.ndarray) -> None:
    import torch

    torch.manual_seed(0)
    before = torch.get_rng_state()
    TorchvisionEncoder("shufflenet_v2_x0_5").fit(chips)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("n_bands", [1, 2, 5])
def test_equal_bands_give_the_response_of_three(chips: np.ndarray, n_bands: int) -> None:
    grey = chips[:, :1]
    three = TorchvisionEncoder("shufflenet_v2_x0_5").fit(np.repeat(grey, 3, axis=1))
    other = TorchvisionEncoder("shufflenet_v2_x0_5").fit(np.repeat(grey, n_bands, axis=1))
    wanted = three.transform(np.repeat(grey, 3, axis=1))
    found = other.transform(np.repeat(grey, n_bands, axis=1))
    np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.std())


@pytest.mark.parametrize(("backbone", "n"), [("vit_b_16", 768), ("efficientnet_b0", 1280), ("convnext_tiny", 768)])
@pytest.mark.slow
def test_families_of_backbones(chips: np.ndarray, backbone: str, n: int) -> None:
    four = np.concatenate([chips, chips[:, :1]], axis=1)[:2]
    found = TorchvisionEncoder(backbone).fit(four).transform(four)
    assert found.shape == (2, n)
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 0


def test_invalid_pixels_count_as_the_mean(chips: np.ndarray) -> None:
    encoder = TorchvisionEncoder("shufflenet_v2_x0_5").fit(chips)
    gap, filled, empty = chips[:1].copy(), chips[:1].copy(), np.full_like(chips[:1], np.nan)
    gap[:, 1, 5:20, 5:20] = np.nan
    filled[:, :, 5:20, 5:20] = encoder.band_mean_[:, None, None]
    wanted = encoder.transform(filled)
    np.testing.assert_allclose(encoder.transform(gap), wanted, atol=1e-4 * wanted.std())
    assert np.isnan(encoder.transform(empty)).all()


def test_sequences_are_encoded_date_by_date(chips: np.ndarray) -> None:
    encoder = TorchvisionEncoder("shufflenet_v2_x0_5", batch_size=4)
    sequence = np.stack([chips, chips[::-1]], axis=1)
    found = encoder.fit(sequence).transform(sequence)
    assert found.shape == (6, 2048)
    np.testing.assert_allclose(found[:, :1024], found[::-1, 1024:], atol=1e-4 * found.std())
    assert encoder.get_feature_names_out()[1024] == "t1_shufflenet_v2_x0_5_0"


@pytest.mark.parametrize("kind", ["pth", "checkpoint", "safetensors", "five_bands"])
def test_weights_from_a_file(chips: np.ndarray, tmp_path: Path, kind: str) -> None:
    import torch
    from safetensors.torch import save_file
    from torchvision.models import shufflenet_v2_x0_5

    torch.manual_seed(11)
    state = shufflenet_v2_x0_5(num_classes=7).state_dict()
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    data = chips
    if kind == "pth":
        torch.save(state, path)
    elif kind == "checkpoint":
        torch.save({"epoch": 3, "state_dict": {f"module.backbone.{k}": v for k, v in state.items()}}, path)
    elif kind == "safetensors":
        save_file(state, str(path))
    else:
        state["conv1.0.weight"] = torch.randn(24, 5, 3, 3)
        torch.save(state, path)
        data = np.concatenate([chips, chips[:, :2]], axis=1)
    encoder = TorchvisionEncoder("shufflenet_v2_x0_5", weights=path).fit(data)
    assert encoder.transform(data).shape == (6, 1024)
    for name, value in encoder.weights_.items():
        np.testing.assert_array_equal(value, state[name].numpy())
    assert not any(name.startswith("fc") for name in encoder.weights_)


def test_files_that_are_no_weights_are_refused(chips: np.ndarray, tmp_path: Path) -> None:
    import torch
    from torchvision.models import shufflenet_v2_x0_5

    def fit(path: Path, backbone: str = "shufflenet_v2_x0_5") -> None:
        TorchvisionEncoder(backbone, weights=path).fit(chips)

    with pytest.raises(ModelFileError, match="is not a file"):
        fit(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ModelFileError, match="cannot be read as weights"):
        fit(tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelFileError, match="cannot be read as weights"):
        fit(tmp_path / "text.safetensors")
    torch.save(shufflenet_v2_x0_5(), tmp_path / "pickled_model.pth")  # would run code when loaded
    with pytest.raises(ModelFileError, match="pickled models are refused"):
        fit(tmp_path / "pickled_model.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ModelFileError, match="no state dict"):
        fit(tmp_path / "empty.pth")
    torch.save(shufflenet_v2_x0_5().state_dict(), tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match=r"lacks \d+ of the \d+ arrays of resnet18"):
        fit(tmp_path / "other.pth", "resnet18")


def test_survives_saving_and_copying(chips: np.ndarray, tmp_path: Path) -> None:
    encoder = TorchvisionEncoder("shufflenet_v2_x0_5", random_state=None).fit(chips)
    wanted = encoder.transform(chips)
    copied = copy.deepcopy(encoder)
    assert "_module" not in vars(copied)  # rebuilt from weights_
    np.testing.assert_array_equal(copied.transform(chips), wanted)
    save(encoder, tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "encoder.safetensors").transform(chips), wanted)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"backbone": "resnet19"}, ParameterError, "resnet18"),
        ({"backbone": "squeezenet1_0"}, ParameterError, "no linear head"),
        ({"image_px": 4}, ParameterError, "image_px=4"),
        ({"batch_size": 0}, ParameterError, "batch_size=0"),
        ({"device": "cuda:77"}, (ParameterError, RuntimeError), "cuda"),
        ({"backbone": "alexnet"}, ParameterError, "cannot take chips of 40 x 40"),
    ],
)
def test_bad_parameters_are_refused(chips: np.ndarray, options: dict, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        TorchvisionEncoder(**options).fit(chips)


def test_other_bands_are_refused(chips: np.ndarray) -> None:
    encoder = TorchvisionEncoder("shufflenet_v2_x0_5").fit(chips)
    with pytest.raises(ImageryError, match=r"\(2\).*\(3\)"):
        encoder.transform(chips[:, :2])
    with pytest.raises(DataError, match="shape"):
        encoder.transform(chips[0])
