"""Modules with the signatures of published foundation models, with random weights: each is called as it wants."""

from __future__ import annotations

import gc
import sys
import warnings

import geopandas as gpd
import numpy as np
import pytest
import rioxarray  # noqa: F401  (adds the accessor .rio)
import torch
import xarray as xr
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat import DoublyRobustEffect, ImageEncoder, ModuleEncoder, TorchvisionEncoder, map_effects
from causalsat.exceptions import DataError, ImageryError, ImageryWarning, ModelFileError, ParameterError

BANDS = ["blue", "red", "nir"]
SEEN = {}  # what modules were called with: not in them, where it would be a part of the model
QUIET = {"progress": False, "png": False, "html": False}


def chips(n=5, times=0, side=32, seed=0, scale=1.0, **coords):
    """Reflectances with places and dates."""
    rng = np.random.default_rng(seed)
    shape = (n, *([times] if times else []), 3, side, side)
    dims = ("unit", *(["time"] if times else []), "band", "y", "x")
    at = {"band": BANDS, "lon": ("unit", rng.uniform(29, 35, n)), "lat": ("unit", rng.uniform(-1, 4, n))}
    if times:
        at["time"] = np.array(["2007-01-03", "2007-06-30", "2007-12-31"][:times], dtype="datetime64[ns]")
    values = (scale * rng.uniform(0.05, 0.45, shape)).astype("f4")
    return xr.DataArray(values, dims=dims, coords=at | coords, attrs={"resolution_m": 10.0})


class ClayLike(torch.nn.Module):
    """One dictionary; gives tokens with a class token before them, and something else, as Clay's encoder does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch = torch.nn.Conv2d(3, 8, 8, 8)
        self.place = torch.nn.Linear(8, 8)

    def forward(self, datacube):
        SEEN["clay"] = datacube
        assert datacube["waves"].shape == (datacube["pixels"].shape[1],)
        tokens = self.patch(datacube["pixels"]).flatten(2).transpose(1, 2) * datacube["waves"].mean()
        where = self.place(torch.cat([datacube["latlon"], datacube["time"]], dim=1))[:, None]
        return torch.cat([where, tokens + where * datacube["gsd"]], dim=1), None


class PrithviLike(torch.nn.Module):
    """(batch, channel, time, y, x) with (year, day) of each date and places, patches of every date as tokens."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch = torch.nn.Conv3d(3, 8, (1, 8, 8), (1, 8, 8))

    def forward(self, pixels, temporal_coords, location_coords):
        SEEN["prithvi"] = (temporal_coords, location_coords)
        tokens = self.patch(pixels).flatten(2).transpose(1, 2)
        first = (temporal_coords.sum(dim=(1, 2))[:, None] + location_coords.sum(dim=1, keepdim=True)).expand(-1, 8)
        return torch.cat([first[:, None], tokens], dim=1)


class DofaLike(torch.nn.Module):
    """Pixels and wavelengths in micrometres, with a declaration of its own."""

    takes = ("pixels", "wavelengths")
    wavelength_units = "um"
    bands = ("nir", "red")
    mean = (0.25, 0.25)
    sd = (0.1, 0.1)

    def forward(self, pixels, wavelengths):
        return torch.cat([pixels.mean(dim=(2, 3)), wavelengths.expand(len(pixels), -1)], dim=1)


class SatClipLike(torch.nn.Module):
    """(longitude, latitude) only, waves of them as features."""

    takes = ("lonlat",)

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(2, 6)

    def forward(self, lonlat):
        return torch.sin(self.layer(torch.deg2rad(lonlat) * 200))


def make_dofa():
    return DofaLike()


def make_clip():
    return SatClipLike()


CLAY = {"pixels": "pixels", "time": "time_waves", "latlon": "latlon_waves", "waves": "wavelengths", "gsd": "gsd"}


# ---------------------------------------------------------------------- called as they want
def test_clay_like_takes_one_dictionary():
    X, module = chips(times=2), ClayLike()
    encoder = ModuleEncoder(module, takes=CLAY, wavelengths=[0.48, 0.66, 0.84], patch=8, pooling="cls")
    found = encoder.fit_transform(X)
    assert found.shape == (5, 16)  # two dates
    lon, lat = (np.radians(X[k].to_numpy()) for k in ("lon", "lat"))
    waves = np.column_stack([np.sin(lat), np.cos(lat), np.sin(lon), np.cos(lon)])
    np.testing.assert_allclose(SEEN["clay"]["latlon"].numpy()[::2], waves, atol=1e-6)
    week = 2 * np.pi * np.array([1, 26]) / 52
    np.testing.assert_allclose(SEEN["clay"]["time"].numpy()[:2, 0], np.sin(week), atol=1e-6)
    assert float(SEEN["clay"]["gsd"]) == 10.0
    with torch.inference_mode():
        expected = module.place(torch.cat([SEEN["clay"]["latlon"], SEEN["clay"]["time"]], dim=1)).numpy()
    np.testing.assert_allclose(found, expected.reshape(5, 16), atol=1e-6)


