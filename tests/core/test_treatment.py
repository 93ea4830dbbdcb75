"""Coding of treatments: labels before codes, and advice that cannot pool arms, drop the control or turn the sign."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import causalsat
from causalsat import VLUCI, BayesianLinearEffect, DoublyRobustEffect, GaussianProcessEffect, TransTEE
from causalsat.core import inputs
from causalsat.core.treatment import arm_names, code_treatment
from causalsat.exceptions import DataError, TreatmentError, TreatmentWarning

CODED = [
    ("labels before codes", [0, 1, 1, 0], {0: "Treatment", 1: "Control"}, [1, 0, 0, 1]),
    ("labels of one arm left by a filter", [0, 0], {0: "Treatment", 1: "Control"}, [1, 1]),
    ("codes of Stata doubles", [0.0, 1.0, np.nan], {0: "Treatment group", 1: "control group"}, [1, 0, np.nan]),
    ("yes and no, reversed", [0, 1], {0: "Yes", 1: "No"}, [1, 0]),
    ("labels that agree", [0, 1], {0: "Control", 1: "Treatment"}, [0, 1]),
    ("a label that agrees and one unknown", [0, 1], {0: "Control", 1: "Cash grant"}, [0, 1]),
    ("unknown labels", [0, 1], {0: "A", 1: "B"}, [0, 1]),
    ("no treatment at 0", [0, 1], {0: "No treatment", 1: "Grant"}, [0, 1]),
    ("codes 1 and 2 with labels", [1, 2], {1: "Treatment", 2: "Control"}, [1, 0]),
    ("one word", ["Treatment", "Treatment"], None, [1, 1]),
]


@pytest.mark.parametrize(("values", "labels", "coded"), [c[1:] for c in CODED], ids=[c[0] for c in CODED])
def test_labels_decide(values, labels, coded):
    np.testing.assert_array_equal(code_treatment(pd.Series(values), labels=labels), coded)


REVERSED = [
    {0: "Treatment"},
    {1: "Control"},
    {0: "Cash treatment", 1: "Control villages"},
    {0: "Treatment A", 1: "Treatment B"},
    {1: "No treatment"},
]


@pytest.mark.parametrize("labels", REVERSED, ids=str)
def test_codes_that_labels_contradict_are_refused_until_treated_says_which(labels):
    values = pd.Series([0, 1, 1], name="arm")
    with pytest.raises(TreatmentError, match=r"labels say the reverse.*treated=0 or treated=1"):
        code_treatment(values, labels=labels)
    np.testing.assert_array_equal(code_treatment(values, treated=0, labels=labels), [1, 0, 0])
    np.testing.assert_array_equal(code_treatment(values, treated=1, labels=labels), [0, 1, 1])


ADVICE = [
    ("two words", ["cash", "none"], None, ["treated='cash' or treated='none'", "sign"], ["isin"]),
    ("a word for control", ["cash", "control"], None, ["treated='cash';"], ["treated='control'"]),
    ("arms", ["cash", "goat", "control"], None, ["isin(['control', arm])", "in neither"], ["'cash', 'goat'])"]),
    ("arms without a word", ["cash", "goat", "nil"], "cash", ["isin([control, 'cash'])", "one of"], ["'goat'])"]),
    ("codes", [0, 1, 2], 2, ["isin([control, 2])", "control is one of 0, 1"], ["isin([2, 0])", "isin([2, 1])"]),
    ("doses", [0, 0.5, 2.0], 2.0, ["leave treated= out", "GaussianProcessEffect"], ["isin", "two arms"]),
]


@pytest.mark.parametrize(("values", "treated", "said", "unsaid"), [a[1:] for a in ADVICE], ids=[a[0] for a in ADVICE])
def test_advice_keeps_the_control_and_leaves_the_sign_to_the_codebook(values, treated, said, unsaid):
    with pytest.raises(TreatmentError) as caught:
        code_treatment(pd.Series(values, name="d"), treated)
    for piece in said:
        assert piece in caught.value.todo, caught.value.todo
    for piece in unsaid:
        assert piece not in caught.value.todo, caught.value.todo


@pytest.mark.parametrize("model", [DoublyRobustEffect(), BayesianLinearEffect(), GaussianProcessEffect(), TransTEE()])
def test_estimators_do_not_guess_which_of_two_codes_is_treated(model):
    X = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(TreatmentError, match=r"== 2.* if 2 means treated, .*== 1.* if 1 does; the codebook"):
        model.fit(X, X[:, 0], treatment=1 + np.arange(60) % 2)


def test_several_arms_are_never_pooled_and_doses_get_estimators_of_doses():
    with pytest.raises(TreatmentError) as arms:
        inputs.check_treatment([0, 1, 2, 0], 4, binary=True)
    assert "leave out the others" in arms.value.todo
    assert "TransTEE(treatment_kind='levels')" in arms.value.todo
    assert "==" not in arms.value.todo
    with pytest.raises(TreatmentError) as doses:
        inputs.check_treatment([0, 0.25, 2.5, 1], 4, binary=True)
    assert "GaussianProcessEffect" in doses.value.todo
    assert "arm" not in doses.value.todo
    with pytest.raises(DataError, match=r"the treatment holds 'cash'.*units of neither as missing"):
        inputs.check_treatment(["cash", "none"], 2, binary=True)


def test_pooling_is_what_the_advice_avoids():
    """Arms with effects 0, 1 and 0.5: coded as the arm that is kept against control, the effect is 1, pooled 0.75."""
    rng = np.random.default_rng(0)
    arm = np.arange(3000) % 3
    X, y = rng.normal(size=(3000, 2)), np.array([0.0, 0.5, 1.0])[arm] + 0.3 * rng.normal(size=3000)
    keep = np.isin(arm, [0, 2])
    kept = DoublyRobustEffect(random_state=0).fit(X[keep], y[keep], treatment=(arm[keep] == 2).astype(int))
    assert float(kept.effect(X).ate()) == pytest.approx(1.0, abs=0.05)


def test_arms_are_codes_that_all_have_a_label_of_words():
    labels = {0: "Control", 1: "Cash", 2: "Goats"}
    assert arm_names(pd.Series([0, 1, 2, np.nan]), labels) == labels
    assert arm_names(pd.Series([0, 1, 0]), labels) == {}
    assert arm_names(pd.Series([0, 1, 2, 3]), labels) == {}
    assert arm_names(pd.Series([0, 1, 2]), {0: "0", 1: "50", 2: "100 %"}) == {}


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_arms_that_are_words_are_their_own_names(dtype):
    words = pd.Series(["goats", "control", "cash", None, "cash"], dtype=dtype)
    assert arm_names(words, None) == {"cash": "cash", "control": "control", "goats": "goats"}
    assert arm_names(pd.Series(["control", "cash"], dtype=dtype), None) == {}
    assert arm_names(pd.Series(["0", "1", "2"], dtype=dtype), None) == {}
    assert arm_names(pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"])), None) == {}


# ---------------------------------------------------------------------- codes of arms where a dose is expected
OF_DOSES = [
    kind
    for kind in (getattr(causalsat, name) for name in causalsat.__all__)
    if isinstance(kind, type) and issubclass(kind, causalsat.base.EffectEstimator) and not kind._binary_treatment
]


def said_of(treatment, kind=BayesianLinearEffect, **options):
    """Warnings of the treatment when an estimator checks its units."""
    n = len(treatment)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = kind(**options)
        model._dosage = model._table = None
        model._check_fit(np.arange(2.0 * n).reshape(n, 2), np.arange(n), treatment, None, None, None)
    return [str(item.message) for item in caught if issubclass(item.category, TreatmentWarning)]


@pytest.mark.parametrize("kind", OF_DOSES, ids=lambda kind: kind.__name__)
def test_three_codes_of_arms_are_not_taken_for_doses_without_a_word(kind):
    (said,) = said_of(np.arange(60) % 3, kind, **kind._contract_parameters)
    assert "0, 1, 2, which are taken for doses: 2 is as far above 1 as 1 is above 0" in said
    assert "leave out the others (counted as control they would bias the effect)" in said
    assert "astype" not in said  # no recoding, which could pool arms


def test_amounts_are_told_from_codes_where_their_numbers_say_so():
    assert len(OF_DOSES) >= 6
    assert said_of(1 + np.arange(60) % 4) != []
    three = np.arange(60) % 3
    for amounts in (np.arange(60) % 2, np.arange(60) / 7, 50 * three, np.arange(60), 2 + three):
        assert said_of(amounts) == []
    assert said_of(np.arange(60) % 3, TransTEE, treatment_kind="levels") == []


def test_the_members_of_a_model_do_not_repeat_what_it_said_of_the_treatment():
    X, t = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 3
    base = BayesianLinearEffect(n_draws=60, n_tune=60, n_chains=2, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        VLUCI(base, n_imputations=2, n_grid=3).fit(X, X[:, 0] + t, treatment=t)
    assert [item.filename for item in caught if item.category is TreatmentWarning] == [__file__]
