"""What is known of the outcome besides its column: who is missing, what was before, whether a model predicted it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from causalsat.core.names import p_words, percent
from causalsat.exceptions import CausalsatError, ColumnError, ParameterError
from causalsat.inference.average_effects import blocked_difference
from causalsat.study.building import require_column
from causalsat.study.report import Finding

__all__ = [
    "add_outcome_roles",
    "baseline",
    "missing_outcomes",
    "outcome_settings",
    "predicted",
    "with_baseline",
]

CHOICES = (None, "weight")

CHOICE = (
    "choose: Study(..., missing_outcome='weight') weights respondents by the inverse probability of response given "
    "arm, covariates and images; study.subset(~np.isnan(study.y)) leaves these units out, which is right only if "
    "missingness depends neither on the treatment nor on the outcome. Report causalsat.evaluation.lee_bounds beside "
    "either. "
)
TESTED_ONLY = (
    "Where only tested (inspected) units have an outcome, SelectiveLabelsRisk (yes/no) or SelectiveLabelsOutcome "
    "(amounts) model the decision too"
)


# ---------------------------------------------------------------------- what the constructor takes
def outcome_settings(missing_outcome: Any, outcome_predicted: Any, outcome_labelled: Any) -> dict[str, Any]:
    """The settings of the outcome that are no columns, checked.

    Examples
    --------
    >>> outcome_settings("weight", False, None)
    {'missing_outcome': 'weight', 'outcome_predicted': False}
    """
    if missing_outcome not in CHOICES:
        raise ParameterError(
            f"missing_outcome={missing_outcome!r}",
            expected="None (the check asks for a choice) or 'weight' (inverse probability of response)",
            todo="to leave units without an outcome out, study.subset(~np.isnan(study.y))",
        )
    if not isinstance(outcome_predicted, bool | np.bool_):
        raise ParameterError(
            f"outcome_predicted={outcome_predicted!r}",
            expected="True or False: whether a model predicted the outcome",
            todo="name the column of the prediction as outcome=, that of the measured subset as outcome_labelled=",
        )
    if outcome_labelled is not None and not outcome_predicted:
        raise ParameterError(
            f"outcome_labelled={outcome_labelled!r} without outcome_predicted=True",
            expected="both, for an outcome that a model predicted and that was measured for a subset",
            todo="say outcome_predicted=True, or leave outcome_labelled out",
        )
    return {"missing_outcome": missing_outcome, "outcome_predicted": bool(outcome_predicted)}


def add_outcome_roles(frame: pd.DataFrame, roles: dict[str, str], **columns: str | None) -> None:
    """Add the columns of a baseline and of a measured outcome to the roles, each another column than the others."""
    for role, column in columns.items():
        if column is None:
            continue
        name = require_column(frame, column, role)
        taken = next((r for r in ("outcome", "treatment", *columns) if roles.get(r) == name), None)
        if taken is not None:
            raise ColumnError(f"{name!r} is both {taken} and {role}", expected="two different columns")
        roles[role] = name


def with_baseline(covariates: tuple[str, ...], roles: Mapping[str, str]) -> tuple[str, ...]:
    """The covariates, and the baseline outcome as the first of them."""
    column = roles.get("baseline_outcome")
    return covariates if column is None else (column, *(c for c in covariates if c != column))


# ---------------------------------------------------------------------- what the check says
def missing_outcomes(study: Any, a: Any) -> Iterator[Finding]:
    """Missing outcomes by arm, whether response differs between arms, and the choice to make."""
    if a.y is None:
        return
    gone = np.isnan(a.y)
    count, n = int(gone.sum()), len(a.y)
    if not count:
        return
    column = study.roles["outcome"]
    if study.outcome_predicted:
        yield Finding(
            "error",
            "missing values",
            f"the predicted outcome {column!r} misses {count:,} of {n:,} values ({percent(count / n)})",
            "predict it for all units, or leave these out, study.subset(~np.isnan(study.y)); only outcome_labelled, "
            "the measured one, may be missing",
        )
        return
    what = f"outcome {column!r} misses {count:,} of {n:,} values ({percent(count / n)})"
    if gone.all() or not a.is_binary:
        todo = "check the column" if gone.all() else _without_two_arms(study)
        yield Finding("error", "missing values", what, todo)
        return
    rates = {arm: gone[a.t == arm].mean() for arm in (1, 0)}
    counts = {arm: int(gone[a.t == arm].sum()) for arm in (1, 0)}
    what += (
        f": {percent(rates[1])} of treated, {percent(rates[0])} of control ({counts[1]:,} and {counts[0]:,} units)"
    )
    both = max(rates.values()) < 1
    what += f"; {_response_test(study, gone)}" if both else ""
    data = {"missing": counts, "share": rates}
    if study.missing_outcome == "weight" and both:
        informed = bool(study.covariates) or study.imagery is not None
        yield Finding(
            "note" if informed else "warning",
            "missing values",
            what,
            "respondents are weighted by the inverse probability of response, given arm, covariates and images; this "
            "is right if nothing else that moves the outcome decides who responds: report lee_bounds beside it"
            if informed
            else "neither covariates nor images are named on which response could depend, so that weights correct "
            "nothing: name covariates measured before treatment, and report lee_bounds",
            data,
        )
        return
    yield Finding(
        "error",
        "missing values",
        what,
        (CHOICE if both else "an effect needs outcomes of both arms. ") + TESTED_ONLY,
        data,
    )


def _without_two_arms(study: Any) -> str:
    if study.missing_outcome == "weight":
        return (
            "missing_outcome='weight' takes two arms coded 0 and 1: compare one arm with control by study.subset, or "
            "drop these units, study.subset(~np.isnan(study.y)), if missingness depends neither on the treatment nor "
            "on the outcome"
        )
    return (
        "drop these units, study.subset(~np.isnan(study.y)), if missingness depends neither on the treatment nor on "
        "the outcome"
    )


def _response_test(study: Any, gone: Any) -> str:
    """Whether response differs between arms, by the difference in means of the design; no word where it cannot be."""
    try:
        design = study.design
        found = blocked_difference(
            (~gone).astype(float),
            design.treatment,
            strata=design.strata if design.randomised else None,
            clusters=design.clusters,
            weights=design.weights,
        )
    except CausalsatError:
        return "whether response differs between arms could not be tested"
    gap = f"response of treated less control {found.estimate:+.3f}"
    if not np.isfinite(found.p_value):
        return gap
    verdict = "differs between arms" if found.p_value < 0.05 else "shows no difference between arms"
    return f"response {verdict} ({gap.removeprefix('response of ')}, {p_words(found.p_value)})"


def predicted(study: Any, a: Any) -> Iterator[Finding]:
    """An outcome that a model predicted: without a measured subset its effects are not those of the outcome."""
    if not study.outcome_predicted:
        return
    if "outcome_labelled" not in study.roles:
        yield Finding(
            "warning",
            "predicted outcome",
            f"the outcome {study.roles['outcome']!r} was predicted by a model, and no measured outcome is named",
            "predictions shrink towards their mean, and effects with them: name the measured outcome of a random "
            "subset by outcome_labelled=, or correct the average with a calibration: "
            "causalsat.evaluation.prediction_powered(..., calibration=)",
        )
        return
    if "labelled" in a.problems:
        yield Finding("error", "predicted outcome", *a.problems["labelled"])
        return
    known = np.isfinite(a.labelled)
    column = study.roles["outcome_labelled"]
    counts = {arm: int(known[a.t == arm].sum()) for arm in (1, 0)} if a.is_binary else {}
    if not a.is_binary:
        yield Finding(
            "warning",
            "predicted outcome",
            "the correction of predicted outcomes takes two arms coded 0 and 1",
            "compare one arm with control: study.subset(...)",
            stops_analyse=True,
        )
    elif min(counts.values()) < 2:
        yield Finding(
            "error",
            "predicted outcome",
            f"{column!r} holds the measured outcome of {counts[1]} treated and {counts[0]} control units",
            "the correction needs measured outcomes in both arms",
            counts,
        )
    else:
        few = min(counts.values()) < 30
        yield Finding(
            "warning" if few else "note",
            "predicted outcome",
            f"the outcome was predicted by a model; {column!r} holds the measured one of {counts[1]:,} treated and "
            f"{counts[0]:,} control units",
            ("so few leave wide intervals; " if few else "")
            + "analyse() corrects every effect by them (prediction-powered inference) and shows the uncorrected one "
            "beside; this is right if they were drawn at random",
            counts,
        )


def baseline(study: Any, a: Any) -> Iterator[Finding]:
    """What the baseline outcome is used for."""
    column = study.roles.get("baseline_outcome")
    if column is None or column not in a.covariates.columns or a.y is None:
        return
    x = a.covariates[column].to_numpy()
    both = np.isfinite(x) & np.isfinite(a.y)
    if both.sum() < 3 or np.ptp(x[both]) == 0 or np.ptp(a.y[both]) == 0:
        return
    r = float(np.corrcoef(x[both], a.y[both])[0, 1])
    yield Finding(
        "note",
        "baseline outcome",
        f"the baseline outcome {column!r} is a covariate (ANCOVA); its correlation with the outcome is {r:.2f}",
        "read the rows that adjust for covariates; a difference of differences is "
        "causalsat.evaluation.two_wave_effects",
        r,
    )
