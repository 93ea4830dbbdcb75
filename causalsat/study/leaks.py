"""Covariates that are the treatment, are made from it, or determine it: no comparison is left beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lgamma, log
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.names import list_names, shown
from causalsat.study.report import Finding

__all__ = ["Leak", "find_leaks", "leaks"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_KINDS = 10  # distinct values of a covariate that may be a coding of the arms
CERTAIN_BITS = 20.0  # minus log2 of the probability that random assignment makes such a covariate
DOUBTFUL_BITS = 5.0
MIN_ARM = 30
MIN_UNITS_ALIKE = 10  # below, two columns of few whole numbers may agree up to constant and factor by chance
FREE_ROWS = 20  # distinct rows beyond the number of covariates, where they together determine the treatment


@dataclass(frozen=True)
class Leak:
    """Why a covariate leaks, as the rest of a sentence about it, and whether chance could not make it so."""

    why: str
    certain: bool = True


def leaks(study: Any, a: Any) -> Iterator[Finding]:
    """Covariates made from the treatment, or from the outcome."""
    certain = {name: leak.why for name, leak in a.leaks.items() if leak.certain}
    doubtful = {name: leak.why for name, leak in a.leaks.items() if not leak.certain}
    if certain:
        yield Finding(
            "error",
            "treatment leak",
            f"{len(certain)} of {len(study.covariates)} covariates are made from the treatment, or determine it: "
            + "; ".join(f"{c} {why}" for c, why in list(certain.items())[:6]),
            f"leave them out of covariates: {', '.join(certain)}. Between units that are alike in them there is no "
            "comparison of the arms, and what was not measured before treatment makes any model that adjusts for it, "
            "or predicts with it, wrong",
            certain,
        )
    if doubtful:
        yield Finding(
            "warning",
            "treatment leak",
            f"{len(doubtful)} of {len(study.covariates)} covariates determine the treatment, by chance or because "
            "they are made from it: " + "; ".join(f"{c} {why}" for c, why in list(doubtful.items())[:6]),
            "with so few clusters either may be: find out whether each was measured before treatment, and leave it "
            "out of covariates if it was not; between units that are alike in it there is no comparison of the arms",
            doubtful,
        )
    copies = [] if a.y is None else [str(c) for c in a.covariates.columns if _same(a.covariates[c].to_numpy(), a.y)]
    if copies:
        yield Finding(
            "error",
            "outcome leak",
            f"{list_names(copies, 6)} {'are' if len(copies) > 1 else 'is'} the outcome itself",
            f"leave out of covariates: {', '.join(copies)}",
            copies,
        )


def _same(x: FloatArray, y: FloatArray) -> bool:
    """Whether two columns agree wherever both are there, up to a constant and a factor."""
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < MIN_UNITS_ALIKE or not np.ptp(y[both]) > 0 or not np.ptp(x[both]) > 0:
        return False
    u, v = x[both] - x[both].mean(), y[both] - y[both].mean()
    if len(np.unique(v[:1000])) < 3:  # two yes/no columns may agree by their nature
        return bool(np.array_equal(x[both], y[both]))
    u, v = u / np.abs(u).max(), v / np.abs(v).max()
    return bool(np.allclose(u, v, atol=1e-9) or np.allclose(u, -v, atol=1e-9))


def find_leaks(X: pd.DataFrame, others: pd.DataFrame, t: FloatArray, assigned: IntArray) -> dict[str, Leak]:
    """Why each covariate that leaks does; empty where none does.

    Parameters
    ----------
    X : DataFrame of shape (n, p)
        Numeric covariates that vary, NaN where missing.
    others : DataFrame of n rows
        The other covariates: text, dates, constants.
    t : ndarray of shape (n,)
        Treatment, 0 or 1, NaN where missing.
    assigned : ndarray of int of shape (n,)
        What was assigned: clusters or units. A covariate may determine their arms by chance where they are few.

    Returns
    -------
    dict
        Covariate to why it leaks.
    """
    arms = _Arms(t, assigned)
    found = {str(c): leak for c in X.columns if (leak := _alone(X, str(c), arms))}
    found |= {
        str(c): leak for c in others.columns if (leak := _by_kinds(others[c], arms) or _by_gaps(others[c], arms))
    }
    together = _together(X[[c for c in X.columns if str(c) not in found]], arms)
    for name in together:
        partners = [c for c in together if c != name]
        found[name] = Leak(f"gives the treatment exactly, together with {list_names(partners, 4)}")
    return found


class _Arms:
    """The treatment, and what was assigned to it."""

    def __init__(self, t: FloatArray, assigned: IntArray) -> None:
        self.t, self.known, self.assigned = t, np.isfinite(t), assigned

    def bits(self, rows: NDArray[np.bool_], colourings: float) -> float:
        """Minus log2 of the chance that one of 2^colourings assignments of these rows' clusters was drawn."""
        n, treated = self._count(rows)
        return _log2_choices(n, treated) - colourings

    def bits_of_constant(self, rows: NDArray[np.bool_], x: FloatArray, value: float, arm: int) -> float:
        """Minus log2 of the chance that the arm is drawn from the clusters in which x has this value only."""
        n, treated = self._count(rows)
        of_arm = treated if arm == 1 else n - treated
        other = np.unique(self.assigned[rows & (x != value)])
        return _log2_choices(n, of_arm) - _log2_choices(n - len(other), of_arm)

    def _count(self, rows: NDArray[np.bool_]) -> tuple[int, int]:
        first = np.unique(self.assigned[rows], return_index=True)[1]
        return len(first), int((self.t[rows][first] == 1).sum())