def test_prithvi_like_takes_all_dates_in_one_call():
    X, module = chips(times=3), PrithviLike()
    takes = ("frames", "dates", "latlon")
    encoder = ModuleEncoder(module, takes=takes, patch=8, pooling="mean").fit(X)
    found = encoder.transform(X)
    assert found.shape == (5, 8)
    np.testing.assert_array_equal(SEEN["prithvi"][0].numpy()[0], [[2007, 3], [2007, 181], [2007, 365]])
    np.testing.assert_allclose(SEEN["prithvi"][1].numpy(), np.column_stack([X.lat, X.lon]), rtol=1e-6)
    scaled = (X.to_numpy() - encoder.band_mean_[:, None, None]) / encoder.band_sd_[:, None, None]
    with torch.inference_mode():
        tokens = module.patch(torch.from_numpy(scaled.transpose(0, 2, 1, 3, 4).astype("f4"))).flatten(2).mean(dim=2)
    np.testing.assert_allclose(found, tokens.numpy(), atol=1e-5)
    assert encoder.get_feature_names_out()[0] == "module_0"


def test_dofa_like_declares_itself_and_wavelengths_are_converted():
    X = chips()
    found = ModuleEncoder(DofaLike(), wavelengths=[842, 665], wavelength_units="nm").fit_transform(X)
    np.testing.assert_allclose(found[:, 2:], [[0.842, 0.665]] * 5, rtol=1e-6)
    means = X.to_numpy().mean(axis=(2, 3))
    np.testing.assert_allclose(found[:, :2], (means[:, [2, 1]] - 0.25) / 0.1, rtol=1e-3)


