"""The main job with missing and with predicted outcomes: bias removed, both numbers shown, in the report too."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat.analysis.measured import measure
from causalsat.evaluation import compliance, lee_bounds, prediction_powered
from causalsat.exceptions import DataError
from causalsat.simulate import satellite_trial


@pytest.fixture(scope="module")
def trial():
    return satellite_trial("smooth", n_units=1600, n_sites=150, size_px=512, seed=5, tau_sd=0.8)


def analysis_of(study, **options):
    model = causalsat.image_model(
        study, causalsat.DoublyRobustEffect(modifiers="img*", random_state=0), n_components=5
    )
    return causalsat.analyse(study, model, n_permutations=99, progress=False, **options)


@pytest.fixture(scope="module")
def attrition(trial):
    """Treated units of places with a large effect answer rarely."""
    units, study = trial.units, trial.study()
    z = (units["tau"] - units["tau"].mean()) / units["tau"].std()
    chance = np.where(study.treatment == 1, 1 / (1 + np.exp(-0.8 + 1.5 * z)), 0.85)
    seen = np.random.default_rng(0).random(len(units)) < chance
    column = study.roles["outcome"]
    lost = study.units.assign(**{column: study.units[column].where(seen)})
    return study.replace(units=lost, missing_outcome="weight"), seen


def test_missing_outcomes_without_a_choice_are_refused_before_any_fit(attrition):
    study, _ = attrition
    with pytest.raises(DataError, match="missing_outcome='weight'"):
        causalsat.analyse(study.replace(missing_outcome=None), progress=False)


def test_weights_remove_the_bias_of_attrition_along_images(trial, attrition, tmp_path):
    study, seen = attrition
    found = analysis_of(study)
    table, truth = found.average, trial.truth["ate"]
    naive = table.loc["respondents as they are"]
    assert naive["estimate"] < truth - 2.5 * naive["se"]
    for name in ("doubly robust (AIPW)", "difference in means", "model's posterior"):
        assert abs(table.loc[name, "estimate"] - truth) < 2.6 * table.loc[name, "se"]
    assert found.headline == "doubly robust (AIPW)"
    assert np.corrcoef(found.crossfit[0].tau, trial.units["tau"])[0, 1] > 0.6
    assert len(found.crossfit[0].tau) == len(study)
    assert found.permutation.p_value < 0.05
    bounds = lee_bounds(study.y, study.treatment, groups=study.groups)
    assert (found.lee.lower, found.lee.upper) == (bounds.lower, bounds.upper)
    found.write(tmp_path, resolution=960, progress=False)
    report = (tmp_path / "report.md").read_text()
    assert f"missing for {(~seen).sum():,} of 1,600 units" in report
    assert f"{bounds.lower:.3f} and {bounds.upper:.3f}" in report
    assert found.metrics()["lee_bounds.lower"] == pytest.approx(bounds.lower)


def test_units_without_an_outcome_train_nothing(attrition):
    """Whatever stands in the place of a missing outcome, the results are the same."""
    from causalsat.analysis.measured import measure

    study, seen = attrition
    used = measure(study, lambda: np.zeros((len(study), 1)), n_folds=5, random_state=0)
    for train, test in used.folds([5], [0])[0].split(study.X, used.y, study.groups):
        assert seen[train].all()
        assert not seen[test].all()
    assert used.study.n_units == seen.sum()
    weights = used.study.weights
    t = used.study.treatment
    assert abs(np.average(t, weights=weights) - study.treatment.mean()) < 0.03


def test_predicted_outcomes_are_corrected_and_both_are_shown(trial, tmp_path):
    rng = np.random.default_rng(1)
    study = trial.study()
    y = study.y
    predicted = 0.4 * y + 0.2 * rng.standard_normal(len(y))
    seen = rng.random(len(y)) < 0.4
    units = study.units.assign(predicted=predicted, survey=np.where(seen, y, np.nan))
    roles = {"outcome": "predicted", "outcome_predicted": True, "outcome_labelled": "survey"}
    own = study.replace(units=units, **roles)
    found = analysis_of(own)
    expected = prediction_powered(predicted, units["survey"].to_numpy(), own.treatment, own.groups, strata=own.strata)
    table, truth = found.average, trial.truth["ate"]
    assert found.headline == table.index[0] == "prediction-powered"
    assert table["estimate"].iloc[0] == pytest.approx(expected.estimate)
    assert table["se"].iloc[0] == pytest.approx(expected.se)
    assert table.loc["predictions, uncorrected", "upper"] < truth
    corrected = table.drop(index="predictions, uncorrected")
    assert (np.abs(corrected["estimate"] - truth) < 3 * corrected["se"]).all()
    slope = np.polyfit(trial.units["tau"], found.posterior.mean(), 1)[0]
    assert 0.6 < slope < 1.4  # effects on the outcome's scale, not on the shrunk one's
    found.write(tmp_path, resolution=960, progress=False)
    report = (tmp_path / "report.md").read_text()
    assert f"The predictions as they are give {expected.uncorrected.estimate:.3f}" in report


def test_the_baseline_outcome_sharpens_the_adjusted_row_and_the_report_says_so(trial):
    from causalsat.analysis.outcome_words import outcome_words

    study = trial.study()
    rng = np.random.default_rng(2)
    base = study.y - study.treatment * trial.units["tau"].to_numpy() + 0.3 * rng.standard_normal(len(study))
    own = study.replace(units=study.units.assign(before=base), baseline_outcome="before")
    found = analysis_of(own)
    assert found.average.loc["OLS with covariates", "se"] < 0.7 * found.average.loc["difference in means", "se"]
    assert any("ANCOVA" in text for text in outcome_words(found))


def test_the_report_names_the_half(trial, tmp_path):
    half = trial.study().split(0.5, seed=0)[1]
    analysis_of(half).write(tmp_path, resolution=960, progress=False)
    report = (tmp_path / "report.md").read_text()
    assert report.splitlines()[0].endswith("held-out half")
    assert "held-out share 0.5, seed 0" in report


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::causalsat.exceptions.CausalsatWarning")
def test_complier_effects_are_of_weighted_respondents_and_of_corrected_outcomes():
    """Respondents as they are, and predictions as they are, have an error of more than a third of the effect."""
    errors, n = [], 640
    site = np.repeat(np.arange(80), 8)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        assigned = (rng.permutation(80) % 2)[site]
        x, u, noise = rng.standard_normal((3, n))
        always, complier = u < -1.3, (u >= -1.3) & (u < 0.5)
        taken = (always | (complier & (assigned == 1))).astype(int)
        effect = 1 + 0.8 * x
        y = x + 0.5 * u + taken * effect + 0.4 * rng.standard_normal(80)[site] + noise
        answered = rng.random(n) < 1 / (1 + np.exp(-(1 + 1.2 * x * (1 - 2 * assigned))))
        table = pd.DataFrame({"y": np.where(answered, y, np.nan), "z": assigned, "d": taken, "x": x, "site": site})
        table["lon"], table["lat"] = 30 + site / 100, 1.0
        table["map"] = 0.6 * y + 0.5 * rng.standard_normal(n)
        table["survey"] = np.where(rng.random(n) < 0.4, y, np.nan)
        roles = {"treatment": "z", "take_up": "d", "cluster": "site", "covariates": ["x"], "lon": "lon", "lat": "lat"}
        missing = causalsat.Study(table, outcome="y", missing_outcome="weight", **roles)
        predicted = causalsat.Study(table, outcome="map", outcome_predicted=True, outcome_labelled="survey", **roles)
        found = [
            measure(study, lambda x=x: x[:, None], n_folds=5, random_state=0).compliance().complier.estimate
            for study in (missing, predicted)
        ]
        seen = compliance(y[answered], taken[answered], treatment=assigned[answered], groups=site[answered])
        as_it_is = compliance(table["map"], taken, treatment=assigned, groups=site)
        estimates = [*found, seen.complier.estimate, as_it_is.complier.estimate]
        errors.append(np.array(estimates) - effect[complier].mean())
    error, se = np.mean(errors, axis=0), np.std(errors, axis=0) / np.sqrt(12)
    assert (np.abs(error[:2]) < 3 * se[:2]).all()
    assert (error[2:] < -0.33).all()
