"""Average effects of designs: values by hand, the parts of a design, variances against what theory says."""

from __future__ import annotations

import numpy as np
import pytest

from causalsat.exceptions import DataError, DataWarning, TreatmentError
from causalsat.inference.average_effects import (
    AVERAGE_EFFECT,
    VARIANCE_WEIGHTED,
    blocked_difference,
    fixed_effects,
    interacted_adjustment,
    lay_out,
    score_mean,
    score_projection,
)
from causalsat.inference.robust import least_squares

ESTIMATORS = ("difference", "interacted", "fixed effects", "scores")


def estimate(name, y, t, x, **design):
    if name == "difference":
        return blocked_difference(y, t, **design)
    if name == "interacted":
        return interacted_adjustment(y, t, x[:, None], **design)
    if name == "fixed effects":
        return fixed_effects(y, t, x[:, None], **design)
    return score_mean(y * (2 * t - 1) * 2, treatment=t, **design)


def blocks(seed=0, sizes=True, weighted=False):
    """Two blocks of 12 villages with 3 and 8 treated, a pair, and effects of 0.5, 1.5 and 1."""
    rng = np.random.default_rng(seed)
    stratum = np.repeat([0, 1, 2, 3], [12, 12, 2, 2])
    arm = np.concatenate([rng.permutation(np.arange(12) < 3), rng.permutation(np.arange(12) < 8), [0, 1], [1, 0]])
    size = rng.integers(3, 12, 28) if sizes else np.full(28, 6)
    village = np.repeat(np.arange(28), size)
    x = rng.standard_normal(len(village))
    effect = np.array([0.5, 1.5, 1.0, 1.0])[stratum]
    y = 2.0 * stratum[village] + x + (arm * effect + 0.5 * rng.standard_normal(28))[village]
    y = y + rng.standard_normal(len(village))
    w = rng.lognormal(0, 0.5, len(village)) if weighted else None
    return y, arm[village].astype(float), x, stratum[village], village, w


# ---------------------------------------------------------------------- values
def test_two_blocks_with_unequal_shares_by_hand():
    """Truth 0.5 and 1.5 in equal blocks: average 1.0, whatever the gap of 2 and treated shares of .25 and .75."""
    t = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=float)
    strata = np.repeat(["a", "b"], 4)
    y = np.where(strata == "b", 2.0, 0.0) + t * np.where(strata == "b", 1.5, 0.5)
    assert blocked_difference(y, t, strata=strata).estimate == pytest.approx(1.0)
    assert blocked_difference(y, t).estimate == pytest.approx(2.75 - 0.5)  # what lost strata give
    # three times as many units in b, as copies or as weights
    more = np.where(strata == "b", 3, 1)
    copies = [np.repeat(a, more) for a in (y, t, strata)]
    assert blocked_difference(*copies[:2], strata=copies[2]).estimate == pytest.approx(1.25)
    assert blocked_difference(y, t, strata=strata, weights=more).estimate == pytest.approx(1.25)
    found = fixed_effects(y, t, strata=np.array(strata), weights=np.where(strata == "b", 2.0, 1.0))
    # h = N e (1 - e): 4 (1/4)(3/4) and 8 (3/4)(1/4)
    assert found.estimate == pytest.approx((0.5 + 2 * 1.5) / 3)
    assert found.estimand == VARIANCE_WEIGHTED


def test_pairs_are_a_test_of_one_sample():
    """Equal pairs: the mean of the differences, its standard error, one less than the pairs degrees of freedom."""
    rng = np.random.default_rng(0)
    y, t, pair = rng.standard_normal(30), np.tile([0.0, 1.0], 15), np.repeat(np.arange(15), 2)
    difference = y[1::2] - y[::2]
    for found in (
        blocked_difference(y, t, strata=pair),
        fixed_effects(y, t, strata=pair),
        score_mean(2 * y * (2 * t - 1), treatment=t, strata=pair),
    ):
        assert found.estimate == pytest.approx(difference.mean())
        assert found.se == pytest.approx(difference.std(ddof=1) / np.sqrt(15))
        assert found.df == pytest.approx(14)
        assert found.effective_clusters == pytest.approx(15)
        assert found.clustered_on == "strata"


