import pickle

import numpy as np
import pytest
import xarray as xr
from sklearn.base import BaseEstimator, TransformerMixin, clone

import causalsat
from causalsat.encoders import ImageEncoder, ModuleEncoder, PyramidFeatures, RandomConvFeatures, SequenceEncoder
from causalsat.encoders.sequence.temporal import (
    date_means,
    days_as_years,
    fill_missing,
    fill_pixels,
    pixel_means,
    pool,
)
from causalsat.exceptions import DataError, ImageryError, ModelFileError, ParameterError

DAYS = ["2010-01-01", "2011-01-01", "2014-01-01"]
YEARS = days_as_years(DAYS, 3)


class BandMeans(TransformerMixin, BaseEstimator):
    """The means of the bands: features whose truth is known."""

    def fit(self, X, y=None):
        self.n_bands_ = X.shape[1]
        return self

    def transform(self, X):
        return np.asarray(X).mean(axis=(2, 3), dtype=float)


def chips(n=30, n_time=3, bands=2, side=16, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_time, bands, side, side)).astype(np.float32)


def dated(values, days=DAYS):
    return xr.DataArray(
        values,
        dims=("unit", "time", "band", "y", "x"),
        coords={"time": np.array(days, dtype="datetime64[ns]"), "band": [f"b{j}" for j in range(values.shape[2])]},
    )


def trend(slopes, level=5.0):
    """Chips whose first band grows by a place's own slope a year, from the same level."""
    frames = np.full((len(slopes), 3, 2, 8, 8), level, dtype=np.float32)
    frames[:, :, 0] += (np.asarray(slopes)[:, None] * (YEARS - YEARS[0]))[:, :, None, None]
    return frames


# ---------------------------------------------------------------------- poolings against known values
def test_differences_are_changes_per_year_whatever_the_gap():
    slopes = np.linspace(-2, 3, 11)
    encoder = SequenceEncoder(BandMeans()).fit(dated(trend(slopes)))
    found = encoder.transform(dated(trend(slopes)))
    names = encoder.get_feature_names_out().tolist()
    assert names == ["mean_f0", "mean_f1", "change0_f0", "change0_f1", "change1_f0", "change1_f1"]
    for name in ("change0_f0", "change1_f0"):
        np.testing.assert_allclose(found[:, names.index(name)], slopes, atol=1e-5)
    np.testing.assert_allclose(found[:, names.index("change0_f1")], 0, atol=1e-6)
    np.testing.assert_allclose(found[:, names.index("mean_f0")], 5 + slopes * (YEARS - YEARS[0]).mean(), rtol=1e-5)


def test_a_missing_frame_between_two_others_leaves_a_steady_change_as_it_is():
    slopes = np.linspace(-2, 3, 11)
    frames = trend(slopes)
    encoder = SequenceEncoder(BandMeans()).fit(dated(frames))
    whole = encoder.transform(dated(frames))
    frames[::2, 1] = np.nan
    np.testing.assert_allclose(encoder.transform(dated(frames)), whole, atol=2e-5)


def test_a_missing_frame_carries_the_season_of_its_date_and_not_a_drop():
    rng = np.random.default_rng(1)
    level, season = rng.normal(size=(40, 1, 1)), np.array([0.0, 10.0, -4.0])[None, :, None]
    whole = np.broadcast_to(level + season, (40, 3, 1)).copy()
    means = date_means(whole)
    holed = whole.copy()
    holed[5, 1], holed[6, 0], holed[7, 2], holed[8, :2] = np.nan, np.nan, np.nan, np.nan
    np.testing.assert_allclose(fill_missing(holed, YEARS, means), whole, atol=1e-12)
    holed[9] = np.nan
    filled = fill_missing(holed, YEARS, means)
    assert np.isnan(filled[9]).all()
    np.testing.assert_allclose(np.delete(filled, 9, axis=0), np.delete(whole, 9, axis=0), atol=1e-12)


