"""Tables of a fitted cluster model: effects and probabilities of the types, variances, typical images, summary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.base import Summary
from causalsat.exceptions import ParameterError
from causalsat.posterior import draw_quantiles

FloatArray = NDArray[np.float64]


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


def cluster_effects(est: Any, level: float) -> Any:
    """One row a type."""
    import pandas as pd

    share = est._probabilities(est.scores_).mean(axis=0)[:, est.unit_image_].mean(axis=1)
    rows = [
        _describe(draws, level) | {"share": float(s)} for draws, s in zip(est.draws_["tau"].T, share, strict=True)
    ]
    return pd.DataFrame(rows, index=pd.Index(range(1, len(rows) + 1), name="cluster"))


def cluster_probabilities(est: Any, X: Any, level: float) -> Any:
    """One row a unit, columns (type, statistic)."""
    import pandas as pd

    features, index = est._design_features(X)
    draws = est._probabilities(features)
    lower, upper = draw_quantiles(draws, _tails(level))
    tables = {"mean": draws.mean(axis=0), "sd": draws.std(axis=0, ddof=1), "lower": lower, "upper": upper}
    columns = {(k + 1, name): values[k] for k in range(draws.shape[1]) for name, values in tables.items()}
    table = pd.DataFrame(columns, index=pd.Index(index, name="unit"))
    table.columns = table.columns.set_names(["cluster", "statistic"])
    return table


def unit_variance(est: Any, X: Any) -> Any:
    """One row a unit: effect, and the parts of an individual's variance about it."""
    import pandas as pd

    features, index = est._design_features(X)
    pi, tau = est._probabilities(features), est.draws_["tau"]
    mean = np.einsum("skm,sk->sm", pi, tau)
    noise = (est.draws_["sigma"] ** 2).sum(axis=1)
    mixed = float(est.assignment != "share")  # with shares all units of an image have its mean effect
    parts = {
        "effect": mean.mean(axis=0),
        "within": np.einsum("skm,sk->sm", pi, noise).mean(axis=0),
        "between": mixed * (np.einsum("skm,sk->sm", pi, tau**2) - mean**2).mean(axis=0),
        "posterior": mean.var(axis=0, ddof=1),
    }
    parts["sd"] = np.sqrt(parts["within"] + parts["between"] + parts["posterior"])
    return pd.DataFrame(parts, index=pd.Index(index, name="unit"))


def check_cluster(est: Any, cluster: Any) -> int:
    """Position of a type from its number; refuses others."""
    if isinstance(cluster, bool) or not isinstance(cluster, int | np.integer) or not 1 <= cluster <= est.n_clusters_:
        raise ParameterError(f"cluster={cluster!r}", expected=f"a number from 1 to {est.n_clusters_}")
    return int(cluster) - 1


def typical_images(est: Any, X: Any, cluster: int, n: int, kind: str, min_distance_m: float) -> NDArray[np.int64]:
    """Positions of distinct images, far enough from each other."""
    k = check_cluster(est, cluster)
    features, _ = est._design_features(X)
    draws = est._probabilities(features)[:, k]
    by = {"most": draws.mean(axis=0), "least": -draws.mean(axis=0), "uncertain": draws.std(axis=0)}
    if kind not in by:
        raise ParameterError(f"kind={kind!r}", expected="'most', 'least' or 'uncertain'")
    metres = _metres(X)
    chosen: list[int] = []
    for j in np.argsort(-by[kind], kind="stable"):
        if len(chosen) == n:
            break
        same = (features[chosen] == features[j]).all(axis=1).any() if chosen else False
        near = metres is not None and chosen and np.hypot(*(metres[chosen] - metres[j]).T).min() < min_distance_m
        if not same and not near:
            chosen.append(int(j))
    return np.array(chosen, dtype=np.int64)


def _metres(X: Any) -> FloatArray | None:
    """Coordinates in metres of the places of a GeoDataFrame; None for chips."""
    if not hasattr(X, "geometry") or not hasattr(X, "estimate_utm_crs"):
        return None
    points = X.geometry.to_crs(X.estimate_utm_crs()).representative_point()
    return np.column_stack([points.x, points.y])


def summary(est: Any) -> Summary:
    """Table of effects and scales; the average effect beside regressions; the choice of the number of types."""
    import pandas as pd

    rows = {"ATE": _describe(est.draws_["ate"], 0.9) | {"share": np.nan}}
    rows |= {f"effect of cluster {k}": dict(row) for k, row in cluster_effects(est, 0.9).iterrows()}
    for arm, label in enumerate(("control", "treated")):
        for k in range(est.n_clusters_):
            rows[f"noise sd, {label}, cluster {k + 1}"] = _describe(est.draws_["sigma"][:, arm, k], 0.9)
    if np.ptp(est.draws_["site_sd"]) > 0:
        rows["sd of sites"] = _describe(est.draws_["site_sd"], 0.9)
    table = pd.DataFrame(rows).T.rename(columns={"lower": "[0.05", "upper": "0.95]", "prob_positive": "P>0"})
    table.loc[[name for name in table.index if "sd" in name], "P>0"] = np.nan
    info: dict[str, Any] = {"units": est.n_units_, "images": est.n_images_, "groups": est.n_groups_}
    info |= {name: f"{value:.4g} (se {se:.4g})" for name, (value, se) in est.reference_.items()}
    if est.selection_ is not None:
        shown = zip(est.selection_.n_clusters, est.selection_.gain, est.selection_.se, strict=True)
        info["held-out log density over one cluster"] = ", ".join(f"{k}: {g:.1f} (se {s:.1f})" for k, g, s in shown)
    notes = (
        "90 % equal-tailed intervals; share is the mean probability of a type over the training units",
        "posterior of effects, noise and last layers given fixed features",
    )
    return Summary(f"{type(est).__name__} (K = {est.n_clusters_})", table, {**info, **est._diagnostics()}, notes)