def test_pairs_of_villages_of_unequal_size_have_the_variance_of_imai_king_and_nall():
    """The estimate is sum N_s d_s / N, and V stays near S / (S - 1) sum (N_s / N)^2 (d_s - mean)^2."""
    y, _, _, _, village, _ = blocks()
    pair = village // 2
    t = (village % 2).astype(float)
    found = blocked_difference(y, t, strata=pair, clusters=village)
    d = np.array([y[(pair == s) & (t == 1)].mean() - y[(pair == s) & (t == 0)].mean() for s in range(14)])
    share = np.bincount(pair) / len(y)
    assert found.estimate == pytest.approx(share @ d)
    assert found.se**2 == pytest.approx(14 / 13 * (share**2 @ (d - share @ d) ** 2), rel=0.1)
    # what clustering on the village gives for the same regression is about half as large (the CR1 of Stata)
    stata = least_squares(y, t[:, None], clusters=village, absorb=pair, kind="CR1")
    assert 1.5 < fixed_effects(y, t, strata=pair, clusters=village).se ** 2 / stata.cov[0, 0] < 2.5


def test_strata_of_clusters_have_neymans_variance():
    """Equal villages: sum_s (N_s / N)^2 (s1^2 / G1 + s0^2 / G0) over means of villages."""
    y, t, _, stratum, village, _ = blocks(sizes=False)
    keep = stratum < 2
    y, t, stratum, village = y[keep], t[keep], stratum[keep], village[keep]
    mean, arm, block = (np.bincount(village, a) / np.bincount(village) for a in (y, t, stratum))
    cells = [(arm == a) & (block == s) for a in (0, 1) for s in (0, 1)]
    terms = [mean[cell].var(ddof=1) / cell.sum() / 4 for cell in cells]
    found = blocked_difference(y, t, strata=stratum, clusters=village)
    assert found.se**2 == pytest.approx(sum(terms))
    assert (found.clusters, found.strata, found.clustered_on) == (24, 2, "clusters")
    # scores of the difference in means with the design's probabilities are the same estimator
    e = np.where(stratum == 1, 8 / 12, 3 / 12)
    score = score_mean(t * y / e - (1 - t) * y / (1 - e), treatment=t, strata=stratum, clusters=village)
    assert score.estimate == pytest.approx(found.estimate)
    assert score.se == pytest.approx(found.se)


def test_strata_of_both_kinds_add_up():
    """Two blocks and two pairs: estimates and variances of the two parts with shares N_part / N; pooled df."""
    y, t, _, stratum, village, _ = blocks()
    both = blocked_difference(y, t, strata=stratum, clusters=village)
    parts = [
        blocked_difference(y[k], t[k], strata=stratum[k], clusters=village[k]) for k in (stratum < 2, stratum >= 2)
    ]
    share = np.array([(stratum < 2).mean(), (stratum >= 2).mean()])
    variance = share**2 * [part.se**2 for part in parts]
    assert both.estimate == pytest.approx(share @ [part.estimate for part in parts])
    assert both.se**2 == pytest.approx(variance.sum())
    assert both.df == pytest.approx(variance.sum() ** 2 / (variance**2 / [part.df for part in parts]).sum())
    assert both.clustered_on == "clusters and strata"


def test_interacted_adjustment_is_lins_regression():
    """One stratum: the coefficient of t in y ~ t, x - mean x, t (x - mean x), with weights."""
    y, t, x, _, village, w = blocks(weighted=True)
    centred = x - np.average(x, weights=w)
    design = np.column_stack([t, np.ones(len(y)), centred, t * centred])
    fit = least_squares(y, design, weights=w, clusters=village, icc=None)
    found = interacted_adjustment(y, t, x[:, None], clusters=village, weights=w)
    assert found.estimate == pytest.approx(fit.coef[0])
    assert found.se == pytest.approx(fit.se[0])
    assert found.df == pytest.approx(fit.df[0])