def test_the_standard_deviation_is_that_of_the_frames_that_are_there():
    features = np.random.default_rng(2).normal(size=(6, 3, 4))
    features[0, 1] = np.nan
    features[1, 1:] = np.nan
    found = pool(features, YEARS, date_means(features), "mean_variance")
    np.testing.assert_allclose(found[2:, 4:], features[2:].std(axis=1, ddof=1))
    np.testing.assert_allclose(found[0, 4:], features[0, [0, 2]].std(axis=0, ddof=1))
    assert np.isnan(found[1, 4:]).all()
    assert np.isfinite(found[1, :4]).all()


def test_concatenation_is_what_the_frame_encoder_gives_date_by_date():
    frames = chips()
    rcf = RandomConvFeatures(n_features=6)
    encoder = SequenceEncoder(rcf, "concatenate", dates=DAYS).fit(frames)
    by_date = np.hstack([encoder.encoders_[0].transform(frames[:, t]) for t in range(3)])
    np.testing.assert_allclose(encoder.transform(frames), by_date, rtol=1e-5, atol=1e-6)
    assert encoder.get_feature_names_out()[6] == "t1_rcf0_pos"


def test_without_dates_frames_are_one_apart():
    frames = trend(np.linspace(-1, 1, 5))
    undated = SequenceEncoder(BandMeans()).fit(frames)
    assert undated.days_ == ()
    np.testing.assert_allclose(
        undated.transform(frames)[:, 4], np.linspace(-1, 1, 5) * (YEARS[2] - YEARS[1]), rtol=1e-4, atol=1e-6
    )


# ---------------------------------------------------------------------- clouds, scales, dense
def test_frames_below_the_valid_share_are_missing():
    frames = chips(side=10)
    frames[0, 1, :, :8] = np.nan  # 20 % valid
    encoder = SequenceEncoder(RandomConvFeatures(n_features=4, patch_px=2), dates=DAYS, fill_pixels=False).fit(frames)
    gone = frames.copy()
    gone[0, 1] = np.nan
    np.testing.assert_array_equal(encoder.transform(frames)[0], encoder.transform(gone)[0])
    lenient = clone(encoder).set_params(min_valid=0.1).fit(frames)
    assert not np.allclose(lenient.transform(frames)[0], lenient.transform(gone)[0])


def test_scales_are_centre_crops_side_by_side():
    frames = chips(side=16)
    encoder = SequenceEncoder(RandomConvFeatures(n_features=4), "concatenate", scales=(1.0, 0.5), dates=DAYS)
    found = encoder.fit(frames).transform(frames)
    inner = frames[..., 4:12, 4:12]
    for t in range(3):
        both = [encoder.encoders_[0].transform(frames[:, t]), encoder.encoders_[1].transform(inner[:, t])]
        np.testing.assert_allclose(found[:, 8 * t : 8 * t + 8], np.hstack(both), rtol=1e-5, atol=1e-6)
    assert encoder.get_feature_names_out()[[0, 4]].tolist() == ["t0_x1_rcf0_pos", "t0_x0.5_rcf0_pos"]


