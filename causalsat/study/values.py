"""Checks of the table: missing, infinite and constant values, arms, clusters, weights, strata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from causalsat.study.columns import list_names
from causalsat.study.report import Finding, Level

MISSING_CODES = (-9, -88, -98, -99, -888, -998, -999, -9999, 9999, 99999)
MISSING_WORDS = ("refus", "don't know", "dont know", "not applicable", "no answer", "missing", "n/a")
FEW_CLUSTERS = 30


def identity(study: Any, v: Any) -> Iterator[Finding]:
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


def missing(study: Any, v: Any) -> Iterator[Finding]:
    """Missing values of roles (errors) and of covariates (imputed by the estimators)."""
    todo = {
        "outcome": "drop these units, study.subset(~np.isnan(study.y)), if missingness depends neither on the "
        "treatment nor on the outcome; otherwise report bounds too (Lee 2009)",
        "treatment": "drop these units, or code them as control if that is what they are",
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
            by_arm = _by_arm(study.units[column].isna().to_numpy(), v.t) if role == "outcome" else ""
            what = f"{role} {column!r} misses {count:,} of {n:,} values ({_share(count / n)}){by_arm}"
            yield Finding("error", "missing values", what, todo[role])
    shares = study.units[list(study.covariates)].isna().mean()
    shares = shares[shares > 0].sort_values(ascending=False)
    if len(shares):
        level: Level = "warning" if shares.iloc[0] > 0.2 else "note"
        listed = list_names((f"{c} {_share(s)}" for c, s in shares.items()), 6)
        advice = "estimators replace them by the training mean and add an indicator column"
        if level == "warning":
            advice = f"ask why {shares.index[0]!r} is missing and consider leaving it out; {advice}"
        yield Finding(level, "missing values", f"covariates miss values: {listed}", advice, shares)


def _share(p: float) -> str:
    return "under 0.1 %" if 0 < p < 0.001 else f"{100 * p:.1f} %"


def _by_arm(gone: Any, t: Any) -> str:
    if t is None or not v_binary(t) or gone.all():
        return ""
    rates = [gone[t == arm].mean() if (t == arm).any() else np.nan for arm in (1, 0)]
    return f": {_share(rates[0])} of treated, {_share(rates[1])} of control"


def v_binary(t: Any) -> bool:
    """Whether the treatment has both values 0 and 1 and no other."""
    return t is not None and set(np.unique(t[~np.isnan(t)])) == {0.0, 1.0}


def outcome(study: Any, v: Any) -> Iterator[Finding]:
    """Outcome that is no number, constant, binary, or has a few huge values."""
    if v.y is None:
        yield Finding("error", "outcome", *v.problems["y"])
        return
    y = v.y[np.isfinite(v.y)]
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


def infinite(study: Any, v: Any) -> Iterator[Finding]:
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


def covariates(study: Any, v: Any) -> Iterator[Finding]:
    """Covariates that are constant, text, or hold codes for missing."""
    frame = study.units[list(study.covariates)]
    constant = [c for c in frame.columns if frame[c].nunique(dropna=True) < 2]
    if constant:
        yield Finding(
            "warning",
            "constant columns",
            f"{list_names(constant, 6)} {'have' if len(constant) > 1 else 'has'} at most one value",
            "leave out of covariates: it carries no information",
            constant,
        )
    text = [c for c in frame.columns if not _numeric(frame[c])]
    if text:
        yield Finding(
            "warning",
            "text covariates",
            f"{list_names(text, 6)} {'hold' if len(text) > 1 else 'holds'} text or dates, not numbers",
            "encode them in the pipeline (sklearn OneHotEncoder), turn them into numbers, or leave them out",
            text,
        )
    coded = [f"{c} ({what})" for c in frame.columns if (what := _missing_codes(study, c))]
    if coded:
        yield Finding(
            "warning",
            "missing codes",
            f"values that look like codes for missing: {list_names(coded, 5)}",
            "if so, replace them before: units = units.replace({column: {code: None}})",
            coded,
        )


def _numeric(values: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values.dtype))


def _missing_codes(study: Any, column: str) -> str:
    values = study.units[column]
    labels = study.value_labels.get(column, {})
    spoken = [k for k, word in labels.items() if any(w in str(word).casefold() for w in MISSING_WORDS)]
    hits = [f"{k:g} = {labels[k]}" for k in spoken if (values == k).any()]
    if hits or not _numeric(values) or values.dtype.kind == "b" or values.nunique() < 3:
        return ", ".join(hits)
    rest = values[~values.isin(MISSING_CODES)].dropna()
    present = [c for c in MISSING_CODES if (values == c).any()]
    if not len(rest) or not present:
        return ""
    low, high = float(rest.min()), float(rest.max())
    alone = [c for c in present if (c < 0 <= low) or c > 10 * max(abs(high), 1)]
    return ", ".join(f"{c} in {int((values == c).sum())} units" for c in alone)


def arms(study: Any, v: Any) -> Iterator[Finding]:
    """Arms that are absent, miscoded, small or uneven."""
    if v.t is None:
        yield Finding("error", "treatment", *v.problems["t"])
        return
    t = v.t[np.isfinite(v.t)]
    values, counts = np.unique(t, return_counts=True)
    if len(values) < 2:
        shown = list_names(f"{x:g}" for x in values) or "none"
        yield Finding(
            "error",
            "treatment",
            f"the treatment has one value only ({shown})",
            "an effect needs treated and control units: check the column and the filter",
        )
    elif len(values) == 2 and not v_binary(v.t):
        low, high = values
        yield Finding(
            "error",
            "treatment",
            f"the treatment is coded {low:g} ({counts[0]:,} units) and {high:g} ({counts[1]:,})",
            f"say which is treated: Study(..., treated={high:g})",
        )
    elif len(values) > 2:
        yield Finding(
            "note",
            "treatment",
            f"the treatment has {len(values):,} values from {values[0]:g} to {values[-1]:g}: a dose or several arms",
            "use an estimator for such treatments, or keep two arms and name the treated one with treated=",
        )
    else:
        yield from _two_arms(study, v, int(counts[1]), int(counts[0]))


def _two_arms(study: Any, v: Any, treated: int, control: int) -> Iterator[Finding]:
    share = treated / (treated + control)
    data = {"treated": treated, "control": control, "share": share}
    if min(treated, control) < 30 or not 0.1 <= share <= 0.9:
        yield Finding(
            "warning",
            "arms",
            f"{treated:,} treated and {control:,} control ({share:.1%} treated)",
            "the small arm limits precision: expect wide intervals and prefer few effect moderators",
            data,
        )
    if v.groups is None:
        return
    clusters = pd.DataFrame({"g": v.groups, "t": v.t}).dropna().groupby("g")["t"]
    in_arm = {arm: int((clusters.max() == 1).sum() if arm else (clusters.min() == 0).sum()) for arm in (1, 0)}
    if min(in_arm.values()) < 10 and len(clusters) > 1:
        yield Finding(
            "warning",
            "arms",
            f"{in_arm[1]} clusters have treated and {in_arm[0]} have control units",
            "cluster-robust standard errors are too small with fewer than 10 clusters in an arm: use "
            "randomisation inference (evaluation.permutation_test) beside them",
            in_arm,
        )


def clusters(study: Any, v: Any) -> Iterator[Finding]:
    """Few clusters, none, and clusters that hold both arms."""
    if v.groups is None:
        return
    codes = pd.Series(v.groups)
    n = codes.nunique()
    if n < 2:
        yield Finding("error", "clusters", f"all units are in {n} cluster", "name another column as cluster")
    elif n < FEW_CLUSTERS:
        yield Finding(
            "warning",
            "clusters",
            f"{n} clusters, fewer than {FEW_CLUSTERS}",
            "cluster-robust standard errors are too small: report randomisation inference too, and use few folds",
        )
    if not v_binary(v.t):
        return
    share = pd.Series(v.t).groupby(codes).mean()
    sizes = codes.value_counts()
    large = share[(sizes.reindex(share.index) > 1).to_numpy()]
    mixed = large[(large > 0) & (large < 1)]
    if not len(mixed):
        return
    data = mixed.rename("treated_share")
    inside = int(codes.isin(mixed.index).sum())
    fact = f"{len(mixed):,} of {n:,} clusters hold both treated and control units ({inside:,} units)"
    if len(mixed) >= 0.9 * len(large):
        yield Finding(
            "note",
            "mixed clusters",
            fact,
            "assignment was within clusters: clustered standard errors are conservative here",
            data,
        )
        return
    few = len(mixed) <= 0.1 * len(large)
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


def weights(study: Any, v: Any) -> Iterator[Finding]:
    """Weights that are negative, all zero or very uneven."""
    if "weights" in v.problems:
        yield Finding("error", "weights", *v.problems["weights"])
    if v.weights is None:
        return
    w = v.weights[np.isfinite(v.weights)]
    if (w < 0).any():
        yield Finding(
            "error", "weights", f"{int((w < 0).sum())} weights are negative (lowest {w.min():g})", "check the column"
        )
    elif w.sum() <= 0:
        yield Finding("error", "weights", "all weights are zero", "check the column, or leave weights out")
    elif (effective := w.sum() ** 2 / (w**2).sum()) < 0.5 * len(w):
        yield Finding(
            "note",
            "weights",
            f"the weights are uneven: {len(w):,} units count as {effective:,.0f}",
            "report results without weights beside those with them, or trim the largest",
        )


def strata(study: Any, v: Any) -> Iterator[Finding]:
    """Strata in which only one arm occurs, and clusters that lie in several."""
    labels = study.strata
    if labels is None or not v_binary(v.t):
        return
    if v.groups is not None:
        yield from _split_clusters(pd.DataFrame({"cluster": v.groups, "arm": v.t, "stratum": labels}).dropna())
    spread = pd.Series(v.t).groupby(pd.Series(labels)).agg(["min", "max", "size"])
    single = spread[spread["min"] == spread["max"]]
    if len(single):
        yield Finding(
            "warning",
            "strata",
            f"{len(single)} of {len(spread)} strata have one arm only ({int(single['size'].sum()):,} units), such as "
            f"{list_names(single.index, 3)}",
            "they say nothing about the effect within strata: merge small strata or leave these units out",
            single,
        )


def _split_clusters(table: pd.DataFrame) -> Iterator[Finding]:
    """Clusters in several strata, where clusters (or their arms) were assigned and not single units."""
    mixed = table.groupby("cluster")["arm"].nunique() > 1
    if mixed.mean() > 0.5:
        return
    within = table.groupby(["cluster", "arm"])["stratum"].nunique()
    split = within[within > 1].index.get_level_values("cluster").unique()
    if len(split):
        yield Finding(
            "error",
            "strata",
            f"{len(split):,} of {len(mixed):,} clusters lie in several strata, such as {list_names(split, 3)}",
            "strata are those within which whole clusters were drawn: give each cluster one, or leave strata out and "
            "pass the column as a covariate",
            split.to_series(),
        )