def test_interacted_adjustment_keeps_the_average_effect_with_strata():
    """Effects of 0.5 + x and 1.5 + x, treated shares of .25 and .67: unbiased, and closer than without x."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(40):
        n = 600
        stratum = np.repeat([0, 1], n // 2)
        t = np.concatenate([rng.permutation(np.arange(300) < k) for k in (75, 200)]).astype(float)
        x = rng.standard_normal(n) + stratum
        effect = 0.5 + stratum + x
        y = 3 * x + 2 * stratum + t * effect + 0.1 * rng.standard_normal(n)
        found = interacted_adjustment(y, t, x[:, None], strata=stratum)
        plain = blocked_difference(y, t, strata=stratum)
        errors.append((found.estimate - effect.mean(), found.se, plain.estimate - effect.mean()))
    error, se, plain = np.transpose(errors)
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(40)
    assert error.std() < 0.4 * plain.std()
    assert np.sqrt((se**2).mean()) > 0.9 * error.std()


def test_pairs_adjust_by_regressing_differences_on_differences():
    y, t, x, _, village, _ = blocks(sizes=False)
    pair, t = village // 2, (village % 2).astype(float)
    found = interacted_adjustment(y, t, x[:, None], strata=pair, clusters=village)
    total = {name: np.bincount(village, a) / 6 for name, a in (("y", y), ("x", x))}
    mean = {name: a[1::2] - a[::2] for name, a in total.items()}
    fit = least_squares(mean["y"], np.column_stack([np.ones(14), mean["x"]]), contrast=[1.0, 0.0])
    assert found.estimate == pytest.approx(fit.estimate[0])
    assert found.se == pytest.approx(fit.se[0])
    # six covariates for 14 pairs are too many: unadjusted
    many = np.random.default_rng(0).standard_normal((len(y), 6))
    assert interacted_adjustment(y, t, many, strata=pair, clusters=village).estimate == pytest.approx(
        blocked_difference(y, t, strata=pair, clusters=village).estimate
    )


# ---------------------------------------------------------------------- scores
def test_scores_without_an_assignment_are_a_clustered_mean():
    y, _, _, _, village, w = blocks(weighted=True)
    found = score_mean(y, clusters=village, weights=w)
    fit = least_squares(y, np.ones((len(y), 1)), clusters=village, weights=w, icc=None)
    assert found.estimate == pytest.approx(np.average(y, weights=w))
    assert (found.se, found.df) == pytest.approx((fit.se[0], fit.df[0]))


def test_what_the_assignment_fixes_is_no_variance_of_scores():
    """Gaps between strata and arms of any size leave the standard error of the mean score as it is."""
    y, t, _, stratum, village, _ = blocks(sizes=False)
    design = {"treatment": t, "strata": stratum, "clusters": village}
    base = score_mean(y, **design)
    coarse = stratum < 2
    shifted = score_mean(y + coarse * (50 * stratum + 20 * t), **design)
    assert shifted.se == pytest.approx(base.se)
    assert shifted.df == pytest.approx(base.df)
    assert score_mean(y + 20 * t, clusters=village).se > 2 * base.se


def test_degrees_of_freedom_of_scores_are_those_of_the_difference_in_means():
    """Single units, arms of 4 and 12 in one block and 8 and 8 in another: cells of g units add 1 / g to the variance.

    df = (sum N_s^2 / g)^2 / sum N_s^4 / g^2 / (g - 1), those of Bell and McCaffrey for the blocked difference.
    """
    rng = np.random.default_rng(0)
    strata, t = np.repeat([0, 1], 16), np.concatenate([np.arange(16) < 4, np.arange(16) < 8]).astype(float)
    y, e = rng.standard_normal(32), np.where(strata == 0, 0.25, 0.5)
    g = np.array([4, 12, 8, 8])
    difference = blocked_difference(y, t, strata=strata)
    found = score_mean(t * y / e - (1 - t) * y / (1 - e), treatment=t, strata=strata)
    assert found.df == pytest.approx((1 / g).sum() ** 2 / (1 / g**2 / (g - 1)).sum())
    assert found.df == pytest.approx(difference.df)
    assert (found.estimate, found.se) == pytest.approx((difference.estimate, difference.se))


@pytest.mark.parametrize("assigned", [False, True])
def test_groups_of_a_projection_are_means_of_their_own(assigned):
    """Group averages in one projection are those of the mean over each group's units, by estimate."""
    y, t, _, stratum, village, w = blocks(weighted=True)
    group = (village % 3 == 0).astype(float)
    options = {"clusters": village, "weights": w, **({"treatment": t, "strata": stratum} if assigned else {})}
    fit = score_projection(y, np.column_stack([group, 1 - group]), **options)
    for value, own in zip(fit.estimate, (group, 1 - group), strict=True):
        assert value == pytest.approx(np.average(y, weights=w * own))
    difference = score_projection(y, np.column_stack([group, 1 - group]), contrast=[1.0, -1.0], **options)
    slope = score_projection(y, np.column_stack([np.ones(len(y)), group]), contrast=[0.0, 1.0], **options)
    assert (difference.estimate[0], difference.se[0]) == pytest.approx((slope.estimate[0], slope.se[0]))
    assert difference.df[0] == pytest.approx(slope.df[0])


