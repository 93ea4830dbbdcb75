"""Covariances and degrees of freedom against statsmodels, against dense matrices, and in their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from causalsat.exceptions import DataError, ParameterError
from causalsat.inference.leverage import Coordinates, common_variance
from causalsat.inference.robust import effective_clusters, independent_columns, least_squares

sm = pytest.importorskip("statsmodels.api")


# ---------------------------------------------------------------------- textbook, with n x n matrices
def inverse_root(matrix):
    value, vector = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vector * np.where(value > 1e-9, np.abs(value) ** -0.5, 0)) @ vector.T


def textbook(y, X, w, cluster, c, kind, ratio=0.0):
    """Estimate, variance and degrees of freedom (of the efficient case) of c'b: Pustejovsky and Tipton (2018)."""
    n = len(y)
    groups = [np.flatnonzero(cluster == g) for g in np.unique(cluster)]
    phi = np.eye(n) + ratio * (cluster[:, None] == cluster)
    W, bread = np.diag(w), np.linalg.pinv(X.T @ np.diag(w) @ X)
    hat = X @ bread @ X.T @ W
    residual, maker = y - hat @ y, np.eye(n) - hat
    sigma = maker @ phi @ maker.T
    influence = W @ X @ bread @ c
    p = np.zeros((len(groups), n))
    for row, g in zip(p, groups, strict=True):
        if kind == "CR2":
            root = np.real(sqrtm(phi[np.ix_(g, g)]))
            back = np.linalg.inv(root)
            A = root @ inverse_root(back @ sigma[np.ix_(g, g)] @ back) @ back
            row[g] = A.T @ influence[g]
        else:
            row[g] = np.linalg.pinv(np.eye(len(g)) - hat[np.ix_(g, g)]).T @ influence[g]
    share = np.trace(p @ sigma @ p.T) / (influence @ phi @ influence)
    form = p @ (np.diag(1 / w) - X @ bread @ X.T) @ p.T
    variance = ((p @ residual) ** 2).sum() / (share if share < 1 - 1e-6 else 1.0)
    return influence @ y, variance, np.trace(form) ** 2 / (form**2).sum()


SIZES = {"single": (1, 2), "small": (1, 5), "large": (2, 40)}


def example(sizes, levels, weighted, seed=0):
    """Clusters of a kind of sizes; levels nested in clusters ("shared"), across them ("crossed"), or none."""
    rng = np.random.default_rng(seed)
    low, high = SIZES[sizes]
    size = rng.integers(low, high, 60 if sizes == "single" else 14)
    cluster = np.repeat(np.arange(len(size)), size)
    n = len(cluster)
    X = rng.standard_normal((n, 3))
    X[:, 0] = (rng.permutation(len(size)) % 2)[cluster]
    level = {"none": None, "shared": cluster % 3, "crossed": rng.integers(0, 3, n)}[levels]
    w = rng.lognormal(0, 1, n) if weighted else np.ones(n)
    y = X[:, 0] + rng.standard_normal(len(size))[cluster] + rng.standard_normal(n)
    return y, X, w, cluster, level


