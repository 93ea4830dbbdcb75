"""A declared probability of treatment against the treated shares, and a treatment that the covariates predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.study.arrays import probability_bins
from causalsat.study.report import Finding

__all__ = ["contradiction", "predicted_treatment", "propensity", "within_auc"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PREDICTABLE_AUC = 0.6
CONTRADICTED = 6.0  # standard errors
MAX_NEWTON = 80  # columns up to which the Hessian of a logistic regression is cheap


def propensity(study: Any, a: Any) -> Iterator[Finding]:
    """A declared propensity that cannot be right, and a treatment that the covariates predict."""
    if "propensity" in a.problems:
        yield Finding("error", "propensity", *a.problems["propensity"])
    yield from _declared(study, a)
    yield from _observational(study, a)
    X = a.honest
    if not a.is_binary or not X.shape[1]:
        return
    known = np.isfinite(a.t)
    filled = X.to_numpy()[known]
    gone = np.isnan(filled)
    keep = ~gone.all(axis=0)
    filled = np.where(gone, np.nanmean(np.where(keep, filled, 0.0), axis=0), filled)
    often = gone.mean(axis=0) > 0.02  # a rarer indicator only separates a few units
    design = np.column_stack([filled[:, keep], gone[:, often & keep]])
    t, clusters = a.t[known], None if a.clusters is None else a.clusters[known]
    n_groups = len(t) if clusters is None else len(np.unique(clusters))
    if min(int(t.sum()), int((1 - t).sum()), n_groups) < 10:
        return
    blocks = a.blocks if study.randomised else None
    yield from _predictable(study, design, t, clusters, None if blocks is None else blocks[known])


# ---------------------------------------------------------------------- the declared probability
@dataclass(frozen=True)
class Contradiction:
    """Where a stated probability of treatment and the treated share lie furthest apart.

    Attributes
    ----------
    stated, share : float
        Mean probability and treated share of those units.
    n : int
        Number of units.
    errors : float
        Standard errors between them.
    """

    stated: float
    share: float
    n: int
    errors: float


def contradiction(t: FloatArray, e: FloatArray, assigned: IntArray) -> Contradiction:
    r"""Where the treated share lies furthest from the stated probability, over all units and over its values.

    Treatment less probability sums to zero over clusters, with a variance of at most
    :math:`\sum_c (\sum_{i \in c} \sqrt{e_i (1 - e_i)})^2`: that of whole clusters assigned one by one. Assignment
    within strata, or of a fixed number of clusters, varies less.

    Parameters
    ----------
    t, e : ndarray of shape (n,)
        Treatment, 0 or 1, and probability, both complete.
    assigned : ndarray of int of shape (n,)
        What was assigned: clusters or units.

    Examples
    --------
    >>> t = np.tile([0.0, 1.0], 200)
    >>> found = contradiction(t, np.full(400, 0.01), np.arange(400))
    >>> found.share, round(found.errors)
    (0.5, 98)
    """
    bins = probability_bins(e)
    results = []
    for rows in [np.ones(len(t), dtype=bool), *(bins == b for b in range(bins.max() + 1) if bins.max() > 0)]:
        _, codes = np.unique(assigned[rows], return_inverse=True)
        excess = float((t[rows] - e[rows]).sum())
        spread = np.bincount(codes, np.sqrt(e[rows] * (1 - e[rows])))
        errors = abs(excess) / max(float(np.sqrt(spread @ spread)), 1e-300)
        results.append(Contradiction(float(e[rows].mean()), float(t[rows].mean()), int(rows.sum()), errors))
    return max(results, key=lambda r: r.errors)


def _declared(study: Any, a: Any) -> Iterator[Finding]:
    e, t = a.propensity, a.t
    if e is None:
        return
    finite = e[np.isfinite(e)]
    if ((finite <= 0) | (finite >= 1)).any():
        yield Finding(
            "error",
            "propensity",
            f"the propensity runs from {finite.min():g} to {finite.max():g}",
            "probabilities lie strictly between 0 and 1: leave out units that could only be in one arm",
        )
        return
    both = np.isfinite(e) & (np.isfinite(t) if t is not None else False)
    if not a.is_binary or not both.any():
        return
    worst = contradiction(t[both], e[both], a.assigned[both])
    apart, far = worst.errors > CONTRADICTED, abs(worst.stated - worst.share) > 0.05
    if not apart and abs(e[both].mean() - t[both].mean()) <= 0.1:
        return
    reversed_ = contradiction(t[both], 1 - e[both], a.assigned[both]).errors < 3
    hint = (
        "it fits the probability of control: pass 1 - propensity"
        if reversed_
        else (
            "check that it is the probability of treatment and not of control, that it is that of these units (after "
            "attrition and filters), and that its column was merged by the right key"
        )
    )
    yield Finding(
        "error" if apart and far and study.randomised else "warning",
        "propensity",
        f"the propensity is {worst.stated:.3f} on average for {worst.n:,} units, but {worst.share:.3f} of them are "
        f"treated ({worst.errors:.1f} standard errors apart)",
        f"{hint}; weights by the inverse of a wrong probability bias every estimate that uses it",
        worst,
    )


def _observational(study: Any, a: Any) -> Iterator[Finding]:
    if study.randomised or not a.is_binary:
        return
    images = "" if study.imagery is None else ", ImageConfounding for what images show"
    yield Finding(
        "note",
        "propensity",
        "nobody randomised: effects rest on the covariates (and images) that explain who was treated",
        f"name all of them as covariates{images}; look at evaluation.overlap and evaluation.sensitivity",
    )


# ---------------------------------------------------------------------- whether covariates predict it
def predicted_treatment(X: FloatArray, t: FloatArray, groups: Any = None, seed: int = 0) -> FloatArray:
    """Probability of treatment from a logistic regression, cross-fitted over five folds of clusters, shape (n,)."""
    from sklearn.linear_model import LogisticRegression

    spread = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    fold = _folds(t, np.arange(len(t)) if groups is None else pd.factorize(np.asarray(groups))[0], seed)
    newton = Z.shape[1] <= min(MAX_NEWTON, len(t) // 10)
    out = np.empty(len(t))
    for k in range(fold.max() + 1):
        train = fold != k
        model = LogisticRegression(C=1.0, max_iter=500, solver="newton-cholesky" if newton else "lbfgs")
        out[~train] = model.fit(Z[train], t[train].astype(int)).predict_proba(Z[~train])[:, 1]
    return out


def _folds(t: FloatArray, clusters: IntArray, seed: int, n_folds: int = 5) -> IntArray:
    """Fold of each unit: clusters stay whole and are dealt in a random order, within their arm, fold by fold."""
    n = int(clusters.max()) + 1
    share = np.bincount(clusters, t, minlength=n) / np.maximum(np.bincount(clusters, minlength=n), 1)
    arm = np.where(share <= 0, 0, np.where(share >= 1, 2, 1))
    shuffled = np.random.default_rng(seed).permutation(n)
    order = shuffled[np.argsort(arm[shuffled], kind="stable")]
    fold = np.empty(n, dtype=np.int64)
    fold[order] = np.arange(n) % n_folds
    return fold[clusters]


def within_auc(t: FloatArray, score: FloatArray, blocks: IntArray | None = None) -> float:
    """Chance that a treated unit's score is above that of a control unit (of its block), ties counted half.

    Examples
    --------
    >>> within_auc(np.array([0.0, 1, 0, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    0.75
    >>> within_auc(np.array([0.0, 1, 0, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]))
    1.0
    """
    block = np.zeros(len(t), dtype=np.int64) if blocks is None else blocks - blocks.min()
    order = np.lexsort((score, block))
    value, home, treated = score[order], block[order], t[order] == 1
    new = np.r_[True, (value[1:] != value[:-1]) | (home[1:] != home[:-1])]  # ties share their place
    tie = np.cumsum(new) - 1
    below = np.cumsum(~treated) - ~treated
    first = np.flatnonzero(new)
    ties = np.bincount(tie, ~treated)
    before = below[first] - np.r_[0, np.cumsum(np.bincount(home, ~treated))][home[first]]
    wins = float(((before + ties / 2)[tie] * treated).sum())
    pairs = float((np.bincount(home, treated) * np.bincount(home, ~treated)).sum())
    return wins / pairs if pairs else float("nan")


def _predictable(study: Any, X: FloatArray, t: FloatArray, clusters: Any, blocks: Any) -> Iterator[Finding]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils._testing import ignore_warnings

    with ignore_warnings(category=ConvergenceWarning):
        e = predicted_treatment(X, t, clusters)
    auc = within_auc(t, e, blocks)
    outside = float(((e < 0.1) | (e > 0.9)).mean()) if blocks is None else 0.0
    data = {"auc": auc, "lowest": float(e.min()), "highest": float(e.max()), "propensity": e}
    if not auc >= PREDICTABLE_AUC and outside < 0.05:
        return
    where = "" if blocks is None else " within strata"
    what = (
        f"the covariates predict the treatment{where}: AUC {auc:.2f} on held-out clusters, probabilities from "
        f"{e.min():.2f} to {e.max():.2f}" + (f", {outside:.1%} beyond 0.1 or 0.9" if outside else "")
    )
    if study.randomised:
        todo = (
            "in a randomised study nothing but strata predicts it: give strata= or propensity=, check whether each "
            "covariate was measured before treatment, check the merge, or say randomised=False"
        )
    else:
        todo = "adjust for them, look at evaluation.overlap, and leave out units without counterparts"
    serious = auc >= PREDICTABLE_AUC and (study.randomised or outside > 0.05)
    yield Finding("warning" if serious else "note", "propensity", what, todo, data)
