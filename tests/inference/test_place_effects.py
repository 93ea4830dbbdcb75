import numpy as np
import pytest

from causalsat.inference.place_effects import add_place_draws, draw_units, place_deviation

S_A, S_U = 0.5, 0.7


def trial(design, n_villages, size, seed, rho=0.0, scale=1.0):
    """Villages whose own effects are 1 + x + u, with the treatment's contribution known."""
    rng = np.random.default_rng(seed)
    village = np.repeat(np.arange(n_villages), size)
    x = rng.standard_normal(n_villages)
    if design == "within":
        t = (np.tile(np.arange(size), n_villages) % 2).astype(float)
    else:
        t = (rng.permutation(n_villages) % 2)[village].astype(float)
    level = rng.standard_normal(n_villages)
    own = S_U * (rho * level + np.sqrt(1 - rho**2) * rng.standard_normal(n_villages))
    y = x[village] + S_A * level[village] + t * (1 + x + own)[village] + (1 + t) * rng.standard_normal(len(t))
    roles = {"y": scale * y, "treatment": t, "groups": village, "weight": np.ones(len(t))}
    return roles | {"features": x[village][:, None], "contribution": scale * (t * (1 + x[village]))[None]}


def learn(roles, seed=0):
    return place_deviation(**roles, held_out=True, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("design", ["within", "between"])
def test_a_known_sd_is_recovered_in_any_unit(design):
    found = learn(trial(design, 800, 8, 1))
    assert found.by == design
    assert np.median(found.sd) == pytest.approx(S_U, abs=0.1)  # some two standard errors
    assert np.quantile(found.sd, 0.05) < S_U < np.quantile(found.sd, 0.95)
    other = learn(trial(design, 800, 8, 1, scale=1e6))
    np.testing.assert_allclose(other.sd, 1e6 * found.sd, rtol=1e-6)


@pytest.mark.parametrize("rho", [-0.4, 0.4])
def test_the_range_over_rho_holds_what_rho_zero_misses(rho):
    found = learn(trial("between", 1500, 8, 2, rho=rho))
    assert not np.quantile(found.sd, 0.05) < S_U < np.quantile(found.sd, 0.95)
    assert np.quantile(found.sd_low, 0.05) < S_U < np.quantile(found.sd_high, 0.95)


def test_within_villages_rho_does_not_matter():
    found = learn(trial("within", 800, 8, 3, rho=0.5))
    assert np.median(found.sd) == pytest.approx(S_U, abs=0.1)
    np.testing.assert_array_equal(found.sd_low, found.sd_high)


def test_a_dose_that_varies_within_villages():
    rng = np.random.default_rng(0)
    village, t = np.repeat(np.arange(800), 8), rng.gamma(2.0, 1.0, 6400)
    y = rng.standard_normal(800)[village] + t * (1 + S_U * rng.standard_normal(800))[village]
    y += rng.standard_normal(6400)
    one = np.ones(6400)
    found = place_deviation(y, t, village, one, one[:, None], t[None], held_out=True, rng=rng)
    assert np.median(found.sd) == pytest.approx(S_U, abs=0.06)


def test_what_cannot_be_told_is_said():
    roles = trial("within", 50, 8, 4)
    assert "village of its own" in learn(roles | {"groups": None}).reason
    assert "village of its own" in learn(roles | {"groups": np.arange(400)}).reason
    pairs = trial("within", 50, 2, 4)  # one treated and one control in each: u looks like noise
    found = learn(pairs)
    assert found.by == ""
    assert "two units of the same treatment" in found.reason
    few = trial("between", 12, 8, 4)
    assert "villages" in learn(few).reason
    assert learn(few).by == ""


def test_draws_of_a_place_are_its_own_and_leave_means():
    rng = np.random.default_rng(0)
    design, draws = rng.standard_normal((50, 3)), 1 + rng.standard_normal((400, 50))
    deviation = learn(trial("within", 300, 8, 5))
    found = add_place_draws(draws, design, np.ones(50), deviation)
    np.testing.assert_allclose(found.mean(axis=0), draws.mean(axis=0), atol=1e-12)
    added = found.var(axis=0) - draws.var(axis=0)
    assert np.sqrt(added) == pytest.approx(np.full(50, np.sqrt(np.mean(deviation.sd**2))), rel=0.3)
    part = add_place_draws(draws[:, 7:9], design[7:9], np.ones(2), deviation)
    np.testing.assert_array_equal(part, found[:, 7:9])  # whichever other places are asked for
    none = add_place_draws(draws, design, np.zeros(50), deviation)
    np.testing.assert_array_equal(none, draws)
    z = draw_units(design, 4000, 1)
    assert np.abs(np.corrcoef(z.T) - np.eye(50)).max() < 0.08
    assert np.abs(z.std(axis=0) - 1).max() < 0.06
