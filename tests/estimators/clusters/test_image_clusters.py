"""Image effect clusters: the density against brute force, cells, choice of K, recovery of known types, salience."""

import warnings
from dataclasses import fields, replace

import geopandas as gpd
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, norm

import causalsat
from causalsat import ImageEffectClusters, LearnedFilters
from causalsat.estimators.clusters import density
from causalsat.estimators.clusters.data import image_folds, make_cells
from causalsat.estimators.clusters.density import Layout, Prior
from causalsat.estimators.clusters.fit import Options, difference_se, warn_of_misfit
from causalsat.estimators.clusters.model import build_model
from causalsat.estimators.clusters.posterior import curvature, find_mode
from causalsat.estimators.clusters.salience import log_probability
from causalsat.estimators.clusters.selection import choose, randomisation_p_value, weights
from causalsat.estimators.image_base import blocks_of
from causalsat.exceptions import (
    CausalsatWarning,
    ColumnError,
    ConvergenceError,
    DataError,
    DataWarning,
    ImageryError,
    ParameterError,
)

QUICK = {"backbone": "random_conv", "n_draws": 150, "n_tune": 150, "n_restarts": 2, "random_state": 0}
PRIOR = Prior(0.5, 0.5, (1.0, 1.0))


def world(n_images=120, per_image=8, tau=(0.0, 2.0), seed=0, px=12):
    """Images of two types, brighter and darker, with effects of their own; treatment and site effects by image."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(n_images) % 2
    images = rng.normal(size=(n_images, 2, px, px)) + 1.0 * kind[:, None, None, None]
    image = np.repeat(np.arange(n_images), per_image)
    t = (rng.permutation(n_images) % 2)[image]
    age = rng.normal(size=len(image))
    y = 0.7 * age + t * np.array(tau)[kind[image]] + 0.3 * rng.normal(size=n_images)[image]
    return images.astype(np.float32), image, t, y + rng.normal(size=len(image)), age, kind


def quietly(fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return fit()


@pytest.fixture(scope="module")
def fitted():
    images, image, t, y, age, _ = world()
    X = xr.DataArray(images[image], dims=("unit", "band", "y", "x"), coords={"age": ("unit", age)})
    est = ImageEffectClusters(n_clusters=2, covariates=["age"], **QUICK)
    return quietly(lambda: est.fit(X, y, treatment=t, groups=image)), X


# ---------------------------------------------------------------------- density
def shifts(effect, centre, pivot):
    """What each arm adds, (2, ...): the types' outcomes meet at the pivot."""
    return np.stack([(w - 0.5) * centre + (w - pivot) * (effect - centre) for w in (0, 1)])