def test_a_centred_projection_agrees_with_dense_matrices():
    """Variance and degrees of freedom with n x n matrices: N takes cells' means out, factors make it unbiased."""
    y, t, x, stratum, village, w = blocks(weighted=True)
    keep = stratum < 2
    y, t, x, stratum, village, w = (a[keep] for a in (y, t, x, stratum, village, w))
    w = w / w.mean()
    X, c = np.column_stack([np.ones(len(y)), x]), np.array([0.0, 1.0])
    fit = score_projection(y, X, treatment=t, strata=stratum, clusters=village, weights=w, contrast=c)
    bread = np.linalg.inv(X.T @ (w[:, None] * X))
    maker = np.eye(len(y)) - X @ bread @ (X * w[:, None]).T
    influence = w * (X @ bread @ c)
    rows = (village == np.unique(village)[:, None]) * influence
    cell = (2 * stratum + t)[np.unique(village, return_index=True)[1]]
    out = np.eye(len(rows)) - (cell[:, None] == cell) / (cell[:, None] == cell).sum(axis=1)
    ratio = fit.icc / (1 - fit.icc)
    noise = np.where(t == 1, np.where(stratum == 1, 8, 3) / 12, np.where(stratum == 1, 4, 9) / 12) ** -2.0
    phi = np.sqrt(np.outer(noise, noise)) * (np.eye(len(y)) + ratio * (village[:, None] == village))
    target = np.diag(rows @ phi @ rows.T)
    factor = np.sqrt(target / np.diag(out @ rows @ maker @ phi @ maker.T @ rows.T @ out))
    score = factor * (out @ rows @ maker @ y)
    form = factor[:, None] * (out @ rows @ maker @ np.diag(noise / w) @ maker.T @ rows.T @ out) * factor
    assert ratio > 0
    assert fit.cov[0, 0] == pytest.approx(score @ score)
    assert fit.df[0] == pytest.approx(np.trace(form) ** 2 / (form**2).sum())


