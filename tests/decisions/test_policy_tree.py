"""Policy trees: equal to exhaustive search, whatever the order of rows; leaves, costs, weights, words, refusals."""

from __future__ import annotations

from itertools import product

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from causalsat import PolicyTree
from causalsat.exceptions import DataError, ParameterError

mpl.use("Agg")


def brute(X, scores, depth, least):
    """Largest total score of any tree, by trying all of them."""
    value = scores.sum(axis=0).max()
    if depth == 0 or len(X) < 2 * least:
        return value
    for f, i in product(range(X.shape[1]), range(len(X))):
        left = X[:, f] <= X[i, f]
        if least <= left.sum() <= len(X) - least:
            parts = (brute(X[side], scores[side], depth - 1, least) for side in (left, ~left))
            value = max(value, sum(parts))
    return value


@pytest.mark.parametrize(
    ("n", "p", "arms", "depth", "least", "levels"),
    [
        (25, 3, 2, 1, 1, 0),
        (25, 3, 2, 2, 1, 0),
        (22, 2, 3, 2, 1, 0),
        (24, 3, 2, 2, 4, 0),
        (24, 2, 4, 2, 3, 4),
        (26, 3, 2, 2, 2, 3),
        (12, 2, 2, 3, 1, 0),
        (13, 2, 3, 3, 2, 3),
    ],
)
def test_the_tree_is_that_of_exhaustive_search(n, p, arms, depth, least, levels):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X = rng.integers(0, levels, (n, p)).astype(float) if levels else rng.standard_normal((n, p))
        scores = rng.standard_normal((n, arms))
        tree = PolicyTree(depth, min_leaf=least).fit(X, scores)
        found = scores[np.arange(n), tree.predict(X)].sum()
        assert found == pytest.approx(brute(X, scores, depth, least), abs=1e-9)
        assert tree.value_ == pytest.approx(found / n)


def test_a_rule_of_two_questions_is_found_again():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.uniform(size=(1500, 6)), columns=list("abcdef"))
    tau = np.where((X["b"] > 0.4) & (X["e"] <= 0.7), 1.0, -1.0)
    tree = PolicyTree(depth=2).fit(X, tau + 0.5 * rng.standard_normal(1500))
    assert (tree.predict(X) == (tau > 0)).mean() > 0.99
    questions = {part.split()[0] for line in tree.export_text().splitlines() for part in line.split(" and ")}
    assert questions == {"b", "e"}


def test_rows_in_another_order_weights_and_names_of_columns():
    rng = np.random.default_rng(1)
    X = np.round(rng.standard_normal((200, 4)), 1)
    scores = np.round(rng.standard_normal(200), 1)  # many ties
    order = rng.permutation(200)
    first = PolicyTree().fit(X, scores)
    assert PolicyTree().fit(X[order], scores[order]).tree_ == first.tree_
    twice = np.r_[np.arange(200), np.arange(40)]
    w = np.ones(200)
    w[:40] = 2
    weighted, repeated = PolicyTree().fit(X, scores, sample_weight=w), PolicyTree().fit(X[twice], scores[twice])
    assert weighted.predict(X).tolist() == repeated.predict(X).tolist()
    frame = pd.DataFrame(X, columns=list("wxyz"))
    tree = PolicyTree().fit(frame, pd.Series(scores))
    assert tree.predict(frame).tolist() == first.predict(X).tolist()


def test_costs_and_nothing_to_gain():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((100, 2))
    dear = PolicyTree().fit(X, rng.standard_normal(100), costs=100.0)
    assert dear.predict(X).sum() == 0
    assert dear.export_text() == "everybody: do not treat (100 units)"
    free = PolicyTree().fit(X, np.full(100, 1.0))
    assert free.export_text() == "everybody: treat (100 units)"
    net = PolicyTree().fit(X, X[:, 0], costs=0.5)
    assert (net.predict(X) == (X[:, 0] > 0.5)).all()


def test_thresholds_are_the_roundest_numbers_that_separate_the_units():
    tree = PolicyTree(depth=1).fit([[1.23456], [1.23789], [3.4], [9.0]], [-1.0, 1.0, 1.0, 1.0])
    assert tree.tree_["threshold"] == 1.236
    tree = PolicyTree(depth=1).fit([[0.1], [0.4], [0.71], [9.0]], [-1.0, -1.0, -1.0, 1.0])
    assert tree.tree_["threshold"] == 5


def test_arms_by_name_and_a_picture():
    rng = np.random.default_rng(3)
    X = rng.uniform(size=(300, 2))
    best = (X[:, 0] > 0.5).astype(int) + (X[:, 1] > 0.8)
    tree = PolicyTree(depth=2, arms=["nothing", "cash", "training"]).fit(X, np.eye(3)[best])
    assert (tree.predict(X) == best).mean() > 0.85
    assert "training" in str(tree)
    ax = tree.plot()
    words = " ".join(text.get_text() for text in ax.texts)
    assert "cash" in words
    assert "at most 0.5" in words or "at most 0.8" in words


def test_what_cannot_make_a_tree_is_refused():
    X, scores = np.ones((5, 1)), np.ones(5)
    with pytest.raises(ParameterError, match="1, 2 or 3"):
        PolicyTree(depth=4).fit(X, scores)
    with pytest.raises(ParameterError, match="at least 1"):
        PolicyTree(min_leaf=0).fit(X, scores)
    with pytest.raises(DataError, match="impute"):
        PolicyTree().fit(np.full((5, 1), np.nan), scores)
    with pytest.raises(DataError, match="4 scores for 5 units"):
        PolicyTree().fit(X, scores[:4])
    with pytest.raises(ParameterError, match="names for 2 arms"):
        PolicyTree(arms=["a"]).fit(X, scores)