def cells_of(mode, seed=0):
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(30), 4)
    site = {"nested": image, "several images a site": image // 5, "unit": image // 5, "no sites": None}[mode]
    arm, y, weight = rng.integers(0, 2, 120), rng.normal(size=120), rng.uniform(0.5, 1.5, 120)
    cells, _ = make_cells(image, site, arm, y, weight, share=mode != "unit")
    return cells, rng.normal(size=(30, 3)), (image, site, arm, y, weight)


@pytest.mark.parametrize("mode", ["nested", "several images a site", "unit", "no sites"])
@pytest.mark.parametrize(("n_clusters", "kind"), [(1, "types"), (3, "types"), (3, "tied"), (3, "shares")])
def test_gradient_is_that_of_the_density(mode, n_clusters, kind):
    cells, phi, _ = cells_of(mode)
    prior = replace(PRIOR, tied_noise=kind != "types", shares=kind == "shares")
    layout = prior.layout(n_clusters, phi, cells)
    args = density.arguments(cells, phi, prior, n_clusters)
    x = 0.3 * np.random.default_rng(1).normal(size=layout.size)
    _, gradient = density.log_density(x, *args)
    numeric = approx_fprime(x, lambda z: density.log_density(z, *args)[0], 1e-6)
    # the quadrature's nodes follow the parameters, which the gradient leaves out: an error of the quadrature's order
    tolerance = 1e-5 if mode in ("nested", "no sites") else 2e-3
    np.testing.assert_allclose(gradient, numeric, atol=tolerance * np.abs(gradient).max())


@pytest.mark.parametrize("mode", ["nested", "several images a site", "unit"])
def test_site_likelihood_is_the_integral_over_the_site_effect_of_the_sum_over_clusters(mode):
    cells, phi, (image, site, arm, y, weight) = cells_of(mode)
    layout = Layout(2, 3, True)
    x = 0.4 * np.random.default_rng(2).normal(size=layout.size)
    p = layout.unpack(x)
    logits = p["logit"][:, 0] + phi @ p["logit"][:, 1:].T
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    level = p["intercept"] + phi @ p["prognostic"]
    shift = shifts(p["tau"], 0.7, p["pivot"])
    unit = np.arange(len(y)) if mode == "unit" else image

    def likelihood(u, members):
        value = norm.pdf(u, scale=p["site_sd"])
        for cell in np.unique(unit[members]):
            rows = members[unit[members] == cell]
            total = 0.0
            for k in range(2):
                mean = level[image[rows]] + shift[arm[rows], k] + u
                logs = norm.logpdf(y[rows], mean, p["sigma"][arm[rows], k])
                total += pi[image[rows[0]], k] * np.exp((weight[rows] * logs).sum())
            value *= total
        return value

    ours = density.site_log_likelihood(x, layout, cells, phi, 0.7)
    for g in (0, 2):
        members = np.flatnonzero(site == g)
        exact = quad(likelihood, -9, 9, args=(members,), points=[0.0], epsabs=0, epsrel=1e-8, limit=200)[0]
        assert ours[g] == pytest.approx(np.log(exact), abs=1e-4)


def test_site_likelihood_with_shares_is_the_normal_one_of_the_mean_effect():
    cells, phi, (image, site, arm, y, _) = cells_of("several images a site")
    cells, _ = make_cells(image, site, arm, y, np.ones(len(y)), share=True)
    layout = Layout(3, 3, True, True, True)
    x = 0.4 * np.random.default_rng(4).normal(size=layout.size)
    p = layout.unpack(x)
    logits = p["logit"][:, 0] + phi @ p["logit"][:, 1:].T
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = p["intercept"] + phi @ p["prognostic"]
    effect = shifts(pi @ p["tau"], 0.7, p["pivot"])  # arm, image
    expected = [
        multivariate_normal.logpdf(
            y[site == g],
            (mean[image] + effect[arm, image])[site == g],
            np.diag(p["sigma"][arm[site == g], 0] ** 2) + p["site_sd"] ** 2,
        )
        for g in range(6)
    ]
    np.testing.assert_allclose(density.site_log_likelihood(x, layout, cells, phi, 0.7), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["types", "tied", "shares"])
def test_swapped_arms_turn_the_effects_around_and_nothing_else(kind):
    cells, phi, _ = cells_of("nested")
    prior = replace(PRIOR, arm_sd=(1.0, 1.3), tied_noise=kind != "types", shares=kind == "shares")
    layout = prior.layout(3, phi, cells)
    other = replace(prior, effect=-prior.effect, arm_sd=(1.3, 1.0))
    swapped = replace(cells, count=cells.count[:, ::-1], mean=cells.mean[:, ::-1], spread=cells.spread[:, ::-1])
    swapped = replace(swapped, **{n: np.ascontiguousarray(getattr(swapped, n)) for n in ("count", "mean", "spread")})
    gaps = []
    for seed in range(4):
        x = 0.5 * np.random.default_rng(seed).normal(size=layout.size)
        tau = layout.unpack(x)["tau"]
        z, d, q = x.copy(), 3, layout.n_noise
        at = 1 + d
        z[at], z[at + 1 : at + 3] = -tau[2], x[at + 1 : at + 3][::-1]
        noise = x[at + 3 : at + 3 + 2 * q].reshape(2, q)[::-1, ::-1]
        z[at + 3 : at + 3 + 2 * q] = noise.ravel()
        al = at + 3 + 2 * q
        logit = np.vstack([np.zeros(4), np.column_stack([x[al : al + 2], x[al + 2 : al + 8].reshape(2, 3)])])[::-1]
        z[al : al + 2], z[al + 2 : al + 8] = (logit - logit[0])[1:, 0], (logit - logit[0])[1:, 1:].ravel()
        z[al + 8] = -x[al + 8]  # the pivot
        one = density.log_density(x, *density.arguments(cells, phi, prior, 3))[0]
        gaps.append(one - density.log_density(z, *density.arguments(swapped, phi, other, 3))[0])
    np.testing.assert_allclose(gaps, 0, atol=1e-9)


@pytest.mark.parametrize(("n_clusters", "kind"), [(1, "tied"), (3, "types"), (3, "tied"), (3, "shares")])
def test_density_is_that_of_the_model_in_pymc_with_site_effects_integrated_out(n_clusters, kind):
    cells, phi, _ = cells_of("nested")
    cells = cells.take_sites(np.arange(6))
    prior = replace(PRIOR, tied_noise=kind != "types", shares=kind == "shares")
    layout = prior.layout(n_clusters, phi, cells)
    reference = build_model(cells, phi, prior, n_clusters).compile_logp()
    nodes = np.linspace(-7, 7, 141)  # the trapezoid rule is exact to rounding for such curves
    gaps = []
    for seed in range(3):
        x = 0.4 * np.random.default_rng(seed).normal(size=layout.size)
        point = as_in_pymc(x, layout)
        base = float(reference({**point, "site": np.zeros(6)}))
        total = base
        for site in range(6):  # ratio of the site's integral over its effect to its value at zero
            at = np.array([float(reference({**point, "site": node * np.eye(6)[site]})) for node in nodes])
            total += np.log(np.exp(at - base).sum() * 0.1)
        gaps.append(density.log_density(x, *density.arguments(cells, phi, prior, n_clusters))[0] - total)
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-5)