def test_satclip_like_takes_places_only():
    X, module = chips(), SatClipLike()
    found = ModuleEncoder(module).fit_transform(X)
    with torch.inference_mode():
        expected = module(torch.tensor(np.column_stack([X.lon, X.lat]), dtype=torch.float32)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_declared_date_stands_for_undated_imagery():
    class Dates(torch.nn.Module):
        def forward(self, pixels, dates):
            return dates[:, 0]

    found = ModuleEncoder(Dates(), time="2007-02-01").fit_transform(chips())
    np.testing.assert_array_equal(found, [[2007, 32]] * 5)
    with pytest.raises(DataError, match="without dates"):
        ModuleEncoder(Dates(), time=True).fit(chips())


# ---------------------------------------------------------------------- what was wrong in silence
@pytest.mark.parametrize(
    ("scale", "mean", "sd", "remedy"),
    [(10_000, [0.25] * 3, [0.1] * 3, "scale=0.0001"), (1.0, [2500] * 3, [1000] * 3, "scale=10000")],
)
def test_means_of_other_units_are_refused_with_the_scale(scale, mean, sd, remedy):
    X = chips(scale=scale)
    with pytest.raises(ParameterError, match=remedy):
        ModuleEncoder(torch.nn.AdaptiveAvgPool2d(1), mean=mean, sd=sd).fit(X)
    right = ModuleEncoder(torch.nn.AdaptiveAvgPool2d(1), mean=mean, sd=sd, scale=float(remedy[6:]))
    assert np.abs(right.fit_transform(X)).max() < 2


def test_imagenets_means_on_reflectances_are_not_refused():
    given = {"mean": [0.485, 0.456, 0.406], "sd": [0.229, 0.224, 0.225]}
    encoder = ModuleEncoder(torch.nn.AdaptiveAvgPool2d(1), **given).fit(chips())
    np.testing.assert_allclose(encoder.band_mean_, given["mean"])
    np.testing.assert_allclose(encoder.band_sd_, given["sd"])


@pytest.mark.parametrize(
    ("waves", "options", "error", "says"),
    [
        ([842, 665], {}, ParameterError, "micrometres"),
        ([0.665, 0.842], {}, ImageryError, "'nir'"),
        ([842, 665], {"wavelength_units": "um"}, ParameterError, "one unit"),
        ([842, 0.665], {"wavelength_units": "nm"}, ParameterError, "one unit"),
        ([842, 665], {"wavelength_units": "feet"}, ParameterError, "'nm' or 'um'"),
    ],
)
def test_implausible_wavelengths_are_refused(waves, options, error, says):
    with pytest.raises(error, match=says):
        ModuleEncoder(DofaLike(), wavelengths=waves, **options).fit(chips())


class Tokens(torch.nn.Module):
    """A class token of 100 before 4 x 4 patches that hold their band means."""

    def forward(self, pixels):
        patches = torch.nn.functional.avg_pool2d(pixels, 8).flatten(2).transpose(1, 2)
        return torch.cat([torch.full_like(patches[:, :1], 100), patches], dim=1)


def test_the_class_token_is_not_averaged_with_the_patches():
    X = chips()
    with pytest.raises(ParameterError, match=r"17 tokens, 1 of them before.*pooling='cls'"):
        ModuleEncoder(Tokens()).fit(X)
    plain = ModuleEncoder(torch.nn.AdaptiveAvgPool2d(1)).fit_transform(X)
    np.testing.assert_allclose(ModuleEncoder(Tokens(), pooling="mean").fit_transform(X), plain, atol=1e-5)
    np.testing.assert_array_equal(ModuleEncoder(Tokens(), pooling="cls").fit_transform(X), np.full((5, 3), 100.0))
    every = ModuleEncoder(Tokens(), pooling="tokens", patch=8).fit_transform(X)
    np.testing.assert_allclose(every.reshape(5, 16, 3).mean(axis=1), plain, atol=1e-5)


def test_enlarging_chips_is_said_once():
    X = chips()
    for encoder in (ModuleEncoder(torch.nn.AdaptiveAvgPool2d(1), image_px=64), TorchvisionEncoder(image_px=64)):
        with pytest.warns(ImageryWarning, match="32 pixels are enlarged to 64") as caught:
            encoder.fit(X).transform(X)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ModuleEncoder(torch.nn.AdaptiveAvgPool2d(1), image_px=40).fit(X).transform(X)


def test_what_a_module_cannot_take_is_said_with_the_shapes():
    with pytest.raises(DataError, match=r"IndexError.*\n?.*takes=|pixels \(1, 3, 32, 32\)"):
        ModuleEncoder(PrithviLike(), takes=("pixels", "dates", "latlon"), time="2007-01-01").fit(chips())
    with pytest.raises(DataError, match="longitude and latitude"):
        ModuleEncoder(SatClipLike()).fit(chips().to_numpy())
    for options in ({"takes": ("images",)}, {"pooling": "max"}, {"gsd": -1.0}, {"time": "yesterday"}):
        with pytest.raises(ParameterError, match=next(iter(options))):
            ModuleEncoder(torch.nn.AdaptiveAvgPool2d(1), **options).fit(chips())


# ---------------------------------------------------------------------- on the map
@pytest.fixture(scope="module")
def trial():
    rng = np.random.default_rng(0)
    coords = {"band": BANDS, "y": 4e5 - 10.0 * np.arange(120), "x": 3e5 + 10.0 * np.arange(120)}
    pixels = rng.uniform(0.05, 0.45, size=(3, 120, 120)).astype("f4")
    pixels[:, 70:90, 70:90] = np.nan
    data = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords).rio.write_crs("EPSG:32636")
    imagery = causalsat.open_imagery(data, dates="2007-06-30")
    places = gpd.points_from_xy(rng.uniform(300200, 300600, 60), rng.uniform(399400, 399800, 60))
    t = np.arange(60) % 2
    units = gpd.GeoDataFrame({"t": t, "y": rng.normal(size=60) + t}, geometry=places, crs="EPSG:32636")
    return units, imagery


def fitted(trial, encoder):
    units, imagery = trial
    image = ImageEncoder(imagery, 160, encoder, n_components=2)
    model = make_pipeline(image, DoublyRobustEffect(random_state=0))
    return model.fit(units, units["y"], doublyrobusteffect__treatment=units["t"].to_numpy())


