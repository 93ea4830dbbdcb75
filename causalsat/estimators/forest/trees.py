"""Arrays in, arrays out: what the Bayesian causal forest needs around stochtree."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalsat.core.inputs import FitData
from causalsat.core.optional import require
from causalsat.exceptions import ConvergenceWarning
from causalsat.inference.bootstrap import default_regressor
from causalsat.inference.projection import inverse_of_gram

__all__ = [
    "centre_outcome",
    "chain_diagnostics",
    "compress",
    "draw_intercept",
    "forest_draws",
    "generator",
    "load_stochtree",
    "preliminary_effect",
    "propensity_at",
    "propensity_surface",
    "rebuild",
    "village_variance",
    "warn_if_not_converged",
    "with_weight",
]

FloatArray = NDArray[np.float64]

R_HAT_LIMIT = 1.1
CENTRED = 1e-12  # mean outcome, in standard deviations, that the sampler takes for zero


def with_weight(data: FitData) -> FitData:
    """The units of positive weight: those without have an infinite noise variance, which stochtree does not take."""
    kept = data.sample_weight > 0
    if kept.all():
        return data
    weight = data.sample_weight[kept]
    return replace(
        data,
        X=data.X[kept],
        y=data.y[kept],
        treatment=data.treatment[kept],
        groups=None if data.groups is None else np.unique(data.groups[kept], return_inverse=True)[1],
        sample_weight=weight / weight.mean(),
        propensity=None if data.propensity is None else data.propensity[kept],
    )


def centre_outcome(y: FloatArray) -> tuple[FloatArray, float]:
    """The outcome less its mean, and that mean; the outcome as it is, and 0, where the mean is rounding.

    Chains of stochtree 0.4.5 that start at single leaves diverge from an outcome with another unweighted mean: its
    noise variance then grows to the mean times 1e6. A weighted mean of 0 does not do.

    Examples
    --------
    >>> y, level = centre_outcome(np.array([1.0, 2.0]))
    >>> y, level
    (array([-0.5,  0.5]), 1.5)
    """
    level = float(y.mean())
    return (y - level, level) if abs(level) > CENTRED else (y, 0.0)


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
    inverse = inverse_of_gram(design.T @ (weight[:, None] * design))
    coef = inverse @ (design.T @ (weight * y))
    codes = np.arange(len(y)) if groups is None else groups
    scores = np.zeros((int(codes.max()) + 1, design.shape[1]))
    np.add.at(scores, codes, design * (weight * (y - design @ coef))[:, None])
    variance = inverse[1] @ (scores.T @ scores) @ inverse[1]
    return float(coef[1]), float(np.sqrt(max(variance, 0.0)))


def village_variance(effects: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draws (draw,) of the villages' variance given draws (village, draw) of their effects.

    From its conditional inverse gamma with a weak prior, IG(1, 0.005) in units of the outcome's variance.
    """
    n_villages = effects.shape[0]
    return (0.005 + 0.5 * (effects**2).sum(axis=0)) / rng.gamma(1 + 0.5 * n_villages, size=effects.shape[1])


def draw_intercept(
    residual: FloatArray,
    dose: FloatArray,
    weight: FloatArray,
    groups: NDArray[np.int64],
    noise: FloatArray,
    between: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    r"""Draws (draw,) of a coefficient b in ``r = b t + u_g + e`` with the village effects integrated out.

    Generalised least squares with the variances of each draw and prior b ~ N(0, 1).

    Parameters
    ----------
    residual : ndarray of shape (draw, n)
        Outcome less the forests.
    dose, weight, groups : ndarray of shape (n,)
        Treatment, weights, village codes.
    noise, between : ndarray of shape (draw,)
        Variances of noise and of village effects.

    Examples
    --------
    >>> groups, t = np.repeat(np.arange(100), 4), np.repeat(np.arange(100) % 2, 4).astype(float)
    >>> one = np.ones(2000)
    >>> b = draw_intercept(np.tile(t, (2000, 1)), t, np.ones(400), groups, one, one, np.random.default_rng(0))
    >>> round(float(b.mean()), 1), round(float(b.std()), 2)  # sqrt(1.25 / 50)
    (1.0, 0.16)
    """
    member = np.zeros((len(dose), int(groups.max()) + 1))
    member[np.arange(len(dose)), groups] = weight
    precision = 1.0 / np.maximum(noise, 1e-12)
    share = precision[:, None] / (1.0 / np.maximum(between, 1e-12)[:, None] + precision[:, None] * member.sum(axis=0))
    by_dose = dose @ member
    information = 1.0 + precision * ((weight * dose) @ dose - share @ by_dose**2)
    score = precision * (residual @ (weight * dose) - ((residual @ member) * share) @ by_dose)
    return np.asarray(score / information + rng.standard_normal(len(noise)) / np.sqrt(information))


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
    """Draws (draw, unit) of a forest, on the sampler's scale."""
    dataset = load_stochtree().Dataset()
    dataset.add_covariates(np.ascontiguousarray(table))
    dataset.add_basis(np.ones((len(table), 1)))
    return np.asarray(container.predict_raw(dataset), dtype=float).reshape(len(table), -1).T


def propensity_surface(X: FloatArray, pi: FloatArray, *, binary: bool) -> Any:
    """Ridge regression of the training units' propensities, as logits where binary, on the features."""
    clipped = np.clip(pi, 1e-6, 1 - 1e-6)
    return default_regressor().fit(X, np.log(clipped / (1 - clipped)) if binary else pi)


def propensity_at(surface: Any, X: FloatArray, *, binary: bool) -> FloatArray:
    """Propensity of new units, shape (n,), from :func:`propensity_surface`.

    Examples
    --------
    >>> X = np.linspace(-2, 2, 50)[:, None]
    >>> surface = propensity_surface(X, 1 / (1 + np.exp(-X[:, 0])), binary=True)
    >>> propensity_at(surface, np.array([[0.0], [1.0]]), binary=True).round(2)
    array([0.5 , 0.73])
    """
    linear = np.asarray(surface.predict(X), dtype=float)
    return 1 / (1 + np.exp(-linear)) if binary else linear


def compress(container: Any) -> NDArray[np.uint8]:
    """JSON of a stochtree forest as compressed bytes, shape (bytes,)."""
    return np.frombuffer(zlib.compress(container.dump_json_string().encode(), 1), dtype=np.uint8).copy()


def rebuild(code: NDArray[np.uint8], n_trees: int, *, leaf_constant: bool) -> Any:
    """Stochtree's forest from its compressed JSON; parses data, runs none."""
    container = load_stochtree().ForestContainer(n_trees, 1, leaf_constant, False)
    container.load_from_json_string(zlib.decompress(code.tobytes()).decode())
    return container


def generator(random_state: Any) -> np.random.Generator:
    """A Generator from an int, a Generator, a RandomState or None."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(int(random_state.randint(2**31 - 1)))
    return np.random.default_rng(random_state)


def load_stochtree() -> Any:
    """Stochtree, or an error that names the extra."""
    require("stochtree", "trees", "BayesianForestEffect")
    import stochtree

    return stochtree
