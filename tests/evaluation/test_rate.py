"""TOC and RATE against analytic values, a brute-force definition and replications."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

from causalsat.evaluation import rate, toc
from causalsat.evaluation.permutation import rank_weights
from causalsat.evaluation.rate import half_sample
from causalsat.exceptions import DataError, ParameterError


def brute_force(priority, scores, weights, method):
    """RATE by its definition: sum over units of w alpha (mean score of all ranked no lower, less the mean of all)."""
    s, g, w = map(np.asarray, (priority, scores, weights))
    order = np.lexsort((w, -s))
    s, g, w = s[order], g[order].astype(float), w[order] / w.sum()
    for value in np.unique(s):  # tied units share their mean score
        tied = s == value
        g[tied] = np.average(g[tied], weights=w[tied])
    total = 0.0
    for i in range(len(s)):
        gain = np.average(g[: i + 1], weights=w[: i + 1]) - np.average(g, weights=w)
        total += w[i] * gain * (1.0 if method == "autoc" else w[: i + 1].sum())
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(1, 30), st.booleans(), st.sampled_from(["autoc", "qini"]), st.integers(0, 99))
def test_equals_the_definition_with_ties_and_weights(n, n_levels, weighted, method, seed):
    rng = np.random.default_rng(seed)
    priority, scores = rng.integers(0, n_levels, n), rng.standard_normal(n)
    weights = rng.integers(1, 4, n).astype(float) if weighted else np.ones(n)
    result = rate(priority, scores, weights=weights, method=method, n_bootstrap=0)
    expected = brute_force(priority, scores, weights, method)
    assert result.estimate == pytest.approx(expected, abs=1e-10)
    linear = rank_weights(priority.astype(float), weights, method)
    assert (weights * linear * scores).sum() / weights.sum() == pytest.approx(expected, abs=1e-10)


def test_uniform_effects_perfectly_ranked():
    """Effects uniform on (0, 1): TOC(q) = (1 - q) / 2, AUTOC = 1/4, QINI = 1/12."""
    tau = (np.arange(20_000) + 0.5) / 20_000
    curve = toc(tau, tau, q=[0.1, 0.25, 0.5, 0.9, 1.0], n_bootstrap=2)
    np.testing.assert_allclose(curve.estimate, (1 - curve.q) / 2, atol=1e-9)
    assert curve.ate == pytest.approx(0.5)
    assert rate(tau, tau, n_bootstrap=2).estimate == pytest.approx(1 / 4, abs=1e-4)
    assert rate(tau, tau, method="qini", n_bootstrap=2).estimate == pytest.approx(1 / 12, abs=1e-4)
    assert rate(-tau, tau, n_bootstrap=2).estimate == pytest.approx(-1 / 4, abs=1e-4)


def test_normal_effects_perfectly_ranked():
    """TOC(q) = phi(z) / q with z the upper q quantile."""
    tau = norm.ppf((np.arange(50_000) + 0.5) / 50_000)
    curve = toc(tau, tau, n_bootstrap=2)
    np.testing.assert_allclose(curve.estimate, norm.pdf(norm.isf(curve.q)) / curve.q, atol=2e-3)


def test_a_fraction_of_a_unit_is_used_at_a_grid_point():
    curve = toc([3, 2, 1], [9.0, 3.0, 0.0], q=[0.5, 1.0], n_bootstrap=0)
    assert curve.estimate[0] == pytest.approx((9 + 0.5 * 3) / 1.5 - 4)
    assert curve.estimate[1] == pytest.approx(0, abs=1e-12)


def test_equal_priorities_have_no_rate():
    result = rate(np.ones(50), np.random.default_rng(0).standard_normal(50))
    assert (result.estimate, result.se, result.ratio, result.p_value) == (0, 0, 0, 1)


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    priority, scores, times = rng.standard_normal(40), rng.standard_normal(40), rng.integers(1, 4, 40)
    q = np.array([0.2, 0.5, 1.0])
    weighted = toc(priority, scores, weights=times, q=q, n_bootstrap=0)
    repeated = toc(np.repeat(priority, times), np.repeat(scores, times), q=q, n_bootstrap=0)
    np.testing.assert_allclose(weighted.estimate, repeated.estimate, atol=1e-12)


def clustered(seed, slope=0.3, n_groups=120):
    """Priorities of villages, scores with a village effect, 1 to 9 units a village."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 10, n_groups))
    priority = rng.standard_normal(n_groups)[groups]
    noise = rng.standard_normal(n_groups)[groups] + rng.standard_normal(len(groups))
    return priority, slope * priority + noise, groups


