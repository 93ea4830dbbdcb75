"""The declared design reaches every number of an analysis: strata, weights, studies without randomisation."""

import warnings

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.exceptions import CausalsatWarning
from causalsat.simulate import satellite_trial

pytestmark = pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")


@pytest.fixture(scope="module")
def landscape():
    return satellite_trial("none", n_units=800, n_sites=100, size_px=448, seed=5).study()


def blocked(study, seed, effect=1.0, shares=(0.25, 0.70), gap=2.0):
    """The study with an outcome of our own: two strata of sites with a gap and other treated shares."""
    rng = np.random.default_rng(seed)
    sites = np.unique(study.groups)
    stratum = dict(zip(sites, rng.permutation(len(sites)) % 2, strict=True))
    treated = {}
    for k, share in enumerate(shares):
        members = [site for site in sites if stratum[site] == k]
        chosen = set(rng.choice(members, round(share * len(members)), replace=False))
        treated |= {site: float(site in chosen) for site in members}
    noise = dict(zip(sites, 0.4 * rng.standard_normal(len(sites)), strict=True))
    s = np.array([stratum[site] for site in study.groups])
    t = np.array([treated[site] for site in study.groups])
    y = gap * s + effect * t + np.array([noise[site] for site in study.groups]) + rng.standard_normal(len(s))
    units = study.units.assign(outcome=y, treatment=t, block=np.where(s == 0, "north", "south"))
    return study.replace(units=units, strata="block", propensity=None)


def quick(study, model=None, **options):
    """A small model: the doubly robust learner on five components."""
    learner = causalsat.DoublyRobustEffect(modifiers="img*", random_state=0)
    pipeline = causalsat.image_model(study, learner, n_components=5) if model is None else model
    return causalsat.analyse(study, pipeline, n_permutations=99, n_bootstrap=50, progress=False, **options)


@pytest.fixture(scope="module")
def analysed(landscape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalsatWarning)
        return quick(blocked(landscape, 0))


def test_strata_of_other_shares_reach_every_row(analysed):
    """Truth 1.0; without the strata AIPW and the posterior had 1.8 to 2.0."""
    table = analysed.average
    assert (np.abs(table.estimate.astype(float) - 1.0) < 3 * table.se.astype(float)).all()
    assert table.se.astype(float).max() < 0.2
    assert set(table.estimand) == {"average effect"}
    assert abs(float(analysed.posterior.ate()) - 1.0) < 0.35
    np.testing.assert_allclose(sorted(set(analysed.nuisances.propensity.round(2))), [0.24, 0.7], atol=0.03)


def test_a_design_given_by_its_probabilities_says_the_same(landscape, analysed):
    study = blocked(landscape, 0)
    stated = study.replace(units=study.units.assign(e=study.design.probability), propensity="e")
    again = quick(stated)
    for row in ("difference in means", "doubly robust (AIPW)", "model's posterior"):
        assert again.average.loc[row, "estimate"] == pytest.approx(analysed.average.loc[row, "estimate"], abs=1e-8)
    assert again.autoc[0].estimate == pytest.approx(analysed.autoc[0].estimate, abs=1e-8)
    np.testing.assert_allclose(again.gates.estimate, analysed.gates.estimate, atol=1e-8)


def test_names_of_groups_and_strata_and_the_order_of_rows_change_nothing(landscape, analysed):
    study = blocked(landscape, 0)
    units = study.units.assign(
        block=study.units["block"].map({"north": 7, "south": 3}), site="village " + study.units["site"].astype(str)
    )
    again = quick(study.replace(units=units.sample(frac=1, random_state=1)))
    found, expected = again.average.estimate.astype(float), analysed.average.estimate.astype(float)
    rows = ["difference in means", "OLS with covariates"]
    np.testing.assert_allclose(found[rows], expected[rows], atol=1e-8)
    # folds and draws are random: the Monte Carlo error of AIPW over fold seeds is about .01 here
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_the_outcomes_unit_and_zero_scale_every_row(landscape, analysed):
    study = blocked(landscape, 0)
    units = study.units.assign(outcome=1e3 * study.units["outcome"] - 1e5)
    again = quick(study.replace(units=units))
    np.testing.assert_allclose(
        again.average[["estimate", "se"]].astype(float) / 1e3,
        analysed.average[["estimate", "se"]].astype(float),
        rtol=1e-5,
    )
    assert again.permutation.p_value == pytest.approx(analysed.permutation.p_value, abs=0.011)


def test_arms_swapped_change_the_sign(landscape, analysed):
    study = blocked(landscape, 0)
    again = quick(study.replace(units=study.units.assign(treatment=1 - study.units["treatment"])))
    found, expected = again.average.estimate.astype(float), analysed.average.estimate.astype(float)
    np.testing.assert_allclose(found, -expected, atol=0.05)


