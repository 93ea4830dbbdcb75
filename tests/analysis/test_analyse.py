"""The main job end to end on small simulated trials, with the quick estimator."""

import json
import re
import warnings

import numpy as np
import pytest
from shapely import Point

import causalsat
from causalsat.analysis import outputs
from causalsat.analysis.modifiers import BesideImages, beside_images
from causalsat.analysis.outputs import say_plan
from causalsat.analysis.places import effects_at_places
from causalsat.encoders.encode_once import encode_once
from causalsat.encoders.places import PLACE
from causalsat.evaluation import rate
from causalsat.exceptions import DataError, DataWarning, IgnoredWarning, MapWarning, ParameterError
from causalsat.simulate import satellite_trial


def analysis_of(variant, **settings):
    trial = satellite_trial(variant, n_units=900, n_sites=90, size_px=512, **settings)
    study = trial.study()
    model = causalsat.image_model(
        study, causalsat.DoublyRobustEffect(modifiers="img*", random_state=0), n_components=5
    )
    found = causalsat.analyse(study, model, fold_seeds=(0, 4), n_permutations=199, progress=False)
    return trial, found


@pytest.fixture(scope="module")
def smooth():
    return analysis_of("smooth", seed=3, tau_sd=0.8)


@pytest.fixture(scope="module")
def written(smooth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return folder, smooth[1].write(folder, resolution=480, progress=False)


def test_averages_agree_with_the_truth_and_with_each_other(smooth):
    trial, found = smooth
    table = found.average
    assert list(table.index) == [
        "difference in means",
        "OLS with covariates",
        "doubly robust (AIPW)",
        "model's posterior",
    ]
    assert (np.abs(table.estimate - trial.truth["ate"]) < 3.5 * table.se).all()
    assert table.se.max() < 2.5 * table.se.min()


def test_heterogeneity_is_found_and_ranked_right(smooth):
    trial, found = smooth
    assert found.permutation.p_value < 0.02
    assert found.verdict().startswith("The effect varies with what the images show (permutation")
    held_out = found.crossfit[0].tau
    assert np.corrcoef(held_out, trial.units["tau"])[0, 1] > 0.7
    assert np.corrcoef(found.places.mean(), trial.places["tau"])[0, 1] > 0.75
    assert len(found.autoc) == len(found.qini) == 2
    assert found.autoc[0].ratio > 2
    again = rate(held_out, trial.units["tau"], groups=trial.units["site"])  # true effects instead of noisy scores
    assert abs(found.autoc[0].estimate - again.estimate) < 4 * found.autoc[0].se


def test_further_places_off_the_imagery_are_left_out_with_a_warning(smooth, tmp_path):
    trial, found = smooth
    west = trial.places.total_bounds[0] - 1e5
    off = trial.places.assign(geometry=trial.places.geometry.where(trial.places.index > 4, Point(west, 0.0)))
    study = found.study.replace(places=off)
    with pytest.warns(DataWarning, match=rf"5 of {len(off)} further places .*left out, such as 0, 1, 2"):
        kept, posterior, support = effects_at_places(found.model, study)
    assert list(kept.places.index) == list(range(5, len(off)))
    np.testing.assert_allclose(posterior.mean(), found.places.mean()[5:], rtol=1e-6)
    np.testing.assert_allclose(support, found.places_support[5:])


def test_outputs_are_all_there_and_the_metrics_are_the_reports(smooth, written):
    folder, paths = written
    names = {path.name for path in paths}
    assert {"report.html", "effects.tif", "effects.png", "toc.png", "map.html", "metrics.json", "places.csv"} <= names
    assert all(path.stat().st_size > 0 for path in paths)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert smooth[1].metrics() == {k: v for k, v in metrics.items() if not k.startswith("map.")}
    assert all(not isinstance(value, dict) for value in metrics.values())
    pages = [(folder / f"report.{ending}").read_text() for ending in ("html", "md", "tex")]
    for key in (
        "ate.difference_in_means.estimate",
        "autoc.estimate",
        "qini.se",
        "blp.slope",
        "gates.group5.estimate",
        "explained_heterogeneity.upper",
    ):
        assert all(f"{metrics[key]:.4f}" in page for page in pages), key
    assert metrics["study.n_units"] == 900
    assert len(metrics["autoc_ratios"]) == 2
    last = metrics["autoc_ratios"][1], metrics["qini_ratios"][1]
    assert f"| 4 | {last[0]:.2f} | {last[1]:.2f} |" in pages[1]  # the second fold seed


def test_report_is_one_accessible_file(written):
    page = (written[0] / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) >= 6
    assert all(re.search(r'alt="[^"]+"', image) for image in images)
    assert '<html lang="en">' in page
    anchors = re.findall(r'<a href="#([^"]+)"', page)
    assert anchors
    assert all(f'id="{anchor}"' in page for anchor in anchors)


def test_saved_model_gives_the_same_effects(smooth, written):
    _, found = smooth
    model = causalsat.load(written[0] / "model.safetensors")
    np.testing.assert_array_equal(causalsat.effect(model, found.study.X).draws, found.posterior.draws)


def test_without_heterogeneity_report_and_map_say_so(tmp_path):
    _, found = analysis_of("none", seed=5)
    assert found.permutation.p_value > 0.05
    assert "not distinguishable from zero" in found.verdict()
    found.write(tmp_path, resolution=960, progress=False)
    assert "not distinguishable from zero" in (tmp_path / "report.html").read_text()
    assert "not distinguishable" in (tmp_path / "map.html").read_text()
    import rasterio

    with rasterio.open(tmp_path / "effects.tif") as raster:
        assert "not distinguishable" in " ".join(raster.tags().values())


def test_bad_studies_are_refused_before_anything_is_fitted():
    study = satellite_trial("smooth", n_units=200, n_sites=40, size_px=384, seed=0).study()
    one_arm = study.replace(units=study.units.assign(treatment=1))
    with pytest.raises(DataError, match="treatment"):
        causalsat.analyse(one_arm, progress=False)
    with pytest.raises(ParameterError, match="no imagery"):
        causalsat.image_model(study.replace(imagery=None))
    with pytest.raises(ParameterError, match="'adjust', 'modify' or 'ignore'"):
        causalsat.image_model(study, covariates="yes")


def test_folds_of_a_buffered_splitter():
    study = satellite_trial("smooth", n_units=240, n_sites=40, size_px=320, seed=5).study()
    model = causalsat.image_model(study, causalsat.DoublyRobustEffect(n_splits=2, random_state=0), n_components=2)
    cv = causalsat.evaluation.SpatialBlockCV(1_500, n_splits=2, buffer_m=300)
    run = {"cv": cv, "n_folds": 2, "n_permutations": 9, "n_bootstrap": 5, "progress": False}
    found = causalsat.analyse(study, model, fold_seeds=(0, 1), **run)
    assert cv.random_state == 0
    for seed, effects in zip((0, 1), found.crossfit, strict=True):
        own = causalsat.evaluation.SpatialBlockCV(1_500, n_splits=2, buffer_m=300, random_state=seed)
        splits = list(own.split(study.X, groups=study.groups))
        assert all((effects.fold[test] == k).all() for k, (_, test) in enumerate(splits))
        run = {"design": study.design, "cv": own, "progress": False}
        with encode_once(study.X):  # filters are drawn from the images of all units
            alone = causalsat.evaluation.crossfit_effects(model, study.X, study.y, **run)
        np.testing.assert_array_equal(alone.tau, effects.tau)


def test_default_model_uses_the_studys_chip_size():
    study = satellite_trial("smooth", n_units=200, n_sites=40, size_px=384, seed=0).study()
    assert causalsat.image_model(study).named_steps["images"].size_m == 960
    assert causalsat.image_model(study.replace(chip_size_m=None)).named_steps["images"].size_m == 32 * 30
    assert causalsat.image_model(study, size_m=[480, 960]).named_steps["images"].size_m == [480, 960]


@pytest.mark.filterwarnings("ignore:the sampler may not have converged")  # short chains
def test_coordinates_find_a_trend_that_the_images_do_not_show(tmp_path):
    trial = satellite_trial("none", n_units=900, n_sites=90, size_px=448, seed=7)
    east = trial.units.geometry.x
    tau = 0.4 + 1.5 * (east - east.mean()) / east.std()
    units = trial.units.assign(outcome=trial.units.outcome + trial.units.treatment * (tau - trial.units.tau))
    study = trial.study()
    study = study.replace(units=study.units.assign(outcome=units.outcome))
    model = causalsat.image_model(study, n_components=4, coordinates=True)
    model.set_params(effect__n_draws=60, effect__n_tune=60, effect__n_chains=1)
    found = causalsat.analyse(study, model, n_permutations=49, progress=False)
    assert np.corrcoef(found.crossfit[0].tau, tau)[0, 1] > 0.9
    assert found.permutation.p_value == 1 / 50  # tested along the coordinates as well
    assert found.verdict().startswith("The effect varies with what the images show or the place's coordinates")
    found.write(tmp_path / "report", resolution=960, progress=False)
    assert "outside the region of the trial the map continues" in (tmp_path / "report" / "report.md").read_text()
    _, estimator = found.model.steps[-1]
    slope = estimator.draws_["interaction"].mean(axis=0)
    assert np.argmax(np.abs(slope)) == list(estimator.modifiers_).index(4)  # east, after four components
    mapped = causalsat.map_effects(
        found.model, study.imagery, trial.region, 480, tmp_path / "effects.tif", progress=False
    )
    import rasterio

    with rasterio.open(mapped.path) as raster:
        effect = raster.read(1)
    column = np.broadcast_to(np.arange(effect.shape[1]), effect.shape)
    seen = np.isfinite(effect)
    assert np.corrcoef(effect[seen], column[seen])[0, 1] > 0.9


@pytest.mark.filterwarnings("ignore:the sampler may not have converged")  # short chains
def test_smooth_coordinates_find_a_trend_that_bends():
    trial = satellite_trial("none", n_units=900, n_sites=90, size_px=448, seed=7)
    place = trial.units.geometry
    east, north = ((v - v.mean()) / v.std() for v in (place.x, place.y))
    tau = 0.4 + 0.56 * (east**2 - 1) + 0.5 * north
    study = trial.study()
    outcome = trial.units.outcome + trial.units.treatment * (tau - trial.units.tau)
    study = study.replace(units=study.units.assign(outcome=outcome))
    agreement, held = {}, {}
    for coordinates in (True, "smooth"):
        model = causalsat.image_model(study, n_components=6, coordinates=coordinates)
        study.fit(model.set_params(effect__n_draws=100, effect__n_tune=100, effect__n_chains=1))
        found = causalsat.effect(model, study.X)
        lower, upper = found.interval(0.9).T
        agreement[coordinates] = np.corrcoef(found.mean(), tau)[0, 1]
        held[coordinates] = np.mean((lower < tau) & (tau < upper))
    assert agreement["smooth"] > 0.85 > agreement[True] + 0.1, agreement
    assert held["smooth"] > 0.85 > held[True] + 0.1, held
    estimator = model.named_steps["effect"]
    scale = dict(zip(estimator.feature_names_in_, estimator.prior_scale_, strict=False))
    order = ["img0", "img1", "east", "north", "wave_e0n2", "wave_e1n1", "wave_e2n0", "img2", "img3", "img4", "img5"]
    np.testing.assert_allclose([scale[name] for name in order], 1 / np.arange(1, 12))
    assert scale["wave_e3n0"] == pytest.approx(1 / 15)
    assert estimator.prior == "horseshoe"
    assert beside_images(model, study.covariates).coordinates == PLACE
    one = causalsat.image_model(study, n_components=1, coordinates="smooth")  # no component between the waves
    study.fit(one.set_params(effect__n_draws=10, effect__n_tune=50, effect__n_chains=1))


@pytest.mark.filterwarnings("ignore:the sampler may not have converged")  # short chains
def test_order_of_the_prior_with_coordinates():
    study = satellite_trial("smooth", n_units=200, n_sites=40, size_px=384, seed=0).study()
    estimator = causalsat.image_model(study, n_components=4, coordinates=True).set_params(
        effect__n_draws=10, effect__n_tune=50, effect__n_chains=1
    )
    fitted = study.fit(estimator).named_steps["effect"]
    scale = dict(zip(fitted.feature_names_in_, fitted.prior_scale_, strict=False))
    order = ["img0", "img1", "east", "north", "img2", "img3"]
    np.testing.assert_allclose([scale[name] for name in order], 1 / np.arange(1, 7))
    assert {fitted.feature_names_in_[j] for j in fitted.modifiers_} == set(order)
    assert causalsat.image_model(study).named_steps["effect"].ordered == "img*"


@pytest.mark.filterwarnings("ignore:the sampler may not have converged")  # short chains
def test_covariates_among_the_modifiers_are_found_or_left_alone():
    trial = satellite_trial("none", n_units=1200, n_sites=110, size_px=448, seed=8)
    units, study = trial.units, trial.study()
    tau = 0.4 + 1.0 * (units.female - units.female.mean())
    study = study.replace(
        units=study.units.assign(outcome=units.outcome + units.treatment * (tau - units.tau)),
        covariates=("age", "female", "household_size"),
    )
    model = causalsat.image_model(study, n_components=4, covariates="modify", coordinates=True)
    model.set_params(effect__n_draws=100, effect__n_tune=100, effect__n_chains=1)
    fitted = study.fit(model).named_steps["effect"]
    names = [fitted.feature_names_in_[j] for j in fitted.modifiers_]
    slope = dict(zip(names, fitted.draws_["interaction"].mean(axis=0), strict=True))
    assert set(names) == {f"img{k}" for k in range(4)} | {"east", "north", "age", "female", "household_size"}
    others = np.abs([value for name, value in slope.items() if name != "female"])
    error = 2 * 0.97 / np.sqrt(len(units))  # of a slope in half the units treated, unshrunken
    assert abs(slope["female"] - units.female.std()) < 3 * error  # the truth, per standard deviation
    assert np.median(others) < 0.5 * error
    assert others.max() < 3 * error
    scale = dict(zip(fitted.feature_names_in_, fitted.prior_scale_, strict=False))
    assert [scale[name] for name in ("age", "female", "household_size")] == [1, 1, 1]
    assert beside_images(model, study.covariates) == BesideImages(
        ("east", "north"), ("age", "female", "household_size")
    )
    adjusted = causalsat.image_model(study, n_components=4)
    adjusted.set_params(effect__n_draws=10, effect__n_tune=50, effect__n_chains=1)
    assert beside_images(study.fit(adjusted), study.covariates) == BesideImages((), ())


def test_the_prior_is_the_horseshoe_with_covariates_and_coordinates_only():
    study = satellite_trial("smooth", n_units=200, n_sites=40, size_px=384, seed=0).study()
    priors = {
        (covariates, coordinates): causalsat.image_model(study, covariates=covariates, coordinates=coordinates)
        .named_steps["effect"]
        .prior
        for covariates in ("adjust", "modify", "ignore")
        for coordinates in (False, True)
    }
    assert [key for key, prior in priors.items() if prior == "horseshoe"] == [("modify", True)]


def test_without_bokeh_all_but_the_page_is_written(smooth, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bokeh", None)  # as where it is not installed
    with pytest.warns(IgnoredWarning, match=r"map.html"):
        paths = smooth[1].write(tmp_path, resolution=960, progress=False)
    names = {path.name for path in paths}
    assert {"report.html", "effects.tif", "effects.png", "metrics.json", "places.csv", "model.safetensors"} <= names
    assert "map.html" not in names
    assert "map.html" not in (tmp_path / "report.html").read_text()


def test_an_analysis_prints_short_and_is_html_with_its_numbers(smooth):
    _, found = smooth
    estimate = found.average.loc["difference in means", "estimate"]
    text = repr(found)
    assert len(text.splitlines()) < 20
    assert f"{estimate:.4g}" in text
    assert found.verdict() in text
    html = found._repr_html_()
    assert f"{estimate:.3f}" in html
    assert html.count("<svg") == 3
    assert html.count("<caption>") == 2
    assert f"{estimate:.3f}" in found.to_latex()
    assert "| difference in means |" in found.to_markdown()


def test_an_analysis_draws_four_figures_in_one_and_stands_beside_others(smooth):
    import matplotlib.pyplot as plt

    from causalsat.report import compare_models

    _, found = smooth
    axes = found.plot()
    assert axes.shape == (2, 2)
    assert all(ax.has_data() for ax in axes.ravel())
    plt.close(axes[0, 0].figure)
    table = compare_models({"a": found, "b": found}, rows={"difference in means": "Grant"}).to_dataframe()
    assert table.loc["Grant", "a"] == table.loc["Grant", "b"]
    assert table.loc["Clusters"].tolist() == ["90", "90"]


def test_a_long_map_is_said_before_it_begins(smooth, monkeypatch):
    _, found = smooth
    model, imagery = found.model, found.study.imagery
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_plan(model, imagery, None, 960.0, None)  # few cells
        monkeypatch.setattr(outputs, "MANY_CELLS", 100)
        say_plan(model, imagery, None, None, None)
        say_plan(model, imagery, None, 960.0, None)  # many, but quick
    monkeypatch.setattr(outputs, "LONG_HOURS", 0.0)
    with pytest.warns(MapWarning, match=r"a map of 256 cells of 960 m takes about \d.*of 1,536 m"):
        say_plan(model, imagery, None, 960.0, None)
