"""What the draws of L say of themselves: collapse, leaks of the treatment, dependence on X; design effects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FloatArray

__all__ = ["LatentReport", "design_effect", "report"]

COLLAPSED, LEAK, DEPENDENT = 0.05, 0.8, 0.05


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
        What is amiss, in words.
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
    left_t, left_l = (_residual(columns, v, weight) for v in (t[:, None], flat))
    both = w @ (left_t * left_l)
    scale = np.maximum((w @ left_t**2) * (w @ left_l**2), 1e-300)
    link = (both**2 / scale).reshape(m, d).mean(axis=0)
    spread = np.maximum(w @ (flat - w @ flat) ** 2, 1e-300)
    degrees = max(n - columns.shape[1], 1)
    x_r2 = (1 - (w @ left_l**2) / spread * (n - 1) / degrees).reshape(m, d).mean(axis=0)
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

    1 + (m - 1) r_T r_Y with m the size of the clusters and r the intraclass correlations of what X leaves (Moulton
    1990).
    """
    if groups is None:
        return 1.0
    size = np.bincount(groups).astype(float)
    m = float((size**2).sum() / size.sum())
    left = _residual(np.column_stack([np.ones(len(t)), X]), np.column_stack([t, y]), np.ones(len(t)))
    r = [_intraclass(v, groups, size) for v in left.T]
    return 1.0 + (m - 1) * r[0] * r[1]


def _intraclass(v: FloatArray, groups: NDArray[np.int64], size: FloatArray) -> float:
    n, k = len(v), len(size)
    if k < 2 or n <= k or v.std() == 0:
        return 0.0
    middle = np.bincount(groups, v) / np.maximum(size, 1)
    inside = float(((v - middle[groups]) ** 2).sum() / (n - k))
    outside = float((size * (middle - v.mean()) ** 2).sum() / (k - 1))
    usual = (n - (size**2).sum() / n) / (k - 1)
    return float(np.clip((outside - inside) / max(outside + (usual - 1) * inside, 1e-300), 0, 1))