def as_in_pymc(x, layout):
    """The parameters of a vector under the names and transforms of the model in PyMC, without the site effects."""
    k, d, q = layout.n_clusters, layout.n_features, layout.n_noise
    at = 1 + d
    al = at + k + 2 * q
    point = {
        "intercept": x[0],
        "prognostic": x[1:at],
        "tau_ordered__": x[at : at + k],
        "sigma_log__": x[at + k : al].reshape(2, q),
        "site_sd_log__": x[-1],
    }
    if k > 1:
        weights = slice(al + k - 1, al + (k - 1) * (1 + d))
        point |= {"logit_intercepts": x[al : al + k - 1], "logit_weights": x[weights]}
        point |= {"pivot_interval__": x[weights.stop]}
    return point


def test_cells_do_not_depend_on_the_order_of_the_units():
    _, _, (image, site, arm, y, weight) = cells_of("several images a site")
    order = np.random.default_rng(3).permutation(len(y))
    one, _ = make_cells(image, site, arm, y, weight, share=True)
    two, _ = make_cells(image[order], site[order], arm[order], y[order], weight[order], share=True)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_allclose(one.spread, two.spread)
    assert one.count.sum() == pytest.approx(weight.sum())


def test_normal_approximation_has_the_curvature_of_the_density():
    cells, phi, _ = cells_of("nested")
    mode, _ = find_mode(cells, phi, PRIOR, 1, np.random.default_rng(0), 1)
    args = density.arguments(cells, phi, PRIOR, 1)
    scale = curvature(mode, args)
    top = density.log_density(mode, *args)[0]
    small = 0.1 * np.random.default_rng(0).normal(size=(20, len(mode)))
    drop = [top - density.log_density(mode + scale @ z, *args)[0] for z in small]
    np.testing.assert_allclose(drop, 0.5 * (small**2).sum(axis=1), rtol=0.35)


# ---------------------------------------------------------------------- folds and choice
def test_folds_keep_sites_of_an_image_and_images_of_a_site_together():
    image = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    groups = np.array([0, 1, 1, 2, 3, 3, 4, 5, 6, 7])
    block = blocks_of(image, groups, 9)
    assert block[0] == block[1]
    assert block[3] == block[4]
    fold = image_folds(block, image, np.arange(10) % 2, 3, seed=0)
    assert fold[0] == fold[1]
    assert len(np.unique(fold)) == 3


def test_smallest_number_within_the_margin_is_chosen():
    rng = np.random.default_rng(0)
    base = rng.normal(size=200)
    better, noisy = base + 0.3, base + 0.3 + 0.5 * rng.normal(size=200)
    assert choose([1, 2, 3], [base, better, noisy]).chosen == 2
    worse = base - 0.01 + 0.2 * rng.normal(size=200)
    assert choose([1, 2], [base, worse]).chosen == 1
    slightly = base + 0.02 * rng.normal(size=200) + 1e-4
    assert choose([1, 2], [base, slightly], margin=2.0).chosen == 1


