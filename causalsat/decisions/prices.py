"""What treating a place costs, and how many people live there: numbers, columns, rasters or functions of places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.inputs import align
from causalsat.exceptions import ColumnError, DataError, ParameterError

__all__ = ["COST_PER", "Prices", "check_cost_per", "known_of_cells", "prices_of", "prices_of_units"]

FloatArray = NDArray[np.float64]

COST_PER = ("place", "person")
WORDS = {
    "cost": ("cost", "what treating it costs, a positive number", "leave those places out, or give their cost"),
    "people": ("number of people", "how many live there, a positive number", "leave places without people out"),
}


@dataclass(frozen=True)
class Prices:
    """People of each place, and what treating it costs for each of them.

    Attributes
    ----------
    a_head : ndarray of shape (n,)
        Cost for each person of the place.
    people : ndarray of shape (n,)
        People of the place; ones where nobody counts them.
    """

    a_head: FloatArray
    people: FloatArray

    @property
    def total(self) -> FloatArray:
        """Cost of treating each place, shape (n,)."""
        return self.a_head * self.people


def check_cost_per(cost_per: Any) -> None:
    """Refuse what costs cannot be of."""
    if cost_per not in COST_PER:
        raise ParameterError(f"cost_per={cost_per!r}", expected="'place' or 'person'")


def prices_of(cost: Any, people: Any, cost_per: str, where: Any, role: str = "places") -> Prices:
    """People and costs of places.

    Examples
    --------
    >>> towns = pd.DataFrame({"fee": [100.0, 100.0], "heads": [10, 50]})
    >>> prices_of("fee", "heads", "place", towns).a_head
    array([10.,  2.])
    >>> prices_of(3.0, "heads", "person", towns).total
    array([ 30., 150.])
    """
    heads = np.ones(len(where)) if people is None else _positive(people, where, role, "people")
    price = _positive(cost, where, role, "cost")
    return Prices(price if cost_per == "person" else price / heads, heads)


def prices_of_units(
    cost: Any, people: Any, cost_per: str, study: Any, places: Prices, notes: list[str], *, own: bool
) -> FloatArray:
    """Cost a head of each unit of the trial; the places' mean, with a note, where only theirs are known."""
    if own:
        return places.a_head
    if all(_known_of_units(given, study) for given in (cost, people)):
        return prices_of(cost, people, cost_per, study.units, "units").a_head
    notes.append("Costs are known for the places alone: the value takes their mean for each unit of the trial.")
    return np.full(len(study), np.average(places.a_head, weights=places.people))


def _known_of_units(given: Any, study: Any) -> bool:
    if isinstance(given, str):
        return given in study.units.columns
    return given is None or callable(given) or hasattr(given, "iter_chips") or not np.ndim(given)


def known_of_cells(given: Any) -> bool:
    """Whether a cost, or a number of people, is known wherever a map has a cell: a number, a raster or a function.

    Examples
    --------
    >>> known_of_cells(3.0), known_of_cells("fee"), known_of_cells([1.0, 2.0])
    (True, False, False)
    """
    return not isinstance(given, str) and (callable(given) or hasattr(given, "iter_chips") or not np.ndim(given))


def values_of(given: Any, where: Any, role: str, name: str) -> FloatArray:
    """One number for each place, as given; not checked for sign."""
    n = len(where)
    if isinstance(given, str):
        if given not in where.columns:
            raise ColumnError(
                f"{name}={given!r} is no column of the {role}",
                expected=f"one of {', '.join(map(str, list(where.columns)[:8]))}",
                todo=f"pass {name}= as a number, an array of one number a place, a raster or a function",
            )
        values = where[given]
    elif hasattr(given, "iter_chips"):
        values = _at_pixels(given, where)
    elif callable(given):
        values = given(where)
    else:
        values = align(where, given, name) if np.ndim(given) else given
    if isinstance(values, pd.Series | pd.DataFrame):
        values = values.to_numpy(dtype=object, na_value=np.nan)
    try:
        return np.broadcast_to(np.asarray(values, dtype=float), (n,)).copy()
    except (TypeError, ValueError):
        raise DataError(
            f"{name} of shape {np.shape(values)} for {n} {role}", expected="a number, or one number for each"
        ) from None


def _positive(given: Any, where: Any, role: str, name: str) -> FloatArray:
    """Numbers of the places, all positive."""
    values = values_of(given, where, role, name)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        word, expected, todo = WORDS[name]
        first = where.index[np.flatnonzero(bad)[0]]
        raise DataError(
            f"{int(bad.sum())} of {len(where)} {role} have no positive {word}, the first at {first!r} "
            f"({values[bad][0]:g})",
            expected=expected,
            todo=todo,
        )
    return values


def _at_pixels(imagery: Any, where: Any) -> FloatArray:
    out = np.full(len(where), np.nan)
    for position, chips in imagery.iter_chips(where.geometry, 1):
        out[position] = chips.reshape(len(chips), -1)[:, 0]
    return out