def test_pixels_under_clouds_come_from_the_same_pixels_at_other_dates():
    rng = np.random.default_rng(6)
    level = rng.normal(size=(20, 1, 2, 6, 6))
    drift = rng.normal(size=(20, 1, 2, 6, 6)) * (YEARS - YEARS[0])[None, :, None, None, None]
    season = np.array([[0.0, 1.0], [10.0, -3.0], [2.0, 2.0]])[None, :, :, None, None]
    whole = (level + drift - drift.mean(axis=(0, 3, 4), keepdims=True) + season).astype(np.float32)
    holed = whole.copy()
    holed[0, 1, :, :3] = np.nan  # between: a steady drift is restored
    holed[1, 0, 0, 2, 2] = np.nan  # before the first: the deviation of the next date
    holed[2, :, :, 4, 4] = np.nan  # never seen
    filled = fill_pixels(holed, YEARS, pixel_means(whole))
    np.testing.assert_allclose(filled[0], whole[0], atol=2e-4)
    np.testing.assert_allclose(
        filled[1, 0, :, 2, 2], whole[1, 1, :, 2, 2] + (pixel_means(whole)[0] - pixel_means(whole)[1]), atol=1e-4
    )
    assert np.isnan(filled[2, :, :, 4, 4]).all()
    rest = np.isfinite(holed).all(axis=2, keepdims=True)
    np.testing.assert_array_equal(np.where(rest, filled, 0), np.where(rest, holed, 0))
    np.testing.assert_array_equal(filled[..., 1:5, 2:6], fill_pixels(holed[..., 1:5, 2:6], YEARS, pixel_means(whole)))


def test_the_trend_is_the_least_squares_slope_of_the_frames_that_are_there():
    features = np.random.default_rng(2).normal(size=(6, 3, 4))
    features[0, 1] = np.nan
    features[1, 1:] = np.nan
    means = np.zeros((3, 4))
    found = pool(features, YEARS, means, "mean_trend")[:, 4:]
    for unit in range(2, 6):
        np.testing.assert_allclose(found[unit], np.polyfit(YEARS - YEARS[0], features[unit], 1)[0])
    np.testing.assert_allclose(found[0], (features[0, 2] - features[0, 0]) / (YEARS[2] - YEARS[0]))
    assert np.isnan(found[1]).all()
    two = pool(features[2:, :2], YEARS[:2], means[:2], "mean_difference")
    np.testing.assert_allclose(pool(features[2:, :2], YEARS[:2], means[:2], "mean_trend"), two)


@pytest.mark.parametrize("pooling", ["mean_trend", "mean_difference", "mean_variance", "concatenate", "attention"])
@pytest.mark.parametrize("fill", [True, False])
def test_dense_equals_chips_with_clouds_and_scales(pooling, fill):
    rng = np.random.default_rng(3)
    window = rng.normal(size=(3, 2, 60, 60)).astype(np.float32)
    window[1, :, 5:30, 5:40] = np.nan
    window[0, :, 20:50, 30:55] = np.nan
    rows, cols = (rng.integers(0, 41, 50) for _ in range(2))
    own = np.stack([window[..., r : r + 19, c : c + 19] for r, c in zip(rows, cols, strict=True)])
    encoder = SequenceEncoder(
        RandomConvFeatures(n_features=8, statistics=True), pooling, scales=(1.0, 0.6), dates=DAYS, max_epochs=2,
        fill_pixels=fill,
    )  # fmt: skip
    from_chips = encoder.fit(own).transform(own)
    from_window = encoder.dense(window, rows, cols, 19)
    scale = np.nanstd(from_chips, axis=0)
    assert np.isnan(own).any(axis=(2, 3, 4)).mean() > 0.2
    np.testing.assert_array_equal(np.isnan(from_window), np.isnan(from_chips))
    assert np.nanmax(np.abs(from_window - from_chips) / scale) < 2e-4


def test_dense_is_there_only_where_the_frame_encoder_has_it():
    assert hasattr(SequenceEncoder(), "dense")
    assert not hasattr(SequenceEncoder(PyramidFeatures()), "dense")


