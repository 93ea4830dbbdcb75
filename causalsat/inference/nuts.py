"""NUTS for log densities written by hand, whitening by the curvature, and what chains say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.inference.chains import Settings

__all__ = ["chain_summary", "complaints", "inverse_root", "negative_hessian", "run_chains", "sample_nuts"]

FloatArray = NDArray[np.float64]
Density = Callable[[FloatArray], tuple[float, FloatArray]]

STEP = 1e-4  # of the central differences of the gradient, in coordinates of order one


def sample_nuts(
    density: Density, centre: FloatArray, settings: Settings, *, spread: float = 0.3, limit: float = 50.0
) -> tuple[FloatArray, int]:
    """Sample a log density with gradient by nutpie's No-U-Turn sampler.

    Parameters
    ----------
    density : callable
        ``density(x)`` gives the log density at x, shape (d,), and its gradient.
    centre : ndarray of shape (d,)
        Centre of the chains' starting points, which are normal round it.
    settings : Settings
        Draws kept and tuning draws a chain, chains, seed, progress bar. Equal seeds give equal draws.
    spread : float
        Standard deviation of the starting points.
    limit : float
        Coordinates beyond it are outside floating point and outside any posterior.

    Returns
    -------
    draws : ndarray of shape (chain, draw, d)
        Draws.
    divergences : int
        Divergent transitions after tuning.
    """
    from nutpie.compiled_pyfunc import from_pyfunc

    dim = len(centre)
    model = from_pyfunc(
        dim,
        lambda: lambda x: _guarded(density, x, limit),
        lambda *_: lambda x: {"x": np.array(x, dtype=np.float64)},
        [np.dtype("float64")],
        [(dim,)],
        ["x"],
        make_initial_point_fn=lambda seed: centre + spread * np.random.default_rng(seed).standard_normal(dim),
    )
    trace = run_chains(model, settings)
    return np.array(trace.posterior["x"]), int(trace.sample_stats["diverging"].sum())


def run_chains(model: Any, settings: Settings) -> Any:
    """Trace of a model that nutpie has compiled, its chains one after another."""
    import nutpie

    return nutpie.sample(
        model,
        draws=settings.n_draws,
        tune=settings.n_tune,
        chains=settings.n_chains,
        cores=1,
        seed=settings.seed,
        save_warmup=False,
        progress_bar=settings.progress,
    )


def _guarded(density: Density, x: FloatArray, limit: float) -> tuple[float, FloatArray]:
    """Log density and gradient; NaN, which the sampler takes for a divergence, where floating point ends."""
    if np.abs(x).max() < limit:
        try:
            value, gradient = density(x)
            if np.isfinite(value) and np.isfinite(gradient).all():
                return value, gradient
        except (np.linalg.LinAlgError, ValueError):  # not positive definite in floating point
            pass
    return float("nan"), np.zeros_like(x)


# ---------------------------------------------------------------------- curvature
def negative_hessian(density: Density, mode: FloatArray) -> FloatArray:
    """Curvature of minus the log density at a point, by central differences of the gradient."""
    shifts = np.eye(len(mode)) * STEP
    found = np.array([density(mode - e)[1] - density(mode + e)[1] for e in shifts]) / (2 * STEP)
    return np.asarray((found + found.T) / 2)


def inverse_root(curvature: FloatArray, *, least: float = 0.0, share: float = 0.0) -> FloatArray:
    """Matrix L with L L' = H^-1, its eigenvalues raised to at least ``least`` and ``share`` of the largest.

    Examples
    --------
    >>> root = inverse_root(np.diag([4.0, 0.01]), least=0.25)
    >>> np.sqrt(np.diag(root @ root.T)).round(1)
    array([0.5, 2. ])
    """
    values, vectors = np.linalg.eigh(curvature)
    return np.ascontiguousarray(vectors / np.sqrt(np.maximum(values, max(least, share * float(values.max())))))


# ---------------------------------------------------------------------- diagnostics
def chain_summary(
    draws: Mapping[str, FloatArray],
    divergences: int,
    *,
    methods: Callable[[str], Sequence[str]] = lambda _: ("bulk", "tail"),
) -> dict[str, Any]:
    """Largest R-hat and smallest effective sample size over named quantities; constants are left out.

    Parameters
    ----------
    draws : mapping of str to ndarray of shape (chain, draw) or (chain, draw, k)
        What is reported of the model.
    divergences : int
        Divergent transitions.
    methods : callable
        Which effective sample sizes, "bulk" and "tail", count for a name.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = chain_summary({"ate": rng.standard_normal((4, 500))}, 0)
    >>> found["r_hat"] < 1.01, found["ess"] > 1000, found["n_draws"]
    (True, True, 2000)
    """
    import arviz

    r_hat: list[float] = []
    ess: list[float] = []
    for name, values in draws.items():
        columns = values.reshape(*values.shape[:2], -1)
        for j in range(columns.shape[2]):
            column = columns[:, :, j]
            if np.ptp(column) == 0:
                continue
            if len(column) > 1:
                r_hat.append(float(arviz.rhat(column)))
            ess.append(min(float(arviz.ess(column, method=m)) for m in methods(name)))
    first = next(iter(draws.values()))
    return {
        "r_hat": float(np.nanmax(r_hat)) if r_hat else float("nan"),
        "ess": float(np.min(ess, initial=np.inf)),
        "divergences": int(divergences),
        "n_chains": int(first.shape[0]),
        "n_draws": int(first.shape[0] * first.shape[1]),
    }


def complaints(found: Mapping[str, Any], *, r_hat: float, ess: float, divergences: float) -> list[str]:
    """What is wrong with a summary of chains, in words: R-hat above, effective draws below, divergences above."""
    wrong = []
    if found["r_hat"] > r_hat:
        wrong.append(f"R-hat {found['r_hat']:.3f} (above {r_hat})")
    if found["ess"] < ess:
        wrong.append(f"effective sample size {found['ess']:.0f} (below {ess:g})")
    if found["divergences"] > divergences:
        wrong.append(f"{found['divergences']} divergences in {found['n_draws']} draws")
    return wrong
