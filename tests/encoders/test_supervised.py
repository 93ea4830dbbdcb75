import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import causalsat
from causalsat.analysis import compare
from causalsat.encoders import ImageEncoder, RandomConvFeatures, SupervisedEncoder
from causalsat.estimators.doubly_robust import DoublyRobustEffect
from causalsat.evaluation import crossfit_effects
from causalsat.exceptions import DataError, ParameterError
from causalsat.simulate import satellite_trial


def world(n_sites=80, per_site=8, seed=0, effect=1.0):
    """A bright site has a high outcome and a large effect; chips are one a site."""
    rng = np.random.default_rng(seed)
    bright = rng.normal(size=n_sites)
    chips = (bright[:, None, None, None] + 0.5 * rng.normal(size=(n_sites, 2, 8, 8))).astype(np.float32)
    place = np.repeat(np.arange(n_sites), per_site)
    t = (rng.permutation(n_sites) % 2)[place].astype(float)
    y = 3 + effect * (bright[place] + t * (1 + bright[place])) + 0.5 * rng.normal(size=len(place))
    return chips, bright, place, t, y


def encoder(**options):
    return SupervisedEncoder(RandomConvFeatures(16, statistics=True), n_components=6, **options)


@pytest.fixture(scope="module")
def fitted():
    chips, bright, place, t, y = world()
    supervised = encoder()
    features = supervised.fit_transform(chips, y, treatment=t, groups=place, unit_place=place)
    return supervised, features, bright


def test_answers_are_the_outcome_and_the_effect(fitted):
    supervised, features, bright = fitted
    assert supervised.get_feature_names_out().tolist() == ["mu", "tau"]
    for found, truth in ((features, bright), (supervised.transform(world(seed=1)[0]), world(seed=1)[1])):
        assert np.corrcoef(found[:, 1], truth)[0, 1] > 0.9
        assert np.mean(np.abs(found[:, 1] - (1 + truth))) < 0.4
        assert np.mean(np.abs(found[:, 0] - (3.5 + 1.5 * truth))) < 0.35


def test_a_place_never_meets_its_own_outcomes():
    chips, _, place, t, y = world(n_sites=30)
    roles = {"treatment": t, "groups": place, "unit_place": place}
    one = encoder(n_folds=3, max_epochs=10)
    before = one.fit_transform(chips, y, **roles)
    changed = np.where(place == 4, y + 100.0, y)
    other = encoder(n_folds=3, max_epochs=10)
    after = other.fit_transform(chips, changed, **roles)
    own = one.folds_ == one.folds_[4]
    np.testing.assert_array_equal(one.folds_, other.folds_)
    np.testing.assert_array_equal(after[own], before[own])
    assert np.abs(after[~own] - before[~own]).max() > 0.5


def test_without_anything_to_find_the_answers_do_not_follow_the_noise():
    chips, _, place, t, y = world(effect=0.0)
    found = encoder().fit_transform(chips, y, treatment=t, groups=place, unit_place=place)
    site_mean = np.bincount(place, y) / np.bincount(place)
    assert np.corrcoef(found[:, 0], site_mean)[0, 1] < 0.3
    assert found[:, 1].std() < 0.15


def test_folds_keep_sites_whole_whatever_their_places():
    chips, _, place, t, y = world(n_sites=40)
    site = place // 2  # two places a site
    supervised = encoder(n_folds=4, max_epochs=2)
    supervised.fit(chips, y, treatment=t, groups=site, unit_place=place)
    fold = supervised.folds_
    assert (fold[::2] == fold[1::2]).all()
    assert set(fold) == {0, 1, 2, 3}


def test_the_treatment_is_predicted_where_asked():
    chips, bright, place, _, y = world(n_sites=240, per_site=2)
    rng = np.random.default_rng(1)
    t = (rng.random(240) < 1 / (1 + np.exp(-2 * bright)))[place].astype(float)
    supervised = encoder(targets="effect+treatment")
    found = supervised.fit_transform(chips, y, treatment=t, groups=place, unit_place=place)
    assert supervised.get_feature_names_out().tolist() == ["mu", "tau", "e"]
    assert ((found[:, 2] > 0) & (found[:, 2] < 1)).all()
    assert np.corrcoef(found[:, 2], 1 / (1 + np.exp(-2 * bright)))[0, 1] > 0.7


def test_saved_and_cloned(fitted, tmp_path):
    supervised, features, _ = fitted
    chips, _, place, t, y = world()
    causalsat.save(supervised, tmp_path / "supervised.safetensors")
    again = causalsat.load(tmp_path / "supervised.safetensors")
    np.testing.assert_array_equal(again.transform(chips), supervised.transform(chips))
    same = clone(supervised).fit_transform(chips, y, treatment=t, groups=place, unit_place=place)
    np.testing.assert_array_equal(same, features)


def test_missing_roles_are_told():
    chips, _, place, t, y = world(n_sites=30)
    with pytest.raises(DataError, match=r"Study\.fit"):
        encoder().fit(chips, y)
    with pytest.raises(DataError, match="sites for"):
        encoder().fit(chips[:6], y[:6], treatment=t[:6])
    with pytest.raises(DataError, match="one of each"):
        encoder().fit(chips, y, treatment=t)
    with pytest.raises(ParameterError, match="treatment"):
        encoder(targets="propensity").fit(chips, y, treatment=t, unit_place=place)


# ---------------------------------------------------------------------- in the house
@pytest.fixture(scope="module")
def trial():
    return satellite_trial("smooth", n_units=900, n_sites=90, size_px=416, tau_sd=0.8, seed=4)


@pytest.fixture(scope="module")
def model(trial):
    study = trial.study()
    inner = RandomConvFeatures(32, statistics=True)
    supervised = SupervisedEncoder(inner, n_components=8, n_folds=3, max_epochs=30)
    images = ImageEncoder(study.imagery, study.chip_size_m, supervised, n_components=None)
    return make_pipeline(images, DoublyRobustEffect(n_splits=3, n_draws=50))


def test_study_fit_crossfit_and_compare_bring_the_outcomes(trial, model):
    study = trial.study()
    fitted = study.fit(clone(model))
    images = fitted.named_steps["imageencoder"]
    assert images.get_feature_names_out().tolist() == ["img_mu", "img_tau"]
    tau = trial.units["tau"].to_numpy()
    found = crossfit_effects(
        model, study.X, study.y, treatment=study.treatment, groups=study.groups, cv=3, progress=False
    )
    assert np.corrcoef(found.tau, tau)[0, 1] > 0.5
    source = {"trained": model.named_steps["imageencoder"]}
    rows = compare(study, source, [model[-1]], ["correlation"], truth=tau, cv=3, progress=False).rows
    same = crossfit_effects(model, study.X, study.y, design=study.design, cv=3, progress=False)
    assert rows["value"].iloc[0] == pytest.approx(np.corrcoef(same.tau, tau)[0, 1], abs=1e-9)
    with pytest.raises(DataError, match="without outcome or treatment"):
        clone(images).fit(study.X)


def test_training_places_get_cross_fitted_features_and_maps_the_average(trial, model):
    study = trial.study()
    images = clone(model.named_steps["imageencoder"])
    train = images.fit_transform(study.X, study.y, treatment=study.treatment, groups=study.groups)
    average = images.transform(study.X)
    assert np.abs(train.to_numpy() - average.to_numpy()).max() > 1e-3
    assert np.corrcoef(train["img_tau"], average["img_tau"])[0, 1] > 0.7
    dense = images.set_params(dense=True).transform(study.X)
    np.testing.assert_allclose(dense, average, atol=1e-3)
