"""Study.check: run every check, collect what was found and what is in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from causalsat.study import (
    balance,
    labels,
    leaks,
    location,
    missing_codes,
    outcomes,
    places,
    propensity,
    roles,
    values,
)
from causalsat.study.arrays import Arrays, read_arrays
from causalsat.study.report import LEVELS, Finding, StudyReport

__all__ = ["check_study"]

TABLE_CHECKS: tuple[tuple[str, Callable[[Any, Arrays], Iterator[Finding]]], ...] = (
    ("unit labels", values.identity),
    ("spelling of labels", labels.labels),
    ("missing values", values.missing),
    ("no codes for missing values", missing_codes.missing_codes),
    ("infinite values", values.infinite),
    ("outcome", values.outcome),
    ("missing outcomes", outcomes.missing_outcomes),
    ("kind of outcome", outcomes.predicted),
    ("baseline outcome", outcomes.baseline),
    ("treatment arms", roles.arms),
    ("take-up", roles.take_up),
    ("covariates", values.covariates),
    ("clusters", roles.clusters),
    ("strata", roles.strata),
    ("weights", roles.weights),
    ("no covariate made from the treatment", leaks.leaks),
    ("balance of covariates", balance.balance),
    ("propensity", propensity.propensity),
    ("coordinates", places.coordinates),
    ("shared places", places.shared),
    ("image dates", places.dates),
)


def check_study(study: Any, *, size_m: float | None = None, imagery: bool = True) -> StudyReport:
    """Run every check that applies to the study; see :meth:`causalsat.Study.check`."""
    arrays = read_arrays(study)
    findings: list[Finding] = []
    passed: list[str] = []
    checks = [*TABLE_CHECKS]
    if imagery and study.imagery is not None:
        checks.append(("imagery", lambda s, a: places.coverage(s, size_m)))
        if study.location_error is not None:
            checks.append(("displaced coordinates", lambda s, a: location.displaced(s, size_m)))
    for label, check in checks:
        found = list(check(study, arrays))
        findings += found
        if not found and _applies(label, study):
            passed.append(label)
    findings += roles.whole(study, findings)
    findings.sort(key=lambda f: LEVELS.index(f.level))
    return StudyReport(title=_title(study), findings=tuple(findings), passed=tuple(passed))


def _applies(label: str, study: Any) -> bool:
    needs = {"take-up": "take_up", "clusters": "cluster", "strata": "strata", "weights": "weights"}
    if label in needs:
        return needs[label] in study.roles
    if label in ("covariates", "no covariate made from the treatment", "balance of covariates", "propensity"):
        return bool(study.covariates)
    if label == "baseline outcome":
        return "baseline_outcome" in study.roles
    if label == "kind of outcome":
        return bool(study.outcome_predicted)
    return label != "image dates" or study.treatment_date is not None


def _title(study: Any) -> str:
    return f"Check of {study.name}: " + ", ".join(study.facts())