def test_number_of_types_is_found():
    images, image, t, y, _, _ = world()
    est = quietly(
        lambda: ImageEffectClusters(max_clusters=3, **QUICK).fit(images[image], y, treatment=t, groups=image)
    )
    assert est.n_clusters_ == 2
    assert est.selection_.gain[1] > 2 * est.selection_.se[1]
    images, image, t, y, _, _ = world(tau=(1.0, 1.0), seed=3)
    same = quietly(
        lambda: ImageEffectClusters(max_clusters=3, **QUICK).fit(images[image], y, treatment=t, groups=image)
    )
    assert same.n_clusters_ == 1
    assert np.ptp(same.predict(images)) == 0
    assert same.cluster_effects().loc[1, "mean"] == pytest.approx(1.0, abs=0.3)


def test_without_a_least_number_one_type_is_chosen_and_with_it_the_best_of_the_others():
    rng = np.random.default_rng(0)
    base = rng.normal(size=200)
    two, three = base + 0.01, base + 0.2 + 0.1 * rng.normal(size=200)
    assert choose([1, 2, 3], [base, two, three], least=None).chosen == 1
    assert choose([1, 2, 3], [base, two, three], least=2).chosen == 3
    assert choose([1, 2, 3], [base, base - 1, base - 2], least=2).chosen == 2


def test_weights_are_the_averaged_softmax_of_densities_over_bootstraps_of_the_sites():
    rng = np.random.default_rng(0)
    base = rng.normal(size=100)
    assert weights([base, base, base], 2, 0) == {2: 0.5, 3: 0.5}
    assert weights([base, base + 1, base], 2, 0) == {2: 1.0}
    assert weights([base, base, base + 1], 2, 0).keys() == {2, 3}  # the chosen number stays
    close = weights([base, base, base + 0.02 + 0.05 * rng.normal(size=100)], 2, 0)
    assert 0.6 < close[3] < 1 / (1 + np.exp(-3.0))


def test_randomisation_test_keeps_its_level_and_stops_when_it_is_lost():
    rng = np.random.default_rng(0)
    drawn = []

    def draw():
        drawn.append(rng.normal())
        return drawn[-1]

    p = np.array([randomisation_p_value(rng.normal(), draw, 39) for _ in range(800)])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.024)
    assert len(drawn) / 800 < 15
    assert randomisation_p_value(99.0, draw, 39) == 1 / 40


def test_skewed_outcomes_without_heterogeneity_give_one_type_and_the_average_of_a_regression():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(100, 2, 8, 8)).astype(np.float32) + rng.normal(size=(100, 2, 1, 1)).astype(np.float32)
    image, t = np.repeat(np.arange(100), 4), np.repeat(rng.permutation(100) % 2, 4)
    y = rng.lognormal(size=400) / 2.16 + 0.5 * t
    est = ImageEffectClusters(max_clusters=2, n_components=3, **QUICK)
    est = quietly(lambda: est.fit(images[image], y, treatment=t, groups=image))
    assert est.n_clusters_ == 1
    estimate, se = est.reference_["difference in means"]
    assert est.draws_["ate"].mean() == pytest.approx(estimate, abs=0.3 * se)


def test_effects_at_images_are_averaged_over_numbers_of_types():
    images, image, t, y, _, _ = world(80, 6)
    options = {"max_clusters": 3, "n_components": 2, **QUICK}
    est = quietly(lambda: ImageEffectClusters(**options).fit(images[image], y, treatment=t, groups=image))
    assert est.n_clusters_ == 2
    assert est.selection_.p_value == 1 / 40
    used = est.selection_.weights
    assert sum(used.values()) == pytest.approx(1.0)
    assert [len(part["tau"]) for part in est.components_] == [round(300 * w) for w in used.values()]
    assert [part["tau"].shape[1] for part in est.components_] == list(used)
    effect = est.effect(images)
    assert effect.draws.shape == (300, 80)
    np.testing.assert_allclose(effect.draws.mean(axis=1), est.draws_["ate"], atol=1e-10)
    text = str(est.summary())
    assert "averaged over numbers of clusters: 2" in text
    assert "not how many kinds of place there are" in text


def test_yes_no_outcomes_have_effects_in_the_share_of_yes_and_are_refused_by_types_of_images():
    images, image, t, _, _, kind = world(120, 10)
    y = (np.random.default_rng(0).random(len(t)) < 0.3 + 0.5 * t * kind[image]).astype(float)
    est = ImageEffectClusters(n_clusters=2, n_components=2, **QUICK)
    est = quietly(lambda: est.fit(images[image], y, treatment=t, groups=image))
    assert np.abs(est.cluster_effects()["mean"] - [0.0, 0.5]).max() < 0.15
    with pytest.raises(DataError, match="assignment='share'"):
        ImageEffectClusters(n_clusters=2, assignment="image", **QUICK).fit(images[image], y, treatment=t)


