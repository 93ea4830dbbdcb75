"""Sampling of the linear effect model's densities by nutpie's NUTS, and what the chains say of themselves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.estimators._linear_layout import stretch
from causalsat.exceptions import ConvergenceWarning

FloatArray = NDArray[np.float64]

R_HAT_LIMIT = 1.01
PARETO_K_LIMIT = 0.7
ESS_PER_CHAIN = 100
STEP_LIMIT = 50.0  # scales beyond exp(+-50) are outside floating point and outside any posterior


def sample_density(
    density: Callable[..., Any],
    arguments: tuple[Any, ...],
    start: FloatArray,
    *,
    steps: FloatArray,
    n_draws: int,
    n_tune: int,
    n_chains: int,
    seed: int,
    progress: bool = False,
) -> tuple[FloatArray, int]:
    """Sample a log density with gradient by nutpie's No-U-Turn sampler.

    Parameters
    ----------
    density : callable
        ``density(x, *arguments)`` gives the log density at x, shape (d,), and its gradient.
    arguments : tuple
        What follows x.
    start : ndarray of shape (d,)
        Centre of the chains' starting points.
    steps : ndarray of shape (k,)
        Of the first k coordinates, those with a positive step are sampled as u = step sinh(v).
    n_draws, n_tune, n_chains : int
        Draws kept and tuning draws a chain; chains.
    seed : int
        Seed; equal seeds give equal draws.
    progress : bool
        Show nutpie's progress bar.

    Returns
    -------
    draws : ndarray of shape (chain, draw, d)
        Draws.
    divergences : int
        Divergent transitions after tuning.
    """
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    dim, signed = len(start), np.flatnonzero(steps > 0)
    centre = start.copy()
    centre[signed] = np.arcsinh(start[signed] / steps[signed])

    def make_density() -> Callable[..., Any]:
        return lambda x: _guarded(density, x, steps, arguments)

    def make_expand(*_: Any) -> Callable[..., Any]:
        return lambda x: {"x": np.array(x, dtype=np.float64)}

    def start_near(seed: int) -> FloatArray:
        return centre + 0.3 * np.random.default_rng(seed).standard_normal(dim)

    model = from_pyfunc(
        dim, make_density, make_expand, [np.dtype("float64")], [(dim,)], ["x"], make_initial_point_fn=start_near
    )
    trace = nutpie.sample(
        model,
        draws=n_draws,
        tune=n_tune,
        chains=n_chains,
        cores=1,
        seed=seed,
        save_warmup=False,
        progress_bar=progress,
    )
    draws = np.array(trace.posterior["x"])
    draws[..., signed] = steps[signed] * np.sinh(draws[..., signed])
    return draws, int(trace.sample_stats["diverging"].sum())


def _guarded(
    density: Callable[..., Any], x: FloatArray, steps: FloatArray, arguments: tuple[Any, ...]
) -> tuple[float, FloatArray]:
    """Log density and gradient in x; NaN, which the sampler takes for a divergence, where floating point ends."""
    if np.abs(x).max() < STEP_LIMIT:
        try:
            slope = np.ones(len(steps))
            inside, log_jacobian = stretch(x, steps, slope)
            logp, gradient = density(inside, *arguments)
            gradient[: len(steps)] *= slope
            gradient[: len(steps)] += np.tanh(x[: len(steps)]) * (steps > 0)
            if np.isfinite(logp) and np.isfinite(gradient).all():
                return logp + log_jacobian, gradient
        except (np.linalg.LinAlgError, ValueError):  # not positive definite in floating point
            pass
    return float("nan"), np.zeros_like(x)


def chain_diagnostics(draws: Mapping[str, FloatArray], divergences: int, sampler: str) -> dict[str, Any]:
    """Largest R-hat and smallest effective sample size over the named quantities.

    Effective sample sizes are those of bulk and tails for effects, of the bulk for scales.

    Parameters
    ----------
    draws : mapping of str to ndarray of shape (chain, draw) or (chain, draw, k)
        What is reported of the model; names that end in "sd" and "noise" are scales.
    """
    r_hat, ess = _worst(draws)
    first = next(iter(draws.values()))
    return {
        "r_hat": r_hat,
        "ess": ess,
        "divergences": int(divergences),
        "n_chains": int(first.shape[0]),
        "n_draws": int(first.shape[0] * first.shape[1]),
        "sampler": sampler,
    }


def _worst(draws: Mapping[str, FloatArray]) -> tuple[float, float]:
    import arviz

    r_hat: list[float] = []
    ess: list[float] = []
    for name, values in draws.items():
        methods = ("bulk",) if name.endswith("sd") or name == "noise" else ("bulk", "tail")
        columns = values.reshape(*values.shape[:2], -1)
        for j in range(columns.shape[2]):
            column = columns[:, :, j]
            if np.ptp(column) == 0:
                continue
            if len(column) > 1:
                r_hat.append(float(arviz.rhat(column)))
            ess.append(min(float(arviz.ess(column, method=m)) for m in methods))
    return (float(np.nanmax(r_hat)) if r_hat else float("nan")), float(np.min(ess, initial=np.inf))


def worst_diagnostics(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Diagnostics of several fits of one model, such as those of imputations: the worst of each."""
    found = dict(each[0])
    if len(each) > 1:
        found |= {
            "r_hat": max(d["r_hat"] for d in each),
            "ess": min(d["ess"] for d in each),
            "divergences": sum(d["divergences"] for d in each),
            "n_draws": sum(d["n_draws"] for d in each),
            "imputations": len(each),
        }
    return found


def warn_if_not_converged(diagnostics: Mapping[str, Any]) -> None:
    """Warn, with what to do, of R-hat above 1.01, few effective draws, many divergences or wild weights."""
    wrong = []
    if diagnostics["r_hat"] > R_HAT_LIMIT:
        wrong.append(f"R-hat {diagnostics['r_hat']:.3f} (above {R_HAT_LIMIT})")
    needed = ESS_PER_CHAIN * diagnostics["n_chains"]
    if diagnostics["ess"] < needed:
        wrong.append(f"effective sample size {diagnostics['ess']:.0f} (below {needed})")
    if diagnostics["divergences"] > 0.01 * diagnostics["n_draws"]:
        wrong.append(f"{diagnostics['divergences']} divergences in {diagnostics['n_draws']} draws")
    if diagnostics.get("pareto_k", 0.0) > PARETO_K_LIMIT:
        wrong.append(f"Pareto k of the importance weights {diagnostics['pareto_k']:.2f} (above {PARETO_K_LIMIT})")
    if wrong:
        warnings.warn(
            f"the sampler may not have converged: {', '.join(wrong)}. "
            "What to do: raise n_tune and n_draws, or use prior='normal'.",
            ConvergenceWarning,
            stacklevel=6,
        )
