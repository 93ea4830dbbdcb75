"""The printed table of the linear effect model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.posterior import draw_quantiles

FloatArray = NDArray[np.float64]

SCALES = {
    "effect_sd": "sd of effects",
    "group_sd": "sd of villages",
    "slope_sd": "sd of village effects on treatment",
    "stratum_sd": "sd of strata",
    "stratum_slope_sd": "sd of stratum effects on treatment",
}
UNITS = {"gaussian": "the outcome's units", "bernoulli": "the logit"}


def coefficient_table(
    draws: Mapping[str, FloatArray], names: Sequence[str], strata: Sequence[str], family: str
) -> Any:
    """Average effect, interactions and stratum effects, then scales: mean, sd, 90 % interval, P(> 0)."""
    import pandas as pd

    rows: dict[str, FloatArray] = {"ATE": draws["ate"]}
    rows |= {f"treatment x {name}": draws["interaction"][:, j] for j, name in enumerate(names)}
    if "stratum_slope" in draws:
        rows |= {f"treatment x stratum {label}": draws["stratum_slope"][:, h] for h, label in enumerate(strata)}
    scales = {label: draws[name] for name, label in SCALES.items() if name in draws}
    if not names and not strata:
        del scales["sd of effects"]
    noise = draws["noise"]
    word = "noise sd" if family == "gaussian" else "dispersion"
    labels = [word] if noise.shape[1] == 1 else [f"{word}, control", f"{word}, treated"]
    scales |= {label: noise[:, a] for a, label in enumerate(labels[: noise.shape[1]])}
    effects = pd.DataFrame([_describe(v, signed=True) for v in rows.values()], index=list(rows))
    if not scales:
        return effects
    return pd.concat([effects, pd.DataFrame([_describe(v, signed=False) for v in scales.values()], list(scales))])


def notes(family: str, prior: str, n_interactions: int) -> tuple[str, ...]:
    """What the table's numbers are."""
    scale = UNITS.get(family, "the logarithm of the mean outcome")
    return (
        f"interactions are the change of the effect, in {scale}, for one standard deviation of the feature",
        f"{prior} prior on {n_interactions} interactions; 90 % equal-tailed intervals",
    )


def advice(prior: str, sampler: str) -> str:
    """What can be done about chains that have not converged, besides what is already set."""
    options = ["raise n_tune and n_draws"]
    if prior != "normal":
        options.append("use prior='normal'")
    if sampler == "laplace":
        options.append("use sampler='auto'")
    return ", or ".join(options)


def _describe(values: FloatArray, *, signed: bool) -> dict[str, float]:
    lower, upper = draw_quantiles(values, [0.05, 0.95])
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "[0.05": float(lower),
        "0.95]": float(upper),
        "P>0": float((values > 0).mean()) if signed else float("nan"),
    }