# ---------------------------------------------------------------------- invariances, for every estimator
@pytest.mark.parametrize("name", ESTIMATORS)
def test_rows_names_scales_and_labels_do_not_matter(name):
    y, t, x, stratum, village, w = blocks(weighted=True)
    base = estimate(name, y, t, x, strata=stratum, clusters=village, weights=w)
    rows = np.random.default_rng(0).permutation(len(y))
    strata = np.array(["north", "south", "east", "west"])[stratum][rows]
    villages = np.array([f"v{31 * v % 97}" for v in village])[rows]
    scale, shift = (1e6, 0.0) if name == "scores" else (1e6, 1e6)  # a shift of scores is an effect
    design = {"strata": strata, "clusters": villages, "weights": 7 * w[rows]}
    other = estimate(name, scale * y[rows] + shift, t[rows], 1e3 * x[rows] + 1e8, **design)
    swapped = estimate(name, y[rows], 1 - t[rows], x[rows], **design)
    for found, factor in ((other, scale), (swapped, -1.0)):
        assert found.estimate == pytest.approx(factor * base.estimate, rel=1e-6)
        assert found.se == pytest.approx(abs(factor) * base.se, rel=1e-6)
        assert found.df == pytest.approx(base.df, rel=1e-6)
        assert found.effective_clusters == pytest.approx(base.effective_clusters, rel=1e-6)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_units_of_weight_zero_are_not_there(name):
    y, t, x, stratum, village, w = blocks(weighted=True)
    base = estimate(name, y, t, x, strata=stratum, clusters=village, weights=w)
    zeros = np.zeros(300)
    more = estimate(
        name,
        np.concatenate([y, zeros + np.nan]),
        np.concatenate([t, np.arange(300) % 3]),  # even a third arm
        np.concatenate([x, zeros + np.nan]),
        strata=np.concatenate([stratum, np.arange(300) % 9]),
        clusters=np.concatenate([village, 100 + np.arange(300)]),
        weights=np.concatenate([w, zeros]),
    )
    for field in ("estimate", "se", "df", "n", "clusters", "strata", "effective_clusters"):
        assert getattr(more, field) == pytest.approx(getattr(base, field))


# ---------------------------------------------------------------------- layouts
def test_strata_with_one_arm_are_left_out_and_said():
    y, t, _, stratum, village, _ = blocks()
    t = np.where(stratum == 1, 1.0, t)
    with pytest.warns(DataWarning, match="1 stratum with one arm"):
        found = blocked_difference(y, t, strata=stratum, clusters=village)
    keep = stratum != 1
    base = blocked_difference(y[keep], t[keep], strata=stratum[keep], clusters=village[keep])
    assert (found.estimate, found.se) == pytest.approx((base.estimate, base.se))
    assert (found.left_out, found.n, found.strata) == ((~keep).sum(), keep.sum(), 3)
    with pytest.raises(TreatmentError, match="no stratum holds"):
        blocked_difference(y, (stratum == 0).astype(float), strata=stratum)


def test_a_single_fine_stratum_is_told_by_the_others():
    """One treated unit in one of three blocks has nothing to be compared with: the others' noise serves."""
    rng = np.random.default_rng(0)
    stratum = np.repeat([0, 1, 2], 8)
    t = np.isin(np.arange(24), [0, 1, 2, 3, 8, 9, 10, 11, 16]).astype(float)
    variance, error = [], []
    for _ in range(400):
        found = blocked_difference(rng.standard_normal(24) + t, t, strata=stratum)
        variance.append(found.se**2)
        error.append(found.estimate - 1)
    truth = ((1 / 4 + 1 / 4) * 2 + 1 + 1 / 7) / 9
    assert found.clustered_on == "units"
    assert found.identified_share == pytest.approx(1 - (1 / 9) / truth)
    assert np.mean(variance) == pytest.approx(truth, rel=0.12)
    assert np.var(error) == pytest.approx(truth, rel=0.25)


