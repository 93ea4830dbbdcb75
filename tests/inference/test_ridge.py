"""Ridge by leave-one-out in closed form beside scikit-learn's pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalsat.inference.bootstrap import default_regressor, fit_learner
from causalsat.inference.folds import content_order
from causalsat.inference.nuisances import crossfit_predictions, default_outcome_model, predict_mean
from causalsat.inference.ridge import ridge_fit, ridge_penalties, ridge_pipeline, ridge_predictions

TOLERANCE = 1e-8  # relative; both are direct solutions, and features below have condition numbers up to 1e6


def units(n: int, p: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of unlike scales and levels, one constant; outcome; exponential weights."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * 10.0 ** rng.uniform(-3, 3, p) + 10.0 ** rng.uniform(0, 3, p)
    X[:, -1] = 3.7
    y = (X[:, 0] - X[:, 0].mean()) / X[:, 0].std() + rng.standard_normal(n)
    return X, y, rng.exponential(size=n)


@pytest.mark.parametrize(("n", "p"), [(12, 4), (60, 30), (5000, 7)])
@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_and_penalty_are_those_of_scikit_learn(n, p, weighted):
    X, y, w = units(n, p)
    theirs = fit_theirs(X, y, w if weighted else None)
    ours = ridge_fit(X, y, w if weighted else None, np.logspace(-2, 4, 13))
    assert ours.penalty == theirs[-1].alpha_
    np.testing.assert_allclose(ours.scale, theirs[0].scale_, rtol=1e-12)
    np.testing.assert_allclose(ours.coef, theirs[-1].coef_, rtol=TOLERANCE, atol=1e-12)
    np.testing.assert_allclose(ours.score, theirs[-1].best_score_, rtol=TOLERANCE)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=TOLERANCE)


def fit_theirs(X, y, w):
    options = {} if w is None else {"ridgecv__sample_weight": w}
    return default_regressor().fit(X, y, **options)


def test_the_fitted_pipeline_is_scikit_learns():
    X, y, w = units(200, 5)
    w[:20] = 0.0
    ours = fit_learner(default_regressor(), X, y, w, counts=False)
    theirs = fit_theirs(X[20:], y[20:], w[20:])
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=TOLERANCE)
    np.testing.assert_allclose(predict_mean(ours, X), theirs.predict(X), rtol=TOLERANCE)
    for mine, own in zip(ours, theirs, strict=True):
        assert {name for name in vars(own) if name.endswith("_")} <= set(vars(mine))
        assert mine.get_params().keys() == own.get_params().keys()


def test_other_learners_are_left_alone():
    scaled = (StandardScaler(), RidgeCV([1.0]))
    assert ridge_penalties(make_pipeline(*scaled)) is not None
    assert ridge_penalties(make_pipeline(SimpleImputer(), *scaled)) is None
    assert ridge_penalties(make_pipeline(SimpleImputer(), *scaled), imputed=True) is not None
    others = [
        RidgeCV([1.0]),
        make_pipeline(StandardScaler(), Ridge()),
        make_pipeline(StandardScaler(with_mean=False), RidgeCV([1.0])),
        make_pipeline(StandardScaler(), RidgeCV([1.0], cv=3)),
        make_pipeline(StandardScaler(), RidgeCV([1.0], scoring="r2")),
        make_pipeline(StandardScaler(), RidgeCV([1.0], fit_intercept=False)),
    ]
    assert all(ridge_penalties(other) is None for other in others)
    X, y, _ = units(4, 6)
    assert ridge_pipeline(default_regressor(), X, y, None) is None  # more features than units
    assert ridge_predictions(Ridge().fit(X, y), X) is None


@pytest.mark.parametrize("missing", [False, True])
def test_cross_fitted_predictions(missing):
    X, y, w = units(300, 4)
    if missing:
        X[::7, 1] = np.nan
    fold = np.arange(300) % 3
    ours = crossfit_predictions(default_outcome_model(), X, y, fold, w)
    for k in range(3):
        model = default_outcome_model().fit(X[fold != k], y[fold != k], ridgecv__sample_weight=w[fold != k])
        np.testing.assert_allclose(ours[fold == k], model.predict(X[fold == k]), rtol=TOLERANCE)


def test_order_by_content_with_ties_and_missing_values():
    rng = np.random.default_rng(0)
    for round_to in (0, 1, 8):
        for _ in range(50):
            keys = [np.round(rng.standard_normal(30), round_to) for _ in range(3)]
            if rng.random() < 0.3:
                keys[-1][rng.random(30) < 0.3] = np.nan
            if rng.random() < 0.3:
                keys[-1][:] = 1.0
            np.testing.assert_array_equal(content_order(keys)[0], np.lexsort(keys))
