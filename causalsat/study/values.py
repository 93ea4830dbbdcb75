"""Checks of single columns: labels, missing and infinite values, outcome, covariates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from causalsat.core.names import list_names, percent, shown
from causalsat.study.report import Finding, Level

OFFSET = 1e6  # mean in standard deviations, from which least squares in double precision loses digits of the effect


def identity(study: Any, a: Any) -> Iterator[Finding]:
    """Duplicate index, and too few units for the covariates."""
    repeated = study.units.index[study.units.index.duplicated()].unique()
    if len(repeated):
        yield Finding(
            "error",
            "identity",
            f"{len(repeated):,} unit labels occur more than once, such as {list_names(repeated, 3)}",
            "keep one row for each unit (one period of a panel); look for a merge that doubled rows",
            list(repeated),
        )
    if len(study) <= 2 * len(study.covariates):
        yield Finding(
            "warning",
            "lengths",
            f"{len(study):,} units for {len(study.covariates)} covariates",
            "name fewer covariates, those that matter for the outcome",
        )


def missing(study: Any, a: Any) -> Iterator[Finding]:
    """Missing values of roles (errors) and of covariates (imputed by the estimators)."""
    todo = {
        "treatment": "drop these units, unless the records show that they are control",
        "cluster": "give units outside any cluster a label of their own",
        "strata": "give units outside any stratum a label of their own",
        "weights": "drop these units or give them a weight",
        "propensity": "fill in the design's probability",
        "treatment_date": "fill in the date, or use one date for all",
    }
    n = len(study)
    for role, column in study.roles.items():
        count = int(study.units[column].isna().sum())
        if count and role in todo:
            what = f"{role} {column!r} misses {count:,} of {n:,} values ({percent(count / n)})"
            yield Finding("error", "missing values", what, todo[role])
    shares = study.units[list(study.covariates)].isna().mean()
    shares = shares[shares > 0].sort_values(ascending=False)
    if len(shares):
        level: Level = "warning" if shares.iloc[0] > 0.2 else "note"
        listed = list_names((f"{c} {percent(s)}" for c, s in shares.items()), 6)
        advice = (
            "estimators replace them by the training mean and add an indicator column; where the effect depends on "
            "them, or they confound, take MultipleImputationEffect(estimator)"
        )
        if level == "warning":
            advice = f"ask why {shares.index[0]!r} is missing and consider leaving it out; {advice}"
        yield Finding(level, "missing values", f"covariates miss values: {listed}", advice, shares)


def outcome(study: Any, a: Any) -> Iterator[Finding]:
    """Outcome that is no number, constant, binary, or has a few huge values."""
    if a.y is None:
        yield Finding("error", "outcome", *a.problems["y"])
        return
    y = a.without_codes("outcome", study)
    values = np.unique(y)
    if len(values) < 2:
        yield Finding("error", "outcome", f"the outcome is constant ({list_names(values)})", "check the column")
    elif len(values) == 2:
        how = "" if set(values) == {0.0, 1.0} else f", coded {values[0]:g} and {values[1]:g}: recode it to 0/1"
        yield Finding(
            "note",
            "outcome",
            f"the outcome is binary, {np.mean(y == values[1]):.1%} are {values[1]:g}{how}",
            "effects are differences in probability; BayesianLinearEffect(family='bernoulli') models a logit",
        )
    elif (spread := np.std(y)) > 0 and np.abs(y - y.mean()).max() > 8 * spread:
        far = int((np.abs(y - y.mean()) > 8 * spread).sum())
        yield Finding(
            "note",
            "outcome",
            f"{far} outcome value{'s lie' if far > 1 else ' lies'} over 8 standard deviations from the mean "
            f"(range {y.min():.4g} to {y.max():.4g})",
            "check for data entry errors; consider logs or winsorising at the 99th percentile, as pre-specified",
        )


def infinite(study: Any, a: Any) -> Iterator[Finding]:
    """Infinite numbers in any column with a role."""
    found = []
    for column in dict.fromkeys([*study.roles.values(), *study.covariates]):
        values = study.units[column]
        if values.dtype.kind == "f" and np.isinf(values.to_numpy(dtype=float, na_value=np.nan)).any():
            found.append(f"{column} ({int(np.isinf(values).sum())})")
    if found:
        yield Finding(
            "error",
            "infinite values",
            f"infinite values in {list_names(found, 6)}",
            "look for a division by zero or a logarithm of zero",
        )


def covariates(study: Any, a: Any) -> Iterator[Finding]:
    """Covariates that are empty, constant, text, or far from zero."""
    known = {c: study.units[c].nunique(dropna=True) for c in a.others.columns}
    empty = [c for c, n in known.items() if n == 0]
    if empty:
        yield Finding(
            "error",
            "constant columns",
            f"{list_names(empty, 6)} {'have' if len(empty) > 1 else 'has'} no value at all",
            "leave out of covariates",
            empty,
        )
    constant = [c for c, n in known.items() if n == 1]
    if constant:
        yield Finding(
            "warning",
            "constant columns",
            f"{list_names(constant, 6)} {'have' if len(constant) > 1 else 'has'} at most one value",
            "leave out of covariates: it carries no information",
            constant,
        )
    if a.text:
        yield Finding(
            "warning",
            "text covariates",
            f"{list_names(a.text, 6)} {'hold' if len(a.text) > 1 else 'holds'} text or dates, not numbers",
            "encode them before (pandas.get_dummies) or in the pipeline (sklearn OneHotEncoder), turn them into "
            "numbers, or leave them out; analyse() takes numbers only",
            list(a.text),
            stops_analyse=True,
        )
    yield from _classes(study, a)
    yield from _offset(a)


def _classes(study: Any, a: Any) -> Iterator[Finding]:
    """Covariates of three classes or more whose codes estimators would take for amounts, such as regions."""
    kinds: dict[Level, list[str]] = {"warning": [], "note": []}
    for column in (c for c in study.covariates if c not in a.text):
        values = study.units[column]
        if isinstance(values.dtype, pd.CategoricalDtype):
            if not values.dtype.ordered and values.nunique() > 2:
                kinds["warning"].append(str(column))
            continue
        named = study.value_labels.get(column, {})
        known = [code for code in values.dropna().unique() if code in named]
        if len(known) > 2:
            shown_codes = ", ".join(f"{shown(code)} {named[code]}" for code in sorted(known)[:2])
            kinds["note"].append(f"{column} ({shown_codes}, ...)")
    for level, columns in kinds.items():
        if columns:
            yield Finding(
                level,
                "classes",
                f"{list_names(columns, 6)} {'hold' if len(columns) > 1 else 'holds'} codes "
                f"{'of categories' if level == 'warning' else 'that value labels name'}, which estimators take for "
                "amounts",
                "if they are classes and no scale, make a column of each class (pandas.get_dummies, sklearn "
                "OneHotEncoder); a scale from low to high may stay",
                columns,
            )


def _offset(a: Any) -> Iterator[Finding]:
    """Covariates whose mean is so large beside their spread that a regression without centring loses the effect."""
    spread = a.covariates.std(ddof=0)
    far = [c for c in a.covariates.columns if abs(a.covariates[c].mean()) > OFFSET * spread[c] > 0]
    if far:
        first = a.covariates[far[0]]
        yield Finding(
            "warning",
            "covariates",
            f"{list_names(far, 6)} {'vary' if len(far) > 1 else 'varies'} little around a large number "
            f"({far[0]} from {first.min():.12g} to {first.max():.12g})",
            f"subtract a constant, units[{str(far[0])!r}] -= {first.min():.12g}: in a regression such a column "
            "cannot be told from the intercept to the last digits, and moves the effect; leave it out if it is an "
            "identity number",
            far,
        )
