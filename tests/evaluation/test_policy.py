"""Values of rules and gains of budgets: by hand, against a linear program, against a regression, coverage."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import linprog

from causalsat.evaluation import gain_curve, policy_difference, policy_value
from causalsat.exceptions import DataError, ParameterError

mpl.use("Agg")


def trial(seed, n_groups=60, size=5):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), size)
    tau = rng.standard_normal(n_groups)[group] * 0.5 + 0.3 + 0.3 * rng.standard_normal(len(group))
    scores = tau + rng.standard_normal(n_groups)[group] * 0.5 + rng.standard_normal(len(group))
    return tau, scores, group


def test_value_is_a_weighted_mean_with_the_error_of_a_cluster_robust_regression():
    tau, scores, group = trial(0)
    w = np.random.default_rng(1).uniform(0.5, 2, len(tau))
    found = policy_value(tau > 0, scores, groups=group, costs=0.2, weights=w)
    value = np.where(tau > 0, scores - 0.2, 0)
    assert found.estimate == pytest.approx(np.average(value, weights=w), rel=1e-12)
    by_hand = sm.WLS(value, np.ones(len(tau)), weights=w).fit(cov_type="cluster", cov_kwds={"groups": group})
    assert found.se == pytest.approx(by_hand.bse[0], rel=0.02)  # CR2 there, CR1 here
    assert found.lower < found.estimate < found.upper
    assert found.treated == pytest.approx(np.average(tau > 0, weights=w))
    assert found.cost == pytest.approx(0.2 * found.treated)


def test_a_difference_is_paired_and_antisymmetric():
    tau, scores, group = trial(1)
    one, two = tau > 0, tau > 0.5
    gap = policy_difference(one, two, scores, groups=group)
    assert gap.estimate == pytest.approx(policy_value(one, scores).estimate - policy_value(two, scores).estimate)
    back = policy_difference(two, one, scores, groups=group)
    assert (back.estimate, back.se) == pytest.approx((-gap.estimate, gap.se))
    assert policy_difference(one, one, scores, groups=group).se == 0
    nobody = policy_difference(one, 0, scores, groups=group)
    assert (nobody.estimate, nobody.se) == pytest.approx(
        (policy_value(one, scores, groups=group).estimate, policy_value(one, scores, groups=group).se)
    )


def test_arms_by_number_and_by_probability():
    rng = np.random.default_rng(2)
    scores, arm = rng.standard_normal((50, 3)), rng.integers(0, 3, 50)
    costs = np.array([0.0, 0.1, 0.4])
    by_number = policy_value(arm, scores, costs=costs)
    by_chance = policy_value(np.eye(3)[arm], scores, costs=costs)
    expected = (scores - costs)[np.arange(50), arm].mean()
    assert by_number.estimate == pytest.approx(expected)
    assert by_chance.estimate == pytest.approx(expected)
    half = policy_value(np.full((50, 3), 1 / 3), scores)
    assert half.estimate == pytest.approx(scores.mean())


@pytest.mark.parametrize("arms", [1, 3])
def test_the_gain_of_every_budget_is_that_of_a_linear_program(arms):
    """The best fractional use of a budget by predicted effects, valued at those effects."""
    rng = np.random.default_rng(3)
    n = 12
    tau, costs = rng.normal(0.3, 1, (n, arms)), rng.uniform(0.5, 2, (n, arms))
    curve = gain_curve(tau, tau, costs, spend=np.linspace(0, 1.5, 9), n_bootstrap=0)
    for spend, gain in zip(curve.spend, curve.gain, strict=True):
        best = linprog(
            -tau.ravel() / n,
            A_ub=np.vstack([np.kron(np.eye(n), np.ones(arms)), costs.ravel()[None] / n]),
            b_ub=np.r_[np.ones(n), spend],
            bounds=(0, 1),
        )
        assert gain == pytest.approx(-best.fun, abs=1e-9)


def test_gain_is_the_value_of_the_rule_that_the_budget_buys():
    tau, scores, group = trial(4)
    costs = np.random.default_rng(0).uniform(0.5, 2, len(tau))
    order = np.argsort(-tau / costs)
    order = order[tau[order] > 0]
    curve = gain_curve(tau, scores, costs, group)
    for k in (10, 60, len(order)):
        rule = np.zeros(len(tau))
        rule[order[:k]] = 1
        spend = costs[order[:k]].sum() / len(tau)
        exact = gain_curve(tau, scores, costs, group, spend=[spend], n_bootstrap=0)
        assert exact.gain[0] == pytest.approx(policy_value(rule, scores).estimate)
        assert exact.share[0] == pytest.approx(rule.mean())
    assert curve.gain[0] == 0
    assert curve.spend[-1] == pytest.approx(curve.full_spend) == pytest.approx(costs[order].sum() / len(tau))
    assert curve.random[-1] == pytest.approx(scores.mean() * curve.full_spend / costs.mean())


def test_rows_labels_weights_and_ties():
    tau, scores, group = trial(5)
    tau = np.round(tau, 1)  # many ties
    costs = np.random.default_rng(0).choice([0.5, 1.0], len(tau))
    first = gain_curve(tau, scores, costs, group, n_bootstrap=0)
    order = np.random.default_rng(1).permutation(len(tau))
    second = gain_curve(tau[order], scores[order], costs[order], group[order], n_bootstrap=0)
    np.testing.assert_allclose(second.gain, first.gain, atol=1e-12)
    twice = np.r_[np.arange(len(tau)), np.arange(5)]
    w = np.ones(len(tau))
    w[:5] = 2
    repeated = gain_curve(tau[twice], scores[twice], costs[twice], spend=[0.1, 0.3], n_bootstrap=0)
    weighted = gain_curve(tau, scores, costs, weights=w, spend=[0.1, 0.3], n_bootstrap=0)
    np.testing.assert_allclose(repeated.gain, weighted.gain, atol=1e-12)


def test_folds_spend_alike_and_compare_only_their_own():
    tau, scores, group = trial(6)
    fold = group % 3
    shifted = tau + 10 * (fold == 0)  # the model of one fold predicts more for everybody
    curve = gain_curve(shifted, scores, 1.0, group, folds=fold, spend=[0.2], n_bootstrap=0)
    parts = [gain_curve(shifted[fold == k], scores[fold == k], 1.0, spend=[0.2], n_bootstrap=0) for k in range(3)]
    share = np.bincount(fold) / len(fold)
    assert curve.gain[0] == pytest.approx(np.dot(share, [part.gain[0] for part in parts]))


@pytest.mark.statistical
@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_values_and_gains_of_rules_chosen_on_other_folds_are_covered(slope):
    """A linear rule learned on the other folds of a clustered trial; without heterogeneity folds choose by noise."""
    hits = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        village = np.repeat(np.arange(60), 5)
        x = rng.standard_normal((60, 3))[village]
        tau = 0.3 + slope * x[:, 0]
        scores = tau + rng.standard_normal(60)[village] + 2 * rng.standard_normal(300)
        fold = (np.arange(60) % 5)[village]
        predicted = np.empty(300)
        for k in range(5):
            out = fold != k
            design = np.column_stack([np.ones(300), x])
            predicted[~out] = design[~out] @ np.linalg.lstsq(design[out], scores[out], rcond=None)[0]
        rule = predicted > 0.3
        found = policy_value(rule, scores, groups=village, folds=fold)
        over = policy_difference(rule, rule.mean(), scores, groups=village, folds=fold)
        curve = gain_curve(
            predicted, scores, 1.0, village, folds=fold, spend=np.linspace(0.1, 0.5, 5), n_bootstrap=100
        )
        true = gain_curve(predicted, tau, 1.0, village, folds=fold, spend=curve.spend, n_bootstrap=0).gain
        table, gain = curve.to_dataframe(), (rule * tau).mean()
        hits.append(
            [
                found.lower <= gain <= found.upper,
                over.lower <= gain - rule.mean() * tau.mean() <= over.upper,
                (table["lower"][2] <= true[2]) & (true[2] <= table["upper"][2]),
                ((table["band_lower"] <= true) & (true <= table["band_upper"])).all(),
            ]
        )
    assert (np.mean(hits, axis=0) >= 0.905).all()  # 2.5 standard errors of a share of .95


def test_what_cannot_be_a_policy_or_a_cost_is_refused():
    tau, scores, group = trial(7)
    with pytest.raises(DataError, match="probability"):
        policy_value(tau * 5, scores)
    with pytest.raises(DataError, match="missing"):
        policy_value(np.where(tau > 0, np.nan, 1), scores)
    with pytest.raises(DataError, match="numbers of arms"):
        policy_value(np.full(len(tau), 7), np.column_stack([scores] * 3))
    with pytest.raises(DataError, match="not positive"):
        gain_curve(tau, scores, 0.0, group)
    with pytest.raises(ParameterError, match="increasing"):
        gain_curve(tau, scores, 1.0, group, spend=[0.5, 0.1])
    with pytest.raises(DataError, match="costs of shape"):
        policy_value(tau > 0, scores, costs=[1.0, 2.0, 3.0])


def test_a_curve_draws_itself_and_gives_its_table():
    tau, scores, group = trial(8)
    curve = gain_curve(tau, scores, 2.0, group)
    ax = curve.plot(budget=0.5, currency="USD")
    assert ax.get_xlabel() == "budget a head (USD)"
    assert list(curve.to_dataframe().columns[:3]) == ["spend", "gain", "se"]
    assert r"\begin{tabular}" in curve.to_latex()
    assert curve.critical > 1.96
    middle = curve.at(float(curve.spend[25]))
    assert middle["gain"] == pytest.approx(curve.gain[25])
