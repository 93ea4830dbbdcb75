import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import causalsat
from causalsat.encoders import ImageEncoder, RandomConvFeatures, SelfSupervisedEncoder, SequenceEncoder, pretrain
from causalsat.exceptions import DataError, ImageryError, ParameterError, ResumeError
from causalsat.imagery import open_imagery
from causalsat.simulate import render_landscape


def textures(n=96, side=16, seed=0):
    """Chips of the same brightness whose stripes are fine or coarse: what a mean over the chip cannot tell."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 2, n)
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1, 1))
    wave = np.where(coarse, 8.0, 2.7)[:, None, None, None]
    x = np.arange(side)[None, None, None, :]
    chips = np.sin(2 * np.pi * x / wave + phase) + 0.3 * rng.standard_normal((n, 2, side, side))
    chips[::2] = chips[::2].swapaxes(2, 3)
    return chips.astype(np.float32), coarse


@pytest.mark.parametrize("objective", ["contrastive", "masked"])
def test_features_learned_without_labels_tell_textures_apart(objective, tmp_path):
    chips, coarse = textures()
    encoder = SelfSupervisedEncoder(objective, width=8, max_epochs=40, patience=40, batch_size=16).fit(chips)
    first, last = encoder.losses_[0][1], min(loss for _, loss in encoder.losses_)
    assert last < (0.95 if objective == "masked" else 0.9) * first
    new, kind = textures(seed=1)
    trained, fresh = encoder.transform(chips), encoder.transform(new)
    readout = make_pipeline(StandardScaler(), LogisticRegression()).fit(trained, coarse)
    # rebuilding pixels asks for phase and contrast as well as for the texture, so the masked network tells less
    assert readout.score(fresh, kind) > (0.9 if objective == "contrastive" else 0.75)
    means = make_pipeline(StandardScaler(), LogisticRegression()).fit(chips.mean(axis=(2, 3)), coarse)
    assert means.score(new.mean(axis=(2, 3)), kind) < 0.7
    np.testing.assert_array_equal(clone(encoder).fit(chips).transform(new), fresh)
    causalsat.save(encoder, tmp_path / "ssl.safetensors")
    for copy in (causalsat.load(tmp_path / "ssl.safetensors"), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_allclose(copy.transform(new), fresh, atol=1e-6)


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    chips, _ = textures(n=32)
    settings = {"width": 4, "batch_size": 16, "patience": 9}
    whole = SelfSupervisedEncoder(max_epochs=4, **settings).fit(chips)
    path = str(tmp_path / "check.pt")
    half = SelfSupervisedEncoder(max_epochs=2, checkpoint=path, **settings).fit(chips)
    assert len(half.losses_) == 2
    resumed = SelfSupervisedEncoder(max_epochs=4, checkpoint=path, **settings).fit(chips)
    assert resumed.losses_ == whole.losses_
    np.testing.assert_array_equal(resumed.transform(chips), whole.transform(chips))
    with pytest.raises(ResumeError, match=r"other data or with other settings.*delete it"):
        SelfSupervisedEncoder(max_epochs=4, checkpoint=path, **settings).fit(chips[::-1].copy())
    content = bytearray((tmp_path / "check.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "check.pt").write_bytes(content)
    with pytest.raises(ResumeError, match="damaged"):
        SelfSupervisedEncoder(max_epochs=4, checkpoint=path, **settings).fit(chips)


def test_invalid_pixels_and_chips():
    chips, _ = textures(n=24)
    chips[0] = np.nan
    chips[1, :, :4] = np.nan
    encoder = SelfSupervisedEncoder(width=4, max_epochs=1).fit(chips)
    found = encoder.transform(chips)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()
    with pytest.raises(DataError, match="at least eight"):
        SelfSupervisedEncoder(width=4).fit(chips[:5])
    with pytest.raises(ParameterError, match="contrastive"):
        SelfSupervisedEncoder("jigsaw").fit(chips)
    with pytest.raises(ParameterError, match="pixels"):
        SelfSupervisedEncoder().fit(chips[..., :6, :6])


@pytest.fixture(scope="module")
def imagery():
    return open_imagery(render_landscape(192, n_dates=3, seed=2).imagery(), scale=1e-4, name="land")


def test_pretrained_encoders_stay_as_they_are_inside_an_image_encoder(imagery):
    frozen = pretrain(SequenceEncoder(RandomConvFeatures(n_features=8)), imagery, 480.0, n_places=64)
    rng = np.random.default_rng(0)
    import geopandas as gpd

    west, south, east, north = imagery.bounds
    x, y = rng.uniform(west + 600, east - 600, 40), rng.uniform(south + 600, north - 600, 40)
    places = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, y), crs=imagery.crs)
    before = frozen.estimator.encoders_[0].filters_[0].copy()
    encoder = ImageEncoder(imagery, 480.0, frozen, 3, dense=False)
    found = clone(encoder).fit(places.iloc[:20])
    np.testing.assert_array_equal(found.encoders_[0].estimator.encoders_[0].filters_[0], before)
    assert found.feature_names_[0] == "mean_rcf0_pos"
    chips = found.transform(places)
    np.testing.assert_allclose(found.set_params(dense=True).transform(places), chips, atol=1e-3)


def test_pretraining_leaves_out_images_from_after_the_treatment(imagery):
    days = imagery.days
    frozen = pretrain(SequenceEncoder(RandomConvFeatures(n_features=8)), imagery, 480.0, n_places=16, before=days[2])
    assert frozen.estimator.days_ == days[:2]
    with pytest.raises(ImageryError, match="no image before"):
        pretrain(RandomConvFeatures(), imagery, 480.0, before=days[0])
    with pytest.raises(ImageryError, match="at least"):
        pretrain(RandomConvFeatures(), imagery, 90_000.0)
