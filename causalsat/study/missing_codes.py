"""Numbers and words that stand for a missing value: -99, 9999, "Refused", with or without a value label."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.names import list_names, shown
from causalsat.study.report import Finding, Level

__all__ = ["Code", "codes_of", "missing_codes"]

FloatArray = NDArray[np.float64]

DIGITS = [int(d * k) for d in "789" for k in range(1, 9)] + [int("9" * k + d) for d in "678" for k in range(1, 8)]
# 99, 998, 9999, -9, -88, ...; single digits above zero are codes only beside short scales
DIGIT_CODES = np.array(sorted({float(-d) for d in DIGITS} | {float(d) for d in DIGITS if d > 9}))
SENTINELS = np.array([32767.0, -32768.0, 2147483647.0, -2147483648.0, 1e20, -1e20, 1e30, -1e30])
LARGEST = 1e36  # beyond it lie the marks of missing floats, such as -3.4e38 and Stata's 8.99e307
WORDS = (
    r"refus(?:ed|al)|don'?t know|do not know|not applicable|no answer|no response|missing|not stated|not available"
)
LABEL = re.compile(rf"\b(?:{WORDS}|refuses?|inapplicable|unknown)\b")
TEXT = re.compile(rf"(?:{WORDS}|unknown)(?: to (?:answer|say|respond)| value)?")
EXACT_WORDS = frozenset({"n/a", "na", "dk", ".", "?", "-", "--", "nan", "null", ""})
MAX_SCALE = 7  # values of a short scale, beside which 7, 8 and 9 are codes
MIN_REPEATS = 5
ROLES_OF_LABELS = ("cluster", "strata")

TODO = {
    "outcome": "drop these units (study.subset(~np.isnan(study.y))) or model who is missing",
    "treatment": "drop the units whose arm nobody knows; as a value they are an arm, or a dose, of their own",
    "cluster": "find their clusters, or give each of these units a label of its own; together they are no village",
    "strata": "find their strata, or leave these units out; together they are no stratum",
    "weights": "give these units their weight, or leave them out",
    "propensity": "fill in the design's probability",
    "covariate": "estimators then replace them by the mean and add an indicator",
}


@dataclass(frozen=True)
class Code:
    """A value of a column that looks like a code for a missing one.

    Attributes
    ----------
    value : float or str
        The value.
    count : int
        Units that have it.
    label : str or None
        Its value label, where that says so.
    certain : bool
        Whether it is labelled so, or far outside the other values and repeated.
    others : tuple of float or None
        Lowest and highest of the other numbers.
    """

    value: Any
    count: int
    label: str | None = None
    certain: bool = True
    others: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Value, label and units."""
        return f"{shown(self.value)}{f' = {self.label}' if self.label else ''} in {self.count:,} units"


def missing_codes(study: Any, a: Any) -> Iterator[Finding]:
    """Codes for missing values: one finding for each role, and one for the covariates of each level."""
    roles = {column: role for role, column in study.roles.items()}
    levels: tuple[tuple[Level, bool], ...] = (("error", True), ("warning", False))
    for level, certain in levels:
        listed = []
        for column, codes in a.codes.items():
            chosen = [code for code in codes if code.certain == certain]
            if chosen and column in roles:
                yield _of_role(level, roles[column], column, chosen)
            elif chosen:
                listed.append((column, chosen))
        if listed:
            yield _of_covariates(level, listed)


def _of_role(level: Level, role: str, column: str, codes: list[Code]) -> Finding:
    others = codes[0].others
    beside = "" if others is None else f"; the others run from {others[0]:.5g} to {others[1]:.5g}"
    holds = "holds codes for missing values" if level == "error" else "has values that may be codes for missing ones"
    doubt = "if they are: " if level == "warning" else ""
    return Finding(
        level,
        "missing codes",
        f"{role} {column!r} {holds}: {list_names(codes, 5)}{beside}",
        f"{doubt}make them missing before, {_replaced(column, codes)}, then {TODO[role]}",
        codes,
    )


def _of_covariates(level: Level, listed: list[tuple[str, list[Code]]]) -> Finding:
    doubt = "" if level == "error" else "if so, "
    shown_codes = (f"{column} ({', '.join(map(str, codes))})" for column, codes in listed)
    what = (
        "covariates hold codes for missing values" if level == "error" else "values that look like codes for missing"
    )
    return Finding(
        level,
        "missing codes",
        f"{what}: {list_names(shown_codes, 5)}",
        f"{doubt}make them missing before, {_replaced(*listed[0])}; {TODO['covariate']}",
        dict(listed),
    )


def _replaced(column: str, codes: list[Code]) -> str:
    return (
        f"units[{column!r}] = units[{column!r}].replace([{list_names(shown(c.value) for c in codes)}], float('nan'))"
    )


