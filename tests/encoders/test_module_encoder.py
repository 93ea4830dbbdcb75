"""A user's own torch module: its parameters require gradients, and nothing of the package minds."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rioxarray  # noqa: F401  (adds the accessor .rio)
import torch
import xarray as xr
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat import DoublyRobustEffect, ImageEncoder, ModuleEncoder, SequenceEncoder, Study, compare, map_effects
from causalsat.core.fingerprint import fingerprint
from causalsat.encoders.networks.module_encoder import as_transformer
from causalsat.exceptions import DataError

N = 60


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU())


class Tracking(torch.nn.Module):
    """Tracks gradients whatever its caller says."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, images):
        with torch.enable_grad():
            return self.inner(images)


class Parameters(torch.nn.Module):
    """Gives its own parameters, which no inference mode takes the gradients from."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(4.0)[None])

    def forward(self, images):
        return self.weight.expand(len(images), 4)


class TensorTransformer(TransformerMixin, BaseEstimator):
    """A transformer of the user's that gives tensors."""

    def __init__(self, module=None):
        self.module = module

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return self.module(torch.from_numpy(np.nan_to_num(np.asarray(X, dtype=np.float32)))).mean(dim=(2, 3))


@pytest.fixture(scope="module")
def trial():
    rng = np.random.default_rng(0)
    coords = {"band": ["red", "nir"], "y": 4e5 - 10.0 * np.arange(120), "x": 3e5 + 10.0 * np.arange(120)}
    pixels = xr.DataArray(rng.normal(size=(2, 120, 120)).astype("f4"), dims=("band", "y", "x"), coords=coords)
    imagery = causalsat.open_imagery(pixels.rio.write_crs("EPSG:32636"))
    places = gpd.points_from_xy(rng.uniform(300200, 301000, N), rng.uniform(399000, 399800, N))
    t = np.arange(N) % 2
    units = gpd.GeoDataFrame({"t": t, "y": rng.normal(size=N) + t}, geometry=places, crs="EPSG:32636")
    return units, imagery


ENCODERS = {
    "module": lambda: ModuleEncoder(network()),
    "tracking": lambda: ModuleEncoder(Tracking()),
    "bare": network,
    "tensors": lambda: TensorTransformer(network()),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_module_whose_parameters_require_gradients_is_mapped(name, trial, tmp_path):
    """The map's cells hold the effects of the same places, encoded chip by chip without gradients."""
    units, imagery = trial
    encoder = ImageEncoder(imagery, 160, ENCODERS[name](), n_components=2)
    model = make_pipeline(encoder, DoublyRobustEffect(random_state=0))
    model.fit(units, units["y"], doublyrobusteffect__treatment=units["t"].to_numpy())
    frozen = ENCODERS[name]()
    getattr(frozen, "module", frozen).requires_grad_(False)
    same = ImageEncoder(imagery, 160, frozen, n_components=2).fit(units)
    np.testing.assert_allclose(model[0].transform(units), same.transform(units), atol=1e-6)
    options = {"progress": False, "png": False, "html": False}
    found = map_effects(model, imagery, None, 100, tmp_path / "effects.tif", **options)
    assert found.path.is_file()


@pytest.mark.parametrize("name", ENCODERS)
def test_a_module_whose_parameters_require_gradients_is_compared(name, trial, tmp_path):
    units, imagery = trial
    study = Study(units, outcome="y", treatment="t", imagery=imagery)
    source = ImageEncoder(imagery, 160, ENCODERS[name](), n_components=2)
    options = {"metrics": ["blp_slope"], "cv": 2, "n_bootstrap": 10, "progress": False, "folder": tmp_path}
    models = {"robust": DoublyRobustEffect(random_state=0)}
    once, again = (compare(study, {"net": source}, models, **options) for _ in range(2))
    np.testing.assert_array_equal(once.effects["net", "robust"][0].tau, again.effects["net", "robust"][0].tau)


def test_a_module_that_gives_its_parameters_is_detached():
    chips = np.random.default_rng(0).normal(size=(3, 2, 8, 8))
    np.testing.assert_array_equal(ModuleEncoder(Parameters()).fit_transform(chips), np.tile(np.arange(4.0), (3, 1)))


def test_a_bare_module_encodes_frames_and_places_alike():
    assert isinstance(as_transformer(network()), ModuleEncoder)
    chips = np.random.default_rng(0).normal(size=(6, 2, 2, 8, 8))
    named = SequenceEncoder(ModuleEncoder(network())).fit_transform(chips)
    np.testing.assert_array_equal(SequenceEncoder(network()).fit_transform(chips), named)


def test_a_module_that_fails_is_left_in_the_mode_it_was_in():
    class Failing(torch.nn.Module):
        def forward(self, images):
            raise RuntimeError("no")

    module = Failing().train()
    with pytest.raises(DataError, match="RuntimeError: no"):
        ModuleEncoder(module).fit(np.ones((3, 1, 4, 4)) * np.arange(3)[:, None, None, None])
    assert module.training


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_the_fingerprint_of_a_tensor_is_its_content(kind):
    values = torch.arange(6).reshape(2, 3).to(kind)
    same = values.clone().requires_grad_(kind.is_floating_point or kind.is_complex)
    assert fingerprint(values) == fingerprint(same)
    assert fingerprint(values.T.contiguous().T) == fingerprint(values)
    other = values.clone()
    other[0, 0] = 1
    different = [
        other,
        values.reshape(3, 2),
        values.to(torch.complex128 if kind.is_complex else torch.float64),
        values[:0],
    ]
    assert len({fingerprint(v) for v in [values, *different]}) == 5
