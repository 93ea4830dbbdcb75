import numpy as np
import pytest

from causalsat import DoublyRobustEffect, EffectPosterior
from causalsat.evaluation import explained_heterogeneity
from causalsat.exceptions import DataError


def trial(design, seed=0, n_villages=400, size=8, s_u=1.0):
    rng = np.random.default_rng(seed)
    village = np.repeat(np.arange(n_villages), size)
    t = np.tile(np.arange(size) % 2, n_villages) if design == "within" else (rng.permutation(n_villages) % 2)[village]
    x, own = rng.standard_normal(n_villages), s_u * rng.standard_normal(n_villages)
    y = 0.5 * rng.standard_normal(n_villages)[village] + t * (1 + x + own)[village]
    return y + rng.standard_normal(len(t)), t, x[village], village


@pytest.mark.parametrize("design", ["within", "between"])
def test_half_of_the_heterogeneity_is_explained(design):
    y, t, x, village = trial(design)
    found = explained_heterogeneity(y, t, 1 + x, groups=village, X=x[:, None])
    assert found.by == design
    assert found.estimate == pytest.approx(0.5, abs=0.08)
    assert found.lower < 0.5 < found.upper
    assert found.sd == pytest.approx(1.0, abs=0.15)
    assert found.explained_sd == pytest.approx(x[::8].std(ddof=1))
    assert found.range_lower <= found.lower < found.upper <= found.range_upper
    assert (found.range_upper > found.upper) == (design == "between")
    assert found.bounds[0] <= found.sd <= found.bounds[1]
    assert "villages" in repr(found)
    assert found.to_dataframe().loc["share explained", "estimate"] == found.estimate
    assert len(found.to_dataframe()) == (6 if design == "between" else 4)


def test_a_fitted_model_is_not_flattered_by_its_own_data():
    y, t, x, village = trial("within", n_villages=80)
    X = np.column_stack([x, np.random.default_rng(1).standard_normal((80, 12))[village]])
    model = DoublyRobustEffect(lack_of_fit=0).fit(X, y, treatment=t, groups=village)
    posterior = model.effect(X)
    found = explained_heterogeneity(y, t, posterior, groups=village, held_out=False)
    taken_as_new = explained_heterogeneity(y, t, posterior.mean(), groups=village)
    assert found.sd > taken_as_new.sd + 0.03  # overfitted residuals are too small
    assert found.sd_lower < 1.0 < found.sd_upper
    np.testing.assert_allclose(np.median(model.place_deviation_.sd), found.sd, rtol=0.1)  # one truth


def test_without_villages_there_are_bounds_only():
    rng = np.random.default_rng(0)
    n = 20_000
    x, t = rng.standard_normal(n), rng.permutation(n) % 2
    y = t * (1 + x) + (1 + t) * rng.standard_normal(n)  # arms' residuals have standard deviations 1 and 2
    found = explained_heterogeneity(y, t, 1 + x)
    assert found.by == ""
    assert np.isnan(found.estimate)
    assert (found.sd_lower, found.sd_upper) == pytest.approx((1.0, 3.0), abs=0.06)  # 2 - 1 and 2 + 1
    assert (found.lower, found.upper) == pytest.approx((1 / 10, 1 / 2), abs=0.02)
    assert "bounds only" in repr(found)


def test_draws_in_any_unit_and_a_posterior_are_one():
    y, t, x, village = trial("within", n_villages=60)
    draws = 1 + x + 0.1 * np.random.default_rng(0).standard_normal((50, 1))
    one = explained_heterogeneity(y, t, draws, groups=village)
    other = explained_heterogeneity(1e6 * y, t, EffectPosterior(1e6 * draws), groups=village)
    assert other.estimate == pytest.approx(one.estimate)
    assert other.sd == pytest.approx(1e6 * one.sd)
    with pytest.raises(DataError, match="effects of shape"):
        explained_heterogeneity(y, t, draws[:, :-1], groups=village)
