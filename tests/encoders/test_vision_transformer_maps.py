"""Patch tokens wall to wall: a place has the same features alone, among others and in a map."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rioxarray  # noqa: F401  (adds the accessor .rio)
import torch
import xarray as xr
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat import DoublyRobustEffect, ImageEncoder, ModuleEncoder, TorchvisionEncoder, map_effects, plan_map
from causalsat.encoders.dense.windows import TokenCache, TokenGrid, border_differences, margin_from, pooled_tokens
from causalsat.encoders.networks.backbones import build_backbone
from causalsat.encoders.networks.positions import interpolate_positions, interpolated, vit_tokens
from causalsat.exceptions import DataError, ParameterError

QUIET = {"progress": False, "png": False, "html": False}
SIDE, PATCH = 640, 8


class SmallViT(torch.nn.Module):
    """A class token and 8 x 8 patches of 8 pixels with learned positions, as timm's are called."""

    def __init__(self, k=16):
        super().__init__()
        torch.manual_seed(0)
        self.proj = torch.nn.Conv2d(2, k, PATCH, PATCH)
        self.cls = torch.nn.Parameter(torch.randn(1, 1, k))
        self.pos_embed = torch.nn.Parameter(0.3 * torch.randn(1, 65, k))
        layer = torch.nn.TransformerEncoderLayer(k, 2, 32, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images):
        tokens = self.proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.layers(tokens + self.pos_embed)


def dense_module(window_px=64, **options):
    return ModuleEncoder(SmallViT(), patch=PATCH, window_px=window_px, pooling="mean", **options)


