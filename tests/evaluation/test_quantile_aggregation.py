"""Quantile aggregation against a linear programme, hand computations and scikit-learn's isotonic regression."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import mean_pinball_loss

from causalsat.evaluation import (
    aggregate_quantiles,
    conformal_calibrate,
    monotone_quantiles,
    out_of_fold_quantiles,
    pinball_loss,
    quantile_effects,
)
from causalsat.exceptions import DataError, ParameterError

LEVELS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def predictions(rng, n=400):
    """A good model, a biased one, one that is right in the lower half only, and one of noise."""
    x = rng.standard_normal(n)
    y = x + rng.standard_normal(n)
    right = x[:, None] + norm.ppf(LEVELS)
    lower_half = right + np.where(LEVELS > 0.5, 2.0, 0.0)
    noise = np.sort(rng.standard_normal((n, len(LEVELS))) * 2, axis=1)
    return np.stack([right, right + 1.5, lower_half, noise]), y


def linear_programme(q, y, levels, *, coarse, penalty=0.0, gap=None):
    """The same problem, not smoothed, solved exactly: weights, positive and negative errors, crossings."""
    m, n, k = q.shape
    gap = np.zeros(k - 1) if gap is None else gap
    cost = [np.zeros(m * k), np.tile(levels, n) / n / k, np.tile(1 - levels, n) / n / k]
    cost.append(np.full(n * (k - 1), penalty / n / (k - 1)))
    values = np.zeros((n * k, m * k))
    for j in range(k):
        values[j::k, j::k] = q[:, :, j].T
    zero = np.zeros((n * k, n * (k - 1)))
    A = [np.hstack([values, np.eye(n * k), -np.eye(n * k), zero])]
    b = [np.repeat(y, k)]
    sums = np.zeros((k, m * k))
    for j in range(k):
        sums[j, j::k] = 1
    A.append(np.hstack([sums, np.zeros((k, 2 * n * k + n * (k - 1)))]))
    b.append(np.ones(k))
    if coarse:
        equal = [np.eye(m * k)[i * k] - np.eye(m * k)[i * k + j] for i in range(m) for j in range(1, k)]
        A.append(np.hstack([np.array(equal), np.zeros((len(equal), 2 * n * k + n * (k - 1)))]))
        b.append(np.zeros(len(equal)))
    rows = np.zeros((n * (k - 1), m * k))
    for j in range(k - 1):  # q_j - q_{j+1} + gap_j <= crossing
        rows[j :: k - 1, j::k] = q[:, :, j].T
        rows[j :: k - 1, j + 1 :: k] -= q[:, :, j + 1].T
    A_ub = np.hstack([rows, np.zeros((len(rows), 2 * n * k)), -np.eye(len(rows))])
    found = linprog(np.concatenate(cost), A_ub, -np.tile(gap, n), np.vstack(A), np.concatenate(b), method="highs")
    return found.x[: m * k].reshape(m, k), found.fun


@pytest.mark.parametrize("weighting", ["medium", "coarse"])
def test_weights_reach_the_optimum_of_a_linear_programme(weighting):
    q, y = predictions(np.random.default_rng(0), n=120)
    found = aggregate_quantiles(q, y, LEVELS, weighting=weighting, crossing_penalty=0, monotone=None)
    _, best = linear_programme(q, y, LEVELS, coarse=weighting == "coarse")
    assert found.loss == pytest.approx(best, rel=2e-3)
    assert found.loss >= best - 1e-9


def test_penalised_weights_reach_the_optimum_of_a_linear_programme():
    rng = np.random.default_rng(1)
    q, y = predictions(rng, n=120)
    q[1:] += rng.standard_normal(q[1:].shape)  # models whose quantiles cross
    gap = 0.05 * np.diff(q, axis=2).mean(axis=(0, 1))
    _, best = linear_programme(q, y, LEVELS, coarse=False, penalty=2.0, gap=gap)
    a = aggregate_quantiles(q, y, LEVELS, crossing_penalty=2.0, monotone=None).weights
    mixed = np.einsum("ml,mnl->nl", a, q)
    over = np.maximum(-np.diff(mixed, axis=1) + gap, 0).sum(axis=1).mean() / (len(LEVELS) - 1)
    assert pinball_loss(y, mixed, LEVELS) + 2.0 * over == pytest.approx(best, rel=5e-3)


def test_the_right_model_is_found_at_each_level():
    q, y = predictions(np.random.default_rng(0), n=4000)
    found = aggregate_quantiles(q, y, LEVELS, names=["right", "biased", "lower half", "noise"])
    np.testing.assert_allclose(found.weights.sum(axis=0), 1)
    assert (found.weights[[0, 2]].sum(axis=0) > 0.9).all()
    assert (found.weights[0, LEVELS > 0.5] > 0.9).all()
    table = found.to_dataframe()
    assert table.loc["right", "pinball_loss"] == table["pinball_loss"].min()
    assert list(table.columns[:2]) == ["q0.1", "q0.3"]


def test_two_halves_beat_either():
    """One model is right above the median, one below: only weights by quantile use both."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(3000)
    right = np.tile(norm.ppf(LEVELS), (3000, 1))
    q = np.stack([right - 2 * (LEVELS < 0.5), right + 2 * (LEVELS > 0.5)])
    medium, coarse = (aggregate_quantiles(q, y, LEVELS, weighting=kind) for kind in ("medium", "coarse"))
    assert medium.loss < coarse.loss < medium.model_loss.min()
    assert medium.loss == pytest.approx(pinball_loss(y, right, LEVELS), rel=0.01)


