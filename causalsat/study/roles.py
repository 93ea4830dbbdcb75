"""Checks of the design: arms, clusters, strata and weights, and whether they make one design."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from causalsat.core.names import list_names, shown
from causalsat.core.treatment import for_arms, for_doses, is_dose
from causalsat.exceptions import CausalsatError
from causalsat.study.report import Finding

__all__ = ["arms", "clusters", "strata", "take_up", "weights", "whole"]

FEW_CLUSTERS = 30
FEW_IN_ARM = 10
N_FOLDS = 5  # of analyse


# ---------------------------------------------------------------------- arms
def arms(study: Any, a: Any) -> Iterator[Finding]:
    """Arms that are absent, miscoded, several, small or uneven."""
    if a.t is None:
        yield Finding("error", "treatment", *a.problems["t"])
        return
    t = a.without_codes("treatment", study)
    values, counts = np.unique(t, return_counts=True)
    if len(values) < 2:
        listed = list_names(f"{x:g}" for x in values) or "none"
        yield Finding(
            "error",
            "treatment",
            f"the treatment has one value only ({listed})",
            "an effect needs treated and control units: check the column and the filter",
        )
    elif study.has_arms:
        yield from _declared(study, a, values, counts)
    elif len(values) > 2:
        yield _several(study, values, counts)
    elif set(values) != {0.0, 1.0}:
        low, high = (shown(v) for v in values)
        yield Finding(
            "error",
            "treatment",
            f"the treatment is coded {low} ({counts[0]:,} units) and {high} ({counts[1]:,})",
            f"look in the codebook which of them received the treatment, and say so: Study(..., treated={high}) or "
            f"Study(..., treated={low}); the sign of every effect depends on it",
        )
    elif a.is_binary:
        yield from _two_arms(a, int(counts[1]), int(counts[0]))


def _several(study: Any, values: Any, counts: Any) -> Finding:
    """More than two values: arms, by their labels or as whole numbers, or a dose."""
    only_two = "analyse() and estimators of binary treatments take two arms only"
    if is_dose(values):
        return Finding(
            "note",
            "treatment",
            f"the treatment has {len(values):,} values from {values[0]:g} to {values[-1]:g}: a dose",
            f"{for_doses()}: study.fit(...). {only_two}",
            stops_analyse=True,
        )
    names = study.arms
    listed = list_names((_arm(v, n, names) for v, n in zip(values, counts, strict=True)), 8)
    kind = "labelled arms" if names else "values, several arms or a dose of few steps"
    doubt = "" if names else f" If the values are amounts of one treatment: {for_doses()}."
    return Finding(
        "warning",
        "treatment",
        f"the treatment has {len(values)} {kind}: {listed}",
        f"{for_arms()}. {only_two}.{doubt} A regression on codes of arms is the effect of none of them",
        stops_analyse=True,
    )


def _declared(study: Any, a: Any, values: Any, counts: Any) -> Iterator[Finding]:
    """Arms of which one is named as control: how many units and clusters each has."""
    names = study.arms
    listed = list_names((_arm(v, n, names) for v, n in zip(values, counts, strict=True)), 8)
    yield Finding(
        "note",
        "arms",
        f"{len(values)} arms: {listed}; control is {names[0]!r}",
        "analyse() compares every arm with control and with each other; single effects are those of ArmsEffect",
    )
    in_arm = counts
    if a.clusters is not None:
        pairs = pd.DataFrame({"cluster": a.clusters, "arm": a.t})[(a.clusters >= 0) & np.isfinite(a.t)]
        in_arm = pairs.drop_duplicates().groupby("arm").size().reindex(values).to_numpy()
    if in_arm.min() < FEW_IN_ARM:
        kind = "units" if a.clusters is None else "clusters"
        yield Finding(
            "warning" if in_arm.min() >= 2 else "error",
            "arms",
            f"the arm {names[int(values[in_arm.argmin()])]!r} has {int(in_arm.min())} {kind}",
            "so few leave few degrees of freedom and wide intervals"
            if in_arm.min() >= 2
            else "a variance needs two: leave the arm out, study.subset(...)",
        )
    unbuilt = study.outcome_predicted or (
        a.y is not None and np.isnan(a.y).any() and study.missing_outcome == "weight"
    )
    if unbuilt:
        yield Finding(
            "error",
            "arms",
            "several arms with missing or predicted outcomes, which analyse() does not correct",
            "keep one arm and control at a time: study.subset(...).replace(treated=arm)",
            stops_analyse=True,
        )
    if a.propensity is not None:
        yield Finding(
            "error",
            "propensity",
            f"one propensity for {len(values)} arms",
            "leave propensity out: the shares of the arms (in each stratum) are used",
            stops_analyse=True,
        )


# ---------------------------------------------------------------------- take-up
def take_up(study: Any, a: Any) -> Iterator[Finding]:
    """Take-up that is missing, not 0/1, the assignment itself, or hardly moved by it."""
    if "take_up" not in study.roles:
        return
    column = study.roles["take_up"]
    try:
        d = study.take_up
    except CausalsatError as error:
        yield Finding("error", "take-up", error.what, error.todo or "code it as 0 and 1")
        return
    known = np.isfinite(d)
    if not known.all():
        yield Finding(
            "error",
            "take-up",
            f"{int((~known).sum()):,} of {len(d):,} units have no value of {column!r}",
            "code them 0 only if they did not take the treatment up; else leave them out: study.subset(...)",
        )
    if not np.isin(d[known], (0.0, 1.0)).all():
        yield Finding(
            "error",
            "take-up",
            f"take-up {column!r} has other values than 0 and 1",
            "say who took the treatment up with 0 and 1; for amounts use linearmodels.IV2SLS",
        )
        return
    if not a.is_binary:
        yield Finding(
            "error",
            "take-up",
            "take-up of a treatment that is not two arms",
            "keep one arm and control, or leave take_up out; for several arms with take-up use linearmodels.IV2SLS",
            stops_analyse=True,
        )
        return
    if a.y is not None and np.isnan(a.y).any():
        yield Finding(
            "warning",
            "take-up",
            "take-up together with missing outcomes: analyse() leaves the effect on compliers out",
            "estimate it on the respondents, causalsat.evaluation.compliance, and say so, or use linearmodels.IV2SLS "
            "with weights of response",
        )
    yield from _first_stage(study, d, a.t, known & np.isfinite(a.t))


def _first_stage(study: Any, d: Any, t: Any, known: Any) -> Iterator[Finding]:
    column, assigned = study.roles["take_up"], study.roles["treatment"]
    share = [float(d[known & (t == arm)].mean()) for arm in (0, 1)]
    fact = f"take-up {column!r} is {share[1]:.1%} of the assigned and {share[0]:.1%} of the control units"
    if (d[known] == t[known]).all():
        yield Finding(
            "warning",
            "take-up",
            f"take-up {column!r} equals the treatment {assigned!r}",
            "if everybody did as assigned, leave take_up out; if the treatment column already is who took it up, "
            "name the assignment as treatment: those who chose to take it up differ from the others",
        )
    elif share[1] <= share[0]:
        yield Finding(
            "warning",
            "take-up",
            fact,
            "assignment should raise take-up: check that neither column is turned around",
        )
    else:
        gap = share[1] - share[0]
        few = gap < 0.1
        yield Finding(
            "warning" if few else "note",
            "take-up",
            f"{fact}: {gap:.1%} are compliers",
            ("so few compliers leave wide intervals; read the Anderson-Rubin interval. " if few else "")
            + "analysis.compliance has the effect on compliers; every other row is the intention to treat",
            {"assigned": share[1], "control": share[0]},
        )


def _arm(value: float, count: int, names: Any) -> str:
    name = names.get(value, names.get(int(value)) if float(value).is_integer() else None)
    return f"{shown(value)}{'' if name is None else f' = {name}'} ({count:,} units)"


def _two_arms(a: Any, treated: int, control: int) -> Iterator[Finding]:
    share = treated / (treated + control)
    if min(treated, control) < 30 or not 0.1 <= share <= 0.9:
        yield Finding(
            "warning",
            "arms",
            f"{treated:,} treated and {control:,} control ({share:.1%} treated)",
            "the small arm limits precision: expect wide intervals and prefer few effect moderators",
            {"treated": treated, "control": control, "share": share},
        )
    if a.clusters is None:
        return
    lowest, highest = a.arms_of_clusters
    in_arm = {1: int((highest == 1).sum()), 0: int((lowest == 0).sum())}
    if min(in_arm.values()) < FEW_IN_ARM and a.n_clusters > 1:
        folds = (
            ""
            if min(in_arm.values()) >= N_FOLDS
            else (f"; analyse() needs n_folds of at most {max(min(in_arm.values()), 2)}")
        )
        yield Finding(
            "warning",
            "arms",
            f"{in_arm[1]} clusters have treated and {in_arm[0]} have control units",
            "so few clusters leave few degrees of freedom: intervals of averages allow for them (CR2, Satterthwaite) "
            f"and are wide, and those of single places rest on a model of so few clusters{folds}",
            in_arm,
        )


# ---------------------------------------------------------------------- clusters
def clusters(study: Any, a: Any) -> Iterator[Finding]:
    """Few clusters, none, and clusters that hold both arms."""
    if a.clusters is None:
        return
    n = a.n_clusters
    if n < 2:
        yield Finding("error", "clusters", f"all units are in {n} cluster", "name another column as cluster")
    elif n < FEW_CLUSTERS:
        yield Finding(
            "warning",
            "clusters",
            f"{n} clusters, fewer than {FEW_CLUSTERS}",
            "intervals of averages allow for few clusters (CR2, Satterthwaite) and are wide; where effects differ "
            "between places so few clusters hardly show: use few folds and few effect moderators",
        )
    if not a.is_binary:
        return
    mixed = a.are_mixed
    if not mixed.any():
        return
    inside = a.clusters >= 0
    size = np.bincount(a.clusters[inside], minlength=n)
    large = int((size > 1).sum())
    units = int(size[mixed].sum())
    fact = f"{int(mixed.sum()):,} of {n:,} clusters hold both treated and control units ({units:,} units)"
    data = _treated_shares(study, a, mixed)
    if mixed.sum() >= 0.9 * large:
        todo = "assignment was within clusters: clustered standard errors are conservative here"
        yield Finding("note", "mixed clusters", fact, todo, data)
        return
    few = mixed.sum() <= 0.1 * large
    yield Finding(
        "warning" if few else "note",
        "mixed clusters",
        fact,
        "if whole clusters were assigned, look for units merged into the wrong cluster (list: .data)"
        if few
        else "if groups within these clusters were assigned, clustered standard errors are conservative; otherwise "
        "check the merge",
        data,
    )


def _treated_shares(study: Any, a: Any, mixed: Any) -> pd.Series:
    rows = (a.clusters >= 0) & np.isfinite(a.t)
    share = np.bincount(a.clusters[rows], a.t[rows], minlength=len(mixed)) / np.maximum(
        np.bincount(a.clusters[rows], minlength=len(mixed)), 1
    )
    return pd.Series(share[mixed], index=_names_of(study.groups, a.clusters)[mixed], name="treated_share")


def _names_of(labels: Any, codes: Any) -> pd.Index:
    """The label of each code."""
    first = np.unique(codes[codes >= 0], return_index=True)[1]
    return pd.Index(np.asarray(labels)[codes >= 0][first])


# ---------------------------------------------------------------------- strata
def strata(study: Any, a: Any) -> Iterator[Finding]:
    """Strata that are the clusters, or hold one arm only; clusters that lie in several."""
    if a.strata is not None and not study.randomised:
        yield Finding(
            "note",
            "strata",
            "strata are named, but treatment was not randomised within them: no estimate uses them",
            "where units are comparable within strata only, make them covariates: pandas.get_dummies(units[strata])",
        )
    if a.strata is None or not a.is_binary:
        return
    n, n_units = int(a.strata.max(initial=-1)) + 1, len(study)
    both = np.ones(n_units, dtype=bool) if a.clusters is None else a.clusters >= 0
    both &= a.strata >= 0
    codes = np.arange(n_units) if a.clusters is None else a.clusters
    cells = np.unique(codes[both] * np.int64(n) + a.strata[both])
    present = len(np.unique(codes[both]))
    if len(cells) > present:
        yield from _split_clusters(study, a, cells // n, present)
    elif n == present > 1:
        yield _same_as_clusters(a, n)
        return
    yield from _single_armed(study, a, n)


def _same_as_clusters(a: Any, n: int) -> Finding:
    if a.clusters is None:
        what, todo = (
            f"each of the {n:,} units is a stratum of its own",
            "name the blocks or pairs, or leave strata out",
        )
    elif a.are_mixed.mean() > 0.5:
        what = f"the {n:,} strata are the clusters themselves, which hold both arms"
        todo = "units were assigned within them: keep them as strata and leave cluster out"
    else:
        what = f"the {n:,} strata are the clusters themselves: each holds one arm, and no comparison"
        todo = "name the strata within which clusters were drawn (districts, blocks, pairs), or leave strata out"
    return Finding("error", "strata", what, todo)


def _split_clusters(study: Any, a: Any, of_cells: Any, present: int) -> Iterator[Finding]:
    several = np.flatnonzero(np.bincount(of_cells) > 1)
    names = _names_of(study.groups, a.clusters)[several]
    within = a.are_mixed.mean() > 0.5
    yield Finding(
        "error",
        "strata",
        f"{len(several):,} of {present:,} clusters lie in several strata, such as {list_names(names, 3)}",
        "units were assigned within clusters and strata: name one column of both as strata, and leave cluster out"
        if within
        else "strata are those within which whole clusters were drawn: give each cluster one, or leave strata out "
        "and pass the column as a covariate",
        names.to_series(),
    )


def _single_armed(study: Any, a: Any, n: int) -> Iterator[Finding]:
    rows = (a.strata >= 0) & np.isfinite(a.t)
    size = np.bincount(a.strata[rows], minlength=n)
    treated = np.bincount(a.strata[rows], a.t[rows], minlength=n)
    single = (size > 0) & ((treated == 0) | (treated == size))
    if not single.any():
        return
    names, units = _names_of(study.strata, a.strata)[single], int(size[single].sum())
    if single.all():
        what = (
            f"{n} of {n} strata have one arm only: the strata tell the arms apart, and no comparison is left in them"
        )
        todo = "name the strata within which treatment was drawn; these were made from it, or from who received it"
    else:
        what = (
            f"{int(single.sum())} of {n} strata have one arm only ({units:,} units), such as {list_names(names, 3)}"
        )
        todo = (
            "they hold no comparison: leave their units out and say so, or join strata that were drawn together; "
            "with the design's propensity= they may stay"
        )
    stated = a.propensity is not None and not single.all()
    yield Finding(
        "warning" if stated or not study.randomised else "error",
        "strata",
        what,
        todo,
        pd.DataFrame({"size": size[single], "treated": treated[single]}, index=names),
    )


# ---------------------------------------------------------------------- weights
def weights(study: Any, a: Any) -> Iterator[Finding]:
    """Weights that are negative, zero, in one hand or very uneven."""
    if "weights" in a.problems:
        yield Finding("error", "weights", *a.problems["weights"])
    if a.weights is None:
        return
    known = np.isfinite(a.weights)
    w = a.weights[known]
    if (w < 0).any():
        yield Finding(
            "error", "weights", f"{int((w < 0).sum())} weights are negative (lowest {w.min():g})", "check the column"
        )
        return
    if w.sum() <= 0:
        yield Finding("error", "weights", "all weights are zero", "check the column, or leave weights out")
        return
    yield from _zeros(a, w, known)
    parts = {"": w}
    if a.is_binary:
        parts = {f" of {name} units": w[a.t[known] == arm] for arm, name in ((1, "treated"), (0, "control"))}
    for whose, part in parts.items():
        yield from _concentrated(whose, part)
    if (effective := w.sum() ** 2 / (w**2).sum()) < 0.5 * len(w):
        yield Finding(
            "note",
            "weights",
            f"the weights are uneven: {len(w):,} units count as {effective:,.0f}",
            "report results without weights beside those with them, or trim the largest",
        )


def _zeros(a: Any, w: Any, known: Any) -> Iterator[Finding]:
    zero = w == 0
    if not zero.any():
        return
    if a.is_binary:
        for arm, name in ((1, "treated"), (0, "control")):
            if zero[a.t[known] == arm].all():
                yield Finding(
                    "error",
                    "weights",
                    f"all {name} units have weight zero",
                    "an effect needs both arms: check the column, or leave weights out",
                )
                return
    lost = ""
    if a.clusters is not None:
        inside = a.clusters[known]
        left = len(np.unique(inside[~zero & (inside >= 0)]))
        lost = f", and {a.n_clusters - left:,} of {a.n_clusters:,} clusters with them"
    yield Finding(
        "note",
        "weights",
        f"{int(zero.sum()):,} of {len(w):,} units have weight zero and count for nothing{lost}",
        "leave them out, study.subset(study.weights > 0), if they are no part of the population; otherwise give them "
        "their weight",
    )


def _concentrated(whose: str, w: Any) -> Iterator[Finding]:
    if len(w) < 10 or not w.sum() > 0:
        return
    share = float(w.max() / w.sum())
    if share > 0.2:
        yield Finding(
            "error" if share > 0.5 else "warning",
            "weights",
            f"one unit holds {share:.0%} of the weight{whose}",
            "its outcome is the estimate: check the weight, and trim or drop it",
            share,
        )


# ---------------------------------------------------------------------- all of it
def whole(study: Any, findings: list[Finding]) -> Iterator[Finding]:
    """What keeps the roles from being one design, where no other check has said it."""
    if any(f.level == "error" for f in findings):
        return
    try:
        design = study.design
        _ = design.probability
    except CausalsatError as error:
        yield Finding("error", "design", error.what, error.todo or error.expected or "check the roles")