KINDS = {
    "clay": lambda: ModuleEncoder(
        ClayLike(), takes=CLAY, wavelengths=[480, 660, 840], patch=8, pooling="cls", image_px=16
    ),
    "prithvi": lambda: ModuleEncoder(
        PrithviLike(), takes=("frames", "dates", "latlon"), patch=8, pooling="mean", image_px=16
    ),
    "dofa": lambda: ModuleEncoder(DofaLike(), wavelengths=[0.84, 0.66]),
    "satclip": lambda: ModuleEncoder(SatClipLike()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_fitted_mapped_and_its_map_resumed(kind, trial, tmp_path):
    """Cells hold the effects of their places, one by one; a loaded model goes on with the map."""
    import rasterio

    model = fitted(trial, KINDS[kind]())
    SEEN.clear()  # a global of the module's code counts as a part of it
    found = map_effects(model, trial[1], None, 100, tmp_path / "e.tif", **QUIET)
    with rasterio.open(found.path) as raster:
        values, t = raster.read(1), raster.transform
    row, col = np.nonzero(np.isfinite(values))
    assert 100 < len(row) < 144
    points = gpd.points_from_xy(t.c + t.a * (col + 0.5) + 0.1, t.f + t.e * (row + 0.5) - 0.1)
    cells = gpd.GeoDataFrame(geometry=points, crs="EPSG:32636")
    model[0].on_invalid, model[0].dense = "mask", False
    effects = causalsat.effect(model, cells).mean()
    np.testing.assert_allclose(values[row, col], effects, atol=2e-4)  # waves of close places in float32
    np.testing.assert_allclose(causalsat.effect(model, cells.iloc[[7]]).mean(), effects[7], atol=2e-4)
    model[0].on_invalid, model[0].dense = "raise", "auto"
    path = tmp_path / "model.safetensors"
    causalsat.save(model, path)
    again = causalsat.load(path, modules=model[0].encoder.module)
    SEEN.clear()
    second = map_effects(again, trial[1], None, 100, tmp_path / "f.tif", **QUIET)
    assert second.job == found.job


# ---------------------------------------------------------------------- saved by reference
def test_a_reference_is_saved_and_loaded_only_when_trusted(trial, tmp_path):
    units, _ = trial
    name = f"{__name__}:make_dofa"
    model = fitted(trial, ModuleEncoder(name, wavelengths=[0.84, 0.66]))
    path = tmp_path / "model.safetensors"
    causalsat.save(model, path)
    untrusted = causalsat.load(path)
    with pytest.raises(ParameterError, match="a file runs no code"):
        untrusted[0].transform(units)
    with pytest.raises(ParameterError, match="a file runs no code"):
        clone(untrusted).fit(units, units["y"], doublyrobusteffect__treatment=units["t"].to_numpy())
    expected = causalsat.effect(model, units).mean()
    for modules in ([name], {name: True}, {name: make_dofa}, DofaLike(), make_dofa):
        loaded = causalsat.load(path, modules=modules)
        np.testing.assert_array_equal(causalsat.effect(loaded, units).mean(), expected)


def test_loading_imports_nothing_that_the_file_names(trial, tmp_path, monkeypatch):
    code = tmp_path / "evil_module.py"
    code.write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x.mean(dim=(2, 3))\n"
        f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\nmake = Net\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for reference in ("evil_module:make", f"{code}:make"):
        model = fitted(trial, ModuleEncoder(reference))
        causalsat.save(model, tmp_path / "m.safetensors")
        sys.modules.pop("evil_module", None)
        del model
        gc.collect()  # modules are shared within a process while something holds them
        (tmp_path / "ran").unlink()
        loaded = causalsat.load(tmp_path / "m.safetensors")
        with pytest.raises(ParameterError, match="evil_module"):
            loaded[0].transform(trial[0])
        assert not (tmp_path / "ran").exists()
        causalsat.load(tmp_path / "m.safetensors", modules=[reference])[0].transform(trial[0])
        assert (tmp_path / "ran").exists()


def test_other_weights_are_refused(trial, tmp_path):
    model = fitted(
        trial, ModuleEncoder(ClayLike(), takes=CLAY, wavelengths=[0.48, 0.66, 0.84], patch=8, pooling="cls")
    )
    path = tmp_path / "model.safetensors"
    causalsat.save(model, path)
    other = ClayLike()
    with torch.no_grad():
        other.place.bias += 1
    with pytest.raises(ModelFileError, match="other weights"):
        causalsat.load(path, modules=other)
    file, options = tmp_path / "weights.pth", {"takes": CLAY, "wavelengths": [0.48, 0.66, 0.84], "patch": 8}
    options |= {"pooling": "cls", "time": "2007-06-30"}
    torch.save({f"net.{k}": v for k, v in model[0].encoder.module.state_dict().items()}, file)
    from_file = ModuleEncoder(other, weights=file, **options).fit(chips())
    assert from_file.module_digest_ == model[0].encoders_[0].module_digest_
    assert float(other.place.bias[0]) != float(from_file._network().place.bias[0])  # the user's module is left
    with pytest.raises(ModelFileError, match="digest"):
        ModuleEncoder(other, weights=(file, "0" * 64), **options).fit(chips())
    torch.save({"place.bias": torch.zeros(8)}, tmp_path / "short.pth")
    with pytest.raises(ModelFileError, match="lacks 3 of the 4"):
        ModuleEncoder(other, weights=tmp_path / "short.pth", **options).fit(chips())


def test_copies_share_the_module_over_folds(trial):
    from copy import deepcopy

    module = DofaLike()
    encoder = ModuleEncoder(module, wavelengths=[0.84, 0.66])
    assert clone(encoder).module is module
    model = fitted(trial, encoder)
    assert model[0].encoders_[0].module is module
    for copy in (clone(model), deepcopy(model)):
        assert copy[0].encoder.module is module
    assert deepcopy(model)[0].encoders_[0]._network() is module
    references = [ModuleEncoder(f"{__name__}:make_clip") for _ in range(2)]
    first, second = (e.fit(chips())._network() for e in references)
    assert first is second
    assert encoder.get_params()["module"] is module