# ---------------------------------------------------------------------- finding them
def codes_of(study: Any, column: str, role: str = "covariate") -> tuple[Code, ...]:
    """Codes for missing values in one of a study's columns, in the order of their value."""
    values = study.units[column]
    labels = study.value_labels.get(column, {})
    if values.dtype.kind in "bmM":
        return ()
    numbers = pd.to_numeric(values.astype(object) if values.dtype.kind not in "iuf" else values, errors="coerce")
    found = _spoken(values, numbers, labels)
    x = numbers.to_numpy(dtype=float, na_value=np.nan)
    known = {code.value for code in found}
    return (*found, *(code for code in numeric_codes(x, role) if code.value not in known))


def is_missing_word(word: Any) -> bool:
    """Whether a value label says that the value is missing.

    Examples
    --------
    >>> is_missing_word("Refused to answer"), is_missing_word("Refugee camp"), is_missing_word(" ")
    (True, False, True)
    """
    text = _plain_text(word)
    return text in EXACT_WORDS or LABEL.search(text) is not None


def _plain_text(word: Any) -> str:
    return str(word).strip().casefold().replace("\u2019", "'")


def _spoken(values: pd.Series, numbers: pd.Series, labels: Mapping[Any, str]) -> list[Code]:
    """Codes that a value label or the text itself calls missing."""
    found = []
    for code, label in labels.items():
        if is_missing_word(label) and (count := int((values == code).sum())):
            found.append(Code(code, count, str(label)))
    if values.dtype.kind in "iuf":
        return found
    texts = values[numbers.isna() & values.notna()].astype(object).value_counts()
    missing = (text for text in texts.index if _plain_text(text) in EXACT_WORDS or TEXT.fullmatch(_plain_text(text)))
    return found + [Code(text, int(texts[text])) for text in missing]


def numeric_codes(x: FloatArray, role: str = "covariate") -> tuple[Code, ...]:
    """Numbers that look like codes for missing values: by their digits, how far out and how often they are.

    A number of digits such as -99 or 9999 (or the bound of a type of integers) is a code for certain where it is
    repeated and lies further from all other values than these do from each other, or below zero where they do not.
    It may be one where it occurs once so far out, or so much more often than the other values that it stands out.

    Parameters
    ----------
    x : ndarray of shape (n,)
        The column, NaN where missing.
    role : str
        A treatment of two values beside the code needs no repetition; labels (cluster, strata) have no distances,
        and a positive number far out may be one of them.

    Examples
    --------
    >>> [str(code) for code in numeric_codes(np.array([0.3, -1.2, -99, 2.1, -99]))]
    ['-99 in 2 units']
    >>> numeric_codes(np.array([18.0, 99.0, 45.0, 98.0, 60.0, 97.0, 96.0, 95.0]))
    ()
    """
    values, counts = np.unique(x[np.isfinite(x)], return_counts=True)
    coded = np.isin(values, DIGIT_CODES) | np.isin(values, SENTINELS) | (np.abs(values) > LARGEST)
    coded |= _beside_a_short_scale(values, coded)
    rest, repeats = values[~coded], counts[~coded]
    if not coded.any() or not len(rest):
        return ()
    return tuple(
        Code(float(v), int(count), None, verdict == "certain", (float(rest[0]), float(rest[-1])))
        for v, count in zip(values[coded], counts[coded], strict=True)
        if (verdict := _verdict(float(v), int(count), rest, repeats, role))
    )


def _beside_a_short_scale(values: FloatArray, coded: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of 7, 8 and 9 stand apart from a yes/no or a scale of a few whole steps."""
    digits = np.isin(values, (7.0, 8.0, 9.0))
    scale = values[~coded & ~digits]
    nothing = np.zeros(len(values), dtype=bool)
    if not digits.any() or not len(scale) or len(scale) > MAX_SCALE or (scale != np.round(scale)).any():
        return nothing
    apart = scale[0] >= 0 and scale[-1] + 1 < values[digits][0]
    return digits if apart else nothing


def _verdict(value: float, count: int, rest: FloatArray, repeats: NDArray[Any], role: str) -> str:
    """For a number with the digits of a code: certain, doubtful, or neither (an empty text)."""
    low, high = float(rest[0]), float(rest[-1])
    spread = max(high - low, 1.0)
    gap = max(low - value, value - high)
    alone = value < 0 <= low
    far = alone or gap > spread
    if role in ROLES_OF_LABELS and not alone:
        return "doubtful" if far and len(rest) > 1 else ""
    if role == "treatment" and len(rest) <= 2 and high <= 2 and far:
        return "certain"  # the arms are 0 and 1, or 1 and 2
    if far and count > 1:
        return "certain" if alone or value < 0 or gap > 3 * spread else "doubtful"
    if far:
        return "doubtful"
    if len(rest) <= MAX_SCALE:
        return "doubtful" if gap > 1 and count > 2 else ""
    apart = gap > 0.25 * spread and count >= MIN_REPEATS
    often = count >= 2 * MIN_REPEATS and count >= 5 * repeats[rest != 0].max(initial=1)
    return "doubtful" if apart or often else ""
