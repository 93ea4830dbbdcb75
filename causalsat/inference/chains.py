"""Chains of draws: NUTS for hand-written densities, what chains say of themselves, one policy of when to warn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.warn import warn
from causalsat.exceptions import ConvergenceWarning

__all__ = [
    "ChainPolicy",
    "POLICY",
    "Settings",
    "chain_summary",
    "convergence_problems",
    "effective_size_of_means",
    "inverse_root",
    "negative_hessian",
    "run_chains",
    "sample_nuts",
    "seed_of",
    "warn_of_chains",
    "worst_summary",
]


FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """Sampler settings: draws and tuning draws a chain, chains, seed, progress bar, target of accepted steps."""

    n_draws: int
    n_tune: int
    n_chains: int
    seed: int
    progress: bool = False
    target_accept: float | None = None


def seed_of(random_state: Any) -> int:
    """A seed from an int, a RandomState, a Generator or None."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(2**31 - 1))


# ---------------------------------------------------------------------- policy
@dataclass(frozen=True)
class ChainPolicy:
    """From where on chains are reported as not converged.

    Attributes
    ----------
    r_hat : float
        Largest rank-normalised split R-hat that is accepted.
    ess_per_chain : float
        Smallest effective sample size that is accepted, for each chain.
    divergence_share : float
        Largest accepted share of draws that diverged.
    pareto_k : float
        Largest accepted shape of the importance weights, where there are any.

    References
    ----------
    Vehtari, A., Gelman, A., Simpson, D., Carpenter, B. and Buerkner, P.-C. (2021). Rank-normalization, folding, and
    localization: an improved R-hat. Bayesian Analysis 16(2).
    """

    r_hat: float = 1.01
    ess_per_chain: float = 100.0
    divergence_share: float = 0.01
    pareto_k: float = 0.7


POLICY = ChainPolicy()


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

    Returns
    -------
    dict
        ``r_hat`` (NaN for a single chain, infinite where draws are not finite), ``ess``, ``divergences``,
        ``n_chains`` and ``n_draws`` (of all chains).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> summary = chain_summary({"ate": rng.standard_normal((4, 500))}, 0)
    >>> summary["r_hat"] < 1.01, summary["ess"] > 1000, summary["n_draws"]
    (True, True, 2000)
    """
    import arviz

    r_hat: list[float] = []
    ess: list[float] = []
    with _without_numba(arviz.Numba):
        for name, values in draws.items():
            columns = values.reshape(*values.shape[:2], -1)
            for j in range(columns.shape[2]):
                column = columns[:, :, j]
                if not np.isfinite(column).all():
                    r_hat.append(math.inf)
                    ess.append(0.0)
                    continue
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


@contextmanager
def _without_numba(switch: Any) -> Iterator[None]:
    """Let ArviZ take NumPy's variances: to compile its own, in each process, costs more than they ever save here."""
    before = switch.numba_flag
    switch.numba_flag = False
    try:
        yield
    finally:
        switch.numba_flag = before