def test_row_order_does_not_matter():
    priority, scores, groups = clustered(0)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(groups))
    order = np.random.default_rng(2).permutation(len(groups))
    first = rate(priority, scores, groups=groups, weights=weights)
    second = rate(priority[order], scores[order], groups=groups[order], weights=weights[order])
    assert second.estimate == pytest.approx(first.estimate, rel=1e-10)
    assert second.se == pytest.approx(first.se, rel=1e-8)


@pytest.mark.statistical
@pytest.mark.parametrize("method", ["autoc", "qini"])
def test_standard_errors_are_those_of_replications(method):
    runs = [rate(*clustered(s)[:2], groups=clustered(s)[2], method=method, n_bootstrap=100) for s in range(150)]
    sd = np.std([r.estimate for r in runs], ddof=1)
    assert np.mean([r.se for r in runs]) == pytest.approx(sd, rel=0.15)  # sd known to 6 %
    toc_sd = np.std([r.toc.estimate for r in runs], axis=0, ddof=1)
    np.testing.assert_allclose(np.mean([r.toc.se for r in runs], axis=0)[:-1], toc_sd[:-1], rtol=0.25)
    naive = np.mean([rate(*clustered(s)[:2], method=method, n_bootstrap=50).se for s in range(20)])
    assert naive < 0.75 * sd  # without the clusters


@pytest.mark.statistical
def test_ratio_is_standard_normal_for_priorities_that_are_noise():
    ratios = []
    for seed in range(300):
        priority, scores, groups = clustered(seed, slope=0.0, n_groups=200)
        ratios.append(rate(priority, scores, groups=groups, n_bootstrap=80).ratio)
    assert abs(np.mean(ratios)) < 0.18
    assert np.std(ratios) == pytest.approx(1, abs=0.15)
    assert 0.02 <= np.mean(np.abs(ratios) > 1.96) <= 0.09


def test_difference_of_two_priorities_is_paired():
    priority, scores, groups = clustered(3, slope=0.5)
    noise = priority + 0.05 * np.random.default_rng(0).standard_normal(len(priority))
    first, second = (rate(p, scores, groups=groups) for p in (priority, noise))
    difference = first - second
    assert difference.estimate == pytest.approx(first.estimate - second.estimate)
    assert difference.se < 0.5 * np.hypot(first.se, second.se)
    same = first - rate(priority, scores, groups=groups)
    assert (same.estimate, same.se) == (0, 0)
    with pytest.raises(ParameterError, match="half-samples"):
        first - rate(priority, scores, groups=groups, random_state=1)


def test_ranks_within_folds_ignore_the_level_of_a_fold():
    rng = np.random.default_rng(0)
    tau, fold = rng.standard_normal(400), np.arange(400) % 4
    scores = tau + rng.standard_normal(400)
    shifted = tau + np.array([0.0, 10.0, -5.0, 99.0])[fold]
    assert rate(shifted, scores, folds=fold).estimate == pytest.approx(rate(tau, scores, folds=fold).estimate)
    assert abs(rate(shifted, scores).estimate - rate(tau, scores).estimate) > 0.1