def test_the_penalty_prevents_crossings():
    rng = np.random.default_rng(3)
    q, y = predictions(rng, n=500)
    q[0] += 0.7 * rng.standard_normal(q[0].shape)
    loose, tight = (aggregate_quantiles(q, y, LEVELS, crossing_penalty=c) for c in (0.0, 50.0))
    assert tight.crossing < 0.5 * loose.crossing
    assert (np.diff(loose.predict(q), axis=1) >= 0).all()


def test_out_of_fold_weights_serve_new_data_and_clusters():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    X = rng.standard_normal((300, 3))
    y = X[:, 0] * 2 + rng.standard_normal(60)[groups] + rng.standard_normal(300)
    models = [QuantileRegressor(alpha=0.0), QuantileRegressor(alpha=1.0)]  # the second is nearly constant
    q = out_of_fold_quantiles(models, X, y, LEVELS, groups=groups)
    assert np.corrcoef(q[0, :, 2], X[:, 0])[0, 1] > 0.98
    found = aggregate_quantiles(q, y, LEVELS)
    assert found.weights[0].min() > 0.9
    assert found.loss <= found.model_loss.min() * 1.001
    low, high = found.interval(q, 0.8)
    calibrated = conformal_calibrate(low, high, y, groups=groups, level=0.8)
    assert abs(calibrated.offset) < 0.5
    assert calibrated.coverage == pytest.approx(0.8, abs=0.06)
    with pytest.raises(ParameterError, match="among the levels"):
        found.interval(q, 0.95)


def test_no_fold_sees_its_own_cluster():
    class Memory:
        def __init__(self, quantile=0.5):
            self.quantile = quantile

        def get_params(self, deep=True):
            return {"quantile": self.quantile}

        def set_params(self, quantile):
            self.quantile = quantile
            return self

        def fit(self, X, y):
            self.seen = set(X[:, 0])
            return self

        def predict(self, X):
            return np.array([float(v in self.seen) for v in X[:, 0]])

    groups = np.repeat(np.arange(10), 3)
    q = out_of_fold_quantiles([Memory()], groups[:, None].astype(float), groups * 1.0, [0.5], groups=groups, cv=5)
    np.testing.assert_array_equal(q, 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 9999))
