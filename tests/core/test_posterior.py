"""EffectPosterior: averages, intervals and differences against hand-computed values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from causalsat import EffectPosterior
from causalsat.exceptions import DataError, ParameterError

DRAWS = np.array([[1.0, 10.0, 100.0], [3.0, 14.0, 100.0]])


def test_moments_are_those_of_the_draws():
    post = EffectPosterior(DRAWS, index=np.array(["a", "b", "c"]))
    np.testing.assert_allclose(post.mean(), [2, 12, 100])
    np.testing.assert_allclose(post.sd(), [np.sqrt(2), np.sqrt(8), 0])
    np.testing.assert_allclose(post.quantile(0.5), [2, 12, 100])
    assert post.interval(0.5).shape == (3, 2)
    np.testing.assert_allclose(post.prob(lambda tau: tau > 2), [0.5, 1, 1])


def test_averages_are_taken_draw_by_draw():
    post = EffectPosterior(DRAWS)
    np.testing.assert_allclose(post.ate().draws[:, 0], [37, 39])
    np.testing.assert_allclose(post.ate(weights=[1, 1, 0]).draws[:, 0], [5.5, 8.5])
    np.testing.assert_allclose(post.att([0, 1, 0]).draws[:, 0], [10, 14])
    gate = post.gate(["v", "u", "v"])
    assert list(gate.index) == ["u", "v"]
    np.testing.assert_allclose(gate.draws, [[10, 50.5], [14, 51.5]])
    np.testing.assert_allclose(post.gate(["v", "u", "v"], weights=[3, 1, 1]).draws[0], [10, 25.75])
    assert float(post.ate()) == 38


def test_difference_keeps_the_correlation_of_draws():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((500, 1))
    a = EffectPosterior(shared + np.array([[1.0, 2.0]]))
    b = EffectPosterior(shared + np.array([[0.0, 0.0]]))
    np.testing.assert_allclose((a - b).draws, np.broadcast_to([1.0, 2.0], (500, 2)), atol=1e-12)


def test_selection_and_exports():
    post = EffectPosterior(DRAWS, index=np.array(["a", "b", "c"]))
    assert list(post[[2, 0]].index) == ["c", "a"]
    assert len(post[1]) == 1
    frame = post.to_dataframe(level=0.5)
    assert list(frame.columns) == ["mean", "sd", "lower", "upper", "prob_positive"]
    assert list(frame.index) == ["a", "b", "c"]
    np.testing.assert_allclose(frame["mean"], [2, 12, 100])
    array = post.to_xarray()
    assert array.dims == ("draw", "unit")
    np.testing.assert_allclose(array.sel(unit="b"), [10, 14])


def test_draws_cannot_be_written_and_the_callers_array_stays_his():
    mine = DRAWS.copy()
    post = EffectPosterior(mine)
    with pytest.raises(ValueError, match="read-only"):
        post.draws[0, 0] = 5
    mine[0, 0] = 1.0  # still writeable


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: EffectPosterior(np.ones(3)), DataError, r"\(draw, unit\)"),
        (lambda: EffectPosterior(np.full((2, 2), np.nan)), DataError, "finite"),
        (lambda: EffectPosterior(DRAWS, index=np.arange(2)), DataError, "labels"),
        (lambda: EffectPosterior(DRAWS).interval(1.0), ParameterError, "between 0 and 1"),
        (lambda: EffectPosterior(DRAWS).quantile(90), ParameterError, "between 0 and 1"),
        (lambda: EffectPosterior(DRAWS).prob(lambda tau: tau.mean() > 0), ParameterError, "element-wise"),
        (lambda: EffectPosterior(DRAWS).att([0, 0, 0]), DataError, "no treated"),
        (lambda: EffectPosterior(DRAWS).att([0, np.nan, 1]), DataError, "1 units whose treatment is missing"),
        (lambda: EffectPosterior(DRAWS).ate(weights=[1, -1, 1]), DataError, "non-negative"),
        (lambda: EffectPosterior(DRAWS).gate(["a", None, "b"]), DataError, "without a group"),
        (lambda: EffectPosterior(DRAWS).gate(["a", float("nan"), "b"]), DataError, "1 units without a group"),
        (lambda: EffectPosterior(DRAWS) - EffectPosterior(DRAWS[:, :2]), DataError, "same units"),
        (lambda: float(EffectPosterior(DRAWS)), TypeError, "ate"),
    ],
)
def test_bad_use_says_what_to_do(make, error, says):
    with pytest.raises(error, match=says):
        make()


@given(arrays(np.float64, (7, 4), elements=st.floats(-1e6, 1e6)), st.permutations(range(4)))
def test_averages_do_not_depend_on_the_order_of_units(draws, order):
    post = EffectPosterior(draws)
    np.testing.assert_allclose(post.ate().draws, post[list(order)].ate().draws, atol=1e-6)
    lower, upper = post.interval(0.8).T
    assert (lower <= upper).all()


@pytest.mark.parametrize("n_draws", [9, 40, 200])
def test_intervals_hold_a_further_draw_as_often_as_they_say(n_draws):
    """Of uniform draws the interval's length is the probability that a further draw lies inside."""
    draws = np.random.default_rng(0).uniform(size=(n_draws, 20_000))
    lower, upper = EffectPosterior(draws).interval(0.8).T
    assert np.mean(upper - lower) == pytest.approx(0.8, abs=3 * np.std(upper - lower) / np.sqrt(20_000))


def test_huge_weights_are_shares_of_the_largest():
    """Their sum left the range of numbers, and the average was 0."""
    post = EffectPosterior(DRAWS)
    w = np.array([1.0, 2.0, 1.0])
    np.testing.assert_allclose(post.ate(weights=8e307 * w / 2).draws, post.ate(weights=w).draws)
    np.testing.assert_allclose(
        post.gate(["v", "u", "v"], weights=8e307 * w / 2).draws, post.gate(["v", "u", "v"], weights=w).draws
    )
