r"""Effects under spillovers: the direct effect net of the treatment of neighbours, and the effect of theirs.

Each cluster has an exposure: whether it is treated, and whether the treated share of the other clusters within r km
is high. The design says how probable each of the four exposures was: the treatment is drawn anew as it was assigned,
many times. Mean outcomes under an exposure are Hajek means with the inverse of these probabilities. Their variance
is that of Horvitz and Thompson for the residuals, with joint probabilities from the same draws. Pairs of clusters
that can never be seen together add the bound of Young's inequality, which makes the variance conservative in large
samples, also of a difference.

References
----------
Aronow and Samii (2017), "Estimating average causal effects under general interference, with application to a social
network experiment", Annals of Applied Statistics 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalsat.core.tables import Tabular
from causalsat.evaluation import checks
from causalsat.exceptions import DataError, ParameterError, TreatmentError
from causalsat.inference.conley import lon_lat, near_pairs, unit_vectors
from causalsat.inference.reassignment import randomisation_units
from causalsat.study.response import outcome_and_weights

__all__ = ["ExposureEffects", "exposure_effects"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

CONTRASTS = {
    "direct effect, few treated neighbours": ("treated, few", "control, few"),
    "direct effect, many treated neighbours": ("treated, many", "control, many"),
    "spillover on control": ("control, many", "control, few"),
    "spillover on treated": ("treated, many", "treated, few"),
}
MIN_PROBABILITY = 0.01


@dataclass(frozen=True, eq=False)
class ExposureEffects(Tabular):
    """Effects of own and of neighbours' treatment, for each radius.

    Attributes
    ----------
    table : DataFrame
        Index radius in km and effect; ``estimate, se, lower, upper, n_first, n_second, left_out``: clusters under
        both exposures of the contrast, and clusters whose probability of one of them is below 0.01, which are left
        out.
    threshold : dict of float to float
        Treated share of the neighbours above which it is high, for each radius.
    probabilities : dict of float to DataFrame
        Probability of each exposure, one row a cluster, for each radius.
    level : float
        Level of the intervals.
    n_draws : int
        Draws of the assignment.
    """

    table: pd.DataFrame
    threshold: dict[float, float]
    probabilities: dict[float, pd.DataFrame]
    level: float
    n_draws: int

    def to_dataframe(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()


def exposure_effects(
    study: Any,
    radii_km: float | Sequence[float],
    *,
    threshold: float | None = None,
    n_draws: int = 2000,
    level: float = 0.95,
    random_state: Any = 0,
) -> ExposureEffects:
    """Direct effects net of spillovers, and spillovers, by the treated share of the clusters within a radius.

    Parameters
    ----------
    study : Study
        A randomised study of two arms with places, whose clusters (units, where there are none) were assigned whole.
    radii_km : float or sequence of float
        Radii within which clusters are neighbours; to be chosen before outcomes are seen.
    threshold : float, optional
        Treated share of the neighbours above which they count as many; by default the median over clusters and draws
        of the assignment, which no outcome moves. Clusters without neighbours have the share 0.
    n_draws : int
        Draws of the assignment.
    level : float
        Level of the intervals, by a t reference of the effective numbers of clusters under both exposures.
    random_state : int or numpy.random.Generator
        Seed of the draws.

    Returns
    -------
    ExposureEffects

    Raises
    ------
    DataError, TreatmentError, ParameterError
        If the study was not randomised, clusters hold both arms, or no cluster has neighbours.

    Warns
    -----
    DataWarning
        Where outcomes are missing and the study does not weight for it.

    Notes
    -----
    Outcomes that a model predicted are corrected by their measured subset, and respondents are weighted, as the study
    says.

    Examples
    --------
    >>> from causalsat import Study
    >>> rng = np.random.default_rng(0)
    >>> t = rng.permutation(np.arange(200) % 2)
    >>> table = pd.DataFrame({"t": t, "lon": rng.uniform(32, 33, 200), "lat": rng.uniform(1, 2, 200)})
    >>> study = Study(table.assign(y=2.0 * t), outcome="y", treatment="t", lon="lon", lat="lat")
    >>> found = exposure_effects(study, 12, n_draws=500)
    >>> found.table["estimate"].abs().round(6).to_list()
    [2.0, 2.0, 0.0, 0.0]
    """
    level, n_draws = checks.level(level), checks.count(n_draws, "n_draws", 100)
    sites = _sites(study)
    radii = [float(r) for r in np.atleast_1d(np.asarray(radii_km, dtype=float))]
    if not radii or not all(np.isfinite(r) and r > 0 for r in radii):
        raise ParameterError(f"radii_km={radii_km!r}", expected="positive numbers of kilometres")
    rng = np.random.default_rng(random_state)
    n = len(sites.treated)
    code = np.arange(n)
    units = randomisation_units(sites.treated, code, sites.stratum)
    drawn = np.stack([units.reassign(sites.treated, rng) for _ in range(n_draws)])
    tables, thresholds, chances = {}, {}, {}
    for radius in radii:
        share_of = _neighbours(sites.degrees, radius)
        shares = drawn @ share_of.T
        limit = float(np.median(shares)) if threshold is None else float(threshold)
        conditions = _conditions(drawn, shares > limit)
        own = _conditions(sites.treated[None], (sites.treated @ share_of.T)[None] > limit)
        tables[radius] = pd.DataFrame(
            {name: _contrast(sites, conditions, own, pair, level) for name, pair in CONTRASTS.items()}
        ).T
        thresholds[radius] = limit
        chances[radius] = pd.DataFrame(
            {name: table.mean(axis=0) for name, table in conditions.items()}, index=sites.labels
        )
    table = pd.concat(tables, names=["radius_km", "effect"])
    return ExposureEffects(table, thresholds, chances, level, n_draws)


@dataclass(frozen=True, eq=False)
class _Sites:
    """Clusters: weighted mean outcome, weight, treatment, stratum and place."""

    outcome: FloatArray
    weight: FloatArray
    treated: FloatArray
    stratum: NDArray[np.int64]
    degrees: FloatArray
    labels: Any


def _sites(study: Any) -> _Sites:
    if not study.randomised:
        raise DataError(
            f"the study {study.name!r} was not randomised",
            expected="an assignment that can be drawn anew: exposure probabilities are those of the design",
            todo="R interference or spatial econometrics for observational data",
        )
    design = study.design
    if not design.is_binary:
        raise TreatmentError("a treatment of other values than 0 and 1", expected="two arms")
    y, w = outcome_and_weights(study)
    code = np.unique(design.cluster_codes, return_inverse=True)[1]
    low, high = np.full(code.max() + 1, 2.0), np.full(code.max() + 1, -1.0)
    np.minimum.at(low, code, design.treatment)
    np.maximum.at(high, code, design.treatment)
    if (low < high).any():
        raise TreatmentError(
            f"{int((low < high).sum())} of {len(low)} clusters hold both arms",
            expected="clusters that were assigned whole",
            todo="study.replace(cluster=None), where single units were assigned",
        )
    mass = np.bincount(code, w).astype(float)
    mean = np.divide(np.bincount(code, w * np.nan_to_num(y)), mass, out=np.zeros(len(mass)), where=mass > 0)
    xyz = unit_vectors(lon_lat(study.units, len(y)))
    middle = np.column_stack([np.bincount(code, column) for column in xyz.T])
    degrees = np.degrees(
        np.column_stack(
            [np.arctan2(middle[:, 1], middle[:, 0]), np.arctan2(middle[:, 2], np.hypot(middle[:, 0], middle[:, 1]))]
        )
    )
    stratum = np.zeros(len(low), dtype=np.int64)
    if design.strata is not None:
        stratum[code] = design.strata
    first = np.unique(code, return_index=True)[1]
    labels = pd.Index(study.units.index[first] if study.groups is None else np.asarray(study.groups)[first])
    order = np.lexsort((mean, *degrees.T.round(9)))  # draws do not depend on the order of the rows
    blocks = pd.factorize(stratum[order])[0].astype(np.int64)
    return _Sites(mean[order], mass[order], high[order], blocks, degrees[order], labels[order])


def _neighbours(degrees: FloatArray, radius: float) -> Any:
    """Sparse matrix whose product with the treatment is the treated share of the other clusters within the radius."""
    from scipy.sparse import coo_matrix

    i, j, _ = near_pairs(degrees, radius)
    apart = i != j
    i, j = i[apart], j[apart]
    if not len(i):
        raise DataError(
            f"no two clusters within {radius:g} km",
            expected="a radius that holds neighbours",
            todo="take a wider one",
        )
    count = np.bincount(i, minlength=len(degrees))
    return coo_matrix((1.0 / count[i], (i, j)), shape=(len(degrees),) * 2).tocsr()


def _conditions(treated: FloatArray, many: BoolArray) -> dict[str, BoolArray]:
    """Exposures, each (draw, cluster)."""
    on = treated > 0
    return {
        "control, few": ~on & ~many,
        "control, many": ~on & many,
        "treated, few": on & ~many,
        "treated, many": on & many,
    }


def _contrast(
    sites: _Sites, drawn: dict[str, BoolArray], own: dict[str, BoolArray], pair: tuple[str, str], level: float
) -> dict[str, float]:
    """Difference of two Hajek means among clusters that could have been in either exposure, conservative variance."""
    from scipy.stats import t

    chance = {name: drawn[name].mean(axis=0) for name in pair}
    possible = np.all([chance[name] >= MIN_PROBABILITY for name in pair], axis=0) & (sites.weight > 0)
    chance = {name: np.where(possible, own_chance, 0.0) for name, own_chance in chance.items()}
    seen = {name: own[name][0] & possible for name in pair}
    counts = {name: int(seen[name].sum()) for name in pair}
    out = {"n_first": counts[pair[0]], "n_second": counts[pair[1]], "left_out": int((~possible).sum())}
    blank = {"estimate": np.nan, "se": np.nan, "lower": np.nan, "upper": np.nan}
    if min(counts.values()) < 2:
        return {**blank, **out}
    total = sites.weight[possible].sum()
    means, error, size = {}, {}, {}
    for name in pair:
        inverse = sites.weight[seen[name]] / chance[name][seen[name]]
        means[name] = float(inverse @ sites.outcome[seen[name]] / inverse.sum())
        size[name] = float(inverse.sum() ** 2 / (inverse**2).sum())  # effective number of clusters
        scale = np.sqrt(size[name] / max(size[name] - 1, 0.5))  # residuals are about a mean that was estimated
        error[name] = scale * sites.weight * (sites.outcome - means[name]) / total
    first, second = pair
    variance = (
        _variance(error[first], seen[first], drawn[first], chance[first])
        + _variance(error[second], seen[second], drawn[second], chance[second])
        - 2 * _covariance(error, seen, drawn, chance, pair)
    )
    estimate, se = means[first] - means[second], float(np.sqrt(max(variance, 0.0)))
    half = t.ppf(0.5 + level / 2, max(sum(size.values()) - 2, 1.0)) * se
    return {"estimate": estimate, "se": se, "lower": estimate - half, "upper": estimate + half, **out}


def _variance(e: FloatArray, seen: BoolArray, drawn: BoolArray, chance: FloatArray) -> float:
    """Horvitz-Thompson variance with the correction for pairs that cannot be seen together (equations 7 and 9)."""
    rows = np.flatnonzero(seen)
    together = _joint(drawn[:, rows], drawn[:, rows])
    p, value = chance[rows], e[rows]
    scaled = value / p
    known = together > 0
    weight = np.where(known, 1 - np.outer(p, p) / np.where(known, together, 1.0), 0.0)
    np.fill_diagonal(weight, 1 - p)
    return float(scaled @ weight @ scaled) + _never_together(e, seen, drawn, chance)


def _never_together(e: FloatArray, seen: BoolArray, drawn: BoolArray, chance: FloatArray) -> float:
    """``sum_i sum_{j: pi_ij = 0} (e_i^2 / pi_i + e_j^2 / pi_j) / 2`` by its Horvitz-Thompson estimate."""
    rows = np.flatnonzero(seen)
    able = np.flatnonzero(chance > 0)
    together = _joint(drawn[:, rows], drawn[:, able])
    count = (together == 0).sum(axis=1)
    return float((e[rows] ** 2 / chance[rows]) @ count)


def _covariance(
    e: dict[str, FloatArray],
    seen: dict[str, BoolArray],
    drawn: dict[str, BoolArray],
    chance: dict[str, FloatArray],
    pair: tuple[str, str],
) -> float:
    """A lower bound of the covariance of both totals (equation 11): pairs never seen so are bounded by squares."""
    first, second = pair
    i, j = np.flatnonzero(seen[first]), np.flatnonzero(seen[second])
    together = _joint(drawn[first][:, i], drawn[second][:, j])
    scaled = np.outer(e[first][i] / chance[first][i], e[second][j] / chance[second][j])
    known = together > 0
    ratio = np.outer(chance[first][i], chance[second][j]) / np.where(known, together, 1.0)
    gain = (scaled * np.where(known, 1 - ratio, 0.0)).sum()
    lost = 0.0
    for a, b in ((first, second), (second, first)):
        rows, able = np.flatnonzero(seen[a]), np.flatnonzero(chance[b] > 0)
        count = (_joint(drawn[a][:, rows], drawn[b][:, able]) == 0).sum(axis=1)
        lost += float((e[a][rows] ** 2 / chance[a][rows]) @ count) / 2
    return float(gain) - lost


def _joint(a: BoolArray, b: BoolArray) -> FloatArray:
    """Share of the draws in which i is in the one and j in the other exposure."""
    return (a.astype(np.float32).T @ b.astype(np.float32)).astype(float) / len(a)