@pytest.mark.parametrize(("kind", "icc"), [("CR2", 0.0), ("CR2", 0.4), ("CV3", 0.0), ("CV3", 0.4)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("levels", ["none", "shared", "crossed"])
@pytest.mark.parametrize("sizes", list(SIZES))
def test_contrasts_agree_with_dense_matrices(sizes, levels, weighted, kind, icc):
    y, X, w, cluster, level = example(sizes, levels, weighted)
    w = w / w.mean()
    indicators = np.zeros((len(y), 0)) if level is None else (level[:, None] == np.arange(3)).astype(float)
    full = np.hstack([X, indicators])
    c = np.array([1.0, 0.5, 0.0, *([-0.3, 0.8, -0.5] if level is not None else [])])
    fit = least_squares(
        y,
        X,
        weights=w,
        clusters=cluster,
        absorb=level,
        contrast=c[:3],
        level_contrast=None if level is None else c[3:],
        kind=kind,
        icc=icc,
    )
    found = fit.estimate[0], fit.cov[0, 0], fit.df[0]
    np.testing.assert_allclose(found, textbook(y, full, w, cluster, c, kind, icc / (1 - icc)), rtol=1e-7)
    np.testing.assert_allclose(
        fit.residual, y - full @ np.linalg.pinv(w[:, None] ** 0.5 * full) @ (w**0.5 * y), atol=1e-9
    )


def test_clusters_alone_in_their_level_lose_variance_that_scaling_returns():
    """Level 0 holds one cluster: residuals show nothing of its constant, and V stays unbiased for equal variances."""
    y, X, w, cluster, _ = example("large", "none", False)
    level = (cluster > 0).astype(int)
    fit = least_squares(y, X, clusters=cluster, absorb=level, level_contrast=np.array([1.0, -1.0]))
    full = np.hstack([X, level[:, None] == np.arange(2)]).astype(float)
    c = np.array([0.0, 0, 0, 1, -1])
    assert 0 < fit.identified_share[0] < 0.9
    np.testing.assert_allclose((fit.cov[0, 0], fit.df[0]), textbook(y, full, w, cluster, c, "CR2")[1:], rtol=1e-7)
    alone = least_squares(y[level == 0], X[level == 0, :0], clusters=cluster[level == 0], absorb=level[level == 0],
                          level_contrast=np.ones(1))  # fmt: skip
    assert np.isnan(alone.se).all()
    assert alone.clusters == 1


@pytest.mark.parametrize(("kind", "theirs"), [("CR2", "HC2"), ("CV3", "HC3"), ("CR1", "HC1")])
def test_without_clusters_covariances_are_those_of_statsmodels(kind, theirs):
    y, X, _, _, _ = example("small", "none", False)
    design = np.column_stack([np.ones(len(y)), X])
    cov = least_squares(y, design, kind=kind).cov
    np.testing.assert_allclose(cov, sm.OLS(y, design).fit(cov_type=theirs).cov_params(), rtol=1e-9)


def test_the_figures_of_stata():
    """Published with the R package dfadjust: reg y x, with cluster(clusters), r and vce(hc2)."""
    y = np.concatenate([np.cos(np.arange(10)), np.tan(np.arange(1, 11))])
    x = np.concatenate([np.sin(np.arange(1, 11)), np.sin(np.arange(2, 12))])
    X, cluster = np.column_stack([np.ones(20), x]), np.tile([2, 1, 3, 2, 2, 3, 3, 1, 1, 2], 2)
    fit = least_squares(y, X, clusters=cluster, kind="CR1")
    np.testing.assert_allclose(fit.coef, [-0.4456202905, 0.3241183110], rtol=1e-9)
    np.testing.assert_allclose(fit.se, [0.4827602183, 0.1814501834], rtol=1e-9)
    np.testing.assert_allclose(least_squares(y, X).se, [0.4227339762, 0.4421048122], rtol=1e-9)
    np.testing.assert_allclose(least_squares(y, X, kind="CR1").se, [0.4278077455, 0.4392155956], rtol=1e-9)


def test_the_figures_of_pyfixest():
    """pyfixest 0.60.0, feols with CRV1 and CRV3: plain, with weights, with a fixed effect across clusters.

    Its CRV3 has the factors G / (G - 1) (n - 1) / (n - k) of its default small-sample correction.
    """
    rng = np.random.default_rng(3)
    cluster = np.repeat(np.arange(18), rng.integers(3, 30, 18))
    n, level = len(cluster), cluster % 3
    t, x = (rng.permutation(18) % 2)[cluster].astype(float), rng.standard_normal(n)
    y = t + x + rng.standard_normal(18)[cluster] + rng.standard_normal(n)
    w = rng.lognormal(0, 0.5, n)
    for absorb, weights, estimate, crv1, crv3 in (
        (np.zeros(n), None, 0.3634322270404489, 0.534338808938098, 0.6380160409346851),
        (np.zeros(n), w, 0.2910297779102873, 0.48004280786669035, 0.569860011737384),
        (level, None, 0.3934901065072006, 0.4221241741574469, 0.6082755738395079),
    ):
        options = {"clusters": cluster, "absorb": absorb, "weights": weights, "contrast": [1.0, 0.0]}
        fit = least_squares(y, np.column_stack([t, x]), **options, kind="CR1")
        assert (fit.estimate[0], fit.se[0]) == pytest.approx((estimate, crv1), rel=1e-9)
        jackknife = least_squares(y, np.column_stack([t, x]), **options, kind="CV3").se[0]
        factor = 18 / 17 * (n - 1) / (n - 2 - len(np.unique(absorb)))
        assert jackknife * np.sqrt(factor) == pytest.approx(crv3, rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_clustered_cr1_is_that_of_statsmodels(weighted):
    y, X, w, cluster, _ = example("large", "none", weighted)
    design = np.column_stack([np.ones(len(y)), X])
    fit = least_squares(y, design, weights=w, clusters=cluster, kind="CR1")
    model = sm.WLS(y, design, weights=w).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    np.testing.assert_allclose(fit.cov, model.cov_params(), rtol=1e-9)
    np.testing.assert_allclose(fit.coef, model.params, rtol=1e-9)
    assert (fit.df == len(np.unique(cluster)) - 1).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_cv3_is_the_spread_of_estimates_that_leave_out_a_cluster(weighted):
    y, X, w, cluster, _ = example("large", "none", weighted)
    design = np.column_stack([np.ones(len(y)), X])
    fit = least_squares(y, design, weights=w, clusters=cluster, kind="CV3")
    rest = [cluster != g for g in np.unique(cluster)]
    left = [sm.WLS(y[r], design[r], weights=w[r]).fit().params - fit.coef for r in rest]
    np.testing.assert_allclose(fit.cov, np.transpose(left) @ left, rtol=1e-8)


def test_two_arms_have_the_degrees_of_freedom_of_bell_and_mccaffrey():
    """Single units, arms of n1 and n0, a = 1 / n1, b = 1 / n0 (Imbens and Kolesar 2016, section 2):
    V = s1^2 a + s0^2 b, df = (a + b)^2 / (a^2 / (n1 - 1) + b^2 / (n0 - 1))."""
    rng = np.random.default_rng(0)
    t = np.repeat([0.0, 1.0], [27, 3])
    y = rng.standard_normal(30)
    fit = least_squares(y, t[:, None], absorb=np.zeros(30))
    assert fit.cov[0, 0] == pytest.approx(y[t == 1].var(ddof=1) / 3 + y[t == 0].var(ddof=1) / 27)
    assert fit.df[0] == pytest.approx((1 / 3 + 1 / 27) ** 2 / ((1 / 3) ** 2 / 2 + (1 / 27) ** 2 / 26))


def test_units_of_weight_zero_are_not_there():
    y, X, w, cluster, level = example("large", "shared", True)
    zero = np.concatenate([w, np.zeros(300)])
    junk = np.full(300, np.nan)
    more = least_squares(
        np.concatenate([y, junk]),
        np.vstack([X, np.full((300, 3), np.inf)]),
        weights=zero,
        clusters=np.concatenate([cluster, 1000 + np.arange(300)]),
        absorb=np.concatenate([level, 7 + np.arange(300)]),
        icc=None,
    )
    same = least_squares(y, X, weights=w, clusters=cluster, absorb=level, icc=None)
    np.testing.assert_allclose(more.cov, same.cov, rtol=1e-12)
    np.testing.assert_allclose(more.df, same.df, rtol=1e-12)
    assert (more.n, more.clusters) == (same.n, same.clusters) == (len(y), 14)
    assert np.isnan(more.residual[-300:]).all()


def test_invariances():
    """Order of rows, names of clusters and levels, scale of weights, shifts and scales of outcome and columns."""
    y, X, w, cluster, level = example("large", "crossed", True)
    options = {"contrast": [1.0, 0, 0], "icc": None}
    base = least_squares(y, X, weights=w, clusters=cluster, absorb=level, **options)
    rows = np.random.default_rng(0).permutation(len(y))
    names = np.array([f"village {37 * g % 101}" for g in cluster])[rows]
    other = least_squares(
        1e6 * y[rows] + 1e6,
        X[rows] * [1, 1e-5, 1e5] + [0, 1e6, -1e8],
        weights=1e3 * w[rows],
        clusters=names,
        absorb=np.array(["c", "a", "b"])[level][rows],
        **options,
    )
    assert other.estimate[0] == pytest.approx(1e6 * base.estimate[0], rel=1e-6)
    assert other.se[0] == pytest.approx(1e6 * base.se[0], rel=1e-6)
    assert other.df[0] == pytest.approx(base.df[0], rel=1e-6)
    assert other.effective_clusters[0] == pytest.approx(base.effective_clusters[0], rel=1e-6)


def test_one_unit_with_all_the_weight_keeps_the_variance_unbiased():
    """Its residual is small, not its error: the mean of V over 2000 draws is sum w^2 / (sum w)^2, with df of 1."""
    rng = np.random.default_rng(0)
    w = np.ones(40)
    w[0] = 1e3
    fits = [least_squares(rng.standard_normal(40), np.ones((40, 1)), weights=w) for _ in range(2000)]
    truth = (w**2).sum() / w.sum() ** 2
    assert np.mean([fit.cov[0, 0] for fit in fits]) == pytest.approx(truth, abs=4 * np.sqrt(2 / 2000) * truth)
    assert fits[0].df[0] == pytest.approx(1, abs=0.01)
    assert fits[0].effective_clusters[0] == pytest.approx(1, abs=0.01)


def test_common_variance_solves_its_moment_equations():
    y, X, w, cluster, level = example("large", "crossed", True)
    w = w / w.mean()
    full = np.hstack([X, level[:, None] == np.arange(3)]).astype(float)
    maker = np.eye(len(y)) - full @ np.linalg.pinv(full.T @ (w[:, None] * full)) @ (full * w[:, None]).T
    J = (cluster[:, None] == cluster).astype(float)
    e = maker @ y
    table = [[np.trace(maker @ a @ maker.T @ b) for a in (np.eye(len(y)), J)] for b in (np.eye(len(y)), J)]
    alone, common = np.linalg.solve(table, [e @ e, e @ J @ e])
    assert least_squares(y, X, weights=w, clusters=cluster, absorb=level, icc=None).icc == pytest.approx(
        common / (alone + common), rel=1e-8
    )


def test_common_variance_is_zero_where_levels_take_it_up():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(30), 2)
    X, y = rng.standard_normal((60, 1)), rng.standard_normal(30)[cluster] + rng.standard_normal(60)
    assert least_squares(y, X, clusters=cluster, absorb=cluster, icc=None).icc == 0.0
    design = Coordinates(np.full((4, 1), 0.5), np.ones(4), np.arange(4), None, np.zeros(0))
    assert common_variance(design, np.array([1.0, -1, 1, -1])) == 0.0


def test_collinear_columns_and_what_they_do_not_identify():
    y, X, _, cluster, level = example("large", "shared", False)
    repeated = np.hstack([X, X[:, [0]] + level[:, None], 5 + 0 * X[:, [0]]])
    base = least_squares(y, X, clusters=cluster, absorb=level)
    with pytest.raises(DataError, match="do not identify"):
        least_squares(y, repeated, clusters=cluster, absorb=level, contrast=[1.0, 0, 0, 0, 0])
    fit = least_squares(y, repeated, clusters=cluster, absorb=level, contrast=[1.0, 0, 0, 1, 0])
    assert fit.estimate[0] == pytest.approx(base.estimate[0])
    assert fit.se[0] == pytest.approx(base.se[0])
    assert independent_columns(repeated, absorb=level).sum() == 3
    assert independent_columns(repeated + 1e8, absorb=level).sum() == 3


def test_effective_clusters():
    assert effective_clusters(np.ones(12), np.repeat(np.arange(4), 3)) == pytest.approx(4)
    assert effective_clusters(np.ones(7)) == pytest.approx(7)
    # a contrast within clusters: its sums by cluster are zero, its squares are not
    assert effective_clusters(np.tile([1.0, -1.0], 5), np.repeat(np.arange(5), 2)) == pytest.approx(5)
    # Carter, Schnepel and Steigerwald: G / (1 + Gamma), Gamma the squared coefficient of variation of gamma
    gamma = np.array([1.0, 2.0, 5.0]) ** 2
    value = 3 / (1 + gamma.var() / gamma.mean() ** 2)
    assert effective_clusters([1.0, 2, 2, 3], [0, 1, 2, 2]) == pytest.approx(value)


def test_refusals():
    y, X = np.arange(4.0), np.ones((4, 1))
    with pytest.raises(ParameterError, match="kind"):
        least_squares(y, X, kind="HC9")
    with pytest.raises(ParameterError, match="icc"):
        least_squares(y, X, icc=1.0)
    with pytest.raises(DataError, match="negative"):
        least_squares(y, X, weights=[1, 1, 1, -1])
    with pytest.raises(DataError, match="positive weight"):
        least_squares(y, X, weights=np.zeros(4))
    with pytest.raises(DataError, match="clusters of shape"):
        least_squares(y, X, clusters=[0, 1])
    with pytest.raises(DataError, match="not finite"):
        least_squares([0.0, 1, 2, np.nan], X)
