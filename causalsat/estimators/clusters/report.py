"""Tables of a fitted cluster model: effects and probabilities of the types, variances, typical images, summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.ground import planar_metres
from causalsat.estimators.clusters.selection import Selection
from causalsat.exceptions import ParameterError
from causalsat.posterior import draw_quantiles

__all__ = [
    "check_cluster",
    "effect_table",
    "meaning",
    "probability_table",
    "selection_text",
    "summary_table",
    "typical_images",
    "variance_table",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def _tails(level: float) -> list[float]:
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r}", expected="a number between 0 and 1, such as 0.9")
    return [(1 - level) / 2, (1 + level) / 2]


def _describe(draws: FloatArray, level: float) -> dict[str, float]:
    lower, upper = draw_quantiles(draws, _tails(level))
    return {
        "mean": float(draws.mean()),
        "sd": float(draws.std(ddof=1)),
        "lower": float(lower),
        "upper": float(upper),
        "prob_positive": float((draws > 0).mean()),
    }


def effect_table(tau: FloatArray, share: FloatArray, level: float) -> Any:
    """One row a type, from draws of its effect (draw, K) and its share of the units (K,)."""
    import pandas as pd

    rows = [_describe(draws, level) | {"share": float(s)} for draws, s in zip(tau.T, share, strict=True)]
    return pd.DataFrame(rows, index=pd.Index(range(1, len(rows) + 1), name="cluster"))


def probability_table(probability: FloatArray, index: NDArray[Any], level: float) -> Any:
    """One row a unit, columns (type, statistic), from draws (draw, K, unit) of the types' probabilities."""
    import pandas as pd

    lower, upper = draw_quantiles(probability, _tails(level))
    tables = {"mean": probability.mean(axis=0), "sd": probability.std(axis=0, ddof=1), "lower": lower, "upper": upper}
    columns = {(k + 1, name): values[k] for k in range(probability.shape[1]) for name, values in tables.items()}
    table = pd.DataFrame(columns, index=pd.Index(index, name="unit"))
    table.columns = table.columns.set_names(["cluster", "statistic"])
    return table


def variance_table(
    probability: FloatArray, tau: FloatArray, sigma: FloatArray, index: NDArray[Any], *, shares: bool
) -> Any:
    """One row a unit: effect, and the parts of an individual's variance about it.

    From draws of the probabilities (draw, K, unit), effects (draw, K) and noise (draw, arm, K). With ``shares`` all
    units of an image have its mean effect, and nothing lies between types.
    """
    import pandas as pd

    mean = np.einsum("skm,sk->sm", probability, tau)
    noise = (sigma**2).sum(axis=1)
    square = np.einsum("skm,sk->sm", probability, tau**2)
    parts = {
        "effect": mean.mean(axis=0),
        "within": np.einsum("skm,sk->sm", probability, noise).mean(axis=0),
        "between": np.zeros(mean.shape[1]) if shares else (square - mean**2).mean(axis=0),
        "posterior": mean.var(axis=0, ddof=1),
    }
    parts["sd"] = np.sqrt(parts["within"] + parts["between"] + parts["posterior"])
    return pd.DataFrame(parts, index=pd.Index(index, name="unit"))


def check_cluster(cluster: Any, n_clusters: int) -> int:
    """Position of a type from its number; refuses others."""
    if isinstance(cluster, bool) or not isinstance(cluster, int | np.integer) or not 1 <= cluster <= n_clusters:
        raise ParameterError(f"cluster={cluster!r}", expected=f"a number from 1 to {n_clusters}")
    return int(cluster) - 1


def typical_images(
    draws: FloatArray, features: FloatArray, metres: FloatArray | None, *, n: int, kind: str, min_distance_m: float
) -> IntArray:
    """Positions of distinct images, far enough from each other.

    Parameters
    ----------
    draws : ndarray of shape (draw, unit)
        Probability of the type.
    features : ndarray of shape (unit, d)
        Features of the images; equal ones are one image.
    metres : ndarray of shape (unit, 2) or None
        Where the images are.
    n, kind, min_distance_m
        As in :meth:`causalsat.ImageEffectClusters.typical_images`.
    """
    by = {"most": draws.mean(axis=0), "least": -draws.mean(axis=0), "uncertain": draws.std(axis=0)}
    if kind not in by:
        raise ParameterError(f"kind={kind!r}", expected="'most', 'least' or 'uncertain'")
    chosen: list[int] = []
    for j in np.argsort(-by[kind], kind="stable"):
        if len(chosen) == n:
            break
        same = (features[chosen] == features[j]).all(axis=1).any() if chosen else False
        near = metres is not None and chosen and np.hypot(*(metres[chosen] - metres[j]).T).min() < min_distance_m
        if not same and not near:
            chosen.append(int(j))
    return np.array(chosen, dtype=np.int64)


def metres_of(X: Any) -> FloatArray | None:
    """Coordinates in metres of the places of a GeoDataFrame, shape (n, 2); None for chips."""
    if not hasattr(X, "geometry") or not hasattr(X, "estimate_utm_crs"):
        return None
    return planar_metres(X.geometry)


def summary_table(draws: Mapping[str, FloatArray], effects: Any) -> Any:
    """Table of the average effect, the types' effects and the scales with 90 % intervals.

    Parameters
    ----------
    draws : mapping of str to ndarray
        ``ate`` (draw,), ``sigma`` (draw, arm, K) and ``site_sd`` (draw,).
    effects : DataFrame
        Of :func:`effect_table`.
    """
    import pandas as pd

    rows = {"ATE": _describe(draws["ate"], 0.9) | {"share": np.nan}}
    rows |= {f"effect of cluster {k}": dict(row) for k, row in effects.iterrows()}
    for arm, label in enumerate(("control", "treated")):
        for k in range(len(effects)):
            rows[f"noise sd, {label}, cluster {k + 1}"] = _describe(draws["sigma"][:, arm, k], 0.9)
    if np.ptp(draws["site_sd"]) > 0:
        rows["sd of sites"] = _describe(draws["site_sd"], 0.9)
    table = pd.DataFrame(rows).T.rename(columns={"lower": "[0.05", "upper": "0.95]", "prob_positive": "P>0"})
    table.loc[[name for name in table.index if "sd" in name], "P>0"] = np.nan
    return table


def selection_text(selection: Selection) -> str:
    """Held-out log predictive density of each number of types over that of one type."""
    rows = zip(selection.n_clusters, selection.gain, selection.se, strict=True)
    return ", ".join(f"{k}: {gain:.1f} (se {se:.1f})" for k, gain, se in rows)


def meaning(n_clusters: int, weights: Mapping[int, float]) -> list[str]:
    """Notes of a summary: what the number of types says and what not, and over which numbers effects are averaged.

    Examples
    --------
    >>> meaning(2, {2: 0.75, 3: 0.25})[0]
    'the average effect and the effects of places are averaged over numbers of clusters: 2 (75 %), 3 (25 %)'
    """
    if n_clusters == 1:
        return [
            "one cluster does not say that effects are equal: they may differ in what no image shows, or by little"
        ]
    notes = []
    if weights:
        parts = ", ".join(f"{k} ({weight:.0%})".replace("%", " %") for k, weight in weights.items())
        notes = [f"the average effect and the effects of places are averaged over numbers of clusters: {parts}"]
    return [
        *notes,
        "clusters say that images tell effects apart, not how many kinds of place there are, nor why effects differ",
    ]
