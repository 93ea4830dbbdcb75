"""PRESTO: gradient, its two limits against independent models, the paper's simulation, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator
from statsmodels.miscmodels.ordinal_model import OrderedModel

import causalsat
from causalsat import RareOutcome
from causalsat.estimators.probabilities import rare_outcome as presto
from causalsat.exceptions import DataError, ParameterError


def paper(seed, cuts=(0.0, 3.5, 5.5), n=2500, p=10, fresh=4000):
    """Faletto and Bien (2023): slopes 1, which change by 0.5 up or down at a boundary with probability 1/3."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n + fresh, p))
    slopes = np.ones((3, p))
    for k in (1, 2):
        slopes[k] = slopes[k - 1] + 0.5 * (rng.random(p) < 1 / 3) * rng.choice([-1, 1], p)
    below = np.maximum.accumulate(expit(np.array(cuts) + X @ slopes.T), axis=1)
    y = (rng.random(len(X))[:, None] > below).sum(axis=1)
    return X[:n], y[:n], X[n:], 1 - below[n:, -1]


def proportional_odds(X, y, fresh):
    model = OrderedModel(y, X, distr="logit")
    return np.asarray(model.predict(model.fit(method="bfgs", disp=0).params, exog=fresh))


def test_gradient_of_the_loss():
    rng = np.random.default_rng(0)
    X, code, weight = rng.standard_normal((50, 3)), rng.integers(0, 4, 50), rng.uniform(0.5, 2, 50)

    def split(v):
        return v[:3], v[3:].reshape(3, 3)

    for scale in (0.1, 0.6):  # at the second some curves cross
        v = np.r_[-1.0, 0.5, 1.5, scale * rng.standard_normal(9)]
        _, by_intercept, by_slope = presto.loss_and_gradient(*split(v), X, code, weight)
        numeric = approx_fprime(v, lambda u: presto.loss_and_gradient(*split(u), X, code, weight)[0], 1e-7)
        np.testing.assert_allclose(np.r_[by_intercept, by_slope.ravel()], numeric, rtol=1e-3, atol=1e-5)


def test_a_large_penalty_leaves_the_shares_and_none_is_maximum_likelihood():
    X, y, fresh, _ = paper(0, n=800)
    most = RareOutcome(penalty=10.0).fit(X, y)
    assert (most.slopes_ == 0).all()
    np.testing.assert_allclose(most.predict_proba(fresh)[0], np.bincount(y) / len(y), atol=0.003)
    two = (y > 0).astype(int)  # of two classes it is a logistic regression
    free = RareOutcome(penalty=0.0).fit(X, two)
    reference = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8).fit(X, two)
    np.testing.assert_allclose(free.predict_proba(fresh), reference.predict_proba(fresh), atol=2e-3)


def test_equal_slopes_are_those_of_proportional_odds():
    """Where the truth is proportional odds, so nearly is the fit: few slopes differ between boundaries."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((3000, 3))
    y = np.digitize(X @ [1.0, 0.5, 0.0] + rng.logistic(size=3000), [0.0, 2.0, 3.5])
    model = RareOutcome(random_state=0).fit(X, y)
    assert np.mean(np.abs(np.diff(model.slopes_, axis=0)) < 0.02) > 0.5
    assert np.abs(model.predict_proba(X) - proportional_odds(X, y, X)).mean() < 0.01


@pytest.mark.statistical
@pytest.mark.slow
def test_beats_logistic_regression_and_proportional_odds_on_the_papers_simulation():
    """Squared error of the rare class's probability, mean over data sets."""
    errors = []
    for seed in range(5):
        X, y, fresh, truth = paper(seed)
        ours = RareOutcome(random_state=0).fit(X, y).predict_proba(fresh)[:, 3]
        rare = LogisticRegression(C=np.inf, max_iter=1000).fit(X, y == 3).predict_proba(fresh)[:, 1]
        shared = proportional_odds(X, y, fresh)[:, 3]
        errors.append([np.mean((p - truth) ** 2) for p in (ours, rare, shared)])
    ours, rare, shared = np.mean(errors, axis=0)
    assert ours < rare
    assert ours < shared


def test_labels_order_weights_and_files(tmp_path):
    X, y, fresh, _ = paper(2, n=600)
    names = np.array(["none", "little", "much", "all"])
    model = RareOutcome(order=names, penalty=0.003).fit(X, names[y])
    plain = RareOutcome(penalty=0.003).fit(X, y)
    assert list(model.classes_) == sorted(names)
    for k, name in enumerate(names):
        column = list(model.classes_).index(name)
        np.testing.assert_allclose(model.predict_proba(fresh)[:, column], plain.predict_proba(fresh)[:, k])
    p = model.predict_proba(fresh)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p >= 0).all()
    heavy = RareOutcome(penalty=0.003).fit(X, y, sample_weight=np.where(y == 3, 5.0, 1.0))
    assert heavy.predict_proba(fresh)[:, 3].mean() > 2 * plain.predict_proba(fresh)[:, 3].mean()
    causalsat.save(model, tmp_path / "rare.safetensors")
    np.testing.assert_array_equal(causalsat.load(tmp_path / "rare.safetensors").predict_proba(fresh), p)


def test_bad_input_is_named():
    X, y, *_ = paper(0, n=60)
    with pytest.raises(DataError, match="one class"):
        RareOutcome().fit(X, 0 * y)
    with pytest.raises(DataError, match="order"):
        RareOutcome(order=[0, 1]).fit(X, y)
    with pytest.raises(ParameterError, match="penalty"):
        RareOutcome(penalty=-1.0).fit(X, y)
    with pytest.raises(ParameterError, match="n_splits"):
        RareOutcome(n_splits=1).fit(X, y)


@pytest.mark.slow
def test_scikit_learns_own_checks_pass():
    results = check_estimator(RareOutcome(n_penalties=3, n_splits=2, random_state=0), on_fail=None, on_skip=None)
    failed = {r["check_name"]: repr(r["exception"])[:300] for r in results if r["status"] == "failed"}
    weights = "check_sample_weight_equivalence_on_dense_data"  # folds of repeated units are others than of weights
    assert {name: why for name, why in failed.items() if name != weights} == {}