def worst_summary(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several fits: the worst R-hat and effective sample size, all divergences, draws and chains.

    Parameters
    ----------
    summaries : sequence of mapping
        As :func:`chain_summary` makes them; other entries are those of the first.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> each = [chain_summary({"ate": rng.standard_normal((4, n))}, 1) for n in (200, 500)]
    >>> worst = worst_summary(each)
    >>> worst["ess"] == each[0]["ess"], worst["divergences"], worst["n_draws"]
    (True, 2, 2800)
    """
    worst = dict(summaries[0])
    if len(summaries) > 1:
        r_hat = [s["r_hat"] for s in summaries if not math.isnan(s["r_hat"])]
        worst["r_hat"] = max(r_hat, default=math.nan)
        worst["ess"] = min(s["ess"] for s in summaries)
        for name in ("divergences", "n_draws"):
            worst[name] = sum(s[name] for s in summaries)
    return worst


def effective_size_of_means(means: FloatArray, sd: FloatArray) -> float:
    """Effective sample size behind posterior means that average conditional means over few dependent draws.

    The squared Monte Carlo error of a mean is the variance of the conditional means over their effective number; the
    result is the number of independent draws of the whole posterior that would give the same error, on average over
    quantities. Several chains are compared with each other; one chain is judged by its autocorrelation, which knows
    nothing of a mode that the chain has not visited.

    Parameters
    ----------
    means : ndarray of shape (chain, draw, k)
        Conditional means of k quantities, given each draw.
    sd : ndarray of shape (k,)
        Posterior standard deviations of the quantities.

    Returns
    -------
    float
        NaN for a single draw.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> independent = rng.standard_normal((1, 50, 200))
    >>> 40 < effective_size_of_means(independent, np.ones(200)) < 60
    True
    >>> effective_size_of_means(np.repeat(independent, 5, axis=1), np.ones(200)) < 75  # not 250
    True
    """
    n_chains, n, _ = means.shape
    usable = sd > 0
    if n_chains * n < 2 or not usable.any():
        return math.nan
    scaled = means[:, :, usable] / sd[usable]
    if n_chains > 1:
        error = float(scaled.mean(axis=1).var(axis=0, ddof=1).mean()) / n_chains
    else:
        centred = scaled[0] - scaled[0].mean(axis=0)
        variance = float((centred**2).sum(axis=0).mean()) / (n - 1)
        error = variance * _autocorrelation_time(centred) / n
    return 1.0 / error if error > 0 else math.inf


def _autocorrelation_time(centred: FloatArray) -> float:
    """One plus twice the sum of the common autocorrelations of (draw, k), while pairs are positive (Geyer 1992)."""
    n, total = len(centred), float((centred**2).sum())
    rho = [float((centred[: n - k] * centred[k:]).sum()) / max(total, 1e-300) for k in range(n)]
    time = 1.0
    for k in range(1, n - 1, 2):
        pair = rho[k] + rho[k + 1]
        if pair <= 0:
            break
        time += 2.0 * pair
    return time


# ---------------------------------------------------------------------- when to warn
def convergence_problems(summary: Mapping[str, Any], policy: ChainPolicy = POLICY) -> list[str]:
    """What of a summary lies outside the policy, one phrase each; empty where the chains are good.

    Parameters
    ----------
    summary : mapping
        As :func:`chain_summary` makes it: ``r_hat``, ``ess``, ``divergences``, ``n_chains``, ``n_draws``, and
        ``pareto_k`` where draws were weighted. Entries that are not there are not judged.
    policy : ChainPolicy
        The limits.

    Examples
    --------
    >>> convergence_problems({"r_hat": 1.0102, "ess": 399.7, "divergences": 30, "n_chains": 4, "n_draws": 2000})
    ['R-hat 1.0102 (above 1.01)', 'effective sample size 399 (below 400)', '30 divergences in 2000 draws (above 1 %)']
    """
    problems = []
    r_hat = summary.get("r_hat", math.nan)
    if r_hat > policy.r_hat:
        problems.append(f"R-hat {_above(r_hat, policy.r_hat, 3)} (above {policy.r_hat:g})")
    needed = policy.ess_per_chain * summary.get("n_chains", 1)
    if summary.get("ess", math.inf) < needed:
        problems.append(f"effective sample size {math.floor(summary['ess'])} (below {needed:g})")
    divergences, n_draws = summary.get("divergences", 0), summary.get("n_draws", 0)
    if divergences > policy.divergence_share * n_draws:
        share = f" (above {100 * policy.divergence_share:g} %)" if policy.divergence_share else ""
        problems.append(f"{divergences} divergence{'s' if divergences != 1 else ''} in {n_draws} draws{share}")
    k = summary.get("pareto_k", math.nan)
    if k > policy.pareto_k:
        problems.append(
            f"Pareto k of the importance weights {_above(k, policy.pareto_k, 2)} (above {policy.pareto_k:g})"
        )
    return problems


def warn_of_chains(summary: Mapping[str, Any], *, advice: str, policy: ChainPolicy = POLICY) -> None:
    """Warn, at the user's line, of chains outside the policy.

    Parameters
    ----------
    summary : mapping
        As for :func:`convergence_problems`.
    advice : str
        What the user of this estimator, as it is set, can do: "raise n_tune and n_draws".
    policy : ChainPolicy
        The limits.

    Warns
    -----
    ConvergenceWarning
        With every problem, its limit, and the advice.
    """
    problems = convergence_problems(summary, policy)
    if problems:
        warn(
            f"the sampler may not have converged: {', '.join(problems)}. What to do: {advice.rstrip('.')}.",
            ConvergenceWarning,
        )


def _above(value: float, limit: float, digits: int) -> str:
    """A value above a limit, with as many digits as it takes to see that it is."""
    while digits < 12 and round(value, digits) <= limit:
        digits += 1
    return f"{value:.{digits}f}"


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

    careful = {} if settings.target_accept is None else {"target_accept": settings.target_accept}
    return nutpie.sample(
        model,
        draws=settings.n_draws,
        tune=settings.n_tune,
        chains=settings.n_chains,
        cores=1,
        seed=settings.seed,
        save_warmup=False,
        progress_bar=settings.progress,
        **careful,
    )


def _guarded(density: Density, x: FloatArray, limit: float) -> tuple[float, FloatArray]:
    """Log density and gradient; NaN, which the sampler takes for a divergence, where floating point ends."""
    if x @ x < limit * limit or np.abs(x).max() < limit:  # the cheap test first
        try:
            value, gradient = density(x)
            if math.isfinite(value) and np.isfinite(gradient).all():
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
