"""Arrays in, arrays out: what the Bayesian causal forest needs around stochtree."""

from __future__ import annotations

import warnings
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.exceptions import CausalsatError, ConvergenceWarning, TreatmentError

__all__ = [
    "MissingExtraError",
    "chain_diagnostics",
    "check_coding",
    "compress",
    "forest_draws",
    "generator",
    "load_stochtree",
    "preliminary_effect",
    "rebuild",
    "warn_if_not_converged",
]

FloatArray = NDArray[np.float64]

R_HAT_LIMIT = 1.1


class MissingExtraError(CausalsatError, ImportError):
    """A package of an optional extra is not installed."""


def check_coding(treatment: FloatArray) -> None:
    """Refuse a treatment with two values that are not 0 and 1: almost always codes, not doses."""
    values = np.unique(treatment)
    if len(values) == 2 and not np.array_equal(values, (0.0, 1.0)):
        raise TreatmentError(
            f"treatment has the values {values[0]:g}, {values[1]:g}",
            expected="0 (control) and 1 (treated), or a dose with more than two values",
            todo="recode it, for example (treatment == 2).astype(int)",
        )


def preliminary_effect(
    X: FloatArray, y: FloatArray, t: FloatArray, weight: FloatArray, groups: NDArray[np.int64] | None
) -> tuple[float, float]:
    """Linear regression's coefficient of the treatment and its cluster-robust error: where the chains start.

    Features are adjusted for where there are at least five units for each.

    Examples
    --------
    >>> t = np.array([-0.5, 0.5, -0.5, 0.5])
    >>> round(preliminary_effect(np.zeros((4, 1)), 2 * t, t, np.ones(4), None)[0], 6)
    2.0
    """
    design = np.column_stack([np.ones_like(t), t])
    if 5 * (X.shape[1] + 2) <= len(y):
        design = np.column_stack([design, X - X.mean(axis=0)])
    inverse = np.linalg.pinv(design.T @ (weight[:, None] * design), hermitian=True)
    coef = inverse @ (design.T @ (weight * y))
    codes = np.arange(len(y)) if groups is None else groups
    scores = np.zeros((int(codes.max()) + 1, design.shape[1]))
    np.add.at(scores, codes, design * (weight * (y - design @ coef))[:, None])
    variance = inverse[1] @ (scores.T @ scores) @ inverse[1]
    return float(coef[1]), float(np.sqrt(max(variance, 0.0)))


def chain_diagnostics(quantities: dict[str, FloatArray]) -> dict[str, Any]:
    """R-hat and bulk effective sample size of named draws of shape (chain, draw), and their worst.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = chain_diagnostics({"ATE": rng.standard_normal((4, 200))})
    >>> found["r_hat"] < 1.02, found["ess"] > 500
    (True, True)
    """
    import arviz

    r_hat, ess = {}, {}
    for name, draws in quantities.items():
        several = draws.shape[0] > 1 and np.ptp(draws) > 0
        r_hat[name] = float(arviz.rhat(draws)) if several else float("nan")
        ess[name] = float(arviz.ess(draws)) if np.ptp(draws) > 0 else float("nan")
    first = next(iter(quantities.values()))
    return {
        "r_hat": max(r_hat.values()),
        "ess": min(ess.values()),
        **{f"r_hat {name}": value for name, value in r_hat.items()},
        **{f"ess {name}": value for name, value in ess.items()},
        "n_chains": int(first.shape[0]),
        "n_draws": int(first.size),
        "source": "stochtree",
    }


def warn_if_not_converged(diagnostics: dict[str, Any]) -> None:
    """Warn, with what to do, of chains that disagree."""
    if diagnostics["r_hat"] > R_HAT_LIMIT:
        warnings.warn(
            f"the chains have not mixed: R-hat {diagnostics['r_hat']:.2f} (above {R_HAT_LIMIT}). "
            "What to do: raise n_tune and n_draws.",
            ConvergenceWarning,
            stacklevel=5,
        )


def forest_draws(container: Any, table: FloatArray) -> FloatArray:
    """Draws (draw, unit) of the effect forest, on the sampler's scale."""
    dataset = load_stochtree().Dataset()
    dataset.add_covariates(np.ascontiguousarray(table))
    dataset.add_basis(np.ones((len(table), 1)))
    return np.asarray(container.predict_raw(dataset), dtype=float).reshape(len(table), -1).T


def compress(text: str) -> NDArray[np.uint8]:
    """Text as compressed bytes, shape (bytes,)."""
    return np.frombuffer(zlib.compress(text.encode(), 1), dtype=np.uint8).copy()


def rebuild(code: NDArray[np.uint8], n_trees: int) -> Any:
    """Stochtree's effect forest from its compressed JSON; parses data, runs none."""
    container = load_stochtree().ForestContainer(n_trees, 1, False, False)
    container.load_from_json_string(zlib.decompress(code.tobytes()).decode())
    return container


def generator(random_state: Any) -> np.random.Generator:
    """A Generator from an int, a Generator, a RandomState or None."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(int(random_state.randint(2**31 - 1)))
    return np.random.default_rng(random_state)


def load_stochtree() -> Any:
    """Stochtree, or an error that names the extra."""
    try:
        import stochtree
    except ImportError as error:
        raise MissingExtraError(
            "BayesianForestEffect needs the package stochtree, which is not installed",
            todo="pip install 'causalsat[trees]'",
        ) from error
    return stochtree
