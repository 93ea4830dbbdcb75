"""NUTS for log densities written by hand, and whitening by the curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.inference.chains import Settings

__all__ = ["inverse_root", "negative_hessian", "run_chains", "sample_nuts"]

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
        Centre of the chains' starting points, which are normal around it.
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
    hessian = np.array([density(mode - e)[1] - density(mode + e)[1] for e in shifts]) / (2 * STEP)
    return np.asarray((hessian + hessian.T) / 2)


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
