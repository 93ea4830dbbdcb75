"""What VLUCI's methods need beside the model: checked parameters, refits, curves, tables."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from causalsat.core import inputs
from causalsat.core.inputs import FloatArray
from causalsat.core.warn import warn
from causalsat.estimators.vluci.network import NetworkSettings
from causalsat.estimators.vluci.posterior import curve_points
from causalsat.estimators.vluci.region import LikelihoodRegion, likelihood_region
from causalsat.exceptions import ParameterError, TreatmentError
from causalsat.posterior import draw_quantiles

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "check_parameters",
    "network_settings",
    "notes",
    "observed_treatment",
    "placebos",
    "prior_nodes",
    "refits",
    "region",
    "strength_curve",
    "summary_table",
    "warn_once",
]

WHOLE = {
    "n_latents": 1,
    "n_imputations": 1,
    "n_grid": 3,
    "n_networks": 1,
    "hidden": 1,
    "max_epochs": 1,
    "warmup": 0,
    "n_draws": 2,
}


def check_parameters(
    model: Any, inferences: tuple[str, ...], outcomes: tuple[str, ...], noises: tuple[str, ...]
) -> None:
    """Refuse parameters outside their domain.

    Raises
    ------
    ParameterError
        Naming the parameter.
    """
    words = {"inference": inferences, "outcome": outcomes, "noise": noises, "device": ("auto", "cpu", "cuda")}
    for name, allowed in words.items():
        value = getattr(model, name)
        if not isinstance(value, str) or value not in allowed:
            raise ParameterError(f"{name}={value!r}", expected=" or ".join(repr(a) for a in allowed))
    for name, least in WHOLE.items():
        value = getattr(model, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ParameterError(f"{name}={value!r}", expected=f"an integer of at least {least}")
    for name, low, high in (("prior_confounding", 0.0, 1.0), ("link_scale", 1e-6, 100.0), ("independence", 0.0, 1e6)):
        value = getattr(model, name)
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise ParameterError(f"{name}={value!r}", expected=f"a number between {low:g} and {high:g}")


def network_settings(model: Any) -> NetworkSettings:
    """Settings of the networks from the estimator's parameters."""
    return NetworkSettings(
        n_latents=int(model.n_latents),
        hidden=int(model.hidden),
        warmup=int(model.warmup),
        independence=float(model.independence),
        link_scale=float(model.link_scale),
        max_epochs=int(model.max_epochs),
        device=model.device,
        progress=bool(model.progress),
    )


def warn_once(caught: list[warnings.WarningMessage]) -> None:
    """Issue what the fits of the base warned of, one warning a kind, with how many fits it was said of."""
    by_kind: dict[type[Warning], list[str]] = {}
    for item in caught:
        by_kind.setdefault(item.category, []).append(str(item.message))
    for kind, said in by_kind.items():
        more = f" (and {len(said) - 1} more such warnings of the base's fits)" if len(said) > 1 else ""
        warn(said[0] + more, kind)


def observed_treatment(values: Any, n: int, *, binary: bool) -> FloatArray:
    """Treatments of observed units; they may all be of one arm."""
    if values is None:
        raise TreatmentError("no treatment", expected="the treatment that the units had", todo="pass treatment=")
    t = np.asarray(values, dtype=float)
    if t.shape != (n,) or not np.isfinite(t).all() or (binary and not np.isin(t, (0.0, 1.0)).all()):
        raise TreatmentError(
            f"treatment of shape {t.shape}",
            expected=f"{n} finite values" + (", 0 or 1" if binary else ""),
        )
    return t


def prior_nodes(d: int) -> tuple[FloatArray, FloatArray]:
    """Points (k, d) and weights (k,) whose average is that over N(0, I): Gauss-Hermite, or axis points for d > 1.

    Exact for cubic functions of L (for d > 1, where they have no products).

    Examples
    --------
    >>> nodes, weights = prior_nodes(2)
    >>> float((weights @ nodes[:, 0] ** 2).round(9)), float(weights.sum().round(9))
    (1.0, 1.0)
    """
    reach = np.sqrt(3.0) if d < 3 else np.sqrt(d)
    nodes = np.concatenate([np.zeros((1, d)), reach * np.eye(d), -reach * np.eye(d)])
    outer = 1 / (2 * reach**2)
    return nodes, np.concatenate([[1 - 2 * d * outer], np.full(2 * d, outer)])


