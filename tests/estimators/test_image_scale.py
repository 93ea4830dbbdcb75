"""Estimators of images on another scale than the fit's: stopped; chips under clouds and fill have less support."""

import numpy as np
import pytest

import causalsat
from causalsat.encoders import PyramidFeatures, RandomConvFeatures, allow_other_scale
from causalsat.exceptions import ImageryError

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


def images(n=80, seed=0):
    """Reflectances of three bands."""
    rng = np.random.default_rng(seed)
    place = np.exp(0.25 * rng.standard_normal((n, 3, 1, 1)))
    mean = np.array([0.06, 0.1, 0.3])[:, None, None]
    return (mean * place * np.exp(0.2 * rng.standard_normal((n, 3, 16, 16)))).astype(np.float32)


ESTIMATORS = {
    "confounding": lambda: causalsat.ImageConfounding(PyramidFeatures(2)),
    "TransTEE": lambda: causalsat.TransTEE(
        max_epochs=2, backbone="cnn", n_members=1, width=8, n_features=8, n_draws=20, random_state=0
    ),
    "clusters": lambda: causalsat.ImageEffectClusters(
        backbone=RandomConvFeatures(16, random_state=0), n_clusters=2, n_draws=20, n_tune=50, n_chains=1,
        n_restarts=1, n_components=3, random_state=0,
    ),
    "clusters, trained": lambda: causalsat.ImageEffectClusters(
        n_clusters=2, n_networks=1, max_epochs=1, n_draws=20, n_tune=50, n_chains=1, n_restarts=1, image_px=8,
        random_state=0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_of_images_know_their_scale(name):
    chips, t = images(), np.arange(80) % 2
    y = t * chips[:, 2].mean(axis=(1, 2)) + 0.1 * np.random.default_rng(1).standard_normal(80)
    est = ESTIMATORS[name]().fit(chips, y, treatment=t)
    new = images(30, seed=2)
    support = est.support(new)
    assert est.effect(new).mean().shape == (30,)
    with pytest.raises(ImageryError, match="about 10 times those of the fit"):
        est.effect(10 * new)
    with allow_other_scale():
        assert est.support(10 * new).max() < 0.05
    cloudy, filled = new.copy(), new.copy()
    cloudy[:, :, :7] = np.nan
    filled[:, :, :8] = 0.0
    assert (est.support(cloudy) <= 9 / 16 + 0.01).all()
    assert (est.support(filled) <= 0.51).all()
    assert np.quantile(support, 0.9) > 0.6