@pytest.mark.parametrize("n", [2, 3, 9, 100])
def testhalf_samples_are_halves_and_uniform(n):
    rng = np.random.default_rng(0)
    halves = np.array([half_sample(n, rng) for _ in range(4000)])
    assert (halves.sum(axis=1) == n // 2).all()
    np.testing.assert_allclose(halves.mean(axis=0), (n // 2) / n, atol=0.04)
    together = halves[:, 0] & halves[:, -1]
    assert together.mean() == pytest.approx((n // 2) / n * (n // 2 - 1) / (n - 1), abs=0.03)


def test_few_uneven_clusters_reject_no_more_often_than_nominal():
    """20 clusters of lognormal sizes, priorities from other data: before, .09 of trials at 5 %.

    200 trials: three Monte Carlo standard errors are .046. The degrees of freedom are far fewer than 19, and not
    those of the largest clusters alone, under which almost nothing was rejected.
    """
    rng = np.random.default_rng(3)
    rejected, df = [], []
    for k in range(200):
        code = np.repeat(np.arange(20), np.maximum(1, np.round(10 * rng.lognormal(-0.5, 1, 20))).astype(int))
        scores = rng.standard_normal(20)[code] + 2 * rng.standard_normal(len(code))
        found = rate(rng.standard_normal(len(code)), scores, groups=code, n_bootstrap=60, random_state=k)
        rejected.append(found.p_value <= 0.05)
        df.append(found.df)
    assert 0 < np.mean(rejected) <= 0.05 + 0.046
    assert 4 < np.median(df) < 16


def test_tables():
    result = rate(*clustered(0)[:2], n_bootstrap=20)
    row = result.to_dataframe().iloc[0]
    assert row["estimate"] == result.estimate
    assert row["lower"] == pytest.approx(result.estimate - student.ppf(0.975, result.df) * result.se)
    assert 30 < result.df < result.toc.n_groups
    curve = result.toc.to_dataframe()
    assert list(curve.columns) == ["q", "toc", "se", "lower", "upper"]
    assert curve["q"].iloc[-1] == 1


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (([1, 2], [1, 2, 3]), DataError, "3 scores for 2 units"),
        (([1, np.nan], [1, 2]), DataError, "priority has 1 of 2"),
        ((["a", "b"], [1, 2]), DataError, "not numbers"),
        (([], []), DataError, "one-dimensional"),
        (([1, 2], [1, 2], {"groups": [0, 0]}), DataError, "1 groups"),
        (([1, 2], [1, 2], {"groups": ["a", None]}), DataError, "missing labels"),
        (([1, 2], [1, 2], {"weights": [1, 0]}), DataError, "weights of zero"),
        (([1, 2], [1, 2], {"weights": [1, -1]}), DataError, "non-negative"),
        (([1, 2], [1, 2], {"method": "auc"}), ParameterError, "autoc"),
        (([1, 2], [1, 2], {"q": [0.5, 0.2]}), ParameterError, "increasing"),
        (([1, 2], [1, 2], {"q": [0, 1]}), ParameterError, "shares"),
        (([1, 2], [1, 2], {"n_bootstrap": -1}), ParameterError, "n_bootstrap"),
    ],
)
def test_bad_input(arguments, error, says):
    options = arguments[2] if len(arguments) > 2 else {}
    with pytest.raises(error, match=says):
        rate(*arguments[:2], **options)


def test_only_rates_of_the_same_scores_groups_and_grid_are_subtracted():
    rng = np.random.default_rng(0)
    tau, groups = rng.standard_normal(60), np.repeat(np.arange(20), 3)
    scores = tau + rng.standard_normal(60)
    first = rate(tau, scores, groups=groups)
    assert (first - rate(-tau, scores, groups=groups, folds=groups % 2)).se > 0
    others = [
        rate(-tau, scores + 1, groups=groups),
        rate(-tau, scores, groups=groups[::-1] // 2 * 2 + rng.permutation(60) % 2),
        rate(-tau, scores, groups=groups, weights=rng.uniform(1, 2, 60)),
        rate(-tau, scores, groups=groups, q=[0.2, 1.0]),
    ]
    for other in others:
        with pytest.raises(ParameterError, match="other units, scores"):
            first - other