def test_monotone_quantiles_never_lose_and_equal_scikit_learn(k, seed):
    rng = np.random.default_rng(seed)
    q, y = rng.standard_normal((20, k)), rng.standard_normal(20)
    levels = np.arange(1, k + 1) / (k + 1)
    before = pinball_loss(y, q, levels)
    for method in ("sort", "isotonic"):
        after = monotone_quantiles(q, method=method)
        assert (np.diff(after, axis=1) >= -1e-12).all()
        assert pinball_loss(y, after, levels) <= before + 1e-12
    reference = np.array([IsotonicRegression().fit_transform(np.arange(k), row) for row in q])
    np.testing.assert_allclose(monotone_quantiles(q, method="isotonic"), reference, atol=1e-10)


def test_pinball_loss_equals_scikit_learn():
    rng = np.random.default_rng(0)
    y, q, w = rng.standard_normal(50), rng.standard_normal((50, 5)), rng.uniform(0.1, 2, 50)
    reference = [mean_pinball_loss(y, q[:, j], alpha=a, sample_weight=w) for j, a in enumerate(LEVELS)]
    assert pinball_loss(y, q, LEVELS, w) == pytest.approx(np.mean(reference))


def test_quantile_effects_are_differences_of_quantiles():
    np.testing.assert_array_equal(quantile_effects([[2.0, 4.0]], [[1.0, 1.0]]), [[1.0, 3.0]])
    with pytest.raises(DataError, match="shapes"):
        quantile_effects([[2.0, 4.0]], [[1.0]])


def test_weights_decide_whose_quantiles_matter():
    y = np.repeat([0.0, 1.0], 200)
    q = np.stack([np.zeros((400, 1)), np.ones((400, 1))])
    for heavy in (0, 1):
        w = np.where(y == heavy, 10.0, 1.0)
        found = aggregate_quantiles(q, y, [0.5], weights=w)
        assert found.weights[heavy, 0] > 0.9


def test_equal_models_share_the_weight():
    q, y = predictions(np.random.default_rng(0), n=300)
    found = aggregate_quantiles(np.stack([q[0], q[0]]), y, LEVELS)
    np.testing.assert_allclose(found.weights, 0.5, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"levels": [0.5, 0.1, 0.2, 0.3, 0.4]}, ParameterError, "levels"),
        ({"levels": [0.0, 0.1, 0.2, 0.3, 0.4]}, ParameterError, "levels"),
        ({"levels": [0.5]}, DataError, "predictions of shape"),
        ({"weighting": "fine"}, ParameterError, "weighting"),
        ({"monotone": "rearrange"}, ParameterError, "monotone"),
        ({"crossing_penalty": -1.0}, ParameterError, "crossing_penalty"),
        ({"names": ["one"]}, ParameterError, "names"),
        ({"y": np.zeros(3)}, DataError, "outcomes"),
    ],
)
def test_bad_input_gets_a_clear_error(options, error, says):
    q, y = predictions(np.random.default_rng(0), n=50)
    with pytest.raises(error, match=says):
        aggregate_quantiles(**{"predictions": q, "y": y, "levels": LEVELS, **options})


def test_pinball_loss_refuses_quantiles_that_are_not_one_for_each_unit_and_level():
    y = np.array([1.0, 2.0])
    assert pinball_loss(y, [[1.0], [1.0]], 0.5) == pytest.approx(0.25)
    with pytest.raises(DataError, match="2 units and 1 levels"):
        pinball_loss(y, [1.0, 1.0], 0.5)


def test_pinball_loss_refuses_what_weights_or_predicts_nothing():
    y, q = [1.0, 2.0], [[0.0], [1.0]]
    assert pinball_loss(y, q, [0.5], weights=[1e300, 1e300]) == pinball_loss(y, q, [0.5]) == 0.5
    with pytest.raises(DataError, match="negative values"):
        pinball_loss(y, q, [0.5], weights=[-1, 3])
    with pytest.raises(DataError, match="1 missing quantiles"):
        pinball_loss(y, [[np.nan], [1.0]], [0.5])
    with pytest.raises(DataError, match=r"levels \[50.0\]"):
        pinball_loss(y, q, [50])