def test_units_of_weight_zero_are_in_no_population(landscape, analysed):
    study = blocked(landscape, 0)
    more = study.units.sample(200, random_state=0).assign(outcome=500.0)
    more.index = [f"extra {i}" for i in range(len(more))]
    more["site"] = [f"extra {i // 5}" for i in range(len(more))]
    more["block"] = ["north" if i // 5 % 2 else "south" for i in range(len(more))]
    more["treatment"] = [float(i // 10 % 2) for i in range(len(more))]
    units = pd.concat([study.units.assign(w=3.0), more.assign(w=0.0)])
    again = quick(study.replace(units=units.assign(site=units["site"].astype(str)), weights="w"))
    rows = ["difference in means", "OLS with covariates"]
    np.testing.assert_allclose(
        again.average.loc[rows, ["estimate", "se", "n", "clusters"]].astype(float),
        analysed.average.loc[rows, ["estimate", "se", "n", "clusters"]].astype(float),
        rtol=1e-8,
    )
    assert len(again.study) == len(study)


def test_an_observational_study_is_adjusted_and_says_so(landscape, tmp_path):
    """A confounder among the covariates: raw difference .57 off, adjusted about right; no permutation test."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(len(landscape))
    t = (rng.uniform(size=len(x)) < 1 / (1 + np.exp(-0.8 * x))).astype(float)
    units = landscape.units.assign(x=x, treatment=t, outcome=0.3 * t + 0.5 * x + 0.5 * rng.standard_normal(len(x)))
    found = quick(
        landscape.replace(units=units, covariates=["x"], randomised=False, strata=None, propensity=None, cluster=None)
    )
    assert found.permutation is None
    assert found.headline == "doubly robust (AIPW)"
    assert abs(found.average.loc[found.headline, "estimate"] - 0.3) < 0.12
    assert found.average.loc["difference in means", "estimate"] > 0.5
    assert "association" in found.average.loc["difference in means", "estimand"]
    assert np.ptp(found.nuisances.propensity) > 0.3
    assert 0 < found.sensitivity.robustness_value() < 1
    assert "Nobody drew the assignment" in found.verdict()
    found.write(tmp_path, resolution=960, progress=False)
    page = (tmp_path / "report.md").read_text()
    assert "observational study" in page
    assert "Robustness value" in page
    assert "Permutation test" not in page
    assert "permutation.p_value" not in found.metrics()


@pytest.mark.statistical
def test_an_encoder_trained_on_outcomes_finds_no_heterogeneity_where_none_is(landscape):
    """Features trained on the outcomes rejected in 44 % of trials at 5 %."""
    p_values = []
    for seed in range(8):
        study = blocked(landscape, seed, gap=0.0, shares=(0.5, 0.5))
        encoder = causalsat.LearnedFilters(targets="effect", random_state=0)
        learner = causalsat.DoublyRobustEffect(modifiers="img*", random_state=0)
        model = causalsat.image_model(study, learner, encoder=encoder, n_components=3)
        found = quick(study, model)
        assert found.label_free
        p_values.append(found.permutation.p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.25
    assert np.median(p_values) > 0.1


@pytest.mark.parametrize("selector", ["SelectKBest", "PLSRegression", "TargetEncoder", "SelectFromModel", "nested"])
def test_steps_that_read_outcomes_are_known(selector):
    from sklearn.compose import make_column_transformer
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.decomposition import PCA
    from sklearn.feature_selection import SelectFromModel, SelectKBest, VarianceThreshold
    from sklearn.linear_model import Lasso
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler, TargetEncoder

    from causalsat.analysis.main import is_trained_on_labels

    step = {
        "SelectKBest": SelectKBest(),
        "PLSRegression": PLSRegression(),
        "TargetEncoder": TargetEncoder(),
        "SelectFromModel": SelectFromModel(Lasso()),
        "nested": make_column_transformer((make_pipeline(PCA(), SelectKBest()), ["a"])),
    }[selector]
    images = causalsat.ImageEncoder(None, 100)
    assert is_trained_on_labels(make_pipeline(images, step, causalsat.DoublyRobustEffect()))
    plain = (StandardScaler(), VarianceThreshold(), make_column_transformer((PCA(), ["a"])))
    assert not is_trained_on_labels(make_pipeline(images, *plain, causalsat.DoublyRobustEffect()))


@pytest.mark.statistical
def test_features_selected_by_the_outcome_find_no_heterogeneity_where_none_is(landscape):
    from sklearn.feature_selection import SelectKBest, f_regression
    from sklearn.pipeline import Pipeline

    p_values = []
    for seed in range(6):
        study = blocked(landscape, seed, gap=0.0, shares=(0.5, 0.5))
        images = causalsat.image_model(study, n_components=20, covariates="ignore").steps[0]
        selected = ("chosen", SelectKBest(f_regression, k=3))
        found = quick(study, Pipeline([images, selected, ("effect", causalsat.DoublyRobustEffect(random_state=0))]))
        assert found.label_free
        p_values.append(found.permutation.p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 1 / 3
    assert np.median(p_values) > 0.1


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        ([0, 1, 2], r"TransTEE\(treatment_kind='levels'\)"),
        (["control", "cash", "goats"], "name the control, control='control'"),
        ([0.0, 0.5, 1.5], "GaussianProcessEffect"),
    ],
)
def test_what_analyse_cannot_take_is_refused_before_a_fit_with_who_can(landscape, monkeypatch, codes, says):
    def fail(*arguments, **options):
        raise AssertionError("something was fitted")

    monkeypatch.setattr("causalsat.analysis.main.crossfit_effects", fail)
    arms = np.array(codes)[np.arange(len(landscape)) % 3]
    study = landscape.replace(units=landscape.units.assign(treatment=arms), propensity=None)
    with pytest.raises(causalsat.exceptions.CausalsatError, match=says):
        quick(study)
    assert list(study.arms) == (sorted(codes) if isinstance(codes[0], str) else [])