# ---------------------------------------------------------------------- attention
def test_attention_answers_hold_the_change_and_survive_saving(tmp_path):
    rng = np.random.default_rng(4)
    n = 160
    change, base = rng.normal(size=n), rng.normal(size=(n, 1, 2, 1, 1))
    frames = (3 * base + 0.05 * rng.normal(size=(n, 3, 2, 8, 8))).astype(np.float32)
    frames[:, :, 0] += 0.3 * (change[:, None] * (YEARS - YEARS.mean()))[:, :, None, None]
    frames[rng.random((n, 3)) < 0.1] = np.nan
    encoder = SequenceEncoder(
        RandomConvFeatures(n_features=8, patch_px=3, statistics=True), "attention", n_outputs=3, n_tokens=6
    )
    found = encoder.fit(dated(frames)).transform(dated(frames))
    some = np.isfinite(found).all(axis=1)
    answers = np.column_stack([np.ones(some.sum()), found[some, 6:]])
    train = np.arange(some.sum()) % 2 == 0
    b = np.linalg.lstsq(answers[train], change[some][train], rcond=None)[0]
    r2 = 1 - np.var(change[some][~train] - answers[~train] @ b) / np.var(change[some][~train])
    assert r2 > 0.8
    assert encoder.get_feature_names_out().tolist() == [*(f"level{j}" for j in range(6)), "att0", "att1", "att2"]
    again = clone(encoder).fit(dated(frames))
    np.testing.assert_array_equal(again.transform(dated(frames)), found)
    causalsat.save(encoder, tmp_path / "seq.safetensors")
    for copy in (causalsat.load(tmp_path / "seq.safetensors"), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_allclose(copy.transform(dated(frames)), found, atol=1e-12)


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pooling": "median"}, ParameterError, "mean_difference"),
        ({"scales": (0.5, 1.5)}, ParameterError, "shares"),
        ({"min_valid": 2.0}, ParameterError, "share"),
        ({"n_outputs": 0}, ParameterError, "at least 1"),
        ({"dates": ["2010-01-01"]}, DataError, "1 dates"),
        ({"dates": ["2012", "2011", "2013"]}, ImageryError, "increasing"),
        ({"dates": ["2012", "soon", "2013"]}, DataError, "days such as"),
    ],
)
def test_parameters_outside_their_domain_are_refused(change, error, words):
    with pytest.raises(error, match=words):
        SequenceEncoder(BandMeans(), **change).fit(chips(n=4))


def test_single_images_and_other_sequences_are_refused():
    with pytest.raises(DataError, match="at least two dates"):
        SequenceEncoder(BandMeans()).fit(chips()[:, :1])
    with pytest.raises(DataError, match="at least two dates"):
        SequenceEncoder(BandMeans()).fit(chips()[:, 0])
    fitted = SequenceEncoder(BandMeans()).fit(chips())
    with pytest.raises(ImageryError, match="dates"):
        fitted.transform(chips(n_time=2))
    with pytest.raises(ImageryError, match="no frame of any training place"):
        SequenceEncoder(BandMeans()).fit(np.full_like(chips(), np.nan))


# ---------------------------------------------------------------------- any torch module
def test_a_module_sees_its_own_bands_in_its_order_on_its_scale():
    torch = pytest.importorskip("torch")

    class Second(torch.nn.Module):
        def forward(self, images, wavelengths):
            return torch.cat([images.mean(dim=(2, 3)), wavelengths.expand(len(images), -1)], dim=1)

    values = np.random.default_rng(0).uniform(size=(5, 3, 4, 4)).astype(np.float32)
    bands = xr.DataArray(values, dims=("unit", "band", "y", "x"), coords={"band": ["red", "green", "nir"]})
    encoder = ModuleEncoder(
        Second(), {"B8": "nir", "B4": "red"}, scale=100.0, mean=[10, 20], sd=[2, 4], wavelengths=[0.84, 0.66]
    )
    found = encoder.fit_transform(bands)
    means = values.mean(axis=(2, 3))
    np.testing.assert_allclose(found[:, 0], (100 * means[:, 2] - 10) / 2, rtol=1e-4)
    np.testing.assert_allclose(found[:, 1], (100 * means[:, 0] - 20) / 4, rtol=1e-4)
    np.testing.assert_allclose(found[:, 2:], [[0.84, 0.66]] * 5, rtol=1e-6)
    with pytest.raises(ImageryError, match="swir"):
        ModuleEncoder(Second(), ["swir", "red"]).fit(bands)
    with pytest.raises(ImageryError, match="without names"):
        ModuleEncoder(Second(), ["nir", "red"]).fit(values)
    with pytest.raises(ParameterError, match="one a band"):
        ModuleEncoder(Second(), ["nir", "red"], mean=[1.0]).fit(bands)