@pytest.fixture(scope="module")
def trial():
    rng = np.random.default_rng(0)
    coords = {"band": ["red", "nir"], "y": 4e5 - 10.0 * np.arange(SIDE), "x": 3e5 + 10.0 * np.arange(SIDE)}
    pixels = rng.normal(size=(2, SIDE, SIDE)).astype("f4")
    pixels += np.repeat(np.repeat(rng.normal(size=(2, SIDE // 20, SIDE // 20)), 20, axis=1), 20, axis=2)
    pixels[:, 300:340, 300:340] = np.nan
    data = xr.DataArray(pixels.astype("f4"), dims=("band", "y", "x"), coords=coords).rio.write_crs("EPSG:32636")
    places = gpd.points_from_xy(rng.uniform(300300, 305900, 60), rng.uniform(394100, 399700, 60))
    t = np.arange(60) % 2
    units = gpd.GeoDataFrame({"t": t, "y": rng.normal(size=60) + t}, geometry=places, crs="EPSG:32636")
    units = units[[not (302700 < p.x < 303700 and 396300 < p.y < 397300) for p in places]].reset_index(drop=True)
    return units, causalsat.open_imagery(data)


def test_a_token_is_that_of_the_window_whose_middle_holds_it():
    """Chips between patches average the tokens by area, as pixel maps of the tokens do."""
    rng = np.random.default_rng(0)
    grid = TokenGrid(4, 16, 4)  # middles of 8 pixels
    pixels = rng.normal(size=(1, 40, 48)).astype("f4")

    def tokens(windows):
        means = windows.reshape(len(windows), 4, 4, 4, 4).mean(axis=(2, 4))[..., None]
        return np.concatenate([means, means * 0 + windows.mean(axis=(1, 2, 3))[:, None, None, None]], axis=-1)

    whole = np.full((2, 40, 48), np.nan)
    for y in range(0, 40 - 15, 8):
        for x in range(0, 48 - 15, 8):
            part = tokens(pixels[None, :, y : y + 16, x : x + 16])[0][1:3, 1:3]
            whole[:, y + 4 : y + 12, x + 4 : x + 12] = np.repeat(np.repeat(part, 4, 0), 4, 1).transpose(2, 0, 1)
    rows, cols, size = np.array([4, 7, 9, 13]), np.array([4, 11, 30, 22]), 6
    cache = TokenCache()
    for _ in range(2):
        found = pooled_tokens(pixels, rows, cols, size, grid, tokens, cache=cache, at_once=3)
        expected = [whole[:, r : r + size, c : c + size].mean(axis=(1, 2)) for r, c in zip(rows, cols, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        tokens = None  # what is kept is not computed again
    with pytest.raises(DataError, match="a window of 40 x 36"):
        pooled_tokens(pixels[:, :, :36], rows, cols, size, grid, tokens, cache=cache)


def test_the_margin_is_where_differences_end():
    """A token that averages its neighbours one patch away differs in the outermost patches only."""

    def tokens(windows):
        means = windows.reshape(len(windows), windows.shape[-1] // 4, 4, -1, 4).mean(axis=(2, 4))
        padded = np.pad(means, ((0, 0), (1, 1), (1, 1)))
        own = sum(np.roll(np.roll(padded, i, 1), j, 2) for i in (-1, 0, 1) for j in (-1, 0, 1))[:, 1:-1, 1:-1]
        noise = 0.05 * np.random.default_rng(len(seen)).normal(size=own.shape)  # what differs everywhere
        seen.append(1)
        return (own + noise)[..., None].astype("f4")

    seen: list[int] = []
    areas = np.random.default_rng(0).normal(size=(6, 1, 96, 96)).astype("f4")
    differences = border_differences(areas, 64, 4, tokens)
    assert len(differences) == 4
    assert differences[0] > 3 * differences[1]
    assert margin_from(differences, 4, 64) == 4
    assert margin_from(np.ones(4), 4, 64) == 0
    assert margin_from(np.array([9.0, 8, 7, 1]), 4, 64) <= 16  # never more than a quarter of the window


@pytest.mark.parametrize("window_px", [64, 96])
def test_a_small_transformer_maps_what_its_places_are(trial, window_px, tmp_path):
    """With windows of another size than the module's own its positional embeddings are interpolated."""
    import rasterio

    units, imagery = trial
    image = ImageEncoder(imagery, 300, dense_module(window_px), n_components=3)
    model = make_pipeline(image, DoublyRobustEffect(random_state=0))
    model.fit(units, units["y"], doublyrobusteffect__treatment=units["t"].to_numpy())
    encoder = model[0].encoders_[0]
    assert encoder.margin_px_ % PATCH == 0
    assert encoder.margin_px_ <= window_px // 4
    together, alone = model[0].transform(units), model[0].transform(units.iloc[[5]])
    np.testing.assert_allclose(alone, together.iloc[[5]], atol=2e-5)
    found = map_effects(model, imagery, None, 250, tmp_path / "e.tif", tile_px=11, **QUIET)
    with rasterio.open(found.path) as raster:
        values, t = raster.read(1), raster.transform
    row, col = np.nonzero(np.isfinite(values))
    assert 560 < len(row) < 26 * 26
    points = gpd.points_from_xy(t.c + t.a * (col + 0.5) + 0.1, t.f + t.e * (row + 0.5) - 0.1)
    model[0].on_invalid = "mask"
    effects = causalsat.effect(model, gpd.GeoDataFrame(geometry=points, crs="EPSG:32636")).mean()
    np.testing.assert_allclose(values[row, col], effects, atol=2e-4)
    causalsat.save(model, tmp_path / "m.safetensors")
    loaded = causalsat.load(tmp_path / "m.safetensors", modules=SmallViT())
    np.testing.assert_allclose(loaded[0].transform(units), together, atol=2e-5)


def test_positional_embeddings_are_the_modules_own_again():
    module = SmallViT()
    before = module.pos_embed
    with interpolated(module, 12):
        assert module.pos_embed.shape == (1, 145, 16)
        module(torch.zeros(1, 2, 96, 96))
    assert module.pos_embed is before
    torch.testing.assert_close(interpolate_positions(before, 8), before)
    flat = torch.ones(1, 65, 2) * torch.tensor([2.0, -1.0])
    torch.testing.assert_close(interpolate_positions(flat, 13), torch.ones(1, 170, 2) * torch.tensor([2.0, -1.0]))


def test_torchvisions_tokens_are_those_of_its_own_forward():
    """At the size of its training the class token, computed beside the patches', is that of the network."""
    module = build_backbone("vit_b_16", 3, None, 0)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    kept = {}
    module.encoder.register_forward_hook(lambda layer, given, found: kept.update(tokens=found))
    with torch.inference_mode():
        module(images)
        found = vit_tokens(module, images)
    torch.testing.assert_close(found.reshape(1, 196, 768), kept["tokens"][:, 1:], atol=1e-4, rtol=1e-4)


def test_what_cannot_be_mapped_by_tokens_is_refused(trial):
    units, imagery = trial
    chips = np.random.default_rng(0).normal(size=(3, 2, 16, 16))
    for options, says in (
        ({"window_px": 60}, "whole patches"),
        ({"window_px": 64, "pooling": "cls"}, "pooling='mean'"),
        ({"window_px": 64, "lonlat": True}, "chip by chip"),
    ):
        with pytest.raises(ParameterError, match=says):
            ModuleEncoder(SmallViT(), patch=PATCH, **{"pooling": "mean"} | options).fit(chips)
    with pytest.raises(ParameterError, match="ImageEncoder"):
        dense_module().fit(chips).transform(chips)
    with pytest.raises(ParameterError, match="its patch, 16"):
        TorchvisionEncoder("vit_b_16", dense_stride=8).fit(chips)
    flat = ModuleEncoder(torch.nn.AdaptiveAvgPool2d(1), patch=PATCH, window_px=64)
    with pytest.raises(DataError, match="tokens"):
        ImageEncoder(imagery, 300, flat, n_components=2).fit(units)


def test_the_plan_of_a_slow_encoder_measures_a_part_of_a_tile(trial, monkeypatch):
    """What a tile would take follows from a part of it, in proportion to its cells."""
    import time

    class Slow(torch.nn.Module):
        def forward(self, images):
            time.sleep(0.004 * len(images))
            return images.mean(dim=(2, 3))

    units, imagery = trial
    model = make_pipeline(ImageEncoder(imagery, 160, Slow(), n_components=2), DoublyRobustEffect(random_state=0))
    model.fit(units, units["y"], doublyrobusteffect__treatment=units["t"].to_numpy())
    monkeypatch.setattr("causalsat.mapping.plan._BUDGET_S", 0.6)
    plan = plan_map(model, imagery, None, 50)
    assert 1 <= plan.measured_cells < 1000
    assert plan.seconds_per_tile * plan.n_tiles / plan.n_cells > 0.003  # at least what each cell sleeps
    assert f"by {plan.measured_cells:,} of its cells" in str(plan)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tokens_on_a_gpu_are_those_of_the_cpu(trial):
    units, imagery = trial
    found = [
        ImageEncoder(imagery, 300, dense_module(device=device, precision="float32"), n_components=None).fit_transform(
            units
        )
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)