def _log2_choices(n: int, k: int) -> float:
    """Log2 of the number of ways to choose k of n."""
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2) if 0 <= k <= n else 0.0


def _leak(why: str, bits: float) -> Leak | None:
    return Leak(why, bits >= CERTAIN_BITS) if bits >= DOUBTFUL_BITS else None


def _alone(X: pd.DataFrame, name: str, arms: _Arms) -> Leak | None:
    x, t = X[name].to_numpy(), arms.t
    ok = np.isfinite(x) & arms.known
    if np.array_equal(x[ok], t[ok]) or np.array_equal(x[ok], 1 - t[ok]):
        return Leak("is the treatment itself")
    return (
        _coded(x, t, ok)
        or _constant_in_an_arm(X, name, x, ok, arms)
        or _by_kinds(X[name], arms)
        or _separated(x, ok, arms)
        or _by_gaps(X[name], arms)
    )


def _constant_in_an_arm(X: pd.DataFrame, name: str, x: FloatArray, ok: NDArray[np.bool_], arms: _Arms) -> Leak | None:
    t = arms.t
    for arm, where in ((0, "control"), (1, "treated")):
        inside, other = x[ok & (t == arm)], x[ok & (t != arm)]
        if len(inside) < MIN_ARM or len(other) < MIN_ARM or np.ptp(inside) > 0 or not np.ptp(other) > 0:
            continue
        if float((other == inside[0]).mean()) ** len(inside) > 1e-9:  # the value is common in the other arm too
            continue
        for source in X.columns.drop(name):
            product = X[source].to_numpy() * (t != arm)
            if np.allclose(product[ok], x[ok], rtol=1e-6, atol=1e-12):  # equal in single precision
                return Leak(f"= {source} x {'treatment' if arm == 0 else '(1 - treatment)'}")
        why = f"is {shown(inside[0] + 0.0)} for all {len(inside):,} {where} units and varies in the other arm"
        return _leak(why, arms.bits_of_constant(ok, x, inside[0], arm))
    return None


def _coded(x: FloatArray, t: FloatArray, ok: NDArray[np.bool_]) -> Leak | None:
    """The treatment in other numbers, such as 1 and 2."""
    one, zero = x[ok & (t == 1)], x[ok & (t == 0)]
    if not len(one) or not len(zero) or np.ptp(one) > 0 or np.ptp(zero) > 0 or one[0] == zero[0]:
        return None
    return Leak(f"is the treatment, as {shown(one[0])} for treated and {shown(zero[0])} for control units")