def strength_curve(engine: Any, level: float) -> pd.DataFrame:
    """Table of :meth:`VLUCI.strength_curve`."""
    import pandas as pd

    if not hasattr(engine, "grid"):
        raise ParameterError("a model fitted with networks", expected="inference='marginal'")
    rows = curve_points(engine.grid)
    half = float(norm.ppf(0.5 + level / 2))
    unit = engine.scaling.y_sd / engine.scaling.t_sd
    table = pd.DataFrame(rows, columns=["link", "share", "ate", "sd", "evidence"])
    table["ate"] *= unit
    table["lower"], table["upper"] = (table["ate"] + s * half * table["sd"] * unit for s in (-1, 1))
    return table[["link", "share", "ate", "lower", "upper", "evidence"]]


def region(model: Any, level: float) -> LikelihoodRegion:
    """Region of :meth:`VLUCI.likelihood_region`."""
    engine = model.engine_
    if not hasattr(engine, "grid"):
        raise ParameterError("a model fitted with networks", expected="inference='marginal'")
    if not len(engine.grid.places):
        raise ParameterError(
            "a fit that ruled unobserved confounding out (prior_confounding=0, a known propensity, or few units)",
            expected="a fit that looked at strengths of confounding",
        )
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r}", expected="a number between 0 and 1")
    ate, sd, evidence = engine.grid.ate, engine.grid.ate_sd, engine.grid.evidence
    unit = engine.scaling.y_sd / engine.scaling.t_sd
    if not model.binary_:
        evidence = np.zeros_like(evidence)  # of a dose the data say nothing
    return likelihood_region(ate * unit, sd * unit, evidence, level)


def _row(model: Any, level: float) -> dict[str, float]:
    low, high = draw_quantiles(model.ate_draws_, [(1 - level) / 2, (1 + level) / 2])
    mean = float(model.ate_draws_.mean())
    return {"ate": mean, "lower": float(low), "upper": float(high), "probability": model.probability_}


def refits(
    model: Any, settings: list[tuple[str, dict[str, Any]]], X: Any, y: Any, roles: dict[str, Any], level: float
) -> pd.DataFrame:
    """Average effects of refits under changed parameters, a row each."""
    import pandas as pd

    rows = {name: _row(model._refit(**changes).fit(X, y, **roles), level) for name, changes in settings}
    return pd.DataFrame(rows).T


def placebos(
    model: Any, X: Any, y: Any, treatment: Any, roles: dict[str, Any], n_repeats: int, level: float
) -> pd.DataFrame:
    """Refits with permuted treatments."""
    import pandas as pd

    t = inputs.check_treatment(treatment, len(np.asarray(y)), binary=False)
    rows = {}
    for i in range(n_repeats):
        rng = np.random.default_rng(i)
        again = model._refit().fit(X, y, treatment=rng.permutation(t), **roles)
        rows[f"placebo {i}"] = {**_row(again, level), "treatment_r2": float(again.report_.treatment_r2.max())}
    return pd.DataFrame(rows).T


def summary_table(ate_draws: FloatArray, members: list[Any]) -> pd.DataFrame:
    """The average effect with its spread within and between the imputations."""
    import pandas as pd

    by_member = ate_draws.reshape(len(members), -1)
    between = by_member.mean(axis=1).std(ddof=1) if len(members) > 1 else 0.0
    low, high = draw_quantiles(ate_draws, [0.025, 0.975])
    columns = {
        "estimate": ate_draws.mean(),
        "std err": ate_draws.std(ddof=1),
        "[0.025": low,
        "0.975]": high,
        "between imputations": between,
    }
    return pd.DataFrame(columns, index=["ATE"])


def notes(model: Any) -> tuple[str, ...]:
    """Notes under the summary."""
    told = [
        "An unobserved confounder is identified by the shapes that the model assumes, not by the data alone: see the "
        "class's documentation and sensitivity().",
        "known: share of L that the data determine (0: collapsed); treatment_r2: share of the treatment given X that "
        "goes with L (1: leak); x_r2: share of L that X explains (should be 0).",
    ]
    if hasattr(model.engine_, "grid") and len(model.engine_.grid.places):
        found = region(model, 0.95)
        told.append(
            f"Without a prior of the strength: {found.lower:.3f} to {found.upper:.3f}, the average effects of the "
            "latent model at all strengths of confounding that the data bear (95 %, likelihood_region())."
        )
    if not model.binary_:
        told.append("For a dose the strength of confounding is not identified: its posterior is its prior.")
    return (*told, *model.report_.notes)
