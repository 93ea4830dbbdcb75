"""Roles of the outcome: missing, baseline, predicted; halves of a study."""

from __future__ import annotations

import numpy as np
import pytest
from study_worlds import check, clean, only, study

from causalsat import DoublyRobustEffect
from causalsat.exceptions import ColumnError, ParameterError
from causalsat.inference.average_effects import blocked_difference


def with_missing(frame, seed=0, gap=0.3):
    rng = np.random.default_rng(seed)
    seen = rng.random(len(frame)) < np.where(frame["d"] == 1, 0.9, 0.9 - gap)
    return frame.assign(y=frame["y"].where(seen))


def test_check_asks_for_a_choice_and_tests_response_by_arm_as_the_design_does():
    frame = with_missing(clean())
    finding = only(check(frame), "missing values")
    seen = frame["y"].notna().astype(float)
    expected = blocked_difference(seen, frame["d"], clusters=frame["village"])
    assert finding.level == "error"
    assert (
        f"{expected.estimate:+.3f}, p {'< 0.001' if expected.p_value < 5e-4 else f'= {expected.p_value:.3f}'}"
        in finding.what
    )
    assert "response differs between arms" in finding.what
    assert finding.data["missing"][1] == int((frame["y"].isna() & (frame["d"] == 1)).sum())
    assert "missing_outcome='weight'" in finding.todo
    assert "lee_bounds" in finding.todo


def test_a_choice_makes_it_a_note_and_without_covariates_a_warning():
    frame = with_missing(clean())
    assert only(check(frame, missing_outcome="weight"), "missing values").level == "note"
    assert only(check(frame, missing_outcome="weight", covariates=None), "missing values").level == "warning"
    assert check(frame, missing_outcome="weight").ok


def test_all_outcomes_of_an_arm_missing_stays_an_error():
    frame = clean()
    assert not check(frame.assign(y=frame["y"].where(frame["d"] == 1)), missing_outcome="weight").ok


def test_other_choices_are_refused():
    with pytest.raises(ParameterError, match="missing_outcome='drop'"):
        study(clean(), missing_outcome="drop")
    with pytest.raises(ParameterError, match="outcome_predicted=True"):
        study(clean(), outcome_labelled="age", covariates=None)


def test_fit_weights_respondents_and_removes_the_bias():
    """Response follows age in the treated arm only, and so do the outcome and the effect; the effect averages 1."""
    frame = clean(n_villages=600, size=5)
    rng = np.random.default_rng(0)
    age = rng.standard_normal(len(frame))
    y = age + frame["d"] * (1 + age) + 0.3 * rng.standard_normal(len(frame))
    seen = rng.random(len(frame)) < np.where(frame["d"] == 1, 1 / (1 + np.exp(-0.5 - 1.5 * age)), 0.8)
    frame = frame.assign(age=age, y=y.where(seen))
    own = study(frame, covariates=["age"], missing_outcome="weight")
    model = own.fit(DoublyRobustEffect())
    naive = frame.loc[seen].groupby("d")["y"].mean()
    assert naive[1] - naive[0] > 1.5
    found = float(model.effect(own.X.drop(columns="geometry")).ate())
    assert abs(found - 1) < 0.12


def test_the_baseline_outcome_is_a_covariate_and_the_check_says_so():
    frame = clean()
    frame["y0"] = frame["y"] + np.random.default_rng(0).normal(size=len(frame))
    own = study(frame, baseline_outcome="y0")
    assert own.covariates == ("y0", "age", "female")
    assert own.replace(name="again").covariates == own.covariates
    assert own.replace(baseline_outcome=None).covariates == ("age", "female")
    note = only(own.check(), "baseline outcome")
    assert f"{np.corrcoef(frame['y'], frame['y0'])[0, 1]:.2f}" in note.what
    with pytest.raises(ColumnError, match="both outcome and baseline_outcome"):
        study(frame, baseline_outcome="y")


def test_a_predicted_outcome_is_announced():
    frame = clean()
    frame["survey"] = frame["y"].where(frame.index % 3 == 0)
    assert only(check(frame, outcome_predicted=True), "predicted outcome").level == "warning"
    own = study(frame, outcome_predicted=True, outcome_labelled="survey")
    finding = only(own.check(), "predicted outcome")
    assert finding.level == "note"
    assert finding.data[1] == int((frame["survey"].notna() & (frame["d"] == 1)).sum())
    assert own.replace(name="again").roles["outcome_labelled"] == "survey"
    assert np.isnan(own.labelled).sum() == 200
    with pytest.raises(ColumnError, match="outcome labelled and a covariate"):
        study(frame, outcome_predicted=True, outcome_labelled="survey", covariates=["survey"])


def test_split_keeps_clusters_whole_balances_cells_and_names_the_halves():
    frame = clean()
    frame["district"] = frame["village"] // 20
    first, second = study(frame, strata="district").split(0.5, seed=3)
    assert first.name == "study, analysis half"
    assert second.name == "study, held-out half"
    assert "seed 3" in second.description
    assert not set(first.groups) & set(second.groups)
    assert len(first) + len(second) == len(frame)
    sites = frame.groupby("village")[["d", "district"]].first()
    held = sites.index.isin(second.groups)
    share = sites.assign(held=held).groupby(["district", "d"])["held"].agg(["sum", "size"])
    assert (np.abs(share["sum"] - share["size"] / 2) <= 0.5).all()


def test_split_does_not_depend_on_the_order_of_rows_and_follows_the_seed():
    frame = clean()
    held = study(frame).split(0.3, seed=1)[1]
    shuffled = study(frame.sample(frac=1.0, random_state=0)).split(0.3, seed=1)[1]
    assert set(held.units.index) == set(shuffled.units.index)
    assert set(held.units.index) != set(study(frame).split(0.3, seed=2)[1].units.index)
    assert held.n_clusters == 18


def test_pairs_go_to_a_half_as_a_whole():
    frame = clean()
    order = frame.groupby("d")["village"].unique()
    pair = {v: i for arm in (0, 1) for i, v in enumerate(order[arm])}
    frame["pair"] = frame["village"].map(pair)
    first, second = study(frame, strata="pair").split(0.4, seed=0)
    assert not set(first.strata) & set(second.strata)
    assert len(set(second.strata)) == 12


def test_split_refuses_what_it_cannot_draw():
    with pytest.raises(ParameterError, match=r"share=1\.5"):
        study(clean()).split(1.5)


def test_fit_takes_the_corrected_outcome():
    """Predictions halve the effect of 1; the model's average is that of the measured outcome."""
    frame = clean(n_villages=400)
    rng = np.random.default_rng(0)
    y = frame["d"] + 0.5 * rng.standard_normal(len(frame))
    frame = frame.assign(y=0.5 * y, survey=y.where(rng.random(len(frame)) < 0.5))
    own = study(frame, covariates=["age"], outcome_predicted=True, outcome_labelled="survey")
    X = own.X.drop(columns="geometry")
    assert abs(float(own.fit(DoublyRobustEffect()).effect(X).ate()) - 1) < 0.12
    plain = own.replace(outcome_predicted=False, outcome_labelled=None).fit(DoublyRobustEffect())
    assert float(plain.effect(X).ate()) < 0.6
