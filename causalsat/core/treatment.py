"""A treatment as numbers: the rule by which columns are coded, and what to do where it cannot be.

The advice of these errors never names a coding that could pool arms, drop the control or turn the sign: which value
means control stands in the codebook, and not in the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.names import list_names, plain, shown
from causalsat.core.warn import warn
from causalsat.exceptions import TreatmentError, TreatmentWarning

__all__ = [
    "arm_label",
    "arm_names",
    "code_treatment",
    "declared_arms",
    "is_dose",
    "more_than_two_values",
    "several_arms",
    "two_values",
    "warn_of_arm_codes",
]

FloatArray = NDArray[np.float64]

CONTROL_WORDS = frozenset(
    {"control", "control group", "controls", "untreated", "not treated", "comparison", "placebo", "no", "false", "c"}
)
TREATED_WORDS = frozenset(
    {"treatment", "treatment group", "treated", "treat", "intervention", "program", "programme", "yes", "true", "t"}
)
MAX_ARMS = 8  # more values of a column of numbers are a dose
FOR_ARMS = "ArmsEffect, or TransTEE(treatment_kind='levels')"
FOR_DOSES = "BayesianLinearEffect (a slope), GaussianProcessEffect or TransTEE (a curve)"


# ---------------------------------------------------------------------- errors and their advice
def two_values(low: float, high: float, *, otherwise: str = "") -> TreatmentError:
    """The error for a treatment of two codes that are not 0 and 1.

    Examples
    --------
    >>> print(two_values(1, 2))  # doctest: +ELLIPSIS
    treatment has the values 1, 2. ... recode it: (treatment == 2).astype(int) if 2 means treated, ...
    """
    return TreatmentError(
        f"treatment has the values {low:g}, {high:g}",
        expected="0 (control) and 1 (treated), or a dose with more than two values",
        todo=f"recode it: (treatment == {high:g}).astype(int) if {high:g} means treated, (treatment == {low:g})"
        f".astype(int) if {low:g} does; the codebook says which, and the sign of the effect depends on it{otherwise}",
    )


def more_than_two_values(values: Sequence[float]) -> TreatmentError:
    """The error for a treatment of more than two values where an estimator takes two arms.

    Examples
    --------
    >>> print(more_than_two_values([0, 1, 2]))  # doctest: +ELLIPSIS
    treatment has the values 0, 1, 2. ... keep the units of one arm and of control, ...
    """
    listed = list_names((f"{v:g}" for v in values), 6)
    if is_dose(values):
        what, todo = f"treatment has {len(values)} values ({listed}), as a dose has", for_doses()
    else:
        what = f"treatment has the values {listed}"
        todo = f"{for_arms()}. If the values are amounts of one treatment: {for_doses()}"
    return TreatmentError(what, expected="0 (control) and 1 (treated)", todo=todo)


def for_arms() -> str:
    """What to do with several arms."""
    return (
        "keep the units of one arm and of control, and leave out the others (counted as control they would bias the "
        f"effect); or take all arms with {FOR_ARMS}"
    )


def for_doses() -> str:
    """What to do with a dose."""
    return f"use an estimator of doses, {FOR_DOSES}"


def is_dose(values: Sequence[Any]) -> bool:
    """Whether distinct values must be amounts: fractions, or more whole numbers than a trial has arms.

    Examples
    --------
    >>> is_dose([0, 1, 2]), is_dose([0, 0.5, 1]), is_dose(range(30))
    (False, True, True)
    """
    return len(values) > MAX_ARMS or not all(_is_whole(v) for v in values)


def warn_of_arm_codes(treatment: FloatArray) -> None:
    """Warn of doses that look like codes of arms: 0, 1, 2 or 1, 2, 3, 4 and the like.

    Parameters
    ----------
    treatment : ndarray of shape (n,)
        Treatment that an estimator takes for a dose.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     for values in ([0, 1, 2, 1], [0, 0.5, 1], [0, 50, 100], [0, 1, 1]):
    ...         warn_of_arm_codes(np.array(values, dtype=float))
    >>> print(*(item.message for item in caught))  # doctest: +ELLIPSIS
    the treatment has the values 0, 1, 2, which are taken for doses: ...
    """
    values = np.unique(treatment)
    if len(values) < 3 or is_dose(list(values)) or values[0] not in (0.0, 1.0) or (np.diff(values) != 1).any():
        return
    listed = list_names((f"{v:g}" for v in values), 8)
    warn(
        f"the treatment has the values {listed}, which are taken for doses: {values[2]:g} is as far above "
        f"{values[1]:g} as {values[1]:g} is above {values[0]:g}. What to do: where they are amounts of one "
        f"treatment, nothing; where they are codes of arms, {for_arms()}.",
        TreatmentWarning,
    )


# ---------------------------------------------------------------------- from a column to numbers
def code_treatment(
    values: Any, treated: Any = None, labels: Mapping[Any, str] | None = None, control: Any = None
) -> FloatArray:
    """Treatment as floats: 0 control, 1 treated, or a dose; NaN where missing.

    The rule, in this order: ``treated`` or ``control`` names the value that means so and the one other value is the
    other arm; Stata value labels, or two words, that say which is which (control, untreated, no, false, placebo,
    comparison; treatment, treated, yes, true, intervention) decide, whatever the codes; booleans and numbers 0/1
    stand for themselves, unless a label contradicts them, which is refused; any other numbers stay as they are; other
    words are refused. Of three values or more ``control`` names one, and the others are arms 1, 2, ... in the order
    of their values.

    Parameters
    ----------
    values : Series of shape (n,)
        The column as read.
    treated : object, optional
        The value (or Stata label) that means treated.
    labels : mapping of code to label, optional
        Stata value labels of this column.
    control : object, optional
        The value (or Stata label) that means control.

    Raises
    ------
    TreatmentError
        If words do not say which arm is which, codes and labels contradict each other, or ``treated`` is no value of
        the column.

    Examples
    --------
    >>> import pandas as pd
    >>> code_treatment(pd.Series(["Control", "Treatment", "Control"]))
    array([0., 1., 0.])
    >>> code_treatment(pd.Series([1, 2, 2]), treated=1)
    array([1., 0., 0.])
    >>> code_treatment(pd.Series([0, 1, 1]), labels={0: "Treatment", 1: "Control"})
    array([1., 0., 0.])
    """
    import pandas as pd

    codes, uniques = pd.factorize(values)
    kinds = pd.Series(uniques, name=values.name)
    coded = np.append(_code_kinds(kinds, treated, labels, control), np.nan)  # a missing value has code -1, the last
    return np.asarray(coded[codes], dtype=np.float64)


def _code_kinds(kinds: Any, treated: Any, labels: Mapping[Any, str] | None, control: Any) -> FloatArray:
    """The number of each distinct value of a treatment."""
    named = [_named(kind, labels) for kind in kinds]
    if treated is not None:
        coded = _against(kinds, named, treated, "treated")
        if control is not None and not np.array_equal(coded, 1 - _against(kinds, named, control, "control")):
            raise TreatmentError(
                f"treated={treated!r} and control={control!r} are the same arm of {kinds.name!r}",
                expected="two different values",
            )
        return coded
    if control is not None:
        arms = _arms_beside(kinds, named, control)
        return 1 - _against(kinds, named, control, "control") if arms is None else arms
    by_words = _coded_by_words([str(name).strip().casefold() for name in named])
    numbers = _as_numbers(kinds)
    if labels and by_words is not None:
        return by_words
    if numbers is not None and set(numbers) <= {0.0, 1.0}:
        _refuse_contradiction(kinds, labels)
        return numbers
    if by_words is not None:
        return by_words
    if numbers is not None:
        return numbers
    present = list(kinds)
    raise TreatmentError(
        f"treatment {kinds.name!r} has the labels {list_names(map(shown, present), 6)}",
        expected="0 and 1, or two labels that say which is which, such as Control and Treatment",
        todo=_name_one(present) if len(present) == 2 else several_arms(kinds.name, present),
    )


def declared_arms(values: Any, labels: Mapping[Any, str] | None, control: Any) -> dict[Any, str]:
    """Code and name of the arms of a column of which ``control`` names one; empty for two values and for doses.

    Examples
    --------
    >>> import pandas as pd
    >>> declared_arms(pd.Series(["goats", "control", "cash"]), None, "control")
    {0: 'control', 1: 'cash', 2: 'goats'}
    >>> declared_arms(pd.Series([2, 0, 1]), {0: "Cash", 1: "None", 2: "Goats"}, "None")
    {0: 'None', 1: 'Cash', 2: 'Goats'}
    """
    import pandas as pd

    kinds = pd.Series(pd.unique(values.dropna()), name=values.name)
    named = [_named(kind, labels) for kind in kinds]
    coded = _arms_beside(kinds, named, control)
    if coded is None:
        return {}
    names = [arm_label(name) for name in named]
    return {int(code): name for code, name in sorted(zip(coded, names, strict=True))}


def arm_label(value: Any) -> str:
    """Name of an arm: its text; of a whole number without decimals.

    Examples
    --------
    >>> arm_label(2.0), arm_label("cash")
    ('2', 'cash')
    """
    own = plain(value)
    return str(int(own)) if not isinstance(own, bool) and _is_whole(own) else str(own)


def _arms_beside(kinds: Any, named: Sequence[Any], control: Any) -> FloatArray | None:
    """Codes of arms, control 0 and the others 1, 2, ... in their order; None for two values, and for doses."""
    present = list(kinds)
    if len(present) < 3 or (_all_numbers(present) and is_dose(present)):
        return None
    hit = np.array([kind == control or name == control for kind, name in zip(kinds, named, strict=True)], dtype=bool)
    if hit.sum() != 1:
        return None
    others = [k for k in range(len(present)) if not hit[k]]
    numbers = _all_numbers(present)
    others.sort(key=lambda k: present[k] if numbers else str(present[k]))
    coded = np.zeros(len(present))
    coded[others] = np.arange(1, len(present))
    return coded


def arm_names(values: Any, labels: Mapping[Any, str] | None) -> dict[Any, str]:
    """The arms of a column of more than two words, or codes that all have a Stata label of words; else empty.

    Examples
    --------
    >>> import pandas as pd
    >>> arm_names(pd.Series([0, 1, 2, 1]), {0: "Control", 1: "Cash", 2: "Goats"})
    {0: 'Control', 1: 'Cash', 2: 'Goats'}
    >>> arm_names(pd.Series([0, 1, 2, 1]), {0: "none"})
    {}
    >>> arm_names(pd.Series(["goats", "control", "cash"]), None)
    {'cash': 'cash', 'control': 'control', 'goats': 'goats'}
    """
    import pandas as pd

    kinds = pd.Series(pd.unique(values.dropna()))
    if len(kinds) < 3:
        return {}
    if kinds.dtype.kind not in "mM" and _as_numbers(kinds) is None:
        return {str(kind): str(kind) for kind in sorted(kinds, key=str)}
    if not labels:
        return {}
    present = sorted(kinds)
    named = {plain(code): str(_named(code, labels)) for code in present}
    return {} if any(re.fullmatch(r"[\s\d.,%+-]*", name) for name in named.values()) else named


def several_arms(column: Any, present: Sequence[Any], treated: Any = None) -> str:
    """What to do where a column has several arms, with names that keep the control."""
    rest = [v for v in present if v != treated]
    control = [v for v in rest if str(v).strip().casefold() in CONTROL_WORDS]
    arm = shown(treated) if treated is not None else "arm"
    other = shown(control[0]) if len(control) == 1 else "control"
    known = "" if len(control) == 1 else f" (control is one of {list_names(map(shown, rest), 6)}: the codebook says)"
    named = "" if treated is not None else ", and name the arm with treated="
    return (
        f"take all arms: name the control, control={other}; or keep the two arms to compare, "
        f"units[units[{str(column)!r}].isin([{other}, {arm}])]{known}{named}; the "
        f"other units are in neither"
    )


def _name_one(present: Sequence[Any]) -> str:
    control = [v for v in present if str(v).strip().casefold() in CONTROL_WORDS]
    options = [f"treated={shown(v)}" for v in sorted(present, key=str) if v not in control]
    return (
        f"name the label that received the treatment: {' or '.join(options)}; the other is control, and the sign of "
        "the effect depends on it"
    )


def _coded_by_words(words: Sequence[str]) -> FloatArray | None:
    """Codes of words that say which is which; None where they do not."""
    distinct = set(words)
    control, treated = distinct & CONTROL_WORDS, distinct & TREATED_WORDS
    if not distinct or distinct - control - treated or len(control) > 1 or len(treated) > 1:
        return None
    return np.array([float(word in treated) for word in words])


def _refuse_contradiction(kinds: Any, labels: Mapping[Any, str] | None) -> None:
    """Refuse codes 0/1 whose Stata labels say the reverse."""
    named = {code: _label_of(code, labels or {}) for code in (0, 1)}
    if _leaning(named[0]) != "treated" and _leaning(named[1]) != "control":
        return
    listed = ", ".join(f"{code} = {name}" for code, name in named.items() if name is not None)
    raise TreatmentError(
        f"treatment {kinds.name!r} is coded 0 and 1, but its labels say the reverse ({listed})",
        expected="0 for control and 1 for treated, or two labels that say which is which",
        todo="say which one received the treatment: treated=0 or treated=1",
    )


def _leaning(label: str | None) -> str | None:
    """Whether a label speaks of control or of treatment, or neither."""
    tokens = set(re.findall(r"[a-z]+", str(label or "").casefold()))
    of_control = bool(tokens & {"control", "controls", "placebo", "comparison", "untreated"})
    of_treatment = bool(tokens & {"treatment", "treated", "treat", "intervention", "program", "programme"})
    denied = bool(tokens & {"no", "not", "non", "never", "without"})
    if of_control == of_treatment:
        return None
    return "control" if of_control or denied else "treated"


def _label_of(code: Any, labels: Mapping[Any, str]) -> str | None:
    label = labels.get(code)
    return labels.get(int(code)) if label is None and _is_whole(code) else label


def _named(value: Any, labels: Mapping[Any, str] | None) -> Any:
    """The label of a value, or the value itself."""
    label = _label_of(value, labels) if labels else None
    return value if label is None else label


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and float(value).is_integer()


def _as_numbers(values: Any) -> FloatArray | None:
    import pandas as pd

    column = values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values
    if column.dtype.kind in "mM":
        return None
    numbers = pd.to_numeric(column, errors="coerce")
    if (numbers.isna() & column.notna()).any():
        return None
    return np.asarray(numbers.to_numpy(dtype=float, na_value=np.nan), dtype=np.float64)


def _against(kinds: Any, named: Sequence[Any], wanted: Any, role: str) -> FloatArray:
    """1 for the value, or label, that is wanted, and 0 for the one other value."""
    hit = np.array([kind == wanted or name == wanted for kind, name in zip(kinds, named, strict=True)], dtype=bool)
    present, others = list(kinds), [kind for kind, chosen in zip(kinds, hit, strict=True) if not chosen]
    if not hit.any():
        raise TreatmentError(
            f"{role}={wanted!r} is no value of the treatment {kinds.name!r}",
            expected=f"one of {list_names(map(shown, present), 6)}",
            todo="check the spelling and the type (2 is not '2')",
        )
    if len(others) > 1:
        todo = f"leave {role}= out and {for_doses()}" if is_dose(present) and _all_numbers(present) else ""
        raise TreatmentError(
            f"treatment {kinds.name!r} has {len(others)} values besides {role}={wanted!r}: "
            f"{list_names(map(shown, others), 6)}",
            expected=f"one other value, the {'control' if role == 'treated' else 'treated'} arm",
            todo=todo or several_arms(kinds.name, [*others, wanted], wanted if role == "treated" else None),
        )
    return hit.astype(np.float64)


def _all_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(v, int | float | np.number) for v in values)