def _by_kinds(values: pd.Series, arms: _Arms) -> Leak | None:
    """Few kinds, numbers or words, each of them in one arm only."""
    codes, kinds = pd.factorize(values, use_na_sentinel=True)
    rows = (codes >= 0) & arms.known
    if not 2 <= len(kinds) <= MAX_KINDS or not rows.any():
        return None
    size = np.bincount(codes[rows], minlength=len(kinds))
    treated = np.bincount(codes[rows], arms.t[rows], minlength=len(kinds))
    if ((treated > 0) & (treated < size)).any() or not 0 < treated.sum() < size.sum():
        return None
    names = list_names([shown(k) for k, count in zip(kinds, treated, strict=True) if count], 4)
    why = f"tells the arms apart: {names} for treated units only, other values for control only"
    return _leak(why, arms.bits(rows, len(kinds)))


def _separated(x: FloatArray, ok: NDArray[np.bool_], arms: _Arms) -> Leak | None:
    """All treated units above all control units, or below."""
    one, zero = x[ok & (arms.t == 1)], x[ok & (arms.t == 0)]
    if not len(one) or not len(zero) or not (one.min() > zero.max() or one.max() < zero.min()):
        return None
    if len(np.unique(x[ok])) <= MAX_KINDS:
        return None
    bounds = (f"at least {one.min():.4g}", f"at most {zero.max():.4g}")
    if one.max() < zero.min():
        bounds = (f"at most {one.max():.4g}", f"at least {zero.min():.4g}")
    why = f"tells the arms apart: {bounds[0]} for all treated and {bounds[1]} for all control units"
    return _leak(why, arms.bits(ok, 1))


def _by_gaps(values: pd.Series, arms: _Arms) -> Leak | None:
    """Missing in one arm and there in the other: its indicator of missing values is the treatment."""
    gone = values.isna().to_numpy()
    treated, control = gone[arms.t == 1], gone[arms.t == 0]
    if not len(treated) or not len(control) or treated.all() == control.all() or treated.any() == control.any():
        return None
    if treated.any() != treated.all() or control.any() != control.all() or min(len(treated), len(control)) < MIN_ARM:
        return None
    where, there = ("treated", "control") if treated.all() else ("control", "treated")
    return Leak(f"is missing for all {where} units and for no {there} unit")


def _together(X: pd.DataFrame, arms: _Arms) -> list[str]:
    """Covariates of which a sum of multiples, and no fewer of them, is the treatment."""
    values = X.to_numpy(dtype=float)
    rows = np.isfinite(values).all(axis=1) & arms.known
    if values.shape[1] < 2 or rows.sum() <= values.shape[1] + FREE_ROWS:
        return []
    design, t = values[rows], arms.t[rows] - arms.t[rows].mean()
    design = design - design.mean(axis=0)
    scale = np.sqrt((design**2).mean(axis=0))
    keep = scale > 1e-9 * np.abs(values[rows]).max(axis=0)
    if not keep.any():
        return []
    design = design[:, keep] / scale[keep]
    gram, moment = design.T @ design / len(t), design.T @ t / len(t)
    root, basis = np.linalg.eigh(gram)
    used = root > 1e-10 * root[-1]
    slope = basis[:, used] @ ((basis[:, used].T @ moment) / root[used])
    if not moment @ slope > (1 - 1e-6) * (t @ t) / len(t):
        return []
    if (t - design @ slope) @ (t - design @ slope) > 1e-16 * len(t) + 1e-12 * (t @ t):
        return []
    if len(np.unique(design.round(9), axis=0)) < used.sum() + FREE_ROWS:
        return []  # fewer kinds of units than it takes to tell: any treatment of them would be a sum
    names = [str(c) for c in X.columns[keep]]
    return [name for name, b in zip(names, slope, strict=True) if abs(b) > 1e-6]
