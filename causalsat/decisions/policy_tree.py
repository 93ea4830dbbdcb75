"""Rules that people can read: exact policy trees of depth one to three."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from causalsat.core.figures import Drawn
from causalsat.core.inputs import align, check_weights
from causalsat.core.names import one_line, shown
from causalsat.decisions.tree_search import search
from causalsat.evaluation.policy import cost_matrix, score_matrix
from causalsat.exceptions import DataError, ParameterError

__all__ = ["PolicyTree"]

FloatArray = NDArray[np.float64]

DEPTHS = (1, 2, 3)


class PolicyTree(Drawn, BaseEstimator):
    """A tree of at most three questions that says whom to treat, with the largest total score of all such trees.

    The search is exact: no other thresholds or features give a larger sum of scores. Whoever values the tree does so
    on units that did not choose it (:func:`causalsat.evaluation.policy_value`).

    Parameters
    ----------
    depth : {1, 2, 3}
        Questions from the root to a leaf. One and two take ``n log n`` in the number of units (10,000 units and 20
        features: seconds); three is for some hundred units and few features.
    min_leaf : int
        Units in a leaf.
    arms : sequence of str, optional
        Names of the arms; "do not treat" and "treat" for one column of scores.

    Attributes
    ----------
    tree_ : dict
        Nested nodes: ``feature, threshold, left, right, n`` (left where the feature is at most the threshold) or
        ``arm, n``.
    value_ : float
        Mean score a head, less costs, on the units that chose the tree; too large for others.
    feature_names_ : list of str
        Names of the features.
    arm_names_ : list of str
        Names of the arms.

    References
    ----------
    Zhou, Athey and Wager (2023), "Offline multi-action policy learning: generalization and optimization",
    Operations Research 71(1), section 5.

    Examples
    --------
    >>> X = np.array([[1.0], [2.0], [3.0], [4.0]])
    >>> print(PolicyTree(depth=1).fit(X, [-1.0, -2.0, 1.0, 3.0]).export_text())
    x0 <= 2.5: do not treat (2 units)
    x0 > 2.5: treat (2 units)
    """

    _figure = "plot_policy_tree"

    def __init__(self, depth: int = 2, min_leaf: int = 1, arms: Any = None) -> None:
        self.depth = depth
        self.min_leaf = min_leaf
        self.arms = arms

    def fit(
        self, X: Any, scores: ArrayLike, *, costs: ArrayLike = 0.0, sample_weight: ArrayLike | None = None
    ) -> PolicyTree:
        """Find the tree.

        Parameters
        ----------
        X : array or DataFrame of shape (n, p)
            Features by which the rule may decide, complete numbers.
        scores : array of shape (n,) or (n, arms)
            Doubly robust scores of the effect, or of each arm, as for :func:`causalsat.evaluation.policy_value`.
        costs : float or array
            Cost of the treatment or of each arm, in units of the scores.
        sample_weight : array of shape (n,), optional
            Survey weights.

        Returns
        -------
        self

        Raises
        ------
        DataError, ParameterError
            If features are missing, shapes do not agree, or the depth is none of 1, 2 and 3.
        """
        if isinstance(self.depth, bool) or self.depth not in DEPTHS:
            raise ParameterError(f"depth={self.depth!r}", expected="1, 2 or 3")
        if isinstance(self.min_leaf, bool) or not isinstance(self.min_leaf, int | np.integer) or self.min_leaf < 1:
            raise ParameterError(f"min_leaf={self.min_leaf!r}", expected="a whole number of at least 1")
        table = self._table(X, reset=True)
        gamma = score_matrix(align(X, scores, "scores"))
        if len(gamma) != len(table):
            raise DataError(f"{len(gamma)} scores for {len(table)} units", expected="one a unit")
        given = align(X, costs, "costs") if np.ndim(costs) else costs
        net = gamma - cost_matrix(given, gamma.shape, np.ndim(scores) == 1)
        weight = np.ones(len(net)) if sample_weight is None else check_weights(sample_weight, len(net))
        names = list(self.arms) if self.arms is not None else _arm_names(net.shape[1])
        if len(names) != net.shape[1]:
            raise ParameterError(f"{len(names)} names for {net.shape[1]} arms", expected="a name for each arm")

        order = np.lexsort((*net.T, *table.T))  # so that sums do not depend on the order of the rows
        self.arm_names_ = [str(name) for name in names]
        self.tree_ = search(table[order], (net * weight[:, None])[order], int(self.depth), int(self.min_leaf))
        arm = self._arms_of(table)
        self.value_ = float(np.average(net[np.arange(len(net)), arm], weights=weight))
        return self

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Arm of each unit, shape (n,): 1 to treat and 0 not, or the number of the arm."""
        check_is_fitted(self)
        return self._arms_of(self._table(X, reset=False))

    def export_text(self) -> str:
        """The rule in words, a line a leaf."""
        check_is_fitted(self)
        return "\n".join(_lines(self.tree_, self.feature_names_, self.arm_names_))

    def __str__(self) -> str:
        """The rule in words, once it is fitted."""
        return self.export_text() if hasattr(self, "tree_") else repr(self)

    def _table(self, X: Any, *, reset: bool) -> FloatArray:
        try:
            table = validate_data(self, X, reset=reset, dtype=np.float64)
        except ValueError as error:
            raise DataError(
                str(error),
                expected="complete numbers, one row a unit, the columns of the fit",
                todo="impute missing features, or leave the column out",
            ) from error
        if reset:
            names = getattr(self, "feature_names_in_", [f"x{j}" for j in range(table.shape[1])])
            self.feature_names_ = [str(name) for name in names]
        return np.asarray(table)

    def _arms_of(self, table: FloatArray) -> NDArray[np.int64]:
        out = np.zeros(len(table), dtype=np.int64)

        def fill(node: dict[str, Any], rows: NDArray[np.int64]) -> None:
            if "arm" in node:
                out[rows] = node["arm"]
                return
            left = table[rows, node["feature"]] <= node["threshold"]
            fill(node["left"], rows[left])
            fill(node["right"], rows[~left])

        fill(self.tree_, np.arange(len(table)))
        return out


def _arm_names(k: int) -> list[str]:
    return ["do not treat", "treat"] if k == 2 else [f"arm {a}" for a in range(k)]


def _lines(node: dict[str, Any], features: list[str], arms: list[str], so_far: str = "") -> list[str]:
    if "arm" in node:
        condition = so_far or "everybody"
        return [f"{condition}: {one_line(arms[node['arm']])} ({node['n']:,} unit{'s' if node['n'] != 1 else ''})"]
    name, at = one_line(features[node["feature"]]), shown(node["threshold"])
    joint = f"{so_far} and " if so_far else ""
    return [
        *_lines(node["left"], features, arms, f"{joint}{name} <= {at}"),
        *_lines(node["right"], features, arms, f"{joint}{name} > {at}"),
    ]
