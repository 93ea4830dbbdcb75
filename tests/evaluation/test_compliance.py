"""Take-up: two-stage least squares of linearmodels, weak first stages, the study's check, and conditional effects."""

import numpy as np
import pandas as pd
import pytest

from causalsat import ComplierEffect, Study, load
from causalsat.evaluation import compliance
from causalsat.exceptions import ParameterError, TreatmentError

linearmodels = pytest.importorskip("linearmodels")


def draw(seed=0, n=2000, share=0.6, always=0.1, villages=100):
    rng = np.random.default_rng(seed)
    village = np.repeat(np.arange(villages), n // villages)
    z = (rng.permutation(villages) % 2)[village]
    X = rng.standard_normal((villages, 2))[village]
    u = rng.uniform(size=n)
    d = np.where(u < always, 1, np.where(u < always + share, z, 0))
    tau = 1 + 0.5 * X[:, 0]
    y = X[:, 1] + tau * d - (u > always + share) + 0.3 * rng.standard_normal(villages)[village]
    return X, y + rng.standard_normal(n), z.astype(float), d.astype(float), village, tau


def test_it_is_two_stage_least_squares():
    _, y, z, d, _, _ = draw()
    found = compliance(y, d, treatment=z)
    ones = np.ones((len(y), 1))
    peer = linearmodels.IV2SLS(y, ones, d[:, None], z[:, None]).fit(cov_type="robust")
    assert found.complier.estimate == pytest.approx(float(peer.params.iloc[-1]), abs=1e-9)
    n_arm = len(y) / 2  # both arms have as many: HC2 is HC0 times n / (n - 1)
    assert found.complier.se == pytest.approx(
        float(peer.std_errors.iloc[-1]) * np.sqrt(n_arm / (n_arm - 1)), rel=1e-6
    )


def test_weights_enter_as_in_weighted_two_stage_least_squares():
    _, y, z, d, village, _ = draw(1)
    w = np.random.default_rng(1).uniform(0.5, 2, len(y))
    found = compliance(y, d, treatment=z, sample_weight=w, groups=village)
    peer = linearmodels.IV2SLS(y, np.ones((len(y), 1)), d[:, None], z[:, None], weights=w)
    peer = peer.fit(cov_type="clustered", clusters=village)
    assert found.complier.estimate == pytest.approx(float(peer.params.iloc[-1]), abs=1e-9)
    assert found.complier.se == pytest.approx(float(peer.std_errors.iloc[-1]), rel=0.05)
    assert found.clusters == 100


def test_the_interval_of_anderson_and_rubin_is_where_the_test_accepts():
    from scipy.stats import t

    from causalsat.inference.average_effects import blocked_difference

    _, y, z, d, village, _ = draw(2, share=0.3)
    found = compliance(y, d, treatment=z, groups=village)
    for end in (found.anderson_rubin.lower, found.anderson_rubin.upper):
        left = blocked_difference(y - end * d, z, clusters=village)
        assert abs(left.estimate / left.se) == pytest.approx(t.ppf(0.975, left.df), rel=1e-6)
    assert found.anderson_rubin.contains(found.complier.estimate)


def test_a_weak_first_stage_has_an_unbounded_interval_and_says_so():
    rng = np.random.default_rng(3)
    z = np.arange(200) % 2
    d = (rng.uniform(size=200) < 0.5).astype(float)
    found = compliance(rng.standard_normal(200) + d, d, treatment=z)
    assert found.effective_f < 10
    assert not found.anderson_rubin.bounded
    assert "unbounded" in repr(found)
    assert "weak" in repr(found)


def test_strata_of_unequal_shares_are_no_effect():
    rng = np.random.default_rng(4)
    stratum = np.repeat([0, 1], 2000)
    z = np.concatenate([np.arange(2000) % 4 == 0, np.arange(2000) % 4 != 0]).astype(float)
    d = z * (rng.uniform(size=4000) < 0.5)
    y = 20.0 * stratum + 2 * d + rng.standard_normal(4000)
    found = compliance(y, d, treatment=z, strata=stratum)
    assert found.complier.estimate == pytest.approx(2.0, abs=0.4)


def test_refusals():
    _, y, z, d, _, _ = draw()
    with pytest.raises(TreatmentError, match="IV2SLS"):
        compliance(y, d * 3, treatment=z)
    with pytest.raises(TreatmentError, match="does not move take-up"):
        compliance(y, np.zeros_like(d), treatment=z)
    with pytest.raises(TreatmentError, match="others than 0 and 1"):
        ComplierEffect(n_draws=50).fit(np.zeros((len(y), 1)), y, treatment=z, take_up=d + 1)


@pytest.fixture(scope="module")
def fitted():
    X, y, z, d, village, _ = draw()
    table = pd.DataFrame(X, columns=["a", "b"]).assign(received=d)
    return ComplierEffect(n_draws=500, random_state=0).fit(table, y, treatment=z, take_up="received", groups=village)


def test_conditional_effects_of_compliers(fitted, tmp_path):
    X, y, z, d, village, tau = draw()
    table = pd.DataFrame(X, columns=["a", "b"])
    found = fitted.effect(table)
    assert np.corrcoef(found.mean(), tau)[0, 1] > 0.9
    low, high = found.interval(0.9).T
    assert np.mean((low < tau) & (tau < high)) > 0.75
    two_stage = compliance(y, d, treatment=z, groups=village, covariates=table).complier
    assert float(found.ate()) == pytest.approx(two_stage.estimate, abs=two_stage.se)
    assert float(fitted.effect(table, what="compliance").ate()) == pytest.approx(0.6, abs=0.08)
    assert float(fitted.effect(table, what="itt").ate()) == pytest.approx(0.6, abs=0.25)
    with pytest.raises(ParameterError, match="complier, itt, compliance"):
        fitted.effect(table, what="late")
    fitted.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "m.safetensors").effect(table).draws, found.draws)


def test_a_posterior_of_hardly_any_compliers_is_wide_and_proper():
    X, y, z, d, village, _ = draw(5, n=600, share=0.02, villages=60)
    model = ComplierEffect(n_draws=300, random_state=0).fit(X, y, treatment=z, take_up=d, groups=village)
    average = model.effect(X).ate()
    assert np.isfinite(average.draws).all()
    assert average.sd()[0] > 1.0
    low, high = average.interval(0.9)[0]
    assert low < 1 < high


def test_a_study_says_what_its_take_up_is():
    X, y, z, d, village, _ = draw()
    table = pd.DataFrame(X, columns=["a", "b"])
    table = table.assign(y=y, assigned=z, received=np.where(d == 1, "yes", "no"), village=village, lon=32.0, lat=1.0)
    roles = {"outcome": "y", "treatment": "assigned", "cluster": "village", "lon": "lon", "lat": "lat"}
    study = Study(table, take_up="received", **roles)
    np.testing.assert_array_equal(study.take_up, d)
    assert "are compliers" in str(study.check(imagery=False))
    assert study.subset(np.arange(100)).roles["take_up"] == "received"
    same = Study(table.assign(copy=table["assigned"]), take_up="copy", **roles)
    assert "equals the treatment" in str(same.check(imagery=False))
    gone = table.assign(received=np.where(np.arange(len(d)) < 3, np.nan, d))
    assert not Study(gone, take_up="received", **roles).check(imagery=False).ok
    amounts = Study(table.assign(received=d * 2.5), take_up="received", **roles)
    assert "other values than 0 and 1" in str(amounts.check(imagery=False))