def test_two_villages_have_no_standard_error():
    found = blocked_difference([1.0, 2, 5, 6], [0, 0, 1, 1], clusters=[0, 0, 1, 1])
    assert found.estimate == pytest.approx(4)
    assert np.isnan([found.se, found.df, found.p_value, *found.interval()]).all()


def test_clusters_across_strata_are_pooled_with_them():
    """A village in two pairs ties them: three clusters of the variance, not four."""
    t, pair = np.tile([0, 1], 4), np.repeat(np.arange(4), 2)
    layout = lay_out(t, strata=pair, clusters=[0, 1, 0, 2, 3, 4, 5, 6])
    assert layout.pooled.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    y = np.random.default_rng(0).standard_normal(8)
    d = y[1::2] - y[::2]
    fit = least_squares(d, np.ones((4, 1)), clusters=[0, 0, 1, 2])
    assert blocked_difference(y, t, strata=pair, clusters=[0, 1, 0, 2, 3, 4, 5, 6]).se == pytest.approx(fit.se[0])


def test_covariates_that_do_not_vary_within_cells_are_dropped():
    y, t, x, stratum, village, _ = blocks()
    table = np.column_stack([x, 2 * x + 5, stratum, np.full(len(y), 3.0)])
    found = interacted_adjustment(y, t, table, strata=stratum, clusters=village)
    base = interacted_adjustment(y, t, x[:, None], strata=stratum, clusters=village)
    assert (found.estimate, found.se, found.df) == pytest.approx((base.estimate, base.se, base.df))


def test_covariates_that_saturate_the_clusters_have_slopes_in_common_or_none():
    """12 villages: 4 covariates of villages leave each arm a residual, 5 only in common, 11 none."""
    rng = np.random.default_rng(0)
    village = np.repeat(np.arange(12), 10)
    t = (village % 2).astype(float)
    table, y = rng.standard_normal((12, 11))[village], rng.standard_normal(12)[village] + rng.standard_normal(120)
    found = {k: interacted_adjustment(y, t, table[:, :k], clusters=village) for k in (0, 4, 5, 11)}
    assert [found[k].slopes for k in found] == ["none", "by arm", "common", "none"]
    assert found[11].se == pytest.approx(found[0].se)
    assert found[11].estimate == pytest.approx(found[0].estimate)
    assert found[5].estimate == pytest.approx(fixed_effects(y, t, table[:, :5], clusters=village).estimate)
    assert np.isfinite(found[5].se)
    pairs = interacted_adjustment(y, t, table[:, :1], clusters=village, strata=village // 2)
    assert pairs.slopes == "common"


def test_a_covariate_that_is_the_treatment_is_refused():
    y, t, x, stratum, village, _ = blocks()
    with pytest.raises(DataError, match="do not identify"):
        fixed_effects(y, t, np.column_stack([x, 1 - t]), strata=stratum, clusters=village)


def test_refusals():
    y, t = np.arange(4.0), [0, 1, 0, 1]
    with pytest.raises(TreatmentError, match="0 and 1"):
        blocked_difference(y, [1, 2, 1, 2])
    with pytest.raises(DataError, match="strata of shape"):
        blocked_difference(y, t, strata=[0, 1])
    with pytest.raises(DataError, match="y of shape"):
        blocked_difference(y[:3], t)
    with pytest.raises(DataError, match="covariates that are not finite"):
        interacted_adjustment(y, t, [[0.0], [1.0], [2.0], [np.nan]])
    with pytest.raises(DataError, match="negative"):
        score_mean(y, treatment=t, weights=[1, 1, 1, -1])
    with pytest.raises(TreatmentError, match="strata without"):
        score_mean(y, strata=t)


def test_what_one_stratum_estimates_is_the_average_effect():
    y, t, x, _, village, _ = blocks()
    assert fixed_effects(y, t, x[:, None], clusters=village).estimand == AVERAGE_EFFECT
    assert fixed_effects(y, t, clusters=village).estimate == pytest.approx(
        blocked_difference(y, t, clusters=village).estimate
    )
