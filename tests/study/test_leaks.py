"""Covariates that are the treatment, are made from it, or determine it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from study_worlds import check, clean, only

LEAKS = [
    ("recoded", lambda f: 2 - f["d"], "is the treatment, as 1 for treated and 2 for control units"),
    ("dummy of control", lambda f: 1 - f["d"], "is the treatment itself"),
    ("several arms", lambda f: np.where(f["d"] == 1, 1 + f["village"] % 3, 0), "is 0 for all 150 control units"),
    ("kinds", lambda f: 2 * (f["village"] % 3) + f["d"], "for treated units only, other values for control only"),
    ("words", lambda f: np.where(f["d"] == 1, "Cash", "None"), "tells the arms apart: 'Cash' for treated units only"),
    ("an endline", lambda f: f["age"] + 100 * f["d"], "at least 118 for all treated and at most 59 for all control"),
    ("below", lambda f: f["age"] - 100 * f["d"], "at most -41 for all treated and at least 18 for all control"),
    (
        "asked of treated",
        lambda f: f["age"].where(f["d"] == 1),
        "is missing for all control units and for no treated",
    ),
]


@pytest.mark.parametrize(("make", "why"), [row[1:] for row in LEAKS], ids=[row[0] for row in LEAKS])
def test_a_covariate_that_determines_the_treatment_is_an_error(make, why):
    frame = clean()
    finding = only(check(frame.assign(z=make(frame)), covariates=["age", "z"]), "treatment leak")
    assert finding.level == "error"
    assert set(finding.data) == {"z"}
    assert why in finding.what
    assert "leave them out of covariates: z" in finding.todo


def test_covariates_that_determine_it_together():
    frame = clean()
    cash = frame["d"] * (frame["village"] % 3 == 0)
    frame = frame.assign(cash=cash, goats=frame["d"] - cash + frame["female"], other=frame["age"] ** 2)
    finding = only(check(frame, covariates=["age", "female", "cash", "goats", "other"]), "treatment leak")
    assert {"cash"} <= set(finding.data) <= {"cash", "goats", "female"}
    share = frame["d"] - 0.1 * frame["age"]
    finding = only(check(frame.assign(share=share), covariates=["age", "share", "other"]), "treatment leak")
    assert finding.data == {
        "age": "gives the treatment exactly, together with share",
        "share": "gives the treatment exactly, together with age",
    }


def test_village_means_in_many_columns_are_no_leak():
    """Sixty villages and 58 columns of their images: any assignment is nearly a sum of them."""
    frame = clean()
    images = np.random.default_rng(0).normal(size=(60, 59))[frame["village"]]
    named = pd.DataFrame(images, columns=[f"x{j}" for j in range(59)])
    assert not check(pd.concat([frame, named], axis=1), covariates="x*").about("treatment leak")


@pytest.mark.parametrize("seed", range(5))
def test_few_clusters_may_be_told_apart_by_chance(seed):
    frame = clean(seed, n_villages=8, size=40)
    rank = np.argsort(np.argsort(frame.groupby("village")["d"].first().to_numpy() + np.arange(8) * 1e-3))
    z = rank[frame["village"]] + 0.01 * frame["age"]  # villages in the order of their arm
    finding = only(check(frame.assign(z=z), covariates=["z"]), "treatment leak")
    assert finding.level == "warning"
    assert "by chance or because they are made from it: z tells the arms apart" in finding.what
    group = rank[frame["village"]] > 3  # one of the 70 ways to draw four villages of eight
    constant = check(frame.assign(z=np.where(group, frame["age"], 0)), covariates=["z"])
    assert only(constant, "treatment leak").level == "warning"


def test_columns_of_few_clusters_are_no_leak():
    """Of 100 trials of 8 villages, village dummies that are 0 in all villages of an arm are no error."""
    for seed in range(100):
        frame = clean(seed, n_villages=8, size=10)
        dummy = (np.random.default_rng(seed + 1000).random(8) < 0.3)[frame["village"]].astype(int)
        named = check(frame.assign(z=dummy), covariates=["age", "z"]).about("treatment leak")
        copied = bool((dummy == frame["d"]).all() or (dummy == 1 - frame["d"]).all())
        assert copied or not [f for f in named if f.level == "error"]


def test_the_outcome_among_the_covariates():
    frame = clean()
    finding = only(check(frame.assign(z=3 * frame["y"] - 7), covariates=["age", "z"]), "outcome leak")
    assert finding.level == "error"
    assert "z is the outcome itself" in finding.what
    baseline = frame["y"] + np.random.default_rng(0).normal(size=300)
    assert not check(frame.assign(z=baseline), covariates=["age", "z"]).about("outcome leak")
