"""Several arms: every arm against the control and against each other, jointly estimated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from causalsat.core import inputs
from causalsat.core.inputs import learn_imputation
from causalsat.design.design import check_nested, check_strata
from causalsat.inference.arm_comparison import ArmComparison, code_arms, compare_arms
from causalsat.inference.arms import arm_scores

__all__ = ["ArmComparison", "arm_effects"]


def arm_effects(
    y: ArrayLike,
    arms: ArrayLike,
    *,
    control: Any,
    X: Any = None,
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    randomised: bool = True,
    outcome_model: Any = None,
    n_splits: int = 5,
    random_state: Any = 0,
) -> ArmComparison:
    """Average effects of every arm against the control and each other, with one cluster-robust covariance.

    Doubly robust scores of each arm's mean (AIPW), cross-fitted over clusters. Without ``X`` these are differences in
    means within strata.

    Parameters
    ----------
    y : array of shape (n,)
        Outcome.
    arms : array of shape (n,)
        Label of each unit's arm.
    control : object
        The label that means control.
    X : array or DataFrame of shape (n, p), optional
        Features that the outcome models adjust for, such as covariates and image features.
    groups, strata, sample_weight : arrays of shape (n,), optional
        Clusters, strata within which arms were assigned, survey weights.
    randomised : bool
        Without randomisation probabilities of the arms are estimated from ``X`` (multinomial logistic regression).
    outcome_model : scikit-learn regressor, optional
        By default a ridge regression.
    n_splits : int
        Folds; fewer where an arm has fewer clusters.
    random_state : int
        Seed of the folds.

    Returns
    -------
    ArmComparison

    Raises
    ------
    TreatmentError
        If labels are missing, ``control`` is no arm, or a stratum lacks an arm.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arm = np.array(["control", "cash", "goats"])[np.arange(900) % 3]
    >>> y = (arm == "cash") * 1.0 + (arm == "goats") * 3.0 + rng.standard_normal(900)
    >>> found = arm_effects(y, arm, control="control")
    >>> found.to_dataframe()["estimate"].round(1).to_list()  # cash and goats against control, goats against cash
    [1.1, 3.1, 2.0]
    """
    given = inputs.align_all(
        y, {"arms": arms, "groups": groups, "strata": strata, "sample_weight": sample_weight}, "y"
    )
    code, names = code_arms(given["arms"], control)
    n = len(code)
    outcome = inputs.check_outcome(given.get("y", y), n)
    clusters = inputs.check_groups(given["groups"], n)
    blocks = check_strata(given["strata"], n) if randomised else None
    if blocks is not None:
        check_nested(clusters, blocks)
    weight = inputs.check_weights(given["sample_weight"], n)
    table = np.empty((n, 0)) if X is None else np.asarray(X, dtype=float)
    if table.shape[1]:
        labels = [f"x{j}" for j in range(table.shape[1])]
        table = learn_imputation(table, tuple(labels)).apply(table, tuple(labels))
    found = arm_scores(
        table, outcome, code, len(names), strata=blocks, clusters=clusters,
        weight=None if sample_weight is None else weight, randomised=randomised, outcome_model=outcome_model,
        n_splits=n_splits, random_state=random_state,
    )  # fmt: skip
    return compare_arms(found.scores, code, names, weight, blocks, clusters, fixed=randomised)
