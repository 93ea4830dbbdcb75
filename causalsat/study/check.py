"""Study.check: run every check, collect what was found and what is in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import CausalsatError
from causalsat.study import balance, places, values
from causalsat.study.report import LEVELS, Finding, StudyReport

FloatArray = NDArray[np.float64]

TABLE_CHECKS: tuple[tuple[str, Callable[[Any, Any], Iterator[Finding]]], ...] = (
    ("unit labels", values.identity),
    ("missing values", values.missing),
    ("infinite values", values.infinite),
    ("outcome", values.outcome),
    ("treatment arms", values.arms),
    ("covariates", values.covariates),
    ("clusters", values.clusters),
    ("strata", values.strata),
    ("weights", values.weights),
    ("no covariate made from the treatment", balance.leaks),
    ("balance of covariates", balance.balance),
    ("propensity", balance.propensity),
    ("coordinates", places.coordinates),
    ("shared places", places.shared),
    ("image dates", places.dates),
)


@dataclass(frozen=True)
class Values:
    """The roles as arrays of shape (n,), None where absent or unusable, and why unusable.

    Attributes
    ----------
    problems : dict
        Role to (what, todo) of the error that kept it from being read.
    """

    y: FloatArray | None
    t: FloatArray | None
    groups: NDArray[Any] | None
    weights: FloatArray | None
    propensity: FloatArray | None
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_values(study: Any) -> Values:
    """Read each role; an error becomes a problem to report."""
    problems: dict[str, tuple[str, str]] = {}

    def attempt(key: str, name: str) -> Any:
        try:
            return getattr(study, name)
        except CausalsatError as error:
            problems[key] = (error.what, error.todo or error.expected or "check the column")
            return None

    pairs = {"y": "y", "t": "treatment", "groups": "groups", "weights": "weights", "propensity": "propensity"}
    read = {key: attempt(key, name) for key, name in pairs.items()}
    return Values(**read, problems=problems)


def check_study(study: Any, *, size_m: float | None = None, imagery: bool = True) -> StudyReport:
    """Run every check that applies to the study; see :meth:`causalsat.Study.check`."""
    table = read_values(study)
    findings: list[Finding] = []
    passed: list[str] = []
    checks = [*TABLE_CHECKS]
    if imagery and study.imagery is not None:
        checks.append(("imagery", lambda s, v: places.coverage(s, size_m)))
    for label, check in checks:
        found = list(check(study, table))
        findings += found
        if not found and _applies(label, study):
            passed.append(label)
    findings.sort(key=lambda f: LEVELS.index(f.level))
    return StudyReport(title=_title(study), findings=tuple(findings), passed=tuple(passed))


def _applies(label: str, study: Any) -> bool:
    needs = {"clusters": "cluster", "strata": "strata", "weights": "weights"}
    if label in needs:
        return needs[label] in study.roles
    if label in ("covariates", "no covariate made from the treatment", "balance of covariates", "propensity"):
        return bool(study.covariates)
    return label != "image dates" or study.treatment_date is not None


def _title(study: Any) -> str:
    return f"Check of {study.name}: " + ", ".join(study.facts())
