"""TransTEE's training on other devices, in mixed precision and compiled: the same answers, and no stray tensors."""

import numpy as np
import pytest
import torch

from causalsat import TransTEE
from causalsat.estimators.transtee import head as head
from causalsat.estimators.transtee import training as training
from causalsat.estimators.transtee.data import ImageShape, NetworkShape, column_groups
from causalsat.estimators.transtee.network import TokenNetwork
from causalsat.exceptions import ParameterError

SMALL = {"n_members": 2, "width": 8, "n_features": 8, "max_epochs": 8, "n_draws": 60, "random_state": 0}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    t = rng.uniform(0, 1, 300)
    return X, 2 * t * X[:, 1] + X[:, 0] + 0.2 * rng.normal(size=300), t


@pytest.fixture(scope="module")
def plain(table):
    X, y, t = table
    return TransTEE(**SMALL).fit(X, y, treatment=t).effect(X, treatment=0.8, baseline=0.2).mean()


def answer(table, **more):
    X, y, t = table
    return TransTEE(**SMALL, **more).fit(X, y, treatment=t).effect(X, treatment=0.8, baseline=0.2).mean()


def test_mixed_precision_is_close_and_a_choice(table, plain):
    truth = 1.2 * table[0][:, 1]
    mixed = answer(table, precision="bfloat16")
    assert not np.array_equal(mixed, plain)
    for found in (plain, mixed):
        assert np.sqrt(np.mean((found - truth) ** 2)) < 0.25 * truth.std()
    np.testing.assert_array_equal(answer(table, precision="float32"), plain)  # what "auto" is for tables
    with pytest.raises(ParameterError, match="precision"):
        answer(table, precision="half")


def test_features_leave_mixed_precision_in_that_of_the_weights():
    torch.manual_seed(0)
    network = TokenNetwork(NetworkShape(2, 3, 2, width=8, n_blocks=1, n_features=5))
    x, t = torch.randn(7, 3), torch.randn(7, 2)
    exact = network(x, t)
    network.mixed = True
    found = network(x, t)
    assert found.dtype == network.token_mean.dtype == torch.float32
    learned = torch.tensor(column_groups(network.shape)) == 3
    assert torch.equal(found[..., ~learned], exact[..., ~learned])
    gap = (found - exact)[..., learned].abs().max()
    assert 1e-5 < gap < 0.05


def test_a_compiled_network_gives_the_same_answers(table, plain, monkeypatch):
    """Through torch.compile's own tracing; without its code generator, which takes a minute."""
    calls, own = [], TokenNetwork.compile

    def traced(self):
        calls.append(self)
        own(self, backend="eager")

    monkeypatch.setattr(TokenNetwork, "compile", traced)
    np.testing.assert_allclose(answer(table, compile_network=True), plain, atol=1e-3)
    assert len(calls) == 1


@pytest.mark.parametrize("image", [None, ImageShape(2, 3, 8, 8)])
@pytest.mark.parametrize("kind", ["tr", "ptr"])
def test_a_training_step_makes_no_tensor_on_another_device(image, kind):
    """On torch's device without memory, where a product with a tensor that was made on the CPU fails."""
    shape = NetworkShape(3, 4, 2, width=8, n_blocks=1, n_features=5, crossed=1, image=image)
    with torch.device("meta"):
        network, loss = TokenNetwork(shape), head.EvidenceLoss(3, column_groups(shape))
        opponent = training.Discriminator(3, 8, 2 if kind == "ptr" else 1)
        x, t, targets, dose = torch.empty(16, 4), torch.empty(16, 2), torch.empty(16, 5), torch.empty(16)
        pixels = torch.empty(16, 6, 8, 8)
    cells = None if image is None else network.encode_images(pixels)
    features = network.train()(x, t, cells=cells)
    value = loss.train()(features, targets)
    value = value - training.adversary_loss(opponent(network.token_mean), dose, kind, 0)
    value.backward()
    grads = [p.grad for p in (*network.parameters(), *opponent.parameters())]
    assert all(g is not None and g.device.type == "meta" for g in grads)
    assert loss.eval()(features, targets).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("more", [{}, {"precision": "bfloat16"}, {"compile_network": True}, {"regularizer": "ptr"}])
def test_a_gpu_finds_the_same(table, plain, more):
    truth = 1.2 * table[0][:, 1]
    found = answer(table, device="cuda", **more)
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.25 * truth.std()
    assert np.corrcoef(found, plain)[0, 1] > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_images_on_a_gpu_are_in_mixed_precision(monkeypatch):
    seen, own = [], TokenNetwork.encode_images

    def recorded(self, images):
        seen.append((images.device.type, self.mixed and torch.is_autocast_enabled("cuda")))
        return own(self, images)

    monkeypatch.setattr(TokenNetwork, "encode_images", recorded)
    rng = np.random.default_rng(0)
    t = rng.integers(0, 2, 80)
    images = rng.normal(size=(80, 2, 8, 8)).astype(np.float32)
    est = TransTEE(backbone="cnn", device="cuda", **SMALL).fit(images, t + 0.1 * rng.normal(size=80), treatment=t)
    assert ("cuda", True) in seen
    assert np.isfinite(est.predict(images)).all()