def test_chains_that_fail_are_an_error_with_what_can_be_done():
    images, image, t, y, _, _ = world(40, 4)
    est = ImageEffectClusters(n_clusters=2, n_components=2, assignment="image", noise="cluster", **QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causalsat.estimators.clusters.fit.fails", lambda _summary: True)
        with pytest.raises(
            ConvergenceError, match=r"raise n_tune and n_draws \(now 150 and 150\), or assignment='share'"
        ):
            quietly(lambda: est.fit(images[image], y, treatment=t, groups=image))


# ---------------------------------------------------------------------- recovery
def test_types_and_their_effects_are_recovered(fitted):
    est, X = fitted
    _, image, _, _, _, kind = world()
    effects = est.cluster_effects(0.99)  # one draw of the data: wide enough to hold the truth nearly always
    assert (effects["lower"] < [0.0, 2.0]).all()
    assert (effects["upper"] > [0.0, 2.0]).all()
    assert effects["share"].sum() == pytest.approx(1.0)
    assert np.mean(est.predict_cluster(X) == kind[image] + 1) > 0.97
    assert est.draws_["sigma"].mean() == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(est.predict(X), kind[image])[0, 1] > 0.95
    assert (np.diff(est.draws_["tau"], axis=1) > 0).all()


def test_draws_do_not_depend_on_the_order_of_the_rows():
    images, image, t, y, age, _ = world(40, 4)
    rows = np.random.default_rng(1).permutation(len(y))
    fits = []
    for order in (np.arange(len(y)), rows):
        X = xr.DataArray(images[image[order]], dims=("unit", "band", "y", "x"), coords={"age": ("unit", age[order])})
        est = ImageEffectClusters(n_clusters=2, covariates=["age"], n_components=2, **QUICK)
        fits.append(quietly(lambda est=est, X=X, o=order: est.fit(X, y[o], treatment=t[o], groups=image[o])))
    np.testing.assert_array_equal(fits[0].draws_["tau"], fits[1].draws_["tau"])
    np.testing.assert_array_equal(fits[0].unit_image_[rows], fits[1].unit_image_)


def test_units_of_one_image_have_a_level_in_common():
    images, image, t, y, _, _ = world(40, 4)
    options = {"n_clusters": 1, "n_components": 2, **QUICK}
    plain = quietly(lambda: ImageEffectClusters(**options).fit(images[image], y, treatment=t))
    named = quietly(lambda: ImageEffectClusters(**options).fit(images[image], y, treatment=t, groups=image))
    np.testing.assert_array_equal(plain.draws_["ate"], named.draws_["ate"])
    assert plain.n_groups_ == 40
    assert "sd of sites" in str(plain.summary())


def test_noise_by_arm_has_one_scale_for_all_types():
    images, image, t, y, _, _ = world(60, 6)
    est = ImageEffectClusters(noise="arm", n_clusters=2, **QUICK)
    est = quietly(lambda: est.fit(images[image], y, treatment=t, groups=image))
    assert np.ptp(est.draws_["sigma"], axis=2).max() == 0
    assert est.draws_["sigma"].shape == (300, 2, 2)


def test_shares_follow_an_effect_that_varies_smoothly():
    rng = np.random.default_rng(5)
    level = rng.normal(size=150)
    images = (rng.normal(size=(150, 2, 8, 8)) + level[:, None, None, None]).astype(np.float32)
    image, t = np.repeat(np.arange(150), 6), rng.integers(0, 2, 900).astype(float)
    y = t * (1.0 + level[image]) + rng.normal(size=900)
    est = ImageEffectClusters(assignment="share", n_clusters=2, n_components=2, **QUICK)
    est = quietly(lambda: est.fit(images[image], y, treatment=t, groups=image))
    tau = est.predict(images)
    assert 1 - np.mean((tau - 1.0 - level) ** 2) > 0.85
    assert np.ptp(est.draws_["sigma"], axis=2).max() == 0
    parts = est.unit_variance(images[:4])
    assert (parts["between"] == 0).all()
    np.testing.assert_allclose(parts["effect"], tau[:4])


def test_an_average_effect_far_from_the_regressions_is_noticed(fitted):
    est, _ = fitted
    options = Options(**{f.name: getattr(est, f.name) for f in fields(Options)})
    draws, regression = 0.1 * np.random.default_rng(0).normal(size=500), (0.74, 0.08)
    with pytest.warns(DataWarning, match="assignment='share'"):
        warn_of_misfit(draws + 1.2, regression, 0.1, replace(options, assignment="image"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_misfit(draws + 1.2, regression, 0.2, options)  # a difference of 2.3 of its own standard errors
        warn_of_misfit(draws + 0.77, regression, 0.001, options)  # of many, but a third of the regression's
    with pytest.warns(DataWarning, match="priors pull"):
        warn_of_misfit(draws + 1.2, regression, 0.1, options)


def test_difference_from_the_regression_has_the_standard_error_of_a_difference_on_the_same_data():
    """Both average the same sites: with one type their difference varies far less than either."""
    images, image, t, y, _, _ = world(60, 6, tau=(1.0, 1.0))
    est = ImageEffectClusters(n_clusters=1, **QUICK)
    quietly(lambda: est.fit(images[image], y, treatment=t, groups=image))
    found = {}

    def spy(problem, posterior, ate, influence):
        found["apart"] = difference_se(problem, posterior, ate, influence)
        return found["apart"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causalsat.estimators.clusters.fit.difference_se", spy)
        quietly(lambda: est.fit(images[image], y, treatment=t, groups=image))
    assert 0 < found["apart"] < 0.6 * est.reference_["regression with covariates"][1]


@pytest.mark.parametrize("whole", [False, True], ids=["treated within sites", "whole sites treated"])
def test_the_place_itself_has_an_interval_that_holds_what_no_image_shows(whole):
    """Sites differ by N(0, 1) in their effects beyond the type's; half the images are of places without a trial."""
    images, image, t, _, age, kind = world(n_images=300, seed=5)
    rng, trial = np.random.default_rng(6), image < 150
    t = t if whole else rng.permutation(len(image)) % 2
    effect = np.array([0.0, 2.0])[kind] + rng.standard_normal(300)
    y = 0.7 * age + t * effect[image] + 0.3 * rng.standard_normal(300)[image] + rng.standard_normal(len(image))
    X = xr.DataArray(images[image], dims=("unit", "band", "y", "x"), coords={"age": ("unit", age)})
    est = ImageEffectClusters(n_clusters=2, covariates=["age"], **QUICK)
    est = quietly(lambda: est.fit(X[trial], y[trial], treatment=t[trial], groups=image[trial]))
    assert est.place_deviation_.by == ("between" if whole else "within")
    # over 25 trials of whole sites the median has a standard deviation of .11, the coverage one of .046
    assert np.median(est.place_deviation_.sd) == pytest.approx(1.0, abs=0.3)
    place = est.effect(images[150:], scope="place")
    low, high = place.interval(0.9).T
    covered = np.mean((low < effect[150:]) & (effect[150:] < high))
    assert abs(covered - 0.9) < 2.5 * 0.046
    np.testing.assert_allclose(place.mean(), est.effect(images[150:]).mean(), atol=1e-10)


def test_probabilities_are_uncertain_and_add_up(fitted):
    est, X = fitted
    table = est.cluster_probabilities(X[:40])
    means = table.xs("mean", axis=1, level="statistic")
    np.testing.assert_allclose(means.sum(axis=1), 1.0)
    assert (table[(1, "sd")] > 0).all()
    assert (table[(1, "lower")] <= table[(1, "mean")]).all()


def test_variance_of_individual_effects_has_its_parts(fitted):
    est, X = fitted
    parts = est.unit_variance(X[:8])
    np.testing.assert_allclose(parts["effect"], est.predict(X[:8]))
    np.testing.assert_allclose(parts["sd"] ** 2, parts["within"] + parts["between"] + parts["posterior"])
    assert parts["within"].to_numpy() == pytest.approx(2.0, rel=0.3)
    np.testing.assert_allclose(parts["posterior"], est.effect(X[:8]).sd() ** 2)


def test_covariates_sharpen_and_their_missing_values_are_kept(fitted):
    est, X = fitted
    _, image, t, y, age, _ = world()
    plain = ImageEffectClusters(n_clusters=2, **QUICK)
    plain = quietly(lambda: plain.fit(X.drop_vars("age"), y, treatment=t, groups=image))
    assert est.draws_["sigma"].mean() < 0.9 * plain.draws_["sigma"].mean()
    holed = X.assign_coords(age=("unit", np.where(np.arange(len(y)) % 7, age, np.nan)))
    again = ImageEffectClusters(n_clusters=2, covariates=["age"], **QUICK)
    again = quietly(lambda: again.fit(holed, y, treatment=t, groups=image))
    assert again.covariate_names_ == ("age", "age missing")
    assert again.n_units_ == len(y)
    assert est.n_images_ == 120


def test_average_effect_stands_beside_regressions(fitted):
    est, _ = fitted
    _, _, t, y, _, _ = world()
    difference = y[t == 1].mean() - y[t == 0].mean()
    assert est.reference_["difference in means"][0] == pytest.approx(difference)
    assert est.draws_["ate"].mean() == pytest.approx(1.0, abs=0.25)
    text = str(est.summary())
    for words in ("ATE", "effect of cluster 2", "difference in means", "noise sd, treated, cluster 1", "sd of sites"):
        assert words in text


def test_typical_images_are_distinct_and_of_their_type(fitted):
    est, X = fitted
    _, image, _, _, _, kind = world()
    most = est.typical_images(X, 2, n=5)
    assert len(set(image[most])) == 5
    assert (kind[image[most]] == 1).all()
    least = est.typical_images(X, 2, n=5, kind="least")
    assert (kind[image[least]] == 0).all()
    unsure = est.typical_images(X, 2, n=3, kind="uncertain")
    sd = est.cluster_probabilities(X)[(2, "sd")].to_numpy()
    assert sd[unsure[0]] == sd.max()
    with pytest.raises(ParameterError, match="from 1 to 2"):
        est.typical_images(X, 3)


# ---------------------------------------------------------------------- places, maps
def places_and_imagery():
    images, image, t, y, age, kind = world(60, 6, px=8)
    raster = np.zeros((2, 48, 80), dtype=np.float32)
    for j, chip in enumerate(images):
        r, c = divmod(j, 10)
        raster[:, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8] = chip
    array = xr.DataArray(
        raster,
        dims=("band", "y", "x"),
        coords={
            "band": ["red", "nir"],
            "y": 1e6 - 30.0 * (np.arange(48) + 0.5),
            "x": 3e5 + 30.0 * (np.arange(80) + 0.5),
        },
        name="scenes",
    ).rio.write_crs("EPSG:32636")
    r, c = np.divmod(np.arange(60), 10)
    points = gpd.points_from_xy(3e5 + 30.0 * (8 * c + 4.5), 1e6 - 30.0 * (8 * r + 4.5))
    table = gpd.GeoDataFrame({"age": age, "arm": t}, geometry=points[image], crs="EPSG:32636")
    return images, image, y, table, causalsat.open_imagery(array), kind


def test_places_on_imagery_are_the_same_as_their_chips_and_can_be_mapped(tmp_path):
    images, image, y, table, imagery, _ = places_and_imagery()
    options = {"n_clusters": 2, "covariates": ["age"], "n_components": 2, **QUICK}
    est = ImageEffectClusters(imagery=imagery, size_m=240, **options)
    est = quietly(lambda: est.fit(table, y, treatment="arm", groups=image))
    chips = xr.DataArray(
        images[image], dims=("unit", "band", "y", "x"), coords={"age": ("unit", table["age"].to_numpy())}
    )
    other = ImageEffectClusters(**options)
    other = quietly(lambda: other.fit(chips, y, treatment=table["arm"], groups=image))
    np.testing.assert_allclose(est.predict(table), other.predict(chips), rtol=1e-4, atol=1e-5)
    mapped = causalsat.map_effects(
        est, imagery, resolution=240, out=tmp_path / "m.tif", html=False, png=False, progress=False
    )
    import rasterio

    with rasterio.open(mapped.path) as raster:
        effect = raster.read(1)
    assert effect.shape == (6, 10)
    # the map's cells lie half a pixel off the sites, so that effects agree with the sites', but not to the digit
    at_sites = est.predict(table.drop_duplicates("geometry"))
    assert np.corrcoef(effect[:5, :9].ravel(), at_sites.reshape(6, 10)[:5, :9].ravel())[0, 1] > 0.9
    far = est.typical_images(table, 1, n=50, min_distance_m=600)
    metres = np.column_stack([table.geometry.x, table.geometry.y])[far]
    gaps = np.hypot(*(metres[:, None] - metres[None]).transpose(2, 0, 1))
    assert gaps[np.triu_indices(len(far), 1)].min() >= 600
    by_chips = causalsat.map_effects(
        other, imagery, resolution=240, out=tmp_path / "c.tif", size_m=240, html=False, png=False, progress=False
    )
    with rasterio.open(by_chips.path) as raster:
        np.testing.assert_allclose(raster.read(1), effect, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------- salience
def test_salience_adds_up_to_the_difference_in_log_probability(fitted):
    est, X = fitted
    found = est.salience(X[:3], 2, n_steps=64)
    assert found.shape == (3, 2, 12, 12)
    score, images = log_probability(est.encoder_, est.draws_["logit"], 1, est.read_chips(X[:3]), "cpu")
    difference = (score(images) - score(images * 0)).detach().numpy()
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), difference, rtol=0.05, atol=0.02)


def test_salience_sees_the_features_that_predictions_use(fitted):
    est, X = fitted
    score, images = log_probability(est.encoder_, est.draws_["logit"], 1, est.read_chips(X[:10]), "cpu")
    chosen = np.linspace(0, len(est.draws_["tau"]) - 1, 100).astype(int)
    features, _ = est._design_features(X[:10])
    expected = np.log(est._probabilities(features)[chosen, 1].mean(axis=0))
    np.testing.assert_allclose(score(images).detach().numpy(), expected, atol=1e-3)


def test_gradient_salience_is_the_derivative(fitted):
    est, X = fitted
    found = est.salience(X[:1], 1, method="gradient")
    score, images = log_probability(est.encoder_, est.draws_["logit"], 0, est.read_chips(X[:1]), "cpu")
    step = images.clone()
    step[0, 1, 5, 5] += 0.05
    numeric = float((score(step) - score(images)).detach()) / 0.05
    assert found[0, 1, 5, 5] == pytest.approx(numeric, rel=0.2, abs=2e-3)


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_clusters": 0}, "n_clusters=0"),
        ({"assignment": "village"}, "'share', 'image' or 'unit'"),
        ({"backbone": 3}, "backbone is a int"),
        ({"covariates": "age"}, r"\['age'\]"),
        ({"backbone": "vit_b_16"}, "images of one size only"),
        ({"margin": -1.0}, "margin"),
    ],
)
def test_bad_parameters_are_refused(options, says):
    images, image, t, y, _, _ = world(20, 4)
    with pytest.raises(ParameterError, match=says):
        ImageEffectClusters(**{**QUICK, **options}).fit(images[image], y, treatment=t, groups=image)


def test_chips_that_do_not_fit_are_refused(fitted):
    est, X = fitted
    with pytest.raises(ImageryError, match="as in training"):
        est.predict(X[:2, :, :8, :8])
    images, image, t, y, _, _ = world(20, 4)
    with pytest.raises(ColumnError, match="'age'"):
        ImageEffectClusters(covariates=["age"], **QUICK).fit(images[image], y, treatment=t, groups=image)
    images[3] = np.nan
    with pytest.raises(ImageryError, match="too few valid pixels"):
        ImageEffectClusters(**QUICK).fit(images[image], y, treatment=t, groups=image)


def test_a_backbone_that_is_trained_on_effects_finds_what_averages_hide():
    """One bright streak in some images: treatment works there only, and the image's mean hardly knows of it."""
    rng = np.random.default_rng(0)
    kind = np.arange(120) % 2
    images = rng.normal(size=(120, 1, 24, 24)).astype(np.float32)
    for i in np.flatnonzero(kind):
        row, col = rng.integers(0, 18, 2)
        images[i, 0, row + np.arange(4), col + np.arange(4)[::-1]] += 5
        images[i] -= images[i].mean()
    village, t = np.repeat(np.arange(120), 5), rng.integers(0, 2, 600).astype(float)
    y = t * 2.0 * kind[village] + rng.normal(size=600)
    backbone = LearnedFilters(targets="effect", max_px=4, statistics=False)
    est = ImageEffectClusters(backbone=backbone, n_clusters=2, n_draws=200, n_tune=200, n_restarts=1, random_state=0)
    est.fit(images[village], y, treatment=t, groups=village)
    effect = est.effect(images).mean()
    assert est.scores_.shape == (120, 1)
    assert np.corrcoef(effect, kind)[0, 1] > 0.9
    assert np.abs(est.cluster_effects()["mean"] - [0.0, 2.0]).max() < 0.5
