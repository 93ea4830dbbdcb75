"""A stated probability of treatment against the shares, and treatments that covariates predict."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from study_worlds import check, clean, only

from causalsat.study.propensity import contradiction, predicted_treatment, within_auc


def test_a_probability_of_one_percent_where_half_are_treated_is_an_error():
    finding = only(check(clean(), propensity=0.01), "propensity")
    assert finding.level == "error"
    assert "the propensity is 0.010 on average for 300 units, but 0.500 of them are treated" in finding.what


def test_probabilities_swapped_between_their_values_are_found_though_the_mean_agrees():
    frame = clean(n_villages=200)
    rng = np.random.default_rng(0)
    high = rng.permutation(200) % 2
    d = (rng.random(200) < np.where(high, 0.8, 0.2)).astype(int)
    frame = frame.assign(d=d[frame["village"]], e=np.where(high, 0.8, 0.2)[frame["village"]])
    assert not check(frame, propensity="e").about("propensity")
    finding = only(check(frame.assign(e=1 - frame["e"]), propensity="e"), "propensity")
    assert finding.level == "error"
    assert "pass 1 - propensity" in finding.todo


@pytest.mark.parametrize("clustered", [False, True])
def test_standard_errors_are_those_of_the_assignment(clustered):
    """Under the stated design the statistic is a standard normal: at most so, in its tails, over 400 trials."""
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(100), 5) if clustered else np.arange(500)
    errors = []
    for _ in range(400):
        t = (rng.random(unit.max() + 1) < 0.3).astype(float)[unit]
        errors.append(contradiction(t, np.full(len(t), 0.3), unit).errors)
    assert np.mean(np.square(errors)) == pytest.approx(1.0, abs=0.25)  # five Monte Carlo standard errors
    assert max(errors) < 4.5


def test_auc_is_that_of_scikit_learn_and_of_blocks():
    rng = np.random.default_rng(0)
    t, block = rng.integers(0, 2, 400).astype(float), rng.integers(0, 5, 400)
    score = np.round(rng.normal(size=400) + t, 1)
    assert within_auc(t, score) == pytest.approx(roc_auc_score(t, score))
    pairs = [(t[block == b].sum() * (1 - t[block == b]).sum(), block == b) for b in range(5)]
    blocked = sum(n * roc_auc_score(t[rows], score[rows]) for n, rows in pairs) / sum(n for n, _ in pairs)
    assert within_auc(t, score, block) == pytest.approx(blocked)


def test_predictions_are_of_held_out_clusters():
    rng = np.random.default_rng(0)
    village = np.repeat(np.arange(60), 10)
    t = (rng.permutation(60) % 2)[village].astype(float)
    names = np.eye(60)[village]  # would tell a village that was in the training folds
    assert abs(within_auc(t, predicted_treatment(names, t, village)) - 0.5) < 0.15
    assert within_auc(t, predicted_treatment(t[:, None] + 0.1 * rng.normal(size=(600, 1)), t, village)) > 0.99


def test_nobody_randomised_names_what_adjusts():
    finding = only(check(clean(), randomised=False), "propensity")
    assert finding.level == "note"
    assert "evaluation.sensitivity" in finding.todo
