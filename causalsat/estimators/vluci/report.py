"""Reports of an inferred confounder: draws of L, strengths of confounding, the region of the average effect.

**The likelihood region** of the average effect over strengths of confounding has no prior of the strength in it. At a
strength s the latent model's average effect is about N(ate(s), sd(s)^2), and the likelihood of the strength, with all
else integrated out, is its evidence. So

    l(psi) = max over s of [evidence(s) - (psi - ate(s))^2 / (2 sd(s)^2)]

is the profile log-likelihood of the average effect psi, no confounding being one of the strengths. A strength has
three unknowns (the link to the treatment, and to the outcome in each arm), and without confounding two of them mean
nothing, so that the best of all strengths lies further above the true one than one degree of freedom allows. The
region is therefore the set of the psi whose l is within half the chi-squared quantile of three degrees of freedom of
the highest: the projection of the joint region of all three (Scheffe 1953). Where strengths are hardly told apart,
all are in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from causalsat.core.inputs import FloatArray
from causalsat.estimators.vluci.posterior import Grid, curve_points
from causalsat.posterior import draw_quantiles

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LatentReport",
    "LikelihoodRegion",
    "design_effect",
    "law_shares",
    "law_table",
    "likelihood_region",
    "region_of_grid",
    "report",
    "strength_curve",
    "summary_notes",
    "summary_table",
]

COLLAPSED, LEAK, DEPENDENT = 0.05, 0.8, 0.05
UNKNOWNS = 3  # of a strength: the link to the treatment, and to the outcome in each arm


@dataclass(frozen=True, eq=False)
class LatentReport:
    """Diagnostics of the draws of L, one number a latent.

    Attributes
    ----------
    known : ndarray of shape (d,)
        Share of L's variance that X, T and Y determine: variance over units of the posterior mean. Below 0.05 the
        latent has collapsed to its prior.
    treatment_r2 : ndarray of shape (d,)
        Share of the treatment's variance given X that goes with the drawn latent; above 0.8 the treatment has leaked
        into it, and nobody with the same L was treated otherwise.
    x_r2 : ndarray of shape (d,)
        Adjusted share of the drawn latent's variance that X explains linearly; the prior says 0.
    mean, sd : ndarray of shape (d,)
        Of the draws over all units; the prior says 0 and 1.
    notes : tuple of str
        Problems, one sentence each.
    """

    known: FloatArray
    treatment_r2: FloatArray
    x_r2: FloatArray
    mean: FloatArray
    sd: FloatArray
    notes: tuple[str, ...]


def report(latents: FloatArray, X: FloatArray, t: FloatArray, weight: FloatArray) -> LatentReport:
    """Diagnostics of draws (m, n, d) of L for units with covariates (n, p) and treatment (n,)."""
    m, n, d = latents.shape
    w = weight / weight.sum()
    middle = latents.mean(axis=0)
    within = latents.var(axis=0, ddof=1) if m > 1 else np.zeros((n, d))
    between = w @ (middle - w @ middle) ** 2 - (w @ within) / m
    total = np.maximum(between + w @ within, 1e-12)
    known = np.clip(between / total, 0, 1)
    columns = np.column_stack([np.ones(n), X])
    flat = latents.transpose(1, 0, 2).reshape(n, m * d)
    residual_t, residual_l = (_residual(columns, v, weight) for v in (t[:, None], flat))
    both = w @ (residual_t * residual_l)
    scale = np.maximum((w @ residual_t**2) * (w @ residual_l**2), 1e-300)
    link = (both**2 / scale).reshape(m, d).mean(axis=0)
    spread = np.maximum(w @ (flat - w @ flat) ** 2, 1e-300)
    degrees = max(n - columns.shape[1], 1)
    x_r2 = (1 - (w @ residual_l**2) / spread * (n - 1) / degrees).reshape(m, d).mean(axis=0)
    mean, sd = (w @ flat).reshape(m, d).mean(axis=0), np.sqrt(spread).reshape(m, d).mean(axis=0)
    return LatentReport(known, link, x_r2, mean, sd, _notes(known, link, x_r2))


def _residual(columns: FloatArray, values: FloatArray, weight: FloatArray) -> FloatArray:
    root = np.sqrt(weight)[:, None]
    return np.asarray(values - columns @ np.linalg.lstsq(root * columns, root * values, rcond=None)[0])


def _notes(known: FloatArray, link: FloatArray, x_r2: FloatArray) -> tuple[str, ...]:
    notes = []
    for j in range(len(known)):
        if known[j] < COLLAPSED:
            notes.append(f"latent {j} has collapsed to its prior: the data say nothing of it")
        if link[j] > LEAK:
            notes.append(f"the treatment has leaked into latent {j}: given it, hardly any unit could do otherwise")
        if x_r2[j] > DEPENDENT:
            notes.append(f"latent {j} depends on X: it is not the confounder apart from X that the model speaks of")
    return tuple(notes)


def design_effect(X: FloatArray, t: FloatArray, y: FloatArray, groups: NDArray[np.int64] | None) -> float:
    """How many units of a cluster say as much of treatment and outcome together as one independent unit.

    1 + (m - 1) r_T r_Y with m the size of the clusters and r the intraclass correlations of the residuals given X
    (Moulton 1990).
    """
    if groups is None:
        return 1.0
    size = np.bincount(groups).astype(float)
    m = float((size**2).sum() / size.sum())
    both = np.column_stack([t, y])
    residual = _residual(np.column_stack([np.ones(len(t)), X]), both, np.ones(len(t)))
    left = np.abs(residual).max(axis=0) > 1e-10 * np.abs(both).max(axis=0)  # else X decides it up to rounding
    r = [_intraclass(v, groups, size) if some else 0.0 for v, some in zip(residual.T, left, strict=True)]
    return 1.0 + (m - 1) * r[0] * r[1]


def _intraclass(v: FloatArray, groups: NDArray[np.int64], size: FloatArray) -> float:
    n, k = len(v), len(size)
    if k < 2 or n <= k:
        return 0.0
    middle = np.bincount(groups, v) / np.maximum(size, 1)
    inside = float(((v - middle[groups]) ** 2).sum() / (n - k))
    outside = float((size * (middle - v.mean()) ** 2).sum() / (k - 1))
    usual = (n - (size**2).sum() / n) / (k - 1)
    return float(np.clip((outside - inside) / max(outside + (usual - 1) * inside, 1e-300), 0, 1))


@dataclass(frozen=True)
class LikelihoodRegion:
    """Average effect at the likeliest strength, and the ends of the region, in the units of the outcome.

    ``none`` is whether no confounding is among the strengths consistent with the data.
    """

    estimate: float
    lower: float
    upper: float
    none: bool


def likelihood_region(
    ate: FloatArray,
    sd: FloatArray,
    evidence: FloatArray,
    level: float,
    unknowns: int = UNKNOWNS,
    *,
    none: NDArray[np.bool_] | None = None,
) -> LikelihoodRegion:
    """Region from strengths, of which some are no confounding.

    Parameters
    ----------
    ate, sd, evidence : ndarray of shape (k,)
        Average effect at each strength, its standard deviation, and log evidence.
    level : float
        Of the region.
    unknowns : int
        Degrees of freedom.
    none : ndarray of bool of shape (k,), optional
        Which strengths are no confounding; by default the first.

    Examples
    --------
    With one degree of freedom, one strength is a normal interval; two that the data do not tell apart are both in.

    >>> one = likelihood_region(np.zeros(1), np.ones(1), np.zeros(1), 0.9, 1)
    >>> round(one.lower, 2), round(one.upper, 2)
    (-1.64, 1.64)
    >>> two = likelihood_region(np.array([0.0, 5.0]), np.ones(2), np.zeros(2), 0.9, 1)
    >>> round(two.lower, 2), round(two.upper, 2)
    (-1.64, 6.64)
    """
    best = int(np.argmax(evidence))
    slack = 0.5 * float(chi2.ppf(level, unknowns)) - (evidence[best] - evidence)  # for a strength's own normal
    inside = slack >= 0
    half = sd[inside] * np.sqrt(2.0 * slack[inside])
    low, high = float((ate[inside] - half).min()), float((ate[inside] + half).max())
    return LikelihoodRegion(float(ate[best]), low, high, bool(inside[0] if none is None else inside[none].any()))


def region_of_grid(grid: Grid, unit: float, level: float, *, identified: bool) -> LikelihoodRegion:
    """Likelihood region of a grid of strengths, in units of the outcome; all strengths where none is identified.

    That is the union of the regions under all laws of noise and confounder that are likely given the data.

    Parameters
    ----------
    grid : Grid
        Strengths with their evidence and average effects.
    unit : float
        The outcome's unit of a model's effect.
    level : float
        Of the region.
    identified : bool
        Whether the data say anything of the strength: of a dose they do not.
    """
    relative = grid.evidence if grid.below is None else grid.below
    relative = relative if identified else np.zeros_like(relative)
    region = likelihood_region(grid.ate * unit, grid.ate_sd * unit, relative, level, none=grid.none)
    best = int(np.argmax(grid.evidence if identified else relative))
    return replace(region, estimate=float(grid.ate[best]) * unit)


def strength_curve(grid: Grid, unit: float, level: float) -> pd.DataFrame:
    """Table of strengths that are alike in both arms: link, share, average effect with interval, evidence."""
    import pandas as pd

    half = float(norm.ppf(0.5 + level / 2))
    table = pd.DataFrame(curve_points(grid), columns=["link", "share", "ate", "sd", "evidence"])
    table["ate"] *= unit
    table["lower"], table["upper"] = (table["ate"] + s * half * table["sd"] * unit for s in (-1, 1))
    return table[["link", "share", "ate", "lower", "upper", "evidence"]]


def law_table(grid: Grid, unit: float, level: float) -> pd.DataFrame:
    """Table of the laws of confounder and noise: probability, that of confounding, average effect and region."""
    import pandas as pd

    chi = 0.5 * float(chi2.ppf(level, UNKNOWNS))
    rows = {}
    for kind in grid.kinds:
        own = grid.under(noise=kind.noise, confounder=kind.confounder) & ~grid.none
        without = grid.none & grid.under(noise=kind.noise)
        if not own.any():
            continue
        inside = own & (grid.evidence >= max(grid.evidence[own].max(), grid.evidence[without].max()) - chi)
        weight = grid.weight[own]
        rows[kind.confounder, kind.noise] = {
            "probability": float(weight.sum()),
            "ate": float(weight @ grid.ate[own] / max(weight.sum(), 1e-300)) * unit,
            "lower": float(grid.ate[inside].min()) * unit if inside.any() else float("nan"),
            "upper": float(grid.ate[inside].max()) * unit if inside.any() else float("nan"),
        }
    for noise in dict.fromkeys(kind.noise for kind in grid.kinds):
        own = grid.none & grid.under(noise=noise)
        ate = float(grid.ate[own][0]) * unit
        probability = float(grid.weight[own].sum())
        rows["none", noise] = {"probability": probability, "ate": ate, "lower": ate, "upper": ate}
    index = pd.MultiIndex.from_tuples(rows, names=["confounder", "noise"])
    return pd.DataFrame(list(rows.values()), index=index)


def law_shares(grid: Grid) -> dict[str, str]:
    """Posterior probabilities of the laws, for a summary; empty where there is one of each."""
    shares = {}
    for name, label in (("confounder", "confounder, if there is one"), ("noise", "noise of the outcome")):
        values = list(dict.fromkeys(getattr(kind, name) for kind in grid.kinds))
        if len(values) > 1:
            shares[label] = ", ".join(f"{value} {grid.share_of(**{name: value}):.2f}" for value in values)
    return shares


def summary_table(ate_draws: FloatArray, n_imputations: int) -> pd.DataFrame:
    """The average effect with its spread within and between the imputations."""
    import pandas as pd

    by_imputation = ate_draws.reshape(n_imputations, -1)
    between = by_imputation.mean(axis=1).std(ddof=1) if n_imputations > 1 else 0.0
    low, high = draw_quantiles(ate_draws, [0.025, 0.975])
    columns = {
        "estimate": ate_draws.mean(),
        "std err": ate_draws.std(ddof=1),
        "[0.025": low,
        "0.975]": high,
        "between imputations": between,
    }
    return pd.DataFrame(columns, index=["ATE"])


def summary_notes(
    region: LikelihoodRegion | None, latent_notes: tuple[str, ...], *, identified: bool
) -> tuple[str, ...]:
    """Notes under the summary; ``region`` is that of 95 %, where there is one."""
    notes = [
        "An unobserved confounder is identified by the shapes that the model assumes, not by the data alone: see the "
        "class's documentation and sensitivity().",
        "known: share of L that the data determine (0: collapsed); treatment_r2: share of the treatment given X that "
        "goes with L (1: leak); x_r2: share of L that X explains (should be 0).",
    ]
    if region is not None:
        notes.append(
            f"Without a prior of the strength: {region.lower:.3f} to {region.upper:.3f}, the average effects of the "
            "latent model at all strengths of confounding consistent with the data (95 %, likelihood_region())."
        )
    if not identified:
        notes.append("For a dose the strength of confounding is not identified: its posterior is its prior.")
    return (*notes, *latent_notes)