def test_a_bare_module_encodes_frames_and_saving_it_is_refused_with_a_reason(tmp_path):
    torch = pytest.importorskip("torch")
    frames = chips()
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU())
    encoder = SequenceEncoder(module, "concatenate", dates=DAYS).fit(frames)
    found = encoder.transform(frames)
    assert found.shape == (30, 9)
    assert np.ptp(found[:, 0]) > 0
    with pytest.raises(ModelFileError, match="pickle"):
        causalsat.save(encoder, tmp_path / "module.safetensors")


@pytest.mark.slow
def test_vision_transformer_frames():
    from causalsat.encoders import TorchvisionEncoder

    frames = chips(n=2, n_time=2, side=20)
    encoder = SequenceEncoder(TorchvisionEncoder("vit_b_16"), dates=DAYS[:2]).fit(frames)
    found = encoder.transform(frames)
    assert found.shape == (2, 2 * 768)
    by_date = [encoder.encoders_[0].transform(frames[:, t]) for t in range(2)]
    np.testing.assert_allclose(found[:, 768:], by_date[1] - by_date[0], rtol=1e-2, atol=1e-3)


# ---------------------------------------------------------------------- in the house
@pytest.fixture(scope="module")
def trial():
    from causalsat.simulate import satellite_trial

    return satellite_trial("change", n_units=900, n_sites=90, size_px=416, tau_sd=0.7, seed=5)


def test_image_encoder_passes_the_real_dates_and_both_paths_agree(trial):
    imagery = trial.study().imagery
    whole = ImageEncoder(imagery, 960.0, SequenceEncoder(RandomConvFeatures(n_features=16)), 5, dense=False)
    found = whole.fit_transform(trial.units)
    assert whole.encoders_[0].days_ == imagery.days
    assert whole.feature_names_[16].startswith("change0_")
    forced = whole.set_params(dense=True).transform(trial.units)
    np.testing.assert_allclose(forced, found, atol=1e-3)


def test_the_moderator_in_the_change_is_found_by_sequences_and_by_no_single_image(trial, tmp_path):
    study = trial.study()
    truth = trial.places["tau"].to_numpy()
    places = trial.places.assign(**dict.fromkeys(study.covariates, np.nan))

    def r2(imagery, encoder):
        model = causalsat.image_model(study.replace(imagery=imagery), encoder=encoder, n_components=12)
        study.fit(model)
        return model, 1 - np.mean((model.predict(places) - truth) ** 2) / truth.var()

    rcf = RandomConvFeatures(n_features=64, statistics=True)
    singles = [r2(study.imagery.sel(dates=[day]), rcf)[1] for day in study.imagery.days]
    model, sequence = r2(study.imagery, SequenceEncoder(rcf))
    assert sequence > max(singles) + 0.3
    assert sequence > 0.6
    result = causalsat.map_effects(
        model, study.imagery, trial.region, 240.0, tmp_path / "map.tif", png=False, html=False, progress=False
    )
    assert result.n_mapped > 500
    cate = result.to_xarray().sel(band="cate")
    at = trial.units.drop_duplicates("site").geometry
    mapped = cate.sel(x=xr.DataArray(at.x, dims="site"), y=xr.DataArray(at.y, dims="site"), method="nearest").values
    there = np.isfinite(mapped)
    own = model.predict(trial.units.drop_duplicates("site"))
    assert there.mean() > 0.9
    assert np.corrcoef(mapped[there], own[there])[0, 1] > 0.95
